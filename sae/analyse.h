/* analyse.h - what a feature is, from the weights alone: which tokens it pushes, which features lie near it.
 *
 * The direction of a feature in the residual stream is its decoder row; for an attention SAE that row, head by head, times
 * W_O.  (Strictly the post-attention norm follows, whose scale depends on the token: dashboards leave it out, and so do we.)
 *
 *     logit effect   e = v W_U, the rows of the tied table.  Two conventions are in use, and their rankings differ:
 *                    plain   v as it is                     (SAEDashboard, Neuronpedia's lists)
 *                    gained  v (1 + w), the final norm's gain   (the logit lens, Arad et al. 2025)
 *                    Neither has the norm's divisor or the soft-cap: these are directions, not probabilities.
 *     nearness       cosine of directions
 */
#ifndef LP_SAE_ANALYSE_H
#define LP_SAE_ANALYSE_H

#include "core/model.h"
#include "core/sample.h"
#include "sae/sae.h"

/* How what an SAE writes gets into the residual stream. */
typedef enum lp_route {
    LP_ROUTE_ADDED, /* as it is: d_out = D                                            */
    LP_ROUTE_HEADS, /* z: through W_O and the post-attention norm of its layer        */
} lp_route;
/* LP_E_UNSUPPORTED: an SAE whose output is not added to this model's stream. */
lp_status lp_sae_route(lp_route *out, const lp_sae *s, const lp_model *m, lp_error *err);

/* The directions in the stream of n features, out [n][D].  LP_E_UNSUPPORTED as above; LP_E_RANGE: no such feature. */
lp_status lp_feature_directions(float *out, const lp_sae *s, const int *features, int n, const lp_model *m,
                                const lp_env *env, lp_error *err);
/* Of one. */
lp_status lp_feature_direction(float *out, const lp_sae *s, int feature, const lp_model *m, const lp_env *env,
                               lp_error *err);

/* e [V] of a direction v [D]. */
typedef enum lp_effect { LP_EFFECT_PLAIN, LP_EFFECT_GAINED } lp_effect;
lp_status lp_logit_effect(float *e, const float *v, lp_effect kind, const lp_model *m, const lp_env *env,
                          lp_error *err);

/* The k features of `s` whose decoder rows have the largest cosine with row v [d_out] (any length), best first; feature
 * `except` is left out (-1: none).  out [k]; returns how many.  A row of zeros, or with a NaN or infinity in it, is near
 * nothing. */
int lp_feature_nearest(lp_scored *out, int k, const lp_sae *s, const float *v, int except);

/* Puts x, which is no NaN, among the n best, largest first, behind its equals; the list holds k at most.  Returns how many
 * it holds now. */
int lp_scored_insert(lp_scored *best, int n, int k, lp_scored x);

#endif
