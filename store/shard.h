/* shard.h - some tens of thousands of tokens with what SAEs made of them: one sealed HDF5 file that never changes.
 *
 * A shard has n rows, one per token, in the order they were appended: documents ascending, each one's tokens in order.
 * h5py, scipy and anndata read it as it stands, with no plug-in and none of our code:
 *
 *     /                          attributes: lapidary_format "shard", schema_major, schema_minor, run, plan, shard,
 *                                model_hash, tokenizer_hash, token_base, n_tokens, n_documents, vocab, value_bits,
 *                                writer, Conventions; complete = 1, written last
 *     /provenance                JSON, one string
 *     /contents/{sae, dense}     strings: where the SAEs' groups are, and those of the dense sites
 *     /tokens/{id, doc, pos}     i32[n]: the token, the document (its index in this shard), the position in the context
 *     /tokens/excluded           u8[n]: 0 counts; else why the row is in no statistic (LP_ROW_*)
 *     /tokens/logprob            f32[n], optional: ln p of the token that follows; NaN where none does
 *     /tokens/by_id              indptr i64[vocab + 1], rows i32[n]: the rows of a token, ascending
 *     /documents/{doc_id, first_token} i64[d], hash u8[d][16], is_utf8 u8[d], token_ptr i64[d + 1]
 *     /documents/{text, key}     u8[], any bytes, cut by {text, key}_ptr i64[d + 1]
 *     /layers/12/resid_post/sae/NAME    AnnData csr_matrix [n][W]: indptr i64[n + 1], indices i32[z], data f32[z]
 *         recon/{sqerr, norm2}   f32[n]: ||x - x^||^2 and ||x||^2 of the tensor the SAE predicts
 *         recon/sum              f64[d_out]: the sum of x over the rows that count, optional
 *         by_feature             the same as an AnnData csc_matrix: indptr i64[W + 1], indices i32[z], data f32[z]
 *         stats/{n_active, n_docs, max, sum, sumsq, hist}    i64, i32, f32, f64, f64 [W], u32[W][64]
 *     /layers/12/resid_post/dense/values    [n][width] f32, f16, or bfloat16 in u16 (its attribute `decode` says how)
 *
 * What hangs on no layer (embed, final_in) is under /model/embed.  NAME is the SAE's name with "." for "/".  Numbers
 * are little-endian; chunks of 64 KiB, shuffled and deflated; dense values contiguous and raw, so that they can be
 * mapped.
 *
 * In Python:  f = h5py.File("shard-000018.h5");  [anndata.io.read_elem(f[p]) for p in f["contents/sae"].asstr()]
 *
 * FVU over any set of shards, the mean over all rows that count (sae/metrics.h), from sums alone:
 *     sum sqerr / (sum norm2 - |sum of recon/sum|^2 / n)
 *
 * All rows are stored, those that do not count too; by_feature holds them all, stats only those that count.  Statistics
 * are of the values as stored, so anybody can take them again from the file.
 *
 * Values have all their 24 bits unless value_bits says how many of the 23 explicit ones are kept (rounded to the
 * nearest, ties to even; never to or below the feature's threshold, never to infinity).
 *
 * The same rows make the same bytes, however they were cut into blocks, whenever, wherever: no clock, host, path or
 * random number is in the file.  The bytes depend on the versions of libhdf5 and libdeflate; the numbers do not.
 *
 * Sealing: the rows go to FOLDER/.shard-000018.h5.HOST.PID.part; then the transposes and statistics; `complete`;
 * closed, opened anew and checked; flushed; hashed; made read-only; shard-000018.h5.xxh3 (a line for `xxh128sum -c`)
 * and at last the name shard-000018.h5.  Whoever sees that name sees a whole shard; a kill leaves a .part, which
 * nothing reads.
 *
 * Threads: libhdf5 serves one at a time, so every function here takes one lock of the process.  A reader may be shared
 * by any number of threads, which then wait for each other; a writer belongs to one thread at a time.
 *
 * Sources: AnnData's on-disk format (csr_matrix 0.1.0); the HDF5 format, 1.10 features only.
 */
