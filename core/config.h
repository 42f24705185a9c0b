/* config.h - the numbers that make a Gemma 2: from config.json (old and new spellings) or from GGUF metadata.
 *
 * One-letter axes used throughout core:
 *     n rows, D d_model, H heads, G kv heads, E head_dim, F d_ff, K keys, V vocab, L layers
 */
#ifndef LP_CORE_CONFIG_H
#define LP_CORE_CONFIG_H

#include "core/gguf.h"

enum { LP_MAX_LAYERS = 256 };

typedef struct lp_config {
    int n_layers;   /* L */
    int d_model;    /* D */
    int n_heads;    /* H, a multiple of n_kv_heads; query head h reads kv head h / (H/G) */
    int n_kv_heads; /* G */
    int head_dim;   /* E, even; not D / H                                                 */
    int d_ff;       /* F */
    int vocab;      /* V */
    int max_positions;
    int window; /* keys a sliding layer sees, the query among them: i - j < window */
    double rope_theta;
    double rms_eps;
    double query_pre_attn_scalar; /* scores are scaled by this ^ -1/2                        */
    double attn_softcap;          /* 0: none                                                 */
    double final_softcap;         /* 0: none                                                 */
    bool sliding[LP_MAX_LAYERS];  /* even layers in every released Gemma 2                  */
    int bos, eos, pad;            /* token ids; -1 unknown                                  */
    bool norms_hold_gain;         /* GGUF: the stored norm weight is already 1 + w          */
} lp_config;

/* text: the JSON, n bytes.  Refuses what is not Gemma 2, naming what it is. */
lp_status lp_config_parse(lp_config *c, const char *text, size_t n, const lp_env *env, lp_error *err);
lp_status lp_config_from_gguf(lp_config *c, const lp_gguf *g, const lp_env *env, lp_error *err);

/* Do these numbers make a model?  (The readers have asked already.) */
lp_status lp_config_check(const lp_config *c, lp_error *err);

/* The released shapes ("2b", "9b", "27b") and a tiny one ("nano") for synth and bench. False: no such name. */
bool lp_config_shape(lp_config *c, const char *name);

/* Parameters, the tied table counted once. */
uint64_t lp_config_parameters(const lp_config *c);

/* "gemma-2-9b" when the shape is a released one, else "gemma-2 (custom)". */
const char *lp_config_family(const lp_config *c);

#endif
