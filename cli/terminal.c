/* terminal.c - the process and the person in front of it: signals, notes, the progress bar, standard descriptors.
 *
 * Ctrl-C raises the flag that core looks at once per layer; the handler is then spent, so a second Ctrl-C kills.  A
 * reader that goes away (lapidary hooks | head -3) ends the process by SIGPIPE, silently, as with any filter.  The flag
 * is this program's one global: a signal handler can reach nothing else.
 */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_bool interrupted;

static void on_interrupt(int sig)
{
    (void)sig;
    atomic_store(&interrupted, true);
}

bool cli_interrupted(void)
{
    return atomic_load(&interrupted);
}

/* No SA_RESTART: a read that waits for the person returns, and the command can see the flag. */
void cli_forget_interrupt(void)
{
    struct sigaction sa = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&sa.sa_mask);
    atomic_store(&interrupted, false);
    sigaction(SIGINT, &sa, NULL);
}

void cli_die_interrupted(void)
{
    fflush(NULL);
    signal(SIGINT, SIG_DFL);
    raise(SIGINT);
}

/* A closed descriptor 0, 1 or 2 would be given to the next file opened, and talk would land in it.  Its place is taken
 * by /dev/null, opened the wrong way round: using it stays an error. */
static void fill_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd) _exit(1);
}

void cli_prepare_process(void)
{
    fill_standard_descriptors();
    signal(SIGPIPE, SIG_DFL); /* whatever our parent did with it */
    cli_forget_interrupt();
}

/* ---- notes and the bar -------------------------------------------------------------------------------------- */

void cli_wipe_bar(cli *c)
{
    if (!c->has_bar) return;
    fprintf(stderr, "\r%*s\r", c->bar_width, "");
    fflush(stderr);
    c->has_bar = false;
}

static void note(void *user, lp_level level, const char *line)
{
    cli *c = user;
    if (c->quiet && level == LP_INFO) return;
    cli_wipe_bar(c);
    fprintf(stderr, "lapidary: %s%s\n", level == LP_WARN ? "warning: " : "", line);
}

/* At most one line, redrawn when its text changes: `loading weights  42%`. */
static void draw_bar(void *user, const char *what, int64_t done, int64_t of)
{
    enum { CELLS = 30 };
    cli *c = user;
    if (done >= of) {
        cli_wipe_bar(c);
        return;
    }
    double part = of > 0 && done > 0 ? (double)done / (double)of : 0;
    int percent = (int)(part * 100), full = (int)(part * CELLS);
    if (c->has_bar && percent == c->bar_percent) return;
    char cells[CELLS + 1];
    memset(cells, '#', (size_t)full);
    memset(cells + full, '.', (size_t)(CELLS - full));
    cells[CELLS] = 0;
    c->bar_width = fprintf(stderr, "\r%-24.24s [%s] %3d%%", what, cells, percent);
    fflush(stderr);
    c->bar_percent = percent;
    c->has_bar = true;
}

void cli_env_begin(cli *c)
{
    c->env.cancel = &interrupted;
    c->env.log = note;
    if (!c->quiet && isatty(STDERR_FILENO)) c->env.progress = draw_bar;
    c->env.user = c;
}

lp_status cli_finish(cli *c, lp_status st, lp_error *err)
{
    cli_wipe_bar(c);
    lp_pool_free(c->env.pool);
    c->env.pool = NULL;
    errno = 0;
    bool was_bad = ferror(stdout) != 0;
    bool is_bad = fclose(stdout) != 0 || was_bad;
    if (!is_bad || st < 0) return st;
    if (errno == EPIPE) return lp_fail(err, LP_E_IO, "%s", "");
    return lp_fail(err, LP_E_IO, "cannot write to stdout: %s", errno ? strerror(errno) : "an earlier write failed");
}
