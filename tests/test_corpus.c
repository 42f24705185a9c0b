/* Corpora: which files, in which order, what a document is, where it is cut, and what is refused or passed over and how
 * that is said. */
#include "tests/corpora.h"

#include <fcntl.h>

/* ---- reading everything ------------------------------------------------------------------------------------------ */

static char found[8192];

static void note(const char *text, size_t n)
{
    size_t used = strlen(found);
    for (size_t i = 0; i < n && used + 8 < sizeof found; i++) {
        unsigned char c = (unsigned char)text[i];
        used += (size_t)snprintf(found + used, sizeof found - used, c < 0x20 || c > 0x7e ? "\\x%02x" : "%c", c);
    }
}

/* "file:line(key)offset+length=text;" of each document, pieces parted by "|". */
static lp_status read_all(lp_corpus *c, lp_error *err)
{
    const lp_document *d;
    char head[256];
    for (;;) {
        LP_TRY(lp_corpus_next(c, &d, err));
        if (!d) return LP_OK;
        snprintf(head, sizeof head, "%s:%d(%s)%d+%d=", lp_corpus_get_files(c)->items[d->file].name, (int)d->line,
                 d->key ? d->key : "", (int)d->offset, (int)d->length);
        note(head, strlen(head));
        uint64_t total = 0;
        for (;;) {
            const char *text;
            size_t n;
            LP_TRY(lp_corpus_piece(c, &text, &n, err));
            if (!n) break;
            if (total) note("|", 1);
            note(text, n);
            total += n;
        }
        CHECK(total == d->n_bytes);
        note(";", 1);
    }
}

static lp_status list_into_found(const char *name, const lp_corpus_options *o, int64_t *skipped, lp_error *err)
{
    lp_env env = log_env();
    lp_corpus *c = NULL;
    found[0] = 0;
    lp_status st = lp_corpus_open(&c, *name ? at(corpus_root, name) : corpus_root, o, &env, err);
    if (st == LP_OK) st = read_all(c, err);
    if (skipped) *skipped = c ? lp_corpus_skipped(c) : -1;
    lp_corpus_close(c);
    return st;
}

static const char *list(const char *name, const lp_corpus_options *o)
{
    lp_error err = {.text = ""};
    if (list_into_found(name, o, NULL, &err) != LP_OK) return err.text[0] ? "failed" : "failed without a word";
    return found;
}

static void refuse(const char *name, const lp_corpus_options *o, lp_status want, const char *says)
{
    lp_error err = {.text = ""};
    lp_status st = list_into_found(name, o, NULL, &err);
    CHECK(st == want && err.status == want && strstr(err.text, says) && !strchr(err.text, '\n'));
    if (st != want || !strstr(err.text, says)) fprintf(stderr, "%d, %s; want %d, %s\n", st, err.text, want, says);
}

/* ---- what a document is ------------------------------------------------------------------------------------------ */

