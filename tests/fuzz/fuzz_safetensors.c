/* fuzz_safetensors.c - bytes as a .safetensors file, and as the header of one (few mutations keep its length right).
 *
 * Refused, or tensors that tile the file and can be read.
 */
#define _GNU_SOURCE /* memfd_create */
#include "core/quant.h"
#include "core/safetensors.h"

#include "tests/fuzz/memfile.h"

#include <string.h>

static void open_as_file(const uint8_t *data, size_t n)
{
    static uint8_t raw[1 << 16];
    lp_tensors t = {0};
    lp_error err = {.text = ""};
    lp_status st = lp_safetensors_open(&t, memfile(data, n), NULL, &err);
    insist(st == LP_OK || (err.text[0] && err.status == st && !t.items && !t.files));
    uint64_t sum = 0, first = n;
    for (size_t i = 0; i < t.n; i++) {
        const lp_tensor *x = &t.items[i];
        uint64_t count = 1, bytes;
        for (int k = 0; k < x->n_dims; k++) count *= (uint64_t)x->shape[k];
        insist(x->type == LP_OTHER || (lp_dtype_bytes(x->type, count, &bytes) && bytes == x->bytes));
        insist(lp_tensors_find(&t, x->name) == x && x->type_name);
        insist(lp_tensors_read(&t, x, 0, raw, x->bytes < sizeof raw ? (size_t)x->bytes : sizeof raw, NULL) == LP_OK);
        sum += x->bytes;
        if (x->at < first) first = x->at;
    }
    insist(!t.n || first + sum == n);
    lp_tensors_clear(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    enum { DATA = 64 };
    open_as_file(data, n);
    uint8_t *file = calloc(1, 8 + n + DATA);
    insist(file != NULL);
    for (int i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)n >> 8 * i);
    if (n) memcpy(file + 8, data, n);
    open_as_file(file, 8 + n);
    open_as_file(file, 8 + n + DATA);
    free(file);
    return 0;
}
