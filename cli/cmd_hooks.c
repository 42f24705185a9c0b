/* cmd_hooks.c - `lapidary hooks`: every site, its names in three dialects, the shape of a row, and what to beware of.
 */
#include "cli/commands.h"
#include "core/trace.h"

#include <stdio.h>

/* "[n, H, E]": lp_site_shape of a model whose axes measure letters. */
static void put_shape(cli *c, lp_site site)
{
    const lp_config letters = {
        .d_model = 'D', .n_heads = 'H', .n_kv_heads = 'G', .head_dim = 'E', .d_ff = 'F', .vocab = 'V'};
    char text[16];
    int heads, width;
    lp_site_shape(&letters, site, 'K', &heads, &width);
    if (width == 1) width = '1';
    if (heads)
        snprintf(text, sizeof text, "[n, %c, %c]", heads, width);
    else
        snprintf(text, sizeof text, "[n, %c]", width);
    cli_put_text(c, text);
}

/* A name with its path in front: {l} stands for the layer. */
static void put_path(cli *c, const char *prefix, bool has_prefix, const char *name)
{
    char buf[128];
    if (!name) {
        cli_put_none(c);
        return;
    }
    snprintf(buf, sizeof buf, "%s%s", has_prefix ? prefix : "", name);
    cli_put_text(c, buf);
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    LP_TRY(cli_parse(c, NULL, argc, argv, err));
    LP_TRY(cli_count_operands(c, 0, 0, err));
    cli_table_begin(c, "site\ttransformerlens\thuggingface\tshape\tabout");
    for (int i = 0; i < LP_N_SITES; i++) {
        lp_site site = (lp_site)i;
        bool has_layer = lp_site_has_layer(site);
        cli_put_text(c, lp_site_name(site));
        put_path(c, "blocks.{l}.", has_layer, lp_site_lens_name(site));
        put_path(c, "model.layers.{l}.", has_layer, lp_site_hf_name(site));
        put_shape(c, site);
        cli_put_text(c, lp_site_about(site));
    }
    cli_table_end(c);
    return LP_OK;
}

const cli_command cmd_hooks = {
    .name = "hooks",
    .summary = "List the sites that can be watched and changed, in three spellings",
    .about = "Any of the names works wherever a site is asked for; {l} is the layer, from 0.  A site without a layer "
             "in its\n"
             "name means every layer; \"resid_post.20\" and \"blocks.20.hook_resid_post\" mean layer 20.\n"
             "Shapes: n tokens, D d_model, H heads, G key/value heads, E head_dim, F mlp width, K keys, V vocabulary.",
    .run = run,
};
