/* Direct logit attribution: every feature's share is what the raw logit loses when the feature is taken out of the last
 * stream, the engine doing the rest under frozen divisors (hooks on final_rms and attn_post_rms); features, bias and error
 * come to the site's share; and the sites that make up the stream come to the logit.
 *
 * All kinds of SAEs on models/plain, a stream and a head SAE on every golden model, the shipped SAEs on the shipped model.
 */
#include "sae/attribute.h"

#include "sae/analyse.h"
#include "sae/causal.h"
#include "tests/steered.h"

/* Rows of the stream are f32: a share is off by roundings of summands as large as the largest share of the site. */
static const double relative = 2e-6;

/* ---- the witness ------------------------------------------------------------------------------------------------- */

typedef struct change { /* takes `amount` times d out of one row, or with `divisor` puts that number there */
    int at;
    double amount;
    const float *d;
    const float *divisor;
} change;

static int make_change(lp_act *act, void *user)
{
    const change *c = user;
    int row = c->at - act->pos, width = act->heads * act->width;
    if (row < 0 || row >= act->rows) return 0;
    float *x = act->x + (size_t)row * (size_t)width;
    for (int i = 0; i < width; i++)
        x[i] = c->divisor ? *c->divisor : (float)((double)x[i] - c->amount * (double)c->d[i]);
    return 0;
}

static void hook_change(lp_session *s, lp_site site, int layer, change *c)
{
    lp_hook h = {.site = site, .layer = layer, .edits = true, .fn = make_change, .user = c};
    CHECK(lp_session_hook(s, h, NULL) > 0);
}

/* A run of the prompt to position `at`, and what stands there. */
typedef struct seen {
    float *raw, *branch; /* [V] before the soft-cap; [D] attn_out of the layer asked about */
    float rms, post;
} seen;

static void tap_one(lp_session *s, lp_site site, int layer, float *x, int at, int width, lp_tape *t)
{
    *t = (lp_tape){.x = x, .n_layers = 1, .first_pos = at, .n_pos = 1, .width = width};
    CHECK(lp_session_hook(s, lp_tap(site, layer, t), NULL) > 0);
}

static void look(seen *out, lp_session *s, int layer, const int *tokens, int at)
{
    const lp_config *c = &lp_session_model(s)->config;
    lp_tape t[4];
    out->raw = lp_calloc((size_t)c->vocab, sizeof *out->raw);
    out->branch = lp_calloc((size_t)c->d_model, sizeof *out->branch);
    tap_one(s, LP_LOGITS_RAW, LP_WHOLE_MODEL, out->raw, at, c->vocab, &t[0]);
    tap_one(s, LP_FINAL_RMS, LP_WHOLE_MODEL, &out->rms, at, 1, &t[1]);
    tap_one(s, LP_ATTN_OUT, layer, out->branch, at, c->d_model, &t[2]);
    tap_one(s, LP_ATTN_POST_RMS, layer, &out->post, at, 1, &t[3]);
    CHECK(lp_session_eval(s, tokens, (size_t)at + 1, NULL) == LP_OK);
    lp_session_free(s);
}

static void forget(seen *x)
{
    free(x->raw), free(x->branch);
}

/* What z[t] loses (c below 0), or z[t] - z[c], when `amount` d leaves the place an SAE writes to, directly. */
static double loss(const lp_model *m, const lp_sae *sae, const float *d, double amount, const int *tokens, int at,
                   int t, int c)
{
    int layer = sae->spot.layer_out < 0 ? 0 : sae->spot.layer_out, D = m->config.d_model;
    seen clean, without;
    look(&clean, new_session(m, NULL, NULL), layer, tokens, at);
    change there = {.at = at, .amount = amount, .d = d}, post = {.at = at, .divisor = &clean.post};
    float *v = NULL;
    if (sae->spot.site_out == LP_Z) { /* v is what attn_out loses */
        lp_session *s = new_session(m, NULL, NULL);
        hook_change(s, LP_Z, layer, &there);
        hook_change(s, LP_ATTN_POST_RMS, layer, &post);
        look(&without, s, layer, tokens, at);
        v = lp_calloc((size_t)D, sizeof *v);
        for (int i = 0; i < D; i++) v[i] = clean.branch[i] - without.branch[i];
        forget(&without);
        there.amount = 1, there.d = v;
    }
    change final = {.at = at, .divisor = &clean.rms};
    lp_session *s = new_session(m, NULL, NULL);
    hook_change(s, LP_RESID_POST, m->config.n_layers - 1, &there);
    hook_change(s, LP_FINAL_RMS, LP_WHOLE_MODEL, &final);
    look(&without, s, layer, tokens, at);
    double lost = (double)clean.raw[t] - (double)without.raw[t];
    if (c >= 0) lost -= (double)clean.raw[c] - (double)without.raw[c];
    forget(&clean), forget(&without);
    free(v);
    return lost;
}

