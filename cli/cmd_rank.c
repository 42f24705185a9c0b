/* cmd_rank.c - `lapidary rank`: which features of a token matter for what comes next (sae/causal.h).
 *
 *     lapidary rank "The whale swam in the" --target " sea"
 *     lapidary rank "The whale swam in the" --at 2 --by kl --top 30
 *
 * The strongest features at one position are taken out, each alone, and the rest of the prompt is run again; the table
 * says what that did to the next token.  Below 0 in d_logit: the feature spoke for the target.
 */
#include "cli/commands.h"
#include "cli/saes.h"
#include "sae/causal.h"

enum { MOST = 100000 };

typedef struct job {
    cli *c;
    cli_scene scene;
    int at, top, by;
    const char *target;
    lp_causal found;
} job;

static void put_row(const job *w, size_t i)
{
    cli *c = w->c;
    const lp_causal_row *r = &w->found.rows[i];
    const lp_sae *s = w->scene.saes.items[r->sae];
    size_t n;
    const char *best = cli_piece(w->scene.m, r->best, &n);
    cli_put_int(c, (int64_t)i + 1);
    cli_put_layer(c, &s->spot);
    cli_put_text(c, cli_sae_site(s));
    cli_put_text(c, s->name);
    cli_put_int(c, r->index);
    cli_put_real(c, (double)r->activation, 6);
    cli_put_real(c, r->d_logit, 5);
    cli_put_real(c, r->d_logprob, 5);
    cli_put_real(c, r->kl, 5);
    cli_put_bytes(c, best, n);
    cli_put_real(c, (double)r->best_p, 5);
    cli_put_text(c, lp_label_text(&w->scene.saes.labels[r->sae], r->index));
}

/* What the figures are about goes with the talk: a pipe gets the table alone. */
static void say(const job *w)
{
    const lp_causal *f = &w->found;
    int id = w->scene.tokens.ids[f->at];
    lp_log(
        &w->c->env, LP_INFO,
        "position %d, token %d \"%s\"; target %d \"%s\", logit %.5g, log-probability %.5g; likeliest %d \"%s\", %.4g",
        f->at, id, cli_piece(w->scene.m, id, &(size_t){0}), f->target, cli_piece(w->scene.m, f->target, &(size_t){0}),
        f->logit, f->logprob, f->best, cli_piece(w->scene.m, f->best, &(size_t){0}), (double)f->best_p);
    if (f->n == 0 && w->top) lp_log(&w->c->env, LP_WARN, "no feature of these SAEs is active there");
}

static lp_status work(job *w, lp_error *err)
{
    lp_causal_question q = {.at = w->at, .k = w->top, .rank_by = w->by ? LP_CAUSAL_KL : LP_CAUSAL_LOGIT};
    cli_scene *x = &w->scene;
    LP_TRY(cli_open_scene(x, w->c, err));
    LP_TRY(cli_take_token(&q.target, w->c, x->m, "--target", w->target, err));
    LP_TRY(cli_fill_scene(x, w->c, err));
    q.ids = x->tokens.ids, q.n = x->tokens.n;
    LP_TRY(lp_causal_rank(&w->found, x->s, (const lp_sae *const *)x->saes.items, x->saes.n, &q, err));
    say(w);
    cli_table_begin(w->c, "rank\tlayer\tsite\tsae\tindex\tactivation\td_logit\td_logprob\tkl\tbest\tbest_p\tlabel");
    for (size_t i = 0; i < w->found.n; i++) put_row(w, i);
    cli_table_end(w->c);
    return LP_OK;
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    job w = {.c = c, .at = -1, .top = 10};
    const cli_option options[] = {
        CLI_PROMPT_OPTIONS(w.scene.prompt),
        CLI_SAE_OPTIONS(w.scene.choice),
        {"at", 0, CLI_INT, &w.at, "POS", "position whose features are taken out; -1, the default, is the last",
         .min = -8192, .max = 8191},
        {"target", 0, CLI_TEXT, &w.target, "TOKEN", "an id, or text that is one token (default: the likeliest next)"},
        {"top", 'k', CLI_INT, &w.top, "K", "features tried, the strongest over all SAEs (default 10)", .max = MOST},
        {"by", 0, CLI_CHOICE, &w.by, "logit|kl", "rank by the target's logit (default), or by all that changed"},
        {0},
    };
    LP_TRY(cli_parse(c, options, argc, argv, err));
    lp_status st = work(&w, err);
    lp_causal_free(&w.found);
    cli_close_scene(&w.scene);
    return st;
}

const cli_command cmd_rank = {
    .name = "rank",
    .summary = "which SAE features of a token matter for the next one: each taken out, alone",
    .operands = "[PROMPT]",
    .about =
        "Takes each of the strongest features at one position out of the stream (x - f d, what the SAE does not\n"
        "explain is kept), runs on from there, and says what that did to the next token after the prompt: change of\n"
        "the target's logit and log-probability (below 0: the feature spoke for it), KL(clean || without) in nats,\n"
        "and the likeliest token without the feature.",
    .run = run,
};
