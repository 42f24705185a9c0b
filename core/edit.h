/* edit.h - the simplest edits of an activation, as hooks: add a vector, put another in its place, set it to zero.
 *
 *     lp_edit e = {.kind = LP_EDIT_ADD, .v = direction, .scale = 80, .from = 5, .to = INT_MAX};
 *     lp_session_hook(s, lp_edit_hook(LP_RESID_POST, 20, &e), &err);
 *
 * Activation patching is a replacement whose rows come from another run's tape.  Freezing attention or a norm is the
 * same at LP_PATTERN or LP_*_RMS.
 */
#ifndef LP_CORE_EDIT_H
#define LP_CORE_EDIT_H

#include "core/hooks.h"

typedef enum lp_edit_kind {
    LP_EDIT_ADD,     /* x += scale * v */
    LP_EDIT_REPLACE, /* x = v          */
    LP_EDIT_ZERO,    /* x = 0          */
} lp_edit_kind;

typedef struct lp_edit {
    lp_edit_kind kind;
    const float *v; /* [width] or [positions][width]; borrowed; not read by LP_EDIT_ZERO               */
    size_t stride;  /* floats from one position's row of v to the next, the first being `from`'s; 0: one row for all */
    float scale;    /* of LP_EDIT_ADD                                                                  */
    int from, to;   /* positions [from, to); INT_MAX: no end, generated tokens too                   */
    int head;       /* with one_head: this head alone, v being [its width]                           */
    int one_head;   /* 0: the whole row, v being [heads * width]                                     */
    int keys;       /* SCORES and PATTERN: floats per head in v, since their rows grow; keys beyond it stay.  0: as
                       many as the activation has                                                    */
} lp_edit;

/* The hook; `e` is borrowed until it is unhooked and may be changed between evaluations. */
lp_hook lp_edit_hook(lp_site site, int layer, lp_edit *e);

#endif
