/* Branches: every one has the bits of a fork that evaluates the same tokens alone, whatever its length, its number, the
 * past before it and the wave it goes in; a hook that edits one branch edits that one; nothing is committed.
 */
#include "tests/models.h"

enum { N = 75, MOST = 40 };

/* What was seen: the logits of every branch, and what its hooked stream was. */
typedef struct seen {
    float *logits, *stream; /* [MOST][V], [MOST][N][D] */
    int V, D, n, stops_at;
} seen;

static int on_branch(int branch, const float *logits, void *user)
{
    seen *k = user;
    CHECK(branch == k->n++);
    memcpy(k->logits + (size_t)branch * (size_t)k->V, logits, (size_t)k->V * sizeof *logits);
    return k->n == k->stops_at;
}

/* Adds its own number to an element of its own, then shows what the stream is. */
static int edit(lp_act *act, void *user)
{
    seen *k = user;
    for (int r = 0; r < act->rows; r++) {
        float *x = act->x + (size_t)r * (size_t)act->width;
        x[act->branch % act->width] += (float)act->branch;
        memcpy(k->stream + ((size_t)act->branch * N + (size_t)(act->pos + r)) * (size_t)k->D, x,
               (size_t)k->D * sizeof *x);
    }
    return 0;
}

/* The same edit on a session that is branch number `branch` alone. */
typedef struct alone {
    int branch;
    float *stream; /* [N][D] */
} alone;

static int edit_alone(lp_act *act, void *user)
{
    alone *a = user;
    for (int r = 0; r < act->rows; r++) {
        float *x = act->x + (size_t)r * (size_t)act->width;
        x[a->branch % act->width] += (float)a->branch;
        memcpy(a->stream + (size_t)(act->pos + r) * (size_t)act->width, x, (size_t)act->width * sizeof *x);
    }
    return 0;
}

static seen seen_new(const lp_model *m)
{
    seen k = {.V = m->config.vocab, .D = m->config.d_model};
    k.logits = calloc((size_t)MOST * (size_t)k.V, sizeof(float));
    k.stream = calloc((size_t)MOST * N * (size_t)k.D, sizeof(float));
    return k;
}

static void seen_free(seen *k)
{
    free(k->logits), free(k->stream);
}

static lp_hook hook_of(lp_hook_fn fn, void *user)
{
    return (lp_hook){.site = LP_RESID_MID, .layer = 0, .edits = true, .fn = fn, .user = user};
}

static void as_forks(const lp_model *m, const lp_session_options *o, int past, int each, int branches)
{
    int ids[N + MOST * N];
    seen k = seen_new(m);
    float *stream = calloc((size_t)N * (size_t)k.D, sizeof *stream);
    lp_error err = {0};
    some_tokens(ids, past, k.V, 3);
    some_tokens(ids + past, each * branches, k.V, (unsigned)(past + each));
    lp_session *s = new_session(m, o, NULL);
    CHECK(lp_session_eval(s, ids, (size_t)past, NULL) == LP_OK);
    int handle = lp_session_hook(s, hook_of(edit, &k), NULL);
    CHECK(lp_session_branch(s, ids + past, each, branches, on_branch, &k, &err) == LP_OK);
    CHECK(k.n == branches && lp_session_pos(s) == past);
    if (each <= lp_session_get_options(s)->wave) { /* the same through the first layer alone, without logits */
        size_t floats = (size_t)MOST * N * (size_t)k.D;
        float *all = k.stream;
        k.stream = calloc(floats, sizeof *k.stream);
        CHECK(lp_session_peek_branches(s, ids + past, each, branches, 0, &err) == LP_OK && lp_session_pos(s) == past);
        CHECK_SAME(k.stream, all, floats);
        free(all);
    }
    lp_session_unhook(s, handle);
    for (int b = 0; b < branches; b++) {
        lp_session *one = NULL;
        alone a = {b, stream};
        CHECK(lp_session_fork(&one, s, past, NULL) == LP_OK);
        CHECK(lp_session_hook(one, hook_of(edit_alone, &a), NULL) > 0);
        CHECK(lp_session_eval(one, ids + past + b * each, (size_t)each, NULL) == LP_OK);
        CHECK_SAME(k.logits + (size_t)b * (size_t)k.V, lp_session_logits(one), (size_t)k.V);
        size_t at = (size_t)past * (size_t)k.D;
        CHECK_SAME(k.stream + (size_t)b * N * (size_t)k.D + at, stream + at, (size_t)each * (size_t)k.D);
        lp_session_free(one);
    }
    lp_session_free(s);
    free(stream);
    seen_free(&k);
}

static void every_shape(void)
{
    static const int shapes[][3] = {{0, 1, 3},   {1, 1, 40}, {1, 2, 2},  {1, 10, 6}, {4, 7, 6},
                                    {31, 2, 17}, {63, 3, 5}, {64, 1, 4}, {60, 9, 9}, {20, 40, 3},
                                    {5, 70, 2},  {70, 5, 1}, {12, 1, 0}};
    for (int g = 0; g < N_GOLDEN; g++) {
        char name[64];
        snprintf(name, sizeof name, "models/%s", golden_names[g]);
        lp_model *m = open_golden(name, NULL);
        if (!m) continue;
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (int wave = 0; wave < 3; wave++) {
                lp_session_options o = {.wave = wave == 1 ? 7 : wave == 2 ? 30 : 0, .n_ctx = N};
                o.arithmetic = g == 1 ? LP_FAST : LP_EXACT;
                as_forks(m, &o, shapes[i][0], shapes[i][1], shapes[i][2]);
            }
        lp_model_close(m);
    }
}

/* Stopped on the way, asked for nonsense: an error, and the session goes on as if nobody had asked. */
static void left_as_found(void)
{
    lp_model *m = open_golden("models/plain", NULL);
    if (!m) return;
    int ids[N], bad[] = {3, m->config.vocab};
    lp_error err = {0};
    seen k = seen_new(m);
    some_tokens(ids, N, k.V, 9);
    lp_session *s = new_session(m, &(lp_session_options){.n_ctx = 20}, NULL), *twin = new_session(m, NULL, NULL);
    CHECK(lp_session_eval(s, ids, 9, NULL) == LP_OK && lp_session_eval(twin, ids, 9, NULL) == LP_OK);
    k.stops_at = 2;
    CHECK(lp_session_branch(s, ids, 2, 5, on_branch, &k, &err) == LP_STOPPED && k.n == 2);
    CHECK(lp_session_branch(s, ids, 0, 5, on_branch, &k, &err) == LP_E_RANGE);
    CHECK(lp_session_branch(s, ids, 12, 2, on_branch, &k, &err) == LP_E_RANGE && strstr(err.text, "20 positions"));
    CHECK(lp_session_branch(s, bad, 1, 2, on_branch, &k, &err) == LP_E_RANGE);
    CHECK(k.n == 2);
    CHECK_SAME(lp_session_logits(s), lp_session_logits(twin), (size_t)k.V);
    CHECK(lp_session_eval(s, ids, 9, NULL) == LP_OK && lp_session_eval(twin, ids, 9, NULL) == LP_OK);
    CHECK_SAME(lp_session_logits(s), lp_session_logits(twin), (size_t)k.V);
    lp_session_free(s), lp_session_free(twin);
    seen_free(&k);
    lp_model_close(m);
}

int main(void)
{
    every_shape();
    left_as_found();
    return check_done();
}