/* ---- shares ------------------------------------------------------------------------------------------------------ */

static lp_attribution ask(const lp_model *m, const lp_sae *const *some, int n_some, const int *tokens, int n, int at,
                          int target, int contrast)
{
    lp_attribution_question q = {.ids = tokens, .n = (size_t)n, .at = at, .target = target, .contrast = contrast};
    lp_session *s = new_session(m, NULL, NULL);
    lp_attribution out;
    lp_error err = {0};
    if (lp_attribute(&out, s, some, n_some, &q, &err) != LP_OK) fprintf(stderr, "%s\n", err.text), exit(1);
    CHECK(lp_session_pos(s) == 0);
    lp_session_free(s);
    return out;
}

/* features + bias + error = site, and each is what its rows say. */
static void parts_add_up(const lp_attribution *a, int n_saes)
{
    for (int i = 0; i < n_saes; i++) {
        const lp_attribution_part *p = &a->parts[i];
        double sum = 0, size = fabs(p->bias) + fabs(p->error) + fabs(p->site);
        int n = 0;
        for (size_t k = 0; k < a->n; k++)
            if (a->rows[k].sae == i) n++, sum += a->rows[k].share, size += fabs(a->rows[k].share);
        CHECK(n == p->n_active);
        CHECK_NEAR(p->features, sum, 1e-12 * size);
        CHECK_NEAR(p->features + p->bias + p->error, p->site, relative * size);
    }
    for (size_t k = 1; k < a->n; k++) CHECK(fabs(a->rows[k - 1].share) >= fabs(a->rows[k].share));
}

/* How a decoder's row is scaled, from the SAE's own tensor there. */
static double scale_of(const lp_model *m, const lp_sae *sae, int feature, const int *tokens, int at)
{
    float *x = lp_calloc((size_t)sae->d_in, sizeof *x);
    lp_session *s = new_session(m, NULL, NULL);
    lp_tape t;
    tap_one(s, sae->spot.site, sae->spot.layer, x, at, sae->d_in, &t);
    CHECK(lp_session_eval(s, tokens, (size_t)at + 1, NULL) == LP_OK);
    lp_session_free(s);
    double g = lp_decoder_scale(sae, feature, x);
    free(x);
    return g;
}

/* The k largest shares against the engine. */
static void as_lost(const lp_model *m, const lp_sae *const *some, int n_some, const int *tokens, int n, int at, int k,
                    int contrast)
{
    lp_attribution a = ask(m, some, n_some, tokens, n, at, contrast < 0 ? -1 : 9, contrast);
    float *d = lp_calloc(4096, sizeof *d);
    double size = 0;
    CHECK((int)a.n >= k && a.at == at);
    parts_add_up(&a, n_some);
    for (int i = 0; i < n_some; i++) size = fmax(size, fabs(a.parts[i].features) + fabs(a.parts[i].error));
    for (int i = 0; i < k && i < (int)a.n; i++) {
        const lp_attribution_row *r = &a.rows[i];
        const lp_sae *sae = some[r->sae];
        CHECK(r->activation > 0 && sae->d_out <= 4096);
        lp_sae_decoder_row(sae, r->index, d);
        double amount = (double)r->activation * scale_of(m, sae, r->index, tokens, at);
        double want = loss(m, sae, d, amount, tokens, at, a.target.id, a.contrast.id);
        CHECK_NEAR(r->share, want, 2e-5 * (size + fabs(a.target.raw) + fabs(want)));
    }
    free(d);
    lp_attribution_free(&a);
}

static const lp_sae *const *list(int first)
{
    return (const lp_sae *const *)saes + first;
}

static void every_kind(void)
{
    for (int i = 0; i < N_SAES; i++) {
        as_lost(model, list(i), 1, ids, N, N - 1, 5, -1);
        as_lost(model, list(i), 1, ids, N, 4, 5, 12);
    }
    as_lost(model, list(0), N_SAES, ids, N, 7, 20, -1);
}

