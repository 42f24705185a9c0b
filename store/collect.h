/* collect.h - what SAEs and named sites make of windows of tokens, as the rows of a shard.
 *
 *     lp_collector_new(&c, model, &plan, &env, err);
 *     lp_collector_windows(c, ids, lengths, n, &block, err);        whole windows, side by side
 *     lp_collector_chunk(c, ids, n, next, is_first, &block, err);   a piece of one that is longer than a wave
 *     ... block.saes, block.dense, block.logprob: borrowed until the next call
 *
 * Windows do not see each other.  Short ones go through the model together, as branches of an empty past (core/session.h),
 * padded to the longest: what follows a token changes nothing of what it computes.  No layer above the last one asked for
 * is computed.
 *
 * Every value is what `lapidary features` gives for the same tokens, bit for bit.
 */
#ifndef LP_STORE_COLLECT_H
#define LP_STORE_COLLECT_H

#include "core/session.h"
#include "store/shard.h"

typedef struct lp_collect_plan { /* borrowed for the life of the collector */
    const lp_sae *const *saes;
    int n_saes;
    const lp_shard_dense *dense;
    int n_dense;
    bool has_logprob;
    lp_arithmetic arithmetic;
    int wave;    /* rows side by side; 0: 512       */
    int context; /* positions of the longest window */
} lp_collect_plan;

typedef struct lp_collector lp_collector;

/* Rows that a wave holds, as filled in. */
int lp_collector_wave(const lp_collector *c);

/* LP_E_SHAPE, LP_E_NOT_FOUND: an SAE does not fit the model (sae/reader.h). */
lp_status lp_collector_new(lp_collector **out, const lp_model *m, const lp_collect_plan *p, const lp_env *env,
                           lp_error *err);
void lp_collector_free(lp_collector *c); /* NULL is fine */

/* n windows, their ids one after the other, length[i] of each.  n times the longest at most a wave; no logprob. */
lp_status lp_collector_windows(lp_collector *c, const int *ids, const int *length, int n, lp_shard_block *out,
                               lp_error *err);
/* The next n tokens, at most a wave, of one window; `next` follows them (-1: nothing does). */
lp_status lp_collector_chunk(lp_collector *c, const int *ids, int n, int next, bool is_first, lp_shard_block *out,
                             lp_error *err);

#endif
