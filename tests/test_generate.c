/* The token loop: stop strings across tokens, streaming equal to the whole, reuse of a prefix, every way to finish. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* mkdtemp */
#endif
#include "tests/models.h"

#include "core/edit.h"
#include "core/generate.h"
#include "core/lens.h"
#include "core/synth.h"

#include <limits.h>
#include <unistd.h>

enum { N_CTX = 96, N_PROMPT = 9 };

static lp_model *model;
static int prompt[N_PROMPT];

/* A model that speaks: random weights, a made-up vocabulary of 1024 pieces. */
static lp_model *make_model(void)
{
    char dir[] = "/tmp/lp_generate_XXXXXX", path[64], command[128];
    lp_synth_options o = {.type = LP_F32, .seed = 3};
    lp_error err = {0};
    lp_model *m = NULL;
    CHECK(mkdtemp(dir) != NULL && lp_config_shape(&o.config, "nano"));
    CHECK(lp_synth_set(&o.config,
                       "n_layers=3,d_model=64,n_heads=4,n_kv_heads=2,head_dim=16,d_ff=128,vocab=1024,max_positions=96,"
                       "window=8,query_pre_attn_scalar=16",
                       &err) == LP_OK);
    snprintf(path, sizeof path, "%s/model", dir);
    CHECK(lp_synth_write(path, &o, NULL, &err) == LP_OK);
    CHECK(lp_model_open(&m, path, NULL, NULL, &err) == LP_OK);
    if (err.text[0]) fprintf(stderr, "%s\n", err.text);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    CHECK(system(command) == 0);
    return m;
}

/* ---- one generation, watched -------------------------------------------------------------------------------- */

typedef struct watch {
    char text[8192];
    size_t len;
    int ids[N_CTX + 1], n;
    int stop_at; /* tokens after which the callback says stop; 0: never */
    atomic_bool *cancel;
    int cancel_at;
    lp_finish last;
    bool order_is_right, logprobs_are_right;
} watch;

static int on_token(const lp_generated *t, void *user)
{
    watch *w = user;
    w->order_is_right = w->order_is_right && t->index == w->n && t->pos == N_PROMPT + w->n && w->last == LP_FINISH_NONE;
    for (int i = 0; i < t->n_top; i++) {
        if (i && t->top[i].score > t->top[i - 1].score) w->logprobs_are_right = false;
        if (t->top[i].id == t->id && t->top[i].score != t->logprob) w->logprobs_are_right = false;
    }
    if (t->n_top && !(t->logprob <= t->top[0].score)) w->logprobs_are_right = false;
    memcpy(w->text + w->len, t->text, t->len);
    w->len += t->len;
    w->ids[w->n++] = t->id;
    w->last = t->finish;
    if (w->cancel && w->n == w->cancel_at) atomic_store(w->cancel, true);
    return w->stop_at && w->n == w->stop_at;
}

/* Sampled, since a random model in greedy mode says one word for ever. */
static const lp_sample_options lively = {.temperature = 1.3, .seed = 11};

static lp_status run_on(lp_session *s, lp_generation *g, watch *w, lp_generate_options o, const lp_sample_options *how)
{
    lp_sampler *sampler = NULL;
    lp_error err = {0};
    o.fn = on_token;
    o.user = w;
    w->order_is_right = w->logprobs_are_right = true;
    CHECK(lp_sampler_new(&sampler, model->config.vocab, how, &err) == LP_OK);
    CHECK(lp_generate_prompt(s, prompt, N_PROMPT, &err) == LP_OK);
    lp_status st = lp_generate(g, s, sampler, &o, &err);
    if (st < 0) fprintf(stderr, "%s\n", err.text);
    CHECK(w->order_is_right && w->logprobs_are_right);
    CHECK((size_t)w->n == g->n && memcmp(w->ids, g->ids, g->n * sizeof *g->ids) == 0);
    CHECK(w->len == g->len && memcmp(w->text, g->text, g->len) == 0); /* streaming equals batch */
    CHECK(strlen(g->text) <= g->len);
    /* the session holds the prompt and all but the last token drawn */
    CHECK(g->n == 0 || lp_session_pos(s) == N_PROMPT + (int)g->n - 1);
    lp_sampler_free(sampler);
    return st;
}

