/* run_folder.c - see run_folder.h. */
#include "store/run_folder.h"

#include "core/outfile.h"
#include "core/quant.h"
#include "sae/hash.h"
#include "sae/run.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RUN_LIMIT = 16 << 20 };

/* ---- what it was made with --------------------------------------------------------------------------------------- */

static json_t *sae_json(const lp_sae *s)
{
    return json_pack("{s:s,s:s,s:i,s:s,s:s}", "name", s->name, "hash", s->hash, "layer", s->spot.layer, "site",
                     lp_site_name(s->spot.site), "type", lp_dtype_name(s->decoder_type));
}

static json_t *dense_json(const lp_shard_dense *d)
{
    return json_pack("{s:i,s:s,s:s,s:i}", "layer", d->layer, "site", lp_site_name(d->site), "type",
                     lp_dtype_name(d->type), "width", d->width);
}

/* Everything the numbers depend on and nothing else; NULL: out of memory. */
static json_t *about_json(const lp_run_about *a, const char *model_hash)
{
    json_t *saes = json_array(), *dense = json_array();
    int bad = !saes || !dense;
    for (int i = 0; i < a->n_saes; i++) bad |= json_array_append_new(saes, sae_json(a->saes[i]));
    for (int i = 0; i < a->n_dense; i++) bad |= json_array_append_new(dense, dense_json(&a->dense[i]));
    const lp_config *c = &a->m->config;
    json_t *model = json_pack("{s:s,s:s,s:i,s:i,s:i}", "family", lp_config_family(c), "hash", model_hash, "n_layers",
                              c->n_layers, "d_model", c->d_model, "vocab", c->vocab);
    if (bad || !model) {
        json_decref(saes), json_decref(dense), json_decref(model);
        return NULL;
    }
    return json_pack("{s:s,s:s,s:o,s:b,s:o,s:s,s:o,s:s,s:i}", "format", "lapidary-run", "arithmetic",
                     a->arithmetic == LP_FAST ? "fast" : "exact", "dense", dense, "logprob", a->has_logprob, "model",
                     model, "plan", a->plan->hash, "saes", saes, "tokenizer", a->plan->tokenizer, "value_bits",
                     a->value_bits);
}

/* ---- another's, not finished ------------------------------------------------------------------------------------- */

static const char *text_of(json_t *o, const char *key, const char *inner)
{
    json_t *v = json_object_get(o, key);
    const char *s = json_string_value(inner ? json_object_get(v, inner) : v);
    return s ? s : "?";
}

/* Names the first thing in which two runs differ. */
static lp_status differ(const char *path, int done, json_t *theirs, json_t *ours, lp_error *err)
{
    static const struct {
        const char *key, *inner, *what;
    } parts[] = {{"model", "hash", "model"},         {"tokenizer", NULL, "tokenizer"},
                 {"arithmetic", NULL, "arithmetic"}, {"plan", NULL, "corpus or cutting"},
                 {"saes", NULL, "list of SAEs"},     {"dense", NULL, "list of dense sites"},
                 {"logprob", NULL, "--logprob"},     {"value_bits", NULL, "--value-bits"}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        json_t *a = json_object_get(theirs, parts[i].key), *b = json_object_get(ours, parts[i].key);
        if (json_equal(a, b)) continue;
        char which[120] = "";
        if (json_is_string(parts[i].inner ? json_object_get(a, parts[i].inner) : a))
            snprintf(which, sizeof which, " (%.40s there, %.40s now)", text_of(theirs, parts[i].key, parts[i].inner),
                     text_of(ours, parts[i].key, parts[i].inner));
        return lp_fail(err, LP_E_RANGE,
                       "%s is not finished (%d shards) and has another %s%s; give it what it had, or begin a new run "
                       "beside it with --new",
                       path, done, parts[i].what, which);
    }
    return LP_OK;
}

/* Sealed shards in a folder, and how many there are to be. */
static int count_shards(const char *path)
{
    int n = 0;
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        n += strncmp(e->d_name, "shard-", 6) == 0 && lp_ends_in(e->d_name, ".h5");
    if (d) closedir(d);
    return n;
}

