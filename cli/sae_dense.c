/* sae_dense.c - see sae_dense.h.
 *
 * One line for a feature and a rank, so that awk and pandas find their way; a feature that has no neighbours has no line.
 */
#include "cli/sae_dense.h"

#include "sae/dense.h"

#include <stdlib.h>
#include <string.h>

typedef struct job {
    cli *c;
    const cli_dense *o;
    lp_model *m;
    cli_saes saes;
    int n;                   /* features asked about */
    int *which;              /* [n]                  */
    lp_scored *best, *worst; /* [n][top] */
} job;

static lp_status choose(job *w, lp_error *err)
{
    int all = w->saes.items[0]->d_sae;
    w->n = w->o->sample && w->o->sample < all ? w->o->sample : all;
    size_t cells = (size_t)w->n * (size_t)w->o->top;
    w->which = lp_calloc((size_t)w->n, sizeof *w->which);
    w->best = lp_calloc(cells, sizeof *w->best);
    w->worst = lp_calloc(cells, sizeof *w->worst);
    if (!w->which || !w->best || !w->worst)
        return lp_fail(err, LP_E_MEMORY, "no memory for %zu results; ask for a lower --top, or a --sample", 2 * cells);
    for (int i = 0; i < w->n; i++) w->which[i] = (int)((int64_t)i * all / w->n);
    return LP_OK;
}

static lp_dense_options options_of(const job *w)
{
    bool is_all = w->n == w->saes.items[0]->d_sae;
    lp_dense_threads(lp_pool_threads(w->c->env.pool));
    return (lp_dense_options){.k = w->o->top, .which = is_all ? NULL : w->which, .n = w->n};
}

static void take_down(job *w)
{
    free(w->which);
    free(w->best);
    free(w->worst);
    cli_close_saes(&w->saes);
    lp_model_close(w->m);
}

static lp_status count_names(cli *c, const cli_sae_choice *choice, int most, lp_error *err)
{
    const char *verb = c->operands[0];
    if (choice->names.n >= 1 && choice->names.n <= most) return LP_OK;
    return cli_usage(c, err, "%s: %s, %d were named", verb, most > 1 ? "one SAE or two" : "one SAE", choice->names.n);
}

/* ---- nearest ----------------------------------------------------------------------------------------------------- */

static void print_nearest(const job *w, int other)
{
    cli *c = w->c;
    cli_table_begin(c, "index\trank\tnear\tcosine\tlabel\tnear_label");
    for (int i = 0; i < w->n; i++)
        for (int k = 0; k < w->o->top; k++) {
            lp_scored x = w->best[(size_t)i * (size_t)w->o->top + (size_t)k];
            if (x.id < 0) break;
            cli_put_int(c, w->which[i]);
            cli_put_int(c, k + 1);
            cli_put_int(c, x.id);
            cli_put_real(c, (double)x.score, 5);
            cli_put_text(c, lp_label_text(&w->saes.labels[0], w->which[i]));
            cli_put_text(c, lp_label_text(&w->saes.labels[other], x.id));
        }
    cli_table_end(c);
}

static lp_status nearest(job *w, const cli_sae_choice *choice, lp_error *err)
{
    LP_TRY(cli_open_saes(&w->saes, w->c, NULL, choice, err));
    LP_TRY(choose(w, err));
    int other = w->saes.n - 1;
    lp_dense_options o = options_of(w);
    LP_TRY(lp_dense_nearest(w->best, w->saes.items[0], w->saes.items[other], &o, &w->c->env, err));
    print_nearest(w, other);
    return LP_OK;
}

lp_status cli_sae_nearest(cli *c, const cli_sae_choice *choice, const cli_dense *o, lp_error *err)
{
    job w = {.c = c, .o = o};
    LP_TRY(count_names(c, choice, 2, err));
    lp_status st = nearest(&w, choice, err);
    take_down(&w);
    return st;
}

/* ---- effects ----------------------------------------------------------------------------------------------------- */

static void put_token(const job *w, lp_scored x)
{
    size_t n;
    const char *piece = cli_piece(w->m, x.id, &n);
    cli_put_bytes(w->c, piece, n);
    cli_put_int(w->c, x.id);
    cli_put_real(w->c, (double)x.score, 5);
}

static void print_effects(const job *w)
{
    cli *c = w->c;
    cli_table_begin(c, "index\trank\tpromotes\tid\teffect\tsuppresses\tsuppressed_id\tsuppressed_effect\tlabel");
    for (int i = 0; i < w->n; i++)
        for (int k = 0; k < w->o->top; k++) {
            size_t at = (size_t)i * (size_t)w->o->top + (size_t)k;
            if (w->best[at].id < 0) break;
            cli_put_int(c, w->which[i]);
            cli_put_int(c, k + 1);
            put_token(w, w->best[at]);
            put_token(w, w->worst[at]);
            cli_put_text(c, lp_label_text(&w->saes.labels[0], w->which[i]));
        }
    cli_table_end(c);
}

static lp_status effects(job *w, const cli_sae_choice *choice, lp_error *err)
{
    LP_TRY(cli_open(&w->m, NULL, w->c, 0, err));
    LP_TRY(cli_open_saes(&w->saes, w->c, w->m, choice, err));
    LP_TRY(choose(w, err));
    lp_effect kind = w->o->is_gained ? LP_EFFECT_GAINED : LP_EFFECT_PLAIN;
    lp_dense_options o = options_of(w);
    LP_TRY(lp_dense_effects(w->best, w->worst, w->saes.items[0], kind, w->m, &o, &w->c->env, err));
    print_effects(w);
    return LP_OK;
}

lp_status cli_sae_effects(cli *c, const cli_sae_choice *choice, const cli_dense *o, lp_error *err)
{
    job w = {.c = c, .o = o};
    LP_TRY(count_names(c, choice, 1, err));
    lp_status st = effects(&w, choice, err);
    take_down(&w);
    return st;
}
