/* run_write.c - see run.h: a run as a file.
 *
 * Each part of the run is a line of the file, however long: lists of ids would otherwise be a line per token.  Numbers
 * have 17 significant digits, which name one double and no other (C17 5.2.4.2.2, DBL_DECIMAL_DIG).
 *
 * JSON is UTF-8 and paths need not be: a run with such a name is refused, since it could not be found again by it.
 */
#include "core/outfile.h"
#include "sae/run.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 1 };

static const char *const arithmetics[] = {"exact", "fast"}, *const scales[] = {"f32", "bf16"},
                         *const orders[] = {"hf", "llama.cpp"};

/* ---- values ------------------------------------------------------------------------------------------------------ */

static json_t *number(double v)
{
    if (isnan(v)) return json_null();
    return isinf(v) ? json_string(v > 0 ? "inf" : "-inf") : json_real(v);
}

static json_t *text_or_null(const char *s)
{
    return s && s[0] ? json_string(s) : json_null();
}

static json_t *id_list(const int *ids, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++)
        if (json_array_append_new(list, json_integer(ids[i])) != 0) list = (json_decref(list), NULL);
    return list;
}

/* Positions of the template's tokens. */
static json_t *template_json(const lp_run *r)
{
    if (!r->is_template) return json_null();
    json_t *list = json_array();
    for (size_t i = 0; list && i < r->n_prompt; i++)
        if (r->is_template[i] && json_array_append_new(list, json_integer((json_int_t)i)) != 0)
            list = (json_decref(list), NULL);
    return list;
}

static json_t *sampling_json(const lp_run *r)
{
    const lp_sample_options *s = &r->sample;
    char seed[24];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)s->seed);
    json_t *bias = json_array();
    for (int i = 0; bias && i < s->n_bias; i++)
        if (json_array_append_new(
                bias, json_pack("{s:i,s:o}", "id", r->bias[i].id, "add", number((double)r->bias[i].add))) != 0)
            bias = (json_decref(bias), NULL);
    return json_pack("{s:o,s:i,s:o,s:o,s:o,s:o,s:o,s:i,s:s,s:s,s:o}", "temperature", number(s->temperature), "top_k",
                     s->top_k, "top_p", number(s->top_p), "min_p", number(s->min_p), "repetition",
                     number(s->repetition), "presence", number(s->presence), "frequency", number(s->frequency),
                     "penalty_window", s->penalty_window, "order", orders[s->order == LP_ORDER_LLAMA], "seed", seed,
                     "bias", bias);
}

static json_t *stop_json(const lp_run *r)
{
    const lp_generate_options *g = &r->generate;
    json_t *texts = json_array();
    for (int i = 0; texts && i < g->n_stop; i++)
        if (json_array_append_new(texts, json_string(r->stop[i])) != 0) texts = (json_decref(texts), NULL);
    return json_pack("{s:i,s:o,s:o,s:b,s:b}", "max_tokens", g->max_tokens, "texts", texts, "ids",
                     id_list(r->stop_ids, (size_t)g->n_stop_ids), "ignore_eos", g->ignore_eos != 0, "show_specials",
                     g->show_specials != 0);
}

static json_t *saes_json(const lp_run *r)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < r->n_saes; i++) {
        const lp_run_sae *s = &r->saes[i];
        json_t *j = json_pack("{s:s,s:s,s:s}", "name", s->name, "hash", s->hash, "type", scales[s->type == LP_BF16]);
        if (json_array_append_new(list, j) != 0) list = (json_decref(list), NULL);
    }
    return list;
}

static json_t *recipe_json(const lp_run *r)
{
    char *text = NULL;
    if (!r->has_recipe) return json_null();
    json_t *j = lp_recipe_text(&text, &r->recipe, NULL) == LP_OK ? json_loads(text, 0, NULL) : NULL;
    free(text);
    return j;
}

