/* outfile.c - see outfile.h. */
#include "core/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER = 1 << 16, TRIES = 100 };

static lp_status system_error(const lp_outfile *f, lp_error *err)
{
    return lp_fail(err, LP_E_IO, "%s: cannot write: %s", f->path, strerror(errno));
}

/* Not mkstemp: the file shall have the mode the umask gives, as any other the person makes. */
static lp_status open_neighbour(lp_outfile *f, lp_error *err)
{
    for (int i = 0; i < TRIES; i++) {
        f->tmp = lp_format("%s.%ld-%d.tmp", f->path, (long)getpid(), i);
        if (!f->tmp) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", f->path);
        f->fd = open(f->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (f->fd >= 0) return LP_OK;
        free(f->tmp);
        f->tmp = NULL;
        if (errno != EEXIST) break;
    }
    return system_error(f, err);
}

lp_status lp_outfile_open(lp_outfile *f, const char *path, lp_error *err)
{
    *f = (lp_outfile){.fd = -1};
    if (lp_is_dir(path)) return lp_fail(err, LP_E_IO, "%s: cannot write: is a folder", path);
    f->path = lp_strdup(path);
    f->buf = malloc(BUFFER);
    lp_status st = f->path && f->buf ? open_neighbour(f, err) : lp_fail(err, LP_E_MEMORY, "%s: out of memory", path);
    if (st != LP_OK) lp_outfile_close(f);
    return st;
}

static lp_status put(lp_outfile *f, const unsigned char *p, size_t n, lp_error *err)
{
    while (n) {
        ssize_t done = write(f->fd, p, n);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return system_error(f, err);
        p += done, n -= (size_t)done;
    }
    return LP_OK;
}

static lp_status flush(lp_outfile *f, lp_error *err)
{
    size_t n = f->held;
    f->held = 0;
    return put(f, f->buf, n, err);
}

lp_status lp_outfile_write(lp_outfile *f, const void *data, size_t bytes, lp_error *err)
{
    if (bytes > BUFFER - f->held) LP_TRY(flush(f, err));
    if (bytes > BUFFER)
        LP_TRY(put(f, data, bytes, err));
    else if (bytes) {
        memcpy(f->buf + f->held, data, bytes);
        f->held += bytes;
    }
    f->at += bytes;
    return LP_OK;
}

lp_status lp_outfile_pad(lp_outfile *f, uint64_t to, lp_error *err)
{
    static const char zeros[256];
    while (f->at < to) {
        uint64_t n = to - f->at < sizeof zeros ? to - f->at : sizeof zeros;
        LP_TRY(lp_outfile_write(f, zeros, (size_t)n, err));
    }
    return LP_OK;
}

/* After the rename the folder itself goes to the disk too; a file system that cannot do that has done what it can. */
static void sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash ? lp_format("%.*s", (int)(slash - path + 1), path) : lp_strdup(".");
    int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(dir);
}

lp_status lp_outfile_end(lp_outfile *f, lp_error *err)
{
    lp_status st = flush(f, err);
    if (st == LP_OK && fsync(f->fd) != 0 && errno != EINVAL) st = system_error(f, err);
    if (st == LP_OK) {
        int fd = f->fd;
        f->fd = -1;
        if (close(fd) != 0 || rename(f->tmp, f->path) != 0) st = system_error(f, err);
    }
    if (st == LP_OK) {
        free(f->tmp);
        f->tmp = NULL; /* nothing left to take away */
        sync_folder(f->path);
    }
    lp_outfile_close(f);
    return st;
}

void lp_outfile_close(lp_outfile *f)
{
    if (f->fd >= 0 && f->path) close(f->fd);
    if (f->tmp) unlink(f->tmp);
    free(f->tmp);
    free(f->path);
    free(f->buf);
    *f = (lp_outfile){.fd = -1};
}

lp_status lp_outfile_text(const char *path, const char *text, const char *tail, lp_error *err)
{
    lp_outfile f;
    LP_TRY(lp_outfile_open(&f, path, err));
    lp_status st = lp_outfile_write(&f, text, strlen(text), err);
    if (st == LP_OK) st = lp_outfile_write(&f, tail, strlen(tail), err);
    if (st == LP_OK) st = lp_outfile_end(&f, err);
    lp_outfile_close(&f);
    return st;
}
