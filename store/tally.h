/* tally.h - what is known of one feature over any number of shards: counts, sums, a histogram, its strongest places.
 *
 * Adding tallies is associative and commutative to the last bit, so a catalogue does not depend on the order in which
 * shards came in, nor on how often the work was interrupted:
 *
 *     sums        of the shards' sums (each taken in the order of its rows) are kept exactly, as sums of doubles that do not
 *                 overlap [1]; `sum` is that rounded once, what is left is beside it
 *     top         the LP_TOP strongest of: each document's LP_TOP_EACH strongest; equal values by token.  Whoever is
 *                 among the strongest of all shards is among them in his own
 *     n_docs      documents in which it fires; one that is cut by shards counts once in each
 *
 * [1] Shewchuk 1997, Adaptive Precision Floating-Point Arithmetic, section 2
 */
#ifndef LP_STORE_TALLY_H
#define LP_STORE_TALLY_H

#include "core/base.h"

enum { LP_TOP = 32, LP_TOP_EACH = 2, LP_TALLY_BINS = 64, LP_EXACT_PARTS = 40 };

typedef struct lp_example {
    int64_t token;    /* in the run    */
    int64_t document; /* in the corpus */
    float value;
} lp_example;

/* An exact sum: parts[0] is it rounded, parts[1] what that leaves rounded, and so on: the same parts for the same number. */
typedef struct lp_exact {
    int n;
    double parts[LP_EXACT_PARTS];
} lp_exact;

typedef struct lp_tally { /* all zero: it never fires */
    int64_t n_active, n_docs;
    lp_exact sum, sumsq;
    float max;
    uint64_t hist[LP_TALLY_BINS]; /* lp_shard_bin */
    int n_top;
    lp_example top[LP_TOP]; /* strongest first */
} lp_tally;

/* v finite. */
void lp_exact_add(lp_exact *x, double v);
double lp_exact_value(const lp_exact *x);

/* Takes a place into the top list, if it belongs there. */
void lp_tally_offer(lp_tally *t, lp_example e);
void lp_tally_add(lp_tally *t, const lp_tally *more);

/* The catalogue's columns hist, top, rest.  The buffers are large enough for any. */
enum { LP_TALLY_HIST = LP_TALLY_BINS * 10, LP_TALLY_TOP = LP_TOP * 20, LP_TALLY_REST = 2 + 2 * LP_EXACT_PARTS * 8 };
size_t lp_tally_pack_hist(unsigned char out[LP_TALLY_HIST], const lp_tally *t);
size_t lp_tally_pack_top(unsigned char out[LP_TALLY_TOP], const lp_tally *t);
size_t lp_tally_pack_rest(unsigned char out[LP_TALLY_REST], const lp_tally *t); /* 0: nothing is left */
/* False: not such a column. */
bool lp_tally_unpack_hist(lp_tally *t, const unsigned char *in, size_t n);
bool lp_tally_unpack_top(lp_tally *t, const unsigned char *in, size_t n);
bool lp_tally_unpack_rest(lp_tally *t, double sum, double sumsq, const unsigned char *in, size_t n);

#endif
