/* Causal ranking: every ablated run has the bits of a full rerun in which steering (sae/steer.h, which shares no code
 * with it) ablates the same feature at the same position; and the figures are the formulas of causal.h, restated here.
 *
 * All kinds of SAEs on models/plain, a stream and a head SAE on every golden model.
 */
#include "sae/causal.h"

#include "core/sample.h"
#include "sae/reader.h"
#include "tests/steered.h"

enum { MOST = 512 };

/* ---- the witness ------------------------------------------------------------------------------------------------- */

/* The whole prompt from its first token, one feature ablated at one position. */
static void rerun(float *logits, const lp_model *m, const lp_sae *sae, int feature, int at, const int *tokens, int n)
{
    char edit[300];
    lp_steer *st = NULL;
    lp_error err = {0};
    snprintf(edit, sizeof edit,
             "{\"layer\": \"%s\", \"index\": %d, \"kind\": \"ablate\", \"scope\": {\"ranges\": [[%d, %d]]}}", sae->name,
             feature, at, at + 1);
    lp_recipe r = recipe(edit, "");
    lp_session *s = new_session(m, NULL, NULL);
    lp_steer_context c = {.n_prompt = n, .ids = tokens};
    if (lp_steer_new(&st, s, &r, &sae, 1, &c, &err) != LP_OK) fprintf(stderr, "%s\n", err.text), exit(1);
    CHECK(lp_steer_explain(st, lp_session_eval(s, tokens, (size_t)n, &err), &err) == LP_OK);
    memcpy(logits, lp_session_logits(s), (size_t)m->config.vocab * sizeof *logits);
    lp_steer_free(st);
    lp_session_free(s);
    lp_recipe_clear(&r);
}

/* Everything that was seen, in the order it came. */
typedef struct record {
    lp_causal_row rows[MOST];
    float *logits; /* [MOST][vocab] */
    int n, vocab;
    int stops_at;        /* 0: never       */
    atomic_bool *raises; /* cancels instead */
} record;

static int on_row(const lp_causal_row *row, const float *logits, void *user)
{
    record *k = user;
    if (k->n == MOST) return 1;
    if (k->logits) memcpy(k->logits + (size_t)k->n * (size_t)k->vocab, logits, (size_t)k->vocab * sizeof *logits);
    k->rows[k->n++] = *row;
    if (k->n != k->stops_at) return 0;
    if (!k->raises) return 1;
    atomic_store(k->raises, true);
    return 0;
}

static double softmax(double *p, const float *z, int n)
{
    double sum = 0, max = (double)z[0];
    for (int i = 0; i < n; i++) max = fmax(max, (double)z[i]);
    for (int i = 0; i < n; i++) sum += p[i] = exp((double)z[i] - max);
    for (int i = 0; i < n; i++) p[i] /= sum;
    return max + log(sum);
}

static void same_figures(const lp_causal_row *r, const lp_causal *out, const float *clean, const float *z, int vocab)
{
    double *p = lp_calloc((size_t)vocab, sizeof *p), *q = lp_calloc((size_t)vocab, sizeof *q), kl = 0;
    double a = softmax(p, clean, vocab), b = softmax(q, z, vocab);
    int best = lp_argmax(z, vocab), t = out->target;
    for (int i = 0; i < vocab; i++) kl += p[i] * (((double)clean[i] - a) - ((double)z[i] - b));
    CHECK(r->d_logit == (double)z[t] - (double)clean[t]);
    CHECK_NEAR(r->d_logprob, ((double)z[t] - b) - ((double)clean[t] - a), 1e-6);
    CHECK_NEAR(r->kl, kl, 1e-9 + 1e-5 * kl);
    CHECK(r->kl >= 0 && r->best == best);
    CHECK_NEAR(r->best_p, q[best], 1e-6);
    free(p), free(q);
}

/* ---- rows are reruns --------------------------------------------------------------------------------------------- */

static int count_active(const lp_model *m, const lp_sae *const *list, int n_list, const int *tokens, int n, int at)
{
    lp_session *s = new_session(m, NULL, NULL);
    lp_reader *r = NULL;
    int found = 0;
    CHECK(lp_reader_new(&r, s, list, n_list, NULL, NULL) == LP_OK);
    CHECK(lp_session_eval(s, tokens, (size_t)n, NULL) == LP_OK);
    for (int i = 0; i < n_list; i++) {
        const lp_features *f = lp_reader_features(r, i);
        found += (int)(f->start[at + 1] - f->start[at]);
    }
    lp_reader_free(r);
    lp_session_free(s);
    return found;
}

