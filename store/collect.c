/* collect.c - see collect.h.
 *
 * A hook at every site copies the rows that count into a buffer of its SAE; with the last row there, the SAE encodes them
 * all at once.  A transcoder's reconstruction waits for its target, which passes later in the same layer.
 */
#include "store/collect.h"

#include "core/sample.h"
#include "core/trace.h"
#include "sae/reader.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct place place;

/* A site's rows on their way past. */
struct place {
    lp_collector *c;
    float *x; /* [most][width] */
    int width, rows, handle;
    lp_status (*on_all)(place *p, lp_error *err); /* all rows are there; NULL: nobody waits */
    int sae;
};

typedef struct seat {
    place in, out; /* out: of a transcoder alone */
    lp_encoder *encoder;
    lp_features f;
    float *sqerr, *norm2; /* [most] */
} seat;

struct lp_collector {
    lp_collect_plan plan;
    lp_session *s;
    int most, last_layer;
    seat *seats;
    place *dense;
    float *made;             /* [most][widest d_out] */
    lp_shard_sae_rows *rows; /* [n_saes] as the block shows them */
    const float **dense_rows;
    float *logprob; /* [most] */
    int *padded;    /* [most] ids of branches */
    int logits_handle;

    /* The windows passing now. */
    const int *ids, *length;
    int n_windows, n, first, next; /* n: rows in all; first: position of row 0 */
    int *offset;                   /* [most] where a window's rows begin */
    int one;                       /* the length of a chunk */
    lp_status st;
    lp_error err;
};

int lp_collector_wave(const lp_collector *c)
{
    return c->most;
}

/* ---- rows passing ------------------------------------------------------------------------------------------------ */

static int on_rows(lp_act *act, void *user)
{
    place *p = user;
    lp_collector *c = p->c;
    int from = act->pos - c->first, left = c->length[act->branch] - from;
    int n = left < act->rows ? left : act->rows;
    if (n > 0) {
        memcpy(p->x + (size_t)(c->offset[act->branch] + from) * (size_t)p->width, act->x,
               (size_t)n * (size_t)p->width * sizeof *p->x);
        p->rows += n;
    }
    if (p->rows < c->n || !p->on_all) return 0;
    c->st = p->on_all(p, &c->err);
    return c->st != LP_OK;
}

/* ||x - x^||^2 and ||x||^2, in double and rounded once. */
static void compare(lp_collector *c, seat *t, const lp_sae *s, const float *x)
{
    lp_decode(c->made, t->encoder, &t->f, t->in.x);
    for (int r = 0; r < c->n; r++) {
        const float *a = x + (size_t)r * (size_t)s->d_out, *b = c->made + (size_t)r * (size_t)s->d_out;
        double error = 0, norm = 0;
        for (int i = 0; i < s->d_out; i++) {
            double d = (double)a[i] - (double)b[i];
            error += d * d;
            norm += (double)a[i] * (double)a[i];
        }
        t->sqerr[r] = (float)error;
        t->norm2[r] = (float)norm;
    }
}

static lp_status on_input(place *p, lp_error *err)
{
    lp_collector *c = p->c;
    const lp_sae *s = c->plan.saes[p->sae];
    seat *t = &c->seats[p->sae];
    lp_status st = lp_encode(&t->f, t->encoder, p->x, c->n, err);
    if (st < 0) return lp_prefix(err, st, s->name);
    LP_TRY(st);
    if (!s->spot.is_coder) compare(c, t, s, p->x);
    return LP_OK;
}

static lp_status on_target(place *p, lp_error *err)
{
    (void)err;
    compare(p->c, &p->c->seats[p->sae], p->c->plan.saes[p->sae], p->x);
    return LP_OK;
}

/* ln p of what follows each row. */
static int on_logits(lp_act *act, void *user)
{
    lp_collector *c = user;
    for (int r = 0; r < act->rows; r++) {
        int at = act->pos + r - c->first, next = at + 1 < c->n ? c->ids[at + 1] : c->next;
        const float *z = act->x + (size_t)r * (size_t)act->width;
        c->logprob[at] = next < 0 ? NAN : (float)((double)z[next] - lp_log_sum_exp(z, act->width));
    }
    return 0;
}

/* ---- making one -------------------------------------------------------------------------------------------------- */

