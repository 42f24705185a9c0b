/* Joint clamps: what is reported as reached is reached when the tape of the row is encoded by somebody else; what
 * cannot be reached is reported as that, and left alone.
 */
#include "tests/steered.h"

typedef struct outcome {
    lp_steer_reading *r;
    size_t n;
    run *w; /* before and after, of the place of `which` */
} outcome;

static outcome readings_of(const char *features, const char *more, int which)
{
    outcome o = {.w = lp_calloc(1, sizeof *o.w)};
    lp_recipe r = recipe(features, more);
    watch(o.w, &r, saes[which], 6);
    lp_session *s = new_session(model, NULL, NULL);
    lp_steer *st = steer(s, &r, 6, 1);
    eval(s, st, ids, N);
    CHECK_SAME(lp_session_logits(s), o.w->logits, V);
    CHECK(lp_steer_readback(&o.r, &o.n, st, NULL) == LP_OK);
    lp_steer_free(st);
    lp_session_free(s);
    lp_recipe_clear(&r);
    return o;
}

static void done(outcome *o)
{
    free(o->r);
    free(o->w);
}

/* Clamps of `n` features of one SAE to `to`. */
static char *clamps(int which, const int *features, const double *to, int n)
{
    static char text[4000];
    size_t at = 0;
    for (int i = 0; i < n; i++)
        at += (size_t)snprintf(text + at, sizeof text - at,
                               "%s{\"layer\": \"%s\", \"index\": %d, \"kind\": \"clamp\", \"strength\": %g}",
                               i ? ", " : "", saes[which]->name, features[i], to[i]);
    return text;
}

/* Every reading of edit i has status[i]; the reached ones are so by another encoder on the tape. */
static void expect_statuses(const outcome *o, int which, const int *features, const double *to,
                            const lp_steer_status *want, int n)
{
    lp_encoder *e = encoder(which);
    CHECK(o->n == (size_t)n * (N - 1));
    for (size_t k = 0; k < o->n; k++) {
        const lp_steer_reading *r = &o->r[k];
        if (r->edit >= n) continue;
        double f[S], t = to[r->edit];
        activations(f, e, o->w->after + r->pos * PLAIN_D);
        CHECK((double)r->achieved == f[features[r->edit]]);
        CHECK((double)r->asked == (double)(float)t);
        CHECK(r->status == want[r->edit]);
        if (r->status != want[r->edit])
            fprintf(stderr, "position %d, edit %d: %s, asked %g, before %g, achieved %g\n", r->pos, r->edit,
                    lp_steer_status_name(r->status), (double)r->asked, (double)r->before, (double)r->achieved);
        if (r->status == LP_STEER_REACHED) CHECK(t == 0 ? r->achieved == 0 : fabs((double)r->achieved - t) <= 1e-4 * t);
    }
    lp_encoder_free(e);
}

static const lp_steer_status all_reached[8] = {LP_STEER_REACHED, LP_STEER_REACHED, LP_STEER_REACHED, LP_STEER_REACHED,
                                               LP_STEER_REACHED, LP_STEER_REACHED, LP_STEER_REACHED, LP_STEER_REACHED};

static void reaching(int which)
{
    static const int features[] = {3, 8, 11, 20, 31, 40};
    static const double to[] = {6, 2.5, 0, 0.75, 0, 12};
    outcome o = readings_of(clamps(which, features, to, 6), "\"joint\": true", which);
    expect_statuses(&o, which, features, to, all_reached, 6);
    done(&o);
    /* One by one they do not get there: there was something to solve. */
    o = readings_of(clamps(which, features, to, 6), "", which);
    int off = 0;
    for (size_t k = 0; k < o.n; k++) {
        CHECK(o.r[k].status == LP_STEER_PLAIN);
        off += fabs((double)o.r[k].achieved - (double)o.r[k].asked) > 0.01;
    }
    CHECK(off > (int)o.n / 2);
    done(&o);
}