#ifndef LP_STORE_SHARD_H
#define LP_STORE_SHARD_H

#include "sae/encode.h"

enum {
    LP_SHARD_MAJOR = 1, /* another major: not readable; a later minor: readable, with a warning */
    LP_SHARD_MINOR = 0,
    LP_SHARD_TOKENS = 65536, /* the usual size: 800 MB at 26 SAEs of L0 80       */
    LP_SHARD_BINS = 64,
    LP_SHARD_NAME = 200 /* bytes in the name of an SAE */
};

/* Why a row is in no statistic: tokens/excluded. */
enum { LP_ROW_COUNTS, LP_ROW_BOS, LP_ROW_TEMPLATE, LP_ROW_OTHER };

/* ---- what a shard is about: the same struct going in and coming out ---------------------------------------------- */

typedef struct lp_shard_sae {
    const char *name; /* as it is called; two at one place differ, also once "/" is "."           */
    const char *hash; /* lp_sae.hash                                                                 */
    lp_sae_spot spot;
    int d_sae, d_out;
    const float *threshold; /* [d_sae] of a jumprelu, or NULL; writing only                          */
    uint64_t n_values;      /* reading only: non-zeros                                                */
    bool has_sum;           /* recon/sum is there; writing: every block brings `target`                */
} lp_shard_sae;

typedef struct lp_shard_dense {
    lp_site site;
    int layer;     /* or LP_WHOLE_MODEL         */
    int width;     /* floats in a row            */
    lp_dtype type; /* LP_F32, LP_F16, LP_BF16     */
} lp_shard_dense;

typedef struct lp_shard_head {
    const char *run;  /* hash of the run's plan and settings: 32 hex digits; the caller's to define */
    const char *plan; /* hash of the plan                                                             */
    const char *model_hash, *tokenizer_hash;
    const char *provenance; /* JSON with sorted keys and nothing in it that differs between equal runs; kept as it is */
    int number;             /* of the shard in its run: 18 is shard-000018.h5                                      */
    int64_t token_base;     /* tokens of the run before this shard                                                */
    int n_tokens;           /* writing: the plan's, held to at the seal; 0: not known (dense sites need it)        */
    int n_documents;        /* reading only */
    int vocab;              /* ids are below it */
    int value_bits;         /* 1 .. 23; 0: 23   */
    bool has_logprob;
    const lp_shard_sae *saes; /* [n_saes] */
    int n_saes;
    const lp_shard_dense *dense; /* [n_dense] */
    int n_dense;
} lp_shard_head;

/* What an SAE is in a head; borrows its strings and threshold.  has_sum is set. */
lp_shard_sae lp_shard_sae_of(const lp_sae *s);

typedef struct lp_shard_document {
    int64_t id;          /* in the corpus                                                                        */
    int64_t first_token; /* which of the document's tokens is its first one here: above 0 when shards cut it      */
    const char *key;     /* where it came from: any bytes                                                         */
    size_t key_bytes;
    const char *text; /* any bytes, NUL and broken UTF-8 too */
    size_t text_bytes;
    char hash[33]; /* XXH3-128 of the text; writing: "" has it taken, else it is kept (a whole document's, say) */
    /* Reading only: */
    bool is_utf8;
    int first_row, n_rows;
    void *memory; /* what holds key and text */
} lp_shard_document;

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* What an SAE made of the rows of a block. */
typedef struct lp_shard_sae_rows {
    const lp_features *features; /* as lp_encode made them         */
    const float *sqerr, *norm2;  /* [n]                            */
    const float *target;         /* [n][d_out], with has_sum       */
} lp_shard_sae_rows;

