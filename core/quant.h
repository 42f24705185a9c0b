/* quant.h - element types and ggml's block types: sizes, and the exact f32 value of every element.
 *
 * The dequantisers are the definition the packed kernels are tested against, and are themselves compared bit for bit
 * with the `gguf` Python package.  Layouts and rounding order: ggml, src/ggml-common.h and src/ggml-quants.c
 * (dequantize_row_*): d*scale is formed first in f32, then times q, then minus the minimum.
 */
#ifndef LP_CORE_QUANT_H
#define LP_CORE_QUANT_H

#include "core/tensors.h"

const char *lp_dtype_name(lp_dtype t); /* "BF16", "Q4_K" */
bool lp_dtype_parse(const char *name, lp_dtype *out);
int lp_dtype_block(lp_dtype t);       /* elements per block: 1, 32 or 256; 0 for LP_OTHER */
int lp_dtype_block_bytes(lp_dtype t); /* bytes per block; 0 for LP_OTHER                  */
/* Bytes of n elements (n a multiple of the block); false on overflow or LP_OTHER. */
bool lp_dtype_bytes(lp_dtype t, uint64_t n, uint64_t *bytes);

/* n elements (a multiple of the block) to f32.  src need not be aligned. */
void lp_to_f32(lp_dtype t, const void *src, float *dst, size_t n);

/* f32 to a stored type, for synth and tests: F32, F16 and BF16 (to nearest even, NaN quiet), Q8_0 (ggml's rule).
 * False: another type, n is not whole blocks, or Q8_0 asked to hold what it cannot (NaN, infinity, above 8.3e6). */
bool lp_from_f32(lp_dtype t, const float *src, void *dst, size_t n);

float lp_f16_to_f32(uint16_t h); /* subnormals, infinities, NaN included */
uint16_t lp_f32_to_f16(float f);
static inline float lp_bf16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } v = {(uint32_t)h << 16};
    return v.f;
}
uint16_t lp_f32_to_bf16(float f); /* round to nearest even; NaN stays NaN, made quiet */

#endif
