/* verify.c - how far every site is from a reference; see verify.h.
 *
 * One hook per site.  A hook reads the rows it needs of the tensor of its name, so a reference may be far larger than
 * memory, and any cut of the prompt will do.  An error is relative to the reference's row; a row of zeros is compared
 * absolutely.
 */
#include "core/verify.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void lp_errors_clear(lp_errors *e)
{
    for (int i = 0; i < LP_N_SITES; i++) free(e->site[i].rows);
    *e = (lp_errors){0};
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double lp_site_errors_median(const lp_site_errors *s)
{
    if (!s->n) return 0;
    double *sorted = malloc(s->n * sizeof *sorted);
    if (!sorted) return (double)NAN;
    memcpy(sorted, s->rows, s->n * sizeof *sorted);
    qsort(sorted, s->n, sizeof *sorted, by_value);
    double median = s->n % 2 ? sorted[s->n / 2] : 0.5 * (sorted[s->n / 2 - 1] + sorted[s->n / 2]);
    free(sorted);
    return median;
}

/* ---- one prompt ----------------------------------------------------------------------------------------------- */

typedef struct watch {
    lp_errors *errors;
    const char *label, *prefix;
    const lp_config *config;
    const lp_tensors *reference;
    int n;                               /* tokens           */
    float *row;                          /* of the reference */
    size_t capacity;                     /* of row           */
    int seen[LP_N_SITES][LP_MAX_LAYERS]; /* rows compared    */
    lp_status st;                        /* of the hook, and why: the session only says that a hook stopped it */
    lp_error why;
} watch;

static double finish(double difference, double size)
{
    double e = size > 0 ? sqrt(difference / size) : sqrt(difference);
    return isnan(e) ? (double)INFINITY : e;
}

static double row_error(const float *a, const float *b, size_t n)
{
    double d = 0, s = 0;
    for (size_t i = 0; i < n; i++) {
        double e = (double)a[i] - (double)b[i];
        d += e * e;
        s += (double)b[i] * (double)b[i];
    }
    return finish(d, s);
}

/* Scores and pattern of the query at `pos`: a is [heads][width] of ours, b [heads][n] of the reference. */
static double keys_error(const watch *w, const lp_act *act, int pos, const float *a, const float *b)
{
    const lp_config *c = w->config;
    int first = c->sliding[act->layer] && pos - c->window + 1 > 0 ? pos - c->window + 1 : 0;
    float masked = act->site == LP_SCORES ? -INFINITY : 0;
    double d = 0, s = 0;
    for (int h = 0; h < act->heads; h++, a += act->width, b += w->n) {
        for (int j = 0; j < act->width; j++) {
            if (j < first || j > pos) {
                if (a[j] != masked) return (double)INFINITY;
                continue;
            }
            double e = (double)a[j] - (double)b[j];
            d += e * e;
            s += (double)b[j] * (double)b[j];
        }
    }
    return finish(d, s);
}

static lp_status keep(watch *w, const lp_act *act, int pos, double error)
{
    lp_site_errors *s = &w->errors->site[act->site];
    if (!lp_grow((void **)&s->rows, &s->capacity, s->n + 1, sizeof *s->rows))
        return lp_fail(&w->why, LP_E_MEMORY, "out of memory for %zu errors", s->n);
    if (!s->n || error > s->worst) {
        s->worst = error;
        s->worst_layer = act->layer;
        s->worst_pos = pos;
        snprintf(s->worst_in, sizeof s->worst_in, "%s", w->label);
    }
    s->rows[s->n++] = error;
    return LP_OK;
}

static lp_status check_shape(watch *w, const lp_tensor *x, size_t per_row)
{
    char shape[128];
    if (x->type == LP_F32 && x->bytes == (uint64_t)w->n * per_row * sizeof(float)) return LP_OK;
    return lp_fail(&w->why, LP_E_SHAPE, "%s: %s is %s %s, expected F32 with %d rows of %zu", w->label, x->name,
                   x->type_name, lp_tensor_shape_text(x, shape, sizeof shape), w->n, per_row);
}

static lp_status compare(watch *w, const lp_act *act)
{
    char site[96], name[160];
    lp_site_tensor_name(site, sizeof site, act->site, act->layer);
    snprintf(name, sizeof name, "%s%s", w->prefix, site);
    const lp_tensor *x = lp_tensors_find(w->reference, name);
    if (!x) return LP_OK; /* a reference need not hold everything */
    bool keys = act->site == LP_SCORES || act->site == LP_PATTERN;
    size_t ours = (size_t)act->heads * (size_t)act->width;
    size_t theirs = keys ? (size_t)act->heads * (size_t)w->n : ours;
    LP_TRY(check_shape(w, x, theirs));
    if (!lp_grow((void **)&w->row, &w->capacity, theirs, sizeof *w->row))
        return lp_fail(&w->why, LP_E_MEMORY, "out of memory for a row of %zu", theirs);
    for (int r = 0; r < act->rows; r++) {
        int pos = act->pos + r;
        size_t bytes = theirs * sizeof *w->row;
        LP_TRY(lp_tensors_read(w->reference, x, (uint64_t)pos * bytes, w->row, bytes, &w->why));
        const float *a = act->x + (size_t)r * ours;
        LP_TRY(keep(w, act, pos, keys ? keys_error(w, act, pos, a, w->row) : row_error(a, w->row, ours)));
        w->seen[act->site][act->layer < 0 ? 0 : act->layer]++;
    }
    return LP_OK;
}

static int on_site(lp_act *act, void *user)
{
    watch *w = user;
    w->st = compare(w, act);
    return w->st < 0;
}

/* ---- the tokens and the tensors ------------------------------------------------------------------------------- */

static lp_status read_ids(int **ids, int *n, const lp_tensors *t, const char *name, lp_error *err)
{
    const lp_tensor *x = lp_tensors_find(t, name);
    if (!x) return lp_fail(err, LP_E_NOT_FOUND, "the reference has no tensor \"%s\"", name);
    size_t size = x->type == LP_F32 || strcmp(x->type_name, "I32") == 0 ? 4 : strcmp(x->type_name, "I64") == 0 ? 8 : 0;
    if (!size || !x->bytes || x->bytes / size > 1 << 20)
        return lp_fail(err, LP_E_SHAPE, "%s is %s with %" PRIu64 " bytes; expected I64, I32 or F32 ids", name,
                       x->type_name, x->bytes);
    *n = (int)(x->bytes / size);
    char *raw = malloc((size_t)x->bytes);
    *ids = lp_calloc((size_t)*n, sizeof **ids);
    lp_status st = raw && *ids ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory for %d ids", *n);
    if (st == LP_OK) st = lp_tensors_read(t, x, 0, raw, (size_t)x->bytes, err);
    for (int i = 0; st == LP_OK && i < *n; i++) {
        float f;
        int32_t i32;
        int64_t i64;
        memcpy(&f, raw + 4 * i, 4);
        memcpy(&i32, raw + 4 * i, 4);
        if (size == 8) memcpy(&i64, raw + 8 * i, 8);
        double v = size == 8 ? (double)i64 : x->type == LP_F32 ? (double)f : (double)i32;
        if (!(v >= 0 && v < 1 << 24 && v == floor(v)))
            st = lp_fail(err, LP_E_RANGE, "%s: %g at %d is no token id", name, v, i);
        else
            (*ids)[i] = (int)v;
    }
    free(raw);
    return st;
}

/* What the reference holds must have been met, row by row: a site that never fires would look perfect. */
static lp_status check_seen(const watch *w, lp_error *err)
{
    size_t k = strlen(w->prefix);
    int compared = 0;
    for (size_t i = 0; i < w->reference->n; i++) {
        const char *name = w->reference->items[i].name;
        lp_site site;
        int layer;
        if (strncmp(name, w->prefix, k) != 0 || strcmp(name + k, "ids") == 0) continue;
        if (lp_site_parse(name + k, &site, &layer, NULL) != LP_OK) continue;
        int rows = w->seen[site][layer < 0 || layer >= LP_MAX_LAYERS ? 0 : layer];
        if (rows != w->n)
            return lp_fail(err, LP_E_SHAPE, "%s: %s: the model showed %d of %d rows; is it the same model?", w->label,
                           name, rows, w->n);
        compared++;
    }
    if (compared) return LP_OK;
    return lp_fail(err, LP_E_NOT_FOUND, "%s: the reference holds no site under \"%s\"", w->label, w->prefix);
}

static lp_status run(watch *w, const lp_model *m, const int *ids, const lp_session_options *o, const lp_env *env,
                     lp_error *err)
{
    lp_session *s = NULL;
    lp_status st = lp_session_new(&s, m, o, env, err);
    for (int site = 0; st == LP_OK && site < LP_N_SITES; site++) {
        int layer = lp_site_has_layer((lp_site)site) ? LP_EVERY_LAYER : LP_WHOLE_MODEL;
        int handle = lp_session_hook(s, (lp_hook){(lp_site)site, layer, false, on_site, w}, err);
        if (handle < 0) st = (lp_status)handle;
    }
    if (st == LP_OK) st = lp_session_eval(s, ids, (size_t)w->n, err);
    lp_session_free(s);
    if (st != LP_STOPPED) return st;
    return lp_fail(err, w->st, "%s", w->why.text);
}

lp_status lp_errors_measure(lp_errors *e, const char *label, const lp_model *m, const lp_tensors *reference,
                            const char *ids_name, const char *prefix, const lp_session_options *o, const lp_env *env,
                            lp_error *err)
{
    int *ids = NULL;
    watch *w = lp_calloc(1, sizeof *w); /* its table of rows is large for a stack */
    if (!w) return lp_fail(err, LP_E_MEMORY, "out of memory");
    *w = (watch){e, label, prefix, &m->config, reference};
    lp_status st = read_ids(&ids, &w->n, reference, ids_name, err);
    if (st == LP_OK) st = run(w, m, ids, o, env, err);
    if (st == LP_OK) st = check_seen(w, err);
    free(w->row);
    free(w);
    free(ids);
    return st;
}
