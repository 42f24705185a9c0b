/* safetensors.c - reading; see safetensors.h (safetensors_write.c writes).
 *
 *     u64 N | N bytes of JSON | data ... end of file
 *     {"__metadata__": {"k": "v"}, "name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, ...}
 *
 * The container is simple enough that every byte can be accounted for: sorted by offset the tensors must tile the
 * data exactly.  What a hostile file could still do is make the JSON parser build a tree far larger than the text
 * (8 bytes of "[0,0,0,0" cost hundreds), so depth and number of values are counted before it sees anything.
 *
 * A model in shards has an index, {"metadata": {...}, "weight_map": {"name": "file"}}.  Its total_size is not looked
 * at: writers get it wrong.  Sources: huggingface/safetensors safetensors/src/tensor.rs, README.md "Format".
 */
#include "core/safetensors.h"

#include "core/quant.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_HEADER = 100000000,   /* the reference's limit */
    MAX_TENSORS = 100000,     /* in one file */
    MAX_NAME = 1024,          /* bytes */
    MAX_VALUES = 3 * 1000000, /* JSON values in a header or index: 100 000 tensors of rank 8 have 1.3 million */
    HEADER_DEPTH = 3,         /* file { tensor { shape [ */
    INDEX_DEPTH = 16,
    MAX_SHARDS = 512, /* all are open at once */
};

/* dtype strings, bits per element (safetensors/src/tensor.rs). */
typedef struct st_type {
    const char *name;
    int bits;
    lp_dtype type;
} st_type;

static const st_type st_types[] = {
    {"F32", 32, LP_F32},      {"F16", 16, LP_F16},          {"BF16", 16, LP_BF16},        {"F64", 64, LP_OTHER},
    {"I64", 64, LP_OTHER},    {"U64", 64, LP_OTHER},        {"C64", 64, LP_OTHER},        {"I32", 32, LP_OTHER},
    {"U32", 32, LP_OTHER},    {"I16", 16, LP_OTHER},        {"U16", 16, LP_OTHER},        {"I8", 8, LP_OTHER},
    {"U8", 8, LP_OTHER},      {"BOOL", 8, LP_OTHER},        {"F8_E4M3", 8, LP_OTHER},     {"F8_E5M2", 8, LP_OTHER},
    {"F8_E8M0", 8, LP_OTHER}, {"F8_E4M3FNUZ", 8, LP_OTHER}, {"F8_E5M2FNUZ", 8, LP_OTHER}, {"F6_E2M3", 6, LP_OTHER},
    {"F6_E3M2", 6, LP_OTHER}, {"F4", 4, LP_OTHER},
};

/* ---- JSON ---------------------------------------------------------------------------------------------------- */

/* Every value but the first follows a comma, a colon or a bracket; so counting those bounds the values. */
static lp_status weigh_json(const char *text, size_t n, int max_depth, const char *path, lp_error *err)
{
    size_t values = 0;
    int depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (quoted) {
            if (c == '\\')
                i++;
            else if (c == '"')
                quoted = false;
            continue;
        }
        quoted = c == '"';
        if (c == '{' || c == '[') depth++, values++;
        if (c == '}' || c == ']') depth--;
        if (c == ',' || c == ':') values++;
        if (depth > max_depth) return lp_fail(err, LP_E_FORMAT, "%s: the JSON is nested too deeply", path);
        if (values > MAX_VALUES) return lp_fail(err, LP_E_FORMAT, "%s: the JSON has too many values", path);
    }
    return LP_OK;
}

/* An object, or an error.  jansson itself refuses broken UTF-8, NUL in strings and keys, numbers beyond 64 bits. */
static lp_status parse_json(json_t **out, const char *text, size_t n, int max_depth, const char *path, lp_error *err)
{
    LP_TRY(weigh_json(text, n, max_depth, path, err));
    json_error_t je = {0};
    errno = 0; /* jansson takes a failed allocation for broken JSON, or cuts a string short; malloc itself is plain */
    json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
    if (errno == ENOMEM) {
        json_decref(j);
        return lp_fail(err, LP_E_MEMORY, "%s: out of memory reading %zu bytes of JSON", path, n);
    }
    if (!j) return lp_fail(err, LP_E_FORMAT, "%s: the JSON is broken at byte %d: %s", path, je.position, je.text);
    if (!json_is_object(j)) {
        json_decref(j);
        return lp_fail(err, LP_E_FORMAT, "%s: the JSON is not an object", path);
    }
    *out = j;
    return LP_OK;
}

