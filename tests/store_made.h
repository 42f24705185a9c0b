/* store_made.h - shards for tests, made of numbers that only depend on a seed and can be looked at beside the file.
 *
 *     made *m = made_new(&(made_spec){.n_tokens = 300, .n_documents = 7, .vocab = 50, .n_saes = 2, .d_sae = {64,
 * 200}});
 *     lp_shard_sealed sealed;
 *     made_write(m, folder, 32, &sealed);            in blocks of 32 rows
 *     m->saes[1].features.index ...                  what must come back
 *     made_free(m);
 *
 * Layers are 0, 1, 2 ..., sites take turns; a tenth of the features never fires, the rest by a power law; rows at
 * position 0 are <bos> and excluded.  Texts have NULs and broken UTF-8 in them, and some documents have no tokens.
 */
#ifndef LP_TESTS_STORE_MADE_H
#define LP_TESTS_STORE_MADE_H

#include "core/quant.h"
#include "store/shard.h"

#include "tests/check.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MADE_SAES = 40, MADE_D_OUT = 5, MADE_WIDTH = 12, MADE_DENSE = 3 };

typedef struct made_spec { /* zero: the smallest thing that is not nothing */
    int n_tokens, n_documents, vocab, n_saes, d_sae[MADE_SAES];
    int value_bits, l0; /* l0: features of a row, about; 0: 8 */
    int number;
    int64_t token_base;
    bool has_logprob, has_dense, never_fires, no_target;
    uint64_t seed;
} made_spec;

typedef struct made_sae {
    lp_features features;
    float *sqerr, *norm2, *target, *threshold;
    char name[64], hash[33];
} made_sae;

typedef struct made {
    made_spec spec;
    lp_shard_head head;
    lp_shard_sae about[MADE_SAES];
    lp_shard_dense dense_about[MADE_DENSE];
    int *id, *pos, *doc;
    uint8_t *excluded;
    float *logprob, *dense[MADE_DENSE];
    made_sae saes[MADE_SAES];
    lp_shard_document *documents;
} made;

static inline double made_random(uint64_t *s) /* [0, 1) */
{
    *s += 0x9e3779b97f4a7c15u;
    uint64_t z = *s;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u, z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) / 9007199254740992.0;
}

static inline void *made_array(size_t n, size_t size)
{
    void *p = lp_calloc(n ? n : 1, size);
    if (!p) exit(1);
    return p;
}

/* Documents of random lengths, every fifth one empty, and their tokens. */
static inline void made_tokens(made *m, uint64_t *s)
{
    int n = m->spec.n_tokens, d = m->spec.n_documents;
    for (int i = 0; i < d; i++) {
        lp_shard_document *x = &m->documents[i];
        static const char text[] = "a NUL \0, a broken \xc3( and \xe2\x82\xac";
        char *copy = made_array(sizeof text + 40, 1);
        int len = i % 5 == 3 ? 0 : snprintf(copy, 40, "text %d ", i);
        if (len && i % 2) memcpy(copy + len, text, sizeof text - 1), len += (int)sizeof text - 1;
        *x = (lp_shard_document){.id = 1000 + i * 3, .first_token = i == 0 ? 17 : 0, .text = copy};
        x->text_bytes = (size_t)len, x->is_utf8 = i % 2 == 0 || len == 0;
        x->key = lp_format("key-%d", i), x->key_bytes = strlen(x->key);
        x->memory = copy;
    }
    int doc = 0, pos = 0;
    for (int r = 0; r < n; r++) {
        int left = d - 1 - doc;
        if (r && left && made_random(s) < (double)left / (n - r)) doc++, pos = 0;
        if (doc % 5 == 3 && doc < d - 1) doc++; /* which stays empty */
        m->doc[r] = doc, m->pos[r] = pos++;
        m->id[r] = pos == 1 ? 2 % m->spec.vocab : (int)(made_random(s) * made_random(s) * m->spec.vocab);
        m->excluded[r] = pos == 1 ? LP_ROW_BOS : pos == 3 ? LP_ROW_TEMPLATE : LP_ROW_COUNTS;
        m->logprob[r] = -(float)made_random(s) * 9;
    }
}

