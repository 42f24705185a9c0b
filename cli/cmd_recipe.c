/* cmd_recipe.c - `lapidary recipe`: a recipe shown, or turned from one program's format into another's (sae/exchange.h).
 *
 * SAEs are opened only where their weights or labels are needed: to add up a control vector, to move a projection to where
 * lm_eval's clamp counts from, to fill in a maximum that the recipe left open.
 */
#include "cli/commands.h"
#include "cli/recipes.h"
#include "core/outfile.h"
#include "sae/exchange.h"

#include <stdlib.h>
#include <string.h>

enum { LAPIDARY, NEURONPEDIA, LM_EVAL, CONTROL_VECTOR, FORMATS, NOT_SAID = -1 };

static const char *const format_names[] = {"lapidary", "neuronpedia", "lm-eval", "control-vector", NULL};

typedef struct job {
    cli *c;
    const char *name, *out, *from_word, *to_word;
    int from, to; /* formats */
    cli_sae_choice choice;
    cli_saes saes;
    lp_recipe recipe;
} job;

/* The format an option names; not given: as it was. */
static lp_status take_format(int *out, cli *c, const char *option, const char *word, lp_error *err)
{
    int f = 0;
    if (!word) return LP_OK;
    while (f < FORMATS && strcmp(format_names[f], word) != 0) f++;
    const char *near = f == FORMATS ? cli_nearest(word, format_names) : NULL;
    if (near) return cli_usage(c, err, "--%s \"%.40s\"; did you mean %s?", option, word, near);
    if (f == FORMATS)
        return cli_usage(c, err, "--%s \"%.40s\": lapidary, neuronpedia, lm-eval or control-vector", option, word);
    *out = f;
    return LP_OK;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* By the ending; LAPIDARY is what else it can be. */
static int format_of(const char *path)
{
    return lp_ends_in(path, ".gguf") ? CONTROL_VECTOR : lp_ends_in(path, ".csv") ? LM_EVAL : LAPIDARY;
}

/* Recipes and Neuronpedia's requests are both JSON; theirs have no "format". */
static int format_of_json(const char *text, size_t n)
{
    json_t *o = json_loadb(text, n, 0, NULL);
    bool is_theirs = json_object_get(o, "features") && !json_object_get(o, "format");
    json_decref(o);
    return is_theirs ? NEURONPEDIA : LAPIDARY;
}

static lp_status read_text(job *w, lp_error *err)
{
    char *text = NULL;
    size_t n = 0;
    LP_TRY(lp_read_file(&text, &n, w->name, LP_RECIPE_BYTES, err));
    if (!w->from_word && w->from == LAPIDARY) w->from = format_of_json(text, n);
    const lp_sae *const *saes = (const lp_sae *const *)w->saes.items;
    lp_status st = w->from == LM_EVAL       ? lp_recipe_from_lm_eval(&w->recipe, text, n, saes, w->saes.n, err)
                   : w->from == NEURONPEDIA ? lp_recipe_from_neuronpedia(&w->recipe, NULL, text, n, err)
                                            : lp_recipe_parse(&w->recipe, text, n, err);
    free(text);
    return st == LP_OK ? st : lp_prefix(err, st, w->name);
}

static lp_status read_recipe(job *w, lp_error *err)
{
    bool is_shipped = !strchr(w->name, '/') && !lp_is_file(w->name);
    if (!w->from_word) w->from = format_of(w->name);
    if (w->choice.names.n) LP_TRY(cli_open_saes(&w->saes, w->c, NULL, &w->choice, err));
    if (w->from == CONTROL_VECTOR) return lp_recipe_from_control_vector(&w->recipe, w->name, err);
    if (w->from == LAPIDARY && is_shipped) return cli_read_recipe(&w->recipe, w->c, w->name, err);
    return read_text(w, err);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static bool needs_saes(const job *w)
{
    bool needs = w->to == CONTROL_VECTOR;
    for (size_t i = 0; i < w->recipe.n_edits && w->to != LAPIDARY; i++) {
        const lp_recipe_edit *e = &w->recipe.edits[i];
        needs |= w->to == LM_EVAL && e->kind == LP_RECIPE_PROJECT;
        needs |= e->unit == LP_RECIPE_MAX_ACT && !(e->max_act > 0);
    }
    return needs;
}

static lp_status make_text(char **text, const job *w, lp_error *err)
{
    lp_status st;
    if (w->to == LAPIDARY) return lp_recipe_text(text, &w->recipe, err);
    if (w->to == LM_EVAL)
        return lp_recipe_to_lm_eval(text, &w->recipe, (const lp_sae *const *)w->saes.items, w->saes.n, err);
    st = lp_recipe_to_neuronpedia(text, &w->recipe, err);
    if (st == LP_OK) return st;
    free(*text); /* what could be said is not what the recipe does */
    *text = NULL;
    return st;
}

static lp_status write_text(const job *w, lp_error *err)
{
    char *text = NULL;
    LP_TRY(make_text(&text, w, err));
    size_t n = strlen(text);
    const char *tail = n && text[n - 1] == '\n' ? "" : "\n";
    lp_status st = LP_OK;
    if (w->out)
        st = lp_outfile_text(w->out, text, tail, err);
    else
        printf("%s%s", text, tail);
    free(text);
    return st;
}

static void warn_of_lm_eval(const job *w)
{
    for (size_t i = 0; i < w->recipe.n_edits; i++) {
        if (w->recipe.edits[i].kind != LP_RECIPE_ADD) continue;
        lp_log(&w->c->env, LP_WARN,
               "lm_eval 0.4.13 stops at rows that add, by an assertion of its own; run it as python -O -m lm_eval");
        return;
    }
}

static lp_status write_recipe(job *w, lp_error *err)
{
    if (needs_saes(w) && !w->saes.n) LP_TRY(cli_open_recipe_saes(&w->saes, w->c, NULL, &w->choice, &w->recipe, err));
    if (w->to == CONTROL_VECTOR)
        LP_TRY(lp_recipe_to_control_vector(w->out, &w->recipe, (const lp_sae *const *)w->saes.items, w->saes.n, err));
    else
        LP_TRY(write_text(w, err));
    if (w->to == LM_EVAL) warn_of_lm_eval(w);
    if (!w->out) return LP_OK;
    cli_table_begin(w->c, "path\tfrom\tto\tedits");
    cli_put_text(w->c, w->out);
    cli_put_text(w->c, format_names[w->from]);
    cli_put_text(w->c, format_names[w->to]);
    cli_put_int(w->c, (int64_t)w->recipe.n_edits);
    cli_table_end(w->c);
    return LP_OK;
}

/* ---- showing ----------------------------------------------------------------------------------------------------- */

static void put_scope(cli *c, const lp_recipe_scope *s)
{
    const char *const words[] = {s->bos ? "bos" : NULL,
                                 s->template ? "template" : NULL,
                                 s->last_prompt ? "last_prompt"
                                 : s->prompt    ? "prompt"
                                                : NULL,
                                 s->generated ? "generated" : NULL,
                                 s->n_ranges ? "in ranges" : NULL,
                                 s->text ? "in matches" : NULL};
    char all[80] = "";
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (words[i] && *all) strcat(all, ",");
        if (words[i]) strcat(all, words[i]);
    }
    cli_put_text(c, all);
}

static void show(const job *w)
{
    cli *c = w->c;
    const lp_recipe *r = &w->recipe;
    cli_table_begin(c, "edit\tlayer\tindex\tkind\tstrength\tunit\tamount\tscope\tscheduled\tconditional\tdescription");
    for (size_t i = 0; i < r->n_edits; i++) {
        const lp_recipe_edit *e = &r->edits[i];
        double amount;
        cli_put_int(c, (int64_t)i);
        cli_put_text(c, e->source);
        cli_put_int(c, e->index);
        cli_put_text(c, lp_recipe_kind_name(e->kind));
        cli_put_real(c, e->strength, 9);
        cli_put_text(c, lp_recipe_unit_name(e->unit));
        if (lp_recipe_amount(&amount, e, NULL) == LP_OK)
            cli_put_real(c, amount, 9);
        else
            cli_put_none(c);
        put_scope(c, lp_recipe_scope_of(r, e));
        cli_put_bool(c, e->schedule.is_given);
        cli_put_bool(c, e->when.source != NULL);
        cli_put_text(c, e->description);
    }
    cli_table_end(c);
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static lp_status work(job *w, lp_error *err)
{
    cli *c = w->c;
    LP_TRY(cli_count_operands(c, 1, 1, err));
    w->name = c->operands[0];
    if (c->model) return cli_usage(c, err, "recipe runs no model; -m has no meaning here");
    if (w->out && !*w->out) return cli_usage(c, err, "--output is empty: where should it go?");
    LP_TRY(take_format(&w->from, c, "from", w->from_word, err));
    LP_TRY(take_format(&w->to, c, "to", w->to_word, err));
    bool is_shown = !w->to_word && !w->out;
    if (!w->to_word) w->to = w->out ? format_of(w->out) : NOT_SAID;
    if (w->to == CONTROL_VECTOR && !w->out) return cli_usage(c, err, "a control vector is no text: name an --output");
    if (w->to == LM_EVAL && !w->out && c->json)
        return cli_usage(c, err, "--json with --to lm-eval: name an --output, or there would be CSV in the JSON");
    LP_TRY(read_recipe(w, err));
    if (!is_shown) return write_recipe(w, err);
    show(w);
    return LP_OK;
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    job w = {.c = c};
    const cli_option options[] = {
        {"from", 0, CLI_TEXT, &w.from_word, "FORMAT", "what FILE is (default: its ending and content tell)"},
        {"to", 0, CLI_TEXT, &w.to_word, "FORMAT",
         "lapidary, neuronpedia, lm-eval or control-vector (default: by the ending of --output)"},
        {"output", 'o', CLI_TEXT, &w.out, "PATH", "where to (default: stdout, if it is text)"},
        CLI_SAE_OPTIONS(w.choice),
        {0},
    };
    LP_TRY(cli_parse(c, options, argc, argv, err));
    lp_status st = work(&w, err);
    cli_close_saes(&w.saes);
    lp_recipe_clear(&w.recipe);
    return st;
}

const cli_command cmd_recipe = {
    .name = "recipe",
    .summary = "a steering recipe shown, or in another program's format",
    .operands = "FILE",
    .about =
        "FILE is a recipe's path or the name of a shipped one, a steer request of Neuronpedia's (JSON), a steering "
        "CSV\n"
        "of lm-evaluation-harness, or a control vector of llama.cpp (GGUF).  Without --to and --output its edits are\n"
        "listed.  A format that cannot say all of the recipe is refused, and what it cannot say is named: all three\n"
        "edit every position, <bos> too, so all scopes must be on.  lm-eval takes additions and projections of Gemma\n"
        "Scope's features, control-vector additions to the residual stream from layer 1 on.  An imported vector is a\n"
        "feature per layer, FILE.gguf/direction.N, which --sae opens as well.",
    .run = run,
};