static void texts(void)
{
    const lp_corpus_options lines = {.split = LP_SPLIT_LINES}, paragraphs = {.split = LP_SPLIT_PARAGRAPHS};
    put_text("a.txt", "one\ntwo\r\n\r\n \t\nthree\nfour\n\n\nfive");
    CHECK_STR(list("a.txt", NULL),
              "a.txt:1()0+31=one\\x0atwo\\x0d\\x0a\\x0d\\x0a \\x09\\x0athree\\x0afour\\x0a\\x0a\\x0afive;");
    CHECK(strstr(corpus_log, "! ") && strstr(corpus_log, "CRLF"));
    CHECK_STR(list("a.txt", &lines), "a.txt:1()0+3=one;a.txt:2()4+3=two;a.txt:5()14+5=three;a.txt:6()20+4=four;"
                                     "a.txt:9()27+4=five;");
    CHECK_STR(corpus_log, "");
    CHECK_STR(list("a.txt", &paragraphs), "a.txt:1()0+7=one\\x0atwo;a.txt:5()14+10=three\\x0afour;a.txt:9()27+4=five;");
    put_text("a.txt", "\xef\xbb\xbfx\n");
    CHECK_STR(list("a.txt", NULL), "a.txt:1()3+2=x\\x0a;");
    CHECK_STR(list("a.txt", &lines), "a.txt:1()3+1=x;");
    put_text("a.txt", "");
    CHECK_STR(list("a.txt", NULL), "a.txt:1()0+0=;"); /* never lost */
    CHECK_STR(list("a.txt", &lines), "");
    CHECK_STR(list("a.txt", &paragraphs), "");
    put_text("a.txt", "\xef\xbb\xbf");
    CHECK_STR(list("a.txt", NULL), "a.txt:1()3+0=;");
    put_text("a.txt", "\n \n");
    CHECK_STR(list("a.txt", NULL), "a.txt:1()0+3=\\x0a \\x0a;");
    CHECK_STR(list("a.txt", &paragraphs), "");
    put_file(at(corpus_root, "a.txt"), "a\0\xff\xc3\n\0", 6);
    CHECK_STR(list("a.txt", NULL), "a.txt:1()0+6=a\\x00\\xff\\xc3\\x0a\\x00;");
    CHECK_STR(list("a.txt", &lines), "a.txt:1()0+4=a\\x00\\xff\\xc3;a.txt:2()5+1=\\x00;");
    put_gz("b.txt.gz", "x\ny", 3);
    CHECK_STR(list("b.txt.gz", &lines), "b.txt.gz:1()0+1=x;b.txt.gz:2()2+1=y;");
    put_gz("b.txt", "told by its bytes", 17);
    CHECK_STR(list("b.txt", NULL), "b.txt:1()0+17=told by its bytes;");
    put_text("b.txt.gz", "not compressed");
    CHECK_STR(list("b.txt.gz", NULL), "b.txt.gz:1()0+14=not compressed;");
    put_text("notes", "any name");
    CHECK_STR(list("notes", NULL), "notes:1()0+8=any name;");
}

static void json_lines(void)
{
    const lp_corpus_options keyed = {.field = "t", .key = "id"};
    put_text(
        "a.jsonl",
        "\xef\xbb\xbf{\"text\":\"a\\u0000\\u00e9\\ud83d\\udc0b\"}\r\n\n \t\r\n{\"x\":[1,{\"text\":2}],\"text\":\"\"}\n"
        "{\"text\":\"end\"}");
    CHECK_STR(list("a.jsonl", NULL),
              "a.jsonl:1()3+36=a\\x00\\xc3\\xa9\\xf0\\x9f\\x90\\x8b;a.jsonl:4()46+30=;a.jsonl:5()77+14=end;");
    put_text("a.jsonl", "{\"t\":\"p\",\"id\":\"k 1\"}\n{\"id\":-7,\"t\":\"q\"}\n{\"id\":\"k 1\",\"t\":\"r\"}\n");
    CHECK_STR(list("a.jsonl", &keyed), "a.jsonl:1(k 1)0+20=p;a.jsonl:2(-7)21+17=q;a.jsonl:3(k 1)39+20=r;");
    put_gz("b.jsonl.gz", "{\"text\":\"packed\"}\n", 18);
    CHECK_STR(list("b.jsonl.gz", NULL), "b.jsonl.gz:1()0+17=packed;");
    put_text("a.jsonl", "");
    CHECK_STR(list("a.jsonl", NULL), "");
}

/* ---- what is refused --------------------------------------------------------------------------------------------- */

