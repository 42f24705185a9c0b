/* options.c - command lines: parsing, usage errors, --help.
 *
 * Every command's own option table and the common one below are joined, given to getopt_long, and each value lands
 * where its entry points.  Help is printed from the same entries.  Numbers must be whole words ("12x" is refused) and
 * in range; what was typed is quoted back, with the nearest option when a name is unknown.
 */
#include "cli/cli.h"
#include "core/kernels.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPTIONS = 64, LONG_ONLY = 1000, N_COMMON = 8, MAX_THREADS = 256, MAX_WAVE = 8192 };

typedef struct parser {
    cli *c;
    cli_option all[MAX_OPTIONS + 1]; /* the command's, then the common ones */
    int n_own, n;
    struct option longs[MAX_OPTIONS + 1];
    char shorts[2 * MAX_OPTIONS + 2];
    bool wants_help;
    int arithmetic;
} parser;

/* ---- usage errors ------------------------------------------------------------------------------------------- */

lp_status cli_usage(cli *c, lp_error *err, const char *fmt, ...)
{
    char text[LP_ERROR_TEXT / 2];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    c->is_usage_error = true;
    if (!c->command) return lp_fail(err, LP_E_RANGE, "%s; see `lapidary --help`", text);
    const char *name = c->command->name;
    return lp_fail(err, LP_E_RANGE, "%s: %s; see `lapidary %s --help`", name, text, name);
}

const char *cli_nearest(const char *typed, const char *const *names)
{
    const char *best = NULL;
    int least = (int)strlen(typed) / 3 + 2; /* "genrate" is near, "xyz" is not */
    for (int i = 0; names[i]; i++) {
        int d = lp_edit_distance(typed, names[i]);
        if (d >= least) continue;
        least = d;
        best = names[i];
    }
    return best;
}

lp_status cli_count_operands(cli *c, int at_least, int at_most, lp_error *err)
{
    if (c->n_operands > at_most && at_most == 0)
        return cli_usage(c, err, "takes no operand, \"%s\" was given", c->operands[0]);
    if (c->n_operands > at_most)
        return cli_usage(c, err, "takes at most %d operand%s, %d were given (quote a text with spaces)", at_most,
                         at_most == 1 ? "" : "s", c->n_operands);
    if (c->n_operands < at_least)
        return cli_usage(c, err, "%s is missing", c->command->operands ? c->command->operands : "an operand");
    return LP_OK;
}

/* ---- values ------------------------------------------------------------------------------------------------- */

static lp_status bad_value(cli *c, const cli_option *o, const char *text, const char *want, lp_error *err)
{
    return cli_usage(c, err, "--%s \"%s\": %s expected", o->name, text, want);
}

static bool is_outside(const cli_option *o, double v)
{
    if (o->min == 0 && o->max == 0) return false;
    return v < o->min || (o->max > o->min && v > o->max);
}

static lp_status out_of_range(cli *c, const cli_option *o, const char *text, lp_error *err)
{
    if (o->max > o->min) return cli_usage(c, err, "--%s %s: must be from %g to %g", o->name, text, o->min, o->max);
    return cli_usage(c, err, "--%s %s: must be at least %g", o->name, text, o->min);
}

static lp_status take_int(cli *c, const cli_option *o, const char *text, lp_error *err)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (end == text || *end) return bad_value(c, o, text, "a whole number", err);
    if (errno || v < INT_MIN || v > INT_MAX) return bad_value(c, o, text, "a smaller number", err);
    if (is_outside(o, (double)v)) return out_of_range(c, o, text, err);
    *(int *)o->value = (int)v;
    return LP_OK;
}

static lp_status take_real(cli *c, const cli_option *o, const char *text, lp_error *err)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !isfinite(v)) return bad_value(c, o, text, "a number", err);
    if (is_outside(o, v)) return out_of_range(c, o, text, err);
    *(double *)o->value = v;
    return LP_OK;
}

static lp_status take_seed(cli *c, const cli_option *o, const char *text, lp_error *err)
{
    bool is_hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, is_hex ? 16 : 10); /* not base 0: 010 is ten */
    if (text[0] < '0' || text[0] > '9' || *end || errno) return bad_value(c, o, text, "a number below 2^64", err);
    *(uint64_t *)o->value = v;
    return LP_OK;
}

