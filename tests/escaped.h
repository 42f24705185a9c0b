/* escaped.h - the lines of goldens/tokenizer: fields between tabs, bytes as %XX, a lone '%' for nothing at all. */
#ifndef LP_TESTS_ESCAPED_H
#define LP_TESTS_ESCAPED_H

#include <stdlib.h>
#include <string.h>

static inline int hex_digit(char c)
{
    return c <= '9' ? c - '0' : c - 'A' + 10;
}

/* %XX back to bytes, in place; the length. */
static inline size_t unescape(char *s)
{
    char *to = s;
    if (strcmp(s, "%") == 0) return *s = 0;
    for (const char *p = s; *p; p++)
        if (*p == '%') {
            *to++ = (char)(hex_digit(p[1]) * 16 + hex_digit(p[2]));
            p += 2;
        } else
            *to++ = *p;
    return (size_t)(to - s);
}

static inline size_t parse_ids(char *s, int *ids, size_t room)
{
    size_t n = 0;
    for (char *end; *s && n < room; s = *end ? end + 1 : end) ids[n++] = (int)strtol(s, &end, 10);
    return n;
}

/* Cuts the field off at its tab and returns what follows it, NULL after the last. */
static inline char *next_field(char *s)
{
    char *tab = strchr(s, '\t');
    if (!tab) return NULL;
    *tab = 0;
    return tab + 1;
}

#endif