/* ---- one tensor ---------------------------------------------------------------------------------------------- */

static const st_type *find_type(const char *name)
{
    for (size_t i = 0; name && i < sizeof st_types / sizeof *st_types; i++)
        if (strcmp(st_types[i].name, name) == 0) return &st_types[i];
    return NULL;
}

/* A JSON integer >= 0; 1.0, 1e3 and "1" are none. */
static bool take_size(const json_t *j, uint64_t *out)
{
    if (!json_is_integer(j) || json_integer_value(j) < 0) return false;
    *out = (uint64_t)json_integer_value(j);
    return true;
}

/* Fills *x (at: still relative to the data) from {"dtype", "shape", "data_offsets"}. */
static lp_status parse_tensor(lp_tensor *x, const char *name, const json_t *j, const lp_file *f, lp_error *err)
{
    const st_type *type = find_type(json_string_value(json_object_get(j, "dtype")));
    const json_t *shape = json_object_get(j, "shape"), *span = json_object_get(j, "data_offsets");
    uint64_t begin, end, bits, dim;
    if (!json_is_object(j) || !json_is_array(shape) || json_array_size(span) != 2)
        return lp_fail(err, LP_E_FORMAT, "%s: tensor \"%s\" needs dtype, shape and two data_offsets", f->path, name);
    if (!type) {
        const char *text = json_string_value(json_object_get(j, "dtype"));
        return lp_fail(err, LP_E_FORMAT, "%s: tensor \"%s\" has dtype \"%s\", which is not known", f->path, name,
                       text ? text : "");
    }
    if (json_array_size(shape) > LP_MAX_DIMS)
        return lp_fail(err, LP_E_FORMAT, "%s: tensor \"%s\" has %zu dimensions, at most %d are read", f->path, name,
                       json_array_size(shape), LP_MAX_DIMS);
    if (!take_size(json_array_get(span, 0), &begin) || !take_size(json_array_get(span, 1), &end) || end < begin)
        return lp_fail(err, LP_E_FORMAT, "%s: tensor \"%s\": data_offsets are not two rising integers", f->path, name);
    x->n_dims = (int)json_array_size(shape);
    bits = (uint64_t)type->bits;
    bool fits = true;
    for (int i = 0; i < x->n_dims; i++) {
        if (!take_size(json_array_get(shape, (size_t)i), &dim))
            return lp_fail(err, LP_E_FORMAT, "%s: tensor \"%s\": its shape is not made of integers >= 0", f->path,
                           name);
        x->shape[i] = (int64_t)dim;
        fits = fits && !__builtin_mul_overflow(bits, dim, &bits);
    }
    if (!fits || bits % 8 || bits / 8 != end - begin) {
        char text[200];
        return lp_fail(err, LP_E_FORMAT,
                       "%s: tensor \"%s\" %s of %s does not have the %" PRIu64 " bytes its offsets say", f->path, name,
                       lp_tensor_shape_text(x, text, sizeof text), type->name, end - begin);
    }
    x->type = type->type;
    x->type_name = type->name;
    x->at = begin;
    x->bytes = end - begin;
    x->name = lp_strdup(name);
    return x->name ? LP_OK : lp_fail(err, LP_E_MEMORY, "%s: out of memory", f->path);
}

/* ---- one file ------------------------------------------------------------------------------------------------ */

static int by_offset(const void *a, const void *b)
{
    const lp_tensor *x = a, *y = b;
    if (x->at != y->at) return x->at < y->at ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* the empty ones first */
}

