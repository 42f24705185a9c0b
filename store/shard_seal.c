/* shard_seal.c - see shard.h: the end of writing.  Transposes, statistics, and the steps that make a file durable.
 *
 * The transpose counts: how often each feature fires, where its postings then start, and every value to its place, in
 * the order of the rows.  No comparison, 8 bytes per value of one SAE at a time: 42 MB at 65,536 tokens of L0 80.
 */
#include "store/shard_writer.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 16384 /* values read at a time: a chunk */ };

static const int64_t no_end[1]; /* where no document ends */

/* ---- tokens and documents ---------------------------------------------------------------------------------------- */

/* The rows of each token, ascending. */
static lp_status put_by_id(lp_shard_writer *w, hid_t tokens, lp_error *err)
{
    size_t vocab = (size_t)w->head.vocab, n = (size_t)w->n;
    int64_t *at = lp_calloc(vocab + 2, sizeof *at);
    int *rows = lp_calloc(n + 1, sizeof *rows);
    hid_t group = -1;
    lp_status st = at && rows ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) {
        for (size_t r = 0; r < n; r++) at[w->id[r] + 2]++;
        for (size_t v = 2; v < vocab + 2; v++) at[v] += at[v - 1];
        for (size_t r = 0; r < n; r++) rows[at[w->id[r] + 1]++] = (int)r; /* at[v + 1] goes from v's start to its end */
        st = lp_h5_make_group(&group, tokens, "by_id", err);
    }
    if (st == LP_OK) st = lp_h5_put_column(group, "indptr", LP_H5_I64, 0, at, vocab + 1, &w->deflater, err);
    if (st == LP_OK) st = lp_h5_put_column(group, "rows", LP_H5_I32, 0, rows, n, &w->deflater, err);
    lp_h5_close_group(&group);
    free(at), free(rows);
    return st;
}

static lp_status put_tokens(lp_shard_writer *w, lp_error *err)
{
    size_t n = (size_t)w->n;
    lp_h5_deflater *d = &w->deflater;
    hid_t g = -1;
    LP_TRY(lp_h5_make_group(&g, w->file, "tokens", err));
    lp_status st = lp_h5_put_column(g, "id", LP_H5_I32, 0, w->id, n, d, err);
    if (st == LP_OK) st = lp_h5_put_column(g, "doc", LP_H5_I32, 0, w->doc, n, d, err);
    if (st == LP_OK) st = lp_h5_put_column(g, "pos", LP_H5_I32, 0, w->pos, n, d, err);
    if (st == LP_OK) st = lp_h5_put_column(g, "excluded", LP_H5_U8, 0, w->excluded, n, d, err);
    if (st == LP_OK && w->head.has_logprob) st = lp_h5_put_column(g, "logprob", LP_H5_F32, 0, w->logprob, n, d, err);
    if (st == LP_OK) st = put_by_id(w, g, err);
    lp_h5_close_group(&g);
    return st;
}

/* token_ptr[d]: the first row of document d, or of the next that has any. */
static lp_status put_token_ptr(lp_shard_writer *w, hid_t documents, lp_error *err)
{
    size_t d = (size_t)w->n_documents;
    int64_t *at = lp_calloc(d + 1, sizeof *at);
    if (!at) return lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int r = 0; r < w->n; r++) at[w->doc[r] + 1]++;
    for (size_t i = 0; i < d; i++) at[i + 1] += at[i];
    lp_status st = lp_h5_put_column(documents, "token_ptr", LP_H5_I64, 0, at, d + 1, &w->deflater, err);
    free(at);
    return st;
}

static lp_status put_documents(lp_shard_writer *w, lp_error *err)
{
    size_t n = (size_t)w->n_documents;
    lp_h5_deflater *d = &w->deflater;
    const int64_t *text_end = n ? w->text.end : no_end, *key_end = n ? w->key.end : no_end;
    hid_t g = -1;
    LP_TRY(lp_h5_make_group(&g, w->file, "documents", err));
    lp_status st = lp_h5_put_column(g, "doc_id", LP_H5_I64, 0, w->doc_id, n, d, err);
    if (st == LP_OK) st = lp_h5_put_column(g, "first_token", LP_H5_I64, 0, w->first_token, n, d, err);
    if (st == LP_OK) st = lp_h5_put_column(g, "hash", LP_H5_U8, 16, w->hash, n, d, err);
    if (st == LP_OK) st = lp_h5_put_column(g, "is_utf8", LP_H5_U8, 0, w->is_utf8, n, d, err);
    if (st == LP_OK) st = put_token_ptr(w, g, err);
    if (st == LP_OK) st = lp_h5_put_column(g, "text_ptr", LP_H5_I64, 0, text_end, n + 1, d, err);
    if (st == LP_OK) st = lp_h5_put_column(g, "text", LP_H5_U8, 0, w->text.bytes, w->text.n, d, err);
    if (st == LP_OK) st = lp_h5_put_column(g, "key_ptr", LP_H5_I64, 0, key_end, n + 1, d, err);
    if (st == LP_OK) st = lp_h5_put_column(g, "key", LP_H5_U8, 0, w->key.bytes, w->key.n, d, err);
    lp_h5_close_group(&g);
    return st;
}

