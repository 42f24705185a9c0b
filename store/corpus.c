/* corpus.c - see corpus.h.
 *
 * Two readers of a file run one behind the other: the scanner finds where records begin and end and keeps nothing of them,
 * the other fetches the bytes of a record, a piece at a time.  So a file of one line of a gigabyte costs a buffer, and what
 * fetches a document while planning fetches it again, by offset and length, when its shard is made.
 */
#include "store/corpus.h"

#include "store/stream.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = LP_STREAM_BUFFER, MAX_VALUES = 1 << 20, NOTED = 3 };

typedef struct line {
    uint64_t offset, length; /* without its end */
    int64_t number;
    bool is_blank, has_cr;
} line;

struct lp_corpus {
    lp_corpus_options o;
    lp_corpus_files own;
    const lp_corpus_files *files;
    lp_env env;

    lp_stream scan; /* of file `file` */
    size_t file;
    bool in_file;
    unsigned char block[BLOCK]; /* [used, held) is not yet scanned */
    size_t used, held;
    int64_t n_lines, n_skipped;
    uint64_t bytes_behind, bytes; /* on the disk: of files that are through, of all */
    bool told_of_cr;

    lp_stream fetch; /* of file `fetched` */
    size_t fetched;
    char *text; /* of the JSON line, or of the piece */
    size_t room;
    json_t *record;    /* the current document's line, or NULL */
    const char *value; /* its text, inside of record */
    char number[24];   /* a key that is a number */
    lp_document document;
    uint64_t at; /* pieces up to here are given out */
};

/* ---- lines ------------------------------------------------------------------------------------------------------- */

static lp_status refill(lp_corpus *c, lp_error *err)
{
    if (lp_cancelled(&c->env)) return LP_CANCELLED;
    c->used = 0;
    return lp_stream_read(&c->scan, c->block, BLOCK, &c->held, err);
}

/* Opens the next file to scan and steps over its byte order mark. */
static lp_status enter_file(lp_corpus *c, lp_error *err)
{
    LP_TRY(lp_stream_open(&c->scan, c->files->root, c->files->items[c->file].name, err));
    c->n_lines = 0;
    LP_TRY(refill(c, err));
    const unsigned char *b = c->block;
    if (c->held >= 3 && b[0] == 0xEF && b[1] == 0xBB && b[2] == 0xBF) c->used = 3;
    if (c->held >= 2 && ((b[0] == 0xFF && b[1] == 0xFE) || (b[0] == 0xFE && b[1] == 0xFF)))
        return lp_fail(err, LP_E_FORMAT, "%s: UTF-16 (by its byte order mark); convert it to UTF-8, with iconv say",
                       c->scan.path);
    c->in_file = true;
    return LP_OK;
}

static void leave_file(lp_corpus *c)
{
    lp_stream_close(&c->scan);
    c->bytes_behind += c->files->items[c->file].bytes;
    c->in_file = false;
    c->file++;
}

static bool is_blank(const unsigned char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r') return false;
    return true;
}

static uint64_t scanned(const lp_corpus *c)
{
    return c->scan.at - (c->held - c->used);
}

/* The next line of the file, of whatever length; *there is false at its end.  What follows the last newline is a line if it
 * has any byte. */
