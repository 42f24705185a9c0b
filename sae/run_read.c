/* run_read.c - see run.h: reading a run.
 *
 * Nothing may be missing: a default filled in silently would be another run.  Keys of later writers are passed over, as
 * what would change a number also changes the version.  A file with more values than a run can have is refused by
 * counting its commas, before a tree of it is built.
 */
#include "sae/run.h"

#include <errno.h>
#include <float.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_VALUES = 4 << 20, VERSION = 1 };

static const char *const arithmetics[] = {"exact", "fast"}, *const scales[] = {"f32", "bf16"},
                         *const orders[] = {"hf", "llama.cpp"};

/* ---- taking values ----------------------------------------------------------------------------------------------- */

/* One object being read, and what to call it. */
typedef struct place {
    json_t *o;
    char where[40];
    lp_error *err;
} place;

static lp_status wrong(const place *p, const char *key, const char *want)
{
    return lp_fail(p->err, LP_E_FORMAT, "%s: \"%s\" must be %s", p->where, key, want);
}

static lp_status no_memory(const place *p)
{
    return lp_fail(p->err, LP_E_MEMORY, "%s: out of memory", p->where);
}

static lp_status take_int(const place *p, const char *key, int below, int *out)
{
    json_t *v = json_object_get(p->o, key);
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= below)
        return lp_fail(p->err, LP_E_FORMAT, "%s: \"%s\" must be a whole number from 0 to %d", p->where, key, below - 1);
    *out = (int)json_integer_value(v);
    return LP_OK;
}

static lp_status take_number(const place *p, const char *key, double *out)
{
    json_t *v = json_object_get(p->o, key);
    const char *word = json_is_string(v) ? json_string_value(v) : "";
    bool is_below = strcmp(word, "-inf") == 0, is_above = strcmp(word, "inf") == 0;
    *out = is_below ? -HUGE_VAL : is_above ? HUGE_VAL : json_is_null(v) ? (double)NAN : json_number_value(v);
    if (json_is_number(v) || json_is_null(v) || is_below || is_above) return LP_OK;
    return wrong(p, key, "a number, \"inf\", \"-inf\" or null");
}

static lp_status take_float(const place *p, const char *key, float *out)
{
    double v;
    LP_TRY(take_number(p, key, &v));
    if (isfinite(v) && fabs(v) > (double)FLT_MAX) return wrong(p, key, "a number that a float can hold");
    *out = (float)v;
    return LP_OK;
}

static lp_status take_bool(const place *p, const char *key, int *out)
{
    json_t *v = json_object_get(p->o, key);
    if (!json_is_boolean(v)) return wrong(p, key, "true or false");
    *out = json_is_true(v);
    return LP_OK;
}

static lp_status take_text(const place *p, const char *key, char **out)
{
    json_t *v = json_object_get(p->o, key);
    if (!json_is_string(v)) return wrong(p, key, "a string");
    return (*out = lp_strdup(json_string_value(v))) ? LP_OK : no_memory(p);
}

static bool is_null(const place *p, const char *key)
{
    return json_is_null(json_object_get(p->o, key));
}

static lp_status take_hash(const place *p, const char *key, char out[33])
{
    json_t *v = json_object_get(p->o, key);
    const char *s = json_is_string(v) ? json_string_value(v) : "";
    if (strlen(s) != 32 || strspn(s, "0123456789abcdef") != 32) return wrong(p, key, "a hash: 32 hexadecimal digits");
    memcpy(out, s, 33);
    return LP_OK;
}

static lp_status take_word(const place *p, const char *key, const char *const words[2], int *out)
{
    const char *s = json_string_value(json_object_get(p->o, key));
    for (*out = 0; *out < 2; ++*out)
        if (s && strcmp(s, words[*out]) == 0) return LP_OK;
    return lp_fail(p->err, LP_E_FORMAT, "%s: \"%s\" must be \"%s\" or \"%s\"", p->where, key, words[0], words[1]);
}

static lp_status enter(place *in, const place *p, const char *key)
{
    *in = (place){.o = json_object_get(p->o, key), .err = p->err};
    snprintf(in->where, sizeof in->where, "%s", key);
    return json_is_object(in->o) ? LP_OK : wrong(p, key, "an object");
}

