/* Safetensors: files by the reference writer are read; hostile ones get one line and the right status; ours come back.
 * With --write DIR it only writes DIR/ours.safetensors, for the reference reader (goldens/make_format_goldens.py). */
#include "core/quant.h"
#include "core/safetensors.h"

#include "tests/bytes.h"
#include "tests/check.h"

#include <signal.h>
#include <sys/resource.h>

static char dir[] = "/tmp/lp_safetensors_XXXXXX";

static void test_golden(void)
{
    lp_tensors t = {0};
    lp_error err = {0};
    CHECK(lp_safetensors_open(&t, LP_TESTS_DIR "/goldens/mixed.safetensors", NULL, &err) == LP_OK);
    CHECK_STR(err.text, "");
    CHECK(t.n == 8 && t.n_files == 1);
    check_tensor(&t, 0, "model.embed_tokens.weight", "BF16", "[5, 4]", 255);
    check_tensor(&t, 1, "model.norm.weight", "F32", "[4]", 255);
    check_tensor(&t, 2, "scalar", "F32", "[]", 255);
    check_tensor(&t, 3, "empty", "F16", "[0, 3]", 255);
    check_tensor(&t, 4, "half", "F16", "[2, 1, 3]", 255);
    check_tensor(&t, 5, "ids", "I64", "[3]", 255);
    check_tensor(&t, 6, "mask", "BOOL", "[5]", 1);
    check_tensor(&t, 7, "scale \xc3\xa9\xe4\xb8\xad \"quoted\"", "F32", "[1]", 255);
    const lp_tensor *ids = lp_tensors_find(&t, "ids"), *half = lp_tensors_find(&t, "half");
    CHECK(ids && ids->type == LP_OTHER && half && half->type == LP_F16);
    lp_tensors_clear(&t);
}

/* A file of this header and n bytes of data. */
static void put_safetensors(const char *path, const char *header, size_t header_n, size_t n)
{
    uint8_t *all = calloc(1, 8 + header_n + n);
    CHECK(all);
    if (!all) return;
    for (int i = 0; i < 8; i++) all[i] = (uint8_t)((uint64_t)header_n >> 8 * i);
    memcpy(all + 8, header, header_n);
    for (size_t i = 0; i < n; i++) all[8 + header_n + i] = (uint8_t)i;
    put_file(path, all, 8 + header_n + n);
    free(all);
}

/* Opening fails with that status, and one line that holds `want`. */
static void check_refused(const char *path, lp_status st, const char *want)
{
    lp_tensors t = {0};
    lp_error err = {0};
    CHECK(lp_safetensors_open(&t, path, NULL, &err) == st);
    CHECK(t.n == 0 && t.items == NULL && t.files == NULL);
    CHECK(!strchr(err.text, '\n'));
    if (!strstr(err.text, want)) CHECK_STR(err.text, want);
    lp_tensors_clear(&t);
}

