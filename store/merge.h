/* merge.h - all shards of a run as one file, for notebooks: STORE/runs/RUN/run.h5, which holds next to nothing itself.
 *
 *     f = h5py.File("run.h5"); X = anndata.io.read_elem(f[f["contents/sae"].asstr()[0]])     the whole run, csr_matrix
 *
 * What is large is virtual: rows of the shards beside it, by names that stay true when the folder moves.  What counts from
 * the start of a shard is written anew, counting from the start of the run:
 *
 *     /                          attributes as in a shard; lapidary_format "run", n_shards, nnz; /provenance
 *     /contents/{sae, dense}     as in a shard; shards: "HASH  shard-000017.h5", of which it is the view
 *     /tokens/{id, pos, excluded, logprob}   virtual
 *     /tokens/doc                i64[n]: its place in /documents
 *     /documents/...             as in a shard, without by_id; a document that shards cut is there once for each
 *     the csr_matrix of an SAE   indptr i64[n + 1]; indices, data, recon/{sqerr, norm2} virtual
 *     dense/values               virtual
 *
 * What a feature fires on, and statistics, stay with the shards.  libhdf5 reads rows of a lost shard as NaN and -1, and
 * raises no error; where a process may not open as many files as there are shards (ulimit -n), they count as lost.
 *
 * It can be thrown away and is made anew where the shards are no longer the same.
 */
#ifndef LP_STORE_MERGE_H
#define LP_STORE_MERGE_H

#include "store/shard.h"

typedef struct lp_merged { /* lp_merged_clear frees it */
    char *path;            /* RUN_FOLDER/run.h5 */
    size_t n_shards;
    int64_t n_tokens;
    int64_t n_values; /* of all SAEs */
    bool was_there;   /* for the same shards: nothing was done */
} lp_merged;

/* Every shard's bytes are compared with its hash first.  LP_E_NOT_FOUND: no run, or its shards are not all there.
 * LP_E_FORMAT: a shard that is damaged or not of this run.  On failure what was there stays.  LP_CANCELLED. */
lp_status lp_run_merge(lp_merged *out, const char *run_folder, const lp_env *env, lp_error *err);
void lp_merged_clear(lp_merged *m);

#endif
