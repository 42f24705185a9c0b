/* Every table against the C twin, bit for bit; the C twin against plain double arithmetic and libm.
 *
 * Compared are all rows 1..12, lengths 0..67, offsets 0..7, with guard values around every output.  Inputs come in
 * kinds: ordinary, around the edge of the subnormals, and any 32 bits at all.  The one thing not compared is which NaN:
 * IEEE 754 leaves payload and sign open, and compilers exchange the operands of a product at will.
 */
#include "core/bench.h"
#include "core/panels.h"
#include "core/quant.h"

#include "tests/check.h"

#include <float.h>
#include <stdlib.h>

enum { GUARD = 16, MOST = 4096 };

static const lp_kernels *const *tables;
static int n_tables;

/* ---- values -------------------------------------------------------------------------------------------------- */

static uint64_t state = 88172645463325252u;

static uint32_t random_bits(void)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 16);
}

static float from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint32_t to_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

enum kind { ORDINARY, SMALL, ANY, N_KINDS };

/* SMALL: products near 2^-126 come about often.  ANY: subnormals, infinities, NaN among them. */
static float random_float(enum kind kind)
{
    static const float special[] = {0.0f,    -0.0f,     INFINITY,   -INFINITY,       NAN, FLT_MIN, -FLT_MIN,
                                    FLT_MAX, 0x1p-149f, -0x1p-149f, 0x1.fffffcp-127f};
    uint32_t u = random_bits(), sign = u & 0x80000000u;
    if (kind == ORDINARY) return (float)(int32_t)u * 0x1p-30f;
    if (kind == SMALL) return from_bits(sign | (62 + (u >> 24) % 4) << 23 | (random_bits() & 0x7fffff));
    return u % 7 ? from_bits(random_bits()) : special[random_bits() % (sizeof special / sizeof *special)];
}

static uint16_t random_bf16(enum kind kind)
{
    return (uint16_t)(to_bits(random_float(kind)) >> 16);
}

static void fill(float *x, int n, enum kind kind)
{
    for (int i = 0; i < n; i++) x[i] = random_float(kind);
}

static int same(float a, float b)
{
    return to_bits(a) == to_bits(b) || (isnan(a) && isnan(b));
}

/* Also sees whether the guards around are whole. */
static int all_same(const float *got, const float *want, int n, const char *table, const char *what)
{
    for (int i = 0; i < n; i++)
        if (!same(got[i], want[i])) {
            if (check_failed++ < 20)
                fprintf(stderr, "%s %s: value %d of %d: got %a, want %a\n", table, what, i, n, (double)got[i],
                        (double)want[i]);
            return 0;
        }
    check_passed++;
    return 1;
}

/* ---- rows ---------------------------------------------------------------------------------------------------- */

typedef struct buffers {
    float x[MOST], y[MOST], z[MOST];
} buffers;

/* Runs row function number `which` of a table over n values of b at an offset; the sum if there is one. */
static float run_row(const lp_kernels *k, int which, buffers *b, int at, int n)
{
    float *x = b->x + GUARD + at, *y = b->y + GUARD + at, *z = b->z + GUARD + at;
    switch (which) {
    case 0:
        return k->sum_squares(x, n);
    case 1:
        k->scale(y, x, 0.3f, n);
        return 0;
    case 2:
        k->mul(y, x, z, n);
        return 0;
    case 3:
        k->add(y, x, n);
        return 0;
    case 4:
        k->gelu_mul(y, x, z, n);
        return 0;
    case 5:
        k->softcap(x, n, 30.0f);
        return 0;
    case 6:
        return k->max(x, n);
    case 7:
        return k->exp_sum(x, n, 1.25f);
    case 8:
        k->rope(x, y, z, n / 2);
        return 0;
    case 9:
        k->scale(x, x, -1.7f, n); /* in place */
        return 0;
    default:
        k->mul(x, x, x, n);
        return 0;
    }
}

