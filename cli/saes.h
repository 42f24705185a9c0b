/* saes.h - what the commands that read features begin with: SAEs by name, with their labels.
 *
 *     cli_sae_choice choice = {0};
 *     ... CLI_SAE_OPTIONS(choice), ...
 *     cli_open_saes(&saes, c, m, &choice, err);
 *
 * None named: the SAEs shipped with the embedded model, if that is the model.
 */
#ifndef LP_CLI_SAES_H
#define LP_CLI_SAES_H

#include "cli/inputs.h"
#include "sae/labels.h"
#include "sae/names.h"
#include "sae/sae.h"

typedef struct cli_sae_choice {
    cli_texts names;
    const char *site, *labels;
    int type; /* 0: f32, 1: bf16 */
} cli_sae_choice;

/* clang-format off */
#define CLI_SAE_OPTIONS(x)                                                                                             \
    {"sae", 'S', CLI_TEXTS, &(x).names, "NAME",                                                                        \
     "path, SAELens or Neuronpedia id; again for more (default: the shipped ones)"},          \
    {"sae-type", 0, CLI_CHOICE, &(x).type, "f32|bf16", "hold its weights exactly (default), or in half the memory"}, \
    {"site", 0, CLI_TEXT, &(x).site, "SITE", "where it reads, resid_post.20, if it does not say"},                     \
    {"labels", 0, CLI_TEXT, &(x).labels, "DIR", "a Neuronpedia export with names of its features"}
/* clang-format on */

typedef struct cli_saes { /* all zero is none */
    lp_sae **items;
    lp_labels *labels; /* [n]; empty where there are none */
    int n;
} cli_saes;

/* What typed names mean, without reading a weight.  Free with lp_sae_list_free. */
lp_status cli_find_saes(lp_sae_place **out, size_t *n, cli *c, const cli_sae_choice *choice, lp_error *err);

/* Opens them; m, when given, must be a model they fit. */
lp_status cli_open_saes(cli_saes *out, cli *c, const lp_model *m, const cli_sae_choice *choice, lp_error *err);
void cli_close_saes(cli_saes *s);

/* What the commands that look at one prompt through SAEs hold: opened in two steps, so that what was typed wrong is said
 * before the SAEs are read. */
typedef struct cli_scene { /* the choices come from the options, the rest is zero */
    cli_prompt prompt;
    cli_sae_choice choice;
    lp_model *m;
    lp_session *s;
    lp_tokens tokens;
    cli_saes saes;
} cli_scene;

lp_status cli_open_scene(cli_scene *x, cli *c, lp_error *err); /* the model and a session */
lp_status cli_fill_scene(cli_scene *x, cli *c, lp_error *err); /* the prompt and the SAEs */
void cli_close_scene(cli_scene *x);                            /* as far as it was opened */

/* "resid_post" for the tables: the site an SAE reads. */
const char *cli_sae_site(const lp_sae *s);

#endif
