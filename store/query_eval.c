/* query_eval.c - see query.h: the rows a condition holds for.
 *
 * Shard by shard, a byte for every row.  What looks N tokens around itself is answered from a range that is wider by N at
 * both ends, so documents that are cut by shards are seen whole.
 */
#include "store/query_where.h"

#include <stdlib.h>
#include <string.h>

typedef struct job {
    lp_query *q;
    lp_where *w;
    bool all;
} job;

static bool fulfils(const lp_where_node *x, float v)
{
    double d = (double)v;
    switch (x->than) {
    case LP_WHERE_ABOVE:
        return d > x->value;
    case LP_WHERE_FROM:
        return d >= x->value;
    case LP_WHERE_BELOW:
        return d < x->value;
    case LP_WHERE_UPTO:
        return d <= x->value;
    default:
        return true;
    }
}

/* ---- leaves ------------------------------------------------------------------------------------------------------- */

static lp_status fill_slot(uint8_t *mask, const job *j, const lp_where_node *x, const lp_part *p, lp_error *err)
{
    lp_shard_postings *rows = &j->q->postings;
    memset(mask, 0, (size_t)p->n);
    if (x->kind == LP_WHERE_TOKEN) {
        LP_TRY(lp_shard_read_token(rows, p->s, x->id, err));
        for (size_t i = 0; i < rows->n; i++) mask[rows->row[i]] = 1;
    }
    for (int k = 0; x->kind == LP_WHERE_FEATURES && k < x->n; k++) {
        LP_TRY(lp_shard_read_feature(rows, p->s, x->sae[k], x->feature[k], err));
        for (size_t i = 0; i < rows->n; i++)
            if (fulfils(x, rows->value[i])) mask[rows->row[i]] = 1;
    }
    for (int i = 0; i < p->n && !j->all; i++) mask[i] &= p->excluded[i] == LP_ROW_COUNTS;
    return LP_OK;
}

static lp_status leaf_of_part(const uint8_t **out, const job *j, lp_where_node *x, int part, lp_error *err)
{
    lp_part *p;
    int slot = part % LP_WHERE_SLOTS;
    if (x->part[slot] != part + 1) {
        x->part[slot] = 0;
        LP_TRY(lp_query_part(&p, j->q, part, err));
        if (!lp_grow((void **)&x->slot[slot], &x->room[slot], (size_t)p->n + 1, 1))
            return lp_fail(err, LP_E_MEMORY, "out of memory");
        LP_TRY(fill_slot(x->slot[slot], j, x, p, err));
        x->part[slot] = part + 1;
    }
    *out = x->slot[slot];
    return LP_OK;
}

/* The parts that have tokens in [a, b), one after the other: the first at or behind *part; false: no more. */
static bool next_part(const lp_query *q, int *part, int64_t a, int64_t b, int64_t *first, int64_t *end)
{
    while (*part < q->run.n_shards && q->parts[*part].token_base + q->parts[*part].n <= a) ++*part;
    if (*part == q->run.n_shards || q->parts[*part].token_base >= b) return false;
    const lp_part *p = &q->parts[*part];
    *first = p->token_base > a ? p->token_base : a;
    *end = p->token_base + p->n < b ? p->token_base + p->n : b;
    return true;
}

static lp_status eval_leaf(uint8_t *mask, const job *j, lp_where_node *x, int64_t a, int64_t b, lp_error *err)
{
    int64_t first, end;
    memset(mask, 0, (size_t)(b - a));
    for (int i = 0; next_part(j->q, &i, a, b, &first, &end); i++) {
        const uint8_t *of = NULL;
        LP_TRY(leaf_of_part(&of, j, x, i, err));
        memcpy(mask + (first - a), of + (first - j->q->parts[i].token_base), (size_t)(end - first));
    }
    return LP_OK;
}

/* ---- rows and their documents ------------------------------------------------------------------------------------- */

/* Which rows of [a, b) can fulfil anything. */
static lp_status eval_all(uint8_t *mask, const job *j, int64_t a, int64_t b, lp_error *err)
{
    int64_t first, end;
    memset(mask, 0, (size_t)(b - a));
    for (int i = 0; next_part(j->q, &i, a, b, &first, &end); i++) {
        lp_part *p;
        LP_TRY(lp_query_part(&p, j->q, i, err));
        for (int64_t t = first; t < end; t++) mask[t - a] = j->all || p->excluded[t - p->token_base] == LP_ROW_COUNTS;
    }
    return LP_OK;
}

/* The document of every row of [a, b); -1 where no shard is. */
static lp_status documents(int64_t *out, const job *j, int64_t a, int64_t b, lp_error *err)
{
    int64_t first, end;
    for (int64_t t = a; t < b; t++) out[t - a] = -1;
    for (int i = 0; next_part(j->q, &i, a, b, &first, &end); i++) {
        lp_part *p;
        LP_TRY(lp_query_part(&p, j->q, i, err));
        for (int64_t t = first; t < end; t++) out[t - a] = p->document[p->doc[t - p->token_base]];
    }
    return LP_OK;
}

/* ---- the tree ----------------------------------------------------------------------------------------------------- */

static lp_status eval(uint8_t *mask, const job *j, int node, int64_t a, int64_t b, lp_error *err);