static json_t *readings_json(const lp_run *r)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < r->n_readings; i++) {
        const lp_steer_reading *a = &r->readings[i];
        json_t *j = json_pack("{s:i,s:i,s:o,s:o,s:o,s:s}", "pos", a->pos, "edit", a->edit, "asked",
                              number((double)a->asked), "before", number((double)a->before), "achieved",
                              number((double)a->achieved), "status", lp_steer_status_name(a->status));
        if (json_array_append_new(list, j) != 0) list = (json_decref(list), NULL);
    }
    return list;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

/* Takes the value; NULL, which every failure above comes to, is remembered in *bad. */
static void put(json_t *top, const char *key, json_t *v, int *bad)
{
    *bad |= json_object_set_new(top, key, v) != 0;
}

static json_t *run_json(const lp_run *r)
{
    int bad = 0;
    json_t *j = json_object();
    put(j, "format", json_string("lapidary-run"), &bad);
    put(j, "version", json_integer(VERSION), &bad);
    put(j, "model", json_pack("{s:s,s:s,s:i}", "name", r->model, "hash", r->model_hash, "vocab", r->vocab), &bad);
    put(j, "tokenizer", text_or_null(r->tokenizer_hash), &bad);
    put(j, "session",
        json_pack("{s:s,s:s,s:s,s:i}", "arithmetic", arithmetics[r->session.arithmetic == LP_FAST], "kernels",
                  r->kernels, "embed_scale", scales[r->session.bf16_embed_scale != 0], "n_ctx", r->session.n_ctx),
        &bad);
    put(j, "saes", saes_json(r), &bad);
    put(j, "sae_site", text_or_null(r->sae_site), &bad);
    put(j, "recipe", recipe_json(r), &bad);
    put(j, "recipe_hash", text_or_null(r->recipe_hash), &bad);
    put(j, "prompt", id_list(r->prompt, r->n_prompt), &bad);
    put(j, "template", template_json(r), &bad);
    put(j, "sampling", sampling_json(r), &bad);
    put(j, "stop", stop_json(r), &bad);
    put(j, "ids", id_list(r->ids, r->n_ids), &bad);
    put(j, "finish", json_string(lp_finish_name(r->finish)), &bad);
    put(j, "logits", text_or_null(r->logits_hash), &bad);
    put(j, "readback", readings_json(r), &bad);
    if (!bad) return j;
    json_decref(j);
    return NULL;
}

static lp_status write_line(lp_outfile *f, const char *before, const char *key, const json_t *v, lp_error *err)
{
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17)), head[64];
    if (!text) return lp_fail(err, LP_E_MEMORY, "a run: out of memory");
    snprintf(head, sizeof head, "%s\n \"%s\": ", before, key);
    lp_status st = lp_outfile_write(f, head, strlen(head), err);
    if (st == LP_OK) st = lp_outfile_write(f, text, strlen(text), err);
    free(text);
    return st;
}

lp_status lp_run_write(const lp_run *r, const char *path, lp_error *err)
{
    lp_outfile f = {.fd = -1};
    const char *key, *before = "{";
    json_t *v;
    if (r->finish < LP_FINISH_TOKEN || r->finish > LP_FINISH_CONTEXT)
        return lp_fail(err, LP_E_UNSUPPORTED, "%s: the run ended as \"%s\", and nobody could stop it there again", path,
                       lp_finish_name(r->finish));
    json_t *j = run_json(r);
    if (!j) return lp_fail(err, LP_E_FORMAT, "%s: a name or stop text of the run is no UTF-8, or no memory", path);
    lp_status st = lp_outfile_open(&f, path, err);
    json_object_foreach(j, key, v)
    {
        if (st == LP_OK) st = write_line(&f, before, key, v, err);
        before = ",";
    }
    if (st == LP_OK) st = lp_outfile_write(&f, "\n}\n", 3, err);
    if (st == LP_OK) st = lp_outfile_end(&f, err);
    lp_outfile_close(&f);
    json_decref(j);
    return st;
}
