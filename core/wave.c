/* wave.c - spreading the rows of a wave over the threads of the pool. */
#include "core/wave.h"

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
