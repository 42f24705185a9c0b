/* query_feature.c - see query.h: one feature, its places, what stands around them. */
#include "store/query_parts.h"

#include <math.h>
#include <stdlib.h>

/* ---- lists of places ---------------------------------------------------------------------------------------------- */

lp_status lp_hits_push(lp_hits *h, int64_t token, float value, lp_error *err)
{
    if (!lp_grow((void **)&h->token, &h->capacity_token, h->n + 1, sizeof *h->token) ||
        !lp_grow((void **)&h->value, &h->capacity_value, h->n + 1, sizeof *h->value))
        return lp_fail(err, LP_E_MEMORY, "no memory for %zu places", h->n);
    h->token[h->n] = token;
    h->value[h->n++] = value;
    return LP_OK;
}

void lp_hits_free(lp_hits *h)
{
    if (!h) return;
    free(h->token), free(h->value);
    *h = (lp_hits){0};
}

/* ---- the feature -------------------------------------------------------------------------------------------------- */

static lp_status check_feature(const lp_query *q, int sae, int feature, lp_error *err)
{
    if (sae < 0 || sae >= q->run.n_saes) return lp_fail(err, LP_E_RANGE, "SAE %d of %d", sae, q->run.n_saes);
    if (feature >= 0 && feature < q->saes[sae].d_sae) return LP_OK;
    return lp_fail(err, LP_E_RANGE, "feature %d; %s has 0 to %d", feature, q->saes[sae].name, q->saes[sae].d_sae - 1);
}

lp_status lp_query_feature(lp_tally *out, lp_query *q, int sae, int feature, lp_error *err)
{
    lp_sql_statement s = {0};
    bool has_row = false;
    *out = (lp_tally){0};
    LP_TRY(check_feature(q, sae, feature, err));
    lp_status st = lp_sql_prepare(&s, &q->c->sql,
                                  "SELECT n_active, n_docs, sum, sumsq, max, hist, top, rest FROM feature "
                                  "WHERE sae_id = ? AND feature = ?",
                                  err);
    if (st == LP_OK) {
        lp_sql_put_int(&s, 1, q->saes[sae].id);
        lp_sql_put_int(&s, 2, feature);
        st = lp_sql_step(&s, &has_row, err);
    }
    if (st == LP_OK && has_row) st = lp_tally_of_row(out, &s, 0, err);
    lp_sql_finish(&s);
    return st;
}

lp_status lp_query_positions(lp_hits *out, lp_query *q, int sae, int feature, float above, bool all, lp_error *err)
{
    out->n = 0;
    LP_TRY(check_feature(q, sae, feature, err));
    for (int i = 0; i < q->run.n_shards; i++) {
        lp_part *p;
        LP_TRY(lp_query_part(&p, q, i, err));
        LP_TRY(lp_shard_read_feature(&q->postings, p->s, sae, feature, err));
        for (size_t k = 0; k < q->postings.n; k++) {
            int row = q->postings.row[k];
            if (q->postings.value[k] > above && (all || p->excluded[row] == LP_ROW_COUNTS))
                LP_TRY(lp_hits_push(out, p->token_base + row, q->postings.value[k], err));
        }
        if (lp_cancelled(&q->c->env)) return LP_CANCELLED;
    }
    return LP_OK;
}

/* ---- parts of its range ------------------------------------------------------------------------------------------- */

typedef struct near {
    double distance; /* from the part's middle */
    size_t at;
} near;

static int by_distance(const void *a, const void *b)
{
    const near *x = a, *y = b;
    if (x->distance != y->distance) return x->distance < y->distance ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

lp_status lp_query_quantiles(lp_hits *out, int *part, const lp_hits *from, int n, int each, lp_error *err)
{
    out->n = 0;
    if (!from->n) return LP_OK;
    double low = (double)from->value[0], high = low;
    for (size_t i = 1; i < from->n; i++)
        low = fmin(low, (double)from->value[i]), high = fmax(high, (double)from->value[i]);
    near *list = lp_calloc(from->n, sizeof *list);
    if (!list) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_status st = LP_OK;
    for (int k = 0; k < n; k++) {
        double width = (high - low) / n, middle = low + (k + 0.5) * width;
        size_t found = 0;
        for (size_t i = 0; i < from->n; i++) {
            int of = width > 0 ? (int)(((double)from->value[i] - low) / width) : 0;
            if ((of < n ? of : n - 1) == k) list[found++] = (near){fabs((double)from->value[i] - middle), i};
        }
        if (found) qsort(list, found, sizeof *list, by_distance);
        for (size_t i = 0; i < found && i < (size_t)each && st == LP_OK; i++) {
            part[out->n] = k;
            st = lp_hits_push(out, from->token[list[i].at], from->value[list[i].at], err);
        }
    }
    free(list);
    return st;
}

/* ---- what stands around a token ----------------------------------------------------------------------------------- */

lp_status lp_query_context(lp_context *out, lp_query *q, int64_t token, int before, int after, lp_error *err)
{
    lp_part *p;
    int i = lp_query_part_of(q, token);
    *out = (lp_context){.first = token};
    if (i < 0) return lp_fail(err, LP_E_RANGE, "token %lld is in no shard of this run", (long long)token);
    if (before < 0 || before > LP_CONTEXT_MOST || after < 0 || after > LP_CONTEXT_MOST)
        return lp_fail(err, LP_E_RANGE, "%d tokens before and %d after; 0 to %d", before, after, LP_CONTEXT_MOST);
    LP_TRY(lp_query_part(&p, q, i, err));
    int row = (int)(token - p->token_base), first = row, end = row + 1;
    while (first > 0 && row - first < before && p->doc[first - 1] == p->doc[row]) first--;
    while (end < p->n && end - row <= after && p->doc[end] == p->doc[row]) end++;
    out->first = p->token_base + first;
    out->n = end - first, out->at = row - first;
    out->pos = p->pos[row], out->excluded = p->excluded[row];
    out->document = p->document[p->doc[row]];
    for (int k = first; k < end; k++) out->id[k - first] = p->id[k];
    return LP_OK;
}