#define T(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static const struct hostile {
    const char *header;
    size_t data;
    const char *want;
} hostiles[] = {
    {"", 0, "does not begin with '{'"},
    {" {}", 0, "does not begin with '{'"},
    {"[]", 0, "does not begin with '{'"},
    {"{", 0, "JSON is broken"},
    {"{} x", 0, "JSON is broken"},
    {"{}", 1, "1 bytes after the last tensor"},
    {"{\"a\":1}", 0, "needs dtype, shape"},
    {"{\"a\":{}}", 0, "needs dtype, shape"},
    {"{\"a\":" T("F32", "[1]", "[0]") "}", 4, "two data_offsets"},
    {"{\"a\":" T("F32", "[1]", "[0,4,8]") "}", 4, "two data_offsets"},
    {"{\"a\":" T("F32", "3", "[0,4]") "}", 4, "needs dtype, shape"},
    {"{\"a\":" T("F33", "[1]", "[0,4]") "}", 4, "dtype \"F33\", which is not known"},
    {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "is not known"},
    {"{\"a\":" T("F32", "[1]", "[4,0]") "}", 4, "two rising integers"},
    {"{\"a\":" T("F32", "[1]", "[-4,0]") "}", 4, "two rising integers"},
    {"{\"a\":" T("F32", "[1]", "[0.0,4.0]") "}", 4, "two rising integers"},
    {"{\"a\":" T("F32", "[1]", "[\"0\",4]") "}", 4, "two rising integers"},
    {"{\"a\":" T("F32", "[1e0]", "[0,4]") "}", 4, "not made of integers"},
    {"{\"a\":" T("F32", "[-1]", "[0,4]") "}", 4, "not made of integers"},
    {"{\"a\":" T("F32", "[null]", "[0,4]") "}", 4, "not made of integers"},
    {"{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "9 dimensions"},
    {"{\"a\":" T("F32", "[2]", "[0,4]") "}", 4, "does not have the 4 bytes"},
    {"{\"a\":" T("F32", "[4294967296,4294967296]", "[0,0]") "}", 0, "does not have the 0 bytes"},
    {"{\"a\":" T("F32", "[4611686018427387904,4]", "[0,0]") "}", 0, "does not have the 0 bytes"},
    {"{\"a\":" T("F32", "[18446744073709551617]", "[0,4]") "}", 4, "JSON is broken"},
    {"{\"a\":" T("F6_E2M3", "[3]", "[0,2]") "}", 2, "does not have"},
    {"{\"a\":" T("F32", "[1]", "[0,4]") "}", 3, "1 bytes after the file"},
    {"{\"a\":" T("F32", "[1]", "[0,4]") "}", 5, "1 bytes after the last tensor"},
    {"{\"a\":" T("F32", "[1]", "[4,8]") "}", 8, "leaving a hole after 0"},
    {"{\"a\":" T("F32", "[1]", "[0,4]") ",\"b\":" T("F32", "[1]", "[5,9]") "}", 9, "leaving a hole after 4"},
    {"{\"a\":" T("F32", "[1]", "[0,4]") ",\"b\":" T("F32", "[1]", "[3,7]") "}", 7, "inside the one that ends at 4"},
    {"{\"a\":" T("F32", "[1]", "[0,4]") ",\"b\":" T("F32", "[1]", "[0,4]") "}", 4, "inside the one that ends at 4"},
    {"{\"a\":" T("U8", "[1152921504606846976]", "[0,1152921504606846976]") "}", 4, "after the file"},
    {"{\"a\":" T("F32", "[1]", "[0,4]") ",\"a\":" T("F32", "[1]", "[4,8]") "}", 8, "duplicate"},
    {"{\"a\\u0000b\":" T("F32", "[1]", "[0,4]") "}", 4, "JSON is broken"},
    {"{\"a\xff\":" T("F32", "[1]", "[0,4]") "}", 4, "JSON is broken"},
    {"{\"\xed\xa0\x80\":" T("F32", "[1]", "[0,4]") "}", 4, "JSON is broken"},
    {"{\"__metadata__\":3}", 0, "may only map strings"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "may only map strings"},
    {"{\"a\":[[[[[[[[]]]]]]]]}", 0, "nested too deeply"},
};

static void test_hostile_headers(void)
{
    const char *path = at(dir, "h.safetensors");
    for (size_t i = 0; i < sizeof hostiles / sizeof *hostiles; i++) {
        put_safetensors(path, hostiles[i].header, strlen(hostiles[i].header), hostiles[i].data);
        check_refused(path, LP_E_FORMAT, hostiles[i].want);
    }
    put_safetensors(path, "{}\0 ", 4, 0); /* a NUL in the text */
    check_refused(path, LP_E_FORMAT, "JSON is broken");
    put_file(path, "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
    check_refused(path, LP_E_FORMAT, "not a safetensors file");
    put_file(path, "\x03\0\0\0\0\0\0\0{}", 10);
    check_refused(path, LP_E_FORMAT, "truncated");
    check_refused("/tmp/lp_no_such_file.safetensors", LP_E_NOT_FOUND, "No such file");
    check_refused("/dev/null", LP_E_IO, "not a regular file");
    /* One name of 1025 bytes; 100 001 tensors; three million values; 200 000 brackets. */
    size_t cap = 20 << 20, n = 0;
    char *big = malloc(cap);
    CHECK(big);
    if (!big) return;
    n = (size_t)sprintf(big, "{\"%0*d\":" T("F32", "[1]", "[0,4]") "}", 1025, 7);
    put_safetensors(path, big, n, 4);
    check_refused(path, LP_E_FORMAT, "name of 1025 bytes");
    n = (size_t)sprintf(big, "{\"%0*d\":" T("F32", "[1]", "[0,4]") "}", 1024, 7);
    put_safetensors(path, big, n, 4);
    lp_tensors t = {0};
    CHECK(lp_safetensors_open(&t, path, NULL, NULL) == LP_OK);
    lp_tensors_clear(&t);
    n = 0;
    for (int i = 0; i <= 100000; i++)
        n += (size_t)sprintf(big + n, "%c\"%d\":" T("F32", "[0]", "[0,0]"), i ? ',' : '{', i);
    n += (size_t)sprintf(big + n, "}");
    put_safetensors(path, big, n, 0);
    check_refused(path, LP_E_FORMAT, "100001 tensors");
    memset(big, ',', 4000000);
    big[0] = '{';
    put_safetensors(path, big, 4000000, 0);
    check_refused(path, LP_E_FORMAT, "too many values");
    memset(big, '[', 200000);
    big[0] = '{';
    put_safetensors(path, big, 200000, 0);
    check_refused(path, LP_E_FORMAT, "nested too deeply");
    free(big);
}

/* Cut anywhere, the golden file is refused. */
static void test_truncated(void)
{
    char *all = NULL;
    size_t n = 0, bad = 0;
    CHECK(lp_read_file(&all, &n, LP_TESTS_DIR "/goldens/mixed.safetensors", 1 << 20, NULL) == LP_OK);
    const char *path = at(dir, "cut.safetensors");
    for (size_t i = 0; i < n; i++) {
        lp_tensors t = {0};
        lp_error err = {0};
        put_file(path, all, i);
        if (lp_safetensors_open(&t, path, NULL, &err) != LP_E_FORMAT || !err.text[0] || t.n) bad++;
        lp_tensors_clear(&t);
    }
    CHECK(bad == 0 && n > 500);
    free(all);
}

/* ---- folders ------------------------------------------------------------------------------------------------- */

static int warned;
static char warning[LP_ERROR_TEXT];

static void on_log(void *user, lp_level level, const char *line)
{
    (void)user;
    if (level == LP_WARN) warned++;
    snprintf(warning, sizeof warning, "%s", line);
}

static void put_text(const char *path, const char *text)
{
    put_file(path, text, strlen(text));
}

static void test_shards(void)
{
    lp_env env = {.log = on_log};
    lp_error err = {0};
    lp_tensors t = {0};
    char *lacking = NULL;
    char model[300], index[400];
    snprintf(model, sizeof model, "%s/m", dir);
    snprintf(index, sizeof index, "%s/model.safetensors.index.json", model);
    CHECK(mkdir(model, 0777) == 0);
    check_refused(model, LP_E_NOT_FOUND, "neither model.safetensors nor");
    CHECK(lp_safetensors_missing(&lacking, model, &err) == LP_OK);
    CHECK_STR(lacking, "model.safetensors");
    free(lacking);
    const char *one = "{\"a\":" T("F32", "[1]", "[0,4]") ",\"x\":" T("F32", "[1]", "[4,8]") "}";
    const char *two = "{\"b\":" T("F16", "[2]", "[0,4]") ",\"a\":" T("F32", "[1]", "[4,8]") "}";
    put_text(index, "{\"metadata\":{\"total_size\":-1.5},"
                    "\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}");
    put_safetensors(at(model, "one.safetensors"), one, strlen(one), 8);
    check_refused(model, LP_E_NOT_FOUND, "two.safetensors: the index names this shard but it is not there");
    CHECK(lp_safetensors_missing(&lacking, model, &err) == LP_OK);
    CHECK_STR(lacking, "two.safetensors");
    free(lacking);
    put_safetensors(at(model, "two.safetensors"), two, strlen(two), 8);
    CHECK(lp_safetensors_open(&t, model, &env, &err) == LP_OK);
    CHECK(t.n == 2 && t.n_files == 2 && warned == 2);
    CHECK_STR(warning, "two.safetensors: tensor \"a\" is not in the index and is ignored");
    const lp_tensor *a = lp_tensors_find(&t, "a");
    uint8_t buf[4] = {9};
    CHECK(a && a->file == 0 && lp_tensors_read(&t, a, 0, buf, 4, &err) == LP_OK && buf[0] == 0 && buf[3] == 3);
    lp_tensors_clear(&t);
    CHECK(lp_safetensors_missing(&lacking, model, &err) == LP_OK && !lacking);

    put_text(index, "{\"weight_map\":{\"a\":\"one.safetensors\",\"c\":\"two.safetensors\"}}");
    check_refused(model, LP_E_FORMAT, "tensor \"c\" is in two.safetensors, which does not hold it");
    static const char *const tricks[] = {"../one.safetensors", "/etc/passwd", "a\\\\b", "..", "", "x..y", "d/one"};
    for (size_t i = 0; i < sizeof tricks / sizeof *tricks; i++) {
        char text[200];
        snprintf(text, sizeof text, "{\"weight_map\":{\"a\":\"%s\"}}", tricks[i]);
        put_text(index, text);
        check_refused(model, LP_E_FORMAT, "is not the name of a file beside it");
        CHECK(lp_safetensors_missing(&lacking, model, &err) == LP_E_FORMAT && !lacking);
    }
    put_text(index, "{\"weight_map\":{\"a\":3}}");
    check_refused(model, LP_E_FORMAT, "is not the name of a file beside it");
    put_text(index, "{\"weight_map\":{}}");
    check_refused(model, LP_E_FORMAT, "weight_map is missing or empty");
    put_text(index, "{\"weight_map\":[\"a\"]}");
    check_refused(model, LP_E_FORMAT, "weight_map is missing or empty");
    put_text(index, "[]");
    check_refused(model, LP_E_FORMAT, "not an object");
    put_text(index, "");
    check_refused(model, LP_E_FORMAT, "JSON is broken");
    put_text(index, "{\"weight_map\":{\"a\":\"one.safetensors\",\"a\":\"two.safetensors\"}}");
    check_refused(model, LP_E_FORMAT, "duplicate");
    /* A single file wins over an index. */
    put_safetensors(at(model, "model.safetensors"), one, strlen(one), 8);
    CHECK(lp_safetensors_open(&t, model, &env, &err) == LP_OK && t.n == 2 && t.n_files == 1);
    lp_tensors_clear(&t);
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

typedef struct ours {
    const char *name;
    lp_dtype type;
    int n_dims;
    int64_t shape[2];
    size_t bytes;
    const char *text;
} ours;

static const ours tensors[] = {
    {"scalar", LP_F32, 0, {0}, 4, "[]"},
    {"b \xc3\xa9\"\\", LP_F32, 2, {2, 3}, 24, "[2, 3]"},
    {"model.embed_tokens.weight", LP_BF16, 2, {5, 4}, 40, "[5, 4]"},
    {"half", LP_F16, 1, {3}, 6, "[3]"},
    {"empty", LP_BF16, 1, {0}, 0, "[0]"},
};
static const int numbers[] = {4, 1, 0, 2, 3}; /* of the pattern, as the script has them */

static lp_status declare_ours(lp_safetensors_writer *w, lp_error *err)
{
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        LP_TRY(lp_safetensors_declare(w, tensors[i].name, tensors[i].type, tensors[i].n_dims, tensors[i].shape, err));
    LP_TRY(lp_safetensors_metadata(w, "format", "pt", err));
    return lp_safetensors_metadata(w, "by", "caf\xc3\xa9", err);
}

static lp_status write_ours(const char *path, lp_error *err)
{
    lp_safetensors_writer *w = NULL;
    lp_status st = lp_safetensors_create(&w, path, err);
    if (st == LP_OK) st = declare_ours(w, err);
    if (st == LP_OK) st = lp_safetensors_begin(w, err);
    for (size_t k = 0; k < sizeof tensors / sizeof *tensors; k++)
        for (size_t i = 0; i < tensors[k].bytes && st == LP_OK; i++) { /* a byte at a time: pieces of any size */
            uint8_t b = pattern_byte(numbers[k], i);
            st = lp_safetensors_write(w, &b, 1, err);
        }
    if (st == LP_OK) st = lp_safetensors_end(w, err);
    lp_safetensors_close(w);
    return st;
}

static void test_written_file_comes_back(void)
{
    lp_error err = {0};
    lp_tensors t = {0};
    const char *path = at(dir, "ours.safetensors");
    CHECK(write_ours(path, &err) == LP_OK);
    CHECK(write_ours(path, &err) == LP_OK); /* again: replaces */
    CHECK(lp_safetensors_open(&t, path, NULL, &err) == LP_OK && t.n == 5);
    CHECK_STR(err.text, "");
    for (size_t k = 0; k < sizeof tensors / sizeof *tensors; k++)
        check_tensor(&t, numbers[k], tensors[k].name, lp_dtype_name(tensors[k].type), tensors[k].text, 255);
    for (size_t k = 0; k < t.n; k++) CHECK(t.items[k].at % 2 == 0);
    lp_tensors_clear(&t);
}

static void test_failed_writes_leave_nothing(void)
{
    lp_error err = {0};
    lp_safetensors_writer *w = NULL;
    char out[300];
    int64_t one = 1, minus = -1, huge[2] = {INT64_MAX, INT64_MAX};
    snprintf(out, sizeof out, "%s/out", dir);
    CHECK(mkdir(out, 0777) == 0);
    CHECK(lp_safetensors_create(&w, at(out, "f"), &err) == LP_OK);
    CHECK(lp_safetensors_declare(w, "h", LP_F16, 1, &one, &err) == LP_OK);
    CHECK(lp_safetensors_declare(w, "h", LP_F16, 1, &one, &err) == LP_E_RANGE && strstr(err.text, "is taken"));
    CHECK(lp_safetensors_declare(w, "__metadata__", LP_F16, 1, &one, &err) == LP_E_RANGE);
    CHECK(lp_safetensors_declare(w, "f", LP_F32, 1, &one, &err) == LP_E_SHAPE && strstr(err.text, "wider types"));
    CHECK(lp_safetensors_declare(w, "m", LP_F16, 1, &minus, &err) == LP_E_SHAPE);
    CHECK(lp_safetensors_declare(w, "b", LP_F16, 2, huge, &err) == LP_E_SHAPE);
    CHECK(lp_safetensors_declare(w, "q", LP_Q8_0, 1, &one, &err) == LP_E_SHAPE);
    CHECK(lp_safetensors_declare(w, "\xff", LP_F16, 1, &one, &err) == LP_E_RANGE && strstr(err.text, "UTF-8"));
    CHECK(lp_safetensors_metadata(w, "k", "\xff", &err) == LP_E_RANGE);
    CHECK(lp_safetensors_write(w, "ab", 2, &err) == LP_E_RANGE); /* before begin */
    CHECK(lp_safetensors_end(w, &err) == LP_E_RANGE);
    CHECK(lp_safetensors_begin(w, &err) == LP_OK);
    CHECK(lp_safetensors_declare(w, "late", LP_F16, 1, &one, &err) == LP_E_SHAPE);
    CHECK(lp_safetensors_write(w, "abc", 3, &err) == LP_E_RANGE && strstr(err.text, "more bytes"));
    CHECK(lp_safetensors_write(w, "a", 1, &err) == LP_OK);
    CHECK(lp_safetensors_end(w, &err) == LP_E_RANGE && strstr(err.text, "fewer bytes"));
    CHECK(!lp_is_file(at(out, "f")));
    lp_safetensors_close(w);
    w = NULL;
    CHECK(lp_safetensors_create(&w, at(out, "no/such/folder"), &err) == LP_E_IO && !w);
    CHECK(lp_safetensors_create(&w, out, &err) == LP_E_IO && strstr(err.text, "is a folder"));
    lp_safetensors_close(NULL);
    CHECK(remove_tree(out) == 0);
}

/* A full disk, played by a limit on file size: the write fails and says so, the old file stays. */
static void test_old_file_survives(void)
{
    lp_error err = {0};
    lp_safetensors_writer *w = NULL;
    int64_t n = 1 << 20;
    struct rlimit limit, low;
    char out[300], *text = NULL, *zeros = calloc((size_t)n, 4);
    snprintf(out, sizeof out, "%s/old", dir);
    CHECK(mkdir(out, 0777) == 0 && zeros);
    put_text(at(out, "f"), "old");
    CHECK(lp_safetensors_create(&w, at(out, "f"), &err) == LP_OK);
    CHECK(lp_safetensors_declare(w, "x", LP_F32, 1, &n, &err) == LP_OK && lp_safetensors_begin(w, &err) == LP_OK);
    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0 && signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    low = limit;
    low.rlim_cur = 100000;
    CHECK(setrlimit(RLIMIT_FSIZE, &low) == 0);
    CHECK(lp_safetensors_write(w, zeros, (size_t)n * 4, &err) == LP_E_IO && strstr(err.text, "cannot write"));
    CHECK(lp_safetensors_end(w, &err) == LP_E_RANGE);
    lp_safetensors_close(w);
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    CHECK(lp_read_file(&text, NULL, at(out, "f"), 10, &err) == LP_OK);
    CHECK_STR(text, "old");
    free(text);
    free(zeros);
    CHECK(remove_tree(out) == 1);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--write") == 0) {
        lp_error err = {0};
        if (write_ours(at(argv[2], "ours.safetensors"), &err) != LP_OK) fprintf(stderr, "%s\n", err.text);
        return err.status != LP_OK;
    }
    CHECK(mkdtemp(dir));
    test_golden();
    test_hostile_headers();
    test_truncated();
    test_shards();
    test_written_file_comes_back();
    test_failed_writes_leave_nothing();
    test_old_file_survives();
    remove_tree(dir);
    return check_done();
}
