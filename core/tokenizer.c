/* tokenizer.c - SentencePiece BPE as Gemma uses it: from text to ids.
 *
 * The vocabulary is a list of (piece, score).  Encoding starts from single characters and repeatedly joins the
 * neighbouring pair whose union is a piece with the highest score; leftmost wins ties.  Characters not in the
 * vocabulary become byte pieces <0x00>..<0xFF>.  No dummy prefix, no normalisation but this: a space is written U+2581,
 * and a byte that begins no character is replaced by U+FFFD.
 *
 *     " Rome"   _ R o m e  ->  _ R om e  ->  _R om e  ->  _Rome        (_ stands for U+2581)
 *
 * User-defined pieces (runs of newlines and spaces, <table>, <start_of_turn>) are cut out of the text first, the
 * longest at each place, and never join anything.  So the text falls into stretches that cannot see each other, and
 * each is merged on its own.  A stretch also ends before a space when no piece of the vocabulary has a space inside
 * (Gemma's has none): then a stretch is a word and its whole agenda stays in the first cache.  Where it cannot end, an
 * agenda is a heap, and a run of a million equal letters costs n log n.
 *
 * [1] Kudo, Richardson: SentencePiece, 2018.   [2] google/sentencepiece: src/bpe_model.cc, src/normalizer.cc
 */
#include "core/tokenizer.h"

#include "core/utf8.h"
#include "core/vocab.h"

#include <stdlib.h>

enum { TEXT_LIMIT = 1 << 29 }; /* bytes; three times that still counts in 32 bits */

void lp_tokens_free(lp_tokens *t)
{
    free(t->ids);
    free(t->spans);
    *t = (lp_tokens){0};
}

lp_status lp_tokens_push(lp_tokens *t, int id, lp_span span, lp_error *err)
{
    if (t->n == t->capacity) {
        size_t ids = t->capacity, spans = t->capacity; /* `capacity` moves only when both have grown */
        if (!lp_grow((void **)&t->ids, &ids, t->n + 1, sizeof *t->ids) ||
            !lp_grow((void **)&t->spans, &spans, t->n + 1, sizeof *t->spans))
            return lp_fail(err, LP_E_MEMORY, "out of memory at token %zu", t->n);
        t->capacity = ids;
    }
    t->ids[t->n] = id;
    t->spans[t->n++] = span;
    return LP_OK;
}

/* ---- one stretch: characters that may join each other ---------------------------------------------------------- */

typedef struct symbol {
    uint32_t at, len; /* in the normalised text; len 0: joined to its left neighbour */
    uint32_t from;    /* in the text                                                 */
    int prev, next;   /* -1: none                                                    */
    int id;           /* -1: a single character not yet looked up                    */
} symbol;

typedef struct pair { /* the symbol `left` and its right neighbour could become `id` */
    float score;
    int left, id;
    uint32_t len; /* of both when this was found; if it has changed, the pair is stale */
} pair;

typedef struct encoder {
    const lp_tokenizer *t;
    lp_specials specials;
    const char *norm;
    size_t n_norm;
    symbol *symbols; /* the stretch */
    size_t n_symbols, symbols_capacity;
    pair *heap;
    size_t n_heap, heap_capacity;
    lp_tokens *out;
    lp_error *err;
} encoder;

static lp_status no_memory(encoder *e)
{
    return lp_fail(e->err, LP_E_MEMORY, "out of memory while tokenizing");
}

