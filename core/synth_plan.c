/* synth_plan.c - the tensors of a synthetic Gemma 2 and the numbers in them.
 *
 * An element is mean + sd * z, where z is the sum of four uniform 16-bit numbers, the quarters of one 64-bit hash of
 * the element's index (SplitMix64's output function [1], the state being key + index * golden gamma), centred and
 * scaled to variance one: bell-shaped, at most 3.46, exact in integers, so every machine has the same bits.
 *
 * The scales are chosen so that the model behaves like a model rather than like a short circuit:
 *
 *     q, k            1.7 / sqrt(D)  scores have a spread of about 3: attention is selective, a few scores feel the cap
 *     v, gate, up     1 / sqrt(D);  o, down  1 / sqrt(inputs): every product keeps the size of its input
 *     norm gains      1 + w with w about 0.1 wide: after 2 L sublayers, each adding about 1, the stream is sqrt(2 L)
 * wide embedding       0.3 / sqrt(D): with larger rows the tied table would make every token predict itself, since
 *                     |e|^2 grows with D while all else it is compared with does not
 *     final norm      3.5 / 0.3: logits have a spread of 3.5, the largest of them feel the cap of 30, and the
 * next-token distribution has an effective size of tens to hundreds of tokens
 *
 * [1] Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014.
 */
#include "core/synth_plan.h"

#include "core/quant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double embed_scale = 0.3, logit_spread = 3.5, query_scale = 1.7, gain_spread = 0.1;

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t tensor_key(uint64_t seed, const char *name)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    return mix(mix(seed + 0x9e3779b97f4a7c15u) ^ h);
}

void lp_synth_fill(float *out, const lp_synth_tensor *t, uint64_t first, size_t n)
{
    const float unit = t->sd * 2.6429e-5f; /* sqrt(3) / 65536: the sum's variance is (2^32 - 1) / 3 */
    for (size_t i = 0; i < n; i++) {
        uint64_t z = mix(t->key + (first + i) * 0x9e3779b97f4a7c15u);
        int sum = (int)((z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48));
        out[i] = t->mean + (float)(sum - 2 * 0xffff) * unit;
    }
}

/* ---- types ---------------------------------------------------------------------------------------------------- */

static lp_dtype embed_type(const lp_synth_options *o)
{
    bool coarse = lp_dtype_block(o->type) > 1 && o->type != LP_Q8_0 && o->type != LP_Q6_K;
    if (o->pure || !coarse) return o->type;
    return o->config.d_model % lp_dtype_block(LP_Q6_K) == 0 ? LP_Q6_K : LP_Q8_0;
}

static lp_dtype norm_type(const lp_synth_options *o)
{
    return o->gguf || lp_dtype_block(o->type) > 1 ? LP_F32 : o->type; /* ggml keeps vectors in F32 */
}

/* ---- the list ------------------------------------------------------------------------------------------------- */

typedef struct listing {
    lp_synth_plan *plan;
    const lp_synth_options *o;
} listing;

/* The next entry; `layer` below 0: names without a layer. */
static lp_synth_tensor *next(listing *l, const char *name, const char *gguf_name, int layer)
{
    lp_synth_tensor *t = &l->plan->items[l->plan->n++];
    if (layer < 0) {
        snprintf(t->name, sizeof t->name, "%s.weight", name);
        snprintf(t->gguf_name, sizeof t->gguf_name, "%s.weight", gguf_name);
    } else {
        snprintf(t->name, sizeof t->name, "model.layers.%d.%s.weight", layer, name);
        snprintf(t->gguf_name, sizeof t->gguf_name, "blk.%d.%s.weight", layer, gguf_name);
    }
    t->key = tensor_key(l->o->seed, t->name);
    return t;
}

static void norm(listing *l, const char *name, const char *gguf_name, int layer, double gain)
{
    lp_synth_tensor *t = next(l, name, gguf_name, layer);
    t->cols = l->o->config.d_model;
    t->mean = (float)(gain - 1);
    t->sd = (float)(gain_spread * gain);
    t->type = norm_type(l->o);
}

static lp_synth_tensor *matrix(listing *l, const char *name, const char *gguf_name, int layer, int rows, int cols,
                               double scale)
{
    lp_synth_tensor *t = next(l, name, gguf_name, layer);
    t->rows = rows;
    t->cols = cols;
    t->sd = (float)(scale / sqrt(cols));
    t->type = l->o->type;
    return t;
}

static void list_all(listing *l)
{
    const lp_config *c = &l->o->config;
    int D = c->d_model, F = c->d_ff, HE = c->n_heads * c->head_dim, GE = c->n_kv_heads * c->head_dim;
    matrix(l, "model.embed_tokens", "token_embd", -1, c->vocab, D, embed_scale)->type = embed_type(l->o);
    for (int i = 0; i < c->n_layers; i++) {
        norm(l, "input_layernorm", "attn_norm", i, 1);
        matrix(l, "self_attn.q_proj", "attn_q", i, HE, D, query_scale);
        matrix(l, "self_attn.k_proj", "attn_k", i, GE, D, query_scale);
        matrix(l, "self_attn.v_proj", "attn_v", i, GE, D, 1);
        matrix(l, "self_attn.o_proj", "attn_output", i, D, HE, 1);
        norm(l, "post_attention_layernorm", "post_attention_norm", i, 1);
        norm(l, "pre_feedforward_layernorm", "ffn_norm", i, 1);
        matrix(l, "mlp.gate_proj", "ffn_gate", i, F, D, 1);
        matrix(l, "mlp.up_proj", "ffn_up", i, F, D, 1);
        matrix(l, "mlp.down_proj", "ffn_down", i, D, F, 1);
        norm(l, "post_feedforward_layernorm", "post_ffw_norm", i, 1);
    }
    norm(l, "model.norm", "output_norm", -1, logit_spread / embed_scale);
}

static lp_status size_all(lp_synth_plan *p, lp_error *err)
{
    for (size_t i = 0; i < p->n; i++) {
        lp_synth_tensor *t = &p->items[i];
        int block = lp_dtype_block(t->type);
        if (t->cols % block)
            return lp_fail(err, LP_E_SHAPE, "%s has rows of %lld, not a multiple of the %d of a %s block", t->name,
                           (long long)t->cols, block, lp_dtype_name(t->type));
        if (!lp_dtype_bytes(t->type, lp_synth_elements(t), &t->bytes) ||
            __builtin_add_overflow(p->bytes, t->bytes, &p->bytes))
            return lp_fail(err, LP_E_RANGE, "%s is too large", t->name);
    }
    return LP_OK;
}

lp_status lp_synth_plan_make(lp_synth_plan *p, const lp_synth_options *o, lp_error *err)
{
    *p = (lp_synth_plan){0};
    size_t n = 11 * (size_t)o->config.n_layers + 2;
    p->items = lp_calloc(n, sizeof *p->items);
    if (!p->items) return lp_fail(err, LP_E_MEMORY, "out of memory for a list of %zu tensors", n);
    list_all(&(listing){.plan = p, .o = o});
    lp_status st = size_all(p, err);
    if (st < 0) lp_synth_plan_clear(p);
    return st;
}

void lp_synth_plan_clear(lp_synth_plan *p)
{
    free(p->items);
    *p = (lp_synth_plan){0};
}
