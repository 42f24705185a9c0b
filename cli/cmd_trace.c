/* cmd_trace.c - `lapidary trace`: write any sites and layers of a prompt, and of what is generated after it, to a file.
 */
#include "cli/commands.h"
#include "cli/inputs.h"
#include "core/generate.h"
#include "core/trace.h"

#include <stdlib.h>
#include <string.h>

typedef struct job {
    cli_prompt prompt;
    const char *sites, *layers, *out;
    int n_generate;
} job;

/* Greedy, through end tokens: so many positions were asked for.  The last token drawn is evaluated too, so that each
 * has its rows. */
static lp_status go_on(lp_session *s, int n, lp_error *err)
{
    lp_sampler *sampler = NULL;
    lp_generation g = {0};
    lp_generate_options o = {.max_tokens = n, .ignore_eos = 1};
    LP_TRY(lp_sampler_new(&sampler, lp_session_model(s)->config.vocab, &(lp_sample_options){0}, err));
    lp_status st = lp_generate(&g, s, sampler, &o, err);
    if (st == LP_OK) st = lp_session_eval(s, &g.ids[g.n - 1], 1, err);
    lp_generation_free(&g);
    lp_sampler_free(sampler);
    return st;
}

static lp_status save(const job *j, const lp_trace *t, const lp_session *s, size_t n_prompt, lp_error *err)
{
    const lp_model *m = lp_session_model(s);
    char count[24];
    int n = 0;
    lp_note notes[3];
    notes[n++] = (lp_note){"model", m->path};
    snprintf(count, sizeof count, "%zu", n_prompt);
    notes[n++] = (lp_note){"prompt_tokens", count};
    notes[n++] = (lp_note){"program", "lapidary " LP_VERSION};
    return lp_trace_save(t, s, j->out, notes, n, err);
}

/* What was written, one line per tensor. */
static void report(cli *c, const lp_trace *t, int n)
{
    cli_table_begin(c, "tensor\tsite\tlayer\tshape");
    for (size_t i = 0; i < t->n_parts; i++) {
        const lp_trace_part *p = &t->parts[i];
        char name[96], shape[64];
        int heads, width;
        lp_site_shape(&t->config, p->site, n, &heads, &width);
        if (heads)
            snprintf(shape, sizeof shape, "[%d, %d, %d]", n, heads, width);
        else
            snprintf(shape, sizeof shape, "[%d, %d]", n, width);
        cli_put_text(c, lp_site_tensor_name(name, sizeof name, p->site, p->layer));
        cli_put_text(c, lp_site_name(p->site));
        if (p->layer >= 0)
            cli_put_int(c, p->layer);
        else
            cli_put_none(c);
        cli_put_text(c, shape);
    }
    cli_table_end(c);
}

static lp_status trace(cli *c, const job *j, lp_session *s, const lp_tokens *tokens, lp_trace *t, lp_error *err)
{
    size_t n = tokens->n + (size_t)j->n_generate;
    size_t n_ctx = (size_t)lp_session_get_options(s)->n_ctx;
    if (n > n_ctx)
        return lp_fail(err, LP_E_RANGE, "%zu tokens of prompt and %d generated: the context holds %zu", tokens->n,
                       j->n_generate, n_ctx);
    LP_TRY(lp_trace_begin(t, s, (int)n, err));
    LP_TRY(lp_generate_prompt(s, tokens->ids, tokens->n, err));
    if (j->n_generate) LP_TRY(go_on(s, j->n_generate, err));
    LP_TRY(save(j, t, s, tokens->n, err));
    report(c, t, (int)n);
    return LP_OK;
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    job j = {.sites = "resid_post", .layers = "all"};
    const cli_option options[] = {
        CLI_PROMPT_OPTIONS(j.prompt),
        {"sites", 's', CLI_TEXT, &j.sites, "LIST",
         "sites with commas, in any spelling of `hooks`, or all (resid_post)"},
        {"layers", 'l', CLI_TEXT, &j.layers, "LIST", "for sites that name no layer: all (default), last, 0,3-5"},
        {"output", 'o', CLI_TEXT, &j.out, "FILE", ".safetensors, or .npy for a single tensor"},
        {"generate", 'g', CLI_INT, &j.n_generate, "N", "go on greedily for N tokens and trace them too", .max = 8192},
        {0},
    };
    LP_TRY(cli_parse(c, options, argc, argv, err));
    if (!j.out) return cli_usage(c, err, "where to? -o FILE is missing");
    lp_model *m = NULL;
    lp_session *s = NULL;
    lp_tokens tokens = {0};
    lp_trace t = {0};
    lp_status st = cli_open(&m, &s, c, j.prompt.embed_scale, err);
    if (st == LP_OK) st = lp_trace_select(&t, &m->config, j.sites, j.layers, err);
    if (st == LP_OK) st = cli_take_prompt(&tokens, c, m, &j.prompt, err);
    if (st == LP_OK) st = trace(c, &j, s, &tokens, &t, err);
    if (s) lp_trace_end(&t, s);
    lp_trace_clear(&t);
    lp_tokens_free(&tokens);
    lp_session_free(s);
    lp_model_close(m);
    return st;
}

const cli_command cmd_trace = {
    .name = "trace",
    .summary = "Write activations of a prompt, and of what follows it, to a file",
    .operands = "[PROMPT]",
    .about = "Tensors are f32, named blocks.3.hook_resid_post and so on, [n, width] or [n, heads, width]; logits are\n"
             "after the soft-cap; masked scores are -inf.  Ids, model, arithmetic and kernels are in the metadata.",
    .run = run,
};