static lp_status take_choice(cli *c, const cli_option *o, const char *text, lp_error *err)
{
    int place = 0;
    size_t n = strlen(text);
    for (const char *word = o->arg; word; place++) {
        size_t len = strcspn(word, "|");
        if (len == n && strncmp(word, text, n) == 0) {
            *(int *)o->value = place;
            return LP_OK;
        }
        word = word[len] ? word + len + 1 : NULL;
    }
    return bad_value(c, o, text, o->arg, err);
}

static lp_status take(cli *c, const cli_option *o, const char *text, lp_error *err)
{
    if (o->is_given) *o->is_given = true;
    switch (o->kind) {
    case CLI_FLAG:
        *(bool *)o->value = true;
        return LP_OK;
    case CLI_INT:
        return take_int(c, o, text, err);
    case CLI_REAL:
        return take_real(c, o, text, err);
    case CLI_SEED:
        return take_seed(c, o, text, err);
    case CLI_TEXT:
        *(const char **)o->value = text;
        return LP_OK;
    case CLI_CHOICE:
        return take_choice(c, o, text, err);
    case CLI_TEXTS: {
        cli_texts *list = o->value;
        if (list->n == CLI_MAX_TEXTS) return cli_usage(c, err, "--%s: at most %d times", o->name, (int)CLI_MAX_TEXTS);
        list->items[list->n++] = text;
        return LP_OK;
    }
    }
    return LP_OK;
}

/* ---- the tables --------------------------------------------------------------------------------------------- */

static void add_option(parser *p, cli_option o)
{
    assert(p->n < MAX_OPTIONS && o.value && (o.arg != NULL) == (o.kind != CLI_FLAG));
    for (int i = 0; i < p->n; i++)
        assert(strcmp(p->all[i].name, o.name) != 0 && (!o.letter || p->all[i].letter != o.letter));
    int has_arg = o.arg ? required_argument : no_argument;
    p->longs[p->n] = (struct option){o.name, has_arg, NULL, LONG_ONLY + p->n};
    if (o.letter) {
        size_t at = strlen(p->shorts);
        p->shorts[at] = o.letter;
        if (o.arg) p->shorts[at + 1] = ':';
    }
    p->all[p->n++] = o;
}

static void join_tables(parser *p, const cli_option *own)
{
    cli *c = p->c;
    const cli_option common[N_COMMON] = {
        {"model", 'm', CLI_TEXT, &c->model, "MODEL", "folder, .gguf, Hub id; or base (default), chat, draft, shield"},
        {"threads", 0, CLI_INT, &c->threads, "N", "threads (default 0: one per CPU)", .min = 0, .max = MAX_THREADS},
        {"wave", 0, CLI_INT, &c->wave, "N", "rows per wave (default 0: 512); never changes a bit", .min = 0,
         .max = MAX_WAVE},
        {"arithmetic", 0, CLI_CHOICE, &p->arithmetic, "exact|fast",
         "f32 (default), or bf16 inputs and twice the speed"},
        {"kernels", 0, CLI_TEXT, &c->kernels, "NAME", "kernel table (default: the best this CPU has)"},
        {"json", 0, CLI_FLAG, &c->json, NULL, "print JSON instead of TSV"},
        {"quiet", 'q', CLI_FLAG, &c->quiet, NULL, "no progress and no notes on stderr; warnings stay"},
        {"help", 'h', CLI_FLAG, &p->wants_help, NULL, "print this and exit"},
    };
    p->shorts[0] = ':'; /* a missing argument is told apart from an unknown option */
    for (; own && own->name; own++) add_option(p, *own);
    p->n_own = p->n;
    for (int i = 0; i < N_COMMON; i++) add_option(p, common[i]);
}

static const cli_option *by_code(const parser *p, int code)
{
    if (code >= LONG_ONLY) return &p->all[code - LONG_ONLY];
    for (int i = 0; i < p->n; i++)
        if (p->all[i].letter == code) return &p->all[i];
    return NULL;
}

