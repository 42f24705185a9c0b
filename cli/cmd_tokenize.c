/* cmd_tokenize.c - `lapidary tokenize`: text to ids, pieces and the bytes they stand for; with --ids, ids to text.
 *
 * Only the tokenizer is opened, never the weights.
 */
#include "cli/commands.h"
#include "cli/inputs.h"

#include <stdlib.h>
#include <string.h>

static const char *type_name(lp_piece_type t)
{
    static const char *const names[] = {"", "normal", "unknown", "control", "user", "unused", "byte"};
    return names[t];
}

static void put_token(cli *c, const lp_tokenizer *t, size_t i, int id, lp_span span, const char *text)
{
    size_t n;
    const char *piece = lp_tokenizer_piece(t, id, &n);
    cli_put_int(c, (int64_t)i);
    cli_put_int(c, id);
    cli_put_bytes(c, piece, n);
    cli_put_text(c, type_name(lp_tokenizer_type(t, id)));
    cli_put_int(c, (int64_t)span.begin);
    cli_put_int(c, (int64_t)span.end);
    cli_put_bytes(c, text + span.begin, span.end - span.begin);
}

static lp_status show_tokens(cli *c, const lp_tokenizer *t, const lp_tokens *tokens, bool ids_only, const char *text,
                             lp_error *err)
{
    if (ids_only && !c->json) {
        for (size_t i = 0; i < tokens->n; i++) printf("%s%d", i ? "," : "", tokens->ids[i]);
        putchar('\n');
        return LP_OK;
    }
    if (ids_only) {
        json_t *j = json_array();
        int bad = !j;
        for (size_t i = 0; i < tokens->n; i++) bad |= json_array_append_new(j, json_integer(tokens->ids[i]));
        if (!bad) return cli_print_json(j, err);
        json_decref(j);
        return cli_print_json(NULL, err);
    }
    cli_table_begin(c, "i\tid\tpiece\ttype\tbegin\tend\ttext");
    for (size_t i = 0; i < tokens->n; i++) put_token(c, t, i, tokens->ids[i], tokens->spans[i], text);
    cli_table_end(c);
    return LP_OK;
}

static lp_status decode(cli *c, const lp_tokenizer *t, const char *ids, bool shows_specials, lp_error *err)
{
    lp_tokens tokens = {0};
    char *text = NULL;
    size_t n = 0;
    lp_status st = cli_parse_ids(&tokens, c, ids, lp_tokenizer_size(t), err);
    if (st == LP_OK) st = lp_tokenizer_decode(t, tokens.ids, tokens.n, shows_specials, &text, &n, err);
    if (st == LP_OK && c->json)
        st = cli_print_json(cli_json_text(text, n), err);
    else if (st == LP_OK)
        printf("%s\n", text);
    free(text);
    lp_tokens_free(&tokens);
    return st;
}

static lp_status encode(cli *c, const lp_tokenizer *t, const cli_prompt *p, bool wants_bos, bool ids_only,
                        lp_error *err)
{
    lp_tokens tokens = {0};
    char *text = NULL;
    size_t n = 0;
    lp_status st = cli_prompt_text(&text, &n, c, p, err);
    int bos = lp_tokenizer_bos(t);
    if (st == LP_OK && wants_bos && bos < 0) st = lp_fail(err, LP_E_NOT_FOUND, "this vocabulary has no <bos>");
    if (st == LP_OK && wants_bos) st = lp_tokens_push(&tokens, bos, (lp_span){0, 0}, err);
    if (st == LP_OK) st = lp_tokenizer_encode(t, text, n, cli_specials(p->specials), &tokens, err);
    if (st == LP_OK) st = show_tokens(c, t, &tokens, ids_only, text, err);
    free(text);
    lp_tokens_free(&tokens);
    return st;
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    cli_prompt p = {.specials = 1};
    const char *ids = NULL;
    bool wants_bos = false, ids_only = false, shows_specials = false;
    const cli_option options[] = {
        {"file", 'f', CLI_TEXT, &p.file, "FILE", "read the text from a file, or stdin for -"},
        {"specials", 0, CLI_CHOICE, &p.specials, CLI_SPECIALS_CHOICE,
         "special tokens a text can spell: none, libsentencepiece's (default), all"},
        {"bos", 'b', CLI_FLAG, &wants_bos, NULL, "put <bos> in front"},
        {"only-ids", 0, CLI_FLAG, &ids_only, NULL, "print the ids alone, 2,10,11, as --tokens elsewhere takes them"},
        {"ids", 'i', CLI_TEXT, &ids, "IDS", "the other way: print the text of these ids"},
        {"show-specials", 0, CLI_FLAG, &shows_specials, NULL, "with --ids: print special tokens as their pieces"},
        {0},
    };
    LP_TRY(cli_parse(c, options, argc, argv, err));
    if (ids && (c->n_operands || p.file)) return cli_usage(c, err, "--ids and a text exclude each other");
    lp_tokenizer *t = NULL;
    lp_status st = cli_find_tokenizer(&t, c, err);
    if (st == LP_OK) st = ids ? decode(c, t, ids, shows_specials, err) : encode(c, t, &p, wants_bos, ids_only, err);
    lp_tokenizer_free(t);
    return st;
}

const cli_command cmd_tokenize = {
    .name = "tokenize",
    .summary = "Turn text into tokens and back, with the bytes each token stands for",
    .operands = "[TEXT]",
    .about = "Text comes from the operand, --file or stdin; begin and end are byte offsets in it.  -m may also name a\n"
             "tokenizer.model file.  Weights are not read.",
    .run = run,
};
