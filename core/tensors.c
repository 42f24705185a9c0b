/* tensors.c - see tensors.h.
 *
 * The list is sorted once and searched by bisection: 508 names in a 27B model, so nothing cleverer pays.  Sorting also
 * brings equal names together, which is how duplicates are found whatever the container was.
 */
#include "core/tensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_name(const void *a, const void *b)
{
    return strcmp(((const lp_tensor *)a)->name, ((const lp_tensor *)b)->name);
}

lp_status lp_tensors_seal(lp_tensors *t, lp_error *err)
{
    if (t->n > 1) qsort(t->items, t->n, sizeof *t->items, by_name);
    for (size_t i = 1; i < t->n; i++)
        if (strcmp(t->items[i - 1].name, t->items[i].name) == 0)
            return lp_fail(err, LP_E_FORMAT, "%s: tensor \"%s\" occurs twice", t->files[t->items[i].file].path,
                           t->items[i].name);
    return LP_OK;
}

const lp_tensor *lp_tensors_find(const lp_tensors *t, const char *name)
{
    size_t lo = 0, hi = t->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(name, t->items[mid].name);
        if (c == 0) return &t->items[mid];
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

lp_status lp_tensors_read(const lp_tensors *t, const lp_tensor *x, uint64_t at, void *buf, size_t bytes, lp_error *err)
{
    if (at > x->bytes || bytes > x->bytes - at)
        return lp_fail(err, LP_E_RANGE, "%s: %zu bytes at %" PRIu64 " asked of a tensor of %" PRIu64, x->name, bytes,
                       at, x->bytes);
    return lp_file_read(&t->files[x->file], x->at + at, buf, bytes, err);
}

void lp_tensors_clear(lp_tensors *t)
{
    for (int i = 0; i < t->n_files; i++) lp_file_close(&t->files[i]);
    for (size_t i = 0; i < t->n; i++) free(t->items[i].name);
    free(t->files);
    free(t->items);
    *t = (lp_tensors){0};
}

const char *lp_tensor_shape_text(const lp_tensor *x, char *buf, size_t n)
{
    size_t at = 0;
    if (n) buf[0] = 0;
    for (int i = 0; i < x->n_dims && at < n; i++)
        at += (size_t)snprintf(buf + at, n - at, "%s%" PRId64, i ? ", " : "[", x->shape[i]);
    if (at < n) snprintf(buf + at, n - at, x->n_dims ? "]" : "[]");
    return buf;
}
