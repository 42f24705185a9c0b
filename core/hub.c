/* hub.c - see hub.h.
 *
 * huggingface_hub keeps a repository as
 *
 *     models--OWNER--NAME/refs/main                 a commit's id
 *     models--OWNER--NAME/snapshots/COMMIT/file     a link into blobs/, made when that file is complete
 *
 * so a download that was broken off is a snapshot with files missing, and says nothing of it.  Since we never go to the
 * network, the useful thing is to notice that early and answer with the command that repairs it.
 *
 * Names come from the command line and from configuration files; an id may only hold [A-Za-z0-9._-] and one '/', and no
 * part of it may lead out of the cache.
 */
#include "core/hub.h"

#include "core/safetensors.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- where the cache is -------------------------------------------------------------------------------------- */

/* The first of these variables that is set, and not empty, decides. */
static const char *const places[][2] = {{"HF_HUB_CACHE", ""},
                                        {"HF_HOME", "/hub"},
                                        {"XDG_CACHE_HOME", "/huggingface/hub"},
                                        {"HOME", "/.cache/huggingface/hub"}};

/* False: no variable says.  *out is NULL when memory ran out.  A leading "~" is the home folder, as huggingface_hub
 * has it. */
static bool find_cache(char **out)
{
    const char *home = getenv("HOME");
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *v = getenv(places[i][0]), *below = places[i][1];
        if (!v || !*v) continue;
        bool tilde = v[0] == '~' && (v[1] == '/' || !v[1]) && home;
        *out = lp_format("%s%s%s", tilde ? home : "", tilde ? v + 1 : v, below);
        return true;
    }
    return false;
}

char *lp_hub_cache(void)
{
    char *p = NULL;
    return find_cache(&p) ? p : NULL;
}

/* ---- names --------------------------------------------------------------------------------------------------- */

/* owner/name[@revision][:file], cut up.  All owned by `text`. */
typedef struct hub_name {
    char *text;
    char *owner, *name;
    char *revision; /* NULL: main           */
    char *file;     /* NULL: the whole repo */
} hub_name;

#define WORD "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

/* At most 96 characters of WORD, not beginning with '.' or '-', and nowhere "..". */
static bool good_part(const char *s)
{
    size_t n = strspn(s, WORD);
    return n > 0 && !s[n] && n <= 96 && s[0] != '.' && s[0] != '-' && !strstr(s, "..");
}

/* Such names joined by single '/'; "+", "=" and "," occur in files too.  Nothing here means anything to a shell, since
 * it goes into a command that is shown, and nothing climbs. */
static bool good_relative(const char *s)
{
    size_t n = strspn(s, WORD "/+=,");
    return n > 0 && !s[n] && n <= 255 && s[0] != '/' && s[0] != '-' && s[n - 1] != '/' && !strstr(s, "//") &&
           !strstr(s, "..") && !strstr(s, "/./") && strncmp(s, "./", 2) != 0;
}

/* False when `s` is not of the form; text NULL then means that memory ran out. */
static bool parse_name(hub_name *h, const char *s)
{
    *h = (hub_name){.text = lp_strdup(s)};
    if (!h->text) return false;
    char *slash = strchr(h->text, '/');
    if (!slash) return false;
    *slash = 0;
    h->owner = h->text;
    h->name = slash + 1;
    h->file = strchr(h->name, ':');
    if (h->file) *h->file++ = 0;
    h->revision = strchr(h->name, '@');
    if (h->revision) *h->revision++ = 0;
    return good_part(h->owner) && good_part(h->name) && (!h->file || good_relative(h->file)) &&
           (!h->revision || (good_relative(h->revision) && strlen(h->revision) <= 100));
}

static lp_status no_memory(const hub_name *h, lp_error *err)
{
    return lp_fail(err, LP_E_MEMORY, "%s/%s: out of memory", h->owner, h->name);
}

