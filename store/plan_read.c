/* plan_read.c - see plan.h: reading a plan, which may be a stranger's.
 *
 * What can be worked out is worked out again and compared: windows, shards and sums from the pieces, the hash from the bytes.
 * What cannot (where a document lies, what its hashes are) is held to ranges here and to the corpus when it is read.
 */
#include "sae/hash.h"
#include "store/plan_parts.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 1, MAX_VALUES = 4 << 20 };
#define PLAN_LIMIT   ((size_t)1 << 31)  /* bytes of a file */
#define NUMBER_LIMIT ((int64_t)1 << 53) /* what every reader of JSON can hold */

typedef struct reading {
    lp_plan *p;
    const char *text; /* what is left of it */
    size_t n;
    long line;
    json_t *o;                                                  /* the line being read */
    size_t n_files, n_documents, n_pieces, n_shards, n_windows; /* as the head says */
    int64_t n_tokens, n_bytes, n_empty;
    lp_error *err;
} reading;

/* ---- taking values ----------------------------------------------------------------------------------------------- */

static lp_status wrong(const reading *r, const char *key, const char *want)
{
    return lp_fail(r->err, LP_E_FORMAT, "line %ld: \"%s\" must be %s", r->line, key, want);
}

static lp_status no_memory(const reading *r)
{
    return lp_fail(r->err, LP_E_MEMORY, "line %ld: out of memory", r->line);
}

static lp_status check_number(const reading *r, const char *key, const json_t *v, int64_t least, int64_t most,
                              int64_t *out)
{
    *out = json_integer_value(v);
    if (json_is_integer(v) && *out >= least && *out <= most) return LP_OK;
    return lp_fail(r->err, LP_E_FORMAT, "line %ld: \"%s\" must be a whole number from %" PRId64 " to %" PRId64, r->line,
                   key, least, most);
}

static lp_status take(const reading *r, const char *key, int64_t least, int64_t most, int64_t *out)
{
    return check_number(r, key, json_object_get(r->o, key), least, most, out);
}

static lp_status take_size(const reading *r, const char *key, size_t *out)
{
    int64_t v;
    LP_TRY(take(r, key, 0, NUMBER_LIMIT, &v));
    *out = (size_t)v;
    return LP_OK;
}

/* A number that is known. */
static lp_status expect(const reading *r, const char *key, int64_t want)
{
    int64_t v;
    LP_TRY(take(r, key, 0, NUMBER_LIMIT, &v));
    if (v == want) return LP_OK;
    return lp_fail(r->err, LP_E_FORMAT, "line %ld: \"%s\" is %" PRId64 ", but must be %" PRId64 " here", r->line, key,
                   v, want);
}

static lp_status take_word(const reading *r, const char *key, const char *const *words, int n, int *out)
{
    const char *s = json_string_value(json_object_get(r->o, key));
    for (*out = 0; s && *out < n; ++*out)
        if (strcmp(s, words[*out]) == 0) return LP_OK;
    return lp_fail(r->err, LP_E_FORMAT, "line %ld: \"%s\" must be \"%s\" or \"%s\"%s", r->line, key, words[0], words[1],
                   n > 2 ? ", or another that this version knows" : "");
}

/* A copy; NULL for null, where that may be. */
static lp_status take_text(const reading *r, const char *key, bool or_null, const char **out)
{
    const json_t *v = json_object_get(r->o, key);
    if (or_null && json_is_null(v)) return LP_OK;
    if (!json_is_string(v)) return wrong(r, key, or_null ? "a string, or null" : "a string");
    if (json_string_length(v) > LP_CORPUS_KEY * 4) return wrong(r, key, "shorter");
    return (*out = lp_strdup(json_string_value(v))) ? LP_OK : no_memory(r);
}

static bool is_hex(const json_t *v, size_t n)
{
    const char *s = json_is_string(v) ? json_string_value(v) : "";
    return strlen(s) == n && strspn(s, "0123456789abcdef") == n;
}

