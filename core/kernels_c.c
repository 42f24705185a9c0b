/* kernels_c.c - the plain C table: the definition of correct, on any machine with IEEE 754 arithmetic.
 *
 * Read this one to know what the others compute.  It is compiled without instruction-set flags: fmaf is then the
 * library's, correctly rounded whether or not the CPU has the instruction.  Speed is not its business.
 *
 * Fast arithmetic is what VDPBF16PS does, and it does not ask MXCSR: round to nearest even, inputs below 2^-126 count
 * as zeros of their sign, results below 2^-126 become zeros of their sign.  Whether a result is below is judged after
 * rounding to 24 bits as if exponents had no end, which differs from rounding into the subnormal grid in one place
 * only, just under 2^-126: see flushed_fma.
 */
#include "core/panels.h"
#include "core/quant.h"

#include "core/kernels_rows.h"

#include <float.h>

float lp_expf(float x)
{
    return exp_of(x);
}

float lp_tanhf(float x)
{
    return tanh_of(x);
}

/* ---- values of a panel --------------------------------------------------------------------------------------- */

static float f16_at(const uint8_t *p, int i)
{
    uint16_t h;
    memcpy(&h, p + 2 * i, sizeof h);
    return lp_f16_to_f32(h);
}

static float f32_at(const uint8_t *p, int i)
{
    float f;
    memcpy(&f, p + 4 * (size_t)i, sizeof f);
    return f;
}

/* d * sc is exact in f32 (11 + 6 bits), and so is its product with q (4 bits more) and dmin * mn: the fused operation
 * rounds once, where ggml's "d*sc*q - dmin*mn" rounds once too. */
static float q4_k_value(const uint8_t *g, int i, int lane)
{
    const uint8_t *scales = g + LP_Q4_K_SCALES + 4 * lane, *pair = g + LP_Q4_K_NIBBLES + i / 2 * 32;
    int s = i / 32, t = s % 4, sc, mn;
    uint8_t b[12]; /* ggml's order */
    for (int w = 0; w < 3; w++) memcpy(b + 4 * w, scales + 128 * w, 4);
    sc = s < 4 ? b[t] & 63 : (b[8 + t] & 15) | b[t] >> 6 << 4;
    mn = s < 4 ? b[4 + t] & 63 : b[8 + t] >> 4 | b[4 + t] >> 6 << 4;
    int q = i % 2 ? pair[lane] >> 4 : pair[lane] & 15;
    return fmaf(f16_at(g, lane) * (float)sc, (float)q, -(f16_at(g + 64, lane) * (float)mn));
}

/* The i-th value of a lane in a panel's own order: 0 is column 1, 1 is column 0, 2 is column 3, ... */
static float value(lp_panel f, const void *panel, int i, int lane)
{
    int columns = lp_panel_group(f);
    const uint8_t *g = (const uint8_t *)panel + (size_t)(i / columns) * lp_panel_group_bytes(f);
    i %= columns;
    uint16_t h;
    switch (f) {
    case LP_PANEL_F32:
        return f32_at(g, 32 * i + lane);
    case LP_PANEL_F16:
        return f16_at(g, 32 * i + lane);
    case LP_PANEL_BF16:
        memcpy(&h, g + 4 * lane + 2 * (1 - i), sizeof h);
        return lp_bf16_to_f32(h);
    case LP_PANEL_Q8_0:
        return f16_at(g, lane) * (float)(int8_t)g[64 + 32 * i + lane];
    case LP_PANEL_Q4_K:
        return q4_k_value(g, i, lane);
    case LP_PANEL_S16:
        return f32_at(g, lane) * (float)(int8_t)g[128 + 32 * i + lane];
    default:
        return fmaf(f32_at(g, lane), (float)(int8_t)g[256 + 32 * i + lane], f32_at(g + 128, lane));
    }
}

static void expand_f32(lp_panel f, const void *panel, int k0, int kc, float *out)
{
    for (int i = 0; i < kc; i++)
        for (int lane = 0; lane < LP_LANES; lane++) out[(size_t)i * LP_LANES + lane] = value(f, panel, k0 + i, lane);
}

static void expand_bf16(lp_panel f, const void *panel, int k0, int kc, uint16_t *out)
{
    for (int i = 0; i < kc; i += 2, out += 2 * LP_LANES)
        for (int lane = 0; lane < LP_LANES; lane++) {
            out[2 * lane + 1] = (uint16_t)bf16_of(value(f, panel, k0 + i, lane));
            out[2 * lane] = (uint16_t)bf16_of(value(f, panel, k0 + i + 1, lane));
        }
}

/* ---- tiles --------------------------------------------------------------------------------------------------- */

static void tile_f32(const float *x, const float *w, float *y, size_t ldy, int kc, int rows, bool load)
{
    for (int r = 0; r < rows; r++)
        for (int lane = 0; lane < LP_LANES; lane++) {
            float sum = load ? y[(size_t)r * ldy + lane] : 0;
            for (int i = 0; i < kc; i++) sum = fmaf(x[(size_t)i * rows + r], w[(size_t)i * LP_LANES + lane], sum);
            y[(size_t)r * ldy + lane] = sum;
        }
}

