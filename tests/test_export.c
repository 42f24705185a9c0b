/* Exports and comparisons inside one process: made shards out to delphi's cache and to text, the same coming back as
 * agreement, and what must be refused or leave nothing behind. */
#include "core/safetensors.h"
#include "store/compare.h"
#include "store/export.h"

#include "tests/store_made.h"

#include <stdatomic.h>

static char folder[64];

static const char *beside(const char *name)
{
    static char out[2][200];
    static int at;
    at = !at;
    snprintf(out[at], sizeof out[at], "%s/%s", folder, name);
    return out[at];
}

/* Two shards of one run. */
static void make_run(uint64_t seed, float times)
{
    made_folder(folder);
    for (int k = 0; k < 2; k++) {
        made_spec spec = {.n_tokens = k ? 150 : 300,
                          .n_documents = 7,
                          .vocab = 50,
                          .n_saes = 2,
                          .d_sae = {64, 200},
                          .number = k,
                          .token_base = k ? 300 : 0,
                          .seed = seed + (uint64_t)k};
        made *m = made_new(&spec);
        lp_features *f = &m->saes[1].features;
        for (size_t i = 0; i < f->start[f->n_rows]; i++) f->value[i] *= times;
        made_write(m, folder, 64, NULL);
        made_free(m);
    }
}

static void open_series(lp_series *s)
{
    lp_error err = {0};
    made_spec spec = {.n_tokens = 1, .n_saes = 2, .d_sae = {64, 200}};
    made *m = made_new(&spec);
    CHECK(lp_series_open(s, folder, NULL, m->saes[1].name, NULL, &err) == LP_OK);
    if (err.text[0]) fprintf(stderr, "%s\n", err.text);
    made_free(m);
}

static lp_status compare(lp_comparison *c, const lp_series *s, const char *path, lp_error *err)
{
    lp_outside *x;
    LP_TRY(lp_outside_open(&x, path, s->d_sae, err));
    lp_status st = lp_compare(c, s, x, 1e-4, NULL, err);
    lp_outside_close(x);
    return st;
}

static void remove_cache(const lp_series *s, const char *name)
{
    char *module = lp_delphi_module(&s->spot), *inner = lp_path_join(beside(name), module);
    made_remove(inner);
    rmdir(beside(name));
    free(module), free(inner);
}

static void round_trip(void)
{
    lp_series s;
    lp_comparison c;
    lp_export_report r;
    lp_error err = {0};
    make_run(1, 1);
    open_series(&s);
    CHECK(s.n_rows == 450 && s.n_shards == 2 && s.d_sae == 200 && s.n_windows >= 2 && s.longest <= 450);
    for (int splits = 1; splits <= 200; splits *= 7) {
        lp_delphi_options o = {.n_splits = splits, .model_name = "m"};
        CHECK(lp_export_delphi(&r, &s, beside("cache"), &o, NULL, &err) == LP_OK && r.rows == 450);
        CHECK(r.values + r.dropped == s.n_values);
        CHECK(lp_export_delphi(NULL, &s, beside("cache"), &o, NULL, &err) == LP_E_IO && strstr(err.text, "exists"));
        CHECK(compare(&c, &s, beside("cache"), &err) == LP_OK && lp_comparison_agrees(&c));
        CHECK(c.rows == 450 && c.values == (int64_t)r.values && c.n_worst == 0);
        remove_cache(&s, "cache");
    }
    CHECK(lp_export_text(&r, &s, beside("a.csv"), NULL, &err) == LP_OK && r.values == s.n_values);
    char *text = NULL;
    size_t n = 0, lines = 0;
    CHECK(lp_read_file(&text, &n, beside("a.csv"), 1 << 24, &err) == LP_OK);
    for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
    CHECK(lines == s.n_values + 1);
    free(text);
    lp_series_close(&s);
    made_remove(folder);
}

static int count_entries(void)
{
    int n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) n += e->d_name[0] != '.';
    if (d) closedir(d);
    return n;
}

/* Raised at the n-th report of progress. */
static int reports;
static atomic_bool cancel;

static void count_down(void *user, const char *what, int64_t done, int64_t of)
{
    (void)user, (void)what, (void)done, (void)of;
    if (reports-- == 0) atomic_store(&cancel, true);
}

static void refused(void)
{
    lp_series s, t;
    lp_error err = {0};
    lp_delphi_options o = {.n_splits = 3};
    make_run(5, 1e6f);
    open_series(&s);
    int before = count_entries();
    CHECK(lp_export_delphi(NULL, &s, beside("cache"), &o, NULL, &err) == LP_E_UNSUPPORTED);
    CHECK(strstr(err.text, "more than the f16 of delphi holds") != NULL);
    o.n_splits = 201;
    CHECK(lp_export_delphi(NULL, &s, beside("cache"), &o, NULL, &err) == LP_E_RANGE);
    CHECK(lp_export_text(NULL, &s, beside("none/a.csv"), NULL, &err) == LP_E_IO);
    CHECK(count_entries() == before);
    CHECK(lp_series_open(&t, folder, NULL, NULL, NULL, &err) == LP_E_NOT_FOUND && strstr(err.text, "2 SAEs in it"));
    CHECK(lp_series_open(&t, folder, NULL, "other", NULL, &err) == LP_E_NOT_FOUND);
    CHECK(lp_series_open(&t, beside("none"), NULL, NULL, NULL, &err) == LP_E_NOT_FOUND);
    unlink(beside("shard-000000.h5"));
    CHECK(lp_series_open(&t, folder, NULL, s.name, NULL, &err) == LP_E_FORMAT &&
          strstr(err.text, "where shard 0 should"));
    CHECK(lp_series_open(&t, beside("shard-000001.h5"), NULL, s.name, NULL, &err) == LP_OK && t.n_rows == 150);
    lp_series_close(&t);
    lp_series_close(&s);
    made_remove(folder);

    make_run(9, 1);
    open_series(&s);
    o.n_splits = 3;
    before = count_entries();
    for (int at = 0; at < 9; at++) {
        reports = at, atomic_store(&cancel, false);
        lp_env env = {.cancel = &cancel, .progress = count_down};
        CHECK(lp_export_delphi(NULL, &s, beside("cache"), &o, &env, &err) == LP_CANCELLED);
        CHECK(count_entries() == before);
    }
    lp_series_close(&s);
    made_remove(folder);
}

