/* merge.c - see merge.h: one pass over the shards, which writes what counts anew; then the virtual sets. */
#include "store/merge.h"

#include "store/shard_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RUN_LIMIT = 16 << 20, MOST_SHARDS = 1000000 };

/* What rows are counted in: a count per shard each; the values of SAE i are VALUES + i. */
enum { TOKENS, DOCUMENTS, TEXT, KEY, VALUES };

/* Columns that are written anew; an SAE's indptr is INDPTR + i. */
enum { DOC, TOKEN_PTR, TEXT_PTR, KEY_PTR, INDPTR };

typedef struct merge {
    const char *folder;
    const lp_env *env;
    char run[33];
    size_t n;     /* shards */
    char **lines; /* [n] "HASH  NAME" */
    lp_h5_source *sources;
    lp_shard *first;       /* what all must be like */
    int64_t *counts;       /* [VALUES + n_saes][n] */
    int64_t *total;        /* [VALUES + n_saes] so far */
    lp_h5_column *columns; /* [INDPTR + n_saes] */
    int n_columns;
    int64_t *numbers;
    size_t room_numbers;
    lp_h5_deflater deflater;
    hid_t file;
} merge;

static const char *name_of(const merge *m, size_t shard)
{
    return m->lines[shard] + 34;
}

/* ---- what there should be, and what there is --------------------------------------------------------------------- */

static lp_status read_run(merge *m, lp_error *err)
{
    char *path = lp_path_join(m->folder, "run.json"), *text = NULL;
    size_t n;
    if (!path) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_status st = lp_is_file(path) ? lp_read_file(&text, &n, path, RUN_LIMIT, err)
                                    : lp_fail(err, LP_E_NOT_FOUND, "%s: no such file, so this is no run", path);
    json_t *o = st == LP_OK ? json_loadb(text, n, 0, NULL) : NULL;
    const char *run = json_string_value(json_object_get(o, "run"));
    json_int_t shards = json_integer_value(json_object_get(o, "shards"));
    if (st == LP_OK && (!lp_is_hash(run) || shards < 1 || shards > MOST_SHARDS))
        st = lp_fail(err, LP_E_FORMAT, "%s: does not say which run it is and of how many shards", path);
    if (st == LP_OK) memcpy(m->run, run, sizeof m->run), m->n = (size_t)shards;
    json_decref(o);
    free(text), free(path);
    return st;
}

/* A missing shard would be read as nothing, so all must be there. */
static lp_status find_shards(merge *m, lp_error *err)
{
    size_t missing = 0, first = 0;
    m->lines = lp_calloc(m->n + 1, sizeof *m->lines);
    m->sources = lp_calloc(m->n + 1, sizeof *m->sources);
    if (!m->lines || !m->sources) return lp_fail(err, LP_E_MEMORY, "out of memory");
    for (size_t i = 0; i < m->n; i++) {
        char hash[33], *path = lp_format("%s/shard-%06zu.h5", m->folder, i);
        lp_status st = path ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
        bool is_there = path && lp_is_file(path);
        if (is_there) st = lp_shard_side_hash(hash, path, err);
        if (!is_there && missing++ == 0) first = i;
        if (is_there && st == LP_OK && !(m->lines[i] = lp_format("%s  shard-%06zu.h5", hash, i)))
            st = lp_fail(err, LP_E_MEMORY, "out of memory");
        free(path);
        LP_TRY(st);
        if (is_there) m->sources[i].file = name_of(m, i);
    }
    if (!missing) return LP_OK;
    return lp_fail(err, LP_E_NOT_FOUND,
                   "%s: %zu of %zu shards are not there, the first is shard-%06zu.h5; finish the extraction first",
                   m->folder, missing, m->n, first);
}

/* Is `path` the view of these very shards? */
static bool is_current(lp_merged *out, const merge *m, const char *path)
{
    hid_t file = -1, contents = -1;
    char **lines = NULL;
    int n = 0;
    bool same = lp_is_file(path) && lp_h5_open(&file, path, NULL) == LP_OK &&
                lp_h5_open_group(&contents, file, "contents", NULL) == LP_OK &&
                lp_h5_get_strings(&lines, &n, contents, "shards", MOST_SHARDS, NULL) == LP_OK && (size_t)n == m->n &&
                lp_h5_get_int(&out->n_tokens, file, "n_tokens", 0, INT64_MAX, NULL) == LP_OK &&
                lp_h5_get_int(&out->n_values, file, "nnz", 0, INT64_MAX, NULL) == LP_OK;
    for (size_t i = 0; same && i < m->n; i++) same = strcmp(lines[i], m->lines[i]) == 0;
    lp_h5_free_strings(lines, n);
    lp_h5_close_group(&contents);
    lp_h5_close(&file, NULL);
    return same;
}