static void every_model(void)
{
    for (int g = 0; g < N_GOLDEN; g++) {
        char name[64], hook[64];
        snprintf(name, sizeof name, "models/%s", golden_names[g]);
        lp_model *m = open_golden(name, NULL);
        if (!m) continue;
        const lp_config *c = &m->config;
        int z = c->n_heads * c->head_dim, n = 20, tokens[20];
        shape res = {"res", "jumprelu", "blocks.0.hook_resid_post", NULL, NULL, c->d_model, S, c->d_model, 0.1f, NULL};
        snprintf(hook, sizeof hook, "blocks.%d.attn.hook_z", c->n_layers - 1);
        shape att = {"att", "standard", hook, NULL, NULL, z, S, z, 0, NULL};
        lp_sae *two[] = {make_sae(&res), make_sae(&att)};
        some_tokens(tokens, n, c->vocab, (unsigned)g + 5);
        for (int i = 0; i < n; i++)
            if (tokens[i] == c->bos) tokens[i] = c->bos ? 0 : 1;
        as_lost(m, (const lp_sae *const *)two, 2, tokens, n, n - 1, 3, -1);
        as_lost(m, (const lp_sae *const *)two + 1, 1, tokens, n, 6, 3, 3);
        lp_sae_close(two[0]), lp_sae_close(two[1]);
        lp_model_close(m);
    }
}

/* ---- what shares come to ----------------------------------------------------------------------------------------- */

/* embed + every attn_out + every mlp_out = the last stream = the raw logit; a contrast is a difference. */
static void sites_are_the_logit(void)
{
    enum { PIECES = 1 + 2 * PLAIN_L, ALL = PIECES + 1 };
    lp_sae *pieces[ALL];
    for (int i = 0; i < ALL; i++) {
        char hook[64] = "hook_embed";
        if (i > 0) snprintf(hook, sizeof hook, "blocks.%d.hook_%s_out", (i - 1) / 2, i % 2 ? "attn" : "mlp");
        if (i == PIECES) snprintf(hook, sizeof hook, "blocks.%d.hook_resid_post", PLAIN_L - 1);
        shape one = {"piece", "jumprelu", hook, NULL, NULL, PLAIN_D, S, PLAIN_D, 0.1f, NULL};
        pieces[i] = make_sae(&one);
    }
    for (int contrast = -1; contrast < 8; contrast += 4) {
        lp_attribution a = ask(model, (const lp_sae *const *)pieces, ALL, ids, N, 5, 40, contrast);
        double sum = 0, size = 1, want = a.target.raw - (contrast < 0 ? 0 : a.contrast.raw);
        for (int i = 0; i < PIECES; i++) sum += a.parts[i].site, size += fabs(a.parts[i].site);
        CHECK_NEAR(sum, want, 1e-5 * size);
        CHECK_NEAR(a.parts[PIECES].site, want, 1e-5 * size);
        parts_add_up(&a, ALL);
        lp_attribution_free(&a);
    }
    lp_attribution t = ask(model, list(0), N_SAES, ids, N, 5, 40, -1),
                   c = ask(model, list(0), N_SAES, ids, N, 5, 7, -1);
    lp_attribution d = ask(model, list(0), N_SAES, ids, N, 5, 40, 7);
    CHECK(t.n == d.n && d.contrast.id == 7 && d.contrast.raw == c.target.raw && t.contrast.id == -1);
    for (int i = 0; i < N_SAES; i++) {
        CHECK_NEAR(d.parts[i].features, t.parts[i].features - c.parts[i].features, 1e-9);
        CHECK_NEAR(d.parts[i].error, t.parts[i].error - c.parts[i].error, 1e-9);
    }
    lp_attribution_free(&t), lp_attribution_free(&c), lp_attribution_free(&d);
    for (int i = 0; i < ALL; i++) lp_sae_close(pieces[i]);
}

