/* Sweeps on a small model: factor 0 is the model without the recipe, effects grow from there, the sums are what they are
 * said to be, and no thread or wave changes a bit.
 */
#include "sae/sweep.h"
#include "tests/steered.h"

static const double factors[] = {0, 0.25, 0.5, 1, 2};
enum { N_FACTORS = sizeof factors / sizeof *factors, TOKENS = 12, N_SEEDS = 2 };

static char two[300]; /* a clamp and an addition */
/* The model is sure of itself: at a temperature of 1 every text is the same. */
static const lp_sample_options drawn = {.temperature = 8, .seed = 5};
static const lp_generate_options until = {.max_tokens = TOKENS, .ignore_eos = 1};

static lp_sweep_options options(void)
{
    static lp_sweep_prompt prompts[2];
    prompts[0] = (lp_sweep_prompt){ids, N, NULL};
    prompts[1] = (lp_sweep_prompt){ids, 4, NULL};
    return (lp_sweep_options){.factors = factors,
                              .n_factors = N_FACTORS,
                              .prompts = prompts,
                              .n_prompts = 2,
                              .n_seeds = N_SEEDS,
                              .sample = &drawn,
                              .generate = &until};
}

static lp_sweep swept(const char *features, const char *more, const lp_sweep_options *o, const lp_env *env)
{
    lp_sweep s;
    lp_error err = {0};
    lp_recipe r = recipe(features, more);
    CHECK(lp_sweep_run(&s, model, &r, (const lp_sae *const *)saes, N_SAES, o, env, &err) == LP_OK);
    if (err.status) fprintf(stderr, "%s\n", err.text);
    lp_recipe_clear(&r);
    if (!s.n_rows) exit(1);
    return s;
}

/* The text of a prompt and seed under a recipe (NULL: none), with KL and nll against a session that reads along. */
typedef struct sums {
    int ids[TOKENS];
    double kl, nll;
    size_t n;
    lp_session *clean, *steered;
    lp_steer *st;
} sums;

static int along(const lp_generated *t, void *user)
{
    sums *x = user;
    const float *p = lp_session_logits(x->clean), *q = lp_session_logits(x->steered);
    double zp = 0, zq = 0;
    for (int i = 0; i < V; i++) zp += exp((double)p[i]), zq += exp((double)q[i]);
    for (int i = 0; i < V; i++) x->kl += exp((double)p[i]) / zp * ((double)p[i] - log(zp) - (double)q[i] + log(zq));
    x->nll += log(zp) - (double)p[t->id];
    x->ids[x->n++] = t->id;
    if (t->finish == LP_FINISH_NONE) eval(x->clean, NULL, &t->id, 1);
    return x->st ? lp_steer_generated(t, x->st) : 0;
}

static void by_hand(sums *x, const lp_recipe *r, int n_prompt, uint64_t first_seed)
{
    lp_generation g = {0};
    lp_sampler *sampler = NULL;
    lp_sample_options s = drawn;
    lp_generate_options o = until;
    *x = (sums){0};
    s.seed = first_seed, o.fn = along, o.user = x;
    x->clean = new_session(model, NULL, NULL), x->steered = new_session(model, NULL, NULL);
    if (r) x->st = steer(x->steered, r, n_prompt, 0);
    eval(x->clean, NULL, ids, n_prompt);
    eval(x->steered, x->st, ids, n_prompt);
    CHECK(lp_sampler_new(&sampler, V, &s, NULL) == LP_OK);
    CHECK(lp_generate(&g, x->steered, sampler, &o, NULL) == LP_OK);
    lp_sampler_free(sampler);
    lp_generation_free(&g);
    lp_steer_free(x->st);
    lp_session_free(x->clean), lp_session_free(x->steered);
}

/* Means over both prompts and seeds, put together from single runs. */
static void like_by_hand(const lp_sweep_row *row, const lp_recipe *r)
{
    double kl = 0, nll = 0, distinct = 0;
    for (int p = 0; p < 2; p++)
        for (int k = 0; k < N_SEEDS; k++) {
            sums x;
            int different = 0;
            by_hand(&x, r, p ? 4 : N, drawn.seed + (uint64_t)k);
            kl += x.kl, nll += x.nll;
            for (size_t i = 0; i < x.n; i++) {
                size_t j = 0;
                while (x.ids[j] != x.ids[i]) j++;
                different += j == i;
            }
            distinct += (double)different / (double)x.n / (2 * N_SEEDS);
            if (p || k) continue;
            CHECK(row->n_ids == x.n && memcmp(row->ids, x.ids, x.n * sizeof(int)) == 0);
        }
    CHECK(row->n_tokens == 2 * N_SEEDS * TOKENS && row->n_texts == 2 * N_SEEDS);
    CHECK_NEAR(row->kl, kl / (2 * N_SEEDS * TOKENS), 1e-7); /* log-sum-exp of floats, added otherwise */
    CHECK_NEAR(row->nll, nll / (2 * N_SEEDS * TOKENS), 1e-7);
    CHECK_NEAR(row->distinct, distinct, 1e-12);
}

