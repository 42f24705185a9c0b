/* catalogue_ingest.c - see catalogue.h: one sealed shard, by one transaction.
 *
 * The bytes are held against the hash they were sealed with before libhdf5 sees any of them; after that size and time of
 * the file stand for them.
 */
#include "core/utf8.h"
#include "store/catalogue_parts.h"
#include "store/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct ingest {
    lp_catalogue *c;
    const char *run, *path;
    int number;
    char hash[33];
    int64_t bytes, mtime_ns;
    lp_shard *s;
    const lp_shard_head *head;
    lp_shard_rows rows;
    int64_t run_id;
} ingest;

static lp_status look_at_file(ingest *x, lp_error *err)
{
    struct stat s;
    if (stat(x->path, &s) != 0) return lp_fail(err, LP_E_NOT_FOUND, "%s: no such file", x->path);
    x->bytes = (int64_t)s.st_size;
    x->mtime_ns = (int64_t)s.st_mtim.tv_sec * 1000000000 + s.st_mtim.tv_nsec;
    return lp_shard_side_hash(x->hash, x->path, err);
}

/* ---- is it there? ------------------------------------------------------------------------------------------------- */

/* *is_touched: the file is not as it was, so its bytes must be looked at again. */
static lp_status find_shard(const ingest *x, bool *is_there, bool *is_touched, lp_error *err)
{
    lp_sql_statement s = {0};
    *is_touched = false;
    lp_status st = lp_sql_prepare(&s, &x->c->sql,
                                  "SELECT shard.hash, bytes, mtime_ns FROM shard JOIN run USING(run_id) "
                                  "WHERE run.hash = ? AND number = ?",
                                  err);
    if (st == LP_OK) {
        lp_sql_put_text(&s, 1, x->run, strlen(x->run));
        lp_sql_put_int(&s, 2, x->number);
        st = lp_sql_step(&s, is_there, err);
    }
    if (st == LP_OK && *is_there) {
        *is_touched = lp_sql_int(&s, 1) != x->bytes || lp_sql_int(&s, 2) != x->mtime_ns;
        if (strcmp(lp_sql_text(&s, 0), x->hash) != 0)
            st = lp_fail(err, LP_E_FORMAT,
                         "%s: sealed as %s, but the catalogue took it in as %s; lapidary index --rebuild goes by the "
                         "files",
                         x->path, x->hash, lp_sql_text(&s, 0));
    }
    lp_sql_finish(&s);
    return st;
}

static lp_status note_time(const ingest *x, lp_error *err)
{
    lp_sql_statement s = {0};
    char now[33];
    LP_TRY(lp_file_hash(now, x->path, &x->c->env, err));
    if (strcmp(now, x->hash) != 0)
        return lp_fail(err, LP_E_FORMAT, "%s: damaged: its XXH3-128 is %s, it was sealed as %s", x->path, now, x->hash);
    lp_status st = lp_sql_prepare(&s, &x->c->sql,
                                  "UPDATE shard SET mtime_ns = ? WHERE number = ? AND run_id = "
                                  "(SELECT run_id FROM run WHERE hash = ?)",
                                  err);
    if (st == LP_OK) {
        lp_sql_put_int(&s, 1, x->mtime_ns);
        lp_sql_put_int(&s, 2, x->number);
        lp_sql_put_text(&s, 3, x->run, strlen(x->run));
        st = lp_sql_run(&s, err);
    }
    lp_sql_finish(&s);
    return st;
}

/* ---- the run ------------------------------------------------------------------------------------------------------ */

/* The plan's figures into parameters 8 to 10, where there is a plan. */
static lp_status put_plan(lp_sql_statement *s, const ingest *x, lp_error *err)
{
    char *folder = lp_store_path(x->c->store, x->run, -1), *path = folder ? lp_path_join(folder, "plan.jsonl") : NULL;
    lp_plan p = {0};
    lp_status st = path ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK && lp_is_file(path)) {
        st = lp_plan_read(&p, path, err);
        if (st == LP_OK && strcmp(p.hash, x->head->plan) != 0)
            st = lp_fail(err, LP_E_FORMAT, "%s: the shards were made by another plan", path);
        lp_sql_put_int(s, 8, (int64_t)p.n_shards);
        lp_sql_put_int(s, 9, p.n_tokens);
        lp_sql_put_int(s, 10, (int64_t)p.n_documents);
        lp_plan_clear(&p);
    }
    free(folder), free(path);
    return st;
}

static void put_word(lp_sql_statement *s, int at, const char *text)
{
    lp_sql_put_text(s, at, text ? text : "", text ? strlen(text) : 0);
}

