/* Steering on a small model: every kind of edit against its formula, how edits meet, what must not change a bit, what
 * is refused.
 *
 * Formulas are computed here in double from a tape of the place before the edit, with f from lp_encode; the row is
 * rounded to float once, so the tolerance is a few units in the last place, relative to the row's length.
 */
#include "tests/steered.h"

#define TOL 2e-7

/* ---- the kinds --------------------------------------------------------------------------------------------------- */

/* The formula of one edit in double, as recipe.h states it; g of steer.h for SAEs whose decoding scales rows. */
static void formula(double *want, int kind, double s, int which, int feature, const float *x, const float *input)
{
    const lp_sae *a = saes[which];
    lp_encoder *e = encoder(which);
    double f[S], g = 1, along = 0, squares = 0;
    float d[PLAIN_D];
    activations(f, e, input);
    lp_sae_decoder_row(a, feature, d);
    for (int i = 0; i < PLAIN_D; i++) along += (double)x[i] * (double)d[i], squares += (double)d[i] * (double)d[i];
    if (which == TOPK) g = 1 / sqrt(squares);
    if (which == LAYER) {
        double mean = 0, var = 0;
        for (int i = 0; i < PLAIN_D; i++) mean += (double)x[i] / PLAIN_D;
        for (int i = 0; i < PLAIN_D; i++) var += ((double)x[i] - mean) * ((double)x[i] - mean);
        g = sqrt(var / (PLAIN_D - 1));
    }
    double v = f[feature], c = 0;
    if (kind == LP_RECIPE_ADD) c = s;
    if (kind == LP_RECIPE_CLAMP) c = (s - v) * g;
    if (kind == LP_RECIPE_CLAMP_MIN) c = fmax(0, s - v) * g;
    if (kind == LP_RECIPE_CLAMP_MAX) c = fmin(0, s - v) * g;
    if (kind == LP_RECIPE_SCALE) c = (s - 1) * v * g;
    if (kind == LP_RECIPE_ABLATE) c = -v * g;
    if (kind == LP_RECIPE_PROJECT) c = s / sqrt(squares) - along / squares;
    for (int i = 0; i < PLAIN_D; i++) want[i] = (double)x[i] + c * (double)d[i];
    if (kind == LP_RECIPE_REPLACE) { /* decode(f + (s - f)): decoding is linear in f */
        lp_features all = {0};
        float y[PLAIN_D];
        CHECK(lp_encode(&all, e, input, 1, NULL) == LP_OK);
        lp_decode(y, e, &all, input);
        lp_features_free(&all);
        for (int i = 0; i < PLAIN_D; i++) want[i] = (double)y[i] + (s - v) * g * (double)d[i];
    }
    lp_encoder_free(e);
}

static void one_kind(int kind, double s, int which, int feature)
{
    char edit[300];
    run *got = lp_calloc(1, sizeof *got), *plain = lp_calloc(1, sizeof *plain);
    snprintf(edit, sizeof edit, "{\"layer\": \"%s\", \"index\": %d, \"kind\": \"%s\"%s%.9g}", saes[which]->name,
             feature, lp_recipe_kind_name((lp_recipe_kind)kind),
             kind == LP_RECIPE_ABLATE ? ", \"x_\": " : ", \"unit\": \"absolute\", \"strength\": ", s);
    lp_recipe r = recipe(edit, "\"modelId\": \"tiny\"");
    watch(got, &r, saes[which], N - 4);
    watch(plain, NULL, saes[which], N);
    CHECK_SAME(got->before, plain->before, N * PLAIN_D);
    double worst = 0, tol = kind == LP_RECIPE_REPLACE ? 2e-6 : TOL; /* its decoding sums S rows in float */
    for (int p = 0; p < N; p++) {
        double want[PLAIN_D];
        float *x = got->before + p * PLAIN_D, *y = got->after + p * PLAIN_D;
        if (ids[p] == model->config.bos) {
            CHECK(memcmp(x, y, PLAIN_D * sizeof *x) == 0);
            continue;
        }
        formula(want, kind, s, which, feature, x, got->input + p * PLAIN_D);
        worst = fmax(worst, row_error(want, y, PLAIN_D));
    }
    CHECK(worst <= tol);
    if (worst > tol) fprintf(stderr, "%s: off by %g\n", edit, worst);
    lp_recipe_clear(&r);
    free(got), free(plain);
}

