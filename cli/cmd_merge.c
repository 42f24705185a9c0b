/* cmd_merge.c - `lapidary merge`: one file for notebooks over all shards of a run. */
#include "cli/commands.h"
#include "store/merge.h"
#include "store/run_folder.h"

#include <stdlib.h>
#include <string.h>

static lp_status merge_one(cli *c, const char *store, const char *run, lp_error *err)
{
    lp_merged m;
    char *folder = lp_format("%s/runs/%s", store, run);
    if (!folder) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_status st = lp_run_merge(&m, folder, &c->env, err);
    if (st == LP_OK) {
        cli_put_text(c, m.path);
        cli_put_int(c, (int64_t)m.n_shards);
        cli_put_int(c, m.n_tokens);
        cli_put_int(c, m.n_values);
        cli_put_bool(c, !m.was_there);
        lp_merged_clear(&m);
    }
    free(folder);
    return st;
}

/* Without a name every run that is finished; those that are not are named.  A name may be cut short. */
static lp_status merge(cli *c, char **names, size_t n, lp_error *err)
{
    const char *store = c->operands[0], *wanted = c->n_operands > 1 ? c->operands[1] : "";
    size_t n_matching = 0, n_merged = 0;
    for (size_t i = 0; i < n; i++) n_matching += strncmp(names[i], wanted, strlen(wanted)) == 0;
    if (!n_matching)
        return lp_fail(err, LP_E_NOT_FOUND, *wanted ? "%s: no run %s in this store" : "%s: no run in this store", store,
                       wanted);
    if (*wanted && n_matching > 1) return lp_fail(err, LP_E_RANGE, "%s: %zu runs begin like this", wanted, n_matching);
    cli_table_begin(c, "path\tshards\ttokens\tvalues\tmade");
    for (size_t i = 0; i < n; i++) {
        lp_error why = {0};
        if (strncmp(names[i], wanted, strlen(wanted)) != 0) continue;
        lp_status st = merge_one(c, store, names[i], &why);
        n_merged += st == LP_OK;
        if (st == LP_OK) continue;
        if (st != LP_E_NOT_FOUND || n_matching == 1) return st < 0 ? lp_fail(err, st, "%s", why.text) : st;
        lp_log(&c->env, LP_WARN, "%s", why.text);
    }
    if (!n_merged) return lp_fail(err, LP_E_NOT_FOUND, "%s: none of its %zu runs is finished", store, n_matching);
    cli_table_end(c);
    return LP_OK;
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    char **names = NULL;
    size_t n = 0;
    LP_TRY(cli_parse(c, NULL, argc, argv, err));
    LP_TRY(cli_count_operands(c, 1, 2, err));
    LP_TRY(lp_run_list(&names, &n, c->operands[0], err));
    lp_status st = merge(c, names, n, err);
    for (size_t i = 0; i < n; i++) free(names[i]);
    free(names);
    return st;
}

const cli_command cmd_merge = {
    .name = "merge",
    .summary = "Show all shards of a run as one HDF5 file, for h5py, scipy and anndata",
    .operands = "STORE [RUN]",
    .about =
        "Writes STORE/runs/RUN/run.h5, made of views into the shards beside it: small, quickly made, to be thrown\n"
        "away and made again.  Without RUN: every finished run.  RUN may be the beginning of a name.\n"
        "In Python:  f = h5py.File(\"run.h5\");  anndata.io.read_elem(f[f[\"contents/sae\"].asstr()[0]])",
    .run = run,
};
