/* Where a recipe is at work: classes, ranges, steps, patterns, conditions; and that generated tokens are steered.
 *
 * The generating model is goldens/nano, which has a tokenizer; its text is noise, so what is generated is compared, not
 * read.
 */
#include "tests/steered.h"

static lp_scopes *scopes(const lp_recipe *r, const lp_tokenizer *t, const lp_steer_context *c)
{
    lp_scopes *s = NULL;
    lp_error err = {0};
    CHECK(lp_scopes_new(&s, r, t, 2, &err) == LP_OK);
    if (!s) exit(1);
    if (lp_scopes_prompt(s, c, &err) != LP_OK) fprintf(stderr, "%s\n", err.text);
    CHECK(err.status == LP_OK);
    return s;
}

/* The first edit's factor at positions 0, 1, ...: '.' not at work, '1' in full, 'h' partly, '?' not told. */
static const char *shown(const lp_scopes *s, int n)
{
    static char out[64];
    for (int i = 0; i < n; i++) {
        double f = lp_scopes_factor(s, 0, i);
        out[i] = isnan(f) ? '?' : f == 0 ? '.' : f == 1 ? '1' : 'h';
    }
    out[n] = 0;
    return out;
}

/* ---- what follows from the position ------------------------------------------------------------------------------ */

/* <bos>, two of the template, three of the prompt, one of the template; then four generated. */
static void covers(const char *scope, const char *want)
{
    static const int tokens[] = {2, 10, 11, 12, 13, 14, 15};
    static const uint8_t template[] = {1, 1, 1, 0, 0, 0, 1};
    char edit[600];
    snprintf(edit, sizeof edit, "{\"layer\": \"a\", \"index\": 1, \"strength\": 1, %s}", scope);
    lp_recipe r = recipe(edit, "");
    lp_steer_context c = {.n_prompt = 7, .ids = tokens, .is_template = template};
    lp_scopes *s = scopes(&r, NULL, &c);
    CHECK_STR(shown(s, 11), want);
    lp_scopes_free(s);
    lp_recipe_clear(&r);
}

static void classes(void)
{
    covers("\"scope\": {}", "...111.1111");
    covers("\"scope\": {\"bos\": true}", "1..111.1111");
    covers("\"scope\": {\"template\": true}", ".1111111111");
    covers("\"scope\": {\"prompt\": false}", ".......1111");
    covers("\"scope\": {\"generated\": false}", "...111.....");
    covers("\"scope\": {\"last_prompt\": true}", "......11111");
    covers("\"scope\": {\"last_prompt\": true, \"prompt\": false, \"generated\": false}", "......1....");
    covers("\"scope\": {\"last_prompt\": true, \"template\": true, \"bos\": true}", "111...11111");
    covers("\"scope\": {\"ranges\": [[0, 4], [8, 10]]}", "...1....11.");
    covers("\"scope\": {\"bos\": true, \"template\": true, \"ranges\": [[6, 7]]}", "......1....");
    covers("\"schedule\": {\"from\": 1}", "........111");
    covers("\"schedule\": {\"to\": 1}", "...111.1...");
    covers("\"schedule\": {\"from\": 1, \"to\": 3}", "........11.");
    covers("\"schedule\": {\"ramp\": 2}", "........h11");
    covers("\"schedule\": {\"decay\": 0.5}", "...111.1hhh");
    lp_recipe r = recipe("{\"layer\": \"a\", \"index\": 1, \"strength\": 1}", "");
    lp_scopes *s = scopes(&r, NULL, &(lp_steer_context){.n_prompt = 3}); /* no ids: position 0 is <bos> */
    CHECK_STR(shown(s, 5), ".1111");
    CHECK(lp_scopes_prompt(s, &(lp_steer_context){.n_prompt = 0}, NULL) == LP_OK);
    CHECK_STR(shown(s, 2), "11");
    lp_scopes_free(s);
    lp_recipe_clear(&r);
}

/* ---- patterns ---------------------------------------------------------------------------------------------------- */

static lp_recipe pattern(const char *text)
{
    char edit[300];
    snprintf(edit, sizeof edit, "{\"layer\": \"a\", \"index\": 1, \"strength\": 1, \"scope\": {\"text\": \"%s\"}}",
             text);
    return recipe(edit, "");
}

