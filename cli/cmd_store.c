/* cmd_store.c - `lapidary store`: what is in a store, and whether it is sound.
 *
 *     lapidary store info STORE               a line per run; --saes: a line per SAE
 *     lapidary store verify STORE [--repair]  every shard's bytes and invariants, the catalogue against them
 */
#include "cli/commands.h"
#include "store/store_info.h"
#include "store/store_verify.h"

#include <string.h>

typedef struct job {
    cli *c;
    const char *store;
    bool saes, repair;
} job;

/* ---- info --------------------------------------------------------------------------------------------------------- */

static void put_planned(cli *c, int64_t v)
{
    if (v >= 0)
        cli_put_int(c, v);
    else
        cli_put_none(c);
}

static void print_run(cli *c, const lp_store_run *r)
{
    cli_put_text(c, r->hash);
    cli_put_text(c, r->model);
    cli_put_int(c, r->n_saes);
    cli_put_int(c, r->n_shards);
    put_planned(c, r->plan_shards);
    cli_put_int(c, r->n_tokens);
    put_planned(c, r->plan_tokens);
    cli_put_int(c, r->n_counted);
    cli_put_int(c, r->n_documents);
    put_planned(c, r->plan_documents);
    cli_put_int(c, r->n_values);
    cli_put_int(c, r->bytes);
}

static void print_sae(cli *c, const lp_store_run *r, const lp_store_sae *s)
{
    cli_put_text(c, r->hash);
    cli_put_text(c, s->name);
    cli_put_text(c, s->site);
    if (s->layer >= 0)
        cli_put_int(c, s->layer);
    else
        cli_put_none(c);
    cli_put_int(c, s->d_sae);
    cli_put_int(c, s->n_live);
    cli_put_int(c, s->n_values);
    cli_put_real(c, r->n_counted ? (double)s->n_active / (double)r->n_counted : 0, 5);
    cli_put_int(c, s->n_labels);
    cli_put_text(c, s->hash);
}

static lp_status info(const job *w, lp_error *err)
{
    lp_store_info x;
    cli *c = w->c;
    LP_TRY(lp_store_get_info(&x, w->store, &c->env, err));
    cli_table_begin(c, w->saes
                           ? "run\tsae\tsite\tlayer\td_sae\tlive\tactivations\tl0\tlabels\thash"
                           : "run\tmodel\tsaes\tshards\tplanned_shards\ttokens\tplanned_tokens\tcounted\tdocuments\t"
                             "planned_documents\tactivations\tbytes");
    for (size_t i = 0; i < x.n_runs; i++) {
        if (!w->saes) print_run(c, &x.runs[i]);
        for (int k = 0; w->saes && k < x.runs[i].n_saes; k++) print_sae(c, &x.runs[i], &x.runs[i].saes[k]);
    }
    cli_table_end(c);
    lp_store_info_free(&x);
    return LP_OK;
}

/* ---- verify ------------------------------------------------------------------------------------------------------- */

static lp_status verify(const job *w, lp_error *err)
{
    lp_store_verified v;
    cli *c = w->c;
    LP_TRY(lp_store_verify(&v, w->store, w->repair, &c->env, err));
    cli_table_begin(c, "run\tshard\tstate\twhy");
    for (size_t i = 0; i < v.n; i++) {
        const lp_store_finding *f = &v.items[i];
        cli_put_text(c, f->number < 0 ? "catalogue" : f->run);
        if (f->number < 0)
            cli_put_none(c);
        else
            cli_put_int(c, f->number);
        cli_put_text(c, lp_store_state_name(f->state));
        cli_put_text(c, f->why[0] ? f->why : NULL);
    }
    cli_table_end(c);
    int bad = v.bad, quarantined = 0;
    for (size_t i = 0; i < v.n; i++) quarantined += v.items[i].state == LP_STORE_QUARANTINED;
    lp_store_verified_free(&v);
    if (!bad) return LP_OK;
    if (quarantined == bad)
        return lp_fail(err, LP_E_FORMAT, "%s: %d damaged shards are in quarantine; extract again makes them anew",
                       w->store, bad);
    return lp_fail(err, LP_E_FORMAT, "%s: %d of it not sound%s", w->store, bad,
                   w->repair ? "" : "; --repair moves damaged shards to quarantine");
}

/* ---- the whole ---------------------------------------------------------------------------------------------------- */

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    job w = {.c = c};
    const cli_option options[] = {
        {"saes", 0, CLI_FLAG, &w.saes, NULL, "info: a line for every SAE"},
        {"repair", 0, CLI_FLAG, &w.repair, NULL, "verify: move damaged shards to the run's quarantine/"},
        {0},
    };
    static const char *const verbs[] = {"info", "verify", NULL};
    LP_TRY(cli_parse(c, options, argc, argv, err));
    const char *verb = c->n_operands ? c->operands[0] : "";
    const char *near = *verb ? cli_nearest(verb, verbs) : NULL;
    if (strcmp(verb, "info") != 0 && strcmp(verb, "verify") != 0)
        return cli_usage(c, err, "store \"%.40s\": expected info or verify%s%s%s", verb,
                         near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    LP_TRY(cli_count_operands(c, 2, 2, err));
    w.store = c->operands[1];
    return strcmp(verb, "info") == 0 ? info(&w, err) : verify(&w, err);
}

const cli_command cmd_store = {
    .name = "store",
    .summary = "what is in a store of activations, and whether it is sound",
    .operands = "info|verify STORE",
    .about =
        "info    runs: shards, tokens and documents taken in and planned, activations, bytes; --saes: every SAE\n"
        "verify  every shard against its hash and, in a process of its own, its invariants; the catalogue against\n"
        "        the shards; fails when anything is not as it was sealed.  --repair moves damaged shards away, so\n"
        "        that the same extraction makes them again",
    .run = run,
};