static lp_status enter_item(place *in, const place *p, const char *key, size_t i)
{
    *in = (place){.o = json_array_get(json_object_get(p->o, key), i), .err = p->err};
    snprintf(in->where, sizeof in->where, "%s[%zu]", key, i);
    return json_is_object(in->o) ? LP_OK : lp_fail(p->err, LP_E_FORMAT, "%s: must be an object", in->where);
}

/* A list's length, at most `most`. */
static lp_status take_length(const place *p, const char *key, size_t most, size_t *n)
{
    json_t *v = json_object_get(p->o, key);
    *n = json_array_size(v);
    if (!json_is_array(v)) return wrong(p, key, "a list");
    if (*n <= most) return LP_OK;
    return lp_fail(p->err, LP_E_FORMAT, "%s: \"%s\" has %zu entries; at most %zu are read", p->where, key, *n, most);
}

static lp_status take_ids(const place *p, const char *key, int vocab, size_t most, int **out, size_t *n_out)
{
    size_t n;
    LP_TRY(take_length(p, key, most, &n));
    if (!(*out = lp_calloc(n ? n : 1, sizeof **out))) return no_memory(p);
    *n_out = n;
    for (size_t i = 0; i < n; i++) {
        json_t *v = json_array_get(json_object_get(p->o, key), i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= vocab)
            return lp_fail(p->err, LP_E_FORMAT, "%s: %s[%zu] must be a whole number from 0 to %d", p->where, key, i,
                           vocab - 1);
        (*out)[i] = (int)json_integer_value(v);
    }
    return LP_OK;
}

/* ---- the parts of a run ------------------------------------------------------------------------------------------ */

static lp_status take_model(const place *p, lp_run *r)
{
    place in;
    LP_TRY(enter(&in, p, "model"));
    LP_TRY(take_text(&in, "name", &r->model));
    LP_TRY(take_hash(&in, "hash", r->model_hash));
    LP_TRY(take_int(&in, "vocab", INT_MAX, &r->vocab));
    return is_null(p, "tokenizer") ? LP_OK : take_hash(p, "tokenizer", r->tokenizer_hash);
}

static lp_status take_session(const place *p, lp_run *r)
{
    place in;
    int arithmetic;
    LP_TRY(enter(&in, p, "session"));
    LP_TRY(take_word(&in, "arithmetic", arithmetics, &arithmetic));
    LP_TRY(take_word(&in, "embed_scale", scales, &r->session.bf16_embed_scale));
    LP_TRY(take_text(&in, "kernels", &r->kernels));
    r->session.arithmetic = arithmetic ? LP_FAST : LP_EXACT;
    return take_int(&in, "n_ctx", INT_MAX, &r->session.n_ctx);
}

static lp_status take_saes(const place *p, lp_run *r)
{
    size_t n;
    place in;
    int type;
    LP_TRY(take_length(p, "saes", LP_RUN_LIST, &n));
    if (!(r->saes = lp_calloc(n + 1, sizeof *r->saes))) return no_memory(p);
    while (r->n_saes < n) {
        LP_TRY(enter_item(&in, p, "saes", r->n_saes));
        lp_run_sae *s = &r->saes[r->n_saes++];
        LP_TRY(take_text(&in, "name", &s->name));
        LP_TRY(take_hash(&in, "hash", s->hash));
        LP_TRY(take_word(&in, "type", scales, &type));
        s->type = type ? LP_BF16 : LP_F32;
    }
    return is_null(p, "sae_site") ? LP_OK : take_text(p, "sae_site", &r->sae_site);
}

