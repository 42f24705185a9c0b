/* gguf_write.c - writing GGUF version 3; see gguf.h.
 *
 * Keys and tensor entries are collected in two growing buffers as they are declared, since the counts stand before them
 * in the file.  Each tensor, the last one too, is padded to the alignment of 32, as ggml's own writer does.
 */
#include "core/gguf.h"
#include "core/outfile.h"
#include "core/quant.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 3, ALIGNMENT = 32, MAX_NE = 4, MAX_NAME = 63 /* readers keep 64 with the NUL */ };

typedef struct buffer {
    unsigned char *p;
    size_t n, capacity;
    bool failed; /* out of memory; sticks */
} buffer;

typedef struct names {
    char **p;
    size_t n, capacity;
} names;

struct lp_gguf_writer {
    lp_outfile file;
    buffer keys, infos;
    names key_names, tensor_names;
    uint64_t *sizes; /* of the tensors, in order */
    size_t sizes_capacity;
    uint64_t next; /* offset of the next declared tensor       */
    bool begun;
    size_t current; /* the tensor being written                 */
    uint64_t done;  /* bytes of it that are                     */
};

static void add(buffer *b, const void *data, size_t n)
{
    if (!b->failed && n > SIZE_MAX - b->n) b->failed = true;
    if (!b->failed && !lp_grow((void **)&b->p, &b->capacity, b->n + n, 1)) b->failed = true;
    if (b->failed || !n) return;
    memcpy(b->p + b->n, data, n);
    b->n += n;
}

static void add_u32(buffer *b, uint32_t v)
{
    add(b, &v, sizeof v);
}

static void add_u64(buffer *b, uint64_t v)
{
    add(b, &v, sizeof v);
}

static void add_string(buffer *b, const char *s, size_t n)
{
    add_u64(b, n);
    add(b, s, n);
}

static bool keep_name(names *l, const char *name)
{
    if (!lp_grow((void **)&l->p, &l->capacity, l->n + 1, sizeof *l->p)) return false;
    l->p[l->n] = lp_strdup(name);
    return l->p[l->n++] != NULL;
}

static lp_status no_memory(const lp_gguf_writer *w, lp_error *err)
{
    return lp_fail(err, LP_E_MEMORY, "%s: out of memory", w->file.path);
}

lp_status lp_gguf_create(lp_gguf_writer **out, const char *path, lp_error *err)
{
    lp_gguf_writer *w = calloc(1, sizeof *w);
    if (!w) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", path);
    lp_status st = lp_outfile_open(&w->file, path, err);
    if (st == LP_OK)
        *out = w;
    else
        lp_gguf_writer_close(w);
    return st;
}

/* ---- metadata ------------------------------------------------------------------------------------------------ */

static lp_status put(lp_gguf_writer *w, const char *key, lp_gguf_type type, const void *data, size_t n, lp_error *err)
{
    if (w->begun || !*key) return lp_fail(err, LP_E_RANGE, "%s: key \"%s\" is empty or too late", w->file.path, key);
    add_string(&w->keys, key, strlen(key));
    add_u32(&w->keys, type);
    add(&w->keys, data, n);
    return keep_name(&w->key_names, key) && !w->keys.failed ? LP_OK : no_memory(w, err);
}

/* The value's head only; the elements are added by the caller, who looks at `failed` afterwards. */
static lp_status put_array(lp_gguf_writer *w, const char *key, lp_gguf_type element, size_t n, lp_error *err)
{
    LP_TRY(put(w, key, LP_GGUF_ARRAY, NULL, 0, err));
    add_u32(&w->keys, element);
    add_u64(&w->keys, n);
    return LP_OK;
}

lp_status lp_gguf_put_u32(lp_gguf_writer *w, const char *key, uint32_t v, lp_error *err)
{
    return put(w, key, LP_GGUF_U32, &v, sizeof v, err);
}

lp_status lp_gguf_put_f32(lp_gguf_writer *w, const char *key, float v, lp_error *err)
{
    return put(w, key, LP_GGUF_F32, &v, sizeof v, err);
}

lp_status lp_gguf_put_bool(lp_gguf_writer *w, const char *key, bool v, lp_error *err)
{
    return put(w, key, LP_GGUF_BOOL, &(uint8_t){v}, 1, err);
}

lp_status lp_gguf_put_string(lp_gguf_writer *w, const char *key, const char *v, lp_error *err)
{
    LP_TRY(put(w, key, LP_GGUF_STRING, NULL, 0, err));
    add_string(&w->keys, v, strlen(v));
    return w->keys.failed ? no_memory(w, err) : LP_OK;
}

lp_status lp_gguf_put_strings(lp_gguf_writer *w, const char *key, const char *const *v, const size_t *len, size_t n,
                              lp_error *err)
{
    LP_TRY(put_array(w, key, LP_GGUF_STRING, n, err));
    for (size_t i = 0; i < n; i++) add_string(&w->keys, v[i], len[i]);
    return w->keys.failed ? no_memory(w, err) : LP_OK;
}

lp_status lp_gguf_put_f32s(lp_gguf_writer *w, const char *key, const float *v, size_t n, lp_error *err)
{
    LP_TRY(put_array(w, key, LP_GGUF_F32, n, err));
    add(&w->keys, v, n * sizeof *v);
    return w->keys.failed ? no_memory(w, err) : LP_OK;
}

lp_status lp_gguf_put_i32s(lp_gguf_writer *w, const char *key, const int32_t *v, size_t n, lp_error *err)
{
    LP_TRY(put_array(w, key, LP_GGUF_I32, n, err));
    add(&w->keys, v, n * sizeof *v);
    return w->keys.failed ? no_memory(w, err) : LP_OK;
}

/* ---- tensors ------------------------------------------------------------------------------------------------- */

