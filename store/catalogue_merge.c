/* catalogue_merge.c - see catalogue.h: the features of one SAE of one shard into the rows of the catalogue.
 *
 * Statistics come from the shard, the strongest places from its postings, a few thousand features at a time: memory is
 * POSTINGS of them, or those of one feature.
 */
#include "store/catalogue_parts.h"

#include <stdlib.h>

enum { FEATURES = 1024, POSTINGS = 1 << 22 };

typedef struct block { /* of features first .. */
    lp_features postings;
    int64_t n_active[FEATURES];
    int n_docs[FEATURES];
    float max[FEATURES];
    double sum[FEATURES], sumsq[FEATURES];
    uint32_t hist[FEATURES * LP_SHARD_BINS];
} block;

typedef struct merge {
    lp_catalogue *c;
    const lp_shard *s;
    const lp_shard_rows *rows;
    int64_t sae_id, token_base;
    int sae;
    block *b;
    lp_sql_statement get, put;
} merge;

/* What the shard says of feature i of the block. */
static void tally_of(lp_tally *out, const merge *m, int i)
{
    const block *b = m->b;
    *out = (lp_tally){.n_active = b->n_active[i], .n_docs = b->n_docs[i], .max = b->max[i]};
    lp_exact_add(&out->sum, b->sum[i]);
    lp_exact_add(&out->sumsq, b->sumsq[i]);
    for (int k = 0; k < LP_SHARD_BINS; k++) out->hist[k] = b->hist[i * LP_SHARD_BINS + k];
    for (size_t at = b->postings.start[i]; at < b->postings.start[i + 1]; at++) {
        int row = b->postings.index[at];
        if (m->rows->excluded[row] != LP_ROW_COUNTS) continue;
        lp_tally_offer(out, (lp_example){.token = m->token_base + row,
                                         .document = m->rows->document[m->rows->doc[row]],
                                         .value = b->postings.value[at]});
    }
}

static lp_status read_old(lp_tally *out, merge *m, int feature, lp_error *err)
{
    bool has_row = false;
    *out = (lp_tally){0};
    lp_sql_put_int(&m->get, 1, m->sae_id);
    lp_sql_put_int(&m->get, 2, feature);
    lp_status st = lp_sql_step(&m->get, &has_row, err);
    if (st == LP_OK && has_row) st = lp_tally_of_row(out, &m->get, 0, err);
    lp_sql_reset(&m->get);
    return st;
}

static lp_status write_new(merge *m, int feature, const lp_tally *t, lp_error *err)
{
    unsigned char hist[LP_TALLY_HIST], top[LP_TALLY_TOP], rest[LP_TALLY_REST];
    size_t n_rest = lp_tally_pack_rest(rest, t);
    lp_sql_put_int(&m->put, 1, m->sae_id);
    lp_sql_put_int(&m->put, 2, feature);
    lp_sql_put_int(&m->put, 3, t->n_active);
    lp_sql_put_int(&m->put, 4, t->n_docs);
    lp_sql_put_real(&m->put, 5, lp_exact_value(&t->sum));
    lp_sql_put_real(&m->put, 6, lp_exact_value(&t->sumsq));
    lp_sql_put_real(&m->put, 7, (double)t->max);
    lp_sql_put_blob(&m->put, 8, hist, lp_tally_pack_hist(hist, t));
    lp_sql_put_blob(&m->put, 9, top, lp_tally_pack_top(top, t));
    lp_sql_put_blob(&m->put, 10, n_rest ? rest : NULL, n_rest);
    return lp_sql_run(&m->put, err);
}

/* Features first .. of at most n; *done: how many that were. */
static lp_status merge_block(merge *m, int first, int n, int *done, lp_error *err)
{
    block *b = m->b;
    const lp_shard_stats stats = {b->n_active, b->n_docs, b->max, b->sum, b->sumsq, b->hist};
    LP_TRY(lp_shard_read_by_feature(&b->postings, m->s, m->sae, first, n, POSTINGS, err));
    *done = b->postings.n_rows;
    LP_TRY(lp_shard_read_stats(m->s, m->sae, first, *done, &stats, err));
    for (int i = 0; i < *done; i++) {
        lp_tally old, more;
        if (b->n_active[i] <= 0) continue;
        tally_of(&more, m, i);
        LP_TRY(read_old(&old, m, first + i, err));
        lp_tally_add(&old, &more);
        LP_TRY(write_new(m, first + i, &old, err));
    }
    return lp_cancelled(&m->c->env) ? LP_CANCELLED : LP_OK;
}

lp_status lp_catalogue_merge(lp_catalogue *c, int64_t sae_id, const lp_shard *s, int sae, const lp_shard_rows *rows,
                             lp_error *err)
{
    const lp_shard_head *h = lp_shard_get_head(s);
    merge m = {.c = c, .s = s, .rows = rows, .sae_id = sae_id, .token_base = h->token_base, .sae = sae};
    m.b = lp_calloc(1, sizeof *m.b);
    lp_status st = m.b ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK)
        st = lp_sql_prepare(&m.get, &c->sql,
                            "SELECT n_active, n_docs, sum, sumsq, max, hist, top, rest FROM feature "
                            "WHERE sae_id = ? AND feature = ?",
                            err);
    if (st == LP_OK)
        st = lp_sql_prepare(&m.put, &c->sql, "INSERT OR REPLACE INTO feature VALUES(?,?,?,?,?,?,?,?,?,?)", err);
    for (int first = 0, done = 0, d_sae = h->saes[sae].d_sae; st == LP_OK && first < d_sae; first += done)
        st = merge_block(&m, first, d_sae - first < FEATURES ? d_sae - first : FEATURES, &done, err);
    lp_sql_finish(&m.get), lp_sql_finish(&m.put);
    if (m.b) lp_features_free(&m.b->postings);
    free(m.b);
    return st;
}
