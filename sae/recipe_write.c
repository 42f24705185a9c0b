/* recipe_write.c - see recipe.h: what a recipe must be beyond its grammar, and recipes as text, files and hashes.
 *
 * Two clamps of one feature cannot both hold, so they must not meet.  Whether two scopes meet is decided from what can
 * be known beforehand: classes of positions, ranges, steps.  Patterns and conditions are taken to meet, since they may.
 *
 * Patterns are compiled here only to be refused early.  glibc's regcomp unrolls a{9}{9}{9} and its matcher tries every
 * way to satisfy a back reference, so that a line of text could take the machine: bounds whose product is large and
 * back references (which POSIX leaves out of extended expressions) are refused.
 */
#include "core/outfile.h"
#include "sae/hash.h"
#include "sae/recipe.h"

#include <ctype.h>
#include <float.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_REPEATS = 10000 };

static const char *const kinds[] = {"add", "clamp", "clamp_min", "clamp_max", "scale", "ablate", "project", "replace"};
static const char *const units[] = {"absolute", "max_act", "mean_norm"};

const char *lp_recipe_kind_name(lp_recipe_kind k)
{
    return (int)k >= 0 && k < LP_RECIPE_N_KINDS ? kinds[k] : "unknown";
}

const char *lp_recipe_unit_name(lp_recipe_unit u)
{
    return (int)u >= 0 && u < LP_RECIPE_N_UNITS ? units[u] : "unknown";
}

lp_recipe_scope lp_recipe_scope_default(void)
{
    return (lp_recipe_scope){.prompt = true, .generated = true};
}

const lp_recipe_scope *lp_recipe_scope_of(const lp_recipe *r, const lp_recipe_edit *e)
{
    return e->has_scope ? &e->scope : &r->scope;
}

static void clear_scope(lp_recipe_scope *s)
{
    free(s->ranges);
    free(s->text);
}

void lp_recipe_clear(lp_recipe *r)
{
    for (size_t i = 0; r->edits && i < r->n_edits; i++) {
        lp_recipe_edit *e = &r->edits[i];
        clear_scope(&e->scope);
        free(e->source);
        free(e->description);
        free(e->when.source);
        free(e->extra);
    }
    clear_scope(&r->scope);
    free(r->edits);
    free(r->name);
    free(r->description);
    free(r->model);
    free(r->extra);
    *r = (lp_recipe){0};
}

lp_status lp_recipe_amount(double *out, const lp_recipe_edit *e, lp_error *err)
{
    double unit = e->unit == LP_RECIPE_MAX_ACT ? e->max_act : e->unit == LP_RECIPE_MEAN_NORM ? e->mean_norm : 1;
    const char *name = lp_recipe_unit_name(e->unit);
    if (!(unit > 0))
        return lp_fail(err, LP_E_RANGE, "%s #%d: its unit is %s, and nobody said how much that is; write \"%s\"",
                       e->source, e->index, name, name);
    *out = e->strength * unit;
    if (!(fabs(*out) <= (double)FLT_MAX))
        return lp_fail(err, LP_E_RANGE, "%s #%d: a strength of %g %s is beyond what a float holds", e->source, e->index,
                       e->strength, name);
    return LP_OK;
}

/* By squaring: libm's pow may differ in the last bit from one machine to the next. */
static double power(double base, int n)
{
    double out = 1;
    for (; n > 0; n >>= 1, base *= base)
        if (n & 1) out *= base;
    return out;
}

double lp_recipe_factor(const lp_recipe_schedule *s, int step)
{
    if (!s->is_given) return 1;
    if (step < s->from || step >= s->to) return 0;
    int since = step - s->from;
    return (since < s->ramp ? (double)since / s->ramp : 1) * power(s->decay, since);
}

/* ---- checking ---------------------------------------------------------------------------------------------------- */

/* The product of the upper bounds of all {m,n}, MOST_REPEATS + 1 where it would be more; -1: a back reference. */
static long repeats(const char *p)
{
    long product = 1;
    for (; *p; p++) {
        if (*p == '\\') {
            if (isdigit((unsigned char)p[1])) return -1;
            if (p[1]) p++;
        } else if (*p == '{' && isdigit((unsigned char)p[1])) {
            char *end;
            long n = strtol(p + 1, &end, 10), m = *end == ',' ? strtol(end + 1, NULL, 10) : 0;
            if (m > n) n = m;
            if (n > MOST_REPEATS || n * product > MOST_REPEATS) return MOST_REPEATS + 1;
            if (n > 1) product *= n;
        }
    }
    return product;
}

