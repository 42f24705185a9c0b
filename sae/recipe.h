/* recipe.h - what to change in a model while it runs, as a file: which features, how, how much, where.
 *
 *     {"format": "lapidary-recipe", "version": 1, "name": "sea", "modelId": "lapidary-base",
 *      "features": [{"layer": "3-lapidary-res-2k", "index": 473, "kind": "clamp",
 *                    "unit": "max_act", "strength": 1.0, "max_act": 8.53}],
 *      "scope": {"prompt": true, "generated": true}}
 *
 * The names are those of Neuronpedia's steer request, of which this is a superset: modelId, layer (the id of the SAE,
 * not a number), index, strength.  With x the activation at the hook, f the feature's activation encoded from that x, d
 * its decoder row as the file has it (not normalised), s = strength times unit:
 *
 *     add        x + s d                       clamp      x + (s - f) d
 *     clamp_min  x + max(0, s - f) d           clamp_max  x + min(0, s - f) d
 *     scale      x + (s - 1) f d               ablate     x - f d
 *     project    x - (x.d^) d^ + s d^          d^ = d / |d|; strength may be missing: 0
 *     replace    decode(f'), f' = f with this feature set to s: what the SAE does not explain is dropped
 *
 * Sources: Templeton et al., Scaling Monosemanticity (clamp, the error kept); Wu et al., AxBench (add, clamp_min);
 * Arditi et al., arXiv 2406.11717 (project); SAELens, use_error_term (replace).  How they meet at one hook: steer.h.
 *
 * unit: "absolute" (the default), "max_act" or "mean_norm": times the edit's number of that name, which whoever runs
 * the recipe fills in where the file lacks it.
 *
 * scope, of the recipe or of one edit, which then hears nothing of the recipe's: a position is <bos>, or the chat
 * template's, or else the prompt's or generated, and is edited if that class is on (the default: prompt, generated);
 * "last_prompt" leaves of the class prompt only the prompt's last token, and takes that one even if it is the
 * template's (in a chat it always is).  If "ranges" are given, the position is also in one of [from, to); if "text" is
 * given, a POSIX extended regular expression, its token also overlaps a match.  The prompt is matched as a whole; a
 * generated token against the text generated up to and with it: the past is already computed, so a token whose match is
 * completed by a later one is not edited, and the one that completes it is.
 *
 * "schedule": {"from", "to", "ramp", "decay"} multiplies the change (not the strength: a clamp at half is half way from
 * f to s) by 0 outside of the steps [from, to), else by min(1, (step - from) / ramp) decay^(step - from).  Steps count
 * generated tokens from 0; the prompt counts as step 0 in every respect.
 *
 * "when": {"layer", "index", "above"}: only at positions where that feature fires above so much.
 *
 * Of the recipe: "joint": the clamps of one hook reach their values together; "keep_norm": x' gets the length of x;
 * "error_term": false sends every edited row through the reconstruction, as replace does.
 *
 * An unknown key is an error, so that a slip of the pen is not another experiment; keys beginning with "x_" are
 * anybody's, and are kept at the top and in the edits.
 */
#ifndef LP_SAE_RECIPE_H
#define LP_SAE_RECIPE_H

#include "sae/labels.h"

enum { LP_RECIPE_EDITS = 4096, LP_RECIPE_RANGES = 4096, LP_RECIPE_PATTERN = 1000, LP_RECIPE_BYTES = 16 << 20 };

typedef enum lp_recipe_kind {
    LP_RECIPE_ADD,
    LP_RECIPE_CLAMP,
    LP_RECIPE_CLAMP_MIN,
    LP_RECIPE_CLAMP_MAX,
    LP_RECIPE_SCALE,
    LP_RECIPE_ABLATE,
    LP_RECIPE_PROJECT,
    LP_RECIPE_REPLACE,
    LP_RECIPE_N_KINDS
} lp_recipe_kind;

typedef enum lp_recipe_unit {
    LP_RECIPE_ABSOLUTE,
    LP_RECIPE_MAX_ACT,
    LP_RECIPE_MEAN_NORM,
    LP_RECIPE_N_UNITS
} lp_recipe_unit;

