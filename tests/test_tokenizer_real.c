/* test_tokenizer_real.c - Google's own tokenizer.model, where LP_MODEL_DIR names a folder that has it; else skipped.
 *
 * Expected ids: transformers' tests/models/gemma/test_tokenization_gemma.py and ggml-org/llama.cpp PR 8244. */
#include "core/chat.h"

#include "tests/check.h"

#include <stdlib.h>

enum { SKIPPED = 77 };

typedef struct example {
    const char *text;
    int n, ids[32];
} example;

static const example examples[] = {
    {"", 0, {0}},
    {" ", 1, {235248}},
    {"  ", 1, {139}},
    {" Hello", 1, {25957}},
    {"Hi  Hello", 3, {2151, 139, 4521}},
    {"Hi   Hello", 3, {2151, 140, 4521}},
    {"This is a test", 4, {1596, 603, 476, 2121}},
    {"A sample test", 3, {235280, 6453, 2121}},
    {"\xe7\x94\x9f\xe6\xb4\xbb\xe7\x9a\x84\xe7\x9c\x9f\xe8\xb0\x9b\xe6\x98\xaf", 4, {122182, 235710, 245467, 235427}},
    {"The quick brown fox jumps over the lazy dog.",
     10,
     {651, 4320, 8426, 25341, 36271, 1163, 573, 27894, 5929, 235265}},
    {"BERT is designed to pre-train deep bidirectional representations from unlabeled text by jointly conditioning on "
     "both "
     "left and right context in all layers.",
     27,
     {25894, 603,   6869,  577, 953,  235290, 8297, 5271, 209099, 41642, 774, 748,   78253, 2793,
      731,   51506, 34346, 611, 2145, 2731,   578,  1833, 4807,   575,   832, 16630, 235265}},
    /* 50 spaces: 31 and 19, as SentencePiece; transformers makes 16, 16 and 18 of them (llama.cpp PR 8228) */
    {"                                                  ", 2, {168, 156}},
    {"10", 2, {235274, 235276}},
    {"\t", 1, {226}},
};

int main(void)
{
    const char *folder = getenv("LP_MODEL_DIR");
    char *path = folder ? lp_path_join(folder, "tokenizer.model") : NULL;
    if (!path || !lp_is_file(path)) {
        printf("skipped: LP_MODEL_DIR names no folder with a tokenizer.model\n");
        free(path);
        return SKIPPED;
    }
    lp_error err = {0};
    lp_tokenizer *t = NULL;
    CHECK(lp_tokenizer_open(&t, path, &err) == LP_OK);
    CHECK_STR(err.text, "");
    free(path);
    if (!t) return check_done();
    CHECK(lp_tokenizer_size(t) == 256000);
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        const example *e = &examples[i];
        lp_tokens out = {0};
        CHECK(lp_tokenizer_encode(t, e->text, strlen(e->text), LP_SPECIALS_LITERAL, &out, &err) == LP_OK);
        CHECK(out.n == (size_t)e->n && (e->n == 0 || memcmp(out.ids, e->ids, out.n * sizeof *out.ids) == 0));
        lp_tokens_free(&out);
    }
    static const int want[] = {2, 106, 1645, 108, 4521, 235269, 1368, 708, 692, 235336, 107, 108, 106, 2516, 108};
    lp_turn turn = {.role = LP_ROLE_USER, .text = "Hello, how are you?", .len = 19};
    lp_chat c;
    CHECK(lp_chat_tokenize(&c, t, &turn, 1, &(lp_chat_options){.generation_prompt = true}, &err) == LP_OK);
    CHECK(c.tokens.n == 15 && memcmp(c.tokens.ids, want, sizeof want) == 0);
    lp_chat_free(&c);
    lp_tokenizer_free(t);
    return check_done();
}