/* Rows of one or more documents.  Nothing is kept of it. */
typedef struct lp_shard_block {
    int n;
    const int *id, *pos;           /* [n] */
    const int *doc;                /* [n] documents added before, never falling; NULL: all of the last one */
    const uint8_t *excluded;       /* [n] LP_ROW_*; NULL: all count                                          */
    const float *logprob;          /* [n], with has_logprob                                                  */
    const lp_shard_sae_rows *saes; /* [n_saes]                                                               */
    const float *const *dense;     /* [n_dense] of [n][width]                                                */
} lp_shard_block;

typedef struct lp_shard_writer lp_shard_writer;

/* Makes the .part in `folder`, which exists.  The head is copied (thresholds stay borrowed), env too.  expected_bytes:
 * what the sealed file may come to, 0: not known; LP_E_IO when the disk has no room for 1.3 times that.  LP_E_RANGE: a
 * bad head. */
lp_status lp_shard_begin(lp_shard_writer **out, const char *folder, const lp_shard_head *h, uint64_t expected_bytes,
                         const lp_env *env, lp_error *err);
/* A document, empty ones too; its rows come after.  Copied; all documents of a shard stay in memory until the seal. */
lp_status lp_shard_add_document(lp_shard_writer *w, const lp_shard_document *d, lp_error *err);
/* LP_E_RANGE names the row, the place and the feature: an id outside the vocabulary, a feature outside the SAE, a value
 * that is not finite and above 0, a dense value that is not finite or too large for f16.  After a failure the writer
 * only closes.  LP_CANCELLED when env.cancel is up. */
lp_status lp_shard_add_rows(lp_shard_writer *w, const lp_shard_block *b, lp_error *err);

typedef struct lp_shard_sealed {
    char name[32]; /* "shard-000018.h5" */
    char hash[33]; /* XXH3-128 of the file's bytes */
    uint64_t bytes, n_values;
    bool was_there; /* somebody else sealed the same shard first, with the same bytes */
} lp_shard_sealed;

/* As at the top of this file.  `out` may be NULL.  LP_E_FORMAT: the name is taken by a shard with other bytes, or what
 * was written does not read back.  Cancelled: LP_CANCELLED, nothing sealed. */
lp_status lp_shard_seal(lp_shard_writer *w, lp_shard_sealed *out, lp_error *err);
/* Gives up what is not sealed: the .part goes.  NULL is fine. */
void lp_shard_writer_close(lp_shard_writer *w);

/* Takes away the .part files in `folder` that nobody is writing; *n (may be NULL): how many. */
lp_status lp_shard_sweep(const char *folder, int *n, lp_error *err);

/* ---- verifying --------------------------------------------------------------------------------------------------- */

typedef struct lp_shard_verify_options {
    const char *hash; /* the file's; NULL: what its .xxh3 says                              */
    int no_hash;      /* 1: a file that came without one; only what is inside is checked    */
    int seconds;      /* 0: 60, and one more for every MB                                   */
} lp_shard_verify_options;

/* The bytes against their hash, before libhdf5 sees any of them; then, in a child process with a limit of time and
 * memory, since damaged files can make libhdf5 spin or crash, every invariant: pointers, order, ranges, csc = csr
 * transposed, statistics as recomputed, no chunk unfiltered.  o NULL: defaults.  LP_E_FORMAT with one line on what is
 * wrong. */
lp_status lp_shard_verify(const char *path, const lp_shard_verify_options *o, const lp_env *env, lp_error *err);

/* XXH3-128 of a file's bytes, as 32 hex digits. */
lp_status lp_file_hash(char out[33], const char *path, const lp_env *env, lp_error *err);
/* What the .xxh3 beside `path` says; LP_E_NOT_FOUND: there is none. */
lp_status lp_shard_side_hash(char out[33], const char *path, lp_error *err);

/* ---- reading ----------------------------------------------------------------------------------------------------- */

typedef struct lp_shard lp_shard;

typedef enum lp_shard_trust {
    LP_SHARD_HASHED,  /* the bytes are compared with the .xxh3 first: about a second per GB                */
    LP_SHARD_TRUSTED, /* only for a file that was verified: damage can make libhdf5 spin                    */
} lp_shard_trust;

