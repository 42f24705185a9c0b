/* The guard against wrong tensors: every embedded SAE fed every tensor of the embedded model that is as wide as its own.
 *
 *     test_guard [TOKENS]      0: all of the check text
 *
 * Bounds were fixed on every other SAE (sae/check.c); here they are held against both halves, and the matrix is printed with
 * what is not refused and how near it is.  Then what is remembered, and when it is not. */
#include "sae/check_cache.h"
#include "sae/guard.h"
#include "sae/names.h"
#include "sae/reader.h"
#include "sae/rivals.h"

#include "core/trace.h"
#include "tests/models.h"

#include <unistd.h>

enum { MAX_SAES = 9, MAX_CELLS = 200, SHORT = 200 }; /* SHORT: bytes of a text of enough tokens */

static lp_env env;
static lp_model *model;
static lp_sae *saes[MAX_SAES];
static char *text;
static size_t n_text;

/* An SAE somewhere. */
typedef struct cell {
    lp_sae s;
    lp_check k;
    bool is_right;
} cell;

static cell cells[MAX_SAES][MAX_CELLS];
static int n_cells[MAX_SAES];

static void open_all(void)
{
    lp_sae_place *list = NULL;
    size_t n = 0;
    lp_error err = {0};
    if (lp_pool_new(&env.pool, 2, &err) != LP_OK ||
        lp_model_open(&model, LP_DATA_DIR "/base", NULL, &env, &err) != LP_OK ||
        lp_sae_list(&list, &n, LP_DATA_DIR "/saes", &err) != LP_OK || n != MAX_SAES ||
        lp_read_file(&text, &n_text, LP_DATA_DIR "/check.txt", 1 << 20, &err) != LP_OK) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    for (size_t i = 0; i < n; i++)
        if (lp_sae_open(&saes[i], list[i].path, NULL, &env, &err) != LP_OK) exit(1);
    lp_sae_list_free(list, n);
}

/* ---- the matrix -------------------------------------------------------------------------------------------------- */

static void add_cell(int i, lp_site site, int layer)
{
    cell *x = &cells[i][n_cells[i]];
    *x = (cell){.s = *saes[i]};
    lp_sae_spot *spot = &x->s.spot;
    spot->site = site, spot->layer = layer;
    if (spot->is_coder) spot->layer_out = layer == LP_WHOLE_MODEL ? 0 : layer;
    if (!spot->is_coder) spot->site_out = site, spot->layer_out = layer;
    if (spot->is_coder && site >= spot->site_out) return; /* it cannot predict what has passed */
    if (lp_sae_fits(&x->s, &model->config, NULL) != LP_OK) return;
    x->is_right = lp_sae_spot_same(spot, &saes[i]->spot);
    n_cells[i]++;
}

static lp_passage take_passage(const lp_session *s, size_t tokens)
{
    lp_passage p = {0};
    CHECK(lp_passage_make(&p, s, text, n_text, NULL) == LP_OK);
    if (!tokens || tokens > p.n_tokens) return p;
    size_t own = p.piece - 1;
    p.n_pieces = (tokens + own - 1) / own, p.last = tokens - (p.n_pieces - 1) * own + 1, p.n_tokens = tokens;
    return p;
}

static void fill_matrix(size_t tokens)
{
    lp_session *s = new_session(model, NULL, &env);
    lp_passage p = take_passage(s, tokens);
    lp_error err = {0};
    for (int i = 0; i < MAX_SAES; i++) {
        const lp_sae *list[MAX_CELLS];
        lp_check found[MAX_CELLS];
        for (int site = 0; site < LP_N_SITES; site++)
            for (int layer = 0; layer < (lp_site_has_layer((lp_site)site) ? model->config.n_layers : 1); layer++)
                if (site != LP_SCORES && site != LP_PATTERN) /* as wide as the text is long */
                    add_cell(i, (lp_site)site, lp_site_has_layer((lp_site)site) ? layer : LP_WHOLE_MODEL);
        for (int k = 0; k < n_cells[i]; k++) list[k] = &cells[i][k].s;
        CHECK(lp_sae_check(found, s, list, n_cells[i], &p, &err) == LP_OK);
        if (err.text[0]) fprintf(stderr, "%s\n", err.text), exit(1);
        for (int k = 0; k < n_cells[i]; k++) cells[i][k].k = found[k];
    }
    printf("%zu tokens\n", p.n_tokens);
    lp_passage_free(&p);
    lp_session_free(s);
}

