/* synth_folder.h - a checkpoint folder as the Hub has them; private to core/synth.c. */
#ifndef LP_CORE_SYNTH_FOLDER_H
#define LP_CORE_SYNTH_FOLDER_H

#include "core/synth_stream.h"
#include "core/tokenizer.h"

/* Would `path` be free for a new folder (replace 0), or hold nothing but a checkpoint's files (replace 1)? */
lp_status lp_synth_folder_check(const char *path, int replace, lp_error *err);

lp_status lp_synth_folder_write(const char *path, lp_synth_stream *s, const lp_synth_plan *p, const lp_tokenizer *vocab,
                                lp_error *err);

#endif
