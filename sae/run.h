/* run.h - a run file: all that is needed to generate the same text again, to the bit, and to see that it is the same.
 *
 *     {"format": "lapidary-run", "version": 1,
 *      "model": {"name": "base", "hash": "...", "vocab": 8192}, "tokenizer": "...",
 *      "session": {"arithmetic": "exact", "kernels": "avx512", "embed_scale": "f32", "n_ctx": 8192},
 *      "saes": [{"name": "3-lapidary-res-2k", "hash": "...", "type": "f32"}], "sae_site": null,
 *      "recipe": {...}, "recipe_hash": "...",
 *      "prompt": [2, 10, 11], "template": [0, 1],
 *      "sampling": {...}, "stop": {...},
 *      "ids": [5, 6, 7], "finish": "length", "logits": "...",
 *      "readback": [{"pos": 1, "edit": 0, "asked": 8.5, "before": 0.0, "achieved": 8.5, "status": "plain"}]}
 *
 * Everything down to "stop" is what went in, the rest what came out.  The recipe stands there as a whole, its units
 * filled in, so that nobody needs the file or the labels it was made from.
 *
 * Numbers come back to the same bits: 17 significant digits name one double (and every float is one); what JSON has no
 * number for is "inf", "-inf", and null for NaN; the seed is a string, since 64 bits do not survive every reader.
 *
 * All hashes are XXH3-128, as hex.  What is hashed:
 *     model       the numbers of the configuration, then of every matrix its shape, its panel format and its packed
 *                 bytes, of every gain its floats, in the order of the layers.  It names a model as it is held: packing
 *                 is deterministic, so one checkpoint in one container type has one hash on every machine, while a
 *                 quantised copy, whose numbers are others, has another.
 *     tokenizer   of every id the length, the bytes, the type and whether it is special; then the ids of bos, eos, pad
 *                 and unk.  Scores are not in it: ids of Gemma's vocabulary are in the order of its merges.
 *     logits      the floats [V] after the last token that was evaluated, before any sampling
 *
 * In exact arithmetic every machine and kernel table gives the same bits, in fast arithmetic every machine with the same
 * table: where everything that went in is equal and what came out is not, there is a bug.
 */
#ifndef LP_SAE_RUN_H
#define LP_SAE_RUN_H

#include "sae/steer.h"

enum { LP_RUN_IDS = 1 << 17, LP_RUN_LIST = 4096, LP_RUN_READINGS = 400000, LP_RUN_BYTES = 64 << 20 };

typedef struct lp_run_sae {
    char *name;    /* what was typed to open it */
    char hash[33]; /* lp_sae.hash */
    lp_dtype type; /* held as: LP_F32 or LP_BF16 */
} lp_run_sae;

typedef struct lp_run { /* all zero is an empty one; owns all it points to */
    char *model;        /* as typed, or the name of an embedded one */
    char model_hash[33];
    int vocab;                  /* ids of every list are below it */
    char tokenizer_hash[33];    /* "": it has none */
    lp_session_options session; /* wave is left 0: it never changes a bit */
    char *kernels;
    lp_run_sae *saes; /* [n_saes] */
    size_t n_saes;
    char *sae_site; /* where SAEs that do not say so read, as typed; or NULL */
    bool has_recipe;
    lp_recipe recipe;
    char recipe_hash[33]; /* as the file has it */
    int *prompt;          /* [n_prompt] */
    size_t n_prompt;
    uint8_t *is_template;         /* [n_prompt], or NULL */
    lp_sample_options sample;     /* its bias is the list below */
    lp_generate_options generate; /* its lists are those below; no callback, no log-probabilities */
    lp_bias *bias;
    char **stop;
    int *stop_ids;

    int *ids; /* [n_ids] */
    size_t n_ids;
    lp_finish finish;           /* LP_FINISH_NONE: nothing came out yet */
    char logits_hash[33];       /* "": no logits */
    lp_steer_reading *readings; /* [n_readings] of a steered run */
    size_t n_readings;
} lp_run;

