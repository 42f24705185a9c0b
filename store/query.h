/* query.h - questions to the activations of one run of a store: where does it fire, with what, how strongly.
 *
 * Tokens are counted over the run (a shard's token_base and the row in it).  Rows that do not count - <bos>, templates - are
 * stored, but in no answer unless `all` asks for them, and never in statistics.
 *
 * The catalogue says which shards there are; each is opened when it is first needed, without reading it through as long as
 * size and time are those of the file that was hashed when it was taken in.  A query belongs to one thread at a time.
 */
#ifndef LP_STORE_QUERY_H
#define LP_STORE_QUERY_H

#include "core/tokenizer.h"
#include "sae/encode.h"
#include "store/tally.h"

typedef struct lp_query lp_query;

typedef struct lp_query_sae {
    char *name, *hash, *site;
    int layer, d_sae;
    int64_t id, n_values; /* in the catalogue; stored activations */
} lp_query_sae;

typedef struct lp_query_run {
    char hash[33], model[33], tokenizer[33];
    int vocab, n_shards, n_saes;
    int64_t n_tokens, n_counted, n_documents; /* of the shards taken in so far; parts of documents count */
    const lp_query_sae *saes;                 /* [n_saes] */
} lp_query_run;

/* `run`: how its hash begins; NULL: the only one.  LP_E_NOT_FOUND lists those there are. */
lp_status lp_query_open(lp_query **out, const char *store, const char *run, const lp_env *env, lp_error *err);
void lp_query_close(lp_query *q); /* NULL is fine */
const lp_query_run *lp_query_get_run(const lp_query *q);

/* By name or hash.  LP_E_NOT_FOUND says which there are. */
lp_status lp_query_find_sae(int *out, const lp_query *q, const char *name, lp_error *err);

/* ---- one feature -------------------------------------------------------------------------------------------------- */

/* All zero where it never fires.  LP_E_RANGE: the SAE has no such feature. */
lp_status lp_query_feature(lp_tally *out, lp_query *q, int sae, int feature, lp_error *err);

typedef struct lp_hits { /* all zero is an empty one */
    size_t n;
    int64_t *token; /* [n] ascending */
    float *value;   /* [n]           */
    size_t capacity_token, capacity_value;
} lp_hits;
void lp_hits_free(lp_hits *h); /* its contents; NULL is fine */

/* Everywhere it fires with more than `above`. */
lp_status lp_query_positions(lp_hits *out, lp_query *q, int sae, int feature, float above, bool all, lp_error *err);

/* The range from the smallest to the largest value of `from`, in `n` equal parts: up to `each` places of every part, those
 * nearest to its middle (by token where equal), part by part from the weakest.  part[i] says which one out's place i is
 * of; room for n * each. */
lp_status lp_query_quantiles(lp_hits *out, int *part, const lp_hits *from, int n, int each, lp_error *err);

/* The tokens around one, of the same document, as far as they are in the same shard. */
typedef struct lp_context {
    int64_t first; /* token of id[0] */
    int n, at;     /* id[at] is the one asked for */
    int pos;       /* of the one asked for, in the model's context */
    int excluded;  /* LP_ROW_* of it */
    int64_t document;
    int id[512];
} lp_context;
enum { LP_CONTEXT_MOST = 255 }; /* before, and after */
lp_status lp_query_context(lp_context *out, lp_query *q, int64_t token, int before, int after, lp_error *err);

/* ---- rows --------------------------------------------------------------------------------------------------------- */

/* The features of one token in an SAE, by index; *out keeps its memory. */
lp_status lp_query_row(lp_features *out, lp_query *q, int sae, int64_t token, lp_error *err);

typedef struct lp_partner {
    int sae, feature;
    int64_t together; /* of the rows looked at, those it fires on          */
    double sum;       /* of its values on them                             */
    float max;
    int64_t n_active;    /* in the whole run                                  */
    double pmi, jaccard; /* against the whole run, see below                  */
} lp_partner;

