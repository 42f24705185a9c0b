/* test_golden_files.c - one checkpoint through every container and block type.
 *
 * `twin` has weights that F32, BF16 and F16 hold exactly: six files, and their logits must be the same bits.  A
 * quantised file is compared with transformers running on the weights that the `gguf` package dequantises from that
 * same file, so what is left is float32 noise whatever the quantisation: a scale, a nibble or a high bit read wrong
 * cannot hide.
 */
#include "tests/golden.h"

static const char *const same[] = {"models/twin",        "models/twin_bf16",   "models/twin_f16",
                                   "gguf/twin-F32.gguf", "gguf/twin-F16.gguf", "gguf/twin-BF16.gguf"};
enum { N_SAME = sizeof same / sizeof *same };

static const double tolerance = 2e-5;

/* Logits of all n rows, yours to free; NULL on failure. */
static float *logits_of(const char *what, const int *ids, int n, int vocab, lp_arithmetic arithmetic, const lp_env *env)
{
    lp_model *m = NULL;
    lp_session *s = NULL;
    float *logits = calloc((size_t)n * (size_t)vocab, sizeof *logits);
    lp_tape tape = {.x = logits, .n_layers = 1, .n_pos = n, .width = vocab};
    lp_session_options options = {.arithmetic = arithmetic};
    bool ok = logits && golden_model(&m, what, env) && m->config.vocab == vocab &&
              lp_session_new(&s, m, &options, env, NULL) == LP_OK &&
              lp_session_hook(s, lp_tap(LP_LOGITS, LP_WHOLE_MODEL, &tape), NULL) > 0 &&
              lp_session_eval(s, ids, (size_t)n, NULL) == LP_OK;
    CHECK(ok);
    lp_session_free(s);
    lp_model_close(m);
    if (ok) return logits;
    free(logits);
    return NULL;
}

static void test_twins(const lp_tensors *expect, const lp_env *env)
{
    int ids[GOLDEN_TOKENS], n = golden_ids(ids, expect, "twin-F32.ids");
    size_t n_golden = 0;
    float *golden = golden_take(expect, "twin-F32.logits", &n_golden);
    CHECK(n > 0 && golden);
    for (int fast = 0; n && golden && fast < 2; fast++) {
        float *first = NULL;
        for (int i = 0; i < N_SAME; i++) {
            float *logits = logits_of(same[i], ids, n, (int)n_golden / n, fast ? LP_FAST : LP_EXACT, env);
            if (i && first && logits && !CHECK_SAME(logits, first, n_golden))
                fprintf(stderr, "%s and %s differ (%s)\n", same[i], same[0], fast ? "fast" : "exact");
            if (i)
                free(logits);
            else
                first = logits;
        }
        free(first);
    }
    free(golden);
}

/* Each STEM.logits of gguf/expect.safetensors. */
static void test_file(const lp_tensors *expect, const char *stem, bool verbose, const lp_env *env)
{
    char name[128];
    int ids[GOLDEN_TOKENS];
    size_t n_golden = 0, row = 0;
    snprintf(name, sizeof name, "%s.ids", stem);
    int n = golden_ids(ids, expect, name);
    snprintf(name, sizeof name, "%s.logits", stem);
    float *golden = golden_take(expect, name, &n_golden);
    snprintf(name, sizeof name, "gguf/%s.gguf", stem);
    CHECK(n > 0 && golden);
    float *logits = n && golden ? logits_of(name, ids, n, (int)n_golden / n, LP_EXACT, env) : NULL;
    if (logits) {
        double e = golden_worst_row(logits, golden, (size_t)n, n_golden / (size_t)n, &row);
        if (verbose || !(e <= tolerance)) printf("%-24s worst row %zu: %.1e\n", stem, row, e);
        CHECK(e <= tolerance);
    }
    free(logits);
    free(golden);
}

int main(int argc, char **argv)
{
    lp_env env = {0};
    bool verbose = argc > 1 && strcmp(argv[1], "-v") == 0;
    lp_tensors expect = {0};
    int files = 0;
    if (golden_expect(&expect, "gguf")) {
        test_twins(&expect, &env);
        for (size_t i = 0; i < expect.n; i++) {
            char stem[128];
            if (sscanf(expect.items[i].name, "%127[^.].logits", stem) != 1 || !strstr(expect.items[i].name, ".logits"))
                continue;
            test_file(&expect, stem, verbose, &env);
            files++;
        }
    }
    CHECK(files == 12);
    lp_tensors_clear(&expect);
    return check_done();
}
