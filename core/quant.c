/* quant.c - see quant.h.
 *
 * A block is a few elements that share a scale.  The legacy types hold 32 (d, perhaps a minimum m, then nibbles: the
 * low nibbles are elements 0..15, the high ones 16..31, and not pairs of neighbours).  The K types hold 256 as
 * sub-blocks of 16 or 32, each with its own small integer scale under one f16 d:
 *
 *     Q2_K Q3_K Q6_K   16 sub-blocks of 16,  d stands LAST      y = (d*sc) * q [- dmin*mn]
 *     Q4_K Q5_K         8 sub-blocks of 32,  d stands first     y = (d*sc) * q  - dmin*mn
 *
 * The parentheses are the rounding order of ggml and of the gguf package, which the goldens pin bit for bit.  The one
 * freedom left: which NaN comes out when a scale is NaN or infinite (payload and sign are the CPU's business).
 *
 * Everything is little-endian, as are the machines we run on.  Blocks may start anywhere, so f16 fields are copied out.
 */
#include "core/quant.h"

#include <assert.h>
#include <math.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "checkpoints are little-endian and read as they lie");

typedef struct kind {
    const char *name;
    int block, bytes; /* elements, bytes of one block */
} kind;

static const kind kinds[LP_N_DTYPES] = {
    [LP_F32] = {"F32", 1, 4},       [LP_F16] = {"F16", 1, 2},       [LP_BF16] = {"BF16", 1, 2},
    [LP_Q8_0] = {"Q8_0", 32, 34},   [LP_Q4_0] = {"Q4_0", 32, 18},   [LP_Q4_1] = {"Q4_1", 32, 20},
    [LP_Q5_0] = {"Q5_0", 32, 22},   [LP_Q5_1] = {"Q5_1", 32, 24},   [LP_Q2_K] = {"Q2_K", 256, 84},
    [LP_Q3_K] = {"Q3_K", 256, 110}, [LP_Q4_K] = {"Q4_K", 256, 144}, [LP_Q5_K] = {"Q5_K", 256, 176},
    [LP_Q6_K] = {"Q6_K", 256, 210}, [LP_OTHER] = {"OTHER", 0, 0},
};

const char *lp_dtype_name(lp_dtype t)
{
    return kinds[t].name;
}

bool lp_dtype_parse(const char *name, lp_dtype *out)
{
    for (int t = 0; t < LP_OTHER; t++)
        if (strcmp(name, kinds[t].name) == 0) {
            *out = (lp_dtype)t;
            return true;
        }
    return false;
}

int lp_dtype_block(lp_dtype t)
{
    return kinds[t].block;
}

int lp_dtype_block_bytes(lp_dtype t)
{
    return kinds[t].bytes;
}

bool lp_dtype_bytes(lp_dtype t, uint64_t n, uint64_t *bytes)
{
    uint64_t block = (uint64_t)kinds[t].block;
    if (!block || n % block) return false;
    return !__builtin_mul_overflow(n / block, (uint64_t)kinds[t].bytes, bytes);
}

/* ---- 16-bit floats ------------------------------------------------------------------------------------------ */

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Subnormals are an integer times 2^-24, never an f32 subnormal on the way, so this holds in a thread that flushes
 * denormals too. */
float lp_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, mag = h & 0x7fff;
    uint32_t u = mag >= 0x400 ? (mag << 13) + (112u << 23) : bits_of((float)(int)mag * 0x1p-24f);
    if (mag >= 0x7c00) u = 0x7f800000 | mag << 13 | (mag > 0x7c00 ? 0x400000u : 0);
    return float_of(sign | u);
}

/* To nearest even.  Below the normal range the result is x / 2^-24 rounded, which adding 0.5 in units of f32's last
 * place does in hardware; here in integers, so that no rounding mode or flush flag matters. */
uint16_t lp_f32_to_f16(float f)
{
    uint32_t u = bits_of(f), sign = u >> 16 & 0x8000, mag = u & 0x7fffffff, h;
    if (mag > 0x7f800000) /* NaN: keep the payload's top, make it quiet */
        h = 0x7e00 | (mag >> 13 & 0x1ff);
    else if (mag >= 0x47800000) /* 65536 and up */
        h = 0x7c00;
    else if (mag >=
             0x38800000) { /* 2^-14 and up: normal; a carry into the exponent is the right answer, 65520 -> inf */
        mag -= 112u << 23;
        h = (mag + 0xfff + (mag >> 13 & 1)) >> 13;
    } else if (mag < 0x33000000) /* below 2^-25: nothing left */
        h = 0;
    else {
        uint32_t shift = 126 - (mag >> 23), m = (mag & 0x7fffff) | 0x800000; /* 14..24 bits go */
        uint32_t half = 1u << (shift - 1), odd = m >> shift & 1;
        h = (m + half - 1 + odd) >> shift;
    }
    return (uint16_t)(sign | h);
}

