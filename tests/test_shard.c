/* Shards: what goes in comes out to the bit, in odd sizes too; equal rows make equal bytes; what must not go in does
 * not.
 *
 * test_shard --make FOLDER BITS writes a shard and beside it, raw, what must be in it: for check_shard.py.
 */
#include "tests/store_made.h"

#include <sys/stat.h>

static char folder[64];

static char *path_of(const char *name)
{
    return made_path(folder, name);
}

static void clear(void)
{
    made_clear(folder);
}

static lp_shard *opened(const char *name)
{
    lp_shard *s = NULL;
    lp_error err = {0};
    if (lp_shard_open(&s, path_of(name), LP_SHARD_HASHED, NULL, &err) != LP_OK) fprintf(stderr, "%s\n", err.text);
    CHECK(s != NULL);
    return s;
}

/* ---- what goes in comes out -------------------------------------------------------------------------------------- */

static void check_tokens(const lp_shard *s, const made *m)
{
    size_t n = (size_t)m->spec.n_tokens;
    int *id = made_array(n, 4), *doc = made_array(n, 4), *pos = made_array(n, 4);
    uint8_t *excluded = made_array(n, 1);
    float *logprob = made_array(n, 4);
    lp_shard_tokens t = {id, doc, pos, excluded, m->spec.has_logprob ? logprob : NULL};
    CHECK(lp_shard_read_tokens(s, 0, (int)n, &t, NULL) == LP_OK);
    CHECK(memcmp(id, m->id, n * 4) == 0 && memcmp(doc, m->doc, n * 4) == 0 && memcmp(pos, m->pos, n * 4) == 0);
    CHECK(memcmp(excluded, m->excluded, n) == 0);
    if (t.logprob) CHECK_SAME(logprob, m->logprob, n);
    if (n > 3) {
        lp_shard_tokens some = {.pos = pos};
        CHECK(lp_shard_read_tokens(s, 2, (int)n - 3, &some, NULL) == LP_OK);
        CHECK(memcmp(pos, m->pos + 2, (n - 3) * 4) == 0);
    }
    lp_shard_postings p = {0};
    size_t total = 0;
    int step = m->spec.vocab > 1000 ? 331 : 1;
    for (int v = 0; v < m->spec.vocab; v += step) {
        CHECK(lp_shard_read_token(&p, s, v, NULL) == LP_OK);
        for (size_t i = 0; i < p.n; i++) CHECK(m->id[p.row[i]] == v && (i == 0 || p.row[i] > p.row[i - 1]));
        total += p.n;
    }
    if (step == 1) CHECK(total == n);
    lp_shard_postings_free(&p);
    free(id), free(doc), free(pos), free(excluded), free(logprob);
}

static void check_documents(const lp_shard *s, const made *m)
{
    CHECK(lp_shard_get_head(s)->n_documents == m->spec.n_documents);
    for (int i = 0; i < m->spec.n_documents; i++) {
        const lp_shard_document *want = &m->documents[i];
        lp_shard_document d;
        CHECK(lp_shard_read_document(&d, s, i, NULL) == LP_OK);
        CHECK(d.id == want->id && d.first_token == want->first_token && d.is_utf8 == want->is_utf8);
        CHECK(d.key_bytes == want->key_bytes && d.key && memcmp(d.key, want->key, d.key_bytes) == 0);
        CHECK(d.text_bytes == want->text_bytes && d.text && memcmp(d.text, want->text, d.text_bytes) == 0);
        CHECK(strlen(d.hash) == 32);
        for (int r = 0; r < m->spec.n_tokens; r++)
            CHECK((m->doc[r] == i) == (r >= d.first_row && r < d.first_row + d.n_rows));
        lp_shard_document_free(&d);
    }
}

static void check_stats(const lp_shard *s, const made *m, int sae, int f)
{
    const lp_features *a = &m->saes[sae].features;
    int64_t n_active = 0, want = 0;
    int n_docs = 0, docs = 0, last = -1, fewer = 0;
    float max = 0, most = 0;
    double sum = 0, sumsq = 0, total = 0, squares = 0;
    uint32_t hist[LP_SHARD_BINS], bins[LP_SHARD_BINS] = {0};
    lp_shard_stats out = {&n_active, &n_docs, &max, &sum, &sumsq, hist};
    CHECK(lp_shard_read_stats(s, sae, f, 1, &out, NULL) == LP_OK);
    for (int r = 0; r < a->n_rows; r++) {
        float v = lp_features_get(a, r, f);
        if (v <= 0) continue;
        if (m->excluded[r]) {
            fewer = 1;
            continue;
        }
        want++, docs += m->doc[r] != last, last = m->doc[r];
        most = v > most ? v : most;
        total += (double)v, squares += (double)v * (double)v;
        int bin = (int)floor(4 * log2((double)v)) + 16;
        bins[bin < 0 ? 0 : bin > 63 ? 63 : bin]++;
    }
    (void)fewer;
    CHECK(n_active == want && n_docs == docs && max == most && sum == total && sumsq == squares);
    CHECK(memcmp(hist, bins, sizeof hist) == 0);
}

