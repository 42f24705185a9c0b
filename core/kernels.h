/* kernels.h - the few inner loops worth writing more than once, as a table of function pointers.
 *
 * The C table is the definition of correct.  In exact arithmetic every table gives the same bits as it: each output is
 * one chain of fused multiply-adds in one fixed order, and exp and tanh are our own (no libm in any result).  Sums over
 * a row (sum_squares, exp_sum) use 16 partial sums, element i going to sum i mod 16, which are then added pairwise
 * (8+8, 4+4, 2+2, 1+1): what one 512-bit register does, and what any other machine can imitate.
 *
 * Order inside a matrix product: K runs upwards in pairs; in each pair the ODD element is added first, then the even
 * one.  That is what VDPBF16PS does, so fast arithmetic equals exact arithmetic on inputs that are bf16 already.
 */
#ifndef LP_CORE_KERNELS_H
#define LP_CORE_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LP_LANES = 32, /* outputs per weight panel */
    LP_TILE = 12,  /* most rows of x a tile kernel takes */
};

/* How a panel of 32 output rows lies in memory.  Drawings in panels.h. */
typedef enum lp_panel {
    LP_PANEL_F32,  /* [K/2][2][32] f32, odd k first                                                       */
    LP_PANEL_BF16, /* [K/2][32][2] bf16                                                                   */
    LP_PANEL_F16,  /* [K/2][2][32] f16, odd k first                                                       */
    LP_PANEL_Q8_0, /* per 32 k: 32 f16 scales, then [32][32] int8                                         */
    LP_PANEL_Q4_K, /* per 256 k: 32 f16 d, 32 f16 dmin, 6-bit scales and minima, then nibbles             */
    LP_PANEL_S16,  /* per 16 k: 32 f32 scales, then [16][32] int8              (Q6_K, Q3_K, without loss) */
    LP_PANEL_A16,  /* per 16 k: 32 f32 scales, 32 f32 minima, [16][32] int8    (Q5_K, Q2_K, Q4_1, Q5_1)   */
    LP_N_PANELS
} lp_panel;

typedef struct lp_kernels {
    const char *name; /* "c", "avx2", "avx512", "avx512bf16"; part of every result's provenance */

    /* ---- matrix products.  x is packed by pack_*; y[r*ldy + lane] for r < rows, lane < 32.
     * `load` false: start from zero.  true: go on from what is in y (blocking over K changes no bit). */

    /* Strictly sequential over kc: x [kc][rows], w [kc][32].  rows 1..LP_TILE. */
    void (*tile_f32)(const float *x, const float *w, float *y, size_t ldy, int kc, int rows, bool load);
    /* x [kc/2][2: odd, even][rows], w [kc/2][32][2]; kc even. */
    void (*tile_bf16)(const float *x, const uint16_t *w, float *y, size_t ldy, int kc, int rows, bool load);
    /* Fast: x [kc/2][rows][2] bf16, w as tile_bf16.  Odd product then even, each an FMA with denormals flushed. */
    void (*tile_fast)(const uint16_t *x, const uint16_t *w, float *y, size_t ldy, int kc, int rows, bool load);
    /* kc columns of a panel, from its column k0 (both multiples of 32; of 2 for formats without scales), widened to f32
     * [kc][32] odd first (exactly the dequantised values), or rounded to bf16 [kc/2][32][2] for tile_fast. */
    void (*expand_f32)(lp_panel format, const void *panel, int k0, int kc, float *out);
    void (*expand_bf16)(lp_panel format, const void *panel, int k0, int kc, uint16_t *out);
    /* One row of x (packed odd first) against `n_panels` whole panels, panel_bytes apart: y[32 * n_panels].
     * Any format; the same bits as expand_f32 + tile_f32 would give. */
    void (*row_exact)(lp_panel format, const float *x, const void *panels, size_t panel_bytes, int n_panels, float *y,
                      int K);
    void (*row_fast)(lp_panel format, const uint16_t *x, const void *panels, size_t panel_bytes, int n_panels, float *y,
                     int K);
    /* rows rows of x (ldx apart, K columns, K padded to even with 0) into a tile's order. */
    void (*pack_exact)(const float *x, size_t ldx, int rows, int K, float *out);
    void (*pack_fast)(const float *x, size_t ldx, int rows, int K, uint16_t *out);

    /* ---- rows */
    float (*sum_squares)(const float *x, int n);
    void (*scale)(float *y, const float *x, float f, int n);               /* y = x * f                               */
    void (*mul)(float *y, const float *x, const float *g, int n);          /* y = x * g                               */
    void (*add)(float *y, const float *x, int n);                          /* y += x                                  */
    void (*gelu_mul)(float *y, const float *gate, const float *up, int n); /* y = gelu_tanh(gate) * up            */
    void (*softcap)(float *x, int n, float cap);                           /* x = cap * tanh(x / cap)                 */
    float (*max)(const float *x, int n);                                   /* NaN if any is NaN; -inf for n = 0       */
    float (*exp_sum)(float *x, int n, float max);                          /* x = exp(x - max); returns the sum       */
    void (*rope)(float *x, const float *cos, const float *sin, int half);  /* pairs (i, i + half), in place        */

    /* ---- yardsticks: the most this table's instructions can do, to measure the rest against (core/bench.h) */
    double (*peak_exact)(long rounds); /* multiply-adds as in tile_f32, in registers; returns the flops done     */
    double (*peak_fast)(long rounds);  /* as in tile_fast                                                        */
    uint64_t (*read)(const void *p, size_t bytes); /* only loads; returns something that depends on all of it    */
} lp_kernels;

const lp_kernels *lp_kernels_c(void);
const lp_kernels *lp_kernels_best(void);              /* for this CPU, chosen once                            */
const lp_kernels *lp_kernels_named(const char *name); /* NULL: no such table, or this CPU cannot run it       */
/* All tables this CPU can run, plain C first. */
const lp_kernels *const *lp_kernels_all(int *n);

/* Scalar twins, the same bits as the tables' vector forms.  Errors at most 1 ulp (exp), 2 ulp (tanh). */
float lp_expf(float x);
float lp_tanhf(float x);

#endif
