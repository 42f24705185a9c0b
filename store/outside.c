/* outside.c - see outside.h.  Every array is read front to back, so one reader does for both containers: a stream. */
#include "store/outside.h"

#include "core/quant.h"
#include "core/safetensors.h"
#include "sae/npz.h"

#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- streams ------------------------------------------------------------------------------------------------------ */

enum { PIECE = 1 << 14, MOST_SPLITS = 4096 };

typedef struct stream { /* an .npz is opened once for each, since it reads one array at a time */
    lp_npz *npz;
    const char *path;
    const lp_tensors *tensors;
    const lp_tensor *x;
    uint64_t at, n; /* elements read, and all */
    int n_dims, element;
    int64_t shape[LP_MAX_DIMS];
    char kind; /* f, i, u; b: bfloat16 */
} stream;

static void stream_close(stream *s)
{
    lp_npz_close(s->npz);
    *s = (stream){0};
}

static bool find_type(stream *s, const char *name)
{
    static const struct {
        char name[5], kind;
        int element;
    } types[] = {{"F16", 'f', 2}, {"BF16", 'b', 2}, {"F32", 'f', 4}, {"F64", 'f', 8}, {"I16", 'i', 2},
                 {"I32", 'i', 4}, {"I64", 'i', 8},  {"U16", 'u', 2}, {"U32", 'u', 4}, {"U64", 'u', 8}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0) {
            s->kind = types[i].kind, s->element = types[i].element;
            return true;
        }
    return false;
}

/* *has false: no array of that name. */
static lp_status stream_open_tensor(stream *s, const lp_tensors *t, const char *path, const char *name, bool *has,
                                    lp_error *err)
{
    const lp_tensor *x = lp_tensors_find(t, name);
    *has = x != NULL;
    if (!x) return LP_OK;
    *s = (stream){.path = path, .tensors = t, .x = x, .n_dims = x->n_dims, .n = 1};
    if (!find_type(s, x->type_name))
        return lp_fail(err, LP_E_UNSUPPORTED, "%s: %s is stored as %s", path, name, x->type_name);
    for (int i = 0; i < x->n_dims; i++) s->shape[i] = x->shape[i], s->n *= (uint64_t)x->shape[i];
    return LP_OK;
}

static lp_status stream_open_npz(stream *s, const char *path, const char *name, bool *has, lp_error *err)
{
    lp_npz *z;
    *has = false;
    LP_TRY(lp_npz_open(&z, path, err));
    const lp_npz_array *a = lp_npz_find(z, name);
    lp_status st = a && a->is_fortran
                       ? lp_fail(err, LP_E_UNSUPPORTED, "%s: %s is in Fortran order; save np.ascontiguousarray of it",
                                 path, name)
                       : LP_OK;
    if (a && st == LP_OK) st = lp_npz_begin(z, a, err);
    if (!a || st != LP_OK) {
        lp_npz_close(z);
        return st;
    }
    *has = true;
    *s = (stream){.path = path, .npz = z, .n = a->n, .n_dims = a->n_dims, .kind = a->kind, .element = a->element};
    for (int i = 0; i < a->n_dims; i++) s->shape[i] = a->shape[i];
    return LP_OK;
}

static lp_status check_left(const stream *s, size_t n, lp_error *err)
{
    return n <= s->n - s->at ? LP_OK : lp_fail(err, LP_E_FORMAT, "%s: an array ends before the rows do", s->path);
}

static lp_status read_floats(stream *s, float *out, size_t n, lp_error *err)
{
    LP_TRY(check_left(s, n, err));
    s->at += n;
    if (s->npz) return lp_npz_read(s->npz, out, n, err);
    unsigned char bytes[PIECE];
    size_t each = (size_t)s->element;
    for (uint64_t from = (s->at - n) * each; n > 0;) {
        size_t k = n < PIECE / each ? n : PIECE / each;
        LP_TRY(lp_tensors_read(s->tensors, s->x, from, bytes, k * each, err));
        for (size_t i = 0; i < k && each == 8; i++) {
            double d;
            memcpy(&d, bytes + 8 * i, 8);
            out[i] = (float)d;
        }
        if (each < 8) lp_to_f32(s->kind == 'b' ? LP_BF16 : each == 2 ? LP_F16 : LP_F32, bytes, out, k);
        out += k, n -= k, from += k * each;
    }
    return LP_OK;
}

