/* SAEs of every architecture against SAELens (goldens/make_sae_goldens.py), and what must not change a bit.
 *
 * Tolerance: SAELens' float32 sums run in another order than ours; over 23 terms that is a few units in the last place.
 * Which features fire must agree exactly: no golden pre-activation lies that near to its threshold.
 */
#include "sae/encode.h"

#include "tests/golden.h"

#include <unistd.h>

#define TOL 2e-6

static const struct {
    const char *name;
    lp_sae_kind kind;
    lp_site site;
    int layer;
} all[] = {
    {"standard", LP_SAE_STANDARD, LP_RESID_POST, 1},
    {"standard_plain", LP_SAE_STANDARD, LP_RESID_POST, 1},
    {"standard_constant", LP_SAE_STANDARD, LP_RESID_POST, 1},
    {"standard_layer", LP_SAE_STANDARD, LP_RESID_POST, 1},
    {"jumprelu", LP_SAE_JUMPRELU, LP_RESID_POST, 1},
    {"jumprelu_minus", LP_SAE_JUMPRELU, LP_RESID_POST, 1},
    {"topk", LP_SAE_TOPK, LP_RESID_POST, 1},
    {"topk_rescaled", LP_SAE_TOPK, LP_RESID_POST, 1},
    {"gated", LP_SAE_GATED, LP_RESID_POST, 1},
    {"attention", LP_SAE_JUMPRELU, LP_Z, 2},
    {"transcoder", LP_SAE_STANDARD, LP_MLP_NORMED, 1},
    {"jumprelu_transcoder", LP_SAE_JUMPRELU, LP_MLP_NORMED, 1},
    {"skip_transcoder", LP_SAE_STANDARD, LP_MLP_NORMED, 1},
    {"old_standard", LP_SAE_STANDARD, LP_RESID_POST, 3},
    {"old_topk", LP_SAE_TOPK, LP_RESID_POST, 3},
    {"old_jumprelu", LP_SAE_JUMPRELU, LP_RESID_POST, 3},
    {"scope", LP_SAE_JUMPRELU, LP_RESID_POST, 20},
};
enum { N_ALL = sizeof all / sizeof *all };

static lp_tensors expect;

static const char *place(const char *name)
{
    static char path[1024];
    if (strcmp(name, "scope") == 0) name = "gemma-scope-2b-pt-res/layer_20/width_70/average_l0_12";
    snprintf(path, sizeof path, "%s/goldens/saes/%s", LP_TESTS_DIR, name);
    return path;
}

static lp_sae *open_it(const char *name, const lp_sae_options *o)
{
    lp_sae *s = NULL;
    lp_error err = {0};
    if (lp_sae_open(&s, place(name), o, NULL, &err) != LP_OK) fprintf(stderr, "%s: %s\n", name, err.text);
    CHECK(s != NULL);
    if (!s) exit(1);
    return s;
}

static lp_encoder *encoder(const lp_sae *s, const lp_env *env)
{
    lp_encoder *e = NULL;
    CHECK(lp_encoder_new(&e, s, LP_EXACT, env, NULL) == LP_OK);
    if (!e) exit(1);
    return e;
}

static float *take(const char *name, const char *part, size_t *n)
{
    char full[128];
    snprintf(full, sizeof full, "%s.%s", name, part);
    float *v = golden_take(&expect, full, n);
    CHECK(v != NULL);
    if (!v) exit(1);
    return v;
}

static float *dense(const lp_features *f, int d_sae)
{
    float *out = lp_calloc((size_t)f->n_rows * (size_t)d_sae + 1, sizeof *out);
    for (int r = 0; out && r < f->n_rows; r++)
        for (size_t i = f->start[r]; i < f->start[r + 1]; i++)
            out[(size_t)r * (size_t)d_sae + (size_t)f->index[i]] = f->value[i];
    return out;
}

