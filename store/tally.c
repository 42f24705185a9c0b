/* tally.c - see tally.h. */
#include "store/tally.h"

#include <math.h>
#include <string.h>

/* ---- exact sums --------------------------------------------------------------------------------------------------- */

/* a + b = *sum + *error, exactly. */
static void two_sum(double a, double b, double *sum, double *error)
{
    double s = a + b, bb = s - a;
    *error = (a - (s - bb)) + (b - bb);
    *sum = s;
}

/* Adds v to parts that do not overlap, smallest first; returns how many there are then. */
static int grow(double *parts, int n, double v)
{
    int kept = 0;
    for (int i = 0; i < n; i++) {
        double error;
        two_sum(v, parts[i], &v, &error);
        if (error != 0) parts[kept++] = error;
    }
    if (v != 0) parts[kept++] = v;
    return kept;
}

/* Their sum, rounded once to nearest, ties to even.  Adding from the largest down is right up to the first part that does
 * not fit; when what is left lies just half way, the sign of the next one decides. */
static double round_once(const double *parts, int n)
{
    double high = parts[--n], low = 0;
    while (n > 0 && low == 0) two_sum(high, parts[--n], &high, &low);
    if (n > 0 && low != 0 && (low < 0) == (parts[n - 1] < 0)) {
        double twice = 2 * low, up = high + twice;
        if (up - high == twice) high = up;
    }
    return high;
}

void lp_exact_add(lp_exact *x, double v)
{
    double parts[LP_EXACT_PARTS + 1];
    int n = 0;
    for (int i = x->n - 1; i >= 0; i--) n = grow(parts, n, x->parts[i]);
    n = grow(parts, n, v);
    for (x->n = 0; n > 0 && x->n < LP_EXACT_PARTS; x->n++) {
        double part = round_once(parts, n);
        x->parts[x->n] = part;
        n = grow(parts, n, -part);
    }
}

double lp_exact_value(const lp_exact *x)
{
    return x->n ? x->parts[0] : 0;
}

/* ---- the strongest places ----------------------------------------------------------------------------------------- */

static bool is_before(const lp_example *a, const lp_example *b)
{
    return a->value != b->value ? a->value > b->value : a->token < b->token;
}

void lp_tally_offer(lp_tally *t, lp_example e)
{
    int same = 0, weakest = -1, at = t->n_top;
    if (t->n_top == LP_TOP && !is_before(&e, &t->top[LP_TOP - 1])) return;
    for (int i = 0; i < t->n_top; i++)
        if (t->top[i].document == e.document) same++, weakest = i;
    if (same >= LP_TOP_EACH) {
        if (!is_before(&e, &t->top[weakest])) return;
        at = weakest;
    } else if (t->n_top == LP_TOP) {
        at = LP_TOP - 1;
    } else {
        t->n_top++;
    }
    for (; at > 0 && is_before(&e, &t->top[at - 1]); at--) t->top[at] = t->top[at - 1];
    t->top[at] = e;
}

void lp_tally_add(lp_tally *t, const lp_tally *more)
{
    t->n_active += more->n_active;
    t->n_docs += more->n_docs;
    for (int i = 0; i < more->sum.n; i++) lp_exact_add(&t->sum, more->sum.parts[i]);
    for (int i = 0; i < more->sumsq.n; i++) lp_exact_add(&t->sumsq, more->sumsq.parts[i]);
    if (more->max > t->max) t->max = more->max;
    for (int i = 0; i < LP_TALLY_BINS; i++) t->hist[i] += more->hist[i];
    for (int i = 0; i < more->n_top; i++) lp_tally_offer(t, more->top[i]);
}

/* ---- columns ------------------------------------------------------------------------------------------------------ */

static void put_bits(unsigned char *out, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) out[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t get_bits(const unsigned char *in, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++) v |= (uint64_t)in[i] << (8 * i);
    return v;
}

