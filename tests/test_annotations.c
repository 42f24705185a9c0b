/* Annotations: what is typed comes back, is found, is undone, is there after kill -9 and after two programs wrote at once;
 * and files that are not ours are told apart. */
#include "store/annotations_parts.h"

#include "tests/check.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define A "0123456789abcdef0123456789abcdef"
#define B "ffffffffffffffffffffffffffffffff"

static char folder[64], path[128];

static const char *beside(const char *name)
{
    static char out[4][400];
    static int at;
    at = (at + 1) % 4;
    snprintf(out[at], sizeof out[at], "%s/%s", folder, name);
    return out[at];
}

static void put(const char *name, const char *text)
{
    FILE *f = fopen(beside(name), "wb");
    CHECK(f && fputs(text, f) >= 0);
    if (f) fclose(f);
}

static void fresh(void)
{
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (e->d_name[0] != '.') unlink(beside(e->d_name));
    if (dir) closedir(dir);
    snprintf(path, sizeof path, "%s/annotations.sqlite", folder);
}

static lp_annotations *open_it(void)
{
    lp_annotations *a = NULL;
    lp_error err = {0};
    if (lp_annotations_open(&a, path, LP_ANNOTATIONS_EDIT, &err) != LP_OK) fprintf(stderr, "%s\n", err.text), exit(1);
    return a;
}

static lp_new_label label(const char *sae, int feature, const char *text, const char *author, const char *method)
{
    return (lp_new_label){.sae = sae,
                          .feature = feature,
                          .text = text,
                          .author = author,
                          .method = method,
                          .score = (double)NAN,
                          .created = 1};
}

static lp_status set(lp_annotations *a, int feature, const char *text, lp_error *err)
{
    lp_new_label l = label(A, feature, text, "ada", NULL);
    LP_TRY(lp_annotations_begin(a, text, err));
    lp_status st = lp_annotations_set(a, &l, err);
    if (st == LP_OK) return lp_annotations_end(a, NULL, err);
    lp_annotations_give_up(a);
    return st;
}

/* "feature text/author/method;" of every row */
static const char *said(lp_annotations *a, const char *sae, int feature)
{
    static char out[4096];
    lp_annotation_rows r;
    CHECK(lp_annotations_read(&r, a, sae, feature, NULL) == LP_OK);
    size_t n = 0;
    out[0] = 0;
    for (size_t i = 0; i < r.n && n < sizeof out - 200; i++)
        n += (size_t)snprintf(out + n, 200, "%d %s/%s/%s;", r.items[i].feature, r.items[i].text, r.items[i].author,
                              r.items[i].method);
    lp_annotation_rows_free(&r);
    return out;
}

static const char *listed(lp_annotations *a, const char *list)
{
    static char out[512];
    lp_annotation_rows r;
    size_t n = 0;
    out[0] = 0;
    lp_annotations_read_list(&r, a, list, NULL);
    for (size_t i = 0; i < r.n && n < sizeof out - 100; i++)
        n += (size_t)snprintf(out + n, 100, "%d=%d(%s);", (int)r.items[i].id, r.items[i].feature, r.items[i].text);
    lp_annotation_rows_free(&r);
    return out;
}

static const char *undo(lp_annotations *a)
{
    static char out[80];
    char *what = NULL;
    lp_error err = {0};
    lp_status st = lp_annotations_undo(a, &what, &err);
    snprintf(out, sizeof out, "%s", st == LP_OK ? what : strstr(err.text, ": ") + 2);
    free(what);
    return out;
}

/* ---- labels, lists, undo ------------------------------------------------------------------------------------------ */

