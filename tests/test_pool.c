/* Every thread runs every section once; sync really is a barrier; a pool can sleep and wake. */
#include "core/pool.h"

#include "tests/check.h"

#include <stdlib.h>
#include <time.h>

typedef struct tally {
    lp_pool *pool;
    atomic_int ran[16], next, first_half, torn;
} tally;

static void count(int id, int n, void *arg)
{
    tally *t = arg;
    atomic_fetch_add(&t->ran[id], 1);
    atomic_fetch_add(&t->first_half, 1);
    lp_pool_sync(t->pool);
    if (atomic_load(&t->first_half) % n != 0) atomic_fetch_add(&t->torn, 1);
    lp_pool_sync(t->pool);
    while (lp_claim(&t->next) < 100) {
    }
}

static void run(int n_threads)
{
    lp_pool *p = NULL;
    lp_error err;
    CHECK(lp_pool_new(&p, n_threads, &err) == LP_OK);
    CHECK(lp_pool_threads(p) == n_threads);
    tally t = {.pool = p};
    for (int i = 0; i < 2000; i++) {
        atomic_store(&t.next, 0);
        lp_pool_run(p, count, &t);
        CHECK(atomic_load(&t.next) >= 100);
    }
    for (int i = 0; i < n_threads; i++) CHECK(atomic_load(&t.ran[i]) == 2000);
    CHECK(atomic_load(&t.torn) == 0);
    struct timespec nap = {0, 20 * 1000 * 1000}; /* the workers fall asleep and must wake again */
    nanosleep(&nap, NULL);
    lp_pool_run(p, count, &t);
    CHECK(atomic_load(&t.ran[0]) == 2001);
    lp_pool_free(p);
}

int main(void)
{
    run(1);
    run(2);
    run(7);
    lp_pool *p = NULL;
    lp_error err;
    CHECK(lp_pool_new(&p, 0, NULL) == LP_OK && lp_pool_threads(p) >= 1);
    lp_pool_free(p);
    CHECK(lp_pool_new(&p, -1, &err) == LP_E_RANGE);
    CHECK(lp_pool_new(&p, 100000, &err) == LP_E_RANGE);
    lp_pool_free(NULL);
    CHECK(lp_pool_threads(NULL) == 1);
    return check_done();
}
