/* encode.c - see encode.h.
 *
 * Rows go through in blocks.  A block is one product with the encoder's panels (all threads), then a pass over its
 * pre-activations that only counts what fires, then one that writes it down: the second pass knows where each row's
 * features go, so rows are written side by side.  Few pre-activations pass, so the count looks at 32 at once.
 */
#include "sae/encode.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_ROWS = 256,        /* of a block                                                 */
    SCRATCH = 16 << 20,     /* floats of pre-activations held, unless LP_TILE rows take more */
    STEP = 32,              /* pre-activations looked at together                         */
    WORTH_WAKING = 1 << 16, /* floats looked at: with fewer, other threads are not woken  */
};

struct lp_encoder {
    const lp_sae *s;
    lp_env env;
    lp_arithmetic arithmetic;
    int most, wide; /* rows of a block; the larger of d_sae and d_out */
    lp_matmul_scratch *scratch;
    float *x;       /* [most][d_in] rows made ready                                       */
    float *pre;     /* [most][wide]: pre-activations [most][d_sae], or what a skip adds   */
    size_t *counts; /* [most]                                                             */
    float *pick;    /* topk: [threads][k] the best of a row, its smallest in front        */
};

void lp_features_free(lp_features *f)
{
    if (!f) return;
    free(f->start);
    free(f->index);
    free(f->value);
    *f = (lp_features){0};
}

