/* cmd_query.c - `lapidary query`: questions to a store of activations.
 *
 *     lapidary query STORE feature SAE INDEX      its figures, histogram, strongest places
 *     lapidary query STORE where 'A:3 > 5 and B:7 within 10, not C:1'
 *
 * The verbs are in query_feature.c and query_rows.c.
 */
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/query.h"
#include "sae/run.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

typedef struct verb {
    const char *name, *operands;
    int at_least, at_most;
    lp_status (*run)(cli_query *w, char **operands, int n, lp_error *err);
} verb;

static const verb verbs[] = {
    {"feature", "SAE INDEX", 2, 2, cli_query_feature},
    {"positions", "SAE INDEX", 2, 2, cli_query_positions},
    {"where", "EXPRESSION", 1, 1, cli_query_where},
    {"active", "TOKEN, or --position N", 0, 1, cli_query_active},
    {"text", "WORDS", 1, 1, cli_query_text},
    {"labels", "WORDS", 1, 1, cli_query_labels},
    {"partners", "SAE INDEX", 2, 2, cli_query_partners},
    {"document", "KEY", 1, 1, cli_query_document},
};
enum { VERBS = sizeof verbs / sizeof *verbs };

/* ---- shared by the verbs ------------------------------------------------------------------------------------------ */

lp_status cli_query_which(int *sae, int *feature, const cli_query *w, char **operands, lp_error *err)
{
    char *end;
    errno = 0;
    long v = strtol(operands[1], &end, 10);
    if (errno || end == operands[1] || *end || v < 0 || v > INT_MAX)
        return cli_usage(w->c, err, "feature \"%.40s\": a number from 0 on expected", operands[1]);
    *feature = (int)v;
    return lp_query_find_sae(sae, w->q, operands[0], err);
}

/* Grows *text by n bytes. */
static bool append(char **text, size_t *len, size_t *room, const char *more, size_t n)
{
    if (!lp_grow((void **)text, room, *len + n + 1, 1)) return false;
    memcpy(*text + *len, more, n);
    (*text)[ *len += n] = '\0';
    return true;
}

static bool append_ids(char **text, size_t *len, size_t *room, const cli_query *w, const int *ids, int n)
{
    char *part = NULL;
    size_t bytes = 0;
    bool ok = true;
    if (n < 1) return true;
    if (w->tokenizer) {
        ok = lp_tokenizer_decode(w->tokenizer, ids, (size_t)n, 1, &part, &bytes, NULL) == LP_OK &&
             append(text, len, room, part, bytes);
        free(part);
        return ok;
    }
    for (int i = 0; i < n && ok; i++) {
        part = lp_format("%s%d", *len ? " " : "", ids[i]);
        ok = part && append(text, len, room, part, strlen(part));
        free(part);
    }
    return ok;
}

lp_status cli_query_context(char **text, int *pos, int64_t *document, const cli_query *w, int64_t token, lp_error *err)
{
    lp_context x;
    size_t len = 0, room = 0;
    *text = NULL;
    LP_TRY(lp_query_context(&x, w->q, token, w->around, w->around, err));
    if (pos) *pos = x.pos;
    if (document) *document = x.document;
    bool ok = append_ids(text, &len, &room, w, x.id, x.at) && append(text, &len, &room, ">>", 2) &&
              append_ids(text, &len, &room, w, x.id + x.at, 1) && append(text, &len, &room, "<<", 2) &&
              append_ids(text, &len, &room, w, x.id + x.at + 1, x.n - x.at - 1);
    if (ok) return LP_OK;
    free(*text);
    *text = NULL;
    return lp_fail(err, LP_E_MEMORY, "out of memory");
}

void cli_put_label(const cli_query *w, int sae, int feature)
{
    char *label = NULL;
    lp_query_label(&label, w->q, sae, feature, NULL);
    cli_put_text(w->c, label);
    free(label);
}

void cli_put_token(const cli_query *w, int id)
{
    size_t n = 0;
    cli_put_int(w->c, id);
    if (w->tokenizer && id < lp_tokenizer_size(w->tokenizer)) {
        const char *piece = lp_tokenizer_piece(w->tokenizer, id, &n);
        cli_put_bytes(w->c, piece, n);
    } else {
        cli_put_none(w->c);
    }
}

/* ---- opening ------------------------------------------------------------------------------------------------------ */

