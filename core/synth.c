/* synth.c - writing a synthetic checkpoint: the shape checked, the files around the streamed weights.
 *
 * A safetensors checkpoint is a folder.  It is made under a temporary name beside its place and renamed at the end,
 * so that a failure or a cancel leaves nothing half done; a GGUF file does the same by itself (core/gguf.h).
 *
 *     config.json, generation_config.json     as the Hub has them for gemma-2 (transformers 4.42 spelling)
 *     tokenizer.model
 *     model.safetensors                       or model-00001-of-0000n.safetensors with model.safetensors.index.json
 */
#include "core/synth.h"

#include "core/quant.h"
#include "core/synth_folder.h"
#include "core/synth_vocab.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const uint64_t side_files = 8u << 20; /* room for tokenizer, configuration, headers */

/* ---- the shape ------------------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    size_t at;
    bool real;
} fields[] = {
    {"n_layers", offsetof(lp_config, n_layers), false},
    {"d_model", offsetof(lp_config, d_model), false},
    {"n_heads", offsetof(lp_config, n_heads), false},
    {"n_kv_heads", offsetof(lp_config, n_kv_heads), false},
    {"head_dim", offsetof(lp_config, head_dim), false},
    {"d_ff", offsetof(lp_config, d_ff), false},
    {"vocab", offsetof(lp_config, vocab), false},
    {"max_positions", offsetof(lp_config, max_positions), false},
    {"window", offsetof(lp_config, window), false},
    {"rope_theta", offsetof(lp_config, rope_theta), true},
    {"rms_eps", offsetof(lp_config, rms_eps), true},
    {"query_pre_attn_scalar", offsetof(lp_config, query_pre_attn_scalar), true},
    {"attn_softcap", offsetof(lp_config, attn_softcap), true},
    {"final_softcap", offsetof(lp_config, final_softcap), true},
};
enum { N_FIELDS = sizeof fields / sizeof *fields };

static lp_status set_field(lp_config *c, const char *name, size_t len, const char *value, lp_error *err)
{
    for (size_t i = 0; i < N_FIELDS; i++) {
        if (strlen(fields[i].name) != len || memcmp(fields[i].name, name, len) != 0) continue;
        char *end, *field = (char *)c + fields[i].at;
        double v = strtod(value, &end);
        if (end == value || (*end && *end != ',') || !isfinite(v))
            return lp_fail(err, LP_E_RANGE, "%s wants a number, not \"%s\"", fields[i].name, value);
        if (fields[i].real) {
            memcpy(field, &v, sizeof v);
        } else if (v != floor(v) || v < 1 || v > 1 << 24) {
            return lp_fail(err, LP_E_RANGE, "%s wants a whole number from 1 to %d, not %g", fields[i].name, 1 << 24, v);
        } else {
            memcpy(field, &(int){(int)v}, sizeof(int));
        }
        return LP_OK;
    }
    char names[512] = "";
    for (size_t i = 0; i < N_FIELDS; i++) {
        strcat(names, i ? ", " : "");
        strcat(names, fields[i].name);
    }
    return lp_fail(err, LP_E_NOT_FOUND, "a shape has no \"%.*s\"; it has %s", (int)len, name, names);
}

lp_status lp_synth_set(lp_config *c, const char *assignments, lp_error *err)
{
    for (const char *at = assignments; *at;) {
        size_t name = strcspn(at, "=,"), all = strcspn(at, ",");
        if (at[name] != '=')
            return lp_fail(err, LP_E_RANGE, "\"%s\": expected NAME=NUMBER,NAME=NUMBER...", assignments);
        LP_TRY(set_field(c, at, name, at + name + 1, err));
        at += all + (at[all] == ',');
    }
    for (int i = 0; i < LP_MAX_LAYERS; i++) c->sliding[i] = i < c->n_layers && i % 2 == 0;
    return LP_OK;
}

static lp_status check_shape(const lp_synth_options *o, lp_error *err)
{
    const lp_config *c = &o->config;
    LP_TRY(lp_config_check(c, err));
    if (o->type >= LP_OTHER) return lp_fail(err, LP_E_UNSUPPORTED, "no such element type");
    if (!o->gguf && lp_dtype_block(o->type) > 1)
        return lp_fail(err, LP_E_UNSUPPORTED, "safetensors holds F32, F16, BF16; %s needs --format gguf",
                       lp_dtype_name(o->type));
    return LP_OK;
}

lp_status lp_synth_check(const lp_synth_options *o, uint64_t *bytes, lp_error *err)
{
    lp_synth_plan plan;
    LP_TRY(check_shape(o, err));
    LP_TRY(lp_synth_plan_make(&plan, o, err));
    if (bytes) *bytes = plan.bytes;
    lp_synth_plan_clear(&plan);
    return LP_OK;
}

lp_status lp_synth_values(float *out, const lp_config *c, uint64_t seed, const char *name, uint64_t first, size_t n,
                          lp_error *err)
{
    lp_synth_options o = {.config = *c, .seed = seed, .type = LP_F32};
    lp_synth_plan plan;
    LP_TRY(check_shape(&o, err));
    LP_TRY(lp_synth_plan_make(&plan, &o, err));
    lp_status st = LP_E_NOT_FOUND;
    for (size_t i = 0; i < plan.n && st != LP_OK; i++) {
        if (strcmp(plan.items[i].name, name) != 0) continue;
        uint64_t all = lp_synth_elements(&plan.items[i]);
        if (first > all || n > all - first) {
            st = LP_E_RANGE;
            break;
        }
        lp_synth_fill(out, &plan.items[i], first, n);
        st = LP_OK;
    }
    lp_synth_plan_clear(&plan);
    if (st == LP_E_RANGE) return lp_fail(err, st, "%s has fewer elements than %" PRIu64 " + %zu", name, first, n);
    if (st < 0) return lp_fail(err, st, "no tensor is called %s", name);
    return LP_OK;
}

/* ---- the vocabulary ------------------------------------------------------------------------------------------- */

