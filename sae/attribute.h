/* attribute.h - direct logit attribution: how much of a token's logit each active feature writes into the stream itself.
 *
 *     lp_attribution_question q = {.ids = ids, .n = n, .at = -1, .target = -1, .contrast = -1};
 *     lp_attribute(&out, s, saes, n_saes, &q, &err);
 *     out.rows[0]                                           the feature whose direct share is largest
 *     lp_attribution_free(&out);
 *
 * The last residual stream is a sum of what every layer added to it, and but for the divisor of the final norm the logit
 * is linear in it.  With that divisor frozen at what it was in the run, every summand v of the stream at a position has
 * its share of the raw logit (before the soft-cap) of the token that follows:
 *
 *     share(v) = v . u / rms_final        u = (1 + w) W_U[t]          w the final norm's gain, W_U the tied table
 *                                         u = (1 + w) (W_U[t] - W_U[c])     with a contrast: of the difference of logits
 *
 * In its own words nostalgebraist, interpreting GPT: the logit lens (2020); Elhage et al., A Mathematical Framework for
 * Transformer Circuits (2021), "direct path"; TransformerLens' logit_attrs with apply_ln_to_stack.  Of an SAE, with y
 * what stands at the site it predicts and y^ its reconstruction:
 *
 *     feature  f g d      f the activation, d the decoder's row, g the scale decoding gives it (lp_decoder_scale)
 *     bias     y^ when nothing fires: b_dec; where rows are normalised the mean put back; a skip transcoder's x W_skip^T
 *     error    y - y^     what the SAE does not explain
 *     site     y          = features + bias + error, within rounding of y^ (f32)
 *
 * Where y is a stream (resid_*, embed) or added to one (attn_out, mlp_out, so all transcoders), v is that very row.  An
 * SAE of z writes through W_O and the norm behind attention, whose divisor is frozen too:
 *
 *     v = (1 + w_post) (z W_O^T) / rms_post        rms_post the site attn_post_rms of its layer
 *
 * Only the direct path: a feature that later layers read, and act upon, has that effect besides (causal.h measures the
 * whole).  Later streams hold the earlier ones, so shares of SAEs on several streams must not be added up; attn_out and
 * mlp_out of all layers, and embed, may be, and their sites come to the raw logit.
 */
#ifndef LP_SAE_ATTRIBUTE_H
#define LP_SAE_ATTRIBUTE_H

#include "core/session.h"
#include "sae/sae.h"

typedef struct lp_attribution_row {
    int sae, index; /* which of the SAEs given, which of its features */
    float activation;
    double share; /* of the raw logit, or of the difference */
} lp_attribution_row;

typedef struct lp_attribution_part { /* of one SAE */
    int n_active;
    double features, bias, error, site; /* features: the sum of its rows */
} lp_attribution_part;

typedef struct lp_attribution_token {
    int id;             /* -1: none                               */
    double raw, capped; /* its logit, before and after the soft-cap */
} lp_attribution_token;

typedef struct lp_attribution_question {
    const int *ids; /* [n] the prompt */
    size_t n;
    int at;       /* the position: its features, and the token that follows it; below 0: from the end, -1 the last */
    int target;   /* below 0: the likeliest there                                                                   */
    int contrast; /* its logit is taken off the target's; below 0: none                                             */
} lp_attribution_question;

typedef struct lp_attribution { /* all zero is an empty one */
    lp_attribution_row *rows;   /* [n] all that is active: the largest |share| first */
    size_t n, capacity;
    lp_attribution_part *parts; /* [n_saes] */
    int at;
    lp_attribution_token target, contrast;
    double rms; /* the final norm's divisor */
} lp_attribution;

/* Works on a fork: the session is left as it was, its hooks are not taken along.  Positions behind `at` are not
 * evaluated: they cannot change it.  Activations are computed in the session's arithmetic, shares in double.
 * LP_E_RANGE: as lp_causal_position; no such target or contrast, or they are one token.  LP_E_SHAPE, LP_E_NOT_FOUND: an
 * SAE does not fit (reader.h).  LP_E_UNSUPPORTED: it writes nothing that is added to the stream.  LP_CANCELLED.  On
 * anything but LP_OK *out is empty. */
lp_status lp_attribute(lp_attribution *out, lp_session *s, const lp_sae *const *saes, int n_saes,
                       const lp_attribution_question *q, lp_error *err);
void lp_attribution_free(lp_attribution *a); /* its contents */

#endif
