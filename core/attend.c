/* attend.c - attention as two matrix products over the panels of the KV cache.
 *
 * The queries that share a kv head (H/G heads of each row) are numbered row by row and taken twelve at a time, the
 * height of a tile; a tile of queries meets 32 keys at once in tile_f32.  Each score is one chain over E, each element
 * of z one chain over the keys a query may see, from its first to its last: no other position enters it, not even times
 * zero, so a row's bits depend neither on its neighbours in the tile nor on what lies in the cache beyond its window.
 *
 *      queries 0 .. 11          keys first .. last, ascending
 *      row 5, heads 2 3      ....|######################|.          a sliding layer: each row starts and ends one key
 *      row 6, heads 2 3      .....|######################|          later than the row above
 */
#include "core/wave.h"

#include <math.h>
#include <string.h>

typedef struct tile {
    int n;                            /* queries, at most LP_TILE, of one branch */
    int g;                            /* their kv head                  */
    int row[LP_TILE];                 /* in the wave                    */
    int first[LP_TILE], end[LP_TILE]; /* keys [first, end) */
    float *query[LP_TILE];            /* [E]                            */
    float *z[LP_TILE];                /* [E]                            */
    float *score[LP_TILE];            /* [K]                            */
} tile;

/* Rows r0 .. r0 + rows - 1; `run` of them, one after the other, are of one branch. */
typedef struct block {
    int r0, rows, run, K;
} block;

static block make_block(const lp_wave *w, int r0, int rows, int K)
{
    return (block){r0, rows, rows < w->each ? rows : w->each, K};
}

static int ratio(const lp_config *c)
{
    return c->n_heads / c->n_kv_heads;
}

static int tiles_per_head(const lp_config *c, int rows)
{
    return (rows * ratio(c) + LP_TILE - 1) / LP_TILE;
}

static tile make_tile(const lp_wave *w, const block *b, int item)
{
    const lp_config *c = w->c;
    int per = tiles_per_head(c, b->run), q = ratio(c), E = c->head_dim, H = c->n_heads;
    int run = item / (per * c->n_kv_heads);
    tile t = {.g = item / per % c->n_kv_heads};
    int from = item % per * LP_TILE, to = b->run * q;
    if (to > from + LP_TILE) to = from + LP_TILE;
    for (int i = from; i < to; i++, t.n++) {
        int row = run * b->run + i / q, head = t.g * q + i % q, pos = lp_row_pos(w, b->r0 + row);
        t.row[t.n] = b->r0 + row;
        t.first[t.n] = lp_first_key(c, w->layer, pos);
        t.end[t.n] = pos + 1;
        size_t at = ((size_t)(b->r0 + row) * (size_t)H + (size_t)head) * (size_t)E;
        t.query[t.n] = w->s->q + at;
        t.z[t.n] = w->s->z + at;
        t.score[t.n] = w->s->scores + ((size_t)row * (size_t)H + (size_t)head) * (size_t)b->K;
    }
    return t;
}

static size_t padded(const lp_config *c)
{
    return (size_t)(c->head_dim + LP_LANES - 1) / LP_LANES * LP_LANES;
}

size_t lp_attend_tile_floats(const lp_config *c)
{
    return LP_TILE * (2 * padded(c) + LP_LANES + LP_PAGE);
}

/* ---- scores ------------------------------------------------------------------------------------------------------ */

/* Hugging Face, modeling_gemma2.py, eager_attention_forward: (q k^T) * scale, / cap, tanh, * cap, then the mask. */
static void finish_scores(const lp_wave *w, float *x, int first, int end, int K)
{
    const lp_config *c = w->c;
    const lp_kernels *k = w->s->k;
    k->scale(x + first, x + first, (float)(1.0 / sqrt(c->query_pre_attn_scalar)), end - first);
    if (c->attn_softcap > 0) k->softcap(x + first, end - first, (float)c->attn_softcap);
    for (int j = 0; j < first; j++) x[j] = -INFINITY;
    for (int j = end; j < K; j++) x[j] = -INFINITY;
}

static void score_tile(lp_wave *w, const void *arg, int item, int thread)
{
    const block *b = arg;
    lp_session *s = w->s;
    tile t = make_tile(w, b, item);
    int E = w->c->head_dim;
    float *rows = s->tile + (size_t)thread * s->tile_floats;
    float *packed = rows + (size_t)LP_TILE * padded(w->c);
    float *product = packed + (size_t)LP_TILE * padded(w->c); /* [LP_TILE][32] */
    for (int i = 0; i < t.n; i++) memcpy(rows + (size_t)i * (size_t)E, t.query[i], (size_t)E * sizeof *rows);
    s->k->pack_exact(rows, (size_t)E, t.n, E, packed);
    for (int part = 0; part < 2; part++) {
        lp_past past = lp_wave_past(w, t.row[0], part, t.first[0], t.end[t.n - 1]);
        if (past.from >= past.to) continue;
        for (int p = past.from / LP_LANES * LP_LANES; p < past.to; p += LP_LANES) {
            const float *keys = lp_kv_keys(past.kv, past.layer, t.g, p - past.shift);
            s->k->tile_f32(packed, keys, product, LP_LANES, E, t.n, false);
            int a = p < past.from ? past.from : p, z = past.to < p + LP_LANES ? past.to : p + LP_LANES;
            for (int i = 0; i < t.n; i++)
                memcpy(t.score[i] + a, product + i * LP_LANES + a - p, (size_t)(z - a) * sizeof *product);
        }
    }
    for (int i = 0; i < t.n; i++) finish_scores(w, t.score[i], t.first[i], t.end[i], b->K);
}

