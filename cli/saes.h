/* saes.h - what the commands that read features begin with: SAEs by name, with their labels.
 *
 *     cli_sae_choice choice = {0};
 *     ... CLI_SAE_OPTIONS(choice), ...
 *     cli_open_saes(&saes, c, m, &choice, err);
 *
 * None named: the SAEs shipped with the embedded model, if that is the model.
 *
 * An SAE that is opened for a model is seen to fit it first (sae/guard.h; remembered in sae/check_cache.h's file): one that
 * is fed the wrong tensor is refused with the figures, a doubtful one warned of every time, unless --unchecked.
 */
#ifndef LP_CLI_SAES_H
#define LP_CLI_SAES_H

#include "cli/inputs.h"
#include "sae/check.h"
#include "sae/labels.h"
#include "sae/names.h"
#include "sae/sae.h"
#include "store/annotations.h"

typedef struct cli_sae_choice {
    cli_texts names;
    const char *site, *labels;
    const char *annotations; /* file of own labels; NULL: the usual one */
    bool is_unlabelled;      /* open them without labels                     */
    const char *check_text;  /* file; NULL: the shipped one */
    bool is_unchecked;
    int type; /* 0: f32, 1: bf16 */
} cli_sae_choice;

/* clang-format off */
#define CLI_SAE_OPTIONS(x)                                                                                             \
    {"sae", 'S', CLI_TEXTS, &(x).names, "NAME",                                                                        \
     "path, SAELens or Neuronpedia id; again for more (default: the shipped ones)"},          \
    {"sae-type", 0, CLI_CHOICE, &(x).type, "f32|bf16", "hold its weights exactly (default), or in half the memory"}, \
    {"site", 0, CLI_TEXT, &(x).site, "SITE", "where it reads, resid_post.20, if it does not say"},                     \
    {"labels", 0, CLI_TEXT, &(x).labels, "DIR", "a Neuronpedia export with names of its features"},                    \
    {"annotations", 0, CLI_TEXT, &(x).annotations, "FILE", "own labels, which come before those (default: see label --help)"}, \
    {"check-text", 0, CLI_TEXT, &(x).check_text, "FILE", "the text that shows whether it fits (default: a shipped one)"}, \
    {"unchecked", 0, CLI_FLAG, &(x).is_unchecked, NULL, "use it though it does not fit, or without looking"}
/* clang-format on */

typedef struct cli_saes { /* all zero is none */
    lp_sae **items;
    lp_labels *labels; /* [n]; empty where there are none */
    lp_check *checks;  /* [n]; NULL: nobody looked        */
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

/* The person's own labels: of the choice, else the usual file.  Reading: *out is NULL where there is none. */
lp_status cli_open_annotations(lp_annotations **out, const cli_sae_choice *choice, lp_annotations_mode mode,
                               lp_error *err);

/* What opening for a model does last: are they fed the right tensors?  For those that were opened without one. */
lp_status cli_guard_saes(cli_saes *s, cli *c, const lp_model *m, const cli_sae_choice *choice, lp_error *err);
/* The text of the check: a file, stdin for -, NULL: the shipped one.  Free it. */
lp_status cli_check_text(char **out, size_t *n, const char *file, lp_error *err);

/* "resid_post" for the tables: the site an SAE reads.  Its layer is a cell of its own, empty where a site has none. */
const char *cli_sae_site(const lp_sae *s);
void cli_put_layer(cli *c, const lp_sae_spot *spot);
json_t *cli_layer_json(lp_site site, int layer); /* null where a site has none */

/* [{"sae", "hash", "check": {"verdict", "rows", "declared_l0", "l0", "fvu", "why"}}]; check null: nobody looked. */
json_t *cli_saes_json(const cli_saes *s);

#endif
