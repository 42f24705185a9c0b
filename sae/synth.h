/* synth.h - SAEs of any width with random weights, for measuring speed and memory without the real ones.
 *
 * They come in through the very code that reads a checkpoint.  Calibrated, they fire as often as real ones do: one
 * threshold for all features lets through what the wanted L0 asks for.
 */
#ifndef LP_SAE_SYNTH_H
#define LP_SAE_SYNTH_H

#include "sae/sae.h"

/* A jumprelu SAE that reads and writes `spot`, d_in wide; the same seed gives the same weights.  Its thresholds are 0. */
lp_status lp_sae_synth(lp_sae **out, const lp_sae_spot *spot, int d_in, int d_sae, uint64_t seed,
                       const lp_sae_options *o, const lp_env *env, lp_error *err);

/* Sets the thresholds so that over the rows x [n][d_in] the mean L0 is `l0` (0 < l0 < d_sae).  The one place
 * where an SAE is written to after it was made: nobody may be using it yet. */
lp_status lp_sae_calibrate(lp_sae *s, double l0, const float *x, int n, const lp_env *env, lp_error *err);

#endif
