/* panels.c - stored tensors into panels of 32 rows (lp_matrix_plan, _load, _pack) and single rows back out.
 *
 * Every panel format holds the checkpoint's values without loss: the weight a kernel uses is bit for bit the f32 that
 * lp_to_f32 gives.  Why, for the block types:
 *
 *     Q8_0                 kept as it is, 32 rows side by side.
 *     Q4_0, Q5_0           d * (q - 8), d * (q - 16): a Q8_0 block with the same d.
 *     Q6_K, Q3_K           (d * sc) * q: d * sc is exact in f32 (11 + 7 bits), one f32 scale per 16 columns.     S16
 *     Q2_K, Q5_K           (d * sc) * q - dmin * mn: (d * sc) * q is exact (11 + 6 + 5 bits), so ggml's
 *                          subtraction is the only rounding, and fma(scale, q, -minimum) rounds the same sum.     A16
 *     Q4_1, Q5_1           d * q + m: the same argument.                                                          A16
 *     Q4_K                 kept as it is, because it is the usual small download; the same argument.
 *
 * A panel's 32 rows are neighbours in the file, so each is one read; the pool's threads take panels in turn.
 */
#include "core/panels.h"
#include "core/matmul.h"
#include "core/quant.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- a block taken apart ------------------------------------------------------------------------------------- */

/* value of element e = scale[e / 16] * q[e] + min[e / 16] */
typedef struct parts {
    float scale[16], min[16];
    int8_t q[256];
} parts;

static float f16_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return lp_f16_to_f32(h);
}

/* 32 values of 4 bits, a fifth from the bits of qh, less an offset. */
static void nibbles(int8_t *q, const uint8_t *qs, uint32_t qh, int offset)
{
    for (int j = 0; j < 16; j++) {
        q[j] = (int8_t)(((qs[j] & 15) | (int)(qh >> j & 1) << 4) - offset);
        q[j + 16] = (int8_t)((qs[j] >> 4 | (int)(qh >> (j + 16) & 1) << 4) - offset);
    }
}