uint16_t lp_f32_to_bf16(float f)
{
    uint32_t u = bits_of(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* ---- legacy blocks: 32 elements ------------------------------------------------------------------------------ */

static float scale_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return lp_f16_to_f32(h);
}

static uint32_t u32_at(const uint8_t *p)
{
    uint32_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

static void block_q8_0(const uint8_t *b, float *y)
{
    float d = scale_at(b);
    for (int j = 0; j < 32; j++) y[j] = d * (float)(int8_t)b[2 + j];
}

static void block_q4_0(const uint8_t *b, float *y)
{
    float d = scale_at(b);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)((b[2 + j] & 15) - 8);
        y[j + 16] = d * (float)((b[2 + j] >> 4) - 8);
    }
}

static void block_q4_1(const uint8_t *b, float *y)
{
    float d = scale_at(b), m = scale_at(b + 2);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)(b[4 + j] & 15) + m;
        y[j + 16] = d * (float)(b[4 + j] >> 4) + m;
    }
}

/* The fifth bit of element j is bit j of qh. */
static void block_q5_0(const uint8_t *b, float *y)
{
    float d = scale_at(b);
    uint32_t qh = u32_at(b + 2);
    for (int j = 0; j < 16; j++) {
        int lo = (b[6 + j] & 15) | (int)(qh >> j & 1) << 4;
        int hi = b[6 + j] >> 4 | (int)(qh >> (j + 16) & 1) << 4;
        y[j] = d * (float)(lo - 16);
        y[j + 16] = d * (float)(hi - 16);
    }
}

static void block_q5_1(const uint8_t *b, float *y)
{
    float d = scale_at(b), m = scale_at(b + 2);
    uint32_t qh = u32_at(b + 4);
    for (int j = 0; j < 16; j++) {
        int lo = (b[8 + j] & 15) | (int)(qh >> j & 1) << 4;
        int hi = b[8 + j] >> 4 | (int)(qh >> (j + 16) & 1) << 4;
        y[j] = d * (float)lo + m;
        y[j + 16] = d * (float)hi + m;
    }
}

/* ---- K blocks: 256 elements ---------------------------------------------------------------------------------- */

/* Two halves of 128, each over 32 bytes of quants: the 2-bit field at shift 0 of all 32 bytes, then at shift 2, 4, 6.
 * A scale byte covers 16 elements: low nibble the scale, high nibble the minimum. */
static void block_q2_k(const uint8_t *b, float *y)
{
    const uint8_t *scales = b, *qs = b + 16;
    float d = scale_at(b + 80), dmin = scale_at(b + 82);
    for (int s = 0; s < 16; s++) {
        float dl = d * (float)(scales[s] & 15), ml = dmin * (float)(scales[s] >> 4);
        const uint8_t *q = qs + s / 8 * 32 + s % 2 * 16;
        int shift = s % 8 / 2 * 2;
        for (int j = 0; j < 16; j++) y[16 * s + j] = dl * (float)(q[j] >> shift & 3) - ml;
    }
}

/* As Q2_K, with a third bit per element in hmask (bit = group of 32 elements) that, when CLEAR, takes 4 off, and scales
 * of 6 bits whose low nibbles fill bytes 0..7 and whose high pairs fill bytes 8..11. */
static void block_q3_k(const uint8_t *b, float *y)
{
    const uint8_t *hmask = b, *qs = b + 32, *sc = b + 96;
    float d = scale_at(b + 108);
    for (int s = 0; s < 16; s++) {
        int low = s < 8 ? sc[s] & 15 : sc[s - 8] >> 4;
        int high = sc[8 + s % 4] >> (2 * (s / 4)) & 3;
        float dl = d * (float)((low | high << 4) - 32);
        const uint8_t *q = qs + s / 8 * 32 + s % 2 * 16, *h = hmask + s % 2 * 16;
        int shift = s % 8 / 2 * 2, bit = s / 2;
        for (int j = 0; j < 16; j++) y[16 * s + j] = dl * (float)((q[j] >> shift & 3) - (h[j] >> bit & 1 ? 0 : 4));
    }
}

/* Q4_K and Q5_K pack eight 6-bit scales and eight 6-bit minimums into 12 bytes. */
static void unpack_k4(const uint8_t *b, int s, int *sc, int *mn)
{
    if (s < 4) {
        *sc = b[s] & 63;
        *mn = b[s + 4] & 63;
    } else {
        *sc = (b[s + 4] & 15) | b[s - 4] >> 6 << 4;
        *mn = b[s + 4] >> 4 | b[s] >> 6 << 4;
    }
}

