/* cmd_synth.c - `lapidary synth`: a checkpoint of any Gemma 2 shape with seeded random weights (core/synth.h).
 *
 *     lapidary synth --shape 2b --type q8_0 -o /tmp/2b.gguf
 *     lapidary synth --shape nano --set n_layers=6,window=4 --type f32 -o /tmp/tiny
 *
 * The shape is the named one, then the vocabulary of --tokenizer, then --set.
 */
#include "cli/commands.h"
#include "core/pool.h"
#include "core/quant.h"
#include "core/synth.h"
#include "core/tokenizer.h"

#include <ctype.h>
#include <string.h>
#include <time.h>

typedef struct request {
    const char *shape, *set, *type, *out;
    int format; /* of --format's words */
    double shard;
    lp_synth_options o;
} request;

enum { BY_NAME, SAFETENSORS, GGUF };

static lp_status take_type(cli *c, request *r, lp_error *err)
{
    char upper[16], list[256] = "";
    size_t n = strlen(r->type);
    for (size_t i = 0; i <= n && i < sizeof upper; i++) upper[i] = (char)toupper((unsigned char)r->type[i]);
    if (n < sizeof upper && lp_dtype_parse(upper, &r->o.type)) return LP_OK;
    for (int t = 0; t < LP_OTHER; t++) {
        strcat(list, t ? ", " : "");
        strcat(list, lp_dtype_name((lp_dtype)t));
    }
    return cli_usage(c, err, "--type \"%s\": expected one of %s", r->type, list);
}

static lp_status take_shape(cli *c, request *r, lp_error *err)
{
    if (!lp_config_shape(&r->o.config, r->shape))
        return cli_usage(c, err, "--shape \"%s\": expected 2b, 9b, 27b or nano (then --set changes it)", r->shape);
    if (r->o.tokenizer) {
        lp_tokenizer *t = NULL;
        LP_TRY(lp_tokenizer_open(&t, r->o.tokenizer, err));
        r->o.config.vocab = lp_tokenizer_size(t);
        lp_tokenizer_free(t);
    }
    return r->set ? lp_synth_set(&r->o.config, r->set, err) : LP_OK;
}

static void report(cli *c, const request *r, uint64_t bytes, double seconds)
{
    cli_table_begin(c, "path\tformat\ttype\tseed\tlayers\td_model\tvocab\tparameters\tbytes\tseconds");
    cli_put_text(c, r->out);
    cli_put_text(c, r->o.gguf ? "gguf" : "safetensors");
    cli_put_text(c, lp_dtype_name(r->o.type));
    cli_put_int(c, (int64_t)r->o.seed);
    cli_put_int(c, r->o.config.n_layers);
    cli_put_int(c, r->o.config.d_model);
    cli_put_int(c, r->o.config.vocab);
    cli_put_int(c, (int64_t)lp_config_parameters(&r->o.config));
    cli_put_int(c, (int64_t)bytes);
    cli_put_real(c, seconds, 3);
    cli_table_end(c);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    request r = {.type = "bf16", .shard = 5};
    bool force = false, pure = false;
    const cli_option options[] = {
        {"shape", 's', CLI_TEXT, &r.shape, "NAME", "2b, 9b, 27b or nano"},
        {"set", 0, CLI_TEXT, &r.set, "LIST", "changes to the shape: n_layers=4,d_model=256,..."},
        {"type", 't', CLI_TEXT, &r.type, "TYPE",
         "of the matrices: f32, bf16 (default), f16; GGUF also q8_0, q4_k, ..."},
        {"format", 'f', CLI_CHOICE, &r.format, "auto|safetensors|gguf",
         "auto (default): gguf when the path ends in .gguf"},
        {"output", 'o', CLI_TEXT, &r.out, "PATH", "the folder or the .gguf file to write"},
        {"seed", 0, CLI_SEED, &r.o.seed, "N", "of the weights (default 0)"},
        {"tokenizer", 0, CLI_TEXT, &r.o.tokenizer, "FILE", "a tokenizer.model to use (default: a made-up one)"},
        {"pure", 0, CLI_FLAG, &pure, NULL, "the token table in TYPE too, not in Q6_K under coarser types"},
        {"shard", 0, CLI_REAL, &r.shard, "GB", "largest safetensors file (default 5)", .min = 1e-6, .max = 1e6},
        {"force", 0, CLI_FLAG, &force, NULL, "replace what is already at PATH"},
        {0},
    };
    LP_TRY(cli_parse(c, options, argc, argv, err));
    LP_TRY(cli_count_operands(c, 0, 0, err));
    if (c->model) return cli_usage(c, err, "synth makes a model and reads none; -m has no meaning here");
    if (!r.shape) return cli_usage(c, err, "--shape is missing: 2b, 9b, 27b or nano");
    if (!r.out || !*r.out) return cli_usage(c, err, "--output is missing: where should it go?");
    LP_TRY(take_type(c, &r, err));
    LP_TRY(take_shape(c, &r, err));
    r.o.gguf = r.format == GGUF || (r.format == BY_NAME && lp_ends_in(r.out, ".gguf"));
    r.o.pure = pure;
    r.o.replace = force;
    r.o.shard_bytes = (uint64_t)(r.shard * 1e9);

    uint64_t bytes = 0;
    double start = now();
    LP_TRY(lp_synth_check(&r.o, &bytes, err));
    lp_log(&c->env, LP_INFO, "%s: %.1f MB of random weights, %.1f million parameters", r.out, (double)bytes / 1e6,
           (double)lp_config_parameters(&r.o.config) / 1e6);
    LP_TRY(lp_synth_write(r.out, &r.o, &c->env, err));
    report(c, &r, bytes, now() - start);
    return LP_OK;
}

const cli_command cmd_synth = {
    .name = "synth",
    .summary = "Write a checkpoint with seeded random weights, for measuring and testing",
    .about = "The files are what Hugging Face (a folder of safetensors) or llama.cpp (one .gguf) would write; the\n"
             "weights are noise, scaled so that the model behaves like one.  The same seed and shape give the same\n"
             "weights in every format and on any number of threads.  F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1\n"
             "are rounded as ggml rounds; the K types by a plain rule without ggml's search for better scales.\n"
             "--set takes n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ff, vocab, max_positions, window,\n"
             "rope_theta, rms_eps, query_pre_attn_scalar, attn_softcap, final_softcap.",
    .run = run,
};
