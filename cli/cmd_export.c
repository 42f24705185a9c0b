/* cmd_export.c - `lapidary export`: a run's activations for other programs, and against theirs. */
#include "cli/commands.h"
#include "store/compare.h"
#include "store/export.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct job {
    cli *c;
    const char *run, *sae, *out, *against, *model_name;
    int as, n_splits;
    double tolerance;
} job;

static lp_status write_out(job *w, const lp_series *s, lp_error *err)
{
    cli *c = w->c;
    lp_export_report r = {0};
    if (w->as == 0)
        LP_TRY(lp_export_text(&r, s, w->out, &c->env, err));
    else
        LP_TRY(lp_export_delphi(
            &r, s, w->out, &(lp_delphi_options){.n_splits = w->n_splits, .model_name = w->model_name}, &c->env, err));
    cli_table_begin(c, "path\tsae\trows\twindows\tvalues\tdropped");
    cli_put_text(c, w->out);
    cli_put_text(c, s->name);
    cli_put_int(c, r.rows);
    cli_put_int(c, r.windows);
    cli_put_int(c, (int64_t)r.values);
    cli_put_int(c, (int64_t)r.dropped);
    cli_table_end(c);
    return LP_OK;
}

/* ---- check -------------------------------------------------------------------------------------------------------- */

static const char *const kinds[] = {"token", "here only", "there only", "value"};

static json_t *case_json(const lp_compare_case *k)
{
    bool is_token = k->kind == LP_DIFFERS_TOKEN;
    return json_pack("{s:s, s:I, s:i, s:I, s:I, s:o, s:o, s:o, s:o}", "differs", kinds[k->kind], "document",
                     (json_int_t)k->document, "pos", k->pos, "token", (json_int_t)k->here_token, "their_token",
                     (json_int_t)k->there_token, "feature", is_token ? json_null() : json_integer(k->feature), "here",
                     is_token ? json_null() : cli_json_real(k->here), "there",
                     is_token ? json_null() : cli_json_real(k->there), "share", cli_json_real(k->share));
}

static lp_status print_json(const lp_comparison *m, lp_error *err)
{
    json_t *worst = json_array();
    for (int i = 0; i < m->n_worst; i++) json_array_append_new(worst, case_json(&m->worst[i]));
    return cli_print_json(json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "agrees",
                                    lp_comparison_agrees(m), "rows", (json_int_t)m->rows, "rows_differ",
                                    (json_int_t)m->rows_differ, "tokens_differ", (json_int_t)m->tokens, "values",
                                    (json_int_t)m->values, "here_only", (json_int_t)m->here_only, "there_only",
                                    (json_int_t)m->there_only, "beyond_tolerance", (json_int_t)m->beyond, "largest",
                                    cli_json_real(m->largest), "worst", worst),
                          err);
}

/* Counts first, with what is as "rows", "tokens differ" and so on; then the worst cases. */
static void print_table(cli *c, const lp_comparison *m)
{
    const struct {
        const char *what;
        int64_t n;
    } counts[] = {{"rows", m->rows},
                  {"rows differ", m->rows_differ},
                  {"tokens differ", m->tokens},
                  {"values", m->values},
                  {"here only", m->here_only},
                  {"there only", m->there_only},
                  {"beyond tolerance", m->beyond}};
    cli_table_begin(c, "what\tcount\tdocument\tpos\ttoken\ttheir_token\tfeature\there\tthere\tshare");
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        cli_put_text(c, counts[i].what);
        cli_put_int(c, counts[i].n);
        for (int k = 0; k < 8; k++) cli_put_none(c);
    }
    cli_put_text(c, "largest difference");
    for (int k = 0; k < 8; k++) cli_put_none(c);
    cli_put_real(c, m->largest, 3);
    for (int i = 0; i < m->n_worst; i++) {
        const lp_compare_case *k = &m->worst[i];
        cli_put_text(c, kinds[k->kind]);
        cli_put_none(c);
        cli_put_int(c, k->document);
        cli_put_int(c, k->pos);
        cli_put_int(c, k->here_token);
        cli_put_int(c, k->there_token);
        if (k->kind == LP_DIFFERS_TOKEN) {
            for (int n = 0; n < 4; n++) cli_put_none(c);
            continue;
        }
        cli_put_int(c, k->feature);
        cli_put_real(c, k->here, 9);
        cli_put_real(c, k->there, 9);
        cli_put_real(c, k->share, 3);
    }
    cli_table_end(c);
}

