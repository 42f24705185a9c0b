/* recipes.c - see recipes.h. */
#include "cli/recipes.h"

#include "core/chat.h"

#include <stdlib.h>
#include <string.h>

lp_status cli_read_recipe(lp_recipe *out, cli *c, const char *name, lp_error *err)
{
    if (!name) return cli_usage(c, err, "which recipe?  --recipe FILE, or the name of a shipped one");
    return lp_recipe_find(out, name, err);
}

static lp_status add_name(cli_texts *names, const char *name, lp_error *err)
{
    for (int i = 0; name && i < names->n; i++)
        if (strcmp(names->items[i], name) == 0) return LP_OK;
    if (!name) return LP_OK;
    if (names->n == CLI_MAX_TEXTS) return lp_fail(err, LP_E_RANGE, "more than %d SAEs in one recipe", CLI_MAX_TEXTS);
    names->items[names->n++] = name;
    return LP_OK;
}

lp_status cli_open_recipe_saes(cli_saes *out, cli *c, const lp_model *m, cli_sae_choice *choice, lp_recipe *r,
                               lp_error *err)
{
    bool is_typed = choice->names.n > 0;
    for (size_t i = 0; i < r->n_edits && !is_typed; i++) {
        LP_TRY(add_name(&choice->names, r->edits[i].source, err));
        LP_TRY(add_name(&choice->names, r->edits[i].when.source, err));
    }
    LP_TRY(cli_open_saes(out, c, m, choice, err));
    for (int k = 0; k < out->n; k++) lp_recipe_fill(r, out->items[k]->name, &out->labels[k]);
    return LP_OK;
}

lp_status cli_take_chat(lp_tokens *out, uint8_t **is_template, cli *c, const lp_model *m, const cli_prompt *p,
                        lp_error *err)
{
    char *text = NULL;
    size_t n = 0;
    lp_chat chat = {0};
    const lp_chat_options o = {.generation_prompt = true, .parse_specials = p->specials == 2};
    if (p->tokens) return cli_usage(c, err, "--chat wraps a text; --tokens are taken as they are");
    LP_TRY(cli_need_tokenizer(m, err));
    LP_TRY(cli_prompt_text(&text, &n, c, p, err));
    lp_turn turn = {LP_ROLE_USER, text, n};
    lp_status st = lp_chat_tokenize(&chat, m->tokenizer, &turn, 1, &o, err);
    uint8_t *marks = st == LP_OK ? lp_calloc(chat.tokens.n, 1) : NULL;
    if (st == LP_OK && !marks) st = lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) {
        for (size_t i = 0; i < chat.tokens.n; i++) marks[i] = !chat.marks[i].content;
        *is_template = marks;
        *out = chat.tokens;
        chat.tokens = (lp_tokens){0};
    }
    lp_chat_free(&chat);
    free(text);
    return st;
}
