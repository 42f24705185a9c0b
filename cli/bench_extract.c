/* bench_extract.c - extraction to the disk, beside the same work done with PyTorch.
 *
 * Windows of 512 tokens pass the model and an SAE at every layer (bench_sae.c's), and a shard is written and sealed, in a
 * folder that goes away again.  PyTorch, in the same round: the same shape in float32 through transformers, the SAEs'
 * dense encoders, thresholds, the active features saved by torch.save.  "storing" is the share of the time that went into
 * the shard; what every shard costs once weighs more here than in one of 65,536 tokens.
 */
#include "cli/bench.h"

#include "store/extract.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONTEXT = 512, WORD = 7 };

/* Text that comes to more than n tokens whatever the vocabulary: words of random letters. */
static lp_status write_corpus(const char *path, int n, lp_error *err)
{
    FILE *f = fopen(path, "we");
    uint32_t s = 3;
    if (!f) return lp_fail(err, LP_E_IO, "%s: cannot be written", path);
    for (int i = 0; i < n * WORD; i++) {
        s = s * 1664525u + 1013904223u;
        fputc(i % WORD ? 'a' + (int)((s >> 16) % 26) : ' ', f);
    }
    return fclose(f) == 0 ? LP_OK : lp_fail(err, LP_E_IO, "%s: cannot be written", path);
}

/* "run" is the extraction's own folder; what is in it, and it, go. */
static void remove_run(const char *store, const lp_extract_report *r)
{
    static const char *const names[] = {"run.json", "plan.jsonl", "shard-000000.h5", "shard-000000.h5.xxh3"};
    for (size_t i = 0; r->path && i < sizeof names / sizeof *names; i++) {
        char *path = lp_path_join(r->path, names[i]);
        if (path) unlink(path);
        free(path);
    }
    if (r->path) rmdir(r->path);
    char *runs = lp_path_join(store, "runs");
    if (runs) rmdir(runs);
    free(runs);
    rmdir(store);
}

static lp_status extract(bench *b, const char *folder, lp_arithmetic a, lp_error *err)
{
    char *corpus = lp_path_join(folder, "corpus.txt"), *store = lp_path_join(folder, "store");
    lp_extract_report r = {0};
    lp_extract_options o = {.plan = {.context = CONTEXT, .shard_tokens = LP_PLAN_SHARD}, .arithmetic = a};
    if (o.plan.context > b->model->config.max_positions) o.plan.context = b->model->config.max_positions;
    o.wave = b->c->wave;
    lp_status st = corpus && store ? write_corpus(corpus, b->extract_tokens / 3, err)
                                   : lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_env env = b->c->env;
    env.log = NULL;
    if (st == LP_OK) st = lp_extract(&r, store, corpus, b->model, bench_saes_list(b), b->n_layers, &o, &env, err);
    if (st == LP_OK) {
        bench_add(b, "extract", bench_arithmetic(a), "token/s", (double)r.made_tokens / r.seconds, "storing",
                  r.storing / r.seconds);
        bench_add(b, "extract, values", bench_arithmetic(a), "byte/value", (double)r.bytes / (double)r.n_values, NULL,
                  0);
    }
    if (store) remove_run(store, &r);
    lp_extract_report_clear(&r);
    if (corpus) unlink(corpus);
    free(corpus), free(store);
    return st;
}

lp_status bench_extract(bench *b, lp_error *err)
{
    char *folder = NULL;
    LP_TRY(bench_make_saes(b, err));
    LP_TRY(bench_folder(&folder, err));
    lp_status st = extract(b, folder, LP_EXACT, err);
    if (st == LP_OK) st = extract(b, folder, LP_FAST, err);
    if (st == LP_OK && b->torch) st = bench_torch_extract(b, CONTEXT, folder, err);
    rmdir(folder);
    free(folder);
    return st;
}
