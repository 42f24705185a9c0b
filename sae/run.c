/* run.c - see run.h: making a run, hashing what it stands on, repeating it.
 *
 * A run is made in two steps, since hashing the model takes time and belongs before the work: begin copies what goes in,
 * results adds what came out.  Replaying is the same two steps with the inputs taken from a file, so that a run and its
 * repetition go through one piece of code.
 *
 * Numbers are hashed as text (doubles in %a, which is exact), weights as they lie in memory.
 */
#include "sae/run.h"

#include "sae/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static lp_status no_memory(lp_error *err)
{
    return lp_fail(err, LP_E_MEMORY, "a run: out of memory");
}

/* ---- hashes ------------------------------------------------------------------------------------------------------ */

static lp_status begin_hash(XXH3_state_t **h, lp_error *err)
{
    *h = XXH3_createState();
    if (!*h) return no_memory(err);
    XXH3_128bits_reset(*h);
    return LP_OK;
}

static void end_hash(char out[33], XXH3_state_t *h)
{
    lp_hash_text(out, XXH3_128bits_digest(h));
    XXH3_freeState(h);
}

static void add_number(XXH3_state_t *h, double v)
{
    char text[40];
    int n = snprintf(text, sizeof text, "%a;", v);
    XXH3_128bits_update(h, text, (size_t)n);
}

static void add_config(XXH3_state_t *h, const lp_config *c)
{
    const double numbers[] = {
        c->n_layers,     c->d_model, c->n_heads,       c->n_kv_heads,    c->head_dim, c->d_ff,
        c->vocab,        c->window,  c->max_positions, c->rope_theta,    c->rms_eps,  c->query_pre_attn_scalar,
        c->attn_softcap, c->bos,     c->eos,           c->final_softcap, c->pad};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) add_number(h, numbers[i]);
    for (int l = 0; l < c->n_layers; l++) add_number(h, c->sliding[l]);
}

/* All of the matrix, or its shape and SAMPLES stretches of it, from the first bytes to the last. */
static void add_matrix(XXH3_state_t *h, const lp_matrix *m, bool is_sketch)
{
    enum { SAMPLES = 16, STRETCH = 4096 };
    add_number(h, m->rows);
    add_number(h, m->cols);
    add_number(h, m->format);
    if (!is_sketch || m->bytes <= (size_t)SAMPLES * STRETCH) {
        XXH3_128bits_update(h, m->data, m->bytes);
        return;
    }
    size_t step = (m->bytes - STRETCH) / (SAMPLES - 1);
    for (size_t i = 0; i < SAMPLES; i++) XXH3_128bits_update(h, (const char *)m->data + i * step, STRETCH);
}

static void add_gain(XXH3_state_t *h, const float *gain, int n)
{
    XXH3_128bits_update(h, gain, (size_t)n * sizeof *gain);
}

static lp_status hash_model(char out[33], const lp_model *m, bool is_sketch, lp_error *err)
{
    XXH3_state_t *h;
    int D = m->config.d_model;
    LP_TRY(begin_hash(&h, err));
    add_config(h, &m->config);
    add_matrix(h, &m->embed, is_sketch);
    for (int l = 0; l < m->config.n_layers; l++) {
        const lp_layer *y = &m->layers[l];
        const lp_matrix *matrices[] = {&y->q, &y->k, &y->v, &y->o, &y->gate, &y->up, &y->down};
        const float *gains[] = {y->attn_pre_gain, y->attn_post_gain, y->mlp_pre_gain, y->mlp_post_gain};
        for (int i = 0; i < 7; i++) add_matrix(h, matrices[i], is_sketch);
        for (int i = 0; i < 4; i++) add_gain(h, gains[i], D);
    }
    add_gain(h, m->final_gain, D);
    end_hash(out, h);
    return LP_OK;
}

lp_status lp_model_hash(char out[33], const lp_model *m, lp_error *err)
{
    return hash_model(out, m, false, err);
}

lp_status lp_model_sketch(char out[33], const lp_model *m, lp_error *err)
{
    return hash_model(out, m, true, err);
}