static void test_rows(void)
{
    static buffers from, want, got;
    for (int which = 0; which <= 10; which++)
        for (int kind = 0; kind < N_KINDS; kind++)
            for (int n = 0; n <= 67 + 1 + 600; n = n == 67 ? 600 : n + 1)
                for (int at = 0; at < 8; at++) {
                    fill(from.x, MOST, kind), fill(from.y, MOST, kind), fill(from.z, MOST, kind);
                    want = from;
                    float sum = run_row(lp_kernels_c(), which, &want, at, n);
                    for (int t = 1; t < n_tables; t++) {
                        got = from;
                        char what[64];
                        snprintf(what, sizeof what, "row function %d, kind %d, n %d, at %d", which, kind, n, at);
                        float s = run_row(tables[t], which, &got, at, n);
                        all_same(&s, &sum, 1, tables[t]->name, what);
                        all_same(got.x, want.x, 900, tables[t]->name, what);
                        all_same(got.y, want.y, 900, tables[t]->name, what);
                        all_same(got.z, want.z, 900, tables[t]->name, what);
                    }
                }
}

/* What the header promises of each, against double arithmetic. */
static void test_row_meaning(void)
{
    enum { N = 100 };
    float x[N], y[N], z[N], c[N], s[N];
    for (int t = 0; t < n_tables; t++) {
        const lp_kernels *k = tables[t];
        fill(x, N, ORDINARY), fill(z, N, ORDINARY);
        double sum = 0, top = -HUGE_VAL;
        for (int i = 0; i < N; i++) sum += (double)x[i] * (double)x[i], top = fmax(top, (double)x[i]);
        CHECK_NEAR(k->sum_squares(x, N), sum, 1e-6 * sum); /* 7 additions in a chain, 4 folds: 11 * 2^-24 * sum */
        CHECK(k->sum_squares(x, 0) == 0 && k->exp_sum(x, 0, 0) == 0);
        CHECK((double)k->max(x, N) == top);
        CHECK(k->max(x, 0) == -INFINITY);
        for (int i = 0; i < N; i++) { /* a NaN anywhere is seen */
            memcpy(y, x, sizeof y);
            y[i] = i % 2 ? NAN : -NAN;
            CHECK(isnan(k->max(y, N)));
        }
        k->gelu_mul(y, x, z, N);
        for (int i = 0; i < N; i++) {
            double v = (double)x[i], g = 0.5 * v * (1 + tanh(sqrt(2 / acos(-1)) * (v + 0.044715 * v * v * v)));
            CHECK_NEAR(y[i], g * (double)z[i], 1e-6 * fabs((double)z[i]) * fmax(1, fabs(v)));
        }
        memcpy(y, x, sizeof y);
        for (int i = 0; i < N; i++) y[i] *= 40;
        k->softcap(y, N, 30);
        for (int i = 0; i < N; i++) {
            CHECK_NEAR(y[i], 30 * tanh((double)(x[i] * 40) / 30), 30 * 4e-7);
            CHECK(fabsf(y[i]) <= 30);
        }
        memcpy(y, x, sizeof y);
        float total = k->exp_sum(y, N, (float)top);
        double want = 0;
        for (int i = 0; i < N; i++) {
            CHECK_NEAR(y[i], exp((double)(x[i] - (float)top)), 1.2e-7);
            want += exp((double)(x[i] - (float)top));
        }
        CHECK_NEAR(total, want, 1e-6 * want);
        for (int i = 0; i < N / 2; i++) c[i] = cosf((float)i), s[i] = sinf((float)i);
        memcpy(y, x, sizeof y);
        k->rope(y, c, s, N / 2);
        for (int i = 0; i < N / 2; i++) {
            CHECK(y[i] == x[i] * c[i] - x[i + N / 2] * s[i]);
            CHECK(y[i + N / 2] == x[i + N / 2] * c[i] + x[i] * s[i]);
        }
    }
}

/* ---- exp and tanh -------------------------------------------------------------------------------------------- */

/* Distance from the true value in units of the last place of a float of that size. */
static double ulps(float got, double want)
{
    int e;
    frexp(fmax(fabs(want), 0x1p-126), &e);
    return fabs((double)got - want) / ldexp(1, e - 24);
}

