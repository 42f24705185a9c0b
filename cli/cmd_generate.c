/* cmd_generate.c - `lapidary generate`: go on from a prompt.
 *
 * For people the text streams to stdout as it becomes certain, or with --logprobs a table, one line per token.  With
 * --json one object at the end: the text, the tokens, why it ended, and everything needed to do it again.
 */
#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/recipes.h"
#include "cli/write_run.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TOP = 100, DEFAULT_MAX_TOKENS = 256 };

typedef struct job {
    cli *c;
    cli_prompt prompt;
    cli_sampling sampling;
    bool is_chat;
    const char *run_file;
    int n_top; /* -1: no log-probabilities wanted */
    const lp_model *m;
    json_t *list; /* of tokens, with --json */
    lp_status st;
    lp_error *err;
} job;

/* ---- tokens as they come ------------------------------------------------------------------------------------ */

static int alternative_json(json_t *list, const lp_model *m, const lp_scored *a)
{
    size_t n;
    const char *piece = cli_piece(m, a->id, &n);
    json_t *j = json_object();
    int bad = !j;
    bad |= json_object_set_new(j, "id", json_integer(a->id));
    bad |= json_object_set_new(j, "piece", cli_json_text(piece, n));
    bad |= json_object_set_new(j, "logprob", cli_json_real((double)a->score));
    return bad | json_array_append_new(list, j);
}

static int token_json(const job *w, const lp_generated *t)
{
    size_t n;
    const char *piece = cli_piece(w->m, t->id, &n);
    json_t *j = json_object(), *top = t->n_top ? json_array() : NULL;
    int bad = !j || (t->n_top && !top);
    bad |= json_object_set_new(j, "pos", json_integer(t->pos));
    bad |= json_object_set_new(j, "id", json_integer(t->id));
    bad |= json_object_set_new(j, "piece", cli_json_text(piece, n));
    bad |= json_object_set_new(j, "text", cli_json_text(t->text, t->len));
    if (w->n_top >= 0) bad |= json_object_set_new(j, "logprob", cli_json_real((double)t->logprob));
    for (int i = 0; i < t->n_top; i++) bad |= alternative_json(top, w->m, &t->top[i]);
    if (top) bad |= json_object_set_new(j, "top", top);
    return bad | json_array_append_new(w->list, j);
}

static void token_row(const job *w, const lp_generated *t)
{
    cli *c = w->c;
    size_t n;
    const char *piece = cli_piece(w->m, t->id, &n);
    cli_put_int(c, t->pos);
    cli_put_int(c, t->id);
    cli_put_bytes(c, piece, n);
    cli_put_real(c, (double)t->logprob, 6);
    for (int i = 0; i < w->n_top; i++) {
        if (i >= t->n_top) { /* a vocabulary smaller than what was asked for */
            cli_put_none(c), cli_put_none(c);
            continue;
        }
        piece = cli_piece(w->m, t->top[i].id, &n);
        cli_put_bytes(c, piece, n);
        cli_put_real(c, (double)t->top[i].score, 6);
    }
}

static int on_token(const lp_generated *t, void *user)
{
    job *w = user;
    if (w->list) {
        if (token_json(w, t)) w->st = lp_fail(w->err, LP_E_MEMORY, "no memory for the list of tokens");
    } else if (w->n_top >= 0) {
        token_row(w, t);
        w->st = cli_flush(w->err);
    } else if (w->m->tokenizer) {
        w->st = cli_say(t->text, t->len, w->err);
    } else {
        printf("%s%d", t->index ? "," : "", t->id);
        w->st = cli_flush(w->err);
    }
    return w->st != LP_OK;
}

/* ---- the whole ---------------------------------------------------------------------------------------------- */

static json_t *result_json(const job *w, const lp_session *s, const lp_tokens *prompt, const lp_generation *g,
                           const cli_answer *a)
{
    json_t *j = cli_provenance(w->c, s), *ids = json_array();
    int bad = !j || !ids;
    for (size_t i = 0; i < prompt->n; i++) bad |= json_array_append_new(ids, json_integer(prompt->ids[i]));
    bad |= json_object_set_new(j, "sampling", cli_sampling_json(a));
    bad |= json_object_set_new(j, "seed", cli_seed_json(a->sample.seed));
    bad |= json_object_set_new(j, "prompt", ids);
    bad |= json_object_set(j, "tokens", w->list);
    bad |= json_object_set_new(j, "text", cli_json_text(g->text ? g->text : "", g->len));
    bad |= json_object_set_new(j, "finish", json_string(lp_finish_name(g->finish)));
    if (g->stop_string >= 0) {
        const char *stop = a->generate.stop[g->stop_string];
        bad |= json_object_set_new(j, "stop", cli_json_text(stop, strlen(stop)));
    }
    if (!bad) return j;
    json_decref(j);
    return NULL;
}