/* Sub-block s takes the low (s even) or high nibbles of bytes 32*(s/2) .. +31; Q5_K's fifth bit is bit s of qh[j]. */
static void block_k45(const uint8_t *b, const uint8_t *qh, const uint8_t *qs, float *y)
{
    float d = scale_at(b), dmin = scale_at(b + 2);
    for (int s = 0; s < 8; s++) {
        int sc, mn;
        unpack_k4(b + 4, s, &sc, &mn);
        float dl = d * (float)sc, ml = dmin * (float)mn;
        const uint8_t *q = qs + s / 2 * 32;
        int shift = s % 2 * 4;
        for (int j = 0; j < 32; j++) {
            int v = q[j] >> shift & 15;
            if (qh) v |= (qh[j] >> s & 1) << 4;
            y[32 * s + j] = dl * (float)v - ml;
        }
    }
}

static void block_q4_k(const uint8_t *b, float *y)
{
    block_k45(b, NULL, b + 16, y);
}

static void block_q5_k(const uint8_t *b, float *y)
{
    block_k45(b, b + 16, b + 48, y);
}

/* Halves of 128: four groups of 32; low nibbles from ql (groups 0, 1 low, 2, 3 high), two more bits from qh. */
static void block_q6_k(const uint8_t *b, float *y)
{
    float d = scale_at(b + 208);
    for (int s = 0; s < 16; s++) {
        int half = s / 8, group = s % 8 / 2, at = s % 2 * 16;
        const uint8_t *ql = b + 64 * half + group % 2 * 32 + at, *qh = b + 128 + 32 * half + at;
        float dl = d * (float)(int8_t)b[192 + s];
        for (int j = 0; j < 16; j++) {
            int v = (ql[j] >> (group / 2 * 4) & 15) | (qh[j] >> (2 * group) & 3) << 4;
            y[16 * s + j] = dl * (float)(v - 32);
        }
    }
}

/* ---- rows ---------------------------------------------------------------------------------------------------- */

static void (*const unblock[LP_N_DTYPES])(const uint8_t *b, float *y) = {
    [LP_Q8_0] = block_q8_0, [LP_Q4_0] = block_q4_0, [LP_Q4_1] = block_q4_1, [LP_Q5_0] = block_q5_0,
    [LP_Q5_1] = block_q5_1, [LP_Q2_K] = block_q2_k, [LP_Q3_K] = block_q3_k, [LP_Q4_K] = block_q4_k,
    [LP_Q5_K] = block_q5_k, [LP_Q6_K] = block_q6_k,
};

void lp_to_f32(lp_dtype t, const void *src, float *dst, size_t n)
{
    const uint8_t *b = src;
    uint16_t h;
    assert(t != LP_OTHER && n % (size_t)kinds[t].block == 0);
    switch (t) {
    case LP_F32:
        memcpy(dst, src, n * sizeof *dst);
        break;
    case LP_F16:
        for (size_t i = 0; i < n; i++) {
            memcpy(&h, b + 2 * i, 2);
            dst[i] = lp_f16_to_f32(h);
        }
        break;
    case LP_BF16:
        for (size_t i = 0; i < n; i++) {
            memcpy(&h, b + 2 * i, 2);
            dst[i] = lp_bf16_to_f32(h);
        }
        break;
    default:
        for (size_t i = 0; i < n; i += (size_t)kinds[t].block, b += kinds[t].bytes) unblock[t](b, dst + i);
    }
}

/* ggml's rule: d = max|x| / 127, kept as f16, but the quants are made with the unrounded 1/d; halves go away from zero.
 * A value no finite d can reach is refused. */
static bool block_to_q8_0(const float *x, uint8_t *b)
{
    float top = 0;
    for (int j = 0; j < 32; j++) {
        if (!isfinite(x[j])) return false;
        if (fabsf(x[j]) > top) top = fabsf(x[j]);
    }
    float d = top / 127, id = d > 0 && isfinite(1 / d) ? 1 / d : 0;
    uint16_t h = lp_f32_to_f16(d);
    if (h == 0x7c00) return false;
    memcpy(b, &h, sizeof h);
    for (int j = 0; j < 32; j++) b[2 + j] = (uint8_t)(int8_t)roundf(x[j] * id);
    return true;
}

bool lp_from_f32(lp_dtype t, const float *src, void *dst, size_t n)
{
    uint8_t *b = dst;
    uint16_t h;
    if (t == LP_OTHER || n % (size_t)kinds[t].block) return false;
    switch (t) {
    case LP_F32:
        memcpy(dst, src, n * sizeof *src);
        return true;
    case LP_F16:
    case LP_BF16:
        for (size_t i = 0; i < n; i++) {
            h = t == LP_F16 ? lp_f32_to_f16(src[i]) : lp_f32_to_bf16(src[i]);
            memcpy(b + 2 * i, &h, 2);
        }
        return true;
    case LP_Q8_0:
        for (size_t i = 0; i < n; i += 32, b += 34)
            if (!block_to_q8_0(src + i, b)) return false;
        return true;
    default:
        return false;
    }
}
