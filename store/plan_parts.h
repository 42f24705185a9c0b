/* plan_parts.h - what the makers and readers of a plan share; private to this folder. */
#ifndef LP_STORE_PLAN_PARTS_H
#define LP_STORE_PLAN_PARTS_H

#include "store/plan.h"

/* Checks ranges and fills in defaults. */
lp_status lp_plan_check_options(lp_plan_options *o, lp_error *err);

/* Appends a document without pieces; the key is copied. */
lp_status lp_plan_add_document(lp_plan *p, const lp_document *d, lp_error *err);
/* Appends a piece; document and at are given, the window is worked out. */
lp_status lp_plan_add_piece(lp_plan *p, const lp_plan_piece *piece, lp_error *err);
/* Deals all windows to shards, `most` of them at most (LP_E_RANGE), and counts. */
lp_status lp_plan_deal(lp_plan *p, size_t most, lp_error *err);

/* Of the bytes that a file of it has after its first line. */
lp_status lp_plan_hash(char out[33], const lp_plan *p, lp_error *err);
/* XXH3-64 of a text and then of its ids, as plan.h says. */
lp_status lp_piece_hash(uint64_t *out, const char *text, size_t n, const int *ids, size_t n_ids, lp_error *err);

extern const char *const lp_plan_specials[3], *const lp_plan_splits[3], *const lp_plan_kinds[2];

#endif
