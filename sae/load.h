/* load.h - from named arrays, wherever they lie, to an lp_sae; private to the loaders of this folder. */
#ifndef LP_SAE_LOAD_H
#define LP_SAE_LOAD_H

#include "sae/sae.h"

/* A file of named arrays, each read once from front to back as f32. */
typedef struct lp_arrays {
    void *self;
    const char *path;
    /* Rank and shape of an array; false: no such array. */
    bool (*find)(void *self, const char *name, int *n_dims, int64_t *shape, bool *is_fortran);
    lp_status (*begin)(void *self, const char *name, lp_error *err);
    lp_status (*read)(void *self, float *out, size_t n, lp_error *err);
    lp_status (*end)(void *self, lp_error *err);
} lp_arrays;

/* Shapes, memory and weights of an SAE whose kind, norm, k, rescales, subtracts_bias and spot are set. */
lp_status lp_sae_fill(lp_sae *s, const lp_arrays *a, const lp_sae_options *o, const lp_env *env, lp_error *err);

lp_status lp_sae_load_scope(lp_sae *s, const char *npz, const lp_sae_options *o, const lp_env *env, lp_error *err);
lp_status lp_sae_load_lens(lp_sae *s, const char *folder, const lp_sae_options *o, const lp_env *env, lp_error *err);
/* path: FILE.gguf/direction.N (sae/direction.h) */
lp_status lp_sae_load_direction(lp_sae *s, const char *path, const lp_sae_options *o, const lp_env *env, lp_error *err);

#endif
