/* Opening a model: what is refused, what is reported, what it says it needs. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* setenv, mkdtemp, truncate */
#endif
#include "tests/models.h"

#include "core/safetensors.h"

#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/lp_model_XXXXXX";

static const char *in_dir(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static char *golden_file(const char *model, const char *name, size_t *n)
{
    char path[1024], *text = NULL;
    snprintf(path, sizeof path, "%s/goldens/models/%s/%s", LP_TESTS_DIR, model, name);
    CHECK(lp_read_file(&text, n, path, 64 << 20, NULL) == LP_OK);
    return text;
}

static void put(const char *name, const char *bytes, size_t n)
{
    FILE *f = fopen(in_dir(name), "wb");
    CHECK(f && fwrite(bytes, 1, n, f) == n);
    if (f) fclose(f);
}

/* A fresh copy of the golden model `plain` in dir. */
static void fresh(void)
{
    size_t n;
    char *config = golden_file("plain", "config.json", &n);
    put("config.json", config, n);
    free(config);
    char *weights = golden_file("plain", "model.safetensors", &n);
    put("model.safetensors", weights, n);
    free(weights);
}

/* Replaces the first `from` in config.json. */
static void edit_config(const char *from, const char *to)
{
    size_t n;
    char *text = NULL, out[16384];
    CHECK(lp_read_file(&text, &n, in_dir("config.json"), 16000, NULL) == LP_OK);
    const char *at = strstr(text, from);
    CHECK(at != NULL);
    if (at) {
        int len = snprintf(out, sizeof out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
        put("config.json", out, (size_t)len);
    }
    free(text);
}

typedef struct heard {
    int warnings, bars;
    char last[LP_ERROR_TEXT];
} heard;

static void hear(void *user, lp_level level, const char *line)
{
    heard *h = user;
    if (level != LP_WARN) return;
    h->warnings++;
    snprintf(h->last, sizeof h->last, "%s", line);
}

static void bar(void *user, const char *what, int64_t done, int64_t of)
{
    heard *h = user;
    CHECK(strcmp(what, "loading") == 0 && done <= of && of > 0);
    h->bars++;
}

static lp_status open_dir(lp_model **m, heard *h, lp_error *err)
{
    *h = (heard){0};
    *err = (lp_error){0};
    *m = NULL;
    return lp_model_open(m, dir, NULL, &(lp_env){.log = hear, .progress = bar, .user = h}, err);
}

static void refused(lp_status want, const char *hint)
{
    lp_model *m;
    heard h;
    lp_error err;
    lp_status st = open_dir(&m, &h, &err);
    CHECK(st == want && m == NULL);
    if (!strstr(err.text, hint) || st != want)
        fprintf(stderr, "status %d \"%s\", expected %d \"%s\"\n", st, err.text, want, hint);
    CHECK(strstr(err.text, hint) != NULL);
    lp_model_plan plan;
    if (lp_model_plan_read(&plan, dir, NULL, NULL) == LP_OK) lp_model_plan_clear(&plan);
}

static void test_good(void)
{
    lp_model *m;
    heard h;
    lp_error err;
    fresh();
    CHECK(open_dir(&m, &h, &err) == LP_OK && m);
    CHECK(h.bars > 5 && m->n_nonfinite == 0 && !m->tokenizer); /* the goldens have no tokenizer, and it is said */
    CHECK(h.warnings == 1 && strstr(h.last, "tokenizer.model"));
    lp_model_plan plan;
    CHECK(lp_model_plan_read(&plan, dir, NULL, &err) == LP_OK);
    CHECK(plan.weight_bytes == m->weight_bytes && plan.n_files == 1 && !plan.is_gguf && plan.available > 0);
    CHECK(lp_config_parameters(&plan.config) <= plan.file_bytes / 2);
    lp_model_plan_clear(&plan);
    lp_model_close(m);
    m = NULL;
    CHECK(lp_model_open(&m, dir, &(lp_model_options){.memory_limit = 1000}, NULL, &err) == LP_E_MEMORY && !m);
    CHECK(strstr(err.text, "MB of memory"));
    atomic_bool cancel = true;
    CHECK(lp_model_open(&m, dir, NULL, &(lp_env){.cancel = &cancel}, &err) == LP_CANCELLED && !m);
    lp_model_close(NULL);
}

static void test_broken(void)
{
    lp_model *m = NULL;
    lp_error err;
    fresh();
    struct stat sb;
    CHECK(stat(in_dir("model.safetensors"), &sb) == 0);
    static const int cuts[] = {0, 7, 8, 100, 3000};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        fresh();
        CHECK(truncate(in_dir("model.safetensors"), cuts[i]) == 0);
        refused(LP_E_FORMAT, "model.safetensors");
    }
    fresh();
    CHECK(truncate(in_dir("model.safetensors"), sb.st_size - 1) == 0);
    refused(LP_E_FORMAT, "model.safetensors");
    fresh();
    unlink(in_dir("model.safetensors"));
    refused(LP_E_NOT_FOUND, "safetensors");
    fresh();
    unlink(in_dir("config.json"));
    refused(LP_E_NOT_FOUND, "config.json");
    fresh();
    put("config.json", "{\"model_type\":", 14);
    refused(LP_E_FORMAT, "config.json");
    fresh();
    edit_config("\"gemma2\"", "\"gemma\"");
    refused(LP_E_UNSUPPORTED, "\"gemma\" model");
    fresh();
    edit_config("\"num_hidden_layers\": ", "\"num_hidden_layers\": 1");
    refused(LP_E_FORMAT, "is missing");
    fresh();
    edit_config("\"intermediate_size\": ", "\"intermediate_size\": 1");
    refused(LP_E_SHAPE, "do config and weights belong together?");
    CHECK(lp_model_open(&m, "/nowhere/at/all", NULL, NULL, &err) == LP_E_NOT_FOUND && !m);
    setenv("HF_HUB_CACHE", dir, 1); /* an empty cache, whatever this machine has */
    CHECK(lp_model_open(&m, "google/gemma-2-2b", NULL, NULL, &err) == LP_E_NOT_FOUND && !m);
    CHECK(strstr(err.text, "hf download google/gemma-2-2b"));
}

/* Bytes of tensor `name` in dir's model.safetensors. */
static uint64_t place_of(const char *name, uint64_t *bytes)
{
    lp_tensors t = {0};
    CHECK(lp_safetensors_open(&t, dir, NULL, NULL) == LP_OK);
    const lp_tensor *x = lp_tensors_find(&t, name);
    CHECK(x != NULL);
    uint64_t at = x ? x->at : 0;
    *bytes = x ? x->bytes : 0;
    lp_tensors_clear(&t);
    return at;
}

static void poke(uint64_t at, const void *bytes, size_t n)
{
    FILE *f = fopen(in_dir("model.safetensors"), "r+b");
    CHECK(f && fseek(f, (long)at, SEEK_SET) == 0 && fwrite(bytes, 1, n, f) == n);
    if (f) fclose(f);
}

static void test_nan_is_reported(void)
{
    static const char *const names[] = {"model.embed_tokens.weight", "model.layers.0.mlp.down_proj.weight",
                                        "model.layers.1.post_attention_layernorm.weight"};
    lp_model *m;
    heard h;
    lp_error err;
    fresh();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        uint64_t bytes, at = place_of(names[i], &bytes);
        float bad = i == 1 ? INFINITY : NAN;
        poke(at + (bytes / 2 & ~(uint64_t)3), &bad, sizeof bad);
        CHECK(open_dir(&m, &h, &err) == LP_OK && m);
        CHECK(h.warnings == (int)i + 2);
        if (m) CHECK(m->n_nonfinite >= i + 1);
        lp_model_close(m);
    }
}

int main(void)
{
    if (!mkdtemp(dir)) return 1;
    test_good();
    test_broken();
    test_nan_is_reported();
    unlink(in_dir("config.json"));
    unlink(in_dir("model.safetensors"));
    rmdir(dir);
    return check_done();
}
