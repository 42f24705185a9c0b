/* shard_read.c - see shard.h: what is asked of an open shard.
 *
 * What is read is checked before anybody counts on it: a row is inside the shard, a feature inside its SAE, both
 * ascending, values finite and above 0.
 */
#include "core/quant.h"
#include "store/shard_parts.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROW(array, room, need) lp_grow((void **)&(array), &(room), (size_t)(need), sizeof *(array))

/* Every public function: take the lock, do it, put the file's name before what went wrong. */
static lp_status leave(const lp_shard *s, lp_status st, lp_error *err)
{
    lp_h5_unlock();
    return st < 0 ? lp_prefix(err, st, s->path) : st;
}

/* ---- the head ---------------------------------------------------------------------------------------------------- */

const lp_shard_head *lp_shard_get_head(const lp_shard *s)
{
    return &s->head;
}

int lp_shard_find_sae(const lp_shard *s, const char *name)
{
    for (int i = 0; i < s->head.n_saes; i++)
        if (strcmp(s->head.saes[i].name, name) == 0 || strcmp(s->head.saes[i].hash, name) == 0) return i;
    return -1;
}

int lp_shard_find_dense(const lp_shard *s, lp_site site, int layer)
{
    for (int i = 0; i < s->head.n_dense; i++)
        if (s->head.dense[i].site == site && s->head.dense[i].layer == layer) return i;
    return -1;
}

/* ---- ranges ------------------------------------------------------------------------------------------------------ */

static lp_status check_range(const char *what, int first, int n, int of, lp_error *err)
{
    if (first >= 0 && n >= 0 && first <= of - n) return LP_OK;
    return lp_fail(err, LP_E_RANGE, "%s %d to %lld of %d", what, first, (long long)first + n - 1, of);
}

static lp_status check_sae(const lp_shard *s, int sae, lp_error *err)
{
    return check_range("SAE", sae, 1, s->head.n_saes, err);
}

/* Rows of a data set of `of` rows; out NULL: not wanted. */
static lp_status read_part(hid_t at, const char *name, lp_h5_type t, int width, int of, int first, int n, void *out,
                           lp_error *err)
{
    return lp_h5_get_part(out, at, name, t, (uint64_t)of, width, (uint64_t)first, (uint64_t)n, err);
}

/* A data set of tokens or documents, opened the first time. */
static lp_status kept(lp_h5_set **out, const lp_shard *s, const char *name, lp_h5_type t, uint64_t of, int width,
                      lp_error *err)
{
    int i = 0;
    while (i < LP_SHARD_KEPT && s->kept[i].name && strcmp(s->kept[i].name, name) != 0) i++;
    assert(i < LP_SHARD_KEPT);
    *out = &s->kept[i].set;
    if (s->kept[i].name) return LP_OK;
    LP_TRY(lp_h5_set_open(*out, s->file, name, t, of, width, err));
    s->kept[i].name = name;
    return LP_OK;
}

/* Rows of it; out NULL: not wanted. */
static lp_status read_kept(const lp_shard *s, const char *name, lp_h5_type t, int width, int of, int first, int n,
                           void *out, lp_error *err)
{
    lp_h5_set *set;
    if (!out) return LP_OK;
    LP_TRY(kept(&set, s, name, t, (uint64_t)of, width, err));
    lp_status st = lp_h5_set_read(set, (uint64_t)first, (uint64_t)n, out, err);
    return st < 0 ? lp_prefix(err, st, name) : st;
}

/* set[at] and set[at + 1], as the bounds of a part of `of`. */
static lp_status read_bounds(int64_t out[2], const lp_h5_set *set, uint64_t at, uint64_t of, lp_error *err)
{
    LP_TRY(lp_h5_set_read(set, at, 2, out, err));
    if (out[0] >= 0 && out[0] <= out[1] && (uint64_t)out[1] <= of) return LP_OK;
    return lp_fail(err, LP_E_FORMAT, "pointers %lld and %lld, of %llu", (long long)out[0], (long long)out[1],
                   (unsigned long long)of);
}

static lp_status check_ascending(const int *x, size_t n, int of, lp_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (x[i] < 0 || x[i] >= of || (i && x[i] <= x[i - 1]))
            return lp_fail(err, LP_E_FORMAT, "index %d after %d, of %d", x[i], i ? x[i - 1] : -1, of);
    return LP_OK;
}

