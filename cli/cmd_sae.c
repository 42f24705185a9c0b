/* cmd_sae.c - `lapidary sae`: which SAEs there are, what one is, and whether it is fed the right tensor.
 *
 *     lapidary sae list                     those shipped, and those of Gemma Scope in the Hugging Face cache
 *     lapidary sae info [NAME]...           kind, site, shapes, memory, hash
 *     lapidary sae check [-m MODEL] [NAME]... -f TEXT   L0 and FVU on a text, against what the SAE declares
 *     lapidary sae eval  [-m MODEL] [NAME]... -f TEXT   the same figures, and the loss with the SAE spliced in
 *     lapidary sae nearest A [B]            the nearest features of every feature, in the same SAE or another
 *     lapidary sae effects [-m MODEL] A     the tokens every feature promotes and suppresses
 *
 * An SAE on the wrong tensor looks alive: it fires, and nothing complains.  What gives it away is that it fires far more or
 * far less than its folder's average_l0 says, that its reconstruction is worse than the mean, or that it reconstructs a
 * neighbour of its tensor better.  Every command that uses SAEs asks the same of a few hundred tokens (sae/guard.h).
 */
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/sae_dense.h"
#include "core/data.h"
#include "sae/check.h"
#include "sae/evaluate.h"
#include "sae/reader.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 1000 };

typedef struct job {
    cli *c;
    cli_sae_choice choice;
    const char *file;
    int embed_scale;
    cli_dense dense;
} job;

/* ---- list ------------------------------------------------------------------------------------------------------ */

static void print_place(cli *c, const lp_sae_place *p)
{
    cli_put_text(c, p->source_id);
    cli_put_text(c, p->model_id);
    cli_put_text(c, p->spot.site == LP_N_SITES ? NULL : lp_site_name(p->spot.site));
    cli_put_layer(c, &p->spot);
    if (p->width)
        cli_put_int(c, p->width);
    else
        cli_put_none(c);
    cli_put_int(c, p->l0);
    cli_put_text(c, p->path);
}

static lp_status list(job *w, lp_error *err)
{
    lp_sae_place *shipped = NULL, *cached = NULL;
    size_t n_shipped = 0, n_cached = 0;
    char *folder = NULL;
    LP_TRY(cli_count_operands(w->c, 1, 1, err));
    lp_status st = lp_data_path(&folder, "saes", NULL) == LP_OK ? lp_sae_list(&shipped, &n_shipped, folder, err)
                                                                : LP_OK;
    if (st == LP_OK) st = lp_sae_list_cached(&cached, &n_cached, err);
    if (st == LP_OK) {
        cli_table_begin(w->c, "sae\tmodel\tsite\tlayer\td_sae\tl0\tpath");
        for (size_t i = 0; i < n_shipped; i++) print_place(w->c, &shipped[i]);
        for (size_t i = 0; i < n_cached; i++) print_place(w->c, &cached[i]);
        cli_table_end(w->c);
    }
    lp_sae_list_free(shipped, n_shipped);
    lp_sae_list_free(cached, n_cached);
    free(folder);
    return st;
}

/* ---- info ------------------------------------------------------------------------------------------------------ */

static void print_info(cli *c, const lp_sae *s)
{
    cli_put_text(c, s->name);
    cli_put_text(c, lp_sae_kind_name(s->kind));
    cli_put_text(c, cli_sae_site(s));
    cli_put_layer(c, &s->spot);
    cli_put_text(c, s->spot.is_coder && s->spot.site_out != LP_N_SITES ? lp_site_name(s->spot.site_out) : NULL);
    cli_put_int(c, s->d_in);
    cli_put_int(c, s->d_sae);
    cli_put_int(c, s->d_out);
    if (s->declared_l0 > 0)
        cli_put_real(c, s->declared_l0, 6);
    else
        cli_put_none(c);
    cli_put_text(c, s->decoder_type == LP_BF16 ? "BF16" : "F32");
    cli_put_int(c, (int64_t)s->bytes);
    cli_put_int(c, (int64_t)s->n_nonfinite);
    cli_put_text(c, s->model_name);
    cli_put_text(c, s->hash);
    cli_put_text(c, s->path);
}

