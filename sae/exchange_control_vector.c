/* exchange_control_vector.c - see exchange.h: llama.cpp's control vectors, read and written. */
#include "core/config.h"
#include "core/gguf.h"
#include "sae/direction.h"
#include "sae/exchange_parts.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static lp_status no_memory(lp_error *err)
{
    return lp_fail(err, LP_E_MEMORY, "no memory for a control vector");
}

/* ---- to them ----------------------------------------------------------------------------------------------------- */

typedef struct sums {
    double *at[LP_MAX_LAYERS]; /* [width] what is added behind each layer; NULL: nothing */
    int width;                 /* 0: none yet                                            */
    uint32_t n;
    float *row; /* [width] */
    lp_losses lost;
} sums;

static lp_status add_row(sums *w, const lp_recipe_edit *e, const lp_sae *s, double amount, lp_error *err)
{
    int layer = s->spot.layer_out;
    if (!w->width) w->width = s->d_out;
    if (s->d_out != w->width)
        return lp_fail(err, LP_E_SHAPE, "%s writes rows of %d, the SAEs before it of %d: of two models", e->source,
                       s->d_out, w->width);
    if (!w->row && !(w->row = lp_calloc((size_t)w->width, sizeof *w->row))) return no_memory(err);
    if (!w->at[layer] && !(w->at[layer] = lp_calloc((size_t)w->width, sizeof **w->at))) return no_memory(err);
    lp_sae_decoder_row(s, e->index, w->row);
    for (int i = 0; i < w->width; i++) w->at[layer][i] += amount * (double)w->row[i];
    return LP_OK;
}

static lp_status add_edit(sums *w, const lp_recipe *r, const lp_recipe_edit *e, const lp_sae *const *saes, int n_saes,
                          lp_error *err)
{
    double amount = 0;
    lp_lose_places(&w->lost, r, e);
    if (e->kind != LP_RECIPE_ADD) {
        char what[80];
        snprintf(what, sizeof what, "every %s (it only adds)", lp_recipe_kind_name(e->kind));
        lp_lose(&w->lost, what);
        return LP_OK;
    }
    const lp_sae *s;
    bool has_amount = lp_lose_amount(&w->lost, &amount, e);
    LP_TRY(lp_exchange_sae(&s, e, saes, n_saes, err));
    bool is_resid = s->spot.site_out == LP_RESID_POST, is_first = is_resid && s->spot.layer_out == 0;
    if (!is_resid) lp_lose(&w->lost, "edits elsewhere than in the residual stream behind a layer (resid_post)");
    if (is_first) lp_lose(&w->lost, "edits behind layer 0 (llama.cpp begins at layer 1)");
    return is_resid && !is_first && has_amount ? add_row(w, e, s, amount, err) : LP_OK;
}

/* Metadata and declarations; the tensors in the order of their layers. */
static lp_status declare(lp_gguf_writer *g, const sums *w, const lp_recipe *r, lp_error *err)
{
    const int64_t shape = w->width;
    LP_TRY(lp_gguf_put_string(g, "general.architecture", "controlvector", err));
    if (r->name) LP_TRY(lp_gguf_put_string(g, "general.name", r->name, err));
    if (r->description) LP_TRY(lp_gguf_put_string(g, "general.description", r->description, err));
    LP_TRY(lp_gguf_put_string(g, "controlvector.model_hint", "gemma2", err));
    LP_TRY(lp_gguf_put_u32(g, "controlvector.layer_count", w->n, err));
    for (int layer = 0; layer < LP_MAX_LAYERS; layer++) {
        char name[32];
        snprintf(name, sizeof name, "direction.%d", layer);
        if (w->at[layer]) LP_TRY(lp_gguf_declare(g, name, LP_F32, 1, &shape, err));
    }
    return LP_OK;
}

static lp_status write_all(const char *path, const sums *w, const lp_recipe *r, lp_error *err)
{
    lp_gguf_writer *g = NULL;
    LP_TRY(lp_gguf_create(&g, path, err));
    lp_status st = declare(g, w, r, err);
    if (st == LP_OK) st = lp_gguf_begin(g, err);
    for (int layer = 0; layer < LP_MAX_LAYERS && st == LP_OK; layer++) {
        for (int i = 0; i < w->width && w->at[layer]; i++) w->row[i] = (float)w->at[layer][i] + 0.0f;
        if (w->at[layer]) st = lp_gguf_write(g, w->row, (size_t)w->width * sizeof *w->row, err);
    }
    if (st == LP_OK) st = lp_gguf_end(g, err);
    lp_gguf_writer_close(g);
    return st;
}

/* Counts the directions; none may be beyond a float. */
static lp_status check_sums(sums *w, lp_error *err)
{
    for (int layer = 0; layer < LP_MAX_LAYERS; layer++) {
        w->n += w->at[layer] != NULL;
        for (int i = 0; i < w->width && w->at[layer]; i++)
            if (!(fabs(w->at[layer][i]) <= (double)FLT_MAX))
                return lp_fail(err, LP_E_RANGE, "layer %d: what is added there is beyond what a float holds", layer);
    }
    return LP_OK;
}

lp_status lp_recipe_to_control_vector(const char *path, const lp_recipe *r, const lp_sae *const *saes, int n_saes,
                                      lp_error *err)
{
    sums w = {0};
    lp_status st = LP_OK;
    lp_lose_whole(&w.lost, r);
    if (!r->n_edits) lp_lose(&w.lost, "a recipe without an edit");
    for (size_t i = 0; i < r->n_edits && st == LP_OK; i++) st = add_edit(&w, r, &r->edits[i], saes, n_saes, err);
    if (st == LP_OK && w.lost.text[0])
        st = lp_fail(err, LP_E_UNSUPPORTED, "llama.cpp's control vector cannot say %s", w.lost.text);
    if (st == LP_OK) st = check_sums(&w, err);
    if (st == LP_OK) st = write_all(path, &w, r, err);
    for (int layer = 0; layer < LP_MAX_LAYERS; layer++) free(w.at[layer]);
    free(w.row);
    return st;
}

/* ---- from them --------------------------------------------------------------------------------------------------- */

static lp_status take_directions(lp_recipe *r, const char *path, const int *layers, size_t n, lp_error *err)
{
    r->scope = lp_exchange_scope();
    if (!(r->edits = lp_calloc(n, sizeof *r->edits))) return no_memory(err);
    for (size_t i = 0; i < n; i++) {
        lp_recipe_edit *e = &r->edits[r->n_edits++];
        *e = (lp_recipe_edit){.kind = LP_RECIPE_ADD, .strength = 1, .scope = lp_recipe_scope_default()};
        if (!(e->source = lp_format("%s/direction.%d", path, layers[i]))) return no_memory(err);
    }
    return lp_recipe_check(r, err);
}

lp_status lp_recipe_from_control_vector(lp_recipe *out, const char *path, lp_error *err)
{
    int *layers = NULL;
    size_t n = 0;
    *out = (lp_recipe){0};
    if (!lp_ends_in(path, ".gguf"))
        return lp_fail(err, LP_E_UNSUPPORTED, "%.600s: a control vector's name must end in .gguf", path);
    LP_TRY(lp_direction_list(&layers, &n, path, err));
    lp_status st = n ? take_directions(out, path, layers, n, err)
                     : lp_fail(err, LP_E_FORMAT, "%.600s: no direction in it that is not zero", path);
    free(layers);
    if (st != LP_OK) lp_recipe_clear(out);
    return st;
}
