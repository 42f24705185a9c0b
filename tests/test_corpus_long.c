/* One line of a gigabyte: a text is read in pieces and a JSON line is refused, and neither takes more memory than a small
 * one. */
#include "tests/corpora.h"

#include <sys/resource.h>

static void put_sparse(const char *name, off_t bytes)
{
    put_text(name, "{\"text\":\"");
    CHECK(truncate(at(corpus_root, name), bytes) == 0);
}

int main(void)
{
    enum { GIGABYTE = 1 << 30 };
    lp_corpus *c = NULL;
    lp_error err = {.text = ""};
    const lp_document *d = NULL;
    struct rusage used;
    uint64_t total = 0, pieces = 0;
    CHECK(mkdtemp(corpus_root) != NULL);
    put_sparse("a.txt", GIGABYTE);
    CHECK(lp_corpus_open(&c, at(corpus_root, "a.txt"), NULL, NULL, &err) == LP_OK);
    CHECK(c && lp_corpus_next(c, &d, &err) == LP_OK && d && d->n_bytes == GIGABYTE);
    for (size_t n = 1; c && d && n; total += n, pieces += n > 0) {
        const char *text;
        if (lp_corpus_piece(c, &text, &n, &err) != LP_OK) break;
    }
    CHECK(total == GIGABYTE && pieces == GIGABYTE / LP_PIECE_BYTES);
    lp_corpus_close(c);
    c = NULL;

    put_sparse("a.jsonl", GIGABYTE);
    CHECK(lp_corpus_open(&c, at(corpus_root, "a.jsonl"), &(lp_corpus_options){.skip_bad = true}, NULL, &err) == LP_OK);
    CHECK(c && lp_corpus_next(c, &d, &err) == LP_E_FORMAT);
    CHECK(strstr(err.text, "/a.jsonl:1: a line of 1073741824 bytes, more than the 67108864 a record may have"));
    lp_corpus_close(c);
    CHECK(getrusage(RUSAGE_SELF, &used) == 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CHECK(used.ru_maxrss < 32 << 10); /* KiB */
#endif
    printf("%ld KiB at most\n", used.ru_maxrss);
    remove_tree(corpus_root);
    return check_done();
}
