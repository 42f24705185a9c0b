/* config.c - see config.h.
 *
 * Spellings met in the wild: rope_theta (to 2025) or rope_parameters {rope_theta, rope_type} (transformers 5);
 * layer_types, or nothing (then even layers slide: transformers 4.42.4 and later, gemma_pytorch, gemma.cpp, llama.cpp);
 * hidden_act and hidden_activation, of which the second wins, and "gelu" in the first means the tanh form all the same.
 * A key whose value decides the shape must be there; the rest has the defaults of Hugging Face's Gemma2Config.
 */
#include "core/config.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

/* ---- checks shared by both containers ---------------------------------------------------------------------------- */

typedef struct bound {
    const char *name;
    int value, least, most;
} bound;

lp_status lp_config_check(const lp_config *c, lp_error *err)
{
    const bound bounds[] = {
        {"layers", c->n_layers, 1, LP_MAX_LAYERS},
        {"d_model", c->d_model, 2, 1 << 16},
        {"heads", c->n_heads, 1, 1024},
        {"key/value heads", c->n_kv_heads, 1, 1024},
        {"head_dim", c->head_dim, 2, 4096},
        {"d_ff", c->d_ff, 2, 1 << 20},
        {"vocabulary size", c->vocab, 1, 1 << 21},
        {"positions", c->max_positions, 1, 1 << 20},
        {"sliding window", c->window, 1, INT32_MAX},
    };
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
        if (bounds[i].value < bounds[i].least || bounds[i].value > bounds[i].most)
            return lp_fail(err, LP_E_FORMAT, "%s is %d, expected %d to %d", bounds[i].name, bounds[i].value,
                           bounds[i].least, bounds[i].most);
    if (c->n_heads % c->n_kv_heads)
        return lp_fail(err, LP_E_FORMAT, "%d heads cannot share %d key/value heads evenly", c->n_heads, c->n_kv_heads);
    if (c->head_dim % 2)
        return lp_fail(err, LP_E_FORMAT, "head_dim is %d; rotary halves need an even one", c->head_dim);
    if (!(c->rope_theta > 1) || !isfinite(c->rope_theta))
        return lp_fail(err, LP_E_FORMAT, "rope_theta is %g, expected a number above 1", c->rope_theta);
    if (!(c->rms_eps > 0 && c->rms_eps < 1))
        return lp_fail(err, LP_E_FORMAT, "rms_norm_eps is %g, expected a small positive number", c->rms_eps);
    if (!(c->query_pre_attn_scalar > 0) || !isfinite(c->query_pre_attn_scalar))
        return lp_fail(err, LP_E_FORMAT, "query_pre_attn_scalar is %g, expected a positive number",
                       c->query_pre_attn_scalar);
    if (!(c->attn_softcap >= 0) || !isfinite(c->attn_softcap) || !(c->final_softcap >= 0) ||
        !isfinite(c->final_softcap))
        return lp_fail(err, LP_E_FORMAT, "soft-caps are %g and %g, expected positive numbers", c->attn_softcap,
                       c->final_softcap);
    return LP_OK;
}

/* 9B was released with 224 = 3584/16 and corrected to head_dim on 12 Jul 2024; many copies still say 224. */
static void warn_quirks(const lp_config *c, const lp_env *env)
{
    if (c->n_layers == 42 && c->d_model == 3584 && fabs(c->query_pre_attn_scalar - 224) < 0.5)
        lp_log(env, LP_WARN,
               "query_pre_attn_scalar is 224: this copy of 9B predates the correction to 256; obeying the file "
               "(set it to 256 in config.json to follow Google)");
}

static void set_even_layers_sliding(lp_config *c)
{
    for (int l = 0; l < c->n_layers && l < LP_MAX_LAYERS; l++) c->sliding[l] = l % 2 == 0;
}

/* ---- config.json ---------------------------------------------------------------------------------------------------
 */

static bool absent(const json_t *v)
{
    return !v || json_is_null(v);
}

static lp_status take_int(int *out, const json_t *root, const char *key, lp_error *err)
{
    const json_t *v = json_object_get(root, key);
    if (absent(v)) return lp_fail(err, LP_E_FORMAT, "config.json: \"%s\" is missing", key);
    json_int_t i = json_integer_value(v);
    if (!json_is_integer(v) || i < INT32_MIN || i > INT32_MAX)
        return lp_fail(err, LP_E_FORMAT, "config.json: \"%s\" is not a whole number", key);
    *out = (int)i;
    return LP_OK;
}

static lp_status take_int_or(int *out, int otherwise, const json_t *root, const char *key, lp_error *err)
{
    *out = otherwise;
    return json_object_get(root, key) ? take_int(out, root, key, err) : LP_OK;
}

