/* test_tokenizer.c - against libsentencepiece's answers (goldens/make_tokenizer_goldens.py), and what no other library
 * promises: spans, the three ways with specials, streams, refusals.  A million more strings: oracle_tokenizer.py. */
#include "core/tokenizer.h"

#include "tests/check.h"
#include "tests/escaped.h"

#include <stdlib.h>
#include <time.h>

#define MODEL LP_TESTS_DIR "/goldens/tokenizer/tokenizer.model"
#define SPACE "\xe2\x96\x81"

/* ---- goldens -------------------------------------------------------------------------------------------------------
 */

/* Calls fn(left, right) for each line of a file of tab-separated pairs. */
static int for_each_line(const lp_tokenizer *t, const char *file, void (*fn)(const lp_tokenizer *, char *, char *))
{
    char *text = NULL;
    size_t n;
    lp_error err = {0};
    char *path = lp_format("%s/goldens/tokenizer/%s", LP_TESTS_DIR, file);
    CHECK(path && lp_read_file(&text, &n, path, 1 << 24, &err) == LP_OK);
    int lines = 0;
    for (char *line = text, *next; line && *line; line = next) {
        char *end = strchr(line, '\n'), *tab = strchr(line, '\t');
        CHECK(end && tab && tab < end);
        if (!end || !tab || tab > end) break;
        *end = *tab = 0;
        next = end + 1;
        fn(t, line, tab + 1);
        lines++;
    }
    free(text);
    free(path);
    return lines;
}

static void check_spans(const lp_tokenizer *t, const lp_tokens *tokens, const char *text, size_t n)
{
    size_t at = 0;
    bool tile = true, say = true;
    for (size_t i = 0; i < tokens->n; i++) {
        lp_span s = tokens->spans[i];
        tile &= s.begin == at && s.end >= s.begin;
        at = s.end;
        if (!tile || lp_tokenizer_type(t, tokens->ids[i]) == LP_PIECE_BYTE) continue;
        size_t len; /* the piece is the text it stands for, but that a space and U+2581 are one */
        const char *p = lp_tokenizer_piece(t, tokens->ids[i], &len), *q = text + s.begin, *end = text + s.end;
        for (const char *stop = p + len; p < stop && q < end; p++, q++)
            if (*p != *q) {
                say &= *q == ' ' && memcmp(p, SPACE, 3) == 0;
                p += 2;
            }
        say &= q == end;
    }
    CHECK(tile);
    CHECK(say);
    CHECK(at == n);
}

static void check_stream(const lp_tokenizer *t, const int *ids, size_t n, const char *want, size_t n_want)
{
    lp_detokenizer d = {.tokenizer = t, .show_specials = 1};
    size_t at = 0, len;
    bool same = true;
    for (size_t i = 0; i <= n; i++) {
        const char *s = i < n ? lp_detokenizer_push(&d, ids[i], &len) : lp_detokenizer_flush(&d, &len);
        same = same && at + len <= n_want && memcmp(want + at, s, len) == 0 && s[len] == 0;
        same = same && (len == 0 || ((unsigned char)s[0] & 0xc0) != 0x80); /* never starts inside a character */
        at += len;
    }
    CHECK(same);
    CHECK(at == n_want);
}

static bool same_ids(const lp_tokens *got, const int *want, size_t n)
{
    return got->n == n && (n == 0 || memcmp(got->ids, want, n * sizeof *want) == 0);
}

static void encode_line(const lp_tokenizer *t, char *text, char *ids)
{
    static int want[8192];
    size_t n = unescape(text), n_want = parse_ids(ids, want, 8192);
    lp_tokens got = {0};
    lp_error err = {0};
    CHECK(lp_tokenizer_encode(t, text, n, LP_SPECIALS_SENTENCEPIECE, &got, &err) == LP_OK);
    CHECK(same_ids(&got, want, n_want));
    check_spans(t, &got, text, n);
    char *all = NULL;
    size_t n_all = 0;
    CHECK(lp_tokenizer_decode(t, got.ids, got.n, 1, &all, &n_all, &err) == LP_OK);
    check_stream(t, got.ids, got.n, all, n_all);
    free(all);
    bool special = false;
    for (size_t i = 0; i < got.n; i++) special |= lp_tokenizer_is_special(t, got.ids[i]);
    got.n = 0;
    CHECK(lp_tokenizer_encode(t, text, n, LP_SPECIALS_LITERAL, &got, &err) == LP_OK);
    check_spans(t, &got, text, n);
    for (size_t i = 0; i < got.n; i++) CHECK(!lp_tokenizer_is_special(t, got.ids[i]));
    CHECK(special || same_ids(&got, want, n_want));
    got.n = 0;
    CHECK(lp_tokenizer_encode(t, text, n, LP_SPECIALS_PARSED, &got, &err) == LP_OK);
    check_spans(t, &got, text, n);
    lp_tokens_free(&got);
}

