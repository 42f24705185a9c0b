/* h5_sets.c - see h5.h: data sets. */
#include "store/h5.h"

#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK = 64 << 10,       /* bytes; the sweet spot between ratio and the cost of a random row */
    LEVEL = 6,              /* of libdeflate: as fast as zlib's 1, a tenth smaller                */
    CHUNK_LIMIT = 64 << 20, /* of a file that is read                                            */
    EXPANSION = 1100        /* deflate makes at most 1,032 bytes of one                           */
};

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "chunks are handed over as they lie in memory");

size_t lp_h5_size(lp_h5_type t)
{
    static const size_t sizes[] = {[LP_H5_U8] = 1,  [LP_H5_U16] = 2, [LP_H5_F16] = 2, [LP_H5_U32] = 4,
                                   [LP_H5_I32] = 4, [LP_H5_F32] = 4, [LP_H5_I64] = 8, [LP_H5_F64] = 8};
    return sizes[t];
}

hid_t lp_h5_type_of(lp_h5_type t)
{
    switch (t) {
    case LP_H5_U8:
        return H5Tcopy(H5T_STD_U8LE);
    case LP_H5_U16:
        return H5Tcopy(H5T_STD_U16LE);
    case LP_H5_U32:
        return H5Tcopy(H5T_STD_U32LE);
    case LP_H5_I32:
        return H5Tcopy(H5T_STD_I32LE);
    case LP_H5_F32:
        return H5Tcopy(H5T_IEEE_F32LE);
    case LP_H5_I64:
        return H5Tcopy(H5T_STD_I64LE);
    case LP_H5_F64:
        return H5Tcopy(H5T_IEEE_F64LE);
    case LP_H5_F16:
        break;
    }
    hid_t half = H5Tcopy(H5T_IEEE_F32LE); /* libhdf5 has no name for it before version 2 */
    H5Tset_fields(half, 15, 10, 5, 0, 10);
    H5Tset_size(half, 2);
    H5Tset_ebias(half, 15);
    return half;
}

/* ---- deflating --------------------------------------------------------------------------------------------------- */

lp_status lp_h5_deflater_new(lp_h5_deflater *d, lp_error *err)
{
    *d = (lp_h5_deflater){.compressor = libdeflate_alloc_compressor(LEVEL)};
    if (d->compressor) d->room = libdeflate_zlib_compress_bound(d->compressor, CHUNK);
    d->shuffled = malloc(CHUNK);
    d->packed = d->room ? malloc(d->room) : NULL;
    if (d->shuffled && d->packed) return LP_OK;
    lp_h5_deflater_free(d);
    return lp_fail(err, LP_E_MEMORY, "out of memory");
}

void lp_h5_deflater_free(lp_h5_deflater *d)
{
    if (d->compressor) libdeflate_free_compressor(d->compressor);
    free(d->shuffled), free(d->packed);
    *d = (lp_h5_deflater){0};
}

/* All first bytes, all second bytes ...: HDF5's shuffle filter. */
static void shuffle(unsigned char *restrict out, const unsigned char *restrict in, size_t n, size_t size)
{
    for (size_t b = 0; b < size; b++)
        for (size_t i = 0; i < n; i++) out[b * n + i] = in[i * size + b];
}

/* ---- columns ----------------------------------------------------------------------------------------------------- */

static hid_t chunked(const lp_h5_column *c)
{
    const unsigned level = LEVEL;
    hsize_t dims[2] = {c->chunk_rows, (hsize_t)c->width};
    hid_t p = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(p, false);
    H5Pset_chunk(p, c->width ? 2 : 1, dims);
    H5Pset_fill_time(p, H5D_FILL_TIME_NEVER);
    /* Mandatory: an optional filter that fails leaves a raw chunk and says nothing. */
    if (c->element > 1) H5Pset_filter(p, H5Z_FILTER_SHUFFLE, H5Z_FLAG_MANDATORY, 0, NULL);
    H5Pset_filter(p, H5Z_FILTER_DEFLATE, H5Z_FLAG_MANDATORY, 1, &level);
    return p;
}

