/* causal.c - see causal.h.
 *
 * One clean run, with a tape of a single row at every SAE's site: only that row is encoded.  Then a branch for each
 * feature (lp_session_branch), as many side by side as a wave holds, under one editing hook an SAE.
 */
#include "sae/causal.h"

#include "core/generate.h"
#include "core/kernels.h"
#include "sae/encode.h"
#include "sae/reader.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct work {
    const lp_causal_question *q;
    const lp_sae *const *saes;
    int n_saes;
    lp_causal *out;
    lp_session *s;  /* a fork of the caller's, freed at the end                  */
    lp_tape *tapes; /* [n_saes] one row each: what the SAE reads at the position */
    int *handles;   /* [n_saes] of their hooks                                   */
    float *clean;   /* [V]                                                       */
    double norm;    /* log sum exp of it                                         */
    float *decoder; /* [widest d_out] the row that is taken out                  */
    lp_features f;  /* of one SAE                                                */
} work;

/* ---- what is active ---------------------------------------------------------------------------------------------- */

static lp_status take_memory(work *w, lp_error *err)
{
    size_t n = (size_t)w->n_saes, widest = 1;
    w->tapes = lp_calloc(n + 1, sizeof *w->tapes);
    w->handles = lp_calloc(n + 1, sizeof *w->handles);
    for (size_t i = 0; i < n && w->tapes; i++) {
        const lp_sae *s = w->saes[i];
        if ((size_t)s->d_out > widest) widest = (size_t)s->d_out;
        w->tapes[i] = (lp_tape){.n_layers = 1, .first_pos = w->out->at, .n_pos = 1, .width = s->d_in};
        w->tapes[i].x = lp_calloc((size_t)s->d_in, sizeof(float));
        if (!w->tapes[i].x) return lp_fail(err, LP_E_MEMORY, "out of memory");
    }
    w->decoder = lp_calloc(widest, sizeof *w->decoder);
    w->clean = lp_calloc((size_t)lp_session_model(w->s)->config.vocab, sizeof *w->clean);
    if (!w->tapes || !w->handles || !w->decoder || !w->clean) return lp_fail(err, LP_E_MEMORY, "out of memory");
    return LP_OK;
}

static void give_back(work *w)
{
    for (int i = 0; i < w->n_saes && w->tapes; i++) free(w->tapes[i].x);
    free(w->tapes);
    free(w->handles);
    free(w->clean);
    free(w->decoder);
    lp_features_free(&w->f);
    lp_session_free(w->s);
}

static lp_status run_clean(work *w, lp_error *err)
{
    lp_status st = LP_OK;
    for (int i = 0; i < w->n_saes && st == LP_OK; i++) {
        const lp_sae_spot *spot = &w->saes[i]->spot;
        w->handles[i] = lp_session_hook(w->s, lp_tap(spot->site, spot->layer, &w->tapes[i]), err);
        if (w->handles[i] < 0) st = (lp_status)w->handles[i];
    }
    if (st == LP_OK) st = lp_generate_prompt(w->s, w->q->ids, w->q->n, err);
    for (int i = 0; i < w->n_saes; i++)
        if (w->handles[i] > 0) lp_session_unhook(w->s, w->handles[i]);
    return st;
}

/* The clean run's figures, and the target where none was asked for. */
static lp_status read_clean(work *w, lp_error *err)
{
    int V = lp_session_model(w->s)->config.vocab;
    lp_causal *out = w->out;
    memcpy(w->clean, lp_session_logits(w->s), (size_t)V * sizeof *w->clean);
    w->norm = lp_log_sum_exp(w->clean, V);
    out->best = lp_argmax(w->clean, V);
    if (out->best < 0) return lp_fail(err, LP_E_RANGE, "the prompt's logits are not numbers: nothing can be ranked");
    out->best_p = lp_expf(lp_logprob(w->clean[out->best], w->norm));
    out->target = w->q->target < 0 ? out->best : w->q->target;
    out->logit = (double)w->clean[out->target];
    out->logprob = out->logit - w->norm;
    return LP_OK;
}

static lp_status add_active(work *w, int sae, lp_error *err)
{
    const lp_session_options *o = lp_session_get_options(w->s);
    lp_encoder *e = NULL;
    LP_TRY(lp_encoder_new(&e, w->saes[sae], o->arithmetic, lp_session_env(w->s), err));
    lp_status st = lp_encode(&w->f, e, w->tapes[sae].x, 1, err);
    lp_encoder_free(e);
    if (st < 0) return lp_prefix(err, st, w->saes[sae]->name);
    LP_TRY(st);
    size_t n = w->f.start[1];
    lp_causal *out = w->out;
    if (!lp_grow((void **)&out->rows, &out->capacity, out->n + n + 1, sizeof *out->rows))
        return lp_fail(err, LP_E_MEMORY, "no memory for %zu features", out->n + n);
    for (size_t i = 0; i < n; i++)
        out->rows[out->n++] = (lp_causal_row){.sae = sae, .index = w->f.index[i], .activation = w->f.value[i]};
    return LP_OK;
}

