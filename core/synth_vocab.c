/* synth_vocab.c - a vocabulary like Gemma's, without Gemma's words.
 *
 *     0 .. 3        <pad> <eos> <bos> <unk>
 *     4 .. 107      <mask> <2mass> [@BOS@] <unused0> .. <unused98> <start_of_turn> <end_of_turn>
 *     108 .. 168    runs of 1 to 31 newlines, of 2 to 31 spaces
 *     169 .. 216    HTML tags
 *     217 .. 472    the bytes <0x00> .. <0xFF>
 *     473 ..        merged pieces by falling score: here every string of one letter after a space, then every pair,
 *                   every pair after a space, every triple, ... in order of length, letters by how common they are
 *     ..            single characters, the space first
 *     last 32       [toxicity=0], runs of 2 to 31 tabs, <unused99>
 *
 * With 256,000 pieces the borders lie exactly where Gemma 2's do (235,248 is the space).  Every part of a merged piece
 * that merging meets on the way is itself a piece of a better score, so each can really be produced from text.
 *
 * tokenizer.model is a protobuf [1]: a field is a varint (number * 8 + wire type), then a varint (0), 4 bytes (5) or a
 * length and bytes (2).
 *
 * [1] google/sentencepiece, src/sentencepiece_model.proto.
 */
#include "core/synth_vocab.h"

#include "core/vocab.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    GEMMA_VOCAB = 256000,
    GEMMA_SINGLES = 20720, /* 235248 .. 255967 */
    HEAD = 473,
    TAIL = 32,
    LEAST_SINGLES = 96, /* the space and printable ASCII */
};

static const char letters[] = "etaoinshrdlucmfwypvbgkjqxz";

static const char *const tags[] = {
    "<table>",  "<caption>",  "<thead>",  "<tbody>",  "<tfoot>",  "<tr>",          "<th>",         "<td>",
    "</table>", "</caption>", "</thead>", "</tbody>", "</tfoot>", "</tr>",         "</th>",        "</td>",
    "<h1>",     "<h2>",       "<h3>",     "<h4>",     "<h5>",     "<h6>",          "<blockquote>", "</h1>",
    "</h2>",    "</h3>",      "</h4>",    "</h5>",    "</h6>",    "</blockquote>", "<strong>",     "<em>",
    "<b>",      "<i>",        "<u>",      "<s>",      "<sub>",    "<sup>",         "<code>",       "</strong>",
    "</em>",    "</b>",       "</i>",     "</u>",     "</s>",     "</sub>",        "</sup>",       "</code>"};
_Static_assert(sizeof tags / sizeof *tags == 48, "217 must be the first byte piece");

static lp_status add(lp_tokenizer *t, const char *piece, double score, lp_piece_type type, lp_error *err)
{
    return lp_vocab_add(t, piece, strlen(piece), score, type, err);
}

static lp_status add_runs(lp_tokenizer *t, const char *of, int from, int to, lp_error *err)
{
    char run[31 * 3 + 1] = "";
    for (int n = 1; n <= to; n++) {
        memcpy(run + (size_t)(n - 1) * strlen(of), of, strlen(of) + 1);
        if (n >= from) LP_TRY(add(t, run, 0, LP_PIECE_USER, err));
    }
    return LP_OK;
}

