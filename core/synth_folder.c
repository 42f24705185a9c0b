/* synth_folder.c - a checkpoint folder as the Hub has them.
 *
 *     config.json, generation_config.json     as gemma-2 has them there (transformers 4.42 spelling)
 *     tokenizer.model
 *     model.safetensors                       or model-00001-of-0000n.safetensors with model.safetensors.index.json
 *
 * It is made under a temporary name beside its place and renamed at the end, so that a failure or a cancel leaves
 * nothing half done.  Replacing removes only what a checkpoint consists of: a folder that holds anything else is
 * refused.
 */
#include "core/synth_folder.h"

#include "core/quant.h"
#include "core/synth_vocab.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint64_t default_shard = 5000000000u;

/* ---- folders -------------------------------------------------------------------------------------------------- */

static bool of_checkpoint(const char *name)
{
    static const char *const names[] = {"config.json", "generation_config.json", "tokenizer.model", "model.safetensors",
                                        "model.safetensors.index.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) return true;
    int part, of, end = 0;
    return sscanf(name, "model-%5d-of-%5d.safetensors%n", &part, &of, &end) == 2 && end && !name[end];
}

/* Every file in the folder; with `foreign` set only looked at, else removed and the folder with it. */
static lp_status visit(const char *path, char *foreign, size_t n, lp_error *err)
{
    lp_status st = LP_OK;
    DIR *d = opendir(path);
    if (!d) return lp_fail(err, LP_E_IO, "%s: %s", path, strerror(errno));
    for (struct dirent *e; st == LP_OK && (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (foreign) {
            if (!of_checkpoint(e->d_name)) snprintf(foreign, n, "%s", e->d_name);
            continue;
        }
        if (unlinkat(dirfd(d), e->d_name, 0) < 0) /* takes no memory: it must work when there is none */
            st = lp_fail(err, LP_E_IO, "%s/%s: %s", path, e->d_name, strerror(errno));
    }
    closedir(d);
    if (!foreign && st == LP_OK && rmdir(path) < 0) st = lp_fail(err, LP_E_IO, "%s: %s", path, strerror(errno));
    return st;
}

lp_status lp_synth_folder_check(const char *path, int replace, lp_error *err)
{
    struct stat sb;
    char foreign[256] = "";
    if (lstat(path, &sb) < 0) return errno == ENOENT ? LP_OK : lp_fail(err, LP_E_IO, "%s: %s", path, strerror(errno));
    if (!replace)
        return lp_fail(err, LP_E_IO, "%s exists already; choose another place, or replace it (--force)", path);
    if (!S_ISDIR(sb.st_mode)) return lp_fail(err, LP_E_IO, "%s is not a folder; delete it first", path);
    LP_TRY(visit(path, foreign, sizeof foreign, err));
    if (!foreign[0]) return LP_OK;
    return lp_fail(err, LP_E_IO, "%s holds %s, which is no part of a checkpoint; delete the folder yourself", path,
                   foreign);
}

/* ---- JSON ----------------------------------------------------------------------------------------------------- */

/* Takes over `j`. */
static lp_status write_json(const char *dir, const char *name, json_t *j, lp_error *err)
{
    char *path = lp_path_join(dir, name), *text = j ? json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) : NULL;
    FILE *f = path && text ? fopen(path, "we") : NULL;
    lp_status st = LP_OK;
    json_decref(j);
    if (!path || !text)
        st = lp_fail(err, LP_E_MEMORY, "out of memory for %s", name);
    else if (!f || fprintf(f, "%s\n", text) < 0)
        st = lp_fail(err, LP_E_IO, "%s: %s", path, strerror(errno));
    if (f && fclose(f) != 0 && st == LP_OK) st = lp_fail(err, LP_E_IO, "%s: %s", path, strerror(errno));
    free(text);
    free(path);
    return st;
}

typedef struct member {
    const char *key;
    json_t *value;
} member;

static json_t *cap(double v)
{
    return v > 0 ? json_real(v) : json_null();
}

/* transformers wants an integer here; a shape may have another number all the same. */
static json_t *whole(double v)
{
    return v == (double)(int)v ? json_integer((int)v) : json_real(v);
}

static const char *torch_dtype(lp_dtype t)
{
    return t == LP_F32 ? "float32" : t == LP_F16 ? "float16" : "bfloat16";
}

/* An object of the members, in order; takes them over.  NULL: out of memory. */
static json_t *object(const member *m, size_t n)
{
    json_t *j = json_object();
    bool failed = !j;
    for (size_t i = 0; i < n; i++)
        if (json_object_set_new(j, m[i].key, m[i].value) < 0) failed = true; /* drops the value in any case */
    if (!failed) return j;
    json_decref(j);
    return NULL;
}

static json_t *config_json(const lp_config *c, lp_dtype type, const lp_tokenizer *v)
{
    const member members[] = {
        {"architectures", json_pack("[s]", "Gemma2ForCausalLM")},
        {"attention_bias", json_false()},
        {"attention_dropout", json_real(0)},
        {"attn_logit_softcapping", cap(c->attn_softcap)},
        {"bos_token_id", json_integer(lp_tokenizer_bos(v))},
        {"cache_implementation", json_string("hybrid")},
        {"eos_token_id", json_integer(lp_tokenizer_eos(v))},
        {"final_logit_softcapping", cap(c->final_softcap)},
        {"head_dim", json_integer(c->head_dim)},
        {"hidden_act", json_string("gelu_pytorch_tanh")},
        {"hidden_activation", json_string("gelu_pytorch_tanh")},
        {"hidden_size", json_integer(c->d_model)},
        {"initializer_range", json_real(0.02)},
        {"intermediate_size", json_integer(c->d_ff)},
        {"max_position_embeddings", json_integer(c->max_positions)},
        {"model_type", json_string("gemma2")},
        {"num_attention_heads", json_integer(c->n_heads)},
        {"num_hidden_layers", json_integer(c->n_layers)},
        {"num_key_value_heads", json_integer(c->n_kv_heads)},
        {"pad_token_id", json_integer(lp_tokenizer_pad(v))},
        {"query_pre_attn_scalar", whole(c->query_pre_attn_scalar)},
        {"rms_norm_eps", json_real(c->rms_eps)},
        {"rope_theta", json_real(c->rope_theta)},
        {"sliding_window", json_integer(c->window)},
        {"torch_dtype", json_string(torch_dtype(type))},
        {"transformers_version", json_string("4.42.0")},
        {"use_cache", json_true()},
        {"vocab_size", json_integer(c->vocab)},
    };
    return object(members, sizeof members / sizeof *members);
}

static json_t *generation_json(const lp_tokenizer *v)
{
    const member members[] = {
        {"_from_model_config", json_true()},
        {"bos_token_id", json_integer(lp_tokenizer_bos(v))},
        {"cache_implementation", json_string("hybrid")},
        {"eos_token_id", json_integer(lp_tokenizer_eos(v))},
        {"pad_token_id", json_integer(lp_tokenizer_pad(v))},
        {"transformers_version", json_string("4.42.0")},
    };
    return object(members, sizeof members / sizeof *members);
}

static lp_status write_tokenizer(const char *dir, const lp_synth_options *o, const lp_tokenizer *vocab, lp_error *err)
{
    char *bytes = NULL, *path = NULL;
    size_t n = 0;
    FILE *f = NULL;
    lp_status st = o->tokenizer ? lp_read_file(&bytes, &n, o->tokenizer, (size_t)64 << 20, err)
                                : lp_synth_spm(&bytes, &n, vocab, err);
    if (st < 0) goto out;
    if (!(path = lp_path_join(dir, "tokenizer.model"))) {
        st = lp_fail(err, LP_E_MEMORY, "out of memory for tokenizer.model");
        goto out;
    }
    f = fopen(path, "we");
    st = f && fwrite(bytes, 1, n, f) == n ? LP_OK : LP_E_IO;
    if (f && fclose(f) != 0) st = LP_E_IO;
    if (st < 0) lp_fail(err, st, "%s: %s", path, strerror(errno));
out:
    free(path);
    free(bytes);
    return st;
}

/* ---- weights -------------------------------------------------------------------------------------------------- */

/* One past the last tensor of the file that begins with tensor `from`. */
static size_t shard_end(const lp_synth_plan *p, size_t from, uint64_t limit)
{
    uint64_t bytes = 0;
    size_t i = from;
    for (; i < p->n && (i == from || p->items[i].bytes <= limit - bytes); i++) {
        if (p->items[i].bytes > limit) return i + 1; /* one tensor alone may be larger than a file should be */
        bytes += p->items[i].bytes;
    }
    return i;
}

static lp_status fill_file(lp_synth_stream *s, const lp_synth_plan *p, size_t from, size_t to, lp_error *err)
{
    LP_TRY(lp_safetensors_metadata(s->safetensors, "format", "pt", err));
    for (size_t i = from; i < to; i++) {
        const lp_synth_tensor *t = &p->items[i];
        const int64_t shape[] = {t->rows, t->cols};
        LP_TRY(lp_safetensors_declare(s->safetensors, t->name, t->type, t->rows ? 2 : 1, t->rows ? shape : shape + 1,
                                      err));
    }
    LP_TRY(lp_safetensors_begin(s->safetensors, err));
    for (size_t i = from; i < to; i++) LP_TRY(lp_synth_stream_tensor(s, &p->items[i]));
    LP_TRY(lp_synth_stream_flush(s));
    return lp_safetensors_end(s->safetensors, err);
}

static lp_status write_file(const char *dir, const char *name, lp_synth_stream *s, const lp_synth_plan *p, size_t from,
                            size_t to, lp_error *err)
{
    char *path = lp_path_join(dir, name);
    if (!path) return lp_fail(err, LP_E_MEMORY, "out of memory for %s", name);
    lp_status st = lp_safetensors_create(&s->safetensors, path, err);
    if (st == LP_OK) st = fill_file(s, p, from, to, err);
    lp_safetensors_close(s->safetensors);
    s->safetensors = NULL;
    free(path);
    return st;
}

static lp_status write_weights(const char *dir, lp_synth_stream *s, const lp_synth_plan *p, lp_error *err)
{
    uint64_t limit = s->o->shard_bytes ? s->o->shard_bytes : default_shard;
    int n = 0;
    for (size_t i = 0; i < p->n; i = shard_end(p, i, limit)) n++;
    if (n == 1) return write_file(dir, "model.safetensors", s, p, 0, p->n, err);

    json_t *map = json_object(), *index;
    lp_status st = LP_OK;
    int part = 1;
    for (size_t from = 0, to; st == LP_OK && from < p->n; from = to, part++) {
        char name[48];
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", part, n);
        to = shard_end(p, from, limit);
        for (size_t i = from; st == LP_OK && i < to; i++)
            if (json_object_set_new(map, p->items[i].name, json_string(name)) < 0)
                st = lp_fail(err, LP_E_MEMORY, "out of memory for the index of %d files", n);
        if (st == LP_OK) st = write_file(dir, name, s, p, from, to, err);
    }
    if (st == LP_OK) {
        index = json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)p->bytes, "weight_map", map);
        st = write_json(dir, "model.safetensors.index.json", index, err);
    }
    json_decref(map);
    return st;
}

