/* shard_check.c - see shard.h: every invariant of a shard, from what is on the disk.
 *
 * csc = csr transposed is shown without sorting or searching: with a finger on the next posting of each feature, the
 * values of the rows are read in order and each must be what its feature's finger points at; in the end every finger is
 * at the end.  That also shows that both hold the same values, and, row by row, that both are ascending.
 */
#include "store/shard_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 16384, FEATURES = 16384 /* at a time: no chunk is inflated twice */ };

/* ---- tokens and documents ---------------------------------------------------------------------------------------- */

typedef struct tokens { /* of the whole shard */
    int *id, *doc;
    uint8_t *excluded;
} tokens;

static lp_status check_by_id(const lp_shard *s, const tokens *t, lp_error *err)
{
    size_t n = (size_t)s->head.n_tokens, vocab = (size_t)s->head.vocab;
    int64_t *at = NULL;
    int *rows = NULL;
    lp_h5_set set;
    LP_TRY(lp_h5_set_open(&set, s->file, "tokens/by_id/indptr", LP_H5_I64, vocab + 1, 0, err)); /* it is no bomb */
    lp_h5_set_close(&set);
    at = lp_calloc(vocab + 1, sizeof *at), rows = lp_calloc(n + 1, sizeof *rows);
    lp_status st = at && rows ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = lp_h5_get_column(at, s->file, "tokens/by_id/indptr", LP_H5_I64, vocab + 1, 0, err);
    if (st == LP_OK) st = lp_h5_get_column(rows, s->file, "tokens/by_id/rows", LP_H5_I32, n, 0, err);
    bool ok = st != LP_OK || (at[0] == 0 && at[vocab] == (int64_t)n);
    for (size_t v = 0; v < vocab && st == LP_OK && ok; v++) {
        ok = at[v] <= at[v + 1] && at[v + 1] <= (int64_t)n;
        for (int64_t i = at[v]; ok && i < at[v + 1]; i++)
            ok = rows[i] >= 0 && (size_t)rows[i] < n && t->id[rows[i]] == (int)v &&
                 (i == at[v] || rows[i] > rows[i - 1]);
    }
    free(at), free(rows);
    return ok ? st : lp_fail(err, LP_E_FORMAT, "tokens/by_id is not what tokens/id says");
}

/* What is cut by pointers: all of it can be read, and the pointers rise from its start to its end. */
static lp_status check_cut(const lp_shard *s, const char *ptr, const char *bytes, lp_error *err)
{
    size_t d = (size_t)s->head.n_documents;
    int64_t *at = lp_calloc(d + 1, sizeof *at);
    char *text = NULL;
    lp_h5_set set = {.id = -1};
    lp_status st = at ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = lp_h5_get_column(at, s->file, ptr, LP_H5_I64, d + 1, 0, err);
    if (st == LP_OK) st = lp_h5_set_open(&set, s->file, bytes, LP_H5_U8, UINT64_MAX, 0, err);
    if (st == LP_OK && !(text = lp_calloc(set.n + 1, 1))) st = lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK && (st = lp_h5_set_read(&set, 0, set.n, text, err)) != LP_OK) lp_prefix(err, st, bytes);
    bool ok = st != LP_OK || (at[0] == 0 && (uint64_t)at[d] == set.n);
    for (size_t i = 0; i < d && st == LP_OK && ok; i++) ok = at[i] <= at[i + 1];
    lp_h5_set_close(&set);
    free(at), free(text);
    return ok ? st : lp_fail(err, LP_E_FORMAT, "%s does not cut %s", ptr, bytes);
}

static lp_status check_documents(const lp_shard *s, const tokens *t, lp_error *err)
{
    size_t d = (size_t)s->head.n_documents;
    for (int i = 0; i < s->head.n_documents; i++)
        for (int r = s->token_ptr[i]; r < s->token_ptr[i + 1]; r++)
            if (t->doc[r] != i) return lp_fail(err, LP_E_FORMAT, "tokens/doc is not what documents/token_ptr says");
    LP_TRY(check_cut(s, "documents/text_ptr", "documents/text", err));
    LP_TRY(check_cut(s, "documents/key_ptr", "documents/key", err));
    int64_t *ids = lp_calloc(d + 1, sizeof *ids);
    uint8_t *bytes = lp_calloc(d + 1, 16);
    lp_status st = ids && bytes ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = lp_h5_get_column(ids, s->file, "documents/doc_id", LP_H5_I64, d, 0, err);
    if (st == LP_OK) st = lp_h5_get_column(ids, s->file, "documents/first_token", LP_H5_I64, d, 0, err);
    if (st == LP_OK) st = lp_h5_get_column(bytes, s->file, "documents/hash", LP_H5_U8, d, 16, err);
    if (st == LP_OK) st = lp_h5_get_column(bytes, s->file, "documents/is_utf8", LP_H5_U8, d, 0, err);
    free(ids), free(bytes);
    return st;
}

