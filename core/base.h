/* base.h - what every floor of the house shares: statuses, errors, the environment of a call, memory, files.
 *
 * A function that can fail returns an lp_status and takes `lp_error *err` last (NULL: the text is not wanted).
 * Below zero is wrong, zero is done, above zero means "stopped on purpose" and is no error.  The text is one
 * line that says what is wrong and what to do; whoever sees it first writes it, nobody above rewrites it
 * (a path may be put in front with lp_prefix).  Our own mistakes are asserted, not returned.
 */
#ifndef LP_CORE_BASE_H
#define LP_CORE_BASE_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum lp_status {
    LP_OK = 0,
    LP_STOPPED = 1,        /* a hook or a callback asked to stop                                   */
    LP_CANCELLED = 2,      /* env.cancel was raised                                                */
    LP_E_MEMORY = -1,      /* no memory, or it would not fit                                       */
    LP_E_IO = -2,          /* the system refused a read, write, open                               */
    LP_E_FORMAT = -3,      /* a file is broken, hostile, or of a kind we do not read               */
    LP_E_SHAPE = -4,       /* a tensor or argument has the wrong shape                             */
    LP_E_NOT_FOUND = -5,   /* a file, model, site, name does not exist                             */
    LP_E_RANGE = -6,       /* an argument is out of its range (positions, token ids, options)      */
    LP_E_UNSUPPORTED = -7, /* well-formed, but not something this program does                     */
} lp_status;

enum { LP_ERROR_TEXT = 1024 };

typedef struct lp_error {
    lp_status status;
    char text[LP_ERROR_TEXT]; /* one line, no newline, always terminated; control bytes are shown as '?' */
} lp_error;

#if defined(__GNUC__)
#define LP_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define LP_PRINTF(f, a)
#endif

/* Fills `err` (when given) and returns `st`, so that a failure is one statement: return lp_fail(err, st, ...). */
lp_status lp_fail(lp_error *err, lp_status st, const char *fmt, ...) LP_PRINTF(3, 4);

/* Puts "prefix: " before the text already in `err`; returns err's status (or `st` when err is NULL). */
lp_status lp_prefix(lp_error *err, lp_status st, const char *prefix);

/* The one macro that hides control flow: leave the function with the first status that is not LP_OK. */
#define LP_TRY(call)                                                                                                   \
    do {                                                                                                               \
        lp_status lp_try_st = (call);                                                                                  \
        if (lp_try_st != LP_OK) return lp_try_st;                                                                      \
    } while (0)

/* ---- the environment of a call ------------------------------------------------------------------------- */

typedef enum lp_level { LP_INFO, LP_WARN } lp_level;

struct lp_pool;
struct lp_kernels;

/* Everything a call needs from outside.  All zero is a good default; copied by value, what it points to is
 * borrowed and must outlive whoever copied it (a session keeps the env it was made with). */
typedef struct lp_env {
    struct lp_pool *pool;             /* NULL: the calling thread alone.  A pool serves one caller at a time    */
    const struct lp_kernels *kernels; /* NULL: the best this CPU has; lp_kernels_c() for the reference          */
    atomic_bool *cancel;              /* NULL: cannot be cancelled; looked at once per layer                    */
    void (*log)(void *user, lp_level level, const char *line);                /* NULL: silent; whole lines      */
    void (*progress)(void *user, const char *what, int64_t done, int64_t of); /* NULL: none; calling thread     */
    void *user;
} lp_env;

void lp_log(const lp_env *env, lp_level level, const char *fmt, ...) LP_PRINTF(3, 4); /* env may be NULL */
void lp_progress(const lp_env *env, const char *what, int64_t done, int64_t of);
bool lp_cancelled(const lp_env *env);

/* ---- memory ---------------------------------------------------------------------------------------------- */

/* n * size zeroed bytes, or NULL (also when the product overflows).  Free with free(). */
void *lp_calloc(size_t n, size_t size);
/* Grows *array (of elements of `size` bytes) to hold at least `need`; doubles.  False: out of memory, unchanged. */
bool lp_grow(void **array, size_t *capacity, size_t need, size_t size);
char *lp_strdup(const char *s);
/* "model.gguf" ends in ".gguf"; ".gguf" alone does not. */
bool lp_ends_in(const char *s, const char *tail);
/* Levenshtein's distance in bytes, to guess what somebody meant; INT_MAX when either is longer than LP_GUESS. */
enum { LP_GUESS = 95 };
int lp_edit_distance(const char *a, const char *b);
/* printf into fresh memory; NULL when out of memory.  Free with free(). */
char *lp_format(const char *fmt, ...) LP_PRINTF(1, 2);

/* "9.9 MB", "5.30 GB". */
typedef struct lp_amount {
    char text[32];
} lp_amount;
lp_amount lp_amount_of(uint64_t bytes);

/* Large, zeroed, 2 MiB-aligned where it pays, backed by huge pages when the kernel has them; untouched pages cost
 * nothing.  NULL when it cannot be had.  Free with lp_big_free and the same size. */
void *lp_big_alloc(size_t bytes);
void lp_big_free(void *p, size_t bytes);

/* Bytes of memory that can still be taken without swapping (MemAvailable; a cgroup's limit counts), or 0 if unknown. */
uint64_t lp_memory_available(void);

/* ---- files ------------------------------------------------------------------------------------------------ */

/* A file opened for reading at absolute offsets.  Reads go through pread, not a mapping: a file that shrinks while
 * we read is an error message and not a SIGBUS, and no idle page of it counts against our memory. */
typedef struct lp_file {
    int fd;        /* -1: closed */
    uint64_t size; /* at opening */
    char *path;    /* owned      */
} lp_file;

lp_status lp_file_open(lp_file *f, const char *path, lp_error *err);                           /* regular files only */
lp_status lp_file_read(const lp_file *f, uint64_t at, void *buf, size_t bytes, lp_error *err); /* all or error */
void lp_file_close(lp_file *f);

/* The whole of a file, with a NUL after its end (not counted).  `limit`: larger files are refused.  Yours to free. */
lp_status lp_read_file(char **out, size_t *n, const char *path, size_t limit, lp_error *err);

bool lp_is_dir(const char *path);
bool lp_is_file(const char *path);
/* dir/name in fresh memory, NULL when out of memory. */
char *lp_path_join(const char *dir, const char *name);

#endif
