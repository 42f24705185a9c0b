/* sweep.c - see sweep.h.
 *
 * One clean session serves all factors; it is rewound to the prompt, which it keeps, for each text.  For each factor there
 * is one steered session, since hooks belong to a recipe; its prompt too is evaluated once for all seeds.
 *
 * At factor 0 every edit becomes an addition of nothing: steering leaves the bits of such a row alone (steer.h) and
 * still reads its features, so that the row "0" has the activations of the model as it is, at the same positions.
 *
 * exp and log here are libm's: kl and nll may differ in the last digits from one machine to the next, texts may not.
 */
#include "sae/sweep.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double default_factors[] = {0, 0.25, 0.5, 1, 1.5, 2};

/* Sums of one factor. */
typedef struct tally {
    double kl, nll, moved, distinct;
    size_t n_tokens, n_texts, n_moves;
    double *achieved; /* [n_edits] */
    size_t *n_readings;
} tally;

typedef struct sweep {
    const lp_model *m;
    const lp_recipe *recipe;
    const lp_sae *const *saes;
    int n_saes;
    lp_sweep_options o; /* defaults filled in */
    lp_sample_options sample;
    lp_generate_options generate;
    lp_env env, quiet; /* quiet: without progress, which is the sweep's own */
    lp_session *clean, *steered;
    lp_steer *steer;
    lp_recipe scaled; /* shares all but the list of edits with `recipe` */
    tally sum;
    uint32_t *seen; /* [vocab] the text a token was last seen in, counted from 1 */
    uint32_t n_texts;
    int64_t done;
    lp_status st;
    lp_error *err;
} sweep;

static lp_status no_memory(lp_error *err)
{
    return lp_fail(err, LP_E_MEMORY, "a sweep: out of memory");
}

/* ---- the recipe at a factor -------------------------------------------------------------------------------------- */

lp_status lp_sweep_check(const lp_recipe *r, lp_error *err)
{
    if (!r->n_edits) return lp_fail(err, LP_E_UNSUPPORTED, "the recipe has no edits, so there is no strength to vary");
    for (size_t i = 0; i < r->n_edits; i++) {
        const lp_recipe_edit *e = &r->edits[i];
        if (e->kind != LP_RECIPE_ABLATE && (e->strength != 0 || e->kind == LP_RECIPE_SCALE)) continue;
        return lp_fail(err, LP_E_UNSUPPORTED,
                       "features[%zu] (%s %s #%d) has no strength to multiply, or 0; give it one, or leave it out", i,
                       lp_recipe_kind_name(e->kind), e->source, e->index);
    }
    return LP_OK;
}

static lp_status scale_recipe(sweep *w, double factor, lp_error *err)
{
    const lp_recipe *r = w->recipe;
    free(w->scaled.edits);
    w->scaled = *r;
    w->scaled.edits = lp_calloc(r->n_edits, sizeof *r->edits);
    if (!w->scaled.edits) return no_memory(err);
    memcpy(w->scaled.edits, r->edits, r->n_edits * sizeof *r->edits);
    for (size_t i = 0; i < r->n_edits; i++) {
        lp_recipe_edit *e = &w->scaled.edits[i];
        double counted_from = e->kind == LP_RECIPE_SCALE ? 1 : 0;
        e->strength = counted_from + factor * (e->strength - counted_from);
        if (factor == 0) e->kind = LP_RECIPE_ADD, e->unit = LP_RECIPE_ABSOLUTE, e->strength = 0;
    }
    if (factor == 0) w->scaled.is_joint = w->scaled.keeps_norm = w->scaled.drops_error = false;
    return LP_OK;
}

/* ---- one text ---------------------------------------------------------------------------------------------------- */

static double divergence(const float *p, double p_norm, const float *q, double q_norm, int vocab)
{
    double kl = 0;
    for (int i = 0; i < vocab; i++) {
        double a = (double)p[i] - p_norm, b = (double)q[i] - q_norm;
        kl += exp(a) * (a - b);
    }
    return kl > 0 ? kl : 0; /* rounding may carry 0 below itself */
}

/* A token of the steered text, which the clean session reads along.  (cli/cmd_steer.c does the same token by token.) */
static int on_token(const lp_generated *t, void *user)
{
    sweep *w = user;
    int V = w->m->config.vocab;
    const float *p = lp_session_logits(w->clean), *q = lp_session_logits(w->steered);
    double p_norm = lp_log_sum_exp(p, V);
    w->sum.kl += divergence(p, p_norm, q, lp_log_sum_exp(q, V), V);
    w->sum.nll += p_norm - (double)p[t->id];
    w->sum.n_tokens++;
    if (t->finish == LP_FINISH_NONE) w->st = lp_session_eval(w->clean, &t->id, 1, w->err);
    return w->st != LP_OK || lp_steer_generated(t, w->steer);
}

