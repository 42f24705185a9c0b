/* Every allocation of the readers, the writers and the hub fails once: the right status, nothing leaked, nothing left. */
#include "core/gguf.h"
#include "core/hub.h"
#include "core/safetensors.h"

#include "tests/bytes.h"
#include "tests/check.h"
#include "tests/oom.h"

static char dir[] = "/tmp/lp_oom_XXXXXX";

/* In an attempt CHECK is used only after success: what fails before is the sweep's business. */
static lp_status open_safetensors(const void *user, lp_error *err)
{
    lp_tensors t = {0};
    lp_status st = lp_safetensors_open(&t, user, NULL, err);
    CHECK(st == LP_OK ? t.n > 1 : t.n == 0);
    lp_tensors_clear(&t);
    return st;
}

static lp_status look_for_shards(const void *user, lp_error *err)
{
    char *lacking = NULL;
    lp_status st = lp_safetensors_missing(&lacking, user, err);
    if (st == LP_OK) CHECK_STR(lacking, "two.safetensors");
    free(lacking);
    return st;
}

static lp_status open_gguf(const void *user, lp_error *err)
{
    lp_gguf *g = NULL;
    const char *s;
    size_t n;
    lp_status st = lp_gguf_open(&g, user, err);
    if (st == LP_OK) CHECK(lp_gguf_tensors(g)->n == 8 && lp_gguf_array_string(g, "a.string", 3, &s, &n) && n == 6);
    CHECK((st == LP_OK) == (g != NULL));
    lp_gguf_close(g);
    return st;
}

static lp_status write_safetensors(const void *user, lp_error *err)
{
    lp_safetensors_writer *w = NULL;
    int64_t shape[] = {2, 1};
    lp_status st = lp_safetensors_create(&w, user, err);
    if (st == LP_OK) st = lp_safetensors_metadata(w, "format", "pt", err);
    if (st == LP_OK) st = lp_safetensors_declare(w, "a", LP_F32, 2, shape, err);
    if (st == LP_OK) st = lp_safetensors_declare(w, "b", LP_F16, 1, shape, err);
    if (st == LP_OK) st = lp_safetensors_begin(w, err);
    if (st == LP_OK) st = lp_safetensors_write(w, "0123456789ab", 12, err);
    if (st == LP_OK) st = lp_safetensors_end(w, err);
    lp_safetensors_close(w);
    CHECK((unlink(user) == 0) == (st == LP_OK));
    return st;
}

static lp_status write_gguf(const void *user, lp_error *err)
{
    static const char *const words[] = {"a", "bc"};
    static const size_t lens[] = {1, 2};
    lp_gguf_writer *w = NULL;
    int64_t shape[] = {2, 1};
    lp_status st = lp_gguf_create(&w, user, err);
    if (st == LP_OK) st = lp_gguf_put_string(w, "general.architecture", "gemma2", err);
    if (st == LP_OK) st = lp_gguf_put_strings(w, "tokens", words, lens, 2, err);
    if (st == LP_OK) st = lp_gguf_put_f32s(w, "scores", (float[]){1, 2}, 2, err);
    if (st == LP_OK) st = lp_gguf_put_i32s(w, "types", (int32_t[]){1, 2}, 2, err);
    if (st == LP_OK) st = lp_gguf_declare(w, "a", LP_F32, 2, shape, err);
    if (st == LP_OK) st = lp_gguf_begin(w, err);
    if (st == LP_OK) st = lp_gguf_write(w, "01234567", 8, err);
    if (st == LP_OK) st = lp_gguf_end(w, err);
    lp_gguf_writer_close(w);
    CHECK((unlink(user) == 0) == (st == LP_OK));
    return st;
}

static lp_status find_in_hub(const void *user, lp_error *err)
{
    char *got = NULL;
    lp_status st = lp_hub_find(&got, user, err);
    CHECK((st == LP_OK) == (got != NULL));
    free(got);
    return st;
}

static lp_status find_file_in_hub(const void *user, lp_error *err)
{
    char *got = NULL;
    lp_status st = lp_hub_file(&got, user, "model.safetensors", err);
    CHECK((st == LP_OK) == (got != NULL));
    free(got);
    return st;
}

static void put_text(const char *path, const char *text)
{
    put_file(path, text, strlen(text));
}

/* A shard whose only tensors are "x" and `name`, both empty. */
static void put_shard(const char *path, const char *name)
{
    char text[300];
    size_t n = (size_t)snprintf(text + 8, sizeof text - 8,
                                "{\"%s\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},"
                                "\"x\":{\"dtype\":\"F16\",\"shape\":[0,2],\"data_offsets\":[0,0]}}",
                                name);
    memset(text, 0, 8);
    text[0] = (char)n;
    CHECK(n < 256);
    put_file(path, text, n + 8);
}

int main(void)
{
    char snapshot[300], model[300], out[300];
    CHECK(mkdtemp(dir));
    snprintf(model, sizeof model, "%s/m", dir);
    snprintf(out, sizeof out, "%s/out", dir);
    CHECK(mkdir(model, 0777) == 0);
    put_text(at(model, "model.safetensors.index.json"),
             "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}");
    put_shard(at(model, "one.safetensors"), "a");
    oom_sweep("missing shard", look_for_shards, model);
    put_shard(at(model, "two.safetensors"), "b");
    oom_sweep("shards", open_safetensors, model);
    oom_sweep("safetensors", open_safetensors, LP_TESTS_DIR "/goldens/mixed.safetensors");
    oom_sweep("gguf", open_gguf, LP_TESTS_DIR "/goldens/all.gguf");
    oom_sweep("split gguf", open_gguf, LP_TESTS_DIR "/goldens/split-00002-of-00003.gguf");
    oom_sweep("safetensors writer", write_safetensors, out);
    oom_sweep("gguf writer", write_gguf, out);

    CHECK(setenv("HF_HUB_CACHE", dir, 1) == 0);
    CHECK(mkdir(at(dir, "models--o--n"), 0777) == 0 && mkdir(at(dir, "models--o--n/refs"), 0777) == 0);
    CHECK(mkdir(at(dir, "models--o--n/snapshots"), 0777) == 0);
    snprintf(snapshot, sizeof snapshot, "%s/models--o--n/snapshots/c0ffee", dir);
    CHECK(mkdir(snapshot, 0777) == 0);
    put_text(at(dir, "models--o--n/refs/main"), "c0ffee\n");
    put_text(at(snapshot, "config.json"), "{}");
    put_text(at(snapshot, "model.safetensors"), "");
    oom_sweep("hub id", find_in_hub, "o/n");
    oom_sweep("hub id at a revision", find_in_hub, "o/n@c0ffee");
    oom_sweep("hub file", find_file_in_hub, "o/n");
    oom_sweep("path", find_in_hub, model);
    remove_tree(dir);
    return check_done();
}
