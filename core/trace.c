/* trace.c - see trace.h: from a list of names to tapes, hooks and a file. */
#include "core/trace.h"

#include "core/outfile.h"
#include "core/safetensors.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void lp_site_shape(const lp_config *c, lp_site site, int n_keys, int *heads, int *width)
{
    *heads = 0;
    *width = c->d_model;
    switch (site) {
    case LP_Q:
    case LP_Q_ROT:
    case LP_Z:
        *heads = c->n_heads, *width = c->head_dim;
        break;
    case LP_K:
    case LP_K_ROT:
    case LP_V:
        *heads = c->n_kv_heads, *width = c->head_dim;
        break;
    case LP_SCORES:
    case LP_PATTERN:
        *heads = c->n_heads, *width = n_keys;
        break;
    case LP_MLP_GATE:
    case LP_MLP_UP:
    case LP_MLP_ACT:
        *width = c->d_ff;
        break;
    case LP_ATTN_PRE_RMS:
    case LP_ATTN_POST_RMS:
    case LP_MLP_PRE_RMS:
    case LP_MLP_POST_RMS:
    case LP_FINAL_RMS:
        *width = 1;
        break;
    case LP_LOGITS_RAW:
    case LP_LOGITS:
        *width = c->vocab;
        break;
    default:
        break;
    }
}

static size_t row_floats(const lp_config *c, lp_site site, int n_keys)
{
    int heads, width;
    lp_site_shape(c, site, n_keys, &heads, &width);
    return (size_t)(heads ? heads : 1) * (size_t)width;
}

/* ---- selecting --------------------------------------------------------------------------------------------- */

static lp_status add_part(lp_trace *t, lp_site site, int layer, lp_error *err)
{
    for (size_t i = 0; i < t->n_parts; i++)
        if (t->parts[i].site == site && t->parts[i].layer == layer) return LP_OK;
    if (!lp_grow((void **)&t->parts, &t->capacity, t->n_parts + 1, sizeof *t->parts))
        return lp_fail(err, LP_E_MEMORY, "no memory for %zu sites", t->n_parts + 1);
    t->parts[t->n_parts++] = (lp_trace_part){.site = site, .layer = layer};
    return LP_OK;
}

/* A number at *s, moving past it; -1: none, or not a layer. */
static int take_number(const char **s)
{
    if (!isdigit((unsigned char)**s)) return -1;
    char *end;
    long n = strtol(*s, &end, 10);
    *s = end;
    return n < LP_MAX_LAYERS ? (int)n : LP_MAX_LAYERS;
}

static lp_status parse_layers(bool *wanted, int n_layers, const char *text, lp_error *err)
{
    memset(wanted, 0, LP_MAX_LAYERS * sizeof *wanted);
    for (const char *s = text;;) {
        int from, to;
        if (strncmp(s, "all", 3) == 0) {
            from = 0, to = n_layers - 1, s += 3;
        } else if (strncmp(s, "last", 4) == 0) {
            from = to = n_layers - 1, s += 4;
        } else {
            from = to = take_number(&s);
            if (*s == '-') s++, to = take_number(&s);
        }
        if (from < 0 || to < 0 || (*s && *s != ','))
            return lp_fail(err, LP_E_RANGE,
                           "layers \"%.96s\": say \"all\", \"last\", or numbers and ranges like \"0,3-5\"", text);
        if (to >= n_layers || from >= n_layers)
            return lp_fail(err, LP_E_RANGE, "layers \"%.96s\": this model has layers 0 to %d", text, n_layers - 1);
        if (from > to) return lp_fail(err, LP_E_RANGE, "layers \"%.96s\": %d-%d runs backwards", text, from, to);
        for (int l = from; l <= to; l++) wanted[l] = true;
        if (!*s++) return LP_OK;
    }
}

static lp_status add_site(lp_trace *t, lp_site site, int layer, const bool *wanted, lp_error *err)
{
    int n_layers = t->config.n_layers;
    if (layer == LP_WHOLE_MODEL) return add_part(t, site, layer, err);
    if (layer >= n_layers)
        return lp_fail(err, LP_E_RANGE, "%s at layer %d: this model has layers 0 to %d", lp_site_name(site), layer,
                       n_layers - 1);
    if (layer >= 0) return add_part(t, site, layer, err);
    for (int l = 0; l < n_layers; l++)
        if (wanted[l]) LP_TRY(add_part(t, site, l, err));
    return LP_OK;
}

