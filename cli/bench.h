/* bench.h - what `lapidary bench` measures, and the list it keeps; private to cmd_bench.c and bench_*.c. */
#ifndef LP_CLI_BENCH_H
#define LP_CLI_BENCH_H

#include "cli/cli.h"
#include "core/session.h"

enum {
    BENCH_MATMUL = 1,
    BENCH_DECODE = 2,
    BENCH_PROMPT = 4,
    BENCH_LOAD = 8,
    BENCH_ALL = 15,
    MAX_ROUNDS = 100,
    MAX_SERIES = 24,
};

/* One line of the result: a value per round, and its share of a yardstick taken in the same round. */
typedef struct bench_series {
    char what[40];
    const char *arithmetic; /* "exact", "fast" or ""                               */
    const char *unit;
    const char *of; /* what the share is of; NULL: none                            */
    double value[MAX_ROUNDS], share[MAX_ROUNDS];
    int n;
} bench_series;

typedef struct bench {
    cli *c;
    const char *path;   /* of the model                                            */
    const char *peer;   /* a Python that has llama_cpp; NULL: no peer              */
    const char *script; /* what it runs                                            */
    int rounds, what, prompt, tokens;
    const lp_kernels *kernels;
    lp_model *model;
    bench_series series[MAX_SERIES];
    int n_series;
    char peer_version[64];
} bench;

/* Appends to the series of that name; `share` is ignored when `of` is NULL. */
void bench_add(bench *b, const char *what, const char *arithmetic, const char *unit, double value, const char *of,
               double share);
const bench_series *bench_find(const bench *b, const char *what, const char *arithmetic); /* NULL: not there */

/* All rounds; opens and closes the model. */
lp_status bench_run(bench *b, lp_error *err);

/* One run of llama.cpp on the same file: adds "llama.cpp prompt" and "llama.cpp decode". */
lp_status bench_peer(bench *b, lp_error *err);

#endif
