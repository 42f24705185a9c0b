/* bytes.h - for tests of file formats: files from bytes, folders that go away, the pattern the golden files are filled
 * with. */
#ifndef LP_TESTS_BYTES_H
#define LP_TESTS_BYTES_H

#include "core/tensors.h"

#include "tests/check.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Byte i of tensor number k in tests/goldens/make_format_goldens.py. */
static inline uint8_t pattern_byte(int k, uint64_t i)
{
    return (uint8_t)((7 * i + 31 * (uint64_t)k) % 251);
}

/* The tensor holds the pattern of tensor number k (each byte & mask), and its shape prints as `shape`. */
static inline void check_tensor(const lp_tensors *t, int k, const char *name, const char *type, const char *shape,
                                uint8_t mask)
{
    char text[128];
    lp_error err = {0};
    const lp_tensor *x = lp_tensors_find(t, name);
    CHECK(x);
    if (!x) return;
    CHECK_STR(x->type_name, type);
    CHECK_STR(lp_tensor_shape_text(x, text, sizeof text), shape);
    uint8_t *data = malloc(x->bytes + 1);
    size_t bad = 0;
    CHECK(data && lp_tensors_read(t, x, 0, data, x->bytes, &err) == LP_OK);
    for (uint64_t i = 0; data && i < x->bytes; i++) bad += data[i] != (pattern_byte(k, i) & mask);
    CHECK(bad == 0);
    free(data);
}

static inline void put_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    CHECK(f && (n == 0 || fwrite(data, 1, n, f) == n));
    if (f) CHECK(fclose(f) == 0);
}

/* dir/name in a ring of buffers: good for a statement. */
static inline const char *at(const char *dir, const char *name)
{
    static char ring[4][512];
    static int turn;
    char *p = ring[turn++ & 3];
    snprintf(p, sizeof ring[0], "%s/%s", dir, name);
    return p;
}

/* Removes a folder and what is in it; returns how many plain files it held. */
static inline int remove_tree(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        char *path = lp_path_join(dir, e->d_name);
        struct stat sb;
        bool skip = !path || !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
        if (!skip && lstat(path, &sb) == 0 && S_ISDIR(sb.st_mode))
            n += remove_tree(path);
        else if (!skip)
            n += unlink(path) == 0;
        free(path);
    }
    if (d) closedir(d);
    rmdir(dir);
    return n;
}

#endif
