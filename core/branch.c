/* branch.c - several continuations of one past, side by side: see session.h.
 *
 * What a row computes does not depend on who goes through the layers with it, so branches need nothing of their own but
 * keys and values, and those of one layer only: when a layer is done nobody asks for them again.
 */
#include "core/wave.h"

#include <stdlib.h>

/* Room for `n` branches of `each` tokens from s->pos on. */
static lp_status take_tails(lp_session *s, int n, int each, lp_error *err)
{
    lp_config one = s->model->config;
    one.n_layers = 1;
    int need = (s->pos % LP_PAGE + each + LP_PAGE - 1) / LP_PAGE;
    if (s->n_tails >= n && s->tails[0].n_pages >= need) return LP_OK;
    for (int i = 0; i < s->n_tails; i++) lp_kv_clear(&s->tails[i]);
    free(s->tails);
    s->n_tails = 0;
    if (!(s->tails = lp_calloc((size_t)n, sizeof *s->tails)))
        return lp_fail(err, LP_E_MEMORY, "no memory for %d branches", n);
    for (; s->n_tails < n; s->n_tails++) {
        lp_status st = lp_kv_new(&s->tails[s->n_tails], &one, need * LP_PAGE, err);
        if (st == LP_OK) continue;
        lp_kv_clear(&s->tails[s->n_tails]);
        return st;
    }
    return LP_OK;
}

/* Branches that go into one wave; 0: each is longer than a wave, so there is nothing to gain. */
static int branches_at_once(const lp_session *s, int each, int branches)
{
    size_t page = (size_t)(lp_session_bytes_per_token(&s->model->config) / (uint64_t)s->model->config.n_layers) *
                  LP_PAGE;
    size_t pages = (size_t)((s->pos % LP_PAGE + each + LP_PAGE - 1) / LP_PAGE), most = LP_TAIL_BYTES / (page * pages);
    int n = s->options.wave / each;
    if (most < 1) most = 1;
    if ((size_t)n > most) n = (int)most;
    return n < branches ? n : branches;
}

static lp_status one_by_one(lp_session *s, const int *ids, int each, int branches, lp_branch_fn fn, void *user,
                            lp_error *err)
{
    lp_status st = LP_OK;
    for (int b = 0; b < branches && st == LP_OK; b++) {
        s->branch = b;
        st = lp_session_run(s, ids + (size_t)b * (size_t)each, (size_t)each, s->model->config.n_layers - 1, true, err);
        if (st == LP_OK && fn(b, s->next_logits, user)) st = LP_STOPPED;
    }
    s->branch = 0;
    return st;
}

/* Branches side by side, as many as go into a wave; w says what is wanted of them. */
static lp_status together(lp_session *s, lp_rows w, const int *ids, int branches, int at_once, lp_error *err)
{
    LP_TRY(take_tails(s, at_once, w.each, err));
    LP_TRY(lp_session_take_logit_rows(s, err));
    lp_status st = LP_OK;
    s->is_busy = true;
    for (int b = 0; b < branches && st == LP_OK; b += at_once) {
        w.ids = ids + (size_t)b * (size_t)w.each;
        w.n = (branches - b < at_once ? branches - b : at_once) * w.each;
        w.branch = b;
        st = lp_forward(s, &w, err);
    }
    s->is_busy = false;
    return st;
}

static lp_status check_branches(const lp_session *s, const int *ids, int each, int branches, lp_error *err)
{
    if (each < 1 || branches < 0)
        return lp_fail(err, LP_E_RANGE, "%d branches of %d tokens: each needs at least one", branches, each);
    for (int b = 0; b < branches; b++) LP_TRY(lp_session_check(s, ids + (size_t)b * (size_t)each, (size_t)each, err));
    return LP_OK;
}

lp_status lp_session_branch(lp_session *s, const int *ids, int each, int branches, lp_branch_fn fn, void *user,
                            lp_error *err)
{
    lp_rows w = {.each = each, .last_layer = s->model->config.n_layers - 1, .fn = fn, .user = user};
    LP_TRY(check_branches(s, ids, each, branches, err));
    int at_once = branches_at_once(s, each, branches);
    return at_once ? together(s, w, ids, branches, at_once, err) : one_by_one(s, ids, each, branches, fn, user, err);
}

lp_status lp_session_peek_branches(lp_session *s, const int *ids, int each, int branches, int last_layer, lp_error *err)
{
    lp_rows w = {.each = each, .last_layer = last_layer};
    LP_TRY(check_branches(s, ids, each, branches, err));
    if (each > s->options.wave)
        return lp_fail(err, LP_E_RANGE, "branches of %d tokens in waves of %d", each, s->options.wave);
    if (last_layer < 0 || last_layer >= s->model->config.n_layers)
        return lp_fail(err, LP_E_RANGE, "layer %d: this model has layers 0 to %d", last_layer,
                       s->model->config.n_layers - 1);
    int at_once = branches_at_once(s, each, branches);
    return branches ? together(s, w, ids, branches, at_once, err) : LP_OK;
}