/* ---- help --------------------------------------------------------------------------------------------------- */

static int label(const cli_option *o, char *buf, size_t n)
{
    char letter[8] = "    ";
    if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
    return snprintf(buf, n, "%s--%s%s%s", letter, o->name, o->arg ? " " : "", o->arg ? o->arg : "");
}

static void print_options(const parser *p, int from, int to)
{
    char text[128];
    int width = 0;
    for (int i = 0; i < p->n; i++) {
        int n = label(&p->all[i], text, sizeof text);
        if (n > width) width = n;
    }
    for (int i = from; i < to; i++) {
        label(&p->all[i], text, sizeof text);
        printf("  %-*s  %s\n", width, text, p->all[i].help);
    }
}

static void print_help(const parser *p)
{
    const cli_command *cmd = p->c->command;
    printf("Usage: lapidary %s [OPTION]...%s%s\n%s.\n", cmd->name, cmd->operands ? " " : "",
           cmd->operands ? cmd->operands : "", cmd->summary);
    if (cmd->about) printf("\n%s\n", cmd->about);
    if (p->n_own) puts("\nOptions:");
    print_options(p, 0, p->n_own);
    puts("\nOptions of every command:");
    print_options(p, p->n_own, p->n);
}

/* ---- parsing ------------------------------------------------------------------------------------------------ */

/* What getopt_long refused: `code` is '?' or ':'. */
static lp_status refuse(parser *p, int code, char **argv, lp_error *err)
{
    const char *word = argv[optind - 1];
    const cli_option *o = optopt ? by_code(p, optopt) : NULL;
    if (code == ':') return cli_usage(p->c, err, "%s needs a value: %s", word, o ? o->arg : "VALUE");
    if (o && !o->arg) return cli_usage(p->c, err, "--%s takes no value", o->name);
    if (optopt) return cli_usage(p->c, err, "no option -%c", optopt);
    const char *names[MAX_OPTIONS + 1];
    for (int i = 0; i <= p->n; i++) names[i] = i < p->n ? p->all[i].name : NULL;
    const char *near = cli_nearest(word + 2, names);
    if (near) return cli_usage(p->c, err, "no option %s, or not only one; did you mean --%s?", word, near);
    return cli_usage(p->c, err, "no option %s", word);
}

/* The words that are neither options nor their values end up in argv[optind ..]. */
static lp_status read_words(parser *p, int argc, char **argv, lp_error *err)
{
    opterr = 0;
    optind = 0; /* glibc: start afresh */
    for (int code; (code = getopt_long(argc, argv, p->shorts, p->longs, NULL)) != -1;) {
        if (code == '?' || code == ':') return refuse(p, code, argv, err);
        LP_TRY(take(p->c, by_code(p, code), optarg, err));
        if (p->wants_help) return LP_OK;
    }
    p->c->operands = argv + optind;
    p->c->n_operands = argc - optind;
    if (!p->c->command->operands) return cli_count_operands(p->c, 0, 0, err);
    return LP_OK;
}

static lp_status choose_kernels(cli *c, lp_error *err)
{
    if (!c->kernels) return LP_OK;
    c->env.kernels = lp_kernels_named(c->kernels);
    if (c->env.kernels) return LP_OK;
    char list[256] = "";
    int n = 0;
    const lp_kernels *const *all = lp_kernels_all(&n);
    for (int i = 0; i < n; i++) {
        size_t at = strlen(list);
        snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", all[i]->name);
    }
    return cli_usage(c, err, "--kernels \"%s\": this CPU runs %s", c->kernels, list);
}

lp_status cli_parse(cli *c, const cli_option *options, int argc, char **argv, lp_error *err)
{
    parser p = {.c = c};
    join_tables(&p, options);
    LP_TRY(read_words(&p, argc, argv, err));
    if (p.wants_help) {
        print_help(&p);
        return LP_STOPPED;
    }
    c->arithmetic = p.arithmetic == 1 ? LP_FAST : LP_EXACT;
    cli_env_begin(c);
    LP_TRY(choose_kernels(c, err));
    return lp_pool_new(&c->env.pool, c->threads, err);
}
