/* The list of tensors: found by name, read within bounds, duplicates refused, cleared without leaks. */
#include "core/tensors.h"

#include "tests/check.h"

#include <stdlib.h>
#include <unistd.h>

static lp_tensor make(const char *name, uint64_t at, uint64_t bytes)
{
    return (lp_tensor){
        .name = lp_strdup(name), .type_name = "F32", .n_dims = 1, .shape = {1}, .at = at, .bytes = bytes};
}

static void test_list(void)
{
    char path[] = "/tmp/lp_tensors_XXXXXX", buf[8] = {0};
    int fd = mkstemp(path);
    lp_error err = {0};
    lp_tensors t = {.files = calloc(1, sizeof(lp_file)), .n_files = 1, .items = calloc(4, sizeof(lp_tensor)), .n = 4};
    CHECK(fd >= 0 && write(fd, "0123456789", 10) == 10);
    close(fd);
    CHECK(lp_file_open(&t.files[0], path, &err) == LP_OK);
    const char *names[] = {"b", "", "a.weight", "a"};
    for (int i = 0; i < 4; i++) t.items[i] = make(names[i], (uint64_t)i, 4);
    CHECK(lp_tensors_seal(&t, &err) == LP_OK);
    for (int i = 0; i < 4; i++) {
        const lp_tensor *x = lp_tensors_find(&t, names[i]);
        CHECK(x && x->at == (uint64_t)i);
    }
    CHECK(!lp_tensors_find(&t, "a.") && !lp_tensors_find(&t, "c"));
    const lp_tensor *x = lp_tensors_find(&t, "a");
    CHECK(lp_tensors_read(&t, x, 1, buf, 3, &err) == LP_OK && memcmp(buf, "456", 3) == 0);
    CHECK(lp_tensors_read(&t, x, 4, buf, 0, &err) == LP_OK);
    CHECK(lp_tensors_read(&t, x, 2, buf, 3, &err) == LP_E_RANGE);
    CHECK(lp_tensors_read(&t, x, UINT64_MAX, buf, 2, &err) == LP_E_RANGE);
    free(t.items[0].name);
    t.items[0].name = lp_strdup("b");
    CHECK(lp_tensors_seal(&t, &err) == LP_E_FORMAT && strstr(err.text, "\"b\" occurs twice") && strstr(err.text, path));
    lp_tensors_clear(&t);
    CHECK(!t.files && !t.items && !t.n);
    lp_tensors_clear(&t);
    CHECK(!lp_tensors_find(&t, "a"));
    unlink(path);
}

static void test_shape_text(void)
{
    char buf[64], small[6];
    lp_tensor x = {.n_dims = 2, .shape = {256000, 2304}};
    CHECK_STR(lp_tensor_shape_text(&x, buf, sizeof buf), "[256000, 2304]");
    CHECK_STR(lp_tensor_shape_text(&x, small, sizeof small), "[2560");
    x.n_dims = 0;
    CHECK_STR(lp_tensor_shape_text(&x, buf, sizeof buf), "[]");
}

int main(void)
{
    test_list();
    test_shape_text();
    return check_done();
}
