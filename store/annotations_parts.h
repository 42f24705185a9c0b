/* annotations_parts.h - what the sources of annotations.h share; private to this folder and its tests. */
#ifndef LP_STORE_ANNOTATIONS_PARTS_H
#define LP_STORE_ANNOTATIONS_PARTS_H

#include "store/annotations.h"

#include <sqlite3.h>

struct lp_annotations {
    sqlite3 *db;
    char *path;
    struct sqlite3_session *session; /* NULL: no edit is open */
    char *what;
};

/* What sqlite said last, in one line. */
lp_status lp_annotations_fail(const lp_annotations *a, lp_error *err);

/* A statement with its parameters bound: 't' text (NULL is NULL), 'i' int64_t, 'r' double (NaN is NULL), 'b' pointer and
 * int of a blob. */
lp_status lp_annotations_prepare(sqlite3_stmt **out, const lp_annotations *a, lp_error *err, const char *sql,
                                 const char *types, ...);
/* The same, run to its end. */
lp_status lp_annotations_run(const lp_annotations *a, lp_error *err, const char *sql, const char *types, ...);
/* One row more; *has false: there was none. */
lp_status lp_annotations_step(const lp_annotations *a, sqlite3_stmt *s, bool *has, lp_error *err);

/* steps[v] brings version v to v + 1. */
lp_status lp_annotations_migrate(lp_annotations *a, const char *const *steps, int n_steps, lp_error *err);

#endif
