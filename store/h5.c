/* h5.c - see h5.h: the lock, errors, files, groups, attributes, strings. */
#include "store/h5.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_PART = 256, CACHE_SLOTS = 521, CACHE_BYTES = 256 << 10 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* libhdf5's state is one per process, so its lock is too */

void lp_h5_lock(void)
{
    pthread_mutex_lock(&lock);
    H5dont_atexit(); /* heeded when it comes before anything else, harmless after */
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void lp_h5_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

typedef struct reason {
    char text[256];
} reason;

/* Of a failed system call only what the system said: libhdf5 adds the time and addresses. */
static herr_t take_innermost(unsigned n, const H5E_error2_t *e, void *user)
{
    static const char mark[] = "error message = '";
    reason *r = user;
    if (n > 0 || !e->desc) return 0;
    const char *said = strstr(e->desc, mark), *end = said ? strchr(said + sizeof mark - 1, '\'') : NULL;
    if (end)
        said += sizeof mark - 1;
    else
        said = e->desc, end = said + strlen(said);
    snprintf(r->text, sizeof r->text, "%.*s", (int)(end - said), said);
    return 0;
}

lp_status lp_h5_fail(lp_error *err, lp_status st, const char *fmt, ...)
{
    reason why = {""};
    char what[LP_ERROR_TEXT];
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_innermost, &why);
    H5Eclear2(H5E_DEFAULT);
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return why.text[0] ? lp_fail(err, st, "%s: %s", what, why.text) : lp_fail(err, st, "%s", what);
}

/* ---- property lists: no times anywhere, the format of 1.10 ------------------------------------------------------- */

static hid_t timeless(hid_t class)
{
    hid_t p = H5Pcreate(class);
    if (p >= 0) H5Pset_obj_track_times(p, false);
    return p;
}

static hid_t access_list(void)
{
    hid_t p = H5Pcreate(H5P_FILE_ACCESS);
    if (p < 0) return p;
    H5Pset_libver_bounds(p, H5F_LIBVER_V110, H5F_LIBVER_V110);
    H5Pset_fclose_degree(p, H5F_CLOSE_STRONG);
    H5Pset_cache(p, 0, CACHE_SLOTS, CACHE_BYTES, 0.75);
    return p;
}

lp_status lp_h5_create(hid_t *file, const char *path, lp_error *err)
{
    hid_t access = access_list(), create = timeless(H5P_FILE_CREATE);
    *file = H5Fcreate(path, H5F_ACC_EXCL, create, access);
    lp_status st = *file < 0 ? lp_h5_fail(err, LP_E_IO, "cannot write") : LP_OK;
    H5Pclose(access), H5Pclose(create);
    return st;
}

lp_status lp_h5_open(hid_t *file, const char *path, lp_error *err)
{
    hid_t access = access_list();
    *file = H5Fopen(path, H5F_ACC_RDONLY, access);
    lp_status st = *file < 0 ? lp_h5_fail(err, LP_E_FORMAT, "cannot be read as HDF5") : LP_OK;
    H5Pclose(access);
    return st;
}

lp_status lp_h5_close(hid_t *file, lp_error *err)
{
    hid_t f = *file;
    *file = -1;
    if (f < 0) return LP_OK;
    lp_status st = H5Fflush(f, H5F_SCOPE_LOCAL) < 0 ? lp_h5_fail(err, LP_E_IO, "cannot write") : LP_OK;
    if (H5Fclose(f) < 0 && st == LP_OK) st = lp_h5_fail(err, LP_E_IO, "cannot write");
    return st;
}

/* ---- groups ------------------------------------------------------------------------------------------------------ */

bool lp_h5_has(hid_t at, const char *name)
{
    H5L_info_t info;
    return H5Lexists(at, name, H5P_DEFAULT) > 0 && H5Lget_info(at, name, &info, H5P_DEFAULT) >= 0 &&
           info.type == H5L_TYPE_HARD;
}