static lp_status open_vocab(lp_tokenizer **out, const lp_synth_options *o, lp_error *err)
{
    if (!o->tokenizer) return lp_synth_vocab(out, o->config.vocab, err);
    LP_TRY(lp_tokenizer_open(out, o->tokenizer, err));
    int n = lp_tokenizer_size(*out);
    if (n == o->config.vocab) return LP_OK;
    return lp_fail(err, LP_E_SHAPE, "%s has %d pieces, the shape a vocabulary of %d; set vocab=%d", o->tokenizer, n,
                   o->config.vocab, n);
}

/* ---- GGUF ----------------------------------------------------------------------------------------------------- */

static const struct {
    lp_dtype type;
    uint32_t file_type;
} file_types[] = {
    {LP_F32, 0},   {LP_F16, 1},   {LP_Q4_0, 2},  {LP_Q4_1, 3},  {LP_Q8_0, 7},  {LP_Q5_0, 8},  {LP_Q5_1, 9},
    {LP_Q2_K, 10}, {LP_Q3_K, 11}, {LP_Q4_K, 14}, {LP_Q5_K, 16}, {LP_Q6_K, 18}, {LP_BF16, 32},
}; /* llama_ftype; of the K types the "small" mixes, which are the nearest to one type throughout */

static uint32_t file_type(lp_dtype type)
{
    for (size_t i = 0; i < sizeof file_types / sizeof *file_types; i++)
        if (file_types[i].type == type) return file_types[i].file_type;
    return 0;
}

/* GGUF has no key for the query scale: readers derive it, and would run another model than the one asked for. */
static lp_status check_query_scale(const lp_config *c, lp_error *err)
{
    double derived = c->n_layers == 46 ? (double)c->d_model / c->n_heads : c->head_dim;
    if (fabs(derived - c->query_pre_attn_scalar) < 1e-9) return LP_OK;
    return lp_fail(err, LP_E_UNSUPPORTED,
                   "GGUF cannot say query_pre_attn_scalar %g: its readers take %g for this shape; set "
                   "query_pre_attn_scalar=%g, or write safetensors",
                   c->query_pre_attn_scalar, derived, derived);
}

static lp_status put_shape(lp_gguf_writer *w, const lp_synth_options *o, lp_error *err)
{
    const lp_config *c = &o->config;
    const struct {
        const char *key;
        int v;
    } ints[] = {
        {"gemma2.context_length", c->max_positions},
        {"gemma2.embedding_length", c->d_model},
        {"gemma2.block_count", c->n_layers},
        {"gemma2.feed_forward_length", c->d_ff},
        {"gemma2.attention.head_count", c->n_heads},
        {"gemma2.attention.head_count_kv", c->n_kv_heads},
        {"gemma2.attention.key_length", c->head_dim},
        {"gemma2.attention.value_length", c->head_dim},
        {"gemma2.attention.sliding_window", c->window},
        {"general.file_type", (int)file_type(o->type)},
        {"general.quantization_version", 2},
    };
    LP_TRY(lp_gguf_put_string(w, "general.architecture", "gemma2", err));
    LP_TRY(lp_gguf_put_string(w, "general.type", "model", err));
    LP_TRY(lp_gguf_put_string(w, "general.name", "synthetic gemma-2 with random weights", err));
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        LP_TRY(lp_gguf_put_u32(w, ints[i].key, (uint32_t)ints[i].v, err));
    LP_TRY(lp_gguf_put_f32(w, "gemma2.attention.layer_norm_rms_epsilon", (float)c->rms_eps, err));
    if (c->rope_theta != 10000) LP_TRY(lp_gguf_put_f32(w, "gemma2.rope.freq_base", (float)c->rope_theta, err));
    LP_TRY(lp_gguf_put_f32(w, "gemma2.attn_logit_softcapping", (float)c->attn_softcap, err));
    return lp_gguf_put_f32(w, "gemma2.final_logit_softcapping", (float)c->final_softcap, err);
}

