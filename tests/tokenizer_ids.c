/* tokenizer_ids.c - the tokenizer as a filter, for oracle_tokenizer.py.
 *
 *     tokenizer_ids tokenizer.model < strings > ids
 *
 * A string is a 32-bit length and its bytes; its answer is a 32-bit count and as many ids (all in this machine's
 * order). The ids are also decoded, whole and as a stream, and the two must agree.
 */
#include "core/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int streams_alike(const lp_tokenizer *t, const lp_tokens *tokens)
{
    char *all = NULL;
    size_t n = 0, at = 0, len;
    lp_detokenizer d = {.tokenizer = t};
    if (lp_tokenizer_decode(t, tokens->ids, tokens->n, 0, &all, &n, NULL) < 0) return 0;
    int same = 1;
    for (size_t i = 0; same && i <= tokens->n; i++) {
        const char *s = i < tokens->n ? lp_detokenizer_push(&d, tokens->ids[i], &len) : lp_detokenizer_flush(&d, &len);
        same = at + len <= n && memcmp(all + at, s, len) == 0;
        at += len;
    }
    free(all);
    return same && at == n;
}

int main(int argc, char **argv)
{
    lp_error err;
    lp_tokenizer *t = NULL;
    lp_tokens out = {0};
    char *text = NULL;
    uint32_t n;
    int status = 1;
    if (argc != 2) {
        fprintf(stderr, "usage: tokenizer_ids tokenizer.model < strings > ids\n");
        return 2;
    }
    if (lp_tokenizer_open(&t, argv[1], &err) < 0) goto out;
    while (fread(&n, sizeof n, 1, stdin) == 1) {
        char *more = realloc(text, (size_t)n + 1);
        if (more) text = more;
        if (!more || fread(text, 1, n, stdin) != n) {
            lp_fail(&err, LP_E_IO, "a string of %u bytes does not come", n);
            goto out;
        }
        out.n = 0;
        if (lp_tokenizer_encode(t, text, n, LP_SPECIALS_SENTENCEPIECE, &out, &err) < 0) goto out;
        if (!streams_alike(t, &out)) {
            lp_fail(&err, LP_E_RANGE, "decoded as a stream and at once, the text differs");
            goto out;
        }
        uint32_t count = (uint32_t)out.n;
        fwrite(&count, sizeof count, 1, stdout);
        fwrite(out.ids, sizeof *out.ids, out.n, stdout);
    }
    status = fflush(stdout) != 0;
out:
    if (status) fprintf(stderr, "tokenizer_ids: %s\n", err.text);
    free(text);
    lp_tokens_free(&out);
    lp_tokenizer_free(t);
    return status;
}
