/* check.c - see check.h.
 *
 * The bounds of L0 and FVU.  Right pairings: L0 on another text is within a factor of 2 of the declared one (measured by
 * others on Gemma Scope: 12.8 for 12, 81 for 85, 66.6 for 71, 88 for 82), and FVU is between 0.1 and 0.6.  Wrong ones, of
 * the same facts: L0 8 for 85 and FVU 9.8 (the raw MLP output), L0 19 for 12 (a transcoder's input with the gain), L0 664.
 * So a factor above 3 or an FVU above 1 is wrong, and what lies between is doubtful.
 *
 * The bounds of the ratio, FVU over the best rival's FVU, were fixed on every other one of the embedded SAEs (res.0, res.2,
 * res.4, mlp.3, transcoder.3), fed every tensor of their width in the embedded model on 128, 256 and 3049 tokens of
 * data/check.txt.  On their own tensors the ratio is at most 0.91 (res.4, whose nearest is resid_mid.5); on wrong ones that
 * L0 and FVU alone find nothing wrong with, at least 1.11; a layer too early or late at the same site, at least 1.9.  So
 * doubt begins inside the first gap, nearer to its upper end, since neighbouring layers of deeper models are more alike;
 * and wrong, which is refused, halfway (on a log scale) from there to a whole layer.  Tested on the others (res.1, res.3,
 * res.5, att.3): at most 0.72, at least 1.39 and 1.69.  tests/test_guard.c prints the whole.
 */
#include "sae/check.h"

#include "sae/reader.h"
#include "sae/rivals.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

const char *lp_verdict_name(lp_verdict v)
{
    static const char *const names[] = {"ok", "doubtful", "wrong"};
    return names[v];
}

/* ---- judging ----------------------------------------------------------------------------------------------------- */

static lp_verdict worse(lp_verdict a, lp_verdict b)
{
    return a > b ? a : b;
}

static lp_verdict judge_figures(const lp_quality *q, double declared_l0)
{
    double far = declared_l0 > 0 && q->l0 > 0 ? fabs(log(q->l0 / declared_l0)) : 0;
    if (far > log(LP_CHECK_L0_WRONG) || !(q->fvu < LP_CHECK_FVU_WRONG) || q->l0 == 0) return LP_SAE_WRONG;
    return far > log(LP_CHECK_L0_DOUBTFUL) || q->fvu > LP_CHECK_FVU_DOUBTFUL ? LP_SAE_DOUBTFUL : LP_SAE_RIGHT;
}

static lp_verdict judge_rival(const lp_check *k)
{
    if (!k->has_rival || !(k->rival_fvu < LP_CHECK_FVU_WRONG)) return LP_SAE_RIGHT; /* it fits no better there */
    if (k->quality.fvu > LP_CHECK_RIVAL_WRONG * k->rival_fvu) return LP_SAE_WRONG;
    return k->quality.fvu > LP_CHECK_RIVAL_DOUBTFUL * k->rival_fvu ? LP_SAE_DOUBTFUL : LP_SAE_RIGHT;
}

