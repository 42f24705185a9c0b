/* The invariants the house stands on, bit for bit:
 *   armed = unarmed; resid_post l = resid_pre l+1; embed + branches ~ last resid_post; replacing with itself changes
 * nothing; any cut of a prompt = the whole; 1 = 2 = 7 threads; every kernel table = the C twin; forked = rewound =
 * fresh; eval allocates nothing.
 */
#include "tests/models.h"

enum { N = 75 }; /* more than a KV page, more than any golden window */

/* ---- counting allocations: the linker sends these here (see CMakeLists.txt) -------------------------------------- */

static long n_allocations;
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_mmap(void *at, size_t n, int prot, int flags, int fd, long off);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, long off);
void *__wrap_malloc(size_t n)
{
    return n_allocations++, __real_malloc(n);
}
void *__wrap_calloc(size_t n, size_t size)
{
    return n_allocations++, __real_calloc(n, size);
}
void *__wrap_realloc(void *p, size_t n)
{
    return n_allocations++, __real_realloc(p, n);
}
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, long off)
{
    return n_allocations++, __real_mmap(at, n, prot, flags, fd, off);
}

/* ---- a run, recorded --------------------------------------------------------------------------------------------- */

/* Everything a run leaves behind: the stream after every layer and the logits of every row. */
typedef struct run {
    float *resid;  /* [L][N][D] */
    float *logits; /* [N][V]    */
    float *last;   /* [V]       */
    size_t n_resid, n_logits, V;
} run;

static run run_new(const lp_model *m)
{
    run r = {.V = (size_t)m->config.vocab};
    r.n_resid = (size_t)m->config.n_layers * N * (size_t)m->config.d_model;
    r.n_logits = N * r.V;
    r.resid = calloc(r.n_resid, sizeof(float));
    r.logits = calloc(r.n_logits, sizeof(float));
    r.last = calloc(r.V, sizeof(float));
    return r;
}

static void run_free(run *r)
{
    free(r->resid);
    free(r->logits);
    free(r->last);
}

static void same(const run *a, const run *b)
{
    CHECK_SAME(a->resid, b->resid, a->n_resid);
    CHECK_SAME(a->logits, b->logits, a->n_logits);
    CHECK_SAME(a->last, b->last, a->V);
}

/* cuts: lengths of the calls, 0-terminated. */
static run evaluate(const lp_model *m, const lp_session_options *o, const lp_env *env, const int *ids, const int *cuts)
{
    lp_session *s = new_session(m, o, env);
    run r = run_new(m);
    lp_error err = {0};
    lp_tape resid = {.x = r.resid, .n_layers = m->config.n_layers, .n_pos = N, .width = m->config.d_model};
    lp_tape logits = {.x = r.logits, .n_layers = 1, .n_pos = N, .width = m->config.vocab};
    CHECK(lp_session_hook(s, lp_tap(LP_RESID_POST, LP_EVERY_LAYER, &resid), &err) > 0);
    CHECK(lp_session_hook(s, lp_tap(LP_LOGITS, LP_WHOLE_MODEL, &logits), &err) > 0);
    for (int at = 0, i = 0; cuts[i]; at += cuts[i++])
        CHECK(lp_session_eval(s, ids + at, (size_t)cuts[i], &err) == LP_OK);
    CHECK(lp_session_pos(s) == N && lp_session_edited_from(s) == -1);
    memcpy(r.last, lp_session_logits(s), r.V * sizeof(float));
    lp_session_free(s);
    return r;
}

static const int whole[] = {N, 0};

/* ---- the invariants ---------------------------------------------------------------------------------------------- */

static int look(lp_act *a, void *user)
{
    volatile float sum = 0;
    for (size_t i = 0, n = (size_t)a->rows * (size_t)a->heads * (size_t)a->width; i < n; i += 7) sum = sum + a->x[i];
    ++*(long *)user;
    return 0;
}

static int replace_with_itself(lp_act *a, void *user)
{
    size_t n = (size_t)a->rows * (size_t)a->heads * (size_t)a->width;
    float *copy = user;
    memcpy(copy, a->x, n * sizeof *copy);
    memset(a->x, 0x7f, n * sizeof *copy);
    memcpy(a->x, copy, n * sizeof *copy);
    return 0;
}

