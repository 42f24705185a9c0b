/* query.c - see query.h: a run and its shards, one feature, its places and what stands around them. */
#include "store/query_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { OPEN_SHARDS = 64, NAMES_SHOWN = 12 };

/* ---- the run ------------------------------------------------------------------------------------------------------ */

static lp_status list_runs(const lp_query *q, const char *asked, lp_error *err)
{
    lp_sql_statement s = {0};
    char names[NAMES_SHOWN * 34 + 1] = "";
    bool has_row;
    size_t n = 0;
    lp_status st = lp_sql_prepare(&s, &q->c->sql, "SELECT hash FROM run ORDER BY hash", err);
    while (st == LP_OK && (st = lp_sql_step(&s, &has_row, err)) == LP_OK && has_row && n + 34 < sizeof names)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%.32s", n ? " " : "", lp_sql_text(&s, 0));
    lp_sql_finish(&s);
    LP_TRY(st);
    if (!n) return lp_fail(err, LP_E_NOT_FOUND, "%s: no run in it yet; lapidary index fills it", q->c->store);
    if (!asked) return lp_fail(err, LP_E_NOT_FOUND, "%s: which run? %s", q->c->store, names);
    return lp_fail(err, LP_E_NOT_FOUND, "%s: not one run that begins with \"%.40s\": %s", q->c->store, asked, names);
}

static lp_status find_run(lp_query *q, const char *run, lp_error *err)
{
    lp_sql_statement s = {0};
    bool has_row = false;
    int n = 0;
    lp_status st = lp_sql_prepare(&s, &q->c->sql,
                                  "SELECT run_id, hash, model, tokenizer, vocab FROM run "
                                  "WHERE ?1 IS NULL OR substr(hash, 1, length(?1)) = ?1 LIMIT 2",
                                  err);
    if (st == LP_OK) lp_sql_put_text(&s, 1, run, run ? strlen(run) : 0);
    for (; st == LP_OK && (st = lp_sql_step(&s, &has_row, err)) == LP_OK && has_row; n++) {
        q->run_id = lp_sql_int(&s, 0);
        snprintf(q->run.hash, sizeof q->run.hash, "%s", lp_sql_text(&s, 1));
        snprintf(q->run.model, sizeof q->run.model, "%s", lp_sql_text(&s, 2));
        snprintf(q->run.tokenizer, sizeof q->run.tokenizer, "%s", lp_sql_text(&s, 3));
        q->run.vocab = (int)lp_sql_int(&s, 4);
    }
    lp_sql_finish(&s);
    if (st != LP_OK) return st;
    return n == 1 ? LP_OK : list_runs(q, run, err);
}

static lp_status read_saes(lp_query *q, lp_error *err)
{
    lp_sql_statement s = {0};
    bool has_row;
    size_t room = 0;
    lp_status st = lp_sql_prepare(&s, &q->c->sql,
                                  "SELECT sae_id, name, hash, site, layer, d_sae, n_values FROM sae WHERE run_id = ? "
                                  "ORDER BY place",
                                  err);
    if (st == LP_OK) lp_sql_put_int(&s, 1, q->run_id);
    while (st == LP_OK && (st = lp_sql_step(&s, &has_row, err)) == LP_OK && has_row) {
        int n = q->run.n_saes;
        if (!lp_grow((void **)&q->saes, &room, (size_t)n + 1, sizeof *q->saes)) {
            st = lp_fail(err, LP_E_MEMORY, "out of memory");
            break;
        }
        lp_query_sae *x = &q->saes[n];
        *x = (lp_query_sae){.id = lp_sql_int(&s, 0),
                            .name = lp_strdup(lp_sql_text(&s, 1)),
                            .hash = lp_strdup(lp_sql_text(&s, 2)),
                            .site = lp_strdup(lp_sql_text(&s, 3)),
                            .layer = (int)lp_sql_int(&s, 4),
                            .d_sae = (int)lp_sql_int(&s, 5),
                            .n_values = lp_sql_int(&s, 6)};
        q->run.saes = q->saes;
        q->run.n_saes = n + 1;
        if (!x->name || !x->hash || !x->site) st = lp_fail(err, LP_E_MEMORY, "out of memory");
    }
    lp_sql_finish(&s);
    return st;
}

