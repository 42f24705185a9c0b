/* shard_open.c - see shard.h: a shard's head and where its documents begin, and nothing more: the data sets of an SAE
 * are opened when it is first asked for, so that one feature can be looked up in a thousand shards.
 */
#include "store/shard_parts.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the head ---------------------------------------------------------------------------------------------------- */

static lp_status get_text(const char **out, hid_t at, const char *name, lp_error *err)
{
    char *text;
    LP_TRY(lp_h5_get_text(&text, at, name, err));
    *out = text;
    return LP_OK;
}

static lp_status get_number(int *out, hid_t at, const char *name, int64_t low, int64_t high, lp_error *err)
{
    int64_t v;
    LP_TRY(lp_h5_get_int(&v, at, name, low, high, err));
    *out = (int)v;
    return LP_OK;
}

static lp_status read_version(hid_t file, const lp_env *env, lp_error *err)
{
    char *format = NULL;
    int64_t major, minor, complete;
    lp_status st = lp_h5_get_text(&format, file, "lapidary_format", NULL);
    if (st == LP_E_MEMORY)
        lp_fail(err, st, "out of memory");
    else if (st != LP_OK || strcmp(format, "shard") != 0)
        st = lp_fail(err, LP_E_FORMAT, "HDF5, but not a shard of ours");
    free(format);
    LP_TRY(st);
    LP_TRY(lp_h5_get_int(&major, file, "schema_major", 1, INT_MAX, err));
    LP_TRY(lp_h5_get_int(&minor, file, "schema_minor", 0, INT_MAX, err));
    if (major != LP_SHARD_MAJOR)
        return lp_fail(err, LP_E_UNSUPPORTED, "a shard of format %lld, this program reads %d; use a newer one",
                       (long long)major, LP_SHARD_MAJOR);
    if (minor > LP_SHARD_MINOR)
        lp_log(env, LP_WARN, "a shard of format %lld.%lld: what is newer than %d.%d is not read", (long long)major,
               (long long)minor, LP_SHARD_MAJOR, LP_SHARD_MINOR);
    return lp_h5_get_int(&complete, file, "complete", 1, 1, err);
}

static lp_status read_root(lp_shard_head *h, hid_t file, lp_error *err)
{
    char **text = NULL;
    int n = 0;
    LP_TRY(get_text(&h->run, file, "run", err));
    LP_TRY(get_text(&h->plan, file, "plan", err));
    LP_TRY(get_text(&h->model_hash, file, "model_hash", err));
    LP_TRY(get_text(&h->tokenizer_hash, file, "tokenizer_hash", err));
    LP_TRY(get_number(&h->number, file, "shard", 0, 999999, err));
    LP_TRY(lp_h5_get_int(&h->token_base, file, "token_base", 0, INT64_MAX, err));
    LP_TRY(get_number(&h->n_tokens, file, "n_tokens", 0, INT_MAX - 1, err));
    LP_TRY(get_number(&h->n_documents, file, "n_documents", 0, INT_MAX - 1, err));
    LP_TRY(get_number(&h->vocab, file, "vocab", 1, INT_MAX - 2, err));
    LP_TRY(get_number(&h->value_bits, file, "value_bits", 1, LP_SHARD_ALL_BITS, err));
    LP_TRY(lp_h5_get_strings(&text, &n, file, "provenance", 1, err));
    if (n == 1) h->provenance = text[0], text[0] = NULL;
    lp_h5_free_strings(text, n);
    if (n != 1) return lp_fail(err, LP_E_FORMAT, "no provenance");
    return LP_OK;
}

static lp_status get_place(lp_site *site, int *layer, hid_t at, const char *site_name, const char *layer_name,
                           lp_error *err)
{
    char *text = NULL;
    LP_TRY(get_number(layer, at, layer_name, LP_WHOLE_MODEL, INT_MAX, err));
    LP_TRY(lp_h5_get_text(&text, at, site_name, err));
    int i = 0;
    while (i < LP_N_SITES && strcmp(lp_site_name((lp_site)i), text) != 0) i++;
    *site = (lp_site)i;
    lp_status st = i < LP_N_SITES ? LP_OK : lp_fail(err, LP_E_FORMAT, "no site is called %s", text);
    free(text);
    return st;
}

