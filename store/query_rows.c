/* query_rows.c - see query.h: the features of rows: of one, and what goes together over many. */
#include "store/query_parts.h"

#include <math.h>
#include <stdlib.h>

lp_status lp_query_row(lp_features *out, lp_query *q, int sae, int64_t token, lp_error *err)
{
    lp_part *p;
    int i = lp_query_part_of(q, token);
    if (i < 0) return lp_fail(err, LP_E_RANGE, "token %lld is in no shard of this run", (long long)token);
    LP_TRY(lp_query_part(&p, q, i, err));
    return lp_shard_read_rows(out, p->s, sae, (int)(token - p->token_base), 1, err);
}

lp_status lp_query_token(lp_hits *out, lp_query *q, int id, bool all, lp_error *err)
{
    out->n = 0;
    if (id < 0 || id >= q->run.vocab)
        return lp_fail(err, LP_E_RANGE, "token %d; the vocabulary has 0 to %d", id, q->run.vocab - 1);
    for (int i = 0; i < q->run.n_shards; i++) {
        lp_part *p;
        LP_TRY(lp_query_part(&p, q, i, err));
        LP_TRY(lp_shard_read_token(&q->postings, p->s, id, err));
        for (size_t k = 0; k < q->postings.n; k++) {
            int row = q->postings.row[k];
            if (all || p->excluded[row] == LP_ROW_COUNTS) LP_TRY(lp_hits_push(out, p->token_base + row, 1, err));
        }
    }
    return LP_OK;
}

/* ---- together ----------------------------------------------------------------------------------------------------- */

typedef struct count { /* of one feature on the rows looked at */
    int64_t together;
    double sum;
    float max;
} count;

/* Row i of those looked at, of l from n, evenly spaced. */
static size_t pick(size_t i, size_t l, size_t n)
{
    return (size_t)((double)i * (double)n / (double)l);
}

/* Neighbouring rows are read in one go. */
static lp_status tally(count *counts, lp_query *q, int sae, const lp_hits *rows, size_t looked_at, lp_error *err)
{
    lp_features f = {0};
    lp_status st = LP_OK;
    for (size_t i = 0; i < looked_at && st == LP_OK;) {
        int64_t first = rows->token[pick(i, looked_at, rows->n)], next = first;
        int part = lp_query_part_of(q, first);
        lp_part *p;
        if (part < 0) {
            st = lp_fail(err, LP_E_RANGE, "token %lld is in no shard of this run", (long long)first);
            break;
        }
        int64_t end = q->parts[part].token_base + q->parts[part].n;
        do {
            i++, next++;
        } while (i < looked_at && next < end && rows->token[pick(i, looked_at, rows->n)] == next);
        st = lp_query_part(&p, q, part, err);
        if (st == LP_OK) st = lp_shard_read_rows(&f, p->s, sae, (int)(first - p->token_base), (int)(next - first), err);
        for (size_t at = 0; st == LP_OK && at < f.start[f.n_rows]; at++) {
            count *c = &counts[f.index[at]];
            c->together++;
            c->sum += (double)f.value[at];
            if (f.value[at] > c->max) c->max = f.value[at];
        }
        if (st == LP_OK && lp_cancelled(&q->c->env)) st = LP_CANCELLED;
    }
    lp_features_free(&f);
    return st;
}

static lp_status add(lp_partners *out, size_t *room, lp_query *q, int sae, const count *counts, lp_error *err)
{
    lp_sql_statement s = {0};
    bool has_row;
    double N = (double)q->run.n_counted, r = (double)out->rows, l = (double)out->looked_at;
    lp_status st = lp_sql_prepare(&s, &q->c->sql, "SELECT n_active FROM feature WHERE sae_id = ? AND feature = ?", err);
    if (st == LP_OK) lp_sql_put_int(&s, 1, q->saes[sae].id);
    for (int f = 0; st == LP_OK && f < q->saes[sae].d_sae; f++) {
        const count *c = &counts[f];
        if (!c->together) continue;
        lp_sql_put_int(&s, 2, f);
        st = lp_sql_step(&s, &has_row, err);
        double a = st == LP_OK && has_row ? (double)lp_sql_int(&s, 0) : 0, t = (double)c->together, T = t * r / l;
        lp_sql_reset(&s);
        if (st == LP_OK && !lp_grow((void **)&out->items, room, out->n + 1, sizeof *out->items))
            st = lp_fail(err, LP_E_MEMORY, "out of memory");
        if (st != LP_OK) break;
        double both = r + a - T;
        out->items[out->n++] = (lp_partner){.sae = sae,
                                            .feature = f,
                                            .together = c->together,
                                            .sum = c->sum,
                                            .max = c->max,
                                            .n_active = (int64_t)a,
                                            .pmi = a > 0 ? log2(t / l * N / a) : (double)NAN,
                                            .jaccard = both > 0 ? T / both : (double)NAN};
    }
    lp_sql_finish(&s);
    return st;
}

static double weight(const lp_partner *p)
{
    return isnan(p->pmi) ? -(double)INFINITY : p->pmi * (double)p->together;
}

static int by_weight(const void *a, const void *b)
{
    const lp_partner *x = a, *y = b;
    double u = weight(x), v = weight(y);
    if (u != v) return u < v ? 1 : -1;
    if (x->sae != y->sae) return x->sae < y->sae ? -1 : 1;
    return (x->feature > y->feature) - (x->feature < y->feature);
}

lp_status lp_query_partners(lp_partners *out, lp_query *q, const lp_hits *rows, const bool *saes, int sample,
                            lp_error *err)
{
    size_t most = sample > 0 ? (size_t)sample : LP_PARTNER_ROWS, room = 0;
    *out = (lp_partners){.rows = (int64_t)rows->n, .looked_at = (int64_t)(rows->n < most ? rows->n : most)};
    lp_status st = LP_OK;
    for (int i = 0; i < q->run.n_saes && st == LP_OK && rows->n; i++) {
        if (saes && !saes[i]) continue;
        count *counts = lp_calloc((size_t)q->saes[i].d_sae, sizeof *counts);
        st = counts ? tally(counts, q, i, rows, (size_t)out->looked_at, err)
                    : lp_fail(err, LP_E_MEMORY, "out of memory");
        if (st == LP_OK) st = add(out, &room, q, i, counts, err);
        free(counts);
    }
    if (st == LP_OK && out->n) qsort(out->items, out->n, sizeof *out->items, by_weight);
    if (st != LP_OK) lp_partners_free(out);
    return st;
}

void lp_partners_free(lp_partners *p)
{
    if (!p) return;
    free(p->items);
    *p = (lp_partners){0};
}
