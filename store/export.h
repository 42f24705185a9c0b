/* export.h - a run's activations in the formats other programs read.
 *
 * Comma- or tab-separated text, one line per activation:
 *     document,pos,token,feature,value        document: its number in the corpus; value: nine digits, so exact
 *
 * delphi's latent cache [1], as LatentCache.save_splits writes it and LatentDataset reads it:
 *     OUT/MODULE/START_END.safetensors        features START to END, END included
 *         tokens       I64 [windows][longest]        shorter windows are filled up with pad_id
 *         locations    U16 or U32 [n][3]             window, place in it, feature - START; rising
 *         activations  F16 [n]                       above 1e-5, as delphi leaves out the rest
 *     OUT/MODULE/config.json
 * MODULE is the module delphi hooks: "layers.12" for resid_post, "layers.12.post_feedforward_layernorm" for mlp_out, and
 * "layers.12.<site>" elsewhere.  U32 where 65536 or more windows or features in a split call for it.  F16 has 11 bits: what
 * is lost is delphi's to lose; a value above 65504 is refused, where delphi would write infinity.
 *
 * The AnnData people need nothing: a shard's groups are csr_matrix and csc_matrix as they stand (shard.h).
 *
 * [1] EleutherAI/delphi 0.1.3, delphi/latents/cache.py and loader.py
 */
#ifndef LP_STORE_EXPORT_H
#define LP_STORE_EXPORT_H

#include "store/series.h"

typedef struct lp_export_report {
    int64_t rows, windows;
    uint64_t values;  /* written               */
    uint64_t dropped; /* too small for delphi */
} lp_export_report;

/* A file, gzipped where its name ends in .gz; by tabs where it is a .tsv(.gz).  Atomic.  r may be NULL. */
lp_status lp_export_text(lp_export_report *r, const lp_series *s, const char *path, const lp_env *env, lp_error *err);

typedef struct lp_delphi_options {
    int n_splits; /* 0: 5, as delphi does         */
    int pad_id;
    const char *model_name; /* for config.json: what AutoTokenizer.from_pretrained takes */
    const char *dataset;    /* for config.json              */
} lp_delphi_options;

/* A folder that must not be there yet; it appears when all of it is written. */
lp_status lp_export_delphi(lp_export_report *r, const lp_series *s, const char *folder, const lp_delphi_options *o,
                           const lp_env *env, lp_error *err);

/* The module delphi would call an SAE's place; free it, NULL: out of memory. */
char *lp_delphi_module(const lp_sae_spot *spot);

#endif
