/* Recipes in other programs' formats: what is written to the letter, what is read, round trips, and every refusal.
 * theirs.csv is pandas' own writing, theirs.gguf the gguf package's (goldens/make_exchange_goldens.py). */
#include "core/gguf.h"
#include "sae/direction.h"
#include "sae/exchange.h"
#include "sae/names.h"

#include "tests/steered.h"

#include <stdlib.h>
#include <sys/stat.h>

#define SCOPE      "\"modelId\": \"gemma-2-2b\", \"scope\": {\"bos\": true, \"template\": true}"
#define EVERYWHERE "\"scope\": {\"bos\": true, \"template\": true}"
#define ADD(layer) "{\"layer\": \"" layer "\", \"index\": 3, \"strength\": 2}"
#define RES20      "20-gemmascope-res-16k"

static char folder[] = "/tmp/lapidary-exchange-XXXXXX";
static char path_text[200];

static const char *at(const char *name)
{
    snprintf(path_text, sizeof path_text, "%s/%s", folder, name);
    return path_text;
}

static void says(const lp_error *err, const char *want)
{
    CHECK(err->text[0] && !strchr(err->text, '\n'));
    if (!strstr(err->text, want)) CHECK_STR(err->text, want);
}

/* ---- lm-evaluation-harness, written ------------------------------------------------------------------------------ */

#define HEADER "loader,action,sparse_model,hookpoint,feature_index,steering_coefficient,head_index,sae_id,description\n"

static const lp_sae *scope_saes[3]; /* of the golden shape, called as Gemma Scope's are */
enum { N_SCOPE = 3 };

static double shift_of(const lp_sae *s, int feature)
{
    float d[PLAIN_D];
    double dot = 0, squares = 0;
    lp_sae_decoder_row(s, feature, d);
    for (int i = 0; i < PLAIN_D; i++) dot += (double)s->b_dec[i] * (double)d[i], squares += (double)d[i] * (double)d[i];
    return dot / sqrt(squares);
}

static bool same_hash(const lp_recipe *a, const lp_recipe *b)
{
    char x[33], y[33];
    return lp_recipe_hash(x, a, NULL) == LP_OK && lp_recipe_hash(y, b, NULL) == LP_OK && strcmp(x, y) == 0;
}

static void test_write_csv(void)
{
    lp_recipe again, r = recipe("{\"layer\": \"" RES20 "\", \"index\": 12082, \"strength\": 240, \"description\": "
                                "\"dogs, \\\"more\\\"\\nof them\"},"
                                "{\"layer\": \"12-gemmascope-res-65k__l0-21\", \"index\": 7, \"strength\": 0.1},"
                                "{\"layer\": \"5-gemmascope-mlp-16k\", \"index\": 1, \"strength\": 2, \"unit\": "
                                "\"max_act\", \"max_act\": 1.5},"
                                "{\"layer\": \"7-gemmascope-transcoder-16k\", \"index\": 9, \"strength\": -4e-7}",
                                SCOPE ", \"joint\": true");
    char *text = NULL;
    lp_error err = {0};
    CHECK(lp_recipe_to_lm_eval(&text, &r, NULL, 0, &err) == LP_OK);
    CHECK_STR(err.text, "");
    CHECK_STR(text, HEADER "sae_lens,add,gemma-scope-2b-pt-res,layers.20,12082,240,,layer_20/width_16k/average_l0_71,"
                           "\"dogs, \"\"more\"\"\nof them\"\n"
                           "sae_lens,add,gemma-scope-2b-pt-res,layers.12,7,0.1,,layer_12/width_65k/average_l0_21,\n"
                           "sae_lens,add,gemma-scope-2b-pt-mlp,layers.5.post_feedforward_layernorm,1,3,,"
                           "layer_5/width_16k/average_l0_114,\n"
                           "sae_lens,add,gemma-scope-2b-pt-transcoders,layers.7.post_feedforward_layernorm,9,-4e-07,,"
                           "layer_7/width_16k/average_l0_70,\n");
    CHECK(text && lp_recipe_from_lm_eval(&again, text, strlen(text), NULL, 0, &err) == LP_OK);
    CHECK_STR(err.text, "");
    r.edits[2].unit = LP_RECIPE_ABSOLUTE, r.edits[2].strength = 3, r.is_joint = false; /* the same numbers */
    CHECK(same_hash(&r, &again));
    CHECK_STR(again.edits[0].description, "dogs, \"more\"\nof them");
    lp_recipe_clear(&again);
    free(text);
    lp_recipe_clear(&r);
}

