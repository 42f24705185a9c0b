/* chat.c - see chat.h.  A conversation is first laid out as parts, each a stretch of the rendered text that is either a
 * piece of the template, words of the template ("user", newline) or a turn's own words; rendering keeps the text,
 * tokenizing goes through the parts.
 *
 * Tokenizing part by part gives the ids of the whole because no piece can reach across a part's edge: turn markers and
 * newline runs are cut out of the text before anything merges, and contents, being stripped, neither begin nor end with
 * a newline that could lengthen the template's.
 */
#include "core/chat.h"

#include "core/utf8.h"

#include <stdlib.h>
#include <string.h>

bool lp_role_parse(const char *name, lp_role *role)
{
    static const struct {
        const char *name;
        lp_role role;
    } names[] = {
        {"user", LP_ROLE_USER}, {"model", LP_ROLE_MODEL}, {"assistant", LP_ROLE_MODEL}, {"system", LP_ROLE_SYSTEM}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i].name) == 0) {
            *role = names[i].role;
            return true;
        }
    return false;
}

/* ---- str.strip --------------------------------------------------------------------------------------------------- */

/* What Python's str.isspace holds for: Unicode's white space, and the four separators U+001C..U+001F. */
static bool is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static void strip(const char **s, size_t *n)
{
    int len;
    while (*n && (len = lp_utf8_next(*s, *n)) > 0 && is_space(lp_utf8_code(*s, len))) {
        *s += len;
        *n -= (size_t)len;
    }
    for (bool more = true; more && *n;) {
        more = false;
        for (size_t k = 1; k <= 3 && k <= *n && !more; k++) { /* no white space has four bytes */
            const char *c = *s + *n - k;
            more = lp_utf8_next(c, k) == (int)k && is_space(lp_utf8_code(c, (int)k));
            if (more) *n -= k;
        }
    }
}

/* ---- layout ------------------------------------------------------------------------------------------------------ */

typedef enum part_kind { BOS, START, END, WORDS, CONTENT } part_kind;

typedef struct part {
    part_kind kind;
    int turn;
    size_t begin, end;
} part;

typedef struct layout {
    char *text;
    size_t len, text_capacity;
    part *parts;
    size_t n, capacity;
} layout;

static lp_status add(layout *l, part_kind kind, int turn, const char *s, size_t n, lp_error *err)
{
    size_t need;
    if (__builtin_add_overflow(l->len + 1, n, &need) || !lp_grow((void **)&l->text, &l->text_capacity, need, 1) ||
        !lp_grow((void **)&l->parts, &l->capacity, l->n + 1, sizeof *l->parts))
        return lp_fail(err, LP_E_MEMORY, "out of memory for a conversation");
    if (n) memcpy(l->text + l->len, s, n);
    l->parts[l->n++] = (part){.kind = kind, .turn = turn, .begin = l->len, .end = l->len + n};
    l->len += n;
    l->text[l->len] = 0;
    return LP_OK;
}

static lp_status add_template(layout *l, part_kind kind, int turn, const char *s, lp_error *err)
{
    return add(l, kind, turn, s, strlen(s), err);
}

static lp_status add_content(layout *l, int turn, const lp_turn *t, lp_error *err)
{
    const char *s = t->text;
    size_t n = t->len;
    strip(&s, &n);
    return n ? add(l, CONTENT, turn, s, n, err) : LP_OK;
}

static lp_status open_turn(layout *l, int turn, lp_role role, lp_error *err)
{
    LP_TRY(add_template(l, START, turn, "<start_of_turn>", err));
    LP_TRY(add_template(l, WORDS, turn, role == LP_ROLE_USER ? "user" : "model", err));
    return add_template(l, WORDS, turn, "\n", err);
}

static lp_status close_turn(layout *l, int turn, lp_error *err)
{
    LP_TRY(add_template(l, END, turn, "<end_of_turn>", err));
    return add_template(l, WORDS, turn, "\n", err);
}

/* The template's own two complaints, in its words, and ours. */
static lp_status check(const lp_turn *turns, size_t n, const lp_chat_options *opt, lp_error *err)
{
    size_t first = opt->fold_system && n && turns[0].role == LP_ROLE_SYSTEM;
    if (n == 0) return lp_fail(err, LP_E_RANGE, "a conversation needs at least one turn");
    if (n > INT32_MAX) return lp_fail(err, LP_E_RANGE, "a conversation of %zu turns", n);
    if (first == n) return lp_fail(err, LP_E_RANGE, "a system turn needs a user turn after it to go into");
    for (size_t i = first; i < n; i++) {
        if (turns[i].role == LP_ROLE_SYSTEM) return lp_fail(err, LP_E_RANGE, "System role not supported");
        if ((turns[i].role == LP_ROLE_USER) != ((i - first) % 2 == 0))
            return lp_fail(err, LP_E_RANGE, "Conversation roles must alternate user/assistant/user/assistant/...");
    }
    if (opt->continue_last && opt->generation_prompt)
        return lp_fail(err, LP_E_RANGE, "continue_last and generation_prompt exclude each other");
    return LP_OK;
}

