/* synth_stream.h - weights made a slice at a time and written as they come; private to core/synth.c. */
#ifndef LP_CORE_SYNTH_STREAM_H
#define LP_CORE_SYNTH_STREAM_H

#include "core/pool.h"
#include "core/safetensors.h"
#include "core/synth_plan.h"

/* Set the first group, begin; for each file set one writer, its tensors, flush; end (also when half begun). */
typedef struct lp_synth_stream {
    const lp_synth_options *o;
    const lp_env *env;
    lp_error *err;
    uint64_t of; /* bytes of all files */

    lp_safetensors_writer *safetensors; /* where bytes go: one of the two; changed only after a flush */
    lp_gguf_writer *gguf;

    char *ready, *making; /* slices: one being written by thread 0, one being made by all */
    size_t ready_bytes;
    float **scratch; /* [threads] */
    int n_scratch;
    const lp_synth_tensor *tensor; /* of the slice being made: n elements from `first` */
    uint64_t first;
    size_t n;
    atomic_int next;
    uint64_t done; /* bytes written */
    lp_status st;
} lp_synth_stream;

lp_status lp_synth_stream_begin(lp_synth_stream *s, lp_error *err);
/* LP_CANCELLED when env says so. */
lp_status lp_synth_stream_tensor(lp_synth_stream *s, const lp_synth_tensor *t);
lp_status lp_synth_stream_flush(lp_synth_stream *s);
void lp_synth_stream_end(lp_synth_stream *s);

#endif
