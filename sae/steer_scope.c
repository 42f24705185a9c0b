/* steer_scope.c - see steer.h: which edits are at work at which position.
 *
 * Classes, ranges and steps follow from the position.  A scope with a text needs to know which bytes each token stands
 * for: the prompt's are given (or decoded), a generated token's are those that became certain with it (the byte pieces
 * of one character: all of them at the last).  The answer for a generated token is worked out when it is told, from the
 * text up to and with it, and kept: that is what makes it the same after a rewind.
 *
 * regexec wants strings; a NUL in a text is shown to it as byte 1.  Matches are leftmost and longest, one after the
 * other without overlap; an empty match covers nothing.
 */
#include "sae/steer.h"

#include <limits.h>
#include <math.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

/* A scope with a text: one byte for each token known, 1: it overlaps a match. */
typedef struct pattern {
    const lp_recipe_scope *scope;
    regex_t regex;
    uint8_t *hit; /* [n_prompt + n_told] */
    size_t capacity;
} pattern;

/* A token told, and the detokenizer as it was after it. */
typedef struct told {
    int id;
    size_t end; /* of its bytes in the generated text */
    unsigned char held[4];
    int n_held;
} told;

struct lp_scopes {
    const lp_recipe *recipe;
    const lp_tokenizer *tokenizer;
    int bos, n_prompt;
    uint8_t *class_of; /* [n_prompt] */
    pattern *patterns; /* [n_patterns] */
    int n_patterns;
    int *pattern_of; /* [n_edits]; -1: its scope has no text */
    told *told;      /* [n_told] */
    size_t n_told, told_capacity;
    char *text; /* generated so far, terminated */
    size_t text_capacity;
};

enum { IS_PROMPT, IS_BOS, IS_TEMPLATE };

/* ---- making ------------------------------------------------------------------------------------------------------ */

static lp_status no_memory(lp_error *err)
{
    return lp_fail(err, LP_E_MEMORY, "no memory for the scopes of a recipe");
}

/* The pattern of a scope, compiled once however many edits share it. */
static lp_status find_pattern(int *out, lp_scopes *s, const lp_recipe_scope *scope, lp_error *err)
{
    *out = -1;
    if (!scope->text) return LP_OK;
    for (int i = 0; i < s->n_patterns && *out < 0; i++)
        if (strcmp(s->patterns[i].scope->text, scope->text) == 0) *out = i;
    if (*out >= 0) return LP_OK;
    pattern *p = &s->patterns[s->n_patterns];
    if (regcomp(&p->regex, scope->text, REG_EXTENDED) != 0)
        return lp_fail(err, LP_E_FORMAT, "text \"%.40s\" is no extended regular expression", scope->text);
    p->scope = scope;
    *out = s->n_patterns++;
    return LP_OK;
}

lp_status lp_scopes_new(lp_scopes **out, const lp_recipe *r, const lp_tokenizer *t, int bos, lp_error *err)
{
    lp_scopes *s = lp_calloc(1, sizeof *s);
    if (!s) return no_memory(err);
    *s = (lp_scopes){.recipe = r, .tokenizer = t, .bos = bos};
    s->pattern_of = lp_calloc(r->n_edits + 1, sizeof *s->pattern_of);
    s->patterns = lp_calloc(r->n_edits + 1, sizeof *s->patterns);
    lp_status st = s->pattern_of && s->patterns ? LP_OK : no_memory(err);
    for (size_t i = 0; i < r->n_edits && st == LP_OK; i++)
        st = find_pattern(&s->pattern_of[i], s, lp_recipe_scope_of(r, &r->edits[i]), err);
    if (st == LP_OK)
        *out = s;
    else
        lp_scopes_free(s);
    return st;
}

void lp_scopes_free(lp_scopes *s)
{
    if (!s) return;
    for (int i = 0; i < s->n_patterns; i++) {
        regfree(&s->patterns[i].regex);
        free(s->patterns[i].hit);
    }
    free(s->patterns);
    free(s->pattern_of);
    free(s->class_of);
    free(s->told);
    free(s->text);
    free(s);
}

