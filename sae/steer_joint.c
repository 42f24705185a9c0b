/* steer_joint.c - see steer.h: amounts by which several features, encoded again, have the values asked for.
 *
 * Clamping one feature moves the others, for decoder rows are not orthogonal to encoder columns.  Without normalisation
 * a standard or jumprelu SAE is linear up to its threshold, so with W_enc[:,i] = w_i:
 *
 *     pre_i(y + sum_j c_j d_j) = pre_i(y) + sum_j G_ij c_j,    G_ij = w_i . d_j
 *
 * A target t > threshold_i (and > 0) is the equation pre_i' = t.  A target 0 is the inequality pre_i' <= threshold_i
 * (or 0, whichever is larger: the feature does not fire there); it costs nothing while it holds and becomes an
 * equation, a little below the threshold, once the others' solution breaks it (an active set that only grows).  Values
 * between are reached by no y.
 *
 * The equations are solved by Gaussian elimination in double, partial pivoting, rows scaled to their largest entry.  A
 * column left with nothing above DEPENDENT of what it had is nearly a sum of the columns before it: its amount would be
 * large, and the rounding of x' to float (6e-8 of it) would eat the 1e-4 promised.  That feature is left out and the
 * rest is solved again.
 */
#include "sae/steer_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double DEPENDENT = 1e-3;

struct lp_joint {
    int n, width;
    double *g;       /* [n][n]     */
    float *w;        /* [n][width] */
    double *bias;    /* [n] b_enc, less b_dec . w where the SAE subtracts it */
    double *limit;   /* [n] does not fire up to here: max(threshold, 0)      */
    double *w_norm;  /* [n] */
    double *pre;     /* [n] of y */
    double *a;       /* [n][n + 1] equations being solved */
    int *who, *pick; /* [n] features with an equation; pivot rows */
    bool *is_out;    /* [n] no longer asked */
};

static double dot(const float *a, const float *b, int n)
{
    double s = 0;
    for (int i = 0; i < n; i++) s += (double)a[i] * (double)b[i];
    return s;
}

bool lp_joint_is_linear(const lp_sae *s)
{
    return (s->kind == LP_SAE_STANDARD || s->kind == LP_SAE_JUMPRELU) && s->norm == LP_SAE_NORM_NONE;
}

static void fill(lp_joint *j, const lp_sae *const *saes, const int *features, float *row)
{
    int n = j->n, width = j->width;
    for (int i = 0; i < n; i++) {
        const lp_sae *s = saes[i];
        float *w = j->w + (size_t)i * (size_t)width;
        lp_sae_encoder_row(s, features[i], w);
        j->bias[i] = (double)s->b_enc[features[i]] - (s->subtracts_bias ? dot(s->b_dec, w, width) : 0);
        j->limit[i] = s->kind == LP_SAE_JUMPRELU ? fmax((double)s->threshold[features[i]], 0) : 0;
        j->w_norm[i] = sqrt(dot(w, w, width));
    }
    for (int k = 0; k < n; k++) {
        lp_sae_decoder_row(saes[k], features[k], row);
        for (int i = 0; i < n; i++)
            j->g[(size_t)i * (size_t)n + (size_t)k] = dot(j->w + (size_t)i * (size_t)width, row, width);
    }
}

lp_status lp_joint_new(lp_joint **out, const lp_sae *const *saes, const int *features, int n, lp_error *err)
{
    if (n > LP_JOINT_FEATURES)
        return lp_fail(err, LP_E_RANGE, "%d joint clamps at one place; at most %d are solved together", n,
                       (int)LP_JOINT_FEATURES);
    lp_joint *j = lp_calloc(1, sizeof *j);
    if (!j) return lp_fail(err, LP_E_MEMORY, "out of memory");
    size_t N = (size_t)n, width = n ? (size_t)saes[0]->d_in : 0;
    j->n = n, j->width = (int)width;
    float *row = lp_calloc(width + 1, sizeof *row);
    j->g = lp_calloc(N * N + 1, sizeof *j->g);
    j->w = lp_calloc(N * width + 1, sizeof *j->w);
    j->bias = lp_calloc(4 * N + 1, sizeof *j->bias);
    j->a = lp_calloc(N * (N + 1) + 1, sizeof *j->a);
    j->who = lp_calloc(N + 1, sizeof *j->who);
    j->pick = lp_calloc(N + 1, sizeof *j->pick);
    j->is_out = lp_calloc(N + 1, sizeof *j->is_out);
    if (!row || !j->g || !j->w || !j->bias || !j->a || !j->who || !j->pick || !j->is_out) {
        free(row);
        lp_joint_free(j);
        return lp_fail(err, LP_E_MEMORY, "no memory for %d joint clamps", n);
    }
    j->limit = j->bias + N, j->w_norm = j->limit + N, j->pre = j->w_norm + N;
    fill(j, saes, features, row);
    free(row);
    *out = j;
    return LP_OK;
}

void lp_joint_free(lp_joint *j)
{
    if (!j) return;
    free(j->g);
    free(j->w);
    free(j->bias);
    free(j->a);
    free(j->who);
    free(j->pick);
    free(j->is_out);
    free(j);
}

/* ---- one row ----------------------------------------------------------------------------------------------------- */

/* The row below `from`, of those not yet used, with the largest entry in a column. */
static int find_pivot(const double *a, const int *order, int m, int column)
{
    int best = column;
    for (int r = column + 1; r < m; r++)
        if (fabs(a[(size_t)order[r] * (size_t)(m + 1) + (size_t)column]) >
            fabs(a[(size_t)order[best] * (size_t)(m + 1) + (size_t)column]))
            best = r;
    return best;
}

