/* labels.c - see labels.h. */
#include "sae/labels.h"

#include "core/data.h"
#include "sae/jsonl.h"

#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct reading {
    lp_labels *l;
    const lp_jsonl *at;
    lp_error *err;
} reading;

/* ---- one row ----------------------------------------------------------------------------------------------------- */

static lp_status find_feature(const reading *r, const json_t *row, lp_label **out)
{
    long long i = lp_jsonl_index(row);
    if (i < 0) return lp_jsonl_wrong(r->at, r->err, "no \"index\" of a feature");
    if (i >= r->l->n)
        return lp_jsonl_wrong(r->at, r->err, "feature %lld, but this SAE has %d; labels of another width?", i, r->l->n);
    *out = &r->l->items[i];
    return LP_OK;
}

static bool is_automatic(const char *kind)
{
    static const char *const starts[] = {"lapidary_auto", "oai_", "np_", "eleuther_"};
    for (size_t i = 0; kind && i < sizeof starts / sizeof *starts; i++)
        if (strncmp(kind, starts[i], strlen(starts[i])) == 0) return true;
    return false;
}

static lp_status take_explanation(const reading *r, const json_t *row)
{
    lp_label *at;
    LP_TRY(find_feature(r, row, &at));
    const char *text = json_string_value(json_object_get(row, "description"));
    const char *kind = json_string_value(json_object_get(row, "typeName"));
    if (!text || !*text) return LP_OK;
    if (at->text && (is_automatic(kind) || !is_automatic(at->kind))) return LP_OK;
    return lp_labels_put(r->l, r->l->n, (int)(at - r->l->items), text, kind, r->err);
}

static lp_status take_feature(const reading *r, const json_t *row)
{
    lp_label *at;
    LP_TRY(find_feature(r, row, &at));
    const json_t *max = json_object_get(row, "maxActApprox"), *share = json_object_get(row, "frac_nonzero");
    if (json_is_number(max) && json_number_value(max) > 0) at->max = (float)json_number_value(max);
    if (json_is_number(share)) at->share = (float)json_number_value(share);
    return LP_OK;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

typedef lp_status (*take_fn)(const reading *r, const json_t *row);

static lp_status read_rows(lp_labels *l, const char *path, take_fn take, lp_error *err)
{
    lp_jsonl j;
    json_t *row = NULL;
    LP_TRY(lp_jsonl_open(&j, path, err));
    reading r = {.l = l, .at = &j, .err = err};
    lp_status st;
    while ((st = lp_jsonl_next(&j, &row, err)) == LP_OK && row) {
        st = take(&r, row);
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

/* Every batch of folder/part, in the order of their names; *n counts the files. */
static lp_status read_part(lp_labels *l, const char *folder, const char *part, take_fn take, int *n, lp_error *err)
{
    char *dir = lp_path_join(folder, part);
    struct dirent **names = NULL;
    if (!dir) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", folder);
    int found = scandir(dir, &names, is_batch, alphasort);
    lp_status st = LP_OK;
    for (int i = 0; i < found; i++) {
        char *path = st == LP_OK ? lp_path_join(dir, names[i]->d_name) : NULL;
        if (st == LP_OK)
            st = path ? read_rows(l, path, take, err) : lp_fail(err, LP_E_MEMORY, "%s: out of memory", dir);
        free(path);
        free(names[i]);
        *n += 1;
    }
    free(names);
    free(dir);
    return st;
}

static lp_status make(lp_labels *l, int d_sae, lp_error *err)
{
    *l = (lp_labels){.n = d_sae, .items = lp_calloc((size_t)d_sae, sizeof *l->items)};
    if (!l->items) return lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; i < d_sae; i++) l->items[i].share = NAN;
    return LP_OK;
}

lp_status lp_labels_put(lp_labels *l, int d_sae, int feature, const char *text, const char *kind, lp_error *err)
{
    if (!l->items) LP_TRY(make(l, d_sae, err));
    lp_label *at = &l->items[feature];
    char *t = lp_strdup(text), *k = kind ? lp_strdup(kind) : NULL;
    if (!t || (kind && !k)) {
        free(t), free(k);
        return lp_fail(err, LP_E_MEMORY, "out of memory");
    }
    l->n_named += !at->text;
    free(at->text), free(at->kind);
    at->text = t, at->kind = k;
    return LP_OK;
}

lp_status lp_labels_read(lp_labels *out, const char *folder, int d_sae, lp_error *err)
{
    lp_labels l;
    LP_TRY(make(&l, d_sae, err));
    int n = 0;
    lp_status st = read_part(&l, folder, "explanations", take_explanation, &n, err);
    if (st == LP_OK) st = read_part(&l, folder, "features", take_feature, &n, err);
    if (st == LP_OK && n == 0)
        st = lp_fail(err, LP_E_NOT_FOUND, "%s: no explanations/*.jsonl(.gz) and no features/*.jsonl(.gz) in it",
                     folder);
    if (st == LP_OK)
        *out = l;
    else
        lp_labels_free(&l);
    return st;
}

/* The first of those places that is a folder; free it. */
static char *label_folder(const char *dir, const char *model, const char *source, bool is_told)
{
    char *tries[3] = {source && model ? lp_format("%s/%s/%s", dir, model, source) : NULL,
                      source ? lp_format("%s/%s", dir, source) : NULL, is_told ? lp_strdup(dir) : NULL};
    char *found = NULL;
    for (int i = 0; i < 3; i++) {
        if (!found && tries[i] && lp_is_dir(tries[i]))
            found = tries[i];
        else
            free(tries[i]);
    }
    return found;
}

/* Labels that were asked for must be there; shipped ones may be missing. */
lp_status lp_labels_find(lp_labels *out, const char *dir, const char *model, const char *source, int d_sae,
                         lp_error *err)
{
    char *shipped = NULL;
    *out = (lp_labels){0};
    if (!dir && lp_data_path(&shipped, "labels", NULL) != LP_OK) return LP_OK;
    char *folder = label_folder(dir ? dir : shipped, model, source, dir != NULL);
    lp_status st = LP_OK;
    if (folder)
        st = lp_labels_read(out, folder, d_sae, err);
    else if (dir)
        st = lp_fail(err, LP_E_NOT_FOUND, "%s: no such folder", dir);
    free(folder);
    free(shipped);
    return st;
}

void lp_labels_free(lp_labels *l)
{
    if (!l) return;
    for (int i = 0; l->items && i < l->n; i++) {
        free(l->items[i].text);
        free(l->items[i].kind);
    }
    free(l->items);
    *l = (lp_labels){0};
}

const char *lp_label_text(const lp_labels *l, int feature)
{
    return l && l->items && feature >= 0 && feature < l->n ? l->items[feature].text : NULL;
}

float lp_label_max(const lp_labels *l, int feature)
{
    return l && l->items && feature >= 0 && feature < l->n ? l->items[feature].max : 0;
}
