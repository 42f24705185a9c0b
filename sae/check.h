/* check.h - is this SAE fed the right tensor?
 *
 * The field's commonest silent mistake is a feature read off the wrong tensor: another layer, the MLP's output before its
 * post-norm, a transcoder's input with the gain.  Such an SAE still fires.  What gives it away are two figures on any text:
 * its L0 is not what its folder declares, and its reconstruction is hardly better than the mean (FVU).
 */
#ifndef LP_SAE_CHECK_H
#define LP_SAE_CHECK_H

#include "sae/metrics.h"
#include "sae/passage.h"

typedef enum lp_verdict {
    LP_SAE_RIGHT,
    LP_SAE_DOUBTFUL, /* one figure is odd; say so beside every number that comes from it        */
    LP_SAE_WRONG,    /* not the tensor it was trained on                                        */
} lp_verdict;

const char *lp_verdict_name(lp_verdict v); /* "ok", "doubtful", "wrong" */

typedef struct lp_check {
    lp_quality quality;
    lp_verdict verdict;
    char why[200]; /* one line with the figures; "" when all is well */
} lp_check;

/* What the figures say of an SAE that declares `declared_l0` (0: it does not).  The bounds are in check.c. */
void lp_check_judge(lp_check *k, double declared_l0);

/* Runs a passage past n SAEs and adds up their figures, <bos> left out; meters [n]. */
lp_status lp_sae_meter(lp_meter *meters, lp_session *s, const lp_sae *const *saes, int n, const lp_passage *p,
                       lp_error *err);

/* Runs the passage and judges n SAEs, checks [n].  The session is empty afterwards. */
lp_status lp_sae_check(lp_check *checks, lp_session *s, const lp_sae *const *saes, int n, const lp_passage *p,
                       lp_error *err);

#endif
