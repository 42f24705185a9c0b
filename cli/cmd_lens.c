/* cmd_lens.c - `lapidary lens`: the logit lens, every layer as a line of a table (core/lens.h). */
#include "cli/commands.h"
#include "cli/inputs.h"
#include "core/generate.h"
#include "core/lens.h"

#include <stdlib.h>

enum { MAX_TOP = 100 };

typedef struct job {
    cli_prompt prompt;
    int pos, n_top;
    const char *target;
} job;

static void put_row(cli *c, const lp_model *m, int layer, const lp_lens_row *r)
{
    cli_put_int(c, layer);
    cli_put_real(c, (double)r->entropy, 5);
    if (r->rank >= 0) {
        cli_put_int(c, r->rank);
        cli_put_real(c, (double)r->p, 5);
    }
    for (int i = 0; i < r->n_top; i++) {
        size_t n;
        const char *piece = cli_piece(m, r->top[i].id, &n);
        cli_put_bytes(c, piece, n);
        cli_put_int(c, r->top[i].id);
        cli_put_real(c, (double)r->top[i].score, 5);
    }
}

static void print(cli *c, const lp_model *m, const lp_lens_row *rows, int n_top)
{
    char columns[64 + MAX_TOP * 32];
    size_t at = (size_t)snprintf(columns, sizeof columns, "layer\tentropy%s", rows[0].rank >= 0 ? "\trank\tp" : "");
    for (int i = 1; i <= n_top; i++)
        at += (size_t)snprintf(columns + at, sizeof columns - at, "\ttop%d\tid%d\tp%d", i, i, i);
    cli_table_begin(c, columns);
    for (int l = 0; l < m->config.n_layers; l++) put_row(c, m, l, &rows[l]);
    cli_table_end(c);
}

/* The residual stream of one position behind every layer: x [L][D].  Later tokens cannot change it and are not run. */
static lp_status record(float *x, lp_session *s, const int *ids, int pos, lp_error *err)
{
    const lp_config *c = &lp_session_model(s)->config;
    lp_tape tape = {.x = x, .n_layers = c->n_layers, .first_pos = pos, .n_pos = 1, .width = c->d_model};
    int handle = lp_session_hook(s, lp_tap(LP_RESID_POST, LP_EVERY_LAYER, &tape), err);
    if (handle < 0) return (lp_status)handle;
    lp_status st = lp_generate_prompt(s, ids, (size_t)pos + 1, err);
    lp_session_unhook(s, handle);
    return st;
}

static lp_status lens(cli *c, const job *j, lp_session *s, const lp_tokens *tokens, lp_error *err)
{
    const lp_model *m = lp_session_model(s);
    int n = (int)tokens->n, L = m->config.n_layers, target = -1;
    int pos = j->pos < 0 ? n + j->pos : j->pos, n_top = j->n_top < m->config.vocab ? j->n_top : m->config.vocab;
    if (pos < 0 || pos >= n)
        return lp_fail(err, LP_E_RANGE, "--pos %d: the prompt has positions 0 to %d", j->pos, n - 1);
    LP_TRY(cli_take_token(&target, c, m, "--target", j->target, err));
    lp_status st = LP_OK;
    float *x = lp_calloc((size_t)L * (size_t)m->config.d_model, sizeof *x);
    lp_lens_row *rows = lp_calloc((size_t)L, sizeof *rows);
    lp_scored *top = lp_calloc((size_t)L * (size_t)n_top, sizeof *top);
    if (!x || !rows || !top) st = lp_fail(err, LP_E_MEMORY, "no memory for %d rows of %d", L, m->config.d_model);
    if (st == LP_OK) st = record(x, s, tokens->ids, pos, err);
    if (st == LP_OK) st = lp_lens_read(rows, top, s, x, L, n_top, target, err);
    if (st == LP_OK) print(c, m, rows, n_top);
    free(x);
    free(rows);
    free(top);
    return st;
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    job j = {.pos = -1, .n_top = 5};
    const cli_option options[] = {
        CLI_PROMPT_OPTIONS(j.prompt),
        {"pos", 0, CLI_INT, &j.pos, "N", "position to look at; -1, the default, is the last", .min = -8192,
         .max = 8191},
        {"top", 'k', CLI_INT, &j.n_top, "N", "tokens to show per layer (5)", .min = 0, .max = MAX_TOP},
        {"target", 0, CLI_TEXT, &j.target, "TOKEN",
         "an id or a piece of text: show its rank (0 is first) and probability"},
        {0},
    };
    LP_TRY(cli_parse(c, options, argc, argv, err));
    lp_model *m = NULL;
    lp_session *s = NULL;
    lp_tokens tokens = {0};
    lp_status st = cli_open(&m, &s, c, j.prompt.embed_scale, err);
    if (st == LP_OK) st = cli_take_prompt(&tokens, c, m, &j.prompt, err);
    if (st == LP_OK) st = lens(c, &j, s, &tokens, err);
    lp_tokens_free(&tokens);
    lp_session_free(s);
    lp_model_close(m);
    return st;
}

const cli_command cmd_lens = {
    .name = "lens",
    .summary = "Show what every layer would say next (the logit lens)",
    .operands = "[PROMPT]",
    .about =
        "Each layer's resid_post goes through the final norm, the unembedding and the soft-cap; the last line is the\n"
        "model's own distribution.  Entropy is in bits.",
    .run = run,
};
