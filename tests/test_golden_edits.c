/* test_golden_edits.c - hooks that write, against the same edit made inside transformers.
 *
 * Each `edit.value.OP.FROM.SITE` of a golden file is one editing hook: active at every position >= FROM, on the prompt
 * and on the generated tokens, at every site of the table.  The logits of every row and the greedy ids must agree.
 * The prompt goes through at once and in waves of 2, because an edit that starts in the middle of a wave is the case
 * where an offset goes wrong.
 */
#include "tests/golden.h"

static const double tolerance = 2e-5;

typedef struct edit {
    const lp_config *config;
    char op[16];
    int from;
    const float *v; /* [n_v]: a row of the site, or one number for all of it */
    size_t n_v;
} edit;

static void edit_row(const edit *e, const lp_act *act, float *x, int pos)
{
    int first = e->config->sliding[act->layer < 0 ? 0 : act->layer] ? pos - e->config->window + 1 : 0;
    if (first < 0) first = 0;
    for (int h = 0; h < act->heads; h++) {
        for (int j = 0; j < act->width; j++) {
            size_t at = (size_t)h * (size_t)act->width + (size_t)j;
            float v = e->v[e->n_v > 1 ? at : 0];
            switch (e->op[0]) {
            case 'a':
                x[at] += v;
                break;
            case 's':
                x[at] = v;
                break;
            case 'm':
                x[at] *= v;
                break;
            case 'u':
                x[at] = j >= first && j <= pos ? 1.0f / (float)(pos - first + 1) : 0.0f;
                break;
            }
        }
    }
}

static int apply(lp_act *act, void *user)
{
    const edit *e = user;
    size_t width = (size_t)act->heads * (size_t)act->width;
    CHECK(e->n_v == 1 || e->n_v == width);
    for (int r = 0; r < act->rows && (e->n_v == 1 || e->n_v == width); r++)
        if (act->pos + r >= e->from) edit_row(e, act, act->x + (size_t)r * width, act->pos + r);
    return 0;
}

/* Prompt, then greedily: the logits of all rows against the golden's, and the ids. */
static void run(const char *what, const lp_model *m, const int *prompt, int n, const int *want, int n_want,
                const float *golden, lp_hook h, int wave, const lp_env *env)
{
    lp_session *s = NULL;
    lp_error err = {0};
    int V = m->config.vocab, rows = n + n_want - 1;
    float *logits = calloc((size_t)rows * (size_t)V, sizeof *logits);
    lp_tape tape = {.x = logits, .n_layers = 1, .n_pos = rows, .width = V};
    CHECK(logits && lp_session_new(&s, m, &(lp_session_options){.wave = wave}, env, &err) == LP_OK);
    if (!logits || !s) goto out;
    CHECK(lp_session_edited_from(s) == -1);
    CHECK(lp_session_hook(s, h, &err) > 0);
    CHECK(lp_session_hook(s, lp_tap(LP_LOGITS, LP_WHOLE_MODEL, &tape), &err) > 0);
    CHECK(lp_session_eval(s, prompt, (size_t)n, &err) == LP_OK);
    for (int i = 0; i < n_want; i++) {
        const float *last = lp_session_logits(s);
        CHECK(last && golden_greedy(last, (size_t)V) == want[i]);
        if (i + 1 < n_want) CHECK(lp_session_eval(s, want + i, 1, &err) == LP_OK);
    }
    CHECK(lp_session_edited_from(s) == 0);
    size_t row;
    double e = golden_worst_row(logits, golden, (size_t)rows, (size_t)V, &row);
    if (!(e <= tolerance)) fprintf(stderr, "%s wave %d row %zu: %.2e\n", what, wave, row, e);
    CHECK(e <= tolerance);
out:
    if (err.status) fprintf(stderr, "%s: %s\n", what, err.text);
    lp_session_free(s);
    free(logits);
}

/* spec: OP.FROM.SITE */
static void test_edit(const lp_model *m, const lp_tensors *expect, const char *spec, const int *prompt, int n,
                      const lp_env *env)
{
    char name[192];
    int want[GOLDEN_TOKENS], at = 0;
    size_t n_golden = 0;
    edit e = {.config = &m->config};
    lp_hook h = {.edits = true, .fn = apply, .user = &e};
    lp_error err = {0};
    bool known = sscanf(spec, "%15[a-z].%d.%n", e.op, &e.from, &at) == 2 && at > 0 && strchr("asmu", e.op[0]) &&
                 lp_site_parse(spec + at, &h.site, &h.layer, &err) == LP_OK;
    if (!known) fprintf(stderr, "%s: %s\n", spec, err.text);
    CHECK(known);
    snprintf(name, sizeof name, "edit.value.%s", spec);
    float *v = golden_take(expect, name, &e.n_v);
    e.v = v;
    snprintf(name, sizeof name, "edit.logits.%s", spec);
    float *golden = golden_take(expect, name, &n_golden);
    snprintf(name, sizeof name, "edit.ids.%s", spec);
    int n_want = golden_ids(want, expect, name);
    bool whole = n_want > 0 && n_golden == (size_t)(n + n_want - 1) * (size_t)m->config.vocab;
    CHECK(whole);
    if (known && whole)
        for (int wave = 0; wave <= 2; wave += 2) run(spec, m, prompt, n, want, n_want, golden, h, wave, env);
    free(golden);
    free(v);
}

static void test_model(const char *folder, int least, const lp_env *env)
{
    static const char key[] = "edit.value.";
    lp_model *m = NULL;
    lp_tensors expect = {0};
    int prompt[GOLDEN_TOKENS], edits = 0;
    if (golden_model(&m, folder, env) && golden_expect(&expect, folder)) {
        int n = golden_ids(prompt, &expect, "edit.prompt");
        CHECK(n > 0);
        for (size_t i = 0; i < expect.n; i++) {
            const char *name = expect.items[i].name;
            if (strncmp(name, key, strlen(key)) != 0) continue;
            test_edit(m, &expect, name + strlen(key), prompt, n, env);
            edits++;
        }
    }
    CHECK(edits >= least);
    lp_tensors_clear(&expect);
    lp_model_close(m);
}

int main(void)
{
    lp_env env = {0};
    test_model("models/plain", LP_N_SITES, &env);
    test_model("models/hot", 10, &env);
    return check_done();
}
