/* guard.c - see guard.h. */
#include "sae/guard.h"

#include "sae/check_cache.h"
#include "sae/hash.h"
#include "sae/reader.h"
#include "sae/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the measurement, not of the file: figures of an earlier one are not found. */
static const char measurement[] = "check 1";

enum { MOST_BYTES = 64 * LP_GUARD_TOKENS, WAVE = 128 };

typedef struct job {
    const lp_guard *g;
    const lp_sae *const *saes;
    int n;
    lp_check *checks;
    lp_session *s;
    lp_passage passage;
    lp_check_cache *cache;
    char (*keys)[33];       /* [n] */
    const lp_sae **unknown; /* [n_unknown] to be measured */
    int *whose;             /* [n_unknown] their places   */
    lp_check *measured;     /* [n_unknown]                */
    int n_unknown;
} job;

/* ---- the text ---------------------------------------------------------------------------------------------------- */

/* The head of the text, as few pieces as hold LP_GUARD_TOKENS. */
static lp_status take_text(job *w, lp_error *err)
{
    size_t n = w->g->n_text < MOST_BYTES ? w->g->n_text : MOST_BYTES;
    while (n < w->g->n_text && ((unsigned char)w->g->text[n] & 0xC0) == 0x80) n--; /* no cut inside a character */
    lp_passage *p = &w->passage;
    LP_TRY(lp_passage_make(p, w->s, w->g->text, n, err));
    size_t own = p->piece - p->has_bos, pieces = (LP_GUARD_TOKENS + own - 1) / own;
    if (p->n_pieces <= pieces) return LP_OK;
    p->n_pieces = pieces, p->last = p->piece, p->n_tokens = pieces * own;
    return LP_OK;
}

static lp_status open_session(job *w, const lp_model *m, const lp_env *env, lp_error *err)
{
    int n_ctx = LP_GUARD_TOKENS + (m->config.bos >= 0);
    lp_session_options o = {.arithmetic = w->g->arithmetic,
                            .wave = WAVE,
                            .n_ctx = n_ctx < m->config.max_positions ? n_ctx : m->config.max_positions};
    return lp_session_new(&w->s, m, &o, env, err);
}

/* ---- what is known ----------------------------------------------------------------------------------------------- */

static void make_key(char out[33], const job *w, const char *model, const lp_sae *s)
{
    const lp_passage *p = &w->passage;
    const lp_sae_spot *at = &s->spot;
    bool is_fast = w->g->arithmetic == LP_FAST; /* only then do the kernels show in the bits */
    const int numbers[] = {(int)s->decoder_type, (int)at->site, at->layer,        at->is_coder,  (int)at->site_out,
                           at->layer_out,        is_fast,       (int)p->n_pieces, (int)p->piece, (int)p->last};
    XXH128_hash_t h = XXH3_128bits(p->ids, p->n_pieces * p->piece * sizeof *p->ids);
    char text[400], ids[33];
    lp_hash_text(ids, h);
    int n = snprintf(text, sizeof text, "%s %s %s %s %s", measurement, model, s->hash, ids,
                     is_fast ? lp_session_kernels(w->s) : "");
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, " %d", numbers[i]);
    lp_hash_text(out, XXH3_128bits(text, (size_t)n));
}

static lp_status look_up(job *w, const lp_model *m, lp_error *err)
{
    char sketch[33];
    size_t room = (size_t)w->n + 1;
    w->keys = lp_calloc(room, sizeof *w->keys);
    w->unknown = lp_calloc(room, sizeof *w->unknown);
    w->whose = lp_calloc(room, sizeof *w->whose);
    w->measured = lp_calloc(room, sizeof *w->measured);
    if (!w->keys || !w->unknown || !w->whose || !w->measured) return lp_fail(err, LP_E_MEMORY, "out of memory");
    LP_TRY(lp_model_sketch(sketch, m, err));
    for (int i = 0; i < w->n; i++) {
        const lp_sae *s = w->saes[i];
        if (s->d_sae == 1) continue; /* a lone direction (direction.h) reconstructs nothing: ok, of 0 rows */
        make_key(w->keys[i], w, sketch, s);
        if (lp_check_cache_get(w->cache, w->keys[i], &w->checks[i], &s->spot)) {
            lp_check_judge(&w->checks[i], s->declared_l0, &s->spot);
            continue;
        }
        w->whose[w->n_unknown] = i;
        w->unknown[w->n_unknown++] = s;
    }
    return LP_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static lp_status measure(job *w, const lp_env *env, lp_error *err)
{
    if (!w->n_unknown) return LP_OK;
    lp_log(env, LP_INFO, "checking whether %d SAE%s fit%s the model, on %zu tokens", w->n_unknown,
           w->n_unknown == 1 ? "" : "s", w->n_unknown == 1 ? "s" : "", w->passage.n_tokens);
    LP_TRY(lp_sae_check(w->measured, w->s, w->unknown, w->n_unknown, &w->passage, err));
    for (int i = 0; i < w->n_unknown; i++) {
        w->checks[w->whose[i]] = w->measured[i];
        lp_check_cache_put(w->cache, w->keys[w->whose[i]], &w->measured[i]);
    }
    lp_check_cache_save(w->cache);
    return LP_OK;
}

lp_status lp_guard_check(lp_check *checks, const lp_guard *g, const lp_model *m, const lp_sae *const *saes, int n,
                         const lp_env *env, lp_error *err)
{
    job w = {.g = g, .saes = saes, .n = n, .checks = checks};
    for (int i = 0; i < n; i++) LP_TRY(lp_sae_fits(saes[i], &m->config, err));
    lp_status st = open_session(&w, m, env, err);
    if (st == LP_OK) st = take_text(&w, err);
    if (st == LP_OK) st = lp_check_cache_open(&w.cache, g->cache, env, err);
    if (st == LP_OK) st = look_up(&w, m, err);
    if (st == LP_OK) st = measure(&w, env, err);
    lp_check_cache_free(w.cache);
    lp_passage_free(&w.passage);
    lp_session_free(w.s);
    free(w.keys);
    free(w.unknown);
    free(w.whose);
    free(w.measured);
    return st;
}
