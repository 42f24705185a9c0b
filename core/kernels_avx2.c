/* kernels_avx2.c - 256-bit vectors with FMA: Haswell, Zen 1 to 3, and everything since.
 *
 * Built like kernels_avx512.c, with four registers to a panel's 32 lanes.  There are 16 registers in all, so a tile is
 * cut into pieces of up to 6 rows x 16 lanes: 12 accumulators, two of weights, one of x.  Fast arithmetic is emulated
 * by two FMAs in a thread that flushes denormals for as long as the tile takes; it saves no time on these machines and
 * exists so that results made with it elsewhere can be reproduced here.  f16 is widened with integer operations: no
 * need to ask for F16C.
 */
#include "core/panels.h"

#include "core/kernels_rows.h"

#include <immintrin.h>

#define ALWAYS static inline __attribute__((always_inline))
#define NEVER  static __attribute__((noinline))

enum {
    LANES = LP_LANES,
    CHUNK = 64,   /* columns of a panel expanded at a time: 8 KiB           */
    AHEAD = 2048, /* bytes of weights prefetched ahead of use               */
};

/* ---- values of a panel: lanes 8 part .. 8 part + 7 ------------------------------------------------------------- */

typedef struct step {
    const uint8_t *q;
    __m256 s, m;
} step;

typedef struct pair {
    __m256 odd, even;
} pair;

ALWAYS __m256i load_bits(const void *p)
{
    return _mm256_loadu_si256(p);
}

/* Two shifts and not a mask: a tile has no register left for one. */
ALWAYS __m256 upper_half(__m256i words)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_srli_epi32(words, 16), 16));
}

ALWAYS __m256 lower_half(__m256i words)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
}

/* Magnitude bits in f32's place, times 2^112, moves the exponent over and makes subnormals normal, exactly; what comes
 * out at 65536 or more was infinite or NaN and gets the exponent that says so. */
ALWAYS __m256 load_f16(const uint8_t *p)
{
    __m256i h = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p));
    __m256i mag = _mm256_slli_epi32(_mm256_and_si256(h, _mm256_set1_epi32(0x7fff)), 13);
    __m256i sign = _mm256_slli_epi32(_mm256_and_si256(h, _mm256_set1_epi32(0x8000)), 16);
    __m256i special = _mm256_and_si256(_mm256_cmpgt_epi32(mag, _mm256_set1_epi32(0x0f7fffff)),
                                       _mm256_set1_epi32(0x7f800000));
    __m256 v = _mm256_mul_ps(_mm256_castsi256_ps(mag), _mm256_set1_ps(0x1p112f));
    return _mm256_or_ps(v, _mm256_castsi256_ps(_mm256_or_si256(sign, special)));
}

ALWAYS __m256 load_int8(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}

/* Scale and minus minimum in 32-column run `s` of a Q4_K group; see panels.h and kernels_c.c. */
ALWAYS step open_q4_k(const uint8_t *g, int s, int part)
{
    const __m256i low6 = _mm256_set1_epi32(63), low4 = _mm256_set1_epi32(15), high2 = _mm256_set1_epi32(0x30);
    const uint8_t *w = g + LP_Q4_K_SCALES + 32 * part;
    __m128i shift = _mm_cvtsi32_si128(8 * (s % 4));
    __m256i a = _mm256_srl_epi32(load_bits(w), shift), b = _mm256_srl_epi32(load_bits(w + 128), shift);
    __m256i c = _mm256_srl_epi32(load_bits(w + 256), shift);
    if (s >= 4) {
        a = _mm256_or_si256(_mm256_and_si256(c, low4), _mm256_and_si256(_mm256_srli_epi32(a, 2), high2));
        b = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32(c, 4), low4),
                            _mm256_and_si256(_mm256_srli_epi32(b, 2), high2));
    }
    step t = {.q = g + LP_Q4_K_NIBBLES + 512 * s + 8 * part};
    t.s = _mm256_mul_ps(load_f16(g + 16 * part), _mm256_cvtepi32_ps(_mm256_and_si256(a, low6)));
    t.m = _mm256_mul_ps(load_f16(g + 64 + 16 * part), _mm256_cvtepi32_ps(_mm256_and_si256(b, low6)));
    t.m = _mm256_xor_ps(t.m, _mm256_set1_ps(-0.0f));
    return t;
}

