/* panels.h - how the bytes of a weight panel lie: shared by those who pack panels and those who compute with them.
 *
 * A panel is 32 output rows ("lanes") times all K columns.  K runs upwards in pairs, the odd column of a pair before
 * the even one, and 32 lanes stand side by side, so that a kernel reads straight on and never moves a value across
 * lanes. Formats with scales come in groups of columns; the scales of the 32 lanes stand first:
 *
 *     F32   2 columns   [odd, even][32] f32
 *     F16   2 columns   [odd, even][32] f16
 *     BF16  2 columns   [32][even, odd] bf16          one 32-bit word per lane, as VDPBF16PS wants it
 *     Q8_0  32 columns  [32] f16 d,                   [32 columns][32] int8       value = d * q
 *     S16   16 columns  [32] f32 s,                   [16 columns][32] int8       value = s * q
 *     A16   16 columns  [32] f32 s, [32] f32 m,       [16 columns][32] int8       value = s * q + m, one rounding
 *     Q4_K  256 columns [32] f16 d, [32] f16 dmin, [3][32] u32 scales, [128 pairs][32] u8 nibbles (low: odd column)
 *                       value = (d * sc) * q - dmin * mn, one rounding; sc and mn belong to 32 columns
 *
 * Q4_K's three words per lane are ggml's twelve scale bytes, four to a word.
 */
#ifndef LP_CORE_PANELS_H
#define LP_CORE_PANELS_H

#include "core/kernels.h"

enum { LP_Q4_K_SCALES = 128, LP_Q4_K_NIBBLES = 512, LP_Q4_K_BLOCK = 4608 }; /* byte offsets in a group, its size */

/* Columns of one group. */
static inline int lp_panel_group(lp_panel f)
{
    static const int columns[LP_N_PANELS] = {
        [LP_PANEL_F32] = 2,    [LP_PANEL_BF16] = 2, [LP_PANEL_F16] = 2,  [LP_PANEL_Q8_0] = 32,
        [LP_PANEL_Q4_K] = 256, [LP_PANEL_S16] = 16, [LP_PANEL_A16] = 16,
    };
    return columns[f];
}

/* Bytes of one group: always a multiple of 64. */
static inline size_t lp_panel_group_bytes(lp_panel f)
{
    static const size_t bytes[LP_N_PANELS] = {
        [LP_PANEL_F32] = 2 * 32 * 4,           [LP_PANEL_BF16] = 2 * 32 * 2,    [LP_PANEL_F16] = 2 * 32 * 2,
        [LP_PANEL_Q8_0] = 32 * 2 + 32 * 32,    [LP_PANEL_Q4_K] = LP_Q4_K_BLOCK, [LP_PANEL_S16] = 32 * 4 + 16 * 32,
        [LP_PANEL_A16] = 2 * 32 * 4 + 16 * 32,
    };
    return bytes[f];
}

/* Columns that share their scales: what a kernel takes in one step. */
static inline int lp_panel_step(lp_panel f)
{
    return f == LP_PANEL_Q4_K ? 32 : lp_panel_group(f);
}

/* The tables, low to high; the last three exist on x86-64 only. */
extern const lp_kernels lp_table_c, lp_table_avx2, lp_table_avx512, lp_table_avx512bf16;

#endif