static void check_sae(const lp_shard *s, const made *m, int sae)
{
    const made_sae *x = &m->saes[sae];
    const lp_shard_sae *about = &lp_shard_get_head(s)->saes[sae], *want = &m->about[sae];
    int n = m->spec.n_tokens, w = want->d_sae;
    size_t z = x->features.start[n];
    CHECK_STR(about->name, want->name);
    CHECK_STR(about->hash, want->hash);
    CHECK(memcmp(&about->spot, &want->spot, sizeof want->spot) == 0);
    CHECK(about->d_sae == w && about->d_out == want->d_out && about->n_values == z && about->has_sum == want->has_sum);
    CHECK(lp_shard_find_sae(s, want->name) == sae && lp_shard_find_sae(s, want->hash) == sae);

    lp_features f = {0};
    CHECK(lp_shard_read_rows(&f, s, sae, 0, n, NULL) == LP_OK);
    CHECK(f.n_rows == n && memcmp(f.start, x->features.start, ((size_t)n + 1) * sizeof *f.start) == 0);
    CHECK(z == 0 || memcmp(f.index, x->features.index, z * sizeof *f.index) == 0);
    if (z) CHECK_SAME(f.value, x->features.value, z);
    if (n > 2) {
        CHECK(lp_shard_read_rows(&f, s, sae, n / 2, 2, NULL) == LP_OK);
        size_t from = x->features.start[n / 2], k = x->features.start[n / 2 + 2] - from;
        CHECK(f.start[0] == 0 && f.start[2] == k && (!k || memcmp(f.index, x->features.index + from, k * 4) == 0));
    }
    lp_features_free(&f);

    lp_shard_postings p = {0};
    size_t total = 0, never = 0;
    for (int i = 0; i<w; i += w> 5000 ? 97 : 1) {
        CHECK(lp_shard_read_feature(&p, s, sae, i, NULL) == LP_OK);
        for (size_t k = 0; k < p.n; k++) CHECK(lp_features_get(&x->features, p.row[k], i) == p.value[k]);
        total += p.n, never += p.n == 0;
        if (i % (w > 5000 ? 77 : 7) == 0) check_stats(s, m, sae, i);
    }
    if (w <= 5000) CHECK(total == z);
    lp_features many = {0};
    for (int first = 0, most = 1; first < w; first += many.n_rows, most = most * 3 % 1000 + 1) {
        CHECK(lp_shard_read_by_feature(&many, s, sae, first, w - first, (size_t)most, NULL) == LP_OK);
        if (many.n_rows < 1) break;
        CHECK(many.n_rows == 1 || many.start[many.n_rows] <= (size_t)most);
        for (int i = 0; i < many.n_rows && w <= 5000; i++)
            for (size_t at = many.start[i]; at < many.start[i + 1]; at++, total--)
                CHECK(lp_features_get(&x->features, many.index[at], first + i) == many.value[at]);
    }
    if (w <= 5000) CHECK(total == 0);
    lp_features_free(&many);
    if (w > 10) CHECK(never > 0);
    lp_shard_postings_free(&p);

    float *sqerr = made_array((size_t)n, 4), *norm2 = made_array((size_t)n, 4);
    double sum[MADE_D_OUT], by_hand[MADE_D_OUT] = {0};
    CHECK(lp_shard_read_recon(s, sae, 0, n, sqerr, norm2, NULL) == LP_OK);
    CHECK_SAME(sqerr, x->sqerr, (size_t)n);
    CHECK_SAME(norm2, x->norm2, (size_t)n);
    for (int r = 0; r < n; r++)
        for (int i = 0; i < MADE_D_OUT && !m->excluded[r]; i++) by_hand[i] += (double)x->target[r * MADE_D_OUT + i];
    if (want->has_sum) CHECK(lp_shard_read_sum(s, sae, sum, NULL) == LP_OK && memcmp(sum, by_hand, sizeof sum) == 0);
    if (!want->has_sum) CHECK(lp_shard_read_sum(s, sae, sum, NULL) == LP_E_NOT_FOUND);
    free(sqerr), free(norm2);
}

