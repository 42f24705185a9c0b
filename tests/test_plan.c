/* Plans: nothing is lost and nothing comes twice, windows are the pieces' tokens, shards are as full as the rule says, the
 * file is the same wherever the corpus lies and however many threads there are, a changed corpus is noticed, and a wrong
 * file is told what is wrong with it.
 *
 *     test_plan CORPUS PLAN CONTEXT SHARD_TOKENS PIECE_BYTES [KEY]     writes a plan, for oracle_plan.py
 */
#include "store/plan.h"

#include "core/pool.h"
#include "store/windows.h"
#include "tests/corpora.h"

#include <xxhash.h>

static lp_tokenizer *tokenizer;
static char out_path[] = "/tmp/lapidary-plan-XXXXXX";

static lp_tokenizer *open_tokenizer(const char *path)
{
    lp_tokenizer *t = NULL;
    lp_error err = {.text = ""};
    if (lp_tokenizer_open(&t, path, &err) != LP_OK) fprintf(stderr, "%s\n", err.text);
    CHECK(t != NULL);
    return t;
}

static lp_status make(lp_plan *p, const char *name, const lp_plan_options *o, lp_error *err)
{
    return lp_plan_make(p, *name ? at(corpus_root, name) : corpus_root, tokenizer, o, NULL, err);
}

static char *slurp(const char *path, size_t *n)
{
    char *text = NULL;
    CHECK(lp_read_file(&text, n, path, 1 << 28, NULL) == LP_OK);
    return text;
}

/* ---- what a plan promises ---------------------------------------------------------------------------------------- */

/* Every window in order: tokens are those of the pieces, texts are those of the documents, shards cover them. */
static void check_plan(const lp_plan *p, const char *corpus)
{
    lp_windows *ws = NULL;
    lp_window w = {0};
    lp_tokens tokens = {0};
    lp_error err = {.text = ""};
    size_t next_window = 0, document = 0;
    int64_t next_token = 0;
    uint64_t at_byte = 0;
    int bos = lp_tokenizer_bos(tokenizer);
    CHECK(lp_windows_open(&ws, p, corpus, tokenizer, NULL, &err) == LP_OK);
    if (err.text[0]) fprintf(stderr, "%s\n", err.text);
    for (size_t i = 0; ws && i < p->n_shards; i++) {
        const lp_plan_shard *s = &p->shards[i];
        int64_t n = 0;
        CHECK(s->first_window == next_window && s->first_token == next_token && s->n_windows > 0);
        for (size_t k = 0; k < s->n_windows; k++) {
            CHECK(lp_windows_read(ws, next_window + k, &w, &err) == LP_OK);
            lp_plan_window where = lp_plan_get_window(p, next_window + k);
            const lp_plan_piece *piece = &p->pieces[where.piece];
            CHECK(piece->document == w.document && w.n == where.n_tokens && w.n <= p->options.context && w.n > 1);
            CHECK(w.ids[0] == bos);
            if (k == 0 && i > 0) /* the shard before had no room for it */
                CHECK(p->shards[i - 1].n_tokens + w.n > p->options.shard_tokens);
            if (w.document != document || where.first == 0) {
                if (w.document != document) CHECK(at_byte == p->documents[document].at.n_bytes);
                for (; document < w.document; document++)
                    if (document + 1 < w.document) CHECK(p->documents[document + 1].at.n_bytes == 0);
                at_byte = piece->at;
            }
            CHECK(w.at == at_byte);
            at_byte += w.n_text;
            n += w.n;
        }
        CHECK(n == s->n_tokens && (n <= p->options.shard_tokens || s->n_windows == 1));
        next_window += s->n_windows;
        next_token += n;
    }
    CHECK(next_window == p->n_windows && next_token == p->n_tokens);
    CHECK(lp_windows_read(ws, p->n_windows, &w, &err) == LP_E_RANGE);

    /* Piece by piece, backwards, so that every document is found again out of order. */
    for (size_t i = p->n_pieces; ws && i-- > 0;) {
        const lp_plan_piece *piece = &p->pieces[i];
        size_t last = i + 1 < p->n_pieces ? p->pieces[i + 1].first_window : p->n_windows, n_ids = 0, n_text = 0;
        int *ids = calloc(piece->n_tokens + 1, sizeof *ids);
        char *text = calloc(piece->n_bytes + 1, 1);
        if (!ids || !text) abort();
        for (size_t k = piece->first_window; k < last; k++) {
            CHECK(lp_windows_read(ws, k, &w, &err) == LP_OK);
            if (n_ids + (size_t)w.n - 1 > piece->n_tokens || n_text + w.n_text > piece->n_bytes) break;
            memcpy(ids + n_ids, w.ids + 1, ((size_t)w.n - 1) * sizeof *ids);
            memcpy(text + n_text, w.text, w.n_text);
            n_ids += (size_t)w.n - 1;
            n_text += w.n_text;
        }
        tokens.n = 0;
        CHECK(lp_tokenizer_encode(tokenizer, text, n_text, p->options.specials, &tokens, &err) == LP_OK);
        CHECK(n_text == piece->n_bytes && n_ids == piece->n_tokens && tokens.n == n_ids);
        CHECK(tokens.n == n_ids && memcmp(tokens.ids, ids, n_ids * sizeof *ids) == 0);
        free(ids);
        free(text);
    }
    lp_tokens_free(&tokens);
    lp_windows_close(ws);
}

