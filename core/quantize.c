/* quantize.c - see quantize.h.
 *
 * A block type stores small integers q and a few scales.  Two families:
 *
 *     symmetric   x = d q          the value of largest magnitude is given the most negative q, so that its sign
 *                                  is carried by d and the whole range of q is used
 *     with floor  x = d q - m      q = 0 is the least value (or 0, if all are above it: m is never negative)
 *
 * The K types cut 256 values into sub-blocks of 16 or 32, each with its own scale (and floor), which are themselves
 * integers times one f16 for the block.  The q are chosen against the scales as they will be read back, after all
 * rounding, so that a coarse scale costs precision but not correctness.
 *
 * Byte layouts: ggml, src/ggml-common.h; they are the mirror image of core/quant.c, and the tests check that what is
 * written here is read back there to within half a step.
 */
#include "core/quantize.h"

#include <math.h>
#include <string.h>

enum { QK = 256 };

static void put_f16(uint8_t *at, uint16_t h)
{
    at[0] = (uint8_t)h;
    at[1] = (uint8_t)(h >> 8);
}

static int clamp(int v, int lo, int hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

/* The integer nearest to x / d, within [lo, hi]; 0 when d is 0 or the quotient is no number. */
static int nearest(float x, float d, int lo, int hi)
{
    float q = d != 0 ? x / d : 0;
    if (!(fabsf(q) < 1e9f)) return q > 0 ? hi : q < 0 ? lo : 0;
    return clamp((int)lrintf(q), lo, hi);
}

static float largest(const float *x, int n) /* by magnitude, with its sign; the first of equals */
{
    float best = 0, mag = 0;
    for (int i = 0; i < n; i++) {
        if (fabsf(x[i]) <= mag) continue;
        mag = fabsf(x[i]);
        best = x[i];
    }
    return best;
}

static void range(const float *x, int n, float *lo, float *hi)
{
    *lo = *hi = x[0];
    for (int i = 1; i < n; i++) {
        if (x[i] < *lo) *lo = x[i];
        if (x[i] > *hi) *hi = x[i];
    }
}

/* ---- the types of 32, by ggml's rule --------------------------------------------------------------------- */

/* bits 4 or 5.  [d][m when floored][qh when 5 bits][16 bytes of nibbles: j low, j + 16 high] */
static void legacy(const float *x, uint8_t *out, int bits, bool has_floor)
{
    int top = (1 << bits) - 1;
    float d, lo = 0;
    if (has_floor) {
        float hi;
        range(x, 32, &lo, &hi);
        d = (hi - lo) / (float)top;
    } else {
        d = largest(x, 32) / (float)-(1 << (bits - 1));
    }
    float id = d != 0 ? 1.0f / d : 0.0f;
    put_f16(out, lp_f32_to_f16(d));
    if (has_floor) put_f16(out + 2, lp_f32_to_f16(lo));
    uint8_t *qh = out + (has_floor ? 4 : 2), *qs = qh + (bits == 5 ? 4 : 0);
    uint32_t fifth = 0;
    memset(qs, 0, 16);
    for (int j = 0; j < 32; j++) {
        float v = has_floor ? (x[j] - lo) * id + 0.5f : x[j] * id + (float)(1 << (bits - 1)) + 0.5f;
        int q = v > 0 ? clamp((int)v, 0, top) : 0; /* truncates, as ggml does; NaN gives 0 */
        qs[j & 15] |= (uint8_t)((q & 15) << (j < 16 ? 0 : 4));
        fifth |= (uint32_t)(q >> 4) << j;
    }
    if (bits == 5)
        for (int i = 0; i < 4; i++) qh[i] = (uint8_t)(fifth >> (8 * i));
}

/* ---- the types of 256 ------------------------------------------------------------------------------------ */

/* x = d sc q - dmin mn q: sub-blocks of `sub` values, q of `bits` bits, sc and mn at most `top`. */
typedef struct floored_block {
    uint16_t d, dmin; /* f16 */
    uint8_t sc[16], mn[16], q[QK];
} floored_block;

static void floored(floored_block *b, const float *x, int sub, int bits, int top)
{
    int n = QK / sub, qmax = (1 << bits) - 1;
    float step[16], depth[16], most = 0, deepest = 0;
    for (int s = 0; s < n; s++) {
        float lo, hi;
        range(x + s * sub, sub, &lo, &hi);
        if (lo > 0) lo = 0; /* the floor is subtracted and cannot be negative */
        if (hi < lo) hi = lo;
        step[s] = (hi - lo) / (float)qmax;
        depth[s] = -lo;
        if (step[s] > most) most = step[s];
        if (depth[s] > deepest) deepest = depth[s];
    }
    b->d = lp_f32_to_f16(most / (float)top);
    b->dmin = lp_f32_to_f16(deepest / (float)top);
    float d = lp_f16_to_f32(b->d), dmin = lp_f16_to_f32(b->dmin);
    for (int s = 0; s < n; s++) {
        b->sc[s] = (uint8_t)nearest(step[s], d, 0, top);
        b->mn[s] = (uint8_t)nearest(depth[s], dmin, 0, top);
        float ds = d * (float)b->sc[s], m = dmin * (float)b->mn[s];
        for (int i = s * sub; i < (s + 1) * sub; i++) b->q[i] = (uint8_t)nearest(x[i] + m, ds, 0, qmax);
    }
}

/* x = d sc (q - half): sub-blocks of 16, q of `bits` bits, sc from -top to top - 1. */
typedef struct symmetric_block {
    uint16_t d;
    int8_t sc[16];
    uint8_t q[QK];
} symmetric_block;

static void symmetric(symmetric_block *b, const float *x, int bits, int top)
{
    int half = 1 << (bits - 1);
    float step[16];
    for (int s = 0; s < 16; s++) step[s] = largest(x + 16 * s, 16) / (float)-half;
    b->d = lp_f32_to_f16(largest(step, 16) / (float)-top);
    float d = lp_f16_to_f32(b->d);
    for (int s = 0; s < 16; s++) {
        b->sc[s] = (int8_t)nearest(step[s], d, -top, top - 1);
        float ds = d * (float)b->sc[s];
        for (int i = 16 * s; i < 16 * (s + 1); i++) b->q[i] = (uint8_t)(nearest(x[i], ds, -half, half - 1) + half);
    }
}

/* Two low bits of every value: Q2_K and Q3_K.  64 bytes; element e sits in byte 32 (e / 128) + e % 32, shifted. */
static void put_pairs(uint8_t *qs, const uint8_t *q)
{
    memset(qs, 0, 64);
    for (int e = 0; e < QK; e++) qs[32 * (e / 128) + e % 32] |= (uint8_t)((q[e] & 3) << (2 * (e % 128 / 32)));
}

static void q2_k(const float *x, uint8_t *out)
{
    floored_block b;
    floored(&b, x, 16, 2, 15);
    for (int s = 0; s < 16; s++) out[s] = (uint8_t)(b.sc[s] | b.mn[s] << 4);
    put_pairs(out + 16, b.q);
    put_f16(out + 80, b.d);
    put_f16(out + 82, b.dmin);
}

static void q3_k(const float *x, uint8_t *out)
{
    symmetric_block b;
    symmetric(&b, x, 3, 32);
    memset(out, 0, 32);
    for (int e = 0; e < QK; e++) out[e % 32] |= (uint8_t)((b.q[e] >> 2) << (e / 32)); /* the high bit: not minus 4 */
    put_pairs(out + 32, b.q);
    uint8_t *packed = out + 96; /* sixteen 6-bit scales: low nibbles in 8 bytes, high pairs in 4 */
    memset(packed, 0, 12);
    for (int s = 0; s < 16; s++) {
        int v = b.sc[s] + 32;
        packed[s % 8] |= (uint8_t)((v & 15) << (s < 8 ? 0 : 4));
        packed[8 + s % 4] |= (uint8_t)((v >> 4) << (2 * (s / 4)));
    }
    put_f16(out + 108, b.d);
}

/* Q4_K, Q5_K: eight 6-bit scales and eight 6-bit floors in 12 bytes. */
static void put_scales(uint8_t *out, const uint8_t *sc, const uint8_t *mn)
{
    for (int s = 0; s < 4; s++) {
        out[s] = (uint8_t)(sc[s] | (sc[s + 4] >> 4) << 6);
        out[s + 4] = (uint8_t)(mn[s] | (mn[s + 4] >> 4) << 6);
        out[s + 8] = (uint8_t)((sc[s + 4] & 15) | (mn[s + 4] & 15) << 4);
    }
}

static void q45_k(const float *x, uint8_t *out, int bits)
{
    floored_block b;
    floored(&b, x, 32, bits, 63);
    put_f16(out, b.d);
    put_f16(out + 2, b.dmin);
    put_scales(out + 4, b.sc, b.mn);
    uint8_t *qh = out + 16, *qs = out + (bits == 5 ? 48 : 16);
    memset(out + 16, 0, bits == 5 ? 160 : 128);
    for (int e = 0; e < QK; e++) {
        qs[32 * (e / 64) + e % 32] |= (uint8_t)((b.q[e] & 15) << (e % 64 < 32 ? 0 : 4));
        if (bits == 5) qh[e % 32] |= (uint8_t)((b.q[e] >> 4) << (e / 32));
    }
}

static void q6_k(const float *x, uint8_t *out)
{
    symmetric_block b;
    symmetric(&b, x, 6, 128);
    memset(out, 0, 192);
    for (int e = 0; e < QK; e++) {
        int half = e / 128, r = e % 128; /* r / 32 picks the quarter: 0, 1 low nibbles, 2, 3 high ones */
        out[64 * half + r % 64] |= (uint8_t)((b.q[e] & 15) << (r < 64 ? 0 : 4));
        out[128 + 32 * half + r % 32] |= (uint8_t)((b.q[e] >> 4) << (2 * (r / 32)));
    }
    memcpy(out + 192, b.sc, 16);
    put_f16(out + 208, b.d);
}

static void block(lp_dtype t, const float *x, uint8_t *out)
{
    switch (t) {
    case LP_Q4_0:
        legacy(x, out, 4, false);
        break;
    case LP_Q4_1:
        legacy(x, out, 4, true);
        break;
    case LP_Q5_0:
        legacy(x, out, 5, false);
        break;
    case LP_Q5_1:
        legacy(x, out, 5, true);
        break;
    case LP_Q2_K:
        q2_k(x, out);
        break;
    case LP_Q3_K:
        q3_k(x, out);
        break;
    case LP_Q4_K:
        q45_k(x, out, 4);
        break;
    case LP_Q5_K:
        q45_k(x, out, 5);
        break;
    case LP_Q6_K:
        q6_k(x, out);
        break;
    default:
        break;
    }
}

bool lp_quantize(lp_dtype t, const float *src, void *dst, size_t n)
{
    int of = lp_dtype_block(t), bytes = lp_dtype_block_bytes(t);
    if (of == 0 || n % (size_t)of) return false;
    if (of == 1 || t == LP_Q8_0) return lp_from_f32(t, src, dst, n);
    for (size_t i = 0; i < n / (size_t)of; i++) block(t, src + i * (size_t)of, (uint8_t *)dst + i * (size_t)bytes);
    return true;
}
