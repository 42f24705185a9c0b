/* SAEs on a running model: what the reader keeps is what encoding the tape gives, bit for bit, however the tokens came; and
 * the meters are the formulas of metrics.h, restated in double.  Runs on the embedded model and its SAEs. */
#include "sae/check.h"
#include "sae/names.h"
#include "sae/reader.h"

#include "core/trace.h"
#include "tests/models.h"

enum { TOKENS = 200, MAX_SAES = 16 };

static lp_model *model;
static lp_sae *saes[MAX_SAES];
static int n_saes;
static int ids[TOKENS];

static const lp_sae *const *all(void)
{
    return (const lp_sae *const *)saes;
}

static void open_all(void)
{
    lp_sae_place *list = NULL;
    size_t n = 0;
    lp_error err = {0};
    if (lp_model_open(&model, LP_DATA_DIR "/base", NULL, NULL, &err) != LP_OK ||
        lp_sae_list(&list, &n, LP_DATA_DIR "/saes", &err) != LP_OK) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    CHECK(n == 9);
    for (size_t i = 0; i < n && i < MAX_SAES; i++)
        if (lp_sae_open(&saes[i], list[i].path, NULL, NULL, &err) == LP_OK) n_saes++;
    CHECK(n_saes == (int)n);
    lp_sae_list_free(list, n);
}

/* Text, since on noise few features fire: the head of the check text. */
static void take_tokens(void)
{
    char *text = NULL;
    size_t n = 0;
    lp_tokens t = {0};
    CHECK(lp_read_file(&text, &n, LP_DATA_DIR "/check.txt", 1 << 20, NULL) == LP_OK);
    CHECK(lp_tokenizer_encode(model->tokenizer, text, n, LP_SPECIALS_LITERAL, &t, NULL) == LP_OK);
    CHECK(t.n >= TOKENS);
    ids[0] = model->config.bos;
    for (int i = 1; i < TOKENS && (size_t)i <= t.n; i++) ids[i] = t.ids[i - 1];
    lp_tokens_free(&t);
    free(text);
}

static bool same_features(const lp_features *a, const lp_features *b)
{
    size_t n = a->n_rows ? a->start[a->n_rows] : 0;
    return a->n_rows == b->n_rows && memcmp(a->start, b->start, (size_t)(a->n_rows + 1) * sizeof *a->start) == 0 &&
           memcmp(a->index, b->index, n * sizeof *a->index) == 0 &&
           memcmp(a->value, b->value, n * sizeof *a->value) == 0;
}

/* The rows of a site, from a tape. */
static float *rows_of(lp_session *s, lp_site site, int layer, int width)
{
    float *x = lp_calloc(TOKENS, (size_t)width * sizeof *x);
    lp_tape tape = {.x = x, .n_layers = 1, .n_pos = TOKENS, .width = width};
    lp_error err = {0};
    int handle = lp_session_hook(s, lp_tap(site, layer, &tape), &err);
    CHECK(lp_session_rewind(s, 0, NULL) == LP_OK && lp_session_eval(s, ids, TOKENS, &err) == LP_OK);
    lp_session_unhook(s, handle);
    return x;
}

/* ---- the same bits ----------------------------------------------------------------------------------------------- */

static void as_the_tape(const lp_features *kept)
{
    lp_session *s = new_session(model, NULL, NULL);
    for (int i = 0; i < n_saes; i++) {
        float *x = rows_of(s, saes[i]->spot.site, saes[i]->spot.layer, saes[i]->d_in);
        lp_encoder *e = NULL;
        lp_features f = {0};
        CHECK(lp_encoder_new(&e, saes[i], LP_EXACT, NULL, NULL) == LP_OK && lp_encode(&f, e, x, TOKENS, NULL) == LP_OK);
        CHECK(same_features(&f, &kept[i]));
        CHECK(f.start[TOKENS] > TOKENS); /* something fires */
        lp_features_free(&f);
        lp_encoder_free(e);
        free(x);
    }
    lp_session_free(s);
}

static void copy(lp_features *to, const lp_features *f)
{
    size_t n = f->start[f->n_rows];
    *to = (lp_features){.n_rows = f->n_rows};
    to->start = malloc((size_t)(f->n_rows + 1) * sizeof *to->start);
    to->index = malloc((n + 1) * sizeof *to->index);
    to->value = malloc((n + 1) * sizeof *to->value);
    if (!to->start || !to->index || !to->value) exit(1);
    memcpy(to->start, f->start, (size_t)(f->n_rows + 1) * sizeof *to->start);
    memcpy(to->index, f->index, n * sizeof *to->index);
    memcpy(to->value, f->value, n * sizeof *to->value);
}

