/* The frame of the command line from inside: each kind of option lands where it should or is refused, and tables come
 * out as TSV and JSON that a stranger's parser reads back. */
#include "cli/cli.h"

#include "tests/check.h"

#include <stdlib.h>
#include <unistd.h>

static const cli_command taking = {"try", "try options", "[WORD]...", NULL, NULL};
static const cli_command bare = {"bare", "take no operand", NULL, NULL, NULL};

typedef struct values {
    bool flag, int_given;
    int n, choice;
    double t;
    uint64_t seed;
    const char *text;
    cli_texts stops;
    char *argv[64]; /* operands point into it */
} values;

/* Parses `line`, words separated by spaces, into v.  The words live in `words` as long as the caller needs them. */
static lp_status parse(cli *c, values *v, const cli_command *cmd, char *words, lp_error *err)
{
    const cli_option options[] = {
        {"flag", 'f', CLI_FLAG, &v->flag, NULL, "a flag"},
        {"number", 'n', CLI_INT, &v->n, "N", "a number", .min = 1, .max = 8192, .is_given = &v->int_given},
        {"loose", 0, CLI_INT, &v->n, "N", "any number"},
        {"choice", 0, CLI_CHOICE, &v->choice, "red|green|blue", "a colour"},
        {"temperature", 't', CLI_REAL, &v->t, "T", "a number", .min = 0, .max = 100},
        {"seed", 0, CLI_SEED, &v->seed, "S", "a seed"},
        {"prompt", 'p', CLI_TEXT, &v->text, "TEXT", "a text"},
        {"stop", 0, CLI_TEXTS, &v->stops, "TEXT", "again and again"},
        {0},
    };
    static char name[] = "try";
    int argc = 0;
    v->argv[argc++] = name;
    for (char *w = strtok(words, " "); w; w = strtok(NULL, " ")) v->argv[argc++] = w;
    *c = (cli){.command = cmd};
    *err = (lp_error){0};
    lp_status st = cli_parse(c, options, argc, v->argv, err);
    lp_pool_free(c->env.pool);
    return st;
}

static void test_options_land(void)
{
    cli c;
    values v = {.n = 7};
    lp_error err;
    char all[] =
        "-f first -n 12 --choice blue -t0.5 --seed 0xffffffffffffffff -p -x --stop a --stop b --threads 1 second "
        "--wave 64 --arithmetic fast -m some/model --json -q -- -third";
    CHECK(parse(&c, &v, &taking, all, &err) == LP_OK);
    CHECK_STR(err.text, "");
    CHECK(v.flag && v.n == 12 && v.int_given && v.choice == 2 && v.seed == UINT64_MAX);
    CHECK_NEAR(v.t, 0.5, 0);
    CHECK_STR(v.text, "-x");
    CHECK(v.stops.n == 2 && strcmp(v.stops.items[1], "b") == 0);
    CHECK(c.threads == 1 && c.wave == 64 && c.arithmetic == LP_FAST && c.json && c.quiet && c.env.cancel && c.env.log);
    CHECK_STR(c.model, "some/model");
    CHECK(c.n_operands == 3);
    if (c.n_operands == 3) CHECK_STR(c.operands[2], "-third");
    char none[] = "";
    v = (values){.n = 7};
    CHECK(parse(&c, &v, &taking, none, &err) == LP_OK && v.n == 7 && !v.int_given && c.n_operands == 0 && !c.json);
    char decimal[] = "--seed 010 --loose -5";
    CHECK(parse(&c, &v, &taking, decimal, &err) == LP_OK && v.seed == 10 && v.n == -5);
}

static void refuses(const cli_command *cmd, const char *line, const char *why)
{
    cli c;
    values v = {0};
    lp_error err;
    char words[256];
    snprintf(words, sizeof words, "%s", line);
    CHECK(parse(&c, &v, cmd, words, &err) < 0);
    CHECK(c.is_usage_error);
    if (!strstr(err.text, why)) CHECK_STR(err.text, why);
}

static void test_mistakes_are_named(void)
{
    refuses(&taking, "-n 0", "--number 0: must be from 1 to 8192");
    refuses(&taking, "-n 8193", "must be from 1 to 8192");
    refuses(&taking, "-n 3.5", "a whole number expected");
    refuses(&taking, "--loose 4294967296", "a smaller number expected");
    refuses(&taking, "-t nan", "--temperature \"nan\": a number expected");
    refuses(&taking, "-t inf", "a number expected");
    refuses(&taking, "-t 100.5", "must be from 0 to 100");
    refuses(&taking, "--seed -1", "a number below 2^64 expected");
    refuses(&taking, "--seed 18446744073709551616", "a number below 2^64 expected");
    refuses(&taking, "--seed 0x", "a number below 2^64 expected");
    refuses(&taking, "--choice pink", "red|green|blue expected");
    refuses(&taking, "--choice re", "red|green|blue expected");
    refuses(&taking, "--flag=1", "--flag takes no value");
    refuses(&taking, "--number", "--number needs a value: N");
    refuses(&taking, "-n", "-n needs a value: N");
    refuses(&taking, "-y", "no option -y");
    refuses(&taking, "--tmperature 1", "did you mean --temperature?");
    refuses(&taking, "--zzzzzzzzzzzz", "no option --zzzzzzzzzzzz");
    refuses(&taking, "--threads 257", "must be from 0 to 256");
    refuses(&bare, "word", "takes no operand, \"word\" was given");
}

