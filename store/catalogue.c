/* catalogue.c - see catalogue.h: opening and making it, labels, which SAEs it knows. */
#include "store/catalogue_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern const char lp_store_schema[]; /* schema.sql, by CMake */

/* ---- opening ------------------------------------------------------------------------------------------------------ */

char *lp_catalogue_path(const char *store)
{
    return lp_path_join(store, "catalog.sqlite");
}

/* A process that did not close it left this behind. */
static bool has_wal(const char *path)
{
    struct stat s;
    char *wal = lp_format("%s-wal", path);
    bool has = wal && stat(wal, &s) == 0 && s.st_size > 0;
    free(wal);
    return has;
}

/* Is it ours (1), nothing yet (0), something else (an error)? */
static lp_status look(int64_t *is_ours, const lp_sql *q, lp_error *err)
{
    int64_t id, version, tables;
    LP_TRY(lp_sql_number(&id, q, "PRAGMA application_id", err));
    LP_TRY(lp_sql_number(&version, q, "PRAGMA user_version", err));
    LP_TRY(lp_sql_number(&tables, q, "SELECT count(*) FROM sqlite_schema", err));
    *is_ours = id == LP_CATALOGUE_ID;
    if (!*is_ours && (id || version || tables))
        return lp_fail(err, LP_E_UNSUPPORTED, "%s: a database, but not a catalogue of ours; it is left alone", q->path);
    if (*is_ours && version > LP_CATALOGUE_VERSION)
        return lp_fail(err, LP_E_UNSUPPORTED, "%s: of version %lld, this program knows %d; use a newer one", q->path,
                       (long long)version, LP_CATALOGUE_VERSION);
    return LP_OK;
}

static lp_status make(const lp_sql *q, lp_error *err)
{
    int64_t is_ours;
    LP_TRY(lp_sql_exec(q, "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; BEGIN IMMEDIATE", err));
    lp_status st = look(&is_ours, q, err); /* somebody may have been faster */
    if (st == LP_OK && !is_ours) st = lp_sql_exec(q, lp_store_schema, err);
    lp_status end = lp_sql_exec(q, st == LP_OK ? "COMMIT" : "ROLLBACK", st == LP_OK ? err : NULL);
    return st != LP_OK ? st : end;
}

