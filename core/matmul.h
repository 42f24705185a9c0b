/* matmul.h - y[n][rows] = x[n][cols] W^T over packed panels: one copy of the weights, one order of summation.
 *
 * Row r of y has the same bits whatever n is, however many threads run, and whichever kernel table runs it (exact).
 */
#ifndef LP_CORE_MATMUL_H
#define LP_CORE_MATMUL_H

#include "core/kernels.h"
#include "core/pool.h"
#include "core/tensors.h"

typedef enum lp_arithmetic {
    LP_EXACT, /* f32 activations, weights widened to f32, fused multiply-add; the default             */
    LP_FAST,  /* activations and weights rounded to bf16, f32 accumulation; about twice as fast on prompts */
} lp_arithmetic;

/* A weight in panels of 32 output rows.  Open: it is data.  `data` is borrowed from whoever owns the arena. */
typedef struct lp_matrix {
    int rows, cols;
    lp_dtype stored;           /* the checkpoint's type                                    */
    lp_panel format;           /* ours; without loss for every `stored`                    */
    size_t panel_bytes, bytes; /* of one panel (a multiple of 64), of all panels */
    void *data;                /* [ceil(rows/32)] panels, 64-byte aligned                  */
    uint64_t n_nonfinite;      /* NaN and infinite weights (or block scales) met while packing */
} lp_matrix;

/* Fills in the shape, format and sizes for a tensor of that type; `data` stays NULL.  LP_E_UNSUPPORTED for LP_OTHER. */
lp_status lp_matrix_plan(lp_matrix *m, int rows, int cols, lp_dtype stored, lp_error *err);
/* Reads and packs the tensor into m->data, on all threads of env->pool. */
lp_status lp_matrix_load(lp_matrix *m, const lp_tensors *t, const lp_tensor *x, const lp_env *env, lp_error *err);
/* Packs from memory in the stored type (tests, SAEs). */
lp_status lp_matrix_pack(lp_matrix *m, const void *src, const lp_env *env, lp_error *err);
/* Columns col .. col + n - 1 of W from src [n][rows] in f32, for matrices that are stored the other way round (an SAE's
 * encoder).  `data` zeroed beforehand, format F32 or BF16 (rounded to nearest even) alone. */
void lp_matrix_put_columns(lp_matrix *m, int col, int n, const float *src, const lp_env *env);
/* Rows first .. first + n - 1 of W as f32: out [n][cols]; whole panels of 32 cost no more than one row of them. */
void lp_matrix_rows(const lp_matrix *m, int first, int n, float *out, const lp_kernels *k);
/* Row `row` of W as f32: out[cols].  (Embedding lookups: the tied table is held once.) */
void lp_matrix_row(const lp_matrix *m, int row, float *out, const lp_kernels *k);

/* Scratch of a product: packed rows and expanded panels.  Made once per session; a product allocates nothing. */
typedef struct lp_matmul_scratch lp_matmul_scratch;
lp_status lp_matmul_scratch_new(lp_matmul_scratch **out, int max_rows, int max_cols, int n_threads, lp_error *err);
void lp_matmul_scratch_free(lp_matmul_scratch *s);

/* y[i] = x W[i]^T for `count` matrices that read the same x [n][cols]; y[i] is [n][W[i]->rows].  One parallel section.
 * n at most max_rows, cols at most max_cols.  env: pool and kernels. */
void lp_matmul(float *const *y, const lp_matrix *const *w, int count, const float *x, int n, lp_arithmetic a,
               lp_matmul_scratch *s, const lp_env *env);

#endif
