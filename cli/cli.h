/* cli.h - what every command of `lapidary` is made of.
 *
 * A command is one file cmd_NAME.c that defines one `const cli_command cmd_NAME` and is listed in main.c.  Its run()
 * describes its options in a local table, hands it to cli_parse, and from then on has everything a core call needs:
 *
 *     static lp_status run(cli *c, int argc, char **argv, lp_error *err)
 *     {
 *         const char *sites = "resid_post";
 *         int         n = 64;
 *         const cli_option options[] = {
 *             {"sites", 's', CLI_TEXT, &sites, "LIST", "sites to write, separated by commas"},
 *             {"tokens", 'n', CLI_INT, &n, "N", "tokens to generate", .min = 0, .max = 8192},
 *             {0},
 *         };
 *         LP_TRY(cli_parse(c, options, argc, argv, err));
 *         LP_TRY(cli_model_name(&name, c, err));
 *         st = lp_model_open(&m, name, NULL, &c->env, err);
 *         ...
 *     }
 *
 * The same table makes --help, so help cannot forget an option.  Statuses travel up to main, which turns them into the
 * exit status: 0 done (or stopped on purpose), 1 wrong ("lapidary: ..." on stderr, one line), 2 typed wrong, and death
 * by SIGINT when cancelled.  Results go to stdout (tables as TSV, or JSON with --json), talk goes to stderr.
 * Nothing needs to check its writes: main does, once, and `lapidary info > /dev/full` fails as it should.
 */
#ifndef LP_CLI_CLI_H
#define LP_CLI_CLI_H

#include "core/matmul.h"

#include <jansson.h>
#include <stdio.h>

typedef struct cli cli;

typedef struct cli_command {
    const char *name;     /* as typed: "generate"                                            */
    const char *summary;  /* one line for `lapidary --help`, without a full stop             */
    const char *operands; /* for the usage line: "[PROMPT]"; NULL: takes none                */
    const char *about;    /* the text under the usage line in --help, wrapped by hand; NULL  */
    lp_status (*run)(cli *c, int argc, char **argv, lp_error *err); /* argv[0] is the command's name */
} cli_command;

struct cli {
    const cli_command *command;

    /* The options every command takes, as given. */
    const char *model; /* -m; NULL: an embedded model (cli_model_name resolves it)        */
    int threads;       /* 0: one per CPU                                                  */
    int wave;          /* rows per wave; 0: the session's default                         */
    lp_arithmetic arithmetic;
    const char *kernels; /* name asked for; NULL: the best this CPU has                     */
    bool json, quiet;

    lp_env env;      /* pool, kernels, cancel, log, progress: ready after cli_parse          */
    char **operands; /* what was typed beside the options; borrowed from argv                */
    int n_operands;

    const char *embedded; /* which embedded model stands in when none is named; NULL: LP_EMBEDDED_BASE */
    bool is_usage_error;  /* set by cli_usage: main exits with 2 */
    bool has_bar;         /* a progress bar stands on the terminal's current line */
    int bar_width, bar_percent;
    struct cli_table { /* the open table, see cli_table */
        const char *columns;
        int n, at;
        bool has_rows;
    } table;
};

/* ---- options ------------------------------------------------------------------------------------------------ */

typedef enum cli_kind {
    CLI_FLAG,   /* bool *                                                                      */
    CLI_INT,    /* int *, in min .. max                                                        */
    CLI_REAL,   /* double *, in min .. max; never NaN                                          */
    CLI_SEED,   /* uint64_t *, decimal or 0x...                                                */
    CLI_TEXT,   /* const char **; borrowed from argv                                           */
    CLI_CHOICE, /* int *: the place of the word in `arg`, which reads "exact|fast"             */
    CLI_TEXTS,  /* cli_texts *: may be given again and again                                   */
} cli_kind;

enum { CLI_MAX_TEXTS = 64 };

typedef struct cli_texts {
    const char *items[CLI_MAX_TEXTS];
    int n;
} cli_texts;