/* ---- softmax ----------------------------------------------------------------------------------------------------- */

static void softmax_row(const lp_wave *w, float *x, int pos, int K)
{
    const lp_kernels *k = w->s->k;
    int first = lp_first_key(w->c, w->layer, pos), end = pos + 1, base = first & ~15; /* sums go by position mod 16 */
    for (int j = base; j < first; j++) x[j] = -INFINITY;                              /* whatever a hook wrote there */
    float top = k->max(x + first, end - first);
    float sum = k->exp_sum(x + base, end - base, top);
    k->scale(x + first, x + first, 1.0f / sum, end - first);
    memset(x, 0, (size_t)first * sizeof *x);
    memset(x + end, 0, (size_t)(K - end) * sizeof *x);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* The longest run of positions from p on, inside one page, over which the same queries of the tile are active. */
static int run_end(const tile *t, int p)
{
    int end = (p / LP_PAGE + 1) * LP_PAGE;
    for (int i = 0; i < t->n; i++) {
        if (t->first[i] > p && t->first[i] < end) end = t->first[i];
        if (t->end[i] > p && t->end[i] < end) end = t->end[i];
    }
    return end;
}

/* Positions p .. end - 1, over which the tile's active queries are the same. */
static void add_values(const lp_wave *w, const tile *t, const lp_past *past, int p, int end, float *sum, float *pattern)
{
    size_t Ep = padded(w->c);
    int a = 0, z = t->n; /* active: rows above have ended already, rows below have not begun */
    while (a < z && t->end[a] <= p) a++;
    while (z > a && t->first[z - 1] > p) z--;
    for (int i = a; i < z; i++)
        for (int j = p; j < end; j++) pattern[(j - p) * (z - a) + i - a] = t->score[i][j];
    for (int e = 0; e < (int)Ep / LP_LANES; e++)
        w->s->k->tile_f32(pattern, lp_kv_values(past->kv, past->layer, t->g, e, p - past->shift),
                          sum + (size_t)a * Ep + (size_t)e * LP_LANES, Ep, end - p, z - a, true);
}

static void value_tile(lp_wave *w, const void *arg, int item, int thread)
{
    const block *b = arg;
    lp_session *s = w->s;
    tile t = make_tile(w, b, item);
    size_t Ep = padded(w->c);
    float *sum = s->tile + (size_t)thread * s->tile_floats; /* [LP_TILE][Ep] */
    float *pattern = sum + LP_TILE * Ep;                    /* [positions][active] */
    memset(sum, 0, LP_TILE * Ep * sizeof *sum);
    for (int part = 0; part < 2; part++) {
        lp_past past = lp_wave_past(w, t.row[0], part, t.first[0], t.end[t.n - 1]);
        for (int p = past.from, end; p < past.to; p = end) {
            end = run_end(&t, p);
            if (end > past.to) end = past.to;
            add_values(w, &t, &past, p, end, sum, pattern);
        }
    }
    for (int i = 0; i < t.n; i++) memcpy(t.z[i], sum + (size_t)i * Ep, (size_t)w->c->head_dim * sizeof *sum);
}

/* ---- the three sections ------------------------------------------------------------------------------------------ */

static void softmax_item(lp_wave *w, const void *arg, int item, int thread)
{
    (void)thread;
    const block *b = arg;
    int row = b->r0 + item / w->c->n_heads;
    softmax_row(w, w->s->scores + (size_t)item * (size_t)b->K, lp_row_pos(w, row), b->K);
}

/* A tile reads a kv head's cache once and spends a dozen operations on each float of it. */
static size_t tile_work(const lp_config *c, int K)
{
    return (size_t)c->head_dim * (size_t)K;
}

static int tiles(const lp_wave *w, const block *b)
{
    return b->rows / b->run * w->c->n_kv_heads * tiles_per_head(w->c, b->run);
}

void lp_attend_scores(lp_wave *w, int r0, int rows, int K)
{
    block b = make_block(w, r0, rows, K);
    lp_each(w, tiles(w, &b), tile_work(w->c, K), score_tile, &b);
}

void lp_attend_softmax(lp_wave *w, int r0, int rows, int K)
{
    block b = make_block(w, r0, rows, K);
    lp_each(w, rows * w->c->n_heads, (size_t)K, softmax_item, &b);
}

void lp_attend_values(lp_wave *w, int r0, int rows, int K)
{
    block b = make_block(w, r0, rows, K);
    lp_each(w, tiles(w, &b), tile_work(w->c, K), value_tile, &b);
}
