/* sample.h - from logits to the next token: a processed distribution, and a draw from it.
 *
 * Everything here starts from the model's logits after the soft-cap.  Steps that are off cost nothing; the defaults
 * (all zero) are greedy decoding.  Two orders, because the field has two and the same numbers mean different things in
 * them:
 *
 *   LP_ORDER_HF (default)   bias, penalties, temperature, top-k, top-p, min-p       Hugging Face generate(), vLLM
 *   LP_ORDER_LLAMA          bias, penalties, top-k, top-p, min-p, temperature       llama.cpp: cuts see T = 1
 *
 * with z the scores, p their softmax at that step over the tokens not yet removed, and
 *   bias         z[id] += b, before everything else; -INFINITY bans a token.
 *   penalties    over the last `penalty_window` tokens of prompt and output (0: all of them).  A token seen c > 0 times:
 *                z < 0 ? z * repetition : z / repetition   (CTRL, Keskar et al. 2019; once, whatever c is), then
 *                z -= c * frequency + presence             (OpenAI; llama.cpp: llama_sampler_penalties_apply)
 *   temperature  z /= T.  T = 0: the arg-max of the penalised scores, lowest id among equals, nothing else matters.
 *   top-k        LP_ORDER_HF keeps every score >= the k-th largest, so equals may make it more than k (TopKLogitsWarper);
 *                LP_ORDER_LLAMA keeps exactly k, lower ids first among equals.
 *   top-p        walking down from the most probable (lower ids first among equals), a token stays while the mass before
 *                it is < P: the one that crosses P stays, and at least one does (TopPLogitsWarper, llama_sampler_top_p).
 *   min-p        a token stays if p >= M * (largest p) (MinPLogitsWarper, llama_sampler_min_p).
 *
 * The same seed gives the same text on every machine: exp is lp_expf, the rest is IEEE arithmetic, sums are in double
 * in the order of ids (top-p: of rank), and the draw at a position is a function of (seed, position) alone
 * (core/random.h), not of what was drawn before.
 *
 * The distribution itself is a result: speculative decoding accepts, rejects and redraws with it.
 */
#ifndef LP_CORE_SAMPLE_H
#define LP_CORE_SAMPLE_H

#include "core/base.h"

typedef enum lp_sample_order { LP_ORDER_HF, LP_ORDER_LLAMA } lp_sample_order;

typedef struct lp_bias {
    int id;
    float add;
} lp_bias;

/* All zero: greedy. */
typedef struct lp_sample_options {
    double temperature;  /* 0: greedy                                                       */
    int top_k;           /* 0: off                                                          */
    double top_p;        /* in (0, 1]; 0: off, as 1 is                                      */
    double min_p;        /* in [0, 1]; 0: off                                               */
    double repetition;   /* > 0; 0: off, as 1 is                                            */
    double presence;     /* 0: off                                                          */
    double frequency;    /* 0: off                                                          */
    int penalty_window;  /* last tokens the penalties look at; 0: all                    */
    const lp_bias *bias; /* copied by lp_sampler_new                                        */
    int n_bias;
    lp_sample_order order;
    uint64_t seed;
} lp_sample_options;

/* T 1, top-k 64, top-p 0.95, Hugging Face's order: the defaults of gemma_pytorch's generate() (gemma/model.py).  The
 * generation_config.json files of Gemma 2 name no sampling at all. */
lp_sample_options lp_sample_gemma(void);
/* llama.cpp's defaults: T 0.8, top-k 40, top-p 0.95, min-p 0.05, penalties (off) over 64 tokens, its order. */
lp_sample_options lp_sample_llama(void);

typedef struct lp_sampler lp_sampler; /* options and scratch; one thread at a time */

/* LP_E_RANGE for options that make no sense.  Takes about 28 bytes per vocabulary entry, all of it here. */
lp_status lp_sampler_new(lp_sampler **out, int vocab, const lp_sample_options *o, lp_error *err);
void lp_sampler_free(lp_sampler *s); /* NULL is fine */
const lp_sample_options *lp_sampler_options(const lp_sampler *s);
int lp_sampler_vocab(const lp_sampler *s);

/* The tokens that can come, and how likely each is.  Borrowed from the sampler until its next call. */
typedef struct lp_distribution {
    const int *ids;  /* [n] ascending                                     */
    const double *p; /* [n] > 0, adding up to 1 within rounding           */
    int n;           /* 1 when greedy                                     */
} lp_distribution;

/* After all processing.  logits [vocab]; tokens: everything before the position to be filled, prompt included (the
 * penalties look at it; may be NULL when n_tokens is 0).  LP_E_RANGE: a NaN or +infinite score, or nothing left to
 * draw. */
lp_status lp_sampler_distribution(lp_distribution *out, lp_sampler *s, const float *logits, const int *tokens,
                                  size_t n_tokens, lp_error *err);

/* The id where the running sum of p, in the order of ids, passes u (in [0, 1)). */
int lp_distribution_draw(const lp_distribution *d, double u);
double lp_distribution_p(const lp_distribution *d, int id); /* 0 for ids that cannot come */

/* Draws made for one position by different parts of an algorithm come from different streams. */
typedef enum lp_draw { LP_DRAW_TOKEN, LP_DRAW_ACCEPT, LP_DRAW_RESIDUAL, LP_DRAW_DRAFT } lp_draw;

/* The distribution and a draw from it: the token for position n_tokens. */
lp_status lp_sampler_next(int *id, lp_sampler *s, const float *logits, const int *tokens, size_t n_tokens,
                          lp_error *err);

/* ---- reading logits ------------------------------------------------------------------------------------------ */

/* Index of the largest; the first among equals; -1 when n is 0 or a NaN is met. */
int lp_argmax(const float *x, int n);

typedef struct lp_scored {
    int id;
    float score;
} lp_scored;

/* The min(k, n) largest of x[n], largest first, lower ids first among equals; NaNs last.  O(n log k), no allocation. */
int lp_top_k(lp_scored *out, int k, const float *x, int n);

/* log(sum exp x), in double.  The log softmax of x[i] is then lp_logprob(x[i], norm): one function, so that two reports
 * of one probability are the same float. */
double lp_log_sum_exp(const float *x, int n);
static inline float lp_logprob(float x, double norm)
{
    return (float)((double)x - norm);
}

/* KL(softmax z || softmax other) in nats, norms from lp_log_sum_exp.  Never below 0, and 0 for equal logits. */
double lp_kl(const float *z, double norm, const float *other, double other_norm, int n);

#endif