/* ggml's numbers of the types we name. */
static const uint8_t ggml_number[LP_OTHER] = {
    [LP_F32] = 0,  [LP_F16] = 1,   [LP_BF16] = 30, [LP_Q8_0] = 8,  [LP_Q4_0] = 2,  [LP_Q4_1] = 3,  [LP_Q5_0] = 6,
    [LP_Q5_1] = 7, [LP_Q2_K] = 10, [LP_Q3_K] = 11, [LP_Q4_K] = 12, [LP_Q5_K] = 13, [LP_Q6_K] = 14,
};

lp_status lp_gguf_declare(lp_gguf_writer *w, const char *name, lp_dtype type, int n_dims, const int64_t *shape,
                          lp_error *err)
{
    uint64_t n = 1, bytes = 0, end;
    bool fits = !w->begun && n_dims >= 0 && n_dims <= MAX_NE && type != LP_OTHER && *name && strlen(name) <= MAX_NAME;
    for (int i = 0; i < n_dims && fits; i++) fits = shape[i] >= 0 && !__builtin_mul_overflow(n, (uint64_t)shape[i], &n);
    if (fits) fits = (n_dims ? shape[n_dims - 1] : 1) % lp_dtype_block(type) == 0; /* blocks do not cross rows */
    if (!fits || !lp_dtype_bytes(type, n, &bytes) || __builtin_add_overflow(w->next, bytes, &end) || end > INT64_MAX)
        return lp_fail(err, LP_E_SHAPE,
                       "%s: tensor \"%s\" cannot be declared: its name, type or shape is not one we write",
                       w->file.path, name);
    if (!lp_grow((void **)&w->sizes, &w->sizes_capacity, w->tensor_names.n + 1, sizeof *w->sizes) ||
        !keep_name(&w->tensor_names, name))
        return no_memory(w, err);
    w->sizes[w->tensor_names.n - 1] = bytes;
    add_string(&w->infos, name, strlen(name));
    add_u32(&w->infos, (uint32_t)n_dims);
    for (int i = n_dims - 1; i >= 0; i--) add_u64(&w->infos, (uint64_t)shape[i]);
    add_u32(&w->infos, ggml_number[type]);
    add_u64(&w->infos, w->next);
    w->next = (end + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return w->infos.failed ? no_memory(w, err) : LP_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static lp_status check_twins(names *l, const char *what, const char *path, lp_error *err)
{
    if (l->n > 1) qsort(l->p, l->n, sizeof *l->p, by_text);
    for (size_t i = 1; i < l->n; i++)
        if (strcmp(l->p[i], l->p[i - 1]) == 0)
            return lp_fail(err, LP_E_RANGE, "%s: %s \"%s\" is there twice", path, what, l->p[i]);
    return LP_OK;
}

/* Past tensors that are complete (empty ones at once), padding after each. */
static lp_status advance(lp_gguf_writer *w, lp_error *err)
{
    while (w->current < w->tensor_names.n && w->done == w->sizes[w->current]) {
        LP_TRY(lp_outfile_pad(&w->file, (w->file.at + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, err));
        w->current++;
        w->done = 0;
    }
    return LP_OK;
}

lp_status lp_gguf_begin(lp_gguf_writer *w, lp_error *err)
{
    if (w->keys.failed || w->infos.failed) return no_memory(w, err);
    if (w->begun) return lp_fail(err, LP_E_RANGE, "%s: begun twice", w->file.path);
    LP_TRY(check_twins(&w->key_names, "key", w->file.path, err));
    LP_TRY(check_twins(&w->tensor_names, "tensor", w->file.path, err));
    const uint32_t version = VERSION;
    const uint64_t counts[2] = {w->tensor_names.n, w->key_names.n};
    w->begun = true;
    LP_TRY(lp_outfile_write(&w->file, "GGUF", 4, err));
    LP_TRY(lp_outfile_write(&w->file, &version, sizeof version, err));
    LP_TRY(lp_outfile_write(&w->file, counts, sizeof counts, err));
    LP_TRY(lp_outfile_write(&w->file, w->keys.p, w->keys.n, err));
    LP_TRY(lp_outfile_write(&w->file, w->infos.p, w->infos.n, err));
    LP_TRY(lp_outfile_pad(&w->file, (w->file.at + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, err));
    return advance(w, err);
}

lp_status lp_gguf_write(lp_gguf_writer *w, const void *data, size_t bytes, lp_error *err)
{
    const unsigned char *p = data;
    while (bytes) {
        if (!w->begun || w->current == w->tensor_names.n)
            return lp_fail(err, LP_E_RANGE, "%s: more bytes than the declared tensors have", w->file.path);
        uint64_t open = w->sizes[w->current] - w->done;
        size_t n = open < bytes ? (size_t)open : bytes;
        LP_TRY(lp_outfile_write(&w->file, p, n, err));
        p += n, bytes -= n, w->done += n;
        LP_TRY(advance(w, err));
    }
    return LP_OK;
}

lp_status lp_gguf_end(lp_gguf_writer *w, lp_error *err)
{
    if (!w->begun || w->current != w->tensor_names.n)
        return lp_fail(err, LP_E_RANGE, "%s: fewer bytes than the declared tensors have", w->file.path);
    return lp_outfile_end(&w->file, err);
}

static void names_clear(names *l)
{
    for (size_t i = 0; i < l->n; i++) free(l->p[i]);
    free(l->p);
}

void lp_gguf_writer_close(lp_gguf_writer *w)
{
    if (!w) return;
    lp_outfile_close(&w->file);
    names_clear(&w->key_names);
    names_clear(&w->tensor_names);
    free(w->keys.p);
    free(w->infos.p);
    free(w->sizes);
    free(w);
}
