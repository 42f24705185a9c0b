/* verify_itself.c - the same tokens in many ways, compared bit for bit; see verify.h. */
#include "core/verify.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a run leaves behind. */
typedef struct run {
    float *resid;  /* [L][n][D], after every layer */
    float *logits; /* [n][V]                       */
    size_t n_resid, n_logits;
} run;

typedef struct verify {
    const lp_model *m;
    const int *ids;
    int n;
    lp_session_options o;
    lp_env env;
    lp_error *err;
    run want, got;
    lp_check *out;
    int *n_checks;
} verify;

static lp_status run_new(run *r, const verify *v)
{
    const lp_config *c = &v->m->config;
    r->n_resid = (size_t)c->n_layers * (size_t)v->n * (size_t)c->d_model;
    r->n_logits = (size_t)v->n * (size_t)c->vocab;
    r->resid = lp_calloc(r->n_resid, sizeof *r->resid);
    r->logits = lp_calloc(r->n_logits, sizeof *r->logits);
    return r->resid && r->logits ? LP_OK : lp_fail(v->err, LP_E_MEMORY, "out of memory for %d rows of logits", v->n);
}

static void run_free(run *r)
{
    free(r->resid);
    free(r->logits);
}

static int look(lp_act *act, void *user)
{
    *(float *)user += act->x[0];
    return 0;
}

static lp_status arm_everything(lp_session *s, float *sum, lp_error *err)
{
    for (int site = 0; site < LP_N_SITES; site++) {
        int layer = lp_site_has_layer((lp_site)site) ? LP_EVERY_LAYER : LP_WHOLE_MODEL;
        int handle = lp_session_hook(s, (lp_hook){(lp_site)site, layer, false, look, sum}, err);
        if (handle < 0) return (lp_status)handle;
    }
    return LP_OK;
}

/* Taps the session, so that rows `from` .. `from + rows` land in r. */
static lp_status tap(lp_session *s, lp_tape tapes[2], const verify *v, run *r, lp_error *err)
{
    const lp_config *c = &v->m->config;
    tapes[0] = (lp_tape){.x = r->resid, .n_layers = c->n_layers, .n_pos = v->n, .width = c->d_model};
    tapes[1] = (lp_tape){.x = r->logits, .n_layers = 1, .n_pos = v->n, .width = c->vocab};
    int a = lp_session_hook(s, lp_tap(LP_RESID_POST, LP_EVERY_LAYER, &tapes[0]), err);
    int b = a < 0 ? a : lp_session_hook(s, lp_tap(LP_LOGITS, LP_WHOLE_MODEL, &tapes[1]), err);
    return b < 0 ? (lp_status)b : LP_OK;
}

static lp_status eval_in_steps(lp_session *s, const int *ids, int from, int to, int step, lp_error *err)
{
    for (int at = from; at < to; at += step)
        LP_TRY(lp_session_eval(s, ids + at, (size_t)(to - at < step ? to - at : step), err));
    return LP_OK;
}

/* ---- comparing ------------------------------------------------------------------------------------------------ */

static void compare(lp_check *c, const char *what, const float *got, const float *want, size_t n, size_t width)
{
    c->floats += n;
    if (!c->same || memcmp(got, want, n * sizeof *got) == 0) return;
    c->same = false;
    for (size_t i = 0; i < n; i++) {
        if (memcmp(got + i, want + i, sizeof *got) == 0) continue;
        snprintf(c->difference, sizeof c->difference, "%s, row %zu, element %zu: %.9g, not %.9g", what, i / width,
                 i % width, (double)got[i], (double)want[i]);
        return;
    }
}

/* The first `rows` rows of every layer, and their logits. */
static lp_check *record(verify *v, const char *name, int rows)
{
    const lp_config *c = &v->m->config;
    size_t D = (size_t)c->d_model, V = (size_t)c->vocab, slab = (size_t)v->n * D;
    lp_check *check = &v->out[(*v->n_checks)++];
    *check = (lp_check){.same = true};
    snprintf(check->name, sizeof check->name, "%s", name);
    for (int l = 0; l < c->n_layers; l++) {
        char what[32];
        snprintf(what, sizeof what, "resid_post.%d", l);
        compare(check, what, v->got.resid + (size_t)l * slab, v->want.resid + (size_t)l * slab, (size_t)rows * D, D);
    }
    compare(check, "logits", v->got.logits, v->want.logits, (size_t)rows * V, V);
    memset(v->got.resid, 0xff, v->got.n_resid * sizeof *v->got.resid); /* NaN: the next run must write all of it */
    memset(v->got.logits, 0xff, v->got.n_logits * sizeof *v->got.logits);
    return check;
}

/* ---- the ways ------------------------------------------------------------------------------------------------- */

typedef struct way {
    const char *name;
    int rows, step, wave;
    bool armed;
} way;

static lp_status evaluate(verify *v, const way *w, const lp_env *env, run *r)
{
    lp_session *s = NULL;
    lp_tape tapes[2];
    float sum = 0;
    lp_session_options o = v->o;
    o.n_ctx = v->n;
    if (w->wave) o.wave = w->wave;
    lp_status st = lp_session_new(&s, v->m, &o, env, v->err);
    if (st == LP_OK && w->armed) st = arm_everything(s, &sum, v->err);
    if (st == LP_OK) st = tap(s, tapes, v, r, v->err);
    if (st == LP_OK) st = eval_in_steps(s, v->ids, 0, w->rows, w->step, v->err);
    lp_session_free(s);
    return st;
}

