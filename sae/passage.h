/* passage.h - a text as pieces that fit into a session's context, each with <bos> in front: what measurements run over.
 *
 * A piece sees nothing of the one before it.  The last may be short.
 */
#ifndef LP_SAE_PASSAGE_H
#define LP_SAE_PASSAGE_H

#include "core/session.h"

typedef struct lp_passage { /* all zero is an empty one */
    int *ids;               /* [n_pieces][piece], <bos> first where the model has one; the last piece is `last` long */
    size_t n_pieces, piece, last;
    size_t n_tokens; /* of the text, <bos> not counted */
    bool has_bos;
} lp_passage;

/* Cuts `text` for session s.  LP_E_UNSUPPORTED: a model without a tokenizer; LP_E_RANGE: a text of no tokens. */
lp_status lp_passage_make(lp_passage *out, const lp_session *s, const char *text, size_t len, lp_error *err);
void lp_passage_free(lp_passage *p); /* its contents; NULL is fine */

/* Rewinds s to 0 and hands `fn` piece after piece; fn evaluates them.  Stops at the first status that is not LP_OK.  The
 * session is empty afterwards. */
typedef lp_status (*lp_piece_fn)(lp_session *s, const int *ids, size_t n, void *user, lp_error *err);
lp_status lp_passage_run(const lp_passage *p, lp_session *s, lp_piece_fn fn, void *user, lp_error *err);

#endif
