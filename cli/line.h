/* line.h - one line at a time from a person or a pipe.
 *
 * On a terminal: editing and history through libedit, prompts on stderr, Ctrl-C throws the line away.  Otherwise plain lines.
 */
#ifndef LP_CLI_LINE_H
#define LP_CLI_LINE_H

#include "cli/cli.h"

typedef struct cli_line cli_line;

lp_status cli_line_open(cli_line **out, const char *prompt, lp_error *err);
void cli_line_close(cli_line *l); /* NULL is fine */
bool cli_line_is_terminal(const cli_line *l);

/* The next line without its newline, n bytes, terminated; borrowed until the next call.  LP_STOPPED: there are no more.
 * LP_CANCELLED: Ctrl-C at the prompt. */
lp_status cli_line_read(cli_line *l, const char **text, size_t *n, lp_error *err);

#endif