ALWAYS step open_step(lp_panel f, const uint8_t *panel, int k, int part)
{
    const uint8_t *g = panel + (size_t)(k / lp_panel_group(f)) * lp_panel_group_bytes(f);
    step t = {.q = g, .s = _mm256_setzero_ps(), .m = _mm256_setzero_ps()};
    if (f == LP_PANEL_Q4_K) return open_q4_k(g, k % 256 / 32, part);
    if (f == LP_PANEL_F32 || f == LP_PANEL_BF16) t.q = g + 32 * part;
    if (f == LP_PANEL_F16) t.q = g + 16 * part;
    if (f == LP_PANEL_Q8_0) {
        t.s = load_f16(g + 16 * part);
        t.q = g + 64 + 8 * part;
    }
    if (f == LP_PANEL_S16 || f == LP_PANEL_A16) {
        t.s = _mm256_loadu_ps((const void *)(g + 32 * part));
        t.q = g + 128 + 8 * part;
    }
    if (f == LP_PANEL_A16) {
        t.m = _mm256_loadu_ps((const void *)(g + 128 + 32 * part));
        t.q = g + 256 + 8 * part;
    }
    return t;
}

/* Columns i + 1 (odd) and i (even) of a step. */
ALWAYS pair widen(lp_panel f, const step *t, int i)
{
    pair v;
    if (f == LP_PANEL_F32) {
        v.odd = _mm256_loadu_ps((const void *)t->q);
        v.even = _mm256_loadu_ps((const void *)(t->q + 128));
    } else if (f == LP_PANEL_BF16) {
        v.odd = upper_half(load_bits(t->q));
        v.even = lower_half(load_bits(t->q));
    } else if (f == LP_PANEL_F16) {
        v.odd = load_f16(t->q);
        v.even = load_f16(t->q + 64);
    } else if (f == LP_PANEL_Q4_K) {
        __m256i q = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(t->q + 16 * i)));
        v.odd = _mm256_cvtepi32_ps(_mm256_and_si256(q, _mm256_set1_epi32(15)));
        v.even = _mm256_cvtepi32_ps(_mm256_srli_epi32(q, 4));
        v.odd = _mm256_fmadd_ps(v.odd, t->s, t->m), v.even = _mm256_fmadd_ps(v.even, t->s, t->m);
    } else {
        v.odd = load_int8(t->q + 32 * i), v.even = load_int8(t->q + 32 * i + 32);
        if (f == LP_PANEL_A16)
            v.odd = _mm256_fmadd_ps(v.odd, t->s, t->m), v.even = _mm256_fmadd_ps(v.even, t->s, t->m);
        else
            v.odd = _mm256_mul_ps(v.odd, t->s), v.even = _mm256_mul_ps(v.even, t->s);
    }
    return v;
}

/* bf16 in the upper halves of the words: nearest even, denormals to zero, NaN quiet (the lower halves: any). */
ALWAYS __m256i round_up_half(__m256 x)
{
    __m256i u = _mm256_castps_si256(x), sign = _mm256_and_si256(u, _mm256_set1_epi32((int)0x80000000u));
    __m256i mag = _mm256_xor_si256(u, sign), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i up = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
    __m256i small = _mm256_cmpgt_epi32(_mm256_set1_epi32(0x00800000), mag);
    __m256i nan = _mm256_cmpgt_epi32(mag, _mm256_set1_epi32(0x7f800000));
    up = _mm256_blendv_epi8(up, sign, small);
    return _mm256_blendv_epi8(up, _mm256_or_si256(u, _mm256_set1_epi32(0x00400000)), nan);
}

ALWAYS __m256i round_pair(pair v)
{
    return _mm256_blend_epi16(_mm256_srli_epi32(round_up_half(v.even), 16), round_up_half(v.odd), 0xaa);
}

/* ---- expanding ----------------------------------------------------------------------------------------------- */

/* floats: [kc][32] f32; otherwise [kc/2][32] pairs of bf16. */
ALWAYS void expand_format(lp_panel f, const uint8_t *panel, int k0, int kc, void *out, const bool floats)
{
    for (int k = 0; k < kc; k += lp_panel_step(f))
        for (int part = 0; part < 4; part++) {
            const step t = open_step(f, panel, k0 + k, part);
            for (int i = 0; i < lp_panel_step(f); i += 2) {
                pair v = widen(f, &t, i);
                if (floats) {
                    float *to = (float *)out + (size_t)(k + i) * LANES + 8 * part;
                    _mm256_storeu_ps(to, v.odd);
                    _mm256_storeu_ps(to + LANES, v.even);
                } else {
                    uint16_t *to = (uint16_t *)out + (size_t)(k + i) * LANES + 16 * part;
                    _mm256_storeu_si256((void *)to, round_pair(v));
                }
            }
        }
}

