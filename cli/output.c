/* output.c - results on stdout: tables as TSV or JSON, documents as JSON.
 *
 * A table is written cell by cell and never held, so a million rows cost nothing.  In both notations every byte that
 * leaves is UTF-8 and no byte of a model's text can act as a terminal's control code: TSV escapes them as the header
 * file says, JSON as JSON does.  Write errors are left to stdio's error flag; cli_finish looks at it.
 */
#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- UTF-8 -------------------------------------------------------------------------------------------------- */

/* Bytes of the well-formed character at s (n left), or 0.  Unicode 15, table 3-7. */
static size_t character(const unsigned char *s, size_t n)
{
    unsigned char c = s[0], low = 0x80, high = 0xBF;
    size_t len;
    if (c < 0x80) return 1;
    if (c >= 0xC2 && c <= 0xDF)
        len = 2;
    else if (c >= 0xE0 && c <= 0xEF)
        len = 3;
    else if (c >= 0xF0 && c <= 0xF4)
        len = 4;
    else
        return 0;
    if (c == 0xE0) low = 0xA0; /* no overlong forms, no surrogates, nothing beyond U+10FFFF */
    if (c == 0xED) high = 0x9F;
    if (c == 0xF0) low = 0x90;
    if (c == 0xF4) high = 0x8F;
    if (n < len || s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < len; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    return len;
}

static void put_escaped(const unsigned char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t len = character(s + i, n - i);
        bool is_control = len == 1 ? s[i] < 0x20 || s[i] == 0x7F : len == 2 && s[i] == 0xC2 && s[i + 1] < 0xA0;
        if (s[i] == '\t')
            fputs("\\t", stdout);
        else if (s[i] == '\n')
            fputs("\\n", stdout);
        else if (s[i] == '\r')
            fputs("\\r", stdout);
        else if (s[i] == '\\')
            fputs("\\\\", stdout);
        else if (len == 0 || is_control)
            for (size_t k = 0; k < (len ? len : 1); k++) printf("\\x%02x", s[i + k]);
        else
            fwrite(s + i, 1, len, stdout);
        i += len ? len : 1;
    }
}

json_t *cli_json_text(const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    if (n > (SIZE_MAX - 1) / 3) return NULL;
    char *clean = malloc(3 * n + 1);
    size_t at = 0;
    if (!clean) return NULL;
    for (size_t i = 0; i < n;) {
        size_t len = character(s + i, n - i);
        memcpy(clean + at, len ? text + i : "\xEF\xBF\xBD", len ? len : 3);
        at += len ? len : 3;
        i += len ? len : 1;
    }
    json_t *j = json_stringn(clean, at);
    free(clean);
    return j;
}

json_t *cli_json_real(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

/* ---- tables ------------------------------------------------------------------------------------------------- */

/* The name of column `i`, and its length. */
static const char *column(const cli *c, int i, size_t *len)
{
    const char *name = c->table.columns;
    for (; i > 0; i--) name += strcspn(name, "\t") + 1;
    *len = strcspn(name, "\t");
    return name;
}

void cli_table_begin(cli *c, const char *columns)
{
    cli_wipe_bar(c);
    c->table = (struct cli_table){.columns = columns, .n = 1};
    for (const char *s = columns; *s; s++) c->table.n += *s == '\t';
    if (!c->json) puts(columns);
}

void cli_table_end(cli *c)
{
    if (c->json) puts(c->table.has_rows ? "\n]" : "[]");
    c->table.columns = NULL;
}

static void begin_cell(cli *c)
{
    bool is_first = c->table.at == 0;
    if (!c->json) {
        if (!is_first) putchar('\t');
        return;
    }
    if (is_first) fputs(c->table.has_rows ? ",\n {" : "[\n {", stdout);
    size_t len;
    const char *name = column(c, c->table.at, &len);
    printf("%s\"%.*s\": ", is_first ? "" : ", ", (int)len, name);
    c->table.has_rows = true;
}

static void end_cell(cli *c)
{
    if (++c->table.at < c->table.n) return;
    c->table.at = 0;
    putchar(c->json ? '}' : '\n');
}

void cli_put_int(cli *c, int64_t v)
{
    begin_cell(c);
    printf("%lld", (long long)v);
    end_cell(c);
}

void cli_put_real(cli *c, double v, int digits)
{
    begin_cell(c);
    if (c->json && !isfinite(v))
        fputs("null", stdout);
    else
        printf("%.*g", digits, v);
    end_cell(c);
}

void cli_put_bytes(cli *c, const char *s, size_t n)
{
    begin_cell(c);
    if (c->json) {
        json_t *j = cli_json_text(s, n);
        char *text = j ? json_dumps(j, JSON_ENCODE_ANY) : NULL;
        fputs(text ? text : "null", stdout);
        free(text);
        json_decref(j);
    } else {
        put_escaped((const unsigned char *)s, n);
    }
    end_cell(c);
}

void cli_put_text(cli *c, const char *s)
{
    if (s)
        cli_put_bytes(c, s, strlen(s));
    else
        cli_put_none(c);
}

void cli_put_bool(cli *c, bool v)
{
    begin_cell(c);
    if (c->json)
        fputs(v ? "true" : "false", stdout);
    else
        fputs(v ? "yes" : "no", stdout);
    end_cell(c);
}

void cli_put_none(cli *c)
{
    begin_cell(c);
    if (c->json) fputs("null", stdout);
    end_cell(c);
}

lp_status cli_print_json(json_t *j, lp_error *err)
{
    char *text = j ? json_dumps(j, JSON_INDENT(1) | JSON_ENCODE_ANY) : NULL;
    json_decref(j);
    if (!text) return lp_fail(err, LP_E_MEMORY, "out of memory for the JSON");
    puts(text);
    free(text);
    return LP_OK;
}

lp_status cli_flush(lp_error *err)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return LP_OK;
    return lp_fail(err, LP_E_IO, "cannot write to stdout: %s", strerror(errno));
}
