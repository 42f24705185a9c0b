/* Run files: they come back to the bit, hostile ones are refused in a line, a repetition is the same on any threads,
 * waves and kernels, and every difference is found and named.
 *
 * The run is a steered and sampled one of a small model; the hash of the model is pinned, since a run file is worth
 * nothing if the next version of the program hashes otherwise.
 */
#include "sae/run.h"
#include "tests/steered.h"

#include <float.h>

#define PLAIN_HASH "2240d978310fdbb3b7150623ce42e3ab"

static lp_run made; /* of this model, repeated once */
static char *text;  /* its file */
static size_t text_len;
static const lp_sae *used[2];

static const char features[] =
    "{\"layer\": \"res1\", \"index\": 3, \"kind\": \"clamp\", \"strength\": 6.1, \"x_why\": [1, \"two\"]},"
    "{\"layer\": \"res1\", \"index\": 8, \"strength\": 0.1, \"unit\": \"max_act\", \"max_act\": 8.53},"
    "{\"layer\": \"coder\", \"index\": 2, \"kind\": \"clamp\", \"strength\": 4}";

static lp_run_parts parts(const lp_session *s, const lp_recipe *r)
{
    static const lp_bias bias[] = {{7, -1.3f}, {9, -INFINITY}};
    static const uint8_t marks[N] = {[1] = 1, [2] = 1};
    static const char *const typed[] = {"./res1 as typed", NULL};
    static lp_sample_options sample;
    static const lp_generate_options generate = {.max_tokens = 14, .ignore_eos = 1};
    sample = lp_sample_gemma();
    sample.temperature = 11.1, sample.frequency = 0.1, sample.seed = UINT64_MAX - 4;
    sample.bias = bias, sample.n_bias = 2;
    return (lp_run_parts){.model = "plain",
                          .session = s,
                          .prompt = ids,
                          .n_prompt = N,
                          .is_template = marks,
                          .sample = &sample,
                          .generate = &generate,
                          .recipe = r,
                          .saes = r ? used : NULL,
                          .sae_names = r ? typed : NULL,
                          .n_saes = r ? 2 : 0};
}

static void make(lp_run *out, const lp_recipe *r)
{
    lp_error err = {0};
    lp_session *s = new_session(model, NULL, NULL);
    lp_run_parts p = parts(s, r);
    CHECK(lp_run_begin(out, &p, &err) == LP_OK);
    CHECK(lp_run_repeat(out, s, used, 2, &err) == LP_OK);
    if (err.status) fprintf(stderr, "%s\n", err.text);
    lp_session_free(s);
}

static char *temporary(void)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/lapidary-run-%ld.json", (long)getpid());
    return path;
}

/* r as a file's bytes. */
static char *as_text(size_t *n, const lp_run *r)
{
    char *out = NULL;
    lp_error err = {0};
    CHECK(lp_run_write(r, temporary(), &err) == LP_OK);
    if (err.status) fprintf(stderr, "%s\n", err.text);
    CHECK(lp_read_file(&out, n, temporary(), LP_RUN_BYTES, NULL) == LP_OK);
    unlink(temporary());
    if (!out) exit(1);
    return out;
}

static lp_run parsed(const char *s, size_t n)
{
    lp_run r;
    lp_error err = {0};
    CHECK(lp_run_parse(&r, s, n, &err) == LP_OK);
    if (err.status) fprintf(stderr, "%s\n", err.text);
    return r;
}

/* ---- there and back ---------------------------------------------------------------------------------------------- */

