/* load.c - shapes checked against each other, memory taken once, weights read, packed and hashed on the way.
 *
 * The encoder lies in the file as [d_in][d_sae]: a row of the file is a column of the matrix a product wants, so it goes
 * into its panels a few columns at a time and is never held twice.  The decoder keeps its rows: a reconstruction adds up
 * a few dozen of them.
 */
#include "sae/load.h"

#include "core/quant.h"
#include "sae/hash.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64, BLOCK = 4 << 20 }; /* floats read at once, at least a row */

typedef struct filling {
    lp_sae *s;
    const lp_arrays *a;
    const lp_env *env;
    XXH3_state_t *hash;
    float *block;        /* BLOCK floats, or a row if that is longer */
    float *whole, *next; /* an array that had to be turned round first, and how far it is read */
    char *arena;         /* where the next array goes, or NULL while only counting */
    size_t used;
    lp_error *err;
} filling;

/* ---- shapes ------------------------------------------------------------------------------------------------------ */

static lp_status need(const filling *f, const char *name, int n_dims, int64_t *shape)
{
    int rank = 0;
    bool is_fortran;
    if (!f->a->find(f->a->self, name, &rank, shape, &is_fortran))
        return lp_fail(f->err, LP_E_FORMAT, "%s: no array %s, which a %s SAE has", f->a->path, name,
                       lp_sae_kind_name(f->s->kind));
    if (rank != n_dims)
        return lp_fail(f->err, LP_E_SHAPE, "%s: %s has %d dimensions, expected %d", f->a->path, name, rank, n_dims);
    return LP_OK;
}

static lp_status check_vector(const filling *f, const char *name, int64_t n)
{
    int64_t shape[8];
    LP_TRY(need(f, name, 1, shape));
    if (shape[0] != n)
        return lp_fail(f->err, LP_E_SHAPE, "%s: %s is [%lld], expected [%lld]", f->a->path, name, (long long)shape[0],
                       (long long)n);
    return LP_OK;
}

static lp_status check_matrix(const filling *f, const char *name, int64_t rows, int64_t cols)
{
    int64_t shape[8];
    LP_TRY(need(f, name, 2, shape));
    if (shape[0] != rows || shape[1] != cols)
        return lp_fail(f->err, LP_E_SHAPE, "%s: %s is [%lld, %lld], expected [%lld, %lld]", f->a->path, name,
                       (long long)shape[0], (long long)shape[1], (long long)rows, (long long)cols);
    return LP_OK;
}

/* The vectors of each kind beside b_dec, in the order they are read and hashed. */
static const char *const vectors[][4] = {
    [LP_SAE_STANDARD] = {"b_enc"},
    [LP_SAE_JUMPRELU] = {"b_enc", "threshold"},
    [LP_SAE_TOPK] = {"b_enc"},
    [LP_SAE_GATED] = {"b_gate", "r_mag", "b_mag"},
};

