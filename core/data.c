/* data.c - see data.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* dladdr1 */
#endif
#include "core/data.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The file this code was loaded from: a shared library, or the running program; NULL when the system does not say. */
static char *own_file(void)
{
    Dl_info info;
    struct link_map *map = NULL;
    if (dladdr1((void *)(uintptr_t)lp_data_path, &info, (void **)&map, RTLD_DL_LINKMAP) && map && map->l_name[0])
        return realpath(map->l_name, NULL);
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0) return NULL;
    path[n] = 0;
    return lp_strdup(path);
}

static char *own_folder(void)
{
    char *path = own_file(), *slash = path ? strrchr(path, '/') : NULL;
    if (slash) *slash = 0;
    return path;
}

static char *join_if_there(const char *folder, const char *middle, const char *name)
{
    char *path = lp_format("%s/%s%s", folder, middle, name);
    char *real = path ? realpath(path, NULL) : NULL; /* "/here/data", not "/here/build/../data" */
    free(path);
    return real;
}

lp_status lp_data_path(char **out, const char *name, lp_error *err)
{
    static const char *const places[] = {"../data/", "../share/lapidary/", "../../share/lapidary/"};
    const char *chosen = getenv("LAPIDARY_DATA");
    if (chosen && *chosen) {
        *out = join_if_there(chosen, "", name);
        if (*out) return LP_OK;
        return lp_fail(err, LP_E_NOT_FOUND, "no %s in %s (LAPIDARY_DATA)", name, chosen);
    }
    char *here = own_folder(), *path = NULL;
    for (size_t i = 0; here && !path && i < sizeof places / sizeof *places; i++)
        path = join_if_there(here, places[i], name);
    if (!path) path = join_if_there(LP_SOURCE_DIR, "data/", name);
    free(here);
    *out = path;
    if (path) return LP_OK;
    return lp_fail(err, LP_E_NOT_FOUND, "no %s in the data folder; set LAPIDARY_DATA to where it lies", name);
}

/* The embedded models, as they are called, and where they lie in the data folder. */
static const struct {
    const char *name, *file;
} embedded_models[] = {{"base", "base"}, {"chat", "chat.gguf"}, {"draft", "draft"}, {"shield", "shield.gguf"}};

static const char *embedded_file(const char *name)
{
    for (size_t i = 0; i < sizeof embedded_models / sizeof *embedded_models; i++)
        if (strcmp(name, embedded_models[i].name) == 0) return embedded_models[i].file;
    return NULL;
}

lp_status lp_model_name(char **out, const char *typed, const char *embedded, lp_error *err)
{
    const char *name = typed ? typed : embedded, *file = embedded_file(name);
    if (file && (!typed || (!lp_is_dir(name) && !lp_is_file(name)))) { /* a folder of that name comes first */
        if (lp_data_path(out, file, NULL) == LP_OK) return LP_OK;
        return lp_fail(err, LP_E_NOT_FOUND,
                       "no embedded model (data/%s) beside this program: name one (-m MODEL), or set LAPIDARY_DATA",
                       file);
    }
    *out = lp_strdup(name);
    return *out ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
}

bool lp_is_embedded(const char *path, const char *name)
{
    const char *file = embedded_file(name);
    char *there = NULL, *real = NULL;
    bool same = file && lp_data_path(&there, file, NULL) == LP_OK && (real = realpath(path, NULL)) &&
                strcmp(real, there) == 0;
    free(real);
    free(there);
    return same;
}
