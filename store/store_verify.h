/* store_verify.h - is everything in a store what it was when it was sealed? */
#ifndef LP_STORE_STORE_VERIFY_H
#define LP_STORE_STORE_VERIFY_H

#include "core/base.h"

typedef enum lp_store_state {
    LP_STORE_OK,
    LP_STORE_DAMAGED,     /* the file is not what was sealed                                         */
    LP_STORE_QUARANTINED, /* the same, and moved to the run's quarantine/                                     */
    LP_STORE_MISSING,     /* the catalogue has it, the folder does not                               */
    LP_STORE_CHANGED,     /* a sound file, but not the one the catalogue took in                     */
    LP_STORE_NOT_INDEXED, /* a sound file the catalogue does not know                                */
} lp_store_state;
const char *lp_store_state_name(lp_store_state s);

typedef struct lp_store_finding {
    char run[33];
    int number; /* -1: the catalogue itself */
    lp_store_state state;
    char why[1024]; /* "" where there is nothing to say */
} lp_store_finding;

typedef struct lp_store_verified { /* free with lp_store_verified_free */
    lp_store_finding *items;       /* every shard by run and number, the catalogue last */
    size_t n, capacity;
    int bad; /* not OK and not merely not indexed */
} lp_store_verified;
void lp_store_verified_free(lp_store_verified *v);

/* Every shard: its bytes and, in a child process, its invariants (lp_shard_verify); the catalogue in itself and against the
 * shards.  `repair`: damaged shards go to the run's quarantine/, so that the same extraction makes them again; the catalogue is
 * left as it is, since a shard made again has the same bytes. */
lp_status lp_store_verify(lp_store_verified *out, const char *store, bool repair, const lp_env *env, lp_error *err);

#endif
