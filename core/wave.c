/* wave.c - where the rows of a wave find their past, and how they are spread over the threads of the pool. */
#include "core/wave.h"

static int least(int a, int b)
{
    return a < b ? a : b;
}

lp_past lp_wave_past(const lp_wave *w, int r, int part, int first, int end)
{
    lp_past p = {.kv = &w->s->kv, .layer = w->layer, .from = first, .to = end};
    if (w->each == LP_UNBRANCHED) {
        if (part) p.to = p.from;
    } else if (part == 0) {
        p.to = least(end, w->pos);
    } else {
        p = (lp_past){.kv = &w->s->tails[r / w->each], .shift = w->pos / LP_PAGE * LP_PAGE, .from = first, .to = end};
        if (p.from < w->pos) p.from = w->pos;
    }
    return p;
}

typedef struct items {
    lp_wave *w;
    lp_item_fn fn;
    const void *arg;
    int n;
    atomic_int next;
} items;

static void run_items(int id, int n_threads, void *user)
{
    (void)n_threads;
    items *it = user;
    for (int i; (i = lp_claim(&it->next)) < it->n;) it->fn(it->w, it->arg, i, id);
}

enum { WORTH_WAKING = 1 << 14 }; /* floats: waking the pool costs about what touching so many does */

void lp_each(lp_wave *w, int n, size_t work, lp_item_fn fn, const void *arg)
{
    if (n < 2 || (size_t)n * work < WORTH_WAKING) {
        for (int i = 0; i < n; i++) fn(w, arg, i, 0);
        return;
    }
    items it = {.w = w, .fn = fn, .arg = arg, .n = n};
    lp_pool_run(w->s->env.pool, run_items, &it);
}