static void bad_line(const char *bad, size_t n, const lp_corpus_options *o, const char *says)
{
    static const char good[] = "{\"text\":\"g\",\"id\":1}\n";
    char file[600], where[100];
    lp_corpus_options skipping = o ? *o : (lp_corpus_options){0};
    lp_error err = {.text = ""};
    int64_t skipped;
    memcpy(file, good, sizeof good - 1);
    memcpy(file + sizeof good - 1, bad, n);
    memcpy(file + sizeof good - 1 + n, "\n", 1);
    memcpy(file + sizeof good + n, good, sizeof good - 1);
    put_file(at(corpus_root, "a.jsonl"), file, n + 2 * sizeof good - 1);
    snprintf(where, sizeof where, "/a.jsonl:2: %s", says);
    refuse("a.jsonl", o, LP_E_FORMAT, where);
    skipping.skip_bad = true;
    CHECK(list_into_found("a.jsonl", &skipping, &skipped, &err) == LP_OK && skipped == 1);
    CHECK(strstr(found, "a.jsonl:1(") && !strstr(found, "a.jsonl:2(") && strstr(found, "a.jsonl:3("));
    CHECK(strstr(corpus_log, where));
}

#define BAD(bad, o, says) bad_line(bad, sizeof(bad) - 1, o, says)

static void refusals(void)
{
    const lp_corpus_options keyed = {.key = "id"}, small = {.record_bytes = 64, .skip_bad = true};
    BAD("{\"text\":", NULL, "not JSON");
    BAD("{\"text\":\"a\"} {}", NULL, "not JSON");
    BAD("{\"text\":\"\xff\"}", NULL, "not JSON");
    BAD("{\"text\":\"\\ud800\"}", NULL, "not JSON");
    BAD("{\"text\":\"a\",\"text\":\"b\"}", NULL, "not JSON");
    BAD("{\"text\":\"a\0\"}", NULL, "not JSON");
    BAD("\0\0\0", NULL, "not JSON");
    BAD("[\"text\"]", NULL, "not a JSON object");
    BAD("{\"body\":\"a\"}", NULL, "\"text\" is missing; name the field");
    BAD("{\"text\":null}", NULL, "\"text\" is no string");
    BAD("{\"text\":\"a\",\"id\":1.5}", &keyed, "the key \"id\" must be");
    BAD("{\"text\":\"a\",\"id\":\"\\u0000\"}", &keyed, "the key \"id\" must be");
    BAD("{\"text\":\"a\"}", &keyed, "the key \"id\" must be");

    /* A line that is too long is no bad line: nobody has looked at it. */
    put_text("a.jsonl",
             "{\"text\":\"a\"}\n{\"text\":\"a line of more than sixty-four bytes, which is the least limit\"}\n");
    refuse("a.jsonl", &small, LP_E_FORMAT, "/a.jsonl:2: a line of 73 bytes, more than the 64 a record may have");
    char *values = malloc((4u << 20) + 2);
    CHECK(values != NULL);
    if (!values) return;
    for (size_t i = 0; i < 2u << 20; i++) memcpy(values + 2 * i, "1,", 2);
    values[0] = '[';
    put_file(at(corpus_root, "a.jsonl"), values, 4u << 20);
    refuse("a.jsonl", NULL, LP_E_FORMAT, "/a.jsonl:1: more than 1048576 values in a line");
    free(values);

    put_file(at(corpus_root, "a.txt"),
             "\xff\xfe"
             "a\0",
             4);
    refuse("a.txt", NULL, LP_E_FORMAT, "UTF-16");
    refuse("none.txt", NULL, LP_E_NOT_FOUND, "none.txt: No such file");
    CHECK(mkfifo(at(corpus_root, "pipe"), 0600) == 0);
    refuse("pipe", NULL, LP_E_IO, "neither a regular file nor a folder");
    refuse("a.txt", &(lp_corpus_options){.piece_bytes = 15}, LP_E_RANGE, "pieces of 15 bytes");
    refuse("a.txt", &(lp_corpus_options){.record_bytes = 63}, LP_E_RANGE, "records of 63 bytes");

    char noise[20000];
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (char)draw(256);
    put_gz("b.txt.gz", noise, sizeof noise);
    CHECK(truncate(at(corpus_root, "b.txt.gz"), 9000) == 0);
    refuse("b.txt.gz", NULL, LP_E_FORMAT, "damaged or incomplete gzip data");
}

/* ---- folders ----------------------------------------------------------------------------------------------------- */

