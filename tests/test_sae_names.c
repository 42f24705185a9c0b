/* From what is typed to an SAE on disk: every form of name, "canonical" over all of Gemma Scope, what paths tell, and
 * what is said when it is not there. */
#include "sae/names.h"

#include "tests/bytes.h"
#include "tests/check.h"

static char root[] = "/tmp/lp_names_XXXXXX";

#define COMMIT "0123456789abcdef0123456789abcdef01234567"
#define SCOPE  "hub/models--google--gemma-scope-"
#define SNAP   "/snapshots/" COMMIT "/"
#define RES    SCOPE "2b-pt-res" SNAP

/* Makes root/path with the folders above it. */
static void put(const char *path)
{
    char full[700];
    snprintf(full, sizeof full, "%s/%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        mkdir(full, 0777);
        *p = '/';
    }
    bool is_ref = lp_ends_in(path, "refs/main");
    put_file(full, COMMIT "\n", is_ref ? strlen(COMMIT) + 1 : 0);
}

static const char *embedded; /* what lp_sae_find is given */

/* Finds it and holds it against: the path below root, "MODEL/SOURCE_ID" with "-" for what is NULL, the repository. */
static lp_sae_place check_found(const char *name, const char *path, const char *id, const char *repo)
{
    lp_sae_place p;
    lp_error err = {0};
    char got[200];
    CHECK(lp_sae_find(&p, name, embedded, &err) == LP_OK);
    CHECK_STR(err.text, "");
    CHECK_STR(p.path, path[0] == '/' ? path : at(root, path));
    snprintf(got, sizeof got, "%s/%s", p.model_id ? p.model_id : "-", p.source_id ? p.source_id : "-");
    CHECK_STR(got, id);
    CHECK_STR(p.repo ? p.repo : "-", repo);
    lp_sae_place copy = p; /* its numbers are good for a moment longer than its text */
    lp_sae_place_clear(&p);
    CHECK(!p.path && !p.source_id && !p.model_id && !p.repo && p.feature == -1 && p.spot.site == LP_N_SITES);
    return copy;
}

static void check_refused(const char *name, lp_status st, const char *want)
{
    lp_sae_place p;
    lp_error err = {0};
    CHECK(lp_sae_find(&p, name, embedded, &err) == st);
    CHECK(!p.path && !p.source_id && !p.model_id && !p.repo);
    CHECK(err.text[0] && !strchr(err.text, '\n'));
    if (!strstr(err.text, want)) CHECK_STR(err.text, want);
    CHECK(lp_sae_find(&p, name, embedded, NULL) == st); /* the text is not wanted */
}

static bool is_spot(lp_sae_spot s, lp_site site, int layer, lp_site site_out)
{
    return s.site == site && s.layer == layer && s.site_out == site_out && s.layer_out == layer &&
           s.is_coder == (site != site_out);
}

static void test_spots(void)
{
    lp_sae_spot s;
    CHECK(lp_sae_spot_parse(&s, "res", 3) && is_spot(s, LP_RESID_POST, 3, LP_RESID_POST));
    CHECK(lp_sae_spot_parse(&s, "mlp", 0) && is_spot(s, LP_MLP_OUT, 0, LP_MLP_OUT));
    CHECK(lp_sae_spot_parse(&s, "att", 25) && is_spot(s, LP_Z, 25, LP_Z));
    CHECK(lp_sae_spot_parse(&s, "transcoder", 7) && is_spot(s, LP_MLP_NORMED, 7, LP_MLP_OUT));
    CHECK(lp_sae_spot_parse(&s, "transcoders", 7) && is_spot(s, LP_MLP_NORMED, 7, LP_MLP_OUT));
    static const char *const others[] = {"", "re", "ress", "Res", "attn", "transcoderss", "res/", "embedding"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) CHECK(!lp_sae_spot_parse(&s, others[i], 0));
}

/* ---- canonical --------------------------------------------------------------------------------------------------- */

/* Every canonical of SAELens 6 (pretrained_saes.yaml), for layers 0, 1, 2 ... or from LAYER: on; and the two that only
 * the rule has, layer 12 131k and layer 20 262k. */