void lp_check_judge(lp_check *k, double declared_l0, const lp_sae_spot *spot)
{
    const lp_quality *q = &k->quality;
    lp_verdict by_rival = judge_rival(k);
    k->verdict = worse(judge_figures(q, declared_l0), by_rival);
    k->fits_rival = by_rival != LP_SAE_RIGHT;
    k->why[0] = 0;
    if (k->verdict == LP_SAE_RIGHT) return;
    char own[LP_SPOT_TEXT], other[LP_SPOT_TEXT], declared[40] = "", better[LP_SPOT_TEXT + 60] = "";
    if (declared_l0 > 0) snprintf(declared, sizeof declared, " (declared %.4g)", declared_l0);
    if (k->fits_rival)
        snprintf(better, sizeof better, "; %s fits better (L0 %.1f, FVU %.2f)", lp_sae_spot_text(other, &k->rival),
                 k->rival_l0, k->rival_fvu);
    snprintf(k->why, sizeof k->why, "L0 %.1f%s and FVU %.2f on %s%s: %s", q->l0, declared, q->fvu,
             lp_sae_spot_text(own, spot), better,
             k->verdict == LP_SAE_WRONG ? "not the tensor it was trained on"
                                        : "is it the right layer, site and model?");
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

typedef struct runner {
    lp_reader *r;
    int last; /* layer that is looked at; -1: what comes after the layers too */
} runner;

static lp_status run_piece(lp_session *s, const int *ids, size_t n, void *user, lp_error *err)
{
    runner *w = user;
    lp_status st = w->last < 0 ? lp_session_eval(s, ids, n, err) : lp_session_peek(s, ids, n, w->last, err);
    return lp_reader_explain(w->r, st, err);
}

static int last_layer(const lp_sae *const *saes, int n)
{
    int last = 0;
    for (int i = 0; i < n; i++) {
        const lp_sae_spot *p = &saes[i]->spot;
        if (p->site > LP_RESID_POST || p->site_out > LP_RESID_POST) return -1;
        if (p->layer > last) last = p->layer;
        if (p->layer_out > last) last = p->layer_out;
    }
    return last;
}

lp_status lp_sae_meter(lp_meter *meters, lp_session *s, const lp_sae *const *saes, int n, const lp_passage *p,
                       lp_error *err)
{
    static const uint8_t first = 1; /* the position of <bos> */
    lp_reader_options o = {.meters = meters, .leave = &first, .n_leave = p->has_bos, .keeps_nothing = 1};
    runner w = {.last = last_layer(saes, n)};
    LP_TRY(lp_reader_new(&w.r, s, saes, n, &o, err));
    lp_status st = lp_passage_run(p, s, run_piece, &w, err);
    lp_reader_free(w.r);
    return st;
}

/* ---- an SAE and its rivals --------------------------------------------------------------------------------------- */

/* An SAE's seats: its own tensor's, its rivals'. */
typedef struct party {
    int own, rivals[LP_SAE_RIVALS], n_rivals;
} party;

/* Copies of SAEs, weights borrowed, each somewhere else and with its meter; all [n]. */
typedef struct bench {
    lp_sae *copies;
    const lp_sae **saes; /* of them */
    lp_meter *meters;
    party *parties; /* one an SAE */
    int n;
} bench;

/* The seat of the weights of s at `spot`: one that is there, or a new one. */
static lp_status seat(int *out, bench *b, const lp_sae *s, lp_sae_spot spot, lp_error *err)
{
    for (*out = 0; *out < b->n; ++*out) {
        const lp_sae *other = &b->copies[*out];
        if (other->encoder.data == s->encoder.data && lp_sae_spot_same(&other->spot, &spot)) return LP_OK;
    }
    lp_sae *copy = &b->copies[b->n];
    *copy = *s;
    copy->spot = spot;
    b->saes[b->n] = copy;
    LP_TRY(lp_meter_new(&b->meters[b->n], copy, err));
    b->n++;
    return LP_OK;
}

static lp_status set_up(bench *b, const lp_sae *const *saes, int n, const lp_config *c, lp_error *err)
{
    size_t room = (size_t)n * (LP_SAE_RIVALS + 1) + 1;
    b->copies = lp_calloc(room, sizeof *b->copies);
    b->saes = lp_calloc(room, sizeof *b->saes);
    b->meters = lp_calloc(room, sizeof *b->meters);
    b->parties = lp_calloc((size_t)n + 1, sizeof *b->parties);
    if (!b->copies || !b->saes || !b->meters || !b->parties) return lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; i < n; i++) {
        party *y = &b->parties[i];
        lp_sae_spot rivals[LP_SAE_RIVALS];
        LP_TRY(lp_sae_fits(saes[i], c, err));
        y->n_rivals = lp_sae_rivals(rivals, saes[i], c);
        LP_TRY(seat(&y->own, b, saes[i], saes[i]->spot, err));
        for (int k = 0; k < y->n_rivals; k++) LP_TRY(seat(&y->rivals[k], b, saes[i], rivals[k], err));
    }
    return LP_OK;
}

static void take_down(bench *b)
{
    for (int i = 0; i < b->n; i++) lp_meter_free(&b->meters[i]);
    free(b->copies);
    free(b->saes);
    free(b->meters);
    free(b->parties);
}

static lp_check gather(const bench *b, const party *y)
{
    lp_check k = {.quality = lp_meter_read(&b->meters[y->own])};
    for (int i = 0; i < y->n_rivals; i++) {
        lp_quality q = lp_meter_read(&b->meters[y->rivals[i]]);
        if (!(q.l0 > 0) || (k.has_rival && !(q.fvu < k.rival_fvu))) continue;
        k.has_rival = true;
        k.rival = b->saes[y->rivals[i]]->spot, k.rival_l0 = q.l0, k.rival_fvu = q.fvu;
    }
    return k;
}

lp_status lp_sae_check(lp_check *checks, lp_session *s, const lp_sae *const *saes, int n, const lp_passage *p,
                       lp_error *err)
{
    bench b = {0};
    if (p->n_tokens < LP_CHECK_TOKENS)
        return lp_fail(err, LP_E_RANGE, "a text of %zu tokens is too short to judge an SAE by; %d are needed",
                       p->n_tokens, (int)LP_CHECK_TOKENS);
    lp_status st = set_up(&b, saes, n, &lp_session_model(s)->config, err);
    if (st == LP_OK) st = lp_sae_meter(b.meters, s, b.saes, b.n, p, err);
    for (int i = 0; i < n && st == LP_OK; i++) {
        checks[i] = gather(&b, &b.parties[i]);
        lp_check_judge(&checks[i], saes[i]->declared_l0, &saes[i]->spot);
    }
    take_down(&b);
    return st;
}
