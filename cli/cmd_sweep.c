/* cmd_sweep.c - `lapidary sweep`: what a recipe does at a quarter, half, twice its strength.
 *
 * One line per factor: how far the next-token distribution is moved, how likely the model itself finds what it then
 * says, what the features come to, how much the text repeats itself, and the first text (sae/sweep.h has the formulas).
 * Prompts are one, or the lines of a file; seeds only matter when something is drawn, so more than one needs a
 * temperature.
 */
#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/recipes.h"
#include "sae/sweep.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_TOKENS = 40, MAX_FACTORS = 100, MAX_PROMPTS = 10000, MAX_COLUMNS = 20 };

typedef struct job {
    cli *c;
    cli_prompt prompt;
    cli_sampling sampling;
    cli_sae_choice choice;
    const char *file, *prompts_file, *factors_text;
    bool is_chat;
    int n_seeds;
    double factors[MAX_FACTORS];
    int n_factors;
    cli_answer answer;
    lp_recipe recipe;
    cli_saes saes;
    lp_model *m;
    lp_sweep_prompt *prompts; /* [n_prompts]; owns its lists, see free_prompts */
    int n_prompts;
    size_t capacity;
    lp_sweep sweep;
} job;

/* ---- factors and prompts ----------------------------------------------------------------------------------------- */

static lp_status read_factors(job *w, lp_error *err)
{
    for (const char *s = w->factors_text; s;) {
        while (*s == ',' || isspace((unsigned char)*s)) s++;
        if (!*s) break;
        char *end;
        double v = strtod(s, &end);
        if (end == s || !isfinite(v) || (*end && *end != ',' && !isspace((unsigned char)*end)))
            return cli_usage(w->c, err, "--factors \"%.60s\": numbers with commas or spaces expected", s);
        if (w->n_factors == MAX_FACTORS) return cli_usage(w->c, err, "--factors: at most %d", MAX_FACTORS);
        w->factors[w->n_factors++] = v;
        s = end;
    }
    if (w->factors_text && !w->n_factors) return cli_usage(w->c, err, "--factors: no number in it");
    return LP_OK;
}

/* Takes the tokens over. */
static lp_status add_prompt(job *w, lp_tokens *t, uint8_t *is_template, lp_error *err)
{
    if (!lp_grow((void **)&w->prompts, &w->capacity, (size_t)w->n_prompts + 1, sizeof *w->prompts))
        return lp_fail(err, LP_E_MEMORY, "out of memory");
    w->prompts[w->n_prompts++] = (lp_sweep_prompt){t->ids, t->n, is_template};
    t->ids = NULL;
    return LP_OK;
}

static lp_status add_chat(job *w, const cli_prompt *p, lp_error *err)
{
    lp_tokens tokens = {0};
    uint8_t *marks = NULL;
    LP_TRY(cli_take_chat(&tokens, &marks, w->c, w->m, p, err));
    lp_status st = add_prompt(w, &tokens, marks, err);
    if (st != LP_OK) free(marks);
    lp_tokens_free(&tokens);
    return st;
}

static lp_status add_one(job *w, const cli_prompt *p, lp_error *err)
{
    lp_tokens tokens = {0};
    if (w->is_chat) return add_chat(w, p, err);
    lp_status st = cli_take_prompt(&tokens, w->c, w->m, p, err);
    if (st == LP_OK) st = add_prompt(w, &tokens, NULL, err);
    lp_tokens_free(&tokens);
    return st;
}

/* Every line that is not empty is a prompt. */
static lp_status read_prompts(job *w, lp_error *err)
{
    char *all = NULL, *rest = NULL;
    size_t n = 0;
    bool is_named = w->c->n_operands || w->prompt.text || w->prompt.file || w->prompt.tokens;
    if (!w->prompts_file) return add_one(w, &w->prompt, err);
    if (is_named) return cli_usage(w->c, err, "--prompts and another prompt exclude each other");
    LP_TRY(cli_read_text(&all, &n, w->prompts_file, err));
    lp_status st = LP_OK;
    for (char *line = strtok_r(all, "\r\n", &rest); line && st == LP_OK; line = strtok_r(NULL, "\r\n", &rest)) {
        cli_prompt p = w->prompt;
        p.text = line;
        st = w->n_prompts < MAX_PROMPTS ? add_one(w, &p, err)
                                        : lp_fail(err, LP_E_RANGE, "more than %d prompts", MAX_PROMPTS);
    }
    free(all);
    if (st == LP_OK && !w->n_prompts) return lp_fail(err, LP_E_FORMAT, "%s: no line in it", w->prompts_file);
    return st;
}

