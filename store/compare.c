/* compare.c - see compare.h. */
#include "store/compare.h"

#include <math.h>
#include <string.h>

typedef struct job {
    lp_comparison *c;
    lp_outside *x;
    double tolerance, rounding;
    float floor;
    int64_t window, places, row; /* of the other file */
} job;

static void note(lp_comparison *c, const lp_compare_case *k)
{
    int at = c->n_worst;
    while (at > 0 && c->worst[at - 1].share < k->share) at--;
    if (at == LP_COMPARE_WORST) return;
    if (c->n_worst < LP_COMPARE_WORST) c->n_worst++;
    memmove(&c->worst[at + 1], &c->worst[at], (size_t)(c->n_worst - 1 - at) * sizeof *k);
    c->worst[at] = *k;
}

static double largest_of(const float *v, size_t n, double at_least)
{
    for (size_t i = 0; i < n; i++)
        if (fabs((double)v[i]) > at_least) at_least = fabs((double)v[i]);
    return at_least;
}

/* One feature of one row; 0 stands for "does not fire".  True: they agree. */
static bool compare_values(job *j, lp_compare_case *k, double largest)
{
    lp_comparison *c = j->c;
    double off = fabs(k->here - k->there), share = largest > 0 ? off / largest : 0;
    double allowed = j->tolerance * largest + j->rounding * fabs(k->here);
    bool is_left_out = k->there == 0 && k->here <= (double)j->floor;
    c->values += k->here != 0 && k->there != 0;
    if (is_left_out) return true;
    if (share > c->largest) c->largest = share;
    if (off <= allowed) return true;
    k->kind = k->there == 0 ? LP_DIFFERS_HERE_ONLY : k->here == 0 ? LP_DIFFERS_THERE_ONLY : LP_DIFFERS_VALUE;
    c->here_only += k->kind == LP_DIFFERS_HERE_ONLY;
    c->there_only += k->kind == LP_DIFFERS_THERE_ONLY;
    c->beyond += k->kind == LP_DIFFERS_VALUE;
    k->share = share;
    note(c, k);
    return false;
}

/* Both lists rise by feature. */
static bool compare_features(job *j, lp_compare_case k, const int *index, const float *value, size_t n,
                             const lp_outside_row *r)
{
    double largest = largest_of(r->value, (size_t)r->n, largest_of(value, n, 0));
    bool agree = true;
    for (size_t a = 0, b = 0; a < n || b < (size_t)r->n;) {
        int here = a < n ? index[a] : INT32_MAX, there = b < (size_t)r->n ? r->index[b] : INT32_MAX;
        k.feature = here < there ? here : there;
        k.here = here <= there ? (double)value[a++] : 0;
        k.there = there <= here ? (double)r->value[b++] : 0;
        agree &= compare_values(j, &k, largest);
    }
    return agree;
}

static lp_status skip_to(job *j, int64_t row, lp_error *err)
{
    const lp_outside_row *r;
    for (; j->row < row; j->row++) LP_TRY(lp_outside_next(j->x, &r, err));
    return LP_OK;
}

static lp_status compare_block(void *user, const lp_series_block *b, lp_error *err)
{
    job *j = user;
    const lp_features *f = b->features;
    for (int i = 0; i < b->n; i++) {
        const lp_outside_row *r;
        if (j->places) LP_TRY(skip_to(j, b->window[i] * j->places + b->column[i], err)); /* what fills a window up */
        LP_TRY(lp_outside_next(j->x, &r, err));
        j->row++;
        lp_compare_case k = {.document = b->document[i],
                             .pos = b->pos[i],
                             .here_token = b->id[i],
                             .there_token = r->token,
                             .feature = -1};
        bool agree = r->token == b->id[i];
        j->c->rows++;
        if (agree) {
            size_t first = f->start[i];
            agree = compare_features(j, k, f->index + first, f->value + first, f->start[i + 1] - first, r);
        } else {
            k.kind = LP_DIFFERS_TOKEN, k.share = (double)INFINITY;
            j->c->tokens++;
            note(j->c, &k);
        }
        j->c->rows_differ += !agree;
    }
    return LP_OK;
}

bool lp_comparison_agrees(const lp_comparison *c)
{
    return c->rows_differ == 0;
}

lp_status lp_compare(lp_comparison *out, const lp_series *s, lp_outside *x, double tolerance, const lp_env *env,
                     lp_error *err)
{
    *out = (lp_comparison){0};
    job j = {.c = out,
             .x = x,
             .tolerance = tolerance,
             .rounding = lp_outside_rounding(x),
             .floor = lp_outside_floor(x),
             .places = lp_outside_places(x)};
    int64_t rows = lp_outside_rows(x);
    if (j.places && (j.places < s->longest || rows != s->n_windows * j.places))
        return lp_fail(err, LP_E_SHAPE, "it has %lld windows of %lld tokens, this run %lld of up to %d",
                       (long long)(rows / j.places), (long long)j.places, (long long)s->n_windows, s->longest);
    if (!j.places && rows != s->n_rows)
        return lp_fail(err, LP_E_SHAPE, "it has %lld rows, this run %lld", (long long)rows, (long long)s->n_rows);
    LP_TRY(lp_series_walk(s, false, compare_block, &j, "comparing", env, err));
    return j.places ? skip_to(&j, rows, err) : LP_OK; /* to the end: what is broken there counts too */
}