#define EXPAND(name, type, floats)                                                                                     \
    static void name(lp_panel f, const void *panel, int k0, int kc, type *out)                                         \
    {                                                                                                                  \
        switch (f) {                                                                                                   \
        case LP_PANEL_F32:                                                                                             \
            expand_format(LP_PANEL_F32, panel, k0, kc, out, floats);                                                   \
            break;                                                                                                     \
        case LP_PANEL_BF16:                                                                                            \
            expand_format(LP_PANEL_BF16, panel, k0, kc, out, floats);                                                  \
            break;                                                                                                     \
        case LP_PANEL_F16:                                                                                             \
            expand_format(LP_PANEL_F16, panel, k0, kc, out, floats);                                                   \
            break;                                                                                                     \
        case LP_PANEL_Q8_0:                                                                                            \
            expand_format(LP_PANEL_Q8_0, panel, k0, kc, out, floats);                                                  \
            break;                                                                                                     \
        case LP_PANEL_Q4_K:                                                                                            \
            expand_format(LP_PANEL_Q4_K, panel, k0, kc, out, floats);                                                  \
            break;                                                                                                     \
        case LP_PANEL_S16:                                                                                             \
            expand_format(LP_PANEL_S16, panel, k0, kc, out, floats);                                                   \
            break;                                                                                                     \
        default:                                                                                                       \
            expand_format(LP_PANEL_A16, panel, k0, kc, out, floats);                                                   \
        }                                                                                                              \
    }

EXPAND(expand_f32, float, true)
EXPAND(expand_bf16, uint16_t, false)

/* ---- tiles --------------------------------------------------------------------------------------------------- */

/* A piece: rows 0..R-1 of x (ldx values apart from column to column) against 16 lanes of w. */
#define EACH_ROW(F) F(0) F(1) F(2) F(3) F(4) F(5)
#define START(i)                                                                                                       \
    __m256 a##i = _mm256_setzero_ps(), b##i = _mm256_setzero_ps();                                                     \
    if (i < R && load) {                                                                                               \
        a##i = _mm256_loadu_ps(y + (size_t)i * ldy);                                                                   \
        b##i = _mm256_loadu_ps(y + (size_t)i * ldy + 8);                                                               \
    }
