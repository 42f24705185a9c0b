/* cmd_chat.c - `lapidary chat`: a conversation with an instruction-tuned model.
 *
 * After every turn the whole conversation is rendered anew by Gemma's template and the session keeps what it already holds of
 * it (lp_generate_prompt), so a turn costs its own tokens and the few that the template trims.  Ctrl-C during an answer ends
 * the answer; what was said of it stays in the conversation.  Lines that begin with a slash are commands.
 *
 * Through a pipe every line is a turn, and answers go to stdout one after another; with --json one object a line.
 */
#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/line.h"
#include "core/chat.h"

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_MAX_TOKENS = 1024 };

typedef struct talk {
    cli *c;
    lp_model *m;
    lp_session *s;
    cli_line *line;
    cli_answer a;
    lp_turn *turns; /* their texts are owned; the first may be the system's */
    size_t n, capacity;
    lp_error *err;
    lp_status said; /* of writing the answer out */
} talk;

/* ---- the conversation ---------------------------------------------------------------------------------------- */

static lp_status add_turn(talk *w, lp_role role, const char *text, size_t len, lp_error *err)
{
    char *copy = malloc(len + 1);
    if (!copy || !lp_grow((void **)&w->turns, &w->capacity, w->n + 1, sizeof *w->turns)) {
        free(copy);
        return lp_fail(err, LP_E_MEMORY, "no memory for a turn of %zu bytes", len);
    }
    memcpy(copy, text, len);
    copy[len] = 0;
    w->turns[w->n++] = (lp_turn){role, copy, len};
    return LP_OK;
}

static void drop_turns(talk *w, size_t keep)
{
    while (w->n > keep) {
        union {
            const char *borrowed;
            char *owned;
        } text = {w->turns[--w->n].text}; /* we made it in add_turn */
        free(text.owned);
    }
}

static size_t n_system(const talk *w)
{
    return w->n > 0 && w->turns[0].role == LP_ROLE_SYSTEM;
}

static lp_status set_system(talk *w, const char *text, lp_error *err)
{
    drop_turns(w, 0);
    return *text ? add_turn(w, LP_ROLE_SYSTEM, text, strlen(text), err) : LP_OK;
}

/* ---- an answer ----------------------------------------------------------------------------------------------- */

static int on_token(const lp_generated *t, void *user)
{
    talk *w = user;
    if (!w->c->json) w->said = cli_say(t->text, t->len, w->err);
    return w->said != LP_OK;
}

static lp_status print_answer(talk *w, const lp_generation *g, lp_error *err)
{
    if (!w->c->json) {
        bool ends_line = g->len > 0 && g->text[g->len - 1] == '\n' && g->finish != LP_FINISH_CANCELLED; /* "^C" */
        return cli_say("\n", ends_line ? 0 : 1, err);
    }
    json_t *j = json_object();
    int bad = !j;
    bad |= json_object_set_new(j, "role", json_string("model"));
    bad |= json_object_set_new(j, "text", cli_json_text(g->text ? g->text : "", g->len));
    bad |= json_object_set_new(j, "tokens", json_integer((json_int_t)g->n));
    bad |= json_object_set_new(j, "finish", json_string(lp_finish_name(g->finish)));
    if (!bad) bad = json_dumpf(j, stdout, JSON_COMPACT) != 0 || putchar('\n') == EOF;
    json_decref(j);
    return bad ? lp_fail(err, LP_E_MEMORY, "cannot print the answer") : cli_flush(err);
}

static lp_status draw_answer(talk *w, lp_generation *g, lp_error *err)
{
    lp_chat chat = {0};
    lp_sampler *sampler = NULL;
    const lp_chat_options o = {.generation_prompt = true, .fold_system = true};
    lp_status st = lp_chat_tokenize(&chat, w->m->tokenizer, w->turns, w->n, &o, err);
    if (st == LP_OK) st = lp_sampler_new(&sampler, w->m->config.vocab, &w->a.sample, err);
    if (st == LP_OK) st = lp_generate_prompt(w->s, chat.tokens.ids, chat.tokens.n, err);
    cli_wipe_bar(w->c);
    if (st == LP_OK) st = lp_generate(g, w->s, sampler, &w->a.generate, err);
    if (w->said < 0) st = w->said;
    lp_sampler_free(sampler);
    lp_chat_free(&chat);
    return st;
}

/* The user has spoken: the model answers.  An answer that never began takes the question with it. */
static lp_status answer(talk *w, lp_error *err)
{
    lp_generation g = {0};
    lp_status st = draw_answer(w, &g, err), shown = LP_OK;
    if (st >= 0 && (g.n > 0 || w->c->json)) shown = print_answer(w, &g, err);
    if (st >= 0 && g.n > 0) {
        lp_status kept = add_turn(w, LP_ROLE_MODEL, g.text, g.len, err);
        if (kept < 0) st = kept;
    } else {
        drop_turns(w, w->n - 1);
    }
    if (g.finish == LP_FINISH_LENGTH || g.finish == LP_FINISH_CONTEXT)
        lp_log(&w->c->env, LP_INFO, "the answer was cut: %s", lp_finish_name(g.finish));
    lp_generation_free(&g);
    return shown < 0 ? shown : st;
}

/* ---- commands ------------------------------------------------------------------------------------------------ */

static void say_help(void)
{
    fputs("/system TEXT   start anew with instructions in front of the first turn (no TEXT: without)\n"
          "/reset         forget the conversation, keep the instructions\n"
          "/undo          take back the last exchange\n"
          "/retry         answer again, with the next seed\n"
          "/tokens        how much of the context is used\n"
          "/exit          leave (as Ctrl-D does); Ctrl-C stops an answer\n"
          "A line that ends in \\ goes on in the next; // at the start stands for /.\n",
          stderr);
}