static lp_status run(lp_generation *g, watch *w, lp_generate_options o)
{
    lp_session *s = new_session(model, NULL, NULL);
    lp_status st = run_on(s, g, w, o, &lively);
    lp_session_free(s);
    return st;
}

/* ---- the text ------------------------------------------------------------------------------------------------ */

/* What was said without any stop string, and how the tokens cut it. */
static void plain_text(lp_generation *g, watch *w)
{
    CHECK(run(g, w, (lp_generate_options){.max_tokens = 40, .ignore_eos = 1, .logprobs = 1, .n_top = 5}) == LP_OK);
    CHECK(g->finish == LP_FINISH_LENGTH && g->n == 40 && g->len > 40);
}

static void test_text_is_the_decoded_tokens(void)
{
    lp_generation g = {0};
    watch w = {0};
    char *text = NULL;
    size_t len = 0;
    lp_error err = {0};
    plain_text(&g, &w);
    CHECK(lp_tokenizer_decode(model->tokenizer, g.ids, g.n, 0, &text, &len, &err) == LP_OK);
    CHECK(len == g.len && memcmp(text, g.text, len) == 0);
    for (size_t i = 0; i < g.n; i++) CHECK(g.logprobs[i] <= 0 && g.logprobs[i] > -40);
    free(text);
    lp_generation_free(&g);
}

/* Every substring of the text of 1 to 9 bytes in turn as a stop string: wherever tokens cut it, the text must end before
 * its first occurrence, and nothing of it may have been streamed. */
static void test_stop_strings_anywhere(void)
{
    lp_generation whole = {0};
    watch w = {0};
    plain_text(&whole, &w);
    lp_session *s = new_session(model, NULL, NULL);
    for (size_t at = 0; at + 9 < whole.len; at += 7)
        for (size_t len = 1; len <= 9; len += 2) {
            char stop[16] = {0};
            memcpy(stop, whole.text + at, len);
            const char *first = memmem(whole.text, whole.len, stop, len);
            if (strlen(stop) < len || !first) continue; /* a NUL byte: not a string */
            const char *list[] = {"never said \x01", stop};
            lp_generation g = {0};
            watch seen = {0};
            lp_generate_options o = {.max_tokens = 40, .ignore_eos = 1, .stop = list, .n_stop = 2};
            CHECK(run_on(s, &g, &seen, o, &lively) == LP_OK);
            CHECK(g.finish == LP_FINISH_STRING && g.stop_string == 1 && seen.last == LP_FINISH_STRING);
            CHECK(g.len == (size_t)(first - whole.text) && memcmp(g.text, whole.text, g.len) == 0);
            CHECK(g.n <= whole.n && memcmp(g.ids, whole.ids, g.n * sizeof *g.ids) == 0);
            lp_generation_free(&g);
        }
    /* A stop string whose beginning is said, but not its end, holds text back and then lets it go. */
    char tail[16] = {0};
    memcpy(tail, whole.text + whole.len - 6, 6);
    strcat(tail, "\x01");
    const char *list[] = {tail};
    lp_generation g = {0};
    watch seen = {0};
    CHECK(run_on(s, &g, &seen, (lp_generate_options){.max_tokens = 40, .ignore_eos = 1, .stop = list, .n_stop = 1},
                 &lively) == LP_OK);
    CHECK(g.finish == LP_FINISH_LENGTH && g.stop_string == -1);
    CHECK(g.len == whole.len && memcmp(g.text, whole.text, g.len) == 0);
    lp_generation_free(&g);
    lp_generation_free(&whole);
    lp_session_free(s);
}

