/* inputs.c - see inputs.h. */
#include "cli/inputs.h"

#include "core/hub.h"
#include "sae/causal.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

lp_status cli_open(lp_model **m, lp_session **s, cli *c, int embed_scale, lp_error *err)
{
    char *name = NULL;
    LP_TRY(cli_model_name(&name, c, err));
    lp_status st = lp_model_open(m, name, NULL, &c->env, err);
    free(name);
    if (st != LP_OK || !s) return st;
    lp_session_options o = {.arithmetic = c->arithmetic, .wave = c->wave, .bf16_embed_scale = embed_scale};
    return lp_session_new(s, *m, &o, &c->env, err);
}

lp_status cli_need_tokenizer(const lp_model *m, lp_error *err)
{
    if (m->tokenizer) return LP_OK;
    return lp_fail(err, LP_E_UNSUPPORTED, "%s has no tokenizer (tokenizer.model); give the prompt as ids with --tokens",
                   m->path);
}

lp_specials cli_specials(int choice)
{
    static const lp_specials order[] = {LP_SPECIALS_LITERAL, LP_SPECIALS_SENTENCEPIECE, LP_SPECIALS_PARSED};
    return order[choice];
}

/* ---- the tokenizer alone ---------------------------------------------------------------------------------- */

static lp_status open_from_gguf(lp_tokenizer **t, cli *c, const char *path, lp_error *err)
{
    lp_gguf *g = NULL;
    LP_TRY(lp_gguf_open(&g, path, err));
    lp_status st = lp_tokenizer_from_gguf(t, g, &c->env, err);
    lp_gguf_close(g);
    return st;
}

lp_status cli_open_tokenizer(lp_tokenizer **t, cli *c, const char *path, lp_error *err)
{
    if (lp_ends_in(path, ".gguf")) return open_from_gguf(t, c, path, err);
    if (lp_ends_in(path, ".model")) return lp_tokenizer_open(t, path, err);
    char *file = lp_path_join(path, "tokenizer.model");
    if (!file) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_status st = lp_tokenizer_open(t, file, err);
    free(file);
    return st;
}

lp_status cli_find_tokenizer(lp_tokenizer **t, cli *c, lp_error *err)
{
    char *name = NULL, *path = NULL;
    lp_status st = cli_model_name(&name, c, err);
    if (st == LP_OK && lp_is_file(name))
        st = cli_open_tokenizer(t, c, name, err);
    else if (st == LP_OK && (st = lp_hub_find(&path, name, err)) == LP_OK)
        st = cli_open_tokenizer(t, c, path, err);
    free(name);
    free(path);
    return st;
}

/* ---- the prompt -------------------------------------------------------------------------------------------- */

lp_status cli_parse_ids(lp_tokens *out, cli *c, const char *text, int vocab, lp_error *err)
{
    for (const char *s = text;;) {
        while (*s == ',' || isspace((unsigned char)*s)) s++;
        if (!*s) break;
        char *end;
        errno = 0;
        long id = strtol(s, &end, 10);
        if (end == s || (*end && *end != ',' && !isspace((unsigned char)*end)))
            return cli_usage(c, err, "token ids \"%.60s\": whole numbers with commas or spaces expected", s);
        if (errno || id < 0 || id > INT_MAX || (vocab && id >= vocab))
            return lp_fail(err, LP_E_RANGE, "token %ld: ids of this vocabulary go from 0 to %d", id, vocab - 1);
        LP_TRY(lp_tokens_push(out, (int)id, (lp_span){0, 0}, err));
        s = end;
    }
    if (out->n == 0) return cli_usage(c, err, "no token ids in \"%.60s\"", text);
    return LP_OK;
}

