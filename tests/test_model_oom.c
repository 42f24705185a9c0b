/* Every allocation of opening a model, making a session, hooking, forking and rewinding it fails once. */
#include "tests/models.h"
#include "tests/oom.h"

static lp_model *plain;

static lp_status open_model(const void *user, lp_error *err)
{
    lp_model *m = NULL;
    lp_status st = lp_model_open(&m, user, NULL, NULL, err);
    CHECK((st == LP_OK) == (m != NULL));
    lp_model_close(m);
    return st;
}

static lp_status read_plan(const void *user, lp_error *err)
{
    lp_model_plan plan;
    lp_status st = lp_model_plan_read(&plan, user, NULL, err);
    lp_model_plan_clear(&plan);
    return st;
}

/* A session that was refused something must still work for what it holds. */
static lp_status live(lp_session *s, lp_session **fork, lp_error *err)
{
    static const int ids[80] = {2, 3, 5};
    static float row[64];
    static lp_tape t = {.x = row, .n_layers = 1, .n_pos = 1, .width = 64}; /* borrowed until the session is gone */
    int handle = lp_session_hook(s, lp_tap(LP_LOGITS, LP_WHOLE_MODEL, &t), err);
    if (handle < 0) return (lp_status)handle;
    LP_TRY(lp_session_eval(s, ids, 80, err));
    LP_TRY(lp_session_fork(fork, s, 70, err));
    LP_TRY(lp_session_rewind(s, 10, err)); /* its pages are shared with the fork: it needs its own */
    LP_TRY(lp_session_eval(s, ids, 3, err));
    return lp_session_eval(*fork, ids, 3, err);
}

static lp_status use_session(const void *user, lp_error *err)
{
    (void)user;
    lp_session *s = NULL, *fork = NULL;
    lp_status st = lp_session_new(&s, plain, &(lp_session_options){.n_ctx = 128, .wave = 8}, NULL, err);
    CHECK((st == LP_OK) == (s != NULL));
    if (st == LP_OK) st = live(s, &fork, err);
    if (s && st == LP_E_MEMORY) {
        int pos = lp_session_pos(s);
        CHECK(pos == 0 || pos == 80); /* nothing half done */
        CHECK(lp_session_eval(s, (int[]){7}, 1, NULL) == LP_OK && lp_session_pos(s) == pos + 1);
    }
    lp_session_free(s);
    lp_session_free(fork);
    return st;
}

static lp_status start_pool(const void *user, lp_error *err)
{
    (void)user;
    lp_pool *p = NULL;
    lp_status st = lp_pool_new(&p, 3, err);
    lp_pool_free(p);
    return st;
}

int main(void)
{
    static const char *const models[] = {"models/plain", "models/gqa4", "gguf/twin-Q8_0.gguf",
                                         "gguf/kquant-Q4_K_M.gguf"};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/goldens/%s", LP_TESTS_DIR, models[i]);
        CHECK(oom_sweep(models[i], open_model, path) > 20);
        oom_sweep(models[i], read_plan, path);
    }
    plain = open_golden("models/plain", NULL);
    if (plain) CHECK(oom_sweep("session", use_session, NULL) > 5);
    oom_sweep("pool", start_pool, NULL);
    lp_model_close(plain);
    return check_done();
}