/* In one go; in pieces and waves of three, on other numbers of threads; with a rewind in the middle. */
static void however_it_comes(lp_features *kept)
{
    for (int way = 0; way < 4; way++) {
        lp_pool *pool = NULL;
        CHECK(lp_pool_new(&pool, way == 0 ? 1 : 2 * way + 1, NULL) == LP_OK);
        lp_env env = {.pool = pool};
        lp_session *s = new_session(model, &(lp_session_options){.wave = way == 1 ? 3 : 0}, &env);
        lp_reader *r = NULL;
        lp_error err = {0};
        CHECK(lp_reader_new(&r, s, all(), n_saes, NULL, &err) == LP_OK);
        if (!r) fprintf(stderr, "%s\n", err.text), exit(1);
        int cut = way == 2 ? 1 : TOKENS;
        for (int at = 0; at < TOKENS; at += cut) CHECK(lp_session_eval(s, ids + at, (size_t)cut, &err) == LP_OK);
        if (way == 3) {
            int other[40];
            some_tokens(other, 40, model->config.vocab, 9);
            CHECK(lp_session_rewind(s, 90, NULL) == LP_OK && lp_session_eval(s, other, 40, &err) == LP_OK);
            CHECK(lp_reader_features(r, 0)->n_rows == 130);
            CHECK(lp_session_rewind(s, 77, NULL) == LP_OK && lp_session_eval(s, ids + 77, TOKENS - 77, &err) == LP_OK);
        }
        for (int i = 0; i < n_saes; i++) {
            if (way == 0) copy(&kept[i], lp_reader_features(r, i));
            CHECK(same_features(lp_reader_features(r, i), &kept[i]));
        }
        CHECK(lp_reader_first(r) == 0);
        lp_reader_free(r);
        lp_session_free(s);
        lp_pool_free(pool);
    }
}

/* Readers watch: the logits are those of a session nobody watches. */
static void watching_changes_nothing(void)
{
    lp_session *a = new_session(model, NULL, NULL), *b = new_session(model, NULL, NULL);
    lp_reader *r = NULL;
    lp_meter meters[MAX_SAES];
    for (int i = 0; i < n_saes; i++) CHECK(lp_meter_new(&meters[i], saes[i], NULL) == LP_OK);
    CHECK(lp_reader_new(&r, a, all(), n_saes, &(lp_reader_options){.meters = meters}, NULL) == LP_OK);
    CHECK(lp_session_eval(a, ids, TOKENS, NULL) == LP_OK && lp_session_eval(b, ids, TOKENS, NULL) == LP_OK);
    CHECK_SAME(lp_session_logits(a), lp_session_logits(b), (size_t)model->config.vocab);
    CHECK(lp_session_edited_from(a) == -1);
    lp_reader_free(r);
    for (int i = 0; i < n_saes; i++) lp_meter_free(&meters[i]);
    lp_session_free(a), lp_session_free(b);
}

/* A reader that comes late starts where it came. */
static void from_the_middle(const lp_features *kept)
{
    lp_session *s = new_session(model, NULL, NULL);
    lp_reader *r = NULL;
    CHECK(lp_session_eval(s, ids, 50, NULL) == LP_OK);
    CHECK(lp_reader_new(&r, s, all(), 1, NULL, NULL) == LP_OK);
    CHECK(lp_session_eval(s, ids + 50, 100, NULL) == LP_OK);
    const lp_features *f = lp_reader_features(r, 0);
    CHECK(lp_reader_first(r) == 50 && f->n_rows == 100);
    for (int row = 0; row < 100; row++)
        for (size_t at = f->start[row]; at < f->start[row + 1]; at++)
            CHECK(lp_features_get(&kept[0], 50 + row, f->index[at]) == f->value[at]);
    lp_reader_free(r);
    lp_session_free(s);
}

/* ---- meters ------------------------------------------------------------------------------------------------------ */