/* '=' its own and ok, '.' refused, '?' doubtful, '!' what should not be. */
static char mark(const cell *x)
{
    if (x->is_right) return x->k.verdict == LP_SAE_RIGHT ? '=' : '!';
    return x->k.verdict == LP_SAE_WRONG ? '.' : x->k.verdict == LP_SAE_DOUBTFUL ? '?' : '!';
}

static void print_matrix(void)
{
    for (int i = 0; i < MAX_SAES; i++) printf("%c  %s\n", 'a' + i, saes[i]->name);
    printf("\n%-16sabcdefghi\n", "");
    for (int k = 0; k < n_cells[0]; k++) {
        char name[LP_SPOT_TEXT], row[MAX_SAES + 1] = "         ";
        for (int i = 0; i < MAX_SAES; i++)
            for (int j = 0; j < n_cells[i]; j++)
                if (cells[i][j].s.spot.site == cells[0][k].s.spot.site &&
                    cells[i][j].s.spot.layer == cells[0][k].s.spot.layer)
                    row[i] = mark(&cells[i][j]);
        printf("%-16s%s\n", lp_sae_spot_text(name, &cells[0][k].s.spot), row);
    }
    puts("\nnot refused:");
    for (int i = 0; i < MAX_SAES; i++)
        for (int k = 0; k < n_cells[i]; k++)
            if (!cells[i][k].is_right && cells[i][k].k.verdict != LP_SAE_WRONG)
                printf("%s: %s: %s\n", saes[i]->name, lp_verdict_name(cells[i][k].k.verdict), cells[i][k].k.why);
}

/* ---- what it must show ------------------------------------------------------------------------------------------- */

static double ratio(const lp_check *k)
{
    return k->has_rival ? k->quality.fvu / k->rival_fvu : 0;
}

/* What L0 and FVU say alone, or with L0 not declared what FVU and the rivals say. */
static lp_verdict verdict_without(const cell *x, bool rivals, bool l0)
{
    lp_check k = x->k;
    k.has_rival &= rivals;
    lp_check_judge(&k, l0 ? x->s.declared_l0 : 0, &x->s.spot);
    return k.verdict;
}

static bool is_a_layer_off(const cell *x, const lp_sae *own)
{
    return x->s.spot.site == own->spot.site && abs(x->s.spot.layer - own->spot.layer) == 1;
}

/* Its own tensor is one of those the cell is compared with. */
static bool is_within_reach(const cell *x, const lp_sae *own)
{
    lp_sae_spot rivals[LP_SAE_RIVALS];
    int n = lp_sae_rivals(rivals, &x->s, &model->config);
    for (int i = 0; i < n; i++)
        if (lp_sae_spot_same(&rivals[i], &own->spot)) return true;
    return false;
}

/* The gap between right and wrong pairings that the rivals alone tell apart, and that between them and a layer off. */
static void gaps(int half)
{
    double right = 0, close = INFINITY, layer = INFINITY;
    for (int i = half; i < MAX_SAES; i += 2)
        for (int k = 0; k < n_cells[i]; k++) {
            const cell *x = &cells[i][k];
            double r = ratio(&x->k);
            if (x->is_right) {
                right = fmax(right, r);
                continue;
            }
            if (verdict_without(x, false, true) == LP_SAE_RIGHT) close = fmin(close, r);
            if (is_a_layer_off(x, saes[i]) && x->k.quality.fvu < LP_CHECK_FVU_WRONG) layer = fmin(layer, r);
        }
    printf("%s half: FVU over the best rival's: right pairings at most %.2f, wrong ones that L0 and FVU pass at least "
           "%.2f, "
           "a layer off at least %.2f\n",
           half ? "tested" : "fixed", right, close, layer);
    CHECK(right < LP_CHECK_RIVAL_DOUBTFUL && LP_CHECK_RIVAL_DOUBTFUL < close && LP_CHECK_RIVAL_WRONG < layer);
}