static void decode_line(const lp_tokenizer *t, char *ids, char *text)
{
    int list[256];
    size_t n = unescape(text), n_ids = parse_ids(ids, list, 256), n_got = 0;
    char *got = NULL;
    lp_error err = {0};
    CHECK(lp_tokenizer_decode(t, list, n_ids, 0, &got, &n_got, &err) == LP_OK);
    CHECK(n_got == n && memcmp(got, text, n) == 0);
    check_stream(t, list, n_ids, text, n);
    free(got);
}

/* ---- what the vocabulary says ---------------------------------------------------------------------------------------
 */

static void test_vocabulary(const lp_tokenizer *t)
{
    CHECK(lp_tokenizer_size(t) == 4096);
    CHECK(lp_tokenizer_pad(t) == 0 && lp_tokenizer_eos(t) == 1 && lp_tokenizer_bos(t) == 2 && lp_tokenizer_unk(t) == 3);
    CHECK(lp_tokenizer_find(t, "<start_of_turn>") == 106 && lp_tokenizer_find(t, "\n") == 108);
    CHECK(lp_tokenizer_find(t, SPACE SPACE) == 139 && lp_tokenizer_find(t, "<s>") == 204);
    CHECK(lp_tokenizer_find(t, "  ") == -1 && lp_tokenizer_find(t, "") == -1 && lp_tokenizer_find(t, "qqqqq") == -1);
    CHECK_STR(lp_tokenizer_piece(t, 107, NULL), "<end_of_turn>");
    CHECK_STR(lp_tokenizer_piece(t, 4096, NULL), "");
    CHECK_STR(lp_tokenizer_piece(t, -1, NULL), "");
    CHECK(lp_tokenizer_type(t, 2) == LP_PIECE_CONTROL && lp_tokenizer_type(t, 3) == LP_PIECE_UNKNOWN);
    CHECK(lp_tokenizer_type(t, 106) == LP_PIECE_USER && lp_tokenizer_type(t, 217) == LP_PIECE_BYTE);
    CHECK(lp_tokenizer_type(t, 1000) == LP_PIECE_NORMAL);
    for (int id = 0; id < 4096; id++) {
        const char *piece = lp_tokenizer_piece(t, id, NULL);
        bool tag = strcmp(piece, "[toxicity=0]") == 0 || strcmp(piece, "<unused99>") == 0;
        CHECK(lp_tokenizer_find(t, piece) == id);
        CHECK(lp_tokenizer_is_special(t, id) == (id < 108 || tag));
    }
    CHECK(!lp_tokenizer_is_special(t, -1) && !lp_tokenizer_is_special(t, 4096));
}

static lp_tokens encode(const lp_tokenizer *t, const char *text, lp_specials specials)
{
    lp_tokens out = {0};
    CHECK(lp_tokenizer_encode(t, text, strlen(text), specials, &out, NULL) == LP_OK);
    return out;
}

static void test_specials(const lp_tokenizer *t)
{
    const char *text = "<bos>a<end_of_turn>\n<unk><0x41>";
    lp_tokens sp = encode(t, text, LP_SPECIALS_SENTENCEPIECE), literal = encode(t, text, LP_SPECIALS_LITERAL);
    lp_tokens parsed = encode(t, text, LP_SPECIALS_PARSED);
    int bos = 0, turn = 0, newline = 0;
    for (size_t i = 0; i < sp.n; i++) bos += sp.ids[i] == 2, turn += sp.ids[i] == 107;
    CHECK(bos == 0 && turn == 1);
    for (size_t i = 0; i < literal.n; i++) newline += literal.ids[i] == 108;
    CHECK(newline == 1);
    CHECK(parsed.n > 5 && parsed.ids[0] == 2 && parsed.ids[2] == 107 && parsed.ids[3] == 108 && parsed.ids[4] == 3);
    CHECK(parsed.spans[2].begin == 6 && parsed.spans[2].end == 19);
    CHECK(lp_tokenizer_type(t, parsed.ids[5]) != LP_PIECE_BYTE); /* "<0x41>" typed is never the byte */
    char *shown = NULL, *hidden = NULL;
    CHECK(lp_tokenizer_decode(t, parsed.ids, parsed.n, 1, &shown, NULL, NULL) == LP_OK);
    CHECK_STR(shown, text);
    CHECK(lp_tokenizer_decode(t, parsed.ids, parsed.n, 0, &hidden, NULL, NULL) == LP_OK);
    CHECK_STR(hidden, "a\n<0x41>");
    free(shown);
    free(hidden);
    lp_error err;
    CHECK(lp_tokenizer_decode(t, (int[]){5, 4096}, 2, 0, &shown, NULL, &err) == LP_E_RANGE);
    lp_tokens_free(&sp);
    lp_tokens_free(&literal);
    lp_tokens_free(&parsed);
}

