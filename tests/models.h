/* models.h - opening the golden models, shared by the tests that need a model to run on. */
#ifndef LP_TESTS_MODELS_H
#define LP_TESTS_MODELS_H

#include "core/session.h"

#include "tests/check.h"

#include <stdlib.h>

/* Small random Gemma 2 checkpoints that differ where bugs hide; see goldens/golden_models.py. */
static const char *const golden_names[] = {"plain", "gqa4", "mha", "wide", "hot", "nocap", "twin_bf16", "twin_f16"};
enum { N_GOLDEN = sizeof golden_names / sizeof *golden_names };

static inline lp_model *open_golden(const char *name, const lp_env *env)
{
    char path[1024];
    lp_model *m = NULL;
    lp_error err = {0};
    snprintf(path, sizeof path, "%s/goldens/%s", LP_TESTS_DIR, name);
    if (lp_model_open(&m, path, NULL, env, &err) != LP_OK) fprintf(stderr, "%s: %s\n", path, err.text);
    CHECK(m != NULL);
    return m;
}

static inline lp_session *new_session(const lp_model *m, const lp_session_options *o, const lp_env *env)
{
    lp_session *s = NULL;
    lp_error err = {0};
    if (lp_session_new(&s, m, o, env, &err) != LP_OK) fprintf(stderr, "%s\n", err.text);
    CHECK(s != NULL);
    if (!s) exit(1);
    return s;
}

/* Repeatable token ids below `vocab`. */
static inline void some_tokens(int *ids, int n, int vocab, unsigned seed)
{
    uint64_t x = seed * 2654435761u + 88172645463325252u;
    for (int i = 0; i < n; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        ids[i] = (int)(x % (uint64_t)vocab);
    }
}

#endif
