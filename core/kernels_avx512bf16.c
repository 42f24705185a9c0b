/* kernels_avx512bf16.c - 512-bit vectors with VDPBF16PS (Cooper Lake, Zen 4 and later): see kernels_avx512.c. */
#define LP_BF16 1
#include "core/kernels_avx512.c"