static void judge_matrix(void)
{
    int wrong = 0, refused = 0, doubtful = 0, by_figures = 0, no_l0 = 0;
    for (int i = 0; i < MAX_SAES; i++) {
        int right = 0;
        for (int k = 0; k < n_cells[i]; k++) {
            const cell *x = &cells[i][k];
            if (x->is_right) {
                right++;
                CHECK(x->k.verdict == LP_SAE_RIGHT && !x->k.fits_rival && !x->k.why[0]);
                CHECK(verdict_without(x, true, false) == LP_SAE_RIGHT);
                continue;
            }
            wrong++;
            refused += x->k.verdict == LP_SAE_WRONG, doubtful += x->k.verdict == LP_SAE_DOUBTFUL;
            by_figures += verdict_without(x, false, true) == LP_SAE_RIGHT;
            no_l0 += verdict_without(x, true, false) == LP_SAE_RIGHT;
            CHECK(x->k.verdict != LP_SAE_RIGHT && x->k.why[0]);
            if (is_a_layer_off(x, saes[i]))
                CHECK(x->k.verdict == LP_SAE_WRONG && verdict_without(x, true, false) == LP_SAE_WRONG);
            if (!is_within_reach(x, saes[i])) continue;
            char own[LP_SPOT_TEXT + 12] = {0};
            lp_sae_spot_text(own, &x->k.rival); /* under the name the rivals have it */
            strcat(own, " fits better");
            CHECK(x->k.fits_rival && lp_sae_spot_same(&x->k.rival, &saes[i]->spot) && strstr(x->k.why, own));
        }
        CHECK(right == 1 || (right == 2 && saes[i]->spot.site == LP_RESID_POST)); /* the next resid_pre is the same */
    }
    CHECK(wrong > 600);
    printf("%d wrong pairings: %d refused, %d doubtful, %d missed; by L0 and FVU alone %d missed, by FVU and rivals "
           "alone %d\n",
           wrong, refused, doubtful, wrong - refused - doubtful, by_figures, no_l0);
}

/* ---- rivals ------------------------------------------------------------------------------------------------------ */

static void rivals_are(int sae, const char *want)
{
    lp_sae_spot list[LP_SAE_RIVALS];
    char got[1000] = "", one[LP_SPOT_TEXT];
    int n = lp_sae_rivals(list, saes[sae], &model->config);
    for (int i = 0; i < n; i++) {
        if (i) strcat(got, ", ");
        strcat(got, lp_sae_spot_text(one, &list[i]));
    }
    CHECK_STR(got, want);
}

static void rivals(void)
{
    rivals_are(0, "resid_pre.0, resid_mid.0, resid_mid.1, resid_post.1");
    rivals_are(2, "resid_post.1, resid_mid.2, resid_mid.3, resid_post.3");
    rivals_are(5, "resid_post.4, resid_mid.5");
    rivals_are(6, "mlp_out.2, mlp_out.4, z.3, attn_raw.3, attn_out.3, mlp_raw.3");
    rivals_are(7, "z.2, z.4, attn_raw.3, attn_out.3, mlp_raw.3, mlp_out.3");
    rivals_are(8,
               "attn_in.3 to mlp_out.3, mlp_in.3 to mlp_out.3, mlp_normed.2 to mlp_out.2, mlp_normed.4 to mlp_out.4, "
               "mlp_normed.3 to mlp_raw.3");
}

/* ---- what is remembered ------------------------------------------------------------------------------------------ */

static char folder[] = "/tmp/lapidary-guard-XXXXXX";
static int n_measured, n_unreadable, n_unsaved;

static void listen(void *user, lp_level level, const char *line)
{
    (void)user;
    (void)level;
    n_measured += strstr(line, "checking whether") != NULL;
    n_unreadable += strstr(line, "unreadable") != NULL;
    n_unsaved += strstr(line, "not remembered") != NULL;
}