/* The tensors must tile the data: no hole, no overlap, nothing after the last. */
static lp_status check_tiling(lp_tensor *x, size_t n, const lp_file *f, uint64_t data_bytes, lp_error *err)
{
    uint64_t at = 0;
    if (n > 1) qsort(x, n, sizeof *x, by_offset);
    for (size_t i = 0; i < n; i++) {
        if (x[i].at != at)
            return lp_fail(err, LP_E_FORMAT, "%s: tensor \"%s\" begins at %" PRIu64 " of the data, %s %" PRIu64,
                           f->path, x[i].name, x[i].at,
                           x[i].at < at ? "inside the one that ends at" : "leaving a hole after", at);
        at += x[i].bytes; /* both below 2^63: cannot wrap */
        if (at > data_bytes)
            return lp_fail(err, LP_E_FORMAT,
                           "%s: tensor \"%s\" ends %" PRIu64 " bytes after the file; is it truncated?", f->path,
                           x[i].name, at - data_bytes);
    }
    if (at != data_bytes)
        return lp_fail(err, LP_E_FORMAT, "%s: %" PRIu64 " bytes after the last tensor belong to nothing", f->path,
                       data_bytes - at);
    return LP_OK;
}

static lp_status check_name(const char *name, size_t n, const lp_file *f, lp_error *err)
{
    if (n > MAX_NAME) return lp_fail(err, LP_E_FORMAT, "%s: a tensor name of %zu bytes", f->path, n);
    if (strlen(name) != n) return lp_fail(err, LP_E_FORMAT, "%s: a tensor name with a NUL in it", f->path);
    return LP_OK;
}

static lp_status check_metadata(json_t *meta, const lp_file *f, lp_error *err)
{
    bool good = json_is_object(meta);
    for (void *i = json_object_iter(meta); i && good; i = json_object_iter_next(meta, i))
        good = json_is_string(json_object_iter_value(i));
    return good ? LP_OK : lp_fail(err, LP_E_FORMAT, "%s: __metadata__ may only map strings to strings", f->path);
}

/* Appends the tensors of header `j` (data starts at `data`) to t, as tensors of file number `file`. */
static lp_status take_tensors(lp_tensors *t, json_t *j, int file, uint64_t data, lp_error *err)
{
    const lp_file *f = &t->files[file];
    size_t first = t->n, n = json_object_size(j);
    if (n > MAX_TENSORS) return lp_fail(err, LP_E_FORMAT, "%s: %zu tensors in one file", f->path, n);
    lp_tensor *grown = realloc(t->items, (t->n + n + 1) * sizeof *grown);
    if (!grown) return lp_fail(err, LP_E_MEMORY, "%s: out of memory for %zu tensors", f->path, n);
    t->items = grown;
    for (void *i = json_object_iter(j); i; i = json_object_iter_next(j, i)) {
        const char *name = json_object_iter_key(i);
        json_t *value = json_object_iter_value(i);
        if (strcmp(name, "__metadata__") == 0) {
            LP_TRY(check_metadata(value, f, err));
            continue;
        }
        LP_TRY(check_name(name, json_object_iter_key_len(i), f, err));
        lp_tensor *x = &t->items[t->n];
        *x = (lp_tensor){.file = file};
        LP_TRY(parse_tensor(x, name, value, f, err));
        t->n++;
    }
    LP_TRY(check_tiling(t->items + first, t->n - first, f, f->size - data, err));
    for (size_t i = first; i < t->n; i++) t->items[i].at += data;
    return LP_OK;
}

