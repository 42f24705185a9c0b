/* kernels_rows.h - the row functions, written once as plain loops and compiled into every table.
 *
 * Each kernels_*.c includes this file; its compiler flags decide how wide the loops become.  Every operation here is
 * correctly rounded by IEEE 754 (+ - * / fmaf, comparisons, integer work on the bits), nothing is reassociated, so the
 * width changes no bit.  There are no branches in the loops and no calls: that is what lets them become vectors.
 *
 * exp: x = n ln 2 + r with |r| <= ln 2 / 2 (Cody and Waite's two-part ln 2, the high part having few enough bits for
 * n * hi to be exact), then a polynomial for (exp(r) - 1 - r) / r^2 through Chebyshev's points, relative error of the
 * whole 8e-10, then 2^n in two factors so that results below 2^-126 are rounded once.
 * tanh(x) = e / (e + 2) with e = exp(2x) - 1 = 2^n (exp(r) - 1) + (2^n - 1): no cancellation, one division, no branch
 * for small x, odd by construction; without the correction at its end it would be off by up to 2.4 ulp.
 */
#ifndef LP_CORE_KERNELS_ROWS_H
#define LP_CORE_KERNELS_ROWS_H

#include "core/kernels.h"

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

/* For a loop whose passes are independent even when its arrays are the same one. */
#if defined(__clang__)
#define EACH_ALONE _Pragma("clang loop vectorize(assume_safety)")
#else
#define EACH_ALONE _Pragma("GCC ivdep")
#endif

static inline uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* x = n ln 2 + r; exp(r) - 1 = r + c.  |x| < 2^21 or NaN.  Adding 1.5 * 2^23 leaves the nearest integer in the low
 * bits. */
typedef struct reduced {
    float r, c;
    int32_t n;
} reduced;

static inline reduced reduce(float x)
{
    const float shift = 0x1.8p23f;
    float t = fmaf(x, 0x1.715476p+0f, shift), nf = t - shift;
    float r = fmaf(nf, -0x1.7f7d1cp-20f, fmaf(nf, -0x1.62e4p-1f, x));
    float p = 0x1.a1252ap-13f;
    p = fmaf(p, r, 0x1.6d4364p-10f);
    p = fmaf(p, r, 0x1.1110e0p-7f);
    p = fmaf(p, r, 0x1.5554e8p-5f);
    p = fmaf(p, r, 0x1.555556p-3f);
    p = fmaf(p, r, 0.5f);
    return (reduced){r, r * r * p, (int32_t)(bits_of(t) - bits_of(shift))};
}

static inline float power_of_two(int32_t n)
{
    return float_of((uint32_t)(n + 127) << 23);
}

/* Beyond the clamps the result is 0 or infinite anyway; a NaN passes both comparisons and comes out as NaN. */
static inline float exp_of(float x)
{
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    reduced v = reduce(x);
    return (1.0f + (v.r + v.c)) * power_of_two(v.n >> 1) * power_of_two(v.n - (v.n >> 1));
}

/* The quotient is taken once without and then corrected by what the roundings of q, e and e + 2 left behind. */
static inline float tanh_of(float x)
{
    uint32_t sign = bits_of(x) & 0x80000000u;
    float a = 2.0f * float_of(bits_of(x) ^ sign);
    a = a > 20.0f ? 20.0f : a; /* tanh rounds to 1 from 9.02 on */
    reduced v = reduce(a);
    float q = v.r + v.c, q_rest = v.c - (q - v.r);
    float s = power_of_two(v.n), m = s - 1.0f;
    float e = fmaf(s, q, m), e_rest = fmaf(s, q_rest, fmaf(s, q, m - e));
    float d = e + 2.0f, two = d - e, d_rest = (e - (d - two)) + (2.0f - two) + e_rest;
    float inverse = 1.0f / d, t = e * inverse;
    float rest = fmaf(-t, d, e) + fmaf(-t, d_rest, e_rest);
    return float_of(bits_of(fmaf(rest, inverse, t)) | sign);
}

/* 16 partial results to one, as a 512-bit register would: 8+8, 4+4, 2+2, 1+1. */
static inline float fold(float *s)
{
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) s[i] += s[i + half];
    return s[0];
}

static inline float row_sum_squares(const float *x, int n)
{
    float s[16] = {0};
    int i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) s[j] = fmaf(x[i + j], x[i + j], s[j]);
    for (int j = 0; i + j < n; j++) s[j] = fmaf(x[i + j], x[i + j], s[j]);
    return fold(s);
}

static inline void row_scale(float *y, const float *x, float f, int n)
{
    EACH_ALONE
    for (int i = 0; i < n; i++) y[i] = x[i] * f;
}

static inline void row_mul(float *y, const float *x, const float *g, int n)
{
    EACH_ALONE
    for (int i = 0; i < n; i++) y[i] = x[i] * g[i];
}

static inline void row_add(float *y, const float *x, int n)
{
    EACH_ALONE
    for (int i = 0; i < n; i++) y[i] += x[i];
}

/* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): transformers' gelu_pytorch_tanh. */
static inline void row_gelu_mul(float *y, const float *gate, const float *up, int n)
{
    EACH_ALONE
    for (int i = 0; i < n; i++) {
        float x = gate[i], cube = x * x * x;
        float t = tanh_of(0.7978845608028654f * fmaf(0.044715f, cube, x));
        y[i] = 0.5f * x * (1.0f + t) * up[i];
    }
}

static inline void row_softcap(float *x, int n, float cap)
{
    EACH_ALONE
    for (int i = 0; i < n; i++) x[i] = cap * tanh_of(x[i] / cap);
}

