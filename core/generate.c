/* generate.c - see generate.h.
 *
 * The one subtle thing is the held text.  `held` is the decoded stream from the first byte not yet given out.  After
 * each token the earliest stop string in it is looked for; without one, all of it but the longest suffix that is a
 * proper prefix of a stop string may go.  Held text is shorter than the longest stop string, so the searches are small.
 */
#include "core/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct loop {
    lp_generation *out;
    lp_session *s;
    const lp_generate_options *o;
    lp_detokenizer detok; /* tokenizer NULL: no text */
    char *held;
    size_t n_held, held_capacity;
    lp_scored *top; /* [o->n_top] */
} loop;

const char *lp_finish_name(lp_finish f)
{
    static const char *const names[] = {"none",    "stop_token", "stop_string", "length",
                                        "context", "stopped",    "cancelled"};
    return f >= LP_FINISH_NONE && f <= LP_FINISH_CANCELLED ? names[f] : "unknown";
}

bool lp_is_end(const lp_model *m, int id)
{
    if (id < 0) return false;
    const lp_tokenizer *t = m->tokenizer;
    if (id == m->config.eos) return true;
    return t && (id == lp_tokenizer_eos(t) || id == lp_tokenizer_find(t, "<eos>") ||
                 id == lp_tokenizer_find(t, "<end_of_turn>"));
}

void lp_generation_free(lp_generation *g)
{
    if (!g) return;
    free(g->ids);
    free(g->logprobs);
    free(g->text);
    *g = (lp_generation){0};
}

/* ---- the prompt -------------------------------------------------------------------------------------------- */

lp_status lp_generate_prompt(lp_session *s, const int *ids, size_t n, lp_error *err)
{
    int n_ctx = lp_session_get_options(s)->n_ctx;
    if (n == 0) return lp_fail(err, LP_E_RANGE, "an empty prompt: there must be a token to go on from");
    if (n > (size_t)n_ctx) return lp_fail(err, LP_E_RANGE, "the prompt has %zu tokens, the context holds %d", n, n_ctx);
    const int *have = lp_session_tokens(s);
    int keep = lp_session_pos(s), common = 0, edited = lp_session_edited_from(s);
    if (keep > (int)n - 1) keep = (int)n - 1;
    if (edited >= 0 && keep > edited) keep = edited;
    while (common < keep && have[common] == ids[common]) common++;
    LP_TRY(lp_session_rewind(s, common, err));
    return lp_session_eval(s, ids + common, n - (size_t)common, err);
}

/* ---- text -------------------------------------------------------------------------------------------------- */

static lp_status hold(loop *w, const char *text, size_t len, lp_error *err)
{
    if (!len) return LP_OK;
    if (!lp_grow((void **)&w->held, &w->held_capacity, w->n_held + len, 1))
        return lp_fail(err, LP_E_MEMORY, "no memory for %zu bytes of text", w->n_held + len);
    if (len) memcpy(w->held + w->n_held, text, len); /* nothing held and nothing new: both may be NULL */
    w->n_held += len;
    return LP_OK;
}

/* Where the earliest stop string begins in the held text, the first listed of those that begin there; false: none. */
static bool find_stop(const loop *w, size_t *at, int *which)
{
    for (size_t i = 0; i < w->n_held; i++)
        for (int k = 0; k < w->o->n_stop; k++) {
            size_t len = strlen(w->o->stop[k]);
            if (len > w->n_held - i || memcmp(w->held + i, w->o->stop[k], len) != 0) continue;
            *at = i;
            *which = k;
            return true;
        }
    return false;
}

/* Bytes of held text that no continuation can turn into a stop string. */
static size_t certain(const loop *w)
{
    for (size_t i = 0; i < w->n_held; i++)
        for (int k = 0; k < w->o->n_stop; k++) {
            size_t left = w->n_held - i;
            if (left < strlen(w->o->stop[k]) && memcmp(w->held + i, w->o->stop[k], left) == 0) return i;
        }
    return w->n_held;
}

/* Moves n held bytes to the end of out->text; *text points at them there. */
static lp_status release(loop *w, size_t n, const char **text, lp_error *err)
{
    lp_generation *out = w->out;
    if (!lp_grow((void **)&out->text, &out->capacity_text, out->len + n + 1, 1))
        return lp_fail(err, LP_E_MEMORY, "no memory for %zu bytes of text", out->len + n + 1);
    *text = out->text + out->len;
    if (n) memcpy(out->text + out->len, w->held, n);
    out->len += n;
    out->text[out->len] = 0;
    w->n_held -= n;
    if (w->n_held) memmove(w->held, w->held + n, w->n_held);
    return LP_OK;
}

/* The text that becomes certain with token t->id; may find that a stop string ends it all. */
static lp_status take_text(loop *w, lp_generated *t, lp_error *err)
{
    const lp_tokenizer *tok = w->detok.tokenizer;
    size_t len = 0, n = 0;
    if (tok && t->finish != LP_FINISH_TOKEN && t->id < lp_tokenizer_size(tok)) {
        const char *text = lp_detokenizer_push(&w->detok, t->id, &len);
        LP_TRY(hold(w, text, len, err));
    }
    bool found = find_stop(w, &n, &w->out->stop_string);
    if (!found && t->finish != LP_FINISH_NONE && tok) { /* the end: half a character, half a stop string are text now */
        const char *text = lp_detokenizer_flush(&w->detok, &len);
        LP_TRY(hold(w, text, len, err));
        found = find_stop(w, &n, &w->out->stop_string);
    }
    if (found)
        t->finish = LP_FINISH_STRING;
    else
        n = t->finish != LP_FINISH_NONE ? w->n_held : certain(w);
    t->len = n;
    return release(w, n, &t->text, err);
}

