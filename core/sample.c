/* sample.c - see sample.h for what each step means and where its definition comes from.
 *
 * Scores are kept relative to their maximum (so the best is 0 and its weight exp(0) is exactly 1), and every filter
 * that goes by rank is a cut: the last (score, id) that stays.  The result is then collected in one pass over the ids,
 * which is also the order in which it is summed and drawn from; nothing is ever sorted but the few best tokens a cut
 * needs.
 */
#include "core/sample.h"

#include "core/kernels.h"
#include "core/random.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1 << 11, BUCKET_SHIFT = 20 }; /* of positive floats by their bits: eight to a power of two */

struct lp_sampler {
    lp_sample_options o;
    int vocab;
    lp_bias *bias;
    float *score;    /* [vocab] */
    float *weight;   /* [vocab] exp(score) */
    int *count;      /* [vocab] all zero between calls */
    lp_scored *best; /* [vocab] */
    int *ids;        /* [vocab] the distribution */
    double *p;       /* [vocab] */
};

/* ---- options ----------------------------------------------------------------------------------------------- */

lp_sample_options lp_sample_gemma(void)
{
    return (lp_sample_options){.temperature = 1, .top_k = 64, .top_p = 0.95};
}

lp_sample_options lp_sample_llama(void)
{
    return (lp_sample_options){
        .temperature = 0.8, .top_k = 40, .top_p = 0.95, .min_p = 0.05, .penalty_window = 64, .order = LP_ORDER_LLAMA};
}

/* NaN fails every comparison, so each condition is written as what must hold. */
static lp_status check_options(const lp_sample_options *o, int vocab, lp_error *err)
{
    if (!(o->temperature >= 0 && o->temperature <= 1e6))
        return lp_fail(err, LP_E_RANGE, "temperature %g: must be between 0 (greedy) and 1e6", o->temperature);
    if (o->top_k < 0) return lp_fail(err, LP_E_RANGE, "top-k %d: must be 0 (off) or more", o->top_k);
    if (!(o->top_p >= 0 && o->top_p <= 1))
        return lp_fail(err, LP_E_RANGE, "top-p %g: must be above 0 and at most 1 (0: off)", o->top_p);
    if (!(o->min_p >= 0 && o->min_p <= 1))
        return lp_fail(err, LP_E_RANGE, "min-p %g: must be between 0 (off) and 1", o->min_p);
    if (!(o->repetition >= 0 && o->repetition <= 1e6))
        return lp_fail(err, LP_E_RANGE, "repetition penalty %g: must be above 0 (0 or 1: off)", o->repetition);
    if (!(fabs(o->presence) <= 1e6) || !(fabs(o->frequency) <= 1e6))
        return lp_fail(err, LP_E_RANGE, "presence and frequency penalties must be numbers (got %g and %g)", o->presence,
                       o->frequency);
    if (o->penalty_window < 0)
        return lp_fail(err, LP_E_RANGE, "penalty window %d: must be 0 (all) or more", o->penalty_window);
    if (o->order != LP_ORDER_HF && o->order != LP_ORDER_LLAMA)
        return lp_fail(err, LP_E_RANGE, "unknown sampling order");
    for (int i = 0; i < o->n_bias; i++) {
        if (o->bias[i].id < 0 || o->bias[i].id >= vocab)
            return lp_fail(err, LP_E_RANGE, "logit bias on token %d, but ids go from 0 to %d", o->bias[i].id,
                           vocab - 1);
        if (!(o->bias[i].add < INFINITY))
            return lp_fail(err, LP_E_RANGE, "logit bias on token %d: must be a number or -inf", o->bias[i].id);
    }
    return LP_OK;
}

