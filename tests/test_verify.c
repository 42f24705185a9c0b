/* A verifier that finds nothing is worth nothing: what is right passes, and each way of being wrong is seen and named. */
#include "core/verify.h"

#include "tests/golden.h"

#include <unistd.h>

static const char *const folder = "models/plain";

/* What the golden file promises at one tensor, with one float of it changed, in a file of its own beside the ids. */
static bool one_tensor(lp_tensors *t, const lp_tensors *expect, const char *name, size_t at, float delta)
{
    char path[] = "/tmp/lp_verify_XXXXXX";
    int fd = mkstemp(path);
    if (fd >= 0) close(fd);
    lp_safetensors_writer *w = NULL;
    const char *names[] = {"p0.ids", name};
    float *v[2];
    size_t n[2];
    bool ok = lp_safetensors_create(&w, path, NULL) == LP_OK;
    for (int i = 0; i < 2; i++) {
        const lp_tensor *x = lp_tensors_find(expect, names[i]);
        v[i] = golden_take(expect, names[i], &n[i]);
        ok = ok && x && v[i] && lp_safetensors_declare(w, names[i], LP_F32, x->n_dims, x->shape, NULL) == LP_OK;
    }
    if (ok) v[1][at] += delta;
    ok = ok && lp_safetensors_begin(w, NULL) == LP_OK;
    for (int i = 0; ok && i < 2; i++) ok = lp_safetensors_write(w, v[i], n[i] * sizeof(float), NULL) == LP_OK;
    ok = ok && lp_safetensors_end(w, NULL) == LP_OK && lp_safetensors_open(t, path, NULL, NULL) == LP_OK;
    lp_safetensors_close(w);
    free(v[0]);
    free(v[1]);
    unlink(path); /* the open file lives on */
    CHECK(ok);
    return ok;
}

static void test_right_is_right(const lp_model *m, const lp_tensors *expect)
{
    lp_errors a = {0}, b = {0};
    lp_error err = {0};
    CHECK(lp_errors_measure(&a, "whole", m, expect, "p1.ids", "p1.", NULL, NULL, &err) == LP_OK);
    CHECK(lp_errors_measure(&b, "waves", m, expect, "p1.ids", "p1.", &(lp_session_options){.wave = 3}, NULL, &err) ==
          LP_OK);
    CHECK_STR(err.text, "");
    for (int i = 0; i < LP_N_SITES; i++) {
        CHECK(a.site[i].n > 0 && a.site[i].n == b.site[i].n);
        CHECK(a.site[i].worst <= 2e-5 && a.site[i].worst == b.site[i].worst);
        CHECK(lp_site_errors_median(&a.site[i]) <= a.site[i].worst);
    }
    CHECK(a.site[LP_Z].n == (size_t)m->config.n_layers * a.site[LP_LOGITS].n);
    lp_errors_clear(&a);
    lp_errors_clear(&b);
}

static void test_wrong_is_seen(const lp_model *m, const lp_tensors *expect)
{
    const struct {
        const char *name;
        lp_site site;
        int layer, row;
        float delta;
    } wrongs[] = {{"p0.blocks.1.hook_resid_post", LP_RESID_POST, 1, 2, 0.01f},
                  {"p0.blocks.2.attn.hook_pattern", LP_PATTERN, 2, 3, 0.01f},
                  {"p0.logits", LP_LOGITS, LP_WHOLE_MODEL, 1, 0.05f},
                  {"p0.blocks.0.mlp.hook_post", LP_MLP_ACT, 0, 0, NAN}};
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
        const lp_tensor *x = lp_tensors_find(expect, wrongs[i].name);
        lp_tensors t = {0};
        lp_errors e = {0};
        if (!x) continue;
        size_t row = (size_t)(x->bytes / sizeof(float)) / (size_t)x->shape[0]; /* its first element: key 0 is visible */
        if (!one_tensor(&t, expect, wrongs[i].name, (size_t)wrongs[i].row * row, wrongs[i].delta)) continue;
        CHECK(lp_errors_measure(&e, "bent", m, &t, "p0.ids", "p0.", NULL, NULL, NULL) == LP_OK);
        const lp_site_errors *s = &e.site[wrongs[i].site];
        CHECK(s->worst > 2e-5 && s->worst_layer == wrongs[i].layer && s->worst_pos == wrongs[i].row);
        CHECK(lp_site_errors_median(s) <= 2e-5);
        CHECK_STR(s->worst_in, "bent");
        CHECK(!isnan(wrongs[i].delta) || isinf(s->worst));
        lp_errors_clear(&e);
        lp_tensors_clear(&t);
    }
}