static void test_exp_and_tanh(void)
{
    double worst_exp = 0, worst_tanh = 0;
    for (uint32_t u = 0; u < 0x7f800000u; u += 997) /* 2.1 million of each sign, all exponents */
        for (uint32_t sign = 0; sign < 2; sign++) {
            float x = from_bits(u | sign << 31);
            double e = exp((double)x), t = tanh((double)x);
            if (e < (double)FLT_MAX) worst_exp = fmax(worst_exp, ulps(lp_expf(x), e));
            worst_tanh = fmax(worst_tanh, ulps(lp_tanhf(x), t));
        }
    for (int i = -1100000; i <= 1100000; i++) { /* and evenly, where exponents are few */
        float x = (float)i * 1e-4f;
        double e = exp((double)x);
        if (e < (double)FLT_MAX) worst_exp = fmax(worst_exp, ulps(lp_expf(x), e));
        worst_tanh = fmax(worst_tanh, ulps(lp_tanhf(x), tanh((double)x)));
    }
    printf("exp: at most %.3f ulp, tanh: at most %.3f ulp\n", worst_exp, worst_tanh);
    CHECK(worst_exp <= 1);
    CHECK(worst_tanh <= 2);
    CHECK(lp_expf(0) == 1 && lp_expf(-0.0f) == 1);
    CHECK(lp_expf(INFINITY) == INFINITY && lp_expf(1000) == INFINITY && lp_expf(88.8f) == INFINITY);
    CHECK(lp_expf(-INFINITY) == 0 && lp_expf(-1000) == 0 && !signbit(lp_expf(-INFINITY)));
    CHECK(isnan(lp_expf(NAN)) && isnan(lp_tanhf(NAN)) && isnan(lp_tanhf(-NAN)));
    CHECK(lp_tanhf(INFINITY) == 1 && lp_tanhf(-INFINITY) == -1 && lp_tanhf(FLT_MAX) == 1);
    CHECK(to_bits(lp_tanhf(-0.0f)) == 0x80000000u && to_bits(lp_tanhf(0)) == 0);
    CHECK(lp_tanhf(0x1p-149f) == 0x1p-149f && lp_tanhf(-FLT_MIN) == -FLT_MIN);
    /* The scalar twins and the tables. */
    static float x[MOST], y[MOST];
    for (int t = 0; t < n_tables; t++)
        for (int kind = 0; kind < N_KINDS; kind++) {
            fill(x, MOST, kind);
            memcpy(y, x, sizeof y);
            tables[t]->softcap(y, MOST, 1);
            for (int i = 0; i < MOST; i++) CHECK(same(y[i], lp_tanhf(x[i])));
            memcpy(y, x, sizeof y);
            tables[t]->exp_sum(y, MOST, 0);
            for (int i = 0; i < MOST; i++) CHECK(same(y[i], lp_expf(x[i] - 0)));
        }
}

/* ---- tiles --------------------------------------------------------------------------------------------------- */

enum { X_MOST = 140 * LP_TILE + 8, W_MOST = 140 * LP_LANES + 8, LDY = 37, Y_MOST = LP_TILE * LDY + 2 * GUARD };

typedef struct tile_case {
    float x[X_MOST], w[W_MOST], y[Y_MOST];
    uint16_t xb[X_MOST], wb[W_MOST];
} tile_case;

static void run_tile(const lp_kernels *k, int which, const tile_case *c, float *y, int at, int kc, int rows, bool load)
{
    if (which == 0)
        k->tile_f32(c->x + at, c->w + at, y + GUARD + at, LDY, kc, rows, load);
    else if (which == 1)
        k->tile_bf16(c->x + at, c->wb + at, y + GUARD + at, LDY, kc, rows, load);
    else
        k->tile_fast(c->xb + at, c->wb + at, y + GUARD + at, LDY, kc, rows, load);
}