lp_status lp_sampler_new(lp_sampler **out, int vocab, const lp_sample_options *o, lp_error *err)
{
    *out = NULL;
    if (vocab < 1) return lp_fail(err, LP_E_RANGE, "a sampler over %d tokens", vocab);
    LP_TRY(check_options(o, vocab, err));
    lp_sampler *s = lp_calloc(1, sizeof *s);
    if (!s) return lp_fail(err, LP_E_MEMORY, "no memory for a sampler");
    size_t n_bias = o->n_bias > 0 ? (size_t)o->n_bias : 0;
    s->o = *o;
    s->vocab = vocab;
    s->bias = lp_calloc(n_bias, sizeof *s->bias);
    s->score = lp_calloc((size_t)vocab, sizeof *s->score);
    s->weight = lp_calloc((size_t)vocab, sizeof *s->weight);
    s->count = lp_calloc((size_t)vocab, sizeof *s->count);
    s->best = lp_calloc((size_t)vocab, sizeof *s->best);
    s->ids = lp_calloc((size_t)vocab, sizeof *s->ids);
    s->p = lp_calloc((size_t)vocab, sizeof *s->p);
    if (!s->bias || !s->score || !s->weight || !s->count || !s->best || !s->ids || !s->p) {
        lp_sampler_free(s);
        return lp_fail(err, LP_E_MEMORY, "no memory for a sampler over %d tokens", vocab);
    }
    if (n_bias) memcpy(s->bias, o->bias, n_bias * sizeof *s->bias);
    s->o.bias = s->bias;
    *out = s;
    return LP_OK;
}

void lp_sampler_free(lp_sampler *s)
{
    if (!s) return;
    free(s->bias);
    free(s->score);
    free(s->weight);
    free(s->count);
    free(s->best);
    free(s->ids);
    free(s->p);
    free(s);
}

const lp_sample_options *lp_sampler_options(const lp_sampler *s)
{
    return &s->o;
}

int lp_sampler_vocab(const lp_sampler *s)
{
    return s->vocab;
}

/* ---- reading logits ---------------------------------------------------------------------------------------- */

int lp_argmax(const float *x, int n)
{
    int best = -1;
    for (int i = 0; i < n; i++) {
        if (isnan(x[i])) return -1;
        if (best < 0 || x[i] > x[best]) best = i;
    }
    return best;
}

/* A total order: larger scores first, then lower ids; NaN after everything. */
static bool before(lp_scored a, lp_scored b)
{
    bool bad_a = isnan(a.score), bad_b = isnan(b.score);
    if (bad_a != bad_b) return bad_b;
    if (!bad_a && a.score != b.score) return a.score > b.score;
    return a.id < b.id;
}

/* heap[0] is the last in order of those kept; `at` may be too far up. */
static void sift(lp_scored *heap, int n, int at)
{
    lp_scored x = heap[at];
    for (int child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(heap[child], heap[child + 1])) child++;
        if (before(heap[child], x)) break;
        heap[at] = heap[child];
    }
    heap[at] = x;
}

int lp_top_k(lp_scored *out, int k, const float *x, int n)
{
    if (k > n) k = n;
    if (k <= 0) return 0;
    for (int i = 0; i < k; i++) out[i] = (lp_scored){i, x[i]};
    for (int i = k / 2 - 1; i >= 0; i--) sift(out, k, i);
    for (int i = k; i < n; i++) {
        lp_scored next = {i, x[i]};
        if (x[i] <= out[0].score || !before(next, out[0])) continue;
        out[0] = next;
        sift(out, k, 0);
    }
    for (int left = k - 1; left > 0; left--) { /* the worst of those left goes to the end */
        lp_scored worst = out[0];
        out[0] = out[left];
        out[left] = worst;
        sift(out, left, 0);
    }
    return k;
}

/* exp(x - max), the bits of lp_expf whichever table this CPU runs. */
static void exp_all(float *out, const float *x, int n, float max)
{
    memcpy(out, x, (size_t)n * sizeof *out);
    lp_kernels_best()->exp_sum(out, n, max);
}