/* ---- matching ---------------------------------------------------------------------------------------------------- */

/* The next match of at least one byte from *at on; *at moves behind it.  False: no more. */
static bool next_match(const regex_t *r, const char *text, size_t *at, lp_span *match)
{
    regmatch_t m;
    while (regexec(r, text + *at, 1, &m, *at ? REG_NOTBOL : 0) == 0) {
        *match = (lp_span){*at + (size_t)m.rm_so, *at + (size_t)m.rm_eo};
        *at = match->end;
        if (m.rm_eo > m.rm_so) return true;
        if (!text[*at]) return false;
        ++*at;
    }
    return false;
}

static void mark_prompt(const pattern *p, const char *text, const lp_span *spans, int n)
{
    size_t at = 0;
    lp_span m;
    int i = 0;
    while (next_match(&p->regex, text, &at, &m)) {
        while (i < n && spans[i].end <= m.begin) i++;
        for (int k = i; k < n && spans[k].begin < m.end; k++)
            if (spans[k].end > spans[k].begin) p->hit[k] = 1;
    }
}

/* Does a match reach into the last bytes of the text, from `begin` on? */
static bool reaches(const pattern *p, const char *text, size_t begin, size_t end)
{
    size_t at = 0;
    lp_span m;
    while (begin < end && next_match(&p->regex, text, &at, &m))
        if (m.end > begin) return true;
    return false;
}

/* ---- the prompt -------------------------------------------------------------------------------------------------- */

/* A prompt's text and spans, ours. */
typedef struct page {
    char *text;
    lp_span *spans;
    size_t len, capacity;
} page;

static lp_status append(char **text, size_t *capacity, size_t len, const char *more, size_t n, lp_error *err)
{
    if (!lp_grow((void **)text, capacity, len + n + 1, 1)) return no_memory(err);
    for (size_t i = 0; i < n; i++) (*text)[len + i] = more[i] ? more[i] : 1;
    (*text)[len + n] = 0;
    return LP_OK;
}

static lp_status fill_page(page *p, const lp_scopes *s, const lp_steer_context *c, lp_error *err)
{
    size_t n = (size_t)c->n_prompt, len;
    if (!(p->spans = lp_calloc(n + 1, sizeof *p->spans))) return no_memory(err);
    LP_TRY(append(&p->text, &p->capacity, 0, c->text ? c->text : "", c->text ? c->len : 0, err));
    if (c->text && c->spans) {
        memcpy(p->spans, c->spans, n * sizeof *p->spans);
        return LP_OK;
    }
    if (!c->ids || !s->tokenizer)
        return lp_fail(err, LP_E_RANGE, "a scope has a text: the prompt's text with its spans, or its ids, are needed");
    lp_detokenizer d = {.tokenizer = s->tokenizer};
    for (size_t i = 0; i < n; i++) {
        const char *more = lp_detokenizer_push(&d, c->ids[i], &len);
        LP_TRY(append(&p->text, &p->capacity, p->len, more, len, err));
        p->spans[i] = (lp_span){p->len, p->len + len};
        p->len += len;
    }
    return LP_OK;
}

static lp_status match_prompt(lp_scopes *s, const lp_steer_context *c, lp_error *err)
{
    page p = {0};
    lp_status st = fill_page(&p, s, c, err);
    for (int i = 0; i < s->n_patterns && st == LP_OK; i++) {
        pattern *t = &s->patterns[i];
        if (!lp_grow((void **)&t->hit, &t->capacity, (size_t)c->n_prompt + 1, 1)) {
            st = no_memory(err);
            break;
        }
        memset(t->hit, 0, (size_t)c->n_prompt);
        mark_prompt(t, p.text, p.spans, c->n_prompt);
    }
    free(p.text);
    free(p.spans);
    return st;
}