/* ---- the whole ------------------------------------------------------------------------------------------------ */

static lp_status fill_folder(const char *dir, lp_synth_stream *s, const lp_synth_plan *p, const lp_tokenizer *vocab,
                             lp_error *err)
{
    LP_TRY(write_json(dir, "config.json", config_json(&s->o->config, s->o->type, vocab), err));
    LP_TRY(write_json(dir, "generation_config.json", generation_json(vocab), err));
    LP_TRY(write_tokenizer(dir, s->o, vocab, err));
    return write_weights(dir, s, p, err);
}

/* Beside `path`, with the mode that the umask gives (mkdtemp would keep everybody else out). */
static lp_status make_temporary(char **out, const char *path, lp_error *err)
{
    enum { TRIES = 100 };
    int len = (int)strlen(path);
    while (len > 1 && path[len - 1] == '/') len--;
    for (int i = 0; i < TRIES; i++) {
        char *name = lp_format("%.*s.%ld-%d.tmp", len, path, (long)getpid(), i);
        if (!name) return lp_fail(err, LP_E_MEMORY, "out of memory for %s", path);
        if (mkdir(name, 0777) == 0) {
            *out = name;
            return LP_OK;
        }
        free(name);
        if (errno != EEXIST) break;
    }
    return lp_fail(err, LP_E_IO, "%s: cannot make a folder there: %s", path, strerror(errno));
}

/* From its temporary name to `path`, in place of what was there. */
static lp_status settle(const char *from, const char *path, int replace, lp_error *err)
{
    LP_TRY(lp_synth_folder_check(path, replace, err)); /* again: writing took a while */
    if (replace && lp_is_dir(path)) LP_TRY(visit(path, NULL, 0, err));
    if (chmod(from, 0755) < 0 || rename(from, path) < 0) return lp_fail(err, LP_E_IO, "%s: %s", path, strerror(errno));
    return LP_OK;
}

lp_status lp_synth_folder_write(const char *path, lp_synth_stream *s, const lp_synth_plan *p, const lp_tokenizer *vocab,
                                lp_error *err)
{
    char *temporary = NULL;
    LP_TRY(make_temporary(&temporary, path, err));
    lp_status st = fill_folder(temporary, s, p, vocab, err);
    if (st == LP_OK) st = settle(temporary, path, s->o->replace, err);
    if (st != LP_OK) visit(temporary, NULL, 0, NULL);
    free(temporary);
    return st;
}
