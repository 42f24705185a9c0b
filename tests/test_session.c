/* What a session refuses, what stopping and cancelling leave behind, what a tape records. */
#include "tests/models.h"

static int stop_at_layer_1(lp_act *a, void *user)
{
    (void)user;
    return a->layer == 1;
}

static int raise_cancel(lp_act *a, void *user)
{
    (void)a;
    atomic_store((atomic_bool *)user, true);
    return 0;
}

static int count(lp_act *a, void *user)
{
    *(int *)user += a->rows;
    return 0;
}

static int add_one(lp_act *a, void *user)
{
    (void)user;
    a->x[0] += 1;
    return 0;
}

static void test_refusals(const lp_model *m)
{
    lp_session *s = new_session(m, &(lp_session_options){.n_ctx = 10}, NULL);
    lp_error err = {0};
    int V = m->config.vocab, ids[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    CHECK(lp_session_logits(s) == NULL && lp_session_pos(s) == 0);
    CHECK(lp_session_eval(s, ids, 0, &err) == LP_OK && lp_session_logits(s) == NULL);
    CHECK(lp_session_eval(s, ids, 11, &err) == LP_E_RANGE && strstr(err.text, "10 positions"));
    CHECK(lp_session_eval(s, &V, 1, &err) == LP_E_RANGE && strstr(err.text, "ids run from 0"));
    CHECK(lp_session_eval(s, (int[]){1, -1}, 2, &err) == LP_E_RANGE);
    CHECK(lp_session_pos(s) == 0);
    CHECK(lp_session_eval(s, ids, 10, &err) == LP_OK && lp_session_logits(s) != NULL);
    CHECK(lp_session_eval(s, ids, 1, &err) == LP_E_RANGE && strstr(err.text, "position 10"));
    CHECK(lp_session_rewind(s, 11, &err) == LP_E_RANGE && lp_session_rewind(s, -1, &err) == LP_E_RANGE);
    CHECK(lp_session_peek(s, ids, 1, m->config.n_layers, &err) == LP_E_RANGE);
    lp_session *f = NULL;
    CHECK(lp_session_fork(&f, s, 11, &err) == LP_E_RANGE && f == NULL);
    CHECK(lp_session_hook(s, (lp_hook){LP_LOGITS, 0, false, count, NULL}, &err) == LP_E_RANGE);
    CHECK(lp_session_hook(s, (lp_hook){LP_Z, LP_WHOLE_MODEL, false, count, NULL}, &err) == LP_E_RANGE);
    CHECK(lp_session_hook(s, (lp_hook){LP_Z, m->config.n_layers, false, count, NULL}, &err) == LP_E_RANGE);
    CHECK(lp_session_hook(s, (lp_hook){LP_N_SITES, 0, false, count, NULL}, &err) == LP_E_RANGE);
    CHECK(lp_session_hook(s, (lp_hook){LP_Z, 0, false, NULL, NULL}, &err) == LP_E_RANGE);
    lp_session_free(s);
    s = NULL;
    CHECK(lp_session_new(&s, m, &(lp_session_options){.n_ctx = m->config.max_positions + 1}, NULL, &err) ==
              LP_E_RANGE &&
          !s);
    CHECK(lp_session_new(&s, m, &(lp_session_options){.wave = -1}, NULL, &err) == LP_E_RANGE && !s);
    lp_session_free(NULL);
    CHECK(lp_session_bytes(m, NULL, 2) > 0 && lp_session_bytes_per_token(&m->config) > 0);
}

static int meddle(lp_act *a, void *user)
{
    (void)a;
    lp_session *s = user, *f = NULL;
    float x[4096];
    CHECK(lp_session_eval(s, (int[]){1}, 1, NULL) == LP_E_RANGE);
    CHECK(lp_session_peek(s, (int[]){1}, 1, 0, NULL) == LP_E_RANGE);
    CHECK(lp_session_rewind(s, 0, NULL) == LP_E_RANGE);
    CHECK(lp_session_fork(&f, s, 0, NULL) == LP_E_RANGE);
    CHECK(lp_session_unembed(s, x, 1, x, NULL) == LP_E_RANGE);
    CHECK(lp_session_hook(s, (lp_hook){LP_Z, 0, false, count, NULL}, NULL) == LP_E_RANGE);
    return 0;
}

/* A hook that calls back into its own session is refused, and the evaluation goes on. */
static void test_hooks_cannot_meddle(const lp_model *m)
{
    lp_session *s = new_session(m, NULL, NULL);
    lp_session_hook(s, (lp_hook){LP_RESID_MID, 0, false, meddle, s}, NULL);
    CHECK(lp_session_eval(s, (int[]){1, 2, 3}, 3, NULL) == LP_OK && lp_session_pos(s) == 3);
    lp_session_free(s);
}

/* Stopped or cancelled: the session is as before the call, and goes on to the same bits. */
static void test_stop_and_cancel(const lp_model *m)
{
    enum { N = 20 };
    int ids[N], V = m->config.vocab;
    atomic_bool cancel = false;
    lp_env env = {.cancel = &cancel};
    lp_session *s = new_session(m, &(lp_session_options){.wave = 4}, &env), *fresh = new_session(m, NULL, NULL);
    lp_error err = {0};
    some_tokens(ids, N, V, 3);
    CHECK(lp_session_eval(fresh, ids, N, &err) == LP_OK);
    CHECK(lp_session_eval(s, ids, 5, &err) == LP_OK);
    float *before = malloc((size_t)V * sizeof *before);
    memcpy(before, lp_session_logits(s), (size_t)V * sizeof *before);

    int h = lp_session_hook(s, (lp_hook){LP_RESID_POST, LP_EVERY_LAYER, false, stop_at_layer_1, NULL}, &err);
    CHECK(lp_session_eval(s, ids + 5, N - 5, &err) == LP_STOPPED && lp_session_pos(s) == 5);
    CHECK_SAME(lp_session_logits(s), before, (size_t)V);
    lp_session_unhook(s, h);
    h = lp_session_hook(s, (lp_hook){LP_Q, 0, false, raise_cancel, &cancel}, &err);
    CHECK(lp_session_eval(s, ids + 5, N - 5, &err) == LP_CANCELLED && lp_session_pos(s) == 5);
    CHECK(lp_session_eval(s, ids + 5, N - 5, &err) == LP_CANCELLED);
    atomic_store(&cancel, false);
    lp_session_unhook(s, h);
    lp_session_unhook(s, h); /* twice is harmless */
    CHECK(lp_session_eval(s, ids + 5, N - 5, &err) == LP_OK);
    CHECK_SAME(lp_session_logits(s), lp_session_logits(fresh), (size_t)V);
    free(before);
    lp_session_free(s);
    lp_session_free(fresh);
}

static void test_peek(const lp_model *m)
{
    enum { N = 9 };
    int ids[N], rows = 0, late = 0, D = m->config.d_model, last = m->config.n_layers - 1;
    lp_session *s = new_session(m, &(lp_session_options){.wave = 4}, NULL);
    float *a = calloc((size_t)N * (size_t)D, sizeof *a), *b = calloc((size_t)N * (size_t)D, sizeof *b);
    lp_tape ta = {a, 1, 0, N, D, 0}, tb = {b, 1, 0, N, D, 0};
    some_tokens(ids, N, m->config.vocab, 4);
    lp_session_hook(s, (lp_hook){LP_RESID_POST, 0, false, count, &rows}, NULL);
    lp_session_hook(s, (lp_hook){LP_FINAL_IN, LP_WHOLE_MODEL, false, count, &late}, NULL);
    int h = lp_session_hook(s, lp_tap(LP_RESID_POST, 0, &ta), NULL);
    CHECK(lp_session_peek(s, ids, N, 0, NULL) == LP_OK);
    CHECK(rows == N && lp_session_pos(s) == 0 && lp_session_logits(s) == NULL);
    CHECK(last == 0 || late == 0);
    lp_session_unhook(s, h);
    lp_session_hook(s, lp_tap(LP_RESID_POST, 0, &tb), NULL);
    CHECK(lp_session_eval(s, ids, N, NULL) == LP_OK && late >= N);
    CHECK_SAME(a, b, (size_t)N * (size_t)D); /* half a model shows what the whole one shows */
    lp_session_free(s);
    free(a);
    free(b);
}

/* Edits are remembered from the first position computed under them, and forgotten with it. */
static void test_edited_from(const lp_model *m)
{
    int ids[8];
    lp_session *s = new_session(m, NULL, NULL), *f = NULL;
    some_tokens(ids, 8, m->config.vocab, 5);
    CHECK(lp_session_eval(s, ids, 3, NULL) == LP_OK && lp_session_edited_from(s) == -1);
    int h = lp_session_hook(s, (lp_hook){LP_RESID_MID, 0, true, add_one, NULL}, NULL);
    CHECK(lp_session_eval(s, ids + 3, 2, NULL) == LP_OK && lp_session_edited_from(s) == 3);
    lp_session_unhook(s, h);
    CHECK(lp_session_eval(s, ids + 5, 1, NULL) == LP_OK && lp_session_edited_from(s) == 3);
    CHECK(lp_session_fork(&f, s, 3, NULL) == LP_OK && lp_session_edited_from(f) == -1);
    lp_session_free(f);
    CHECK(lp_session_fork(&f, s, 4, NULL) == LP_OK && lp_session_edited_from(f) == 3);
    lp_session_free(f);
    CHECK(lp_session_rewind(s, 4, NULL) == LP_OK && lp_session_edited_from(s) == 3);
    CHECK(lp_session_rewind(s, 3, NULL) == LP_OK && lp_session_edited_from(s) == -1);
    lp_session_free(s);
}

/* A tape shorter, narrower and later than what passes takes its part and touches nothing else. */
static void test_tape_is_bounded(const lp_model *m)
{
    enum { N = 12, FROM = 3, KEEP = 5, WIDTH = 6 };
    int ids[N], D = m->config.d_model, H = m->config.n_heads;
    float part[KEEP * WIDTH + 8], *full = calloc((size_t)N * (size_t)D, sizeof *full);
    float *grown = calloc((size_t)N * (size_t)H * N, sizeof *grown);
    lp_session *s = new_session(m, &(lp_session_options){.wave = 4}, NULL);
    lp_tape tp = {part, 1, FROM, KEEP, WIDTH, 0}, tf = {full, 1, 0, N, D, 0}, tg = {grown, 1, 0, N, H * N, H};
    for (int i = 0; i < KEEP * WIDTH + 8; i++) part[i] = -777;
    some_tokens(ids, N, m->config.vocab, 6);
    lp_session_hook(s, lp_tap(LP_RESID_PRE, 0, &tp), NULL);
    lp_session_hook(s, lp_tap(LP_RESID_PRE, 0, &tf), NULL);
    lp_session_hook(s, lp_tap(LP_PATTERN, 0, &tg), NULL);
    CHECK(lp_session_eval(s, ids, N, NULL) == LP_OK);
    for (int i = 0; i < KEEP; i++) CHECK_SAME(part + i * WIDTH, full + (size_t)(FROM + i) * (size_t)D, WIDTH);
    for (int i = KEEP * WIDTH; i < KEEP * WIDTH + 8; i++) CHECK(part[i] == -777);
    for (int i = 0; i < N * H; i++) { /* each head's row of the pattern sums to one, nothing after its own position */
        double sum = 0;
        for (int j = 0; j < N; j++) sum += (double)grown[(size_t)i * N + (size_t)j];
        CHECK_NEAR(sum, 1, 1e-5);
        for (int j = i / H + 1; j < N; j++) CHECK(grown[(size_t)i * N + (size_t)j] == 0);
    }
    lp_session_free(s);
    free(full);
    free(grown);
}

int main(void)
{
    lp_model *m = open_golden("models/plain", NULL);
    if (!m) return 1;
    CHECK(m->config.n_layers > 1);
    test_refusals(m);
    test_hooks_cannot_meddle(m);
    test_stop_and_cancel(m);
    test_peek(m);
    test_edited_from(m);
    test_tape_is_bounded(m);
    lp_model_close(m);
    return check_done();
}