/* Stronger first; equals in the order of SAEs and features, so that an order is one order. */
static int by_activation(const void *a, const void *b)
{
    const lp_causal_row *x = a, *y = b;
    if (x->activation != y->activation) return x->activation < y->activation ? 1 : -1;
    if (x->sae != y->sae) return x->sae < y->sae ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static lp_status find_active(work *w, lp_error *err)
{
    for (int i = 0; i < w->n_saes; i++) LP_TRY(add_active(w, i, err));
    if (w->out->n) qsort(w->out->rows, w->out->n, sizeof *w->out->rows, by_activation);
    if (w->out->n > (size_t)w->q->k) w->out->n = (size_t)w->q->k;
    return LP_OK;
}

/* ---- one without ------------------------------------------------------------------------------------------------- */

/* The hook of one SAE: every branch whose feature is one of that SAE's loses it. */
typedef struct ablation {
    work *w;
    int sae, handle;
} ablation;

/* In double and rounded once, as steering does it: a float whose change is exactly zero keeps its bits. */
static int ablate(lp_act *act, void *user)
{
    const ablation *a = user;
    const work *w = a->w;
    const lp_causal_row *gone = &w->out->rows[act->branch];
    const lp_sae *sae = w->saes[a->sae];
    int row = w->out->at - act->pos, width = act->heads * act->width;
    if (gone->sae != a->sae || row < 0 || row >= act->rows) return 0;
    double amount = -(double)gone->activation * lp_decoder_scale(sae, gone->index, w->tapes[a->sae].x);
    float *x = act->x + (size_t)row * (size_t)width;
    lp_sae_decoder_row(sae, gone->index, w->decoder);
    for (int i = 0; i < width; i++) {
        double delta = amount * (double)w->decoder[i];
        if (delta != 0) x[i] = (float)((double)x[i] + delta);
    }
    return 0;
}

static int measure(int branch, const float *logits, void *user)
{
    work *w = user;
    const lp_env *env = lp_session_env(w->s);
    lp_causal_row *row = &w->out->rows[branch];
    int V = lp_session_model(w->s)->config.vocab;
    double norm = lp_log_sum_exp(logits, V), z = (double)logits[w->out->target];
    row->d_logit = z - w->out->logit;
    row->d_logprob = z - norm - w->out->logprob;
    row->kl = lp_kl(w->clean, w->norm, logits, norm, V);
    row->best = lp_argmax(logits, V);
    row->best_p = row->best < 0 ? NAN : lp_expf(lp_logprob(logits[row->best], norm));
    lp_progress(env, "ablating", branch + 1, (int64_t)w->out->n);
    return lp_cancelled(env) || (w->q->fn && w->q->fn(row, logits, w->q->user));
}

/* A branch for each feature, all from the position on. */
static lp_status run_branches(work *w, lp_error *err)
{
    size_t n = w->out->n, each = w->q->n - (size_t)w->out->at;
    if (n > (size_t)INT_MAX / each) return lp_fail(err, LP_E_RANGE, "%zu features: too many to rank", n);
    int *ids = lp_calloc(n * each, sizeof *ids);
    if (!ids) return lp_fail(err, LP_E_MEMORY, "no memory for %zu ablated runs", n);
    for (size_t i = 0; i < n; i++) memcpy(ids + i * each, w->q->ids + w->out->at, each * sizeof *ids);
    lp_status st = lp_session_branch(w->s, ids, (int)each, (int)n, measure, w, err);
    free(ids);
    return st == LP_STOPPED && lp_cancelled(lp_session_env(w->s)) ? LP_CANCELLED : st;
}

static lp_status run_without(work *w, lp_error *err)
{
    if (!w->out->n) return LP_OK;
    LP_TRY(lp_session_rewind(w->s, w->out->at, err));
    ablation *hooks = lp_calloc((size_t)w->n_saes, sizeof *hooks);
    lp_status st = hooks ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; i < w->n_saes && st == LP_OK; i++) {
        const lp_sae_spot *spot = &w->saes[i]->spot;
        hooks[i] = (ablation){.w = w, .sae = i};
        lp_hook hook = {.site = spot->site_out, .layer = spot->layer_out, .edits = true, .fn = ablate};
        hook.user = &hooks[i];
        hooks[i].handle = lp_session_hook(w->s, hook, err);
        if (hooks[i].handle < 0) st = (lp_status)hooks[i].handle;
    }
    if (st == LP_OK) st = run_branches(w, err);
    for (int i = 0; hooks && i < w->n_saes; i++)
        if (hooks[i].handle > 0) lp_session_unhook(w->s, hooks[i].handle);
    free(hooks);
    return st;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static int by_logit(const void *a, const void *b)
{
    double x = fabs(((const lp_causal_row *)a)->d_logit), y = fabs(((const lp_causal_row *)b)->d_logit);
    return x > y ? -1 : x < y ? 1 : by_activation(a, b);
}

static int by_kl(const void *a, const void *b)
{
    double x = ((const lp_causal_row *)a)->kl, y = ((const lp_causal_row *)b)->kl;
    return x > y ? -1 : x < y ? 1 : by_activation(a, b);
}

lp_status lp_causal_position(int *at, const lp_config *c, const int *ids, size_t n, int asked, lp_error *err)
{
    if (n == 0 || n > (size_t)c->max_positions)
        return lp_fail(err, LP_E_RANGE, "a prompt of %zu tokens: 1 to %d are possible", n, c->max_positions);
    *at = asked < 0 ? (int)n + asked : asked;
    if (*at < 0 || *at >= (int)n)
        return lp_fail(err, LP_E_RANGE, "position %d: the prompt has positions 0 to %zu", asked, n - 1);
    if (ids[*at] == c->bos)
        return lp_fail(err, LP_E_RANGE, "position %d is <bos>, on which SAEs were not trained; choose another", *at);
    return LP_OK;
}

static lp_status check(int *at, const lp_config *c, const lp_sae *const *saes, int n_saes, const lp_causal_question *q,
                       lp_error *err)
{
    LP_TRY(lp_causal_position(at, c, q->ids, q->n, q->at, err));
    if (q->target >= c->vocab)
        return lp_fail(err, LP_E_RANGE, "token %d: ids go from 0 to %d", q->target, c->vocab - 1);
    if (q->k < 0) return lp_fail(err, LP_E_RANGE, "%d features: 0 or more can be ranked", q->k);
    for (int i = 0; i < n_saes; i++) LP_TRY(lp_sae_fits(saes[i], c, err));
    return LP_OK;
}

static lp_status rank(work *w, lp_session *s, lp_error *err)
{
    int held = lp_session_pos(s), at = w->out->at;
    LP_TRY(lp_session_fork(&w->s, s, held < at ? held : at, err)); /* the position itself must pass the tapes */
    LP_TRY(take_memory(w, err));
    LP_TRY(run_clean(w, err));
    LP_TRY(read_clean(w, err));
    LP_TRY(find_active(w, err));
    LP_TRY(run_without(w, err));
    if (w->out->n)
        qsort(w->out->rows, w->out->n, sizeof *w->out->rows, w->q->rank_by == LP_CAUSAL_KL ? by_kl : by_logit);
    return LP_OK;
}

lp_status lp_causal_rank(lp_causal *out, lp_session *s, const lp_sae *const *saes, int n_saes,
                         const lp_causal_question *q, lp_error *err)
{
    *out = (lp_causal){0};
    work w = {.q = q, .saes = saes, .n_saes = n_saes, .out = out};
    LP_TRY(check(&out->at, &lp_session_model(s)->config, saes, n_saes, q, err));
    lp_status st = rank(&w, s, err);
    give_back(&w);
    if (st != LP_OK) lp_causal_free(out);
    return st;
}

void lp_causal_free(lp_causal *c)
{
    free(c->rows);
    *c = (lp_causal){0};
}

/* ---- naming a token ---------------------------------------------------------------------------------------------- */

static lp_status not_one(const lp_model *m, const char *text, const lp_tokens *t, lp_error *err)
{
    char list[400] = "";
    size_t at = 0;
    for (size_t i = 0; i < t->n && at < sizeof list - 80; i++) {
        int n = snprintf(list + at, sizeof list - at, "%s%d \"%.40s\"", i ? ", " : "", t->ids[i],
                         lp_tokenizer_piece(m->tokenizer, t->ids[i], NULL));
        at += n > 0 ? (size_t)n : 0;
    }
    return lp_fail(err, LP_E_RANGE, "\"%.60s\" is %zu tokens (%s%s); one is needed, or its id", text, t->n, list,
                   at < sizeof list - 80 ? "" : ", ...");
}

lp_status lp_causal_token(int *id, const lp_model *m, const char *text, lp_error *err)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (isdigit((unsigned char)*text) && !*end) {
        if (errno || v >= m->config.vocab)
            return lp_fail(err, LP_E_RANGE, "token %.40s: ids go from 0 to %d", text, m->config.vocab - 1);
        *id = (int)v;
        return LP_OK;
    }
    if (!m->tokenizer)
        return lp_fail(err, LP_E_UNSUPPORTED, "\"%.60s\": the model has no tokenizer; name the token by its id", text);
    lp_tokens t = {0};
    lp_status st = lp_tokenizer_encode(m->tokenizer, text, strlen(text), LP_SPECIALS_PARSED, &t, err);
    if (st == LP_OK && t.n != 1) st = not_one(m, text, &t, err);
    if (st == LP_OK) *id = t.ids[0];
    lp_tokens_free(&t);
    return st;
}
