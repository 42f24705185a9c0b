/* cmd_steer.c - `lapidary steer`: a recipe at work, beside the model without it.
 *
 * Both texts are drawn with the same seed from the same prompt.  A third timeline, the model unsteered, reads the steered
 * text along, so that at every token both distributions are known for one and the same past: KL(clean || steered) is what
 * the recipe did to that token, not what the texts have drifted to.
 */
#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/recipes.h"
#include "cli/write_run.h"
#include "sae/steer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_TOKENS = 60, BEST = 5 };

/* What is reported of a steered token. */
typedef struct step {
    int pos, id;
    double kl;
    lp_scored clean[BEST], steered[BEST]; /* the likeliest next tokens of both, probabilities */
} step;

typedef struct job {
    cli *c;
    cli_prompt prompt;
    cli_sampling sampling;
    cli_sae_choice choice;
    const char *file, *run_file;
    bool is_chat, is_table;
    cli_answer answer;
    lp_recipe recipe;
    cli_saes saes;
    lp_model *m;
    lp_session *s, *clean; /* steered; unsteered, on the steered text */
    lp_steer *steer;
    lp_tokens tokens;
    uint8_t *is_template;
    lp_generation baseline, steered;
    step *steps;
    size_t n_steps, capacity;
    lp_status st;
    lp_error *err;
} job;

/* ---- both texts -------------------------------------------------------------------------------------------------- */

/* The k likeliest of logits z, as probabilities; and log sum exp z. */
static double best_of(lp_scored best[BEST], const float *z, int vocab)
{
    double norm = lp_log_sum_exp(z, vocab);
    int n = lp_top_k(best, BEST, z, vocab);
    for (int i = 0; i < n; i++) best[i].score = lp_expf(lp_logprob(best[i].score, norm));
    return norm;
}

/* A token of the steered text: both distributions it could have come from, then the clean timeline reads it too. */
static int on_steered(const lp_generated *t, void *user)
{
    job *w = user;
    int V = w->m->config.vocab;
    const float *p = lp_session_logits(w->clean), *q = lp_session_logits(w->s);
    if (!lp_grow((void **)&w->steps, &w->capacity, w->n_steps + 1, sizeof *w->steps)) {
        w->st = lp_fail(w->err, LP_E_MEMORY, "out of memory");
        return 1;
    }
    step *x = &w->steps[w->n_steps++];
    *x = (step){.pos = t->pos, .id = t->id};
    double p_norm = best_of(x->clean, p, V), q_norm = best_of(x->steered, q, V);
    x->kl = lp_kl(p, p_norm, q, q_norm, V);
    if (t->finish == LP_FINISH_NONE) w->st = lp_session_eval(w->clean, &t->id, 1, w->err);
    return w->st != LP_OK || lp_steer_generated(t, w->steer);
}

static lp_status draw(lp_generation *out, job *w, lp_session *s, lp_generate_fn fn, lp_error *err)
{
    lp_sampler *sampler = NULL;
    lp_generate_options o = w->answer.generate;
    o.fn = fn, o.user = w;
    LP_TRY(lp_sampler_new(&sampler, w->m->config.vocab, &w->answer.sample, err));
    lp_status st = lp_generate(out, s, sampler, &o, err);
    lp_sampler_free(sampler);
    return w->st != LP_OK ? w->st : st;
}

static lp_status run_both(job *w, lp_error *err)
{
    const lp_tokens *p = &w->tokens;
    lp_session_options o = *lp_session_get_options(w->s);
    lp_session *other = NULL;
    LP_TRY(lp_session_new(&w->clean, w->m, &o, &w->c->env, err));
    LP_TRY(lp_generate_prompt(w->clean, p->ids, p->n, err));
    lp_status st = lp_session_fork(&other, w->clean, (int)p->n - 1, err); /* the baseline draws from a fork */
    if (st == LP_OK) st = lp_generate_prompt(other, p->ids, p->n, err);
    if (st == LP_OK) st = draw(&w->baseline, w, other, NULL, err);
    lp_session_free(other);
    if (st != LP_OK) return st;
    lp_steer_context context = {.n_prompt = (int)p->n, .ids = p->ids, .is_template = w->is_template, .reads_back = 1};
    LP_TRY(lp_steer_new(&w->steer, w->s, &w->recipe, (const lp_sae *const *)w->saes.items, w->saes.n, &context, err));
    LP_TRY(lp_steer_explain(w->steer, lp_session_eval(w->s, p->ids, p->n, err), err));
    return lp_steer_explain(w->steer, draw(&w->steered, w, w->s, on_steered, err), err);
}

/* ---- reports ----------------------------------------------------------------------------------------------------- */

static void print_block(const char *title, const lp_generation *g, lp_error *err)
{
    printf("== %s\n", title);
    cli_say(g->text ? g->text : "", g->len, err);
    putchar('\n');
}

static void put_piece(const job *w, int id)
{
    size_t n;
    const char *piece = cli_piece(w->m, id, &n);
    cli_put_bytes(w->c, piece, n);
}