static lp_status try_cuts(verify *v)
{
    const way ways[] = {{"hooks on every site", v->n, v->n, 0, true},
                        {"one token at a time", v->n, 1, 0, false},
                        {"seven tokens at a time", v->n, 7, 0, false},
                        {"waves of five rows", v->n, v->n, 5, false}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        LP_TRY(evaluate(v, &ways[i], &v->env, &v->got));
        record(v, ways[i].name, v->n);
    }
    return LP_OK;
}

/* Nobody watches: then only the last row's logits can be seen. */
static lp_status try_unarmed(verify *v)
{
    lp_session *s = NULL;
    lp_session_options o = v->o;
    size_t V = (size_t)v->m->config.vocab;
    o.n_ctx = v->n;
    lp_status st = lp_session_new(&s, v->m, &o, &v->env, v->err);
    if (st == LP_OK) st = lp_session_eval(s, v->ids, (size_t)v->n, v->err);
    if (st == LP_OK) {
        lp_check *c = &v->out[(*v->n_checks)++];
        *c = (lp_check){.name = "no hooks at all", .same = true};
        compare(c, "last logits", lp_session_logits(s), v->want.logits + (size_t)(v->n - 1) * V, V, V);
    }
    lp_session_free(s);
    return st;
}

static lp_status try_threads(verify *v)
{
    static const int counts[] = {1, 2, 7};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        lp_env env = v->env;
        char name[32];
        LP_TRY(lp_pool_new(&env.pool, counts[i], v->err));
        lp_status st = evaluate(v, &(way){"", v->n, v->n, 0, false}, &env, &v->got);
        lp_pool_free(env.pool);
        LP_TRY(st);
        snprintf(name, sizeof name, "%d thread%s", counts[i], counts[i] > 1 ? "s" : "");
        record(v, name, v->n);
    }
    return LP_OK;
}

/* Fast arithmetic promises its bits for one table only. */
static lp_status try_tables(verify *v)
{
    int n = 0;
    const lp_kernels *const *all = lp_kernels_all(&n);
    if (v->o.arithmetic != LP_EXACT) return LP_OK;
    for (int i = 0; i < n && *v->n_checks < LP_MAX_CHECKS - 2; i++) {
        lp_env env = v->env;
        char name[48];
        int rows = all[i] == lp_kernels_c() && v->n > 3 ? 3 : v->n;
        env.kernels = all[i];
        LP_TRY(evaluate(v, &(way){"", rows, rows, 0, false}, &env, &v->got));
        snprintf(name, sizeof name, "kernel table %s", all[i]->name);
        record(v, name, rows);
    }
    return LP_OK;
}

/* A session that went another way first, and came back; and a fork of one. */
static lp_status try_timelines(verify *v)
{
    lp_session *s = NULL, *fork = NULL;
    lp_tape tapes[2];
    lp_session_options o = v->o;
    int half = v->n / 2, other[2] = {v->ids[v->n - 1], v->ids[0]};
    o.n_ctx = v->n + 2;
    lp_status st = lp_session_new(&s, v->m, &o, &v->env, v->err);
    if (st == LP_OK) st = tap(s, tapes, v, &v->got, v->err);
    if (st == LP_OK) st = lp_session_eval(s, v->ids, (size_t)half, v->err);
    if (st == LP_OK) st = lp_session_eval(s, other, 2, v->err);
    if (st == LP_OK) st = lp_session_rewind(s, half, v->err);
    if (st == LP_OK) st = eval_in_steps(s, v->ids, half, v->n, v->n, v->err);
    if (st == LP_OK) record(v, "rewound after another way", v->n);

    if (st == LP_OK) st = lp_session_rewind(s, 0, v->err);
    if (st == LP_OK) st = lp_session_eval(s, v->ids, (size_t)half, v->err);
    if (st == LP_OK) st = lp_session_fork(&fork, s, half, v->err);
    if (st == LP_OK) st = lp_session_eval(s, other, 2, v->err); /* the two go apart */
    if (st == LP_OK) st = lp_session_rewind(s, half, v->err);
    if (st == LP_OK) st = tap(fork, tapes, v, &v->got, v->err);
    if (st == LP_OK) st = eval_in_steps(fork, v->ids, half, v->n, v->n, v->err);
    if (st == LP_OK) record(v, "forked in the middle", v->n);
    lp_session_free(fork);
    lp_session_free(s);
    return st;
}

lp_status lp_verify_itself(lp_check *out, int *n_checks, const lp_model *m, const int *ids, int n,
                           const lp_session_options *o, const lp_env *env, lp_error *err)
{
    verify v = {m, ids, n, .err = err, .out = out, .n_checks = n_checks};
    if (o) v.o = *o;
    if (env) v.env = *env;
    *n_checks = 0;
    if (n < 4 || n + 2 > m->config.max_positions)
        return lp_fail(err, LP_E_RANGE, "%d tokens, expected 4 to %d", n, m->config.max_positions - 2);
    lp_status st = run_new(&v.want, &v);
    if (st == LP_OK) st = run_new(&v.got, &v);
    if (st == LP_OK) st = evaluate(&v, &(way){"", n, n, 0, false}, &v.env, &v.want);
    if (st == LP_OK) st = try_unarmed(&v);
    if (st == LP_OK) st = try_cuts(&v);
    if (st == LP_OK) st = try_threads(&v);
    if (st == LP_OK) st = try_tables(&v);
    if (st == LP_OK) st = try_timelines(&v);
    run_free(&v.got);
    run_free(&v.want);
    return st;
}
