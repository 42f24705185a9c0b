/* safetensors_write.c - writing; see safetensors.h.
 *
 * The header is a JSON object built by jansson, which keeps the order of insertion, refuses broken UTF-8 and tells us
 * of a name that is already there.  It is padded with spaces so that the data begins at a multiple of 8, as the
 * reference writer does; the tensors follow in the order declared.
 */
#include "core/outfile.h"
#include "core/quant.h"
#include "core/safetensors.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct lp_safetensors_writer {
    lp_outfile file;
    json_t *root, *meta; /* meta: NULL until the first key; owned by root */
    uint64_t bytes;      /* of data declared                              */
    uint64_t data;       /* where it begins; 0 before begin               */
};

static lp_status no_memory(const lp_safetensors_writer *w, lp_error *err)
{
    return lp_fail(err, LP_E_MEMORY, "%s: out of memory", w->file.path);
}

/* What jansson did not take was not UTF-8, unless malloc says otherwise. */
static lp_status refused(const lp_safetensors_writer *w, const char *name, lp_error *err)
{
    if (errno == ENOMEM) return no_memory(w, err);
    return lp_fail(err, LP_E_RANGE, "%s: \"%s\" or its value is not UTF-8", w->file.path, name);
}

lp_status lp_safetensors_create(lp_safetensors_writer **out, const char *path, lp_error *err)
{
    lp_safetensors_writer *w = calloc(1, sizeof *w);
    if (!w) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", path);
    lp_status st = lp_outfile_open(&w->file, path, err);
    if (st == LP_OK && !(w->root = json_object())) st = no_memory(w, err);
    if (st == LP_OK)
        *out = w;
    else
        lp_safetensors_close(w);
    return st;
}

/* json_object() with the given members; steals them, and fails when any of them is NULL. */
static json_t *describe(const char *type, json_t *shape, json_t *span)
{
    json_t *j = json_object();
    if (!j || json_object_set_new(j, "dtype", json_string(type)) != 0) {
        json_decref(shape);
        json_decref(span);
        json_decref(j);
        return NULL;
    }
    int bad = json_object_set_new(j, "shape", shape) != 0;
    bad |= json_object_set_new(j, "data_offsets", span) != 0;
    if (!bad) return j;
    json_decref(j);
    return NULL;
}

static json_t *integers(const int64_t *v, int n)
{
    json_t *a = json_array();
    for (int i = 0; a && i < n; i++)
        if (json_array_append_new(a, json_integer(v[i])) != 0) {
            json_decref(a);
            return NULL;
        }
    return a;
}

lp_status lp_safetensors_declare(lp_safetensors_writer *w, const char *name, lp_dtype type, int n_dims,
                                 const int64_t *shape, lp_error *err)
{
    int each = lp_dtype_block(type) == 1 ? (int)lp_dtype_block_bytes(type) : 0;
    return lp_safetensors_declare_raw(w, name, lp_dtype_name(type), each, n_dims, shape, err);
}

lp_status lp_safetensors_declare_raw(lp_safetensors_writer *w, const char *name, const char *type, int each, int n_dims,
                                     const int64_t *shape, lp_error *err)
{
    uint64_t n = 1, bytes = 0;
    bool fits = n_dims >= 0 && n_dims <= LP_MAX_DIMS && each > 0 && !w->data;
    for (int i = 0; i < n_dims && fits; i++) fits = shape[i] >= 0 && !__builtin_mul_overflow(n, (uint64_t)shape[i], &n);
    int64_t span[2] = {(int64_t)w->bytes, 0};
    if (!fits || __builtin_mul_overflow(n, (uint64_t)each, &bytes) || __builtin_add_overflow(span[0], bytes, &span[1]))
        return lp_fail(err, LP_E_SHAPE, "%s: tensor \"%s\" cannot be declared: its type or shape is not one we write",
                       w->file.path, name);
    if (w->bytes % (uint64_t)each)
        return lp_fail(err, LP_E_SHAPE, "%s: tensor \"%s\" would not be aligned; declare wider types first",
                       w->file.path, name);
    if (!strcmp(name, "__metadata__") || json_object_get(w->root, name))
        return lp_fail(err, LP_E_RANGE, "%s: the tensor name \"%s\" is taken", w->file.path, name);
    errno = 0;
    json_t *j = describe(type, integers(shape, n_dims), integers(span, 2));
    if (!j || json_object_set_new(w->root, name, j) != 0) return refused(w, name, err);
    w->bytes = (uint64_t)span[1];
    return LP_OK;
}

lp_status lp_safetensors_metadata(lp_safetensors_writer *w, const char *key, const char *value, lp_error *err)
{
    if (!w->meta) {
        json_t *meta = json_object();
        if (!meta || json_object_set_new(w->root, "__metadata__", meta) != 0) return no_memory(w, err);
        w->meta = meta;
    }
    if (w->data) return lp_fail(err, LP_E_RANGE, "%s: metadata \"%s\" comes too late", w->file.path, key);
    errno = 0;
    return json_object_set_new(w->meta, key, json_string(value)) == 0 ? LP_OK : refused(w, key, err);
}

lp_status lp_safetensors_begin(lp_safetensors_writer *w, lp_error *err)
{
    char *text = json_dumps(w->root, JSON_COMPACT);
    if (!text) return no_memory(w, err);
    size_t n = strlen(text), padded = (n + 7) / 8 * 8;
    unsigned char head[8];
    for (int i = 0; i < 8; i++) head[i] = (unsigned char)((uint64_t)padded >> 8 * i);
    lp_status st = lp_outfile_write(&w->file, head, sizeof head, err);
    if (st == LP_OK) st = lp_outfile_write(&w->file, text, n, err);
    if (st == LP_OK) st = lp_outfile_write(&w->file, "       ", padded - n, err);
    free(text);
    w->data = sizeof head + padded;
    return st;
}

lp_status lp_safetensors_write(lp_safetensors_writer *w, const void *data, size_t bytes, lp_error *err)
{
    if (!w->data || bytes > w->data + w->bytes - w->file.at)
        return lp_fail(err, LP_E_RANGE, "%s: more bytes than the declared tensors have", w->file.path);
    return lp_outfile_write(&w->file, data, bytes, err);
}

lp_status lp_safetensors_end(lp_safetensors_writer *w, lp_error *err)
{
    if (!w->data || w->file.at != w->data + w->bytes)
        return lp_fail(err, LP_E_RANGE, "%s: fewer bytes than the declared tensors have", w->file.path);
    w->data = w->bytes = 0; /* nothing may follow */
    return lp_outfile_end(&w->file, err);
}

void lp_safetensors_close(lp_safetensors_writer *w)
{
    if (!w) return;
    lp_outfile_close(&w->file);
    json_decref(w->root);
    free(w);
}
