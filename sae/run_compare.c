/* run_compare.c - see run.h: the first difference between a run and its repetition, and what it comes from.
 *
 * What goes in is compared first, since a different model explains every different token.  Of what came out, the first
 * in the order of the text: the features of position p are read while p is evaluated, its token was drawn before that;
 * a token that differs because a feature differed earlier is a consequence, and the feature is what is named.
 *
 * Once all that goes in is equal nothing is left that could explain a difference, and the line says that it is a bug.
 */
#include "sae/run.h"

#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define A_BUG "all that went in is equal, and equal inputs give equal bits: a bug, please report it with this file"

const char *lp_run_part_name(lp_run_part p)
{
    static const char *const names[LP_RUN_N_PARTS] = {"same",    "model",   "tokenizer", "arithmetic", "embed_scale",
                                                      "context", "kernels", "saes",      "recipe",     "readback",
                                                      "tokens",  "finish",  "logits"};
    return (int)p >= 0 && p < LP_RUN_N_PARTS ? names[p] : "unknown";
}

LP_PRINTF(2, 3) static lp_run_difference differs(lp_run_part part, const char *fmt, ...)
{
    lp_run_difference d = {.part = part};
    va_list args;
    va_start(args, fmt);
    vsnprintf(d.text, sizeof d.text, fmt, args);
    va_end(args);
    return d;
}

static const char *or_none(const char *hash)
{
    return hash[0] ? hash : "none";
}

static const char *arithmetic(const lp_run *r)
{
    return r->session.arithmetic == LP_FAST ? "fast" : "exact";
}

static const char *scale(const lp_run *r)
{
    return r->session.bf16_embed_scale ? "bf16" : "f32";
}

static const char *type(const lp_run_sae *s)
{
    return s->type == LP_BF16 ? "bf16" : "f32";
}

/* ---- what goes in ------------------------------------------------------------------------------------------------ */

static lp_run_difference compare_saes(const lp_run *file, const lp_run *now)
{
    if (file->n_saes != now->n_saes)
        return differs(LP_RUN_SAES, "SAEs: %zu here, the run was made with %zu; name the same ones, in the same order",
                       now->n_saes, file->n_saes);
    for (size_t i = 0; i < file->n_saes; i++) {
        const lp_run_sae *a = &file->saes[i], *b = &now->saes[i];
        if (strcmp(a->hash, b->hash) != 0)
            return differs(LP_RUN_SAES, "SAE %.200s: hash %s, the run was made with %s: other weights under that name",
                           a->name, b->hash, a->hash);
        if (a->type != b->type)
            return differs(LP_RUN_SAES, "SAE %.200s: held as %s, in the run as %s; add --sae-type %s", a->name, type(b),
                           type(a), type(a));
    }
    return (lp_run_difference){0};
}

/* The hash in the file against the recipe in the file, as `now` has read and hashed it again. */
static lp_run_difference compare_recipes(const lp_run *file, const lp_run *now)
{
    if (file->has_recipe != now->has_recipe)
        return differs(LP_RUN_RECIPE, "recipe: %s here, %s in the file", now->has_recipe ? "one" : "none",
                       file->has_recipe ? "one" : "none");
    if (strcmp(file->recipe_hash, now->recipe_hash) == 0) return (lp_run_difference){0};
    return differs(LP_RUN_RECIPE, "recipe: hash %s, the run was made with %s: somebody changed it in the file",
                   now->recipe_hash, file->recipe_hash);
}

lp_run_difference lp_run_compare_inputs(const lp_run *file, const lp_run *now)
{
    const lp_session_options *a = &file->session, *b = &now->session;
    if (strcmp(file->model_hash, now->model_hash) != 0)
        return differs(LP_RUN_MODEL,
                       "model: hash %s, the run was made with %s: another checkpoint, or other types of weights",
                       now->model_hash, file->model_hash);
    if (strcmp(file->tokenizer_hash, now->tokenizer_hash) != 0)
        return differs(LP_RUN_TOKENIZER, "tokenizer: hash %s, the run was made with %s: another vocabulary",
                       or_none(now->tokenizer_hash), or_none(file->tokenizer_hash));
    if (a->arithmetic != b->arithmetic)
        return differs(LP_RUN_ARITHMETIC, "arithmetic: %s here, %s in the run; add --arithmetic %s", arithmetic(now),
                       arithmetic(file), arithmetic(file));
    if (a->bf16_embed_scale != b->bf16_embed_scale)
        return differs(LP_RUN_EMBED_SCALE, "embed_scale: %s here, %s in the run", scale(now), scale(file));
    if (a->n_ctx != b->n_ctx)
        return differs(LP_RUN_CONTEXT, "context: %d positions here, %d in the run", b->n_ctx, a->n_ctx);
    if (a->arithmetic == LP_FAST && strcmp(file->kernels, now->kernels) != 0)
        return differs(LP_RUN_KERNELS,
                       "kernels: %.40s here, %.40s in the run, and fast arithmetic has other bits on each; "
                       "add --kernels %.40s",
                       now->kernels, file->kernels, file->kernels);
    lp_run_difference d = compare_saes(file, now);
    return d.part ? d : compare_recipes(file, now);
}

