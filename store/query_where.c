/* query_where.c - see query.h: a condition, from text to tree.
 *
 * By recursive descent.  Text, nodes, nesting and reach are bounded, so whatever is typed is answered in bounded time and
 * memory.
 */
#include "store/query_where.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef enum sort { END, WORD, STRING, COMPARE, OPEN, CLOSE, COMMA } sort;

typedef struct parser {
    lp_where *w;
    lp_query *q;
    const lp_where_options *o;
    const char *text, *next; /* next: behind the token at hand */
    int depth;
    sort sort;
    const char *at; /* where the token begins */
    char *word;     /* its text */
    lp_error *err;
} parser;

static lp_status wrong(const parser *p, const char *at, const char *what)
{
    return lp_fail(p->err, LP_E_RANGE, "column %zu: %s", (size_t)(at - p->text) + 1, what);
}

/* ---- tokens ------------------------------------------------------------------------------------------------------- */

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c && strchr("_.-/:+", c));
}

static lp_status take_string(parser *p)
{
    size_t n = 0;
    const char *s = p->at + 1;
    for (; *s && *s != '"'; s++) {
        if (*s == '\\' && (s[1] == '"' || s[1] == '\\')) s++;
        p->word[n++] = *s;
    }
    p->word[n] = '\0';
    if (!*s) return wrong(p, p->at, "a \" that nothing closes");
    p->sort = STRING, p->next = s + 1;
    return LP_OK;
}

static lp_status take(parser *p)
{
    const char *s = p->next + strspn(p->next, " \t\r\n");
    size_t n = 0;
    p->at = s, p->next = s + (*s != '\0');
    switch (*s) {
    case '\0':
        p->sort = END;
        return LP_OK;
    case '(':
        p->sort = OPEN;
        return LP_OK;
    case ')':
        p->sort = CLOSE;
        return LP_OK;
    case ',':
        p->sort = COMMA;
        return LP_OK;
    case '"':
        return take_string(p);
    case '<':
    case '>':
        p->sort = COMPARE;
        p->word[n++] = *s;
        if (s[1] == '=') p->word[n++] = '=', p->next++;
        p->word[n] = '\0';
        return LP_OK;
    default:
        break;
    }
    while (is_word(s[n])) n++;
    if (!n) return wrong(p, s, "a character that means nothing here; names with such go in quotes, \"name\":17");
    memcpy(p->word, s, n), p->word[n] = '\0';
    p->sort = WORD, p->next = s + n;
    return LP_OK;
}

static bool is_at(const parser *p, const char *word)
{
    return p->sort == WORD && strcasecmp(p->word, word) == 0;
}

/* ---- nodes -------------------------------------------------------------------------------------------------------- */

static lp_status add(int *out, parser *p, lp_where_node node)
{
    lp_where *w = p->w;
    if (w->n == LP_WHERE_NODES) return wrong(p, p->at, "longer than 512 conditions");
    if (!lp_grow((void **)&w->nodes, &w->capacity, (size_t)w->n + 1, sizeof *w->nodes))
        return lp_fail(p->err, LP_E_MEMORY, "out of memory");
    w->nodes[w->n] = node;
    *out = w->n++;
    return LP_OK;
}

/* How far from a row a node looks. */
static int reach(const lp_where *w, int i)
{
    const lp_where_node *x = &w->nodes[i];
    int a = x->kind <= LP_WHERE_NEAR ? reach(w, x->a) : 0, b = x->kind <= LP_WHERE_AND ? reach(w, x->b) : 0;
    int own = x->kind == LP_WHERE_NEAR ? (-x->from > x->to ? -x->from : x->to) : 0;
    return own + (a > b ? a : b);
}

/* The number at hand, in low .. high. */
static lp_status take_number(double *out, parser *p, double low, double high, const char *what)
{
    char *end = p->word;
    *out = p->sort == WORD ? strtod(p->word, &end) : 0;
    if (p->sort != WORD || end == p->word || *end || !(*out >= low && *out <= high)) return wrong(p, p->at, what);
    return take(p);
}

static lp_status take_comparison(lp_where_node *node, parser *p)
{
    if (p->sort != COMPARE) return LP_OK;
    bool is_or_equal = p->word[1] == '=';
    if (p->word[0] == '>')
        node->than = is_or_equal ? LP_WHERE_FROM : LP_WHERE_ABOVE;
    else
        node->than = is_or_equal ? LP_WHERE_UPTO : LP_WHERE_BELOW;
    LP_TRY(take(p));
    return take_number(&node->value, p, -1e30, 1e30, "a number expected, to compare with");
}