static void zero(const char *features, const char *more)
{
    lp_sweep_options o = options();
    o.n_factors = 1;
    lp_sweep s = swept(features, more, &o, NULL);
    CHECK(s.rows[0].kl == 0 && s.rows[0].moved == 0);
    like_by_hand(&s.rows[0], NULL);
    lp_sweep_clear(&s);
}

static void zero_is_without(void)
{
    zero(two, "");
    zero(two, "\"keep_norm\": true");
    zero(two, "\"error_term\": false");
    zero("{\"layer\": \"res1\", \"index\": 3, \"kind\": \"clamp\", \"strength\": 6}", "\"joint\": true");
    zero("{\"layer\": \"res1\", \"index\": 3, \"kind\": \"replace\", \"strength\": 6, \"unit\": \"max_act\", "
         "\"max_act\": 2}",
         "");
    zero("{\"layer\": \"res1\", \"index\": 3, \"kind\": \"scale\", \"strength\": 3}", "");
    zero("{\"layer\": \"res1\", \"index\": 3, \"kind\": \"project\", \"strength\": 3}", "");
}

static void grows(void)
{
    lp_sweep_options o = options();
    lp_sweep s = swept(two, "", &o, NULL);
    CHECK(s.n_rows == N_FACTORS && s.n_edits == 2);
    for (size_t i = 0; i < s.n_rows; i++) {
        const lp_sweep_row *r = &s.rows[i];
        CHECK(r->factor == factors[i] && r->text && r->nll > 0 && r->distinct > 0 && r->distinct <= 1);
        if (!i) continue;
        CHECK(r->kl > r[-1].kl && r->moved > r[-1].moved);
        CHECK(i == 1 || r->achieved[0] > r[-1].achieved[0]); /* by itself it may be above a quarter */
    }
    lp_recipe r = recipe(two, "");
    like_by_hand(&s.rows[3], &r); /* factor 1 is the recipe as it is */
    lp_recipe_clear(&r);
    CHECK(memcmp(s.rows[0].ids, s.rows[4].ids, TOKENS * sizeof(int)) != 0);
    lp_sweep_clear(&s);
}

/* `scale` counts from 1: half of 3 is 2. */
static void scales(void)
{
    static const double half[] = {0.5};
    lp_sweep_options o = options();
    o.factors = half, o.n_factors = 1;
    lp_sweep s = swept("{\"layer\": \"res1\", \"index\": 3, \"kind\": \"scale\", \"strength\": 3}", "", &o, NULL);
    lp_recipe r = recipe("{\"layer\": \"res1\", \"index\": 3, \"kind\": \"scale\", \"strength\": 2}", "");
    like_by_hand(&s.rows[0], &r);
    lp_recipe_clear(&r);
    lp_sweep_clear(&s);
}

static void same_row(const lp_sweep_row *a, const lp_sweep_row *b, size_t n_edits)
{
    const double x[] = {a->kl, a->nll, a->moved, a->distinct}, y[] = {b->kl, b->nll, b->moved, b->distinct};
    CHECK(memcmp(x, y, sizeof x) == 0 && memcmp(a->achieved, b->achieved, n_edits * sizeof *a->achieved) == 0);
    CHECK(a->n_ids == b->n_ids && memcmp(a->ids, b->ids, a->n_ids * sizeof(int)) == 0);
}

static void same_bits(void)
{
    static const int ways[][2] = {{1, 2}, {3, 1}, {2, 5}}; /* threads, wave */
    lp_sweep_options o = options();
    lp_sweep want = swept(two, "", &o, NULL);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        lp_pool *pool = NULL;
        CHECK(lp_pool_new(&pool, ways[i][0], NULL) == LP_OK);
        lp_env env = {.pool = pool};
        lp_session_options session = {.wave = ways[i][1]};
        o.session = &session;
        lp_sweep got = swept(two, "", &o, &env);
        for (size_t k = 0; k < want.n_rows && got.n_rows == want.n_rows; k++)
            same_row(&want.rows[k], &got.rows[k], want.n_edits);
        lp_sweep_clear(&got);
        lp_pool_free(pool);
    }
    lp_sweep_clear(&want);
}

