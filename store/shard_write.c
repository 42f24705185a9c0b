/* shard_write.c - see shard.h: documents and rows go in.
 *
 * The bytes of a shard must not show how its rows were cut into blocks.  So tokens and documents, which are small,
 * wait in memory for the seal; dense values have their place beforehand; and what SAEs made goes to the columns row by
 * row, one SAE after the other within a row: the chunks then come to the file in one order, whatever the blocks were.
 *
 * Memory: five chunks of 64 KiB per SAE (8.5 MB for 26), 17 bytes per token, the text.
 */
#include "core/quant.h"
#include "core/utf8.h"
#include "sae/hash.h"
#include "store/shard_writer.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { TEXT_LIMIT = 1 << 30 };

/* ---- beginning --------------------------------------------------------------------------------------------------- */

static lp_status look_for_room(const char *folder, uint64_t expected, lp_error *err)
{
    struct statvfs v;
    if (statvfs(folder, &v) != 0) return lp_fail(err, LP_E_IO, "%s: cannot write: %s", folder, strerror(errno));
    uint64_t has = (uint64_t)v.f_bavail * v.f_frsize, wants = expected + expected / 10 * 3;
    if (wants <= has) return LP_OK;
    return lp_fail(err, LP_E_IO, "%s: %s are free, a shard wants %s", folder, lp_amount_of(has).text,
                   lp_amount_of(wants).text);
}

static lp_status name_files(lp_shard_writer *w, const char *folder, lp_error *err)
{
    char host[LP_SHARD_HOST];
    lp_shard_host(host);
    w->folder = lp_strdup(folder);
    w->path = lp_format("%s/shard-%06d.h5", folder, w->head.number);
    w->part = lp_format("%s/.shard-%06d.h5.%s.%ld.part", folder, w->head.number, host, (long)getpid());
    return w->folder && w->path && w->part ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
}

static lp_status begin_sae(lp_shard_writer *w, int i, lp_error *err)
{
    static const int64_t zero = 0;
    const lp_shard_sae *s = &w->head.saes[i];
    lp_shard_stream *x = &w->saes[i];
    hid_t recon = -1;
    x->sum = s->has_sum ? lp_calloc((size_t)s->d_out, sizeof *x->sum) : NULL;
    if (s->has_sum && !x->sum) return lp_fail(err, LP_E_MEMORY, "out of memory");
    LP_TRY(lp_h5_make_group(&x->group, w->file, lp_shard_sae_path(s).text, err));
    LP_TRY(lp_h5_column_begin(&x->indptr, x->group, "indptr", LP_H5_I64, 0, err));
    LP_TRY(lp_h5_column_begin(&x->indices, x->group, "indices", LP_H5_I32, 0, err));
    LP_TRY(lp_h5_column_begin(&x->data, x->group, "data", LP_H5_F32, 0, err));
    LP_TRY(lp_h5_make_group(&recon, x->group, "recon", err));
    lp_status st = lp_h5_column_begin(&x->sqerr, recon, "sqerr", LP_H5_F32, 0, err);
    if (st == LP_OK) st = lp_h5_column_begin(&x->norm2, recon, "norm2", LP_H5_F32, 0, err);
    lp_h5_close_group(&recon);
    LP_TRY(st);
    return lp_h5_column_put(&x->indptr, &zero, 1, &w->deflater, err);
}

lp_status lp_shard_put_dense(hid_t set, const lp_shard_dense *d, lp_error *err)
{
    if (d->type != LP_BF16) return LP_OK;
    LP_TRY(lp_h5_put_text(set, "dtype", "bfloat16", err));
    return lp_h5_put_text(set, "decode", "(x.astype('u4') << 16).view('f4')", err);
}

static lp_status begin_dense(lp_shard_writer *w, int i, lp_error *err)
{
    const lp_shard_dense *d = &w->head.dense[i];
    hid_t group = -1;
    LP_TRY(lp_h5_make_group(&group, w->file, lp_shard_dense_path(d).text, err));
    lp_status st = lp_h5_make_plain(&w->dense[i], group, "values", lp_shard_dense_type(d->type),
                                    (uint64_t)w->head.n_tokens, d->width, err);
    if (st == LP_OK) st = lp_shard_put_dense(w->dense[i], d, err);
    lp_h5_close_group(&group);
    return st;
}

