/* cmd_bench.c - `lapidary bench`: how fast this machine runs a model, beside what it could do in the same seconds.
 *
 * bench_run.c measures; here are the options, the model (one at hand, or a synthetic one of a named shape that is
 * written to a temporary file), and the table: for each line the median, least and greatest of the rounds, and the same
 * for its share of the yardstick.  A share is dimensionless: 0.95 of the raw read is 95 %.
 */
#include "cli/bench.h"
#include "cli/commands.h"

#include "core/quant.h"
#include "core/synth.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

typedef struct request {
    const char *shape, *type;
    int what;         /* of --what's words */
    char *temporary;  /* the synthetic model, to be removed */
    char *model_name; /* what to open */
} request;

/* ---- the model ------------------------------------------------------------------------------------------------ */

static lp_status take_type(cli *c, lp_dtype *out, const char *name, lp_error *err)
{
    char upper[16];
    size_t n = strlen(name);
    for (size_t i = 0; i <= n && i < sizeof upper; i++) upper[i] = (char)toupper((unsigned char)name[i]);
    if (n < sizeof upper && lp_dtype_parse(upper, out)) return LP_OK;
    return cli_usage(c, err, "--type \"%s\": expected f32, bf16, f16, q8_0, q4_k, ...", name);
}

/* A GGUF file, because llama.cpp reads that too. */
static lp_status make_model(cli *c, request *r, lp_error *err)
{
    lp_synth_options o = {.gguf = 1, .replace = 1};
    if (!lp_config_shape(&o.config, r->shape))
        return cli_usage(c, err, "--shape \"%s\": expected 2b, 9b, 27b or nano", r->shape);
    LP_TRY(take_type(c, &o.type, r->type, err));
    LP_TRY(bench_folder(&r->temporary, err));
    r->model_name = lp_format("%s/%s-%s.gguf", r->temporary, r->shape, r->type);
    if (!r->model_name) return lp_fail(err, LP_E_MEMORY, "out of memory");
    return lp_synth_write(r->model_name, &o, &c->env, err);
}

static void remove_model(request *r)
{
    if (r->temporary) {
        if (r->model_name) unlink(r->model_name);
        rmdir(r->temporary);
    }
    free(r->temporary);
    free(r->model_name);
}

/* ---- the result ----------------------------------------------------------------------------------------------- */

typedef struct summary {
    double median, least, most;
} summary;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static summary summarize(const double *v, int n)
{
    double sorted[MAX_ROUNDS];
    memcpy(sorted, v, (size_t)n * sizeof *v);
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    return (summary){n % 2 ? sorted[n / 2] : 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]), sorted[0], sorted[n - 1]};
}

/* "model name : AMD ..." of the first processor. */
static void cpu_name(char *out, size_t n)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "re");
    snprintf(out, n, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !value) continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(out, n, "%s", value + 1 + strspn(value + 1, " \t"));
        break;
    }
    if (f) fclose(f);
}

typedef struct fact {
    const char *name;
    char text[256];
} fact;

static int gather(fact *facts, const bench *b, const request *r)
{
    const lp_model *m = b->model;
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    double kv = (double)lp_session_bytes_per_token(&m->config) * (b->what & BENCH_PROMPT   ? b->prompt
                                                                  : b->what & BENCH_DECODE ? b->tokens + 1
                                                                                           : 0);
    double rss = (double)u.ru_maxrss * 1024; /* Linux: kilobytes */
    int n = 0;
    cpu_name(facts[n].text, sizeof facts->text);
    facts[n++].name = "cpu";
#define FACT(key, ...) (snprintf(facts[n].text, sizeof facts->text, __VA_ARGS__), facts[n++].name = (key))
    FACT("threads", "%d", lp_pool_threads(b->c->env.pool));
    FACT("kernels", "%s", b->kernels->name);
    FACT("version", "%s", LP_VERSION);
    FACT("model", "%s", r->temporary ? strrchr(b->path, '/') + 1 : b->path);
    FACT("family", "%s", lp_config_family(&m->config));
    FACT("table_type", "%s", lp_dtype_name(m->embed.stored));
    FACT("matrix_type", "%s", lp_dtype_name(m->layers[0].up.stored));
    FACT("rounds", "%d", b->rounds);
    FACT("weights_gb", "%.4g", (double)m->weight_bytes / 1e9);
    FACT("cache_gb", "%.4g", kv / 1e9);
    FACT("peak_rss_gb", "%.4g", rss / 1e9);
    FACT("beyond_weights_and_cache_mb", "%.4g", (rss - (double)m->weight_bytes - kv) / 1e6);
    if (b->peer) FACT("peer", "%s", b->peer_version);
    if (b->torch) FACT("torch", "%s", b->torch_version);
#undef FACT
    return n;
}

