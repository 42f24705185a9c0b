/* metrics.c - see metrics.h. */
#include "sae/metrics.h"

#include <math.h>
#include <stdlib.h>

lp_status lp_meter_new(lp_meter *m, const lp_sae *s, lp_error *err)
{
    *m = (lp_meter){.d_sae = s->d_sae, .d_out = s->d_out};
    m->sum = lp_calloc((size_t)s->d_out, sizeof *m->sum);
    m->fired = lp_calloc((size_t)s->d_sae, sizeof *m->fired);
    m->max = lp_calloc((size_t)s->d_sae, sizeof *m->max);
    if (m->sum && m->fired && m->max) return LP_OK;
    lp_meter_free(m);
    return lp_fail(err, LP_E_MEMORY, "%s: out of memory", s->name);
}

void lp_meter_free(lp_meter *m)
{
    if (!m) return;
    free(m->sum);
    free(m->fired);
    free(m->max);
    *m = (lp_meter){0};
}

void lp_meter_add(lp_meter *m, const lp_features *f, int row, const float *x, const float *made)
{
    double squares = 0, errors = 0, dot = 0, made_squares = 0;
    for (int i = 0; i < m->d_out; i++) {
        double a = (double)x[i], b = (double)made[i];
        m->sum[i] += a;
        squares += a * a;
        made_squares += b * b;
        dot += a * b;
        errors += (a - b) * (a - b);
    }
    double l0 = (double)(f->start[row + 1] - f->start[row]);
    m->n++;
    m->l0 += l0, m->l0_squares += l0 * l0;
    m->squares += squares;
    m->errors += errors, m->error_squares += errors * errors;
    if (squares > 0 && made_squares > 0) m->cosine += dot / sqrt(squares * made_squares);
    if (squares > 0) m->ratio += sqrt(made_squares / squares);
    for (size_t at = f->start[row]; at < f->start[row + 1]; at++) {
        int i = f->index[at];
        m->fired[i]++;
        if (f->value[at] > m->max[i]) m->max[i] = f->value[at];
    }
}

/* Half of a 95 % interval of a mean, from the sum and the sum of squares of n values. */
static double margin(double sum, double squares, double n)
{
    double mean = sum / n, variance = squares / n - mean * mean;
    return n > 1 && variance > 0 ? 1.96 * sqrt(variance / (n - 1)) : 0;
}

lp_quality lp_meter_read(const lp_meter *m)
{
    double n = (double)m->n, mean_squares = 0;
    uint64_t dead = 0, dense = 0;
    for (int i = 0; i < m->d_out; i++) mean_squares += m->sum[i] * m->sum[i];
    for (int i = 0; i < m->d_sae; i++) dead += m->fired[i] == 0, dense += 10 * m->fired[i] > m->n;
    if (m->n == 0) return (lp_quality){0, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
    double spread = m->squares - mean_squares / n; /* sum ||x - mean||^2 */
    lp_quality q = {.rows = m->n,
                    .l0 = m->l0 / n,
                    .fvu = m->errors / spread,
                    .cosine = m->cosine / n,
                    .l2_ratio = m->ratio / n,
                    .dead = (double)dead / m->d_sae,
                    .dense = (double)dense / m->d_sae};
    double l0 = margin(m->l0, m->l0_squares, n), error = margin(m->errors, m->error_squares, n) * n / spread;
    q.l0_low = q.l0 - l0, q.l0_high = q.l0 + l0;
    q.fvu_low = q.fvu - error, q.fvu_high = q.fvu + error;
    return q;
}
