/* lens.c - see lens.h. */
#include "core/lens.h"

#include "core/kernels.h"

#include <math.h>
#include <stdlib.h>

enum { ROWS_AT_ONCE = 8 }; /* rows of logits held: 8 MB for 256 000 tokens */

static void read_row(lp_lens_row *r, const float *logits, int vocab, int k, int token)
{
    double norm = lp_log_sum_exp(logits, vocab), entropy = 0;
    r->n_top = lp_top_k(r->top, k, logits, vocab);
    for (int i = 0; i < r->n_top; i++) r->top[i].score = lp_expf(lp_logprob(r->top[i].score, norm));
    r->rank = token < 0 ? -1 : 0;
    r->p = token < 0 ? 0 : lp_expf(lp_logprob(logits[token], norm));
    for (int i = 0; i < vocab; i++) {
        float log_p = lp_logprob(logits[i], norm), p = lp_expf(log_p);
        if (p > 0) entropy -= (double)p * (double)log_p;
        if (token >= 0) r->rank += logits[i] > logits[token] || (logits[i] == logits[token] && i < token);
    }
    r->entropy = (float)(entropy / 0.69314718055994530942);
}

lp_status lp_lens_read(lp_lens_row *rows, lp_scored *top, lp_session *s, const float *x, int n, int k, int token,
                       lp_error *err)
{
    const lp_config *c = &lp_session_model(s)->config;
    if (token >= c->vocab) return lp_fail(err, LP_E_RANGE, "token %d, but ids go from 0 to %d", token, c->vocab - 1);
    if (k < 0 || k > c->vocab) return lp_fail(err, LP_E_RANGE, "%d best tokens of %d", k, c->vocab);
    float *logits = lp_calloc((size_t)ROWS_AT_ONCE * (size_t)c->vocab, sizeof *logits);
    if (!logits) return lp_fail(err, LP_E_MEMORY, "no memory for %d rows of logits", ROWS_AT_ONCE);
    lp_status st = LP_OK;
    for (int at = 0; at < n && st == LP_OK; at += ROWS_AT_ONCE) {
        int count = n - at < ROWS_AT_ONCE ? n - at : ROWS_AT_ONCE;
        st = lp_session_unembed(s, x + (size_t)at * (size_t)c->d_model, count, logits, err);
        for (int i = 0; st == LP_OK && i < count; i++) {
            rows[at + i].top = top + (size_t)(at + i) * (size_t)k;
            read_row(&rows[at + i], logits + (size_t)i * (size_t)c->vocab, c->vocab, k, token);
        }
    }
    free(logits);
    return st;
}
