/* names_lens.c - Gemma Scope's SAEs between Neuronpedia's ids and SAELens' names; see names.h.
 *
 * By the table alone: nothing is looked for on the disk, so a recipe can be translated where its SAEs are not.
 */
#include "sae/scope_table.h"

#include <stdlib.h>
#include <string.h>

/* A shelf whose repository is known, and the sparsity wanted there, are named in all ways. */
static lp_status name_all(lp_sae_names *out, const lp_shelf *shelf, int l0, const char *typed, lp_error *err)
{
    lp_sparsities known = {0};
    char folder[LP_SHELF_TEXT];
    lp_scope_shelf_text(folder, shelf);
    if (!lp_scope_add_listed(&known, shelf)) return lp_fail(err, LP_E_MEMORY, "%.200s: out of memory", typed);
    int canonical = lp_scope_canonical(&known), n = l0 == LP_CANONICAL ? canonical : l0;
    bool is_listed = lp_scope_has(&known, n) || (known.count && shelf->repo->is_partial);
    lp_status st = is_listed ? LP_OK : lp_scope_not_listed(typed, shelf, l0, &known, err);
    free(known.n);
    if (st != LP_OK) return st;
    const char *site = shelf->repo->site;
    lp_sae_spot_parse(&out->spot, site, shelf->layer);
    out->model = lp_strdup(shelf->repo->model);
    out->source = n == canonical ? lp_format("%d-gemmascope-%s-%s", shelf->layer, site, shelf->width)
                                 : lp_format("%d-gemmascope-%s-%s__l0-%d", shelf->layer, site, shelf->width, n);
    out->release = lp_strdup(shelf->repo->name);
    out->id = lp_format("%s/average_l0_%d", folder, n);
    if (out->model && out->source && out->release && out->id) return LP_OK;
    lp_sae_names_clear(out);
    return lp_fail(err, LP_E_MEMORY, "%.200s: out of memory", typed);
}

lp_status lp_sae_names_of_source(lp_sae_names *out, const char *model, const char *source, lp_error *err)
{
    lp_shelf shelf = {0};
    const char *s = source, *slash = strrchr(model, '/');
    bool is_scope = false;
    int l0, m = 0;
    *out = (lp_sae_names){0};
    if (!lp_scope_take_id(&s, &shelf, &l0, &is_scope) || *s || !is_scope)
        return lp_fail(err, LP_E_UNSUPPORTED, "%.200s is no SAE of Gemma Scope, such as 20-gemmascope-res-16k", source);
    if (slash) model = slash + 1;
    while (m < LP_SCOPE_MODELS && strcmp(lp_scope_models[m][0], model) != 0) m++;
    for (int i = 0; m < LP_SCOPE_MODELS && i < LP_SCOPE_REPOS; i++)
        if (strcmp(lp_scope_repos[i].model, lp_scope_models[m][1]) == 0 &&
            strcmp(lp_scope_repos[i].site, shelf.site) == 0)
            shelf.repo = &lp_scope_repos[i];
    if (!shelf.repo)
        return lp_fail(err, LP_E_NOT_FOUND, "%.200s: Gemma Scope has no %s SAEs of %.200s", source, shelf.site, model);
    return name_all(out, &shelf, l0, source, err);
}

lp_status lp_sae_names_of_lens(lp_sae_names *out, const char *release, const char *id, lp_error *err)
{
    lp_shelf shelf = {0};
    const char *s = id, *name = release;
    int l0;
    *out = (lp_sae_names){0};
    lp_scope_take(&name, "google/");
    shelf.repo = lp_scope_find_repo(name, strlen(name));
    if (!shelf.repo)
        return lp_fail(err, LP_E_UNSUPPORTED, "%.200s is no release of Gemma Scope's, such as %s", release,
                       lp_scope_repos[0].name);
    if (!lp_scope_take_layout(&s, &shelf, &l0) || *s || shelf.layer < 0)
        return lp_fail(err, LP_E_FORMAT, "%.200s: \"%.200s\" is no SAE of it, such as layer_20/width_16k/canonical",
                       release, id);
    return name_all(out, &shelf, l0, id, err);
}

void lp_sae_names_clear(lp_sae_names *n)
{
    free(n->model);
    free(n->source);
    free(n->release);
    free(n->id);
    *n = (lp_sae_names){0};
}
