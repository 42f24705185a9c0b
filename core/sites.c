/* sites.c - the names of the sites: ours, TransformerLens', Hugging Face's, and what to beware of at each.
 *
 * TransformerLens: transformer_lens/components and hook_points (a prefix "blocks.l." in front of those of a layer).
 * Hugging Face: transformers/models/gemma2/modeling_gemma2.py, module paths after "model.layers.l." (or from the root),
 * with ".input" where the site is what goes into the module.
 */
#include "core/hooks.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct row {
    const char *name, *lens, *hf, *about;
    bool has_layer;
} row;

static const row table[LP_N_SITES] = {
    [LP_EMBED_RAW] = {"embed_raw", NULL, NULL, "the table's row, before sqrt(d_model); what the embedding SAEs read",
                      false},
    [LP_EMBED] = {"embed", "hook_embed", "model.embed_tokens",
                  "already scaled by sqrt(d_model); Hugging Face before 5.0 shows it unscaled", false},
    [LP_RESID_PRE] = {"resid_pre", "hook_resid_pre", "input", "the stream entering the layer", true},
    [LP_ATTN_PRE_RMS] = {"attn_pre_rms", "ln1.hook_scale", NULL, "the divisor sqrt(mean(x^2) + eps)", true},
    [LP_ATTN_IN] = {"attn_in", NULL, "input_layernorm",
                    "after the gain (1 + w); TransformerLens' ln1.hook_normalized is before it", true},
    [LP_Q] = {"q", "attn.hook_q", "self_attn.q_proj", "queries before RoPE, per head", true},
    [LP_K] = {"k", "attn.hook_k", "self_attn.k_proj", "keys before RoPE, per key/value head", true},
    [LP_V] = {"v", "attn.hook_v", "self_attn.v_proj", "values, per key/value head", true},
    [LP_Q_ROT] = {"q_rot", "attn.hook_rot_q", NULL, "queries after RoPE", true},
    [LP_K_ROT] = {"k_rot", "attn.hook_rot_k", NULL, "keys after RoPE, as they enter the cache", true},
    [LP_SCORES] = {"scores", "attn.hook_attn_scores", NULL,
                   "scaled, soft-capped AND masked (-inf); masked ones cannot be set", true},
    [LP_PATTERN] = {"pattern", "attn.hook_pattern", NULL, "softmax of the scores; masked entries cannot be set", true},
    [LP_Z] = {"z", "attn.hook_z", "self_attn.o_proj.input",
              "heads side by side, before W_O; Gemma Scope att SAEs read this", true},
    [LP_ATTN_RAW] = {"attn_raw", NULL, "self_attn", "W_O's output BEFORE the post-norm; not what is added", true},
    [LP_ATTN_POST_RMS] = {"attn_post_rms", "ln1_post.hook_scale", NULL, "the divisor of the norm on the branch", true},
    [LP_ATTN_OUT] = {"attn_out", "hook_attn_out", "post_attention_layernorm",
                     "AFTER the post-norm: what is added to the stream", true},
    [LP_RESID_MID] = {"resid_mid", "hook_resid_mid", "pre_feedforward_layernorm.input",
                      "the stream between the two branches", true},
    [LP_MLP_PRE_RMS] = {"mlp_pre_rms", "ln2.hook_scale", NULL, "the divisor sqrt(mean(x^2) + eps)", true},
    [LP_MLP_NORMED] = {"mlp_normed", "ln2.hook_normalized", NULL,
                       "x / rms WITHOUT the gain; Gemma Scope transcoders read this", true},
    [LP_MLP_IN] = {"mlp_in", NULL, "pre_feedforward_layernorm", "after the gain (1 + w)", true},
    [LP_MLP_GATE] = {"mlp_gate", "mlp.hook_pre", "mlp.gate_proj", "before gelu", true},
    [LP_MLP_UP] = {"mlp_up", "mlp.hook_pre_linear", "mlp.up_proj", "the linear factor", true},
    [LP_MLP_ACT] = {"mlp_act", "mlp.hook_post", "mlp.down_proj.input", "gelu(gate) * up: the neurons", true},
    [LP_MLP_RAW] = {"mlp_raw", NULL, "mlp", "W_down's output BEFORE the post-norm; not what is added", true},
    [LP_MLP_POST_RMS] = {"mlp_post_rms", "ln2_post.hook_scale", NULL, "the divisor of the norm on the branch", true},
    [LP_MLP_OUT] = {"mlp_out", "hook_mlp_out", "post_feedforward_layernorm",
                    "AFTER the post-norm: what is added; Gemma Scope mlp SAEs read this", true},
    [LP_RESID_POST] =
        {"resid_post", "hook_resid_post", "output",
         "the stream leaving the layer, the last one before the final norm; Gemma Scope res SAEs read this", true},
    [LP_FINAL_RMS] = {"final_rms", "ln_final.hook_scale", NULL, "the divisor of the final norm", false},
    [LP_FINAL_IN] = {"final_in", NULL, "model.norm", "after the gain: what the unembedding sees", false},
    [LP_LOGITS_RAW] = {"logits_raw", "unembed.hook_out", "lm_head", "before the final soft-cap", false},
    [LP_LOGITS] = {"logits", NULL, NULL, "after the final soft-cap: what is sampled", false},
};
_Static_assert(LP_N_SITES <= 32, "a mask of sites is one uint32_t");

