/* direction.h - the directions of a control vector (llama.cpp's GGUF, exchange.h) as SAEs of one feature.
 *
 *     FILE.gguf/direction.N      tensor direction.N of that file, at resid_post.N
 *
 * The decoder row is the tensor d, all biases are 0, and the encoder is d / |d|^2, so that f = relu(x.d / |d|^2) is how
 * many d are in x along d, and f d their share of x.  So a direction can do all that a feature can: be added, clamped,
 * projected out, read along a text, be another edit's condition.  It is named by its path as typed.
 */
#ifndef LP_SAE_DIRECTION_H
#define LP_SAE_DIRECTION_H

#include "sae/sae.h"

/* Where "/direction.N" begins in a path of that form, which need not exist, and N, from 1 on; NULL: another path. */
const char *lp_direction_part(const char *path, int *layer);
lp_sae_spot lp_direction_spot(int layer);

/* The layers of a control vector's directions, ascending, without those that are zero.  LP_E_FORMAT: another kind of
 * file, or one whose directions are not F32 [d_model], all of one width, of layers from 1 on.  *layers is yours to
 * free. */
lp_status lp_direction_list(int **layers, size_t *n, const char *file, lp_error *err);

#endif
