/* synth_plan.h - which tensors a checkpoint has, and what an element of one is; private to core/synth*.c. */
#ifndef LP_CORE_SYNTH_PLAN_H
#define LP_CORE_SYNTH_PLAN_H

#include "core/synth.h"

typedef struct lp_synth_tensor {
    char name[72];      /* Hugging Face's */
    char gguf_name[48]; /* llama.cpp's    */
    int64_t rows, cols; /* rows 0: a vector of cols elements (a norm) */
    float mean, sd;
    uint64_t key;   /* seed and name, mixed */
    lp_dtype type;  /* as stored      */
    uint64_t bytes; /* as stored      */
} lp_synth_tensor;

typedef struct lp_synth_plan {
    lp_synth_tensor *items;
    size_t n;
    uint64_t bytes; /* of all tensors */
} lp_synth_plan;

lp_status lp_synth_plan_make(lp_synth_plan *p, const lp_synth_options *o, lp_error *err);
void lp_synth_plan_clear(lp_synth_plan *p);

/* Elements first .. first + n, f32. */
void lp_synth_fill(float *out, const lp_synth_tensor *t, uint64_t first, size_t n);

static inline uint64_t lp_synth_elements(const lp_synth_tensor *t)
{
    return (uint64_t)(t->rows ? t->rows : 1) * (uint64_t)t->cols;
}

#endif
