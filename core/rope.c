/* rope.c - see rope.h. */
#include "core/rope.h"

#include <math.h>
#include <stddef.h>

/* pi/2 in three pieces of 33 bits each: q * PIO2_A is exact for |q| < 2^20. */
#define PIO2_A 0x1.921fb54400000p+0
#define PIO2_B 0x1.0b4611a600000p-34
#define PIO2_C 0x1.3198a2e037073p-69

/* Taylor polynomials on |r| <= pi/4: the first term left out is below 3e-17 (sine, r^17/17!) and 2e-18 (cosine,
 * r^18/18!). */
static double sin_poly(double r)
{
    double z = r * r;
    double p = fma(z, 1.0 / 1307674368000.0 * -1.0, 1.0 / 6227020800.0); /* -r^15/15! + r^13/13! */
    p = fma(z, p, -1.0 / 39916800.0);
    p = fma(z, p, 1.0 / 362880.0);
    p = fma(z, p, -1.0 / 5040.0);
    p = fma(z, p, 1.0 / 120.0);
    p = fma(z, p, -1.0 / 6.0);
    return fma(r * z, p, r);
}

static double cos_poly(double r)
{
    double z = r * r;
    double p = fma(z, 1.0 / 20922789888000.0, -1.0 / 87178291200.0); /* r^16/16! - r^14/14! */
    p = fma(z, p, 1.0 / 479001600.0);
    p = fma(z, p, -1.0 / 3628800.0);
    p = fma(z, p, 1.0 / 40320.0);
    p = fma(z, p, -1.0 / 720.0);
    p = fma(z, p, 1.0 / 24.0);
    p = fma(z, p, -0.5);
    return fma(z, p, 1.0);
}

void lp_sincos(double x, double *s, double *c)
{
    double q = nearbyint(x * 0x1.45f306dc9c883p-1); /* x / (pi/2) */
    double r = fma(-q, PIO2_A, x);
    r = fma(-q, PIO2_B, r);
    r = fma(-q, PIO2_C, r);
    double a = sin_poly(r), b = cos_poly(r);
    switch ((int)((long long)q & 3)) {
    case 0:
        *s = a, *c = b;
        break;
    case 1:
        *s = b, *c = -a;
        break;
    case 2:
        *s = -a, *c = -b;
        break;
    default:
        *s = -b, *c = a;
        break;
    }
}

void lp_rope_table(float *cos, float *sin, int n_positions, int head_dim, double theta)
{
    int half = head_dim / 2;
    for (int i = 0; i < half; i++) {
        float power = (float)pow(theta, (double)((float)(2 * i) / (float)head_dim));
        float f = 1.0f / power;
        for (int p = 0; p < n_positions; p++) {
            double s, c;
            lp_sincos((double)((float)p * f), &s, &c);
            size_t at = (size_t)p * (size_t)half + (size_t)i;
            cos[at] = (float)c;
            sin[at] = (float)s;
        }
    }
}