static void test_tiles(void)
{
    static const int lengths[] = {0, 1, 2, 3, 4, 7, 8, 31, 32, 64, 67, 130};
    static tile_case c;
    float want[Y_MOST], got[Y_MOST];
    for (int kind = 0; kind < N_KINDS; kind++)
        for (int which = 0; which < 3; which++)
            for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
                for (int rows = 1; rows <= LP_TILE; rows++)
                    for (int load = 0; load < 2; load++) {
                        int kc = lengths[l], at = (int)(l + (size_t)rows) % 8;
                        if (which > 0 && kc % 2) continue;
                        fill(c.x, X_MOST, kind), fill(c.w, W_MOST, kind);
                        fill(c.y, Y_MOST, kind == SMALL ? ANY : kind);
                        for (int i = 0; i < X_MOST; i++) c.xb[i] = random_bf16(kind);
                        for (int i = 0; i < W_MOST; i++) c.wb[i] = random_bf16(kind);
                        if (kind == SMALL) /* sums around 2^-126 */
                            for (int i = 0; i < Y_MOST; i++) c.y[i] = from_bits(random_bits() & 0x81ffffffu);
                        memcpy(want, c.y, sizeof want);
                        run_tile(lp_kernels_c(), which, &c, want, at, kc, rows, load);
                        for (int t = 1; t < n_tables; t++) {
                            char what[64];
                            snprintf(what, sizeof what, "tile %d, kind %d, kc %d, rows %d, load %d", which, kind, kc,
                                     rows, load);
                            memcpy(got, c.y, sizeof got);
                            run_tile(tables[t], which, &c, got, at, kc, rows, load);
                            all_same(got, want, Y_MOST, tables[t]->name, what);
                        }
                    }
}

/* Sums between 2^-126 - 2^-150 and 2^-126, where "below 2^-126" depends on how finely one looks: -m/16 * 2^-150 is added
 * to 2^-126.  Rounded to 24 bits, as VDPBF16PS does, the larger m are below and become 0; the subnormal grid would round
 * m up to 16 to 2^-126. */
static void test_edge_of_flushing(void)
{
    for (int t = 0; t < n_tables; t++)
        for (int m = 0; m <= 64; m++)
            for (int sign = -1; sign <= 1; sign += 2) {
                uint16_t x[2] = {lp_f32_to_bf16(0x1p-75f), 0}, w[64] = {0};
                float y[32];
                for (int i = 0; i < 32; i++) {
                    w[2 * i] = lp_f32_to_bf16((float)(-sign * m) * 0x1p-79f);
                    y[i] = (float)sign * FLT_MIN;
                }
                tables[t]->tile_fast(x, w, y, 32, 2, 1, true);
                float want = m <= 8 ? (float)sign * FLT_MIN : copysignf(0, (float)sign);
                for (int i = 0; i < 32; i++) CHECK(to_bits(y[i]) == to_bits(want));
            }
}

/* K in one go, or cut anywhere with the sums carried on in y: the same bits.  And the numbers are the right ones. */
static void test_tile_meaning(void)
{
    static tile_case c;
    float whole[Y_MOST] = {0}, cut[Y_MOST] = {0};
    enum { KC = 100, ROWS = 5 };
    fill(c.x, X_MOST, ORDINARY), fill(c.w, W_MOST, ORDINARY);
    for (int i = 0; i < W_MOST; i++) c.wb[i] = lp_f32_to_bf16(c.w[i]);
    for (int i = 0; i < X_MOST; i++) c.xb[i] = lp_f32_to_bf16(c.x[i]);
    for (int t = 0; t < n_tables; t++) {
        const lp_kernels *k = tables[t];
        for (int which = 0; which < 3; which++) {
            run_tile(k, which, &c, whole, 0, KC, ROWS, false);
            for (int at = 2; at < KC; at += 14) {
                run_tile(k, which, &c, cut, 0, at, ROWS, false);
                if (which == 0) k->tile_f32(c.x + at * ROWS, c.w + at * 32, cut + GUARD, LDY, KC - at, ROWS, true);
                if (which == 1) k->tile_bf16(c.x + at * ROWS, c.wb + at * 32, cut + GUARD, LDY, KC - at, ROWS, true);
                if (which == 2) k->tile_fast(c.xb + at * ROWS, c.wb + at * 32, cut + GUARD, LDY, KC - at, ROWS, true);
                CHECK_SAME(cut, whole, Y_MOST);
            }
            for (int r = 0; r < ROWS; r++)
                for (int lane = 0; lane < 32; lane++) {
                    double sum = 0, size = 0;
                    for (int i = 0; i < KC; i++) {
                        float w = which ? lp_bf16_to_f32(c.wb[i / 2 * 64 + 2 * lane + 1 - i % 2]) : c.w[i * 32 + lane];
                        float x = c.x[i * ROWS + r];
                        if (which == 2) x = lp_bf16_to_f32(c.xb[i / 2 * 2 * ROWS + 2 * r + 1 - i % 2]);
                        sum += (double)x * (double)w, size += fabs((double)x * (double)w);
                    }
                    /* KC roundings, each at most 2^-24 of a partial sum that is at most `size` */
                    CHECK_NEAR(whole[GUARD + r * LDY + lane], sum, KC * 0x1p-24 * size);
                }
        }
    }
}