static void print_tables(cli *c, const bench *b, const fact *facts, int n_facts)
{
    char head[512] = "";
    for (int i = 0; i < n_facts; i++) {
        strcat(head, i ? "\t" : "");
        strcat(head, facts[i].name);
    }
    cli_table_begin(c, head);
    for (int i = 0; i < n_facts; i++) cli_put_text(c, facts[i].text);
    cli_table_end(c);
    putchar('\n');
    cli_table_begin(c, "what\tarithmetic\tunit\tmedian\tleast\tmost\tshare_of\tshare\tshare_least\tshare_most");
    for (int i = 0; i < b->n_series; i++) {
        const bench_series *s = &b->series[i];
        summary v = summarize(s->value, s->n), share = summarize(s->share, s->n);
        cli_put_text(c, s->what);
        cli_put_text(c, s->arithmetic);
        cli_put_text(c, s->unit);
        cli_put_real(c, v.median, 4);
        cli_put_real(c, v.least, 4);
        cli_put_real(c, v.most, 4);
        cli_put_text(c, s->of);
        const double shares[] = {share.median, share.least, share.most};
        for (int k = 0; k < 3; k++) {
            if (s->of)
                cli_put_real(c, shares[k], 3);
            else
                cli_put_none(c);
        }
    }
    cli_table_end(c);
}

static json_t *json_series(const bench_series *s)
{
    json_t *j = json_object(), *values = json_array(), *shares = json_array();
    summary v = summarize(s->value, s->n), share = summarize(s->share, s->n);
    for (int i = 0; i < s->n; i++) {
        json_array_append_new(values, cli_json_real(s->value[i]));
        json_array_append_new(shares, cli_json_real(s->share[i]));
    }
    json_object_set_new(j, "what", json_string(s->what));
    json_object_set_new(j, "arithmetic", json_string(s->arithmetic));
    json_object_set_new(j, "unit", json_string(s->unit));
    json_object_set_new(j, "median", cli_json_real(v.median));
    json_object_set_new(j, "values", values);
    if (s->of) {
        json_object_set_new(j, "share_of", json_string(s->of));
        json_object_set_new(j, "share", cli_json_real(share.median));
        json_object_set_new(j, "shares", shares);
    } else {
        json_decref(shares);
    }
    return j;
}

static lp_status print_json(const bench *b, const fact *facts, int n_facts, lp_error *err)
{
    json_t *j = json_object(), *machine = json_object(), *results = json_array();
    for (int i = 0; i < n_facts; i++)
        json_object_set_new(machine, facts[i].name, cli_json_text(facts[i].text, strlen(facts[i].text)));
    for (int i = 0; i < b->n_series; i++) json_array_append_new(results, json_series(&b->series[i]));
    json_object_set_new(j, "machine", machine);
    json_object_set_new(j, "results", results);
    return cli_print_json(j, err);
}

/* ---- the command ---------------------------------------------------------------------------------------------- */

static lp_status measure(cli *c, bench *b, const request *r, lp_error *err)
{
    fact facts[16];
    lp_status st = bench_run(b, err);
    if (st == LP_OK) {
        int n = gather(facts, b, r);
        if (c->json)
            st = print_json(b, facts, n, err);
        else
            print_tables(c, b, facts, n);
    }
    bench_saes_free(b);
    lp_model_close(b->model);
    b->model = NULL;
    return st;
}

static bool is_gguf(const char *path)
{
    size_t n = strlen(path);
    return n > 5 && strcmp(path + n - 5, ".gguf") == 0;
}

