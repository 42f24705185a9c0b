/* hooks.h - named places in the forward pass where an activation can be watched or changed.
 *
 * A hook runs on the thread that called lp_session_eval, between two parallel sections; it needs no locks.  It may
 * read act->x, and write it when it was added with edits = true; act dies when the hook returns.  Prompt tokens and
 * generated tokens pass through the same sites in the same loop (rows = 1 while generating).
 *
 * The observed path is the only path: arming a hook changes no bit of any result and costs nothing elsewhere.
 *
 * Traps, from reading the field's tools side by side (lp_site_about prints them):
 *   attn_out and mlp_out are AFTER Gemma 2's post-norms: what is added to the residual stream (TransformerLens'
 *     hook_attn_out, hook_mlp_out).  The sublayers' own outputs (Hugging Face's module outputs) are attn_raw, mlp_raw.
 *   *_rms is the divisor sqrt(mean(x^2) + eps), as TransformerLens' hook_scale; it can be written (frozen norms).
 *   scores are scaled, soft-capped AND masked; masked entries are -inf.  Writing a masked entry has no effect.
 *   the last layer's resid_post is before the final norm (Hugging Face's hidden_states[-1] is after it).
 *   embed is already scaled by sqrt(D) (Hugging Face 4.x showed it unscaled at the embedding module; 5.x scales
 * inside).
 */
#ifndef LP_CORE_HOOKS_H
#define LP_CORE_HOOKS_H

#include "core/base.h"

typedef enum lp_site {
    LP_EMBED_RAW,     /* [D]      the table's row, before scaling                                    */
    LP_EMBED,         /* [D]      x sqrt(D)                       hook_embed                         */
    LP_RESID_PRE,     /* [D]                                      blocks.l.hook_resid_pre            */
    LP_ATTN_PRE_RMS,  /* [1]      the divisor                     ln1.hook_scale                     */
    LP_ATTN_IN,       /* [D]      after (1 + w): what W_Q sees                                       */
    LP_Q,             /* [H][E]   before RoPE                     attn.hook_q                        */
    LP_K,             /* [G][E]                                   attn.hook_k                        */
    LP_V,             /* [G][E]                                   attn.hook_v                        */
    LP_Q_ROT,         /* [H][E]   after RoPE                      attn.hook_rot_q                    */
    LP_K_ROT,         /* [G][E]                                   attn.hook_rot_k                    */
    LP_SCORES,        /* [H][K]   scaled, capped, masked (-inf)   attn.hook_attn_scores              */
    LP_PATTERN,       /* [H][K]   softmax                         attn.hook_pattern                  */
    LP_Z,             /* [H][E]   what W_O sees                   attn.hook_z      (Gemma Scope att) */
    LP_ATTN_RAW,      /* [D]      W_O's output, before post-norm                                     */
    LP_ATTN_POST_RMS, /* [1]                                      ln1_post.hook_scale                */
    LP_ATTN_OUT,      /* [D]      as added to the stream          hook_attn_out                      */
    LP_RESID_MID,     /* [D]                                      hook_resid_mid                     */
    LP_MLP_PRE_RMS,   /* [1]                                      ln2.hook_scale                     */
    LP_MLP_NORMED,    /* [D]      x / rms, without gain           ln2.hook_normalized  (transcoders) */
    LP_MLP_IN,        /* [D]      after (1 + w)                                                      */
    LP_MLP_GATE,      /* [F]                                      mlp.hook_pre                       */
    LP_MLP_UP,        /* [F]                                      mlp.hook_pre_linear                */
    LP_MLP_ACT,       /* [F]      gelu(gate) * up                 mlp.hook_post                      */
    LP_MLP_RAW,       /* [D]      W_down's output                                                    */
    LP_MLP_POST_RMS,  /* [1]                                      ln2_post.hook_scale                */
    LP_MLP_OUT,       /* [D]      as added to the stream          hook_mlp_out     (Gemma Scope mlp) */
    LP_RESID_POST,    /* [D]                                      hook_resid_post  (Gemma Scope res) */
    LP_FINAL_RMS,     /* [1]                                      ln_final.hook_scale                */
    LP_FINAL_IN,      /* [D]      after (1 + w): what W_U sees                                       */
    LP_LOGITS_RAW,    /* [V]      before the soft-cap             unembed.hook_out                   */
    LP_LOGITS,        /* [V]      after the soft-cap                                                 */
    LP_N_SITES        /* at most 32: a mask is one uint32_t */
} lp_site;

