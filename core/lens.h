/* lens.h - the logit lens: what the model would say if it had to stop here.
 *
 * A residual-stream row from any layer is put through the final norm, the unembedding and the soft-cap, each once, as
 * the last row is (nostalgebraist: interpreting GPT, the logit lens, 2020).  Without the cap the arg-max would be right
 * and the probabilities wrong.  The last layer's resid_post gives the model's own distribution, bit for bit.
 */
#ifndef LP_CORE_LENS_H
#define LP_CORE_LENS_H

#include "core/sample.h"
#include "core/session.h"

typedef struct lp_lens_row {
    lp_scored *top; /* [n_top] best tokens, score = probability; points into the caller's memory       */
    int n_top;
    int rank;      /* of the token asked for: how many tokens score higher, or equal with a lower id  */
    float p;       /* its probability                                                                 */
    float entropy; /* of the whole distribution, in bits                                              */
} lp_lens_row;

/* x [n][D] before the final norm -> rows[n], whose tops lie in top[n * k].  `token`: whose rank and probability to
 * tell, or -1 (rank -1, p 0).  k: 0 .. vocab. */
lp_status lp_lens_read(lp_lens_row *rows, lp_scored *top, lp_session *s, const float *x, int n, int k, int token,
                       lp_error *err);

#endif
