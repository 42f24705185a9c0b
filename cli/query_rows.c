/* query_rows.c - `lapidary query`: what fires together, on a token, in a document; words. */
#include "cli/query.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- together ----------------------------------------------------------------------------------------------------- */

/* Of partners, `skip` left out. */
static void put_partners(const cli_query *w, const lp_partners *p, int skip_sae, int skip_feature)
{
    const lp_query_run *run = lp_query_get_run(w->q);
    int64_t shown = 0;
    cli_table_begin(w->c, "sae\tindex\ttogether\tof\tshare\tmean\tmax\tactive\tpmi\tjaccard\tlabel");
    for (size_t i = 0; i < p->n && (!w->top || shown < w->top); i++) {
        const lp_partner *x = &p->items[i];
        if (x->sae == skip_sae && x->feature == skip_feature) continue;
        shown++;
        cli_put_text(w->c, run->saes[x->sae].name);
        cli_put_int(w->c, x->feature);
        cli_put_int(w->c, x->together);
        cli_put_int(w->c, p->looked_at);
        cli_put_real(w->c, (double)x->together / (double)p->looked_at, 5);
        cli_put_real(w->c, x->sum / (double)x->together, 6);
        cli_put_real(w->c, (double)x->max, 6);
        cli_put_int(w->c, x->n_active);
        cli_put_real(w->c, x->pmi, 5);
        cli_put_real(w->c, x->jaccard, 5);
        cli_put_label(w, x->sae, x->feature);
    }
    cli_table_end(w->c);
    if (p->looked_at < p->rows)
        lp_log(&w->c->env, LP_INFO, "from %lld of its %lld rows, evenly spaced; --sample looks at more",
               (long long)p->looked_at, (long long)p->rows);
}

lp_status cli_query_partners(cli_query *w, char **operands, int n, lp_error *err)
{
    int sae, feature, other = -1;
    const lp_query_run *run = lp_query_get_run(w->q);
    lp_partners p = {0};
    lp_hits rows = {0};
    (void)n;
    LP_TRY(cli_query_which(&sae, &feature, w, operands, err));
    bool is_all = w->with && strcmp(w->with, "all") == 0;
    if (w->with && !is_all) LP_TRY(lp_query_find_sae(&other, w->q, w->with, err));
    bool *saes = lp_calloc((size_t)run->n_saes, sizeof *saes);
    if (!saes) return lp_fail(err, LP_E_MEMORY, "out of memory");
    saes[other >= 0 ? other : sae] = true;
    lp_status st = lp_query_positions(&rows, w->q, sae, feature, (float)w->above, w->all, err);
    if (st == LP_OK) st = lp_query_partners(&p, w->q, &rows, is_all ? NULL : saes, w->sample, err);
    if (st == LP_OK) put_partners(w, &p, sae, feature);
    lp_partners_free(&p);
    lp_hits_free(&rows);
    free(saes);
    return st;
}

/* ---- on a token --------------------------------------------------------------------------------------------------- */

/* An id, or text that is one token as it stands or with a blank before it. */
static lp_status find_token(int *id, const cli_query *w, const char *text, lp_error *err)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (end != text && !*end && !errno && v >= 0 && v < lp_query_get_run(w->q)->vocab) {
        *id = (int)v;
        return LP_OK;
    }
    if (!w->tokenizer) return lp_fail(err, LP_E_UNSUPPORTED, "token \"%.60s\": without a tokenizer, give its id", text);
    char *tries[2] = {lp_format("\xE2\x96\x81%s", text + (text[0] == ' ')), lp_strdup(text)};
    *id = -1;
    for (int i = 0; i < 2; i++) {
        if (*id < 0 && tries[i]) *id = lp_tokenizer_find(w->tokenizer, tries[i]);
        free(tries[i]);
    }
    return *id >= 0 ? LP_OK : lp_fail(err, LP_E_NOT_FOUND, "\"%.60s\" is not one token of the vocabulary", text);
}

static void put_row(const cli_query *w, int sae, const lp_features *f)
{
    for (size_t at = 0; at < f->start[f->n_rows]; at++) {
        cli_put_text(w->c, lp_query_get_run(w->q)->saes[sae].name);
        cli_put_int(w->c, f->index[at]);
        cli_put_real(w->c, (double)f->value[at], 9);
        cli_put_label(w, sae, f->index[at]);
    }
}

static lp_status at_position(const cli_query *w, lp_error *err)
{
    lp_features f = {0};
    lp_status st = LP_OK;
    cli_table_begin(w->c, "sae\tindex\tvalue\tlabel");
    for (int i = 0; i < lp_query_get_run(w->q)->n_saes && st == LP_OK; i++) {
        st = lp_query_row(&f, w->q, i, w->position, err);
        if (st == LP_OK) put_row(w, i, &f);
    }
    cli_table_end(w->c);
    lp_features_free(&f);
    return st;
}

