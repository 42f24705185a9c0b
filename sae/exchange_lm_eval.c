/* exchange_lm_eval.c - see exchange.h: steering CSVs of lm-evaluation-harness, read and written. */
#include "core/config.h"
#include "sae/csv.h"
#include "sae/exchange_parts.h"
#include "sae/names.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOADER, ACTION, RELEASE, HOOKPOINT, INDEX, COEFFICIENT, HEAD, ID, DESCRIPTION, COLUMNS };

static const char *const columns[COLUMNS] = {"loader",     "action",        "sparse_model",
                                             "hookpoint",  "feature_index", "steering_coefficient",
                                             "head_index", "sae_id",        "description"};

static lp_status no_memory(lp_error *err)
{
    return lp_fail(err, LP_E_MEMORY, "no memory for a steering CSV");
}

/* The modules whose outputs can be written to, by what is there. */
enum { BLOCKS, NORMS, MODULES };
typedef bool hookpoints[MODULES][LP_MAX_LAYERS];

/* False: no module puts this out. */
static bool module_of(int *out, const lp_sae_spot *spot)
{
    *out = spot->site_out == LP_RESID_POST ? BLOCKS : NORMS;
    return (spot->site_out == LP_RESID_POST || spot->site_out == LP_MLP_OUT) && spot->layer_out >= 0 &&
           spot->layer_out < LP_MAX_LAYERS;
}

static void hookpoint_text(char out[64], int module, int layer)
{
    snprintf(out, 64, "layers.%d%s", layer, module == NORMS ? ".post_feedforward_layernorm" : "");
}

/* b_dec . d^, by which a value along d from b_dec differs from one along d from 0. */
static lp_status origin(double *out, const lp_recipe_edit *e, const lp_sae *const *saes, int n_saes, lp_error *err)
{
    const lp_sae *s;
    LP_TRY(lp_exchange_sae(&s, e, saes, n_saes, err));
    float *d = lp_calloc((size_t)s->d_out, sizeof *d);
    if (!d) return no_memory(err);
    lp_sae_decoder_row(s, e->index, d);
    double dot = 0, squares = 0;
    for (int i = 0; i < s->d_out; i++) {
        dot += (double)s->b_dec[i] * (double)d[i];
        squares += (double)d[i] * (double)d[i];
    }
    free(d);
    if (!(squares > 0))
        return lp_fail(err, LP_E_RANGE, "%s #%d: its decoder row is zero: there is no direction to project on",
                       e->source, e->index);
    *out = dot / sqrt(squares);
    return LP_OK;
}

/* ---- from them --------------------------------------------------------------------------------------------------- */

typedef struct reading {
    lp_csv csv;
    int at[COLUMNS]; /* which field; -1: no such column */
    hookpoints taken;
    const lp_sae *const *saes;
    int n_saes;
    lp_recipe *r;
    size_t capacity;
    lp_error *err;
} reading;

static const char *cell(const reading *w, int column)
{
    return w->at[column] < 0 ? "" : w->csv.field[w->at[column]];
}

static lp_status take_header(reading *w)
{
    bool has;
    for (int k = 0; k < COLUMNS; k++) w->at[k] = -1;
    LP_TRY(lp_csv_next(&w->csv, &has, w->err));
    if (!has) return lp_fail(w->err, LP_E_FORMAT, "an empty file: no steering CSV");
    for (int i = 0; i < w->csv.n; i++) {
        const char *name = w->csv.field[i];
        int k = 0;
        while (k < COLUMNS && strcmp(columns[k], name) != 0) k++;
        if (k == COLUMNS && !*name) continue; /* the comma at the end of a line, which theirs have */
        if (k == COLUMNS)
            return lp_fail(w->err, LP_E_FORMAT, "unknown column \"%.60s\"; a steering CSV has none of that name", name);
        if (w->at[k] >= 0) return lp_fail(w->err, LP_E_FORMAT, "the column %s is there twice", name);
        w->at[k] = i;
    }
    static const int needed[] = {LOADER, RELEASE, HOOKPOINT, INDEX, COEFFICIENT, ID};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (w->at[needed[i]] < 0)
            return lp_fail(w->err, LP_E_FORMAT, "no column %s: not a steering CSV of SAEs", columns[needed[i]]);
    return LP_OK;
}

static lp_status wrong(const reading *w, int column, const char *want)
{
    return lp_fail(w->err, LP_E_FORMAT, "line %d: %s is \"%.60s\"; it must be %s", w->csv.line, columns[column],
                   cell(w, column), want);
}

static lp_status take_numbers(const reading *w, lp_recipe_edit *e)
{
    const char *digits = cell(w, INDEX), *value = cell(w, COEFFICIENT);
    char *end;
    long n = *digits >= '0' && *digits <= '9' ? strtol(digits, &end, 10) : -1;
    if (n < 0 || *end || n > INT_MAX) return wrong(w, INDEX, "a feature's number");
    e->index = (int)n;
    e->strength = strtod(value, &end) + 0.0;
    bool is_decimal = *value && strspn(value, "+-.0123456789eE") == strlen(value);
    if (!is_decimal || *end || !isfinite(e->strength)) return wrong(w, COEFFICIENT, "a finite number");
    return LP_OK;
}

