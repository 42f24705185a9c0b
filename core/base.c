/* base.c - see base.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* MADV_HUGEPAGE */
#endif
#include "core/base.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- errors ------------------------------------------------------------------------------------------------ */

/* File names and tensor names come from strangers: no byte of theirs may reach a terminal as a control code. */
static void tame(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = '?';
}

lp_status lp_fail(lp_error *err, lp_status st, const char *fmt, ...)
{
    if (!err) return st;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    tame(err->text);
    err->status = st;
    return st;
}

lp_status lp_prefix(lp_error *err, lp_status st, const char *prefix)
{
    if (!err) return st;
    char old[LP_ERROR_TEXT];
    memcpy(old, err->text, sizeof old);
    return lp_fail(err, err->status, "%s: %s", prefix, old);
}

/* ---- environment ------------------------------------------------------------------------------------------- */

void lp_log(const lp_env *env, lp_level level, const char *fmt, ...)
{
    if (!env || !env->log) return;
    char line[LP_ERROR_TEXT];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    tame(line);
    env->log(env->user, level, line);
}

void lp_progress(const lp_env *env, const char *what, int64_t done, int64_t of)
{
    if (env && env->progress) env->progress(env->user, what, done, of);
}

bool lp_cancelled(const lp_env *env)
{
    return env && env->cancel && atomic_load_explicit(env->cancel, memory_order_relaxed);
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

void *lp_calloc(size_t n, size_t size)
{
    return calloc(n ? n : 1, size ? size : 1); /* calloc checks the product itself */
}

bool lp_grow(void **array, size_t *capacity, size_t need, size_t size)
{
    if (need <= *capacity) return true;
    size_t want = *capacity ? *capacity : 16;
    while (want < need)
        if (__builtin_mul_overflow(want, (size_t)2, &want)) return false;
    size_t bytes;
    if (__builtin_mul_overflow(want, size, &bytes)) return false;
    void *p = realloc(*array, bytes);
    if (!p) return false;
    *array = p;
    *capacity = want;
    return true;
}

char *lp_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = malloc(n);
    if (p) memcpy(p, s, n);
    return p;
}

bool lp_ends_in(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);
    return n > k && strcmp(s + n - k, tail) == 0;
}

/* One row of the table is enough: row[j] is the distance of a's first i bytes to b's first j. */
int lp_edit_distance(const char *a, const char *b)
{
    int row[LP_GUESS + 1];
    size_t n = strlen(b);
    if (n > LP_GUESS || strlen(a) > LP_GUESS) return INT_MAX;
    for (size_t j = 0; j <= n; j++) row[j] = (int)j;
    for (size_t i = 0; a[i]; i++) {
        int diagonal = row[0];
        row[0] = (int)i + 1;
        for (size_t j = 0; j < n; j++) {
            int best = diagonal + (a[i] != b[j]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j + 1] + 1 < best) best = row[j + 1] + 1;
            diagonal = row[j + 1];
            row[j + 1] = best;
        }
    }
    return row[n];
}

lp_amount lp_amount_of(uint64_t bytes)
{
    lp_amount a;
    bool big = bytes >= 1000000000u;
    snprintf(a.text, sizeof a.text, big ? "%.2f GB" : "%.1f MB", (double)bytes / (big ? 1e9 : 1e6));
    return a;
}

char *lp_format(const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    char *p = n < 0 ? NULL : malloc((size_t)n + 1);
    if (p) vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(ap);
    return p;
}

enum { HUGE_PAGE = 2 << 20 };

static size_t big_size(size_t bytes)
{
    size_t page = 4096, n;
    if (__builtin_add_overflow(bytes ? bytes : 1, page - 1, &n)) return 0;
    return n & ~(page - 1);
}