static void kinds(void)
{
    static const int with[] = {RES1, CODER, TOPK, LAYER, STANDARD, Z1};
    for (size_t w = 0; w < sizeof with / sizeof *with; w++) {
        run *plain = lp_calloc(1, sizeof *plain);
        int often, seldom;
        watch(plain, NULL, saes[with[w]], N);
        pick_features(&often, &seldom, with[w], plain->input);
        for (int k = 0; k < LP_RECIPE_N_KINDS; k++)
            for (int i = 0; i < 2; i++) one_kind(k, i ? 3.25 : 0.4, with[w], i ? seldom : often);
        free(plain);
    }
}

/* ---- nothing to do: no bit changes ------------------------------------------------------------------------------- */

static void same_logits(const char *features, const char *more, const run *plain, bool same)
{
    lp_recipe r = recipe(features, more);
    run *got = lp_calloc(1, sizeof *got);
    watch(got, &r, saes[RES1], N);
    CHECK((memcmp(got->logits, plain->logits, sizeof got->logits) == 0) == same);
    if (same) CHECK_SAME(got->after, plain->after, N * PLAIN_D);
    if ((memcmp(got->logits, plain->logits, sizeof got->logits) == 0) != same)
        fprintf(stderr, "%s %s\n", features, more);
    lp_recipe_clear(&r);
    free(got);
}

static void nothing_to_do(void)
{
    run *plain = lp_calloc(1, sizeof *plain);
    watch(plain, NULL, saes[RES1], N);
    same_logits("", "", plain, true);
    same_logits("{\"layer\": \"res1\", \"index\": 3, \"strength\": 0}", "", plain, true);
    same_logits("{\"layer\": \"res1\", \"index\": 3, \"strength\": 0}", "\"keep_norm\": true", plain, true);
    same_logits("{\"layer\": \"res1\", \"index\": 3, \"kind\": \"scale\", \"strength\": 1}", "", plain, true);
    same_logits("{\"layer\": \"res1\", \"index\": 3, \"kind\": \"clamp_min\", \"strength\": 0}", "", plain, true);
    same_logits("{\"layer\": \"res1\", \"index\": 3, \"kind\": \"clamp_max\", \"strength\": 1e9}", "", plain, true);
    same_logits("{\"layer\": \"res1\", \"index\": 3, \"strength\": 5}", "\"scope\": {\"prompt\": false}", plain, true);
    same_logits("{\"layer\": \"res1\", \"index\": 3, \"strength\": 5, \"schedule\": {\"from\": 1}}", "", plain, true);
    same_logits("{\"layer\": \"res1\", \"index\": 3, \"strength\": 5, \"schedule\": {\"ramp\": 9}}", "", plain, true);
    same_logits("{\"layer\": \"res1\", \"index\": 3, \"strength\": 5, \"when\": {\"layer\": \"res0\", \"index\": 2, "
                "\"above\": 1e9}}",
                "", plain, true);
    same_logits("{\"layer\": \"res1\", \"index\": 3, \"strength\": 5}", "", plain, false);
    same_logits("{\"layer\": \"res1\", \"index\": 3, \"strength\": 0}", "\"error_term\": false", plain, false);
    free(plain);
}

/* ---- cuts, threads, rewinds -------------------------------------------------------------------------------------- */

