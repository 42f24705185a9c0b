/* steer.c - see steer.h: a recipe becomes places with hooks.
 *
 * A place is a site of a layer where something is read or written; it has one hook (steer_row.c).  Sites pass in the
 * order of their numbers within a layer, so whether a condition is known before the edit it decides is a comparison,
 * and since it must be, no edits can wait for each other in a circle.
 */
#include "sae/reader.h"
#include "sae/steer_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static lp_status no_memory(lp_error *err)
{
    return lp_fail(err, LP_E_MEMORY, "no memory to steer with");
}

const char *lp_steer_status_name(lp_steer_status s)
{
    static const char *const names[] = {"plain", "reached", "missed", "below threshold", "dependent", "not linear"};
    return s >= LP_STEER_PLAIN && s <= LP_STEER_NOT_LINEAR ? names[s] : "unknown";
}

/* ---- setting up -------------------------------------------------------------------------------------------------- */

/* Sites are numbered in the order in which they pass. */
static long order_of(const lp_config *c, lp_site site, int layer)
{
    if (!lp_site_has_layer(site)) layer = site <= LP_EMBED ? -1 : c->n_layers;
    return (long)layer * LP_N_SITES + (long)site;
}

static const lp_config *config_of(const lp_steer *st)
{
    return &lp_session_model(st->session)->config;
}

/* "google/gemma-2-2b" is gemma-2-2b. */
static bool is_same_model(const char *a, const char *b)
{
    const char *slash_a = strrchr(a, '/'), *slash_b = strrchr(b, '/');
    return strcmp(slash_a ? slash_a + 1 : a, slash_b ? slash_b + 1 : b) == 0;
}

/* The source of that name, which must have the feature. */
static lp_status find_source(int *out, lp_steer *st, const lp_sae *const *saes, int n, const char *name, int index,
                             lp_error *err)
{
    const lp_sae *s = NULL;
    const char *model = st->recipe->model;
    for (int i = 0; i < n && !s; i++)
        if (strcmp(saes[i]->name, name) == 0) s = saes[i];
    if (!s) return lp_fail(err, LP_E_NOT_FOUND, "%s: not among the %d SAEs opened; open it too", name, n);
    if (index >= s->d_sae)
        return lp_fail(err, LP_E_RANGE, "%s #%d: its features are 0 to %d", name, index, s->d_sae - 1);
    if (model && s->model_name && !is_same_model(model, s->model_name))
        return lp_fail(err, LP_E_SHAPE, "%s is an SAE of %s, the recipe is for %s", name, s->model_name, model);
    LP_TRY(lp_sae_fits(s, config_of(st), err));
    for (*out = 0; *out < st->n_sources; ++*out)
        if (st->sources[*out].sae == s) return LP_OK;
    st->sources[st->n_sources++].sae = s;
    return LP_OK;
}

static lp_steer_place *find_place(lp_steer *st, lp_site site, int layer)
{
    if (!lp_site_has_layer(site)) layer = LP_WHOLE_MODEL;
    int i = 0;
    while (i < st->n_places && (st->places[i].site != site || st->places[i].layer != layer)) i++;
    lp_steer_place *p = &st->places[i];
    if (i < st->n_places) return p;
    *p = (lp_steer_place){.st = st, .site = site, .layer = layer, .base = -1};
    st->n_places++;
    return p;
}

static lp_status want_encoder(lp_steer *st, int k, lp_error *err)
{
    lp_steer_source *s = &st->sources[k];
    find_place(st, s->sae->spot.site, s->sae->spot.layer);
    if (s->encoder) return LP_OK;
    lp_arithmetic a = lp_session_get_options(st->session)->arithmetic;
    return lp_encoder_new(&s->encoder, s->sae, a, lp_session_env(st->session), err);
}

/* What the edit reads must have passed when it is made. */
static lp_status check_order(const lp_steer *st, const lp_steer_edit *e, int k, int feature, const char *what,
                             lp_error *err)
{
    const lp_sae *s = st->sources[e->source].sae, *by = st->sources[k].sae;
    const lp_config *c = config_of(st);
    if (order_of(c, by->spot.site, by->spot.layer) <= order_of(c, s->spot.site_out, s->spot.layer_out)) return LP_OK;
    char here[LP_SPOT_TEXT], there[LP_SPOT_TEXT];
    return lp_fail(err, LP_E_UNSUPPORTED,
                   "%s #%d is edited at %s, before %s %s #%d passes at %s; take a feature of an earlier place", s->name,
                   e->r->index, lp_sae_place_text(here, s->spot.site_out, s->spot.layer_out), what, by->name, feature,
                   lp_sae_place_text(there, by->spot.site, by->spot.layer));
}

