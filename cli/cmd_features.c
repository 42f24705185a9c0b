/* cmd_features.c - `lapidary features`: what the SAEs see in a text, token by token.
 *
 * The prompt, and with --max-tokens what the model goes on to say, pass the SAEs as they are computed (sae/reader.h).
 * <bos> is encoded like any token, but its features mean nothing: it is left out unless asked for.
 */
#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/saes.h"
#include "sae/reader.h"

#include <stdlib.h>
#include <string.h>

typedef struct job {
    cli *c;
    cli_scene scene;
    cli_sampling sampling;
    int top, by;
    double least;
    bool shows_bos;
    lp_reader *reader;
    const int *ids; /* [n] all tokens */
    int n;
} job;

/* One active feature. */
typedef struct hit {
    int pos, sae, index;
    float value;
} hit;

typedef struct hits {
    hit *items;
    size_t n, capacity;
} hits;

/* ---- choosing -------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    const hit *x = a, *y = b;
    if (x->value != y->value) return x->value < y->value ? 1 : -1;
    if (x->sae != y->sae) return x->sae < y->sae ? -1 : 1;
    if (x->index != y->index) return x->index < y->index ? -1 : 1;
    return x->pos < y->pos ? -1 : 1;
}

static lp_status push(hits *h, hit x, lp_error *err)
{
    if (!lp_grow((void **)&h->items, &h->capacity, h->n + 1, sizeof *h->items))
        return lp_fail(err, LP_E_MEMORY, "no memory for %zu features", h->n);
    h->items[h->n++] = x;
    return LP_OK;
}

static bool is_left_out(const job *w, int pos)
{
    return !w->shows_bos && w->ids[pos] == w->scene.m->config.bos;
}

/* The features of one SAE at one position that are strong enough, added to *h. */
static lp_status add_position(hits *h, const job *w, int sae, int pos, lp_error *err)
{
    const lp_features *f = lp_reader_features(w->reader, sae);
    if (pos >= f->n_rows || is_left_out(w, pos)) return LP_OK;
    for (size_t at = f->start[pos]; at < f->start[pos + 1]; at++)
        if ((double)f->value[at] >= w->least) LP_TRY(push(h, (hit){pos, sae, f->index[at], f->value[at]}, err));
    return LP_OK;
}

/* Sorts what was added from `from` on and keeps the --top best of it. */
static void keep_best(hits *h, const job *w, size_t from)
{
    if (h->n > from) qsort(h->items + from, h->n - from, sizeof *h->items, by_value);
    if (w->top && h->n - from > (size_t)w->top) h->n = from + (size_t)w->top;
}

/* For every token and SAE, its best. */
static lp_status by_token(hits *h, const job *w, lp_error *err)
{
    for (int pos = 0; pos < w->n; pos++)
        for (int sae = 0; sae < w->scene.saes.n; sae++) {
            size_t from = h->n;
            LP_TRY(add_position(h, w, sae, pos, err));
            keep_best(h, w, from);
        }
    return LP_OK;
}

/* For every SAE, the features that reach highest anywhere in the text, each once, at its strongest place. */
static lp_status by_text(hits *h, const job *w, lp_error *err)
{
    for (int sae = 0; sae < w->scene.saes.n; sae++) {
        size_t from = h->n, kept = h->n;
        for (int pos = 0; pos < w->n; pos++) LP_TRY(add_position(h, w, sae, pos, err));
        if (h->n > from) qsort(h->items + from, h->n - from, sizeof *h->items, by_value);
        uint8_t *seen = lp_calloc((size_t)w->scene.saes.items[sae]->d_sae, 1);
        if (!seen) return lp_fail(err, LP_E_MEMORY, "out of memory");
        for (size_t i = from; i < h->n; i++)
            if (!seen[h->items[i].index]) seen[h->items[i].index] = 1, h->items[kept++] = h->items[i];
        free(seen);
        h->n = kept;
        keep_best(h, w, from);
    }
    return LP_OK;
}

/* ---- printing -------------------------------------------------------------------------------------------------- */

static void print_table(const job *w, const hits *h)
{
    cli *c = w->c;
    cli_table_begin(c, "pos\tid\tpiece\tlayer\tsite\tsae\tindex\tactivation\tlabel");
    for (size_t i = 0; i < h->n; i++) {
        const hit *x = &h->items[i];
        const lp_sae *s = w->scene.saes.items[x->sae];
        size_t n;
        const char *piece = cli_piece(w->scene.m, w->ids[x->pos], &n);
        cli_put_int(c, x->pos);
        cli_put_int(c, w->ids[x->pos]);
        cli_put_bytes(c, piece, n);
        cli_put_layer(c, &s->spot);
        cli_put_text(c, cli_sae_site(s));
        cli_put_text(c, s->name);
        cli_put_int(c, x->index);
        cli_put_real(c, (double)x->value, 6);
        cli_put_text(c, lp_label_text(&w->scene.saes.labels[x->sae], x->index));
    }
    cli_table_end(c);
}

