/* shard_parts.c - see shard_parts.h: heads, places in the file, the numbers of a shard. */
#include "store/shard_parts.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- heads ------------------------------------------------------------------------------------------------------- */

lp_shard_sae lp_shard_sae_of(const lp_sae *s)
{
    return (lp_shard_sae){.name = s->name,
                          .hash = s->hash,
                          .spot = s->spot,
                          .d_sae = s->d_sae,
                          .d_out = s->d_out,
                          .threshold = s->kind == LP_SAE_JUMPRELU ? s->threshold : NULL,
                          .has_sum = true};
}

static bool copy_text(const char **out, const char *s)
{
    return (*out = lp_strdup(s ? s : "")) != NULL;
}

/* The head's own texts are what it points to; free wants them without const. */
static void free_text(const char **s)
{
    union {
        const char *held;
        void *p;
    } u = {*s};
    free(u.p);
    *s = NULL;
}

lp_status lp_shard_head_copy(lp_shard_head *out, const lp_shard_head *h, lp_error *err)
{
    lp_shard_sae *saes = lp_calloc((size_t)h->n_saes + 1, sizeof *saes);
    lp_shard_dense *dense = lp_calloc((size_t)h->n_dense + 1, sizeof *dense);
    *out = *h;
    out->run = out->plan = out->model_hash = out->tokenizer_hash = out->provenance = NULL;
    out->saes = saes, out->dense = dense;
    if (!out->value_bits) out->value_bits = LP_SHARD_ALL_BITS;
    bool ok = saes && dense && copy_text(&out->run, h->run) && copy_text(&out->plan, h->plan) &&
              copy_text(&out->model_hash, h->model_hash) && copy_text(&out->tokenizer_hash, h->tokenizer_hash) &&
              copy_text(&out->provenance, h->provenance);
    for (int i = 0; ok && i < h->n_saes; i++) {
        saes[i] = h->saes[i], saes[i].name = saes[i].hash = NULL;
        ok = copy_text(&saes[i].name, h->saes[i].name) && copy_text(&saes[i].hash, h->saes[i].hash);
    }
    if (ok && h->n_dense) memcpy(dense, h->dense, (size_t)h->n_dense * sizeof *dense);
    if (ok) return LP_OK;
    lp_shard_head_free(out);
    return lp_fail(err, LP_E_MEMORY, "out of memory");
}

void lp_shard_head_free(lp_shard_head *h)
{
    union {
        const lp_shard_sae *held;
        lp_shard_sae *p;
    } saes = {h->saes};
    union {
        const lp_shard_dense *held;
        lp_shard_dense *p;
    } dense = {h->dense};
    for (int i = 0; saes.p && i < h->n_saes; i++) free_text(&saes.p[i].name), free_text(&saes.p[i].hash);
    free_text(&h->run), free_text(&h->plan), free_text(&h->model_hash), free_text(&h->tokenizer_hash);
    free_text(&h->provenance);
    free(saes.p), free(dense.p);
    *h = (lp_shard_head){0};
}

bool lp_is_hash(const char *s)
{
    return s && strlen(s) == 32 && strspn(s, "0123456789abcdef") == 32;
}

static bool is_place(lp_site site, int layer)
{
    return site >= 0 && site < LP_N_SITES && (lp_site_has_layer(site) ? layer >= 0 : layer == LP_WHOLE_MODEL);
}

