/* csv.h - comma-separated values as RFC 4180 has them, strictly: what two readers would read differently is refused.
 *
 * Fields are bare or in double quotes, in which commas, line ends and "" for a quote may stand; lines end in LF or CRLF;
 * every row has as many fields as the first.  A byte order mark in front and lines without anything on them are passed
 * over, as pandas does.  A quote inside a bare field, text behind a closing quote, a lone CR and a NUL are errors.
 */
#ifndef LP_SAE_CSV_H
#define LP_SAE_CSV_H

#include "core/base.h"

enum { LP_CSV_FIELDS = 64 };

typedef struct lp_csv {
    const char *at, *end;             /* what is left of the text, which is borrowed */
    char *room;                       /* the fields of the row at hand               */
    const char *field[LP_CSV_FIELDS]; /* [n], NUL-terminated, until the next row is read    */
    int n;                            /* fields; 0 before the first row                      */
    int line;                         /* where the row at hand begins, counted from 1; 0: none */
    int next_line;
} lp_csv;

void lp_csv_begin(lp_csv *c, const char *text, size_t n);
/* The next row; *has is false at the end.  LP_E_FORMAT says the line. */
lp_status lp_csv_next(lp_csv *c, bool *has, lp_error *err);
void lp_csv_end(lp_csv *c); /* frees */

/* A field as it must be written, appended to *text (a growing NUL-terminated text of *n bytes): in quotes where it needs
 * them.  False: out of memory. */
bool lp_csv_put(char **text, size_t *n, size_t *capacity, const char *field, bool is_last);

#endif