static lp_status prepare_writing(const lp_sql *q, bool was_unclean, lp_error *err)
{
    int64_t is_ours;
    LP_TRY(look(&is_ours, q, err));
    if (!is_ours) LP_TRY(make(q, err));
    if (was_unclean) {
        lp_sql_statement s = {0};
        bool has_row;
        LP_TRY(lp_sql_prepare(&s, q, "PRAGMA quick_check(1)", err));
        lp_status st = lp_sql_step(&s, &has_row, err);
        if (st == LP_OK && (!has_row || strcmp(lp_sql_text(&s, 0), "ok") != 0))
            st = lp_fail(err, LP_E_FORMAT, "%s: damaged: %.100s", q->path, has_row ? lp_sql_text(&s, 0) : "no answer");
        lp_sql_finish(&s);
        LP_TRY(st);
    }
    return lp_sql_exec(q, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON", err);
}

static lp_status prepare_reading(const lp_sql *q, lp_error *err)
{
    int64_t is_ours;
    LP_TRY(look(&is_ours, q, err));
    if (!is_ours) return lp_fail(err, LP_E_FORMAT, "%s: empty; lapidary index DIR fills it", q->path);
    return lp_sql_exec(q, "PRAGMA query_only = ON", err);
}

/* "file:PATH?immutable=1": how a store that cannot be written is read, where SQLite finds no room for its shared memory. */
static char *immutable_uri(const char *path)
{
    char *uri = lp_calloc(3 * strlen(path) + 32, 1), *at = uri;
    if (!uri) return NULL;
    at += sprintf(at, "file:");
    for (const char *p = path; *p; p++)
        at += sprintf(at, strchr("?#%", *p) ? "%%%02x" : "%c", (unsigned)(unsigned char)*p);
    sprintf(at, "?immutable=1");
    return uri;
}

static lp_status open_sql(lp_sql *q, const char *store, const char *path, lp_catalogue_mode mode, lp_error *err)
{
    if (mode == LP_CATALOGUE_WRITE) return lp_sql_open(q, path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, err);
    if (!lp_is_file(path))
        return lp_fail(err, LP_E_NOT_FOUND, "%s: no catalogue here; lapidary index %s makes it", path, store);
    if (access(store, W_OK) == 0 || has_wal(path)) return lp_sql_open(q, path, SQLITE_OPEN_READONLY, err);
    char *uri = immutable_uri(path);
    lp_status st = uri ? lp_sql_open(q, uri, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, err)
                       : lp_fail(err, LP_E_MEMORY, "out of memory");
    free(uri);
    return st;
}

lp_status lp_catalogue_open_at(lp_catalogue **out, const char *store, const char *path, lp_catalogue_mode mode,
                               const lp_env *env, lp_error *err)
{
    static const lp_env none;
    *out = NULL;
    if (!lp_is_dir(store)) return lp_fail(err, LP_E_NOT_FOUND, "%s: no such folder", store);
    lp_catalogue *c = lp_calloc(1, sizeof *c);
    if (!c) return lp_fail(err, LP_E_MEMORY, "out of memory");
    bool was_unclean = has_wal(path);
    c->env = env ? *env : none;
    c->store = lp_strdup(store);
    lp_status st = c->store ? open_sql(&c->sql, store, path, mode, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK)
        st = mode == LP_CATALOGUE_WRITE ? prepare_writing(&c->sql, was_unclean, err) : prepare_reading(&c->sql, err);
    if (st == LP_OK)
        *out = c;
    else
        lp_catalogue_close(c);
    return st;
}

lp_status lp_catalogue_open(lp_catalogue **out, const char *store, lp_catalogue_mode mode, const lp_env *env,
                            lp_error *err)
{
    char *path = lp_catalogue_path(store);
    *out = NULL;
    lp_status st = path ? lp_catalogue_open_at(out, store, path, mode, env, err)
                        : lp_fail(err, LP_E_MEMORY, "out of memory");
    free(path);
    return st;
}

void lp_catalogue_close(lp_catalogue *c)
{
    if (!c) return;
    lp_sql_close(&c->sql);
    free(c->store);
    free(c);
}

/* ---- rows of features --------------------------------------------------------------------------------------------- */

lp_status lp_tally_of_row(lp_tally *out, const lp_sql_statement *s, int column, lp_error *err)
{
    size_t n_hist, n_top, n_rest;
    *out = (lp_tally){.n_active = lp_sql_int(s, column), .n_docs = lp_sql_int(s, column + 1)};
    out->max = (float)lp_sql_real(s, column + 4);
    const void *hist = lp_sql_blob(s, column + 5, &n_hist), *top = lp_sql_blob(s, column + 6, &n_top),
               *rest = lp_sql_blob(s, column + 7, &n_rest);
    if (out->n_active > 0 && lp_tally_unpack_hist(out, hist, n_hist) && lp_tally_unpack_top(out, top, n_top) &&
        lp_tally_unpack_rest(out, lp_sql_real(s, column + 2), lp_sql_real(s, column + 3), rest, n_rest))
        return LP_OK;
    return lp_fail(err, LP_E_FORMAT, "%s: a damaged row; lapidary index --rebuild makes it anew", s->of->path);
}

/* ---- labels ------------------------------------------------------------------------------------------------------- */

static lp_status put_labels(const lp_catalogue *c, const lp_catalogue_labels *l, lp_error *err)
{
    lp_sql_statement drop = {0}, add = {0};
    lp_status st = lp_sql_prepare(&drop, &c->sql, "DELETE FROM label WHERE sae = ?", err);
    if (st == LP_OK)
        st = lp_sql_prepare(&add, &c->sql, "INSERT INTO label(sae, feature, text, kind) VALUES(?,?,?,?)", err);
    if (st == LP_OK) lp_sql_put_text(&drop, 1, l->sae, strlen(l->sae)), st = lp_sql_run(&drop, err);
    for (int i = 0; st == LP_OK && i < l->labels->n; i++) {
        const lp_label *x = &l->labels->items[i];
        if (!x->text) continue;
        lp_sql_put_text(&add, 1, l->sae, strlen(l->sae));
        lp_sql_put_int(&add, 2, i);
        lp_sql_put_text(&add, 3, x->text, strlen(x->text));
        lp_sql_put_text(&add, 4, x->kind, x->kind ? strlen(x->kind) : 0);
        st = lp_sql_run(&add, err);
    }
    lp_sql_finish(&drop), lp_sql_finish(&add);
    return st;
}

lp_status lp_catalogue_set_labels(lp_catalogue *c, const lp_catalogue_labels *list, int n, lp_error *err)
{
    LP_TRY(lp_sql_exec(&c->sql, "BEGIN IMMEDIATE", err));
    lp_status st = LP_OK;
    for (int i = 0; i < n && st == LP_OK; i++) st = put_labels(c, &list[i], err);
    if (st == LP_OK) st = lp_sql_exec(&c->sql, "INSERT INTO label_fts(label_fts) VALUES('rebuild'); COMMIT", err);
    if (st != LP_OK) lp_sql_exec(&c->sql, "ROLLBACK", NULL);
    return st;
}

/* ---- SAEs --------------------------------------------------------------------------------------------------------- */

lp_status lp_catalogue_saes(lp_catalogue_sae **out, int *n, const lp_catalogue *c, lp_error *err)
{
    lp_sql_statement s = {0};
    size_t room = 0;
    bool has_row = false;
    *out = NULL, *n = 0;
    lp_status st = lp_sql_prepare(&s, &c->sql,
                                  "SELECT min(name), hash, max(d_sae), (SELECT count(*) FROM label WHERE "
                                  "label.sae = sae.hash) FROM sae GROUP BY hash ORDER BY min(name), hash",
                                  err);
    while (st == LP_OK && (st = lp_sql_step(&s, &has_row, err)) == LP_OK && has_row) {
        if (!lp_grow((void **)out, &room, (size_t)*n + 1, sizeof **out)) {
            st = lp_fail(err, LP_E_MEMORY, "out of memory");
            break;
        }
        lp_catalogue_sae *x = &(*out)[*n];
        *x = (lp_catalogue_sae){.name = lp_strdup(lp_sql_text(&s, 0)), .d_sae = (int)lp_sql_int(&s, 2)};
        snprintf(x->hash, sizeof x->hash, "%s", lp_sql_text(&s, 1));
        x->n_labels = lp_sql_int(&s, 3);
        if (x->name)
            ++*n;
        else
            st = lp_fail(err, LP_E_MEMORY, "out of memory");
    }
    lp_sql_finish(&s);
    if (st != LP_OK) lp_catalogue_free_saes(*out, *n), *out = NULL, *n = 0;
    return st;
}

void lp_catalogue_free_saes(lp_catalogue_sae *list, int n)
{
    for (int i = 0; i < n; i++) free(list[i].name);
    free(list);
}
