/* Whole dictionaries: what the blocks keep is what lp_feature_nearest and lp_logit_effect say of each feature, whatever the
 * blocks are, within the rounding of an f32 sum; and what has no direction, or is no number, is near nothing.
 *
 * (Against numpy in float64, on the shipped SAEs: goldens/check_dense.py.)
 */
#include "sae/dense.h"

#include "tests/steered.h"

/* An f32 sum of d products of two rows is off by less than d roundings, each 2^-24 of the product of their lengths. */
static double tolerance(int d)
{
    return d * 0x1p-24;
}

/* The same, in places whose figures differ by no more than the tolerance other ids may stand. */
static void same_list(const lp_scored *got, const lp_scored *want, int n, int k, double tol)
{
    for (int i = 0; i < k; i++) {
        if (i >= n) {
            CHECK(got[i].id == -1 && isnan(got[i].score));
            continue;
        }
        CHECK_NEAR(got[i].score, want[i].score, tol);
        CHECK(got[i].id == want[i].id || fabs((double)want[i].score - (double)got[i].score) <= tol);
        CHECK(got[i].id >= 0 && (i == 0 || got[i - 1].score >= got[i].score));
        for (int j = 0; j < i; j++) CHECK(got[j].id != got[i].id);
    }
}

/* ---- nearness ---------------------------------------------------------------------------------------------------- */

static void as_nearest(const lp_sae *a, const lp_sae *b, const lp_dense_options *o)
{
    int n = o->which ? o->n : a->d_sae, k = o->k;
    lp_scored *got = lp_calloc((size_t)n * (size_t)k, sizeof *got), *want = lp_calloc((size_t)k, sizeof *want);
    float *v = lp_calloc((size_t)a->d_out, sizeof *v);
    lp_error err = {0};
    if (lp_dense_nearest(got, a, b, o, NULL, &err) != LP_OK) fprintf(stderr, "%s\n", err.text), exit(1);
    for (int i = 0; i < n; i++) {
        int feature = o->which ? o->which[i] : i;
        lp_sae_decoder_row(a, feature, v);
        int found = lp_feature_nearest(want, k, b, v, a == b ? feature : -1);
        same_list(got + (size_t)i * (size_t)k, want, found, k, tolerance(a->d_out));
    }
    free(got), free(want), free(v);
}

static void nearest(void)
{
    static const int blocks[] = {0, 1, 7, 47, 48, 1000}, keeps[] = {1, 5, 47, 60}; /* 60: more than there are */
    for (int b = 0; b < 6; b++)
        for (int k = 0; k < 4; k++) {
            lp_dense_options o = {.k = keeps[k], .rows = blocks[b]};
            as_nearest(saes[RES1], saes[RES1], &o);
            as_nearest(saes[RES1], saes[CODER], &o);
        }
    as_nearest(saes[TWINS], saes[TWINS], &(lp_dense_options){.k = 3, .rows = 10});
    int some[] = {40, 3, 3, 47};
    lp_dense_options o = {.k = 4, .rows = 3, .which = some, .n = 4};
    as_nearest(saes[RES1], saes[RES1], &o);
    as_nearest(saes[RES1], saes[Z1], &o);
    o.n = 0, as_nearest(saes[RES1], saes[RES1], &o);
}

/* Row i is the axis i % 8: cosines are 0 and 1 exactly, and equals stand in the order of ids. */
static void axes(float *enc, float *dec, const shape *s)
{
    (void)enc;
    memset(dec, 0, (size_t)s->d_sae * (size_t)s->d_out * sizeof *dec);
    for (int i = 0; i < s->d_sae; i++) dec[i * s->d_out + i % 8] = (float)(i + 1);
}

static void equals_by_id(void)
{
    shape one = {"axes", "jumprelu", "blocks.1.hook_resid_post", NULL, NULL, PLAIN_D, S, PLAIN_D, 0.3f, axes};
    lp_sae *s = make_sae(&one);
    for (int rows = 1; rows <= S; rows += 9) {
        enum { K = 8 };
        lp_scored got[S * K];
        lp_dense_options o = {.k = K, .rows = rows};
        CHECK(lp_dense_nearest(got, s, s, &o, NULL, NULL) == LP_OK);
        for (int i = 0; i < S; i++) {
            int want[K], n = 0;
            for (int j = i % 8; j < S; j += 8)
                if (j != i) want[n++] = j;
            CHECK(n == 5);
            for (int j = 0; n < K; j++)
                if (j % 8 != i % 8) want[n++] = j;
            for (int k = 0; k < K; k++)
                CHECK(got[i * K + k].id == want[k] && got[i * K + k].score == (k < 5 ? 1.0f : 0.0f));
        }
    }
    lp_sae_close(s);
}

