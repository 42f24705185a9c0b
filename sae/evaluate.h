/* evaluate.h - what an SAE costs: the loss with its reconstruction in the activation's place.
 *
 *     loss        mean cross-entropy of the next token, nats, of the model as it is
 *     delta       the rise of it when the SAE's site is replaced by the reconstruction at every position but <bos>
 *     ablated     the rise when it is replaced by the mean of the passage there
 *     recovered   1 - delta / ablated
 *
 * (Gemma Scope, section 4.1; SAELens' ce_loss_score puts zero where we put the mean: other figures.)  Intervals are 95 %, of
 * the mean of paired differences token by token, as if tokens were independent.
 */
#ifndef LP_SAE_EVALUATE_H
#define LP_SAE_EVALUATE_H

#include "sae/metrics.h"
#include "sae/passage.h"

typedef struct lp_evaluation {
    lp_quality quality;
    uint64_t targets; /* tokens predicted */
    double loss, delta, delta_low, delta_high, ablated, recovered;
} lp_evaluation;

/* One pass for the model and the figures of metrics.h, then two for each SAE.  out [n].  Shows progress; the session is
 * empty afterwards. */
lp_status lp_sae_evaluate(lp_evaluation *out, lp_session *s, const lp_sae *const *saes, int n, const lp_passage *p,
                          lp_error *err);

#endif
