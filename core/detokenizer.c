/* detokenizer.c - from ids back to text, at once or one by one.
 *
 * A piece is its text with U+2581 read as a space.  Byte pieces are bytes: those that form a character are that
 * character, any other is U+FFFD.  Streaming holds a byte back while it could still be the beginning of a character,
 * so the reader of a stream never sees half of one, and the stream put together equals the text decoded at once: the
 * latter simply is the former.  A token that shows nothing still ends a character, as in libsentencepiece's Decode.
 */
#include "core/utf8.h"
#include "core/vocab.h"

#include <stdlib.h>

_Static_assert(sizeof((lp_detokenizer *)0)->text >= LP_MAX_PIECE + 3 * sizeof((lp_detokenizer *)0)->held,
               "a piece and the bytes held before it fit");

static size_t put(lp_detokenizer *d, size_t n, const char *s, size_t len)
{
    memcpy(d->text + n, s, len);
    return n + len;
}

/* Gives out what the held bytes have settled.  `end`: no further byte will come. */
static size_t settle(lp_detokenizer *d, size_t n, bool end)
{
    while (d->n_held) {
        int len = lp_utf8_next((const char *)d->held, (size_t)d->n_held);
        if (len < 0 && !end) break;
        n = len > 0 ? put(d, n, (const char *)d->held, (size_t)len) : put(d, n, LP_REPLACEMENT, 3);
        int used = len > 0 ? len : 1;
        d->n_held -= used;
        memmove(d->held, d->held + used, (size_t)d->n_held);
    }
    return n;
}

static size_t put_piece(lp_detokenizer *d, size_t n, const char *s, size_t len)
{
    for (size_t i = 0; i < len;) {
        bool space = len - i >= 3 && memcmp(s + i, LP_SPACE, 3) == 0;
        size_t step = space ? 3 : 1;
        n = put(d, n, space ? " " : s + i, 1);
        i += step;
    }
    return n;
}

const char *lp_detokenizer_push(lp_detokenizer *d, int id, size_t *len)
{
    const lp_tokenizer *t = d->tokenizer;
    size_t n = 0, piece_len;
    const char *piece = lp_tokenizer_piece(t, id, &piece_len);
    if (id >= 0 && id < t->n && t->pieces[id].type == LP_PIECE_BYTE) {
        d->held[d->n_held++] = (unsigned char)strtoul(piece + 3, NULL, 16); /* <0x41> */
        n = settle(d, n, false);
    } else {
        n = settle(d, n, true);
        if (id < 0 || id >= t->n)
            n = put(d, n, LP_REPLACEMENT, 3);
        else if (!t->pieces[id].special)
            n = put_piece(d, n, piece, piece_len);
        else if (d->show_specials)
            n = put(d, n, piece, piece_len);
    }
    d->text[n] = 0;
    *len = n;
    return d->text;
}

const char *lp_detokenizer_flush(lp_detokenizer *d, size_t *len)
{
    size_t n = settle(d, 0, true);
    d->text[n] = 0;
    *len = n;
    return d->text;
}

lp_status lp_tokenizer_decode(const lp_tokenizer *t, const int *ids, size_t n, int show_specials, char **out,
                              size_t *len, lp_error *err)
{
    lp_detokenizer d = {.tokenizer = t, .show_specials = show_specials};
    char *text = NULL;
    size_t n_text = 0, capacity = 0;
    for (size_t i = 0; i <= n; i++) {
        size_t m;
        const char *s;
        if (i < n && (ids[i] < 0 || ids[i] >= t->n)) {
            free(text);
            return lp_fail(err, LP_E_RANGE, "token %zu has the id %d; the vocabulary has %d", i, ids[i], t->n);
        }
        s = i < n ? lp_detokenizer_push(&d, ids[i], &m) : lp_detokenizer_flush(&d, &m);
        if (!lp_grow((void **)&text, &capacity, n_text + m + 1, 1)) {
            free(text);
            return lp_fail(err, LP_E_MEMORY, "out of memory for a text of %zu tokens", n);
        }
        memcpy(text + n_text, s, m);
        n_text += m;
    }
    text[n_text] = 0;
    *out = text;
    if (len) *len = n_text;
    return LP_OK;
}
