/* Products over packed weights: the same bits for any n, thread count and table; the same bits as over the dequantised
 * weights; and the right numbers.
 *
 * The reference for a stored type is a matrix of plain F32 made with lp_to_f32, which other people's code pins
 * (test_quant).  The reference for F32 is a double-precision dot product with a bound.
 */
#include "core/bench.h"
#include "core/matmul.h"
#include "core/panels.h"
#include "core/quant.h"

#include "tests/check.h"

#include <stdlib.h>
#include <unistd.h>

enum { MOST_ROWS = 100 };

static const lp_kernels *const *tables;
static int n_tables;
static lp_pool *pools[3]; /* 1, 2, 7 threads */

static uint64_t state = 88172645463325252u;

static uint32_t random_bits(void)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 16);
}

static float random_float(void)
{
    return (float)(int32_t)random_bits() * 0x1p-31f;
}

static void *need(void *p)
{
    if (!p) abort();
    return p;
}

/* A stored matrix of random content.  Block types: random bytes, with scales of a sane size. */
static uint8_t *random_stored(lp_dtype t, int rows, int cols)
{
    static const struct {
        lp_dtype type;
        int at[2], n;
    } scales[] = {
        {LP_Q8_0, {0}, 1},      {LP_Q4_0, {0}, 1},   {LP_Q4_1, {0, 2}, 2}, {LP_Q5_0, {0}, 1},    {LP_Q5_1, {0, 2}, 2},
        {LP_Q2_K, {80, 82}, 2}, {LP_Q3_K, {108}, 1}, {LP_Q4_K, {0, 2}, 2}, {LP_Q5_K, {0, 2}, 2}, {LP_Q6_K, {208}, 1},
    };
    size_t n = (size_t)rows * (size_t)cols;
    uint64_t bytes;
    if (!lp_dtype_bytes(t, n, &bytes)) abort();
    uint8_t *p = need(malloc(bytes));
    for (size_t i = 0; i < bytes; i++) p[i] = (uint8_t)random_bits();
    if (t == LP_F32 || t == LP_F16 || t == LP_BF16) {
        float *x = need(malloc(n * sizeof *x));
        for (size_t i = 0; i < n; i++) x[i] = random_float() * (random_bits() % 50 ? 0.1f : 20.0f);
        lp_from_f32(t, x, p, n);
        free(x);
    }
    for (size_t s = 0; s < sizeof scales / sizeof *scales; s++)
        for (size_t b = 0; scales[s].type == t && b < bytes; b += (size_t)lp_dtype_block_bytes(t))
            for (int i = 0; i < scales[s].n; i++) {
                uint16_t h = lp_f32_to_f16(random_float() * 0.02f);
                memcpy(p + b + scales[s].at[i], &h, 2);
            }
    return p;
}

static lp_matrix packed(lp_dtype t, const void *src, int rows, int cols, lp_pool *pool)
{
    lp_matrix m;
    lp_error err = {0};
    CHECK(lp_matrix_plan(&m, rows, cols, t, &err) == LP_OK);
    m.data = need(aligned_alloc(64, m.bytes));
    memset(m.data, 0xff, m.bytes); /* packing must not rely on zeros */
    CHECK(lp_matrix_pack(&m, src, &(lp_env){.pool = pool}, &err) == LP_OK);
    return m;
}

static lp_matmul_scratch *scratch(int rows, int cols, lp_pool *pool)
{
    lp_matmul_scratch *s = NULL;
    CHECK(lp_matmul_scratch_new(&s, rows, cols, lp_pool_threads(pool), NULL) == LP_OK);
    return need(s);
}

static void product(float *y, const lp_matrix *w, const float *x, int n, lp_arithmetic a, lp_pool *pool,
                    const lp_kernels *k)
{
    lp_matmul_scratch *s = scratch(n, w->cols, pool);
    lp_matmul(&y, &w, 1, x, n, a, s, &(lp_env){.pool = pool, .kernels = k});
    lp_matmul_scratch_free(s);
}

/* ---- the same bits however it is done -------------------------------------------------------------------------- */