#define STORE(i)                                                                                                       \
    if (i < R) {                                                                                                       \
        _mm256_storeu_ps(y + (size_t)i * ldy, a##i);                                                                   \
        _mm256_storeu_ps(y + (size_t)i * ldy + 8, b##i);                                                               \
    }
#define MULTIPLY(i, w0, w1, value)                                                                                     \
    if (i < R) {                                                                                                       \
        __m256 v = value;                                                                                              \
        a##i = _mm256_fmadd_ps(w0, v, a##i);                                                                           \
        b##i = _mm256_fmadd_ps(w1, v, b##i);                                                                           \
    }

ALWAYS void tile_f32_rows(const float *x, int ldx, const float *w, float *y, size_t ldy, int kc, bool load, const int R)
{
    EACH_ROW(START)
    for (int k = 0; k < kc; k++, x += ldx, w += LANES) {
        __m256 w0 = _mm256_loadu_ps(w), w1 = _mm256_loadu_ps(w + 8);
#define BOTH(i) MULTIPLY(i, w0, w1, _mm256_broadcast_ss(x + i))
        EACH_ROW(BOTH)
#undef BOTH
    }
    EACH_ROW(STORE)
}

ALWAYS void tile_bf16_rows(const float *x, int ldx, const uint16_t *w, float *y, size_t ldy, int kc, bool load,
                           const int R)
{
    EACH_ROW(START)
    for (int k = 0; k < kc; k += 2, x += 2 * ldx, w += 2 * LANES) {
        __m256 w0 = upper_half(load_bits(w)), w1 = upper_half(load_bits(w + 16));
#define ODD(i) MULTIPLY(i, w0, w1, _mm256_broadcast_ss(x + i))
        EACH_ROW(ODD)
#undef ODD
        w0 = lower_half(load_bits(w)), w1 = lower_half(load_bits(w + 16));
#define EVEN(i) MULTIPLY(i, w0, w1, _mm256_broadcast_ss(x + ldx + i))
        EACH_ROW(EVEN)
#undef EVEN
    }
    EACH_ROW(STORE)
}

ALWAYS __m256i pair_at(const uint16_t *x)
{
    int word;
    memcpy(&word, x, sizeof word);
    return _mm256_set1_epi32(word);
}

ALWAYS void tile_fast_rows(const uint16_t *x, int ldx, const uint16_t *w, float *y, size_t ldy, int kc, bool load,
                           const int R)
{
    EACH_ROW(START)
    for (int k = 0; k < kc; k += 2, x += 2 * ldx, w += 2 * LANES) {
        __m256 w0 = upper_half(load_bits(w)), w1 = upper_half(load_bits(w + 16));
#define ODD(i) MULTIPLY(i, w0, w1, upper_half(pair_at(x + 2 * i)))
        EACH_ROW(ODD)
#undef ODD
        w0 = lower_half(load_bits(w)), w1 = lower_half(load_bits(w + 16));
#define EVEN(i) MULTIPLY(i, w0, w1, lower_half(pair_at(x + 2 * i)))
        EACH_ROW(EVEN)
#undef EVEN
    }
    EACH_ROW(STORE)
}

/* A tile is its rows in pieces of 6, its lanes in halves.  Lanes and rows of x are `lane` and `row` elements apart. */
#define TILE(name, type, weight, lane, row)                                                                            \
    NEVER void name##_piece(const type *x, int ldx, const weight *w, float *y, size_t ldy, int kc, int rows,           \
                            bool load)                                                                                 \
    {                                                                                                                  \
        switch (rows) {                                                                                                \
        case 1:                                                                                                        \
            name##_rows(x, ldx, w, y, ldy, kc, load, 1);                                                               \
            break;                                                                                                     \
        case 2:                                                                                                        \
            name##_rows(x, ldx, w, y, ldy, kc, load, 2);                                                               \
            break;                                                                                                     \
        case 3:                                                                                                        \
            name##_rows(x, ldx, w, y, ldy, kc, load, 3);                                                               \
            break;                                                                                                     \
        case 4:                                                                                                        \
            name##_rows(x, ldx, w, y, ldy, kc, load, 4);                                                               \
            break;                                                                                                     \
        case 5:                                                                                                        \
            name##_rows(x, ldx, w, y, ldy, kc, load, 5);                                                               \
            break;                                                                                                     \
        default:                                                                                                       \
            name##_rows(x, ldx, w, y, ldy, kc, load, 6);                                                               \
        }                                                                                                              \
    }                                                                                                                  \
    static void name##_pieces(const type *x, const weight *w, float *y, size_t ldy, int kc, int rows, bool load)       \
    {                                                                                                                  \
        for (int r = 0; r < rows; r += 6)                                                                              \
            for (int half = 0; half < 2; half++)                                                                       \
                name##_piece(x + (row)*r, rows, w + 16 * (lane)*half, y + (size_t)r * ldy + 16 * half, ldy, kc,        \
                             rows - r < 6 ? rows - r : 6, load);                                                       \
    }

TILE(tile_f32, float, float, 1, 1)
TILE(tile_bf16, float, uint16_t, 2, 1)
TILE(tile_fast, uint16_t, uint16_t, 2, 2)

/* Denormals flushed, in (bit 6) and out (bit 15), for as long as the pieces run, which are never inlined. */
static void tile_fast(const uint16_t *x, const uint16_t *w, float *y, size_t ldy, int kc, int rows, bool load)
{
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040);
    tile_fast_pieces(x, w, y, ldy, kc, rows, load);
    _mm_setcsr(mode);
}

/* ---- one row ------------------------------------------------------------------------------------------------- */

/* Four chains, one per 8 lanes: enough for bf16 at the speed memory gives on such machines.  F32 and BF16 only. */
ALWAYS void row_panel(lp_panel f, const float *x, const uint8_t *panel, float *y, int kc, bool load)
{
    __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a;
    if (load) {
        a = _mm256_loadu_ps(y), b = _mm256_loadu_ps(y + 8);
        c = _mm256_loadu_ps(y + 16), d = _mm256_loadu_ps(y + 24);
    }
    for (int k = 0; k < kc; k += 2, panel += lp_panel_group_bytes(f)) {
        __m256 odd = _mm256_broadcast_ss(x + k), even = _mm256_broadcast_ss(x + k + 1);
        _mm_prefetch((const char *)panel + AHEAD, _MM_HINT_T0);
        _mm_prefetch((const char *)panel + AHEAD + 64, _MM_HINT_T0);
#define ADD(sum, part)                                                                                                 \
    {                                                                                                                  \
        const step t = open_step(f, panel, 0, part);                                                                   \
        pair v = widen(f, &t, 0);                                                                                      \
        sum = _mm256_fmadd_ps(v.even, even, _mm256_fmadd_ps(v.odd, odd, sum));                                         \
    }
        ADD(a, 0)
        ADD(b, 1)
        ADD(c, 2)
        ADD(d, 3)
#undef ADD
    }
    _mm256_storeu_ps(y, a);
    _mm256_storeu_ps(y + 8, b);
    _mm256_storeu_ps(y + 16, c);
    _mm256_storeu_ps(y + 24, d);
}

