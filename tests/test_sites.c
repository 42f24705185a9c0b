/* Every spelling of every site leads back to it; strangers are refused with a hint. */
#include "core/hooks.h"

#include "tests/check.h"

static void parses(const char *name, lp_site want_site, int want_layer)
{
    lp_site site = LP_N_SITES;
    int layer = -99;
    lp_error err = {0};
    CHECK(lp_site_parse(name, &site, &layer, &err) == LP_OK);
    if (site != want_site || layer != want_layer)
        fprintf(stderr, "%s: site %d layer %d; %s\n", name, (int)site, layer, err.text);
    CHECK(site == want_site && layer == want_layer);
}

static void refuses(const char *name, lp_status want, const char *hint)
{
    lp_site site;
    int layer;
    lp_error err = {0};
    CHECK(lp_site_parse(name, &site, &layer, &err) == want);
    CHECK(strstr(err.text, hint) != NULL);
}

int main(void)
{
    for (int i = 0; i < LP_N_SITES; i++) {
        lp_site s = (lp_site)i;
        char name[128], tensor[128];
        bool layered = lp_site_has_layer(s);
        parses(lp_site_name(s), s, layered ? LP_EVERY_LAYER : LP_WHOLE_MODEL);
        parses(lp_site_tensor_name(tensor, sizeof tensor, s, 7), s, layered ? 7 : LP_WHOLE_MODEL);
        if (layered) {
            snprintf(name, sizeof name, "%s.20", lp_site_name(s));
            parses(name, s, 20);
        }
        if (lp_site_lens_name(s)) parses(lp_site_lens_name(s), s, layered ? LP_EVERY_LAYER : LP_WHOLE_MODEL);
        if (lp_site_hf_name(s) && layered && strcmp(lp_site_hf_name(s), "output") != 0) {
            snprintf(name, sizeof name, "model.layers.11.%s", lp_site_hf_name(s));
            parses(name, s, 11);
        } else if (lp_site_hf_name(s) && !layered) {
            parses(lp_site_hf_name(s), s, LP_WHOLE_MODEL);
        }
        CHECK(lp_site_about(s) && *lp_site_about(s));
    }
    parses("blocks.20.hook_resid_post", LP_RESID_POST, 20);
    parses("blocks.0.attn.hook_z", LP_Z, 0);
    parses("blocks.5.attn.hook_out", LP_ATTN_RAW, 5);
    parses("blocks.5.mlp.hook_out", LP_MLP_RAW, 5);
    parses("model.layers.3", LP_RESID_POST, 3);
    parses("model.layers.3.mlp.down_proj", LP_MLP_RAW, 3);
    parses("model.layers.3.mlp.down_proj.input", LP_MLP_ACT, 3);
    parses("model.layers.3.mlp.output", LP_MLP_RAW, 3);
    parses("model.layers.3.input", LP_RESID_PRE, 3);
    refuses("resid_pst", LP_E_NOT_FOUND, "resid_post");
    refuses("blocks.x.hook_z", LP_E_NOT_FOUND, "no site");
    refuses("blocks.999999999999.hook_z", LP_E_NOT_FOUND, "no site");
    refuses("logits.3", LP_E_RANGE, "no layers");
    refuses("", LP_E_NOT_FOUND, "no site");
    char big[5000];
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = 0;
    refuses(big, LP_E_NOT_FOUND, "no site");
    return check_done();
}
