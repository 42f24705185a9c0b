/* plan_make.c - see plan.h: making a plan.
 *
 * One thread reads the corpus and fills a batch with pieces; all threads of the pool tokenize the batch, whoever is free the
 * next piece; then the pieces are taken in their order, and the batch begins afresh.  Memory is that of a batch, of one piece's
 * tokens per thread, and of the plan.
 */
#include "core/pool.h"
#include "sae/run.h"
#include "store/plan_parts.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { BATCH_BYTES = 8 << 20, BATCH_PIECES = 4096 };

typedef struct task {
    size_t text; /* where in the batch's */
    lp_plan_piece piece;
} task;

/* A thread's own: tokens, and the first thing that went wrong. */
typedef struct worker {
    lp_tokens tokens;
    lp_error err;
    int failed; /* the task, or -1 */
} worker;

typedef struct maker {
    lp_plan *p;
    const lp_tokenizer *t;
    const lp_env *env;
    lp_corpus *corpus;
    char *text;
    size_t n_text, room_text;
    task *tasks;
    size_t n_tasks, room_tasks;
    worker *workers;
    int n_workers;
    atomic_int next;
    XXH3_state_t *hash;
    lp_error *err;
} maker;

static lp_status no_memory(const maker *m)
{
    return lp_fail(m->err, LP_E_MEMORY, "a plan: out of memory");
}

/* ---- one batch --------------------------------------------------------------------------------------------------- */

static lp_status tokenize(const maker *m, task *k, worker *w)
{
    const char *text = m->text + k->text;
    w->tokens.n = 0;
    LP_TRY(lp_tokenizer_encode(m->t, text, k->piece.n_bytes, m->p->options.specials, &w->tokens, &w->err));
    k->piece.n_tokens = (uint32_t)w->tokens.n; /* at most three a byte */
    return lp_piece_hash(&k->piece.hash, text, k->piece.n_bytes, w->tokens.ids, w->tokens.n, &w->err);
}

static void work(int id, int n, void *arg)
{
    maker *m = arg;
    worker *w = &m->workers[id];
    (void)n;
    while (w->failed < 0 && !lp_cancelled(m->env)) {
        int i = lp_claim(&m->next);
        if ((size_t)i >= m->n_tasks) return;
        if (tokenize(m, &m->tasks[i], w) != LP_OK) w->failed = i;
    }
}

/* Tokenizes what is waiting, and puts it into the plan. */
static lp_status flush(maker *m)
{
    const worker *first =
        NULL; /* the one whose piece comes first, so that the message does not depend on who was fast */
    atomic_store(&m->next, 0);
    if (m->n_tasks) lp_pool_run(m->env ? m->env->pool : NULL, work, m);
    for (int i = 0; i < m->n_workers; i++)
        if (m->workers[i].failed >= 0 && (!first || m->workers[i].failed < first->failed)) first = &m->workers[i];
    if (first) return lp_fail(m->err, first->err.status, "%s", first->err.text);
    if (lp_cancelled(m->env)) return LP_CANCELLED;
    for (size_t i = 0; i < m->n_tasks; i++) LP_TRY(lp_plan_add_piece(m->p, &m->tasks[i].piece, m->err));
    m->n_tasks = m->n_text = 0;
    int64_t done, of;
    lp_corpus_progress(m->corpus, &done, &of);
    lp_progress(m->env, "planning", done, of);
    return LP_OK;
}

/* ---- filling it -------------------------------------------------------------------------------------------------- */

static lp_status add_task(maker *m, uint64_t at, const char *text, size_t n)
{
    if (m->n_text + n > BATCH_BYTES || m->n_tasks == BATCH_PIECES) LP_TRY(flush(m));
    if (!lp_grow((void **)&m->text, &m->room_text, m->n_text + n, 1) ||
        !lp_grow((void **)&m->tasks, &m->room_tasks, m->n_tasks + 1, sizeof *m->tasks))
        return no_memory(m);
    memcpy(m->text + m->n_text, text, n);
    lp_plan_piece piece = {.document = m->p->n_documents - 1, .at = at, .n_bytes = (uint32_t)n};
    m->tasks[m->n_tasks++] = (task){.text = m->n_text, .piece = piece};
    m->n_text += n;
    return LP_OK;
}