/* Formats with scales go through a piece of L1, which has the layout of an F32 panel. */
static void row_exact(lp_panel f, const float *x, const void *panels, size_t panel_bytes, int n_panels, float *y, int K)
{
    float w[CHUNK * LANES];
    K += K % 2;
    for (int p = 0; p < n_panels; p++, y += LANES) {
        const uint8_t *panel = (const uint8_t *)panels + p * panel_bytes;
        if (f == LP_PANEL_BF16)
            row_panel(LP_PANEL_BF16, x, panel, y, K, false);
        else if (f == LP_PANEL_F32)
            row_panel(LP_PANEL_F32, x, panel, y, K, false);
        else
            for (int k = 0, kc; k < K; k += kc) {
                kc = K - k < CHUNK ? K - k : CHUNK;
                expand_f32(f, panel, k, kc, w);
                row_panel(LP_PANEL_F32, x + k, (const uint8_t *)w, y, kc, k > 0);
            }
    }
}

static void row_fast(lp_panel f, const uint16_t *x, const void *panels, size_t panel_bytes, int n_panels, float *y,
                     int K)
{
    uint16_t w[CHUNK * LANES];
    K += K % 2;
    for (int p = 0; p < n_panels; p++, y += LANES) {
        const uint8_t *panel = (const uint8_t *)panels + p * panel_bytes;
        for (int k = 0, kc; k < K; k += kc) {
            kc = K - k < CHUNK ? K - k : CHUNK;
            if (f != LP_PANEL_BF16) expand_bf16(f, panel, k, kc, w);
            tile_fast(x + k, f == LP_PANEL_BF16 ? (const uint16_t *)(const void *)panel + (size_t)k * LANES : w, y,
                      LANES, kc, 1, k > 0);
        }
    }
}

/* ---- yardsticks ---------------------------------------------------------------------------------------------- */

static double peak_exact(long rounds)
{
    volatile float half = 0.5f, sink;
    __m256 h = _mm256_set1_ps(half), sum = _mm256_setzero_ps();
#define START_PEAK(i) __m256 a##i = _mm256_set1_ps(i), b##i = _mm256_set1_ps(-i);
#define SUM_PEAK(i)   sum = _mm256_add_ps(sum, _mm256_add_ps(a##i, b##i));
#define PEAK(i)       a##i = _mm256_fmadd_ps(a##i, h, h), b##i = _mm256_fmadd_ps(b##i, h, h);
    EACH_ROW(START_PEAK)
    for (long r = 0; r < rounds; r++) {
        EACH_ROW(PEAK)
    }
    EACH_ROW(SUM_PEAK)
    sink = _mm_cvtss_f32(_mm256_castps256_ps128(sum));
    (void)sink;
    return 12.0 * 16.0 * (double)rounds;
}

static uint64_t read_all(const void *p, size_t bytes)
{
    const uint8_t *at = p;
    uint64_t words[4];
    __m256i a = _mm256_setzero_si256(), b = a;
    for (size_t i = 0; i + 64 <= bytes; i += 64) {
        _mm_prefetch((const char *)at + i + AHEAD, _MM_HINT_T0);
        a = _mm256_or_si256(a, load_bits(at + i));
        b = _mm256_or_si256(b, load_bits(at + i + 32));
    }
    _mm256_storeu_si256((void *)words, _mm256_or_si256(a, b));
    return words[0] | words[1] | words[2] | words[3];
}

const lp_kernels lp_table_avx2 = {
    .name = "avx2",
    .tile_f32 = tile_f32_pieces,
    .tile_bf16 = tile_bf16_pieces,
    .tile_fast = tile_fast,
    .expand_f32 = expand_f32,
    .expand_bf16 = expand_bf16,
    .row_exact = row_exact,
    .row_fast = row_fast,
    LP_ROW_FUNCTIONS,
    .peak_exact = peak_exact,
    .peak_fast = peak_exact,
    .read = read_all,
};