lp_status lp_tokenizer_hash(char out[33], const lp_tokenizer *t, lp_error *err)
{
    XXH3_state_t *h;
    out[0] = 0;
    if (!t) return LP_OK;
    LP_TRY(begin_hash(&h, err));
    for (int id = 0; id < lp_tokenizer_size(t); id++) {
        size_t n;
        const char *piece = lp_tokenizer_piece(t, id, &n);
        add_number(h, (double)n);
        XXH3_128bits_update(h, piece, n);
        add_number(h, lp_tokenizer_type(t, id));
        add_number(h, lp_tokenizer_is_special(t, id));
    }
    add_number(h, lp_tokenizer_bos(t));
    add_number(h, lp_tokenizer_eos(t));
    add_number(h, lp_tokenizer_pad(t));
    add_number(h, lp_tokenizer_unk(t));
    end_hash(out, h);
    return LP_OK;
}

/* ---- what goes in ------------------------------------------------------------------------------------------------ */

/* Room for n and a copy; NULL for no memory.  Never of 0 bytes, so that NULL says one thing. */
static void *copy(const void *from, size_t n, size_t size)
{
    void *to = lp_calloc(n ? n : 1, size);
    if (to && n) memcpy(to, from, n * size);
    return to;
}

static lp_status copy_sampling(lp_run *r, const lp_run_parts *p, lp_error *err)
{
    const lp_generate_options *g = p->generate;
    if (p->sample->n_bias > LP_RUN_LIST || g->n_stop > LP_RUN_LIST || g->n_stop_ids > LP_RUN_LIST)
        return lp_fail(err, LP_E_RANGE, "a run holds at most %d biases, stop strings, stop ids", LP_RUN_LIST);
    r->sample = *p->sample;
    r->generate = *g;
    r->generate.fn = NULL, r->generate.user = NULL, r->generate.logprobs = 0, r->generate.n_top = 0;
    r->sample.bias = r->bias = copy(p->sample->bias, (size_t)p->sample->n_bias, sizeof *r->bias);
    r->generate.stop_ids = r->stop_ids = copy(g->stop_ids, (size_t)g->n_stop_ids, sizeof *r->stop_ids);
    r->stop = lp_calloc((size_t)g->n_stop + 1, sizeof *r->stop);
    r->generate.stop = (const char *const *)r->stop;
    if (!r->bias || !r->stop_ids || !r->stop) return no_memory(err);
    for (int i = 0; i < g->n_stop; i++)
        if (!(r->stop[i] = lp_strdup(g->stop[i]))) return no_memory(err);
    return LP_OK;
}

static lp_status copy_saes(lp_run *r, const lp_run_parts *p, lp_error *err)
{
    r->saes = lp_calloc((size_t)p->n_saes + 1, sizeof *r->saes);
    if (!r->saes) return no_memory(err);
    for (int i = 0; i < p->n_saes; i++) {
        lp_run_sae *s = &r->saes[r->n_saes++];
        const char *typed = p->sae_names ? p->sae_names[i] : NULL;
        s->name = lp_strdup(typed ? typed : p->saes[i]->name);
        s->type = p->saes[i]->decoder_type;
        memcpy(s->hash, p->saes[i]->hash, sizeof s->hash);
        if (!s->name) return no_memory(err);
    }
    if (p->sae_site && !(r->sae_site = lp_strdup(p->sae_site))) return no_memory(err);
    return LP_OK;
}

/* Through its text: one way to copy a recipe, and it is tested to lose nothing. */
static lp_status copy_recipe(lp_run *r, const lp_recipe *from, lp_error *err)
{
    char *text;
    if (!from) return LP_OK;
    LP_TRY(lp_recipe_text(&text, from, err));
    lp_status st = lp_recipe_parse(&r->recipe, text, strlen(text), err);
    free(text);
    r->has_recipe = st == LP_OK;
    return st == LP_OK ? lp_recipe_hash(r->recipe_hash, &r->recipe, err) : st;
}

static lp_status begin(lp_run *r, const lp_run_parts *p, lp_error *err)
{
    const lp_model *m = lp_session_model(p->session);
    if (!p->n_prompt || p->n_prompt > LP_RUN_IDS)
        return lp_fail(err, LP_E_RANGE, "a prompt of %zu tokens; a run holds 1 to %d", p->n_prompt, (int)LP_RUN_IDS);
    r->session = *lp_session_get_options(p->session);
    r->session.wave = 0;
    r->vocab = m->config.vocab;
    r->n_prompt = p->n_prompt;
    r->model = lp_strdup(p->model ? p->model : m->path);
    r->kernels = lp_strdup(lp_session_kernels(p->session));
    r->prompt = copy(p->prompt, p->n_prompt, sizeof *r->prompt);
    if (p->is_template) r->is_template = copy(p->is_template, p->n_prompt, 1);
    if (!r->model || !r->kernels || !r->prompt || (p->is_template && !r->is_template)) return no_memory(err);
    LP_TRY(copy_sampling(r, p, err));
    LP_TRY(copy_saes(r, p, err));
    LP_TRY(copy_recipe(r, p->recipe, err));
    LP_TRY(lp_tokenizer_hash(r->tokenizer_hash, m->tokenizer, err));
    return lp_model_hash(r->model_hash, m, err);
}

