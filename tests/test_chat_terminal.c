/* `lapidary chat` as a person meets it, on a pseudo-terminal: Ctrl-C stops an answer and not the program, throws away a line
 * that is being typed, the arrow key brings back what was said, Ctrl-D leaves.
 *
 * Usage: test_chat_terminal [PATH-OF-lapidary]
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* posix_openpt, mkdtemp, memmem */
#endif
#include "tests/check.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

enum { PATIENCE_MS = 30000 };

typedef struct terminal {
    int fd;
    pid_t pid;
    char seen[1 << 16]; /* since the last time something was waited for */
    size_t n;
    char before[32]; /* the end of what stood before the text last waited for */
} terminal;

/* A process of its own session, with the other end of the terminal as 0, 1 and 2.  False: this system gives none. */
static bool start(terminal *t, char *const argv[])
{
    t->n = 0;
    t->fd = posix_openpt(O_RDWR | O_NOCTTY);
    if (t->fd < 0 || grantpt(t->fd) != 0 || unlockpt(t->fd) != 0 || !ptsname(t->fd)) return false;
    t->pid = fork();
    if (t->pid != 0) return true;
    setsid();
    int fd = open(ptsname(t->fd), O_RDWR); /* becomes the controlling terminal */
    for (int i = 0; i <= 2; i++) dup2(fd, i);
    if (fd > 2) close(fd);
    close(t->fd);
    setenv("TERM", "vt100", 1);
    setenv("LC_ALL", "C.UTF-8", 1);
    execv(argv[0], argv);
    _exit(127);
}

static void type(const terminal *t, const char *keys)
{
    CHECK(write(t->fd, keys, strlen(keys)) == (ssize_t)strlen(keys));
}

/* Reads until `text` has come, and forgets everything up to its end. */
static bool wait_for(terminal *t, const char *text)
{
    for (;;) {
        char *at = memmem(t->seen, t->n, text, strlen(text));
        if (at) {
            size_t used = (size_t)(at - t->seen) + strlen(text), k = (size_t)(at - t->seen);
            if (k >= sizeof t->before) k = sizeof t->before - 1;
            memcpy(t->before, at - k, k);
            t->before[k] = 0;
            memmove(t->seen, t->seen + used, t->n - used);
            t->n -= used;
            return true;
        }
        if (t->n > sizeof t->seen / 2) { /* an answer that went on: its beginning is of no use */
            memmove(t->seen, t->seen + t->n - 256, 256);
            t->n = 256;
        }
        struct pollfd p = {.fd = t->fd, .events = POLLIN};
        ssize_t got = poll(&p, 1, PATIENCE_MS) == 1 ? read(t->fd, t->seen + t->n, sizeof t->seen - t->n) : -1;
        if (got <= 0) {
            fprintf(stderr, "waited for \"%s\", saw \"%.*s\"\n", text, (int)t->n, t->seen);
            return false;
        }
        t->n += (size_t)got;
    }
}

/* libedit takes the terminal over after it has shown its prompt and gives it back after the line: keys in between would be
 * the kernel's.  True when it has it (or has given it back), seen by who makes Ctrl-C a signal. */
static bool wait_for_editor(const terminal *t, bool has_it)
{
    for (int i = 0; i < PATIENCE_MS; i++) {
        struct termios mode;
        if (tcgetattr(t->fd, &mode) == 0 && has_it == !(mode.c_lflag & ISIG)) return true;
        usleep(1000);
    }
    return false;
}

static bool wait_for_prompt(terminal *t)
{
    return wait_for(t, "> ") && wait_for_editor(t, true);
}

/* Reads until the answer is under way: the newline that ended our line, and some text after it. */
static bool wait_for_answer(terminal *t)
{
    if (!wait_for(t, "\n")) return false;
    while (t->n < 8) {
        struct pollfd p = {.fd = t->fd, .events = POLLIN};
        ssize_t got = poll(&p, 1, PATIENCE_MS) == 1 ? read(t->fd, t->seen + t->n, sizeof t->seen - t->n) : -1;
        if (got <= 0) return false;
        t->n += (size_t)got;
    }
    return true;
}

static int exit_status(terminal *t)
{
    int status = -1;
    char rest[4096];
    while (read(t->fd, rest, sizeof rest) > 0) /* EIO when the other end is closed */
        continue;
    close(t->fd);
    return waitpid(t->pid, &status, 0) == t->pid && WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

/* A model whose answers take seconds: nothing ends them but the context. */
static bool make_model(const char *lapidary, const char *dir)
{
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 1);
        execl(lapidary, lapidary, "synth", "-q", "--shape", "nano", "--set",
              "n_layers=12,d_model=512,d_ff=2048,max_positions=8192", "--force", "-o", dir, (char *)NULL);
        _exit(127);
    }
    int status = -1;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv)
{
    char dir[] = "/tmp/lp_chat_XXXXXX", command[128];
    char *lapidary = argc > 1 ? argv[1] : (char[]){LP_BUILD_DIR "/lapidary"};
    signal(SIGPIPE, SIG_IGN);
    CHECK(mkdtemp(dir) != NULL && make_model(lapidary, dir));
    char *const chat[] = {lapidary,
                          (char[]){"chat"},
                          (char[]){"-m"},
                          dir,
                          (char[]){"-q"},
                          (char[]){"--threads"},
                          (char[]){"1"},
                          (char[]){"--max-tokens"},
                          (char[]){"0"},
                          (char[]){"--ignore-eos"},
                          (char[]){"--temperature"},
                          (char[]){"1"},
                          NULL};
    static terminal t;
    if (!start(&t, chat)) {
        printf("skipped: no pseudo-terminal to be had here (is /dev/pts mounted?)\n");
        return 77;
    }
    CHECK(wait_for_prompt(&t));
    type(&t, "/tokens\n");
    CHECK(wait_for(&t, "0 of 8192") && wait_for_prompt(&t));

    type(&t, "hello there\n");
    CHECK(wait_for(&t, "hello there") && wait_for_editor(&t, false) && wait_for_answer(&t)); /* after the echo */
    t.n = 0; /* what was said may look like a prompt */
    type(&t, "\003");
    CHECK(wait_for_prompt(&t)); /* the answer ended, the program did not */
    type(&t, "/tokens\n");
    CHECK(wait_for(&t, " of 8192"));
    const char *digits = t.before + strlen(t.before);
    while (digits > t.before && digits[-1] >= '0' && digits[-1] <= '9') digits--;
    CHECK(atoi(digits) > 12 && atoi(digits) < 8000); /* something was said, and not until the context was full */
    CHECK(wait_for_prompt(&t));

    type(&t, "/exit now\003");
    CHECK(wait_for(&t, "^C") && wait_for_prompt(&t)); /* the line was thrown away */
    type(&t, "\033[A\n");                             /* up: the last line that was entered */
    CHECK(wait_for(&t, "/tokens") && wait_for(&t, " of 8192") && wait_for_prompt(&t));

    type(&t, "and again\n");
    CHECK(wait_for(&t, "and again") && wait_for_editor(&t, false) && wait_for_answer(&t));
    t.n = 0;
    type(&t, "\003");
    CHECK(wait_for_prompt(&t)); /* a second time: Ctrl-C was armed anew */
    type(&t, "\004");
    int status = exit_status(&t);
    if (status) fprintf(stderr, "exit status %d\n", status);
    CHECK(status == 0);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    CHECK(system(command) == 0);
    return check_done();
}
