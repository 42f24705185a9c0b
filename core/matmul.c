/* matmul.c - the product: which tile meets which panel, in what order, on which thread.
 *
 * Each output is one chain of additions over K, so any schedule gives the same bits; this one is for caches.
 * Rows of x are cut into tiles of at most 12, all as equal as can be (no thin last tile), K into blocks of KC columns:
 *
 *     x packed   [block of K][tile][KC][rows of the tile]      one tile's block: 24 KiB, stays in L1
 *     weights    a group of 6 panels, one block of K: 200 to 400 KiB, stays in L2
 *
 *     for each group of panels (taken by the threads in turn)
 *         for each block of K        expand the group's panels, unless they can be used as they lie
 *             for each tile of x
 *                 for each panel of the group      y[tile][panel] continues from the block before
 *
 * So weights come from memory once, x from L3 once per group.  Packing puts the next tile's block right behind this
 * one's, which is where the kernels prefetch.  With one row of x there is nothing to keep: panels stream past.
 *
 * All matrices of a call share one list of panels.  A thread takes a group at a time, smaller ones near the end, so
 * that threads on cores of unequal speed (or with unequal neighbours) finish together.
 */
#include "core/matmul.h"
#include "core/panels.h"

#include <assert.h>
#include <stdlib.h>

enum {
    KC_EXACT = 768, /* columns per block: multiples of 256, the largest group of a format */
    KC_FAST = 1536,
    GROUP = 6,              /* panels a thread takes at a time */
    KC_FEW = 256,           /* with FEW rows: an expanded block stays in L1 */
    FEW = 24,               /* up to this many rows: panel by panel, the weights are what costs */
    WORTH_WAKING = 1 << 19, /* multiply-adds: with fewer, one thread is done before another has woken */
};

struct lp_matmul_scratch {
    size_t bytes; /* of this allocation */
    int max_rows, max_cols, n_threads;
    void *x; /* packed: max_rows x max_cols floats */
    struct own {
        void *x;       /* one packed row                              */
        void *weights; /* GROUP expanded blocks                       */
        float *edge;   /* [max_rows][32]: results of a panel that is not full */
    } * own;           /* [n_threads] */
};