static lp_status check(job *w, const lp_series *s, lp_error *err)
{
    lp_outside *x;
    lp_comparison m;
    LP_TRY(lp_outside_open(&x, w->against, s->d_sae, err));
    lp_status st = lp_compare(&m, s, x, w->tolerance, &w->c->env, err);
    lp_outside_close(x);
    if (st == LP_E_SHAPE) return lp_prefix(err, st, w->against);
    LP_TRY(st);
    if (w->c->json)
        LP_TRY(print_json(&m, err));
    else
        print_table(w->c, &m);
    if (lp_comparison_agrees(&m)) return LP_OK;
    return lp_fail(err, LP_E_SHAPE, "%s: %lld of %lld rows disagree with %s", w->against, (long long)m.rows_differ,
                   (long long)m.rows, s->name);
}

/* ---- the whole ---------------------------------------------------------------------------------------------------- */

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    job w = {.c = c, .n_splits = 5, .tolerance = 1e-4, .as = -1};
    const cli_option options[] = {
        {"as", 0, CLI_CHOICE, &w.as, "csv|delphi",
         "the format; csv has tabs when OUT is a .tsv, and is packed when it is a .gz"},
        {"out", 'o', CLI_TEXT, &w.out, "OUT", "the file, or for delphi the folder, which must be new"},
        {"sae", 'S', CLI_TEXT, &w.sae, "NAME", "of several SAEs in the store: name or hash"},
        {"run", 0, CLI_TEXT, &w.run, "RUN", "of several runs in the store"},
        {"splits", 0, CLI_INT, &w.n_splits, "N", "delphi: files the features are dealt to (default 5)", .min = 1,
         .max = 4096},
        {"model-name", 0, CLI_TEXT, &w.model_name, "NAME", "delphi: whose tokenizer it shall load, google/gemma-2-2b"},
        {"against", 0, CLI_TEXT, &w.against, "FILE", "check: .npz, .safetensors, or a folder of delphi's"},
        {"tolerance", 0, CLI_REAL, &w.tolerance, "X", "check: of a row's largest value (default 1e-4)", .min = 0,
         .max = 1},
        {0},
    };
    LP_TRY(cli_parse(c, options, argc, argv, err));
    bool is_check = c->n_operands && strcmp(c->operands[0], "check") == 0;
    LP_TRY(cli_count_operands(c, is_check ? 2 : 1, is_check ? 2 : 1, err));
    if (is_check && !w.against) return cli_usage(c, err, "--against FILE: what to compare with");
    if (!is_check && (w.as < 0 || !w.out)) return cli_usage(c, err, "--as csv|delphi and -o OUT are needed");
    lp_series s;
    LP_TRY(lp_series_open(&s, c->operands[is_check], w.run, w.sae, &c->env, err));
    lp_status st = is_check ? check(&w, &s, err) : write_out(&w, &s, err);
    lp_series_close(&s);
    return st;
}

const cli_command cmd_export = {
    .name = "export",
    .summary = "what was extracted, for other programs; and against what they computed",
    .operands = "STORE --as FORMAT -o OUT | check STORE --against FILE",
    .about =
        "STORE is a store, the folder of a run in it, or one shard; one SAE of it is exported.\n"
        "csv     a line per activation: document, pos, token, feature, value\n"
        "delphi  EleutherAI's latent cache (delphi 0.1.3): OUT/MODULE/START_END.safetensors and config.json\n"
        "AnnData, scipy and h5py read the shards as they are.\n"
        "\n"
        "check   reads another program's activations for the same texts and prints where they disagree: tokens,\n"
        "        features on one side only, values; the exit status is 1 then.  FILE is a delphi cache, or an .npz or\n"
        "        .safetensors with tokens and either activations [rows][d_sae] or indptr, indices and data.",
    .run = run,
};