static const char *const everything =
    "{\"layer\": \"res0\", \"index\": 5, \"kind\": \"clamp\", \"strength\": 3},"
    "{\"layer\": \"coder\", \"index\": 7, \"kind\": \"replace\", \"strength\": 2, \"schedule\": {\"ramp\": 3, "
    "\"decay\": 0.9}},"
    "{\"layer\": \"res1\", \"index\": 9, \"kind\": \"clamp\", \"strength\": 4, \"when\": {\"layer\": \"res0\", "
    "\"index\": 5,"
    " \"above\": 0.1}},"
    "{\"layer\": \"res1b\", \"index\": 3, \"kind\": \"project\", \"strength\": -2, \"scope\": {\"ranges\": [[2, 4], "
    "[8, 10]]}},"
    "{\"layer\": \"res1\", \"index\": 4, \"kind\": \"scale\", \"strength\": 2, \"scope\": {\"last_prompt\": true}},"
    "{\"layer\": \"res2\", \"index\": 0, \"strength\": -1.5, \"schedule\": {\"to\": 4, \"decay\": 0.5}}";

/* Logits after every token and the readings at the end, cut as told: `cut` tokens an evaluation, waves of `wave`. */
static void cut_run(float *logits, lp_steer_reading **readings, size_t *n, const lp_recipe *r, int cut, int wave,
                    int threads, int rewind_to)
{
    lp_pool *pool = NULL;
    CHECK(lp_pool_new(&pool, threads, NULL) == LP_OK);
    lp_env env = {.pool = pool};
    lp_session *s = new_session(model, &(lp_session_options){.wave = wave}, &env);
    lp_steer *st = steer(s, r, 5, 1);
    lp_tape tape = {.x = logits, .n_layers = 1, .n_pos = N, .width = V};
    CHECK(lp_session_hook(s, lp_tap(LP_LOGITS, LP_WHOLE_MODEL, &tape), NULL) > 0);
    for (int at = 0; at < N; at += cut) eval(s, st, ids + at, at + cut < N ? cut : N - at);
    if (rewind_to >= 0) {
        int wrong[] = {7, 8, 9}; /* a draft that is thrown away */
        CHECK(lp_session_rewind(s, rewind_to, NULL) == LP_OK);
        eval(s, st, wrong, N - rewind_to < 3 ? N - rewind_to : 3);
        CHECK(lp_session_rewind(s, rewind_to, NULL) == LP_OK);
        eval(s, st, ids + rewind_to, N - rewind_to);
    }
    CHECK(lp_steer_readback(readings, n, st, NULL) == LP_OK);
    lp_steer_free(st);
    lp_session_free(s);
    lp_pool_free(pool);
}

static void same_however_cut(const char *more)
{
    static const struct {
        int cut, wave, threads, rewind;
    } ways[] = {{1, 1, 1, -1}, {3, 2, 2, -1}, {N, 3, 7, -1}, {N, 0, 2, 4}, {2, 1, 1, 8}, {N, 0, 7, 0}, {4, 3, 2, 6}};
    lp_recipe r = recipe(everything, more);
    float *want = lp_calloc(N, V * sizeof *want), *got = lp_calloc(N, V * sizeof *got);
    lp_steer_reading *first, *other;
    size_t n, n_other;
    cut_run(want, &first, &n, &r, N, 0, 1, -1);
    CHECK(n > 20);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        cut_run(got, &other, &n_other, &r, ways[i].cut, ways[i].wave, ways[i].threads, ways[i].rewind);
        CHECK_SAME(got, want, N * V);
        CHECK(n_other == n);
        for (size_t k = 0; k < n && n == n_other; k++)
            CHECK(other[k].pos == first[k].pos && other[k].edit == first[k].edit &&
                  other[k].status == first[k].status && memcmp(&other[k].asked, &first[k].asked, sizeof(float)) == 0 &&
                  other[k].before == first[k].before && other[k].achieved == first[k].achieved);
        free(other);
    }
    lp_session *s = new_session(model, NULL, NULL); /* and that these are not the unsteered ones */
    eval(s, NULL, ids, N);
    CHECK(memcmp(want + (N - 1) * V, lp_session_logits(s), V * sizeof *want) != 0);
    lp_session_free(s);
    free(first), free(want), free(got);
    lp_recipe_clear(&r);
}

/* ---- how edits meet ---------------------------------------------------------------------------------------------- */

