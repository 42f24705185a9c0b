/* series.c - see series.h. */
#include "store/series.h"

#include "store/plan.h"
#include "store/run_folder.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- which shards ------------------------------------------------------------------------------------------------- */

static int is_shard(const struct dirent *e)
{
    int number;
    char rest;
    return strlen(e->d_name) == 15 && sscanf(e->d_name, "shard-%6d.h%c", &number, &rest) == 2 && rest == '5';
}

static lp_status add_path(lp_series *s, char *path, lp_error *err)
{
    char **more = path ? realloc(s->paths, (s->n_shards + 1) * sizeof *more) : NULL;
    if (!more) {
        free(path);
        return lp_fail(err, LP_E_MEMORY, "out of memory");
    }
    s->paths = more;
    s->paths[s->n_shards++] = path;
    return LP_OK;
}

/* Of a run that is not finished there is less than its plan says. */
static lp_status count_planned(const lp_series *s, const char *folder, const lp_env *env, lp_error *err)
{
    char *path = lp_path_join(folder, "plan.jsonl");
    lp_plan p = {0};
    lp_status st = path ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (path && lp_is_file(path)) st = lp_plan_read(&p, path, err);
    if (st == LP_OK && p.n_shards > s->n_shards)
        lp_log(env, LP_WARN, "%s: %zu of %zu shards are there, and no more is read", folder, s->n_shards, p.n_shards);
    lp_plan_clear(&p);
    free(path);
    return st;
}

static lp_status list_shards(lp_series *s, const char *folder, const lp_env *env, lp_error *err)
{
    struct dirent **names = NULL;
    int n = scandir(folder, &names, is_shard, alphasort);
    lp_status st = n > 0 ? LP_OK : lp_fail(err, LP_E_NOT_FOUND, "%s: no shards in it", folder);
    for (int i = 0; i < n; i++) {
        if (st == LP_OK) st = add_path(s, lp_path_join(folder, names[i]->d_name), err);
        free(names[i]);
    }
    free(names);
    return st == LP_OK ? count_planned(s, folder, env, err) : st;
}