static void test_armed_is_unarmed(const lp_model *m, const int *ids, const run *want, bool edits)
{
    lp_session *s = new_session(m, NULL, NULL);
    float *copy = calloc((size_t)N * (size_t)(m->config.vocab + m->config.d_ff + m->config.n_heads * N), sizeof *copy);
    long seen = 0;
    lp_error err = {0};
    for (int i = 0; i < LP_N_SITES; i++) {
        int layer = lp_site_has_layer((lp_site)i) ? LP_EVERY_LAYER : LP_WHOLE_MODEL;
        lp_hook h = {(lp_site)i, layer, edits, edits ? replace_with_itself : look,
                     edits ? (void *)copy : (void *)&seen};
        CHECK(lp_session_hook(s, h, &err) > 0);
    }
    CHECK(lp_session_eval(s, ids, N, &err) == LP_OK);
    CHECK_SAME(lp_session_logits(s), want->last, want->V);
    CHECK(edits || seen > 20L * m->config.n_layers); /* the hooks really fired */
    CHECK(lp_session_edited_from(s) == (edits ? 0 : -1));
    lp_session_free(s);
    free(copy);
}

static void test_cuts(const lp_model *m, const int *ids, const run *want)
{
    static const int cuts[][N + 1] = {{1, N - 1}, {N - 1, 1}, {13, 1, 11, 12, 37, 1}, {64, 11}, {3, 5, 7, 60}};
    int ones[N + 1] = {0};
    for (int i = 0; i < N; i++) ones[i] = 1;
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        run r = evaluate(m, NULL, NULL, ids, cuts[i]);
        same(&r, want);
        run_free(&r);
    }
    run r = evaluate(m, NULL, NULL, ids, ones);
    same(&r, want);
    run_free(&r);
    static const int waves[] = {1, 2, 7, 32, 64};
    for (size_t i = 0; i < sizeof waves / sizeof *waves; i++) {
        r = evaluate(m, &(lp_session_options){.wave = waves[i]}, NULL, ids, whole);
        same(&r, want);
        run_free(&r);
    }
}

static void test_threads(const lp_model *m, const int *ids, const run *want, lp_arithmetic a)
{
    static const int counts[] = {2, 7};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        lp_env env = {0};
        CHECK(lp_pool_new(&env.pool, counts[i], NULL) == LP_OK);
        run r = evaluate(m, &(lp_session_options){.arithmetic = a}, &env, ids, whole);
        same(&r, want);
        run_free(&r);
        r = evaluate(m, &(lp_session_options){.arithmetic = a, .wave = 5}, &env, ids, whole);
        same(&r, want);
        run_free(&r);
        lp_pool_free(env.pool);
    }
}

static void test_tables(const lp_model *m, const int *ids, const run *want)
{
    int n;
    const lp_kernels *const *all = lp_kernels_all(&n);
    for (int i = 0; i < n; i++) {
        run r = evaluate(m, NULL, &(lp_env){.kernels = all[i]}, ids, whole);
        same(&r, want);
        run_free(&r);
    }
}

static void test_stream_adds_up(const lp_model *m, const int *ids, const run *want)
{
    int L = m->config.n_layers, D = m->config.d_model;
    size_t slab = (size_t)N * (size_t)D;
    float *sum = calloc(slab, sizeof *sum), *pre = calloc((size_t)L * slab, sizeof *pre);
    float *attn = calloc((size_t)L * slab, sizeof *attn), *out = calloc((size_t)L * slab, sizeof *out);
    lp_tape te = {sum, 1, 0, N, D, 0}, tp = {pre, L, 0, N, D, 0}, ta = {attn, L, 0, N, D, 0}, tm = {out, L, 0, N, D, 0};
    lp_session *s = new_session(m, NULL, NULL);
    lp_session_hook(s, lp_tap(LP_EMBED, LP_WHOLE_MODEL, &te), NULL);
    lp_session_hook(s, lp_tap(LP_RESID_PRE, LP_EVERY_LAYER, &tp), NULL);
    lp_session_hook(s, lp_tap(LP_ATTN_OUT, LP_EVERY_LAYER, &ta), NULL);
    lp_session_hook(s, lp_tap(LP_MLP_OUT, LP_EVERY_LAYER, &tm), NULL);
    CHECK(lp_session_eval(s, ids, N, NULL) == LP_OK);
    CHECK_SAME(pre, sum, slab);
    for (int l = 0; l + 1 < L; l++) CHECK_SAME(want->resid + (size_t)l * slab, pre + (size_t)(l + 1) * slab, slab);
    for (int l = 0; l < L; l++)
        for (size_t i = 0; i < slab; i++) sum[i] = (sum[i] + attn[(size_t)l * slab + i]) + out[(size_t)l * slab + i];
    CHECK_SAME(sum, want->resid + (size_t)(L - 1) * slab, slab); /* the same additions in the same order */
    lp_session_free(s);
    free(sum);
    free(pre);
    free(attn);
    free(out);
}