static lp_status take_recipe(const place *p, lp_run *r)
{
    if (is_null(p, "recipe")) return LP_OK;
    LP_TRY(take_hash(p, "recipe_hash", r->recipe_hash));
    char *text = json_dumps(json_object_get(p->o, "recipe"), JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    if (!text) return wrong(p, "recipe", "an object, or null");
    lp_status st = lp_recipe_parse(&r->recipe, text, strlen(text), p->err);
    free(text);
    r->has_recipe = st == LP_OK;
    return st == LP_OK ? st : lp_prefix(p->err, st, "recipe");
}

static lp_status take_prompt(const place *p, lp_run *r)
{
    int *at = NULL;
    size_t n = 0;
    LP_TRY(take_ids(p, "prompt", r->vocab, LP_RUN_IDS, &r->prompt, &r->n_prompt));
    if (!r->n_prompt) return wrong(p, "prompt", "a list of token ids, not empty");
    if (is_null(p, "template")) return LP_OK;
    lp_status st = take_ids(p, "template", (int)r->n_prompt, r->n_prompt, &at, &n);
    if (st == LP_OK && !(r->is_template = lp_calloc(r->n_prompt, 1))) st = no_memory(p);
    for (size_t i = 0; st == LP_OK && i < n; i++) r->is_template[at[i]] = 1;
    free(at);
    return st;
}

static lp_status take_seed(const place *p, uint64_t *seed)
{
    const char *s = json_string_value(json_object_get(p->o, "seed"));
    char *end = NULL;
    errno = 0;
    if (s && s[0] >= '0' && s[0] <= '9') *seed = strtoull(s, &end, 10);
    return end && !*end && !errno ? LP_OK : wrong(p, "seed", "a whole number of 64 bits, as a string");
}

static lp_status take_bias(const place *p, lp_run *r)
{
    size_t n;
    place in;
    LP_TRY(take_length(p, "bias", LP_RUN_LIST, &n));
    if (!(r->bias = lp_calloc(n + 1, sizeof *r->bias))) return no_memory(p);
    r->sample.bias = r->bias;
    r->sample.n_bias = (int)n;
    for (size_t i = 0; i < n; i++) {
        LP_TRY(enter_item(&in, p, "bias", i));
        LP_TRY(take_int(&in, "id", r->vocab, &r->bias[i].id));
        LP_TRY(take_float(&in, "add", &r->bias[i].add));
    }
    return LP_OK;
}

static lp_status take_sampling(const place *p, lp_run *r)
{
    lp_sample_options *s = &r->sample;
    place in;
    int order;
    LP_TRY(enter(&in, p, "sampling"));
    LP_TRY(take_number(&in, "temperature", &s->temperature));
    LP_TRY(take_int(&in, "top_k", INT_MAX, &s->top_k));
    LP_TRY(take_number(&in, "top_p", &s->top_p));
    LP_TRY(take_number(&in, "min_p", &s->min_p));
    LP_TRY(take_number(&in, "repetition", &s->repetition));
    LP_TRY(take_number(&in, "presence", &s->presence));
    LP_TRY(take_number(&in, "frequency", &s->frequency));
    LP_TRY(take_int(&in, "penalty_window", INT_MAX, &s->penalty_window));
    LP_TRY(take_word(&in, "order", orders, &order));
    LP_TRY(take_seed(&in, &s->seed));
    s->order = order ? LP_ORDER_LLAMA : LP_ORDER_HF;
    return take_bias(&in, r);
}

static lp_status take_stop(const place *p, lp_run *r)
{
    lp_generate_options *g = &r->generate;
    place in;
    size_t n, n_ids;
    LP_TRY(enter(&in, p, "stop"));
    LP_TRY(take_int(&in, "max_tokens", INT_MAX, &g->max_tokens));
    LP_TRY(take_bool(&in, "ignore_eos", &g->ignore_eos));
    LP_TRY(take_bool(&in, "show_specials", &g->show_specials));
    LP_TRY(take_ids(&in, "ids", r->vocab, LP_RUN_LIST, &r->stop_ids, &n_ids));
    g->stop_ids = r->stop_ids, g->n_stop_ids = (int)n_ids;
    LP_TRY(take_length(&in, "texts", LP_RUN_LIST, &n));
    if (!(r->stop = lp_calloc(n + 1, sizeof *r->stop))) return no_memory(p);
    g->stop = (const char *const *)r->stop, g->n_stop = (int)n;
    for (size_t i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(json_object_get(in.o, "texts"), i));
        if (!text || !*text) return wrong(&in, "texts", "a list of strings, none of them empty");
        if (!(r->stop[i] = lp_strdup(text))) return no_memory(p);
    }
    return LP_OK;
}

/* ---- what came out ----------------------------------------------------------------------------------------------- */

static lp_status take_finish(const place *p, lp_run *r)
{
    const char *s = json_string_value(json_object_get(p->o, "finish"));
    for (int f = LP_FINISH_TOKEN; s && f <= LP_FINISH_CONTEXT; f++) {
        r->finish = (lp_finish)f;
        if (strcmp(s, lp_finish_name(r->finish)) == 0) return LP_OK;
    }
    return wrong(p, "finish", "stop_token, stop_string, length or context");
}

