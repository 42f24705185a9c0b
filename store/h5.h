/* h5.h - libhdf5 as this folder uses it, and nowhere else: one lock, errors in one line, files whose bytes depend on
 * their content alone, data sets as streams of rows going in and as checked arrays coming out.
 *
 * libhdf5 keeps state for the whole process and is not safe for threads in every build, so whoever calls anything here
 * but lp_h5_lock holds that lock.  It prints nothing, and nothing of it runs at exit: after a full disk its exit
 * handler crashes.
 *
 * Going in, a column is cut into chunks of 64 KiB, shuffled and deflated (libdeflate) by us and handed over ready
 * (H5Dwrite_chunk): twice as fast as its own filter, 10 % smaller, and any reader undoes it with the two filters every
 * build has.  Coming out, what a file says of itself is not believed: links must be hard, types and ranks as expected,
 * filters those two and the checksum, storage inside the file, and no data set may claim more than deflate can have
 * packed into the bytes it holds.
 *
 * [1] HDF5 File Format Specification 3.0   [2] HDFGroup/hdf5#1707: a damaged file can make libhdf5 spin
 */
#ifndef LP_STORE_H5_H
#define LP_STORE_H5_H

#include "core/base.h"

#include <hdf5.h>

void lp_h5_lock(void);
void lp_h5_unlock(void);

/* Fills err with the format's text and, after ": ", what libhdf5 says is at the bottom of its last failure. */
lp_status lp_h5_fail(lp_error *err, lp_status st, const char *fmt, ...) LP_PRINTF(3, 4);

/* ---- files, groups, attributes ---------------------------------------------------------------------------------- */

lp_status lp_h5_create(hid_t *file, const char *path, lp_error *err); /* must not exist */
lp_status lp_h5_open(hid_t *file, const char *path, lp_error *err);   /* read only      */
/* What is buffered goes to the system first, since closing does not say when that fails.  *file is closed and -1
 * whatever happens. */
lp_status lp_h5_close(hid_t *file, lp_error *err);

/* The group at `path` below `at`, made with all that leads there. */
lp_status lp_h5_make_group(hid_t *group, hid_t at, const char *path, lp_error *err);
lp_status lp_h5_open_group(hid_t *group, hid_t at, const char *path, lp_error *err);
void lp_h5_close_group(hid_t *group); /* -1 is fine; becomes -1 */

lp_status lp_h5_put_text(hid_t at, const char *name, const char *text, lp_error *err);
lp_status lp_h5_put_ints(hid_t at, const char *name, const int64_t *v, int n, lp_error *err); /* n 0: a scalar */
lp_status lp_h5_put_int(hid_t at, const char *name, int64_t v, lp_error *err);
/* A data set of strings [n]; n -1: a scalar. */
lp_status lp_h5_put_strings(hid_t at, const char *name, const char *const *text, int n, lp_error *err);

/* Yours to free.  LP_E_FORMAT: not there, or not a text of UTF-8. */
lp_status lp_h5_get_text(char **out, hid_t at, const char *name, lp_error *err);
lp_status lp_h5_get_ints(int64_t *out, hid_t at, const char *name, int n, lp_error *err);
/* A scalar within [low, high]. */
lp_status lp_h5_get_int(int64_t *out, hid_t at, const char *name, int64_t low, int64_t high, lp_error *err);
bool lp_h5_has(hid_t at, const char *name); /* a hard link of that name */
/* At most `limit`.  *out [*n] and each text are yours: lp_h5_free_strings. */
lp_status lp_h5_get_strings(char ***out, int *n, hid_t at, const char *name, int limit, lp_error *err);
void lp_h5_free_strings(char **text, int n);

/* ---- data sets --------------------------------------------------------------------------------------------------- */

typedef enum lp_h5_type {
    LP_H5_U8,
    LP_H5_U16,
    LP_H5_F16,
    LP_H5_U32,
    LP_H5_I32,
    LP_H5_F32,
    LP_H5_I64,
    LP_H5_F64
} lp_h5_type;
size_t lp_h5_size(lp_h5_type t);
hid_t lp_h5_type_of(lp_h5_type t); /* a copy, to close */