/* "|" parts the tokens; <bos> stands before them. */
static void matches(const char *text, const char *tokens, const char *want)
{
    char flat[200];
    lp_span spans[60] = {{0, 0}};
    int given[60] = {2}, n = 1;
    size_t len = 0;
    for (const char *p = tokens; *p; n++) {
        size_t k = strcspn(p, "|");
        for (size_t i = 0; i < k; i++) flat[len + i] = p[i] == '_' ? 0 : p[i]; /* _: a NUL */
        spans[n] = (lp_span){len, len + k}, given[n] = 10;
        len += k, p += k + (p[k] == '|');
    }
    lp_recipe r = pattern(text);
    lp_scopes *s = scopes(&r, NULL,
                          &(lp_steer_context){.n_prompt = n, .ids = given, .text = flat, .len = len, .spans = spans});
    CHECK_STR(shown(s, n), want);
    lp_scopes_free(s);
    lp_recipe_clear(&r);
}

static void prompts(void)
{
    matches("whale", "The| wh|ale| and| a| whale", "..11..1");
    matches("wh?ale|wale", "a| wale", "..1");
    matches("^The", "The| The", ".1.");
    matches("ab", "a|b|ab|ba|b",
            ".1111"
            "1");
    matches("a*", "b|a|aa|b", "..11.");
    matches("x", "a|b", "...");
    matches(".b", "a_|b|c", ".11.");
    matches("c$", "a_|b|c", "...1");
    matches("[0-9]{2}", "1|2|3|4|5", ".1111.");
}

static int tell(lp_scopes *s, const lp_tokenizer *t, int pos, const char *text)
{
    lp_tokens tokens = {0};
    CHECK(lp_tokenizer_encode(t, text, strlen(text), LP_SPECIALS_LITERAL, &tokens, NULL) == LP_OK);
    for (size_t i = 0; i < tokens.n; i++) CHECK(lp_scopes_token(s, pos++, tokens.ids[i], NULL) == LP_OK);
    lp_tokens_free(&tokens);
    return pos;
}

/* A generated token is judged by the text up to it; what completes a match is edited, what began it is not. */
static void generated(const lp_tokenizer *t)
{
    lp_recipe r = pattern("qz+j");
    int bos = 2, n;
    lp_scopes *s = scopes(&r, t, &(lp_steer_context){.n_prompt = 1, .ids = &bos});
    CHECK_STR(shown(s, 2), ".?");
    CHECK(tell(s, t, 1, "q") == 2 && tell(s, t, 2, "z") == 3 && tell(s, t, 3, "z") == 4);
    CHECK_STR(shown(s, 5), "....?");
    n = tell(s, t, 4, "j");
    CHECK(n == 5);
    CHECK_STR(shown(s, 5), "....1");
    tell(s, t, 3, "z"); /* told again: nothing is forgotten */
    CHECK_STR(shown(s, 5), "....1");
    tell(s, t, 3, "j"); /* another: what came after is */
    CHECK_STR(shown(s, 5), "...1?");
    tell(s, t, 4, "j");
    CHECK_STR(shown(s, 5), "...1.");
    lp_error err = {0};
    CHECK(lp_scopes_token(s, 7, 5, &err) == LP_E_RANGE && strstr(err.text, "position 7"));
    CHECK(lp_scopes_token(s, 0, 5, &err) == LP_E_RANGE);
    CHECK(lp_scopes_prompt(s, &(lp_steer_context){.n_prompt = 1, .ids = &bos}, NULL) == LP_OK); /* the next turn */
    CHECK_STR(shown(s, 2), ".?");
    lp_scopes_free(s);
    lp_recipe_clear(&r);
    /* A character in byte pieces: its bytes are the last one's. */
    r = pattern("\xf0\x9f\xa6\xa9");
    s = scopes(&r, t, &(lp_steer_context){.n_prompt = 1, .ids = &bos});
    n = tell(s, t, 1, "\xf0\x9f\xa6\xa9");
    if (n == 5) CHECK_STR(shown(s, 5), "....1");
    CHECK(n == 2 || n == 5);
    lp_scopes_free(s);
    lp_recipe_clear(&r);
    /* The prompt's text from its ids; without text and ids, or without a tokenizer, there is nothing to match. */
    lp_tokens tokens = {0};
    CHECK(lp_tokenizer_encode(t, "qzzj a", 6, LP_SPECIALS_LITERAL, &tokens, NULL) == LP_OK);
    r = pattern("qz+j");
    s = scopes(&r, t, &(lp_steer_context){.n_prompt = (int)tokens.n, .ids = tokens.ids});
    const char *marks = shown(s, (int)tokens.n);
    CHECK(marks[0] == '1' && marks[tokens.n - 1] == '.');
    CHECK(lp_scopes_prompt(s, &(lp_steer_context){.n_prompt = 3}, &err) == LP_E_RANGE && strstr(err.text, "ids"));
    lp_scopes_free(s);
    CHECK(lp_scopes_new(&s, &r, NULL, 2, NULL) == LP_OK);
    CHECK(lp_scopes_prompt(s, &(lp_steer_context){.n_prompt = 0, .text = "", .spans = &(lp_span){0, 0}}, NULL) ==
          LP_OK);
    CHECK(lp_scopes_token(s, 0, 5, &err) == LP_E_UNSUPPORTED && strstr(err.text, "tokenizer"));
    lp_scopes_free(s);
    lp_recipe_clear(&r);
    lp_tokens_free(&tokens);
}