lp_status lp_scopes_prompt(lp_scopes *s, const lp_steer_context *c, lp_error *err)
{
    if (c->n_prompt < 0) return lp_fail(err, LP_E_RANGE, "a prompt of %d tokens", c->n_prompt);
    uint8_t *class_of = lp_calloc((size_t)c->n_prompt + 1, 1);
    if (!class_of) return no_memory(err);
    free(s->class_of);
    s->class_of = class_of;
    s->n_prompt = c->n_prompt;
    s->n_told = 0;
    for (int i = 0; i < c->n_prompt; i++) {
        bool is_bos = c->ids ? c->ids[i] == s->bos : i == 0;
        class_of[i] = is_bos ? IS_BOS : c->is_template && c->is_template[i] ? IS_TEMPLATE : IS_PROMPT;
    }
    return s->n_patterns ? match_prompt(s, c, err) : LP_OK;
}

/* ---- generated tokens -------------------------------------------------------------------------------------------- */

lp_status lp_scopes_token(lp_scopes *s, int pos, int id, lp_error *err)
{
    if (!s->n_patterns) return LP_OK;
    size_t i = (size_t)(pos - s->n_prompt), len;
    if (pos < s->n_prompt || i > s->n_told)
        return lp_fail(err, LP_E_RANGE, "the token of position %d: those from %d to %d are known, tell the next", pos,
                       0, s->n_prompt + (int)s->n_told - 1);
    if (!s->tokenizer)
        return lp_fail(err, LP_E_UNSUPPORTED,
                       "a scope has a text, and this model has no tokenizer to generate text by");
    if (i < s->n_told && s->told[i].id == id) return LP_OK;
    s->n_told = i; /* what follows is forgotten, and so is this one if it fails */
    if (!lp_grow((void **)&s->told, &s->told_capacity, i + 1, sizeof *s->told)) return no_memory(err);
    lp_detokenizer d = {.tokenizer = s->tokenizer};
    if (i) memcpy(d.held, s->told[i - 1].held, sizeof d.held), d.n_held = s->told[i - 1].n_held;
    size_t begin = i ? s->told[i - 1].end : 0;
    const char *more = lp_detokenizer_push(&d, id, &len);
    LP_TRY(append(&s->text, &s->text_capacity, begin, more, len, err));
    for (int k = 0; k < s->n_patterns; k++) {
        pattern *p = &s->patterns[k];
        if (!lp_grow((void **)&p->hit, &p->capacity, (size_t)pos + 1, 1)) return no_memory(err);
        p->hit[pos] = reaches(p, s->text, begin, begin + len);
    }
    s->told[i] = (told){.id = id, .end = begin + len, .n_held = d.n_held};
    memcpy(s->told[i].held, d.held, sizeof d.held);
    s->n_told = i + 1;
    return LP_OK;
}

/* ---- the answer -------------------------------------------------------------------------------------------------- */

static bool takes_class(const lp_scopes *s, const lp_recipe_scope *scope, int pos)
{
    if (pos >= s->n_prompt) return scope->generated;
    if (s->class_of[pos] == IS_BOS) return scope->bos;
    if (scope->last_prompt && pos == s->n_prompt - 1) return true;
    if (s->class_of[pos] == IS_TEMPLATE) return scope->template;
    return scope->prompt && !scope->last_prompt;
}

static bool takes_range(const lp_recipe_scope *scope, int pos)
{
    for (size_t i = 0; i < scope->n_ranges; i++)
        if (pos >= scope->ranges[i].from && pos < scope->ranges[i].to) return true;
    return !scope->n_ranges;
}

double lp_scopes_factor(const lp_scopes *s, size_t edit, int pos)
{
    const lp_recipe_edit *e = &s->recipe->edits[edit];
    const lp_recipe_scope *scope = lp_recipe_scope_of(s->recipe, e);
    if (!takes_class(s, scope, pos) || !takes_range(scope, pos)) return 0;
    double factor = lp_recipe_factor(&e->schedule, pos < s->n_prompt ? 0 : pos - s->n_prompt);
    int p = s->pattern_of[edit];
    if (p < 0 || factor == 0) return factor;
    if (pos >= s->n_prompt + (int)s->n_told) return (double)NAN;
    return s->patterns[p].hit[pos] ? factor : 0;
}