static lp_status lay_out(layout *l, const lp_turn *turns, size_t n, const lp_chat_options *opt, lp_error *err)
{
    LP_TRY(check(turns, n, opt, err));
    LP_TRY(add_template(l, BOS, -1, "<bos>", err));
    size_t first = turns[0].role == LP_ROLE_SYSTEM;
    for (size_t i = first; i < n; i++) {
        int turn = (int)i;
        LP_TRY(open_turn(l, turn, turns[i].role, err));
        if (i == 1 && first) {
            size_t before = l->len;
            LP_TRY(add_content(l, 0, &turns[0], err));
            if (l->len > before) LP_TRY(add_template(l, WORDS, 0, "\n\n", err));
        }
        LP_TRY(add_content(l, turn, &turns[i], err));
        if (i + 1 < n || !opt->continue_last) LP_TRY(close_turn(l, turn, err));
    }
    return opt->generation_prompt ? open_turn(l, (int)n, LP_ROLE_MODEL, err) : LP_OK;
}

lp_status lp_chat_render(char **out, size_t *len, const lp_turn *turns, size_t n, const lp_chat_options *opt,
                         lp_error *err)
{
    static const lp_chat_options plain;
    layout l = {0};
    lp_status st = lay_out(&l, turns, n, opt ? opt : &plain, err);
    free(l.parts);
    if (st < 0) {
        free(l.text);
        return st;
    }
    *out = l.text;
    if (len) *len = l.len;
    return LP_OK;
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

typedef struct markers {
    int bos, start, end;
} markers;

/* A vocabulary that cannot say the template is no chat model's. */
static lp_status find_markers(markers *m, const lp_tokenizer *t, lp_error *err)
{
    *m = (markers){lp_tokenizer_bos(t), lp_tokenizer_find(t, "<start_of_turn>"), lp_tokenizer_find(t, "<end_of_turn>")};
    int newline = lp_tokenizer_find(t, "\n");
    if (m->bos < 0) return lp_fail(err, LP_E_UNSUPPORTED, "the vocabulary has no <bos>; it is not Gemma's");
    if (m->start < 0 || m->end < 0)
        return lp_fail(err, LP_E_UNSUPPORTED,
                       "the vocabulary has no <start_of_turn> and <end_of_turn>; it is not Gemma's");
    if (newline < 0 || lp_tokenizer_type(t, newline) != LP_PIECE_USER)
        return lp_fail(err, LP_E_UNSUPPORTED, "the vocabulary has no user-defined newline; it is not Gemma's");
    return LP_OK;
}

static lp_status encode_part(lp_chat *c, const lp_tokenizer *t, const markers *m, const part *p, lp_specials content,
                             lp_error *err)
{
    lp_span whole = {p->begin, p->end};
    switch (p->kind) {
    case BOS:
        return lp_tokens_push(&c->tokens, m->bos, whole, err);
    case START:
        return lp_tokens_push(&c->tokens, m->start, whole, err);
    case END:
        return lp_tokens_push(&c->tokens, m->end, whole, err);
    default:
        break;
    }
    size_t from = c->tokens.n;
    lp_specials specials = p->kind == CONTENT ? content : LP_SPECIALS_LITERAL;
    LP_TRY(lp_tokenizer_encode(t, c->text + p->begin, p->end - p->begin, specials, &c->tokens, err));
    for (size_t i = from; i < c->tokens.n; i++) {
        c->tokens.spans[i].begin += p->begin;
        c->tokens.spans[i].end += p->begin;
    }
    return LP_OK;
}

static lp_status encode_parts(lp_chat *c, const lp_tokenizer *t, const layout *l, lp_specials content, lp_error *err)
{
    markers m;
    size_t room = 0;
    LP_TRY(find_markers(&m, t, err));
    for (size_t i = 0; i < l->n; i++) {
        const part *p = &l->parts[i];
        size_t from = c->tokens.n;
        LP_TRY(encode_part(c, t, &m, p, content, err));
        if (!lp_grow((void **)&c->marks, &room, c->tokens.n, sizeof *c->marks))
            return lp_fail(err, LP_E_MEMORY, "out of memory for a conversation of %zu tokens", c->tokens.n);
        for (size_t k = from; k < c->tokens.n; k++)
            c->marks[k] = (lp_chat_mark){.turn = p->turn, .content = p->kind == CONTENT};
    }
    return LP_OK;
}

lp_status lp_chat_tokenize(lp_chat *out, const lp_tokenizer *t, const lp_turn *turns, size_t n,
                           const lp_chat_options *opt, lp_error *err)
{
    static const lp_chat_options plain;
    layout l = {0};
    if (!opt) opt = &plain;
    *out = (lp_chat){0};
    lp_status st = lay_out(&l, turns, n, opt, err);
    out->text = l.text;
    out->len = l.len;
    if (st == LP_OK) st = encode_parts(out, t, &l, opt->parse_specials ? LP_SPECIALS_PARSED : LP_SPECIALS_LITERAL, err);
    if (st < 0) lp_chat_free(out);
    free(l.parts);
    return st;
}

void lp_chat_free(lp_chat *c)
{
    free(c->text);
    free(c->marks);
    lp_tokens_free(&c->tokens);
    *c = (lp_chat){0};
}
