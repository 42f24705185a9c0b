/* attribute.c - see attribute.h.
 *
 * The prompt is evaluated up to the position without anybody watching, the position itself alone under tapes of a single
 * row: the raw logits, the divisors, what each SAE reads and what it predicts.  Then, instead of carrying every summand
 * forward to the logit, the logit's direction u is carried back once to where each SAE writes.
 */
#include "sae/attribute.h"

#include "core/generate.h"
#include "sae/analyse.h"
#include "sae/causal.h"
#include "sae/encode.h"
#include "sae/reader.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One SAE at the position. */
typedef struct seat {
    const lp_sae *sae;
    lp_route route;
    lp_tape x, y, rms;       /* what it reads, what it predicts, the divisor behind attention (heads only) */
    float post_rms;          /* where the last goes */
    double *back;            /* [d_out] the share of a row written there is its dot product with this */
    float *row, *made, *dry; /* [d_out] a decoder's row; the reconstruction; the same when nothing fires */
} seat;

typedef struct work {
    const lp_attribution_question *q;
    lp_attribution *out;
    lp_session *s; /* a fork of the caller's, freed at the end */
    seat *seats;   /* [n] */
    int n;
    lp_tape raw, rms; /* of the logits and the final norm */
    float final_rms;
    double *u;       /* [D] */
    lp_features f;   /* of one SAE */
    size_t start[2]; /* of no features at all */
} work;

static const lp_model *model_of(const work *w)
{
    return lp_session_model(w->s);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static bool tape_row(lp_tape *t, const work *w, int width)
{
    *t = (lp_tape){.n_layers = 1, .first_pos = w->out->at, .n_pos = 1, .width = width};
    t->x = lp_calloc((size_t)width, sizeof *t->x);
    return t->x != NULL;
}

static lp_status sit_down(seat *t, work *w, const lp_sae *s, lp_error *err)
{
    size_t width = (size_t)s->d_out;
    t->sae = s;
    LP_TRY(lp_sae_fits(s, &model_of(w)->config, err));
    LP_TRY(lp_sae_route(&t->route, s, model_of(w), err));
    t->back = lp_calloc(width, sizeof *t->back);
    t->row = lp_calloc(width, sizeof *t->row);
    t->made = lp_calloc(width, sizeof *t->made);
    t->dry = lp_calloc(width, sizeof *t->dry);
    if (!tape_row(&t->x, w, s->d_in) || !tape_row(&t->y, w, s->d_out) || !t->back || !t->row || !t->made || !t->dry)
        return lp_fail(err, LP_E_MEMORY, "out of memory");
    t->rms = (lp_tape){.x = &t->post_rms, .n_layers = 1, .first_pos = w->out->at, .n_pos = 1, .width = 1};
    return LP_OK;
}

static lp_status take_memory(work *w, const lp_sae *const *saes, int n_saes, lp_error *err)
{
    const lp_config *c = &model_of(w)->config;
    w->seats = lp_calloc((size_t)n_saes + 1, sizeof *w->seats);
    w->u = lp_calloc((size_t)c->d_model, sizeof *w->u);
    w->out->parts = lp_calloc((size_t)n_saes + 1, sizeof *w->out->parts);
    if (!w->seats || !w->u || !w->out->parts || !tape_row(&w->raw, w, c->vocab))
        return lp_fail(err, LP_E_MEMORY, "out of memory");
    w->rms = (lp_tape){.x = &w->final_rms, .n_layers = 1, .first_pos = w->out->at, .n_pos = 1, .width = 1};
    for (int i = 0; i < n_saes; i++) {
        w->n = i + 1;
        LP_TRY(sit_down(&w->seats[i], w, saes[i], err));
    }
    return LP_OK;
}

static void give_back(work *w)
{
    for (int i = 0; i < w->n; i++) {
        seat *t = &w->seats[i];
        free(t->x.x), free(t->y.x), free(t->back);
        free(t->row), free(t->made), free(t->dry);
    }
    free(w->seats);
    free(w->raw.x);
    free(w->u);
    lp_features_free(&w->f);
    lp_session_free(w->s);
}

/* ---- the run ----------------------------------------------------------------------------------------------------- */

static lp_status watch(work *w, lp_site site, int layer, lp_tape *t, lp_error *err)
{
    int handle = lp_session_hook(w->s, lp_tap(site, layer, t), err);
    return handle < 0 ? (lp_status)handle : LP_OK;
}

/* The hooks go with the fork. */
static lp_status watch_all(work *w, lp_error *err)
{
    LP_TRY(watch(w, LP_LOGITS_RAW, LP_WHOLE_MODEL, &w->raw, err));
    LP_TRY(watch(w, LP_FINAL_RMS, LP_WHOLE_MODEL, &w->rms, err));
    for (int i = 0; i < w->n; i++) {
        seat *t = &w->seats[i];
        const lp_sae_spot *p = &t->sae->spot;
        LP_TRY(watch(w, p->site, p->layer, &t->x, err));
        LP_TRY(watch(w, p->site_out, p->layer_out, &t->y, err));
        if (t->route == LP_ROUTE_HEADS) LP_TRY(watch(w, LP_ATTN_POST_RMS, p->layer_out, &t->rms, err));
    }
    return LP_OK;
}

static lp_status run(work *w, lp_error *err)
{
    int at = w->out->at;
    if (at > 0) LP_TRY(lp_generate_prompt(w->s, w->q->ids, (size_t)at, err));
    LP_TRY(watch_all(w, err));
    return lp_session_eval(w->s, w->q->ids + at, 1, err);
}

static lp_attribution_token token_of(const work *w, int id)
{
    if (id < 0) return (lp_attribution_token){.id = -1};
    return (lp_attribution_token){id, (double)w->raw.x[id], (double)lp_session_logits(w->s)[id]};
}

static lp_status read_logits(work *w, lp_error *err)
{
    lp_attribution *out = w->out;
    int best = lp_argmax(w->raw.x, model_of(w)->config.vocab);
    if (best < 0) return lp_fail(err, LP_E_RANGE, "the logits there are not numbers: nothing can be attributed");
    out->target = token_of(w, w->q->target < 0 ? best : w->q->target);
    out->contrast = token_of(w, w->q->contrast < 0 ? -1 : w->q->contrast);
    out->rms = (double)w->final_rms;
    if (out->target.id == out->contrast.id)
        return lp_fail(err, LP_E_RANGE, "target and contrast are one token, %d: their difference is 0", out->target.id);
    return LP_OK;
}

/* ---- from the logit back to where an SAE writes ---------------------------------------------------------------------- */

static lp_status find_u(work *w, lp_error *err)
{
    const lp_model *m = model_of(w);
    int D = m->config.d_model, ids[] = {w->out->target.id, w->out->contrast.id};
    float *row = lp_calloc((size_t)D, sizeof *row);
    if (!row) return lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int k = 0; k < 2 && ids[k] >= 0; k++) {
        lp_matrix_row(&m->embed, ids[k], row, lp_session_env(w->s)->kernels);
        for (int i = 0; i < D; i++) w->u[i] += (k ? -1 : 1) * (double)m->final_gain[i] * (double)row[i];
    }
    free(row);
    return LP_OK;
}

