/* random.c - see random.h. */
#include "core/random.h"

enum { ROUNDS = 10 };

/* The paper's constants: two multipliers found by search, two Weyl steps (golden ratio, sqrt(3) - 1). */
#define MUL_0  0xd2511f53u
#define MUL_1  0xcd9e8d57u
#define STEP_0 0x9e3779b9u
#define STEP_1 0xbb67ae85u

void lp_random_block(uint32_t out[4], uint64_t key, uint64_t counter_low, uint64_t counter_high)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t a = (uint32_t)counter_low, b = (uint32_t)(counter_low >> 32);
    uint32_t c = (uint32_t)counter_high, d = (uint32_t)(counter_high >> 32);
    for (int r = 0; r < ROUNDS; r++, k0 += STEP_0, k1 += STEP_1) {
        uint64_t p = (uint64_t)MUL_0 * a, q = (uint64_t)MUL_1 * c;
        a = (uint32_t)(q >> 32) ^ b ^ k0;
        b = (uint32_t)q;
        c = (uint32_t)(p >> 32) ^ d ^ k1;
        d = (uint32_t)p;
    }
    out[0] = a;
    out[1] = b;
    out[2] = c;
    out[3] = d;
}

double lp_random_unit(uint64_t key, uint64_t at, uint64_t stream)
{
    uint32_t x[4];
    lp_random_block(x, key, at, stream);
    uint64_t bits = (uint64_t)x[0] << 32 | x[1];
    return (double)(bits >> 11) * 0x1p-53;
}