/* ---- what came out ----------------------------------------------------------------------------------------------- */

static bool same_float(float a, float b)
{
    return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof a) == 0;
}

static bool same_reading(const lp_steer_reading *a, const lp_steer_reading *b)
{
    return a->pos == b->pos && a->edit == b->edit && a->status == b->status && same_float(a->asked, b->asked) &&
           same_float(a->before, b->before) && same_float(a->achieved, b->achieved);
}

/* The first list entry that is not the same in both; n of the longer one: none. */
static size_t first_token(const lp_run *a, const lp_run *b)
{
    size_t i = 0;
    while (i < a->n_ids && i < b->n_ids && a->ids[i] == b->ids[i]) i++;
    return i;
}

static size_t first_reading(const lp_run *a, const lp_run *b)
{
    size_t i = 0;
    while (i < a->n_readings && i < b->n_readings && same_reading(&a->readings[i], &b->readings[i])) i++;
    return i;
}

static void say_id(char *out, size_t size, const lp_run *r, size_t i)
{
    if (i < r->n_ids)
        snprintf(out, size, "%d", r->ids[i]);
    else
        snprintf(out, size, "none");
}

static lp_run_difference other_token(const lp_run *file, const lp_run *now, size_t i)
{
    char here[16], there[16];
    say_id(here, sizeof here, now, i);
    say_id(there, sizeof there, file, i);
    return differs(LP_RUN_TOKENS, "token %zu (position %zu): %s here, %s in the file; " A_BUG, i, file->n_prompt + i,
                   here, there);
}

static lp_run_difference other_reading(const lp_run *file, const lp_run *now, size_t i)
{
    const lp_steer_reading *a = i < file->n_readings ? &file->readings[i] : NULL;
    const lp_steer_reading *b = i < now->n_readings ? &now->readings[i] : NULL;
    if (!a || !b || a->pos != b->pos || a->edit != b->edit)
        return differs(LP_RUN_READBACK,
                       "feature value %zu: position %d, edit %d here, position %d, edit %d in the file; " A_BUG, i,
                       b ? b->pos : -1, b ? b->edit : -1, a ? a->pos : -1, a ? a->edit : -1);
    return differs(LP_RUN_READBACK,
                   "features at position %d, edit %d: asked %.9g, before %.9g, achieved %.9g (%s) here, %.9g, %.9g, "
                   "%.9g (%s) in the file; " A_BUG,
                   a->pos, a->edit, (double)b->asked, (double)b->before, (double)b->achieved,
                   lp_steer_status_name(b->status), (double)a->asked, (double)a->before, (double)a->achieved,
                   lp_steer_status_name(a->status));
}

/* Where reading i is, in either: the smaller position. */
static int position_of(const lp_run *a, const lp_run *b, size_t i)
{
    int p = i < a->n_readings ? a->readings[i].pos : INT_MAX, q = i < b->n_readings ? b->readings[i].pos : INT_MAX;
    return p < q ? p : q;
}

lp_run_difference lp_run_compare(const lp_run *file, const lp_run *now)
{
    lp_run_difference d = lp_run_compare_inputs(file, now);
    if (d.part) return d;
    size_t t = first_token(file, now), r = first_reading(file, now);
    bool is_token = t < file->n_ids || t < now->n_ids, is_reading = r < file->n_readings || r < now->n_readings;
    if (is_reading && (!is_token || (size_t)position_of(file, now, r) < file->n_prompt + t))
        return other_reading(file, now, r);
    if (is_token) return other_token(file, now, t);
    if (file->finish != now->finish)
        return differs(LP_RUN_FINISH, "finish: %s here, %s in the file; " A_BUG, lp_finish_name(now->finish),
                       lp_finish_name(file->finish));
    if (strcmp(file->logits_hash, now->logits_hash) != 0)
        return differs(LP_RUN_LOGITS, "logits after the last token: hash %s here, %s in the file; " A_BUG,
                       or_none(now->logits_hash), or_none(file->logits_hash));
    return d;
}
