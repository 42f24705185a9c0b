/* reader.c - see reader.h. */
#include "sae/reader.h"

#include "core/trace.h"

#include <stdlib.h>
#include <string.h>

/* One SAE on the session. */
typedef struct seat {
    lp_reader *r;
    const lp_sae *s;
    lp_encoder *encoder;    /* shared by seats of the same weights, which take turns; the first owns it */
    lp_features wave, kept; /* of the rows passing now; of all positions       */
    float *made;            /* [capacity rows][d_out] reconstructions of the wave  */
    size_t capacity;
    lp_meter *meter;
    int in, out; /* handles; 0: none */
} seat;

struct lp_reader {
    lp_session *session;
    lp_reader_options o;
    seat *seats;
    int n, first; /* first: position of row 0; -1 before any row */
    lp_error err;
};

/* ---- does it fit ------------------------------------------------------------------------------------------------- */

static lp_status check_spot(const lp_sae *s, const lp_config *c, lp_site site, int layer, int width, lp_error *err)
{
    if (site == LP_N_SITES)
        return lp_fail(err, LP_E_NOT_FOUND, "%s does not say which site it reads; say it (--site resid_post.20)",
                       s->name);
    if (lp_site_has_layer(site) && (layer < 0 || layer >= c->n_layers))
        return lp_fail(err, LP_E_NOT_FOUND, "%s reads layer %d; this model has layers 0 to %d", s->name, layer,
                       c->n_layers - 1);
    int heads, each;
    lp_site_shape(c, site, 0, &heads, &each);
    int has = (heads ? heads : 1) * each;
    if (has == width) return LP_OK;
    return lp_fail(err, LP_E_SHAPE, "%s reads rows of %d; %s of this model (%s) is %d wide", s->name, width,
                   lp_site_name(site), lp_config_family(c), has);
}

lp_status lp_sae_fits(const lp_sae *s, const lp_config *c, lp_error *err)
{
    LP_TRY(check_spot(s, c, s->spot.site, s->spot.layer, s->d_in, err));
    return check_spot(s, c, s->spot.site_out, s->spot.layer_out, s->d_out, err);
}

/* ---- what passes ------------------------------------------------------------------------------------------------- */

static bool append(lp_features *to, const lp_features *rows, int at)
{
    size_t old = at ? to->start[at] : 0, more = rows->start[rows->n_rows];
    if (!lp_grow((void **)&to->start, &to->capacity_rows, (size_t)(at + rows->n_rows + 1), sizeof *to->start) ||
        !lp_grow((void **)&to->index, &to->capacity_index, old + more, sizeof *to->index) ||
        !lp_grow((void **)&to->value, &to->capacity_values, old + more, sizeof *to->value))
        return false;
    if (more) {
        memcpy(to->index + old, rows->index, more * sizeof *to->index);
        memcpy(to->value + old, rows->value, more * sizeof *to->value);
    }
    to->start[0] = 0;
    for (int r = 0; r < rows->n_rows; r++) to->start[at + r + 1] = old + rows->start[r + 1];
    to->n_rows = at + rows->n_rows;
    return true;
}

/* Keeps the wave's features as rows from position pos on. */
static lp_status keep(seat *t, int pos)
{
    lp_reader *r = t->r;
    if (r->first < 0 || pos < r->first) r->first = pos;
    int at = pos - r->first;
    if (at > t->kept.n_rows)
        return lp_fail(&r->err, LP_E_RANGE, "positions %d to %d passed before the reader was there",
                       r->first + t->kept.n_rows, pos - 1);
    if (!append(&t->kept, &t->wave, at))
        return lp_fail(&r->err, LP_E_MEMORY, "no memory for the features of %s", t->s->name);
    return LP_OK;
}

static bool counts(const lp_reader *r, int pos)
{
    return pos >= r->o.n_leave || !r->o.leave || !r->o.leave[pos];
}

static void compare(seat *t, const lp_act *act)
{
    size_t width = (size_t)t->s->d_out;
    for (int i = 0; i < act->rows; i++)
        if (counts(t->r, act->pos + i))
            lp_meter_add(t->meter, &t->wave, i, act->x + (size_t)i * width, t->made + (size_t)i * width);
}

static lp_status reconstruct(seat *t, const lp_act *act)
{
    if (!lp_grow((void **)&t->made, &t->capacity, (size_t)act->rows * (size_t)t->s->d_out, sizeof *t->made))
        return lp_fail(&t->r->err, LP_E_MEMORY, "no memory for the reconstructions of %s", t->s->name);
    lp_decode(t->made, t->encoder, &t->wave, act->x);
    return LP_OK;
}

