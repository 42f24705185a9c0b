/* extract.c - see extract.h: the plan, the folder, one shard after the other. */
#include "core/bench.h"
#include "core/trace.h"
#include "store/extract_job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- beginning ------------------------------------------------------------------------------------------------- */

static const char *last_part(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    const char *s = path + n;
    while (s > path && s[-1] != '/') s--;
    return s;
}

static lp_status take_dense(lp_extract_job *j, lp_error *err)
{
    const lp_config *c = &j->m->config;
    j->dense = lp_calloc((size_t)j->o.n_dense + 1, sizeof *j->dense);
    if (!j->dense) return lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; i < j->o.n_dense; i++) {
        lp_shard_dense *d = &j->dense[i];
        int heads, width;
        *d = j->o.dense[i];
        if (d->site == LP_SCORES || d->site == LP_PATTERN || d->site == LP_LOGITS || d->site == LP_LOGITS_RAW)
            return lp_fail(err, LP_E_UNSUPPORTED, "%s cannot be stored: its rows are too wide or of no fixed width",
                           lp_site_name(d->site));
        if (lp_site_has_layer(d->site) && (d->layer < 0 || d->layer >= c->n_layers))
            return lp_fail(err, LP_E_RANGE, "%s.%d: this model has layers 0 to %d", lp_site_name(d->site), d->layer,
                           c->n_layers - 1);
        lp_site_shape(c, d->site, 0, &heads, &width);
        d->width = (heads ? heads : 1) * width;
    }
    j->o.dense = j->dense;
    return LP_OK;
}

static lp_status make_plan(lp_extract_job *j, const char *corpus, lp_error *err)
{
    if (!j->m->tokenizer) return lp_fail(err, LP_E_UNSUPPORTED, "%s has no tokenizer", j->m->path);
    if (j->o.plan.context > j->m->config.max_positions)
        return lp_fail(err, LP_E_RANGE, "windows of %d tokens: this model has %d positions", j->o.plan.context,
                       j->m->config.max_positions);
    LP_TRY(lp_plan_make(&j->plan, corpus, j->m->tokenizer, &j->o.plan, &j->env, err));
    lp_log(&j->env, LP_INFO, "%zu documents (%lld empty), %lld tokens with <bos>, in %zu shards", j->plan.n_documents,
           (long long)j->plan.n_empty, (long long)j->plan.n_tokens, j->plan.n_shards);
    return lp_windows_open(&j->windows, &j->plan, corpus, j->m->tokenizer, &j->env, err);
}

static lp_status take_collector(lp_extract_job *j, lp_error *err)
{
    lp_collect_plan p = {.saes = j->saes, .n_saes = j->n_saes, .dense = j->dense, .n_dense = j->o.n_dense};
    p.has_logprob = j->o.has_logprob, p.arithmetic = j->o.arithmetic, p.wave = j->o.wave;
    p.context = j->o.plan.context;
    LP_TRY(lp_collector_new(&j->collector, j->m, &p, &j->env, err));
    j->about = lp_calloc((size_t)j->n_saes + 1, sizeof *j->about);
    if (!j->about) return lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; i < j->n_saes; i++) j->about[i] = lp_shard_sae_of(j->saes[i]);
    return LP_OK;
}

static lp_status check(const lp_extract_job *j, lp_error *err)
{
    const lp_extract_options *o = &j->o;
    if (!j->n_saes && !o->n_dense && !o->has_logprob)
        return lp_fail(err, LP_E_RANGE, "nothing to extract: no SAE, no dense site, no log-probabilities");
    if (o->value_bits < 1 || o->value_bits > 23)
        return lp_fail(err, LP_E_RANGE, "values of %d bits: 1 to 23 are possible", o->value_bits);
    if (o->parts < 0 || o->part < 0 || (o->parts && o->part >= o->parts))
        return lp_fail(err, LP_E_RANGE, "part %d of %d: parts are counted from 0", o->part, o->parts);
    return LP_OK;
}

lp_status lp_extract_begin(lp_extract_job *j, const char *store, const char *corpus, const lp_model *m,
                           const lp_sae *const *saes, int n_saes, const lp_extract_options *o, const lp_env *env,
                           lp_error *err)
{
    *j = (lp_extract_job){.m = m, .saes = saes, .n_saes = n_saes, .o = *o};
    if (env) j->env = *env;
    if (!j->o.value_bits) j->o.value_bits = 23;
    LP_TRY(check(j, err));
    LP_TRY(take_dense(j, err));
    LP_TRY(make_plan(j, corpus, err));
    LP_TRY(take_collector(j, err));
    lp_run_about about = {.m = m, .saes = saes, .n_saes = n_saes, .dense = j->dense, .n_dense = o->n_dense};
    about.arithmetic = o->arithmetic, about.has_logprob = o->has_logprob, about.value_bits = j->o.value_bits;
    about.plan = &j->plan, about.corpus = last_part(corpus);
    return lp_run_open(&j->run, store, &about, o->starts_anew, err);
}

void lp_extract_end(lp_extract_job *j)
{
    lp_collector_free(j->collector);
    lp_windows_close(j->windows);
    lp_plan_clear(&j->plan);
    lp_run_close(&j->run);
    free(j->dense), free(j->about);
}

