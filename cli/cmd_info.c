/* cmd_info.c - `lapidary info`: what a checkpoint is, what it would take, and what to know before trusting it.
 *
 * Without --check no weight is read.  The facts are gathered as one JSON object, which is either printed or shown as lines of
 * name and value, so that the two cannot disagree.
 */
#include "cli/commands.h"
#include "cli/inputs.h"
#include "core/quant.h"
#include "core/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct report {
    cli *c;
    json_t *facts, *warnings;
    bool is_bad; /* out of memory somewhere */
} report;

static void put(report *r, const char *name, json_t *value)
{
    if (json_object_set_new(r->facts, name, value)) r->is_bad = true;
}

static void put_int(report *r, const char *name, int64_t v)
{
    put(r, name, json_integer(v));
}

static void put_real(report *r, const char *name, double v)
{
    put(r, name, cli_json_real(v));
}

static void put_text(report *r, const char *name, const char *s)
{
    put(r, name, cli_json_text(s, strlen(s)));
}

/* Warnings of core on their way to stderr are kept for the report as well. */
static void keep_warning(void *user, lp_level level, const char *line)
{
    report *r = user;
    r->c->env.log(r->c->env.user, level, line);
    if (level == LP_WARN && json_array_append_new(r->warnings, cli_json_text(line, strlen(line)))) r->is_bad = true;
}

static void pass_progress(void *user, const char *what, int64_t done, int64_t of)
{
    report *r = user;
    lp_progress(&r->c->env, what, done, of);
}

/* ---- facts -------------------------------------------------------------------------------------------------- */

static float bf16_root(int n)
{
    return lp_bf16_to_f32(lp_f32_to_bf16((float)sqrt((double)n)));
}

/* "0,2,4" would be long: the pattern of the released models has a name. */
static const char *sliding_text(const lp_config *c)
{
    bool even = true, none = true, all = true;
    for (int l = 0; l < c->n_layers; l++) {
        even = even && c->sliding[l] == (l % 2 == 0);
        none = none && !c->sliding[l];
        all = all && c->sliding[l];
    }
    return even ? "even layers" : none ? "none" : all ? "all" : "as config.json lists them";
}

static void put_config(report *r, const lp_config *c)
{
    put_text(r, "family", lp_config_family(c));
    put_int(r, "parameters", (int64_t)lp_config_parameters(c));
    put_int(r, "layers", c->n_layers);
    put_int(r, "d_model", c->d_model);
    put_int(r, "heads", c->n_heads);
    put_int(r, "kv_heads", c->n_kv_heads);
    put_int(r, "head_dim", c->head_dim);
    put_int(r, "d_ff", c->d_ff);
    put_int(r, "vocab", c->vocab);
    put_int(r, "max_positions", c->max_positions);
    put_int(r, "window", c->window);
    put_text(r, "sliding", sliding_text(c));
    put_real(r, "rope_theta", c->rope_theta);
    put_real(r, "rms_eps", c->rms_eps);
    put_real(r, "query_pre_attn_scalar", c->query_pre_attn_scalar);
    put_real(r, "attn_softcap", c->attn_softcap);
    put_real(r, "final_softcap", c->final_softcap);
    put_real(r, "embed_scale_f32", (double)(float)sqrt((double)c->d_model));
    put_real(r, "embed_scale_bf16", (double)bf16_root(c->d_model));
    put_int(r, "bos", c->bos);
    put_int(r, "eos", c->eos);
    put_int(r, "pad", c->pad);
}

static const char *panel_name(int format)
{
    static const char *const names[LP_N_PANELS] = {
        [LP_PANEL_F32] = "F32",
        [LP_PANEL_BF16] = "BF16",
        [LP_PANEL_F16] = "F16",
        [LP_PANEL_Q8_0] = "Q8_0",
        [LP_PANEL_Q4_K] = "Q4_K",
        [LP_PANEL_S16] = "int8 x scale/16",
        [LP_PANEL_A16] = "int8 x scale + min/16",
    };
    return names[format] ? names[format] : "?";
}

