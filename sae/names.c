/* names.c - see names.h.
 *
 * A name is read into a wish: a shelf (scope_table.h), the sparsity wanted there, and what else was typed.  A wish is
 * looked up in one of two places, a snapshot of the Hugging Face cache or the embedded model's folder; both end in a
 * path, and what is told about an SAE is read off its path alone (scope_folder.c).  So one SAE has one id, whatever it
 * was called by, and the loader, which sees only paths, says the same as the command line.
 *
 * What is no path may only hold characters that mean nothing to a shell, for it goes into a command that is shown, and
 * nothing that climbs.
 */
#include "sae/direction.h"
#include "sae/scope_table.h"

#include "core/hub.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 255 };

#define EXAMPLE "such as gemma-2-2b/20-gemmascope-res-16k"

typedef struct wish {
    const char *typed; /* all of it, for messages                             */
    bool is_scope;     /* the set was called gemmascope-..., not lapidary-... */
    lp_shelf shelf;
    int l0; /* or LP_CANONICAL */
    int feature;
} wish;

static lp_status no_memory(const char *name, lp_error *err)
{
    return lp_fail(err, LP_E_MEMORY, "%.200s: out of memory", name);
}

/* ---- reading names ----------------------------------------------------------------------------------------------- */

/* Letters, digits and "._-+=,", in parts joined by single '/', none of which begins with '.' or '-'. */
static bool is_clean(const char *s)
{
    static const char ok[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-+=,/";
    size_t n = strspn(s, ok);
    return n > 0 && !s[n] && n <= MAX_NAME && !strchr("/.-", s[0]) && s[n - 1] != '/' && !strstr(s, "//") &&
           !strstr(s, "/.") && !strstr(s, "/-") && !strstr(s, "..");
}

/* "20-gemmascope-res-16k", "20-gemmascope-res-16k__l0-22", either with "/12082" behind. */
static bool read_source_id(wish *w, const char *s)
{
    w->feature = -1;
    if (!lp_scope_take_id(&s, &w->shelf, &w->l0, &w->is_scope)) return false;
    return !*s || (lp_scope_take(&s, "/") && lp_scope_take_number(&s, &w->feature) && !*s);
}

/* "layer_20/width_16k/canonical", ".../average_l0_71", either with "/params.npz" behind. */
static bool read_layout(wish *w, const char *s)
{
    w->feature = -1;
    if (!lp_scope_take_layout(&s, &w->shelf, &w->l0)) return false;
    lp_scope_take(&s, "/params.npz");
    return !*s;
}

static const char *known_name(int i)
{
    if (i < LP_SCOPE_REPOS) return lp_scope_repos[i].name;
    return i < LP_SCOPE_REPOS + LP_SCOPE_MODELS ? lp_scope_models[i - LP_SCOPE_REPOS][0] : LP_SAE_EMBEDDED_MODEL;
}

/* The release or model that was meant by the first n characters of a name; of the releases alone where `releases`. */
static const char *nearest(const char *name, size_t n, bool releases)
{
    char word[MAX_NAME + 1];
    snprintf(word, sizeof word, "%.*s", (int)n, name);
    if (lp_ends_in(word, "-canonical")) word[strlen(word) - strlen("-canonical")] = 0;
    int best = 0;
    for (int i = 1; i < (releases ? LP_SCOPE_REPOS : LP_SCOPE_REPOS + LP_SCOPE_MODELS + 1); i++)
        if (lp_edit_distance(word, known_name(i)) < lp_edit_distance(word, known_name(best))) best = i;
    return known_name(best);
}

/* ---- paths ------------------------------------------------------------------------------------------------------- */

static lp_status take_path(lp_sae_place *out, const char *path, lp_error *err)
{
    char *found = NULL;
    const char *lacks;
    LP_TRY(lp_scope_look_in(&found, &lacks, path, err));
    if (!found && lp_is_dir(path))
        return lp_fail(err, LP_E_NOT_FOUND, "%.600s: no SAE in there: it lacks %s", path, lacks);
    if (!found)
        return lp_fail(err, LP_E_UNSUPPORTED, "%.600s: neither an .npz file nor a folder; name the folder it is in",
                       path);
    lp_status st = lp_sae_place_from_path(out, found, err);
    free(found);
    return st;
}

/* What is in the file is seen when it is opened. */
static lp_status take_direction(lp_sae_place *out, const char *name, int layer, lp_error *err)
{
    LP_TRY(lp_sae_place_from_path(out, name, err));
    out->spot = lp_direction_spot(layer);
    return LP_OK;
}

/* ---- the Hugging Face cache -------------------------------------------------------------------------------------- */

/* No variable says where it is, or memory ran out: lp_hub_cache does not tell which. */
static lp_status no_cache(const char *name, lp_error *err)
{
    static const char *const says[] = {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"};
    for (size_t i = 0; i < sizeof says / sizeof *says; i++)
        if (getenv(says[i]) && *getenv(says[i])) return no_memory(name, err);
    return lp_fail(err, LP_E_NOT_FOUND, "%.200s: where is the Hugging Face cache?  Set HF_HOME", name);
}

/* The folder of the repository's main revision; *out stays NULL where the cache has none, or no repository could have that
 * name. */
static lp_status find_snapshot(char **out, const char *repo, lp_error *err)
{
    lp_status st = lp_hub_snapshot(out, repo, err);
    return st == LP_E_NOT_FOUND || st == LP_E_RANGE ? LP_OK : st;
}

/* The N that was asked for, from `folder`, which has it. */
static lp_status take_stored(lp_sae_place *out, const wish *w, const char *folder, int n, lp_error *err)
{
    char *path = lp_format("%s/average_l0_%d/params.npz", folder, n);
    lp_status st = path ? lp_scope_place(out, path, w->is_scope ? "gemmascope" : "lapidary", err)
                        : no_memory(w->typed, err);
    free(path);
    if (st == LP_OK) out->feature = w->feature;
    return st;
}

/* It exists, or may exist; with the command that gets it. */
static lp_status not_cached(const wish *w, int n, const lp_sparsities *here, const char *cache, lp_error *err)
{
    char list[160], of_it[240] = "", shelf[LP_SHELF_TEXT];
    lp_scope_shelf_text(shelf, &w->shelf);
    lp_scope_sparsities_text(list, sizeof list, here);
    if (*list) snprintf(of_it, sizeof of_it, ", where %s has %s", shelf, list);
    return lp_fail(err, LP_E_NOT_FOUND,
                   "%.200s: average_l0_%d is not in the Hugging Face cache (%.200s)%s; get it with:  "
                   "hf download google/%s %s/average_l0_%d/params.npz",
                   w->typed, n, cache, of_it, w->shelf.repo->name, shelf, n);
}

static lp_status find_in_snapshot(lp_sae_place *out, const wish *w, const char *cache, const char *snapshot,
                                  lp_error *err)
{
    lp_sparsities known = {0}, here = {0};
    char shelf[LP_SHELF_TEXT];
    lp_scope_shelf_text(shelf, &w->shelf);
    char *folder = lp_format("%s/%s", snapshot ? snapshot : "", shelf);
    bool ok = folder && lp_scope_add_listed(&known, &w->shelf);
    if (ok && snapshot) ok = lp_scope_add_stored(&known, folder) && lp_scope_add_stored(&here, folder);
    int n = w->l0 == LP_CANONICAL ? lp_scope_canonical(&known) : w->l0;
    lp_status st;
    if (!ok)
        st = no_memory(w->typed, err);
    else if (lp_scope_has(&here, n))
        st = take_stored(out, w, folder, n, err);
    else if (lp_scope_has(&known, n) || (known.count && w->shelf.repo->is_partial))
        st = not_cached(w, n, &here, cache, err);
    else
        st = lp_scope_not_listed(w->typed, &w->shelf, w->l0, &known, err);
    free(folder);
    free(known.n);
    free(here.n);
    return st;
}

static lp_status find_of_google(lp_sae_place *out, const wish *w, lp_error *err)
{
    char *cache = lp_hub_cache(), *snapshot = NULL, repo[64];
    if (!cache) return no_cache(w->typed, err);
    snprintf(repo, sizeof repo, "google/%s", w->shelf.repo->name);
    lp_status st = find_snapshot(&snapshot, repo, err);
    if (st == LP_OK) st = find_in_snapshot(out, w, cache, snapshot, err);
    free(snapshot);
    free(cache);
    return st;
}

/* ---- other people's repositories --------------------------------------------------------------------------------- */

static lp_status not_theirs(const char *typed, const char *repo, const char *path, const char *lacks, const char *cache,
                            lp_error *err)
{
    const char *slash = *path ? "/" : "";
    char files[2 * MAX_NAME + 64];
    if (lp_ends_in(path, ".npz"))
        snprintf(files, sizeof files, "%s", path);
    else
        snprintf(files, sizeof files, "%s%scfg.json %s%ssae_weights.safetensors", path, slash, path, slash);
    return lp_fail(err, LP_E_NOT_FOUND,
                   "%.150s: neither a path here nor in the Hugging Face cache (%.120s), which lacks %s; get it with:  "
                   "hf download %s %s",
                   typed, cache, lacks, repo, files);
}

static lp_status take_theirs(lp_sae_place *out, const char *typed, const char *repo, const char *cache,
                             const char *snapshot, lp_error *err)
{
    const char *lacks = "all of it", *path = typed + strlen(repo);
    char *there = lp_format("%s%s", snapshot ? snapshot : "", path), *found = NULL;
    path += *path == '/';
    lp_status st = !there ? no_memory(typed, err) : snapshot ? lp_scope_look_in(&found, &lacks, there, err) : LP_OK;
    free(there);
    if (st != LP_OK) return st;
    if (!found) return not_theirs(typed, repo, path, lacks, cache, err);
    st = lp_sae_place_from_path(out, found, err);
    free(found);
    if (st != LP_OK) return st;
    free(out->repo);
    if ((out->repo = lp_strdup(repo))) return LP_OK;
    return no_memory(typed, err);
}

static lp_status find_of_theirs(lp_sae_place *out, const char *typed, lp_error *err)
{
    size_t owner = strcspn(typed, "/") + 1;
    char *cache = lp_hub_cache(), *snapshot = NULL;
    if (!cache) return no_cache(typed, err);
    char *repo = lp_format("%.*s", (int)(owner + strcspn(typed + owner, "/")), typed);
    lp_status st = repo ? find_snapshot(&snapshot, repo, err) : no_memory(typed, err);
    if (st == LP_OK) st = take_theirs(out, typed, repo, cache, snapshot, err);
    free(repo);
    free(snapshot);
    free(cache);
    return st;
}

/* ---- the embedded model's folder --------------------------------------------------------------------------------- */

static lp_status not_embedded(const wish *w, const char *embedded, lp_error *err)
{
    static const char hint[] = "; Gemma Scope's have the model in front, " EXAMPLE;
    lp_sae_place *all = NULL;
    size_t n = 0;
    char list[440] = "";
    lp_status st = embedded && lp_is_dir(embedded) ? lp_sae_list(&all, &n, embedded, err) : LP_OK;
    if (st != LP_OK) return st;
    for (size_t i = 0; i < n; i++) lp_scope_add_text(list, sizeof list, all[i].source_id);
    lp_sae_list_free(all, n);
    return lp_fail(err, LP_E_NOT_FOUND, "%.200s: not among the SAEs in %.200s: %s%s", w->typed,
                   embedded ? embedded : "the embedded model's folder", n ? list : "there are none",
                   w->is_scope ? hint : "");
}

/* What was called gemmascope-... keeps that name, and is of no model we know. */
static lp_status find_embedded(lp_sae_place *out, const wish *w, const char *embedded, lp_error *err)
{
    lp_sparsities here = {0};
    char shelf[LP_SHELF_TEXT];
    if (!embedded) return not_embedded(w, embedded, err);
    lp_scope_shelf_text(shelf, &w->shelf);
    char *folder = lp_format("%s/%s/%s", embedded, w->shelf.site, shelf);
    bool ok = folder && lp_scope_add_stored(&here, folder);
    int n = w->l0 == LP_CANONICAL ? lp_scope_canonical(&here) : w->l0;
    lp_status st = !ok                      ? no_memory(w->typed, err)
                   : lp_scope_has(&here, n) ? take_stored(out, w, folder, n, err)
                                            : not_embedded(w, embedded, err);
    free(folder);
    free(here.n);
    if (st != LP_OK || w->is_scope) return st;
    out->model_id = lp_strdup(LP_SAE_EMBEDDED_MODEL);
    return out->model_id ? LP_OK : no_memory(w->typed, err);
}

/* ---- what a person types ----------------------------------------------------------------------------------------- */

static bool is_word(const char *word, const char *name, size_t n)
{
    return strlen(word) == n && strncmp(word, name, n) == 0;
}

static lp_status no_release(const wish *w, const char *name, size_t n, lp_error *err)
{
    return lp_fail(err, LP_E_NOT_FOUND, "%.200s: no release \"%.*s\"; did you mean %s?", w->typed, (int)n, name,
                   nearest(name, n, true));
}

/* release: what follows google/, if that was there. */
static lp_status by_release(lp_sae_place *out, wish *w, const char *release, lp_error *err)
{
    size_t n = strcspn(release, "/");
    char layers[100];
    if (strncmp(release, "gemma-scope-2-", 14) == 0)
        return lp_fail(err, LP_E_UNSUPPORTED, "%.200s: Gemma Scope 2 is for Gemma 3, which this program does not run",
                       w->typed);
    const lp_scope_repo *r = lp_scope_find_repo(release, n);
    if (!r) return no_release(w, release, n, err);
    lp_scope_layers_text(layers, sizeof layers, r);
    if (!release[n] || !read_layout(w, release + n + 1))
        return lp_fail(err, LP_E_NOT_FOUND,
                       "%.200s: which SAE?  Say %s/layer_L/width_W/canonical, or average_l0_N in its place (layers %s)",
                       w->typed, r->name, layers);
    w->shelf.repo = r;
    if (w->shelf.layer == LP_WHOLE_MODEL && w->l0 == LP_CANONICAL)
        return lp_fail(err, LP_E_NOT_FOUND, "%.200s: SAEs of the embedding have no canonical; name an average_l0_N",
                       w->typed);
    return find_of_google(out, w, err);
}

/* id: what follows the model's name. */
static lp_status by_model(lp_sae_place *out, wish *w, int model, const char *id, lp_error *err)
{
    char sites[80] = "";
    if (!read_source_id(w, id) || !w->is_scope)
        return lp_fail(err, LP_E_NOT_FOUND, "%.200s: after the model comes LAYER-gemmascope-SITE-WIDTH, " EXAMPLE,
                       w->typed);
    for (int i = 0; i < LP_SCOPE_REPOS; i++) {
        if (strcmp(lp_scope_repos[i].model, lp_scope_models[model][1]) != 0) continue;
        if (strcmp(lp_scope_repos[i].site, w->shelf.site) == 0) w->shelf.repo = &lp_scope_repos[i];
        lp_scope_add_text(sites, sizeof sites, lp_scope_repos[i].site);
    }
    if (!w->shelf.repo)
        return lp_fail(err, LP_E_NOT_FOUND, "%.200s: there are no %s SAEs of %s; there are %s", w->typed, w->shelf.site,
                       lp_scope_models[model][0], sites);
    LP_TRY(find_of_google(out, w, err));
    free(out->model_id); /* shown with 2b-it, the SAEs of 2b-pt are that model's */
    out->model_id = lp_strdup(lp_scope_models[model][0]);
    return out->model_id ? LP_OK : no_memory(w->typed, err);
}

/* "3-lapidary-res-2k" or "res/layer_3/width_2k/canonical". */
static bool is_embedded(wish *w, const char *s)
{
    if (read_source_id(w, s)) return true;
    w->is_scope = false;
    return lp_scope_take_site(&s, &w->shelf.site) && lp_scope_take(&s, "/") && read_layout(w, s) && w->shelf.layer >= 0;
}

static lp_status by_name(lp_sae_place *out, wish *w, const char *embedded, lp_error *err)
{
    const char *name = w->typed, *s = name, *slash = strchr(name, '/'), *rest = slash ? slash + 1 : "";
    size_t n = strcspn(name, "/");
    int layer;
    lp_scope_take(&s, "google/");
    if (strncmp(s, "gemma-scope", 11) == 0) return by_release(out, w, s, err);
    for (int i = 0; i < LP_SCOPE_MODELS; i++)
        if (is_word(lp_scope_models[i][0], name, n)) return by_model(out, w, i, rest, err);
    bool of_embedded = is_word(LP_SAE_EMBEDDED_MODEL, name, n);
    if (is_embedded(w, of_embedded ? rest : name)) return find_embedded(out, w, embedded, err);
    if (of_embedded) return not_embedded(w, embedded, err);
    s = rest;
    if (lp_scope_take(&s, "layer_") || lp_scope_take(&s, "embedding/")) return no_release(w, name, n, err);
    if (!slash || (lp_scope_take_number(&s, &layer) && *s == '-'))
        return lp_fail(err, LP_E_NOT_FOUND,
                       "%.200s: no such file, model or release; did you mean %s?  Ids are " EXAMPLE, name,
                       nearest(name, n, false));
    return find_of_theirs(out, name, err);
}

lp_status lp_sae_find(lp_sae_place *out, const char *name, const char *embedded, lp_error *err)
{
    wish w = {.typed = name, .feature = -1};
    lp_sae_place place = {0};
    lp_status st;
    int layer;
    if (!*name)
        st = lp_fail(err, LP_E_NOT_FOUND, "no SAE named: give an .npz file, a folder or an id, " EXAMPLE);
    else if (lp_is_dir(name) || lp_is_file(name))
        st = take_path(&place, name, err);
    else if (lp_direction_part(name, &layer))
        st = take_direction(&place, name, layer, err);
    else if (!is_clean(name))
        st = lp_fail(err, LP_E_NOT_FOUND, "%.600s: no such file or folder, and no id " EXAMPLE, name);
    else
        st = by_name(&place, &w, embedded, err);
    if (st != LP_OK) lp_sae_place_clear(&place);
    *out = place;
    return st;
}
