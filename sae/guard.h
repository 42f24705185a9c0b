/* guard.h - every SAE, before it is used on a model, is seen to fit it; and what was seen is remembered.
 *
 *     lp_guard g = {.text = text, .n_text = n, .cache = path};
 *     st = lp_guard_check(checks, &g, model, saes, n, &env, &err);
 *     ... checks[i].verdict, checks[i].why
 *
 * The first LP_GUARD_TOKENS tokens of the text run through the model, as far as the last layer concerned, past those SAEs
 * and their rivals (sae/check.h) that have not been measured before on this model at this place on this text in this
 * arithmetic.  What to do about a verdict is the caller's.
 */
#ifndef LP_SAE_GUARD_H
#define LP_SAE_GUARD_H

#include "sae/check.h"

enum { LP_GUARD_TOKENS = 128 };

typedef struct lp_guard { /* borrowed during the call */
    const char *text;
    size_t n_text;
    const char *cache; /* the file of figures (sae/check_cache.h); NULL: nothing is remembered */
    lp_arithmetic arithmetic;
} lp_guard;

/* checks [n], zeroed by the caller.  LP_E_UNSUPPORTED: the model has no tokenizer; LP_E_RANGE: the text is too short; LP_E_SHAPE,
 * LP_E_NOT_FOUND as lp_sae_fits. */
lp_status lp_guard_check(lp_check *checks, const lp_guard *g, const lp_model *m, const lp_sae *const *saes, int n,
                         const lp_env *env, lp_error *err);

#endif
