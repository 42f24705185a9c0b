/* model.c - see model.h.
 *
 * A checkpoint is bound once, from one table: each weight of a layer has a field, a Hugging Face name, a GGUF name and
 * a shape in terms of the config.  The same walk over the table first plans (what will it take?), then loads.
 */
#include "core/model.h"

#include "core/hub.h"
#include "core/kv.h"
#include "core/quant.h"
#include "core/rope.h"
#include "core/safetensors.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table of tensors ---------------------------------------------------------------------------------------- */

typedef enum axis { AXIS_ONE, AXIS_D, AXIS_HE, AXIS_GE, AXIS_F } axis;

typedef struct weight {
    const char *hf, *gguf; /* after "model.layers.N." and "blk.N." */
    axis rows, cols;       /* rows AXIS_ONE: a norm, [cols]       */
    size_t field;          /* in lp_layer                         */
} weight;

static const weight weights[] = {
    {"input_layernorm.weight", "attn_norm.weight", AXIS_ONE, AXIS_D, offsetof(lp_layer, attn_pre_gain)},
    {"self_attn.q_proj.weight", "attn_q.weight", AXIS_HE, AXIS_D, offsetof(lp_layer, q)},
    {"self_attn.k_proj.weight", "attn_k.weight", AXIS_GE, AXIS_D, offsetof(lp_layer, k)},
    {"self_attn.v_proj.weight", "attn_v.weight", AXIS_GE, AXIS_D, offsetof(lp_layer, v)},
    {"self_attn.o_proj.weight", "attn_output.weight", AXIS_D, AXIS_HE, offsetof(lp_layer, o)},
    {"post_attention_layernorm.weight", "post_attention_norm.weight", AXIS_ONE, AXIS_D,
     offsetof(lp_layer, attn_post_gain)},
    {"pre_feedforward_layernorm.weight", "ffn_norm.weight", AXIS_ONE, AXIS_D, offsetof(lp_layer, mlp_pre_gain)},
    {"mlp.gate_proj.weight", "ffn_gate.weight", AXIS_F, AXIS_D, offsetof(lp_layer, gate)},
    {"mlp.up_proj.weight", "ffn_up.weight", AXIS_F, AXIS_D, offsetof(lp_layer, up)},
    {"mlp.down_proj.weight", "ffn_down.weight", AXIS_D, AXIS_F, offsetof(lp_layer, down)},
    {"post_feedforward_layernorm.weight", "post_ffw_norm.weight", AXIS_ONE, AXIS_D, offsetof(lp_layer, mlp_post_gain)},
};
enum { N_WEIGHTS = sizeof weights / sizeof *weights };

static int extent(const lp_config *c, axis a)
{
    switch (a) {
    case AXIS_D:
        return c->d_model;
    case AXIS_HE:
        return c->n_heads * c->head_dim;
    case AXIS_GE:
        return c->n_kv_heads * c->head_dim;
    case AXIS_F:
        return c->d_ff;
    default:
        return 1;
    }
}

/* ---- a checkpoint being opened ----------------------------------------------------------------------------------- */

typedef struct opening {
    lp_config config;
    char *path;
    lp_gguf *gguf;  /* NULL: safetensors */
    lp_tensors own; /* safetensors' list */
    const lp_tensors *tensors;
    size_t n_used; /* tensors the model asked for */
} opening;

static void opening_end(opening *o)
{
    lp_gguf_close(o->gguf);
    lp_tensors_clear(&o->own);
    free(o->path);
}

enum { MAX_CONFIG = 16 << 20, MAX_TOKENIZER = 256 << 20 };

static lp_status open_folder(opening *o, const lp_env *env, lp_error *err)
{
    char *config = lp_path_join(o->path, "config.json"), *text = NULL;
    if (!config) return lp_fail(err, LP_E_MEMORY, "out of memory");
    size_t n = 0;
    lp_status st = lp_read_file(&text, &n, config, MAX_CONFIG, err);
    if (st == LP_E_NOT_FOUND)
        lp_fail(err, st, "%s: no config.json there; a model folder has one beside its safetensors", o->path);
    if (st == LP_OK && (st = lp_config_parse(&o->config, text, n, env, err)) < 0) lp_prefix(err, st, o->path);
    free(text);
    free(config);
    LP_TRY(st);
    LP_TRY(lp_safetensors_open(&o->own, o->path, env, err));
    o->tensors = &o->own;
    return LP_OK;
}

static lp_status open_gguf(opening *o, const lp_env *env, lp_error *err)
{
    LP_TRY(lp_gguf_open(&o->gguf, o->path, err));
    o->tensors = lp_gguf_tensors(o->gguf);
    lp_status st = lp_config_from_gguf(&o->config, o->gguf, env, err);
    return st < 0 ? lp_prefix(err, st, o->path) : st;
}