static lp_status watch(lp_collector *c, place *p, lp_site site, int layer, int width, int sae,
                       lp_status (*on_all)(place *, lp_error *), lp_error *err)
{
    *p = (place){.c = c, .width = width, .sae = sae, .on_all = on_all};
    p->x = lp_big_alloc((size_t)c->most * (size_t)width * sizeof *p->x);
    if (!p->x) return lp_fail(err, LP_E_MEMORY, "no memory for %d rows of %s", c->most, lp_site_name(site));
    p->handle = lp_session_hook(c->s, (lp_hook){.site = site, .layer = layer, .fn = on_rows, .user = p}, err);
    if (p->handle < 0) return (lp_status)p->handle;
    int last = lp_session_model(c->s)->config.n_layers - 1;
    int needs = lp_site_has_layer(site) ? layer : site == LP_EMBED || site == LP_EMBED_RAW ? 0 : last;
    if (needs > c->last_layer) c->last_layer = needs;
    return LP_OK;
}

static lp_status seat_sae(lp_collector *c, int i, lp_error *err)
{
    const lp_sae *s = c->plan.saes[i];
    const lp_sae_spot *at = &s->spot;
    seat *t = &c->seats[i];
    LP_TRY(lp_sae_fits(s, &lp_session_model(c->s)->config, err));
    LP_TRY(lp_encoder_new(&t->encoder, s, c->plan.arithmetic, lp_session_env(c->s), err));
    t->sqerr = lp_calloc((size_t)c->most, sizeof *t->sqerr);
    t->norm2 = lp_calloc((size_t)c->most, sizeof *t->norm2);
    if (!t->sqerr || !t->norm2) return lp_fail(err, LP_E_MEMORY, "out of memory");
    LP_TRY(watch(c, &t->in, at->site, at->layer, s->d_in, i, on_input, err));
    if (at->is_coder) LP_TRY(watch(c, &t->out, at->site_out, at->layer_out, s->d_out, i, on_target, err));
    c->rows[i] = (lp_shard_sae_rows){.features = &t->f, .sqerr = t->sqerr, .norm2 = t->norm2};
    c->rows[i].target = at->is_coder ? t->out.x : t->in.x;
    return LP_OK;
}

static lp_status seat_dense(lp_collector *c, int i, lp_error *err)
{
    const lp_shard_dense *d = &c->plan.dense[i];
    LP_TRY(watch(c, &c->dense[i], d->site, d->layer, d->width, -1, NULL, err));
    c->dense_rows[i] = c->dense[i].x;
    return LP_OK;
}

static lp_status take_seats(lp_collector *c, lp_error *err)
{
    size_t n = (size_t)c->plan.n_saes, d = (size_t)c->plan.n_dense, most = (size_t)c->most, widest = 1;
    for (size_t i = 0; i < n; i++)
        if ((size_t)c->plan.saes[i]->d_out > widest) widest = (size_t)c->plan.saes[i]->d_out;
    c->seats = lp_calloc(n + 1, sizeof *c->seats);
    c->rows = lp_calloc(n + 1, sizeof *c->rows);
    c->dense = lp_calloc(d + 1, sizeof *c->dense);
    c->dense_rows = lp_calloc(d + 1, sizeof *c->dense_rows);
    c->made = lp_calloc(most * widest, sizeof *c->made);
    c->logprob = lp_calloc(most, sizeof *c->logprob);
    c->padded = lp_calloc(most, sizeof *c->padded);
    c->offset = lp_calloc(most, sizeof *c->offset);
    if (!c->seats || !c->rows || !c->dense || !c->dense_rows || !c->made || !c->logprob || !c->padded || !c->offset)
        return lp_fail(err, LP_E_MEMORY, "no memory for %zu rows under %zu SAEs", most, n);
    for (size_t i = 0; i < n; i++) LP_TRY(seat_sae(c, (int)i, err));
    for (size_t i = 0; i < d; i++) LP_TRY(seat_dense(c, (int)i, err));
    if (!c->plan.has_logprob) return LP_OK;
    lp_hook h = {.site = LP_LOGITS, .layer = LP_WHOLE_MODEL, .fn = on_logits, .user = c};
    c->logits_handle = lp_session_hook(c->s, h, err);
    return c->logits_handle < 0 ? (lp_status)c->logits_handle : LP_OK;
}