/* A projection about 0 is one about b_dec by another number, here and back. */
static void test_projection(void)
{
    lp_recipe again,
        r = recipe("{\"layer\": \"" RES20 "\", \"index\": 8, \"kind\": \"project\", \"strength\": 0.75}", SCOPE);
    double want = 0.75 - shift_of(scope_saes[0], 8);
    char *text = NULL, *number;
    lp_error err = {0};
    CHECK(fabs(want - 0.75) > 0.01); /* or nothing is tested */
    CHECK(lp_recipe_to_lm_eval(&text, &r, scope_saes, N_SCOPE, &err) == LP_OK);
    number = text ? strstr(text, "layers.20,8,") : NULL;
    CHECK(number && strstr(text, "sae_lens,clamp,"));
    if (number) CHECK_NEAR(strtod(number + strlen("layers.20,8,"), NULL), want, 1e-14);
    CHECK(text && lp_recipe_from_lm_eval(&again, text, strlen(text), scope_saes, N_SCOPE, &err) == LP_OK);
    CHECK(again.n_edits == 1 && again.edits[0].kind == LP_RECIPE_PROJECT);
    if (again.n_edits) CHECK_NEAR(again.edits[0].strength, 0.75, 1e-14);
    lp_recipe_clear(&again);
    CHECK(lp_recipe_from_lm_eval(&again, text, strlen(text), NULL, 0, &err) == LP_E_NOT_FOUND && !again.edits);
    says(&err, RES20 ": its weights are needed");
    free(text);
    CHECK(lp_recipe_to_lm_eval(&text, &r, NULL, 0, &err) == LP_E_NOT_FOUND && !text);
    r.edits[0].index = S;
    CHECK(lp_recipe_to_lm_eval(&text, &r, scope_saes, N_SCOPE, &err) == LP_E_RANGE && !text);
    says(&err, "features are 0 to");
    lp_recipe_clear(&r);
}

static void not_in_csv(const char *features, const char *more, lp_status st, const char *want)
{
    lp_recipe r = recipe(features, more);
    char *text = NULL;
    lp_error err = {0};
    CHECK(lp_recipe_to_lm_eval(&text, &r, NULL, 0, &err) == st && !text);
    says(&err, want);
    lp_recipe_clear(&r);
}

static void test_csv_cannot_say(void)
{
    static const char *const kinds[] = {"clamp", "clamp_min", "clamp_max", "scale", "replace"};
    const lp_status lost = LP_E_UNSUPPORTED;
    char edit[200], want[60];
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        snprintf(edit, sizeof edit, "{\"layer\": \"" RES20 "\", \"index\": 1, \"kind\": \"%s\", \"strength\": 1}",
                 kinds[i]);
        snprintf(want, sizeof want, "every %s (they add and project)", kinds[i]);
        not_in_csv(edit, SCOPE, lost, want);
    }
    not_in_csv("{\"layer\": \"" RES20 "\", \"index\": 1, \"kind\": \"ablate\"}", SCOPE, lost, "every ablate");
    not_in_csv(ADD(RES20), "\"modelId\": \"gemma-2-2b\"", lost, "scopes");
    not_in_csv(ADD(RES20), SCOPE ", \"keep_norm\": true", lost, "keep_norm");
    not_in_csv(ADD(RES20), SCOPE ", \"error_term\": false", lost, "error_term");
    not_in_csv(ADD(RES20), EVERYWHERE, lost, "modelId");
    not_in_csv("", SCOPE, lost, "without an edit");
    not_in_csv("{\"layer\": \"" RES20 "\", \"index\": 1, \"strength\": 1, \"schedule\": {\"ramp\": 3}}", SCOPE, lost,
               "schedules");
    not_in_csv("{\"layer\": \"" RES20 "\", \"index\": 1, \"strength\": 1, \"when\": {\"layer\": \"a\", \"index\": 1}}",
               SCOPE, lost, "conditions");
    not_in_csv("{\"layer\": \"" RES20 "\", \"index\": 1, \"strength\": 1, \"unit\": \"mean_norm\"}", SCOPE, lost,
               "unit nobody");
    not_in_csv("{\"layer\": \"" RES20
               "\", \"index\": 1, \"strength\": 1, \"scope\": {\"bos\": true, \"template\": true, "
               "\"text\": \"a\"}}",
               SCOPE, lost, "scopes");
    not_in_csv(ADD("3-lapidary-res-2k"), SCOPE, lost, "SAEs that SAELens has no name for");
    not_in_csv(ADD("v.gguf/direction.3"), SCOPE, lost, "SAEs that SAELens has no name for");
    not_in_csv(ADD("20-gemmascope-att-16k"), SCOPE, lost, "inside attention");
    not_in_csv(ADD("7-gemmascope-transcoder-16k__l0-2"), SCOPE, lost, "transcoders but the canonical");
    not_in_csv(ADD(RES20) "," ADD("20-gemmascope-res-65k"), SCOPE, lost, "two edits at one place");
    not_in_csv(ADD("7-gemmascope-mlp-16k") "," ADD("7-gemmascope-transcoder-16k"), SCOPE, lost,
               "two edits at one place");
    not_in_csv(ADD("77-gemmascope-res-16k"), SCOPE, LP_E_NOT_FOUND, "the layers are 0-25");
    not_in_csv(ADD(RES20), EVERYWHERE ", \"modelId\": \"gemma-3-1b\"", LP_E_NOT_FOUND, "no res SAEs of gemma-3-1b");
    not_in_csv(
        "{\"layer\": \"" RES20 "\", \"index\": 1, \"kind\": \"clamp\", \"strength\": 1, \"schedule\": {\"ramp\": 3}}",
        "\"modelId\": \"gemma-2-2b\", \"keep_norm\": true", lost,
        "keep_norm; scopes (they edit every position, <bos> too); schedules; every clamp (they add and project)");
}

