/* causal.h - which features at a position matter for what the model says next: each is taken out, alone, and the model
 * run on from there.
 *
 *     lp_causal_question q = {.ids = ids, .n = n, .at = -1, .target = -1, .k = 10};
 *     lp_causal_rank(&out, s, saes, n_saes, &q, &err);
 *     out.rows[0]                                           the feature that moves the target's logit most
 *     lp_causal_free(&out);
 *
 * A large activation says that a feature is there, not that anything depends on it (Templeton et al., Scaling
 * Monosemanticity: activation and effect correlate at 0.12).  Taking it out measures what does:
 *
 *     x' = x - f g d       at one position of the SAE's output site, nowhere else
 *
 * f the activation, d the decoder's row, g the scale decoding gives that row (steer.h): what the SAE does not explain
 * stays.  For each feature, with z the logits at the last position of the prompt, p their softmax, ' the ablated run:
 *
 *     d_logit = z'[t] - z[t]     d_logprob = log p'[t] - log p[t]     kl = sum p log(p / p')
 *
 * The law: the logits of an ablated run are, bit for bit, those of evaluating the whole prompt under a hook that does
 * the subtraction.  Positions before the one changed cannot tell the difference (attention looks back), so their keys
 * and values are kept and a feature of the last token costs one token.
 */
#ifndef LP_SAE_CAUSAL_H
#define LP_SAE_CAUSAL_H

#include "core/session.h"
#include "sae/sae.h"

typedef enum lp_causal_order {
    LP_CAUSAL_LOGIT, /* |d_logit|, the largest first */
    LP_CAUSAL_KL,    /* kl, the largest first        */
} lp_causal_order;

typedef struct lp_causal_row {
    int sae, index; /* which of the SAEs given, which of its features */
    float activation;
    double d_logit, d_logprob; /* ablated minus clean, of the target: below 0, the feature was for it */
    double kl;                 /* nats                                                              */
    int best;                  /* the likeliest next token without the feature                      */
    float best_p;
} lp_causal_row;

/* An ablation as it is done: the row, and the logits [V] of the ablated run, borrowed.  Anything but 0 stops. */
typedef int (*lp_causal_fn)(const lp_causal_row *row, const float *logits, void *user);

typedef struct lp_causal_question {
    const int *ids; /* [n] the prompt */
    size_t n;
    int at;     /* the position whose features are ablated; below 0: from the end, -1 the last   */
    int target; /* the token whose logit is watched; below 0: the likeliest of the clean run */
    int k;      /* so many of the strongest features active there, over all SAEs               */
    lp_causal_order rank_by;
    lp_causal_fn fn; /* NULL: nobody watches */
    void *user;
} lp_causal_question;

typedef struct lp_causal { /* all zero is an empty one */
    lp_causal_row *rows;   /* [n] ranked; n < k when fewer features are active */
    size_t n, capacity;
    int at, target;        /* as they were taken                               */
    double logit, logprob; /* of the target in the clean run                   */
    int best;              /* the clean run's likeliest token                  */
    float best_p;
} lp_causal;

/* Works on a fork: the session is left as it was, its hooks are not taken along, and tokens that it holds and the
 * prompt begins with are not evaluated again.  LP_E_RANGE: `at` is outside of the prompt, or <bos>, which SAEs were not
 * trained on; no such target.  LP_E_SHAPE, LP_E_NOT_FOUND: an SAE does not fit (reader.h).  LP_CANCELLED, LP_STOPPED
 * (by fn).  On anything but LP_OK *out is empty. */
lp_status lp_causal_rank(lp_causal *out, lp_session *s, const lp_sae *const *saes, int n_saes,
                         const lp_causal_question *q, lp_error *err);
void lp_causal_free(lp_causal *c); /* its contents */

/* A position as it is asked for (below 0: from the end), as it is counted.  LP_E_RANGE: the prompt is empty or longer
 * than the context, has no such position, or has <bos> there. */
lp_status lp_causal_position(int *at, const lp_config *c, const int *ids, size_t n, int asked, lp_error *err);

/* A token as a person names it: an id (all digits), or text that is exactly one token, with its leading space if it
 * has one.  LP_E_RANGE: there is no such id, or the text is more tokens, which the error lists. */
lp_status lp_causal_token(int *id, const lp_model *m, const char *text, lp_error *err);

#endif