static void same_sampling(const lp_run *a, const lp_run *b)
{
    const lp_sample_options *s = &a->sample, *t = &b->sample;
    const lp_generate_options *g = &a->generate, *h = &b->generate;
    const double x[] = {s->temperature, s->top_p, s->min_p, s->repetition, s->presence, s->frequency};
    const double y[] = {t->temperature, t->top_p, t->min_p, t->repetition, t->presence, t->frequency};
    CHECK(memcmp(x, y, sizeof x) == 0 && s->top_k == t->top_k && s->penalty_window == t->penalty_window);
    CHECK(s->order == t->order && s->seed == t->seed && s->n_bias == t->n_bias);
    for (int i = 0; i < s->n_bias && s->n_bias == t->n_bias; i++)
        CHECK(s->bias[i].id == t->bias[i].id && memcmp(&s->bias[i].add, &t->bias[i].add, sizeof(float)) == 0);
    CHECK(g->max_tokens == h->max_tokens && g->ignore_eos == h->ignore_eos && g->show_specials == h->show_specials);
    CHECK(g->n_stop == h->n_stop && g->n_stop_ids == h->n_stop_ids);
    for (int i = 0; i < g->n_stop && g->n_stop == h->n_stop; i++) CHECK_STR(h->stop[i], g->stop[i]);
    for (int i = 0; i < g->n_stop_ids && g->n_stop_ids == h->n_stop_ids; i++) CHECK(g->stop_ids[i] == h->stop_ids[i]);
}

static void same_run(const lp_run *a, const lp_run *b)
{
    char x[33], y[33];
    CHECK_STR(b->model, a->model);
    CHECK_STR(b->kernels, a->kernels);
    CHECK(a->vocab == b->vocab && a->n_prompt == b->n_prompt && a->session.n_ctx == b->session.n_ctx);
    CHECK(memcmp(a->prompt, b->prompt, a->n_prompt * sizeof(int)) == 0);
    CHECK(!a->is_template == !b->is_template);
    if (a->is_template && b->is_template) CHECK(memcmp(a->is_template, b->is_template, a->n_prompt) == 0);
    same_sampling(a, b);
    CHECK(a->has_recipe == b->has_recipe);
    CHECK(lp_recipe_hash(x, &a->recipe, NULL) == LP_OK && lp_recipe_hash(y, &b->recipe, NULL) == LP_OK);
    CHECK_STR(y, x);
    for (size_t i = 0; i < a->n_saes && a->n_saes == b->n_saes; i++) CHECK_STR(b->saes[i].name, a->saes[i].name);
    CHECK((a->sae_site == NULL) == (b->sae_site == NULL));
    lp_run_difference d = lp_run_compare(a, b);
    CHECK(d.part == LP_RUN_SAME);
    CHECK_STR(d.text, "");
}

static void round_trip(void)
{
    size_t n;
    lp_run again = parsed(text, text_len);
    same_run(&made, &again);
    CHECK(again.n_ids == 14 && again.finish == LP_FINISH_LENGTH && again.n_saes == 2 && again.n_readings > 30);
    CHECK_STR(again.saes[0].name, "./res1 as typed");
    CHECK_STR(again.saes[1].name, "coder");
    CHECK(strstr(again.recipe.edits[0].extra, "x_why") != NULL);
    char *twice = as_text(&n, &again);
    CHECK(n == text_len && memcmp(twice, text, n) == 0);
    free(twice);
    lp_run_clear(&again);
    lp_run plain;
    make(&plain, NULL); /* not steered: no recipe, no readings */
    twice = as_text(&n, &plain);
    again = parsed(twice, n);
    same_run(&plain, &again);
    CHECK(!again.has_recipe && !again.n_readings && !again.n_saes && again.n_ids == 14);
    CHECK(memcmp(again.ids, made.ids, 14 * sizeof(int)) != 0);
    free(twice);
    lp_run_clear(&again);
    lp_run_clear(&plain);
}

