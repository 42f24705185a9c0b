/* gguf.c - reading; see gguf.h (gguf_meta.c looks things up, gguf_write.c writes).
 *
 *     "GGUF" | u32 version | u64 tensors | u64 keys
 *     keys times:     string key | u32 type | value          string = u64 length + bytes
 *     tensors times:  string name | u32 n_dims | u64 ne[] | u32 type | u64 offset        (ne[0] is the fastest axis)
 *     padding | data
 *
 * Everything before the data (a few MB, most of it the vocabulary) is read with pread into one block of memory that
 * grows as the reader advances; values stay where they lie and are looked at through offsets, sorted by key.  Nothing
 * is ever allocated for a count that the remaining bytes could not hold.  The cursor remembers its first error, after
 * which it yields zeros, so loops test it once per turn.
 *
 * A split model has the same key split.count in each part; the parts are found by name: NAME-00002-of-00003.gguf.
 * Sources: ggml src/gguf.cpp, docs/gguf.md; where the document allows more (nested arrays), the code wins.
 */
#include "core/gguf_meta.h"
#include "core/quant.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_HEADER = 256 << 20, /* bytes before the data; a 256k vocabulary takes 8 MB */
    MAX_KEYS = 1000000,
    MAX_TENSORS = 100000,
    MAX_KEY = 65535, /* docs/gguf.md */
    MAX_NAME = 64,
    MAX_NE = 4,
    DEFAULT_ALIGNMENT = 32,
    FIRST_PIECE = 1 << 16,
};

/* ---- cursor -------------------------------------------------------------------------------------------------- */

typedef struct cursor {
    const lp_file *f;
    unsigned char *block;
    size_t loaded, capacity, at;
    size_t limit; /* the file's size or MAX_HEADER */
    lp_status st;
    lp_error *err;
} cursor;

static size_t left(const cursor *c)
{
    return c->limit - c->at;
}

/* The next n bytes, which stay where they are only until the next call; NULL after an error. */
static const unsigned char *take(cursor *c, uint64_t n)
{
    if (c->st != LP_OK) return NULL;
    if (n > left(c)) {
        c->st = c->f->size > MAX_HEADER && n <= c->f->size - c->at
                    ? lp_fail(c->err, LP_E_FORMAT, "%s: its metadata is larger than %d MiB", c->f->path,
                              MAX_HEADER >> 20)
                    : lp_fail(c->err, LP_E_FORMAT, "%s: ends inside its header; is the file truncated?", c->f->path);
        return NULL;
    }
    size_t need = c->at + (size_t)n;
    if (need > c->loaded) {
        size_t want = c->loaded ? c->loaded * 2 : FIRST_PIECE;
        if (want < need) want = need;
        if (want > c->limit) want = c->limit;
        if (!lp_grow((void **)&c->block, &c->capacity, want, 1)) {
            c->st = lp_fail(c->err, LP_E_MEMORY, "%s: out of memory for its metadata", c->f->path);
            return NULL;
        }
        c->st = lp_file_read(c->f, c->loaded, c->block + c->loaded, want - c->loaded, c->err);
        if (c->st != LP_OK) return NULL;
        c->loaded = want;
    }
    c->at = need;
    return c->block + need - n;
}

static uint64_t take_int(cursor *c, int bytes)
{
    const unsigned char *p = take(c, (uint64_t)bytes);
    uint64_t v = 0;
    if (p) memcpy(&v, p, (size_t)bytes);
    return v;
}

/* A key or a tensor's name: printable ASCII of 1..max bytes; returns where it lies.  (The document wants ASCII keys;
 * tensor names go to terminals and into error lines, and no writer makes others.) */
static size_t take_name(cursor *c, size_t *len, const char *what, size_t max)
{
    uint64_t n = take_int(c, 8);
    if (c->st == LP_OK && (n == 0 || n > max))
        c->st = lp_fail(c->err, LP_E_FORMAT, "%s: %s of %" PRIu64 " bytes, 1 to %zu are allowed", c->f->path, what, n,
                        max);
    const unsigned char *p = take(c, n);
    for (uint64_t i = 0; p && i < n; i++)
        if (p[i] < 0x20 || p[i] > 0x7e) {
            c->st = lp_fail(c->err, LP_E_FORMAT, "%s: %s that is not printable ASCII", c->f->path, what);
            return 0;
        }
    *len = p ? (size_t)n : 0;
    return c->at - *len;
}