typedef struct lp_partners {
    lp_partner *items; /* by pmi weighted with their share of the rows, strongest first */
    size_t n;
    int64_t rows, looked_at; /* rows there are; those looked at, evenly spaced */
} lp_partners;
void lp_partners_free(lp_partners *p); /* its contents; NULL is fine */

enum { LP_PARTNER_ROWS = 2000 };
/* What fires on the given rows.  With N rows that count, r of them given, l looked at, t of those with the feature, a rows
 * with it in the run:
 *     pmi     = log2(t / l * N / a)
 *     jaccard = T / (r + a - T),  T = t * r / l
 * saes [n_saes of the run]: which are looked at; NULL: all.  sample: how many rows at most, 0: LP_PARTNER_ROWS. */
lp_status lp_query_partners(lp_partners *out, lp_query *q, const lp_hits *rows, const bool *saes, int sample,
                            lp_error *err);

/* The rows of a token of the vocabulary, values 1. */
lp_status lp_query_token(lp_hits *out, lp_query *q, int id, bool all, lp_error *err);

/* ---- conditions --------------------------------------------------------------------------------------------------- */

/* Rows for which an expression holds:
 *
 *     either    both  { "or" both }
 *     both      part  { ("and" | ",") part }
 *     part      "not" part | thing { ("within" | "before" | "after") N }
 *     thing     "(" either ")"
 *               SAE:FEATURE [ (">" | ">=" | "<" | "<=") VALUE ]     it fires there, with such a value
 *               label "WORDS"       any of the features that are called so, 64 at most
 *               token ID | token "TEXT"
 *
 * SAE is a name or hash; one with other characters than letters, digits and _ . - / in it goes in quotes, "name":17.
 * `X within N`: X holds at most N tokens away, itself included, in the same document; `before`, `after`: at most N
 * tokens before here, or after, here not included.  So "A > 5 and B within 10, not C" is the rows where A is above 5, with B
 * near, but not C.  Words of the language are not case-sensitive.  Rows that do not count fulfil nothing, not even "not",
 * unless `all`.
 *
 * LP_E_RANGE: "column 7: ..." says what is wrong; the expression has bounds in length, nesting and reach. */
typedef struct lp_where_options {
    const lp_tokenizer *tokenizer; /* for token "TEXT"; NULL: ids only */
    bool all;
    size_t limit; /* rows kept; 0: all */
} lp_where_options;
/* out: values 0; *total (may be NULL): how many there are beyond the limit too. */
lp_status lp_query_where(lp_hits *out, int64_t *total, lp_query *q, const char *text, const lp_where_options *o,
                         lp_error *err);

/* ---- words -------------------------------------------------------------------------------------------------------- */

typedef struct lp_passage {
    int64_t document, token, first_token; /* token: its first one in the run */
    int n_tokens;
    char *key, *snippet; /* snippet: where the words are, in [ ] */
} lp_passage;
typedef struct lp_passages {
    lp_passage *items;
    size_t n, capacity;
} lp_passages;
void lp_passages_free(lp_passages *p);

/* Documents with all the words, in the order of the corpus; "two words" in quotes is a phrase, wha* a beginning. */
lp_status lp_query_text(lp_passages *out, lp_query *q, const char *words, int limit, lp_error *err);
/* The parts of one document: by its key, or its number in the corpus. */
lp_status lp_query_document(lp_passages *out, lp_query *q, const char *key, lp_error *err);
/* The part a token is in. */
lp_status lp_query_passage(lp_passages *out, lp_query *q, int64_t token, lp_error *err);

typedef struct lp_found_label {
    int sae, feature;
    char *text, *kind; /* kind may be NULL */
    int64_t n_active;
    float max;
} lp_found_label;
typedef struct lp_found_labels {
    lp_found_label *items;
    size_t n, capacity;
} lp_found_labels;
void lp_found_labels_free(lp_found_labels *l);
/* Labels with all the words, best first. */
lp_status lp_query_labels(lp_found_labels *out, lp_query *q, const char *words, int limit, lp_error *err);
/* What a feature is called; NULL: nothing.  Yours to free. */
lp_status lp_query_label(char **out, lp_query *q, int sae, int feature, lp_error *err);

#endif
