/* cmd_extract.c - `lapidary extract`: a corpus through the model and its SAEs, into a store on the disk.
 *
 * Ctrl-C stops it, and so does anything else that ends a process; the same command again goes on.  SIGTERM, which batch
 * systems send before they kill, is treated as Ctrl-C; SIGUSR1 pauses and wakes it (Ctrl-Z does too).
 */
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/saes.h"
#include "store/extract.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DENSE = 32 };

typedef struct job {
    cli *c;
    cli_sae_choice choice;
    const char *store, *part;
    cli_texts dense;
    int dense_type, split, specials;
    bool no_saes, is_dry;
    lp_extract_options o;
    lp_shard_dense places[MOST_DENSE];
    lp_model *m;
    cli_saes saes;
} job;

/* A signal handler can reach nothing but globals. */
static atomic_bool paused;

static void on_pause(int sig)
{
    (void)sig;
    atomic_store(&paused, !atomic_load(&paused));
}

static void on_term(int sig)
{
    (void)sig;
    raise(SIGINT);
}

static void listen(void)
{
    struct sigaction pause = {.sa_handler = on_pause, .sa_flags = SA_RESTART}, term = {.sa_handler = on_term};
    sigemptyset(&pause.sa_mask), sigemptyset(&term.sa_mask);
    sigaction(SIGUSR1, &pause, NULL);
    sigaction(SIGTERM, &term, NULL);
}

/* ---- what was typed ---------------------------------------------------------------------------------------------- */

static lp_status take_dense(job *w, lp_error *err)
{
    static const lp_dtype types[] = {LP_F32, LP_F16, LP_BF16};
    if (w->dense.n > MOST_DENSE) return cli_usage(w->c, err, "--dense: at most %d sites", (int)MOST_DENSE);
    for (int i = 0; i < w->dense.n; i++) {
        lp_shard_dense *d = &w->places[i];
        LP_TRY(lp_site_parse(w->dense.items[i], &d->site, &d->layer, err));
        if (d->layer == LP_EVERY_LAYER)
            return cli_usage(w->c, err, "--dense %s: which layer? %s.3", w->dense.items[i], w->dense.items[i]);
        d->type = types[w->dense_type];
    }
    w->o.dense = w->places, w->o.n_dense = w->dense.n;
    return LP_OK;
}

/* "2/8": the third of eight. */
static lp_status take_part(job *w, lp_error *err)
{
    char rest;
    if (!w->part) return LP_OK;
    if (sscanf(w->part, "%d/%d%c", &w->o.part, &w->o.parts, &rest) != 2 || w->o.part < 0 || w->o.parts < 1 ||
        w->o.part >= w->o.parts)
        return cli_usage(w->c, err, "--part \"%s\": expected I/N, I from 0 to N - 1", w->part);
    return LP_OK;
}

static lp_status take_typed(job *w, lp_error *err)
{
    static const lp_corpus_split splits[] = {LP_SPLIT_NONE, LP_SPLIT_LINES, LP_SPLIT_PARAGRAPHS};
    LP_TRY(cli_count_operands(w->c, 1, 1, err));
    if (!w->store) return cli_usage(w->c, err, "--store DIR: where to keep what is extracted");
    if (w->no_saes && w->choice.names.n) return cli_usage(w->c, err, "--no-saes and --sae: one of the two");
    w->o.plan.corpus.split = splits[w->split];
    w->o.plan.specials = cli_specials(w->specials);
    w->o.arithmetic = w->c->arithmetic, w->o.wave = w->c->wave;
    w->o.pause = &paused;
    LP_TRY(take_part(w, err));
    return take_dense(w, err);
}

/* ---- reports ----------------------------------------------------------------------------------------------------- */

