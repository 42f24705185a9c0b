/* annotations_read.c - rows coming out; see annotations.h.  Their hashes and indices are checked again, since whoever can
 * write the file can write anything into a row. */
#include "store/annotations_parts.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void lp_annotation_rows_free(lp_annotation_rows *r)
{
    if (!r) return;
    for (size_t i = 0; i < r->n; i++) {
        lp_annotation *x = &r->items[i];
        free(x->sae), free(x->sae_name), free(x->text), free(x->author), free(x->method);
    }
    free(r->items);
    *r = (lp_annotation_rows){0};
}

/* False: out of memory. */
static bool copy_text(char **out, sqlite3_stmt *s, int column)
{
    const char *text = (const char *)sqlite3_column_text(s, column);
    *out = text ? lp_strdup(text) : NULL;
    return *out || !text;
}

/* Columns: id, sae, its name, feature, text, author, method, score, created. */
static lp_status take_row(lp_annotation_rows *out, const lp_annotations *a, sqlite3_stmt *s, lp_error *err)
{
    if (!lp_grow((void **)&out->items, &out->capacity, out->n + 1, sizeof *out->items))
        return lp_fail(err, LP_E_MEMORY, "%s: out of memory", a->path);
    lp_annotation *x = &out->items[out->n++];
    int64_t feature = sqlite3_column_int64(s, 3);
    *x = (lp_annotation){.id = sqlite3_column_int64(s, 0), .feature = (int)feature, .score = NAN};
    if (sqlite3_column_type(s, 7) != SQLITE_NULL) x->score = sqlite3_column_double(s, 7);
    x->created = sqlite3_column_int64(s, 8);
    bool fits = copy_text(&x->sae, s, 1) && copy_text(&x->sae_name, s, 2) && copy_text(&x->text, s, 4) &&
                copy_text(&x->author, s, 5) && copy_text(&x->method, s, 6);
    if (!fits) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", a->path);
    if (feature < 0 || feature > INT_MAX || !x->text)
        return lp_fail(err, LP_E_FORMAT, "%s: row %lld is of feature %lld; damaged", a->path, (long long)x->id,
                       (long long)feature);
    return LP_OK;
}

/* Drops the statement.  On failure *out is empty. */
static lp_status take_rows(lp_annotation_rows *out, const lp_annotations *a, sqlite3_stmt *s, lp_error *err)
{
    bool has;
    lp_status st;
    while ((st = lp_annotations_step(a, s, &has, err)) == LP_OK && has && (st = take_row(out, a, s, err)) == LP_OK)
        continue;
    sqlite3_finalize(s);
    if (st != LP_OK) lp_annotation_rows_free(out);
    return st;
}

#define COLUMNS "SELECT label_id, sae, name, feature, text, author, method, score, created FROM"
#define NAMED   " LEFT JOIN sae ON hash = sae"

lp_status lp_annotations_read(lp_annotation_rows *out, lp_annotations *a, const char *sae, int feature, lp_error *err)
{
    sqlite3_stmt *s;
    *out = (lp_annotation_rows){0};
    LP_TRY(lp_annotations_prepare(&s, a, err,
                                  COLUMNS " label" NAMED " WHERE sae = ifnull(?1, sae) AND (?2 < 0 OR feature = ?2)"
                                          " ORDER BY sae, feature, method = 'note', method <> 'person', label_id DESC",
                                  "ti", sae, (int64_t)feature));
    return take_rows(out, a, s, err);
}

/* Each word in quotes, so that AND, *, - and : are words too; NULL: out of memory. */
static char *quote_words(const char *words)
{
    char *out = lp_calloc(4 * strlen(words) + 1, 1), *to = out;
    bool is_open = false;
    for (; out && *words; words++) {
        bool is_gap = strchr(" \t\r\n", *words) != NULL;
        if (is_gap == is_open) *to++ = '"', is_open = !is_gap;
        if (is_gap)
            *to++ = ' ';
        else if (*words == '"')
            *to++ = '"', *to++ = '"';
        else
            *to++ = *words;
    }
    if (is_open) *to++ = '"';
    return out;
}

lp_status lp_annotations_search(lp_annotation_rows *out, lp_annotations *a, const char *words, int most, lp_error *err)
{
    sqlite3_stmt *s = NULL;
    *out = (lp_annotation_rows){0};
    char *match = quote_words(words);
    lp_status st = !match ? lp_fail(err, LP_E_MEMORY, "out of memory") : LP_OK;
    if (st == LP_OK && !strchr(match, '"')) st = lp_fail(err, LP_E_RANGE, "no word to search for");
    if (st == LP_OK)
        st = lp_annotations_prepare(&s, a, err,
                                    COLUMNS " (SELECT rowid, rank FROM label_fts WHERE label_fts MATCH ?1 ORDER BY rank"
                                            " LIMIT ?2) AS hit JOIN label ON label_id = hit.rowid" NAMED
                                            " ORDER BY hit.rank, label_id",
                                    "ti", match, (int64_t)most);
    if (st == LP_OK) st = take_rows(out, a, s, err);
    free(match);
    return st;
}

lp_status lp_annotations_read_list(lp_annotation_rows *out, lp_annotations *a, const char *list, lp_error *err)
{
    sqlite3_stmt *s;
    *out = (lp_annotation_rows){0};
    LP_TRY(lp_annotations_prepare(
        &s, a, err,
        "SELECT place, sae, name, feature, remark, NULL, NULL, NULL, created FROM list_item" NAMED
        " WHERE list = ? ORDER BY place, item_id",
        "t", list));
    LP_TRY(take_rows(out, a, s, err));
    return out->n ? LP_OK : lp_fail(err, LP_E_NOT_FOUND, "%s: no list \"%.80s\" in it", a->path, list);
}

lp_status lp_annotations_read_lists(lp_annotation_rows *out, lp_annotations *a, lp_error *err)
{
    sqlite3_stmt *s;
    *out = (lp_annotation_rows){0};
    LP_TRY(lp_annotations_prepare(&s, a, err,
                                  "SELECT 0, NULL, NULL, count(*), list, NULL, NULL, NULL, min(created) FROM list_item"
                                  " GROUP BY list ORDER BY list",
                                  ""));
    return take_rows(out, a, s, err);
}

lp_status lp_annotations_overlay(lp_labels *l, lp_annotations *a, const lp_sae *s, lp_error *err)
{
    lp_annotation_rows rows;
    LP_TRY(lp_annotations_read(&rows, a, s->hash, -1, err));
    lp_status st = LP_OK;
    int last = -1;
    for (size_t i = 0; i < rows.n && st == LP_OK; i++) {
        const lp_annotation *x = &rows.items[i];
        bool is_name = x->feature < s->d_sae && x->feature != last && strcmp(x->method, LP_METHOD_NOTE) != 0;
        if (!is_name) continue;
        last = x->feature;
        st = lp_labels_put(l, s->d_sae, x->feature, x->text,
                           strcmp(x->method, LP_METHOD_PERSON) == 0 ? NULL : x->method, err);
    }
    lp_annotation_rows_free(&rows);
    return st;
}