enum { ZERO = 3, NOT_A_NUMBER = 11, INFINITE = 12, HUGE = 20, TINY = 30 };

static void odd_rows(float *enc, float *dec, const shape *s)
{
    (void)enc;
    memset(dec + ZERO * s->d_out, 0, (size_t)s->d_out * sizeof *dec);
    dec[NOT_A_NUMBER * s->d_out + 2] = NAN;
    dec[INFINITE * s->d_out + 1] = INFINITY;
    for (int i = 0; i < s->d_out; i++) dec[HUGE * s->d_out + i] *= 1e30f, dec[TINY * s->d_out + i] *= 1e-30f;
}

static bool is_near_nothing(int i)
{
    return i == ZERO || i == NOT_A_NUMBER || i == INFINITE;
}

/* The cosine of two rows in double, from the SAE alone. */
static double cosine(const lp_sae *s, int a, int b)
{
    float x[PLAIN_D], y[PLAIN_D];
    double xy = 0, xx = 0, yy = 0;
    lp_sae_decoder_row(s, a, x), lp_sae_decoder_row(s, b, y);
    for (int i = 0; i < PLAIN_D; i++) {
        xy += (double)x[i] * (double)y[i], xx += (double)x[i] * (double)x[i], yy += (double)y[i] * (double)y[i];
    }
    return xy / sqrt(xx) / sqrt(yy);
}

static lp_sae *odd_sae(void)
{
    shape odd = {"odd", "jumprelu", "blocks.1.hook_resid_post", NULL, NULL, PLAIN_D, S, PLAIN_D, 0.3f, odd_rows};
    return make_sae(&odd);
}

static void what_has_no_direction(void)
{
    lp_sae *s = odd_sae();
    as_nearest(s, s, &(lp_dense_options){.k = 9, .rows = 5});
    as_nearest(saes[RES1], s, &(lp_dense_options){.k = S, .rows = 20});
    for (int rows = 1; rows < 60; rows += 13) {
        lp_scored got[S * S];
        lp_dense_options o = {.k = S, .rows = rows};
        CHECK(lp_dense_nearest(got, s, s, &o, NULL, NULL) == LP_OK);
        for (int i = 0; i < S; i++) {
            int n = is_near_nothing(i) ? 0 : S - 3 - 1;
            for (int k = 0; k < S; k++) {
                lp_scored x = got[i * S + k];
                CHECK((x.id >= 0) == (k < n) && isnan(x.score) == (k >= n));
                if (k >= n) continue;
                CHECK(x.id != i && !is_near_nothing(x.id));
                CHECK_NEAR(x.score, cosine(s, i, x.id), tolerance(PLAIN_D));
            }
        }
    }
    lp_sae_close(s);
}

/* ---- effects ----------------------------------------------------------------------------------------------------- */

static void as_effects(const lp_model *m, const lp_sae *s, lp_effect kind, const lp_dense_options *o)
{
    int vocab = m->config.vocab, D = m->config.d_model, n = o->which ? o->n : s->d_sae, k = o->k;
    size_t cells = (size_t)n * (size_t)k;
    lp_scored *up = lp_calloc(cells, sizeof *up), *down = lp_calloc(cells, sizeof *down);
    lp_scored *want = lp_calloc((size_t)k, sizeof *want);
    float *v = lp_calloc((size_t)D, sizeof *v), *e = lp_calloc((size_t)vocab, sizeof *e);
    lp_error err = {0};
    if (lp_dense_effects(up, down, s, kind, m, o, NULL, &err) != LP_OK) fprintf(stderr, "%s\n", err.text), exit(1);
    for (int i = 0; i < n; i++) {
        double size = 0;
        CHECK(lp_feature_direction(v, s, o->which ? o->which[i] : i, m, NULL, NULL) == LP_OK);
        CHECK(lp_logit_effect(e, v, kind, m, NULL, NULL) == LP_OK);
        for (int j = 0; j < vocab; j++) size = fmax(size, fabs((double)e[j]));
        double tol = tolerance(D) * size * 16; /* a figure is a sum of larger numbers */
        int found = lp_top_k(want, k, e, vocab);
        same_list(up + (size_t)i * (size_t)k, want, found, k, tol);
        for (int j = 0; j < vocab; j++) e[j] = -e[j];
        lp_top_k(want, k, e, vocab);
        for (int j = 0; j < k; j++) {
            lp_scored *x = &down[(size_t)i * (size_t)k + (size_t)j];
            x->score = -x->score;
        }
        same_list(down + (size_t)i * (size_t)k, want, found, k, tol);
    }
    free(up), free(down), free(want), free(v), free(e);
}