/* a [m][m + 1], the right side last, is solved for c [m].  -1: done; else the column that is nearly a sum of those
 * before it. */
static int eliminate(double *a, double *c, int *order, int m)
{
    size_t wide = (size_t)m + 1;
    for (int i = 0; i < m; i++) order[i] = i;
    for (int k = 0; k < m; k++) {
        int best = find_pivot(a, order, m, k), swap = order[k];
        order[k] = order[best], order[best] = swap;
        const double *p = a + (size_t)order[k] * wide;
        if (!(fabs(p[k]) > DEPENDENT * c[k])) return k; /* c[k]: the column's largest entry at the beginning */
        for (int r = k + 1; r < m; r++) {
            double *q = a + (size_t)order[r] * wide, times = q[k] / p[k];
            for (int i = k; i <= m && times != 0; i++) q[i] -= times * p[i];
        }
    }
    for (int k = m - 1; k >= 0; k--) {
        const double *p = a + (size_t)order[k] * wide;
        double sum = p[m];
        for (int i = k + 1; i < m; i++) sum -= p[i] * c[i];
        c[k] = sum / p[k];
    }
    return -1;
}

/* The equations of the features j->who [m], their rows scaled; c [m] becomes the columns' largest entries. */
static void write_down(const lp_joint *j, const double *value, double *c, int m)
{
    size_t wide = (size_t)m + 1;
    for (int k = 0; k < m; k++) c[k] = 0;
    for (int r = 0; r < m; r++) {
        double *row = j->a + (size_t)r * wide, most = 0;
        for (int k = 0; k < m; k++) {
            row[k] = j->g[(size_t)j->who[r] * (size_t)j->n + (size_t)j->who[k]];
            most = fmax(most, fabs(row[k]));
        }
        row[m] = value[j->who[r]] - j->pre[j->who[r]];
        for (int k = 0; k <= m && most > 0; k++) row[k] /= most;
        for (int k = 0; k < m; k++) c[k] = fmax(c[k], fabs(row[k]));
    }
}

/* Solves for as many of j->who [*m] as can be; those that cannot leave the list. */
static void solve_some(lp_joint *j, lp_steer_status *status, const double *value, double *c, int *m)
{
    for (;;) {
        write_down(j, value, c, *m);
        int bad = eliminate(j->a, c, j->pick, *m);
        if (bad < 0) return;
        status[j->who[bad]] = LP_STEER_DEPENDENT;
        j->is_out[j->who[bad]] = true;
        memmove(j->who + bad, j->who + bad + 1, (size_t)(*m - bad - 1) * sizeof *j->who);
        --*m;
    }
}

/* Adds the features that are to be silent and would fire now; false: there are none. */
static bool add_broken(lp_joint *j, const double *target, const bool *is_on, const bool *is_in, const double *c)
{
    bool any = false;
    for (int i = 0; i < j->n; i++) {
        if (!is_on[i] || target[i] != 0 || is_in[i] || j->is_out[i]) continue;
        double pre = j->pre[i];
        for (int k = 0; k < j->n; k++) pre += j->g[(size_t)i * (size_t)j->n + (size_t)k] * c[k];
        if (pre <= j->limit[i]) continue;
        j->pick[i] = 1;
        any = true;
    }
    return any;
}

static void set_up(lp_joint *j, lp_steer_status *status, double *value, const double *y, const double *target,
                   const bool *is_on)
{
    double length = 0;
    for (int i = 0; i < j->width; i++) length += y[i] * y[i];
    length = sqrt(length);
    for (int i = 0; i < j->n; i++) {
        const float *w = j->w + (size_t)i * (size_t)j->width;
        j->pre[i] = j->bias[i];
        for (int k = 0; k < j->width; k++) j->pre[i] += (double)w[k] * y[k];
        bool is_below = target[i] != 0 && !(target[i] > j->limit[i]);
        status[i] = is_below ? LP_STEER_BELOW_THRESHOLD : LP_STEER_REACHED;
        j->is_out[i] = !is_on[i] || is_below;
        /* As far below as float sums of this length may err, so that it stays silent when encoded. */
        value[i] = target[i] != 0 ? target[i] : j->limit[i] - (1e-4 * j->limit[i] + 1e-5 * j->w_norm[i] * length);
    }
}

void lp_joint_solve(double *c, lp_steer_status *status, lp_joint *j, const double *y, const double *target,
                    const bool *is_on)
{
    double value[LP_JOINT_FEATURES], part[LP_JOINT_FEATURES];
    bool is_in[LP_JOINT_FEATURES] = {false};
    set_up(j, status, value, y, target, is_on);
    for (int i = 0; i < j->n; i++) is_in[i] = is_on[i] && !j->is_out[i] && target[i] != 0, c[i] = 0;
    for (;;) {
        int m = 0;
        for (int i = 0; i < j->n; i++)
            if (is_in[i]) j->who[m++] = i;
        solve_some(j, status, value, part, &m);
        for (int i = 0; i < j->n; i++) c[i] = 0, j->pick[i] = 0, is_in[i] = is_in[i] && !j->is_out[i];
        for (int k = 0; k < m; k++) c[j->who[k]] = part[k];
        if (!add_broken(j, target, is_on, is_in, c)) return;
        for (int i = 0; i < j->n; i++) is_in[i] = is_in[i] || j->pick[i];
    }
}
