/* npz.h - NumPy's .npz: named arrays in a zip file, each read once from front to back as f32.
 *
 * The container is libzip's business: stored or deflated members, zip64, files over 2 GiB, checksums.  Ours is the header
 * of each member (numpy/lib/format.py): magic, version 1 to 3, a Python dict with descr, fortran_order and shape.
 * Little-endian f2, f4 and f8 are read; the values are converted to f32 (f8 rounds).  Whole numbers of 2, 4 and 8 bytes are
 * read as such.  Nothing is cast in place: members
 * lie at any offset.
 */
#ifndef LP_SAE_NPZ_H
#define LP_SAE_NPZ_H

#include "core/base.h"

enum { LP_NPZ_MAX_DIMS = 4 };

typedef struct lp_npz_array {
    char *name;  /* without ".npy"; owned by the file */
    int element; /* bytes of one: 2, 4, 8             */
    char kind;   /* 'f', or of whole numbers 'i', 'u' */
    int n_dims;
    int64_t shape[LP_NPZ_MAX_DIMS];
    bool is_fortran; /* the first index runs fastest in the file */
    uint64_t n;      /* elements                                 */
    uint64_t index;  /* of the zip member                        */
} lp_npz_array;

typedef struct lp_npz lp_npz;

/* Reads the directory and every member's header.  LP_E_FORMAT: no zip file, a member that is no array, a size that is
 * not what its shape calls for. */
lp_status lp_npz_open(lp_npz **out, const char *path, lp_error *err);
void lp_npz_close(lp_npz *z); /* NULL is fine */

int lp_npz_count(const lp_npz *z);
const lp_npz_array *lp_npz_at(const lp_npz *z, int i);
/* By name; NULL: not there.  Case matters. */
const lp_npz_array *lp_npz_find(const lp_npz *z, const char *name);

/* Reading one array: begin, then any number of pieces in the file's order, then end, which fails when elements are left
 * or the checksum is wrong.  One array at a time. */
lp_status lp_npz_begin(lp_npz *z, const lp_npz_array *a, lp_error *err);
lp_status lp_npz_read(lp_npz *z, float *out, size_t n, lp_error *err);         /* of kind 'f', else LP_E_UNSUPPORTED */
lp_status lp_npz_read_whole(lp_npz *z, int64_t *out, size_t n, lp_error *err); /* of another; LP_E_RANGE above 2^63 */
lp_status lp_npz_end(lp_npz *z, lp_error *err);

#endif