/* On top of what other kinds add there; and features of two SAEs. */
static void with_others(void)
{
    static const int features[] = {3, 8};
    static const double to[] = {6, 2.5};
    char text[4000];
    snprintf(text, sizeof text, "%s, {\"layer\": \"res1\", \"index\": 5, \"strength\": 4}",
             clamps(RES1, features, to, 2));
    outcome o = readings_of(text, "\"joint\": true", RES1);
    int reached = 0;
    for (size_t k = 0; k < o.n; k++) {
        CHECK(o.r[k].status == (o.r[k].edit < 2 ? LP_STEER_REACHED : LP_STEER_PLAIN));
        reached += o.r[k].status == LP_STEER_REACHED;
    }
    CHECK(reached == 2 * (N - 1));
    done(&o);
    snprintf(text, sizeof text, "%s, {\"layer\": \"res1b\", \"index\": 5, \"kind\": \"clamp\", \"strength\": 4}",
             clamps(RES1, features, to, 2));
    o = readings_of(text, "\"joint\": true", RES1);
    lp_encoder *e = encoder(RES1B);
    for (size_t k = 0; k < o.n; k++) {
        double f[S];
        CHECK(o.r[k].status == LP_STEER_REACHED);
        if (o.r[k].edit < 2) continue;
        activations(f, e, o.w->after + o.r[k].pos * PLAIN_D);
        CHECK_NEAR(f[5], 4, 4e-4);
    }
    lp_encoder_free(e);
    done(&o);
    /* On the reconstruction, and half way by a schedule. */
    o = readings_of(clamps(RES1, features, to, 2), "\"joint\": true, \"error_term\": false", RES1);
    expect_statuses(&o, RES1, features, to, all_reached, 2);
    done(&o);
    o = readings_of(
        "{\"layer\": \"res1\", \"index\": 3, \"kind\": \"clamp\", \"strength\": 6, \"schedule\": {\"ramp\": 2}}",
        "\"joint\": true", RES1);
    CHECK(o.n == N - 7);
    for (size_t k = 0; k < o.n; k++) {
        double want = o.r[k].pos == 7 ? 0.5 * ((double)o.r[k].before + 6) : 6;
        CHECK(o.r[k].status == LP_STEER_REACHED);
        CHECK_NEAR(o.r[k].achieved, want, 1e-4 * want);
    }
    done(&o);
}

static void unreachable(void)
{
    static const int features[] = {3, 8, 11, 20};
    static const double to[] = {6, 0.2, -1, 2}; /* the threshold is 0.3 */
    static const lp_steer_status want[] = {LP_STEER_REACHED, LP_STEER_BELOW_THRESHOLD, LP_STEER_BELOW_THRESHOLD,
                                           LP_STEER_REACHED};
    outcome o = readings_of(clamps(RES1, features, to, 4), "\"joint\": true", RES1), two;
    expect_statuses(&o, RES1, features, to, want, 4);
    static const int rest[] = {3, 20}; /* what cannot be is left alone: the others are as without it */
    static const double rest_to[] = {6, 2};
    two = readings_of(clamps(RES1, rest, rest_to, 2), "\"joint\": true", RES1);
    CHECK_SAME(o.w->after, two.w->after, N * PLAIN_D);
    done(&o), done(&two);

    static const int twins[] = {0, 1, 7};
    static const double twins_to[] = {4, 5, 3};
    static const lp_steer_status twins_want[] = {LP_STEER_REACHED, LP_STEER_DEPENDENT, LP_STEER_REACHED};
    o = readings_of(clamps(TWINS, twins, twins_to, 3), "\"joint\": true", TWINS);
    expect_statuses(&o, TWINS, twins, twins_to, twins_want, 3);
    done(&o);

    static const lp_steer_status bent[] = {LP_STEER_NOT_LINEAR, LP_STEER_NOT_LINEAR};
    static const int nonlinear[] = {TOPK, LAYER};
    for (int k = 0; k < 2; k++) { /* clamped as if alone */
        o = readings_of(clamps(nonlinear[k], features, to, 2), "\"joint\": true", nonlinear[k]);
        expect_statuses(&o, nonlinear[k], features, to, bent, 2);
        two = readings_of(clamps(nonlinear[k], features, to, 2), "", nonlinear[k]);
        CHECK_SAME(o.w->after, two.w->after, N * PLAIN_D);
        done(&o), done(&two);
    }
}