/* ---- one SAE ----------------------------------------------------------------------------------------------------- */

typedef struct transpose {
    int64_t *at; /* [W + 2] */
    int *row;    /* [z] */
    float *value;
    int index[PIECE];
    float piece[PIECE];
} transpose;

static lp_status count(transpose *t, const lp_h5_set *indices, size_t width, lp_error *err)
{
    for (uint64_t at = 0; at < indices->n; at += PIECE) {
        uint64_t n = indices->n - at < PIECE ? indices->n - at : PIECE;
        LP_TRY(lp_h5_set_read(indices, at, n, t->index, err));
        for (uint64_t i = 0; i < n; i++) {
            if (t->index[i] < 0 || (size_t)t->index[i] >= width)
                return lp_fail(err, LP_E_FORMAT, "what was written does not read back");
            t->at[t->index[i] + 2]++;
        }
    }
    for (size_t f = 2; f < width + 2; f++) t->at[f] += t->at[f - 1];
    return LP_OK;
}

static lp_status scatter(transpose *t, const lp_h5_set *indices, const lp_h5_set *data, const int64_t *indptr,
                         lp_error *err)
{
    int row = 0;
    for (uint64_t at = 0; at < indices->n; at += PIECE) {
        uint64_t n = indices->n - at < PIECE ? indices->n - at : PIECE;
        LP_TRY(lp_h5_set_read(indices, at, n, t->index, err));
        LP_TRY(lp_h5_set_read(data, at, n, t->piece, err));
        for (uint64_t i = 0; i < n; i++) {
            while ((uint64_t)indptr[row + 1] <= at + i) row++;
            int64_t to = t->at[t->index[i] + 1]++;
            t->row[to] = row, t->value[to] = t->piece[i];
        }
    }
    return LP_OK;
}

/* What is on the disk, turned over. */
static lp_status turn(transpose *t, const lp_shard_writer *w, int sae, lp_error *err)
{
    const lp_shard_stream *x = &w->saes[sae];
    size_t width = (size_t)w->head.saes[sae].d_sae, n = (size_t)w->n;
    uint64_t z = (uint64_t)x->n_values;
    int64_t *indptr = lp_calloc(n + 1, sizeof *indptr);
    lp_h5_set indices = {.id = -1}, data = {.id = -1};
    t->at = lp_calloc(width + 2, sizeof *t->at);
    t->row = lp_calloc(z + 1, sizeof *t->row);
    t->value = lp_calloc(z + 1, sizeof *t->value);
    lp_status st = indptr && t->at && t->row && t->value ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = lp_h5_get_column(indptr, x->group, "indptr", LP_H5_I64, n + 1, 0, err);
    if (st == LP_OK) st = lp_h5_set_open(&indices, x->group, "indices", LP_H5_I32, z, 0, err);
    if (st == LP_OK) st = lp_h5_set_open(&data, x->group, "data", LP_H5_F32, z, 0, err);
    if (st == LP_OK && (uint64_t)indptr[n] != z) st = lp_fail(err, LP_E_FORMAT, "what was written does not read back");
    if (st == LP_OK) st = count(t, &indices, width, err);
    if (st == LP_OK) st = scatter(t, &indices, &data, indptr, err);
    lp_h5_set_close(&indices), lp_h5_set_close(&data);
    free(indptr);
    return st;
}

static lp_status put_matrix(hid_t group, const char *encoding, int64_t rows, int64_t columns, lp_error *err)
{
    LP_TRY(lp_h5_put_text(group, "encoding-type", encoding, err));
    LP_TRY(lp_h5_put_text(group, "encoding-version", "0.1.0", err));
    return lp_h5_put_ints(group, "shape", (int64_t[]){rows, columns}, 2, err);
}