/* With the command that fetches it. */
static lp_status not_here(const hub_name *h, const char *what, lp_error *err)
{
    return lp_fail(err, LP_E_NOT_FOUND, "%s/%s: %s; get it with:  hf download %s/%s%s%s%s%s", h->owner, h->name, what,
                   h->owner, h->name, h->file ? " " : "", h->file ? h->file : "", h->revision ? " --revision " : "",
                   h->revision ? h->revision : "");
}

/* ---- the snapshot -------------------------------------------------------------------------------------------- */

/* The commit that refs/`revision` names; *out stays NULL when there is no such file or no plain name in it. */
static lp_status read_ref(char **out, const char *repo, const char *revision)
{
    char *path = lp_format("%s/refs/%s", repo, revision), *text = NULL;
    lp_status st = path ? lp_read_file(&text, NULL, path, 1024, NULL) : LP_E_MEMORY;
    free(path);
    if (st != LP_OK) return st == LP_E_MEMORY ? st : LP_OK;
    text[strcspn(text, " \t\r\n")] = 0;
    if (good_part(text))
        *out = text;
    else
        free(text);
    return LP_OK;
}

/* The folder of the revision asked for, which may be a branch, a tag or a commit, in cache folder `cache`. */
static lp_status find_snapshot_in(char **out, const char *cache, const hub_name *h, lp_error *err)
{
    const char *revision = h->revision ? h->revision : "main";
    char *repo = lp_format("%s/models--%s--%s", cache, h->owner, h->name), *commit = NULL, *folder = NULL;
    lp_status st = repo ? read_ref(&commit, repo, revision) : LP_E_MEMORY;
    if (st == LP_OK) folder = lp_format("%s/snapshots/%s", repo, commit ? commit : revision);
    if (!folder)
        st = no_memory(h, err);
    else if (!lp_is_dir(folder)) {
        char what[240]; /* a long path is cut, the command after it is not */
        snprintf(what, sizeof what, "%s the Hugging Face cache (%s)",
                 lp_is_dir(repo) ? "that revision is not in" : "neither a path here nor in", cache);
        st = not_here(h, what, err);
    } else {
        *out = folder;
        folder = NULL;
    }
    free(repo);
    free(commit);
    free(folder);
    return st;
}

static lp_status find_snapshot(char **out, const hub_name *h, lp_error *err)
{
    char *cache = NULL;
    if (!find_cache(&cache))
        return lp_fail(err, LP_E_NOT_FOUND, "%s/%s: where is the Hugging Face cache?  Set HF_HOME", h->owner, h->name);
    lp_status st = cache ? find_snapshot_in(out, cache, h, err) : no_memory(h, err);
    free(cache);
    return st;
}

/* The .gguf files of a folder, "a.gguf, b.gguf" in the order of their names, as far as they fit; returns how many. */
static int list_ggufs(char *out, size_t n, const char *folder)
{
    struct dirent **list = NULL;
    int all = scandir(folder, &list, NULL, alphasort), found = 0;
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < all; i++) {
        if (lp_ends_in(list[i]->d_name, ".gguf")) {
            found++;
            if (at < n) at += (size_t)snprintf(out + at, n - at, "%s%s", at ? ", " : "", list[i]->d_name);
        }
        free(list[i]);
    }
    free(list);
    return found;
}

/* A snapshot is a model when it has config.json and every weight file. */
static lp_status check_complete(const hub_name *h, const char *folder, lp_error *err)
{
    char what[400], ggufs[400], *lacking = NULL, *config = lp_path_join(folder, "config.json");
    if (!config) return no_memory(h, err);
    bool configured = lp_is_file(config);
    free(config);
    if (!configured && list_ggufs(ggufs, sizeof ggufs, folder) > 0)
        return lp_fail(err, LP_E_NOT_FOUND, "%s/%s: holds GGUF files; name one as %s/%s:FILE (%s)", h->owner, h->name,
                       h->owner, h->name, ggufs);
    if (!configured) return not_here(h, "its download in the cache is not complete: config.json is missing", err);
    LP_TRY(lp_safetensors_missing(&lacking, folder, err));
    if (!lacking) return LP_OK;
    snprintf(what, sizeof what, "its download in the cache is not complete: %s is missing", lacking);
    free(lacking);
    return not_here(h, what, err);
}