static void test_any_schedule(lp_dtype t, int rows, int cols, lp_arithmetic a)
{
    static const int waves[] = {1, 2, 5, 12, 13, 24, 25, 37, 100};
    uint8_t *src = random_stored(t, rows, cols);
    lp_matrix w = packed(t, src, rows, cols, pools[1]);
    size_t room = (size_t)MOST_ROWS * (size_t)rows;
    float *x = need(malloc(sizeof *x * MOST_ROWS * (size_t)cols));
    float *one = need(malloc(sizeof *one * room)), *y = need(malloc(sizeof *y * (room + 1)));
    for (int i = 0; i < MOST_ROWS * cols; i++) x[i] = random_float() * (i % 97 ? 1 : 100);
    for (int r = 0; r < MOST_ROWS; r++) /* a row at a time, best table, alone */
        product(one + (size_t)r * rows, &w, x + (size_t)r * cols, 1, a, NULL, NULL);
    for (int p = 0; p < 3; p++)
        for (int i = 0; i < 9; i++) {
            int n = waves[i], first = (MOST_ROWS - n) / 3;
            memset(y, 0xff, sizeof *y * (room + 1));
            product(y, &w, x + (size_t)first * cols, n, a, pools[p], NULL);
            CHECK_SAME(y, one + (size_t)first * rows, (size_t)n * rows);
            CHECK(isnan(y[(size_t)n * rows])); /* nothing written behind */
        }
    for (int k = 0; k < n_tables; k++)
        for (int i = 0; i < 6; i++) {
            int n = waves[i];
            if (k == 0 && n > 13) continue; /* plain C is slow */
            product(y, &w, x, n, a, pools[k % 3], tables[k]);
            CHECK_SAME(y, one, (size_t)n * rows);
        }
    free(src), free(w.data), free(x), free(one), free(y);
}

/* ---- the right numbers ----------------------------------------------------------------------------------------- */

/* Over the stored type == over its dequantised values; both near the double-precision sum. */
static void test_values(lp_dtype t, int rows, int cols)
{
    enum { N = 14 };
    uint8_t *src = random_stored(t, rows, cols);
    size_t n = (size_t)rows * (size_t)cols;
    float *plain = need(malloc(sizeof *plain * n)), *row = need(malloc(sizeof *row * (size_t)cols));
    float *x = need(malloc(sizeof *x * N * (size_t)cols));
    float *y = need(malloc(sizeof *y * N * (size_t)rows)), *z = need(malloc(sizeof *z * N * (size_t)rows));
    lp_to_f32(t, src, plain, n);
    for (int i = 0; i < N * cols; i++) x[i] = random_float();
    lp_matrix w = packed(t, src, rows, cols, pools[2]), f = packed(LP_F32, plain, rows, cols, NULL);
    CHECK(w.n_nonfinite == 0 && f.n_nonfinite == 0);
    for (int k = 0; k < n_tables; k++)
        for (int r = 0; r < rows; r += k ? 1 : 17) {
            lp_matrix_row(&w, r, row, tables[k]);
            CHECK_SAME(row, plain + (size_t)r * cols, (size_t)cols);
        }
    int first = rows > 7 ? 5 : 0, some = rows - first - (rows > 7); /* begins and ends inside a panel */
    float *several = need(malloc(sizeof *several * n));
    for (int k = 0; k < n_tables; k++) {
        lp_matrix_rows(&w, first, some, several, tables[k]);
        CHECK_SAME(several, plain + (size_t)first * cols, (size_t)some * cols);
    }
    free(several);
    for (int a = 0; a < 2; a++)
        for (int wave = 1; wave <= N; wave += N - 1) {
            product(y, &w, x, wave, a ? LP_FAST : LP_EXACT, pools[1], NULL);
            product(z, &f, x, wave, a ? LP_FAST : LP_EXACT, pools[1], NULL);
            CHECK_SAME(y, z, (size_t)wave * rows);
            for (int i = 0; i < wave; i += 5)
                for (int r = 0; r < rows; r++) {
                    double sum = 0, size = 0;
                    for (int c = 0; c < cols; c++) {
                        float v = plain[(size_t)r * cols + c], u = x[(size_t)i * cols + c];
                        if (a) v = lp_bf16_to_f32(lp_f32_to_bf16(v)), u = lp_bf16_to_f32(lp_f32_to_bf16(u));
                        sum += (double)u * (double)v, size += fabs((double)u * (double)v);
                    }
                    /* cols roundings of partial sums no larger than `size` */
                    CHECK_NEAR(z[(size_t)i * rows + r], sum, cols * 0x1p-24 * size);
                }
        }
    free(src), free(plain), free(row), free(x), free(y), free(z), free(w.data), free(f.data);
}

/* On inputs that are bf16 already the two arithmetics are one. */
static void test_fast_is_exact_on_bf16(void)
{
    enum { ROWS = 70, COLS = 3000, N = 3 };
    uint8_t *src = random_stored(LP_BF16, ROWS, COLS);
    lp_matrix w = packed(LP_BF16, src, ROWS, COLS, NULL);
    float *x = need(malloc(sizeof *x * N * COLS)), y[N * ROWS], z[N * ROWS];
    for (int i = 0; i < N * COLS; i++) x[i] = lp_bf16_to_f32(lp_f32_to_bf16(random_float()));
    for (int k = 0; k < n_tables; k++) {
        product(y, &w, x, N, LP_EXACT, pools[0], tables[k]);
        product(z, &w, x, N, LP_FAST, pools[0], tables[k]);
        CHECK_SAME(y, z, N * ROWS);
    }
    free(src), free(x), free(w.data);
}