static void check_file(const lp_plan *p)
{
    lp_plan again;
    lp_error err = {.text = ""};
    size_t n, m;
    CHECK(lp_plan_write(p, out_path, &err) == LP_OK);
    char *first = slurp(out_path, &n);
    CHECK(lp_plan_read(&again, out_path, &err) == LP_OK);
    if (err.text[0]) fprintf(stderr, "%s\n", err.text);
    CHECK(lp_plan_write(&again, out_path, &err) == LP_OK);
    char *second = slurp(out_path, &m);
    CHECK(n == m && memcmp(first, second, n) == 0);
    free(first);
    free(second);
    lp_plan_clear(&again);
}

static void put_mixed(void)
{
    static char text[40000];
    fresh_root();
    CHECK(mkdir(at(corpus_root, "deep"), 0700) == 0);
    put_file(at(corpus_root, "deep/long.txt"), text, some_text(text, sizeof text, false));
    put_file(at(corpus_root, "deep/broken.txt"), text, some_text(text, 3000, true));
    put_gz("packed.txt.gz", text, some_text(text, 9000, false));
    put_text("empty.txt", "");
    put_text("few.jsonl", "{\"text\":\"Call me Ishmael.\",\"id\":\"one\"}\n{\"text\":\"\",\"id\":2}\nnot JSON\n"
                          "{\"text\":\"\\u0000 <start_of_turn> \\ud83d\\udc0b\",\"id\":\"three\"}\n");
}

static void promises(void)
{
    static const int contexts[] = {2, 3, 17, 128, 100000};
    static const int64_t shards[] = {1, 50, 1000, 1 << 20};
    put_mixed();
    for (size_t i = 0; i < 5; i++)
        for (size_t k = 0; k < 4; k++) {
            size_t piece = (i + k) % 3 == 0 ? 16 : (i + k) % 3 == 1 ? 1000 : 0;
            lp_plan_options o = {.context = contexts[i], .shard_tokens = shards[k], .specials = LP_SPECIALS_LITERAL};
            o.corpus = (lp_corpus_options){.key = "id", .skip_bad = true, .piece_bytes = piece};
            o.corpus.split = (lp_corpus_split)((i * 4 + k) % 3);
            lp_plan p;
            lp_error err = {.text = ""};
            CHECK(make(&p, "", &o, &err) == LP_OK);
            if (err.text[0]) fprintf(stderr, "%s\n", err.text);
            CHECK(p.n_skipped == 1 && p.n_empty == (o.corpus.split == LP_SPLIT_NONE ? 2 : 1) && p.files.n == 5);
            check_plan(&p, corpus_root);
            check_file(&p);
            lp_plan_clear(&p);
        }
}

