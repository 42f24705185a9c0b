/* tokenizer.h - SentencePiece BPE as Gemma uses it, from tokenizer.model or from a GGUF vocabulary.
 *
 * Equal to libsentencepiece id for id (google/sentencepiece: src/bpe_model.cc, src/normalizer.cc), proved on a million
 * random strings.  BOS is never added here: see lp_tokens_push and core/chat.h.
 */
#ifndef LP_CORE_TOKENIZER_H
#define LP_CORE_TOKENIZER_H

#include "core/base.h"
#include "core/gguf.h"

typedef struct lp_tokenizer lp_tokenizer; /* immutable after opening; any number of threads */

lp_status lp_tokenizer_open(lp_tokenizer **out, const char *path, lp_error *err); /* a tokenizer.model file */
lp_status lp_tokenizer_from_bytes(lp_tokenizer **out, const void *data, size_t n, lp_error *err); /* same, in memory */
lp_status lp_tokenizer_from_gguf(lp_tokenizer **out, const lp_gguf *g, const lp_env *env, lp_error *err);
void lp_tokenizer_free(lp_tokenizer *t); /* NULL is fine */

/* SentencePiece's piece types (sentencepiece_model.proto). */
typedef enum lp_piece_type {
    LP_PIECE_NORMAL = 1,
    LP_PIECE_UNKNOWN = 2,
    LP_PIECE_CONTROL = 3,
    LP_PIECE_USER = 4,
    LP_PIECE_UNUSED = 5,
    LP_PIECE_BYTE = 6,
} lp_piece_type;

int lp_tokenizer_size(const lp_tokenizer *t);
int lp_tokenizer_bos(const lp_tokenizer *t); /* -1 where the file has none; so for the next three */
int lp_tokenizer_eos(const lp_tokenizer *t);
int lp_tokenizer_pad(const lp_tokenizer *t);
int lp_tokenizer_unk(const lp_tokenizer *t);
int lp_tokenizer_find(const lp_tokenizer *t, const char *piece);            /* exact piece (U+2581 for space), or -1 */
const char *lp_tokenizer_piece(const lp_tokenizer *t, int id, size_t *len); /* as stored; borrowed; terminated  */
lp_piece_type lp_tokenizer_type(const lp_tokenizer *t, int id);
/* True for ids that steer a model rather than say something: CONTROL, UNKNOWN, and by name <mask>, <2mass>, [@BOS@],
 * <unused..>, the turn markers, [toxicity=0]. */
bool lp_tokenizer_is_special(const lp_tokenizer *t, int id);

/* Bytes [begin, end) of the encoded text that a token stands for.  Spans tile the text in order; the byte pieces of
 * one character split it bytewise. A token that stands for no byte (BOS) has begin == end. */
typedef struct lp_span {
    size_t begin, end;
} lp_span;

/* A growing list of tokens; all zero is an empty one.  ids and spans are parallel. */
typedef struct lp_tokens {
    int *ids;
    lp_span *spans;
    size_t n, capacity;
} lp_tokens;

lp_status lp_tokens_push(lp_tokens *t, int id, lp_span span, lp_error *err);
void lp_tokens_free(lp_tokens *t);

/* What to do with text that looks like a special token ("<start_of_turn>", "<bos>"). */
typedef enum lp_specials {
    LP_SPECIALS_SENTENCEPIECE, /* as libsentencepiece: USER_DEFINED pieces match, CONTROL ones are plain text      */
    LP_SPECIALS_LITERAL,       /* nothing special matches (what a user typed); whitespace runs and tags still do   */
    LP_SPECIALS_PARSED,        /* everything matches, <bos> too (templates; Hugging Face's behaviour)              */
} lp_specials;

/* Appends the tokens of text[0..len) to *out; `len` bytes, NULs and broken UTF-8 welcome. */
lp_status lp_tokenizer_encode(const lp_tokenizer *t, const char *text, size_t len, lp_specials specials, lp_tokens *out,
                              lp_error *err);

/* The text of ids[0..n): U+2581 -> space, byte pieces joined, invalid UTF-8 as U+FFFD; specials are left out, or shown
 * as their piece when `show_specials` is 1.  *out is yours to free, terminated; *len may be NULL. */
lp_status lp_tokenizer_decode(const lp_tokenizer *t, const int *ids, size_t n, int show_specials, char **out,
                              size_t *len, lp_error *err);

/* Streaming: push one id, get the bytes that are now certain (never half a character; maybe none).
 * All zero but `tokenizer` is a fresh one.  The text lives in the struct until the next call. */
typedef struct lp_detokenizer {
    const lp_tokenizer *tokenizer;
    int show_specials;
    unsigned char held[4]; /* bytes of an unfinished character */
    int n_held;
    char text[1024];
} lp_detokenizer;

const char *lp_detokenizer_push(lp_detokenizer *d, int id, size_t *len);
const char *lp_detokenizer_flush(lp_detokenizer *d, size_t *len); /* at the end: what was held becomes U+FFFD */

#endif