static void tile_bf16(const float *x, const uint16_t *w, float *y, size_t ldy, int kc, int rows, bool load)
{
    for (int r = 0; r < rows; r++)
        for (int lane = 0; lane < LP_LANES; lane++) {
            float sum = load ? y[(size_t)r * ldy + lane] : 0;
            for (int i = 0; i < kc; i++)
                sum = fmaf(x[(size_t)i * rows + r],
                           lp_bf16_to_f32(w[(size_t)(i / 2) * 2 * LP_LANES + 2 * lane + 1 - i % 2]), sum);
            y[(size_t)r * ldy + lane] = sum;
        }
}

static float flushed(float f)
{
    return fabsf(f) < FLT_MIN ? copysignf(0, f) : f;
}

/* A result of exactly 2^-126 may have been rounded up from just below, where the subnormal grid is half as fine as 24
 * bits are.  Scaled by 2^64 the rounding is to 24 bits.  (The smaller factor: such a sum comes from addends below
 * 2^-100, whose last places can meet 2^-126 at all, so nothing overflows.) */
static float flushed_fma(float a, float b, float c)
{
    a = flushed(a), b = flushed(b), c = flushed(c);
    float sum = fmaf(a, b, c);
    if (fabsf(sum) != FLT_MIN) return flushed(sum);
    float small = fabsf(a) < fabsf(b) ? a : b, large = fabsf(a) < fabsf(b) ? b : a;
    return fabsf(fmaf(small * 0x1p64f, large, c * 0x1p64f)) < 0x1p-62f ? copysignf(0, sum) : sum;
}

static void tile_fast(const uint16_t *x, const uint16_t *w, float *y, size_t ldy, int kc, int rows, bool load)
{
    for (int r = 0; r < rows; r++)
        for (int lane = 0; lane < LP_LANES; lane++) {
            float sum = load ? y[(size_t)r * ldy + lane] : 0;
            for (int i = 0; i < kc / 2; i++) {
                const uint16_t *a = x + 2 * ((size_t)i * rows + r), *b = w + 2 * ((size_t)i * LP_LANES + lane);
                sum = flushed_fma(lp_bf16_to_f32(a[1]), lp_bf16_to_f32(b[1]), sum);
                sum = flushed_fma(lp_bf16_to_f32(a[0]), lp_bf16_to_f32(b[0]), sum);
            }
            y[(size_t)r * ldy + lane] = sum;
        }
}

/* ---- one row ------------------------------------------------------------------------------------------------- */

enum { CHUNK = 256 }; /* columns expanded at a time: a multiple of every group */

static void row_exact(lp_panel f, const float *x, const void *panels, size_t panel_bytes, int n_panels, float *y, int K)
{
    float w[CHUNK * LP_LANES];
    for (int p = 0; p < n_panels; p++)
        for (int k0 = 0; k0 < K; k0 += CHUNK) {
            int kc = K - k0 < CHUNK ? K - k0 : CHUNK;
            expand_f32(f, (const uint8_t *)panels + p * panel_bytes, k0, kc, w);
            tile_f32(x + k0, w, y + (size_t)p * LP_LANES, LP_LANES, kc, 1, k0 > 0);
        }
}

static void row_fast(lp_panel f, const uint16_t *x, const void *panels, size_t panel_bytes, int n_panels, float *y,
                     int K)
{
    uint16_t w[CHUNK * LP_LANES];
    for (int p = 0; p < n_panels; p++)
        for (int k0 = 0; k0 < K; k0 += CHUNK) {
            int kc = K - k0 < CHUNK ? K - k0 : CHUNK;
            expand_bf16(f, (const uint8_t *)panels + p * panel_bytes, k0, kc, w);
            tile_fast(x + k0, w, y + (size_t)p * LP_LANES, LP_LANES, kc, 1, k0 > 0);
        }
}

/* ---- yardsticks ---------------------------------------------------------------------------------------------- */

/* Eight chains, so that the unit and not the latency is measured where fmaf is an instruction. */
static double peak_f32(long rounds)
{
    volatile float start = 1;
    float s[8];
    for (int i = 0; i < 8; i++) s[i] = start;
    for (long r = 0; r < rounds; r++)
        for (int i = 0; i < 8; i++) s[i] = fmaf(s[i], 0.5f, 0.5f);
    for (int i = 0; i < 8; i++) start = s[i];
    return 16.0 * (double)rounds;
}

static uint64_t read_all(const void *p, size_t bytes)
{
    uint64_t sum = 0, v;
    for (size_t i = 0; i + 8 <= bytes; i += 8) {
        memcpy(&v, (const uint8_t *)p + i, 8);
        sum |= v;
    }
    return sum;
}

const lp_kernels lp_table_c = {
    .name = "c",
    .tile_f32 = tile_f32,
    .tile_bf16 = tile_bf16,
    .tile_fast = tile_fast,
    .expand_f32 = expand_f32,
    .expand_bf16 = expand_bf16,
    .row_exact = row_exact,
    .row_fast = row_fast,
    LP_ROW_FUNCTIONS,
    .peak_exact = peak_f32,
    .peak_fast = peak_f32,
    .read = read_all,
};
