/* spm_model.c - tokenizer.model, the file SentencePiece writes.
 *
 * It is one protobuf message (google/sentencepiece: src/sentencepiece_model.proto).  The wire format is a sequence of
 * fields, each a key (field number and wire type in one varint) and a value; a message inside a message is a length and
 * that many bytes.  We read the few fields that decide how text is cut and skip the others by wire type.
 *
 *     ModelProto       1 pieces*    2 trainer_spec   3 normalizer_spec   5 denormalizer_spec
 *     SentencePiece    1 piece      2 score          3 type
 *     TrainerSpec      3 model_type 35 byte_fallback 46, 47, 48 bos_, eos_, pad_piece
 *     NormalizerSpec   1 name       2 precompiled_charsmap   3 add_dummy_prefix   4 remove_extra_whitespaces
 *                      5 escape_whitespaces
 *
 * What Gemma's file says is what we do: BPE, bytes for the unknown, no normalisation, no dummy prefix, all spaces kept.
 * A file that says otherwise is refused, since tokens almost right are worse than none.
 */
#include "core/vocab.h"

#include <stdlib.h>

enum { FILE_LIMIT = 64 << 20 };

/* ---- the wire format -------------------------------------------------------------------------------------------- */

typedef struct wire {
    const unsigned char *p, *end;
} wire;

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

typedef struct field {
    uint32_t number;
    int type;
    uint64_t value; /* VARINT, FIXED32, FIXED64 */
    wire bytes;     /* BYTES                    */
} field;

static bool varint(wire *w, uint64_t *out)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 70 && w->p < w->end; shift += 7) {
        unsigned char b = *w->p++;
        v |= (uint64_t)(b & 0x7f) << shift; /* the tenth byte's upper bits fall off, as in protobuf's own readers */
        if (b < 0x80) {
            *out = v;
            return true;
        }
    }
    return false;
}

static bool fixed(wire *w, int bytes, uint64_t *out)
{
    if (w->end - w->p < bytes) return false;
    *out = 0;
    for (int i = 0; i < bytes; i++) *out |= (uint64_t)*w->p++ << (8 * i);
    return true;
}

/* The next field: 1, 0 at the end, -1 when it is broken (groups, which proto2 abandoned, count as broken). */
static int next_field(wire *w, field *f)
{
    if (w->p == w->end) return 0;
    uint64_t key;
    if (!varint(w, &key) || key >> 3 == 0 || key >> 32) return -1;
    *f = (field){.number = (uint32_t)(key >> 3), .type = (int)(key & 7)};
    switch (f->type) {
    case VARINT:
        return varint(w, &f->value) ? 1 : -1;
    case FIXED64:
        return fixed(w, 8, &f->value) ? 1 : -1;
    case FIXED32:
        return fixed(w, 4, &f->value) ? 1 : -1;
    case BYTES:
        if (!varint(w, &f->value) || f->value > (uint64_t)(w->end - w->p)) return -1;
        f->bytes = (wire){w->p, w->p + f->value};
        w->p += f->value;
        return 1;
    default:
        return -1;
    }
}

static size_t n_bytes(wire w)
{
    return (size_t)(w.end - w.p);
}

/* ---- the message --------------------------------------------------------------------------------------------------
 */

typedef struct spec { /* what the file says; the values here are what an absent field means */
    uint64_t model_type;
    bool byte_fallback;
    bool add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces;
    size_t charsmap, denormalizer; /* bytes */
    wire normalizer, bos, eos, pad;
} spec;

static wire literal(const char *s)
{
    const unsigned char *p = (const unsigned char *)s;
    return (wire){p, p + strlen(s)};
}

static lp_status broken(const char *what, lp_error *err)
{
    return lp_fail(err, LP_E_FORMAT, "%s is not valid protobuf; is this a SentencePiece tokenizer.model, and whole?",
                   what);
}

static lp_status read_piece(lp_tokenizer *t, wire w, lp_error *err)
{
    wire text = literal("");
    float score = 0;
    uint64_t type = LP_PIECE_NORMAL;
    field f;
    int more;
    while ((more = next_field(&w, &f)) > 0) {
        if (f.number == 1 && f.type == BYTES) text = f.bytes;
        if (f.number == 2 && f.type == FIXED32) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&score, &bits, sizeof score);
        }
        if (f.number == 3 && f.type == VARINT) type = f.value;
    }
    if (more < 0) return broken("a piece", err);
    if (type == LP_PIECE_UNUSED)
        return lp_fail(err, LP_E_UNSUPPORTED,
                       "piece %d is marked unused; vocabularies cut down after training are not "
                       "supported",
                       t->n);
    return lp_vocab_add(t, (const char *)text.p, n_bytes(text), (double)score, (int64_t)type, err);
}

static lp_status read_trainer(spec *s, wire w, lp_error *err)
{
    field f;
    int more;
    while ((more = next_field(&w, &f)) > 0) {
        if (f.type == VARINT && f.number == 3) s->model_type = f.value;
        if (f.type == VARINT && f.number == 35) s->byte_fallback = f.value != 0;
        if (f.type == BYTES && f.number == 46) s->bos = f.bytes;
        if (f.type == BYTES && f.number == 47) s->eos = f.bytes;
        if (f.type == BYTES && f.number == 48) s->pad = f.bytes;
    }
    return more < 0 ? broken("trainer_spec", err) : LP_OK;
}

