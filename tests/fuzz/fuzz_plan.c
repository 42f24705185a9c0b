/* fuzz_plan.c - bytes as a plan: as they are, and under the hash that they would need, since no mutant has it by chance.
 * What is refused says why; of what is accepted, windows and shards fit each other. */
#include "store/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void insist(int truth)
{
    if (!truth) abort();
}

static void parse(const char *text, size_t n)
{
    lp_plan p;
    lp_error err = {.text = ""};
    lp_status st = lp_plan_parse(&p, text, n, &err);
    if (st != LP_OK) {
        insist(st < 0 && err.text[0] && !strchr(err.text, '\n') && !p.documents && !p.files.items);
        return;
    }
    int64_t tokens = 0;
    size_t windows = 0;
    for (size_t i = 0; i < p.n_shards; i++) {
        insist(p.shards[i].first_window == windows && p.shards[i].first_token == tokens);
        windows += p.shards[i].n_windows;
        tokens += p.shards[i].n_tokens;
    }
    insist(windows == p.n_windows && tokens == p.n_tokens);
    for (size_t w = 0; w < p.n_windows && w < 1000; w++) {
        lp_plan_window at = lp_plan_get_window(&p, w);
        int n_text = at.n_tokens - (p.bos >= 0);
        insist(at.piece < p.n_pieces && n_text > 0 && at.n_tokens <= p.options.context);
        insist(at.first + (uint32_t)n_text <= p.pieces[at.piece].n_tokens);
    }
    lp_plan_clear(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char key[] = "\"hash\":\"";
    parse((const char *)data, n);
    const uint8_t *end = n ? memchr(data, '\n', n) : NULL;
    size_t head = end ? (size_t)(end - data) + 1 : 0, at = 0;
    while (at + sizeof key + 32 < head && memcmp(data + at, key, sizeof key - 1) != 0) at++;
    if (at + sizeof key + 32 >= head) return 0;
    char *copy = malloc(n), hex[3];
    insist(copy != NULL);
    memcpy(copy, data, n);
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(&hash, XXH3_128bits(copy + head, n - head));
    for (size_t i = 0; i < 16; i++) {
        snprintf(hex, sizeof hex, "%02x", hash.digest[i]);
        memcpy(copy + at + sizeof key - 1 + 2 * i, hex, 2);
    }
    parse(copy, n);
    free(copy);
    return 0;
}