/* Three matrices in one call: what three calls give. */
static void test_several(void)
{
    enum { COLS = 768, N = 30 };
    static const int rows[3] = {100, 32, 333};
    static const lp_dtype types[3] = {LP_Q4_K, LP_Q6_K, LP_BF16};
    uint8_t *src[3];
    lp_matrix w[3];
    const lp_matrix *all[3];
    float *x = need(malloc(sizeof *x * N * COLS)), *y[3], *z[3];
    for (int i = 0; i < N * COLS; i++) x[i] = random_float();
    for (int i = 0; i < 3; i++) {
        src[i] = random_stored(types[i], rows[i], COLS);
        w[i] = packed(types[i], src[i], rows[i], COLS, pools[1]);
        all[i] = &w[i];
        y[i] = need(malloc(sizeof(float) * N * (size_t)rows[i]));
        z[i] = need(malloc(sizeof(float) * N * (size_t)rows[i]));
    }
    for (int p = 0; p < 3; p++)
        for (int a = 0; a < 2; a++)
            for (int n = 1; n <= N; n += N - 1) {
                lp_matmul_scratch *s = scratch(N, COLS + 5, pools[p]);
                lp_matmul(y, all, 3, x, n, a ? LP_FAST : LP_EXACT, s, &(lp_env){.pool = pools[p]});
                lp_matmul_scratch_free(s);
                for (int i = 0; i < 3; i++) {
                    product(z[i], &w[i], x, n, a ? LP_FAST : LP_EXACT, NULL, NULL);
                    CHECK_SAME(y[i], z[i], (size_t)n * (size_t)rows[i]);
                }
            }
    for (int i = 0; i < 3; i++) free(src[i]), free(w[i].data), free(y[i]), free(z[i]);
    free(x);
}

/* ---- planning and loading -------------------------------------------------------------------------------------- */

static void test_plan(void)
{
    lp_matrix m;
    lp_error err;
    CHECK(lp_matrix_plan(&m, 256, 256, LP_OTHER, &err) == LP_E_UNSUPPORTED);
    CHECK(lp_matrix_plan(&m, 10, 100, LP_Q8_0, &err) == LP_E_SHAPE);
    CHECK(lp_matrix_plan(&m, 10, 32, LP_Q6_K, &err) == LP_E_SHAPE);
    CHECK(lp_matrix_plan(&m, 0, 32, LP_F32, &err) == LP_E_SHAPE);
    CHECK(lp_matrix_plan(&m, 10, -32, LP_F32, &err) == LP_E_SHAPE);
    CHECK(lp_matrix_plan(&m, 33, 7, LP_F32, NULL) == LP_OK && m.bytes == 2 * 8 * 32 * 4 && !m.data);
    for (int t = 0; t < LP_OTHER; t++) {
        CHECK(lp_matrix_plan(&m, 96, 512, t, &err) == LP_OK);
        CHECK(m.rows == 96 && m.cols == 512 && m.stored == (lp_dtype)t && m.n_nonfinite == 0);
        CHECK(m.panel_bytes % 64 == 0 && m.bytes == 3 * m.panel_bytes);
    }
    CHECK(lp_matrix_plan(&m, 96, 512, LP_BF16, NULL) == LP_OK && m.bytes == 96 * 512 * 2); /* no fat on the big ones */
    CHECK(lp_matrix_plan(&m, 96, 512, LP_Q8_0, NULL) == LP_OK && m.bytes == 96 * 512 / 32 * 34);
    CHECK(lp_matrix_plan(&m, 96, 512, LP_Q4_K, NULL) == LP_OK && m.bytes == 96 * 512 / 256 * 144);
}

static void test_nonfinite(void)
{
    float f[4 * 64] = {0}, bad[] = {NAN, INFINITY, -INFINITY};
    uint16_t h[4 * 64] = {0};
    for (int i = 0; i < 3; i++) f[i * 70 + 5] = bad[i];
    lp_matrix m = packed(LP_F32, f, 4, 64, pools[1]);
    CHECK(m.n_nonfinite == 3);
    free(m.data);
    for (int t = LP_F16; t <= LP_BF16; t++) {
        lp_from_f32(t, f, h, 4 * 64);
        m = packed(t, h, 4, 64, pools[1]);
        CHECK(m.n_nonfinite == 3);
        free(m.data);
    }
    for (int t = LP_Q8_0; t < LP_OTHER; t++) { /* the first f16 field of a block */
        uint8_t *src = random_stored(t, 3, 512);
        int at = t == LP_Q2_K ? 80 : t == LP_Q3_K ? 108 : t == LP_Q6_K ? 208 : 0;
        memcpy(src + lp_dtype_block_bytes(t) + at, &(uint16_t){0x7c00}, 2);
        m = packed(t, src, 3, 512, NULL);
        CHECK(m.n_nonfinite == 1);
        free(src), free(m.data);
    }
}

