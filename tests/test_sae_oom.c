/* SAEs when memory runs out: opening every format, finding them, encoding and decoding, labels, recipes in other formats,
 * the reader on a session, attribution, whole dictionaries. */
#include "sae/attribute.h"
#include "sae/dense.h"
#include "sae/exchange.h"
#include "sae/labels.h"
#include "sae/names.h"
#include "sae/reader.h"

#include "core/model.h"
#include "tests/oom.h"

#include <sys/stat.h>
#include <unistd.h>

static const char *place(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/goldens/saes/%s", LP_TESTS_DIR, name);
    return path;
}

static lp_status use(lp_encoder *e, int d_in, int d_out, lp_error *err)
{
    enum { ROWS = 3 };
    float *x = __real_calloc(ROWS, (size_t)d_in * sizeof *x), *y = __real_calloc(ROWS, (size_t)d_out * sizeof *y);
    lp_features f = {0};
    for (int i = 0; i < ROWS * d_in; i++) x[i] = (float)(i % 7) - 2.5f;
    lp_status st = lp_encode(&f, e, x, ROWS, err);
    if (st == LP_OK) lp_decode(y, e, &f, x);
    lp_features_free(&f);
    free(x), free(y);
    return st;
}

static lp_status open_and_use(const void *user, lp_error *err)
{
    lp_sae *s = NULL;
    lp_encoder *e = NULL;
    lp_status st = lp_sae_open(&s, user, NULL, NULL, err);
    CHECK((st == LP_OK) == (s != NULL));
    if (st == LP_OK) st = lp_encoder_new(&e, s, LP_EXACT, NULL, err);
    if (st == LP_OK) st = use(e, s->d_in, s->d_out, err);
    lp_encoder_free(e);
    lp_sae_close(s);
    return st;
}

static lp_status list_shipped(const void *user, lp_error *err)
{
    lp_sae_place *list = NULL, one = {0};
    size_t n = 0;
    lp_status st = lp_sae_list(&list, &n, user, err);
    if (st == LP_OK) st = lp_sae_find(&one, "3-lapidary-res-2k", user, err);
    lp_sae_list_free(list, n);
    lp_sae_place_clear(&one);
    return st;
}

static lp_status read_labels(const void *user, lp_error *err)
{
    lp_labels l = {0};
    lp_status st = lp_labels_read(&l, user, 9, err);
    if (st == LP_OK) CHECK_STR(lp_label_text(&l, 3), "near \"sea\"");
    lp_labels_free(&l);
    return st;
}

static const char csv[] = "loader,action,sparse_model,hookpoint,feature_index,steering_coefficient,sae_id,description\n"
                          "sae_lens,add,gemma-scope-2b-pt-res,layers.20,1,2,layer_20/width_16k/canonical,\"a,b\"\n";

static lp_status exchange_csv(const void *user, lp_error *err)
{
    lp_recipe r = {0};
    char *text = NULL;
    (void)user;
    lp_status st = lp_recipe_from_lm_eval(&r, csv, sizeof csv - 1, NULL, 0, err);
    CHECK((st == LP_OK) == (r.n_edits == 1));
    if (st == LP_OK) st = lp_recipe_to_lm_eval(&text, &r, NULL, 0, err);
    CHECK((st == LP_OK) == (text != NULL));
    free(text);
    lp_recipe_clear(&r);
    return st;
}

/* A direction read from one control vector and written into another, which is there whole or not at all. */
static lp_status exchange_vector(const void *user, lp_error *err)
{
    static const char out[] = "/tmp/lapidary-oom.gguf";
    lp_recipe r = {0};
    lp_sae *s[2] = {NULL, NULL};
    lp_status st = lp_recipe_from_control_vector(&r, user, err);
    for (int i = 0; i < 2 && st == LP_OK; i++) st = lp_sae_open(&s[i], r.edits[i].source, NULL, NULL, err);
    if (st == LP_OK) st = lp_recipe_to_control_vector(out, &r, (const lp_sae *const *)s, 2, err);
    CHECK((st == LP_OK) == lp_is_file(out));
    unlink(out);
    for (int i = 0; i < 2; i++) lp_sae_close(s[i]);
    lp_recipe_clear(&r);
    return st;
}

static lp_session *session;
static lp_sae *small;