static lp_status check_peer(cli *c, const bench *b, lp_error *err)
{
    if (!b->peer) return LP_OK;
    if (!is_gguf(b->path))
        return cli_usage(c, err, "--peer needs a .gguf file (or --shape): llama.cpp reads nothing else");
    if (lp_is_file(b->script)) return LP_OK;
    return lp_fail(err, LP_E_NOT_FOUND, "%s is not there; --peer-script names it", b->script);
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    static const int whats[] = {BENCH_ALL,  BENCH_MATMUL, BENCH_DECODE, BENCH_PROMPT,
                                BENCH_LOAD, BENCH_SAE,    BENCH_EXTRACT};
    request r = {.type = "bf16"};
    bench *b = lp_calloc(1, sizeof *b); /* large: a hundred rounds of everything */
    if (!b) return lp_fail(err, LP_E_MEMORY, "out of memory");
    *b = (bench){.c = c,
                 .rounds = 5,
                 .prompt = 512,
                 .tokens = 32,
                 .width = 16384,
                 .extract_tokens = 4096,
                 .script = LP_SOURCE_DIR "/tests/bench/llama_peer.py"};
    const cli_option options[] = {
        {"shape", 's', CLI_TEXT, &r.shape, "NAME", "a synthetic model: 2b, 9b, 27b, nano (written to TMPDIR)"},
        {"type", 't', CLI_TEXT, &r.type, "TYPE", "its type (default bf16)"},
        {"rounds", 'r', CLI_INT, &b->rounds, "N", "rounds (default 5); medians are over them", .min = 1,
         .max = MAX_ROUNDS},
        {"what", 'w', CLI_CHOICE, &r.what, "all|matmul|decode|prompt|load|sae|extract",
         "what to measure (default all, which leaves out sae and extract)"},
        {"prompt", 'p', CLI_INT, &b->prompt, "N", "tokens of the prompt (default 512)", .min = 1, .max = 8191},
        {"tokens", 'n', CLI_INT, &b->tokens, "N", "tokens to decode (default 32)", .min = 1, .max = 8191},
        {"peer", 0, CLI_TEXT, &b->peer, "PYTHON", "a Python with llama_cpp: llama.cpp in the same rounds"},
        {"sae-width", 0, CLI_INT, &b->width, "N", "features of the random SAEs (default 16384)", .min = 1024,
         .max = 1 << 20},
        {"extract-tokens", 0, CLI_INT, &b->extract_tokens, "N", "tokens to extract, about (default 4096)", .min = 64,
         .max = 1 << 24},
        {"torch", 0, CLI_TEXT, &b->torch, "PYTHON", "a Python with torch: PyTorch does the same (sae, extract)"},
        {"peer-script", 0, CLI_TEXT, &b->script, "FILE", "what it runs (default tests/bench/llama_peer.py)"},
        {0},
    };
    lp_status st = cli_parse(c, options, argc, argv, err);
    if (st == LP_OK) st = cli_count_operands(c, 0, 0, err);
    if (st == LP_OK && r.shape && c->model) st = cli_usage(c, err, "--shape makes a model, -m names one; not both");
    if (st != LP_OK) goto out;
    b->what = whats[r.what];
    b->kernels = c->env.kernels ? c->env.kernels : lp_kernels_best();
    st = r.shape ? make_model(c, &r, err) : cli_model_name(&r.model_name, c, err);
    if (st != LP_OK) goto out;
    b->path = r.model_name;
    if ((st = check_peer(c, b, err)) == LP_OK) st = measure(c, b, &r, err);
out:
    remove_model(&r);
    free(b);
    return st;
}

const cli_command cmd_bench = {
    .name = "bench",
    .summary = "Measure speed and memory beside what the machine can do in the same seconds",
    .about =
        "In rounds: peak arithmetic and raw read of memory; 512 rows through the MLP's matrices; one token at a time\n"
        "from an empty cache; a whole prompt; loading.  Each stands between two readings of its yardstick, and its\n"
        "share is of their mean: of the peak for matmul and prompt, of the raw read for decode.  The medians are of\n"
        "the rounds.  A prompt counts only the flops of the weight products as work.  With --what sae and extract,\n"
        "random SAEs at every layer: they need memory of their own (3.9 GB at the 2B shape).",
    .run = run,
};
