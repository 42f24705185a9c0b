/* Every allocation of writing a synthetic checkpoint, and of verifying a model, fails once; nothing stays on the disk. */
#include "core/synth.h"
#include "core/verify.h"

#include "tests/golden.h"
#include "tests/oom.h"

#include <dirent.h>
#include <unistd.h>

static char folder[64];
static const lp_model *plain;
static const lp_tensors *expect;

static int entries(const char *path, bool remove_them)
{
    int n = 0;
    DIR *d = opendir(path);
    if (!d) return -1;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (remove_them) unlinkat(dirfd(d), e->d_name, 0);
        n++;
    }
    closedir(d);
    return n;
}

static lp_status write_model(const void *user, lp_error *err)
{
    const lp_synth_options *o = user;
    char path[96];
    snprintf(path, sizeof path, "%s/model%s", folder, o->gguf ? ".gguf" : "");
    lp_status st = lp_synth_write(path, o, NULL, err);
    CHECK(entries(folder, false) == (st == LP_OK));
    if (st == LP_OK && !o->gguf) entries(path, true), rmdir(path);
    if (st == LP_OK && o->gguf) unlink(path);
    return st;
}

static lp_status measure(const void *user, lp_error *err)
{
    (void)user;
    lp_errors e = {0};
    lp_status st = lp_errors_measure(&e, "p0", plain, expect, "p0.ids", "p0.", NULL, NULL, err);
    CHECK(st != LP_OK || e.site[LP_LOGITS].n > 0);
    lp_errors_clear(&e);
    return st;
}

static lp_status compare_with_itself(const void *user, lp_error *err)
{
    static const int ids[6] = {2, 3, 5, 7, 11, 13};
    (void)user;
    lp_check checks[LP_MAX_CHECKS];
    int n = 0;
    lp_status st = lp_verify_itself(checks, &n, plain, ids, 6, &(lp_session_options){.wave = 4}, NULL, err);
    for (int i = 0; i < n; i++) CHECK(checks[i].same); /* out of memory is never taken for a difference */
    return st;
}

int main(void)
{
    lp_synth_options o = {.type = LP_BF16, .shard_bytes = 40000};
    lp_error err = {0};
    lp_model *m = NULL;
    lp_tensors t = {0};
    snprintf(folder, sizeof folder, "/tmp/lp_synth_oom_XXXXXX");
    if (!mkdtemp(folder)) return 1;
    CHECK(lp_config_shape(&o.config, "nano"));
    CHECK(lp_synth_set(&o.config, "n_layers=1,d_model=32,d_ff=32,head_dim=8,query_pre_attn_scalar=8,vocab=1024",
                       &err) == LP_OK);
    CHECK(oom_sweep("synth safetensors", write_model, &o) > 20);
    o.gguf = 1;
    CHECK(oom_sweep("synth gguf", write_model, &o) > 20);
    rmdir(folder);
    if (golden_model(&m, "models/plain", NULL) && golden_expect(&t, "models/plain")) {
        plain = m;
        expect = &t;
        oom_sweep("measure", measure, NULL);
        oom_sweep("itself", compare_with_itself, NULL);
    }
    lp_tensors_clear(&t);
    lp_model_close(m);
    return check_done();
}
