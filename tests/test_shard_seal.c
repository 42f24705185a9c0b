/* Sealing: whatever happens on the way - a kill, a full disk, a rival, a change of mind - there is a whole shard under
 * its name or none, and a line that says why.
 */
#include "tests/store_made.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

static char folder[64];

static void test_rivals(void)
{
    made_spec spec = {.n_tokens = 40, .n_documents = 3, .vocab = 9, .n_saes = 1, .d_sae = {30}, .number = 18};
    made *m = made_new(&spec);
    lp_shard_sealed first = {.name = ""}, again = {.name = ""};
    made_write(m, folder, 5, &first);
    CHECK_STR(first.name, "shard-000018.h5");
    CHECK(!first.was_there && first.n_values == m->saes[0].features.start[40]);
    made_write(m, folder, 3, &again);
    CHECK(again.was_there && strcmp(again.hash, first.hash) == 0 && made_n_files(folder) == 2);
    m->saes[0].sqerr[3] *= 2;
    lp_error err = {0};
    CHECK(made_try(m, folder, 5, NULL, &err) == LP_E_FORMAT && strstr(err.text, "with other bytes") != NULL);
    CHECK(made_n_files(folder) == 2);
    CHECK(lp_shard_verify(made_path(folder, "shard-000018.h5"), NULL, NULL, NULL) ==
          LP_OK); /* the first is as it was */
    made_free(m);
    made_clear(folder);
}

static void test_given_up(void)
{
    made_spec spec = {.n_tokens = 40, .n_documents = 3, .vocab = 9, .n_saes = 1, .d_sae = {30}};
    made *m = made_new(&spec);
    atomic_bool cancel = false;
    const lp_env env = {.cancel = &cancel};
    lp_shard_writer *w = NULL;
    int n = -1;
    CHECK(lp_shard_begin(&w, folder, &m->head, 1000, &env, NULL) == LP_OK && made_n_files(folder) == 1);
    CHECK(lp_shard_sweep(folder, &n, NULL) == LP_OK && n == 0 && made_n_files(folder) == 1); /* it is being written */
    CHECK(made_fill(w, m, 10, NULL) == LP_OK);
    lp_shard_writer_close(w);
    CHECK(made_n_files(folder) == 0);
    CHECK(lp_shard_begin(&w, folder, &m->head, 0, &env, NULL) == LP_OK);
    CHECK(made_fill(w, m, 10, NULL) == LP_OK);
    atomic_store(&cancel, true);
    CHECK(lp_shard_seal(w, NULL, NULL) == LP_CANCELLED);
    lp_shard_writer_close(w);
    CHECK(made_n_files(folder) == 0);
    lp_shard_writer_close(NULL);
    lp_shard_close(NULL);
    FILE *f = fopen(made_path(folder, ".shard-000007.h5.host.1.part"), "w"); /* as a kill leaves it */
    if (f) fclose(f);
    CHECK(lp_shard_sweep(folder, &n, NULL) == LP_OK && n == 1 && made_n_files(folder) == 0);
    CHECK(lp_shard_sweep("/nowhere", &n, NULL) == LP_E_IO);
    made_free(m);
}

/* Killed at the nth look around, from the first row to the last step of the seal: there is a whole shard or there is
 * none, and the next one to come sweeps up and makes the same. */
static void die_in_time(void *user, const char *what, int64_t done, int64_t of)
{
    int *left = user;
    (void)what, (void)done, (void)of;
    if ((*left)-- == 0) raise(SIGKILL);
}

static void write_and_die(const made *m, int n)
{
    const lp_env env = {.progress = die_in_time, .user = &n};
    lp_shard_writer *w = NULL;
    if (lp_shard_begin(&w, folder, &m->head, 0, &env, NULL) != LP_OK) _exit(1);
    die_in_time(&n, NULL, 0, 0);
    if (made_fill(w, m, 64, NULL) != LP_OK) _exit(1);
    die_in_time(&n, NULL, 0, 0);
    if (lp_shard_seal(w, NULL, NULL) != LP_OK) _exit(1);
    _exit(0);
}

static void test_kills(void)
{
    made_spec spec = {.n_tokens = 900, .n_documents = 3, .vocab = 9, .n_saes = 2, .d_sae = {300, 900}};
    made *m = made_new(&spec);
    lp_shard_sealed want = {.name = ""}, got;
    made_write(m, folder, 64, &want);
    made_clear(folder);
    int kills = 0, status = 1;
    for (int n = 0; n < 100 && status != 0; n++) {
        pid_t child = fork();
        if (child == 0) write_and_die(m, n);
        CHECK(waitpid(child, &status, 0) == child && (status == 0 || WTERMSIG(status) == SIGKILL));
        kills += status != 0;
        int swept = 0;
        CHECK(lp_shard_sweep(folder, &swept, NULL) == LP_OK && swept == (status != 0));
        CHECK(lp_is_file(made_path(folder, want.name)) == (status == 0));
        made_write(m, folder, 16, &got);
        CHECK_STR(got.hash, want.hash);
        CHECK(made_n_files(folder) == 2);
        made_clear(folder);
    }
    CHECK(kills >= 7 && status == 0);
    made_free(m);
}

/* libhdf5 1.10 forgets what it could not write when a file is closed; the leak is its own. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5";
}

/* A file that may not grow beyond `limit` bytes: as a disk that is full. */
static void test_full_disk(void)
{
    made_spec spec = {
        .n_tokens = 3000, .n_documents = 3, .vocab = 9, .n_saes = 2, .d_sae = {300, 900}, .l0 = 60, .has_dense = true};
    made *m = made_new(&spec);
    struct rlimit was, r;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &was);
    r = was;
    int failures = 0;
    lp_shard_sealed sealed = {.name = ""};
    made_write(m, folder, 64, &sealed);
    made_clear(folder);
    for (uint64_t i = 0; i < 40; i++) {
        lp_error err = {0};
        r.rlim_cur = i == 39 ? sealed.bytes * 2 : sealed.bytes * i / 39 + 1;
        setrlimit(RLIMIT_FSIZE, &r);
        lp_status st = made_try(m, folder, 64, NULL, &err);
        setrlimit(RLIMIT_FSIZE, &was);
        bool told = st == LP_OK || (st == LP_E_IO && strstr(err.text, "File too large") && !strchr(err.text, '\n'));
        if (!told) fprintf(stderr, "%llu bytes: status %d: %s\n", (unsigned long long)r.rlim_cur, (int)st, err.text);
        CHECK(told && made_n_files(folder) == (st == LP_OK ? 2 : 0));
        failures += st != LP_OK;
        made_clear(folder);
    }
    CHECK(failures == 39);
    made_free(m);
}

int main(void)
{
    made_folder(folder);
    test_rivals();
    test_given_up();
    test_kills();
    test_full_disk();
    made_remove(folder);
    return check_done();
}