static void free_prompts(job *w)
{
    for (int i = 0; i < w->n_prompts; i++) {
        free((void *)(uintptr_t)w->prompts[i].ids); /* ours, and const only to the sweep */
        free((void *)(uintptr_t)w->prompts[i].is_template);
    }
    free(w->prompts);
}

/* ---- reports ----------------------------------------------------------------------------------------------------- */

/* The columns of a table name their features; more than MAX_COLUMNS are for --json. */
static lp_status print_table(const job *w, lp_error *err)
{
    cli *c = w->c;
    size_t n = w->sweep.n_edits < MAX_COLUMNS ? w->sweep.n_edits : MAX_COLUMNS;
    char *columns = lp_strdup("factor\ttokens\tkl\tnll\tperplexity\tmoved\tdistinct");
    for (size_t i = 0; columns && i < n; i++) {
        const lp_recipe_edit *e = &w->recipe.edits[i];
        char *more = lp_format("%s\t%s#%d", columns, e->source, e->index);
        free(columns);
        columns = more;
    }
    char *all = columns ? lp_format("%s\ttext", columns) : NULL;
    free(columns);
    if (!all) return lp_fail(err, LP_E_MEMORY, "out of memory");
    cli_table_begin(c, all);
    for (size_t i = 0; i < w->sweep.n_rows; i++) {
        const lp_sweep_row *r = &w->sweep.rows[i];
        cli_put_real(c, r->factor, 6);
        cli_put_int(c, (int64_t)r->n_tokens);
        cli_put_real(c, r->kl, 4);
        cli_put_real(c, r->nll, 4);
        cli_put_real(c, exp(r->nll), 4);
        cli_put_real(c, r->moved, 3);
        cli_put_real(c, r->distinct, 3);
        for (size_t k = 0; k < n; k++) cli_put_real(c, r->achieved[k], 4);
        cli_put_bytes(c, r->text, r->len);
    }
    cli_table_end(c);
    free(all);
    return LP_OK;
}

static json_t *row_json(const lp_sweep_row *r, size_t n_edits)
{
    json_t *j = json_object(), *achieved = json_array(), *ids = json_array();
    int bad = !j || !achieved || !ids;
    for (size_t i = 0; i < n_edits; i++) bad |= json_array_append_new(achieved, cli_json_real(r->achieved[i]));
    for (size_t i = 0; i < r->n_ids; i++) bad |= json_array_append_new(ids, json_integer(r->ids[i]));
    bad |= json_object_set_new(j, "factor", cli_json_real(r->factor));
    bad |= json_object_set_new(j, "texts", json_integer((json_int_t)r->n_texts));
    bad |= json_object_set_new(j, "tokens", json_integer((json_int_t)r->n_tokens));
    bad |= json_object_set_new(j, "kl", cli_json_real(r->kl));
    bad |= json_object_set_new(j, "nll", cli_json_real(r->nll));
    bad |= json_object_set_new(j, "perplexity", cli_json_real(exp(r->nll)));
    bad |= json_object_set_new(j, "moved", cli_json_real(r->moved));
    bad |= json_object_set_new(j, "distinct", cli_json_real(r->distinct));
    bad |= json_object_set_new(j, "achieved", achieved);
    bad |= json_object_set_new(j, "ids", ids);
    bad |= json_object_set_new(j, "text", cli_json_text(r->text, r->len));
    return bad ? (json_decref(j), NULL) : j;
}

static json_t *edits_json(const job *w)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < w->recipe.n_edits; i++) {
        const lp_recipe_edit *e = &w->recipe.edits[i];
        json_t *j = json_pack("{s:o,s:i,s:s}", "layer", cli_json_text(e->source, strlen(e->source)), "index", e->index,
                              "kind", lp_recipe_kind_name(e->kind));
        if (json_array_append_new(list, j)) list = (json_decref(list), NULL);
    }
    return list;
}