static lp_status put_by_feature(lp_shard_writer *w, int sae, const transpose *t, lp_error *err)
{
    size_t width = (size_t)w->head.saes[sae].d_sae, z = (size_t)w->saes[sae].n_values;
    hid_t g = -1;
    LP_TRY(lp_h5_make_group(&g, w->saes[sae].group, "by_feature", err));
    lp_status st = lp_h5_put_column(g, "indptr", LP_H5_I64, 0, t->at, width + 1, &w->deflater, err);
    if (st == LP_OK) st = lp_h5_put_column(g, "indices", LP_H5_I32, 0, t->row, z, &w->deflater, err);
    if (st == LP_OK) st = lp_h5_put_column(g, "data", LP_H5_F32, 0, t->value, z, &w->deflater, err);
    if (st == LP_OK) st = put_matrix(g, "csc_matrix", w->n, (int64_t)width, err);
    lp_h5_close_group(&g);
    return st;
}

/* One column of the statistics at a time would want each feature's taken six times; all six are filled as they come. */
static lp_status put_stats(lp_shard_writer *w, int sae, const transpose *t, lp_error *err)
{
    static const struct {
        const char *name;
        lp_h5_type type;
        int width;
        size_t at;
    } columns[] = {
        {"n_active", LP_H5_I64, 0, offsetof(lp_shard_stat, n_active)},
        {"n_docs", LP_H5_I32, 0, offsetof(lp_shard_stat, n_docs)},
        {"max", LP_H5_F32, 0, offsetof(lp_shard_stat, max)},
        {"sum", LP_H5_F64, 0, offsetof(lp_shard_stat, sum)},
        {"sumsq", LP_H5_F64, 0, offsetof(lp_shard_stat, sumsq)},
        {"hist", LP_H5_U32, LP_SHARD_BINS, offsetof(lp_shard_stat, hist)},
    };
    enum { N = sizeof columns / sizeof *columns };
    lp_h5_column c[N];
    hid_t g = -1;
    for (int i = 0; i < N; i++) c[i] = (lp_h5_column)LP_H5_NO_COLUMN;
    lp_status st = lp_h5_make_group(&g, w->saes[sae].group, "stats", err);
    for (int i = 0; i < N && st == LP_OK; i++)
        st = lp_h5_column_begin(&c[i], g, columns[i].name, columns[i].type, columns[i].width, err);
    for (int f = 0; f < w->head.saes[sae].d_sae && st == LP_OK; f++) {
        lp_shard_stat s = lp_shard_stat_of(t->row + t->at[f], t->value + t->at[f], (size_t)(t->at[f + 1] - t->at[f]),
                                           w->excluded, w->doc);
        for (int i = 0; i < N && st == LP_OK; i++)
            st = lp_h5_column_put(&c[i], (const char *)&s + columns[i].at, 1, &w->deflater, err);
    }
    for (int i = 0; i < N && st == LP_OK; i++) st = lp_h5_column_end(&c[i], &w->deflater, err);
    for (int i = 0; i < N; i++) lp_h5_column_close(&c[i]);
    lp_h5_close_group(&g);
    return st;
}

lp_status lp_shard_put_sae(hid_t g, const lp_shard_sae *s, int64_t rows, int64_t n_values, lp_error *err)
{
    LP_TRY(put_matrix(g, "csr_matrix", rows, s->d_sae, err));
    LP_TRY(lp_h5_put_text(g, "name", s->name, err));
    LP_TRY(lp_h5_put_text(g, "hash", s->hash, err));
    LP_TRY(lp_h5_put_text(g, "units", "SAE activation", err));
    LP_TRY(lp_h5_put_text(g, "site", lp_site_name(s->spot.site), err));
    LP_TRY(lp_h5_put_int(g, "layer", s->spot.layer, err));
    LP_TRY(lp_h5_put_int(g, "d_out", s->d_out, err));
    LP_TRY(lp_h5_put_int(g, "nnz", n_values, err));
    if (!s->spot.is_coder) return LP_OK;
    LP_TRY(lp_h5_put_text(g, "site_out", lp_site_name(s->spot.site_out), err));
    return lp_h5_put_int(g, "layer_out", s->spot.layer_out, err);
}