static const char *const starred[][2] = {
    {"gemma-scope-2b-pt-res",
     "16k 105 102 141 59 124 68 70 69 71 73 77 80 82 84 84 78 78 77 74 73 71 70 72 75 73 116 32k 12:76 65k 73 121 77 "
     "89 89 105 107 107 111 118 128 70 72 75 73 127 128 125 116 115 114 111 116 123 124 93 131k 12:129 262k 12:121 "
     "524k 12:115 1m 5:114 12:107 19:88"},
    {"gemma-scope-2b-pt-mlp",
     "16k 119 105 95 95 85 114 133 60 136 88 110 98 108 112 97 80 72 68 106 109 109 113 121 128 73 126 65k 72 127 "
     "134 68 66 86 101 115 110 77 95 88 96 98 89 72 66 136 88 88 88 86 92 102 128 107"},
    {"gemma-scope-2b-pt-att",
     "16k 104 79 93 117 116 135 61 99 129 127 70 80 85 92 71 98 71 79 72 122 62 65 106 73 96 77 65k 75 98 125 83 87 "
     "99 112 96 112 107 67 75 79 87 66 90 129 70 123 106 102 118 112 140 77 63"},
    {"gemma-scope-2b-pt-transcoders", "16k 76 65 49 54 88 87 95 70 52 72 88 5 6 8 8 8 10 12 13 12 11 13 15 25 37 41"},
    {"gemma-scope-9b-pt-res",
     "16k 129 69 67 90 91 77 93 92 99 100 113 118 130 132 67 131 75 73 71 132 68 129 123 120 114 114 116 118 119 119 "
     "120 114 111 114 114 120 120 124 128 131 125 113 32k 20:57 65k 20:55 131k 41 56 70 103 101 94 120 119 72 75 84 "
     "88 96 99 105 103 121 117 113 110 114 109 105 101 97 96 97 96 98 97 95 92 88 91 89 94 93 96 101 99 94 84 262k "
     "20:50 524k 20:48 1m 9:122 20:101 31:77"},
    {"gemma-scope-9b-pt-mlp",
     "16k 50 128 81 126 66 93 96 101 124 83 114 76 96 94 97 107 91 104 89 98 108 88 85 73 73 72 142 126 115 111 116 "
     "94 98 107 107 108 109 119 98 90 74 126 131k 30 106 61 109 84 131 72 75 89 129 83 120 77 75 80 89 81 91 82 85 "
     "93 79 77 67 67 65 110 99 91 87 89 77 76 83 82 80 81 90 79 75 125 99"},
    {"gemma-scope-9b-pt-att",
     "16k 61 77 69 102 126 125 108 70 65 71 132 67 68 77 81 79 81 110 80 86 76 86 70 80 79 73 75 136 71 76 73 73 74 "
     "78 91 77 69 82 81 77 91 129 131k 55 116 135 119 75 78 73 106 98 111 97 104 110 126 131 130 71 90 69 71 125 71 "
     "115 66 130 115 120 102 115 128 109 117 117 128 63 124 105 124 135 120 64 92"},
    {"gemma-scope-9b-it-res", "16k 9:88 20:91 31:76 131k 9:121 20:81 31:109"},
    {"gemma-scope-27b-pt-res", "131k 10:106 22:82 34:72"},
};

/* The cache is empty, so the file that is canonical shows in the command that would get it. */
static void check_canonical(const char *repo, const char *width, int layer, int n)
{
    char name[200], want[300];
    snprintf(want, sizeof want,
             ": average_l0_%d is not in the Hugging Face cache (%s/hub); get it with:  hf download google/%s "
             "layer_%d/width_%s/average_l0_%d/params.npz",
             n, root, repo, layer, width, n);
    snprintf(name, sizeof name, "%s/layer_%d/width_%s/canonical", repo, layer, width);
    check_refused(name, LP_E_NOT_FOUND, want);
    snprintf(name, sizeof name, "%s-canonical/layer_%d/width_%s/canonical", repo, layer, width);
    check_refused(name, LP_E_NOT_FOUND, want);
    snprintf(name, sizeof name, "google/%s/layer_%d/width_%s/average_l0_%d", repo, layer, width, n);
    check_refused(name, LP_E_NOT_FOUND, want);
}

static void test_canonical(void)
{
    int total = 0;
    for (size_t i = 0; i < sizeof starred / sizeof *starred; i++) {
        char text[1200], width[16] = "";
        int layer = 0, n;
        snprintf(text, sizeof text, "%s", starred[i][1]);
        for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) {
            const char *colon = strchr(word, ':');
            if (strpbrk(word, "km")) {
                snprintf(width, sizeof width, "%s", word);
                layer = 0;
                continue;
            }
            if (colon) layer = atoi(word);
            n = atoi(colon ? colon + 1 : word);
            check_canonical(starred[i][0], width, layer++, n);
            total++;
        }
    }
    CHECK(total == 429 + 26 + 2);
}