static lp_status info(job *w, lp_error *err)
{
    cli_saes saes = {0};
    lp_status st = cli_open_saes(&saes, w->c, NULL, &w->choice, err);
    if (st == LP_OK) {
        cli_table_begin(w->c,
                        "sae\tkind\tsite\tlayer\twrites\td_in\td_sae\td_out\tl0\theld\tbytes\tnonfinite\tmodel\thash\t"
                        "path");
        for (int i = 0; i < saes.n; i++) print_info(w->c, saes.items[i]);
        cli_table_end(w->c);
    }
    cli_close_saes(&saes);
    return st;
}

/* ---- check ----------------------------------------------------------------------------------------------------- */

/* What it is held against: the neighbour that it reconstructs best. */
static void put_rival(cli *c, const lp_check *k)
{
    char text[LP_SPOT_TEXT];
    cli_put_text(c, k->has_rival ? lp_sae_spot_text(text, &k->rival) : NULL);
    if (k->has_rival) {
        cli_put_real(c, k->rival_l0, 4);
        cli_put_real(c, k->rival_fvu, 4);
    } else {
        cli_put_none(c);
        cli_put_none(c);
    }
}

static void print_check(cli *c, const lp_sae *s, const lp_check *k)
{
    cli_put_text(c, s->name);
    cli_put_text(c, cli_sae_site(s));
    cli_put_layer(c, &s->spot);
    cli_put_int(c, (int64_t)k->quality.rows);
    if (s->declared_l0 > 0)
        cli_put_real(c, s->declared_l0, 6);
    else
        cli_put_none(c);
    cli_put_real(c, k->quality.l0, 4);
    cli_put_real(c, k->quality.fvu, 4);
    cli_put_real(c, k->quality.cosine, 4);
    put_rival(c, k);
    cli_put_text(c, lp_verdict_name(k->verdict));
    cli_put_text(c, k->why[0] ? k->why : NULL);
}

static void print_evaluation(cli *c, const lp_sae *s, const lp_evaluation *e)
{
    const double cells[] = {e->quality.l0, e->quality.fvu,  e->quality.fvu_low, e->quality.fvu_high, e->quality.cosine,
                            e->loss,       e->delta,        e->delta_low,       e->delta_high,       e->ablated,
                            e->recovered,  e->quality.dead, e->quality.dense};
    cli_put_text(c, s->name);
    cli_put_text(c, cli_sae_site(s));
    cli_put_layer(c, &s->spot);
    cli_put_int(c, (int64_t)e->targets);
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++) cli_put_real(c, cells[i], 5);
}

/* What check and eval run on. */
typedef struct bench {
    lp_model *m;
    lp_session *s;
    cli_saes saes;
    lp_passage passage;
} bench;

static lp_status set_up(bench *b, job *w, lp_error *err)
{
    char *text = NULL;
    size_t n = 0;
    LP_TRY(cli_open(&b->m, &b->s, w->c, w->embed_scale, err));
    LP_TRY(cli_check_text(&text, &n, w->file ? w->file : w->choice.check_text, err));
    lp_status st = lp_passage_make(&b->passage, b->s, text, n, err);
    free(text);
    if (st == LP_OK) st = cli_open_saes(&b->saes, w->c, b->m, &w->choice, err);
    return st;
}

static void take_down(bench *b)
{
    cli_close_saes(&b->saes);
    lp_passage_free(&b->passage);
    lp_session_free(b->s);
    lp_model_close(b->m);
}

static lp_status check_all(job *w, bench *b, lp_error *err)
{
    int n = b->saes.n;
    const lp_sae *const *saes = (const lp_sae *const *)b->saes.items;
    lp_check *checks = lp_calloc((size_t)(n ? n : 1), sizeof *checks);
    if (!checks) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_status st = lp_sae_check(checks, b->s, saes, n, &b->passage, err);
    if (st == LP_OK) {
        cli_table_begin(
            w->c, "sae\tsite\tlayer\ttokens\tdeclared_l0\tl0\tfvu\tcosine\trival\trival_l0\trival_fvu\tverdict\twhy");
        for (int i = 0; i < n; i++) print_check(w->c, saes[i], &checks[i]);
        cli_table_end(w->c);
    }
    for (int i = 0; i < n && st == LP_OK; i++)
        if (checks[i].verdict == LP_SAE_WRONG) st = lp_fail(err, LP_E_SHAPE, "%s: %s", saes[i]->name, checks[i].why);
    free(checks);
    return st;
}