/* ---- metadata ------------------------------------------------------------------------------------------------ */

static void take_strings(cursor *c, lp_meta_item *x)
{
    if (x->n > left(c) / 8) {
        take(c, UINT64_MAX); /* each has at least its length: the file is too short */
        return;
    }
    x->strings = lp_calloc((size_t)x->n, sizeof *x->strings);
    if (!x->strings) {
        c->st = lp_fail(c->err, LP_E_MEMORY, "%s: out of memory for %" PRIu64 " strings", c->f->path, x->n);
        return;
    }
    for (uint64_t i = 0; i < x->n && c->st == LP_OK; i++) {
        x->strings[i] = (uint32_t)c->at;
        take(c, take_int(c, 8));
    }
}

static void take_value(cursor *c, lp_meta_item *x)
{
    uint64_t type = take_int(c, 4), element = LP_GGUF_U8;
    if (type == LP_GGUF_ARRAY) element = take_int(c, 4);
    if (type == LP_GGUF_ARRAY || type == LP_GGUF_STRING) x->n = take_int(c, 8);
    if (c->st != LP_OK) return;
    if (type >= LP_GGUF_N_TYPES || element >= LP_GGUF_N_TYPES || element == LP_GGUF_ARRAY) {
        c->st = lp_fail(c->err, LP_E_FORMAT, "%s: key \"%.*s\": %s", c->f->path,
                        (int)(x->key_len > 100 ? 100 : x->key_len), c->block + x->key_at,
                        element == LP_GGUF_ARRAY ? "arrays of arrays are not read" : "its type is not known");
        return;
    }
    x->type = (lp_gguf_type)type;
    x->element = (lp_gguf_type)element;
    x->at = c->at;
    if (x->type == LP_GGUF_STRING)
        take(c, x->n);
    else if (x->type != LP_GGUF_ARRAY)
        take(c, lp_meta_bytes[type]);
    else if (x->element == LP_GGUF_STRING)
        take_strings(c, x);
    else
        take(c, x->n > left(c) ? UINT64_MAX : x->n * lp_meta_bytes[element]);
}

static void take_keys(cursor *c, lp_meta *m, uint64_t n)
{
    if (c->st == LP_OK && n > MAX_KEYS)
        c->st = lp_fail(c->err, LP_E_FORMAT, "%s: %" PRIu64 " metadata keys", c->f->path, n);
    for (uint64_t i = 0; i < n && c->st == LP_OK; i++) {
        if (!lp_grow((void **)&m->items, &m->capacity, m->n + 1, sizeof *m->items)) {
            c->st = lp_fail(c->err, LP_E_MEMORY, "%s: out of memory for its metadata", c->f->path);
            return;
        }
        lp_meta_item *x = &m->items[m->n++];
        *x = (lp_meta_item){0};
        x->key_at = take_name(c, &x->key_len, "a metadata key", MAX_KEY);
        take_value(c, x);
    }
}

/* While the keys are still in file order and the block may move. */
static lp_status find_alignment(const cursor *c, const lp_meta *m, uint64_t *out)
{
    *out = DEFAULT_ALIGNMENT;
    for (size_t i = 0; i < m->n; i++) {
        const lp_meta_item *x = &m->items[i];
        if (!lp_meta_is(c->block + x->key_at, x->key_len, "general.alignment")) continue;
        uint32_t v = 0;
        if (x->type == LP_GGUF_U32) memcpy(&v, c->block + x->at, sizeof v);
        if (v == 0 || v & (v - 1))
            return lp_fail(c->err, LP_E_FORMAT, "%s: general.alignment is not a power of two", c->f->path);
        *out = v;
    }
    return LP_OK;
}

/* ---- tensors ------------------------------------------------------------------------------------------------- */

typedef struct ggml_type {
    const char *name;
    uint16_t block, bytes;
    lp_dtype type;
} ggml_type;