/* How many there are of each layer and width, as the messages tell it, and their sum: every number of the table. */
static void test_table(void)
{
    static const struct {
        const char *repo;
        int layers, n, sum;
    } repos[] = {
        {"gemma-scope-2b-pt-res", 26, 316, 31597}, {"gemma-scope-2b-pt-mlp", 26, 260, 56668},
        {"gemma-scope-2b-pt-att", 26, 260, 48633}, {"gemma-scope-9b-pt-res", 42, 536, 38322},
        {"gemma-scope-9b-pt-mlp", 42, 492, 87760}, {"gemma-scope-9b-pt-att", 42, 492, 84078},
        {"gemma-scope-9b-it-res", 32, 30, 1846},   {"gemma-scope-27b-pt-res", 35, 18, 2471},
    };
    static const char *const widths[] = {"4k", "16k", "32k", "65k", "131k", "262k", "524k", "1m"};
    for (size_t r = 0; r < sizeof repos / sizeof *repos; r++) {
        int n = 0, sum = 0;
        for (int l = -1; l <= repos[r].layers; l++) {
            for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
                char name[120], layer[24];
                lp_sae_place p;
                lp_error err = {0};
                snprintf(layer, sizeof layer, "layer_%d", l);
                snprintf(name, sizeof name, "%s/%s/width_%s/average_l0_0", repos[r].repo, l < 0 ? "embedding" : layer,
                         widths[w]);
                CHECK(lp_sae_find(&p, name, NULL, &err) == LP_E_NOT_FOUND);
                const char *s = strstr(err.text, "; there are ");
                int one, used;
                for (s = s ? s + 12 : ""; sscanf(s, "%d%n", &one, &used) == 1; n++) {
                    sum += one;
                    s += used + (s[used] == ',');
                }
            }
        }
        CHECK(n == repos[r].n);
        CHECK(sum == repos[r].sum);
    }
}

/* ---- the cache --------------------------------------------------------------------------------------------------- */

static void test_release(void)
{
    static const char id[] = "gemma-2-2b/20-gemmascope-res-16k", repo[] = "google/gemma-scope-2b-pt-res";
    static const char path[] = RES "layer_20/width_16k/average_l0_71/params.npz";
    put(SCOPE "2b-pt-res/refs/main");
    put(RES "layer_20/width_16k/average_l0_22/params.npz");
    put(RES "layer_20/width_16k/average_l0_139/params.npz");
    put(RES "layer_20/width_16k/average_l0_294/README.md"); /* no params.npz: not there */
    put(RES "layer_20/width_16k/average_l0_071/params.npz");
    put(RES "layer_20/width_16k/average_l0_71x/params.npz");
    check_refused(id, LP_E_NOT_FOUND,
                  ", where layer_20/width_16k has 22, 139; get it with:  hf download google/gemma-scope-2b-pt-res "
                  "layer_20/width_16k/average_l0_71/params.npz");
    /* A link whose blob is gone is no file. */
    put(RES "layer_20/width_16k/average_l0_71/x");
    CHECK(symlink("../../../../../blobs/none", at(root, path)) == 0);
    check_refused(id, LP_E_NOT_FOUND, "hf download");
    put(SCOPE "2b-pt-res/blobs/none");
    static const char *const names[] = {
        "gemma-2-2b/20-gemmascope-res-16k",
        "gemma-2-2b/20-gemmascope-res-16k__l0-71",
        "gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71",
        "gemma-scope-2b-pt-res/layer_20/width_16k/canonical",
        "gemma-scope-2b-pt-res-canonical/layer_20/width_16k/canonical",
        "google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71",
        "google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71/params.npz",
        "google/gemma-scope-2b-pt-res/layer_20/width_16k/canonical",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        lp_sae_place p = check_found(names[i], path, id, repo);
        CHECK(is_spot(p.spot, LP_RESID_POST, 20, LP_RESID_POST));
        CHECK(p.l0 == 71 && p.width == 16384 && p.feature == -1);
    }
    /* The path alone tells the same. */
    check_found(at(root, path), path, id, repo);
    lp_sae_place p = check_found("gemma-2-2b/20-gemmascope-res-16k/12082", path, id, repo);
    CHECK(p.feature == 12082);
    p = check_found("gemma-2-2b/20-gemmascope-res-16k__l0-22/0", RES "layer_20/width_16k/average_l0_22/params.npz",
                    "gemma-2-2b/20-gemmascope-res-16k__l0-22", repo);
    CHECK(p.feature == 0 && p.l0 == 22);
    check_found("gemma-2-2b-it/20-gemmascope-res-16k", path, "gemma-2-2b-it/20-gemmascope-res-16k", repo);
    /* One that the table does not know, nearer to 100 than the 68 that it does. */
    put(RES "layer_5/width_16k/average_l0_99/params.npz");
    check_found("gemma-2-2b/5-gemmascope-res-16k", RES "layer_5/width_16k/average_l0_99/params.npz",
                "gemma-2-2b/5-gemmascope-res-16k", repo);
}