/* How far position pos was moved, over all places; NaN: not at all. */
static double moved(const lp_steer_move *moves, size_t n, int pos)
{
    double most = NAN;
    for (size_t i = 0; i < n; i++)
        if (moves[i].pos == pos && !((double)moves[i].relative <= most)) most = (double)moves[i].relative;
    return most;
}

static lp_status print_table(const job *w, lp_error *err)
{
    cli *c = w->c;
    lp_steer_move *moves = NULL;
    size_t n = 0;
    LP_TRY(lp_steer_moves(&moves, &n, w->steer, err));
    cli_table_begin(c, "pos\tid\tpiece\tkl\tmoved\tclean_best\tclean_p\tsteered_best\tsteered_p");
    for (size_t i = 0; i < w->n_steps; i++) {
        const step *x = &w->steps[i];
        cli_put_int(c, x->pos);
        cli_put_int(c, x->id);
        put_piece(w, x->id);
        cli_put_real(c, x->kl, 4);
        cli_put_real(c, moved(moves, n, x->pos - 1), 4); /* the row whose logits these are */
        put_piece(w, x->clean[0].id);
        cli_put_real(c, (double)x->clean[0].score, 4);
        put_piece(w, x->steered[0].id);
        cli_put_real(c, (double)x->steered[0].score, 4);
    }
    cli_table_end(c);
    free(moves);
    return LP_OK;
}

static json_t *best_json(const job *w, const lp_scored *best)
{
    json_t *list = json_array();
    for (int i = 0; list && i < BEST && i < w->m->config.vocab; i++) {
        size_t n;
        const char *piece = cli_piece(w->m, best[i].id, &n);
        json_t *j = json_object();
        int bad = !j;
        bad |= json_object_set_new(j, "id", json_integer(best[i].id));
        bad |= json_object_set_new(j, "piece", cli_json_text(piece, n));
        bad |= json_object_set_new(j, "p", cli_json_real((double)best[i].score));
        if (bad | json_array_append_new(list, j)) return json_decref(list), NULL;
    }
    return list;
}

static json_t *steps_json(const job *w)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < w->n_steps; i++) {
        const step *x = &w->steps[i];
        size_t n;
        const char *piece = cli_piece(w->m, x->id, &n);
        json_t *j = json_object();
        int bad = !j;
        bad |= json_object_set_new(j, "pos", json_integer(x->pos));
        bad |= json_object_set_new(j, "id", json_integer(x->id));
        bad |= json_object_set_new(j, "piece", cli_json_text(piece, n));
        bad |= json_object_set_new(j, "kl", cli_json_real(x->kl));
        bad |= json_object_set_new(j, "clean", best_json(w, x->clean));
        bad |= json_object_set_new(j, "steered", best_json(w, x->steered));
        if (bad | json_array_append_new(list, j)) return json_decref(list), NULL;
    }
    return list;
}

static json_t *readback_json(const job *w, lp_error *err)
{
    lp_steer_reading *r = NULL;
    size_t n = 0;
    if (lp_steer_readback(&r, &n, w->steer, err) != LP_OK) return NULL;
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++) {
        const lp_recipe_edit *e = &w->recipe.edits[r[i].edit];
        json_t *j = json_object();
        int bad = !j;
        bad |= json_object_set_new(j, "pos", json_integer(r[i].pos));
        bad |= json_object_set_new(j, "edit", json_integer(r[i].edit));
        bad |= json_object_set_new(j, "layer", cli_json_text(e->source, strlen(e->source)));
        bad |= json_object_set_new(j, "index", json_integer(e->index));
        bad |= json_object_set_new(j, "asked", cli_json_real((double)r[i].asked));
        bad |= json_object_set_new(j, "before", cli_json_real((double)r[i].before));
        bad |= json_object_set_new(j, "achieved", cli_json_real((double)r[i].achieved));
        bad |= json_object_set_new(j, "status", json_string(lp_steer_status_name(r[i].status)));
        if (bad | json_array_append_new(list, j)) list = (json_decref(list), NULL);
    }
    free(r);
    return list;
}

static json_t *moves_json(const job *w, lp_error *err)
{
    lp_steer_move *moves = NULL;
    size_t n = 0;
    if (lp_steer_moves(&moves, &n, w->steer, err) != LP_OK) return NULL;
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++) {
        json_t *j = json_pack("{s:i,s:s,s:o,s:f}", "pos", moves[i].pos, "site", lp_site_name(moves[i].site), "layer",
                              cli_layer_json(moves[i].site, moves[i].layer), "relative", (double)moves[i].relative);
        if (json_array_append_new(list, j)) list = (json_decref(list), NULL);
    }
    free(moves);
    return list;
}

static json_t *text_json(const lp_generation *g)
{
    json_t *j = json_object(), *ids = json_array();
    int bad = !j || !ids;
    for (size_t i = 0; i < g->n; i++) bad |= json_array_append_new(ids, json_integer(g->ids[i]));
    bad |= json_object_set_new(j, "text", cli_json_text(g->text ? g->text : "", g->len));
    bad |= json_object_set_new(j, "ids", ids);
    bad |= json_object_set_new(j, "finish", json_string(lp_finish_name(g->finish)));
    return bad ? (json_decref(j), NULL) : j;
}