/* ---- lm-evaluation-harness, read --------------------------------------------------------------------------------- */

static lp_status read_csv(lp_recipe *r, const char *text, lp_error *err)
{
    return lp_recipe_from_lm_eval(r, text, strlen(text), NULL, 0, err);
}

static void not_theirs(const char *text, const char *want)
{
    lp_recipe r;
    lp_error err = {0};
    CHECK(read_csv(&r, text, &err) < 0 && !r.edits && !r.model);
    says(&err, want);
}

#define ROW(index, coefficient, hookpoint, id, release)                                                                \
    HEADER "sae_lens,add," release "," hookpoint "," index "," coefficient ",," id ",\n"
#define R2B "gemma-scope-2b-pt-res"
#define L20 "layer_20/width_16k/canonical"

static void test_read_csv(void)
{
    lp_recipe r;
    lp_error err = {0};
    /* The sae_lens row of hf_steered.py's documentation, with its comma too many. */
    static const char documented[] =
        "loader,action,sparse_model,hookpoint,feature_index,steering_coefficient,head_index,sae_id,description,\n"
        "sae_lens,add,gemma-scope-2b-pt-res-canonical,layers.20,12082,240.0,,layer_20/width_16k/canonical,increase "
        "dogs,\n";
    CHECK(read_csv(&r, documented, &err) == LP_OK);
    CHECK_STR(err.text, "");
    CHECK_STR(r.model, "gemma-2-2b");
    CHECK(r.n_edits == 1 && r.scope.bos && r.scope.template && r.scope.prompt && r.scope.generated);
    CHECK_STR(r.edits[0].source, RES20);
    CHECK_STR(r.edits[0].description, "increase dogs");
    CHECK(r.edits[0].index == 12082 && r.edits[0].strength == 240 && r.edits[0].kind == LP_RECIPE_ADD);
    lp_recipe_clear(&r);
    CHECK(read_csv(&r,
                   "sae_id,loader,sparse_model,hookpoint,feature_index,steering_coefficient\r\n"
                   "layer_20/width_131k/average_l0_13,sae_lens,google/gemma-scope-9b-it-res,,0,-1e2\r\n",
                   &err) == LP_OK);
    CHECK(r.n_edits == 1 && r.edits[0].kind == LP_RECIPE_ADD && r.edits[0].strength == -100); /* no action: add */
    CHECK_STR(r.n_edits ? r.edits[0].source : "", "20-gemmascope-res-131k__l0-13");
    CHECK_STR(r.model, "gemma-2-9b-it");
    lp_recipe_clear(&r);
    not_theirs("", "an empty file");
    not_theirs("\n\n", "an empty file");
    not_theirs(HEADER, "without a row");
    not_theirs("loader,action\nsae_lens,add\n", "no column sparse_model");
    not_theirs("loader,loader\n", "column loader is there twice");
    not_theirs("loader,strength\n", "unknown column \"strength\"");
    not_theirs("{\"features\": []}", "line 1: a quote inside");
    not_theirs(ROW("1.5", "1", "", L20, R2B), "feature_index is \"1.5\"");
    not_theirs(ROW("-1", "1", "", L20, R2B), "feature_index");
    not_theirs(ROW("", "1", "", L20, R2B), "feature_index");
    not_theirs(ROW("99999999999", "1", "", L20, R2B), "feature_index");
    not_theirs(ROW("1", "", "", L20, R2B), "steering_coefficient");
    not_theirs(ROW("1", "NaN", "", L20, R2B), "finite number");
    not_theirs(ROW("1", "inf", "", L20, R2B), "finite number");
    not_theirs(ROW("1", "1e999", "", L20, R2B), "finite number");
    not_theirs(ROW("1", "0x10", "", L20, R2B), "finite number");
    not_theirs(ROW("1", "1 ", "", L20, R2B), "finite number");
    not_theirs(ROW("1", "1", "layers.19", L20, R2B), "edits where the SAE predicts, layers.20");
    not_theirs(ROW("1", "1", "", "layer_20/width_16k", R2B), "is no SAE of it");
    not_theirs(ROW("1", "1", "", "layer_99/width_16k/canonical", R2B), "line 2: layer_99");
    not_theirs(ROW("1", "1", "", "embedding/width_4k/average_l0_6", R2B), "is no SAE of it");
    not_theirs(ROW("1", "1", "", L20, "pythia-70m"), "no release of Gemma Scope's");
    not_theirs(ROW("1", "1", "", "layer_20/width_16k/canonical", "gemma-scope-2b-pt-att-canonical"),
               "inside attention");
    not_theirs(ROW("1", "1", "", L20, R2B) "sae_lens,add," R2B ",layers.20,2,1,," L20 ",\n", "line 3: layers.20 again");
    not_theirs(ROW("1", "1", "", L20, R2B) "sae_lens,add,gemma-scope-9b-pt-res,,2,1,,"
                                           "layer_9/width_16k/canonical,\n",
               "line 3: an SAE of gemma-2-9b");
    not_theirs(HEADER "sparsify,add,a/b,layers.3,30,10.0,,,\n", "loader sparsify");
    not_theirs(HEADER "other,add,a/b,layers.3,30,10.0,,,\n", "loader is \"other\"");
    not_theirs(HEADER "sae_lens,ablate," R2B ",,1,1,," L20 ",\n", "add or clamp");
    not_theirs(HEADER "sae_lens,," R2B ",,1,1,," L20 ",\n", "add or clamp");
    not_theirs(HEADER "sae_lens,add," R2B ",,1,1,2," L20 ",\n", "head_index is \"2\"");
    not_theirs(HEADER "sae_lens,clamp," R2B ",,1,1,," L20 ",\n", "weights are needed");
    not_theirs(HEADER "sae_lens,add\n", "line 2: 2 fields");
}