static lp_status next_line(lp_corpus *c, line *l, bool *there, lp_error *err)
{
    *l = (line){.offset = scanned(c), .number = ++c->n_lines, .is_blank = true};
    for (unsigned char last = 0;;) {
        if (c->used == c->held) LP_TRY(refill(c, err));
        const unsigned char *from = c->block + c->used, *end = memchr(from, '\n', c->held - c->used);
        size_t n = end ? (size_t)(end - from) : c->held - c->used;
        l->is_blank = l->is_blank && is_blank(from, n);
        l->length += n;
        c->used += n + (end != NULL);
        if (n) last = from[n - 1];
        if (!end && c->held) continue;
        l->has_cr = end && l->length && last == '\r';
        l->length -= l->has_cr;
        *there = end || l->length;
        return LP_OK;
    }
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

/* CR stays in a text of several lines, which few want. */
static void tell_of_cr(lp_corpus *c, const line *l)
{
    if (!l->has_cr || c->told_of_cr) return;
    lp_log(&c->env, LP_WARN, "%s: its lines end in CRLF; the CRs stay in the text", c->scan.path);
    c->told_of_cr = true;
}

static lp_status whole_file(lp_corpus *c, lp_document *d, bool *there, lp_error *err)
{
    line l;
    bool more = true;
    *there = c->n_lines == 0;
    *d = (lp_document){.file = c->file, .line = 1, .offset = scanned(c)};
    while (*there && more) {
        LP_TRY(next_line(c, &l, &more, err));
        tell_of_cr(c, &l);
    }
    d->length = scanned(c) - d->offset;
    return LP_OK;
}

static lp_status one_line(lp_corpus *c, lp_document *d, bool *there, lp_error *err)
{
    line l;
    do LP_TRY(next_line(c, &l, there, err));
    while (*there && l.is_blank);
    *d = (lp_document){.file = c->file, .line = l.number, .offset = l.offset, .length = l.length};
    return LP_OK;
}

static lp_status paragraph(lp_corpus *c, lp_document *d, bool *there, lp_error *err)
{
    line l;
    bool more;
    LP_TRY(one_line(c, d, there, err));
    for (more = *there; more;) {
        LP_TRY(next_line(c, &l, &more, err));
        if (!more || l.is_blank) break;
        d->length = l.offset + l.length - d->offset;
        tell_of_cr(c, &l);
    }
    return LP_OK;
}

static lp_status next_record(lp_corpus *c, lp_document *d, bool *there, lp_error *err)
{
    bool is_jsonl = c->files->items[c->file].is_jsonl;
    if (!is_jsonl && c->o.split == LP_SPLIT_NONE) return whole_file(c, d, there, err);
    if (!is_jsonl && c->o.split == LP_SPLIT_PARAGRAPHS) return paragraph(c, d, there, err);
    return one_line(c, d, there, err);
}

/* ---- documents --------------------------------------------------------------------------------------------------- */

static lp_status fetch(lp_corpus *c, uint64_t at, size_t n, lp_error *err)
{
    size_t got;
    if (!lp_grow((void **)&c->text, &c->room, n, 1))
        return lp_fail(err, LP_E_MEMORY, "%s: out of memory for %zu bytes of it", c->fetch.path, n);
    LP_TRY(lp_stream_seek(&c->fetch, at, err));
    LP_TRY(lp_stream_read(&c->fetch, c->text, n, &got, err));
    if (got == n) return LP_OK;
    return lp_fail(err, LP_E_FORMAT, "%s: ends at byte %" PRIu64 ", %zu more expected; did it change?", c->fetch.path,
                   c->fetch.at, n - got);
}

/* Values of a JSON text, at most: what stands between commas and colons outside of strings.  A tree takes some fifty times
 * the bytes of "[1,1,1,...". */
static size_t count_values(const char *s, size_t n)
{
    size_t found = 1;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '"')
            in_string = !in_string;
        else if (in_string)
            i += s[i] == '\\';
        else
            found += s[i] == ',' || s[i] == ':' || s[i] == '[' || s[i] == '{';
    }
    return found;
}

