/* check.h - the whole test framework: CHECK and friends count failures, check_done() is main's return value. */
#ifndef LP_TESTS_CHECK_H
#define LP_TESTS_CHECK_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int check_failed, check_passed;

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (cond)                                                                                                      \
            check_passed++;                                                                                            \
        else if (check_failed++ < 20)                                                                                  \
            fprintf(stderr, "%s:%d: %s: not true: %s\n", __FILE__, __LINE__, __func__, #cond);                         \
    } while (0)

#define CHECK_STR(got, want)                                                                                           \
    do {                                                                                                               \
        const char *check_g = (got), *check_w = (want);                                                                \
        if (check_g && check_w && strcmp(check_g, check_w) == 0)                                                       \
            check_passed++;                                                                                            \
        else if (check_failed++ < 20)                                                                                  \
            fprintf(stderr, "%s:%d: %s: got \"%s\", want \"%s\"\n", __FILE__, __LINE__, __func__,                      \
                    check_g ? check_g : "(null)", check_w ? check_w : "(null)");                                       \
    } while (0)

#define CHECK_NEAR(got, want, tol)                                                                                     \
    do {                                                                                                               \
        double check_g = (double)(got), check_w = (double)(want), check_t = (double)(tol);                             \
        if (fabs(check_g - check_w) <= check_t)                                                                        \
            check_passed++;                                                                                            \
        else if (check_failed++ < 20)                                                                                  \
            fprintf(stderr, "%s:%d: %s: %s: got %.9g, want %.9g, tolerance %.3g\n", __FILE__, __LINE__, __func__,      \
                    #got, check_g, check_w, check_t);                                                                  \
    } while (0)

/* Bit for bit; names the first float that differs. */
static inline int check_same_floats(const float *got, const float *want, size_t n, const char *file, int line)
{
    if (memcmp(got, want, n * sizeof *got) == 0) {
        check_passed++;
        return 1;
    }
    for (size_t i = 0; i < n; i++) {
        if (memcmp(got + i, want + i, sizeof *got) == 0) continue;
        if (check_failed++ < 20)
            fprintf(stderr, "%s:%d: float %zu of %zu differs: got %.9g, want %.9g\n", file, line, i, n, (double)got[i],
                    (double)want[i]);
        break;
    }
    return 0;
}
#define CHECK_SAME(got, want, n) check_same_floats(got, want, n, __FILE__, __LINE__)

static inline int check_done(void)
{
    printf("%d passed, %d failed\n", check_passed, check_failed);
    return check_failed != 0 || check_passed == 0;
}

#endif