/* A million rows are refused at the first that is one too many, or by their bytes; either at once. */
static void test_many_rows(void)
{
    static const char row[] = "sparsify,add,a,b,1,1,,,\n", blank[] = "\n";
    size_t n = strlen(HEADER), rows = 1000000, all = n + rows * strlen(row);
    char *text = malloc(all + 1);
    lp_recipe r;
    lp_error err = {0};
    if (!text) exit(1);
    strcpy(text, HEADER);
    for (size_t i = 0; i < rows; i++) memcpy(text + n + i * strlen(row), row, strlen(row));
    CHECK(lp_recipe_from_lm_eval(&r, text, all, NULL, 0, &err) == LP_E_RANGE && !r.edits);
    says(&err, "bytes");
    CHECK(lp_recipe_from_lm_eval(&r, text, n + strlen(row) * 600000, NULL, 0, &err) == LP_E_UNSUPPORTED && !r.edits);
    says(&err, "line 2: loader sparsify");
    for (size_t i = 0; i < rows; i++) memcpy(text + n + i, blank, 1);
    CHECK(lp_recipe_from_lm_eval(&r, text, n + rows, NULL, 0, &err) == LP_E_FORMAT && !r.edits);
    says(&err, "without a row");
    free(text);
}

/* ---- control vectors, written ------------------------------------------------------------------------------------ */

static void near_rows(const float *got, const double *want, int n)
{
    for (int i = 0; i < n; i++) CHECK_NEAR(got[i], want[i], 1e-6);
}