static inline void made_rows(made *m, int sae, uint64_t *s)
{
    made_sae *x = &m->saes[sae];
    int n = m->spec.n_tokens, w = m->spec.d_sae[sae], l0 = m->spec.l0 ? m->spec.l0 : 8;
    size_t z = 0, room = (size_t)n * (size_t)w < 4000000 ? (size_t)n * (size_t)w : (size_t)n * 64 * (size_t)l0;
    x->features = (lp_features){.n_rows = n,
                                .start = made_array((size_t)n + 1, sizeof(size_t)),
                                .index = made_array(room, 4),
                                .value = made_array(room, 4)};
    x->sqerr = made_array((size_t)n, 4), x->norm2 = made_array((size_t)n, 4);
    x->target = made_array((size_t)n * MADE_D_OUT, 4), x->threshold = made_array((size_t)w, 4);
    for (int f = 0; f < w; f++) x->threshold[f] = 0.05f + (float)made_random(s);
    for (int r = 0; r < n; r++) {
        /* Steps through the features that grow with the index: few postings for most, many for the first. */
        for (double f = made_random(s) * 3; !m->spec.never_fires && f < w && z < room;
             f += 1 + f * made_random(s) * 3 / l0) {
            if ((int)f % 10 == 7) continue;
            x->features.index[z] = (int)f;
            x->features.value[z++] = x->threshold[(int)f] * (1.0001f + (float)(8 * made_random(s) * made_random(s)));
            if (made_random(s) < 0.3) x->features.value[z - 1] = x->threshold[(int)f] * 1.0000003f;
        }
        x->features.start[r + 1] = z;
        x->sqerr[r] = (float)made_random(s), x->norm2[r] = 3 + (float)made_random(s);
        for (int i = 0; i < MADE_D_OUT; i++) x->target[r * MADE_D_OUT + i] = (float)made_random(s) - 0.5f;
    }
    static const lp_site sites[] = {LP_RESID_POST, LP_MLP_OUT, LP_Z, LP_RESID_POST, LP_EMBED};
    snprintf(x->name, sizeof x->name, "layer_%d/width_%d/canonical", sae / 5, w + sae);
    snprintf(x->hash, sizeof x->hash, "%032x", 0xabc0 + sae);
    lp_site site = sites[sae % 5];
    int layer = site == LP_EMBED ? LP_WHOLE_MODEL : sae / 5;
    m->about[sae] = (lp_shard_sae){.name = x->name,
                                   .hash = x->hash,
                                   .spot = {site, layer, false, site, layer},
                                   .d_sae = w,
                                   .d_out = MADE_D_OUT,
                                   .threshold = x->threshold,
                                   .has_sum = !m->spec.no_target};
    if (sae % 5 == 1) m->about[sae].spot = (lp_sae_spot){LP_MLP_NORMED, layer, true, LP_MLP_OUT, layer};
}

static inline made *made_new(const made_spec *spec)
{
    static const lp_dtype types[MADE_DENSE] = {LP_F32, LP_F16, LP_BF16};
    made *m = made_array(1, sizeof *m);
    uint64_t s = spec->seed;
    m->spec = *spec;
    if (!m->spec.vocab) m->spec.vocab = 10;
    if (m->spec.n_tokens && !m->spec.n_documents) m->spec.n_documents = 1;
    size_t n = (size_t)m->spec.n_tokens;
    m->id = made_array(n, 4), m->pos = made_array(n, 4), m->doc = made_array(n, 4), m->excluded = made_array(n, 1);
    m->logprob = made_array(n, 4), m->documents = made_array((size_t)m->spec.n_documents, sizeof *m->documents);
    made_tokens(m, &s);
    for (int i = 0; i < spec->n_saes; i++) made_rows(m, i, &s);
    for (int i = 0; i < MADE_DENSE; i++) {
        m->dense[i] = made_array(n * MADE_WIDTH, 4);
        for (size_t k = 0; k < n * MADE_WIDTH; k++) m->dense[i][k] = (float)(made_random(&s) * 200 - 100);
        m->dense_about[i] = (lp_shard_dense){i == 2 ? LP_FINAL_IN : LP_RESID_POST, i == 2 ? LP_WHOLE_MODEL : i,
                                             MADE_WIDTH, types[i]};
    }
    m->head = (lp_shard_head){.run = "0123456789abcdef0123456789abcdef",
                              .plan = "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbb",
                              .model_hash = "11111111111111112222222222222222",
                              .tokenizer_hash = "33333333333333334444444444444444",
                              .provenance = "{\"made\":\"for tests \xe2\x82\xac\"}",
                              .number = spec->number,
                              .token_base = spec->token_base,
                              .n_tokens = m->spec.n_tokens,
                              .vocab = m->spec.vocab,
                              .value_bits = spec->value_bits,
                              .has_logprob = spec->has_logprob,
                              .saes = m->about,
                              .n_saes = spec->n_saes,
                              .dense = m->dense_about,
                              .n_dense = spec->has_dense ? MADE_DENSE : 0};
    return m;
}

