/* The catalogue: equal to what can be counted by hand; the same whatever order shards came in and however often the work
 * was killed; nothing lost by full disks; damaged and foreign files refused in one line.
 */
#include "tests/store_filled.h"

#include "store/catalogue_parts.h"
#include "store/store_verify.h"

#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

/* ---- all a catalogue says, as one text ----------------------------------------------------------------------------- */

static const char *const tables[] = {
    "SELECT hash, plan, model, tokenizer, vocab, value_bits, provenance, plan_shards FROM run ORDER BY hash",
    "SELECT run.hash, place, name, sae.hash, site, layer, d_sae, d_out, n_values FROM sae JOIN run USING(run_id) "
    "ORDER BY 1, 2",
    "SELECT run.hash, number, shard.hash, bytes, token_base, n_tokens, n_counted, n_documents, n_values FROM shard "
    "JOIN run USING(run_id) ORDER BY 1, 2",
    "SELECT sae.hash, feature, n_active, n_docs, sum, sumsq, max, hex(hist), hex(top), hex(rest) FROM feature "
    "JOIN sae USING(sae_id) ORDER BY 1, 2",
    "SELECT run.hash, passage_id & ((1 << 44) - 1), document, key, passage.hash, first_token, token, n_tokens, "
    "n_bytes, "
    "is_utf8, text FROM passage JOIN run USING(run_id) ORDER BY 1, 2",
    "SELECT count(*), min(rowid & ((1 << 44) - 1)), sum(rowid & ((1 << 44) - 1)) FROM passage_fts "
    "WHERE passage_fts MATCH 'text'",
};

static void mix(uint64_t *h, const void *bytes, size_t n)
{
    const unsigned char *b = bytes;
    for (size_t i = 0; i < n; i++) *h = (*h ^ b[i]) * 0x100000001b3u;
    *h = (*h ^ n) * 0x100000001b3u;
}

/* FNV-1a of every cell, reals by their bits; *rows may be NULL. */
static uint64_t dump(const char *store, int *rows)
{
    char path[256];
    sqlite3 *db = NULL;
    uint64_t h = 0xcbf29ce484222325u;
    int n = 0;
    snprintf(path, sizeof path, "%s/catalog.sqlite", store);
    CHECK(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        sqlite3_stmt *s = NULL;
        CHECK(sqlite3_prepare_v2(db, tables[i], -1, &s, NULL) == SQLITE_OK);
        for (; sqlite3_step(s) == SQLITE_ROW; n++)
            for (int k = 0; k < sqlite3_column_count(s); k++) {
                double v = sqlite3_column_double(s, k);
                bool is_real = sqlite3_column_type(s, k) == SQLITE_FLOAT;
                const void *bytes = is_real ? &v : sqlite3_column_blob(s, k);
                mix(&h, bytes, is_real ? sizeof v : (size_t)sqlite3_column_bytes(s, k));
            }
        sqlite3_finalize(s);
    }
    sqlite3_close(db);
    if (rows) *rows = n;
    return h;
}

static void remove_catalogue(const filled *f)
{
    static const char *const names[] = {"catalog.sqlite",     "catalog.sqlite-wal",     "catalog.sqlite-shm",
                                        "catalog.sqlite.new", "catalog.sqlite.new-wal", "catalog.sqlite.new-shm"};
    char path[256];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        filled_path(path, f, names[i]);
        unlink(path);
    }
}

static lp_status ingest(const filled *f, int number, bool *is_new, lp_error *err)
{
    lp_catalogue *c;
    LP_TRY(lp_catalogue_open(&c, f->store, LP_CATALOGUE_WRITE, NULL, err));
    lp_status st = lp_catalogue_ingest(c, FILLED_RUN, number, is_new, err);
    lp_catalogue_close(c);
    return st;
}

static void must_index(const filled *f, bool is_rebuild, int added)
{
    lp_index_result r;
    lp_error err = {0};
    if (lp_store_index(&r, f->store, is_rebuild, NULL, &err) != LP_OK) fprintf(stderr, "%s\n", err.text);
    CHECK(err.status == LP_OK && r.shards == f->n && r.runs == 1 && (added < 0 || r.added == added));
}