static lp_status end_stream(lp_shard_writer *w, int sae, lp_error *err)
{
    lp_shard_stream *x = &w->saes[sae];
    LP_TRY(lp_h5_column_end(&x->indptr, &w->deflater, err));
    LP_TRY(lp_h5_column_end(&x->indices, &w->deflater, err));
    LP_TRY(lp_h5_column_end(&x->data, &w->deflater, err));
    LP_TRY(lp_h5_column_end(&x->sqerr, &w->deflater, err));
    LP_TRY(lp_h5_column_end(&x->norm2, &w->deflater, err));
    if (!x->sum) return LP_OK;
    hid_t recon = -1;
    LP_TRY(lp_h5_open_group(&recon, x->group, "recon", err));
    lp_status st = lp_h5_put_column(recon, "sum", LP_H5_F64, 0, x->sum, (size_t)w->head.saes[sae].d_out, &w->deflater,
                                    err);
    lp_h5_close_group(&recon);
    return st;
}

static lp_status put_sae(lp_shard_writer *w, int sae, lp_error *err)
{
    transpose *t = lp_calloc(1, sizeof *t);
    if (!t) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_status st = end_stream(w, sae, err);
    if (st == LP_OK) st = turn(t, w, sae, err);
    if (st == LP_OK) st = put_by_feature(w, sae, t, err);
    if (st == LP_OK) st = put_stats(w, sae, t, err);
    if (st == LP_OK) st = lp_shard_put_sae(w->saes[sae].group, &w->head.saes[sae], w->n, w->saes[sae].n_values, err);
    if (st == LP_OK) lp_h5_close_group(&w->saes[sae].group);
    free(t->at), free(t->row), free(t->value), free(t);
    return st;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

/* Where to find what, in the order of the head. */
lp_status lp_shard_put_contents(hid_t file, const lp_shard_head *h, lp_error *err)
{
    size_t n = (size_t)(h->n_saes > h->n_dense ? h->n_saes : h->n_dense) + 1;
    lp_shard_path *path = lp_calloc(n, sizeof *path);
    const char **text = lp_calloc(n, sizeof *text);
    hid_t g = -1;
    lp_status st = path && text ? lp_h5_make_group(&g, file, "contents", err)
                                : lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; st == LP_OK && i < h->n_saes; i++) path[i] = lp_shard_sae_path(&h->saes[i]), text[i] = path[i].text;
    if (st == LP_OK) st = lp_h5_put_strings(g, "sae", text, h->n_saes, err);
    for (int i = 0; st == LP_OK && i < h->n_dense; i++)
        path[i] = lp_shard_dense_path(&h->dense[i]), text[i] = path[i].text;
    if (st == LP_OK) st = lp_h5_put_strings(g, "dense", text, h->n_dense, err);
    lp_h5_close_group(&g);
    free(path), free(text);
    return st;
}

static lp_status put_root(lp_shard_writer *w, lp_error *err)
{
    const lp_shard_head *h = &w->head;
    const struct {
        const char *name, *text;
    } texts[] = {{"Conventions", "Lapidary-1.0 AnnData-sparse-0.1.0"},
                 {"lapidary_format", "shard"},
                 {"writer", "lapidary " LP_VERSION},
                 {"run", h->run},
                 {"plan", h->plan},
                 {"model_hash", h->model_hash},
                 {"tokenizer_hash", h->tokenizer_hash}};
    const struct {
        const char *name;
        int64_t n;
    } numbers[] = {{"schema_major", LP_SHARD_MAJOR},
                   {"schema_minor", LP_SHARD_MINOR},
                   {"shard", h->number},
                   {"token_base", h->token_base},
                   {"n_tokens", w->n},
                   {"n_documents", w->n_documents},
                   {"vocab", h->vocab},
                   {"value_bits", h->value_bits},
                   {"complete", 1}}; /* the last */
    LP_TRY(lp_h5_put_strings(w->file, "provenance", &h->provenance, -1, err));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        LP_TRY(lp_h5_put_text(w->file, texts[i].name, texts[i].text, err));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        LP_TRY(lp_h5_put_int(w->file, numbers[i].name, numbers[i].n, err));
    return LP_OK;
}

static lp_status put_small(lp_shard_writer *w, lp_error *err)
{
    for (int i = 0; i < w->head.n_dense; i++) LP_TRY(lp_h5_close_plain(&w->dense[i], err));
    LP_TRY(put_tokens(w, err));
    LP_TRY(put_documents(w, err));
    return lp_shard_put_contents(w->file, &w->head, err);
}

