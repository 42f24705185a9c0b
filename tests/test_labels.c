/* Neuronpedia's exports: by index and not by line, compressed or not, several batches, several explanations, and what must be
 * refused with file and line. */
#include "sae/labels.h"

#include "tests/check.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

static char root[] = "/tmp/lapidary-labels-XXXXXX";
static char path[256];

static const char *at(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static void put(const char *name, const char *text, size_t n)
{
    FILE *f = fopen(at(name), "wb");
    CHECK(f && fwrite(text, 1, n, f) == n);
    if (f) fclose(f);
}

static void put_gz(const char *name, const char *text)
{
    gzFile f = gzopen(at(name), "wb");
    CHECK(f && gzwrite(f, text, (unsigned)strlen(text)) == (int)strlen(text));
    if (f) gzclose(f);
}

static void clear(void)
{
    static const char *const files[] = {"explanations/batch-0.jsonl", "explanations/batch-0.jsonl.gz",
                                        "explanations/batch-1.jsonl", "features/batch-0.jsonl.gz",
                                        "features/notes.txt"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) unlink(at(files[i]));
}

static void good_ones(void)
{
    lp_labels l;
    lp_error err = {0};
    put_gz("explanations/batch-0.jsonl.gz",
           "{\"modelId\":\"m\",\"layer\":\"3-x\",\"index\":\"0\",\"description\":\"zero\",\"typeName\":\"oai_token-act-"
           "pair\"}\n"
           "{\"index\":\"10\",\"description\":\"ten, \\u00e9\\u2581\",\"scores\":[{\"value\":null}]}\n"
           "\n"
           "{\"index\":\"2\",\"description\":null}\n");
    const char *more =
        "{\"index\":\"0\",\"description\":\"by hand\"}\n{\"index\":1,\"description\":\"one\","
        "\"typeName\":\"lapidary_auto\"}\n{\"index\":\"1\",\"description\":\"not this\",\"typeName\":\"np_max-act\"}";
    put("explanations/batch-1.jsonl", more, strlen(more)); /* no newline at its end */
    put_gz("features/batch-0.jsonl.gz", "{\"index\":\"10\",\"maxActApprox\":8.5,\"frac_nonzero\":0.25}\n"
                                        "{\"index\":\"3\",\"maxActApprox\":null}\n");
    put("features/notes.txt", "not JSON", 8);
    CHECK(lp_labels_read(&l, root, 11, &err) == LP_OK);
    if (err.status < 0) fprintf(stderr, "%s\n", err.text);
    CHECK_STR(lp_label_text(&l, 0), "by hand"); /* a person's before a program's */
    CHECK_STR(lp_label_text(&l, 1), "one");     /* the first of the same rank    */
    CHECK_STR(lp_label_text(&l, 10), "ten, \xc3\xa9\xe2\x96\x81");
    CHECK(!lp_label_text(&l, 2) && !lp_label_text(&l, -1) && !lp_label_text(&l, 11) && !lp_label_text(NULL, 0));
    CHECK(lp_label_max(&l, 10) == 8.5f && lp_label_max(&l, 3) == 0 && lp_label_max(NULL, 3) == 0);
    CHECK(l.items[10].share == 0.25f && isnan(l.items[3].share) && l.n_named == 3);
    lp_labels_free(&l);
    clear();
}

static void refuse(const char *text, size_t n, lp_status want, const char *says)
{
    lp_labels l;
    lp_error err = {0};
    put("explanations/batch-0.jsonl", text, n);
    CHECK(lp_labels_read(&l, root, 5, &err) == want);
    CHECK(strstr(err.text, says) != NULL && !strchr(err.text, '\n'));
    if (!strstr(err.text, says)) fprintf(stderr, "got: %s\n", err.text);
    clear();
}

#define REFUSE(text, says) refuse(text, sizeof(text) - 1, LP_E_FORMAT, says)

static void bad_ones(void)
{
    lp_labels l;
    lp_error err = {0};
    CHECK(lp_labels_read(&l, root, 5, &err) == LP_E_NOT_FOUND && strstr(err.text, "explanations"));
    CHECK(lp_labels_read(&l, "/no/such/folder", 5, &err) == LP_E_NOT_FOUND);
    REFUSE("{\"index\":\"0\",\"description\":\"a\"}\n{\"index\":\"5\",\"description\":\"b\"}\n",
           "line 2: feature 5, but this SAE has 5");
    REFUSE("{\"index\":\"-1\",\"description\":\"a\"}\n", "line 1: no \"index\"");
    REFUSE("{\"index\":\"99999999999999999999\"}\n", "no \"index\"");
    REFUSE("{\"index\":\"3x\"}\n", "no \"index\"");
    REFUSE("{\"description\":\"a\"}\n", "no \"index\"");
    REFUSE("[1,2]\n", "not a JSON object");
    REFUSE("{\"index\":\"0\"", "not a JSON object");
    REFUSE("{\"index\":\"0\",\"description\":\"\xff\xfe\"}\n", "not a JSON object");
    REFUSE("\0\0\0\n", "not a JSON object");
    char *long_line = malloc(6 << 20);
    CHECK(long_line != NULL);
    if (long_line) {
        memset(long_line, 'x', 6 << 20);
        refuse(long_line, 6 << 20, LP_E_FORMAT, "longer than any row");
    }
    free(long_line);
    /* A compressed file that is cut or broken in the middle. */
    put_gz("explanations/batch-0.jsonl.gz",
           "{\"index\":\"0\",\"description\":\"a longer text than that, so that cutting "
           "it hurts\"}\n{\"index\":\"1\",\"description\":\"b\"}\n");
    struct stat s;
    CHECK(stat(at("explanations/batch-0.jsonl.gz"), &s) == 0 && truncate(path, s.st_size - 12) == 0);
    CHECK(lp_labels_read(&l, root, 5, &err) == LP_E_FORMAT);
    clear();
}

int main(void)
{
    CHECK(mkdtemp(root) != NULL);
    CHECK(mkdir(at("explanations"), 0700) == 0 && mkdir(at("features"), 0700) == 0);
    good_ones();
    bad_ones();
    rmdir(at("explanations"));
    rmdir(at("features"));
    rmdir(root);
    return check_done();
}
