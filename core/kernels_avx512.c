/* kernels_avx512.c - 512-bit vectors: Skylake-X, Ice Lake and later.  kernels_avx512bf16.c is this file once more, with
 * LP_BF16 set and the flag for it: VDPBF16PS in the fast functions, every other line the same.
 *
 * A panel's 32 lanes are two registers.  A tile keeps 12 rows x 32 lanes = 24 accumulators; per column it loads the two
 * registers of weights once and broadcasts 12 values of x, so that loads stay below what the two FMA units eat.  The
 * accumulators are named variables made by macros: gcc 12 keeps an array of them on the stack, at a third of the speed.
 *
 * One decoder serves everything: `open_step` loads the scales of a run of columns, `widen` gives a pair of columns as
 * four registers of f32.  Expanding stores them, a row multiplies them, the fast functions round them to bf16.
 *
 * Measured on Zen 5, one thread, share of the same second's peak or plain read; kept here so that nobody tries again:
 *     prefetching the next tile's x    at n = 512, K = 9216: without 0.73 exact, with 0.90 (fast: 0.72, 0.87)
 *     unrolling a tile's loop twice    nothing
 *     one bf16 panel at a time, or 4   0.98 and 0.83 of a plain read: one straight stream beats more chains
 *     weights prefetched 1.5 to 6 KiB ahead   4 is best; Q8_0 loses a tenth at 2, a twentieth at 6
 *     Q4_K nibbles by mask and conversion instead of VPERMPS   20 instead of 21 GB/s
 */
#ifndef LP_BF16
#define LP_BF16 0
#endif
#include "core/panels.h"

#include "core/kernels_rows.h"

#include <immintrin.h>

#define ALWAYS static inline __attribute__((always_inline))
#define NEVER  static __attribute__((noinline))

enum { AHEAD = 4096 }; /* bytes of weights prefetched ahead of use: some 60 cache lines per stream */

/* ---- values of a panel --------------------------------------------------------------------------------------- */

/* A run of columns with the same scales; lanes 0..15 in s0 and m0, 16..31 in s1 and m1. */
typedef struct step {
    const uint8_t *q;
    __m512 s0, s1, m0, m1;
} step;

typedef struct pair {
    __m512 odd0, odd1, even0, even1;
} pair;

ALWAYS __m512i load_bits(const void *p)
{
    return _mm512_loadu_si512(p);
}

ALWAYS __m512 load_f16(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}

ALWAYS __m512 load_int8(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
}

/* Scale and minus minimum of 16 lanes in 32-column run `s` of a Q4_K group; see panels.h and kernels_c.c. */
ALWAYS void q4_k_scales(const uint8_t *g, int s, int half, __m512 *scale, __m512 *min)
{
    const uint8_t *w = g + LP_Q4_K_SCALES + 64 * half;
    __m512i a = load_bits(w), b = load_bits(w + 128), c = load_bits(w + 256), low6 = _mm512_set1_epi32(63);
    __m128i shift = _mm_cvtsi32_si128(8 * (s % 4));
    a = _mm512_srl_epi32(a, shift), b = _mm512_srl_epi32(b, shift), c = _mm512_srl_epi32(c, shift);
    if (s >= 4) {
        const __m512i high2 = _mm512_set1_epi32(0x30), low4 = _mm512_set1_epi32(15);
        a = _mm512_or_si512(_mm512_and_si512(c, low4), _mm512_and_si512(_mm512_srli_epi32(a, 2), high2));
        b = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(c, 4), low4),
                            _mm512_and_si512(_mm512_srli_epi32(b, 2), high2));
    }
    *scale = _mm512_mul_ps(load_f16(g + 32 * half), _mm512_cvtepi32_ps(_mm512_and_si512(a, low6)));
    __m512 m = _mm512_mul_ps(load_f16(g + 64 + 32 * half), _mm512_cvtepi32_ps(_mm512_and_si512(b, low6)));
    *min = _mm512_xor_ps(m, _mm512_set1_ps(-0.0f));
}

