/* rivals.h - the tensors that an SAE's own is mistaken for: the neighbours it is held against (sae/check.h).
 *
 *     the residual stream    is a row of states, the embedding, resid_mid.0, resid_post.0, resid_mid.1, ...; those one and
 *                            two places away.  resid_pre.l is resid_post.(l - 1), and no rival of it
 *     every other site       the same one in the layers before and after, and of its own layer those of its kind: what a
 *                            sublayer reads (attn_in, mlp_normed, mlp_in), what it gives (z, attn_raw, attn_out, mlp_raw,
 *                            mlp_out), queries and keys before and after RoPE, the MLP's insides
 *     a transcoder           the same a layer earlier and later; its input's neighbours with its own output; and its
 *                            output's of its layer with its own input
 *
 * Only tensors the model has, as wide as the SAE needs, and of a transcoder only an input that passes before the output.
 */
#ifndef LP_SAE_RIVALS_H
#define LP_SAE_RIVALS_H

#include "core/config.h"
#include "sae/sae.h"

enum { LP_SAE_RIVALS = 16 };

/* Rivals of s, which must fit the model (lp_sae_fits): how many. */
int lp_sae_rivals(lp_sae_spot out[LP_SAE_RIVALS], const lp_sae *s, const lp_config *c);

/* Is it the same tensor, under whatever name? */
bool lp_sae_spot_same(const lp_sae_spot *a, const lp_sae_spot *b);

#endif
