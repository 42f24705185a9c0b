/* plan.h - which document goes where: fixed before the first token is computed, the same on every machine.
 *
 * A document is cut into pieces (corpus.h), each piece is tokenized on its own, and its tokens fall into windows: <bos>
 * and the next context - 1 tokens, without overlap, the last one shorter; a window sees nothing of the one before it.  All
 * windows, in the order of the corpus, are dealt to shards: a shard closes before the window that would carry it over
 * shard_tokens, and has one window at least.  A document of no bytes has no window; it is in the plan and counted.
 *
 * Windows are not stored: they follow from the pieces' tokens and the context.  Where the tokenizer has no <bos>, a window
 * has context tokens of text.
 *
 * The plan is a file of JSON lines, each of one kind, in this order:
 *
 *     {"format":"lapidary-plan","version":1,"hash":"..."}
 *     {"context":512,"shard_tokens":65536,"specials":"literal","bos":2,"tokenizer":"...","split":"none","field":"text",
 *      "key":null,"skip_bad":false,"record_bytes":67108864,"piece_bytes":1048576,"files":1,"documents":2,"pieces":2,
 *      "windows":2,"shards":1,"tokens":40,"bytes":130,"empty":0,"skipped":0}
 *     {"file":0,"name":"a/b.jsonl","kind":"jsonl"}
 *     {"document":0,"file":0,"line":1,"key":null,"offset":0,"length":84,"bytes":70,"hash":"...","pieces":[[70,19,"..."]]}
 *     {"shard":0,"first_window":0,"windows":2,"first_token":0,"tokens":40}
 *
 * A piece is [its bytes, its tokens without <bos>, its hash].  "tokens" elsewhere counts positions, <bos> among them.
 *
 * Hashes:
 *     hash         of the plan: XXH3-128 of all bytes after the first line.  Names are relative to the corpus and no time
 *                  and no host is in it, so the same corpus gives the same plan wherever it lies
 *     tokenizer    lp_tokenizer_hash
 *     document     XXH3-128 of its text
 *     piece        XXH3-64 of its text and then of its token ids, as little-endian int32: what is read again is what was
 *                  planned, byte for byte and token for token
 */
#ifndef LP_STORE_PLAN_H
#define LP_STORE_PLAN_H

#include "core/tokenizer.h"
#include "store/corpus.h"
#include "store/shard.h"

enum { LP_PLAN_CONTEXT = 1 << 20, LP_PLAN_SHARD = 1 << 24 };

typedef struct lp_plan_options {
    lp_corpus_options corpus;
    int context;          /* positions of a window, 2 to LP_PLAN_CONTEXT */
    int64_t shard_tokens; /* 1 to LP_PLAN_SHARD; 0: LP_SHARD_TOKENS */
    lp_specials specials; /* what "<start_of_turn>" in a text is */
} lp_plan_options;

typedef struct lp_plan_document {
    lp_document at; /* its key is owned here */
    uint8_t hash[16];
    size_t first_piece, n_pieces;
} lp_plan_document;

typedef struct lp_plan_piece {
    size_t document;
    uint64_t at; /* in the document's text */
    uint32_t n_bytes, n_tokens;
    uint64_t hash;
    size_t first_window; /* in the plan */
} lp_plan_piece;

typedef struct lp_plan_shard {
    size_t first_window, n_windows;
    int64_t first_token, n_tokens; /* positions, <bos> among them */
} lp_plan_shard;

typedef struct lp_plan {     /* all zero is an empty one; owns all it points to */
    lp_plan_options options; /* with the defaults filled in */
    int bos;                 /* -1: none */
    char tokenizer[33], hash[33];
    lp_corpus_files files; /* without a root */
    lp_plan_document *documents;
    size_t n_documents;
    lp_plan_piece *pieces;
    size_t n_pieces;
    lp_plan_shard *shards;
    size_t n_shards, n_windows;
    int64_t n_tokens; /* positions, <bos> among them */
    int64_t n_bytes;  /* of all texts */
    int64_t n_empty;  /* documents of no bytes */
    int64_t n_skipped;
    size_t room_documents, room_pieces, room_shards;
} lp_plan;

/* One window, as the plan knows it. */
typedef struct lp_plan_window {
    size_t piece;
    uint32_t first; /* its first token within the piece */
    int n_tokens;   /* <bos> among them */
} lp_plan_window;

/* Reads and tokenizes the whole corpus, the tokenizing with env->pool; the plan does not depend on it.  LP_E_RANGE: options;
 * LP_CANCELLED; else the corpus's own errors.  On failure *out is empty. */
lp_status lp_plan_make(lp_plan *out, const char *corpus, const lp_tokenizer *t, const lp_plan_options *options,
                       const lp_env *env, lp_error *err);
void lp_plan_clear(lp_plan *p);

/* w below n_windows. */
lp_plan_window lp_plan_get_window(const lp_plan *p, size_t w);

/* Atomically; LP_E_IO. */
lp_status lp_plan_write(const lp_plan *p, const char *path, lp_error *err);
/* Every number is checked against every other, and the hash.  LP_E_FORMAT says what is wrong, and in which line;
 * LP_E_UNSUPPORTED: of a later version.  On failure *out is empty. */
lp_status lp_plan_read(lp_plan *out, const char *path, lp_error *err);
lp_status lp_plan_parse(lp_plan *out, const char *text, size_t n, lp_error *err);

#endif
