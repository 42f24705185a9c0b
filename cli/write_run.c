/* write_run.c - see write_run.h.
 *
 * Names go into the file as they were typed, not as the paths they led to: on another machine the same name leads to
 * the same weights, and their hashes stand beside it.  Where nothing was typed it is the embedded model's name, and an
 * SAE's own.
 */
#include "cli/write_run.h"

#include "core/data.h"

static const char *model_name(const cli *c)
{
    return c->model ? c->model : c->embedded ? c->embedded : LP_EMBEDDED_BASE;
}

static lp_run_parts gather(const cli_run_parts *p)
{
    lp_run_parts r = {.model = model_name(p->c),
                      .session = p->s,
                      .prompt = p->prompt->ids,
                      .n_prompt = p->prompt->n,
                      .is_template = p->is_template,
                      .sample = &p->answer->sample,
                      .generate = &p->answer->generate,
                      .recipe = p->recipe};
    if (!p->recipe) return r;
    r.saes = (const lp_sae *const *)p->saes->items;
    r.n_saes = p->saes->n;
    if (p->choice->names.n == p->saes->n) r.sae_names = p->choice->names.items;
    r.sae_site = p->choice->site;
    return r;
}

lp_status cli_write_run(const char *path, const cli_run_parts *p, lp_error *err)
{
    lp_run run;
    if (!path) return LP_OK;
    lp_run_parts parts = gather(p);
    LP_TRY(lp_run_begin(&run, &parts, err));
    lp_status st = lp_run_results(&run, p->s, p->generation, p->recipe ? p->steer : NULL, err);
    if (st == LP_OK) st = lp_run_write(&run, path, err);
    if (st == LP_OK) lp_log(&p->c->env, LP_INFO, "%s: lapidary replay %s does this again", path, path);
    lp_run_clear(&run);
    return st;
}