static lp_status take_hash(const reading *r, const char *key, char out[33])
{
    const json_t *v = json_object_get(r->o, key);
    if (!is_hex(v, 32)) return wrong(r, key, "a hash: 32 hexadecimal digits");
    memcpy(out, json_string_value(v), 33);
    return LP_OK;
}

/* ---- lines ------------------------------------------------------------------------------------------------------- */

static lp_status next_line(reading *r)
{
    json_error_t bad;
    const char *end = r->n ? memchr(r->text, '\n', r->n) : NULL;
    r->line++;
    json_decref(r->o);
    r->o = NULL;
    if (!end)
        return lp_fail(r->err, LP_E_FORMAT, "line %ld: the file ends in it or before it; is it complete?", r->line);
    size_t n = (size_t)(end - r->text), commas = 0;
    for (size_t i = 0; i < n; i++) commas += r->text[i] == ',';
    if (commas > MAX_VALUES) return lp_fail(r->err, LP_E_FORMAT, "line %ld: longer than any line of a plan", r->line);
    r->o = json_loadb(r->text, n, JSON_REJECT_DUPLICATES, &bad);
    r->text += n + 1;
    r->n -= n + 1;
    if (!r->o) return lp_fail(r->err, LP_E_FORMAT, "line %ld: not JSON: %.100s", r->line, bad.text);
    return json_is_object(r->o) ? LP_OK : lp_fail(r->err, LP_E_FORMAT, "line %ld: not a JSON object", r->line);
}

static lp_status read_format(reading *r)
{
    LP_TRY(next_line(r));
    const char *format = json_string_value(json_object_get(r->o, "format"));
    int64_t version;
    if (!format || strcmp(format, "lapidary-plan") != 0)
        return lp_fail(r->err, LP_E_FORMAT, "not a plan: \"format\" must be \"lapidary-plan\"");
    LP_TRY(take(r, "version", 1, NUMBER_LIMIT, &version));
    if (version != VERSION)
        return lp_fail(r->err, LP_E_UNSUPPORTED,
                       "a plan of version %" PRId64 "; this program reads version %d: take a newer one", version,
                       VERSION);
    return take_hash(r, "hash", r->p->hash);
}

static lp_status check_hash(const reading *r)
{
    char found[33];
    lp_hash_text(found, XXH3_128bits(r->text, r->n));
    if (strcmp(found, r->p->hash) == 0) return LP_OK;
    return lp_fail(r->err, LP_E_FORMAT,
                   "its bytes do not have the hash that its first line says (%s); it was damaged or edited",
                   r->p->hash);
}

static lp_status read_options(const reading *r)
{
    lp_plan_options *o = &r->p->options;
    int64_t context, bos, record, piece;
    int specials, split;
    LP_TRY(take(r, "context", 2, LP_PLAN_CONTEXT, &context));
    LP_TRY(take(r, "shard_tokens", 1, LP_PLAN_SHARD, &o->shard_tokens));
    LP_TRY(take_word(r, "specials", lp_plan_specials, 3, &specials));
    LP_TRY(take(r, "bos", -1, INT32_MAX, &bos));
    LP_TRY(take_hash(r, "tokenizer", r->p->tokenizer));
    LP_TRY(take_word(r, "split", lp_plan_splits, 3, &split));
    LP_TRY(take_text(r, "field", false, &o->corpus.field));
    LP_TRY(take_text(r, "key", true, &o->corpus.key));
    if (!json_is_boolean(json_object_get(r->o, "skip_bad"))) return wrong(r, "skip_bad", "true or false");
    LP_TRY(take(r, "record_bytes", 1, NUMBER_LIMIT, &record));
    LP_TRY(take(r, "piece_bytes", 1, NUMBER_LIMIT, &piece));
    o->context = (int)context;
    o->specials = (lp_specials)specials;
    r->p->bos = (int)bos;
    o->corpus.split = (lp_corpus_split)split;
    o->corpus.skip_bad = json_is_true(json_object_get(r->o, "skip_bad"));
    o->corpus.record_bytes = (size_t)record;
    o->corpus.piece_bytes = (size_t)piece;
    return lp_plan_check_options(o, r->err);
}