static void folders(void)
{
    fresh_root();
    refuse("", NULL, LP_E_NOT_FOUND, "no *.txt and no *.jsonl");
    CHECK(mkdir(at(corpus_root, "b"), 0700) == 0 && mkdir(at(corpus_root, "b/x.txt"), 0700) == 0);
    CHECK(mkdir(at(corpus_root, ".git"), 0700) == 0);
    put_text("b.txt", "2");
    put_text("Z.txt", "1");
    put_text("b/x.txt/deep.jsonl", "{\"text\":\"4\"}");
    put_text("b/a.txt", "3");
    put_text("\xc3\xa9.txt", "6");
    put_text("c.jsonl", "{\"text\":\"5\"}");
    put_text(".hidden.txt", "no");
    put_text(".git/a.txt", "no");
    put_text("b/table.csv", "no");
    put_text("b/README", "no");
    CHECK(symlink("..", at(corpus_root, "b/loop")) == 0 && symlink("Z.txt", at(corpus_root, "link.txt")) == 0);
    CHECK_STR(list("", NULL),
              "Z.txt:1()0+1=1;b.txt:1()0+1=2;b/a.txt:1()0+1=3;b/x.txt/deep.jsonl:1()0+12=4;c.jsonl:1()0+12=5;"
              "link.txt:1()0+1=1;\\xc3\\xa9.txt:1()0+1=6;");
    CHECK(strstr(corpus_log, "passed over 2 hidden: .git, ..."));
    CHECK(strstr(corpus_log, "! ") && strstr(corpus_log, "passed over 2 neither .txt nor .jsonl: b/README, ..."));
    CHECK(strstr(corpus_log, "passed over 1 links to folders: b/loop\n"));

    CHECK(symlink("gone", at(corpus_root, "q.txt")) == 0);
    refuse("", NULL, LP_E_IO, "q.txt: a link to nothing");
    CHECK(unlink(at(corpus_root, "q.txt")) == 0 && symlink("q.txt", at(corpus_root, "q.txt")) == 0);
    refuse("", NULL, LP_E_IO, "q.txt: a link to nothing"); /* to itself */
    CHECK(unlink(at(corpus_root, "q.txt")) == 0 && mkfifo(at(corpus_root, "q.txt"), 0600) == 0);
    refuse("", NULL, LP_E_IO, "q.txt: not a regular file");
    CHECK(unlink(at(corpus_root, "q.txt")) == 0);
    put_text("q.txt", "locked");
    CHECK(chmod(at(corpus_root, "q.txt"), 0) == 0);
    if (geteuid() != 0) refuse("", NULL, LP_E_IO, "q.txt: Permission denied");
    CHECK(unlink(at(corpus_root, "q.txt")) == 0);
    put_text("\xff.txt", "named in no UTF-8");
    refuse("", NULL, LP_E_UNSUPPORTED, "no UTF-8; rename it");
    CHECK(unlink(at(corpus_root, "\xff.txt")) == 0);

    static const char *const safe[] = {"a", "a/b.txt", "...", ".a"}, *const unsafe[] = {"",   "/a",     "a//b", "a/",
                                                                                        "..", "a/../b", "./a"};
    for (size_t i = 0; i < 4; i++) CHECK(lp_corpus_name_is_safe(safe[i]));
    for (size_t i = 0; i < 7; i++) CHECK(!lp_corpus_name_is_safe(unsafe[i]));
}

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

static void cuts(void)
{
    CHECK(lp_corpus_cut("0123456789abcdef", 16, 16) == 16);        /* all of it                     */
    CHECK(lp_corpus_cut("0123\n56 89\nbcdefg", 17, 16) == 11);     /* after the last newline        */
    CHECK(lp_corpus_cut("0123 56 89 bcdefg", 17, 16) == 10);       /* before the last space         */
    CHECK(lp_corpus_cut("0123456789abcdef g", 18, 16) == 16);      /* which may be the next byte    */
    CHECK(lp_corpus_cut(" 123456789abcdefg", 17, 16) == 16);       /* but not the first             */
    CHECK(lp_corpus_cut("0123456789abcde\xc3\xa9", 17, 16) == 15); /* before a character            */
    CHECK(lp_corpus_cut("0123456789abc\xf0\x9f\x90\x8b", 17, 16) == 13);
    CHECK(lp_corpus_cut("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", 17, 16) == 16);

    put_text("a.txt", "one two three four\nfive");
    CHECK_STR(list("a.txt", &(lp_corpus_options){.piece_bytes = 16}), "a.txt:1()0+23=one two three| four\\x0afive;");
}