static lp_status add_saes(const ingest *x, lp_error *err)
{
    lp_sql_statement s = {0};
    lp_status st = lp_sql_prepare(&s, &x->c->sql,
                                  "INSERT INTO sae(run_id, place, name, hash, site, layer, d_sae, d_out, n_values) "
                                  "VALUES(?,?,?,?,?,?,?,?,0)",
                                  err);
    for (int i = 0; st == LP_OK && i < x->head->n_saes; i++) {
        const lp_shard_sae *sae = &x->head->saes[i];
        lp_sql_put_int(&s, 1, x->run_id);
        lp_sql_put_int(&s, 2, i);
        put_word(&s, 3, sae->name);
        put_word(&s, 4, sae->hash);
        put_word(&s, 5, lp_site_name(sae->spot.site));
        lp_sql_put_int(&s, 6, sae->spot.layer);
        lp_sql_put_int(&s, 7, sae->d_sae);
        lp_sql_put_int(&s, 8, sae->d_out);
        st = lp_sql_run(&s, err);
    }
    lp_sql_finish(&s);
    return st;
}

static lp_status add_run(ingest *x, lp_error *err)
{
    const lp_shard_head *h = x->head;
    lp_sql_statement s = {0};
    lp_status st = lp_sql_prepare(&s, &x->c->sql,
                                  "INSERT INTO run(hash, plan, model, tokenizer, vocab, value_bits, provenance, "
                                  "plan_shards, plan_tokens, plan_documents) VALUES(?,?,?,?,?,?,?,?,?,?)",
                                  err);
    if (st == LP_OK) {
        put_word(&s, 1, h->run);
        put_word(&s, 2, h->plan);
        put_word(&s, 3, h->model_hash);
        put_word(&s, 4, h->tokenizer_hash);
        lp_sql_put_int(&s, 5, h->vocab);
        lp_sql_put_int(&s, 6, h->value_bits);
        put_word(&s, 7, h->provenance);
        st = put_plan(&s, x, err);
    }
    if (st == LP_OK) st = lp_sql_run(&s, err);
    lp_sql_finish(&s);
    if (st != LP_OK) return st;
    x->run_id = sqlite3_last_insert_rowid(x->c->sql.db);
    return add_saes(x, err);
}

/* The run's SAEs must be the shard's, one by one. */
static lp_status compare_saes(const ingest *x, lp_error *err)
{
    lp_sql_statement s = {0};
    bool has_row = false, is_same = true;
    int n = 0;
    lp_status st = lp_sql_prepare(&s, &x->c->sql, "SELECT hash, name FROM sae WHERE run_id = ? ORDER BY place", err);
    if (st == LP_OK) lp_sql_put_int(&s, 1, x->run_id);
    for (; st == LP_OK && (st = lp_sql_step(&s, &has_row, err)) == LP_OK && has_row; n++)
        is_same &= n < x->head->n_saes && strcmp(lp_sql_text(&s, 0), x->head->saes[n].hash) == 0 &&
                   strcmp(lp_sql_text(&s, 1), x->head->saes[n].name) == 0;
    lp_sql_finish(&s);
    if (st == LP_OK && (!is_same || n != x->head->n_saes))
        st = lp_fail(err, LP_E_FORMAT, "%s: its SAEs are not those of the run's other shards", x->path);
    return st;
}

static lp_status find_run(ingest *x, lp_error *err)
{
    const lp_shard_head *h = x->head;
    lp_sql_statement s = {0};
    bool has_row = false;
    lp_status st = lp_sql_prepare(&s, &x->c->sql,
                                  "SELECT run_id, plan, model, tokenizer, vocab FROM run WHERE hash = ?", err);
    if (st == LP_OK) put_word(&s, 1, h->run), st = lp_sql_step(&s, &has_row, err);
    if (st == LP_OK && has_row) {
        x->run_id = lp_sql_int(&s, 0);
        if (strcmp(lp_sql_text(&s, 1), h->plan) != 0 || strcmp(lp_sql_text(&s, 2), h->model_hash) != 0 ||
            strcmp(lp_sql_text(&s, 3), h->tokenizer_hash) != 0 || lp_sql_int(&s, 4) != h->vocab)
            st = lp_fail(err, LP_E_FORMAT, "%s: of another plan or model than the run's other shards", x->path);
    }
    lp_sql_finish(&s);
    if (st != LP_OK) return st;
    return has_row ? compare_saes(x, err) : add_run(x, err);
}

/* ---- documents ---------------------------------------------------------------------------------------------------- */

