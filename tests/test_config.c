/* config.json in its spellings, and what is refused. */
#include "core/config.h"

#include "tests/check.h"

static const char plain[] =
    "\"model_type\":\"gemma2\",\"architectures\":[\"Gemma2ForCausalLM\"],\"num_hidden_layers\":3,\"hidden_size\":24,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":10,\"intermediate_size\":48,\"vocab_size\":101";

static int n_warnings;
static void count_warning(void *user, lp_level level, const char *line)
{
    (void)user;
    (void)line;
    n_warnings += level == LP_WARN;
}

static lp_status parse(lp_config *c, const char *base, const char *more, lp_error *err)
{
    char text[8192];
    lp_env env = {.log = count_warning};
    *err = (lp_error){0};
    int n = snprintf(text, sizeof text, "{%s%s%s}", base, *more ? "," : "", more);
    return lp_config_parse(c, text, (size_t)n, &env, err);
}

static void refuses(const char *more, lp_status want, const char *hint)
{
    lp_config c;
    lp_error err;
    CHECK(parse(&c, plain, more, &err) == want);
    if (!strstr(err.text, hint)) fprintf(stderr, "%s -> \"%s\", expected to hold \"%s\"\n", more, err.text, hint);
    CHECK(strstr(err.text, hint) != NULL);
}

static void test_spellings(void)
{
    lp_config c;
    lp_error err;
    CHECK(parse(&c, plain, "", &err) == LP_OK);
    CHECK(c.n_layers == 3 && c.d_model == 24 && c.n_heads == 4 && c.n_kv_heads == 2 && c.head_dim == 10 &&
          c.d_ff == 48);
    CHECK(c.vocab == 101 && c.max_positions == 8192 && c.window == 4096 && c.rope_theta == 10000 && c.rms_eps == 1e-6);
    CHECK(c.attn_softcap == 50 && c.final_softcap == 30 && c.query_pre_attn_scalar == 256 && !c.norms_hold_gain);
    CHECK(c.sliding[0] && !c.sliding[1] && c.sliding[2]); /* even layers slide */
    CHECK(c.bos == -1 && c.eos == -1);
    CHECK(parse(&c, plain, "\"rope_theta\":500.5,\"eos_token_id\":[1,107],\"bos_token_id\":2,\"hidden_act\":\"gelu\"",
                &err) == LP_OK);
    CHECK(c.rope_theta == 500.5 && c.eos == 1 && c.bos == 2);
    CHECK(parse(&c, plain,
                "\"rope_parameters\":{\"rope_theta\":777,\"rope_type\":\"default\"},\"sliding_window\":4,"
                "\"layer_types\":[\"full_attention\",\"full_attention\",\"sliding_attention\"],"
                "\"attn_logit_softcapping\":null,\"final_logit_softcapping\":12.5,\"query_pre_attn_scalar\":144",
                &err) == LP_OK);
    CHECK(c.rope_theta == 777 && c.window == 4 && !c.sliding[0] && !c.sliding[1] && c.sliding[2]);
    CHECK(c.attn_softcap == 0 && c.final_softcap == 12.5 && c.query_pre_attn_scalar == 144);
}

