/* query_where.h - a condition (query.h) as a tree: what the parser makes and the evaluation walks; private to the two. */
#ifndef LP_STORE_QUERY_WHERE_H
#define LP_STORE_QUERY_WHERE_H

#include "store/query_parts.h"

enum {
    LP_WHERE_TEXT = 1 << 16, /* bytes of an expression  */
    LP_WHERE_NODES = 512,
    LP_WHERE_DEPTH = 64,
    LP_WHERE_REACH = 1 << 16, /* tokens, of nested ones together */
    LP_WHERE_LABELS = 64,
    LP_WHERE_SLOTS = 4
};

typedef enum lp_where_kind {
    LP_WHERE_OR,
    LP_WHERE_AND,
    LP_WHERE_NOT,
    LP_WHERE_NEAR,
    LP_WHERE_FEATURES,
    LP_WHERE_TOKEN
} lp_where_kind;

typedef enum lp_where_than {
    LP_WHERE_FIRES,
    LP_WHERE_ABOVE,
    LP_WHERE_FROM,
    LP_WHERE_BELOW,
    LP_WHERE_UPTO
} lp_where_than;

typedef struct lp_where_node {
    lp_where_kind kind;
    int a, b;     /* what it is made of; b only for OR and AND */
    int from, to; /* NEAR: holds where a does at an offset of from .. to */
    lp_where_than than;
    double value;
    int n, sae[LP_WHERE_LABELS], feature[LP_WHERE_LABELS]; /* FEATURES: any of them */
    int id;                                                /* TOKEN */
    /* Where a leaf holds in the parts it was last asked for: part i is in slot i % LP_WHERE_SLOTS. */
    uint8_t *slot[LP_WHERE_SLOTS];
    size_t room[LP_WHERE_SLOTS];
    int part[LP_WHERE_SLOTS]; /* 1 + which; 0: none */
} lp_where_node;

typedef struct lp_where {
    lp_where_node *nodes;
    size_t capacity;
    int n, root;
} lp_where;

lp_status lp_where_parse(lp_where *out, lp_query *q, const char *text, const lp_where_options *o, lp_error *err);
void lp_where_free(lp_where *w);

#endif