/* Two SAEs through the guard; how many measurements, damaged files and failed writes it told of. */
static lp_status ask(lp_check k[2], const char *cache, const lp_model *m, size_t n, lp_arithmetic a,
                     const lp_sae *first)
{
    const lp_sae *two[] = {first, saes[8]};
    const lp_guard g = {.text = text, .n_text = n, .cache = cache, .arithmetic = a};
    lp_env loud = env;
    lp_error err = {0};
    loud.log = listen;
    n_measured = n_unreadable = n_unsaved = 0;
    lp_status st = lp_guard_check(k, &g, m, two, 2, &loud, &err);
    if (st != LP_OK) fprintf(stderr, "%s\n", err.text);
    return st;
}

static bool same_check(const lp_check *a, const lp_check *b)
{
    return a->quality.l0 == b->quality.l0 && a->quality.fvu == b->quality.fvu && a->quality.rows == b->quality.rows &&
           a->quality.cosine == b->quality.cosine && a->verdict == b->verdict && a->has_rival == b->has_rival &&
           lp_sae_spot_same(&a->rival, &b->rival) && a->rival_fvu == b->rival_fvu && a->rival_l0 == b->rival_l0 &&
           a->fits_rival == b->fits_rival && strcmp(a->why, b->why) == 0;
}

static void write_file(const char *path, const char *what, size_t n)
{
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(what, 1, n, f) == n);
    if (f) fclose(f);
}

/* Whatever the file is, the figures are right, and afterwards it is whole. */
static void damaged(const char *path, const char *what, size_t n, const lp_check want[2])
{
    lp_check k[2];
    write_file(path, what, n);
    CHECK(ask(k, path, model, SHORT, LP_EXACT, saes[3]) == LP_OK);
    CHECK(same_check(&k[0], &want[0]) && same_check(&k[1], &want[1]) && n_measured == 1);
    CHECK(ask(k, path, model, SHORT, LP_EXACT, saes[3]) == LP_OK && n_measured == 0 && n_unreadable == 0);
}

static void damages(const char *path, const lp_check want[2])
{
    static const char *const odd[] = {"",
                                      "{",
                                      "[]",
                                      "null",
                                      "{\"format\": \"lapidary-checks\", \"version\": 1}",
                                      "{\"format\": \"lapidary-checks\", \"version\": 2, \"checks\": {}}",
                                      "{\"format\": \"lapidary-checks\", \"version\": 1, \"checks\": []}",
                                      "{\"format\": \"other\", \"version\": 1, \"checks\": {}}"};
    char *whole = NULL;
    size_t n = 0;
    CHECK(lp_read_file(&whole, &n, path, 1 << 20, NULL) == LP_OK);
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) damaged(path, odd[i], strlen(odd[i]), want);
    damaged(path, whole, n / 2, want);
    static const char *const keys[] = {"\"rows\"", "\"l0\"",    "\"fvu\"", "\"cosine\"",
                                       "\"site\"", "\"layer\"", "\"out\""};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) { /* every entry misses it */
        char *bent = lp_strdup(whole);
        for (char *at = bent; at && (at = strstr(at, keys[i])) != NULL; at += 2) at[1] = '_';
        damaged(path, bent, n, want);
        free(bent);
    }
    free(whole);
}

