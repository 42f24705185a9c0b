/* rope.h - the cosines and sines of rotary position embedding, the same bits on every machine.
 *
 * transformers: modeling_gemma2.py, Gemma2RotaryEmbedding; gemma_pytorch: gemma/model.py, precompute_freqs_cis.
 *     f_i = 1 / theta^(2i/E),   angle(p, i) = p f_i,   i < E/2
 * The references form f_i and the product p f_i in float32 and we do as they do: at position 8191 the rounding of that
 * product moves an angle by up to 2.4e-4 rad, so a "better" angle would be further from the reference.
 */
#ifndef LP_CORE_ROPE_H
#define LP_CORE_ROPE_H

/* cos and sin are [n_positions][head_dim / 2]. */
void lp_rope_table(float *cos, float *sin, int n_positions, int head_dim, double theta);

/* Sine and cosine in double, error below 1e-15 for |x| < 1e6, from multiplications, additions and fma alone: libm's
 * differ in the last bit from one version to the next. */
void lp_sincos(double x, double *s, double *c);

#endif
