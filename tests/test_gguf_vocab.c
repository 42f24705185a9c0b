/* test_gguf_vocab.c - the golden vocabulary written into .gguf files as llama.cpp's converter writes it now and as it did in
 * the first days of Gemma 2, read back, must tokenize as tokenizer.model does. */
#include "core/gguf.h"
#include "core/vocab.h"

#include "tests/check.h"
#include "tests/escaped.h"

#include <unistd.h>

#define FILE_NAME LP_BUILD_DIR "/test_gguf_vocab.gguf"
#define KEY       "tokenizer.ggml."

enum { GEMMA = 256000, TAIL = 32 /* [toxicity=0], tab runs, <unused99> */ };

typedef struct table {
    size_t n;
    const char **piece;
    size_t *len;
    float *score;
    int32_t *type;
    char *filler; /* memory for pieces of our own, 32 bytes each */
} table;

static void table_free(table *b)
{
    free(b->piece);
    free(b->len);
    free(b->score);
    free(b->type);
    free(b->filler);
}

/* The golden vocabulary; with n of Gemma's size, its last 32 pieces moved to the end and the gap filled. */
static table copy_vocabulary(const lp_tokenizer *t, size_t n)
{
    table b = {.n = n,
               .piece = lp_calloc(n, sizeof(char *)),
               .len = lp_calloc(n, sizeof(size_t)),
               .score = lp_calloc(n, sizeof(float)),
               .type = lp_calloc(n, sizeof(int32_t)),
               .filler = lp_calloc(n, 32)};
    size_t head = (size_t)t->n - TAIL;
    for (size_t i = 0; i < n; i++) {
        int id = i < head ? (int)i : i >= n - TAIL ? (int)(i - (n - TAIL) + head) : -1;
        b.type[i] = id < 0 ? LP_PIECE_NORMAL : lp_tokenizer_type(t, id);
        b.score[i] = id < 0 ? -1e6f : t->pieces[id].score;
        b.piece[i] = id < 0 ? b.filler + i * 32 : lp_tokenizer_piece(t, id, &b.len[i]);
        if (id < 0) b.len[i] = (size_t)snprintf(b.filler + i * 32, 32, "filler%zu", i);
    }
    return b;
}

/* As llama.cpp's conversion/base.py does since August 2024. */
static void as_converted(table *b, const lp_tokenizer *t)
{
    for (size_t i = 0; i < b->n; i++) {
        if (b->type[i] == LP_PIECE_UNKNOWN || lp_tokenizer_is_special(t, (int)i)) b->type[i] = LP_PIECE_CONTROL;
        if (b->type[i] != LP_PIECE_USER) continue;
        b->score[i] = -1000;
        if (strncmp(b->piece[i], LP_SPACE, 3) != 0) continue;
        b->len[i] /= 3;
        memset(b->filler + i * 32, ' ', b->len[i]);
        b->piece[i] = b->filler + i * 32;
    }
}

/* As it did before: nothing is user-defined, not even the turn markers. */
static void as_first_days(table *b)
{
    for (size_t i = 0; i < b->n; i++)
        if (b->type[i] == LP_PIECE_USER) b->type[i] = LP_PIECE_NORMAL;
}

typedef struct extras {
    const char *model;
    bool old, space_prefix, squeeze, no_scores, few_types;
} extras;

static lp_status write_file(const table *b, extras x)
{
    lp_gguf_writer *w = NULL;
    lp_error err = {0};
    lp_status st = lp_gguf_create(&w, FILE_NAME, &err);
    if (st == LP_OK) st = lp_gguf_put_string(w, "general.architecture", "gemma2", &err);
    if (st == LP_OK && x.model) st = lp_gguf_put_string(w, KEY "model", x.model, &err);
    if (st == LP_OK) st = lp_gguf_put_strings(w, KEY "tokens", b->piece, b->len, b->n, &err);
    if (st == LP_OK && !x.no_scores) st = lp_gguf_put_f32s(w, KEY "scores", b->score, b->n, &err);
    if (st == LP_OK) st = lp_gguf_put_i32s(w, KEY "token_type", b->type, b->n - x.few_types, &err);
    if (st == LP_OK) st = lp_gguf_put_u32(w, KEY "bos_token_id", 2, &err);
    if (st == LP_OK) st = lp_gguf_put_u32(w, KEY "eos_token_id", 1, &err);
    if (st == LP_OK) st = lp_gguf_put_u32(w, KEY "unknown_token_id", 3, &err);
    if (st == LP_OK) st = lp_gguf_put_u32(w, KEY "padding_token_id", 0, &err);
    if (st == LP_OK && !x.old) st = lp_gguf_put_bool(w, KEY "add_space_prefix", x.space_prefix, &err);
    if (st == LP_OK && x.squeeze) st = lp_gguf_put_bool(w, KEY "remove_extra_whitespaces", true, &err);
    if (st == LP_OK) st = lp_gguf_begin(w, &err);
    if (st == LP_OK) st = lp_gguf_end(w, &err);
    lp_gguf_writer_close(w);
    CHECK_STR(err.text, "");
    return st;
}

static void count_warnings(void *user, lp_level level, const char *line)
{
    if (level == LP_WARN && strlen(line) > 20) ++*(int *)user;
}

