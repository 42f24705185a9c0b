/* synth_vocab.h - the vocabulary of a synthetic checkpoint; private to core/synth.c. */
#ifndef LP_CORE_SYNTH_VOCAB_H
#define LP_CORE_SYNTH_VOCAB_H

#include "core/tokenizer.h"

enum { LP_SYNTH_LEAST_VOCAB = 1024 };

/* Gemma's arrangement of n pieces (LP_SYNTH_LEAST_VOCAB or more), the words among them made up. */
lp_status lp_synth_vocab(lp_tokenizer **out, int n, lp_error *err);

/* The bytes of a tokenizer.model that holds these pieces; *out is yours to free. */
lp_status lp_synth_spm(char **out, size_t *bytes, const lp_tokenizer *t, lp_error *err);

/* The tokenizer.ggml.* keys, as llama.cpp's converter writes them for Gemma. */
lp_status lp_synth_put_vocab(lp_gguf_writer *w, const lp_tokenizer *t, lp_error *err);

#endif
