/* plan.c - see plan.h: windows from pieces, shards from windows. */
#include "store/plan.h"

#include "store/plan_parts.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

const char *const lp_plan_specials[3] = {"sentencepiece", "literal", "parsed"},
                  *const lp_plan_splits[3] = {"none", "lines", "paragraphs"},
                  *const lp_plan_kinds[2] = {"text", "jsonl"};

void lp_plan_clear(lp_plan *p)
{
    for (size_t i = 0; i < p->n_documents; i++) free((char *)(uintptr_t)p->documents[i].at.key);
    free(p->documents);
    free(p->pieces);
    free(p->shards);
    lp_corpus_files_clear(&p->files);
    free((char *)(uintptr_t)p->options.corpus.field);
    free((char *)(uintptr_t)p->options.corpus.key);
    *p = (lp_plan){0};
}

lp_status lp_plan_check_options(lp_plan_options *o, lp_error *err)
{
    if (!o->shard_tokens) o->shard_tokens = LP_SHARD_TOKENS;
    if (o->context < 2 || o->context > LP_PLAN_CONTEXT)
        return lp_fail(err, LP_E_RANGE, "windows of %d tokens; 2 to %d are possible", o->context, (int)LP_PLAN_CONTEXT);
    if (o->shard_tokens < 1 || o->shard_tokens > LP_PLAN_SHARD)
        return lp_fail(err, LP_E_RANGE, "shards of %lld tokens; 1 to %d are possible", (long long)o->shard_tokens,
                       (int)LP_PLAN_SHARD);
    return lp_corpus_check_options(&o->corpus, err);
}

/* ---- building ---------------------------------------------------------------------------------------------------- */

static lp_status no_memory(lp_error *err)
{
    return lp_fail(err, LP_E_MEMORY, "a plan: out of memory");
}

lp_status lp_plan_add_document(lp_plan *p, const lp_document *d, lp_error *err)
{
    char *key = d->key ? lp_strdup(d->key) : NULL;
    if ((d->key && !key) ||
        !lp_grow((void **)&p->documents, &p->room_documents, p->n_documents + 1, sizeof *p->documents)) {
        free(key);
        return no_memory(err);
    }
    lp_plan_document *to = &p->documents[p->n_documents++];
    *to = (lp_plan_document){.at = *d, .first_piece = p->n_pieces};
    to->at.key = key;
    return LP_OK;
}

/* Of a window's places, those for the text. */
static uint32_t own(const lp_plan *p)
{
    return (uint32_t)(p->options.context - (p->bos >= 0));
}

static size_t count_windows(const lp_plan *p, uint32_t n_tokens)
{
    return n_tokens / own(p) + (n_tokens % own(p) > 0);
}

lp_status lp_plan_add_piece(lp_plan *p, const lp_plan_piece *piece, lp_error *err)
{
    if (!lp_grow((void **)&p->pieces, &p->room_pieces, p->n_pieces + 1, sizeof *p->pieces)) return no_memory(err);
    size_t n = count_windows(p, piece->n_tokens);
    lp_plan_piece *to = &p->pieces[p->n_pieces++];
    *to = *piece;
    to->first_window = p->n_windows;
    p->n_windows += n;
    p->n_tokens += (int64_t)piece->n_tokens + (p->bos >= 0 ? (int64_t)n : 0);
    p->n_bytes += piece->n_bytes;
    return LP_OK;
}

static lp_status open_shard(lp_plan *p, size_t most, lp_error *err)
{
    lp_plan_shard next = {0};
    if (p->n_shards) {
        const lp_plan_shard *last = &p->shards[p->n_shards - 1];
        next.first_window = last->first_window + last->n_windows;
        next.first_token = last->first_token + last->n_tokens;
    }
    if (p->n_shards == most) return lp_fail(err, LP_E_RANGE, "a plan of more than %zu shards", most);
    if (!lp_grow((void **)&p->shards, &p->room_shards, p->n_shards + 1, sizeof *p->shards)) return no_memory(err);
    p->shards[p->n_shards++] = next;
    return LP_OK;
}

/* n windows of `size` positions each. */
static lp_status deal_windows(lp_plan *p, size_t n, int64_t size, size_t most, lp_error *err)
{
    while (n) {
        lp_plan_shard *s = p->n_shards ? &p->shards[p->n_shards - 1] : NULL;
        int64_t fit = s ? (p->options.shard_tokens - s->n_tokens) / size : 0;
        if (fit < 1) {
            LP_TRY(open_shard(p, most, err));
            s = &p->shards[p->n_shards - 1];
            fit = p->options.shard_tokens < size ? 1 : p->options.shard_tokens / size;
        }
        size_t k = (uint64_t)fit < n ? (size_t)fit : n;
        s->n_windows += k;
        s->n_tokens += (int64_t)k * size;
        n -= k;
    }
    return LP_OK;
}

lp_status lp_plan_deal(lp_plan *p, size_t most, lp_error *err)
{
    for (size_t i = 0; i < p->n_pieces; i++) {
        uint32_t full = p->pieces[i].n_tokens / own(p), rest = p->pieces[i].n_tokens % own(p);
        LP_TRY(deal_windows(p, full, p->options.context, most, err));
        LP_TRY(deal_windows(p, rest > 0, (int64_t)rest + (p->bos >= 0), most, err));
    }
    for (size_t i = 0; i < p->n_documents; i++) p->n_empty += p->documents[i].at.n_bytes == 0;
    return LP_OK;
}

/* ---- windows ----------------------------------------------------------------------------------------------------- */

lp_plan_window lp_plan_get_window(const lp_plan *p, size_t w)
{
    size_t lo = 0, hi = p->n_pieces; /* the last piece whose first window is not behind w */
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (p->pieces[mid].first_window <= w)
            lo = mid;
        else
            hi = mid;
    }
    const lp_plan_piece *piece = &p->pieces[lo];
    uint32_t first = (uint32_t)(w - piece->first_window) * own(p), left = piece->n_tokens - first;
    int n = (int)(left < own(p) ? left : own(p));
    return (lp_plan_window){.piece = lo, .first = first, .n_tokens = n + (p->bos >= 0)};
}

/* ---- hashes ------------------------------------------------------------------------------------------------------ */

lp_status lp_piece_hash(uint64_t *out, const char *text, size_t n, const int *ids, size_t n_ids, lp_error *err)
{
    XXH3_state_t *h = XXH3_createState();
    if (!h) return no_memory(err);
    XXH3_64bits_reset(h);
    XXH3_64bits_update(h, text, n);
    for (size_t i = 0; i < n_ids; i++) {
        uint32_t id = (uint32_t)ids[i];
        const uint8_t bytes[4] = {(uint8_t)id, (uint8_t)(id >> 8), (uint8_t)(id >> 16), (uint8_t)(id >> 24)};
        XXH3_64bits_update(h, bytes, sizeof bytes);
    }
    *out = XXH3_64bits_digest(h);
    XXH3_freeState(h);
    return LP_OK;
}
