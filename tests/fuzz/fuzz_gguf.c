/* fuzz_gguf.c - bytes as a .gguf file: refused, or a list whose every tensor can be read and metadata that can be asked. */
#define _GNU_SOURCE /* memfd_create */
#include "core/gguf.h"
#include "core/quant.h"

#include "tests/fuzz/memfile.h"

#include <string.h>

static void ask(const lp_gguf *g, const char *key)
{
    int64_t i;
    double d;
    bool b;
    const char *s;
    size_t n = 0, len = 0, sum = 0;
    lp_gguf_type type = LP_GGUF_U8;
    int kinds = lp_gguf_int(g, key, &i) + lp_gguf_float(g, key, &d) + lp_gguf_bool(g, key, &b) +
                lp_gguf_string(g, key, &s, &len) + lp_gguf_array(g, key, &type, &n);
    insist(kinds <= lp_gguf_has(g, key)); /* u64 may be too large for any */
    for (size_t k = 0; k < len; k++) sum += (uint8_t)s[k];
    for (size_t at = 0; at < n && at < 1000; at++) {
        insist(lp_gguf_array_string(g, key, at, &s, &len) == (type == LP_GGUF_STRING));
        for (size_t k = 0; type == LP_GGUF_STRING && k < len; k++) sum += (uint8_t)s[k];
        insist(lp_gguf_array_float(g, key, at, &d) == (type == LP_GGUF_F32 || type == LP_GGUF_F64));
        lp_gguf_array_int(g, key, at, &i);
    }
    insist(!n || !lp_gguf_array_int(g, key, n, &i));
    insist(sum < SIZE_MAX);
}

static void read_all(const lp_tensors *t)
{
    static uint8_t raw[1 << 16];
    static float values[1 << 16];
    for (size_t i = 0; i < t->n; i++) {
        const lp_tensor *x = &t->items[i];
        uint64_t count = 1, bytes;
        for (int k = 0; k < x->n_dims; k++) count *= (uint64_t)x->shape[k];
        insist(x->type == LP_OTHER || (lp_dtype_bytes(x->type, count, &bytes) && bytes == x->bytes));
        insist(lp_tensors_find(t, x->name) == x && x->type_name && strlen(x->name) > 0);
        if (x->bytes > sizeof raw || count > sizeof values / sizeof *values) continue;
        insist(lp_tensors_read(t, x, 0, raw, (size_t)x->bytes, NULL) == LP_OK);
        if (x->type != LP_OTHER) lp_to_f32(x->type, raw, values, (size_t)count);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const keys[] = {"a",
                                       "general.architecture",
                                       "general.alignment",
                                       "tokenizer.ggml.tokens",
                                       "t.u64",
                                       "tokenizer.ggml.scores",
                                       "a.string",
                                       "a.bool",
                                       "a.f64",
                                       "split.count",
                                       "",
                                       "t.string"};
    lp_gguf *g = NULL;
    lp_error err = {.text = ""};
    lp_status st = lp_gguf_open(&g, memfile(data, n), &err);
    insist((st == LP_OK) == (g != NULL) && (st == LP_OK || (err.text[0] && err.status == st)));
    if (!g) return 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) ask(g, keys[i]);
    read_all(lp_gguf_tensors(g));
    lp_gguf_close(g);
    return 0;
}