static int add_token(json_t *list, const job *w, int pos)
{
    size_t n;
    const char *piece = cli_piece(w->scene.m, w->ids[pos], &n);
    char *text = NULL;
    size_t len = 0;
    if (w->scene.m->tokenizer) lp_tokenizer_decode(w->scene.m->tokenizer, &w->ids[pos], 1, 1, &text, &len, NULL);
    json_t *j = json_object();
    int bad = !j;
    bad |= json_object_set_new(j, "pos", json_integer(pos));
    bad |= json_object_set_new(j, "id", json_integer(w->ids[pos]));
    bad |= json_object_set_new(j, "piece", cli_json_text(piece, n));
    bad |= json_object_set_new(j, "text", cli_json_text(text ? text : "", len));
    free(text);
    return bad | json_array_append_new(list, j);
}

static int add_hit(json_t *list, const job *w, const hit *x)
{
    const lp_sae *s = w->scene.saes.items[x->sae];
    const char *label = lp_label_text(&w->scene.saes.labels[x->sae], x->index);
    json_t *j = json_object();
    int bad = !j;
    bad |= json_object_set_new(j, "pos", json_integer(x->pos));
    bad |= json_object_set_new(j, "layer", cli_layer_json(s->spot.site, s->spot.layer));
    bad |= json_object_set_new(j, "site", json_string(cli_sae_site(s)));
    bad |= json_object_set_new(j, "sae", cli_json_text(s->name, strlen(s->name)));
    bad |= json_object_set_new(j, "index", json_integer(x->index));
    bad |= json_object_set_new(j, "activation", cli_json_real((double)x->value));
    bad |= json_object_set_new(j, "label", label ? cli_json_text(label, strlen(label)) : json_null());
    return bad | json_array_append_new(list, j);
}

static lp_status print_json(const job *w, const lp_session *s, const hits *h, lp_error *err)
{
    json_t *j = cli_provenance(w->c, s), *tokens = json_array(), *features = json_array();
    int bad = !j || !tokens || !features;
    for (int i = 0; i < w->n; i++) bad |= add_token(tokens, w, i);
    for (size_t i = 0; i < h->n; i++) bad |= add_hit(features, w, &h->items[i]);
    bad |= json_object_set_new(j, "saes", cli_saes_json(&w->scene.saes));
    bad |= json_object_set_new(j, "tokens", tokens);
    bad |= json_object_set_new(j, "features", features);
    if (bad) {
        json_decref(j);
        j = NULL;
    }
    return cli_print_json(j, err);
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

static lp_status go_on(job *w, lp_session *s, const cli_answer *a, lp_error *err)
{
    lp_sampler *sampler = NULL;
    lp_generation g = {0};
    LP_TRY(lp_sampler_new(&sampler, w->scene.m->config.vocab, &a->sample, err));
    lp_status st = lp_generate(&g, s, sampler, &a->generate, err);
    st = lp_reader_explain(w->reader, st, err);
    lp_generation_free(&g);
    lp_sampler_free(sampler);
    return st;
}

static lp_status report(job *w, const lp_session *s, lp_error *err)
{
    hits h = {0};
    w->ids = lp_session_tokens(s);
    w->n = lp_session_pos(s);
    lp_status st = w->by ? by_text(&h, w, err) : by_token(&h, w, err);
    if (st == LP_OK && w->c->json)
        st = print_json(w, s, &h, err);
    else if (st == LP_OK)
        print_table(w, &h);
    free(h.items);
    return st;
}

static lp_status work(job *w, lp_error *err)
{
    cli_answer answer;
    cli_scene *x = &w->scene;
    LP_TRY(cli_open_scene(x, w->c, err));
    LP_TRY(cli_read_sampling(&answer, w->c, &w->sampling, x->m->config.vocab, err));
    LP_TRY(cli_fill_scene(x, w->c, err));
    LP_TRY(lp_reader_new(&w->reader, x->s, (const lp_sae *const *)x->saes.items, x->saes.n, NULL, err));
    LP_TRY(lp_reader_explain(w->reader, lp_session_eval(x->s, x->tokens.ids, x->tokens.n, err), err));
    if (w->sampling.max_tokens >= 0) LP_TRY(go_on(w, x->s, &answer, err));
    return report(w, x->s, err);
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    job w = {.c = c, .top = 10, .sampling = {.max_tokens = -1}};
    const cli_option options[] = {
        CLI_PROMPT_OPTIONS(w.scene.prompt),
        CLI_SAE_OPTIONS(w.scene.choice),
        {"top", 'k', CLI_INT, &w.top, "K", "features of each SAE and token (default 10); 0: all that fire",
         .max = 1 << 20},
        {"by", 0, CLI_CHOICE, &w.by, "token|text", "the best of every token (default), or of the whole text"},
        {"least", 0, CLI_REAL, &w.least, "X", "leave out activations below X", .max = 1e9},
        {"bos", 0, CLI_FLAG, &w.shows_bos, NULL, "show <bos> too; SAEs were not trained on it"},
        CLI_SAMPLING_OPTIONS(w.sampling),
        {0},
    };
    LP_TRY(cli_parse(c, options, argc, argv, err));
    lp_status st = work(&w, err);
    lp_reader_free(w.reader);
    cli_close_scene(&w.scene);
    return st;
}

const cli_command cmd_features = {
    .name = "features",
    .summary = "the SAE features of a text, token by token",
    .operands = "[PROMPT]",
    .about =
        "Runs the prompt (and with --max-tokens what the model goes on to say) past sparse autoencoders and lists the\n"
        "strongest features of each token: position, token, layer and site, feature, activation, and what the feature\n"
        "is called where somebody has named it.",
    .run = run,
};
