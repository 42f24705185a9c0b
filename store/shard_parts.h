/* shard_parts.h - what writing, sealing, reading and checking a shard share; private to this folder. */
#ifndef LP_STORE_SHARD_PARTS_H
#define LP_STORE_SHARD_PARTS_H

#include "store/h5.h"
#include "store/shard.h"

enum {
    LP_SHARD_PATH = 320,   /* of an SAE's group, with the NUL */
    LP_SHARD_SPOTS = 4096, /* SAEs, or dense sites             */
    LP_SHARD_WIDTH = 1 << 24,
    LP_SHARD_ALL_BITS = 23
};

/* ---- heads ------------------------------------------------------------------------------------------------------- */

/* Copies everything but thresholds, which stay borrowed, and fills in what is left out (value_bits 0, NULL texts).  On
 * failure *out is empty. */
lp_status lp_shard_head_copy(lp_shard_head *out, const lp_shard_head *h, lp_error *err);
void lp_shard_head_free(lp_shard_head *h); /* of a copy, or one that reading filled */
/* LP_E_RANGE: cannot be written. */
lp_status lp_shard_head_check(const lp_shard_head *h, lp_error *err);

/* "layers/12/resid_post" or "model/embed"; with an SAE's or the dense values' place below. */
typedef struct lp_shard_path {
    char text[LP_SHARD_PATH];
} lp_shard_path;
lp_shard_path lp_shard_sae_path(const lp_shard_sae *s);
lp_shard_path lp_shard_dense_path(const lp_shard_dense *d); /* of the group `dense` */

bool lp_is_hash(const char *s); /* 32 hex digits, small letters */

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

/* v at `bits` explicit bits of mantissa, still above `threshold` and below infinity. */
float lp_shard_round(float v, int bits, float threshold);

typedef struct lp_shard_stat {
    int64_t n_active;
    int n_docs;
    float max;
    double sum, sumsq;
    uint32_t hist[LP_SHARD_BINS];
} lp_shard_stat;

/* Of a feature's postings, rows ascending. */
lp_shard_stat lp_shard_stat_of(const int *row, const float *value, size_t n, const uint8_t *excluded, const int *doc);

lp_h5_type lp_shard_dense_type(lp_dtype t);

/* ---- what a file says of itself, with the lock held -------------------------------------------------------------- */

/* AnnData's attributes of a csr_matrix and ours. */
lp_status lp_shard_put_sae(hid_t group, const lp_shard_sae *s, int64_t rows, int64_t n_values, lp_error *err);
lp_status lp_shard_put_dense(hid_t set, const lp_shard_dense *d, lp_error *err); /* how to decode it */
/* /contents: where to find what, in the order of the head. */
lp_status lp_shard_put_contents(hid_t file, const lp_shard_head *h, lp_error *err);

/* ---- reading, with the lock held --------------------------------------------------------------------------------- */

typedef struct lp_shard_sets { /* of one SAE; opened when first used */
    bool is_open;
    hid_t group;
    lp_h5_set indptr, indices, data, by_indptr, by_indices, by_data;
} lp_shard_sets;

/* Data sets of tokens and documents, kept open once used: the chunk that holds a row often holds the next one asked
 * for. */
typedef struct lp_shard_kept {
    const char *name; /* a literal; NULL: free */
    lp_h5_set set;
} lp_shard_kept;

enum { LP_SHARD_KEPT = 16 };

struct lp_shard {
    lp_shard_head head;
    char *path;
    hid_t file;
    int *token_ptr; /* [n_documents + 1] */
    lp_shard_sets *saes;
    lp_shard_kept *kept; /* [LP_SHARD_KEPT] */
};

lp_status lp_shard_open_locked(lp_shard **out, const char *path, const lp_env *env, lp_error *err);
void lp_shard_close_locked(lp_shard *s);
lp_status lp_shard_sets_of(lp_shard_sets **out, const lp_shard *s, int sae, lp_error *err);
void lp_shard_sets_close(lp_shard_sets *x);
lp_status lp_shard_read_stats_locked(const lp_shard *s, int sae, int first, int n, const lp_shard_stats *out,
                                     lp_error *err);
lp_status lp_shard_read_dense_locked(const lp_shard *s, int dense, int first, int n, float *out, lp_error *err);
/* Every invariant of an open shard; takes the lock by itself, SAE by SAE, so without it. */
lp_status lp_shard_check(const lp_shard *s, const lp_env *env, lp_error *err);

/* ---- the file and its neighbour ---------------------------------------------------------------------------------- */

/* The file's bytes against `hash`, or NULL: against the line beside it. */
lp_status lp_shard_check_hash(const char *path, const char *hash, const lp_env *env, lp_error *err);
/* Writes `hash` beside `path`. */
lp_status lp_shard_write_side(const char *path, const char *hash, lp_error *err);
/* The folder itself to the disk, as far as its file system can. */
void lp_sync_folder(const char *folder);

/* This machine's name as it stands in the name of a .part.  shard_file.c */
enum { LP_SHARD_HOST = 65 };
void lp_shard_host(char out[LP_SHARD_HOST]);

#endif