static lp_status read_head(reading *r)
{
    LP_TRY(next_line(r));
    LP_TRY(read_options(r));
    LP_TRY(take_size(r, "files", &r->n_files));
    LP_TRY(take_size(r, "documents", &r->n_documents));
    LP_TRY(take_size(r, "pieces", &r->n_pieces));
    LP_TRY(take_size(r, "windows", &r->n_windows));
    LP_TRY(take_size(r, "shards", &r->n_shards));
    LP_TRY(take(r, "tokens", 0, NUMBER_LIMIT, &r->n_tokens));
    LP_TRY(take(r, "bytes", 0, NUMBER_LIMIT, &r->n_bytes));
    LP_TRY(take(r, "empty", 0, NUMBER_LIMIT, &r->n_empty));
    return take(r, "skipped", 0, NUMBER_LIMIT, &r->p->n_skipped);
}

static lp_status read_file(reading *r, size_t i)
{
    const char *name = NULL;
    int kind;
    LP_TRY(next_line(r));
    LP_TRY(expect(r, "file", (int64_t)i));
    LP_TRY(take_word(r, "kind", lp_plan_kinds, 2, &kind));
    LP_TRY(take_text(r, "name", false, &name));
    bool is_safe = lp_corpus_name_is_safe(name);
    lp_status st = is_safe ? lp_corpus_files_add(&r->p->files, name, kind == 1, 0, r->err)
                           : wrong(r, "name", "a path inside the corpus");
    free((char *)(uintptr_t)name);
    return st;
}

/* ---- documents --------------------------------------------------------------------------------------------------- */

/* A byte that begins no character is U+FFFD, three bytes, and where that is no piece, three tokens; nothing makes more. */
static lp_status read_piece(const reading *r, const json_t *v, lp_plan_piece *piece)
{
    int64_t bytes, tokens;
    const json_t *hash = json_array_get(v, 2);
    if (json_array_size(v) != 3 || !is_hex(hash, 16))
        return wrong(r, "pieces", "a list of [bytes, tokens, \"16 hexadecimal digits\"]");
    LP_TRY(check_number(r, "pieces", json_array_get(v, 0), 1, (int64_t)r->p->options.corpus.piece_bytes, &bytes));
    LP_TRY(check_number(r, "pieces", json_array_get(v, 1), 1, 3 * bytes, &tokens));
    piece->n_bytes = (uint32_t)bytes;
    piece->n_tokens = (uint32_t)tokens;
    piece->hash = strtoull(json_string_value(hash), NULL, 16);
    return LP_OK;
}

static lp_status read_pieces(const reading *r, lp_plan_document *d)
{
    const json_t *list = json_object_get(r->o, "pieces");
    lp_plan_piece piece = {.document = r->p->n_documents - 1};
    if (!json_is_array(list)) return wrong(r, "pieces", "a list");
    d->n_pieces = json_array_size(list);
    for (size_t i = 0; i < d->n_pieces; i++) {
        LP_TRY(read_piece(r, json_array_get(list, i), &piece));
        LP_TRY(lp_plan_add_piece(r->p, &piece, r->err));
        piece.at += piece.n_bytes;
    }
    return expect(r, "bytes", (int64_t)piece.at);
}

static uint8_t hex_byte(const char *s)
{
    const char two[3] = {s[0], s[1], 0};
    return (uint8_t)strtoul(two, NULL, 16);
}