/* ---- panels -------------------------------------------------------------------------------------------------- */

enum { K_PANEL = 512, N_PANEL = 6 };

/* Any bytes are a panel.  ORDINARY: the scales are made small and positive, floats ordinary. */
static void fill_panels(lp_panel f, uint8_t *p, size_t bytes, enum kind kind)
{
    for (size_t i = 0; i < bytes; i++) p[i] = (uint8_t)random_bits();
    if (f == LP_PANEL_F32)
        fill((float *)(void *)p, (int)(bytes / 4), kind);
    else if (f == LP_PANEL_BF16)
        for (size_t i = 0; i < bytes / 2; i++) ((uint16_t *)(void *)p)[i] = random_bf16(kind);
    else if (kind == ORDINARY)
        for (size_t g = 0; g < bytes; g += lp_panel_group_bytes(f))
            for (int i = 0; i < 64; i++) {
                uint16_t h = lp_f32_to_f16(0.01f + 1e-5f * (float)(random_bits() % 1000));
                float s = random_float(ORDINARY);
                if (f == LP_PANEL_F16) memcpy(p + g + 2 * i, &h, 2);
                if (f == LP_PANEL_Q4_K || (f == LP_PANEL_Q8_0 && i < 32)) memcpy(p + g + 2 * i, &h, 2);
                if (f == LP_PANEL_A16 || (f == LP_PANEL_S16 && i < 32)) memcpy(p + g + 4 * i, &s, 4);
            }
}

static int same_panel_words(const uint16_t *got, const uint16_t *want, int n)
{
    for (int i = 0; i < n; i++)
        if (got[i] != want[i] && !(isnan(lp_bf16_to_f32(got[i])) && isnan(lp_bf16_to_f32(want[i])))) return 0;
    return 1;
}

/* expand against C; a row against expand + tile; any split of the panels. */
static void test_panels(void)
{
    static float w[K_PANEL * 32 + 1], w2[K_PANEL * 32 + 1], x[K_PANEL], y[N_PANEL * 32 + 1], want[N_PANEL * 32 + 1];
    static uint16_t b[K_PANEL * 32 + 1], b2[K_PANEL * 32 + 1], xb[K_PANEL];
    const lp_kernels *c = lp_kernels_c();
    for (int f = 0; f < LP_N_PANELS; f++) {
        size_t panel_bytes = K_PANEL / lp_panel_group(f) * lp_panel_group_bytes(f);
        uint8_t *p = aligned_alloc(64, panel_bytes * N_PANEL);
        if (!p) abort();
        for (int kind = 0; kind < N_KINDS; kind++)
            for (int t = 0; t < n_tables; t++) {
                const lp_kernels *k = tables[t];
                char what[64];
                snprintf(what, sizeof what, "panel format %d, kind %d", f, kind);
                fill_panels(f, p, panel_bytes * N_PANEL, kind);
                fill(x, K_PANEL, kind);
                for (int i = 0; i < K_PANEL; i++) xb[i] = random_bf16(kind);
                for (int k0 = 0; k0 < K_PANEL; k0 += 256)
                    for (int kc = 256; k0 + kc <= K_PANEL; kc += 256) {
                        w[kc * 32] = w2[kc * 32] = 7, b[kc * 32] = b2[kc * 32] = 7;
                        c->expand_f32(f, p, k0, kc, w), k->expand_f32(f, p, k0, kc, w2);
                        all_same(w2, w, kc * 32 + 1, k->name, what);
                        c->expand_bf16(f, p, k0, kc, b), k->expand_bf16(f, p, k0, kc, b2);
                        CHECK(same_panel_words(b2, b, kc * 32 + 1));
                    }
                for (int n = 1; n <= N_PANEL; n++) {
                    for (int i = 0; i < n; i++) {
                        c->expand_f32(f, p + i * panel_bytes, 0, K_PANEL, w);
                        c->tile_f32(x, w, want + 32 * i, 32, K_PANEL, 1, false);
                    }
                    y[32 * n] = want[32 * n] = 7;
                    k->row_exact(f, x, p, panel_bytes, n, y, K_PANEL);
                    all_same(y, want, 32 * n + 1, k->name, what);
                    for (int i = 0; i < n; i++) {
                        c->expand_bf16(f, p + i * panel_bytes, 0, K_PANEL, b);
                        c->tile_fast(xb, b, want + 32 * i, 32, K_PANEL, 1, false);
                    }
                    k->row_fast(f, xb, p, panel_bytes, n, y, K_PANEL);
                    all_same(y, want, 32 * n + 1, k->name, what);
                }
            }
        free(p);
    }
}

