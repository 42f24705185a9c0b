/* extract_job.h - what extract.c, extract_rows.c and budget.c share; private to them. */
#ifndef LP_STORE_EXTRACT_JOB_H
#define LP_STORE_EXTRACT_JOB_H

#include "store/collect.h"
#include "store/extract.h"
#include "store/run_folder.h"
#include "store/windows.h"

typedef struct lp_extract_job {
    const lp_model *m;
    const lp_sae *const *saes;
    int n_saes;
    lp_extract_options o; /* dense: a copy of ours with the widths */
    lp_shard_dense *dense;
    lp_plan plan;
    lp_run_folder run;
    lp_windows *windows;
    lp_collector *collector;
    lp_shard_sae *about; /* [n_saes] */
    lp_env env;
    int64_t done, of; /* tokens, for progress */
    double in_store;  /* seconds spent in shards */
    double began;     /* lp_clock of the first token */
} lp_extract_job;

/* Everything up to the first token; lp_extract_end, whatever it returned. */
lp_status lp_extract_begin(lp_extract_job *j, const char *store, const char *corpus, const lp_model *m,
                           const lp_sae *const *saes, int n_saes, const lp_extract_options *o, const lp_env *env,
                           lp_error *err);
void lp_extract_end(lp_extract_job *j);

/* A shard's head; borrows from j. */
lp_shard_head lp_extract_head(const lp_extract_job *j, const lp_plan_shard *s, size_t number);
/* All documents and rows of windows first .. first + n - 1 into w; is_last: nothing comes after these. */
lp_status lp_extract_rows(lp_extract_job *j, lp_shard_writer *w, size_t first, size_t n, bool is_last, lp_error *err);

#endif