static lp_status read_file(lp_tokenizer **t, int *warnings, lp_error *err)
{
    lp_env env = {.log = count_warnings, .user = warnings};
    lp_gguf *g = NULL;
    *warnings = 0;
    *t = NULL;
    lp_status st = lp_gguf_open(&g, FILE_NAME, err);
    if (st == LP_OK) st = lp_tokenizer_from_gguf(t, g, &env, err);
    lp_gguf_close(g); /* the tokenizer borrows nothing from it */
    unlink(FILE_NAME);
    return st;
}

static void same_line(const lp_tokenizer *model, const lp_tokenizer *gguf, const char *text, size_t n)
{
    int shift = lp_tokenizer_size(gguf) - lp_tokenizer_size(model), head = lp_tokenizer_size(model) - TAIL;
    for (lp_specials s = LP_SPECIALS_SENTENCEPIECE; s <= LP_SPECIALS_PARSED; s++) {
        lp_tokens a = {0}, b = {0};
        CHECK(lp_tokenizer_encode(model, text, n, s, &a, NULL) == LP_OK);
        CHECK(lp_tokenizer_encode(gguf, text, n, s, &b, NULL) == LP_OK);
        bool same = a.n == b.n;
        for (size_t i = 0; same && i < a.n; i++) same = a.ids[i] + (a.ids[i] >= head ? shift : 0) == b.ids[i];
        CHECK(same);
        lp_tokens_free(&a);
        lp_tokens_free(&b);
    }
}

static void same_tokenizer(const lp_tokenizer *model, const lp_tokenizer *gguf)
{
    char *text = NULL;
    CHECK(lp_tokenizer_bos(gguf) == 2 && lp_tokenizer_eos(gguf) == 1);
    CHECK(lp_tokenizer_pad(gguf) == 0 && lp_tokenizer_unk(gguf) == 3);
    for (int id = 0; id < lp_tokenizer_size(model) - TAIL; id++) {
        CHECK(lp_tokenizer_type(model, id) == lp_tokenizer_type(gguf, id));
        CHECK(lp_tokenizer_is_special(model, id) == lp_tokenizer_is_special(gguf, id));
        CHECK_STR(lp_tokenizer_piece(gguf, id, NULL), lp_tokenizer_piece(model, id, NULL));
    }
    CHECK(lp_read_file(&text, NULL, LP_TESTS_DIR "/goldens/tokenizer/encode.tsv", 1 << 24, NULL) == LP_OK);
    for (char *line = text, *end; line && (end = strchr(line, '\n')); line = end + 1) {
        next_field(line);
        same_line(model, gguf, line, unescape(line));
    }
    free(text);
}

static void refuse(const table *b, extras x, lp_status want, const char *says)
{
    lp_error err = {0};
    lp_tokenizer *t;
    int warnings;
    CHECK(write_file(b, x) == LP_OK);
    CHECK(read_file(&t, &warnings, &err) == want && !t);
    if (!strstr(err.text, says)) CHECK_STR(err.text, says);
}

int main(void)
{
    lp_error err = {0};
    lp_tokenizer *model = NULL, *gguf = NULL;
    int warnings = 0;
    CHECK(lp_tokenizer_open(&model, LP_TESTS_DIR "/goldens/tokenizer/tokenizer.model", &err) == LP_OK);
    if (!model) return check_done();

    table b = copy_vocabulary(model, (size_t)model->n); /* as `lapidary synth` writes it: SentencePiece's own types */
    CHECK(write_file(&b, (extras){.model = "llama"}) == LP_OK);
    CHECK(read_file(&gguf, &warnings, &err) == LP_OK && warnings == 0);
    if (gguf) same_tokenizer(model, gguf);
    lp_tokenizer_free(gguf);

    as_converted(&b, model);
    CHECK(write_file(&b, (extras){.model = "llama"}) == LP_OK);
    CHECK(read_file(&gguf, &warnings, &err) == LP_OK && warnings == 0);
    if (gguf) same_tokenizer(model, gguf);
    lp_tokenizer_free(gguf);

    refuse(&b, (extras){.model = NULL}, LP_E_NOT_FOUND, "no vocabulary");
    refuse(&b, (extras){.model = "gpt2"}, LP_E_UNSUPPORTED, "'gpt2'");
    refuse(&b, (extras){.model = "llama", .space_prefix = true}, LP_E_UNSUPPORTED, "add_space_prefix");
    refuse(&b, (extras){.model = "llama", .squeeze = true}, LP_E_UNSUPPORTED, "remove_extra_whitespaces");
    refuse(&b, (extras){.model = "llama", .no_scores = true}, LP_E_FORMAT, "scores");
    refuse(&b, (extras){.model = "llama", .few_types = true}, LP_E_FORMAT, "4095 token types");
    b.score[9] = NAN;
    refuse(&b, (extras){.model = "llama"}, LP_E_FORMAT, "piece 9 has the score");
    table_free(&b);

    b = copy_vocabulary(model, GEMMA);
    as_first_days(&b);
    CHECK(write_file(&b, (extras){.model = "llama", .old = true}) == LP_OK);
    CHECK(read_file(&gguf, &warnings, &err) == LP_OK && warnings == 2);
    if (gguf) same_tokenizer(model, gguf);
    lp_tokenizer_free(gguf);
    table_free(&b);

    lp_tokenizer_free(model);
    return check_done();
}
