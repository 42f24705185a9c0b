/* annotations.c - the file: where it is, what makes it one of ours, its versions and copies; see annotations.h.
 *
 * A file that somebody sent is not trusted: its schema must be word for word the one made here, so no trigger or view of
 * a stranger's ever runs.  The tables FTS5 keeps for itself are left out of that, as each version of SQLite may spell
 * them in its own way.
 */
#include "store/annotations_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { APPLICATION = 0x4c415041 /* "LAPA" */, PATIENCE = 10000 /* ms */ };

static const char version_1[] =
    "CREATE TABLE sae(hash TEXT PRIMARY KEY, name TEXT NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE TABLE label(label_id INTEGER PRIMARY KEY AUTOINCREMENT, sae TEXT NOT NULL, feature INTEGER NOT NULL,"
    " text TEXT NOT NULL, author TEXT NOT NULL, method TEXT NOT NULL, score REAL, created INTEGER NOT NULL,"
    " UNIQUE(sae, feature, author, method, text)) STRICT;"
    "CREATE VIRTUAL TABLE label_fts USING fts5(text, content='label', content_rowid='label_id',"
    " tokenize='porter unicode61');"
    "CREATE TRIGGER label_in AFTER INSERT ON label BEGIN"
    " INSERT INTO label_fts(rowid, text) VALUES(new.label_id, new.text); END;"
    "CREATE TRIGGER label_out AFTER DELETE ON label BEGIN"
    " INSERT INTO label_fts(label_fts, rowid, text) VALUES('delete', old.label_id, old.text); END;"
    "CREATE TRIGGER label_change AFTER UPDATE ON label BEGIN"
    " INSERT INTO label_fts(label_fts, rowid, text) VALUES('delete', old.label_id, old.text);"
    " INSERT INTO label_fts(rowid, text) VALUES(new.label_id, new.text); END;"
    "CREATE TABLE list_item(item_id INTEGER PRIMARY KEY AUTOINCREMENT, list TEXT NOT NULL, place INTEGER NOT NULL,"
    " sae TEXT NOT NULL, feature INTEGER NOT NULL, remark TEXT NOT NULL, created INTEGER NOT NULL,"
    " UNIQUE(list, sae, feature)) STRICT;"
    "CREATE TABLE edit(edit_id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT NOT NULL, created INTEGER NOT NULL,"
    " undoes INTEGER UNIQUE, changes BLOB NOT NULL) STRICT;";

static const char *const versions[] = {version_1};
enum { N_VERSIONS = sizeof versions / sizeof *versions };

/* ---- statements --------------------------------------------------------------------------------------------------- */

lp_status lp_annotations_fail(const lp_annotations *a, lp_error *err)
{
    int code = a->db ? sqlite3_errcode(a->db) : SQLITE_NOMEM;
    switch (code & 0xff) {
    case SQLITE_NOMEM:
        return lp_fail(err, LP_E_MEMORY, "%s: out of memory", a->path);
    case SQLITE_NOTADB:
        return lp_fail(err, LP_E_FORMAT, "%s: not a file of annotations (no SQLite)", a->path);
    case SQLITE_CORRUPT:
        return lp_fail(err, LP_E_FORMAT, "%s: damaged (%s); take a copy of it back", a->path, sqlite3_errmsg(a->db));
    case SQLITE_BUSY:
        return lp_fail(err, LP_E_IO, "%s: another program has been writing for %d seconds; try again", a->path,
                       PATIENCE / 1000);
    case SQLITE_READONLY:
        return lp_fail(err, LP_E_IO, "%s: may not be written", a->path);
    default:
        return lp_fail(err, LP_E_IO, "%s: %s", a->path, sqlite3_errmsg(a->db));
    }
}

static int bind(sqlite3_stmt *s, const char *types, va_list args)
{
    int code = SQLITE_OK;
    for (int i = 1; types[i - 1] && code == SQLITE_OK; i++) {
        if (types[i - 1] == 't') {
            code = sqlite3_bind_text(s, i, va_arg(args, const char *), -1, SQLITE_STATIC);
        } else if (types[i - 1] == 'i') {
            code = sqlite3_bind_int64(s, i, va_arg(args, int64_t));
        } else if (types[i - 1] == 'r') {
            code = sqlite3_bind_double(s, i, va_arg(args, double)); /* NaN becomes NULL */
        } else {
            const void *blob = va_arg(args, const void *);
            code = sqlite3_bind_blob(s, i, blob, va_arg(args, int), SQLITE_STATIC);
        }
    }
    return code;
}

