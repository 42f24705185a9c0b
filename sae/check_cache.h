/* check_cache.h - figures of checks (sae/check.h) that were measured before, in one JSON file.
 *
 *     {"format": "lapidary-checks", "version": 1,
 *      "checks": {"<key>": {"rows": 256, "l0": 20.1, "fvu": 0.22, "cosine": 0.91,
 *                           "rival": {"site": "resid_mid", "layer": 4, "l0": 33.4, "fvu": 0.29}}}}
 *
 * Figures and no verdicts: bounds may move.  It may be thrown away at any time, and whatever is wrong with it (damaged, of
 * another version, a folder that cannot be written to) costs a measurement and no more: it is said in the log and is no
 * error.  Two programs that write at once leave one's file whole.
 */
#ifndef LP_SAE_CHECK_CACHE_H
#define LP_SAE_CHECK_CACHE_H

#include "sae/check.h"

typedef struct lp_check_cache lp_check_cache;

/* $XDG_CACHE_HOME/lapidary/checks.json, else below $HOME/.cache; NULL: neither is set, or no memory.  Free it. */
char *lp_check_cache_path(void);

/* path NULL: remembers nothing.  Fails for want of memory only. */
lp_status lp_check_cache_open(lp_check_cache **out, const char *path, const lp_env *env, lp_error *err);
void lp_check_cache_free(lp_check_cache *c); /* NULL is fine */

/* Fills in quality and rival of *k, whose spot the SAE's is like; false: not known. */
bool lp_check_cache_get(const lp_check_cache *c, const char *key, lp_check *k, const lp_sae_spot *like);
void lp_check_cache_put(lp_check_cache *c, const char *key, const lp_check *k);
void lp_check_cache_save(lp_check_cache *c); /* where something was put; makes the folders above */

#endif