static lp_status read_tokens(tokens *t, const lp_shard *s, lp_error *err)
{
    size_t n = (size_t)s->head.n_tokens;
    bool has_logprob = s->head.has_logprob;
    int *pos = lp_calloc(n + 1, sizeof *pos);
    float *logprob = has_logprob ? lp_calloc(n + 1, sizeof *logprob) : NULL;
    t->id = lp_calloc(n + 1, sizeof *t->id), t->doc = lp_calloc(n + 1, sizeof *t->doc);
    t->excluded = lp_calloc(n + 1, 1);
    bool ok = pos && t->id && t->doc && t->excluded && (logprob || !has_logprob);
    lp_status st = ok ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = lp_h5_get_column(t->id, s->file, "tokens/id", LP_H5_I32, n, 0, err);
    if (st == LP_OK) st = lp_h5_get_column(t->doc, s->file, "tokens/doc", LP_H5_I32, n, 0, err);
    if (st == LP_OK) st = lp_h5_get_column(pos, s->file, "tokens/pos", LP_H5_I32, n, 0, err);
    if (st == LP_OK) st = lp_h5_get_column(t->excluded, s->file, "tokens/excluded", LP_H5_U8, n, 0, err);
    if (st == LP_OK) st = lp_h5_get_column(logprob, s->file, "tokens/logprob", LP_H5_F32, n, 0, err);
    for (size_t i = 0; i < n && st == LP_OK; i++)
        if (t->id[i] < 0 || t->id[i] >= s->head.vocab || pos[i] < 0 || t->excluded[i] > LP_ROW_OTHER)
            st = lp_fail(err, LP_E_FORMAT, "tokens: row %zu: token %d at %d, excluded for %d", i, t->id[i], pos[i],
                         t->excluded[i]);
    free(pos), free(logprob);
    return st;
}

static lp_status check_dense(const lp_shard *s, int dense, lp_error *err)
{
    const lp_shard_dense *d = &s->head.dense[dense];
    lp_shard_path path = lp_shard_dense_path(d);
    int rows = d->width < PIECE ? PIECE / d->width : 1;
    float *x = lp_calloc((size_t)rows * (size_t)d->width, sizeof *x);
    lp_status st = x ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int first = 0; first < s->head.n_tokens && st == LP_OK; first += rows) {
        int n = s->head.n_tokens - first < rows ? s->head.n_tokens - first : rows;
        st = lp_shard_read_dense_locked(s, dense, first, n, x, err);
        for (int i = 0; i < n * d->width && st == LP_OK; i++)
            if (!isfinite(x[i]))
                st = lp_fail(err, LP_E_FORMAT, "row %d, component %d is not finite", first + i / d->width,
                             i % d->width);
    }
    free(x);
    return st < 0 ? lp_prefix(err, st, path.text) : st;
}

/* ---- one SAE ----------------------------------------------------------------------------------------------------- */

typedef struct turned {
    int64_t *at, *finger; /* [W + 1] */
    int *row;             /* [z] */
    float *value;
} turned;

static lp_status read_turned(turned *t, const lp_shard_sets *x, const lp_shard *s, lp_error *err)
{
    size_t w = (size_t)x->by_indptr.n - 1, z = (size_t)x->by_data.n;
    t->at = lp_calloc(w + 1, sizeof *t->at), t->finger = lp_calloc(w + 1, sizeof *t->finger);
    t->row = lp_calloc(z + 1, sizeof *t->row), t->value = lp_calloc(z + 1, sizeof *t->value);
    if (!t->at || !t->finger || !t->row || !t->value) return lp_fail(err, LP_E_MEMORY, "out of memory");
    LP_TRY(lp_h5_set_read(&x->by_indptr, 0, w + 1, t->at, err));
    LP_TRY(lp_h5_set_read(&x->by_indices, 0, z, t->row, err));
    LP_TRY(lp_h5_set_read(&x->by_data, 0, z, t->value, err));
    if (t->at[0] != 0 || (uint64_t)t->at[w] != z) return lp_fail(err, LP_E_FORMAT, "by_feature/indptr");
    for (size_t f = 0; f < w; f++)
        if (t->at[f] > t->at[f + 1]) return lp_fail(err, LP_E_FORMAT, "by_feature/indptr falls at %zu", f);
    for (size_t i = 0; i < z; i++)
        if (t->row[i] < 0 || t->row[i] >= s->head.n_tokens || !(t->value[i] > 0) || isinf(t->value[i]))
            return lp_fail(err, LP_E_FORMAT, "by_feature: row %d, value %g", t->row[i], (double)t->value[i]);
    memcpy(t->finger, t->at, (w + 1) * sizeof *t->at);
    return LP_OK;
}

