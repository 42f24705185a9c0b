/* annotations_exchange.c - labels out of and into other programs' files; see annotations.h. */
#include "store/annotations_parts.h"

#include "core/outfile.h"
#include "sae/csv.h"
#include "sae/jsonl.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 1 << 30 };

/* ---- CSV ---------------------------------------------------------------------------------------------------------- */

enum { SAE, FEATURE, TEXT, AUTHOR, METHOD, SCORE, CREATED, N_COLUMNS };
static const char *const columns[N_COLUMNS] = {"sae_hash", "feature", "text", "author", "method", "score", "created"};

typedef struct table {
    lp_csv csv;
    int column[N_COLUMNS]; /* -1: not there */
    const char *path;
    const lp_sae *s;
    const char *author;
} table;

static lp_status wrong(const table *t, lp_error *err, const char *what, const char *value)
{
    return lp_fail(err, LP_E_FORMAT, "%s, line %d: %s \"%.40s\"", t->path, t->csv.line, what, value);
}

static lp_status find_columns(table *t, lp_error *err)
{
    for (int c = 0; c < N_COLUMNS; c++) {
        t->column[c] = -1;
        for (int i = 0; i < t->csv.n; i++) {
            if (strcmp(t->csv.field[i], columns[c]) != 0) continue;
            if (t->column[c] >= 0) return wrong(t, err, "two columns are called", columns[c]);
            t->column[c] = i;
        }
    }
    if (t->column[FEATURE] < 0 || t->column[TEXT] < 0)
        return lp_fail(err, LP_E_FORMAT, "%s: its first line names no columns \"feature\" and \"text\"", t->path);
    if (t->column[SAE] < 0 && !t->s)
        return lp_fail(err, LP_E_FORMAT, "%s: no column sae_hash: of which SAE?  --sae NAME", t->path);
    return LP_OK;
}

/* NULL: absent or empty */
static const char *cell(const table *t, int c)
{
    const char *text = t->column[c] < 0 ? "" : t->csv.field[t->column[c]];
    return *text ? text : NULL;
}

static lp_status get_whole(int64_t *out, const table *t, int c, int64_t most, lp_error *err)
{
    const char *text = cell(t, c);
    char *end = NULL;
    errno = 0;
    long long v = text ? strtoll(text, &end, 10) : -1;
    if (!text || errno || *end || v < 0 || v > most) return wrong(t, err, columns[c], text ? text : "");
    *out = v;
    return LP_OK;
}

static lp_status get_score(double *out, const table *t, lp_error *err)
{
    const char *text = cell(t, SCORE);
    char *end = NULL;
    *out = NAN;
    if (!text) return LP_OK;
    *out = strtod(text, &end);
    return *end || !isfinite(*out) ? wrong(t, err, "score", text) : LP_OK;
}

static lp_status take_csv_row(lp_annotations *a, const table *t, lp_error *err)
{
    int64_t feature = 0, created = 0;
    const char *sae = cell(t, SAE), *author = cell(t, AUTHOR), *text = cell(t, TEXT);
    lp_new_label l = {.sae = sae ? sae : t->s ? t->s->hash : "", .author = author ? author : t->author};
    LP_TRY(get_whole(&feature, t, FEATURE, INT_MAX, err));
    if (cell(t, CREATED)) LP_TRY(get_whole(&created, t, CREATED, INT64_MAX, err));
    LP_TRY(get_score(&l.score, t, err));
    if (t->s && strcmp(l.sae, t->s->hash) == 0 && feature >= t->s->d_sae)
        return wrong(t, err, "this SAE has no feature", cell(t, FEATURE));
    l.feature = (int)feature, l.created = created, l.text = text ? text : "", l.method = cell(t, METHOD);
    lp_status st = lp_annotations_add(a, &l, err);
    if (st != LP_E_RANGE || !err) return st;
    char *why = lp_format("%s, line %d", t->path, t->csv.line);
    lp_prefix(err, st, why ? why : t->path);
    free(why);
    return err->status = LP_E_FORMAT;
}

