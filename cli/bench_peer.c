/* bench_peer.c - llama.cpp on the same file in the same rounds: a Python with the llama-cpp-python package runs
 * tests/bench/llama_peer.py, which prints "NAME<tab>VALUE" lines: version, prompt, decode (tokens per second).  And PyTorch
 * on the SAEs' shape: tests/bench/torch_peer.py, version and encode (ms). */
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

static void take(bench *b, const char *name, const char *text)
{
    char ours[40];
    double value = atof(text);
    if (strcmp(name, "version") == 0) snprintf(b->peer_version, sizeof b->peer_version, "%.63s", text);
    snprintf(ours, sizeof ours, "prompt of %d", b->prompt);
    if (strcmp(name, "prompt") == 0) {
        double mine = last(bench_find(b, ours, "exact"));
        bench_add(b, "llama.cpp prompt", "", "token/s", value, mine > 0 ? "prompt exact" : NULL, value / mine);
    } else if (strcmp(name, "decode") == 0) {
        double mine = last(bench_find(b, "decode", b->c->arithmetic == LP_FAST ? "fast" : "exact"));
        bench_add(b, "llama.cpp decode", "", "token/s", value, mine > 0 ? "decode" : NULL, value / mine);
    }
}

/* Runs the words and gives every "NAME<tab>VALUE" line to `take`; all of them must come. */
typedef void (*take_fn)(bench *b, const char *name, const char *text);

static lp_status run_script(bench *b, const char *const *words, int n_lines, take_fn fn, const char *needs,
                            lp_error *err)
{
    char line[256], name[64], text[128], *argv[12] = {NULL};
    FILE *f = NULL;
    pid_t pid = -1;
    int status = 0, seen = 0;
    lp_status st = LP_OK;
    for (int i = 0; words[i] && st == LP_OK; i++)
        if (!(argv[i] = lp_strdup(words[i]))) st = lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = start(&f, &pid, argv, err);
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "%63[^\t]\t%127[^\n]", name, text) == 2) fn(b, name, text), seen++;
    if (f) fclose(f);
    if (pid > 0 && (waitpid(pid, &status, 0) < 0 || status != 0 || seen != n_lines))
        st = lp_cancelled(&b->c->env)
                 ? LP_CANCELLED
                 : lp_fail(err, LP_E_IO, "%s %s failed; does that Python have %s?", words[0], words[1], needs);
    for (int i = 0; argv[i]; i++) free(argv[i]);
    return st;
}

lp_status bench_peer(bench *b, lp_error *err)
{
    char threads[16], prompt[16], tokens[16];
    snprintf(threads, sizeof threads, "%d", lp_pool_threads(b->c->env.pool));
    snprintf(prompt, sizeof prompt, "%d", b->prompt);
    snprintf(tokens, sizeof tokens, "%d", b->tokens);
    const char *words[] = {b->peer, b->script, b->path, threads, prompt, tokens, NULL};
    return run_script(b, words, 3, take, "llama_cpp", err);
}

/* PyTorch's figure, beside ours of that name in both arithmetics: its share is theirs over ours, `of` says of what. */
static void compare_torch(bench *b, const char *theirs, const char *ours, const char *const of[2], const char *unit,
                          double value)
{
    static const char *const ways[] = {"exact", "fast"};
    for (int i = 0; i < 2; i++) {
        char name[40];
        double mine = last(bench_find(b, ours, ways[i]));
        snprintf(name, sizeof name, "%s%s", theirs, i ? ", ours fast" : "");
        bench_add(b, name, "", unit, value, mine > 0 ? of[i] : NULL, value / mine);
    }
}

static void take_torch(bench *b, const char *name, const char *text)
{
    static const char *const encode[] = {"encode exact", "encode fast"}, *const extract[] = {"extract exact",
                                                                                             "extract fast"};
    if (strcmp(name, "version") == 0) snprintf(b->torch_version, sizeof b->torch_version, "%.63s", text);
    if (strcmp(name, "encode") == 0) compare_torch(b, "PyTorch encode", "encode, 512 rows", encode, "ms", atof(text));
    if (strcmp(name, "extract") == 0) compare_torch(b, "PyTorch extract", "extract", extract, "token/s", atof(text));
}

lp_status bench_torch(bench *b, int rows, lp_error *err)
{
    char threads[16], n[16], d_in[16], d_sae[16];
    snprintf(threads, sizeof threads, "%d", lp_pool_threads(b->c->env.pool));
    snprintf(n, sizeof n, "%d", rows);
    snprintf(d_in, sizeof d_in, "%d", b->model->config.d_model);
    snprintf(d_sae, sizeof d_sae, "%d", b->width);
    const char *words[] = {b->torch, LP_SOURCE_DIR "/tests/bench/torch_peer.py", threads, n, d_in, d_sae, NULL};
    return run_script(b, words, 2, take_torch, "torch", err);
}

lp_status bench_torch_extract(bench *b, int context, const char *folder, lp_error *err)
{
    char threads[16], n[16], d_sae[16];
    const lp_config *c = &b->model->config;
    snprintf(threads, sizeof threads, "%d", lp_pool_threads(b->c->env.pool));
    snprintf(n, sizeof n, "%d", context);
    snprintf(d_sae, sizeof d_sae, "%d", b->width);
    char *shape = lp_format("{\"vocab_size\": %d, \"hidden_size\": %d, \"intermediate_size\": %d, "
                            "\"num_hidden_layers\": %d, \"num_attention_heads\": %d, \"num_key_value_heads\": %d, "
                            "\"head_dim\": %d, \"sliding_window\": %d}",
                            c->vocab, c->d_model, c->d_ff, c->n_layers, c->n_heads, c->n_kv_heads, c->head_dim,
                            c->window);
    if (!shape) return lp_fail(err, LP_E_MEMORY, "out of memory");
    const char *words[] = {
        b->torch, LP_SOURCE_DIR "/tests/bench/torch_extract_peer.py", threads, n, d_sae, folder, shape, NULL};
    lp_status st = run_script(b, words, 2, take_torch, "torch and transformers", err);
    free(shape);
    return st;
}
