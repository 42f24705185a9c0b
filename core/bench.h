/* bench.h - what this machine can do at this moment, to hold measurements against.
 *
 * On a shared host an absolute figure says little: run one of these next to each measurement, in rounds, and report the
 * ratio.  Each takes a few milliseconds and uses every thread of the pool.
 */
#ifndef LP_CORE_BENCH_H
#define LP_CORE_BENCH_H

#include "core/kernels.h"
#include "core/pool.h"

double lp_clock(void); /* seconds, monotonic */

/* Most floating-point operations per second in exact (f32 FMA) and fast (VDPBF16PS, or its emulation) arithmetic. */
double lp_peak_fma(lp_pool *pool, const lp_kernels *k);
double lp_peak_dp(lp_pool *pool, const lp_kernels *k);

/* Bytes per second when the threads do nothing but read the buffer, each its share. */
double lp_raw_read(lp_pool *pool, const lp_kernels *k, const void *p, size_t bytes);

#endif