/* By ggml's numbers (ggml/include/ggml.h); the holes are types that were withdrawn. */
static const ggml_type ggml_types[] = {
    [0] = {"F32", 1, 4, LP_F32},           [1] = {"F16", 1, 2, LP_F16},           [2] = {"Q4_0", 32, 18, LP_Q4_0},
    [3] = {"Q4_1", 32, 20, LP_Q4_1},       [6] = {"Q5_0", 32, 22, LP_Q5_0},       [7] = {"Q5_1", 32, 24, LP_Q5_1},
    [8] = {"Q8_0", 32, 34, LP_Q8_0},       [9] = {"Q8_1", 32, 36, LP_OTHER},      [10] = {"Q2_K", 256, 84, LP_Q2_K},
    [11] = {"Q3_K", 256, 110, LP_Q3_K},    [12] = {"Q4_K", 256, 144, LP_Q4_K},    [13] = {"Q5_K", 256, 176, LP_Q5_K},
    [14] = {"Q6_K", 256, 210, LP_Q6_K},    [15] = {"Q8_K", 256, 292, LP_OTHER},   [16] = {"IQ2_XXS", 256, 66, LP_OTHER},
    [17] = {"IQ2_XS", 256, 74, LP_OTHER},  [18] = {"IQ3_XXS", 256, 98, LP_OTHER}, [19] = {"IQ1_S", 256, 50, LP_OTHER},
    [20] = {"IQ4_NL", 32, 18, LP_OTHER},   [21] = {"IQ3_S", 256, 110, LP_OTHER},  [22] = {"IQ2_S", 256, 82, LP_OTHER},
    [23] = {"IQ4_XS", 256, 136, LP_OTHER}, [24] = {"I8", 1, 1, LP_OTHER},         [25] = {"I16", 1, 2, LP_OTHER},
    [26] = {"I32", 1, 4, LP_OTHER},        [27] = {"I64", 1, 8, LP_OTHER},        [28] = {"F64", 1, 8, LP_OTHER},
    [29] = {"IQ1_M", 256, 56, LP_OTHER},   [30] = {"BF16", 1, 2, LP_BF16},        [34] = {"TQ1_0", 256, 54, LP_OTHER},
    [35] = {"TQ2_0", 256, 66, LP_OTHER},   [39] = {"MXFP4", 32, 17, LP_OTHER},    [40] = {"NVFP4", 64, 36, LP_OTHER},
    [41] = {"Q1_0", 128, 18, LP_OTHER},    [42] = {"Q2_0", 64, 18, LP_OTHER},
};

static lp_status no_tensor(cursor *c, const lp_tensor *x, const char *why)
{
    return c->st = lp_fail(c->err, LP_E_FORMAT, "%s: tensor \"%s\" %s", c->f->path, x->name, why);
}

/* Type and shape give the bytes; all of it in 64 bits, checked. */
static lp_status measure(cursor *c, lp_tensor *x, const uint64_t *ne, uint64_t type)
{
    uint64_t count = 1;
    if (type >= sizeof ggml_types / sizeof *ggml_types || !ggml_types[type].name) {
        char text[96];
        snprintf(text, sizeof text, "has ggml type %" PRIu64 ", which is withdrawn or not known", type);
        return no_tensor(c, x, text);
    }
    const ggml_type *t = &ggml_types[type];
    for (int i = 0; i < x->n_dims; i++) {
        if (ne[i] > INT64_MAX || __builtin_mul_overflow(count, ne[i], &count) || count > INT64_MAX)
            return no_tensor(c, x, "has more elements than 63 bits count");
        x->shape[x->n_dims - 1 - i] = (int64_t)ne[i];
    }
    if ((x->n_dims ? ne[0] : 1) % t->block) return no_tensor(c, x, "has rows that are not whole blocks of its type");
    if (__builtin_mul_overflow(count / t->block, (uint64_t)t->bytes, &x->bytes)) return no_tensor(c, x, "is too large");
    x->type = t->type;
    x->type_name = t->name;
    return LP_OK;
}

/* Reads one tensor's entry into *x; its offset must be `*next`, which moves on to the following multiple of alignment.
 */
static lp_status take_tensor(cursor *c, lp_tensor *x, uint64_t alignment, uint64_t *next)
{
    size_t len = 0, at = take_name(c, &len, "a tensor name", MAX_NAME);
    uint64_t ne[MAX_NE] = {0}, dims = take_int(c, 4);
    if (c->st != LP_OK) return c->st;
    x->name = lp_format("%.*s", (int)len, (const char *)c->block + at);
    if (!x->name) return c->st = lp_fail(c->err, LP_E_MEMORY, "%s: out of memory for its tensors", c->f->path);
    if (dims > MAX_NE) return no_tensor(c, x, "has more than 4 dimensions");
    x->n_dims = (int)dims;
    for (int i = 0; i < x->n_dims; i++) ne[i] = take_int(c, 8);
    uint64_t type = take_int(c, 4);
    x->at = take_int(c, 8);
    if (c->st != LP_OK || measure(c, x, ne, type) != LP_OK) return c->st;
    if (x->at != *next) return no_tensor(c, x, "does not begin where the one before it ends");
    if (__builtin_add_overflow(x->at, x->bytes, next) || __builtin_add_overflow(*next, alignment - 1, next))
        return no_tensor(c, x, "is too large");
    *next &= ~(alignment - 1);
    return LP_OK;
}

