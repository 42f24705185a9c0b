/* patch.c - see patch.h.
 *
 * A goes through a fork of the session with tapes, B through another.  Of B's there is a fork for every position, cut
 * there, and each place is tried on it: edit, run on, cut back.
 */
#include "sae/patch.h"

#include "core/edit.h"
#include "core/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct work {
    const lp_patch_question *q;
    lp_patch *out;
    lp_trace a;    /* the source's values                        */
    lp_session *b; /* all of B, unpatched                        */
    int best_source, best_into;
    float *logits; /* [V] after A                                */
    int first;     /* the first position at which A and B differ */
} work;

static int position(const lp_patch_question *q, size_t i)
{
    return q->positions ? q->positions[i] : (int)i;
}

static double metric(const lp_patch *p, const float *logits)
{
    return (double)logits[p->token_source] - (double)logits[p->token_into];
}

/* ---- before ------------------------------------------------------------------------------------------------------ */

static lp_status check_token(int token, const lp_config *c, lp_error *err)
{
    if (token < c->vocab) return LP_OK;
    return lp_fail(err, LP_E_RANGE, "token %d: ids go from 0 to %d", token, c->vocab - 1);
}

static lp_status check(const lp_config *c, const lp_trace *where, const lp_patch_question *q, lp_error *err)
{
    if (q->n_source != q->n_into)
        return lp_fail(err, LP_E_SHAPE,
                       "the source has %zu tokens, the destination %zu: patching needs as many of one as of the other",
                       q->n_source, q->n_into);
    if (q->n_into == 0 || q->n_into > (size_t)c->max_positions)
        return lp_fail(err, LP_E_RANGE, "prompts of %zu tokens: 1 to %d are possible", q->n_into, c->max_positions);
    for (size_t i = 0; i < q->n_positions && q->positions; i++)
        if (q->positions[i] < 0 || q->positions[i] >= (int)q->n_into)
            return lp_fail(err, LP_E_RANGE, "position %d: the prompts have positions 0 to %zu", q->positions[i],
                           q->n_into - 1);
    LP_TRY(check_token(q->token_source, c, err));
    LP_TRY(check_token(q->token_into, c, err));
    return where->n_parts ? LP_OK : lp_fail(err, LP_E_RANGE, "no place to patch was chosen");
}

/* An empty trace of the same places: the caller's stays as it is. */
static lp_status copy_places(lp_trace *to, const lp_trace *where, lp_error *err)
{
    *to = (lp_trace){.config = where->config};
    to->parts = lp_calloc(where->n_parts, sizeof *to->parts);
    if (!to->parts) return lp_fail(err, LP_E_MEMORY, "no memory for %zu places", where->n_parts);
    to->n_parts = to->capacity = where->n_parts;
    for (size_t i = 0; i < where->n_parts; i++)
        to->parts[i] = (lp_trace_part){.site = where->parts[i].site, .layer = where->parts[i].layer};
    return LP_OK;
}

static lp_status take_memory(work *w, const lp_trace *where, int vocab, lp_error *err)
{
    lp_patch *out = w->out;
    out->n_places = where->n_parts;
    out->n_positions = w->q->positions ? w->q->n_positions : w->q->n_into;
    size_t n = out->n_places * out->n_positions + 1;
    out->metric = lp_calloc(n, sizeof *out->metric);
    out->recovery = lp_calloc(n, sizeof *out->recovery);
    w->logits = lp_calloc((size_t)vocab, sizeof *w->logits);
    if (!out->metric || !out->recovery || !w->logits)
        return lp_fail(err, LP_E_MEMORY, "no memory for %zu patched runs", n);
    while (w->first < (int)w->q->n_into && w->q->source[w->first] == w->q->into[w->first]) w->first++;
    return copy_places(&w->a, where, err);
}

/* ---- the two clean runs ------------------------------------------------------------------------------------------ */

static lp_status run_source(work *w, lp_session *s, lp_error *err)
{
    lp_session *a = NULL;
    int held = lp_session_pos(s), n = (int)w->q->n_source, from = n;
    for (size_t i = 0; i < w->out->n_positions; i++)
        if (position(w->q, i) < from) from = position(w->q, i);
    LP_TRY(lp_session_fork(&a, s, held < from ? held : from, err)); /* what is kept must pass the tapes */
    lp_status st = lp_trace_begin(&w->a, a, n, err);
    if (st == LP_OK) st = lp_generate_prompt(a, w->q->source, w->q->n_source, err);
    lp_trace_end(&w->a, a);
    if (st == LP_OK)
        memcpy(w->logits, lp_session_logits(a), (size_t)lp_session_model(a)->config.vocab * sizeof *w->logits);
    lp_session_free(a);
    return st;
}

static lp_status run_into(work *w, lp_session *s, lp_error *err)
{
    LP_TRY(lp_session_fork(&w->b, s, lp_session_pos(s), err));
    return lp_generate_prompt(w->b, w->q->into, w->q->n_into, err);
}

