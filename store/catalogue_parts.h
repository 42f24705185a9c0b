/* catalogue_parts.h - what the catalogue's sources share; private to this folder. */
#ifndef LP_STORE_CATALOGUE_PARTS_H
#define LP_STORE_CATALOGUE_PARTS_H

#include "store/catalogue.h"
#include "store/shard.h"
#include "store/sql.h"
#include "store/tally.h"

enum { LP_CATALOGUE_ID = 0x4C415049, LP_CATALOGUE_VERSION = 1, LP_PASSAGE_BITS = 24, LP_PASSAGE_RUN = 44 };

struct lp_catalogue {
    lp_sql sql;
    char *store;
    lp_env env;
};

/* The catalogue at `path`, wherever that is, of `store`. */
lp_status lp_catalogue_open_at(lp_catalogue **out, const char *store, const char *path, lp_catalogue_mode mode,
                               const lp_env *env, lp_error *err);
char *lp_catalogue_path(const char *store);

/* A row of `feature`, columns n_active, n_docs, sum, sumsq, max, hist, top, rest from `column` on. */
lp_status lp_tally_of_row(lp_tally *out, const lp_sql_statement *s, int column, lp_error *err);

/* The rows of a shard and what they are, of the document they belong to. */
typedef struct lp_shard_rows {
    int n;
    int *doc;
    uint8_t *excluded;
    int64_t *document; /* [n_documents] its id in the corpus */
} lp_shard_rows;

/* Takes in the features of an SAE of a shard. */
lp_status lp_catalogue_merge(lp_catalogue *c, int64_t sae_id, const lp_shard *s, int sae, const lp_shard_rows *rows,
                             lp_error *err);

#endif
