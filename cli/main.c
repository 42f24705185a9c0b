/* main.c - the program `lapidary`: a table of commands.
 *
 *     lapidary COMMAND [OPTION]... [OPERAND]...
 *
 * A command is one file cmd_NAME.c (see cli.h) and one line in the table below.  main finds the command, runs it and
 * turns the status that comes back into the process's exit status:
 *
 *     0  done        1  failed: one line on stderr        2  typed wrong: one line and a hint
 *
 * A cancelled run (Ctrl-C) dies by SIGINT, as shells and make expect.
 */
#include "cli/cli.h"
#include "cli/commands.h"

#include <string.h>

static const cli_command *const commands[] = {
    &cmd_info,      &cmd_hooks,   &cmd_tokenize, &cmd_generate, &cmd_chat,    &cmd_trace,  &cmd_lens,
    &cmd_features,  &cmd_feature, &cmd_label,    &cmd_sae,      &cmd_steer,   &cmd_recipe, &cmd_rank,
    &cmd_attribute, &cmd_patch,   &cmd_sweep,    &cmd_replay,   &cmd_extract, &cmd_index,  &cmd_query,
    &cmd_store,     &cmd_merge,   &cmd_export,   &cmd_bench,    &cmd_synth,   &cmd_verify, NULL,
};

static const cli_command *find_command(const char *name)
{
    for (int i = 0; commands[i]; i++)
        if (strcmp(commands[i]->name, name) == 0) return commands[i];
    return NULL;
}

static const char *nearest_command(const char *name)
{
    const char *names[sizeof commands / sizeof *commands + 3];
    int n = 0;
    for (int i = 0; commands[i]; i++) names[n++] = commands[i]->name;
    names[n++] = "help";
    names[n++] = "version";
    names[n] = NULL;
    return cli_nearest(name, names);
}

static void print_help(void)
{
    puts("Usage: lapidary COMMAND [OPTION]... [OPERAND]...\n"
         "A mechanistic-interpretability workbench for Gemma 2 on the CPU.\n"
         "\n"
         "Commands:");
    for (int i = 0; commands[i]; i++) printf("  %-10s  %s\n", commands[i]->name, commands[i]->summary);
    puts("  help        explain a command: lapidary help COMMAND\n"
         "  version     print the version\n"
         "\n"
         "`lapidary COMMAND --help` lists a command's options; every command takes -m MODEL: a folder, a .gguf\n"
         "file, or a Hub id found in the Hugging Face cache.  Tables are TSV, or JSON with --json.\n"
         "Exit status: 0 done, 1 failed, 2 typed wrong.");
}

static lp_status print_version(void)
{
    puts("lapidary " LP_VERSION);
    return LP_OK;
}

static lp_status run_command(cli *c, int argc, char **argv, lp_error *err)
{
    const char *name = argv[0];
    c->command = find_command(name);
    if (c->command) return c->command->run(c, argc, argv, err);
    const char *near = nearest_command(name);
    if (near) return cli_usage(c, err, "no command \"%s\"; did you mean \"%s\"?", name, near);
    return cli_usage(c, err, "no command \"%s\"", name);
}

/* `lapidary help COMMAND` is `lapidary COMMAND --help`. */
static lp_status run_help(cli *c, int argc, char **argv, lp_error *err)
{
    if (argc > 2) return cli_usage(c, err, "help explains one command, %d were given", argc - 1);
    if (argc == 2 && strcmp(argv[1], "help") != 0 && strcmp(argv[1], "version") != 0) {
        char *again[] = {argv[1], (char[]){"--help"}, NULL};
        return run_command(c, 2, again, err);
    }
    print_help();
    return LP_OK;
}

static lp_status dispatch(cli *c, int argc, char **argv, lp_error *err)
{
    if (argc < 2) return cli_usage(c, err, "no command");
    const char *first = argv[1];
    bool is_alone = argc == 2;
    if (strcmp(first, "help") == 0) return run_help(c, argc - 1, argv + 1, err);
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) return run_help(c, 1, argv, err);
    if (strcmp(first, "version") == 0 || strcmp(first, "--version") == 0)
        return is_alone ? print_version() : cli_usage(c, err, "%s takes nothing after it", first);
    if (first[0] == '-') return cli_usage(c, err, "the command comes first, not \"%s\"", first);
    return run_command(c, argc - 1, argv + 1, err);
}

int main(int argc, char **argv)
{
    cli c = {0};
    lp_error err = {0};
    cli_prepare_process();
    lp_status st = dispatch(&c, argc, argv, &err);
    st = cli_finish(&c, st, &err);
    if (st == LP_CANCELLED) cli_die_interrupted();
    if (st >= 0) return 0;
    if (err.text[0]) fprintf(stderr, "lapidary: %s\n", err.text);
    return c.is_usage_error ? 2 : 1;
}
