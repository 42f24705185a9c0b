/* reader.h - SAEs at work on a session: what passes their sites is encoded as it passes.
 *
 *     lp_reader_new(&r, s, saes, n, NULL, &err);
 *     st = lp_session_eval(s, ids, n_ids, &err);           prompt and generated tokens alike
 *     st = lp_reader_explain(r, st, &err);
 *     f = lp_reader_features(r, 0);                         row p is position lp_reader_first(r) + p
 *
 * Nothing dense is kept: a wave's rows go through the encoder inside the hook, on the pool that runs the model, and only
 * what fires stays.  A position that is evaluated again (after a rewind) is encoded again and takes the place of the old
 * one and of all that came after.
 *
 * Meters are optional.  They compare each row with its reconstruction; the row of a transcoder is what the MLP adds,
 * which passes later in the same layer.
 */
#ifndef LP_SAE_READER_H
#define LP_SAE_READER_H

#include "core/session.h"
#include "sae/encode.h"
#include "sae/metrics.h"

typedef struct lp_reader lp_reader;

typedef struct lp_reader_options {
    lp_meter *meters;     /* [n], one an SAE, borrowed; NULL: nothing is compared                                  */
    const uint8_t *leave; /* [n_leave] 1: this position is encoded but left out of the meters (<bos>, a template).
                             Borrowed; positions beyond count.  May be changed between evaluations                 */
    int n_leave;
    int keeps_nothing; /* 1: features are only metered, not kept                                                   */
} lp_reader_options;

/* Hooks the sites of n SAEs.  LP_E_SHAPE, LP_E_NOT_FOUND: an SAE's site is not known, its layer is not in the model, or
 * its width is another than the site's; the text says which SAE and what would fit.  saes and the session outlive it. */
lp_status lp_reader_new(lp_reader **out, lp_session *s, const lp_sae *const *saes, int n, const lp_reader_options *o,
                        lp_error *err);
void lp_reader_free(lp_reader *r); /* unhooks; NULL is fine */

/* What an evaluation under the reader came to: its own error where it stopped the evaluation, else `st`. */
lp_status lp_reader_explain(lp_reader *r, lp_status st, lp_error *err);

const lp_features *lp_reader_features(const lp_reader *r, int sae); /* borrowed; changes with every evaluation */
int lp_reader_first(const lp_reader *r);                            /* position of row 0                       */

/* Does the SAE fit the model: site known, layer there, widths equal?  (lp_reader_new asks the same.) */
lp_status lp_sae_fits(const lp_sae *s, const lp_config *c, lp_error *err);

#endif
