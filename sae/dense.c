/* dense.c - see dense.h.
 *
 * One engine does both jobs: two sets of rows, of which blocks are made ready as f32, a product of every block of the
 * one with every block of the other, and lists of the best for each row.  Of one dictionary with itself only the upper
 * half of the blocks is computed, and looked at from both sides.
 */
#include "sae/dense.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 2048, MOST_FLOATS = 8 << 20 }; /* of a block */

/* Where rows come from: rows [first, first + n) of the set, f32. */
typedef struct rows {
    int n;
    const int *which; /* [n] features; NULL: row i is i */
    const lp_sae *sae;
    const lp_model *model; /* NULL: decoder rows of length 1 */
    bool is_gained;
    lp_status (*fill)(float *out, const struct rows *r, int first, int n, const lp_env *env, lp_error *err);
} rows;

/* The k best of one row. */
typedef struct lists {
    lp_scored *items; /* [n][k] best first */
    int *n;           /* [n] how many      */
    float sign;       /* -1: the smallest are the best */
} lists;

typedef struct sweep {
    const rows *a, *b;
    bool is_self; /* a row is not compared with itself, and a and b are the same rows but where `which` chooses */
    int width, k, most;
    lists best[2];
    int n_best;
    float *x, *y, *z; /* [most][width] of a, of b; [most][most] the product */
    const lp_env *env;
} sweep;

void lp_dense_threads(int n)
{
    openblas_set_num_threads(n);
}

/* ---- keeping the best -------------------------------------------------------------------------------------------- */

static int id_of(const rows *r, int i)
{
    return r->which ? r->which[i] : i;
}

/* Figures z [n], `step` floats apart, of row i of one set with rows from `first` on of the other.  Whichever way they are
 * looked at, blocks come to a row in the order of ids, so that of equals the lower id stands first. */
static void keep(const lists *l, const sweep *w, const rows *of, int i, const rows *with, int first, const float *z,
                 int n, size_t step)
{
    lp_scored *best = l->items + (size_t)i * (size_t)w->k;
    int *have = &l->n[i], self = w->is_self ? id_of(of, i) : -1;
    float least = *have == w->k ? best[w->k - 1].score : -INFINITY;
    for (int j = 0; j < n; j++) {
        float score = l->sign * z[(size_t)j * step];
        if (!(score >= least)) continue; /* nearly all, and NaN */
        int id = id_of(with, first + j);
        if (id == self) continue;
        *have = lp_scored_insert(best, *have, w->k, (lp_scored){id, score});
        if (*have == w->k) least = best[w->k - 1].score;
    }
}

static lp_status new_lists(lists *l, lp_scored *out, int n, float sign, lp_error *err)
{
    *l = (lists){.items = out, .n = lp_calloc((size_t)n + 1, sizeof *l->n), .sign = sign};
    return l->n ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
}

/* Signs are taken off again, and what was not found is said to be nothing. */
static void finish_lists(lists *l, int n, int k)
{
    for (int i = 0; i < n; i++) {
        lp_scored *best = l->items + (size_t)i * (size_t)k;
        for (int j = 0; j < l->n[i]; j++) best[j].score *= l->sign;
        for (int j = l->n[i]; j < k; j++) best[j] = (lp_scored){-1, NAN};
    }
}

/* ---- the engine -------------------------------------------------------------------------------------------------- */

/* sgemm, row-major: z [n][n_y] = x y^T, `most` floats a row.  beta is 0: what z held before is not read. */
static void multiply(const sweep *w, int n_x, int n_y)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n_x, n_y, w->width, 1, w->x, w->width, w->y, w->width, 0, w->z,
                w->most);
}

static void look(const sweep *w, int at, int n, int first, int n_y)
{
    bool is_mirrored = w->a == w->b && first > at;
    for (int l = 0; l < w->n_best; l++) {
        for (int i = 0; i < n; i++)
            keep(&w->best[l], w, w->a, at + i, w->b, first, w->z + (size_t)i * (size_t)w->most, n_y, 1);
        for (int j = 0; j < n_y && is_mirrored; j++)
            keep(&w->best[l], w, w->b, first + j, w->a, at, w->z + j, n, (size_t)w->most);
    }
}

static int count(const rows *r, int at, int most)
{
    return r->n - at < most ? r->n - at : most;
}

static lp_status run_blocks(sweep *w, lp_error *err)
{
    int64_t done = 0, of = 0, blocks_a = (w->a->n + w->most - 1) / w->most,
            blocks_b = (w->b->n + w->most - 1) / w->most;
    of = w->a == w->b ? blocks_a * (blocks_a + 1) / 2 : blocks_a * blocks_b;
    for (int at = 0; at < w->a->n; at += w->most) {
        int n = count(w->a, at, w->most);
        LP_TRY(w->a->fill(w->x, w->a, at, n, w->env, err));
        for (int first = w->a == w->b ? at : 0; first < w->b->n; first += w->most) {
            int n_y = count(w->b, first, w->most);
            lp_progress(w->env, "comparing", done++, of);
            if (lp_cancelled(w->env)) return LP_CANCELLED;
            LP_TRY(w->b->fill(w->y, w->b, first, n_y, w->env, err));
            multiply(w, n, n_y);
            look(w, at, n, first, n_y);
        }
    }
    lp_progress(w->env, "comparing", of, of);
    return LP_OK;
}

static int block_rows(int asked, int width, int n)
{
    int most = asked > 0 ? asked : MOST_ROWS < MOST_FLOATS / width ? MOST_ROWS : MOST_FLOATS / width;
    return most > n ? n : most > 0 ? most : 1;
}

