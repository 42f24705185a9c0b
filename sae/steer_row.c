/* steer_row.c - see steer.h: what the hook of a place does when a wave passes.
 *
 *     1  encodes, for every SAE that reads here, the rows that some edit at work there wants a feature of (its own, or
 *        its condition's), and keeps them until the next wave: a transcoder's edit and later places ask for them
 *     2  edits the rows, one by one: the edits at work, the row they change (itself, or its reconstruction), what they
 *        add, what the joint ones add to that; in double, rounded to float once
 *     3  where readings are wanted, encodes the edited rows again
 *
 * Whether an edit is at work at a position is asked of lp_scopes; nothing depends on which rows came in one call.
 */
#include "sae/steer_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static lp_status no_memory(lp_error *err)
{
    return lp_fail(err, LP_E_MEMORY, "no memory to steer with");
}

/* ---- 1: encoding ------------------------------------------------------------------------------------------------- */

bool lp_steer_wants_feature(const lp_steer *st, const lp_steer_edit *e)
{
    return (e->r->kind != LP_RECIPE_ADD && e->r->kind != LP_RECIPE_PROJECT) || st->recipe->drops_error ||
           st->reads_back;
}

/* Does an edit at work at this position want a feature of the source? */
static lp_status is_wanted(bool *out, lp_steer *st, int k, int pos)
{
    *out = false;
    for (size_t i = 0; i < st->recipe->n_edits && !*out; i++) {
        const lp_steer_edit *e = &st->edits[i];
        if (e->when != k && (e->source != k || !lp_steer_wants_feature(st, e))) continue;
        double factor = lp_scopes_factor(st->scopes, i, pos);
        if (isnan(factor))
            return lp_fail(&st->err, LP_E_RANGE, "position %d is evaluated before its token was told (lp_steer_token)",
                           pos);
        *out = factor != 0;
    }
    return LP_OK;
}

static lp_status read_rows(lp_steer *st, int k, const lp_act *act)
{
    lp_steer_source *s = &st->sources[k];
    size_t n = (size_t)act->rows, each = (size_t)s->sae->d_in;
    int found = 0;
    s->n = 0;
    if (!lp_grow((void **)&s->row, &s->row_capacity, n, sizeof *s->row)) return no_memory(&st->err);
    for (int r = 0; r < act->rows; r++) {
        bool is_in;
        LP_TRY(is_wanted(&is_in, st, k, act->pos + r));
        s->row[r] = is_in ? found++ : -1;
    }
    if (!lp_grow((void **)&s->x, &s->x_capacity, (size_t)found * each + 1, sizeof *s->x)) return no_memory(&st->err);
    for (int r = 0; r < act->rows; r++)
        if (s->row[r] >= 0) memcpy(s->x + (size_t)s->row[r] * each, act->x + (size_t)r * each, each * sizeof *s->x);
    lp_status status = lp_encode(&s->f, s->encoder, s->x, found, &st->err);
    if (status == LP_CANCELLED) return lp_fail(&st->err, status, "cancelled");
    if (status != LP_OK) return lp_prefix(&st->err, status, s->sae->name);
    s->first = act->pos, s->n = act->rows;
    return LP_OK;
}

/* A row of the source's features; it has passed, since conditions and inputs come before edits. */
static lp_status find_row(int *row, lp_steer *st, const lp_steer_source *s, int pos)
{
    int r = pos - s->first;
    *row = r >= 0 && r < s->n ? s->row[r] : -1;
    if (*row >= 0) return LP_OK;
    return lp_fail(&st->err, LP_E_RANGE, "%s did not read position %d before the edit there", s->sae->name, pos);
}

static lp_status find_value(double *out, lp_steer *st, int k, int feature, int pos)
{
    int row;
    LP_TRY(find_row(&row, st, &st->sources[k], pos));
    *out = (double)lp_features_get(&st->sources[k].f, row, feature);
    return LP_OK;
}

/* ---- 2: a row ---------------------------------------------------------------------------------------------------- */

