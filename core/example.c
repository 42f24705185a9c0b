/* example.c - the engine in forty lines: open a model, hook a layer, evaluate a prompt, read the tape.
 *
 *     build/example google/gemma-2-2b "The Colosseum is in the city of"
 *
 * Prints, for every token of the prompt, its id, its text and the length of the residual stream after the middle layer;
 * then the model's first guess for the next token.
 */
#include "core/session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int best(const float *x, int n)
{
    int top = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[top]) top = i;
    return top;
}

int main(int argc, char **argv)
{
    if (argc != 3) return fprintf(stderr, "usage: example MODEL TEXT\n"), 2;
    lp_error err = {0};
    lp_model *model = NULL;
    lp_session *s = NULL;
    lp_tokens t = {0};
    lp_tape tape = {.n_layers = 1};

    if (lp_model_open(&model, argv[1], NULL, NULL, &err) != LP_OK) goto out;
    if (!model->tokenizer) goto out;
    if (lp_tokens_push(&t, lp_tokenizer_bos(model->tokenizer), (lp_span){0, 0}, &err) != LP_OK) goto out;
    if (lp_tokenizer_encode(model->tokenizer, argv[2], strlen(argv[2]), LP_SPECIALS_LITERAL, &t, &err) != LP_OK)
        goto out;
    if (lp_session_new(&s, model, NULL, NULL, &err) != LP_OK) goto out;

    int layer = model->config.n_layers / 2;
    tape.n_pos = (int)t.n;
    tape.width = model->config.d_model;
    if (!(tape.x = lp_calloc(t.n * (size_t)tape.width, sizeof *tape.x))) goto out;
    if (lp_session_hook(s, lp_tap(LP_RESID_POST, layer, &tape), &err) < 0) goto out;
    if (lp_session_eval(s, t.ids, t.n, &err) != LP_OK) goto out;

    for (size_t i = 0; i < t.n; i++) {
        double sum = 0;
        for (int j = 0; j < tape.width; j++) sum += pow((double)tape.x[i * (size_t)tape.width + (size_t)j], 2);
        printf("%d\t%s\t%.3f\n", t.ids[i], lp_tokenizer_piece(model->tokenizer, t.ids[i], NULL), sqrt(sum));
    }
    int next = best(lp_session_logits(s), model->config.vocab);
    printf("next: %s\n", lp_tokenizer_piece(model->tokenizer, next, NULL));
out:
    if (err.status < 0) fprintf(stderr, "example: %s\n", err.text);
    free(tape.x);
    lp_tokens_free(&t);
    lp_session_free(s);
    lp_model_close(model);
    return err.status < 0;
}