static uint32_t u32_at(const uint8_t *p)
{
    uint32_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

static void split_q41_q51(lp_dtype t, const uint8_t *b, parts *p)
{
    p->scale[0] = p->scale[1] = f16_at(b);
    p->min[0] = p->min[1] = f16_at(b + 2);
    if (t == LP_Q5_1)
        nibbles(p->q, b + 8, u32_at(b + 4), 0);
    else
        nibbles(p->q, b + 4, 0, 0);
}

static void split_q2_k(const uint8_t *b, parts *p)
{
    float d = f16_at(b + 80), dmin = f16_at(b + 82);
    for (int s = 0; s < 16; s++) {
        p->scale[s] = d * (float)(b[s] & 15);
        p->min[s] = -(dmin * (float)(b[s] >> 4));
    }
    for (int e = 0; e < 256; e++) p->q[e] = (int8_t)(b[16 + e / 128 * 32 + e % 32] >> (e % 128 / 32 * 2) & 3);
}

static void split_q3_k(const uint8_t *b, parts *p)
{
    const uint8_t *sc = b + 96;
    float d = f16_at(b + 108);
    for (int s = 0; s < 16; s++) {
        int low = s < 8 ? sc[s] & 15 : sc[s - 8] >> 4, high = sc[8 + s % 4] >> (2 * (s / 4)) & 3;
        p->scale[s] = d * (float)((low | high << 4) - 32);
    }
    for (int e = 0; e < 256; e++) {
        int two = b[32 + e / 128 * 32 + e % 32] >> (e % 128 / 32 * 2) & 3;
        p->q[e] = (int8_t)(two - (b[e % 32] >> (e / 32) & 1 ? 0 : 4));
    }
}

static void split_q5_k(const uint8_t *b, parts *p)
{
    float d = f16_at(b), dmin = f16_at(b + 2);
    const uint8_t *c = b + 4;
    for (int s = 0; s < 8; s++) {
        int t = s % 4;
        int sc = s < 4 ? c[t] & 63 : (c[8 + t] & 15) | c[t] >> 6 << 4;
        int mn = s < 4 ? c[4 + t] & 63 : c[8 + t] >> 4 | c[4 + t] >> 6 << 4;
        p->scale[2 * s] = p->scale[2 * s + 1] = d * (float)sc;
        p->min[2 * s] = p->min[2 * s + 1] = -(dmin * (float)mn);
    }
    for (int e = 0; e < 256; e++) {
        int four = b[48 + e / 64 * 32 + e % 32] >> (e / 32 % 2 * 4) & 15;
        p->q[e] = (int8_t)(four | (b[16 + e % 32] >> (e / 32) & 1) << 4);
    }
}

static void split_q6_k(const uint8_t *b, parts *p)
{
    float d = f16_at(b + 208);
    for (int s = 0; s < 16; s++) p->scale[s] = d * (float)(int8_t)b[192 + s];
    for (int e = 0; e < 256; e++) {
        int half = e / 128, group = e % 128 / 32, l = e % 32;
        int four = b[64 * half + group % 2 * 32 + l] >> (group / 2 * 4) & 15;
        int two = b[128 + 32 * half + l] >> (2 * group) & 3;
        p->q[e] = (int8_t)((four | two << 4) - 32);
    }
}

/* Scales and minima that are NaN or infinite. */
static uint64_t bad_halves(const uint8_t *b, int at, int n)
{
    uint64_t bad = 0;
    for (int i = 0; i < n; i++) bad += !isfinite(f16_at(b + at + 2 * i));
    return bad;
}

/* ---- one panel ----------------------------------------------------------------------------------------------- */

/* Column of place i in a panel's order: 1 0 3 2 5 4 ... */
static int column(int i)
{
    return i ^ 1;
}

static bool bad_bf16(uint32_t h)
{
    return (h & 0x7f80) == 0x7f80;
}

/* Pair by pair, 16 pairs of a row at a time so that both sides stay in L1. */
static uint64_t pack_bf16(uint8_t *out, const uint8_t *src, size_t stride, int rows, int cols)
{
    uint64_t bad = 0;
    int even = cols / 2 * 2;
    for (int k0 = 0; k0 < even; k0 += 32)
        for (int lane = 0; lane < rows; lane++) {
            int end = even - k0 < 32 ? even : k0 + 32;
            for (int k = k0; k < end; k += 2) {
                uint32_t pair = u32_at(src + lane * stride + 2 * (size_t)k);
                bad += (uint64_t)bad_bf16(pair) + bad_bf16(pair >> 16);
                memcpy(out + (size_t)k * 64 + 4 * lane, &pair, sizeof pair);
            }
        }
    for (int lane = 0; even < cols && lane < rows; lane++) {
        uint16_t last;
        memcpy(&last, src + lane * stride + 2 * (size_t)even, sizeof last);
        bad += bad_bf16(last);
        memcpy(out + (size_t)even * 64 + 4 * lane, &last, sizeof last);
    }
    return bad;
}

static uint64_t pack_floats(lp_dtype t, uint8_t *out, const uint8_t *src, size_t stride, int rows, int cols)
{
    uint64_t bad = 0;
    for (int lane = 0; lane < rows; lane++)
        for (int k = 0; k < cols; k++) {
            const uint8_t *from = src + lane * stride;
            if (t == LP_F32) {
                uint32_t u = u32_at(from + 4 * (size_t)k);
                bad += (u & 0x7f800000) == 0x7f800000;
                memcpy(out + ((size_t)column(k) * 32 + lane) * 4, &u, 4);
            } else {
                uint16_t h;
                memcpy(&h, from + 2 * (size_t)k, 2);
                bad += (h & 0x7c00) == 0x7c00;
                memcpy(out + ((size_t)column(k) * 32 + lane) * 2, &h, 2);
            }
        }
    return bad;
}

/* One block of 32 columns of one row into its lane. */
static uint64_t pack_q8_0(lp_dtype t, uint8_t *group, int lane, const uint8_t *b)
{
    int8_t q[32];
    if (t == LP_Q8_0)
        memcpy(q, b + 2, 32);
    else if (t == LP_Q4_0)
        nibbles(q, b + 2, 0, 8);
    else
        nibbles(q, b + 6, u32_at(b + 2), 16);
    memcpy(group + 2 * lane, b, 2);
    for (int i = 0; i < 32; i++) memcpy(group + 64 + 32 * i + lane, &q[column(i)], 1);
    return bad_halves(b, 0, 1);
}

static uint64_t pack_q4_k(uint8_t *group, int lane, const uint8_t *b)
{
    memcpy(group + 2 * lane, b, 2);
    memcpy(group + 64 + 2 * lane, b + 2, 2);
    for (int w = 0; w < 3; w++) memcpy(group + LP_Q4_K_SCALES + 128 * w + 4 * lane, b + 4 + 4 * w, 4);
    for (int pair = 0; pair < 128; pair++) {
        int s = pair / 16, j = pair % 16 * 2, shift = s % 2 * 4;
        const uint8_t *q = b + 16 + s / 2 * 32 + j;
        group[LP_Q4_K_NIBBLES + 32 * pair + lane] = (uint8_t)((q[1] >> shift & 15) | (q[0] >> shift & 15) << 4);
    }
    return bad_halves(b, 0, 2);
}

/* One block, taken apart, into its lane of consecutive S16 or A16 groups. */
static uint64_t pack_parts(lp_dtype t, lp_panel f, uint8_t *group, int lane, const uint8_t *b)
{
    parts p = {0};
    uint64_t bad;
    switch (t) {
    case LP_Q2_K:
        split_q2_k(b, &p);
        bad = bad_halves(b, 80, 2);
        break;
    case LP_Q3_K:
        split_q3_k(b, &p);
        bad = bad_halves(b, 108, 1);
        break;
    case LP_Q5_K:
        split_q5_k(b, &p);
        bad = bad_halves(b, 0, 2);
        break;
    case LP_Q6_K:
        split_q6_k(b, &p);
        bad = bad_halves(b, 208, 1);
        break;
    default:
        split_q41_q51(t, b, &p);
        bad = bad_halves(b, 0, 2);
    }
    int values = f == LP_PANEL_A16 ? 256 : 128;
    for (int s = 0; s < lp_dtype_block(t) / 16; s++, group += lp_panel_group_bytes(f)) {
        memcpy(group + 4 * lane, &p.scale[s], 4);
        if (f == LP_PANEL_A16) memcpy(group + 128 + 4 * lane, &p.min[s], 4);
        for (int i = 0; i < 16; i++) memcpy(group + values + 32 * i + lane, &p.q[16 * s + column(i)], 1);
    }
    return bad;
}

/* `rows` stored rows, `stride` bytes apart, into a panel that is zero so far.  Returns the non-finite ones. */
static uint64_t pack_panel(const lp_matrix *m, uint8_t *out, const uint8_t *src, size_t stride, int rows)
{
    uint64_t bad = 0;
    if (m->format == LP_PANEL_BF16) return pack_bf16(out, src, stride, rows, m->cols);
    if (m->format == LP_PANEL_F32 || m->format == LP_PANEL_F16)
        return pack_floats(m->stored, out, src, stride, rows, m->cols);
    int block = lp_dtype_block(m->stored), bytes = lp_dtype_block_bytes(m->stored);
    size_t step = (size_t)(block / lp_panel_group(m->format)) * lp_panel_group_bytes(m->format);
    for (int i = 0; i < m->cols / block; i++)
        for (int lane = 0; lane < rows; lane++) {
            uint8_t *group = out + i * step;
            const uint8_t *b = src + lane * stride + (size_t)i * bytes;
            if (m->format == LP_PANEL_Q8_0)
                bad += pack_q8_0(m->stored, group, lane, b);
            else if (m->format == LP_PANEL_Q4_K)
                bad += pack_q4_k(group, lane, b);
            else
                bad += pack_parts(m->stored, m->format, group, lane, b);
        }
    return bad;
}

/* ---- whole matrices ------------------------------------------------------------------------------------------ */

lp_status lp_matrix_plan(lp_matrix *m, int rows, int cols, lp_dtype stored, lp_error *err)
{
    static const lp_panel formats[LP_N_DTYPES] = {
        [LP_F32] = LP_PANEL_F32,   [LP_F16] = LP_PANEL_F16,  [LP_BF16] = LP_PANEL_BF16, [LP_Q8_0] = LP_PANEL_Q8_0,
        [LP_Q4_0] = LP_PANEL_Q8_0, [LP_Q4_1] = LP_PANEL_A16, [LP_Q5_0] = LP_PANEL_Q8_0, [LP_Q5_1] = LP_PANEL_A16,
        [LP_Q2_K] = LP_PANEL_A16,  [LP_Q3_K] = LP_PANEL_S16, [LP_Q4_K] = LP_PANEL_Q4_K, [LP_Q5_K] = LP_PANEL_A16,
        [LP_Q6_K] = LP_PANEL_S16,
    };
    *m = (lp_matrix){0};
    int block = lp_dtype_block(stored);
    if (!block) return lp_fail(err, LP_E_UNSUPPORTED, "weights of this type cannot be computed with");
    if (rows <= 0 || cols <= 0 || cols % block)
        return lp_fail(err, LP_E_SHAPE, "a matrix of %d x %d %s: sizes must be positive and rows whole blocks of %d",
                       rows, cols, lp_dtype_name(stored), block);
    lp_panel f = formats[stored];
    size_t groups = ((size_t)cols + (size_t)lp_panel_group(f) - 1) / (size_t)lp_panel_group(f);
    size_t panels = ((size_t)rows + LP_LANES - 1) / LP_LANES, bytes;
    if (cols > INT32_MAX - 256 || rows > INT32_MAX - LP_LANES ||
        __builtin_mul_overflow(groups * lp_panel_group_bytes(f), panels, &bytes))
        return lp_fail(err, LP_E_MEMORY, "a matrix of %d x %d is more than memory can address", rows, cols);
    *m = (lp_matrix){.rows = rows, .cols = cols, .stored = stored, .format = f, .bytes = bytes};
    m->panel_bytes = groups * lp_panel_group_bytes(f);
    return LP_OK;
}

/* What the threads of a load share.  Either `src` or (`from`, `x`) says where the rows are. */
typedef struct packing {
    lp_matrix *m;
    const uint8_t *src;
    const lp_tensors *from;
    const lp_tensor *x;
    const lp_env *env;
    uint8_t *rooms; /* one panel's stored rows per thread */
    size_t stride;
    atomic_int next, done;
    atomic_bool stop, failed;
    atomic_uint_least64_t bad;
    lp_status status; /* of whoever raised `failed` first, who alone writes these two */
    lp_error *err;
} packing;

static void give_up(packing *p, lp_status status, const lp_error *err)
{
    atomic_store(&p->stop, true);
    if (atomic_exchange(&p->failed, true)) return;
    p->status = status;
    if (p->err && err) *p->err = *err;
}

static void pack_some(int id, int n, void *arg)
{
    packing *p = arg;
    lp_matrix *m = p->m;
    lp_error err = {0};
    int panels = (m->rows + LP_LANES - 1) / LP_LANES;
    (void)n;
    for (int i; !atomic_load(&p->stop) && (i = lp_claim(&p->next)) < panels;) {
        int first = i * LP_LANES, rows = m->rows - first < LP_LANES ? m->rows - first : LP_LANES;
        uint8_t *out = (uint8_t *)m->data + (size_t)i * m->panel_bytes;
        const uint8_t *src = p->src ? p->src + (size_t)first * p->stride : p->rooms + id * LP_LANES * p->stride;
        if (lp_cancelled(p->env)) {
            give_up(p, LP_CANCELLED, NULL);
            return;
        }
        if (!p->src) {
            uint8_t *room = p->rooms + id * LP_LANES * p->stride;
            lp_status st = lp_tensors_read(p->from, p->x, (uint64_t)first * p->stride, room, rows * p->stride, &err);
            if (st != LP_OK) {
                give_up(p, st, &err);
                return;
            }
        }
        memset(out, 0, m->panel_bytes);
        atomic_fetch_add(&p->bad, pack_panel(m, out, src, p->stride, rows));
        int done = atomic_fetch_add(&p->done, 1) + 1;
        if (id == 0 && p->x) lp_progress(p->env, p->x->name, done, panels);
    }
}

static lp_status pack_all(packing *p)
{
    lp_pool_run(p->env ? p->env->pool : NULL, pack_some, p);
    if (atomic_load(&p->failed)) return p->status;
    p->m->n_nonfinite = atomic_load(&p->bad);
    return LP_OK;
}

static size_t row_bytes(const lp_matrix *m)
{
    return (size_t)(m->cols / lp_dtype_block(m->stored)) * (size_t)lp_dtype_block_bytes(m->stored);
}

lp_status lp_matrix_load(lp_matrix *m, const lp_tensors *t, const lp_tensor *x, const lp_env *env, lp_error *err)
{
    assert(m->data && x->type == m->stored);
    size_t stride = row_bytes(m), threads = (size_t)lp_pool_threads(env ? env->pool : NULL);
    if (x->bytes != (uint64_t)stride * (uint64_t)m->rows) {
        char shape[128];
        return lp_fail(err, LP_E_SHAPE, "%s: %s, expected [%d, %d]", x->name,
                       lp_tensor_shape_text(x, shape, sizeof shape), m->rows, m->cols);
    }
    packing p = {.m = m, .from = t, .x = x, .env = env, .stride = stride, .err = err};
    p.rooms = lp_calloc(threads * LP_LANES, stride);
    if (!p.rooms) return lp_fail(err, LP_E_MEMORY, "out of memory reading %s", x->name);
    lp_status st = pack_all(&p);
    free(p.rooms);
    return st;
}

lp_status lp_matrix_pack(lp_matrix *m, const void *src, const lp_env *env, lp_error *err)
{
    assert(m->data);
    packing p = {.m = m, .src = src, .env = env, .stride = row_bytes(m), .err = err};
    return pack_all(&p);
}

typedef struct putting {
    lp_matrix *m;
    const float *src;
    int col, n;
    atomic_int next;
    atomic_uint_least64_t bad;
} putting;

static void put_value(const lp_matrix *m, uint8_t *panel, int col, int lane, float v)
{
    if (m->format == LP_PANEL_F32) {
        memcpy(panel + ((size_t)column(col) * LP_LANES + (size_t)lane) * 4, &v, 4);
    } else {
        uint16_t h = lp_f32_to_bf16(v);
        memcpy(panel + ((size_t)(col / 2) * LP_LANES + (size_t)lane) * 4 + (size_t)(col % 2) * 2, &h, 2);
    }
}

static void put_some(int id, int n, void *arg)
{
    putting *p = arg;
    int rows = p->m->rows, panels = (rows + LP_LANES - 1) / LP_LANES;
    (void)id, (void)n;
    for (int i; (i = lp_claim(&p->next)) < panels;) {
        uint8_t *panel = (uint8_t *)p->m->data + (size_t)i * p->m->panel_bytes;
        int first = i * LP_LANES, lanes = rows - first < LP_LANES ? rows - first : LP_LANES;
        uint64_t bad = 0;
        for (int c = 0; c < p->n; c++)
            for (int lane = 0; lane < lanes; lane++) {
                float v = p->src[(size_t)c * (size_t)rows + (size_t)(first + lane)];
                bad += !isfinite(v);
                put_value(p->m, panel, p->col + c, lane, v);
            }
        atomic_fetch_add(&p->bad, bad);
    }
}

void lp_matrix_put_columns(lp_matrix *m, int col, int n, const float *src, const lp_env *env)
{
    assert(col >= 0 && col + n <= m->cols && (m->format == LP_PANEL_F32 || m->format == LP_PANEL_BF16));
    putting p = {.m = m, .src = src, .col = col, .n = n};
    lp_pool_run(env ? env->pool : NULL, put_some, &p);
    m->n_nonfinite += atomic_load(&p.bad);
}

/* A panel is widened whole, a run of columns at a time, and the lanes asked for are picked out of it. */
void lp_matrix_rows(const lp_matrix *m, int first, int n, float *out, const lp_kernels *k)
{
    enum { COLUMNS = 256 };
    float chunk[COLUMNS * LP_LANES];
    size_t width = (size_t)m->cols;
    assert(first >= 0 && n >= 0 && first <= m->rows - n);
    for (int r = first, lanes; r < first + n; r += lanes, out += (size_t)lanes * width) {
        const uint8_t *panel = (const uint8_t *)m->data + (size_t)(r / LP_LANES) * m->panel_bytes;
        int lane = r % LP_LANES;
        lanes = LP_LANES - lane < first + n - r ? LP_LANES - lane : first + n - r;
        for (int k0 = 0; k0 < m->cols; k0 += COLUMNS) {
            int left = m->cols - k0 < COLUMNS ? m->cols - k0 : COLUMNS;
            k->expand_f32(m->format, panel, k0, left + left % 2, chunk);
            for (int j = 0; j < lanes; j++)
                for (int i = 0; i < left; i++)
                    out[(size_t)j * width + (size_t)(k0 + i)] = chunk[column(i) * LP_LANES + lane + j];
        }
    }
}

void lp_matrix_row(const lp_matrix *m, int row, float *out, const lp_kernels *k)
{
    lp_matrix_rows(m, row, 1, out, k);
}
