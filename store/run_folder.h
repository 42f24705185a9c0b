/* run_folder.h - one extraction on disk: what it was made with, its plan, its sealed shards.
 *
 *     STORE/runs/RUN/run.json        what the numbers depend on: model, tokenizer, SAEs, arithmetic, plan
 *                    plan.jsonl      which document goes where (plan.h)
 *                    shard-000017.h5, .xxh3
 *                    quarantine/     shards whose bytes are no longer what they were
 *
 * RUN is a hash of run.json's content, so the same corpus under the same model and SAEs is the same run, whoever computes
 * it, wherever, however often: the same command finds what is done and goes on.
 */
#ifndef LP_STORE_RUN_FOLDER_H
#define LP_STORE_RUN_FOLDER_H

#include "core/session.h"
#include "store/plan.h"

/* What a run's numbers depend on; borrowed. */
typedef struct lp_run_about {
    const lp_model *m;
    const lp_sae *const *saes;
    int n_saes;
    const lp_shard_dense *dense;
    int n_dense;
    lp_arithmetic arithmetic;
    bool has_logprob;
    int value_bits; /* 23: all */
    const lp_plan *plan;
    const char *corpus; /* as it is called: the last part of its path */
} lp_run_about;

typedef struct lp_run_folder { /* all zero is an empty one */
    char *path;                /* STORE/runs/RUN                     */
    char *provenance;          /* for the shards: JSON, keys sorted */
    char run[33], model_hash[33];
} lp_run_folder;

/* Makes STORE and the run's folder where they are not there yet, and writes run.json and plan.jsonl.  LP_E_RANGE: a run of
 * the same corpus is in STORE that is not finished and was made with something else; the text says with what.
 * starts_anew: that is how it is meant. */
lp_status lp_run_open(lp_run_folder *out, const char *store, const lp_run_about *a, bool starts_anew, lp_error *err);
void lp_run_close(lp_run_folder *r);

/* The path of a shard, sealed or not; free it.  NULL: out of memory. */
char *lp_run_shard(const lp_run_folder *r, size_t number);

/* Is the shard there, and are its bytes those that were sealed?  What is damaged goes to quarantine/, with a warning, and
 * counts in *n_quarantined. */
lp_status lp_run_has_shard(bool *has, const lp_run_folder *r, size_t number, int *n_quarantined, const lp_env *env,
                           lp_error *err);

/* Moves the shard at `path` of the run whose folder is `run` to quarantine/, with a warning that says why; what is there
 * already stays. */
lp_status lp_run_put_away(const char *run, const char *path, size_t number, const char *why, const lp_env *env,
                          lp_error *err);

/* The names of the runs in STORE, sorted; none where there is no store.  Free each and the list. */
lp_status lp_run_list(char ***names, size_t *n, const char *store, lp_error *err);

#endif
