/* corpus.h - a corpus as a stream of documents, and of pieces of them that are small enough to be tokenized.
 *
 * What a document is:
 *     *.jsonl      one line: a JSON object whose `field` is a string; its value is the text
 *     *.txt        the whole file; or each line, or each paragraph (what lies between lines of blanks)
 * Either may be compressed by gzip; that is told by the first bytes, whatever the file is called.  Offsets and lengths
 * are those of the decompressed file.
 *
 * Text is bytes, and nothing of it is changed: NULs, invalid UTF-8 and CR stay (a file with CRLF line ends is named in the
 * log).  The tokenizer turns a byte that begins no character into U+FFFD and everything else, NUL too, into pieces of its
 * own, and still says which bytes a token stands for.  Left out are: a UTF-8 byte order mark at the start of a file; the
 * line end of a document that is a line (LF or CRLF) and the last one of a paragraph; lines of nothing but blanks, space,
 * tab and CR, where a line or JSON line is a document.  UTF-16 is refused.
 *
 * An empty file, or a line whose field is "", is a document of no bytes, and stays one.
 *
 * JSON is strict (RFC 8259): broken JSON, invalid UTF-8, half a surrogate pair, a line that is no object or lacks the
 * field, a field that is no string, are errors that name file and line; `skip_bad` passes such lines over and counts them.
 * A line of more than record_bytes is an error in any case.
 *
 * Memory: a JSON line is held whole; a text is read piece by piece.  A document longer than piece_bytes is cut after the
 * last newline within that many bytes, else before the last space, else where a character begins, else just there.  Each
 * piece is tokenized on its own, so a cut may part what would have been one token.
 */
#ifndef LP_STORE_CORPUS_H
#define LP_STORE_CORPUS_H

#include "store/corpus_files.h"

typedef enum lp_corpus_split { LP_SPLIT_NONE, LP_SPLIT_LINES, LP_SPLIT_PARAGRAPHS } lp_corpus_split; /* of text files */

enum { LP_PIECE_BYTES = 1 << 20, LP_RECORD_BYTES = 64 << 20, LP_CORPUS_KEY = 1024 };

typedef struct lp_corpus_options { /* all zero is a good default */
    lp_corpus_split split;
    const char *field;   /* of a JSON line; NULL: "text" */
    const char *key;     /* of a JSON line: a string or whole number; NULL: documents have no key but their line */
    bool skip_bad;       /* pass over lines that hold no document */
    size_t record_bytes; /* the longest JSON line, 64 to 2^30; 0: LP_RECORD_BYTES */
    size_t piece_bytes;  /* 16 to LP_RECORD_BYTES; 0: LP_PIECE_BYTES */
} lp_corpus_options;

typedef struct lp_document {
    size_t file;             /* which of the files */
    int64_t line;            /* its first line, from 1 */
    uint64_t offset, length; /* of the line, paragraph or file, in the file */
    const char *key;         /* NULL: none; good until the next document */
    uint64_t n_bytes;        /* of its text */
} lp_document;

typedef struct lp_corpus lp_corpus;

/* Finds the files.  `options` NULL: all zero; its strings are borrowed for the life of the corpus. */
lp_status lp_corpus_open(lp_corpus **out, const char *path, const lp_corpus_options *options, const lp_env *env,
                         lp_error *err);
/* On files that are known already; they are borrowed. */
lp_status lp_corpus_on(lp_corpus **out, const lp_corpus_files *files, const lp_corpus_options *options,
                       const lp_env *env, lp_error *err);
void lp_corpus_close(lp_corpus *c); /* NULL is fine */

const lp_corpus_files *lp_corpus_get_files(const lp_corpus *c);
int64_t lp_corpus_skipped(const lp_corpus *c); /* lines passed over so far because of skip_bad */
/* Bytes of the files, as they lie on the disk, that are behind us, and of all. */
void lp_corpus_progress(const lp_corpus *c, int64_t *done, int64_t *of);

/* The next document; *out is NULL after the last.  LP_E_FORMAT, LP_E_IO: "FILE:LINE: what is wrong"; LP_CANCELLED. */
lp_status lp_corpus_next(lp_corpus *c, const lp_document **out, lp_error *err);
/* The next piece of that document, borrowed until the next call; *n is 0 after the last. */
lp_status lp_corpus_piece(lp_corpus *c, const char **text, size_t *n, lp_error *err);

/* Goes to a document out of order: d's file, line, offset and length say which; key and n_bytes are filled in. */
lp_status lp_corpus_load(lp_corpus *c, lp_document *d, lp_error *err);
/* n bytes of its text from `at` on, n at most piece_bytes; borrowed until the next call. */
lp_status lp_corpus_bytes(lp_corpus *c, uint64_t at, size_t n, const char **text, lp_error *err);

/* Fills in defaults; LP_E_RANGE. */
lp_status lp_corpus_check_options(lp_corpus_options *o, lp_error *err);

/* Where a text of n bytes is cut for pieces of at most piece_bytes: the length of the first. */
size_t lp_corpus_cut(const char *text, size_t n, size_t piece_bytes);

#endif