static void effects(void)
{
    static const int blocks[] = {0, 1, 7, 160, 1000}, keeps[] = {1, 6, 200}, which[] = {RES1, CODER, Z1};
    for (int b = 0; b < 5; b++)
        for (int k = 0; k < 3; k++)
            for (int i = 0; i < 3; i++) {
                lp_dense_options o = {.k = keeps[k], .rows = blocks[b]};
                as_effects(model, saes[which[i]], (b + i) % 2 ? LP_EFFECT_GAINED : LP_EFFECT_PLAIN, &o);
            }
    int some[] = {44, 0, 44};
    as_effects(model, saes[Z1], LP_EFFECT_GAINED, &(lp_dense_options){.k = 5, .rows = 2, .which = some, .n = 3});
}

/* Of a row of zeros all tokens are equal; one with a NaN keeps none, and spoils nobody else's. */
static void effects_of_odd_rows(void)
{
    enum { K = 4 };
    lp_sae *s = odd_sae();
    int fine[] = {0, 10, 13, 19, 47};
    for (int rows = 5; rows < 60; rows += 18) {
        lp_scored up[S * K], down[S * K], alone_up[5 * K], alone_down[5 * K];
        lp_dense_options o = {.k = K, .rows = rows}, few = {.k = K, .rows = rows, .which = fine, .n = 5};
        CHECK(lp_dense_effects(up, down, s, LP_EFFECT_PLAIN, model, &o, NULL, NULL) == LP_OK);
        CHECK(lp_dense_effects(alone_up, alone_down, s, LP_EFFECT_PLAIN, model, &few, NULL, NULL) == LP_OK);
        for (int k = 0; k < K; k++) {
            CHECK(up[ZERO * K + k].id == k && up[ZERO * K + k].score == 0);
            CHECK(down[ZERO * K + k].id == k && down[ZERO * K + k].score == 0);
            CHECK(up[NOT_A_NUMBER * K + k].id == -1 && down[NOT_A_NUMBER * K + k].id == -1);
            for (int i = 0; i < 5; i++) {
                CHECK(up[fine[i] * K + k].id == alone_up[i * K + k].id);
                CHECK_NEAR(up[fine[i] * K + k].score, alone_up[i * K + k].score, 1e-5);
                CHECK(down[fine[i] * K + k].id == alone_down[i * K + k].id);
            }
        }
    }
    lp_sae_close(s);
}

/* The shipped ones, over several blocks of the default size. */
static void shipped(void)
{
    lp_model *m = NULL;
    lp_sae *a = NULL, *z = NULL;
    CHECK(lp_model_open(&m, LP_DATA_DIR "/base", NULL, NULL, NULL) == LP_OK);
    CHECK(lp_sae_open(&a, LP_DATA_DIR "/saes/res/layer_3/width_2k/average_l0_20", NULL, NULL, NULL) == LP_OK);
    CHECK(lp_sae_open(&z, LP_DATA_DIR "/saes/att/layer_3/width_2k/average_l0_24", NULL, NULL, NULL) == LP_OK);
    if (!m || !a || !z) exit(1);
    int some[] = {473, 0, 2047, 1000};
    lp_dense_options o = {.k = 10, .which = some, .n = 4};
    as_nearest(a, a, &o);
    as_nearest(a, z, &(lp_dense_options){.k = 3, .rows = 700, .which = some, .n = 4});
    as_effects(m, a, LP_EFFECT_PLAIN, &o);
    as_effects(m, z, LP_EFFECT_GAINED, &o);
    lp_scored *all = lp_calloc(2048 * 10, sizeof *all), *few = lp_calloc(4 * 10, sizeof *few);
    CHECK(lp_dense_nearest(all, a, a, &(lp_dense_options){.k = 10, .rows = 600}, NULL, NULL) == LP_OK);
    CHECK(lp_dense_nearest(few, a, a, &o, NULL, NULL) == LP_OK);
    for (int i = 0; i < 4; i++) same_list(all + some[i] * 10, few + i * 10, 10, 10, tolerance(a->d_out));
    free(all), free(few);
    lp_sae_close(a), lp_sae_close(z);
    lp_model_close(m);
}

