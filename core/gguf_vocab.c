/* gguf_vocab.c - the vocabulary inside a .gguf file, brought back to what tokenizer.model said.
 *
 * llama.cpp's converter copies pieces and scores, but it rewrites types for its own purposes, and differently over the
 * years (conversion/base.py, _create_vocab_sentencepiece; ggml-org/llama.cpp PR 8228, 8244, 8248):
 *   - <unk> is marked CONTROL: unknown_token_id tells which piece it is;
 *   - <mask>, <unused..>, the turn markers are marked CONTROL, in the first days of Gemma 2 even NORMAL: they are
 *     user-defined pieces, known by name;
 *   - runs of spaces are stored with real spaces where older files have U+2581;
 *   - HTML tags and the runs are user-defined, but NORMAL in older files: in Gemma's 256000 pieces they are known by
 * id. UNUSED pieces are the converter's padding; no text becomes one.
 */
#include "core/gguf.h"
#include "core/vocab.h"

enum { GEMMA_PIECES = 256000 };

#define KEY "tokenizer.ggml."

typedef struct source {
    const lp_gguf *g;
    const lp_env *env;
    size_t n;
    int64_t bos, eos, pad, unk; /* -1: not said */
    bool old_runs;              /* may have runs and tags as NORMAL */
    bool old_turns;             /* found a turn marker as NORMAL */
} source;

/* Settings other than Gemma's are refused; a file too old to say them is believed to mean Gemma's. */
static lp_status check_settings(const source *s, lp_error *err)
{
    const char *model = "?";
    size_t len = 1;
    bool on = false;
    if (!lp_gguf_string(s->g, KEY "model", &model, &len))
        return lp_fail(err, LP_E_NOT_FOUND, "no " KEY "model; this .gguf has no vocabulary in it");
    if (len != 5 || memcmp(model, "llama", 5) != 0)
        return lp_fail(err, LP_E_UNSUPPORTED,
                       "a vocabulary of the kind '%.*s'; only SentencePiece's ('llama') is supported",
                       (int)(len < 64 ? len : 64), model);
    if (lp_gguf_bool(s->g, KEY "add_space_prefix", &on) && on)
        return lp_fail(err, LP_E_UNSUPPORTED, KEY "add_space_prefix is true, which Gemma's tokenizers never are");
    if (lp_gguf_bool(s->g, KEY "remove_extra_whitespaces", &on) && on)
        return lp_fail(err, LP_E_UNSUPPORTED,
                       KEY "remove_extra_whitespaces is true, which Gemma's tokenizers never are");
    if (lp_gguf_has(s->g, KEY "precompiled_charsmap"))
        return lp_fail(err, LP_E_UNSUPPORTED, KEY "precompiled_charsmap: only text left as it is can be tokenized");
    if (!lp_gguf_has(s->g, KEY "add_space_prefix"))
        lp_log(s->env, LP_WARN, "no " KEY "add_space_prefix: an early .gguf; no space is put before the text");
    return LP_OK;
}

static lp_status check_arrays(source *s, lp_error *err)
{
    lp_gguf_type type;
    size_t n_scores = 0, n_types = 0;
    if (!lp_gguf_array(s->g, KEY "tokens", &type, &s->n) || type != LP_GGUF_STRING)
        return lp_fail(err, LP_E_FORMAT, "no array of strings " KEY "tokens");
    if (!lp_gguf_array(s->g, KEY "scores", &type, &n_scores) || type != LP_GGUF_F32)
        return lp_fail(err, LP_E_FORMAT, "no array of floats " KEY "scores; pieces cannot be merged without them");
    if (!lp_gguf_array(s->g, KEY "token_type", &type, &n_types))
        return lp_fail(err, LP_E_FORMAT, "no array of integers " KEY "token_type");
    if (n_scores != s->n || n_types != s->n)
        return lp_fail(err, LP_E_FORMAT, "%zu tokens, %zu scores, %zu token types: they should be as many", s->n,
                       n_scores, n_types);
    return LP_OK;
}

static int64_t id_of(const source *s, const char *key)
{
    int64_t id;
    return lp_gguf_int(s->g, key, &id) && id >= 0 && (uint64_t)id < s->n ? id : -1;
}

/* The type tokenizer.model has for the piece. */
static int64_t true_type(source *s, int64_t id, const char *piece, size_t len, int64_t said)
{
    if (id == s->unk) return LP_PIECE_UNKNOWN;
    if (id == s->bos || id == s->eos || id == s->pad) return LP_PIECE_CONTROL;
    if (lp_vocab_steers(piece, len)) {
        if (said == LP_PIECE_NORMAL) s->old_turns = true;
        return LP_PIECE_USER;
    }
    if (s->old_runs && ((id >= 108 && id <= 216) || (id >= 255968 && id <= 255998))) return LP_PIECE_USER;
    return said;
}

static lp_status add_piece(lp_tokenizer *t, source *s, size_t i, lp_error *err)
{
    const char *piece;
    size_t len, n = 0;
    double score;
    int64_t type;
    char escaped[LP_MAX_PIECE + 3];
    if (!lp_gguf_array_string(s->g, KEY "tokens", i, &piece, &len) ||
        !lp_gguf_array_float(s->g, KEY "scores", i, &score) || !lp_gguf_array_int(s->g, KEY "token_type", i, &type))
        return lp_fail(err, LP_E_FORMAT, "token %zu cannot be read", i);
    type = true_type(s, (int64_t)i, piece, len, type);
    if (type != LP_PIECE_USER) return lp_vocab_add(t, piece, len, score, type, err);
    for (size_t k = 0; k < len; k++) {
        if (n >= LP_MAX_PIECE) return lp_fail(err, LP_E_FORMAT, "token %zu has more than %d bytes", i, LP_MAX_PIECE);
        size_t step = piece[k] == ' ' ? 3 : 1;
        memcpy(escaped + n, step == 3 ? LP_SPACE : piece + k, step);
        n += step;
    }
    return lp_vocab_add(t, escaped, n, score, type, err);
}

lp_status lp_tokenizer_from_gguf(lp_tokenizer **out, const lp_gguf *g, const lp_env *env, lp_error *err)
{
    lp_status st;
    source s = {.g = g, .env = env};
    lp_tokenizer *t = lp_vocab_new();
    if (!t) return lp_fail(err, LP_E_MEMORY, "out of memory for a tokenizer");
    if ((st = check_settings(&s, err)) < 0) goto out;
    if ((st = check_arrays(&s, err)) < 0) goto out;
    s.bos = id_of(&s, KEY "bos_token_id");
    s.eos = id_of(&s, KEY "eos_token_id");
    s.pad = id_of(&s, KEY "padding_token_id");
    s.unk = id_of(&s, KEY "unknown_token_id");
    s.old_runs = s.n == GEMMA_PIECES;
    for (size_t i = 0; i < s.n; i++)
        if ((st = add_piece(t, &s, i, err)) < 0) goto out;
    if ((st = lp_vocab_seal(t, err)) < 0) goto out;
    t->bos = (int)s.bos;
    t->eos = (int)s.eos;
    t->pad = (int)s.pad;
    if (s.old_turns)
        lp_log(env, LP_WARN,
               "control pieces are marked as ordinary text: a .gguf from the first days of Gemma 2; they are "
               "read as what they are, but convert the model anew if its answers look wrong");
    *out = t;
    t = NULL;
out:
    lp_tokenizer_free(t);
    return st;
}