/* Column k starts a step. */
ALWAYS step open_step(lp_panel f, const uint8_t *panel, int k)
{
    const uint8_t *g = panel + (size_t)(k / lp_panel_group(f)) * lp_panel_group_bytes(f);
    step t = {g, _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    if (f == LP_PANEL_Q8_0) {
        t.s0 = load_f16(g), t.s1 = load_f16(g + 32);
        t.q = g + 64;
    } else if (f == LP_PANEL_S16 || f == LP_PANEL_A16) {
        t.s0 = _mm512_loadu_ps(g), t.s1 = _mm512_loadu_ps(g + 64);
        t.q = g + 128;
        if (f == LP_PANEL_A16) {
            t.m0 = _mm512_loadu_ps(g + 128), t.m1 = _mm512_loadu_ps(g + 192);
            t.q = g + 256;
        }
    } else if (f == LP_PANEL_Q4_K) {
        int s = k % 256 / 32;
        q4_k_scales(g, s, 0, &t.s0, &t.m0);
        q4_k_scales(g, s, 1, &t.s1, &t.m1);
        t.q = g + LP_Q4_K_NIBBLES + 512 * s;
    }
    return t;
}

ALWAYS __m512 q4_k_value(__m512i q, __m512 scale, __m512 min)
{
    const __m512 digits = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_fmadd_ps(_mm512_permutexvar_ps(q, digits), scale, min); /* the index's upper bits do not count */
}

/* Columns i + 1 (odd) and i (even) of a step. */
ALWAYS pair widen(lp_panel f, const step *t, int i)
{
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000u);
    pair v;
    if (f == LP_PANEL_F32) {
        v.odd0 = _mm512_loadu_ps(t->q + 128 * i), v.odd1 = _mm512_loadu_ps(t->q + 128 * i + 64);
        v.even0 = _mm512_loadu_ps(t->q + 128 * i + 128), v.even1 = _mm512_loadu_ps(t->q + 128 * i + 192);
    } else if (f == LP_PANEL_BF16) {
        __m512i a = load_bits(t->q + 64 * i), b = load_bits(t->q + 64 * i + 64);
        v.odd0 = _mm512_castsi512_ps(_mm512_and_si512(a, upper));
        v.odd1 = _mm512_castsi512_ps(_mm512_and_si512(b, upper));
        v.even0 = _mm512_castsi512_ps(_mm512_slli_epi32(a, 16));
        v.even1 = _mm512_castsi512_ps(_mm512_slli_epi32(b, 16));
    } else if (f == LP_PANEL_F16) {
        v.odd0 = load_f16(t->q + 64 * i), v.odd1 = load_f16(t->q + 64 * i + 32);
        v.even0 = load_f16(t->q + 64 * i + 64), v.even1 = load_f16(t->q + 64 * i + 96);
    } else if (f == LP_PANEL_Q4_K) {
        __m512i a = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(t->q + 16 * i)));
        __m512i b = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(t->q + 16 * i + 16)));
        v.odd0 = q4_k_value(a, t->s0, t->m0);
        v.odd1 = q4_k_value(b, t->s1, t->m1);
        v.even0 = q4_k_value(_mm512_srli_epi32(a, 4), t->s0, t->m0);
        v.even1 = q4_k_value(_mm512_srli_epi32(b, 4), t->s1, t->m1);
    } else {
        v.odd0 = load_int8(t->q + 32 * i), v.odd1 = load_int8(t->q + 32 * i + 16);
        v.even0 = load_int8(t->q + 32 * i + 32), v.even1 = load_int8(t->q + 32 * i + 48);
        if (f == LP_PANEL_A16) {
            v.odd0 = _mm512_fmadd_ps(v.odd0, t->s0, t->m0), v.odd1 = _mm512_fmadd_ps(v.odd1, t->s1, t->m1);
            v.even0 = _mm512_fmadd_ps(v.even0, t->s0, t->m0), v.even1 = _mm512_fmadd_ps(v.even1, t->s1, t->m1);
        } else {
            v.odd0 = _mm512_mul_ps(v.odd0, t->s0), v.odd1 = _mm512_mul_ps(v.odd1, t->s1);
            v.even0 = _mm512_mul_ps(v.even0, t->s0), v.even1 = _mm512_mul_ps(v.even1, t->s1);
        }
    }
    return v;
}