float lp_features_get(const lp_features *f, int row, int feature)
{
    size_t low = f->start[row], high = f->start[row + 1];
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (f->index[middle] == feature) return f->value[middle];
        if (f->index[middle] < feature)
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

static bool grow_rows(lp_features *f, size_t n)
{
    return lp_grow((void **)&f->start, &f->capacity_rows, n + 1, sizeof *f->start);
}

static bool grow_values(lp_features *f, size_t n)
{
    return lp_grow((void **)&f->index, &f->capacity_index, n, sizeof *f->index) &&
           lp_grow((void **)&f->value, &f->capacity_values, n, sizeof *f->value);
}

/* ---- a new one --------------------------------------------------------------------------------------------------- */

lp_status lp_encoder_new(lp_encoder **out, const lp_sae *s, lp_arithmetic a, const lp_env *env, lp_error *err)
{
    lp_encoder *e = lp_calloc(1, sizeof *e);
    if (!e) return lp_fail(err, LP_E_MEMORY, "out of memory");
    e->s = s;
    e->arithmetic = a;
    if (env) e->env = *env;
    e->wide = s->d_sae > s->d_out ? s->d_sae : s->d_out;
    e->most = SCRATCH / e->wide;
    e->most = e->most > MOST_ROWS ? MOST_ROWS : e->most < LP_TILE ? LP_TILE : e->most;
    int threads = lp_pool_threads(e->env.pool), widest = s->d_in > s->d_out ? s->d_in : s->d_out;
    e->x = lp_calloc((size_t)e->most, (size_t)s->d_in * sizeof *e->x);
    e->counts = lp_calloc((size_t)e->most, sizeof *e->counts);
    e->pre = lp_big_alloc((size_t)e->most * (size_t)e->wide * sizeof *e->pre);
    if (s->kind == LP_SAE_TOPK) e->pick = lp_calloc((size_t)threads * (size_t)s->k, sizeof *e->pick);
    lp_status st = e->x && e->counts && e->pre && (e->pick || s->kind != LP_SAE_TOPK)
                       ? lp_matmul_scratch_new(&e->scratch, e->most, widest, threads, err)
                       : lp_fail(err, LP_E_MEMORY, "%s: no memory for %d rows of pre-activations", s->name, e->most);
    if (st == LP_OK)
        *out = e;
    else
        lp_encoder_free(e);
    return st;
}

void lp_encoder_free(lp_encoder *e)
{
    if (!e) return;
    if (e->pre) lp_big_free(e->pre, (size_t)e->most * (size_t)e->wide * sizeof *e->pre);
    lp_matmul_scratch_free(e->scratch);
    free(e->counts);
    free(e->pick);
    free(e->x);
    free(e);
}

const lp_sae *lp_encoder_sae(const lp_encoder *e)
{
    return e->s;
}

/* ---- a row before the product ------------------------------------------------------------------------------------ */

/* What SAELens' run_time_activation_norm_fn_in does to a row: y = (x - shift) / scale.  The sums are in double. */
static void find_norm(const lp_sae *s, const float *x, double *shift, double *scale)
{
    double sum = 0, squares = 0;
    int n = s->d_in;
    *shift = 0, *scale = 1;
    if (s->norm == LP_SAE_NORM_NONE) return;
    if (s->norm == LP_SAE_NORM_LAYER) {
        for (int i = 0; i < n; i++) sum += (double)x[i];
        *shift = sum / n;
    }
    for (int i = 0; i < n; i++) squares += ((double)x[i] - *shift) * ((double)x[i] - *shift);
    *scale = s->norm == LP_SAE_NORM_LAYER ? sqrt(squares / (n - 1)) + 1e-5 : sqrt(squares / n);
    if (*scale == 0) *scale = 1; /* a row of zeros stays one */
}

static lp_status make_ready(lp_encoder *e, const float *x, int n, int first, lp_error *err)
{
    const lp_sae *s = e->s;
    size_t width = (size_t)s->d_in;
    for (int r = 0; r < n; r++) {
        const float *from = x + (size_t)r * width;
        float *to = e->x + (size_t)r * width;
        double shift, scale;
        for (size_t i = 0; i < width; i++)
            if (!isfinite(from[i]))
                return lp_fail(err, LP_E_RANGE, "row %d has a NaN or infinity at %zu; nothing can be encoded from it",
                               first + r, i);
        find_norm(s, from, &shift, &scale);
        if (s->norm == LP_SAE_NORM_NONE)
            memcpy(to, from, width * sizeof *to);
        else
            for (size_t i = 0; i < width; i++) to[i] = (float)(((double)from[i] - shift) / scale);
        if (s->subtracts_bias)
            for (size_t i = 0; i < width; i++) to[i] -= s->b_dec[i];
    }
    return LP_OK;
}

/* ---- what fires -------------------------------------------------------------------------------------------------- */

/* The feature's value from its dot product z with the row, or 0. */
static float activation(const lp_sae *s, float z, int i)
{
    float pre = z + s->b_enc[i];
    switch (s->kind) {
    case LP_SAE_JUMPRELU:
        return pre > s->threshold[i] && pre > 0 ? pre : 0;
    case LP_SAE_GATED: {
        float mag = z * s->gain[i] + s->b_mag[i];
        return pre > 0 && mag > 0 ? mag : 0;
    }
    case LP_SAE_TOPK:
        return s->rescales ? pre * s->dec_norm[i] : pre; /* the k best are chosen elsewhere */
    default:
        return pre > 0 ? pre : 0;
    }
}

/* Does any of the n <= STEP pre-activations from i on pass?  The common case, and no: worth its own loops, which
 * compilers turn into vector code. */
static bool any_fires(const lp_sae *s, const float *z, int i, int n)
{
    int any = 0;
    const float *b = s->b_enc + i;
    if (s->kind == LP_SAE_JUMPRELU) {
        const float *t = s->threshold + i;
        for (int j = 0; j < n; j++) any |= z[i + j] + b[j] > t[j];
    } else {
        for (int j = 0; j < n; j++) any |= z[i + j] + b[j] > 0;
    }
    return any;
}

/* Keeps the k largest of v [n] in the heap `best`, whose smallest is in front; the value every chosen one reaches. */
static void sift_down(float *heap, int n)
{
    for (int at = 0, child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[at] <= heap[child]) return;
        float t = heap[at];
        heap[at] = heap[child], heap[child] = t;
    }
}

