/* vocab.c - the table of pieces: filling, checking, finding.
 *
 * Finding a piece is one probe of a hash table.  The file is a stranger's, so the hash may be attacked: a piece that
 * would lie more than MAX_PROBE slots from its place, which chance does not produce, is refused at loading, and so a
 * look-up never goes further than that.
 *
 * Pieces that the text is cut at before any merging (newline runs, <table>, <start_of_turn>) lie in one list sorted by
 * bytes.  Matching narrows a range of that list byte by byte; whatever in it ends at this byte comes first, so the
 * longest match falls out, without a trie and at most |piece| log |list| steps for any list.
 */
#include "core/vocab.h"

#include "core/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_PROBE = 256 };

lp_tokenizer *lp_vocab_new(void)
{
    lp_tokenizer *t = lp_calloc(1, sizeof *t);
    if (t) t->bos = t->eos = t->pad = t->unk = -1;
    return t;
}

void lp_tokenizer_free(lp_tokenizer *t)
{
    if (!t) return;
    free(t->pieces);
    free(t->text);
    free(t->slots);
    free(t->matchable);
    free(t);
}

static bool is_utf8(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        int len = lp_utf8_next(s + i, n - i);
        if (len <= 0) return false;
        i += (size_t)len;
    }
    return true;
}

lp_status lp_vocab_add(lp_tokenizer *t, const char *piece, size_t len, double score, int64_t type, lp_error *err)
{
    int id = t->n;
    if (id >= LP_MAX_PIECES)
        return lp_fail(err, LP_E_FORMAT, "more than %d pieces; no vocabulary is that large", LP_MAX_PIECES);
    if (len == 0) return lp_fail(err, LP_E_FORMAT, "piece %d is empty", id);
    if (len > LP_MAX_PIECE)
        return lp_fail(err, LP_E_FORMAT, "piece %d has %zu bytes, more than %d", id, len, LP_MAX_PIECE);
    if (memchr(piece, 0, len)) return lp_fail(err, LP_E_FORMAT, "piece %d contains a NUL byte", id);
    if (!is_utf8(piece, len)) return lp_fail(err, LP_E_FORMAT, "piece %d is not valid UTF-8", id);
    if (!isfinite(score)) return lp_fail(err, LP_E_FORMAT, "piece %d has the score %g", id, score);
    if (type < LP_PIECE_NORMAL || type > LP_PIECE_BYTE)
        return lp_fail(err, LP_E_FORMAT, "piece %d has the type %lld, expected 1 to 6", id, (long long)type);
    if (!lp_grow((void **)&t->pieces, &t->capacity, (size_t)id + 1, sizeof *t->pieces) ||
        !lp_grow((void **)&t->text, &t->text_capacity, t->n_text + len + 1, 1))
        return lp_fail(err, LP_E_MEMORY, "out of memory at piece %d of the vocabulary", id);
    memcpy(t->text + t->n_text, piece, len);
    t->text[t->n_text + len] = 0;
    t->pieces[id] = (lp_piece){.at = t->n_text, .len = (int)len, .score = (float)score, .type = (uint8_t)type};
    t->n_text += len + 1;
    t->n++;
    return LP_OK;
}

/* ---- finding a piece ---------------------------------------------------------------------------------------- */

