/* npz.c - see npz.h. */
#include "sae/npz.h"

#include "core/quant.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

enum { MAX_MEMBERS = 256, MAX_HEADER = 65536, PIECE = 16384 };

struct lp_npz {
    char *path;
    zip_t *zip;
    lp_npz_array *arrays;
    int n;
    zip_file_t *open; /* the array being read, behind its header */
    const lp_npz_array *reading;
    uint64_t left; /* elements of it */
    unsigned char piece[PIECE];
};

static lp_status broken(const lp_npz *z, const char *member, const char *what, lp_error *err)
{
    return lp_fail(err, LP_E_FORMAT, "%s: %s: %s", z->path, member, what);
}

/* ---- the header of a member ---------------------------------------------------------------------------------- */

/* `n` bytes or an error; libzip checks the checksum with the last of them. */
static lp_status take(lp_npz *z, zip_file_t *f, const char *member, void *buf, size_t n, lp_error *err)
{
    size_t got = 0;
    while (got < n) {
        zip_int64_t k = zip_fread(f, (char *)buf + got, n - got);
        if (k < 0) return broken(z, member, zip_file_strerror(f), err);
        if (k == 0) return broken(z, member, "ends early; fetch the file again", err);
        got += (size_t)k;
    }
    return LP_OK;
}

/* The text after 'key': in the dict, blanks skipped; NULL: no such key. */
static const char *value_of(const char *dict, const char *key)
{
    char quoted[32];
    snprintf(quoted, sizeof quoted, "'%s'", key);
    const char *at = strstr(dict, quoted);
    if (!at) return NULL;
    at += strlen(quoted);
    while (isspace((unsigned char)*at)) at++;
    if (*at++ != ':') return NULL;
    while (isspace((unsigned char)*at)) at++;
    return at;
}

static bool read_shape(lp_npz_array *a, const char *s)
{
    if (!s || *s++ != '(') return false;
    a->n = 1;
    for (;;) {
        while (isspace((unsigned char)*s) || *s == ',') s++;
        if (*s == ')') return true;
        char *end;
        long long d = strtoll(s, &end, 10);
        if (!isdigit((unsigned char)*s) || a->n_dims == LP_NPZ_MAX_DIMS || d < 0 || d > INT32_MAX) return false;
        if (__builtin_mul_overflow(a->n, (uint64_t)d, &a->n)) return false;
        a->shape[a->n_dims++] = d;
        s = end;
    }
}

static lp_status unsupported(const lp_npz *z, const char *member, const char *descr, lp_error *err)
{
    return lp_fail(err, LP_E_UNSUPPORTED, "%s: %s: elements of type %.12s; '<f2', '<f4' and '<f8' are read", z->path,
                   member, descr);
}

static lp_status read_dict(lp_npz *z, lp_npz_array *a, const char *member, const char *dict, lp_error *err)
{
    const char *descr = value_of(dict, "descr"), *order = value_of(dict, "fortran_order");
    if (!descr || !order || !read_shape(a, value_of(dict, "shape")))
        return broken(z, member, "not an array header NumPy would write", err);
    bool is_known = strncmp(descr, "'<", 2) == 0 && strchr("fiu", descr[2]) && descr[2] && strchr("248", descr[3]) &&
                    descr[3] && descr[4] == '\'';
    if (!is_known) return unsupported(z, member, descr, err);
    a->kind = descr[2], a->element = descr[3] - '0';
    a->is_fortran = strncmp(order, "True", 4) == 0 && a->n_dims > 1;
    return LP_OK;
}