/* Asks for `k` features of the list at a position and compares each with a rerun.  Returns how many came. */
static int as_reruns(const lp_model *m, const lp_sae *const *list, int n_list, const int *tokens, int n, int at, int k)
{
    size_t vocab = (size_t)m->config.vocab;
    record *got = lp_calloc(1, sizeof *got);
    float *want = lp_calloc(vocab, sizeof *want);
    got->logits = lp_calloc(MOST * vocab, sizeof *got->logits), got->vocab = (int)vocab;
    lp_causal_question q = {.ids = tokens, .n = (size_t)n, .at = at, .target = -1, .k = k, .fn = on_row, .user = got};
    lp_causal out;
    lp_error err = {0};
    lp_session *s = new_session(m, NULL, NULL), *clean = new_session(m, NULL, NULL);
    CHECK(lp_session_eval(clean, tokens, (size_t)n, NULL) == LP_OK);
    const float *z = lp_session_logits(clean);
    if (lp_causal_rank(&out, s, list, n_list, &q, &err) != LP_OK) fprintf(stderr, "%s\n", err.text), exit(1);
    CHECK(out.at == at && out.target == lp_argmax(z, (int)vocab) && out.best == out.target);
    CHECK(out.logit == (double)z[out.target]);
    CHECK(got->n == (int)out.n);
    for (int i = 0; i < got->n; i++) {
        const lp_causal_row *r = &got->rows[i];
        CHECK(r->activation > 0 && (i == 0 || got->rows[i - 1].activation >= r->activation));
        rerun(want, m, list[r->sae], r->index, at, tokens, n);
        CHECK_SAME(got->logits + (size_t)i * vocab, want, vocab);
        same_figures(r, &out, z, want, (int)vocab);
    }
    for (size_t i = 1; i < out.n; i++) CHECK(fabs(out.rows[i - 1].d_logit) >= fabs(out.rows[i].d_logit));
    int found = (int)out.n;
    lp_causal_free(&out);
    lp_session_free(s), lp_session_free(clean);
    free(want), free(got->logits), free(got);
    return found;
}

static const lp_sae *const *list(int first)
{
    return (const lp_sae *const *)saes + first;
}

static void every_kind(void)
{
    int places[] = {1, 4, N - 1};
    for (int i = 0; i < N_SAES; i++)
        for (int k = 0; k < 3; k++) CHECK(as_reruns(model, list(i), 1, ids, N, places[k], 6) == 6);
    CHECK(as_reruns(model, list(0), N_SAES, ids, N, 3, 40) == 40);
}

/* A stream SAE on every golden model, and one that reads heads, whose site is not as wide as the stream everywhere. */
static void every_model(void)
{
    for (int g = 0; g < N_GOLDEN; g++) {
        char name[64], hook[64];
        snprintf(name, sizeof name, "models/%s", golden_names[g]);
        lp_model *m = open_golden(name, NULL);
        if (!m) continue;
        const lp_config *c = &m->config;
        int z = c->n_heads * c->head_dim, n = 70, tokens[70]; /* more than a page of the cache */
        shape res = {"res", "jumprelu", "blocks.0.hook_resid_post", NULL, NULL, c->d_model, S, c->d_model, 0.1f, NULL};
        snprintf(hook, sizeof hook, "blocks.%d.attn.hook_z", c->n_layers - 1);
        shape att = {"att", "standard", hook, NULL, NULL, z, S, z, 0, NULL};
        lp_sae *two[] = {make_sae(&res), make_sae(&att)};
        some_tokens(tokens, n, c->vocab, (unsigned)g + 5);
        for (int i = 0; i < n; i++)
            if (tokens[i] == c->bos) tokens[i] = c->bos ? 0 : 1;
        CHECK(as_reruns(m, (const lp_sae *const *)two, 2, tokens, n, n - 1, 4) == 4);
        CHECK(as_reruns(m, (const lp_sae *const *)two, 2, tokens, n, 64, 2) == 2);
        CHECK(as_reruns(m, (const lp_sae *const *)two, 2, tokens, n, 31, 2) == 2);
        lp_sae_close(two[0]), lp_sae_close(two[1]);
        lp_model_close(m);
    }
}

/* ---- the same bits, and nothing else touched --------------------------------------------------------------------- */