static void remembered(void)
{
    lp_check a[2], k[2];
    CHECK(mkdtemp(folder) != NULL);
    char *path = lp_format("%s/not/yet/there/checks.json", folder);
    CHECK(ask(a, path, model, n_text, LP_EXACT, saes[3]) == LP_OK && n_measured == 1 && n_unsaved == 0);
    CHECK(a[0].verdict == LP_SAE_RIGHT && a[1].verdict == LP_SAE_RIGHT && a[0].quality.rows == LP_GUARD_TOKENS);
    CHECK(ask(k, path, model, n_text, LP_EXACT, saes[3]) == LP_OK && n_measured == 0);
    CHECK(same_check(&a[0], &k[0]) && same_check(&a[1], &k[1]));
    CHECK(ask(k, NULL, model, n_text, LP_EXACT, saes[3]) == LP_OK && n_measured == 1 && same_check(&a[1], &k[1]));
    CHECK(ask(k, path, model, n_text / 2, LP_EXACT, saes[3]) == LP_OK && n_measured == 0); /* the head is the same */

    lp_sae other = *saes[3];
    other.declared_l0 = 200; /* a verdict is not remembered, only its figures */
    CHECK(ask(k, path, model, n_text, LP_EXACT, &other) == LP_OK && n_measured == 0 && k[0].verdict == LP_SAE_WRONG);
    other = *saes[3];
    other.spot.layer = other.spot.layer_out = 2;
    CHECK(ask(k, path, model, n_text, LP_EXACT, &other) == LP_OK && n_measured == 1 && k[0].verdict == LP_SAE_WRONG);
    CHECK(strstr(k[0].why, "resid_post.3 fits better"));
    CHECK(ask(a, path, model, n_text, LP_EXACT, &other) == LP_OK && n_measured == 0 && same_check(&a[0], &k[0]));
    other = *saes[3];
    other.hash[5] = other.hash[5] == '0' ? '1' : '0';
    CHECK(ask(k, path, model, n_text, LP_EXACT, &other) == LP_OK && n_measured == 1);
    CHECK(ask(a, path, model, SHORT, LP_EXACT, saes[3]) == LP_OK && n_measured == 1);
    CHECK(ask(k, path, model, n_text, LP_FAST, saes[3]) == LP_OK && n_measured == 1);
    CHECK(ask(k, path, model, n_text, LP_EXACT, saes[3]) == LP_OK && n_measured == 0);
    damages(path, a);
    free(path);
}

/* A path below a file, and a folder that may not be written to: measured every time, and never an error. */
static void unwritable(void)
{
    lp_check k[2];
    char *file = lp_format("%s/file", folder), *below = lp_format("%s/file/checks.json", folder);
    write_file(file, "x", 1);
    for (int i = 0; i < 2; i++)
        CHECK(ask(k, below, model, n_text, LP_EXACT, saes[3]) == LP_OK && n_measured == 1 && n_unsaved == 1);
    CHECK(ask(k, folder, model, n_text, LP_EXACT, saes[3]) == LP_OK && n_unsaved == 1); /* a folder of that name */
    free(file);
    free(below);
}

/* The tuned copies of the base model are near enough to use its SAEs on, and are other models to the file. */
static void tuned(const char *name)
{
    lp_model *m = NULL;
    lp_check k[MAX_SAES];
    lp_error err = {0};
    char *path = lp_format("%s/%s", LP_DATA_DIR, name), *cache = lp_format("%s/not/yet/there/checks.json", folder);
    const lp_guard g = {.text = text, .n_text = n_text, .cache = cache};
    CHECK(lp_model_open(&m, path, NULL, &env, &err) == LP_OK);
    CHECK(ask(k, cache, m, n_text, LP_EXACT, saes[3]) == LP_OK && n_measured == 1);
    CHECK(lp_guard_check(k, &g, m, (const lp_sae *const *)saes, MAX_SAES, &env, &err) == LP_OK);
    for (int i = 0; i < MAX_SAES; i++) CHECK(k[i].verdict == LP_SAE_RIGHT);
    lp_model_close(m);
    free(path);
    free(cache);
}

static void refusals(void)
{
    lp_guard g = {.text = "The whale swam.", .n_text = 15};
    lp_check k[1];
    lp_error err = {0};
    const lp_sae *one[] = {saes[3]};
    CHECK(lp_guard_check(k, &g, model, one, 1, &env, &err) == LP_E_RANGE && strstr(err.text, "too short"));
    lp_sae far = *saes[3];
    far.spot.layer = 6;
    one[0] = &far;
    CHECK(lp_guard_check(k, &g, model, one, 1, &env, &err) == LP_E_NOT_FOUND && strstr(err.text, "layers 0 to 5"));
    CHECK(lp_guard_check(k, &g, model, NULL, 0, &env, &err) == LP_OK);
}

int main(int argc, char **argv)
{
    open_all();
    fill_matrix(argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : LP_GUARD_TOKENS);
    print_matrix();
    judge_matrix();
    gaps(0);
    gaps(1);
    rivals();
    remembered();
    unwritable();
    tuned("chat.gguf");
    tuned("shield.gguf");
    refusals();
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    CHECK(system(command) == 0);
    for (int i = 0; i < MAX_SAES; i++) lp_sae_close(saes[i]);
    lp_model_close(model);
    lp_pool_free(env.pool);
    free(text);
    return check_done();
}
