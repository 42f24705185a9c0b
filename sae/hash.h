/* hash.h - how hashes are spelled: XXH3-128, big-endian, 32 hex digits.  For sources alone:
 * no public header shows xxhash. */
#ifndef LP_SAE_HASH_H
#define LP_SAE_HASH_H

#include <stdio.h>
#include <xxhash.h>

static inline void lp_hash_text(char out[33], XXH128_hash_t h)
{
    XXH128_canonical_t bytes;
    XXH128_canonicalFromHash(&bytes, h);
    for (int i = 0; i < 16; i++) snprintf(out + 2 * i, 3, "%02x", bytes.digest[i]);
}

#endif
