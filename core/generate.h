/* generate.h - the token loop: draw, report, stop or evaluate, again.
 *
 *     lp_generate_prompt(s, ids, n, &err);                   what the session already holds is not evaluated again
 *     lp_generate(&g, s, sampler, &options, &err);           options.fn sees each token as it comes
 *     g.text, g.ids, g.finish                                the whole of it at the end
 *
 * A stop string is looked for in the stream of decoded bytes, so it may begin and end inside tokens.  Text that could
 * be the beginning of one is held back until it cannot, and so are the bytes of an unfinished character: what fn has
 * been given is certain, and all of it together is g.text.  The first stop string to be complete ends it; of two that one
 * token completes, the one that begins earlier.
 *
 * On return the session holds the prompt and every token drawn but the last: that one was the reason to stop, or the
 * limit was reached, and evaluating it would cost a pass nobody asked for.
 */
#ifndef LP_CORE_GENERATE_H
#define LP_CORE_GENERATE_H

#include "core/sample.h"
#include "core/session.h"

typedef enum lp_finish {
    LP_FINISH_NONE,      /* only before the end                                                */
    LP_FINISH_TOKEN,     /* a stop token: the last of ids, without text                        */
    LP_FINISH_STRING,    /* a stop string: text ends before it                                 */
    LP_FINISH_LENGTH,    /* max_tokens                                                         */
    LP_FINISH_CONTEXT,   /* the next token would have no position: the context is full         */
    LP_FINISH_STOPPED,   /* fn or a hook asked to stop                                         */
    LP_FINISH_CANCELLED, /* env->cancel; text held back until then is dropped, as for STOPPED  */
} lp_finish;

const char *lp_finish_name(lp_finish f); /* "stop_token", "stop_string", "length", "context", "stopped", "cancelled" */

/* One token as it comes.  Borrowed: dies when the callback returns. */
typedef struct lp_generated {
    int index, pos, id; /* index counts from 0; pos is the token's position in the session           */
    const char *text;   /* bytes that became certain with this token, often but not always its own   */
    size_t len;
    float logprob;        /* log softmax of the raw logits, before penalties and temperature; NaN: not asked  */
    const lp_scored *top; /* [n_top] best alternatives, score = log-probability, best first                    */
    int n_top;
    lp_finish finish; /* LP_FINISH_NONE: there is more to come                                              */
} lp_generated;

/* 0: go on.  Anything else: LP_FINISH_STOPPED. */
typedef int (*lp_generate_fn)(const lp_generated *token, void *user);

/* All zero: no limit but the context, stop at <eos> and <end_of_turn>. */
typedef struct lp_generate_options {
    int max_tokens;          /* 0: no limit                                                                  */
    const char *const *stop; /* stop strings, not empty                                                      */
    int n_stop;
    const int *stop_ids; /* besides the model's <eos> and <end_of_turn>                                    */
    int n_stop_ids;
    int ignore_eos;    /* 1: only stop_ids stop                                                     */
    int show_specials; /* 1: special tokens appear in the text as their pieces                      */
    int logprobs;      /* 1: report each token's log-probability (a pass over the vocabulary)       */
    int n_top;         /* and so many alternatives                                                  */
    lp_generate_fn fn; /* NULL: nobody watches                                                      */
    void *user;
} lp_generate_options;

/* All that was drawn.  All zero is an empty one; lp_generate starts by emptying it. */
typedef struct lp_generation {
    int *ids;        /* [n] the stop token included                         */
    float *logprobs; /* [n] NaN where not asked                             */
    size_t n;
    char *text; /* terminated                                              */
    size_t len;
    lp_finish finish;
    int stop_string; /* index into options.stop, or -1                   */
    size_t capacity_ids, capacity_logprobs, capacity_text;
} lp_generation;

/* Makes the session hold exactly ids[0..n), n >= 1: keeps the common prefix of what it holds (never what was computed
 * under an editing hook), rewinds, evaluates the rest, at least the last token, so that logits exist.  Whoever adds or
 * removes hooks and wants them seen by the whole prompt rewinds to 0 first.  LP_E_RANGE: longer than the context. */
lp_status lp_generate_prompt(lp_session *s, const int *ids, size_t n, lp_error *err);

/* Draws until something stops it.  LP_OK for the first five ways to finish, LP_STOPPED, LP_CANCELLED, or < 0; *out is
 * filled as far as it went in every case.  The session must have logits.  A model without a tokenizer gives ids and no
 * text. */
lp_status lp_generate(lp_generation *out, lp_session *s, lp_sampler *sampler, const lp_generate_options *o,
                      lp_error *err);
void lp_generation_free(lp_generation *g); /* its contents; NULL is fine */

/* True for the ids at which the model itself says that it is done: <eos> and <end_of_turn>. */
bool lp_is_end(const lp_model *m, int id);

#endif
