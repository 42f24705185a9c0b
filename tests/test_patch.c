/* Activation patching: every patched run has the bits of evaluating the whole destination under one edit, at every
 * site; what is put in carries all it should and nothing else; the figures are the formula of patch.h.
 */
#include "sae/patch.h"

#include "core/edit.h"
#include "core/sample.h"
#include "tests/models.h"

#include <limits.h>

enum { N = 11, MOST_VOCAB = 512, MOST_PLACES = 96, SAME = 3 /* tokens both begin with */ };

static lp_model *model;
static int V, a_ids[N], b_ids[N];

/* Everything that was seen. */
typedef struct record {
    float logits[MOST_PLACES][N][MOST_VOCAB];
    int n;
    int stops_at;        /* 0: never        */
    atomic_bool *raises; /* cancels instead */
} record;

static int on_cell(size_t place, int pos, const float *logits, void *user)
{
    record *k = user;
    if (place < MOST_PLACES) memcpy(k->logits[place][pos], logits, (size_t)V * sizeof *logits);
    if (++k->n != k->stops_at) return 0;
    if (!k->raises) return 1;
    atomic_store(k->raises, true);
    return 0;
}

static record *new_record(void)
{
    record *k = lp_calloc(1, sizeof *k);
    if (!k) exit(1);
    return k;
}

static lp_trace choose(const char *sites, const char *layers)
{
    lp_trace t = {0};
    CHECK(lp_trace_select(&t, &model->config, sites, layers, NULL) == LP_OK && t.n_parts <= MOST_PLACES);
    return t;
}

static lp_patch_question question(void)
{
    return (lp_patch_question){
        .source = a_ids, .n_source = N, .into = b_ids, .n_into = N, .token_source = 3, .token_into = 8};
}

static void clean(float *logits, const int *ids)
{
    lp_session *s = new_session(model, NULL, NULL);
    CHECK(lp_session_eval(s, ids, N, NULL) == LP_OK);
    memcpy(logits, lp_session_logits(s), (size_t)V * sizeof *logits);
    lp_session_free(s);
}

/* The whole destination from its first token, [from, to) of a place taken from the trace. */
static void rerun(float *logits, const lp_trace_part *p, int from, int to)
{
    bool grows = p->site == LP_SCORES || p->site == LP_PATTERN;
    size_t width = (size_t)p->tape.width;
    lp_edit e = {.kind = LP_EDIT_REPLACE,
                 .v = p->tape.x + (size_t)from * width,
                 .stride = width,
                 .from = from,
                 .to = to,
                 .keys = grows ? N : 0};
    lp_session *s = new_session(model, NULL, NULL);
    CHECK(lp_session_hook(s, lp_edit_hook(p->site, p->layer, &e), NULL) > 0);
    CHECK(lp_session_eval(s, b_ids, N, NULL) == LP_OK);
    memcpy(logits, lp_session_logits(s), (size_t)V * sizeof *logits);
    lp_session_free(s);
}

/* `t` filled by a run of `ids`, which nobody but the test does. */
static void record_run(lp_trace *t, const int *ids)
{
    lp_session *s = new_session(model, NULL, NULL);
    CHECK(lp_trace_begin(t, s, N, NULL) == LP_OK && lp_session_eval(s, ids, N, NULL) == LP_OK);
    lp_trace_end(t, s);
    lp_session_free(s);
}

/* ---- a cell is a rerun ------------------------------------------------------------------------------------------- */

static double measure(const float *z, const lp_patch *p)
{
    return (double)z[p->token_source] - (double)z[p->token_into];
}

static void as_reruns(const char *sites, const char *layers)
{
    lp_trace where = choose(sites, layers), tape = choose(sites, layers);
    record *got = new_record();
    lp_patch_question q = question();
    lp_patch out;
    lp_error err = {0};
    float want[MOST_VOCAB], a[MOST_VOCAB], b[MOST_VOCAB];
    lp_session *s = new_session(model, NULL, NULL);
    q.fn = on_cell, q.user = got;
    record_run(&tape, a_ids);
    clean(a, a_ids), clean(b, b_ids);
    if (lp_patch_run(&out, s, &where, &q, &err) != LP_OK) fprintf(stderr, "%s\n", err.text), exit(1);
    CHECK(out.n_places == where.n_parts && out.n_positions == N && got->n == (int)where.n_parts * N);
    CHECK(out.of_source == measure(a, &out) && out.of_into == measure(b, &out));
    for (size_t i = 0; i < where.n_parts; i++) {
        CHECK(!where.parts[i].tape.x && !where.parts[i].handle); /* only read */
        for (int p = 0; p < N; p++) {
            size_t cell = i * N + (size_t)p;
            rerun(want, &tape.parts[i], p, p + 1);
            CHECK_SAME(got->logits[i][p], want, (size_t)V);
            CHECK(out.metric[cell] == measure(want, &out));
            CHECK(out.recovery[cell] == (out.metric[cell] - out.of_into) / (out.of_source - out.of_into));
            CHECK(out.metric[cell] != out.of_into || !signbit(out.recovery[cell]));
            if (p < SAME) CHECK_SAME(want, b, (size_t)V); /* why these need no run */
        }
    }
    lp_patch_free(&out);
    lp_session_free(s);
    lp_trace_clear(&where), lp_trace_clear(&tape);
    free(got);
}