/* ---- generation -------------------------------------------------------------------------------------------------- */

enum { MORE = 12 };

/* Greedily goes on from a prompt; the tokens drawn, and their number. */
static int go_on(int out[MORE], const lp_model *m, const lp_sae *sae, const lp_recipe *r, bool tells, lp_error *err)
{
    static const char prompt[] = "The whale and the sea";
    lp_tokens tokens = {0};
    lp_sampler *sampler = NULL;
    lp_steer *st = NULL;
    lp_generation g = {0};
    lp_session *s = new_session(m, NULL, NULL);
    CHECK(lp_tokens_push(&tokens, m->config.bos, (lp_span){0, 0}, NULL) == LP_OK);
    CHECK(lp_tokenizer_encode(m->tokenizer, prompt, strlen(prompt), LP_SPECIALS_LITERAL, &tokens, NULL) == LP_OK);
    lp_steer_context c = {.n_prompt = (int)tokens.n, .ids = tokens.ids};
    if (r) CHECK(lp_steer_new(&st, s, r, &sae, 1, &c, err) == LP_OK);
    CHECK(lp_sampler_new(&sampler, m->config.vocab, &(lp_sample_options){0}, NULL) == LP_OK);
    CHECK(lp_generate_prompt(s, tokens.ids, tokens.n, err) == LP_OK);
    lp_generate_options o = {.max_tokens = MORE, .ignore_eos = 1, .fn = tells ? lp_steer_generated : NULL, .user = st};
    lp_status status = lp_generate(&g, s, sampler, &o, err);
    if (st) status = lp_steer_explain(st, status, err);
    CHECK(tells || !r ? status == LP_OK : true);
    int n = (int)g.n;
    for (int i = 0; i < n && i < MORE; i++) out[i] = g.ids[i];
    if (r && status == LP_OK) { /* all of it again in one call: the same next token */
        float *logits = lp_calloc((size_t)m->config.vocab, sizeof *logits);
        memcpy(logits, lp_session_logits(s), (size_t)m->config.vocab * sizeof *logits);
        for (int i = 0; i + 1 < n; i++) CHECK(lp_tokens_push(&tokens, out[i], (lp_span){0, 0}, NULL) == LP_OK);
        CHECK(lp_session_rewind(s, 0, NULL) == LP_OK);
        CHECK(lp_session_eval(s, tokens.ids, tokens.n, NULL) == LP_OK);
        CHECK_SAME(lp_session_logits(s), logits, (size_t)m->config.vocab);
        free(logits);
    }
    lp_steer_free(st);
    lp_generation_free(&g);
    lp_sampler_free(sampler);
    lp_session_free(s);
    lp_tokens_free(&tokens);
    return n;
}

static bool differs(const int *a, const int *b)
{
    return memcmp(a, b, MORE * sizeof *a) != 0;
}

