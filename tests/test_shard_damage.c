/* A shard that was cut, bent or never was one: verifying says so in one line, whatever libhdf5 makes of it.
 *
 * test_shard_damage --verify FILE: the inside of a file that came without a hash, for check_shard.py.
 */
#include "tests/store_made.h"

#include <signal.h>
#include <sys/stat.h>

static char folder[64], path[128];
static unsigned char *bytes;
static size_t n_bytes;
static int n_found, n_harmless;

static void put(const unsigned char *p, size_t n)
{
    unlink(path);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(p, 1, n, f) != n) exit(1);
    fclose(f);
}

/* The inside alone, since the hash finds everything.  Returns whether something was found. */
static bool look(const char *what, size_t at)
{
    const lp_shard_verify_options o = {.no_hash = 1, .seconds = 20};
    lp_error err = {0};
    lp_status st = lp_shard_verify(path, &o, NULL, &err);
    bool ok = st == LP_OK || ((st == LP_E_FORMAT || st == LP_E_UNSUPPORTED || st == LP_E_MEMORY || st == LP_E_RANGE) &&
                              strncmp(err.text, path, strlen(path)) == 0 && !strchr(err.text, '\n'));
    if (!ok) fprintf(stderr, "%s %zu: status %d: %s\n", what, at, (int)st, err.text);
    CHECK(ok);
    n_found += st != LP_OK, n_harmless += st == LP_OK;
    return st != LP_OK;
}

static void test_truncated(void)
{
    for (size_t i = 0; i < 40; i++) {
        size_t n = i < 10 ? i * 13 : n_bytes * (i - 10) / 30;
        put(bytes, n);
        CHECK(look("cut to", n));
    }
    put(bytes, n_bytes - 1);
    CHECK(look("cut by", 1));
}

static void test_flipped(void)
{
    unsigned char *copy = made_array(n_bytes, 1);
    size_t step = n_bytes / 250;
    for (size_t at = 0; at < n_bytes; at += at < 600 ? 17 : step) {
        memcpy(copy, bytes, n_bytes);
        copy[at] ^= (unsigned char)(1u << (at % 8));
        put(copy, n_bytes);
        look("a bit of byte", at);
        lp_error err = {0}; /* and with the hash nothing passes */
        CHECK(lp_shard_verify(path, NULL, NULL, &err) == LP_E_FORMAT && strstr(err.text, "damaged: its XXH3-128 is"));
        lp_shard *s = NULL;
        CHECK(lp_shard_open(&s, path, LP_SHARD_HASHED, NULL, &err) == LP_E_FORMAT && !s);
    }
    free(copy);
}

/* A page of zeros, as a crashed file system leaves it. */
static void test_zeroed(void)
{
    unsigned char *copy = made_array(n_bytes, 1);
    for (size_t at = 0; at + 512 < n_bytes; at += n_bytes / 60) {
        memcpy(copy, bytes, n_bytes);
        memset(copy + at, 0, 512);
        put(copy, n_bytes);
        look("zeros at", at);
    }
    free(copy);
}

static void test_others(void)
{
    static const char text[] = "this is no HDF5 file\n";
    lp_error err = {0};
    lp_shard *s = NULL;
    put((const unsigned char *)text, sizeof text);
    CHECK(look("a text", 0));
    put((const unsigned char *)text, 0);
    CHECK(look("nothing", 0));
    CHECK(lp_shard_open(&s, "/nowhere/shard.h5", LP_SHARD_HASHED, NULL, &err) == LP_E_NOT_FOUND && !s);
    CHECK(lp_shard_verify("/nowhere/shard.h5", NULL, NULL, &err) < 0 && strstr(err.text, "/nowhere/shard.h5"));
    put(bytes, n_bytes);
    char side[140], is[33];
    snprintf(side, sizeof side, "%s.xxh3", path);
    CHECK(lp_file_hash(is, path, NULL, NULL) == LP_OK);
    unlink(side);
    CHECK(lp_shard_open(&s, path, LP_SHARD_HASHED, NULL, &err) == LP_E_NOT_FOUND &&
          strstr(err.text, "cannot be verified"));
    CHECK(lp_shard_open(&s, path, LP_SHARD_TRUSTED, NULL, NULL) == LP_OK);
    lp_shard_close(s);
    CHECK(lp_shard_verify(path, &(lp_shard_verify_options){.hash = is}, NULL, NULL) == LP_OK);
    is[4] ^= 1;
    CHECK(lp_shard_verify(path, &(lp_shard_verify_options){.hash = is}, NULL, NULL) == LP_E_FORMAT);
    FILE *f = fopen(side, "w");
    if (f) fputs("no hash\n", f), fclose(f);
    CHECK(lp_shard_open(&s, path, LP_SHARD_HASHED, NULL, &err) == LP_E_FORMAT && strstr(err.text, "XXH3-128"));
}

/* Whatever the child does, the caller has a line: here it is stopped before it can say anything. */
static void test_limits(void)
{
    atomic_bool cancel = true;
    const lp_env env = {.cancel = &cancel};
    put(bytes, n_bytes);
    CHECK(lp_shard_verify(path, &(lp_shard_verify_options){.no_hash = 1}, &env, NULL) == LP_CANCELLED);
}

static int verify(const char *file)
{
    lp_error err = {0};
    lp_status st = lp_shard_verify(file, &(lp_shard_verify_options){.no_hash = 1}, NULL, &err);
    puts(st == LP_OK ? "whole" : err.text);
    return st != LP_OK;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--verify") == 0) return verify(argv[2]);
    const made_spec spec = {.n_tokens = 600,
                            .n_documents = 9,
                            .vocab = 90,
                            .n_saes = 2,
                            .d_sae = {40, 200},
                            .has_logprob = true,
                            .has_dense = true};
    made *m = made_new(&spec);
    lp_shard_sealed sealed = {.name = ""};
    made_folder(folder);
    made_write(m, folder, 32, &sealed);
    snprintf(path, sizeof path, "%s/%s", folder, sealed.name);
    char *whole = NULL;
    CHECK(lp_read_file(&whole, &n_bytes, path, 1 << 28, NULL) == LP_OK);
    bytes = (unsigned char *)whole;
    put(bytes, n_bytes);
    CHECK(!look("untouched", 0));
    test_truncated();
    test_flipped();
    test_zeroed();
    printf("of %zu bytes: %d damages found inside, %d harmless or in dense values, which only the hash covers\n",
           n_bytes, n_found, n_harmless);
    CHECK(n_found > 200);
    test_others();
    test_limits();
    free(whole);
    made_free(m);
    made_remove(folder);
    return check_done();
}
