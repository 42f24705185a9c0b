/* analyse.c - see analyse.h. */
#include "sae/analyse.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* y [n][w->rows] = x [n][w->cols] w^T. */
static lp_status multiply(float *y, const lp_matrix *w, const float *x, int n, const lp_env *env, lp_error *err)
{
    lp_matmul_scratch *scratch = NULL;
    LP_TRY(lp_matmul_scratch_new(&scratch, n, w->cols, lp_pool_threads(env ? env->pool : NULL), err));
    lp_matmul(&y, &w, 1, x, n, LP_EXACT, scratch, env);
    lp_matmul_scratch_free(scratch);
    return LP_OK;
}

static bool is_added(lp_site site)
{
    return site == LP_RESID_POST || site == LP_RESID_MID || site == LP_RESID_PRE || site == LP_MLP_OUT ||
           site == LP_ATTN_OUT || site == LP_EMBED;
}

lp_status lp_sae_route(lp_route *out, const lp_sae *s, const lp_model *m, lp_error *err)
{
    int layer = s->spot.layer_out;
    if (is_added(s->spot.site_out) && s->d_out == m->config.d_model)
        *out = LP_ROUTE_ADDED;
    else if (s->spot.site_out == LP_Z && layer >= 0 && layer < m->config.n_layers &&
             m->layers[layer].o.cols == s->d_out)
        *out = LP_ROUTE_HEADS;
    else
        return lp_fail(err, LP_E_UNSUPPORTED,
                       "%s writes to %s, which is not added to the residual stream of this model", s->name,
                       s->spot.site_out == LP_N_SITES ? "an unknown site" : lp_site_name(s->spot.site_out));
    return LP_OK;
}

lp_status lp_feature_directions(float *out, const lp_sae *s, const int *features, int n, const lp_model *m,
                                const lp_env *env, lp_error *err)
{
    lp_route route;
    size_t width = (size_t)s->d_out;
    for (int i = 0; i < n; i++)
        if (features[i] < 0 || features[i] >= s->d_sae)
            return lp_fail(err, LP_E_RANGE, "feature %d: %s has features 0 to %d", features[i], s->name, s->d_sae - 1);
    LP_TRY(lp_sae_route(&route, s, m, err));
    float *rows = route == LP_ROUTE_ADDED ? out : lp_calloc((size_t)n * width, sizeof *rows);
    if (!rows) return lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; i < n; i++) lp_sae_decoder_row(s, features[i], rows + (size_t)i * width);
    if (route == LP_ROUTE_ADDED) return LP_OK;
    lp_status st = multiply(out, &m->layers[s->spot.layer_out].o, rows, n, env, err);
    free(rows);
    return st;
}

lp_status lp_feature_direction(float *out, const lp_sae *s, int feature, const lp_model *m, const lp_env *env,
                               lp_error *err)
{
    return lp_feature_directions(out, s, &feature, 1, m, env, err);
}

lp_status lp_logit_effect(float *e, const float *v, lp_effect kind, const lp_model *m, const lp_env *env, lp_error *err)
{
    int D = m->config.d_model;
    if (kind == LP_EFFECT_PLAIN) return multiply(e, &m->embed, v, 1, env, err);
    float *gained = lp_calloc((size_t)D, sizeof *gained);
    if (!gained) return lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; i < D; i++) gained[i] = v[i] * m->final_gain[i];
    lp_status st = multiply(e, &m->embed, gained, 1, env, err);
    free(gained);
    return st;
}

static double dot(const float *a, const float *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

int lp_scored_insert(lp_scored *best, int n, int k, lp_scored x)
{
    if (n == k && !(x.score > best[n - 1].score)) return n;
    int at = n < k ? n++ : n - 1;
    for (; at > 0 && best[at - 1].score < x.score; at--) best[at] = best[at - 1];
    best[at] = x;
    return n;
}

int lp_feature_nearest(lp_scored *out, int k, const lp_sae *s, const float *v, int except)
{
    double length = sqrt(dot(v, v, s->d_out));
    float *row = lp_calloc((size_t)s->d_out, sizeof *row);
    int n = 0;
    for (int i = 0; row && k > 0 && length > 0 && isfinite(length) && i < s->d_sae; i++) {
        if (i == except || !(s->dec_norm[i] > 0) || isinf(s->dec_norm[i])) continue;
        lp_sae_decoder_row(s, i, row);
        n = lp_scored_insert(out, n, k,
                             (lp_scored){i, (float)(dot(row, v, s->d_out) / (length * (double)s->dec_norm[i]))});
    }
    free(row);
    return n;
}