/* The edits of the place that are at work at this position, into st->work. */
static lp_status collect(int *n, const lp_steer_place *p, int pos)
{
    lp_steer *st = p->st;
    *n = 0;
    for (int i = 0; i < p->n_edits; i++) {
        const lp_steer_edit *e = &st->edits[p->edits[i]];
        lp_steer_work w = {.edit = p->edits[i], .r = lp_scopes_factor(st->scopes, (size_t)p->edits[i], pos)};
        if (isnan(w.r))
            return lp_fail(&st->err, LP_E_RANGE, "position %d is evaluated before its token was told (lp_steer_token)",
                           pos);
        if (w.r == 0) continue;
        if (e->when >= 0) {
            double v;
            LP_TRY(find_value(&v, st, e->when, e->r->when.index, pos));
            if (!(v > e->r->when.above)) continue;
        }
        if (lp_steer_wants_feature(st, e)) LP_TRY(find_value(&w.f, st, e->source, e->r->index, pos));
        st->work[(*n)++] = w;
    }
    return LP_OK;
}

/* The value the edit would give its feature, were it in force in full. */
static double aim(const lp_steer_edit *e, double f)
{
    switch (e->r->kind) {
    case LP_RECIPE_CLAMP:
    case LP_RECIPE_REPLACE:
        return e->amount;
    case LP_RECIPE_CLAMP_MIN:
        return e->amount > f ? e->amount : f;
    case LP_RECIPE_CLAMP_MAX:
        return e->amount < f ? e->amount : f;
    case LP_RECIPE_SCALE:
        return e->amount * f;
    case LP_RECIPE_ABLATE:
        return 0;
    default:
        return (double)NAN;
    }
}

/* As far on the way from f to `to` as the schedule says. */
static double partly(const lp_steer_work *w, double to)
{
    return w->r == 1 ? to : w->f + w->r * (to - w->f);
}

static void put_feature(lp_features *f, int feature, float value)
{
    size_t n = f->start[1], at = 0;
    while (at < n && f->index[at] < feature) at++;
    if (at == n || f->index[at] != feature) {
        memmove(f->index + at + 1, f->index + at, (n - at) * sizeof *f->index);
        memmove(f->value + at + 1, f->value + at, (n - at) * sizeof *f->value);
        f->start[1]++;
    }
    f->index[at] = feature;
    f->value[at] = value;
}

/* One row of `from`, with room for so many features more. */
static lp_status take_row(lp_features *to, const lp_features *from, int row, int room)
{
    size_t first = from->start[row], n = from->start[row + 1] - first, most = n + (size_t)room;
    if (!lp_grow((void **)&to->start, &to->capacity_rows, 2, sizeof *to->start) ||
        !lp_grow((void **)&to->index, &to->capacity_index, most + 1, sizeof *to->index) ||
        !lp_grow((void **)&to->value, &to->capacity_values, most + 1, sizeof *to->value))
        return LP_E_MEMORY;
    if (n) memcpy(to->index, from->index + first, n * sizeof *to->index);
    if (n) memcpy(to->value, from->value + first, n * sizeof *to->value);
    to->start[0] = 0, to->start[1] = n, to->n_rows = 1;
    return LP_OK;
}

/* The row's reconstruction into st->base, with the replaced features set; *is_rebuilt: the edits at work want it. */
static lp_status rebuild(bool *is_rebuilt, const lp_steer_place *p, int n, int pos)
{
    lp_steer *st = p->st;
    int row;
    *is_rebuilt = st->recipe->drops_error;
    for (int i = 0; i < n; i++) *is_rebuilt |= st->edits[st->work[i].edit].r->kind == LP_RECIPE_REPLACE;
    if (!*is_rebuilt) return LP_OK;
    lp_steer_source *s = &st->sources[p->base];
    LP_TRY(find_row(&row, st, s, pos));
    if (take_row(&st->one, &s->f, row, n) != LP_OK) return no_memory(&st->err);
    for (int i = 0; i < n; i++) {
        const lp_steer_work *w = &st->work[i];
        const lp_steer_edit *e = &st->edits[w->edit];
        if (e->r->kind == LP_RECIPE_REPLACE) put_feature(&st->one, e->r->index, (float)partly(w, e->amount));
    }
    lp_decode(st->base, s->encoder, &st->one, s->x + (size_t)row * (size_t)s->sae->d_in);
    return LP_OK;
}

