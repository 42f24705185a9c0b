/* bench_sae.c - SAEs at work, beside the same step without them.
 *
 *     encode       512 rows of the stream through one SAE, features as CSR; the floor counts the flops of its product
 *     decode       one token after the other under an SAE at every layer, encoders in BF16; "of plain" is the time of a
 *                  step against one without SAEs, taken just before and just after
 *     rank         a hundred active features of the last token, each taken out and the model run on
 *
 * The SAEs are random, calibrated on the model's own stream to a mean L0 of 80; what they came to on other tokens is
 * printed.  PyTorch, where a Python with it is given, encodes the same shape in float32 in the same rounds.
 */
#include "cli/bench.h"

#include "core/bench.h"
#include "core/sample.h"
#include "sae/causal.h"
#include "sae/reader.h"
#include "sae/synth.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS = 512, CALIBRATED_ON = 64, RANKED = 100, PROMPT = 32 };

static const double wanted_l0 = 80, encode_seconds = 0.3;

struct bench_saes {
    lp_sae **items; /* one a layer, resid_post, BF16 */
    lp_sae *exact;  /* layer 0's in F32              */
    int n;
    float *rows; /* [ROWS][D] of layer 0's stream */
};

static lp_status calibrate(bench *b, lp_sae *s, const float *stream, lp_error *err)
{
    size_t D = (size_t)b->model->config.d_model, L = s->spot.layer < 0 ? 0 : (size_t)s->spot.layer;
    return lp_sae_calibrate(s, wanted_l0, stream + L * ROWS * D + D, CALIBRATED_ON, &b->c->env, err);
}

static lp_status make_one(lp_sae **out, bench *b, int layer, int bf16, const float *stream, lp_error *err)
{
    lp_sae_spot spot = {LP_RESID_POST, layer, false, LP_RESID_POST, layer};
    lp_sae_options o = {.bf16 = bf16};
    LP_TRY(lp_sae_synth(out, &spot, b->model->config.d_model, b->width, (uint64_t)layer, &o, &b->c->env, err));
    return calibrate(b, *out, stream, err);
}

/* The stream after every layer: [L][ROWS][D], <bos> first. */
static lp_status record_stream(bench *b, float *stream, lp_error *err)
{
    int ids[ROWS];
    const lp_config *c = &b->model->config;
    lp_session *s = NULL;
    lp_session_options o = {.n_ctx = ROWS};
    lp_tape tape = {.x = stream, .n_layers = c->n_layers, .n_pos = ROWS, .width = c->d_model};
    LP_TRY(lp_session_new(&s, b->model, &o, &b->c->env, err));
    bench_ids(b, ids, ROWS, 11);
    int handle = lp_session_hook(s, lp_tap(LP_RESID_POST, LP_EVERY_LAYER, &tape), err);
    lp_status st = handle < 0 ? (lp_status)handle : lp_session_eval(s, ids, ROWS, err);
    lp_session_free(s);
    return st;
}

const lp_sae *const *bench_saes_list(const bench *b)
{
    return (const lp_sae *const *)b->saes->items;
}

lp_status bench_make_saes(bench *b, lp_error *err)
{
    if (b->saes) return LP_OK;
    const lp_config *c = &b->model->config;
    size_t D = (size_t)c->d_model, L = (size_t)c->n_layers, bytes = L * ROWS * D * sizeof(float);
    bench_saes *k = b->saes = lp_calloc(1, sizeof *k);
    float *stream = lp_big_alloc(bytes);
    lp_status st = k && stream ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) {
        k->items = lp_calloc(L, sizeof(lp_sae *));
        k->rows = lp_calloc(ROWS * D, sizeof *k->rows);
        if (!k->items || !k->rows) st = lp_fail(err, LP_E_MEMORY, "out of memory");
    }
    if (st == LP_OK) st = record_stream(b, stream, err);
    for (; st == LP_OK && k->n < c->n_layers; k->n++) {
        lp_log(&b->c->env, LP_INFO, "random SAE %d of %d", k->n + 1, c->n_layers);
        if ((st = make_one(&k->items[k->n], b, k->n, 1, stream, err)) != LP_OK) break;
    }
    if (st == LP_OK) st = make_one(&k->exact, b, 0, 0, stream, err);
    if (st == LP_OK) memcpy(k->rows, stream, ROWS * D * sizeof *k->rows);
    lp_big_free(stream, bytes);
    return st;
}

void bench_saes_free(bench *b)
{
    bench_saes *k = b->saes;
    if (!k) return;
    for (int i = 0; k->items && i <= k->n && i < b->n_layers; i++) lp_sae_close(k->items[i]);
    lp_sae_close(k->exact);
    free(k->items);
    free(k->rows);
    free(k);
    b->saes = NULL;
}

/* ---- encode ------------------------------------------------------------------------------------------------------ */