static void test_refusals(void)
{
    lp_config c;
    lp_error err;
    refuses("\"head_dim\":9", LP_E_FORMAT, "config.json"); /* a duplicate key */
    refuses("\"quantization_config\":{\"quant_method\":\"awq\"}", LP_E_UNSUPPORTED, "awq");
    refuses("\"attention_bias\":true", LP_E_UNSUPPORTED, "attention_bias");
    refuses("\"use_bidirectional_attention\":true", LP_E_UNSUPPORTED, "bidirectional");
    refuses("\"hidden_activation\":\"silu\"", LP_E_UNSUPPORTED, "silu");
    refuses("\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4}", LP_E_UNSUPPORTED, "yarn");
    refuses("\"layer_types\":[\"full_attention\"]", LP_E_FORMAT, "layer_types");
    refuses("\"layer_types\":[\"linear\",\"linear\",3]", LP_E_UNSUPPORTED, "linear");
    refuses("\"rope_theta\":\"big\"", LP_E_FORMAT, "rope_theta");
    refuses("\"rope_theta\":-1", LP_E_FORMAT, "rope_theta");
    refuses("\"rms_norm_eps\":0", LP_E_FORMAT, "rms_norm_eps");
    refuses("\"sliding_window\":0", LP_E_FORMAT, "sliding window");
    refuses("\"max_position_embeddings\":99999999999", LP_E_FORMAT, "max_position_embeddings");
    refuses("\"final_logit_softcapping\":-3", LP_E_FORMAT, "soft-caps");
    CHECK(parse(&c, "\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"]", "", &err) == LP_E_UNSUPPORTED);
    CHECK(strstr(err.text, "llama") && strstr(err.text, "LlamaForCausalLM"));
    CHECK(parse(&c, "\"model_type\":\"gemma3\"", "", &err) == LP_E_UNSUPPORTED && strstr(err.text, "gemma3"));
    CHECK(parse(&c, "\"model_type\":\"gemma2\"", "", &err) == LP_E_FORMAT && strstr(err.text, "num_hidden_layers"));
    CHECK(lp_config_parse(&c, "[]", 2, NULL, &err) == LP_E_FORMAT);
    CHECK(lp_config_parse(&c, "{\"a\":", 5, NULL, &err) == LP_E_FORMAT);
    CHECK(lp_config_parse(&c, "", 0, NULL, &err) == LP_E_FORMAT);
}

/* Each of these replaces one number of the plain config. */
static void test_bounds(void)
{
    static const char *const bad[] = {"\"num_hidden_layers\":0",
                                      "\"num_hidden_layers\":257",
                                      "\"hidden_size\":-4",
                                      "\"hidden_size\":1.5",
                                      "\"num_attention_heads\":3",
                                      "\"num_key_value_heads\":0",
                                      "\"head_dim\":7",
                                      "\"vocab_size\":0",
                                      "\"vocab_size\":\"many\"",
                                      "\"intermediate_size\":0",
                                      "\"num_attention_heads\":null"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[4096], key[64];
        const char *colon = strchr(bad[i], ':');
        snprintf(key, sizeof key, "%.*s:", (int)(colon - bad[i]), bad[i]);
        const char *at = strstr(plain, key);
        CHECK(at != NULL);
        if (!at) continue;
        const char *rest = at + strlen(key);
        while (*rest && *rest != ',') rest++;
        snprintf(text, sizeof text, "{%.*s%s%s}", (int)(at - plain), plain, bad[i], rest);
        lp_config c;
        lp_error err = {0};
        CHECK(lp_config_parse(&c, text, strlen(text), NULL, &err) == LP_E_FORMAT && *err.text);
    }
}

static void test_shapes(void)
{
    lp_config c;
    CHECK(lp_config_shape(&c, "2b") && lp_config_parameters(&c) == 2614341888u);
    CHECK(lp_config_shape(&c, "9b") && lp_config_parameters(&c) == 9241705984u);
    CHECK(lp_config_shape(&c, "27b") && lp_config_parameters(&c) == 27227128320u);
    CHECK(c.query_pre_attn_scalar == 144 && !c.sliding[45] && c.sliding[44]);
    CHECK_STR(lp_config_family(&c), "gemma-2-27b");
    CHECK(!lp_config_shape(&c, "3b"));
    lp_error err;
    n_warnings = 0;
    CHECK(parse(&c,
                "\"model_type\":\"gemma2\",\"num_hidden_layers\":42,\"hidden_size\":3584,\"num_attention_heads\":16,"
                "\"num_key_value_heads\":8,\"head_dim\":256,\"intermediate_size\":14336,\"vocab_size\":256000",
                "\"query_pre_attn_scalar\":224", &err) == LP_OK);
    CHECK(n_warnings == 1 && c.query_pre_attn_scalar == 224); /* obeyed, and said */
}

int main(void)
{
    test_spellings();
    test_refusals();
    test_bounds();
    test_shapes();
    return check_done();
}