/* ---- one shard after the other ----------------------------------------------------------------------------------- */

static lp_status begin_column(merge *m, const char *group, const char *name, lp_error *err)
{
    hid_t g = -1;
    LP_TRY(lp_h5_make_group(&g, m->file, group, err));
    lp_status st = lp_h5_column_begin(&m->columns[m->n_columns++], g, name, LP_H5_I64, 0, err);
    lp_h5_close_group(&g);
    return st;
}

static lp_status begin(merge *m, lp_error *err)
{
    const lp_shard_head *h = &m->first->head;
    size_t n = (size_t)h->n_saes;
    m->counts = lp_calloc((VALUES + n) * m->n, sizeof *m->counts);
    m->total = lp_calloc(VALUES + n, sizeof *m->total);
    m->columns = lp_calloc(INDPTR + n, sizeof *m->columns);
    if (!m->counts || !m->total || !m->columns) return lp_fail(err, LP_E_MEMORY, "out of memory");
    LP_TRY(begin_column(m, "tokens", "doc", err));
    LP_TRY(begin_column(m, "documents", "token_ptr", err));
    LP_TRY(begin_column(m, "documents", "text_ptr", err));
    LP_TRY(begin_column(m, "documents", "key_ptr", err));
    for (int i = 0; i < h->n_saes; i++) LP_TRY(begin_column(m, lp_shard_sae_path(&h->saes[i]).text, "indptr", err));
    return LP_OK;
}

static bool is_alike(const lp_shard_head *a, const lp_shard_head *b)
{
    bool same = strcmp(a->run, b->run) == 0 && a->n_saes == b->n_saes && a->n_dense == b->n_dense &&
                a->has_logprob == b->has_logprob && a->vocab == b->vocab && a->value_bits == b->value_bits;
    for (int i = 0; same && i < a->n_saes; i++)
        same = strcmp(a->saes[i].hash, b->saes[i].hash) == 0 && a->saes[i].d_sae == b->saes[i].d_sae &&
               strcmp(lp_shard_sae_path(&a->saes[i]).text, lp_shard_sae_path(&b->saes[i]).text) == 0;
    for (int i = 0; same && i < a->n_dense; i++)
        same = a->dense[i].site == b->dense[i].site && a->dense[i].layer == b->dense[i].layer &&
               a->dense[i].width == b->dense[i].width && a->dense[i].type == b->dense[i].type;
    return same;
}

/* A pointer column of n + 1, which counts on from what came before: its own 0 only at the start of the run. */
static lp_status add_ptr(merge *m, int column, int what, const lp_shard *s, size_t shard, const char *path, size_t n,
                         lp_error *err)
{
    if (!lp_grow((void **)&m->numbers, &m->room_numbers, n + 1, sizeof *m->numbers))
        return lp_fail(err, LP_E_MEMORY, "out of memory");
    LP_TRY(lp_h5_get_column(m->numbers, s->file, path, LP_H5_I64, n + 1, 0, err));
    for (size_t i = 0; i <= n; i++) {
        if (m->numbers[i] < (i ? m->numbers[i - 1] - m->total[what] : 0) || (i == 0 && m->numbers[i] != 0))
            return lp_fail(err, LP_E_FORMAT, "%s does not rise", path);
        m->numbers[i] += m->total[what];
    }
    m->counts[(size_t)what * m->n + shard] = m->numbers[n] - m->total[what];
    m->total[what] = m->numbers[n];
    return lp_h5_column_put(&m->columns[column], m->numbers + (shard > 0), n + (shard == 0), &m->deflater, err);
}

/* tokens/doc follows from where the documents begin, which reading has checked. */
static lp_status add_documents(merge *m, const lp_shard *s, size_t shard, lp_error *err)
{
    size_t n = (size_t)s->head.n_documents;
    for (size_t d = 0; d < n; d++) {
        int64_t number = m->total[DOCUMENTS] + (int64_t)d;
        for (int r = s->token_ptr[d]; r < s->token_ptr[d + 1]; r++)
            LP_TRY(lp_h5_column_put(&m->columns[DOC], &number, 1, &m->deflater, err));
    }
    m->counts[DOCUMENTS * m->n + shard] = (int64_t)n;
    m->total[DOCUMENTS] += (int64_t)n;
    LP_TRY(add_ptr(m, TEXT_PTR, TEXT, s, shard, "documents/text_ptr", n, err));
    LP_TRY(add_ptr(m, KEY_PTR, KEY, s, shard, "documents/key_ptr", n, err));
    return add_ptr(m, TOKEN_PTR, TOKENS, s, shard, "documents/token_ptr", n, err);
}