static void test_other_sites(void)
{
    put(SCOPE "2b-pt-transcoders/refs/main");
    put(SCOPE "2b-pt-transcoders" SNAP "layer_11/width_16k/average_l0_5/params.npz");
    put(SCOPE "2b-pt-transcoders" SNAP "layer_11/width_16k/average_l0_17/params.npz");
    put(SCOPE "2b-pt-transcoders" SNAP "layer_11/width_16k/average_l0_99/params.npz"); /* the table has none such */
    static const char repo[] = "google/gemma-scope-2b-pt-transcoders";
    lp_sae_place p = check_found("gemma-2-2b/11-gemmascope-transcoder-16k",
                                 SCOPE "2b-pt-transcoders" SNAP "layer_11/width_16k/average_l0_5/params.npz",
                                 "gemma-2-2b/11-gemmascope-transcoder-16k", repo);
    CHECK(is_spot(p.spot, LP_MLP_NORMED, 11, LP_MLP_OUT) && p.l0 == 5);
    check_found("gemma-scope-2b-pt-transcoders/layer_11/width_16k/average_l0_99",
                SCOPE "2b-pt-transcoders" SNAP "layer_11/width_16k/average_l0_99/params.npz",
                "gemma-2-2b/11-gemmascope-transcoder-16k__l0-99", repo);
    check_refused("gemma-scope-2b-pt-transcoders/layer_11/width_16k/average_l0_7", LP_E_NOT_FOUND,
                  "where layer_11/width_16k has 5, 17, 99; get it with:  hf download "
                  "google/gemma-scope-2b-pt-transcoders layer_11/width_16k/average_l0_7/params.npz");
    put(SCOPE "9b-it-res/refs/main");
    put(SCOPE "9b-it-res" SNAP "layer_9/width_131k/average_l0_121/params.npz");
    p = check_found("gemma-2-9b-it/9-gemmascope-res-131k/7",
                    SCOPE "9b-it-res" SNAP "layer_9/width_131k/average_l0_121/params.npz",
                    "gemma-2-9b-it/9-gemmascope-res-131k", "google/gemma-scope-9b-it-res");
    CHECK(p.width == 131072 && p.feature == 7);
    put(SCOPE "2b-pt-att/refs/main");
    put(SCOPE "2b-pt-att" SNAP "layer_3/width_65k/average_l0_83/params.npz");
    p = check_found("gemma-2-2b/3-gemmascope-att-65k",
                    SCOPE "2b-pt-att" SNAP "layer_3/width_65k/average_l0_83/params.npz",
                    "gemma-2-2b/3-gemmascope-att-65k", "google/gemma-scope-2b-pt-att");
    CHECK(is_spot(p.spot, LP_Z, 3, LP_Z) && p.width == 65536);
    put(RES "embedding/width_4k/average_l0_44/params.npz");
    p = check_found("gemma-scope-2b-pt-res/embedding/width_4k/average_l0_44",
                    RES "embedding/width_4k/average_l0_44/params.npz", "gemma-2-2b/-", "google/gemma-scope-2b-pt-res");
    CHECK(is_spot(p.spot, LP_EMBED_RAW, LP_WHOLE_MODEL, LP_EMBED_RAW) && p.width == 4096 && p.l0 == 44);
}