/* Features as sets and values, reconstructions, and what the files say about the SAE. */
static void against_saelens(int which)
{
    const char *name = all[which].name;
    lp_sae *s = open_it(name, NULL);
    lp_encoder *e = encoder(s, NULL);
    size_t nx, nf, ny, row;
    float *x = take(name, "x", &nx), *want_f = take(name, "f", &nf), *want_y = take(name, "y", &ny);
    int rows = (int)(nx / (size_t)s->d_in);
    lp_features f = {0};
    CHECK(s->kind == all[which].kind && s->spot.site == all[which].site && s->spot.layer == all[which].layer);
    CHECK(nf == (size_t)rows * (size_t)s->d_sae && ny == (size_t)rows * (size_t)s->d_out);
    CHECK(lp_encode(&f, e, x, rows, NULL) == LP_OK);
    float *got_f = dense(&f, s->d_sae), *got_y = lp_calloc(ny, sizeof *got_y);
    lp_decode(got_y, e, &f, x);
    for (size_t i = 0; i < nf; i++) CHECK((got_f[i] > 0) == (want_f[i] > 0));
    double far = golden_worst_row(got_f, want_f, (size_t)rows, (size_t)s->d_sae, &row);
    CHECK(far < TOL);
    if (far >= TOL) fprintf(stderr, "%s: features of row %zu are %g off\n", name, row, far);
    far = golden_worst_row(got_y, want_y, (size_t)rows, (size_t)s->d_out, &row);
    CHECK(far < TOL);
    if (far >= TOL) fprintf(stderr, "%s: the reconstruction of row %zu is %g off\n", name, row, far);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < s->d_sae; i++)
            CHECK(lp_features_get(&f, r, i) == got_f[(size_t)r * (size_t)s->d_sae + (size_t)i]);
    free(x), free(want_f), free(want_y), free(got_f), free(got_y);
    lp_features_free(&f);
    lp_encoder_free(e);
    lp_sae_close(s);
}

/* ---- the same bits ----------------------------------------------------------------------------------------------- */

static bool same_row(const lp_features *a, int ra, const lp_features *b, int rb)
{
    size_t n = a->start[ra + 1] - a->start[ra];
    return n == b->start[rb + 1] - b->start[rb] &&
           memcmp(a->index + a->start[ra], b->index + b->start[rb], n * sizeof *a->index) == 0 &&
           memcmp(a->value + a->start[ra], b->value + b->start[rb], n * sizeof *a->value) == 0;
}

enum { MANY = 700 }; /* rows: several blocks of 256, the last one short */

static void fill_rows(float *x, int d_in, const float *from, int n)
{
    for (int r = 0; r < MANY; r++)
        for (int i = 0; i < d_in; i++)
            x[r * d_in + i] = from[(r % n) * d_in + i] * (1 + 0.001f * (float)(r / n)) + 0.01f * (float)(r % 7);
}

static void same_bits(int which)
{
    const char *name = all[which].name;
    lp_sae *s = open_it(name, NULL);
    size_t nx, width = (size_t)s->d_in;
    float *some = take(name, "x", &nx), *x = lp_calloc(MANY, width * sizeof *x);
    float *y = lp_calloc(MANY, (size_t)s->d_out * sizeof *y), *y1 = lp_calloc(MANY, (size_t)s->d_out * sizeof *y);
    fill_rows(x, s->d_in, some, (int)(nx / width));
    lp_features whole = {0}, one = {0};
    lp_encoder *e = encoder(s, NULL);
    CHECK(lp_encode(&whole, e, x, MANY, NULL) == LP_OK && whole.n_rows == MANY);
    lp_decode(y, e, &whole, x);
    for (int r = 0; r < MANY; r += 13) { /* a row alone, by another encoder */
        lp_encoder *single = r % 2 ? encoder(s, NULL) : e;
        CHECK(lp_encode(&one, single, x + (size_t)r * width, 1, NULL) == LP_OK);
        CHECK(same_row(&one, 0, &whole, r));
        lp_decode(y1, single, &one, x + (size_t)r * width);
        CHECK(memcmp(y1, y + (size_t)r * (size_t)s->d_out, (size_t)s->d_out * sizeof *y) == 0);
        if (single != e) lp_encoder_free(single);
    }
    int n_tables;
    const lp_kernels *const *tables = lp_kernels_all(&n_tables);
    for (int threads = 1; threads <= 7; threads += 3)
        for (int t = 0; t < n_tables; t++) {
            lp_pool *pool = NULL;
            CHECK(lp_pool_new(&pool, threads, NULL) == LP_OK);
            lp_env env = {.pool = pool, .kernels = tables[t]};
            lp_encoder *other = encoder(s, &env);
            CHECK(lp_encode(&one, other, x, MANY, NULL) == LP_OK);
            int bad = 0;
            for (int r = 0; r < MANY; r++) bad += !same_row(&one, r, &whole, r);
            CHECK(bad == 0);
            lp_decode(y1, other, &one, x);
            CHECK_SAME(y1, y, MANY * (size_t)s->d_out);
            lp_encoder_free(other);
            lp_pool_free(pool);
        }
    lp_features_free(&whole), lp_features_free(&one);
    free(some), free(x), free(y), free(y1);
    lp_encoder_free(e);
    lp_sae_close(s);
}