/* Makes a session hold the prompt and its logits: all of it for the first seed, its last token for the others. */
static lp_status hold_prompt(lp_session *s, const lp_sweep_prompt *p, bool is_first, lp_error *err)
{
    size_t keep = is_first ? 0 : p->n - 1;
    LP_TRY(lp_session_rewind(s, (int)keep, err));
    return lp_session_eval(s, p->ids + keep, p->n - keep, err);
}

static lp_status begin_prompt(sweep *w, const lp_sweep_prompt *p, bool is_first, lp_error *err)
{
    lp_steer_context c = {.n_prompt = (int)p->n, .ids = p->ids, .is_template = p->is_template, .reads_back = 1};
    LP_TRY(lp_generate_prompt(w->clean, p->ids, p->n, err));
    if (is_first) LP_TRY(lp_session_rewind(w->steered, 0, err));
    if (!w->steer)
        LP_TRY(lp_steer_new(&w->steer, w->steered, &w->scaled, w->saes, w->n_saes, &c, err));
    else if (is_first)
        LP_TRY(lp_steer_prompt(w->steer, &c, err));
    return lp_steer_explain(w->steer, hold_prompt(w->steered, p, is_first, err), err);
}

static void count_distinct(sweep *w, const lp_generation *g)
{
    size_t n = 0;
    w->n_texts++;
    for (size_t i = 0; i < g->n; i++) {
        n += w->seen[g->ids[i]] != w->n_texts;
        w->seen[g->ids[i]] = w->n_texts;
    }
    if (!g->n) return;
    w->sum.distinct += (double)n / (double)g->n;
    w->sum.n_texts++;
}

static lp_status count_rows(sweep *w, lp_error *err)
{
    lp_steer_reading *r = NULL;
    lp_steer_move *moves = NULL;
    size_t n = 0, n_moves = 0;
    lp_status st = lp_steer_readback(&r, &n, w->steer, err);
    if (st == LP_OK) st = lp_steer_moves(&moves, &n_moves, w->steer, err);
    for (size_t i = 0; i < n; i++) {
        w->sum.achieved[r[i].edit] += (double)r[i].achieved;
        w->sum.n_readings[r[i].edit]++;
    }
    for (size_t i = 0; i < n_moves; i++) w->sum.moved += (double)moves[i].relative;
    w->sum.n_moves += n_moves;
    free(r);
    free(moves);
    return st;
}

static lp_status draw(lp_generation *g, sweep *w, int seed, lp_error *err)
{
    lp_sampler *sampler = NULL;
    lp_sample_options s = w->sample;
    s.seed += (uint64_t)seed;
    LP_TRY(lp_sampler_new(&sampler, w->m->config.vocab, &s, err));
    w->st = LP_OK;
    lp_status st = lp_generate(g, w->steered, sampler, &w->generate, err);
    lp_sampler_free(sampler);
    return w->st != LP_OK ? w->st : lp_steer_explain(w->steer, st, err);
}

static lp_status one_text(lp_sweep_row *row, sweep *w, const lp_sweep_prompt *p, int seed, lp_error *err)
{
    lp_generation g = {0};
    lp_status st = begin_prompt(w, p, seed == 0, err);
    if (st == LP_OK) st = draw(&g, w, seed, err);
    if (st == LP_OK) st = count_rows(w, err);
    if (st == LP_OK) count_distinct(w, &g);
    if (st == LP_OK && !row->text) { /* the first: the row takes it over */
        row->ids = g.ids, row->n_ids = g.n;
        row->text = g.text ? g.text : lp_strdup(""), row->len = g.len;
        g.ids = NULL, g.text = NULL;
        if (!row->text) st = no_memory(err);
    }
    lp_generation_free(&g);
    return st;
}

/* ---- a factor ---------------------------------------------------------------------------------------------------- */

static double mean(double sum, size_t n)
{
    return n ? sum / (double)n : (double)NAN;
}

static void take_means(lp_sweep_row *row, const tally *t, size_t n_edits)
{
    row->n_texts = t->n_texts;
    row->n_tokens = t->n_tokens;
    row->kl = mean(t->kl, t->n_tokens);
    row->nll = mean(t->nll, t->n_tokens);
    row->moved = mean(t->moved, t->n_moves);
    row->distinct = mean(t->distinct, t->n_texts);
    for (size_t i = 0; i < n_edits; i++) row->achieved[i] = mean(t->achieved[i], t->n_readings[i]);
}

static lp_status all_texts(lp_sweep_row *row, sweep *w, lp_error *err)
{
    int64_t of = (int64_t)w->o.n_factors * w->o.n_prompts * w->o.n_seeds;
    for (int i = 0; i < w->o.n_prompts; i++)
        for (int seed = 0; seed < w->o.n_seeds; seed++) {
            lp_progress(&w->env, "sweeping", w->done, of);
            if (lp_cancelled(&w->env)) return LP_CANCELLED;
            LP_TRY(one_text(row, w, &w->o.prompts[i], seed, err));
            w->done++;
        }
    lp_progress(&w->env, "sweeping", w->done, of);
    return LP_OK;
}