static lp_status print_json(const job *w, const lp_session *s, lp_error *err)
{
    char hash[33], seed[24];
    LP_TRY(lp_recipe_hash(hash, &w->recipe, err));
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)w->answer.sample.seed);
    json_t *j = cli_provenance(w->c, s), *rows = json_array();
    int bad = !j || !rows;
    for (size_t i = 0; i < w->sweep.n_rows; i++)
        bad |= json_array_append_new(rows, row_json(&w->sweep.rows[i], w->sweep.n_edits));
    bad |= json_object_set_new(j, "recipe", json_string(hash));
    bad |= json_object_set_new(j, "saes", cli_saes_json(&w->saes));
    bad |= json_object_set_new(j, "edits", edits_json(w));
    bad |= json_object_set_new(j, "sampling", cli_sampling_json(&w->answer));
    bad |= json_object_set_new(j, "seed", json_string(seed));
    bad |= json_object_set_new(j, "seeds", json_integer(w->n_seeds));
    bad |= json_object_set_new(j, "prompts", json_integer(w->n_prompts));
    bad |= json_object_set_new(j, "rows", rows);
    return cli_print_json(bad ? (json_decref(j), NULL) : j, err);
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static lp_status work(job *w, lp_session **s, lp_error *err)
{
    LP_TRY(read_factors(w, err));
    LP_TRY(cli_read_recipe(&w->recipe, w->c, w->file, err));
    LP_TRY(lp_sweep_check(&w->recipe, err));
    if (w->is_chat) w->c->embedded = "chat";
    LP_TRY(cli_open(&w->m, s, w->c, w->prompt.embed_scale, err));
    LP_TRY(cli_read_sampling(&w->answer, w->c, &w->sampling, w->m->config.vocab, err));
    if (w->n_seeds > 1 && w->answer.sample.temperature == 0)
        return cli_usage(w->c, err, "--seeds: greedy decoding has one text; add --temperature");
    LP_TRY(read_prompts(w, err));
    LP_TRY(cli_open_recipe_saes(&w->saes, w->c, w->m, &w->choice, &w->recipe, err));
    lp_sweep_options o = {.factors = w->n_factors ? w->factors : NULL,
                          .n_factors = w->n_factors,
                          .prompts = w->prompts,
                          .n_prompts = w->n_prompts,
                          .n_seeds = w->n_seeds,
                          .sample = &w->answer.sample,
                          .generate = &w->answer.generate,
                          .session = lp_session_get_options(*s)};
    LP_TRY(lp_sweep_run(&w->sweep, w->m, &w->recipe, (const lp_sae *const *)w->saes.items, w->saes.n, &o, &w->c->env,
                        err));
    cli_wipe_bar(w->c);
    return w->c->json ? print_json(w, *s, err) : print_table(w, err);
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    job w = {.c = c, .sampling = {.max_tokens = DEFAULT_TOKENS}, .n_seeds = 1};
    lp_session *s = NULL; /* says what is computed by; the sweep has its own */
    const cli_option options[] = {
        {"recipe", 'r', CLI_TEXT, &w.file, "FILE", "what to change: a recipe's path, or the name of a shipped one"},
        {"factors", 0, CLI_TEXT, &w.factors_text, "LIST",
         "multiples of its strength, 0: without it (0,0.25,0.5,1,1.5,2)"},
        {"prompts", 0, CLI_TEXT, &w.prompts_file, "FILE", "a prompt per line, instead of one"},
        {"seeds", 0, CLI_INT, &w.n_seeds, "N", "texts per prompt, from --seed on (1)", .min = 1, .max = 10000},
        CLI_PROMPT_OPTIONS(w.prompt),
        {"chat", 'c', CLI_FLAG, &w.is_chat, NULL, "wrap each prompt as a user's turn"},
        CLI_SAE_OPTIONS(w.choice),
        CLI_SAMPLING_OPTIONS(w.sampling),
        {0},
    };
    LP_TRY(cli_parse(c, options, argc, argv, err));
    lp_status st = work(&w, &s, err);
    lp_sweep_clear(&w.sweep);
    free_prompts(&w);
    cli_close_saes(&w.saes);
    lp_session_free(s);
    lp_recipe_clear(&w.recipe);
    lp_model_close(w.m);
    return st;
}

const cli_command cmd_sweep = {
    .name = "sweep",
    .summary = "a steering recipe at several strengths: effect, cost, a text of each",
    .operands = "--recipe FILE [PROMPT]",
    .about =
        "One line per factor, which multiplies every strength of the recipe: KL to the model without it on the same\n"
        "text, how unlikely that model finds the text (nll, perplexity), how far rows were moved, the share of\n"
        "different tokens, what each feature came to, and the first text.  Means over prompts and seeds.",
    .run = run,
};