/* Whatever the text: pieces are small enough, never empty, and together the document; so is what is fetched out of order. */
static void any_text(void)
{
    enum { N = 3000 };
    static char text[N], got[N], json[7 * N];
    for (int round = 0; round < 60; round++) {
        size_t n = some_text(text, 1 + draw(N), round % 2), n_got = 0, piece = 16 + draw(60);
        const char *name = round % 3 == 0 ? "r.txt" : round % 3 == 1 ? "r.txt.gz" : "r.jsonl";
        lp_corpus_options o = {.piece_bytes = piece};
        lp_corpus *c = NULL;
        lp_error err = {.text = ""};
        const lp_document *d = NULL;
        if (round % 3 == 2) {
            size_t m = (size_t)snprintf(json, sizeof json, "{\"text\":\"");
            for (size_t i = 0; i < n; i++) m += (size_t)snprintf(json + m, sizeof json - m, "\\u%04x", text[i] & 0x7F);
            m += (size_t)snprintf(json + m, sizeof json - m, "\"}");
            for (size_t i = 0; i < n; i++) text[i] &= 0x7F;
            put_file(at(corpus_root, name), json, m);
        } else if (round % 3 == 1) {
            put_gz(name, text, n);
        } else {
            put_file(at(corpus_root, name), text, n);
        }
        CHECK(lp_corpus_open(&c, at(corpus_root, name), &o, NULL, &err) == LP_OK);
        CHECK(c && lp_corpus_next(c, &d, &err) == LP_OK && d && d->n_bytes == n);
        for (size_t k = 1; c && d && k;) {
            const char *p;
            if (lp_corpus_piece(c, &p, &k, &err) != LP_OK) break;
            CHECK(k <= piece && n_got + k <= n);
            if (n_got + k > n) break;
            memcpy(got + n_got, p, k);
            n_got += k;
        }
        CHECK(n_got == n && memcmp(got, text, n) == 0);
        lp_document again = d ? *d : (lp_document){0};
        for (int i = 0; c && d && i < 8; i++) {
            const char *p = NULL;
            size_t from = draw(n), k = draw(n - from < piece ? n - from + 1 : piece + 1);
            CHECK(lp_corpus_load(c, &again, &err) == LP_OK && again.n_bytes == n);
            CHECK(lp_corpus_bytes(c, from, k, &p, &err) == LP_OK && (k == 0 || memcmp(p, text + from, k) == 0));
            CHECK(lp_corpus_bytes(c, n, 1, &p, &err) == LP_E_FORMAT);
        }
        lp_corpus_close(c);
        unlink(at(corpus_root, name));
    }
}

static void cancelled(void)
{
    atomic_bool stop = true;
    lp_env env = {.cancel = &stop};
    lp_corpus *c = NULL;
    lp_error err = {.text = ""};
    const lp_document *d = NULL;
    put_text("a.txt", "text");
    CHECK(lp_corpus_open(&c, at(corpus_root, "a.txt"), NULL, &env, &err) == LP_OK);
    CHECK(c && lp_corpus_next(c, &d, &err) == LP_CANCELLED);
    lp_corpus_close(c);
}

int main(void)
{
    CHECK(mkdtemp(corpus_root) != NULL);
    texts();
    json_lines();
    refusals();
    folders();
    fresh_root();
    cuts();
    any_text();
    cancelled();
    remove_tree(corpus_root);
    return check_done();
}