size_t lp_tally_pack_hist(unsigned char out[LP_TALLY_HIST], const lp_tally *t)
{
    size_t n = 0;
    for (int i = 0; i < LP_TALLY_BINS; i++) {
        uint64_t v = t->hist[i];
        for (; v >= 0x80; v >>= 7) out[n++] = (unsigned char)(v | 0x80);
        out[n++] = (unsigned char)v;
    }
    return n;
}

bool lp_tally_unpack_hist(lp_tally *t, const unsigned char *in, size_t n)
{
    size_t at = 0;
    for (int i = 0; i < LP_TALLY_BINS; i++) {
        uint64_t v = 0;
        for (int shift = 0;; shift += 7) {
            if (at == n || shift > 56) return false;
            v |= (uint64_t)(in[at] & 0x7f) << shift;
            if (!(in[at++] & 0x80)) break;
        }
        t->hist[i] = v;
    }
    return at == n;
}

size_t lp_tally_pack_top(unsigned char out[LP_TALLY_TOP], const lp_tally *t)
{
    for (int i = 0; i < t->n_top; i++) {
        uint32_t value;
        memcpy(&value, &t->top[i].value, sizeof value);
        put_bits(out + 20 * i, (uint64_t)t->top[i].token, 8);
        put_bits(out + 20 * i + 8, (uint64_t)t->top[i].document, 8);
        put_bits(out + 20 * i + 16, value, 4);
    }
    return 20 * (size_t)t->n_top;
}

bool lp_tally_unpack_top(lp_tally *t, const unsigned char *in, size_t n)
{
    if (n % 20 || n > LP_TALLY_TOP) return false;
    t->n_top = (int)(n / 20);
    for (int i = 0; i < t->n_top; i++) {
        uint32_t value = (uint32_t)get_bits(in + 20 * i + 16, 4);
        t->top[i].token = (int64_t)get_bits(in + 20 * i, 8);
        t->top[i].document = (int64_t)get_bits(in + 20 * i + 8, 8);
        memcpy(&t->top[i].value, &value, sizeof value);
        if (!isfinite(t->top[i].value) || (i && !is_before(&t->top[i - 1], &t->top[i]))) return false;
    }
    return true;
}

static size_t pack_exact(unsigned char *out, const lp_exact *x)
{
    int n = x->n > 1 ? x->n - 1 : 0;
    out[0] = (unsigned char)n;
    for (int i = 0; i < n; i++) {
        uint64_t bits;
        memcpy(&bits, &x->parts[i + 1], sizeof bits);
        put_bits(out + 1 + 8 * i, bits, 8);
    }
    return 1 + 8 * (size_t)n;
}

static bool unpack_exact(lp_exact *x, double first, const unsigned char *in, size_t n, size_t *at)
{
    int rest = *at < n ? in[(*at)++] : 0;
    if (!isfinite(first) || rest >= LP_EXACT_PARTS || (size_t)rest * 8 > n - *at) return false;
    x->n = first != 0 ? 1 + rest : 0;
    x->parts[0] = first;
    for (int i = 0; i < rest; i++, *at += 8) {
        uint64_t bits = get_bits(in + *at, 8);
        memcpy(&x->parts[i + 1], &bits, sizeof bits);
        if (!isfinite(x->parts[i + 1])) return false;
    }
    return true;
}

size_t lp_tally_pack_rest(unsigned char out[LP_TALLY_REST], const lp_tally *t)
{
    if (t->sum.n <= 1 && t->sumsq.n <= 1) return 0;
    size_t n = pack_exact(out, &t->sum);
    return n + pack_exact(out + n, &t->sumsq);
}

bool lp_tally_unpack_rest(lp_tally *t, double sum, double sumsq, const unsigned char *in, size_t n)
{
    size_t at = 0;
    return unpack_exact(&t->sum, sum, in, n, &at) && unpack_exact(&t->sumsq, sumsq, in, n, &at) && at == n;
}
