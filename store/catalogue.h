/* catalogue.h - what is in a store, in one SQLite file that can always be made again.
 *
 *     STORE/catalog.sqlite                        this (schema.sql)
 *     STORE/runs/<run hash>/plan.jsonl            plan.h
 *     STORE/runs/<run hash>/shard-000018.h5       shard.h; and .xxh3
 *
 * The files of runs are the truth; nothing in the catalogue is not in them, but for the labels.  A shard is taken in by one
 * transaction, the row of the shard being the mark that it is: a process that dies has taken it in or not, and the
 * next one goes on.  What comes out does not depend on the order (tally.h).
 *
 * Workers of a large job never open it.  One process writes, any number read; on a local disk (WAL needs shared memory).
 */
#ifndef LP_STORE_CATALOGUE_H
#define LP_STORE_CATALOGUE_H

#include "core/base.h"
#include "sae/labels.h"

typedef struct lp_catalogue lp_catalogue;

typedef enum lp_catalogue_mode {
    LP_CATALOGUE_READ,  /* it must be there */
    LP_CATALOGUE_WRITE, /* made when it is not */
} lp_catalogue_mode;

/* LP_E_NOT_FOUND: no such folder, or no catalogue in it; LP_E_FORMAT: damaged;
 * LP_E_UNSUPPORTED: another program's database, or of a later version. */
lp_status lp_catalogue_open(lp_catalogue **out, const char *store, lp_catalogue_mode mode, const lp_env *env,
                            lp_error *err);
void lp_catalogue_close(lp_catalogue *c); /* NULL is fine */

/* Takes in one sealed shard of a run, by its bytes' hash.  One that is there already costs a look at the file; *is_new (may
 * be NULL) says which.  LP_E_FORMAT: damaged, of another run or plan, or there with other bytes.  Nothing is changed by a
 * failure. */
lp_status lp_catalogue_ingest(lp_catalogue *c, const char *run, int number, bool *is_new, lp_error *err);

typedef struct lp_index_result {
    int runs, shards, added; /* found, of them added now */
} lp_index_result;

/* Every sealed shard of every run of the store, in order.  `is_rebuild`: into a new file, which takes the old one's place
 * at the end, also a damaged one's; readers see the old state until then.  `made` may be NULL. */
lp_status lp_store_index(lp_index_result *made, const char *store, bool is_rebuild, const lp_env *env, lp_error *err);

/* What an SAE's features are called, in place of what was there for that hash. */
typedef struct lp_catalogue_labels {
    const char *sae; /* its hash */
    const lp_labels *labels;
} lp_catalogue_labels;
lp_status lp_catalogue_set_labels(lp_catalogue *c, const lp_catalogue_labels *list, int n, lp_error *err);

/* The SAEs of all runs: name and hash, each hash once.  Free with lp_catalogue_free_saes. */
typedef struct lp_catalogue_sae {
    char *name, hash[33];
    int d_sae;
    int64_t n_labels;
} lp_catalogue_sae;
lp_status lp_catalogue_saes(lp_catalogue_sae **out, int *n, const lp_catalogue *c, lp_error *err);
void lp_catalogue_free_saes(lp_catalogue_sae *list, int n);

/* ---- what is where ------------------------------------------------------------------------------------------------ */

/* STORE/runs/RUN/shard-000018.h5 in fresh memory; number -1: the folder; NULL: out of memory. */
char *lp_store_path(const char *store, const char *run, int number);

typedef struct lp_store_shard {
    char run[33];
    int number;
} lp_store_shard;

/* The sealed shards below runs/, by run and number.  Free it. */
lp_status lp_store_list(lp_store_shard **out, size_t *n, const char *store, lp_error *err);

#endif