static void end_factor(sweep *w)
{
    lp_steer_free(w->steer);
    lp_session_free(w->steered);
    free(w->sum.achieved);
    free(w->sum.n_readings);
    free(w->scaled.edits);
    w->steer = NULL, w->steered = NULL, w->scaled.edits = NULL;
    w->sum = (tally){0};
}

static lp_status one_factor(lp_sweep_row *row, sweep *w, double factor, lp_error *err)
{
    size_t n = w->recipe->n_edits;
    row->factor = factor;
    row->achieved = lp_calloc(n, sizeof *row->achieved);
    w->sum.achieved = lp_calloc(n, sizeof *w->sum.achieved);
    w->sum.n_readings = lp_calloc(n, sizeof *w->sum.n_readings);
    if (!row->achieved || !w->sum.achieved || !w->sum.n_readings) return no_memory(err);
    LP_TRY(scale_recipe(w, factor, err));
    LP_TRY(lp_session_new(&w->steered, w->m, w->o.session, &w->quiet, err));
    LP_TRY(all_texts(row, w, err));
    take_means(row, &w->sum, n);
    return LP_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static lp_status check_options(const lp_sweep_options *o, lp_error *err)
{
    if (o->n_prompts < 1) return lp_fail(err, LP_E_RANGE, "a sweep needs a prompt");
    for (int i = 0; i < o->n_prompts; i++)
        if (!o->prompts[i].n) return lp_fail(err, LP_E_RANGE, "prompt %d of the sweep is empty", i);
    for (int i = 0; i < o->n_factors; i++)
        if (!isfinite(o->factors[i])) return lp_fail(err, LP_E_RANGE, "factor %d of the sweep is no number", i);
    return LP_OK;
}

/* All factors before the first text, so that a slip in the last one costs nothing. */
static lp_status check_factors(sweep *w, lp_error *err)
{
    lp_status st = lp_sweep_check(w->recipe, err);
    for (int i = 0; i < w->o.n_factors && st == LP_OK; i++) {
        double amount;
        st = scale_recipe(w, w->o.factors[i], err);
        for (size_t k = 0; k < w->recipe->n_edits && st == LP_OK; k++)
            st = lp_recipe_amount(&amount, &w->scaled.edits[k], err);
    }
    free(w->scaled.edits);
    w->scaled.edits = NULL;
    return st;
}

static lp_status set_up(sweep *w, const lp_sweep_options *o, const lp_env *env, lp_error *err)
{
    w->o = *o;
    if (!o->factors) w->o.factors = default_factors, w->o.n_factors = sizeof default_factors / sizeof *default_factors;
    if (w->o.n_seeds < 1) w->o.n_seeds = 1;
    if (o->sample) w->sample = *o->sample;
    if (o->generate) w->generate = *o->generate;
    w->generate.fn = on_token, w->generate.user = w, w->generate.logprobs = 0, w->generate.n_top = 0;
    if (env) w->env = w->quiet = *env;
    w->quiet.progress = NULL;
    w->seen = lp_calloc((size_t)w->m->config.vocab, sizeof *w->seen);
    if (!w->seen) return no_memory(err);
    LP_TRY(check_options(&w->o, err));
    LP_TRY(check_factors(w, err));
    return lp_session_new(&w->clean, w->m, w->o.session, &w->quiet, err);
}

static lp_status run_all(lp_sweep *out, sweep *w, lp_error *err)
{
    out->n_edits = w->recipe->n_edits;
    out->rows = lp_calloc((size_t)w->o.n_factors + 1, sizeof *out->rows);
    if (!out->rows) return no_memory(err);
    while (out->n_rows < (size_t)w->o.n_factors) {
        size_t i = out->n_rows++;
        lp_status st = one_factor(&out->rows[i], w, w->o.factors[i], err);
        end_factor(w);
        if (st != LP_OK) return st;
    }
    return LP_OK;
}

lp_status lp_sweep_run(lp_sweep *out, const lp_model *m, const lp_recipe *r, const lp_sae *const *saes, int n_saes,
                       const lp_sweep_options *o, const lp_env *env, lp_error *err)
{
    sweep w = {.m = m, .recipe = r, .saes = saes, .n_saes = n_saes, .err = err};
    *out = (lp_sweep){0};
    lp_status st = set_up(&w, o, env, err);
    if (st == LP_OK) st = run_all(out, &w, err);
    lp_session_free(w.clean);
    free(w.seen);
    if (st != LP_OK) lp_sweep_clear(out);
    return st;
}

void lp_sweep_clear(lp_sweep *s)
{
    for (size_t i = 0; i < s->n_rows; i++) {
        free(s->rows[i].achieved);
        free(s->rows[i].ids);
        free(s->rows[i].text);
    }
    free(s->rows);
    *s = (lp_sweep){0};
}
