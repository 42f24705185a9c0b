/* wave.h - the inside of a session, and of one wave of rows going through the layers.  Private to core.
 *
 * n rows, D d_model, H heads, G kv heads, E head_dim, F d_ff, K keys, V vocab; W the most rows of a wave.
 */
#ifndef LP_CORE_WAVE_H
#define LP_CORE_WAVE_H

#include "core/kv.h"
#include "core/session.h"

typedef struct lp_hook_row {
    lp_hook hook;
    int handle;
} lp_hook_row;

enum {
    LP_LOGIT_ROWS = 16,        /* rows unembedded at a time when a hook watches the logits of every row */
    LP_SCORE_FLOATS = 8 << 20, /* attention scores held at a time; fewer rows at a time when keys are many */
    LP_WHOLE = LP_MAX_LAYERS,  /* index in armed[] of the sites that have no layer */
};

struct lp_session {
    const lp_model *model;
    lp_session_options options;
    lp_env env;
    const lp_kernels *k;
    int n_threads;

    lp_kv kv;
    int *tokens; /* [n_ctx] */
    int pos;
    int edited_from;
    bool has_logits;
    bool is_busy; /* inside an evaluation: a hook must not start another, nor change who watches */

    lp_hook_row *hooks;
    size_t n_hooks, hooks_capacity;
    int last_handle;
    uint32_t armed[LP_MAX_LAYERS + 1]; /* bit per site, per layer; [LP_WHOLE] the sites without layer */

    /* scratch, carved out of one arena */
    void *arena;
    size_t arena_bytes;
    float *x, *h;     /* [W][D] the stream; a branch */
    float *rms;       /* [W]                         */
    float *q, *z;     /* [W][H][E]                   */
    float *key, *v;   /* [W][G][E]                   */
    float *gate, *up; /* [W][F]                      */
    float *scores;    /* [rows][H][K], score_floats  */
    size_t score_floats;
    float *tile; /* [n_threads][tile_floats]: queries, products, patterns of one attention tile */
    size_t tile_floats;
    float *logits, *next_logits; /* [V] of the last committed token; of the wave going on */
    float *logit_rows;           /* [LP_LOGIT_ROWS][V], only when a hook asked            */
    lp_matmul_scratch *mm;
};

typedef struct lp_wave {
    lp_session *s;
    const lp_layer *L; /* the layer being computed */
    const lp_config *c;
    int n, pos;     /* rows; absolute position of row 0 */
    int layer;      /* LP_WHOLE_MODEL outside the blocks */
    uint32_t armed; /* of this layer */
    lp_error *err;
} lp_wave;

/* Runs `n` rows (at most W) at positions s->pos .. through layers 0 .. last_layer; want_logits: also the unembedding,
 * into s->next_logits.  Commits nothing.  forward.c */
lp_status lp_forward(lp_session *s, const int *ids, int n, int last_layer, bool want_logits, lp_error *err);

/* Calls the hooks of (site, w->layer) on `rows` rows from position `pos`.  hooks.c */
lp_status lp_wave_show(lp_wave *w, lp_site site, int pos, int rows, float *x, int heads, int width);

/* The cost of a site nobody watches: one test of a register. */
static inline lp_status lp_pass(lp_wave *w, lp_site site, float *x, int heads, int width)
{
    if (!(w->armed >> site & 1)) return LP_OK;
    return lp_wave_show(w, site, w->pos, w->n, x, heads, width);
}

/* Calls fn for each of n items, spread over the pool when there is enough to do: `work` is the floats one item touches.
 * Who does which item changes no bit.  wave.c */
typedef void (*lp_item_fn)(lp_wave *w, const void *arg, int item, int thread);
void lp_each(lp_wave *w, int n, size_t work, lp_item_fn fn, const void *arg);

/* Keys that the query at absolute position `pos` sees in this layer: [*first, pos]. */
static inline int lp_first_key(const lp_config *c, int layer, int pos)
{
    int first = pos - c->window + 1; /* pos - j < window */
    return c->sliding[layer] && first > 0 ? first : 0;
}

/* ---- attend.c: attention over the cache, rows r0 .. r0 + rows - 1 of the wave, K = keys up to the last of them.
 * All work on s->scores [rows][H][K]. */
void lp_attend_scores(lp_wave *w, int r0, int rows, int K);  /* q k^T, scaled, soft-capped, masked to -inf */
void lp_attend_softmax(lp_wave *w, int r0, int rows, int K); /* in place                                   */
void lp_attend_values(lp_wave *w, int r0, int rows, int K);  /* into s->z                                  */
size_t lp_attend_tile_floats(const lp_config *c);            /* scratch one thread needs                   */

#endif
