/* store_index.c - see catalogue.h: which shards a store has, and all of them into its catalogue. */
#include "store/catalogue_parts.h"
#include "store/run_folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- what is there ------------------------------------------------------------------------------------------------ */

char *lp_store_path(const char *store, const char *run, int number)
{
    return number < 0 ? lp_format("%s/runs/%s", store, run) : lp_format("%s/runs/%s/shard-%06d.h5", store, run, number);
}

static bool is_shard(const char *name, int *number)
{
    char again[32];
    if (sscanf(name, "shard-%6d.h5", number) != 1 || *number < 0) return false;
    snprintf(again, sizeof again, "shard-%06d.h5", *number);
    return strcmp(name, again) == 0;
}

typedef struct list {
    lp_store_shard *items;
    size_t n, capacity;
} list;

static lp_status list_run(list *l, const char *store, const char *run, lp_error *err)
{
    char *path = lp_store_path(store, run, -1);
    DIR *dir = path ? opendir(path) : NULL;
    lp_status st = dir ? LP_OK : lp_fail(err, LP_E_IO, "%s: cannot read: %s", path ? path : run, strerror(errno));
    for (struct dirent *e; st == LP_OK && (e = readdir(dir));) {
        lp_store_shard x = {.number = 0};
        if (!is_shard(e->d_name, &x.number)) continue;
        snprintf(x.run, sizeof x.run, "%s", run);
        if (lp_grow((void **)&l->items, &l->capacity, l->n + 1, sizeof *l->items))
            l->items[l->n++] = x;
        else
            st = lp_fail(err, LP_E_MEMORY, "out of memory");
    }
    if (dir) closedir(dir);
    free(path);
    return st;
}

static int by_place(const void *a, const void *b)
{
    const lp_store_shard *x = a, *y = b;
    int order = strcmp(x->run, y->run);
    return order ? order : (x->number > y->number) - (x->number < y->number);
}

lp_status lp_store_list(lp_store_shard **out, size_t *n, const char *store, lp_error *err)
{
    char *folder = lp_path_join(store, "runs"), **runs = NULL;
    size_t n_runs = 0;
    list l = {0};
    bool is_store = folder && lp_is_dir(folder);
    free(folder);
    *out = NULL, *n = 0;
    if (!is_store)
        return lp_fail(err, LP_E_NOT_FOUND, "%s: no store of activations; lapidary extract makes one", store);
    lp_status st = lp_run_list(&runs, &n_runs, store, err);
    for (size_t i = 0; i < n_runs; i++) {
        if (st == LP_OK) st = list_run(&l, store, runs[i], err);
        free(runs[i]);
    }
    free(runs);
    if (st != LP_OK) free(l.items), l = (list){0};
    if (l.n) qsort(l.items, l.n, sizeof *l.items, by_place);
    *out = l.items, *n = l.n;
    return st;
}

/* ---- all of it ---------------------------------------------------------------------------------------------------- */

static lp_status ingest_all(lp_index_result *made, lp_catalogue *c, lp_error *err)
{
    lp_store_shard *shards;
    size_t n;
    LP_TRY(lp_store_list(&shards, &n, c->store, err));
    lp_status st = LP_OK;
    for (size_t i = 0; i < n && st == LP_OK; i++) {
        bool is_new = false;
        st = lp_catalogue_ingest(c, shards[i].run, shards[i].number, &is_new, err);
        made->added += is_new;
        made->runs += i == 0 || strcmp(shards[i].run, shards[i - 1].run) != 0;
        made->shards++;
        lp_progress(&c->env, "indexing", (int64_t)i + 1, (int64_t)n);
    }
    free(shards);
    return st;
}

static lp_status add_missing(lp_index_result *made, const char *store, const lp_env *env, lp_error *err)
{
    lp_catalogue *c;
    LP_TRY(lp_catalogue_open(&c, store, LP_CATALOGUE_WRITE, env, err));
    lp_status st = ingest_all(made, c, err);
    if (st == LP_OK && made->added)
        st = lp_sql_exec(&c->sql, "INSERT INTO passage_fts(passage_fts) VALUES('optimize'); PRAGMA optimize", err);
    lp_catalogue_close(c);
    return st;
}

/* ---- anew --------------------------------------------------------------------------------------------------------- */

static void remove_database(const char *path)
{
    static const char *const tails[] = {"", "-wal", "-shm", "-journal"};
    for (int i = 0; i < 4; i++) {
        char *name = lp_format("%s%s", path, tails[i]);
        if (name) unlink(name);
        free(name);
    }
}

