/* replay.c - the stand-in for libFuzzer: what a fuzzer is given in the ordinary tests.
 *
 *     replay_NAME FILE...
 *
 * Each seed goes in as it is; cut short at lengths spread over it; and with bytes changed, runs repeated or dropped, by a
 * fixed generator, so that a failure comes back.  The input lies at the very end of an allocation of its size: a
 * sanitizer sees one byte too many.  Meant to keep fuzzers alive and old findings found, not to find new ones: for that,
 * cmake --preset fuzz, then build-fuzz/tests/fuzz_NAME FOLDER-OF-YOURS tests/fuzz/seeds/NAME.
 */
#include "core/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { CUTS = 60, MUTANTS = 200, LARGEST = 64 << 20 };

static uint64_t state = 1;

/* xorshift64*, Vigna 2014. */
static size_t below(size_t n)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (size_t)((state * UINT64_C(2685821657736338717)) >> 33) % n;
}

static void feed(const char *data, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);
    if (!copy) abort();
    if (n) memcpy(copy, data, n);
    LLVMFuzzerTestOneInput(copy, n);
    free(copy);
}

/* One to four changes of a copy of the seed; returns its new length, at most n + 64. */
static size_t mutate(char *out, const char *seed, size_t n)
{
    static const uint8_t striking[] = {0, 1, 0x7F, 0x80, 0xFE, 0xFF, '"', '{', '[', '9', '-', '/'};
    memcpy(out, seed, n);
    for (size_t times = 1 + below(4); times && n; times--) {
        size_t at = below(n), len = 1 + below(n - at < 16 ? n - at : 16);
        switch (below(4)) {
        case 0: /* a bit */
            out[at] = (char)(out[at] ^ 1 << below(8));
            break;
        case 1: /* bytes that mean something */
            memset(out + at, striking[below(sizeof striking)], len);
            break;
        case 2: /* drop a run */
            memmove(out + at, out + at + len, n - at - len);
            n -= len;
            break;
        default: /* repeat a run */
            memmove(out + at + len, out + at, n - at);
            n += len;
        }
    }
    return n;
}

static int replay(const char *path)
{
    lp_error err = {0};
    char *seed = NULL;
    size_t n = 0;
    if (lp_read_file(&seed, &n, path, LARGEST, &err) != LP_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    char *room = malloc(n + 4 * 16 + 1);
    if (!room) abort();
    feed(seed, n);
    for (size_t i = 0; i < CUTS && i < n; i++) feed(seed, n <= CUTS ? i : n * i / CUTS);
    for (int i = 0; i < MUTANTS; i++) feed(room, mutate(room, seed, n));
    free(room);
    free(seed);
    return 0;
}

int main(int argc, char **argv)
{
    int failed = argc < 2;
    if (failed) fprintf(stderr, "no seeds\n");
    for (int i = 1; i < argc; i++) failed |= replay(argv[i]);
    printf("%d seeds, each with %d cuts and %d mutants\n", argc - 1, (int)CUTS, (int)MUTANTS);
    return failed;
}