static lp_status add_shard(merge *m, const lp_shard *s, size_t shard, lp_error *err)
{
    const lp_shard_head *h = &s->head;
    if (!is_alike(h, &m->first->head) || strcmp(h->run, m->run) != 0 || (size_t)h->number != shard ||
        h->token_base != m->total[TOKENS])
        return lp_fail(err, LP_E_FORMAT, "not shard %zu of this run", shard);
    LP_TRY(add_documents(m, s, shard, err));
    for (int i = 0; i < h->n_saes; i++) {
        char path[LP_SHARD_PATH + 8];
        snprintf(path, sizeof path, "%s/indptr", lp_shard_sae_path(&h->saes[i]).text);
        LP_TRY(add_ptr(m, INDPTR + i, VALUES + i, s, shard, path, (size_t)h->n_tokens, err));
    }
    return LP_OK;
}

static lp_status pass(merge *m, size_t shard, lp_error *err)
{
    char *path = lp_path_join(m->folder, name_of(m, shard));
    lp_shard *s = NULL;
    if (!path) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_status st = lp_shard_open(&s, path, LP_SHARD_HASHED, m->env, err);
    lp_h5_lock();
    bool is_first = st == LP_OK && !m->first;
    if (is_first) m->first = s, st = begin(m, err);
    if (st == LP_OK && (st = add_shard(m, s, shard, err)) < 0) lp_prefix(err, st, path);
    if (!is_first) lp_shard_close_locked(s);
    lp_h5_unlock();
    free(path);
    return st;
}

/* ---- the views --------------------------------------------------------------------------------------------------- */

static lp_status view(merge *m, const char *group, const char *name, lp_h5_type t, int width, int what, lp_error *err)
{
    char path[LP_SHARD_PATH + 32];
    hid_t g = -1;
    snprintf(path, sizeof path, "%s/%s", group, name);
    for (size_t i = 0; i < m->n; i++) m->sources[i].n = (uint64_t)m->counts[(size_t)what * m->n + i];
    LP_TRY(lp_h5_make_group(&g, m->file, group, err));
    lp_h5_close_group(&g);
    return lp_h5_put_virtual(m->file, path, t, width, m->sources, m->n, err);
}

static lp_status view_tokens(merge *m, lp_error *err)
{
    static const struct {
        const char *group, *name;
        lp_h5_type type;
        int width, what;
    } sets[] = {{"tokens", "id", LP_H5_I32, 0, TOKENS},
                {"tokens", "pos", LP_H5_I32, 0, TOKENS},
                {"tokens", "excluded", LP_H5_U8, 0, TOKENS},
                {"documents", "doc_id", LP_H5_I64, 0, DOCUMENTS},
                {"documents", "first_token", LP_H5_I64, 0, DOCUMENTS},
                {"documents", "hash", LP_H5_U8, 16, DOCUMENTS},
                {"documents", "is_utf8", LP_H5_U8, 0, DOCUMENTS},
                {"documents", "text", LP_H5_U8, 0, TEXT},
                {"documents", "key", LP_H5_U8, 0, KEY}};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        LP_TRY(view(m, sets[i].group, sets[i].name, sets[i].type, sets[i].width, sets[i].what, err));
    return m->first->head.has_logprob ? view(m, "tokens", "logprob", LP_H5_F32, 0, TOKENS, err) : LP_OK;
}

static lp_status view_sae(merge *m, int i, lp_error *err)
{
    const lp_shard_sae *s = &m->first->head.saes[i];
    lp_shard_path at = lp_shard_sae_path(s);
    hid_t g = -1;
    LP_TRY(view(m, at.text, "indices", LP_H5_I32, 0, VALUES + i, err));
    LP_TRY(view(m, at.text, "data", LP_H5_F32, 0, VALUES + i, err));
    char recon[LP_SHARD_PATH + 8];
    snprintf(recon, sizeof recon, "%s/recon", at.text);
    LP_TRY(view(m, recon, "sqerr", LP_H5_F32, 0, TOKENS, err));
    LP_TRY(view(m, recon, "norm2", LP_H5_F32, 0, TOKENS, err));
    LP_TRY(lp_h5_open_group(&g, m->file, at.text, err));
    lp_status st = lp_shard_put_sae(g, s, m->total[TOKENS], m->total[VALUES + i], err);
    lp_h5_close_group(&g);
    return st;
}

static lp_status view_dense(merge *m, const lp_shard_dense *d, lp_error *err)
{
    lp_shard_path at = lp_shard_dense_path(d);
    hid_t g = -1;
    LP_TRY(view(m, at.text, "values", lp_shard_dense_type(d->type), d->width, TOKENS, err));
    LP_TRY(lp_h5_open_group(&g, m->file, at.text, err));
    hid_t set = H5Dopen2(g, "values", H5P_DEFAULT);
    lp_status st = set < 0 ? lp_h5_fail(err, LP_E_IO, "%s", at.text) : lp_shard_put_dense(set, d, err);
    H5Dclose(set);
    lp_h5_close_group(&g);
    return st;
}