/* Which two logits are compared, and what they come to after A and after B. */
static lp_status read_clean(work *w, lp_error *err)
{
    int V = lp_session_model(w->b)->config.vocab;
    const float *after_b = lp_session_logits(w->b);
    lp_patch *out = w->out;
    w->best_source = lp_argmax(w->logits, V), w->best_into = lp_argmax(after_b, V);
    if (w->best_source < 0 || w->best_into < 0)
        return lp_fail(err, LP_E_RANGE, "the logits after a prompt are not numbers: nothing can be compared");
    out->token_source = w->q->token_source < 0 ? w->best_source : w->q->token_source;
    out->token_into = w->q->token_into < 0 ? w->best_into : w->q->token_into;
    if (out->token_source == out->token_into)
        return lp_fail(err, LP_E_RANGE,
                       "token %d would be compared with itself (the likeliest after the source is %d, "
                       "after the destination %d); name two tokens",
                       out->token_into, w->best_source, w->best_into);
    out->of_source = metric(out, w->logits);
    out->of_into = metric(out, after_b);
    return LP_OK;
}

/* ---- patching ---------------------------------------------------------------------------------------------------- */

static lp_status take_down(work *w, size_t place, size_t i, const float *logits)
{
    lp_patch *out = w->out;
    size_t cell = place * out->n_positions + i;
    double span = out->of_source - out->of_into, moved = metric(out, logits) - out->of_into;
    out->metric[cell] = metric(out, logits);
    out->recovery[cell] = span == 0 ? (double)NAN : moved != 0 ? moved / span : 0; /* not -0 where nothing moved */
    return w->q->fn && w->q->fn(place, position(w->q, i), logits, w->q->user) ? LP_STOPPED : LP_OK;
}

/* B on from the position, with the place's value there out of A.  Rows of scores and patterns are stored with room for
 * all keys of the prompt; keys beyond the position are masked, whatever is written there. */
static lp_status patch_one(work *w, lp_session *f, size_t place, size_t i, lp_error *err)
{
    lp_trace_part *p = &w->a.parts[place];
    int pos = position(w->q, i), n = (int)w->q->n_into;
    bool grows = p->site == LP_SCORES || p->site == LP_PATTERN;
    lp_edit e = {.kind = LP_EDIT_REPLACE, .from = pos, .to = pos + 1, .keys = grows ? n : 0};
    e.v = p->tape.x + (size_t)pos * (size_t)p->tape.width;
    LP_TRY(lp_session_rewind(f, pos, err));
    int handle = lp_session_hook(f, lp_edit_hook(p->site, p->layer, &e), err);
    if (handle < 0) return (lp_status)handle;
    lp_status st = lp_session_eval(f, w->q->into + pos, (size_t)(n - pos), err);
    lp_session_unhook(f, handle);
    LP_TRY(st);
    return take_down(w, place, i, lp_session_logits(f));
}

static lp_status patch_position(work *w, size_t i, lp_error *err)
{
    int pos = position(w->q, i);
    size_t n = w->out->n_places;
    const lp_env *env = lp_session_env(w->b);
    lp_session *f = NULL;
    lp_status st = LP_OK;
    if (pos >= w->first) LP_TRY(lp_session_fork(&f, w->b, pos, err));
    for (size_t place = 0; place < n && st == LP_OK; place++) {
        lp_progress(env, "patching", (int64_t)(i * n + place), (int64_t)(w->out->n_positions * n));
        if (lp_cancelled(env))
            st = LP_CANCELLED;
        else
            st = f ? patch_one(w, f, place, i, err) : take_down(w, place, i, lp_session_logits(w->b));
    }
    lp_session_free(f);
    return st;
}

static lp_status run(work *w, lp_session *s, const lp_trace *where, lp_error *err)
{
    LP_TRY(take_memory(w, where, lp_session_model(s)->config.vocab, err));
    LP_TRY(run_source(w, s, err));
    LP_TRY(run_into(w, s, err));
    LP_TRY(read_clean(w, err));
    for (size_t i = 0; i < w->out->n_positions; i++) LP_TRY(patch_position(w, i, err));
    int64_t all = (int64_t)(w->out->n_places * w->out->n_positions);
    lp_progress(lp_session_env(s), "patching", all, all);
    return LP_OK;
}

lp_status lp_patch_run(lp_patch *out, lp_session *s, const lp_trace *where, const lp_patch_question *q, lp_error *err)
{
    *out = (lp_patch){0};
    LP_TRY(check(&lp_session_model(s)->config, where, q, err));
    work w = {.q = q, .out = out};
    lp_status st = run(&w, s, where, err);
    lp_trace_clear(&w.a);
    lp_session_free(w.b);
    free(w.logits);
    if (st != LP_OK) lp_patch_free(out);
    return st;
}

void lp_patch_free(lp_patch *p)
{
    free(p->metric);
    free(p->recovery);
    *p = (lp_patch){0};
}
