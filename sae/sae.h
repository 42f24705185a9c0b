/* sae.h - a sparse autoencoder: where it reads, what it computes, its weights.  Immutable after opening, shared by any
 * number of threads.
 *
 * With x the activation at its site (z flattened head by head), W_enc [d_in][d_sae], W_dec [d_sae][d_out]:
 *
 *     x'   = x - b_dec where the format says apply_b_dec_to_input, else x;  normalised where it says so (below)
 *     pre  = x' W_enc + b_enc
 *     f    = standard   relu(pre)
 *            jumprelu   pre where pre > threshold (strictly) and pre > 0, else 0
 *            topk       relu(pre) of the k largest pre of the row, else 0 (the lower index first among equals)
 *            gated      relu(x' (W_enc exp(r_mag)) + b_mag) where x' W_enc + b_gate > 0, else 0
 *     out  = f W_dec + b_dec  (+ x W_skip^T for a skip transcoder), the normalisation undone
 *
 * Sources: Lieberum et al., Gemma Scope (arXiv 2408.05147), section 2 and appendix A; SAELens 6, sae_lens/saes.
 *
 * Formats: Gemma Scope's params.npz (jumprelu; b_dec is never subtracted, nothing is normalised); SAELens' folders,
 * cfg.json of version 6 and before, with sae_weights.safetensors; a direction of a control vector, as an SAE of one
 * feature (sae/direction.h).
 */
#ifndef LP_SAE_SAE_H
#define LP_SAE_SAE_H

#include "core/hooks.h"
#include "core/matmul.h"

typedef enum lp_sae_kind { LP_SAE_STANDARD, LP_SAE_JUMPRELU, LP_SAE_TOPK, LP_SAE_GATED } lp_sae_kind;

/* What is done to a row before encoding and undone after decoding (SAELens' normalize_activations). */
typedef enum lp_sae_norm {
    LP_SAE_NORM_NONE,     /* also "expected_average_only_in": SAELens folds that scalar into the weights  */
    LP_SAE_NORM_CONSTANT, /* x sqrt(d_in) / ||x||                                                          */
    LP_SAE_NORM_LAYER,    /* (x - mean) / (std + 1e-5), the unbiased std                                    */
} lp_sae_norm;

/* Where an SAE reads and what it predicts. */
typedef struct lp_sae_spot {
    lp_site site;  /* LP_N_SITES: not known */
    int layer;     /* or LP_WHOLE_MODEL     */
    bool is_coder; /* a transcoder: `site_out` differs from `site` */
    lp_site site_out;
    int layer_out;
} lp_sae_spot;

typedef struct lp_sae {
    lp_sae_kind kind;
    lp_sae_norm norm;
    int d_in, d_sae, d_out;
    int k;         /* topk */
    bool rescales; /* topk: pre is multiplied by ||W_dec[i]|| before the k are chosen, f divided by it to decode */
    bool subtracts_bias; /* apply_b_dec_to_input */
    bool has_skip;       /* out += x W_skip^T     */

    lp_matrix encoder;     /* [d_sae, d_in] panels, F32 or BF16               */
    float *b_enc;          /* [d_sae]; gated: b_gate                          */
    float *threshold;      /* [d_sae] jumprelu                                */
    float *gain;           /* [d_sae] gated: exp(r_mag); b_mag below          */
    float *b_mag;          /* [d_sae] gated                                   */
    float *dec_norm;       /* [d_sae] ||W_dec[i]||                            */
    float *b_dec;          /* [d_out]                                         */
    void *decoder;         /* [d_sae][d_out] rows, decoder_type               */
    lp_dtype decoder_type; /* LP_F32 or LP_BF16                               */
    lp_matrix skip;        /* [d_out, d_in], with has_skip                     */

    lp_sae_spot spot;
    char *name;         /* as it is called: Neuronpedia's source id where there is one, else from the file    */
    char *model_name;   /* the model it says it was trained on; NULL: it does not say                          */
    char *path;         /* of the params.npz, or the folder                                                      */
    double declared_l0; /* of the folder's name; 0: it does not say                                              */
    char hash[33];      /* XXH3-128 over the f32 values, W_enc W_dec b_enc b_dec, then the kind's own: hex         */
    uint64_t bytes;     /* memory held by the weights                                                            */
    uint64_t n_nonfinite;
    void *arena;
    size_t arena_bytes;
} lp_sae;

typedef struct lp_sae_options {
    int bf16; /* 1: hold encoder and decoder rounded to BF16: half the memory, no longer the exact numbers */
    uint64_t
        memory_limit; /* 0: what the machine has left (UINT64_MAX: do not check)                                   */
    lp_sae_spot spot; /* is_given: overrides what the files say or do not say                                      */
    int is_spot_given;
} lp_sae_options;

/* `path`: a params.npz (any name ending in .npz), a folder holding one, a SAELens folder, FILE.gguf/direction.N.
 * options NULL: defaults.
 * Says the memory needed before taking it (env->log); LP_E_MEMORY when it does not fit.  Every shape is checked against
 * the others; a NaN or infinity is logged and counted. */
lp_status lp_sae_open(lp_sae **out, const char *path, const lp_sae_options *o, const lp_env *env, lp_error *err);
void lp_sae_close(lp_sae *s); /* NULL is fine */

/* "standard", "jumprelu", "topk", "gated". */
const char *lp_sae_kind_name(lp_sae_kind k);

/* The decoder's row of a feature as f32: out[d_out]. */
void lp_sae_decoder_row(const lp_sae *s, int feature, float *out);
/* x [d_out] += scale * the decoder's row. */
void lp_sae_add_decoder(const lp_sae *s, int feature, float scale, float *x);
/* The encoder's column: out[d_in]. */
void lp_sae_encoder_row(const lp_sae *s, int feature, float *out);

/* "resid_post.20", "embed"; "?" where it is not known.  Of a spot: "mlp_normed.19 to mlp_out.19" where it has two ends. */
enum { LP_SPOT_TEXT = 64 };
const char *lp_sae_place_text(char buf[LP_SPOT_TEXT], lp_site site, int layer);
const char *lp_sae_spot_text(char buf[LP_SPOT_TEXT], const lp_sae_spot *spot);

/* The site's tensor for Gemma Scope's name of it: "res", "mlp", "att", "transcoder(s)".  False: another word. */
bool lp_sae_spot_parse(lp_sae_spot *spot, const char *word, int layer);

#endif