/* A cache of one split with these locations. */
static lp_status try_cache(const lp_series *s, const uint16_t (*at)[3], int n, int n_values, const char *name,
                           lp_error *err)
{
    lp_safetensors_writer *w;
    char *path = lp_format("%s/%s", folder, name);
    int64_t tokens[2] = {s->n_windows, s->longest}, where[2] = {n, 3}, values = n_values;
    int64_t *zeros = made_array((size_t)(tokens[0] * tokens[1]), 8);
    float *ones = made_array((size_t)n_values + 1, 4);
    for (int i = 0; i < n_values; i++) ones[i] = 1;
    CHECK(lp_safetensors_create(&w, path, NULL) == LP_OK);
    CHECK(lp_safetensors_declare_raw(w, "tokens", "I64", 8, 2, tokens, NULL) == LP_OK);
    CHECK(lp_safetensors_declare(w, "activations", LP_F32, 1, &values, NULL) == LP_OK);
    CHECK(lp_safetensors_declare_raw(w, "locations", "U16", 2, 2, where, NULL) == LP_OK);
    CHECK(lp_safetensors_begin(w, NULL) == LP_OK);
    CHECK(lp_safetensors_write(w, zeros, (size_t)(tokens[0] * tokens[1]) * 8, NULL) == LP_OK);
    CHECK(lp_safetensors_write(w, ones, (size_t)n_values * 4, NULL) == LP_OK);
    CHECK(lp_safetensors_write(w, at, (size_t)n * 6, NULL) == LP_OK);
    CHECK(lp_safetensors_end(w, NULL) == LP_OK);
    lp_safetensors_close(w);
    lp_comparison c;
    lp_status st = compare(&c, s, folder, err);
    unlink(path);
    free(path), free(zeros), free(ones);
    return st;
}

static void hostile_caches(void)
{
    lp_series s;
    lp_error err = {0};
    make_run(3, 1);
    open_series(&s);
    uint16_t windows = (uint16_t)s.n_windows, places = (uint16_t)s.longest;
    const uint16_t good[][3] = {{0, 0, 3}, {0, 0, 9}, {0, 1, 3}}, falls[][3] = {{0, 1, 3}, {0, 0, 3}},
                   twice[][3] = {{0, 0, 3}, {0, 0, 3}}, late[][3] = {{windows, 0, 3}}, wide[][3] = {{0, places, 3}},
                   feature[][3] = {{0, 0, 200}};
    CHECK(try_cache(&s, good, 3, 3, "0_199.safetensors", &err) == LP_OK); /* that it disagrees is no failure */
    CHECK(try_cache(&s, falls, 2, 2, "0_199.safetensors", &err) == LP_E_FORMAT && strstr(err.text, "do not rise"));
    CHECK(try_cache(&s, twice, 2, 2, "0_199.safetensors", &err) == LP_E_FORMAT && strstr(err.text, "do not rise"));
    CHECK(try_cache(&s, late, 1, 1, "0_199.safetensors", &err) == LP_E_FORMAT &&
          strstr(err.text, "outside the tokens"));
    CHECK(try_cache(&s, wide, 1, 1, "0_199.safetensors", &err) == LP_E_FORMAT);
    CHECK(try_cache(&s, feature, 1, 1, "0_199.safetensors", &err) == LP_E_FORMAT);
    CHECK(try_cache(&s, good, 3, 2, "0_199.safetensors", &err) == LP_E_FORMAT && strstr(err.text, "activations [n]"));
    CHECK(try_cache(&s, good, 3, 3, "0_198.safetensors", &err) == LP_E_SHAPE);
    CHECK(try_cache(&s, good, 3, 3, "1_199.safetensors", &err) == LP_E_SHAPE);
    CHECK(try_cache(&s, good, 3, 3, "0_99999999999.safetensors", &err) == LP_E_SHAPE);
    lp_comparison c;
    CHECK(compare(&c, &s, folder, &err) == LP_E_NOT_FOUND);
    CHECK(compare(&c, &s, beside("none.npz"), &err) != LP_OK);
    CHECK(compare(&c, &s, beside("shard-000000.h5"), &err) == LP_E_UNSUPPORTED);
    lp_series_close(&s);
    made_remove(folder);
}

int main(void)
{
    round_trip();
    refused();
    hostile_caches();
    return check_done();
}