double lp_log_sum_exp(const float *x, int n)
{
    enum { CHUNK = 512 };
    float e[CHUNK], max = -INFINITY;
    for (int i = 0; i < n; i++)
        if (x[i] > max || isnan(x[i])) max = x[i];
    if (!isfinite(max)) return (double)max;
    double sum = 0;
    for (int at = 0; at < n; at += CHUNK) {
        int k = n - at < CHUNK ? n - at : CHUNK;
        exp_all(e, x + at, k, max);
        for (int i = 0; i < k; i++) sum += (double)e[i];
    }
    return (double)max + log(sum);
}

/* ---- the steps --------------------------------------------------------------------------------------------- */

static lp_status penalise(lp_sampler *s, const int *tokens, size_t n, lp_error *err)
{
    const lp_sample_options *o = &s->o;
    bool repetition = o->repetition != 0 && o->repetition != 1;
    if (!repetition && o->presence == 0 && o->frequency == 0) return LP_OK;
    size_t from = o->penalty_window && n > (size_t)o->penalty_window ? n - (size_t)o->penalty_window : 0;
    for (size_t i = from; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= s->vocab)
            return lp_fail(err, LP_E_RANGE, "token %d before the draw, but ids go from 0 to %d", tokens[i],
                           s->vocab - 1);
    for (size_t i = from; i < n; i++) s->count[tokens[i]]++;
    for (size_t i = from; i < n; i++) {
        int id = tokens[i], c = s->count[id];
        if (!c) continue; /* done at an earlier occurrence */
        double z = (double)s->score[id];
        if (repetition) z = z < 0 ? z * o->repetition : z / o->repetition;
        s->score[id] = (float)(z - (c * o->frequency + o->presence));
        s->count[id] = 0;
    }
    return LP_OK;
}

/* score = (score - max) / t, so that the best is 0 whatever the temperature. */
static void centre(float *score, int n, float max, double t)
{
    for (int i = 0; i < n; i++) score[i] = (float)(((double)score[i] - (double)max) / t);
}

static bool stays(lp_scored cut, float score, int id)
{
    return score > cut.score || (score == cut.score && id <= cut.id);
}

/* Where the k best end. */
static lp_scored cut_rank(lp_sampler *s)
{
    int n = lp_top_k(s->best, s->o.top_k, s->score, s->vocab);
    lp_scored cut = s->best[n - 1];
    if (s->o.order == LP_ORDER_HF) cut.id = INT_MAX; /* equals stay */
    return cut;
}

static int bucket_of(float weight)
{
    uint32_t bits;
    memcpy(&bits, &weight, sizeof bits);
    return (int)(bits >> BUCKET_SHIFT);
}

static int by_rank(const void *a, const void *b)
{
    return before(*(const lp_scored *)a, *(const lp_scored *)b) ? -1 : 1;
}

/* Where the nucleus ends.  A histogram of the weights tells below which no token of it can lie, so that only a few more
 * tokens than it has are ever sorted. */
static lp_scored cut_mass(lp_sampler *s, lp_scored cut)
{
    double bucket[BUCKETS] = {0}, total = 0, mass = 0;
    for (int i = 0; i < s->vocab; i++) {
        if (!stays(cut, s->score[i], i)) continue;
        total += (double)s->weight[i];
        bucket[bucket_of(s->weight[i])] += (double)s->weight[i];
    }
    double want = s->o.top_p * total;
    int least = BUCKETS;
    while (least > 0 && mass < want) mass += bucket[--least];
    if (least > 0) least--; /* the sums below are rounded in another order: one bucket to spare */
    int n = 0;
    for (int i = 0; i < s->vocab; i++)
        if (bucket_of(s->weight[i]) >= least && stays(cut, s->score[i], i)) s->best[n++] = (lp_scored){i, s->score[i]};
    qsort(s->best, (size_t)n, sizeof *s->best, by_rank);
    mass = 0;
    for (int i = 0; i < n; i++) {
        if (mass >= want) return s->best[i - 1];
        mass += (double)s->weight[s->best[i].id];
    }
    return n < s->vocab && n > 0 && least > 0 ? s->best[n - 1] : cut;
}

