/* annotations.h - what people type about features: labels, notes, lists.  It cannot be computed again, so it has a file of
 * its own, annotations.sqlite, which no rebuilding of anything else touches.
 *
 * A feature is named by its SAE's hash (lp_sae.hash) and its index, so the file travels alone and fits wherever the same
 * weights lie.  A feature may have several labels; each has an author, a method ("person", or the program that made it: what
 * Neuronpedia calls typeName) and perhaps a score.  The one shown is a person's before a program's, then the newest.  A
 * note is a label of the method "note": found by search, never shown as a name.  A list is an ordered set of features,
 * each with a remark; a list comes to be with its first feature and goes with its last.
 *
 * Every change belongs to an edit, an edit is one transaction, and what it changed is kept in the table `edit` as a
 * changeset [1], which undo applies backwards.  Undo is an edit too, so nothing is ever lost; what was undone once is not
 * undone again.
 *
 * One file and not three: the rollback journal with synchronous=EXTRA [2], so that a copy made at rest is whole and a
 * commit survives a power cut.  Writers wait for each other up to ten seconds.  Before a new version of the schema is put in,
 * the file is copied to annotations.sqlite.v1 (the old version's number).
 *
 * [1] sqlite.org/sessionintro.html   [2] sqlite.org/pragma.html#pragma_synchronous
 */
#ifndef LP_STORE_ANNOTATIONS_H
#define LP_STORE_ANNOTATIONS_H

#include "sae/labels.h"
#include "sae/sae.h"

enum { LP_LABEL_BYTES = 1 << 16 }; /* the longest text */

#define LP_METHOD_PERSON "person"
#define LP_METHOD_NOTE   "note"

typedef struct lp_annotations lp_annotations;

/* Where it is: `store`/annotations.sqlite, or without a store $XDG_DATA_HOME/lapidary/annotations.sqlite, that being
 * ~/.local/share where it is not set.  Free *out.  LP_E_NOT_FOUND: no home either. */
lp_status lp_annotations_path(char **out, const char *store, lp_error *err);

typedef enum lp_annotations_mode {
    LP_ANNOTATIONS_READ, /* LP_E_NOT_FOUND when there is no such file */
    LP_ANNOTATIONS_EDIT  /* made, with the folders above, where it is not */
} lp_annotations_mode;

/* LP_E_FORMAT: another program's file, or one that was tampered with; LP_E_UNSUPPORTED: of a later version. */
lp_status lp_annotations_open(lp_annotations **out, const char *path, lp_annotations_mode mode, lp_error *err);
void lp_annotations_close(lp_annotations *a); /* gives up an open edit; NULL is fine */

/* A whole copy under another name, which must be free; made beside it and renamed. */
lp_status lp_annotations_backup(lp_annotations *a, const char *path, lp_error *err);

/* ---- reading ------------------------------------------------------------------------------------------------------ */

typedef struct lp_annotation {
    int64_t id;
    char *sae;      /* lp_sae.hash                                   */
    char *sae_name; /* what it was called when somebody last wrote of it */
    int feature;
    char *text;            /* of a list: the remark; may be ""     */
    char *author, *method; /* of a list: NULL                     */
    double score;          /* NaN: none                           */
    int64_t created;       /* microseconds since 1970             */
} lp_annotation;

typedef struct lp_annotation_rows { /* all zero is an empty one */
    lp_annotation *items;
    size_t n, capacity;
} lp_annotation_rows;
void lp_annotation_rows_free(lp_annotation_rows *r); /* its contents; NULL is fine */

/* All that is said, by SAE and feature and in the order of showing.  sae NULL: of all; feature -1: of all. */
lp_status lp_annotations_read(lp_annotation_rows *out, lp_annotations *a, const char *sae, int feature, lp_error *err);
/* Labels and notes with all of the words, in any form English gives them, best first; no word is an operator. */
lp_status lp_annotations_search(lp_annotation_rows *out, lp_annotations *a, const char *words, int most, lp_error *err);
/* A list in its order; LP_E_NOT_FOUND. */
lp_status lp_annotations_read_list(lp_annotation_rows *out, lp_annotations *a, const char *list, lp_error *err);
/* The lists by name: text is the name, feature how many features it has. */
lp_status lp_annotations_read_lists(lp_annotation_rows *out, lp_annotations *a, lp_error *err);