/* Turns pre-activations into activations of which at most k are not 0: the largest, the lower index first among equals. */
static void keep_top(const lp_sae *s, float *z, float *best)
{
    int k = s->k, n = s->d_sae, above = 0;
    for (int i = 0; i < n; i++) z[i] = activation(s, z[i], i);
    for (int i = 0; i < k; i++) best[i] = -INFINITY;
    for (int i = 0; i < n; i++)
        if (z[i] > best[0]) best[0] = z[i], sift_down(best, k);
    float least = best[0];
    for (int i = 0; i < n; i++) above += z[i] > least;
    for (int i = 0, equals = k - above; i < n; i++) {
        bool is_chosen = z[i] > least || (z[i] == least && equals-- > 0);
        if (!is_chosen || !(z[i] > 0)) z[i] = 0;
    }
}

typedef struct scan {
    lp_encoder *e;
    lp_features *out; /* NULL: only count                */
    size_t base;      /* of the block's first row in out */
    int n;
    atomic_int next;
} scan;

/* One row's features, written from `at` on, or only counted. */
static size_t scan_row(const lp_sae *s, const float *z, lp_features *out, size_t at)
{
    size_t found = 0;
    bool is_chosen = s->kind == LP_SAE_TOPK; /* z holds activations already */
    for (int i = 0; i < s->d_sae; i += STEP) {
        int n = s->d_sae - i < STEP ? s->d_sae - i : STEP;
        if (!is_chosen && !any_fires(s, z, i, n)) continue;
        for (int j = i; j < i + n; j++) {
            float v = is_chosen ? z[j] : activation(s, z[j], j);
            if (!(v > 0)) continue;
            if (out) out->index[at + found] = j, out->value[at + found] = v;
            found++;
        }
    }
    return found;
}

static void scan_some(int id, int n, void *arg)
{
    scan *p = arg;
    lp_encoder *e = p->e;
    (void)n;
    for (int r; (r = lp_claim(&p->next)) < p->n;) {
        float *z = e->pre + (size_t)r * (size_t)e->s->d_sae;
        if (p->out) {
            scan_row(e->s, z, p->out, p->out->start[p->base + (size_t)r]);
        } else {
            if (e->s->kind == LP_SAE_TOPK) keep_top(e->s, z, e->pick + (size_t)id * (size_t)e->s->k);
            e->counts[r] = scan_row(e->s, z, NULL, 0);
        }
    }
}

static void multiply(lp_encoder *e, float *y, const lp_matrix *w, const float *x, int n, lp_arithmetic a)
{
    lp_matmul(&y, &w, 1, x, n, a, e->scratch, &e->env);
}

static lp_status encode_block(lp_features *out, lp_encoder *e, const float *x, int first, int n, lp_error *err)
{
    scan p = {.e = e, .n = n, .base = (size_t)first};
    LP_TRY(make_ready(e, x, n, first, err));
    multiply(e, e->pre, &e->s->encoder, e->x, n, e->arithmetic);
    lp_pool *pool = (size_t)n * (size_t)e->s->d_sae < WORTH_WAKING ? NULL : e->env.pool;
    lp_pool_run(pool, scan_some, &p);
    for (int r = 0; r < n; r++) out->start[first + r + 1] = out->start[first + r] + e->counts[r];
    if (!grow_values(out, out->start[first + n]))
        return lp_fail(err, LP_E_MEMORY, "no memory for %zu activations", out->start[first + n]);
    p.out = out;
    atomic_store(&p.next, 0);
    lp_pool_run(pool, scan_some, &p);
    out->n_rows = first + n;
    return lp_cancelled(&e->env) ? LP_CANCELLED : LP_OK;
}

lp_status lp_encode(lp_features *out, lp_encoder *e, const float *x, int n, lp_error *err)
{
    out->n_rows = 0;
    if (!grow_rows(out, (size_t)n)) return lp_fail(err, LP_E_MEMORY, "no memory for %d rows", n);
    out->start[0] = 0;
    for (int at = 0; at < n; at += e->most) {
        int count = n - at < e->most ? n - at : e->most;
        LP_TRY(encode_block(out, e, x + (size_t)at * (size_t)e->s->d_in, at, count, err));
    }
    return LP_OK;
}

