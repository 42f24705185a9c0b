/* files.c - where things are: the model that is meant, texts from files and stdin. */
#include "cli/cli.h"

#include "core/data.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TEXT = 1 << 30 };

lp_status cli_model_name(char **out, const cli *c, lp_error *err)
{
    return lp_model_name(out, c->model, c->embedded ? c->embedded : LP_EMBEDDED_BASE, err);
}

bool cli_is_embedded(const cli *c, const char *name)
{
    char *mine = NULL;
    bool same = cli_model_name(&mine, c, NULL) == LP_OK && lp_is_embedded(mine, name);
    free(mine);
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