static bool open_one(const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "models/%s", name);
    model = open_golden(path, NULL);
    if (!model) return false;
    V = model->config.vocab;
    CHECK(V <= MOST_VOCAB);
    some_tokens(a_ids, N, V, 3), some_tokens(b_ids, N, V, 4);
    memcpy(b_ids, a_ids, SAME * sizeof *a_ids);
    a_ids[0] = b_ids[0] = model->config.bos;
    if (a_ids[SAME] == b_ids[SAME]) b_ids[SAME] = b_ids[SAME] ? 0 : 1;
    return V <= MOST_VOCAB;
}

static void every_model(void)
{
    for (int g = 0; g < N_GOLDEN; g++) {
        if (open_one(golden_names[g])) as_reruns("resid_post,z,k,pattern", "0,last");
        lp_model_close(model);
    }
}

/* ---- what is put in ---------------------------------------------------------------------------------------------- */

static void all_of_the_source(void)
{
    float a[MOST_VOCAB], b[MOST_VOCAB], got[MOST_VOCAB];
    lp_trace tape = choose("resid_post", "last"), first = choose("resid_post", "all");
    record_run(&tape, a_ids), record_run(&first, a_ids);
    clean(a, a_ids), clean(b, b_ids);
    rerun(got, &tape.parts[0], 0, N);
    CHECK_SAME(got, a, (size_t)V);
    rerun(got, &first.parts[0], 0, N); /* the first layer's output is all the others see */
    CHECK_SAME(got, a, (size_t)V);
    lp_trace_clear(&tape), lp_trace_clear(&first);

    /* After the last layer the last position is all there is; the others say nothing. */
    lp_trace where = choose("resid_post", "last");
    record *k = new_record();
    lp_patch_question q = question();
    lp_patch out;
    lp_session *s = new_session(model, NULL, NULL);
    q.fn = on_cell, q.user = k;
    CHECK(lp_patch_run(&out, s, &where, &q, NULL) == LP_OK);
    CHECK_SAME(k->logits[0][N - 1], a, (size_t)V);
    CHECK(out.recovery[N - 1] == 1 && out.metric[N - 1] == out.of_source);
    for (int p = 0; p < N - 1; p++) {
        CHECK_SAME(k->logits[0][p], b, (size_t)V);
        CHECK(out.recovery[p] == 0);
    }
    lp_patch_free(&out);
    lp_session_free(s);
    lp_trace_clear(&where);
    free(k);
}

/* B into itself: by the function, and by edits that really happen. */
static void into_itself(void)
{
    float b[MOST_VOCAB], got[MOST_VOCAB];
    lp_trace where = choose("all", "all"), tape = choose("all", "all");
    record *k = new_record();
    lp_patch_question q = question();
    lp_patch out;
    lp_session *s = new_session(model, NULL, NULL);
    q.source = b_ids, q.fn = on_cell, q.user = k;
    clean(b, b_ids);
    record_run(&tape, b_ids);
    CHECK(lp_patch_run(&out, s, &where, &q, NULL) == LP_OK && out.of_source == out.of_into);
    for (size_t i = 0; i < out.n_places; i++) {
        rerun(got, &tape.parts[i], 0, N);
        CHECK_SAME(got, b, (size_t)V);
        for (int p = 0; p < N; p++) {
            CHECK_SAME(k->logits[i][p], b, (size_t)V);
            CHECK(out.metric[i * N + (size_t)p] == out.of_into && isnan(out.recovery[i * N + (size_t)p]));
        }
    }
    lp_patch_free(&out);
    lp_session_free(s);
    lp_trace_clear(&where), lp_trace_clear(&tape);
    free(k);
}

/* ---- the same bits, and nothing else touched --------------------------------------------------------------------- */

