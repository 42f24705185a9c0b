/* exchange_parts.h - what the formats of exchange.h share; private to them. */
#ifndef LP_SAE_EXCHANGE_PARTS_H
#define LP_SAE_EXCHANGE_PARTS_H

#include "sae/exchange.h"

/* What would be lost, each once, as a list in one line. */
typedef struct lp_losses {
    char text[512];
} lp_losses;

void lp_lose(lp_losses *l, const char *what);
/* What no other format says of a whole recipe: keep_norm, error_term. */
void lp_lose_whole(lp_losses *l, const lp_recipe *r);
/* What none says of where an edit is at work: scopes, schedules, conditions. */
void lp_lose_places(lp_losses *l, const lp_recipe *r, const lp_recipe_edit *e);
/* strength times unit; false: the unit is not filled in, which is lost too. */
bool lp_lose_amount(lp_losses *l, double *out, const lp_recipe_edit *e);

/* Every position. */
lp_recipe_scope lp_exchange_scope(void);

/* The SAE an edit names, which must have its feature.  LP_E_NOT_FOUND, LP_E_RANGE. */
lp_status lp_exchange_sae(const lp_sae **out, const lp_recipe_edit *e, const lp_sae *const *saes, int n_saes,
                          lp_error *err);

#endif
