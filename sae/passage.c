/* passage.c - see passage.h. */
#include "sae/passage.h"

#include <stdlib.h>
#include <string.h>

static lp_status cut(lp_passage *p, const lp_session *s, const lp_tokens *t, lp_error *err)
{
    int bos = lp_session_model(s)->config.bos;
    size_t n_ctx = (size_t)lp_session_get_options(s)->n_ctx;
    *p = (lp_passage){.has_bos = bos >= 0, .piece = n_ctx, .n_tokens = t->n};
    size_t own = n_ctx - p->has_bos; /* of a piece's places, those for the text */
    if (own < 1) return lp_fail(err, LP_E_RANGE, "a context of %zu has no room for text", n_ctx);
    p->n_pieces = (t->n + own - 1) / own;
    p->last = t->n - (p->n_pieces - 1) * own + p->has_bos;
    p->ids = lp_calloc(p->n_pieces, n_ctx * sizeof *p->ids);
    if (!p->ids) return lp_fail(err, LP_E_MEMORY, "no memory for a text of %zu tokens", t->n);
    for (size_t i = 0; i < p->n_pieces; i++) {
        size_t n = (i + 1 < p->n_pieces ? n_ctx : p->last) - p->has_bos;
        int *to = p->ids + i * n_ctx;
        if (p->has_bos) *to++ = bos;
        memcpy(to, t->ids + i * own, n * sizeof *to);
    }
    return LP_OK;
}

lp_status lp_passage_make(lp_passage *out, const lp_session *s, const char *text, size_t len, lp_error *err)
{
    const lp_model *m = lp_session_model(s);
    lp_tokens t = {0};
    if (!m->tokenizer) return lp_fail(err, LP_E_UNSUPPORTED, "%s has no tokenizer (tokenizer.model)", m->path);
    lp_status st = lp_tokenizer_encode(m->tokenizer, text, len, LP_SPECIALS_LITERAL, &t, err);
    if (st == LP_OK && t.n == 0) st = lp_fail(err, LP_E_RANGE, "the text is empty");
    if (st == LP_OK) st = cut(out, s, &t, err);
    lp_tokens_free(&t);
    return st;
}

void lp_passage_free(lp_passage *p)
{
    if (!p) return;
    free(p->ids);
    *p = (lp_passage){0};
}

lp_status lp_passage_run(const lp_passage *p, lp_session *s, lp_piece_fn fn, void *user, lp_error *err)
{
    lp_status st = LP_OK;
    for (size_t i = 0; i < p->n_pieces && st == LP_OK; i++) {
        LP_TRY(lp_session_rewind(s, 0, err));
        st = fn(s, p->ids + i * p->piece, i + 1 < p->n_pieces ? p->piece : p->last, user, err);
    }
    lp_error ignored;
    lp_status back = lp_session_rewind(s, 0, st == LP_OK ? err : &ignored);
    return st == LP_OK ? back : st;
}
