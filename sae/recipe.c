/* recipe.c - see recipe.h: reading a recipe.  What one must be beyond its grammar is in recipe_write.c.
 *
 * Every object is read by a table of the keys it may have; the place of what is read ("features[2].scope") goes with
 * it, so that every complaint has one.  A file of a million edits is refused by counting its braces, before a tree of
 * it is built.
 */
#include "sae/recipe.h"

#include "core/data.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OBJECTS = 1 << 16 }; /* LP_RECIPE_EDITS edits of four objects each, and as many again for "x_" keys */

/* One object being read. */
typedef struct place {
    json_t *o;
    char where[64]; /* "the recipe", "features[2]", "features[2].scope" */
    lp_error *err;
} place;

/* ---- taking values ----------------------------------------------------------------------------------------------- */

static lp_status no_memory(const place *p)
{
    return lp_fail(p->err, LP_E_MEMORY, "%s: out of memory", p->where);
}

static const char *nearest(const char *key, const char *const *known)
{
    const char *best = NULL;
    int least = 4; /* farther is no slip of the pen */
    for (; *known; known++) {
        int d = lp_edit_distance(key, *known);
        if (d < least) least = d, best = *known;
    }
    return best;
}

/* Only the keys of the NULL-terminated list, and those beginning with "x_". */
static lp_status check_keys(const place *p, const char *const *known)
{
    const char *key;
    json_t *v;
    json_object_foreach(p->o, key, v)
    {
        const char *const *k = known;
        if (strncmp(key, "x_", 2) == 0) continue;
        while (*k && strcmp(*k, key) != 0) k++;
        if (*k) continue;
        const char *near = nearest(key, known);
        return lp_fail(p->err, LP_E_FORMAT, "%s: unknown key \"%.60s\"%s%s%s (keys of your own begin with x_)",
                       p->where, key, near ? "; is it \"" : "", near ? near : "", near ? "\"?" : "");
    }
    return LP_OK;
}

static lp_status wrong(const place *p, const char *key, const char *want)
{
    return lp_fail(p->err, LP_E_FORMAT, "%s: \"%s\" must be %s", p->where, key, want);
}

static lp_status take_bool(const place *p, const char *key, bool *out)
{
    json_t *v = json_object_get(p->o, key);
    if (!v) return LP_OK;
    if (!json_is_boolean(v)) return wrong(p, key, "true or false");
    *out = json_is_true(v);
    return LP_OK;
}

static lp_status take_int(const place *p, const char *key, int *out)
{
    json_t *v = json_object_get(p->o, key);
    if (!v) return LP_OK;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT_MAX)
        return wrong(p, key, "a whole number from 0 on");
    *out = (int)json_integer_value(v);
    return LP_OK;
}

static lp_status take_number(const place *p, const char *key, double *out)
{
    json_t *v = json_object_get(p->o, key);
    if (!v) return LP_OK;
    if (!json_is_number(v) || !isfinite(json_number_value(v))) return wrong(p, key, "a finite number");
    *out = json_number_value(v) + 0.0; /* -0 becomes 0 */
    return LP_OK;
}

/* null is as good as missing: data/recipe writes it for a feature nobody has described. */
static lp_status take_text(const place *p, const char *key, char **out)
{
    json_t *v = json_object_get(p->o, key);
    if (!v || json_is_null(v)) return LP_OK;
    if (!json_is_string(v)) return wrong(p, key, "a string");
    *out = lp_strdup(json_string_value(v));
    return *out ? LP_OK : no_memory(p);
}

/* A word of a list: its place in it. */
static lp_status take_word(const place *p, const char *key, const char *(*name)(int), int n, int *out)
{
    json_t *v = json_object_get(p->o, key);
    if (!v) return LP_OK;
    if (!json_is_string(v)) return wrong(p, key, "a string");
    char all[160] = "";
    for (int i = 0; i < n; i++) {
        if (strcmp(name(i), json_string_value(v)) == 0) {
            *out = i;
            return LP_OK;
        }
        size_t at = strlen(all);
        snprintf(all + at, sizeof all - at, "%s%s", i ? ", " : "", name(i));
    }
    return lp_fail(p->err, LP_E_FORMAT, "%s: unknown %s \"%.40s\"; it is one of %s", p->where, key,
                   json_string_value(v), all);
}