static lp_status check_sae(const lp_shard_head *h, int i, lp_error *err)
{
    const lp_shard_sae *s = &h->saes[i];
    if (!s->name || !s->name[0] || strlen(s->name) > LP_SHARD_NAME || strcmp(s->name, ".") == 0)
        return lp_fail(err, LP_E_RANGE, "SAE %d needs a name of at most %d bytes", i, LP_SHARD_NAME);
    for (const char *p = s->name; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            return lp_fail(err, LP_E_RANGE, "SAE %d: a control character in its name", i);
    if (!lp_is_hash(s->hash)) return lp_fail(err, LP_E_RANGE, "SAE %s: its hash is not 32 hex digits", s->name);
    if (!is_place(s->spot.site, s->spot.layer) || (s->spot.is_coder && !is_place(s->spot.site_out, s->spot.layer_out)))
        return lp_fail(err, LP_E_RANGE, "SAE %s: the site it reads is not known", s->name);
    if (s->d_sae < 1 || s->d_sae > LP_SHARD_WIDTH || s->d_out < 1 || s->d_out > LP_SHARD_WIDTH)
        return lp_fail(err, LP_E_RANGE, "SAE %s: %d features and %d outputs; 1 to %d each", s->name, s->d_sae, s->d_out,
                       LP_SHARD_WIDTH);
    lp_shard_path path = lp_shard_sae_path(s);
    for (int j = 0; j < i; j++)
        if (strcmp(lp_shard_sae_path(&h->saes[j]).text, path.text) == 0)
            return lp_fail(err, LP_E_RANGE, "two SAEs would be %s", path.text);
    return LP_OK;
}

static lp_status check_dense(const lp_shard_head *h, int i, lp_error *err)
{
    const lp_shard_dense *d = &h->dense[i];
    if (!is_place(d->site, d->layer)) return lp_fail(err, LP_E_RANGE, "dense site %d is not known", i);
    if (d->width < 1 || d->width > LP_SHARD_WIDTH)
        return lp_fail(err, LP_E_RANGE, "dense site %s: width %d", lp_site_name(d->site), d->width);
    if (d->type != LP_F32 && d->type != LP_F16 && d->type != LP_BF16)
        return lp_fail(err, LP_E_RANGE, "dense site %s: kept as f32, f16 or bf16", lp_site_name(d->site));
    if (!h->n_tokens) return lp_fail(err, LP_E_RANGE, "dense sites need the number of tokens beforehand");
    for (int j = 0; j < i; j++)
        if (h->dense[j].site == d->site && h->dense[j].layer == d->layer)
            return lp_fail(err, LP_E_RANGE, "dense site %s of layer %d twice", lp_site_name(d->site), d->layer);
    return LP_OK;
}

lp_status lp_shard_head_check(const lp_shard_head *h, lp_error *err)
{
    if (!lp_is_hash(h->run)) return lp_fail(err, LP_E_RANGE, "the run's hash is not 32 hex digits");
    const char *const hashes[] = {h->plan, h->model_hash, h->tokenizer_hash};
    for (int i = 0; i < 3; i++)
        if (hashes[i] && hashes[i][0] && !lp_is_hash(hashes[i]))
            return lp_fail(err, LP_E_RANGE, "a hash of the shard is not 32 hex digits: %s", hashes[i]);
    if (h->number < 0 || h->number > 999999)
        return lp_fail(err, LP_E_RANGE, "shard %d; they are numbered from 0 to 999999", h->number);
    if (h->token_base < 0 || h->n_tokens < 0 || h->vocab < 1)
        return lp_fail(err, LP_E_RANGE, "%d tokens from %lld, a vocabulary of %d", h->n_tokens,
                       (long long)h->token_base, h->vocab);
    if (h->value_bits < 0 || h->value_bits > LP_SHARD_ALL_BITS)
        return lp_fail(err, LP_E_RANGE, "%d bits of a value; 1 to %d can be kept", h->value_bits, LP_SHARD_ALL_BITS);
    if (h->n_saes < 0 || h->n_saes > LP_SHARD_SPOTS || h->n_dense < 0 || h->n_dense > LP_SHARD_SPOTS)
        return lp_fail(err, LP_E_RANGE, "%d SAEs and %d dense sites; at most %d each", h->n_saes, h->n_dense,
                       LP_SHARD_SPOTS);
    for (int i = 0; i < h->n_saes; i++) LP_TRY(check_sae(h, i, err));
    for (int i = 0; i < h->n_dense; i++) LP_TRY(check_dense(h, i, err));
    return LP_OK;
}

/* ---- places ------------------------------------------------------------------------------------------------------ */

static int put_place(lp_shard_path *p, lp_site site, int layer)
{
    return lp_site_has_layer(site) ? snprintf(p->text, sizeof p->text, "layers/%d/%s", layer, lp_site_name(site))
                                   : snprintf(p->text, sizeof p->text, "model/%s", lp_site_name(site));
}

lp_shard_path lp_shard_sae_path(const lp_shard_sae *s)
{
    lp_shard_path p;
    int n = put_place(&p, s->spot.site, s->spot.layer);
    n += snprintf(p.text + n, sizeof p.text - (size_t)n, "/sae/");
    snprintf(p.text + n, sizeof p.text - (size_t)n, "%s", s->name);
    for (char *c = p.text + n; *c; c++)
        if (*c == '/') *c = '.';
    return p;
}

lp_shard_path lp_shard_dense_path(const lp_shard_dense *d)
{
    lp_shard_path p;
    int n = put_place(&p, d->site, d->layer);
    snprintf(p.text + n, sizeof p.text - (size_t)n, "/dense");
    return p;
}

lp_h5_type lp_shard_dense_type(lp_dtype t)
{
    return t == LP_F32 ? LP_H5_F32 : t == LP_F16 ? LP_H5_F16 : LP_H5_U16;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

/* Positive floats are in the order of their bits, so "the next" is one more. */
float lp_shard_round(float v, int bits, float threshold)
{
    if (bits >= LP_SHARD_ALL_BITS) return v;
    uint32_t u, step = 1u << (LP_SHARD_ALL_BITS - bits), low;
    memcpy(&u, &v, sizeof u);
    low = u & ~(step - 1);
    uint32_t rest = u - low, up = low + step;
    uint32_t nearest = rest > step / 2 || (rest == step / 2 && (low & step)) ? up : low;
    float f, floor_at = threshold > 0 ? threshold : 0;
    memcpy(&f, &nearest, sizeof f);
    if (isinf(f)) memcpy(&f, &low, sizeof f);
    if (!(f > floor_at)) memcpy(&f, &up, sizeof f);
    return isinf(f) ? v : f;
}

int lp_shard_bin(float v)
{
    static const double edges[] = {0.59460355750136053, 0.70710678118654752,
                                   0.84089641525371454}; /* 2^-3/4, -1/2, -1/4 */
    int e;
    double m = frexp((double)v, &e); /* 1/2 <= m < 1 */
    int bin = 4 * (e - 1) + (m >= edges[0]) + (m >= edges[1]) + (m >= edges[2]) + 16;
    return bin < 0 ? 0 : bin >= LP_SHARD_BINS ? LP_SHARD_BINS - 1 : bin;
}

lp_shard_stat lp_shard_stat_of(const int *row, const float *value, size_t n, const uint8_t *excluded, const int *doc)
{
    lp_shard_stat s = {0};
    int last = -1;
    for (size_t i = 0; i < n; i++) {
        if (excluded[row[i]] != LP_ROW_COUNTS) continue;
        double v = (double)value[i];
        s.n_active++;
        s.n_docs += doc[row[i]] != last;
        last = doc[row[i]];
        if (value[i] > s.max) s.max = value[i];
        s.sum += v, s.sumsq += v * v;
        s.hist[lp_shard_bin(value[i])]++;
    }
    return s;
}
