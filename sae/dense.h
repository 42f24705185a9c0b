/* dense.h - whole dictionaries at once: the nearest features of every feature, the tokens every feature pushes.
 *
 *     lp_dense_threads(4);                                       once, by the application
 *     lp_dense_options o = {.k = 10};
 *     lp_dense_nearest(out, a, a, &o, env, &err);                out[i * 10 + 2]: the third nearest of feature i
 *     lp_dense_effects(up, down, a, LP_EFFECT_PLAIN, m, &o, env, &err);
 *
 * The same figures as lp_feature_nearest and lp_logit_effect (analyse.h) give for one feature, by matrix products in blocks:
 * of a matrix of all pairs, features by features or features by tokens, only the k best of each row are ever kept.
 *
 *     cosine    d_i . d_j / (|d_i| |d_j|)     d the decoders' rows, each divided by its norm (in double) beforehand
 *     effect    v . W_U[t]                    v the direction in the stream, with or without the final norm's gain
 *
 * The products are OpenBLAS's sgemm (dense.c is the one file that calls it).  Sums are in f32 and in an order of its
 * own, so a figure differs from analyse.h's in its last bits, about 1e-6 of the rows' lengths, and may in them depend on the
 * processor, the number of threads and the size of blocks.  What does not depend on anything: which of equal figures
 * comes first (the lower id), and that a NaN is never kept.
 *
 * OpenBLAS has threads of its own, one set for the whole process.  Calls of these functions from several threads at
 * once are correct and wait for each other; env->pool is used for W_O alone.
 */
#ifndef LP_SAE_DENSE_H
#define LP_SAE_DENSE_H

#include "core/sample.h"
#include "sae/analyse.h"

typedef struct lp_dense_options {
    int k;            /* so many are kept for every feature, at least 1                                     */
    const int *which; /* [n] the features asked about, in this order; NULL: all of them                        */
    int n;
    int rows; /* of a block; 0: 2048, fewer where rows are long.  Memory: 2 rows d + rows^2 floats, at most 80 MB */
} lp_dense_options;

/* How many threads OpenBLAS works on; process-wide. */
void lp_dense_threads(int n);

/* The k features of b whose decoder rows have the largest cosine with that of each feature asked about of a, best
 * first: out [n or a->d_sae][k].  Where there are fewer the rest is {-1, NaN}.  a == b: a feature is not its own
 * neighbour.  A row of zeros, or with a NaN or infinity in it, is near nothing.  LP_E_SHAPE: rows of two lengths;
 * LP_E_RANGE: no such feature, or k; LP_CANCELLED. */
lp_status lp_dense_nearest(lp_scored *out, const lp_sae *a, const lp_sae *b, const lp_dense_options *o,
                           const lp_env *env, lp_error *err);

/* The k tokens each feature promotes most and the k it suppresses most, e largest and e smallest first: up and down
 * [n or d_sae][k].  Where there are fewer (a small vocabulary, NaN) the rest is {-1, NaN}.  LP_E_UNSUPPORTED as
 * lp_feature_directions; LP_E_RANGE, LP_CANCELLED. */
lp_status lp_dense_effects(lp_scored *up, lp_scored *down, const lp_sae *s, lp_effect kind, const lp_model *m,
                           const lp_dense_options *o, const lp_env *env, lp_error *err);

#endif
