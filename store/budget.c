/* budget.c - see extract.h: a prediction from doing a little of it.
 *
 * Two samples are extracted and sealed in a folder that goes away again, the second four times the first and as long as a
 * few seconds allow.  A shard's size is taken to be a + b tokens: what every shard has, and what a token costs.
 */
#include "core/bench.h"
#include "core/outfile.h"
#include "store/extract_job.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const double enough_seconds = 4;
enum { FIRST_TOKENS = 512 };

typedef struct sample {
    int64_t tokens;
    double seconds; /* computing and adding, without the seal */
    uint64_t bytes, values;
} sample;

/* Windows 0 .. n - 1 as a shard of their own in `folder`. */
static lp_status take_sample(sample *out, lp_extract_job *j, const char *folder, size_t n, lp_error *err)
{
    lp_plan_shard s = {.n_windows = n};
    for (size_t w = 0; w < n; w++) s.n_tokens += lp_plan_get_window(&j->plan, w).n_tokens;
    lp_shard_head h = lp_extract_head(j, &s, 0);
    lp_shard_writer *writer = NULL;
    lp_shard_sealed sealed = {0};
    LP_TRY(lp_shard_begin(&writer, folder, &h, 0, &j->env, err));
    double start = lp_clock();
    lp_status st = lp_extract_rows(j, writer, 0, n, false, err);
    *out = (sample){.tokens = s.n_tokens, .seconds = lp_clock() - start};
    if (st == LP_OK) st = lp_shard_seal(writer, &sealed, err);
    lp_shard_writer_close(writer);
    out->bytes = sealed.bytes, out->values = sealed.n_values;
    for (int i = 0; i < 2; i++) {
        char *path = lp_format("%s/shard-000000.h5%s", folder, i ? ".xxh3" : "");
        if (path) unlink(path);
        free(path);
    }
    return st;
}

/* How many windows from the first on have at least that many tokens. */
static size_t windows_of(const lp_plan *p, int64_t tokens)
{
    size_t n = 0;
    for (int64_t sum = 0; n < p->n_windows && sum < tokens; n++) sum += lp_plan_get_window(p, n).n_tokens;
    return n;
}

static uint64_t peak_memory(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)u.ru_maxrss * 1024; /* Linux: kilobytes */
}

static lp_status predict(lp_budget *out, lp_extract_job *j, const char *folder, lp_error *err)
{
    const lp_plan *p = &j->plan;
    sample a = {0}, b = {0};
    size_t few = windows_of(p, FIRST_TOKENS);
    LP_TRY(take_sample(&a, j, folder, few, err)); /* also warms everything up */
    LP_TRY(take_sample(&a, j, folder, few, err));
    double rate = (double)a.tokens / a.seconds;
    size_t more = windows_of(p, (int64_t)(rate * enough_seconds));
    b = a;
    if (more > few) LP_TRY(take_sample(&b, j, folder, more, err));
    double slope = b.tokens > a.tokens ? ((double)b.bytes - (double)a.bytes) / (double)(b.tokens - a.tokens)
                                       : (double)a.bytes / (double)a.tokens;
    double fixed = b.tokens > a.tokens ? (double)a.bytes - slope * (double)a.tokens : 0;
    if (fixed < 0) fixed = 0;
    out->sampled_tokens = b.tokens;
    out->tokens_per_second = (double)b.tokens / b.seconds;
    out->seconds = (double)p->n_tokens / out->tokens_per_second;
    out->disk = (uint64_t)(fixed * (double)p->n_shards + slope * (double)p->n_tokens);
    out->l0 = j->n_saes ? (double)b.values / (double)b.tokens / j->n_saes : 0;
    /* The seal turns one SAE's values round in memory: row, feature and value, 12 bytes, of the largest shard. */
    int64_t largest = 0;
    for (size_t i = 0; i < p->n_shards; i++)
        if (p->shards[i].n_tokens > largest) largest = p->shards[i].n_tokens;
    out->memory = peak_memory() + (uint64_t)(12 * out->l0 * (double)(largest > b.tokens ? largest - b.tokens : 0));
    return LP_OK;
}

/* budget.json beside run.json: what was said, for the end to be held against. */
static lp_status record(const lp_budget *b, const lp_run_folder *r, lp_error *err)
{
    char *path = lp_path_join(r->path, "budget.json");
    json_t *o = json_pack("{s:f,s:f,s:I,s:I,s:I}", "tokens_per_second", b->tokens_per_second, "seconds", b->seconds,
                          "disk", (json_int_t)b->disk, "memory", (json_int_t)b->memory, "sampled_tokens",
                          (json_int_t)b->sampled_tokens);
    char *text = o ? json_dumps(o, JSON_SORT_KEYS | JSON_REAL_PRECISION(6)) : NULL;
    lp_status st = path && text ? lp_outfile_text(path, text, "\n", err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    json_decref(o);
    free(path), free(text);
    return st;
}

static lp_status in_folder(lp_budget *out, lp_extract_job *j, lp_error *err)
{
    char *folder = lp_format("%s/.sample-XXXXXX", j->run.path);
    if (!folder) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_status st = mkdtemp(folder) ? LP_OK : lp_fail(err, LP_E_IO, "%s: cannot be made: %s", folder, strerror(errno));
    if (st == LP_OK) {
        st = predict(out, j, folder, err);
        lp_shard_sweep(folder, NULL, NULL);
        rmdir(folder);
    }
    free(folder);
    return st;
}

lp_status lp_extract_budget(lp_budget *out, const char *store, const char *corpus, const lp_model *m,
                            const lp_sae *const *saes, int n_saes, const lp_extract_options *o, const lp_env *env,
                            lp_error *err)
{
    lp_extract_job j;
    *out = (lp_budget){0};
    lp_status st = lp_extract_begin(&j, store, corpus, m, saes, n_saes, o, env, err);
    if (st == LP_OK) {
        j.env.progress = NULL;
        out->n_shards = j.plan.n_shards, out->n_documents = (int64_t)j.plan.n_documents;
        out->n_tokens = j.plan.n_tokens;
        if (j.plan.n_windows) st = in_folder(out, &j, err);
    }
    if (st == LP_OK) st = record(out, &j.run, err);
    lp_extract_end(&j);
    return st;
}