static lp_status read_sae(lp_shard_sae *s, hid_t group, int n_tokens, lp_error *err)
{
    int64_t shape[2], nnz;
    LP_TRY(get_text(&s->name, group, "name", err));
    LP_TRY(get_text(&s->hash, group, "hash", err));
    LP_TRY(get_place(&s->spot.site, &s->spot.layer, group, "site", "layer", err));
    s->spot.is_coder = H5Aexists(group, "site_out") > 0;
    if (s->spot.is_coder)
        LP_TRY(get_place(&s->spot.site_out, &s->spot.layer_out, group, "site_out", "layer_out", err));
    else
        s->spot.site_out = s->spot.site, s->spot.layer_out = s->spot.layer;
    LP_TRY(lp_h5_get_ints(shape, group, "shape", 2, err));
    if (shape[0] != n_tokens || shape[1] < 1 || shape[1] > LP_SHARD_WIDTH)
        return lp_fail(err, LP_E_FORMAT, "shape is [%lld, %lld] with %d tokens", (long long)shape[0],
                       (long long)shape[1], n_tokens);
    s->d_sae = (int)shape[1];
    LP_TRY(get_number(&s->d_out, group, "d_out", 1, LP_SHARD_WIDTH, err));
    LP_TRY(lp_h5_get_int(&nnz, group, "nnz", 0, INT32_MAX, err));
    s->n_values = (uint64_t)nnz;
    hid_t recon = -1;
    LP_TRY(lp_h5_open_group(&recon, group, "recon", err));
    s->has_sum = lp_h5_has(recon, "sum");
    lp_h5_close_group(&recon);
    return LP_OK;
}

/* The places listed for `what`: yours, lp_h5_free_strings. */
static lp_status get_contents(char ***path, int *n, const lp_shard *s, const char *what, lp_error *err)
{
    hid_t group = -1;
    *path = NULL, *n = 0;
    LP_TRY(lp_h5_open_group(&group, s->file, "contents", err));
    lp_status st = lp_h5_get_strings(path, n, group, what, LP_SHARD_SPOTS, err);
    lp_h5_close_group(&group);
    return st;
}

static lp_status read_saes(lp_shard *s, lp_error *err)
{
    char **path = NULL;
    int n = 0;
    LP_TRY(get_contents(&path, &n, s, "sae", err));
    lp_shard_sae *saes = lp_calloc((size_t)n + 1, sizeof *saes);
    s->saes = lp_calloc((size_t)n + 1, sizeof *s->saes);
    s->head.saes = saes;
    lp_status st = saes && s->saes ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; i < n && st == LP_OK; i++) {
        hid_t group = -1;
        s->head.n_saes = i + 1;
        st = lp_h5_open_group(&group, s->file, path[i], err);
        if (st == LP_OK && (st = read_sae(&saes[i], group, s->head.n_tokens, err)) != LP_OK)
            lp_prefix(err, st, path[i]);
        lp_h5_close_group(&group);
        if (st == LP_OK && strcmp(lp_shard_sae_path(&saes[i]).text, path[i]) != 0)
            st = lp_fail(err, LP_E_FORMAT, "%s says it is %s", path[i], lp_shard_sae_path(&saes[i]).text);
    }
    lp_h5_free_strings(path, n);
    return st;
}

/* "layers/3/resid_post/dense": the path says where, the data set what. */
static lp_status read_dense_site(lp_shard_dense *d, const lp_shard *s, const char *path, lp_error *err)
{
    char site[64] = "", rest[16] = "", values[LP_SHARD_PATH];
    d->layer = LP_WHOLE_MODEL;
    if (sscanf(path, "layers/%d/%63[a-z_]/%15s", &d->layer, site, rest) != 3)
        sscanf(path, "model/%63[a-z_]/%15s", site, rest);
    int i = 0;
    while (i < LP_N_SITES && strcmp(lp_site_name((lp_site)i), site) != 0) i++;
    d->site = (lp_site)i;
    if (i == LP_N_SITES || strcmp(lp_shard_dense_path(d).text, path) != 0)
        return lp_fail(err, LP_E_FORMAT, "%s is no dense site", path);
    snprintf(values, sizeof values, "%s/values", path);
    static const lp_dtype types[] = {LP_F32, LP_F16, LP_BF16};
    hid_t group = -1;
    LP_TRY(lp_h5_open_group(&group, s->file, path, err));
    hid_t set = lp_h5_has(group, "values") ? H5Dopen2(group, "values", H5P_DEFAULT) : -1, space = H5Dget_space(set);
    hsize_t dims[2] = {0, 0};
    int rank = H5Sget_simple_extent_ndims(space);
    if (rank == 2) H5Sget_simple_extent_dims(space, dims, NULL);
    H5Sclose(space), H5Dclose(set);
    lp_h5_close_group(&group);
    if (rank != 2 || dims[1] < 1 || dims[1] > LP_SHARD_WIDTH)
        return lp_fail(err, LP_E_FORMAT, "%s holds no rows", values);
    d->width = (int)dims[1];
    for (i = 0; i < 3; i++) {
        lp_h5_set x;
        d->type = types[i];
        if (lp_h5_set_open(&x, s->file, values, lp_shard_dense_type(d->type), (uint64_t)s->head.n_tokens, d->width,
                           err) != LP_OK)
            continue;
        lp_h5_set_close(&x);
        return LP_OK;
    }
    return LP_E_FORMAT;
}

