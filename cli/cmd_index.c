/* cmd_index.c - `lapidary index`: the catalogue of a store from its sealed shards, and what features are called.
 *
 *     lapidary index STORE                take in what is new
 *     lapidary index STORE --rebuild      make it anew
 *     lapidary index STORE --labels DIR   a Neuronpedia export: DIR/SOURCE for each SAE, or of the only one
 *
 * The shipped labels go in by themselves, for SAEs that are bit for bit the shipped ones.
 */
#include "cli/commands.h"
#include "core/data.h"
#include "sae/names.h"
#include "store/catalogue.h"

#include <stdlib.h>
#include <string.h>

typedef struct job {
    cli *c;
    const char *labels;
    bool is_rebuild;
} job;

/* ---- labels ------------------------------------------------------------------------------------------------------- */

/* Is that SAE the shipped one of its name? */
static bool is_shipped(const job *w, const lp_catalogue_sae *sae)
{
    char *folder = NULL;
    lp_sae_place place = {0};
    lp_sae *s = NULL;
    bool is_same = lp_data_path(&folder, "saes", NULL) == LP_OK &&
                   lp_sae_find(&place, sae->name, folder, NULL) == LP_OK &&
                   lp_sae_open(&s, place.path, NULL, &(lp_env){.cancel = w->c->env.cancel}, NULL) == LP_OK &&
                   strcmp(s->hash, sae->hash) == 0;
    lp_sae_close(s);
    lp_sae_place_clear(&place);
    free(folder);
    return is_same;
}

/* A folder of its own in the export; else labels of one SAE would go to all. */
static bool has_folder(const char *dir, const char *source)
{
    char *tries[2] = {lp_format("%s/" LP_SAE_EMBEDDED_MODEL "/%s", dir, source), lp_format("%s/%s", dir, source)};
    bool has = (tries[0] && lp_is_dir(tries[0])) || (tries[1] && lp_is_dir(tries[1]));
    free(tries[0]), free(tries[1]);
    return has;
}

static lp_status read_labels(lp_labels *out, const job *w, const lp_catalogue_sae *sae, bool is_only, lp_error *err)
{
    *out = (lp_labels){0};
    if (w->labels ? !is_only && !has_folder(w->labels, sae->name) : !is_shipped(w, sae)) return LP_OK;
    return lp_labels_find(out, w->labels, LP_SAE_EMBEDDED_MODEL, sae->name, sae->d_sae, err);
}

/* Those asked for, or the shipped ones of SAEs that have none yet. */
static lp_status add_labels(int *named, const job *w, lp_catalogue *k, lp_error *err)
{
    lp_catalogue_sae *saes;
    int n, found = 0;
    LP_TRY(lp_catalogue_saes(&saes, &n, k, err));
    lp_labels *labels = lp_calloc((size_t)n + 1, sizeof *labels);
    lp_catalogue_labels *list = lp_calloc((size_t)n + 1, sizeof *list);
    lp_status st = labels && list ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; i < n && st == LP_OK; i++) {
        if (!w->labels && saes[i].n_labels) continue;
        st = read_labels(&labels[i], w, &saes[i], n == 1, err);
        if (!labels[i].n_named) continue;
        list[found++] = (lp_catalogue_labels){saes[i].hash, &labels[i]};
        *named += labels[i].n_named;
    }
    if (st == LP_OK && w->labels && !found)
        st = lp_fail(err, LP_E_NOT_FOUND, "%s: no folder in it is called as one of the store's SAEs", w->labels);
    if (st == LP_OK && found) st = lp_catalogue_set_labels(k, list, found, err);
    for (int i = 0; labels && i < n; i++) lp_labels_free(&labels[i]);
    free(labels), free(list);
    lp_catalogue_free_saes(saes, n);
    return st;
}

static lp_status label(int *named, const job *w, lp_error *err)
{
    lp_catalogue *k;
    LP_TRY(lp_catalogue_open(&k, w->c->operands[0], LP_CATALOGUE_WRITE, &w->c->env, err));
    lp_status st = add_labels(named, w, k, err);
    lp_catalogue_close(k);
    return st;
}

/* ---- the whole ---------------------------------------------------------------------------------------------------- */

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    job w = {.c = c};
    const cli_option options[] = {
        {"rebuild", 0, CLI_FLAG, &w.is_rebuild, NULL, "make the catalogue anew; labels in it are kept"},
        {"labels", 0, CLI_TEXT, &w.labels, "DIR", "a Neuronpedia export with names of features"},
        {0},
    };
    lp_index_result made;
    int named = 0;
    LP_TRY(cli_parse(c, options, argc, argv, err));
    LP_TRY(cli_count_operands(c, 1, 1, err));
    LP_TRY(lp_store_index(&made, c->operands[0], w.is_rebuild, &c->env, err));
    LP_TRY(label(&named, &w, err));
    cli_table_begin(c, "store\truns\tshards\tadded\tlabels");
    cli_put_text(c, c->operands[0]);
    cli_put_int(c, made.runs);
    cli_put_int(c, made.shards);
    cli_put_int(c, made.added);
    cli_put_int(c, named);
    cli_table_end(c);
    return LP_OK;
}

const cli_command cmd_index = {
    .name = "index",
    .summary = "take a store's sealed shards into its catalogue",
    .operands = "STORE",
    .about = "Reads every sealed shard below STORE/runs that the catalogue does not have yet, holds its bytes against\n"
             "their hash, and adds its documents and features.  Can be stopped and repeated at any time; the outcome\n"
             "does not depend on the order.",
    .run = run,
};
