/* steered.h - what the tests of steering share: random SAEs for a small model, runs of it under a recipe.
 *
 * The model is goldens/models/plain.  SAEs are written as SAELens writes them into a folder of /tmp and opened from
 * there.
 */
#ifndef LP_TESTS_STEERED_H
#define LP_TESTS_STEERED_H

#include "sae/steer_parts.h"

#include "tests/golden.h"
#include "tests/models.h"

#include <limits.h>
#include <unistd.h>

/* ---- SAEs -------------------------------------------------------------------------------------------------------- */

static uint64_t seed = 88172645463325252u;

static inline float noise(void)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (float)((double)(seed >> 11) / 9007199254740992.0 * 2 - 1);
}

typedef struct shape {
    const char *name, *architecture, *hook, *hook_out, *more; /* more: of cfg.json, after a comma */
    int d_in, d_sae, d_out;
    float threshold;
    void (*change)(float *encoder, float *decoder, const struct shape *s); /* [d_in][d_sae], [d_sae][d_out] */
} shape;

static inline void put(lp_safetensors_writer *w, const float *x, size_t n)
{
    CHECK(lp_safetensors_write(w, x, n * sizeof *x, NULL) == LP_OK);
}

static inline void write_weights(const char *path, const shape *s)
{
    size_t nd = (size_t)s->d_in, ns = (size_t)s->d_sae, no = (size_t)s->d_out;
    float *enc = lp_calloc(nd * ns, 4), *dec = lp_calloc(ns * no, 4), *b = lp_calloc(ns, 4), *c = lp_calloc(no, 4),
          *t = lp_calloc(ns, 4);
    for (size_t i = 0; i < nd * ns; i++) enc[i] = noise() * 0.4f;
    for (size_t i = 0; i < ns * no; i++) dec[i] = noise() * 0.5f;
    for (size_t i = 0; i < ns; i++) b[i] = noise() * 0.1f, t[i] = s->threshold;
    for (size_t i = 0; i < no; i++) c[i] = noise() * 0.1f;
    if (s->change) s->change(enc, dec, s);
    lp_safetensors_writer *w = NULL;
    CHECK(lp_safetensors_create(&w, path, NULL) == LP_OK);
    int64_t in = s->d_in, sae = s->d_sae, out = s->d_out, e_shape[] = {in, sae}, d_shape[] = {sae, out};
    bool jumps = strstr(s->architecture, "jumprelu") != NULL;
    CHECK(lp_safetensors_declare(w, "W_dec", LP_F32, 2, d_shape, NULL) == LP_OK);
    CHECK(lp_safetensors_declare(w, "W_enc", LP_F32, 2, e_shape, NULL) == LP_OK);
    CHECK(lp_safetensors_declare(w, "b_dec", LP_F32, 1, &out, NULL) == LP_OK);
    CHECK(lp_safetensors_declare(w, "b_enc", LP_F32, 1, &sae, NULL) == LP_OK);
    if (jumps) CHECK(lp_safetensors_declare(w, "threshold", LP_F32, 1, &sae, NULL) == LP_OK);
    CHECK(lp_safetensors_begin(w, NULL) == LP_OK);
    put(w, dec, ns * no), put(w, enc, nd * ns), put(w, c, no), put(w, b, ns);
    if (jumps) put(w, t, ns);
    CHECK(lp_safetensors_end(w, NULL) == LP_OK);
    lp_safetensors_close(w);
    free(enc), free(dec), free(b), free(c), free(t);
}

static inline lp_sae *make_sae(const shape *s)
{
    char dir[] = "/tmp/lapidary-steer-XXXXXX", weights[80], config[80];
    CHECK(mkdtemp(dir) != NULL);
    snprintf(weights, sizeof weights, "%s/sae_weights.safetensors", dir);
    snprintf(config, sizeof config, "%s/cfg.json", dir);
    write_weights(weights, s);
    FILE *f = fopen(config, "w");
    if (!f) exit(1);
    fprintf(f,
            "{\"architecture\": \"%s\", \"d_in\": %d, \"d_sae\": %d, \"d_out\": %d%s%s, \"metadata\": {\"hook_name\": "
            "\"%s\", %s%s%s \"model_name\": \"tiny\", \"neuronpedia_id\": \"tiny/%s\"}}",
            s->architecture, s->d_in, s->d_sae, s->d_out, s->more ? ", " : "", s->more ? s->more : "", s->hook,
            s->hook_out ? "\"hook_name_out\": \"" : "", s->hook_out ? s->hook_out : "", s->hook_out ? "\"," : "",
            s->name);
    fclose(f);
    lp_sae *out = NULL;
    lp_error err = {0};
    if (lp_sae_open(&out, dir, NULL, NULL, &err) != LP_OK) fprintf(stderr, "%s: %s\n", s->name, err.text);
    unlink(weights), unlink(config), rmdir(dir);
    if (!out) exit(1);
    return out;
}