static lp_status read_document(reading *r, size_t i)
{
    lp_document d = {0};
    char hash[33];
    int64_t file, offset, length, bytes;
    LP_TRY(next_line(r));
    LP_TRY(expect(r, "document", (int64_t)i));
    LP_TRY(take(r, "file", 0, (int64_t)r->n_files - 1, &file));
    LP_TRY(take(r, "line", 1, NUMBER_LIMIT, &d.line));
    LP_TRY(take(r, "offset", 0, NUMBER_LIMIT, &offset));
    LP_TRY(take(r, "length", 0, NUMBER_LIMIT, &length));
    LP_TRY(take(r, "bytes", 0, NUMBER_LIMIT, &bytes));
    LP_TRY(take_hash(r, "hash", hash));
    d.file = (size_t)file;
    d.offset = (uint64_t)offset;
    d.length = (uint64_t)length;
    d.n_bytes = (uint64_t)bytes;
    if (!r->p->files.items[file].is_jsonl) LP_TRY(expect(r, "length", bytes)); /* of text nothing is left out */
    LP_TRY(take_text(r, "key", true, &d.key));
    lp_status st = lp_plan_add_document(r->p, &d, r->err);
    free((char *)(uintptr_t)d.key);
    if (st != LP_OK) return st;
    lp_plan_document *to = &r->p->documents[i];
    for (int k = 0; k < 16; k++) to->hash[k] = hex_byte(hash + 2 * k);
    return read_pieces(r, to);
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static lp_status read_shard(reading *r, size_t i)
{
    const lp_plan_shard *s = &r->p->shards[i];
    LP_TRY(next_line(r));
    LP_TRY(expect(r, "shard", (int64_t)i));
    LP_TRY(expect(r, "first_window", (int64_t)s->first_window));
    LP_TRY(expect(r, "windows", (int64_t)s->n_windows));
    LP_TRY(expect(r, "first_token", s->first_token));
    return expect(r, "tokens", s->n_tokens);
}

static lp_status check_sums(const reading *r)
{
    const lp_plan *p = r->p;
    bool same = p->n_pieces == r->n_pieces && p->n_windows == r->n_windows && p->n_shards == r->n_shards &&
                p->n_tokens == r->n_tokens && p->n_bytes == r->n_bytes && p->n_empty == r->n_empty;
    return same ? LP_OK : lp_fail(r->err, LP_E_FORMAT, "line 2: its counts are not those of the documents below");
}

static lp_status read_plan(reading *r)
{
    LP_TRY(read_format(r));
    LP_TRY(check_hash(r));
    LP_TRY(read_head(r));
    for (size_t i = 0; i < r->n_files; i++) LP_TRY(read_file(r, i));
    for (size_t i = 0; i < r->n_documents; i++) LP_TRY(read_document(r, i));
    LP_TRY(
        lp_plan_deal(r->p, r->n_shards < r->n ? r->n_shards : r->n, r->err)); /* a shard has a line, a line has bytes */
    LP_TRY(check_sums(r));
    for (size_t i = 0; i < r->p->n_shards; i++) LP_TRY(read_shard(r, i));
    if (!r->n) return LP_OK;
    return lp_fail(r->err, LP_E_FORMAT, "line %ld: more lines than line 2 says", r->line + 1);
}

lp_status lp_plan_parse(lp_plan *out, const char *text, size_t n, lp_error *err)
{
    *out = (lp_plan){0};
    reading r = {.p = out, .text = text, .n = n, .err = err};
    lp_status st = read_plan(&r);
    json_decref(r.o);
    if (st != LP_OK) lp_plan_clear(out);
    return st;
}

lp_status lp_plan_read(lp_plan *out, const char *path, lp_error *err)
{
    char *text = NULL;
    size_t n = 0;
    *out = (lp_plan){0};
    LP_TRY(lp_read_file(&text, &n, path, PLAN_LIMIT, err));
    lp_status st = lp_plan_parse(out, text, n, err);
    free(text);
    return st == LP_OK ? st : lp_prefix(err, st, path);
}
