/* bench.h - what `lapidary bench` measures, and the list it keeps; private to cmd_bench.c and bench_*.c. */
#ifndef LP_CLI_BENCH_H
#define LP_CLI_BENCH_H

#include "cli/cli.h"
#include "core/session.h"
#include "sae/sae.h"

enum {
    BENCH_MATMUL = 1,
    BENCH_DECODE = 2,
    BENCH_PROMPT = 4,
    BENCH_LOAD = 8,
    BENCH_ALL = 15, /* of the model alone */
    BENCH_SAE = 16,
    BENCH_EXTRACT = 32,
    MAX_ROUNDS = 100,
    MAX_SERIES = 32,
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

typedef struct bench_saes bench_saes; /* bench_sae.c */

typedef struct bench {
    cli *c;
    const char *path;   /* of the model                                            */
    const char *peer;   /* a Python that has llama_cpp; NULL: no peer              */
    const char *script; /* what it runs                                            */
    const char *torch;  /* a Python that has PyTorch; NULL: no such peer           */
    int rounds, what, prompt, tokens;
    int extract_tokens; /* about so many are extracted */
    int width;          /* d_sae of random SAEs                                    */
    int n_layers;       /* of the model, once it was open                          */
    bench_saes *saes;
    const lp_kernels *kernels;
    lp_model *model;
    bench_series series[MAX_SERIES];
    int n_series;
    char peer_version[64], torch_version[64];
} bench;

/* Appends to the series of that name; `share` is ignored when `of` is NULL. */
void bench_add(bench *b, const char *what, const char *arithmetic, const char *unit, double value, const char *of,
               double share);
const bench_series *bench_find(const bench *b, const char *what, const char *arithmetic); /* NULL: not there */

/* All rounds; opens and closes the model. */
lp_status bench_run(bench *b, lp_error *err);

/* Encoding, decoding under SAEs, ranking: adds their series.  The SAEs are made in the first round. */
lp_status bench_sae(bench *b, lp_error *err);
lp_status bench_make_saes(bench *b, lp_error *err);   /* where they are not made yet */
const lp_sae *const *bench_saes_list(const bench *b); /* one a layer */
void bench_saes_free(bench *b);

/* Extraction to the disk: adds "extract", whose share is the time spent in the shard. */
lp_status bench_extract(bench *b, lp_error *err);
/* PyTorch and transformers at the same, writing into `folder`: adds "PyTorch extract". */
lp_status bench_torch_extract(bench *b, int context, const char *folder, lp_error *err);

/* PyTorch encodes `rows` rows of the SAEs' shape: adds "PyTorch encode". */
lp_status bench_torch(bench *b, int rows, lp_error *err);

/* What the measurements share: flops a second just now; n repeatable ids, <bos> first; "exact" or "fast". */
double bench_peak(const bench *b, lp_arithmetic a);
void bench_ids(const bench *b, int *ids, int n, uint32_t seed);
const char *bench_arithmetic(lp_arithmetic a);

/* A new folder in TMPDIR; remove and free it. */
lp_status bench_folder(char **out, lp_error *err);

/* One run of llama.cpp on the same file: adds "llama.cpp prompt" and "llama.cpp decode". */
lp_status bench_peer(bench *b, lp_error *err);

#endif