/* Reads magic, version, length and dict; *bytes: how long all that is. */
static lp_status read_header(lp_npz *z, lp_npz_array *a, zip_file_t *f, const char *member, uint64_t *bytes,
                             lp_error *err)
{
    unsigned char head[12];
    LP_TRY(take(z, f, member, head, 10, err));
    if (memcmp(head, "\x93NUMPY", 6) != 0) return broken(z, member, "not a NumPy array", err);
    size_t length = head[8] | (size_t)head[9] << 8;
    *bytes = 10;
    if (head[6] >= 2) {
        LP_TRY(take(z, f, member, head + 10, 2, err));
        length |= (size_t)head[10] << 16 | (size_t)head[11] << 24;
        *bytes = 12;
    }
    if (head[6] < 1 || head[6] > 3 || length > MAX_HEADER)
        return broken(z, member, "an array header of unknown version or absurd length", err);
    char *dict = lp_calloc(length + 1, 1);
    if (!dict) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", z->path);
    lp_status st = take(z, f, member, dict, length, err);
    if (st == LP_OK) st = read_dict(z, a, member, dict, err);
    free(dict);
    *bytes += length;
    return st;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

static lp_status read_member(lp_npz *z, zip_uint64_t i, lp_error *err)
{
    zip_stat_t stat;
    if (zip_stat_index(z->zip, i, 0, &stat) != 0 || !(stat.valid & ZIP_STAT_NAME) || !(stat.valid & ZIP_STAT_SIZE))
        return lp_fail(err, LP_E_FORMAT, "%s: its directory cannot be read", z->path);
    if (!lp_ends_in(stat.name, ".npy")) return broken(z, stat.name, "not an array; is this an .npz file?", err);
    lp_npz_array *a = &z->arrays[z->n];
    *a = (lp_npz_array){.index = i, .name = lp_strdup(stat.name)};
    if (!a->name) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", z->path);
    z->n++;
    zip_file_t *f = zip_fopen_index(z->zip, i, 0);
    if (!f) return broken(z, a->name, zip_strerror(z->zip), err);
    uint64_t header = 0, size;
    lp_status st = read_header(z, a, f, a->name, &header, err);
    zip_fclose(f);
    if (st != LP_OK) return st;
    if (__builtin_mul_overflow(a->n, (uint64_t)a->element, &size) || __builtin_add_overflow(size, header, &size) ||
        size != stat.size)
        return broken(z, a->name, "its size is not what its shape calls for", err);
    a->name[strlen(a->name) - 4] = 0;
    for (int j = 0; j < z->n - 1; j++)
        if (strcmp(z->arrays[j].name, a->name) == 0) return broken(z, a->name, "there twice", err);
    return LP_OK;
}

lp_status lp_npz_open(lp_npz **out, const char *path, lp_error *err)
{
    lp_file probe;
    LP_TRY(lp_file_open(&probe, path, err)); /* the message for what is not there, or is no file, is ours */
    lp_file_close(&probe);
    lp_npz *z = lp_calloc(1, sizeof *z);
    lp_status st = LP_OK;
    int code = 0;
    if (!z || !(z->path = lp_strdup(path))) {
        st = lp_fail(err, LP_E_MEMORY, "%s: out of memory", path);
        goto out;
    }
    if (!(z->zip = zip_open(path, ZIP_RDONLY, &code))) {
        zip_error_t e;
        zip_error_init_with_code(&e, code);
        st = lp_fail(err, LP_E_FORMAT, "%s: %s", path, zip_error_strerror(&e));
        zip_error_fini(&e);
        goto out;
    }
    zip_int64_t n = zip_get_num_entries(z->zip, 0);
    if (n < 1 || n > MAX_MEMBERS) {
        st = lp_fail(err, LP_E_FORMAT, "%s: %lld members; an SAE has five", path, (long long)n);
        goto out;
    }
    if (!(z->arrays = lp_calloc((size_t)n, sizeof *z->arrays))) {
        st = lp_fail(err, LP_E_MEMORY, "%s: out of memory", path);
        goto out;
    }
    for (zip_int64_t i = 0; i < n && st == LP_OK; i++) st = read_member(z, (zip_uint64_t)i, err);
    if (st == LP_OK) {
        *out = z;
        z = NULL;
    }
out:
    lp_npz_close(z);
    return st;
}

void lp_npz_close(lp_npz *z)
{
    if (!z) return;
    if (z->open) zip_fclose(z->open);
    if (z->zip) zip_discard(z->zip);
    for (int i = 0; i < z->n; i++) free(z->arrays[i].name);
    free(z->arrays);
    free(z->path);
    free(z);
}

int lp_npz_count(const lp_npz *z)
{
    return z->n;
}

const lp_npz_array *lp_npz_at(const lp_npz *z, int i)
{
    return &z->arrays[i];
}

const lp_npz_array *lp_npz_find(const lp_npz *z, const char *name)
{
    for (int i = 0; i < z->n; i++)
        if (strcmp(z->arrays[i].name, name) == 0) return &z->arrays[i];
    return NULL;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static void stop_reading(lp_npz *z)
{
    if (z->open) zip_fclose(z->open);
    z->open = NULL;
}

lp_status lp_npz_begin(lp_npz *z, const lp_npz_array *a, lp_error *err)
{
    uint64_t header;
    lp_npz_array again = {0};
    stop_reading(z);
    z->open = zip_fopen_index(z->zip, a->index, 0);
    if (!z->open) return broken(z, a->name, zip_strerror(z->zip), err);
    z->reading = a;
    z->left = a->n;
    return read_header(z, &again, z->open, a->name, &header, err);
}

static void convert(float *out, const unsigned char *in, size_t n, int element)
{
    if (element == 8) {
        for (size_t i = 0; i < n; i++) {
            double d;
            memcpy(&d, in + 8 * i, 8);
            out[i] = (float)d;
        }
    } else {
        lp_to_f32(element == 2 ? LP_F16 : LP_F32, in, out, n);
    }
}

lp_status lp_npz_read(lp_npz *z, float *out, size_t n, lp_error *err)
{
    assert(z->open);
    const lp_npz_array *a = z->reading;
    size_t element = (size_t)a->element;
    char descr[] = {'\'', '<', a->kind, (char)('0' + a->element), '\'', 0};
    if (a->kind != 'f') return unsupported(z, a->name, descr, err);
    if (n > z->left) return broken(z, a->name, "fewer elements than asked for", err);
    z->left -= n;
    if (element == 4)
        return take(z, z->open, a->name, out, n * 4, err); /* little-endian, as every machine this runs on */
    while (n > 0) {
        size_t k = n < PIECE / element ? n : PIECE / element;
        LP_TRY(take(z, z->open, a->name, z->piece, k * element, err));
        convert(out, z->piece, k, a->element);
        out += k;
        n -= k;
    }
    return LP_OK;
}

lp_status lp_npz_read_whole(lp_npz *z, int64_t *out, size_t n, lp_error *err)
{
    assert(z->open);
    const lp_npz_array *a = z->reading;
    if (a->kind == 'f') return broken(z, a->name, "holds fractions where whole numbers are expected", err);
    if (n > z->left) return broken(z, a->name, "fewer elements than asked for", err);
    z->left -= n;
    size_t element = (size_t)a->element;
    for (; n > 0; n--, out++) {
        uint64_t v = 0;
        LP_TRY(take(z, z->open, a->name, &v, element, err)); /* little-endian */
        uint64_t sign = a->kind == 'i' ? (uint64_t)1 << (8 * element - 1) : 0;
        if (a->kind == 'u' && v >> 63) return lp_fail(err, LP_E_RANGE, "%s: %s: a number above 2^63", z->path, a->name);
        *out = (int64_t)((v ^ sign) - sign);
    }
    return LP_OK;
}

lp_status lp_npz_end(lp_npz *z, lp_error *err)
{
    assert(z->open);
    char one;
    if (z->left) return broken(z, z->reading->name, "not read to its end", err);
    zip_int64_t k = zip_fread(z->open, &one, 1); /* the checksum is compared when the end is met */
    if (k != 0) {
        lp_status st = broken(z, z->reading->name, k < 0 ? zip_file_strerror(z->open) : "longer than its shape", err);
        stop_reading(z);
        return st;
    }
    stop_reading(z);
    return LP_OK;
}
