/* metrics.h - how good an SAE is on the tokens it has seen: L0, FVU and their kin, accumulated row by row.
 *
 * With x a row, x^ its reconstruction, f its features, over the n rows that count (never <bos>):
 *
 *     L0       mean of #(f > 0)
 *     FVU      sum ||x - x^||^2 / sum ||x - mean x||^2, the mean over all n rows    (Gemma Scope, section 4.1)
 *     cosine   mean of x . x^ / (||x|| ||x^||)
 *     L2 ratio mean of ||x^|| / ||x||
 *     dead     share of features that fired on none of the n rows
 *     dense    share that fired on more than a tenth of them
 *
 * The fraction of variance that is explained is 1 - FVU.  Tools that divide by E||x||^2 instead of the variance about
 * the mean print far rosier figures (SAELens before its fixes of 2026, SAEBench): these are not those.
 *
 * Sums are in double, in the order of the rows: the same rows give the same bits.
 */
#ifndef LP_SAE_METRICS_H
#define LP_SAE_METRICS_H

#include "sae/encode.h"

typedef struct lp_meter { /* lp_meter_new makes one; open, since it is data */
    int d_sae, d_out;
    uint64_t n; /* rows                                                          */
    double l0, l0_squares;
    double *sum;                  /* [d_out] of the rows                                           */
    double squares;               /* of the rows: sum ||x||^2                                      */
    double errors, error_squares; /* sum ||x - x^||^2, and of its square                  */
    double cosine, ratio;
    uint64_t *fired; /* [d_sae] rows a feature fired on                               */
    float *max;      /* [d_sae] its largest value                                     */
} lp_meter;

lp_status lp_meter_new(lp_meter *m, const lp_sae *s, lp_error *err);
void lp_meter_free(lp_meter *m); /* its contents; NULL is fine */

/* Row `row` of f, with the tensor x [d_out] it predicts and the reconstruction made [d_out]. */
void lp_meter_add(lp_meter *m, const lp_features *f, int row, const float *x, const float *made);

typedef struct lp_quality {
    uint64_t rows;
    double l0, fvu, cosine, l2_ratio, dead, dense;
    double l0_low, l0_high, fvu_low, fvu_high; /* 95 % intervals over rows, as if they were independent */
} lp_quality;

lp_quality lp_meter_read(const lp_meter *m); /* NaN where no row was counted */

#endif
