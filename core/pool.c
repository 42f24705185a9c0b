/* pool.c - see pool.h.
 *
 * One generation counter starts a section, one count of the finished ends it.  Waiting threads spin briefly (a decode
 * step has some two hundred sections, most shorter than a trip through the kernel), then sleep on a condition.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "core/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define relax() _mm_pause()
#else
#define relax() ((void)0)
#endif

enum { SPINS = 20000, MAX_THREADS = 256 }; /* some 100 microseconds; none when threads outnumber CPUs */

/* A counter one can wait on: spin first, then sleep. */
typedef struct gate {
    atomic_uint value;
    atomic_uint sleepers;
    int spins;
    pthread_mutex_t lock;
    pthread_cond_t changed;
} gate;

struct lp_pool {
    int n;       /* threads, the caller included */
    int started; /* workers really running       */
    gate go;     /* the section's number; the last one is `quit` */
    gate done;   /* one tick per section, by whoever finishes last */
    gate sync;   /* one tick per lp_pool_sync                      */
    atomic_int finished, arrived;
    lp_pool_fn fn;
    void *arg;
    bool quit;
    pthread_t threads[MAX_THREADS];
    struct worker {
        lp_pool *pool;
        int id;
    } workers[MAX_THREADS];
};

static void gate_init(gate *g, int spins)
{
    g->spins = spins;
    atomic_init(&g->value, 0);
    atomic_init(&g->sleepers, 0);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
}

static void gate_drop(gate *g)
{
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->changed);
}

static void gate_tick(gate *g)
{
    atomic_fetch_add(&g->value, 1);
    if (!atomic_load(&g->sleepers)) return;
    pthread_mutex_lock(&g->lock);
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

/* Until value is no longer `seen`.  Both counters are sequentially consistent: either the ticker sees the sleeper or
 * the sleeper sees the tick. */
static void gate_wait(gate *g, unsigned seen)
{
    for (int i = 0; i < g->spins; i++) {
        if (atomic_load_explicit(&g->value, memory_order_acquire) != seen) return;
        relax();
    }
    pthread_mutex_lock(&g->lock);
    atomic_fetch_add(&g->sleepers, 1);
    while (atomic_load(&g->value) == seen) pthread_cond_wait(&g->changed, &g->lock);
    atomic_fetch_sub(&g->sleepers, 1);
    pthread_mutex_unlock(&g->lock);
}

static void section(lp_pool *p, int id)
{
    p->fn(id, p->n, p->arg);
    if (atomic_fetch_add(&p->finished, 1) + 1 == p->n) gate_tick(&p->done);
}

static void *work(void *user)
{
    struct worker *w = user;
    lp_pool *p = w->pool;
    for (unsigned seen = 0;; seen++) {
        gate_wait(&p->go, seen);
        if (p->quit) return NULL;
        section(p, w->id);
    }
}

static int cpus_allowed(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}

lp_status lp_pool_new(lp_pool **out, int n_threads, lp_error *err)
{
    if (n_threads < 0 || n_threads > MAX_THREADS)
        return lp_fail(err, LP_E_RANGE, "%d threads: 1 to %d are possible, 0 means one per CPU", n_threads,
                       MAX_THREADS);
    lp_pool *p = lp_calloc(1, sizeof *p);
    if (!p) return lp_fail(err, LP_E_MEMORY, "out of memory for a thread pool");
    p->n = n_threads ? n_threads : cpus_allowed();
    if (p->n > MAX_THREADS) p->n = MAX_THREADS;
    int spins = p->n <= cpus_allowed() ? SPINS : 0;
    gate_init(&p->go, spins);
    gate_init(&p->done, spins);
    gate_init(&p->sync, spins);
    for (int i = 1; i < p->n; i++) {
        p->workers[i] = (struct worker){p, i};
        if (pthread_create(&p->threads[i], NULL, work, &p->workers[i]) != 0) {
            lp_pool_free(p);
            return lp_fail(err, LP_E_MEMORY, "cannot start thread %d of %d", i, n_threads);
        }
        p->started = i;
    }
    *out = p;
    return LP_OK;
}

void lp_pool_free(lp_pool *p)
{
    if (!p) return;
    p->quit = true;
    gate_tick(&p->go);
    for (int i = 1; i <= p->started; i++) pthread_join(p->threads[i], NULL);
    gate_drop(&p->go);
    gate_drop(&p->done);
    gate_drop(&p->sync);
    free(p);
}

int lp_pool_threads(const lp_pool *p)
{
    return p ? p->n : 1;
}

void lp_pool_run(lp_pool *p, lp_pool_fn fn, void *arg)
{
    if (!p || p->n == 1) {
        fn(0, 1, arg);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    atomic_store(&p->finished, 0);
    unsigned seen = atomic_load(&p->done.value);
    gate_tick(&p->go);
    section(p, 0);
    gate_wait(&p->done, seen);
}

void lp_pool_sync(lp_pool *p)
{
    if (!p || p->n == 1) return;
    unsigned seen = atomic_load(&p->sync.value);
    if (atomic_fetch_add(&p->arrived, 1) + 1 == p->n) {
        atomic_store(&p->arrived, 0);
        gate_tick(&p->sync);
    } else {
        gate_wait(&p->sync, seen);
    }
}