lp_status lp_run_begin(lp_run *out, const lp_run_parts *p, lp_error *err)
{
    *out = (lp_run){0};
    lp_status st = begin(out, p, err);
    if (st != LP_OK) lp_run_clear(out);
    return st;
}

lp_run_parts lp_run_parts_of(const lp_run *r)
{
    return (lp_run_parts){.model = r->model,
                          .prompt = r->prompt,
                          .n_prompt = r->n_prompt,
                          .is_template = r->is_template,
                          .sample = &r->sample,
                          .generate = &r->generate,
                          .recipe = r->has_recipe ? &r->recipe : NULL,
                          .sae_site = r->sae_site};
}

/* ---- what came out ----------------------------------------------------------------------------------------------- */

lp_status lp_run_results(lp_run *r, const lp_session *s, const lp_generation *g, const lp_steer *st, lp_error *err)
{
    const float *z = lp_session_logits(s);
    free(r->ids);
    free(r->readings);
    r->readings = NULL, r->n_readings = 0, r->n_ids = 0;
    if (!(r->ids = copy(g->ids, g->n, sizeof *r->ids))) return no_memory(err);
    r->n_ids = g->n;
    r->finish = g->finish;
    r->logits_hash[0] = 0;
    if (z) lp_hash_text(r->logits_hash, XXH3_128bits(z, (size_t)r->vocab * sizeof *z));
    if (st) LP_TRY(lp_steer_readback(&r->readings, &r->n_readings, st, err));
    if (g->n <= LP_RUN_IDS && r->n_readings <= LP_RUN_READINGS) return LP_OK;
    return lp_fail(err, LP_E_RANGE, "%zu tokens, %zu feature values; a run holds at most %d and %d", g->n,
                   r->n_readings, (int)LP_RUN_IDS, (int)LP_RUN_READINGS);
}

static lp_status draw(lp_generation *g, const lp_run *r, lp_session *s, lp_steer *steer, lp_error *err)
{
    lp_sampler *sampler = NULL;
    lp_generate_options o = r->generate;
    if (steer) o.fn = lp_steer_generated, o.user = steer;
    LP_TRY(lp_sampler_new(&sampler, r->vocab, &r->sample, err));
    lp_status st = lp_session_eval(s, r->prompt, r->n_prompt, err);
    if (st == LP_OK) st = lp_generate(g, s, sampler, &o, err);
    lp_sampler_free(sampler);
    return steer ? lp_steer_explain(steer, st, err) : st;
}

lp_status lp_run_repeat(lp_run *r, lp_session *s, const lp_sae *const *saes, int n_saes, lp_error *err)
{
    lp_steer_context context = {
        .n_prompt = (int)r->n_prompt, .ids = r->prompt, .is_template = r->is_template, .reads_back = 1};
    lp_generation g = {0};
    lp_steer *steer = NULL;
    LP_TRY(lp_session_rewind(s, 0, err));
    lp_status st = r->has_recipe ? lp_steer_new(&steer, s, &r->recipe, saes, n_saes, &context, err) : LP_OK;
    if (st == LP_OK) st = draw(&g, r, s, steer, err);
    if (st == LP_OK) st = lp_run_results(r, s, &g, steer, err);
    lp_steer_free(steer);
    lp_generation_free(&g);
    return st;
}

void lp_run_clear(lp_run *r)
{
    for (size_t i = 0; i < r->n_saes; i++) free(r->saes[i].name);
    for (int i = 0; r->stop && i < r->generate.n_stop; i++) free(r->stop[i]);
    lp_recipe_clear(&r->recipe);
    free(r->model);
    free(r->kernels);
    free(r->saes);
    free(r->sae_site);
    free(r->prompt);
    free(r->is_template);
    free(r->bias);
    free(r->stop);
    free(r->stop_ids);
    free(r->ids);
    free(r->readings);
    *r = (lp_run){0};
}
