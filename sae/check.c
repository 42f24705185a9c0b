/* check.c - see check.h.
 *
 * The bounds.  Right pairings: L0 on another text is within a factor of 2 of the declared one (measured by others on Gemma
 * Scope: 12.8 for 12, 81 for 85, 66.6 for 71, 88 for 82), and FVU is between 0.1 and 0.6.  Wrong ones, of the same facts:
 * L0 8 for 85 and FVU 9.8 (the raw MLP output), L0 19 for 12 (a transcoder's input with the gain), L0 664.  So a factor
 * above 3 or an FVU above 1 is wrong, and what lies between is doubtful.
 */
#include "sae/check.h"

#include "sae/reader.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define L0_DOUBTFUL  1.5
#define L0_WRONG     3.0
#define FVU_DOUBTFUL 0.7
#define FVU_WRONG    1.0

const char *lp_verdict_name(lp_verdict v)
{
    static const char *const names[] = {"ok", "doubtful", "wrong"};
    return names[v];
}

void lp_check_judge(lp_check *k, double declared_l0)
{
    const lp_quality *q = &k->quality;
    double far = declared_l0 > 0 && q->l0 > 0 ? fabs(log(q->l0 / declared_l0)) : 0;
    bool is_silent = q->l0 == 0;
    k->verdict = LP_SAE_RIGHT;
    k->why[0] = 0;
    if (far > log(L0_DOUBTFUL) || q->fvu > FVU_DOUBTFUL) k->verdict = LP_SAE_DOUBTFUL;
    if (far > log(L0_WRONG) || !(q->fvu < FVU_WRONG) || is_silent) k->verdict = LP_SAE_WRONG;
    if (k->verdict == LP_SAE_RIGHT) return;
    char declared[40] = "";
    if (declared_l0 > 0) snprintf(declared, sizeof declared, " (declared %.0f)", declared_l0);
    snprintf(k->why, sizeof k->why, "L0 %.1f%s and FVU %.2f: %s", q->l0, declared, q->fvu,
             k->verdict == LP_SAE_WRONG ? "not the tensor it was trained on; another layer, site or model?"
                                        : "off for a text like this; is it the right layer, site and model?");
}

static lp_status run_piece(lp_session *s, const int *ids, size_t n, void *user, lp_error *err)
{
    return lp_reader_explain(user, lp_session_eval(s, ids, n, err), err);
}

lp_status lp_sae_meter(lp_meter *meters, lp_session *s, const lp_sae *const *saes, int n, const lp_passage *p,
                       lp_error *err)
{
    static const uint8_t first = 1; /* the position of <bos> */
    lp_reader_options o = {.meters = meters, .leave = &first, .n_leave = p->has_bos, .keeps_nothing = 1};
    lp_reader *r = NULL;
    LP_TRY(lp_reader_new(&r, s, saes, n, &o, err));
    lp_status st = lp_passage_run(p, s, run_piece, r, err);
    lp_reader_free(r);
    return st;
}

lp_status lp_sae_check(lp_check *checks, lp_session *s, const lp_sae *const *saes, int n, const lp_passage *p,
                       lp_error *err)
{
    lp_meter *meters = lp_calloc((size_t)(n ? n : 1), sizeof *meters);
    lp_status st = meters ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; i < n && st == LP_OK; i++) st = lp_meter_new(&meters[i], saes[i], err);
    if (st == LP_OK) st = lp_sae_meter(meters, s, saes, n, p, err);
    for (int i = 0; i < n && st == LP_OK; i++) {
        checks[i] = (lp_check){.quality = lp_meter_read(&meters[i])};
        lp_check_judge(&checks[i], saes[i]->declared_l0);
    }
    for (int i = 0; meters && i < n; i++) lp_meter_free(&meters[i]);
    free(meters);
    return st;
}
