/* stream.c - see stream.h. */
#include "store/stream.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

void lp_stream_close(lp_stream *s)
{
    if (s->f) gzclose(s->f);
    free(s->path);
    *s = (lp_stream){0};
}

lp_status lp_stream_open(lp_stream *s, const char *root, const char *name, lp_error *err)
{
    lp_file file;
    lp_stream_close(s);
    char *path = lp_path_join(root, name);
    if (!path) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", name);
    lp_status st = lp_file_open(&file, path, err); /* which refuses what is no regular file */
    if (st == LP_OK) {
        int fd = dup(file.fd);
        s->f = fd < 0 ? NULL : gzdopen(fd, "rb");
        if (!s->f) st = lp_fail(err, fd < 0 ? LP_E_IO : LP_E_MEMORY, "%s: cannot open it for reading", path);
        if (!s->f && fd >= 0) close(fd);
        lp_file_close(&file);
    }
    if (s->f) gzbuffer(s->f, LP_STREAM_BUFFER);
    s->path = path;
    if (st != LP_OK) lp_stream_close(s);
    return st;
}

static lp_status wrong(const lp_stream *s, lp_error *err)
{
    int code;
    const char *text = gzerror(s->f, &code);
    if (code == Z_MEM_ERROR) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", s->path);
    if (code == Z_ERRNO) return lp_fail(err, LP_E_IO, "%s: %s", s->path, strerror(errno));
    return lp_fail(err, LP_E_FORMAT, "%s: damaged or incomplete gzip data: %s", s->path, text);
}

lp_status lp_stream_read(lp_stream *s, void *to, size_t n, size_t *got, lp_error *err)
{
    *got = 0;
    while (*got < n) {
        size_t want = n - *got < 1u << 30 ? n - *got : 1u << 30;
        int k = gzread(s->f, (char *)to + *got, (unsigned)want), code = Z_OK;
        if (k >= 0) gzerror(s->f, &code); /* a file that ends too early says so only here */
        if (k < 0 || code < 0) return wrong(s, err);
        if (k == 0) break;
        *got += (size_t)k;
        s->at += (uint64_t)k;
    }
    return LP_OK;
}

/* gzseek drops its buffer even for a step of one byte, so short ways forward are read. */
lp_status lp_stream_seek(lp_stream *s, uint64_t to, lp_error *err)
{
    char skipped[4096];
    while (to > s->at && to - s->at <= LP_STREAM_BUFFER) {
        size_t n = to - s->at < sizeof skipped ? (size_t)(to - s->at) : sizeof skipped, got;
        LP_TRY(lp_stream_read(s, skipped, n, &got, err));
        if (got < n) return lp_fail(err, LP_E_FORMAT, "%s: ends before byte %" PRIu64, s->path, to);
    }
    if (to == s->at) return LP_OK;
    if (gzseek(s->f, (z_off_t)to, SEEK_SET) < 0) return wrong(s, err);
    s->at = to;
    return LP_OK;
}

uint64_t lp_stream_disk_bytes(const lp_stream *s)
{
    z_off_t n = s->f ? gzoffset(s->f) : 0;
    return n > 0 ? (uint64_t)n : 0;
}