static void test_does_not_exist(void)
{
    static const char *const said[][2] = {
        {"gemma-2-2b/26-gemmascope-res-16k", "gemma-scope-2b-pt-res has no layer_26/width_16k; the layers are 0-25"},
        {"gemma-2-2b/20-gemmascope-res-32k", "has no layer_20/width_32k; the widths there are 16k, 65k"},
        {"gemma-2-9b-it/10-gemmascope-res-16k", "the layers are 9, 20, 31"},
        {"gemma-2-2b/20-gemmascope-res-16k__l0-70", "has no average_l0_70; there are 22, 38, 71, 139, 294"},
        {"gemma-2-9b-it/9-gemmascope-mlp-16k", "there are no mlp SAEs of gemma-2-9b-it; there are res"},
        {"gemma-2-9b/9-gemmascope-transcoder-16k", "no transcoder SAEs of gemma-2-9b; there are res, mlp, att"},
        {"gemma-2-2b", "after the model comes LAYER-gemmascope-SITE-WIDTH"},
        {"gemma-2-2b/6-res-jb", "after the model comes LAYER-gemmascope-SITE-WIDTH"},
        {"gemma-2-2b/3-lapidary-res-2k", "after the model comes LAYER-gemmascope-SITE-WIDTH"},
        {"gemma-2-2b/20-gemmascope-res-16k/x", "after the model comes"},
        {"gemma-2b/20-gemmascope-res-16k", "no such file, model or release; did you mean gemma-2-2b?"},
        {"gemma-scope-2b-res/layer_20/width_16k/canonical", "did you mean gemma-scope-2b-pt-res?"},
        {"google/gemma-scope-9b-pt-rse-canonical/layer_2/width_16k/canonical", "did you mean gemma-scope-9b-pt-res?"},
        {"gema-scope-2b-pt-att/layer_20/width_16k/canonical", "did you mean gemma-scope-2b-pt-att?"},
        {"gemma-scope-2b-pt-res", "Say gemma-scope-2b-pt-res/layer_L/width_W/canonical"},
        {"gemma-scope-2b-pt-res/layer_20", "Say gemma-scope-2b-pt-res/layer_L/width_W/canonical"},
        {"gemma-scope-2b-pt-res/layer_20/width_16k/Canonical", "Say gemma-scope-2b-pt-res/layer_L/"},
        {"gemma-scope-2b-pt-res/layer_020/width_16k/canonical", "Say gemma-scope-2b-pt-res/layer_L/"},
        {"gemma-scope-2b-pt-res/embedding/width_4k/canonical", "have no canonical; name an average_l0_N"},
        {"gemma-scope-2b-pt-mlp/embedding/width_4k/average_l0_44", "has no embedding/width_4k; the layers are 0-25"},
        {"gemma-scope-27b-pt-res/layer_10/width_131k/average_l0_1", "there are 15, 24, 37, 64, 106, 200"},
        {"gema-2-2b", "did you mean gemma-2-2b?"},
        {"3-lapidary-res-2k", "not among the SAEs in the embedded model's folder"},
        {"20-gemmascope-res-16k", "have the model in front, such as gemma-2-2b/20-gemmascope-res-16k"},
    };
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) check_refused(said[i][0], LP_E_NOT_FOUND, said[i][1]);
    check_refused("gemma-scope-2-4b-pt-res/layer_9/width_16k/canonical", LP_E_UNSUPPORTED, "for Gemma 3");
}

#define THEIRS "hub/models--jane--gemma-saes" SNAP

static void test_theirs(void)
{
    static const char get[] = "get it with:  hf download jane/gemma-saes a/b/cfg.json a/b/sae_weights.safetensors";
    check_refused("jane/gemma-saes/a/b", LP_E_NOT_FOUND, get);
    put("hub/models--jane--gemma-saes/refs/main");
    check_refused("jane/gemma-saes/a/b", LP_E_NOT_FOUND, get);
    put(THEIRS "a/b/cfg.json");
    check_refused("jane/gemma-saes/a/b", LP_E_NOT_FOUND, "which lacks sae_weights.safetensors; get it");
    put(THEIRS "a/b/sae_weights.safetensors");
    lp_sae_place p = check_found("jane/gemma-saes/a/b", THEIRS "a/b", "-/-", "jane/gemma-saes");
    CHECK(p.spot.site == LP_N_SITES && p.l0 == 0 && p.width == 0);
    check_refused("jane/gemma-saes", LP_E_NOT_FOUND, "hf download jane/gemma-saes cfg.json sae_weights.safetensors");
    put(THEIRS "cfg.json");
    put(THEIRS "sae_weights.safetensors");
    check_found("jane/gemma-saes", "hub/models--jane--gemma-saes/snapshots/" COMMIT, "-/-", "jane/gemma-saes");
    check_refused("jane/gemma-saes/x.npz", LP_E_NOT_FOUND, "hf download jane/gemma-saes x.npz");
    put(THEIRS "x.npz");
    check_found("jane/gemma-saes/x.npz", THEIRS "x.npz", "-/-", "jane/gemma-saes");
    put("hub/models--joe--gemma-scope-2b-pt-mlp/refs/main"); /* a copy of Google's */
    put("hub/models--joe--gemma-scope-2b-pt-mlp" SNAP "layer_1/width_16k/average_l0_24/params.npz");
    check_found("joe/gemma-scope-2b-pt-mlp/layer_1/width_16k/average_l0_24",
                "hub/models--joe--gemma-scope-2b-pt-mlp" SNAP "layer_1/width_16k/average_l0_24/params.npz",
                "gemma-2-2b/1-gemmascope-mlp-16k__l0-24", "joe/gemma-scope-2b-pt-mlp");
    put("hub/models--evil--x" SNAP "cfg.json");
    put("hub/models--evil--x" SNAP "sae_weights.safetensors");
    put("hub/models--evil--x/refs/main");
    put_file(at(root, "hub/models--evil--x/refs/main"), "../../..", 8); /* leads out */
    check_refused("evil/x", LP_E_NOT_FOUND, "hf download evil/x cfg.json");
}