/* The SAE is edited where it predicts, and nowhere else. */
static lp_status take_hookpoint(reading *w, const lp_sae_spot *spot)
{
    const char *said = cell(w, HOOKPOINT);
    char own[64];
    int module;
    if (!module_of(&module, spot))
        return lp_fail(w->err, LP_E_UNSUPPORTED,
                       "line %d: \"%.60s\" is read inside attention, which no hookpoint reaches", w->csv.line,
                       cell(w, RELEASE));
    hookpoint_text(own, module, spot->layer_out);
    if (*said && strcmp(said, own) != 0)
        return lp_fail(w->err, LP_E_UNSUPPORTED,
                       "line %d: hookpoint \"%.60s\"; a recipe edits where the SAE predicts, %s", w->csv.line, said,
                       own);
    bool *taken = &w->taken[module][spot->layer_out];
    if (*taken)
        return lp_fail(w->err, LP_E_UNSUPPORTED,
                       "line %d: %s again; lm_eval would keep this row and drop the other: keep one", w->csv.line, own);
    *taken = true;
    return LP_OK;
}

/* The SAE, by both names; its model must be the recipe's. */
static lp_status take_names(reading *w, lp_recipe_edit *e)
{
    lp_sae_names names;
    char where[32];
    snprintf(where, sizeof where, "line %d", w->csv.line);
    lp_status st = lp_sae_names_of_lens(&names, cell(w, RELEASE), cell(w, ID), w->err);
    if (st != LP_OK) return lp_prefix(w->err, st, where);
    st = take_hookpoint(w, &names.spot);
    e->source = names.source, names.source = NULL;
    if (st == LP_OK && w->r->model && strcmp(w->r->model, names.model) != 0)
        st = lp_fail(w->err, LP_E_FORMAT, "line %d: an SAE of %s, but the rows before are of %s", w->csv.line,
                     names.model, w->r->model);
    if (!w->r->model) w->r->model = names.model, names.model = NULL;
    lp_sae_names_clear(&names);
    return st;
}

static lp_status take_row(reading *w)
{
    const char *action = w->at[ACTION] < 0 ? "add" : cell(w, ACTION), *said = cell(w, DESCRIPTION);
    double b = 0;
    if (w->r->n_edits == LP_RECIPE_EDITS)
        return lp_fail(w->err, LP_E_RANGE, "line %d: a recipe holds at most %d edits", w->csv.line,
                       (int)LP_RECIPE_EDITS);
    if (!lp_grow((void **)&w->r->edits, &w->capacity, w->r->n_edits + 1, sizeof *w->r->edits)) return no_memory(w->err);
    lp_recipe_edit *e = &w->r->edits[w->r->n_edits++];
    *e = (lp_recipe_edit){.kind = LP_RECIPE_ADD, .scope = lp_recipe_scope_default()};
    if (strcmp(cell(w, LOADER), "sparsify") == 0)
        return lp_fail(w->err, LP_E_UNSUPPORTED,
                       "line %d: loader sparsify; only rows of the loader sae_lens can be imported", w->csv.line);
    if (strcmp(cell(w, LOADER), "sae_lens") != 0) return wrong(w, LOADER, "sae_lens");
    if (*cell(w, HEAD)) return wrong(w, HEAD, "empty, as lm_eval does not read it");
    if (strcmp(action, "clamp") == 0)
        e->kind = LP_RECIPE_PROJECT;
    else if (strcmp(action, "add") != 0)
        return wrong(w, ACTION, "add or clamp");
    LP_TRY(take_numbers(w, e));
    LP_TRY(take_names(w, e));
    if (e->kind == LP_RECIPE_PROJECT) LP_TRY(origin(&b, e, w->saes, w->n_saes, w->err));
    e->strength += b;
    if (*said && !(e->description = lp_strdup(said))) return no_memory(w->err);
    return LP_OK;
}

static lp_status take_all(reading *w)
{
    bool has = true;
    w->r->scope = lp_exchange_scope();
    LP_TRY(take_header(w));
    for (;;) {
        LP_TRY(lp_csv_next(&w->csv, &has, w->err));
        if (!has) break;
        LP_TRY(take_row(w));
    }
    if (!w->r->n_edits) return lp_fail(w->err, LP_E_FORMAT, "a steering CSV without a row: nothing to steer");
    return lp_recipe_check(w->r, w->err);
}