static lp_status read_parts(lp_query *q, lp_error *err)
{
    lp_sql_statement s = {0};
    bool has_row;
    size_t room = 0;
    int64_t end = 0;
    lp_status st = lp_sql_prepare(&s, &q->c->sql,
                                  "SELECT number, token_base, n_tokens, bytes, mtime_ns, hash, n_counted, n_documents "
                                  "FROM shard WHERE run_id = ? ORDER BY token_base, number",
                                  err);
    if (st == LP_OK) lp_sql_put_int(&s, 1, q->run_id);
    while (st == LP_OK && (st = lp_sql_step(&s, &has_row, err)) == LP_OK && has_row) {
        if (!lp_grow((void **)&q->parts, &room, (size_t)q->run.n_shards + 1, sizeof *q->parts)) {
            st = lp_fail(err, LP_E_MEMORY, "out of memory");
            break;
        }
        lp_part *x = &q->parts[q->run.n_shards++];
        *x = (lp_part){.number = (int)lp_sql_int(&s, 0),
                       .token_base = lp_sql_int(&s, 1),
                       .n = (int)lp_sql_int(&s, 2),
                       .bytes = lp_sql_int(&s, 3),
                       .mtime_ns = lp_sql_int(&s, 4)};
        snprintf(x->hash, sizeof x->hash, "%s", lp_sql_text(&s, 5));
        if (x->n < 0 || x->token_base < end)
            st = lp_fail(err, LP_E_FORMAT, "%s: shard %d begins before its neighbour ends", q->c->store, x->number);
        end = x->token_base + x->n;
        q->run.n_tokens += x->n;
        q->run.n_counted += lp_sql_int(&s, 6);
        q->run.n_documents += lp_sql_int(&s, 7);
    }
    lp_sql_finish(&s);
    return st;
}

lp_status lp_query_open(lp_query **out, const char *store, const char *run, const lp_env *env, lp_error *err)
{
    lp_query *q = lp_calloc(1, sizeof *q);
    *out = NULL;
    if (!q) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_status st = lp_catalogue_open(&q->c, store, LP_CATALOGUE_READ, env, err);
    if (st == LP_OK) st = find_run(q, run, err);
    if (st == LP_OK) st = read_saes(q, err);
    if (st == LP_OK) st = read_parts(q, err);
    if (st == LP_OK)
        *out = q;
    else
        lp_query_close(q);
    return st;
}

static void close_part(lp_query *q, lp_part *p)
{
    if (p->s) q->n_open--;
    lp_shard_close(p->s);
    free(p->id), free(p->doc), free(p->pos), free(p->excluded), free(p->document);
    p->s = NULL, p->id = p->doc = p->pos = NULL, p->excluded = NULL, p->document = NULL;
}

void lp_query_close(lp_query *q)
{
    if (!q) return;
    for (int i = 0; i < q->run.n_shards; i++) close_part(q, &q->parts[i]);
    for (int i = 0; i < q->run.n_saes; i++) free(q->saes[i].name), free(q->saes[i].hash), free(q->saes[i].site);
    lp_catalogue_close(q->c);
    lp_shard_postings_free(&q->postings);
    free(q->saes), free(q->parts), free(q);
}

const lp_query_run *lp_query_get_run(const lp_query *q)
{
    return &q->run;
}