static lp_status take_tensors(cursor *c, lp_tensors *t, int file, uint64_t n, uint64_t alignment)
{
    size_t first = t->n, capacity = t->n;
    uint64_t next = 0;
    if (n > MAX_TENSORS) return lp_fail(c->err, LP_E_FORMAT, "%s: %" PRIu64 " tensors in one file", c->f->path, n);
    for (uint64_t i = 0; i < n; i++) {
        if (!lp_grow((void **)&t->items, &capacity, t->n + 1, sizeof *t->items))
            return lp_fail(c->err, LP_E_MEMORY, "%s: out of memory for its tensors", c->f->path);
        lp_tensor *x = &t->items[t->n++];
        *x = (lp_tensor){.file = file};
        LP_TRY(take_tensor(c, x, alignment, &next));
    }
    uint64_t data = (c->at + alignment - 1) & ~(alignment - 1); /* at <= 256 MiB, alignment <= 2^31 */
    for (size_t i = first; i < t->n; i++) {
        lp_tensor *x = &t->items[i];
        if (data > c->f->size || x->at > c->f->size - data || x->bytes > c->f->size - data - x->at)
            return no_tensor(c, x, "ends after the file; is it truncated?");
        x->at += data;
    }
    return LP_OK;
}

/* ---- one file ------------------------------------------------------------------------------------------------ */

static lp_status take_version(cursor *c)
{
    const unsigned char *magic = take(c, 4);
    if (c->st == LP_E_MEMORY || c->st == LP_E_IO) return c->st;
    if (!magic || memcmp(magic, "GGUF", 4) != 0) return lp_fail(c->err, LP_E_FORMAT, "%s: not a GGUF file", c->f->path);
    uint64_t version = take_int(c, 4);
    if (c->st != LP_OK) return c->st;
    if ((version & 0xffff) == 0)
        return lp_fail(c->err, LP_E_UNSUPPORTED, "%s: a big-endian GGUF file; only little-endian ones are read",
                       c->f->path);
    if (version == 1)
        return lp_fail(c->err, LP_E_UNSUPPORTED, "%s: GGUF version 1 is obsolete; convert the model again", c->f->path);
    if (version > 3)
        return lp_fail(c->err, LP_E_UNSUPPORTED, "%s: GGUF version %" PRIu64 "; 2 and 3 are read", c->f->path, version);
    return LP_OK;
}

/* The block has its final size and place: give back what was read beyond the header. */
static lp_status settle(cursor *c, lp_meta *m)
{
    unsigned char *block = realloc(c->block, c->at);
    if (!block) block = c->block;
    c->block = NULL;
    return lp_meta_settle(m, block, c->f->path, c->err);
}

static lp_status parse(cursor *c, lp_tensors *t, lp_meta *m)
{
    uint64_t alignment;
    LP_TRY(take_version(c));
    uint64_t n_tensors = take_int(c, 8), n_keys = take_int(c, 8);
    take_keys(c, m, n_keys);
    LP_TRY(c->st);
    LP_TRY(find_alignment(c, m, &alignment));
    LP_TRY(take_tensors(c, t, t->n_files - 1, n_tensors, alignment));
    return settle(c, m);
}

/* Opens `path` as the next file of t (room for it is there), appends its tensors, and reads its metadata into *m. */
static lp_status add_file(lp_tensors *t, lp_meta *m, const char *path, lp_error *err)
{
    LP_TRY(lp_file_open(&t->files[t->n_files], path, err));
    const lp_file *f = &t->files[t->n_files++];
    cursor c = {.f = f, .err = err, .limit = f->size < MAX_HEADER ? (size_t)f->size : MAX_HEADER};
    lp_status st = parse(&c, t, m);
    free(c.block); /* NULL once settled */
    return st;
}

/* ---- the whole model ----------------------------------------------------------------------------------------- */

typedef struct split {
    int64_t no, count, tensors; /* count 0 or 1: not split; tensors -1: not said */
} split;