static lp_status take_csv(lp_annotations *a, table *t, int *n, lp_error *err)
{
    bool has;
    lp_status st = lp_csv_next(&t->csv, &has, err);
    if (st == LP_OK)
        st = find_columns(t, err);
    else
        lp_prefix(err, st, t->path);
    while (st == LP_OK) {
        if ((st = lp_csv_next(&t->csv, &has, err)) != LP_OK) return lp_prefix(err, st, t->path);
        if (!has) break;
        st = take_csv_row(a, t, err);
        *n += 1;
    }
    return st;
}

lp_status lp_annotations_read_csv(lp_annotations *a, const char *path, const lp_sae *s, const char *author, int *n,
                                  lp_error *err)
{
    table t = {.path = path, .s = s, .author = author};
    char *text = NULL;
    size_t size = 0;
    *n = 0;
    LP_TRY(lp_read_file(&text, &size, path, MOST_BYTES, err));
    lp_csv_begin(&t.csv, text, size);
    lp_status st = take_csv(a, &t, n, err);
    lp_csv_end(&t.csv);
    free(text);
    return st;
}

/* ---- Neuronpedia -------------------------------------------------------------------------------------------------- */

/* Who and by what: explanationModelName and typeName; a row without typeName is a person's. */
static lp_status take_explanation(lp_annotations *a, const lp_jsonl *j, const json_t *row, const lp_sae *s, int *n,
                                  lp_error *err)
{
    const char *text = json_string_value(json_object_get(row, "description"));
    const char *author = json_string_value(json_object_get(row, "author"));
    if (!author) author = json_string_value(json_object_get(row, "explanationModelName"));
    long long i = lp_jsonl_index(row);
    if (i < 0) return lp_jsonl_wrong(j, err, "no \"index\" of a feature");
    if (i >= s->d_sae) return lp_jsonl_wrong(j, err, "feature %lld, but this SAE has %d", i, s->d_sae);
    if (!text || !*text) return LP_OK;
    const json_t *score = json_object_get(row, "score");
    lp_new_label l = {.sae = s->hash,
                      .feature = (int)i,
                      .text = text,
                      .author = author && *author ? author : "neuronpedia",
                      .method = json_string_value(json_object_get(row, "typeName")),
                      .score = json_is_number(score) ? json_number_value(score) : (double)NAN};
    if (l.method && !*l.method) l.method = NULL;
    *n += 1;
    lp_error why = {0};
    lp_status st = lp_annotations_add(a, &l, &why);
    if (st == LP_E_RANGE) return lp_jsonl_wrong(j, err, "%s", why.text);
    return st == LP_OK ? st : lp_fail(err, st, "%s", why.text);
}

static lp_status take_file(lp_annotations *a, const char *path, const lp_sae *s, int *n, lp_error *err)
{
    lp_jsonl j;
    json_t *row = NULL;
    LP_TRY(lp_jsonl_open(&j, path, err));
    lp_status st;
    while ((st = lp_jsonl_next(&j, &row, err)) == LP_OK && row) {
        st = take_explanation(a, &j, row, s, n, err);
        json_decref(row);
        if (st != LP_OK) break;
    }
    lp_jsonl_close(&j);
    return st;
}

static int is_batch(const struct dirent *e)
{
    return lp_ends_in(e->d_name, ".jsonl") || lp_ends_in(e->d_name, ".jsonl.gz");
}

