/* pool.h - threads that stay, for parallel sections that last from microseconds to milliseconds.
 *
 * lp_pool_run hands fn to every thread of the pool, the calling thread among them, and returns when all are
 * through.  How work is shared out inside fn is fn's business (a static split, or lp_claim on a counter); no
 * result may depend on it, and none does: every output is one sum taken by one thread in one fixed order.
 */
#ifndef LP_CORE_POOL_H
#define LP_CORE_POOL_H

#include "core/base.h"

typedef struct lp_pool lp_pool;

/* n_threads counts the caller; 0: one per CPU this process may use. */
lp_status lp_pool_new(lp_pool **out, int n_threads, lp_error *err);
void lp_pool_free(lp_pool *p);         /* NULL is fine */
int lp_pool_threads(const lp_pool *p); /* 1 for NULL */

/* fn(id, n, arg) on each of the n threads, id 0 being the caller.  p == NULL: fn(0, 1, arg). */
typedef void (*lp_pool_fn)(int id, int n, void *arg);
void lp_pool_run(lp_pool *p, lp_pool_fn fn, void *arg);

/* Inside fn: wait until all n threads have come here. */
void lp_pool_sync(lp_pool *p);

/* Hands out 0, 1, 2, ... to whoever asks; set *counter to 0 before the section. */
static inline int lp_claim(atomic_int *counter)
{
    return atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

#endif