static lp_status add_head(lp_tokenizer *t, lp_error *err)
{
    char name[16];
    LP_TRY(add(t, "<pad>", 0, LP_PIECE_CONTROL, err));
    LP_TRY(add(t, "<eos>", 0, LP_PIECE_CONTROL, err));
    LP_TRY(add(t, "<bos>", 0, LP_PIECE_CONTROL, err));
    LP_TRY(add(t, "<unk>", 0, LP_PIECE_UNKNOWN, err));
    LP_TRY(add(t, "<mask>", 0, LP_PIECE_USER, err));
    LP_TRY(add(t, "<2mass>", 0, LP_PIECE_USER, err));
    LP_TRY(add(t, "[@BOS@]", 0, LP_PIECE_USER, err));
    for (int i = 0; i < 99; i++) {
        snprintf(name, sizeof name, "<unused%d>", i);
        LP_TRY(add(t, name, 0, LP_PIECE_USER, err));
    }
    LP_TRY(add(t, "<start_of_turn>", 0, LP_PIECE_USER, err));
    LP_TRY(add(t, "<end_of_turn>", 0, LP_PIECE_USER, err));
    LP_TRY(add_runs(t, "\n", 1, 31, err));
    LP_TRY(add_runs(t, LP_SPACE, 2, 31, err));
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) LP_TRY(add(t, tags[i], 0, LP_PIECE_USER, err));
    for (unsigned b = 0; b < 256; b++) {
        snprintf(name, sizeof name, "<0x%02X>", b);
        LP_TRY(add(t, name, 0, LP_PIECE_BYTE, err));
    }
    return LP_OK;
}

/* `n` merged pieces; the score is minus the rank, as the trainer gives it. */
static lp_status add_merged(lp_tokenizer *t, int n, lp_error *err)
{
    int rank = 0;
    for (int length = 1; rank < n; length++) { /* letters after a space; then one more, without it */
        for (int bare = 0; bare < 2; bare++) {
            int k = length + bare, count = 1;
            char piece[16];
            memcpy(piece, LP_SPACE, 3);
            for (int i = 0; i < k; i++) count *= 26;
            for (int j = 0; j < count && rank < n; j++, rank++) {
                for (int i = k, v = j; i-- > 0; v /= 26) piece[3 + i] = letters[v % 26];
                piece[3 + k] = 0;
                LP_TRY(add(t, bare ? piece + 3 : piece, -(double)rank, LP_PIECE_NORMAL, err));
            }
        }
    }
    return LP_OK;
}

static void put_utf8(char *s, uint32_t c) /* c below U+10000 */
{
    if (c < 0x80) {
        *s++ = (char)c;
    } else if (c < 0x800) {
        *s++ = (char)(0xc0 | c >> 6);
        *s++ = (char)(0x80 | (c & 63));
    } else {
        *s++ = (char)(0xe0 | c >> 12);
        *s++ = (char)(0x80 | (c >> 6 & 63));
        *s++ = (char)(0x80 | (c & 63));
    }
    *s = 0;
}

/* The space, the letters that merging needs, the rest of ASCII, then Latin, Cyrillic, kana, ideographs. */
static lp_status add_singles(lp_tokenizer *t, int n, int rank, lp_error *err)
{
    static const struct {
        uint32_t from, to;
    } blocks[] = {{0x21, 0x60},     {0x7b, 0x7e},     {0xa1, 0x24f},   {0x400, 0x52f},
                  {0x3041, 0x3096}, {0x30a1, 0x30fa}, {0x4e00, 0x9fa5}};
    char piece[8];
    LP_TRY(add(t, LP_SPACE, -(double)rank, LP_PIECE_NORMAL, err));
    int done = 1;
    for (int i = 0; i < 26; i++, done++) {
        put_utf8(piece, (unsigned char)letters[i]);
        LP_TRY(add(t, piece, -(double)(rank + done), LP_PIECE_NORMAL, err));
    }
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
        for (uint32_t c = blocks[b].from; c <= blocks[b].to && done < n; c++, done++) {
            put_utf8(piece, c);
            LP_TRY(add(t, piece, -(double)(rank + done), LP_PIECE_NORMAL, err));
        }
    return done == n ? LP_OK : lp_fail(err, LP_E_RANGE, "no synthetic vocabulary has %d single characters", n);
}

static lp_status add_all(lp_tokenizer *t, int n, lp_error *err)
{
    int middle = n - HEAD - TAIL;
    int singles = (int)((int64_t)middle * GEMMA_SINGLES / (GEMMA_VOCAB - HEAD - TAIL));
    if (singles < LEAST_SINGLES) singles = LEAST_SINGLES;
    if (singles > GEMMA_SINGLES) singles = GEMMA_SINGLES;
    LP_TRY(add_head(t, err));
    LP_TRY(add_merged(t, middle - singles, err));
    LP_TRY(add_singles(t, singles, middle - singles, err));
    LP_TRY(add(t, "[toxicity=0]", 0, LP_PIECE_USER, err));
    LP_TRY(add_runs(t, "\t", 2, 31, err));
    LP_TRY(add(t, "<unused99>", 0, LP_PIECE_USER, err));
    t->pad = 0;
    t->eos = 1;
    t->bos = 2;
    return lp_vocab_seal(t, err);
}