/* ---- folders ----------------------------------------------------------------------------------------------------- */

static void test_paths(void)
{
    put("p/some/params.npz");
    put("p/some/cfg.json");
    put("p/lens/cfg.json");
    check_refused(at(root, "p/lens"), LP_E_NOT_FOUND, "it lacks sae_weights.safetensors");
    put("p/lens/sae_weights.safetensors");
    put("p/none/x.txt");
    check_found(at(root, "p/some"), "p/some/params.npz", "-/-", "-");
    check_found(at(root, "p/lens"), "p/lens", "-/-", "-");
    check_found(at(root, "p/some/params.npz"), "p/some/params.npz", "-/-", "-");
    check_refused(at(root, "p/none"), LP_E_NOT_FOUND, "it lacks params.npz, or cfg.json and sae_weights.safetensors");
    check_refused(at(root, "p/none/x.txt"), LP_E_UNSUPPORTED, "neither an .npz file nor a folder");
    check_refused(at(root, "p/lens/sae_weights.safetensors"), LP_E_UNSUPPORTED, "name the folder it is in");
    /* A download that is not in the cache. */
    put("dl/gemma-scope-9b-pt-res/layer_20/width_262k/average_l0_50/params.npz");
    check_found(at(root, "dl/gemma-scope-9b-pt-res/layer_20/width_262k/average_l0_50"),
                "dl/gemma-scope-9b-pt-res/layer_20/width_262k/average_l0_50/params.npz",
                "gemma-2-9b/20-gemmascope-res-262k", "google/gemma-scope-9b-pt-res");
}

static void check_told(const char *path, const char *id, lp_site site, int layer, int l0, int width)
{
    lp_sae_place p;
    CHECK(lp_sae_place_from_path(&p, path, NULL) == LP_OK);
    CHECK_STR(p.path, path);
    CHECK_STR(p.source_id ? p.source_id : "-", id);
    CHECK(p.spot.site == site && p.spot.layer == layer && p.l0 == l0 && p.width == width);
    lp_sae_place_clear(&p);
}

static void test_from_path(void)
{
    const int none = LP_WHOLE_MODEL;
    check_told("res/layer_3/width_2k/average_l0_20/params.npz", "3-lapidary-res-2k", LP_RESID_POST, 3, 20, 2048);
    check_told("/a/b/transcoders/layer_3/width_64k/average_l0_20", "3-lapidary-transcoder-64k", LP_MLP_NORMED, 3, 20,
               65536);
    check_told("/a/gemma-scope-2b-pt-mlp/x/layer_3/width_16k/average_l0_95/y.npz", "3-gemmascope-mlp-16k", LP_MLP_OUT,
               3, 95, 16384);
    check_told("/a/gemma-scope-2b-pt-mlp/x/layer_3/width_16k/average_l0_44/", "3-gemmascope-mlp-16k__l0-44", LP_MLP_OUT,
               3, 44, 16384);
    check_told("att/layer_0/width_500/average_l0_0/params.npz", "0-lapidary-att-500", LP_Z, 0, 0, 500);
    check_told("mlp/layer_0/width_3m/average_l0_9/params.npz", "0-lapidary-mlp-3m", LP_MLP_OUT, 0, 9, 3 << 20);
    check_told("layer_3/width_1m/average_l0_20/params.npz", "-", LP_N_SITES, 3, 20, 1 << 20); /* of what? */
    static const char *const nothing[] = {"",
                                          "/",
                                          "params.npz",
                                          "res/layer_3/width_2k/average_l0_20/sub/params.npz",
                                          "res/layer_3/width_2k/average_l0_20/cfg.json",
                                          "res/layer_3/width_2k/average_l0_20x/params.npz",
                                          "res/layer_03/width_2k/average_l0_20/params.npz",
                                          "res/layer_3/width_k/average_l0_20/params.npz",
                                          "res/layer_256/width_2k/average_l0_20/params.npz",
                                          "res/layer_9999999999/width_2k/average_l0_20/params.npz",
                                          "res/layer_3/width_2k/average_l0_20/../params.npz",
                                          "res/xlayer_3/width_2k/average_l0_20/params.npz"};
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++) check_told(nothing[i], "-", LP_N_SITES, none, 0, 0);
}

