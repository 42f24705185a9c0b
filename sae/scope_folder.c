/* scope_folder.c - SAEs on disk, laid out as Gemma Scope is; see names.h and scope_table.h.
 *
 *     SITE or release / ... / layer_20 / width_16k / average_l0_71 / params.npz
 *
 * Everything but the weights is in the path: the last three folders say which one it is, and what stands before them
 * where it reads.  Only whether it is the canonical one of its shelf, which its id depends on, takes a look at the
 * neighbours.
 */
#include "sae/scope_table.h"

#include "core/config.h"
#include "core/hub.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static lp_status no_memory(const char *path, lp_error *err)
{
    return lp_fail(err, LP_E_MEMORY, "%.600s: out of memory", path);
}

bool lp_sae_spot_parse(lp_sae_spot *spot, const char *word, int layer)
{
    static const lp_site sites[LP_SCOPE_SITES] = {LP_RESID_POST, LP_MLP_OUT, LP_Z, LP_MLP_NORMED};
    const char *site, *s = word;
    if (!lp_scope_take_site(&s, &site) || *s) return false;
    int i = 0;
    while (lp_scope_sites[i] != site) i++;
    bool is_coder = sites[i] == LP_MLP_NORMED; /* reads what the MLP reads, without its gain; predicts what it adds */
    *spot = (lp_sae_spot){sites[i], layer, is_coder, is_coder ? LP_MLP_OUT : sites[i], layer};
    return true;
}

void lp_scope_shelf_text(char out[LP_SHELF_TEXT], const lp_shelf *shelf)
{
    if (shelf->layer == LP_WHOLE_MODEL)
        snprintf(out, LP_SHELF_TEXT, "embedding/width_%s", shelf->width);
    else
        snprintf(out, LP_SHELF_TEXT, "layer_%d/width_%s", shelf->layer, shelf->width);
}

/* ---- sparsities -------------------------------------------------------------------------------------------------- */

bool lp_scope_add(lp_sparsities *l, int n)
{
    size_t i = 0;
    while (i < l->count && l->n[i] < n) i++;
    if (i < l->count && l->n[i] == n) return true;
    if (!lp_grow((void **)&l->n, &l->room, l->count + 1, sizeof *l->n)) return false;
    memmove(l->n + i + 1, l->n + i, (l->count++ - i) * sizeof *l->n);
    l->n[i] = n;
    return true;
}

/* A link into blobs/ whose blob is gone does not count: lp_is_file follows it. */
bool lp_scope_add_stored(lp_sparsities *out, const char *folder)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    bool ok = true;
    while (ok && d && (e = readdir(d))) {
        const char *s = e->d_name;
        int n;
        if (!lp_scope_take(&s, "average_l0_") || !lp_scope_take_number(&s, &n) || *s) continue;
        char *path = lp_format("%s/%s/params.npz", folder, e->d_name);
        ok = path && (!lp_is_file(path) || lp_scope_add(out, n));
        free(path);
    }
    if (d) closedir(d);
    return ok;
}

bool lp_scope_has(const lp_sparsities *l, int n)
{
    for (size_t i = 0; i < l->count; i++)
        if (l->n[i] == n) return true;
    return false;
}

int lp_scope_canonical(const lp_sparsities *l)
{
    if (l->starred) return l->starred;
    int best = l->count ? l->n[0] : -1;
    for (size_t i = 1; i < l->count; i++) /* ascending: of two equally near the smaller stays */
        if (abs(l->n[i] - 100) < abs(best - 100)) best = l->n[i];
    return best;
}

/* ---- from a path ------------------------------------------------------------------------------------------------- */

/* What a path says. */
typedef struct told {
    lp_shelf shelf;
    int l0;
    size_t folder;     /* bytes of the path up to the shelf's folder, that included */
    const char *owner; /* of shelf.repo, where the path says it                     */
    size_t owner_len;
} told;

/* "", "/" or "/anything.npz". */
static bool is_end(const char *s)
{
    return !*s || (*s == '/' && (!s[1] || (!strchr(s + 1, '/') && lp_ends_in(s + 1, ".npz"))));
}

/* One folder's name: a release, or models--OWNER--NAME as the Hugging Face cache has it; anyone may own a copy. */
static bool is_repo(told *t, const char *name, size_t n)
{
    const char *s = name, *end = name + n;
    if (n > 8 && lp_scope_take(&s, "models--")) {
        t->owner = s;
        while (s + 2 < end && strncmp(s, "--", 2) != 0) s++;
        t->owner_len = (size_t)(s - t->owner);
        s += 2;
    }
    t->shelf.repo = s < end ? lp_scope_find_repo(s, (size_t)(end - s)) : NULL;
    if (t->shelf.repo) t->shelf.site = t->shelf.repo->site;
    if (!t->shelf.repo) t->owner = NULL;
    return t->shelf.repo;
}

