/* check_cache.c - see check_cache.h. */
#include "sae/check_cache.h"

#include "core/outfile.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { VERSION = 1, MOST_BYTES = 16 << 20, MOST_CHECKS = 10000 };

static const char format[] = "lapidary-checks";

struct lp_check_cache {
    char *path; /* NULL: remembers nothing */
    lp_env env;
    json_t *checks; /* by key */
    bool has_news;
};

char *lp_check_cache_path(void)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (cache && cache[0] == '/') return lp_format("%s/lapidary/checks.json", cache); /* relative ones do not count */
    return home && *home ? lp_format("%s/.cache/lapidary/checks.json", home) : NULL;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

/* The checks in a file's text, or NULL. */
static json_t *parse(const char *text, size_t n)
{
    json_t *j = json_loadb(text, n, 0, NULL), *checks = json_object_get(j, "checks");
    const char *says = json_string_value(json_object_get(j, "format"));
    bool is_ours = says && strcmp(says, format) == 0 && json_integer_value(json_object_get(j, "version")) == VERSION;
    checks = is_ours && json_is_object(checks) ? json_incref(checks) : NULL;
    json_decref(j);
    return checks;
}

static json_t *read_checks(const char *path, const lp_env *env)
{
    char *text = NULL;
    size_t n = 0;
    lp_error err = {0};
    if (!path || !lp_is_file(path)) return NULL;
    lp_status st = lp_read_file(&text, &n, path, MOST_BYTES, &err);
    json_t *checks = st == LP_OK ? parse(text, n) : NULL;
    if (!checks) lp_log(env, LP_INFO, "%s: unreadable, begun anew%s%s", path, err.text[0] ? ": " : "", err.text);
    free(text);
    return checks;
}

lp_status lp_check_cache_open(lp_check_cache **out, const char *path, const lp_env *env, lp_error *err)
{
    lp_check_cache *c = lp_calloc(1, sizeof *c);
    if (!c) return lp_fail(err, LP_E_MEMORY, "out of memory");
    if (env) c->env = *env;
    c->path = path ? lp_strdup(path) : NULL;
    c->checks = read_checks(path, env);
    if (!c->checks) c->checks = json_object();
    if (c->checks && (c->path || !path)) {
        *out = c;
        return LP_OK;
    }
    lp_check_cache_free(c);
    return lp_fail(err, LP_E_MEMORY, "out of memory");
}

void lp_check_cache_free(lp_check_cache *c)
{
    if (!c) return;
    json_decref(c->checks);
    free(c->path);
    free(c);
}

/* Every folder above the file; one that is missing afterwards shows when the file is opened. */
static void make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0777);
        *slash = '/';
    }
}

void lp_check_cache_save(lp_check_cache *c)
{
    lp_error err = {0};
    if (!c->path || !c->has_news) return;
    json_t *j = json_pack("{s:s,s:i,s:O}", "format", format, "version", VERSION, "checks", c->checks);
    char *text = j ? json_dumps(j, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
    make_folders(c->path);
    lp_status st = text ? lp_outfile_text(c->path, text, "", &err) : lp_fail(&err, LP_E_MEMORY, "out of memory");
    if (st != LP_OK) lp_log(&c->env, LP_INFO, "checks of SAEs are not remembered: %s", err.text);
    c->has_news = false;
    free(text);
    json_decref(j);
}

/* ---- one check --------------------------------------------------------------------------------------------------- */

static bool take_real(double *out, const json_t *row, const char *name)
{
    const json_t *v = json_object_get(row, name);
    *out = json_number_value(v);
    return json_is_number(v);
}

static bool take_place(const json_t *row, lp_site *site, int *layer)
{
    const char *name = json_string_value(json_object_get(row, "site"));
    int ignored;
    if (!name || lp_site_parse(name, site, &ignored, NULL) != LP_OK) return false;
    *layer = (int)json_integer_value(json_object_get(row, "layer"));
    return json_is_integer(json_object_get(row, "layer"));
}

static bool take_rival(lp_check *k, const json_t *row, const lp_sae_spot *like)
{
    lp_sae_spot *r = &k->rival;
    const json_t *out = json_object_get(row, "out");
    k->has_rival = true;
    *r = *like;
    if (!take_place(row, &r->site, &r->layer)) return false;
    r->site_out = r->site, r->layer_out = r->layer;
    if (like->is_coder && !take_place(out, &r->site_out, &r->layer_out)) return false;
    return take_real(&k->rival_l0, row, "l0") && take_real(&k->rival_fvu, row, "fvu");
}

bool lp_check_cache_get(const lp_check_cache *c, const char *key, lp_check *k, const lp_sae_spot *like)
{
    const json_t *row = json_object_get(c->checks, key), *rival = json_object_get(row, "rival");
    double rows;
    lp_check found = {0};
    lp_quality *q = &found.quality;
    if (!take_real(&rows, row, "rows") || !take_real(&q->l0, row, "l0") || !take_real(&q->fvu, row, "fvu") ||
        !take_real(&q->cosine, row, "cosine") || !(rows >= 1 && rows < 1e9))
        return false;
    if (rival && !take_rival(&found, rival, like)) return false;
    q->rows = (uint64_t)rows;
    *k = found;
    return true;
}

static json_t *rival_json(const lp_check *k)
{
    const lp_sae_spot *r = &k->rival;
    json_t *j = json_pack("{s:s,s:i,s:f,s:f}", "site", lp_site_name(r->site), "layer", r->layer, "l0", k->rival_l0,
                          "fvu", k->rival_fvu);
    if (j && r->is_coder)
        json_object_set_new(j, "out", json_pack("{s:s,s:i}", "site", lp_site_name(r->site_out), "layer", r->layer_out));
    return j;
}

/* Figures that are no numbers have no place in JSON: jansson makes no row of them, and they are measured again. */
void lp_check_cache_put(lp_check_cache *c, const char *key, const lp_check *k)
{
    const lp_quality *q = &k->quality;
    json_t *row = json_pack("{s:I,s:f,s:f,s:f}", "rows", (json_int_t)q->rows, "l0", q->l0, "fvu", q->fvu, "cosine",
                            q->cosine);
    json_t *rival = row && k->has_rival ? rival_json(k) : NULL;
    bool is_whole = row && (rival || !k->has_rival);
    if (rival && json_object_set_new(row, "rival", rival)) is_whole = false;
    if (json_object_size(c->checks) >= MOST_CHECKS) json_object_clear(c->checks);
    if (!is_whole)
        json_decref(row);
    else if (json_object_set_new(c->checks, key, row) == 0)
        c->has_news = true;
}
