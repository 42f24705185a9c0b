/* bench_peer.c - llama.cpp on the same file in the same rounds: a Python with the llama-cpp-python package runs
 * tests/bench/llama_peer.py, which prints "NAME<tab>VALUE" lines: version, prompt, decode (tokens per second). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* environ */
#endif
#include "cli/bench.h"

#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs argv with its stdout in a pipe; *out is the end to read.  Its stderr is ours. */
static lp_status start(FILE **out, pid_t *pid, char *const *argv, lp_error *err)
{
    int fd[2];
    posix_spawn_file_actions_t actions;
    if (pipe(fd) < 0) return lp_fail(err, LP_E_IO, "pipe: %s", strerror(errno));
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fd[1], 1);
    posix_spawn_file_actions_addclose(&actions, fd[0]);
    posix_spawn_file_actions_addclose(&actions, fd[1]);
    int failed = posix_spawnp(pid, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(fd[1]);
    if (!failed && (*out = fdopen(fd[0], "r")) != NULL) return LP_OK;
    close(fd[0]);
    return lp_fail(err, LP_E_IO, "%s: %s", argv[0], strerror(failed ? failed : errno));
}

static double last(const bench_series *s)
{
    return s && s->n ? s->value[s->n - 1] : 0;
}

static void take(bench *b, const char *name, double value)
{
    char ours[40];
    snprintf(ours, sizeof ours, "prompt of %d", b->prompt);
    if (strcmp(name, "prompt") == 0) {
        double mine = last(bench_find(b, ours, "exact"));
        bench_add(b, "llama.cpp prompt", "", "token/s", value, mine > 0 ? "prompt exact" : NULL, value / mine);
    } else if (strcmp(name, "decode") == 0) {
        double mine = last(bench_find(b, "decode", b->c->arithmetic == LP_FAST ? "fast" : "exact"));
        bench_add(b, "llama.cpp decode", "", "token/s", value, mine > 0 ? "decode" : NULL, value / mine);
    }
}

lp_status bench_peer(bench *b, lp_error *err)
{
    char threads[16], prompt[16], tokens[16], line[256], name[64], text[128];
    snprintf(threads, sizeof threads, "%d", lp_pool_threads(b->c->env.pool));
    snprintf(prompt, sizeof prompt, "%d", b->prompt);
    snprintf(tokens, sizeof tokens, "%d", b->tokens);
    const char *words[] = {b->peer, b->script, b->path, threads, prompt, tokens, NULL};
    char *argv[sizeof words / sizeof *words] = {NULL};
    FILE *f = NULL;
    pid_t pid = -1;
    int status = 0, seen = 0;
    lp_status st = LP_OK;
    for (int i = 0; words[i] && st == LP_OK; i++)
        if (!(argv[i] = lp_strdup(words[i]))) st = lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = start(&f, &pid, argv, err);
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%63[^\t]\t%127[^\n]", name, text) != 2) continue;
        if (strcmp(name, "version") == 0)
            snprintf(b->peer_version, sizeof b->peer_version, "%.63s", text);
        else
            take(b, name, atof(text)), seen++;
    }
    if (f) fclose(f);
    if (pid > 0 && (waitpid(pid, &status, 0) < 0 || status != 0 || seen != 2))
        st = lp_cancelled(&b->c->env)
                 ? LP_CANCELLED
                 : lp_fail(err, LP_E_IO, "%s %s failed; does that Python have llama_cpp?", b->peer, b->script);
    for (int i = 0; words[i]; i++) free(argv[i]);
    return st;
}