/* Walks down `path`, making what is missing where `makes`. */
static lp_status walk(hid_t *group, hid_t at, const char *path, bool makes, lp_error *err)
{
    hid_t here = H5Gopen2(at, ".", H5P_DEFAULT), create = timeless(H5P_GROUP_CREATE);
    lp_status st = here < 0 ? lp_h5_fail(err, LP_E_FORMAT, "%s", path) : LP_OK;
    for (const char *p = path; *p && st == LP_OK;) {
        char name[PATH_PART];
        size_t n = strcspn(p, "/");
        snprintf(name, sizeof name, "%.*s", (int)n, p);
        p += n + (p[n] == '/');
        hid_t next = -1;
        if (lp_h5_has(here, name))
            next = H5Gopen2(here, name, H5P_DEFAULT);
        else if (makes)
            next = H5Gcreate2(here, name, H5P_DEFAULT, create, H5P_DEFAULT);
        if (next < 0)
            st = makes ? lp_h5_fail(err, LP_E_IO, "cannot write group %s", path)
                       : lp_h5_fail(err, LP_E_FORMAT, "no group %s", path);
        H5Gclose(here);
        here = next;
    }
    H5Pclose(create);
    *group = st == LP_OK ? here : -1;
    return st;
}

lp_status lp_h5_make_group(hid_t *group, hid_t at, const char *path, lp_error *err)
{
    return walk(group, at, path, true, err);
}

lp_status lp_h5_open_group(hid_t *group, hid_t at, const char *path, lp_error *err)
{
    return walk(group, at, path, false, err);
}

void lp_h5_close_group(hid_t *group)
{
    if (*group >= 0) H5Gclose(*group);
    *group = -1;
}

/* ---- attributes and strings -------------------------------------------------------------------------------------- */

/* HDF5 strings end at a NUL and AnnData wants them of variable length. */
static hid_t text_type(void)
{
    hid_t t = H5Tcopy(H5T_C_S1);
    H5Tset_size(t, H5T_VARIABLE);
    H5Tset_cset(t, H5T_CSET_UTF8);
    return t;
}

static lp_status put_attribute(hid_t at, const char *name, hid_t type, hid_t memory, int n, const void *v,
                               lp_error *err)
{
    hsize_t dims = (hsize_t)n;
    hid_t space = n ? H5Screate_simple(1, &dims, NULL) : H5Screate(H5S_SCALAR);
    hid_t a = H5Acreate2(at, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    lp_status st = LP_OK;
    if (a < 0 || H5Awrite(a, memory, v) < 0) st = lp_h5_fail(err, LP_E_IO, "cannot write attribute %s", name);
    if (a >= 0 && H5Aclose(a) < 0 && st == LP_OK) st = lp_h5_fail(err, LP_E_IO, "cannot write attribute %s", name);
    H5Sclose(space);
    return st;
}

lp_status lp_h5_put_text(hid_t at, const char *name, const char *text, lp_error *err)
{
    hid_t type = text_type();
    lp_status st = put_attribute(at, name, type, type, 0, &text, err);
    H5Tclose(type);
    return st;
}

lp_status lp_h5_put_ints(hid_t at, const char *name, const int64_t *v, int n, lp_error *err)
{
    return put_attribute(at, name, H5T_STD_I64LE, H5T_NATIVE_INT64, n, v, err);
}

lp_status lp_h5_put_int(hid_t at, const char *name, int64_t v, lp_error *err)
{
    return lp_h5_put_ints(at, name, &v, 0, err);
}

lp_status lp_h5_put_strings(hid_t at, const char *name, const char *const *text, int n, lp_error *err)
{
    hsize_t dims = (hsize_t)n;
    hid_t type = text_type(), create = timeless(H5P_DATASET_CREATE);
    hid_t space = n >= 0 ? H5Screate_simple(1, &dims, NULL) : H5Screate(H5S_SCALAR);
    hid_t set = H5Dcreate2(at, name, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
    lp_status st = LP_OK;
    if (set < 0 || (n != 0 && H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text) < 0))
        st = lp_h5_fail(err, LP_E_IO, "cannot write %s", name);
    if (set >= 0 && H5Dclose(set) < 0 && st == LP_OK) st = lp_h5_fail(err, LP_E_IO, "cannot write %s", name);
    H5Sclose(space), H5Pclose(create), H5Tclose(type);
    return st;
}

static bool is_text(hid_t type)
{
    return H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) > 0;
}