/* null means "none" for the soft-caps: 0. */
static lp_status take_number_or(double *out, double otherwise, const json_t *root, const char *key, lp_error *err)
{
    const json_t *v = json_object_get(root, key);
    *out = !v ? otherwise : json_is_null(v) ? 0 : json_number_value(v);
    if (v && !json_is_null(v) && !json_is_number(v))
        return lp_fail(err, LP_E_FORMAT, "config.json: \"%s\" is not a number", key);
    return LP_OK;
}

static const char *text_of(const json_t *root, const char *key)
{
    const char *s = json_string_value(json_object_get(root, key));
    return s ? s : "";
}

static lp_status refuse_strangers(const json_t *root, lp_error *err)
{
    const char *type = text_of(root, "model_type");
    const char *arch = json_string_value(json_array_get(json_object_get(root, "architectures"), 0));
    if (strcmp(type, "gemma2") != 0)
        return lp_fail(err, LP_E_UNSUPPORTED, "this is a \"%s\" model (%s), not Gemma 2 (\"gemma2\")",
                       *type ? type : "?", arch ? arch : "architecture not named");
    if (arch && strcmp(arch, "Gemma2ForCausalLM") != 0 && strcmp(arch, "Gemma2Model") != 0)
        return lp_fail(err, LP_E_UNSUPPORTED, "this is a %s: only the language model (Gemma2ForCausalLM) can be run",
                       arch);
    const json_t *quant = json_object_get(root, "quantization_config");
    if (!absent(quant))
        return lp_fail(err, LP_E_UNSUPPORTED, "these weights are quantised with \"%s\"; use the original or a GGUF",
                       text_of(quant, "quant_method"));
    if (json_is_true(json_object_get(root, "attention_bias")))
        return lp_fail(err, LP_E_UNSUPPORTED, "attention_bias is true; no Gemma 2 has biases");
    if (json_is_true(json_object_get(root, "use_bidirectional_attention")))
        return lp_fail(err, LP_E_UNSUPPORTED, "use_bidirectional_attention is true; only causal models can be run");
    const json_t *act = json_object_get(root, "hidden_activation");
    const char *name = absent(act) ? text_of(root, "hidden_act") : text_of(root, "hidden_activation");
    if (*name && strcmp(name, "gelu_pytorch_tanh") != 0 && (!absent(act) || strcmp(name, "gelu") != 0))
        return lp_fail(err, LP_E_UNSUPPORTED, "activation \"%s\"; Gemma 2 has gelu_pytorch_tanh", name);
    return LP_OK;
}

static lp_status take_rope(lp_config *c, const json_t *root, lp_error *err)
{
    const json_t *rope = json_object_get(root, "rope_parameters");
    if (absent(rope)) rope = json_object_get(root, "rope_scaling");
    const char *type = absent(rope) ? "" : text_of(rope, "rope_type");
    if (*type && strcmp(type, "default") != 0)
        return lp_fail(err, LP_E_UNSUPPORTED, "rotary embedding of type \"%s\"; Gemma 2 has the default one", type);
    if (!absent(rope) && !json_object_get(rope, "rope_theta") && json_object_size(rope) && !*type)
        return lp_fail(err, LP_E_UNSUPPORTED, "rope_parameters without a rope_theta");
    const json_t *home = json_object_get(rope, "rope_theta") ? rope : root;
    return take_number_or(&c->rope_theta, 10000, home, "rope_theta", err);
}

static lp_status take_layer_types(lp_config *c, const json_t *root, lp_error *err)
{
    set_even_layers_sliding(c);
    const json_t *types = json_object_get(root, "layer_types");
    if (absent(types)) return LP_OK;
    if (json_array_size(types) != (size_t)c->n_layers)
        return lp_fail(err, LP_E_FORMAT, "config.json: layer_types has %zu entries for %d layers",
                       json_array_size(types), c->n_layers);
    for (int l = 0; l < c->n_layers; l++) {
        const char *t = json_string_value(json_array_get(types, (size_t)l));
        if (!t || (strcmp(t, "sliding_attention") != 0 && strcmp(t, "full_attention") != 0))
            return lp_fail(err, LP_E_UNSUPPORTED, "layer_types[%d] is \"%s\"", l, t ? t : "?");
        c->sliding[l] = t[0] == 's';
    }
    return LP_OK;
}

/* An id, or a list whose first entry is it ([1, 107] in gemma-2-2b-it). */
static int token_id(const json_t *root, const char *key)
{
    const json_t *v = json_object_get(root, key);
    if (json_is_array(v)) v = json_array_get(v, 0);
    json_int_t i = json_is_integer(v) ? json_integer_value(v) : -1;
    return i >= 0 && i < INT32_MAX ? (int)i : -1;
}

