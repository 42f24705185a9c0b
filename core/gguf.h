/* gguf.h - the ggml container, versions 2 and 3, little-endian, split files too.
 *
 * Reader's rules as ggml's src/gguf.cpp: unique keys and names, no nested arrays, offsets equal to the running sum of
 * padded sizes; and every count is bounded by the bytes that remain before anything is allocated for it.
 */
#ifndef LP_CORE_GGUF_H
#define LP_CORE_GGUF_H

#include "core/tensors.h"

typedef enum lp_gguf_type {
    LP_GGUF_U8,
    LP_GGUF_I8,
    LP_GGUF_U16,
    LP_GGUF_I16,
    LP_GGUF_U32,
    LP_GGUF_I32,
    LP_GGUF_F32,
    LP_GGUF_BOOL,
    LP_GGUF_STRING,
    LP_GGUF_ARRAY,
    LP_GGUF_U64,
    LP_GGUF_I64,
    LP_GGUF_F64,
    LP_GGUF_N_TYPES
} lp_gguf_type;

typedef struct lp_gguf lp_gguf;

/* `path`: a .gguf file; for a split model any of its parts (the others are found by name beside it).
 * Tensors have their shape outermost first.  Metadata is the first part's. */
lp_status lp_gguf_open(lp_gguf **out, const char *path, lp_error *err);
void lp_gguf_close(lp_gguf *g); /* NULL is fine */

const lp_tensors *lp_gguf_tensors(const lp_gguf *g);

/* Metadata.  Each returns false when the key is absent or of another kind (integers convert if they fit). */
bool lp_gguf_has(const lp_gguf *g, const char *key);
bool lp_gguf_int(const lp_gguf *g, const char *key, int64_t *out);
bool lp_gguf_float(const lp_gguf *g, const char *key, double *out);
bool lp_gguf_bool(const lp_gguf *g, const char *key, bool *out);
bool lp_gguf_string(const lp_gguf *g, const char *key, const char **out, size_t *len); /* not terminated; borrowed */
bool lp_gguf_array(const lp_gguf *g, const char *key, lp_gguf_type *type, size_t *n);
/* Element i of an array; array_int takes bool too, as 0 and 1.  lp_gguf_array_string is O(1) (an index is kept). */
bool lp_gguf_array_string(const lp_gguf *g, const char *key, size_t i, const char **out, size_t *len);
bool lp_gguf_array_int(const lp_gguf *g, const char *key, size_t i, int64_t *out);
bool lp_gguf_array_float(const lp_gguf *g, const char *key, size_t i, double *out);

/* Writing: metadata and tensor declarations, begin, each tensor's bytes in order, end.
 * As with safetensors, the file appears under its name only at end. */
typedef struct lp_gguf_writer lp_gguf_writer;
lp_status lp_gguf_create(lp_gguf_writer **out, const char *path, lp_error *err);
lp_status lp_gguf_put_u32(lp_gguf_writer *w, const char *key, uint32_t v, lp_error *err);
lp_status lp_gguf_put_f32(lp_gguf_writer *w, const char *key, float v, lp_error *err);
lp_status lp_gguf_put_bool(lp_gguf_writer *w, const char *key, bool v, lp_error *err);
lp_status lp_gguf_put_string(lp_gguf_writer *w, const char *key, const char *v, lp_error *err);
lp_status lp_gguf_put_strings(lp_gguf_writer *w, const char *key, const char *const *v, const size_t *len, size_t n,
                              lp_error *err);
lp_status lp_gguf_put_f32s(lp_gguf_writer *w, const char *key, const float *v, size_t n, lp_error *err);
lp_status lp_gguf_put_i32s(lp_gguf_writer *w, const char *key, const int32_t *v, size_t n, lp_error *err);
lp_status lp_gguf_declare(lp_gguf_writer *w, const char *name, lp_dtype type, int n_dims, const int64_t *shape,
                          lp_error *err); /* shape outermost first */
lp_status lp_gguf_begin(lp_gguf_writer *w, lp_error *err);
lp_status lp_gguf_write(lp_gguf_writer *w, const void *data, size_t bytes, lp_error *err);
lp_status lp_gguf_end(lp_gguf_writer *w, lp_error *err);
void lp_gguf_writer_close(lp_gguf_writer *w);

#endif
