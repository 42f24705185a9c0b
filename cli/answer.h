/* answer.h - what generate and chat share: how tokens are drawn, what ends an answer, how its text reaches stdout.
 *
 * A preset (--sampling) gives the numbers, and each option typed beside it replaces one of them.
 */
#ifndef LP_CLI_ANSWER_H
#define LP_CLI_ANSWER_H

#include "cli/cli.h"
#include "core/generate.h"

typedef struct cli_sampling {
    int preset, order;
    double temperature, top_p, min_p, repetition, presence, frequency;
    int top_k, window;
    uint64_t seed;
    cli_texts bias, stop, stop_ids;
    int max_tokens;
    bool ignores_end, shows_specials;
    struct {
        bool temperature, top_k, top_p, min_p, repetition, window, order;
    } given;
} cli_sampling;

/* clang-format off */
#define CLI_SAMPLING_OPTIONS(s)                                                                                        \
    {"sampling", 0, CLI_CHOICE, &(s).preset, "greedy|gemma|llama.cpp",                                                 \
     "greedy (default); gemma: T 1, top-k 64, top-p 0.95; llama.cpp's own"},                 \
    {"temperature", 'T', CLI_REAL, &(s).temperature, "T", "0: greedy; alone it means plain sampling at T",             \
     .max = 1e6, .is_given = &(s).given.temperature},                                                                  \
    {"top-k", 0, CLI_INT, &(s).top_k, "K", "keep the K best; 0: all", .max = 1 << 30, .is_given = &(s).given.top_k},   \
    {"top-p", 0, CLI_REAL, &(s).top_p, "P", "keep the best until they hold P of the mass; 1: all",                     \
     .max = 1, .is_given = &(s).given.top_p},                                                                          \
    {"min-p", 0, CLI_REAL, &(s).min_p, "P", "keep what has at least P times the best one's probability; 0: all",       \
     .max = 1, .is_given = &(s).given.min_p},                                                                          \
    {"repetition", 0, CLI_REAL, &(s).repetition, "R", "divide positive, multiply negative scores of seen tokens; 1: off", \
     .max = 1e6, .is_given = &(s).given.repetition},                                                                   \
    {"presence", 0, CLI_REAL, &(s).presence, "A", "subtract A from the score of every token seen", .min = -1e6, .max = 1e6}, \
    {"frequency", 0, CLI_REAL, &(s).frequency, "A", "subtract A for every time it was seen", .min = -1e6, .max = 1e6}, \
    {"penalty-window", 0, CLI_INT, &(s).window, "N", "tokens the penalties look back at; 0: all",                      \
     .max = 1 << 20, .is_given = &(s).given.window},                                                                   \
    {"bias", 0, CLI_TEXTS, &(s).bias, "ID=X", "add X to a token's score, -inf bans it; again for more"},               \
    {"order", 0, CLI_CHOICE, &(s).order, "hf|llama.cpp",                                                               \
     "temperature before the cuts (Hugging Face, default) or after them", .is_given = &(s).given.order},               \
    {"seed", 0, CLI_SEED, &(s).seed, "N", "the same seed gives the same text on every machine (0)"},                   \
    {"max-tokens", 'n', CLI_INT, &(s).max_tokens, "N", "stop after N tokens; 0: when the context is full",             \
     .max = 1 << 20},                                                                                                  \
    {"stop", 0, CLI_TEXTS, &(s).stop, "TEXT", "stop before this text; again for more"},                                \
    {"stop-id", 0, CLI_TEXTS, &(s).stop_ids, "ID", "stop at this token too; again for more"},                          \
    {"ignore-eos", 0, CLI_FLAG, &(s).ignores_end, NULL, "do not stop at <eos> and <end_of_turn>"},                     \
    {"show-specials", 0, CLI_FLAG, &(s).shows_specials, NULL, "print special tokens as their pieces"}
/* clang-format on */

enum { CLI_MAX_BIAS = CLI_MAX_TEXTS };

/* The options as core takes them.  It borrows itself: do not copy. */
typedef struct cli_answer {
    lp_sample_options sample;
    lp_generate_options generate;
    lp_bias bias[CLI_MAX_BIAS];
    int stop_ids[CLI_MAX_TEXTS];
} cli_answer;

lp_status cli_read_sampling(cli_answer *out, cli *c, const cli_sampling *s, int vocab, lp_error *err);

/* Text of a model to stdout, at once.  What would act as a control code on a terminal becomes '?' there. */
lp_status cli_say(const char *text, size_t n, lp_error *err);

/* The sampling as a JSON object; NULL: out of memory. */
json_t *cli_sampling_json(const cli_answer *a);
/* A seed as text: JSON numbers beyond 2^53 do not survive every reader. */
json_t *cli_seed_json(uint64_t seed);

#endif
