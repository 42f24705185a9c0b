/* rivals.c - see rivals.h. */
#include "sae/rivals.h"

#include "sae/reader.h"

#include <assert.h>

#define BIT(site) (1u << (site))

static const uint32_t kinds[] = {
    BIT(LP_ATTN_IN) | BIT(LP_MLP_NORMED) | BIT(LP_MLP_IN),
    BIT(LP_Z) | BIT(LP_ATTN_RAW) | BIT(LP_ATTN_OUT) | BIT(LP_MLP_RAW) | BIT(LP_MLP_OUT),
    BIT(LP_Q) | BIT(LP_Q_ROT),
    BIT(LP_K) | BIT(LP_K_ROT) | BIT(LP_V),
    BIT(LP_MLP_GATE) | BIT(LP_MLP_UP) | BIT(LP_MLP_ACT),
};

typedef struct place {
    lp_site site;
    int layer;
} place;

/* What is being gathered. */
typedef struct list {
    const lp_sae *s;
    const lp_config *c;
    lp_sae_spot *out;
    int n;
} list;

/* ---- the stream -------------------------------------------------------------------------------------------------- */

/* Which state of the stream it is, from 0, the embedding, on; -1: none. */
static int state_of(place p)
{
    switch (p.site) {
    case LP_EMBED:
        return 0;
    case LP_RESID_PRE:
        return 2 * p.layer;
    case LP_RESID_MID:
        return 2 * p.layer + 1;
    case LP_RESID_POST:
        return 2 * p.layer + 2;
    default:
        return -1;
    }
}

static place state_place(int state)
{
    if (state == 0) return (place){LP_RESID_PRE, 0};
    return state % 2 ? (place){LP_RESID_MID, state / 2} : (place){LP_RESID_POST, state / 2 - 1};
}

static bool same_place(place a, place b)
{
    int state = state_of(a);
    if (state >= 0) return state == state_of(b);
    return a.site == b.site && (a.layer == b.layer || !lp_site_has_layer(a.site));
}

bool lp_sae_spot_same(const lp_sae_spot *a, const lp_sae_spot *b)
{
    return same_place((place){a->site, a->layer}, (place){b->site, b->layer}) &&
           same_place((place){a->site_out, a->layer_out}, (place){b->site_out, b->layer_out});
}

/* ---- gathering --------------------------------------------------------------------------------------------------- */

/* Sites are numbered in the order in which they pass. */
static bool passes_before(place a, place b)
{
    return a.layer != b.layer ? a.layer < b.layer : a.site < b.site;
}

static void add(list *l, place in, place out)
{
    lp_sae moved = *l->s; /* the same weights elsewhere */
    moved.spot.site = in.site, moved.spot.layer = in.layer;
    moved.spot.site_out = out.site, moved.spot.layer_out = out.layer;
    if (moved.spot.is_coder && !passes_before(in, out)) return;
    if (lp_sae_fits(&moved, l->c, NULL) != LP_OK || lp_sae_spot_same(&moved.spot, &l->s->spot)) return;
    for (int i = 0; i < l->n; i++)
        if (lp_sae_spot_same(&moved.spot, &l->out[i])) return;
    assert(l->n < LP_SAE_RIVALS);
    l->out[l->n++] = moved.spot;
}

/* Neighbours of p, up to 6: of its own layer, and with `far` also beyond it. */
static int neighbours(place out[8], place p, const lp_config *c, bool far)
{
    int n = 0, state = state_of(p);
    if (state >= 0) {
        for (int k = state - 2; k <= state + 2; k++)
            if (k != state && k >= 0 && k <= 2 * c->n_layers) out[n++] = state_place(k);
        return n;
    }
    if (!lp_site_has_layer(p.site)) return 0;
    for (int k = -1; far && k <= 1; k += 2) out[n++] = (place){p.site, p.layer + k};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (int site = 0; site < LP_N_SITES && kinds[i] & BIT(p.site); site++)
            if (site != (int)p.site && kinds[i] & BIT(site)) out[n++] = (place){(lp_site)site, p.layer};
    return n;
}

int lp_sae_rivals(lp_sae_spot out[LP_SAE_RIVALS], const lp_sae *s, const lp_config *c)
{
    list l = {.s = s, .c = c, .out = out};
    place in = {s->spot.site, s->spot.layer}, to = {s->spot.site_out, s->spot.layer_out}, near[8];
    int n = neighbours(near, in, c, !s->spot.is_coder);
    for (int i = 0; i < n; i++) add(&l, near[i], s->spot.is_coder ? to : near[i]);
    if (!s->spot.is_coder) return l.n;
    for (int k = -1; k <= 1 && lp_site_has_layer(in.site); k += 2)
        add(&l, (place){in.site, in.layer + k}, (place){to.site, to.layer + k});
    n = neighbours(near, to, c, false);
    for (int i = 0; i < n; i++) add(&l, in, near[i]);
    return l.n;
}
