/* bench.c - see bench.h. */
#include "core/bench.h"

#include <time.h>

enum { PEAK_ROUNDS = 400000 }; /* 24 instructions each: some 1 to 2 ms at 4 GHz */

double lp_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct measure {
    double (*peak)(long rounds);
    uint64_t (*read)(const void *p, size_t bytes);
    const uint8_t *p;
    size_t bytes;
    double flops;               /* of one thread; all do the same */
    atomic_uint_least64_t seen; /* keeps the reads alive */
} measure;

static void run_peak(int id, int n, void *arg)
{
    measure *m = arg;
    double flops = m->peak(PEAK_ROUNDS);
    if (id == 0) m->flops = flops * n;
}

static void run_read(int id, int n, void *arg)
{
    measure *m = arg;
    size_t share = m->bytes / (size_t)n / 4096 * 4096;
    atomic_fetch_or(&m->seen, m->read(m->p + (size_t)id * share, id == n - 1 ? m->bytes - (size_t)id * share : share));
}

static double peak(lp_pool *pool, double (*loop)(long))
{
    measure m = {.peak = loop};
    double start = lp_clock();
    lp_pool_run(pool, run_peak, &m);
    return m.flops / (lp_clock() - start);
}

double lp_peak_fma(lp_pool *pool, const lp_kernels *k)
{
    return peak(pool, k->peak_exact);
}

double lp_peak_dp(lp_pool *pool, const lp_kernels *k)
{
    return peak(pool, k->peak_fast);
}

double lp_raw_read(lp_pool *pool, const lp_kernels *k, const void *p, size_t bytes)
{
    measure m = {.read = k->read, .p = p, .bytes = bytes};
    double start = lp_clock();
    lp_pool_run(pool, run_read, &m);
    return (double)bytes / (lp_clock() - start);
}
