/* shard_file.c - see shard.h: a shard's bytes, their hash, the line beside them, and what a kill left behind. */
#include "core/outfile.h"
#include "sae/hash.h"
#include "store/shard_parts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 1 << 20, SIDE_LIMIT = 4096, QUIET_SECONDS = 10 };

/* ---- hashes ------------------------------------------------------------------------------------------------------ */

static lp_status hash_all(XXH3_state_t *state, const lp_file *f, unsigned char *buf, const lp_env *env, lp_error *err)
{
    for (uint64_t at = 0; at < f->size;) {
        size_t n = f->size - at < PIECE ? (size_t)(f->size - at) : PIECE;
        if (lp_cancelled(env)) return LP_CANCELLED;
        LP_TRY(lp_file_read(f, at, buf, n, err));
        XXH3_128bits_update(state, buf, n);
        at += n;
        lp_progress(env, "hashing", (int64_t)at, (int64_t)f->size);
    }
    return LP_OK;
}

lp_status lp_file_hash(char out[33], const char *path, const lp_env *env, lp_error *err)
{
    lp_file f;
    LP_TRY(lp_file_open(&f, path, err));
    XXH3_state_t *state = XXH3_createState();
    unsigned char *buf = malloc(PIECE);
    lp_status st = LP_E_MEMORY;
    if (state && buf && XXH3_128bits_reset(state) == XXH_OK)
        st = hash_all(state, &f, buf, env, err);
    else
        lp_fail(err, st, "%s: out of memory", path);
    if (st == LP_OK) lp_hash_text(out, XXH3_128bits_digest(state));
    free(buf);
    XXH3_freeState(state);
    lp_file_close(&f);
    return st;
}

/* The line xxh128sum writes and checks. */
lp_status lp_shard_write_side(const char *path, const char *hash, lp_error *err)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char *line = lp_format("%s  %s\n", hash, name), *side = lp_format("%s.xxh3", path);
    lp_status st = line && side ? lp_outfile_text(side, line, "", err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    free(line), free(side);
    return st;
}

lp_status lp_shard_side_hash(char out[33], const char *path, lp_error *err)
{
    char *side = lp_format("%s.xxh3", path), *text = NULL;
    size_t n = 0;
    lp_status st = LP_OK;
    if (!side)
        st = lp_fail(err, LP_E_MEMORY, "out of memory");
    else if (!lp_is_file(side))
        st = lp_fail(err, LP_E_NOT_FOUND, "%s: no such file, so %s cannot be verified", side, path);
    else
        st = lp_read_file(&text, &n, side, SIDE_LIMIT, err);
    if (st == LP_OK) {
        bool ok = n > 34 && text[32] == ' ';
        if (ok) text[32] = '\0';
        if (ok && lp_is_hash(text))
            memcpy(out, text, 33);
        else
            st = lp_fail(err, LP_E_FORMAT, "%s: not a line with an XXH3-128 and a name", side);
    }
    free(side), free(text);
    return st;
}

lp_status lp_shard_check_hash(const char *path, const char *hash, const lp_env *env, lp_error *err)
{
    char side[33], now[33];
    if (!hash) {
        LP_TRY(lp_shard_side_hash(side, path, err));
        hash = side;
    }
    LP_TRY(lp_file_hash(now, path, env, err));
    if (strcmp(now, hash) == 0) return LP_OK;
    return lp_fail(err, LP_E_FORMAT, "%s: damaged: its XXH3-128 is %s, it was sealed as %s", path, now, hash);
}

/* ---- folders ----------------------------------------------------------------------------------------------------- */

void lp_sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

static bool is_part(const char *name)
{
    return strncmp(name, ".shard-", 7) == 0 && lp_ends_in(name, ".part");
}

void lp_shard_host(char out[LP_SHARD_HOST])
{
    memset(out, 0, LP_SHARD_HOST);
    gethostname(out, LP_SHARD_HOST - 1);
    for (char *c = out; *c; c++)
        if (*c == '/') *c = '_';
}

/* .shard-000018.h5.HOST.PID.part: is that another process of this machine, and alive (or not yet buried)? */
static bool has_living_owner(const char *name)
{
    char host[LP_SHARD_HOST];
    lp_shard_host(host);
    const char *at = strstr(name, ".h5.");
    size_t n = strlen(host);
    if (!at || strncmp(at + 4, host, n) != 0 || at[4 + n] != '.') return false;
    long pid = strtol(at + 5 + n, NULL, 10);
    return pid > 0 && pid != (long)getpid() && (kill((pid_t)pid, 0) == 0 || errno != ESRCH);
}

/* libhdf5 locks a file while it writes it; where locks do not work, nothing is taken away.  One that was just made, or just
 * closed to be sealed, has no lock for a moment: if its owner lives, it must have been left alone for a while as well. */
static bool is_left_behind(const char *path, const char *name)
{
    struct stat s;
    if (stat(path, &s) != 0 || (has_living_owner(name) && time(NULL) - s.st_mtime < QUIET_SECONDS)) return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool is_free = flock(fd, LOCK_EX | LOCK_NB) == 0;
    close(fd);
    return is_free;
}

lp_status lp_shard_sweep(const char *folder, int *n, lp_error *err)
{
    DIR *dir = opendir(folder);
    lp_status st = LP_OK;
    int taken = 0;
    if (!dir) return lp_fail(err, LP_E_IO, "%s: cannot read: %s", folder, strerror(errno));
    for (struct dirent *e; st == LP_OK && (e = readdir(dir));) {
        if (!is_part(e->d_name)) continue;
        char *path = lp_path_join(folder, e->d_name);
        if (!path)
            st = lp_fail(err, LP_E_MEMORY, "out of memory");
        else if (is_left_behind(path, e->d_name) && unlink(path) == 0)
            taken++;
        free(path);
    }
    closedir(dir);
    if (n) *n = taken;
    return st;
}