/* "name:17", or "name" and ":17" behind it; `at` is where it stands. */
static lp_status feature_of(lp_where_node *node, parser *p, const char *name, const char *index, const char *at)
{
    char *end;
    errno = 0;
    long v = *index >= '0' && *index <= '9' ? strtol(index, &end, 10) : -1;
    if (v < 0 || errno || *end || v > INT_MAX) return wrong(p, at, "which feature? SAE:17");
    lp_error why = {.status = LP_OK};
    if (lp_query_find_sae(&node->sae[0], p->q, name, &why) != LP_OK) return wrong(p, at, why.text);
    const lp_query_sae *s = &p->q->saes[node->sae[0]];
    if (v >= s->d_sae) {
        snprintf(why.text, sizeof why.text, "feature %ld; %.100s has 0 to %d", v, s->name, s->d_sae - 1);
        return wrong(p, at, why.text);
    }
    node->feature[0] = (int)v;
    return LP_OK;
}

static lp_status take_feature(int *out, parser *p)
{
    lp_where_node node = {.kind = LP_WHERE_FEATURES, .n = 1};
    const char *at = p->at;
    if (p->sort == STRING) {
        char *name = lp_strdup(p->word);
        if (!name) return lp_fail(p->err, LP_E_MEMORY, "out of memory");
        lp_status st = take(p);
        if (st == LP_OK)
            st = p->sort == WORD && p->word[0] == ':' ? feature_of(&node, p, name, p->word + 1, at)
                                                      : wrong(p, at, "a name in quotes needs its feature: \"name\":17");
        free(name);
        LP_TRY(st);
    } else {
        char *colon = strrchr(p->word, ':');
        if (!colon) return wrong(p, at, "expected SAE:FEATURE, label, token, not, or (");
        *colon = '\0';
        LP_TRY(feature_of(&node, p, p->word, colon + 1, at));
    }
    LP_TRY(take(p));
    LP_TRY(take_comparison(&node, p));
    return add(out, p, node);
}

static lp_status take_label(int *out, parser *p)
{
    lp_where_node node = {.kind = LP_WHERE_FEATURES};
    lp_found_labels found = {0};
    lp_error why = {.status = LP_OK};
    LP_TRY(take(p));
    if (p->sort != STRING) return wrong(p, p->at, "label \"WORDS\": the words go in quotes");
    lp_status st = lp_query_labels(&found, p->q, p->word, LP_WHERE_LABELS, &why);
    if (st != LP_OK)
        st = wrong(p, p->at, why.text);
    else if (!found.n)
        st = wrong(p, p->at, "no feature of this run is called so");
    for (size_t i = 0; st == LP_OK && i < found.n; i++) {
        node.sae[node.n] = found.items[i].sae;
        node.feature[node.n++] = found.items[i].feature;
    }
    lp_found_labels_free(&found);
    LP_TRY(st);
    LP_TRY(take(p));
    LP_TRY(take_comparison(&node, p));
    return add(out, p, node);
}

/* A piece of the vocabulary, its spaces as SentencePiece has them. */
static lp_status find_piece(int *id, parser *p)
{
    if (!p->o->tokenizer) return wrong(p, p->at, "no tokenizer is at hand: token 123");
    char *piece = lp_calloc(3 * strlen(p->word) + 1, 1), *to = piece;
    if (!piece) return lp_fail(p->err, LP_E_MEMORY, "out of memory");
    for (const char *s = p->word; *s; s++)
        if (*s == ' ')
            memcpy(to, "\xE2\x96\x81", 3), to += 3;
        else
            *to++ = *s;
    *id = lp_tokenizer_find(p->o->tokenizer, piece);
    free(piece);
    return *id >= 0 ? LP_OK : wrong(p, p->at, "not one token of the vocabulary (\" the\" and \"the\" are two)");
}

static lp_status take_token(int *out, parser *p)
{
    lp_where_node node = {.kind = LP_WHERE_TOKEN};
    LP_TRY(take(p));
    if (p->sort == STRING) {
        LP_TRY(find_piece(&node.id, p));
        LP_TRY(take(p));
    } else {
        double id;
        const char *at = p->at;
        LP_TRY(take_number(&id, p, 0, p->q->run.vocab - 1, "an id of the vocabulary or \"TEXT\" expected"));
        if (id != floor(id)) return wrong(p, at, "an id is a whole number");
        node.id = (int)id;
    }
    return add(out, p, node);
}