static bool same_row(const lp_causal_row *a, const lp_causal_row *b)
{
    return a->sae == b->sae && a->index == b->index && a->best == b->best &&
           memcmp(&a->activation, &b->activation, sizeof a->activation) == 0 &&
           memcmp(&a->d_logit, &b->d_logit, sizeof a->d_logit) == 0 &&
           memcmp(&a->d_logprob, &b->d_logprob, sizeof a->d_logprob) == 0 &&
           memcmp(&a->kl, &b->kl, sizeof a->kl) == 0 && memcmp(&a->best_p, &b->best_p, sizeof a->best_p) == 0;
}

static bool same(const lp_causal *a, const lp_causal *b)
{
    bool is_same = a->n == b->n && a->target == b->target && a->logit == b->logit && a->logprob == b->logprob;
    for (size_t i = 0; i < a->n && is_same; i++) is_same = same_row(&a->rows[i], &b->rows[i]);
    return is_same;
}

static lp_causal_question question(int at)
{
    return (lp_causal_question){.ids = ids, .n = N, .at = at, .target = -1, .k = 25};
}

static lp_causal ask(lp_session *s, lp_causal_question q)
{
    lp_causal out;
    lp_error err = {0};
    lp_status st = lp_causal_rank(&out, s, list(0), N_SAES, &q, &err);
    if (st != LP_OK) fprintf(stderr, "%s\n", err.text);
    CHECK(st == LP_OK);
    return out;
}

static void however_it_runs(void)
{
    static const int threads[] = {1, 2, 7}, waves[] = {1, 3, 0};
    for (int arithmetic = 0; arithmetic < 2; arithmetic++) {
        lp_causal first = {0};
        for (int way = 0; way < 9; way++) {
            lp_pool *pool = NULL;
            CHECK(lp_pool_new(&pool, threads[way / 3], NULL) == LP_OK);
            lp_session_options o = {.wave = waves[way % 3], .arithmetic = arithmetic ? LP_FAST : LP_EXACT};
            lp_session *s = new_session(model, &o, &(lp_env){.pool = pool});
            lp_causal out = ask(s, question(4));
            CHECK(out.n == 25);
            CHECK(way == 0 || same(&out, &first));
            if (way == 0)
                first = out;
            else
                lp_causal_free(&out);
            lp_session_free(s);
            lp_pool_free(pool);
        }
        lp_causal_free(&first);
    }
}

static int put_zero(lp_act *act, void *user)
{
    (void)user;
    memset(act->x, 0, (size_t)act->rows * (size_t)act->width * sizeof *act->x);
    return 0;
}

/* A session that holds part of the prompt, all of it, another, or one that was tampered with: the same answer, and the
 * session is as before, its hooks too. */
static void left_as_found(void)
{
    lp_session *fresh = new_session(model, NULL, NULL);
    lp_causal want = ask(fresh, question(4));
    CHECK(lp_session_pos(fresh) == 0 && !lp_session_logits(fresh));
    for (int way = 0; way < 5; way++) {
        static const int held[] = {3, N, N, 8, N};
        lp_session *s = new_session(model, NULL, NULL), *twin = new_session(model, NULL, NULL);
        int tokens[N], n = held[way], next[] = {7, 9}, handle = 0;
        float before[V], x[N * PLAIN_D] = {0};
        memcpy(tokens, ids, sizeof tokens);
        if (way == 2) tokens[2] = tokens[2] == 9 ? 10 : 9;
        if (way >= 3)
            handle = lp_session_hook(s, (lp_hook){.site = LP_RESID_MID, .layer = 1, .edits = true, .fn = put_zero},
                                     NULL);
        CHECK(lp_session_eval(s, tokens, (size_t)n, NULL) == LP_OK);
        if (handle && way == 4) lp_session_unhook(s, handle);
        lp_tape tape = tape_on(x);
        CHECK(lp_session_hook(s, lp_tap(LP_RESID_POST, 1, &tape), NULL) > 0);
        memcpy(before, lp_session_logits(s), sizeof before);
        int edited = lp_session_edited_from(s);
        lp_causal out = ask(s, question(4));
        CHECK(same(&out, &want));
        CHECK(lp_session_pos(s) == n && memcmp(lp_session_tokens(s), tokens, (size_t)n * sizeof *tokens) == 0);
        CHECK_SAME(lp_session_logits(s), before, V);
        CHECK(lp_session_edited_from(s) == edited && edited == (way >= 3 ? 0 : -1));
        for (int i = 0; i < N * PLAIN_D; i++) CHECK(x[i] == 0);
        if (handle && way == 3) lp_session_unhook(s, handle);
        if (way < 3) { /* and goes on as one nobody asked */
            CHECK(lp_session_eval(twin, tokens, (size_t)n, NULL) == LP_OK);
            CHECK(lp_session_eval(s, next, 2, NULL) == LP_OK && lp_session_eval(twin, next, 2, NULL) == LP_OK);
            CHECK_SAME(lp_session_logits(s), lp_session_logits(twin), V);
        }
        lp_causal_free(&out);
        lp_session_free(s), lp_session_free(twin);
    }
    lp_causal_free(&want);
    lp_session_free(fresh);
}