/* ---- exact sums ----------------------------------------------------------------------------------------------------- */

static lp_exact sum_of(const double *v, int n)
{
    lp_exact x = {0};
    for (int i = 0; i < n; i++) lp_exact_add(&x, v[i]);
    return x;
}

static void test_exact(void)
{
    /* Cases where adding in turn goes wrong, with what is right. */
    static const double cases[][5] = {
        {1e100, 1, -1e100, 1, 2}, {1, 0x1p-53, 0x1p-106, 0, 1 + 0x1p-52},    {1, 0x1p-53, -0x1p-106, 0, 1},
        {1, 0x1p-53, 0, 0, 1},    {1 + 0x1p-52, 0x1p-53, 0, 0, 1 + 0x1p-51}, {0x1p-1074, 1e300, -1e300, 0, 0x1p-1074},
        {0, 0, 0, 0, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lp_exact x = sum_of(cases[i], 4);
        CHECK(lp_exact_value(&x) == cases[i][4]);
    }
    uint64_t s = 5;
    double v[60];
    for (int i = 0; i < 60; i++) v[i] = (made_random(&s) + 0.1) * pow(2, floor(made_random(&s) * 200 - 100));
    lp_exact want = sum_of(v, 60);
    CHECK(want.n > 1); /* else the order would not matter */
    for (int round = 0; round < 200; round++) {
        for (int i = 59; i > 0; i--) {
            int k = (int)(made_random(&s) * (i + 1));
            double t = v[i];
            v[i] = v[k], v[k] = t;
        }
        int cut = (int)(made_random(&s) * 60);
        lp_tally a = {.sum = sum_of(v, cut)}, b = {.sum = sum_of(v + cut, 60 - cut)};
        lp_tally_add(&a, &b);
        CHECK(a.sum.n == want.n && memcmp(a.sum.parts, want.parts, sizeof(double) * (size_t)want.n) == 0);
    }
}

/* ---- by hand -------------------------------------------------------------------------------------------------------- */

static int by_strength(const void *a, const void *b)
{
    const lp_example *x = a, *y = b;
    if (x->value != y->value) return x->value < y->value ? 1 : -1;
    return (x->token > y->token) - (x->token < y->token);
}

/* The strongest places of a feature: all of them sorted, then at most two of a document. */
static int top_by_hand(lp_example out[LP_TOP], const filled *f, int sae, int feature, int64_t *n_active)
{
    lp_example *all = made_array((size_t)f->base[f->n], sizeof *all);
    int n = 0, kept = 0;
    for (int s = 0; s < f->n; s++)
        for (int r = 0; r < f->m[s]->spec.n_tokens; r++) {
            float v = filled_value(f, s, sae, r, feature);
            if (v > 0 && !f->m[s]->excluded[r])
                all[n++] = (lp_example){f->base[s] + r, f->m[s]->documents[f->m[s]->doc[r]].id, v};
        }
    *n_active = n;
    if (n) qsort(all, (size_t)n, sizeof *all, by_strength);
    for (int i = 0; i < n && kept < LP_TOP; i++) {
        int same = 0;
        for (int k = 0; k < kept; k++) same += out[k].document == all[i].document;
        if (same < LP_TOP_EACH) out[kept++] = all[i];
    }
    free(all);
    return kept;
}

static void check_feature(const filled *f, const lp_tally *t, int sae, int feature, int *longest)
{
    lp_example top[LP_TOP];
    int64_t n = 0, docs = 0;
    uint64_t hist[LP_TALLY_BINS] = {0};
    double sum = 0, sumsq = 0;
    float max = 0;
    int kept = top_by_hand(top, f, sae, feature, &n);
    for (int s = 0; s < f->n; s++)
        for (int r = 0, last = -1; r < f->m[s]->spec.n_tokens; r++) {
            float v = filled_value(f, s, sae, r, feature);
            if (v <= 0 || f->m[s]->excluded[r]) continue;
            docs += f->m[s]->doc[r] != last;
            last = f->m[s]->doc[r];
            sum += (double)v, sumsq += (double)v * (double)v;
            if (v > max) max = v;
            hist[lp_shard_bin(v)]++;
        }
    CHECK(t->n_active == n && t->n_docs == docs && t->max == max);
    CHECK_NEAR(lp_exact_value(&t->sum), sum, 1e-12 * sum);
    CHECK_NEAR(lp_exact_value(&t->sumsq), sumsq, 1e-12 * sumsq);
    CHECK(memcmp(t->hist, hist, sizeof hist) == 0 && t->n_top == kept);
    for (int i = 0; i < kept; i++)
        CHECK(t->top[i].token == top[i].token && t->top[i].value == top[i].value &&
              t->top[i].document == top[i].document);
    if (kept > *longest) *longest = kept;
}

static void test_by_hand(const filled *f)
{
    lp_catalogue *c = NULL;
    lp_sql_statement s = {0};
    bool has_row = false;
    int rows = 0, longest = 0;
    CHECK(lp_catalogue_open(&c, f->store, LP_CATALOGUE_READ, NULL, NULL) == LP_OK);
    CHECK(lp_sql_prepare(&s, &c->sql,
                         "SELECT n_active, n_docs, sum, sumsq, max, hist, top, rest, place, feature FROM feature "
                         "JOIN sae USING(sae_id)",
                         NULL) == LP_OK);
    for (; lp_sql_step(&s, &has_row, NULL) == LP_OK && has_row; rows++) {
        lp_tally t;
        CHECK(lp_tally_of_row(&t, &s, 0, NULL) == LP_OK);
        check_feature(f, &t, (int)lp_sql_int(&s, 8), (int)lp_sql_int(&s, 9), &longest);
    }
    lp_sql_finish(&s);
    int live = 0;
    for (int sae = 0; sae < 2; sae++)
        for (int i = 0; i < f->m[0]->spec.d_sae[sae]; i++) {
            lp_example top[LP_TOP];
            int64_t n;
            top_by_hand(top, f, sae, i, &n);
            live += n > 0;
        }
    CHECK(rows == live && live > 100 && live < 264 && longest > 10);
    int64_t passages, broken;
    CHECK(lp_sql_number(&passages, &c->sql, "SELECT count(*) FROM passage", NULL) == LP_OK);
    CHECK(lp_sql_number(&broken, &c->sql,
                        "SELECT count(*) FROM passage WHERE NOT is_utf8 AND text LIKE '%NUL \xEF\xBF\xBD, a "
                        "broken \xEF\xBF\xBD(%'",
                        NULL) == LP_OK);
    int documents = 0, bad = 0;
    for (int i = 0; i < f->n; i++)
        for (int d = 0; d < f->m[i]->spec.n_documents; d++) documents++, bad += !f->m[i]->documents[d].is_utf8;
    CHECK(passages == documents && broken == bad && bad > 5);
    lp_catalogue_close(c);
}

/* ---- any order ------------------------------------------------------------------------------------------------------ */

static void test_orders(const filled *f, uint64_t want)
{
    uint64_t seed = 9;
    int rows;
    for (int round = 0; round < 6; round++) {
        int order[FILLED_MOST];
        remove_catalogue(f);
        for (int i = 0; i < f->n; i++) order[i] = i;
        for (int i = f->n - 1; i > 0; i--) {
            int k = (int)(made_random(&seed) * (i + 1)), t = order[i];
            order[i] = order[k], order[k] = t;
        }
        for (int i = 0; i < f->n; i++) {
            bool is_new = false;
            CHECK(ingest(f, order[i], &is_new, NULL) == LP_OK && is_new);
            CHECK(ingest(f, order[i / 2], &is_new, NULL) == LP_OK && !is_new); /* twice is once */
        }
        CHECK(dump(f->store, &rows) == want && rows > 200);
    }
    must_index(f, true, f->n);
    CHECK(dump(f->store, NULL) == want);
    must_index(f, false, 0);
    CHECK(dump(f->store, NULL) == want);
}

/* ---- killed --------------------------------------------------------------------------------------------------------- */

static void kill_after(const filled *f, bool is_rebuild, long microseconds)
{
    pid_t child = fork();
    if (child == 0) {
        lp_store_index(NULL, f->store, is_rebuild, NULL, NULL);
        _exit(0);
    }
    nanosleep(&(struct timespec){microseconds / 1000000, microseconds % 1000000 * 1000}, NULL);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

/* How long it takes, so that kills fall everywhere. */
static long index_time(const filled *f)
{
    struct timespec a, b;
    remove_catalogue(f);
    clock_gettime(CLOCK_MONOTONIC, &a);
    must_index(f, false, f->n);
    clock_gettime(CLOCK_MONOTONIC, &b);
    return (b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) / 1000;
}

static void test_kills(const filled *f, uint64_t want)
{
    uint64_t seed = 77;
    long whole = index_time(f);
    for (int i = 0; i < 60; i++) {
        if (i % 3 == 0) remove_catalogue(f);
        kill_after(f, i % 2 == 1, (long)(made_random(&seed) * (double)whole * 1.2));
        if (i % 5) continue;
        must_index(f, false, -1);
        CHECK(dump(f->store, NULL) == want);
    }
    must_index(f, true, f->n);
    CHECK(dump(f->store, NULL) == want);
}

/* ---- full disks ----------------------------------------------------------------------------------------------------- */

static int index_within(const filled *f, bool is_rebuild, rlim_t bytes)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        lp_error err = {0};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){bytes, bytes});
        lp_status st = lp_store_index(NULL, f->store, is_rebuild, NULL, &err);
        _exit(st == LP_OK ? 0 : st == LP_E_IO && err.text[0] && !strchr(err.text, '\n') ? 1 : 2);
    }
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 3;
}