lp_status lp_recipe_from_lm_eval(lp_recipe *out, const char *text, size_t n, const lp_sae *const *saes, int n_saes,
                                 lp_error *err)
{
    reading w = {.saes = saes, .n_saes = n_saes, .r = out, .err = err};
    *out = (lp_recipe){0};
    if (n > LP_RECIPE_BYTES)
        return lp_fail(err, LP_E_RANGE, "%zu bytes; a steering CSV has at most %d", n, (int)LP_RECIPE_BYTES);
    lp_csv_begin(&w.csv, text, n);
    lp_status st = take_all(&w);
    lp_csv_end(&w.csv);
    if (st != LP_OK) lp_recipe_clear(out);
    return st;
}

/* ---- to them ----------------------------------------------------------------------------------------------------- */

typedef struct writing {
    char *text;
    size_t n, capacity;
    hookpoints taken;
    lp_losses lost;
    const lp_recipe *r;
} writing;

/* The fewest digits that read back as the same number. */
static void number_text(char out[32], double v)
{
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(out, 32, "%.*g", digits, v);
        if (strtod(out, NULL) == v) return;
    }
}

static lp_status put_row(writing *w, const char *const cells[COLUMNS], lp_error *err)
{
    for (int k = 0; k < COLUMNS; k++)
        if (!lp_csv_put(&w->text, &w->n, &w->capacity, cells[k] ? cells[k] : "", k == COLUMNS - 1))
            return no_memory(err);
    return LP_OK;
}

/* The hookpoint of an edit that has one of its own; false: it is lost. */
static bool take_module(writing *w, int *module, const lp_sae_names *names)
{
    const lp_sae_spot *spot = &names->spot;
    bool is_reached = module_of(module, spot);
    if (!is_reached) lp_lose(&w->lost, "edits inside attention (no module puts z out)");
    if (spot->is_coder && strstr(names->source, "__l0-"))
        lp_lose(&w->lost, "transcoders but the canonical ones (SAELens lists no other)");
    if (!is_reached) return false;
    bool *taken = &w->taken[*module][spot->layer_out];
    if (*taken) lp_lose(&w->lost, "two edits at one place (they keep the last row of a hookpoint)");
    *taken = true;
    return true;
}

static lp_status put_edit(writing *w, const lp_recipe_edit *e, const lp_sae *const *saes, int n_saes, lp_error *err)
{
    lp_sae_names names = {0};
    char hookpoint[64], index[16], coefficient[32];
    double amount = 0, b = 0;
    int module = BLOCKS;
    lp_lose_places(&w->lost, w->r, e);
    if (e->kind != LP_RECIPE_ADD && e->kind != LP_RECIPE_PROJECT) {
        char what[80];
        snprintf(what, sizeof what, "every %s (they add and project)", lp_recipe_kind_name(e->kind));
        lp_lose(&w->lost, what);
    } else {
        lp_lose_amount(&w->lost, &amount, e);
    }
    if (!w->r->model) return LP_OK;
    lp_status st = lp_sae_names_of_source(&names, w->r->model, e->source, err);
    if (st == LP_E_UNSUPPORTED) lp_lose(&w->lost, "SAEs that SAELens has no name for (Gemma Scope's have one)");
    if (st != LP_OK) return st == LP_E_UNSUPPORTED ? LP_OK : st;
    if (take_module(w, &module, &names) && !w->lost.text[0]) {
        if (e->kind == LP_RECIPE_PROJECT) st = origin(&b, e, saes, n_saes, err);
        hookpoint_text(hookpoint, module, names.spot.layer_out);
        snprintf(index, sizeof index, "%d", e->index);
        number_text(coefficient, amount - b + 0.0);
        const char *const cells[COLUMNS] = {
            [LOADER] = "sae_lens",     [ACTION] = e->kind == LP_RECIPE_ADD ? "add" : "clamp",
            [RELEASE] = names.release, [HOOKPOINT] = hookpoint,
            [INDEX] = index,           [COEFFICIENT] = coefficient,
            [ID] = names.id,           [DESCRIPTION] = e->description};
        if (st == LP_OK) st = put_row(w, cells, err);
    }
    lp_sae_names_clear(&names);
    return st;
}

lp_status lp_recipe_to_lm_eval(char **out, const lp_recipe *r, const lp_sae *const *saes, int n_saes, lp_error *err)
{
    writing w = {.r = r};
    *out = NULL;
    lp_lose_whole(&w.lost, r);
    if (!r->model) lp_lose(&w.lost, "SAEs of no model: give the recipe a modelId");
    if (!r->n_edits) lp_lose(&w.lost, "a recipe without an edit");
    lp_status st = put_row(&w, columns, err);
    for (size_t i = 0; i < r->n_edits && st == LP_OK; i++) st = put_edit(&w, &r->edits[i], saes, n_saes, err);
    if (st == LP_OK && w.lost.text[0])
        st = lp_fail(err, LP_E_UNSUPPORTED, "lm-evaluation-harness' CSV cannot say %s", w.lost.text);
    if (st == LP_OK)
        *out = w.text;
    else
        free(w.text);
    return st;
}
