/* corpus_files.c - see corpus_files.h. */
#include "store/corpus_files.h"

#include "core/utf8.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { HIDDEN, OTHER, LINKED, N_KINDS };

/* One search of a folder: what it found, and what it passed over. */
typedef struct search {
    lp_corpus_files *f;
    size_t passed[N_KINDS];
    char *example[N_KINDS]; /* the bytewise first of a kind: it must not depend on the file system either */
    lp_error *err;
} search;

static lp_status no_memory(lp_error *err)
{
    return lp_fail(err, LP_E_MEMORY, "a corpus: out of memory for its files");
}

lp_status lp_corpus_files_add(lp_corpus_files *f, const char *name, bool is_jsonl, uint64_t bytes, lp_error *err)
{
    char *copy = lp_strdup(name);
    if (!copy || !lp_grow((void **)&f->items, &f->room, f->n + 1, sizeof *f->items)) {
        free(copy);
        return no_memory(err);
    }
    f->items[f->n++] = (lp_corpus_file){.name = copy, .is_jsonl = is_jsonl, .bytes = bytes};
    return LP_OK;
}

void lp_corpus_files_clear(lp_corpus_files *f)
{
    for (size_t i = 0; i < f->n; i++) free(f->items[i].name);
    free(f->items);
    free(f->root);
    *f = (lp_corpus_files){0};
}

bool lp_corpus_name_is_safe(const char *name)
{
    for (const char *part = name;; part++) {
        size_t n = strcspn(part, "/");
        if (n == 0 || (n == 1 && part[0] == '.') || (n == 2 && part[0] == '.' && part[1] == '.')) return false;
        part += n;
        if (!*part) return true;
    }
}

static bool is_utf8(const char *s)
{
    for (size_t n = strlen(s); n;) {
        int len = lp_utf8_next(s, n);
        if (len <= 0) return false;
        s += len, n -= (size_t)len;
    }
    return true;
}

static bool ends_in(const char *name, const char *tail)
{
    char zipped[16] = "";
    strcat(strcat(zipped, tail), ".gz");
    return lp_ends_in(name, tail) || lp_ends_in(name, zipped);
}

/* ---- a folder ---------------------------------------------------------------------------------------------------- */

static lp_status pass_over(search *s, int kind, const char *name)
{
    s->passed[kind]++;
    if (s->example[kind] && strcmp(s->example[kind], name) <= 0) return LP_OK;
    free(s->example[kind]);
    s->example[kind] = lp_strdup(name);
    return s->example[kind] ? LP_OK : no_memory(s->err);
}

static lp_status look_into(search *s, const char *path, const char *name);

/* `base`: the last part of `name`, which is relative to the root. */
static lp_status take(search *s, const char *path, const char *name, const char *base)
{
    struct stat sb;
    bool is_jsonl = ends_in(base, ".jsonl"), is_ours = is_jsonl || ends_in(base, ".txt");
    if (base[0] == '.') return pass_over(s, HIDDEN, name);
    if (lstat(path, &sb) != 0) return lp_fail(s->err, LP_E_IO, "%s: %s", path, strerror(errno));
    if (S_ISDIR(sb.st_mode)) return look_into(s, path, name);
    bool is_link = S_ISLNK(sb.st_mode);
    bool broken = is_link && stat(path, &sb) != 0;
    if (is_link && !broken && S_ISDIR(sb.st_mode)) return pass_over(s, LINKED, name);
    if (!is_ours) return pass_over(s, OTHER, name);
    if (broken) return lp_fail(s->err, LP_E_IO, "%s: a link to nothing: %s", path, strerror(errno));
    if (!S_ISREG(sb.st_mode))
        return lp_fail(s->err, LP_E_IO, "%s: not a regular file; take it out of the folder", path);
    if (!is_utf8(name)) return lp_fail(s->err, LP_E_UNSUPPORTED, "%s: a name that is no UTF-8; rename it", path);
    return lp_corpus_files_add(s->f, name, is_jsonl, (uint64_t)sb.st_size, s->err);
}

/* `name`: of the folder, relative to the root; "" for the root itself. */
static lp_status look_into(search *s, const char *path, const char *name)
{
    DIR *d = opendir(path);
    if (!d) return lp_fail(s->err, LP_E_IO, "%s: %s", path, strerror(errno));
    lp_status st = LP_OK;
    while (st == LP_OK) {
        errno = 0;
        const struct dirent *e = readdir(d);
        if (!e) {
            if (errno) st = lp_fail(s->err, LP_E_IO, "%s: %s", path, strerror(errno));
            break;
        }
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *there = lp_path_join(path, e->d_name);
        char *full = *name ? lp_path_join(name, e->d_name) : lp_strdup(e->d_name);
        st = there && full ? take(s, there, full, e->d_name) : no_memory(s->err);
        free(there);
        free(full);
    }
    closedir(d);
    return st;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const lp_corpus_file *)a)->name, ((const lp_corpus_file *)b)->name); /* as unsigned bytes */
}

static lp_status find_in_folder(lp_corpus_files *out, const char *path, const lp_env *env, lp_error *err)
{
    static const char *const what[] = {"hidden", "neither .txt nor .jsonl", "links to folders"};
    search s = {.f = out, .err = err};
    lp_status st = look_into(&s, path, "");
    for (int k = 0; k < N_KINDS; k++) {
        if (st == LP_OK && s.passed[k])
            lp_log(env, k == HIDDEN ? LP_INFO : LP_WARN, "%s: passed over %zu %s: %s%s", path, s.passed[k], what[k],
                   s.example[k], s.passed[k] > 1 ? ", ..." : "");
        free(s.example[k]);
    }
    if (st != LP_OK) return st;
    if (!out->n)
        return lp_fail(err, LP_E_NOT_FOUND,
                       "%s: no *.txt and no *.jsonl (or .gz of them) in it, which a corpus is made of", path);
    qsort(out->items, out->n, sizeof *out->items, by_name);
    return LP_OK;
}

/* ---- either ------------------------------------------------------------------------------------------------------ */

static lp_status take_file(lp_corpus_files *out, const char *path, uint64_t bytes, lp_error *err)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    out->root = slash ? lp_format("%.*s", (int)(slash - path + 1), path) : lp_strdup(".");
    if (!out->root) return no_memory(err);
    if (!is_utf8(name)) return lp_fail(err, LP_E_UNSUPPORTED, "%s: a name that is no UTF-8; rename it", path);
    return lp_corpus_files_add(out, name, ends_in(name, ".jsonl"), bytes, err);
}

lp_status lp_corpus_files_find(lp_corpus_files *out, const char *path, const lp_env *env, lp_error *err)
{
    struct stat sb;
    lp_status st;
    *out = (lp_corpus_files){0};
    if (stat(path, &sb) != 0) {
        st = errno == ENOENT || errno == ENOTDIR ? LP_E_NOT_FOUND : LP_E_IO;
        return lp_fail(err, st, "%s: %s", path, strerror(errno));
    }
    if (S_ISREG(sb.st_mode)) {
        st = take_file(out, path, (uint64_t)sb.st_size, err);
    } else if (S_ISDIR(sb.st_mode)) {
        out->root = lp_strdup(path);
        st = out->root ? find_in_folder(out, path, env, err) : no_memory(err);
    } else {
        st = lp_fail(err, LP_E_IO, "%s: neither a regular file nor a folder", path);
    }
    if (st != LP_OK) lp_corpus_files_clear(out);
    return st;
}
