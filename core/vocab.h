/* vocab.h - private to the tokenizer: the table of pieces, how it is filled, and the two look-ups encoding needs.
 *
 * spm_model.c and gguf_vocab.c add pieces in order of id and call lp_vocab_seal; after that nothing changes.
 */
#ifndef LP_CORE_VOCAB_H
#define LP_CORE_VOCAB_H

#include "core/tokenizer.h"

#include <string.h>

enum {
    LP_MAX_PIECES = 1 << 20,
    LP_MAX_PIECE = 1000, /* bytes; so that lp_detokenizer.text always has room */
};

#define LP_SPACE       "\xe2\x96\x81" /* U+2581, what a space is inside the vocabulary */
#define LP_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD, what a broken byte is */

typedef struct lp_piece {
    size_t at; /* into lp_tokenizer.text; terminated there */
    int len;
    float score;
    uint8_t type; /* lp_piece_type */
    bool special;
} lp_piece;

typedef struct lp_slot {
    uint32_t hash;
    int id; /* -1: free */
} lp_slot;

struct lp_tokenizer {
    lp_piece *pieces;
    int n;
    size_t capacity;
    char *text;
    size_t n_text, text_capacity;
    int bos, eos, pad, unk; /* -1: none */
    /* from here on filled by lp_vocab_seal */
    lp_slot *slots; /* open addressing, a power of two */
    size_t mask;
    int byte_id[256];
    int *matchable;    /* ids of USER, CONTROL and UNKNOWN pieces, sorted by their bytes */
    int first[257];    /* matchable[first[b]..first[b+1]) begin with byte b */
    int longest;       /* bytes of the longest piece */
    bool cut_at_space; /* no piece goes on across a space: a word's merges end where the next space begins */
};

lp_tokenizer *lp_vocab_new(void);
/* Appends a piece.  Refuses empty, overlong, broken ones and any type outside 1..6. */
lp_status lp_vocab_add(lp_tokenizer *t, const char *piece, size_t len, double score, int64_t type, lp_error *err);
/* Checks the whole and builds the indexes. */
lp_status lp_vocab_seal(lp_tokenizer *t, lp_error *err);

/* The id of a piece, or -1. */
int lp_vocab_find(const lp_tokenizer *t, const char *s, size_t len);
/* The longest piece that text[0..len) must not be split inside of, or -1.  Text has its spaces as U+2581. */
int lp_vocab_match(const lp_tokenizer *t, const char *text, size_t len, lp_specials specials);
/* May merging produce this piece? */
static inline bool lp_vocab_merges(const lp_tokenizer *t, int id, lp_specials specials)
{
    const lp_piece *p = &t->pieces[id];
    if (p->type == LP_PIECE_NORMAL) return true;
    return p->type == LP_PIECE_USER && !(p->special && specials == LP_SPECIALS_LITERAL);
}

/* Pieces that steer a model though SentencePiece calls them user-defined: by name, since ids differ between models. */
bool lp_vocab_steers(const char *piece, size_t len);

#endif