/* The more is asked, the likelier a direction is nearly a sum of others: whatever is said to be reached must be. */
static void many(void)
{
    int features[24];
    double to[24];
    for (int i = 0; i < 24; i++) features[i] = 2 * i, to[i] = i % 3 ? 0.5 + i : 0;
    outcome o = readings_of(clamps(RES1, features, to, 24), "\"joint\": true", RES1);
    lp_encoder *e = encoder(RES1);
    int reached = 0;
    for (size_t k = 0; k < o.n; k++) {
        double f[S], t = to[o.r[k].edit];
        activations(f, e, o.w->after + o.r[k].pos * PLAIN_D);
        bool is_there = t == 0 ? f[features[o.r[k].edit]] == 0 : fabs(f[features[o.r[k].edit]] - t) <= 1e-4 * t;
        if (o.r[k].status == LP_STEER_REACHED) CHECK(is_there);
        if (o.r[k].status == LP_STEER_MISSED) CHECK(!is_there);
        reached += o.r[k].status == LP_STEER_REACHED;
    }
    CHECK(reached * 10 > (int)o.n * 9);
    if (reached * 10 <= (int)o.n * 9) fprintf(stderr, "%d of %zu reached\n", reached, o.n);
    lp_encoder_free(e);
    done(&o);
}

/* The solver by itself: targets hold in double, silent features stay silent, and none is moved without need. */
static void solver(void)
{
    const lp_sae *who[6];
    int features[] = {1, 4, 9, 16, 25, 36};
    double y[PLAIN_D], c[6], target[] = {3, 0, 0, 7, 0, 1};
    bool is_on[] = {true, true, true, true, true, false};
    lp_steer_status status[6];
    lp_joint *j = NULL;
    for (int i = 0; i < 6; i++) who[i] = saes[RES1];
    for (int i = 0; i < PLAIN_D; i++) y[i] = (double)noise() * 3;
    CHECK(lp_joint_new(&j, who, features, 6, NULL) == LP_OK);
    lp_joint_solve(c, status, j, y, target, is_on);
    int silent = 0;
    for (int i = 0; i < 5; i++) {
        float w[PLAIN_D], d[PLAIN_D];
        double pre = (double)saes[RES1]->b_enc[features[i]];
        lp_sae_encoder_row(saes[RES1], features[i], w);
        for (int k = 0; k < PLAIN_D; k++) pre += (double)w[k] * y[k];
        for (int m = 0; m < 6; m++) {
            lp_sae_decoder_row(saes[RES1], features[m], d);
            for (int k = 0; k < PLAIN_D; k++) pre += (double)w[k] * c[m] * (double)d[k];
        }
        CHECK(status[i] == LP_STEER_REACHED);
        if (target[i] > 0) CHECK_NEAR(pre, target[i], 1e-9);
        if (target[i] == 0) CHECK(pre <= (double)saes[RES1]->threshold[features[i]]);
        silent += target[i] == 0 && c[i] == 0;
    }
    CHECK(c[5] == 0 && silent > 0);
    lp_joint_free(j);
    const lp_sae *crowd[LP_JOINT_FEATURES + 1];
    int same[LP_JOINT_FEATURES + 1] = {0};
    lp_error err = {0};
    for (int i = 0; i <= LP_JOINT_FEATURES; i++) crowd[i] = saes[RES1];
    CHECK(lp_joint_new(&j, crowd, same, LP_JOINT_FEATURES + 1, &err) == LP_E_RANGE && strstr(err.text, "257"));
}

/* The same bits however cut. */
static void cut(void)
{
    static const int features[] = {3, 8, 11, 20};
    static const double to[] = {6, 2.5, 0, 0.2};
    float logits[2][V];
    lp_recipe r = recipe(clamps(RES1, features, to, 4), "\"joint\": true");
    for (int way = 0; way < 2; way++) {
        lp_session *s = new_session(model, &(lp_session_options){.wave = way ? 2 : 0}, NULL);
        lp_steer *st = steer(s, &r, 4, way);
        for (int at = 0; at < N; at += way ? 3 : N) eval(s, st, ids + at, way && N - at > 3 ? 3 : N - at);
        memcpy(logits[way], lp_session_logits(s), sizeof logits[way]);
        lp_steer_free(st);
        lp_session_free(s);
    }
    CHECK_SAME(logits[0], logits[1], V);
    lp_recipe_clear(&r);
}

int main(void)
{
    if (!open_all()) return 1;
    reaching(RES1);
    reaching(STANDARD);
    with_others();
    unreachable();
    many();
    solver();
    cut();
    close_all();
    return check_done();
}