static void begin_table(cli *c, char *columns, size_t size, int n_top)
{
    size_t at = (size_t)snprintf(columns, size, "pos\tid\tpiece\tlogprob");
    for (int i = 1; i <= n_top; i++) at += (size_t)snprintf(columns + at, size - at, "\ttop%d\tlogprob%d", i, i);
    cli_table_begin(c, columns);
}

static lp_status generate(job *w, lp_session *s, const lp_tokens *prompt, lp_error *err)
{
    cli *c = w->c;
    char columns[64 + MAX_TOP * 24];
    cli_answer a;
    lp_sampler *sampler = NULL;
    lp_generation g = {0};
    lp_status st = cli_read_sampling(&a, c, &w->sampling, w->m->config.vocab, err);
    bool shows_table = w->n_top >= 0 && !c->json;
    a.generate.logprobs = w->n_top >= 0;
    a.generate.n_top = w->n_top > 0 ? w->n_top : 0;
    a.generate.fn = on_token;
    a.generate.user = w;
    if (st == LP_OK) st = lp_sampler_new(&sampler, w->m->config.vocab, &a.sample, err);
    if (st == LP_OK && c->json && !(w->list = json_array())) st = lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = lp_generate_prompt(s, prompt->ids, prompt->n, err);
    cli_wipe_bar(c);
    if (st == LP_OK) {
        if (shows_table) begin_table(c, columns, sizeof columns, w->n_top);
        st = lp_generate(&g, s, sampler, &a.generate, err);
        if (w->st < 0) st = w->st;
        if (shows_table) cli_table_end(c);
        if (!shows_table && !c->json && g.n > 0) putchar('\n');
        if (g.finish == LP_FINISH_CONTEXT)
            lp_log(&c->env, LP_INFO, "the context of %d tokens is full", lp_session_pos(s));
    }
    if (c->json && st >= 0 && g.finish != LP_FINISH_NONE) {
        lp_status wrote = cli_print_json(result_json(w, s, prompt, &g, &a), err);
        if (wrote < 0) st = wrote;
    }
    cli_run_parts parts = {.c = c, .s = s, .prompt = prompt, .answer = &a, .generation = &g};
    if (st == LP_OK) st = cli_write_run(w->run_file, &parts, err);
    json_decref(w->list);
    lp_generation_free(&g);
    lp_sampler_free(sampler);
    return st;
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    job w = {.c = c, .n_top = -1, .err = err, .sampling = {.max_tokens = DEFAULT_MAX_TOKENS}};
    const cli_option options[] = {
        CLI_PROMPT_OPTIONS(w.prompt),
        {"run", 0, CLI_TEXT, &w.run_file, "FILE", "write all that `lapidary replay` needs to do it again"},
        {"chat", 'c', CLI_FLAG, &w.is_chat, NULL, "wrap the prompt as a user's turn, for instruction-tuned models"},
        CLI_SAMPLING_OPTIONS(w.sampling),
        {"logprobs", 0, CLI_INT, &w.n_top, "N", "tell each token's log-probability and its N best alternatives",
         .max = MAX_TOP},
        {0},
    };
    LP_TRY(cli_parse(c, options, argc, argv, err));
    lp_model *m = NULL;
    lp_session *s = NULL;
    lp_tokens tokens = {0};
    uint8_t *is_template = NULL;
    if (w.is_chat) c->embedded = "chat";
    lp_status st = cli_open(&m, &s, c, w.prompt.embed_scale, err);
    w.m = m;
    if (st == LP_OK)
        st = w.is_chat ? cli_take_chat(&tokens, &is_template, c, m, &w.prompt, err)
                       : cli_take_prompt(&tokens, c, m, &w.prompt, err);
    if (st == LP_OK) st = generate(&w, s, &tokens, err);
    free(is_template);
    lp_tokens_free(&tokens);
    lp_session_free(s);
    lp_model_close(m);
    return st;
}

const cli_command cmd_generate = {
    .name = "generate",
    .summary = "Go on from a prompt",
    .operands = "[PROMPT]",
    .about =
        "The text streams to stdout; with --logprobs a table, one line per token; with --json one object with the\n"
        "tokens, the reason it ended, and what it was computed by.  In exact arithmetic the same seed gives the\n"
        "same text on every machine.",
    .run = run,
};