static void test_write_vector(void)
{
    lp_recipe r = recipe(
        "{\"layer\": \"res1\", \"index\": 4, \"strength\": 0.5, \"unit\": \"max_act\", \"max_act\": 3},"
        "{\"layer\": \"res2\", \"index\": 7, \"strength\": -2},"
        "{\"layer\": \"res1b\", \"index\": 9, \"strength\": 0.25, \"unit\": \"mean_norm\", \"mean_norm\": 8}",
        EVERYWHERE ", \"name\": \"three\", \"joint\": true");
    lp_error err = {0};
    lp_gguf *g = NULL;
    const char *path = at("three.gguf"), *s = NULL;
    size_t n = 0;
    int64_t count = 0;
    CHECK(lp_recipe_to_control_vector(path, &r, (const lp_sae *const *)saes, N_SAES, &err) == LP_OK);
    CHECK_STR(err.text, "");
    CHECK(lp_gguf_open(&g, path, &err) == LP_OK);
    if (!g) exit(1);
    CHECK(lp_gguf_string(g, "general.architecture", &s, &n) && n == 13 && memcmp(s, "controlvector", n) == 0);
    CHECK(lp_gguf_string(g, "controlvector.model_hint", &s, &n) && n == 6 && memcmp(s, "gemma2", n) == 0);
    CHECK(lp_gguf_string(g, "general.name", &s, &n) && n == 5);
    CHECK(lp_gguf_int(g, "controlvector.layer_count", &count) && count == 2);
    float a[PLAIN_D], b[PLAIN_D], got[PLAIN_D];
    double want[PLAIN_D];
    const lp_tensors *t = lp_gguf_tensors(g);
    CHECK(t->n == 2 && t->items[0].type == LP_F32 && t->items[0].n_dims == 1 && t->items[0].shape[0] == PLAIN_D);
    lp_sae_decoder_row(saes[RES1], 4, a), lp_sae_decoder_row(saes[RES1B], 9, b);
    for (int i = 0; i < PLAIN_D; i++) want[i] = 1.5 * (double)a[i] + 2 * (double)b[i];
    CHECK(lp_tensors_read(t, lp_tensors_find(t, "direction.1"), 0, got, sizeof got, &err) == LP_OK);
    near_rows(got, want, PLAIN_D);
    lp_sae_decoder_row(saes[RES2], 7, a);
    for (int i = 0; i < PLAIN_D; i++) want[i] = -2 * (double)a[i];
    CHECK(lp_tensors_read(t, lp_tensors_find(t, "direction.2"), 0, got, sizeof got, &err) == LP_OK);
    near_rows(got, want, PLAIN_D);
    lp_gguf_close(g);
    lp_recipe_clear(&r);
}

static void not_in_vector(const char *features, const char *more, lp_status st, const char *want)
{
    lp_recipe r = recipe(features, more);
    lp_error err = {0};
    CHECK(lp_recipe_to_control_vector(at("no.gguf"), &r, (const lp_sae *const *)saes, N_SAES, &err) == st);
    CHECK(!lp_is_file(at("no.gguf")));
    says(&err, want);
    lp_recipe_clear(&r);
}