lp_status lp_h5_get_text(char **out, hid_t at, const char *name, lp_error *err)
{
    char *text = NULL;
    lp_status st = LP_OK;
    *out = NULL;
    hid_t a = H5Aexists(at, name) > 0 ? H5Aopen(at, name, H5P_DEFAULT) : -1, type = a < 0 ? -1 : H5Aget_type(a),
          space = a < 0 ? -1 : H5Aget_space(a), memory = text_type();
    if (a < 0 || !is_text(type) || H5Sget_simple_extent_npoints(space) != 1)
        st = lp_fail(err, LP_E_FORMAT, "no text attribute %s", name);
    else if (H5Aread(a, memory, &text) < 0 || !text)
        st = lp_h5_fail(err, LP_E_FORMAT, "attribute %s", name);
    else if (!(*out = lp_strdup(text)))
        st = lp_fail(err, LP_E_MEMORY, "out of memory");
    if (text) H5free_memory(text);
    H5Tclose(memory), H5Sclose(space), H5Tclose(type), H5Aclose(a);
    return st;
}

lp_status lp_h5_get_ints(int64_t *out, hid_t at, const char *name, int n, lp_error *err)
{
    hid_t a = H5Aexists(at, name) > 0 ? H5Aopen(at, name, H5P_DEFAULT) : -1, type = a < 0 ? -1 : H5Aget_type(a),
          space = a < 0 ? -1 : H5Aget_space(a);
    lp_status st = LP_OK;
    if (a < 0 || H5Tget_class(type) != H5T_INTEGER || H5Sget_simple_extent_npoints(space) != n)
        st = lp_fail(err, LP_E_FORMAT, "no attribute %s of %d whole number%s", name, n, n == 1 ? "" : "s");
    else if (H5Aread(a, H5T_NATIVE_INT64, out) < 0)
        st = lp_h5_fail(err, LP_E_FORMAT, "attribute %s", name);
    H5Sclose(space), H5Tclose(type), H5Aclose(a);
    return st;
}

lp_status lp_h5_get_int(int64_t *out, hid_t at, const char *name, int64_t low, int64_t high, lp_error *err)
{
    LP_TRY(lp_h5_get_ints(out, at, name, 1, err));
    if (*out >= low && *out <= high) return LP_OK;
    return lp_fail(err, LP_E_FORMAT, "attribute %s is %lld, expected %lld to %lld", name, (long long)*out,
                   (long long)low, (long long)high);
}

/* Copies what libhdf5 allocated. */
static lp_status copy_strings(char ***out, char **from, int n, lp_error *err)
{
    char **text = lp_calloc((size_t)n + 1, sizeof *text);
    bool ok = text != NULL;
    for (int i = 0; ok && i < n; i++) ok = (text[i] = lp_strdup(from[i] ? from[i] : "")) != NULL;
    if (ok)
        *out = text;
    else
        lp_h5_free_strings(text, n);
    return ok ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
}

lp_status lp_h5_get_strings(char ***out, int *n, hid_t at, const char *name, int limit, lp_error *err)
{
    lp_status st = LP_OK;
    char **text = NULL;
    *out = NULL, *n = 0;
    hid_t set = lp_h5_has(at, name) ? H5Dopen2(at, name, H5P_DEFAULT) : -1, type = set < 0 ? -1 : H5Dget_type(set),
          space = set < 0 ? -1 : H5Dget_space(set), memory = text_type(),
          create = set < 0 ? -1 : H5Dget_create_plist(set);
    hssize_t count = space < 0 ? -1 : H5Sget_simple_extent_npoints(space);
    if (set < 0 || !is_text(type) || count < 0 || H5Pget_layout(create) != H5D_CONTIGUOUS ||
        H5Pget_external_count(create) != 0)
        st = lp_fail(err, LP_E_FORMAT, "no text %s", name);
    else if (count > limit)
        st = lp_fail(err, LP_E_FORMAT, "%s has %lld entries, at most %d are read", name, (long long)count, limit);
    else if (!(text = lp_calloc((size_t)count + 1, sizeof *text)))
        st = lp_fail(err, LP_E_MEMORY, "out of memory");
    else if (count > 0 && H5Dread(set, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, text) < 0)
        st = lp_h5_fail(err, LP_E_FORMAT, "%s", name);
    if (st == LP_OK) st = copy_strings(out, text, (int)count, err);
    if (st == LP_OK) *n = (int)count;
    if (text && count > 0) H5Dvlen_reclaim(memory, space, H5P_DEFAULT, text);
    free(text);
    H5Pclose(create), H5Tclose(memory), H5Sclose(space), H5Tclose(type), H5Dclose(set);
    return st;
}

void lp_h5_free_strings(char **text, int n)
{
    for (int i = 0; text && i < n; i++) free(text[i]);
    free(text);
}