static lp_status opening_begin(opening *o, const char *name, const lp_env *env, lp_error *err)
{
    *o = (opening){0};
    LP_TRY(lp_hub_find(&o->path, name, err));
    if (lp_is_dir(o->path)) return open_folder(o, env, err);
    if (lp_ends_in(o->path, ".gguf")) return open_gguf(o, env, err);
    return lp_fail(err, LP_E_UNSUPPORTED, "%s: neither a model folder nor a .gguf file", o->path);
}

/* ---- binding ----------------------------------------------------------------------------------------------------- */

static lp_status find(const lp_tensor **out, opening *o, const char *name, int rows, int cols, lp_error *err)
{
    const lp_tensor *x = lp_tensors_find(o->tensors, name);
    if (!x) return lp_fail(err, LP_E_FORMAT, "%s: tensor \"%s\" is missing", o->path, name);
    bool ok = rows == 1 ? x->n_dims == 1 && x->shape[0] == cols
                        : x->n_dims == 2 && x->shape[0] == rows && x->shape[1] == cols;
    if (!ok) {
        char shape[128], want[64];
        if (rows == 1)
            snprintf(want, sizeof want, "[%d]", cols);
        else
            snprintf(want, sizeof want, "[%d, %d]", rows, cols);
        return lp_fail(err, LP_E_SHAPE, "%s: %s is %s, expected %s; do config and weights belong together?", o->path,
                       name, lp_tensor_shape_text(x, shape, sizeof shape), want);
    }
    if (x->type == LP_OTHER)
        return lp_fail(err, LP_E_UNSUPPORTED, "%s: %s is stored as %s, which this program does not read", o->path, name,
                       x->type_name);
    o->n_used++;
    *out = x;
    return LP_OK;
}

/* Called for each tensor of the model in file-independent order; m or gain says which kind it is. */
typedef lp_status (*visit_fn)(void *user, const lp_tensor *x, lp_matrix *m, const float **gain, int rows, int cols,
                              lp_error *err);

static lp_status visit_one(opening *o, const char *name, int rows, int cols, void *field, visit_fn visit, void *user,
                           lp_error *err)
{
    const lp_tensor *x = NULL;
    LP_TRY(find(&x, o, name, rows, cols, err));
    return rows == 1 ? visit(user, x, NULL, field, rows, cols, err) : visit(user, x, field, NULL, rows, cols, err);
}

static lp_status visit_all(opening *o, lp_model *m, visit_fn visit, void *user, lp_error *err)
{
    const lp_config *c = &o->config;
    bool g = o->gguf != NULL;
    char name[128];
    o->n_used = 0;
    LP_TRY(visit_one(o, g ? "token_embd.weight" : "model.embed_tokens.weight", c->vocab, c->d_model, &m->embed, visit,
                     user, err));
    for (int l = 0; l < c->n_layers; l++) {
        for (int i = 0; i < N_WEIGHTS; i++) {
            const weight *w = &weights[i];
            snprintf(name, sizeof name, g ? "blk.%d.%s" : "model.layers.%d.%s", l, g ? w->gguf : w->hf);
            LP_TRY(visit_one(o, name, extent(c, w->rows), extent(c, w->cols), (char *)&m->layers[l] + w->field, visit,
                             user, err));
        }
    }
    return visit_one(o, g ? "output_norm.weight" : "model.norm.weight", 1, c->d_model, &m->final_gain, visit, user,
                     err);
}

/* ---- first walk: what will it take? ------------------------------------------------------------------------------ */

static uint64_t align64(uint64_t n)
{
    return (n + 63) & ~(uint64_t)63;
}

static lp_status visit_plan(void *user, const lp_tensor *x, lp_matrix *m, const float **gain, int rows, int cols,
                            lp_error *err)
{
    (void)gain;
    lp_model_plan *p = user;
    p->file_bytes += x->bytes;
    p->stored_count[x->type] += (uint64_t)rows * (uint64_t)cols;
    if (!m) {
        p->weight_bytes += align64((uint64_t)cols * sizeof(float));
        return LP_OK;
    }
    lp_status st = lp_matrix_plan(m, rows, cols, x->type, err);
    if (st < 0) return lp_prefix(err, st, x->name);
    p->weight_bytes += align64(m->bytes);
    p->held_count[m->format] += (uint64_t)rows * (uint64_t)cols;
    return LP_OK;
}

static uint64_t rope_bytes(const lp_config *c)
{
    return align64((uint64_t)c->max_positions * (uint64_t)(c->head_dim / 2) * sizeof(float));
}