static bool is_command(const char *line, const char *name, const char **rest)
{
    size_t n = strlen(name);
    if (strncmp(line, name, n) != 0 || (line[n] && line[n] != ' ')) return false;
    *rest = line + n + (line[n] == ' ');
    return true;
}

static lp_status retry(talk *w, lp_error *err)
{
    if (w->n == 0 || w->turns[w->n - 1].role != LP_ROLE_MODEL) {
        lp_log(&w->c->env, LP_WARN, "there is no answer yet");
        return LP_OK;
    }
    drop_turns(w, w->n - 1);
    w->a.sample.seed++;
    return answer(w, err);
}

/* LP_STOPPED: leave. */
static lp_status obey(talk *w, const char *line, lp_error *err)
{
    const char *rest;
    size_t first = n_system(w);
    if (is_command(line, "/exit", &rest) || is_command(line, "/quit", &rest)) return LP_STOPPED;
    if (is_command(line, "/system", &rest)) return set_system(w, rest, err);
    if (is_command(line, "/retry", &rest)) return retry(w, err);
    if (is_command(line, "/reset", &rest))
        drop_turns(w, first);
    else if (is_command(line, "/undo", &rest))
        drop_turns(w, w->n >= first + 2 ? w->n - 2 : first);
    else if (is_command(line, "/tokens", &rest))
        fprintf(stderr, "%d of %d\n", lp_session_pos(w->s), lp_session_get_options(w->s)->n_ctx);
    else if (is_command(line, "/help", &rest))
        say_help();
    else
        lp_log(&w->c->env, LP_WARN, "no command \"%.40s\"; /help lists them", line);
    return LP_OK;
}

/* A turn: one line, or several that end in a backslash.  *text is owned. */
static lp_status read_turn(talk *w, char **text, size_t *n, lp_error *err)
{
    size_t room = 0;
    *n = 0;
    for (;;) {
        const char *line;
        size_t len;
        LP_TRY(cli_line_read(w->line, &line, &len, err));
        bool goes_on = len > 0 && line[len - 1] == '\\';
        if (goes_on) len--;
        if (!lp_grow((void **)text, &room, *n + len + 2, 1)) return lp_fail(err, LP_E_MEMORY, "no memory for a turn");
        memcpy(*text + *n, line, len);
        *n += len;
        (*text)[*n] = 0;
        if (!goes_on) return LP_OK;
        (*text)[(*n)++] = '\n';
    }
}

static lp_status one_exchange(talk *w, lp_error *err)
{
    char *text = NULL;
    size_t n = 0;
    lp_status st = read_turn(w, &text, &n, err);
    bool is_empty = st == LP_OK && strspn(text, " \t\r\n") == n, escapes = st == LP_OK && strncmp(text, "//", 2) == 0;
    if (st == LP_OK && !is_empty) {
        if (text[0] == '/' && !escapes) {
            st = obey(w, text, err);
        } else {
            st = add_turn(w, LP_ROLE_USER, text + escapes, n - escapes, err);
            if (st == LP_OK) st = answer(w, err);
        }
    }
    free(text);
    return st;
}

/* On a terminal neither Ctrl-C nor an error of one turn ends the conversation; through a pipe both do. */
static lp_status converse(talk *w, lp_error *err)
{
    bool is_terminal = cli_line_is_terminal(w->line);
    if (is_terminal) lp_log(&w->c->env, LP_INFO, "/help lists the commands, Ctrl-D leaves");
    for (;;) {
        if (is_terminal && cli_interrupted()) cli_forget_interrupt(); /* it came just after the last answer */
        lp_status st = one_exchange(w, err);
        if (st == LP_STOPPED) return LP_OK;
        if (st == LP_OK) continue;
        if (!is_terminal || w->said < 0) return st;
        if (st < 0) {
            lp_log(&w->c->env, LP_WARN, "%s", err->text);
            *err = (lp_error){0};
        }
    }
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    talk w = {.c = c, .err = err};
    cli_sampling sampling = {.max_tokens = DEFAULT_MAX_TOKENS};
    const char *system = "";
    int embed_scale = 0;
    const cli_option options[] = {
        {"system", 's', CLI_TEXT, &system, "TEXT",
         "instructions in front of the first turn (Gemma 2 has no system turn)"},
        CLI_SAMPLING_OPTIONS(sampling),
        {"embed-scale", 0, CLI_CHOICE, &embed_scale, "f32|bf16",
         "sqrt(d_model) in f32 (default), or rounded as bf16 reference runs do"},
        {0},
    };
    LP_TRY(cli_parse(c, options, argc, argv, err));
    LP_TRY(cli_count_operands(c, 0, 0, err));
    c->embedded = "chat";
    lp_status st = cli_open(&w.m, &w.s, c, embed_scale, err);
    if (st == LP_OK) st = cli_need_tokenizer(w.m, err);
    if (st == LP_OK) st = cli_read_sampling(&w.a, c, &sampling, w.m->config.vocab, err);
    w.a.generate.fn = on_token;
    w.a.generate.user = &w;
    if (st == LP_OK) st = set_system(&w, system, err);
    if (st == LP_OK) st = cli_line_open(&w.line, "> ", err);
    if (st == LP_OK) st = converse(&w, err);
    cli_line_close(w.line);
    drop_turns(&w, 0);
    free(w.turns);
    lp_session_free(w.s);
    lp_model_close(w.m);
    return st;
}

const cli_command cmd_chat = {
    .name = "chat",
    .summary = "Talk with an instruction-tuned model",
    .about = "On a terminal: line editing, history, and commands (/help).  Through a pipe every line is a turn; with "
             "--json\n"
             "every answer is one object on one line.",
    .run = run,
};