static lp_status take_reading(const place *p, size_t n_edits, lp_steer_reading *a)
{
    const char *s = json_string_value(json_object_get(p->o, "status"));
    LP_TRY(take_int(p, "pos", 2 * LP_RUN_IDS, &a->pos));
    LP_TRY(take_int(p, "edit", (int)n_edits, &a->edit));
    LP_TRY(take_float(p, "asked", &a->asked));
    LP_TRY(take_float(p, "before", &a->before));
    LP_TRY(take_float(p, "achieved", &a->achieved));
    for (int i = LP_STEER_PLAIN; s && i <= LP_STEER_NOT_LINEAR; i++) {
        a->status = (lp_steer_status)i;
        if (strcmp(s, lp_steer_status_name(a->status)) == 0) return LP_OK;
    }
    return wrong(p, "status", "plain, reached, missed, ...: what steering came to");
}

static lp_status take_readback(const place *p, lp_run *r)
{
    place in;
    size_t n;
    LP_TRY(take_length(p, "readback", r->recipe.n_edits ? LP_RUN_READINGS : 0, &n));
    if (!(r->readings = lp_calloc(n ? n : 1, sizeof *r->readings))) return no_memory(p);
    r->n_readings = n;
    for (size_t i = 0; i < n; i++) {
        LP_TRY(enter_item(&in, p, "readback", i));
        LP_TRY(take_reading(&in, r->recipe.n_edits, &r->readings[i]));
    }
    return LP_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static lp_status take_format(const place *p)
{
    const char *format = json_string_value(json_object_get(p->o, "format"));
    json_t *version = json_object_get(p->o, "version");
    if (!format || strcmp(format, "lapidary-run") != 0)
        return lp_fail(p->err, LP_E_FORMAT, "not a run: \"format\" must be \"lapidary-run\"");
    if (!json_is_integer(version) || json_integer_value(version) < 1) return wrong(p, "version", "1");
    if (json_integer_value(version) == VERSION) return LP_OK;
    return lp_fail(p->err, LP_E_UNSUPPORTED, "a run of version %lld; this program reads version %d: take a newer one",
                   (long long)json_integer_value(version), VERSION);
}

static lp_status take_run(const place *p, lp_run *r)
{
    LP_TRY(take_format(p));
    LP_TRY(take_model(p, r));
    LP_TRY(take_session(p, r));
    LP_TRY(take_saes(p, r));
    LP_TRY(take_recipe(p, r));
    LP_TRY(take_prompt(p, r));
    LP_TRY(take_sampling(p, r));
    LP_TRY(take_stop(p, r));
    LP_TRY(take_ids(p, "ids", r->vocab, LP_RUN_IDS, &r->ids, &r->n_ids));
    LP_TRY(take_finish(p, r));
    if (!is_null(p, "logits")) LP_TRY(take_hash(p, "logits", r->logits_hash));
    return take_readback(p, r);
}

static size_t count_commas(const char *text, size_t n)
{
    size_t found = 0;
    for (size_t i = 0; i < n; i++) found += text[i] == ',';
    return found;
}

lp_status lp_run_parse(lp_run *out, const char *text, size_t n, lp_error *err)
{
    json_error_t bad;
    *out = (lp_run){0};
    if (n > LP_RUN_BYTES) return lp_fail(err, LP_E_RANGE, "%zu bytes; a run has at most %d", n, (int)LP_RUN_BYTES);
    if (count_commas(text, n) > MAX_VALUES)
        return lp_fail(err, LP_E_RANGE, "more than %d values; that is no run", (int)MAX_VALUES);
    place top = {.o = json_loadb(text, n, JSON_REJECT_DUPLICATES, &bad), .where = "the run", .err = err};
    if (!top.o) return lp_fail(err, LP_E_FORMAT, "not JSON, line %d: %.100s", bad.line, bad.text);
    lp_status st = json_is_object(top.o) ? take_run(&top, out) : lp_fail(err, LP_E_FORMAT, "not a run: no JSON object");
    json_decref(top.o);
    if (st != LP_OK) lp_run_clear(out);
    return st;
}

lp_status lp_run_read(lp_run *out, const char *path, lp_error *err)
{
    char *text = NULL;
    size_t n = 0;
    *out = (lp_run){0};
    LP_TRY(lp_read_file(&text, &n, path, LP_RUN_BYTES, err));
    lp_status st = lp_run_parse(out, text, n, err);
    free(text);
    return st == LP_OK ? st : lp_prefix(err, st, path);
}