static lp_status print_budget(job *w, const lp_budget *b, lp_error *err)
{
    cli *c = w->c;
    if (c->json)
        return cli_print_json(json_pack("{s:I,s:I,s:I,s:I,s:f,s:f,s:f,s:I,s:I}", "documents",
                                        (json_int_t)b->n_documents, "tokens", (json_int_t)b->n_tokens, "shards",
                                        (json_int_t)b->n_shards, "sampled_tokens", (json_int_t)b->sampled_tokens,
                                        "tokens_per_second", b->tokens_per_second, "seconds", b->seconds, "l0", b->l0,
                                        "disk", (json_int_t)b->disk, "memory", (json_int_t)b->memory),
                              err);
    cli_table_begin(c, "documents\ttokens\tshards\tl0\ttokens_per_s\thours\tdisk\tmemory");
    cli_put_int(c, b->n_documents);
    cli_put_int(c, b->n_tokens);
    cli_put_int(c, (int64_t)b->n_shards);
    cli_put_real(c, b->l0, 3);
    cli_put_real(c, b->tokens_per_second, 3);
    cli_put_real(c, b->seconds / 3600, 3);
    cli_put_text(c, lp_amount_of(b->disk).text);
    cli_put_text(c, lp_amount_of(b->memory).text);
    cli_table_end(c);
    return LP_OK;
}

static lp_status print_report(job *w, const lp_extract_report *r, lp_error *err)
{
    cli *c = w->c;
    double rate = r->seconds > 0 ? (double)r->made_tokens / r->seconds : 0;
    if (c->json)
        return cli_print_json(json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:i,s:I,s:I,s:I,s:f,s:f}", "run", r->run, "path",
                                        r->path, "documents", (json_int_t)r->n_documents, "tokens",
                                        (json_int_t)r->n_tokens, "shards", (json_int_t)r->n_shards, "found",
                                        (json_int_t)r->n_found, "made", (json_int_t)r->n_made, "quarantined",
                                        r->n_quarantined, "made_tokens", (json_int_t)r->made_tokens, "bytes",
                                        (json_int_t)r->bytes, "values", (json_int_t)r->n_values, "seconds", r->seconds,
                                        "storing", r->storing),
                              err);
    cli_table_begin(c, "run\tdocuments\ttokens\tshards\tfound\tmade\tvalues\tbytes\tseconds\ttokens_per_s\tstoring");
    cli_put_text(c, r->path);
    cli_put_int(c, r->n_documents);
    cli_put_int(c, r->n_tokens);
    cli_put_int(c, (int64_t)r->n_shards);
    cli_put_int(c, (int64_t)r->n_found);
    cli_put_int(c, (int64_t)r->n_made);
    cli_put_int(c, (int64_t)r->n_values);
    cli_put_int(c, (int64_t)r->bytes);
    cli_put_real(c, r->seconds, 3);
    cli_put_real(c, rate, 3);
    cli_put_real(c, r->seconds > 0 ? r->storing / r->seconds : 0, 2);
    cli_table_end(c);
    return LP_OK;
}