static lp_status prepare(sqlite3_stmt **out, const lp_annotations *a, lp_error *err, const char *sql, const char *types,
                         va_list args)
{
    *out = NULL;
    if (sqlite3_prepare_v2(a->db, sql, -1, out, NULL) == SQLITE_OK && bind(*out, types, args) == SQLITE_OK)
        return LP_OK;
    lp_status st = lp_annotations_fail(a, err);
    sqlite3_finalize(*out);
    *out = NULL;
    return st;
}

lp_status lp_annotations_prepare(sqlite3_stmt **out, const lp_annotations *a, lp_error *err, const char *sql,
                                 const char *types, ...)
{
    va_list args;
    va_start(args, types);
    lp_status st = prepare(out, a, err, sql, types, args);
    va_end(args);
    return st;
}

lp_status lp_annotations_step(const lp_annotations *a, sqlite3_stmt *s, bool *has, lp_error *err)
{
    int code = sqlite3_step(s);
    *has = code == SQLITE_ROW;
    return *has || code == SQLITE_DONE ? LP_OK : lp_annotations_fail(a, err);
}

lp_status lp_annotations_run(const lp_annotations *a, lp_error *err, const char *sql, const char *types, ...)
{
    va_list args;
    sqlite3_stmt *s;
    bool has = false;
    va_start(args, types);
    lp_status st = prepare(&s, a, err, sql, types, args);
    va_end(args);
    LP_TRY(st);
    do st = lp_annotations_step(a, s, &has, err);
    while (st == LP_OK && has);
    sqlite3_finalize(s);
    return st;
}

static lp_status get_number(int64_t *out, const lp_annotations *a, const char *sql, lp_error *err)
{
    sqlite3_stmt *s;
    bool has;
    LP_TRY(lp_annotations_prepare(&s, a, err, sql, ""));
    lp_status st = lp_annotations_step(a, s, &has, err);
    *out = st == LP_OK && has ? sqlite3_column_int64(s, 0) : 0;
    sqlite3_finalize(s);
    return st;
}

/* ---- is it ours --------------------------------------------------------------------------------------------------- */

/* The schema as one text; free with sqlite3_free. */
static lp_status get_schema(char **out, const lp_annotations *a, lp_error *err)
{
    static const char sql[] = "SELECT group_concat(type || ' ' || name || ' ' || tbl_name || ' ' || sql, char(10)) FROM"
                              " (SELECT * FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT GLOB 'label_fts_*'"
                              " AND name NOT GLOB 'sqlite_*' ORDER BY name)";
    sqlite3_stmt *s;
    bool has;
    LP_TRY(lp_annotations_prepare(&s, a, err, sql, ""));
    lp_status st = lp_annotations_step(a, s, &has, err);
    const char *text = st == LP_OK && has ? (const char *)sqlite3_column_text(s, 0) : NULL;
    *out = sqlite3_mprintf("%s", text ? text : "");
    if (st == LP_OK && !*out) st = lp_fail(err, LP_E_MEMORY, "out of memory");
    sqlite3_finalize(s);
    return st;
}

static lp_status apply_steps(lp_annotations *a, const char *const *steps, int from, int to, lp_error *err)
{
    char sql[96];
    for (int v = from; v < to; v++)
        if (sqlite3_exec(a->db, steps[v], NULL, NULL, NULL) != SQLITE_OK) return lp_annotations_fail(a, err);
    snprintf(sql, sizeof sql, "PRAGMA user_version=%d; PRAGMA application_id=%d;", to, APPLICATION);
    return sqlite3_exec(a->db, sql, NULL, NULL, NULL) == SQLITE_OK ? LP_OK : lp_annotations_fail(a, err);
}