static lp_status make_plan(lp_model_plan *p, opening *o, lp_model *m, lp_error *err)
{
    m->layers = lp_calloc((size_t)o->config.n_layers, sizeof *m->layers);
    if (!m->layers) return lp_fail(err, LP_E_MEMORY, "out of memory");
    LP_TRY(visit_all(o, m, visit_plan, p, err));
    p->weight_bytes += 2 * rope_bytes(&o->config);
    p->config = o->config;
    p->is_gguf = o->gguf != NULL;
    p->n_files = o->tensors->n_files;
    p->kv_bytes_per_token = lp_kv_bytes_per_token(&o->config);
    p->available = lp_memory_available();
    return LP_OK;
}

/* ---- second walk: read and pack ---------------------------------------------------------------------------------- */

typedef struct loading {
    opening *o;
    lp_model *m;
    const lp_env *env;
    lp_env quiet; /* env without progress: the model's own bar counts bytes over all tensors */
    uint64_t at, done, of;
} loading;

static void *take(loading *g, uint64_t bytes)
{
    void *p = (char *)g->m->arena + g->at;
    g->at += align64(bytes);
    return p;
}

static void report_nonfinite(loading *g, const lp_tensor *x, uint64_t n)
{
    if (!n) return;
    g->m->n_nonfinite += n;
    lp_log(g->env, LP_WARN, "%s: %llu NaN or infinite values", x->name, (unsigned long long)n);
}

static lp_status load_gain(loading *g, const lp_tensor *x, const float **gain, int cols, lp_error *err)
{
    float *out = take(g, (uint64_t)cols * sizeof *out);
    void *raw = malloc((size_t)x->bytes);
    if (!raw) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_status st = lp_tensors_read(g->o->tensors, x, 0, raw, (size_t)x->bytes, err);
    uint64_t bad = 0;
    if (st == LP_OK) {
        lp_to_f32(x->type, raw, out, (size_t)cols);
        for (int i = 0; i < cols; i++) bad += !isfinite(out[i]);
        if (!g->o->config.norms_hold_gain)
            for (int i = 0; i < cols; i++) out[i] = 1.0f + out[i];
    }
    free(raw);
    *gain = out;
    report_nonfinite(g, x, bad);
    return st;
}

static lp_status visit_load(void *user, const lp_tensor *x, lp_matrix *m, const float **gain, int rows, int cols,
                            lp_error *err)
{
    (void)rows;
    loading *g = user;
    if (lp_cancelled(g->env)) return LP_CANCELLED;
    if (m) {
        m->data = take(g, m->bytes);
        LP_TRY(lp_matrix_load(m, g->o->tensors, x, &g->quiet, err));
        report_nonfinite(g, x, m->n_nonfinite);
    } else {
        LP_TRY(load_gain(g, x, gain, cols, err));
    }
    g->done += x->bytes;
    lp_progress(g->env, "loading", (int64_t)g->done, (int64_t)g->of);
    return LP_OK;
}

/* Some re-uploads carry a copy of the tied table as lm_head.weight; a different one would be a different model. */
static lp_status check_head(opening *o, const lp_env *env, lp_error *err)
{
    const lp_tensor *head = lp_tensors_find(o->tensors, o->gguf ? "output.weight" : "lm_head.weight");
    if (!head) return LP_OK;
    o->n_used++;
    const lp_tensor *table = lp_tensors_find(o->tensors, o->gguf ? "token_embd.weight" : "model.embed_tokens.weight");
    bool same = table && table->type == head->type && table->bytes == head->bytes;
    enum { CHUNK = 1 << 20 };
    char *a = malloc(CHUNK), *b = malloc(CHUNK);
    lp_status st = a && b ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    for (uint64_t at = 0; st == LP_OK && same && at < head->bytes; at += CHUNK) {
        size_t n = head->bytes - at < CHUNK ? (size_t)(head->bytes - at) : CHUNK;
        if ((st = lp_tensors_read(o->tensors, head, at, a, n, err)) == LP_OK)
            st = lp_tensors_read(o->tensors, table, at, b, n, err);
        same = st == LP_OK && memcmp(a, b, n) == 0;
    }
    free(a);
    free(b);
    LP_TRY(st);
    if (!same)
        return lp_fail(err, LP_E_UNSUPPORTED, "%s: %s differs from the embedding; Gemma 2 ties the two", o->path,
                       head->name);
    lp_log(env, LP_INFO, "%s repeats the embedding; ignored", head->name);
    return LP_OK;
}