static lp_status take_all(lp_config *c, const json_t *root, const lp_env *env, lp_error *err)
{
    LP_TRY(refuse_strangers(root, err));
    LP_TRY(take_int(&c->n_layers, root, "num_hidden_layers", err));
    LP_TRY(take_int(&c->d_model, root, "hidden_size", err));
    LP_TRY(take_int(&c->n_heads, root, "num_attention_heads", err));
    LP_TRY(take_int(&c->n_kv_heads, root, "num_key_value_heads", err));
    LP_TRY(take_int(&c->head_dim, root, "head_dim", err));
    LP_TRY(take_int(&c->d_ff, root, "intermediate_size", err));
    LP_TRY(take_int(&c->vocab, root, "vocab_size", err));
    LP_TRY(take_int_or(&c->max_positions, 8192, root, "max_position_embeddings", err));
    LP_TRY(take_int_or(&c->window, 4096, root, "sliding_window", err));
    LP_TRY(take_number_or(&c->rms_eps, 1e-6, root, "rms_norm_eps", err));
    LP_TRY(take_number_or(&c->query_pre_attn_scalar, 256, root, "query_pre_attn_scalar", err));
    LP_TRY(take_number_or(&c->attn_softcap, 50, root, "attn_logit_softcapping", err));
    LP_TRY(take_number_or(&c->final_softcap, 30, root, "final_logit_softcapping", err));
    LP_TRY(take_rope(c, root, err));
    LP_TRY(lp_config_check(c, err));
    LP_TRY(take_layer_types(c, root, err));
    c->bos = token_id(root, "bos_token_id");
    c->eos = token_id(root, "eos_token_id");
    c->pad = token_id(root, "pad_token_id");
    warn_quirks(c, env);
    return LP_OK;
}

lp_status lp_config_parse(lp_config *c, const char *text, size_t n, const lp_env *env, lp_error *err)
{
    *c = (lp_config){0};
    json_error_t why;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
    if (!root) return lp_fail(err, LP_E_FORMAT, "config.json: line %d: %s", why.line, why.text);
    lp_status st = json_is_object(root) ? take_all(c, root, env, err)
                                        : lp_fail(err, LP_E_FORMAT, "config.json: not a JSON object");
    json_decref(root);
    return st;
}

/* ---- GGUF -------------------------------------------------------------------------------------------------------- */

static lp_status gguf_int(int *out, const lp_gguf *g, const char *key, lp_error *err)
{
    int64_t v;
    if (!lp_gguf_int(g, key, &v))
        return lp_fail(err, LP_E_FORMAT, "GGUF metadata: \"%s\" is missing or no integer", key);
    *out = v < INT32_MIN ? INT32_MIN : v > INT32_MAX ? INT32_MAX : (int)v;
    return LP_OK;
}

static void gguf_float_or(double *out, double otherwise, const lp_gguf *g, const char *key)
{
    if (!lp_gguf_float(g, key, out)) *out = otherwise;
}

static int gguf_id(const lp_gguf *g, const char *key)
{
    int64_t v;
    return lp_gguf_int(g, key, &v) && v >= 0 && v < INT32_MAX ? (int)v : -1;
}