/* Of the stop strings that one token completes, the one that begins earlier ends the text, wherever it is listed. */
static void test_earliest_stop(void)
{
    lp_generation whole = {0};
    watch w = {0};
    int cases = 0;
    plain_text(&whole, &w);
    for (size_t at = 0; at + 2 < whole.len; at++) {
        char late[2] = {whole.text[at + 1]}, early[2] = {whole.text[at]};
        bool is_first = !memchr(whole.text, early[0], at) && !memchr(whole.text, late[0], at + 1);
        if (!is_first || !early[0] || !late[0]) continue;
        const char *list[] = {late, early};
        lp_generation g = {0};
        watch seen = {0};
        lp_generate_options o = {.max_tokens = 40, .ignore_eos = 1, .stop = list, .n_stop = 2};
        CHECK(run(&g, &seen, o) == LP_OK);
        CHECK(g.finish == LP_FINISH_STRING && g.stop_string == 1 && g.len == at);
        lp_generation_free(&g);
        cases++;
    }
    CHECK(cases > 3);
    lp_generation_free(&whole);
}

/* ---- ways to finish ------------------------------------------------------------------------------------------ */

static void test_stop_tokens(void)
{
    lp_generation whole = {0}, g = {0};
    watch w = {0}, seen = {0};
    plain_text(&whole, &w);
    int stop = whole.ids[7], first = 0;
    while (whole.ids[first] != stop) first++;
    lp_generate_options o = {.max_tokens = 40, .ignore_eos = 1, .stop_ids = &stop, .n_stop_ids = 1};
    CHECK(run(&g, &seen, o) == LP_OK && g.finish == LP_FINISH_TOKEN);
    CHECK(g.n == (size_t)first + 1 && g.ids[first] == stop && seen.last == LP_FINISH_TOKEN);
    lp_generation_free(&g);
    lp_generation_free(&whole);

    int end = lp_tokenizer_find(model->tokenizer, "<end_of_turn>"), eos = lp_tokenizer_find(model->tokenizer, "<eos>");
    CHECK(end > 0 && eos >= 0 && lp_is_end(model, end) && lp_is_end(model, eos));
    CHECK(!lp_is_end(model, -1) && !lp_is_end(model, end + 1));
    /* A bias makes <end_of_turn> come at once; ignored, it is a token like any other, and without text. */
    const lp_bias only[] = {{end, 1000}};
    const lp_sample_options how = {.bias = only, .n_bias = 1};
    lp_session *s = new_session(model, NULL, NULL);
    seen = (watch){0};
    CHECK(run_on(s, &g, &seen, (lp_generate_options){.max_tokens = 5}, &how) == LP_OK);
    CHECK(g.finish == LP_FINISH_TOKEN && g.n == 1 && g.len == 0);
    seen = (watch){0};
    CHECK(run_on(s, &g, &seen, (lp_generate_options){.max_tokens = 5, .ignore_eos = 1}, &how) == LP_OK);
    CHECK(g.finish == LP_FINISH_LENGTH && g.n == 5 && g.len == 0);
    seen = (watch){0};
    CHECK(run_on(s, &g, &seen, (lp_generate_options){.max_tokens = 2, .ignore_eos = 1, .show_specials = 1}, &how) ==
          LP_OK);
    CHECK_STR(g.text, "<end_of_turn><end_of_turn>");
    lp_generation_free(&g);
    lp_session_free(s);
}

static void test_context_full(void)
{
    lp_generation g = {0};
    watch w = {0};
    lp_error err = {0};
    lp_session *s = new_session(model, NULL, NULL);
    CHECK(run_on(s, &g, &w, (lp_generate_options){.ignore_eos = 1}, &lively) == LP_OK);
    CHECK(g.finish == LP_FINISH_CONTEXT && lp_session_pos(s) == N_CTX && g.n == N_CTX - N_PROMPT + 1);
    int many[N_CTX + 1] = {0};
    CHECK(lp_generate_prompt(s, many, N_CTX + 1, &err) == LP_E_RANGE && strstr(err.text, "97") &&
          strstr(err.text, "96"));
    CHECK(lp_session_pos(s) == N_CTX); /* refused before anything was forgotten */
    CHECK(lp_generate_prompt(s, many, 0, &err) == LP_E_RANGE);
    CHECK(lp_generate_prompt(s, many, N_CTX, &err) == LP_OK && lp_session_pos(s) == N_CTX);
    lp_generation_free(&g);
    lp_session_free(s);
}

