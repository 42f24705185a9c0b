/* scope_table.h - what Gemma Scope holds (scope_table.c), and how a folder laid out like it is read (scope_folder.c);
 * private to
 * names.c and names_lens.c.
 *
 * A shelf is one layer and width of one site: the folder layer_20/width_16k, in which average_l0_N/params.npz stand
 * side by side, one for each sparsity N.
 */
#ifndef LP_SAE_SCOPE_TABLE_H
#define LP_SAE_SCOPE_TABLE_H

#include "sae/names.h"

enum { LP_SCOPE_REPOS = 9, LP_SCOPE_SITES = 4, LP_SCOPE_MODELS = 5, LP_SHELF_TEXT = 48, LP_CANONICAL = -1 };

typedef struct lp_scope_repo {
    const char *name;  /* below google/ on the Hub; SAELens' name of the release */
    const char *model; /* Neuronpedia's                                          */
    const char *site;  /* one of lp_scope_sites                                  */
    bool is_partial;   /* more files exist than are listed                       */
    const char *files; /* "4k emb:6,21 16k 0:13,25 1:10,20": every N of every layer of every width */
} lp_scope_repo;

extern const lp_scope_repo lp_scope_repos[LP_SCOPE_REPOS];
extern const char *const lp_scope_sites[LP_SCOPE_SITES]; /* "res", "mlp", "att", "transcoder" */
/* Neuronpedia's models, and whose SAEs each is shown with: those of 2b-pt serve 2b-it too. */
extern const char *const lp_scope_models[LP_SCOPE_MODELS][2];

typedef struct lp_shelf {
    const lp_scope_repo *repo; /* NULL: none of Gemma Scope's                           */
    const char *site;          /* one of lp_scope_sites; NULL: not known                */
    int layer;                 /* LP_WHOLE_MODEL: the embedding's, "embedding/width_4k" */
    char width[12];            /* the word                                              */
} lp_shelf;

/* ---- reading a name from left to right: each moves *s behind what it took, or returns false and leaves it -------- */

bool lp_scope_take(const char **s, const char *word);
bool lp_scope_take_number(const char **s, int *out);        /* spelled as we would: no sign, no 0 in front */
bool lp_scope_take_width(const char **s, lp_shelf *shelf);  /* "16k", "1m", "2000"                         */
bool lp_scope_take_site(const char **s, const char **site); /* "transcoders" is taken too                  */
bool lp_scope_take_shelf(const char **s, lp_shelf *shelf);  /* "layer_20/width_16k", "embedding/width_4k"  */
/* "layer_20/width_16k/canonical" or ".../average_l0_71"; *l0 is LP_CANONICAL for the first. */
bool lp_scope_take_layout(const char **s, lp_shelf *shelf, int *l0);
/* "20-gemmascope-res-16k" or "20-gemmascope-res-16k__l0-22"; !*is_scope: the set is called lapidary. */
bool lp_scope_take_id(const char **s, lp_shelf *shelf, int *l0, bool *is_scope);

void lp_scope_shelf_text(char out[LP_SHELF_TEXT], const lp_shelf *shelf); /* "layer_20/width_16k" */
int lp_scope_width_value(const char *word);                               /* 0: more than an int holds */

/* By the first n characters of a name, "-canonical" behind it or not.  NULL: no such release. */
const lp_scope_repo *lp_scope_find_repo(const char *name, size_t n);

/* ---- the sparsities of a shelf ----------------------------------------------------------------------------------- */

/* Ascending, each once.  All zero is an empty one; free n. */
typedef struct lp_sparsities {
    int *n;
    size_t count, room;
    int starred; /* the canonical one where the rule does not give it; 0: the rule does */
} lp_sparsities;

/* False: out of memory.  _listed: what the table has of shelf->repo; _stored: whose params.npz is below `folder`. */
bool lp_scope_add(lp_sparsities *l, int n);
bool lp_scope_add_listed(lp_sparsities *out, const lp_shelf *shelf);
bool lp_scope_add_stored(lp_sparsities *out, const char *folder);
bool lp_scope_has(const lp_sparsities *l, int n);
int lp_scope_canonical(const lp_sparsities *l); /* -1: it is empty */

/* What lp_sae_open takes of `path`, which need not exist.  Where that is no SAE, *out stays NULL and *lacks says what
 * it would need. */
lp_status lp_scope_look_in(char **out, const char **lacks, const char *path, lp_error *err);

/* lp_sae_place_from_path; `family`: the first word of the set of a path that is none of Gemma Scope's. */
lp_status lp_scope_place(lp_sae_place *out, const char *path, const char *family, lp_error *err);

/* ---- messages ---------------------------------------------------------------------------------------------------- */

/* Lists such as "16k, 65k"; the last is "..." where there was no room. */
void lp_scope_add_text(char *out, size_t room, const char *item);
void lp_scope_sparsities_text(char *out, size_t room, const lp_sparsities *l);
void lp_scope_layers_text(char *out, size_t room, const lp_scope_repo *r);

/* LP_E_NOT_FOUND: the repository has no such layer, or not this width of it, or (`known` is not empty) not this l0;
 * with those that it has. */
lp_status lp_scope_not_listed(const char *typed, const lp_shelf *shelf, int l0, const lp_sparsities *known,
                              lp_error *err);

#endif