static void no_direction(float *enc, float *dec, const shape *s)
{
    (void)enc;
    memset(dec, 0, (size_t)s->d_sae * (size_t)s->d_out * sizeof *dec);
}

/* Features that write nothing change nothing, and features that do not fire are never there. */
static void what_changes_nothing(void)
{
    shape mute = {"mute", "jumprelu", "blocks.1.hook_resid_post", NULL, NULL, PLAIN_D, S, PLAIN_D, 0.3f, no_direction};
    shape deaf = {"deaf", "jumprelu", "blocks.1.hook_resid_post", NULL, NULL, PLAIN_D, S, PLAIN_D, 1e9f, NULL};
    lp_sae *two[] = {make_sae(&mute), make_sae(&deaf)};
    record *got = lp_calloc(1, sizeof *got);
    got->logits = lp_calloc((size_t)MOST * V, sizeof *got->logits), got->vocab = V;
    lp_session *s = new_session(model, NULL, NULL);
    lp_causal_question q = question(5);
    lp_causal out;
    q.k = MOST, q.fn = on_row, q.user = got;
    CHECK(lp_causal_rank(&out, s, (const lp_sae *const *)two, 2, &q, NULL) == LP_OK);
    CHECK(lp_session_eval(s, ids, N, NULL) == LP_OK && out.n > 0);
    for (size_t i = 0; i < out.n; i++) {
        const lp_causal_row *r = &out.rows[i];
        CHECK(r->sae == 0 && r->d_logit == 0 && r->d_logprob == 0 && r->kl == 0 && r->best == out.best);
        CHECK(r->best_p == out.best_p);
        CHECK_SAME(got->logits + i * V, lp_session_logits(s), V);
    }
    lp_causal_free(&out);
    CHECK(lp_causal_rank(&out, s, (const lp_sae *const *)two + 1, 1, &q, NULL) == LP_OK && out.n == 0);
    lp_causal_free(&out);
    lp_session_free(s);
    lp_sae_close(two[0]), lp_sae_close(two[1]);
    free(got->logits), free(got);
}

/* ---- edges ------------------------------------------------------------------------------------------------------- */

static void how_many(void)
{
    lp_session *s = new_session(model, NULL, NULL);
    lp_causal_question q = question(6);
    q.k = 0;
    lp_causal out = ask(s, q);
    CHECK(out.n == 0 && out.target >= 0);
    lp_causal_free(&out);
    q.k = INT_MAX;
    out = ask(s, q);
    CHECK((int)out.n == count_active(model, list(0), N_SAES, ids, N, 6) && out.n > 100);
    lp_causal_free(&out);
    CHECK(lp_causal_rank(&out, s, NULL, 0, &q, NULL) == LP_OK && out.n == 0);
    lp_causal_free(&out);
    q = question(-1), q.rank_by = LP_CAUSAL_KL, q.target = 7;
    out = ask(s, q);
    CHECK(out.at == N - 1 && out.target == 7 && out.best != 7);
    for (size_t i = 1; i < out.n; i++) CHECK(out.rows[i - 1].kl >= out.rows[i].kl);
    lp_causal_free(&out);
    lp_session_free(s);
    int one[] = {5};
    CHECK(as_reruns(model, list(0), N_SAES, one, 1, 0, 8) == 8);
}

static void refused(lp_causal_question q, const lp_sae *const *some, int n, lp_status want, const char *words)
{
    lp_session *s = new_session(model, NULL, NULL);
    lp_causal out = {.n = 99};
    lp_error err = {0};
    CHECK(lp_causal_rank(&out, s, some, n, &q, &err) == want && err.status == want);
    CHECK(out.n == 0 && !out.rows);
    if (!strstr(err.text, words)) fprintf(stderr, "%s\n", err.text);
    CHECK(strstr(err.text, words) != NULL);
    CHECK(lp_session_pos(s) == 0);
    lp_session_free(s);
}