static void put_types(report *r, const lp_model_plan *p)
{
    json_t *stored = json_object(), *held = json_object();
    if (!stored || !held) r->is_bad = true;
    for (int i = 0; i < LP_N_DTYPES; i++)
        if (p->stored_count[i] &&
            json_object_set_new(stored, lp_dtype_name((lp_dtype)i), json_integer((json_int_t)p->stored_count[i])))
            r->is_bad = true;
    for (int i = 0; i < LP_N_PANELS; i++)
        if (p->held_count[i] && json_object_set_new(held, panel_name(i), json_integer((json_int_t)p->held_count[i])))
            r->is_bad = true;
    put(r, "stored_elements", stored);
    put(r, "held_elements", held);
}

static void put_memory(report *r, const lp_model_plan *p)
{
    const cli *c = r->c;
    lp_model shape = {.config = p->config};
    lp_session_options o = {.arithmetic = c->arithmetic, .wave = c->wave};
    uint64_t session = lp_session_bytes(&shape, &o, lp_pool_threads(c->env.pool));
    uint64_t full = p->kv_bytes_per_token * (uint64_t)p->config.max_positions;
    put_int(r, "files", p->n_files);
    put_int(r, "file_bytes", (int64_t)p->file_bytes);
    put_int(r, "weight_bytes", (int64_t)p->weight_bytes);
    put_int(r, "session_bytes", (int64_t)session);
    put_int(r, "kv_bytes_per_token", (int64_t)p->kv_bytes_per_token);
    put_int(r, "kv_bytes_full_context", (int64_t)full);
    put_int(r, "available_bytes", (int64_t)p->available);
    put(r, "fits", json_boolean(p->available == 0 || p->weight_bytes + session <= p->available));
    put(r, "fits_full_context", json_boolean(p->available == 0 || p->weight_bytes + session + full <= p->available));
}

/* The tokenizer beside the weights; its absence is a warning and not an error. */
static void put_tokenizer(report *r, const lp_model_plan *p, const lp_env *env)
{
    lp_tokenizer *t = NULL;
    lp_error err = {0};
    if (cli_open_tokenizer(&t, r->c, p->path, &err) < 0) {
        put(r, "tokenizer_pieces", json_null());
        lp_log(env, LP_WARN, "no usable tokenizer: %s", err.text);
        return;
    }
    put_int(r, "tokenizer_pieces", lp_tokenizer_size(t));
    put_int(r, "tokenizer_bos", lp_tokenizer_bos(t));
    put_int(r, "tokenizer_eos", lp_tokenizer_eos(t));
    put_int(r, "end_of_turn", lp_tokenizer_find(t, "<end_of_turn>"));
    if (lp_tokenizer_size(t) > p->config.vocab)
        lp_log(env, LP_WARN, "the tokenizer has %d pieces and the model %d rows", lp_tokenizer_size(t),
               p->config.vocab);
    lp_tokenizer_free(t);
}

/* Things known to go wrong with released checkpoints that the reader of the config does not warn about itself. */
static void put_quirks(const lp_config *c, const lp_env *env)
{
    float exact = (float)sqrt((double)c->d_model), rounded = bf16_root(c->d_model);
    if (exact != rounded)
        lp_log(env, LP_INFO, "sqrt(d_model) is %g here and %g in bf16 runs of the reference; --embed-scale chooses",
               (double)exact, (double)rounded);
    if (c->n_layers == 46 && c->query_pre_attn_scalar == 128)
        lp_log(env, LP_WARN, "query_pre_attn_scalar is 128; the released 27B has 144 (d_model / heads)");
}