/* Byte pieces share out a character: bytewise where they are its bytes, from the left where there are fewer. */
static void test_byte_spans(const lp_tokenizer *t)
{
    lp_tokens none = encode(t, "", LP_SPECIALS_PARSED);
    CHECK(none.n == 0);
    lp_tokens_free(&none);
    lp_tokens e = encode(t, "\xf0\x9f\x98\x80\xffz", LP_SPECIALS_LITERAL);
    const size_t want[] = {0, 1, 2, 3, 4, 5, 5, 5, 6};
    CHECK(e.n == 8);
    for (size_t i = 0; i < e.n; i++) CHECK(e.spans[i].begin == want[i] && e.spans[i].end == want[i + 1]);
    lp_tokens_free(&e);
}

/* ---- size and speed ---------------------------------------------------------------------------------------------- */

/* A quadratic step would take minutes here.  The bound is generous for sanitizers; it is not a benchmark. */
static void test_long_texts(const lp_tokenizer *t)
{
    enum { N = 1 << 20 };
    const char *const units[] = {"a",           " ", "\n", "\xff", "ab ", "the quick brown fox ", "<start_of_tur",
                                 "\xe4\xb8\x96"};
    char *text = malloc(N);
    CHECK(text != NULL);
    for (size_t u = 0; text && u < sizeof units / sizeof *units; u++) {
        for (size_t i = 0; i < N; i++) text[i] = units[u][i % strlen(units[u])];
        lp_tokens out = {0};
        clock_t start = clock();
        CHECK(lp_tokenizer_encode(t, text, N, LP_SPECIALS_SENTENCEPIECE, &out, NULL) == LP_OK);
        double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        if (getenv("LP_TIMES")) printf("1 MiB of '%s': %.0f ms, %zu tokens\n", units[u], seconds * 1e3, out.n);
        CHECK(seconds < 20);
        check_spans(t, &out, text, N);
        lp_tokens_free(&out);
    }
    free(text);
}

/* ---- files that are not Gemma's ---------------------------------------------------------------------------------- */

typedef struct bytes {
    unsigned char p[1 << 15];
    size_t n;
} bytes;

