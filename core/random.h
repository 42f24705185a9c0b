/* random.h - numbers that look random and depend on nothing but their address.
 *
 * A counter-based generator: block number `counter` of the stream `key` is a fixed function of the two, so draws can be
 * made in any order, by any thread, again after a rewind, or speculatively, and are the same on every machine.
 * The function is Philox4x32-10 of Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC 2011):
 * ten rounds of two 32 x 32 -> 64 bit products whose high halves are mixed with the key.  It passes the BigCrush tests
 * of TestU01, and the authors publish test vectors, which tests/test_sample.c holds.
 */
#ifndef LP_CORE_RANDOM_H
#define LP_CORE_RANDOM_H

#include <stdint.h>

/* 128 bits: block (counter_low, counter_high) of stream `key`. */
void lp_random_block(uint32_t out[4], uint64_t key, uint64_t counter_low, uint64_t counter_high);

/* In [0, 1), a multiple of 2^-53: draw number `stream` at place `at`, for instance the position of a token. */
double lp_random_unit(uint64_t key, uint64_t at, uint64_t stream);

#endif