/* A reader that could not be made leaves no hook behind; one that fails on the way says so, and the session lives on. */
static lp_status read_along(const void *user, lp_error *err)
{
    static const int ids[12] = {2, 5, 9, 11};
    const lp_sae *saes[] = {small};
    lp_meter meter = {0};
    lp_reader *r = NULL;
    (void)user;
    lp_status st = lp_session_rewind(session, 0, err);
    if (st == LP_OK) st = lp_meter_new(&meter, small, err);
    if (st == LP_OK) st = lp_reader_new(&r, session, saes, 1, &(lp_reader_options){.meters = &meter}, err);
    if (st == LP_OK) st = lp_reader_explain(r, lp_session_eval(session, ids, 12, err), err);
    lp_reader_free(r);
    lp_meter_free(&meter);
    return st;
}

static lp_status attribute(const void *user, lp_error *err)
{
    static const int ids[] = {2, 5, 9, 11};
    const lp_sae *saes[] = {small};
    lp_attribution out;
    lp_attribution_question q = {.ids = ids, .n = 4, .at = -1, .target = -1, .contrast = 7};
    (void)user;
    lp_status st = lp_attribute(&out, session, saes, 1, &q, err);
    CHECK((st == LP_OK) == (out.parts != NULL));
    lp_attribution_free(&out);
    return st;
}

static lp_status compare(const void *user, lp_error *err)
{
    static const int which[] = {3, 700};
    lp_scored near[4], up[4], down[4];
    lp_dense_options o = {.k = 2, .which = which, .n = 2, .rows = 300};
    (void)user;
    lp_status st = lp_dense_nearest(near, small, small, &o, NULL, err);
    if (st != LP_OK) return st;
    return lp_dense_effects(up, down, small, LP_EFFECT_GAINED, lp_session_model(session), &o, NULL, err);
}

static void write_labels(char *folder)
{
    char path[128];
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/explanations", folder);
    CHECK(mkdir(path, 0700) == 0);
    snprintf(path, sizeof path, "%s/explanations/batch-0.jsonl", folder);
    FILE *f = fopen(path, "w");
    CHECK(f != NULL);
    if (!f) return;
    fputs("{\"index\":\"3\",\"description\":\"near \\\"sea\\\"\",\"typeName\":\"lapidary_auto\"}\n", f);
    fclose(f);
}

static void remove_labels(const char *folder)
{
    char path[128];
    snprintf(path, sizeof path, "%s/explanations/batch-0.jsonl", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/explanations", folder);
    rmdir(path);
    rmdir(folder);
}

int main(void)
{
    static const char *const kinds[] = {"jumprelu",
                                        "topk",
                                        "gated",
                                        "skip_transcoder",
                                        "npz/fortran.npz",
                                        "npz/deflated.npz",
                                        "../exchange/theirs.gguf/direction.2"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s", place(kinds[i]));
        CHECK(oom_sweep(kinds[i], open_and_use, path) > 10);
    }
    CHECK(oom_sweep("list", list_shipped, LP_DATA_DIR "/saes") > 20);
    CHECK(oom_sweep("CSV", exchange_csv, NULL) > 10);
    CHECK(oom_sweep("control vector", exchange_vector, LP_TESTS_DIR "/goldens/exchange/theirs.gguf") > 30);
    char labels[] = "/tmp/lapidary-labels-XXXXXX";
    write_labels(labels);
    CHECK(oom_sweep("labels", read_labels, labels) > 3);
    remove_labels(labels);

    lp_model *m = NULL;
    lp_sae_place p = {0};
    lp_error err = {0};
    CHECK(lp_model_open(&m, LP_DATA_DIR "/base", NULL, NULL, &err) == LP_OK);
    CHECK(lp_sae_find(&p, "1-lapidary-res-2k", LP_DATA_DIR "/saes", &err) == LP_OK);
    if (m && p.path && lp_sae_open(&small, p.path, NULL, NULL, &err) == LP_OK &&
        lp_session_new(&session, m, NULL, NULL, &err) == LP_OK) {
        CHECK(oom_sweep("reader", read_along, NULL) > 5);
        CHECK(oom_sweep("attribution", attribute, NULL) > 15);
        CHECK(oom_sweep("dense", compare, NULL) > 8);
    }
    CHECK(session != NULL);
    lp_sae_place_clear(&p);
    lp_sae_close(small);
    lp_session_free(session);
    lp_model_close(m);
    return check_done();
}
