/* load_direction.c - see direction.h: a control vector's tensors as files of named arrays, and what is in such a file. */
#include "core/config.h"
#include "core/gguf.h"
#include "sae/direction.h"
#include "sae/load.h"
#include "sae/scope_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDEST = 1 << 20 };

const char *lp_direction_part(const char *path, int *layer)
{
    static const char middle[] = ".gguf/direction.";
    const char *part = NULL, *s;
    for (s = path; (s = strstr(s, middle)); s++) part = s; /* the last one */
    if (!part || part == path) return NULL;
    s = part + sizeof middle - 1;
    if (!lp_scope_take_number(&s, layer) || *s || *layer < 1 || *layer >= LP_MAX_LAYERS) return NULL;
    return part + 5;
}

lp_sae_spot lp_direction_spot(int layer)
{
    return (lp_sae_spot){.site = LP_RESID_POST, .layer = layer, .site_out = LP_RESID_POST, .layer_out = layer};
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static bool is_text(const lp_gguf *g, const char *key, const char *want, bool or_missing)
{
    const char *s;
    size_t n;
    if (!lp_gguf_string(g, key, &s, &n)) return or_missing;
    return n == strlen(want) && memcmp(s, want, n) == 0;
}

static lp_status open_vector(lp_gguf **out, const char *file, lp_error *err)
{
    LP_TRY(lp_gguf_open(out, file, err));
    lp_status st = LP_OK;
    if (!is_text(*out, "general.architecture", "controlvector", false))
        st = lp_fail(err, LP_E_FORMAT, "%.600s: its general.architecture is not controlvector: no control vector",
                     file);
    else if (!is_text(*out, "controlvector.model_hint", "gemma2", true))
        st = lp_fail(err, LP_E_UNSUPPORTED, "%.600s: a control vector of another model than gemma2", file);
    if (st == LP_OK) return st;
    lp_gguf_close(*out);
    *out = NULL;
    return st;
}

/* One direction: *out [*n] is yours to free, *squares is |d|^2. */
static lp_status take_direction(float **out, int *n, double *squares, const lp_gguf *g, const lp_tensor *t,
                                const char *file, lp_error *err)
{
    if (t->type != LP_F32 || t->n_dims != 1 || t->shape[0] < 1 || t->shape[0] > WIDEST)
        return lp_fail(err, LP_E_FORMAT, "%.600s: %.60s is no F32 vector", file, t->name);
    *n = (int)t->shape[0];
    float *d = lp_calloc((size_t)*n, sizeof *d);
    if (!d) return lp_fail(err, LP_E_MEMORY, "%.600s: out of memory", file);
    lp_status st = lp_tensors_read(lp_gguf_tensors(g), t, 0, d, (size_t)*n * sizeof *d, err);
    *squares = 0;
    for (int i = 0; st == LP_OK && i < *n; i++) *squares += (double)d[i] * (double)d[i];
    if (st == LP_OK && !isfinite(*squares))
        st = lp_fail(err, LP_E_RANGE, "%.600s: %.60s holds NaN or infinity", file, t->name);
    *out = d;
    if (st == LP_OK) return st;
    free(d);
    *out = NULL;
    return st;
}

static int by_number(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static lp_status list_all(int *layers, size_t *n, const lp_gguf *g, const char *file, lp_error *err)
{
    const lp_tensors *all = lp_gguf_tensors(g);
    int width = 0, own;
    for (size_t i = 0; i < all->n; i++) {
        const char *s = all->items[i].name;
        int layer = 0;
        double squares;
        float *d;
        if (!lp_scope_take(&s, "direction.") || !lp_scope_take_number(&s, &layer) || *s || layer < 1 ||
            layer >= LP_MAX_LAYERS)
            return lp_fail(err, LP_E_FORMAT,
                           "%.600s: tensor \"%.60s\"; a control vector has direction.1, direction.2, ...", file,
                           all->items[i].name);
        LP_TRY(take_direction(&d, &own, &squares, g, &all->items[i], file, err));
        free(d);
        if (width && own != width)
            return lp_fail(err, LP_E_FORMAT, "%.600s: %s is %d wide, the others %d", file, all->items[i].name, own,
                           width);
        width = own;
        if (squares > 0) layers[(*n)++] = layer;
    }
    if (*n) qsort(layers, *n, sizeof *layers, by_number);
    return LP_OK;
}

lp_status lp_direction_list(int **layers, size_t *n, const char *file, lp_error *err)
{
    lp_gguf *g = NULL;
    *layers = NULL;
    *n = 0;
    LP_TRY(open_vector(&g, file, err));
    lp_status st = LP_OK;
    if (!(*layers = lp_calloc(lp_gguf_tensors(g)->n + 1, sizeof **layers)))
        st = lp_fail(err, LP_E_MEMORY, "%.600s: out of memory", file);
    if (st == LP_OK) st = list_all(*layers, n, g, file, err);
    lp_gguf_close(g);
    if (st == LP_OK) return st;
    free(*layers);
    *layers = NULL;
    return st;
}

/* ---- as an SAE --------------------------------------------------------------------------------------------------- */

/* The direction, and the array that is being read off it: `scale` times what is from `next` on. */
typedef struct source {
    float *d;
    int n;
    double squares, scale;
    size_t next;
} source;

static bool find(void *self, const char *name, int *n_dims, int64_t *shape, bool *is_fortran)
{
    const source *s = self;
    bool is_enc = strcmp(name, "W_enc") == 0;
    *n_dims = is_enc || strcmp(name, "W_dec") == 0 ? 2 : 1;
    shape[0] = is_enc || strcmp(name, "b_dec") == 0 ? s->n : 1;
    shape[1] = is_enc ? 1 : s->n;
    *is_fortran = false;
    return true;
}

static lp_status begin(void *self, const char *name, lp_error *err)
{
    source *s = self;
    (void)err;
    s->next = 0;
    s->scale = strcmp(name, "W_enc") == 0 ? 1 / s->squares : strcmp(name, "W_dec") == 0 ? 1 : 0;
    return LP_OK;
}

static lp_status read_some(void *self, float *out, size_t n, lp_error *err)
{
    source *s = self;
    (void)err;
    for (size_t i = 0; i < n; i++) out[i] = (float)(s->scale * (double)s->d[s->next + i]) + 0.0f;
    s->next += n;
    return LP_OK;
}

static lp_status end(void *self, lp_error *err)
{
    (void)self;
    (void)err;
    return LP_OK;
}

lp_status lp_sae_load_direction(lp_sae *s, const char *path, const lp_sae_options *o, const lp_env *env, lp_error *err)
{
    int layer = 0;
    const char *part = lp_direction_part(path, &layer);
    char *file = lp_format("%.*s", (int)(part - path), path);
    lp_gguf *g = NULL;
    source from = {0};
    lp_status st = file ? open_vector(&g, file, err) : lp_fail(err, LP_E_MEMORY, "%.600s: out of memory", path);
    const lp_tensor *t = st == LP_OK ? lp_tensors_find(lp_gguf_tensors(g), part + 1) : NULL;
    if (st == LP_OK && !t) st = lp_fail(err, LP_E_NOT_FOUND, "%.600s: no tensor %s in it", file, part + 1);
    if (st == LP_OK) st = take_direction(&from.d, &from.n, &from.squares, g, t, file, err);
    if (st == LP_OK && !(from.squares > 0)) st = lp_fail(err, LP_E_RANGE, "%.600s: all zero, so no direction", path);
    if (st == LP_OK) {
        const lp_arrays a = {.self = &from, .path = path, .find = find, .begin = begin, .read = read_some, .end = end};
        s->kind = LP_SAE_STANDARD;
        st = lp_sae_fill(s, &a, o, env, err);
    }
    lp_gguf_close(g);
    free(from.d);
    free(file);
    return st;
}