/* Enters the object under `key`; *has: there is one. */
static lp_status enter(place *in, const place *p, const char *key, bool *has)
{
    *in = (place){.o = json_object_get(p->o, key), .err = p->err};
    *has = in->o != NULL;
    bool is_below = p->where[0] == 'f'; /* of an edit, not of the recipe itself */
    snprintf(in->where, sizeof in->where, "%.40s%s%.16s", is_below ? p->where : "", is_below ? "." : "", key);
    return !in->o || json_is_object(in->o) ? LP_OK : wrong(p, key, "an object");
}

static lp_status take_extra(const place *p, char **out)
{
    const char *key;
    json_t *v, *own = json_object();
    bool is_full = own != NULL;
    json_object_foreach(p->o, key, v)
    {
        if (strncmp(key, "x_", 2) == 0 && json_object_set(own, key, v) != 0) is_full = false;
    }
    if (is_full && json_object_size(own) > 0) is_full = (*out = json_dumps(own, JSON_COMPACT)) != NULL;
    json_decref(own);
    return is_full ? LP_OK : no_memory(p);
}

/* ---- the parts of a recipe --------------------------------------------------------------------------------------- */

static lp_status take_ranges(const place *p, lp_recipe_scope *s)
{
    json_t *list = json_object_get(p->o, "ranges");
    if (!list) return LP_OK;
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n == 0) return wrong(p, "ranges", "a list of [from, to), not empty");
    if (n > LP_RECIPE_RANGES) return wrong(p, "ranges", "at most 4096 long");
    if (!(s->ranges = lp_calloc(n, sizeof *s->ranges))) return no_memory(p);
    s->n_ranges = n;
    for (size_t i = 0; i < n; i++) {
        json_t *pair = json_array_get(list, i), *from = json_array_get(pair, 0), *to = json_array_get(pair, 1);
        if (json_array_size(pair) != 2 || !json_is_integer(from) || !json_is_integer(to) ||
            json_integer_value(from) < 0 || json_integer_value(from) > INT_MAX || json_integer_value(to) < 0 ||
            json_integer_value(to) > INT_MAX)
            return wrong(p, "ranges", "pairs of positions [from, to)");
        s->ranges[i] = (lp_recipe_range){(int)json_integer_value(from), (int)json_integer_value(to)};
    }
    return LP_OK;
}

static lp_status take_scope(const place *p, lp_recipe_scope *s, bool *has)
{
    static const char *const keys[] = {"bos", "template", "prompt", "last_prompt", "generated", "ranges", "text", NULL};
    place in;
    *s = lp_recipe_scope_default();
    LP_TRY(enter(&in, p, "scope", has));
    if (!*has) return LP_OK;
    LP_TRY(check_keys(&in, keys));
    LP_TRY(take_bool(&in, "bos", &s->bos));
    LP_TRY(take_bool(&in, "template", &s->template));
    LP_TRY(take_bool(&in, "prompt", &s->prompt));
    LP_TRY(take_bool(&in, "last_prompt", &s->last_prompt));
    LP_TRY(take_bool(&in, "generated", &s->generated));
    LP_TRY(take_text(&in, "text", &s->text));
    return take_ranges(&in, s);
}

static lp_status take_schedule(const place *p, lp_recipe_schedule *s)
{
    static const char *const keys[] = {"from", "to", "ramp", "decay", NULL};
    place in;
    *s = (lp_recipe_schedule){.to = INT_MAX, .decay = 1};
    LP_TRY(enter(&in, p, "schedule", &s->is_given));
    if (!s->is_given) return LP_OK;
    LP_TRY(check_keys(&in, keys));
    LP_TRY(take_int(&in, "from", &s->from));
    LP_TRY(take_int(&in, "to", &s->to));
    LP_TRY(take_int(&in, "ramp", &s->ramp));
    return take_number(&in, "decay", &s->decay);
}

static lp_status take_condition(const place *p, lp_recipe_condition *c)
{
    static const char *const keys[] = {"layer", "index", "above", NULL};
    place in;
    bool has;
    c->index = -1;
    LP_TRY(enter(&in, p, "when", &has));
    if (!has) return LP_OK;
    LP_TRY(check_keys(&in, keys));
    LP_TRY(take_text(&in, "layer", &c->source));
    LP_TRY(take_int(&in, "index", &c->index));
    LP_TRY(take_number(&in, "above", &c->above));
    if (!c->source || c->index < 0) return lp_fail(p->err, LP_E_FORMAT, "%s: needs \"layer\" and \"index\"", in.where);
    return LP_OK;
}

static const char *kind_name(int i)
{
    return lp_recipe_kind_name((lp_recipe_kind)i);
}

static const char *unit_name(int i)
{
    return lp_recipe_unit_name((lp_recipe_unit)i);
}

