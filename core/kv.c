/* kv.c - see kv.h. */
#include "core/kv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void page_drop(lp_page *p, size_t bytes)
{
    if (!p || atomic_fetch_sub(&p->users, 1) != 1) return;
    lp_big_free(p->x, bytes);
    free(p);
}

static lp_page *page_new(size_t bytes)
{
    lp_page *p = lp_calloc(1, sizeof *p);
    if (!p) return NULL;
    atomic_init(&p->users, 1);
    if ((p->x = lp_big_alloc(bytes))) return p;
    free(p);
    return NULL;
}

static lp_status out_of_pages(const lp_kv *kv, lp_error *err)
{
    return lp_fail(err, LP_E_MEMORY, "no room for a KV cache of %d positions (%.1f MB per %d); ask for fewer positions",
                   kv->n_pages * LP_PAGE, (double)kv->page_bytes / 1e6, LP_PAGE);
}

/* Sizes only, no page yet. */
static lp_kv shape(const lp_config *c)
{
    lp_kv kv = {.n_layers = c->n_layers, .G = c->n_kv_heads, .E = c->head_dim};
    kv.Ep = (kv.E + LP_LANES - 1) / LP_LANES * LP_LANES;
    kv.key_floats = (size_t)kv.E * LP_PAGE;
    kv.layer_floats = (size_t)kv.G * (kv.key_floats + (size_t)kv.Ep * LP_PAGE);
    kv.page_bytes = (size_t)kv.n_layers * kv.layer_floats * sizeof(float);
    return kv;
}

uint64_t lp_kv_bytes_per_token(const lp_config *c)
{
    return shape(c).page_bytes / LP_PAGE;
}

static lp_status fill(lp_kv *kv, lp_error *err)
{
    for (int i = 0; i < kv->n_pages; i++)
        if (!kv->pages[i] && !(kv->pages[i] = page_new(kv->page_bytes))) return out_of_pages(kv, err);
    return LP_OK;
}

lp_status lp_kv_new(lp_kv *kv, const lp_config *c, int n_ctx, lp_error *err)
{
    *kv = shape(c);
    kv->n_pages = (n_ctx + LP_PAGE - 1) / LP_PAGE;
    kv->pages = lp_calloc((size_t)kv->n_pages, sizeof *kv->pages);
    return kv->pages ? fill(kv, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
}

void lp_kv_clear(lp_kv *kv)
{
    for (int i = 0; kv->pages && i < kv->n_pages; i++) page_drop(kv->pages[i], kv->page_bytes);
    free(kv->pages);
    *kv = (lp_kv){0};
}

/* The part of a page that holds positions below `used`: panels are interleaved by layer and head, so whole key panels
 * and rows of values are copied one by one. */
static void copy_page(const lp_kv *kv, float *to, const float *from, int used)
{
    size_t keys = (size_t)((used + LP_LANES - 1) / LP_LANES) * LP_LANES * (size_t)kv->E;
    size_t heads = (size_t)kv->G, head_values = (size_t)kv->Ep * LP_PAGE;
    for (int l = 0; l < kv->n_layers; l++) {
        size_t base = (size_t)l * kv->layer_floats;
        for (size_t g = 0; g < heads; g++) {
            size_t at = base + g * kv->key_floats;
            memcpy(to + at, from + at, keys * sizeof *to);
            at = base + heads * kv->key_floats + g * head_values;
            for (int e = 0; e < kv->Ep / LP_LANES; e++, at += (size_t)LP_PAGE * LP_LANES)
                memcpy(to + at, from + at, (size_t)used * LP_LANES * sizeof *to);
        }
    }
}

lp_status lp_kv_own_from(lp_kv *kv, int pos, lp_error *err)
{
    for (int i = pos / LP_PAGE; i < kv->n_pages; i++) {
        lp_page *old = kv->pages[i];
        if (atomic_load(&old->users) == 1) continue;
        lp_page *own = page_new(kv->page_bytes);
        if (!own) return out_of_pages(kv, err);
        if (i == pos / LP_PAGE) copy_page(kv, own->x, old->x, pos % LP_PAGE);
        kv->pages[i] = own;
        page_drop(old, kv->page_bytes);
    }
    return LP_OK;
}

lp_status lp_kv_fork(lp_kv *child, const lp_kv *parent, int pos, lp_error *err)
{
    *child = *parent;
    child->pages = lp_calloc((size_t)parent->n_pages, sizeof *child->pages);
    if (!child->pages) return lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; i < pos / LP_PAGE; i++) {
        child->pages[i] = parent->pages[i];
        atomic_fetch_add(&child->pages[i]->users, 1);
    }
    LP_TRY(fill(child, err));
    if (pos % LP_PAGE) copy_page(child, child->pages[pos / LP_PAGE]->x, parent->pages[pos / LP_PAGE]->x, pos % LP_PAGE);
    return LP_OK;
}

void lp_kv_put(lp_kv *kv, int layer, int pos, const float *k, const float *v)
{
    lp_page *page = kv->pages[pos / LP_PAGE];
    assert(atomic_load(&page->users) == 1);
    int at = pos % LP_PAGE, E = kv->E;
    float *x = page->x + (size_t)layer * kv->layer_floats;
    for (int g = 0; g < kv->G; g++, k += E) {
        float *panel = x + (size_t)g * kv->key_floats + (size_t)(at / LP_LANES) * (size_t)E * LP_LANES + at % LP_LANES;
        for (int e = 0; e < E; e++) panel[(size_t)(e ^ 1) * LP_LANES] = k[e]; /* odd first */
    }
    x += (size_t)kv->G * kv->key_floats;
    for (int g = 0; g < kv->G; g++, v += E) {
        float *row = x + (size_t)g * (size_t)kv->Ep * LP_PAGE + (size_t)at * LP_LANES;
        for (int e = 0; e < E; e += LP_LANES) {
            int n = E - e < LP_LANES ? E - e : LP_LANES;
            memcpy(row + (size_t)e * LP_PAGE, v + e, (size_t)n * sizeof *v);
        }
    }
}
