/* session.h - one timeline of tokens over a model: the KV cache, the scratch, the hooks, the position.
 *
 *     lp_session_new(&s, model, NULL, env, &err);
 *     lp_session_hook(s, lp_tap(LP_RESID_POST, 20, &tape), &err);
 *     lp_session_eval(s, ids, n, &err);            positions 0 .. n-1
 *     p = lp_session_logits(s);                    [V], of the last token
 *
 * The same bits come out however the tokens are cut into calls and waves, on any number of threads, with or without
 * hooks, in a forked or rewound session as in a fresh one.
 *
 * The KV cache lies in pages of 64 positions.  A fork shares the full pages and copies at most one, so it costs
 * microseconds to milliseconds and little memory; whoever rewinds into a shared page gets a page of its own first.
 */
#ifndef LP_CORE_SESSION_H
#define LP_CORE_SESSION_H

#include "core/hooks.h"
#include "core/model.h"

typedef struct lp_session lp_session; /* one thread at a time */

typedef struct lp_session_options {
    lp_arithmetic arithmetic; /* LP_EXACT when zero                                                             */
    int wave;                 /* rows per wave; 0: 512.  Never changes a bit, only memory and speed             */
    int n_ctx;                /* positions; 0: the model's maximum.  Memory is taken only as they are used      */
    int bf16_embed_scale;     /* 1: sqrt(D) rounded to bf16, as the bf16 reference runs do (9B: 59.75, 27B: 68);
                                 0: sqrt(D) in f32, as Hugging Face float32 and llama.cpp do               */
} lp_session_options;

/* env is copied; its pool, kernels and cancel must outlive the session.  options NULL: defaults. */
lp_status lp_session_new(lp_session **out, const lp_model *m, const lp_session_options *options, const lp_env *env,
                         lp_error *err);
void lp_session_free(lp_session *s); /* NULL is fine; other forks live on */

const lp_model *lp_session_model(const lp_session *s);
const lp_session_options *lp_session_get_options(const lp_session *s); /* with the zeros filled in            */
const lp_env *lp_session_env(const lp_session *s);                     /* as given, its kernels filled in     */
const char *lp_session_kernels(const lp_session *s);                   /* name of the kernel table in force   */

/* Runs the tokens at the positions that follow.  LP_OK: all committed.  LP_STOPPED (a hook), LP_CANCELLED, < 0: nothing
 * committed, the session is as before the call.  Ids outside the vocabulary and positions beyond n_ctx are LP_E_RANGE.
 */
lp_status lp_session_eval(lp_session *s, const int *ids, size_t n, lp_error *err);

/* The same through layer `last_layer` only (its RESID_POST is the last site shown) and nothing is committed: half a
 * model at half the price.  Logits stay what they were. */
lp_status lp_session_peek(lp_session *s, const int *ids, size_t n, int last_layer, lp_error *err);

/* Alternatives: `branches` continuations of one past, `each` tokens long, ids [branches][each], computed side by side and
 * not committed.  A hook is shown every branch by itself (act->branch), so each can be edited in its own way; fn is given
 * the logits [V] of every branch's last token, in order, borrowed (anything but 0: LP_STOPPED).  Hooked branches have,
 * bit for bit, the logits lp_session_eval would give; from the final norm on only a branch's last row passes the hooks.
 * Takes memory the first time it is called. */
typedef int (*lp_branch_fn)(int branch, const float *logits, void *user);
lp_status lp_session_branch(lp_session *s, const int *ids, int each, int branches, lp_branch_fn fn, void *user,
                            lp_error *err);

/* The same through layer `last_layer` only and without logits, as lp_session_peek.  `each` at most a wave. */
lp_status lp_session_peek_branches(lp_session *s, const int *ids, int each, int branches, int last_layer,
                                   lp_error *err);

int lp_session_pos(const lp_session *s);             /* tokens committed                                        */
const int *lp_session_tokens(const lp_session *s);   /* [pos]; borrowed                                         */
const float *lp_session_logits(const lp_session *s); /* [V] after the soft-cap, of the last committed token; NULL: none
                                                        (nothing evaluated yet, or rewound: evaluate a token)   */
/* Forget everything from position `pos` on (pos <= current).  Can fail only for memory (a shared page). */
lp_status lp_session_rewind(lp_session *s, int pos, lp_error *err);
/* A second timeline that shares the first `pos` positions, without hooks, same options and env. */
lp_status lp_session_fork(lp_session **out, lp_session *s, int pos, lp_error *err);

/* ---- hooks.  They fire in the order added, and may not call this session's functions but those that only look. */
int lp_session_hook(lp_session *s, lp_hook h, lp_error *err); /* handle > 0, or an lp_status < 0          */
void lp_session_unhook(lp_session *s, int handle);
/* First position computed under a hook that edits, or -1: from there on the cache is not the model's own. */
int lp_session_edited_from(const lp_session *s);

/* Bytes a session of these options would take at once, and per token as it fills. */
uint64_t lp_session_bytes(const lp_model *m, const lp_session_options *options, int n_threads);
uint64_t lp_session_bytes_per_token(const lp_config *c);

/* Unembeds rows that are not the session's own (logit lens): x [n][D] before the final norm -> out [n][V], the final
 * norm, the table and the soft-cap applied.  Uses the session's scratch; changes nothing. */
lp_status lp_session_unembed(lp_session *s, const float *x, int n, float *out, lp_error *err);

#endif