/* Counted by hand. */
static void small_ones(void)
{
    lp_plan p;
    lp_error err = {.text = ""};
    lp_tokens t = {0};
    fresh_root();
    put_text("a.txt", "ship ship ship ship ship");
    CHECK(lp_tokenizer_encode(tokenizer, "ship ship ship ship ship", 24, LP_SPECIALS_LITERAL, &t, &err) == LP_OK);
    int n = (int)t.n; /* 5 where both are pieces */
    lp_plan_options o = {.context = 2, .shard_tokens = 4, .specials = LP_SPECIALS_LITERAL};
    CHECK(make(&p, "a.txt", &o, &err) == LP_OK);
    CHECK((int)p.n_windows == n && p.n_tokens == 2 * n && (int)p.n_shards == (n + 1) / 2 && p.n_bytes == 24);
    lp_plan_clear(&p);
    o.context = n + 1;
    CHECK(make(&p, "a.txt", &o, &err) == LP_OK && p.n_windows == 1 && p.n_tokens == n + 1 && p.n_shards == 1);
    lp_plan_clear(&p);
    o.context = n;
    o.shard_tokens = 1; /* less than a window */
    CHECK(make(&p, "a.txt", &o, &err) == LP_OK && p.n_windows == 2 && p.n_shards == 2 && p.shards[1].n_tokens == 2);
    lp_plan_clear(&p);
    put_text("a.txt", "");
    CHECK(make(&p, "a.txt", &o, &err) == LP_OK && p.n_documents == 1 && p.n_empty == 1 && p.n_windows == 0);
    check_plan(&p, at(corpus_root, "a.txt"));
    check_file(&p);
    lp_plan_clear(&p);
    o.context = 1;
    CHECK(make(&p, "a.txt", &o, &err) == LP_E_RANGE && strstr(err.text, "windows of 1 tokens"));
    o = (lp_plan_options){.context = 8, .shard_tokens = -1};
    CHECK(make(&p, "a.txt", &o, &err) == LP_E_RANGE && strstr(err.text, "shards of -1 tokens"));
    CHECK(!p.documents && !p.files.items);
    lp_tokens_free(&t);
}

/* ---- the same everywhere ----------------------------------------------------------------------------------------- */

static void determinism(void)
{
    static const int threads[] = {1, 2, 5};
    lp_plan_options o = {.context = 30, .shard_tokens = 500, .specials = LP_SPECIALS_LITERAL};
    o.corpus = (lp_corpus_options){.skip_bad = true, .piece_bytes = 700};
    char moved[64], *first = NULL, *now;
    size_t n_first = 0, n;
    put_mixed();
    snprintf(moved, sizeof moved, "%s-moved", corpus_root);
    for (int i = 0; i < 6; i++) {
        lp_error err = {.text = ""};
        lp_pool *pool = NULL;
        lp_plan p;
        const char *where = i < 3 ? corpus_root : moved;
        if (i == 3) CHECK(rename(corpus_root, moved) == 0);
        CHECK(lp_pool_new(&pool, threads[i % 3], &err) == LP_OK);
        lp_env env = {.pool = pool};
        CHECK(lp_plan_make(&p, where, tokenizer, &o, &env, &err) == LP_OK);
        CHECK(lp_plan_write(&p, out_path, &err) == LP_OK);
        now = slurp(out_path, &n);
        if (!first) first = now, n_first = n;
        CHECK(n == n_first && memcmp(now, first, n) == 0);
        if (now != first) free(now);
        lp_plan_clear(&p);
        lp_pool_free(pool);
    }
    free(first);
    CHECK(rename(moved, corpus_root) == 0);
}

static void raise_flag(void *user, const char *what, int64_t done, int64_t of)
{
    CHECK(!strcmp(what, "planning") && done > 0 && done <= of);
    atomic_store((atomic_bool *)user, true);
}

