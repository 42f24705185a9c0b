/* session.c - see session.h: making, evaluating, rewinding and forking a timeline.  The forward pass itself is
 * forward.c. */
#include "core/wave.h"

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_WAVE = 512, MAX_WAVE = 4096 };

/* ---- scratch ----------------------------------------------------------------------------------------------------- */

typedef struct carve {
    char *base; /* NULL while measuring */
    size_t at;
} carve;

static void *take(carve *c, size_t n, size_t size)
{
    void *p = c->base ? c->base + c->at : NULL;
    c->at += (n * size + 63) & ~(size_t)63;
    return p;
}

/* Every buffer of a session, once to measure and once to place them; [W] rows each. */
static size_t lay_out(lp_session *s, char *base)
{
    const lp_config *c = &s->model->config;
    carve a = {base, 0};
    size_t W = (size_t)s->options.wave, D = (size_t)c->d_model, E = (size_t)c->head_dim, F = (size_t)c->d_ff;
    size_t H = (size_t)c->n_heads, G = (size_t)c->n_kv_heads, n_ctx = (size_t)s->options.n_ctx;
    size_t all = W * H * n_ctx, one = H * n_ctx;
    s->score_floats = all < LP_SCORE_FLOATS ? all : one > LP_SCORE_FLOATS ? one : LP_SCORE_FLOATS;
    s->tile_floats = lp_attend_tile_floats(c);
    s->tokens = take(&a, n_ctx, sizeof *s->tokens);
    s->x = take(&a, W * D, sizeof(float));
    s->h = take(&a, W * D, sizeof(float));
    s->rms = take(&a, W, sizeof(float));
    s->q = take(&a, W * H * E, sizeof(float));
    s->z = take(&a, W * H * E, sizeof(float));
    s->key = take(&a, W * G * E, sizeof(float));
    s->v = take(&a, W * G * E, sizeof(float));
    s->gate = take(&a, W * F, sizeof(float));
    s->up = take(&a, W * F, sizeof(float));
    s->scores = take(&a, s->score_floats, sizeof(float));
    s->tile = take(&a, (size_t)s->n_threads * s->tile_floats, sizeof(float));
    s->logits = take(&a, (size_t)c->vocab, sizeof(float));
    s->next_logits = take(&a, (size_t)c->vocab, sizeof(float));
    return a.at;
}

static lp_status fill_options(lp_session_options *o, const lp_session_options *given, const lp_model *m, lp_error *err)
{
    *o = given ? *given : (lp_session_options){0};
    if (o->wave < 0 || o->wave > MAX_WAVE)
        return lp_fail(err, LP_E_RANGE, "a wave of %d rows: 1 to %d are possible", o->wave, MAX_WAVE);
    if (o->n_ctx < 0 || o->n_ctx > m->config.max_positions)
        return lp_fail(err, LP_E_RANGE, "%d positions asked for; this model has %d", o->n_ctx, m->config.max_positions);
    if (o->arithmetic != LP_EXACT && o->arithmetic != LP_FAST) return lp_fail(err, LP_E_RANGE, "unknown arithmetic");
    if (!o->n_ctx) o->n_ctx = m->config.max_positions;
    if (!o->wave) o->wave = DEFAULT_WAVE;
    if (o->wave > o->n_ctx) o->wave = o->n_ctx;
    return LP_OK;
}

static int widest(const lp_config *c)
{
    int w = c->d_model, he = c->n_heads * c->head_dim;
    if (he > w) w = he;
    return c->d_ff > w ? c->d_ff : w;
}

