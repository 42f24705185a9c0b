/* Every allocation of the tokenizer fails once: opening, encoding, decoding, a conversation. */
#include "core/chat.h"
#include "core/gguf.h"
#include "core/vocab.h"

#include "tests/check.h"
#include "tests/oom.h"

#include <unistd.h>

#define MODEL LP_TESTS_DIR "/goldens/tokenizer/tokenizer.model"

static lp_tokenizer *golden;

static lp_status open_model(const void *user, lp_error *err)
{
    lp_tokenizer *t = NULL;
    lp_status st = lp_tokenizer_open(&t, user, err);
    CHECK((st == LP_OK) == (t != NULL));
    lp_tokenizer_free(t);
    return st;
}

/* The golden vocabulary as a .gguf file, in SentencePiece's own types. */
static lp_status write_gguf(const char *path, lp_error *err)
{
    enum { N = 4096 };
    static const char *pieces[N];
    static size_t lens[N];
    static float scores[N];
    static int32_t types[N];
    lp_gguf_writer *w = NULL;
    for (int i = 0; i < N; i++) {
        pieces[i] = lp_tokenizer_piece(golden, i, &lens[i]);
        scores[i] = golden->pieces[i].score;
        types[i] = lp_tokenizer_type(golden, i);
    }
    lp_status st = lp_gguf_create(&w, path, err);
    if (st == LP_OK) st = lp_gguf_put_string(w, "tokenizer.ggml.model", "llama", err);
    if (st == LP_OK) st = lp_gguf_put_strings(w, "tokenizer.ggml.tokens", pieces, lens, N, err);
    if (st == LP_OK) st = lp_gguf_put_f32s(w, "tokenizer.ggml.scores", scores, N, err);
    if (st == LP_OK) st = lp_gguf_put_i32s(w, "tokenizer.ggml.token_type", types, N, err);
    if (st == LP_OK) st = lp_gguf_begin(w, err);
    if (st == LP_OK) st = lp_gguf_end(w, err);
    lp_gguf_writer_close(w);
    return st;
}

static lp_status open_gguf(const void *user, lp_error *err)
{
    lp_tokenizer *t = NULL;
    lp_status st = lp_tokenizer_from_gguf(&t, user, NULL, err);
    CHECK((st == LP_OK) == (t != NULL));
    lp_tokenizer_free(t);
    return st;
}

static lp_status encode(const void *user, lp_error *err)
{
    lp_tokens out = {0};
    CHECK(lp_tokens_push(&out, 2, (lp_span){0, 0}, NULL) == LP_OK || out.n == 0);
    size_t before = out.n;
    lp_status st = lp_tokenizer_encode(golden, user, strlen(user), LP_SPECIALS_LITERAL, &out, err);
    CHECK(st == LP_OK ? out.n > before : out.n == before); /* all or nothing */
    lp_tokens_free(&out);
    return st;
}

static lp_status decode(const void *user, lp_error *err)
{
    int ids[600];
    char *text = NULL;
    for (int i = 0; i < 600; i++) ids[i] = 217 + i % 700 + (user != NULL);
    lp_status st = lp_tokenizer_decode(golden, ids, 600, 1, &text, NULL, err);
    CHECK((st == LP_OK) == (text != NULL));
    free(text);
    return st;
}

static const char sentence[] = "The quick brown fox jumps over the lazy dog, 1234 times \xf0\x9f\x98\x80\xff\n\n<h1>"
                               "interpretabilityinterpretabilityinterpretabilityinterpretability";

static lp_status talk(const void *user, lp_error *err)
{
    lp_turn turns[] = {{LP_ROLE_SYSTEM, user, strlen(user)}, {LP_ROLE_USER, user, strlen(user)}};
    lp_chat c;
    lp_status st = lp_chat_tokenize(&c, golden, turns, 2, &(lp_chat_options){.fold_system = true}, err);
    CHECK(st == LP_OK ? c.tokens.n > 60 : !c.text && !c.marks && !c.tokens.ids);
    lp_chat_free(&c);
    return st;
}

static lp_status render(const void *user, lp_error *err)
{
    lp_turn turn = {LP_ROLE_USER, user, strlen(user)};
    char *text = NULL;
    lp_status st = lp_chat_render(&text, NULL, &turn, 1, NULL, err);
    CHECK((st == LP_OK) == (text != NULL));
    free(text);
    return st;
}

int main(void)
{
    CHECK(lp_tokenizer_open(&golden, MODEL, NULL) == LP_OK);
    if (!golden) return check_done();
    oom_sweep("tokenizer.model", open_model, MODEL);
    lp_gguf *g = NULL;
    static const char file[] = LP_BUILD_DIR "/test_tokenizer_oom.gguf";
    CHECK(write_gguf(file, NULL) == LP_OK && lp_gguf_open(&g, file, NULL) == LP_OK);
    if (g) oom_sweep("gguf", open_gguf, g);
    lp_gguf_close(g);
    unlink(file);
    oom_sweep("encode", encode, sentence);
    oom_sweep("decode", decode, NULL);
    oom_sweep("chat", talk, sentence);
    oom_sweep("chat text", render, sentence);
    lp_tokenizer_free(golden);
    return check_done();
}