static void test_full(const filled *f, uint64_t want)
{
    int failed = 0;
    for (rlim_t bytes = 1000; bytes < 2000000; bytes = bytes * 3 / 2) {
        remove_catalogue(f);
        int is = index_within(f, false, bytes);
        CHECK(is == 0 || is == 1);
        failed += is == 1;
        must_index(f, false, -1);
        CHECK(dump(f->store, NULL) == want);
        is = index_within(f, true, bytes);
        CHECK(is == 0 || is == 1);
        CHECK(dump(f->store, NULL) == want); /* what was there stays */
    }
    CHECK(failed > 5);
}

/* ---- files that are not what they should be ------------------------------------------------------------------------- */

static void write_bytes(const char *path, const void *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    close(fd);
}

static lp_status open_again(const filled *f, lp_catalogue_mode mode)
{
    lp_catalogue *c = NULL;
    lp_error err = {0};
    lp_status st = lp_catalogue_open(&c, f->store, mode, NULL, &err);
    CHECK((st == LP_OK) == (c != NULL) && (st == LP_OK || (err.text[0] && !strchr(err.text, '\n'))));
    lp_catalogue_close(c);
    return st;
}

static void test_foreign(const filled *f, uint64_t want)
{
    char path[256];
    sqlite3 *db;
    filled_path(path, f, "catalog.sqlite");
    remove_catalogue(f);
    CHECK(open_again(f, LP_CATALOGUE_READ) == LP_E_NOT_FOUND);
    static const char junk[] =
        "this is no database, but long enough to be looked at as if it were one: ...............";
    write_bytes(path, junk, sizeof junk);
    CHECK(open_again(f, LP_CATALOGUE_READ) == LP_E_FORMAT && open_again(f, LP_CATALOGUE_WRITE) == LP_E_FORMAT);
    CHECK(lp_store_index(NULL, f->store, false, NULL, NULL) == LP_E_FORMAT);
    must_index(f, true, f->n); /* a damaged one is replaced */
    CHECK(dump(f->store, NULL) == want);
    remove_catalogue(f);
    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    sqlite3_exec(db, "CREATE TABLE mine(x); INSERT INTO mine VALUES(1)", NULL, NULL, NULL);
    sqlite3_close(db);
    CHECK(open_again(f, LP_CATALOGUE_WRITE) == LP_E_UNSUPPORTED &&
          open_again(f, LP_CATALOGUE_READ) == LP_E_UNSUPPORTED);
    CHECK(lp_store_index(NULL, f->store, true, NULL, NULL) == LP_E_UNSUPPORTED); /* somebody else's is not */
    remove_catalogue(f);
    must_index(f, false, f->n);
    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    sqlite3_exec(db, "PRAGMA user_version = 2", NULL, NULL, NULL);
    sqlite3_close(db);
    CHECK(open_again(f, LP_CATALOGUE_WRITE) == LP_E_UNSUPPORTED);
    CHECK(lp_catalogue_open(&(lp_catalogue *){NULL}, "no/such/folder", LP_CATALOGUE_WRITE, NULL, NULL) ==
          LP_E_NOT_FOUND);
}

