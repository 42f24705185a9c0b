/* export_delphi.c - delphi's latent cache; see export.h.  A safetensors file is written front to back, so each split takes a
 * pass over the rows for its locations and one for its activations, and all of them one before to be counted. */
#include "core/outfile.h"
#include "core/quant.h"
#include "core/safetensors.h"
#include "store/export.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_SPLITS = 4096 };
static const float smallest = 1e-5f, largest_f16 = 65504.0f;

typedef struct split {
    int first, last; /* features, both included */
    int64_t n;
} split;

typedef struct job {
    const lp_series *s;
    const lp_delphi_options *o;
    const lp_env *env;
    split *splits;
    int n_splits;
    uint64_t dropped;
    /* the file at hand */
    const split *at;
    lp_safetensors_writer *w;
    bool is_wide;    /* U32                          */
    int64_t *tokens; /* [longest] of the window at hand */
    int64_t window;
} job;

char *lp_delphi_module(const lp_sae_spot *spot)
{
    if (spot->site == LP_RESID_POST) return lp_format("layers.%d", spot->layer);
    if (spot->site == LP_MLP_OUT) return lp_format("layers.%d.post_feedforward_layernorm", spot->layer);
    if (!lp_site_has_layer(spot->site)) return lp_strdup(lp_site_name(spot->site));
    return lp_format("layers.%d.%s", spot->layer, lp_site_name(spot->site));
}

/* ---- counting ----------------------------------------------------------------------------------------------------- */

static lp_status count(void *user, const lp_series_block *b, lp_error *err)
{
    job *j = user;
    const lp_features *f = b->features;
    for (int i = 0; i < b->n; i++) {
        int at = 0;
        for (size_t k = f->start[i]; k < f->start[i + 1]; k++) {
            while (f->index[k] > j->splits[at].last) at++;
            if (f->value[k] > largest_f16)
                return lp_fail(err, LP_E_UNSUPPORTED,
                               "feature %d is %g in document %lld at position %d, more than the f16 of delphi holds",
                               f->index[k], (double)f->value[k], (long long)b->document[i], b->pos[i]);
            if (f->value[k] > smallest)
                j->splits[at].n++;
            else
                j->dropped++;
        }
    }
    return LP_OK;
}

/* ---- the three arrays ---------------------------------------------------------------------------------------------- */

static lp_status end_window(job *j, lp_error *err)
{
    size_t n = (size_t)j->s->longest;
    lp_status st = lp_safetensors_write(j->w, j->tokens, n * sizeof *j->tokens, err);
    for (size_t i = 0; i < n; i++) j->tokens[i] = j->o->pad_id;
    return st;
}

static lp_status put_tokens(void *user, const lp_series_block *b, lp_error *err)
{
    job *j = user;
    for (int i = 0; i < b->n; i++) {
        if (b->window[i] != j->window) LP_TRY(end_window(j, err));
        j->window = b->window[i];
        j->tokens[b->column[i]] = b->id[i];
    }
    return LP_OK;
}

static lp_status put_locations(void *user, const lp_series_block *b, lp_error *err)
{
    job *j = user;
    const lp_features *f = b->features;
    for (int i = 0; i < b->n; i++)
        for (size_t k = f->start[i]; k < f->start[i + 1]; k++) {
            if (f->index[k] < j->at->first || f->index[k] > j->at->last || f->value[k] <= smallest) continue;
            uint32_t wide[3] = {(uint32_t)b->window[i], (uint32_t)b->column[i], (uint32_t)(f->index[k] - j->at->first)};
            uint16_t narrow[3] = {(uint16_t)wide[0], (uint16_t)wide[1], (uint16_t)wide[2]};
            LP_TRY(lp_safetensors_write(j->w, j->is_wide ? (void *)wide : narrow, j->is_wide ? 12 : 6, err));
        }
    return LP_OK;
}