/* One SAE's reconstruction can take the place of a row, not two. */
static lp_status take_base(lp_steer *st, lp_steer_place *p, const lp_steer_edit *e, lp_error *err)
{
    if (e->r->kind != LP_RECIPE_REPLACE && !st->recipe->drops_error) return LP_OK;
    if (p->base >= 0 && p->base != e->source)
        return lp_fail(err, LP_E_UNSUPPORTED,
                       "%s and %s would both replace %s by their reconstruction; keep the error term of one",
                       st->sources[p->base].sae->name, st->sources[e->source].sae->name,
                       lp_sae_place_text((char[LP_SPOT_TEXT]){0}, p->site, p->layer));
    p->base = e->source;
    return LP_OK;
}

static lp_status add_edit(lp_steer *st, int i, const lp_sae *const *saes, int n, lp_error *err)
{
    lp_steer_edit *e = &st->edits[i];
    *e = (lp_steer_edit){.r = &st->recipe->edits[i], .when = -1, .joint = -1};
    LP_TRY(find_source(&e->source, st, saes, n, e->r->source, e->r->index, err));
    LP_TRY(lp_recipe_amount(&e->amount, e->r, err));
    const lp_sae *s = st->sources[e->source].sae;
    LP_TRY(check_order(st, e, e->source, e->r->index, "itself,", err));
    if (lp_steer_wants_feature(st, e)) LP_TRY(want_encoder(st, e->source, err));
    if (e->r->when.source) {
        LP_TRY(find_source(&e->when, st, saes, n, e->r->when.source, e->r->when.index, err));
        LP_TRY(check_order(st, e, e->when, e->r->when.index, "its condition", err));
        LP_TRY(want_encoder(st, e->when, err));
    }
    lp_steer_place *p = find_place(st, s->spot.site_out, s->spot.layer_out);
    LP_TRY(take_base(st, p, e, err));
    if (!lp_grow((void **)&p->edits, &p->edits_capacity, (size_t)p->n_edits + 1, sizeof *p->edits))
        return no_memory(err);
    p->edits[p->n_edits++] = i;
    p->width = s->d_out;
    if (!(e->d = lp_calloc((size_t)s->d_out, sizeof *e->d))) return no_memory(err);
    lp_sae_decoder_row(s, e->r->index, e->d);
    double squares = 0;
    for (int k = 0; k < s->d_out; k++) squares += (double)e->d[k] * (double)e->d[k];
    e->length = sqrt(squares);
    return LP_OK;
}

static lp_status join(lp_steer *st, lp_steer_place *p, lp_error *err)
{
    const lp_sae *saes[LP_JOINT_FEATURES];
    int features[LP_JOINT_FEATURES], n = 0;
    for (int i = 0; i < p->n_edits; i++) {
        lp_steer_edit *e = &st->edits[p->edits[i]];
        const lp_sae *s = st->sources[e->source].sae;
        if (e->r->kind != LP_RECIPE_CLAMP) continue;
        if (!lp_steer_reads_at(s, p))
            return lp_fail(
                err, LP_E_UNSUPPORTED,
                "joint: %s does not read what it writes, so clamping does not change its features; take joint "
                "out",
                s->name);
        e->joint = lp_joint_is_linear(s) ? n : -2;
        if (e->joint < 0) continue;
        if (n < LP_JOINT_FEATURES) saes[n] = s, features[n] = e->r->index;
        n++;
    }
    return n ? lp_joint_new(&p->joint, saes, features, n, err) : LP_OK;
}

static lp_status hook(lp_steer *st, lp_error *err)
{
    for (int i = 0; i < st->n_places; i++) {
        lp_steer_place *p = &st->places[i];
        lp_hook h = {.site = p->site, .layer = p->layer, .edits = p->n_edits > 0, .fn = lp_steer_pass, .user = p};
        int handle = lp_session_hook(st->session, h, err);
        if (handle < 0) return (lp_status)handle;
        p->handle = handle;
    }
    return LP_OK;
}

static lp_status set_up(lp_steer *st, const lp_sae *const *saes, int n_saes, const lp_steer_context *context,
                        lp_error *err)
{
    const lp_recipe *r = st->recipe;
    const lp_model *m = lp_session_model(st->session);
    LP_TRY(lp_recipe_check(r, err));
    LP_TRY(lp_scopes_new(&st->scopes, r, m->tokenizer, m->config.bos, err));
    LP_TRY(lp_steer_prompt(st, context, err));
    st->sources = lp_calloc((size_t)n_saes + 1, sizeof *st->sources);
    st->edits = lp_calloc(r->n_edits + 1, sizeof *st->edits);
    st->work = lp_calloc(r->n_edits + 1, sizeof *st->work);
    st->places = lp_calloc(2 * (size_t)n_saes + 1, sizeof *st->places); /* where each reads, where each writes */
    if (!st->sources || !st->edits || !st->work || !st->places) return no_memory(err);
    size_t widest = 1;
    for (size_t i = 0; i < r->n_edits; i++) LP_TRY(add_edit(st, (int)i, saes, n_saes, err));
    for (int i = 0; i < st->n_places; i++) {
        if ((size_t)st->places[i].width > widest) widest = (size_t)st->places[i].width;
        if (r->is_joint) LP_TRY(join(st, &st->places[i], err));
    }
    st->delta = lp_calloc(widest, sizeof *st->delta);
    st->sum = lp_calloc(widest, sizeof *st->sum);
    st->base = lp_calloc(widest, sizeof *st->base);
    return st->delta && st->sum && st->base ? hook(st, err) : no_memory(err);
}

