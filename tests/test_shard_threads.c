/* One open shard read by several threads, while another is being written: everybody gets what is there. */
#include "tests/store_made.h"

#include <pthread.h>

enum { READERS = 3, ROUNDS = 60 };

static const made *m;
static const lp_shard *shard;
static char folder[64];

static void *reader(void *user)
{
    size_t *wrong = user;
    lp_features f = {0};
    lp_shard_postings p = {0};
    for (int i = 0; i < ROUNDS; i++) {
        int row = i * 7 % 390;
        const lp_features *want = &m->saes[i % 2].features;
        size_t from = want->start[row], n = want->start[row + 4] - from;
        *wrong += lp_shard_read_rows(&f, shard, i % 2, row, 4, NULL) != LP_OK || f.start[4] != n ||
                  (n && memcmp(f.value, want->value + from, n * sizeof *f.value) != 0);
        *wrong += lp_shard_read_feature(&p, shard, i % 2, i % 40, NULL) != LP_OK;
        for (size_t k = 0; k < p.n; k++) *wrong += lp_features_get(want, p.row[k], i % 40) != p.value[k];
    }
    lp_features_free(&f), lp_shard_postings_free(&p);
    return NULL;
}

int main(void)
{
    made *a = made_new(&(made_spec){.n_tokens = 400, .n_documents = 5, .vocab = 9, .n_saes = 2, .d_sae = {50, 80}});
    made *b = made_new(&(made_spec){
        .n_tokens = 400, .n_documents = 5, .vocab = 9, .n_saes = 2, .d_sae = {50, 80}, .number = 1, .seed = 4});
    lp_shard_sealed sealed = {.name = ""};
    char path[128];
    pthread_t thread[READERS];
    size_t wrong[READERS] = {0};
    lp_shard *s = NULL;
    made_folder(folder);
    made_write(a, folder, 32, &sealed);
    snprintf(path, sizeof path, "%s/%s", folder, sealed.name);
    CHECK(lp_shard_open(&s, path, LP_SHARD_HASHED, NULL, NULL) == LP_OK);
    m = a, shard = s;
    for (int i = 0; i < READERS; i++) CHECK(pthread_create(&thread[i], NULL, reader, &wrong[i]) == 0);
    made_write(b, folder, 16, &sealed);
    for (int i = 0; i < READERS; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < READERS; i++) CHECK(wrong[i] == 0);
    snprintf(path, sizeof path, "%s/%s", folder, sealed.name);
    CHECK(lp_shard_verify(path, NULL, NULL, NULL) == LP_OK);
    lp_shard_close(s);
    made_free(a), made_free(b);
    made_remove(folder);
    return check_done();
}