static lp_status print_json(const job *w, lp_error *err)
{
    char hash[33];
    LP_TRY(lp_recipe_hash(hash, &w->recipe, err));
    json_t *j = cli_provenance(w->c, w->s), *prompt = json_array();
    const lp_tokens *p = &w->tokens;
    int bad = !j || !prompt;
    for (size_t i = 0; i < p->n; i++) bad |= json_array_append_new(prompt, json_integer(p->ids[i]));
    bad |= json_object_set_new(j, "recipe", json_string(hash));
    bad |= json_object_set_new(j, "saes", cli_saes_json(&w->saes));
    bad |= json_object_set_new(j, "seed", cli_seed_json(w->answer.sample.seed));
    bad |= json_object_set_new(j, "sampling", cli_sampling_json(&w->answer));
    bad |= json_object_set_new(j, "prompt", prompt);
    bad |= json_object_set_new(j, "baseline", text_json(&w->baseline));
    bad |= json_object_set_new(j, "steered", text_json(&w->steered));
    bad |= json_object_set_new(j, "tokens", steps_json(w));
    bad |= json_object_set_new(j, "readback", readback_json(w, err));
    bad |= json_object_set_new(j, "moves", moves_json(w, err));
    return cli_print_json(bad ? (json_decref(j), NULL) : j, err);
}

static lp_status report(const job *w, lp_error *err)
{
    if (w->c->json) return print_json(w, err);
    if (w->is_table) return print_table(w, err);
    print_block("baseline", &w->baseline, err);
    print_block("steered", &w->steered, err);
    return LP_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static lp_status work(job *w, lp_error *err)
{
    LP_TRY(cli_read_recipe(&w->recipe, w->c, w->file, err));
    if (w->is_chat) w->c->embedded = "chat";
    LP_TRY(cli_open(&w->m, &w->s, w->c, w->prompt.embed_scale, err));
    LP_TRY(cli_read_sampling(&w->answer, w->c, &w->sampling, w->m->config.vocab, err));
    LP_TRY(w->is_chat ? cli_take_chat(&w->tokens, &w->is_template, w->c, w->m, &w->prompt, err)
                      : cli_take_prompt(&w->tokens, w->c, w->m, &w->prompt, err));
    LP_TRY(cli_open_recipe_saes(&w->saes, w->c, w->m, &w->choice, &w->recipe, err));
    LP_TRY(run_both(w, err));
    LP_TRY(cli_write_run(w->run_file,
                         &(cli_run_parts){.c = w->c,
                                          .s = w->s,
                                          .prompt = &w->tokens,
                                          .is_template = w->is_template,
                                          .answer = &w->answer,
                                          .generation = &w->steered,
                                          .recipe = &w->recipe,
                                          .saes = &w->saes,
                                          .choice = &w->choice,
                                          .steer = w->steer},
                         err));
    return report(w, err);
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    job w = {.c = c, .sampling = {.max_tokens = DEFAULT_TOKENS}, .err = err};
    const cli_option options[] = {
        {"recipe", 'r', CLI_TEXT, &w.file, "FILE", "what to change: a recipe's path, or the name of a shipped one"},
        CLI_PROMPT_OPTIONS(w.prompt),
        {"chat", 'c', CLI_FLAG, &w.is_chat, NULL, "wrap the prompt as a user's turn"},
        {"run", 0, CLI_TEXT, &w.run_file, "FILE", "write the steered run, for `lapidary replay`"},
        {"table", 0, CLI_FLAG, &w.is_table, NULL,
         "a line per steered token: KL, how far it was moved, likeliest tokens"},
        CLI_SAE_OPTIONS(w.choice),
        CLI_SAMPLING_OPTIONS(w.sampling),
        {0},
    };
    LP_TRY(cli_parse(c, options, argc, argv, err));
    lp_status st = work(&w, err);
    lp_steer_free(w.steer);
    cli_close_saes(&w.saes);
    lp_session_free(w.clean);
    lp_session_free(w.s);
    lp_recipe_clear(&w.recipe);
    lp_generation_free(&w.baseline);
    lp_generation_free(&w.steered);
    lp_tokens_free(&w.tokens);
    free(w.is_template);
    free(w.steps);
    lp_model_close(w.m);
    return st;
}

const cli_command cmd_steer = {
    .name = "steer",
    .summary = "a steering recipe at work, beside the model without it",
    .operands = "--recipe FILE [PROMPT]",
    .about =
        "Goes on from the prompt twice with the same seed, as the model is and with the recipe, and prints both "
        "texts;\n"
        "with --table what the recipe did to every token, with --json all of it: asked and achieved activations, how\n"
        "far each row was moved, KL to the unsteered model on the same text, and the next-token tables of both.",
    .run = run,
};
