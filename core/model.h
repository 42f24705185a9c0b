/* model.h - a loaded Gemma 2: immutable after opening, shared by any number of sessions and threads.
 *
 * Opening binds every tensor of the checkpoint to a field once, checks every shape, and packs every matrix into panels
 * (core/matmul.h).  Afterwards no name is looked up and no file is open.
 */
#ifndef LP_CORE_MODEL_H
#define LP_CORE_MODEL_H

#include "core/config.h"
#include "core/matmul.h"
#include "core/tokenizer.h"

/* One decoder layer, under the names of the Hugging Face checkpoint.  Gains are 1 + w, ready to multiply. */
typedef struct lp_layer {
    const float *attn_pre_gain;  /* [D] input_layernorm                                  */
    lp_matrix q, k, v;           /* [H*E, D], [G*E, D], [G*E, D]                          */
    lp_matrix o;                 /* [D, H*E]                                              */
    const float *attn_post_gain; /* [D] post_attention_layernorm: on the branch output    */
    const float *mlp_pre_gain;   /* [D] pre_feedforward_layernorm                         */
    lp_matrix gate, up;          /* [F, D], [F, D]                                        */
    lp_matrix down;              /* [D, F]                                                */
    const float *mlp_post_gain;  /* [D] post_feedforward_layernorm                        */
} lp_layer;

typedef struct lp_model {
    lp_config config;
    lp_matrix embed;            /* [V, D], tied: also the unembedding */
    lp_layer *layers;           /* [L]                                */
    const float *final_gain;    /* [D] model.norm                     */
    float *rope_cos, *rope_sin; /* [max_positions][E/2]      */
    lp_tokenizer *tokenizer;    /* NULL when the checkpoint has none  */

    char *path; /* where it came from                                                    */
    bool is_gguf;
    uint64_t weight_bytes; /* memory held by the weights                                            */
    uint64_t n_nonfinite;  /* NaN or infinite weights met while loading (each tensor is also logged) */
    void *arena;           /* owns every weight                                                     */
    size_t arena_bytes;
} lp_model;

typedef struct lp_model_options {
    uint64_t memory_limit; /* bytes the weights may take; 0: what the machine has left (UINT64_MAX: do not check) */
} lp_model_options;

/* `name` as lp_hub_find takes it.  options NULL: defaults.  Says the memory needed (env->log) before taking it and
 * refuses with LP_E_MEMORY when it does not fit; shows progress; can be cancelled. */
lp_status lp_model_open(lp_model **out, const char *name, const lp_model_options *options, const lp_env *env,
                        lp_error *err);
void lp_model_close(lp_model *m); /* NULL is fine; no session may be left */

/* What opening would take and find, without reading any weight: for `info` and choosers. */
typedef struct lp_model_plan {
    lp_config config;
    char *path; /* lp_model_plan_clear frees it */
    bool is_gguf;
    int n_files;
    uint64_t file_bytes;   /* of all tensors as stored                      */
    uint64_t weight_bytes; /* of all tensors as we hold them                */
    uint64_t kv_bytes_per_token;
    uint64_t available;                 /* lp_memory_available() at that moment          */
    uint64_t stored_count[LP_N_DTYPES]; /* elements per stored type          */
    uint64_t held_count[LP_N_PANELS];   /* matrix elements per panel format  */
} lp_model_plan;

lp_status lp_model_plan_read(lp_model_plan *plan, const char *name, const lp_env *env, lp_error *err);
void lp_model_plan_clear(lp_model_plan *plan);

#endif