/* Numbers that a careless printer loses. */
static void odd_numbers(void)
{
    static const float odd[] = {0.1f, -0.0f, 1e-45f, FLT_MIN, FLT_MAX, -INFINITY, INFINITY, NAN, 8.53f, 16777217, 1e9f};
    static const double doubles[] = {0.1, 1.0 / 3, 5e-324, DBL_MAX, -0.0, 0.1 + 0.2, 1e300};
    enum { K = sizeof odd / sizeof *odd, M = sizeof doubles / sizeof *doubles };
    size_t n;
    lp_run r = parsed(text, text_len);
    for (int i = 0; i < K; i++) {
        r.readings[i].asked = odd[i], r.readings[i].before = -odd[i], r.readings[i].achieved = odd[K - 1 - i];
        r.readings[i].status = (lp_steer_status)(i % (LP_STEER_NOT_LINEAR + 1));
    }
    r.sample.order = LP_ORDER_LLAMA;
    r.generate.show_specials = 1;
    free(r.stop);
    r.stop = lp_calloc(3, sizeof *r.stop);
    r.stop[0] = lp_strdup("\"\\\n\t\xe2\x82\xac"), r.stop[1] = lp_strdup("</s>");
    r.generate.stop = (const char *const *)r.stop, r.generate.n_stop = 2;
    r.sae_site = lp_strdup("resid_post.1");
    for (int i = 0; i < M; i++) {
        r.sample.temperature = doubles[i], r.sample.presence = doubles[(i + 1) % M];
        r.bias[0].add = odd[i];
        char *s = as_text(&n, &r);
        lp_run again = parsed(s, n);
        same_run(&r, &again);
        for (size_t k = 0; k < r.n_readings; k++)
            CHECK(signbit(r.readings[k].before) == signbit(again.readings[k].before) || isnan(r.readings[k].before));
        free(s);
        lp_run_clear(&again);
    }
    lp_run_clear(&r);
}

/* ---- what is refused --------------------------------------------------------------------------------------------- */

static void refused(const char *s, size_t n, lp_status want, const char *says)
{
    lp_run r;
    lp_error err = {0};
    lp_status st = lp_run_parse(&r, s, n, &err);
    CHECK(st == want && err.text[0] && !strchr(err.text, '\n') && r.model == NULL);
    CHECK(strstr(err.text, says) != NULL);
    if (st != want || !strstr(err.text, says)) fprintf(stderr, "want %s\n said: %s\n", says, err.text);
    lp_run_clear(&r);
}

/* The file with the first `from` replaced. */
static void with(const char *from, const char *to, lp_status want, const char *says)
{
    char *at = strstr(text, from), *s = lp_calloc(text_len + strlen(to) + 1, 1);
    CHECK(at != NULL);
    if (!at || !s) return;
    size_t before = (size_t)(at - text);
    memcpy(s, text, before);
    strcpy(s + before, to);
    strcat(s, at + strlen(from));
    refused(s, strlen(s), want, says);
    free(s);
}

static void hostile(void)
{
    for (size_t n = 0; n < text_len - 2; n += n < 200 ? 1 : 97) refused(text, n, LP_E_FORMAT, "not JSON");
    refused("[1]", 3, LP_E_FORMAT, "not a run");
    refused("{}", 2, LP_E_FORMAT, "lapidary-run");
    with("\"version\": 1", "\"version\": 2", LP_E_UNSUPPORTED, "version 2");
    with("\"version\": 1", "\"version\": \"1\"", LP_E_FORMAT, "version");
    with("lapidary-run", "lapidary-walk", LP_E_FORMAT, "lapidary-run");
    with("\"name\": \"plain\"", "\"name\": 5", LP_E_FORMAT, "model: \"name\"");
    with("\"vocab\": 160", "\"vocab\": 5", LP_E_FORMAT, "from 0 to 4");
    with("\"vocab\": 160", "\"vocab\": 1e3", LP_E_FORMAT, "vocab");
    with("\"hash\": \"", "\"hash\": \"g", LP_E_FORMAT, "32 hexadecimal");
    with("\"exact\"", "\"precise\"", LP_E_FORMAT, "\"exact\" or \"fast\"");
    with("\"n_ctx\": ", "\"n_ctx\": -", LP_E_FORMAT, "n_ctx");
    with("\"prompt\": [", "\"prompt\": [160, ", LP_E_FORMAT, "prompt[0]");
    with("\"prompt\": [", "\"prompt\": [99999999999999, ", LP_E_FORMAT, "prompt[0]");
    with("\"prompt\": [", "\"prompt\": [-1, ", LP_E_FORMAT, "prompt[0]");
    with("\"prompt\": [", "\"prompt\": [], \"x\": [", LP_E_FORMAT, "not empty");
    with("\"template\": [", "\"template\": [11, ", LP_E_FORMAT, "template");
    with("\n \"ids\": [", "\n \"ids\": [\"a\", ", LP_E_FORMAT, "ids[0]");
    with("\"finish\": \"length\"", "\"finish\": \"cancelled\"", LP_E_FORMAT, "finish");
    with("\"seed\": \"", "\"seed\": \"9", LP_E_FORMAT, "64 bits");
    with("\"seed\": \"", "\"seed\": \"-", LP_E_FORMAT, "64 bits");
    with("\"add\": \"-inf\"", "\"add\": \"-infinite\"", LP_E_FORMAT, "bias[1]: \"add\"");
    with("\"add\": \"-inf\"", "\"add\": 1e39", LP_E_FORMAT, "float");
    with("\"texts\": []", "\"texts\": [\"\"]", LP_E_FORMAT, "texts");
    with("\"status\": \"plain\"", "\"status\": \"fancy\"", LP_E_FORMAT, "readback[0]: \"status\"");
    with("\"edit\": 0", "\"edit\": 3", LP_E_FORMAT, "readback[0]: \"edit\"");
    with("\"recipe\": {", "\"recipe\": {\"no\": 1, ", LP_E_FORMAT, "recipe: the recipe: unknown key \"no\"");
    with("\"recipe\": {", "\"recipe\": 5, \"x\": {", LP_E_FORMAT, "recipe");
    with("\"saes\": [", "\"saes\": [5, ", LP_E_FORMAT, "saes[0]");
    with("\"sampling\":", "\"simpling\":", LP_E_FORMAT, "sampling");
    with("\"max_tokens\"", "\"most_tokens\"", LP_E_FORMAT, "max_tokens");
}