static lp_status finish_file(lp_shard_writer *w, lp_error *err)
{
    lp_status st = LP_OK;
    for (int i = 0; i < w->head.n_saes && st == LP_OK; i++) {
        if (lp_cancelled(&w->env)) return LP_CANCELLED;
        lp_progress(&w->env, "sealing", i, w->head.n_saes);
        lp_h5_lock(); /* SAE by SAE: readers of other shards get their turn */
        st = put_sae(w, i, err);
        lp_h5_unlock();
    }
    lp_h5_lock();
    if (st == LP_OK) st = put_small(w, err);
    if (st == LP_OK) st = put_root(w, err);
    if (st == LP_OK) st = lp_h5_close(&w->file, err);
    lp_h5_unlock();
    lp_progress(&w->env, "sealing", w->head.n_saes, w->head.n_saes);
    return st;
}

static lp_status read_back(const lp_shard_writer *w, lp_error *err)
{
    lp_shard *s = NULL;
    lp_h5_lock();
    lp_status st = lp_shard_open_locked(&s, w->part, &w->env, err);
    lp_h5_unlock();
    if (st == LP_OK) st = lp_shard_check(s, &w->env, err);
    lp_shard_close(s);
    return st;
}

/* Another process may have been as far with the same shard: then its bytes are these, or a number depends on something
 * it must not depend on. */
static lp_status compare(lp_shard_sealed *s, const lp_shard_writer *w, lp_error *err)
{
    char other[33];
    LP_TRY(lp_file_hash(other, w->path, &w->env, err));
    if (strcmp(other, s->hash) != 0)
        return lp_fail(err, LP_E_FORMAT, "%s: is there, with other bytes (%s) than the same plan makes now (%s)",
                       w->path, other, s->hash);
    LP_TRY(lp_shard_write_side(w->path, other, err));
    s->was_there = true;
    unlink(w->part);
    return LP_OK;
}

/* link, since rename would replace; where there are no links, rename. */
static lp_status take_name(lp_shard_sealed *s, const lp_shard_writer *w, lp_error *err)
{
    if (access(w->path, F_OK) == 0) return compare(s, w, err);
    LP_TRY(lp_shard_write_side(w->path, s->hash, err));
    if (link(w->part, w->path) == 0) {
        unlink(w->part);
        return LP_OK;
    }
    if (errno == EEXIST) return compare(s, w, err);
    if (rename(w->part, w->path) == 0) return LP_OK;
    return lp_fail(err, LP_E_IO, "%s: cannot be named %s: %s", w->part, w->path, strerror(errno));
}

static lp_status make_durable(lp_shard_sealed *s, lp_shard_writer *w, lp_error *err)
{
    struct stat info;
    int fd = open(w->part, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return lp_fail(err, LP_E_IO, "%s: %s", w->part, strerror(errno));
    flock(fd, LOCK_SH | LOCK_NB); /* so that nobody sweeps it away; libhdf5 has given its own back */
    lp_status st = read_back(w, err);
    if (st == LP_OK && (fsync(fd) != 0 || fchmod(fd, 0444) != 0 || fstat(fd, &info) != 0))
        st = lp_fail(err, LP_E_IO, "%s: cannot write: %s", w->part, strerror(errno));
    if (st == LP_OK) st = lp_file_hash(s->hash, w->part, &w->env, err);
    if (st == LP_OK) s->bytes = (uint64_t)info.st_size, st = take_name(s, w, err);
    if (st == LP_OK) lp_sync_folder(w->folder);
    close(fd);
    return st;
}

lp_status lp_shard_seal(lp_shard_writer *w, lp_shard_sealed *out, lp_error *err)
{
    assert(!w->failed && w->file >= 0);
    lp_shard_sealed s = {.name = ""};
    snprintf(s.name, sizeof s.name, "shard-%06d.h5", w->head.number);
    for (int i = 0; i < w->head.n_saes; i++) s.n_values += (uint64_t)w->saes[i].n_values;
    lp_status st = LP_OK;
    if (w->head.n_tokens && w->n != w->head.n_tokens)
        st = lp_fail(err, LP_E_RANGE, "%s: %d tokens, the plan has %d", s.name, w->n, w->head.n_tokens);
    if (st == LP_OK && (st = finish_file(w, err)) < 0) lp_prefix(err, st, w->part);
    if (st == LP_OK) st = make_durable(&s, w, err);
    w->failed = st != LP_OK;
    w->owns_part = w->failed;
    if (st == LP_OK && out) *out = s;
    return st;
}