lp_shard_head lp_extract_head(const lp_extract_job *j, const lp_plan_shard *s, size_t number)
{
    lp_shard_head h = {.run = j->run.run, .plan = j->plan.hash, .model_hash = j->run.model_hash};
    h.tokenizer_hash = j->plan.tokenizer, h.provenance = j->run.provenance;
    h.number = (int)number, h.token_base = s->first_token, h.n_tokens = (int)s->n_tokens;
    h.vocab = j->m->config.vocab, h.value_bits = j->o.value_bits, h.has_logprob = j->o.has_logprob;
    h.saes = j->about, h.n_saes = j->n_saes, h.dense = j->dense, h.n_dense = j->o.n_dense;
    return h;
}

/* ---- one shard ------------------------------------------------------------------------------------------------- */

static lp_status make_shard(lp_extract_job *j, size_t number, lp_shard_sealed *sealed, lp_error *err)
{
    const lp_plan_shard *s = &j->plan.shards[number];
    lp_shard_head h = lp_extract_head(j, s, number);
    lp_shard_writer *w = NULL;
    LP_TRY(lp_shard_begin(&w, j->run.path, &h, 0, &j->env, err));
    lp_status st = lp_extract_rows(j, w, s->first_window, s->n_windows, number + 1 == j->plan.n_shards, err);
    double start = lp_clock();
    if (st == LP_OK) st = lp_shard_seal(w, sealed, err);
    j->in_store += lp_clock() - start;
    lp_shard_writer_close(w);
    return st;
}

static bool is_mine(const lp_extract_job *j, size_t number)
{
    return !j->o.parts || number % (size_t)j->o.parts == (size_t)j->o.part;
}

/* Which shards of this part are there already; has [n_shards]. */
static lp_status look(lp_extract_job *j, bool *has, lp_extract_report *out, lp_error *err)
{
    for (size_t i = 0; i < j->plan.n_shards; i++) {
        if (!is_mine(j, i)) continue;
        if (lp_cancelled(&j->env)) return LP_CANCELLED;
        LP_TRY(lp_run_has_shard(&has[i], &j->run, i, &out->n_quarantined, &j->env, err));
        out->n_shards++;
        out->n_found += has[i];
        if (!has[i]) j->of += j->plan.shards[i].n_tokens;
    }
    if (out->n_found) lp_log(&j->env, LP_INFO, "%zu of %zu shards are sealed and whole", out->n_found, out->n_shards);
    return LP_OK;
}

static void tell(const lp_extract_job *j, size_t number, const lp_shard_sealed *s, const lp_extract_report *out)
{
    double seconds = lp_clock() - j->began, rate = (double)j->done / seconds;
    char all[32]; /* what the part will come to, at the size of what there is */
    snprintf(all, sizeof all, "%s",
             lp_amount_of((uint64_t)((double)out->bytes / (double)j->done * (double)j->of)).text);
    lp_log(&j->env, LP_INFO, "%s: %lld tokens, %llu values, %s; %.0f tokens/s, %.0f s to go, %s in all", s->name,
           (long long)j->plan.shards[number].n_tokens, (unsigned long long)s->n_values, lp_amount_of(s->bytes).text,
           rate, (double)(j->of - j->done) / rate, all);
}

static lp_status make_shards(lp_extract_job *j, const bool *has, lp_extract_report *out, lp_error *err)
{
    j->began = lp_clock();
    for (size_t i = 0; i < j->plan.n_shards; i++) {
        lp_shard_sealed sealed = {0};
        if (!is_mine(j, i) || has[i]) continue;
        LP_TRY(make_shard(j, i, &sealed, err));
        out->n_made++;
        out->bytes += sealed.bytes, out->n_values += sealed.n_values;
        tell(j, i, &sealed, out);
    }
    return LP_OK;
}

lp_status lp_extract(lp_extract_report *out, const char *store, const char *corpus, const lp_model *m,
                     const lp_sae *const *saes, int n_saes, const lp_extract_options *o, const lp_env *env,
                     lp_error *err)
{
    lp_extract_job j;
    bool *has = NULL;
    *out = (lp_extract_report){0};
    lp_status st = lp_extract_begin(&j, store, corpus, m, saes, n_saes, o, env, err);
    if (st == LP_OK) {
        out->path = lp_strdup(j.run.path);
        memcpy(out->run, j.run.run, sizeof out->run);
        out->n_documents = (int64_t)j.plan.n_documents, out->n_tokens = j.plan.n_tokens;
        has = lp_calloc(j.plan.n_shards + 1, sizeof *has);
        if (!out->path || !has) st = lp_fail(err, LP_E_MEMORY, "out of memory");
    }
    if (st == LP_OK) st = lp_shard_sweep(j.run.path, NULL, err);
    if (st == LP_OK) st = look(&j, has, out, err);
    double start = lp_clock();
    if (st == LP_OK) st = make_shards(&j, has, out, err);
    out->seconds = lp_clock() - start, out->storing = j.in_store, out->made_tokens = j.done;
    free(has);
    lp_extract_end(&j);
    return st;
}

void lp_extract_report_clear(lp_extract_report *r)
{
    free(r->path);
    *r = (lp_extract_report){0};
}