static lp_status check_schema(const lp_annotations *a, const char *const *steps, int version, lp_error *err)
{
    lp_annotations model = {.path = a->path};
    char *want = NULL, *have = NULL;
    lp_status st = LP_OK;
    if (sqlite3_open(":memory:", &model.db) != SQLITE_OK) st = lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = apply_steps(&model, steps, 0, version, err);
    if (st == LP_OK) st = get_schema(&want, &model, err);
    if (st == LP_OK) st = get_schema(&have, a, err);
    if (st == LP_OK && strcmp(want, have) != 0)
        st = lp_fail(err, LP_E_FORMAT, "%s: its tables are not those this program makes; not opened", a->path);
    sqlite3_free(want), sqlite3_free(have);
    sqlite3_close(model.db);
    return st;
}

/* ---- versions ----------------------------------------------------------------------------------------------------- */

static lp_status migrate(lp_annotations *a, const char *const *steps, int n_steps, lp_error *err)
{
    int64_t version, objects;
    LP_TRY(get_number(&version, a, "PRAGMA user_version", err)); /* again, now that nobody else can write */
    LP_TRY(get_number(&objects, a, "SELECT count(*) FROM sqlite_schema", err));
    if (version == n_steps && objects) return LP_OK;
    if (version) LP_TRY(check_schema(a, steps, (int)version, err));
    return apply_steps(a, steps, (int)version, n_steps, err);
}

/* The copy is made before the transaction: a backup cannot be taken from within one.  Should two programs get here at
 * once, the second finds the copy there, and then nothing to do. */
lp_status lp_annotations_migrate(lp_annotations *a, const char *const *steps, int n_steps, lp_error *err)
{
    int64_t version, application, objects;
    LP_TRY(get_number(&application, a, "PRAGMA application_id", err));
    LP_TRY(get_number(&version, a, "PRAGMA user_version", err));
    LP_TRY(get_number(&objects, a, "SELECT count(*) FROM sqlite_schema", err));
    if ((objects || application) && application != APPLICATION)
        return lp_fail(err, LP_E_FORMAT, "%s: another program's database, not a file of annotations", a->path);
    if (version > n_steps)
        return lp_fail(err, LP_E_UNSUPPORTED, "%s: annotations of version %lld, this program knows %d; use a newer one",
                       a->path, (long long)version, n_steps);
    if (version == n_steps && objects) return check_schema(a, steps, n_steps, err);
    if (version < 0 || (objects && !version) || (!objects && version))
        return lp_fail(err, LP_E_FORMAT, "%s: its tables are not those this program makes; not opened", a->path);
    if (sqlite3_db_readonly(a->db, "main"))
        return lp_fail(err, LP_E_UNSUPPORTED, "%s: of version %lld and may not be written, so it stays; copy it first",
                       a->path, (long long)version);
    if (version) {
        char *copy = lp_format("%s.v%lld", a->path, (long long)version);
        lp_status st = !copy              ? lp_fail(err, LP_E_MEMORY, "out of memory")
                       : lp_is_file(copy) ? LP_OK
                                          : lp_annotations_backup(a, copy, err);
        free(copy);
        LP_TRY(st);
    }
    LP_TRY(lp_annotations_run(a, err, "BEGIN IMMEDIATE", ""));
    lp_status st = migrate(a, steps, n_steps, err);
    if (st == LP_OK) st = lp_annotations_run(a, err, "COMMIT", "");
    if (st != LP_OK) sqlite3_exec(a->db, "ROLLBACK", NULL, NULL, NULL);
    return st;
}

/* ---- opening ------------------------------------------------------------------------------------------------------ */

lp_status lp_annotations_path(char **out, const char *store, lp_error *err)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    *out = NULL;
    if (store)
        *out = lp_path_join(store, "annotations.sqlite");
    else if (data && *data == '/') /* relative ones are to be ignored, says the XDG specification */
        *out = lp_format("%s/lapidary/annotations.sqlite", data);
    else if (home && *home)
        *out = lp_format("%s/.local/share/lapidary/annotations.sqlite", home);
    else
        return lp_fail(err, LP_E_NOT_FOUND,
                       "no home folder for annotations: set HOME or XDG_DATA_HOME, or name a file");
    return *out ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
}