/* Rows first .. first + n - 1 go in. */
static inline lp_status made_add_rows(lp_shard_writer *w, const made *m, int first, int n, lp_error *err)
{
    lp_shard_sae_rows rows[MADE_SAES];
    lp_features part[MADE_SAES];
    const float *dense[MADE_DENSE];
    for (int i = 0; i < m->head.n_saes; i++) {
        const made_sae *x = &m->saes[i];
        part[i] = x->features;
        part[i].n_rows = n, part[i].start += first;
        rows[i] = (lp_shard_sae_rows){&part[i], x->sqerr + first, x->norm2 + first, x->target + first * MADE_D_OUT};
    }
    for (int i = 0; i < MADE_DENSE; i++) dense[i] = m->dense[i] + first * MADE_WIDTH;
    lp_shard_block b = {n,    m->id + first, m->pos + first, m->doc + first, m->excluded + first, m->logprob + first,
                        rows, dense};
    return lp_shard_add_rows(w, &b, err);
}

/* Blocks of `block` rows; documents come as early as they can for an even `block`, as late as they can for an odd
 * one. */
static inline lp_status made_fill(lp_shard_writer *w, const made *m, int block, lp_error *err)
{
    int docs = 0, n_docs = m->spec.n_documents;
    for (int first = 0; first < m->spec.n_tokens; first += block) {
        int n = m->spec.n_tokens - first < block ? m->spec.n_tokens - first : block;
        int need = block % 2 ? m->doc[first + n - 1] + 1 : n_docs;
        for (; docs < need; docs++) {
            lp_shard_document d = m->documents[docs];
            LP_TRY(lp_shard_add_document(w, &d, err));
        }
        LP_TRY(made_add_rows(w, m, first, n, err));
    }
    for (; docs < n_docs; docs++) LP_TRY(lp_shard_add_document(w, &m->documents[docs], err));
    return LP_OK;
}

static inline lp_status made_try(const made *m, const char *folder, int block, lp_shard_sealed *sealed, lp_error *err)
{
    lp_shard_writer *w = NULL;
    lp_status st = lp_shard_begin(&w, folder, &m->head, 0, NULL, err);
    if (st == LP_OK) st = made_fill(w, m, block, err);
    if (st == LP_OK) st = lp_shard_seal(w, sealed, err);
    lp_shard_writer_close(w);
    return st;
}

/* The same, and it must work. */
static inline void made_write(const made *m, const char *folder, int block, lp_shard_sealed *sealed)
{
    lp_error err = {0};
    lp_status st = made_try(m, folder, block, sealed, &err);
    if (st != LP_OK) fprintf(stderr, "%s\n", err.text);
    CHECK(st == LP_OK);
}

static inline void made_free(made *m)
{
    if (!m) return;
    for (int i = 0; i < m->spec.n_documents; i++) {
        free(m->documents[i].memory);
        union {
            const char *held;
            void *p;
        } key = {m->documents[i].key};
        free(key.p);
    }
    for (int i = 0; i < m->spec.n_saes; i++) {
        lp_features_free(&m->saes[i].features);
        free(m->saes[i].sqerr), free(m->saes[i].norm2), free(m->saes[i].target), free(m->saes[i].threshold);
    }
    for (int i = 0; i < MADE_DENSE; i++) free(m->dense[i]);
    free(m->id), free(m->pos), free(m->doc), free(m->excluded), free(m->logprob), free(m->documents), free(m);
}

/* ---- folders ----------------------------------------------------------------------------------------------------- */

static inline void made_folder(char out[64])
{
    snprintf(out, 64, "/tmp/lapidary-store-XXXXXX");
    if (!mkdtemp(out)) exit(1);
}

/* With its files; returns how many there were. */
static inline int made_remove(const char *folder)
{
    int n = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *path = lp_path_join(folder, e->d_name);
        n += path && unlink(path) == 0;
        free(path);
    }
    if (dir) closedir(dir);
    rmdir(folder);
    return n;
}

static inline void made_clear(const char *folder)
{
    made_remove(folder);
    CHECK(mkdir(folder, 0700) == 0);
}

static inline int made_n_files(const char *folder)
{
    int n = -2; /* . and .. */
    DIR *dir = opendir(folder);
    while (dir && readdir(dir)) n++;
    if (dir) closedir(dir);
    return n;
}

/* Until the next call. */
static inline char *made_path(const char *folder, const char *name)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

#endif