static lp_status fill_gguf(lp_synth_stream *s, const lp_synth_plan *p, const lp_tokenizer *vocab, lp_error *err)
{
    LP_TRY(put_shape(s->gguf, s->o, err));
    LP_TRY(lp_synth_put_vocab(s->gguf, vocab, err));
    for (size_t i = 0; i < p->n; i++) {
        const lp_synth_tensor *t = &p->items[i];
        const int64_t matrix[] = {t->rows, t->cols};
        LP_TRY(lp_gguf_declare(s->gguf, t->gguf_name, t->type, t->rows ? 2 : 1, t->rows ? matrix : matrix + 1, err));
    }
    LP_TRY(lp_gguf_begin(s->gguf, err));
    for (size_t i = 0; i < p->n; i++) LP_TRY(lp_synth_stream_tensor(s, &p->items[i]));
    LP_TRY(lp_synth_stream_flush(s));
    return lp_gguf_end(s->gguf, err);
}

static lp_status write_gguf(const char *path, lp_synth_stream *s, const lp_synth_plan *p, const lp_tokenizer *vocab,
                            lp_error *err)
{
    LP_TRY(check_query_scale(&s->o->config, err));
    LP_TRY(lp_gguf_create(&s->gguf, path, err));
    lp_status st = fill_gguf(s, p, vocab, err);
    lp_gguf_writer_close(s->gguf);
    s->gguf = NULL;
    return st;
}

/* ---- the whole ------------------------------------------------------------------------------------------------ */

static lp_status check_place(const char *path, const lp_synth_options *o, uint64_t bytes, lp_error *err)
{
    if (!o->gguf) LP_TRY(lp_synth_folder_check(path, o->replace, err));
    struct stat sb;
    if (o->gguf && lstat(path, &sb) == 0) {
        if (!S_ISREG(sb.st_mode))
            return lp_fail(err, LP_E_IO, "%s exists and is not a file; choose another place", path);
        if (!o->replace)
            return lp_fail(err, LP_E_IO, "%s exists already; choose another place, or replace it (--force)", path);
    }
    int len = (int)strlen(path);
    while (len > 1 && path[len - 1] == '/') len--;
    while (len > 0 && path[len - 1] != '/') len--;
    char *parent = len ? lp_format("%.*s", len, path) : lp_strdup(".");
    if (!parent) return lp_fail(err, LP_E_MEMORY, "out of memory for %s", path);
    struct statvfs fs;
    lp_status st = LP_OK;
    if (statvfs(parent, &fs) < 0)
        st = lp_fail(err, LP_E_NOT_FOUND, "%s: %s", parent, strerror(errno));
    else if ((uint64_t)fs.f_bavail < bytes / fs.f_frsize + 1)
        st = lp_fail(err, LP_E_IO, "%s needs %.1f GB of disk, %.1f GB are free", path, (double)bytes / 1e9,
                     (double)fs.f_bavail * (double)fs.f_frsize / 1e9);
    free(parent);
    return st;
}

lp_status lp_synth_write(const char *path, const lp_synth_options *o, const lp_env *env, lp_error *err)
{
    lp_synth_plan plan = {0};
    lp_tokenizer *vocab = NULL;
    lp_synth_stream s = {.o = o, .env = env, .err = err};
    lp_status st;
    if ((st = check_shape(o, err)) < 0) goto out;
    if ((st = lp_synth_plan_make(&plan, o, err)) < 0) goto out;
    if ((st = check_place(path, o, plan.bytes + side_files, err)) < 0) goto out;
    if ((st = open_vocab(&vocab, o, err)) < 0) goto out;
    s.of = plan.bytes;
    if ((st = lp_synth_stream_begin(&s, err)) < 0) goto out;
    st = o->gguf ? write_gguf(path, &s, &plan, vocab, err) : lp_synth_folder_write(path, &s, &plan, vocab, err);
out:
    lp_synth_stream_end(&s);
    lp_tokenizer_free(vocab);
    lp_synth_plan_clear(&plan);
    return st;
}