static split split_of(const lp_meta *m)
{
    split s = {0, 0, -1};
    lp_meta_int(m, "split.no", &s.no);
    lp_meta_int(m, "split.count", &s.count);
    lp_meta_int(m, "split.tensors.count", &s.tensors);
    return s;
}

static char *part_path(const char *prefix, size_t prefix_len, int64_t no, int64_t count)
{
    return lp_format("%.*s-%05" PRId64 "-of-%05" PRId64 ".gguf", (int)prefix_len, prefix, no + 1, count);
}

/* The length of what stands before "-00002-of-00003.gguf" in `path`, 0 if it does not end so. */
static size_t prefix_length(const char *path, const split *s)
{
    char tail[64];
    size_t n = strlen(path), k;
    k = (size_t)snprintf(tail, sizeof tail, "-%05" PRId64 "-of-%05" PRId64 ".gguf", s->no + 1, s->count);
    return n > k && strcmp(path + n - k, tail) == 0 ? n - k : 0;
}

static lp_status add_part(lp_gguf *g, const char *path, int64_t no, const split *s, lp_error *err)
{
    lp_meta rest = {0};
    lp_meta *m = no ? &rest : &g->meta;
    lp_status st = add_file(&g->tensors, m, path, err);
    if (st == LP_E_NOT_FOUND)
        lp_fail(err, st, "%s: part %" PRId64 " of %" PRId64 " of the model is missing; put all parts into one folder",
                path, no + 1, s->count);
    split mine = {0};
    if (st == LP_OK) mine = split_of(m);
    if (st == LP_OK && (mine.no != no || mine.count != s->count))
        st = lp_fail(err, LP_E_FORMAT, "%s: says it is part %" PRId64 " of %" PRId64 "; was it renamed?", path,
                     mine.no + 1, mine.count);
    lp_meta_clear(&rest);
    return st;
}

/* g holds one part, found at `path`: begin again with the first. */
static lp_status open_split(lp_gguf *g, const char *path, const split *s, lp_error *err)
{
    size_t n = prefix_length(path, s);
    if (s->count > 99999 || s->no < 0 || s->no >= s->count)
        return lp_fail(err, LP_E_FORMAT, "%s: split.no and split.count make no sense", path);
    if (!n)
        return lp_fail(err, LP_E_NOT_FOUND,
                       "%s: is part %" PRId64 " of %" PRId64 " of a model but is not named ...-%05" PRId64
                       "-of-%05" PRId64 ".gguf, so the others cannot be found",
                       path, s->no + 1, s->count, s->no + 1, s->count);
    lp_tensors_clear(&g->tensors);
    lp_meta_clear(&g->meta);
    g->tensors.files = lp_calloc((size_t)s->count, sizeof *g->tensors.files);
    if (!g->tensors.files) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", path);
    for (int64_t i = 0; i < s->count; i++) {
        char *part = part_path(path, n, i, s->count);
        if (!part) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", path);
        lp_status st = add_part(g, part, i, s, err);
        free(part);
        LP_TRY(st);
    }
    if (s->tensors >= 0 && (uint64_t)s->tensors != g->tensors.n)
        return lp_fail(err, LP_E_FORMAT, "%s: its parts hold %zu tensors, split.tensors.count says %" PRId64, path,
                       g->tensors.n, s->tensors);
    return LP_OK;
}

static lp_status open_all(lp_gguf *g, const char *path, lp_error *err)
{
    g->tensors.files = lp_calloc(1, sizeof *g->tensors.files);
    if (!g->tensors.files) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", path);
    LP_TRY(add_file(&g->tensors, &g->meta, path, err));
    split s = split_of(&g->meta);
    if (s.count > 1) LP_TRY(open_split(g, path, &s, err));
    return lp_tensors_seal(&g->tensors, err);
}

lp_status lp_gguf_open(lp_gguf **out, const char *path, lp_error *err)
{
    lp_gguf *g = calloc(1, sizeof *g);
    if (!g) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", path);
    lp_status st = open_all(g, path, err);
    if (st == LP_OK)
        *out = g;
    else
        lp_gguf_close(g);
    return st;
}

void lp_gguf_close(lp_gguf *g)
{
    if (!g) return;
    lp_tensors_clear(&g->tensors);
    lp_meta_clear(&g->meta);
    free(g);
}

const lp_tensors *lp_gguf_tensors(const lp_gguf *g)
{
    return &g->tensors;
}