static void progress_and_cancel(void)
{
    atomic_bool stop = false;
    lp_env env = {.cancel = &stop, .progress = raise_flag, .user = &stop};
    lp_plan_options o = {.context = 30, .specials = LP_SPECIALS_LITERAL};
    lp_plan p;
    lp_error err = {.text = ""};
    put_mixed();
    o.corpus.skip_bad = true;
    CHECK(lp_plan_make(&p, corpus_root, tokenizer, &o, &env, &err) == LP_OK && stop); /* raised with the last of it */
    lp_plan_clear(&p);
    CHECK(lp_plan_make(&p, corpus_root, tokenizer, &o, &env, &err) == LP_CANCELLED && !p.documents);
}

/* A hundred thousand documents are one, a hundred thousand times. */
static void many(void)
{
    enum { N = 100000 };
    lp_plan_options o = {.context = 64, .shard_tokens = 1000, .specials = LP_SPECIALS_LITERAL};
    lp_plan p;
    lp_error err = {.text = ""};
    fresh_root();
    FILE *f = fopen(at(corpus_root, "many.jsonl"), "w");
    CHECK(f != NULL);
    for (int i = 0; f && i < N; i++) fprintf(f, "{\"text\":\"%d\"}\n", i % 10);
    if (f) fclose(f);
    CHECK(make(&p, "", &o, &err) == LP_OK && p.n_documents == N && p.n_windows == N && p.n_bytes == N);
    check_file(&p);
    lp_plan_clear(&p);
}

/* ---- a corpus that changed --------------------------------------------------------------------------------------- */

static void notice(const lp_plan *p, size_t window, lp_status want, const char *says)
{
    lp_windows *ws = NULL;
    lp_window w;
    lp_error err = {.text = ""};
    CHECK(lp_windows_open(&ws, p, corpus_root, tokenizer, NULL, &err) == LP_OK);
    lp_status st = ws ? lp_windows_read(ws, window, &w, &err) : LP_OK;
    CHECK(st == want && strstr(err.text, says));
    if (!strstr(err.text, says)) fprintf(stderr, "%d, %s; want %s\n", st, err.text, says);
    lp_windows_close(ws);
}

static void changes(void)
{
    lp_plan_options o = {.context = 64, .specials = LP_SPECIALS_LITERAL, .corpus = {.key = "id"}};
    lp_plan p;
    lp_error err = {.text = ""};
    static const char jsonl[] = "{\"id\":\"one\",\"text\":\"the sea\"}\n{\"id\":\"two\",\"text\":\"the ship\"}\n";
    fresh_root();
    put_text("a.jsonl", jsonl);
    put_text("b.txt", "the whale");
    CHECK(make(&p, "", &o, &err) == LP_OK && p.n_windows == 3);
    notice(&p, 1, LP_OK, "");
    put_text("a.jsonl", "{\"id\":\"one\",\"text\":\"the sea\"}\n{\"id\":\"two\",\"text\":\"the shop\"}\n");
    notice(&p, 0, LP_OK, "");
    notice(&p, 1, LP_E_FORMAT, "a.jsonl:two: the corpus changed since the plan (its text is another); restore it");
    put_text("a.jsonl", "{\"id\":\"one\",\"text\":\"the sea\"}\n{\"id\":\"two\",\"text\":\"the s\"   }\n");
    notice(&p, 1, LP_E_FORMAT, "a.jsonl:two: the corpus changed since the plan (its text has another length)");
    put_text("a.jsonl", "\n\n");
    notice(&p, 1, LP_E_FORMAT, "a.jsonl:two: the corpus changed since the plan (");
    put_text("a.jsonl", "{\"id\":\"one\",\"text\":\"the sea\"}\n[\"id\",\"two\",\"text\",\"the ship\"]\n");
    notice(&p, 1, LP_E_FORMAT, "a.jsonl:two: the corpus changed since the plan (");
    put_text("b.txt", "the whole");
    notice(&p, 2, LP_E_FORMAT, "b.txt:1: the corpus changed since the plan (its text is another)");
    put_text("b.txt", "the");
    notice(&p, 2, LP_E_FORMAT, "b.txt:1: the corpus changed since the plan (");
    unlink(at(corpus_root, "b.txt"));
    notice(&p, 2, LP_E_NOT_FOUND, "b.txt: No such file");

    lp_windows *ws = NULL;
    lp_tokenizer *other = open_tokenizer(LP_TESTS_DIR "/goldens/nano/tokenizer.model");
    CHECK(lp_windows_open(&ws, &p, corpus_root, other, NULL, &err) == LP_E_UNSUPPORTED);
    CHECK(strstr(err.text, "another tokenizer"));
    CHECK(lp_windows_open(&ws, &p, at(corpus_root, "a.jsonl"), tokenizer, NULL, &err) == LP_E_NOT_FOUND);
    lp_tokenizer_free(other);
    lp_plan_clear(&p);
    /* One file may be called anything later. */
    put_text("a.jsonl", jsonl);
    CHECK(make(&p, "a.jsonl", &o, &err) == LP_OK);
    CHECK(rename(at(corpus_root, "a.jsonl"), at(corpus_root, "z")) == 0);
    check_plan(&p, at(corpus_root, "z"));
    lp_plan_clear(&p);
}