static void check_dense(const lp_shard *s, const made *m)
{
    size_t n = (size_t)m->spec.n_tokens * MADE_WIDTH;
    float *x = made_array(n, 4);
    for (int i = 0; i < m->head.n_dense; i++) {
        const lp_shard_dense *d = &m->dense_about[i];
        CHECK(lp_shard_find_dense(s, d->site, d->layer) == i && lp_shard_get_head(s)->dense[i].type == d->type);
        CHECK(lp_shard_read_dense(s, i, 0, m->spec.n_tokens, x, NULL) == LP_OK);
        for (size_t k = 0; k < n; k++) {
            float want = m->dense[i][k];
            if (d->type == LP_F16) want = lp_f16_to_f32(lp_f32_to_f16(want));
            if (d->type == LP_BF16) want = lp_bf16_to_f32(lp_f32_to_bf16(want));
            CHECK(x[k] == want);
        }
    }
    free(x);
}

static void check_all(const char *name, const made *m)
{
    lp_shard *s = opened(name);
    if (!s) return;
    const lp_shard_head *h = lp_shard_get_head(s);
    CHECK_STR(h->run, m->head.run);
    CHECK_STR(h->plan, m->head.plan);
    CHECK_STR(h->model_hash, m->head.model_hash);
    CHECK_STR(h->tokenizer_hash, m->head.tokenizer_hash);
    CHECK_STR(h->provenance, m->head.provenance);
    CHECK(h->number == m->head.number && h->token_base == m->head.token_base && h->vocab == m->head.vocab);
    CHECK(h->n_tokens == m->spec.n_tokens && h->has_logprob == m->head.has_logprob);
    CHECK(h->n_saes == m->head.n_saes && h->n_dense == m->head.n_dense);
    check_tokens(s, m);
    check_documents(s, m);
    for (int i = 0; i < h->n_saes; i++) check_sae(s, m, i);
    check_dense(s, m);
    lp_shard_close(s);
}

static void test_round_trip(void)
{
    static const made_spec specs[] = {
        {.n_tokens = 700,
         .n_documents = 12,
         .vocab = 90,
         .n_saes = 7,
         .d_sae = {64, 200, 33, 1, 16, 300, 2048},
         .has_logprob = true,
         .has_dense = true,
         .token_base = 1LL << 40,
         .number = 999999},
        {.n_tokens = 0, .n_documents = 0, .vocab = 1, .n_saes = 1, .d_sae = {8}},
        {.n_tokens = 0, .n_documents = 4, .vocab = 3, .n_saes = 1, .d_sae = {1}, .number = 1},
        {.n_tokens = 1, .n_documents = 1, .vocab = 3, .n_saes = 2, .d_sae = {1, 70001}, .has_dense = true, .number = 2},
        {.n_tokens = 50,
         .n_documents = 6,
         .vocab = 300000,
         .n_saes = 1,
         .d_sae = {100},
         .never_fires = true,
         .number = 3},
        {.n_tokens = 90, .n_documents = 2, .vocab = 20, .number = 4, .has_dense = true},
        {.n_tokens = 9000,
         .n_documents = 40,
         .vocab = 20,
         .n_saes = 2,
         .d_sae = {70001, 50},
         .l0 = 20,
         .number = 5,
         .no_target = true},
    };
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        made *m = made_new(&specs[i]);
        lp_shard_sealed sealed = {.name = ""};
        char hash[33];
        lp_error err = {0};
        made_write(m, folder, 64, &sealed);
        CHECK(lp_file_hash(hash, path_of(sealed.name), NULL, NULL) == LP_OK && strcmp(hash, sealed.hash) == 0);
        CHECK(lp_shard_side_hash(hash, path_of(sealed.name), NULL) == LP_OK && strcmp(hash, sealed.hash) == 0);
        struct stat info;
        CHECK(stat(path_of(sealed.name), &info) == 0 && (info.st_mode & 0777) == 0444);
        CHECK((uint64_t)info.st_size == sealed.bytes);
        lp_status st = lp_shard_verify(path_of(sealed.name), NULL, NULL, &err);
        if (st != LP_OK) fprintf(stderr, "%s\n", err.text);
        CHECK(st == LP_OK);
        check_all(sealed.name, m);
        made_free(m);
    }
    clear();
}