lp_status lp_config_from_gguf(lp_config *c, const lp_gguf *g, const lp_env *env, lp_error *err)
{
    *c = (lp_config){.norms_hold_gain = true};
    const char *arch = NULL;
    size_t len = 0;
    if (!lp_gguf_string(g, "general.architecture", &arch, &len))
        return lp_fail(err, LP_E_FORMAT, "GGUF metadata: \"general.architecture\" is missing");
    if (len != 6 || memcmp(arch, "gemma2", 6) != 0)
        return lp_fail(err, LP_E_UNSUPPORTED, "this is a \"%.*s\" model, not Gemma 2 (\"gemma2\")",
                       (int)(len < 64 ? len : 64), arch);
    LP_TRY(gguf_int(&c->n_layers, g, "gemma2.block_count", err));
    LP_TRY(gguf_int(&c->d_model, g, "gemma2.embedding_length", err));
    LP_TRY(gguf_int(&c->n_heads, g, "gemma2.attention.head_count", err));
    LP_TRY(gguf_int(&c->n_kv_heads, g, "gemma2.attention.head_count_kv", err));
    LP_TRY(gguf_int(&c->head_dim, g, "gemma2.attention.key_length", err));
    LP_TRY(gguf_int(&c->d_ff, g, "gemma2.feed_forward_length", err));
    LP_TRY(gguf_int(&c->max_positions, g, "gemma2.context_length", err));
    int64_t v;
    c->window = lp_gguf_int(g, "gemma2.attention.sliding_window", &v) && v > 0 && v < INT32_MAX ? (int)v : 4096;
    if (lp_gguf_int(g, "gemma2.attention.value_length", &v) && v != c->head_dim)
        return lp_fail(err, LP_E_UNSUPPORTED, "value_length %lld differs from key_length %d", (long long)v,
                       c->head_dim);
    lp_gguf_type type;
    size_t n_tokens = 0;
    if (!lp_gguf_array(g, "tokenizer.ggml.tokens", &type, &n_tokens))
        return lp_fail(err, LP_E_FORMAT, "GGUF metadata: \"tokenizer.ggml.tokens\" is missing");
    c->vocab = n_tokens > INT32_MAX ? INT32_MAX : (int)n_tokens;
    gguf_float_or(&c->rms_eps, 1e-6, g, "gemma2.attention.layer_norm_rms_epsilon");
    gguf_float_or(&c->rope_theta, 10000, g, "gemma2.rope.freq_base");
    /* Files of 27 to 30 June 2024 lack the caps; the key really is spelled without "attention". */
    gguf_float_or(&c->attn_softcap, 50, g, "gemma2.attention.logit_softcapping");
    gguf_float_or(&c->attn_softcap, c->attn_softcap, g, "gemma2.attn_logit_softcapping");
    gguf_float_or(&c->final_softcap, 30, g, "gemma2.final_logit_softcapping");
    /* No key holds the query scale: 27B is d_model / heads, every other size head_dim (llama.cpp does the same). */
    c->query_pre_attn_scalar = c->n_layers == 46 ? (double)c->d_model / (c->n_heads ? c->n_heads : 1) : c->head_dim;
    LP_TRY(lp_config_check(c, err));
    set_even_layers_sliding(c);
    c->bos = gguf_id(g, "tokenizer.ggml.bos_token_id");
    c->eos = gguf_id(g, "tokenizer.ggml.eos_token_id");
    c->pad = gguf_id(g, "tokenizer.ggml.padding_token_id");
    warn_quirks(c, env);
    return LP_OK;
}

/* ---- shapes ------------------------------------------------------------------------------------------------------ */

/* google/gemma_pytorch: gemma/config.py; google/gemma.cpp: gemma/configs.cc. */
static const struct shape {
    const char *name, *family;
    int L, D, H, G, E, F, V, positions, window;
    double scalar;
} shapes[] = {
    {"2b", "gemma-2-2b", 26, 2304, 8, 4, 256, 9216, 256000, 8192, 4096, 256},
    {"9b", "gemma-2-9b", 42, 3584, 16, 8, 256, 14336, 256000, 8192, 4096, 256},
    {"27b", "gemma-2-27b", 46, 4608, 32, 16, 128, 36864, 256000, 8192, 4096, 144},
    {"nano", "gemma-2 nano", 4, 64, 4, 2, 32, 192, 4096, 512, 16, 32},
};

bool lp_config_shape(lp_config *c, const char *name)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const struct shape *s = &shapes[i];
        if (strcmp(name, s->name) != 0) continue;
        *c = (lp_config){.n_layers = s->L,
                         .d_model = s->D,
                         .n_heads = s->H,
                         .n_kv_heads = s->G,
                         .head_dim = s->E,
                         .d_ff = s->F,
                         .vocab = s->V,
                         .max_positions = s->positions,
                         .window = s->window,
                         .rope_theta = 10000,
                         .rms_eps = 1e-6,
                         .query_pre_attn_scalar = s->scalar,
                         .attn_softcap = 50,
                         .final_softcap = 30,
                         .bos = 2,
                         .eos = 1,
                         .pad = 0};
        set_even_layers_sliding(c);
        return true;
    }
    return false;
}

uint64_t lp_config_parameters(const lp_config *c)
{
    uint64_t D = (uint64_t)c->d_model, E = (uint64_t)c->head_dim, F = (uint64_t)c->d_ff;
    uint64_t attention = 2 * D * E * (uint64_t)(c->n_heads + c->n_kv_heads);
    return (uint64_t)c->vocab * D + D + (uint64_t)c->n_layers * (attention + 3 * D * F + 4 * D);
}

const char *lp_config_family(const lp_config *c)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const struct shape *s = &shapes[i];
        if (c->n_layers == s->L && c->d_model == s->D && c->n_heads == s->H && c->n_kv_heads == s->G &&
            c->head_dim == s->E && c->d_ff == s->F)
            return s->family;
    }
    return "gemma-2 (custom)";
}
