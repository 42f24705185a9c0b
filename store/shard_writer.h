/* shard_writer.h - a shard being written: what shard_write.c fills and shard_seal.c seals; private to the two. */
#ifndef LP_STORE_SHARD_WRITER_H
#define LP_STORE_SHARD_WRITER_H

#include "store/shard_parts.h"

/* Bytes and where each piece of them ends. */
typedef struct lp_shard_bytes {
    char *bytes;
    size_t n, capacity;
    int64_t *end; /* [n_documents + 1], end[0] = 0 */
    size_t capacity_end;
} lp_shard_bytes;

typedef struct lp_shard_stream { /* of one SAE */
    hid_t group;
    lp_h5_column indptr, indices, data, sqerr, norm2;
    double *sum; /* [d_out] */
    int64_t n_values;
} lp_shard_stream;

struct lp_shard_writer {
    lp_shard_head head; /* n_tokens: what was asked for */
    lp_env env;
    char *folder, *part, *path; /* path: what it will be */
    hid_t file;
    lp_h5_deflater deflater;
    bool failed, owns_part;

    int n; /* rows so far; what is known of each is kept until the seal */
    int *id, *doc, *pos;
    uint8_t *excluded;
    float *logprob;
    size_t room_id, room_doc, room_pos, room_excluded, room_logprob;

    int n_documents;
    int64_t *doc_id, *first_token;
    uint8_t (*hash)[16], *is_utf8;
    size_t room_doc_id, room_first_token, room_hash, room_is_utf8;
    lp_shard_bytes text, key;

    lp_shard_stream *saes; /* [n_saes] */
    hid_t *dense;          /* [n_dense] */
    float *rounded;        /* a row's values */
    size_t room_rounded;
    void *packed; /* a block of dense values as they are kept */
    size_t room_packed;
};

#endif