lp_status lp_h5_column_begin(lp_h5_column *c, hid_t at, const char *name, lp_h5_type t, int width, lp_error *err)
{
    *c = (lp_h5_column){.set = -1, .element = lp_h5_size(t), .width = width};
    c->row = c->element * (size_t)(width ? width : 1);
    c->chunk_rows = c->row < CHUNK ? CHUNK / c->row : 1;
    hsize_t dims[2] = {0, (hsize_t)width}, most[2] = {H5S_UNLIMITED, (hsize_t)width};
    c->chunk = malloc(CHUNK);
    if (!c->chunk) return lp_fail(err, LP_E_MEMORY, "out of memory");
    hid_t type = lp_h5_type_of(t), create = chunked(c), space = H5Screate_simple(width ? 2 : 1, dims, most);
    c->set = H5Dcreate2(at, name, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
    lp_status st = c->set < 0 ? lp_h5_fail(err, LP_E_IO, "cannot write %s", name) : LP_OK;
    H5Sclose(space), H5Pclose(create), H5Tclose(type);
    return st;
}

/* The chunk in hand, padded with zeros to its full length, as libhdf5 would have filtered it. */
static lp_status flush(lp_h5_column *c, lp_h5_deflater *d, lp_error *err)
{
    size_t bytes = c->chunk_rows * c->row, used = c->held * c->row;
    memset(c->chunk + used, 0, bytes - used);
    const unsigned char *from = c->chunk;
    if (c->element > 1) shuffle(d->shuffled, c->chunk, bytes / c->element, c->element), from = d->shuffled;
    size_t packed = libdeflate_zlib_compress(d->compressor, from, bytes, d->packed, d->room);
    hsize_t at[2] = {c->n, 0}, dims[2] = {c->n + c->held, (hsize_t)c->width};
    if (!packed || H5Dset_extent(c->set, dims) < 0 || H5Dwrite_chunk(c->set, H5P_DEFAULT, 0, at, packed, d->packed) < 0)
        return lp_h5_fail(err, LP_E_IO, "cannot write");
    c->n += c->held, c->held = 0;
    return LP_OK;
}

lp_status lp_h5_column_put(lp_h5_column *c, const void *rows, size_t n, lp_h5_deflater *d, lp_error *err)
{
    for (const unsigned char *from = rows; n;) {
        size_t k = c->chunk_rows - c->held < n ? c->chunk_rows - c->held : n;
        memcpy(c->chunk + c->held * c->row, from, k * c->row);
        c->held += k, n -= k, from += k * c->row;
        if (c->held == c->chunk_rows) LP_TRY(flush(c, d, err));
    }
    return LP_OK;
}

lp_status lp_h5_column_end(lp_h5_column *c, lp_h5_deflater *d, lp_error *err)
{
    lp_status st = c->held ? flush(c, d, err) : LP_OK;
    hid_t set = c->set;
    c->set = -1;
    if (H5Dclose(set) < 0 && st == LP_OK) st = lp_h5_fail(err, LP_E_IO, "cannot write");
    lp_h5_column_close(c);
    return st;
}

void lp_h5_column_close(lp_h5_column *c)
{
    if (c->set >= 0) H5Dclose(c->set);
    free(c->chunk);
    c->set = -1, c->chunk = NULL;
}

lp_status lp_h5_put_column(hid_t at, const char *name, lp_h5_type t, int width, const void *rows, size_t n,
                           lp_h5_deflater *d, lp_error *err)
{
    lp_h5_column c;
    lp_status st = lp_h5_column_begin(&c, at, name, t, width, err);
    if (st == LP_OK) st = lp_h5_column_put(&c, rows, n, d, err);
    if (st == LP_OK) return lp_h5_column_end(&c, d, err);
    lp_h5_column_close(&c);
    return st;
}

/* ---- plain arrays ------------------------------------------------------------------------------------------------ */

lp_status lp_h5_make_plain(hid_t *set, hid_t at, const char *name, lp_h5_type t, uint64_t n, int width, lp_error *err)
{
    hsize_t dims[2] = {n, (hsize_t)width};
    hid_t type = lp_h5_type_of(t), create = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(2, dims, NULL);
    H5Pset_obj_track_times(create, false);
    H5Pset_alloc_time(create, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(create, H5D_FILL_TIME_NEVER);
    *set = H5Dcreate2(at, name, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
    lp_status st = *set < 0 ? lp_h5_fail(err, LP_E_IO, "cannot write %s", name) : LP_OK;
    H5Sclose(space), H5Pclose(create), H5Tclose(type);
    return st;
}

/* `rows` rows from `first`, in the file and as they lie in memory. */
static void select_rows(hid_t *file, hid_t *memory, hid_t set, uint64_t first, uint64_t rows, int width)
{
    hsize_t at[2] = {first, 0}, dims[2] = {rows, (hsize_t)width};
    int rank = width ? 2 : 1;
    *memory = H5Screate_simple(rank, dims, NULL);
    *file = H5Dget_space(set);
    H5Sselect_hyperslab(*file, H5S_SELECT_SET, at, NULL, dims, NULL);
}

lp_status lp_h5_write_plain(hid_t set, lp_h5_type t, uint64_t first, uint64_t n, int width, const void *rows,
                            lp_error *err)
{
    hid_t file, memory, type = lp_h5_type_of(t);
    select_rows(&file, &memory, set, first, n, width);
    lp_status st = LP_OK;
    if (H5Dwrite(set, type, memory, file, H5P_DEFAULT, rows) < 0) st = lp_h5_fail(err, LP_E_IO, "cannot write");
    H5Sclose(file), H5Sclose(memory), H5Tclose(type);
    return st;
}

lp_status lp_h5_close_plain(hid_t *set, lp_error *err)
{
    hid_t s = *set;
    *set = -1;
    return s >= 0 && H5Dclose(s) < 0 ? lp_h5_fail(err, LP_E_IO, "cannot write") : LP_OK;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static bool is_type(hid_t set, lp_h5_type t)
{
    hid_t has = H5Dget_type(set), want = lp_h5_type_of(t);
    bool same = has >= 0 && H5Tequal(has, want) > 0;
    H5Tclose(has), H5Tclose(want);
    return same;
}

/* Stored inside the file, by filters every libhdf5 has. */
static bool is_plainly_stored(hid_t create)
{
    H5D_layout_t layout = H5Pget_layout(create);
    if (layout == H5D_CONTIGUOUS || layout == H5D_COMPACT) return H5Pget_external_count(create) == 0;
    if (layout != H5D_CHUNKED) return false;
    for (int i = 0, n = H5Pget_nfilters(create); i < n; i++) {
        unsigned flags, info;
        size_t none = 0;
        H5Z_filter_t f = H5Pget_filter2(create, (unsigned)i, &flags, &none, NULL, 0, NULL, &info);
        if (f != H5Z_FILTER_DEFLATE && f != H5Z_FILTER_SHUFFLE && f != H5Z_FILTER_FLETCHER32) return false;
    }
    return true;
}

static bool is_bearable(hid_t set, hid_t create, lp_h5_type t, const hsize_t dims[2], int rank)
{
    hsize_t chunk[2] = {1, 1}, stored = H5Dget_storage_size(set), width = rank == 2 ? dims[1] : 1, file_bytes = 0;
    hid_t file = H5Iget_file_id(set);
    H5Fget_filesize(file, &file_bytes);
    H5Fclose(file);
    bool is_chunked = H5Pget_layout(create) == H5D_CHUNKED;
    if (is_chunked && H5Pget_chunk(create, rank, chunk) != rank) return false;
    if (is_chunked &&
        (chunk[0] > CHUNK_LIMIT || chunk[1] > CHUNK_LIMIT || chunk[0] * chunk[1] > CHUNK_LIMIT / lp_h5_size(t)))
        return false;
    if (stored > file_bytes || file_bytes > UINT64_MAX / EXPANSION || dims[0] > UINT64_MAX / lp_h5_size(t) / width)
        return false;
    return dims[0] * width * lp_h5_size(t) <= stored * (is_chunked ? EXPANSION : 1);
}

lp_status lp_h5_set_open(lp_h5_set *s, hid_t at, const char *name, lp_h5_type t, uint64_t n, int width, lp_error *err)
{
    *s = (lp_h5_set){.id = -1, .type = t, .width = width};
    const char *slash = strrchr(name, '/');
    char folder[256];
    hid_t group = -1;
    if (slash) {
        if ((size_t)(slash - name) >= sizeof folder) return lp_fail(err, LP_E_FORMAT, "no data set %s", name);
        memcpy(folder, name, (size_t)(slash - name));
        folder[slash - name] = '\0';
    }
    LP_TRY(lp_h5_open_group(&group, at, slash ? folder : "", err));
    const char *last = slash ? slash + 1 : name;
    if (lp_h5_has(group, last)) s->id = H5Dopen2(group, last, H5P_DEFAULT);
    lp_h5_close_group(&group);
    if (s->id < 0) return lp_h5_fail(err, LP_E_FORMAT, "no data set %s", name);

    hid_t space = H5Dget_space(s->id), create = H5Dget_create_plist(s->id);
    hsize_t dims[2] = {0, 0};
    int rank = H5Sget_simple_extent_ndims(space), want = width ? 2 : 1;
    lp_status st = LP_OK;
    if (rank != want || H5Sget_simple_extent_dims(space, dims, NULL) != rank || !is_type(s->id, t))
        st = lp_fail(err, LP_E_FORMAT, "%s is not of the type and rank expected", name);
    else if ((width && dims[1] != (hsize_t)width) || (n != UINT64_MAX && dims[0] != n))
        st = lp_fail(err, LP_E_FORMAT, "%s is [%llu, %llu], expected [%llu, %d]", name, (unsigned long long)dims[0],
                     (unsigned long long)dims[1], (unsigned long long)n, width);
    else if (!is_plainly_stored(create))
        st = lp_fail(err, LP_E_FORMAT, "%s is stored outside the file or by an unknown filter", name);
    else if (!is_bearable(s->id, create, t, dims, rank))
        st = lp_fail(err, LP_E_FORMAT, "%s claims more than the file holds", name);
    H5Pclose(create), H5Sclose(space);
    s->n = dims[0];
    if (st != LP_OK) lp_h5_set_close(s);
    return st;
}

void lp_h5_set_close(lp_h5_set *s)
{
    if (s->id >= 0) H5Dclose(s->id);
    s->id = -1;
}

lp_status lp_h5_set_read(const lp_h5_set *s, uint64_t first, uint64_t n, void *out, lp_error *err)
{
    if (n == 0) return LP_OK;
    hid_t file, memory, type = lp_h5_type_of(s->type);
    select_rows(&file, &memory, s->id, first, n, s->width);
    lp_status st = LP_OK;
    if (H5Dread(s->id, type, memory, file, H5P_DEFAULT, out) < 0) st = lp_h5_fail(err, LP_E_FORMAT, "damaged");
    H5Sclose(file), H5Sclose(memory), H5Tclose(type);
    return st;
}

lp_status lp_h5_get_part(void *out, hid_t at, const char *name, lp_h5_type t, uint64_t of, int width, uint64_t first,
                         uint64_t n, lp_error *err)
{
    lp_h5_set s;
    if (!out) return LP_OK;
    LP_TRY(lp_h5_set_open(&s, at, name, t, of, width, err));
    lp_status st = lp_h5_set_read(&s, first, n, out, err);
    lp_h5_set_close(&s);
    return st < 0 ? lp_prefix(err, st, name) : st;
}

lp_status lp_h5_get_column(void *out, hid_t at, const char *name, lp_h5_type t, uint64_t n, int width, lp_error *err)
{
    return lp_h5_get_part(out, at, name, t, n, width, 0, n, err);
}

lp_status lp_h5_set_check_chunks(const lp_h5_set *s, const char *name, lp_error *err)
{
    hid_t create = H5Dget_create_plist(s->id);
    hsize_t chunk[2] = {1, 1}, at[2] = {0, 0}, size;
    haddr_t address;
    lp_status st = LP_OK;
    if (H5Pget_layout(create) == H5D_CHUNKED && H5Pget_chunk(create, s->width ? 2 : 1, chunk) > 0)
        for (; at[0] < s->n && st == LP_OK; at[0] += chunk[0]) {
            unsigned mask = 0;
            if (H5Dget_chunk_info_by_coord(s->id, at, &mask, &address, &size) < 0 || size == 0)
                st = lp_h5_fail(err, LP_E_FORMAT, "%s: the chunk at %llu is missing", name, (unsigned long long)at[0]);
            else if (mask)
                st = lp_fail(err, LP_E_FORMAT, "%s: the chunk at %llu is not filtered", name,
                             (unsigned long long)at[0]);
        }
    H5Pclose(create);
    return st;
}
