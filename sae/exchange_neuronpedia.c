/* exchange_neuronpedia.c - see exchange.h: Neuronpedia's steer requests, read and written.
 *
 * Their service (apps/inference, SIMPLE_ADDITIVE): h + strength_multiplier strength W_dec[index] at every position of
 * the prompt, the <bos> put in front included, and at every generated one.  The two other methods, ORTHOGONAL_DECOMP
 * and PROJECTION_CAP, scale or cap the projection on the row; neither is one of our kinds, so they are refused by name.
 */
#include "sae/exchange_parts.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- from them --------------------------------------------------------------------------------------------------- */

static lp_status only(json_t *o, const char *const *known, const char *where, lp_error *err)
{
    const char *key;
    json_t *v;
    json_object_foreach(o, key, v)
    {
        const char *const *k = known;
        while (*k && strcmp(*k, key) != 0) k++;
        if (!*k)
            return lp_fail(err, LP_E_FORMAT, "%s: unknown key \"%.60s\"; a steer request has none of that name", where,
                           key);
    }
    return LP_OK;
}

/* A finite number; missing: as it was. */
static lp_status take_number(json_t *o, const char *key, double *out, const char *where, lp_error *err)
{
    json_t *v = json_object_get(o, key);
    if (!v) return LP_OK;
    if (!json_is_number(v)) return lp_fail(err, LP_E_FORMAT, "%s: \"%s\" must be a number", where, key);
    *out = json_number_value(v) + 0.0;
    return LP_OK;
}

/* Their export writes indices as strings, their requests as numbers. */
static bool take_index(json_t *v, int *out)
{
    long long n = json_is_integer(v) ? json_integer_value(v) : -1;
    const char *digits = json_string_value(v);
    char *end;
    if (digits && *digits >= '0' && *digits <= '9') {
        n = strtoll(digits, &end, 10);
        if (*end) n = -1;
    }
    *out = n >= 0 && n <= INT_MAX ? (int)n : -1;
    return *out >= 0;
}

static lp_status take_feature(lp_recipe *r, size_t i, json_t *o, double times, lp_error *err)
{
    static const char *const keys[] = {"modelId", "layer", "index", "strength", "description", NULL};
    lp_recipe_edit *e = &r->edits[i];
    char where[40];
    snprintf(where, sizeof where, "features[%zu]", i);
    if (!json_is_object(o)) return lp_fail(err, LP_E_FORMAT, "%s: must be an object", where);
    LP_TRY(only(o, keys, where, err));
    const char *source = json_string_value(json_object_get(o, "layer")),
               *model = json_string_value(json_object_get(o, "modelId"));
    if (!source) return lp_fail(err, LP_E_FORMAT, "%s: no \"layer\", the id of an SAE", where);
    if (!take_index(json_object_get(o, "index"), &e->index))
        return lp_fail(err, LP_E_FORMAT, "%s: \"index\" must be a feature's number", where);
    if (!json_object_get(o, "strength")) return lp_fail(err, LP_E_FORMAT, "%s: no \"strength\"", where);
    LP_TRY(take_number(o, "strength", &e->strength, where, err));
    e->strength *= times;
    if (!(e->source = lp_strdup(source))) return lp_fail(err, LP_E_MEMORY, "out of memory");
    if (model && !r->model && !(r->model = lp_strdup(model))) return lp_fail(err, LP_E_MEMORY, "out of memory");
    if (model && strcmp(model, r->model) != 0)
        return lp_fail(err, LP_E_FORMAT, "%s: modelId \"%.60s\", but the request is for \"%.60s\"", where, model,
                       r->model);
    return LP_OK;
}