static lp_status run(sweep *w, int asked_rows, lp_error *err)
{
    size_t width = (size_t)w->width;
    size_t most = (size_t)(w->most = block_rows(asked_rows, w->width, w->a->n > w->b->n ? w->a->n : w->b->n));
    w->x = lp_calloc(most * width, sizeof *w->x);
    w->y = lp_calloc(most * width, sizeof *w->y);
    w->z = lp_calloc(most * most, sizeof *w->z);
    lp_status st = w->x && w->y && w->z
                       ? run_blocks(w, err)
                       : lp_fail(err, LP_E_MEMORY, "no memory for two blocks of %zu rows of %d", most, w->width);
    free(w->x), free(w->y), free(w->z);
    return st;
}

static lp_status check(const lp_sae *s, const lp_dense_options *o, lp_error *err)
{
    if (o->k < 1) return lp_fail(err, LP_E_RANGE, "the %d best of each feature: at least 1", o->k);
    for (int i = 0; o->which && i < o->n; i++)
        if (o->which[i] < 0 || o->which[i] >= s->d_sae)
            return lp_fail(err, LP_E_RANGE, "feature %d: %s has features 0 to %d", o->which[i], s->name, s->d_sae - 1);
    return LP_OK;
}

static rows features_of(const lp_sae *s, const lp_dense_options *o)
{
    return (rows){.n = o && o->which ? o->n : s->d_sae, .which = o ? o->which : NULL, .sae = s};
}

/* ---- nearness ---------------------------------------------------------------------------------------------------- */

/* Decoder rows of length 1.  One that has no direction is made NaN: then so are its figures, and none is kept. */
static lp_status fill_unit(float *out, const rows *r, int first, int n, const lp_env *env, lp_error *err)
{
    int width = r->sae->d_out;
    (void)env, (void)err;
    for (int i = 0; i < n; i++) {
        float *row = out + (size_t)i * (size_t)width;
        double squares = 0;
        lp_sae_decoder_row(r->sae, id_of(r, first + i), row);
        for (int j = 0; j < width; j++) squares += (double)row[j] * (double)row[j];
        double inverse = squares > 0 && isfinite(squares) ? 1 / sqrt(squares) : (double)NAN;
        for (int j = 0; j < width; j++) row[j] = (float)((double)row[j] * inverse);
    }
    return LP_OK;
}

lp_status lp_dense_nearest(lp_scored *out, const lp_sae *a, const lp_sae *b, const lp_dense_options *o,
                           const lp_env *env, lp_error *err)
{
    rows x = features_of(a, o), y = features_of(b, NULL);
    x.fill = y.fill = fill_unit;
    LP_TRY(check(a, o, err));
    if (a->d_out != b->d_out)
        return lp_fail(err, LP_E_SHAPE, "%s has decoder rows of %d, %s of %d: they cannot be compared", a->name,
                       a->d_out, b->name, b->d_out);
    bool is_whole = a == b && !o->which;
    sweep w = {
        .a = is_whole ? &y : &x, .b = &y, .is_self = a == b, .width = a->d_out, .k = o->k, .n_best = 1, .env = env};
    lp_status st = new_lists(&w.best[0], out, x.n, 1, err);
    if (st == LP_OK) st = run(&w, o->rows, err);
    if (st == LP_OK) finish_lists(&w.best[0], x.n, o->k);
    free(w.best[0].n);
    return st;
}

/* ---- effects ----------------------------------------------------------------------------------------------------- */

static lp_status fill_directions(float *out, const rows *r, int first, int n, const lp_env *env, lp_error *err)
{
    size_t D = (size_t)r->model->config.d_model;
    int *ids = lp_calloc((size_t)n, sizeof *ids);
    if (!ids) return lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; i < n; i++) ids[i] = id_of(r, first + i);
    lp_status st = lp_feature_directions(out, r->sae, ids, n, r->model, env, err);
    free(ids);
    for (size_t i = 0; st == LP_OK && r->is_gained && i < (size_t)n * D; i++) out[i] *= r->model->final_gain[i % D];
    return st;
}

static lp_status fill_tokens(float *out, const rows *r, int first, int n, const lp_env *env, lp_error *err)
{
    (void)err;
    lp_matrix_rows(&r->model->embed, first, n, out, env && env->kernels ? env->kernels : lp_kernels_best());
    return LP_OK;
}

lp_status lp_dense_effects(lp_scored *up, lp_scored *down, const lp_sae *s, lp_effect kind, const lp_model *m,
                           const lp_dense_options *o, const lp_env *env, lp_error *err)
{
    lp_route route;
    rows x = features_of(s, o), y = {.n = m->config.vocab, .model = m, .fill = fill_tokens};
    x.model = m, x.is_gained = kind == LP_EFFECT_GAINED, x.fill = fill_directions;
    LP_TRY(check(s, o, err));
    LP_TRY(lp_sae_route(&route, s, m, err));
    sweep w = {.a = &x, .b = &y, .width = m->config.d_model, .k = o->k, .n_best = 2, .env = env};
    lp_status st = new_lists(&w.best[0], up, x.n, 1, err);
    if (st == LP_OK) st = new_lists(&w.best[1], down, x.n, -1, err);
    if (st == LP_OK) st = run(&w, o->rows, err);
    for (int l = 0; l < 2; l++) {
        if (st == LP_OK) finish_lists(&w.best[l], x.n, o->k);
        free(w.best[l].n);
    }
    return st;
}