lp_status lp_trace_select(lp_trace *t, const lp_config *c, const char *sites, const char *layers, lp_error *err)
{
    bool wanted[LP_MAX_LAYERS];
    t->config = *c;
    LP_TRY(parse_layers(wanted, c->n_layers, layers, err));
    if (strcmp(sites, "all") == 0) {
        for (int i = 0; i < LP_N_SITES; i++)
            LP_TRY(
                add_site(t, (lp_site)i, lp_site_has_layer((lp_site)i) ? LP_EVERY_LAYER : LP_WHOLE_MODEL, wanted, err));
        return LP_OK;
    }
    for (const char *s = sites;; s++) {
        char name[128];
        size_t n = strcspn(s, ",");
        lp_site site;
        int layer;
        if (n == 0 || n >= sizeof name)
            return lp_fail(err, LP_E_NOT_FOUND, "sites \"%.96s\": a name is missing or too long", sites);
        memcpy(name, s, n);
        name[n] = 0;
        LP_TRY(lp_site_parse(name, &site, &layer, err));
        LP_TRY(add_site(t, site, layer, wanted, err));
        s += n;
        if (!*s) return LP_OK;
    }
}

/* ---- recording --------------------------------------------------------------------------------------------- */

uint64_t lp_trace_bytes(const lp_trace *t, int n_pos)
{
    uint64_t floats = 0; /* parts * positions * a row cannot overflow 64 bits */
    for (size_t i = 0; i < t->n_parts; i++) floats += (uint64_t)n_pos * row_floats(&t->config, t->parts[i].site, n_pos);
    return floats * sizeof(float);
}

static lp_status begin_part(lp_trace *t, lp_trace_part *p, lp_session *s, int n_pos, lp_error *err)
{
    size_t width = row_floats(&t->config, p->site, n_pos), n = (size_t)n_pos * width;
    bool grows = p->site == LP_SCORES || p->site == LP_PATTERN;
    float *x = lp_calloc(n, sizeof *x);
    if (!x) return lp_fail(err, LP_E_MEMORY, "no memory for %zu floats of %s", n, lp_site_name(p->site));
    for (size_t i = 0; p->site == LP_SCORES && i < n; i++) x[i] = -INFINITY; /* keys still to come */
    p->tape = (lp_tape){
        .x = x, .n_layers = 1, .n_pos = n_pos, .width = (int)width, .heads = grows ? t->config.n_heads : 0};
    int handle = lp_session_hook(s, lp_tap(p->site, p->layer, &p->tape), err);
    if (handle < 0) return (lp_status)handle;
    p->handle = handle;
    return LP_OK;
}

lp_status lp_trace_begin(lp_trace *t, lp_session *s, int n_pos, lp_error *err)
{
    uint64_t need = lp_trace_bytes(t, n_pos), have = lp_memory_available();
    if (have && need > have)
        return lp_fail(err, LP_E_MEMORY,
                       "%d positions of these sites take %.1f GB and %.1f GB are free; trace fewer sites or layers",
                       n_pos, (double)need / 1e9, (double)have / 1e9);
    for (size_t i = 0; i < t->n_parts; i++) LP_TRY(begin_part(t, &t->parts[i], s, n_pos, err));
    return LP_OK;
}

void lp_trace_end(lp_trace *t, lp_session *s)
{
    for (size_t i = 0; i < t->n_parts; i++) {
        if (t->parts[i].handle > 0) lp_session_unhook(s, t->parts[i].handle);
        t->parts[i].handle = 0;
    }
}

void lp_trace_clear(lp_trace *t)
{
    for (size_t i = 0; i < t->n_parts; i++) free(t->parts[i].tape.x);
    free(t->parts);
    *t = (lp_trace){0};
}

/* ---- writing ----------------------------------------------------------------------------------------------- */

/* Hands the first n positions to `put` in pieces: rows of scores are cut to their first n keys. */
typedef lp_status (*put_fn)(void *to, const void *data, size_t bytes, lp_error *err);

static lp_status put_part(const lp_trace_part *p, int n, put_fn put, void *to, lp_error *err)
{
    size_t width = (size_t)p->tape.width;
    if (!p->tape.heads) return put(to, p->tape.x, (size_t)n * width * sizeof(float), err);
    size_t stride = width / (size_t)p->tape.heads;
    for (size_t row = 0; row < (size_t)n * (size_t)p->tape.heads; row++)
        LP_TRY(put(to, p->tape.x + row * stride, (size_t)n * sizeof(float), err));
    return LP_OK;
}

static int part_shape(const lp_trace *t, const lp_trace_part *p, int n, int64_t shape[3])
{
    int heads, width;
    lp_site_shape(&t->config, p->site, n, &heads, &width);
    shape[0] = n;
    shape[1] = heads ? heads : width;
    shape[2] = width;
    return heads ? 3 : 2;
}

static lp_status put_npy(void *to, const void *data, size_t bytes, lp_error *err)
{
    return lp_outfile_write(to, data, bytes, err);
}

