/* memfile.h - bytes as a file with a path, for readers that take one. */
#ifndef LP_TESTS_FUZZ_MEMFILE_H
#define LP_TESTS_FUZZ_MEMFILE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static inline void insist(int truth)
{
    if (!truth) abort();
}

/* The same nameless file each time, holding these bytes. */
static inline const char *memfile(const uint8_t *data, size_t n)
{
    static char path[64];
    static int fd = -1;
    if (fd < 0) insist((fd = memfd_create("input", MFD_CLOEXEC)) >= 0);
    insist(ftruncate(fd, 0) == 0 && (n == 0 || pwrite(fd, data, n, 0) == (ssize_t)n));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return path;
}

#endif