lp_status cli_query_active(cli_query *w, char **operands, int n, lp_error *err)
{
    lp_hits rows = {0};
    lp_partners p = {0};
    int id = -1;
    if (n + w->has_position != 1) return cli_usage(w->c, err, "query STORE active: a token, or --position N");
    if (w->has_position) {
        lp_context there;
        LP_TRY(lp_query_context(&there, w->q, w->position, 0, 0, err)); /* says what is wrong before the table */
        return at_position(w, err);
    }
    LP_TRY(find_token(&id, w, operands[0], err));
    lp_status st = lp_query_token(&rows, w->q, id, w->all, err);
    if (st == LP_OK) st = lp_query_partners(&p, w->q, &rows, NULL, w->sample, err);
    if (st == LP_OK) put_partners(w, &p, -1, -1);
    lp_partners_free(&p);
    lp_hits_free(&rows);
    return st;
}

/* ---- in a document ------------------------------------------------------------------------------------------------ */

/* The features of one token, one line each, with what it is. */
static lp_status put_token_rows(const cli_query *w, const lp_passage *p, int at, lp_features *f, lp_error *err)
{
    lp_context x;
    LP_TRY(lp_query_context(&x, w->q, p->token + at, 0, 0, err));
    if (x.excluded && !w->all) return LP_OK;
    for (int sae = 0; sae < lp_query_get_run(w->q)->n_saes; sae++) {
        LP_TRY(lp_query_row(f, w->q, sae, p->token + at, err));
        for (size_t k = 0; k < f->start[1]; k++) {
            cli_put_int(w->c, p->token + at);
            cli_put_int(w->c, p->first_token + at);
            cli_put_int(w->c, x.pos);
            cli_put_token(w, x.id[0]);
            cli_put_text(w->c, lp_query_get_run(w->q)->saes[sae].name);
            cli_put_int(w->c, f->index[k]);
            cli_put_real(w->c, (double)f->value[k], 9);
        }
    }
    return LP_OK;
}

lp_status cli_query_document(cli_query *w, char **operands, int n, lp_error *err)
{
    lp_passages parts;
    lp_features f = {0};
    (void)n;
    LP_TRY(lp_query_document(&parts, w->q, operands[0], err));
    lp_status st = LP_OK;
    cli_table_begin(w->c, "token\tin_document\tpos\tid\tpiece\tsae\tindex\tvalue");
    for (size_t i = 0; i < parts.n && st == LP_OK; i++)
        for (int at = 0; at < parts.items[i].n_tokens && st == LP_OK; at++)
            st = put_token_rows(w, &parts.items[i], at, &f, err);
    cli_table_end(w->c);
    lp_features_free(&f);
    lp_passages_free(&parts);
    return st;
}

/* ---- words -------------------------------------------------------------------------------------------------------- */

lp_status cli_query_text(cli_query *w, char **operands, int n, lp_error *err)
{
    lp_passages p;
    (void)n;
    LP_TRY(lp_query_text(&p, w->q, operands[0], w->top ? w->top : INT_MAX, err));
    cli_table_begin(w->c, "document\tkey\ttoken\ttokens\ttext");
    for (size_t i = 0; i < p.n; i++) {
        cli_put_int(w->c, p.items[i].document);
        cli_put_text(w->c, p.items[i].key);
        cli_put_int(w->c, p.items[i].token);
        cli_put_int(w->c, p.items[i].n_tokens);
        cli_put_text(w->c, p.items[i].snippet);
    }
    cli_table_end(w->c);
    lp_passages_free(&p);
    return LP_OK;
}

lp_status cli_query_labels(cli_query *w, char **operands, int n, lp_error *err)
{
    const lp_query_run *run = lp_query_get_run(w->q);
    lp_found_labels l;
    (void)n;
    LP_TRY(lp_query_labels(&l, w->q, operands[0], w->top ? w->top : INT_MAX, err));
    cli_table_begin(w->c, "sae\tindex\tactive\tmax\tkind\tlabel");
    for (size_t i = 0; i < l.n; i++) {
        const lp_found_label *x = &l.items[i];
        cli_put_text(w->c, run->saes[x->sae].name);
        cli_put_int(w->c, x->feature);
        cli_put_int(w->c, x->n_active);
        cli_put_real(w->c, (double)x->max, 6);
        cli_put_text(w->c, x->kind);
        cli_put_text(w->c, x->text);
    }
    cli_table_end(w->c);
    lp_found_labels_free(&l);
    return LP_OK;
}