static lp_status put_activations(void *user, const lp_series_block *b, lp_error *err)
{
    job *j = user;
    const lp_features *f = b->features;
    for (int i = 0; i < b->n; i++)
        for (size_t k = f->start[i]; k < f->start[i + 1]; k++) {
            if (f->index[k] < j->at->first || f->index[k] > j->at->last || f->value[k] <= smallest) continue;
            uint16_t half;
            lp_from_f32(LP_F16, &f->value[k], &half, 1);
            LP_TRY(lp_safetensors_write(j->w, &half, 2, err));
        }
    return LP_OK;
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

static lp_status write_arrays(job *j, lp_error *err)
{
    const lp_series *s = j->s;
    int64_t tokens[2] = {s->n_windows, s->longest}, locations[2] = {j->at->n, 3};
    j->is_wide = s->n_windows > 65536 || s->longest > 65536 || j->at->last - j->at->first > 65535;
    LP_TRY(lp_safetensors_declare_raw(j->w, "tokens", "I64", 8, 2, tokens, err));
    LP_TRY(lp_safetensors_declare_raw(j->w, "locations", j->is_wide ? "U32" : "U16", j->is_wide ? 4 : 2, 2, locations,
                                      err));
    LP_TRY(lp_safetensors_declare(j->w, "activations", LP_F16, 1, &j->at->n, err));
    LP_TRY(lp_safetensors_begin(j->w, err));
    j->window = 0;
    for (int i = 0; i < s->longest; i++) j->tokens[i] = j->o->pad_id;
    LP_TRY(lp_series_walk(s, true, put_tokens, j, "tokens", j->env, err));
    if (s->n_windows) LP_TRY(end_window(j, err));
    LP_TRY(lp_series_walk(s, false, put_locations, j, "locations", j->env, err));
    LP_TRY(lp_series_walk(s, false, put_activations, j, "activations", j->env, err));
    return lp_safetensors_end(j->w, err);
}

static lp_status write_split(job *j, const char *folder, const split *at, lp_error *err)
{
    char *path = lp_format("%s/%d_%d.safetensors", folder, at->first, at->last);
    lp_status st = path ? lp_safetensors_create(&j->w, path, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    j->at = at;
    if (st == LP_OK) st = write_arrays(j, err);
    lp_safetensors_close(j->w);
    j->w = NULL;
    free(path);
    return st;
}

/* delphi's CacheConfig and the model's name, by its keys. */
static lp_status write_config(const job *j, const char *folder, lp_error *err)
{
    const lp_series *s = j->s;
    char *path = lp_path_join(folder, "config.json"), *text = NULL;
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:I, s:i, s:s, s:s, s:s}", "dataset_repo",
                          j->o->dataset ? j->o->dataset : "", "dataset_split", "", "dataset_name", s->run,
                          "dataset_column", "text", "batch_size", 1, "cache_ctx_len", s->longest, "n_tokens",
                          (json_int_t)(s->n_windows * s->longest), "n_splits", j->n_splits, "model_name",
                          j->o->model_name ? j->o->model_name : "", "sae_hash", s->hash, "sae", s->name);
    if (o) text = json_dumps(o, JSON_INDENT(4));
    json_decref(o);
    lp_status st = path && text ? lp_outfile_text(path, text, "", err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    free(path), free(text);
    return st;
}

static lp_status write_module(job *j, const char *folder, lp_error *err)
{
    char *module = lp_delphi_module(&j->s->spot), *path = module ? lp_path_join(folder, module) : NULL;
    lp_status st = LP_OK;
    if (!path)
        st = lp_fail(err, LP_E_MEMORY, "out of memory");
    else if (mkdir(path, 0777) != 0)
        st = lp_fail(err, LP_E_IO, "%s: cannot make this folder: %s", path, strerror(errno));
    for (int i = 0; i < j->n_splits && st == LP_OK; i++) st = write_split(j, path, &j->splits[i], err);
    if (st == LP_OK) st = write_config(j, path, err);
    free(module), free(path);
    return st;
}

/* ---- the folder --------------------------------------------------------------------------------------------------- */

/* Two levels: OUT/MODULE/FILE. */
static void remove_all(const char *folder)
{
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *path = lp_path_join(folder, e->d_name);
        if (path && unlink(path) != 0) remove_all(path);
        free(path);
    }
    if (d) closedir(d);
    rmdir(folder);
}

static lp_status write_folder(job *j, const char *folder, lp_error *err)
{
    char *tmp = lp_format("%s.%ld.tmp", folder, (long)getpid());
    if (!tmp) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_status st = LP_OK;
    if (lp_is_dir(folder) || lp_is_file(folder))
        st = lp_fail(err, LP_E_IO, "%s: exists; name another folder", folder);
    else if (mkdir(tmp, 0777) != 0)
        st = lp_fail(err, LP_E_IO, "%s: cannot make this folder: %s", tmp, strerror(errno));
    else if ((st = write_module(j, tmp, err)) != LP_OK)
        remove_all(tmp);
    else if (rename(tmp, folder) != 0) {
        st = lp_fail(err, LP_E_IO, "%s: cannot write: %s", folder, strerror(errno));
        remove_all(tmp);
    }
    free(tmp);
    return st;
}

lp_status lp_export_delphi(lp_export_report *r, const lp_series *s, const char *folder, const lp_delphi_options *o,
                           const lp_env *env, lp_error *err)
{
    int n = o->n_splits ? o->n_splits : 5;
    if (n < 1 || n > MOST_SPLITS || n > s->d_sae)
        return lp_fail(err, LP_E_RANGE, "%d splits of %d features: 1 to %d", n, s->d_sae,
                       s->d_sae < MOST_SPLITS ? s->d_sae : MOST_SPLITS);
    job j = {.s = s, .o = o, .env = env, .n_splits = n};
    j.splits = lp_calloc((size_t)n, sizeof *j.splits);
    j.tokens = lp_calloc((size_t)s->longest + 1, sizeof *j.tokens);
    lp_status st = j.splits && j.tokens ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; i < n && st == LP_OK; i++)
        j.splits[i] = (split){(int)((int64_t)s->d_sae * i / n), (int)((int64_t)s->d_sae * (i + 1) / n) - 1, 0};
    if (st == LP_OK) st = lp_series_walk(s, false, count, &j, "counting", env, err);
    if (st == LP_OK) st = write_folder(&j, folder, err);
    if (st == LP_OK && r) *r = (lp_export_report){s->n_rows, s->n_windows, s->n_values - j.dropped, j.dropped};
    free(j.splits), free(j.tokens);
    return st;
}
