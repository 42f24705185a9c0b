/* answer.c - see answer.h. */
#include "cli/answer.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- options ----------------------------------------------------------------------------------------------- */

static lp_status parse_id(int *id, cli *c, const char *option, const char *text, const char **rest, int vocab,
                          lp_error *err)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (end == text || errno) return cli_usage(c, err, "--%s \"%.60s\": a token id expected", option, text);
    if (v < 0 || v >= vocab)
        return lp_fail(err, LP_E_RANGE, "--%s \"%.60s\": token ids go from 0 to %d", option, text, vocab - 1);
    *id = (int)v;
    *rest = end;
    return LP_OK;
}

static lp_status parse_bias(lp_bias *b, cli *c, const char *text, int vocab, lp_error *err)
{
    const char *rest;
    char *end;
    LP_TRY(parse_id(&b->id, c, "bias", text, &rest, vocab, err));
    b->add = strtof(rest + (*rest == '='), &end);
    if (*rest != '=' || end == rest + 1 || *end || !(b->add < INFINITY))
        return cli_usage(c, err, "--bias \"%.60s\": ID=NUMBER expected, 108=-2.5 or 108=-inf", text);
    return LP_OK;
}

static void apply_preset(lp_sample_options *o, const cli_sampling *s)
{
    if (s->preset == 1) *o = lp_sample_gemma();
    if (s->preset == 2) *o = lp_sample_llama();
    if (s->given.temperature) o->temperature = s->temperature;
    if (s->given.top_k) o->top_k = s->top_k;
    if (s->given.top_p) o->top_p = s->top_p;
    if (s->given.min_p) o->min_p = s->min_p;
    if (s->given.repetition) o->repetition = s->repetition;
    if (s->given.window) o->penalty_window = s->window;
    if (s->given.order) o->order = s->order ? LP_ORDER_LLAMA : LP_ORDER_HF;
    o->presence = s->presence;
    o->frequency = s->frequency;
    o->seed = s->seed;
}

lp_status cli_read_sampling(cli_answer *out, cli *c, const cli_sampling *s, int vocab, lp_error *err)
{
    *out = (cli_answer){0};
    apply_preset(&out->sample, s);
    const char *rest;
    for (int i = 0; i < s->bias.n; i++) LP_TRY(parse_bias(&out->bias[i], c, s->bias.items[i], vocab, err));
    for (int i = 0; i < s->stop_ids.n; i++) {
        LP_TRY(parse_id(&out->stop_ids[i], c, "stop-id", s->stop_ids.items[i], &rest, vocab, err));
        if (*rest) return cli_usage(c, err, "--stop-id \"%.60s\": a token id expected", s->stop_ids.items[i]);
    }
    for (int i = 0; i < s->stop.n; i++)
        if (!s->stop.items[i][0]) return cli_usage(c, err, "--stop \"\": an empty text would stop at once");
    bool has_cut = s->given.top_k || s->given.top_p || s->given.min_p;
    if (out->sample.temperature == 0 && has_cut && !s->given.temperature)
        return cli_usage(c, err, "--top-k, --top-p and --min-p do nothing in greedy decoding; add --temperature");
    out->sample.bias = out->bias;
    out->sample.n_bias = s->bias.n;
    out->generate = (lp_generate_options){.max_tokens = s->max_tokens,
                                          .stop = s->stop.items,
                                          .n_stop = s->stop.n,
                                          .stop_ids = out->stop_ids,
                                          .n_stop_ids = s->stop_ids.n,
                                          .ignore_eos = s->ignores_end,
                                          .show_specials = s->shows_specials};
    return LP_OK;
}

json_t *cli_sampling_json(const cli_answer *a)
{
    const lp_sample_options *o = &a->sample;
    json_t *j = json_object();
    int bad = !j;
    bad |= json_object_set_new(j, "temperature", cli_json_real(o->temperature));
    bad |= json_object_set_new(j, "top_k", json_integer(o->top_k));
    bad |= json_object_set_new(j, "top_p", cli_json_real(o->top_p > 0 ? o->top_p : 1));
    bad |= json_object_set_new(j, "min_p", cli_json_real(o->min_p));
    bad |= json_object_set_new(j, "repetition", cli_json_real(o->repetition > 0 ? o->repetition : 1));
    bad |= json_object_set_new(j, "presence", cli_json_real(o->presence));
    bad |= json_object_set_new(j, "frequency", cli_json_real(o->frequency));
    bad |= json_object_set_new(j, "penalty_window", json_integer(o->penalty_window));
    bad |= json_object_set_new(j, "order", json_string(o->order == LP_ORDER_LLAMA ? "llama.cpp" : "hf"));
    if (!bad) return j;
    json_decref(j);
    return NULL;
}

json_t *cli_seed_json(uint64_t seed)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)seed);
    return json_string(text);
}

/* ---- text -------------------------------------------------------------------------------------------------- */

/* Bytes at s (n left, valid UTF-8) that steer a terminal: C0 but newline and tab, DEL, C1 (U+0080..9F); 0: none. */
static size_t control_at(const unsigned char *s, size_t n)
{
    if ((s[0] < 0x20 && s[0] != '\n' && s[0] != '\t') || s[0] == 0x7f) return 1;
    return n > 1 && s[0] == 0xc2 && s[1] < 0xa0 ? 2 : 0;
}

lp_status cli_say(const char *text, size_t n, lp_error *err)
{
    const unsigned char *s = (const unsigned char *)text;
    bool is_tame = isatty(STDOUT_FILENO) != 1;
    for (size_t i = 0; i < n;) {
        size_t k = is_tame ? 0 : control_at(s + i, n - i);
        putchar(k ? '?' : s[i]);
        i += k ? k : 1;
    }
    return cli_flush(err);
}