/* Own labels in front of those already in *l, whatever made these. */
lp_status lp_annotations_overlay(lp_labels *l, lp_annotations *a, const lp_sae *s, lp_error *err);

/* ---- editing ------------------------------------------------------------------------------------------------------ */

/* Opens an edit; what follows is seen by others, and kept, only when it ends.  `what`: how undo will call it. */
lp_status lp_annotations_begin(lp_annotations *a, const char *what, lp_error *err);
/* *changes (may be NULL): rows that are other than before; an edit that changed nothing is not kept. */
lp_status lp_annotations_end(lp_annotations *a, int *changes, lp_error *err);
void lp_annotations_give_up(lp_annotations *a); /* fine without an edit */

/* Remembers what an SAE is called.  No edit of it is kept. */
lp_status lp_annotations_name_sae(lp_annotations *a, const char *sae, const char *name, lp_error *err);

typedef struct lp_new_label {
    const char *sae; /* lp_sae.hash */
    int feature;
    const char *text;            /* UTF-8, 1 to LP_LABEL_BYTES, no control characters but tab and newline */
    const char *author, *method; /* the same; method NULL: LP_METHOD_PERSON                               */
    double score;                /* NaN: none                                                            */
    int64_t created;             /* 0: now                                                               */
} lp_new_label;

/* Replaces what the same author said by the same method.  LP_E_RANGE: a bad text, hash or index. */
lp_status lp_annotations_set(lp_annotations *a, const lp_new_label *l, lp_error *err);
/* Beside what is there, unless the very same is. */
lp_status lp_annotations_add(lp_annotations *a, const lp_new_label *l, lp_error *err);
/* The labels of a feature by an author (NULL: anyone) and a method (NULL: any). */
lp_status lp_annotations_remove(lp_annotations *a, const char *sae, int feature, const char *author, const char *method,
                                lp_error *err);

/* At place 1 .., or 0: at the end; one that is there moves. */
lp_status lp_annotations_list_put(lp_annotations *a, const char *list, const char *sae, int feature, int place,
                                  const char *remark, lp_error *err);
/* feature -1 with sae NULL: the whole list. */
lp_status lp_annotations_list_remove(lp_annotations *a, const char *list, const char *sae, int feature, lp_error *err);

/* Takes back the last edit that stands; *what (free it): its name.  LP_E_NOT_FOUND: there is none. */
lp_status lp_annotations_undo(lp_annotations *a, char **what, lp_error *err);

/* ---- exchange ----------------------------------------------------------------------------------------------------- */

/* CSV with a header line (RFC 4180): feature and text; and where they are there sae_hash, author, method, score, created
 * (microseconds); others are passed over.  Rows without a sae_hash are of `s`, those of it must be features it has.
 * s NULL: all rows must have one.  Within an edit; *n: rows read.  LP_E_FORMAT says the line. */
lp_status lp_annotations_read_csv(lp_annotations *a, const char *path, const lp_sae *s, const char *author, int *n,
                                  lp_error *err);
/* Every description in Neuronpedia's export (labels.h), a file of them or the source's folder. */
lp_status lp_annotations_read_neuronpedia(lp_annotations *a, const char *path, const lp_sae *s, int *n, lp_error *err);

/* Atomically: the columns sae_hash, sae, feature, text, author, method, score, created; or with is_jsonl Neuronpedia's rows
 * (index, description, typeName), which labels.h reads, and the rest beside them. */
lp_status lp_annotations_write(const lp_annotation_rows *rows, const char *path, bool is_jsonl, lp_error *err);

#endif