static void labels(void)
{
    fresh();
    lp_annotations *a = open_it();
    lp_error err = {0};
    int changes = -1;
    CHECK(set(a, 7, "whales", &err) == LP_OK);
    lp_new_label l = label(A, 7, "sea mammals", "gpt", "oai_token-act-pair"), m = label(B, 1, "of B", "ada", NULL);
    l.score = 0.1;
    CHECK(lp_annotations_begin(a, "two", &err) == LP_OK);
    CHECK(lp_annotations_begin(a, "nested", &err) == LP_E_RANGE);
    CHECK(lp_annotations_add(a, &l, &err) == LP_OK && lp_annotations_add(a, &l, &err) == LP_OK);
    CHECK(lp_annotations_add(a, &m, &err) == LP_OK);
    CHECK(lp_annotations_end(a, &changes, &err) == LP_OK && changes == 2);
    CHECK_STR(said(a, A, -1), "7 whales/ada/person;7 sea mammals/gpt/oai_token-act-pair;");
    CHECK(set(a, 7, "swimming whales", &err) == LP_OK);
    CHECK_STR(said(a, NULL, -1),
              "7 swimming whales/ada/person;7 sea mammals/gpt/oai_token-act-pair;1 of B/ada/person;");
    lp_annotation_rows r;
    CHECK(lp_annotations_read(&r, a, A, 7, &err) == LP_OK && r.n == 2 && r.items[1].score == 0.1);
    lp_annotation_rows_free(&r);

    CHECK(lp_annotations_search(&r, a, "whale swim", 9, &err) == LP_OK && r.n == 1 && r.items[0].feature == 7);
    lp_annotation_rows_free(&r);
    const char *const odd[] = {"AND", "sea*", "-x", "a:b", "\"", "(", "NEAR(a b)", "text:sea \"quoted"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        CHECK(lp_annotations_search(&r, a, odd[i], 9, &err) == LP_OK);
        lp_annotation_rows_free(&r);
    }
    CHECK(lp_annotations_search(&r, a, "  ", 9, &err) == LP_E_RANGE);

    CHECK_STR(undo(a), "swimming whales");
    CHECK_STR(said(a, A, 7), "7 whales/ada/person;7 sea mammals/gpt/oai_token-act-pair;");
    CHECK(lp_annotations_search(&r, a, "swimming", 9, &err) == LP_OK && r.n == 0); /* the index is undone too */
    CHECK_STR(undo(a), "two");
    CHECK_STR(said(a, NULL, -1), "7 whales/ada/person;");
    CHECK(set(a, 8, "after", &err) == LP_OK);
    CHECK_STR(undo(a), "after");
    CHECK_STR(undo(a), "whales");
    CHECK_STR(undo(a), "nothing to undo");
    CHECK_STR(said(a, NULL, -1), "");
    lp_annotations_close(a);
}

static void refused_texts(void)
{
    lp_annotations *a = open_it();
    lp_error err = {0};
    static char longest[LP_LABEL_BYTES + 2];
    memset(longest, 'x', LP_LABEL_BYTES + 1);
    CHECK(set(a, 1, "", &err) == LP_E_RANGE);
    CHECK(set(a, 1, longest, &err) == LP_E_RANGE);
    longest[LP_LABEL_BYTES] = 0;
    CHECK(set(a, 1, longest, &err) == LP_OK);
    CHECK(set(a, 1, "a\xc3(", &err) == LP_E_RANGE);
    CHECK_STR(err.text, "the label is not UTF-8 at byte 1");
    CHECK(set(a, 1, "a\x1b[31m", &err) == LP_E_RANGE);
    CHECK(set(a, -1, "a", &err) == LP_E_RANGE);
    lp_new_label l = label("xyz", 1, "t", "ada", NULL);
    CHECK(lp_annotations_set(a, &l, &err) == LP_E_RANGE);
    lp_annotations_close(a);
}

static void lists(void)
{
    fresh();
    lp_annotations *a = open_it();
    lp_error err = {0};
    CHECK(lp_annotations_begin(a, "fill", &err) == LP_OK);
    for (int i = 1; i <= 4; i++) CHECK(lp_annotations_list_put(a, "circuit", A, i * 10, 0, "", &err) == LP_OK);
    CHECK(lp_annotations_end(a, NULL, &err) == LP_OK);
    CHECK_STR(listed(a, "circuit"), "1=10();2=20();3=30();4=40();");
    CHECK(lp_annotations_begin(a, "move", &err) == LP_OK);
    CHECK(lp_annotations_list_put(a, "circuit", A, 40, 2, "why", &err) == LP_OK);
    CHECK(lp_annotations_end(a, NULL, &err) == LP_OK);
    CHECK_STR(listed(a, "circuit"), "1=10();2=40(why);3=20();4=30();");
    CHECK(lp_annotations_begin(a, "remove", &err) == LP_OK);
    CHECK(lp_annotations_list_remove(a, "circuit", A, 10, &err) == LP_OK);
    CHECK(lp_annotations_list_put(a, "circuit", B, 10, 99, "far", &err) == LP_OK);
    CHECK(lp_annotations_end(a, NULL, &err) == LP_OK);
    CHECK_STR(listed(a, "circuit"), "1=40(why);2=20();3=30();4=10(far);");
    CHECK_STR(undo(a), "remove");
    CHECK_STR(undo(a), "move");
    CHECK_STR(listed(a, "circuit"), "1=10();2=20();3=30();4=40();");
    lp_annotation_rows r;
    CHECK(lp_annotations_read_lists(&r, a, &err) == LP_OK && r.n == 1 && r.items[0].feature == 4);
    lp_annotation_rows_free(&r);
    CHECK(lp_annotations_read_list(&r, a, "none", &err) == LP_E_NOT_FOUND);
    lp_annotations_close(a);
}

