/* query_feature.c - `lapidary query`: one feature, its places; conditions. */
#include "cli/query.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PARTS = 5, BAR = 40 };

/* ---- feature: rows of (what, rank, value, token, document, pos, text) ---------------------------------------------- */

static void put_empty(cli *c, int n)
{
    for (int i = 0; i < n; i++) cli_put_none(c);
}

static void put_figure(const cli_query *w, const char *what, double value, const char *text)
{
    cli_put_text(w->c, what);
    put_empty(w->c, 1);
    cli_put_real(w->c, value, 6);
    put_empty(w->c, 3);
    cli_put_text(w->c, text);
}

static lp_status put_place(const cli_query *w, const char *what, int rank, int64_t token, float value, lp_error *err)
{
    char *text;
    int pos;
    int64_t document;
    LP_TRY(cli_query_context(&text, &pos, &document, w, token, err));
    cli_put_text(w->c, what);
    cli_put_int(w->c, rank);
    cli_put_real(w->c, (double)value, 6);
    cli_put_int(w->c, token);
    cli_put_int(w->c, document);
    cli_put_int(w->c, pos);
    cli_put_text(w->c, text);
    free(text);
    return LP_OK;
}

static void put_figures(const cli_query *w, int sae, int feature, const lp_tally *t)
{
    const lp_query_run *run = lp_query_get_run(w->q);
    double n = (double)t->n_active, sum = lp_exact_value(&t->sum), sumsq = lp_exact_value(&t->sumsq);
    char *label = NULL;
    put_figure(w, "sae", feature, run->saes[sae].name);
    if (lp_query_label(&label, w->q, sae, feature, NULL) == LP_OK && label) put_figure(w, "label", feature, label);
    free(label);
    put_figure(w, "rows", (double)run->n_counted, NULL);
    put_figure(w, "active", n, NULL);
    put_figure(w, "density", run->n_counted ? n / (double)run->n_counted : 0, NULL);
    put_figure(w, "documents", (double)t->n_docs, NULL);
    if (!t->n_active) return;
    put_figure(w, "mean", sum / n, NULL);
    put_figure(w, "std", sqrt(fmax(0, sumsq / n - sum / n * (sum / n))), NULL);
    put_figure(w, "max", (double)t->max, NULL);
}

/* A bar for each quarter octave from the first to the last that is not empty; rank is the bin. */
static void put_histogram(const cli_query *w, const lp_tally *t)
{
    int first = LP_TALLY_BINS, last = -1;
    uint64_t most = 1;
    for (int i = 0; i < LP_TALLY_BINS; i++) {
        if (!t->hist[i]) continue;
        if (first == LP_TALLY_BINS) first = i;
        last = i;
        if (t->hist[i] > most) most = t->hist[i];
    }
    for (int i = first; i <= last; i++) {
        char text[BAR + 64];
        int n = snprintf(text, sizeof text, "%8.3g - %-8.3g ", exp2((i - 16) / 4.0), exp2((i - 15) / 4.0));
        int bar = (int)ceil((double)t->hist[i] * BAR / (double)most);
        memset(text + n, '#', (size_t)bar);
        text[n + bar] = '\0';
        cli_put_text(w->c, "bin");
        cli_put_int(w->c, i);
        cli_put_int(w->c, (int64_t)t->hist[i]);
        put_empty(w->c, 3);
        cli_put_text(w->c, text);
    }
}

static lp_status put_quantiles(const cli_query *w, int sae, int feature, lp_error *err)
{
    lp_hits every = {0}, chosen = {0};
    int *part = lp_calloc(PARTS * (size_t)w->quantiles + 1, sizeof *part);
    lp_status st = part ? lp_query_positions(&every, w->q, sae, feature, 0, w->all, err)
                        : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = lp_query_quantiles(&chosen, part, &every, PARTS, w->quantiles, err);
    for (size_t i = 0; st == LP_OK && i < chosen.n; i++)
        st = put_place(w, "fifth", part[i] + 1, chosen.token[i], chosen.value[i], err);
    lp_hits_free(&every), lp_hits_free(&chosen);
    free(part);
    return st;
}

lp_status cli_query_feature(cli_query *w, char **operands, int n, lp_error *err)
{
    int sae, feature;
    lp_tally t;
    (void)n;
    LP_TRY(cli_query_which(&sae, &feature, w, operands, err));
    LP_TRY(lp_query_feature(&t, w->q, sae, feature, err));
    cli_table_begin(w->c, "what\trank\tvalue\ttoken\tdocument\tpos\ttext");
    put_figures(w, sae, feature, &t);
    put_histogram(w, &t);
    lp_status st = LP_OK;
    for (int i = 0; i < t.n_top && (!w->top || i < w->top) && st == LP_OK; i++)
        st = put_place(w, "top", i + 1, t.top[i].token, t.top[i].value, err);
    if (st == LP_OK && w->quantiles) st = put_quantiles(w, sae, feature, err);
    cli_table_end(w->c);
    return st;
}

/* ---- places ------------------------------------------------------------------------------------------------------- */

static lp_status put_hits(const cli_query *w, const lp_hits *h, bool has_value, lp_error *err)
{
    lp_status st = LP_OK;
    cli_table_begin(w->c, has_value ? "token\tdocument\tpos\tvalue\ttext" : "token\tdocument\tpos\ttext");
    for (size_t i = 0; i < h->n && (!w->top || i < (size_t)w->top) && st == LP_OK; i++) {
        char *text = NULL;
        int pos = 0;
        int64_t document = 0;
        st = cli_query_context(&text, &pos, &document, w, h->token[i], err);
        if (st != LP_OK) break;
        cli_put_int(w->c, h->token[i]);
        cli_put_int(w->c, document);
        cli_put_int(w->c, pos);
        if (has_value) cli_put_real(w->c, (double)h->value[i], 9);
        cli_put_text(w->c, text);
        free(text);
    }
    cli_table_end(w->c);
    return st;
}

static void say_more(const cli_query *w, int64_t shown, int64_t total)
{
    if (total > shown)
        lp_log(&w->c->env, LP_INFO, "%lld of %lld places; -k 0 shows all", (long long)shown, (long long)total);
}

lp_status cli_query_positions(cli_query *w, char **operands, int n, lp_error *err)
{
    int sae, feature;
    lp_hits h = {0};
    (void)n;
    LP_TRY(cli_query_which(&sae, &feature, w, operands, err));
    lp_status st = lp_query_positions(&h, w->q, sae, feature, (float)w->above, w->all, err);
    if (st == LP_OK) st = put_hits(w, &h, true, err);
    if (st == LP_OK && w->top) say_more(w, w->top, (int64_t)h.n);
    lp_hits_free(&h);
    return st;
}

lp_status cli_query_where(cli_query *w, char **operands, int n, lp_error *err)
{
    const lp_where_options o = {.tokenizer = w->tokenizer, .all = w->all, .limit = (size_t)w->top};
    lp_hits h = {0};
    int64_t total;
    (void)n;
    lp_status st = lp_query_where(&h, &total, w->q, operands[0], &o, err);
    if (st == LP_OK) st = put_hits(w, &h, false, err);
    if (st == LP_OK) say_more(w, (int64_t)h.n, total);
    lp_hits_free(&h);
    return st;
}