lp_status lp_synth_vocab(lp_tokenizer **out, int n, lp_error *err)
{
    if (n < LP_SYNTH_LEAST_VOCAB || n > LP_MAX_PIECES)
        return lp_fail(err, LP_E_RANGE,
                       "a vocabulary like Gemma's has %d to %d pieces, not %d; another one comes from --tokenizer",
                       LP_SYNTH_LEAST_VOCAB, LP_MAX_PIECES, n);
    lp_tokenizer *t = lp_vocab_new();
    if (!t) return lp_fail(err, LP_E_MEMORY, "out of memory for a vocabulary");
    lp_status st = add_all(t, n, err);
    if (st == LP_OK)
        *out = t;
    else
        lp_tokenizer_free(t);
    return st;
}

/* ---- tokenizer.model ------------------------------------------------------------------------------------------ */

typedef struct buffer {
    char *data;
    size_t n, capacity;
    bool failed; /* out of memory; everything after is ignored, checked once at the end */
} buffer;

static void put(buffer *b, const void *data, size_t n)
{
    if (b->failed || !lp_grow((void **)&b->data, &b->capacity, b->n + n + 1, 1)) {
        b->failed = true;
        return;
    }
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

static void put_varint(buffer *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7) put(b, &(char){(char)(v | 0x80)}, 1);
    put(b, &(char){(char)v}, 1);
}

static void put_number(buffer *b, int field, uint64_t v)
{
    put_varint(b, (uint64_t)field << 3);
    put_varint(b, v);
}

static void put_bytes(buffer *b, int field, const char *data, size_t n)
{
    put_varint(b, (uint64_t)field << 3 | 2);
    put_varint(b, n);
    put(b, data, n);
}

static void put_piece(buffer *b, const lp_tokenizer *t, int id, buffer *message)
{
    const lp_piece *p = &t->pieces[id];
    uint32_t bits;
    memcpy(&bits, &p->score, 4);
    const char score[5] = {2 << 3 | 5, (char)bits, (char)(bits >> 8), (char)(bits >> 16), (char)(bits >> 24)};
    message->n = 0;
    put_bytes(message, 1, t->text + p->at, (size_t)p->len);
    put(message, score, sizeof score);
    if (p->type != LP_PIECE_NORMAL) put_number(message, 3, p->type);
    put_bytes(b, 1, message->data ? message->data : "", message->n);
}

static void put_role(buffer *b, const lp_tokenizer *t, int id, int id_field, int piece_field)
{
    if (id < 0) {
        put_number(b, id_field, UINT64_MAX); /* -1: an int32 is sign-extended to 64 bits */
        return;
    }
    size_t len;
    const char *piece = lp_tokenizer_piece(t, id, &len);
    put_number(b, id_field, (uint64_t)id);
    put_bytes(b, piece_field, piece, len);
}

lp_status lp_synth_spm(char **out, size_t *bytes, const lp_tokenizer *t, lp_error *err)
{
    buffer file = {0}, message = {0};
    for (int id = 0; id < t->n; id++) put_piece(&file, t, id, &message);

    message.n = 0;              /* trainer_spec */
    put_number(&message, 3, 2); /* model_type BPE */
    put_number(&message, 4, (uint64_t)t->n);
    put_number(&message, 35, 1); /* byte_fallback */
    put_role(&message, t, t->unk, 40, 45);
    put_role(&message, t, t->bos, 41, 46);
    put_role(&message, t, t->eos, 42, 47);
    put_role(&message, t, t->pad, 43, 48);
    put_bytes(&file, 2, message.data ? message.data : "", message.n);

    message.n = 0; /* normalizer_spec: the text as it is */
    put_bytes(&message, 1, "identity", 8);
    put_number(&message, 3, 0); /* add_dummy_prefix */
    put_number(&message, 4, 0); /* remove_extra_whitespaces */
    put_number(&message, 5, 1); /* escape_whitespaces: ' ' is U+2581 */
    put_bytes(&file, 3, message.data ? message.data : "", message.n);

    bool failed = file.failed || message.failed;
    free(message.data);
    if (failed) {
        free(file.data);
        return lp_fail(err, LP_E_MEMORY, "out of memory for tokenizer.model");
    }
    *out = file.data;
    *bytes = file.n;
    return LP_OK;
}