static void test_vector_cannot_say(void)
{
    static const char *const kinds[] = {"clamp", "clamp_min", "clamp_max", "scale", "project", "replace"};
    const lp_status lost = LP_E_UNSUPPORTED;
    char edit[200], want[60];
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        snprintf(edit, sizeof edit, "{\"layer\": \"res1\", \"index\": 1, \"kind\": \"%s\", \"strength\": 1}", kinds[i]);
        snprintf(want, sizeof want, "every %s (it only adds)", kinds[i]);
        not_in_vector(edit, EVERYWHERE, lost, want);
    }
    not_in_vector("{\"layer\": \"res1\", \"index\": 1, \"kind\": \"ablate\"}", EVERYWHERE, lost, "every ablate");
    not_in_vector(ADD("res1"), "", lost, "scopes");
    not_in_vector(ADD("res1"), EVERYWHERE ", \"keep_norm\": true", lost, "keep_norm");
    not_in_vector(ADD("res1"), EVERYWHERE ", \"error_term\": false", lost, "error_term");
    not_in_vector("", EVERYWHERE, lost, "without an edit");
    not_in_vector(ADD("res0"), EVERYWHERE, lost, "behind layer 0");
    not_in_vector(ADD("coder"), EVERYWHERE, lost, "elsewhere than in the residual stream");
    not_in_vector(ADD("z1"), EVERYWHERE, lost, "elsewhere than in the residual stream");
    not_in_vector("{\"layer\": \"res1\", \"index\": 1, \"strength\": 1, \"schedule\": {\"decay\": 0.5}}", EVERYWHERE,
                  lost, "schedules");
    not_in_vector("{\"layer\": \"res1\", \"index\": 1, \"strength\": 1, \"when\": {\"layer\": \"res0\", \"index\": 1}}",
                  EVERYWHERE, lost, "conditions");
    not_in_vector("{\"layer\": \"res1\", \"index\": 1, \"strength\": 1, \"unit\": \"max_act\"}", EVERYWHERE, lost,
                  "unit nobody");
    not_in_vector(ADD("elsewhere"), EVERYWHERE, LP_E_NOT_FOUND, "elsewhere: its weights are needed");
    not_in_vector("{\"layer\": \"res1\", \"index\": 48, \"strength\": 1}", EVERYWHERE, LP_E_RANGE,
                  "features are 0 to 47");
    not_in_vector("{\"layer\": \"res1\", \"index\": 1, \"strength\": 3e38}, {\"layer\": \"res1\", \"index\": 1, "
                  "\"strength\": 3e38},"
                  "{\"layer\": \"res1\", \"index\": 1, \"strength\": 3e38}, {\"layer\": \"res1\", \"index\": 1, "
                  "\"strength\": 3e38}",
                  EVERYWHERE, LP_E_RANGE, "beyond what a float holds");
    lp_recipe r = recipe(ADD("res1"), EVERYWHERE);
    lp_error err = {0};
    CHECK(lp_recipe_to_control_vector(at("nowhere/a.gguf"), &r, (const lp_sae *const *)saes, N_SAES, &err) == LP_E_IO);
    lp_recipe_clear(&r);
}

/* ---- control vectors, read --------------------------------------------------------------------------------------- */

/* A control vector of our own making: one tensor of `n` floats x. */
static const char *put_vector(const char *file, const char *architecture, const char *hint, const char *tensor,
                              lp_dtype type, int dims, const float *x, int n)
{
    lp_gguf_writer *g = NULL;
    const int64_t sizes[2] = {dims == 2 ? 1 : n, n};
    const char *path = at(file);
    CHECK(lp_gguf_create(&g, path, NULL) == LP_OK);
    CHECK(lp_gguf_put_string(g, "general.architecture", architecture, NULL) == LP_OK);
    if (hint) CHECK(lp_gguf_put_string(g, "controlvector.model_hint", hint, NULL) == LP_OK);
    if (tensor) CHECK(lp_gguf_declare(g, tensor, type, dims, sizes, NULL) == LP_OK);
    CHECK(lp_gguf_begin(g, NULL) == LP_OK);
    if (tensor) CHECK(lp_gguf_write(g, x, (size_t)n * (type == LP_F32 ? 4 : 2), NULL) == LP_OK);
    CHECK(lp_gguf_end(g, NULL) == LP_OK);
    lp_gguf_writer_close(g);
    return path;
}

static void not_vector(const char *path, const char *want)
{
    lp_recipe r;
    lp_error err = {0};
    CHECK(lp_recipe_from_control_vector(&r, path, &err) < 0 && !r.edits);
    says(&err, want);
}

