/* fuzz_config.c - config.json made of arbitrary bytes: refused in one line, or a config whose numbers are sane. */
#include "core/config.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lp_config c;
    lp_error err = {0};
    lp_status st = lp_config_parse(&c, (const char *)data, size, NULL, &err);
    if (st != LP_OK) {
        if (st > 0 || !err.text[0]) abort(); /* every refusal says why */
        return 0;
    }
    if (c.n_layers < 1 || c.n_layers > LP_MAX_LAYERS || c.n_heads % c.n_kv_heads || c.head_dim % 2 || c.window < 1)
        abort();
    if (!(c.rope_theta > 1) || !(c.rms_eps > 0) || !(c.attn_softcap >= 0) || !(c.final_softcap >= 0)) abort();
    if (!lp_config_parameters(&c) || !*lp_config_family(&c)) abort();
    return 0;
}
