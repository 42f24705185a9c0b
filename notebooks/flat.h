/* flat.h - what a language that calls C without reading headers needs beside the headers: notebooks/lapidary.py.
 *
 * Two kinds of struct, two ways.  Large ones the engine owns (a model, an SAE, labels, a recipe) stay opaque: Python holds a
 * pointer and looks through the functions below, so that a field may come or go.  Small ones that are a call's own
 * words (an activation, a hook, options, features) are declared again in Python, since a hook reads one at every
 * layer of every token and an accessor per number would cost more than the hook; lp_flat_fields tells where C has
 * each of their fields, and Python compares before its first call.
 */
#ifndef LP_NOTEBOOKS_FLAT_H
#define LP_NOTEBOOKS_FLAT_H

#include "core/model.h"
#include "sae/labels.h"
#include "sae/recipe.h"
#include "sae/sae.h"

/* A field of a struct; the struct itself (name "", its size); a constant (of "", its value as offset). */
typedef struct lp_flat_field {
    const char *of, *name;
    int64_t offset, size;
    int is_real; /* 1: a float or double, which may be as large as an integer and is not one */
} lp_flat_field;
const lp_flat_field *lp_flat_fields(size_t *n);

/* Borrowed from the model. */
const lp_config *lp_flat_config(const lp_model *m);
const lp_tokenizer *lp_flat_tokenizer(const lp_model *m); /* NULL: it has none */
const char *lp_flat_model_path(const lp_model *m);

/* An SAE by any name of sae/names.h, the shipped ones among them, with its labels as lp_labels_find finds them in `labels`
 * (a folder, or NULL).  Both are yours; env as in lp_sae_open. */
lp_status lp_flat_sae_open(lp_sae **out, lp_labels **named, const char *name, const char *labels, int bf16,
                           const lp_env *env, lp_error *err);
void lp_flat_labels_free(lp_labels *l); /* NULL is fine */

typedef struct lp_flat_sae { /* borrowed from the SAE */
    const char *name, *path, *kind, *hash;
    int site, layer, d_in, d_sae, d_out; /* site LP_N_SITES: not known */
    int needs_input;                     /* lp_decode wants the rows that were encoded */
    int is_bf16;                         /* what decoder holds: uint16 bf16, else f32  */
    double declared_l0;                  /* 0: it does not say                         */
    const void *decoder;                 /* [d_sae][d_out]                             */
    const float *b_enc;                  /* [d_sae]                                    */
    const float *b_dec;                  /* [d_out]                                    */
    const float *threshold;              /* [d_sae], or NULL                           */
} lp_flat_sae;
void lp_flat_sae_look(lp_flat_sae *out, const lp_sae *s);

/* A recipe from JSON text, or by path or shipped name where text is NULL.  Yours. */
lp_status lp_flat_recipe_open(lp_recipe **out, const char *name, const char *text, lp_error *err);
void lp_flat_recipe_free(lp_recipe *r); /* NULL is fine */

/* Frees what a function gave away with "yours to free": the library's own free(). */
void lp_flat_free(void *p);

#endif
