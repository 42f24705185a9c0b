/* corpus_files.h - which files a corpus is made of, in an order that does not depend on the file system.
 *
 * A corpus is one file or a folder.  In a folder:
 *     - folders are entered, however deep; links to files are followed, links to folders are not (so there is no loop)
 *     - *.txt is text, *.jsonl is JSON lines, each also with .gz after it; other names are passed over
 *     - files and folders whose name begins with a dot are passed over
 *     - the order is that of the names relative to the folder, compared byte by byte
 * What is passed over is counted in the log, by kind and with an example.  A file that cannot be read, a broken link, a
 * FIFO or device with one of those names is an error: it was meant to be there.
 *
 * One file may be called anything: *.jsonl (.gz) is JSON lines, everything else is text.
 */
#ifndef LP_STORE_CORPUS_FILES_H
#define LP_STORE_CORPUS_FILES_H

#include "core/base.h"

typedef struct lp_corpus_file {
    char *name; /* relative to the root, '/' between folders; UTF-8 */
    bool is_jsonl;
    uint64_t bytes; /* on the disk, when it was found */
} lp_corpus_file;

typedef struct lp_corpus_files { /* all zero is an empty one */
    char *root;                  /* the folder, or the one the file lies in */
    lp_corpus_file *items;       /* [n] */
    size_t n, room;
} lp_corpus_files;

/* LP_E_NOT_FOUND: no such path, or no file of a corpus in the folder.  On failure *out is empty. */
lp_status lp_corpus_files_find(lp_corpus_files *out, const char *path, const lp_env *env, lp_error *err);
/* Appends a file; the name is copied. */
lp_status lp_corpus_files_add(lp_corpus_files *f, const char *name, bool is_jsonl, uint64_t bytes, lp_error *err);
void lp_corpus_files_clear(lp_corpus_files *f);

/* A name that stays inside the root: relative, no empty part, no "." or "..". */
bool lp_corpus_name_is_safe(const char *name);

#endif
