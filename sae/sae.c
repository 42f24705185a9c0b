/* sae.c - opening an SAE, whatever its format, and looking at single features. */
#include "sae/sae.h"

#include "core/quant.h"
#include "sae/direction.h"
#include "sae/load.h"
#include "sae/names.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *lp_sae_kind_name(lp_sae_kind k)
{
    static const char *const names[] = {"standard", "jumprelu", "topk", "gated"};
    return names[k];
}

const char *lp_sae_place_text(char buf[LP_SPOT_TEXT], lp_site site, int layer)
{
    bool has_layer = site != LP_N_SITES && lp_site_has_layer(site);
    const char *name = site == LP_N_SITES ? "?" : lp_site_name(site);
    if (has_layer)
        snprintf(buf, LP_SPOT_TEXT, "%s.%d", name, layer);
    else
        snprintf(buf, LP_SPOT_TEXT, "%s", name);
    return buf;
}

const char *lp_sae_spot_text(char buf[LP_SPOT_TEXT], const lp_sae_spot *spot)
{
    char out[LP_SPOT_TEXT];
    lp_sae_place_text(buf, spot->site, spot->layer);
    if (!spot->is_coder) return buf;
    lp_sae_place_text(out, spot->site_out, spot->layer_out);
    size_t n = strlen(buf);
    snprintf(buf + n, LP_SPOT_TEXT - n, " to %s", out);
    return buf;
}

typedef enum layout { NPZ, LENS, DIRECTION } layout;

static lp_status keep_path(char **out, const char *path, lp_error *err)
{
    *out = lp_strdup(path);
    return *out ? LP_OK : lp_fail(err, LP_E_MEMORY, "%s: out of memory", path);
}

/* Where the files are: a params.npz, a SAELens folder, a direction of a control vector.  Free *out. */
static lp_status find_files(char **out, layout *kind, const char *path, lp_error *err)
{
    int layer;
    bool is_dir = lp_is_dir(path);
    *kind = !is_dir && lp_direction_part(path, &layer) ? DIRECTION : NPZ;
    if (!is_dir) return keep_path(out, path, err);
    char *npz = lp_path_join(path, "params.npz"), *cfg = lp_path_join(path, "cfg.json");
    lp_status st = LP_OK;
    if (!npz || !cfg) {
        st = lp_fail(err, LP_E_MEMORY, "%s: out of memory", path);
    } else if (lp_is_file(npz)) {
        *out = npz, npz = NULL;
    } else if (lp_is_file(cfg)) {
        *kind = LENS;
        st = keep_path(out, path, err);
    } else {
        st = lp_fail(err, LP_E_NOT_FOUND, "%s: no params.npz (Gemma Scope) and no cfg.json (SAELens) in it", path);
    }
    free(npz);
    free(cfg);
    return st;
}

/* What the folders around a file say that the file itself does not; of a direction its path says all. */
static lp_status take_place(lp_sae *s, const char *path, layout kind, lp_error *err)
{
    lp_sae_place place = {0};
    int layer;
    if (kind == DIRECTION) {
        lp_direction_part(path, &layer);
        s->spot = lp_direction_spot(layer);
        return keep_path(&s->name, path, err);
    }
    LP_TRY(lp_sae_place_from_path(&place, path, err));
    if (kind == NPZ) s->spot = place.spot;
    s->declared_l0 = place.l0;
    if (!s->name && place.source_id) s->name = lp_strdup(place.source_id);
    if (!s->model_name && place.model_id) s->model_name = lp_strdup(place.model_id);
    lp_sae_place_clear(&place);
    return LP_OK;
}

static lp_status name_it(lp_sae *s, lp_error *err)
{
    if (s->name) return LP_OK;
    const char *last = strrchr(s->path, '/');
    s->name = lp_strdup(last && last[1] ? last + 1 : s->path);
    return s->name ? LP_OK : lp_fail(err, LP_E_MEMORY, "%s: out of memory", s->path);
}

lp_status lp_sae_open(lp_sae **out, const char *path, const lp_sae_options *o, const lp_env *env, lp_error *err)
{
    lp_sae *s = lp_calloc(1, sizeof *s);
    if (!s) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", path);
    layout kind = NPZ;
    lp_status (*const load[])(lp_sae *, const char *, const lp_sae_options *, const lp_env *, lp_error *) = {
        [NPZ] = lp_sae_load_scope, [LENS] = lp_sae_load_lens, [DIRECTION] = lp_sae_load_direction};
    lp_status st = find_files(&s->path, &kind, path, err);
    if (st != LP_OK) goto out;
    s->spot = (lp_sae_spot){.site = LP_N_SITES, .site_out = LP_N_SITES};
    if (kind != LENS && (st = take_place(s, s->path, kind, err)) != LP_OK) goto out;
    if (o && o->is_spot_given) s->spot = o->spot; /* before the shapes are read: a transcoder's may differ */
    st = load[kind](s, s->path, o, env, err);
    if (st == LP_OK && kind == LENS) st = take_place(s, s->path, kind, err);
    if (st == LP_OK && o && o->is_spot_given) s->spot = o->spot;
    if (st == LP_OK) st = name_it(s, err);
    if (st != LP_OK) goto out;
    *out = s;
    s = NULL;
out:
    lp_sae_close(s);
    return st;
}

void lp_sae_close(lp_sae *s)
{
    if (!s) return;
    if (s->arena) lp_big_free(s->arena, s->arena_bytes);
    free(s->name);
    free(s->model_name);
    free(s->path);
    free(s);
}

/* ---- single features --------------------------------------------------------------------------------------------- */

static const void *row_at(const lp_sae *s, int feature)
{
    assert(feature >= 0 && feature < s->d_sae);
    size_t element = s->decoder_type == LP_BF16 ? 2 : 4;
    return (const char *)s->decoder + (size_t)feature * (size_t)s->d_out * element;
}

void lp_sae_decoder_row(const lp_sae *s, int feature, float *out)
{
    lp_to_f32(s->decoder_type, row_at(s, feature), out, (size_t)s->d_out);
}

void lp_sae_encoder_row(const lp_sae *s, int feature, float *out)
{
    lp_matrix_row(&s->encoder, feature, out, lp_kernels_best());
}

void lp_sae_add_decoder(const lp_sae *s, int feature, float scale, float *x)
{
    if (s->decoder_type == LP_F32) {
        const float *row = row_at(s, feature);
        for (int i = 0; i < s->d_out; i++) x[i] += scale * row[i];
    } else {
        const uint16_t *row = row_at(s, feature);
        for (int i = 0; i < s->d_out; i++) x[i] += scale * lp_bf16_to_f32(row[i]);
    }
}