static lp_status read_dense(lp_shard *s, lp_error *err)
{
    char **path = NULL;
    int n = 0;
    LP_TRY(get_contents(&path, &n, s, "dense", err));
    lp_shard_dense *dense = lp_calloc((size_t)n + 1, sizeof *dense);
    s->head.dense = dense, s->head.n_dense = dense ? n : 0;
    lp_status st = dense ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; i < n && st == LP_OK; i++) st = read_dense_site(&dense[i], s, path[i], err);
    lp_h5_free_strings(path, n);
    return st;
}

static lp_status read_token_ptr(lp_shard *s, lp_error *err)
{
    size_t n = (size_t)s->head.n_documents;
    lp_h5_set set;
    LP_TRY(lp_h5_set_open(&set, s->file, "documents/token_ptr", LP_H5_I64, n + 1, 0, err));
    int64_t *at = lp_calloc(n + 1, sizeof *at);
    s->token_ptr = lp_calloc(n + 1, sizeof *s->token_ptr);
    lp_status st = at && s->token_ptr ? lp_h5_set_read(&set, 0, n + 1, at, err)
                                      : lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_h5_set_close(&set);
    for (size_t i = 0; i <= n && st == LP_OK; i++) {
        int64_t low = i ? at[i - 1] : 0;
        if (at[i] < low || at[i] > s->head.n_tokens || (i == 0 && at[i]) || (i == n && at[i] != s->head.n_tokens))
            st = lp_fail(err, LP_E_FORMAT, "documents/token_ptr: %lld at %zu, of %d tokens", (long long)at[i], i,
                         s->head.n_tokens);
        s->token_ptr[i] = (int)at[i];
    }
    free(at);
    return st;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static lp_status read_all(lp_shard *s, const lp_env *env, lp_error *err)
{
    LP_TRY(read_version(s->file, env, err));
    LP_TRY(read_root(&s->head, s->file, err));
    LP_TRY(read_saes(s, err));
    LP_TRY(read_dense(s, err));
    LP_TRY(read_token_ptr(s, err));
    hid_t tokens = -1;
    LP_TRY(lp_h5_open_group(&tokens, s->file, "tokens", err));
    s->head.has_logprob = lp_h5_has(tokens, "logprob");
    lp_h5_close_group(&tokens);
    if (lp_shard_head_check(&s->head, err) != LP_OK) return err ? (err->status = LP_E_FORMAT) : LP_E_FORMAT;
    return LP_OK;
}

lp_status lp_shard_open_locked(lp_shard **out, const char *path, const lp_env *env, lp_error *err)
{
    *out = NULL;
    lp_shard *s = lp_calloc(1, sizeof *s);
    if (!s) return lp_fail(err, LP_E_MEMORY, "out of memory");
    s->file = -1;
    s->path = lp_strdup(path);
    s->kept = lp_calloc(LP_SHARD_KEPT, sizeof *s->kept);
    lp_status st = s->path && s->kept ? lp_h5_open(&s->file, path, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = read_all(s, env, err);
    if (st != LP_OK) lp_prefix(err, st, path);
    if (st == LP_OK)
        *out = s;
    else
        lp_shard_close_locked(s);
    return st;
}

lp_status lp_shard_open(lp_shard **out, const char *path, lp_shard_trust trust, const lp_env *env, lp_error *err)
{
    *out = NULL;
    if (!lp_is_file(path)) return lp_fail(err, LP_E_NOT_FOUND, "%s: no such file", path);
    if (trust == LP_SHARD_HASHED) LP_TRY(lp_shard_check_hash(path, NULL, env, err));
    lp_h5_lock();
    lp_status st = lp_shard_open_locked(out, path, env, err);
    lp_h5_unlock();
    return st;
}

void lp_shard_close_locked(lp_shard *s)
{
    if (!s) return;
    for (int i = 0; s->saes && i < s->head.n_saes; i++) lp_shard_sets_close(&s->saes[i]);
    for (int i = 0; s->kept && i < LP_SHARD_KEPT; i++)
        if (s->kept[i].name) lp_h5_set_close(&s->kept[i].set);
    lp_h5_close(&s->file, NULL);
    lp_shard_head_free(&s->head);
    free(s->path), free(s->token_ptr), free(s->saes), free(s->kept), free(s);
}

void lp_shard_close(lp_shard *s)
{
    lp_h5_lock();
    lp_shard_close_locked(s);
    lp_h5_unlock();
}