/* All of a session but its cache. */
static lp_status make(lp_session **out, const lp_model *m, const lp_session_options *options, const lp_env *env,
                      lp_error *err)
{
    lp_session *s = lp_calloc(1, sizeof *s);
    if (!s) return lp_fail(err, LP_E_MEMORY, "out of memory");
    s->model = m;
    s->edited_from = -1;
    if (env) s->env = *env;
    if (!s->env.kernels) s->env.kernels = lp_kernels_best();
    s->k = s->env.kernels;
    s->n_threads = lp_pool_threads(s->env.pool);
    lp_status st = fill_options(&s->options, options, m, err);
    if (st == LP_OK) {
        s->arena_bytes = lay_out(s, NULL);
        s->arena = lp_big_alloc(s->arena_bytes);
        if (s->arena)
            lay_out(s, s->arena);
        else
            st = lp_fail(err, LP_E_MEMORY, "no room for a session's %.1f MB of scratch; a smaller wave needs less",
                         (double)s->arena_bytes / 1e6);
    }
    if (st == LP_OK) st = lp_matmul_scratch_new(&s->mm, s->options.wave, widest(&m->config), s->n_threads, err);
    if (st != LP_OK) {
        lp_session_free(s);
        return st;
    }
    *out = s;
    return LP_OK;
}

lp_status lp_session_new(lp_session **out, const lp_model *m, const lp_session_options *options, const lp_env *env,
                         lp_error *err)
{
    lp_session *s = NULL;
    LP_TRY(make(&s, m, options, env, err));
    lp_status st = lp_kv_new(&s->kv, &m->config, s->options.n_ctx, err);
    if (st != LP_OK) {
        lp_session_free(s);
        return st;
    }
    *out = s;
    return LP_OK;
}

void lp_session_free(lp_session *s)
{
    if (!s) return;
    lp_kv_clear(&s->kv);
    for (int i = 0; i < s->n_tails; i++) lp_kv_clear(&s->tails[i]);
    free(s->tails);
    lp_matmul_scratch_free(s->mm);
    lp_big_free(s->arena, s->arena_bytes);
    free(s->logit_rows);
    free(s->hooks);
    free(s);
}

uint64_t lp_session_bytes(const lp_model *m, const lp_session_options *options, int n_threads)
{
    lp_session s = {.model = m, .n_threads = n_threads > 0 ? n_threads : 1};
    if (fill_options(&s.options, options, m, NULL) != LP_OK) return 0;
    return lay_out(&s, NULL);
}

uint64_t lp_session_bytes_per_token(const lp_config *c)
{
    return lp_kv_bytes_per_token(c);
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

const lp_model *lp_session_model(const lp_session *s)
{
    return s->model;
}
const lp_session_options *lp_session_get_options(const lp_session *s)
{
    return &s->options;
}
const lp_env *lp_session_env(const lp_session *s)
{
    return &s->env;
}
const char *lp_session_kernels(const lp_session *s)
{
    return s->k->name;
}
int lp_session_pos(const lp_session *s)
{
    return s->pos;
}
const int *lp_session_tokens(const lp_session *s)
{
    return s->tokens;
}
const float *lp_session_logits(const lp_session *s)
{
    return s->has_logits ? s->logits : NULL;
}
int lp_session_edited_from(const lp_session *s)
{
    return s->edited_from;
}

/* ---- evaluating -------------------------------------------------------------------------------------------------- */

static lp_status check_idle(const lp_session *s, lp_error *err)
{
    return s->is_busy
               ? lp_fail(err, LP_E_RANGE, "called from a hook of the same session, in the middle of an evaluation")
               : LP_OK;
}

lp_status lp_session_check(const lp_session *s, const int *ids, size_t n, lp_error *err)
{
    LP_TRY(check_idle(s, err));
    int room = s->options.n_ctx - s->pos, V = s->model->config.vocab;
    if (n > (size_t)room)
        return lp_fail(err, LP_E_RANGE, "%zu tokens after position %d do not fit: this session has %d positions", n,
                       s->pos, s->options.n_ctx);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= V)
            return lp_fail(err, LP_E_RANGE, "token %d at position %zu: ids run from 0 to %d", ids[i],
                           (size_t)s->pos + i, V - 1);
    return LP_OK;
}

static bool has_editor(const lp_session *s)
{
    for (size_t i = 0; i < s->n_hooks; i++)
        if (s->hooks[i].hook.edits) return true;
    return false;
}

