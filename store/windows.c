/* windows.c - see windows.h. */
#include "store/windows.h"

#include "sae/run.h"
#include "store/plan_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lp_windows {
    const lp_plan *p;
    const lp_tokenizer *t;
    lp_corpus_files files; /* the plan's, where they lie now */
    lp_corpus *corpus;
    bool has_document, has_piece;
    size_t document, piece; /* what is at hand */
    const char *text;       /* of the piece */
    lp_tokens tokens;
    int *ids; /* [context] */
};

static lp_status no_memory(lp_error *err)
{
    return lp_fail(err, LP_E_MEMORY, "windows: out of memory");
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* A corpus of one file may be named by the file, whatever it is called now. */
static lp_status find_files(lp_windows *ws, const char *corpus, lp_error *err)
{
    const lp_corpus_files *f = &ws->p->files;
    if (f->n == 1 && lp_is_file(corpus)) {
        LP_TRY(lp_corpus_files_find(&ws->files, corpus, NULL, err));
        ws->files.items[0].is_jsonl = f->items[0].is_jsonl;
        return LP_OK;
    }
    if (!lp_is_dir(corpus)) return lp_fail(err, LP_E_NOT_FOUND, "%s: no folder; the plan's corpus is one", corpus);
    for (size_t i = 0; i < f->n; i++)
        LP_TRY(lp_corpus_files_add(&ws->files, f->items[i].name, f->items[i].is_jsonl, 0, err));
    ws->files.root = lp_strdup(corpus);
    return ws->files.root ? LP_OK : no_memory(err);
}

static lp_status start(lp_windows *ws, const char *corpus, const lp_env *env, lp_error *err)
{
    char hash[33];
    LP_TRY(lp_tokenizer_hash(hash, ws->t, err));
    if (strcmp(hash, ws->p->tokenizer) != 0 || lp_tokenizer_bos(ws->t) != ws->p->bos)
        return lp_fail(err, LP_E_UNSUPPORTED, "the plan was made for another tokenizer (%s, not %s); make a new one",
                       ws->p->tokenizer, hash);
    ws->ids = lp_calloc((size_t)ws->p->options.context, sizeof *ws->ids);
    if (!ws->ids) return no_memory(err);
    LP_TRY(find_files(ws, corpus, err));
    return lp_corpus_on(&ws->corpus, &ws->files, &ws->p->options.corpus, env, err);
}

lp_status lp_windows_open(lp_windows **out, const lp_plan *p, const char *corpus, const lp_tokenizer *t,
                          const lp_env *env, lp_error *err)
{
    lp_windows *ws = lp_calloc(1, sizeof *ws);
    if (!ws) return no_memory(err);
    ws->p = p;
    ws->t = t;
    lp_status st = start(ws, corpus, env, err);
    if (st == LP_OK)
        *out = ws;
    else
        lp_windows_close(ws);
    return st;
}

void lp_windows_close(lp_windows *ws)
{
    if (!ws) return;
    lp_corpus_close(ws->corpus);
    lp_corpus_files_clear(&ws->files);
    lp_tokens_free(&ws->tokens);
    free(ws->ids);
    free(ws);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* FILE:KEY or FILE:LINE changed; `how` is a part of the sentence. */
static lp_status changed(const lp_windows *ws, size_t document, const char *how, lp_error *err)
{
    const lp_document *d = &ws->p->documents[document].at;
    char line[24];
    snprintf(line, sizeof line, "%" PRId64, d->line);
    return lp_fail(err, LP_E_FORMAT, "%s:%.200s: the corpus changed since the plan (%s); restore it, or plan anew",
                   ws->files.items[d->file].name, d->key ? d->key : line, how);
}

static lp_status go_to_document(lp_windows *ws, size_t document, lp_error *err)
{
    lp_document d = ws->p->documents[document].at;
    uint64_t planned = d.n_bytes;
    lp_error why = {.text = ""};
    if (ws->has_document && ws->document == document) return LP_OK;
    ws->has_document = false;
    lp_status st = lp_corpus_load(ws->corpus, &d, &why);
    if (st == LP_E_FORMAT) return changed(ws, document, why.text, err);
    if (st != LP_OK) return lp_fail(err, st, "%s", why.text);
    if (d.n_bytes != planned) return changed(ws, document, "its text has another length", err);
    ws->has_document = true;
    ws->document = document;
    return LP_OK;
}

static lp_status go_to_piece(lp_windows *ws, size_t piece, lp_error *err)
{
    const lp_plan_piece *want = &ws->p->pieces[piece];
    lp_error why = {.text = ""};
    uint64_t hash;
    if (ws->has_piece && ws->piece == piece) return LP_OK;
    ws->has_piece = false;
    LP_TRY(go_to_document(ws, want->document, err));
    lp_status st = lp_corpus_bytes(ws->corpus, want->at, want->n_bytes, &ws->text, &why);
    if (st == LP_E_FORMAT) return changed(ws, want->document, why.text, err);
    if (st != LP_OK) return lp_fail(err, st, "%s", why.text);
    ws->tokens.n = 0;
    LP_TRY(lp_tokenizer_encode(ws->t, ws->text, want->n_bytes, ws->p->options.specials, &ws->tokens, err));
    LP_TRY(lp_piece_hash(&hash, ws->text, want->n_bytes, ws->tokens.ids, ws->tokens.n, err));
    if (ws->tokens.n != want->n_tokens || hash != want->hash)
        return changed(ws, want->document, "its text is another", err);
    ws->has_piece = true;
    ws->piece = piece;
    return LP_OK;
}

lp_status lp_windows_read(lp_windows *ws, size_t w, lp_window *out, lp_error *err)
{
    if (w >= ws->p->n_windows) return lp_fail(err, LP_E_RANGE, "window %zu: the plan has %zu", w, ws->p->n_windows);
    lp_plan_window where = lp_plan_get_window(ws->p, w);
    LP_TRY(go_to_piece(ws, where.piece, err));
    const lp_plan_piece *piece = &ws->p->pieces[where.piece];
    int of_text = where.n_tokens, *to = ws->ids;
    if (ws->p->bos >= 0) {
        *to++ = ws->p->bos;
        of_text--;
    }
    memcpy(to, ws->tokens.ids + where.first, (size_t)of_text * sizeof *to);
    const lp_span *spans = ws->tokens.spans + where.first;
    size_t from = spans[0].begin, end = spans[of_text - 1].end;
    *out = (lp_window){.document = piece->document,
                       .ids = ws->ids,
                       .n = where.n_tokens,
                       .text = ws->text + from,
                       .n_text = end - from,
                       .at = piece->at + from};
    return LP_OK;
}
