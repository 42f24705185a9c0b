/* query_parts.h - what the sources of queries share; private to this folder. */
#ifndef LP_STORE_QUERY_PARTS_H
#define LP_STORE_QUERY_PARTS_H

#include "store/catalogue_parts.h"
#include "store/query.h"

/* A shard of the run, and what is kept of it once it was opened: some MB. */
typedef struct lp_part {
    int number, n;
    int64_t token_base, bytes, mtime_ns, used;
    char hash[33];
    lp_shard *s; /* NULL: closed */
    int *id, *doc, *pos;
    uint8_t *excluded;
    int64_t *document; /* [n_documents] its id in the corpus */
} lp_part;

struct lp_query {
    lp_catalogue *c;
    lp_query_run run;
    int64_t run_id, clock;
    lp_query_sae *saes;
    lp_part *parts; /* [run.n_shards] by token_base */
    int n_open;
    lp_shard_postings postings; /* scratch */
};

/* Opens it, closes another one when too many are open; it stays open until another one is asked for. */
lp_status lp_query_part(lp_part **out, lp_query *q, int i, lp_error *err);
/* Which part holds a token; -1: none. */
int lp_query_part_of(const lp_query *q, int64_t token);

lp_status lp_hits_push(lp_hits *h, int64_t token, float value, lp_error *err);

/* Words as a user types them as an expression of FTS5.  Yours to free; LP_E_RANGE: no word in it. */
lp_status lp_query_words(char **out, const char *words, lp_error *err);

#endif