/* Opens `path` as the next file of t (room for it is there) and appends its tensors. */
static lp_status add_file(lp_tensors *t, const char *path, lp_error *err)
{
    LP_TRY(lp_file_open(&t->files[t->n_files], path, err));
    lp_file *f = &t->files[t->n_files++];
    unsigned char head[8];
    uint64_t n = 0;
    if (f->size < sizeof head)
        return lp_fail(err, LP_E_FORMAT, "%s: %" PRIu64 " bytes, too few for a safetensors file", path, f->size);
    LP_TRY(lp_file_read(f, 0, head, sizeof head, err));
    for (int i = 7; i >= 0; i--) n = n << 8 | head[i];
    if (n > MAX_HEADER)
        return lp_fail(err, LP_E_FORMAT, "%s: a header of %" PRIu64 " bytes: not a safetensors file", path, n);
    if (n > f->size - sizeof head)
        return lp_fail(err, LP_E_FORMAT,
                       "%s: the header says %" PRIu64 " bytes, the file has %" PRIu64 "; is it truncated?", path, n,
                       f->size - sizeof head);
    char *text = malloc((size_t)n + 1);
    json_t *j = NULL;
    lp_status st = text ? lp_file_read(f, sizeof head, text, (size_t)n, err)
                        : lp_fail(err, LP_E_MEMORY, "%s: out of memory for its header", path);
    if (st == LP_OK && (n == 0 || text[0] != '{'))
        st = lp_fail(err, LP_E_FORMAT, "%s: the header does not begin with '{': not a safetensors file", path);
    if (st == LP_OK) st = parse_json(&j, text, (size_t)n, HEADER_DEPTH, path, err);
    free(text);
    if (st == LP_OK) st = take_tensors(t, j, t->n_files - 1, sizeof head + n, err);
    json_decref(j);
    return st;
}

/* ---- a folder ------------------------------------------------------------------------------------------------ */

typedef struct shard_index {
    json_t *root;
    json_t *map;        /* weight_map, in root */
    const char **names; /* the shards, sorted, each once; strings in root */
    int n;
} shard_index;

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool plain_name(const char *s)
{
    return *s && strlen(s) <= 255 && !strpbrk(s, "/\\") && !strstr(s, "..");
}

static void index_clear(shard_index *x)
{
    json_decref(x->root);
    free(x->names);
}

static lp_status list_shards(shard_index *x, const char *path, lp_error *err)
{
    size_t n = json_object_size(x->map), k = 0;
    if (!n) return lp_fail(err, LP_E_FORMAT, "%s: weight_map is missing or empty", path);
    x->names = lp_calloc(n, sizeof *x->names);
    if (!x->names) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", path);
    for (void *i = json_object_iter(x->map); i; i = json_object_iter_next(x->map, i)) {
        const char *shard = json_string_value(json_object_iter_value(i));
        if (!shard || !plain_name(shard))
            return lp_fail(err, LP_E_FORMAT, "%s: \"%s\" is not the name of a file beside it", path,
                           shard ? shard : "(not a string)");
        x->names[k++] = shard;
    }
    qsort(x->names, n, sizeof *x->names, by_text);
    for (size_t i = 0; i < n; i++) {
        if (i && strcmp(x->names[i], x->names[i - 1]) == 0) continue;
        if (x->n == MAX_SHARDS) return lp_fail(err, LP_E_FORMAT, "%s: more than %d shards", path, MAX_SHARDS);
        x->names[x->n++] = x->names[i];
    }
    return LP_OK;
}

static lp_status index_read(shard_index *x, const char *path, lp_error *err)
{
    *x = (shard_index){0};
    char *text = NULL;
    size_t n = 0;
    lp_status st = lp_read_file(&text, &n, path, MAX_HEADER, err);
    if (st == LP_OK) st = parse_json(&x->root, text, n, INDEX_DEPTH, path, err);
    free(text);
    if (st == LP_OK) {
        x->map = json_object_get(x->root, "weight_map");
        st = list_shards(x, path, err);
    }
    if (st != LP_OK) {
        index_clear(x);
        *x = (shard_index){0};
    }
    return st;
}

/* Of the tensors from `first` on, which `shard` holds, keep those the index puts there. */
static void drop_strangers(lp_tensors *t, size_t first, const json_t *map, const char *shard, const lp_env *env)
{
    size_t kept = first, dropped = 0;
    for (size_t i = first; i < t->n; i++) {
        const char *home = json_string_value(json_object_get(map, t->items[i].name));
        if (home && strcmp(home, shard) == 0) {
            t->items[kept++] = t->items[i];
            continue;
        }
        if (!dropped++)
            lp_log(env, LP_WARN, "%s: tensor \"%s\" is not in the index and is ignored", shard, t->items[i].name);
        free(t->items[i].name);
    }
    if (dropped > 1) lp_log(env, LP_WARN, "%s: %zu more such tensors", shard, dropped - 1);
    t->n = kept;
}