static lp_status check_other(const char *path, json_t *ours, const char *corpus, lp_error *err)
{
    char *file = lp_path_join(path, "run.json"), *text = NULL;
    size_t n;
    lp_status st = LP_OK;
    json_t *o = NULL;
    if (file && lp_read_file(&text, &n, file, RUN_LIMIT, NULL) == LP_OK) o = json_loadb(text, n, 0, NULL);
    json_t *theirs = json_object_get(o, "about");
    int done = count_shards(path);
    if (done > 0 && theirs && strcmp(text_of(o, "corpus", NULL), corpus) == 0 &&
        done < json_integer_value(json_object_get(o, "shards")))
        st = differ(path, done, theirs, ours, err);
    json_decref(o);
    free(file), free(text);
    return st;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

lp_status lp_run_list(char ***names, size_t *n, const char *store, lp_error *err)
{
    char *runs = lp_path_join(store, "runs");
    size_t room = 0;
    lp_status st = runs ? LP_OK : LP_E_MEMORY;
    DIR *d = runs ? opendir(runs) : NULL;
    *names = NULL, *n = 0;
    for (struct dirent *e; st == LP_OK && d && (e = readdir(d));) {
        if (e->d_name[0] == '.' || strlen(e->d_name) != 32) continue;
        if (!lp_grow((void **)names, &room, *n + 1, sizeof **names) || !((*names)[*n] = lp_strdup(e->d_name)))
            st = LP_E_MEMORY;
        else
            ++*n;
    }
    if (d) closedir(d);
    free(runs);
    if (*n) qsort(*names, *n, sizeof **names, by_name);
    if (st == LP_OK) return LP_OK;
    for (size_t i = 0; i < *n; i++) free((*names)[i]);
    free(*names);
    *names = NULL, *n = 0;
    return lp_fail(err, st, "out of memory");
}

static lp_status check_others(const lp_run_folder *r, const char *store, json_t *ours, const char *corpus,
                              lp_error *err)
{
    char **names;
    size_t n;
    LP_TRY(lp_run_list(&names, &n, store, err));
    lp_status st = LP_OK;
    for (size_t i = 0; i < n; i++) {
        char *path = st == LP_OK && strcmp(names[i], r->run) != 0 ? lp_format("%s/runs/%s", store, names[i]) : NULL;
        if (path) st = check_other(path, ours, corpus, err);
        free(path), free(names[i]);
    }
    free(names);
    return st;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static lp_status make_folder(const char *path, lp_error *err)
{
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && lp_is_dir(path))) return LP_OK;
    return lp_fail(err, LP_E_IO, "%s: cannot make this folder: %s", path,
                   errno == EEXIST ? "something else is there" : strerror(errno));
}

static lp_status make_folders(const lp_run_folder *r, const char *store, lp_error *err)
{
    char *runs = lp_path_join(store, "runs");
    lp_status st = runs ? make_folder(store, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = make_folder(runs, err);
    if (st == LP_OK) st = make_folder(r->path, err);
    free(runs);
    return st;
}

static lp_status write_about(const lp_run_folder *r, const lp_run_about *a, json_t *about, lp_error *err)
{
    char *path = lp_path_join(r->path, "run.json");
    json_t *o = json_pack("{s:s,s:O,s:s,s:I,s:I,s:I}", "run", r->run, "about", about, "corpus", a->corpus, "shards",
                          (json_int_t)a->plan->n_shards, "tokens", (json_int_t)a->plan->n_tokens, "documents",
                          (json_int_t)a->plan->n_documents);
    char *text = o ? json_dumps(o, JSON_SORT_KEYS | JSON_INDENT(1)) : NULL;
    lp_status st = path && text ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK && !lp_is_file(path)) st = lp_outfile_text(path, text, "\n", err);
    json_decref(o);
    free(text), free(path);
    return st;
}

static lp_status write_plan(const lp_run_folder *r, const lp_run_about *a, lp_error *err)
{
    char *path = lp_path_join(r->path, "plan.jsonl");
    lp_status st = path ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK && !lp_is_file(path)) st = lp_plan_write(a->plan, path, err);
    free(path);
    return st;
}