/* back = W_O^T ((1 + w_post) u / rms_post), a panel of W_O at a time. */
static lp_status back_through_heads(seat *t, const work *w, lp_error *err)
{
    const lp_layer *L = &model_of(w)->layers[t->sae->spot.layer_out];
    int D = L->o.rows, width = L->o.cols;
    float *rows = lp_calloc((size_t)LP_LANES * (size_t)width, sizeof *rows);
    if (!rows) return lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int first = 0, n; first < D; first += n) {
        n = D - first < LP_LANES ? D - first : LP_LANES;
        lp_matrix_rows(&L->o, first, n, rows, lp_session_env(w->s)->kernels);
        for (int r = 0; r < n; r++) {
            double c = w->u[first + r] * (double)L->attn_post_gain[first + r] / (double)t->post_rms;
            for (int i = 0; i < width; i++) t->back[i] += c * (double)rows[(size_t)r * (size_t)width + (size_t)i];
        }
    }
    free(rows);
    return LP_OK;
}

static lp_status carry_back(seat *t, const work *w, lp_error *err)
{
    if (t->route == LP_ROUTE_ADDED)
        memcpy(t->back, w->u, (size_t)t->sae->d_out * sizeof *t->back);
    else
        LP_TRY(back_through_heads(t, w, err));
    for (int i = 0; i < t->sae->d_out; i++) t->back[i] /= w->out->rms;
    return LP_OK;
}

/* ---- shares ------------------------------------------------------------------------------------------------------ */

static double share(const seat *t, const float *row)
{
    double sum = 0;
    for (int i = 0; i < t->sae->d_out; i++) sum += t->back[i] * (double)row[i];
    return sum;
}