static lp_status check_values(const float *x, size_t n, lp_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (!(x[i] > 0) || isinf(x[i])) return lp_fail(err, LP_E_FORMAT, "a value of %g", (double)x[i]);
    return LP_OK;
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

static lp_status read_tokens(const lp_shard *s, int first, int n, const lp_shard_tokens *out, lp_error *err)
{
    int of = s->head.n_tokens;
    LP_TRY(check_range("tokens", first, n, of, err));
    if (out->logprob && !s->head.has_logprob) return lp_fail(err, LP_E_NOT_FOUND, "holds no log-probabilities");
    LP_TRY(read_kept(s, "tokens/id", LP_H5_I32, 0, of, first, n, out->id, err));
    LP_TRY(read_kept(s, "tokens/doc", LP_H5_I32, 0, of, first, n, out->doc, err));
    LP_TRY(read_kept(s, "tokens/pos", LP_H5_I32, 0, of, first, n, out->pos, err));
    LP_TRY(read_kept(s, "tokens/excluded", LP_H5_U8, 0, of, first, n, out->excluded, err));
    LP_TRY(read_kept(s, "tokens/logprob", LP_H5_F32, 0, of, first, n, out->logprob, err));
    for (int i = 0; i < n; i++) {
        if (out->id && (out->id[i] < 0 || out->id[i] >= s->head.vocab))
            return lp_fail(err, LP_E_FORMAT, "token %d in row %d", out->id[i], first + i);
        if (out->doc && (out->doc[i] < 0 || out->doc[i] >= s->head.n_documents))
            return lp_fail(err, LP_E_FORMAT, "document %d in row %d", out->doc[i], first + i);
    }
    return LP_OK;
}

lp_status lp_shard_read_tokens(const lp_shard *s, int first, int n, const lp_shard_tokens *out, lp_error *err)
{
    lp_h5_lock();
    return leave(s, read_tokens(s, first, n, out, err), err);
}

void lp_shard_postings_free(lp_shard_postings *p)
{
    if (!p) return;
    free(p->row), free(p->value);
    *p = (lp_shard_postings){0};
}

static lp_status read_token(lp_shard_postings *out, const lp_shard *s, int id, lp_error *err)
{
    int64_t at[2];
    out->n = 0;
    LP_TRY(check_range("token", id, 1, s->head.vocab, err));
    lp_h5_set *ends;
    LP_TRY(kept(&ends, s, "tokens/by_id/indptr", LP_H5_I64, (uint64_t)s->head.vocab + 1, 0, err));
    LP_TRY(read_bounds(at, ends, (uint64_t)id, (uint64_t)s->head.n_tokens, err));
    size_t n = (size_t)(at[1] - at[0]);
    if (n && !GROW(out->row, out->capacity_row, n)) return lp_fail(err, LP_E_MEMORY, "out of memory");
    LP_TRY(read_kept(s, "tokens/by_id/rows", LP_H5_I32, 0, s->head.n_tokens, (int)at[0], (int)n, out->row, err));
    LP_TRY(check_ascending(out->row, n, s->head.n_tokens, err));
    out->n = n;
    return LP_OK;
}

lp_status lp_shard_read_token(lp_shard_postings *out, const lp_shard *s, int id, lp_error *err)
{
    lp_h5_lock();
    return leave(s, read_token(out, s, id, err), err);
}

/* ---- features ---------------------------------------------------------------------------------------------------- */

void lp_shard_sets_close(lp_shard_sets *x)
{
    if (!x->is_open) return;
    lp_h5_set_close(&x->indptr), lp_h5_set_close(&x->indices), lp_h5_set_close(&x->data);
    lp_h5_set_close(&x->by_indptr), lp_h5_set_close(&x->by_indices), lp_h5_set_close(&x->by_data);
    lp_h5_close_group(&x->group);
    x->is_open = false;
}

lp_status lp_shard_sets_of(lp_shard_sets **out, const lp_shard *s, int sae, lp_error *err)
{
    LP_TRY(check_sae(s, sae, err));
    lp_shard_sets *x = *out = &s->saes[sae];
    if (x->is_open) return LP_OK;
    const lp_shard_sae *about = &s->head.saes[sae];
    uint64_t n = (uint64_t)s->head.n_tokens, w = (uint64_t)about->d_sae, z = about->n_values;
    lp_shard_path path = lp_shard_sae_path(about);
    const lp_h5_set none = {.id = -1};
    *x = (lp_shard_sets){true, -1, none, none, none, none, none, none};
    lp_status st = lp_h5_open_group(&x->group, s->file, path.text, err);
    if (st == LP_OK) st = lp_h5_set_open(&x->indptr, x->group, "indptr", LP_H5_I64, n + 1, 0, err);
    if (st == LP_OK) st = lp_h5_set_open(&x->indices, x->group, "indices", LP_H5_I32, z, 0, err);
    if (st == LP_OK) st = lp_h5_set_open(&x->data, x->group, "data", LP_H5_F32, z, 0, err);
    if (st == LP_OK) st = lp_h5_set_open(&x->by_indptr, x->group, "by_feature/indptr", LP_H5_I64, w + 1, 0, err);
    if (st == LP_OK) st = lp_h5_set_open(&x->by_indices, x->group, "by_feature/indices", LP_H5_I32, z, 0, err);
    if (st == LP_OK) st = lp_h5_set_open(&x->by_data, x->group, "by_feature/data", LP_H5_F32, z, 0, err);
    if (st == LP_OK) return LP_OK;
    lp_shard_sets_close(x);
    return lp_prefix(err, st, path.text);
}

static lp_status read_feature(lp_shard_postings *out, const lp_shard *s, int sae, int feature, lp_error *err)
{
    lp_shard_sets *x;
    int64_t at[2];
    out->n = 0;
    LP_TRY(lp_shard_sets_of(&x, s, sae, err));
    LP_TRY(check_range("feature", feature, 1, s->head.saes[sae].d_sae, err));
    LP_TRY(read_bounds(at, &x->by_indptr, (uint64_t)feature, x->by_data.n, err));
    uint64_t first = (uint64_t)at[0], n = (uint64_t)(at[1] - at[0]);
    if (n > (uint64_t)s->head.n_tokens) return lp_fail(err, LP_E_FORMAT, "feature %d on more than all rows", feature);
    if (n && (!GROW(out->row, out->capacity_row, n) || !GROW(out->value, out->capacity_value, n)))
        return lp_fail(err, LP_E_MEMORY, "out of memory");
    LP_TRY(lp_h5_set_read(&x->by_indices, first, n, out->row, err));
    LP_TRY(lp_h5_set_read(&x->by_data, first, n, out->value, err));
    LP_TRY(check_ascending(out->row, n, s->head.n_tokens, err));
    LP_TRY(check_values(out->value, n, err));
    out->n = n;
    return LP_OK;
}

lp_status lp_shard_read_feature(lp_shard_postings *out, const lp_shard *s, int sae, int feature, lp_error *err)
{
    lp_h5_lock();
    return leave(s, read_feature(out, s, sae, feature, err), err);
}

/* out->start from the file's pointers, from 0. */
static lp_status read_starts(lp_features *out, const lp_h5_set *indptr, int first, int n, uint64_t *from, uint64_t z,
                             lp_error *err)
{
    _Static_assert(sizeof *out->start == sizeof(int64_t), "starts are read in place");
    if (!GROW(out->start, out->capacity_rows, n + 1)) return lp_fail(err, LP_E_MEMORY, "out of memory");
    LP_TRY(lp_h5_set_read(indptr, (uint64_t)first, (uint64_t)n + 1, out->start, err));
    *from = out->start[0];
    for (int r = 0; r <= n; r++) {
        if (out->start[r] > z || (r && out->start[r] - *from < out->start[r - 1]))
            return lp_fail(err, LP_E_FORMAT, "indptr of row %d", first + r);
        out->start[r] -= *from;
    }
    return LP_OK;
}

/* Lines first .. first + n - 1 of a compressed matrix whose other side is `of` long; stops before the line that would carry
 * it over `most` values, but not before the first. */
static lp_status read_lines(lp_features *out, const lp_h5_set sets[3], int first, int n, int of, size_t most,
                            lp_error *err)
{
    uint64_t from = 0;
    out->n_rows = 0;
    LP_TRY(read_starts(out, &sets[0], first, n, &from, sets[2].n, err));
    while (n > 1 && out->start[n] > most) n--;
    size_t z = out->start[n];
    if (z && (!GROW(out->index, out->capacity_index, z) || !GROW(out->value, out->capacity_values, z)))
        return lp_fail(err, LP_E_MEMORY, "out of memory");
    LP_TRY(lp_h5_set_read(&sets[1], from, z, out->index, err));
    LP_TRY(lp_h5_set_read(&sets[2], from, z, out->value, err));
    for (int r = 0; r < n; r++)
        LP_TRY(check_ascending(out->index + out->start[r], out->start[r + 1] - out->start[r], of, err));
    LP_TRY(check_values(out->value, z, err));
    out->n_rows = n;
    return LP_OK;
}

static lp_status read_rows(lp_features *out, const lp_shard *s, int sae, int first, int n, lp_error *err)
{
    lp_shard_sets *x;
    out->n_rows = 0;
    LP_TRY(lp_shard_sets_of(&x, s, sae, err));
    LP_TRY(check_range("rows", first, n, s->head.n_tokens, err));
    const lp_h5_set sets[] = {x->indptr, x->indices, x->data};
    return read_lines(out, sets, first, n, s->head.saes[sae].d_sae, SIZE_MAX, err);
}

lp_status lp_shard_read_rows(lp_features *out, const lp_shard *s, int sae, int first, int n, lp_error *err)
{
    lp_h5_lock();
    return leave(s, read_rows(out, s, sae, first, n, err), err);
}

static lp_status read_by_feature(lp_features *out, const lp_shard *s, int sae, int first, int n, size_t most,
                                 lp_error *err)
{
    lp_shard_sets *x;
    out->n_rows = 0;
    LP_TRY(lp_shard_sets_of(&x, s, sae, err));
    LP_TRY(check_range("features", first, n, s->head.saes[sae].d_sae, err));
    const lp_h5_set sets[] = {x->by_indptr, x->by_indices, x->by_data};
    return read_lines(out, sets, first, n, s->head.n_tokens, most, err);
}

lp_status lp_shard_read_by_feature(lp_features *out, const lp_shard *s, int sae, int first, int n, size_t most,
                                   lp_error *err)
{
    lp_h5_lock();
    return leave(s, read_by_feature(out, s, sae, first, n, most, err), err);
}

lp_status lp_shard_read_stats_locked(const lp_shard *s, int sae, int first, int n, const lp_shard_stats *out,
                                     lp_error *err)
{
    lp_shard_sets *x;
    LP_TRY(lp_shard_sets_of(&x, s, sae, err));
    int of = s->head.saes[sae].d_sae;
    LP_TRY(check_range("features", first, n, of, err));
    LP_TRY(read_part(x->group, "stats/n_active", LP_H5_I64, 0, of, first, n, out->n_active, err));
    LP_TRY(read_part(x->group, "stats/n_docs", LP_H5_I32, 0, of, first, n, out->n_docs, err));
    LP_TRY(read_part(x->group, "stats/max", LP_H5_F32, 0, of, first, n, out->max, err));
    LP_TRY(read_part(x->group, "stats/sum", LP_H5_F64, 0, of, first, n, out->sum, err));
    LP_TRY(read_part(x->group, "stats/sumsq", LP_H5_F64, 0, of, first, n, out->sumsq, err));
    return read_part(x->group, "stats/hist", LP_H5_U32, LP_SHARD_BINS, of, first, n, out->hist, err);
}

lp_status lp_shard_read_stats(const lp_shard *s, int sae, int first, int n, const lp_shard_stats *out, lp_error *err)
{
    lp_h5_lock();
    return leave(s, lp_shard_read_stats_locked(s, sae, first, n, out, err), err);
}

/* ---- reconstruction and dense values ----------------------------------------------------------------------------- */

static lp_status read_recon(const lp_shard *s, int sae, int first, int n, float *sqerr, float *norm2, lp_error *err)
{
    lp_shard_sets *x;
    int of = s->head.n_tokens;
    LP_TRY(lp_shard_sets_of(&x, s, sae, err));
    LP_TRY(check_range("rows", first, n, of, err));
    LP_TRY(read_part(x->group, "recon/sqerr", LP_H5_F32, 0, of, first, n, sqerr, err));
    return read_part(x->group, "recon/norm2", LP_H5_F32, 0, of, first, n, norm2, err);
}

lp_status lp_shard_read_recon(const lp_shard *s, int sae, int first, int n, float *sqerr, float *norm2, lp_error *err)
{
    lp_h5_lock();
    return leave(s, read_recon(s, sae, first, n, sqerr, norm2, err), err);
}

static lp_status read_sum(const lp_shard *s, int sae, double *sum, lp_error *err)
{
    lp_shard_sets *x;
    LP_TRY(lp_shard_sets_of(&x, s, sae, err));
    const lp_shard_sae *about = &s->head.saes[sae];
    if (!about->has_sum) return lp_fail(err, LP_E_NOT_FOUND, "%s: holds no sum of its rows", about->name);
    return read_part(x->group, "recon/sum", LP_H5_F64, 0, about->d_out, 0, about->d_out, sum, err);
}

lp_status lp_shard_read_sum(const lp_shard *s, int sae, double *sum, lp_error *err)
{
    lp_h5_lock();
    return leave(s, read_sum(s, sae, sum, err), err);
}

lp_status lp_shard_read_dense_locked(const lp_shard *s, int dense, int first, int n, float *out, lp_error *err)
{
    LP_TRY(check_range("dense site", dense, 1, s->head.n_dense, err));
    LP_TRY(check_range("rows", first, n, s->head.n_tokens, err));
    const lp_shard_dense *d = &s->head.dense[dense];
    char name[LP_SHARD_PATH + 8];
    snprintf(name, sizeof name, "%s/values", lp_shard_dense_path(d).text);
    size_t values = (size_t)n * (size_t)d->width;
    uint16_t *half = d->type == LP_F32 ? NULL : lp_calloc(values + 1, sizeof *half);
    if (d->type != LP_F32 && !half) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_status st = read_part(s->file, name, lp_shard_dense_type(d->type), d->width, s->head.n_tokens, first, n,
                             half ? (void *)half : out, err);
    for (size_t i = 0; half && st == LP_OK && i < values; i++)
        out[i] = d->type == LP_F16 ? lp_f16_to_f32(half[i]) : lp_bf16_to_f32(half[i]);
    free(half);
    return st;
}

lp_status lp_shard_read_dense(const lp_shard *s, int dense, int first, int n, float *out, lp_error *err)
{
    lp_h5_lock();
    return leave(s, lp_shard_read_dense_locked(s, dense, first, n, out, err), err);
}

/* ---- documents --------------------------------------------------------------------------------------------------- */

void lp_shard_document_rows(const lp_shard *s, int doc, int *first, int *n)
{
    *first = s->token_ptr[doc];
    *n = s->token_ptr[doc + 1] - *first;
}

/* Bytes of a document, with a NUL after them. */
static lp_status read_bytes(char **out, size_t *n, const lp_shard *s, const char *ptr, const char *bytes, int doc,
                            lp_error *err)
{
    int64_t at[2];
    lp_h5_set *ends, *all;
    LP_TRY(kept(&ends, s, ptr, LP_H5_I64, (uint64_t)s->head.n_documents + 1, 0, err));
    LP_TRY(kept(&all, s, bytes, LP_H5_U8, UINT64_MAX, 0, err));
    LP_TRY(read_bounds(at, ends, (uint64_t)doc, all->n, err));
    *n = (size_t)(at[1] - at[0]);
    *out = lp_calloc(*n + 1, 1);
    return *out ? lp_h5_set_read(all, (uint64_t)at[0], *n, *out, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
}

typedef struct document_memory {
    char *key, *text;
} document_memory;

static lp_status read_document(lp_shard_document *out, document_memory *m, const lp_shard *s, int doc, lp_error *err)
{
    int of = s->head.n_documents;
    uint8_t hash[16] = {0}, is_utf8 = 0;
    LP_TRY(check_range("document", doc, 1, of, err));
    LP_TRY(read_kept(s, "documents/doc_id", LP_H5_I64, 0, of, doc, 1, &out->id, err));
    LP_TRY(read_kept(s, "documents/first_token", LP_H5_I64, 0, of, doc, 1, &out->first_token, err));
    LP_TRY(read_kept(s, "documents/hash", LP_H5_U8, 16, of, doc, 1, hash, err));
    LP_TRY(read_kept(s, "documents/is_utf8", LP_H5_U8, 0, of, doc, 1, &is_utf8, err));
    LP_TRY(read_bytes(&m->key, &out->key_bytes, s, "documents/key_ptr", "documents/key", doc, err));
    LP_TRY(read_bytes(&m->text, &out->text_bytes, s, "documents/text_ptr", "documents/text", doc, err));
    out->key = m->key, out->text = m->text;
    out->is_utf8 = is_utf8 != 0;
    for (int i = 0; i < 16; i++) snprintf(out->hash + 2 * i, 3, "%02x", hash[i]);
    lp_shard_document_rows(s, doc, &out->first_row, &out->n_rows);
    return LP_OK;
}

lp_status lp_shard_read_document(lp_shard_document *out, const lp_shard *s, int doc, lp_error *err)
{
    document_memory *m = lp_calloc(1, sizeof *m);
    *out = (lp_shard_document){.memory = m};
    lp_h5_lock();
    lp_status st = m ? read_document(out, m, s, doc, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st != LP_OK) lp_shard_document_free(out);
    return leave(s, st, err);
}

void lp_shard_document_free(lp_shard_document *d)
{
    if (!d) return;
    document_memory *m = d->memory;
    if (m) free(m->key), free(m->text);
    free(m);
    *d = (lp_shard_document){0};
}
