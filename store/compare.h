/* compare.h - a run's activations against what another program stored for the same texts: do they agree, and where not.
 *
 * Rows are matched in their order, with windows window by window.  Where the token differs, the row's features are not
 * compared.  Two values agree when they differ by no more than tolerance times the row's largest value on either side, and
 * what the other file's type rounds away; one that is on one side only is compared with zero.
 */
#ifndef LP_STORE_COMPARE_H
#define LP_STORE_COMPARE_H

#include "store/outside.h"
#include "store/series.h"

enum { LP_COMPARE_WORST = 20 };

typedef enum lp_difference {
    LP_DIFFERS_TOKEN,
    LP_DIFFERS_HERE_ONLY,
    LP_DIFFERS_THERE_ONLY,
    LP_DIFFERS_VALUE
} lp_difference;

typedef struct lp_compare_case {
    lp_difference kind;
    int64_t document, here_token, there_token;
    int pos, feature; /* feature -1: of a token */
    double here, there;
    double share; /* of the row's largest that they differ by; a token's: infinite */
} lp_compare_case;

typedef struct lp_comparison {
    int64_t rows, rows_differ;               /* compared; with anything that differs       */
    int64_t tokens;                          /* that differ                                 */
    int64_t values;                          /* on both sides                               */
    int64_t here_only, there_only, beyond;   /* features; values beyond the tolerance      */
    double largest;                          /* share of the row's largest, over all values */
    lp_compare_case worst[LP_COMPARE_WORST]; /* tokens first, then by share                */
    int n_worst;
} lp_comparison;

bool lp_comparison_agrees(const lp_comparison *c);

/* LP_E_SHAPE: another number of rows or windows. */
lp_status lp_compare(lp_comparison *out, const lp_series *s, lp_outside *x, double tolerance, const lp_env *env,
                     lp_error *err);

#endif