/* Rows of `which`'s place under a recipe, against what `add` makes of the row before and its features there. */
typedef void (*rule)(double *want, const double *f, const float *x, const lp_sae *s);

static void against(const char *features, const char *more, int which, rule r, double tol)
{
    run *got = lp_calloc(1, sizeof *got);
    lp_recipe p = recipe(features, more);
    lp_encoder *e = encoder(which);
    watch(got, &p, saes[which], N);
    double worst = 0;
    for (int i = 1; i < N; i++) {
        double f[S], want[PLAIN_D];
        activations(f, e, got->before + i * PLAIN_D);
        for (int k = 0; k < PLAIN_D; k++) want[k] = (double)got->before[i * PLAIN_D + k];
        r(want, f, got->before + i * PLAIN_D, saes[which]);
        worst = fmax(worst, row_error(want, got->after + i * PLAIN_D, PLAIN_D));
    }
    CHECK(worst <= tol);
    if (worst > tol) fprintf(stderr, "%s %s: off by %g\n", features, more, worst);
    lp_encoder_free(e);
    lp_recipe_clear(&p);
    free(got);
}

static void add(double *want, double c, int feature, const lp_sae *s)
{
    float d[PLAIN_D];
    lp_sae_decoder_row(s, feature, d);
    for (int k = 0; k < PLAIN_D; k++) want[k] += c * (double)d[k];
}

static void both_from_x(double *want, const double *f, const float *x, const lp_sae *s)
{
    (void)x;
    add(want, 6 - f[3], 3, s);
    add(want, 5 - f[8], 8, s);
    add(want, -f[11], 11, s);
}

static void kept_norm(double *want, const double *f, const float *x, const lp_sae *s)
{
    double before = 0, after = 0;
    both_from_x(want, f, x, s);
    for (int k = 0; k < PLAIN_D; k++) before += (double)x[k] * (double)x[k], after += want[k] * want[k];
    for (int k = 0; k < PLAIN_D; k++) want[k] *= sqrt(before / after);
}

static void rebuilt(double *want, const float *x)
{
    lp_encoder *e = encoder(RES1);
    lp_features f = {0};
    float y[PLAIN_D];
    CHECK(lp_encode(&f, e, x, 1, NULL) == LP_OK);
    lp_decode(y, e, &f, x);
    for (int k = 0; k < PLAIN_D; k++) want[k] = (double)y[k];
    lp_features_free(&f);
    lp_encoder_free(e);
}

static void without_error(double *want, const double *f, const float *x, const lp_sae *s)
{
    rebuilt(want, x);
    both_from_x(want, f, x, s);
}

static void replaced_and_added(double *want, const double *f, const float *x, const lp_sae *s)
{
    rebuilt(want, x);
    add(want, 6 - f[3], 3, s);
    add(want, 2 - f[8], 8, s);
    add(want, 1.5, 20, s);
}

static void meeting(void)
{
    static const char three[] = "{\"layer\": \"res1\", \"index\": 3, \"kind\": \"clamp\", \"strength\": 6},"
                                "{\"layer\": \"res1\", \"index\": 8, \"kind\": \"clamp\", \"strength\": 5},"
                                "{\"layer\": \"res1\", \"index\": 11, \"kind\": \"ablate\"}";
    against(three, "", RES1, both_from_x, TOL);
    against(three, "\"keep_norm\": true", RES1, kept_norm, TOL);
    against(three, "\"error_term\": false", RES1, without_error, 2e-6);
    against("{\"layer\": \"res1\", \"index\": 3, \"kind\": \"replace\", \"strength\": 3, \"unit\": \"max_act\", "
            "\"max_act\": 2},"
            "{\"layer\": \"res1\", \"index\": 8, \"kind\": \"replace\", \"strength\": 2},"
            "{\"layer\": \"res1\", \"index\": 20, \"strength\": 1.5}",
            "", RES1, replaced_and_added, 2e-6);
    /* A later place sees what an earlier one did: the row that res2's edit finds is not the unsteered one. */
    run *plain = lp_calloc(1, sizeof *plain), *got = lp_calloc(1, sizeof *got);
    lp_recipe r = recipe("{\"layer\": \"res0\", \"index\": 1, \"strength\": 4},"
                         "{\"layer\": \"res2\", \"index\": 2, \"kind\": \"clamp\", \"strength\": 3}",
                         "");
    watch(plain, NULL, saes[RES2], N);
    watch(got, &r, saes[RES2], N);
    double want[PLAIN_D];
    CHECK(memcmp(got->before + PLAIN_D, plain->before + PLAIN_D, PLAIN_D * sizeof(float)) != 0);
    formula(want, LP_RECIPE_CLAMP, 3, RES2, 2, got->before + 4 * PLAIN_D, got->before + 4 * PLAIN_D);
    CHECK(row_error(want, got->after + 4 * PLAIN_D, PLAIN_D) < TOL);
    CHECK_SAME(got->after, plain->after, PLAIN_D); /* <bos> */
    lp_recipe_clear(&r);
    free(plain), free(got);
}