static void overlay(void)
{
    fresh();
    lp_annotations *a = open_it();
    lp_error err = {0};
    lp_sae s = {.d_sae = 10};
    snprintf(s.hash, sizeof s.hash, "%s", A);
    lp_labels l = {0};
    CHECK(lp_annotations_overlay(&l, a, &s, &err) == LP_OK && !l.items);
    CHECK(lp_labels_put(&l, 10, 2, "shipped", "oai_x", &err) == LP_OK &&
          lp_labels_put(&l, 10, 3, "kept", NULL, &err) == LP_OK);
    lp_new_label own[] = {label(A, 2, "by a program", "p", "auto"), label(A, 2, "by a person", "ada", NULL),
                          label(A, 2, "newer person", "bob", NULL), label(A, 4, "a note", "ada", LP_METHOD_NOTE),
                          label(A, 99, "too far", "ada", NULL),     label(B, 5, "other SAE", "ada", NULL)};
    CHECK(lp_annotations_begin(a, "x", &err) == LP_OK);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) CHECK(lp_annotations_add(a, &own[i], &err) == LP_OK);
    CHECK(lp_annotations_end(a, NULL, &err) == LP_OK);
    CHECK(lp_annotations_overlay(&l, a, &s, &err) == LP_OK);
    CHECK_STR(lp_label_text(&l, 2), "newer person");
    CHECK(l.items[2].kind == NULL && l.n_named == 2);
    CHECK_STR(lp_label_text(&l, 3), "kept");
    CHECK(!lp_label_text(&l, 4) && !lp_label_text(&l, 5));
    lp_labels_free(&l);
    lp_annotations_close(a);
}

/* ---- exchange ----------------------------------------------------------------------------------------------------- */

static lp_status import(lp_annotations *a, const char *text, const lp_sae *s, int *n, lp_error *err)
{
    put("in", text);
    LP_TRY(lp_annotations_begin(a, "import", err));
    lp_status st = text[0] == '{' ? lp_annotations_read_neuronpedia(a, beside("in"), s, n, err)
                                  : lp_annotations_read_csv(a, beside("in"), s, "me", n, err);
    if (st == LP_OK) return lp_annotations_end(a, NULL, err);
    lp_annotations_give_up(a);
    return st;
}

