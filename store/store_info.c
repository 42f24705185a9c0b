/* store_info.c - see store_info.h. */
#include "store/store_info.h"

#include "store/catalogue_parts.h"

#include <stdio.h>
#include <stdlib.h>

void lp_store_info_free(lp_store_info *x)
{
    if (!x) return;
    for (size_t i = 0; i < x->n_runs; i++) {
        lp_store_run *r = &x->runs[i];
        for (int k = 0; k < r->n_saes; k++) free(r->saes[k].name), free(r->saes[k].hash), free(r->saes[k].site);
        free(r->saes);
    }
    free(x->runs);
    *x = (lp_store_info){0};
}

static lp_status read_saes(lp_store_run *r, const lp_catalogue *c, int64_t run_id, lp_error *err)
{
    lp_sql_statement s = {0};
    bool has_row;
    size_t room = 0;
    lp_status st = lp_sql_prepare(&s, &c->sql,
                                  "SELECT name, hash, site, layer, d_sae, n_values, "
                                  "(SELECT count(*) FROM feature WHERE feature.sae_id = sae.sae_id), "
                                  "(SELECT coalesce(sum(n_active), 0) FROM feature WHERE feature.sae_id = sae.sae_id), "
                                  "(SELECT count(DISTINCT feature) FROM label WHERE label.sae = sae.hash) FROM sae "
                                  "WHERE run_id = ? ORDER BY place",
                                  err);
    if (st == LP_OK) lp_sql_put_int(&s, 1, run_id);
    while (st == LP_OK && (st = lp_sql_step(&s, &has_row, err)) == LP_OK && has_row) {
        if (!lp_grow((void **)&r->saes, &room, (size_t)r->n_saes + 1, sizeof *r->saes)) {
            st = lp_fail(err, LP_E_MEMORY, "out of memory");
            break;
        }
        lp_store_sae *x = &r->saes[r->n_saes++];
        *x = (lp_store_sae){.name = lp_strdup(lp_sql_text(&s, 0)),
                            .hash = lp_strdup(lp_sql_text(&s, 1)),
                            .site = lp_strdup(lp_sql_text(&s, 2)),
                            .layer = (int)lp_sql_int(&s, 3),
                            .d_sae = (int)lp_sql_int(&s, 4),
                            .n_values = lp_sql_int(&s, 5),
                            .n_live = lp_sql_int(&s, 6),
                            .n_active = lp_sql_int(&s, 7),
                            .n_labels = lp_sql_int(&s, 8)};
        if (!x->name || !x->hash || !x->site) st = lp_fail(err, LP_E_MEMORY, "out of memory");
    }
    lp_sql_finish(&s);
    return st;
}

static int64_t planned(const lp_sql_statement *s, int column)
{
    return sqlite3_column_type(s->s, column) == SQLITE_NULL ? -1 : lp_sql_int(s, column);
}

static lp_status read_runs(lp_store_info *out, const lp_catalogue *c, lp_error *err)
{
    lp_sql_statement s = {0};
    bool has_row;
    size_t room = 0;
    lp_status st = lp_sql_prepare(&s, &c->sql,
                                  "SELECT run.run_id, run.hash, model, plan_shards, plan_tokens, plan_documents, "
                                  "count(number), coalesce(sum(n_tokens), 0), coalesce(sum(n_counted), 0), "
                                  "(SELECT count(DISTINCT document) FROM passage WHERE passage.run_id = run.run_id), "
                                  "coalesce(sum(n_values), 0), coalesce(sum(bytes), 0) "
                                  "FROM run LEFT JOIN shard USING(run_id) GROUP BY run.run_id ORDER BY run.hash",
                                  err);
    while (st == LP_OK && (st = lp_sql_step(&s, &has_row, err)) == LP_OK && has_row) {
        if (!lp_grow((void **)&out->runs, &room, out->n_runs + 1, sizeof *out->runs)) {
            st = lp_fail(err, LP_E_MEMORY, "out of memory");
            break;
        }
        lp_store_run *r = &out->runs[out->n_runs++];
        *r = (lp_store_run){.plan_shards = planned(&s, 3),
                            .plan_tokens = planned(&s, 4),
                            .plan_documents = planned(&s, 5),
                            .n_shards = lp_sql_int(&s, 6),
                            .n_tokens = lp_sql_int(&s, 7),
                            .n_counted = lp_sql_int(&s, 8),
                            .n_documents = lp_sql_int(&s, 9),
                            .n_values = lp_sql_int(&s, 10),
                            .bytes = lp_sql_int(&s, 11)};
        snprintf(r->hash, sizeof r->hash, "%s", lp_sql_text(&s, 1));
        snprintf(r->model, sizeof r->model, "%s", lp_sql_text(&s, 2));
        st = read_saes(r, c, lp_sql_int(&s, 0), err);
    }
    lp_sql_finish(&s);
    return st;
}

lp_status lp_store_get_info(lp_store_info *out, const char *store, const lp_env *env, lp_error *err)
{
    lp_catalogue *c;
    *out = (lp_store_info){0};
    LP_TRY(lp_catalogue_open(&c, store, LP_CATALOGUE_READ, env, err));
    lp_status st = read_runs(out, c, err);
    lp_catalogue_close(c);
    if (st != LP_OK) lp_store_info_free(out);
    return st;
}