/* ---- readings ---------------------------------------------------------------------------------------------------- */

static void readings(void)
{
    lp_recipe r = recipe("{\"layer\": \"res1\", \"index\": 3, \"kind\": \"clamp\", \"strength\": 6},"
                         "{\"layer\": \"res1\", \"index\": 8, \"strength\": 5, \"scope\": {\"generated\": false}},"
                         "{\"layer\": \"coder\", \"index\": 2, \"kind\": \"clamp\", \"strength\": 4}",
                         "");
    run *w = lp_calloc(1, sizeof *w);
    watch(w, &r, saes[RES1], 6);
    lp_session *s = new_session(model, NULL, NULL);
    lp_steer *st = steer(s, &r, 6, 1);
    eval(s, st, ids, N);
    CHECK(memcmp(lp_session_logits(s), w->logits, sizeof w->logits) == 0); /* watching changes nothing */
    lp_steer_reading *all = NULL;
    lp_steer_move *moves = NULL;
    size_t n, n_moves;
    CHECK(lp_steer_readback(&all, &n, st, NULL) == LP_OK && n == 10 + 5 + 10);
    CHECK(lp_steer_moves(&moves, &n_moves, st, NULL) == LP_OK && n_moves == 20);
    lp_encoder *e = encoder(RES1);
    for (size_t i = 0; i < n; i++) {
        double before[S], after[S];
        const lp_steer_reading *a = &all[i];
        int feature = r.edits[a->edit].index;
        CHECK(i == 0 || all[i - 1].pos < a->pos || (all[i - 1].pos == a->pos && all[i - 1].edit < a->edit));
        CHECK(a->status == LP_STEER_PLAIN && a->pos > 0 && a->pos < N && (a->edit != 1 || a->pos < 6));
        if (a->edit == 2) {
            CHECK(a->asked == 4 && a->before == a->achieved); /* what a transcoder reads is not changed */
            continue;
        }
        activations(before, e, w->before + a->pos * PLAIN_D);
        activations(after, e, w->after + a->pos * PLAIN_D);
        CHECK((double)a->before == before[feature] && (double)a->achieved == after[feature]);
        CHECK(a->edit == 0 ? a->asked == 6 : isnan(a->asked));
    }
    for (size_t i = 0; i < n_moves; i++) {
        if (moves[i].site != LP_RESID_POST) continue;
        double want[PLAIN_D];
        for (int k = 0; k < PLAIN_D; k++) want[k] = (double)w->before[moves[i].pos * PLAIN_D + k];
        CHECK_NEAR(moves[i].relative, row_error(want, w->after + moves[i].pos * PLAIN_D, PLAIN_D), 1e-6);
    }
    CHECK(lp_session_rewind(s, 4, NULL) == LP_OK); /* what is not committed is not told */
    free(all), free(moves);
    CHECK(lp_steer_readback(&all, &n, st, NULL) == LP_OK && n == 9 && all[8].pos == 3);
    free(all);
    lp_encoder_free(e);
    lp_steer_free(st);
    lp_session_free(s);
    lp_recipe_clear(&r);
    free(w);
}

