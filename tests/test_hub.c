/* From a name to a place: folders, files, the Hugging Face cache in all its forms, and what is said when it is not there. */
#include "core/hub.h"

#include "tests/bytes.h"
#include "tests/check.h"

static char root[] = "/tmp/lp_hub_XXXXXX";

#define COMMIT "0123456789abcdef0123456789abcdef01234567"
#define OTHER  "fedcba9876543210fedcba9876543210fedcba98"

/* Makes root/path with the folders above it; text NULL: a folder. */
static void put(const char *path, const char *text)
{
    char full[600];
    snprintf(full, sizeof full, "%s/%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        mkdir(full, 0777);
        *p = '/';
    }
    if (text)
        put_file(full, text, strlen(text));
    else
        mkdir(full, 0777);
}

static void check_found(const char *name, const char *want)
{
    char *got = NULL, full[600];
    lp_error err = {0};
    snprintf(full, sizeof full, want[0] == '/' ? "%.0s%s" : "%s/%s", root, want);
    CHECK(lp_hub_find(&got, name, &err) == LP_OK);
    CHECK_STR(err.text, "");
    CHECK_STR(got, full);
    free(got);
}

static void check_refused(const char *name, lp_status st, const char *want)
{
    char *got = NULL;
    lp_error err = {0};
    CHECK(lp_hub_find(&got, name, &err) == st && !got);
    CHECK(!strchr(err.text, '\n'));
    if (!strstr(err.text, want)) CHECK_STR(err.text, want);
}

static void check_cache(const char *want)
{
    char *got = lp_hub_cache();
    if (want)
        CHECK_STR(got, want);
    else
        CHECK(!got);
    free(got);
}

static void test_cache_folder(void)
{
    setenv("HF_HUB_CACHE", "/a", 1);
    setenv("HF_HOME", "/b", 1);
    setenv("XDG_CACHE_HOME", "/c", 1);
    setenv("HOME", "/d", 1);
    check_cache("/a");
    setenv("HF_HUB_CACHE", "", 1); /* empty is unset */
    check_cache("/b/hub");
    setenv("HF_HOME", "~/x", 1);
    check_cache("/d/x/hub");
    unsetenv("HF_HOME");
    check_cache("/c/huggingface/hub");
    unsetenv("XDG_CACHE_HOME");
    check_cache("/d/.cache/huggingface/hub");
    unsetenv("HOME");
    check_cache(NULL);
    check_refused("google/gemma-2-2b", LP_E_NOT_FOUND, "Set HF_HOME");
    setenv("HF_HOME", root, 1);
}

static void test_paths(void)
{
    put("here/config.json", "{}");
    put("x.gguf", "GGUF");
    put("x.safetensors", "");
    check_found(at(root, "here"), "here");
    check_found(at(root, "x.gguf"), "x.gguf");
    check_refused(at(root, "x.safetensors"), LP_E_UNSUPPORTED, "neither a .gguf file nor a folder");
    static const char *const gone[] = {
        "/no/such", "./no",          "../no",        "no.gguf",         "a/b/c", "a/",
        "/",        "~/x",           "a\\b",         "a/b.gguf",        "-a/b",  "a/-b",
        ".a/b",     "a/..",          "a/b..c",       "a/b c",           "a//b",  "\xc3\xa9/b",
        "a/b:",     "a/b:../c.gguf", "a/b:/c.gguf",  "a/b:c/../d.gguf", "a/b@",  "a/b@../x",
        "a/b@/x",   "a/b:c//d.gguf", "a/b:./c.gguf", "a/b:c;d.gguf"};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
        if (!lp_is_dir(gone[i])) check_refused(gone[i], LP_E_NOT_FOUND, "no such file or folder");
    check_refused("gemma-2-2b", LP_E_NOT_FOUND, "and not a Hub id either (those are owner/name)");
    check_refused("", LP_E_NOT_FOUND, "no model named");
}