static void test_stopping_and_cancelling(void)
{
    lp_generation g = {0};
    watch w = {.stop_at = 6};
    CHECK(run(&g, &w, (lp_generate_options){.max_tokens = 40, .ignore_eos = 1}) == LP_STOPPED);
    CHECK(g.finish == LP_FINISH_STOPPED && g.n == 6);

    atomic_bool cancel = false;
    const lp_env env = {.cancel = &cancel};
    lp_session *s = new_session(model, NULL, &env);
    w = (watch){.cancel = &cancel, .cancel_at = 4};
    CHECK(run_on(s, &g, &w, (lp_generate_options){.max_tokens = 40, .ignore_eos = 1}, &lively) == LP_CANCELLED);
    CHECK(g.finish == LP_FINISH_CANCELLED && g.n == 4); /* within one token */
    atomic_store(&cancel, false);
    w = (watch){0};
    CHECK(run_on(s, &g, &w, (lp_generate_options){.max_tokens = 3, .ignore_eos = 1}, &lively) ==
          LP_OK); /* still usable */
    lp_generation_free(&g);
    lp_session_free(s);
}

static void test_refusals(void)
{
    lp_generation g = {0};
    lp_error err = {0};
    lp_sampler *sampler = NULL, *wrong = NULL;
    lp_session *s = new_session(model, NULL, NULL);
    const char *empty[] = {""};
    CHECK(lp_sampler_new(&sampler, model->config.vocab, &lively, &err) == LP_OK);
    CHECK(lp_sampler_new(&wrong, 7, &lively, &err) == LP_OK);
    CHECK(lp_generate(&g, s, sampler, &(lp_generate_options){0}, &err) == LP_E_RANGE && strstr(err.text, "logits"));
    CHECK(lp_generate_prompt(s, prompt, N_PROMPT, &err) == LP_OK);
    CHECK(lp_generate(&g, s, sampler, &(lp_generate_options){.stop = empty, .n_stop = 1}, &err) == LP_E_RANGE);
    CHECK(lp_generate(&g, s, wrong, &(lp_generate_options){0}, &err) == LP_E_SHAPE);
    lp_generation_free(&g);
    lp_generation_free(NULL);
    lp_sampler_free(sampler);
    lp_sampler_free(wrong);
    lp_session_free(s);
}

/* ---- the prefix ---------------------------------------------------------------------------------------------- */

typedef struct shown {
    int first, rows, calls;
} shown;

static int on_rows(lp_act *act, void *user)
{
    shown *x = user;
    if (!x->calls++) x->first = act->pos;
    x->rows += act->rows;
    return 0;
}