/* ---- thresholds and odd rows --------------------------------------------------------------------------------------- */

/* A pre-activation that equals its threshold does not fire; one unit in the last place below, it does. */
static void strict_threshold(void)
{
    lp_sae *s = open_it("scope", NULL);
    lp_encoder *e = encoder(s, NULL);
    lp_features f = {0};
    size_t nx;
    float *x = take("scope", "x", &nx), *pre = lp_calloc((size_t)s->d_sae, sizeof *pre);
    CHECK(lp_encode_dense(pre, e, x, 1, NULL) == LP_OK);
    int tried = 0;
    for (int i = 0; i < s->d_sae; i++) {
        if (pre[i] <= 0) continue;
        s->threshold[i] = pre[i];
        CHECK(lp_encode(&f, e, x, 1, NULL) == LP_OK && lp_features_get(&f, 0, i) == 0);
        s->threshold[i] = nextafterf(pre[i], 0);
        CHECK(lp_encode(&f, e, x, 1, NULL) == LP_OK && lp_features_get(&f, 0, i) == pre[i]);
        s->threshold[i] = -1; /* a threshold below zero lets no negative value through */
        tried++;
    }
    CHECK(tried > 3);
    for (int i = 0; i < s->d_sae; i++) s->threshold[i] = -1000;
    CHECK(lp_encode(&f, e, x, 1, NULL) == LP_OK);
    for (size_t i = 0; i < f.start[1]; i++) CHECK(f.value[i] > 0);
    free(x), free(pre);
    lp_features_free(&f);
    lp_encoder_free(e);
    lp_sae_close(s);
}

static void odd_rows(void)
{
    lp_sae *s = open_it("standard_constant", NULL);
    lp_encoder *e = encoder(s, NULL);
    lp_features f = {0};
    lp_error err = {0};
    float x[2 * 23] = {0}, y[23];
    CHECK(lp_encode(&f, e, x, 0, &err) == LP_OK && f.n_rows == 0 && f.start[0] == 0);
    CHECK(lp_encode(&f, e, x, 1, &err) == LP_OK); /* ||x|| = 0: SAELens gives NaN here */
    lp_decode(y, e, &f, x);
    for (int i = 0; i < 23; i++) CHECK(isfinite(y[i]));
    x[30] = NAN;
    CHECK(lp_encode(&f, e, x, 2, &err) == LP_E_RANGE && strstr(err.text, "row 1") != NULL);
    x[30] = INFINITY;
    CHECK(lp_encode(&f, e, x, 2, &err) == LP_E_RANGE);
    lp_features_free(&f);
    lp_encoder_free(e);
    lp_sae_close(s);
}

/* Of equal pre-activations the lower indices are chosen, and never more than k. */
static void topk_ties(void)
{
    lp_sae *s = open_it("topk", NULL);
    lp_features f = {0};
    float x[23] = {0};
    memset(s->encoder.data, 0, s->encoder.bytes);
    for (int i = 0; i < s->d_sae; i++) s->b_enc[i] = i % 10 == 3 ? 2.0f : 1.0f;
    lp_encoder *e = encoder(s, NULL);
    CHECK(lp_encode(&f, e, x, 1, NULL) == LP_OK && f.start[1] == 7);
    for (int i = 0; i < 7; i++) CHECK(f.index[i] == 3 + 10 * i); /* there are seven of them: 3 13 .. 63 */
    for (int i = 0; i < s->d_sae; i++) s->b_enc[i] = 1;
    CHECK(lp_encode(&f, e, x, 1, NULL) == LP_OK && f.start[1] == 7);
    for (int i = 0; i < 7; i++) CHECK(f.index[i] == i);
    for (int i = 0; i < s->d_sae; i++) s->b_enc[i] = -1;
    CHECK(lp_encode(&f, e, x, 1, NULL) == LP_OK && f.start[1] == 0);
    lp_features_free(&f);
    lp_encoder_free(e);
    lp_sae_close(s);
}

