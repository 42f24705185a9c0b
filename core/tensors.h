/* tensors.h - a checkpoint as a list of named arrays somewhere in files; safetensors.c and gguf.c both make one.
 *
 * Nothing is read until asked.  Whoever fills the list has already proved that each tensor lies inside its file
 * and that bytes == the size its type and shape call for.
 */
#ifndef LP_CORE_TENSORS_H
#define LP_CORE_TENSORS_H

#include "core/base.h"

/* How the elements of an array are stored.  The block types are ggml's (core/quant.h). */
typedef enum lp_dtype {
    LP_F32,
    LP_F16,
    LP_BF16,
    LP_Q8_0,
    LP_Q4_0,
    LP_Q4_1,
    LP_Q5_0,
    LP_Q5_1,
    LP_Q2_K,
    LP_Q3_K,
    LP_Q4_K,
    LP_Q5_K,
    LP_Q6_K,
    LP_OTHER, /* a type we can name but not compute with (I64, F8_E4M3, IQ2_XS, ...) */
    LP_N_DTYPES
} lp_dtype;

enum { LP_MAX_DIMS = 8 };

typedef struct lp_tensor {
    char *name;            /* as the file spells it; owned by the list           */
    const char *type_name; /* as the file spells it ("BF16", "Q4_K"); a constant */
    lp_dtype type;
    int n_dims;
    int64_t shape[LP_MAX_DIMS]; /* row-major, outermost first ([out, in] for a weight), for GGUF too */
    int file;                   /* index into lp_tensors.files       */
    uint64_t at;                /* absolute byte offset in that file */
    uint64_t bytes;
} lp_tensor;

typedef struct lp_tensors {
    lp_file *files;
    int n_files;
    lp_tensor *items; /* sorted by name (strcmp), names unique */
    size_t n;
} lp_tensors;

const lp_tensor *lp_tensors_find(const lp_tensors *t, const char *name); /* NULL: not there */
/* `bytes` bytes from offset `at` inside the tensor. */
lp_status lp_tensors_read(const lp_tensors *t, const lp_tensor *x, uint64_t at, void *buf, size_t bytes, lp_error *err);
void lp_tensors_clear(lp_tensors *t); /* closes the files, frees the names; t itself is the caller's */

/* For the two readers, when the list is full: sorts it by name, refuses duplicates. */
lp_status lp_tensors_seal(lp_tensors *t, lp_error *err);

/* "[256000, 2304]" into buf. */
const char *lp_tensor_shape_text(const lp_tensor *x, char *buf, size_t n);

#endif
