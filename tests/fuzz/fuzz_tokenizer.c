/* fuzz_tokenizer.c - bytes as a tokenizer.model, and the same bytes as text for the golden one.
 *
 * A file is refused or gives a tokenizer that works.  Whatever the text: spans tile it, no token of literal text is
 * special, and the stream of decoded pieces is the text decoded at once.
 */
#include "core/chat.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void insist(bool truth)
{
    if (!truth) abort();
}

static void check_tokens(const lp_tokenizer *t, const lp_tokens *tokens, size_t n)
{
    size_t at = 0, n_all = 0, len;
    char *all = NULL;
    lp_detokenizer d = {.tokenizer = t, .show_specials = 1};
    for (size_t i = 0; i < tokens->n; i++) {
        insist(tokens->spans[i].begin == at && tokens->spans[i].end >= at);
        at = tokens->spans[i].end;
    }
    insist(at == n);
    insist(lp_tokenizer_decode(t, tokens->ids, tokens->n, 1, &all, &n_all, NULL) == LP_OK);
    at = 0;
    for (size_t i = 0; i <= tokens->n; i++) {
        const char *s = i < tokens->n ? lp_detokenizer_push(&d, tokens->ids[i], &len) : lp_detokenizer_flush(&d, &len);
        insist(at + len <= n_all && memcmp(all + at, s, len) == 0);
        at += len;
    }
    insist(at == n_all);
    free(all);
}

static void use(const lp_tokenizer *t, const char *text, size_t n)
{
    for (lp_specials s = LP_SPECIALS_SENTENCEPIECE; s <= LP_SPECIALS_PARSED; s++) {
        lp_tokens out = {0};
        insist(lp_tokenizer_encode(t, text, n, s, &out, NULL) == LP_OK);
        check_tokens(t, &out, n);
        for (size_t i = 0; i < out.n && s == LP_SPECIALS_LITERAL; i++) insist(!lp_tokenizer_is_special(t, out.ids[i]));
        lp_tokens_free(&out);
    }
    lp_chat c;
    lp_turn turn = {.role = LP_ROLE_USER, .text = text, .len = n};
    if (lp_chat_tokenize(&c, t, &turn, 1, &(lp_chat_options){.generation_prompt = true}, NULL) != LP_OK) return;
    check_tokens(t, &c.tokens, c.len);
    lp_chat_free(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char common[] = "ab  abba\n<unk>\xff\xe4\xb8\x96<start_of_turn>";
    static lp_tokenizer *golden; /* kept for the life of the fuzzer */
    if (!golden && lp_tokenizer_open(&golden, LP_TESTS_DIR "/goldens/tokenizer/tokenizer.model", NULL) < 0) abort();
    const char *text = (const char *)data;
    lp_tokenizer *t = NULL;
    lp_error err = {0};
    size_t tail = n < 512 ? n : 512; /* pieces lie at the end of a model */
    use(golden, text, tail);
    if (lp_tokenizer_from_bytes(&t, data, n, &err) == LP_OK) {
        use(t, text + n - tail, tail);
        use(t, common, sizeof common - 1);
    } else
        insist(err.status < 0 && err.text[0]); /* every refusal says why */
    lp_tokenizer_free(t);
    return 0;
}