static lp_status add_rows(work *w, int sae, lp_error *err)
{
    seat *t = &w->seats[sae];
    lp_attribution *out = w->out;
    size_t n = w->f.start[1];
    if (!lp_grow((void **)&out->rows, &out->capacity, out->n + n + 1, sizeof *out->rows))
        return lp_fail(err, LP_E_MEMORY, "no memory for %zu features", out->n + n);
    for (size_t i = 0; i < n; i++) {
        int index = w->f.index[i];
        lp_sae_decoder_row(t->sae, index, t->row);
        double g = lp_decoder_scale(t->sae, index, t->x.x);
        lp_attribution_row r = {sae, index, w->f.value[i], (double)w->f.value[i] * g * share(t, t->row)};
        out->rows[out->n++] = r;
        out->parts[sae].features += r.share;
    }
    out->parts[sae].n_active = (int)n;
    return LP_OK;
}

/* The reconstruction is lp_decode's own, so that features + bias + error = site is a check and not a definition. */
static lp_status add_parts(work *w, int sae, lp_encoder *e, lp_error *err)
{
    seat *t = &w->seats[sae];
    lp_attribution_part *p = &w->out->parts[sae];
    lp_status st = lp_encode(&w->f, e, t->x.x, 1, err);
    if (st < 0) return lp_prefix(err, st, t->sae->name);
    LP_TRY(st);
    LP_TRY(add_rows(w, sae, err));
    lp_decode(t->made, e, &w->f, t->x.x);
    lp_decode(t->dry, e, &(lp_features){.n_rows = 1, .start = w->start}, t->x.x);
    p->bias = share(t, t->dry);
    p->site = share(t, t->y.x);
    for (int i = 0; i < t->sae->d_out; i++) p->error += t->back[i] * ((double)t->y.x[i] - (double)t->made[i]);
    return LP_OK;
}

static lp_status attribute_sae(work *w, int sae, lp_error *err)
{
    seat *t = &w->seats[sae];
    lp_encoder *e = NULL;
    LP_TRY(carry_back(t, w, err));
    const lp_session_options *o = lp_session_get_options(w->s);
    LP_TRY(lp_encoder_new(&e, t->sae, o->arithmetic, lp_session_env(w->s), err));
    lp_status st = add_parts(w, sae, e, err);
    lp_encoder_free(e);
    return st;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

/* A NaN, of a decoder that holds some, goes last. */
static double size_of(const lp_attribution_row *r)
{
    return isnan(r->share) ? -1 : fabs(r->share);
}

/* Equals in the order of SAEs and features, so that an order is one order. */
static int by_share(const void *a, const void *b)
{
    const lp_attribution_row *x = a, *y = b;
    double p = size_of(x), q = size_of(y);
    if (p != q) return p < q ? 1 : -1;
    if (x->sae != y->sae) return x->sae < y->sae ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static lp_status check(int *at, const lp_config *c, const lp_attribution_question *q, lp_error *err)
{
    LP_TRY(lp_causal_position(at, c, q->ids, q->n, q->at, err));
    int id = q->target >= c->vocab ? q->target : q->contrast;
    if (id >= c->vocab) return lp_fail(err, LP_E_RANGE, "token %d: ids go from 0 to %d", id, c->vocab - 1);
    return LP_OK;
}

static lp_status attribute(work *w, lp_session *s, const lp_sae *const *saes, int n_saes, lp_error *err)
{
    int held = lp_session_pos(s), at = w->out->at;
    LP_TRY(lp_session_fork(&w->s, s, held < at ? held : at, err)); /* the position itself must pass the tapes */
    LP_TRY(take_memory(w, saes, n_saes, err));
    LP_TRY(run(w, err));
    LP_TRY(read_logits(w, err));
    LP_TRY(find_u(w, err));
    for (int i = 0; i < n_saes; i++) LP_TRY(attribute_sae(w, i, err));
    if (w->out->n) qsort(w->out->rows, w->out->n, sizeof *w->out->rows, by_share);
    return LP_OK;
}

lp_status lp_attribute(lp_attribution *out, lp_session *s, const lp_sae *const *saes, int n_saes,
                       const lp_attribution_question *q, lp_error *err)
{
    *out = (lp_attribution){0};
    work w = {.q = q, .out = out};
    LP_TRY(check(&out->at, &lp_session_model(s)->config, q, err));
    lp_status st = attribute(&w, s, saes, n_saes, err);
    give_back(&w);
    if (st != LP_OK) lp_attribution_free(out);
    return st;
}

void lp_attribution_free(lp_attribution *a)
{
    free(a->rows);
    free(a->parts);
    *a = (lp_attribution){0};
}