typedef struct lp_h5_deflater {
    struct libdeflate_compressor *compressor;
    unsigned char *shuffled, *packed;
    size_t room;
} lp_h5_deflater;

lp_status lp_h5_deflater_new(lp_h5_deflater *d, lp_error *err);
void lp_h5_deflater_free(lp_h5_deflater *d);

typedef struct lp_h5_column {
    hid_t set; /* -1: closed, as all zero is not */
    size_t row, chunk_rows, element;
    int width; /* 0: one-dimensional */
    uint64_t n, held;
    unsigned char *chunk;
} lp_h5_column;

#define LP_H5_NO_COLUMN                                                                                                \
    {                                                                                                                  \
        .set = -1                                                                                                      \
    }

/* [0][width] that grows by rows. */
lp_status lp_h5_column_begin(lp_h5_column *c, hid_t at, const char *name, lp_h5_type t, int width, lp_error *err);
lp_status lp_h5_column_put(lp_h5_column *c, const void *rows, size_t n, lp_h5_deflater *d, lp_error *err);
lp_status lp_h5_column_end(lp_h5_column *c, lp_h5_deflater *d, lp_error *err);
void lp_h5_column_close(lp_h5_column *c); /* gives up what is not ended */
/* All at once. */
lp_status lp_h5_put_column(hid_t at, const char *name, lp_h5_type t, int width, const void *rows, size_t n,
                           lp_h5_deflater *d, lp_error *err);

/* [n][width], raw and in one piece, its place taken at once. */
lp_status lp_h5_make_plain(hid_t *set, hid_t at, const char *name, lp_h5_type t, uint64_t n, int width, lp_error *err);
lp_status lp_h5_write_plain(hid_t set, lp_h5_type t, uint64_t first, uint64_t n, int width, const void *rows,
                            lp_error *err);
lp_status lp_h5_close_plain(hid_t *set, lp_error *err); /* -1 is fine; becomes -1 */

/* A virtual set: rows that lie in other files, one part after the other.  Where a source is gone libhdf5 gives the fill
 * value and no error, so that is one nobody takes for data: NaN, -1, the largest of what has no sign. */
typedef struct lp_h5_source {
    const char *file; /* beside the file that is written */
    uint64_t n;       /* rows of the set that has the same path there */
} lp_h5_source;
/* path: of the sets in the sources, and of the new one, whose group exists; no source with rows: an empty set. */
lp_status lp_h5_put_virtual(hid_t file, const char *path, lp_h5_type t, int width, const lp_h5_source *sources,
                            size_t n, lp_error *err);

typedef struct lp_h5_set {
    hid_t id; /* -1: closed */
    lp_h5_type type;
    uint64_t n; /* rows */
    int width;  /* 0: one-dimensional */
} lp_h5_set;

/* `name` may be a path.  n: the rows it must have, UINT64_MAX: any. */
lp_status lp_h5_set_open(lp_h5_set *s, hid_t at, const char *name, lp_h5_type t, uint64_t n, int width, lp_error *err);
void lp_h5_set_close(lp_h5_set *s);
lp_status lp_h5_set_read(const lp_h5_set *s, uint64_t first, uint64_t n, void *out, lp_error *err);
/* Opened as one of `of` rows, a part of it read, closed; out NULL: not wanted. */
lp_status lp_h5_get_part(void *out, hid_t at, const char *name, lp_h5_type t, uint64_t of, int width, uint64_t first,
                         uint64_t n, lp_error *err);
/* All of it. */
lp_status lp_h5_get_column(void *out, hid_t at, const char *name, lp_h5_type t, uint64_t n, int width, lp_error *err);
/* Every chunk of a deflated set went through its filters. */
lp_status lp_h5_set_check_chunks(const lp_h5_set *s, const char *name, lp_error *err);

#endif
