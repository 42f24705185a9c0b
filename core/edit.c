/* edit.c - see edit.h. */
#include "core/edit.h"

#include <string.h>

static void edit_floats(const lp_edit *e, float *x, const float *v, int n)
{
    if (e->kind == LP_EDIT_ADD)
        for (int i = 0; i < n; i++) x[i] += e->scale * v[i];
    else if (e->kind == LP_EDIT_REPLACE)
        memcpy(x, v, (size_t)n * sizeof *x);
    else
        memset(x, 0, (size_t)n * sizeof *x);
}

static int edit(lp_act *act, void *user)
{
    const lp_edit *e = user;
    int stored = e->keys ? e->keys : act->width; /* floats per head in v */
    int n = stored < act->width ? stored : act->width;
    int first = e->one_head ? e->head : 0, last = e->one_head ? e->head + 1 : act->heads;
    if (first < 0 || last > act->heads) return 0; /* no such head here */
    for (int r = 0; r < act->rows; r++) {
        int pos = act->pos + r;
        if (pos < e->from || pos >= e->to) continue;
        const float *row = e->kind == LP_EDIT_ZERO ? NULL : e->v + (size_t)(pos - e->from) * e->stride;
        for (int h = first; h < last; h++) {
            float *x = act->x + ((size_t)r * (size_t)act->heads + (size_t)h) * (size_t)act->width;
            edit_floats(e, x, row ? row + (size_t)(h - first) * (size_t)stored : NULL, n);
        }
    }
    return 0;
}

lp_hook lp_edit_hook(lp_site site, int layer, lp_edit *e)
{
    return (lp_hook){.site = site, .layer = layer, .edits = true, .fn = edit, .user = e};
}
