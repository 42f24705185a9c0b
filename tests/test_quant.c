/* Every block type against the gguf package, bit for bit (tests/goldens/make_quant_goldens.py made the file).  Only NaN
 * is compared as NaN: which payload and sign an operation on NaN or infinities yields is the CPU's choice. */
#include "core/quant.h"

#include "tests/check.h"

#include <stdlib.h>

static bool same_float(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b));
}

/* 16-bit floats: NaN is any NaN; anything else must be equal. */
static bool same_half(lp_dtype t, const uint8_t *a, const uint8_t *b)
{
    float x, y;
    lp_to_f32(t, a, &x, 1);
    lp_to_f32(t, b, &y, 1);
    return memcmp(a, b, 2) == 0 || (isnan(x) && isnan(y));
}

static size_t check_unpack(lp_dtype t, const uint8_t *packed, const float *want, size_t n)
{
    float *got = calloc(n, sizeof *got);
    size_t bad = 0;
    if (!got) return n;
    lp_to_f32(t, packed, got, n);
    for (size_t i = 0; i < n; i++) {
        if (same_float(got[i], want[i])) continue;
        if (!bad++)
            fprintf(stderr, "%s: element %zu: got %.9g, want %.9g\n", lp_dtype_name(t), i, (double)got[i],
                    (double)want[i]);
    }
    free(got);
    return bad;
}

static size_t check_pack(lp_dtype t, const uint8_t *want, const float *x, size_t n, size_t bytes)
{
    uint8_t *got = calloc(bytes, 1);
    size_t bad = 0;
    if (!got || !lp_from_f32(t, x, got, n)) bad = n;
    size_t unit = t == LP_Q8_0 ? 34 : 2;
    for (size_t i = 0; i < bytes && !bad; i += unit) {
        if (t == LP_Q8_0 ? memcmp(got + i, want + i, unit) == 0 : same_half(t, got + i, want + i)) continue;
        bad++;
        fprintf(stderr, "%s: block at byte %zu differs\n", lp_dtype_name(t), i);
    }
    free(got);
    return bad;
}

static void test_golden(const char *path)
{
    char *file = NULL;
    size_t size = 0, at = 0, seen[2][LP_N_DTYPES] = {{0}};
    lp_error err = {0};
    lp_read_file(&file, &size, path, 1 << 30, &err);
    CHECK_STR(err.text, "");
    while (file && at < size) {
        uint32_t n[3];
        lp_dtype t = LP_OTHER;
        CHECK(size - at >= 20 && lp_dtype_parse(file + at, &t));
        memcpy(n, file + at + 8, sizeof n);
        at += 20;
        uint64_t bytes = 0;
        CHECK(n[0] < 2 && n[1] > 0 && lp_dtype_bytes(t, n[1], &bytes) && bytes == n[2]);
        if (bytes != n[2] || size - at < n[2] + 4ull * n[1]) break;
        /* One byte off, so that nothing counts on alignment; values copied out for the same reason. */
        uint8_t *packed = malloc(n[2] + 1);
        float *values = malloc(4ull * n[1]);
        if (packed && values) {
            memcpy(packed + 1, file + at, n[2]);
            memcpy(values, file + at + n[2], 4ull * n[1]);
            CHECK((n[0] ? check_pack(t, packed + 1, values, n[1], n[2]) : check_unpack(t, packed + 1, values, n[1])) ==
                  0);
            seen[n[0]][t]++;
        }
        free(packed);
        free(values);
        at += n[2] + 4ull * n[1];
    }
    CHECK(file && at == size);
    for (int t = LP_F16; t < LP_OTHER; t++) CHECK(seen[0][t] == 1);
    CHECK(seen[1][LP_F16] == 1 && seen[1][LP_BF16] == 1 && seen[1][LP_Q8_0] == 1);
    free(file);
}

