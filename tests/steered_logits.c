/* steered_logits.c - a model under a recipe, as numbers, for oracle_exchange.py.
 *
 *     steered_logits MODEL RECIPE|- 2,10,11 [SAE...] > logits
 *
 * The ids are the prompt; logits of every position go out as F32 [n][vocab], in this machine's order.  "-": unsteered.
 */
#include "sae/names.h"
#include "sae/steer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_IDS = 512, MOST_SAES = 64 };

typedef struct job {
    lp_model *m;
    lp_session *s;
    lp_recipe recipe;
    lp_sae *saes[MOST_SAES];
    int n_saes, ids[MOST_IDS], n;
    lp_steer *steer;
    lp_tape tape;
} job;

static lp_status open_all(job *w, char **argv, int argc, lp_error *err)
{
    for (char *s = argv[3]; *s && w->n < MOST_IDS; s += *s == ',') w->ids[w->n++] = (int)strtol(s, &s, 10);
    LP_TRY(lp_model_open(&w->m, argv[1], NULL, NULL, err));
    LP_TRY(lp_session_new(&w->s, w->m, NULL, NULL, err));
    if (strcmp(argv[2], "-") != 0) LP_TRY(lp_recipe_read(&w->recipe, argv[2], err));
    for (int i = 4; i < argc && w->n_saes < MOST_SAES; i++) {
        lp_sae_place place;
        LP_TRY(lp_sae_find(&place, argv[i], NULL, err));
        lp_status st = lp_sae_open(&w->saes[w->n_saes++], place.path, NULL, NULL, err);
        lp_sae_place_clear(&place);
        LP_TRY(st);
    }
    return LP_OK;
}

static lp_status run(job *w, lp_error *err)
{
    lp_steer_context context = {.n_prompt = w->n, .ids = w->ids};
    const lp_sae *const *saes = (const lp_sae *const *)w->saes;
    w->tape = (lp_tape){.n_layers = 1, .n_pos = w->n, .width = w->m->config.vocab};
    if (!(w->tape.x = lp_calloc((size_t)w->n * (size_t)w->tape.width, sizeof *w->tape.x)))
        return lp_fail(err, LP_E_MEMORY, "out of memory");
    LP_TRY(lp_steer_new(&w->steer, w->s, &w->recipe, saes, w->n_saes, &context, err));
    int handle = lp_session_hook(w->s, lp_tap(LP_LOGITS, LP_WHOLE_MODEL, &w->tape), err);
    if (handle < 0) return (lp_status)handle;
    return lp_steer_explain(w->steer, lp_session_eval(w->s, w->ids, (size_t)w->n, err), err);
}

int main(int argc, char **argv)
{
    if (argc < 4) return fprintf(stderr, "usage: steered_logits MODEL RECIPE|- IDS [SAE...] > logits\n"), 2;
    job w = {.m = NULL};
    lp_error err = {0};
    lp_status st = open_all(&w, argv, argc, &err);
    if (st == LP_OK) st = run(&w, &err);
    if (st == LP_OK) fwrite(w.tape.x, sizeof *w.tape.x, (size_t)w.n * (size_t)w.tape.width, stdout);
    if (st != LP_OK) fprintf(stderr, "steered_logits: %s\n", err.text);
    lp_steer_free(w.steer);
    for (int i = 0; i < w.n_saes; i++) lp_sae_close(w.saes[i]);
    lp_recipe_clear(&w.recipe);
    lp_session_free(w.s);
    lp_model_close(w.m);
    free(w.tape.x);
    return st != LP_OK || fflush(stdout) != 0;
}