/* The folders before path[end], the nearest first: only that one may be a site. */
static void read_before(told *t, const char *path, size_t end)
{
    for (bool first = true; end > 0; first = false) {
        size_t n = 0;
        end--; /* the '/' */
        while (n < end && path[end - n - 1] != '/') n++;
        const char *s = path + end - n, *site;
        if (first && lp_scope_take_site(&s, &site) && s == path + end) {
            t->shelf.site = site;
            return;
        }
        if (is_repo(t, path + end - n, n)) return;
        end -= n;
    }
}

static const char *next_part(const char *path)
{
    const char *slash = strchr(path, '/');
    return slash ? slash + 1 : NULL;
}

static bool read_path(told *t, const char *path)
{
    *t = (told){0};
    for (const char *c = path; c; c = next_part(c)) {
        const char *s = c, *folder;
        if (!lp_scope_take_shelf(&s, &t->shelf)) continue;
        folder = s;
        if (!lp_scope_take(&s, "/average_l0_") || !lp_scope_take_number(&s, &t->l0) || !is_end(s)) continue;
        if (t->shelf.layer >= LP_MAX_LAYERS) continue;
        t->folder = (size_t)(folder - path);
        read_before(t, path, (size_t)(c - path));
        return true;
    }
    return false;
}

/* *out: "20-gemmascope-res-16k", with "__l0-71" where that is not the canonical one. */
static bool make_id(char **out, const told *t, const char *path, const char *family)
{
    lp_sparsities all = {0};
    char *folder = lp_format("%.*s", (int)t->folder, path), tail[24] = "";
    bool ok = folder && (!t->shelf.repo || lp_scope_add_listed(&all, &t->shelf)) && lp_scope_add_stored(&all, folder) &&
              lp_scope_add(&all, t->l0);
    if (ok && lp_scope_canonical(&all) != t->l0) snprintf(tail, sizeof tail, "__l0-%d", t->l0);
    if (ok)
        *out = lp_format("%d-%s-%s-%s%s", t->shelf.layer, t->shelf.repo ? "gemmascope" : family, t->shelf.site,
                         t->shelf.width, tail);
    free(folder);
    free(all.n);
    return ok && *out;
}

static bool fill(lp_sae_place *p, const told *t, const char *path, const char *family)
{
    const lp_scope_repo *r = t->shelf.repo;
    p->l0 = t->l0;
    p->width = lp_scope_width_value(t->shelf.width);
    p->spot.layer = p->spot.layer_out = t->shelf.layer;
    if (t->shelf.layer == LP_WHOLE_MODEL)
        p->spot.site = p->spot.site_out = LP_EMBED_RAW; /* trained on rows not yet scaled by sqrt(D) */
    else if (t->shelf.site)
        lp_sae_spot_parse(&p->spot, t->shelf.site, t->shelf.layer);
    if (r && !(p->model_id = lp_strdup(r->model))) return false;
    if (r) p->repo = lp_format("%.*s/%s", t->owner ? (int)t->owner_len : 6, t->owner ? t->owner : "google", r->name);
    if (r && !p->repo) return false;
    return !t->shelf.site || t->shelf.layer == LP_WHOLE_MODEL || make_id(&p->source_id, t, path, family);
}

static const lp_sae_place empty = {.spot = {LP_N_SITES, LP_WHOLE_MODEL, false, LP_N_SITES, LP_WHOLE_MODEL},
                                   .feature = -1};

lp_status lp_scope_place(lp_sae_place *out, const char *path, const char *family, lp_error *err)
{
    told t;
    *out = empty;
    out->path = lp_strdup(path);
    if (out->path && (!read_path(&t, path) || fill(out, &t, path, family))) return LP_OK;
    lp_sae_place_clear(out);
    return no_memory(path, err);
}

lp_status lp_sae_place_from_path(lp_sae_place *out, const char *path, lp_error *err)
{
    return lp_scope_place(out, path, "lapidary", err);
}

void lp_sae_place_clear(lp_sae_place *p)
{
    free(p->path);
    free(p->source_id);
    free(p->model_id);
    free(p->repo);
    *p = empty;
}

/* ---- what is there ----------------------------------------------------------------------------------------------- */

static lp_status look_for(bool *found, const char *folder, const char *file, lp_error *err)
{
    char *path = lp_path_join(folder, file);
    if (!path) return no_memory(folder, err);
    *found = lp_is_file(path);
    free(path);
    return LP_OK;
}

lp_status lp_scope_look_in(char **out, const char **lacks, const char *path, lp_error *err)
{
    bool npz = false, config = false, weights = false;
    *lacks = lp_ends_in(path, ".npz") ? "the file" : "params.npz, or cfg.json and sae_weights.safetensors";
    if (lp_is_dir(path)) {
        LP_TRY(look_for(&npz, path, "params.npz", err));
        LP_TRY(look_for(&config, path, "cfg.json", err));
        LP_TRY(look_for(&weights, path, "sae_weights.safetensors", err));
        if (config != weights) *lacks = config ? "sae_weights.safetensors" : "cfg.json";
        if (!npz && !(config && weights)) return LP_OK;
    } else if (!lp_is_file(path) || !lp_ends_in(path, ".npz")) {
        return LP_OK;
    }
    *out = npz ? lp_path_join(path, "params.npz") : lp_strdup(path);
    return *out ? LP_OK : no_memory(path, err);
}

