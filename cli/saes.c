/* saes.c - see saes.h. */
#include "cli/saes.h"

#include "core/data.h"
#include "sae/check_cache.h"
#include "sae/guard.h"
#include "sae/reader.h"

#include <stdlib.h>
#include <string.h>

/* The embedded SAEs' folder, or NULL where there is none; free it. */
static char *embedded_folder(void)
{
    char *folder = NULL;
    return lp_data_path(&folder, "saes", NULL) == LP_OK ? folder : NULL;
}

static lp_status find_named(lp_sae_place **out, size_t *n, const char *embedded, const cli_texts *names, lp_error *err)
{
    lp_sae_place *list = lp_calloc((size_t)names->n, sizeof *list);
    if (!list) return lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; i < names->n; i++) {
        lp_status st = lp_sae_find(&list[i], names->items[i], embedded, err);
        if (st != LP_OK) {
            lp_sae_list_free(list, (size_t)i);
            return st;
        }
    }
    *out = list;
    *n = (size_t)names->n;
    return LP_OK;
}

lp_status cli_find_saes(lp_sae_place **out, size_t *n, cli *c, const cli_sae_choice *choice, lp_error *err)
{
    char *embedded = embedded_folder();
    lp_status st;
    if (choice->names.n)
        st = find_named(out, n, embedded, &choice->names, err);
    else if (!cli_is_embedded(c, LP_EMBEDDED_BASE))
        st = cli_usage(c, err, "no SAE named: --sae gemma-2-2b/20-gemmascope-res-16k, or a path");
    else if (!embedded)
        st = lp_fail(err, LP_E_NOT_FOUND, "no embedded SAEs (data/saes) beside this program: name one with --sae");
    else
        st = lp_sae_list(out, n, embedded, err);
    free(embedded);
    return st;
}

/* ---- opening ------------------------------------------------------------------------------------------------- */

static lp_status read_site(lp_sae_options *o, cli *c, const char *site, lp_error *err)
{
    if (!site) return LP_OK;
    lp_sae_spot *spot = &o->spot;
    LP_TRY(lp_site_parse(site, &spot->site, &spot->layer, err));
    if (spot->layer == LP_EVERY_LAYER) return cli_usage(c, err, "--site %s: which layer? %s.20", site, site);
    spot->site_out = spot->site, spot->layer_out = spot->layer;
    spot->is_coder = spot->site == LP_MLP_NORMED; /* only transcoders read there */
    if (spot->is_coder) spot->site_out = LP_MLP_OUT;
    o->is_spot_given = 1;
    return LP_OK;
}

lp_status cli_open_annotations(lp_annotations **out, const cli_sae_choice *choice, lp_annotations_mode mode,
                               lp_error *err)
{
    char *path = NULL;
    bool may_miss = mode == LP_ANNOTATIONS_READ && !choice->annotations;
    *out = NULL;
    lp_status st = choice->annotations ? LP_OK : lp_annotations_path(&path, NULL, err);
    if (st == LP_OK) st = lp_annotations_open(out, path ? path : choice->annotations, mode, err);
    free(path);
    return st == LP_E_NOT_FOUND && may_miss ? LP_OK : st;
}

static lp_status add_own_labels(lp_labels *l, const cli_sae_choice *choice, const lp_sae *s, lp_error *err)
{
    lp_annotations *a;
    LP_TRY(cli_open_annotations(&a, choice, LP_ANNOTATIONS_READ, err));
    lp_status st = a ? lp_annotations_overlay(l, a, s, err) : LP_OK;
    lp_annotations_close(a);
    return st;
}

static lp_status open_one(cli_saes *out, cli *c, const lp_model *m, const cli_sae_choice *choice,
                          const lp_sae_options *o, const lp_sae_place *place, lp_error *err)
{
    LP_TRY(lp_sae_open(&out->items[out->n], place->path, o, &c->env, err));
    lp_sae *s = out->items[out->n++];
    if (m) LP_TRY(lp_sae_fits(s, &m->config, err));
    if (choice->is_unlabelled) return LP_OK;
    const char *model = place->model_id ? place->model_id : LP_SAE_EMBEDDED_MODEL;
    lp_labels *labels = &out->labels[out->n - 1];
    LP_TRY(lp_labels_find(labels, choice->labels, model, place->source_id, s->d_sae, err));
    return add_own_labels(labels, choice, s, err);
}

lp_status cli_open_saes(cli_saes *out, cli *c, const lp_model *m, const cli_sae_choice *choice, lp_error *err)
{
    lp_sae_options o = {.bf16 = choice->type};
    lp_sae_place *places = NULL;
    size_t n = 0;
    LP_TRY(read_site(&o, c, choice->site, err));
    LP_TRY(cli_find_saes(&places, &n, c, choice, err));
    out->items = lp_calloc(n ? n : 1, sizeof *out->items);
    out->labels = lp_calloc(n ? n : 1, sizeof *out->labels);
    lp_status st = out->items && out->labels ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    for (size_t i = 0; i < n && st == LP_OK; i++) st = open_one(out, c, m, choice, &o, &places[i], err);
    lp_sae_list_free(places, n);
    return st == LP_OK && m ? cli_guard_saes(out, c, m, choice, err) : st;
}

