/* load_scope.c - Gemma Scope's params.npz as a file of named arrays.
 *
 * Five float32 arrays: W_enc [d_in][d_sae], W_dec [d_sae][d_in], b_enc, b_dec, threshold.  Nothing in the file says
 * where it reads: the folder does (sae/names.h).  Some loaders met lower-case matrices and a scaling_factor of ones; so
 * do we.
 */
#include "sae/load.h"
#include "sae/npz.h"

#include <stdlib.h>
#include <string.h>

static const lp_npz_array *find_array(const lp_npz *z, const char *name)
{
    const lp_npz_array *a = lp_npz_find(z, name);
    if (!a && strcmp(name, "W_enc") == 0) a = lp_npz_find(z, "w_enc");
    if (!a && strcmp(name, "W_dec") == 0) a = lp_npz_find(z, "w_dec");
    return a;
}

static bool find(void *self, const char *name, int *n_dims, int64_t *shape, bool *is_fortran)
{
    const lp_npz_array *a = find_array(self, name);
    if (!a) return false;
    *n_dims = a->n_dims;
    *is_fortran = a->is_fortran;
    memcpy(shape, a->shape, sizeof a->shape);
    return true;
}

static lp_status begin(void *self, const char *name, lp_error *err)
{
    return lp_npz_begin(self, find_array(self, name), err);
}

static lp_status read_some(void *self, float *out, size_t n, lp_error *err)
{
    return lp_npz_read(self, out, n, err);
}

static lp_status end(void *self, lp_error *err)
{
    return lp_npz_end(self, err);
}

/* A factor on the features that is not 1 would need a rule nobody has written down. */
static lp_status check_scaling(lp_npz *z, const char *path, lp_error *err)
{
    const lp_npz_array *a = lp_npz_find(z, "scaling_factor");
    if (!a) return LP_OK;
    LP_TRY(lp_npz_begin(z, a, err));
    for (uint64_t i = 0; i < a->n; i++) {
        float v;
        LP_TRY(lp_npz_read(z, &v, 1, err));
        if (v != 1)
            return lp_fail(err, LP_E_UNSUPPORTED, "%s: a scaling_factor other than 1; fold it into W_dec first", path);
    }
    return lp_npz_end(z, err);
}

lp_status lp_sae_load_scope(lp_sae *s, const char *npz, const lp_sae_options *o, const lp_env *env, lp_error *err)
{
    lp_npz *z = NULL;
    LP_TRY(lp_npz_open(&z, npz, err));
    lp_arrays a = {.self = z, .path = npz, .find = find, .begin = begin, .read = read_some, .end = end};
    lp_status st = check_scaling(z, npz, err);
    s->kind = LP_SAE_JUMPRELU; /* without a threshold it would silently be another SAE, so it must be there */
    if (st == LP_OK) st = lp_sae_fill(s, &a, o, env, err);
    lp_npz_close(z);
    return st;
}