static inline float row_max(const float *x, int n)
{
    float m[16];
    uint32_t nan[16] = {0};
    int i = 0;
    for (int j = 0; j < 16; j++) m[j] = -INFINITY;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) {
            m[j] = x[i + j] > m[j] ? x[i + j] : m[j];
            nan[j] |= (bits_of(x[i + j]) & 0x7fffffffu) > 0x7f800000u;
        }
    for (int j = 0; i + j < n; j++) {
        m[j] = x[i + j] > m[j] ? x[i + j] : m[j];
        nan[j] |= (bits_of(x[i + j]) & 0x7fffffffu) > 0x7f800000u;
    }
    for (int half = 8; half; half /= 2)
        for (int j = 0; j < half; j++) {
            m[j] = m[j + half] > m[j] ? m[j + half] : m[j];
            nan[j] |= nan[j + half];
        }
    return nan[0] ? NAN : m[0];
}

static inline float row_exp_sum(float *x, int n, float max)
{
    float s[16] = {0};
    int i = 0;
    EACH_ALONE
    for (int j = 0; j < n; j++) x[j] = exp_of(x[j] - max);
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) s[j] += x[i + j];
    for (int j = 0; i + j < n; j++) s[j] += x[i + j];
    return fold(s);
}

/* Two products and a sum, each rounded, as torch does it in f32. */
static inline void row_rope(float *x, const float *cos, const float *sin, int half)
{
    EACH_ALONE
    for (int i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cos[i] - b * sin[i];
        x[i + half] = b * cos[i] + a * sin[i];
    }
}

/* To bf16 as VCVTNEPS2BF16 does: to nearest even, inputs below 2^-126 are zeros, NaN made quiet. */
static inline uint32_t bf16_of(float f)
{
    uint32_t u = bits_of(f), mag = u & 0x7fffffffu, up = u + 0x7fff + (u >> 16 & 1);
    up = mag < 0x00800000u ? u & 0x80000000u : up;
    up = mag > 0x7f800000u ? u | 0x00400000u : up;
    return up >> 16;
}

/* out[i ^ flip][r] = from[r][i] for 32-bit words of any meaning; from has ld words to a row. */
static inline void transpose(const void *from, size_t ld, int rows, int n, int flip, void *out)
{
    const float *x = from;
    float *y = out;
    int r = 0;
#if defined(__AVX2__) /* the baseline of x86-64 would do, but the C table is to be plain */
    for (; r + 4 <= rows; r += 4) {
        int i = 0;
        for (; i + 4 <= n; i += 4) {
            const float *at = x + r * ld + i;
            __m128 a = _mm_loadu_ps(at), b = _mm_loadu_ps(at + ld);
            __m128 c = _mm_loadu_ps(at + 2 * ld), d = _mm_loadu_ps(at + 3 * ld);
            _MM_TRANSPOSE4_PS(a, b, c, d);
            _mm_storeu_ps(y + (size_t)(i ^ flip) * rows + r, a);
            _mm_storeu_ps(y + (size_t)((i + 1) ^ flip) * rows + r, b);
            _mm_storeu_ps(y + (size_t)((i + 2) ^ flip) * rows + r, c);
            _mm_storeu_ps(y + (size_t)((i + 3) ^ flip) * rows + r, d);
        }
        for (; i < n; i++)
            for (int j = r; j < r + 4; j++) memcpy(y + (size_t)(i ^ flip) * rows + j, x + j * ld + i, sizeof *y);
    }
#endif
    for (; r < rows; r++)
        for (int i = 0; i < n; i++) memcpy(y + (size_t)(i ^ flip) * rows + r, x + r * ld + i, sizeof *y);
}

/* [K/2][odd, even][rows] */
static inline void row_pack_exact(const float *x, size_t ldx, int rows, int K, float *out)
{
    int pairs = K / 2 * 2;
    transpose(x, ldx, rows, pairs, 1, out);
    for (int r = 0; r < rows && K > pairs; r++) {
        out[(size_t)pairs * rows + r] = 0;
        out[(size_t)(pairs + 1) * rows + r] = x[r * ldx + pairs];
    }
}

/* [K/2][rows][even, odd]: a stretch of columns of all rows is rounded, then transposed as 32-bit pairs. */
static inline void row_pack_fast(const float *x, size_t ldx, int rows, int K, uint16_t *out)
{
    enum { STRETCH = 256 };
    uint16_t rounded[LP_TILE][STRETCH];
    for (int k = 0; k < K; k += STRETCH) {
        int n = K - k < STRETCH ? K - k : STRETCH;
        for (int r = 0; r < rows; r++) {
            for (int i = 0; i < n; i += 16) __builtin_prefetch(x + r * ldx + k + STRETCH + i);
            for (int i = 0; i < n; i++) rounded[r][i] = (uint16_t)bf16_of(x[r * ldx + k + i]);
            if (n % 2) rounded[r][n] = 0;
        }
        transpose(rounded, STRETCH / 2, rows, (n + 1) / 2, 0, out + (size_t)k * rows);
    }
}

#define LP_ROW_FUNCTIONS                                                                                               \
    .pack_exact = row_pack_exact, .pack_fast = row_pack_fast, .sum_squares = row_sum_squares, .scale = row_scale,      \
    .mul = row_mul, .add = row_add, .gelu_mul = row_gelu_mul, .softcap = row_softcap, .max = row_max,                  \
    .exp_sum = row_exp_sum, .rope = row_rope

#endif