static lp_status take_folder(lp_annotations *a, const char *folder, const lp_sae *s, int *n, lp_error *err)
{
    struct dirent **names = NULL;
    char *dir = lp_path_join(folder, "explanations");
    if (!dir) return lp_fail(err, LP_E_MEMORY, "out of memory");
    int found = scandir(dir, &names, is_batch, alphasort);
    lp_status st = found > 0 ? LP_OK : lp_fail(err, LP_E_NOT_FOUND, "%s: no explanations/*.jsonl(.gz) in it", folder);
    for (int i = 0; i < found; i++) {
        char *path = st == LP_OK ? lp_path_join(dir, names[i]->d_name) : NULL;
        if (st == LP_OK) st = path ? take_file(a, path, s, n, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
        free(path), free(names[i]);
    }
    free(names), free(dir);
    return st;
}

lp_status lp_annotations_read_neuronpedia(lp_annotations *a, const char *path, const lp_sae *s, int *n, lp_error *err)
{
    *n = 0;
    return lp_is_dir(path) ? take_folder(a, path, s, n, err) : take_file(a, path, s, n, err);
}

/* ---- out ---------------------------------------------------------------------------------------------------------- */

static lp_status write_csv_row(lp_outfile *f, const char *const *cells, int n, char **line, size_t *room, lp_error *err)
{
    size_t used = 0;
    for (int i = 0; i < n; i++)
        if (!lp_csv_put(line, &used, room, cells[i] ? cells[i] : "", i == n - 1))
            return lp_fail(err, LP_E_MEMORY, "%s: out of memory", f->path);
    return lp_outfile_write(f, *line, used, err);
}

static lp_status write_csv(lp_outfile *f, const lp_annotation_rows *rows, lp_error *err)
{
    static const char *const head[] = {"sae_hash", "sae", "feature", "text", "author", "method", "score", "created"};
    char *line = NULL, feature[16], score[40], created[24];
    size_t room = 0;
    lp_status st = write_csv_row(f, head, 8, &line, &room, err);
    for (size_t i = 0; i < rows->n && st == LP_OK; i++) {
        const lp_annotation *x = &rows->items[i];
        snprintf(feature, sizeof feature, "%d", x->feature);
        snprintf(score, sizeof score, isnan(x->score) ? "" : "%.17g", x->score);
        snprintf(created, sizeof created, "%lld", (long long)x->created);
        const char *cells[] = {x->sae, x->sae_name, feature, x->text, x->author, x->method, score, created};
        st = write_csv_row(f, cells, 8, &line, &room, err);
    }
    free(line);
    return st;
}

static lp_status write_json_row(lp_outfile *f, const lp_annotation *x, lp_error *err)
{
    char index[16];
    snprintf(index, sizeof index, "%d", x->feature);
    bool is_person = x->method && strcmp(x->method, LP_METHOD_PERSON) == 0;
    json_t *j = json_pack("{s:s, s:s, s:s*, s:s, s:s?, s:I}", "index", index, "description", x->text, "typeName",
                          is_person ? NULL : x->method, "sae_hash", x->sae, "sae", x->sae_name, "created",
                          (json_int_t)x->created);
    int bad = !j || json_object_set_new(j, "author", x->author ? json_string(x->author) : json_null()) != 0;
    bad = bad || json_object_set_new(j, "score", isnan(x->score) ? json_null() : json_real(x->score)) != 0;
    char *text = bad ? NULL : json_dumps(j, JSON_COMPACT);
    json_decref(j);
    if (!text) return lp_fail(err, LP_E_MEMORY, "%s: out of memory, or a label that is not UTF-8", f->path);
    lp_status st = lp_outfile_write(f, text, strlen(text), err);
    free(text);
    return st == LP_OK ? lp_outfile_write(f, "\n", 1, err) : st;
}

lp_status lp_annotations_write(const lp_annotation_rows *rows, const char *path, bool is_jsonl, lp_error *err)
{
    lp_outfile f;
    LP_TRY(lp_outfile_open(&f, path, err));
    lp_status st = is_jsonl ? LP_OK : write_csv(&f, rows, err);
    for (size_t i = 0; i < rows->n && is_jsonl && st == LP_OK; i++) st = write_json_row(&f, &rows->items[i], err);
    if (st == LP_OK) st = lp_outfile_end(&f, err);
    lp_outfile_close(&f);
    return st;
}
