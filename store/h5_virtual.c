/* h5_virtual.c - see h5.h: data sets whose rows lie in other files. */
#include "store/h5.h"

#include <math.h>

/* What is read where a source is gone. */
static herr_t set_fill(hid_t create, lp_h5_type t)
{
    const double nan = NAN;
    const int64_t none = -1;
    const uint64_t most = t == LP_H5_U8 ? UINT8_MAX : t == LP_H5_U16 ? UINT16_MAX : UINT32_MAX;
    switch (t) {
    case LP_H5_U8:
    case LP_H5_U16:
    case LP_H5_U32:
        return H5Pset_fill_value(create, H5T_NATIVE_UINT64, &most);
    case LP_H5_I32:
    case LP_H5_I64:
        return H5Pset_fill_value(create, H5T_NATIVE_INT64, &none);
    case LP_H5_F16:
    case LP_H5_F32:
    case LP_H5_F64:
        break;
    }
    return H5Pset_fill_value(create, H5T_NATIVE_DOUBLE, &nan);
}

/* Rows `at` .. of the new set are all rows of the source's. */
static herr_t map(hid_t create, hid_t space, const lp_h5_source *s, const char *path, uint64_t at, int width)
{
    hsize_t start[2] = {at, 0}, dims[2] = {s->n, (hsize_t)width};
    hid_t source = H5Screate_simple(width ? 2 : 1, dims, NULL);
    herr_t ok = H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, dims, NULL);
    if (ok >= 0) ok = H5Pset_virtual(create, space, s->file, path, source);
    H5Sclose(source);
    return ok;
}

lp_status lp_h5_put_virtual(hid_t file, const char *path, lp_h5_type t, int width, const lp_h5_source *sources,
                            size_t n, lp_error *err)
{
    hsize_t dims[2] = {0, (hsize_t)width};
    for (size_t i = 0; i < n; i++) dims[0] += sources[i].n;
    hid_t space = H5Screate_simple(width ? 2 : 1, dims, NULL), create = H5Pcreate(H5P_DATASET_CREATE),
          type = lp_h5_type_of(t), set = -1;
    H5Pset_obj_track_times(create, false);
    herr_t ok = set_fill(create, t);
    uint64_t at = 0;
    for (size_t i = 0; i < n && ok >= 0; at += sources[i++].n)
        if (sources[i].n) ok = map(create, space, &sources[i], path, at, width);
    H5Sselect_all(space);
    if (ok >= 0) set = H5Dcreate2(file, path, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
    if (set < 0 || H5Dclose(set) < 0) ok = -1;
    lp_status st = ok < 0 ? lp_h5_fail(err, LP_E_IO, "cannot write %s", path) : LP_OK;
    H5Tclose(type), H5Pclose(create), H5Sclose(space);
    return st;
}
