/* extract_rows.c - the windows of a shard through the collector, in the order of the corpus.
 *
 * Short windows wait until they fill a wave together, or until padding them would cost more than they are worth.
 */
#include "core/bench.h"
#include "store/extract_job.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Windows that wait, and the document that is being read. */
typedef struct batch {
    lp_extract_job *j;
    lp_shard_writer *w;
    int *ids, *pos, *doc;
    uint8_t *excluded;
    int *length;
    int n, rows, longest; /* windows, their rows, the longest */
    int n_docs;           /* documents given to the shard     */
    /* of the document at hand: */
    int *doc_ids, *doc_length;
    char *text;
    size_t n_ids, n_lengths, n_text, room_ids, room_lengths, room_text;
} batch;

static lp_status out_of_memory(lp_error *err)
{
    return lp_fail(err, LP_E_MEMORY, "out of memory");
}

static void wait_while_paused(const lp_extract_job *j)
{
    while (j->o.pause && atomic_load(j->o.pause) && !lp_cancelled(&j->env))
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static uint8_t why_excluded(const lp_extract_job *j, int id)
{
    if (id == j->plan.bos) return LP_ROW_BOS;
    bool parsed = j->plan.options.specials != LP_SPECIALS_LITERAL;
    return parsed && lp_tokenizer_is_special(j->m->tokenizer, id) ? LP_ROW_TEMPLATE : LP_ROW_COUNTS;
}

static lp_status store_rows(batch *b, lp_shard_block *block, const int *ids, const int *pos, const int *doc,
                            lp_error *err)
{
    lp_extract_job *j = b->j;
    for (int r = 0; r < block->n; r++) b->excluded[r] = why_excluded(j, ids[r]);
    block->id = ids, block->pos = pos, block->doc = doc, block->excluded = b->excluded;
    double start = lp_clock();
    LP_TRY(lp_shard_add_rows(b->w, block, err));
    j->in_store += lp_clock() - start;
    j->done += block->n;
    lp_progress(&j->env, "extracting", j->done, j->of);
    wait_while_paused(j);
    return lp_cancelled(&j->env) ? LP_CANCELLED : LP_OK;
}

static lp_status flush(batch *b, lp_error *err)
{
    lp_shard_block block = {0};
    if (!b->n) return LP_OK;
    LP_TRY(lp_collector_windows(b->j->collector, b->ids, b->length, b->n, &block, err));
    b->n = b->rows = b->longest = 0;
    return store_rows(b, &block, b->ids, b->pos, b->doc, err);
}

/* A window that needs its logits, or more than a wave: alone, and a wave at a time. */
static lp_status run_alone(batch *b, const int *ids, int n, lp_error *err)
{
    int wave = lp_collector_wave(b->j->collector);
    LP_TRY(flush(b, err));
    for (int at = 0, rows; at < n; at += rows) {
        lp_shard_block block = {0};
        rows = n - at < wave ? n - at : wave;
        for (int r = 0; r < rows; r++) b->pos[r] = at + r, b->doc[r] = b->n_docs - 1;
        int next = at + rows < n ? ids[at + rows] : -1;
        LP_TRY(lp_collector_chunk(b->j->collector, ids + at, rows, next, at == 0, &block, err));
        LP_TRY(store_rows(b, &block, ids + at, b->pos, b->doc, err));
    }
    return LP_OK;
}

/* Would one more of `n` rows still fit, with no more padding than rows? */
static bool fits(const batch *b, int n)
{
    int longest = n > b->longest ? n : b->longest, wave = lp_collector_wave(b->j->collector);
    long padded = (long)(b->n + 1) * longest;
    return padded <= wave && padded <= 2L * (b->rows + n);
}

static lp_status add_window(batch *b, const int *ids, int n, lp_error *err)
{
    if (b->j->o.has_logprob || n > lp_collector_wave(b->j->collector)) return run_alone(b, ids, n, err);
    if (!fits(b, n)) LP_TRY(flush(b, err));
    memcpy(b->ids + b->rows, ids, (size_t)n * sizeof *ids);
    for (int r = 0; r < n; r++) b->pos[b->rows + r] = r, b->doc[b->rows + r] = b->n_docs - 1;
    b->length[b->n++] = n;
    b->rows += n;
    if (n > b->longest) b->longest = n;
    return LP_OK;
}

/* ---- documents --------------------------------------------------------------------------------------------------- */

/* "a.jsonl:17" */
static char *key_of(const lp_plan *p, const lp_plan_document *d)
{
    const char *file = p->files.items[d->at.file].name;
    if (d->at.key) return lp_format("%s:%s", file, d->at.key);
    bool is_whole = !p->files.items[d->at.file].is_jsonl && p->options.corpus.split == LP_SPLIT_NONE;
    return is_whole ? lp_strdup(file) : lp_format("%s:%lld", file, (long long)d->at.line);
}

static lp_status give_document(batch *b, size_t document, int64_t first_token, lp_error *err)
{
    const lp_plan_document *d = &b->j->plan.documents[document];
    char *key = key_of(&b->j->plan, d);
    if (!key) return out_of_memory(err);
    lp_shard_document out = {.id = (int64_t)document, .first_token = first_token, .key = key, .key_bytes = strlen(key)};
    out.text = b->n_text ? b->text : "", out.text_bytes = b->n_text;
    for (int i = 0; i < 16; i++) snprintf(out.hash + 2 * i, 3, "%02x", d->hash[i]);
    lp_status st = lp_shard_add_document(b->w, &out, err);
    free(key);
    b->n_docs++;
    return st;
}

/* Documents of no bytes from `document` on. */
static lp_status give_empty(batch *b, size_t document, size_t end, lp_error *err)
{
    b->n_text = 0;
    for (; document < end && b->j->plan.documents[document].n_pieces == 0; document++)
        LP_TRY(give_document(b, document, 0, err));
    return LP_OK;
}

static lp_status gather(batch *b, const lp_window *x, lp_error *err)
{
    if (!lp_grow((void **)&b->doc_ids, &b->room_ids, b->n_ids + (size_t)x->n, sizeof *b->doc_ids) ||
        !lp_grow((void **)&b->doc_length, &b->room_lengths, b->n_lengths + 1, sizeof *b->doc_length) ||
        !lp_grow((void **)&b->text, &b->room_text, b->n_text + x->n_text + 1, 1))
        return out_of_memory(err);
    memcpy(b->doc_ids + b->n_ids, x->ids, (size_t)x->n * sizeof *x->ids);
    if (x->n_text) memcpy(b->text + b->n_text, x->text, x->n_text);
    b->doc_length[b->n_lengths++] = x->n;
    b->n_ids += (size_t)x->n, b->n_text += x->n_text;
    return LP_OK;
}

/* Rows of the document that lie before window w. */
static int64_t rows_before(const lp_plan *p, size_t w)
{
    const lp_plan_document *d = &p->documents[p->pieces[lp_plan_get_window(p, w).piece].document];
    int64_t n = 0;
    for (size_t i = p->pieces[d->first_piece].first_window; i < w; i++) n += lp_plan_get_window(p, i).n_tokens;
    return n;
}

/* The document of window w, as far as windows below `end` have it; *w goes on. */
static lp_status run_document(batch *b, size_t *w, size_t end, lp_error *err)
{
    const lp_plan *p = &b->j->plan;
    size_t document = p->pieces[lp_plan_get_window(p, *w).piece].document, at = 0;
    int64_t before = rows_before(p, *w);
    size_t empty = document;
    while (before == 0 && empty > 0 && p->documents[empty - 1].n_pieces == 0) empty--;
    LP_TRY(give_empty(b, empty, document, err));
    b->n_ids = b->n_lengths = b->n_text = 0;
    for (; *w < end && p->pieces[lp_plan_get_window(p, *w).piece].document == document; ++*w) {
        lp_window x;
        LP_TRY(lp_windows_read(b->j->windows, *w, &x, err));
        LP_TRY(gather(b, &x, err));
    }
    LP_TRY(give_document(b, document, before, err));
    for (size_t i = 0; i < b->n_lengths; at += (size_t)b->doc_length[i++])
        LP_TRY(add_window(b, b->doc_ids + at, b->doc_length[i], err));
    return LP_OK;
}

static lp_status run_windows(batch *b, size_t first, size_t n, bool is_last, lp_error *err)
{
    const lp_plan *p = &b->j->plan;
    for (size_t w = first; w < first + n;) LP_TRY(run_document(b, &w, first + n, err));
    LP_TRY(flush(b, err));
    if (!is_last) return LP_OK;
    size_t tail = p->n_documents;
    while (tail > 0 && p->documents[tail - 1].n_pieces == 0) tail--;
    return give_empty(b, tail, p->n_documents, err);
}

lp_status lp_extract_rows(lp_extract_job *j, lp_shard_writer *w, size_t first, size_t n, bool is_last, lp_error *err)
{
    batch b = {.j = j, .w = w};
    size_t wave = (size_t)lp_collector_wave(j->collector);
    b.ids = lp_calloc(wave, sizeof *b.ids), b.pos = lp_calloc(wave, sizeof *b.pos);
    b.doc = lp_calloc(wave, sizeof *b.doc), b.length = lp_calloc(wave, sizeof *b.length);
    b.excluded = lp_calloc(wave, 1);
    bool ok = b.ids && b.pos && b.doc && b.length && b.excluded;
    lp_status st = ok ? run_windows(&b, first, n, is_last, err) : out_of_memory(err);
    free(b.ids), free(b.pos), free(b.doc), free(b.length), free(b.excluded);
    free(b.doc_ids), free(b.doc_length), free(b.text);
    return st;
}
