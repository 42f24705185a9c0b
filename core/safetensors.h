/* safetensors.h - the Hugging Face container: u64 header length, JSON header, data.
 *
 * Checked as the reference reader checks (huggingface/safetensors, safetensors/src/tensor.rs): no holes, no overlaps,
 * no trailing bytes, exact sizes, overflow-checked; and harder: duplicate keys, names with NUL, ranks above 8 and
 * counts above 100 000 are refused.
 */
#ifndef LP_CORE_SAFETENSORS_H
#define LP_CORE_SAFETENSORS_H

#include "core/tensors.h"

/* `path`: a .safetensors file, or a folder with model.safetensors or model.safetensors.index.json (shards).
 * Shard names with path separators or ".." are refused; every tensor of the index must be in the shard it names. */
lp_status lp_safetensors_open(lp_tensors *out, const char *path, const lp_env *env, lp_error *err);

/* The first of the weight files of folder `dir` that is not there, NULL when all are; *out is yours to free. */
lp_status lp_safetensors_missing(char **out, const char *dir, lp_error *err);

/* Writing, in one pass: declare every tensor, begin (writes the header), then each tensor's bytes in the order
 * declared (in pieces of any size), then end.  The file appears under its name only at end; a failed or abandoned
 * write leaves nothing.  Wider types are declared before narrower ones, so that each tensor is aligned to its type. */
typedef struct lp_safetensors_writer lp_safetensors_writer;
lp_status lp_safetensors_create(lp_safetensors_writer **out, const char *path, lp_error *err);
lp_status lp_safetensors_declare(lp_safetensors_writer *w, const char *name, lp_dtype type, int n_dims,
                                 const int64_t *shape, lp_error *err); /* F32, F16, BF16 */
/* Of any type of the format, "I64", whose elements have `each` bytes: 1, 2, 4 or 8. */
lp_status lp_safetensors_declare_raw(lp_safetensors_writer *w, const char *name, const char *type, int each, int n_dims,
                                     const int64_t *shape, lp_error *err);
lp_status lp_safetensors_metadata(lp_safetensors_writer *w, const char *key, const char *value, lp_error *err);
lp_status lp_safetensors_begin(lp_safetensors_writer *w, lp_error *err);
lp_status lp_safetensors_write(lp_safetensors_writer *w, const void *data, size_t bytes, lp_error *err);
lp_status lp_safetensors_end(lp_safetensors_writer *w, lp_error *err);
void lp_safetensors_close(lp_safetensors_writer *w); /* removes an unfinished file; NULL is fine */

#endif
