/* cmd_attribute.c - `lapidary attribute`: how much of a token's logit each active feature writes itself (sae/attribute.h).
 *
 *     lapidary attribute "The whale swam in the" --target " sea"
 *     lapidary attribute "The whale swam in the" --target " sea" --contrast " house" --top 20
 *
 * A table of rows by what they are of: the features, then for every SAE their sum, its bias, its error, and the site,
 * which is the three together.  With --json a document that also says what the logits were.
 */
#include "cli/commands.h"
#include "cli/saes.h"
#include "sae/attribute.h"

#include <string.h>

enum { MOST = 1000000 };

typedef struct job {
    cli *c;
    cli_scene scene;
    int at, top;
    const char *target, *contrast;
    lp_attribution found;
} job;

static size_t shown(const job *w)
{
    return w->top && w->found.n > (size_t)w->top ? (size_t)w->top : w->found.n;
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

static void put_place(const job *w, int sae)
{
    const lp_sae *s = w->scene.saes.items[sae];
    cli_put_int(w->c, s->spot.layer);
    cli_put_text(w->c, cli_sae_site(s));
    cli_put_text(w->c, s->name);
}

static void put_feature(const job *w, size_t i)
{
    const lp_attribution_row *r = &w->found.rows[i];
    cli_put_text(w->c, "feature");
    cli_put_int(w->c, (int64_t)i + 1);
    put_place(w, r->sae);
    cli_put_int(w->c, r->index);
    cli_put_real(w->c, (double)r->activation, 6);
    cli_put_real(w->c, r->share, 5);
    cli_put_text(w->c, lp_label_text(&w->scene.saes.labels[r->sae], r->index));
}

static void put_part(const job *w, int sae, const char *what, double share)
{
    cli_put_text(w->c, what);
    cli_put_none(w->c);
    put_place(w, sae);
    cli_put_none(w->c);
    cli_put_none(w->c);
    cli_put_real(w->c, share, 5);
    cli_put_none(w->c);
}

static void print_table(const job *w)
{
    cli_table_begin(w->c, "what\trank\tlayer\tsite\tsae\tindex\tactivation\tlogit\tlabel");
    for (size_t i = 0; i < shown(w); i++) put_feature(w, i);
    for (int i = 0; i < w->scene.saes.n; i++) {
        const lp_attribution_part *p = &w->found.parts[i];
        put_part(w, i, "features", p->features);
        put_part(w, i, "bias", p->bias);
        put_part(w, i, "error", p->error);
        put_part(w, i, "site", p->site);
    }
    cli_table_end(w->c);
}

/* ---- the document ------------------------------------------------------------------------------------------------ */

/* NULL: there is none, or no memory; the caller knows which. */
static json_t *token_json(const job *w, const lp_attribution_token *t)
{
    size_t n;
    const char *piece = cli_piece(w->scene.m, t->id, &n);
    json_t *j = json_object();
    int bad = json_object_set_new(j, "id", json_integer(t->id));
    bad |= json_object_set_new(j, "piece", cli_json_text(piece, n));
    bad |= json_object_set_new(j, "logit_raw", cli_json_real(t->raw));
    bad |= json_object_set_new(j, "logit", cli_json_real(t->capped));
    if (!bad) return j;
    json_decref(j);
    return NULL;
}

static int add_sae(json_t *list, const job *w, int sae)
{
    const lp_sae *s = w->scene.saes.items[sae];
    const lp_attribution_part *p = &w->found.parts[sae];
    json_t *j = json_object();
    int bad = json_object_set_new(j, "sae", cli_json_text(s->name, strlen(s->name)));
    bad |= json_object_set_new(j, "hash", json_string(s->hash));
    bad |= json_object_set_new(j, "layer", json_integer(s->spot.layer));
    bad |= json_object_set_new(j, "site", json_string(cli_sae_site(s)));
    bad |= json_object_set_new(j, "active", json_integer(p->n_active));
    bad |= json_object_set_new(j, "features_logit", cli_json_real(p->features));
    bad |= json_object_set_new(j, "bias_logit", cli_json_real(p->bias));
    bad |= json_object_set_new(j, "error_logit", cli_json_real(p->error));
    bad |= json_object_set_new(j, "site_logit", cli_json_real(p->site));
    return bad | json_array_append_new(list, j);
}

static int add_feature(json_t *list, const job *w, const lp_attribution_row *r)
{
    const char *name = w->scene.saes.items[r->sae]->name;
    const char *label = lp_label_text(&w->scene.saes.labels[r->sae], r->index);
    json_t *j = json_object();
    int bad = json_object_set_new(j, "sae", cli_json_text(name, strlen(name)));
    bad |= json_object_set_new(j, "index", json_integer(r->index));
    bad |= json_object_set_new(j, "activation", cli_json_real((double)r->activation));
    bad |= json_object_set_new(j, "logit", cli_json_real(r->share));
    bad |= json_object_set_new(j, "label", label ? cli_json_text(label, strlen(label)) : json_null());
    return bad | json_array_append_new(list, j);
}

static lp_status print_json(const job *w, lp_error *err)
{
    const lp_attribution *f = &w->found;
    json_t *j = cli_provenance(w->c, w->scene.s), *saes = json_array(), *features = json_array();
    int bad = !j || !saes || !features;
    for (int i = 0; i < w->scene.saes.n; i++) bad |= add_sae(saes, w, i);
    for (size_t i = 0; i < shown(w); i++) bad |= add_feature(features, w, &f->rows[i]);
    bad |= json_object_set_new(j, "pos", json_integer(f->at));
    bad |= json_object_set_new(j, "id", json_integer(w->scene.tokens.ids[f->at]));
    bad |= json_object_set_new(j, "final_rms", cli_json_real(f->rms));
    bad |= json_object_set_new(j, "target", token_json(w, &f->target));
    bad |= json_object_set_new(j, "contrast", f->contrast.id < 0 ? json_null() : token_json(w, &f->contrast));
    bad |= json_object_set_new(j, "saes", saes);
    bad |= json_object_set_new(j, "features", features);
    if (!bad) return cli_print_json(j, err);
    json_decref(j);
    return lp_fail(err, LP_E_MEMORY, "no memory for the JSON");
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static void say_token(const job *w, const char *what, const lp_attribution_token *t)
{
    lp_log(&w->c->env, LP_INFO, "%s %d \"%s\", logit %.5g, before the soft-cap %.5g", what, t->id,
           cli_piece(w->scene.m, t->id, &(size_t){0}), t->capped, t->raw);
}

/* What the figures are about goes with the talk: a pipe gets the table alone. */
static void say(const job *w)
{
    const lp_attribution *f = &w->found;
    int id = w->scene.tokens.ids[f->at];
    lp_log(&w->c->env, LP_INFO, "position %d, token %d \"%s\"", f->at, id, cli_piece(w->scene.m, id, &(size_t){0}));
    say_token(w, "target", &f->target);
    if (f->contrast.id >= 0) {
        say_token(w, "contrast", &f->contrast);
        lp_log(&w->c->env, LP_INFO, "difference before the soft-cap %.5g, of which the shares are",
               f->target.raw - f->contrast.raw);
    }
    if (f->n == 0) lp_log(&w->c->env, LP_WARN, "no feature of these SAEs is active there");
}

static lp_status work(job *w, lp_error *err)
{
    cli_scene *x = &w->scene;
    lp_attribution_question q = {.at = w->at};
    LP_TRY(cli_open_scene(x, w->c, err));
    LP_TRY(cli_take_token(&q.target, w->c, x->m, "--target", w->target, err));
    LP_TRY(cli_take_token(&q.contrast, w->c, x->m, "--contrast", w->contrast, err));
    LP_TRY(cli_fill_scene(x, w->c, err));
    q.ids = x->tokens.ids, q.n = x->tokens.n;
    LP_TRY(lp_attribute(&w->found, x->s, (const lp_sae *const *)x->saes.items, x->saes.n, &q, err));
    say(w);
    if (w->c->json) return print_json(w, err);
    print_table(w);
    return LP_OK;
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    job w = {.c = c, .at = -1, .top = 10};
    const cli_option options[] = {
        CLI_PROMPT_OPTIONS(w.scene.prompt),
        CLI_SAE_OPTIONS(w.scene.choice),
        {"at", 0, CLI_INT, &w.at, "POS",
         "position of the features, and before the target; -1, the default, is the last", .min = -8192, .max = 8191},
        {"target", 0, CLI_TEXT, &w.target, "TOKEN", "an id, or text that is one token (default: the likeliest next)"},
        {"contrast", 0, CLI_TEXT, &w.contrast, "TOKEN", "attribute the target's logit minus this token's"},
        {"top", 'k', CLI_INT, &w.top, "N", "features shown, the largest shares over all SAEs (default 10); 0: all",
         .max = MOST},
        {0},
    };
    LP_TRY(cli_parse(c, options, argc, argv, err));
    lp_status st = work(&w, err);
    lp_attribution_free(&w.found);
    cli_close_scene(&w.scene);
    return st;
}

const cli_command cmd_attribute = {
    .name = "attribute",
    .summary = "what each active SAE feature writes into a token's logit (direct attribution)",
    .operands = "[PROMPT]",
    .about =
        "Splits a token's logit, before the soft-cap and with the norms' divisors as they were in the run, into what\n"
        "each feature active at one position adds to it directly: f d . (W_U[target] (1 + w)) / rms; an attention\n"
        "SAE's goes through W_O and the norm behind it.  For each SAE: features (the sum of all), bias (what it says\n"
        "when nothing fires), error (what it does not explain) and site, the three together.  SAEs on several streams\n"
        "count the same thing again and again; `lapidary rank` measures what is not direct too.",
    .run = run,
};