/* ---- edges ------------------------------------------------------------------------------------------------------- */

typedef struct watcher {
    atomic_bool cancel;
    int calls, stops_at;
    int64_t last, of;
} watcher;

static void on_progress(void *user, const char *what, int64_t done, int64_t of)
{
    watcher *w = user;
    CHECK_STR(what, "comparing");
    CHECK(done >= w->last && done <= of);
    w->last = done, w->of = of;
    if (++w->calls == w->stops_at) atomic_store(&w->cancel, true);
}

static void interrupted(void)
{
    lp_scored out[S * 2], down[S * 2];
    lp_dense_options o = {.k = 2, .rows = 10};
    for (int stops_at = 0; stops_at < 4; stops_at++) {
        watcher w = {.stops_at = stops_at};
        lp_env env = {.cancel = &w.cancel, .progress = on_progress, .user = &w};
        lp_status want = stops_at ? LP_CANCELLED : LP_OK;
        CHECK(lp_dense_nearest(out, saes[RES1], saes[RES1], &o, &env, NULL) == want);
        CHECK(w.of == 15 && w.calls == (stops_at ? stops_at : 16) &&
              (stops_at || w.last == 15)); /* 5 blocks: 1 + .. + 5 */
        w = (watcher){.stops_at = stops_at};
        CHECK(lp_dense_effects(out, down, saes[RES1], LP_EFFECT_PLAIN, model, &o, &env, NULL) == want);
        CHECK(w.of == 5 * 16 && w.calls == (stops_at ? stops_at : 81));
    }
}

static void refused(lp_status st, lp_status want, const lp_error *err, const char *words)
{
    CHECK(st == want && err->status == want);
    if (!strstr(err->text, words)) fprintf(stderr, "%s\n", err->text);
    CHECK(strstr(err->text, words) != NULL);
}

static void what_is_refused(void)
{
    lp_scored out[8], down[8];
    lp_error err = {0};
    lp_dense_options o = {.k = 0};
    const lp_sae *s = saes[RES1];
    refused(lp_dense_nearest(out, s, s, &o, NULL, &err), LP_E_RANGE, &err, "at least 1");
    int wrong[] = {0, S};
    o = (lp_dense_options){.k = 1, .which = wrong, .n = 2};
    refused(lp_dense_nearest(out, s, s, &o, NULL, &err), LP_E_RANGE, &err, "feature 48: res1 has features 0 to 47");
    refused(lp_dense_effects(out, down, s, LP_EFFECT_PLAIN, model, &o, NULL, &err), LP_E_RANGE, &err, "feature 48");
    wrong[1] = 1;
    shape wide = {"wide", "jumprelu", "blocks.1.hook_resid_post", NULL, NULL, 40, S, 40, 0.3f, NULL};
    lp_sae *other = make_sae(&wide);
    refused(lp_dense_nearest(out, s, other, &o, NULL, &err), LP_E_SHAPE, &err,
            "res1 has decoder rows of 32, wide of 40");
    refused(lp_dense_effects(out, down, other, LP_EFFECT_PLAIN, model, &o, NULL, &err), LP_E_UNSUPPORTED, &err, "wide");
    lp_sae_close(other);
}

int main(void)
{
    if (!open_all()) return check_done();
    lp_dense_threads(2);
    nearest();
    equals_by_id();
    what_has_no_direction();
    effects();
    effects_of_odd_rows();
    shipped();
    interrupted();
    what_is_refused();
    close_all();
    return check_done();
}