static lp_status read_whole(stream *s, int64_t *out, size_t n, lp_error *err)
{
    LP_TRY(check_left(s, n, err));
    s->at += n;
    if (s->npz) return lp_npz_read_whole(s->npz, out, n, err);
    size_t each = (size_t)s->element;
    for (size_t i = 0; i < n; i++) {
        uint64_t v = 0, sign = s->kind == 'i' ? (uint64_t)1 << (8 * each - 1) : 0;
        LP_TRY(lp_tensors_read(s->tensors, s->x, (s->at - n + i) * each, &v, each, err));
        if (s->kind == 'u' && v >> 63) return lp_fail(err, LP_E_RANGE, "%s: a number above 2^63", s->path);
        out[i] = (int64_t)((v ^ sign) - sign);
    }
    return LP_OK;
}

/* ---- what it is --------------------------------------------------------------------------------------------------- */

typedef struct split { /* of delphi */
    lp_tensors tensors;
    stream locations, activations;
    int first, last;
    int64_t next[3]; /* the location at hand, the feature as it is in the SAE */
    bool has_next;
} split;

struct lp_outside {
    char *path;
    int d_sae;
    lp_tensors tensors; /* of a flat .safetensors */
    stream tokens, dense, indptr, indices, data;
    split *splits; /* delphi's, by first feature */
    int n_splits;
    int64_t rows, places, at;
    int64_t last_ptr;
    lp_outside_row row;
    float *all; /* [d_sae] of a dense row */
};

static lp_status wrong(const lp_outside *x, lp_error *err, const char *what)
{
    return lp_fail(err, LP_E_FORMAT, "%s: row %lld: %s", x->path, (long long)x->at, what);
}

static lp_status open_first(stream *s, const lp_outside *x, const char *const *names, lp_error *err)
{
    bool has = false;
    for (; *names && !has; names++)
        LP_TRY(x->tensors.n ? stream_open_tensor(s, &x->tensors, x->path, *names, &has, err)
                            : stream_open_npz(s, x->path, *names, &has, err));
    return LP_OK;
}

static const char *const token_names[] = {"tokens", "token_ids", "input_ids", NULL};
static const char *const dense_names[] = {"activations", "feature_acts", "acts", NULL};
static const char *const indptr_name[] = {"indptr", NULL}, *const indices_name[] = {"indices", NULL},
                         *const data_name[] = {"data", NULL};

static bool is_whole(const stream *s)
{
    return s->kind == 'i' || s->kind == 'u';
}

static lp_status take_tokens(lp_outside *x, lp_error *err)
{
    const stream *t = &x->tokens;
    if (!is_whole(t) || t->n_dims < 1 || t->n_dims > 2)
        return lp_fail(err, LP_E_FORMAT, "%s: no array \"tokens\" of [rows] or [windows][places] whole numbers",
                       x->path);
    x->rows = (int64_t)t->n;
    x->places = t->n_dims == 2 ? t->shape[1] : 0;
    return LP_OK;
}

static lp_status check_flat(lp_outside *x, lp_error *err)
{
    const stream *d = &x->dense;
    LP_TRY(take_tokens(x, err));
    if (d->kind) {
        bool fits = !is_whole(d) && d->n_dims >= 2 && d->shape[d->n_dims - 1] == x->d_sae &&
                    d->n == (uint64_t)x->rows * (uint64_t)x->d_sae;
        return fits ? LP_OK
                    : lp_fail(err, LP_E_SHAPE, "%s: activations are not [%lld rows][%d features]", x->path,
                              (long long)x->rows, x->d_sae);
    }
    if (!x->indptr.kind || !x->indices.kind || !x->data.kind)
        return lp_fail(err, LP_E_FORMAT, "%s: neither an array \"activations\" nor indptr, indices and data", x->path);
    if (!is_whole(&x->indptr) || !is_whole(&x->indices) || is_whole(&x->data) || x->data.n != x->indices.n ||
        x->indptr.n != (uint64_t)x->rows + 1)
        return lp_fail(err, LP_E_SHAPE, "%s: indptr, indices and data are no CSR matrix of %lld rows", x->path,
                       (long long)x->rows);
    LP_TRY(read_whole(&x->indptr, &x->last_ptr, 1, err));
    return x->last_ptr == 0 ? LP_OK : wrong(x, err, "indptr does not begin with 0");
}

static lp_status open_flat(lp_outside *x, lp_error *err)
{
    if (lp_ends_in(x->path, ".safetensors")) LP_TRY(lp_safetensors_open(&x->tensors, x->path, NULL, err));
    LP_TRY(open_first(&x->tokens, x, token_names, err));
    LP_TRY(open_first(&x->dense, x, dense_names, err));
    LP_TRY(open_first(&x->indptr, x, indptr_name, err));
    LP_TRY(open_first(&x->indices, x, indices_name, err));
    LP_TRY(open_first(&x->data, x, data_name, err));
    return check_flat(x, err);
}

