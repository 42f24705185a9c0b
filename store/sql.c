/* sql.c - see sql.h. */
#include "store/sql.h"

#include <stdlib.h>
#include <string.h>

enum { BUSY_MS = 10000 };

lp_status lp_sql_fail(const lp_sql *q, int code, lp_error *err)
{
    const char *what = q->db ? sqlite3_errmsg(q->db) : sqlite3_errstr(code);
    switch (code & 0xff) {
    case SQLITE_NOMEM:
        return lp_fail(err, LP_E_MEMORY, "%s: out of memory", q->path);
    case SQLITE_INTERRUPT:
        return LP_CANCELLED;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return lp_fail(err, LP_E_IO, "%s: another process has been writing it for 10 s", q->path);
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
    case SQLITE_MISMATCH:
    case SQLITE_SCHEMA:
    case SQLITE_ERROR:
        return lp_fail(err, LP_E_FORMAT, "%s: damaged, or not one of ours: %s", q->path, what);
    default:
        return lp_fail(err, LP_E_IO, "%s: %s", q->path, what);
    }
}

/* Sets what a file could otherwise do to whoever opens it. */
static lp_status harden(lp_sql *q, lp_error *err)
{
    sqlite3_db_config(q->db, SQLITE_DBCONFIG_DEFENSIVE, 1, (int *)NULL);
    sqlite3_db_config(q->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, (int *)NULL);
    sqlite3_db_config(q->db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, (int *)NULL);
    sqlite3_db_config(q->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, (int *)NULL);
    sqlite3_busy_timeout(q->db, BUSY_MS);
    return lp_sql_exec(q, "PRAGMA cell_size_check = ON; PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY", err);
}

lp_status lp_sql_open(lp_sql *q, const char *path, int flags, lp_error *err)
{
    *q = (lp_sql){.path = lp_strdup(path)};
    if (!q->path) return lp_fail(err, LP_E_MEMORY, "out of memory");
    int code = sqlite3_open_v2(path, &q->db, flags, NULL);
    lp_status st = code == SQLITE_OK ? harden(q, err) : lp_sql_fail(q, code, err);
    if (st != LP_OK) lp_sql_close(q);
    return st;
}

void lp_sql_close(lp_sql *q)
{
    sqlite3_close_v2(q->db);
    free(q->path);
    *q = (lp_sql){0};
}

lp_status lp_sql_exec(const lp_sql *q, const char *text, lp_error *err)
{
    int code = sqlite3_exec(q->db, text, NULL, NULL, NULL);
    return code == SQLITE_OK ? LP_OK : lp_sql_fail(q, code, err);
}

lp_status lp_sql_number(int64_t *out, const lp_sql *q, const char *text, lp_error *err)
{
    lp_sql_statement s = {0};
    bool has_row = false;
    lp_status st = lp_sql_prepare(&s, q, text, err);
    if (st == LP_OK) st = lp_sql_step(&s, &has_row, err);
    *out = st == LP_OK && has_row ? lp_sql_int(&s, 0) : 0;
    lp_sql_finish(&s);
    return st;
}

lp_status lp_sql_prepare(lp_sql_statement *s, const lp_sql *q, const char *text, lp_error *err)
{
    *s = (lp_sql_statement){.of = q};
    int code = sqlite3_prepare_v2(q->db, text, -1, &s->s, NULL);
    return code == SQLITE_OK ? LP_OK : lp_sql_fail(q, code, err);
}

void lp_sql_put_int(lp_sql_statement *s, int at, int64_t v)
{
    sqlite3_bind_int64(s->s, at, v);
}

void lp_sql_put_real(lp_sql_statement *s, int at, double v)
{
    sqlite3_bind_double(s->s, at, v);
}

void lp_sql_put_text(lp_sql_statement *s, int at, const char *text, size_t n)
{
    sqlite3_bind_text64(s->s, at, text, n, SQLITE_STATIC, SQLITE_UTF8);
}

void lp_sql_put_blob(lp_sql_statement *s, int at, const void *bytes, size_t n)
{
    sqlite3_bind_blob64(s->s, at, bytes, n, SQLITE_STATIC);
}

lp_status lp_sql_step(lp_sql_statement *s, bool *has_row, lp_error *err)
{
    int code = sqlite3_step(s->s);
    *has_row = code == SQLITE_ROW;
    return code == SQLITE_ROW || code == SQLITE_DONE ? LP_OK : lp_sql_fail(s->of, code, err);
}

lp_status lp_sql_run(lp_sql_statement *s, lp_error *err)
{
    bool has_row;
    lp_status st = lp_sql_step(s, &has_row, err);
    sqlite3_reset(s->s);
    return st;
}

void lp_sql_reset(lp_sql_statement *s)
{
    sqlite3_reset(s->s);
}

void lp_sql_finish(lp_sql_statement *s)
{
    sqlite3_finalize(s->s);
    *s = (lp_sql_statement){0};
}

int64_t lp_sql_int(const lp_sql_statement *s, int column)
{
    return sqlite3_column_int64(s->s, column);
}

double lp_sql_real(const lp_sql_statement *s, int column)
{
    return sqlite3_column_double(s->s, column);
}

const char *lp_sql_text(const lp_sql_statement *s, int column)
{
    const unsigned char *text = sqlite3_column_text(s->s, column);
    return text ? (const char *)text : "";
}

const void *lp_sql_blob(const lp_sql_statement *s, int column, size_t *n)
{
    const void *bytes = sqlite3_column_blob(s->s, column);
    *n = (size_t)sqlite3_column_bytes(s->s, column);
    return bytes;
}