static void expect_last(lp_session *s, const int *ids, int from, const run *want)
{
    CHECK(lp_session_eval(s, ids + from, (size_t)(N - from), NULL) == LP_OK);
    CHECK_SAME(lp_session_logits(s), want->last, want->V);
}

static void test_forks_and_rewinds(const lp_model *m, const int *ids, const run *want)
{
    static const int places[] = {0, 1, 31, 32, 63, 64, 65, 70, N};
    int other[N];
    some_tokens(other, N, m->config.vocab, 99);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        int p = places[i];
        lp_session *s = new_session(m, NULL, NULL), *f = NULL, *g = NULL;
        CHECK(lp_session_eval(s, ids, (size_t)p, NULL) == LP_OK);
        if (p < N) CHECK(lp_session_eval(s, other, (size_t)(N - p), NULL) == LP_OK); /* a detour */
        CHECK(lp_session_fork(&f, s, p, NULL) == LP_OK && lp_session_pos(f) == p);
        CHECK(lp_session_fork(&g, s, N, NULL) == LP_OK);
        CHECK(memcmp(lp_session_tokens(f), ids, (size_t)p * sizeof *ids) == 0);
        CHECK_SAME(lp_session_logits(g), lp_session_logits(s), want->V);
        CHECK(lp_session_rewind(s, p, NULL) == LP_OK);
        CHECK((lp_session_logits(s) != NULL) == (p == N));
        if (p < N) {
            expect_last(s, ids, p, want); /* rewound = fresh, while two forks still hold the detour's pages */
            expect_last(f, ids, p, want);
        }
        CHECK(lp_session_rewind(g, 5, NULL) == LP_OK); /* into pages that were shared */
        CHECK(lp_session_eval(g, other, 60, NULL) == LP_OK);
        lp_session_free(s); /* the fork outlives its parent */
        CHECK(lp_session_rewind(f, 0, NULL) == LP_OK);
        expect_last(f, ids, 0, want);
        lp_session_free(f);
        lp_session_free(g);
    }
}

static void test_eval_allocates_nothing(const lp_model *m, const int *ids)
{
    lp_session *s = new_session(m, NULL, NULL);
    long seen = 0;
    lp_session_hook(s, (lp_hook){LP_LOGITS, LP_WHOLE_MODEL, false, look, &seen}, NULL);
    long before = n_allocations;
    CHECK(before > 0); /* the counter counts */
    CHECK(lp_session_eval(s, ids, N - 2, NULL) == LP_OK);
    CHECK(lp_session_eval(s, ids, 1, NULL) == LP_OK);
    CHECK(lp_session_peek(s, ids, 1, 0, NULL) == LP_OK);
    CHECK(n_allocations == before);
    lp_session_free(s);
}

static void test_model(const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "models/%s", name);
    lp_model *m = open_golden(path, NULL);
    if (!m) return;
    int failed = check_failed, ids[N];
    some_tokens(ids, N, m->config.vocab, 1);
    run want = evaluate(m, NULL, &(lp_env){.kernels = lp_kernels_c()}, ids, whole);
    test_tables(m, ids, &want);
    test_armed_is_unarmed(m, ids, &want, false);
    test_armed_is_unarmed(m, ids, &want, true);
    test_cuts(m, ids, &want);
    test_threads(m, ids, &want, LP_EXACT);
    test_stream_adds_up(m, ids, &want);
    test_forks_and_rewinds(m, ids, &want);
    test_eval_allocates_nothing(m, ids);
    run fast = evaluate(m, &(lp_session_options){.arithmetic = LP_FAST}, NULL, ids, whole);
    test_threads(m, ids, &fast, LP_FAST);
    CHECK(memcmp(fast.last, want.last, want.V * sizeof(float)) != 0); /* fast really is another arithmetic */
    run_free(&fast);
    run_free(&want);
    lp_model_close(m);
    if (check_failed != failed) fprintf(stderr, "^ in model %s\n", name);
}

int main(void)
{
    for (int i = 0; i < N_GOLDEN; i++) test_model(golden_names[i]);
    return check_done();
}