/* Bytes changed, cut out and doubled: a run, or a line that says what is wrong. */
static void mutants(void)
{
    static const char bytes[] = "0159-.e\"[]{}:, \\nul\xff";
    char *s = lp_calloc(2 * text_len, 1);
    int n_read = 0;
    for (int i = 0; i < 4000; i++) {
        size_t n = text_len;
        memcpy(s, text, n);
        for (int k = 0; k <= i % 3; k++) {
            size_t at = (size_t)((noise() + 1) / 2 * 0.999f * (float)n);
            size_t len = (size_t)((noise() + 1) * 12) % (n - at);
            if (i % 5 == 0)
                memmove(s + at, s + at + len, n - at - len), n -= len;
            else if (i % 5 == 1 && n + len < 2 * text_len)
                memmove(s + at + len, s + at, n - at), n += len;
            else
                s[at] = bytes[(size_t)i * 7 % (sizeof bytes - 1)];
        }
        lp_run r;
        lp_error err = {0};
        lp_status st = lp_run_parse(&r, s, n, &err);
        if (st != LP_OK && (r.model || !err.text[0] || strchr(err.text, '\n'))) CHECK(!"a status without a line");
        n_read += st == LP_OK;
        lp_run_clear(&r);
    }
    CHECK(n_read > 0 && n_read < 3000); /* many changes are of a digit */
    free(s);
}

/* A million ids; ten million values; a list in a list in a list. */
static void large(void)
{
    size_t room = 12 << 20;
    char *s = lp_calloc(room + 1, 1), *at = strstr(text, "\n \"ids\": [");
    size_t before = at ? (size_t)(at - text) + strlen("\n \"ids\": [") : 0;
    CHECK(at != NULL);
    memcpy(s, text, before);
    for (int i = 0; i < 1000000; i++) memcpy(s + before + 2 * (size_t)i, "1,", 2);
    strcpy(s + before + 2000000, text + before);
    refused(s, strlen(s), LP_E_FORMAT, "at most 131072");
    memset(s, ',', room);
    refused(s, room, LP_E_RANGE, "that is no run");
    memset(s, '[', room);
    refused(s, room, LP_E_FORMAT, "not JSON");
    free(s);
    lp_run r;
    lp_error err = {0};
    CHECK(lp_run_read(&r, "/tmp/lapidary-no-such-run.json", &err) < 0 && strstr(err.text, "no-such-run"));
    r = parsed(text, text_len);
    r.finish = LP_FINISH_CANCELLED;
    CHECK(lp_run_write(&r, temporary(), &err) == LP_E_UNSUPPORTED && strstr(err.text, "cancelled"));
    r.finish = LP_FINISH_LENGTH;
    r.model[0] = '\xff';
    CHECK(lp_run_write(&r, temporary(), &err) == LP_E_FORMAT && !lp_is_file(temporary()));
    lp_run_clear(&r);
    lp_run_parts p = parts(NULL, NULL);
    lp_session *session = new_session(model, NULL, NULL);
    p.session = session, p.n_prompt = 0;
    CHECK(lp_run_begin(&r, &p, &err) == LP_E_RANGE && !r.model);
    lp_session_free(session);
}

