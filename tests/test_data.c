/* The data folder is found and can be chosen; embedded models go by name, unless something of that name lies here. */
#include "core/data.h"

#include "tests/check.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static bool ends(const char *path, const char *tail)
{
    return path && lp_ends_in(path, tail);
}

static void names(void)
{
    char *path = NULL;
    CHECK(lp_model_name(&path, NULL, LP_EMBEDDED_BASE, NULL) == LP_OK && ends(path, "/data/base"));
    CHECK(lp_is_embedded(path, "base") && !lp_is_embedded(path, "draft") && !lp_is_embedded(path, "nobody"));
    free(path);
    CHECK(lp_model_name(&path, "chat", LP_EMBEDDED_BASE, NULL) == LP_OK && ends(path, "/data/chat.gguf"));
    free(path);
    CHECK(lp_model_name(&path, "google/gemma-2-2b", LP_EMBEDDED_BASE, NULL) == LP_OK);
    CHECK_STR(path, "google/gemma-2-2b");
    free(path);
}

static void a_folder_here_comes_first(void)
{
    char folder[] = "/tmp/lapidary-data-XXXXXX", *path = NULL;
    CHECK(mkdtemp(folder) && chdir(folder) == 0 && mkdir("base", 0700) == 0);
    CHECK(lp_model_name(&path, "base", LP_EMBEDDED_BASE, NULL) == LP_OK);
    CHECK_STR(path, "base");
    CHECK(!lp_is_embedded(path, "base"));
    free(path);
    CHECK(lp_model_name(&path, NULL, LP_EMBEDDED_BASE, NULL) == LP_OK && ends(path, "/data/base"));
    free(path);
    CHECK(rmdir("base") == 0 && chdir("/") == 0 && rmdir(folder) == 0);
}

static void a_folder_chosen_is_the_only_one(void)
{
    lp_error err = {0};
    char *path = NULL;
    setenv("LAPIDARY_DATA", "/nowhere", 1);
    CHECK(lp_data_path(&path, "saes", &err) == LP_E_NOT_FOUND);
    CHECK_STR(err.text, "no saes in /nowhere (LAPIDARY_DATA)");
    CHECK(lp_model_name(&path, NULL, LP_EMBEDDED_BASE, &err) == LP_E_NOT_FOUND);
    setenv("LAPIDARY_DATA", LP_DATA_DIR, 1);
    CHECK(lp_data_path(&path, "saes", &err) == LP_OK && ends(path, "/data/saes"));
    free(path);
    unsetenv("LAPIDARY_DATA");
    CHECK(lp_data_path(&path, "nothing-of-the-kind", &err) == LP_E_NOT_FOUND);
}

int main(void)
{
    unsetenv("LAPIDARY_DATA");
    names();
    a_folder_here_comes_first();
    a_folder_chosen_is_the_only_one();
    return check_done();
}