/* The logits are the run's, capped as the model says; later tokens change nothing; the likeliest is the default. */
static void logits_are_the_run(void)
{
    seen there;
    lp_session *s = new_session(model, NULL, NULL);
    CHECK(lp_session_eval(s, ids, 6, NULL) == LP_OK);
    const float *z = lp_session_logits(s);
    lp_attribution a = ask(model, list(RES1), 2, ids, N, 5, -1, -1), b = ask(model, list(RES1), 2, ids, 6, -1, -1, -1);
    double cap = model->config.final_softcap;
    CHECK(a.target.id == lp_argmax(z, V) && a.target.capped == (double)z[a.target.id]);
    CHECK_NEAR(a.target.capped, cap * tanh(a.target.raw / cap), 1e-5);
    look(&there, new_session(model, NULL, NULL), 0, ids, 5);
    CHECK(a.target.raw == (double)there.raw[a.target.id] && a.rms == (double)there.rms);
    CHECK(a.n == b.n && a.at == 5 && b.at == 5);
    for (size_t i = 0; i < a.n; i++) CHECK(a.rows[i].index == b.rows[i].index && a.rows[i].share == b.rows[i].share);
    lp_attribution_free(&a), lp_attribution_free(&b);
    forget(&there);
    lp_session_free(s);
}

static bool same_row(const lp_attribution_row *a, const lp_attribution_row *b)
{
    return a->sae == b->sae && a->index == b->index && a->activation == b->activation && a->share == b->share;
}

static bool same_part(const lp_attribution_part *a, const lp_attribution_part *b)
{
    return a->n_active == b->n_active && a->features == b->features && a->bias == b->bias && a->error == b->error &&
           a->site == b->site;
}

static void however_it_runs(void)
{
    lp_attribution want = ask(model, list(0), N_SAES, ids, N, 4, 11, -1);
    for (int way = 0; way < 6; way++) {
        lp_pool *pool = NULL;
        CHECK(lp_pool_new(&pool, way % 2 ? 3 : 1, NULL) == LP_OK);
        lp_session *s = new_session(model, &(lp_session_options){.wave = way < 2 ? 1 : 0}, &(lp_env){.pool = pool});
        lp_attribution_question q = {.ids = ids, .n = N, .at = 4, .target = 11, .contrast = -1};
        lp_attribution out;
        if (way >= 4) CHECK(lp_session_eval(s, ids, way == 4 ? N : 2, NULL) == LP_OK); /* some of it is there already */
        int pos = lp_session_pos(s);
        CHECK(lp_attribute(&out, s, list(0), N_SAES, &q, NULL) == LP_OK && lp_session_pos(s) == pos);
        CHECK(out.n == want.n);
        for (size_t i = 0; i < out.n && i < want.n; i++) CHECK(same_row(&out.rows[i], &want.rows[i]));
        for (int i = 0; i < N_SAES; i++) CHECK(same_part(&out.parts[i], &want.parts[i]));
        lp_attribution_free(&out);
        lp_session_free(s);
        lp_pool_free(pool);
    }
    lp_attribution_free(&want);
}

/* ---- the shipped ones -------------------------------------------------------------------------------------------- */

static void shipped(void)
{
    static const char *const names[] = {"res/layer_2/width_2k/average_l0_20", "res/layer_5/width_2k/average_l0_20",
                                        "mlp/layer_3/width_2k/average_l0_24",
                                        "transcoder/layer_3/width_2k/average_l0_24",
                                        "att/layer_3/width_2k/average_l0_24"};
    enum { N_NAMES = sizeof names / sizeof *names };
    lp_sae *some[N_NAMES] = {0};
    lp_model *m = NULL;
    lp_tokens t = {0};
    const char *text = "<bos>The whale swam in the";
    CHECK(lp_model_open(&m, LP_DATA_DIR "/base", NULL, NULL, NULL) == LP_OK);
    if (!m) return;
    CHECK(lp_tokenizer_encode(m->tokenizer, text, strlen(text), LP_SPECIALS_PARSED, &t, NULL) == LP_OK);
    for (int i = 0; i < N_NAMES; i++) {
        char path[1000];
        snprintf(path, sizeof path, "%s/saes/%s", LP_DATA_DIR, names[i]);
        if (lp_sae_open(&some[i], path, NULL, NULL, NULL) != LP_OK) exit(1);
    }
    lp_attribution a = ask(m, (const lp_sae *const *)some, N_NAMES, t.ids, (int)t.n, -1, -1, -1);
    CHECK(a.n > 60);
    parts_add_up(&a, N_NAMES);
    CHECK_NEAR(a.parts[1].site, a.target.raw, 1e-5 * 30); /* the last stream */
    CHECK(a.parts[2].site == a.parts[3].site);            /* both predict mlp_out */
    lp_attribution_free(&a);
    as_lost(m, (const lp_sae *const *)some, N_NAMES, t.ids, (int)t.n, (int)t.n - 1, 12, -1);
    as_lost(m, (const lp_sae *const *)some + 4, 1, t.ids, (int)t.n, 3, 4, 8);
    for (int i = 0; i < N_NAMES; i++) lp_sae_close(some[i]);
    lp_tokens_free(&t);
    lp_model_close(m);
}

