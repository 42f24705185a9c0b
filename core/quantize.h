/* quantize.h - f32 into ggml's block types, for `lapidary synth` and for tests.
 *
 * Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 follow ggml's reference rule bit for bit (ggml, src/ggml-quants.c,
 * quantize_row_*_ref).  The K types use a plain rule of our own, the range of each sub-block, without ggml's search
 * for better scales: the blocks are valid and close to the values, but not the ones llama-quantize would choose.
 */
#ifndef LP_CORE_QUANTIZE_H
#define LP_CORE_QUANTIZE_H

#include "core/quant.h"

/* n elements (a multiple of the type's block) of any type but LP_OTHER.  False: no such type, or n is not a multiple. */
bool lp_quantize(lp_dtype t, const float *src, void *dst, size_t n);

#endif