static void refused(const char *features, const lp_sweep_options *o, lp_status want, const char *says)
{
    lp_sweep s;
    lp_error err = {0};
    lp_recipe r = recipe(features, "");
    CHECK(lp_sweep_run(&s, model, &r, (const lp_sae *const *)saes, N_SAES, o, NULL, &err) == want && !s.rows);
    CHECK(strstr(err.text, says) != NULL);
    if (!strstr(err.text, says)) fprintf(stderr, "want %s, said %s\n", says, err.text);
    lp_recipe_clear(&r);
}

static void refusals(void)
{
    static const double nan_factor[] = {NAN}, huge[] = {1, 1e300};
    lp_sweep_options o = options();
    refused("{\"layer\": \"res1\", \"index\": 3, \"kind\": \"ablate\"}", &o, LP_E_UNSUPPORTED, "ablate res1 #3");
    refused("{\"layer\": \"res1\", \"index\": 3, \"strength\": 1}, {\"layer\": \"res1\", \"index\": 4, \"kind\": "
            "\"project\"}",
            &o, LP_E_UNSUPPORTED, "features[1] (project");
    refused("", &o, LP_E_UNSUPPORTED, "no edits");
    refused("{\"layer\": \"res9\", \"index\": 3, \"strength\": 1}", &o, LP_E_NOT_FOUND, "res9");
    refused("{\"layer\": \"res1\", \"index\": 3, \"strength\": 1, \"unit\": \"max_act\"}", &o, LP_E_RANGE, "max_act");
    o.factors = nan_factor, o.n_factors = 1;
    refused(two, &o, LP_E_RANGE, "factor 0");
    o.factors = huge, o.n_factors = 2;
    refused(two, &o, LP_E_RANGE, "beyond what a float holds");
    o.n_prompts = 0;
    refused(two, &o, LP_E_RANGE, "needs a prompt");
}

/* ---- progress and cancelling ------------------------------------------------------------------------------------- */

static atomic_bool stop;
static int64_t last_done, total;

static void watch_progress(void *user, const char *what, int64_t done, int64_t of)
{
    (void)user;
    CHECK_STR(what, "sweeping");
    CHECK(done >= last_done && done <= of);
    last_done = done, total = of;
    if (atomic_load(&stop) || done == 7) atomic_store(&stop, true);
}

static void cancelled(void)
{
    lp_env env = {.cancel = &stop, .progress = watch_progress};
    lp_sweep_options o = options();
    lp_sweep s;
    lp_recipe r = recipe(two, "");
    CHECK(lp_sweep_run(&s, model, &r, (const lp_sae *const *)saes, N_SAES, &o, &env, NULL) == LP_CANCELLED && !s.rows);
    CHECK(last_done == 7 && total == N_FACTORS * 2 * N_SEEDS);
    lp_recipe_clear(&r);
}

/* Encoder = decoder / |d|^2: what is clamped is then what is encoded again, up to what stood there. */
static void align(float *enc, float *dec, const shape *s)
{
    for (int f = 0; f < s->d_sae; f++) {
        float squares = 0;
        for (int i = 0; i < s->d_out; i++) squares += dec[f * s->d_out + i] * dec[f * s->d_out + i];
        for (int i = 0; i < s->d_in; i++) enc[i * s->d_sae + f] = dec[f * s->d_out + i] / squares;
    }
}

/* The clamp is of a feature that seldom fires: what a small one takes away is then nothing. */
static void choose(void)
{
    int often, seldom;
    run *plain = lp_calloc(1, sizeof *plain);
    lp_sae_close(saes[RES1B]);
    saes[RES1B] = make_sae(
        &(shape){"aligned", "jumprelu", "blocks.1.hook_resid_post", NULL, NULL, PLAIN_D, S, PLAIN_D, 0.1f, align});
    watch(plain, NULL, saes[RES1B], N);
    pick_features(&often, &seldom, RES1B, plain->input);
    snprintf(two, sizeof two,
             "{\"layer\": \"aligned\", \"index\": %d, \"kind\": \"clamp\", \"strength\": 9},"
             "{\"layer\": \"coder\", \"index\": 2, \"strength\": 3}",
             seldom);
    free(plain);
}

int main(void)
{
    if (!open_all()) return 1;
    choose();
    zero_is_without();
    grows();
    scales();
    same_bits();
    refusals();
    cancelled();
    close_all();
    return check_done();
}