static lp_status encode(bench *b, lp_arithmetic a, lp_error *err)
{
    const lp_sae *s = a == LP_FAST ? b->saes->items[0] : b->saes->exact;
    lp_encoder *e = NULL;
    lp_features f = {0};
    LP_TRY(lp_encoder_new(&e, s, a, &b->c->env, err));
    lp_status st = lp_encode(&f, e, b->saes->rows, ROWS, err); /* the scratch is warm from here on */
    double before = bench_peak(b, a), start = lp_clock(), seconds = 0;
    int n = 0;
    for (; st == LP_OK && seconds < encode_seconds; n++) {
        st = lp_encode(&f, e, b->saes->rows, ROWS, err);
        seconds = lp_clock() - start;
    }
    double after = bench_peak(b, a), rate = n * 2.0 * ROWS * s->d_in * s->d_sae / seconds;
    if (st == LP_OK)
        bench_add(b, "encode, 512 rows", bench_arithmetic(a), "ms", 1e3 * seconds / n, "peak",
                  rate / (0.5 * (before + after)));
    lp_features_free(&f);
    lp_encoder_free(e);
    return st;
}

/* ---- decode under SAEs ------------------------------------------------------------------------------------------- */

/* Seconds a token, one after the other from an empty cache; with SAEs, *l0 is their mean over layers and tokens. */
static lp_status time_steps(double *seconds, double *l0, bench *b, bool live, lp_error *err)
{
    int n = b->tokens;
    lp_session *s = NULL;
    lp_reader *r = NULL;
    lp_session_options o = {.arithmetic = b->c->arithmetic, .wave = b->c->wave, .n_ctx = n + 1};
    int *ids = lp_calloc((size_t)n + 1, sizeof *ids);
    lp_status st = ids ? lp_session_new(&s, b->model, &o, &b->c->env, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK && live) st = lp_reader_new(&r, s, (const lp_sae *const *)b->saes->items, b->saes->n, NULL, err);
    if (st != LP_OK) goto out;
    bench_ids(b, ids, n + 1, 13);
    st = lp_session_eval(s, ids, 1, err);
    double start = lp_clock(), total = 0;
    for (int i = 1; st == LP_OK && i <= n; i++) st = lp_session_eval(s, ids + i, 1, err);
    *seconds = (lp_clock() - start) / n;
    for (int i = 0; st == LP_OK && live && i < b->saes->n; i++) {
        const lp_features *f = lp_reader_features(r, i);
        total += (double)(f->start[n + 1] - f->start[1]) / n;
    }
    if (l0) *l0 = total / b->saes->n;
out:
    lp_reader_free(r);
    lp_session_free(s);
    free(ids);
    return st;
}

static lp_status decode(bench *b, lp_error *err)
{
    double before, live, after, l0;
    LP_TRY(time_steps(&before, NULL, b, false, err));
    LP_TRY(time_steps(&live, &l0, b, true, err));
    LP_TRY(time_steps(&after, NULL, b, false, err));
    bench_add(b, "decode under SAEs", bench_arithmetic(b->c->arithmetic), "token/s", 1 / live, "plain step",
              live / (0.5 * (before + after)));
    bench_add(b, "L0 of a layer", "", "features", l0, NULL, 0);
    return LP_OK;
}

/* ---- causal ranking ---------------------------------------------------------------------------------------------- */

static lp_status rank(bench *b, lp_error *err)
{
    int ids[PROMPT];
    lp_session *s = NULL;
    lp_causal out = {0};
    lp_session_options o = {.arithmetic = b->c->arithmetic, .wave = b->c->wave, .n_ctx = 2 * PROMPT};
    lp_causal_question q = {.ids = ids, .n = PROMPT, .at = -1, .target = -1, .k = RANKED};
    bench_ids(b, ids, PROMPT, 17);
    LP_TRY(lp_session_new(&s, b->model, &o, &b->c->env, err));
    double start = lp_clock();
    lp_status st = lp_causal_rank(&out, s, (const lp_sae *const *)b->saes->items, b->saes->n, &q, err);
    double seconds = lp_clock() - start;
    if (st == LP_OK && out.n != RANKED)
        st = lp_fail(err, LP_E_RANGE, "only %zu features are active at the last token of the bench", out.n);
    if (st == LP_OK) bench_add(b, "rank 100 features", bench_arithmetic(o.arithmetic), "s", seconds, NULL, 0);
    lp_causal_free(&out);
    lp_session_free(s);
    return st;
}

lp_status bench_sae(bench *b, lp_error *err)
{
    LP_TRY(bench_make_saes(b, err));
    LP_TRY(encode(b, LP_EXACT, err));
    LP_TRY(encode(b, LP_FAST, err));
    if (b->torch) LP_TRY(bench_torch(b, ROWS, err));
    if (lp_cancelled(&b->c->env)) return LP_CANCELLED;
    LP_TRY(decode(b, err));
    if (lp_cancelled(&b->c->env)) return LP_CANCELLED;
    return rank(b, err);
}