/* ---- hashes ------------------------------------------------------------------------------------------------------ */

static void hashes(void)
{
    char a[33], b[33], path[1024];
    CHECK(lp_model_hash(a, model, NULL) == LP_OK);
    CHECK_STR(a, PLAIN_HASH);
    lp_model *other = open_golden("models/plain", NULL);
    if (!other) return;
    CHECK(lp_model_hash(b, other, NULL) == LP_OK);
    CHECK_STR(b, a);
    unsigned char *byte = (unsigned char *)other->layers[1].down.data + 77;
    *byte ^= 1;
    CHECK(lp_model_hash(b, other, NULL) == LP_OK && strcmp(a, b) != 0);
    *byte ^= 1;
    other->config.rope_theta *= 1 + DBL_EPSILON;
    CHECK(lp_model_hash(b, other, NULL) == LP_OK && strcmp(a, b) != 0);
    lp_model_close(other);
    lp_model *twins[2] = {open_golden("models/twin_bf16", NULL), open_golden("models/twin_f16", NULL)};
    CHECK(lp_model_hash(a, twins[0], NULL) == LP_OK && lp_model_hash(b, twins[1], NULL) == LP_OK);
    CHECK(strcmp(a, b) != 0); /* other types of weights, other numbers */
    lp_model_close(twins[0]), lp_model_close(twins[1]);
    CHECK(lp_tokenizer_hash(a, NULL, NULL) == LP_OK && !a[0]);
    for (int i = 0; i < 2; i++) {
        lp_tokenizer *t = NULL;
        snprintf(path, sizeof path, "%s/base/tokenizer.model", LP_DATA_DIR);
        CHECK(lp_tokenizer_open(&t, path, NULL) == LP_OK);
        CHECK(lp_tokenizer_hash(i ? b : a, t, NULL) == LP_OK && strlen(i ? b : a) == 32);
        lp_tokenizer_free(t);
    }
    CHECK_STR(b, a);
}

/* ---- again, and otherwise ---------------------------------------------------------------------------------------- */

/* As replay does it: inputs from the file, results from a run of them. */
static lp_run_difference replayed(const lp_run *file, int threads, int wave, const lp_kernels *k)
{
    lp_pool *pool = NULL;
    lp_run now;
    CHECK(lp_pool_new(&pool, threads, NULL) == LP_OK);
    lp_env env = {.pool = pool, .kernels = k};
    lp_session *s = new_session(model, &(lp_session_options){.wave = wave}, &env);
    lp_run_parts p = lp_run_parts_of(file);
    p.session = s, p.saes = used, p.n_saes = 2;
    CHECK(lp_run_begin(&now, &p, NULL) == LP_OK && lp_run_repeat(&now, s, used, 2, NULL) == LP_OK);
    lp_run_difference d = lp_run_compare(file, &now);
    lp_run_clear(&now);
    lp_session_free(s);
    lp_pool_free(pool);
    return d;
}

static void repeated(void)
{
    lp_run file = parsed(text, text_len);
    CHECK_STR(replayed(&file, 1, 0, NULL).text, "");
    CHECK_STR(replayed(&file, 3, 2, NULL).text, "");
    CHECK_STR(replayed(&file, 2, 5, lp_kernels_c()).text, ""); /* another table */
    file.sample.seed ^= 1;
    CHECK(replayed(&file, 1, 0, NULL).part == LP_RUN_TOKENS);
    file.sample.seed ^= 1;
    file.recipe.edits[0].strength += 1e-12;
    CHECK(replayed(&file, 1, 0, NULL).part == LP_RUN_RECIPE);
    lp_run_clear(&file);
}

static void found(const lp_run *now, lp_run_part part, const char *says, const char *and)
{
    lp_run_difference d = lp_run_compare(&made, now);
    CHECK(d.part == part && strstr(d.text, says) && strstr(d.text, and) && !strchr(d.text, '\n'));
    if (d.part != part || !strstr(d.text, says) || !strstr(d.text, and))
        fprintf(stderr, "%s, want %s, %s: %s\n", lp_run_part_name(d.part), says, and, d.text);
}

