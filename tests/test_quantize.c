/* Blocks written are read back to within a step, whatever is in them.  With arguments (TYPE IN OUT) it packs a file of
 * f32, for tests/goldens/check_quantize.py. */
#include "core/quantize.h"

#include "tests/check.h"

#include <stdlib.h>

enum { N = 256 * 64 };

static const lp_dtype blocks[] = {LP_Q8_0, LP_Q4_0, LP_Q4_1, LP_Q5_0, LP_Q5_1,
                                  LP_Q2_K, LP_Q3_K, LP_Q4_K, LP_Q5_K, LP_Q6_K};

static uint32_t next(uint32_t *s)
{
    return *s = *s * 1664525u + 1013904223u;
}

static void fill(float *x, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (int k = 0; k < 6; k++) sum += next(&seed) / 4294967296.0 - 0.5;
        x[i] = (float)(sum * 0.03 * (1 + 3 * (i / 16 % 5 == 0))); /* sub-blocks of different size */
    }
}

static bool there_and_back(lp_dtype t, const float *x, float *y, size_t n)
{
    uint64_t bytes = 0;
    if (!lp_dtype_bytes(t, n, &bytes)) return false;
    uint8_t *packed = malloc((size_t)bytes + 8);
    if (!packed) return false;
    memset(packed + bytes, 0xA5, 8);
    bool ok = lp_quantize(t, x, packed, n);
    for (int i = 0; i < 8; i++) ok &= packed[bytes + (size_t)i] == 0xA5;
    if (ok) lp_to_f32(t, packed, y, n);
    free(packed);
    return ok;
}

/* Levels of a type's q, and values that share a scale. */
static void grain(lp_dtype t, int *levels, int *sub)
{
    *sub = t == LP_Q2_K || t == LP_Q3_K || t == LP_Q6_K ? 16 : 32;
    switch (t) {
    case LP_Q8_0:
        *levels = 254;
        break;
    case LP_Q5_0:
    case LP_Q5_1:
    case LP_Q5_K:
        *levels = 31;
        break;
    case LP_Q6_K:
        *levels = 63;
        break;
    case LP_Q3_K:
        *levels = 7;
        break;
    case LP_Q2_K:
        *levels = 3;
        break;
    default:
        *levels = 15;
    }
}

/* A step is twice the largest magnitude over the levels.  Half a step is lost to rounding q; the rest of one and a
 * half is for scales and floors that are themselves small integers, and for the end of the range that q lacks.
 * On average an error is even over a step: 2 crest / (levels sqrt(12)) of the signal, whose crest is at most 2.75. */
static void test_every_type_comes_back(void)
{
    static float x[N], y[N];
    fill(x, N, 1);
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++) {
        int levels, sub;
        double error = 0, power = 0;
        grain(blocks[b], &levels, &sub);
        CHECK(there_and_back(blocks[b], x, y, N));
        for (int i = 0; i < N; i += 256) { /* K types: scales are rounded relative to the largest of the block */
            float largest = 0;
            for (int j = i; j < i + 256; j++) largest = fmaxf(largest, fabsf(x[j]));
            double step = 2.0 * (double)largest / levels, worst = 0;
            for (int j = i; j < i + 256; j++) {
                worst = fmax(worst, fabs((double)x[j] - (double)y[j]));
                error += ((double)x[j] - (double)y[j]) * ((double)x[j] - (double)y[j]);
                power += (double)x[j] * (double)x[j];
            }
            CHECK(worst <= 1.5 * step);
        }
        double relative = sqrt(error / power), bound = 1.6 / levels;
        if (!(relative <= bound)) fprintf(stderr, "%s: %g against %g\n", lp_dtype_name(blocks[b]), relative, bound);
        CHECK(relative <= bound);
    }
}

static void test_odd_blocks(void)
{
    float x[256], y[256];
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++) {
        memset(x, 0, sizeof x);
        CHECK(there_and_back(blocks[b], x, y, 256));
        for (int i = 0; i < 256; i++) CHECK(y[i] == 0);
        for (int sign = -1; sign <= 1; sign += 2) { /* constant blocks: K floors cannot lie above zero */
            for (int i = 0; i < 256; i++) x[i] = (float)sign * 0.75f;
            CHECK(there_and_back(blocks[b], x, y, 256));
            for (int i = 0; i < 256; i++) CHECK_NEAR(y[i], x[i], 0.75 * 0.04);
        }
        for (int i = 0; i < 256; i++) x[i] = i == 77 ? 1000 : 0.001f; /* one giant: nobody else turns into one */
        CHECK(there_and_back(blocks[b], x, y, 256));
        CHECK_NEAR(y[77], 1000, 1000 * 0.04);
        CHECK(fabsf(y[200]) < 1);
        x[3] = NAN;
        x[40] = INFINITY;
        CHECK(there_and_back(blocks[b], x, y, 256) || blocks[b] == LP_Q8_0); /* garbage in: no crash, no trap */
    }
    CHECK(!lp_quantize(LP_Q4_K, x, y, 32));
    CHECK(!lp_quantize(LP_OTHER, x, y, 32));
}

static int pack(const char *type, const char *in, const char *out)
{
    lp_dtype t;
    char *src = NULL;
    size_t bytes = 0;
    uint64_t packed = 0;
    if (!lp_dtype_parse(type, &t) || lp_read_file(&src, &bytes, in, 1 << 30, NULL) < 0 ||
        !lp_dtype_bytes(t, bytes / 4, &packed))
        return 1;
    char *dst = malloc((size_t)packed);
    FILE *f = fopen(out, "wb");
    float *x = malloc(bytes);
    if (x) memcpy(x, src, bytes);
    int bad = !x || !dst || !f || !lp_quantize(t, x, dst, bytes / 4) || fwrite(dst, 1, packed, f) != packed;
    if (f && fclose(f) != 0) bad = 1;
    free(x);
    free(dst);
    free(src);
    return bad;
}

int main(int argc, char **argv)
{
    if (argc == 4) return pack(argv[1], argv[2], argv[3]);
    test_every_type_comes_back();
    test_odd_blocks();
    return check_done();
}