static lp_status check_pattern(const char *where, const char *text, lp_error *err)
{
    regex_t r;
    char why[128];
    long n = repeats(text);
    if (!text[0]) return lp_fail(err, LP_E_FORMAT, "%s: an empty text matches nothing; leave it out", where);
    if (strlen(text) > LP_RECIPE_PATTERN)
        return lp_fail(err, LP_E_RANGE, "%s: a pattern of %zu bytes; at most %d", where, strlen(text),
                       (int)LP_RECIPE_PATTERN);
    if (n < 0)
        return lp_fail(err, LP_E_UNSUPPORTED, "%s: text \"%.40s\" has a back reference; extended expressions have none",
                       where, text);
    if (n > MOST_REPEATS)
        return lp_fail(err, LP_E_RANGE, "%s: text \"%.40s\" repeats too often; at most %d in all", where, text,
                       (int)MOST_REPEATS);
    int bad = regcomp(&r, text, REG_EXTENDED | REG_NOSUB);
    if (!bad) {
        regfree(&r);
        return LP_OK;
    }
    regerror(bad, &r, why, sizeof why);
    return lp_fail(err, LP_E_FORMAT, "%s: text \"%.40s\" is no extended regular expression: %s", where, text, why);
}

static lp_status check_scope(const char *where, const lp_recipe_scope *s, lp_error *err)
{
    if (s->text) LP_TRY(check_pattern(where, s->text, err));
    for (size_t i = 0; i < s->n_ranges; i++)
        if (s->ranges[i].from < 0 || s->ranges[i].to <= s->ranges[i].from)
            return lp_fail(err, LP_E_RANGE, "%s: the range [%d, %d) is empty; from comes before to", where,
                           s->ranges[i].from, s->ranges[i].to);
    return LP_OK;
}

static lp_status check_edit(const char *where, const lp_recipe_edit *e, lp_error *err)
{
    if ((int)e->kind < 0 || e->kind >= LP_RECIPE_N_KINDS || (int)e->unit < 0 || e->unit >= LP_RECIPE_N_UNITS)
        return lp_fail(err, LP_E_RANGE, "%s: no such kind or unit", where);
    if (!e->source || !e->source[0]) return lp_fail(err, LP_E_FORMAT, "%s: no SAE is named", where);
    if (e->index < 0 || (e->when.source && e->when.index < 0))
        return lp_fail(err, LP_E_RANGE, "%s: features are numbered from 0", where);
    if (!isfinite(e->strength) || !isfinite(e->max_act) || !isfinite(e->mean_norm) || !isfinite(e->when.above))
        return lp_fail(err, LP_E_RANGE, "%s: its strength, unit and condition must be finite numbers", where);
    if (e->kind == LP_RECIPE_SCALE && e->unit != LP_RECIPE_ABSOLUTE)
        return lp_fail(err, LP_E_FORMAT, "%s: scale is a factor; its unit must be absolute, not %s", where,
                       lp_recipe_unit_name(e->unit));
    const lp_recipe_schedule *s = &e->schedule;
    if (s->is_given && (s->from < 0 || s->to <= s->from || s->ramp < 0))
        return lp_fail(err, LP_E_RANGE, "%s: the schedule [%d, %d) is empty; from comes before to", where, s->from,
                       s->to);
    if (s->is_given && !(s->decay >= 0 && s->decay <= 1))
        return lp_fail(err, LP_E_RANGE, "%s: a decay of %g; it is a factor per step from 0 to 1", where, s->decay);
    return e->has_scope ? check_scope(where, &e->scope, err) : LP_OK;
}

/* The classes of positions a scope takes: <bos>, the template's, the prompt's, its last token (the prompt's own, the
 * template's), generated. */
static unsigned classes(const lp_recipe_scope *s)
{
    enum { BOS = 1, TEMPLATE = 2, PROMPT = 4, LAST = 8, LAST_OF_TEMPLATE = 16, GENERATED = 32 };
    unsigned c = s->bos ? BOS : 0;
    if (s->template) c |= TEMPLATE | LAST_OF_TEMPLATE;
    if (s->last_prompt)
        c |= LAST | LAST_OF_TEMPLATE;
    else if (s->prompt)
        c |= PROMPT | LAST;
    return s->generated ? c | GENERATED : c;
}

static bool ranges_meet(const lp_recipe_scope *a, const lp_recipe_scope *b)
{
    for (size_t i = 0; i < a->n_ranges; i++)
        for (size_t j = 0; j < b->n_ranges; j++)
            if (a->ranges[i].from < b->ranges[j].to && b->ranges[j].from < a->ranges[i].to) return true;
    return !a->n_ranges || !b->n_ranges;
}