/* Flipped bits and cut ends: an answer or an error, never a crash. */
static void test_damage(const filled *f)
{
    char path[256], *good = NULL;
    size_t n = 0;
    uint64_t seed = 4;
    int refused = 0;
    remove_catalogue(f);
    must_index(f, false, f->n);
    filled_path(path, f, "catalog.sqlite");
    CHECK(lp_read_file(&good, &n, path, 1 << 28, NULL) == LP_OK);
    for (int i = 0; i < 200; i++) {
        char *bad = made_array(n, 1);
        size_t keep = i % 8 == 0 ? (size_t)(made_random(&seed) * (double)n) : n;
        memcpy(bad, good, n);
        for (int k = 0; k < 1 + i % 20; k++)
            bad[(size_t)(made_random(&seed) * (double)(i % 3 ? n : 4096))] ^= (char)(1 << k % 8);
        remove_catalogue(f);
        write_bytes(path, bad, keep);
        free(bad);
        lp_store_verified v = {0};
        lp_error err = {0};
        open_again(f, LP_CATALOGUE_READ);
        lp_status st = lp_store_index(NULL, f->store, false, NULL, &err);
        CHECK(st == LP_OK || !strchr(err.text, '\n'));
        if (i % 10 == 0) lp_store_verify(&v, f->store, false, NULL, NULL);
        refused += st != LP_OK || v.bad;
        lp_store_verified_free(&v);
    }
    CHECK(refused > 20);
    free(good);
    remove_catalogue(f);
    must_index(f, true, f->n);
}

