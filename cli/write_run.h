/* write_run.h - what generate and steer have at hand, as a run file (sae/run.h) that `lapidary replay` repeats.
 *
 *     {"run", 0, CLI_TEXT, &w.run_file, "FILE", "write all that replay needs to do it again, to the bit"},
 *     ...
 *     cli_run_parts parts = {.c = c, .s = s, .prompt = prompt, .answer = &a, .generation = &g};
 *     if (st == LP_OK) st = cli_write_run(w->run_file, &parts, err);
 *
 * Call it once the text is done and before anything else is evaluated: the logits of the session go into the file.
 */
#ifndef LP_CLI_WRITE_RUN_H
#define LP_CLI_WRITE_RUN_H

#include "cli/answer.h"
#include "cli/saes.h"
#include "sae/run.h"

typedef struct cli_run_parts {
    const cli *c;
    const lp_session *s; /* the one that generated */
    const lp_tokens *prompt;
    const uint8_t *is_template; /* as lp_steer_context had it; or NULL */
    const cli_answer *answer;
    const lp_generation *generation;
    const lp_recipe *recipe;      /* units filled in; NULL: not steered, and the next three are not looked at */
    const cli_saes *saes;         /* as lp_steer_new had them */
    const cli_sae_choice *choice; /* how they were named */
    const lp_steer *steer;        /* made with reads_back */
} cli_run_parts;

/* path NULL: nothing is done. */
lp_status cli_write_run(const char *path, const cli_run_parts *p, lp_error *err);

#endif
