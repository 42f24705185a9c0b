/* flat.c - see flat.h. */
#include "notebooks/flat.h"

#include "core/data.h"
#include "sae/names.h"

#include <stdlib.h>
#include <string.h>

const lp_config *lp_flat_config(const lp_model *m)
{
    return &m->config;
}
const lp_tokenizer *lp_flat_tokenizer(const lp_model *m)
{
    return m->tokenizer;
}
const char *lp_flat_model_path(const lp_model *m)
{
    return m->path;
}
void lp_flat_free(void *p)
{
    free(p);
}

/* ---- SAEs -------------------------------------------------------------------------------------------------------- */

static lp_status open_place(lp_sae **out, lp_labels **named, const lp_sae_place *place, const char *labels, int bf16,
                            const lp_env *env, lp_error *err)
{
    const lp_sae_options o = {.bf16 = bf16};
    const char *model = place->model_id ? place->model_id : LP_SAE_EMBEDDED_MODEL;
    lp_sae *s = NULL;
    LP_TRY(lp_sae_open(&s, place->path, &o, env, err));
    lp_labels *l = lp_calloc(1, sizeof *l);
    lp_status st = l ? lp_labels_find(l, labels, model, place->source_id, s->d_sae, err)
                     : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st != LP_OK) {
        free(l);
        lp_sae_close(s);
        return st;
    }
    *out = s;
    *named = l;
    return LP_OK;
}

lp_status lp_flat_sae_open(lp_sae **out, lp_labels **named, const char *name, const char *labels, int bf16,
                           const lp_env *env, lp_error *err)
{
    lp_sae_place place;
    char *embedded = NULL;
    if (lp_data_path(&embedded, "saes", NULL) != LP_OK) embedded = NULL; /* then only other names can be meant */
    lp_status st = lp_sae_find(&place, name, embedded, err);
    free(embedded);
    LP_TRY(st);
    st = open_place(out, named, &place, labels, bf16, env, err);
    lp_sae_place_clear(&place);
    return st;
}

void lp_flat_labels_free(lp_labels *l)
{
    lp_labels_free(l);
    free(l);
}

void lp_flat_sae_look(lp_flat_sae *out, const lp_sae *s)
{
    *out = (lp_flat_sae){.name = s->name,
                         .path = s->path,
                         .kind = lp_sae_kind_name(s->kind),
                         .hash = s->hash,
                         .site = (int)s->spot.site,
                         .layer = s->spot.layer,
                         .d_in = s->d_in,
                         .d_sae = s->d_sae,
                         .d_out = s->d_out,
                         .needs_input = s->norm != LP_SAE_NORM_NONE || s->has_skip,
                         .is_bf16 = s->decoder_type == LP_BF16,
                         .declared_l0 = s->declared_l0,
                         .decoder = s->decoder,
                         .b_enc = s->b_enc,
                         .b_dec = s->b_dec,
                         .threshold = s->threshold};
}

/* ---- recipes ----------------------------------------------------------------------------------------------------- */

lp_status lp_flat_recipe_open(lp_recipe **out, const char *name, const char *text, lp_error *err)
{
    lp_recipe *r = lp_calloc(1, sizeof *r);
    if (!r) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_status st = text ? lp_recipe_parse(r, text, strlen(text), err) : lp_recipe_find(r, name, err);
    if (st != LP_OK) {
        free(r);
        return st;
    }
    *out = r;
    return LP_OK;
}

void lp_flat_recipe_free(lp_recipe *r)
{
    if (r) lp_recipe_clear(r);
    free(r);
}