static lp_status begin_file(lp_shard_writer *w, lp_error *err)
{
    LP_TRY(lp_h5_deflater_new(&w->deflater, err));
    if (access(w->part, F_OK) == 0) return lp_fail(err, LP_E_IO, "is there: left by a kill, or another's; sweep first");
    w->owns_part = true;
    LP_TRY(lp_h5_create(&w->file, w->part, err));
    for (int i = 0; i < w->head.n_saes; i++) LP_TRY(begin_sae(w, i, err));
    for (int i = 0; i < w->head.n_dense; i++) LP_TRY(begin_dense(w, i, err));
    return LP_OK;
}

lp_status lp_shard_begin(lp_shard_writer **out, const char *folder, const lp_shard_head *h, uint64_t expected_bytes,
                         const lp_env *env, lp_error *err)
{
    *out = NULL;
    LP_TRY(lp_shard_head_check(h, err));
    LP_TRY(look_for_room(folder, expected_bytes, err));
    lp_shard_writer *w = lp_calloc(1, sizeof *w);
    if (!w) return lp_fail(err, LP_E_MEMORY, "out of memory");
    w->file = -1;
    if (env) w->env = *env;
    lp_status st = lp_shard_head_copy(&w->head, h, err);
    if (st == LP_OK) st = name_files(w, folder, err);
    w->saes = lp_calloc((size_t)h->n_saes + 1, sizeof *w->saes);
    w->dense = lp_calloc((size_t)h->n_dense + 1, sizeof *w->dense);
    if (st == LP_OK && !(w->saes && w->dense)) st = lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; w->saes && i < h->n_saes; i++) {
        lp_h5_column none = LP_H5_NO_COLUMN;
        w->saes[i] = (lp_shard_stream){-1, none, none, none, none, none, NULL, 0};
    }
    for (int i = 0; w->dense && i < h->n_dense; i++) w->dense[i] = -1;
    lp_h5_lock();
    if (st == LP_OK && (st = begin_file(w, err)) != LP_OK) lp_prefix(err, st, w->part);
    lp_h5_unlock();
    if (st == LP_OK)
        *out = w;
    else
        lp_shard_writer_close(w);
    return st;
}

static void close_stream(lp_shard_stream *x)
{
    lp_h5_column_close(&x->indptr), lp_h5_column_close(&x->indices), lp_h5_column_close(&x->data);
    lp_h5_column_close(&x->sqerr), lp_h5_column_close(&x->norm2);
    lp_h5_close_group(&x->group);
    free(x->sum);
}

void lp_shard_writer_close(lp_shard_writer *w)
{
    if (!w) return;
    lp_h5_lock();
    for (int i = 0; w->saes && i < w->head.n_saes; i++) close_stream(&w->saes[i]);
    for (int i = 0; w->dense && i < w->head.n_dense; i++) lp_h5_close_plain(&w->dense[i], NULL);
    lp_h5_close(&w->file, NULL);
    lp_h5_unlock();
    if (w->owns_part) unlink(w->part);
    lp_h5_deflater_free(&w->deflater);
    lp_shard_head_free(&w->head);
    free(w->folder), free(w->part), free(w->path);
    free(w->id), free(w->doc), free(w->pos), free(w->excluded), free(w->logprob);
    free(w->doc_id), free(w->first_token), free(w->hash), free(w->is_utf8);
    free(w->text.bytes), free(w->text.end), free(w->key.bytes), free(w->key.end);
    free(w->saes), free(w->dense), free(w->rounded), free(w->packed);
    free(w);
}

/* ---- documents --------------------------------------------------------------------------------------------------- */

#define GROW(array, room, need) lp_grow((void **)&(array), &(room), (size_t)(need), sizeof *(array))