/* Waves move s->pos as they go, so that each sees its own place; the caller decides what remains. */
static lp_status walk(lp_session *s, const int *ids, size_t n, int last_layer, bool want_logits, lp_error *err)
{
    for (size_t at = 0; at < n;) {
        size_t rows = n - at < (size_t)s->options.wave ? n - at : (size_t)s->options.wave;
        lp_rows wave = {.ids = ids + at, .n = (int)rows, .each = LP_UNBRANCHED, .last_layer = last_layer};
        wave.branch = s->branch;
        wave.want_logits = want_logits && at + rows == n;
        LP_TRY(lp_forward(s, &wave, err));
        s->pos += (int)rows;
        at += rows;
        if (at < n || at > rows) lp_progress(&s->env, "prompt", (int64_t)at, (int64_t)n);
    }
    return LP_OK;
}

lp_status lp_session_run(lp_session *s, const int *ids, size_t n, int last_layer, bool want_logits, lp_error *err)
{
    int from = s->pos;
    s->is_busy = true;
    lp_status st = walk(s, ids, n, last_layer, want_logits, err);
    s->is_busy = false;
    s->pos = from;
    return st;
}

lp_status lp_session_eval(lp_session *s, const int *ids, size_t n, lp_error *err)
{
    LP_TRY(lp_session_check(s, ids, n, err));
    if (n == 0) return LP_OK;
    int from = s->pos;
    LP_TRY(lp_session_run(s, ids, n, s->model->config.n_layers - 1, true, err));
    memcpy(s->tokens + from, ids, n * sizeof *ids);
    s->pos += (int)n;
    float *swap = s->logits;
    s->logits = s->next_logits;
    s->next_logits = swap;
    s->has_logits = true;
    if (s->edited_from < 0 && has_editor(s)) s->edited_from = from;
    return LP_OK;
}

lp_status lp_session_peek(lp_session *s, const int *ids, size_t n, int last_layer, lp_error *err)
{
    if (last_layer < 0 || last_layer >= s->model->config.n_layers)
        return lp_fail(err, LP_E_RANGE, "layer %d: this model has layers 0 to %d", last_layer,
                       s->model->config.n_layers - 1);
    LP_TRY(lp_session_check(s, ids, n, err));
    return lp_session_run(s, ids, n, last_layer, false, err);
}

/* ---- going back, branching --------------------------------------------------------------------------------------- */

static lp_status check_pos(const lp_session *s, int pos, lp_error *err)
{
    LP_TRY(check_idle(s, err));
    if (pos >= 0 && pos <= s->pos) return LP_OK;
    return lp_fail(err, LP_E_RANGE, "position %d: this session holds positions 0 to %d", pos, s->pos);
}

lp_status lp_session_rewind(lp_session *s, int pos, lp_error *err)
{
    LP_TRY(check_pos(s, pos, err));
    LP_TRY(lp_kv_own_from(&s->kv, pos, err));
    if (pos < s->pos) s->has_logits = false;
    if (pos <= s->edited_from) s->edited_from = -1;
    s->pos = pos;
    return LP_OK;
}

lp_status lp_session_fork(lp_session **out, lp_session *s, int pos, lp_error *err)
{
    LP_TRY(check_pos(s, pos, err));
    lp_session *f = NULL;
    LP_TRY(make(&f, s->model, &s->options, &s->env, err));
    lp_status st = lp_kv_fork(&f->kv, &s->kv, pos, err);
    if (st != LP_OK) {
        lp_session_free(f);
        return st;
    }
    f->pos = pos;
    f->edited_from = s->edited_from < pos ? s->edited_from : -1;
    memcpy(f->tokens, s->tokens, (size_t)pos * sizeof *f->tokens);
    if (pos == s->pos && s->has_logits) {
        memcpy(f->logits, s->logits, (size_t)s->model->config.vocab * sizeof *f->logits);
        f->has_logits = true;
    }
    *out = f;
    return LP_OK;
}
