/* load_lens.c - SAELens' folders: cfg.json, and sae_weights.safetensors as a file of named arrays.
 *
 * cfg.json of version 6 keeps what the SAE computes at the top and where it reads under "metadata"; before, everything
 * lay flat and some keys had other names (sae_lens/loading/pretrained_sae_loaders.py, handle_pre_6_0_config):
 *
 *     hook_point             hook_name
 *     activation_fn_str      activation_fn; "topk" with activation_fn_kwargs.k makes the architecture topk
 *     normalize_activations  true: expected_average_only_in, false or null: none
 *     apply_b_dec_to_input   missing: true
 *
 * An SAE trained as batchtopk (or its matryoshka) is saved as jumprelu with one threshold for all; a checkpoint that
 * still calls itself so is one if it has its thresholds.
 */
#include "core/quant.h"
#include "core/safetensors.h"
#include "sae/load.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG = 1 << 24 };

/* ---- the weights ------------------------------------------------------------------------------------------------- */

typedef struct weights {
    lp_tensors tensors;
    const lp_tensor *reading;
    uint64_t at; /* bytes of it that are read */
    const char *path;
    unsigned char *raw; /* PIECE elements as stored */
} weights;

enum { PIECE = 1 << 16 };

static bool find(void *self, const char *name, int *n_dims, int64_t *shape, bool *is_fortran)
{
    const weights *w = self;
    const lp_tensor *t = lp_tensors_find(&w->tensors, name);
    if (!t) return false;
    *n_dims = t->n_dims;
    *is_fortran = false;
    memcpy(shape, t->shape, sizeof t->shape);
    return true;
}

static lp_status begin(void *self, const char *name, lp_error *err)
{
    weights *w = self;
    w->reading = lp_tensors_find(&w->tensors, name);
    w->at = 0;
    if (w->reading->type > LP_BF16 && strcmp(w->reading->type_name, "F64") != 0)
        return lp_fail(err, LP_E_UNSUPPORTED, "%s: %s is stored as %s; F64, F32, F16 and BF16 are read", w->path, name,
                       w->reading->type_name);
    return LP_OK;
}

static void convert(const lp_tensor *t, const unsigned char *raw, float *out, size_t n)
{
    if (t->type <= LP_BF16) {
        lp_to_f32(t->type, raw, out, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        double d;
        memcpy(&d, raw + 8 * i, 8);
        out[i] = (float)d;
    }
}

static lp_status read_some(void *self, float *out, size_t n, lp_error *err)
{
    weights *w = self;
    const lp_tensor *t = w->reading;
    size_t element = t->type == LP_F32 ? 4 : t->type <= LP_BF16 ? 2 : 8;
    for (size_t k; n > 0; n -= k, out += k) {
        k = n < PIECE ? n : PIECE;
        LP_TRY(lp_tensors_read(&w->tensors, t, w->at, w->raw, k * element, err));
        w->at += k * element;
        convert(t, w->raw, out, k);
    }
    return LP_OK;
}

static lp_status end(void *self, lp_error *err)
{
    const weights *w = self;
    if (w->at == w->reading->bytes) return LP_OK;
    return lp_fail(err, LP_E_SHAPE, "%s: %s is longer than its shape", w->path, w->reading->name);
}

static lp_status check_scaling(weights *w, lp_error *err)
{
    const lp_tensor *t = lp_tensors_find(&w->tensors, "scaling_factor");
    if (!t) return LP_OK;
    LP_TRY(begin(w, "scaling_factor", err));
    for (int64_t i = 0; t->n_dims == 1 && i < t->shape[0]; i++) {
        float v;
        LP_TRY(read_some(w, &v, 1, err));
        if (v != 1)
            return lp_fail(err, LP_E_UNSUPPORTED, "%s: a scaling_factor other than 1; fold it into W_dec first",
                           w->path);
    }
    return LP_OK;
}

/* ---- cfg.json ---------------------------------------------------------------------------------------------------- */

typedef struct config {
    json_t *root, *meta; /* meta: root itself before version 6 */
    const char *path;
    lp_error *err;
} config;

static const char *text_of(json_t *j, const char *key, const char *old)
{
    json_t *v = json_object_get(j, key);
    if (!v && old) v = json_object_get(j, old);
    return json_string_value(v);
}

static lp_status read_kind(lp_sae *s, const config *c)
{
    const char *arch = text_of(c->root, "architecture", NULL),
               *fn = text_of(c->root, "activation_fn", "activation_fn_str");
    json_t *kwargs = json_object_get(c->root, "activation_fn_kwargs"), *k = json_object_get(c->root, "k");
    if (!k) k = json_object_get(kwargs, "k");
    if (!arch) arch = fn && strcmp(fn, "topk") == 0 ? "topk" : "standard";
    if (fn && strcmp(fn, "topk") == 0 && k && strcmp(arch, "standard") == 0) arch = "topk";
    static const struct {
        const char *name;
        lp_sae_kind kind;
        bool is_coder, has_skip;
    } known[] = {
        {"standard", LP_SAE_STANDARD, false, false},
        {"jumprelu", LP_SAE_JUMPRELU, false, false},
        {"batchtopk", LP_SAE_JUMPRELU, false, false},
        {"matryoshka_batchtopk", LP_SAE_JUMPRELU, false, false},
        {"topk", LP_SAE_TOPK, false, false},
        {"gated", LP_SAE_GATED, false, false},
        {"transcoder", LP_SAE_STANDARD, true, false},
        {"skip_transcoder", LP_SAE_STANDARD, true, true},
        {"jumprelu_transcoder", LP_SAE_JUMPRELU, true, false},
        {"jumprelu_skip_transcoder", LP_SAE_JUMPRELU, true, true},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].name, arch) != 0) continue;
        s->kind = known[i].kind;
        s->spot.is_coder = known[i].is_coder;
        s->has_skip = known[i].has_skip;
        if (s->kind != LP_SAE_TOPK) return LP_OK;
        if (!json_is_integer(k))
            return lp_fail(c->err, LP_E_FORMAT, "%s: a topk SAE without k; as plain relu it would be another SAE",
                           c->path);
        s->k = json_integer_value(k) > INT32_MAX ? 0 : (int)json_integer_value(k);
        return LP_OK;
    }
    return lp_fail(c->err, LP_E_UNSUPPORTED,
                   "%s: architecture \"%.40s\"; standard, jumprelu, topk, gated and transcoders are computed", c->path,
                   arch);
}