/* The lines that pair i of a step will need some time from now. */
ALWAYS void prefetch_pair(lp_panel f, const step *t, int i)
{
    const int bytes = f == LP_PANEL_F32 ? 256 : f == LP_PANEL_BF16 || f == LP_PANEL_F16 ? 128 : 64;
    const uint8_t *p = t->q + AHEAD + (f == LP_PANEL_Q4_K ? 16 * i : bytes / 2 * i);
    for (int at = 0; at < bytes; at += 64) _mm_prefetch(p + at, _MM_HINT_T0);
}

/* ---- bf16 ---------------------------------------------------------------------------------------------------- */

/* 16 values in the upper halves of their words: nearest even, denormals to zero, NaN quiet (the lower halves: any). */
ALWAYS __m512i round_up_half(__m512 x)
{
    __m512i u = _mm512_castps_si512(x), sign = _mm512_and_si512(u, _mm512_set1_epi32((int)0x80000000u));
    __m512i mag = _mm512_xor_si512(u, sign), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i up = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    up = _mm512_mask_mov_epi32(up, _mm512_cmplt_epu32_mask(mag, _mm512_set1_epi32(0x00800000)), sign);
    return _mm512_mask_or_epi32(up, _mm512_cmpgt_epu32_mask(mag, _mm512_set1_epi32(0x7f800000)), u,
                                _mm512_set1_epi32(0x00400000));
}

/* odd in the upper, even in the lower half of each word. */
ALWAYS __m512i round_pair(__m512 odd, __m512 even)
{
#if LP_BF16
    const __m512i weave = _mm512_setr_epi32(0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006,
                                            0x170007, 0x180008, 0x190009, 0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d,
                                            0x1e000e, 0x1f000f);
    return _mm512_permutexvar_epi16(weave, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
#else
    return _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(round_up_half(even), 16), round_up_half(odd));
#endif
}

/* ---- tiles --------------------------------------------------------------------------------------------------- */

#define EACH_ROW(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)
#define START(i)                                                                                                       \
    __m512 a##i = _mm512_setzero_ps(), b##i = _mm512_setzero_ps();                                                     \
    if (i < R && load) {                                                                                               \
        a##i = _mm512_loadu_ps(y + (size_t)i * ldy);                                                                   \
        b##i = _mm512_loadu_ps(y + (size_t)i * ldy + 16);                                                              \
    }
#define STORE(i)                                                                                                       \
    if (i < R) {                                                                                                       \
        _mm512_storeu_ps(y + (size_t)i * ldy, a##i);                                                                   \
        _mm512_storeu_ps(y + (size_t)i * ldy + 16, b##i);                                                              \
    }
#define MULTIPLY(i, w0, w1, at)                                                                                        \
    if (i < R) {                                                                                                       \
        __m512 v = _mm512_set1_ps(x[at]);                                                                              \
        a##i = _mm512_fmadd_ps(w0, v, a##i);                                                                           \
        b##i = _mm512_fmadd_ps(w1, v, b##i);                                                                           \
    }

/* While this block of columns is worked on, fetch the block of x that lies behind it (matmul.c puts the next tile's
 * there) into L2, and the weights a little ahead into L1. */
ALWAYS void prefetch_tile(const void *x, size_t block, const void *w, const int x_bytes, const int w_bytes)
{
    for (int at = 0; at < x_bytes; at += 64) _mm_prefetch((const char *)x + block + at, _MM_HINT_T1);
    for (int at = 0; at < w_bytes; at += 64) _mm_prefetch((const char *)w + AHEAD + at, _MM_HINT_T0);
}

ALWAYS void tile_f32_rows(const float *x, const float *w, float *y, size_t ldy, int kc, bool load, const int R)
{
    const size_t block = (size_t)kc * R * 4;
    EACH_ROW(START)
    for (int k = 0; k < kc; k++, x += R, w += 32) {
        __m512 w0 = _mm512_loadu_ps(w), w1 = _mm512_loadu_ps(w + 16);
        prefetch_tile(x, block, w, 4 * R, 128);
#define BOTH(i) MULTIPLY(i, w0, w1, i)
        EACH_ROW(BOTH)
#undef BOTH
    }
    EACH_ROW(STORE)
}

ALWAYS void tile_bf16_rows(const float *x, const uint16_t *w, float *y, size_t ldy, int kc, bool load, const int R)
{
    const size_t block = (size_t)kc * R * 4;
    EACH_ROW(START)
    for (int k = 0; k < kc; k += 2, x += 2 * R, w += 64) {
        const step t = {.q = (const uint8_t *)w};
        pair c = widen(LP_PANEL_BF16, &t, 0);
        prefetch_tile(x, block, w, 8 * R, 128);
#define ODD(i)  MULTIPLY(i, c.odd0, c.odd1, i)
#define EVEN(i) MULTIPLY(i, c.even0, c.even1, R + i)
        EACH_ROW(ODD)
        EACH_ROW(EVEN)
#undef ODD
#undef EVEN
    }
    EACH_ROW(STORE)
}

ALWAYS int word_at(const uint16_t *x)
{
    int word;
    memcpy(&word, x, sizeof word);
    return word;
}

/* Without the instruction: two FMAs, with the caller's MXCSR set to flush. */
ALWAYS __m512 multiply_pairs(__m512 sum, __m512i w, __m512i x)
{
#if LP_BF16
    return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)x);
#else
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000u);
    sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(w, upper)),
                          _mm512_castsi512_ps(_mm512_and_si512(x, upper)), sum);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(w, 16)), _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)),
                           sum);