lp_status lp_collector_new(lp_collector **out, const lp_model *m, const lp_collect_plan *p, const lp_env *env,
                           lp_error *err)
{
    lp_collector *c = lp_calloc(1, sizeof *c);
    if (!c) return lp_fail(err, LP_E_MEMORY, "out of memory");
    c->plan = *p;
    lp_session_options o = {.arithmetic = p->arithmetic, .wave = p->wave, .n_ctx = p->context};
    lp_env quiet = env ? *env : (lp_env){0};
    quiet.progress = NULL; /* a window's own progress is nobody's business */
    if (o.n_ctx > m->config.max_positions) o.n_ctx = m->config.max_positions;
    if (!o.wave && o.n_ctx < 512) o.n_ctx = m->config.max_positions < 512 ? m->config.max_positions : 512;
    lp_status st = lp_session_new(&c->s, m, &o, &quiet, err);
    if (st == LP_OK) {
        c->most = lp_session_get_options(c->s)->wave;
        st = take_seats(c, err);
    }
    if (st == LP_OK)
        *out = c;
    else
        lp_collector_free(c);
    return st;
}

static void leave(lp_collector *c, place *p)
{
    if (p->x) lp_big_free(p->x, (size_t)c->most * (size_t)p->width * sizeof *p->x);
}

void lp_collector_free(lp_collector *c)
{
    if (!c) return;
    lp_session_free(c->s);
    for (int i = 0; c->seats && i < c->plan.n_saes; i++) {
        seat *t = &c->seats[i];
        leave(c, &t->in), leave(c, &t->out);
        lp_encoder_free(t->encoder);
        lp_features_free(&t->f);
        free(t->sqerr), free(t->norm2);
    }
    for (int i = 0; c->dense && i < c->plan.n_dense; i++) leave(c, &c->dense[i]);
    free(c->seats), free(c->rows), free(c->dense), free(c->dense_rows);
    free(c->made), free(c->logprob), free(c->padded), free(c->offset);
    free(c);
}

/* ---- windows ----------------------------------------------------------------------------------------------------- */

static void begin(lp_collector *c, int n, int first)
{
    c->n = n, c->first = first, c->st = LP_OK;
    for (int i = 0; i < c->plan.n_saes; i++) c->seats[i].in.rows = c->seats[i].out.rows = 0;
    for (int i = 0; i < c->plan.n_dense; i++) c->dense[i].rows = 0;
}

/* An evaluation's end: a hook's own error goes before "stopped by a hook". */
static lp_status end(lp_collector *c, lp_status st, lp_shard_block *out, lp_error *err)
{
    if (c->st != LP_OK) {
        if (err) *err = c->err;
        return c->st;
    }
    LP_TRY(st);
    out->n = c->n;
    out->saes = c->rows;
    out->dense = c->dense_rows;
    out->logprob = c->plan.has_logprob ? c->logprob : NULL;
    return LP_OK;
}

lp_status lp_collector_windows(lp_collector *c, const int *ids, const int *length, int n, lp_shard_block *out,
                               lp_error *err)
{
    int each = 0, all = 0;
    for (int i = 0; i < n; i++) {
        c->offset[i] = all;
        all += length[i];
        if (length[i] > each) each = length[i];
    }
    for (int i = 0, *to = c->padded; i < n; i++, to += each)
        for (int j = 0; j < each; j++) to[j] = j < length[i] ? ids[c->offset[i] + j] : 0;
    begin(c, all, 0);
    c->length = length;
    LP_TRY(lp_session_rewind(c->s, 0, err));
    return end(c, lp_session_peek_branches(c->s, c->padded, each, n, c->last_layer, err), out, err);
}

lp_status lp_collector_chunk(lp_collector *c, const int *ids, int n, int next, bool is_first, lp_shard_block *out,
                             lp_error *err)
{
    if (is_first) LP_TRY(lp_session_rewind(c->s, 0, err));
    begin(c, n, lp_session_pos(c->s));
    c->ids = ids, c->next = next, c->one = n;
    c->length = &c->one;
    c->offset[0] = 0;
    return end(c, lp_session_eval(c->s, ids, (size_t)n, err), out, err);
}
