/* labels.c - see labels.h.  zlib reads plain files as well as compressed ones. */
#include "sae/labels.h"

#include "core/data.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { MAX_LINE = 1 << 22, BLOCK = 1 << 16 };

typedef struct reading {
    lp_labels *l;
    const char *path;
    long line;
    lp_error *err;
} reading;

static lp_status wrong(const reading *r, const char *what)
{
    return lp_fail(r->err, LP_E_FORMAT, "%s, line %ld: %s", r->path, r->line, what);
}

/* ---- one row ----------------------------------------------------------------------------------------------------- */

static lp_status find_feature(const reading *r, const json_t *row, lp_label **out)
{
    const json_t *index = json_object_get(row, "index");
    long long i = -1;
    if (json_is_string(index)) {
        char *end;
        const char *text = json_string_value(index);
        errno = 0;
        i = strtoll(text, &end, 10);
        if (errno || end == text || *end) i = -1;
    } else if (json_is_integer(index)) {
        i = json_integer_value(index);
    }
    if (i < 0) return wrong(r, "no \"index\" of a feature");
    if (i >= r->l->n)
        return lp_fail(r->err, LP_E_FORMAT, "%s, line %ld: feature %lld, but this SAE has %d; labels of another width?",
                       r->path, r->line, i, r->l->n);
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
    char *t = lp_strdup(text), *k = kind ? lp_strdup(kind) : NULL;
    if (!t || (kind && !k)) {
        free(t), free(k);
        return lp_fail(r->err, LP_E_MEMORY, "%s: out of memory", r->path);
    }
    r->l->n_named += !at->text;
    free(at->text), free(at->kind);
    at->text = t, at->kind = k;
    return LP_OK;
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

static lp_status take_line(const reading *r, const char *line, size_t n, take_fn take)
{
    json_error_t bad;
    if (n == 0) return LP_OK;
    json_t *row = json_loadb(line, n, 0, &bad);
    lp_status st = json_is_object(row) ? take(r, row) : wrong(r, "not a JSON object");
    json_decref(row);
    return st;
}

/* The next line of f in *line, without its end; *n is -1 at the end of the file. */
static lp_status next_line(const reading *r, gzFile f, char **line, size_t *room, ptrdiff_t *n)
{
    size_t used = 0;
    for (;;) {
        if (used > MAX_LINE) return wrong(r, "longer than any row of an export");
        if (!lp_grow((void **)line, room, used + BLOCK, 1))
            return lp_fail(r->err, LP_E_MEMORY, "%s: out of memory", r->path);
        char *got = gzgets(f, *line + used, BLOCK);
        int code;
        const char *text = gzerror(f, &code);
        if (code < 0) return lp_fail(r->err, LP_E_FORMAT, "%s: %s", r->path, code == Z_ERRNO ? strerror(errno) : text);
        if (!got) break;
        size_t n_got = strlen(got);
        used += n_got;
        if (n_got == 0 || (n_got < BLOCK - 1 && got[n_got - 1] != '\n' && !gzeof(f)))
            return wrong(r, "not a JSON object (a NUL in it)"); /* gzgets stops nowhere else */
        if (used && (*line)[used - 1] == '\n') {
            *n = (ptrdiff_t)used - 1;
            return LP_OK;
        }
    }
    *n = used ? (ptrdiff_t)used : -1;
    return LP_OK;
}

static lp_status read_rows(lp_labels *l, const char *path, take_fn take, lp_error *err)
{
    reading r = {.l = l, .path = path, .err = err};
    gzFile f = gzopen(path, "rb");
    if (!f) return lp_fail(err, LP_E_IO, "%s: %s", path, strerror(errno));
    char *line = NULL;
    size_t room = 0;
    ptrdiff_t n = 0;
    lp_status st;
    do {
        r.line++;
        st = next_line(&r, f, &line, &room, &n);
        if (st == LP_OK && n > 0) st = take_line(&r, line, (size_t)n, take);
    } while (st == LP_OK && n >= 0);
    free(line);
    gzclose(f);
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

lp_status lp_labels_read(lp_labels *out, const char *folder, int d_sae, lp_error *err)
{
    lp_labels l = {.n = d_sae, .items = lp_calloc((size_t)d_sae, sizeof *l.items)};
    if (!l.items) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", folder);
    for (int i = 0; i < d_sae; i++) l.items[i].share = NAN;
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