/* ---- files that are wrong ---------------------------------------------------------------------------------------- */

/* The plan's file with `from` replaced by `to`, under its right hash. */
static void edit(const char *file, const char *from, const char *to, lp_status want, const char *says)
{
    char *text = malloc(strlen(file) + strlen(to) + 1), hash[40];
    lp_plan p;
    lp_error err = {.text = ""};
    const char *found = strstr(file, from);
    CHECK(found && text);
    if (!found || !text) return;
    sprintf(text, "%.*s%s%s", (int)(found - file), file, to, found + strlen(from));
    char *body = strchr(text, '\n'), *old = strstr(text, "\"hash\":\"");
    XXH128_canonical_t h;
    XXH128_canonicalFromHash(&h, XXH3_128bits(body + 1, strlen(body + 1)));
    for (int i = 0; i < 16; i++) sprintf(hash + 2 * i, "%02x", h.digest[i]);
    if (old && old < body) memcpy(old + 8, hash, 32);
    lp_status st = lp_plan_parse(&p, text, strlen(text), &err);
    CHECK(st == want && strstr(err.text, says) && !strchr(err.text, '\n'));
    if (st != want || !strstr(err.text, says)) fprintf(stderr, "%s: %d, %s; want %s\n", to, st, err.text, says);
    if (st == LP_OK) lp_plan_clear(&p);
    free(text);
}