/* ---- the same rows, the same bytes ------------------------------------------------------------------------------- */

static void test_same_bytes(void)
{
    const made_spec spec = {.n_tokens = 5000,
                            .n_documents = 30,
                            .vocab = 90,
                            .n_saes = 3,
                            .d_sae = {64, 4000, 900},
                            .has_dense = true,
                            .l0 = 40};
    static const int blocks[] = {1, 7, 64, 513, 5000};
    made *m = made_new(&spec);
    char first[33] = "";
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        lp_shard_sealed sealed;
        made_write(m, folder, blocks[i], &sealed);
        if (!i) memcpy(first, sealed.hash, 33);
        CHECK_STR(sealed.hash, first);
        clear();
    }
    m->head.n_dense = 0;
    m->head.n_tokens = 0; /* not said beforehand: the file is the same */
    lp_shard_sealed a, b;
    made_write(m, folder, 64, &a);
    clear();
    m->head.n_tokens = 5000;
    sleep(1); /* into another second: no clock is in the file */
    made_write(m, folder, 64, &b);
    CHECK_STR(a.hash, b.hash);
    clear();
    made_free(m);
}

/* ---- rounded values ---------------------------------------------------------------------------------------------- */

static void test_rounding(void)
{
    const made_spec spec = {
        .n_tokens = 400, .n_documents = 3, .vocab = 9, .n_saes = 1, .d_sae = {300}, .value_bits = 10};
    made *m = made_new(&spec);
    made_sae *x = &m->saes[0];
    size_t z = x->features.start[400], at_threshold = 0, ties = 0;
    x->features.value[0] = 3.40282347e38f; /* no infinity */
    x->features.value[1] = 1.00048828125f; /* 1 + 2^-11: a tie, to the even 1, but for its threshold */
    x->threshold[x->features.index[1]] = 0.5f;
    x->features.value[2] = 1.00146484375f; /* 1 + 3 2^-11: a tie, to the even 1 + 2^-9 */
    x->threshold[x->features.index[2]] = 0.5f;
    lp_shard_sealed sealed;
    made_write(m, folder, 9, &sealed);
    lp_shard *s = opened(sealed.name);
    lp_features f = {0};
    CHECK(lp_shard_get_head(s)->value_bits == 10);
    CHECK(lp_shard_read_rows(&f, s, 0, 0, 400, NULL) == LP_OK && f.start[400] == z);
    CHECK(f.value[1] == 1.0f && f.value[2] == 1.001953125f && isfinite(f.value[0]));
    for (size_t i = 3; i < z; i++) {
        float was = x->features.value[i], is = f.value[i], t = x->threshold[f.index[i]];
        uint32_t bits;
        memcpy(&bits, &is, 4);
        CHECK((bits & 0x1fff) == 0 && is > t);
        double off = fabs((double)is / (double)was - 1);
        CHECK(off <= 0x1p-10);
        at_threshold += off > 0x1p-11, ties += off == 0;
    }
    CHECK(at_threshold > 0); /* some were rounded away from their threshold, and no other was that far off */
    CHECK(lp_shard_verify(path_of(sealed.name), NULL, NULL, NULL) == LP_OK);
    lp_features_free(&f);
    lp_shard_close(s);
    made_free(m);
    clear();
    static const float v[] = {0x1p-4f, 0x1p-5f, 1, 0x1.fffffep-1f, 1.1892071f, 1.1892072f, 4096, 1e-40f, 3e38f, 2};
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        double bin = floor(4 * log2((double)v[i])) + 16;
        CHECK(lp_shard_bin(v[i]) == (bin < 0 ? 0 : bin > 63 ? 63 : (int)bin));
    }
}

/* ---- what must not go in ----------------------------------------------------------------------------------------- */

static void refused(made *m, const char *says)
{
    lp_error err = {0};
    lp_status st = made_try(m, folder, 10, NULL, &err);
    bool ok = st == LP_E_RANGE && strstr(err.text, says) && !strchr(err.text, '\n');
    if (!ok) fprintf(stderr, "status %d: \"%s\", expected \"%s\"\n", (int)st, err.text, says);
    CHECK(ok && made_n_files(folder) == 0);
}

