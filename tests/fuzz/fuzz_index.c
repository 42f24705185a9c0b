/* fuzz_index.c - bytes as model.safetensors.index.json beside two small shards: whatever it says, nothing outside the
 * folder is opened, and what is accepted names tensors that are there. */
#define _GNU_SOURCE /* memfd_create */
#include "core/safetensors.h"

#include "tests/fuzz/memfile.h"

#include <string.h>

static char dir[] = "/tmp/lp_fuzz_index_XXXXXX", index_path[100];

static void put(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    insist(f && fwrite(data, 1, n, f) == n);
    insist(fclose(f) == 0);
}

static void put_shard(const char *file, const char *tensor)
{
    char path[100], text[200] = {0};
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int n = snprintf(text + 8, sizeof text - 8, "{\"%s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}",
                     tensor);
    text[0] = (char)n;
    put(path, text, (size_t)n + 12);
}

static void leave(void)
{
    static const char *const files[] = {"one.safetensors", "two.safetensors", "model.safetensors.index.json"};
    char path[100];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
    rmdir(dir);
}

static void enter(void)
{
    insist(mkdtemp(dir) != NULL);
    atexit(leave);
    snprintf(index_path, sizeof index_path, "%s/model.safetensors.index.json", dir);
    put_shard("one.safetensors", "a");
    put_shard("two.safetensors", "b");
    insist(symlink(memfile(NULL, 0), index_path) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (!index_path[0]) enter();
    memfile(data, n); /* which the index is a link to */
    lp_tensors t = {0};
    lp_error err = {.text = ""};
    char *lacking = NULL;
    lp_status st = lp_safetensors_open(&t, dir, NULL, &err);
    insist(st == LP_OK || (err.text[0] && err.status == st && !t.items && !t.files));
    for (size_t i = 0; i < t.n; i++) insist(!strcmp(t.items[i].name, "a") || !strcmp(t.items[i].name, "b"));
    for (int i = 0; i < t.n_files; i++) insist(!strncmp(t.files[i].path, dir, sizeof dir - 1));
    if (lp_safetensors_missing(&lacking, dir, NULL) == LP_OK) insist(st != LP_OK || !lacking);
    free(lacking);
    lp_tensors_clear(&t);
    return 0;
}