static void test_shards(filled *f, uint64_t want)
{
    char path[256], other[300], *bytes = NULL, *side = NULL;
    size_t n = 0, n_side = 0;
    lp_error err = {0};
    bool is_new;
    lp_store_verified v;
    /* Touched, but the same. */
    filled_path(path, f, "runs/" FILLED_RUN "/shard-000002.h5");
    CHECK(utimensat(AT_FDCWD, path, (struct timespec[2]){{0}, {0}}, 0) == 0);
    CHECK(ingest(f, 2, &is_new, &err) == LP_OK && !is_new && dump(f->store, NULL) == want);
    CHECK(lp_store_verify(&v, f->store, false, NULL, &err) == LP_OK && v.bad == 0 && v.n == (size_t)f->n + 1);
    lp_store_verified_free(&v);
    /* Under another's name. */
    filled_path(other, f, "runs/" FILLED_RUN "/shard-000030.h5");
    CHECK(lp_read_file(&bytes, &n, path, 1 << 28, NULL) == LP_OK);
    write_bytes(other, bytes, n);
    CHECK(ingest(f, 30, &is_new, &err) == LP_E_NOT_FOUND); /* no hash beside it */
    filled_path(path, f, "runs/" FILLED_RUN "/shard-000002.h5.xxh3");
    CHECK(lp_read_file(&side, &n_side, path, 4096, NULL) == LP_OK);
    filled_path(path, f, "runs/" FILLED_RUN "/shard-000030.h5.xxh3");
    write_bytes(path, side, n_side);
    CHECK(ingest(f, 30, &is_new, &err) == LP_E_FORMAT && strstr(err.text, "says it is shard 2"));
    unlink(path), unlink(other);
    /* Another file in its place. */
    filled_path(path, f, "runs/" FILLED_RUN "/shard-000002.h5.xxh3");
    char changed[64];
    memcpy(changed, side, n_side);
    changed[0] = changed[0] == '0' ? '1' : '0';
    write_bytes(path, changed, n_side);
    CHECK(ingest(f, 2, &is_new, &err) == LP_E_FORMAT && strstr(err.text, "--rebuild"));
    write_bytes(path, side, n_side);
    /* Damaged: quarantined, and taken back. */
    filled_path(path, f, "runs/" FILLED_RUN "/shard-000002.h5");
    chmod(path, 0600);
    bytes[n / 2] ^= 4;
    write_bytes(path, bytes, n);
    CHECK(ingest(f, 2, &is_new, &err) == LP_E_FORMAT && strstr(err.text, "damaged"));
    CHECK(lp_store_verify(&v, f->store, false, NULL, &err) == LP_OK && v.bad == 1 &&
          v.items[2].state == LP_STORE_DAMAGED && lp_is_file(path));
    lp_store_verified_free(&v);
    CHECK(lp_store_verify(&v, f->store, true, NULL, &err) == LP_OK && v.bad >= 1 &&
          v.items[2].state == LP_STORE_QUARANTINED && !lp_is_file(path));
    lp_store_verified_free(&v);
    CHECK(lp_store_verify(&v, f->store, true, NULL, &err) == LP_OK && v.bad == 1);
    for (size_t i = 0; i < v.n; i++)
        CHECK(v.items[i].state == (v.items[i].number == 2 ? LP_STORE_MISSING : LP_STORE_OK));
    lp_store_verified_free(&v);
    filled_path(path, f, "runs/" FILLED_RUN);
    made_write(f->m[2], path, 64, NULL);
    must_index(f, false, 0);
    CHECK(dump(f->store, NULL) == want);
    free(bytes), free(side);
}