static lp_status load_tokenizer(lp_model *m, const opening *o, const lp_env *env, lp_error *err)
{
    if (o->gguf) return lp_tokenizer_from_gguf(&m->tokenizer, o->gguf, env, err);
    char *path = lp_path_join(o->path, "tokenizer.model");
    if (!path) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_status st = LP_OK;
    if (lp_is_file(path))
        st = lp_tokenizer_open(&m->tokenizer, path, err);
    else
        lp_log(env, LP_WARN, "%s: no tokenizer.model; only token ids can be given", o->path);
    free(path);
    if (st == LP_OK && m->tokenizer && lp_tokenizer_size(m->tokenizer) > m->config.vocab)
        st = lp_fail(err, LP_E_SHAPE, "%s: the tokenizer has %d pieces, the model only %d rows", o->path,
                     lp_tokenizer_size(m->tokenizer), m->config.vocab);
    return st;
}

static lp_status check_memory(const lp_model_plan *p, const lp_model_options *options, const lp_env *env, lp_error *err)
{
    uint64_t limit = options && options->memory_limit ? options->memory_limit : p->available;
    lp_log(env, LP_INFO, "weights take %s of memory, the cache %.1f KB per token; %s are free",
           lp_amount_of(p->weight_bytes).text, (double)p->kv_bytes_per_token / 1e3, lp_amount_of(p->available).text);
    if (!limit || p->weight_bytes <= limit) return LP_OK;
    return lp_fail(err, LP_E_MEMORY,
                   "the weights take %s of memory and %s may be used; close other programs, or use a smaller or more "
                   "strongly quantised model (a Q8_0 or Q4_K_M GGUF)",
                   lp_amount_of(p->weight_bytes).text, lp_amount_of(limit).text);
}

static lp_status load(lp_model *m, opening *o, const lp_model_options *options, const lp_env *env, lp_error *err)
{
    lp_model_plan plan = {0};
    LP_TRY(make_plan(&plan, o, m, err));
    LP_TRY(check_memory(&plan, options, env, err));
    LP_TRY(check_head(o, env, err));
    m->config = o->config;
    m->is_gguf = plan.is_gguf;
    m->weight_bytes = plan.weight_bytes;
    m->arena_bytes = (size_t)plan.weight_bytes;
    LP_TRY(load_tokenizer(m, o, env, err));
    if (!(m->arena = lp_big_alloc(m->arena_bytes)))
        return lp_fail(err, LP_E_MEMORY, "the system refused %s for the weights", lp_amount_of(plan.weight_bytes).text);

    loading g = {.o = o, .m = m, .env = env, .of = plan.file_bytes};
    if (env) g.quiet = *env;
    g.quiet.progress = NULL;
    size_t rope = (size_t)rope_bytes(&m->config);
    m->rope_cos = take(&g, rope);
    m->rope_sin = take(&g, rope);
    lp_rope_table(m->rope_cos, m->rope_sin, m->config.max_positions, m->config.head_dim, m->config.rope_theta);
    LP_TRY(visit_all(o, m, visit_load, &g, err));
    if (o->n_used < o->tensors->n)
        lp_log(env, LP_WARN, "%s: %zu tensors that Gemma 2 does not have were ignored", o->path,
               o->tensors->n - o->n_used);
    m->path = o->path;
    o->path = NULL;
    return LP_OK;
}

lp_status lp_model_open(lp_model **out, const char *name, const lp_model_options *options, const lp_env *env,
                        lp_error *err)
{
    opening o;
    lp_model *m = NULL;
    lp_status st = opening_begin(&o, name, env, err);
    if (st != LP_OK) goto out;
    if (!(m = lp_calloc(1, sizeof *m))) {
        st = lp_fail(err, LP_E_MEMORY, "out of memory");
        goto out;
    }
    if ((st = load(m, &o, options, env, err)) != LP_OK) goto out;
    *out = m;
    m = NULL;
out:
    lp_model_close(m);
    opening_end(&o);
    return st;
}

void lp_model_close(lp_model *m)
{
    if (!m) return;
    lp_tokenizer_free(m->tokenizer);
    lp_big_free(m->arena, m->arena_bytes);
    free(m->layers);
    free(m->path);
    free(m);
}

lp_status lp_model_plan_read(lp_model_plan *plan, const char *name, const lp_env *env, lp_error *err)
{
    opening o;
    lp_model m = {0};
    lp_status st = opening_begin(&o, name, env, err);
    *plan = (lp_model_plan){0};
    if (st == LP_OK && (st = make_plan(plan, &o, &m, err)) == LP_OK) {
        plan->path = o.path;
        o.path = NULL;
    }
    free(m.layers);
    opening_end(&o);
    return st;
}

void lp_model_plan_clear(lp_model_plan *plan)
{
    free(plan->path);
    plan->path = NULL;
}