static uint32_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = 0x9e3779b97f4a7c15u ^ n;
    for (; n >= 8; s += 8, n -= 8) {
        uint64_t w;
        memcpy(&w, s, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    uint64_t w = 0;
    memcpy(&w, s, n);
    h = (h ^ w) * 0xff51afd7ed558ccdu;
    h ^= h >> 29;
    h *= 0xc4ceb9fe1a85ec53u;
    return (uint32_t)(h >> 32);
}

/* The slot that holds the piece, or the free one where it would go; NULL when both are too far. */
static lp_slot *probe(const lp_tokenizer *t, const char *s, size_t len, uint32_t hash)
{
    for (size_t step = 0; step <= MAX_PROBE; step++) {
        lp_slot *slot = &t->slots[(hash + step) & t->mask];
        if (slot->id < 0) return slot;
        if (slot->hash != hash) continue;
        const lp_piece *p = &t->pieces[slot->id];
        if ((size_t)p->len == len && memcmp(t->text + p->at, s, len) == 0) return slot;
    }
    return NULL;
}

int lp_vocab_find(const lp_tokenizer *t, const char *s, size_t len)
{
    if (len == 0 || len > (size_t)t->longest) return -1;
    const lp_slot *slot = probe(t, s, len, hash_bytes(s, len));
    return slot ? slot->id : -1;
}

static lp_status build_hash(lp_tokenizer *t, lp_error *err)
{
    size_t n = 16;
    while (n < (size_t)t->n * 2) n *= 2;
    t->slots = malloc(n * sizeof *t->slots);
    if (!t->slots) return lp_fail(err, LP_E_MEMORY, "out of memory for a vocabulary of %d pieces", t->n);
    for (size_t i = 0; i < n; i++) t->slots[i].id = -1;
    t->mask = n - 1;
    for (int id = 0; id < t->n; id++) {
        const lp_piece *p = &t->pieces[id];
        const char *s = t->text + p->at;
        uint32_t hash = hash_bytes(s, (size_t)p->len);
        lp_slot *slot = probe(t, s, (size_t)p->len, hash);
        if (!slot)
            return lp_fail(err, LP_E_FORMAT, "piece %d: the pieces are made to collide; not a real vocabulary", id);
        if (slot->id >= 0) return lp_fail(err, LP_E_FORMAT, "pieces %d and %d are both '%s'", slot->id, id, s);
        *slot = (lp_slot){.hash = hash, .id = id};
        if (p->len > t->longest) t->longest = p->len;
    }
    return LP_OK;
}

/* ---- matching what the text is cut at ----------------------------------------------------------------------- */

typedef struct keyed {
    const char *piece;
    int id;
} keyed;

static int by_bytes(const void *a, const void *b)
{
    return strcmp(((const keyed *)a)->piece, ((const keyed *)b)->piece); /* no NUL inside; as unsigned bytes */
}

static lp_status build_matchable(lp_tokenizer *t, lp_error *err)
{
    size_t n = 0;
    for (int id = 0; id < t->n; id++)
        n += t->pieces[id].type >= LP_PIECE_UNKNOWN && t->pieces[id].type <= LP_PIECE_USER;
    keyed *list = lp_calloc(n, sizeof *list);
    t->matchable = lp_calloc(n, sizeof *t->matchable);
    if (!list || !t->matchable) {
        free(list);
        return lp_fail(err, LP_E_MEMORY, "out of memory for %zu user-defined pieces", n);
    }
    n = 0;
    for (int id = 0; id < t->n; id++)
        if (t->pieces[id].type >= LP_PIECE_UNKNOWN && t->pieces[id].type <= LP_PIECE_USER)
            list[n++] = (keyed){.piece = t->text + t->pieces[id].at, .id = id};
    if (n) qsort(list, n, sizeof *list, by_bytes);
    for (size_t i = 0; i < n; i++) {
        t->matchable[i] = list[i].id;
        t->first[(unsigned char)list[i].piece[0] + 1]++;
    }
    for (int b = 0; b < 256; b++) t->first[b + 1] += t->first[b];
    free(list);
    return LP_OK;
}

static bool matches(const lp_piece *p, lp_specials specials)
{
    if (p->type == LP_PIECE_USER) return !(p->special && specials == LP_SPECIALS_LITERAL);
    return specials == LP_SPECIALS_PARSED;
}

/* First of matchable[lo..hi), which agree in bytes [0, k), whose byte k is above `byte` (or at least it). */
static int bound(const lp_tokenizer *t, int lo, int hi, int k, unsigned char byte, bool above)
{
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        unsigned char b = (unsigned char)t->text[t->pieces[t->matchable[mid]].at + (size_t)k];
        if (b < byte || (above && b == byte))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

int lp_vocab_match(const lp_tokenizer *t, const char *text, size_t len, lp_specials specials)
{
    int lo = t->first[(unsigned char)text[0]], hi = t->first[(unsigned char)text[0] + 1], best = -1;
    for (int k = 1; lo < hi; k++) {
        const lp_piece *p = &t->pieces[t->matchable[lo]];
        if (p->len == k) {
            if (matches(p, specials)) best = t->matchable[lo];
            lo++;
        }
        if ((size_t)k == len) break;
        lo = bound(t, lo, hi, k, (unsigned char)text[k], false);
        hi = bound(t, lo, hi, k, (unsigned char)text[k], true);
    }
    return best;
}

/* ---- the checks and facts that need the whole ------------------------------------------------------------------ */

bool lp_vocab_steers(const char *piece, size_t len)
{
    static const char *const names[] = {"<mask>",         "<2mass>",           "[@BOS@]",       "[multimodal]",
                                        "[toxicity=0]",   "<start_of_turn>",   "<end_of_turn>", "<start_of_image>",
                                        "<end_of_image>", "<image_soft_token>"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == len && memcmp(names[i], piece, len) == 0) return true;
    static const char unused[] = "<unused";
    size_t at = sizeof unused - 1;
    if (len < at + 2 || memcmp(piece, unused, at) != 0) return false;
    while (at < len && piece[at] >= '0' && piece[at] <= '9') at++;
    return at == len - 1 && piece[at] == '>';
}

static lp_status check_bytes(lp_tokenizer *t, lp_error *err)
{
    int n = 0;
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        int id = lp_vocab_find(t, name, 6);
        if (id < 0 || t->pieces[id].type != LP_PIECE_BYTE)
            return lp_fail(err, LP_E_FORMAT, "byte piece %s is missing; characters outside the vocabulary need all 256",
                           name);
        t->byte_id[b] = id;
    }
    for (int id = 0; id < t->n; id++) n += t->pieces[id].type == LP_PIECE_BYTE;
    if (n != 256) return lp_fail(err, LP_E_FORMAT, "%d byte pieces, expected <0x00> to <0xFF>", n);
    return LP_OK;
}

/* A space that follows something else inside the piece. */
static bool has_inner_space(const char *s)
{
    while (strncmp(s, LP_SPACE, 3) == 0) s += 3;
    return strstr(s, LP_SPACE) != NULL;
}

lp_status lp_vocab_seal(lp_tokenizer *t, lp_error *err)
{
    LP_TRY(build_hash(t, err));
    LP_TRY(check_bytes(t, err));
    t->cut_at_space = true;
    for (int id = 0; id < t->n; id++) {
        lp_piece *p = &t->pieces[id];
        const char *s = t->text + p->at;
        p->special = p->type == LP_PIECE_CONTROL || p->type == LP_PIECE_UNKNOWN ||
                     (p->type == LP_PIECE_USER && lp_vocab_steers(s, (size_t)p->len));
        if (p->special && lp_utf8_next(s, (size_t)p->len) == p->len)
            return lp_fail(err, LP_E_UNSUPPORTED,
                           "piece %d, '%s', is a control piece of one character; plain text "
                           "would produce it",
                           id, s);
        if (p->type == LP_PIECE_UNKNOWN && t->unk >= 0 && t->unk != id)
            return lp_fail(err, LP_E_FORMAT, "pieces %d and %d are both the unknown piece", t->unk, id);
        if (p->type == LP_PIECE_UNKNOWN) t->unk = id;
        if (p->type <= LP_PIECE_USER && has_inner_space(s)) t->cut_at_space = false;
    }
    if (t->unk < 0) return lp_fail(err, LP_E_FORMAT, "no unknown piece (<unk>); is the file complete?");
    return build_matchable(t, err);
}

/* ---- what the public header promises --------------------------------------------------------------------------- */

static bool has(const lp_tokenizer *t, int id)
{
    return id >= 0 && id < t->n;
}

int lp_tokenizer_size(const lp_tokenizer *t)
{
    return t->n;
}

int lp_tokenizer_bos(const lp_tokenizer *t)
{
    return t->bos;
}

int lp_tokenizer_eos(const lp_tokenizer *t)
{
    return t->eos;
}

int lp_tokenizer_pad(const lp_tokenizer *t)
{
    return t->pad;
}

int lp_tokenizer_unk(const lp_tokenizer *t)
{
    return t->unk;
}

int lp_tokenizer_find(const lp_tokenizer *t, const char *piece)
{
    return lp_vocab_find(t, piece, strlen(piece));
}

const char *lp_tokenizer_piece(const lp_tokenizer *t, int id, size_t *len)
{
    bool known = has(t, id);
    if (len) *len = known ? (size_t)t->pieces[id].len : 0;
    return known ? t->text + t->pieces[id].at : "";
}

lp_piece_type lp_tokenizer_type(const lp_tokenizer *t, int id)
{
    return has(t, id) ? (lp_piece_type)t->pieces[id].type : LP_PIECE_UNKNOWN;
}

bool lp_tokenizer_is_special(const lp_tokenizer *t, int id)
{
    return has(t, id) && t->pieces[id].special;
}
