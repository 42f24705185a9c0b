/* store_filled.h - a small store for tests: a few made shards (store_made.h) in the folder of one run. */
#ifndef LP_TESTS_STORE_FILLED_H
#define LP_TESTS_STORE_FILLED_H

#include "tests/store_made.h"

#include "store/catalogue.h"

#include <sys/stat.h>

#define FILLED_RUN "0123456789abcdef0123456789abcdef" /* what made_new calls its run */
enum { FILLED_MOST = 32 };

typedef struct filled {
    char store[64];
    int n;
    int64_t base[FILLED_MOST + 1];
    made *m[FILLED_MOST];
} filled;

static inline void filled_path(char out[256], const filled *f, const char *name)
{
    snprintf(out, 256, "%s/%s", f->store, name);
}

/* n shards of different sizes, two SAEs with the same heads in each.  Documents have the same numbers in every shard; or
 * with `is_cut` go on from one to the next, every other shard beginning within the document the last one ended in. */
static inline void filled_make(filled *f, int n, int tokens, bool is_cut)
{
    int64_t document = 0;
    char folder[256];
    *f = (filled){.n = n};
    made_folder(f->store);
    filled_path(folder, f, "runs");
    CHECK(mkdir(folder, 0700) == 0);
    filled_path(folder, f, "runs/" FILLED_RUN);
    CHECK(mkdir(folder, 0700) == 0);
    for (int i = 0; i < n; i++) {
        made_spec spec = {.n_tokens = tokens + 37 * i,
                          .n_documents = 7 + i,
                          .vocab = 50,
                          .n_saes = 2,
                          .d_sae = {64, 200},
                          .number = i,
                          .token_base = f->base[i],
                          .seed = 1000 + (uint64_t)i};
        f->m[i] = made_new(&spec);
        for (int d = 0; d < spec.n_documents && is_cut; d++) f->m[i]->documents[d].id = document + d;
        document += f->m[i]->doc[spec.n_tokens - 1] + (i % 2); /* the last one that has tokens, or the one after */
        if (i % 2) document += spec.n_documents;
        made_write(f->m[i], folder, 32, NULL);
        f->base[i + 1] = f->base[i] + spec.n_tokens;
    }
}

static inline void filled_free(filled *f)
{
    static const char *const folders[] = {"runs/" FILLED_RUN "/quarantine", "runs/" FILLED_RUN, "runs", ""};
    char path[256];
    for (int i = 0; i < f->n; i++) made_free(f->m[i]);
    for (int i = 0; i < 4; i++) {
        filled_path(path, f, folders[i]);
        made_remove(path);
    }
}

/* Everything takes part in answers that counts. */
static inline float filled_value(const filled *f, int shard, int sae, int row, int feature)
{
    return lp_features_get(&f->m[shard]->saes[sae].features, row, feature);
}

#endif
