/* store_verify.c - see store_verify.h. */
#include "store/store_verify.h"

#include "store/catalogue_parts.h"
#include "store/run_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *lp_store_state_name(lp_store_state s)
{
    static const char *const names[] = {"ok", "damaged", "quarantined", "missing", "changed", "not indexed"};
    return names[s];
}

void lp_store_verified_free(lp_store_verified *v)
{
    if (!v) return;
    free(v->items);
    *v = (lp_store_verified){0};
}

static lp_status report(lp_store_verified *out, const char *run, int number, lp_store_state state, const char *why,
                        lp_error *err)
{
    if (!lp_grow((void **)&out->items, &out->capacity, out->n + 1, sizeof *out->items))
        return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_store_finding *f = &out->items[out->n++];
    *f = (lp_store_finding){.number = number, .state = state};
    snprintf(f->run, sizeof f->run, "%s", run);
    snprintf(f->why, sizeof f->why, "%s", why);
    out->bad += state != LP_STORE_OK && state != LP_STORE_NOT_INDEXED;
    return LP_OK;
}

/* ---- shards ------------------------------------------------------------------------------------------------------- */

/* What the catalogue took in; "" when it did not. */
static lp_status known_hash(char out[33], const lp_catalogue *c, const lp_store_shard *x, lp_error *err)
{
    lp_sql_statement s = {0};
    bool has_row = false;
    out[0] = '\0';
    if (!c) return LP_OK;
    lp_status st = lp_sql_prepare(
        &s, &c->sql, "SELECT shard.hash FROM shard JOIN run USING(run_id) WHERE run.hash = ? AND number = ?", err);
    if (st == LP_OK) {
        lp_sql_put_text(&s, 1, x->run, strlen(x->run));
        lp_sql_put_int(&s, 2, x->number);
        st = lp_sql_step(&s, &has_row, err);
    }
    if (st == LP_OK && has_row) snprintf(out, 33, "%s", lp_sql_text(&s, 0));
    lp_sql_finish(&s);
    return st;
}

static lp_status put_away(const char *store, const char *path, const lp_store_shard *x, const char *why,
                          const lp_env *env, lp_error *err)
{
    char *run = lp_store_path(store, x->run, -1);
    lp_status st = run ? lp_run_put_away(run, path, (size_t)x->number, why, env, err)
                       : lp_fail(err, LP_E_MEMORY, "out of memory");
    free(run);
    return st;
}

static lp_status verify_shard(lp_store_verified *out, const char *store, const lp_catalogue *c, const lp_store_shard *x,
                              bool repair, const lp_env *env, lp_error *err)
{
    char known[33], side[33];
    char *path = lp_store_path(store, x->run, x->number);
    lp_error why = {.status = LP_OK};
    if (!path) return lp_fail(err, LP_E_MEMORY, "out of memory");
    lp_status st = lp_shard_verify(path, NULL, env, &why), found = st;
    if (st == LP_CANCELLED || st == LP_E_MEMORY || st == LP_E_IO) {
        free(path);
        return st == LP_CANCELLED ? st : lp_fail(err, st, "%s", why.text);
    }
    st = LP_OK;
    if (found != LP_OK) {
        bool is_moved = repair && found != LP_E_UNSUPPORTED; /* a later format is no damage */
        if (is_moved) st = put_away(store, path, x, why.text, env, err);
        if (st == LP_OK)
            st = report(out, x->run, x->number, is_moved ? LP_STORE_QUARANTINED : LP_STORE_DAMAGED, why.text, err);
    } else {
        st = known_hash(known, c, x, err);
        if (st == LP_OK) st = lp_shard_side_hash(side, path, err);
        if (st == LP_OK && !known[0])
            st = report(out, x->run, x->number, LP_STORE_NOT_INDEXED, "lapidary index takes it in", err);
        else if (st == LP_OK && strcmp(known, side) != 0)
            st = report(out, x->run, x->number, LP_STORE_CHANGED, "lapidary index --rebuild goes by the files", err);
        else if (st == LP_OK)
            st = report(out, x->run, x->number, LP_STORE_OK, "", err);
    }
    free(path);
    return st;
}