static void put(bytes *b, const void *p, size_t n)
{
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void put_number(bytes *b, int field, uint64_t v)
{
    unsigned char key[2] = {(unsigned char)((field << 3 & 0x7f) | (field > 15 ? 0x80 : 0)),
                            (unsigned char)(field >> 4)};
    put(b, key, field > 15 ? 2 : 1);
    for (; v >= 0x80; v >>= 7) put(b, &(unsigned char){(unsigned char)(v | 0x80)}, 1);
    put(b, &(unsigned char){(unsigned char)v}, 1);
}

static void put_bytes(bytes *b, int field, const void *p, size_t n) /* field < 16, n < 128 */
{
    put(b, &(unsigned char){(unsigned char)(field << 3 | 2)}, 1);
    put(b, &(unsigned char){(unsigned char)n}, 1);
    put(b, p, n);
}

static void put_piece(bytes *b, const char *piece, size_t n, float score, int type)
{
    bytes m;
    m.n = 0;
    put_bytes(&m, 1, piece, n);
    put(&m, "\x15", 1); /* score: field 2, four bytes */
    put(&m, &score, 4);
    put_number(&m, 3, (uint64_t)(int64_t)type);
    put_bytes(b, 1, m.p, m.n);
}

typedef struct plan { /* a small model; each field spoils one thing */
    int model_type, no_fallback, dummy_prefix, squeeze, no_escape, bytes;
    const char *charsmap;
    const char *piece; /* one more */
    size_t piece_len;
    float score;
    int type, no_unk;
} plan;

static const plan good = {.model_type = 2, .bytes = 256};

static void build(bytes *b, plan p)
{
    b->n = 0;
    if (!p.no_unk) put_piece(b, "<unk>", 5, 0, LP_PIECE_UNKNOWN);
    put_piece(b, "<s>", 3, 0, LP_PIECE_CONTROL);
    for (int i = 0; i < p.bytes; i++) {
        char name[8];
        put_piece(b, name, (size_t)snprintf(name, sizeof name, "<0x%02X>", (unsigned)i), 0, LP_PIECE_BYTE);
    }
    put_piece(b, "ab", 2, -1, LP_PIECE_NORMAL);
    put_piece(b, "a", 1, -2, LP_PIECE_NORMAL);
    put_piece(b, "b", 1, -2, LP_PIECE_NORMAL);
    if (p.piece) put_piece(b, p.piece, p.piece_len ? p.piece_len : strlen(p.piece), p.score, p.type);
    bytes spec;
    spec.n = 0;
    put_number(&spec, 3, (uint64_t)p.model_type);
    put_number(&spec, 35, !p.no_fallback);
    put_bytes(b, 2, spec.p, spec.n);
    spec.n = 0;
    put_bytes(&spec, 1, "nmt_nfkc", 8);
    if (p.charsmap) put_bytes(&spec, 2, p.charsmap, strlen(p.charsmap));
    put_number(&spec, 3, (uint64_t)p.dummy_prefix);
    put_number(&spec, 4, (uint64_t)p.squeeze);
    put_number(&spec, 5, !p.no_escape);
    put_bytes(b, 3, spec.p, spec.n);
}

static void refuse(plan p, lp_status want, const char *says)
{
    bytes b;
    lp_error err = {0};
    lp_tokenizer *t = NULL;
    build(&b, p);
    lp_status st = lp_tokenizer_from_bytes(&t, b.p, b.n, &err);
    CHECK(st == want && t == NULL);
    if (!strstr(err.text, says)) CHECK_STR(err.text, says);
    lp_tokenizer_free(t);
}

#define SPOIL(...) ((plan){.model_type = 2, .bytes = 256, __VA_ARGS__})

/* One letter a million times, and pieces for every power of two: all ties, all merging, the agenda at its largest. */
static void test_one_letter(void)
{
    enum { N = 1 << 20 };
    bytes b;
    lp_tokenizer *t = NULL;
    lp_tokens out = {0};
    char *text = malloc(N), run[64];
    memset(run, 'c', sizeof run);
    build(&b, good);
    for (size_t n = 1; n <= sizeof run; n *= 2) put_piece(&b, run, n, (float)n, LP_PIECE_NORMAL);
    CHECK(lp_tokenizer_from_bytes(&t, b.p, b.n, NULL) == LP_OK && text);
    if (t && text) {
        memset(text, 'c', N);
        clock_t start = clock();
        CHECK(lp_tokenizer_encode(t, text, N, LP_SPECIALS_SENTENCEPIECE, &out, NULL) == LP_OK);
        CHECK((double)(clock() - start) / CLOCKS_PER_SEC < 20);
        CHECK(out.n == N / sizeof run);
        check_spans(t, &out, text, N);
    }
    lp_tokens_free(&out);
    lp_tokenizer_free(t);
    free(text);
}

static void test_refusals(void)
{
    bytes b;
    lp_tokenizer *t = NULL;
    build(&b, good);
    CHECK(lp_tokenizer_from_bytes(&t, b.p, b.n, NULL) == LP_OK);
    CHECK(t && lp_tokenizer_bos(t) == 1 && lp_tokenizer_eos(t) == -1 && lp_tokenizer_pad(t) == -1);
    lp_tokenizer_free(t);

    refuse((plan){.model_type = 1, .bytes = 256}, LP_E_UNSUPPORTED, "UNIGRAM; only BPE");
    refuse(SPOIL(.charsmap = "xxxx"), LP_E_UNSUPPORTED, "nmt_nfkc");
    refuse(SPOIL(.dummy_prefix = 1), LP_E_UNSUPPORTED, "add_dummy_prefix");
    refuse(SPOIL(.squeeze = 1), LP_E_UNSUPPORTED, "remove_extra_whitespaces");
    refuse(SPOIL(.no_escape = 1), LP_E_UNSUPPORTED, "escape_whitespaces");
    refuse(SPOIL(.no_fallback = 1), LP_E_UNSUPPORTED, "byte_fallback");
    refuse(SPOIL(.piece = "q", .type = LP_PIECE_UNUSED), LP_E_UNSUPPORTED, "unused");
    refuse(SPOIL(.piece = "q", .type = LP_PIECE_CONTROL), LP_E_UNSUPPORTED, "one character");
    refuse((plan){.model_type = 2, .bytes = 255}, LP_E_FORMAT, "<0xFF> is missing");
    refuse(SPOIL(.no_unk = 1), LP_E_FORMAT, "no unknown piece");
    refuse(SPOIL(.piece = "<u>", .type = LP_PIECE_UNKNOWN), LP_E_FORMAT, "both the unknown piece");
    refuse(SPOIL(.piece = "<0x100>", .type = LP_PIECE_BYTE), LP_E_FORMAT, "257 byte pieces");
    refuse(SPOIL(.piece = "ab", .type = LP_PIECE_NORMAL), LP_E_FORMAT, "are both 'ab'");
    refuse(SPOIL(.piece = "\xc3", .type = LP_PIECE_NORMAL), LP_E_FORMAT, "not valid UTF-8");
    refuse(SPOIL(.piece = "a\0b", .piece_len = 3, .type = LP_PIECE_NORMAL), LP_E_FORMAT, "NUL");
    refuse(SPOIL(.piece = "q", .type = 7), LP_E_FORMAT, "type 7");
    refuse(SPOIL(.piece = "q", .type = -1), LP_E_FORMAT, "type -1");
    refuse(SPOIL(.piece = "q", .type = LP_PIECE_NORMAL, .score = NAN), LP_E_FORMAT, "score");
    refuse(SPOIL(.piece = "q", .type = LP_PIECE_NORMAL, .score = INFINITY), LP_E_FORMAT, "score");

    lp_error err = {0};
    t = NULL;
    CHECK(lp_tokenizer_from_bytes(&t, "", 0, &err) == LP_E_FORMAT && !t);
    CHECK(lp_tokenizer_from_bytes(&t, "\x0a\x02\x0a\x00", 4, &err) == LP_E_FORMAT && strstr(err.text, "empty"));
    CHECK(lp_tokenizer_from_bytes(&t, "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, &err) == LP_E_FORMAT);
    CHECK(lp_tokenizer_from_bytes(&t, "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11, &err) == LP_E_FORMAT);
    CHECK(lp_tokenizer_open(&t, LP_TESTS_DIR "/nothing", &err) == LP_E_NOT_FOUND && !t);
    CHECK(lp_tokenizer_open(&t, LP_TESTS_DIR "/test_tokenizer.c", &err) == LP_E_FORMAT && strstr(err.text, "protobuf"));
}

/* Cut short anywhere, or with any byte changed: an error or a tokenizer that works, nothing else. */
static void test_damage(void)
{
    char *data = NULL;
    size_t n = 0;
    unsigned seed = 1;
    CHECK(lp_read_file(&data, &n, MODEL, 1 << 20, NULL) == LP_OK);
    for (size_t i = 0; data && i < 400; i++) {
        lp_tokenizer *t = NULL;
        seed = seed * 1664525u + 1013904223u;
        size_t at = (i & 1 ? seed >> 8 : (unsigned)n - 1 - (seed >> 8) % 200) % n;
        char old = data[at];
        lp_status st = lp_tokenizer_from_bytes(&t, data, i % 4 < 2 ? at : n, NULL);
        CHECK(st == LP_OK ? i % 4 >= 2 : t == NULL);
        lp_tokenizer_free(t);
        data[at] = (char)(seed >> 24);
        t = NULL;
        if (lp_tokenizer_from_bytes(&t, data, n, NULL) == LP_OK) {
            lp_tokens out = encode(t, "The quick  brown\n\nfox <h1> \xe4\xb8\x96", LP_SPECIALS_PARSED);
            CHECK(out.n > 0);
            lp_tokens_free(&out);
        }
        lp_tokenizer_free(t);
        data[at] = old;
    }
    free(data);
}

int main(void)
{
    lp_error err = {0};
    lp_tokenizer *t = NULL;
    CHECK(lp_tokenizer_open(&t, MODEL, &err) == LP_OK);
    CHECK_STR(err.text, "");
    if (t) {
        CHECK(for_each_line(t, "encode.tsv", encode_line) > 3000);
        CHECK(for_each_line(t, "decode.tsv", decode_line) == 800);
        test_vocabulary(t);
        test_specials(t);
        test_byte_spans(t);
        test_long_texts(t);
    }
    lp_tokenizer_free(t);
    lp_tokenizer_free(NULL);
    test_one_letter();
    test_refusals();
    test_damage();
    return check_done();
}