static bool before(const pair *a, const pair *b)
{
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static lp_status heap_push(encoder *e, pair p)
{
    if (!lp_grow((void **)&e->heap, &e->heap_capacity, e->n_heap + 1, sizeof *e->heap)) return no_memory(e);
    size_t i = e->n_heap++;
    for (; i > 0 && before(&p, &e->heap[(i - 1) / 2]); i = (i - 1) / 2) e->heap[i] = e->heap[(i - 1) / 2];
    e->heap[i] = p;
    return LP_OK;
}

static pair heap_pop(encoder *e)
{
    pair top = e->heap[0], last = e->heap[--e->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < e->n_heap; i = child) {
        if (child + 1 < e->n_heap && before(&e->heap[child + 1], &e->heap[child])) child++;
        if (!before(&e->heap[child], &last)) break;
        e->heap[i] = e->heap[child];
    }
    if (e->n_heap) e->heap[i] = last;
    return top;
}

/* Puts the pair that begins at `left` on the agenda, if it can join. */
static lp_status consider(encoder *e, int left)
{
    if (left < 0 || e->symbols[left].next < 0) return LP_OK;
    const symbol *a = &e->symbols[left], *b = &e->symbols[a->next];
    int id = lp_vocab_find(e->t, e->norm + a->at, a->len + b->len);
    if (id < 0 || !lp_vocab_merges(e->t, id, e->specials)) return LP_OK;
    return heap_push(e, (pair){.score = e->t->pieces[id].score, .left = left, .id = id, .len = a->len + b->len});
}

static lp_status merge(encoder *e)
{
    e->n_heap = 0;
    for (size_t i = 0; i + 1 < e->n_symbols; i++) LP_TRY(consider(e, (int)i));
    while (e->n_heap) {
        pair p = heap_pop(e);
        symbol *a = &e->symbols[p.left];
        if (a->len == 0 || a->next < 0) continue;
        symbol *b = &e->symbols[a->next];
        if (a->len + b->len != p.len) continue; /* symbols only grow: equal lengths are the same pair */
        a->len += b->len;
        a->id = p.id;
        a->next = b->next;
        b->len = 0;
        if (a->next >= 0) e->symbols[a->next].prev = p.left;
        LP_TRY(consider(e, a->prev));
        LP_TRY(consider(e, p.left));
    }
    return LP_OK;
}

/* One byte piece for each byte of the normalised character.  They share out the text's bytes from the left; a space
 * (1 byte, U+2581 has 3) and a broken byte (U+FFFD has 3) leave the last pieces with none. */
static lp_status push_bytes(encoder *e, const symbol *s, size_t end)
{
    for (uint32_t i = 0; i < s->len; i++) {
        size_t a = (size_t)s->from + i, b = a + 1;
        if (a > end) a = end;
        if (b > end) b = end;
        int id = e->t->byte_id[(unsigned char)e->norm[s->at + i]];
        LP_TRY(lp_tokens_push(e->out, id, (lp_span){a, b}, e->err));
    }
    return LP_OK;
}

/* Merges the stretch gathered so far, which ends at byte `end` of the text, and appends its tokens. */
static lp_status finish_stretch(encoder *e, size_t end)
{
    if (e->n_symbols == 0) return LP_OK;
    e->symbols[e->n_symbols - 1].next = -1;
    LP_TRY(merge(e));
    for (int i = 0; i >= 0; i = e->symbols[i].next) {
        const symbol *s = &e->symbols[i];
        size_t stop = s->next < 0 ? end : e->symbols[s->next].from;
        int id = s->id >= 0 ? s->id : lp_vocab_find(e->t, e->norm + s->at, s->len);
        if (id >= 0)
            LP_TRY(lp_tokens_push(e->out, id, (lp_span){s->from, stop}, e->err));
        else
            LP_TRY(push_bytes(e, s, stop));
    }
    e->n_symbols = 0;
    return LP_OK;
}

static lp_status add_character(encoder *e, size_t at, size_t len, size_t from)
{
    if (!lp_grow((void **)&e->symbols, &e->symbols_capacity, e->n_symbols + 1, sizeof *e->symbols)) return no_memory(e);
    int i = (int)e->n_symbols++;
    e->symbols[i] = (symbol){
        .at = (uint32_t)at, .len = (uint32_t)len, .from = (uint32_t)from, .prev = i - 1, .next = i + 1, .id = -1};
    return LP_OK;
}

/* ---- the whole text ------------------------------------------------------------------------------------------------
 */

/* The character at text[at..n): its bytes there, and what it is in the normalised text. */
static size_t take(const char *text, size_t at, size_t n, const char **norm, size_t *n_norm)
{
    int len = text[at] == ' ' ? 0 : lp_utf8_next(text + at, n - at);
    if (len > 0) {
        *norm = text + at;
        return *n_norm = (size_t)len;
    }
    *norm = text[at] == ' ' ? LP_SPACE : LP_REPLACEMENT;
    *n_norm = 3;
    return 1;
}

static char *normalise(const char *text, size_t n, size_t *n_norm)
{
    const char *s;
    size_t len, total = 0;
    for (size_t i = 0; i < n; total += len) i += take(text, i, n, &s, &len);
    char *norm = malloc(total + 1), *p = norm;
    if (!norm) return NULL;
    for (size_t i = 0; i < n; p += len) {
        i += take(text, i, n, &s, &len);
        memcpy(p, s, len);
    }
    *n_norm = total;
    return norm;
}

static bool is_space(const char *norm, size_t len)
{
    return len == 3 && memcmp(norm, LP_SPACE, 3) == 0;
}

/* Walks text and normalised text side by side. */
static lp_status cut(encoder *e, const char *text, size_t n)
{
    const char *s;
    size_t len;
    bool in_spaces = true;
    for (size_t from = 0, at = 0; from < n;) {
        int id = lp_vocab_match(e->t, e->norm + at, e->n_norm - at, e->specials);
        if (id >= 0) {
            LP_TRY(finish_stretch(e, from));
            size_t begin = from, stop = at + (size_t)e->t->pieces[id].len;
            for (; at < stop; at += len) from += take(text, from, n, &s, &len);
            LP_TRY(lp_tokens_push(e->out, id, (lp_span){begin, from}, e->err));
            continue;
        }
        size_t begin = from;
        from += take(text, from, n, &s, &len);
        bool space = is_space(s, len);
        if (space && !in_spaces && e->t->cut_at_space) LP_TRY(finish_stretch(e, begin));
        in_spaces = space;
        LP_TRY(add_character(e, at, len, begin));
        at += len;
    }
    return finish_stretch(e, n);
}

lp_status lp_tokenizer_encode(const lp_tokenizer *t, const char *text, size_t len, lp_specials specials, lp_tokens *out,
                              lp_error *err)
{
    if (len > TEXT_LIMIT)
        return lp_fail(err, LP_E_RANGE, "a text of %zu bytes; at most %d can be tokenized in one piece", len,
                       TEXT_LIMIT);
    encoder e = {.t = t, .specials = specials, .out = out, .err = err};
    char *norm = normalise(text, len, &e.n_norm);
    size_t before_us = out->n;
    if (!norm) return no_memory(&e);
    e.norm = norm;
    lp_status st = cut(&e, text, len);
    if (st < 0) out->n = before_us;
    free(norm);
    free(e.symbols);
    free(e.heap);
    return st;
}
