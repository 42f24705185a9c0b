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

#include "cli/cli.h"
#include "core/model.h"
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

/* "resid_post" for the tables: the site an SAE reads. */
const char *cli_sae_site(const lp_sae *s);

#endif