/* Features 0 and 1: the same direction twice.  2: fires on nothing but what others write. */
static inline void dependent(float *enc, float *dec, const shape *s)
{
    for (int i = 0; i < s->d_out; i++) dec[s->d_out + i] = dec[i] * 1.5f;
    for (int i = 0; i < s->d_in; i++) enc[i * s->d_sae + 1] = enc[i * s->d_sae] * 0.7f;
}

enum { PLAIN_D = 32, PLAIN_L = 3, S = 48 };
enum { RES0, RES1, RES1B, RES2, CODER, TOPK, LAYER, STANDARD, Z1, TWINS, N_SAES };

static const shape shapes[N_SAES] = {
    {"res0", "jumprelu", "blocks.0.hook_resid_post", NULL, NULL, PLAIN_D, S, PLAIN_D, 0.3f, NULL},
    {"res1", "jumprelu", "blocks.1.hook_resid_post", NULL, "\"apply_b_dec_to_input\": false", PLAIN_D, S, PLAIN_D, 0.3f,
     NULL},
    {"res1b", "standard", "blocks.1.hook_resid_post", NULL, NULL, PLAIN_D, S, PLAIN_D, 0, NULL},
    {"res2", "jumprelu", "blocks.2.hook_resid_post", NULL, NULL, PLAIN_D, S, PLAIN_D, 0.3f, NULL},
    {"coder", "transcoder", "blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out", NULL, PLAIN_D, S, PLAIN_D, 0,
     NULL},
    {"topk", "topk", "blocks.1.hook_resid_post", NULL, "\"k\": 9, \"rescale_acts_by_decoder_norm\": true", PLAIN_D, S,
     PLAIN_D, 0, NULL},
    {"layer", "standard", "blocks.1.hook_resid_post", NULL, "\"normalize_activations\": \"layer_norm\"", PLAIN_D, S,
     PLAIN_D, 0, NULL},
    {"standard", "standard", "blocks.1.hook_resid_post", NULL, "\"apply_b_dec_to_input\": true", PLAIN_D, S, PLAIN_D, 0,
     NULL},
    {"z1", "jumprelu", "blocks.1.attn.hook_z", NULL, NULL, 32, S, 32, 0.1f, NULL},
    {"twins", "jumprelu", "blocks.1.hook_resid_post", NULL, NULL, PLAIN_D, S, PLAIN_D, 0.3f, dependent},
};
static lp_sae *saes[N_SAES];

/* ---- a run ------------------------------------------------------------------------------------------------------- */

enum { N = 11, V = 160 };
static lp_model *model;
static int ids[N];

static inline lp_recipe recipe(const char *features, const char *more)
{
    char text[4000];
    lp_recipe r;
    lp_error err = {0};
    snprintf(text, sizeof text, "{\"format\": \"lapidary-recipe\", \"version\": 1, \"features\": [%s]%s%s}", features,
             *more ? ", " : "", more);
    if (lp_recipe_parse(&r, text, strlen(text), &err) != LP_OK) fprintf(stderr, "%s\n  %s\n", text, err.text);
    CHECK(err.status == LP_OK);
    return r;
}

static inline lp_steer *steer(lp_session *s, const lp_recipe *r, int n_prompt, int reads_back)
{
    lp_steer *st = NULL;
    lp_error err = {0};
    lp_steer_context c = {.n_prompt = n_prompt, .ids = ids, .reads_back = reads_back};
    if (lp_steer_new(&st, s, r, (const lp_sae *const *)saes, N_SAES, &c, &err) != LP_OK)
        fprintf(stderr, "%s\n", err.text);
    CHECK(st != NULL);
    if (!st) exit(1);
    return st;
}