/* Held in BF16, weights are the rounded ones, nothing else. */
static void in_bf16(void)
{
    lp_sae *s = open_it("scope", NULL), *half = open_it("scope", &(lp_sae_options){.bf16 = 1});
    float a[23], b[23];
    CHECK(half->bytes < s->bytes && strcmp(half->hash, s->hash) == 0 && strlen(s->hash) == 32);
    for (int i = 0; i < s->d_sae; i += 9)
        for (int part = 0; part < 2; part++) {
            (part ? lp_sae_encoder_row : lp_sae_decoder_row)(s, i, a);
            (part ? lp_sae_encoder_row : lp_sae_decoder_row)(half, i, b);
            for (int j = 0; j < 23; j++) CHECK_NEAR(b[j], a[j], fabsf(a[j]) / 256);
            CHECK(memcmp(a, b, sizeof a) != 0);
        }
    for (int i = 0; i < s->d_sae; i++) CHECK_NEAR(s->dec_norm[i], 1, 1e-6);
    lp_sae_close(s);
    lp_sae_close(half);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static void containers(void)
{
    static const char *const same[] = {"deflated", "zip64", "fortran", "half", "double", "lower"};
    static const struct {
        const char *name, *says;
        lp_status status;
    } refused[] = {
        {"bigendian", "'>f4'", LP_E_UNSUPPORTED},
        {"integer", "'<i4'", LP_E_UNSUPPORTED},
        {"short", "threshold is [39], expected [40]", LP_E_SHAPE},
        {"scaled", "scaling_factor", LP_E_UNSUPPORTED},
        {"crc", "CRC", LP_E_FORMAT},
    };
    lp_sae *s = open_it("npz/stored.npz", NULL);
    CHECK(s->d_in == 5 && s->d_sae == 40 && s->spot.site == LP_N_SITES);
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        char name[64];
        snprintf(name, sizeof name, "npz/%s.npz", same[i]);
        lp_sae *other = open_it(name, NULL);
        CHECK_STR(other->hash, s->hash);
        CHECK(memcmp(other->encoder.data, s->encoder.data, s->encoder.bytes) == 0);
        lp_sae_close(other);
    }
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char name[64];
        lp_sae *none = NULL;
        lp_error err = {0};
        snprintf(name, sizeof name, "npz/%s.npz", refused[i].name);
        CHECK(lp_sae_open(&none, place(name), NULL, NULL, &err) == refused[i].status && !none);
        CHECK(strstr(err.text, refused[i].says) != NULL);
        if (!strstr(err.text, refused[i].says)) fprintf(stderr, "%s: %s\n", name, err.text);
    }
    lp_sae_close(s);
}

static char *slurp(const char *path, size_t *n)
{
    char *text = NULL;
    CHECK(lp_read_file(&text, n, path, 1 << 24, NULL) == LP_OK);
    if (!text) exit(1);
    return text;
}

static void spill(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, n, f) == n);
    if (f) fclose(f);
}

/* A file cut anywhere, or with any byte changed, opens to the same SAE or to an error: never to another, never a crash. */
static void broken_files(void)
{
    char dir[] = "/tmp/lapidary-sae-XXXXXX", path[64];
    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/x.npz", dir);
    lp_sae *good = open_it("npz/stored.npz", NULL);
    static const char *const names[] = {"npz/stored.npz", "npz/deflated.npz", "npz/zip64.npz"};
    for (int k = 0; k < 3; k++) {
        size_t n;
        char *bytes = slurp(place(names[k]), &n);
        int refused = 0, tried = 0;
        for (size_t i = 0; i < 2 * n; i += 5) {
            char was = i < n ? 0 : bytes[i - n];
            if (i >= n) bytes[i - n] = (char)(was ^ (1 << i % 8));
            spill(path, bytes, i < n ? i : n);
            lp_sae *s = NULL;
            lp_error err = {0};
            lp_status st = lp_sae_open(&s, path, NULL, NULL, &err);
            CHECK(st == LP_OK ? strcmp(s->hash, good->hash) == 0 : err.text[0] != 0);
            refused += st != LP_OK, tried++;
            lp_sae_close(s);
            if (i >= n) bytes[i - n] = was;
        }
        CHECK(refused > tried / 2);
        free(bytes);
    }
    unlink(path);
    rmdir(dir);
    lp_sae_close(good);
}

