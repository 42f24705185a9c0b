/* Memory runs out at every place where a shard is written, sealed, opened, read and verified: LP_E_MEMORY and one line,
 * and nothing half-written. */
#include "tests/oom.h"
#include "tests/store_made.h"

static char folder[64], path[128];
static made *m;

static lp_status writing(const void *user, lp_error *err)
{
    (void)user;
    lp_shard_sealed sealed = {.name = ""};
    lp_status st = made_try(m, folder, 16, &sealed, err);
    long left = atomic_load(&oom_left); /* looking around is no part of the attempt */
    atomic_store(&oom_left, -1);
    /* A line without its file is harmless: it is written first, and written again. */
    CHECK(!lp_is_file(path) == (st != LP_OK) && made_n_files(folder) <= (st == LP_OK ? 2 : 1));
    made_clear(folder);
    atomic_store(&oom_left, left);
    return st;
}

static lp_status reading(const void *user, lp_error *err)
{
    (void)user;
    lp_shard *s = NULL;
    lp_features f = {0};
    lp_shard_postings p = {0};
    lp_shard_document d = {0};
    float x[MADE_WIDTH];
    lp_status st = lp_shard_open(&s, path, LP_SHARD_HASHED, NULL, err);
    if (st == LP_OK) st = lp_shard_read_rows(&f, s, 0, 3, 9, err);
    if (st == LP_OK) st = lp_shard_read_feature(&p, s, 1, 4, err);
    if (st == LP_OK) st = lp_shard_read_token(&p, s, 2, err);
    if (st == LP_OK) st = lp_shard_read_document(&d, s, 1, err);
    if (st == LP_OK) st = lp_shard_read_dense(s, 1, 5, 1, x, err);
    lp_shard_document_free(&d);
    lp_shard_postings_free(&p), lp_features_free(&f);
    lp_shard_close(s);
    return st;
}

int main(void)
{
    const made_spec spec = {.n_tokens = 60,
                            .n_documents = 5,
                            .vocab = 20,
                            .n_saes = 2,
                            .d_sae = {40, 30},
                            .has_logprob = true,
                            .has_dense = true,
                            .value_bits = 10};
    m = made_new(&spec);
    made_folder(folder);
    snprintf(path, sizeof path, "%s/shard-000000.h5", folder);
    printf("writing: %ld allocations\n", oom_sweep("writing", writing, NULL));
    lp_shard_sealed sealed;
    made_write(m, folder, 16, &sealed);
    printf("reading: %ld allocations\n", oom_sweep("reading", reading, NULL));
    /* The child's own allocations fail too: it counts on from where its parent was. */
    lp_error err = {0};
    for (long n = 0; n < 60; n++) {
        atomic_store(&oom_left, n);
        lp_status st = lp_shard_verify(path, NULL, NULL, &err);
        atomic_store(&oom_left, -1);
        if (st != LP_OK && st != LP_E_MEMORY) fprintf(stderr, "verifying, %ld: %s\n", n, err.text);
        CHECK(st == LP_OK || st == LP_E_MEMORY);
    }
    made_remove(folder);
    made_free(m);
    return check_done();
}
