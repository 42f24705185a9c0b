/* bench_run.c - the measurements of `lapidary bench`.
 *
 * On a shared machine an absolute figure says little: the clock, the neighbours and the memory change by the second.  So
 * every measurement stands between two readings of its yardstick, taken just before and just after, and its share is
 * of their mean.  Everything is measured once per round, in the same order; medians are taken of the rounds' shares.
 *
 *     yardstick   the most this kernel table can add and multiply in registers (core/bench.h)
 *                 the most these threads can read of the very memory the weights lie in
 *     matmul      512 rows through the MLP's up and down matrices, a new layer every time, so that no cache holds them
 *     decode      one token after the other from an empty cache; a token reads every weight and the cache so far
 *     prompt      512 tokens at once; the floor counts the flops of the weight products, and of the unembedding for
 *                 one row, as the whole work: attention, norms and the rest are overhead
 *     load        opening the model; the file is in the page cache after the first round
 */
#include "cli/bench.h"

#include "core/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 512 };

static const double yard_seconds = 0.03, matmul_seconds = 0.15;

void bench_add(bench *b, const char *what, const char *arithmetic, const char *unit, double value, const char *of,
               double share)
{
    bench_series *s = NULL;
    for (int i = 0; i < b->n_series && !s; i++)
        if (strcmp(b->series[i].what, what) == 0 && strcmp(b->series[i].arithmetic, arithmetic) == 0) s = &b->series[i];
    if (!s) {
        if (b->n_series == MAX_SERIES) return;
        s = &b->series[b->n_series++];
        snprintf(s->what, sizeof s->what, "%s", what);
        s->arithmetic = arithmetic;
        s->unit = unit;
        s->of = of;
    }
    if (s->n == MAX_ROUNDS) return;
    s->value[s->n] = value;
    s->share[s->n++] = share;
}

const bench_series *bench_find(const bench *b, const char *what, const char *arithmetic)
{
    for (int i = 0; i < b->n_series; i++)
        if (strcmp(b->series[i].what, what) == 0 && strcmp(b->series[i].arithmetic, arithmetic) == 0)
            return &b->series[i];
    return NULL;
}

