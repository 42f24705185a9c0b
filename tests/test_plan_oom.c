/* Corpora and plans when memory runs out: finding files, reading them, planning, writing, reading back, windows. */
#include "store/windows.h"

#include "tests/corpora.h"
#include "tests/oom.h"

static lp_tokenizer *tokenizer;
static const char *plan_path;

static lp_status walk(const lp_plan *p, lp_error *err)
{
    lp_windows *ws = NULL;
    lp_window w;
    lp_status st = lp_windows_open(&ws, p, corpus_root, tokenizer, NULL, err);
    for (size_t i = 0; i < p->n_windows && st == LP_OK; i++) st = lp_windows_read(ws, i, &w, err);
    lp_windows_close(ws);
    return st;
}

static lp_status plan_and_read(const void *user, lp_error *err)
{
    const lp_plan_options o = {.context = 6,
                               .shard_tokens = 20,
                               .specials = LP_SPECIALS_LITERAL,
                               .corpus = {.key = "id", .piece_bytes = 16, .field = "text"}};
    lp_plan made, read = {0};
    (void)user;
    lp_status st = lp_plan_make(&made, corpus_root, tokenizer, &o, NULL, err);
    CHECK((st == LP_OK) == (made.n_documents == 4) && (st == LP_OK || !made.documents));
    if (st == LP_OK) st = lp_plan_write(&made, plan_path, err);
    if (st == LP_OK) st = lp_plan_read(&read, plan_path, err);
    if (st == LP_OK) st = walk(&read, err);
    lp_plan_clear(&made);
    lp_plan_clear(&read);
    return st;
}

int main(void)
{
    char path[64];
    lp_error err = {.text = ""};
    CHECK(mkdtemp(corpus_root) != NULL);
    CHECK(lp_tokenizer_open(&tokenizer, LP_TESTS_DIR "/goldens/nano/tokenizer.model", &err) == LP_OK);
    put_text("a.txt", "the sea, the ship, the whale and the sea again, in pieces of sixteen bytes");
    put_text("b.jsonl", "{\"text\":\"\",\"id\":\"none\"}\n{\"text\":\"the ship\",\"id\":7}\n");
    CHECK(mkdir(at(corpus_root, "c"), 0700) == 0);
    put_gz("c/d.txt.gz", "packed", 6);
    put_text(".hidden", "");
    snprintf(path, sizeof path, "%s.plan", corpus_root);
    plan_path = path;
    if (tokenizer) CHECK(oom_sweep("plan", plan_and_read, NULL) > 60);
    lp_tokenizer_free(tokenizer);
    unlink(path);
    remove_tree(corpus_root);
    return check_done();
}
