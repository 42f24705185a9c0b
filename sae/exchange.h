/* exchange.h - recipes in other programs' formats, read and written.
 *
 *     neuronpedia      JSON   a steer request of Neuronpedia's
 *     lm-eval          CSV    what lm-evaluation-harness steers its model `steered` by
 *     control-vector   GGUF   a direction per layer, which llama.cpp adds
 *
 * All three edit every position, <bos> and a chat template's tokens too, so only recipes whose scopes are all on can be
 * written and that is the scope of what is read.  Writing never changes what a recipe does: what a format cannot say is
 * LP_E_UNSUPPORTED, with all of it named in one line.
 */
#ifndef LP_SAE_EXCHANGE_H
#define LP_SAE_EXCHANGE_H

#include "sae/recipe.h"
#include "sae/sae.h"

/* ---- Neuronpedia's steer request (exchange_neuronpedia.c) -------------------------------------------------------- */

/* {prompt, modelId, features: [{modelId, layer, index, strength}], strength_multiplier, steer_method}: adds, in
 * absolute units, strength times multiplier, at every position (their service edits <bos> too).  steer_method:
 * SIMPLE_ADDITIVE or missing.  prompt, n_tokens, temperature, freq_penalty and seed are passed over.  *prompt,
 * unless NULL: a copy of the prompt, yours to free, or NULL. */
lp_status lp_recipe_from_neuronpedia(lp_recipe *out, char **prompt, const char *text, size_t n, lp_error *err);

/* The steering part of a request, without a prompt and sampling.  LP_OK: nothing is lost.  LP_E_UNSUPPORTED: err
 * says in one line what is, and *out holds what can be said, the additions (NULL if there are none).  *out is yours
 * to free. */
lp_status lp_recipe_to_neuronpedia(char **out, const lp_recipe *r, lp_error *err);

/* ---- lm-evaluation-harness' steering CSV (exchange_lm_eval.c) ---------------------------------------------------- */

/* A feature per row; columns loader, action, sparse_model, hookpoint, feature_index, steering_coefficient, head_index,
 * sae_id, description in any order.  With d the feature's decoder row, d^ = d / |d|, b the SAE's b_dec, c the
 * coefficient, at the output of the module `hookpoint`:
 *
 *     add     x + c d                           our add, strength c
 *     clamp   x + (c - (x - b).d^) d^           our project, strength c + b.d^: not our clamp, it never encodes
 *
 * Source: lm_eval/models/hf_steered.py, 0.4.13.  Of that version must be known: rows are kept by hookpoint, so a second
 * row of one silently replaces the first (here: refused); head_index is not read from a CSV (here: must be empty); and
 * `add` rows trip over an assertion of its own that SAEs have no bias, unless Python runs with -O.
 *
 * SAEs are named as SAELens names Gemma Scope's (sae/names.h), loader sae_lens; the hookpoint is Hugging Face's module:
 * layers.L for the residual stream, layers.L.post_feedforward_layernorm for what an MLP's SAE or a transcoder writes.
 * What attention's SAEs read is no module's output, so theirs cannot be said. */

/* saes [n_saes]: wanted for clamp rows alone, whose b and d are needed; LP_E_NOT_FOUND names one that is missing. */
lp_status lp_recipe_from_lm_eval(lp_recipe *out, const char *text, size_t n, const lp_sae *const *saes, int n_saes,
                                 lp_error *err);
/* saes: wanted for projections alone.  *out is yours to free; NULL unless LP_OK. */
lp_status lp_recipe_to_lm_eval(char **out, const lp_recipe *r, const lp_sae *const *saes, int n_saes, lp_error *err);

/* ---- llama.cpp's control vectors (exchange_control_vector.c) ----------------------------------------------------- */

/* A GGUF file, general.architecture "controlvector", of tensors direction.N, F32 [d_model], which llama.cpp adds to the
 * residual stream behind layer N, counted from 0 (src/llama-adapter.cpp, common/common.cpp): resid_post.N.  It never
 * adds behind layer 0, so there is no direction.0.
 *
 * Writing: all additions at resid_post, each strength times unit times decoder row, summed per layer in double.
 * saes [n_saes]: those the edits name.  The file appears whole or not at all. */
lp_status lp_recipe_to_control_vector(const char *path, const lp_recipe *r, const lp_sae *const *saes, int n_saes,
                                      lp_error *err);

/* Reading: an addition of strength 1 of each direction that is not zero; its SAE is "FILE.gguf/direction.N", feature 0,
 * which lp_sae_open opens (sae/direction.h). */
lp_status lp_recipe_from_control_vector(lp_recipe *out, const char *path, lp_error *err);

#endif
