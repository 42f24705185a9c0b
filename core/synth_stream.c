/* synth_stream.c - weights made a slice at a time and written as they come.
 *
 * While one thread writes the last slice, the others, and then it too, make the next one in pieces of whole blocks.
 * Memory stays at two slices of 32 MiB however large the model is, and who makes which piece changes no bit of it.
 */
#include "core/synth_stream.h"

#include "core/quantize.h"

#include <stdlib.h>

enum {
    SLICE = 8 << 20, /* elements made between two writes                             */
    PIECE = 1 << 16, /* elements a thread makes at a time: a multiple of every block */
};

static void write_ready(lp_synth_stream *s)
{
    if (!s->ready_bytes || s->st < 0) return;
    s->st = s->gguf ? lp_gguf_write(s->gguf, s->ready, s->ready_bytes, s->err)
                    : lp_safetensors_write(s->safetensors, s->ready, s->ready_bytes, s->err);
    s->done += s->ready_bytes;
    s->ready_bytes = 0;
    lp_progress(s->env, "writing weights", (int64_t)s->done, (int64_t)s->of);
}

/* Norms: GGUF stores the gain 1 + w of the w that a checkpoint of the same type would have. */
static void to_gain(float *x, size_t n, lp_dtype type)
{
    uint16_t h;
    for (size_t i = 0; i < n; i++) {
        if (type == LP_BF16 || type == LP_F16) {
            lp_from_f32(type, &x[i], &h, 1);
            lp_to_f32(type, &h, &x[i], 1);
        }
        x[i] += 1;
    }
}

static void make_pieces(int id, int n_threads, void *arg)
{
    lp_synth_stream *s = arg;
    (void)n_threads;
    if (id == 0) write_ready(s);
    const lp_synth_tensor *t = s->tensor;
    if (!t) return;
    float *x = s->scratch[id];
    for (;;) {
        size_t at = (size_t)lp_claim(&s->next) * PIECE;
        if (at >= s->n) return;
        size_t n = s->n - at < PIECE ? s->n - at : PIECE;
        uint64_t offset = 0;
        lp_synth_fill(x, t, s->first + at, n);
        if (s->o->gguf && !t->rows) to_gain(x, n, s->o->type);
        lp_dtype_bytes(t->type, at, &offset);
        lp_quantize(t->type, x, s->making + offset, n);
    }
}

lp_status lp_synth_stream_tensor(lp_synth_stream *s, const lp_synth_tensor *t)
{
    uint64_t all = lp_synth_elements(t);
    for (uint64_t first = 0; first < all; first += SLICE) {
        if (lp_cancelled(s->env)) return LP_CANCELLED;
        uint64_t bytes = 0;
        s->tensor = t;
        s->first = first;
        s->n = (size_t)(all - first < SLICE ? all - first : SLICE);
        atomic_store(&s->next, 0);
        lp_pool_run(s->env ? s->env->pool : NULL, make_pieces, s);
        if (s->st < 0) return s->st;
        lp_dtype_bytes(t->type, s->n, &bytes);
        char *swap = s->ready;
        s->ready = s->making;
        s->making = swap;
        s->ready_bytes = (size_t)bytes;
    }
    return LP_OK;
}

lp_status lp_synth_stream_flush(lp_synth_stream *s)
{
    write_ready(s);
    return s->st;
}

lp_status lp_synth_stream_begin(lp_synth_stream *s, lp_error *err)
{
    size_t bytes = (size_t)SLICE * sizeof(float);
    s->n_scratch = lp_pool_threads(s->env ? s->env->pool : NULL);
    s->ready = lp_big_alloc(bytes);
    s->making = lp_big_alloc(bytes);
    s->scratch = lp_calloc((size_t)s->n_scratch, sizeof *s->scratch);
    bool ok = s->ready && s->making && s->scratch;
    for (int i = 0; ok && i < s->n_scratch; i++) ok = (s->scratch[i] = lp_calloc(PIECE, sizeof(float))) != NULL;
    return ok ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory for two slices of %zu bytes", bytes);
}

void lp_synth_stream_end(lp_synth_stream *s)
{
    size_t bytes = (size_t)SLICE * sizeof(float);
    for (int i = 0; s->scratch && i < s->n_scratch; i++) free(s->scratch[i]);
    free(s->scratch);
    lp_big_free(s->ready, bytes);
    lp_big_free(s->making, bytes);
}
