/* sql.h - SQLite as this folder uses it: every failure one line with a status of ours; statements that free themselves.
 *
 *     lp_sql_statement s = {0};
 *     lp_status st = lp_sql_prepare(&s, db, "SELECT name FROM sae WHERE sae_id = ?", err);
 *     lp_sql_put_int(&s, 1, id);
 *     while (st == LP_OK && (st = lp_sql_step(&s, &has_row, err)) == LP_OK && has_row) ...
 *     lp_sql_finish(&s);
 */
#ifndef LP_STORE_SQL_H
#define LP_STORE_SQL_H

#include "core/base.h"

#include <sqlite3.h>

typedef struct lp_sql { /* a database */
    sqlite3 *db;
    char *path;
} lp_sql;

typedef struct lp_sql_statement {
    const lp_sql *of;
    sqlite3_stmt *s;
} lp_sql_statement;

/* What SQLite says of its last failure.  LP_E_FORMAT: damaged, or no database; LP_E_IO: disk, locks; LP_CANCELLED. */
lp_status lp_sql_fail(const lp_sql *q, int code, lp_error *err);
/* flags as sqlite3_open_v2 has them.  Nothing a file brings with it is trusted: no triggers, no views. */
lp_status lp_sql_open(lp_sql *q, const char *path, int flags, lp_error *err);
void lp_sql_close(lp_sql *q);
lp_status lp_sql_exec(const lp_sql *q, const char *text, lp_error *err);
/* One number: a pragma, a count. */
lp_status lp_sql_number(int64_t *out, const lp_sql *q, const char *text, lp_error *err);

lp_status lp_sql_prepare(lp_sql_statement *s, const lp_sql *q, const char *text, lp_error *err);
/* Parameters count from 1; texts and blobs are borrowed until the next step is over. */
void lp_sql_put_int(lp_sql_statement *s, int at, int64_t v);
void lp_sql_put_real(lp_sql_statement *s, int at, double v);
void lp_sql_put_text(lp_sql_statement *s, int at, const char *text, size_t n); /* NULL: null */
void lp_sql_put_blob(lp_sql_statement *s, int at, const void *bytes, size_t n);
lp_status lp_sql_step(lp_sql_statement *s, bool *has_row, lp_error *err);
/* A statement without rows, ready for the next one afterwards. */
lp_status lp_sql_run(lp_sql_statement *s, lp_error *err);
void lp_sql_reset(lp_sql_statement *s);
void lp_sql_finish(lp_sql_statement *s);

/* Columns of the row, from 0.  Texts and blobs live until the next step. */
int64_t lp_sql_int(const lp_sql_statement *s, int column);
double lp_sql_real(const lp_sql_statement *s, int column);
const char *lp_sql_text(const lp_sql_statement *s, int column); /* "" for null */
const void *lp_sql_blob(const lp_sql_statement *s, int column, size_t *n);

#endif
