/* steer_parts.h - inside of steer.h: what steer.c sets up, steer_row.c works on, steer_joint.c solves. */
#ifndef LP_SAE_STEER_PARTS_H
#define LP_SAE_STEER_PARTS_H

#include "sae/steer.h"

/* ---- features that reach their values together (steer_joint.c) --------------------------------------------------- */

enum { LP_JOINT_FEATURES = 256 };

typedef struct lp_joint lp_joint;
/* For n features (of SAEs that read and write one place).  LP_E_RANGE: more than LP_JOINT_FEATURES. */
lp_status lp_joint_new(lp_joint **out, const lp_sae *const *saes, const int *features, int n, lp_error *err);
void lp_joint_free(lp_joint *j);          /* NULL is fine */
bool lp_joint_is_linear(const lp_sae *s); /* can its features be solved for? */
/* Amounts c [n] such that y + sum c[i] d[i], encoded, gives each feature with is_on its target (0: does not fire).
 * status[i]: REACHED (by this arithmetic), BELOW_THRESHOLD or DEPENDENT; c is 0 for these and for what is not on. */
void lp_joint_solve(double *c, lp_steer_status *status, lp_joint *j, const double *y, const double *target,
                    const bool *is_on);

/* ---- a recipe set up (steer.c) ----------------------------------------------------------------------------------- */

/* An SAE at work. */
typedef struct lp_steer_source {
    const lp_sae *sae;
    lp_encoder *encoder; /* NULL: nobody wants its features */
    lp_features f, after;
    int first, n; /* the rows shown last */
    int *row;     /* [n] where a row is in f; -1: not encoded */
    float *x;     /* [f.n_rows][d_in] what was encoded        */
    size_t row_capacity, x_capacity;
} lp_steer_source;

typedef struct lp_steer_edit {
    const lp_recipe_edit *r;
    int source, when; /* sources; when -1: no condition */
    int joint;        /* its number in the place's joint; -1: not in it, -2: cannot be solved for */
    double amount;    /* strength times unit */
    float *d;         /* [d_out] */
    double length;    /* |d| */
} lp_steer_edit;

typedef struct lp_steer_place {
    lp_steer *st;
    lp_site site;
    int layer, handle, width;
    int *edits; /* [n_edits] that write here, in the recipe's order */
    int n_edits;
    size_t edits_capacity;
    int base; /* the source whose reconstruction replaces rows; -1: none */
    lp_joint *joint;
    lp_steer_reading *readings;
    lp_steer_move *moves;
    size_t n_readings, n_moves, readings_capacity, moves_capacity;
} lp_steer_place;

/* An edit at work on the row at hand. */
typedef struct lp_steer_work {
    int edit;
    double r, f, c; /* the schedule's factor, the feature as encoded (0: not wanted), the amount of d */
    double asked;
    lp_steer_status status;
} lp_steer_work;

struct lp_steer {
    lp_session *session;
    const lp_recipe *recipe;
    lp_scopes *scopes;
    lp_steer_source *sources; /* [n_sources] */
    lp_steer_edit *edits;     /* [recipe->n_edits] */
    lp_steer_place *places;   /* [n_places] */
    int n_sources, n_places;
    bool reads_back;
    lp_steer_work *work; /* [n_edits] */
    double *delta, *sum; /* [widest] what is added to a row; the row with it */
    float *base;         /* [widest] the reconstruction */
    lp_features one;     /* the row at hand, as it is decoded */
    lp_error err;
};

/* Does the edit need its feature encoded? */
bool lp_steer_wants_feature(const lp_steer *st, const lp_steer_edit *e);
/* Does the SAE read at this place? */
bool lp_steer_reads_at(const lp_sae *s, const lp_steer_place *p);
/* The hook of a place, its user. */
int lp_steer_pass(lp_act *act, void *place);

#endif