/* ---- the catalogue ------------------------------------------------------------------------------------------------ */

static lp_status find_missing(lp_store_verified *out, const lp_catalogue *c, const char *store, lp_error *err)
{
    lp_sql_statement s = {0};
    bool has_row = false;
    lp_status st = lp_sql_prepare(
        &s, &c->sql, "SELECT run.hash, number FROM shard JOIN run USING(run_id) ORDER BY run.hash, number", err);
    while (st == LP_OK && (st = lp_sql_step(&s, &has_row, err)) == LP_OK && has_row) {
        lp_store_shard x = {.number = (int)lp_sql_int(&s, 1)};
        snprintf(x.run, sizeof x.run, "%s", lp_sql_text(&s, 0));
        char *path = lp_store_path(store, x.run, x.number);
        bool is_told = false;
        for (size_t i = 0; i < out->n && !is_told; i++)
            is_told = out->items[i].number == x.number && strcmp(out->items[i].run, x.run) == 0;
        if (!path)
            st = lp_fail(err, LP_E_MEMORY, "out of memory");
        else if (!is_told && !lp_is_file(path))
            st = report(out, x.run, x.number, LP_STORE_MISSING, "run the extraction again", err);
        free(path);
    }
    lp_sql_finish(&s);
    return st;
}

/* SQLite's own check, and that features add up to what the shards hold at most. */
static lp_status verify_catalogue(lp_store_verified *out, const lp_catalogue *c, lp_error *err)
{
    lp_sql_statement s = {0};
    bool has_row = false;
    char why[LP_ERROR_TEXT] = "";
    lp_status st = lp_sql_prepare(&s, &c->sql, "PRAGMA integrity_check(1)", err);
    if (st == LP_OK) st = lp_sql_step(&s, &has_row, err);
    if (st == LP_OK && has_row) snprintf(why, sizeof why, "%s", lp_sql_text(&s, 0));
    lp_sql_finish(&s);
    if (st == LP_OK && strcmp(why, "ok") == 0) {
        int64_t wrong;
        st = lp_sql_number(&wrong, &c->sql,
                           "SELECT count(*) FROM run WHERE (SELECT coalesce(sum(n_values), 0) FROM sae WHERE "
                           "sae.run_id = run.run_id) <> (SELECT coalesce(sum(n_values), 0) FROM shard WHERE "
                           "shard.run_id = run.run_id)",
                           err);
        if (st == LP_OK && wrong) snprintf(why, sizeof why, "its sums are not those of its shards");
    }
    if (st == LP_E_FORMAT) snprintf(why, sizeof why, "%s", err ? err->text : "damaged"), st = LP_OK;
    if (st != LP_OK) return st;
    bool is_ok = strcmp(why, "ok") == 0;
    return report(out, "", -1, is_ok ? LP_STORE_OK : LP_STORE_DAMAGED, is_ok ? "" : why, err);
}

lp_status lp_store_verify(lp_store_verified *out, const char *store, bool repair, const lp_env *env, lp_error *err)
{
    lp_store_shard *shards = NULL;
    lp_catalogue *c = NULL;
    lp_error why = {.status = LP_OK};
    size_t n = 0;
    *out = (lp_store_verified){0};
    LP_TRY(lp_store_list(&shards, &n, store, err));
    lp_status opened = lp_catalogue_open(&c, store, LP_CATALOGUE_READ, env, &why), st = LP_OK;
    for (size_t i = 0; i < n && st == LP_OK; i++) {
        lp_progress(env, "verifying", (int64_t)i, (int64_t)n);
        st = verify_shard(out, store, c, &shards[i], repair, env, err);
    }
    if (st == LP_OK && c) st = find_missing(out, c, store, err);
    if (st == LP_OK && c) st = verify_catalogue(out, c, err);
    if (st == LP_OK && !c)
        st = report(out, "", -1, opened == LP_E_NOT_FOUND ? LP_STORE_NOT_INDEXED : LP_STORE_DAMAGED, why.text, err);
    lp_progress(env, "verifying", (int64_t)n, (int64_t)n);
    lp_catalogue_close(c);
    free(shards);
    if (st != LP_OK) lp_store_verified_free(out);
    return st;
}
