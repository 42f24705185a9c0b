/* output.c - results on stdout: tables as TSV or JSON, documents as JSON.
 *
 * A table is written cell by cell and never held, so a million rows cost nothing.  In both notations every byte that
 * leaves is UTF-8 and no byte of a model's text can act as a terminal's control code: TSV escapes them as the header
 * file says, JSON as JSON does.  Write errors are left to stdio's error flag; cli_finish looks at it.
 */
#include "cli/cli.h"
#include "core/utf8.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- text --------------------------------------------------------------------------------------------------- */

/* Bytes of the well-formed character at s (n left), or 0. */
static size_t character(const char *s, size_t n)
{
    int len = lp_utf8_next(s, n);
    return len > 0 ? (size_t)len : 0;
}

static bool is_control(const char *s, size_t len)
{
    unsigned char c = (unsigned char)s[0];
    if (len == 1) return c < 0x20 || c == 0x7F;
    return len == 2 && c == 0xC2 && (unsigned char)s[1] < 0xA0; /* U+0080 to U+009F */
}

static void put_escaped(const char *s, size_t n)
{
    static const char names[] = "\tt\nn\rr\\\\";
    for (size_t i = 0; i < n;) {
        size_t len = character(s + i, n - i), step = len ? len : 1;
        const char *name = NULL;
        for (const char *k = names; *k && !name; k += 2)
            if (s[i] == *k) name = k + 1;
        if (name) {
            printf("\\%c", *name);
        } else if (len == 0 || is_control(s + i, len)) {
            for (size_t k = 0; k < step; k++) printf("\\x%02x", (unsigned)(unsigned char)s[i + k]);
        } else {
            fwrite(s + i, 1, len, stdout);
        }
        i += step;
    }
}

json_t *cli_json_text(const char *text, size_t n)
{
    if (n > (SIZE_MAX - 1) / 3) return NULL;
    char *clean = malloc(3 * n + 1);
    size_t at = 0;
    if (!clean) return NULL;
    for (size_t i = 0; i < n;) {
        size_t len = character(text + i, n - i);
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
        put_escaped(s, n);
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
