/* patch.h - activation patching: where in the model does the difference between two prompts sit?
 *
 *     lp_trace_select(&where, &m->config, "resid_post", "all", &err);
 *     lp_patch_question q = {.source = a, .n_source = n, .into = b, .n_into = n,
 *                            .token_source = -1, .token_into = -1};
 *     lp_patch_run(&out, s, &where, &q, &err);
 *     out.recovery[place * out.n_positions + i]
 *
 * Run A, the source, and keep what passes the places chosen.  Run B, the destination, again and again, each time with
 * the value of one place at one position taken from A.  How much of A's answer comes back tells what that value carried
 * (Meng et al., Locating and editing factual associations, 2022; Wang et al., Interpretability in the wild, 2022;
 * Heimersheim and Nanda, How to use and interpret activation patching, 2024).  The measure is a difference of two
 * logits at the last position, by default of the tokens likeliest after A and after B:
 *
 *     metric   = z[token_source] - z[token_into]
 *     recovery = (metric(patched) - metric(B)) / (metric(A) - metric(B))       0: nothing changed, 1: as after A
 *
 * The prompts must have the same number of tokens, since position i of one is put in position i of the other.
 *
 * The law is that of causal.h: a patched run's logits are, bit for bit, those of evaluating all of B under the edit.
 * Below the patched position the cache of B is kept; and at positions before the first token in which A differs from B,
 * the value put in is the one that is there already, so B's logits are taken as they are.
 */
#ifndef LP_SAE_PATCH_H
#define LP_SAE_PATCH_H

#include "core/trace.h"

/* A patched run as it is done: the part of `where`, the position, its logits [V], borrowed.  Anything but 0 stops. */
typedef int (*lp_patch_fn)(size_t place, int pos, const float *logits, void *user);

typedef struct lp_patch_question {
    const int *source, *into; /* ids of A and B; as many of one as of the other */
    size_t n_source, n_into;
    const int *positions; /* [n_positions] in any order; NULL: all of the prompt's */
    size_t n_positions;
    int token_source, token_into; /* the metric's two; below 0: the likeliest after A, after B */
    lp_patch_fn fn;               /* NULL: nobody watches */
    void *user;
} lp_patch_question;

typedef struct lp_patch { /* all zero is an empty one */
    size_t n_places, n_positions;
    double *metric;   /* [n_places][n_positions], places as in `where`, positions as asked */
    double *recovery; /* the same; NaN where A and B have one metric                     */
    int token_source, token_into;
    double of_source, of_into; /* the metric of A and of B, unpatched */
} lp_patch;

/* `where`: what lp_trace_select chose, only read; scores and patterns may be among it, whose rows are replaced as far
 * as the position sees.  Works on forks: the session is left as it was, its hooks are not taken along, and what it
 * holds of the prompts is used.  LP_E_SHAPE: the prompts are not of one length.  LP_E_RANGE: no such position or token,
 * or both tokens of the metric are the same.  LP_CANCELLED, LP_STOPPED (by fn).  *out is empty unless LP_OK. */
lp_status lp_patch_run(lp_patch *out, lp_session *s, const lp_trace *where, const lp_patch_question *q, lp_error *err);
void lp_patch_free(lp_patch *p); /* its contents */

#endif
