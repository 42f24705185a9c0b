/* query_text.c - see query.h: words in documents and labels.
 *
 * What a user types never reaches FTS5 as its own language: every word is quoted, so AND, *, -, : are words or nothing.
 */
#include "store/query_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- words -------------------------------------------------------------------------------------------------------- */

lp_status lp_query_words(char **out, const char *words, lp_error *err)
{
    size_t n = strlen(words), at = 0;
    bool has_word = false;
    char *text = *out = lp_calloc(n + 1, 5); /* at worst one letter and a blank become five bytes */
    if (!text) return lp_fail(err, LP_E_MEMORY, "out of memory");
    for (const char *s = words; *s;) {
        s += strspn(s, " \t\r\n");
        if (!*s) break;
        bool is_phrase = *s == '"';
        size_t len = is_phrase ? strcspn(s + 1, "\"") : strcspn(s, " \t\r\n\"");
        const char *from = s + is_phrase;
        s = from + len + (is_phrase && from[len] == '"');
        bool is_begin = is_phrase ? *s == '*' : len > 1 && from[len - 1] == '*';
        if (is_phrase && is_begin) s++;
        if (!is_phrase && is_begin) len--;
        if (!len) continue;
        text[at++] = '"';
        memcpy(text + at, from, len), at += len;
        text[at++] = '"';
        if (is_begin) text[at++] = '*';
        text[at++] = ' ';
        has_word = true;
    }
    if (has_word) return LP_OK;
    free(text);
    *out = NULL;
    return lp_fail(err, LP_E_RANGE, "no word to look for");
}

/* ---- documents ---------------------------------------------------------------------------------------------------- */

void lp_passages_free(lp_passages *p)
{
    if (!p) return;
    for (size_t i = 0; i < p->n; i++) free(p->items[i].key), free(p->items[i].snippet);
    free(p->items);
    *p = (lp_passages){0};
}

/* The rows of s: document, token, first_token, n_tokens, key, snippet. */
static lp_status collect(lp_passages *out, lp_sql_statement *s, lp_error *err)
{
    bool has_row = false;
    lp_status st;
    while ((st = lp_sql_step(s, &has_row, err)) == LP_OK && has_row) {
        if (!lp_grow((void **)&out->items, &out->capacity, out->n + 1, sizeof *out->items))
            return lp_fail(err, LP_E_MEMORY, "out of memory");
        lp_passage *x = &out->items[out->n++];
        *x = (lp_passage){.document = lp_sql_int(s, 0),
                          .token = lp_sql_int(s, 1),
                          .first_token = lp_sql_int(s, 2),
                          .n_tokens = (int)lp_sql_int(s, 3),
                          .key = lp_strdup(lp_sql_text(s, 4)),
                          .snippet = lp_strdup(lp_sql_text(s, 5))};
        if (!x->key || !x->snippet) return lp_fail(err, LP_E_MEMORY, "out of memory");
    }
    return st;
}

static lp_status finish(lp_passages *out, lp_sql_statement *s, lp_status st)
{
    lp_sql_finish(s);
    if (st != LP_OK) lp_passages_free(out);
    return st;
}

lp_status lp_query_text(lp_passages *out, lp_query *q, const char *words, int limit, lp_error *err)
{
    lp_sql_statement s = {0};
    char *match = NULL;
    *out = (lp_passages){0};
    LP_TRY(lp_query_words(&match, words, err));
    lp_status st = lp_sql_prepare(&s, &q->c->sql,
                                  "SELECT document, token, first_token, n_tokens, key, "
                                  "snippet(passage_fts, 0, '[', ']', '...', 16) FROM passage_fts "
                                  "JOIN passage ON passage_id = passage_fts.rowid WHERE passage_fts MATCH ?1 "
                                  "AND passage_fts.rowid BETWEEN ?2 AND ?3 ORDER BY passage_fts.rowid LIMIT ?4",
                                  err);
    if (st == LP_OK) {
        lp_sql_put_text(&s, 1, match, strlen(match));
        lp_sql_put_int(&s, 2, q->run_id << LP_PASSAGE_RUN);
        lp_sql_put_int(&s, 3, ((q->run_id + 1) << LP_PASSAGE_RUN) - 1);
        lp_sql_put_int(&s, 4, limit);
        st = collect(out, &s, err);
    }
    free(match);
    return finish(out, &s, st);
}

#define PASSAGE                                                                                                        \
    "SELECT document, token, first_token, n_tokens, key, substr(text, 1, 80) FROM passage WHERE run_id = ?1 "