/* ---- GGUF ------------------------------------------------------------------------------------------------------- */

/* llama.cpp's converter: special pieces become CONTROL, the other user-defined ones keep their type but show their
 * spaces as spaces; both get the score -1000.  Even <unk> is CONTROL: unknown_token_id names it. */
static size_t ggml_piece(const lp_tokenizer *t, int id, char *text, float *score, int32_t *type)
{
    const lp_piece *p = &t->pieces[id];
    const char *s = t->text + p->at;
    *score = p->score;
    *type = p->special ? LP_PIECE_CONTROL : (int32_t)p->type;
    if (p->special || p->type == LP_PIECE_USER) *score = -1000;
    size_t n = 0;
    for (int i = 0; i < p->len;) {
        if (*type == LP_PIECE_USER && strncmp(s + i, LP_SPACE, 3) == 0) {
            text[n++] = ' ';
            i += 3;
        } else {
            text[n++] = s[i++];
        }
    }
    text[n] = 0;
    return n;
}

static lp_status put_arrays(lp_gguf_writer *w, const lp_tokenizer *t, lp_error *err)
{
    size_t n = (size_t)t->n;
    const char **pieces = lp_calloc(n, sizeof *pieces);
    size_t *len = lp_calloc(n, sizeof *len);
    float *scores = lp_calloc(n, sizeof *scores);
    int32_t *types = lp_calloc(n, sizeof *types);
    char *text = lp_calloc(t->n_text, 1), *at = text;
    lp_status st;
    if (!pieces || !len || !scores || !types || !text) {
        st = lp_fail(err, LP_E_MEMORY, "out of memory for the vocabulary of a GGUF file");
        goto out;
    }
    for (int id = 0; id < t->n; id++) {
        len[id] = ggml_piece(t, id, at, &scores[id], &types[id]);
        pieces[id] = at;
        at += len[id] + 1;
    }
    if ((st = lp_gguf_put_strings(w, "tokenizer.ggml.tokens", pieces, len, n, err)) < 0) goto out;
    if ((st = lp_gguf_put_f32s(w, "tokenizer.ggml.scores", scores, n, err)) < 0) goto out;
    st = lp_gguf_put_i32s(w, "tokenizer.ggml.token_type", types, n, err);
out:
    free(text);
    free(types);
    free(scores);
    free(len);
    free(pieces);
    return st;
}

lp_status lp_synth_put_vocab(lp_gguf_writer *w, const lp_tokenizer *t, lp_error *err)
{
    const struct {
        const char *key;
        int id;
    } roles[] = {{"tokenizer.ggml.bos_token_id", t->bos},
                 {"tokenizer.ggml.eos_token_id", t->eos},
                 {"tokenizer.ggml.unknown_token_id", t->unk},
                 {"tokenizer.ggml.padding_token_id", t->pad}};
    LP_TRY(lp_gguf_put_string(w, "tokenizer.ggml.model", "llama", err));
    LP_TRY(lp_gguf_put_string(w, "tokenizer.ggml.pre", "default", err));
    LP_TRY(put_arrays(w, t, err));
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (roles[i].id >= 0) LP_TRY(lp_gguf_put_u32(w, roles[i].key, (uint32_t)roles[i].id, err));
    LP_TRY(lp_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", true, err));
    LP_TRY(lp_gguf_put_bool(w, "tokenizer.ggml.add_eos_token", false, err));
    return lp_gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", false, err);
}
