/* export_text.c - lines of text, perhaps compressed; see export.h. */
#include "core/outfile.h"
#include "store/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { ROOM = 1 << 16, LONGEST = 128 };

typedef struct text {
    lp_outfile file;
    bool is_packed;
    char tab;
    z_stream z;
    unsigned char packed[ROOM];
    char held[ROOM];
    size_t n;
    uint64_t values;
} text;

static lp_status pack(text *t, int how, lp_error *err)
{
    t->z.next_in = (unsigned char *)t->held, t->z.avail_in = (unsigned)t->n;
    do {
        t->z.next_out = t->packed, t->z.avail_out = ROOM;
        deflate(&t->z, how); /* cannot fail with room to write into */
        LP_TRY(lp_outfile_write(&t->file, t->packed, ROOM - t->z.avail_out, err));
    } while (t->z.avail_out == 0);
    return LP_OK;
}

static lp_status flush(text *t, bool is_last, lp_error *err)
{
    lp_status st = t->is_packed ? pack(t, is_last ? Z_FINISH : Z_NO_FLUSH, err)
                                : lp_outfile_write(&t->file, t->held, t->n, err);
    t->n = 0;
    return st;
}

static lp_status put_block(void *user, const lp_series_block *b, lp_error *err)
{
    text *t = user;
    const lp_features *f = b->features;
    for (int i = 0; i < b->n; i++)
        for (size_t k = f->start[i]; k < f->start[i + 1]; k++) {
            if (t->n > ROOM - LONGEST) LP_TRY(flush(t, false, err));
            t->n += (size_t)snprintf(t->held + t->n, LONGEST, "%lld%c%d%c%d%c%d%c%.9g\n", (long long)b->document[i],
                                     t->tab, b->pos[i], t->tab, b->id[i], t->tab, f->index[k], t->tab,
                                     (double)f->value[k]);
            t->values++;
        }
    return LP_OK;
}

static lp_status write_all(text *t, const lp_series *s, const lp_env *env, lp_error *err)
{
    t->n = (size_t)snprintf(t->held, LONGEST, "document%cpos%ctoken%cfeature%cvalue\n", t->tab, t->tab, t->tab, t->tab);
    LP_TRY(lp_series_walk(s, false, put_block, t, "writing", env, err));
    LP_TRY(flush(t, true, err));
    return lp_outfile_end(&t->file, err);
}

lp_status lp_export_text(lp_export_report *r, const lp_series *s, const char *path, const lp_env *env, lp_error *err)
{
    text *t = lp_calloc(1, sizeof *t);
    if (!t) return lp_fail(err, LP_E_MEMORY, "out of memory");
    t->is_packed = lp_ends_in(path, ".gz");
    t->tab = lp_ends_in(path, ".tsv") || lp_ends_in(path, ".tsv.gz") ? '\t' : ',';
    t->file.fd = -1;
    lp_status st = LP_OK;
    if (t->is_packed && deflateInit2(&t->z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        st = lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = lp_outfile_open(&t->file, path, err);
    if (st == LP_OK) st = write_all(t, s, env, err);
    if (st == LP_OK && r) *r = (lp_export_report){.rows = s->n_rows, .windows = s->n_windows, .values = t->values};
    lp_outfile_close(&t->file);
    if (t->is_packed) deflateEnd(&t->z);
    free(t);
    return st;
}
