/* encode.h - from activations to features and back.
 *
 * Features come as CSR: row r of the input has the features index[start[r]] .. index[start[r + 1] - 1], ascending, with
 * their values, all > 0.  Nothing dense outlives a block of rows, so a million features cost a few dozen MB of scratch.
 *
 * A row's features have the same bits whatever rows went with it and however many threads ran (core/matmul.h): one row
 * while generating equals the same row in a batch job.
 */
#ifndef LP_SAE_ENCODE_H
#define LP_SAE_ENCODE_H

#include "sae/sae.h"

typedef struct lp_features { /* all zero is an empty one */
    int n_rows;
    size_t *start; /* [n_rows + 1] */
    int *index;    /* [start[n_rows]] */
    float *value;  /* [start[n_rows]] */
    size_t capacity_rows, capacity_values;
    size_t capacity_index;
} lp_features;

void lp_features_free(lp_features *f); /* its contents; NULL is fine */
/* The value of a feature in a row, 0 where it does not fire. */
float lp_features_get(const lp_features *f, int row, int feature);

/* What encoding needs beside the SAE; one thread at a time, any number per SAE.  env is copied. */
typedef struct lp_encoder lp_encoder;
lp_status lp_encoder_new(lp_encoder **out, const lp_sae *s, lp_arithmetic a, const lp_env *env, lp_error *err);
void lp_encoder_free(lp_encoder *e); /* NULL is fine */
const lp_sae *lp_encoder_sae(const lp_encoder *e);

/* x [n][d_in] -> *out, which is emptied first and keeps its memory.  A row with a NaN or infinity in it is
 * LP_E_RANGE. */
lp_status lp_encode(lp_features *out, lp_encoder *e, const float *x, int n, lp_error *err);

/* The pre-activations themselves (after bias, before any threshold): out [n][d_sae].  For looking below thresholds. */
lp_status lp_encode_dense(float *out, lp_encoder *e, const float *x, int n, lp_error *err);

/* out [n][d_out] = the reconstruction of f.  x [n][d_in]: what f was encoded from; needed where the SAE normalises rows
 * or has a skip matrix, else may be NULL. */
void lp_decode(float *out, lp_encoder *e, const lp_features *f, const float *x);

/* The length a feature of value 1 adds along its decoder row when f of row x [d_in] is decoded: 1, but for a topk SAE that
 * rescales (1 / |d|), and for one that normalises rows (the norm taken out).  What a change of f by c is worth in x. */
double lp_decoder_scale(const lp_sae *s, int feature, const float *x);

#endif
