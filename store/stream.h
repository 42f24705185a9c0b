/* stream.h - a file as a stream of bytes, decompressed where it begins like gzip data, with ways to go elsewhere in it.
 *
 * Going forward in a compressed file decompresses what lies between; going back begins at its start.
 */
#ifndef LP_STORE_STREAM_H
#define LP_STORE_STREAM_H

#include "core/base.h"

enum { LP_STREAM_BUFFER = 1 << 16 };

struct gzFile_s;

typedef struct lp_stream { /* all zero is a closed one */
    struct gzFile_s *f;
    char *path;
    uint64_t at; /* of the decompressed file */
} lp_stream;

/* Closes what is open; root/name must be a regular file. */
lp_status lp_stream_open(lp_stream *s, const char *root, const char *name, lp_error *err);
/* Up to n bytes; *got is less only at the end.  LP_E_FORMAT: gzip data that is damaged or ends too early. */
lp_status lp_stream_read(lp_stream *s, void *to, size_t n, size_t *got, lp_error *err);
/* A place behind the end may be refused here, or read as nothing. */
lp_status lp_stream_seek(lp_stream *s, uint64_t to, lp_error *err);
uint64_t lp_stream_disk_bytes(const lp_stream *s); /* of the file as it lies on the disk, read so far */
void lp_stream_close(lp_stream *s);

#endif