/* Everything inside the cut and min-p, in the order of ids, normalised. */
static int collect(lp_sampler *s, lp_scored cut)
{
    const lp_sample_options *o = &s->o;
    double total = 0;
    int n = 0;
    for (int i = 0; i < s->vocab; i++) {
        if (!stays(cut, s->score[i], i)) continue;
        float w = s->weight[i];
        if ((double)w < o->min_p) continue;
        if (o->order == LP_ORDER_LLAMA) w = lp_expf((float)((double)s->score[i] / o->temperature));
        if (w == 0) continue;
        s->ids[n] = i;
        s->p[n] = (double)w;
        total += (double)w;
        n++;
    }
    for (int i = 0; i < n; i++) s->p[i] /= total;
    return n;
}

lp_status lp_sampler_distribution(lp_distribution *out, lp_sampler *s, const float *logits, const int *tokens,
                                  size_t n_tokens, lp_error *err)
{
    const lp_sample_options *o = &s->o;
    *out = (lp_distribution){s->ids, s->p, 0};
    memcpy(s->score, logits, (size_t)s->vocab * sizeof *s->score);
    for (int i = 0; i < o->n_bias; i++) s->score[s->bias[i].id] += s->bias[i].add;
    LP_TRY(penalise(s, tokens, n_tokens, err));

    int best = lp_argmax(s->score, s->vocab);
    if (best < 0 || s->score[best] == INFINITY)
        return lp_fail(err, LP_E_RANGE,
                       "the logits hold NaN or infinity; are there broken weights (lapidary info --check)?");
    if (s->score[best] == -INFINITY) return lp_fail(err, LP_E_RANGE, "every token is banned; nothing is left to draw");
    if (o->temperature == 0) {
        s->ids[0] = best;
        s->p[0] = 1;
        out->n = 1;
        return LP_OK;
    }
    centre(s->score, s->vocab, s->score[best], o->order == LP_ORDER_HF ? o->temperature : 1);
    exp_all(s->weight, s->score, s->vocab, 0);
    lp_scored cut = {INT_MAX, -INFINITY};
    if (o->top_k > 0 && o->top_k < s->vocab) cut = cut_rank(s);
    if (o->top_p > 0 && o->top_p < 1) cut = cut_mass(s, cut);
    out->n = collect(s, cut);
    return LP_OK;
}

/* ---- drawing ----------------------------------------------------------------------------------------------- */

int lp_distribution_draw(const lp_distribution *d, double u)
{
    double sum = 0;
    for (int i = 0; i < d->n; i++) {
        sum += d->p[i];
        if (sum > u) return d->ids[i];
    }
    return d->ids[d->n - 1]; /* the sum may end a rounding below 1 */
}

double lp_distribution_p(const lp_distribution *d, int id)
{
    int low = 0, high = d->n;
    while (low < high) {
        int mid = low + (high - low) / 2;
        if (d->ids[mid] < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low < d->n && d->ids[low] == id ? d->p[low] : 0;
}

lp_status lp_sampler_next(int *id, lp_sampler *s, const float *logits, const int *tokens, size_t n_tokens,
                          lp_error *err)
{
    lp_distribution d;
    LP_TRY(lp_sampler_distribution(&d, s, logits, tokens, n_tokens, err));
    *id = lp_distribution_draw(&d, lp_random_unit(s->o.seed, n_tokens, LP_DRAW_TOKEN));
    return LP_OK;
}

/* sum p log(p / p'), written as sum p (p'/p - 1 - log(p'/p)): the same, since both add up to 1, but no term is below
 * zero and nothing cancels between terms, so that a small divergence is not lost in the rounding of the two norms. */
double lp_kl(const float *z, double norm, const float *other, double other_norm, int n)
{
    double kl = 0;
    for (int i = 0; i < n; i++) {
        double a = (double)z[i] - norm, b = (double)other[i] - other_norm, d = b - a;
        kl += fabs(d) < 1 ? exp(a) * (expm1(d) - d) : exp(b) - exp(a) - exp(a) * d;
    }
    return kl;
}