lp_status lp_query_find_sae(int *out, const lp_query *q, const char *name, lp_error *err)
{
    char names[512] = "";
    size_t n = 0;
    for (int i = 0; i < q->run.n_saes; i++) {
        *out = i;
        if (strcmp(q->saes[i].name, name) == 0 || strcmp(q->saes[i].hash, name) == 0) return LP_OK;
    }
    for (int i = 0; i < q->run.n_saes && i < NAMES_SHOWN && n < sizeof names; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%.60s", n ? ", " : "", q->saes[i].name);
    return lp_fail(err, LP_E_NOT_FOUND, "no SAE \"%.100s\" in this run; it has %s%s", name, names,
                   q->run.n_saes > NAMES_SHOWN ? ", ..." : "");
}

/* ---- its shards --------------------------------------------------------------------------------------------------- */

int lp_query_part_of(const lp_query *q, int64_t token)
{
    int low = 0, high = q->run.n_shards;
    while (low < high) {
        int mid = (low + high) / 2;
        if (q->parts[mid].token_base + q->parts[mid].n <= token)
            low = mid + 1;
        else
            high = mid;
    }
    return low < q->run.n_shards && q->parts[low].token_base <= token ? low : -1;
}

/* Is it still the file that was hashed?  Then it needs no hashing again. */
static lp_status open_file(lp_part *p, const char *path, const lp_env *env, lp_error *err)
{
    struct stat s;
    char hash[33];
    if (stat(path, &s) != 0)
        return lp_fail(err, LP_E_NOT_FOUND, "%s: missing; lapidary store verify looks at all", path);
    bool is_same = (int64_t)s.st_size == p->bytes &&
                   (int64_t)s.st_mtim.tv_sec * 1000000000 + s.st_mtim.tv_nsec == p->mtime_ns;
    if (is_same) return lp_shard_open(&p->s, path, LP_SHARD_TRUSTED, env, err);
    LP_TRY(lp_file_hash(hash, path, env, err));
    if (strcmp(hash, p->hash) != 0)
        return lp_fail(err, LP_E_FORMAT, "%s: not the file that was taken in; lapidary store verify looks at all",
                       path);
    return lp_shard_open(&p->s, path, LP_SHARD_TRUSTED, env, err);
}

static lp_status read_documents(lp_part *p, const lp_query *q, lp_error *err)
{
    lp_sql_statement s = {0};
    int64_t first = q->run_id << LP_PASSAGE_RUN | (int64_t)p->number << LP_PASSAGE_BITS;
    int n = lp_shard_get_head(p->s)->n_documents;
    bool has_row;
    int at = 0;
    lp_status st = lp_sql_prepare(
        &s, &q->c->sql, "SELECT document FROM passage WHERE passage_id BETWEEN ? AND ? ORDER BY passage_id", err);
    if (st == LP_OK) lp_sql_put_int(&s, 1, first), lp_sql_put_int(&s, 2, first + (1 << LP_PASSAGE_BITS) - 1);
    while (st == LP_OK && (st = lp_sql_step(&s, &has_row, err)) == LP_OK && has_row && at < n)
        p->document[at++] = lp_sql_int(&s, 0);
    lp_sql_finish(&s);
    if (st == LP_OK && at != n)
        st = lp_fail(err, LP_E_FORMAT, "%s: documents of shard %d are missing; lapidary index --rebuild", q->c->store,
                     p->number);
    return st;
}

static lp_status read_part(lp_part *p, const lp_query *q, lp_error *err)
{
    const lp_shard_head *h = lp_shard_get_head(p->s);
    if (strcmp(h->run, q->run.hash) != 0 || h->number != p->number || h->n_tokens != p->n ||
        h->n_saes != q->run.n_saes || h->token_base != p->token_base)
        return lp_fail(err, LP_E_FORMAT, "%s: shard %d is not what the catalogue says; lapidary index --rebuild",
                       q->c->store, p->number);
    for (int i = 0; i < h->n_saes; i++)
        if (h->saes[i].d_sae != q->saes[i].d_sae || strcmp(h->saes[i].hash, q->saes[i].hash) != 0)
            return lp_fail(err, LP_E_FORMAT, "%s: shard %d has other SAEs than the catalogue says", q->c->store,
                           p->number);
    size_t n = p->n ? (size_t)p->n : 1, d = h->n_documents ? (size_t)h->n_documents : 1;
    p->id = lp_calloc(n, sizeof *p->id), p->doc = lp_calloc(n, sizeof *p->doc);
    p->pos = lp_calloc(n, sizeof *p->pos), p->excluded = lp_calloc(n, 1);
    p->document = lp_calloc(d, sizeof *p->document);
    if (!p->id || !p->doc || !p->pos || !p->excluded || !p->document) return lp_fail(err, LP_E_MEMORY, "out of memory");
    const lp_shard_tokens t = {p->id, p->doc, p->pos, p->excluded, NULL};
    LP_TRY(lp_shard_read_tokens(p->s, 0, p->n, &t, err));
    return read_documents(p, q, err);
}

static void make_room(lp_query *q)
{
    lp_part *oldest = NULL;
    for (int i = 0; i < q->run.n_shards; i++)
        if (q->parts[i].s && (!oldest || q->parts[i].used < oldest->used)) oldest = &q->parts[i];
    if (oldest) close_part(q, oldest);
}

lp_status lp_query_part(lp_part **out, lp_query *q, int i, lp_error *err)
{
    lp_part *p = *out = &q->parts[i];
    p->used = ++q->clock;
    if (p->s) return LP_OK;
    if (q->n_open >= OPEN_SHARDS) make_room(q);
    char *path = lp_store_path(q->c->store, q->run.hash, p->number);
    lp_status st = path ? open_file(p, path, &q->c->env, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    free(path);
    if (st != LP_OK) return st;
    q->n_open++;
    st = read_part(p, q, err);
    if (st != LP_OK) close_part(q, p);
    return st;
}
