/* line.c - see line.h.
 *
 * While libedit reads, Ctrl-C is a character (the terminal sends no signal) that ends the line and leaves a note; while the
 * program computes, the terminal is as it was and Ctrl-C is the signal that cancels.
 */
#include "cli/line.h"

#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

enum { REMEMBERED = 1000, CTRL_C = 3 };

struct cli_line {
    char *prompt;
    EditLine *el; /* NULL: not a terminal */
    History *past;
    bool was_cancelled;
    char *buf, *plain; /* the line handed out; getline's */
    size_t size, plain_size;
};

static char *show_prompt(EditLine *el)
{
    cli_line *l = NULL;
    el_get(el, EL_CLIENTDATA, &l);
    return l->prompt;
}

/* One character for libedit, decoded as the locale says; what cannot be decoded is skipped.  Ctrl-C becomes a newline. */
static int next_character(EditLine *el, wchar_t *out)
{
    cli_line *l = NULL;
    mbstate_t state = {0};
    el_get(el, EL_CLIENTDATA, &l);
    for (;;) {
        char byte;
        ssize_t got = read(STDIN_FILENO, &byte, 1);
        if (got <= 0) return (int)got;
        if (byte == CTRL_C) {
            l->was_cancelled = true;
            fputs("^C", stderr);
            byte = '\n';
        }
        size_t used = mbrtowc(out, &byte, 1, &state);
        if (used == (size_t)-1) state = (mbstate_t){0};
        if (used == 0 || used == 1) return 1;
    }
}

/* libedit decodes what is typed by the locale; where that knows no UTF-8, the C library's own does. */
static void want_utf8(void)
{
    setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");
}

static lp_status open_terminal(cli_line *l, lp_error *err)
{
    HistEvent e;
    want_utf8();
    l->past = history_init();
    l->el = el_init("lapidary", stdin, stderr, stderr);
    if (!l->past || !l->el) return lp_fail(err, LP_E_MEMORY, "no memory for line editing");
    history(l->past, &e, H_SETSIZE, REMEMBERED);
    history(l->past, &e, H_SETUNIQUE, 1);
    el_set(l->el, EL_CLIENTDATA, l);
    el_set(l->el, EL_PROMPT, show_prompt);
    el_set(l->el, EL_EDITOR, "emacs");
    el_set(l->el, EL_HIST, history, l->past);
    el_set(l->el, EL_SETTY, "-d", "-isig", NULL);
    el_set(l->el, EL_GETCFN, next_character);
    el_set(l->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    return LP_OK;
}

lp_status cli_line_open(cli_line **out, const char *prompt, lp_error *err)
{
    cli_line *l = lp_calloc(1, sizeof *l);
    *out = NULL;
    if (!l || !(l->prompt = lp_strdup(prompt))) {
        cli_line_close(l);
        return lp_fail(err, LP_E_MEMORY, "no memory to read lines");
    }
    lp_status st = isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1 ? open_terminal(l, err) : LP_OK;
    if (st < 0)
        cli_line_close(l);
    else
        *out = l;
    return st;
}

void cli_line_close(cli_line *l)
{
    if (!l) return;
    if (l->el) el_end(l->el);
    if (l->past) history_end(l->past);
    free(l->buf);
    free(l->plain);
    free(l->prompt);
    free(l);
}

bool cli_line_is_terminal(const cli_line *l)
{
    return l->el != NULL;
}

static lp_status keep(cli_line *l, const char *line, size_t len, const char **text, size_t *n, lp_error *err)
{
    if (len > 0 && line[len - 1] == '\n') len--;
    if (!lp_grow((void **)&l->buf, &l->size, len + 1, 1)) return lp_fail(err, LP_E_MEMORY, "no memory for a line");
    memcpy(l->buf, line, len);
    l->buf[len] = 0;
    *text = l->buf;
    *n = len;
    return LP_OK;
}

static lp_status read_terminal(cli_line *l, const char **text, size_t *n, lp_error *err)
{
    HistEvent e;
    int count = 0;
    l->was_cancelled = false;
    const char *line = el_gets(l->el, &count);
    if (l->was_cancelled || cli_interrupted() || (count < 0 && errno == EINTR)) return LP_CANCELLED;
    if (!line || count <= 0) {
        fputc('\n', stderr);
        return LP_STOPPED;
    }
    if (count > 1) history(l->past, &e, H_ENTER, line);
    return keep(l, line, (size_t)count, text, n, err);
}

static lp_status read_pipe(cli_line *l, const char **text, size_t *n, lp_error *err)
{
    errno = 0;
    ssize_t count = getline(&l->plain, &l->plain_size, stdin);
    if (count >= 0) return keep(l, l->plain, (size_t)count, text, n, err);
    if (cli_interrupted()) return LP_CANCELLED;
    if (feof(stdin)) return LP_STOPPED;
    return lp_fail(err, LP_E_IO, "stdin: %s", strerror(errno));
}

lp_status cli_line_read(cli_line *l, const char **text, size_t *n, lp_error *err)
{
    return l->el ? read_terminal(l, text, n, err) : read_pipe(l, text, n, err);
}
