/* jsonl.h - JSON lines, compressed with gzip or not: one object after the other, with the line for whoever complains.
 *
 * Empty lines are passed over.  A line may have LP_JSONL_LINE bytes; a NUL in it is an error.
 */
#ifndef LP_SAE_JSONL_H
#define LP_SAE_JSONL_H

#include "core/base.h"

struct json_t;

enum { LP_JSONL_LINE = 1 << 22 };

typedef struct lp_jsonl { /* all zero is a closed one */
    char *path;
    long line; /* of the row at hand, from 1 */
    void *file;
    char *text;
    size_t room;
} lp_jsonl;

lp_status lp_jsonl_open(lp_jsonl *j, const char *path, lp_error *err); /* LP_E_IO */
/* The next object, yours to drop; NULL at the end.  LP_E_FORMAT: a line that is no JSON object, damaged compression. */
lp_status lp_jsonl_next(lp_jsonl *j, struct json_t **row, lp_error *err);
void lp_jsonl_close(lp_jsonl *j);

/* "PATH, line N: what is wrong". */
lp_status lp_jsonl_wrong(const lp_jsonl *j, lp_error *err, const char *fmt, ...) LP_PRINTF(3, 4);

/* "index", a number or the text of one, from 0 on; -1: none. */
long long lp_jsonl_index(const struct json_t *row);

#endif