static lp_status check_weights(report *r, const lp_env *env, lp_error *err)
{
    lp_model *m = NULL;
    char *name = NULL;
    LP_TRY(cli_model_name(&name, r->c, err));
    lp_status st = lp_model_open(&m, name, NULL, env, err);
    free(name);
    if (st != LP_OK) return st;
    put_int(r, "nonfinite_weights", (int64_t)m->n_nonfinite);
    lp_model_close(m);
    return LP_OK;
}

/* ---- showing ------------------------------------------------------------------------------------------------ */

static void put_value(cli *c, const json_t *v)
{
    if (json_is_integer(v))
        cli_put_int(c, json_integer_value(v));
    else if (json_is_real(v))
        cli_put_real(c, json_real_value(v), 9);
    else if (json_is_boolean(v))
        cli_put_bool(c, json_is_true(v));
    else if (json_is_string(v))
        cli_put_bytes(c, json_string_value(v), json_string_length(v));
    else
        cli_put_none(c);
}

static void show(cli *c, json_t *facts)
{
    const char *name, *inner;
    json_t *value, *part;
    size_t i;
    cli_table_begin(c, "name\tvalue");
    json_object_foreach(facts, name, value)
    {
        if (json_is_array(value)) {
            json_array_foreach(value, i, part)
            {
                cli_put_text(c, "warning");
                put_value(c, part);
            }
        } else if (json_is_object(value)) {
            json_object_foreach(value, inner, part)
            {
                char full[96];
                snprintf(full, sizeof full, "%s %s", name, inner);
                cli_put_text(c, full);
                put_value(c, part);
            }
        } else {
            cli_put_text(c, name);
            put_value(c, value);
        }
    }
    cli_table_end(c);
}

static lp_status gather(report *r, const lp_env *env, bool checks, lp_error *err)
{
    char *name = NULL;
    lp_model_plan p = {0};
    LP_TRY(cli_model_name(&name, r->c, err));
    lp_status st = lp_model_plan_read(&p, name, env, err);
    free(name);
    if (st != LP_OK) return st;
    const lp_kernels *k = env->kernels ? env->kernels : lp_kernels_best();
    put_text(r, "path", p.path);
    put_text(r, "format", p.is_gguf ? "gguf" : "safetensors");
    put_config(r, &p.config);
    put_types(r, &p);
    put_memory(r, &p);
    put_tokenizer(r, &p, env);
    put_quirks(&p.config, env);
    put_text(r, "kernels", k->name);
    put_int(r, "threads", lp_pool_threads(env->pool));
    lp_model_plan_clear(&p);
    return checks ? check_weights(r, env, err) : LP_OK;
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    bool checks = false;
    const cli_option options[] = {
        {"check", 0, CLI_FLAG, &checks, NULL, "load the weights and count those that are NaN or infinite"},
        {0},
    };
    LP_TRY(cli_parse(c, options, argc, argv, err));
    LP_TRY(cli_count_operands(c, 0, 0, err));
    report r = {.c = c, .facts = json_object(), .warnings = json_array()};
    lp_env env = c->env;
    env.log = keep_warning;
    env.progress = pass_progress;
    env.user = &r;
    lp_status st = r.facts && r.warnings ? gather(&r, &env, checks, err) : LP_E_MEMORY;
    put(&r, "warnings", json_incref(r.warnings));
    if (st >= 0 && r.is_bad) st = LP_E_MEMORY;
    if (st == LP_E_MEMORY && !err->text[0]) lp_fail(err, st, "out of memory");
    if (st == LP_OK && c->json)
        st = cli_print_json(json_incref(r.facts), err);
    else if (st == LP_OK)
        show(c, r.facts);
    json_decref(r.facts);
    json_decref(r.warnings);
    return st;
}

const cli_command cmd_info = {
    .name = "info",
    .summary = "Say what a model is, what it takes, and what to beware of",
    .about = "Element counts are by type as stored in the files and as held in memory.  Weights are not read without\n"
             "--check.",
    .run = run,
};