static lp_status check_rows(turned *t, const lp_shard_sets *x, int n, lp_error *err)
{
    int64_t *indptr = lp_calloc((size_t)n + 1, sizeof *indptr);
    int *index = lp_calloc(PIECE, sizeof *index), row = 0, last = -1, w = (int)x->by_indptr.n - 1;
    float *value = lp_calloc(PIECE, sizeof *value);
    uint64_t z = x->data.n;
    lp_status st = indptr && index && value ? lp_h5_set_read(&x->indptr, 0, (uint64_t)n + 1, indptr, err)
                                            : lp_fail(err, LP_E_MEMORY, "out of memory");
    bool ok = st != LP_OK || (indptr[0] == 0 && (uint64_t)indptr[n] == z);
    for (int r = 0; r < n && st == LP_OK && ok; r++) ok = indptr[r] <= indptr[r + 1];
    if (!ok) st = lp_fail(err, LP_E_FORMAT, "indptr does not rise from 0 to %llu", (unsigned long long)z);
    for (uint64_t at = 0; at < z && st == LP_OK; at += PIECE) {
        uint64_t k = z - at < PIECE ? z - at : PIECE;
        st = lp_h5_set_read(&x->indices, at, k, index, err);
        if (st == LP_OK) st = lp_h5_set_read(&x->data, at, k, value, err);
        for (uint64_t i = 0; i < k && st == LP_OK; i++) {
            for (; (uint64_t)indptr[row + 1] <= at + i; last = -1) row++;
            int f = index[i];
            if (f <= last || f >= w)
                st = lp_fail(err, LP_E_FORMAT, "row %d: feature %d after %d, of %d", row, f, last, w);
            else if (t->finger[f] >= t->at[f + 1] || t->row[t->finger[f]] != row ||
                     memcmp(&t->value[t->finger[f]], &value[i], sizeof(float)) != 0)
                st = lp_fail(err, LP_E_FORMAT, "row %d, feature %d: by_feature has something else", row, f);
            else
                t->finger[f]++, last = f;
        }
    }
    free(indptr), free(index), free(value);
    return st; /* as many values on either side, each matched: every finger is at its end */
}

typedef struct stats_block {
    int64_t n_active[FEATURES];
    int n_docs[FEATURES];
    float max[FEATURES];
    double sum[FEATURES], sumsq[FEATURES];
    uint32_t hist[FEATURES][LP_SHARD_BINS];
} stats_block;

static bool is_same_stat(const stats_block *b, int i, const lp_shard_stat *s)
{
    return s->n_active == b->n_active[i] && s->n_docs == b->n_docs[i] &&
           memcmp(&s->max, &b->max[i], sizeof s->max) == 0 && memcmp(&s->sum, &b->sum[i], sizeof s->sum) == 0 &&
           memcmp(&s->sumsq, &b->sumsq[i], sizeof s->sumsq) == 0 && memcmp(s->hist, b->hist[i], sizeof s->hist) == 0;
}

static lp_status check_stats(const turned *t, const lp_shard *s, int sae, const tokens *k, lp_error *err)
{
    int w = s->head.saes[sae].d_sae;
    stats_block *b = lp_calloc(1, sizeof *b);
    const lp_shard_stats out = b ? (lp_shard_stats){b->n_active, b->n_docs, b->max, b->sum, b->sumsq, b->hist[0]}
                                 : (lp_shard_stats){0};
    lp_status st = b ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int first = 0; first < w && st == LP_OK; first += FEATURES) {
        int n = w - first < FEATURES ? w - first : FEATURES;
        st = lp_shard_read_stats_locked(s, sae, first, n, &out, err);
        for (int i = 0; i < n && st == LP_OK; i++) {
            int64_t from = t->at[first + i], end = t->at[first + i + 1];
            lp_shard_stat is = lp_shard_stat_of(t->row + from, t->value + from, (size_t)(end - from), k->excluded,
                                                k->doc);
            if (!is_same_stat(b, i, &is))
                st = lp_fail(err, LP_E_FORMAT, "stats of feature %d are not those of its values", first + i);
        }
    }
    free(b);
    return st;
}

