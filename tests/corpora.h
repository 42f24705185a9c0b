/* corpora.h - for tests of corpora and plans: a folder of one's own, files in it, a log that is kept. */
#ifndef LP_TESTS_CORPORA_H
#define LP_TESTS_CORPORA_H

#include "store/corpus.h"

#include "tests/bytes.h"

#include <zlib.h>

static char corpus_root[] = "/tmp/lapidary-corpus-XXXXXX";
static char corpus_log[4096];

static inline void keep_log(void *user, lp_level level, const char *text)
{
    size_t n = strlen(corpus_log);
    (void)user;
    snprintf(corpus_log + n, sizeof corpus_log - n, "%s%s\n", level == LP_WARN ? "! " : "", text);
}

static inline lp_env log_env(void)
{
    corpus_log[0] = 0;
    return (lp_env){.log = keep_log};
}

static inline void put_text(const char *name, const char *text)
{
    put_file(at(corpus_root, name), text, strlen(text));
}

static inline void put_gz(const char *name, const void *data, size_t n)
{
    gzFile f = gzopen(at(corpus_root, name), "wb");
    CHECK(f && (n == 0 || gzwrite(f, data, (unsigned)n) == (int)n));
    if (f) CHECK(gzclose(f) == Z_OK);
}

static inline void fresh_root(void)
{
    remove_tree(corpus_root);
    CHECK(mkdir(corpus_root, 0700) == 0);
}

/* Repeatable: below n. */
static inline size_t draw(size_t n)
{
    static uint64_t x = 88172645463325252u;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return (size_t)(x >> 11) % n;
}

/* Text of words, blanks, line ends, other scripts, and, where `broken`, bytes that are no UTF-8. */
static inline size_t some_text(char *out, size_t n, bool broken)
{
    static const char *const bits[] = {
        "sea",   " ship", "\n",    "\n\n", " ", "\xc3\xa9", "\xe2\x96\x81", "\xf0\x9f\x90\x8b",
        "Whale", ", the", ".\r\n", "\t",   "7", "\xff",     "\xe2\x82",     "\x80"};
    size_t at_byte = 0;
    while (at_byte < n) {
        const char *bit = bits[draw(broken ? 16 : 13)];
        size_t k = strlen(bit);
        if (at_byte + k > n) break;
        memcpy(out + at_byte, bit, k);
        at_byte += k;
        if (broken && draw(40) == 0 && at_byte < n) out[at_byte++] = 0;
    }
    return at_byte;
}

#endif