static int on_input(lp_act *act, void *user)
{
    seat *t = user;
    lp_status st = lp_encode(&t->wave, t->encoder, act->x, act->rows, &t->r->err);
    if (st == LP_CANCELLED) return 0; /* the evaluation sees the same flag and says so */
    if (st == LP_OK && !t->r->o.keeps_nothing) st = keep(t, act->pos);
    if (st == LP_OK && t->meter) st = reconstruct(t, act);
    if (st == LP_OK && t->meter && !t->out) compare(t, act);
    return st != LP_OK;
}

/* What a transcoder predicts; its input passed earlier in the same wave. */
static int on_target(lp_act *act, void *user)
{
    seat *t = user;
    if (t->wave.n_rows == act->rows) compare(t, act);
    return 0;
}

/* ---- the reader -------------------------------------------------------------------------------------------------- */

/* The encoder of an earlier seat with the same weights (a copy of the SAE that reads elsewhere), or NULL. */
static lp_encoder *shared_encoder(const lp_reader *r, const seat *t)
{
    for (const seat *other = r->seats; other < t; other++)
        if (other->s->encoder.data == t->s->encoder.data) return other->encoder;
    return NULL;
}

static lp_status sit_down(seat *t, lp_reader *r, const lp_sae *s, lp_meter *meter, lp_error *err)
{
    const lp_session_options *o = lp_session_get_options(r->session);
    *t = (seat){.r = r, .s = s, .meter = meter};
    LP_TRY(lp_sae_fits(s, &lp_session_model(r->session)->config, err));
    t->encoder = shared_encoder(r, t);
    if (!t->encoder) LP_TRY(lp_encoder_new(&t->encoder, s, o->arithmetic, lp_session_env(r->session), err));
    lp_hook in = {.site = s->spot.site, .layer = s->spot.layer, .fn = on_input, .user = t};
    t->in = lp_session_hook(r->session, in, err);
    if (t->in < 0) return (lp_status)t->in;
    if (!meter || !s->spot.is_coder) return LP_OK;
    lp_hook out = {.site = s->spot.site_out, .layer = s->spot.layer_out, .fn = on_target, .user = t};
    t->out = lp_session_hook(r->session, out, err);
    return t->out < 0 ? (lp_status)t->out : LP_OK;
}

lp_status lp_reader_new(lp_reader **out, lp_session *s, const lp_sae *const *saes, int n, const lp_reader_options *o,
                        lp_error *err)
{
    lp_reader *r = lp_calloc(1, sizeof *r);
    lp_status st = LP_OK;
    if (!r || !(r->seats = lp_calloc((size_t)(n ? n : 1), sizeof *r->seats))) {
        st = lp_fail(err, LP_E_MEMORY, "out of memory");
        goto out;
    }
    r->session = s;
    r->first = -1;
    if (o) r->o = *o;
    for (int i = 0; i < n && st == LP_OK; i++) {
        r->n = i + 1;
        st = sit_down(&r->seats[i], r, saes[i], r->o.meters ? &r->o.meters[i] : NULL, err);
    }
    if (st == LP_OK) {
        *out = r;
        r = NULL;
    }
out:
    lp_reader_free(r);
    return st;
}

void lp_reader_free(lp_reader *r)
{
    if (!r) return;
    for (int i = r->n; i-- > 0;) { /* backwards: a shared encoder goes with its owner, the first */
        seat *t = &r->seats[i];
        if (t->in > 0) lp_session_unhook(r->session, t->in);
        if (t->out > 0) lp_session_unhook(r->session, t->out);
        if (!shared_encoder(r, t)) lp_encoder_free(t->encoder);
        lp_features_free(&t->wave);
        lp_features_free(&t->kept);
        free(t->made);
    }
    free(r->seats);
    free(r);
}

lp_status lp_reader_explain(lp_reader *r, lp_status st, lp_error *err)
{
    if (st != LP_STOPPED || r->err.status >= 0) return st;
    if (err) *err = r->err;
    st = r->err.status;
    r->err = (lp_error){0};
    return st;
}

const lp_features *lp_reader_features(const lp_reader *r, int sae)
{
    return &r->seats[sae].kept;
}

int lp_reader_first(const lp_reader *r)
{
    return r->first < 0 ? 0 : r->first;
}
