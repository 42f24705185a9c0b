/* jsonl.c - see jsonl.h.  zlib reads plain files as well as compressed ones. */
#include "sae/jsonl.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { BLOCK = 1 << 16 };

lp_status lp_jsonl_wrong(const lp_jsonl *j, lp_error *err, const char *fmt, ...)
{
    char text[LP_ERROR_TEXT];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return lp_fail(err, LP_E_FORMAT, "%s, line %ld: %s", j->path, j->line, text);
}

lp_status lp_jsonl_open(lp_jsonl *j, const char *path, lp_error *err)
{
    *j = (lp_jsonl){.path = lp_strdup(path)};
    if (!j->path) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", path);
    j->file = gzopen(path, "rb");
    if (j->file) return LP_OK;
    lp_status st = lp_fail(err, LP_E_IO, "%s: %s", path, strerror(errno));
    lp_jsonl_close(j);
    return st;
}

void lp_jsonl_close(lp_jsonl *j)
{
    if (j->file) gzclose(j->file);
    free(j->path), free(j->text);
    *j = (lp_jsonl){0};
}

/* The next line in j->text, without its end; *n is -1 at the end of the file. */
static lp_status next_line(lp_jsonl *j, ptrdiff_t *n, lp_error *err)
{
    size_t used = 0;
    for (;;) {
        if (used > LP_JSONL_LINE) return lp_jsonl_wrong(j, err, "longer than any row of an export");
        if (!lp_grow((void **)&j->text, &j->room, used + BLOCK, 1))
            return lp_fail(err, LP_E_MEMORY, "%s: out of memory", j->path);
        char *got = gzgets(j->file, j->text + used, BLOCK);
        int code;
        const char *text = gzerror(j->file, &code);
        if (code < 0) return lp_fail(err, LP_E_FORMAT, "%s: %s", j->path, code == Z_ERRNO ? strerror(errno) : text);
        if (!got) break;
        size_t n_got = strlen(got);
        used += n_got;
        if (n_got == 0 || (n_got < BLOCK - 1 && got[n_got - 1] != '\n' && !gzeof(j->file)))
            return lp_jsonl_wrong(j, err, "not a JSON object (a NUL in it)"); /* gzgets stops nowhere else */
        if (used && j->text[used - 1] == '\n') {
            *n = (ptrdiff_t)used - 1;
            return LP_OK;
        }
    }
    *n = used ? (ptrdiff_t)used : -1;
    return LP_OK;
}

lp_status lp_jsonl_next(lp_jsonl *j, json_t **row, lp_error *err)
{
    ptrdiff_t n;
    json_error_t bad;
    *row = NULL;
    do {
        j->line++;
        LP_TRY(next_line(j, &n, err));
    } while (n == 0);
    if (n < 0) return LP_OK;
    json_t *got = json_loadb(j->text, (size_t)n, 0, &bad);
    if (!json_is_object(got)) {
        json_decref(got);
        return lp_jsonl_wrong(j, err, "not a JSON object");
    }
    *row = got;
    return LP_OK;
}

long long lp_jsonl_index(const json_t *row)
{
    const json_t *index = json_object_get(row, "index");
    if (json_is_integer(index)) return json_integer_value(index);
    if (!json_is_string(index)) return -1;
    char *end;
    const char *text = json_string_value(index);
    errno = 0;
    long long i = strtoll(text, &end, 10);
    return errno || end == text || *end ? -1 : i;
}