/* Aligned by hand: map 2 MiB too much and give the edges back, so that large blocks start on a huge page. */
void *lp_big_alloc(size_t bytes)
{
    size_t n = big_size(bytes), want;
    if (!n) return NULL;
    size_t slack = n >= HUGE_PAGE ? HUGE_PAGE : 0;
    if (__builtin_add_overflow(n, slack, &want)) return NULL;
    char *p = mmap(NULL, want, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return NULL;
    if (!slack) return p;
    size_t head = (size_t)(-(uintptr_t)p & (HUGE_PAGE - 1));
    if (head) munmap(p, head);
    if (slack - head) munmap(p + head + n, slack - head);
    madvise(p + head, n, MADV_HUGEPAGE); /* a kernel without it loses some speed, nothing else */
    return p + head;
}

void lp_big_free(void *p, size_t bytes)
{
    if (p) munmap(p, big_size(bytes));
}

static uint64_t read_number(const char *path, const char *key)
{
    FILE *f = fopen(path, "re");
    if (!f) return UINT64_MAX;
    char line[256];
    uint64_t v = UINT64_MAX;
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, key, strlen(key)) != 0) continue;
        if (sscanf(line + strlen(key), "%" SCNu64, &v) != 1) v = UINT64_MAX; /* "max": no limit */
        break;
    }
    fclose(f);
    return v;
}

uint64_t lp_memory_available(void)
{
    uint64_t kib = read_number("/proc/meminfo", "MemAvailable:");
    if (kib == UINT64_MAX) return 0;
    uint64_t bytes = kib * 1024;
    uint64_t limit = read_number("/sys/fs/cgroup/memory.max", "");
    uint64_t used = read_number("/sys/fs/cgroup/memory.current", "");
    if (limit != UINT64_MAX && used != UINT64_MAX) {
        uint64_t left = limit > used ? limit - used : 0;
        if (left < bytes) bytes = left;
    }
    return bytes;
}

/* ---- files ------------------------------------------------------------------------------------------------- */

lp_status lp_file_open(lp_file *f, const char *path, lp_error *err)
{
    *f = (lp_file){.fd = -1};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us before fstat refuses it */
    if (fd < 0) {
        lp_status st = errno == ENOENT || errno == ENOTDIR ? LP_E_NOT_FOUND : LP_E_IO;
        return lp_fail(err, st, "%s: %s", path, strerror(errno));
    }
    struct stat sb;
    if (fstat(fd, &sb) < 0 || !S_ISREG(sb.st_mode)) {
        close(fd);
        return lp_fail(err, LP_E_IO, "%s: not a regular file", path);
    }
    char *copy = lp_strdup(path);
    if (!copy) {
        close(fd);
        return lp_fail(err, LP_E_MEMORY, "%s: out of memory", path);
    }
    *f = (lp_file){.fd = fd, .size = (uint64_t)sb.st_size, .path = copy};
    return LP_OK;
}

lp_status lp_file_read(const lp_file *f, uint64_t at, void *buf, size_t bytes, lp_error *err)
{
    char *p = buf;
    while (bytes) {
        ssize_t n = pread(f->fd, p, bytes, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return lp_fail(err, LP_E_IO, "%s: %s", f->path, strerror(errno));
        if (n == 0)
            return lp_fail(err, LP_E_FORMAT, "%s: ends at byte %llu, %zu more expected; is the file truncated?",
                           f->path, (unsigned long long)at, bytes);
        p += n, at += (uint64_t)n, bytes -= (size_t)n;
    }
    return LP_OK;
}

void lp_file_close(lp_file *f)
{
    if (f->path) close(f->fd);
    free(f->path);
    *f = (lp_file){.fd = -1};
}

lp_status lp_read_file(char **out, size_t *n, const char *path, size_t limit, lp_error *err)
{
    lp_file f;
    LP_TRY(lp_file_open(&f, path, err));
    lp_status st = LP_OK;
    char *p = NULL;
    if (f.size > limit)
        st = lp_fail(err, LP_E_FORMAT, "%s: %llu bytes, more than the %zu such a file may have", path,
                     (unsigned long long)f.size, limit);
    else if (!(p = malloc((size_t)f.size + 1)))
        st = lp_fail(err, LP_E_MEMORY, "%s: out of memory", path);
    else
        st = lp_file_read(&f, 0, p, (size_t)f.size, err);
    if (st == LP_OK) {
        p[f.size] = 0;
        *out = p;
        if (n) *n = (size_t)f.size;
        p = NULL;
    }
    free(p);
    lp_file_close(&f);
    return st;
}

bool lp_is_dir(const char *path)
{
    struct stat sb;
    return stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);
}

bool lp_is_file(const char *path)
{
    struct stat sb;
    return stat(path, &sb) == 0 && S_ISREG(sb.st_mode);
}

char *lp_path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    return lp_format(n && dir[n - 1] == '/' ? "%s%s" : "%s/%s", dir, name);
}
