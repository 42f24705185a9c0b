/* Errors stay on one line, files that end early say so, sizes do not overflow. */
#include "core/base.h"

#include "tests/check.h"

#include <stdlib.h>
#include <unistd.h>

static void test_errors_are_one_tame_line(void)
{
    lp_error err;
    CHECK(lp_fail(&err, LP_E_FORMAT, "bad name \"%s\"", "a\nb\033[31m") == LP_E_FORMAT);
    CHECK_STR(err.text, "bad name \"a?b?[31m\"");
    CHECK(lp_prefix(&err, LP_E_FORMAT, "x.gguf") == LP_E_FORMAT);
    CHECK_STR(err.text, "x.gguf: bad name \"a?b?[31m\"");
    CHECK(lp_fail(NULL, LP_E_IO, "nobody listens") == LP_E_IO);
    char big[3 * LP_ERROR_TEXT];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    lp_fail(&err, LP_E_IO, "%s", big);
    CHECK(strlen(err.text) == LP_ERROR_TEXT - 1);
}

static void test_growth(void)
{
    int *a = NULL;
    size_t cap = 0;
    CHECK(lp_grow((void **)&a, &cap, 1, sizeof *a) && cap >= 1);
    CHECK(lp_grow((void **)&a, &cap, 1000, sizeof *a) && cap >= 1000);
    size_t before = cap;
    CHECK(!lp_grow((void **)&a, &cap, SIZE_MAX / 2, sizeof *a));
    CHECK(cap == before && a);
    free(a);
    CHECK(lp_big_alloc(SIZE_MAX - 5) == NULL);
    for (size_t n = 1; n < (size_t)9 << 20; n = n * 3 + 1) {
        unsigned char *p = lp_big_alloc(n);
        CHECK(p && p[0] == 0 && p[n - 1] == 0);
        if (p) p[0] = p[n - 1] = 1;
        lp_big_free(p, n);
    }
}

static void test_files(void)
{
    char path[] = "/tmp/lp_base_XXXXXX", buf[16];
    int fd = mkstemp(path);
    lp_error err = {0};
    lp_file f;
    CHECK(fd >= 0 && write(fd, "hello", 5) == 5);
    close(fd);
    CHECK(lp_file_open(&f, path, &err) == LP_OK && f.size == 5);
    CHECK(lp_file_read(&f, 1, buf, 4, &err) == LP_OK && memcmp(buf, "ello", 4) == 0);
    CHECK(lp_file_read(&f, 1, buf, 5, &err) == LP_E_FORMAT && strstr(err.text, "truncated"));
    CHECK(truncate(path, 2) == 0); /* the file shrinks under us: an error, not a signal */
    CHECK(lp_file_read(&f, 0, buf, 5, &err) == LP_E_FORMAT);
    lp_file_close(&f);
    char *text = NULL;
    size_t n = 0;
    CHECK(lp_read_file(&text, &n, path, 100, &err) == LP_OK && n == 2 && text[2] == 0);
    free(text);
    CHECK(lp_read_file(&text, &n, path, 1, &err) == LP_E_FORMAT);
    unlink(path);
    CHECK(lp_file_open(&f, path, &err) == LP_E_NOT_FOUND);
    CHECK(lp_file_open(&f, "/tmp", &err) == LP_E_IO);
    CHECK(lp_file_open(&f, "/dev/null", &err) == LP_E_IO);
    CHECK(lp_is_dir("/tmp") && !lp_is_file("/tmp"));
    char *j = lp_path_join("a/", "b"), *k = lp_path_join("a", "b");
    CHECK_STR(j, "a/b");
    CHECK_STR(k, "a/b");
    free(j);
    free(k);
    CHECK(lp_memory_available() > 0);
}

static void test_names(void)
{
    CHECK(lp_ends_in("a.gguf", ".gguf") && !lp_ends_in(".gguf", ".gguf") && !lp_ends_in("f", ".gguf"));
    CHECK(lp_edit_distance("", "") == 0 && lp_edit_distance("", "abc") == 3 && lp_edit_distance("abc", "") == 3);
    CHECK(lp_edit_distance("kitten", "sitting") == 3 && lp_edit_distance("genrate", "generate") == 1);
    char big[LP_GUESS + 2];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    CHECK(lp_edit_distance(big, "x") > 1000 && lp_edit_distance("x", big) > 1000);
    CHECK(lp_edit_distance(big + 1, "") == LP_GUESS);
}

int main(void)
{
    test_names();
    test_errors_are_one_tame_line();
    test_growth();
    test_files();
    return check_done();
}