static void test_absent(void)
{
    check_refused("google/gemma-2-2b", LP_E_NOT_FOUND, "get it with:  hf download google/gemma-2-2b");
    check_refused("google/gemma-2-2b@v1", LP_E_NOT_FOUND, "hf download google/gemma-2-2b --revision v1");
    check_refused("o/n:dir/f.gguf", LP_E_NOT_FOUND, "hf download o/n dir/f.gguf");
    check_refused("o/n@r:f.gguf", LP_E_NOT_FOUND, "hf download o/n f.gguf --revision r");
    check_refused("o/n:config.json", LP_E_UNSUPPORTED, "only a .gguf file");
    char name[400];
    memset(name, 'a', sizeof name);
    memcpy(name, "o/", 2);
    name[98] = 0; /* 96 characters: still a name, and its command is not cut off */
    char want[500];
    snprintf(want, sizeof want, "hf download %s", name);
    check_refused(name, LP_E_NOT_FOUND, want);
    name[98] = 'a', name[99] = 0;
    check_refused(name, LP_E_NOT_FOUND, "no such file or folder");
}

#define REPO "hub/models--google--gemma-2-2b/"

static void test_snapshots(void)
{
    put(REPO "refs/main", COMMIT "\n");
    put(REPO "snapshots", NULL);
    check_refused("google/gemma-2-2b", LP_E_NOT_FOUND, "that revision is not in the Hugging Face cache");
    put(REPO "snapshots/" COMMIT "/README.md", "");
    check_refused("google/gemma-2-2b", LP_E_NOT_FOUND,
                  "not complete: config.json is missing; get it with:  hf download google/gemma-2-2b");
    put(REPO "snapshots/" COMMIT "/config.json", "{}");
    check_refused("google/gemma-2-2b", LP_E_NOT_FOUND, "not complete: model.safetensors is missing");
    put(REPO "snapshots/" COMMIT "/model.safetensors.index.json",
        "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}");
    put(REPO "snapshots/" COMMIT "/m-1.safetensors", "");
    check_refused("google/gemma-2-2b", LP_E_NOT_FOUND, "not complete: m-2.safetensors is missing");
    /* A link into blobs/ whose blob is gone is not there either. */
    CHECK(symlink("../../blobs/none", at(root, REPO "snapshots/" COMMIT "/m-2.safetensors")) == 0);
    check_refused("google/gemma-2-2b", LP_E_NOT_FOUND, "not complete: m-2.safetensors is missing");
    put(REPO "blobs/none", "");
    check_found("google/gemma-2-2b", REPO "snapshots/" COMMIT);
    check_found("google/gemma-2-2b@" COMMIT, REPO "snapshots/" COMMIT);
    check_refused("google/gemma-2-2b@" OTHER, LP_E_NOT_FOUND, "--revision " OTHER);
    put(REPO "refs/refs/pr/7", OTHER);
    put(REPO "snapshots/" OTHER "/config.json", "{}");
    put(REPO "snapshots/" OTHER "/model.safetensors", "");
    check_found("google/gemma-2-2b@refs/pr/7", REPO "snapshots/" OTHER);
    check_found("google/gemma-2-2b@" OTHER, REPO "snapshots/" OTHER);
    put(REPO "refs/evil", "../../../../../etc");
    check_refused("google/gemma-2-2b@evil", LP_E_NOT_FOUND, "--revision evil");
    put(REPO "refs/empty", "");
    check_refused("google/gemma-2-2b@empty", LP_E_NOT_FOUND, "--revision empty");
    /* A broken index is an error of its own, not a download to repeat. */
    put(REPO "snapshots/" COMMIT "/model.safetensors.index.json", "{");
    check_refused("google/gemma-2-2b", LP_E_FORMAT, "JSON is broken");
}

#define GGUFS "hub/models--o--gemma-gguf/"