/* ---- making one -------------------------------------------------------------------------------------------------- */

/* What goes in.  Borrowed during the call. */
typedef struct lp_run_parts {
    const char *model;
    const lp_session *session;
    const int *prompt; /* [n_prompt] */
    size_t n_prompt;
    const uint8_t *is_template; /* [n_prompt], or NULL */
    const lp_sample_options *sample;
    const lp_generate_options *generate;
    const lp_recipe *recipe; /* NULL: not steered, and no SAEs */
    const lp_sae *const *saes;
    const char *const *sae_names; /* [n_saes] as typed; NULL, or NULL in it: the SAE's own name */
    int n_saes;
    const char *sae_site;
} lp_run_parts;

/* Copies what goes in, and hashes it (about a second for 10 GB of weights).  On failure *out is empty. */
lp_status lp_run_begin(lp_run *out, const lp_run_parts *p, lp_error *err);
/* Adds what came out: the session as lp_generate left it; st NULL: not steered. */
lp_status lp_run_results(lp_run *r, const lp_session *s, const lp_generation *g, const lp_steer *st, lp_error *err);
void lp_run_clear(lp_run *r); /* frees what it holds, leaves it empty */

/* The parts of a run that was read, for lp_run_begin; the session and the SAEs are yours to add. */
lp_run_parts lp_run_parts_of(const lp_run *r);
/* Does what `r` says on a session (which is emptied first) and puts in what came out. */
lp_status lp_run_repeat(lp_run *r, lp_session *s, const lp_sae *const *saes, int n_saes, lp_error *err);

lp_status lp_model_hash(char out[33], const lp_model *m, lp_error *err);
/* The same from 64 kB of each matrix, in a moment whatever the model weighs: another training is another sketch, but weights
 * changed here and there may go unseen.  To find again what was measured once; never to vouch for a run. */
lp_status lp_model_sketch(char out[33], const lp_model *m, lp_error *err);
lp_status lp_tokenizer_hash(char out[33], const lp_tokenizer *t, lp_error *err); /* t NULL: "" */

/* ---- files ------------------------------------------------------------------------------------------------------- */

/* On failure *out is empty.  LP_E_FORMAT says what is wrong and where; LP_E_UNSUPPORTED: of a later version. */
lp_status lp_run_read(lp_run *out, const char *path, lp_error *err);
lp_status lp_run_parse(lp_run *out, const char *text, size_t n, lp_error *err);
/* A run that was cancelled or stopped by a callback cannot be repeated and is not written: LP_E_UNSUPPORTED. */
lp_status lp_run_write(const lp_run *r, const char *path, lp_error *err);

/* ---- comparing --------------------------------------------------------------------------------------------------- */

typedef enum lp_run_part { /* in the order they are compared */
                           LP_RUN_SAME,
                           LP_RUN_MODEL,
                           LP_RUN_TOKENIZER,
                           LP_RUN_ARITHMETIC,
                           LP_RUN_EMBED_SCALE,
                           LP_RUN_CONTEXT,
                           LP_RUN_KERNELS, /* in fast arithmetic only */
                           LP_RUN_SAES,
                           LP_RUN_RECIPE,
                           LP_RUN_READBACK, /* whichever of these two comes first in the text */
                           LP_RUN_TOKENS,
                           LP_RUN_FINISH,
                           LP_RUN_LOGITS,
                           LP_RUN_N_PARTS
} lp_run_part;

const char *lp_run_part_name(lp_run_part p); /* "same", "model", ... */

typedef struct lp_run_difference {
    lp_run_part part;
    char text[LP_ERROR_TEXT]; /* one line: what differs, and why; "" when nothing does */
} lp_run_difference;

/* The first difference of what goes in: `now` is what a rerun would be, `file` the run it repeats. */
lp_run_difference lp_run_compare_inputs(const lp_run *file, const lp_run *now);
/* The first difference of all. */
lp_run_difference lp_run_compare(const lp_run *file, const lp_run *now);

#endif