static lp_status take_amount(const place *p, lp_recipe_edit *e)
{
    int kind = LP_RECIPE_ADD, unit = LP_RECIPE_ABSOLUTE;
    LP_TRY(take_word(p, "kind", kind_name, LP_RECIPE_N_KINDS, &kind));
    LP_TRY(take_word(p, "unit", unit_name, LP_RECIPE_N_UNITS, &unit));
    e->kind = (lp_recipe_kind)kind;
    e->unit = (lp_recipe_unit)unit;
    bool has = json_object_get(p->o, "strength") != NULL;
    if (e->kind == LP_RECIPE_ABLATE && (has || e->unit != LP_RECIPE_ABSOLUTE))
        return lp_fail(p->err, LP_E_FORMAT, "%s: ablate takes no strength and no unit; is scale meant?", p->where);
    if (!has && e->kind != LP_RECIPE_ABLATE && e->kind != LP_RECIPE_PROJECT)
        return lp_fail(p->err, LP_E_FORMAT, "%s: no \"strength\"; %s needs one", p->where, kind_name(kind));
    LP_TRY(take_number(p, "strength", &e->strength));
    if (json_object_get(p->o, "max_act")) e->max_act = -1; /* a zero that was written is an error, none at all is not */
    if (json_object_get(p->o, "mean_norm")) e->mean_norm = -1;
    LP_TRY(take_number(p, "max_act", &e->max_act));
    LP_TRY(take_number(p, "mean_norm", &e->mean_norm));
    if (json_object_get(p->o, "max_act") && !(e->max_act > 0)) return wrong(p, "max_act", "above 0");
    if (json_object_get(p->o, "mean_norm") && !(e->mean_norm > 0)) return wrong(p, "mean_norm", "above 0");
    return LP_OK;
}

/* All modelIds are one. */
static lp_status take_model(const place *p, char **model)
{
    char *said = NULL;
    LP_TRY(take_text(p, "modelId", &said));
    if (said && *model && strcmp(said, *model) != 0) {
        lp_fail(p->err, LP_E_FORMAT, "%s: modelId \"%.60s\", but the recipe is for \"%.60s\"", p->where, said, *model);
        free(said);
        return LP_E_FORMAT;
    }
    if (said && !*model)
        *model = said;
    else
        free(said);
    return LP_OK;
}

static lp_status take_edit(const place *p, lp_recipe_edit *e, char **model)
{
    static const char *const keys[] = {"modelId", "layer",     "index", "description", "kind", "unit", "strength",
                                       "max_act", "mean_norm", "scope", "schedule",    "when", NULL};
    e->index = -1;
    if (!json_is_object(p->o)) return lp_fail(p->err, LP_E_FORMAT, "%s: must be an object", p->where);
    LP_TRY(check_keys(p, keys));
    LP_TRY(take_model(p, model));
    LP_TRY(take_text(p, "layer", &e->source));
    LP_TRY(take_int(p, "index", &e->index));
    LP_TRY(take_text(p, "description", &e->description));
    if (!e->source) return lp_fail(p->err, LP_E_FORMAT, "%s: no \"layer\", the id of an SAE", p->where);
    if (e->index < 0) return lp_fail(p->err, LP_E_FORMAT, "%s: no \"index\", the feature's number", p->where);
    LP_TRY(take_amount(p, e));
    LP_TRY(take_scope(p, &e->scope, &e->has_scope));
    LP_TRY(take_schedule(p, &e->schedule));
    LP_TRY(take_condition(p, &e->when));
    return take_extra(p, &e->extra);
}

static lp_status too_many(lp_error *err, size_t n, const char *what)
{
    return lp_fail(err, LP_E_RANGE, "%zu %s; a recipe holds at most %d edits", n, what, (int)LP_RECIPE_EDITS);
}

static lp_status take_edits(const place *p, lp_recipe *r)
{
    json_t *list = json_object_get(p->o, "features");
    size_t n = json_array_size(list);
    if (!json_is_array(list)) return wrong(p, "features", "a list of edits");
    if (n > LP_RECIPE_EDITS) return too_many(p->err, n, "edits");
    if (!(r->edits = lp_calloc(n ? n : 1, sizeof *r->edits))) return no_memory(p);
    r->n_edits = n;
    for (size_t i = 0; i < n; i++) {
        place in = {.o = json_array_get(list, i), .err = p->err};
        snprintf(in.where, sizeof in.where, "features[%zu]", i);
        LP_TRY(take_edit(&in, &r->edits[i], &r->model));
    }
    return LP_OK;
}

