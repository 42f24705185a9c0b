/* forward.c - the whole forward pass of Gemma 2.  Start reading at block().
 *
 * A wave of n rows (n = 1 while generating) goes through one loop over the layers; every place with a name shows its
 * rows to whoever watches (lp_pass).  Equations and their order: huggingface/transformers modeling_gemma2.py (eager,
 * float32), cross-read with google/gemma_pytorch gemma/model.py and google/gemma.cpp gemma/gemma.cc.
 *
 *     x = E[token] sqrt(D)
 *     each layer:  x += post_norm(attention(pre_norm(x)));  x += post_norm(mlp(pre_norm(x)))
 *     logits = 30 tanh(norm(x) E^T / 30)
 *
 * n rows, D d_model, H heads, G kv heads, E head_dim, F d_ff, K keys, V vocab
 */
#include "core/quant.h"
#include "core/wave.h"

#include <math.h>
#include <string.h>

static void multiply(lp_wave *w, float *const *y, const lp_matrix *const *m, int count, const float *x, int n)
{
    lp_matmul(y, m, count, x, n, w->s->options.arithmetic, w->s->mm, &w->s->env);
}

/* ---- norms and sums ---------------------------------------------------------------------------------------------- */

typedef struct rows {
    float *y;
    const float *x;
    const float *gain; /* [D], 1 + w; NULL: none */
} rows;

static void rms_row(lp_wave *w, const void *arg, int r, int thread)
{
    (void)thread;
    const rows *a = arg;
    int D = w->c->d_model;
    float mean = w->s->k->sum_squares(a->x + (size_t)r * (size_t)D, D) / (float)D;
    w->s->rms[r] = sqrtf(mean + (float)w->c->rms_eps);
}

static void divide_row(lp_wave *w, const void *arg, int r, int thread)
{
    (void)thread;
    const rows *a = arg;
    size_t D = (size_t)w->c->d_model, at = (size_t)r * D;
    w->s->k->scale(a->y + at, a->x + at, 1.0f / w->s->rms[r], (int)D);
}

static void gain_row(lp_wave *w, const void *arg, int r, int thread)
{
    (void)thread;
    const rows *a = arg;
    size_t D = (size_t)w->c->d_model, at = (size_t)r * D;
    w->s->k->mul(a->y + at, a->y + at, a->gain, (int)D);
}

static void add_row(lp_wave *w, const void *arg, int r, int thread)
{
    (void)thread;
    const rows *a = arg;
    size_t D = (size_t)w->c->d_model, at = (size_t)r * D;
    w->s->k->add(a->y + at, a->x + at, (int)D);
}

/* y = x / rms (1 + w), rms = sqrt(mean(x^2) + eps) over D; the divisor can be watched and replaced (frozen norms), and
 * so can x / rms where `normed` names a site (LP_N_SITES: none).  transformers: Gemma2RMSNorm.forward */
static lp_status norm(lp_wave *w, float *y, const float *x, const float *gain, lp_site rms, lp_site normed)
{
    rows a = {y, x, gain};
    lp_each(w, w->n, (size_t)w->c->d_model, rms_row, &a);
    LP_TRY(lp_pass(w, rms, w->s->rms, 1, 1));
    lp_each(w, w->n, (size_t)w->c->d_model, divide_row, &a);
    if (normed != LP_N_SITES) LP_TRY(lp_pass(w, normed, y, 1, w->c->d_model));
    lp_each(w, w->n, (size_t)w->c->d_model, gain_row, &a);
    return LP_OK;
}

/* ---- embedding --------------------------------------------------------------------------------------------------- */

static void embed_row(lp_wave *w, const void *arg, int r, int thread)
{
    (void)thread;
    const int *ids = arg;
    lp_matrix_row(&w->s->model->embed, ids[r], w->s->x + (size_t)r * (size_t)w->c->d_model, w->s->k);
}

static void scale_row(lp_wave *w, const void *arg, int r, int thread)
{
    (void)thread;
    float *x = w->s->x + (size_t)r * (size_t)w->c->d_model;
    w->s->k->scale(x, x, *(const float *)arg, w->c->d_model);
}

/* sqrt(D), 48 for 2B; a bf16 run of the reference multiplies 9B by 59.75 (not 59.87) and 27B by 68 (not 67.88). */
static float embed_scale(const lp_session *s)
{
    float exact = sqrtf((float)s->model->config.d_model);
    return s->options.bf16_embed_scale ? lp_bf16_to_f32(lp_f32_to_bf16(exact)) : exact;
}