/* The amounts of all but the joint clamps, from y, and their sum. */
static void add_up(const lp_steer_place *p, int n, int pos, const float *y)
{
    lp_steer *st = p->st;
    memset(st->delta, 0, (size_t)p->width * sizeof *st->delta);
    for (int i = 0; i < n; i++) {
        lp_steer_work *w = &st->work[i];
        const lp_steer_edit *e = &st->edits[w->edit];
        const lp_steer_source *s = &st->sources[e->source];
        double to = aim(e, w->f), along = 0;
        w->asked = partly(w, to);
        w->c = 0;
        w->status = e->joint == -2 ? LP_STEER_NOT_LINEAR : LP_STEER_PLAIN;
        if (e->joint >= 0 || e->r->kind == LP_RECIPE_REPLACE) continue;
        if (e->r->kind == LP_RECIPE_ADD) {
            w->c = w->r * e->amount;
        } else if (e->r->kind == LP_RECIPE_PROJECT) {
            for (int k = 0; k < p->width; k++) along += (double)y[k] * (double)e->d[k];
            if (e->length > 0) w->c = w->r * (e->amount - along / e->length) / e->length;
        } else if (to != w->f) {
            const float *x = s->x + (size_t)s->row[pos - s->first] * (size_t)s->sae->d_in;
            w->c = w->r * (to - w->f) * lp_decoder_scale(s->sae, e->r->index, x);
        }
        for (int k = 0; k < p->width && w->c != 0; k++) st->delta[k] += w->c * (double)e->d[k];
    }
}

/* The joint clamps, on top of what the others add. */
static void solve_joint(const lp_steer_place *p, int n, const float *y)
{
    lp_steer *st = p->st;
    bool is_on[LP_JOINT_FEATURES] = {false}, any = false;
    lp_steer_status status[LP_JOINT_FEATURES];
    double target[LP_JOINT_FEATURES] = {0}, c[LP_JOINT_FEATURES];
    for (int i = 0; i < n; i++) {
        int j = st->edits[st->work[i].edit].joint;
        if (j < 0) continue;
        any = is_on[j] = true;
        target[j] = st->work[i].asked;
    }
    if (!any) return;
    for (int k = 0; k < p->width; k++) st->sum[k] = (double)y[k] + st->delta[k];
    lp_joint_solve(c, status, p->joint, st->sum, target, is_on);
    for (int i = 0; i < n; i++) {
        lp_steer_work *w = &st->work[i];
        const lp_steer_edit *e = &st->edits[w->edit];
        if (e->joint < 0) continue;
        w->c = c[e->joint], w->status = status[e->joint];
        for (int k = 0; k < p->width && w->c != 0; k++) st->delta[k] += w->c * (double)e->d[k];
    }
}

/* x' = y + delta, in double and rounded once.  Where nothing is added and nothing rebuilt, x keeps its bits: -0 too. */
static double write_row(const lp_steer_place *p, const float *y, float *x)
{
    const lp_steer *st = p->st;
    double old = 0, new = 0, moved = 0, scale = 1;
    for (int k = 0; k < p->width; k++) {
        double to = st->delta[k] != 0 ? (double)y[k] + st->delta[k] : (double)y[k];
        st->sum[k] = to;
        old += (double)x[k] * (double)x[k];
        new += to *to;
    }
    if (st->recipe->keeps_norm && new > 0) scale = sqrt(old / new);
    for (int k = 0; k < p->width; k++) {
        float to = (float)(st->sum[k] * scale);
        moved += ((double)to - (double)x[k]) * ((double)to - (double)x[k]);
        x[k] = to;
    }
    return old > 0 ? sqrt(moved / old) : moved > 0 ? (double)INFINITY : 0;
}

/* Edits the row x at a position; the *n edits at work there are left in st->work.  *relative: |x' - x| / |x|. */
static lp_status edit_row(int *n, double *relative, const lp_steer_place *p, int pos, float *x)
{
    lp_steer *st = p->st;
    bool is_rebuilt;
    *relative = 0;
    LP_TRY(collect(n, p, pos));
    if (*n == 0) return LP_OK;
    LP_TRY(rebuild(&is_rebuilt, p, *n, pos));
    const float *y = is_rebuilt ? st->base : x;
    add_up(p, *n, pos, y);
    if (p->joint) solve_joint(p, *n, y);
    bool is_moved = is_rebuilt;
    for (int i = 0; i < *n; i++) is_moved |= st->work[i].c != 0;
    if (is_moved) *relative = write_row(p, y, x);
    return LP_OK;
}

/* ---- 3: a wave --------------------------------------------------------------------------------------------------- */

bool lp_steer_reads_at(const lp_sae *s, const lp_steer_place *p)
{
    return s->spot.site == p->site && (s->spot.layer == p->layer || !lp_site_has_layer(p->site));
}

