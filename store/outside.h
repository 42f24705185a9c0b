/* outside.h - activations that another program stored, row by row, whatever the container.
 *
 *     delphi       a module's folder: START_END.safetensors with tokens, locations, activations (export.h); or a folder with
 *                  one such folder in it
 *     flat         an .npz or .safetensors file, from SAELens or numpy, with
 *                      tokens (or token_ids, input_ids)               [rows] or [windows][places], whole numbers
 *                  and one of
 *                      activations (or feature_acts, acts)            [rows][d_sae] or [windows][places][d_sae]
 *                      indptr [rows + 1], indices [n], data [n]       the same as a CSR matrix
 *
 * Rows come in the file's order, memory is that of one row.  Zeros are no activation.
 */
#ifndef LP_STORE_OUTSIDE_H
#define LP_STORE_OUTSIDE_H

#include "core/base.h"

typedef struct lp_outside lp_outside;

/* LP_E_FORMAT, LP_E_SHAPE: not such a file, or one that does not fit d_sae. */
lp_status lp_outside_open(lp_outside **out, const char *path, int d_sae, lp_error *err);
void lp_outside_close(lp_outside *x); /* NULL is fine */

int64_t lp_outside_rows(const lp_outside *x);
/* Places of a window, which are all there, the rest filled up; 0: rows without windows. */
int64_t lp_outside_places(const lp_outside *x);
/* What a value may be off by for being stored as it is, relative: 2^-11 of f16, 2^-8 of bf16, else 0. */
double lp_outside_rounding(const lp_outside *x);
/* Values up to this are left out by the format: 1e-5 of delphi, else 0. */
float lp_outside_floor(const lp_outside *x);

typedef struct lp_outside_row {
    int64_t token;
    int n;
    int *index;   /* [n] rising */
    float *value; /* [n]        */
} lp_outside_row;
/* The next row, held until the one after it is read.  LP_E_FORMAT: out of order, outside the SAE, not finite. */
lp_status lp_outside_next(lp_outside *x, const lp_outside_row **row, lp_error *err);

#endif
