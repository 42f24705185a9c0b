/* plan_write.c - see plan.h: a plan as a file.
 *
 * One function spells the lines; they go into the hash first and into the file later.
 */
#include "core/outfile.h"
#include "sae/hash.h"
#include "store/plan_parts.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Where lines go: into a file, or into a hash. */
typedef struct sink {
    lp_outfile *file;
    XXH3_state_t *hash;
    lp_error *err;
} sink;

static lp_status put_bytes(const sink *s, const void *data, size_t n)
{
    if (s->file) return lp_outfile_write(s->file, data, n, s->err);
    XXH3_128bits_update(s->hash, data, n);
    return LP_OK;
}

static lp_status put(const sink *s, const char *fmt, ...) LP_PRINTF(2, 3);

/* Of numbers and words of our own: nothing that has to be escaped. */
static lp_status put(const sink *s, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof text) return lp_fail(s->err, LP_E_RANGE, "a plan: a line that is too long");
    return put_bytes(s, text, (size_t)n);
}

/* A string of a stranger's; NULL is null. */
static lp_status put_text(const sink *s, const char *text)
{
    if (!text) return put_bytes(s, "null", 4);
    json_t *j = json_string(text);
    char *spelled = j ? json_dumps(j, JSON_ENCODE_ANY) : NULL;
    json_decref(j);
    if (!spelled) return lp_fail(s->err, LP_E_MEMORY, "a plan: a name that is no UTF-8, or no memory");
    lp_status st = put_bytes(s, spelled, strlen(spelled));
    free(spelled);
    return st;
}

static lp_status put_head(const sink *s, const lp_plan *p)
{
    const lp_plan_options *o = &p->options;
    LP_TRY(put(s, "{\"context\":%d,\"shard_tokens\":%" PRId64 ",\"specials\":\"%s\",\"bos\":%d,\"tokenizer\":\"%s\",",
               o->context, o->shard_tokens, lp_plan_specials[o->specials], p->bos, p->tokenizer));
    LP_TRY(put(s, "\"split\":\"%s\",\"field\":", lp_plan_splits[o->corpus.split]));
    LP_TRY(put_text(s, o->corpus.field));
    LP_TRY(put(s, ",\"key\":"));
    LP_TRY(put_text(s, o->corpus.key));
    LP_TRY(put(s, ",\"skip_bad\":%s,\"record_bytes\":%zu,\"piece_bytes\":%zu,", o->corpus.skip_bad ? "true" : "false",
               o->corpus.record_bytes, o->corpus.piece_bytes));
    LP_TRY(put(s, "\"files\":%zu,\"documents\":%zu,\"pieces\":%zu,\"windows\":%zu,\"shards\":%zu,", p->files.n,
               p->n_documents, p->n_pieces, p->n_windows, p->n_shards));
    return put(s, "\"tokens\":%" PRId64 ",\"bytes\":%" PRId64 ",\"empty\":%" PRId64 ",\"skipped\":%" PRId64 "}\n",
               p->n_tokens, p->n_bytes, p->n_empty, p->n_skipped);
}

static lp_status put_document(const sink *s, const lp_plan *p, size_t i)
{
    const lp_plan_document *d = &p->documents[i];
    XXH128_canonical_t hash;
    char hex[33];
    memcpy(hash.digest, d->hash, sizeof hash.digest);
    lp_hash_text(hex, XXH128_hashFromCanonical(&hash));
    LP_TRY(put(s, "{\"document\":%zu,\"file\":%zu,\"line\":%" PRId64 ",\"key\":", i, d->at.file, d->at.line));
    LP_TRY(put_text(s, d->at.key));
    LP_TRY(put(s, ",\"offset\":%" PRIu64 ",\"length\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"hash\":\"%s\",\"pieces\":[",
               d->at.offset, d->at.length, d->at.n_bytes, hex));
    for (size_t k = 0; k < d->n_pieces; k++) {
        const lp_plan_piece *piece = &p->pieces[d->first_piece + k];
        LP_TRY(put(s, "%s[%" PRIu32 ",%" PRIu32 ",\"%016" PRIx64 "\"]", k ? "," : "", piece->n_bytes, piece->n_tokens,
                   piece->hash));
    }
    return put(s, "]}\n");
}

static lp_status put_lines(const sink *s, const lp_plan *p)
{
    LP_TRY(put_head(s, p));
    for (size_t i = 0; i < p->files.n; i++) {
        LP_TRY(put(s, "{\"file\":%zu,\"name\":", i));
        LP_TRY(put_text(s, p->files.items[i].name));
        LP_TRY(put(s, ",\"kind\":\"%s\"}\n", lp_plan_kinds[p->files.items[i].is_jsonl]));
    }
    for (size_t i = 0; i < p->n_documents; i++) LP_TRY(put_document(s, p, i));
    for (size_t i = 0; i < p->n_shards; i++) {
        const lp_plan_shard *h = &p->shards[i];
        LP_TRY(put(s,
                   "{\"shard\":%zu,\"first_window\":%zu,\"windows\":%zu,\"first_token\":%" PRId64 ",\"tokens\":%" PRId64
                   "}\n",
                   i, h->first_window, h->n_windows, h->first_token, h->n_tokens));
    }
    return LP_OK;
}

lp_status lp_plan_hash(char out[33], const lp_plan *p, lp_error *err)
{
    sink s = {.hash = XXH3_createState(), .err = err};
    if (!s.hash) return lp_fail(err, LP_E_MEMORY, "a plan: out of memory");
    XXH3_128bits_reset(s.hash);
    lp_status st = put_lines(&s, p);
    lp_hash_text(out, XXH3_128bits_digest(s.hash));
    XXH3_freeState(s.hash);
    return st;
}

lp_status lp_plan_write(const lp_plan *p, const char *path, lp_error *err)
{
    lp_outfile f;
    LP_TRY(lp_outfile_open(&f, path, err));
    sink s = {.file = &f, .err = err};
    lp_status st = put(&s, "{\"format\":\"lapidary-plan\",\"version\":1,\"hash\":\"%s\"}\n", p->hash);
    if (st == LP_OK) st = put_lines(&s, p);
    if (st == LP_OK) st = lp_outfile_end(&f, err);
    lp_outfile_close(&f);
    return st;
}
