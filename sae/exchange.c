/* exchange.c - see exchange_parts.h: the same losses in the same words, whichever format is written. */
#include "sae/exchange_parts.h"

#include <stdio.h>
#include <string.h>

void lp_lose(lp_losses *l, const char *what)
{
    size_t at = strlen(l->text);
    if (strstr(l->text, what)) return;
    snprintf(l->text + at, sizeof l->text - at, "%s%s", at ? "; " : "", what);
}

void lp_lose_whole(lp_losses *l, const lp_recipe *r)
{
    if (r->keeps_norm) lp_lose(l, "keep_norm");
    if (r->drops_error) lp_lose(l, "\"error_term\": false");
}

static bool is_everywhere(const lp_recipe_scope *s)
{
    return s->bos && s->template && s->prompt && !s->last_prompt && s->generated && !s->n_ranges && !s->text;
}

void lp_lose_places(lp_losses *l, const lp_recipe *r, const lp_recipe_edit *e)
{
    if (!is_everywhere(lp_recipe_scope_of(r, e))) lp_lose(l, "scopes (they edit every position, <bos> too)");
    if (e->schedule.is_given) lp_lose(l, "schedules");
    if (e->when.source) lp_lose(l, "conditions");
}

bool lp_lose_amount(lp_losses *l, double *out, const lp_recipe_edit *e)
{
    if (lp_recipe_amount(out, e, NULL) == LP_OK) return true;
    lp_lose(l, "edits in a unit nobody has filled in");
    return false;
}

lp_recipe_scope lp_exchange_scope(void)
{
    return (lp_recipe_scope){.bos = true, .template = true, .prompt = true, .generated = true};
}

lp_status lp_exchange_sae(const lp_sae **out, const lp_recipe_edit *e, const lp_sae *const *saes, int n_saes,
                          lp_error *err)
{
    int i = 0;
    while (i < n_saes && strcmp(saes[i]->name, e->source) != 0) i++;
    if (i == n_saes)
        return lp_fail(err, LP_E_NOT_FOUND, "%s: its weights are needed, and it is not among the %d SAEs opened",
                       e->source, n_saes);
    if (e->index >= saes[i]->d_sae)
        return lp_fail(err, LP_E_RANGE, "%s #%d: its features are 0 to %d", e->source, e->index, saes[i]->d_sae - 1);
    *out = saes[i];
    return LP_OK;
}
