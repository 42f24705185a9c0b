/* gguf_meta.c - looking things up in the metadata of a GGUF file; see gguf.h for the functions, gguf.c for the reading.
 *
 * A value is not copied: it stays in the block the header was read into and is found through a sorted list of keys.  An
 * array of strings has an index of where each string lies, so that the 256 000 pieces of a vocabulary cost O(1) each.
 */
#include "core/gguf_meta.h"

#include <stdlib.h>
#include <string.h>

const uint8_t lp_meta_bytes[LP_GGUF_N_TYPES] = {
    [LP_GGUF_U8] = 1,  [LP_GGUF_I8] = 1,   [LP_GGUF_U16] = 2, [LP_GGUF_I16] = 2, [LP_GGUF_U32] = 4, [LP_GGUF_I32] = 4,
    [LP_GGUF_F32] = 4, [LP_GGUF_BOOL] = 1, [LP_GGUF_U64] = 8, [LP_GGUF_I64] = 8, [LP_GGUF_F64] = 8,
};

static int compare(const char *a, size_t na, const char *b, size_t nb)
{
    int c = memcmp(a, b, na < nb ? na : nb);
    return c ? c : na < nb ? -1 : na > nb;
}

static int by_key(const void *a, const void *b)
{
    const lp_meta_item *x = a, *y = b;
    return compare(x->key, x->key_len, y->key, y->key_len);
}

lp_status lp_meta_settle(lp_meta *m, unsigned char *block, const char *path, lp_error *err)
{
    m->block = block;
    for (size_t i = 0; i < m->n; i++) m->items[i].key = (const char *)m->block + m->items[i].key_at;
    if (m->n > 1) qsort(m->items, m->n, sizeof *m->items, by_key);
    for (size_t i = 1; i < m->n; i++)
        if (by_key(&m->items[i - 1], &m->items[i]) == 0)
            return lp_fail(err, LP_E_FORMAT, "%s: key \"%.*s\" occurs twice", path, (int)m->items[i].key_len,
                           m->items[i].key);
    return LP_OK;
}

bool lp_meta_is(const unsigned char *a, size_t n, const char *key)
{
    return compare((const char *)a, n, key, strlen(key)) == 0;
}

void lp_meta_clear(lp_meta *m)
{
    for (size_t i = 0; i < m->n; i++) free(m->items[i].strings);
    free(m->items);
    free(m->block);
    *m = (lp_meta){0};
}

static const lp_meta_item *find(const lp_meta *m, const char *key)
{
    size_t lo = 0, hi = m->n, len = strlen(key);
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = compare(key, len, m->items[mid].key, m->items[mid].key_len);
        if (c == 0) return &m->items[mid];
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

static bool int_at(const unsigned char *p, lp_gguf_type type, int64_t *out)
{
    uint64_t v = 0;
    memcpy(&v, p, lp_meta_bytes[type]);
    switch (type) {
    case LP_GGUF_I8:
        *out = (int8_t)v;
        return true;
    case LP_GGUF_I16:
        *out = (int16_t)v;
        return true;
    case LP_GGUF_I32:
        *out = (int32_t)v;
        return true;
    case LP_GGUF_U8:
    case LP_GGUF_U16:
    case LP_GGUF_U32:
    case LP_GGUF_I64:
        *out = (int64_t)v;
        return true;
    case LP_GGUF_U64:
        *out = (int64_t)v;
        return v <= INT64_MAX;
    default:
        return false;
    }
}

static bool float_at(const unsigned char *p, lp_gguf_type type, double *out)
{
    float f;
    if (type == LP_GGUF_F32) {
        memcpy(&f, p, sizeof f);
        *out = (double)f;
        return true;
    }
    if (type == LP_GGUF_F64) memcpy(out, p, sizeof *out);
    return type == LP_GGUF_F64;
}

bool lp_meta_int(const lp_meta *m, const char *key, int64_t *out)
{
    const lp_meta_item *x = find(m, key);
    int64_t v;
    if (!x || x->type == LP_GGUF_STRING || x->type == LP_GGUF_ARRAY || !int_at(m->block + x->at, x->type, &v))
        return false;
    *out = v;
    return true;
}

bool lp_gguf_has(const lp_gguf *g, const char *key)
{
    return find(&g->meta, key) != NULL;
}

bool lp_gguf_int(const lp_gguf *g, const char *key, int64_t *out)
{
    return lp_meta_int(&g->meta, key, out);
}

bool lp_gguf_float(const lp_gguf *g, const char *key, double *out)
{
    const lp_meta_item *x = find(&g->meta, key);
    return x && float_at(g->meta.block + x->at, x->type, out);
}

bool lp_gguf_bool(const lp_gguf *g, const char *key, bool *out)
{
    const lp_meta_item *x = find(&g->meta, key);
    if (!x || x->type != LP_GGUF_BOOL) return false;
    *out = g->meta.block[x->at] != 0;
    return true;
}

bool lp_gguf_string(const lp_gguf *g, const char *key, const char **out, size_t *len)
{
    const lp_meta_item *x = find(&g->meta, key);
    if (!x || x->type != LP_GGUF_STRING) return false;
    *out = (const char *)g->meta.block + x->at;
    *len = (size_t)x->n;
    return true;
}

bool lp_gguf_array(const lp_gguf *g, const char *key, lp_gguf_type *type, size_t *n)
{
    const lp_meta_item *x = find(&g->meta, key);
    if (!x || x->type != LP_GGUF_ARRAY) return false;
    *type = x->element;
    *n = (size_t)x->n;
    return true;
}

/* Element i of the array `key`, or NULL. */
static const unsigned char *element(const lp_gguf *g, const char *key, size_t i, lp_gguf_type *type)
{
    const lp_meta_item *x = find(&g->meta, key);
    if (!x || x->type != LP_GGUF_ARRAY || i >= x->n) return NULL;
    *type = x->element;
    return g->meta.block + (x->strings ? x->strings[i] : x->at + i * lp_meta_bytes[x->element]);
}

bool lp_gguf_array_string(const lp_gguf *g, const char *key, size_t i, const char **out, size_t *len)
{
    lp_gguf_type type;
    uint64_t n;
    const unsigned char *p = element(g, key, i, &type);
    if (!p || type != LP_GGUF_STRING) return false;
    memcpy(&n, p, sizeof n);
    *out = (const char *)p + sizeof n;
    *len = (size_t)n;
    return true;
}

bool lp_gguf_array_int(const lp_gguf *g, const char *key, size_t i, int64_t *out)
{
    lp_gguf_type type;
    const unsigned char *p = element(g, key, i, &type);
    if (p && type == LP_GGUF_BOOL) *out = *p != 0;
    return p && type != LP_GGUF_STRING && (type == LP_GGUF_BOOL || int_at(p, type, out));
}

bool lp_gguf_array_float(const lp_gguf *g, const char *key, size_t i, double *out)
{
    lp_gguf_type type;
    const unsigned char *p = element(g, key, i, &type);
    return p && float_at(p, type, out);
}