static void test_bad_vectors(void)
{
    const float x[4] = {1, 2, 0, -1}, zero[4] = {0}, nan[4] = {1, NAN, 0, 0};
    const char *cv = "controlvector";
    not_vector(at("missing.gguf"), "missing.gguf");
    not_vector(at("vector.txt"), "must end in .gguf");
    not_vector(put_vector("a.gguf", "gemma2", NULL, "direction.1", LP_F32, 1, x, 4), "no control vector");
    not_vector(put_vector("a.gguf", cv, "llama", "direction.1", LP_F32, 1, x, 4), "another model than gemma2");
    not_vector(put_vector("a.gguf", cv, NULL, "direction.0", LP_F32, 1, x, 4), "tensor \"direction.0\"");
    not_vector(put_vector("a.gguf", cv, NULL, "direction.256", LP_F32, 1, x, 4), "tensor \"direction.256\"");
    not_vector(put_vector("a.gguf", cv, NULL, "direction.1.2", LP_F32, 1, x, 4), "tensor \"direction.1.2\"");
    not_vector(put_vector("a.gguf", cv, NULL, "blk.1", LP_F32, 1, x, 4), "tensor \"blk.1\"");
    not_vector(put_vector("a.gguf", cv, NULL, "direction.1", LP_F16, 1, x, 4), "no F32 vector");
    not_vector(put_vector("a.gguf", cv, NULL, "direction.1", LP_F32, 2, x, 4), "no F32 vector");
    not_vector(put_vector("a.gguf", cv, NULL, "direction.1", LP_F32, 1, nan, 4), "NaN");
    not_vector(put_vector("a.gguf", cv, NULL, "direction.1", LP_F32, 1, zero, 4), "not zero");
    not_vector(put_vector("a.gguf", cv, NULL, NULL, LP_F32, 1, x, 4), "not zero");
    lp_sae *s = NULL;
    lp_error err = {0};
    put_vector("a.gguf", cv, NULL, "direction.1", LP_F32, 1, zero, 4);
    CHECK(lp_sae_open(&s, at("a.gguf/direction.1"), NULL, NULL, &err) == LP_E_RANGE);
    says(&err, "no direction");
    CHECK(lp_sae_open(&s, at("a.gguf/direction.2"), NULL, NULL, &err) == LP_E_NOT_FOUND);
    says(&err, "no tensor direction.2");
    CHECK(lp_sae_open(&s, at("b.gguf/direction.2"), NULL, NULL, &err) < 0 && !s);
}

/* The file of the gguf package: three directions, the second zero. */
static void test_read_vector(void)
{
    char path[1024], want[1100];
    lp_recipe r;
    lp_error err = {0};
    snprintf(path, sizeof path, "%s/goldens/exchange/theirs.gguf", LP_TESTS_DIR);
    CHECK(lp_recipe_from_control_vector(&r, path, &err) == LP_OK);
    CHECK_STR(err.text, "");
    CHECK(r.n_edits == 2 && r.scope.bos && r.scope.generated && r.edits[0].strength == 1 && r.edits[1].index == 0);
    snprintf(want, sizeof want, "%s/direction.10", path);
    CHECK_STR(r.n_edits == 2 ? r.edits[1].source : "", want); /* by number, not by name */
    lp_sae *s = NULL;
    CHECK(r.n_edits && lp_sae_open(&s, r.edits[0].source, NULL, NULL, &err) == LP_OK);
    if (!s) exit(1);
    CHECK_STR(s->name, r.edits[0].source);
    CHECK(s->d_sae == 1 && s->d_in == 4 && s->spot.site == LP_RESID_POST && s->spot.layer == 2 && !s->spot.is_coder);
    float d[4], e[4];
    const float theirs[4] = {0.5f, -1, 0, 2};
    lp_sae_decoder_row(s, 0, d), lp_sae_encoder_row(s, 0, e);
    CHECK_SAME(d, theirs, 4);
    for (int i = 0; i < 4; i++) CHECK_NEAR(e[i], (double)theirs[i] / 5.25, 1e-7);
    lp_features f = {0};
    lp_encoder *encoder = NULL;
    const float x[8] = {1, -2, 7, 4, -1, 2, 7, -4}; /* twice d and something across; and the other way */
    CHECK(lp_encoder_new(&encoder, s, LP_EXACT, NULL, &err) == LP_OK && lp_encode(&f, encoder, x, 2, &err) == LP_OK);
    CHECK_NEAR(lp_features_get(&f, 0, 0), 2, 1e-6);
    CHECK(lp_features_get(&f, 1, 0) == 0);
    lp_features_free(&f);
    lp_encoder_free(encoder);
    lp_sae_close(s);
    lp_recipe_clear(&r);
    lp_sae_place p;
    int layer = 0;
    CHECK(lp_sae_find(&p, "some/v.gguf/direction.7", NULL, &err) == LP_OK && p.spot.layer == 7 &&
          p.spot.site == LP_RESID_POST);
    CHECK_STR(p.path, "some/v.gguf/direction.7");
    lp_sae_place_clear(&p);
    CHECK(lp_direction_part("a.gguf/direction.7", &layer) && layer == 7);
    CHECK(!lp_direction_part("a.gguf/direction.07", &layer) && !lp_direction_part("a.gguf/direction.0", &layer));
    CHECK(!lp_direction_part("a.gguf/direction.7x", &layer) && !lp_direction_part(".gguf/direction.7", &layer));
    CHECK(!lp_direction_part("a.gguf", &layer) && !lp_direction_part("a/direction.7", &layer));
}

