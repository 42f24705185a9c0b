/* cmd_replay.c - `lapidary replay`: a run again, and whether it is the same to the bit.
 *
 * Model, SAEs, recipe, prompt and sampling come from the run file (sae/run.h); -m and --sae say where to find them when
 * the names in the file lead nowhere here.  What goes in is compared by its hashes before anything is evaluated, since a
 * text made by another checkpoint differs and tells nothing.
 *
 * The arithmetic is the file's unless fast is typed, which then is a difference like any other.  Threads, waves and, in
 * exact arithmetic, kernel tables may be what they like: they do not change a bit, and replaying on another machine is
 * how one sees that.
 */
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/saes.h"
#include "sae/run.h"

#include <string.h>

typedef struct job {
    cli *c;
    cli_sae_choice choice;
    lp_run file, now;
    lp_model *m;
    lp_session *s;
    cli_saes saes;
} job;

/* ---- what the file names ----------------------------------------------------------------------------------------- */

static lp_status open_model(job *w, lp_error *err)
{
    lp_session_options o = w->file.session;
    if (!w->c->model) w->c->model = w->file.model;
    LP_TRY(cli_open(&w->m, NULL, w->c, o.bf16_embed_scale, err));
    o.wave = w->c->wave;
    if (w->c->arithmetic == LP_FAST) o.arithmetic = LP_FAST;
    if (o.n_ctx > w->m->config.max_positions) o.n_ctx = 0; /* another model, which is what is going to be said */
    return lp_session_new(&w->s, w->m, &o, &w->c->env, err);
}

/* Not compared with the model here: a model that they do not fit is another one, and that is said first. */
static lp_status open_saes(job *w, lp_error *err)
{
    cli_texts *names = &w->choice.names;
    if (!w->file.n_saes) return LP_OK;
    if (w->file.n_saes > CLI_MAX_TEXTS)
        return lp_fail(err, LP_E_RANGE, "%zu SAEs in one run; at most %d are opened", w->file.n_saes, CLI_MAX_TEXTS);
    if (!names->n)
        for (size_t i = 0; i < w->file.n_saes; i++) names->items[names->n++] = w->file.saes[i].name;
    if (!w->choice.site) w->choice.site = w->file.sae_site;
    if (w->file.saes[0].type == LP_BF16) w->choice.type = 1;
    return cli_open_saes(&w->saes, w->c, NULL, &w->choice, err);
}

/* ---- again ------------------------------------------------------------------------------------------------------- */

static lp_status repeat(lp_run_difference *d, job *w, lp_error *err)
{
    const lp_sae *const *saes = (const lp_sae *const *)w->saes.items;
    lp_run_parts p = lp_run_parts_of(&w->file);
    p.session = w->s, p.saes = saes, p.n_saes = w->saes.n;
    LP_TRY(lp_run_begin(&w->now, &p, err));
    *d = lp_run_compare_inputs(&w->file, &w->now);
    if (d->part) return LP_OK;
    LP_TRY(cli_guard_saes(&w->saes, w->c, w->m, &w->choice, err));
    LP_TRY(lp_run_repeat(&w->now, w->s, saes, w->saes.n, err));
    *d = lp_run_compare(&w->file, &w->now);
    return LP_OK;
}

static lp_status print_json(const job *w, const lp_run_difference *d, lp_error *err)
{
    json_t *j = cli_provenance(w->c, w->s);
    int bad = !j;
    bad |= json_object_set_new(j, "same", json_boolean(!d->part));
    bad |= json_object_set_new(j, "differs", d->part ? json_string(lp_run_part_name(d->part)) : json_null());
    bad |= json_object_set_new(j, "difference", d->part ? cli_json_text(d->text, strlen(d->text)) : json_null());
    bad |= json_object_set_new(j, "model_hash", json_string(w->now.model_hash));
    bad |= json_object_set_new(j, "run_kernels", json_string(w->file.kernels));
    bad |= json_object_set_new(j, "saes", json_integer((json_int_t)w->file.n_saes));
    bad |= json_object_set_new(j, "checks", cli_saes_json(&w->saes));
    bad |= json_object_set_new(j, "recipe", w->file.has_recipe ? json_string(w->file.recipe_hash) : json_null());
    bad |= json_object_set_new(j, "tokens", json_integer((json_int_t)w->file.n_ids));
    bad |= json_object_set_new(j, "readback", json_integer((json_int_t)w->file.n_readings));
    return cli_print_json(bad ? (json_decref(j), NULL) : j, err);
}

static void print_same(const job *w)
{
    const lp_run *r = &w->file;
    puts("same");
    printf("  model      %s\n", r->model_hash);
    printf("  tokenizer  %s\n", r->tokenizer_hash[0] ? r->tokenizer_hash : "none");
    printf("  arithmetic %s, kernels %s here, %s in the run\n", r->session.arithmetic == LP_FAST ? "fast" : "exact",
           w->now.kernels, r->kernels);
    for (size_t i = 0; i < r->n_saes; i++) printf("  SAE        %s %s\n", r->saes[i].hash, r->saes[i].name);
    if (r->has_recipe) printf("  recipe     %s\n", r->recipe_hash);
    printf("  tokens     %zu, then %s\n", r->n_ids, lp_finish_name(r->finish));
    if (r->has_recipe) printf("  features   %zu values asked, before, achieved\n", r->n_readings);
    printf("  logits     %s\n", r->logits_hash[0] ? r->logits_hash : "none");
}

static lp_status work(job *w, lp_error *err)
{
    lp_run_difference d = {0};
    LP_TRY(cli_count_operands(w->c, 1, 1, err));
    LP_TRY(lp_run_read(&w->file, w->c->operands[0], err));
    LP_TRY(open_model(w, err));
    LP_TRY(open_saes(w, err));
    LP_TRY(repeat(&d, w, err));
    cli_wipe_bar(w->c);
    if (w->c->json) LP_TRY(print_json(w, &d, err));
    if (d.part) return lp_fail(err, LP_E_RANGE, "%s", d.text);
    if (!w->c->json) print_same(w);
    return LP_OK;
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    job w = {.c = c};
    const cli_option options[] = {CLI_SAE_OPTIONS(w.choice), {0}};
    LP_TRY(cli_parse(c, options, argc, argv, err));
    const char *typed = c->model;
    lp_status st = work(&w, err);
    c->model = typed; /* it may have been the file's */
    cli_close_saes(&w.saes);
    lp_session_free(w.s);
    lp_model_close(w.m);
    lp_run_clear(&w.now);
    lp_run_clear(&w.file);
    return st;
}

const cli_command cmd_replay = {
    .name = "replay",
    .summary = "a run file again: is every token and number the same?",
    .operands = "RUN.json",
    .about =
        "Repeats what `generate --run` or `steer --run` wrote down and compares it bit for bit: model, tokenizer,\n"
        "SAEs and recipe by their hashes, then tokens, feature values and the last logits.  Prints \"same\" and what\n"
        "was compared, or fails with the first difference and where it comes from.  -m and --sae say where things\n"
        "are when the file's names lead nowhere here; the arithmetic is the file's.",
    .run = run,
};
