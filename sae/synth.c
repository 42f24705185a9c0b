/* synth.c - see synth.h.
 *
 * Two billion independent normal numbers would take longer than what is to be measured.  A table of a prime number of
 * them is read round and round from a place of the seed's: no two rows of a matrix line up.
 */
#include "sae/synth.h"

#include "core/random.h"
#include "sae/encode.h"
#include "sae/load.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TABLE = 1048573 /* prime */ };

typedef struct source {
    float *table;
    size_t at;
    float scale;
    int d_in, d_sae;
    const char *name;
} source;

/* Irwin-Hall: twelve uniform draws, near enough to normal for an activation. */
static void fill_table(float *x)
{
    for (size_t i = 0; i < TABLE; i++) {
        float sum = -6;
        for (uint64_t k = 0; k < 3; k++) {
            uint32_t u[4];
            lp_random_block(u, 0x5ae, i, k);
            for (int j = 0; j < 4; j++) sum += (float)(u[j] >> 8) * (1.0f / 16777216.0f);
        }
        x[i] = sum;
    }
}

static bool find(void *self, const char *name, int *n_dims, int64_t *shape, bool *is_fortran)
{
    const source *s = self;
    *is_fortran = false;
    *n_dims = name[0] == 'W' ? 2 : 1;
    shape[0] = strcmp(name, "W_enc") == 0 || strcmp(name, "b_dec") == 0 ? s->d_in : s->d_sae;
    shape[1] = strcmp(name, "W_enc") == 0 ? s->d_sae : s->d_in;
    return true;
}

/* Columns of W_enc and rows of W_dec have about length 1; biases and thresholds are 0. */
static lp_status begin(void *self, const char *name, lp_error *err)
{
    source *s = self;
    (void)err;
    s->scale = name[0] == 'W' ? 1 / sqrtf((float)s->d_in) : 0;
    return LP_OK;
}

static lp_status read_some(void *self, float *out, size_t n, lp_error *err)
{
    source *s = self;
    (void)err;
    for (size_t i = 0; i < n; i++) {
        out[i] = s->scale * s->table[s->at];
        if (++s->at == TABLE) s->at = 0;
    }
    return LP_OK;
}

static lp_status end(void *self, lp_error *err)
{
    (void)self, (void)err;
    return LP_OK;
}

lp_status lp_sae_synth(lp_sae **out, const lp_sae_spot *spot, int d_in, int d_sae, uint64_t seed,
                       const lp_sae_options *o, const lp_env *env, lp_error *err)
{
    source from = {.d_in = d_in, .d_sae = d_sae, .at = (size_t)(seed * 7919 % TABLE)};
    lp_arrays a = {.self = &from, .find = find, .begin = begin, .read = read_some, .end = end};
    lp_sae *s = lp_calloc(1, sizeof *s);
    char name[64];
    snprintf(name, sizeof name, "%d-random-%s-%dk", spot->layer, lp_site_name(spot->site), d_sae / 1024);
    a.path = name;
    lp_status st = LP_E_MEMORY;
    if (s && (from.table = lp_calloc(TABLE, sizeof *from.table)) != NULL) {
        fill_table(from.table);
        s->kind = LP_SAE_JUMPRELU;
        s->spot = *spot;
        s->name = lp_strdup(name);
        s->path = lp_strdup(name);
        st = s->name && s->path ? lp_sae_fill(s, &a, o, env, err) : LP_E_MEMORY;
    }
    free(from.table);
    if (st == LP_OK) {
        *out = s;
        return LP_OK;
    }
    lp_sae_close(s);
    return st == LP_E_MEMORY && !(err && err->status) ? lp_fail(err, st, "out of memory for a random SAE") : st;
}

/* ---- firing as often as asked ------------------------------------------------------------------------------------ */

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

lp_status lp_sae_calibrate(lp_sae *s, double l0, const float *x, int n, const lp_env *env, lp_error *err)
{
    size_t S = (size_t)s->d_sae, all = (size_t)n * S, keep = (size_t)(l0 * n);
    lp_encoder *e = NULL;
    float *pre = lp_calloc(all, sizeof *pre);
    lp_status st = pre ? lp_encoder_new(&e, s, LP_EXACT, env, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = lp_encode_dense(pre, e, x, n, err);
    if (st == LP_OK && !(keep > 0 && keep < all)) st = lp_fail(err, LP_E_RANGE, "an L0 of %g of %d", l0, s->d_sae);
    if (st == LP_OK) {
        qsort(pre, all, sizeof *pre, descending);
        for (size_t i = 0; i < S; i++) s->threshold[i] = pre[keep] > 0 ? pre[keep] : 0;
        s->declared_l0 = l0;
    }
    lp_encoder_free(e);
    free(pre);
    return st;
}
