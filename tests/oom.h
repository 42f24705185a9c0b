/* oom.h - what happens when the nth allocation fails, for every n.
 *
 * Include it in one file of a test declared with
 *
 *     lp_test(x_oom WRAP malloc calloc realloc strdup mmap)
 *
 * and give oom_sweep an attempt that opens something, checks it if that worked, and closes it.  The sweep runs it with the
 * first, second, third ... allocation failing, once alone and once with all that follow, until it runs through without
 * a failure.  Wherever memory ran out the status must be LP_E_MEMORY (or LP_OK where it could be done without) and the text
 * one line; leaks are for the sanitizer to find.  Memory that shared libraries take is not reached.  jansson could be,
 * through json_set_alloc_funcs, but its lexer (2.14) does not survive it: a token buffer that cannot grow is overrun.
 */
#ifndef LP_TESTS_OOM_H
#define LP_TESTS_OOM_H

#include "core/base.h"

#include "tests/check.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
void *__real_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strdup(const char *s);
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset);

static atomic_long oom_left = -1; /* allocations until the one that fails; negative: none does */
static atomic_bool oom_stays;     /* all after it fail too */
static atomic_long oom_fired;

/* Is it this one's turn? */
static bool oom_now(void)
{
    long left = atomic_load(&oom_left);
    if (left < 0) return false;
    if (left > 0) {
        atomic_fetch_sub(&oom_left, 1);
        return false;
    }
    if (!atomic_load(&oom_stays)) atomic_store(&oom_left, -1);
    atomic_fetch_add(&oom_fired, 1);
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t n)
{
    return oom_now() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return oom_now() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return oom_now() ? NULL : __real_realloc(p, n);
}

char *__wrap_strdup(const char *s)
{
    return oom_now() ? NULL : __real_strdup(s);
}

/* Files that are mapped are no allocations. */
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    return fd == -1 && oom_now() ? MAP_FAILED : __real_mmap(at, n, prot, flags, fd, offset);
}

/* Returns how many allocations the attempt makes. */
static long oom_sweep(const char *what, lp_status (*attempt)(const void *user, lp_error *err), const void *user)
{
    long n = 0;
    for (int stays = 0; stays < 2; stays++) {
        for (n = 0;; n++) {
            lp_error err = {.text = ""};
            atomic_store(&oom_fired, 0);
            atomic_store(&oom_stays, stays != 0);
            atomic_store(&oom_left, n);
            lp_status st = attempt(user, &err);
            atomic_store(&oom_left, -1);
            bool fired = atomic_load(&oom_fired) > 0, fine = st == LP_OK;
            if (fired && st == LP_E_MEMORY) fine = err.status == st && err.text[0] && !strchr(err.text, '\n');
            if (!fine) fprintf(stderr, "%s: allocation %ld: status %d: %s\n", what, n, (int)st, err.text);
            CHECK(fine);
            if (!fired || !fine) break;
        }
    }
    CHECK(n > 0);
    return n;
}

#endif