static bool steps_meet(const lp_recipe_schedule *a, const lp_recipe_schedule *b)
{
    return !a->is_given || !b->is_given || (a->from < b->to && b->from < a->to);
}

static bool sets(const lp_recipe_edit *e)
{
    return e->kind == LP_RECIPE_CLAMP || e->kind == LP_RECIPE_REPLACE;
}

static lp_status check_pair(const lp_recipe *r, size_t i, size_t j, lp_error *err)
{
    const lp_recipe_edit *a = &r->edits[i], *b = &r->edits[j];
    if (a->index != b->index || !sets(a) || !sets(b) || strcmp(a->source, b->source) != 0) return LP_OK;
    const lp_recipe_scope *sa = lp_recipe_scope_of(r, a), *sb = lp_recipe_scope_of(r, b);
    if (!(classes(sa) & classes(sb)) || !ranges_meet(sa, sb) || !steps_meet(&a->schedule, &b->schedule)) return LP_OK;
    return lp_fail(err, LP_E_FORMAT,
                   "features[%zu] and features[%zu] both set %s #%d, and their scopes may meet; keep one, or part them",
                   i, j, a->source, a->index);
}

lp_status lp_recipe_check(const lp_recipe *r, lp_error *err)
{
    char where[64];
    if (r->n_edits > LP_RECIPE_EDITS)
        return lp_fail(err, LP_E_RANGE, "%zu edits; a recipe holds at most %d", r->n_edits, (int)LP_RECIPE_EDITS);
    if (r->is_joint && r->keeps_norm)
        return lp_fail(err, LP_E_UNSUPPORTED,
                       "joint and keep_norm: a row scaled afterwards misses its values; drop one");
    LP_TRY(check_scope("scope", &r->scope, err));
    for (size_t i = 0; i < r->n_edits; i++) {
        snprintf(where, sizeof where, "features[%zu]", i);
        LP_TRY(check_edit(where, &r->edits[i], err));
    }
    for (size_t i = 0; i < r->n_edits; i++)
        for (size_t j = i + 1; j < r->n_edits; j++) LP_TRY(check_pair(r, i, j, err));
    return LP_OK;
}

/* ---- as JSON ----------------------------------------------------------------------------------------------------- */

/* Two forms of one tree: for people (defaults and what is not given left out), and for the hash (the contrary). */
typedef struct form {
    bool is_canonical, has_failed;
} form;

static void put(form *f, json_t *o, const char *key, json_t *v)
{
    if (json_object_set_new(o, key, v) != 0) f->has_failed = true;
}

static void put_text(form *f, json_t *o, const char *key, const char *text)
{
    if (text) put(f, o, key, json_string(text));
}

static void put_number(form *f, json_t *o, const char *key, double v)
{
    put(f, o, key, json_real(v + 0.0));
}

static void put_extra(form *f, json_t *o, const char *extra)
{
    if (!extra || f->is_canonical) return;
    json_t *own = json_loads(extra, 0, NULL);
    if (!own || json_object_update(o, own) != 0) f->has_failed = true;
    json_decref(own);
}

static json_t *scope_json(form *f, const lp_recipe_scope *s)
{
    json_t *o = json_object();
    put(f, o, "bos", json_boolean(s->bos));
    put(f, o, "template", json_boolean(s->template));
    put(f, o, "prompt", json_boolean(s->prompt && !(f->is_canonical && s->last_prompt))); /* it then says nothing */
    if (s->last_prompt || f->is_canonical) put(f, o, "last_prompt", json_boolean(s->last_prompt));
    put(f, o, "generated", json_boolean(s->generated));
    put_text(f, o, "text", s->text);
    if (!s->n_ranges) return o;
    json_t *list = json_array();
    for (size_t i = 0; i < s->n_ranges; i++)
        if (json_array_append_new(list, json_pack("[ii]", s->ranges[i].from, s->ranges[i].to)) != 0)
            f->has_failed = true;
    put(f, o, "ranges", list);
    return o;
}

static json_t *schedule_json(form *f, const lp_recipe_schedule *s)
{
    json_t *o = json_object();
    put(f, o, "from", json_integer(s->from));
    if (s->to != INT_MAX || f->is_canonical) put(f, o, "to", json_integer(s->to));
    if (s->ramp || f->is_canonical) put(f, o, "ramp", json_integer(s->ramp));
    if (s->decay != 1 || f->is_canonical) put_number(f, o, "decay", s->decay);
    return o;
}

