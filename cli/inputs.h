/* inputs.h - what most commands begin with: a model, a session on it, a prompt as token ids.
 *
 *     cli_prompt prompt = {0};
 *     const cli_option options[] = {
 *         CLI_PROMPT_OPTIONS(prompt),
 *         {0},
 *     };
 *     LP_TRY(cli_parse(c, options, argc, argv, err));
 *     cli_open(&m, &s, c, prompt.embed_scale, err);
 *     cli_take_prompt(&tokens, c, m, &prompt, err);
 *
 * A prompt is the operand, --prompt, --file or --tokens, one of them, or what comes through a pipe.  Text gets a BOS in
 * front unless it brought its own; ids are taken as they are.
 */
#ifndef LP_CLI_INPUTS_H
#define LP_CLI_INPUTS_H

#include "cli/cli.h"
#include "core/session.h"

typedef struct cli_prompt {
    const char *text, *file, *tokens;
    bool is_chat, no_bos;
    int specials;    /* LP_SPECIALS_* in the order of the choice below */
    int embed_scale; /* 0: f32, 1: bf16                                */
} cli_prompt;

#define CLI_SPECIALS_CHOICE "literal|spm|parsed"

/* clang-format off */
#define CLI_PROMPT_OPTIONS(p)                                                                                          \
    {"prompt", 'p', CLI_TEXT, &(p).text, "TEXT", "the prompt; an operand says the same"},                              \
    {"file", 'f', CLI_TEXT, &(p).file, "FILE", "read the prompt from a file, or stdin for -"},                         \
    {"tokens", 't', CLI_TEXT, &(p).tokens, "IDS", "the prompt as ids, 2,10,11; taken as they are"},                    \
    {"no-bos", 0, CLI_FLAG, &(p).no_bos, NULL, "do not put <bos> in front"},                                           \
    {"specials", 0, CLI_CHOICE, &(p).specials, CLI_SPECIALS_CHOICE,                                                    \
     "what \"<start_of_turn>\" in a prompt is: plain text (default), or a token"},                                     \
    {"embed-scale", 0, CLI_CHOICE, &(p).embed_scale, "f32|bf16",                                                       \
     "sqrt(d_model) in f32 (default), or rounded as bf16 reference runs do"}
/* clang-format on */

/* The model named by -m and a session on it; *s is freed before *m.  s may be NULL: the model alone. */
lp_status cli_open(lp_model **m, lp_session **s, cli *c, int embed_scale, lp_error *err);

/* LP_E_UNSUPPORTED when the checkpoint came without a tokenizer. */
lp_status cli_need_tokenizer(const lp_model *m, lp_error *err);

lp_status cli_take_prompt(lp_tokens *out, cli *c, const lp_model *m, const cli_prompt *p, lp_error *err);

/* A token typed for `option` ("--target"): an id, or text that is one token; NULL: -1. */
lp_status cli_take_token(int *id, cli *c, const lp_model *m, const char *option, const char *text, lp_error *err);

/* "2,10 11" -> ids, checked against the vocabulary (0: not checked). */
lp_status cli_parse_ids(lp_tokens *out, cli *c, const char *text, int vocab, lp_error *err);

/* The bytes of the prompt as typed, before any tokenizer: operand, --prompt, --file or stdin.  Free it. */
lp_status cli_prompt_text(char **out, size_t *n, cli *c, const cli_prompt *p, lp_error *err);

/* The place of CLI_SPECIALS_CHOICE as the tokenizer's enum. */
lp_specials cli_specials(int choice);

/* The tokenizer of a checkpoint folder, a .gguf or a .model file, without the weights. */
lp_status cli_open_tokenizer(lp_tokenizer **t, cli *c, const char *path, lp_error *err);
/* The tokenizer of the model named by -m. */
lp_status cli_find_tokenizer(lp_tokenizer **t, cli *c, lp_error *err);

/* A piece as stored for a cell or a JSON string, "" when there is no tokenizer. */
const char *cli_piece(const lp_model *m, int id, size_t *n);

/* What a result was computed by: model, kernels, arithmetic, embed_scale, threads.  NULL: out of memory. */
json_t *cli_provenance(const cli *c, const lp_session *s);

#endif