static void wrong_files(void)
{
    lp_plan_options o = {.context = 8, .shard_tokens = 16, .specials = LP_SPECIALS_LITERAL};
    lp_plan p;
    lp_error err = {.text = ""};
    size_t n;
    fresh_root();
    put_text("a.txt", "the sea, the ship, the whale and the sea again");
    put_text("b.jsonl", "{\"text\":\"\"}\n{\"text\":\"sea\"}\n");
    CHECK(make(&p, "", &o, &err) == LP_OK && lp_plan_write(&p, out_path, &err) == LP_OK);
    lp_plan_clear(&p);
    char *f = slurp(out_path, &n);
    if (!f) return;
    edit(f, "", "", LP_OK, "");
    edit(f, "lapidary-plan", "lapidary-run", LP_E_FORMAT, "not a plan");
    edit(f, "\"version\":1", "\"version\":2", LP_E_UNSUPPORTED, "a plan of version 2");
    edit(f, "\"context\":8", "\"context\":1", LP_E_FORMAT, "line 2: \"context\" must be a whole number from 2");
    edit(f, "\"context\":8", "\"context\":3", LP_E_FORMAT, "counts are not those");
    edit(f, "\"context\":8", "\"context\":8.0", LP_E_FORMAT, "line 2: \"context\" must be a whole number");
    edit(f, "literal", "loose", LP_E_FORMAT, "\"specials\" must be");
    edit(f, "\"documents\":3", "\"documents\":4", LP_E_FORMAT, "line 8: \"document\" must be a whole number");
    edit(f, "\"documents\":3", "\"documents\":2", LP_E_FORMAT, "line");
    edit(f, "\"files\":2", "\"files\":9007199254740992", LP_E_FORMAT, "\"file\" is 0, but must be 2 here");
    edit(f, "\"shards\":", "\"shards\":9007199254740992,\"x\":", LP_E_FORMAT, "counts are not those");
    edit(f, "\"shards\":", "\"shards\":0,\"x\":", LP_E_RANGE, "more than 0 shards");
    edit(f, "a.txt", "../a.txt", LP_E_FORMAT, "\"name\" must be a path inside the corpus");
    edit(f, "a.txt", "/etc/a.txt", LP_E_FORMAT, "\"name\" must be a path inside the corpus");
    edit(f, "\"kind\":\"text\"", "\"kind\":\"csv\"", LP_E_FORMAT, "\"kind\" must be");
    edit(f, "\"document\":1", "\"document\":2", LP_E_FORMAT, "line 6: \"document\" is 2, but must be 1 here");
    edit(f, "\"document\":0,\"file\":0", "\"document\":0,\"file\":2", LP_E_FORMAT,
         "\"file\" must be a whole number from 0 to 1");
    edit(f, "\"length\":46", "\"length\":47", LP_E_FORMAT, "\"length\" is 47, but must be 46 here");
    edit(f, "\"pieces\":[[46,", "\"pieces\":[[45,", LP_E_FORMAT, "\"bytes\" is 46, but must be 45 here");
    edit(f, "\"pieces\":[[46,", "\"pieces\":[[46,47],[46,", LP_E_FORMAT, "a list of [bytes, tokens,");
    edit(f, "\"shard\":1", "\"shard\":0", LP_E_FORMAT, "\"shard\" is 0, but must be 1 here");
    edit(f, "\"first_token\":0", "\"first_token\":1", LP_E_FORMAT, "\"first_token\" is 1, but must be 0 here");
    edit(f, "{\"shard\":1", "{}\n{\"shard\":1", LP_E_FORMAT, "\"shard\" must be a whole number");
    edit(f, "{\"document\":0", "[{\"document\":0", LP_E_FORMAT, "line 5: not JSON");
    CHECK(lp_plan_parse(&p, f, 0, &err) == LP_E_FORMAT && strstr(err.text, "line 1"));
    CHECK(lp_plan_parse(&p, f, n - 1, &err) == LP_E_FORMAT && strstr(err.text, "damaged or edited"));
    f[n - 5] ^= 1;
    CHECK(lp_plan_parse(&p, f, n, &err) == LP_E_FORMAT && strstr(err.text, "damaged or edited"));
    free(f);
    CHECK(lp_plan_read(&p, corpus_root, &err) == LP_E_IO);
}

static int write_one(char **argv, int argc)
{
    lp_plan_options o = {.context = atoi(argv[3]), .shard_tokens = atoi(argv[4]), .specials = LP_SPECIALS_LITERAL};
    lp_plan p;
    lp_error err = {.text = ""};
    o.corpus = (lp_corpus_options){.piece_bytes = (size_t)atoi(argv[5]), .key = argc > 6 ? argv[6] : NULL};
    lp_status st = lp_plan_make(&p, argv[1], tokenizer, &o, NULL, &err);
    if (st == LP_OK) st = lp_plan_write(&p, argv[2], &err);
    if (st != LP_OK) fprintf(stderr, "%s\n", err.text);
    lp_plan_clear(&p);
    return st != LP_OK;
}

int main(int argc, char **argv)
{
    tokenizer = open_tokenizer(LP_DATA_DIR "/base/tokenizer.model");
    if (!tokenizer) return 1;
    if (argc > 5) return write_one(argv, argc);
    int fd = mkstemp(out_path);
    CHECK(fd >= 0 && close(fd) == 0 && mkdtemp(corpus_root) != NULL);
    small_ones();
    promises();
    determinism();
    progress_and_cancel();
    many();
    changes();
    wrong_files();
    remove_tree(corpus_root);
    unlink(out_path);
    lp_tokenizer_free(tokenizer);
    return check_done();
}