static void what_is_refused(void)
{
    lp_causal_question q = question(N);
    refused(q, list(0), 1, LP_E_RANGE, "the prompt has positions 0 to 10");
    q.at = -N - 1, refused(q, list(0), 1, LP_E_RANGE, "positions 0 to 10");
    q.at = 0, refused(q, list(0), 1, LP_E_RANGE, "<bos>");
    q = question(3), q.target = V, refused(q, list(0), 1, LP_E_RANGE, "ids go from 0 to 159");
    q = question(3), q.k = -1, refused(q, list(0), 1, LP_E_RANGE, "0 or more");
    q = question(-1), q.n = 0, refused(q, list(0), 1, LP_E_RANGE, "a prompt of 0 tokens");
    int wrong[] = {model->config.bos, 3, V};
    q = (lp_causal_question){.ids = wrong, .n = 3, .at = 1, .target = -1, .k = 3};
    refused(q, list(0), 1, LP_E_RANGE, "160");
    shape wide = {"wide", "jumprelu", "blocks.1.hook_resid_post", NULL, NULL, 40, S, 40, 0.3f, NULL};
    lp_sae *sae = make_sae(&wide);
    refused(question(3), (const lp_sae *const *)&sae, 1, LP_E_SHAPE, "wide");
    lp_sae_close(sae);
}

/* Cancelled before it began and on the way, stopped by whoever watches: nothing is left, and the session goes on. */
static void interrupted(void)
{
    atomic_bool flag = true;
    lp_session *s = new_session(model, NULL, &(lp_env){.cancel = &flag});
    record *got = lp_calloc(1, sizeof *got);
    lp_causal_question q = question(4);
    lp_causal out;
    lp_error err = {0};
    q.fn = on_row, q.user = got;
    CHECK(lp_causal_rank(&out, s, list(0), N_SAES, &q, &err) == LP_CANCELLED && out.n == 0 && got->n == 0);
    atomic_store(&flag, false);
    got->stops_at = 3, got->raises = &flag;
    CHECK(lp_causal_rank(&out, s, list(0), N_SAES, &q, &err) == LP_CANCELLED && !out.rows && got->n == 3);
    atomic_store(&flag, false);
    got->n = 0, got->raises = NULL;
    CHECK(lp_causal_rank(&out, s, list(0), N_SAES, &q, &err) == LP_STOPPED && !out.rows && got->n == 3);
    CHECK(err.status == LP_OK && lp_session_pos(s) == 0);
    q.fn = NULL;
    out = ask(s, q);
    CHECK(out.n == 25);
    lp_causal_free(&out);
    lp_session_free(s);
    free(got);
}

static void tokens_by_name(void)
{
    lp_error err = {0};
    int id = -1;
    CHECK(lp_causal_token(&id, model, "0159", &err) == LP_OK && id == 159);
    CHECK(lp_causal_token(&id, model, "160", &err) == LP_E_RANGE);
    CHECK(lp_causal_token(&id, model, "99999999999999999999", &err) == LP_E_RANGE);
    lp_model *m = NULL;
    CHECK(lp_model_open(&m, LP_DATA_DIR "/base", NULL, NULL, &err) == LP_OK);
    if (!m) return;
    CHECK(lp_causal_token(&id, m, " the", &err) == LP_OK);
    CHECK_STR(lp_tokenizer_piece(m->tokenizer, id, NULL), "\xe2\x96\x81the");
    CHECK(lp_causal_token(&id, m, "<bos>", &err) == LP_OK && id == m->config.bos);
    CHECK(lp_causal_token(&id, m, " the whale", &err) == LP_E_RANGE);
    CHECK(strstr(err.text, "tokens (") && strstr(err.text, "\xe2\x96\x81the\""));
    CHECK(lp_causal_token(&id, m, "", &err) == LP_E_RANGE && strstr(err.text, "0 tokens"));
    lp_model_close(m);
}

int main(void)
{
    if (!open_all()) return check_done();
    every_kind();
    every_model();
    however_it_runs();
    left_as_found();
    what_changes_nothing();
    how_many();
    what_is_refused();
    interrupted();
    tokens_by_name();
    close_all();
    return check_done();
}