void cli_close_saes(cli_saes *s)
{
    for (int i = 0; i < s->n; i++) {
        lp_sae_close(s->items[i]);
        lp_labels_free(&s->labels[i]);
    }
    free(s->items);
    free(s->labels);
    free(s->checks);
    *s = (cli_saes){0};
}

/* ---- do they fit --------------------------------------------------------------------------------------------- */

lp_status cli_check_text(char **out, size_t *n, const char *file, lp_error *err)
{
    char *path = NULL;
    if (file) return cli_read_text(out, n, file, err);
    LP_TRY(lp_data_path(&path, "check.txt", err));
    lp_status st = cli_read_text(out, n, path, err);
    free(path);
    return st;
}

/* Warns of what is doubtful, refuses what is wrong. */
static lp_status act_on(const cli_saes *s, cli *c, lp_error *err)
{
    for (int i = 0; i < s->n; i++)
        if (s->checks[i].verdict == LP_SAE_WRONG)
            return lp_fail(err, LP_E_SHAPE, "%s: %s; --unchecked uses it all the same", s->items[i]->name,
                           s->checks[i].why);
    for (int i = 0; i < s->n; i++)
        if (s->checks[i].verdict == LP_SAE_DOUBTFUL)
            lp_log(&c->env, LP_WARN, "%s: %s", s->items[i]->name, s->checks[i].why);
    return LP_OK;
}

lp_status cli_guard_saes(cli_saes *s, cli *c, const lp_model *m, const cli_sae_choice *choice, lp_error *err)
{
    char *text = NULL, *cache = NULL;
    lp_guard g = {.arithmetic = c->arithmetic};
    if (choice->is_unchecked || !s->n) return LP_OK;
    if (!m->tokenizer) {
        lp_log(&c->env, LP_WARN, "%s has no tokenizer: whether these SAEs fit is not checked", m->path);
        return LP_OK;
    }
    LP_TRY(cli_check_text(&text, &g.n_text, choice->check_text, err));
    g.text = text, g.cache = cache = lp_check_cache_path();
    s->checks = lp_calloc((size_t)s->n, sizeof *s->checks);
    lp_status st = s->checks ? lp_guard_check(s->checks, &g, m, (const lp_sae *const *)s->items, s->n, &c->env, err)
                             : lp_fail(err, LP_E_MEMORY, "out of memory");
    free(text);
    free(cache);
    return st == LP_OK ? act_on(s, c, err) : st;
}

/* ---- a prompt under them ---------------------------------------------------------------------------------------- */

lp_status cli_open_scene(cli_scene *x, cli *c, lp_error *err)
{
    return cli_open(&x->m, &x->s, c, x->prompt.embed_scale, err);
}

lp_status cli_fill_scene(cli_scene *x, cli *c, lp_error *err)
{
    LP_TRY(cli_take_prompt(&x->tokens, c, x->m, &x->prompt, err));
    return cli_open_saes(&x->saes, c, x->m, &x->choice, err);
}

void cli_close_scene(cli_scene *x)
{
    cli_close_saes(&x->saes);
    lp_tokens_free(&x->tokens);
    lp_session_free(x->s);
    lp_model_close(x->m);
}

/* ---- saying which -------------------------------------------------------------------------------------------- */

const char *cli_sae_site(const lp_sae *s)
{
    return s->spot.site == LP_N_SITES ? "?" : lp_site_name(s->spot.site);
}

void cli_put_layer(cli *c, const lp_sae_spot *spot)
{
    if (spot->site != LP_N_SITES && lp_site_has_layer(spot->site))
        cli_put_int(c, spot->layer);
    else
        cli_put_none(c);
}

json_t *cli_layer_json(lp_site site, int layer)
{
    return site != LP_N_SITES && lp_site_has_layer(site) ? json_integer(layer) : json_null();
}

static json_t *check_json(const lp_check *k, const lp_sae *s)
{
    return json_pack("{s:s,s:I,s:o,s:o,s:o,s:o}", "verdict", lp_verdict_name(k->verdict), "rows",
                     (json_int_t)k->quality.rows, "declared_l0",
                     s->declared_l0 > 0 ? json_real(s->declared_l0) : json_null(), "l0", cli_json_real(k->quality.l0),
                     "fvu", cli_json_real(k->quality.fvu), "why", k->why[0] ? json_string(k->why) : json_null());
}

json_t *cli_saes_json(const cli_saes *s)
{
    json_t *list = json_array();
    for (int i = 0; list && i < s->n; i++) {
        const lp_sae *sae = s->items[i];
        json_t *j = json_pack("{s:o,s:s,s:o}", "sae", cli_json_text(sae->name, strlen(sae->name)), "hash", sae->hash,
                              "check", s->checks ? check_json(&s->checks[i], sae) : json_null());
        if (json_array_append_new(list, j)) list = (json_decref(list), NULL);
    }
    return list;
}