/* ---- all of a folder --------------------------------------------------------------------------------------------- */

typedef struct places {
    lp_sae_place *at;
    size_t n, room;
} places;

/* Adds what is at `folder`, an average_l0_N, if it is an SAE and its path can be read to the end. */
static lp_status add_place(places *to, const char *folder, lp_error *err)
{
    char *path = lp_path_join(folder, "params.npz");
    lp_status st = LP_OK;
    if (!path || !lp_grow((void **)&to->at, &to->room, to->n + 1, sizeof *to->at))
        st = no_memory(folder, err);
    else if (lp_is_file(path))
        st = lp_sae_place_from_path(&to->at[to->n], path, err);
    else
        to->at[to->n] = empty;
    free(path);
    if (st != LP_OK) return st;
    if (to->at[to->n].source_id)
        to->n++;
    else
        lp_sae_place_clear(&to->at[to->n]);
    return LP_OK;
}

/* The folders below whose names begin as those of this level do. */
static lp_status walk(places *to, const char *folder, int level, lp_error *err)
{
    static const char *const begin[] = {"layer_", "width_", "average_l0_"};
    DIR *d = opendir(folder);
    struct dirent *e;
    lp_status st = LP_OK;
    while (st == LP_OK && d && (e = readdir(d))) {
        if (strncmp(e->d_name, begin[level], strlen(begin[level])) != 0) continue;
        char *below = lp_path_join(folder, e->d_name);
        if (!below)
            st = no_memory(folder, err);
        else
            st = level == 2 ? add_place(to, below, err) : walk(to, below, level + 1, err);
        free(below);
    }
    if (d) closedir(d);
    return st;
}

static int site_rank(lp_site site)
{
    return site == LP_RESID_POST ? 0 : site == LP_MLP_OUT ? 1 : site == LP_Z ? 2 : 3;
}

static int compare(const void *pa, const void *pb)
{
    const lp_sae_place *a = pa, *b = pb;
    int d = site_rank(a->spot.site) - site_rank(b->spot.site);
    if (!d) d = a->spot.layer - b->spot.layer;
    if (!d) d = (a->width > b->width) - (a->width < b->width);
    if (!d) d = (a->l0 > b->l0) - (a->l0 < b->l0);
    return d ? d : strcmp(a->path, b->path);
}

lp_status lp_sae_list(lp_sae_place **out, size_t *n, const char *folder, lp_error *err)
{
    places all = {0};
    lp_status st = LP_OK;
    if (!lp_is_dir(folder)) return lp_fail(err, LP_E_NOT_FOUND, "%.600s: no such folder", folder);
    for (int i = 0; st == LP_OK && i < LP_SCOPE_SITES; i++) {
        char *site = lp_path_join(folder, lp_scope_sites[i]);
        st = site ? walk(&all, site, 0, err) : no_memory(folder, err);
        free(site);
    }
    if (st != LP_OK) {
        lp_sae_list_free(all.at, all.n);
        return st;
    }
    if (all.n) qsort(all.at, all.n, sizeof *all.at, compare);
    *out = all.at;
    *n = all.n;
    return LP_OK;
}

/* What one repository of Gemma Scope's has in the cache; nothing where it is not there. */
static lp_status add_cached(places *to, const lp_scope_repo *r, lp_error *err)
{
    char repo[64], *folder = NULL;
    size_t from = to->n;
    snprintf(repo, sizeof repo, "google/%s", r->name);
    lp_status st = lp_hub_snapshot(&folder, repo, err);
    if (st == LP_E_NOT_FOUND) return LP_OK;
    if (st == LP_OK) st = walk(to, folder, 0, err);
    free(folder);
    if (st == LP_OK && to->n > from) qsort(to->at + from, to->n - from, sizeof *to->at, compare);
    return st;
}

lp_status lp_sae_list_cached(lp_sae_place **out, size_t *n, lp_error *err)
{
    places all = {0};
    for (int i = 0; i < LP_SCOPE_REPOS; i++) {
        lp_status st = add_cached(&all, &lp_scope_repos[i], err);
        if (st == LP_OK) continue;
        lp_sae_list_free(all.at, all.n);
        return st;
    }
    *out = all.at;
    *n = all.n;
    return LP_OK;
}

void lp_sae_list_free(lp_sae_place *list, size_t n)
{
    for (size_t i = 0; i < n; i++) lp_sae_place_clear(&list[i]);
    free(list);
}