static bool add_bytes(lp_shard_bytes *b, int documents, const char *s, size_t n)
{
    if (!GROW(b->end, b->capacity_end, documents + 2) || (n && !GROW(b->bytes, b->capacity, b->n + n))) return false;
    if (n) memcpy(b->bytes + b->n, s, n);
    b->n += n;
    b->end[0] = 0;
    b->end[documents + 1] = (int64_t)b->n;
    return true;
}

static bool is_utf8(const char *s, size_t n)
{
    while (n) {
        int k = lp_utf8_next(s, n);
        if (k <= 0) return false;
        s += k, n -= (size_t)k;
    }
    return true;
}

static void hash_bytes(uint8_t out[16], const lp_shard_document *d)
{
    XXH128_canonical_t c;
    if (!d->hash[0]) {
        XXH128_canonicalFromHash(&c, XXH3_128bits(d->text_bytes ? d->text : "", d->text_bytes));
        memcpy(out, c.digest, 16);
        return;
    }
    for (int i = 0; i < 16; i++) {
        char pair[3] = {d->hash[2 * i], d->hash[2 * i + 1], '\0'};
        out[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
}

static lp_status died(lp_shard_writer *w, lp_status st)
{
    w->failed = true;
    return st;
}

lp_status lp_shard_add_document(lp_shard_writer *w, const lp_shard_document *d, lp_error *err)
{
    assert(!w->failed && w->file >= 0);
    int i = w->n_documents;
    if (d->hash[0] && !lp_is_hash(d->hash))
        return died(w, lp_fail(err, LP_E_RANGE, "document %lld: its hash is not 32 hex digits", (long long)d->id));
    if (d->id < 0 || d->first_token < 0)
        return died(w, lp_fail(err, LP_E_RANGE, "document %lld from its token %lld", (long long)d->id,
                               (long long)d->first_token));
    if (d->text_bytes > TEXT_LIMIT - w->text.n || d->key_bytes > TEXT_LIMIT - w->key.n || i == INT_MAX - 2)
        return died(w, lp_fail(err, LP_E_RANGE, "document %lld: more than 1 GiB of text in a shard", (long long)d->id));
    if (!GROW(w->doc_id, w->room_doc_id, i + 1) || !GROW(w->first_token, w->room_first_token, i + 1) ||
        !GROW(w->hash, w->room_hash, i + 1) || !GROW(w->is_utf8, w->room_is_utf8, i + 1) ||
        !add_bytes(&w->text, i, d->text, d->text_bytes) || !add_bytes(&w->key, i, d->key, d->key_bytes))
        return died(w, lp_fail(err, LP_E_MEMORY, "out of memory"));
    w->doc_id[i] = d->id, w->first_token[i] = d->first_token;
    w->is_utf8[i] = is_utf8(d->text, d->text_bytes);
    hash_bytes(w->hash[i], d);
    w->n_documents++;
    return LP_OK;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static lp_status check_tokens(const lp_shard_writer *w, const lp_shard_block *b, lp_error *err)
{
    int last = w->n ? w->doc[w->n - 1] : 0;
    if (b->n < 0 || b->n > INT_MAX - 1 - w->n || (w->head.n_tokens && b->n > w->head.n_tokens - w->n))
        return lp_fail(err, LP_E_RANGE, "%d rows after %d, the plan has %d", b->n, w->n, w->head.n_tokens);
    if (b->n && !w->n_documents) return lp_fail(err, LP_E_RANGE, "rows before any document");
    for (int r = 0; r < b->n; r++) {
        int doc = b->doc ? b->doc[r] : w->n_documents - 1, excluded = b->excluded ? b->excluded[r] : 0;
        if (b->id[r] < 0 || b->id[r] >= w->head.vocab)
            return lp_fail(err, LP_E_RANGE, "row %d: token %d; the vocabulary has %d", w->n + r, b->id[r],
                           w->head.vocab);
        if (doc < last || doc >= w->n_documents)
            return lp_fail(err, LP_E_RANGE, "row %d: document %d after %d, of %d", w->n + r, doc, last, w->n_documents);
        if (b->pos[r] < 0) return lp_fail(err, LP_E_RANGE, "row %d: position %d", w->n + r, b->pos[r]);
        if (excluded > LP_ROW_OTHER) return lp_fail(err, LP_E_RANGE, "row %d: excluded for %d", w->n + r, excluded);
        last = doc;
    }
    return LP_OK;
}

static lp_status check_sae_rows(const lp_shard_writer *w, const lp_shard_block *b, int sae, lp_error *err)
{
    const lp_shard_sae *s = &w->head.saes[sae];
    const lp_shard_sae_rows *x = &b->saes[sae];
    const lp_features *f = x->features;
    lp_shard_path path = lp_shard_sae_path(s);
    const char *place = path.text;
    if (f->n_rows != b->n) return lp_fail(err, LP_E_SHAPE, "%s: %d rows, expected %d", place, f->n_rows, b->n);
    if (f->start[f->n_rows] - f->start[0] > (size_t)(INT32_MAX - w->saes[sae].n_values))
        return lp_fail(err, LP_E_RANGE, "%s: more than 2^31 values; make smaller shards", place);
    for (int r = 0; r < b->n; r++) {
        int last = -1;
        for (size_t k = f->start[r]; k < f->start[r + 1]; k++) {
            if (f->index[k] <= last || f->index[k] >= s->d_sae)
                return lp_fail(err, LP_E_RANGE, "%s, row %d: feature %d after %d, of %d", place, w->n + r, f->index[k],
                               last, s->d_sae);
            if (!(f->value[k] > 0) || isinf(f->value[k]))
                return lp_fail(err, LP_E_RANGE, "%s, row %d, feature %d: the value is %g, not finite and above 0",
                               place, w->n + r, f->index[k], (double)f->value[k]);
            last = f->index[k];
        }
        if (!isfinite(x->sqerr[r]) || !isfinite(x->norm2[r]))
            return lp_fail(err, LP_E_RANGE, "%s, row %d: sqerr %g, norm2 %g", place, w->n + r, (double)x->sqerr[r],
                           (double)x->norm2[r]);
    }
    return LP_OK;
}

static lp_status keep_tokens(lp_shard_writer *w, const lp_shard_block *b, lp_error *err)
{
    size_t n = (size_t)b->n, at = (size_t)w->n;
    if (!GROW(w->id, w->room_id, at + n) || !GROW(w->doc, w->room_doc, at + n) || !GROW(w->pos, w->room_pos, at + n) ||
        !GROW(w->excluded, w->room_excluded, at + n) ||
        (w->head.has_logprob && !GROW(w->logprob, w->room_logprob, at + n)))
        return lp_fail(err, LP_E_MEMORY, "out of memory");
    memcpy(w->id + at, b->id, n * sizeof *w->id);
    memcpy(w->pos + at, b->pos, n * sizeof *w->pos);
    if (w->head.has_logprob) memcpy(w->logprob + at, b->logprob, n * sizeof *w->logprob);
    for (size_t r = 0; r < n; r++) {
        w->doc[at + r] = b->doc ? b->doc[r] : w->n_documents - 1;
        w->excluded[at + r] = b->excluded ? b->excluded[r] : LP_ROW_COUNTS;
    }
    return LP_OK;
}

/* The dense values of a block as they are kept. */
static lp_status pack(const void **out, lp_shard_writer *w, const lp_shard_dense *d, const float *x, int rows,
                      lp_error *err)
{
    size_t n = (size_t)rows * (size_t)d->width;
    lp_shard_path path = lp_shard_dense_path(d);
    const char *place = path.text;
    if (!lp_grow(&w->packed, &w->room_packed, n * 2, 1)) return lp_fail(err, LP_E_MEMORY, "out of memory");
    uint16_t *half = w->packed;
    for (size_t i = 0; i < n; i++) {
        bool fits = isfinite(x[i]);
        if (fits && d->type == LP_F16) half[i] = lp_f32_to_f16(x[i]), fits = isfinite(lp_f16_to_f32(half[i]));
        if (fits && d->type == LP_BF16) half[i] = lp_f32_to_bf16(x[i]), fits = isfinite(lp_bf16_to_f32(half[i]));
        if (!fits)
            return lp_fail(err, LP_E_RANGE, "%s, row %d, component %d: %g cannot be kept%s", place,
                           w->n + (int)(i / (size_t)d->width), (int)(i % (size_t)d->width), (double)x[i],
                           d->type == LP_F16 ? " as f16 (65504 at most); use bf16 or f32" : "");
    }
    *out = d->type == LP_F32 ? (const void *)x : half;
    return LP_OK;
}

static lp_status add_dense(lp_shard_writer *w, const lp_shard_block *b, lp_error *err)
{
    for (int i = 0; i < w->head.n_dense; i++) {
        const lp_shard_dense *d = &w->head.dense[i];
        const void *values = NULL;
        LP_TRY(pack(&values, w, d, b->dense[i], b->n, err));
        LP_TRY(lp_h5_write_plain(w->dense[i], lp_shard_dense_type(d->type), (uint64_t)w->n, (uint64_t)b->n, d->width,
                                 values, err));
    }
    return LP_OK;
}

static lp_status add_row(lp_shard_writer *w, const lp_shard_block *b, int sae, int r, lp_error *err)
{
    const lp_shard_sae *s = &w->head.saes[sae];
    const lp_shard_sae_rows *x = &b->saes[sae];
    lp_shard_stream *to = &w->saes[sae];
    size_t from = x->features->start[r], n = x->features->start[r + 1] - from;
    const int *index = x->features->index + from;
    const float *value = x->features->value + from;
    if (w->head.value_bits < LP_SHARD_ALL_BITS) {
        if (n && !GROW(w->rounded, w->room_rounded, n)) return lp_fail(err, LP_E_MEMORY, "out of memory");
        for (size_t k = 0; k < n; k++)
            w->rounded[k] = lp_shard_round(value[k], w->head.value_bits, s->threshold ? s->threshold[index[k]] : 0);
        value = w->rounded;
    }
    to->n_values += (int64_t)n;
    LP_TRY(lp_h5_column_put(&to->indices, index, n, &w->deflater, err));
    LP_TRY(lp_h5_column_put(&to->data, value, n, &w->deflater, err));
    LP_TRY(lp_h5_column_put(&to->indptr, &to->n_values, 1, &w->deflater, err));
    LP_TRY(lp_h5_column_put(&to->sqerr, x->sqerr + r, 1, &w->deflater, err));
    LP_TRY(lp_h5_column_put(&to->norm2, x->norm2 + r, 1, &w->deflater, err));
    if (s->has_sum && w->excluded[w->n + r] == LP_ROW_COUNTS)
        for (size_t i = 0, d = (size_t)s->d_out; i < d; i++) to->sum[i] += (double)x->target[(size_t)r * d + i];
    return LP_OK;
}

static lp_status add_rows(lp_shard_writer *w, const lp_shard_block *b, lp_error *err)
{
    if (lp_cancelled(&w->env)) return LP_CANCELLED;
    LP_TRY(check_tokens(w, b, err));
    for (int i = 0; i < w->head.n_saes; i++) LP_TRY(check_sae_rows(w, b, i, err));
    if (!b->n) return LP_OK;
    LP_TRY(keep_tokens(w, b, err));
    lp_h5_lock();
    lp_status st = add_dense(w, b, err);
    for (int r = 0; r < b->n && st == LP_OK; r++)
        for (int i = 0; i < w->head.n_saes && st == LP_OK; i++) st = add_row(w, b, i, r, err);
    lp_h5_unlock();
    w->n += b->n;
    return st;
}

lp_status lp_shard_add_rows(lp_shard_writer *w, const lp_shard_block *b, lp_error *err)
{
    assert(!w->failed && w->file >= 0);
    lp_status st = add_rows(w, b, err);
    if (st == LP_E_IO) lp_prefix(err, st, w->part);
    return st == LP_OK ? st : died(w, st);
}