/* Written, read and steered with: the same logits as the recipe itself; and written again, the same numbers. */
static void test_vector_round_trip(void)
{
    lp_recipe r = recipe("{\"layer\": \"res1\", \"index\": 4, \"strength\": 3}, {\"layer\": \"res2\", \"index\": 7, "
                         "\"strength\": -2},"
                         "{\"layer\": \"standard\", \"index\": 2, \"strength\": 1.5}",
                         EVERYWHERE),
              again;
    lp_error err = {0};
    lp_sae *two[2] = {NULL, NULL};
    const char *path = at("round.gguf");
    static run plain, want, got;
    CHECK(lp_recipe_to_control_vector(path, &r, (const lp_sae *const *)saes, N_SAES, &err) == LP_OK);
    CHECK(lp_recipe_from_control_vector(&again, path, &err) == LP_OK && again.n_edits == 2);
    for (int i = 0; i < 2; i++) CHECK(lp_sae_open(&two[i], again.edits[i].source, NULL, NULL, &err) == LP_OK);
    if (!two[0] || !two[1]) exit(1);
    watch(&plain, NULL, saes[RES2], N);
    watch(&want, &r, saes[RES2], N);
    lp_sae *kept[2] = {saes[0], saes[1]};
    saes[0] = two[0], saes[1] = two[1];
    watch(&got, &again, saes[1], N);
    double apart = 0, moved = 0;
    for (int i = 0; i < V; i++) {
        apart = fmax(apart, fabs((double)got.logits[i] - (double)want.logits[i]));
        moved = fmax(moved, fabs((double)plain.logits[i] - (double)want.logits[i]));
    }
    CHECK(apart < 1e-5 && moved > 1e-2);
    char second[200];
    snprintf(second, sizeof second, "%s", at("second.gguf"));
    CHECK(lp_recipe_to_control_vector(second, &again, (const lp_sae *const *)saes, N_SAES, &err) == LP_OK);
    char *a = NULL, *b = NULL;
    size_t na = 0, nb = 0;
    CHECK(lp_read_file(&a, &na, at("round.gguf"), 1 << 20, &err) == LP_OK &&
          lp_read_file(&b, &nb, second, 1 << 20, &err) == LP_OK);
    CHECK(na == nb && memcmp(a, b, na) == 0);
    free(a), free(b);
    saes[0] = kept[0], saes[1] = kept[1];
    lp_sae_close(two[0]), lp_sae_close(two[1]);
    lp_recipe_clear(&again);
    lp_recipe_clear(&r);
}

/* ---- goldens of theirs ------------------------------------------------------------------------------------------- */

static void test_pandas(void)
{
    char path[1024], *text = NULL;
    size_t n = 0;
    lp_recipe r;
    lp_error err = {0};
    snprintf(path, sizeof path, "%s/goldens/exchange/theirs.csv", LP_TESTS_DIR);
    CHECK(lp_read_file(&text, &n, path, 1 << 16, &err) == LP_OK);
    CHECK(text && lp_recipe_from_lm_eval(&r, text, n, NULL, 0, &err) == LP_OK);
    CHECK_STR(err.text, "");
    CHECK(r.n_edits == 3);
    if (r.n_edits != 3) exit(1);
    CHECK_STR(r.edits[0].description, "he said \"dogs\", twice\nand went");
    CHECK(r.edits[0].strength == 240 && r.edits[1].strength == -0.1 && r.edits[2].strength == 1e-7);
    CHECK_STR(r.edits[2].source, "7-gemmascope-transcoder-16k");
    lp_recipe_clear(&r);
    free(text);
}

static void call(lp_sae *s, const char *name)
{
    free(s->name);
    s->name = lp_strdup(name);
}

int main(void)
{
    if (!mkdtemp(folder) || !open_all()) return 1;
    test_write_csv();
    test_csv_cannot_say();
    test_read_csv();
    test_many_rows();
    test_pandas();
    test_write_vector();
    test_vector_cannot_say();
    test_bad_vectors();
    test_read_vector();
    test_vector_round_trip();
    call(saes[RES1], RES20), call(saes[TOPK], "19-gemmascope-res-16k"), call(saes[TWINS], "18-gemmascope-res-16k");
    scope_saes[0] = saes[RES1], scope_saes[1] = saes[TOPK], scope_saes[2] = saes[TWINS];
    test_projection();
    close_all();
    static const char *const left[] = {"three.gguf", "a.gguf", "round.gguf", "second.gguf"};
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) unlink(at(left[i]));
    CHECK(rmdir(folder) == 0);
    return check_done();
}