/* ---- delphi ------------------------------------------------------------------------------------------------------- */

static int is_split(const struct dirent *e)
{
    int first, last, n = 0;
    return sscanf(e->d_name, "%d_%d.safetensors%n", &first, &last, &n) == 2 && n && !e->d_name[n];
}

static int by_first(const void *a, const void *b)
{
    const split *x = a, *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

static lp_status advance(const lp_outside *x, split *p, lp_error *err)
{
    int64_t last[2] = {p->has_next ? p->next[0] : -1, p->has_next ? p->next[1] : -1};
    p->has_next = p->locations.at < p->locations.n;
    if (!p->has_next) return LP_OK;
    LP_TRY(read_whole(&p->locations, p->next, 3, err));
    p->next[2] += p->first;
    if (p->next[0] < last[0] || (p->next[0] == last[0] && p->next[1] < last[1]))
        return wrong(x, err, "locations do not rise by window and place");
    if (p->next[1] >= x->places || p->next[2] < p->first || p->next[2] > p->last || p->next[0] >= x->tokens.shape[0])
        return wrong(x, err, "a location outside the tokens or the split");
    return LP_OK;
}

static lp_status open_split(lp_outside *x, split *p, const char *path, lp_error *err)
{
    bool locations = false, activations = false, tokens = false;
    LP_TRY(lp_safetensors_open(&p->tensors, path, NULL, err));
    LP_TRY(stream_open_tensor(&p->locations, &p->tensors, path, "locations", &locations, err));
    LP_TRY(stream_open_tensor(&p->activations, &p->tensors, path, "activations", &activations, err));
    if (!x->tokens.kind) LP_TRY(stream_open_tensor(&x->tokens, &p->tensors, path, "tokens", &tokens, err));
    bool fits = locations && activations && is_whole(&p->locations) && p->locations.n_dims == 2 &&
                p->locations.shape[1] == 3 && !is_whole(&p->activations) &&
                p->activations.n == (uint64_t)p->locations.shape[0];
    return fits ? LP_OK : lp_fail(err, LP_E_FORMAT, "%s: no locations [n][3] with activations [n] in it", path);
}

static lp_status open_splits(lp_outside *x, const char *folder, struct dirent **names, int n, lp_error *err)
{
    if (n > MOST_SPLITS) return lp_fail(err, LP_E_FORMAT, "%s: %d splits", folder, n);
    if (!(x->splits = lp_calloc((size_t)n, sizeof *x->splits))) return lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; i < n; i++) sscanf(names[i]->d_name, "%d_%d", &x->splits[i].first, &x->splits[i].last);
    x->n_splits = n;
    qsort(x->splits, (size_t)n, sizeof *x->splits, by_first);
    for (int i = 0, next = 0; i < n; i++) {
        split *p = &x->splits[i];
        if (p->first != next || p->last < p->first || (i == n - 1 && p->last != x->d_sae - 1))
            return lp_fail(err, LP_E_SHAPE, "%s: its splits are not of features 0 to %d", folder, x->d_sae - 1);
        next = p->last + 1;
        char *path = lp_format("%s/%d_%d.safetensors", folder, p->first, p->last);
        lp_status st = path ? open_split(x, p, path, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
        free(path);
        LP_TRY(st);
    }
    LP_TRY(take_tokens(x, err));
    if (!x->places) return lp_fail(err, LP_E_FORMAT, "%s: its tokens are not [windows][places]", folder);
    for (int i = 0; i < n; i++) LP_TRY(advance(x, &x->splits[i], err));
    return LP_OK;
}

static int is_visible(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

/* The folder itself, or the only one in it. */
static lp_status open_delphi(lp_outside *x, const char *folder, int depth, lp_error *err)
{
    struct dirent **names = NULL;
    int n = scandir(folder, &names, is_split, NULL);
    lp_status st = n > 0 ? open_splits(x, folder, names, n, err) : LP_OK;
    for (int i = 0; i < n; i++) free(names[i]);
    free(names);
    if (n > 0) return st;
    n = scandir(folder, &names, is_visible, NULL);
    char *inner = n == 1 ? lp_path_join(folder, names[0]->d_name) : NULL;
    for (int i = 0; i < n; i++) free(names[i]);
    free(names);
    st = inner && depth == 0 && lp_is_dir(inner)
             ? open_delphi(x, inner, 1, err)
             : lp_fail(err, LP_E_NOT_FOUND, "%s: no delphi cache (START_END.safetensors); of several modules name one",
                       folder);
    free(inner);
    return st;
}

/* ---- opening ------------------------------------------------------------------------------------------------------ */

lp_status lp_outside_open(lp_outside **out, const char *path, int d_sae, lp_error *err)
{
    *out = NULL;
    lp_outside *x = lp_calloc(1, sizeof *x);
    if (x) x->path = lp_strdup(path), x->d_sae = d_sae;
    if (x) x->row.index = lp_calloc((size_t)d_sae, sizeof *x->row.index);
    if (x) x->row.value = lp_calloc((size_t)d_sae, sizeof *x->row.value);
    if (x) x->all = lp_calloc((size_t)d_sae, sizeof *x->all);
    lp_status st = LP_OK;
    if (!x || !x->path || !x->row.index || !x->row.value || !x->all)
        st = lp_fail(err, LP_E_MEMORY, "out of memory");
    else if (lp_is_dir(path))
        st = open_delphi(x, path, 0, err);
    else if (lp_ends_in(path, ".npz") || lp_ends_in(path, ".safetensors"))
        st = open_flat(x, err);
    else
        st = lp_fail(err, LP_E_UNSUPPORTED, "%s: neither .npz, .safetensors nor a folder of delphi's", path);
    if (st == LP_OK)
        *out = x;
    else
        lp_outside_close(x);
    return st;
}

void lp_outside_close(lp_outside *x)
{
    if (!x) return;
    stream_close(&x->tokens), stream_close(&x->dense), stream_close(&x->indptr), stream_close(&x->indices);
    stream_close(&x->data);
    for (int i = 0; i < x->n_splits; i++) lp_tensors_clear(&x->splits[i].tensors);
    lp_tensors_clear(&x->tensors);
    free(x->splits), free(x->path), free(x->row.index), free(x->row.value), free(x->all), free(x);
}

int64_t lp_outside_rows(const lp_outside *x)
{
    return x->rows;
}

int64_t lp_outside_places(const lp_outside *x)
{
    return x->places;
}

double lp_outside_rounding(const lp_outside *x)
{
    const stream *s = x->n_splits ? &x->splits[0].activations : x->dense.kind ? &x->dense : &x->data;
    return s->kind == 'b' ? 0x1p-8 : s->element == 2 ? 0x1p-11 : 0;
}

float lp_outside_floor(const lp_outside *x)
{
    return x->n_splits ? 1e-5f : 0;
}

/* ---- rows --------------------------------------------------------------------------------------------------------- */

static lp_status put(lp_outside *x, int64_t index, float value, lp_error *err)
{
    lp_outside_row *r = &x->row;
    if (!isfinite(value)) return wrong(x, err, "a value that is not finite");
    if (index < 0 || index >= x->d_sae) return wrong(x, err, "a feature the SAE does not have");
    if (r->n && index <= r->index[r->n - 1]) return wrong(x, err, "features that do not rise");
    if (value == 0) return LP_OK;
    r->index[r->n] = (int)index, r->value[r->n++] = value;
    return LP_OK;
}

static lp_status next_delphi(lp_outside *x, lp_error *err)
{
    int64_t window = x->at / x->places, place = x->at % x->places;
    for (int i = 0; i < x->n_splits; i++) {
        split *p = &x->splits[i];
        while (p->has_next && p->next[0] == window && p->next[1] == place) {
            float v;
            LP_TRY(read_floats(&p->activations, &v, 1, err));
            LP_TRY(put(x, p->next[2], v, err));
            LP_TRY(advance(x, p, err));
        }
    }
    return LP_OK;
}

static lp_status next_dense(lp_outside *x, lp_error *err)
{
    LP_TRY(read_floats(&x->dense, x->all, (size_t)x->d_sae, err));
    for (int i = 0; i < x->d_sae; i++) LP_TRY(put(x, i, x->all[i], err));
    return LP_OK;
}

static lp_status next_csr(lp_outside *x, lp_error *err)
{
    int64_t end, index;
    LP_TRY(read_whole(&x->indptr, &end, 1, err));
    if (end < x->last_ptr || end - x->last_ptr > x->d_sae) return wrong(x, err, "indptr falls, or a row is too long");
    for (; x->last_ptr < end; x->last_ptr++) {
        float v;
        LP_TRY(read_whole(&x->indices, &index, 1, err));
        LP_TRY(read_floats(&x->data, &v, 1, err));
        LP_TRY(put(x, index, v, err));
    }
    return LP_OK;
}

lp_status lp_outside_next(lp_outside *x, const lp_outside_row **row, lp_error *err)
{
    x->row.n = 0;
    LP_TRY(read_whole(&x->tokens, &x->row.token, 1, err));
    LP_TRY(x->n_splits ? next_delphi(x, err) : x->dense.kind ? next_dense(x, err) : next_csr(x, err));
    x->at++;
    *row = &x->row;
    return LP_OK;
}