static void generation(const lp_model *m)
{
    lp_sae *sae = make_sae(
        &(shape){"deep", "jumprelu", "blocks.1.hook_resid_post", NULL, NULL, 64, 40, 64, 0.1f, NULL});
    static const char clamp[] = "{\"layer\": \"deep\", \"index\": 3, \"kind\": \"clamp\", \"strength\": 30}";
    static const char where[] = "{\"layer\": \"deep\", \"index\": 3, \"kind\": \"clamp\", \"strength\": 30, \"scope\": "
                                "{\"text\": \".\", \"prompt\": false}}";
    int plain[MORE] = {0}, prompt[MORE] = {0}, all[MORE] = {0}, after[MORE] = {0}, text[MORE] = {0};
    lp_error err = {0};
    lp_recipe r[] = {recipe(clamp, "\"scope\": {\"generated\": false}"), recipe(clamp, ""),
                     recipe(clamp, "\"scope\": {\"prompt\": false}"), recipe(where, "")};
    CHECK(go_on(plain, m, sae, NULL, false, &err) == MORE);
    CHECK(go_on(prompt, m, sae, &r[0], true, &err) == MORE);
    CHECK(go_on(all, m, sae, &r[1], true, &err) == MORE);
    CHECK(go_on(after, m, sae, &r[2], true, &err) == MORE);
    CHECK(go_on(text, m, sae, &r[3], true, &err) == MORE);
    CHECK(differs(plain, prompt) && differs(all, prompt)); /* were only the prompt steered, the latter would be one */
    CHECK(all[0] == prompt[0]);                            /* drawn from the same steered prompt */
    CHECK(after[0] == plain[0] && differs(after, plain));  /* the first is drawn before any is steered */
    CHECK(text[0] == plain[0] && differs(text, plain));
    CHECK(go_on(text, m, sae, &r[3], false, &err) == 1); /* nobody tells it the tokens */
    CHECK(err.status == LP_E_RANGE && strstr(err.text, "told"));
    for (int i = 0; i < 4; i++) lp_recipe_clear(&r[i]);
    lp_sae_close(sae);
}

/* ---- conditions -------------------------------------------------------------------------------------------------- */

/* Edits at work only where the other feature, as encoded before any edit of its place, is above. */
static void condition(int which, int of, int feature, double above)
{
    char edit[400];
    snprintf(
        edit, sizeof edit,
        "{\"layer\": \"%s\", \"index\": 3, \"strength\": 0.01}, {\"layer\": \"res1\", \"index\": 6, \"strength\": 4,"
        " \"when\": {\"layer\": \"%s\", \"index\": %d, \"above\": %g}}",
        saes[of]->name, saes[of]->name, feature, above);
    lp_recipe r = recipe(edit, "");
    run *there = lp_calloc(1, sizeof *there), *here = lp_calloc(1, sizeof *here);
    lp_encoder *e = encoder(of);
    watch(there, &r, saes[of], N);
    watch(here, &r, saes[which], N);
    int yes = 0, no = 0;
    for (int i = 1; i < N; i++) {
        double f[S], want[PLAIN_D];
        float d[PLAIN_D], d_of[PLAIN_D];
        activations(f, e, there->input + i * PLAIN_D);
        lp_sae_decoder_row(saes[which], 6, d);
        lp_sae_decoder_row(saes[of], 3, d_of);
        bool is_on = f[feature] > above, same_place = saes[of]->spot.site_out == saes[which]->spot.site_out &&
                                                      saes[of]->spot.layer_out == saes[which]->spot.layer_out;
        yes += is_on, no += !is_on;
        for (int k = 0; k < PLAIN_D; k++)
            want[k] = (double)here->before[i * PLAIN_D + k] + (is_on ? 4 * (double)d[k] : 0) +
                      (same_place ? 0.01 * (double)d_of[k] : 0);
        CHECK(row_error(want, here->after + i * PLAIN_D, PLAIN_D) < 2e-7);
        if (!same_place && !is_on)
            CHECK(memcmp(here->before + i * PLAIN_D, here->after + i * PLAIN_D, PLAIN_D * sizeof(float)) == 0);
    }
    CHECK(yes > 0 && no > 0);
    lp_encoder_free(e);
    lp_recipe_clear(&r);
    free(there), free(here);
}

static void conditions(void)
{
    run *w = lp_calloc(1, sizeof *w);
    static const int others[] = {RES0, RES1, RES1B, CODER, Z1};
    for (size_t k = 0; k < sizeof others / sizeof *others; k++) {
        watch(w, NULL, saes[others[k]], N);
        int often, seldom;
        pick_features(&often, &seldom, others[k], w->input);
        lp_encoder *e = encoder(others[k]);
        double low = 1e9, high = 0, f[S];
        for (int i = 1; i < N; i++) {
            activations(f, e, w->input + i * PLAIN_D);
            low = fmin(low, f[often]), high = fmax(high, f[often]);
        }
        condition(RES1, others[k], often, 0.5 * (low + high));
        lp_encoder_free(e);
    }
    free(w);
}

int main(void)
{
    if (!open_all()) return 1;
    lp_model *nano = open_golden("nano", NULL);
    if (!nano) return 1;
    classes();
    prompts();
    generated(nano->tokenizer);
    generation(nano);
    conditions();
    lp_model_close(nano);
    close_all();
    return check_done();
}