lp_status bench_folder(char **out, lp_error *err)
{
    const char *tmp = getenv("TMPDIR");
    char *folder = lp_format("%s/lapidary-bench-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!folder) return lp_fail(err, LP_E_MEMORY, "out of memory");
    if (mkdtemp(folder)) {
        *out = folder;
        return LP_OK;
    }
    lp_status st = lp_fail(err, LP_E_IO, "%s: cannot make a temporary folder; set TMPDIR", folder);
    free(folder);
    return st;
}

/* ---- yardsticks ----------------------------------------------------------------------------------------------- */

const char *bench_arithmetic(lp_arithmetic a)
{
    return a == LP_FAST ? "fast" : "exact";
}

/* Flops per second, over long enough to be of these seconds and not of one lucky millisecond. */
double bench_peak(const bench *b, lp_arithmetic a)
{
    double start = lp_clock(), sum = 0;
    int n = 0;
    do {
        sum += 1 / (a == LP_FAST ? lp_peak_dp(b->c->env.pool, b->kernels) : lp_peak_fma(b->c->env.pool, b->kernels));
        n++;
    } while (lp_clock() - start < yard_seconds);
    return n / sum;
}

static double raw_read(const bench *b)
{
    double start = lp_clock(), sum = 0;
    int n = 0;
    do {
        sum += 1 / lp_raw_read(b->c->env.pool, b->kernels, b->model->arena, b->model->arena_bytes);
        n++;
    } while (lp_clock() - start < yard_seconds);
    return n / sum;
}

static void yardsticks(bench *b)
{
    bench_add(b, "peak", "exact", "GFLOP/s", bench_peak(b, LP_EXACT) / 1e9, NULL, 0);
    bench_add(b, "peak", "fast", "GFLOP/s", bench_peak(b, LP_FAST) / 1e9, NULL, 0);
    bench_add(b, "raw read", "", "GB/s", raw_read(b) / 1e9, NULL, 0);
}

/* ---- matmul --------------------------------------------------------------------------------------------------- */

static void fill(float *x, size_t n)
{
    uint32_t s = 1;
    for (size_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = (float)(int32_t)s * (1.0f / 2147483648.0f);
    }
}

typedef struct product {
    float *x, *y;
    lp_matmul_scratch *scratch;
    int layer; /* the next one to use */
} product;

static void time_matmul(bench *b, product *p, bool down, lp_arithmetic a)
{
    const lp_model *m = b->model;
    double before = bench_peak(b, a), start = lp_clock(), seconds, flops = 0;
    do {
        const lp_layer *l = &m->layers[p->layer++ % m->config.n_layers];
        const lp_matrix *w = down ? &l->down : &l->up;
        lp_matmul(&p->y, &w, 1, p->x, ROWS, a, p->scratch, &b->c->env);
        flops += 2.0 * ROWS * w->rows * w->cols;
        seconds = lp_clock() - start;
    } while (seconds < matmul_seconds);
    double after = bench_peak(b, a), rate = flops / seconds;
    bench_add(b, down ? "matmul down, 512 rows" : "matmul up, 512 rows", bench_arithmetic(a), "GFLOP/s", rate / 1e9,
              "peak", rate / (0.5 * (before + after)));
}

static lp_status matmuls(bench *b, lp_error *err)
{
    const lp_config *c = &b->model->config;
    int wide = c->d_ff > c->d_model ? c->d_ff : c->d_model;
    size_t bytes = (size_t)ROWS * (size_t)wide * sizeof(float);
    product p = {.x = lp_big_alloc(bytes), .y = lp_big_alloc(bytes)}; /* huge pages, as a session's scratch is */
    lp_status st = p.x && p.y ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory for %d rows of %d", ROWS, wide);
    if (st == LP_OK) st = lp_matmul_scratch_new(&p.scratch, ROWS, wide, lp_pool_threads(b->c->env.pool), err);
    if (st == LP_OK) {
        fill(p.x, (size_t)ROWS * (size_t)wide);
        fill(p.y, (size_t)ROWS * (size_t)wide); /* touched before it is timed */
        for (int i = 0; i < 4; i++) time_matmul(b, &p, i & 1, i & 2 ? LP_FAST : LP_EXACT);
    }
    lp_matmul_scratch_free(p.scratch);
    lp_big_free(p.y, bytes);
    lp_big_free(p.x, bytes);
    return st;
}

/* ---- whole model ---------------------------------------------------------------------------------------------- */

void bench_ids(const bench *b, int *ids, int n, uint32_t seed)
{
    uint32_t s = seed;
    for (int i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        ids[i] = i ? (int)((s >> 8) % (uint32_t)b->model->config.vocab) : b->model->config.bos;
        if (ids[i] < 0) ids[i] = 0;
    }
}

/* Seconds that `n` tokens take from an empty cache: all at once, or one by one after a first.  What is not timed, that
 * first one or a layer of the prompt, touches the session's scratch, which any but the first evaluation finds warm. */
static lp_status time_tokens(double *seconds, bench *b, int n, lp_arithmetic a, bool one_by_one, lp_error *err)
{
    lp_session *s = NULL;
    int *ids = lp_calloc((size_t)n + 1, sizeof *ids);
    lp_session_options o = {.arithmetic = a, .wave = b->c->wave, .n_ctx = n + 1};
    lp_status st = ids ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory for %d tokens", n);
    if (st == LP_OK) st = lp_session_new(&s, b->model, &o, &b->c->env, err);
    if (st != LP_OK) goto out;
    bench_ids(b, ids, n + 1, 7);
    st = one_by_one ? lp_session_eval(s, ids, 1, err) : lp_session_peek(s, ids, (size_t)n, 0, err);
    if (st != LP_OK) goto out;
    double start = lp_clock();
    if (!one_by_one) st = lp_session_eval(s, ids, (size_t)n, err);
    for (int i = 1; one_by_one && st == LP_OK && i <= n; i++) st = lp_session_eval(s, ids + i, 1, err);
    *seconds = lp_clock() - start;
out:
    lp_session_free(s);
    free(ids);
    return st;
}

/* Decoding reads all weights once per token (the tied table as the unembedding), and the cache up to there. */
static lp_status decode(bench *b, lp_error *err)
{
    const lp_model *m = b->model;
    lp_arithmetic a = b->c->arithmetic;
    double seconds = 0, before = raw_read(b);
    LP_TRY(time_tokens(&seconds, b, b->tokens, a, true, err));
    double after = raw_read(b), rate = b->tokens / seconds;
    double weights = (double)m->weight_bytes - 2.0 * m->config.max_positions * (m->config.head_dim / 2) * 4; /* rope */
    double moved = weights + (double)lp_session_bytes_per_token(&m->config) * 0.5 * (b->tokens + 1);
    bench_add(b, "decode", bench_arithmetic(a), "token/s", rate, NULL, 0);
    bench_add(b, "decode, bytes moved", bench_arithmetic(a), "GB/s", rate * moved / 1e9, "raw read",
              rate * moved / (0.5 * (before + after)));
    return LP_OK;
}

static double product_flops(const lp_model *m, int n)
{
    double per_row = 0;
    for (int i = 0; i < m->config.n_layers; i++) {
        const lp_layer *l = &m->layers[i];
        const lp_matrix *all[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++) per_row += 2.0 * all[j]->rows * all[j]->cols;
    }
    return per_row * n + 2.0 * m->embed.rows * m->embed.cols;
}

static lp_status prompt(bench *b, lp_arithmetic a, lp_error *err)
{
    char what[40];
    double seconds = 0, before = bench_peak(b, a);
    LP_TRY(time_tokens(&seconds, b, b->prompt, a, false, err));
    double after = bench_peak(b, a), rate = product_flops(b->model, b->prompt) / seconds;
    snprintf(what, sizeof what, "prompt of %d", b->prompt);
    bench_add(b, what, bench_arithmetic(a), "token/s", b->prompt / seconds, "peak", rate / (0.5 * (before + after)));
    return LP_OK;
}

static lp_status load(bench *b, lp_error *err)
{
    lp_model_close(b->model);
    b->model = NULL;
    double start = lp_clock();
    LP_TRY(lp_model_open(&b->model, b->path, NULL, &b->c->env, err));
    bench_add(b, "load", "", "s", lp_clock() - start, NULL, 0);
    return LP_OK;
}

static lp_status one_round(bench *b, lp_error *err)
{
    if (!b->model || b->what & BENCH_LOAD) LP_TRY(load(b, err));
    if (lp_cancelled(&b->c->env)) return LP_CANCELLED;
    b->n_layers = b->model->config.n_layers;
    int most = b->model->config.max_positions - 1;
    if (b->prompt > most) b->prompt = most;
    if (b->tokens > most) b->tokens = most;
    yardsticks(b);
    if (b->what & BENCH_MATMUL) LP_TRY(matmuls(b, err));
    if (lp_cancelled(&b->c->env)) return LP_CANCELLED;
    if (b->what & BENCH_DECODE) LP_TRY(decode(b, err));
    if (b->what & BENCH_PROMPT) {
        LP_TRY(prompt(b, LP_EXACT, err));
        LP_TRY(prompt(b, LP_FAST, err));
    }
    if (b->what & BENCH_SAE) LP_TRY(bench_sae(b, err));
    if (b->what & BENCH_EXTRACT) LP_TRY(bench_extract(b, err));
    return b->peer ? bench_peer(b, err) : LP_OK;
}

lp_status bench_run(bench *b, lp_error *err)
{
    lp_status st = LP_OK;
    for (int i = 0; i < b->rounds && st == LP_OK; i++) {
        lp_log(&b->c->env, LP_INFO, "round %d of %d", i + 1, b->rounds);
        st = one_round(b, err);
    }
    return st;
}