/* ---- packing ------------------------------------------------------------------------------------------------- */

static void test_packing(void)
{
    enum { LDX = 90, ROOM = LP_TILE * 80 };
    static float x[LP_TILE * LDX + 8], out[ROOM];
    static uint16_t words[ROOM];
    for (int t = 0; t < n_tables; t++)
        for (int rows = 1; rows <= LP_TILE; rows++)
            for (int K = 1; K <= 67; K++) {
                int at = (rows + K) % 8, even = K + K % 2;
                fill(x, LP_TILE * LDX + 8, K % 2 ? ORDINARY : ANY);
                for (int i = 0; i < ROOM; i++) out[i] = 12345, words[i] = 12345;
                tables[t]->pack_exact(x + at, LDX, rows, K, out);
                tables[t]->pack_fast(x + at, LDX, rows, K, words);
                int wrong = 0;
                for (int k = 0; k < even; k++)
                    for (int r = 0; r < rows; r++) {
                        float v = k < K ? x[at + r * LDX + k] : 0, small = fabsf(v) < FLT_MIN ? copysignf(0, v) : v;
                        float got = out[(k / 2 * 2 + 1 - k % 2) * rows + r];
                        uint16_t word = words[k / 2 * 2 * rows + 2 * r + k % 2];
                        wrong += to_bits(got) != to_bits(v);
                        wrong += word != lp_f32_to_bf16(small);
                    }
                for (int i = even * rows; i < ROOM; i++) wrong += out[i] != 12345 || words[i] != 12345;
                CHECK(wrong == 0);
            }
}

/* ---- the ladder ---------------------------------------------------------------------------------------------- */

static void test_tables(void)
{
    CHECK(n_tables >= 1 && tables[0] == lp_kernels_c());
    CHECK(lp_kernels_best() == tables[n_tables - 1]);
    CHECK(lp_kernels_named("c") == lp_kernels_c() && !lp_kernels_named("") && !lp_kernels_named("sse9"));
    for (int t = 0; t < n_tables; t++) {
        static float memory[1 << 16];
        const lp_kernels *k = tables[t];
        CHECK(lp_kernels_named(k->name) == k);
        CHECK(lp_peak_fma(NULL, k) > 1e6 && lp_peak_dp(NULL, k) > 1e6);
        CHECK(lp_raw_read(NULL, k, memory, sizeof memory) > 1e6);
        CHECK(k->read(memory, sizeof memory) == 0);
        memory[12345] = 1; /* reading means all of it */
        CHECK(k->read(memory, sizeof memory) != 0);
        memory[12345] = 0;
    }
}

int main(void)
{
    tables = lp_kernels_all(&n_tables);
    for (int t = 0; t < n_tables; t++) printf("%s ", tables[t]->name);
    test_tables();
    test_exp_and_tanh();
    test_rows();
    test_row_meaning();
    test_tiles();
    test_edge_of_flushing();
    test_tile_meaning();
    test_panels();
    test_packing();
    return check_done();
}
