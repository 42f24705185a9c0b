/* labels.h - what people and programs have called the features of an SAE, read from Neuronpedia's bulk export.
 *
 *     FOLDER/<source id>/explanations/batch-*.jsonl(.gz)    {"index":"473","description":"...","typeName":"..."}
 *     FOLDER/<source id>/features/batch-*.jsonl(.gz)        {"index":"473","maxActApprox":8.53,"frac_nonzero":0.0021}
 *
 * Rows are found by "index", never by their place: the export sorts indices as text.  Unknown fields are passed over,
 * missing and null ones are absent.  A feature may have several descriptions; the first of the best kind is shown: a
 * person's (no typeName, or one that is not an automatic one) before a program's.
 *
 * A label is somebody's claim, not a measurement: typeName says whose.
 */
#ifndef LP_SAE_LABELS_H
#define LP_SAE_LABELS_H

#include "core/base.h"

typedef struct lp_label {
    char *text;  /* NULL: none         */
    char *kind;  /* typeName, or NULL  */
    float max;   /* largest activation on the exporter's corpus; 0: not known            */
    float share; /* of that corpus' tokens on which it fires; NaN: not known              */
} lp_label;

typedef struct lp_labels {
    lp_label *items; /* [n] by feature */
    int n;
    int n_named; /* with a text */
} lp_labels;

/* Labels of an SAE of d_sae features.  `folder`: the source's own folder.  LP_E_NOT_FOUND: no such folder, or nothing of an
 * export in it.  A line that is no JSON or names a feature the SAE does not have is LP_E_FORMAT, with file and line. */
lp_status lp_labels_read(lp_labels *out, const char *folder, int d_sae, lp_error *err);
/* The same for an SAE known by its ids: in DIR/<model>/<source>, else DIR/<source>, else DIR itself, the first that is a
 * folder.  dir NULL: the shipped labels, which may be missing (*out is then empty).  source NULL: DIR itself. */
lp_status lp_labels_find(lp_labels *out, const char *dir, const char *model, const char *source, int d_sae,
                         lp_error *err);
/* Names a feature of an SAE of d_sae, whatever it was called; an empty *l is made for it.  kind NULL: a person's. */
lp_status lp_labels_put(lp_labels *l, int d_sae, int feature, const char *text, const char *kind, lp_error *err);
void lp_labels_free(lp_labels *l); /* its contents; NULL is fine */

const char *lp_label_text(const lp_labels *l, int feature); /* NULL: none; l may be NULL */
float lp_label_max(const lp_labels *l, int feature);        /* 0: not known; l may be NULL */

#endif
