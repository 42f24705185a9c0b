/* windows.h - the windows of a plan, with their tokens and text, read again from the corpus.
 *
 *     lp_windows *ws;
 *     lp_windows_open(&ws, &plan, corpus, tokenizer, &env, err);
 *     for (size_t i = 0; i < shard->n_windows; i++) {
 *         LP_TRY(lp_windows_read(ws, shard->first_window + i, &w, err));
 *         ...w.ids[0..w.n), at positions 0 to n - 1...
 *     }
 *
 * Every piece is compared with what was planned, bytes and tokens, before a window of it is given out.  The piece at hand is
 * kept, so windows in their order tokenize each piece once; any order gives the same.
 *
 * The texts of a document's windows, one after the other, are the document.
 */
#ifndef LP_STORE_WINDOWS_H
#define LP_STORE_WINDOWS_H

#include "store/plan.h"

typedef struct lp_window {
    size_t document;
    const int *ids; /* [n], <bos> first where the tokenizer has one; ids[i] is at position i */
    int n;
    const char *text; /* [n_text], what the ids but <bos> stand for: bytes, maybe no UTF-8 at its ends */
    size_t n_text;
    uint64_t at; /* of text, in the document's */
} lp_window;

typedef struct lp_windows lp_windows;

/* The plan and the tokenizer are borrowed.  `corpus`: the folder or file the plan was made from, wherever it lies now.
 * LP_E_UNSUPPORTED: a plan for another tokenizer. */
lp_status lp_windows_open(lp_windows **out, const lp_plan *p, const char *corpus, const lp_tokenizer *t,
                          const lp_env *env, lp_error *err);
void lp_windows_close(lp_windows *ws); /* NULL is fine */

/* Window w of the plan, borrowed until the next call.  LP_E_FORMAT: the corpus changed since the plan; LP_E_NOT_FOUND: a file
 * of it is gone; LP_E_RANGE: no such window. */
lp_status lp_windows_read(lp_windows *ws, size_t w, lp_window *out, lp_error *err);

#endif