/* A repository's folder, whatever is in it: no model is looked for. */
static void test_folder_of_a_repository(void)
{
    char *folder = NULL;
    lp_error err = {0};
    put(GGUFS "refs/main", COMMIT);
    put(GGUFS "snapshots/" COMMIT "/b.txt", "");
    CHECK(lp_hub_snapshot(&folder, "o/gemma-gguf", &err) == LP_OK);
    if (folder) CHECK_STR(folder, at(root, GGUFS "snapshots/" COMMIT));
    free(folder);
    CHECK(lp_hub_snapshot(&folder, "o/other", &err) == LP_E_NOT_FOUND && strstr(err.text, "hf download o/other"));
    static const char *const bad[] = {"o", "o/x:file", "o/x@main", "../x", "o/..", ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK(lp_hub_snapshot(&folder, bad[i], &err) == LP_E_RANGE);
}

static void test_gguf_repository(void)
{
    put(GGUFS "refs/main", COMMIT);
    put(GGUFS "snapshots/" COMMIT "/b.Q8_0.gguf", "");
    put(GGUFS "snapshots/" COMMIT "/a.Q4_K_M.gguf", "");
    put(GGUFS "snapshots/" COMMIT "/sub/c.gguf", "");
    check_refused("o/gemma-gguf", LP_E_NOT_FOUND,
                  "holds GGUF files; name one as o/gemma-gguf:FILE (a.Q4_K_M.gguf, b.Q8_0.gguf)");
    check_found("o/gemma-gguf:b.Q8_0.gguf", GGUFS "snapshots/" COMMIT "/b.Q8_0.gguf");
    check_found("o/gemma-gguf:sub/c.gguf", GGUFS "snapshots/" COMMIT "/sub/c.gguf");
    check_found("o/gemma-gguf@main:b.Q8_0.gguf", GGUFS "snapshots/" COMMIT "/b.Q8_0.gguf");
    check_refused("o/gemma-gguf:d.gguf", LP_E_NOT_FOUND,
                  "without d.gguf; get it with:  hf download o/gemma-gguf d.gguf");
    for (int i = 0; i < 60; i++) { /* more than one line holds */
        char name[200];
        snprintf(name, sizeof name, GGUFS "snapshots/" COMMIT "/a-rather-long-name-number-%d.gguf", i);
        put(name, "");
    }
    check_refused("o/gemma-gguf", LP_E_NOT_FOUND, "holds GGUF files");
}

static void test_one_file(void)
{
    char *got = NULL;
    lp_error err = {0};
    put("hub/models--google--scope/refs/main", COMMIT);
    put("hub/models--google--scope/snapshots/" COMMIT "/layer_20/width_16k/params.npz", "");
    CHECK(lp_hub_file(&got, "google/scope", "layer_20/width_16k/params.npz", &err) == LP_OK);
    CHECK(got && lp_is_file(got));
    free(got);
    got = NULL;
    CHECK(lp_hub_file(&got, "google/scope", "layer_21/params.npz", &err) == LP_E_NOT_FOUND && !got);
    CHECK(strstr(err.text, "hf download google/scope layer_21/params.npz"));
    static const char *const bad[][2] = {{"google/scope", "../x"},
                                         {"google/scope", "/etc/passwd"},
                                         {"google/scope", ""},
                                         {"google", "x"},
                                         {"google", "a/x"},
                                         {"a/b:c", "x"},
                                         {"../b", "x"},
                                         {"google/scope", "a:b"},
                                         {"google/scope", "a/"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(lp_hub_file(&got, bad[i][0], bad[i][1], &err) == LP_E_RANGE && !got);
        CHECK(strstr(err.text, "not a Hub id"));
    }
}

int main(void)
{
    CHECK(mkdtemp(root));
    CHECK(chdir(root) == 0); /* so that no name here is by chance a path */
    test_cache_folder();
    test_paths();
    test_absent();
    test_snapshots();
    test_folder_of_a_repository();
    test_gguf_repository();
    test_one_file();
    CHECK(chdir("/") == 0);
    remove_tree(root);
    return check_done();
}
