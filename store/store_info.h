/* store_info.h - what is in a store, as far as its catalogue has taken it in. */
#ifndef LP_STORE_STORE_INFO_H
#define LP_STORE_STORE_INFO_H

#include "core/base.h"

typedef struct lp_store_sae {
    char *name, *hash, *site;
    int layer, d_sae; /* layer below 0: none */
    int64_t n_live;   /* features that fire  */
    int64_t n_values; /* activations stored  */
    int64_t n_active; /* of them on rows that count */
    int64_t n_labels;
} lp_store_sae;

typedef struct lp_store_run {
    char hash[33], model[33];
    int64_t n_shards, n_tokens, n_counted, n_documents, n_values, bytes; /* bytes: of the shards */
    int64_t plan_shards, plan_tokens, plan_documents;                    /* -1: no plan is there */
    lp_store_sae *saes;
    int n_saes;
} lp_store_run;

typedef struct lp_store_info {
    lp_store_run *runs; /* by hash */
    size_t n_runs;
} lp_store_info;

lp_status lp_store_get_info(lp_store_info *out, const char *store, const lp_env *env, lp_error *err);
void lp_store_info_free(lp_store_info *x);

#endif
