/* sae_dense.h - `lapidary sae nearest` and `lapidary sae effects`: tables over whole dictionaries (sae/dense.h); private to
 * cmd_sae.c and sae_dense.c. */
#ifndef LP_CLI_SAE_DENSE_H
#define LP_CLI_SAE_DENSE_H

#include "cli/saes.h"

typedef struct cli_dense {
    int top;    /* lines per feature                               */
    int sample; /* so many features, evenly spaced; 0: all         */
    bool is_gained;
} cli_dense;

/* One SAE named, or two: the neighbours of the first's features among the second's. */
lp_status cli_sae_nearest(cli *c, const cli_sae_choice *choice, const cli_dense *o, lp_error *err);
/* One SAE named. */
lp_status cli_sae_effects(cli *c, const cli_sae_choice *choice, const cli_dense *o, lp_error *err);

#endif