static lp_status eval_all(job *w, bench *b, lp_error *err)
{
    int n = b->saes.n;
    const lp_sae *const *saes = (const lp_sae *const *)b->saes.items;
    lp_evaluation *found = lp_calloc((size_t)(n ? n : 1), sizeof *found);
    if (!found) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_status st = lp_sae_evaluate(found, b->s, saes, n, &b->passage, err);
    if (st == LP_OK) {
        cli_table_begin(w->c, "sae\tsite\tlayer\ttargets\tl0\tfvu\tfvu_low\tfvu_high\tcosine\tloss\tdelta_loss\t"
                              "delta_low\tdelta_high\tmean_ablated\trecovered\tdead\tdense");
        for (int i = 0; i < n; i++) print_evaluation(w->c, saes[i], &found[i]);
        cli_table_end(w->c);
    }
    free(found);
    return st;
}

static lp_status measure(job *w, lp_status (*work)(job *w, bench *b, lp_error *err), lp_error *err)
{
    bench b = {0};
    lp_status st = set_up(&b, w, err);
    if (st == LP_OK) st = work(w, &b, err);
    take_down(&b);
    return st;
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

static lp_status take_names(job *w, lp_error *err)
{
    for (int i = 1; i < w->c->n_operands; i++) {
        if (w->choice.names.n == CLI_MAX_TEXTS)
            return cli_usage(w->c, err, "more than %d SAEs at once", (int)CLI_MAX_TEXTS);
        w->choice.names.items[w->choice.names.n++] = w->c->operands[i];
    }
    return LP_OK;
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    job w = {.c = c, .dense = {.top = 10}};
    const cli_option options[] = {
        CLI_SAE_OPTIONS(w.choice),
        {"file", 'f', CLI_TEXT, &w.file, "FILE",
         "check, eval: the text to run, or stdin for - (default: a shipped one)"},
        {"embed-scale", 0, CLI_CHOICE, &w.embed_scale, "f32|bf16",
         "check, eval: sqrt(d_model) in f32 (default) or rounded"},
        {"top", 'k', CLI_INT, &w.dense.top, "N", "nearest, effects: lines for each feature (default 10)", .min = 1,
         .max = MOST},
        {"sample", 0, CLI_INT, &w.dense.sample, "N", "nearest, effects: N features, evenly spaced (default: all)",
         .min = 1, .max = INT_MAX},
        {"gained", 0, CLI_FLAG, &w.dense.is_gained, NULL, "effects: with the final norm's gain, as the logit lens"},
        {0},
    };
    static const char *const verbs[] = {"list", "info", "check", "eval", "nearest", "effects", NULL};
    LP_TRY(cli_parse(c, options, argc, argv, err));
    const char *verb = c->n_operands ? c->operands[0] : "";
    LP_TRY(take_names(&w, err));
    if (strcmp(verb, "list") == 0) return list(&w, err);
    if (strcmp(verb, "info") == 0) return info(&w, err);
    if (strcmp(verb, "check") == 0 && w.choice.is_unchecked)
        return cli_usage(c, err, "check --unchecked: one of the two");
    w.choice.is_unchecked |= strcmp(verb, "check") == 0; /* it looks itself, at all of the text */
    if (strcmp(verb, "check") == 0) return measure(&w, check_all, err);
    if (strcmp(verb, "eval") == 0) return measure(&w, eval_all, err);
    if (strcmp(verb, "nearest") == 0) return cli_sae_nearest(c, &w.choice, &w.dense, err);
    if (strcmp(verb, "effects") == 0) return cli_sae_effects(c, &w.choice, &w.dense, err);
    const char *near = *verb ? cli_nearest(verb, verbs) : NULL;
    return cli_usage(c, err, "sae \"%.40s\": expected list, info, check, eval, nearest or effects%s%s%s", verb,
                     near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

const cli_command cmd_sae = {
    .name = "sae",
    .summary = "sparse autoencoders: list, look at, check for the right tensor, evaluate, compare",
    .operands = "list|info|check|eval|nearest|effects [NAME]...",
    .about =
        "list   those shipped, and those of Gemma Scope in the Hugging Face cache\n"
        "info   kind, site, shapes, memory, hash of each\n"
        "check  runs a text through the model and holds L0 and FVU against what each SAE declares and against what it\n"
        "       makes of its tensor's neighbours; fails when one is fed the wrong tensor\n"
        "eval   the same figures, and the loss with each spliced in\n"
        "nearest A [B]  for every feature of A those of B (or A) whose decoder rows have the largest cosine\n"
        "effects A      for every feature the tokens its direction promotes and suppresses, as `lapidary feature` has\n"
        "               them for one: without the final norm's gain, or --gained",
    .run = run,
};