enum { LP_WHOLE_MODEL = -1, LP_EVERY_LAYER = -2 };

typedef struct lp_act {
    lp_site site;
    int layer;  /* 0 .. n_layers-1, or LP_WHOLE_MODEL                                     */
    int branch; /* which of lp_session_branch's alternatives; else 0                       */
    int pos;    /* absolute position of row 0                                              */
    int rows;   /* tokens shown in this call: a wave, or part of one                       */
    int heads;  /* 1 unless the site is per head                                           */
    int width;  /* floats per head; for SCORES and PATTERN the keys 0 .. pos + rows - 1    */
    float *x;   /* [rows][heads][width], contiguous                                        */
} lp_act;

/* 0: go on.  Anything else stops the evaluation, which then commits nothing and returns LP_STOPPED. */
typedef int (*lp_hook_fn)(lp_act *act, void *user);

typedef struct lp_hook {
    lp_site site;
    int layer;  /* one layer, LP_EVERY_LAYER, or LP_WHOLE_MODEL for the sites that have no layer */
    bool edits; /* may write act->x.  Debug builds checksum x and stop at a hook that lied       */
    lp_hook_fn fn;
    void *user; /* borrowed until lp_session_unhook */
} lp_hook;

/* The site's name in our spelling ("resid_post"), TransformerLens' ("hook_resid_post", without "blocks.l.", NULL: it
 * has none) and Hugging Face's ("self_attn.o_proj input", NULL: no module boundary), and one line about it. */
const char *lp_site_name(lp_site site);
const char *lp_site_lens_name(lp_site site);
const char *lp_site_hf_name(lp_site site);
const char *lp_site_about(lp_site site);
bool lp_site_has_layer(lp_site site);

/* The name of a tensor holding this site: "blocks.3.hook_resid_post", "ln_final.hook_scale", "logits"; sites that
 * TransformerLens lacks are spelled the same way ("blocks.3.attn_in"). */
const char *lp_site_tensor_name(char *buf, size_t n, lp_site site, int layer);

/* Any spelling: "resid_post", "resid_post.20", "blocks.20.hook_resid_post", "hook_resid_post",
 * "model.layers.20.mlp.down_proj.input" (a module alone means its output).  *layer: the layer named, LP_EVERY_LAYER if
 * a site that has layers names none, LP_WHOLE_MODEL otherwise.  Unknown: LP_E_NOT_FOUND with the nearest names. */
lp_status lp_site_parse(const char *name, lp_site *site, int *layer, lp_error *err);

/* ---- the one built-in hook -------------------------------------------------------------------------------- */

/* Copies what passes into memory of yours, each row at its absolute position, so that the cutting of a prompt into
 * waves never shows.  Positions outside [first_pos, first_pos + n_pos) are ignored; so is what lies beyond `width`. */
typedef struct lp_tape {
    float *x;     /* [n_layers or 1][n_pos][width]                                              */
    int n_layers; /* 1 for a hook on one layer; the model's for LP_EVERY_LAYER                  */
    int first_pos, n_pos;
    int width; /* floats per position: heads * width of the site; for SCORES, PATTERN heads * keys */
    int heads; /* 0 or 1, except for SCORES and PATTERN, whose rows grow: head h goes to h * (width / heads) */
} lp_tape;

lp_hook lp_tap(lp_site site, int layer, lp_tape *t);

#endif
