/* recipes.h - what the commands that steer begin with: a recipe by path or name, its SAEs, a chat's prompt with its marks. */
#ifndef LP_CLI_RECIPES_H
#define LP_CLI_RECIPES_H

#include "cli/inputs.h"
#include "cli/saes.h"
#include "sae/recipe.h"

/* `name`: a path, or the name of a recipe that is shipped; NULL is typed wrong. */
lp_status cli_read_recipe(lp_recipe *out, cli *c, const char *name, lp_error *err);

/* The SAEs the edits and conditions name, unless --sae named some, for model m; and "max_act" from their labels where the
 * recipe leaves it open.  The recipe outlives *choice. */
lp_status cli_open_recipe_saes(cli_saes *out, cli *c, const lp_model *m, cli_sae_choice *choice, lp_recipe *r,
                               lp_error *err);

/* The prompt as the one user turn of a conversation, the model to speak next; (*is_template)[i], yours to free, is 1 where
 * the template put the token. */
lp_status cli_take_chat(lp_tokens *out, uint8_t **is_template, cli *c, const lp_model *m, const cli_prompt *p,
                        lp_error *err);

#endif