/* What can be shown and searched: whatever is not UTF-8, and NUL, is U+FFFD.  Grows *out. */
static lp_status display(char **out, size_t *room, size_t *n, const char *text, size_t bytes, lp_error *err)
{
    if (bytes > SIZE_MAX / 4 || !lp_grow((void **)out, room, 3 * bytes + 1, 1))
        return lp_fail(err, LP_E_MEMORY, "out of memory");
    *n = 0;
    for (size_t i = 0; i < bytes;) {
        int len = text[i] ? lp_utf8_next(text + i, bytes - i) : 0;
        memcpy(*out + *n, len > 0 ? text + i : "\xEF\xBF\xBD", len > 0 ? (size_t)len : 3);
        *n += len > 0 ? (size_t)len : 3;
        i += len > 0 ? (size_t)len : 1;
    }
    return LP_OK;
}

typedef struct writer {
    lp_sql_statement passage, fts;
    char *text, *key;
    size_t room_text, room_key;
} writer;

static lp_status add_document(writer *w, const ingest *x, const lp_shard_document *d, int i, lp_error *err)
{
    size_t n_text, n_key;
    int64_t id = x->run_id << LP_PASSAGE_RUN | (int64_t)x->number << LP_PASSAGE_BITS | i;
    LP_TRY(display(&w->text, &w->room_text, &n_text, d->text, d->text_bytes, err));
    LP_TRY(display(&w->key, &w->room_key, &n_key, d->key, d->key_bytes, err));
    lp_sql_statement *p = &w->passage;
    lp_sql_put_int(p, 1, id);
    lp_sql_put_int(p, 2, x->run_id);
    lp_sql_put_int(p, 3, d->id);
    lp_sql_put_text(p, 4, w->key, n_key);
    put_word(p, 5, d->hash);
    lp_sql_put_int(p, 6, d->first_token);
    lp_sql_put_int(p, 7, x->head->token_base + d->first_row);
    lp_sql_put_int(p, 8, d->n_rows);
    lp_sql_put_int(p, 9, (int64_t)d->text_bytes);
    lp_sql_put_int(p, 10, d->is_utf8);
    lp_sql_put_text(p, 11, w->text, n_text);
    LP_TRY(lp_sql_run(p, err));
    lp_sql_put_int(&w->fts, 1, id);
    lp_sql_put_text(&w->fts, 2, w->text, n_text);
    return lp_sql_run(&w->fts, err);
}

static lp_status add_documents(const ingest *x, lp_error *err)
{
    writer w = {0};
    lp_status st = lp_sql_prepare(&w.passage, &x->c->sql, "INSERT INTO passage VALUES(?,?,?,?,?,?,?,?,?,?,?)", err);
    if (st == LP_OK) st = lp_sql_prepare(&w.fts, &x->c->sql, "INSERT INTO passage_fts(rowid, text) VALUES(?,?)", err);
    for (int i = 0; st == LP_OK && i < x->head->n_documents; i++) {
        lp_shard_document d;
        st = lp_shard_read_document(&d, x->s, i, err);
        if (st != LP_OK) break;
        x->rows.document[i] = d.id;
        st = add_document(&w, x, &d, i, err);
        lp_shard_document_free(&d);
        if (st == LP_OK && lp_cancelled(&x->c->env)) st = LP_CANCELLED;
    }
    lp_sql_finish(&w.passage), lp_sql_finish(&w.fts);
    free(w.text), free(w.key);
    return st;
}

/* ---- the shard ---------------------------------------------------------------------------------------------------- */

static lp_status read_rows(ingest *x, lp_error *err)
{
    lp_shard_rows *r = &x->rows;
    size_t n = (size_t)(r->n = x->head->n_tokens), d = (size_t)x->head->n_documents;
    if (d >> LP_PASSAGE_BITS)
        return lp_fail(err, LP_E_UNSUPPORTED, "%s: %zu documents, at most %d", x->path, d, 1 << LP_PASSAGE_BITS);
    r->doc = lp_calloc(n ? n : 1, sizeof *r->doc), r->excluded = lp_calloc(n ? n : 1, 1);
    r->document = lp_calloc(d ? d : 1, sizeof *r->document);
    if (!r->doc || !r->excluded || !r->document) return lp_fail(err, LP_E_MEMORY, "out of memory");
    const lp_shard_tokens t = {.doc = r->doc, .excluded = r->excluded};
    return lp_shard_read_tokens(x->s, 0, (int)n, &t, err);
}

