/* evaluate.c - see evaluate.h. */
#include "sae/evaluate.h"

#include "core/sample.h"
#include "sae/check.h"
#include "sae/reader.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the loss of every token ------------------------------------------------------------------------------------- */

/* Reads each row's logits against the token that follows; losses go one after the other. */
typedef struct scorer {
    const int *ids; /* of the piece that is running, [n] */
    size_t n;
    double *loss; /* [all targets of the passage] */
    size_t at;    /* of the piece's first target  */
    int vocab;
} scorer;

static int score(lp_act *act, void *user)
{
    scorer *k = user;
    for (int r = 0; r < act->rows; r++) {
        size_t pos = (size_t)(act->pos + r);
        if (pos + 1 >= k->n) continue;
        const float *z = act->x + (size_t)r * (size_t)act->width;
        k->loss[k->at + pos] = -(double)lp_logprob(z[k->ids[pos + 1]], lp_log_sum_exp(z, k->vocab));
    }
    return 0;
}

static lp_status run_piece(lp_session *s, const int *ids, size_t n, void *user, lp_error *err)
{
    scorer *k = user;
    k->ids = ids, k->n = n;
    LP_TRY(lp_session_eval(s, ids, n, err));
    k->at += n - 1;
    return LP_OK;
}

/* The losses of all targets of a passage, under whatever other hooks the session has. */
static lp_status losses(double *loss, lp_session *s, const lp_passage *p, lp_error *err)
{
    scorer k = {.loss = loss, .vocab = lp_session_model(s)->config.vocab};
    int handle = lp_session_hook(s, (lp_hook){.site = LP_LOGITS, .layer = LP_WHOLE_MODEL, .fn = score, .user = &k},
                                 err);
    if (handle < 0) return (lp_status)handle;
    lp_status st = lp_passage_run(p, s, run_piece, &k, err);
    lp_session_unhook(s, handle);
    return st;
}

/* ---- something else in the activation's place ---------------------------------------------------------------------- */

typedef struct splice {
    const lp_sae *sae;
    lp_encoder *encoder;
    lp_features f;
    float *made; /* [rows][d_out] */
    size_t capacity;
    const float *mean; /* NULL: the reconstruction */
    bool has_bos;
    lp_error err;
} splice;

static int encode(lp_act *act, void *user)
{
    splice *w = user;
    size_t width = (size_t)w->sae->d_out;
    lp_status st = lp_encode(&w->f, w->encoder, act->x, act->rows, &w->err);
    if (st == LP_CANCELLED) return 0;
    if (st == LP_OK && !lp_grow((void **)&w->made, &w->capacity, (size_t)act->rows * width, sizeof *w->made))
        st = lp_fail(&w->err, LP_E_MEMORY, "no memory for the reconstructions of %s", w->sae->name);
    if (st == LP_OK) lp_decode(w->made, w->encoder, &w->f, act->x);
    return st != LP_OK;
}

static int put(lp_act *act, void *user)
{
    splice *w = user;
    size_t width = (size_t)w->sae->d_out;
    for (int r = 0; r < act->rows; r++) {
        if (w->has_bos && act->pos + r == 0) continue;
        const float *from = w->mean ? w->mean : w->made + (size_t)r * width;
        memcpy(act->x + (size_t)r * width, from, width * sizeof *from);
    }
    return 0;
}

/* The hooks of a splice: reading (unless the mean is put), then writing.  Returns how many were added, or a status. */
static int hook_splice(int handles[2], splice *w, lp_session *s, lp_error *err)
{
    const lp_sae_spot *spot = &w->sae->spot;
    lp_hook read = {.site = spot->site, .layer = spot->layer, .fn = encode, .user = w};
    lp_hook write = {.site = spot->site_out, .layer = spot->layer_out, .edits = true, .fn = put, .user = w};
    int n = 0;
    if (!w->mean && (handles[n++] = lp_session_hook(s, read, err)) < 0) return handles[0];
    if ((handles[n] = lp_session_hook(s, write, err)) >= 0) return n + 1;
    if (n) lp_session_unhook(s, handles[0]);
    return handles[n];
}