static lp_status keep_row(lp_steer_place *p, int n, int pos, double relative)
{
    lp_steer *st = p->st;
    if (!lp_grow((void **)&p->readings, &p->readings_capacity, p->n_readings + (size_t)n, sizeof *p->readings) ||
        !lp_grow((void **)&p->moves, &p->moves_capacity, p->n_moves + 1, sizeof *p->moves))
        return no_memory(&st->err);
    for (int i = 0; i < n; i++) {
        const lp_steer_work *w = &st->work[i];
        float f = (float)w->f;
        p->readings[p->n_readings++] = (lp_steer_reading){
            .pos = pos, .edit = w->edit, .asked = (float)w->asked, .before = f, .achieved = f, .status = w->status};
    }
    p->moves[p->n_moves++] = (lp_steer_move){
        .pos = pos, .site = p->site, .layer = p->layer, .relative = (float)relative};
    return LP_OK;
}

static void settle(lp_steer_reading *r, float achieved)
{
    double asked = (double)r->asked;
    r->achieved = achieved;
    if (r->status != LP_STEER_REACHED) return;
    if (asked == 0 ? achieved != 0 : !(fabs((double)achieved - asked) <= 1e-4 * asked)) r->status = LP_STEER_MISSED;
}

/* What source k's features came to, in the readings from number `from` on.  Its kept rows are not wanted any more. */
static lp_status read_again(lp_steer_place *p, const lp_act *act, int k, size_t from)
{
    lp_steer *st = p->st;
    lp_steer_source *s = &st->sources[k];
    size_t each = (size_t)s->sae->d_in;
    int rows = 0, last = -1;
    if (!lp_grow((void **)&s->x, &s->x_capacity, (size_t)act->rows * each, sizeof *s->x)) return no_memory(&st->err);
    for (size_t i = from; i < p->n_readings; i++) {
        int pos = p->readings[i].pos;
        if (st->edits[p->readings[i].edit].source != k || pos == last) continue;
        memcpy(s->x + (size_t)rows++ * each, act->x + (size_t)(pos - act->pos) * each, each * sizeof *s->x);
        last = pos;
    }
    if (!rows) return LP_OK;
    lp_status status = lp_encode(&s->after, s->encoder, s->x, rows, &st->err);
    if (status == LP_CANCELLED) return lp_fail(&st->err, status, "cancelled");
    if (status != LP_OK) return lp_prefix(&st->err, status, "after the edits");
    rows = last = -1;
    for (size_t i = from; i < p->n_readings; i++) {
        lp_steer_reading *r = &p->readings[i];
        if (st->edits[r->edit].source != k) continue;
        if (r->pos != last) rows++;
        last = r->pos;
        settle(r, lp_features_get(&s->after, rows, st->edits[r->edit].r->index));
    }
    return LP_OK;
}

/* What was read at a position evaluated again, and after it, makes room. */
static void forget(lp_steer_place *p, int pos)
{
    while (p->n_readings && p->readings[p->n_readings - 1].pos >= pos) p->n_readings--;
    while (p->n_moves && p->moves[p->n_moves - 1].pos >= pos) p->n_moves--;
}

static lp_status edit_rows(lp_steer_place *p, const lp_act *act)
{
    lp_steer *st = p->st;
    forget(p, act->pos);
    size_t from = p->n_readings;
    for (int r = 0; r < act->rows; r++) {
        int n;
        double relative;
        LP_TRY(edit_row(&n, &relative, p, act->pos + r, act->x + (size_t)r * (size_t)p->width));
        if (n && st->reads_back) LP_TRY(keep_row(p, n, act->pos + r, relative));
    }
    for (int k = 0; k < st->n_sources && p->n_readings > from; k++)
        if (lp_steer_reads_at(st->sources[k].sae, p)) LP_TRY(read_again(p, act, k, from));
    return LP_OK;
}

int lp_steer_pass(lp_act *act, void *place)
{
    lp_steer_place *p = place;
    lp_steer *st = p->st;
    lp_status status = LP_OK;
    for (int k = 0; k < st->n_sources && status == LP_OK; k++)
        if (st->sources[k].encoder && lp_steer_reads_at(st->sources[k].sae, p)) status = read_rows(st, k, act);
    if (status == LP_OK && p->n_edits) status = edit_rows(p, act);
    return status != LP_OK;
}
