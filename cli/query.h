/* query.h - what the verbs of `lapidary query` share: a run of a store, a tokenizer for its pieces, cells. */
#ifndef LP_CLI_QUERY_H
#define LP_CLI_QUERY_H

#include "cli/cli.h"
#include "store/query.h"

typedef struct cli_query {
    cli *c;
    lp_query *q;
    lp_tokenizer *tokenizer; /* the run's; NULL: another one, so ids are shown */
    const char *run, *with;
    double above;
    int top, quantiles, around, sample, position;
    bool all, has_above, has_position;
} cli_query;

/* ---- cells -------------------------------------------------------------------------------------------------------- */

/* The tokens around one as text, itself in >> <<; *pos and *document (may be NULL) are of it. */
lp_status cli_query_context(char **text, int *pos, int64_t *document, const cli_query *w, int64_t token, lp_error *err);
void cli_put_label(const cli_query *w, int sae, int feature); /* a cell; empty where there is none */
void cli_put_token(const cli_query *w, int id);               /* two cells: id and piece */

/* ---- the verbs: operands as they stand behind the store ------------------------------------------------------------- */

lp_status cli_query_feature(cli_query *w, char **operands, int n, lp_error *err);
lp_status cli_query_positions(cli_query *w, char **operands, int n, lp_error *err);
lp_status cli_query_where(cli_query *w, char **operands, int n, lp_error *err);
lp_status cli_query_active(cli_query *w, char **operands, int n, lp_error *err);
lp_status cli_query_text(cli_query *w, char **operands, int n, lp_error *err);
lp_status cli_query_labels(cli_query *w, char **operands, int n, lp_error *err);
lp_status cli_query_partners(cli_query *w, char **operands, int n, lp_error *err);
lp_status cli_query_document(cli_query *w, char **operands, int n, lp_error *err);

/* "SAE INDEX". */
lp_status cli_query_which(int *sae, int *feature, const cli_query *w, char **operands, lp_error *err);

#endif
