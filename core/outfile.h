/* outfile.h - a file that is either written whole or not there.
 *
 * Bytes go to a neighbour with a temporary name; end flushes them to the disk and renames, so whoever looks under
 * the real name sees the old file or the new one and never a half.  A write that fails or is given up leaves nothing.
 */
#ifndef LP_CORE_OUTFILE_H
#define LP_CORE_OUTFILE_H

#include "core/base.h"

typedef struct lp_outfile {
    int fd;           /* -1: closed */
    char *path, *tmp; /* owned */
    unsigned char *buf;
    size_t held; /* bytes in buf */
    uint64_t at; /* bytes written so far, held ones too */
} lp_outfile;

lp_status lp_outfile_open(lp_outfile *f, const char *path, lp_error *err);
lp_status lp_outfile_write(lp_outfile *f, const void *data, size_t bytes, lp_error *err);
lp_status lp_outfile_pad(lp_outfile *f, uint64_t to, lp_error *err); /* zero bytes up to offset `to` */
lp_status lp_outfile_end(lp_outfile *f, lp_error *err);              /* the file appears; f is closed */
void lp_outfile_close(lp_outfile *f);                                /* gives up what is not ended   */

/* A file that is one text, and `tail` after it ("\n", or ""): all of the above. */
lp_status lp_outfile_text(const char *path, const char *text, const char *tail, lp_error *err);

#endif