static void named_inputs(lp_run *r)
{
    char *kernels = r->kernels;
    r->model_hash[0] ^= 1, found(r, LP_RUN_MODEL, "model: hash ", "another checkpoint"), r->model_hash[0] ^= 1;
    strcpy(r->tokenizer_hash, "ab"), found(r, LP_RUN_TOKENIZER, "ab", "made with none"), r->tokenizer_hash[0] = 0;
    r->session.arithmetic = LP_FAST, found(r, LP_RUN_ARITHMETIC, "fast here", "--arithmetic exact");
    made.session.arithmetic = LP_FAST, r->kernels = (char[]){"abacus"};
    found(r, LP_RUN_KERNELS, "abacus here", made.kernels);
    made.session.arithmetic = r->session.arithmetic = LP_EXACT;
    found(r, LP_RUN_SAME, "", ""); /* in exact arithmetic the table is nobody's business */
    r->kernels = kernels;
    r->session.bf16_embed_scale = 1, found(r, LP_RUN_EMBED_SCALE, "bf16 here", "f32 in the run");
    r->session.bf16_embed_scale = 0;
    r->session.n_ctx++, found(r, LP_RUN_CONTEXT, "positions here", "in the run"), r->session.n_ctx--;
    r->n_saes--, found(r, LP_RUN_SAES, "1 here", "with 2"), r->n_saes++;
    r->saes[1].hash[5] ^= 1, found(r, LP_RUN_SAES, "SAE coder", "other weights"), r->saes[1].hash[5] ^= 1;
    r->saes[1].type = LP_BF16, found(r, LP_RUN_SAES, "SAE coder", "--sae-type f32"), r->saes[1].type = LP_F32;
    r->recipe_hash[31] ^= 1, found(r, LP_RUN_RECIPE, "recipe: hash", "changed it"), r->recipe_hash[31] ^= 1;
    r->has_recipe = false, found(r, LP_RUN_RECIPE, "none here", "one in the file"), r->has_recipe = true;
}

static void named_results(lp_run *r)
{
    size_t last = r->n_readings - 1;
    int id = r->ids[5];
    r->ids[5] = id == 3 ? 4 : 3, found(r, LP_RUN_TOKENS, "token 5 (position 16)", "a bug");
    r->readings[last].achieved += 1, found(r, LP_RUN_TOKENS, "token 5", "in the file");   /* it comes later */
    r->readings[0].before = 99, found(r, LP_RUN_READBACK, "features at position ", "99"); /* it comes earlier */
    r->ids[5] = id, r->readings[last] = made.readings[last];
    r->readings[0] = made.readings[0];
    r->readings[7].status = LP_STEER_MISSED, found(r, LP_RUN_READBACK, "missed", "plain");
    r->readings[7] = made.readings[7];
    r->n_readings--, found(r, LP_RUN_READBACK, "position -1", "a bug"), r->n_readings++;
    r->n_ids--, found(r, LP_RUN_TOKENS, "token 13", "none here"), r->n_ids++;
    r->finish = LP_FINISH_TOKEN, found(r, LP_RUN_FINISH, "stop_token here", "length in the file");
    r->finish = LP_FINISH_LENGTH;
    r->logits_hash[3] ^= 1, found(r, LP_RUN_LOGITS, "logits after the last token", "a bug"), r->logits_hash[3] ^= 1;
    found(r, LP_RUN_SAME, "", "");
}

int main(void)
{
    if (!open_all()) return 1;
    used[0] = saes[RES1], used[1] = saes[CODER];
    lp_recipe r = recipe(features, "");
    make(&made, &r);
    text = as_text(&text_len, &made);
    round_trip();
    odd_numbers();
    hostile();
    mutants();
    large();
    hashes();
    repeated();
    lp_run other = parsed(text, text_len);
    named_inputs(&other);
    named_results(&other);
    lp_run_clear(&other);
    lp_run_clear(&made);
    lp_recipe_clear(&r);
    free(text);
    close_all();
    return check_done();
}