static inline void eval(lp_session *s, lp_steer *st, const int *tokens, int n)
{
    lp_error err = {0};
    lp_status status = lp_session_eval(s, tokens, (size_t)n, &err);
    if (st) status = lp_steer_explain(st, status, &err);
    if (status != LP_OK) fprintf(stderr, "%s\n", err.text);
    CHECK(status == LP_OK);
}

/* What passes a place before and after the edits there: taps hooked before and behind. */
typedef struct run {
    float before[N * PLAIN_D], after[N * PLAIN_D], input[N * PLAIN_D], logits[V];
} run;

static inline lp_tape tape_on(float *x)
{
    return (lp_tape){.x = x, .n_layers = 1, .n_pos = N, .width = PLAIN_D};
}

/* The golden tokens under a recipe (NULL: none), the first n_prompt as prompt, watched where `by` writes and reads. */
static inline void watch(run *out, const lp_recipe *r, const lp_sae *by, int n_prompt)
{
    lp_session *s = new_session(model, NULL, NULL);
    lp_tape before = tape_on(out->before), after = tape_on(out->after), input = tape_on(out->input);
    lp_steer *st = NULL;
    CHECK(lp_session_hook(s, lp_tap(by->spot.site_out, by->spot.layer_out, &before), NULL) > 0);
    if (r) st = steer(s, r, n_prompt, 0);
    CHECK(lp_session_hook(s, lp_tap(by->spot.site_out, by->spot.layer_out, &after), NULL) > 0);
    CHECK(lp_session_hook(s, lp_tap(by->spot.site, by->spot.layer, &input), NULL) > 0);
    eval(s, st, ids, N);
    memcpy(out->logits, lp_session_logits(s), sizeof out->logits);
    if (by->spot.site == by->spot.site_out) memcpy(out->input, out->before, sizeof out->input);
    lp_steer_free(st);
    lp_session_free(s);
}

/* Activations of a row, exactly as lp_encode has them: [S]. */
static inline void activations(double *f, lp_encoder *e, const float *x)
{
    lp_features a = {0};
    CHECK(lp_encode(&a, e, x, 1, NULL) == LP_OK);
    for (int i = 0; i < S; i++) f[i] = (double)lp_features_get(&a, 0, i);
    lp_features_free(&a);
}

static inline lp_encoder *encoder(int which)
{
    lp_encoder *e = NULL;
    CHECK(lp_encoder_new(&e, saes[which], LP_EXACT, NULL, NULL) == LP_OK);
    if (!e) exit(1);
    return e;
}

/* A feature that fires on most of the rows [n], and one that fires on few. */
static inline void pick_features(int *often, int *seldom, int which, const float *x)
{
    int count[S] = {0}, best = 0, least = 0;
    lp_encoder *e = encoder(which);
    for (int r = 0; r < N; r++) {
        double f[S];
        activations(f, e, x + r * PLAIN_D);
        for (int i = 0; i < S; i++) count[i] += f[i] > 0;
    }
    for (int i = 0; i < S; i++) {
        if (count[i] > count[best]) best = i;
        if (count[i] < count[least]) least = i;
    }
    CHECK(count[best] > N / 2 && count[least] < N / 2);
    *often = best, *seldom = least;
    lp_encoder_free(e);
}

static inline double row_error(const double *want, const float *got, int n)
{
    double d = 0, s = 0;
    for (int i = 0; i < n; i++) d += (want[i] - (double)got[i]) * (want[i] - (double)got[i]), s += want[i] * want[i];
    return sqrt(d / s);
}

/* ---- the model and its SAEs -------------------------------------------------------------------------------------- */

static inline bool open_all(void)
{
    model = open_golden("models/plain", NULL);
    for (int i = 0; i < N_SAES && model; i++) saes[i] = make_sae(&shapes[i]);
    if (!model) return false;
    some_tokens(ids, N, V, 3);
    ids[0] = model->config.bos;
    for (int i = 1; i < N; i++) ids[i] = ids[i] == ids[0] ? 5 : ids[i];
    return true;
}

static inline void close_all(void)
{
    for (int i = 0; i < N_SAES; i++) lp_sae_close(saes[i]);
    lp_model_close(model);
}

#endif