static size_t padded(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

lp_status lp_matmul_scratch_new(lp_matmul_scratch **out, int max_rows, int max_cols, int n_threads, lp_error *err)
{
    assert(max_rows > 0 && max_cols > 0 && n_threads > 0);
    size_t cols = (size_t)max_cols + (size_t)max_cols % 2, x, bytes;
    size_t row = padded(cols * 4), edge = (size_t)max_rows * LP_LANES * 4;
    size_t weights = (size_t)GROUP * KC_EXACT * LP_LANES * 4; /* KC_FAST columns of bf16 take the same */
    size_t head = padded(sizeof(lp_matmul_scratch)) + padded((size_t)n_threads * sizeof(struct own));
    if (__builtin_mul_overflow(cols * 4, (size_t)max_rows, &x) ||
        __builtin_mul_overflow(row + weights + edge, (size_t)n_threads, &bytes) ||
        __builtin_add_overflow(bytes, padded(x) + head, &bytes))
        return lp_fail(err, LP_E_MEMORY, "scratch for products of %d x %d does not fit", max_rows, max_cols);
    lp_matmul_scratch *s = lp_big_alloc(bytes);
    if (!s) return lp_fail(err, LP_E_MEMORY, "out of memory: %zu MiB of scratch for products", bytes >> 20);
    char *at = (char *)s + padded(sizeof *s);
    *s = (lp_matmul_scratch){bytes, max_rows, max_cols, n_threads, NULL, (void *)at};
    at += padded((size_t)n_threads * sizeof(struct own));
    s->x = at;
    at += padded(x);
    for (int i = 0; i < n_threads; i++, at += row + weights + edge)
        s->own[i] = (struct own){at, at + row, (void *)(at + row + weights)};
    *out = s;
    return LP_OK;
}

void lp_matmul_scratch_free(lp_matmul_scratch *s)
{
    if (s) lp_big_free(s, s->bytes);
}

/* ---- one product --------------------------------------------------------------------------------------------- */

typedef struct product {
    float *const *y;
    const lp_matrix *const *w;
    const float *x;
    lp_matmul_scratch *s;
    const lp_kernels *kernels;
    lp_pool *pool;
    bool fast;
    int count, n, K;       /* matrices; rows of x; columns, padded to even */
    int tiles, KC, blocks; /* tiles of x; columns per block; blocks of K   */
    int panels, group;     /* of all matrices together; most taken at once */
    atomic_int next_slab, next_panel;
} product;

static int tile_start(const product *p, int tile)
{
    int base = p->n / p->tiles, more = p->n % p->tiles;
    return tile * base + (tile < more ? tile : more);
}

static int block_columns(const product *p, int block)
{
    int left = p->K - block * p->KC;
    return left < p->KC ? left : p->KC;
}

/* Packed x of one tile, one block.  The block's columns of all n rows come before it, n at a time. */
static void *slab(const product *p, int block, int tile)
{
    size_t element = p->fast ? 2 : 4;
    size_t at = (size_t)block * p->KC * p->n + (size_t)tile_start(p, tile) * block_columns(p, block);
    return (char *)p->s->x + at * element;
}

static void pack_slab(const product *p, int block, int tile)
{
    int cols = p->w[0]->cols, first = tile_start(p, tile), rows = tile_start(p, tile + 1) - first;
    int k0 = block * p->KC, kc = cols - k0 < p->KC ? cols - k0 : p->KC;
    const float *x = p->x + (size_t)first * cols + k0;
    if (p->fast)
        p->kernels->pack_fast(x, (size_t)cols, rows, kc, slab(p, block, tile));
    else
        p->kernels->pack_exact(x, (size_t)cols, rows, kc, slab(p, block, tile));
}

static int n_panels(const lp_matrix *w)
{
    return (w->rows + LP_LANES - 1) / LP_LANES;
}

/* Takes panels [*first, *first + result) of one matrix; 0: none are left. */
static int claim(product *p, int n_threads, int *matrix, int *first)
{
    int at = atomic_load_explicit(&p->next_panel, memory_order_relaxed), take;
    do {
        if (at >= p->panels) return 0;
        int m = 0, start = 0;
        while (at - start >= n_panels(p->w[m])) start += n_panels(p->w[m++]);
        *matrix = m;
        *first = at - start;
        take = (p->panels - at) / (2 * n_threads);
        take = take < 1 ? 1 : take > p->group ? p->group : take;
        if (take > n_panels(p->w[m]) - *first) take = n_panels(p->w[m]) - *first;
    } while (!atomic_compare_exchange_weak_explicit(&p->next_panel, &at, at + take, memory_order_relaxed,
                                                    memory_order_relaxed));
    return take;
}

static const uint8_t *panel_at(const lp_matrix *w, int panel)
{
    return (const uint8_t *)w->data + (size_t)panel * w->panel_bytes;
}

/* A panel can be used as it lies by the tile of its own type. */
static bool needs_expanding(const product *p, const lp_matrix *w)
{
    return w->format != LP_PANEL_BF16 && (p->fast || w->format != LP_PANEL_F32);
}

/* The weights of one panel, one block: where they lie, or expanded into `room`. */
static const void *block_weights(const product *p, const lp_matrix *w, int panel, int block, void *room)
{
    int k0 = block * p->KC, kc = block_columns(p, block);
    if (!needs_expanding(p, w)) return panel_at(w, panel) + (size_t)(k0 / 2) * lp_panel_group_bytes(w->format);
    if (p->fast)
        p->kernels->expand_bf16(w->format, panel_at(w, panel), k0, kc, room);
    else
        p->kernels->expand_f32(w->format, panel_at(w, panel), k0, kc, room);
    return room;
}

static void multiply(const product *p, const lp_matrix *w, int block, int tile, const void *weights, float *y,
                     size_t ldy)
{
    int rows = tile_start(p, tile + 1) - tile_start(p, tile), kc = block_columns(p, block);
    const void *x = slab(p, block, tile);
    if (p->fast)
        p->kernels->tile_fast(x, weights, y, ldy, kc, rows, block > 0);
    else if (w->format == LP_PANEL_BF16)
        p->kernels->tile_bf16(x, weights, y, ldy, kc, rows, block > 0);
    else
        p->kernels->tile_f32(x, weights, y, ldy, kc, rows, block > 0);
}

/* Columns of y beyond the last whole panel: computed aside, then copied. */
static void copy_edge(const product *p, const lp_matrix *w, const float *edge, float *y)
{
    int first = w->rows / LP_LANES * LP_LANES;
    for (int r = 0; r < p->n; r++)
        for (int lane = 0; first + lane < w->rows; lane++)
            y[(size_t)r * w->rows + first + lane] = edge[(size_t)r * LP_LANES + lane];
}

static void multiply_group(const product *p, const struct own *own, int matrix, int first, int n)
{
    const lp_matrix *w = p->w[matrix];
    const void *weights[GROUP];
    float *y = p->y[matrix];
    int whole = w->rows / LP_LANES; /* a panel beyond is the edge */
    for (int block = 0; block < p->blocks; block++) {
        for (int i = 0; i < n; i++) {
            char *room = (char *)own->weights + (size_t)i * KC_EXACT * LP_LANES * 4;
            weights[i] = block_weights(p, w, first + i, block, room);
        }
        for (int tile = 0; tile < p->tiles; tile++)
            for (int i = 0; i < n; i++) {
                size_t row = (size_t)tile_start(p, tile);
                if (first + i < whole)
                    multiply(p, w, block, tile, weights[i], y + row * w->rows + (size_t)(first + i) * LP_LANES,
                             (size_t)w->rows);
                else
                    multiply(p, w, block, tile, weights[i], own->edge + row * LP_LANES, LP_LANES);
            }
    }
    if (first + n > whole) copy_edge(p, w, own->edge, y);
}

static void multiply_row(const product *p, const struct own *own, int matrix, int first, int n)
{
    const lp_matrix *w = p->w[matrix];
    int whole = w->rows / LP_LANES, direct = first + n > whole ? n - 1 : n;
    for (int edge = 0; edge < 2; edge++) {
        int from = edge ? first + direct : first, panels = edge ? n - direct : direct;
        float *y = edge ? own->edge : p->y[matrix] + (size_t)first * LP_LANES;
        if (!panels) continue;
        if (p->fast)
            p->kernels->row_fast(w->format, own->x, panel_at(w, from), w->panel_bytes, panels, y, p->K);
        else
            p->kernels->row_exact(w->format, own->x, panel_at(w, from), w->panel_bytes, panels, y, p->K);
    }
    if (direct < n) copy_edge(p, w, own->edge, p->y[matrix]);
}

static void section(int id, int n_threads, void *arg)
{
    product *p = arg;
    const struct own *own = &p->s->own[id];
    int matrix, first, n;
    if (p->n == 1) { /* packing a row is cheaper than waiting for somebody who does */
        if (p->fast)
            p->kernels->pack_fast(p->x, 0, 1, p->w[0]->cols, own->x);
        else
            p->kernels->pack_exact(p->x, 0, 1, p->w[0]->cols, own->x);
        while ((n = claim(p, n_threads, &matrix, &first))) multiply_row(p, own, matrix, first, n);
        return;
    }
    for (int i; (i = lp_claim(&p->next_slab)) < p->blocks * p->tiles;) pack_slab(p, i / p->tiles, i % p->tiles);
    lp_pool_sync(p->pool);
    while ((n = claim(p, n_threads, &matrix, &first))) multiply_group(p, own, matrix, first, n);
}

void lp_matmul(float *const *y, const lp_matrix *const *w, int count, const float *x, int n, lp_arithmetic a,
               lp_matmul_scratch *s, const lp_env *env)
{
    product p = {.y = y, .w = w, .x = x, .s = s, .count = count, .n = n, .fast = a == LP_FAST};
    if (n <= 0 || count <= 0) return;
    p.kernels = env && env->kernels ? env->kernels : lp_kernels_best();
    p.pool = env ? env->pool : NULL;
    p.K = w[0]->cols + w[0]->cols % 2;
    p.KC = n <= FEW ? KC_FEW : p.fast ? KC_FAST : KC_EXACT;
    p.blocks = (p.K + p.KC - 1) / p.KC;
    p.tiles = (n + LP_TILE - 1) / LP_TILE;
    p.group = n == 1 ? 4 : n <= FEW ? 1 : GROUP;
    for (int i = 0; i < count; i++) {
        assert(w[i]->cols == w[0]->cols && w[i]->data);
        p.panels += n_panels(w[i]);
    }
    double work = (double)n * p.K * p.panels * LP_LANES;
    if (work < WORTH_WAKING) p.pool = NULL;
    assert(n <= s->max_rows && w[0]->cols <= s->max_cols && lp_pool_threads(p.pool) <= s->n_threads);
    lp_pool_run(p.pool, section, &p);
}
