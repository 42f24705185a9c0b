/* gguf_meta.h - private to gguf.c and gguf_meta.c: the metadata of a GGUF file as it lies in memory. */
#ifndef LP_CORE_GGUF_META_H
#define LP_CORE_GGUF_META_H

#include "core/gguf.h"

typedef struct lp_meta_item {
    const char *key; /* in the block, not terminated; NULL before lp_meta_settle, when only key_at holds */
    size_t key_at, key_len;
    lp_gguf_type type, element; /* element: of an array                                   */
    uint64_t n;                 /* elements of an array, bytes of a string                */
    size_t at;                  /* of the value, or of its first element or byte          */
    uint32_t *strings;          /* array of strings: where the length of each one stands  */
} lp_meta_item;

typedef struct lp_meta {
    unsigned char *block;
    lp_meta_item *items; /* sorted by key once settled */
    size_t n, capacity;
} lp_meta;

struct lp_gguf {
    lp_tensors tensors;
    lp_meta meta;
};

extern const uint8_t lp_meta_bytes[LP_GGUF_N_TYPES]; /* of a value; 0 for strings and arrays */

/* Takes over the block, in which every item's offsets are valid; sorts by key.  A key that occurs twice is refused. */
lp_status lp_meta_settle(lp_meta *m, unsigned char *block, const char *path, lp_error *err);
/* Do key_len bytes at `a` spell `key`? */
bool lp_meta_is(const unsigned char *a, size_t n, const char *key);
bool lp_meta_int(const lp_meta *m, const char *key, int64_t *out);
void lp_meta_clear(lp_meta *m);

#endif