static lp_patch ask(lp_session *s, const lp_patch_question *q)
{
    lp_trace where = choose("resid_post,attn_out,pattern", "all");
    lp_patch out;
    lp_error err = {0};
    lp_status st = lp_patch_run(&out, s, &where, q, &err);
    if (st != LP_OK) fprintf(stderr, "%s\n", err.text);
    CHECK(st == LP_OK);
    lp_trace_clear(&where);
    return out;
}

static bool same(const lp_patch *a, const lp_patch *b)
{
    size_t n = a->n_places * a->n_positions;
    return n == b->n_places * b->n_positions && a->of_source == b->of_source && a->of_into == b->of_into &&
           memcmp(a->metric, b->metric, n * sizeof *a->metric) == 0 &&
           memcmp(a->recovery, b->recovery, n * sizeof *a->recovery) == 0;
}

static void however_it_runs(void)
{
    static const int threads[] = {1, 2, 7}, waves[] = {1, 3, 0};
    lp_patch_question q = question();
    for (int arithmetic = 0; arithmetic < 2; arithmetic++) {
        lp_patch first = {0};
        for (int way = 0; way < 9; way++) {
            lp_pool *pool = NULL;
            CHECK(lp_pool_new(&pool, threads[way / 3], NULL) == LP_OK);
            lp_session_options o = {.wave = waves[way % 3], .arithmetic = arithmetic ? LP_FAST : LP_EXACT};
            lp_session *s = new_session(model, &o, &(lp_env){.pool = pool});
            lp_patch out = ask(s, &q);
            CHECK(way == 0 || same(&out, &first));
            if (way == 0)
                first = out;
            else
                lp_patch_free(&out);
            lp_session_free(s);
            lp_pool_free(pool);
        }
        lp_patch_free(&first);
    }
}

/* A session that holds the one, the other, or something computed under an edit. */
static void left_as_found(void)
{
    static float zeros[512];
    lp_patch_question q = question();
    lp_session *fresh = new_session(model, NULL, NULL);
    lp_patch want = ask(fresh, &q);
    CHECK(lp_session_pos(fresh) == 0);
    for (int way = 0; way < 4; way++) {
        lp_session *s = new_session(model, NULL, NULL), *twin = new_session(model, NULL, NULL);
        const int *held = way == 1 ? a_ids : b_ids;
        int n = way == 2 ? 5 : N, next[] = {7, 9}, handle = 0;
        float before[MOST_VOCAB];
        lp_edit e = {.kind = LP_EDIT_REPLACE, .v = zeros, .from = 1, .to = INT_MAX};
        if (way == 3) handle = lp_session_hook(s, lp_edit_hook(LP_RESID_MID, 0, &e), NULL);
        CHECK(handle >= 0 && lp_session_eval(s, held, (size_t)n, NULL) == LP_OK);
        memcpy(before, lp_session_logits(s), (size_t)V * sizeof *before);
        lp_patch out = ask(s, &q);
        CHECK(same(&out, &want));
        CHECK(lp_session_pos(s) == n && memcmp(lp_session_tokens(s), held, (size_t)n * sizeof *held) == 0);
        CHECK(lp_session_edited_from(s) == (way == 3 ? 0 : -1));
        CHECK_SAME(lp_session_logits(s), before, (size_t)V);
        if (way == 3) CHECK(lp_session_hook(twin, lp_edit_hook(LP_RESID_MID, 0, &e), NULL) > 0);
        CHECK(lp_session_eval(twin, held, (size_t)n, NULL) == LP_OK);
        CHECK(lp_session_eval(s, next, 2, NULL) == LP_OK && lp_session_eval(twin, next, 2, NULL) == LP_OK);
        CHECK_SAME(lp_session_logits(s), lp_session_logits(twin), (size_t)V);
        lp_patch_free(&out);
        lp_session_free(s), lp_session_free(twin);
    }
    lp_patch_free(&want);
    lp_session_free(fresh);
}

/* ---- edges ------------------------------------------------------------------------------------------------------- */

/* Some positions, in an order of the caller's, one of them twice: the cells of all. */
static void some_positions(void)
{
    int chosen[] = {9, 2, 5, 9};
    lp_patch_question q = question();
    lp_session *s = new_session(model, NULL, NULL);
    lp_patch all = ask(s, &q);
    q.positions = chosen, q.n_positions = 4;
    lp_patch out = ask(s, &q);
    CHECK(out.n_positions == 4);
    for (size_t place = 0; place < out.n_places; place++)
        for (size_t i = 0; i < 4; i++) CHECK(out.metric[place * 4 + i] == all.metric[place * N + (size_t)chosen[i]]);
    lp_patch_free(&out);
    q.n_positions = 0;
    out = ask(s, &q);
    CHECK(out.n_positions == 0 && out.of_source == all.of_source);
    lp_patch_free(&out), lp_patch_free(&all);
    lp_session_free(s);
}