static json_t *edit_json(form *f, const lp_recipe *r, const lp_recipe_edit *e)
{
    json_t *o = json_object();
    put_text(f, o, "layer", e->source);
    put(f, o, "index", json_integer(e->index));
    if (!f->is_canonical) put_text(f, o, "description", e->description);
    put_text(f, o, "kind", lp_recipe_kind_name(e->kind));
    bool is_absolute = e->unit == LP_RECIPE_ABSOLUTE;
    if (!is_absolute || f->is_canonical) put_text(f, o, "unit", lp_recipe_unit_name(e->unit));
    if (e->kind != LP_RECIPE_ABLATE) put_number(f, o, "strength", e->strength);
    if (f->is_canonical ? e->unit == LP_RECIPE_MAX_ACT : e->max_act > 0) put_number(f, o, "max_act", e->max_act);
    if (f->is_canonical ? e->unit == LP_RECIPE_MEAN_NORM : e->mean_norm > 0)
        put_number(f, o, "mean_norm", e->mean_norm);
    if (e->has_scope || f->is_canonical) put(f, o, "scope", scope_json(f, lp_recipe_scope_of(r, e)));
    if (e->schedule.is_given) put(f, o, "schedule", schedule_json(f, &e->schedule));
    if (e->when.source) {
        json_t *when = json_object();
        put_text(f, when, "layer", e->when.source);
        put(f, when, "index", json_integer(e->when.index));
        put_number(f, when, "above", e->when.above);
        put(f, o, "when", when);
    }
    put_extra(f, o, e->extra);
    return o;
}

static json_t *recipe_json(form *f, const lp_recipe *r)
{
    json_t *o = json_object(), *list = json_array();
    put_text(f, o, "format", "lapidary-recipe");
    put(f, o, "version", json_integer(1));
    if (!f->is_canonical) put_text(f, o, "name", r->name);
    if (!f->is_canonical) put_text(f, o, "description", r->description);
    put_text(f, o, "modelId", r->model);
    for (size_t i = 0; i < r->n_edits; i++)
        if (json_array_append_new(list, edit_json(f, r, &r->edits[i])) != 0) f->has_failed = true;
    put(f, o, "features", list);
    if (!f->is_canonical) put(f, o, "scope", scope_json(f, &r->scope)); /* there it stands in every edit */
    if (r->is_joint || f->is_canonical) put(f, o, "joint", json_boolean(r->is_joint));
    if (r->keeps_norm || f->is_canonical) put(f, o, "keep_norm", json_boolean(r->keeps_norm));
    if (r->drops_error || f->is_canonical) put(f, o, "error_term", json_boolean(!r->drops_error));
    put_extra(f, o, r->extra);
    return o;
}

/* The fewest digits that read back as the same numbers: 8.53, not 8.5299999999999994. */
static char *dump_short(const json_t *o)
{
    for (size_t digits = 15; digits < 17; digits++) {
        char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(digits));
        json_t *again = text ? json_loads(text, 0, NULL) : NULL;
        bool is_same = again && json_equal(again, o);
        json_decref(again);
        if (is_same) return text;
        free(text);
    }
    return json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
}

static lp_status dump(char **out, const lp_recipe *r, bool is_canonical, lp_error *err)
{
    form f = {.is_canonical = is_canonical};
    json_t *o = recipe_json(&f, r);
    *out = NULL;
    if (!f.has_failed)
        *out = is_canonical ? json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : dump_short(o);
    json_decref(o);
    return *out ? LP_OK
                : lp_fail(err, LP_E_FORMAT, "the recipe cannot be written: its texts are no UTF-8, or no memory");
}

lp_status lp_recipe_text(char **out, const lp_recipe *r, lp_error *err)
{
    return dump(out, r, false, err);
}

lp_status lp_recipe_write(const lp_recipe *r, const char *path, lp_error *err)
{
    char *text = NULL;
    lp_status st = lp_recipe_check(r, err);
    if (st == LP_OK) st = lp_recipe_text(&text, r, err);
    if (st == LP_OK) st = lp_outfile_text(path, text, "\n", err);
    free(text);
    return st;
}

lp_status lp_recipe_hash(char out[33], const lp_recipe *r, lp_error *err)
{
    char *text;
    LP_TRY(dump(&text, r, true, err));
    lp_hash_text(out, XXH3_128bits(text, strlen(text)));
    free(text);
    return LP_OK;
}