/* A shard of another model, plan or with other SAEs does not come into the run. */
static void test_strangers(const filled *f, uint64_t want)
{
    char folder[256], path[256];
    filled_path(folder, f, "runs/" FILLED_RUN);
    for (int kind = 0; kind < 3; kind++) {
        made_spec spec = {.n_tokens = 40,
                          .n_documents = 2,
                          .vocab = 50,
                          .n_saes = 2,
                          .d_sae = {64, 200},
                          .number = 20,
                          .token_base = 100000};
        if (kind == 2) spec.n_saes = 1;
        made *m = made_new(&spec);
        if (kind == 0) m->head.plan = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
        if (kind == 1) m->about[1].hash = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
        made_write(m, folder, 16, NULL);
        lp_error err = {0};
        bool is_new;
        CHECK(ingest(f, 20, &is_new, &err) == LP_E_FORMAT && !is_new && strstr(err.text, "other shards"));
        CHECK(dump(f->store, NULL) == want);
        snprintf(path, sizeof path, "%.200s/shard-000020.h5", folder), unlink(path);
        snprintf(path, sizeof path, "%.200s/shard-000020.h5.xxh3", folder), unlink(path);
        made_free(m);
    }
}

int main(void)
{
    filled f;
    filled_make(&f, 6, 300, false);
    test_exact();
    must_index(&f, false, f.n);
    uint64_t want = dump(f.store, NULL);
    test_by_hand(&f);
    test_shards(&f, want);
    test_strangers(&f, want);
    test_orders(&f, want);
    test_kills(&f, want);
    test_full(&f, want);
    test_foreign(&f, want);
    test_damage(&f);
    CHECK(dump(f.store, NULL) == want);
    filled_free(&f);
    CHECK(!lp_is_dir(f.store));
    return check_done();
}
