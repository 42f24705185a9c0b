/* files.c - where things are: the embedded model, the data folder, texts from files and stdin. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TEXT = 1 << 30 };

/* The folder the running program lies in; NULL when the system does not say. */
static char *program_folder(void)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0) return NULL;
    path[n] = 0;
    char *slash = strrchr(path, '/');
    if (slash) *slash = 0;
    return lp_strdup(path);
}

static char *join_if_there(const char *folder, const char *middle, const char *name)
{
    char *path = lp_format("%s/%s%s", folder, middle, name);
    char *real = path ? realpath(path, NULL) : NULL; /* "/here/data", not "/here/build/../data" */
    free(path);
    return real;
}

lp_status cli_data_path(char **out, const char *name, lp_error *err)
{
    const char *chosen = getenv("LAPIDARY_DATA");
    if (chosen && *chosen) {
        *out = join_if_there(chosen, "", name);
        if (*out) return LP_OK;
        return lp_fail(err, LP_E_NOT_FOUND, "no %s in %s (LAPIDARY_DATA)", name, chosen);
    }
    char *here = program_folder(), *path = NULL;
    if (here) path = join_if_there(here, "../data/", name);
    if (here && !path) path = join_if_there(here, "../share/lapidary/", name);
    if (!path) path = join_if_there(LP_SOURCE_DIR, "data/", name);
    free(here);
    *out = path;
    if (path) return LP_OK;
    return lp_fail(err, LP_E_NOT_FOUND, "no %s in the data folder; set LAPIDARY_DATA to where it lies", name);
}

/* The embedded models, as -m calls them, and where they lie in the data folder. */
static const struct {
    const char *name, *file;
} embedded[] = {{"base", "base"}, {"chat", "chat.gguf"}, {"draft", "draft"}, {"shield", "shield.gguf"}};

static const char *embedded_file(const char *name)
{
    for (size_t i = 0; i < sizeof embedded / sizeof *embedded; i++)
        if (strcmp(name, embedded[i].name) == 0) return embedded[i].file;
    return NULL;
}

lp_status cli_model_name(char **out, const cli *c, lp_error *err)
{
    const char *name = c->model ? c->model : c->embedded ? c->embedded : CLI_EMBEDDED_BASE, *file = embedded_file(name);
    if (file && (!c->model || (!lp_is_dir(name) && !lp_is_file(name)))) { /* a folder of that name comes first */
        if (cli_data_path(out, file, NULL) == LP_OK) return LP_OK;
        return lp_fail(err, LP_E_NOT_FOUND, "no embedded model (data/%s) beside this program: name one with -m MODEL",
                       file);
    }
    *out = lp_strdup(name);
    return *out ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
}

bool cli_is_embedded(const cli *c, const char *name)
{
    char *mine = NULL, *there = NULL;
    const char *file = embedded_file(name);
    bool same = file && cli_model_name(&mine, c, NULL) == LP_OK && cli_data_path(&there, file, NULL) == LP_OK;
    char *real = same ? realpath(mine, NULL) : NULL;
    same = real && strcmp(real, there) == 0;
    free(real);
    free(mine);
    free(there);
    return same;
}

static lp_status read_stdin(char **out, size_t *n, lp_error *err)
{
    char *text = NULL;
    size_t room = 0, used = 0;
    for (;;) {
        if (used >= MAX_TEXT || !lp_grow((void **)&text, &room, used + 65536, 1)) break;
        ssize_t got = read(STDIN_FILENO, text + used, room - used - 1);
        if (got < 0 && errno == EINTR && !cli_interrupted()) continue;
        if (got < 0) {
            lp_status st = errno == EINTR ? LP_CANCELLED : lp_fail(err, LP_E_IO, "stdin: %s", strerror(errno));
            free(text);
            return st;
        }
        used += (size_t)got;
        if (got > 0) continue;
        text[used] = 0;
        *out = text;
        *n = used;
        return LP_OK;
    }
    free(text);
    return lp_fail(err, LP_E_MEMORY, "stdin: more than fits (%zu bytes read)", used);
}

lp_status cli_read_text(char **out, size_t *n, const char *path, lp_error *err)
{
    if (strcmp(path, "-") == 0) return read_stdin(out, n, err);
    return lp_read_file(out, n, path, MAX_TEXT, err);
}