/* ---- edges ------------------------------------------------------------------------------------------------------- */

static void refused(lp_attribution_question q, const lp_sae *sae, lp_status want, const char *words)
{
    lp_session *s = new_session(model, NULL, NULL);
    lp_attribution out = {.n = 99};
    lp_error err = {0};
    q.ids = ids;
    CHECK(lp_attribute(&out, s, &sae, 1, &q, &err) == want && err.status == want);
    CHECK(out.n == 0 && !out.rows && !out.parts);
    if (!strstr(err.text, words)) fprintf(stderr, "%s\n", err.text);
    CHECK(strstr(err.text, words) != NULL);
    lp_session_free(s);
}

static void what_is_refused(void)
{
    lp_attribution_question q = {.n = N, .at = N, .target = -1, .contrast = -1};
    refused(q, saes[0], LP_E_RANGE, "the prompt has positions 0 to 10");
    q.at = 0, refused(q, saes[0], LP_E_RANGE, "<bos>");
    q.at = 3, q.target = V, refused(q, saes[0], LP_E_RANGE, "token 160: ids go from 0 to 159");
    q.target = 3, q.contrast = V + 1, refused(q, saes[0], LP_E_RANGE, "token 161");
    q.contrast = 3, refused(q, saes[0], LP_E_RANGE, "one token, 3");
    q.contrast = -1, q.n = 0, refused(q, saes[0], LP_E_RANGE, "a prompt of 0 tokens");
    q.n = N;
    shape wide = {"wide", "jumprelu", "blocks.1.hook_resid_post", NULL, NULL, 40, S, 40, 0.3f, NULL};
    shape inner = {"inner", "jumprelu", "blocks.1.ln2.hook_normalized", NULL, NULL, PLAIN_D, S, PLAIN_D, 0.3f, NULL};
    lp_sae *a = make_sae(&wide), *b = make_sae(&inner);
    refused(q, a, LP_E_SHAPE, "wide");
    refused(q, b, LP_E_UNSUPPORTED, "inner writes to mlp_normed, which is not added");
    lp_sae_close(a), lp_sae_close(b);
}

/* No SAEs: the logit alone.  One token and no <bos>.  Nothing fires: bias and error are the site.  Cancelled. */
static void little(void)
{
    atomic_bool flag = true;
    int one[] = {5};
    lp_attribution a = ask(model, NULL, 0, ids, N, -1, -1, -1);
    CHECK(a.n == 0 && a.target.id >= 0 && isfinite(a.target.raw));
    lp_attribution_free(&a);
    as_lost(model, list(0), N_SAES, one, 1, 0, 6, -1);
    shape deaf = {"deaf", "jumprelu", "blocks.1.hook_resid_post", NULL, NULL, PLAIN_D, S, PLAIN_D, 1e9f, NULL};
    lp_sae *sae = make_sae(&deaf);
    a = ask(model, (const lp_sae *const *)&sae, 1, ids, N, -1, -1, -1);
    CHECK(a.n == 0 && a.parts[0].n_active == 0 && a.parts[0].features == 0 && a.parts[0].bias != 0);
    parts_add_up(&a, 1);
    lp_attribution_free(&a);
    lp_sae_close(sae);
    lp_session *s = new_session(model, NULL, &(lp_env){.cancel = &flag});
    lp_attribution_question q = {.ids = ids, .n = N, .at = -1, .target = -1, .contrast = -1};
    CHECK(lp_attribute(&a, s, list(0), 1, &q, NULL) == LP_CANCELLED && !a.rows && !a.parts);
    lp_session_free(s);
}

int main(void)
{
    if (!open_all()) return check_done();
    every_kind();
    every_model();
    sites_are_the_logit();
    logits_are_the_run();
    however_it_runs();
    shipped();
    what_is_refused();
    little();
    close_all();
    return check_done();
}