/* NumPy's format 1.0: magic, version, u16 length, a Python dict padded with spaces to a multiple of 64. */
static lp_status put_npy_header(lp_outfile *f, const int64_t *shape, int n_dims, lp_error *err)
{
    char dict[256], sizes[96];
    int n = snprintf(sizes, sizeof sizes, "%lld, %lld", (long long)shape[0], (long long)shape[1]);
    if (n_dims == 3) snprintf(sizes + n, sizeof sizes - (size_t)n, ", %lld", (long long)shape[2]);
    n = snprintf(dict, sizeof dict, "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }", sizes);
    int pad = 63 - (10 + n) % 64, len = n + pad + 1;
    unsigned char head[] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)(len & 255), (unsigned char)(len >> 8)};
    LP_TRY(lp_outfile_write(f, head, sizeof head, err));
    LP_TRY(lp_outfile_write(f, dict, (size_t)n, err));
    memset(dict, ' ', (size_t)pad);
    dict[pad] = '\n';
    return lp_outfile_write(f, dict, (size_t)pad + 1, err);
}

static lp_status save_npy(const lp_trace *t, int n, const char *path, lp_error *err)
{
    if (t->n_parts != 1)
        return lp_fail(err, LP_E_RANGE, "a .npy file holds one tensor and %zu were chosen; write .safetensors",
                       t->n_parts);
    int64_t shape[3];
    int n_dims = part_shape(t, &t->parts[0], n, shape);
    lp_outfile f;
    LP_TRY(lp_outfile_open(&f, path, err));
    lp_status st = put_npy_header(&f, shape, n_dims, err);
    if (st == LP_OK) st = put_part(&t->parts[0], n, put_npy, &f, err);
    if (st == LP_OK) st = lp_outfile_end(&f, err);
    lp_outfile_close(&f);
    return st;
}

static char *join_ids(const int *ids, int n)
{
    char *text = malloc((size_t)n * 12 + 1), *at = text;
    if (!text) return NULL;
    *at = 0;
    for (int i = 0; i < n; i++) at += snprintf(at, 13, "%s%d", i ? "," : "", ids[i]);
    return text;
}

static lp_status put_metadata(lp_safetensors_writer *w, const lp_session *s, const lp_note *notes, int n_notes,
                              lp_error *err)
{
    char edited[16];
    char *ids = join_ids(lp_session_tokens(s), lp_session_pos(s));
    if (!ids) return lp_fail(err, LP_E_MEMORY, "no memory for the list of ids");
    lp_status st = lp_safetensors_metadata(w, "ids", ids, err);
    free(ids);
    LP_TRY(st);
    snprintf(edited, sizeof edited, "%d", lp_session_edited_from(s));
    LP_TRY(lp_safetensors_metadata(w, "edited_from", edited, err));
    const lp_session_options *o = lp_session_get_options(s);
    LP_TRY(lp_safetensors_metadata(w, "arithmetic", o->arithmetic == LP_FAST ? "fast" : "exact", err));
    LP_TRY(lp_safetensors_metadata(w, "embed_scale", o->bf16_embed_scale ? "bf16" : "f32", err));
    LP_TRY(lp_safetensors_metadata(w, "kernels", lp_session_kernels(s), err));
    for (int i = 0; i < n_notes; i++) LP_TRY(lp_safetensors_metadata(w, notes[i].key, notes[i].value, err));
    return LP_OK;
}

static lp_status put_safetensors(void *to, const void *data, size_t bytes, lp_error *err)
{
    return lp_safetensors_write(to, data, bytes, err);
}

static lp_status fill_safetensors(lp_safetensors_writer *w, const lp_trace *t, const lp_session *s,
                                  const lp_note *notes, int n_notes, lp_error *err)
{
    int n = lp_session_pos(s);
    LP_TRY(put_metadata(w, s, notes, n_notes, err));
    for (size_t i = 0; i < t->n_parts; i++) {
        char name[96];
        int64_t shape[3];
        int n_dims = part_shape(t, &t->parts[i], n, shape);
        lp_site_tensor_name(name, sizeof name, t->parts[i].site, t->parts[i].layer);
        LP_TRY(lp_safetensors_declare(w, name, LP_F32, n_dims, shape, err));
    }
    LP_TRY(lp_safetensors_begin(w, err));
    for (size_t i = 0; i < t->n_parts; i++) LP_TRY(put_part(&t->parts[i], n, put_safetensors, w, err));
    return lp_safetensors_end(w, err);
}

lp_status lp_trace_save(const lp_trace *t, const lp_session *s, const char *path, const lp_note *notes, int n_notes,
                        lp_error *err)
{
    size_t len = strlen(path);
    if (len > 4 && strcmp(path + len - 4, ".npy") == 0) return save_npy(t, lp_session_pos(s), path, err);
    lp_safetensors_writer *w = NULL;
    LP_TRY(lp_safetensors_create(&w, path, err));
    lp_status st = fill_safetensors(w, t, s, notes, n_notes, err);
    lp_safetensors_close(w);
    return st;
}