static const char *take_key(lp_corpus *c, const json_t *object)
{
    const json_t *v = json_object_get(object, c->o.key);
    const char *s = json_string_value(v);
    if (json_is_integer(v)) {
        snprintf(c->number, sizeof c->number, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        return c->number;
    }
    return s && strlen(s) == json_string_length(v) && strlen(s) <= LP_CORPUS_KEY ? s : NULL;
}

/* Parses the line in c->text.  False: it holds no document, for the reason in `why`. */
static bool parse_record(lp_corpus *c, lp_document *d, char why[200])
{
    json_error_t bad = {.text = ""};
    size_t n = (size_t)d->length;
    if (count_values(c->text, n) > MAX_VALUES) {
        snprintf(why, 200, "more than %d values in a line", (int)MAX_VALUES);
        return false;
    }
    c->record = json_loadb(c->text, n, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &bad);
    const json_t *text = json_object_get(c->record, c->o.field);
    d->key = c->o.key ? take_key(c, c->record) : NULL;
    if (!c->record && bad.text[0])
        snprintf(why, 200, "not JSON: %.150s", bad.text);
    else if (!json_is_object(c->record))
        snprintf(why, 200, "not a JSON object");
    else if (!json_is_string(text))
        snprintf(why, 200, "\"%.80s\" is %s", c->o.field, text ? "no string" : "missing; name the field of the text");
    else if (c->o.key && !d->key)
        snprintf(why, 200, "the key \"%.80s\" must be a string of at most %d bytes, or a whole number", c->o.key,
                 (int)LP_CORPUS_KEY);
    else {
        c->value = json_string_value(text);
        d->n_bytes = json_string_length(text);
        return true;
    }
    return false;
}

/* Makes d the current document.  *is_bad: nothing went wrong but that the line holds none; the text says why. */
static lp_status load(lp_corpus *c, lp_document *d, bool *is_bad, lp_error *err)
{
    const lp_corpus_file *file = &c->files->items[d->file];
    char why[200];
    *is_bad = false;
    json_decref(c->record);
    c->record = NULL;
    c->at = 0;
    if (!c->fetch.f || c->fetched != d->file) LP_TRY(lp_stream_open(&c->fetch, c->files->root, file->name, err));
    c->fetched = d->file;
    d->n_bytes = d->length;
    c->document = *d;
    if (!file->is_jsonl) return LP_OK;
    if (d->length > c->o.record_bytes)
        return lp_fail(err, LP_E_FORMAT,
                       "%s:%" PRId64 ": a line of %" PRIu64 " bytes, more than the %zu a record may have",
                       c->fetch.path, d->line, d->length, c->o.record_bytes);
    LP_TRY(fetch(c, d->offset, (size_t)d->length, err));
    *is_bad = !parse_record(c, d, why);
    if (*is_bad) d->n_bytes = 0;
    c->document = *d;
    if (!*is_bad) return LP_OK;
    return lp_fail(err, LP_E_FORMAT, "%s:%" PRId64 ": %s", c->fetch.path, d->line, why);
}

lp_status lp_corpus_load(lp_corpus *c, lp_document *d, lp_error *err)
{
    bool is_bad;
    return load(c, d, &is_bad, err);
}

static void skip(lp_corpus *c, const char *why)
{
    c->n_skipped++;
    if (c->n_skipped <= NOTED) lp_log(&c->env, LP_WARN, "passed over %s", why);
    if (c->n_skipped == NOTED) lp_log(&c->env, LP_WARN, "more such lines are counted and not named");
}

lp_status lp_corpus_next(lp_corpus *c, const lp_document **out, lp_error *err)
{
    lp_document d;
    lp_error why = {.text = ""};
    bool there, is_bad;
    for (*out = NULL; c->file < c->files->n;) {
        if (!c->in_file) LP_TRY(enter_file(c, err));
        LP_TRY(next_record(c, &d, &there, err));
        if (!there) {
            leave_file(c);
            continue;
        }
        lp_status st = load(c, &d, &is_bad, &why);
        if (st == LP_OK) {
            *out = &c->document;
            return LP_OK;
        }
        if (!is_bad || !c->o.skip_bad) return lp_fail(err, st, "%s", why.text);
        skip(c, why.text);
    }
    return LP_OK;
}

lp_status lp_corpus_bytes(lp_corpus *c, uint64_t at, size_t n, const char **text, lp_error *err)
{
    if (at > c->document.n_bytes || n > c->document.n_bytes - at)
        return lp_fail(err, LP_E_FORMAT, "%s:%" PRId64 ": a text of %" PRIu64 " bytes; did it change?", c->fetch.path,
                       c->document.line, c->document.n_bytes);
    if (!c->record) LP_TRY(fetch(c, c->document.offset + at, n, err));
    *text = c->record ? c->value + at : c->text;
    return LP_OK;
}

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

size_t lp_corpus_cut(const char *text, size_t n, size_t piece_bytes)
{
    if (n <= piece_bytes) return n;
    for (size_t i = piece_bytes; i > 0; i--)
        if (text[i - 1] == '\n') return i;
    for (size_t i = piece_bytes; i > 0; i--)
        if (text[i] == ' ') return i; /* a token begins with its space */
    for (size_t i = piece_bytes; i > piece_bytes - 4; i--)
        if (((unsigned char)text[i] & 0xC0) != 0x80) return i;
    return piece_bytes;
}

lp_status lp_corpus_piece(lp_corpus *c, const char **text, size_t *n, lp_error *err)
{
    uint64_t left = c->document.n_bytes - c->at;
    size_t most = left > c->o.piece_bytes ? c->o.piece_bytes + 1 : (size_t)left; /* one more, to see where to cut */
    *n = 0;
    if (!most) return LP_OK;
    LP_TRY(lp_corpus_bytes(c, c->at, most, text, err));
    *n = lp_corpus_cut(*text, most, c->o.piece_bytes);
    c->at += *n;
    return LP_OK;
}

/* ---- the corpus -------------------------------------------------------------------------------------------------- */

lp_status lp_corpus_check_options(lp_corpus_options *o, lp_error *err)
{
    if (!o->field) o->field = "text";
    if (!o->record_bytes) o->record_bytes = LP_RECORD_BYTES;
    if (!o->piece_bytes) o->piece_bytes = LP_PIECE_BYTES;
    if (o->piece_bytes < 16 || o->piece_bytes > LP_RECORD_BYTES)
        return lp_fail(err, LP_E_RANGE, "pieces of %zu bytes; 16 to %d are possible", o->piece_bytes,
                       (int)LP_RECORD_BYTES);
    if (o->record_bytes < 64 || o->record_bytes > 1u << 30)
        return lp_fail(err, LP_E_RANGE, "records of %zu bytes; 64 to %u are possible", o->record_bytes, 1u << 30);
    if (strlen(o->field) > LP_CORPUS_KEY || (o->key && strlen(o->key) > LP_CORPUS_KEY))
        return lp_fail(err, LP_E_RANGE, "a field's name of more than %d bytes", (int)LP_CORPUS_KEY);
    return LP_OK;
}

lp_status lp_corpus_on(lp_corpus **out, const lp_corpus_files *files, const lp_corpus_options *options,
                       const lp_env *env, lp_error *err)
{
    lp_corpus_options o = options ? *options : (lp_corpus_options){0};
    LP_TRY(lp_corpus_check_options(&o, err));
    lp_corpus *c = lp_calloc(1, sizeof *c);
    if (!c) return lp_fail(err, LP_E_MEMORY, "a corpus: out of memory");
    c->o = o;
    c->files = files;
    if (env) c->env = *env;
    for (size_t i = 0; i < files->n; i++) c->bytes += files->items[i].bytes;
    *out = c;
    return LP_OK;
}

lp_status lp_corpus_open(lp_corpus **out, const char *path, const lp_corpus_options *options, const lp_env *env,
                         lp_error *err)
{
    lp_corpus_files files;
    LP_TRY(lp_corpus_files_find(&files, path, env, err));
    lp_status st = lp_corpus_on(out, &files, options, env, err);
    if (st != LP_OK) {
        lp_corpus_files_clear(&files);
        return st;
    }
    (*out)->own = files;
    (*out)->files = &(*out)->own;
    return LP_OK;
}

void lp_corpus_close(lp_corpus *c)
{
    if (!c) return;
    lp_stream_close(&c->scan);
    lp_stream_close(&c->fetch);
    json_decref(c->record);
    lp_corpus_files_clear(&c->own);
    free(c->text);
    free(c);
}

const lp_corpus_files *lp_corpus_get_files(const lp_corpus *c)
{
    return c->files;
}

int64_t lp_corpus_skipped(const lp_corpus *c)
{
    return c->n_skipped;
}

void lp_corpus_progress(const lp_corpus *c, int64_t *done, int64_t *of)
{
    *done = (int64_t)(c->bytes_behind + lp_stream_disk_bytes(&c->scan));
    *of = (int64_t)c->bytes;
}