/* ---- the loop ---------------------------------------------------------------------------------------------- */

static bool is_stop_id(const loop *w, int id)
{
    for (int i = 0; i < w->o->n_stop_ids; i++)
        if (id == w->o->stop_ids[i]) return true;
    return !w->o->ignore_eos && lp_is_end(lp_session_model(w->s), id);
}

static void take_logprobs(const loop *w, lp_generated *t, const float *logits, int vocab)
{
    t->logprob = NAN;
    if (!w->o->logprobs && w->o->n_top <= 0) return;
    double norm = lp_log_sum_exp(logits, vocab);
    t->logprob = lp_logprob(logits[t->id], norm);
    t->top = w->top;
    t->n_top = lp_top_k(w->top, w->o->n_top, logits, vocab);
    for (int i = 0; i < t->n_top; i++) w->top[i].score = lp_logprob(w->top[i].score, norm);
}

static lp_status keep_token(lp_generation *out, const lp_generated *t, lp_error *err)
{
    if (!lp_grow((void **)&out->ids, &out->capacity_ids, out->n + 1, sizeof *out->ids) ||
        !lp_grow((void **)&out->logprobs, &out->capacity_logprobs, out->n + 1, sizeof *out->logprobs))
        return lp_fail(err, LP_E_MEMORY, "no memory for %zu tokens", out->n + 1);
    out->ids[out->n] = t->id;
    out->logprobs[out->n] = t->logprob;
    out->n++;
    return LP_OK;
}

/* One token: draw, work out what it ends, report. */
static lp_status step(loop *w, lp_sampler *sampler, int *id, lp_error *err)
{
    lp_generation *out = w->out;
    const float *logits = lp_session_logits(w->s);
    int pos = lp_session_pos(w->s);
    lp_generated t = {.index = (int)out->n, .pos = pos};
    LP_TRY(lp_sampler_next(&t.id, sampler, logits, lp_session_tokens(w->s), (size_t)pos, err));
    take_logprobs(w, &t, logits, lp_session_model(w->s)->config.vocab);
    LP_TRY(keep_token(out, &t, err));
    if (is_stop_id(w, t.id))
        t.finish = LP_FINISH_TOKEN;
    else if (w->o->max_tokens > 0 && out->n >= (size_t)w->o->max_tokens)
        t.finish = LP_FINISH_LENGTH;
    else if (pos >= lp_session_get_options(w->s)->n_ctx)
        t.finish = LP_FINISH_CONTEXT;
    LP_TRY(take_text(w, &t, err));
    out->finish = t.finish;
    *id = t.id;
    if (w->o->fn && w->o->fn(&t, w->o->user) != 0 && out->finish == LP_FINISH_NONE) {
        out->finish = LP_FINISH_STOPPED;
        return LP_STOPPED;
    }
    return LP_OK;
}

static lp_status check(const loop *w, const lp_sampler *sampler, lp_error *err)
{
    int vocab = lp_session_model(w->s)->config.vocab;
    if (lp_sampler_vocab(sampler) != vocab)
        return lp_fail(err, LP_E_SHAPE, "the sampler is for %d tokens, the model has %d", lp_sampler_vocab(sampler),
                       vocab);
    if (!lp_session_logits(w->s))
        return lp_fail(err, LP_E_RANGE, "there are no logits to draw from: evaluate a token first");
    for (int k = 0; k < w->o->n_stop; k++)
        if (!w->o->stop[k][0]) return lp_fail(err, LP_E_RANGE, "a stop string is empty");
    if (w->o->n_stop > 0 && !w->detok.tokenizer)
        return lp_fail(err, LP_E_UNSUPPORTED, "stop strings need a tokenizer, and this model has none");
    return LP_OK;
}

lp_status lp_generate(lp_generation *out, lp_session *s, lp_sampler *sampler, const lp_generate_options *o,
                      lp_error *err)
{
    const lp_model *m = lp_session_model(s);
    loop w = {.out = out, .s = s, .o = o, .detok = {.tokenizer = m->tokenizer, .show_specials = o->show_specials}};
    lp_status st;
    const char *none;
    out->n = out->len = 0;
    out->finish = LP_FINISH_NONE;
    out->stop_string = -1;
    if ((st = check(&w, sampler, err)) < 0 || (st = release(&w, 0, &none, err)) < 0) goto done;
    w.top = lp_calloc(o->n_top > 0 ? (size_t)o->n_top : 1, sizeof *w.top);
    if (!w.top) {
        st = lp_fail(err, LP_E_MEMORY, "no memory for %d alternatives", o->n_top);
        goto done;
    }
    for (;;) {
        int id;
        if ((st = step(&w, sampler, &id, err)) != LP_OK || out->finish != LP_FINISH_NONE) goto done;
        if ((st = lp_session_eval(s, &id, 1, err)) != LP_OK) goto done;
    }
done:
    if (st == LP_STOPPED) out->finish = LP_FINISH_STOPPED;
    if (st == LP_CANCELLED) out->finish = LP_FINISH_CANCELLED;
    free(w.held);
    free(w.top);
    return st;
}