lp_status lp_encode_dense(float *out, lp_encoder *e, const float *x, int n, lp_error *err)
{
    const lp_sae *s = e->s;
    for (int at = 0; at < n; at += e->most) {
        int count = n - at < e->most ? n - at : e->most;
        float *y = out + (size_t)at * (size_t)s->d_sae;
        LP_TRY(make_ready(e, x + (size_t)at * (size_t)s->d_in, count, at, err));
        multiply(e, y, &s->encoder, e->x, count, e->arithmetic);
        for (int r = 0; r < count; r++)
            for (int i = 0; i < s->d_sae; i++) y[(size_t)r * (size_t)s->d_sae + (size_t)i] += s->b_enc[i];
    }
    return LP_OK;
}

/* ---- back -------------------------------------------------------------------------------------------------------- */

/* One row: the features' rows in ascending order, then the bias, then the row's own scale. */
static void decode_row(float *out, const lp_sae *s, const lp_features *f, int row, const float *x)
{
    size_t width = (size_t)s->d_out;
    memset(out, 0, width * sizeof *out);
    for (size_t at = f->start[row]; at < f->start[row + 1]; at++) {
        int i = f->index[at];
        float v = f->value[at];
        if (s->rescales) v /= s->dec_norm[i];
        lp_sae_add_decoder(s, i, v, out);
    }
    for (size_t i = 0; i < width; i++) out[i] += s->b_dec[i];
    if (s->norm == LP_SAE_NORM_NONE || s->spot.is_coder) return; /* SAELens undoes nothing for a transcoder */
    double shift, scale;
    find_norm(s, x, &shift, &scale);
    if (s->norm == LP_SAE_NORM_LAYER) scale -= 1e-5; /* it multiplies by the std alone */
    for (size_t i = 0; i < width; i++) out[i] = (float)((double)out[i] * scale + shift);
}

double lp_decoder_scale(const lp_sae *s, int feature, const float *x)
{
    double g = s->rescales ? 1 / (double)s->dec_norm[feature] : 1, shift, scale;
    if (s->norm == LP_SAE_NORM_NONE || s->spot.is_coder) return g;
    find_norm(s, x, &shift, &scale);
    return g * (s->norm == LP_SAE_NORM_LAYER ? scale - 1e-5 : scale);
}

typedef struct decoding {
    const lp_sae *s;
    const lp_features *f;
    const float *x;
    float *out;
    atomic_int next;
} decoding;

static void decode_some(int id, int n, void *arg)
{
    decoding *p = arg;
    (void)id, (void)n;
    for (int r; (r = lp_claim(&p->next)) < p->f->n_rows;)
        decode_row(p->out + (size_t)r * (size_t)p->s->d_out, p->s, p->f, r,
                   p->x ? p->x + (size_t)r * (size_t)p->s->d_in : NULL);
}

static void add_skip(float *out, lp_encoder *e, const float *x, int n)
{
    const lp_sae *s = e->s;
    size_t width = (size_t)s->d_out;
    for (int at = 0; at < n; at += LP_TILE) {
        int count = n - at < LP_TILE ? n - at : LP_TILE;
        float *part = e->pre;
        multiply(e, part, &s->skip, x + (size_t)at * (size_t)s->d_in, count, LP_EXACT);
        for (size_t i = 0; i < (size_t)count * width; i++) out[(size_t)at * width + i] += part[i];
    }
}

void lp_decode(float *out, lp_encoder *e, const lp_features *f, const float *x)
{
    decoding p = {.s = e->s, .f = f, .x = x, .out = out};
    assert(x || (e->s->norm == LP_SAE_NORM_NONE && !e->s->has_skip));
    size_t work = f->n_rows ? f->start[f->n_rows] * (size_t)e->s->d_out : 0;
    lp_pool_run(work < WORTH_WAKING ? NULL : e->env.pool, decode_some, &p);
    if (e->s->has_skip) add_skip(out, e, x, f->n_rows);
}