static lp_status open_run(lp_run_folder *r, const char *store, const lp_run_about *a, json_t *about, bool starts_anew,
                          lp_error *err)
{
    r->provenance = json_dumps(about, JSON_SORT_KEYS | JSON_COMPACT);
    if (!r->provenance) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_hash_text(r->run, XXH3_128bits(r->provenance, strlen(r->provenance)));
    r->path = lp_format("%s/runs/%s", store, r->run);
    if (!r->path) return lp_fail(err, LP_E_MEMORY, "out of memory");
    if (!starts_anew) LP_TRY(check_others(r, store, about, a->corpus, err));
    LP_TRY(make_folders(r, store, err));
    LP_TRY(write_plan(r, a, err)); /* first: where run.json is, all is there */
    return write_about(r, a, about, err);
}

lp_status lp_run_open(lp_run_folder *out, const char *store, const lp_run_about *a, bool starts_anew, lp_error *err)
{
    *out = (lp_run_folder){0};
    LP_TRY(lp_model_hash(out->model_hash, a->m, err));
    json_t *about = about_json(a, out->model_hash);
    lp_status st = about ? open_run(out, store, a, about, starts_anew, err)
                         : lp_fail(err, LP_E_MEMORY, "out of memory");
    json_decref(about);
    if (st != LP_OK) lp_run_close(out);
    return st;
}

void lp_run_close(lp_run_folder *r)
{
    free(r->path), free(r->provenance);
    *r = (lp_run_folder){0};
}

/* ---- shards ------------------------------------------------------------------------------------------------------ */

char *lp_run_shard(const lp_run_folder *r, size_t number)
{
    return lp_format("%s/shard-%06zu.h5", r->path, number);
}

/* quarantine/NAME, or NAME.2, ...: nothing there is written over. */
lp_status lp_run_put_away(const char *run, const char *path, size_t number, const char *why, const lp_env *env,
                          lp_error *err)
{
    char *folder = lp_path_join(run, "quarantine"), *side = lp_format("%s.xxh3", path), *to = NULL;
    lp_status st = folder && side ? make_folder(folder, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 1; st == LP_OK; i++) {
        free(to);
        to = lp_format("%s/shard-%06zu.h5.%d", folder, number, i);
        if (!to || access(to, F_OK) != 0) break;
    }
    if (st == LP_OK && !to) st = lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK && rename(path, to) != 0)
        st = lp_fail(err, LP_E_IO, "%s: cannot be moved to %s: %s", path, to, strerror(errno));
    if (st == LP_OK) {
        unlink(side);
        lp_log(env, LP_WARN, "%s: %s; moved to %s, it will be made again", path, why, to);
    }
    free(folder), free(side), free(to);
    return st;
}

lp_status lp_run_has_shard(bool *has, const lp_run_folder *r, size_t number, int *n_quarantined, const lp_env *env,
                           lp_error *err)
{
    char want[33] = "", got[33] = "", *path = lp_run_shard(r, number);
    lp_error why = {0};
    lp_env quiet = env ? *env : (lp_env){0};
    quiet.progress = NULL;
    *has = false;
    if (!path) return lp_fail(err, LP_E_MEMORY, "out of memory");
    if (access(path, F_OK) != 0) {
        free(path);
        return LP_OK;
    }
    lp_status st = lp_shard_side_hash(want, path, &why);
    if (st == LP_OK) st = lp_file_hash(got, path, &quiet, &why);
    if (st == LP_OK && strcmp(want, got) != 0)
        st = lp_fail(&why, LP_E_FORMAT, "its bytes are not those that were sealed");
    if (st == LP_OK) {
        *has = true;
    } else if (st < 0 && st != LP_E_MEMORY) {
        st = lp_run_put_away(r->path, path, number, why.text, env, err);
        if (st == LP_OK) ++*n_quarantined;
    } else if (st == LP_E_MEMORY) {
        st = lp_fail(err, st, "out of memory");
    }
    free(path);
    return st;
}