/* All 65536 halves there and back; and between each two neighbours the tie goes to the even one. */
static void test_f16_rounding(void)
{
    int bad = 0;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = lp_f16_to_f32((uint16_t)h);
        if (isnan(f) ? (h & 0x7fff) <= 0x7c00 : lp_f32_to_f16(f) != h) bad++;
    }
    CHECK(bad == 0);
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float lo = lp_f16_to_f32((uint16_t)h), hi = lp_f16_to_f32((uint16_t)(h + 1)), mid = lo + (hi - lo) / 2;
        uint16_t even = (uint16_t)(h & 1 ? h + 1 : h);
        if (lp_f32_to_f16(mid) != even || lp_f32_to_f16(-mid) != (even | 0x8000)) bad++;
        if (lp_f32_to_f16(nextafterf(mid, 0)) != h || lp_f32_to_f16(nextafterf(mid, INFINITY)) != h + 1) bad++;
    }
    CHECK(bad == 0);
    CHECK(lp_f32_to_f16(65519.996f) == 0x7bff && lp_f32_to_f16(65520.0f) == 0x7c00);
    CHECK(lp_f32_to_f16(-INFINITY) == 0xfc00 && isnan(lp_f16_to_f32(lp_f32_to_f16(NAN))));
    CHECK(lp_f32_to_f16(0x1p-25f) == 0 && lp_f32_to_f16(0x1.000002p-25f) == 1);
    CHECK(lp_f32_to_f16(1e-40f) == 0 && lp_f32_to_f16(3e38f) == 0x7c00);
}

static void test_bf16_rounding(void)
{
    CHECK(lp_f32_to_bf16(1.0f) == 0x3f80 && lp_f32_to_bf16(-0.0f) == 0x8000);
    CHECK(lp_f32_to_bf16(0x1.01p0f) == 0x3f80 && lp_f32_to_bf16(0x1.03p0f) == 0x3f82); /* ties to even */
    CHECK(lp_f32_to_bf16(0x1.010002p0f) == 0x3f81);
    CHECK(lp_f32_to_bf16(0x1.fffffep127f) == 0x7f80 && lp_f32_to_bf16(INFINITY) == 0x7f80);
    union {
        uint32_t u;
        float f;
    } nan = {0x7f800001}; /* its payload sits wholly in the bits that go */
    CHECK(isnan(lp_bf16_to_f32(lp_f32_to_bf16(nan.f))));
}

static void test_sizes(void)
{
    uint64_t bytes = 0;
    lp_dtype t;
    for (int i = 0; i < LP_OTHER; i++) {
        CHECK(lp_dtype_parse(lp_dtype_name((lp_dtype)i), &t) && t == (lp_dtype)i);
        CHECK(lp_dtype_bytes((lp_dtype)i, 0, &bytes) && bytes == 0);
    }
    CHECK(!lp_dtype_parse("OTHER", &t) && !lp_dtype_parse("", &t) && !lp_dtype_parse("q4_k", &t));
    CHECK(lp_dtype_bytes(LP_Q4_K, 512, &bytes) && bytes == 288);
    CHECK(!lp_dtype_bytes(LP_Q4_K, 500, &bytes) && !lp_dtype_bytes(LP_OTHER, 1, &bytes));
    CHECK(!lp_dtype_bytes(LP_F32, UINT64_MAX / 2, &bytes));
    float x[32] = {0}, y[32];
    uint8_t b[34];
    x[3] = INFINITY;
    CHECK(!lp_from_f32(LP_Q8_0, x, b, 32));
    x[3] = 1e7f; /* d would not be finite */
    CHECK(!lp_from_f32(LP_Q8_0, x, b, 32));
    x[3] = 1e-44f; /* 1/d would not be */
    CHECK(lp_from_f32(LP_Q8_0, x, b, 32));
    lp_to_f32(LP_Q8_0, b, y, 32);
    CHECK(y[3] == 0);
    CHECK(lp_from_f32(LP_F32, x, y, 32) && CHECK_SAME(y, x, 32));
    memset(y, 0xff, sizeof y);
    lp_to_f32(LP_F32, x, y, 32);
    CHECK_SAME(y, x, 32);
    CHECK(!lp_from_f32(LP_Q8_0, x, b, 31) && !lp_from_f32(LP_Q4_K, x, b, 256) && !lp_from_f32(LP_OTHER, x, b, 1));
}

int main(int argc, char **argv)
{
    test_golden(argc > 1 ? argv[1] : LP_TESTS_DIR "/goldens/quant.bin");
    test_f16_rounding();
    test_bf16_rounding();
    test_sizes();
    return check_done();
}