static lp_status take_format(const place *p)
{
    json_t *format = json_object_get(p->o, "format"), *version = json_object_get(p->o, "version");
    if (!format && json_object_get(p->o, "features"))
        return lp_fail(p->err, LP_E_FORMAT,
                       "no \"format\": \"lapidary-recipe\"; import it if it is a request of Neuronpedia's");
    if (!json_is_string(format) || strcmp(json_string_value(format), "lapidary-recipe") != 0)
        return lp_fail(p->err, LP_E_FORMAT, "not a recipe: \"format\" must be \"lapidary-recipe\"");
    if (!json_is_integer(version) || json_integer_value(version) < 1) return wrong(p, "version", "1");
    if (json_integer_value(version) > 1)
        return lp_fail(p->err, LP_E_UNSUPPORTED,
                       "a recipe of version %lld; this program reads version 1: take a newer one",
                       (long long)json_integer_value(version));
    return LP_OK;
}

static lp_status take_recipe(const place *p, lp_recipe *r)
{
    static const char *const keys[] = {"format", "version", "name",      "description", "modelId", "features",
                                       "scope",  "joint",   "keep_norm", "error_term",  NULL};
    bool has, keeps_error = true;
    LP_TRY(take_format(p));
    LP_TRY(check_keys(p, keys));
    LP_TRY(take_text(p, "name", &r->name));
    LP_TRY(take_text(p, "description", &r->description));
    LP_TRY(take_model(p, &r->model));
    LP_TRY(take_scope(p, &r->scope, &has));
    LP_TRY(take_bool(p, "joint", &r->is_joint));
    LP_TRY(take_bool(p, "keep_norm", &r->keeps_norm));
    LP_TRY(take_bool(p, "error_term", &keeps_error));
    r->drops_error = !keeps_error;
    LP_TRY(take_edits(p, r));
    return take_extra(p, &r->extra);
}

/* ---- from text and files ----------------------------------------------------------------------------------------- */

/* Opening braces outside of strings. */
static size_t count_objects(const char *text, size_t n)
{
    size_t found = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        if (in_string && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            in_string = !in_string;
        else
            found += !in_string && text[i] == '{';
    }
    return found;
}

lp_status lp_recipe_parse(lp_recipe *out, const char *text, size_t n, lp_error *err)
{
    json_error_t bad;
    *out = (lp_recipe){0};
    if (n > LP_RECIPE_BYTES)
        return lp_fail(err, LP_E_RANGE, "%zu bytes; a recipe has at most %d", n, (int)LP_RECIPE_BYTES);
    size_t objects = count_objects(text, n);
    if (objects > MAX_OBJECTS) return too_many(err, objects, "objects");
    place top = {.o = json_loadb(text, n, JSON_REJECT_DUPLICATES, &bad), .where = "the recipe", .err = err};
    if (!top.o) return lp_fail(err, LP_E_FORMAT, "not JSON, line %d: %.100s", bad.line, bad.text);
    lp_status st = json_is_object(top.o) ? take_recipe(&top, out)
                                         : lp_fail(err, LP_E_FORMAT, "not a recipe: no JSON object but another value");
    json_decref(top.o);
    if (st == LP_OK) st = lp_recipe_check(out, err);
    if (st != LP_OK) lp_recipe_clear(out);
    return st;
}

lp_status lp_recipe_read(lp_recipe *out, const char *path, lp_error *err)
{
    char *text = NULL;
    size_t n = 0;
    *out = (lp_recipe){0};
    LP_TRY(lp_read_file(&text, &n, path, LP_RECIPE_BYTES, err));
    lp_status st = lp_recipe_parse(out, text, n, err);
    free(text);
    return st == LP_OK ? st : lp_prefix(err, st, path);
}

lp_status lp_recipe_find(lp_recipe *out, const char *name, lp_error *err)
{
    char *below = lp_format("steering/%s.json", name), *shipped = NULL;
    bool is_name = !strchr(name, '/') && !lp_is_file(name);
    if (is_name && below) lp_data_path(&shipped, below, NULL);
    lp_status st = lp_recipe_read(out, shipped ? shipped : name, err);
    free(below);
    free(shipped);
    return st;
}

void lp_recipe_fill(lp_recipe *r, const char *source, const lp_labels *l)
{
    for (size_t i = 0; i < r->n_edits; i++) {
        lp_recipe_edit *e = &r->edits[i];
        if (e->unit == LP_RECIPE_MAX_ACT && !(e->max_act > 0) && strcmp(source, e->source) == 0)
            e->max_act = (double)lp_label_max(l, e->index);
    }
}
