/* golden.h - what the golden tests share: opening a folder of tests/goldens, taking tensors out of it, comparing rows.
 *
 * The files are described at the top of tests/goldens/make_goldens.py.  Everything in them is F32, ids too.
 */
#ifndef LP_TESTS_GOLDEN_H
#define LP_TESTS_GOLDEN_H

#include "core/model.h"
#include "core/safetensors.h"
#include "core/session.h"
#include "tests/check.h"

#include <stdlib.h>

/* Most tokens of a golden timeline. */
enum { GOLDEN_TOKENS = 512 };

/* `what` in tests/goldens; false (and a failed check) when it cannot be opened. */
static inline bool golden_model(lp_model **m, const char *what, const lp_env *env)
{
    char path[1024];
    lp_error err = {0};
    snprintf(path, sizeof path, "%s/goldens/%s", LP_TESTS_DIR, what);
    if (lp_model_open(m, path, NULL, env, &err) < 0) fprintf(stderr, "%s: %s\n", what, err.text);
    CHECK(err.status >= 0);
    return err.status >= 0;
}

static inline bool golden_expect(lp_tensors *t, const char *folder)
{
    char path[1024];
    lp_error err = {0};
    snprintf(path, sizeof path, "%s/goldens/%s/expect.safetensors", LP_TESTS_DIR, folder);
    if (lp_safetensors_open(t, path, NULL, &err) < 0) fprintf(stderr, "%s: %s\n", folder, err.text);
    CHECK(err.status >= 0);
    return err.status >= 0;
}

/* The tensor's floats, yours to free, and their number; NULL when there is no such tensor. */
static inline float *golden_take(const lp_tensors *t, const char *name, size_t *n)
{
    const lp_tensor *x = lp_tensors_find(t, name);
    if (!x) return NULL;
    float *v = malloc(x->bytes ? (size_t)x->bytes : 1);
    CHECK(x->type == LP_F32);
    CHECK(v && lp_tensors_read(t, x, 0, v, (size_t)x->bytes, NULL) == LP_OK);
    *n = (size_t)x->bytes / sizeof *v;
    return v;
}

/* Token ids; their number, 0 when there is no such tensor. */
static inline int golden_ids(int ids[GOLDEN_TOKENS], const lp_tensors *t, const char *name)
{
    size_t n = 0;
    float *v = golden_take(t, name, &n);
    for (size_t i = 0; i < n && i < GOLDEN_TOKENS; i++) ids[i] = (int)v[i];
    free(v);
    return (int)n;
}

/* ||a - b|| / ||b||; NaN when anything is. */
static inline double golden_error(const float *a, const float *b, size_t n)
{
    double d = 0, s = 0;
    for (size_t i = 0; i < n; i++) {
        double e = (double)a[i] - (double)b[i];
        d += e * e;
        s += (double)b[i] * (double)b[i];
    }
    return s > 0 ? sqrt(d / s) : sqrt(d);
}

/* The worst row of a [rows][width] against b; *row says which.  NaN counts as infinitely bad. */
static inline double golden_worst_row(const float *a, const float *b, size_t rows, size_t width, size_t *row)
{
    double worst = 0;
    *row = 0;
    for (size_t r = 0; r < rows; r++) {
        double e = golden_error(a + r * width, b + r * width, width);
        if (e <= worst) continue;
        worst = isnan(e) ? (double)INFINITY : e;
        *row = r;
    }
    return worst;
}

/* The highest logit, lowest id first: the tie rule of greedy decoding. */
static inline int golden_greedy(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return (int)best;
}

#endif