const char *lp_recipe_kind_name(lp_recipe_kind k); /* "add", "clamp", ... */
const char *lp_recipe_unit_name(lp_recipe_unit u);

typedef struct lp_recipe_range {
    int from, to; /* absolute positions, [from, to) */
} lp_recipe_range;

typedef struct lp_recipe_scope { /* lp_recipe_scope_default() is the default, not all zero */
    bool bos, template, prompt, last_prompt, generated;
    lp_recipe_range *ranges; /* [n_ranges]; 0: everywhere */
    size_t n_ranges;
    char *text; /* NULL: any */
} lp_recipe_scope;

typedef struct lp_recipe_schedule { /* all zero: none */
    bool is_given;
    int from, to, ramp; /* to INT_MAX: for ever */
    double decay;       /* 1: none              */
} lp_recipe_schedule;

typedef struct lp_recipe_condition {
    char *source; /* the SAE's id; NULL: no condition */
    int index;
    double above;
} lp_recipe_condition;

typedef struct lp_recipe_edit {
    char *source; /* "layer": the SAE's id */
    int index;
    char *description; /* or NULL */
    lp_recipe_kind kind;
    lp_recipe_unit unit;
    double strength;           /* in units; ablate: 0 */
    double max_act, mean_norm; /* 0: not given        */
    bool has_scope;            /* its own; else the recipe's */
    lp_recipe_scope scope;
    lp_recipe_schedule schedule;
    lp_recipe_condition when;
    char *extra; /* its "x_" keys as a JSON object, or NULL */
} lp_recipe_edit;

typedef struct lp_recipe {    /* open: whoever builds one by hand asks lp_recipe_check.  All zero is an empty one */
    char *name, *description; /* or NULL */
    char *model;              /* modelId, or NULL: not said */
    lp_recipe_edit *edits;    /* [n_edits] */
    size_t n_edits;
    lp_recipe_scope scope;
    bool is_joint, keeps_norm, drops_error; /* "joint", "keep_norm", not "error_term" */
    char *extra;
} lp_recipe;

lp_recipe_scope lp_recipe_scope_default(void);

/* On failure *out is empty.  What is wrong is said with its place: "sea.json: features[2]: unknown kind ...". */
lp_status lp_recipe_read(lp_recipe *out, const char *path, lp_error *err);
lp_status lp_recipe_parse(lp_recipe *out, const char *text, size_t n, lp_error *err);
/* `name`: a path, or the name of a recipe that is shipped ("sea"); a file of that name comes first. */
lp_status lp_recipe_find(lp_recipe *out, const char *name, lp_error *err);
/* "max_act" from the labels of the SAE `source`, in its edits that want it and leave it open. */
void lp_recipe_fill(lp_recipe *r, const char *source, const lp_labels *l);
void lp_recipe_clear(lp_recipe *r); /* frees what it holds, leaves it empty */

/* All that can be known without the SAEs and the model.  (lp_recipe_parse and lp_steer_new ask it.) */
lp_status lp_recipe_check(const lp_recipe *r, lp_error *err);

/* strength times unit.  LP_E_RANGE: the unit's number is not given. */
lp_status lp_recipe_amount(double *out, const lp_recipe_edit *e, lp_error *err);
/* The scope in force for an edit of this recipe. */
const lp_recipe_scope *lp_recipe_scope_of(const lp_recipe *r, const lp_recipe_edit *e);
/* The factor of a schedule at a step: 0 not at all, 1 in full. */
double lp_recipe_factor(const lp_recipe_schedule *s, int step);

/* JSON as a person would want to read it; *out is yours to free. */
lp_status lp_recipe_text(char **out, const lp_recipe *r, lp_error *err);
lp_status lp_recipe_write(const lp_recipe *r, const char *path, lp_error *err);

/* XXH3-128 of all that changes a number, as hex: compact JSON with sorted keys and every default spelled out.
 * Names, descriptions, "x_" keys and units' numbers that are not used are not in it; the order of the edits is (sums
 * have one). */
lp_status lp_recipe_hash(char out[33], const lp_recipe *r, lp_error *err);

#endif
