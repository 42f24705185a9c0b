/* synth.h - checkpoints of any Gemma 2 shape with seeded random weights.
 *
 * For measuring speed and memory, and for testing readers, without the real weights: the files are what Hugging Face
 * and llama.cpp write, only the numbers are noise.  An element is a function of (seed, tensor name, index) alone, so
 * the same seed and shape give the same model whatever the container, the type (up to its rounding), the number of
 * threads or the machine.
 */
#ifndef LP_CORE_SYNTH_H
#define LP_CORE_SYNTH_H

#include "core/config.h"

typedef struct lp_synth_options {
    lp_config config; /* lp_config_shape, then perhaps lp_synth_set                                   */
    uint64_t seed;
    lp_dtype type;         /* of the matrices; safetensors takes F32, F16, BF16                            */
    int gguf;              /* 1: a .gguf file; 0: a folder with config.json and safetensors                */
    int pure;              /* 1: the token table in `type` too; 0: in Q6_K under types that are coarser, as
                              llama.cpp mixes them (Q8_0 where its rows do not fit Q6_K)                   */
    int replace;           /* 1: a file or checkpoint already at the place is replaced                     */
    uint64_t shard_bytes;  /* largest safetensors file; 0: 5 GB                                            */
    const char *tokenizer; /* a tokenizer.model, as many pieces as config.vocab; NULL: a made-up vocabulary */
} lp_synth_options;

/* "n_layers=4,d_model=128": integer and real fields of lp_config by name, in order, onto *c. */
lp_status lp_synth_set(lp_config *c, const char *assignments, lp_error *err);

/* Can it be written?  Shape, types and blocks are checked; *bytes (may be NULL): of all tensors as stored. */
lp_status lp_synth_check(const lp_synth_options *o, uint64_t *bytes, lp_error *err);

/* Writes it, on all threads of env->pool, with progress; looks at the free disk space first.  Nothing appears at `path`
 * before all is written, and nothing stays anywhere when it fails or is cancelled. */
lp_status lp_synth_write(const char *path, const lp_synth_options *o, const lp_env *env, lp_error *err);

/* Elements first .. first + n of a tensor, under its Hugging Face name, before any rounding to a type. */
lp_status lp_synth_values(float *out, const lp_config *c, uint64_t seed, const char *name, uint64_t first, size_t n,
                          lp_error *err);

#endif