static void exchange(void)
{
    fresh();
    lp_annotations *a = open_it();
    lp_error err = {0};
    lp_sae s = {.d_sae = 10};
    snprintf(s.hash, sizeof s.hash, "%s", A);
    int n = 0;
    CHECK(import(a, "text,feature,score,other\r\n\"commas, \"\"quotes\"\"\nlines\",3,0.1,x\r\nplain,4,,y\r\n", &s, &n,
                 &err) == LP_OK);
    CHECK(n == 2);
    CHECK(import(a,
                 "{\"index\":\"5\",\"description\":\"np\",\"typeName\":\"np_max\",\"explanationModelName\":\"gpt\"}\n"
                 "{\"index\":5,\"description\":\"by hand\"}\n{\"index\":\"6\",\"description\":null}\n",
                 &s, &n, &err) == LP_OK);
    CHECK(n == 2);
    char want[4096];
    snprintf(want, sizeof want, "%s", said(a, NULL, -1));
    CHECK_STR(want,
              "3 commas, \"quotes\"\nlines/me/person;4 plain/me/person;5 by hand/neuronpedia/person;5 np/gpt/np_max;");

    static const struct {
        const char *text, *says;
    } bad[] = {
        {"feature,text\n10,x\n", ", line 2: this SAE has no feature \"10\""},
        {"feature,text\n1,x\n1x,y\n", ", line 3: feature \"1x\""},
        {"feature,text\n1,\n", ", line 2: an empty label"},
        {"feature,text,score\n1,x,inf\n", ", line 2: score \"inf\""},
        {"feature,text,text\n1,x,y\n", ", line 1: two columns are called \"text\""},
        {"index,text\n1,x\n", ": its first line names no columns \"feature\" and \"text\""},
        {"feature,text\n1,x,y\n", ": line 2: 3 fields, where the first row has 2"},
        {"", ": its first line names no columns \"feature\" and \"text\""},
        {"sae_hash,feature,text\nabc,1,x\n", ", line 2: \"abc\" is no hash of an SAE: 32 hex digits expected"},
        {"{\"index\":\"10\",\"description\":\"x\"}\n", ", line 1: feature 10, but this SAE has 10"},
        {"{\"description\":\"x\"}\n", ", line 1: no \"index\" of a feature"},
        {"{\"index\":1,\"description\":\"\\u0001\"}\n", ", line 1: the label has a control character (0x01) at byte 0"},
        {"{nonsense\n", ", line 1: not a JSON object"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err.text[0] = 0;
        CHECK(import(a, bad[i].text, &s, &n, &err) != LP_OK);
        CHECK_STR(strncmp(err.text, beside("in"), strlen(beside("in"))) ? err.text : err.text + strlen(beside("in")),
                  bad[i].says);
    }
    CHECK_STR(said(a, NULL, -1), want); /* nothing of a bad file stays */

    for (int jsonl = 0; jsonl < 2; jsonl++) {
        lp_annotation_rows r;
        CHECK(lp_annotations_read(&r, a, NULL, -1, &err) == LP_OK);
        CHECK(lp_annotations_write(&r, beside("out"), jsonl, &err) == LP_OK);
        lp_annotation_rows_free(&r);
        lp_annotations *b = NULL;
        unlink(beside("b.sqlite"));
        CHECK(lp_annotations_open(&b, beside("b.sqlite"), LP_ANNOTATIONS_EDIT, &err) == LP_OK);
        CHECK(lp_annotations_begin(b, "import", &err) == LP_OK);
        CHECK((jsonl ? lp_annotations_read_neuronpedia(b, beside("out"), &s, &n, &err)
                     : lp_annotations_read_csv(b, beside("out"), NULL, "me", &n, &err)) == LP_OK);
        CHECK(lp_annotations_end(b, NULL, &err) == LP_OK);
        CHECK_STR(said(b, NULL, -1), want);
        CHECK(lp_annotations_read(&r, b, A, 3, &err) == LP_OK && r.n == 1 && r.items[0].score == 0.1);
        lp_annotation_rows_free(&r);
        lp_annotations_close(b);
    }
    lp_annotations_close(a);
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

static lp_status opens(lp_error *err)
{
    lp_annotations *a = NULL;
    lp_status st = lp_annotations_open(&a, path, LP_ANNOTATIONS_READ, err);
    lp_annotations_close(a);
    return st;
}

/* Another program does something to the file. */
static void meddle(const char *sql)
{
    sqlite3 *db;
    CHECK(sqlite3_open(path, &db) == SQLITE_OK && sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_close(db);
}

static void hostile(void)
{
    lp_error err = {0};
    fresh();
    CHECK(opens(&err) == LP_E_NOT_FOUND);
    put("annotations.sqlite", "no database at all, but long enough to be taken for the beginning of a header......"
                              "................................................................................");
    CHECK(opens(&err) == LP_E_FORMAT && strstr(err.text, "not a file of annotations"));
    fresh();
    meddle("CREATE TABLE x(y)");
    CHECK(opens(&err) == LP_E_FORMAT && strstr(err.text, "another program's database"));
    static const char *const changes[] = {"CREATE TRIGGER evil AFTER INSERT ON label BEGIN DELETE FROM label; END",
                                          "DROP TRIGGER label_out", "CREATE VIEW v AS SELECT 1", "CREATE TABLE more(x)",
                                          "PRAGMA user_version=0"};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        fresh();
        lp_annotations_close(open_it());
        CHECK(opens(&err) == LP_OK);
        meddle(changes[i]);
        CHECK(opens(&err) == LP_E_FORMAT && strstr(err.text, "its tables are not those"));
    }
    fresh();
    lp_annotations_close(open_it());
    meddle("PRAGMA user_version=99");
    CHECK(opens(&err) == LP_E_UNSUPPORTED);
    /* rows nobody here would write */
    fresh();
    lp_annotations_close(open_it());
    meddle("INSERT INTO label(sae, feature, text, author, method, created) VALUES('" A "', -5, 'x', 'y', 'z', 1)");
    lp_annotations *a = open_it();
    lp_annotation_rows r;
    CHECK(lp_annotations_read(&r, a, NULL, -1, &err) == LP_E_FORMAT && strstr(err.text, "damaged") && !r.items);
    lp_annotations_close(a);
    meddle("DELETE FROM label; INSERT INTO edit(what, created, changes) VALUES('x', 1, x'54010203ffffffffffffffff')");
    a = open_it();
    char *what = NULL;
    CHECK(lp_annotations_undo(a, &what, &err) == LP_E_FORMAT && !what);
    lp_annotations_close(a);
}

/* Every page of a good file overwritten in turn: never more than an error. */
static void damaged(void)
{
    fresh();
    lp_annotations *a = open_it();
    for (int i = 0; i < 40; i++) CHECK(set(a, i, i % 2 ? "odd words of a label" : "even words", NULL) == LP_OK);
    lp_annotations_close(a);
    char *good = NULL;
    size_t n = 0;
    CHECK(lp_read_file(&good, &n, path, 1 << 24, NULL) == LP_OK);
    int failed = 0, tried = 0;
    for (size_t at = 0; at < n; at += 509, tried++) {
        FILE *f = fopen(path, "wb");
        CHECK(f && fwrite(good, 1, n, f) == n);
        if (!f) break;
        fseek(f, (long)at, SEEK_SET);
        for (int i = 0; i < 64; i++) fputc(0xa5 ^ i, f);
        fclose(f);
        lp_error err = {0};
        a = NULL;
        lp_annotation_rows r = {0};
        lp_status st = lp_annotations_open(&a, path, LP_ANNOTATIONS_EDIT, &err);
        if (st == LP_OK) st = lp_annotations_read(&r, a, NULL, -1, &err);
        lp_annotation_rows_free(&r);
        if (st == LP_OK) st = lp_annotations_search(&r, a, "even words", 99, &err);
        lp_annotation_rows_free(&r);
        if (st == LP_OK) st = set(a, 3, "new", &err);
        lp_annotations_close(a);
        failed += st != LP_OK;
        CHECK(st == LP_OK || err.text[0]);
    }
    CHECK(failed > 0 && tried > 50);
    free(good);
}

static void versions(void)
{
    fresh();
    lp_annotations *a = open_it();
    CHECK(set(a, 5, "of version 1", NULL) == LP_OK);
    lp_error err = {0};
    sqlite3_stmt *s;
    bool has;
    char *first = NULL; /* the schema as it stands is step 0 */
    CHECK(lp_annotations_prepare(
              &s, a, &err,
              "SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_schema WHERE sql NOT NULL AND"
              " name NOT GLOB 'label_fts_*' AND name NOT GLOB 'sqlite_*' ORDER BY rowid)",
              "") == LP_OK);
    CHECK(lp_annotations_step(a, s, &has, &err) == LP_OK && has);
    if (has) first = lp_strdup((const char *)sqlite3_column_text(s, 0));
    sqlite3_finalize(s);
    const char *const bad[] = {first, "CREATE TABLE new_one(x); nonsense"};
    CHECK(lp_annotations_migrate(a, bad, 2, &err) != LP_OK);
    CHECK(lp_is_file(beside("annotations.sqlite.v1")));
    CHECK(lp_annotations_migrate(a, bad, 1, &err) == LP_OK); /* all of it was rolled back */
    const char *const steps[] = {first, "CREATE TABLE new_one(x INTEGER) STRICT;"};
    CHECK(lp_annotations_migrate(a, steps, 2, &err) == LP_OK);
    CHECK(lp_annotations_migrate(a, steps, 2, &err) == LP_OK);
    CHECK_STR(said(a, A, -1), "5 of version 1/ada/person;");
    lp_annotations_close(a);
    CHECK(opens(&err) == LP_E_UNSUPPORTED);
    snprintf(path, sizeof path, "%s/annotations.sqlite.v1", folder);
    a = open_it();
    CHECK_STR(said(a, A, -1), "5 of version 1/ada/person;");
    CHECK(lp_annotations_backup(a, beside("copy"), &err) == LP_OK);
    CHECK(lp_annotations_backup(a, beside("copy"), &err) == LP_E_IO && strstr(err.text, "exists"));
    CHECK(lp_annotations_backup(a, beside("none/copy"), &err) == LP_E_IO);
    lp_annotations_close(a);
    snprintf(path, sizeof path, "%s/copy", folder);
    CHECK(opens(&err) == LP_OK);
    free(first);
}

/* ---- other processes ---------------------------------------------------------------------------------------------- */

/* Each edit sets two features to the same text; a byte through the pipe for each that is kept. */
static void write_for_ever(int first, int n, int pipe_end)
{
    lp_annotations *a = open_it();
    char text[32];
    for (int i = 0; i < n; i++) {
        snprintf(text, sizeof text, "edit %d", first + i);
        lp_new_label x = label(A, 2 * (first + i), text, "ada", NULL),
                     y = label(A, 2 * (first + i) + 1, text, "ada", NULL);
        bool good = lp_annotations_begin(a, text, NULL) == LP_OK && lp_annotations_set(a, &x, NULL) == LP_OK &&
                    lp_annotations_set(a, &y, NULL) == LP_OK && lp_annotations_end(a, NULL, NULL) == LP_OK;
        if (!good) _exit(1);
        if (pipe_end >= 0 && write(pipe_end, "x", 1) != 1) _exit(2);
    }
    lp_annotations_close(a);
    _exit(0);
}

static void killed(void)
{
    fresh();
    lp_annotations_close(open_it());
    int promised = 0;
    for (int round = 0; round < 12; round++) {
        int ends[2];
        char byte;
        if (pipe(ends) != 0) exit(1);
        pid_t child = fork();
        if (child == 0) write_for_ever(1000 * round, 1000, ends[1]);
        close(ends[1]);
        for (int i = 0; i <= round; i++) CHECK(read(ends[0], &byte, 1) == 1);
        promised += round + 1;
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        while (read(ends[0], &byte, 1) == 1) promised++; /* kept before it died */
        close(ends[0]);
        lp_annotations *a = open_it();
        lp_annotation_rows r;
        CHECK(lp_annotations_read(&r, a, A, -1, NULL) == LP_OK);
        CHECK((int)r.n >= 2 * promised && r.n % 2 == 0);
        promised = (int)r.n / 2; /* one may have been kept and not told of */
        for (size_t i = 0; i + 1 < r.n; i += 2) CHECK(strcmp(r.items[i].text, r.items[i + 1].text) == 0);
        lp_annotation_rows_free(&r);
        lp_annotations_close(a);
    }
    lp_annotations *a = open_it();
    sqlite3_stmt *s;
    bool has = false;
    CHECK(lp_annotations_prepare(&s, a, NULL, "PRAGMA integrity_check", "") == LP_OK);
    CHECK(lp_annotations_step(a, s, &has, NULL) == LP_OK && has);
    CHECK_STR((const char *)sqlite3_column_text(s, 0), "ok");
    sqlite3_finalize(s);
    CHECK(strncmp(undo(a), "edit 110", 8) == 0);
    lp_annotations_close(a);
}

static void two_at_once(void)
{
    fresh(); /* both also make the file */
    pid_t child[2];
    for (int i = 0; i < 2; i++)
        if ((child[i] = fork()) == 0) write_for_ever(100 * i, 40, -1);
    for (int i = 0; i < 2; i++) {
        int status = -1;
        waitpid(child[i], &status, 0);
        CHECK(status == 0);
    }
    lp_annotations *a = open_it();
    lp_annotation_rows r;
    CHECK(lp_annotations_read(&r, a, A, -1, NULL) == LP_OK && r.n == 160);
    lp_annotation_rows_free(&r);
    for (int i = 0; i < 80; i++) CHECK(strncmp(undo(a), "edit ", 5) == 0);
    CHECK_STR(said(a, NULL, -1), "");
    lp_annotations_close(a);
}

static void places(void)
{
    char *out = NULL;
    lp_error err = {0};
    setenv("XDG_DATA_HOME", "/x", 1);
    CHECK(lp_annotations_path(&out, NULL, &err) == LP_OK);
    CHECK_STR(out, "/x/lapidary/annotations.sqlite");
    free(out);
    CHECK(lp_annotations_path(&out, "S", &err) == LP_OK);
    CHECK_STR(out, "S/annotations.sqlite");
    free(out);
    setenv("XDG_DATA_HOME", "relative", 1), setenv("HOME", "/h", 1);
    CHECK(lp_annotations_path(&out, NULL, &err) == LP_OK);
    CHECK_STR(out, "/h/.local/share/lapidary/annotations.sqlite");
    free(out);
    unsetenv("HOME");
    CHECK(lp_annotations_path(&out, NULL, &err) == LP_E_NOT_FOUND);
}

int main(void)
{
    snprintf(folder, sizeof folder, "/tmp/lapidary-notes-XXXXXX");
    if (!mkdtemp(folder)) return 1;
    labels();
    refused_texts();
    lists();
    overlay();
    exchange();
    hostile();
    damaged();
    versions();
    killed();
    two_at_once();
    places();
    fresh();
    rmdir(folder);
    return check_done();
}
