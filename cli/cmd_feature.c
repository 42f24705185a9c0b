/* cmd_feature.c - `lapidary feature`: everything the weights and the labels say about one feature.
 *
 *     lapidary feature 3-lapidary-res-2k 473
 *     lapidary feature -m google/gemma-2-2b gemma-2-2b/20-gemmascope-res-16k/12082
 *
 * A table of rows (what, rank, id, name, value), so that one grep finds its part.
 */
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/saes.h"
#include "sae/analyse.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 1000 };

typedef struct job {
    cli *c;
    cli_sae_choice choice;
    int feature, top;
    lp_model *m;
    cli_saes saes; /* the feature's own first, then the others to look for neighbours in */
    float *direction, *effect;
    lp_scored *best;
} job;

/* ---- which feature ---------------------------------------------------------------------------------------------- */

static lp_status parse_feature(job *w, const char *text, lp_error *err)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (errno || end == text || *end || v < 0 || v > INT_MAX)
        return cli_usage(w->c, err, "feature \"%.40s\": a number from 0 on expected", text);
    w->feature = (int)v;
    return LP_OK;
}

/* NAME INDEX, or Neuronpedia's NAME/INDEX. */
static lp_status take_operands(job *w, lp_error *err)
{
    cli *c = w->c;
    LP_TRY(cli_count_operands(c, 1, 2, err));
    cli_texts others = w->choice.names;
    w->choice.names = (cli_texts){.items = {c->operands[0]}, .n = 1};
    lp_sae_place *place = NULL;
    size_t n = 0;
    LP_TRY(cli_find_saes(&place, &n, c, &w->choice, err));
    long behind = place[0].feature;
    lp_sae_list_free(place, n);
    for (int i = 0; i < others.n && w->choice.names.n < CLI_MAX_TEXTS; i++)
        w->choice.names.items[w->choice.names.n++] = others.items[i];
    if (c->n_operands == 2) return parse_feature(w, c->operands[1], err);
    if (behind < 0 || behind > INT_MAX) return cli_usage(c, err, "which feature?  %s 473", c->operands[0]);
    w->feature = (int)behind;
    return LP_OK;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static void row(const job *w, const char *what, int rank, int id, const char *name, size_t n, double value)
{
    cli *c = w->c;
    cli_put_text(c, what);
    if (rank)
        cli_put_int(c, rank);
    else
        cli_put_none(c);
    if (id >= 0)
        cli_put_int(c, id);
    else
        cli_put_none(c);
    if (name)
        cli_put_bytes(c, name, n);
    else
        cli_put_none(c);
    cli_put_real(c, value, 5);
}

static void print_own(const job *w)
{
    const lp_sae *s = w->saes.items[0];
    const lp_labels *l = &w->saes.labels[0];
    const char *label = lp_label_text(l, w->feature), *kind = label ? l->items[w->feature].kind : NULL;
    row(w, "sae", 0, w->feature, s->name, strlen(s->name), (double)s->d_sae);
    if (label) row(w, kind ? kind : "label", 0, w->feature, label, strlen(label), NAN);
    if (lp_label_max(l, w->feature) > 0) row(w, "max_act", 0, -1, NULL, 0, (double)lp_label_max(l, w->feature));
    if (l->items && isfinite(l->items[w->feature].share))
        row(w, "density", 0, -1, NULL, 0, (double)l->items[w->feature].share);
    row(w, "decoder_norm", 0, -1, NULL, 0, (double)s->dec_norm[w->feature]);
    if (s->threshold) row(w, "threshold", 0, -1, NULL, 0, (double)s->threshold[w->feature]);
    row(w, "b_enc", 0, -1, NULL, 0, (double)s->b_enc[w->feature]);
}

static void print_tokens(const job *w, const char *what, int sign)
{
    int V = w->m->config.vocab, n = w->top < V ? w->top : V;
    for (int i = 0; i < V; i++) w->effect[i] *= (float)sign;
    n = lp_top_k(w->best, n, w->effect, V);
    for (int i = 0; i < n; i++) {
        size_t len;
        const char *piece = cli_piece(w->m, w->best[i].id, &len);
        row(w, what, i + 1, w->best[i].id, piece, len, (double)(w->best[i].score * (float)sign));
    }
    for (int i = 0; i < V; i++) w->effect[i] *= (float)sign;
}

static lp_status print_effects(const job *w, lp_error *err)
{
    static const char *const names[][2] = {{"promotes", "suppresses"}, {"promotes_gained", "suppresses_gained"}};
    for (int kind = 0; kind < 2; kind++) {
        lp_effect e = kind ? LP_EFFECT_GAINED : LP_EFFECT_PLAIN;
        LP_TRY(lp_logit_effect(w->effect, w->direction, e, w->m, &w->c->env, err));
        print_tokens(w, names[kind][0], 1);
        print_tokens(w, names[kind][1], -1);
    }
    return LP_OK;
}

static void print_nearest(const job *w, int which)
{
    const lp_sae *own = w->saes.items[0], *s = w->saes.items[which];
    if (s->d_out != own->d_out) return;
    float *v = lp_calloc((size_t)own->d_out, sizeof *v);
    if (!v) return;
    lp_sae_decoder_row(own, w->feature, v);
    int n = lp_feature_nearest(w->best, w->top, s, v, which == 0 ? w->feature : -1);
    for (int i = 0; i < n; i++) {
        const char *label = lp_label_text(&w->saes.labels[which], w->best[i].id);
        char *name = lp_format("%s%s%s", s->name, label ? ": " : "", label ? label : "");
        row(w, "near", i + 1, w->best[i].id, name, name ? strlen(name) : 0, (double)w->best[i].score);
        free(name);
    }
    free(v);
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static lp_status set_up(job *w, lp_error *err)
{
    LP_TRY(cli_open(&w->m, NULL, w->c, 0, err));
    LP_TRY(cli_open_saes(&w->saes, w->c, w->m, &w->choice, err));
    size_t V = (size_t)w->m->config.vocab, D = (size_t)w->m->config.d_model;
    w->direction = lp_calloc(D, sizeof *w->direction);
    w->effect = lp_calloc(V, sizeof *w->effect);
    w->best = lp_calloc((size_t)w->top + 1, sizeof *w->best);
    if (!w->direction || !w->effect || !w->best) return lp_fail(err, LP_E_MEMORY, "out of memory");
    return lp_feature_direction(w->direction, w->saes.items[0], w->feature, w->m, &w->c->env, err);
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    job w = {.c = c, .top = 10};
    const cli_option options[] = {
        CLI_SAE_OPTIONS(w.choice),
        {"top", 'k', CLI_INT, &w.top, "K", "tokens and neighbours shown of each kind (default 10)", .min = 1,
         .max = MOST},
        {0},
    };
    LP_TRY(cli_parse(c, options, argc, argv, err));
    LP_TRY(take_operands(&w, err));
    lp_status st = set_up(&w, err);
    if (st == LP_OK) {
        cli_table_begin(c, "what\trank\tid\tname\tvalue");
        print_own(&w);
        st = print_effects(&w, err);
        for (int i = 0; i < w.saes.n && st == LP_OK; i++) print_nearest(&w, i);
        cli_table_end(c);
    }
    free(w.direction);
    free(w.effect);
    free(w.best);
    cli_close_saes(&w.saes);
    lp_model_close(w.m);
    return st;
}

const cli_command cmd_feature = {
    .name = "feature",
    .summary = "one SAE feature: its label, the tokens it promotes, its neighbours",
    .operands = "SAE INDEX",
    .about =
        "Rows of what the labels and the weights say: label, largest activation and density where an export has them;\n"
        "tokens promoted and suppressed by the decoder's direction, without the final norm's gain as Neuronpedia "
        "lists\n"
        "them, and with it (_gained) as the logit lens has them; the features nearest by cosine of decoder rows, in "
        "the\n"
        "same SAE and in those named with --sae.",
    .run = run,
};