static lp_status add_shard(const ingest *x, lp_error *err)
{
    lp_sql_statement s = {0};
    int64_t counted = 0, values = 0;
    for (int i = 0; i < x->rows.n; i++) counted += x->rows.excluded[i] == LP_ROW_COUNTS;
    for (int i = 0; i < x->head->n_saes; i++) values += (int64_t)x->head->saes[i].n_values;
    lp_status st = lp_sql_prepare(&s, &x->c->sql, "INSERT INTO shard VALUES(?,?,?,?,?,?,?,?,?,?)", err);
    if (st == LP_OK) {
        const int64_t cells[] = {x->bytes, x->mtime_ns, x->head->token_base, x->rows.n, counted, x->head->n_documents,
                                 values};
        lp_sql_put_int(&s, 1, x->run_id);
        lp_sql_put_int(&s, 2, x->number);
        put_word(&s, 3, x->hash);
        for (int i = 0; i < 7; i++) lp_sql_put_int(&s, 4 + i, cells[i]);
        st = lp_sql_run(&s, err);
    }
    lp_sql_finish(&s);
    return st;
}

static lp_status add_features(const ingest *x, lp_error *err)
{
    lp_sql_statement find = {0}, count = {0};
    bool has_row = false;
    lp_status st = lp_sql_prepare(&find, &x->c->sql, "SELECT sae_id FROM sae WHERE run_id = ? AND place = ?", err);
    if (st == LP_OK)
        st = lp_sql_prepare(&count, &x->c->sql, "UPDATE sae SET n_values = n_values + ? WHERE sae_id = ?", err);
    for (int i = 0; st == LP_OK && i < x->head->n_saes; i++) {
        lp_sql_put_int(&find, 1, x->run_id);
        lp_sql_put_int(&find, 2, i);
        st = lp_sql_step(&find, &has_row, err);
        int64_t id = lp_sql_int(&find, 0);
        lp_sql_reset(&find);
        if (st != LP_OK) break;
        lp_sql_put_int(&count, 1, (int64_t)x->head->saes[i].n_values);
        lp_sql_put_int(&count, 2, id);
        st = lp_sql_run(&count, err);
        if (st == LP_OK) st = lp_catalogue_merge(x->c, id, x->s, i, &x->rows, err);
    }
    lp_sql_finish(&find), lp_sql_finish(&count);
    return st;
}

static lp_status check_head(const ingest *x, lp_error *err)
{
    if (strcmp(x->head->run, x->run) != 0)
        return lp_fail(err, LP_E_FORMAT, "%s: of run %s, in another run's folder", x->path, x->head->run);
    if (x->head->number != x->number)
        return lp_fail(err, LP_E_FORMAT, "%s: says it is shard %d", x->path, x->head->number);
    return LP_OK;
}

/* Everything, within a transaction. */
static lp_status take_in(ingest *x, lp_error *err)
{
    bool is_there, is_touched;
    LP_TRY(find_shard(x, &is_there, &is_touched, err)); /* somebody may have been faster */
    if (is_there) return LP_OK;
    LP_TRY(find_run(x, err));
    LP_TRY(add_shard(x, err));
    LP_TRY(add_documents(x, err));
    return add_features(x, err);
}

static lp_status open_and_take_in(ingest *x, lp_error *err)
{
    LP_TRY(lp_shard_open(&x->s, x->path, LP_SHARD_HASHED, &x->c->env, err));
    x->head = lp_shard_get_head(x->s);
    LP_TRY(check_head(x, err));
    LP_TRY(read_rows(x, err));
    LP_TRY(lp_sql_exec(&x->c->sql, "BEGIN IMMEDIATE", err));
    lp_status st = take_in(x, err);
    if (st == LP_OK) st = lp_sql_exec(&x->c->sql, "COMMIT", err);
    if (st != LP_OK) lp_sql_exec(&x->c->sql, "ROLLBACK", NULL);
    return st;
}

lp_status lp_catalogue_ingest(lp_catalogue *c, const char *run, int number, bool *is_new, lp_error *err)
{
    bool is_there = false, is_touched = false;
    char *path = lp_store_path(c->store, run, number);
    ingest x = {.c = c, .run = run, .number = number, .path = path};
    lp_status st = path ? look_at_file(&x, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = find_shard(&x, &is_there, &is_touched, err);
    if (st == LP_OK && is_touched) st = note_time(&x, err);
    if (st == LP_OK && !is_there) st = open_and_take_in(&x, err);
    if (is_new) *is_new = st == LP_OK && !is_there;
    lp_shard_close(x.s);
    free(x.rows.doc), free(x.rows.excluded), free(x.rows.document), free(path);
    return st;
}