static lp_status add_document(maker *m, const lp_document *d)
{
    LP_TRY(lp_plan_add_document(m->p, d, m->err));
    lp_plan_document *mine = &m->p->documents[m->p->n_documents - 1];
    mine->first_piece = m->p->n_pieces + m->n_tasks;
    XXH3_128bits_reset(m->hash);
    for (uint64_t at = 0;;) {
        const char *text;
        size_t n;
        LP_TRY(lp_corpus_piece(m->corpus, &text, &n, m->err));
        if (!n) break;
        XXH3_128bits_update(m->hash, text, n);
        LP_TRY(add_task(m, at, text, n));
        mine->n_pieces++;
        at += n;
    }
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(&hash, XXH3_128bits_digest(m->hash));
    memcpy(mine->hash, hash.digest, sizeof mine->hash);
    return LP_OK;
}

static lp_status run(maker *m)
{
    const lp_document *d;
    for (;;) {
        LP_TRY(lp_corpus_next(m->corpus, &d, m->err));
        if (!d) break;
        LP_TRY(add_document(m, d));
    }
    LP_TRY(flush(m));
    m->p->n_skipped = lp_corpus_skipped(m->corpus);
    LP_TRY(lp_plan_deal(m->p, SIZE_MAX, m->err));
    return lp_plan_hash(m->p->hash, m->p, m->err);
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

/* What the plan keeps of the options is its own. */
static lp_status copy_options(lp_plan *p, const lp_plan_options *options, lp_error *err)
{
    lp_plan_options o = *options;
    LP_TRY(lp_plan_check_options(&o, err));
    char *field = lp_strdup(o.corpus.field), *key = o.corpus.key ? lp_strdup(o.corpus.key) : NULL;
    bool failed = !field || (o.corpus.key && !key);
    o.corpus.field = field;
    o.corpus.key = key;
    p->options = o;
    return failed ? lp_fail(err, LP_E_MEMORY, "a plan: out of memory") : LP_OK;
}

static lp_status copy_files(lp_plan *p, const lp_corpus_files *f, lp_error *err)
{
    for (size_t i = 0; i < f->n; i++)
        LP_TRY(lp_corpus_files_add(&p->files, f->items[i].name, f->items[i].is_jsonl, f->items[i].bytes, err));
    return LP_OK;
}

static lp_status make(maker *m, const char *corpus)
{
    m->n_workers = lp_pool_threads(m->env ? m->env->pool : NULL);
    m->workers = lp_calloc((size_t)m->n_workers, sizeof *m->workers);
    m->hash = XXH3_createState();
    if (!m->workers || !m->hash) return no_memory(m);
    for (int i = 0; i < m->n_workers; i++) m->workers[i].failed = -1;
    m->p->bos = lp_tokenizer_bos(m->t);
    LP_TRY(lp_tokenizer_hash(m->p->tokenizer, m->t, m->err));
    LP_TRY(lp_corpus_open(&m->corpus, corpus, &m->p->options.corpus, m->env, m->err));
    LP_TRY(copy_files(m->p, lp_corpus_get_files(m->corpus), m->err));
    return run(m);
}

lp_status lp_plan_make(lp_plan *out, const char *corpus, const lp_tokenizer *t, const lp_plan_options *options,
                       const lp_env *env, lp_error *err)
{
    maker m = {.p = out, .t = t, .env = env, .err = err};
    *out = (lp_plan){0};
    lp_status st = copy_options(out, options, err);
    if (st == LP_OK) st = make(&m, corpus);
    lp_corpus_close(m.corpus);
    for (int i = 0; m.workers && i < m.n_workers; i++) lp_tokens_free(&m.workers[i].tokens);
    free(m.workers);
    free(m.text);
    free(m.tasks);
    if (m.hash) XXH3_freeState(m.hash);
    if (st != LP_OK) lp_plan_clear(out);
    return st;
}