static void metered(int i)
{
    const lp_sae *sae = saes[i];
    size_t width = (size_t)sae->d_out;
    lp_session *s = new_session(model, NULL, NULL);
    float *x = rows_of(s, sae->spot.site, sae->spot.layer, sae->d_in);
    float *y = rows_of(s, sae->spot.site_out, sae->spot.layer_out, sae->d_out), *made = lp_calloc(TOKENS, width * 4);
    lp_encoder *e = NULL;
    lp_features f = {0};
    lp_meter m;
    lp_reader *r = NULL;
    uint8_t leave[TOKENS] = {1, [5] = 1, [TOKENS - 1] = 1};
    CHECK(lp_encoder_new(&e, sae, LP_EXACT, NULL, NULL) == LP_OK && lp_encode(&f, e, x, TOKENS, NULL) == LP_OK);
    lp_decode(made, e, &f, x);
    CHECK(lp_meter_new(&m, sae, NULL) == LP_OK);
    lp_reader_options o = {.meters = &m, .leave = leave, .n_leave = TOKENS, .keeps_nothing = 1};
    CHECK(lp_session_rewind(s, 0, NULL) == LP_OK && lp_reader_new(&r, s, &all()[i], 1, &o, NULL) == LP_OK);
    for (int at = 0; at < TOKENS; at += 50) CHECK(lp_session_eval(s, ids + at, 50, NULL) == LP_OK);
    CHECK(lp_reader_features(r, 0)->n_rows == 0);
    lp_quality q = lp_meter_read(&m);

    double n = 0, l0 = 0, mean[512] = {0}, spread = 0, errors = 0, cosine = 0;
    for (int p = 0; p < TOKENS; p++) {
        if (leave[p]) continue;
        n++, l0 += (double)(f.start[p + 1] - f.start[p]);
        for (size_t j = 0; j < width; j++) mean[j] += (double)y[(size_t)p * width + j];
    }
    for (int p = 0; p < TOKENS; p++) {
        double dot = 0, a = 0, b = 0;
        if (leave[p]) continue;
        for (size_t j = 0; j < width; j++) {
            double v = (double)y[(size_t)p * width + j], w = (double)made[(size_t)p * width + j];
            spread += (v - mean[j] / n) * (v - mean[j] / n);
            errors += (v - w) * (v - w);
            dot += v * w, a += v * v, b += w * w;
        }
        cosine += dot / sqrt(a * b) / n;
    }
    CHECK(q.rows == TOKENS - 3);
    CHECK_NEAR(q.l0, l0 / n, 1e-9);
    CHECK_NEAR(q.fvu, errors / spread, 1e-9); /* one pass against two: the difference is double's noise */
    CHECK_NEAR(q.cosine, cosine, 1e-9);
    CHECK(q.fvu_low < q.fvu && q.fvu < q.fvu_high && q.l0_low < q.l0 && q.l0 < q.l0_high);
    lp_reader_free(r);
    lp_meter_free(&m);
    lp_features_free(&f);
    lp_encoder_free(e);
    free(x), free(y), free(made);
    lp_session_free(s);
}

static void no_rows(void)
{
    lp_meter m;
    CHECK(lp_meter_new(&m, saes[0], NULL) == LP_OK);
    lp_quality q = lp_meter_read(&m);
    CHECK(q.rows == 0 && isnan(q.l0) && isnan(q.fvu));
    lp_meter_free(&m);
}

/* ---- what does not fit ------------------------------------------------------------------------------------------- */

static void misfits(void)
{
    lp_model *draft = NULL;
    lp_error err = {0};
    CHECK(lp_model_open(&draft, LP_DATA_DIR "/draft", NULL, NULL, &err) == LP_OK);
    CHECK(lp_sae_fits(saes[0], &model->config, &err) == LP_OK);
    CHECK(lp_sae_fits(saes[0], &draft->config, &err) == LP_E_SHAPE && strstr(err.text, "192"));
    CHECK(lp_sae_fits(saes[5], &draft->config, &err) == LP_E_NOT_FOUND && strstr(err.text, "layers 0 to 1"));
    lp_site was = saes[0]->spot.site;
    saes[0]->spot.site = LP_N_SITES;
    CHECK(lp_sae_fits(saes[0], &model->config, &err) == LP_E_NOT_FOUND && strstr(err.text, "--site"));
    lp_session *s = new_session(model, NULL, NULL);
    lp_reader *r = NULL;
    CHECK(lp_reader_new(&r, s, all(), n_saes, NULL, &err) == LP_E_NOT_FOUND && !r);
    saes[0]->spot.site = was;
    CHECK(lp_session_eval(s, ids, 5, &err) == LP_OK); /* the refused reader left no hook behind */
    lp_session_free(s);
    lp_model_close(draft);
}

int main(void)
{
    lp_features kept[MAX_SAES] = {{0}};
    open_all();
    take_tokens();
    however_it_comes(kept);
    as_the_tape(kept);
    watching_changes_nothing();
    from_the_middle(kept);
    for (int i = 0; i < n_saes; i++) metered(i);
    no_rows();
    misfits();
    for (int i = 0; i < n_saes; i++) lp_features_free(&kept[i]), lp_sae_close(saes[i]);
    lp_model_close(model);
    return check_done();
}
