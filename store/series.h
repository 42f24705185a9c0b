/* series.h - the rows of one SAE through all shards of a run, in their order: what every export and every comparison
 * walks along.  Memory is that of one shard's documents and one block of rows.
 *
 * Rows fall into windows, the contexts the model saw: one begins at every shard, document, and wherever the position does
 * not rise by one.
 */
#ifndef LP_STORE_SERIES_H
#define LP_STORE_SERIES_H

#include "store/shard.h"

enum { LP_SERIES_BLOCK = 2048 }; /* rows at a time */

typedef struct lp_series { /* all zero is an empty one */
    char **paths;          /* of the shards, by number */
    size_t n_shards;
    bool is_one; /* one shard, named by its path, whatever its number */
    char run[33], model_hash[33], tokenizer_hash[33];
    char *name, hash[33]; /* of the SAE */
    lp_sae_spot spot;
    int d_sae, vocab;
    int64_t n_rows, n_windows;
    uint64_t n_values;
    int longest; /* rows of the longest window */
} lp_series;

/* `path`: a shard, a run's folder, or a store of one run (run: which of several; NULL: the only one).  sae: name or hash;
 * NULL: the only one.  The shards are hashed.  LP_E_NOT_FOUND says what there is; LP_E_FORMAT: shards of different runs, or
 * a number missing between them. */
lp_status lp_series_open(lp_series *out, const char *path, const char *run, const char *sae, const lp_env *env,
                         lp_error *err);
void lp_series_close(lp_series *s);

typedef struct lp_series_block {
    int n;
    int64_t first; /* row of the run                     */
    const int *id, *pos;
    const int64_t *document, *window; /* its id in the corpus; from 0 on */
    const int *column;                /* within the window               */
    const lp_features *features;
} lp_series_block;

typedef lp_status (*lp_series_fn)(void *user, const lp_series_block *b, lp_error *err);

/* One pass.  features is NULL with tokens_only.  LP_CANCELLED; `what` is what progress is called. */
lp_status lp_series_walk(const lp_series *s, bool tokens_only, lp_series_fn f, void *user, const char *what,
                         const lp_env *env, lp_error *err);

#endif