/* ---- what is refused --------------------------------------------------------------------------------------------- */

static void refused(const char *features, const char *more, lp_status want, const char *says, const char *and)
{
    lp_session *s = new_session(model, NULL, NULL);
    lp_recipe r = recipe(features, more);
    lp_steer *st = NULL;
    lp_error err = {0};
    lp_steer_context c = {.n_prompt = N, .ids = ids};
    CHECK(lp_steer_new(&st, s, &r, (const lp_sae *const *)saes, N_SAES, &c, &err) == want && !st);
    CHECK(strstr(err.text, says) && strstr(err.text, and));
    if (!strstr(err.text, says) || !strstr(err.text, and)) fprintf(stderr, "%s\n  said: %s\n", features, err.text);
    eval(s, NULL, ids, N); /* and nothing of it is left on the session */
    CHECK(lp_session_edited_from(s) == -1);
    lp_recipe_clear(&r);
    lp_session_free(s);
}

static void refusals(void)
{
    refused("{\"layer\": \"res9\", \"index\": 1, \"strength\": 1}", "", LP_E_NOT_FOUND, "res9", "open it");
    refused("{\"layer\": \"res1\", \"index\": 48, \"strength\": 1}", "", LP_E_RANGE, "res1 #48", "0 to 47");
    refused("{\"layer\": \"res1\", \"index\": 1, \"strength\": 1}", "\"modelId\": \"huge\"", LP_E_SHAPE, "tiny",
            "huge");
    refused("{\"layer\": \"res1\", \"index\": 1, \"strength\": 1, \"unit\": \"max_act\"}", "", LP_E_RANGE, "max_act",
            "res1 #1");
    refused("{\"layer\": \"res1\", \"index\": 1, \"strength\": 1e300}", "", LP_E_RANGE, "float", "res1 #1");
    refused("{\"layer\": \"res1\", \"index\": 1, \"strength\": 1, \"when\": {\"layer\": \"res2\", \"index\": 5}}", "",
            LP_E_UNSUPPORTED, "res1 #1", "res2 #5");
    refused("{\"layer\": \"res1\", \"index\": 1, \"strength\": 1, \"when\": {\"layer\": \"res2\", \"index\": 5}},"
            "{\"layer\": \"res2\", \"index\": 5, \"strength\": 1, \"when\": {\"layer\": \"res1\", \"index\": 1}}",
            "", LP_E_UNSUPPORTED, "res1 #1", "res2 #5"); /* a circle has a later one somewhere */
    refused("{\"layer\": \"coder\", \"index\": 1, \"strength\": 1, \"when\": {\"layer\": \"res1\", \"index\": 5}}", "",
            LP_E_UNSUPPORTED, "coder #1", "res1 #5");
    refused("{\"layer\": \"res1\", \"index\": 1, \"strength\": 1, \"when\": {\"layer\": \"res0\", \"index\": 48}}", "",
            LP_E_RANGE, "res0 #48", "47");
    refused("{\"layer\": \"res1\", \"index\": 1, \"kind\": \"replace\", \"strength\": 1},"
            "{\"layer\": \"res1b\", \"index\": 1, \"kind\": \"replace\", \"strength\": 1}",
            "", LP_E_UNSUPPORTED, "res1 and res1b", "reconstruction");
    refused("{\"layer\": \"coder\", \"index\": 1, \"kind\": \"clamp\", \"strength\": 1}", "\"joint\": true",
            LP_E_UNSUPPORTED, "coder", "joint");
    lp_session *s = new_session(model, NULL, NULL); /* widths, layers: sae/reader.h asks */
    lp_recipe r = recipe("{\"layer\": \"odd\", \"index\": 1, \"strength\": 1}", "");
    lp_sae *odd = make_sae(&(shape){"odd", "standard", "blocks.1.hook_resid_post", NULL, NULL, 31, S, 31, 0, NULL});
    lp_steer *st = NULL;
    lp_error err = {0};
    lp_steer_context c = {.n_prompt = N, .ids = ids};
    CHECK(lp_steer_new(&st, s, &r, &(const lp_sae *){odd}, 1, &c, &err) == LP_E_SHAPE && strstr(err.text, "31"));
    lp_sae_close(odd);
    odd = make_sae(&(shape){"odd", "standard", "blocks.5.hook_resid_post", NULL, NULL, 32, S, 32, 0, NULL});
    CHECK(lp_steer_new(&st, s, &r, &(const lp_sae *){odd}, 1, &c, &err) == LP_E_NOT_FOUND &&
          strstr(err.text, "layer 5"));
    lp_sae_close(odd);
    lp_recipe_clear(&r);
    lp_session_free(s);
}