static void test_what_cannot_be_compared(const lp_model *m, const lp_tensors *expect)
{
    lp_errors e = {0};
    lp_error err = {0};
    CHECK(lp_errors_measure(&e, "x", m, expect, "p9.ids", "p9.", NULL, NULL, &err) == LP_E_NOT_FOUND);
    CHECK(lp_errors_measure(&e, "x", m, expect, "p0.ids", "p9.", NULL, NULL, &err) == LP_E_NOT_FOUND);
    CHECK(strstr(err.text, "no site") != NULL);
    CHECK(lp_errors_measure(&e, "x", m, expect, "p1.ids", "p0.", NULL, NULL, &err) == LP_E_SHAPE); /* another length */
    CHECK(lp_errors_measure(&e, "x", m, expect, "p0.logits", "p0.", NULL, NULL, &err) == LP_E_RANGE);
    CHECK(strstr(err.text, "token id") != NULL);
    lp_model *other = NULL;
    if (golden_model(&other, "models/mha", NULL))
        CHECK(lp_errors_measure(&e, "x", other, expect, "p0.ids", "p0.", NULL, NULL, &err) < 0);
    lp_model_close(other);
    lp_errors_clear(&e);
}

/* Tables that are wrong in one place, wherever a model's way may lead. */
static void add_wrongly(float *y, const float *x, int n)
{
    lp_kernels_c()->add(y, x, n);
    if (n > 5 && y[5] > 0) y[5] = nextafterf(y[5], 9);
}

static void test_itself(const lp_model *m, const lp_tensors *expect)
{
    lp_check checks[LP_MAX_CHECKS];
    int ids[GOLDEN_TOKENS], n = 0, different = 0;
    int n_ids = golden_ids(ids, expect, "p1.ids");
    lp_error err = {0};
    CHECK(lp_verify_itself(checks, &n, m, ids, n_ids, NULL, NULL, &err) == LP_OK);
    CHECK_STR(err.text, "");
    CHECK(n > 10 && n < LP_MAX_CHECKS);
    for (int i = 0; i < n; i++) CHECK(checks[i].same && checks[i].floats > 100 && !checks[i].difference[0]);

    /* With a wrong table as the one in force, the right ones differ from it: all of them, and only they. */
    lp_kernels wrong = *lp_kernels_c();
    wrong.name = "wrong";
    wrong.add = add_wrongly;
    int n_tables = 0;
    lp_kernels_all(&n_tables);
    CHECK(lp_verify_itself(checks, &n, m, ids, n_ids, NULL, &(lp_env){.kernels = &wrong}, &err) == LP_OK);
    for (int i = 0; i < n; i++) {
        bool table = strncmp(checks[i].name, "kernel table", 12) == 0;
        CHECK(checks[i].same == !table);
        CHECK(!table || strstr(checks[i].difference, "resid_post.0, row 0, element 5") != NULL);
        different += !checks[i].same;
    }
    CHECK(different == n_tables);
    CHECK(lp_verify_itself(checks, &n, m, ids, 3, NULL, NULL, &err) == LP_E_RANGE);
}

int main(void)
{
    lp_model *m = NULL;
    lp_tensors expect = {0};
    if (golden_model(&m, folder, NULL) && golden_expect(&expect, folder)) {
        test_right_is_right(m, &expect);
        test_wrong_is_seen(m, &expect);
        test_what_cannot_be_compared(m, &expect);
        test_itself(m, &expect);
    }
    lp_tensors_clear(&expect);
    lp_model_close(m);
    return check_done();
}