/* cfg.json with one thing changed, beside the weights of `from`; the error must say `says` (NULL: it opens). */
static void with_config(const char *from, const char *find, const char *put, const char *says)
{
    char dir[] = "/tmp/lapidary-sae-XXXXXX", path[1200], source[1200];
    CHECK(mkdtemp(dir) != NULL);
    size_t n;
    snprintf(source, sizeof source, "%s/sae_weights.safetensors", place(from));
    char *weights = slurp(source, &n);
    snprintf(path, sizeof path, "%s/sae_weights.safetensors", dir);
    spill(path, weights, n);
    free(weights);
    snprintf(source, sizeof source, "%s/cfg.json", place(from));
    char *cfg = slurp(source, &n), *at = strstr(cfg, find);
    CHECK(at != NULL);
    char *changed = at ? lp_format("%.*s%s%s", (int)(at - cfg), cfg, put, at + strlen(find)) : lp_strdup("");
    snprintf(path, sizeof path, "%s/cfg.json", dir);
    spill(path, changed, strlen(changed));
    lp_sae *s = NULL;
    lp_error err = {0};
    lp_status st = lp_sae_open(&s, dir, NULL, NULL, &err);
    CHECK((st == LP_OK) == (says == NULL));
    CHECK(!says || strstr(err.text, says));
    if (says && !strstr(err.text, says)) fprintf(stderr, "%s -> %s: %s\n", find, put, err.text);
    lp_sae_close(s);
    free(cfg), free(changed);
    unlink(path);
    snprintf(path, sizeof path, "%s/sae_weights.safetensors", dir);
    unlink(path);
    rmdir(dir);
}

static void configs(void)
{
    with_config("topk", "\"k\": 7", "\"kk\": 7", "without k");
    with_config("topk", "\"k\": 7", "\"k\": 71", "k = 71");
    with_config("topk", "\"k\": 7", "\"k\": 0", "k = 0");
    with_config("old_topk", "\"k\": 6", "\"x\": 6", "without k");
    with_config("jumprelu", "\"jumprelu\"", "\"temporal\"", "architecture \"temporal\"");
    with_config("standard", "\"standard\"", "\"jumprelu\"", "no array threshold");
    with_config("standard", "\"standard\"", "\"gated\"", "no array b_gate");
    with_config("standard", "\"none\"", "\"covariance_whitening\"", "covariance_whitening");
    with_config("transcoder", "\"transcoder\"", "\"standard\"", "transcoder");
    with_config("standard", "{", "[", "not a JSON object");
    with_config("standard", "blocks.1.hook_resid_post", "blocks.1.hook_nonsense", NULL);
    lp_error err = {0};
    lp_sae *s = NULL;
    CHECK(lp_sae_open(&s, LP_TESTS_DIR, NULL, NULL, &err) == LP_E_NOT_FOUND && strstr(err.text, "params.npz"));
    CHECK(lp_sae_open(&s, "/no/such/place", NULL, NULL, &err) < 0);
    CHECK(lp_sae_open(&s, place("scope"), &(lp_sae_options){.memory_limit = 1000}, NULL, &err) == LP_E_MEMORY);
    CHECK(!s && strstr(err.text, "BF16"));
}

int main(void)
{
    if (!golden_expect(&expect, "saes")) return 1;
    for (int i = 0; i < N_ALL; i++) against_saelens(i);
    for (int i = 0; i < N_ALL; i++) same_bits(i);
    strict_threshold();
    odd_rows();
    topk_ties();
    in_bf16();
    containers();
    broken_files();
    configs();
    lp_tensors_clear(&expect);
    return check_done();
}