static void test_bad_rows(void)
{
    const made_spec spec = {
        .n_tokens = 40, .n_documents = 3, .vocab = 9, .n_saes = 2, .d_sae = {30, 50}, .has_dense = true};
    made *m = made_new(&spec);
#define WITH(what, value, says)                                                                                        \
    do {                                                                                                               \
        __typeof__(what) was = (what);                                                                                 \
        (what) = (value);                                                                                              \
        refused(m, says);                                                                                              \
        (what) = was;                                                                                                  \
    } while (0)
    lp_features *f = &m->saes[1].features;
    size_t k = f->start[23]; /* the first of row 23 */
    WITH(m->id[25], 9, "row 25: token 9; the vocabulary has 9");
    WITH(m->id[25], -1, "row 25: token -1");
    WITH(m->doc[39], 0, "row 39: document 0 after");
    WITH(m->doc[39], 3, "row 39: document 3 after");
    WITH(m->pos[3], -2, "row 3: position -2");
    WITH(m->excluded[3], 4, "row 3: excluded for 4");
    WITH(f->index[k], 50, "row 23: feature 50 after -1, of 50");
    WITH(f->index[k + 1], f->index[k], "row 23: feature");
    WITH(f->value[k], NAN, "row 23, feature");
    WITH(f->value[k], INFINITY, "the value is inf");
    WITH(f->value[k], 0, "layers/0/mlp_normed/sae/layer_0.width_51.canonical, row 23, feature");
    WITH(m->saes[0].sqerr[7], NAN, "row 7: sqerr nan");
    WITH(m->dense[0][5 * MADE_WIDTH + 3], NAN, "layers/0/resid_post/dense, row 5, component 3: nan");
    WITH(m->dense[1][5 * MADE_WIDTH + 3], 65520, "65504");
    WITH(m->dense[2][5 * MADE_WIDTH + 3], 3.4028235e38f, "model/final_in/dense, row 5");
    WITH(m->head.run, "x", "run's hash");
    WITH(m->head.plan, "x", "hash");
    WITH(m->head.number, 1000000, "999999");
    WITH(m->head.value_bits, 24, "24 bits");
    WITH(m->head.n_tokens, 41, "40 tokens, the plan has 41");
    WITH(m->head.n_tokens, 39, "the plan has 39");
    WITH(m->head.n_tokens, 0, "beforehand");
    WITH(m->head.vocab, 0, "vocabulary");
    WITH(m->about[1].hash, "ABC", "hex digits");
    WITH(m->about[1].name, "", "needs a name");
    WITH(m->about[1].name, "a\nb", "control character");
    WITH(m->about[1].d_sae, 0, "0 features");
    WITH(m->about[1].spot.site, LP_N_SITES, "site");
    WITH(m->about[1], m->about[0], "two SAEs would be");
    WITH(m->dense_about[1].layer, LP_WHOLE_MODEL, "dense site 1");
    WITH(m->dense_about[1], m->dense_about[0], "twice");
    WITH(m->dense_about[1].type, LP_Q8_0, "f32, f16 or bf16");
    WITH(m->documents[1].hash[0], 'x', "hex digits");
#undef WITH
    lp_error err = {0};
    CHECK(made_try(m, "/nowhere/at/all", 10, NULL, &err) == LP_E_IO && strstr(err.text, "/nowhere/at/all"));
    lp_shard_writer *w = NULL;
    CHECK(lp_shard_begin(&w, folder, &m->head, UINT64_MAX / 2, NULL, &err) == LP_E_IO && !w);
    CHECK(strstr(err.text, "a shard wants") != NULL && made_n_files(folder) == 0);
    made_free(m);
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static void test_ranges(void)
{
    made_spec spec = {.n_tokens = 40, .n_documents = 3, .vocab = 9, .n_saes = 1, .d_sae = {30}, .has_dense = true};
    made *m = made_new(&spec);
    lp_shard_sealed sealed = {.name = ""};
    made_write(m, folder, 5, &sealed);
    lp_shard *s = opened(sealed.name);
    int buf[64];
    float x[64 * MADE_WIDTH];
    lp_shard_tokens t = {.id = buf}, p = {.logprob = x};
    lp_shard_postings rows = {0};
    lp_features f = {0};
    lp_shard_document d;
    lp_shard_stats st = {.max = x};
    lp_error err = {0};
    CHECK(lp_shard_read_tokens(s, 39, 2, &t, &err) == LP_E_RANGE);
    CHECK(strstr(err.text, "shard-000000.h5: tokens 39 to 40 of 40") != NULL);
    CHECK(lp_shard_read_tokens(s, -1, 2, &t, NULL) == LP_E_RANGE);
    CHECK(lp_shard_read_tokens(s, 40, 0, &t, NULL) == LP_OK);
    CHECK(lp_shard_read_tokens(s, 0, 1, &p, NULL) == LP_E_NOT_FOUND);
    CHECK(lp_shard_read_token(&rows, s, 9, NULL) == LP_E_RANGE);
    CHECK(lp_shard_read_feature(&rows, s, 0, 30, NULL) == LP_E_RANGE);
    CHECK(lp_shard_read_feature(&rows, s, 1, 0, NULL) == LP_E_RANGE);
    CHECK(lp_shard_read_rows(&f, s, -1, 0, 1, NULL) == LP_E_RANGE);
    CHECK(lp_shard_read_rows(&f, s, 0, 40, 1, NULL) == LP_E_RANGE);
    CHECK(lp_shard_read_stats(s, 0, 29, 2, &st, NULL) == LP_E_RANGE);
    CHECK(lp_shard_read_recon(s, 0, 0, 41, x, NULL, NULL) == LP_E_RANGE);
    CHECK(lp_shard_read_dense(s, 3, 0, 1, x, NULL) == LP_E_RANGE);
    CHECK(lp_shard_read_dense(s, 0, 0, 41, x, NULL) == LP_E_RANGE);
    CHECK(lp_shard_read_document(&d, s, 3, NULL) == LP_E_RANGE && !d.memory);
    CHECK(lp_shard_find_sae(s, "other") == -1 && lp_shard_find_dense(s, LP_Z, 0) == -1);
    lp_shard_close(s);
    lp_shard_postings_free(&rows), lp_features_free(&f);
    made_free(m);
    clear();
}

/* ---- for the oracle ---------------------------------------------------------------------------------------------- */

static void dump(const char *name, const void *p, size_t bytes)
{
    FILE *f = fopen(path_of(name), "wb");
    if (!f || fwrite(p, 1, bytes, f) != bytes) exit(1);
    fclose(f);
}

static void dump_doc(const lp_shard_document *d, int i)
{
    char name[32];
    snprintf(name, sizeof name, "text.%d", i);
    dump(name, d->text, d->text_bytes);
}

static int make(const char *where, int bits)
{
    const made_spec spec = {.n_tokens = 20000,
                            .n_documents = 60,
                            .vocab = 500,
                            .n_saes = 3,
                            .d_sae = {700, 70001, 64},
                            .l0 = 25,
                            .has_logprob = true,
                            .has_dense = true,
                            .value_bits = bits,
                            .token_base = 7};
    made *m = made_new(&spec);
    size_t n = 20000;
    snprintf(folder, sizeof folder, "%s", where);
    made_write(m, folder, 128, NULL);
    dump("id.i4", m->id, n * 4), dump("doc.i4", m->doc, n * 4), dump("pos.i4", m->pos, n * 4);
    dump("excluded.u1", m->excluded, n), dump("logprob.f4", m->logprob, n * 4);
    for (int i = 0; i < 3; i++) {
        const made_sae *x = &m->saes[i];
        char name[32];
        const struct {
            const char *what;
            const void *p;
            size_t bytes;
        } parts[] = {{"start.i8", x->features.start, (n + 1) * 8},
                     {"index.i4", x->features.index, x->features.start[n] * 4},
                     {"value.f4", x->features.value, x->features.start[n] * 4},
                     {"sqerr.f4", x->sqerr, n * 4},
                     {"norm2.f4", x->norm2, n * 4},
                     {"target.f4", x->target, n * MADE_D_OUT * 4},
                     {"threshold.f4", x->threshold, (size_t)spec.d_sae[i] * 4},
                     {"dense.f4", m->dense[i], n * MADE_WIDTH * 4}};
        for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
            snprintf(name, sizeof name, "%d.%s", i, parts[k].what);
            dump(name, parts[k].p, parts[k].bytes);
        }
    }
    for (int i = 0; i < 60; i++) dump_doc(&m->documents[i], i);
    made_free(m);
    return check_failed;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--make") == 0) return make(argv[2], atoi(argv[3]));
    made_folder(folder);
    test_round_trip();
    test_same_bytes();
    test_rounding();
    test_bad_rows();
    test_ranges();
    made_remove(folder);
    return check_done();
}