static lp_status check_recon(const lp_shard *s, const lp_shard_sets *x, int sae, lp_error *err)
{
    size_t n = (size_t)s->head.n_tokens, d = (size_t)s->head.saes[sae].d_out;
    float *sqerr = lp_calloc(n + 1, sizeof *sqerr), *norm2 = lp_calloc(n + 1, sizeof *norm2);
    double *sum = lp_calloc(d, sizeof *sum);
    lp_status st = sqerr && norm2 && sum ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = lp_h5_get_column(sqerr, x->group, "recon/sqerr", LP_H5_F32, n, 0, err);
    if (st == LP_OK) st = lp_h5_get_column(norm2, x->group, "recon/norm2", LP_H5_F32, n, 0, err);
    if (st == LP_OK && s->head.saes[sae].has_sum)
        st = lp_h5_get_column(sum, x->group, "recon/sum", LP_H5_F64, d, 0, err);
    for (size_t i = 0; i < n && st == LP_OK; i++)
        if (!isfinite(sqerr[i]) || !isfinite(norm2[i]))
            st = lp_fail(err, LP_E_FORMAT, "recon of row %zu is not finite", i);
    free(sqerr), free(norm2), free(sum);
    return st;
}

static lp_status check_chunks(const lp_shard_sets *x, lp_error *err)
{
    LP_TRY(lp_h5_set_check_chunks(&x->indptr, "indptr", err));
    LP_TRY(lp_h5_set_check_chunks(&x->indices, "indices", err));
    LP_TRY(lp_h5_set_check_chunks(&x->data, "data", err));
    LP_TRY(lp_h5_set_check_chunks(&x->by_indptr, "by_feature/indptr", err));
    LP_TRY(lp_h5_set_check_chunks(&x->by_indices, "by_feature/indices", err));
    return lp_h5_set_check_chunks(&x->by_data, "by_feature/data", err);
}

static lp_status check_sae(const lp_shard *s, int sae, const tokens *k, lp_error *err)
{
    lp_shard_sets *x = NULL;
    turned t = {0};
    lp_status st = lp_shard_sets_of(&x, s, sae, err);
    if (st == LP_OK) st = check_chunks(x, err);
    if (st == LP_OK) st = read_turned(&t, x, s, err);
    if (st == LP_OK) st = check_rows(&t, x, s->head.n_tokens, err);
    if (st == LP_OK) st = check_stats(&t, s, sae, k, err);
    if (st == LP_OK) st = check_recon(s, x, sae, err);
    free(t.at), free(t.finger), free(t.row), free(t.value);
    return st < 0 ? lp_prefix(err, st, lp_shard_sae_path(&s->head.saes[sae]).text) : st;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static lp_status check_small(const lp_shard *s, tokens *t, lp_error *err)
{
    LP_TRY(read_tokens(t, s, err));
    LP_TRY(check_by_id(s, t, err));
    LP_TRY(check_documents(s, t, err));
    for (int i = 0; i < s->head.n_dense; i++) LP_TRY(check_dense(s, i, err));
    return LP_OK;
}

lp_status lp_shard_check(const lp_shard *s, const lp_env *env, lp_error *err)
{
    tokens t = {0};
    lp_h5_lock();
    lp_status st = check_small(s, &t, err);
    lp_h5_unlock();
    for (int i = 0; i < s->head.n_saes && st == LP_OK; i++) {
        lp_progress(env, "verifying", i, s->head.n_saes);
        lp_h5_lock();
        st = lp_cancelled(env) ? LP_CANCELLED : check_sae(s, i, &t, err);
        lp_h5_unlock();
    }
    if (st == LP_OK) lp_progress(env, "verifying", s->head.n_saes, s->head.n_saes);
    free(t.id), free(t.doc), free(t.excluded);
    return st < 0 ? lp_prefix(err, st, s->path) : st;
}
