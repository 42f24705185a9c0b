/* names.h - from what a person types to the place on disk of an SAE.  Nothing is ever fetched.
 *
 *   1  file.npz, folder           a path: any .npz; a folder with params.npz; a SAELens folder (cfg.json and
 *                                 sae_weights.safetensors)
 *   2  gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71
 *                                 SAELens' release and id; also .../canonical, and the release as SAELens spells it for
 *                                 that, gemma-scope-2b-pt-res-canonical
 *   3  google/gemma-scope-2b-pt-res/layer_20/width_16k/canonical
 *                                 the same with the Hub's owner in front
 *   4  gemma-2-2b/20-gemmascope-res-16k
 *                                 Neuronpedia's; "__l0-22" behind it names another sparsity than the canonical one, and
 *                                 "/12082" a feature
 *   5  owner/repo/path/in/repo    what anybody put on the Hub: an .npz or a folder as in 1
 *   6  3-lapidary-res-2k, lapidary-base/3-lapidary-res-2k, res/layer_3/width_2k/canonical
 *                                 in the folder of the embedded model's SAEs, which is laid out
 *                                 SITE/layer_L/width_W/average_l0_N/params.npz, SITE one of res, mlp, att, transcoder
 *   7  FILE.gguf/direction.12     a direction of a control vector (sae/direction.h)
 *
 * 2 to 5 are looked up in the Hugging Face cache (core/hub.h).
 *
 * "canonical" is a rule and no folder: of the sparsities N of a layer and width, the one nearest to 100.  Files that
 * are on disk are counted beside those known to exist.  SAELens and Neuronpedia name none for layer 12 131k of
 * 2b-pt-res and layer 20 262k of 9b-pt-res; the rule gives 129 and 50 there.  Where two are equally near, SAELens once
 * took the smaller and once the larger (9b-pt-att: 66 and not 134 for layer 23 131k, 136 and not 64 for layer 27 16k);
 * so do we, and the smaller elsewhere.  Transcoders do not follow the rule: canonical is the one of each layer that
 * SAELens and Neuronpedia list (circuit-tracer's set l0-0), N from 5 to 95.  SAEs of the embedding have none, and go by
 * 2 and 3 only.
 */
#ifndef LP_SAE_NAMES_H
#define LP_SAE_NAMES_H

#include "sae/sae.h"

/* The model that the folder given as `embedded` belongs to, as ids spell it. */
#define LP_SAE_EMBEDDED_MODEL "lapidary-base"

typedef struct lp_sae_place {
    char *path;       /* what lp_sae_open takes                                                                */
    char *source_id;  /* Neuronpedia's: "20-gemmascope-res-16k", "20-gemmascope-res-16k__l0-22"; NULL: none   */
    char *model_id;   /* Neuronpedia's: "gemma-2-2b"; NULL: not known                                          */
    char *repo;       /* "google/gemma-scope-2b-pt-res"; NULL: the path does not tell                          */
    lp_sae_spot spot; /* site LP_N_SITES: not known                                                            */
    int l0;           /* of the folder's name; 0: none                                                         */
    int width;        /* d_sae as the width's word has it; 0: not known                                        */
    long feature;     /* typed behind a Neuronpedia id; -1: none.  Nobody has compared it with d_sae yet       */
} lp_sae_place;

/* `embedded`: the folder of form 6, or NULL.  Not in the cache: LP_E_NOT_FOUND, and the text says which sparsities of
 * that layer and width are there, and holds the `hf download ...` line that gets the one asked for.  A layer, width,
 * sparsity, release or model that does not exist: LP_E_NOT_FOUND with those that do.  On failure *out is empty. */
lp_status lp_sae_find(lp_sae_place *out, const char *name, const char *embedded, lp_error *err);

/* All that a path tells by its last parts, .../layer_20/width_16k/average_l0_71 with or without an .npz behind, and by
 * what stands before them: the name of a release, also as models--google--..., or right in front res, mlp, att or
 * transcoder.  The neighbours on disk are looked at, to know whether the id needs its __l0-N.  Fails for want of memory
 * only. */
lp_status lp_sae_place_from_path(lp_sae_place *out, const char *path, lp_error *err);

void lp_sae_place_clear(lp_sae_place *p); /* frees what it holds, leaves it empty */

/* Every SAE below a folder laid out as in 6, by site, layer, width and sparsity.  Free with lp_sae_list_free. */
lp_status lp_sae_list(lp_sae_place **out, size_t *n, const char *folder, lp_error *err);
/* Those of Gemma Scope's repositories that the Hugging Face cache holds, repository by repository, in the same order. */
lp_status lp_sae_list_cached(lp_sae_place **out, size_t *n, lp_error *err);
void lp_sae_list_free(lp_sae_place *list, size_t n);

/* ---- one SAE of Gemma Scope by all its names (names_lens.c) ------------------------------------------------------ */

typedef struct lp_sae_names {
    char *model, *source; /* Neuronpedia's: "gemma-2-2b", "20-gemmascope-res-16k"                                     */
    char *release, *id;   /* SAELens': "gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71", never "canonical" */
    lp_sae_spot spot;
} lp_sae_names;

/* Nothing is looked for on disk.  LP_E_UNSUPPORTED: another's SAE; LP_E_NOT_FOUND: Gemma Scope has none of that name.  On
 * failure *out is empty. */
lp_status lp_sae_names_of_source(lp_sae_names *out, const char *model, const char *source, lp_error *err);
lp_status lp_sae_names_of_lens(lp_sae_names *out, const char *release, const char *id, lp_error *err);
void lp_sae_names_clear(lp_sae_names *n);

#endif