/* ---- the grammar -------------------------------------------------------------------------------------------------- */

static lp_status take_either(int *out, parser *p);

static lp_status take_thing(int *out, parser *p)
{
    if (is_at(p, "label")) return take_label(out, p);
    if (is_at(p, "token")) return take_token(out, p);
    if (p->sort == WORD || p->sort == STRING) return take_feature(out, p);
    if (p->sort != OPEN) return wrong(p, p->at, "expected SAE:FEATURE, label, token, not, or (");
    LP_TRY(take(p));
    LP_TRY(take_either(out, p));
    if (p->sort != CLOSE) return wrong(p, p->at, "expected and, or, a comma, or )");
    return take(p);
}

static lp_status take_near(int *out, parser *p)
{
    static const char *const words[] = {"within", "before", "after"};
    LP_TRY(take_thing(out, p));
    for (int i = 0; i < 3; i++) {
        double n;
        if (!is_at(p, words[i])) continue;
        const char *at = p->at;
        LP_TRY(take(p));
        LP_TRY(take_number(&n, p, 0, LP_WHERE_REACH, "a number of tokens expected, up to 65536"));
        if (n != floor(n)) return wrong(p, at, "a whole number of tokens expected");
        lp_where_node node = {
            .kind = LP_WHERE_NEAR, .a = *out, .from = i == 2 ? 1 : -(int)n, .to = i == 1 ? -1 : (int)n};
        LP_TRY(add(out, p, node));
        if (reach(p->w, *out) > LP_WHERE_REACH) return wrong(p, at, "reaches further than 65536 tokens");
        i = -1; /* there may be another one */
    }
    return LP_OK;
}

static lp_status take_part(int *out, parser *p)
{
    lp_status st;
    if (++p->depth > LP_WHERE_DEPTH) return wrong(p, p->at, "nested deeper than 64");
    if (is_at(p, "not")) {
        LP_TRY(take(p));
        st = take_part(out, p);
        if (st == LP_OK) st = add(out, p, (lp_where_node){.kind = LP_WHERE_NOT, .a = *out});
    } else {
        st = take_near(out, p);
    }
    p->depth--;
    return st;
}

/* Joined to a tree of little depth, since evaluating goes down it: a b c d is (a b) (c d). */
static lp_status join(int *out, parser *p, lp_where_kind kind, const int *list, int n)
{
    if (n == 1) return *out = list[0], LP_OK;
    int a, b;
    LP_TRY(join(&a, p, kind, list, n / 2));
    LP_TRY(join(&b, p, kind, list + n / 2, n - n / 2));
    return add(out, p, (lp_where_node){.kind = kind, .a = a, .b = b});
}

static lp_status take_list(int *out, parser *p, lp_where_kind kind)
{
    int list[LP_WHERE_NODES], n = 0;
    for (;;) {
        if (n == LP_WHERE_NODES) return wrong(p, p->at, "longer than 512 conditions");
        LP_TRY(kind == LP_WHERE_OR ? take_list(&list[n++], p, LP_WHERE_AND) : take_part(&list[n++], p));
        bool goes_on = kind == LP_WHERE_OR ? is_at(p, "or") : p->sort == COMMA || is_at(p, "and");
        if (!goes_on) break;
        LP_TRY(take(p));
    }
    return join(out, p, kind, list, n);
}

static lp_status take_either(int *out, parser *p)
{
    return take_list(out, p, LP_WHERE_OR);
}

lp_status lp_where_parse(lp_where *out, lp_query *q, const char *text, const lp_where_options *o, lp_error *err)
{
    size_t n = strlen(text);
    *out = (lp_where){0};
    if (n > LP_WHERE_TEXT) return lp_fail(err, LP_E_RANGE, "an expression of %zu bytes, at most %d", n, LP_WHERE_TEXT);
    parser p = {.w = out, .q = q, .o = o, .text = text, .next = text, .word = lp_calloc(n + 1, 1), .err = err};
    lp_status st = p.word ? take(&p) : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = take_either(&out->root, &p);
    if (st == LP_OK && p.sort != END) st = wrong(&p, p.at, "expected and, or, a comma, or the end");
    free(p.word);
    if (st != LP_OK) lp_where_free(out);
    return st;
}

void lp_where_free(lp_where *w)
{
    for (int i = 0; i < w->n; i++)
        for (int k = 0; k < LP_WHERE_SLOTS; k++) free(w->nodes[i].slot[k]);
    free(w->nodes);
    *w = (lp_where){0};
}
