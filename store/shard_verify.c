/* shard_verify.c - see shard.h: is this file a whole shard?  First its bytes, then, in a child, what is in it.
 *
 * A damaged file can make libhdf5 spin (HDFGroup/hdf5#1707), take all memory or crash, and an honest one does not know
 * how its reader is built.  So the child has a limit of time and of memory, and tells what it found through a pipe;
 * however it ends, the caller gets one line.
 */
#include "store/shard_parts.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SECONDS = 60, BYTES_A_SECOND = 1000000 };

/* ---- the child --------------------------------------------------------------------------------------------------- */

/* What the process has mapped and what is left of the machine's memory.  A sanitizer's shadow is larger than any
 * limit. */
static void limit_memory(void)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    bool known = f && fscanf(f, "%llu", &pages) == 1;
    if (f) fclose(f);
    uint64_t left = lp_memory_available(), limit = left + pages * (uint64_t)sysconf(_SC_PAGESIZE);
    struct rlimit r = {limit, limit};
    if (left && known) setrlimit(RLIMIT_AS, &r);
#endif
}

/* Only this thread is here, and it holds the lock, as its parent did. */
static _Noreturn void look(const char *path, int to)
{
    lp_shard *s = NULL;
    lp_error err = {.status = LP_OK};
    limit_memory();
    lp_status st = lp_shard_open_locked(&s, path, NULL, &err);
    lp_h5_unlock();
    if (st == LP_OK) st = lp_shard_check(s, NULL, &err);
    err.status = st;
    _exit(write(to, &err, sizeof err) == (ssize_t)sizeof err ? 0 : 1);
}

/* ---- the parent -------------------------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* What the child says before the time is up; false: it says nothing.  Looks at env.cancel ten times a second. */
static bool hear(lp_error *said, bool *is_late, bool *is_cancelled, int from, double seconds, const lp_env *env)
{
    double end = now() + seconds;
    size_t n = 0;
    while (n < sizeof *said) {
        struct pollfd p = {.fd = from, .events = POLLIN};
        *is_late = now() > end;
        *is_cancelled = lp_cancelled(env);
        if (*is_late || *is_cancelled) return false;
        if (poll(&p, 1, 100) <= 0) continue;
        ssize_t k = read(from, (char *)said + n, sizeof *said - n);
        if (k == 0 || (k < 0 && errno != EINTR)) return false;
        if (k > 0) n += (size_t)k;
    }
    return true;
}

static lp_status judge(const char *path, pid_t child, int from, double seconds, const lp_env *env, lp_error *err)
{
    lp_error said = {0};
    bool is_late = false, is_cancelled = false;
    int status = 0;
    bool heard = hear(&said, &is_late, &is_cancelled, from, seconds, env);
    if (!heard) kill(child, SIGKILL);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (is_cancelled) return LP_CANCELLED;
    if (heard && said.status == LP_OK) return LP_OK;
    if (heard) return lp_fail(err, said.status, "%s", said.text);
    if (is_late)
        return lp_fail(err, LP_E_FORMAT,
                       "%s: not read in %.0f s: damaged in a way that makes libhdf5 spin, or longer "
                       "limits are needed",
                       path, seconds);
    return lp_fail(err, LP_E_FORMAT, "%s: damaged in a way that makes libhdf5 crash (signal %d)", path,
                   WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

lp_status lp_shard_verify(const char *path, const lp_shard_verify_options *o, const lp_env *env, lp_error *err)
{
    static const lp_shard_verify_options defaults;
    if (!o) o = &defaults;
    lp_file f;
    LP_TRY(lp_file_open(&f, path, err));
    double seconds = o->seconds ? o->seconds : SECONDS + (double)f.size / BYTES_A_SECOND;
    lp_file_close(&f);
    if (!o->no_hash) LP_TRY(lp_shard_check_hash(path, o->hash, env, err));
    int ends[2];
    if (pipe(ends) != 0) return lp_fail(err, LP_E_IO, "%s: no pipe: %s", path, strerror(errno));
    lp_h5_lock(); /* so that libhdf5 is between two calls when it is copied */
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        look(path, ends[1]);
    }
    lp_h5_unlock();
    close(ends[1]);
    lp_status st = child < 0 ? lp_fail(err, LP_E_MEMORY, "%s: no child process: %s", path, strerror(errno))
                             : judge(path, child, ends[0], seconds, env, err);
    close(ends[0]);
    return st;
}
