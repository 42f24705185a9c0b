/* sweep.h - dose and response: one recipe at several strengths, over prompts and seeds.
 *
 * A recipe's strength is a guess until one has seen what twice and half of it do.  For each factor every edit's
 * strength is multiplied by it, texts are generated from each prompt with each seed, and means are taken:
 *
 *     kl        KL(clean || steered) = sum p (log p - log q) of the next token, both models on the steered text: what
 *               the recipe does to a token, not what the texts have drifted to; nats, mean over generated tokens
 *     nll       -log p(token) of the steered text under the clean model, nats, mean over generated tokens; exp of it is
 *               the perplexity.  Low is fluent, or repetitive: see distinct
 *     achieved  of each edit: its feature's value as encoded from the changed row, mean over the rows it edited
 *     moved     |x' - x| / |x|, mean over the rows that were edited and the places where they were
 *     distinct  different tokens / tokens of a text, mean over texts: 1 no token came twice, near 0 it is caught in a
 *               loop
 *
 * Factor 0 is the model without the recipe: no bit of it is changed, and `achieved` is what the features are by
 * themselves.  A small factor need not be near it: a clamp tends to "held at 0", which takes away what was there.
 * `scale` counts from 1, where it does nothing: at factor r it multiplies by 1 + r (s - 1).  An edit without a strength
 * (ablate; project and clamp to 0) is the same at every factor, and such recipes are refused.
 *
 * (The idea of choosing a strength by what it costs in likelihood: Chalnev et al., SAE-TS, arXiv 2411.02193; factors
 * around a feature's maximum: Wu et al., AxBench, arXiv 2501.17148.)
 *
 * Sums are in double, in the order of prompts, seeds and tokens: no thread or wave changes a bit.
 */
#ifndef LP_SAE_SWEEP_H
#define LP_SAE_SWEEP_H

#include "sae/steer.h"

typedef struct lp_sweep_prompt {
    const int *ids; /* [n] */
    size_t n;
    const uint8_t *is_template; /* [n], or NULL */
} lp_sweep_prompt;

typedef struct lp_sweep_options {
    const double *factors; /* [n_factors]; NULL: 0, 0.25, 0.5, 1, 1.5, 2 */
    int n_factors;
    const lp_sweep_prompt *prompts; /* [n_prompts] */
    int n_prompts;
    int n_seeds;                         /* sample->seed and those after it; 0: 1 */
    const lp_sample_options *sample;     /* NULL: greedy */
    const lp_generate_options *generate; /* its callback and log-probabilities are not used; NULL: defaults */
    const lp_session_options *session;   /* NULL: defaults */
} lp_sweep_options;

typedef struct lp_sweep_row {
    double factor;
    size_t n_texts, n_tokens;
    double kl, nll, moved, distinct; /* NaN: there was nothing to take the mean of */
    double *achieved;                /* [n_edits] */
    int *ids;                        /* [n_ids] of the first text */
    size_t n_ids;
    char *text; /* the same, terminated; "" without a tokenizer */
    size_t len;
} lp_sweep_row;

typedef struct lp_sweep {
    lp_sweep_row *rows; /* [n_rows], one per factor, in their order */
    size_t n_rows, n_edits;
} lp_sweep;

/* Can every edit be stronger and weaker?  LP_E_UNSUPPORTED names the first that cannot. */
lp_status lp_sweep_check(const lp_recipe *r, lp_error *err);

/* Two sessions live meanwhile.  Shows progress, can be cancelled.  On failure *out is empty. */
lp_status lp_sweep_run(lp_sweep *out, const lp_model *m, const lp_recipe *r, const lp_sae *const *saes, int n_saes,
                       const lp_sweep_options *o, const lp_env *env, lp_error *err);
void lp_sweep_clear(lp_sweep *s);

#endif