typedef struct watch {
    int64_t last, of;
    int calls, wrong;
} watch;

static void on_progress(void *user, const char *what, int64_t done, int64_t of)
{
    watch *w = user;
    w->wrong += strcmp(what, "blk.weight") != 0 || done < w->last || done > of;
    w->calls++, w->last = done, w->of = of;
}

/* A tensor in a file, at an odd offset: what packing from memory gives.  And everything that can go wrong. */
static void test_load(lp_dtype t)
{
    enum { ROWS = 1000, COLS = 512, AT = 77 };
    char path[] = "/tmp/lp_matmul_XXXXXX", name[] = "blk.weight";
    uint8_t *src = random_stored(t, ROWS, COLS);
    uint64_t bytes = 0;
    lp_dtype_bytes(t, ROWS * COLS, &bytes);
    int fd = mkstemp(path);
    CHECK(fd >= 0 && pwrite(fd, src, bytes, AT) == (ssize_t)bytes);
    lp_file file;
    lp_error err = {0};
    CHECK(lp_file_open(&file, path, &err) == LP_OK);
    lp_tensor x = {.name = name, .type = t, .n_dims = 2, .shape = {ROWS, COLS}, .at = AT, .bytes = bytes};
    lp_tensors list = {.files = &file, .n_files = 1, .items = &x, .n = 1};
    lp_matrix want = packed(t, src, ROWS, COLS, NULL), got = want;
    for (int p = 0; p < 3; p++) {
        watch w = {0};
        atomic_bool cancel = false;
        lp_env env = {.pool = pools[p], .cancel = &cancel, .progress = on_progress, .user = &w};
        got.data = need(aligned_alloc(64, got.bytes));
        CHECK(lp_matrix_load(&got, &list, &x, &env, &err) == LP_OK);
        CHECK(memcmp(got.data, want.data, want.bytes) == 0);
        CHECK(w.wrong == 0 && (p > 0 || w.calls == 32));
        atomic_store(&cancel, true);
        CHECK(lp_matrix_load(&got, &list, &x, &env, &err) == LP_CANCELLED);
        atomic_store(&cancel, false);
        lp_tensor wrong = x;
        wrong.bytes -= 2;
        CHECK(lp_matrix_load(&got, &list, &wrong, &env, &err) == LP_E_SHAPE);
        CHECK(ftruncate(fd, AT + (off_t)bytes - 1) == 0); /* the file shrinks while we read */
        err.text[0] = 0;
        CHECK(lp_matrix_load(&got, &list, &x, &env, &err) < 0 && strstr(err.text, path));
        CHECK(pwrite(fd, src, bytes, AT) == (ssize_t)bytes);
        free(got.data);
    }
    lp_file_close(&file);
    close(fd);
    unlink(path);
    free(src), free(want.data);
}

static void test_scratch(void)
{
    lp_matmul_scratch *s = NULL;
    lp_error err = {0};
    CHECK(lp_matmul_scratch_new(&s, 2000000000, 2000000000, 256, &err) == LP_E_MEMORY && !s && err.text[0]);
    lp_matmul_scratch_free(NULL);
}

int main(void)
{
    tables = lp_kernels_all(&n_tables);
    for (int i = 0; i < 3; i++) CHECK(lp_pool_new(&pools[i], (int[]){1, 2, 7}[i], NULL) == LP_OK);
    test_plan();
    test_scratch();
    test_nonfinite();
    for (int a = 0; a < 2; a++) {
        lp_arithmetic how = a ? LP_FAST : LP_EXACT;
        test_any_schedule(LP_BF16, 300, 1500, how); /* an edge panel, K blocks that do not divide */
        test_any_schedule(LP_F32, 33, 1101, how);   /* odd K */
        test_any_schedule(LP_BF16, 1, 1, how);
        test_any_schedule(LP_BF16, 95, 2049, how);
        test_any_schedule(LP_F16, 64, 515, how);
        for (int t = LP_Q8_0; t < LP_OTHER; t++) test_any_schedule(t, 70, 1280, how);
    }
    for (int t = 0; t < LP_OTHER; t++) test_values(t, 100, t < LP_Q8_0 ? 1333 : 1280);
    test_fast_is_exact_on_bf16();
    test_several();
    test_load(LP_BF16);
    test_load(LP_Q4_K);
    test_load(LP_F32);
    for (int i = 0; i < 3; i++) lp_pool_free(pools[i]);
    return check_done();
}