static lp_status read_normalizer(spec *s, wire w, lp_error *err)
{
    field f;
    int more;
    while ((more = next_field(&w, &f)) > 0) {
        if (f.type == BYTES && f.number == 1) s->normalizer = f.bytes;
        if (f.type == BYTES && f.number == 2) s->charsmap = n_bytes(f.bytes);
        if (f.type == VARINT && f.number == 3) s->add_dummy_prefix = f.value != 0;
        if (f.type == VARINT && f.number == 4) s->remove_extra_whitespaces = f.value != 0;
        if (f.type == VARINT && f.number == 5) s->escape_whitespaces = f.value != 0;
    }
    return more < 0 ? broken("normalizer_spec", err) : LP_OK;
}

static lp_status read_denormalizer(spec *s, wire w, lp_error *err)
{
    field f;
    int more;
    while ((more = next_field(&w, &f)) > 0)
        if (f.type == BYTES && f.number == 2) s->denormalizer = n_bytes(f.bytes);
    return more < 0 ? broken("denormalizer_spec", err) : LP_OK;
}

static lp_status read_model(lp_tokenizer *t, spec *s, wire w, lp_error *err)
{
    field f;
    int more;
    while ((more = next_field(&w, &f)) > 0) {
        if (f.type != BYTES) continue;
        if (f.number == 1) LP_TRY(read_piece(t, f.bytes, err));
        if (f.number == 2) LP_TRY(read_trainer(s, f.bytes, err));
        if (f.number == 3) LP_TRY(read_normalizer(s, f.bytes, err));
        if (f.number == 5) LP_TRY(read_denormalizer(s, f.bytes, err));
    }
    if (more < 0) return broken("the file", err);
    if (t->n == 0) return lp_fail(err, LP_E_FORMAT, "no pieces; is this a SentencePiece tokenizer.model?");
    return LP_OK;
}

/* Gemma's settings or nothing. */
static lp_status check(const spec *s, lp_error *err)
{
    static const char *const models[] = {"?", "UNIGRAM", "BPE", "WORD", "CHAR"};
    const char *no = NULL;
    if (s->model_type != 2)
        return lp_fail(err, LP_E_UNSUPPORTED, "a SentencePiece model of the kind %s; only BPE is supported",
                       models[s->model_type < 5 ? s->model_type : 0]);
    if (s->charsmap)
        return lp_fail(err, LP_E_UNSUPPORTED,
                       "normalizes text by the rules '%.*s' (%zu bytes); only identity is supported",
                       (int)(n_bytes(s->normalizer) < 64 ? n_bytes(s->normalizer) : 64), (const char *)s->normalizer.p,
                       s->charsmap);
    if (s->denormalizer) no = "a denormalizer";
    if (s->add_dummy_prefix) no = "add_dummy_prefix";
    if (s->remove_extra_whitespaces) no = "remove_extra_whitespaces";
    if (!s->escape_whitespaces) no = "escape_whitespaces = false";
    if (!s->byte_fallback) no = "byte_fallback = false";
    if (no)
        return lp_fail(err, LP_E_UNSUPPORTED, "asks for %s, which Gemma's tokenizers do not and we do not support", no);
    return LP_OK;
}

/* As libsentencepiece: by the piece's name, and only if it is a CONTROL piece. */
static int control_id(const lp_tokenizer *t, wire name)
{
    int id = lp_vocab_find(t, (const char *)name.p, n_bytes(name));
    return id >= 0 && t->pieces[id].type == LP_PIECE_CONTROL ? id : -1;
}

lp_status lp_tokenizer_from_bytes(lp_tokenizer **out, const void *data, size_t n, lp_error *err)
{
    lp_status st = LP_OK;
    const wire file = {data, (const unsigned char *)data + n};
    spec s = {.model_type = 1,
              .add_dummy_prefix = true,
              .remove_extra_whitespaces = true,
              .escape_whitespaces = true,
              .normalizer = literal("?"),
              .bos = literal("<s>"),
              .eos = literal("</s>"),
              .pad = literal("<pad>")};
    lp_tokenizer *t = lp_vocab_new();
    if (!t) return lp_fail(err, LP_E_MEMORY, "out of memory for a tokenizer");
    if ((st = read_model(t, &s, file, err)) < 0) goto out;
    if ((st = check(&s, err)) < 0) goto out;
    if ((st = lp_vocab_seal(t, err)) < 0) goto out;
    t->bos = control_id(t, s.bos);
    t->eos = control_id(t, s.eos);
    t->pad = control_id(t, s.pad);
    *out = t;
    t = NULL;
out:
    lp_tokenizer_free(t);
    return st;
}

lp_status lp_tokenizer_open(lp_tokenizer **out, const char *path, lp_error *err)
{
    char *data = NULL;
    size_t n;
    LP_TRY(lp_read_file(&data, &n, path, FILE_LIMIT, err));
    lp_status st = lp_tokenizer_from_bytes(out, data, n, err);
    free(data);
    return st < 0 ? lp_prefix(err, st, path) : st;
}
