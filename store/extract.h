/* extract.h - the job: a corpus through a model and its SAEs, onto the disk, shard by shard.
 *
 *     lp_extract_options o = {.plan = {.context = 512}, .part = 0, .parts = 1};
 *     lp_extract(&report, "store", "corpus.jsonl", model, saes, n, &o, &env, &err);
 *
 * The same call again goes on where the last one was stopped, killed or cut off, and comes to the same bytes: a shard is
 * either sealed or not there (shard.h), and which rows it has was settled before the first token (plan.h).  Any number of
 * processes, on any number of machines with one file system, may work on one run: each takes its own part of the shards.
 *
 * A document's rows are its windows, one after the other; its text is kept, its key is FILE:KEY, or FILE:LINE where it has
 * no key.  <bos> and, where special tokens are parsed, these too are stored and in no statistic.  A document of no bytes
 * goes with the next that has some.
 */
#ifndef LP_STORE_EXTRACT_H
#define LP_STORE_EXTRACT_H

#include "core/session.h"
#include "store/plan.h"

typedef struct lp_extract_options {
    lp_plan_options plan;
    const lp_shard_dense *dense; /* widths are filled in */
    int n_dense;
    bool has_logprob;
    int value_bits;   /* 0: 23, all of them                                            */
    int wave;         /* rows side by side; 0: 512.  Changes no bit                    */
    int part, parts;  /* only shards with number % parts == part; parts 0: all of them */
    bool starts_anew; /* beside a run of the same corpus that is not finished          */
    lp_arithmetic arithmetic;
    atomic_bool *pause; /* NULL, or: while it is up, nothing is computed                 */
} lp_extract_options;

typedef struct lp_extract_report { /* lp_extract_report_clear frees it */
    char *path;                    /* of the run's folder */
    char run[33];
    size_t n_shards, n_found, n_made; /* of this part; found: sealed before */
    int n_quarantined;
    int64_t n_documents, n_tokens; /* of the run  */
    int64_t made_tokens;           /* of this call */
    uint64_t bytes, n_values;      /* of what this call sealed */
    double seconds;                /* computing and sealing, without reading the corpus */
    double storing;                /* of these, in shards and not in the model          */
} lp_extract_report;

/* LP_CANCELLED: what is sealed stays.  LP_E_RANGE: options, or a run that is not finished and differs (run_folder.h).
 * Progress: tokens of this part.  *out is filled as far as it got, whatever is returned. */
lp_status lp_extract(lp_extract_report *out, const char *store, const char *corpus, const lp_model *m,
                     const lp_sae *const *saes, int n_saes, const lp_extract_options *o, const lp_env *env,
                     lp_error *err);
void lp_extract_report_clear(lp_extract_report *r);

/* What it would take, from a few seconds of doing it: nothing stays on the disk but the record of the prediction. */
typedef struct lp_budget {
    size_t n_shards;
    int64_t n_documents, n_tokens, sampled_tokens;
    double tokens_per_second, seconds, l0; /* l0: features a row and SAE */
    uint64_t disk, memory;                 /* bytes of all shards; resident at the peak */
} lp_budget;

lp_status lp_extract_budget(lp_budget *out, const char *store, const char *corpus, const lp_model *m,
                            const lp_sae *const *saes, int n_saes, const lp_extract_options *o, const lp_env *env,
                            lp_error *err);

#endif