static void test_embedded(void)
{
    static const char *const files[] = {"saes/res/layer_3/width_2k/average_l0_20/params.npz",
                                        "saes/res/layer_3/width_2k/average_l0_180/params.npz", /* as near to 100 */
                                        "saes/res/layer_3/width_512/average_l0_9/params.npz",
                                        "saes/res/layer_10/width_2k/average_l0_30/params.npz",
                                        "saes/transcoder/layer_2/width_2k/average_l0_31/params.npz",
                                        "saes/att/layer_1/width_2k/average_l0_32/params.npz",
                                        "saes/mlp/layer_1/width_2k/average_l0_33/params.npz"};
    static const char *const ids[] = {"3-lapidary-res-512",      "3-lapidary-res-2k", "3-lapidary-res-2k__l0-180",
                                      "10-lapidary-res-2k",      "1-lapidary-mlp-2k", "1-lapidary-att-2k",
                                      "2-lapidary-transcoder-2k"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) put(files[i]);
    put("saes/res/layer_4/width_2k/average_l0_20/readme");
    put("saes/neurons/layer_4/width_2k/average_l0_20/params.npz");
    char folder[100];
    snprintf(folder, sizeof folder, "%s/saes", root);
    lp_sae_place *all = NULL;
    lp_error err = {0};
    size_t n = 0;
    CHECK(lp_sae_list(&all, &n, folder, &err) == LP_OK && n == sizeof ids / sizeof *ids);
    for (size_t i = 0; i < n; i++) CHECK_STR(all[i].source_id, ids[i]);
    lp_sae_list_free(all, n);
    CHECK(lp_sae_list(&all, &n, at(root, "p/none"), &err) == LP_OK && n == 0);
    lp_sae_list_free(all, n);
    CHECK(lp_sae_list(&all, &n, at(root, "no"), &err) == LP_E_NOT_FOUND && strstr(err.text, "no such folder"));

    embedded = folder;
    static const char *const names[] = {"3-lapidary-res-2k",
                                        "lapidary-base/3-lapidary-res-2k",
                                        "3-lapidary-res-2k__l0-20",
                                        "lapidary-base/3-lapidary-res-2k__l0-20",
                                        "res/layer_3/width_2k/canonical",
                                        "lapidary-base/res/layer_3/width_2k/average_l0_20"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        lp_sae_place p = check_found(names[i], files[0], "lapidary-base/3-lapidary-res-2k", "-");
        CHECK(is_spot(p.spot, LP_RESID_POST, 3, LP_RESID_POST) && p.l0 == 20 && p.width == 2048);
    }
    lp_sae_place p = check_found("lapidary-base/2-lapidary-transcoder-2k/17", files[4],
                                 "lapidary-base/2-lapidary-transcoder-2k", "-");
    CHECK(p.feature == 17);
    check_found("3-lapidary-res-2k__l0-180", files[1], "lapidary-base/3-lapidary-res-2k__l0-180", "-");
    check_found("3-gemmascope-res-2k", files[0], "-/3-gemmascope-res-2k", "-");
    check_refused("5-lapidary-res-2k", LP_E_NOT_FOUND, "/saes: 3-lapidary-res-512, 3-lapidary-res-2k, ");
    check_refused("3-lapidary-res-2k__l0-21", LP_E_NOT_FOUND, "not among the SAEs in ");
    check_refused("lapidary-base/hello", LP_E_NOT_FOUND, "not among the SAEs in ");
    check_refused("20-gemmascope-res-16k", LP_E_NOT_FOUND, "have the model in front");
    for (int i = 0; i < 60; i++) { /* more than a line holds */
        char path[200];
        snprintf(path, sizeof path, "saes/mlp/layer_%d/width_2k/average_l0_1/params.npz", 30 + i);
        put(path);
    }
    check_refused("5-lapidary-res-2k", LP_E_NOT_FOUND, ", ...");
    embedded = at(root, "no");
    check_refused("5-lapidary-res-2k", LP_E_NOT_FOUND, "there are none");
    embedded = NULL;
}