/* ---- tables ------------------------------------------------------------------------------------------------- */

static const char hard[] = "tab\t nl\n cr\r back\\ esc\033[1m \"quoted\" caf\xC3\xA9 nel\xC2\x85 half\xE2\x82 del\x7F";

/* What a table prints, read back from the file that stands in for stdout.  Free it. */
static char *printed(bool json, FILE *file)
{
    cli c = {.json = json};
    rewind(file);
    CHECK(ftruncate(fileno(file), 0) == 0);
    cli_table_begin(&c, "layer\ttoken\tlogit\tis_top");
    for (int row = 0; row < 2; row++) {
        cli_put_int(&c, row);
        cli_put_text(&c, row ? NULL : hard);
        cli_put_real(&c, row ? (double)INFINITY : 0.1, 6);
        cli_put_bool(&c, row);
    }
    cli_table_end(&c);
    lp_error err = {0};
    CHECK(cli_flush(&err) == LP_OK);
    char *text = calloc(1, 4096);
    rewind(file);
    if (text && fread(text, 1, 4095, file) == 0) text[0] = 0;
    return text;
}

static void test_tables(FILE *file)
{
    char *tsv = printed(false, file), *json = printed(true, file);
    CHECK_STR(tsv,
              "layer\ttoken\tlogit\tis_top\n"
              "0\ttab\\t nl\\n cr\\r back\\\\ esc\\x1b[1m \"quoted\" caf\xC3\xA9 nel\\xc2\\x85 half\\xe2\\x82 del\\x7f"
              "\t0.1\tno\n"
              "1\t\tinf\tyes\n");
    json_error_t why;
    json_t *rows = json ? json_loads(json, 0, &why) : NULL, *row = json_array_get(rows, 0);
    CHECK(json_array_size(rows) == 2 && json_object_size(row) == 4);
    CHECK_STR(
        json_string_value(json_object_get(row, "token")),
        "tab\t nl\n cr\r back\\ esc\033[1m \"quoted\" caf\xC3\xA9 nel\xC2\x85 half\xEF\xBF\xBD\xEF\xBF\xBD del\x7F");
    CHECK_NEAR(json_real_value(json_object_get(row, "logit")), 0.1, 0);
    CHECK(json_is_false(json_object_get(row, "is_top")));
    row = json_array_get(rows, 1);
    CHECK(json_integer_value(json_object_get(row, "layer")) == 1);
    CHECK(json_is_null(json_object_get(row, "token")) && json_is_null(json_object_get(row, "logit")));
    CHECK(json_is_true(json_object_get(row, "is_top")));
    json_decref(rows);
    free(tsv);
    free(json);
}

static void test_json_values(void)
{
    json_t *null = cli_json_real((double)NAN), *half = cli_json_real(0.5), *text = cli_json_text("a\0b", 3);
    CHECK(json_is_null(null) && json_is_real(half) && json_string_length(text) == 3);
    json_decref(null);
    json_decref(half);
    json_decref(text);
    lp_error err = {0};
    CHECK(cli_print_json(NULL, &err) == LP_E_MEMORY);
}

static void test_nearest(void)
{
    const char *names[] = {"generate", "info", "trace", NULL};
    CHECK_STR(cli_nearest("genrate", names), "generate");
    CHECK_STR(cli_nearest("inof", names), "info");
    CHECK(cli_nearest("xyzzy", names) == NULL);
    CHECK(cli_nearest("", names) == NULL);
    char huge[4096];
    memset(huge, 'g', sizeof huge - 1);
    huge[sizeof huge - 1] = 0;
    CHECK(cli_nearest(huge, names) == NULL);
}

/* stdout belongs to the tables while they are tested; the verdict goes to the real one. */
int main(void)
{
    test_options_land();
    test_mistakes_are_named();
    test_json_values();
    test_nearest();
    int real = dup(STDOUT_FILENO);
    FILE *file = tmpfile();
    CHECK(real >= 0 && file && dup2(fileno(file), STDOUT_FILENO) >= 0);
    if (file) test_tables(file);
    dup2(real, STDOUT_FILENO);
    if (file) fclose(file);
    return check_done();
}