/* Where a decoder row is 0 a -0 stays one: nothing was added to it. */
static void half_empty(float *enc, float *dec, const shape *s)
{
    (void)enc;
    for (int i = 0; i < s->d_sae * s->d_out; i += 2) dec[i] = 0;
}

static int negative_zeros(lp_act *act, void *user)
{
    (void)user;
    for (int i = 0; i < act->rows * act->width; i += 2) act->x[i] = -0.0f;
    return 0;
}

static void untouched_floats(void)
{
    static const char *const kinds_of[] = {"add", "clamp", "project"};
    lp_sae *sae = make_sae(
        &(shape){"half", "jumprelu", "blocks.1.hook_resid_post", NULL, NULL, PLAIN_D, S, PLAIN_D, 0.1f, half_empty});
    for (int k = 0; k < 3; k++) {
        char edit[100];
        float x[N * PLAIN_D];
        snprintf(edit, sizeof edit, "{\"layer\": \"half\", \"index\": 3, \"kind\": \"%s\", \"strength\": 7}",
                 kinds_of[k]);
        lp_recipe r = recipe(edit, "");
        lp_session *s = new_session(model, NULL, NULL);
        lp_steer *st = NULL;
        lp_tape tape = tape_on(x);
        lp_hook before = {.site = LP_RESID_POST, .layer = 1, .edits = true, .fn = negative_zeros};
        CHECK(lp_session_hook(s, before, NULL) > 0);
        CHECK(lp_steer_new(&st, s, &r, &(const lp_sae *){sae}, 1, &(lp_steer_context){.n_prompt = N, .ids = ids},
                           NULL) == LP_OK);
        CHECK(lp_session_hook(s, lp_tap(LP_RESID_POST, 1, &tape), NULL) > 0);
        eval(s, st, ids, N);
        int bad = 0;
        for (int i = 0; i < N * PLAIN_D; i += 2) bad += x[i] != 0 || !signbit(x[i]);
        CHECK(bad == 0);
        lp_steer_free(st);
        lp_session_free(s);
        lp_recipe_clear(&r);
    }
    lp_sae_close(sae);
}

/* An overflow on the way is an error with a name, and nothing is committed. */
static void overflow(void)
{
    lp_session *s = new_session(model, NULL, NULL);
    char much[1000] = "";
    for (int i = 0; i < 8; i++) strcat(much, "{\"layer\": \"res0\", \"index\": 1, \"strength\": 3e38},");
    strcat(much, "{\"layer\": \"res1\", \"index\": 1, \"kind\": \"clamp\", \"strength\": 1}");
    lp_recipe r = recipe(much, "");
    lp_steer *st = steer(s, &r, N, 0);
    lp_error err = {0};
    CHECK(lp_steer_explain(st, lp_session_eval(s, ids, N, &err), &err) == LP_E_RANGE && lp_session_pos(s) == 0);
    CHECK(strstr(err.text, "res1") && strstr(err.text, "infinity"));
    lp_steer_free(st);
    lp_session_free(s);
    lp_recipe_clear(&r);
}

int main(void)
{
    if (!open_all()) return 1;
    kinds();
    nothing_to_do();
    same_however_cut("");
    same_however_cut("\"joint\": false, \"keep_norm\": true");
    meeting();
    readings();
    untouched_floats();
    refusals();
    overflow();
    close_all();
    return check_done();
}
