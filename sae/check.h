/* check.h - is this SAE fed the right tensor?
 *
 * The field's commonest silent mistake is a feature read off the wrong tensor: another layer, the MLP's output before its
 * post-norm, a transcoder's input with the gain.  Such an SAE still fires.  What gives it away on any text:
 *
 *     L0       is not what its folder declares
 *     FVU      its reconstruction is hardly better than the mean
 *     rivals   it reconstructs a neighbour of its tensor (sae/rivals.h) better than its own
 *
 * The first two see the gross mistakes, and only they see another model.  The third sees a layer too early or too late,
 * where L0 and FVU may still look well, and says which tensor fits.  It compares like with like, the same SAE on the same
 * rows, so it needs neither a declared L0 nor a notion of how good an SAE of this width should be.
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

/* Beyond these it is doubtful, or wrong: L0 over the declared one, either way; FVU; FVU over the best rival's.  Where they
 * come from stands in check.c. */
#define LP_CHECK_L0_DOUBTFUL    1.5
#define LP_CHECK_L0_WRONG       3.0
#define LP_CHECK_FVU_DOUBTFUL   0.7
#define LP_CHECK_FVU_WRONG      1.0
#define LP_CHECK_RIVAL_DOUBTFUL 1.05
#define LP_CHECK_RIVAL_WRONG    1.4

const char *lp_verdict_name(lp_verdict v); /* "ok", "doubtful", "wrong" */

typedef struct lp_check {
    lp_quality quality; /* on its own tensor                                                   */
    bool has_rival;     /* the model has a tensor to compare with                               */
    lp_sae_spot rival;  /* of these the one it reconstructs best, and how well                  */
    double rival_l0, rival_fvu;
    lp_verdict verdict;
    bool fits_rival; /* it reconstructs the rival so much better that it counts         */
    char why[256];   /* one line with the figures; "" when all is well */
} lp_check;

/* What the figures say of an SAE that declares `declared_l0` (0: it does not) and reads at `spot`: fills in verdict,
 * fits_rival and why. */
void lp_check_judge(lp_check *k, double declared_l0, const lp_sae_spot *spot);

/* Runs a passage past n SAEs and adds up their figures, <bos> left out; meters [n].  No layer runs beyond the last that an
 * SAE looks at. */
lp_status lp_sae_meter(lp_meter *meters, lp_session *s, const lp_sae *const *saes, int n, const lp_passage *p,
                       lp_error *err);

/* Runs the passage, once, past n SAEs and their rivals, and judges, checks [n].  A hundred tokens are enough to tell
 * neighbours apart; LP_E_RANGE: fewer than LP_CHECK_TOKENS.  The session is empty afterwards. */
enum { LP_CHECK_TOKENS = 32 };
lp_status lp_sae_check(lp_check *checks, lp_session *s, const lp_sae *const *saes, int n, const lp_passage *p,
                       lp_error *err);

#endif