static void test_prefix_is_reused(void)
{
    enum { N = 30, CUT = 17 };
    int ids[N], V = model->config.vocab;
    lp_error err = {0};
    lp_session *s = new_session(model, NULL, NULL), *fresh = new_session(model, NULL, NULL);
    shown x = {0};
    some_tokens(ids, N, V, 5);
    CHECK(lp_generate_prompt(s, ids, N, &err) == LP_OK);
    for (int i = CUT; i < N; i++) ids[i] = (ids[i] + 1) % V;
    CHECK(lp_session_hook(s, (lp_hook){LP_RESID_PRE, 0, false, on_rows, &x}, &err) > 0);
    CHECK(lp_generate_prompt(s, ids, N, &err) == LP_OK);
    CHECK(x.first == CUT && x.rows == N - CUT); /* the common prefix was not run again */
    CHECK(lp_generate_prompt(fresh, ids, N, &err) == LP_OK);
    CHECK_SAME(lp_session_logits(s), lp_session_logits(fresh), (size_t)V);
    x = (shown){0};
    CHECK(lp_generate_prompt(s, ids, N, &err) == LP_OK && x.rows == 1 && x.first == N - 1); /* at least one token */
    CHECK_SAME(lp_session_logits(s), lp_session_logits(fresh), (size_t)V);
    x = (shown){0};
    CHECK(lp_generate_prompt(s, ids, 4, &err) == LP_OK && lp_session_pos(s) == 4 && x.rows == 1); /* shorter */
    CHECK(lp_session_rewind(fresh, 0, &err) == LP_OK && lp_generate_prompt(fresh, ids, 4, &err) == LP_OK);
    CHECK_SAME(lp_session_logits(s), lp_session_logits(fresh), (size_t)V);
    lp_session_free(s);
    lp_session_free(fresh);
}

/* What was computed under an edit is not the model's own and is not kept. */
static void test_edited_prefix_is_not_reused(void)
{
    enum { N = 20 };
    int ids[N], V = model->config.vocab;
    lp_error err = {0};
    lp_session *s = new_session(model, NULL, NULL), *fresh = new_session(model, NULL, NULL);
    lp_edit zero = {.kind = LP_EDIT_ZERO, .from = 3, .to = INT_MAX};
    some_tokens(ids, N, V, 6);
    int handle = lp_session_hook(s, lp_edit_hook(LP_RESID_MID, 1, &zero), &err);
    CHECK(handle > 0 && lp_generate_prompt(s, ids, N, &err) == LP_OK);
    CHECK(lp_generate_prompt(fresh, ids, N, &err) == LP_OK);
    CHECK(memcmp(lp_session_logits(s), lp_session_logits(fresh), (size_t)V * sizeof(float)) != 0);
    lp_session_unhook(s, handle);
    CHECK(lp_generate_prompt(s, ids, N, &err) == LP_OK);
    CHECK(lp_session_edited_from(s) == -1);
    CHECK_SAME(lp_session_logits(s), lp_session_logits(fresh), (size_t)V);
    lp_session_free(s);
    lp_session_free(fresh);
}

/* ---- edits and the lens -------------------------------------------------------------------------------------- */

static void test_edits(void)
{
    enum { ROWS = 4, HEADS = 2, WIDTH = 3, ALL = ROWS * HEADS * WIDTH };
    float x[ALL], v[ALL];
    lp_act act = {.site = LP_Z, .layer = 0, .pos = 10, .rows = ROWS, .heads = HEADS, .width = WIDTH, .x = x};
    for (int i = 0; i < ALL; i++) v[i] = (float)(100 + i);
    struct {
        lp_edit e;
        int first, last; /* floats changed: [first, last) */
        float want;      /* of the first                  */
    } cases[] = {
        {{.kind = LP_EDIT_ZERO, .from = 11, .to = 13}, 6, 18, 0},
        {{.kind = LP_EDIT_ADD, .v = v, .scale = 2, .from = 13, .to = INT_MAX}, 18, 24, 18 + 200},
        {{.kind = LP_EDIT_REPLACE, .v = v, .from = 0, .to = 11}, 0, 6, 100},
        {{.kind = LP_EDIT_REPLACE, .v = v, .stride = 6, .from = 9, .to = 11}, 0, 6, 106}, /* row 10 of one from 9 on */
        {{.kind = LP_EDIT_REPLACE, .v = v, .from = 12, .to = 13, .head = 1, .one_head = 1}, 15, 18, 100},
        {{.kind = LP_EDIT_ZERO, .from = 12, .to = 13, .head = 2, .one_head = 1}, 0, 0, 0}, /* no such head */
        {{.kind = LP_EDIT_ZERO, .from = 14, .to = INT_MAX}, 0, 0, 0},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        lp_hook h = lp_edit_hook(LP_Z, 0, &cases[k].e);
        for (int i = 0; i < ALL; i++) x[i] = (float)i;
        CHECK(h.edits && h.fn(&act, h.user) == 0);
        if (cases[k].last) CHECK(x[cases[k].first] == cases[k].want);
        for (int i = 0; i < ALL; i++) CHECK((x[i] != (float)i) == (i >= cases[k].first && i < cases[k].last));
    }
    /* rows of scores grow: v has 5 keys a head, the activation 3, then only 2 of 3 are covered */
    lp_edit wide = {.kind = LP_EDIT_REPLACE, .v = v, .from = 10, .to = 11, .keys = 5};
    for (int i = 0; i < ALL; i++) x[i] = (float)i;
    lp_edit_hook(LP_PATTERN, 0, &wide).fn(&act, &wide);
    CHECK(x[0] == 100 && x[2] == 102 && x[3] == 105 && x[5] == 107 && x[6] == 6);
    wide.keys = 2;
    for (int i = 0; i < ALL; i++) x[i] = (float)i;
    lp_edit_hook(LP_PATTERN, 0, &wide).fn(&act, &wide);
    CHECK(x[1] == 101 && x[2] == 2 && x[3] == 102 && x[4] == 103 && x[5] == 5);
}