/* ---- hostile names ----------------------------------------------------------------------------------------------- */

static void test_hostile(void)
{
    static const char *const names[] = {"/no/such",   "./x",        "a//b",     "a/",    "-a/b",  "a/-b",   ".a/b",
                                        "a/..",       "a/b/../c",   "a/b..c",   "a b",   "a/b;c", "a/$(b)", "a\nb",
                                        "a/b\x1b[2J", "\xc3\xa9/b", "a/b@main", "a/b:c", "~/x",   "a\\b",   "\x7f"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        check_refused(names[i], LP_E_NOT_FOUND, "no such file or folder");
    check_refused("gemma-2-2b/../20-gemmascope-res-16k", LP_E_NOT_FOUND, "no such file or folder");
    check_refused("google/gemma-scope-2b-pt-res/layer_20/width_16k/../average_l0_71", LP_E_NOT_FOUND, "no such file");
    check_refused("..", LP_E_NOT_FOUND, "no SAE in there");
    check_refused("/", LP_E_NOT_FOUND, "no SAE in there");
    check_refused("", LP_E_NOT_FOUND, "no SAE named");
    static const char *const beginnings[] = {"",
                                             "a/",
                                             "a/b/",
                                             "gemma-2-2b/",
                                             "gemma-2-2b/20-gemmascope-res-16k/1",
                                             "gemma-2-2b/1",
                                             "gemma-2-2b/20-gemmascope-res-1",
                                             "gemma-scope-",
                                             "gemma-scope-2b-pt-res/layer_1",
                                             "gemma-scope-2b-pt-res/layer_20/width_1",
                                             "gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_1",
                                             "lapidary-base/",
                                             "res/layer_3/width_2k/average_l0_1",
                                             "1"};
    static const size_t lengths[] = {90, 100, 255, 256, 5000, 100000};
    static char name[100001];
    for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++) {
        for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
            memset(name, i % 2 ? '1' : 'a', lengths[k]);
            memcpy(name, beginnings[i], strlen(beginnings[i]));
            name[lengths[k]] = 0;
            check_refused(name, LP_E_NOT_FOUND, "");
        }
    }
    /* However long, the command is whole. */
    char want[700];
    memset(name, 'a', 255);
    memcpy(name, "jane/saes/", 10);
    name[255] = 0;
    snprintf(want, sizeof want, "hf download jane/saes %.245s/cfg.json %.245s/sae_weights.safetensors", name + 10,
             name + 10);
    check_refused(name, LP_E_NOT_FOUND, want);
}

static void test_no_cache(void)
{
    unsetenv("HF_HUB_CACHE");
    unsetenv("HF_HOME");
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    check_refused("gemma-2-2b/20-gemmascope-res-16k", LP_E_NOT_FOUND, "Set HF_HOME");
    check_refused("jane/saes/x", LP_E_NOT_FOUND, "Set HF_HOME");
}

/* All that the cache holds of Gemma Scope, sorted within a repository. */
static void test_cached(void)
{
    lp_sae_place *list = NULL;
    size_t n = 0;
    int sparse = 0, coders = 0;
    CHECK(lp_sae_list_cached(&list, &n, NULL) == LP_OK && n >= 8);
    for (size_t i = 0; i < n; i++) {
        CHECK(list[i].source_id && list[i].model_id && list[i].repo && lp_is_file(list[i].path));
        sparse += strcmp(list[i].source_id, "20-gemmascope-res-16k__l0-22") == 0;
        coders += list[i].spot.is_coder;
        if (i == 0 || strcmp(list[i].repo, list[i - 1].repo) != 0) continue;
        CHECK(list[i].spot.layer >= list[i - 1].spot.layer);
    }
    CHECK(sparse == 1 && coders == 3);
    lp_sae_list_free(list, n);
}

int main(void)
{
    CHECK(mkdtemp(root));
    CHECK(chdir(root) == 0); /* so that no name here is by chance a path */
    setenv("HF_HUB_CACHE", at(root, "hub"), 1);
    test_spots();
    test_canonical();
    test_table();
    test_does_not_exist();
    test_release();
    test_other_sites();
    test_theirs();
    test_cached();
    test_paths();
    test_from_path();
    test_embedded();
    test_hostile();
    test_no_cache();
    CHECK(chdir("/") == 0);
    remove_tree(root);
    return check_done();
}
