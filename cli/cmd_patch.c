/* cmd_patch.c - `lapidary patch`: activation patching between two prompts of as many tokens (sae/patch.h).
 *
 *     lapidary patch "The king rode to his" "The cook rode to his"
 *     lapidary patch --ids 2,10,11,12 2,10,99,12 --site attn_out,mlp_out --layers 0-3 --json
 *
 * A table with a line per layer and position, or with --json the matrices themselves, [place][position].
 */
#include "cli/commands.h"
#include "cli/inputs.h"
#include "sae/patch.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

typedef struct job {
    cli *c;
    cli_prompt prompt; /* its options hold for both */
    bool is_ids;
    const char *sites, *layers, *positions, *pair;
    lp_model *m;
    lp_session *s;
    lp_tokens source, into;
    lp_trace where;
    int *list; /* [n_list] positions */
    size_t n_list;
    lp_patch found;
} job;

/* ---- what was typed ---------------------------------------------------------------------------------------------- */

/* One of the two operands, by the rules all prompts go by. */
static lp_status take_prompt(lp_tokens *out, job *w, const char *operand, lp_error *err)
{
    cli_prompt p = w->prompt;
    if (w->is_ids)
        p.tokens = operand;
    else
        p.text = operand;
    return cli_take_prompt(out, w->c, w->m, &p, err);
}

static lp_status take_prompts(job *w, lp_error *err)
{
    int n = w->c->n_operands;
    w->c->n_operands = 0; /* from here on they are prompts: a third would be one too many */
    lp_status st = take_prompt(&w->source, w, w->c->operands[0], err);
    if (st == LP_OK) st = take_prompt(&w->into, w, w->c->operands[1], err);
    w->c->n_operands = n;
    return st;
}

/* "A,B", split at the first comma that leaves something on both sides. */
static lp_status take_pair(lp_patch_question *q, const job *w, lp_error *err)
{
    if (!w->pair) return LP_OK;
    const char *comma = *w->pair ? strchr(w->pair + 1, ',') : NULL;
    if (!comma || !comma[1]) return cli_usage(w->c, err, "--tokens \"%.60s\": two with a comma expected", w->pair);
    char *first = lp_format("%.*s", (int)(comma - w->pair), w->pair);
    if (!first) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_status st = cli_take_token(&q->token_source, w->c, w->m, "--tokens", first, err);
    if (st == LP_OK) st = cli_take_token(&q->token_into, w->c, w->m, "--tokens", comma + 1, err);
    free(first);
    return st;
}

/* A number at *s, moving past it; -1: there is none that could be a position. */
static long take_number(const char **s)
{
    if (!isdigit((unsigned char)**s)) return -1;
    char *end;
    long v = strtol(*s, &end, 10);
    *s = end;
    return v;
}

/* "all", "last", "0,3-5": each once, ascending. */
static lp_status take_positions(job *w, lp_error *err)
{
    long n = (long)w->into.n;
    bool *is_in = lp_calloc((size_t)n, sizeof *is_in);
    w->list = lp_calloc((size_t)n, sizeof *w->list);
    lp_status st = is_in && w->list ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    for (const char *s = w->positions; st == LP_OK;) {
        long from, to;
        if (strncmp(s, "all", 3) == 0) {
            from = 0, to = n - 1, s += 3;
        } else if (strncmp(s, "last", 4) == 0) {
            from = to = n - 1, s += 4;
        } else {
            from = to = take_number(&s);
            if (*s == '-') s++, to = take_number(&s);
        }
        if (from < 0 || to < from || (*s && *s != ','))
            st = cli_usage(w->c, err, "--positions \"%.60s\": \"all\", \"last\", or numbers and ranges like 0,3-5",
                           w->positions);
        else if (to >= n)
            st = lp_fail(err, LP_E_RANGE, "--positions %.60s: the prompts have positions 0 to %ld", w->positions,
                         n - 1);
        for (long p = from; st == LP_OK && p <= to; p++) is_in[p] = true;
        if (!*s++) break;
    }
    for (int p = 0; p < n && st == LP_OK; p++)
        if (is_in[p]) w->list[w->n_list++] = p;
    free(is_in);
    return st;
}

