/* hooks.c - the table of who watches, showing them a wave, and the tape. Names of the sites are in sites.c. */
#include "core/wave.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- who watches ------------------------------------------------------------------------------------------------- */

static void rearm(lp_session *s)
{
    memset(s->armed, 0, sizeof s->armed);
    for (size_t i = 0; i < s->n_hooks; i++) {
        const lp_hook *h = &s->hooks[i].hook;
        uint32_t bit = 1u << h->site;
        if (h->layer == LP_WHOLE_MODEL)
            s->armed[LP_WHOLE] |= bit;
        else if (h->layer >= 0)
            s->armed[h->layer] |= bit;
        else
            for (int l = 0; l < s->model->config.n_layers; l++) s->armed[l] |= bit;
    }
}

static lp_status check_hook(const lp_session *s, const lp_hook *h, lp_error *err)
{
    if ((int)h->site < 0 || h->site >= LP_N_SITES) return lp_fail(err, LP_E_RANGE, "no such site: %d", (int)h->site);
    if (!h->fn) return lp_fail(err, LP_E_RANGE, "a hook on %s without a function", lp_site_name(h->site));
    int L = s->model->config.n_layers;
    if (!lp_site_has_layer(h->site) && h->layer != LP_WHOLE_MODEL)
        return lp_fail(err, LP_E_RANGE, "%s has no layers; hook it with LP_WHOLE_MODEL", lp_site_name(h->site));
    if (lp_site_has_layer(h->site) && h->layer != LP_EVERY_LAYER && (h->layer < 0 || h->layer >= L))
        return lp_fail(err, LP_E_RANGE, "%s of layer %d: this model has layers 0 to %d", lp_site_name(h->site),
                       h->layer, L - 1);
    return LP_OK;
}

lp_status lp_session_take_logit_rows(lp_session *s, lp_error *err)
{
    if (s->logit_rows) return LP_OK;
    s->logit_rows = lp_calloc((size_t)LP_LOGIT_ROWS * (size_t)s->model->config.vocab, sizeof *s->logit_rows);
    return s->logit_rows ? LP_OK : lp_fail(err, LP_E_MEMORY, "no room for the logits of %d rows", LP_LOGIT_ROWS);
}

int lp_session_hook(lp_session *s, lp_hook h, lp_error *err)
{
    if (s->is_busy) return lp_fail(err, LP_E_RANGE, "hooks cannot be added from inside a hook");
    lp_status st = check_hook(s, &h, err);
    if (st != LP_OK) return st;
    /* Watching every row's logits needs a place for them; taken now, since eval allocates nothing. */
    if (h.site == LP_LOGITS || h.site == LP_LOGITS_RAW) {
        st = lp_session_take_logit_rows(s, err);
        if (st != LP_OK) return st;
    }
    if (!lp_grow((void **)&s->hooks, &s->hooks_capacity, s->n_hooks + 1, sizeof *s->hooks))
        return lp_fail(err, LP_E_MEMORY, "out of memory");
    s->hooks[s->n_hooks++] = (lp_hook_row){h, ++s->last_handle};
    rearm(s);
    return s->last_handle;
}

void lp_session_unhook(lp_session *s, int handle)
{
    assert(!s->is_busy);
    for (size_t i = 0; i < s->n_hooks; i++) {
        if (s->hooks[i].handle != handle) continue;
        memmove(&s->hooks[i], &s->hooks[i + 1], (s->n_hooks - i - 1) * sizeof *s->hooks);
        s->n_hooks--;
        break;
    }
    rearm(s);
}

/* ---- showing ----------------------------------------------------------------------------------------------------- */

#ifndef NDEBUG
/* FNV-1a over the bits: a hook added as a reader must leave every one of them alone. */
static uint64_t checksum(const lp_act *a)
{
    const unsigned char *p = (const unsigned char *)a->x;
    size_t n = (size_t)a->rows * (size_t)a->heads * (size_t)a->width * sizeof *a->x;
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 1099511628211u;
    return h;
}
#endif

static lp_status fire(lp_wave *w, const lp_hook *h, const lp_act *shown)
{
    lp_act act = *shown; /* a copy: what the hook does to the struct is its own affair */
#ifndef NDEBUG
    uint64_t before = h->edits ? 0 : checksum(shown);
#endif
    int stop = h->fn(&act, h->user);
#ifndef NDEBUG
    if (!h->edits && checksum(shown) != before)
        return lp_fail(w->err, LP_E_RANGE, "a hook on %s wrote there but was added with edits = false",
                       lp_site_name(h->site));
#endif
    if (stop)
        return lp_fail(w->err, LP_STOPPED, "stopped by a hook on %s at layer %d", lp_site_name(h->site), shown->layer);
    return LP_OK;
}

static lp_status show_all(lp_wave *w, const lp_act *act)
{
    for (size_t i = 0; i < w->s->n_hooks; i++) {
        const lp_hook *h = &w->s->hooks[i].hook;
        if (h->site == act->site && (h->layer == w->layer || (h->layer == LP_EVERY_LAYER && w->layer >= 0)))
            LP_TRY(fire(w, h, act));
    }
    return LP_OK;
}

lp_status lp_wave_show(lp_wave *w, lp_site site, int r, int rows, float *x, int heads, int width)
{
    lp_act act = {.site = site, .layer = w->layer, .heads = heads, .width = width, .x = x};
    for (int end = r + rows; r < end; r += act.rows) {
        int left = w->each - r % w->each; /* of this branch */
        act.rows = left < end - r ? left : end - r;
        act.pos = lp_row_pos(w, r);
        act.branch = w->branch + r / w->each;
        LP_TRY(show_all(w, &act));
        act.x += (size_t)act.rows * (size_t)heads * (size_t)width;
    }
    return LP_OK;
}

/* ---- the tape ---------------------------------------------------------------------------------------------------- */

static int record(lp_act *act, void *user)
{
    lp_tape *t = user;
    int slab = t->n_layers > 1 && act->layer >= 0 ? act->layer : 0, T = t->heads > 1 ? t->heads : 1;
    if (slab >= t->n_layers) return 0;
    /* Rows of SCORES and PATTERN grow with the position, so each head has a place of fixed width of its own. */
    int part = T > 1 ? t->width / T : t->width, heads = T > 1 ? act->heads : 1;
    int width = T > 1 ? act->width : act->heads * act->width, n = width < part ? width : part;
    for (int r = 0; r < act->rows; r++) {
        long at = (long)act->pos + r - t->first_pos;
        if (at < 0 || at >= t->n_pos) continue;
        float *to = t->x + ((size_t)slab * (size_t)t->n_pos + (size_t)at) * (size_t)t->width;
        for (int h = 0; h < heads && h < T; h++)
            memcpy(to + (size_t)h * (size_t)part, act->x + ((size_t)r * (size_t)heads + (size_t)h) * (size_t)width,
                   (size_t)n * sizeof *to);
    }
    return 0;
}

lp_hook lp_tap(lp_site site, int layer, lp_tape *t)
{
    return (lp_hook){.site = site, .layer = layer, .fn = record, .user = t};
}