static lp_status make_folders(const char *path, lp_error *err)
{
    char *copy = lp_strdup(path);
    if (!copy) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_status st = LP_OK;
    for (char *at = copy + 1; st == LP_OK && (at = strchr(at, '/')); *at++ = '/') {
        *at = 0;
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            st = lp_fail(err, LP_E_IO, "%s: cannot make this folder: %s", copy, strerror(errno));
    }
    free(copy);
    return st;
}

static lp_status set_up(lp_annotations *a, bool is_edit, lp_error *err)
{
    sqlite3_busy_timeout(a->db, PATIENCE);
    sqlite3_db_config(a->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(a->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_limit(a->db, SQLITE_LIMIT_ATTACHED, 0);
    LP_TRY(lp_annotations_run(a, err, "PRAGMA cell_size_check=ON", ""));
    LP_TRY(lp_annotations_run(a, err, "PRAGMA synchronous=EXTRA", ""));
    LP_TRY(lp_annotations_migrate(a, versions, N_VERSIONS, err));
    sqlite3_db_config(a->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 1, NULL); /* it is ours; FTS5 in triggers needs it */
    return is_edit ? LP_OK : lp_annotations_run(a, err, "PRAGMA query_only=ON", "");
}

/* Reading opens for writing too where it may: only so can SQLite roll back what a killed writer left. */
lp_status lp_annotations_open(lp_annotations **out, const char *path, lp_annotations_mode mode, lp_error *err)
{
    bool is_edit = mode == LP_ANNOTATIONS_EDIT;
    *out = NULL;
    if (is_edit) LP_TRY(make_folders(path, err));
    if (!is_edit && !lp_is_file(path)) return lp_fail(err, LP_E_NOT_FOUND, "%s: no such file", path);
    lp_annotations *a = lp_calloc(1, sizeof *a);
    if (a) a->path = lp_strdup(path);
    if (!a || !a->path) {
        free(a);
        return lp_fail(err, LP_E_MEMORY, "out of memory");
    }
    int flags = SQLITE_OPEN_READWRITE | (is_edit ? SQLITE_OPEN_CREATE : 0);
    lp_status st = sqlite3_open_v2(path, &a->db, flags, NULL) == SQLITE_OK ? LP_OK : lp_annotations_fail(a, err);
    if (st == LP_OK) st = set_up(a, is_edit, err);
    if (st == LP_OK)
        *out = a;
    else
        lp_annotations_close(a);
    return st;
}

void lp_annotations_close(lp_annotations *a)
{
    if (!a) return;
    lp_annotations_give_up(a);
    sqlite3_close(a->db);
    free(a->path), free(a);
}

/* ---- copies ------------------------------------------------------------------------------------------------------- */

static lp_status copy_all(lp_annotations *a, const char *path, lp_error *err)
{
    sqlite3 *to = NULL;
    int code = sqlite3_open_v2(path, &to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    if (code == SQLITE_OK) sqlite3_exec(to, "PRAGMA synchronous=EXTRA", NULL, NULL, NULL);
    sqlite3_backup *b = code == SQLITE_OK ? sqlite3_backup_init(to, "main", a->db, "main") : NULL;
    code = b ? sqlite3_backup_step(b, -1) : to ? sqlite3_errcode(to) : SQLITE_NOMEM;
    sqlite3_backup_finish(b);
    lp_status st = code == SQLITE_DONE ? LP_OK : lp_fail(err, LP_E_IO, "%s: %s", path, sqlite3_errstr(code));
    sqlite3_close(to);
    return st;
}

lp_status lp_annotations_backup(lp_annotations *a, const char *path, lp_error *err)
{
    char *tmp = lp_format("%s.%ld.tmp", path, (long)getpid());
    if (!tmp) return lp_fail(err, LP_E_MEMORY, "out of memory");
    unlink(tmp); /* of a process of this number that was killed */
    lp_status st = copy_all(a, tmp, err);
    if (st == LP_OK && link(tmp, path) != 0) /* never over what is there */
        st = errno == EEXIST ? lp_fail(err, LP_E_IO, "%s: exists; name another file", path)
                             : lp_fail(err, LP_E_IO, "%s: cannot write: %s", path, strerror(errno));
    unlink(tmp);
    free(tmp);
    return st;
}