/* Labels are not in the shards, so the old catalogue's go along as far as they can be read. */
static void keep_labels(const lp_catalogue *to, const lp_catalogue *from)
{
    lp_sql_statement get = {0}, put = {0};
    bool has_row = false;
    lp_status st = lp_sql_prepare(&get, &from->sql, "SELECT sae, feature, text, kind FROM label ORDER BY label_id",
                                  NULL);
    if (st == LP_OK)
        st = lp_sql_prepare(&put, &to->sql, "INSERT INTO label(sae, feature, text, kind) VALUES(?,?,?,?)", NULL);
    if (st == LP_OK) st = lp_sql_exec(&to->sql, "BEGIN", NULL);
    while (st == LP_OK && lp_sql_step(&get, &has_row, NULL) == LP_OK && has_row) {
        for (int i = 0; i < 4; i++) sqlite3_bind_value(put.s, i + 1, sqlite3_column_value(get.s, i));
        st = lp_sql_run(&put, NULL);
    }
    lp_sql_finish(&get), lp_sql_finish(&put);
    lp_sql_exec(&to->sql, "INSERT INTO label_fts(label_fts) VALUES('rebuild'); COMMIT", NULL);
}

/* One transaction on the old file, so that whoever reads it is not disturbed. */
static lp_status pour_over(lp_catalogue *old, lp_catalogue *fresh, lp_error *err)
{
    sqlite3_backup *b = sqlite3_backup_init(old->sql.db, "main", fresh->sql.db, "main");
    if (!b) return lp_sql_fail(&old->sql, sqlite3_errcode(old->sql.db), err);
    int code = sqlite3_backup_step(b, -1), end = sqlite3_backup_finish(b);
    if (code != SQLITE_DONE) return lp_sql_fail(&old->sql, end != SQLITE_OK ? end : code, err);
    return LP_OK;
}

/* What is there and no catalogue of ours is in nobody's use. */
static lp_status replace_file(const char *path, const char *fresh, lp_error *err)
{
    remove_database(path);
    if (rename(fresh, path) == 0) return LP_OK;
    return lp_fail(err, LP_E_IO, "%s: cannot rename to %s: %s", fresh, path, strerror(errno));
}

static lp_status fill_fresh(lp_index_result *made, lp_catalogue *c, lp_error *err)
{
    lp_status st = ingest_all(made, c, err);
    if (st == LP_OK)
        st = lp_sql_exec(&c->sql,
                         "INSERT INTO passage_fts(passage_fts) VALUES('optimize'); PRAGMA optimize; "
                         "PRAGMA wal_checkpoint(TRUNCATE)",
                         err);
    return st;
}

static lp_status rebuild(lp_index_result *made, const char *store, const char *path, const char *fresh,
                         const lp_env *env, lp_error *err)
{
    lp_catalogue *c = NULL, *old = NULL;
    lp_error why;
    remove_database(fresh);
    lp_status st = lp_is_file(path) ? lp_catalogue_open(&old, store, LP_CATALOGUE_WRITE, NULL, &why) : LP_OK;
    if (st == LP_E_FORMAT) {
        lp_log(env, LP_WARN, "%s; it is replaced", why.text);
        st = LP_OK;
    } else if (st != LP_OK) {
        return lp_fail(err, st, "%s", why.text);
    }
    st = lp_catalogue_open_at(&c, store, fresh, LP_CATALOGUE_WRITE, env, err);
    if (st == LP_OK) st = fill_fresh(made, c, err);
    if (st == LP_OK && old) {
        keep_labels(c, old);
        st = pour_over(old, c, err);
    }
    lp_catalogue_close(c);
    if (st == LP_OK && !old) st = replace_file(path, fresh, err);
    lp_catalogue_close(old);
    remove_database(fresh);
    return st;
}

lp_status lp_store_index(lp_index_result *made, const char *store, bool is_rebuild, const lp_env *env, lp_error *err)
{
    lp_index_result mine, *m = made ? made : &mine;
    *m = (lp_index_result){0};
    if (!is_rebuild) return add_missing(m, store, env, err);
    char *path = lp_catalogue_path(store), *fresh = path ? lp_format("%s.new", path) : NULL;
    lp_status st = fresh ? rebuild(m, store, path, fresh, env, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    free(path), free(fresh);
    return st;
}