/* ---- printing ---------------------------------------------------------------------------------------------------- */

static void put_piece(const job *w, int id)
{
    size_t n;
    const char *piece = cli_piece(w->m, id, &n);
    cli_put_bytes(w->c, piece, n);
}

static void print_table(const job *w)
{
    cli *c = w->c;
    cli_table_begin(c, "layer\tsite\tpos\tsource\tdestination\tmetric\trecovery");
    for (size_t place = 0; place < w->found.n_places; place++)
        for (size_t i = 0; i < w->n_list; i++) {
            const lp_trace_part *p = &w->where.parts[place];
            cli_put_int(c, p->layer);
            cli_put_text(c, lp_site_name(p->site));
            cli_put_int(c, w->list[i]);
            put_piece(w, w->source.ids[w->list[i]]);
            put_piece(w, w->into.ids[w->list[i]]);
            cli_put_real(c, w->found.metric[place * w->n_list + i], 6);
            cli_put_real(c, w->found.recovery[place * w->n_list + i], 5);
        }
    cli_table_end(c);
}

static json_t *matrix(const job *w, const double *x)
{
    json_t *rows = json_array();
    int bad = !rows;
    for (size_t place = 0; place < w->found.n_places; place++) {
        json_t *row = json_array();
        for (size_t i = 0; i < w->n_list; i++)
            bad |= json_array_append_new(row, cli_json_real(x[place * w->n_list + i]));
        bad |= json_array_append_new(rows, row);
    }
    if (!bad) return rows;
    json_decref(rows);
    return NULL;
}

/* One prompt with what is measured after it. */
static json_t *prompt_json(const job *w, const lp_tokens *t, int token, double value)
{
    json_t *j = json_object(), *ids = json_array(), *pieces = json_array();
    int bad = !j || !ids || !pieces;
    size_t n;
    const char *piece;
    for (size_t i = 0; i < t->n; i++) {
        piece = cli_piece(w->m, t->ids[i], &n);
        bad |= json_array_append_new(ids, json_integer(t->ids[i]));
        bad |= json_array_append_new(pieces, cli_json_text(piece, n));
    }
    piece = cli_piece(w->m, token, &n);
    bad |= json_object_set_new(j, "ids", ids);
    bad |= json_object_set_new(j, "pieces", pieces);
    bad |= json_object_set_new(j, "token", json_integer(token));
    bad |= json_object_set_new(j, "token_piece", cli_json_text(piece, n));
    bad |= json_object_set_new(j, "metric", cli_json_real(value));
    if (!bad) return j;
    json_decref(j);
    return NULL;
}