static lp_status list_store(lp_series *s, const char *store, const char *run, const lp_env *env, lp_error *err)
{
    char **names;
    size_t n;
    LP_TRY(lp_run_list(&names, &n, store, err));
    if (!run && n == 1) run = names[0];
    char *folder = run ? lp_format("%s/runs/%s", store, run) : NULL;
    lp_status st = LP_OK;
    if (!run)
        st = lp_fail(err, LP_E_NOT_FOUND, n ? "%s: %zu runs in it; --run %s, for one" : "%s: no runs in it", store, n,
                     n ? names[0] : "");
    else
        st = folder ? list_shards(s, folder, env, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    for (size_t i = 0; i < n; i++) free(names[i]);
    free(names), free(folder);
    return st;
}

static lp_status find_shards(lp_series *s, const char *path, const char *run, const lp_env *env, lp_error *err)
{
    s->is_one = lp_is_file(path);
    if (s->is_one) return add_path(s, lp_strdup(path), err);
    if (!lp_is_dir(path)) return lp_fail(err, LP_E_NOT_FOUND, "%s: no such store", path);
    char *runs = lp_path_join(path, "runs");
    bool is_store = runs && lp_is_dir(runs);
    free(runs);
    return is_store ? list_store(s, path, run, env, err) : list_shards(s, path, env, err);
}

/* ---- which SAE ---------------------------------------------------------------------------------------------------- */

static lp_status find_sae(int *out, const lp_shard *x, const char *path, const char *sae, lp_error *err)
{
    const lp_shard_head *h = lp_shard_get_head(x);
    *out = sae ? lp_shard_find_sae(x, sae) : h->n_saes == 1 ? 0 : -1;
    if (*out >= 0) return LP_OK;
    if (!h->n_saes) return lp_fail(err, LP_E_NOT_FOUND, "%s: no SAE in it", path);
    if (sae)
        return lp_fail(err, LP_E_NOT_FOUND, "%s: no SAE \"%.80s\" in it; it has %d, %s for one", path, sae, h->n_saes,
                       h->saes[0].name);
    return lp_fail(err, LP_E_NOT_FOUND, "%s: %d SAEs in it; --sae %s, for one", path, h->n_saes, h->saes[0].name);
}

static lp_status take_first(lp_series *s, const lp_shard_head *h, const lp_shard_sae *a, lp_error *err)
{
    snprintf(s->run, sizeof s->run, "%s", h->run);
    snprintf(s->model_hash, sizeof s->model_hash, "%s", h->model_hash);
    snprintf(s->tokenizer_hash, sizeof s->tokenizer_hash, "%s", h->tokenizer_hash);
    snprintf(s->hash, sizeof s->hash, "%s", a->hash);
    s->spot = a->spot, s->d_sae = a->d_sae, s->vocab = h->vocab;
    s->name = lp_strdup(a->name);
    return s->name ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
}

static lp_status take_shard(lp_series *s, const char *path, int *number, const char *sae, const lp_env *env,
                            lp_error *err)
{
    lp_shard *x;
    int which = -1;
    LP_TRY(lp_shard_open(&x, path, LP_SHARD_HASHED, env, err));
    const lp_shard_head *h = lp_shard_get_head(x);
    lp_status st = find_sae(&which, x, path, s->name ? s->hash : sae, err);
    bool follows = h->number == *number + 1 || s->is_one;
    if (st == LP_OK && !follows) {
        st = lp_fail(err, LP_E_FORMAT, "%s: where shard %d should be; finish the run first", path, *number + 1);
    } else if (st == LP_OK && !s->name) {
        st = take_first(s, h, &h->saes[which], err);
    } else if (st == LP_OK) {
        if (strcmp(h->run, s->run) != 0 || h->saes[which].d_sae != s->d_sae)
            st = lp_fail(err, LP_E_FORMAT, "%s: of another run than the shards before it", path);
    }
    if (st == LP_OK) *number = h->number, s->n_rows += h->n_tokens, s->n_values += h->saes[which].n_values;
    lp_shard_close(x);
    return st;
}

static lp_status measure(void *user, const lp_series_block *b, lp_error *err)
{
    lp_series *s = user;
    (void)err;
    for (int i = 0; i < b->n; i++)
        if (b->column[i] >= s->longest) s->longest = b->column[i] + 1;
    if (b->n) s->n_windows = b->window[b->n - 1] + 1;
    return LP_OK;
}

lp_status lp_series_open(lp_series *out, const char *path, const char *run, const char *sae, const lp_env *env,
                         lp_error *err)
{
    lp_series s = {0};
    int number = -1; /* of the shard before */
    lp_status st = find_shards(&s, path, run, env, err);
    for (size_t i = 0; i < s.n_shards && st == LP_OK; i++) {
        st = take_shard(&s, s.paths[i], &number, sae, env, err);
        lp_progress(env, "checking", (int64_t)i + 1, (int64_t)s.n_shards);
        if (st == LP_OK && lp_cancelled(env)) st = LP_CANCELLED;
    }
    if (st == LP_OK) st = lp_series_walk(&s, true, measure, &s, "reading", env, err);
    *out = s;
    if (st != LP_OK) lp_series_close(out);
    return st;
}

void lp_series_close(lp_series *s)
{
    for (size_t i = 0; i < s->n_shards; i++) free(s->paths[i]);
    free(s->paths), free(s->name);
    *s = (lp_series){0};
}

/* ---- walking ------------------------------------------------------------------------------------------------------ */

typedef struct walk {
    const lp_series *s;
    bool tokens_only;
    lp_series_fn f;
    void *user;
    const char *what;
    const lp_env *env;
    int id[LP_SERIES_BLOCK], pos[LP_SERIES_BLOCK], doc[LP_SERIES_BLOCK], column[LP_SERIES_BLOCK];
    int64_t document[LP_SERIES_BLOCK], window[LP_SERIES_BLOCK];
    int64_t row, at_window; /* of the run; -1 before the first */
    int last_pos, last_doc, at_column;
    int64_t *ids; /* of the shard's documents */
    lp_features features;
} walk;

static lp_status read_ids(walk *w, const lp_shard *x, lp_error *err)
{
    int n = lp_shard_get_head(x)->n_documents;
    free(w->ids);
    w->ids = lp_calloc((size_t)n + 1, sizeof *w->ids);
    if (!w->ids) return lp_fail(err, LP_E_MEMORY, "out of memory");
    for (int i = 0; i < n; i++) {
        lp_shard_document d;
        LP_TRY(lp_shard_read_document(&d, x, i, err));
        w->ids[i] = d.id;
        lp_shard_document_free(&d);
    }
    return LP_OK;
}

static void number_rows(walk *w, int n)
{
    for (int i = 0; i < n; i++) {
        bool goes_on = w->doc[i] == w->last_doc && w->pos[i] == w->last_pos + 1;
        w->at_column = goes_on ? w->at_column + 1 : 0;
        w->at_window += !goes_on;
        w->last_doc = w->doc[i], w->last_pos = w->pos[i];
        w->column[i] = w->at_column, w->window[i] = w->at_window;
        w->document[i] = w->ids[w->doc[i]];
    }
}

static lp_status walk_block(walk *w, const lp_shard *x, int sae, int first, int n, lp_error *err)
{
    lp_shard_tokens t = {.id = w->id, .doc = w->doc, .pos = w->pos};
    LP_TRY(lp_shard_read_tokens(x, first, n, &t, err));
    if (!w->tokens_only) LP_TRY(lp_shard_read_rows(&w->features, x, sae, first, n, err));
    number_rows(w, n);
    lp_series_block b = {.n = n,
                         .first = w->row,
                         .id = w->id,
                         .pos = w->pos,
                         .document = w->document,
                         .window = w->window,
                         .column = w->column,
                         .features = w->tokens_only ? NULL : &w->features};
    w->row += n;
    LP_TRY(w->f(w->user, &b, err));
    lp_progress(w->env, w->what, w->row, w->s->n_rows);
    return lp_cancelled(w->env) ? LP_CANCELLED : LP_OK;
}

static lp_status walk_shard(walk *w, const char *path, lp_error *err)
{
    lp_shard *x;
    LP_TRY(lp_shard_open(&x, path, LP_SHARD_TRUSTED, w->env, err)); /* hashed when the series was opened */
    int sae = lp_shard_find_sae(x, w->s->hash), n = lp_shard_get_head(x)->n_tokens;
    lp_status st = sae < 0 ? lp_fail(err, LP_E_FORMAT, "%s: changed while it was read", path) : read_ids(w, x, err);
    w->last_doc = -1;
    for (int first = 0; first < n && st == LP_OK; first += LP_SERIES_BLOCK)
        st = walk_block(w, x, sae, first, n - first < LP_SERIES_BLOCK ? n - first : LP_SERIES_BLOCK, err);
    lp_shard_close(x);
    return st;
}

lp_status lp_series_walk(const lp_series *s, bool tokens_only, lp_series_fn f, void *user, const char *what,
                         const lp_env *env, lp_error *err)
{
    walk *w = lp_calloc(1, sizeof *w);
    if (!w) return lp_fail(err, LP_E_MEMORY, "out of memory");
    w->s = s, w->tokens_only = tokens_only, w->f = f, w->user = user, w->what = what, w->env = env;
    w->at_window = -1;
    lp_status st = LP_OK;
    for (size_t i = 0; i < s->n_shards && st == LP_OK; i++) st = walk_shard(w, s->paths[i], err);
    free(w->ids);
    lp_features_free(&w->features);
    free(w);
    return st;
}
