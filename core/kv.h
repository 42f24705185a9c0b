/* kv.h - the KV cache of one timeline, in pages of 64 positions shared between forks.  Private to core.
 *
 * A page holds keys and values of every layer for 64 positions, as the panels that tile_f32 multiplies by, so that
 * attention is two more matrix products over packed panels:
 *
 *     keys    [L][G][64/32][E][32]      one lane per position, E odd first (as pack_exact packs a query)
 *     values  [L][G][Ep/32][64][32]     one lane per element of the head, positions in sequence;  Ep = E rounded up to
 * 32
 *
 * Everything is f32 and nothing is ever dropped: sliding layers keep all positions too, so that a rewind across the
 * window is only a smaller number.  Pages are reserved when a session is made (untouched pages cost no memory), so that
 * eval allocates nothing; a page that is shared is read-only, and whoever must write to it gets a copy first.
 */
#ifndef LP_CORE_KV_H
#define LP_CORE_KV_H

#include "core/config.h"
#include "core/kernels.h"

enum { LP_PAGE = 64 };

typedef struct lp_page {
    atomic_int users;
    float *x;
} lp_page;

typedef struct lp_kv {
    int n_layers, G, E, Ep;
    size_t key_floats, layer_floats; /* of one head's keys in a page; of one layer of a page */
    size_t page_bytes;
    int n_pages;
    lp_page **pages; /* [n_pages] */
} lp_kv;

/* Memory one position takes, in all layers. */
uint64_t lp_kv_bytes_per_token(const lp_config *c);

lp_status lp_kv_new(lp_kv *kv, const lp_config *c, int n_ctx, lp_error *err);
void lp_kv_clear(lp_kv *kv);
/* Makes every page from position `pos` on this timeline's own; keeps what lies before pos in that page. */
lp_status lp_kv_own_from(lp_kv *kv, int pos, lp_error *err);
/* `child` (fresh, cleared pages allowed) shares the pages that hold [0, pos). */
lp_status lp_kv_fork(lp_kv *child, const lp_kv *parent, int pos, lp_error *err);

/* k and v: one row each, [G][E], into position pos of `layer`. */
void lp_kv_put(lp_kv *kv, int layer, int pos, const float *k, const float *v);

/* The panel of keys that holds positions p .. p+31 (p a multiple of 32), of kv head g: [E][32]. */
static inline const float *lp_kv_keys(const lp_kv *kv, int layer, int g, int p)
{
    const float *x = kv->pages[p / LP_PAGE]->x + (size_t)layer * kv->layer_floats + (size_t)g * kv->key_floats;
    return x + (size_t)(p % LP_PAGE / LP_LANES) * (size_t)kv->E * LP_LANES;
}

/* Values of kv head g from position p on (to the end of p's page), elements 32 e .. 32 e + 31: [positions][32]. */
static inline const float *lp_kv_values(const lp_kv *kv, int layer, int g, int e, int p)
{
    size_t head = (size_t)kv->Ep * LP_PAGE;
    const float *x = kv->pages[p / LP_PAGE]->x + (size_t)layer * kv->layer_floats + (size_t)kv->G * kv->key_floats;
    return x + (size_t)g * head + ((size_t)e * LP_PAGE + (size_t)(p % LP_PAGE)) * LP_LANES;
}

#endif