/* LP_E_FORMAT: not a shard, torn, damaged; LP_E_UNSUPPORTED: of a later format.  Links, external storage and foreign
 * filters are never followed. */
lp_status lp_shard_open(lp_shard **out, const char *path, lp_shard_trust trust, const lp_env *env, lp_error *err);
void lp_shard_close(lp_shard *s); /* NULL is fine */
const lp_shard_head *lp_shard_get_head(const lp_shard *s);

/* Index of the SAE called `name` (or with that hash), of the dense site; -1: none. */
int lp_shard_find_sae(const lp_shard *s, const char *name);
int lp_shard_find_dense(const lp_shard *s, lp_site site, int layer);

/* Rows first .. first + n - 1 into arrays of yours [n]; NULL: not wanted.  LP_E_RANGE outside the shard, also below. */
typedef struct lp_shard_tokens {
    int *id, *doc, *pos;
    uint8_t *excluded;
    float *logprob;
} lp_shard_tokens;
lp_status lp_shard_read_tokens(const lp_shard *s, int first, int n, const lp_shard_tokens *out, lp_error *err);

/* The rows of a token id, ascending, into *rows, which grows; all zero is an empty one. */
typedef struct lp_shard_postings {
    size_t n;
    int *row;     /* [n] ascending                                    */
    float *value; /* [n]; of a token: unused                           */
    size_t capacity_row, capacity_value;
} lp_shard_postings;
void lp_shard_postings_free(lp_shard_postings *p); /* its contents; NULL is fine */
lp_status lp_shard_read_token(lp_shard_postings *out, const lp_shard *s, int id, lp_error *err);
/* Every row a feature fires on, those that do not count too. */
lp_status lp_shard_read_feature(lp_shard_postings *out, const lp_shard *s, int sae, int feature, lp_error *err);
/* Features of rows as they were encoded; *out is emptied and keeps its memory. */
lp_status lp_shard_read_rows(lp_features *out, const lp_shard *s, int sae, int first, int n, lp_error *err);
/* The other way round: the postings of many features in one go.  Line f of *out is feature first + f, its `index` are rows of
 * the shard.  Stops before the feature that would carry it over `most` postings, but not before the first: out->n_rows
 * says how many features it holds. */
lp_status lp_shard_read_by_feature(lp_features *out, const lp_shard *s, int sae, int first, int n, size_t most,
                                   lp_error *err);

/* Per feature, over the rows that count; arrays of yours [n], hist [n][LP_SHARD_BINS]; NULL: not wanted. */
typedef struct lp_shard_stats {
    int64_t *n_active; /* rows it fires on            */
    int *n_docs;       /* documents it fires in        */
    float *max;
    double *sum, *sumsq; /* in the order of the rows  */
    uint32_t *hist;
} lp_shard_stats;
lp_status lp_shard_read_stats(const lp_shard *s, int sae, int first, int n, const lp_shard_stats *out, lp_error *err);
/* The bin of a value: 64 of a quarter octave, floor(4 log2 v) + 16, the first and last hold what lies beyond. */
int lp_shard_bin(float v);

/* sqerr, norm2 [n] of rows; sum [d_out]; NULL: not wanted. */
lp_status lp_shard_read_recon(const lp_shard *s, int sae, int first, int n, float *sqerr, float *norm2, lp_error *err);
lp_status lp_shard_read_sum(const lp_shard *s, int sae, double *sum, lp_error *err);
/* [n][width] as f32. */
lp_status lp_shard_read_dense(const lp_shard *s, int dense, int first, int n, float *out, lp_error *err);

/* The rows of a document, without a look at the disk. */
void lp_shard_document_rows(const lp_shard *s, int doc, int *first, int *n);
lp_status lp_shard_read_document(lp_shard_document *out, const lp_shard *s, int doc, lp_error *err);
void lp_shard_document_free(lp_shard_document *d); /* what reading filled; NULL is fine */

#endif