static lp_status count_sources(cli *c, const cli_prompt *p, lp_error *err)
{
    int n = (c->n_operands > 0) + (p->text != NULL) + (p->file != NULL) + (p->tokens != NULL);
    if (n > 1)
        return cli_usage(c, err, "more than one prompt: an operand, --prompt, --file and --tokens exclude each other");
    if (n == 0 && isatty(STDIN_FILENO)) return cli_usage(c, err, "a prompt is missing");
    return cli_count_operands(c, 0, 1, err);
}

lp_status cli_prompt_text(char **out, size_t *n, cli *c, const cli_prompt *p, lp_error *err)
{
    LP_TRY(count_sources(c, p, err));
    const char *text = c->n_operands ? c->operands[0] : p->text;
    if (!text) return cli_read_text(out, n, p->file ? p->file : "-", err);
    *out = lp_strdup(text);
    *n = strlen(text);
    return *out ? LP_OK : lp_fail(err, LP_E_MEMORY, "no memory for the prompt");
}

static lp_status encode(lp_tokens *out, const lp_model *m, const cli_prompt *p, const char *text, size_t n,
                        lp_error *err)
{
    int bos = lp_tokenizer_bos(m->tokenizer);
    lp_tokens body = {0};
    lp_status st = lp_tokenizer_encode(m->tokenizer, text, n, cli_specials(p->specials), &body, err);
    bool brought = body.n > 0 && body.ids[0] == bos; /* a second <bos> does harm */
    if (st == LP_OK && bos >= 0 && !p->no_bos && !brought) st = lp_tokens_push(out, bos, (lp_span){0, 0}, err);
    for (size_t i = 0; st == LP_OK && i < body.n; i++) st = lp_tokens_push(out, body.ids[i], body.spans[i], err);
    lp_tokens_free(&body);
    return st;
}

lp_status cli_take_prompt(lp_tokens *out, cli *c, const lp_model *m, const cli_prompt *p, lp_error *err)
{
    char *text = NULL;
    size_t n = 0;
    if (p->tokens) {
        LP_TRY(count_sources(c, p, err));
        return cli_parse_ids(out, c, p->tokens, m->config.vocab, err);
    }
    LP_TRY(cli_need_tokenizer(m, err));
    LP_TRY(cli_prompt_text(&text, &n, c, p, err));
    lp_status st = encode(out, m, p, text, n, err);
    free(text);
    if (st == LP_OK && out->n == 0) st = lp_fail(err, LP_E_RANGE, "the prompt is empty");
    return st;
}

lp_status cli_take_token(int *id, cli *c, const lp_model *m, const char *option, const char *text, lp_error *err)
{
    lp_error why = {0};
    *id = -1;
    if (!text || lp_causal_token(id, m, text, &why) == LP_OK) return LP_OK;
    return cli_usage(c, err, "%s: %s", option, why.text);
}

/* ---- saying what is what ----------------------------------------------------------------------------------- */

const char *cli_piece(const lp_model *m, int id, size_t *n)
{
    *n = 0;
    if (!m->tokenizer || id < 0 || id >= lp_tokenizer_size(m->tokenizer)) return "";
    return lp_tokenizer_piece(m->tokenizer, id, n);
}

json_t *cli_provenance(const cli *c, const lp_session *s)
{
    const lp_session_options *o = lp_session_get_options(s);
    json_t *j = json_object();
    int bad = !j;
    bad |= json_object_set_new(j, "model", cli_json_text(lp_session_model(s)->path, strlen(lp_session_model(s)->path)));
    bad |= json_object_set_new(j, "kernels", json_string(lp_session_kernels(s)));
    bad |= json_object_set_new(j, "arithmetic", json_string(o->arithmetic == LP_FAST ? "fast" : "exact"));
    bad |= json_object_set_new(j, "embed_scale", json_string(o->bf16_embed_scale ? "bf16" : "f32"));
    bad |= json_object_set_new(j, "threads", json_integer(lp_pool_threads(c->env.pool)));
    if (!bad) return j;
    json_decref(j);
    return NULL;
}