static lp_status check_shapes(filling *f)
{
    lp_sae *s = f->s;
    int64_t enc[8], dec[8];
    LP_TRY(need(f, "W_enc", 2, enc));
    LP_TRY(need(f, "W_dec", 2, dec));
    for (int i = 0; i < 2; i++)
        if (enc[i] < 1 || dec[i] < 1 || enc[i] > (1 << 26) || dec[i] > (1 << 26))
            return lp_fail(f->err, LP_E_SHAPE, "%s: W_enc or W_dec has no sensible size", f->a->path);
    LP_TRY(check_matrix(f, "W_dec", enc[1], dec[1]));
    s->d_in = (int)enc[0], s->d_sae = (int)enc[1], s->d_out = (int)dec[1];
    if (!s->spot.is_coder && s->d_out != s->d_in)
        return lp_fail(f->err, LP_E_SHAPE, "%s: reads %d numbers and writes %d, but does not say it is a transcoder",
                       f->a->path, s->d_in, s->d_out);
    for (int i = 0; i < 4 && vectors[s->kind][i]; i++) LP_TRY(check_vector(f, vectors[s->kind][i], s->d_sae));
    LP_TRY(check_vector(f, "b_dec", s->d_out));
    if (s->has_skip) LP_TRY(check_matrix(f, "W_skip", s->d_out, s->d_in));
    if (s->kind == LP_SAE_TOPK && (s->k < 1 || s->k > s->d_sae))
        return lp_fail(f->err, LP_E_RANGE, "%s: k = %d of %d features", f->a->path, s->k, s->d_sae);
    return LP_OK;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* Room for `bytes`; while counting it only counts. */
static void *room(filling *f, size_t bytes)
{
    void *p = f->arena ? f->arena + f->used : NULL;
    f->used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return p;
}

static void lay_out(filling *f)
{
    lp_sae *s = f->s;
    size_t n = (size_t)s->d_sae;
    f->used = 0;
    s->encoder.data = room(f, s->encoder.bytes);
    s->decoder = room(f, n * (size_t)s->d_out * (s->decoder_type == LP_BF16 ? 2 : 4));
    if (s->has_skip) s->skip.data = room(f, s->skip.bytes);
    s->b_enc = room(f, n * 4);
    if (s->kind == LP_SAE_JUMPRELU) s->threshold = room(f, n * 4);
    if (s->kind == LP_SAE_GATED) s->gain = room(f, n * 4), s->b_mag = room(f, n * 4);
    s->dec_norm = room(f, n * 4);
    s->b_dec = room(f, (size_t)s->d_out * 4);
}

static lp_status take_memory(filling *f, const lp_sae_options *o)
{
    lp_sae *s = f->s;
    lp_dtype type = o && o->bf16 ? LP_BF16 : LP_F32;
    s->decoder_type = type;
    LP_TRY(lp_matrix_plan(&s->encoder, s->d_sae, s->d_in, type, f->err));
    if (s->has_skip) LP_TRY(lp_matrix_plan(&s->skip, s->d_out, s->d_in, LP_F32, f->err));
    lay_out(f);
    s->bytes = f->used;
    uint64_t limit = o && o->memory_limit ? o->memory_limit : lp_memory_available();
    lp_log(f->env, LP_INFO, "%s: %d features, %s of memory", f->a->path, s->d_sae, lp_amount_of(s->bytes).text);
    if (limit && s->bytes > limit)
        return lp_fail(f->err, LP_E_MEMORY, "%s: needs %s of memory, %s are left%s", f->a->path,
                       lp_amount_of(s->bytes).text, lp_amount_of(limit).text,
                       type == LP_BF16 ? "" : "; holding it in BF16 takes half");
    s->arena_bytes = f->used;
    if (!(s->arena = lp_big_alloc(s->arena_bytes)))
        return lp_fail(f->err, LP_E_MEMORY, "%s: %s of memory cannot be had", f->a->path, lp_amount_of(s->bytes).text);
    f->arena = s->arena;
    lay_out(f);
    size_t longest = (size_t)(s->d_sae > s->d_in ? s->d_sae : s->d_in);
    longest = longest > (size_t)s->d_out ? longest : (size_t)s->d_out;
    f->block = lp_calloc(longest > BLOCK ? longest : BLOCK, sizeof *f->block);
    f->hash = XXH3_createState();
    if (!f->block || !f->hash) return lp_fail(f->err, LP_E_MEMORY, "%s: out of memory", f->a->path);
    XXH3_128bits_reset(f->hash);
    return LP_OK;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* An array whose first index runs fastest, read as a whole and turned round. */
static lp_status turn(filling *f, int64_t rows, int64_t cols)
{
    float *raw = lp_calloc((size_t)rows, (size_t)cols * sizeof *raw);
    f->whole = f->next = lp_calloc((size_t)rows, (size_t)cols * sizeof *raw);
    lp_status st = raw && f->whole ? f->a->read(f->a->self, raw, (size_t)(rows * cols), f->err)
                                   : lp_fail(f->err, LP_E_MEMORY, "%s: out of memory", f->a->path);
    for (int64_t r = 0; st == LP_OK && r < rows; r++)
        for (int64_t c = 0; c < cols; c++) f->whole[r * cols + c] = raw[c * rows + r];
    free(raw);
    return st;
}

static lp_status begin(filling *f, const char *name)
{
    int n_dims;
    int64_t shape[8];
    bool is_fortran = false;
    f->a->find(f->a->self, name, &n_dims, shape, &is_fortran);
    LP_TRY(f->a->begin(f->a->self, name, f->err));
    return is_fortran ? turn(f, shape[0], shape[1]) : LP_OK;
}

/* The next n floats: counted, if they are no numbers, and hashed. */
static lp_status next(filling *f, float *out, size_t n)
{
    if (f->whole) {
        memcpy(out, f->next, n * sizeof *out);
        f->next += n;
    } else {
        LP_TRY(f->a->read(f->a->self, out, n, f->err));
    }
    for (size_t i = 0; i < n; i++) f->s->n_nonfinite += !isfinite(out[i]);
    XXH3_128bits_update(f->hash, out, n * sizeof *out);
    return lp_cancelled(f->env) ? LP_CANCELLED : LP_OK;
}

static lp_status end(filling *f)
{
    free(f->whole);
    f->whole = f->next = NULL;
    return f->a->end(f->a->self, f->err);
}

static lp_status take_vector(filling *f, const char *name, float *to, int n)
{
    LP_TRY(begin(f, name));
    LP_TRY(next(f, to, (size_t)n));
    return end(f);
}

static lp_status take_encoder(filling *f)
{
    lp_sae *s = f->s;
    int at_once = BLOCK / s->d_sae < 1 ? 1 : BLOCK / s->d_sae;
    LP_TRY(begin(f, "W_enc"));
    for (int col = 0; col < s->d_in; col += at_once) {
        int n = s->d_in - col < at_once ? s->d_in - col : at_once;
        LP_TRY(next(f, f->block, (size_t)n * (size_t)s->d_sae));
        lp_matrix_put_columns(&s->encoder, col, n, f->block, f->env);
        lp_progress(f->env, "encoder", col + n, s->d_in);
    }
    return end(f);
}

static float norm_of(const float *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return (float)sqrt(sum);
}

static lp_status take_decoder(filling *f)
{
    lp_sae *s = f->s;
    size_t width = (size_t)s->d_out, element = s->decoder_type == LP_BF16 ? 2 : 4;
    int at_once = BLOCK / s->d_out < 1 ? 1 : BLOCK / s->d_out;
    char *out = s->decoder;
    LP_TRY(begin(f, "W_dec"));
    for (int row = 0; row < s->d_sae; row += at_once) {
        int n = s->d_sae - row < at_once ? s->d_sae - row : at_once;
        LP_TRY(next(f, f->block, (size_t)n * width));
        for (int i = 0; i < n; i++) s->dec_norm[row + i] = norm_of(f->block + (size_t)i * width, s->d_out);
        lp_from_f32(s->decoder_type, f->block, out + (size_t)row * width * element, (size_t)n * width);
        lp_progress(f->env, "decoder", row + n, s->d_sae);
    }
    return end(f);
}

static lp_status take_skip(filling *f)
{
    lp_sae *s = f->s;
    float *all = lp_calloc((size_t)s->d_out, (size_t)s->d_in * sizeof *all);
    if (!all) return lp_fail(f->err, LP_E_MEMORY, "%s: out of memory", f->a->path);
    lp_status st = begin(f, "W_skip");
    if (st == LP_OK) st = next(f, all, (size_t)s->d_out * (size_t)s->d_in);
    if (st == LP_OK) st = end(f);
    if (st == LP_OK) st = lp_matrix_pack(&s->skip, all, f->env, f->err);
    free(all);
    return st;
}

static lp_status take_vectors(filling *f)
{
    lp_sae *s = f->s;
    float *const places[3] = {s->b_enc, s->kind == LP_SAE_GATED ? s->gain : s->threshold, s->b_mag};
    for (int i = 0; i < 3 && vectors[s->kind][i]; i++) LP_TRY(take_vector(f, vectors[s->kind][i], places[i], s->d_sae));
    if (s->kind != LP_SAE_GATED) return LP_OK;
    for (int i = 0; i < s->d_sae; i++) s->gain[i] = expf(s->gain[i]); /* the file holds r_mag */
    return LP_OK;
}

static lp_status take_weights(filling *f)
{
    LP_TRY(take_encoder(f));
    LP_TRY(take_decoder(f));
    LP_TRY(take_vectors(f));
    LP_TRY(take_vector(f, "b_dec", f->s->b_dec, f->s->d_out));
    if (f->s->has_skip) LP_TRY(take_skip(f));
    lp_hash_text(f->s->hash, XXH3_128bits_digest(f->hash));
    if (f->s->n_nonfinite)
        lp_log(f->env, LP_WARN, "%s: %llu weights are NaN or infinite; its features cannot be trusted", f->a->path,
               (unsigned long long)f->s->n_nonfinite);
    return LP_OK;
}

lp_status lp_sae_fill(lp_sae *s, const lp_arrays *a, const lp_sae_options *o, const lp_env *env, lp_error *err)
{
    filling f = {.s = s, .a = a, .env = env, .err = err};
    lp_status st = check_shapes(&f);
    if (st == LP_OK) st = take_memory(&f, o);
    if (st == LP_OK) st = take_weights(&f);
    free(f.whole);
    free(f.block);
    XXH3_freeState(f.hash);
    return st;
}
