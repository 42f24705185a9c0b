/* steer.h - a recipe at work on a session: features are set, held, scaled while the tokens pass.
 *
 *     lp_steer_new(&st, s, &recipe, saes, n_saes, &(lp_steer_context){.n_prompt = n, .ids = ids}, &err);
 *     status = lp_session_eval(s, ids, n, &err);                 or lp_generate_prompt
 *     options.fn = lp_steer_generated, options.user = st;        lp_generate tells each token before it evaluates it
 *     status = lp_steer_explain(st, lp_generate(...), &err);
 *
 * How edits meet.  An edit reads where its SAE reads and writes where its SAE predicts: the same place, but for a
 * transcoder.  At one place everything is encoded from the same x, before any change; the changes are summed in the
 * order of the recipe, in double, and added once.  A later place sees what an earlier one did.  With c the change's
 * amount and r the schedule's factor, y the row that is changed (x, or the reconstruction where there is one):
 *
 *     add        c = r s                    clamp      c = r (s - f) g        clamp_min  c = r max(0, s - f) g
 *     scale      c = r (s - 1) f g          ablate     c = -r f g             clamp_max  c = r min(0, s - f) g
 *     project    c = r (s - y.d^) / |d|     replace    f := f + r (s - f), y = decode(f)
 *     x' = y + sum c d
 *
 * g is 1, except where decoding scales a feature's row (topk that rescales: 1 / |d|; SAEs that normalise rows: the norm
 * taken out): then g is that scale, so that for every SAE a clamp is decode(f') + (x - decode(f)).
 *
 * Rows that no edit touches are not encoded and keep their bits, and so does a float whose change is exactly zero.
 * What happens at a position depends on it and on what came before, never on the order of calls: cutting a prompt
 * otherwise, rewinding, evaluating again give the same bits.
 */
#ifndef LP_SAE_STEER_H
#define LP_SAE_STEER_H

#include "core/generate.h"
#include "sae/encode.h"
#include "sae/recipe.h"

/* What is known of the tokens before the first is evaluated.  Copied. */
typedef struct lp_steer_context {
    int n_prompt;               /* positions below are the prompt's, the others generated                             */
    const int *ids;             /* [n_prompt]; NULL: position 0 is taken for <bos>                                    */
    const uint8_t *is_template; /* [n_prompt] 1: put there by a chat template; NULL: none is                          */
    const char *text; /* [len] of the prompt, with spans [n_prompt] into it; wanted by scopes with a text.   */
    size_t len;       /* NULL: decoded from ids by the model's tokenizer, special tokens left out            */
    const lp_span *spans;
    int reads_back; /* 1: keep readings (another encoding of every edited row).  Fixed by lp_steer_new */
} lp_steer_context;

typedef struct lp_steer lp_steer;

/* Finds each edit's SAE by its name and hooks what is needed.  LP_E_NOT_FOUND: an SAE is not among the n;
 * LP_E_RANGE: it has no such feature, or a unit is missing; LP_E_SHAPE: it is for another model; LP_E_UNSUPPORTED: a
 * condition that is only known after the edit it decides, reconstructions of two SAEs at one place, joint clamps of
 * a transcoder.  The recipe, the SAEs and the session outlive it. */
lp_status lp_steer_new(lp_steer **out, lp_session *s, const lp_recipe *r, const lp_sae *const *saes, int n_saes,
                       const lp_steer_context *context, lp_error *err);
void lp_steer_free(lp_steer *st); /* unhooks; NULL is fine */

/* Another prompt, the next turn of a chat: what was known of tokens is forgotten. */
lp_status lp_steer_prompt(lp_steer *st, const lp_steer_context *context, lp_error *err);

/* The token at a generated position, before it is evaluated.  Only scopes with a text need to be told; others do not
 * mind. Several may be told ahead; another token at a position forgets those after it. */
lp_status lp_steer_token(lp_steer *st, int pos, int id, lp_error *err);
/* The same as lp_generate's callback; `steer` is the lp_steer. */
int lp_steer_generated(const lp_generated *token, void *steer);

/* What an evaluation under steering came to: its own error where it stopped the evaluation, else `status`. */
lp_status lp_steer_explain(lp_steer *st, lp_status status, lp_error *err);

/* ---- what it came to --------------------------------------------------------------------------------------------- */

typedef enum lp_steer_status {
    LP_STEER_PLAIN,           /* not a joint clamp: nothing was solved                                           */
    LP_STEER_REACHED,         /* joint: encoded again it has the value asked, within 1e-4 of it (0: does not fire) */
    LP_STEER_MISSED,          /* joint: solved, but rounding carried it elsewhere                                   */
    LP_STEER_BELOW_THRESHOLD, /* joint: no row gives this value (up to the threshold, below 0); left alone */
    LP_STEER_DEPENDENT,       /* joint: its direction is nearly a sum of the others'; left alone                      */
    LP_STEER_NOT_LINEAR, /* joint: topk, gated or normalising; clamped as if alone                                */
} lp_steer_status;

const char *lp_steer_status_name(lp_steer_status s); /* "plain", "reached", "missed", "below threshold", ... */

typedef struct lp_steer_reading {
    int pos;
    int edit;       /* its place in the recipe                                                                 */
    float asked;    /* the value this edit would give the feature, the schedule applied; NaN: add, project      */
    float before;   /* as encoded from x                                                                          */
    float achieved; /* as encoded from x'; a transcoder's: before, as what it reads is not changed here           */
    lp_steer_status status;
} lp_steer_reading;

typedef struct lp_steer_move { /* how far a row was moved */
    int pos;
    lp_site site;
    int layer;
    float relative; /* |x' - x| / |x| */
} lp_steer_move;

/* Of all committed positions, by position, then edit (or place).  *out is yours to free. */
lp_status lp_steer_readback(lp_steer_reading **out, size_t *n, const lp_steer *st, lp_error *err);
lp_status lp_steer_moves(lp_steer_move **out, size_t *n, const lp_steer *st, lp_error *err);

/* ---- where a recipe is at work (steer_scope.c) ------------------------------------------------------------------- */

/* A recipe's scopes and schedules over one text; for steering, and for showing beforehand which tokens would be
 * edited. */
typedef struct lp_scopes lp_scopes;
/* The recipe and the tokenizer (NULL: none; then no scope may have a text) are borrowed. bos: id, -1 unknown. */
lp_status lp_scopes_new(lp_scopes **out, const lp_recipe *r, const lp_tokenizer *t, int bos, lp_error *err);
void lp_scopes_free(lp_scopes *s); /* NULL is fine */
lp_status lp_scopes_prompt(lp_scopes *s, const lp_steer_context *context, lp_error *err);
lp_status lp_scopes_token(lp_scopes *s, int pos, int id, lp_error *err);
/* The factor of an edit at a position, conditions aside: 0 not edited, 1 in full, NaN the token has not been told. */
double lp_scopes_factor(const lp_scopes *s, size_t edit, int pos);

#endif