static lp_status print_json(const job *w, lp_error *err)
{
    const lp_patch *f = &w->found;
    json_t *j = cli_provenance(w->c, w->s), *places = json_array(), *positions = json_array();
    int bad = !j || !places || !positions;
    for (size_t i = 0; i < f->n_places; i++) {
        const lp_trace_part *p = &w->where.parts[i];
        json_t *place = json_object();
        bad |= json_object_set_new(place, "layer", json_integer(p->layer));
        bad |= json_object_set_new(place, "site", json_string(lp_site_name(p->site)));
        bad |= json_array_append_new(places, place);
    }
    for (size_t i = 0; i < w->n_list; i++) bad |= json_array_append_new(positions, json_integer(w->list[i]));
    bad |= json_object_set_new(j, "source", prompt_json(w, &w->source, f->token_source, f->of_source));
    bad |= json_object_set_new(j, "destination", prompt_json(w, &w->into, f->token_into, f->of_into));
    bad |= json_object_set_new(j, "places", places);
    bad |= json_object_set_new(j, "positions", positions);
    bad |= json_object_set_new(j, "metric", matrix(w, f->metric));
    bad |= json_object_set_new(j, "recovery", matrix(w, f->recovery));
    if (!bad) return cli_print_json(j, err);
    json_decref(j);
    return lp_fail(err, LP_E_MEMORY, "no memory for the JSON");
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static lp_status patch(job *w, lp_error *err)
{
    lp_patch_question q = {.source = w->source.ids,
                           .n_source = w->source.n,
                           .into = w->into.ids,
                           .n_into = w->into.n,
                           .token_source = -1,
                           .token_into = -1};
    LP_TRY(take_pair(&q, w, err));
    LP_TRY(take_positions(w, err));
    q.positions = w->list, q.n_positions = w->n_list;
    LP_TRY(lp_trace_select(&w->where, &w->m->config, w->sites, w->layers, err));
    LP_TRY(lp_patch_run(&w->found, w->s, &w->where, &q, err));
    const lp_patch *f = &w->found;
    lp_log(&w->c->env, LP_INFO, "metric: logit of %d \"%s\" minus logit of %d \"%s\"; source %.5g, destination %.5g",
           f->token_source, cli_piece(w->m, f->token_source, &(size_t){0}), f->token_into,
           cli_piece(w->m, f->token_into, &(size_t){0}), f->of_source, f->of_into);
    if (w->c->json) return print_json(w, err);
    print_table(w);
    return LP_OK;
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    job w = {.c = c, .sites = "resid_post", .layers = "all", .positions = "all"};
    const cli_option options[] = {
        {"ids", 0, CLI_FLAG, &w.is_ids, NULL, "the prompts are ids, 2,10,11; taken as they are"},
        {"site", 's', CLI_TEXT, &w.sites, "LIST", "what is patched, attn_out,mlp_out (default resid_post)"},
        {"layers", 'l', CLI_TEXT, &w.layers, "LIST", "all (default), last, or numbers and ranges, 0,3-5"},
        {"positions", 0, CLI_TEXT, &w.positions, "LIST", "all (default), last, or numbers and ranges, 0,3-5"},
        {"tokens", 0, CLI_TEXT, &w.pair, "A,B", "metric: logit of A minus B, ids or texts (default: the likeliest)"},
        {"no-bos", 0, CLI_FLAG, &w.prompt.no_bos, NULL, "do not put <bos> in front"},
        {"specials", 0, CLI_CHOICE, &w.prompt.specials, CLI_SPECIALS_CHOICE,
         "what \"<start_of_turn>\" in a prompt is: plain text (default), or a token"},
        {"embed-scale", 0, CLI_CHOICE, &w.prompt.embed_scale, "f32|bf16",
         "sqrt(d_model) in f32 (default), or rounded as bf16 reference runs do"},
        {0},
    };
    LP_TRY(cli_parse(c, options, argc, argv, err));
    LP_TRY(cli_count_operands(c, 2, 2, err));
    lp_status st = cli_open(&w.m, &w.s, c, w.prompt.embed_scale, err);
    if (st == LP_OK) st = take_prompts(&w, err);
    if (st == LP_OK) st = patch(&w, err);
    lp_patch_free(&w.found);
    lp_trace_clear(&w.where);
    free(w.list);
    lp_tokens_free(&w.source);
    lp_tokens_free(&w.into);
    lp_session_free(w.s);
    lp_model_close(w.m);
    return st;
}

const cli_command cmd_patch = {
    .name = "patch",
    .summary = "where two prompts differ inside: each activation of one put into the other",
    .operands = "SOURCE DESTINATION",
    .about =
        "Runs DESTINATION again and again, each time with one activation, of one layer at one position, replaced by\n"
        "SOURCE's, and says what that does to a difference of two logits after the last token.  Recovery 0: as\n"
        "DESTINATION without patching, 1: as SOURCE.  Both must have as many tokens (lapidary tokenize shows them).",
    .run = run,
};
