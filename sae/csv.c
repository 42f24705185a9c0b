/* csv.c - see csv.h.  A row is decoded into one buffer that never moves while it is filled: no row is longer than its text. */
#include "sae/csv.h"

#include <stdlib.h>
#include <string.h>

void lp_csv_begin(lp_csv *c, const char *text, size_t n)
{
    *c = (lp_csv){.at = text, .end = text + n, .next_line = 1};
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) c->at += 3;
}

void lp_csv_end(lp_csv *c)
{
    free(c->room);
    *c = (lp_csv){0};
}

static lp_status broken(const lp_csv *c, const char *what, lp_error *err)
{
    return lp_fail(err, LP_E_FORMAT, "line %d: %s", c->line, what);
}

/* Past a line end, if one stands there. */
static bool take_line_end(lp_csv *c)
{
    size_t n = c->at < c->end && *c->at == '\n' ? 1 : c->end - c->at >= 2 && memcmp(c->at, "\r\n", 2) == 0 ? 2 : 0;
    c->at += n;
    c->next_line += n > 0;
    return n > 0;
}

static bool is_at_end_of_field(const lp_csv *c)
{
    return c->at == c->end || *c->at == ',' || *c->at == '\n' || *c->at == '\r';
}

/* Behind the opening quote, up to behind the closing one. */
static lp_status take_quoted(lp_csv *c, char **to, lp_error *err)
{
    for (;;) {
        if (c->at == c->end) return broken(c, "a quote is not closed before the file ends", err);
        char x = *c->at++;
        if (!x) return broken(c, "a NUL byte; this is no text", err);
        if (x == '"' && (c->at == c->end || *c->at != '"')) break;
        if (x == '"') c->at++;
        c->next_line += x == '\n';
        *(*to)++ = x;
    }
    return is_at_end_of_field(c) ? LP_OK
                                 : broken(c, "text behind a closing quote; a quote inside is written \"\"", err);
}

static lp_status take_field(lp_csv *c, char **to, lp_error *err)
{
    if (c->at < c->end && *c->at == '"') {
        c->at++;
        return take_quoted(c, to, err);
    }
    while (!is_at_end_of_field(c)) {
        if (*c->at == '"') return broken(c, "a quote inside a field that does not begin with one", err);
        if (!*c->at) return broken(c, "a NUL byte; this is no text", err);
        *(*to)++ = *c->at++;
    }
    return LP_OK;
}

static lp_status take_row(lp_csv *c, lp_error *err)
{
    int want = c->n, n = 0;
    char *to = c->room;
    do {
        if (n == LP_CSV_FIELDS) return broken(c, "more than 64 fields", err);
        c->field[n++] = to;
        LP_TRY(take_field(c, &to, err));
        *to++ = 0;
    } while (c->at < c->end && *c->at == ',' && c->at++);
    if (c->at < c->end && !take_line_end(c)) return broken(c, "a carriage return that ends no line", err);
    c->n = n;
    if (want && n != want)
        return lp_fail(err, LP_E_FORMAT, "line %d: %d fields, where the first row has %d", c->line, n, want);
    return LP_OK;
}

lp_status lp_csv_next(lp_csv *c, bool *has, lp_error *err)
{
    while (take_line_end(c)) continue;
    *has = c->at < c->end;
    if (!*has) return LP_OK;
    c->line = c->next_line;
    /* Fields lose their commas and line ends and gain a NUL each: what is left of the text and one more always does. */
    if (!c->room && !(c->room = lp_calloc((size_t)(c->end - c->at) + 2, 1)))
        return lp_fail(err, LP_E_MEMORY, "out of memory");
    return take_row(c, err);
}

bool lp_csv_put(char **text, size_t *n, size_t *capacity, const char *field, bool is_last)
{
    bool is_quoted = strpbrk(field, ",\"\r\n") != NULL;
    if (!lp_grow((void **)text, capacity, *n + 2 * strlen(field) + 4, 1)) return false;
    char *to = *text + *n;
    if (is_quoted) *to++ = '"';
    for (; *field; field++) {
        if (*field == '"') *to++ = '"';
        *to++ = *field;
    }
    if (is_quoted) *to++ = '"';
    *to++ = is_last ? '\n' : ',';
    *to = 0;
    *n = (size_t)(to - *text);
    return true;
}
