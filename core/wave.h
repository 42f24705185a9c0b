/* wave.h - the inside of a session, and of one wave of rows going through the layers.  Private to core.
 *
 * n rows, D d_model, H heads, G kv heads, E head_dim, F d_ff, K keys, V vocab; W the most rows of a wave.
 */
#ifndef LP_CORE_WAVE_H
#define LP_CORE_WAVE_H

#include "core/kv.h"
#include "core/session.h"

#include <limits.h>

typedef struct lp_hook_row {
    lp_hook hook;
    int handle;
} lp_hook_row;

enum {
    LP_LOGIT_ROWS = 16,        /* rows unembedded at a time when the logits of many are wanted */
    LP_TAIL_BYTES = 64 << 20,  /* memory that the branches of one wave may take for their keys and values */
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
    int branch; /* that is being evaluated as if it were the timeline; else 0 */
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
    float *logit_rows;           /* [LP_LOGIT_ROWS][V], only when a hook or a branch asked */
    lp_kv *tails;                /* [n_tails] keys and values of branches, one layer each */
    int n_tails;
    lp_matmul_scratch *mm;
};

/* What goes through the layers together: one timeline's next rows, or as many for each of several branches, which share
 * the timeline's past and not each other.  Row r is of branch r / each, at position pos + r % each; one timeline is one
 * branch without end. */
typedef struct lp_wave {
    lp_session *s;
    const lp_layer *L; /* the layer being computed */
    const lp_config *c;
    int n, pos;     /* rows; absolute position of row 0                   */
    int each;       /* rows of a branch; LP_UNBRANCHED: there is only one */
    int branch;     /* number of the branch that row 0 is of              */
    int layer;      /* LP_WHOLE_MODEL outside the blocks                  */
    uint32_t armed; /* of this layer                                      */
    lp_error *err;
} lp_wave;

enum { LP_UNBRANCHED = INT_MAX };

static inline int lp_row_pos(const lp_wave *w, int r)
{
    return w->pos + r % w->each;
}

/* One wave's work. */
typedef struct lp_rows {
    const int *ids; /* [n], at most W */
    int n, each, branch, last_layer;
    bool want_logits; /* of the last row, into s->next_logits                                */
    lp_branch_fn fn;  /* branches: given the logits of each one's last row; else NULL        */
    void *user;
} lp_rows;

/* Runs the rows at positions s->pos .. through layers 0 .. last_layer.  Commits nothing.  forward.c */
lp_status lp_forward(lp_session *s, const lp_rows *given, lp_error *err);

/* Can these tokens follow?  session.c */
lp_status lp_session_check(const lp_session *s, const int *ids, size_t n, lp_error *err);
/* Waves of them, from s->pos on; commits nothing.  session.c */
lp_status lp_session_run(lp_session *s, const int *ids, size_t n, int last_layer, bool want_logits, lp_error *err);
/* s->logit_rows is there afterwards.  hooks.c */
lp_status lp_session_take_logit_rows(lp_session *s, lp_error *err);

/* Calls the hooks of (site, w->layer) on `rows` rows from row `r` of the wave on, each branch by itself.  hooks.c */
lp_status lp_wave_show(lp_wave *w, lp_site site, int r, int rows, float *x, int heads, int width);

/* The cost of a site nobody watches: one test of a register. */
static inline lp_status lp_pass(lp_wave *w, lp_site site, float *x, int heads, int width)
{
    if (!(w->armed >> site & 1)) return LP_OK;
    return lp_wave_show(w, site, 0, w->n, x, heads, width);
}

/* Where keys and values of positions [from, to) lie, as rows of that branch see them: `shift` is taken off a position. */
typedef struct lp_past {
    const lp_kv *kv;
    int layer, shift, from, to;
} lp_past;

/* The timeline's own past (part 0), and what the branch has of its own (part 1: from w->pos on), cut to [first, end);
 * an unbranched wave has but the first.  Empty parts have from >= to. */
lp_past lp_wave_past(const lp_wave *w, int r, int part, int first, int end);

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

/* ---- attend.c: attention over the cache, rows r0 .. r0 + rows - 1 of the wave, which are of one branch or are whole
 * branches; K = keys up to the last of them.  All work on s->scores [rows][H][K]. */
void lp_attend_scores(lp_wave *w, int r0, int rows, int K);  /* q k^T, scaled, soft-capped, masked to -inf */
void lp_attend_softmax(lp_wave *w, int r0, int rows, int K); /* in place                                   */
void lp_attend_values(lp_wave *w, int r0, int rows, int K);  /* into s->z                                  */
size_t lp_attend_tile_floats(const lp_config *c);            /* scratch one thread needs                   */

#endif