static lp_status losses_under(double *loss, splice *w, lp_session *s, const lp_passage *p, lp_error *err)
{
    int handles[2], n = hook_splice(handles, w, s, err);
    if (n < 0) return (lp_status)n;
    lp_status st = losses(loss, s, p, err);
    for (int i = 0; i < n; i++) lp_session_unhook(s, handles[i]);
    if (st != LP_STOPPED || w->err.status >= 0) return st;
    if (err) *err = w->err;
    return w->err.status;
}

/* ---- the figures --------------------------------------------------------------------------------------------------- */

static double mean_of(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i];
    return sum / (double)n;
}

static void compare(lp_evaluation *e, const double *clean, const double *spliced, const double *ablated, size_t n)
{
    double squares = 0;
    e->targets = n;
    e->loss = mean_of(clean, n);
    e->delta = mean_of(spliced, n) - e->loss;
    e->ablated = mean_of(ablated, n) - e->loss;
    e->recovered = 1 - e->delta / e->ablated;
    for (size_t i = 0; i < n; i++) {
        double d = spliced[i] - clean[i] - e->delta;
        squares += d * d;
    }
    double margin = n > 1 ? 1.96 * sqrt(squares / (double)(n - 1) / (double)n) : 0;
    e->delta_low = e->delta - margin, e->delta_high = e->delta + margin;
}

static lp_status evaluate_one(lp_evaluation *e, const lp_sae *sae, const lp_meter *m, double *loss, size_t n,
                              lp_session *s, const lp_passage *p, lp_error *err)
{
    splice w = {.sae = sae, .has_bos = p->has_bos};
    float *mean = lp_calloc((size_t)sae->d_out, sizeof *mean);
    lp_status st = mean ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; mean && m->n && i < sae->d_out; i++) mean[i] = (float)(m->sum[i] / (double)m->n);
    if (st == LP_OK)
        st = lp_encoder_new(&w.encoder, sae, lp_session_get_options(s)->arithmetic, lp_session_env(s), err);
    if (st == LP_OK) st = losses_under(loss + n, &w, s, p, err);
    w.mean = mean;
    if (st == LP_OK) st = losses_under(loss + 2 * n, &w, s, p, err);
    if (st == LP_OK) compare(e, loss, loss + n, loss + 2 * n, n);
    lp_encoder_free(w.encoder);
    lp_features_free(&w.f);
    free(w.made);
    free(mean);
    return st;
}

lp_status lp_sae_evaluate(lp_evaluation *out, lp_session *s, const lp_sae *const *saes, int n, const lp_passage *p,
                          lp_error *err)
{
    size_t targets = p->n_tokens - (p->has_bos ? 0 : p->n_pieces);
    double *loss = lp_calloc(3 * (targets ? targets : 1), sizeof *loss);
    lp_meter *meters = lp_calloc((size_t)(n ? n : 1), sizeof *meters);
    lp_status st = loss && meters ? LP_OK : lp_fail(err, LP_E_MEMORY, "no memory for %zu losses", targets);
    for (int i = 0; i < n && st == LP_OK; i++) st = lp_meter_new(&meters[i], saes[i], err);
    if (st == LP_OK) st = lp_sae_meter(meters, s, saes, n, p, err);
    if (st == LP_OK) st = losses(loss, s, p, err);
    for (int i = 0; i < n && st == LP_OK; i++) {
        lp_progress(lp_session_env(s), "evaluating", i, n);
        out[i] = (lp_evaluation){.quality = lp_meter_read(&meters[i])};
        st = evaluate_one(&out[i], saes[i], &meters[i], loss, targets, s, p, err);
    }
    for (int i = 0; meters && i < n; i++) lp_meter_free(&meters[i]);
    free(meters);
    free(loss);
    return st;
}