/* seen: where x's part holds in [c, d), which is [a, b) and what it reaches; sums and docs are room for d - c + 1. */
static lp_status spread(uint8_t *mask, const job *j, const lp_where_node *x, int64_t a, int64_t b, const uint8_t *seen,
                        int64_t c, int64_t d, int *sums, int64_t *docs, lp_error *err)
{
    int n = (int)(d - c), start = 0, stop = 0;
    LP_TRY(documents(docs, j, c, d, err));
    LP_TRY(eval_all(mask, j, a, b, err));
    sums[0] = 0;
    for (int i = 0; i < n; i++) sums[i + 1] = sums[i] + seen[i];
    for (int i = 0; i < n; i++) {
        if (i == 0 || docs[i] != docs[i - 1]) {
            start = i;
            for (stop = i + 1; stop < n && docs[stop] == docs[i]; stop++) continue;
        }
        int64_t t = c + i;
        if (t < a || t >= b) continue;
        int low = i + x->from > start ? i + x->from : start, high = i + x->to + 1 < stop ? i + x->to + 1 : stop;
        if (docs[i] == -1 || low >= high || sums[high] == sums[low]) mask[t - a] = 0;
    }
    return LP_OK;
}

static lp_status eval_near(uint8_t *mask, const job *j, const lp_where_node *x, int64_t a, int64_t b, lp_error *err)
{
    const lp_part *last = &j->q->parts[j->q->run.n_shards - 1];
    int64_t over = last->token_base + last->n, reach = -x->from > x->to ? -x->from : x->to;
    int64_t c = a > reach ? a - reach : 0, d = b + reach < over ? b + reach : over;
    size_t n = (size_t)(d - c) + 1;
    uint8_t *seen = malloc(n);
    int *sums = NULL;
    int64_t *docs = NULL;
    lp_status st = seen ? eval(seen, j, x->a, c, d, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) { /* only now, since what is below may be deep */
        sums = lp_calloc(n, sizeof *sums), docs = lp_calloc(n, sizeof *docs);
        st = sums && docs ? spread(mask, j, x, a, b, seen, c, d, sums, docs, err)
                          : lp_fail(err, LP_E_MEMORY, "out of memory");
    }
    free(seen), free(sums), free(docs);
    return st;
}

static lp_status eval_both(uint8_t *mask, const job *j, const lp_where_node *x, int64_t a, int64_t b, lp_error *err)
{
    size_t n = (size_t)(b - a);
    uint8_t *other = malloc(n + 1);
    lp_status st = other ? eval(mask, j, x->a, a, b, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = eval(other, j, x->b, a, b, err);
    for (size_t i = 0; st == LP_OK && i < n; i++)
        mask[i] = x->kind == LP_WHERE_AND ? mask[i] & other[i] : mask[i] | other[i];
    free(other);
    return st;
}

static lp_status eval_not(uint8_t *mask, const job *j, const lp_where_node *x, int64_t a, int64_t b, lp_error *err)
{
    size_t n = (size_t)(b - a);
    uint8_t *other = malloc(n + 1);
    lp_status st = other ? eval_all(mask, j, a, b, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = eval(other, j, x->a, a, b, err);
    for (size_t i = 0; st == LP_OK && i < n; i++) mask[i] &= !other[i];
    free(other);
    return st;
}

/* Where `node` holds in the tokens [a, b): mask [b - a]. */
static lp_status eval(uint8_t *mask, const job *j, int node, int64_t a, int64_t b, lp_error *err)
{
    lp_where_node *x = &j->w->nodes[node];
    if (lp_cancelled(&j->q->c->env)) return LP_CANCELLED;
    switch (x->kind) {
    case LP_WHERE_OR:
    case LP_WHERE_AND:
        return eval_both(mask, j, x, a, b, err);
    case LP_WHERE_NOT:
        return eval_not(mask, j, x, a, b, err);
    case LP_WHERE_NEAR:
        return eval_near(mask, j, x, a, b, err);
    default:
        return eval_leaf(mask, j, x, a, b, err);
    }
}

static lp_status collect(lp_hits *out, int64_t *total, const job *j, size_t limit, lp_error *err)
{
    for (int i = 0; i < j->q->run.n_shards; i++) {
        int64_t base = j->q->parts[i].token_base;
        int n = j->q->parts[i].n;
        uint8_t *mask = malloc((size_t)n + 1);
        lp_status st = mask ? eval(mask, j, j->w->root, base, base + n, err)
                            : lp_fail(err, LP_E_MEMORY, "out of memory");
        for (int r = 0; r < n && st == LP_OK; r++) {
            if (!mask[r]) continue;
            ++*total;
            if (!limit || out->n < limit) st = lp_hits_push(out, base + r, 0, err);
        }
        free(mask);
        LP_TRY(st);
    }
    return LP_OK;
}

lp_status lp_query_where(lp_hits *out, int64_t *total, lp_query *q, const char *text, const lp_where_options *o,
                         lp_error *err)
{
    static const lp_where_options defaults;
    lp_where w;
    int64_t n = 0;
    if (!o) o = &defaults;
    out->n = 0;
    LP_TRY(lp_where_parse(&w, q, text, o, err));
    job j = {q, &w, o->all};
    lp_status st = collect(out, &n, &j, o->limit, err);
    if (total) *total = n;
    lp_where_free(&w);
    return st;
}