static lp_status find_in_cache(char **out, const hub_name *h, lp_error *err)
{
    char *folder = NULL;
    LP_TRY(find_snapshot(&folder, h, err));
    if (!h->file) {
        lp_status st = check_complete(h, folder, err);
        if (st == LP_OK)
            *out = folder;
        else
            free(folder);
        return st;
    }
    char *path = lp_path_join(folder, h->file);
    free(folder);
    if (!path) return no_memory(h, err);
    if (!lp_is_file(path)) {
        char what[300];
        snprintf(what, sizeof what, "the cache has it, but without %s", h->file);
        free(path);
        return not_here(h, what, err);
    }
    *out = path;
    return LP_OK;
}

/* ---- what a person types ------------------------------------------------------------------------------------- */

static lp_status take_path(char **out, const char *path, lp_error *err)
{
    if (!lp_is_dir(path) && !lp_ends_in(path, ".gguf"))
        return lp_fail(err, LP_E_UNSUPPORTED,
                       "%s: neither a .gguf file nor a folder; name the folder that holds config.json", path);
    *out = lp_strdup(path);
    return *out ? LP_OK : lp_fail(err, LP_E_MEMORY, "%s: out of memory", path);
}

lp_status lp_hub_find(char **out, const char *name, lp_error *err)
{
    if (!*name)
        return lp_fail(err, LP_E_NOT_FOUND, "no model named: give a folder, a .gguf file or a Hub id (owner/name)");
    if (lp_is_dir(name) || lp_is_file(name)) return take_path(out, name, err);
    hub_name h;
    bool is_id = parse_name(&h, name);
    lp_status st;
    if (!h.text)
        st = lp_fail(err, LP_E_MEMORY, "%s: out of memory", name);
    else if (!is_id || (!h.file && lp_ends_in(h.name, ".gguf")))
        st = lp_fail(err, LP_E_NOT_FOUND, "%s: no such file or folder%s", name,
                     strpbrk(name, "/\\:@") ? "" : ", and not a Hub id either (those are owner/name)");
    else if (h.file && !lp_ends_in(h.file, ".gguf"))
        st = lp_fail(err, LP_E_UNSUPPORTED, "%s: only a .gguf file can be a model by itself", name);
    else
        st = find_in_cache(out, &h, err);
    free(h.text);
    return st;
}

lp_status lp_hub_file(char **out, const char *repo, const char *file, lp_error *err)
{
    char *name = lp_format("%s:%s", repo, file);
    hub_name h = {0};
    bool good = name && parse_name(&h, name);
    lp_status st;
    if (!name || !h.text)
        st = lp_fail(err, LP_E_MEMORY, "%s: out of memory", repo);
    else if (!good || strcmp(h.file, file) != 0) /* a ':' in repo would have cut elsewhere */
        st = lp_fail(err, LP_E_RANGE, "%s, %s: not a Hub id (owner/name) and the path of a file in it", repo, file);
    else
        st = find_in_cache(out, &h, err);
    free(name);
    free(h.text);
    return st;
}

lp_status lp_hub_snapshot(char **out, const char *repo, lp_error *err)
{
    hub_name h;
    bool good = parse_name(&h, repo);
    lp_status st;
    if (!h.text)
        st = lp_fail(err, LP_E_MEMORY, "%s: out of memory", repo);
    else if (!good || h.file || h.revision)
        st = lp_fail(err, LP_E_RANGE, "%.200s: not a Hub id (owner/name)", repo);
    else
        st = find_snapshot(out, &h, err);
    free(h.text);
    return st;
}