lp_status lp_steer_new(lp_steer **out, lp_session *s, const lp_recipe *r, const lp_sae *const *saes, int n_saes,
                       const lp_steer_context *context, lp_error *err)
{
    lp_steer *st = lp_calloc(1, sizeof *st);
    if (!st) return no_memory(err);
    st->session = s;
    st->recipe = r;
    st->reads_back = context->reads_back != 0;
    lp_status status = set_up(st, saes, n_saes, context, err);
    if (status == LP_OK)
        *out = st;
    else
        lp_steer_free(st);
    return status;
}

void lp_steer_free(lp_steer *st)
{
    if (!st) return;
    for (int i = 0; i < st->n_places; i++) {
        lp_steer_place *p = &st->places[i];
        if (p->handle > 0) lp_session_unhook(st->session, p->handle);
        lp_joint_free(p->joint);
        free(p->edits);
        free(p->readings);
        free(p->moves);
    }
    for (int k = 0; k < st->n_sources; k++) {
        lp_steer_source *s = &st->sources[k];
        lp_encoder_free(s->encoder);
        lp_features_free(&s->f);
        lp_features_free(&s->after);
        free(s->row);
        free(s->x);
    }
    for (size_t i = 0; st->edits && i < st->recipe->n_edits; i++) free(st->edits[i].d);
    lp_features_free(&st->one);
    lp_scopes_free(st->scopes);
    free(st->sources);
    free(st->edits);
    free(st->places);
    free(st->work);
    free(st->delta);
    free(st->sum);
    free(st->base);
    free(st);
}

/* ---- tokens and results ------------------------------------------------------------------------------------------ */

lp_status lp_steer_prompt(lp_steer *st, const lp_steer_context *context, lp_error *err)
{
    return lp_scopes_prompt(st->scopes, context, err);
}

lp_status lp_steer_token(lp_steer *st, int pos, int id, lp_error *err)
{
    return lp_scopes_token(st->scopes, pos, id, err);
}

int lp_steer_generated(const lp_generated *token, void *steer)
{
    lp_steer *st = steer;
    return lp_steer_token(st, token->pos, token->id, &st->err) != LP_OK;
}

lp_status lp_steer_explain(lp_steer *st, lp_status status, lp_error *err)
{
    if (status != LP_STOPPED || st->err.status == LP_OK) return status;
    if (err) *err = st->err;
    status = st->err.status;
    st->err = (lp_error){0};
    return status;
}

static int compare_readings(const void *a, const void *b)
{
    const lp_steer_reading *x = a, *y = b;
    return x->pos != y->pos ? (x->pos > y->pos) - (x->pos < y->pos) : (x->edit > y->edit) - (x->edit < y->edit);
}

static int compare_moves(const void *a, const void *b)
{
    const lp_steer_move *x = a, *y = b;
    if (x->pos != y->pos) return x->pos < y->pos ? -1 : 1;
    if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
    return (x->site > y->site) - (x->site < y->site);
}

lp_status lp_steer_readback(lp_steer_reading **out, size_t *n, const lp_steer *st, lp_error *err)
{
    size_t most = 1;
    for (int i = 0; i < st->n_places; i++) most += st->places[i].n_readings;
    lp_steer_reading *all = lp_calloc(most, sizeof *all);
    if (!all) return no_memory(err);
    *n = 0;
    for (int i = 0; i < st->n_places; i++)
        for (size_t k = 0; k < st->places[i].n_readings; k++)
            if (st->places[i].readings[k].pos < lp_session_pos(st->session)) all[(*n)++] = st->places[i].readings[k];
    qsort(all, *n, sizeof *all, compare_readings);
    *out = all;
    return LP_OK;
}

lp_status lp_steer_moves(lp_steer_move **out, size_t *n, const lp_steer *st, lp_error *err)
{
    size_t most = 1;
    for (int i = 0; i < st->n_places; i++) most += st->places[i].n_moves;
    lp_steer_move *all = lp_calloc(most, sizeof *all);
    if (!all) return no_memory(err);
    *n = 0;
    for (int i = 0; i < st->n_places; i++)
        for (size_t k = 0; k < st->places[i].n_moves; k++)
            if (st->places[i].moves[k].pos < lp_session_pos(st->session)) all[(*n)++] = st->places[i].moves[k];
    qsort(all, *n, sizeof *all, compare_moves);
    *out = all;
    return LP_OK;
}
