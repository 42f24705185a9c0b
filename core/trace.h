/* trace.h - chosen sites at chosen layers, recorded for every position and written to a file.
 *
 *     lp_trace t = {0};
 *     lp_trace_select(&t, &model->config, "resid_post,attn_out,logits", "0,3-5", &err);
 *     lp_trace_begin(&t, s, n_pos, &err);         takes memory, hooks
 *     lp_session_eval(s, ids, n, &err);            prompt and generated tokens alike
 *     lp_trace_end(&t, s);                         unhooks
 *     lp_trace_save(&t, s, "out.safetensors", notes, n_notes, &err);
 *
 * Tensors are f32, named by lp_site_tensor_name, [n][width], or [n][heads][width] where the site is per head; scores
 * and pattern are [n][heads][n] with -inf and 0 where a key is masked or still to come.
 */
#ifndef LP_CORE_TRACE_H
#define LP_CORE_TRACE_H

#include "core/session.h"

typedef struct lp_trace_part {
    lp_site site;
    int layer; /* or LP_WHOLE_MODEL                                                 */
    int handle;
    lp_tape tape; /* one layer, positions 0 .. n_pos-1                                  */
} lp_trace_part;

typedef struct lp_trace { /* all zero is an empty one */
    lp_config config;
    lp_trace_part *parts;
    size_t n_parts, capacity;
} lp_trace;

/* sites: any spelling of lp_site_parse, separated by commas, or "all".  layers, for the sites that do not name theirs:
 * "all", "last", numbers and ranges ("0,3-5").  Nothing is selected twice. */
lp_status lp_trace_select(lp_trace *t, const lp_config *c, const char *sites, const char *layers, lp_error *err);

/* What recording n_pos positions takes. */
uint64_t lp_trace_bytes(const lp_trace *t, int n_pos);

/* LP_E_MEMORY, with the bytes it would take, when it does not fit. */
lp_status lp_trace_begin(lp_trace *t, lp_session *s, int n_pos, lp_error *err);
void lp_trace_end(lp_trace *t, lp_session *s);
void lp_trace_clear(lp_trace *t); /* after lp_trace_end */

typedef struct lp_note {
    const char *key, *value;
} lp_note;

/* The first lp_session_pos(s) positions.  "*.npy": NumPy's format, for a single tensor and without notes; anything
 * else: safetensors, with the ids, edited_from, arithmetic, kernels and the notes as metadata.  The file appears when
 * whole. */
lp_status lp_trace_save(const lp_trace *t, const lp_session *s, const char *path, const lp_note *notes, int n_notes,
                        lp_error *err);

/* The shape of a row of a site: heads 0 where it is not per head.  n_keys: the width of scores and pattern. */
void lp_site_shape(const lp_config *c, lp_site site, int n_keys, int *heads, int *width);

#endif