static void test_lens_ends_at_the_model(void)
{
    enum { K = 6 };
    int L = model->config.n_layers, D = model->config.d_model, V = model->config.vocab;
    float *x = calloc((size_t)(L * D), sizeof *x);
    lp_lens_row rows[8];
    lp_scored top[8 * K];
    lp_error err = {0};
    lp_session *s = new_session(model, NULL, NULL);
    lp_tape tape = {.x = x, .n_layers = L, .first_pos = N_PROMPT - 1, .n_pos = 1, .width = D};
    CHECK(lp_session_hook(s, lp_tap(LP_RESID_POST, LP_EVERY_LAYER, &tape), &err) > 0);
    CHECK(lp_session_eval(s, prompt, N_PROMPT, &err) == LP_OK);
    const float *logits = lp_session_logits(s);
    int best = lp_argmax(logits, V), other = (best + 1) % V, above = 0;
    CHECK(lp_lens_read(rows, top, s, x, L, K, other, &err) == LP_OK);
    const lp_lens_row *last = &rows[L - 1];
    double norm = lp_log_sum_exp(logits, V), mass = 0, entropy = 0;
    for (int i = 0; i < V; i++) {
        double p = exp((double)logits[i] - norm);
        mass += p;
        entropy -= p * log2(p);
        above += logits[i] > logits[other] || (logits[i] == logits[other] && i < other);
    }
    CHECK_NEAR(mass, 1, 1e-5);
    CHECK(last->n_top == K && last->top[0].id == best && last->rank == above);
    CHECK_NEAR(last->top[0].score, exp((double)logits[best] - norm), 1e-6);
    CHECK_NEAR(last->p, exp((double)logits[other] - norm), 1e-6);
    CHECK_NEAR(last->entropy, entropy, 1e-4);
    CHECK(rows[0].top == top && rows[1].top == top + K);
    CHECK(lp_lens_read(rows, top, s, x, L, K, V, &err) == LP_E_RANGE);
    CHECK(lp_lens_read(rows, top, s, x, L, K, -1, &err) == LP_OK && rows[0].rank == -1);
    free(x);
    lp_session_free(s);
}

int main(void)
{
    model = make_model();
    if (!model) return check_done();
    some_tokens(prompt, N_PROMPT, model->config.vocab, 1);
    test_text_is_the_decoded_tokens();
    test_stop_strings_anywhere();
    test_earliest_stop();
    test_stop_tokens();
    test_context_full();
    test_stopping_and_cancelling();
    test_refusals();
    test_prefix_is_reused();
    test_edited_prefix_is_not_reused();
    test_edits();
    test_lens_ends_at_the_model();
    lp_model_close(model);
    return check_done();
}