typedef struct cli_option {
    const char *name; /* "tokens" for --tokens; NULL ends the table                          */
    char letter;      /* 'n' for -n; 0: none                                                 */
    cli_kind kind;
    void *value;      /* where it goes; holds the default before                           */
    const char *arg;  /* how help calls the value: "N"; NULL for a flag                    */
    const char *help; /* one line, lower case; says the default                            */
    double min, max;  /* CLI_INT and CLI_REAL; both 0: any                                 */
    bool *is_given;   /* NULL, or set to true when the option was typed                    */
} cli_option;

/* Reads options (the command's and the common ones) and operands, and fills c->env.  --help prints and returns
 * LP_STOPPED, which run() passes on like any other status.  `options` may be NULL. */
lp_status cli_parse(cli *c, const cli_option *options, int argc, char **argv, lp_error *err);

/* The user typed something wrong: returns a status < 0 whose exit status is 2, with the hint to --help added. */
lp_status cli_usage(cli *c, lp_error *err, const char *fmt, ...) LP_PRINTF(3, 4);

/* Between at_least and at_most operands, or cli_usage. */
lp_status cli_count_operands(cli *c, int at_least, int at_most, lp_error *err);

/* ---- models and files --------------------------------------------------------------------------------------- */

/* What to hand to lp_model_open or lp_model_plan_read: -m as typed, or the path of an embedded model, which is meant when
 * -m is one of their names (base, chat, draft, shield) or nothing.  Free it. */
lp_status cli_model_name(char **out, const cli *c, lp_error *err);
/* Is the model the embedded one of that name, however it was typed? */
bool cli_is_embedded(const cli *c, const char *name);

/* All of a file, or of stdin for "-"; a NUL after its end.  Free it. */
lp_status cli_read_text(char **out, size_t *n, const char *path, lp_error *err);

/* ---- results on stdout -------------------------------------------------------------------------------------- */

/* A table: TSV with a header line, or with --json an array of objects with the same names.  `columns` are names
 * separated by tabs.  Then one cli_put_* per cell, row by row, and cli_table_end.  In TSV a tab, newline, backslash or
 * control character in a cell becomes \t, \n, \\, \x1b, and what is not UTF-8 becomes \xff; an absent cell is empty. */
void cli_table_begin(cli *c, const char *columns);
void cli_put_int(cli *c, int64_t v);
void cli_put_real(cli *c, double v,
                  int digits);            /* significant digits; NaN and infinities: "nan", "inf"; null in JSON */
void cli_put_text(cli *c, const char *s); /* NULL: absent */
void cli_put_bytes(cli *c, const char *s, size_t n);
void cli_put_bool(cli *c, bool v);
void cli_put_none(cli *c);
void cli_table_end(cli *c);

/* Any other document under --json: prints it and a newline, and drops the reference.  NULL is out of memory. */
lp_status cli_print_json(json_t *j, lp_error *err);
json_t *cli_json_text(const char *s, size_t n); /* what is not UTF-8 becomes U+FFFD; NULL only for memory */
json_t *cli_json_real(double v);                /* null when not finite */

/* Pushes what was printed so far out to the reader (a streaming answer); fails when it cannot be written. */
lp_status cli_flush(lp_error *err);

/* ---- the terminal ------------------------------------------------------------------------------------------- */

/* Ctrl-C was pressed; once more and the process dies, unless a command took notice with cli_forget_interrupt. */
bool cli_interrupted(void);
void cli_forget_interrupt(void);

/* Wipes the progress bar, if one stands there: before writing to stderr by hand. */
void cli_wipe_bar(cli *c);

/* ---- for main.c --------------------------------------------------------------------------------------------- */

/* Keeps files from landing on descriptors 0 to 2, sets up signals. */
void cli_prepare_process(void);
/* Frees the pool and closes stdout; the last chance for a write error to show.  Returns st, or that error. */
lp_status cli_finish(cli *c, lp_status st, lp_error *err);
/* After LP_CANCELLED: die by SIGINT, so that a calling script stops too. */
void cli_die_interrupted(void);
/* The entry of `names` (ended by NULL) nearest to what was typed, or NULL when none is near. */
const char *cli_nearest(const char *typed, const char *const *names);
/* log and progress of c->env, and cancel. */
void cli_env_begin(cli *c);

#endif