static lp_status open_shards(lp_tensors *t, const char *dir, const shard_index *x, const lp_env *env, lp_error *err)
{
    t->files = lp_calloc((size_t)x->n, sizeof *t->files);
    if (!t->files) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", dir);
    for (int i = 0; i < x->n; i++) {
        char *path = lp_path_join(dir, x->names[i]);
        if (!path) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", dir);
        size_t first = t->n;
        lp_status st = add_file(t, path, err);
        if (st == LP_E_NOT_FOUND)
            lp_fail(err, st, "%s: the index names this shard but it is not there; is the download complete?", path);
        free(path);
        LP_TRY(st);
        drop_strangers(t, first, x->map, x->names[i], env);
    }
    LP_TRY(lp_tensors_seal(t, err));
    for (void *i = json_object_iter(x->map); i; i = json_object_iter_next(x->map, i))
        if (!lp_tensors_find(t, json_object_iter_key(i)))
            return lp_fail(err, LP_E_FORMAT, "%s: the index says tensor \"%s\" is in %s, which does not hold it", dir,
                           json_object_iter_key(i), json_string_value(json_object_iter_value(i)));
    return LP_OK;
}

static lp_status open_single(lp_tensors *t, const char *path, lp_error *err)
{
    t->files = lp_calloc(1, sizeof *t->files);
    if (!t->files) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", path);
    LP_TRY(add_file(t, path, err));
    return lp_tensors_seal(t, err);
}

static lp_status open_folder(lp_tensors *t, const char *dir, const lp_env *env, lp_error *err)
{
    char *single = lp_path_join(dir, "model.safetensors");
    char *index = lp_path_join(dir, "model.safetensors.index.json");
    shard_index x = {0};
    lp_status st;
    if (!single || !index)
        st = lp_fail(err, LP_E_MEMORY, "%s: out of memory", dir);
    else if (lp_is_file(single))
        st = open_single(t, single, err);
    else if (!lp_is_file(index))
        st = lp_fail(err, LP_E_NOT_FOUND, "%s: neither model.safetensors nor model.safetensors.index.json is there",
                     dir);
    else if ((st = index_read(&x, index, err)) == LP_OK)
        st = open_shards(t, dir, &x, env, err);
    index_clear(&x);
    free(single);
    free(index);
    return st;
}

lp_status lp_safetensors_open(lp_tensors *out, const char *path, const lp_env *env, lp_error *err)
{
    lp_tensors t = {0};
    lp_status st = lp_is_dir(path) ? open_folder(&t, path, env, err) : open_single(&t, path, err);
    if (st == LP_OK) {
        *out = t;
        t = (lp_tensors){0};
    }
    lp_tensors_clear(&t);
    return st;
}

lp_status lp_safetensors_missing(char **out, const char *dir, lp_error *err)
{
    *out = NULL;
    char *single = lp_path_join(dir, "model.safetensors");
    char *index = lp_path_join(dir, "model.safetensors.index.json");
    char *shard = NULL;
    const char *lacking = NULL;
    shard_index x = {0};
    lp_status st = LP_OK;
    if (!single || !index)
        st = lp_fail(err, LP_E_MEMORY, "%s: out of memory", dir);
    else if (lp_is_file(single))
        goto out;
    else if (!lp_is_file(index))
        lacking = "model.safetensors";
    else
        st = index_read(&x, index, err);
    for (int i = 0; i < x.n && st == LP_OK && !lacking; i++) {
        free(shard);
        shard = lp_path_join(dir, x.names[i]);
        if (!shard)
            st = lp_fail(err, LP_E_MEMORY, "%s: out of memory", dir);
        else if (!lp_is_file(shard))
            lacking = x.names[i];
    }
    if (lacking && !(*out = lp_strdup(lacking))) st = lp_fail(err, LP_E_MEMORY, "%s: out of memory", dir);
out:
    index_clear(&x);
    free(single);
    free(index);
    free(shard);
    return st;
}