lp_status lp_query_document(lp_passages *out, lp_query *q, const char *key, lp_error *err)
{
    lp_sql_statement s = {0};
    *out = (lp_passages){0};
    lp_status st = lp_sql_prepare(&s, &q->c->sql, PASSAGE "AND key = ?2 ORDER BY passage_id", err);
    if (st == LP_OK) {
        lp_sql_put_int(&s, 1, q->run_id);
        lp_sql_put_text(&s, 2, key, strlen(key));
        st = collect(out, &s, err);
    }
    if (st != LP_OK || out->n) return finish(out, &s, st);
    lp_sql_finish(&s);
    char *end;
    long long id = strtoll(key, &end, 10);
    if (end == key || *end) return lp_fail(err, LP_E_NOT_FOUND, "no document \"%.100s\" in this run", key);
    st = lp_sql_prepare(&s, &q->c->sql, PASSAGE "AND document = ?2 ORDER BY passage_id", err);
    if (st == LP_OK) {
        lp_sql_put_int(&s, 1, q->run_id);
        lp_sql_put_int(&s, 2, id);
        st = collect(out, &s, err);
    }
    if (st == LP_OK && !out->n) st = lp_fail(err, LP_E_NOT_FOUND, "no document \"%.100s\" in this run", key);
    return finish(out, &s, st);
}

lp_status lp_query_passage(lp_passages *out, lp_query *q, int64_t token, lp_error *err)
{
    lp_sql_statement s = {0};
    *out = (lp_passages){0};
    lp_status st = lp_sql_prepare(&s, &q->c->sql,
                                  PASSAGE "AND token <= ?2 AND n_tokens > 0 ORDER BY token DESC LIMIT 1", err);
    if (st == LP_OK) {
        lp_sql_put_int(&s, 1, q->run_id);
        lp_sql_put_int(&s, 2, token);
        st = collect(out, &s, err);
    }
    if (st == LP_OK && (!out->n || out->items[0].token + out->items[0].n_tokens <= token))
        st = lp_fail(err, LP_E_RANGE, "token %lld is in no shard of this run", (long long)token);
    return finish(out, &s, st);
}

/* ---- labels ------------------------------------------------------------------------------------------------------- */

void lp_found_labels_free(lp_found_labels *l)
{
    if (!l) return;
    for (size_t i = 0; i < l->n; i++) free(l->items[i].text), free(l->items[i].kind);
    free(l->items);
    *l = (lp_found_labels){0};
}

static lp_status add_label(lp_found_labels *out, const lp_query *q, const lp_sql_statement *s, lp_error *err)
{
    int sae = 0;
    while (sae < q->run.n_saes && q->saes[sae].id != lp_sql_int(s, 0)) sae++;
    if (sae == q->run.n_saes || lp_sql_int(s, 1) < 0 || lp_sql_int(s, 1) >= q->saes[sae].d_sae) return LP_OK;
    if (!lp_grow((void **)&out->items, &out->capacity, out->n + 1, sizeof *out->items))
        return lp_fail(err, LP_E_MEMORY, "out of memory");
    const char *kind = lp_sql_text(s, 3);
    lp_found_label *x = &out->items[out->n++];
    *x = (lp_found_label){.sae = sae,
                          .feature = (int)lp_sql_int(s, 1),
                          .text = lp_strdup(lp_sql_text(s, 2)),
                          .kind = kind[0] ? lp_strdup(kind) : NULL,
                          .n_active = lp_sql_int(s, 4),
                          .max = (float)lp_sql_real(s, 5)};
    return x->text ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
}

lp_status lp_query_labels(lp_found_labels *out, lp_query *q, const char *words, int limit, lp_error *err)
{
    lp_sql_statement s = {0};
    char *match = NULL;
    bool has_row = false;
    *out = (lp_found_labels){0};
    LP_TRY(lp_query_words(&match, words, err));
    lp_status st = lp_sql_prepare(
        &s, &q->c->sql,
        "SELECT sae.sae_id, label.feature, label.text, label.kind, n_active, max FROM label_fts "
        "JOIN label ON label_id = label_fts.rowid "
        "JOIN sae ON sae.hash = label.sae AND sae.run_id = ?2 "
        "LEFT JOIN feature ON feature.sae_id = sae.sae_id AND feature.feature = label.feature "
        "WHERE label_fts MATCH ?1 ORDER BY label_fts.rank, sae.place, label.feature LIMIT ?3",
        err);
    if (st == LP_OK) {
        lp_sql_put_text(&s, 1, match, strlen(match));
        lp_sql_put_int(&s, 2, q->run_id);
        lp_sql_put_int(&s, 3, limit);
    }
    while (st == LP_OK && (st = lp_sql_step(&s, &has_row, err)) == LP_OK && has_row) st = add_label(out, q, &s, err);
    lp_sql_finish(&s);
    free(match);
    if (st != LP_OK) lp_found_labels_free(out);
    return st;
}

lp_status lp_query_label(char **out, lp_query *q, int sae, int feature, lp_error *err)
{
    lp_sql_statement s = {0};
    bool has_row = false;
    *out = NULL;
    lp_status st = lp_sql_prepare(
        &s, &q->c->sql, "SELECT text FROM label WHERE sae = ? AND feature = ? ORDER BY label_id LIMIT 1", err);
    if (st == LP_OK) {
        lp_sql_put_text(&s, 1, q->saes[sae].hash, strlen(q->saes[sae].hash));
        lp_sql_put_int(&s, 2, feature);
        st = lp_sql_step(&s, &has_row, err);
    }
    if (st == LP_OK && has_row && !(*out = lp_strdup(lp_sql_text(&s, 0))))
        st = lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_sql_finish(&s);
    return st;
}