/* The prediction, if there is one, against what it came to. */
static void compare(const job *w, const lp_extract_report *r)
{
    char *path = lp_path_join(r->path, "budget.json");
    json_t *o = path ? json_load_file(path, 0, NULL) : NULL;
    double rate = json_number_value(json_object_get(o, "tokens_per_second"));
    if (rate > 0 && r->made_tokens > 0 && r->n_made == r->n_shards)
        lp_log(&w->c->env, LP_INFO, "predicted %.0f tokens/s and %s; it was %.0f tokens/s and %s", rate,
               lp_amount_of((uint64_t)json_number_value(json_object_get(o, "disk"))).text,
               (double)r->made_tokens / r->seconds, lp_amount_of(r->bytes).text);
    json_decref(o);
    free(path);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static lp_status work(job *w, lp_error *err)
{
    cli *c = w->c;
    const char *corpus = c->operands[0];
    LP_TRY(cli_open(&w->m, NULL, c, 0, err));
    if (!w->no_saes) LP_TRY(cli_open_saes(&w->saes, c, w->m, &w->choice, err));
    const lp_sae *const *saes = (const lp_sae *const *)w->saes.items;
    listen();
    if (w->is_dry) {
        lp_budget b;
        LP_TRY(lp_extract_budget(&b, w->store, corpus, w->m, saes, w->saes.n, &w->o, &c->env, err));
        return print_budget(w, &b, err);
    }
    lp_extract_report r;
    lp_status st = lp_extract(&r, w->store, corpus, w->m, saes, w->saes.n, &w->o, &c->env, err);
    if (st == LP_OK) compare(w, &r);
    if (st == LP_OK) st = print_report(w, &r, err);
    if (st == LP_CANCELLED && r.path)
        lp_log(&c->env, LP_INFO, "stopped with %zu of %zu shards sealed; the same command goes on",
               r.n_found + r.n_made, r.n_shards);
    lp_extract_report_clear(&r);
    return st;
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    job w = {.c = c, .o = {.plan = {.context = 128, .shard_tokens = LP_SHARD_TOKENS}, .value_bits = 23}};
    int shard_tokens = LP_SHARD_TOKENS;
    const cli_option options[] = {
        {"store", 'o', CLI_TEXT, &w.store, "DIR", "the folder of the store, made if it is not there"},
        CLI_SAE_OPTIONS(w.choice),
        {"no-saes", 0, CLI_FLAG, &w.no_saes, NULL, "no SAE at all: dense sites or log-probabilities alone"},
        {"dense", 0, CLI_TEXTS, &w.dense, "SITE", "also the tensor itself, resid_post.3; again for more"},
        {"dense-type", 0, CLI_CHOICE, &w.dense_type, "f32|f16|bf16", "as what it is stored (default f32)"},
        {"logprob", 0, CLI_FLAG, &w.o.has_logprob, NULL, "also the log-probability of every next token"},
        {"value-bits", 0, CLI_INT, &w.o.value_bits, "N", "mantissa bits kept of a value (default 23: all)", .min = 1,
         .max = 23},
        {"context", 0, CLI_INT, &w.o.plan.context, "N", "tokens of a window, <bos> among them (default 128)", .min = 2,
         .max = 8192},
        {"shard-tokens", 0, CLI_INT, &shard_tokens, "N", "tokens of a shard, about (default 65536)", .min = 1,
         .max = LP_PLAN_SHARD},
        {"field", 0, CLI_TEXT, &w.o.plan.corpus.field, "NAME", "where a JSON line has its text (default text)"},
        {"key", 0, CLI_TEXT, &w.o.plan.corpus.key, "NAME", "where a JSON line has its name (default: none)"},
        {"split", 0, CLI_CHOICE, &w.split, "none|lines|paragraphs",
         "what a document is in a text file (default: all of it)"},
        {"skip-bad", 0, CLI_FLAG, &w.o.plan.corpus.skip_bad, NULL,
         "pass over JSON lines that hold no text, and count them"},
        {"specials", 0, CLI_CHOICE, &w.specials, CLI_SPECIALS_CHOICE,
         "what \"<start_of_turn>\" in a text is: plain text (default), or a token"},
        {"part", 0, CLI_TEXT, &w.part, "I/N", "only every Nth shard, from the Ith on (counted from 0)"},
        {"new", 0, CLI_FLAG, &w.o.starts_anew, NULL,
         "beside an unfinished run of the same corpus made with something else"},
        {"dry-run", 0, CLI_FLAG, &w.is_dry, NULL,
         "say how long it would take and how much memory and disk, from a sample"},
        {0},
    };
    lp_status st = cli_parse(c, options, argc, argv, err);
    w.o.plan.shard_tokens = shard_tokens;
    if (st == LP_OK) st = take_typed(&w, err);
    if (st == LP_OK) st = work(&w, err);
    cli_close_saes(&w.saes);
    lp_model_close(w.m);
    return st;
}

const cli_command cmd_extract = {
    .name = "extract",
    .summary = "Run a corpus through the model and its SAEs and keep every activation in a store",
    .operands = "CORPUS",
    .about =
        "CORPUS is a text file, a .jsonl file, or a folder of them; either may be compressed by gzip.  Documents\n"
        "are cut into windows of --context tokens, each beginning with <bos>, and dealt to shards before the first\n"
        "token is computed.  A shard is an HDF5 file that is whole or not there: stop it, kill it, unplug it, and\n"
        "the same command goes on and comes to the same bytes.  SIGUSR1 pauses it and wakes it again.\n"
        "--part I/N splits the work over processes and machines that share the folder.",
    .run = run,
};