#endif
}

ALWAYS void tile_fast_rows(const uint16_t *x, const uint16_t *w, float *y, size_t ldy, int kc, bool load, const int R)
{
    const size_t block = (size_t)kc * R * 2;
    EACH_ROW(START)
    for (int k = 0; k < kc; k += 2, x += 2 * R, w += 64) {
        __m512i w0 = load_bits(w), w1 = load_bits(w + 32);
        prefetch_tile(x, block, w, 4 * R, 128);
#define PAIRS(i)                                                                                                       \
    if (i < R) {                                                                                                       \
        __m512i v = _mm512_set1_epi32(word_at(x + 2 * i));                                                             \
        a##i = multiply_pairs(a##i, w0, v);                                                                            \
        b##i = multiply_pairs(b##i, w1, v);                                                                            \
    }
        EACH_ROW(PAIRS)
#undef PAIRS
    }
    EACH_ROW(STORE)
}

/* One function per number of rows, and the choice between them. */
#define INSTANCE(name, type, weight, R)                                                                                \
    NEVER void name##_##R(const type *x, const weight *w, float *y, size_t ldy, int kc, bool load)                     \
    {                                                                                                                  \
        name##_rows(x, w, y, ldy, kc, load, R);                                                                        \
    }
#define INSTANCES(name, type, weight)                                                                                  \
    INSTANCE(name, type, weight, 1)                                                                                    \
    INSTANCE(name, type, weight, 2)                                                                                    \
    INSTANCE(name, type, weight, 3)                                                                                    \
    INSTANCE(name, type, weight, 4)                                                                                    \
    INSTANCE(name, type, weight, 5)                                                                                    \
    INSTANCE(name, type, weight, 6)                                                                                    \
    INSTANCE(name, type, weight, 7)                                                                                    \
    INSTANCE(name, type, weight, 8)                                                                                    \
    INSTANCE(name, type, weight, 9)                                                                                    \
    INSTANCE(name, type, weight, 10)                                                                                   \
    INSTANCE(name, type, weight, 11)                                                                                   \
    INSTANCE(name, type, weight, 12)                                                                                   \
    static void name(const type *x, const weight *w, float *y, size_t ldy, int kc, int rows, bool load)                \
    {                                                                                                                  \
        static void (*const by_rows[])(const type *, const weight *, float *, size_t, int, bool) = {                   \
            NULL,     name##_1, name##_2, name##_3,  name##_4,  name##_5, name##_6,                                    \
            name##_7, name##_8, name##_9, name##_10, name##_11, name##_12};                                            \
        BEGIN_FAST_##name;                                                                                             \
        by_rows[rows](x, w, y, ldy, kc, load);                                                                         \
        END_FAST_##name;                                                                                               \
    }

/* VDPBF16PS ignores MXCSR; its emulation needs denormals flushed on the way in (bit 6) and out (bit 15), and nothing
 * else may run so.  The calls between are to functions the compiler may not inline or move. */
#define BEGIN_FAST_tile_f32
#define END_FAST_tile_f32
#define BEGIN_FAST_tile_bf16
#define END_FAST_tile_bf16
#if LP_BF16
#define BEGIN_FAST_tile_fast
#define END_FAST_tile_fast
#else
#define BEGIN_FAST_tile_fast                                                                                           \
    unsigned mode = _mm_getcsr();                                                                                      \
    _mm_setcsr(mode | 0x8040)
#define END_FAST_tile_fast _mm_setcsr(mode)
#endif

INSTANCES(tile_f32, float, float)
INSTANCES(tile_bf16, float, uint16_t)
INSTANCES(tile_fast, uint16_t, uint16_t)

/* ---- expanding ----------------------------------------------------------------------------------------------- */

ALWAYS void expand_f32_format(lp_panel f, const uint8_t *panel, int k0, int kc, float *out)
{
    for (int k = k0; k < k0 + kc; k += lp_panel_step(f)) {
        const step t = open_step(f, panel, k);
        for (int i = 0; i < lp_panel_step(f); i += 2, out += 64) {
            pair v = widen(f, &t, i);
            prefetch_pair(f, &t, i);
            _mm512_storeu_ps(out, v.odd0);
            _mm512_storeu_ps(out + 16, v.odd1);
            _mm512_storeu_ps(out + 32, v.even0);
            _mm512_storeu_ps(out + 48, v.even1);
        }
    }
}

ALWAYS void expand_bf16_format(lp_panel f, const uint8_t *panel, int k0, int kc, uint16_t *out)
{
    for (int k = k0; k < k0 + kc; k += lp_panel_step(f)) {
        const step t = open_step(f, panel, k);
        for (int i = 0; i < lp_panel_step(f); i += 2, out += 64) {
            pair v = widen(f, &t, i);
            prefetch_pair(f, &t, i);
            _mm512_storeu_si512(out, round_pair(v.odd0, v.even0));
            _mm512_storeu_si512(out + 32, round_pair(v.odd1, v.even1));
        }
    }
}

/* A call of `function` with the format a constant, so that each gets its own straight loop. */
#define BY_FORMAT(f, function, ...)                                                                                    \
    switch (f) {                                                                                                       \
    case LP_PANEL_F32:                                                                                                 \
        function(LP_PANEL_F32, __VA_ARGS__);                                                                           \
        break;                                                                                                         \
    case LP_PANEL_BF16:                                                                                                \
        function(LP_PANEL_BF16, __VA_ARGS__);                                                                          \
        break;                                                                                                         \
    case LP_PANEL_F16:                                                                                                 \
        function(LP_PANEL_F16, __VA_ARGS__);                                                                           \
        break;                                                                                                         \
    case LP_PANEL_Q8_0:                                                                                                \
        function(LP_PANEL_Q8_0, __VA_ARGS__);                                                                          \
        break;                                                                                                         \
    case LP_PANEL_Q4_K:                                                                                                \
        function(LP_PANEL_Q4_K, __VA_ARGS__);                                                                          \
        break;                                                                                                         \
    case LP_PANEL_S16:                                                                                                 \
        function(LP_PANEL_S16, __VA_ARGS__);                                                                           \
        break;                                                                                                         \
    default:                                                                                                           \
        function(LP_PANEL_A16, __VA_ARGS__);                                                                           \
    }

static void expand_f32(lp_panel f, const void *panel, int k0, int kc, float *out)
{
    BY_FORMAT(f, expand_f32_format, panel, k0, kc, out)
}

static void expand_bf16(lp_panel f, const void *panel, int k0, int kc, uint16_t *out)
{
    BY_FORMAT(f, expand_bf16_format, panel, k0, kc, out)
}

/* ---- one row ------------------------------------------------------------------------------------------------- */

#define EACH_PANEL(F) F(0) F(1) F(2) F(3)
#define START_PANEL(i)                                                                                                 \
    __m512 a##i = _mm512_setzero_ps(), b##i = _mm512_setzero_ps();                                                     \
    step t##i = {0};
#define OPEN(i)                                                                                                        \
    if (i < P) t##i = open_step(f, panel + i * panel_bytes, k);
#define STORE_PANEL(i)                                                                                                 \
    if (i < P) {                                                                                                       \
        _mm512_storeu_ps(y + 32 * i, a##i);                                                                            \
        _mm512_storeu_ps(y + 32 * i + 16, b##i);                                                                       \
    }

/* P panels at once: 2 P chains of additions, each waiting only for itself. */
ALWAYS void exact_panels(lp_panel f, const float *x, const uint8_t *panel, size_t panel_bytes, float *y, int K,
                         const int P)
{
    EACH_PANEL(START_PANEL)
    for (int k = 0; k < K; k += lp_panel_step(f)) {
        EACH_PANEL(OPEN)
        for (int i = 0; i < lp_panel_step(f); i += 2) {
            __m512 odd = _mm512_set1_ps(x[k + i]), even = _mm512_set1_ps(x[k + i + 1]);
#define ADD(j)                                                                                                         \
    if (j < P) {                                                                                                       \
        pair v = widen(f, &t##j, i);                                                                                   \
        prefetch_pair(f, &t##j, i);                                                                                    \
        a##j = _mm512_fmadd_ps(v.even0, even, _mm512_fmadd_ps(v.odd0, odd, a##j));                                     \
        b##j = _mm512_fmadd_ps(v.even1, even, _mm512_fmadd_ps(v.odd1, odd, b##j));                                     \
    }
            EACH_PANEL(ADD)
#undef ADD
        }
    }
    EACH_PANEL(STORE_PANEL)
}

ALWAYS void fast_panels(lp_panel f, const uint16_t *x, const uint8_t *panel, size_t panel_bytes, float *y, int K,
                        const int P)
{
    EACH_PANEL(START_PANEL)
    for (int k = 0; k < K; k += lp_panel_step(f)) {
        EACH_PANEL(OPEN)
        for (int i = 0; i < lp_panel_step(f); i += 2) {
            __m512i both = _mm512_set1_epi32(word_at(x + k + i));
#define ADD(j)                                                                                                         \
    if (j < P) {                                                                                                       \
        prefetch_pair(f, &t##j, i);                                                                                    \
        if (f == LP_PANEL_BF16) {                                                                                      \
            a##j = multiply_pairs(a##j, load_bits(t##j.q), both);                                                      \
            b##j = multiply_pairs(b##j, load_bits(t##j.q + 64), both);                                                 \
        } else {                                                                                                       \
            pair v = widen(f, &t##j, i);                                                                               \
            a##j = multiply_pairs(a##j, round_pair(v.odd0, v.even0), both);                                            \
            b##j = multiply_pairs(b##j, round_pair(v.odd1, v.even1), both);                                            \
        }                                                                                                              \
    }
            EACH_PANEL(ADD)
#undef ADD
        }
    }
    EACH_PANEL(STORE_PANEL)
}

/* One panel at a time is one straight read, which memory likes best, but only two chains: 8 cycles for a pair of columns.
 * Enough for 128 bytes a pair, too slow for fewer. */
ALWAYS int panels_at_once(lp_panel f)
{
    return f == LP_PANEL_F32 || f == LP_PANEL_BF16 || f == LP_PANEL_F16 ? 1 : f == LP_PANEL_Q4_K ? 4 : 2;
}

ALWAYS void exact_format(lp_panel f, const float *x, const uint8_t *panel, size_t panel_bytes, int n, float *y, int K)
{
    const int P = panels_at_once(f);
    for (; n >= P; n -= P, panel += P * panel_bytes, y += P * 32) exact_panels(f, x, panel, panel_bytes, y, K, P);
    for (; n > 0; n--, panel += panel_bytes, y += 32) exact_panels(f, x, panel, panel_bytes, y, K, 1);
}

ALWAYS void fast_format(lp_panel f, const uint16_t *x, const uint8_t *panel, size_t panel_bytes, int n, float *y, int K)
{
    const int P = panels_at_once(f);
    for (; n >= P; n -= P, panel += P * panel_bytes, y += P * 32) fast_panels(f, x, panel, panel_bytes, y, K, P);
    for (; n > 0; n--, panel += panel_bytes, y += 32) fast_panels(f, x, panel, panel_bytes, y, K, 1);
}

static void row_exact(lp_panel f, const float *x, const void *panels, size_t panel_bytes, int n_panels, float *y, int K)
{
    K += K % 2;
    BY_FORMAT(f, exact_format, x, panels, panel_bytes, n_panels, y, K)
}

NEVER void row_fast_flushed(lp_panel f, const uint16_t *x, const void *panels, size_t panel_bytes, int n_panels,
                            float *y, int K)
{
    BY_FORMAT(f, fast_format, x, panels, panel_bytes, n_panels, y, K)
}

/* The decoder may run flushed too: the products it rounds are never below 2^-126 (f16 scales are multiples of 2^-24),
 * and what f32 and bf16 panels hold below it is dropped by the rounding or the product anyway. */
static void row_fast(lp_panel f, const uint16_t *x, const void *panels, size_t panel_bytes, int n_panels, float *y,
                     int K)
{
    BEGIN_FAST_tile_fast;
    row_fast_flushed(f, x, panels, panel_bytes, n_panels, y, K + K % 2);
    END_FAST_tile_fast;
}

/* ---- yardsticks ---------------------------------------------------------------------------------------------- */

#define START_PEAK(i) __m512 a##i = _mm512_set1_ps(i), b##i = _mm512_set1_ps(-i);
#define SUM_PEAK(i)   sum = _mm512_add_ps(sum, _mm512_add_ps(a##i, b##i));

/* 24 chains in registers, as a full tile has.  The sum is stored where the compiler cannot drop it. */
static double peak_exact(long rounds)
{
    volatile float half = 0.5f, sink;
    __m512 h = _mm512_set1_ps(half), sum = _mm512_setzero_ps();
    EACH_ROW(START_PEAK)
    for (long r = 0; r < rounds; r++) {
#define PEAK(i) a##i = _mm512_fmadd_ps(a##i, h, h), b##i = _mm512_fmadd_ps(b##i, h, h);
        EACH_ROW(PEAK)
#undef PEAK
    }
    EACH_ROW(SUM_PEAK)
    sink = _mm512_reduce_add_ps(sum);
    (void)sink;
    return 24.0 * 32.0 * (double)rounds;
}

#if LP_BF16
static double peak_fast(long rounds)
{
    volatile int ones = 0x3f003f00;
    volatile float sink;
    __m512i h = _mm512_set1_epi32(ones);
    __m512 sum = _mm512_setzero_ps();
    EACH_ROW(START_PEAK)
    for (long r = 0; r < rounds; r++) {
#define PEAK(i) a##i = multiply_pairs(a##i, h, h), b##i = multiply_pairs(b##i, h, h);
        EACH_ROW(PEAK)
#undef PEAK
    }
    EACH_ROW(SUM_PEAK)
    sink = _mm512_reduce_add_ps(sum);
    (void)sink;
    return 24.0 * 64.0 * (double)rounds;
}
#else
static double peak_fast(long rounds) /* two FMAs for a pair: the same flops per instruction */
{
    return peak_exact(rounds);
}
#endif

static uint64_t read_all(const void *p, size_t bytes)
{
    const uint8_t *at = p;
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    for (size_t i = 0; i + 256 <= bytes; i += 256) {
        for (int line = 0; line < 256; line += 64) _mm_prefetch(at + i + AHEAD + line, _MM_HINT_T0);
        a = _mm512_or_si512(a, load_bits(at + i));
        b = _mm512_or_si512(b, load_bits(at + i + 64));
        c = _mm512_or_si512(c, load_bits(at + i + 128));
        d = _mm512_or_si512(d, load_bits(at + i + 192));
    }
    return (uint64_t)_mm512_reduce_or_epi64(_mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(c, d)));
}

#if LP_BF16
const lp_kernels lp_table_avx512bf16 = {
    .name = "avx512bf16",
#else
const lp_kernels lp_table_avx512 = {
    .name = "avx512",
#endif
    .tile_f32 = tile_f32,
    .tile_bf16 = tile_bf16,
    .tile_fast = tile_fast,
    .expand_f32 = expand_f32,
    .expand_bf16 = expand_bf16,
    .row_exact = row_exact,
    .row_fast = row_fast,
    LP_ROW_FUNCTIONS,
    .peak_exact = peak_exact,
    .peak_fast = peak_fast,
    .read = read_all,
};