static lp_status embed(lp_wave *w, const int *ids)
{
    float scale = embed_scale(w->s);
    lp_each(w, w->n, LP_LANES * (size_t)w->c->d_model, embed_row, ids); /* a whole panel is widened for one row */
    LP_TRY(lp_pass(w, LP_EMBED_RAW, w->s->x, 1, w->c->d_model));
    lp_each(w, w->n, (size_t)w->c->d_model, scale_row, &scale);
    return lp_pass(w, LP_EMBED, w->s->x, 1, w->c->d_model);
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* Half-split rotation: element i pairs with i + E/2.  transformers: apply_rotary_pos_emb, rotate_half */
static void rope_row(lp_wave *w, const void *arg, int r, int thread)
{
    (void)arg;
    (void)thread;
    const lp_config *c = w->c;
    const lp_model *m = w->s->model;
    int E = c->head_dim, half = E / 2;
    size_t at = (size_t)lp_row_pos(w, r) * (size_t)half;
    float *q = w->s->q + (size_t)r * (size_t)(c->n_heads * E);
    float *k = w->s->key + (size_t)r * (size_t)(c->n_kv_heads * E);
    for (int h = 0; h < c->n_heads; h++) w->s->k->rope(q + h * E, m->rope_cos + at, m->rope_sin + at, half);
    for (int g = 0; g < c->n_kv_heads; g++) w->s->k->rope(k + g * E, m->rope_cos + at, m->rope_sin + at, half);
}

static void put_row(lp_wave *w, const void *arg, int r, int thread)
{
    (void)arg;
    (void)thread;
    size_t at = (size_t)r * (size_t)(w->c->n_kv_heads * w->c->head_dim);
    if (w->each == LP_UNBRANCHED)
        lp_kv_put(&w->s->kv, w->layer, w->pos + r, w->s->key + at, w->s->v + at);
    else
        lp_kv_put(&w->s->tails[r / w->each], 0, w->pos % LP_PAGE + r % w->each, w->s->key + at, w->s->v + at);
}

/* How many of the wave's rows from r on can be attended to at once: what the score buffer holds, and whole branches or
 * part of one.  All of them have the keys 0 .. *K - 1, at most. */
static int rows_at_once(const lp_wave *w, int r, int *K)
{
    int each = w->each < w->n ? w->each : w->n, inside = r % each, n = w->n - r;
    size_t most = w->s->score_floats / ((size_t)w->c->n_heads * (size_t)(w->pos + each));
    if (most < (size_t)n) n = (int)most;
    bool is_part = inside || n < each;
    n = is_part ? (n < each - inside ? n : each - inside) : n / each * each;
    *K = w->pos + (is_part ? inside + n : each);
    return n;
}

/* softmax(mask(cap(q k^T / sqrt(scalar)))) v for all rows, as many at a time as the score buffer holds. */
static lp_status attend(lp_wave *w)
{
    int H = w->c->n_heads;
    for (int r = 0, n, K; r < w->n; r += n) {
        n = rows_at_once(w, r, &K);
        lp_attend_scores(w, r, n, K);
        if (w->armed >> LP_SCORES & 1) LP_TRY(lp_wave_show(w, LP_SCORES, r, n, w->s->scores, H, K));
        lp_attend_softmax(w, r, n, K);
        if (w->armed >> LP_PATTERN & 1) LP_TRY(lp_wave_show(w, LP_PATTERN, r, n, w->s->scores, H, K));
        lp_attend_values(w, r, n, K);
    }
    return LP_OK;
}

/* h = attention(h).  transformers: Gemma2Attention.forward */
static lp_status attention(lp_wave *w)
{
    lp_session *s = w->s;
    const lp_layer *L = w->L;
    int H = w->c->n_heads, G = w->c->n_kv_heads, E = w->c->head_dim;
    multiply(w, (float *const[]){s->q, s->key, s->v}, (const lp_matrix *const[]){&L->q, &L->k, &L->v}, 3, s->h, w->n);
    LP_TRY(lp_pass(w, LP_Q, s->q, H, E));
    LP_TRY(lp_pass(w, LP_K, s->key, G, E));
    LP_TRY(lp_pass(w, LP_V, s->v, G, E));
    lp_each(w, w->n, (size_t)(H + G) * (size_t)E, rope_row, NULL);
    LP_TRY(lp_pass(w, LP_Q_ROT, s->q, H, E));
    LP_TRY(lp_pass(w, LP_K_ROT, s->key, G, E));
    lp_each(w, w->n, 2 * (size_t)G * (size_t)E, put_row, NULL);
    LP_TRY(attend(w));
    LP_TRY(lp_pass(w, LP_Z, s->z, H, E));
    multiply(w, (float *const[]){s->h}, (const lp_matrix *const[]){&L->o}, 1, s->z, w->n);
    return LP_OK;
}

/* ---- mlp --------------------------------------------------------------------------------------------------------- */

static void gelu_row(lp_wave *w, const void *arg, int r, int thread)
{
    (void)arg;
    (void)thread;
    size_t F = (size_t)w->c->d_ff, at = (size_t)r * F;
    w->s->k->gelu_mul(w->s->gate + at, w->s->gate + at, w->s->up + at, (int)F);
}

/* h = down(gelu_tanh(gate(h)) * up(h)).  transformers: Gemma2MLP.forward */
static lp_status mlp(lp_wave *w)
{
    lp_session *s = w->s;
    const lp_layer *L = w->L;
    int F = w->c->d_ff;
    multiply(w, (float *const[]){s->gate, s->up}, (const lp_matrix *const[]){&L->gate, &L->up}, 2, s->h, w->n);
    LP_TRY(lp_pass(w, LP_MLP_GATE, s->gate, 1, F));
    LP_TRY(lp_pass(w, LP_MLP_UP, s->up, 1, F));
    lp_each(w, w->n, 4 * (size_t)F, gelu_row, NULL);
    LP_TRY(lp_pass(w, LP_MLP_ACT, s->gate, 1, F));
    multiply(w, (float *const[]){s->h}, (const lp_matrix *const[]){&L->down}, 1, s->gate, w->n);
    return LP_OK;
}

/* ---- a layer ----------------------------------------------------------------------------------------------------- */

static void add_branch(lp_wave *w)
{
    rows a = {w->s->x, w->s->h, NULL};
    lp_each(w, w->n, (size_t)w->c->d_model, add_row, &a);
}

/* x += post_norm(attention(pre_norm(x))), then the same around the mlp.  x is [n][D], in place; h holds the branch.
 * transformers: Gemma2DecoderLayer.forward */
static lp_status block(lp_wave *w)
{
    const lp_layer *L = w->L;
    float *x = w->s->x, *h = w->s->h;
    int D = w->c->d_model;

    LP_TRY(lp_pass(w, LP_RESID_PRE, x, 1, D));

    LP_TRY(norm(w, h, x, L->attn_pre_gain, LP_ATTN_PRE_RMS, LP_N_SITES));
    LP_TRY(lp_pass(w, LP_ATTN_IN, h, 1, D));
    LP_TRY(attention(w));
    LP_TRY(lp_pass(w, LP_ATTN_RAW, h, 1, D));
    LP_TRY(norm(w, h, h, L->attn_post_gain, LP_ATTN_POST_RMS, LP_N_SITES));
    LP_TRY(lp_pass(w, LP_ATTN_OUT, h, 1, D));
    add_branch(w);
    LP_TRY(lp_pass(w, LP_RESID_MID, x, 1, D));

    LP_TRY(norm(w, h, x, L->mlp_pre_gain, LP_MLP_PRE_RMS, LP_MLP_NORMED));
    LP_TRY(lp_pass(w, LP_MLP_IN, h, 1, D));
    LP_TRY(mlp(w));
    LP_TRY(lp_pass(w, LP_MLP_RAW, h, 1, D));
    LP_TRY(norm(w, h, h, L->mlp_post_gain, LP_MLP_POST_RMS, LP_N_SITES));
    LP_TRY(lp_pass(w, LP_MLP_OUT, h, 1, D));
    add_branch(w);
    return lp_pass(w, LP_RESID_POST, x, 1, D);
}

/* ---- unembedding ------------------------------------------------------------------------------------------------- */

static void softcap_row(lp_wave *w, const void *arg, int r, int thread)
{
    (void)thread;
    float *const *out = arg;
    w->s->k->softcap(*out + (size_t)r * (size_t)w->c->vocab, w->c->vocab, (float)w->c->final_softcap);
}

/* Rows of the stream from x on to logits: out [w->n][V].  The tied table is not scaled here. */
static lp_status unembed(lp_wave *w, const float *x, float *out)
{
    const lp_model *m = w->s->model;
    LP_TRY(norm(w, w->s->h, x, m->final_gain, LP_FINAL_RMS, LP_N_SITES));
    LP_TRY(lp_pass(w, LP_FINAL_IN, w->s->h, 1, w->c->d_model));
    if (!out) return LP_OK;
    multiply(w, &out, (const lp_matrix *const[]){&m->embed}, 1, w->s->h, w->n);
    LP_TRY(lp_pass(w, LP_LOGITS_RAW, out, 1, w->c->vocab));
    if (w->c->final_softcap > 0) lp_each(w, w->n, (size_t)w->c->vocab, softcap_row, &out);
    return lp_pass(w, LP_LOGITS, out, 1, w->c->vocab);
}

#define BIT(site) (1u << (site))

/* The last row always; every row, a few at a time, as far as somebody watches. */
static lp_status finish(lp_wave *w, bool want_logits)
{
    lp_session *s = w->s;
    size_t D = (size_t)w->c->d_model, V = (size_t)w->c->vocab;
    int n = w->n, pos = w->pos, r = n - 1;
    bool all_logits = w->armed & (BIT(LP_LOGITS_RAW) | BIT(LP_LOGITS));
    if (w->armed & (BIT(LP_FINAL_RMS) | BIT(LP_FINAL_IN) | BIT(LP_LOGITS_RAW) | BIT(LP_LOGITS)))
        r = 0;
    else if (!want_logits)
        return LP_OK;
    for (int chunk; r < n; r += chunk) {
        chunk = all_logits ? LP_LOGIT_ROWS : n - 1 - r; /* without logits: all rows but the last, then the last */
        if (chunk > n - r) chunk = n - r;
        if (chunk < 1) chunk = 1;
        bool last = r + chunk == n;
        w->n = chunk, w->pos = pos + r;
        float *out = all_logits ? s->logit_rows : last && want_logits ? s->next_logits : NULL;
        LP_TRY(unembed(w, s->x + (size_t)r * D, out));
        if (all_logits && last) memcpy(s->next_logits, out + (size_t)(chunk - 1) * V, V * sizeof *out);
    }
    return LP_OK;
}

/* Branches end in one row each, which go on alone: from here on the wave is those rows. */
static lp_status finish_branches(lp_wave *w, const lp_rows *given)
{
    lp_session *s = w->s;
    size_t D = (size_t)w->c->d_model, V = (size_t)w->c->vocab;
    int n = w->n / w->each, first = w->branch;
    for (int b = 0; b < n; b++)
        memmove(s->x + (size_t)b * D, s->x + ((size_t)(b + 1) * (size_t)w->each - 1) * D, D * sizeof *s->x);
    w->pos += w->each - 1;
    w->each = 1;
    for (int b = 0; b < n; b += w->n) {
        w->n = n - b < LP_LOGIT_ROWS ? n - b : LP_LOGIT_ROWS;
        w->branch = first + b;
        LP_TRY(unembed(w, s->x + (size_t)b * D, s->logit_rows));
        for (int i = 0; i < w->n; i++)
            if (given->fn(w->branch + i, s->logit_rows + (size_t)i * V, given->user)) return LP_STOPPED;
    }
    return LP_OK;
}

/* ---- the pass ---------------------------------------------------------------------------------------------------- */

static void enter(lp_wave *w, int layer)
{
    w->layer = layer;
    w->L = layer < 0 ? NULL : &w->s->model->layers[layer];
    w->armed = w->s->armed[layer < 0 ? LP_WHOLE : layer];
}

lp_status lp_forward(lp_session *s, const lp_rows *given, lp_error *err)
{
    lp_wave w = {.s = s, .c = &s->model->config, .n = given->n, .pos = s->pos, .each = given->each, .err = err};
    w.branch = given->branch;
    enter(&w, LP_WHOLE_MODEL);
    LP_TRY(embed(&w, given->ids));
    for (int l = 0; l <= given->last_layer; l++) {
        if (lp_cancelled(&s->env)) return LP_CANCELLED;
        enter(&w, l);
        LP_TRY(block(&w));
    }
    if (given->last_layer < w.c->n_layers - 1) return LP_OK;
    enter(&w, LP_WHOLE_MODEL);
    if (w.each == LP_UNBRANCHED) return finish(&w, given->want_logits);
    return given->fn ? finish_branches(&w, given) : LP_OK;
}

lp_status lp_session_unembed(lp_session *s, const float *x, int n, float *out, lp_error *err)
{
    size_t D = (size_t)s->model->config.d_model, V = (size_t)s->model->config.vocab;
    if (s->is_busy) return lp_fail(err, LP_E_RANGE, "called from a hook of the same session, whose scratch is in use");
    for (int r = 0; r < n; r += s->options.wave) {
        lp_wave w = {.s = s, .c = &s->model->config, .each = LP_UNBRANCHED, .layer = LP_WHOLE_MODEL, .err = err};
        w.n = n - r < s->options.wave ? n - r : s->options.wave;
        LP_TRY(unembed(&w, x + (size_t)r * D, out + (size_t)r * V));
    }
    return LP_OK;
}