/* Ids without pieces are still an answer, so a missing tokenizer is only said. */
static void find_pieces(cli_query *w)
{
    char hash[33] = "";
    lp_error why = {.status = LP_OK};
    lp_status st = cli_find_tokenizer(&w->tokenizer, w->c, &why);
    if (st == LP_OK) st = lp_tokenizer_hash(hash, w->tokenizer, &why);
    if (st != LP_OK)
        lp_log(&w->c->env, LP_WARN, "tokens are shown as ids: %s", why.text);
    else if (strcmp(hash, lp_query_get_run(w->q)->tokenizer) != 0)
        lp_log(&w->c->env, LP_WARN, "tokens are shown as ids: the run has another tokenizer; name its model with -m");
    else
        return;
    lp_tokenizer_free(w->tokenizer);
    w->tokenizer = NULL;
}

static lp_status find_verb(const verb **out, cli *c, lp_error *err)
{
    const char *names[VERBS + 1] = {NULL}, *word = c->n_operands > 1 ? c->operands[1] : "";
    for (int i = 0; i < VERBS; i++) names[i] = verbs[i].name;
    for (int i = 0; i < VERBS; i++) {
        *out = &verbs[i];
        if (strcmp(verbs[i].name, word) != 0) continue;
        int n = c->n_operands - 2;
        if (n >= verbs[i].at_least && n <= verbs[i].at_most) return LP_OK;
        return cli_usage(c, err, "query STORE %s %s expected", verbs[i].name, verbs[i].operands);
    }
    const char *near = *word ? cli_nearest(word, names) : NULL;
    return cli_usage(c, err,
                     "query STORE \"%.40s\": expected feature, positions, where, active, text, labels, partners or "
                     "document%s%s%s",
                     word, near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    cli_query w = {.c = c, .top = 20, .around = 12};
    const cli_option options[] = {
        {"run", 0, CLI_TEXT, &w.run, "HASH", "which run, by how its hash begins (default: the only one)"},
        {"top", 'k', CLI_INT, &w.top, "N", "lines at most (default 20); 0: all", .max = 1 << 30},
        {"above", 0, CLI_REAL, &w.above, "V", "positions: only values above V", .max = 1e30},
        {"quantiles", 0, CLI_INT, &w.quantiles, "N", "feature: N places from each fifth of its range", .max = 100},
        {"around", 0, CLI_INT, &w.around, "N", "tokens of context before and after (default 12)",
         .max = LP_CONTEXT_MOST},
        {"position", 0, CLI_INT, &w.position, "N", "active: the features of token N of the run", .max = INT_MAX,
         .is_given = &w.has_position},
        {"with", 0, CLI_TEXT, &w.with, "SAE", "partners: in another SAE than its own, or all"},
        {"sample", 0, CLI_INT, &w.sample, "N", "partners, active: rows looked at, evenly spaced (default 2000)",
         .min = 1, .max = 1 << 30},
        {"all", 0, CLI_FLAG, &w.all, NULL, "also on <bos> and other rows that count in no statistic"},
        {0},
    };
    const verb *v;
    LP_TRY(cli_parse(c, options, argc, argv, err));
    LP_TRY(find_verb(&v, c, err));
    lp_status st = lp_query_open(&w.q, c->operands[0], w.run, &c->env, err);
    if (st == LP_OK) {
        find_pieces(&w);
        st = v->run(&w, c->operands + 2, c->n_operands - 2, err);
    }
    lp_tokenizer_free(w.tokenizer);
    lp_query_close(w.q);
    return st;
}

const cli_command cmd_query = {
    .name = "query",
    .summary = "where features fire in a store, with what, and on what text",
    .operands = "STORE VERB OPERAND...",
    .about =
        "feature SAE INDEX     counts, density, histogram, and the strongest places: 2 of a document at most\n"
        "positions SAE INDEX   every place it fires at\n"
        "where EXPRESSION      places where a condition holds: 'A:3 > 5 and B:7 within 10, not C:1', with and, or, "
        "not,\n"
        "                      ( ), a comma for and; SAE:INDEX fires, or with > >= < <= V; label \"WORDS\"; token ID "
        "or\n"
        "                      token \"TEXT\"; X within N, X before N, X after N: tokens away in the same document\n"
        "active TOKEN          what fires on a token of the vocabulary, text or id; --position N: on one place\n"
        "text WORDS            documents with all the words; \"a phrase\", a begin*\n"
        "labels WORDS          features that are called so\n"
        "partners SAE INDEX    what fires together with it: counts, pmi and jaccard against the whole run\n"
        "document KEY          all activations of a document, by its key or number",
    .run = run,
};