static lp_status put_root(merge *m, int64_t n_values, lp_error *err)
{
    const lp_shard_head *h = &m->first->head;
    const char *texts[][2] = {{"Conventions", "Lapidary-1.0 AnnData-sparse-0.1.0"},
                              {"lapidary_format", "run"},
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
                   {"n_shards", (int64_t)m->n},
                   {"n_tokens", m->total[TOKENS]},
                   {"n_documents", m->total[DOCUMENTS]},
                   {"nnz", n_values},
                   {"vocab", h->vocab},
                   {"value_bits", h->value_bits}};
    LP_TRY(lp_h5_put_strings(m->file, "provenance", &h->provenance, -1, err));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        LP_TRY(lp_h5_put_text(m->file, texts[i][0], texts[i][1], err));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        LP_TRY(lp_h5_put_int(m->file, numbers[i].name, numbers[i].n, err));
    LP_TRY(lp_shard_put_contents(m->file, h, err));
    hid_t g = -1;
    LP_TRY(lp_h5_open_group(&g, m->file, "contents", err));
    lp_status st = lp_h5_put_strings(g, "shards", (const char *const *)m->lines, (int)m->n, err);
    lp_h5_close_group(&g);
    return st;
}

static lp_status finish(merge *m, lp_merged *out, lp_error *err)
{
    const lp_shard_head *h = &m->first->head;
    for (int i = 0; i < m->n_columns; i++) LP_TRY(lp_h5_column_end(&m->columns[i], &m->deflater, err));
    LP_TRY(view_tokens(m, err));
    for (int i = 0; i < h->n_saes; i++) {
        LP_TRY(view_sae(m, i, err));
        out->n_values += m->total[VALUES + i];
    }
    for (int i = 0; i < h->n_dense; i++) LP_TRY(view_dense(m, &h->dense[i], err));
    out->n_tokens = m->total[TOKENS];
    LP_TRY(put_root(m, out->n_values, err));
    return lp_h5_close(&m->file, err);
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static lp_status write_file(merge *m, lp_merged *out, const char *part, lp_error *err)
{
    lp_h5_lock();
    unlink(part);
    lp_status st = lp_h5_create(&m->file, part, err);
    lp_h5_unlock();
    for (size_t i = 0; i < m->n && st == LP_OK; i++) {
        if (lp_cancelled(m->env)) return LP_CANCELLED;
        st = pass(m, i, err);
        lp_progress(m->env, "merging", (int64_t)i + 1, (int64_t)m->n);
    }
    lp_h5_lock();
    if (st == LP_OK && (st = finish(m, out, err)) < 0) lp_prefix(err, st, part);
    lp_h5_unlock();
    LP_TRY(st);
    int fd = open(part, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0 || rename(part, out->path) != 0)
        st = lp_fail(err, LP_E_IO, "%s: cannot write: %s", out->path, strerror(errno));
    if (fd >= 0) close(fd);
    if (st == LP_OK) lp_sync_folder(m->folder);
    return st;
}

static void clear(merge *m)
{
    lp_h5_lock();
    for (int i = 0; i < m->n_columns; i++) lp_h5_column_close(&m->columns[i]);
    lp_h5_close(&m->file, NULL);
    lp_shard_close_locked(m->first);
    lp_h5_unlock();
    lp_h5_deflater_free(&m->deflater);
    for (size_t i = 0; m->lines && i < m->n; i++) free(m->lines[i]);
    free(m->lines), free(m->sources), free(m->counts), free(m->total), free(m->columns), free(m->numbers);
}

lp_status lp_run_merge(lp_merged *out, const char *run_folder, const lp_env *env, lp_error *err)
{
    merge m = {.folder = run_folder, .env = env, .file = -1};
    char host[64] = "", *part = NULL;
    gethostname(host, sizeof host - 1);
    *out = (lp_merged){.path = lp_path_join(run_folder, "run.h5")};
    part = lp_format("%s/.run.h5.%s.%ld.part", run_folder, host, (long)getpid());
    lp_status st = out->path && part ? read_run(&m, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = find_shards(&m, err);
    if (st == LP_OK) {
        out->n_shards = m.n;
        lp_h5_lock();
        out->was_there = is_current(out, &m, out->path);
        lp_h5_unlock();
    }
    if (st == LP_OK && !out->was_there) {
        out->n_tokens = out->n_values = 0;
        st = lp_h5_deflater_new(&m.deflater, err);
        if (st == LP_OK) st = write_file(&m, out, part, err);
        if (st != LP_OK) unlink(part);
    }
    clear(&m);
    free(part);
    if (st != LP_OK) lp_merged_clear(out);
    return st;
}

void lp_merged_clear(lp_merged *m)
{
    free(m->path);
    *m = (lp_merged){0};
}