static lp_status read_norm(lp_sae *s, const config *c)
{
    json_t *v = json_object_get(c->root, "normalize_activations");
    const char *name = json_string_value(v);
    if (!v || json_is_null(v) || json_is_boolean(v)) name = "none";
    if (!name) name = "?";
    if (strcmp(name, "none") == 0 || strcmp(name, "expected_average_only_in") == 0)
        s->norm = LP_SAE_NORM_NONE;
    else if (strcmp(name, "constant_norm_rescale") == 0)
        s->norm = LP_SAE_NORM_CONSTANT;
    else if (strcmp(name, "layer_norm") == 0)
        s->norm = LP_SAE_NORM_LAYER;
    else
        return lp_fail(c->err, LP_E_UNSUPPORTED, "%s: normalize_activations \"%.40s\" is not known", c->path, name);
    return LP_OK;
}

/* hook_name as TransformerLens spells it; an unknown one leaves the site open for whoever attaches the SAE. */
static lp_status read_spot(lp_sae *s, const config *c)
{
    const char *in = text_of(c->meta, "hook_name", "hook_point"), *out = text_of(c->meta, "hook_name_out", NULL);
    bool is_coder = s->spot.is_coder;
    s->spot = (lp_sae_spot){.site = LP_N_SITES, .site_out = LP_N_SITES, .is_coder = is_coder};
    if (!in) return LP_OK;
    if (json_is_integer(json_object_get(c->meta, "hook_head_index")))
        return lp_fail(c->err, LP_E_UNSUPPORTED, "%s: reads one head alone (hook_head_index); whole sites are read",
                       c->path);
    if (lp_site_parse(in, &s->spot.site, &s->spot.layer, NULL) != LP_OK) s->spot.site = LP_N_SITES;
    s->spot.site_out = s->spot.site, s->spot.layer_out = s->spot.layer;
    if (!is_coder || !out) return LP_OK;
    if (lp_site_parse(out, &s->spot.site_out, &s->spot.layer_out, NULL) != LP_OK) s->spot.site_out = LP_N_SITES;
    return LP_OK;
}

static lp_status read_config(lp_sae *s, const config *c)
{
    json_t *subtracts = json_object_get(c->root, "apply_b_dec_to_input");
    const char *model = text_of(c->meta, "model_name", NULL);
    LP_TRY(read_kind(s, c));
    LP_TRY(read_norm(s, c));
    s->subtracts_bias = !s->spot.is_coder && !json_is_false(subtracts); /* a transcoder's b_dec is on the other side */
    s->rescales = s->kind == LP_SAE_TOPK && json_is_true(json_object_get(c->root, "rescale_acts_by_decoder_norm"));
    if (model && !(s->model_name = lp_strdup(model))) return lp_fail(c->err, LP_E_MEMORY, "%s: out of memory", c->path);
    const char *id = text_of(c->meta, "neuronpedia_id", NULL);
    if (id && strchr(id, '/')) id = strchr(id, '/') + 1; /* "gemma-2-2b/20-gemmascope-res-16k" */
    if (id && !(s->name = lp_strdup(id))) return lp_fail(c->err, LP_E_MEMORY, "%s: out of memory", c->path);
    return read_spot(s, c);
}

static lp_status load_config(lp_sae *s, const char *path, lp_error *err)
{
    char *text = NULL;
    size_t n = 0;
    json_error_t bad;
    LP_TRY(lp_read_file(&text, &n, path, MAX_CONFIG, err));
    config c = {.root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &bad), .path = path, .err = err};
    free(text);
    if (!json_is_object(c.root)) {
        json_decref(c.root);
        return lp_fail(err, LP_E_FORMAT, "%s: not a JSON object (%.80s)", path, c.root ? "another value" : bad.text);
    }
    c.meta = json_object_get(c.root, "metadata");
    if (!json_is_object(c.meta)) c.meta = c.root;
    lp_status st = read_config(s, &c);
    json_decref(c.root);
    return st;
}

lp_status lp_sae_load_lens(lp_sae *s, const char *folder, const lp_sae_options *o, const lp_env *env, lp_error *err)
{
    weights w = {0};
    lp_status st = LP_E_MEMORY;
    char *cfg = lp_path_join(folder, "cfg.json"), *file = lp_path_join(folder, "sae_weights.safetensors");
    w.raw = lp_calloc(PIECE, 8);
    w.path = file;
    if (!cfg || !file || !w.raw) {
        lp_fail(err, st, "%s: out of memory", folder);
        goto out;
    }
    if ((st = load_config(s, cfg, err)) != LP_OK) goto out;
    if ((st = lp_safetensors_open(&w.tensors, file, env, err)) != LP_OK) goto out;
    lp_arrays a = {.self = &w, .path = file, .find = find, .begin = begin, .read = read_some, .end = end};
    if ((st = check_scaling(&w, err)) != LP_OK) goto out;
    st = lp_sae_fill(s, &a, o, env, err);
out:
    lp_tensors_clear(&w.tensors);
    free(w.raw);
    free(file);
    free(cfg);
    return st;
}