static lp_status take_request(lp_recipe *r, char **prompt, json_t *o, lp_error *err)
{
    static const char *const keys[] = {"prompt", "modelId",     "features", "strength_multiplier", "steer_method",
                                       "seed",   "temperature", "n_tokens", "freq_penalty",        NULL};
    json_t *list = json_object_get(o, "features"), *method = json_object_get(o, "steer_method");
    const char *model = json_string_value(json_object_get(o, "modelId")),
               *said = json_string_value(json_object_get(o, "prompt"));
    double times = 1;
    LP_TRY(only(o, keys, "the request", err));
    if (method && (!json_is_string(method) || strcmp(json_string_value(method), "SIMPLE_ADDITIVE") != 0))
        return lp_fail(err, LP_E_UNSUPPORTED, "steer_method \"%.40s\"; SIMPLE_ADDITIVE is what can be imported",
                       json_is_string(method) ? json_string_value(method) : "?");
    LP_TRY(take_number(o, "strength_multiplier", &times, "the request", err));
    if (!json_is_array(list)) return lp_fail(err, LP_E_FORMAT, "no list of \"features\": not a steer request");
    if (json_array_size(list) > LP_RECIPE_EDITS)
        return lp_fail(err, LP_E_RANGE, "%zu features; a recipe holds at most %d edits", json_array_size(list),
                       (int)LP_RECIPE_EDITS);
    if (model && !(r->model = lp_strdup(model))) return lp_fail(err, LP_E_MEMORY, "out of memory");
    if (!(r->edits = lp_calloc(json_array_size(list) + 1, sizeof *r->edits)))
        return lp_fail(err, LP_E_MEMORY, "out of memory");
    r->n_edits = json_array_size(list);
    r->scope = lp_exchange_scope();
    for (size_t i = 0; i < r->n_edits; i++) LP_TRY(take_feature(r, i, json_array_get(list, i), times, err));
    LP_TRY(lp_recipe_check(r, err));
    if (prompt && said && !(*prompt = lp_strdup(said))) return lp_fail(err, LP_E_MEMORY, "out of memory");
    return LP_OK;
}

lp_status lp_recipe_from_neuronpedia(lp_recipe *out, char **prompt, const char *text, size_t n, lp_error *err)
{
    json_error_t bad;
    *out = (lp_recipe){0};
    if (prompt) *prompt = NULL;
    if (n > LP_RECIPE_BYTES)
        return lp_fail(err, LP_E_RANGE, "%zu bytes; a request has at most %d", n, (int)LP_RECIPE_BYTES);
    json_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, &bad);
    if (!o) return lp_fail(err, LP_E_FORMAT, "not JSON, line %d: %.100s", bad.line, bad.text);
    lp_status st = json_is_object(o) ? take_request(out, prompt, o, err)
                                     : lp_fail(err, LP_E_FORMAT, "not a steer request: no JSON object");
    json_decref(o);
    if (st != LP_OK) lp_recipe_clear(out);
    return st;
}

/* ---- to them ----------------------------------------------------------------------------------------------------- */

static json_t *feature_json(const lp_recipe *r, const lp_recipe_edit *e, lp_losses *lost)
{
    double amount;
    if (e->kind != LP_RECIPE_ADD) {
        char what[80];
        snprintf(what, sizeof what, "every %s (they only add)", lp_recipe_kind_name(e->kind));
        lp_lose(lost, what);
        return NULL;
    }
    if (!lp_lose_amount(lost, &amount, e)) return NULL;
    lp_lose_places(lost, r, e);
    json_t *o = json_object();
    int bad = r->model ? json_object_set_new(o, "modelId", json_string(r->model)) : 0;
    bad |= json_object_set_new(o, "layer", json_string(e->source));
    bad |= json_object_set_new(o, "index", json_integer(e->index));
    bad |= json_object_set_new(o, "strength", json_real(amount));
    if (!bad) return o;
    json_decref(o);
    return NULL;
}

lp_status lp_recipe_to_neuronpedia(char **out, const lp_recipe *r, lp_error *err)
{
    lp_losses lost = {""};
    json_t *o = json_object(), *list = json_array();
    *out = NULL;
    lp_lose_whole(&lost, r);
    if (!r->model) lp_lose(&lost, "nothing, but there is no modelId and they want one");
    for (size_t i = 0; i < r->n_edits; i++) {
        json_t *f = feature_json(r, &r->edits[i], &lost);
        if (f) json_array_append_new(list, f);
    }
    bool is_empty = json_array_size(list) == 0;
    int bad = r->model ? json_object_set_new(o, "modelId", json_string(r->model)) : 0;
    bad |= json_object_set_new(o, "features", list);
    bad |= json_object_set_new(o, "strength_multiplier", json_integer(1));
    bad |= json_object_set_new(o, "steer_method", json_string("SIMPLE_ADDITIVE"));
    if (!bad && !is_empty) *out = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    json_decref(o);
    if (bad || (!is_empty && !*out)) return lp_fail(err, LP_E_MEMORY, "no memory for a steer request");
    if (is_empty && !lost.text[0]) lp_lose(&lost, "nothing, but there is nothing to add either");
    return lost.text[0] ? lp_fail(err, LP_E_UNSUPPORTED, "Neuronpedia's steer request loses %s", lost.text) : LP_OK;
}