const char *lp_site_name(lp_site site)
{
    return table[site].name;
}
const char *lp_site_lens_name(lp_site site)
{
    return table[site].lens;
}
const char *lp_site_hf_name(lp_site site)
{
    return table[site].hf;
}
const char *lp_site_about(lp_site site)
{
    return table[site].about;
}
bool lp_site_has_layer(lp_site site)
{
    return table[site].has_layer;
}

const char *lp_site_tensor_name(char *buf, size_t n, lp_site site, int layer)
{
    const row *r = &table[site];
    const char *name = r->lens ? r->lens : r->name;
    if (r->has_layer)
        snprintf(buf, n, "blocks.%d.%s", layer, name);
    else
        snprintf(buf, n, "%s", name);
    return buf;
}

/* Further places of theirs at which the same rows pass: module boundaries, and two names of TransformerLens 3. */
static const struct alias {
    const char *name;
    lp_site site;
    bool hf;
} aliases[] = {
    {"attn.hook_out", LP_ATTN_RAW, false},
    {"mlp.hook_out", LP_MLP_RAW, false},
    {"input_layernorm.input", LP_RESID_PRE, true},
    {"self_attn.input", LP_ATTN_IN, true},
    {"self_attn.o_proj", LP_ATTN_RAW, true},
    {"post_attention_layernorm.input", LP_ATTN_RAW, true},
    {"mlp.input", LP_MLP_IN, true},
    {"mlp.down_proj", LP_MLP_RAW, true},
    {"post_feedforward_layernorm.input", LP_MLP_RAW, true},
    {"lm_head.input", LP_FINAL_IN, true},
};

/* ---- parsing ----------------------------------------------------------------------------------------------------- */

enum { MAX_NAME = 96 };

/* "20.rest" -> 20 and "rest"; false when no number and dot stand there. */
static bool take_layer(const char **s, int *layer)
{
    char *end;
    if (!isdigit((unsigned char)**s)) return false;
    long l = strtol(*s, &end, 10);
    if (*end != '.' || l < 0 || l > 100000) return false;
    *s = end + 1;
    *layer = (int)l;
    return true;
}

static bool take_prefix(const char **s, const char *prefix)
{
    size_t n = strlen(prefix);
    if (strncmp(*s, prefix, n) != 0) return false;
    *s += n;
    return true;
}

/* "resid_post.20" -> "resid_post" in buf and 20. */
static bool take_suffix(const char *s, char *buf, int *layer)
{
    const char *dot = strrchr(s, '.');
    if (!dot || !isdigit((unsigned char)dot[1]) || (size_t)(dot - s) >= MAX_NAME) return false;
    char *end;
    long l = strtol(dot + 1, &end, 10);
    if (*end || l > 100000) return false;
    memcpy(buf, s, (size_t)(dot - s));
    buf[dot - s] = 0;
    *layer = (int)l;
    return true;
}

static int find(const char *s, bool hf)
{
    char plain[MAX_NAME];
    size_t n = strlen(s);
    const char *out = ".output"; /* "mlp.output" is "mlp": a module's name means its output */
    if (hf && n > strlen(out) && n < MAX_NAME && strcmp(s + n - strlen(out), out) == 0) {
        memcpy(plain, s, n - strlen(out));
        plain[n - strlen(out)] = 0;
        s = plain;
    }
    for (int i = 0; i < LP_N_SITES; i++) {
        const row *r = &table[i];
        if (hf ? r->hf && strcmp(r->hf, s) == 0 : strcmp(r->name, s) == 0 || (r->lens && strcmp(r->lens, s) == 0))
            return i;
    }
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (aliases[i].hf == hf && strcmp(aliases[i].name, s) == 0) return (int)aliases[i].site;
    return -1;
}

static lp_status unknown(const char *name, const char *bare, lp_error *err)
{
    int best = 0, least = INT_MAX;
    for (int i = 0; i < LP_N_SITES; i++) {
        int d = lp_edit_distance(bare, table[i].name);
        int e = table[i].lens ? lp_edit_distance(bare, table[i].lens) : INT_MAX;
        if (e < d) d = e;
        if (d < least) least = d, best = i;
    }
    return lp_fail(err, LP_E_NOT_FOUND,
                   "no site is called \"%.96s\"; did you mean \"%s\"? `lapidary hooks` lists them all", name,
                   table[best].name);
}

lp_status lp_site_parse(const char *name, lp_site *site, int *layer, lp_error *err)
{
    const char *s = name;
    char bare[MAX_NAME];
    bool hf = false;
    int l = LP_EVERY_LAYER, i;
    if (take_prefix(&s, "blocks.")) {
        if (!take_layer(&s, &l)) return unknown(name, s, err);
    } else if (take_prefix(&s, "model.layers.")) {
        hf = true;
        char *end;
        long n = strtol(s, &end, 10);
        if (end != s && !*end && n >= 0 && n <= 100000) { /* "model.layers.3": the layer itself, its output */
            l = (int)n;
            s = "output";
        } else if (!take_layer(&s, &l)) {
            return unknown(name, s, err);
        }
    } else if (take_suffix(s, bare, &l)) {
        s = bare;
    }
    i = find(s, hf);
    if (i < 0 && !hf) i = find(s, true); /* "model.norm", "lm_head", and module names without a layer */
    if (i < 0) return unknown(name, s, err);
    if (!table[i].has_layer && l != LP_EVERY_LAYER)
        return lp_fail(err, LP_E_RANGE, "%s has no layers; \"%.96s\" names one", table[i].name, name);
    *site = (lp_site)i;
    *layer = table[i].has_layer ? l : LP_WHOLE_MODEL;
    return LP_OK;
}
