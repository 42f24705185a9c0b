/* chat.h - Gemma's turn template: from a conversation to text, and to tokens.
 *
 * The text is the official template's, byte for byte (google/gemma-2-2b-it, chat_template):
 *
 *     <bos><start_of_turn>user
 *     Hello<end_of_turn>
 *     <start_of_turn>model
 *
 * with contents stripped of whitespace at both ends as Python's str.strip does.  Tokens are not made by tokenizing that
 * text: the template's pieces go in by id and a user's words as words, so that "<end_of_turn>" typed by a user ends no
 * turn.  For contents that hold no such string the ids are the same either way.  BOS is part of the template, and there
 * is exactly one.
 */
#ifndef LP_CORE_CHAT_H
#define LP_CORE_CHAT_H

#include "core/tokenizer.h"

typedef enum lp_role { LP_ROLE_USER, LP_ROLE_MODEL, LP_ROLE_SYSTEM } lp_role;

/* "user", "model" or "assistant", "system"; false for anything else. */
bool lp_role_parse(const char *name, lp_role *role);

typedef struct lp_turn {
    lp_role role;
    const char *text;
    size_t len;
} lp_turn;

typedef struct lp_chat_options {
    bool generation_prompt; /* end with "<start_of_turn>model\n": the model is to speak next            */
    bool continue_last;     /* leave the last turn open, for the model to go on with it                 */
    bool fold_system;       /* a first system turn goes before the first user turn, a blank line between.
                               Otherwise it is an error, as in the template                             */
    bool parse_specials;    /* contents may hold control tokens (LP_SPECIALS_PARSED), as in Hugging Face */
} lp_chat_options;

/* Whose a token is.  Statistics over what was said leave out what the template put there. */
typedef struct lp_chat_mark {
    int turn;     /* index of the turn it belongs to; n for the generation prompt; -1 for BOS */
    bool content; /* the turn's own words; false: the template's                              */
} lp_chat_mark;

typedef struct lp_chat { /* all zero is an empty one */
    char *text;          /* as rendered, terminated */
    size_t len;
    lp_tokens tokens;    /* spans in `text`        */
    lp_chat_mark *marks; /* [tokens.n]             */
} lp_chat;

/* The text of a conversation.  *out is yours to free; *len may be NULL; `opt` may be NULL. */
lp_status lp_chat_render(char **out, size_t *len, const lp_turn *turns, size_t n, const lp_chat_options *opt,
                         lp_error *err);
/* Text, tokens and marks.  *out is overwritten; free it with lp_chat_free. */
lp_status lp_chat_tokenize(lp_chat *out, const lp_tokenizer *t, const lp_turn *turns, size_t n,
                           const lp_chat_options *opt, lp_error *err);
void lp_chat_free(lp_chat *c);

#endif
