/* verify.h - is this model, on this machine, computed as promised?
 *
 * Two questions.  How far is every site from a reference, that is from tensors somebody else's program computed with the
 * same weights (tests/goldens/make_reference.py: Hugging Face transformers, eager, float32)?  And do the same tokens
 * give the same bits however they are cut, whoever watches, on any number of threads and any kernel table?
 */
#ifndef LP_CORE_VERIFY_H
#define LP_CORE_VERIFY_H

#include "core/session.h"

/* ---- against a reference -------------------------------------------------------------------------------------- */

/* ||a - b|| / ||b|| of rows at one site, over all layers, prompts and models given.  NaN counts as infinity. */
typedef struct lp_site_errors {
    double *rows; /* [n], as they came */
    size_t n, capacity;
    double worst;
    int worst_layer, worst_pos;
    char worst_in[64]; /* the label of that call */
} lp_site_errors;

typedef struct lp_errors { /* all zero is an empty one */
    lp_site_errors site[LP_N_SITES];
} lp_errors;

/* Runs the tokens of tensor `ids` (I64, I32 or F32) and compares what passes with tensors PREFIX"SITE", named by
 * lp_site_tensor_name: [n, ...], scores and pattern [n, heads, n], where only the keys a query may see are compared and
 * the others must be -inf and 0.  Adds to *e.  Every such tensor must be met, else LP_E_SHAPE; LP_E_NOT_FOUND: no ids. */
lp_status lp_errors_measure(lp_errors *e, const char *label, const lp_model *m, const lp_tensors *reference,
                            const char *ids, const char *prefix, const lp_session_options *o, const lp_env *env,
                            lp_error *err);
double lp_site_errors_median(const lp_site_errors *s); /* 0 for none; NaN out of memory */
void lp_errors_clear(lp_errors *e);

/* ---- against itself ------------------------------------------------------------------------------------------- */

enum { LP_MAX_CHECKS = 24 };

typedef struct lp_check {
    char name[48];   /* "one token at a time"                                            */
    uint64_t floats; /* compared, bit for bit                                            */
    bool same;
    char difference[96]; /* the first, when not the same                                    */
} lp_check;

/* Evaluates the n tokens again and again, each time in another way, and compares the stream after every layer, and the
 * logits of every row, with the first time.  The slow C table is given the first three tokens only, which is enough: a
 * row does not depend on later ones. */
lp_status lp_verify_itself(lp_check *out, int *n_checks, const lp_model *m, const int *ids, int n,
                           const lp_session_options *o, const lp_env *env, lp_error *err);

#endif