static void likeliest_tokens(void)
{
    float a[MOST_VOCAB], b[MOST_VOCAB];
    lp_patch_question q = question();
    lp_session *s = new_session(model, NULL, NULL);
    clean(a, a_ids), clean(b, b_ids);
    q.token_source = q.token_into = -1;
    CHECK(lp_argmax(a, V) != lp_argmax(b, V));
    lp_patch out = ask(s, &q);
    CHECK(out.token_source == lp_argmax(a, V) && out.token_into == lp_argmax(b, V));
    CHECK(out.of_source > 0 && out.of_into < 0);
    lp_patch_free(&out);
    lp_session_free(s);
}

static void refused(const lp_patch_question *q, const lp_trace *where, lp_status want, const char *words)
{
    lp_session *s = new_session(model, NULL, NULL);
    lp_patch out = {.n_places = 99};
    lp_error err = {0};
    CHECK(lp_patch_run(&out, s, where, q, &err) == want && err.status == want);
    CHECK(out.n_places == 0 && !out.metric && !out.recovery && lp_session_pos(s) == 0);
    if (!strstr(err.text, words)) fprintf(stderr, "%s\n", err.text);
    CHECK(strstr(err.text, words) != NULL);
    lp_session_free(s);
}

static void what_is_refused(void)
{
    lp_trace where = choose("resid_post", "all"), none = {.config = model->config};
    int past[] = {0, N}, wrong[N] = {0};
    lp_patch_question q = question();
    q.n_source = N - 2, refused(&q, &where, LP_E_SHAPE, "the source has 9 tokens, the destination 11");
    q.n_source = q.n_into = 0, refused(&q, &where, LP_E_RANGE, "prompts of 0 tokens");
    q = question(), refused(&q, &none, LP_E_RANGE, "no place");
    q.positions = past, q.n_positions = 2, refused(&q, &where, LP_E_RANGE, "positions 0 to 10");
    q = question(), q.token_into = V, refused(&q, &where, LP_E_RANGE, "ids go from 0 to");
    q = question(), q.token_into = q.token_source, refused(&q, &where, LP_E_RANGE, "compared with itself");
    q = question(), q.source = b_ids, q.token_source = q.token_into = -1;
    refused(&q, &where, LP_E_RANGE, "name two tokens");
    wrong[N - 1] = V;
    q = question(), q.into = wrong, refused(&q, &where, LP_E_RANGE, "ids run from 0 to");
    q = question(), q.source = wrong, refused(&q, &where, LP_E_RANGE, "ids run from 0 to");
    lp_trace_clear(&where);
}

static void interrupted(void)
{
    atomic_bool flag = true;
    lp_session *s = new_session(model, NULL, &(lp_env){.cancel = &flag});
    lp_trace where = choose("resid_post", "all");
    record *k = new_record();
    lp_patch_question q = question();
    lp_patch out;
    lp_error err = {0};
    q.fn = on_cell, q.user = k;
    CHECK(lp_patch_run(&out, s, &where, &q, &err) == LP_CANCELLED && !out.metric && k->n == 0);
    for (int cells = 1; cells < 20; cells += 9) { /* where nothing need be run, and where it must */
        atomic_store(&flag, false);
        k->n = 0, k->stops_at = cells, k->raises = &flag;
        CHECK(lp_patch_run(&out, s, &where, &q, &err) == LP_CANCELLED && !out.metric && k->n == cells);
        atomic_store(&flag, false);
        k->n = 0, k->raises = NULL;
        CHECK(lp_patch_run(&out, s, &where, &q, &err) == LP_STOPPED && !out.metric && k->n == cells);
    }
    CHECK(err.status == LP_OK && lp_session_pos(s) == 0);
    lp_trace_clear(&where);
    lp_session_free(s);
    free(k);
}

int main(void)
{
    every_model();
    if (!open_one("plain")) return check_done();
    as_reruns("all", "all");
    all_of_the_source();
    into_itself();
    however_it_runs();
    left_as_found();
    some_positions();
    likeliest_tokens();
    what_is_refused();
    interrupted();
    lp_model_close(model);
    return check_done();
}
