/* Queries against a plain scan of the rows a store was made of: places, conditions, partners, contexts, words; expressions
 * that are wrong or hostile.
 */
#include "tests/store_filled.h"

#include "store/query.h"

static filled f;
static lp_query *q;

/* ---- the rows of the store, one after the other --------------------------------------------------------------------- */

static int shard_of(int64_t token)
{
    int s = 0;
    while (f.base[s + 1] <= token) s++;
    return s;
}

static int64_t n_rows(void)
{
    return f.base[f.n];
}

static float value_at(int64_t t, int sae, int feature)
{
    int s = shard_of(t);
    return filled_value(&f, s, sae, (int)(t - f.base[s]), feature);
}

static bool counts(int64_t t)
{
    int s = shard_of(t);
    return !f.m[s]->excluded[t - f.base[s]];
}

static int64_t document_at(int64_t t)
{
    int s = shard_of(t);
    return f.m[s]->documents[f.m[s]->doc[t - f.base[s]]].id;
}

static int id_at(int64_t t)
{
    int s = shard_of(t);
    return f.m[s]->id[t - f.base[s]];
}

/* ---- places --------------------------------------------------------------------------------------------------------- */

static void test_positions(void)
{
    lp_hits h = {0};
    size_t most = 0;
    for (int sae = 0; sae < 2; sae++)
        for (int feature = 0; feature < f.m[0]->spec.d_sae[sae]; feature += 3)
            for (int all = 0; all < 2; all++) {
                size_t n = 0;
                float above = feature % 2 ? 0.9f : 0;
                CHECK(lp_query_positions(&h, q, sae, feature, above, all, NULL) == LP_OK);
                for (int64_t t = 0; t < n_rows(); t++) {
                    float v = value_at(t, sae, feature);
                    if (!(v > above) || !(all || counts(t))) continue;
                    CHECK(n < h.n && h.token[n] == t && h.value[n] == v);
                    n++;
                }
                CHECK(n == h.n);
                if (n > most) most = n;
            }
    CHECK(most > 200);
    CHECK(lp_query_positions(&h, q, 0, 64, 0, false, NULL) == LP_E_RANGE);
    CHECK(lp_query_positions(&h, q, 2, 0, 0, false, NULL) == LP_E_RANGE);
    lp_hits_free(&h);
}

static void test_tokens(void)
{
    lp_hits h = {0};
    for (int id = 0; id < 50; id++) {
        size_t n = 0;
        CHECK(lp_query_token(&h, q, id, false, NULL) == LP_OK);
        for (int64_t t = 0; t < n_rows(); t++)
            if (id_at(t) == id && counts(t)) {
                CHECK(n < h.n && h.token[n] == t);
                n++;
            }
        CHECK(n == h.n);
    }
    CHECK(lp_query_token(&h, q, 50, false, NULL) == LP_E_RANGE && lp_query_token(&h, q, -1, false, NULL) == LP_E_RANGE);
    lp_hits_free(&h);
}

static void test_contexts(void)
{
    lp_context x;
    for (int64_t t = 0; t < n_rows(); t++) {
        int s = shard_of(t);
        CHECK(lp_query_context(&x, q, t, 5, 3, NULL) == LP_OK);
        int64_t first = t, end = t + 1;
        while (first > f.base[s] && t - first < 5 && f.m[s]->doc[first - 1 - f.base[s]] == f.m[s]->doc[t - f.base[s]])
            first--;
        while (end < f.base[s + 1] && end - t <= 3 && f.m[s]->doc[end - f.base[s]] == f.m[s]->doc[t - f.base[s]]) end++;
        CHECK(x.first == first && x.n == end - first && x.at == t - first && x.document == document_at(t));
        for (int i = 0; i < x.n; i++) CHECK(x.id[i] == id_at(first + i));
        CHECK(x.pos == f.m[s]->pos[t - f.base[s]] && (x.excluded == 0) == counts(t));
    }
    CHECK(lp_query_context(&x, q, n_rows(), 1, 1, NULL) == LP_E_RANGE &&
          lp_query_context(&x, q, -1, 1, 1, NULL) == LP_E_RANGE);
    CHECK(lp_query_context(&x, q, 0, 256, 0, NULL) == LP_E_RANGE);
}

static void test_quantiles(void)
{
    lp_hits h = {0}, few = {0};
    int part[25];
    CHECK(lp_query_positions(&h, q, 0, 1, 0, false, NULL) == LP_OK && h.n > 50);
    float low = h.value[0], high = low;
    for (size_t i = 0; i < h.n; i++) low = fminf(low, h.value[i]), high = fmaxf(high, h.value[i]);
    CHECK(lp_query_quantiles(&few, part, &h, 5, 5, NULL) == LP_OK && few.n >= 10 && few.n <= 25);
    for (size_t i = 0; i < few.n; i++) {
        double width = ((double)high - (double)low) / 5, at = ((double)few.value[i] - (double)low) / width;
        CHECK(value_at(few.token[i], 0, 1) == few.value[i] && (i == 0 || part[i] >= part[i - 1]));
        CHECK(at >= part[i] - 1e-9 && at <= part[i] + 1 + 1e-9);
        /* Nobody who was left out is nearer to the middle. */
        for (size_t k = 0; k < h.n; k++) {
            double other = ((double)h.value[k] - (double)low) / width;
            bool is_in = false;
            for (size_t m = 0; m < few.n; m++) is_in |= few.token[m] == h.token[k];
            if (!is_in && (int)other == part[i]) CHECK(fabs(other - part[i] - 0.5) >= fabs(at - part[i] - 0.5) - 1e-9);
        }
    }
    lp_hits_free(&h), lp_hits_free(&few);
}

/* ---- conditions ----------------------------------------------------------------------------------------------------- */

/* A random condition as text, and as a tree to go through row by row. */
typedef struct tree {
    int kind; /* 0 feature, 1 token, 2 not, 3 and, 4 or, 5 near */
    int sae, feature, than, id, from, to;
    double value;
    struct tree *a, *b;
} tree;

static uint64_t seed = 31;

static int roll(int n)
{
    return (int)(made_random(&seed) * n);
}

static void grow(tree *t, char *text, size_t room, int depth)
{
    static const char *const thans[] = {"", " > ", ">=", "<", " <= "}, *const words[] = {"within", "BEFORE", "after"};
    char a[4000], b[4000];
    *t = (tree){.kind = depth ? roll(7) % 6 : roll(8) == 0};
    if (t->kind >= 2) t->a = made_array(1, sizeof *t->a), grow(t->a, a, sizeof a, depth - 1);
    if (t->kind == 3 || t->kind == 4) t->b = made_array(1, sizeof *t->b), grow(t->b, b, sizeof b, depth - 1);
    int n = roll(30), way = roll(3);
    switch (t->kind) {
    case 0:
        t->sae = roll(2), t->feature = roll(roll(3) ? 12 : 64), t->than = roll(5), t->value = roll(300) / 100.0;
        snprintf(b, sizeof b, "%s%.2f", thans[t->than], t->value);
        snprintf(text, room, roll(2) ? "%s:%d%s" : "\"%s\":%d%s", f.m[0]->saes[t->sae].name, t->feature,
                 t->than ? b : "");
        break;
    case 1:
        t->id = roll(50);
        snprintf(text, room, "token %d", t->id);
        break;
    case 2:
        snprintf(text, room, "not (%s)", a);
        break;
    case 3:
        snprintf(text, room, roll(2) ? "(%s) , (%s)" : "((%s) and (%s))", a, b);
        break;
    case 4:
        snprintf(text, room, "((%s) or (%s))", a, b);
        break;
    default:
        t->from = way == 2 ? 1 : -n, t->to = way == 1 ? -1 : n;
        snprintf(text, room, "(%s) %s %d", a, words[way], n);
    }
}

static void fell(tree *t)
{
    if (!t) return;
    fell(t->a), fell(t->b);
    free(t->a), free(t->b);
}

static bool holds(const tree *t, int64_t row, bool all)
{
    if (!all && !counts(row)) return false;
    switch (t->kind) {
    case 0: {
        double v = (double)value_at(row, t->sae, t->feature);
        if (v == 0) return false;
        return t->than == 0 || (t->than == 1 && v > t->value) || (t->than == 2 && v >= t->value) ||
               (t->than == 3 && v < t->value) || (t->than == 4 && v <= t->value);
    }
    case 1:
        return id_at(row) == t->id;
    case 2:
        return !holds(t->a, row, all);
    case 3:
        return holds(t->a, row, all) && holds(t->b, row, all);
    case 4:
        return holds(t->a, row, all) || holds(t->b, row, all);
    default:
        for (int64_t r = row + t->from; r <= row + t->to; r++)
            if (r >= 0 && r < n_rows() && document_at(r) == document_at(row) && holds(t->a, r, all)) return true;
        return false;
    }
}

static void test_where(void)
{
    lp_hits h = {0};
    int some = 0, near = 0;
    for (int round = 0; round < 400; round++) {
        tree t;
        char text[16000];
        grow(&t, text, sizeof text, round % 4);
        lp_where_options o = {.all = round % 3 == 0};
        int64_t total = -1;
        lp_error err = {0};
        lp_status st = lp_query_where(&h, &total, q, text, &o, &err);
        if (st != LP_OK) fprintf(stderr, "%s\n%s\n", text, err.text);
        CHECK(st == LP_OK);
        size_t n = 0, wrong = 0;
        for (int64_t r = 0; r < n_rows(); r++) {
            if (!holds(&t, r, o.all)) continue;
            wrong += n >= h.n || h.token[n] != r;
            n++;
        }
        if (wrong || n != h.n) fprintf(stderr, "%zu, want %zu: %s\n", h.n, n, text);
        CHECK(!wrong && n == h.n && total == (int64_t)n);
        some += n > 0 && n < (size_t)n_rows() / 2;
        near += strstr(text, "within") != NULL;
        fell(t.a), fell(t.b), free(t.a), free(t.b);
        o.limit = 3;
        CHECK(lp_query_where(&h, &total, q, text, &o, NULL) == LP_OK && h.n == (n < 3 ? n : 3) && total == (int64_t)n);
    }
    CHECK(some > 60 && near > 15);
    lp_hits_free(&h);
}

/* Near what lies in the next shard, in a document that is cut. */
static void test_cut(void)
{
    lp_hits h = {0};
    int cut = 0;
    for (int s = 0; s + 1 < f.n; s++) {
        int64_t last = f.base[s + 1] - 1;
        bool is_cut = document_at(last) == document_at(last + 1), found = false;
        char text[200];
        if (!counts(last)) continue;
        snprintf(text, sizeof text, "token %d within 1", id_at(last + 1));
        CHECK(lp_query_where(&h, NULL, q, text, &(lp_where_options){.all = true}, NULL) == LP_OK);
        for (size_t i = 0; i < h.n; i++) found |= h.token[i] == last;
        CHECK(found == is_cut || id_at(last) == id_at(last + 1) || id_at(last - 1) == id_at(last + 1));
        cut += is_cut;
    }
    CHECK(cut > 0);
    lp_hits_free(&h);
}

static void refuse(const char *text, const char *says)
{
    lp_hits h = {0};
    lp_error err = {0};
    CHECK(lp_query_where(&h, NULL, q, text, NULL, &err) == LP_E_RANGE);
    if (!strstr(err.text, says)) fprintf(stderr, "%.60s: %s\n", text, err.text);
    CHECK(strstr(err.text, says) != NULL && !strchr(err.text, '\n'));
    lp_hits_free(&h);
}

static char *repeated(const char *word, int n, const char *tail)
{
    size_t len = strlen(word);
    char *s = made_array(len * (size_t)n + strlen(tail) + 1, 1);
    for (int i = 0; i < n; i++) memcpy(s + len * (size_t)i, word, len);
    strcpy(s + len * (size_t)n, tail);
    return s;
}

#define A "layer_0/width_64/canonical:3"

static void test_hostile(void)
{
    refuse("", "column 1: expected SAE:FEATURE");
    refuse(A " and", "column 33: expected SAE:FEATURE");
    refuse("nobody:3", "column 1: no SAE \"nobody\" in this run; it has layer_0/width_64/canonical, ");
    refuse("layer_0/width_64/canonical:64", "column 1: feature 64; layer_0/width_64/canonical has 0 to 63");
    refuse("layer_0/width_64/canonical:99999999999999999999", "column 1: which feature");
    refuse("layer_0/width_64/canonical:-1", "column 1: which feature");
    refuse("layer_0/width_64/canonical", "column 1: expected SAE:FEATURE");
    refuse(A " > x", "column 32: a number expected");
    refuse(A " > nan", "column 32: a number expected");
    refuse(A " within", "column 36: a number of tokens");
    refuse(A " within 1.5", "a whole number of tokens");
    refuse(A " within 70000", "column 37: a number of tokens expected, up to 65536");
    refuse("((" A " within 65536) within 2)", "reaches further");
    refuse("(" A, "column 30: expected and, or, a comma, or )");
    refuse(A ")", "column 29: expected and, or, a comma, or the end");
    refuse(A " " A, "column 30: expected and");
    refuse("token 50", "column 7: an id of the vocabulary");
    refuse("token \"the\"", "column 7: no tokenizer");
    refuse("token 1.5", "column 7: an id is a whole number");
    refuse("label x", "column 7: label \"WORDS\"");
    refuse("label \"nothing like it\"", "column 7: no feature of this run");
    refuse("\"open", "column 1: a \" that nothing closes");
    refuse("\"name\" 3", "column 1: a name in quotes needs its feature");
    refuse(A " & " A, "column 30: a character that means nothing");
    char *deep = repeated("(", 5000, A), *nots = repeated("not ", 5000, A), *wide = repeated(A ",", 1000, A),
         *huge = repeated(" ", 70000, A), *far = repeated("(", 10, A);
    refuse(deep, "nested deeper than 64"), refuse(nots, "nested deeper than 64"), refuse(wide, "longer than 512");
    refuse(huge, "70028 bytes, at most 65536"), refuse(far, "expected and");
    free(deep), free(nots), free(wide), free(huge), free(far);
    static const char *const bits[] = {"(",       ")",  ",", " and ", " or ", "not ",        A,   " > 1", " within 3",
                                       "token 2", "\"", ":", "<",     " ",    "label \"x\"", "9", "\xff", "before"};
    int right = 0;
    for (int round = 0; round < 3000; round++) {
        char text[600] = "";
        lp_hits h = {0};
        lp_error err = {0};
        for (int i = roll(14); i >= 0; i--) strcat(text, bits[roll((int)(sizeof bits / sizeof *bits))]);
        lp_status st = lp_query_where(&h, NULL, q, text, NULL, &err);
        CHECK(st == LP_OK || (st == LP_E_RANGE && strncmp(err.text, "column ", 7) == 0));
        right += st == LP_OK;
        lp_hits_free(&h);
    }
    CHECK(right > 30);
}

/* ---- together ------------------------------------------------------------------------------------------------------- */

static void test_partners(void)
{
    lp_hits rows = {0};
    lp_partners p = {0};
    double N = 0;
    for (int64_t t = 0; t < n_rows(); t++) N += counts(t);
    CHECK(lp_query_positions(&rows, q, 0, 5, 0, false, NULL) == LP_OK && rows.n > 20);
    CHECK(lp_query_partners(&p, q, &rows, NULL, 0, NULL) == LP_OK && p.rows == (int64_t)rows.n &&
          p.looked_at == p.rows);
    bool has_itself = false;
    for (size_t i = 0; i < p.n; i++) {
        const lp_partner *x = &p.items[i];
        int64_t together = 0, active = 0;
        double sum = 0;
        for (size_t k = 0; k < rows.n; k++) {
            float v = value_at(rows.token[k], x->sae, x->feature);
            together += v > 0, sum += (double)v;
        }
        for (int64_t t = 0; t < n_rows(); t++) active += counts(t) && value_at(t, x->sae, x->feature) > 0;
        CHECK(x->together == together && x->n_active == active && together > 0);
        CHECK_NEAR(x->sum, sum, 1e-9 * sum);
        CHECK_NEAR(x->pmi, log2((double)together * N / ((double)rows.n * (double)active)), 1e-9);
        CHECK_NEAR(x->jaccard, (double)together / ((double)rows.n + (double)active - (double)together), 1e-12);
        has_itself |= x->sae == 0 && x->feature == 5 && x->jaccard == 1;
    }
    CHECK(has_itself && p.n > 50);
    lp_partners_free(&p);
    CHECK(lp_query_partners(&p, q, &rows, (bool[2]){false, true}, 10, NULL) == LP_OK && p.looked_at == 10);
    for (size_t i = 0; i < p.n; i++) CHECK(p.items[i].sae == 1 && p.items[i].together <= 10);
    lp_partners_free(&p);
    lp_features row = {0};
    for (int64_t t = 0; t < n_rows(); t += 7)
        for (int sae = 0; sae < 2; sae++) {
            CHECK(lp_query_row(&row, q, sae, t, NULL) == LP_OK && row.n_rows == 1);
            for (size_t k = 0; k < row.start[1]; k++) CHECK(value_at(t, sae, row.index[k]) == row.value[k]);
        }
    lp_features_free(&row);
    lp_hits_free(&rows);
}

/* ---- words ---------------------------------------------------------------------------------------------------------- */

static void test_words(void)
{
    lp_passages p;
    int with = 0, broken = 0;
    for (int s = 0; s < f.n; s++)
        for (int d = 0; d < f.m[s]->spec.n_documents; d++)
            with += f.m[s]->documents[d].text_bytes > 0, broken += !f.m[s]->documents[d].is_utf8;
    CHECK(lp_query_text(&p, q, "text", 1000, NULL) == LP_OK && (int)p.n == with);
    for (size_t i = 1; i < p.n; i++) CHECK(p.items[i].token >= p.items[i - 1].token);
    lp_passages_free(&p);
    CHECK(lp_query_text(&p, q, "\"a broken\" text", 1000, NULL) == LP_OK && (int)p.n == broken && broken > 0);
    CHECK(strstr(p.items[0].snippet, "[a broken]") != NULL);
    lp_passages_free(&p);
    CHECK(lp_query_text(&p, q, "bro*", 1000, NULL) == LP_OK && (int)p.n == broken);
    lp_passages_free(&p);
    static const char *const odd[] = {
        "AND", "text OR", "NEAR(", "\"", "-text", "a:b", "*", "^x", "\"\"\"", "'; DROP TABLE run; --", "\xff"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        lp_status st = lp_query_text(&p, q, odd[i], 10, NULL);
        CHECK(st == LP_OK || st == LP_E_RANGE);
        lp_passages_free(&p);
    }
    CHECK(lp_query_text(&p, q, "  ", 10, NULL) == LP_E_RANGE);
    CHECK(lp_query_document(&p, q, "key-2", NULL) == LP_OK && (int)p.n == f.n);
    lp_passages_free(&p);
    CHECK(lp_query_document(&p, q, "none", NULL) == LP_E_NOT_FOUND);
    for (int64_t t = 0; t < n_rows(); t += 11) {
        CHECK(lp_query_passage(&p, q, t, NULL) == LP_OK && p.n == 1 && p.items[0].document == document_at(t));
        lp_passages_free(&p);
    }
}

static void test_labels(void)
{
    lp_catalogue *c = NULL;
    lp_found_labels l;
    char *text = NULL;
    lp_label items[64] = {{0}};
    static char whale[] = "mentions of whales", ship[] = "ships, or boats", kind[] = "person";
    items[3] = (lp_label){.text = whale, .kind = kind}, items[9] = (lp_label){.text = ship};
    lp_labels labels = {items, 64, 2};
    lp_catalogue_labels list = {f.m[0]->saes[0].hash, &labels};
    CHECK(lp_catalogue_open(&c, f.store, LP_CATALOGUE_WRITE, NULL, NULL) == LP_OK);
    CHECK(lp_catalogue_set_labels(c, &list, 1, NULL) == LP_OK && lp_catalogue_set_labels(c, &list, 1, NULL) == LP_OK);
    lp_catalogue_close(c);
    CHECK(lp_query_labels(&l, q, "whale", 10, NULL) == LP_OK && l.n == 1 && l.items[0].feature == 3 &&
          l.items[0].sae == 0);
    CHECK_STR(l.items[0].kind, "person");
    lp_found_labels_free(&l);
    CHECK(lp_query_labels(&l, q, "\"ships, or\"", 10, NULL) == LP_OK && l.n == 1 && l.items[0].feature == 9);
    lp_found_labels_free(&l);
    CHECK(lp_query_label(&text, q, 0, 9, NULL) == LP_OK);
    CHECK_STR(text, ship);
    free(text);
    lp_hits a = {0}, b = {0};
    CHECK(lp_query_where(&a, NULL, q, "label \"whales\" > 0.5", NULL, NULL) == LP_OK);
    CHECK(lp_query_where(&b, NULL, q, A " > 0.5", NULL, NULL) == LP_OK);
    CHECK(a.n == b.n && a.n > 5 && memcmp(a.token, b.token, a.n * sizeof *a.token) == 0);
    lp_hits_free(&a), lp_hits_free(&b);
    CHECK(lp_store_index(NULL, f.store, true, NULL, NULL) == LP_OK); /* a reader is open meanwhile; labels stay */
    CHECK(lp_query_labels(&l, q, "whale", 10, NULL) == LP_OK && l.n == 1);
    lp_found_labels_free(&l);
}

/* A shard that was changed behind our back is not believed. */
static void test_changed(void)
{
    char path[256], *bytes = NULL;
    size_t n = 0;
    lp_query *other = NULL;
    lp_tally t;
    lp_hits h = {0};
    filled_path(path, &f, "runs/" FILLED_RUN "/shard-000001.h5");
    CHECK(lp_read_file(&bytes, &n, path, 1 << 28, NULL) == LP_OK);
    CHECK(lp_query_open(&other, f.store, "0123", NULL, NULL) == LP_OK);
    lp_query_close(other);
    CHECK(lp_query_open(&other, f.store, "9", NULL, NULL) == LP_E_NOT_FOUND && other == NULL);
    CHECK(lp_query_open(&other, f.store, NULL, NULL, NULL) == LP_OK);
    chmod(path, 0600);
    FILE *file = fopen(path, "r+");
    CHECK(file && fseek(file, (long)n / 2, SEEK_SET) == 0 && fputc(bytes[n / 2] ^ 1, file) != EOF);
    fclose(file);
    lp_error err = {0};
    CHECK(lp_query_feature(&t, other, 0, 1, NULL) == LP_OK && t.n_active > 0); /* the catalogue knows */
    CHECK(lp_query_positions(&h, other, 0, 1, 0, false, &err) == LP_E_FORMAT && strstr(err.text, "not the file"));
    lp_query_close(other);
    unlink(path);
    CHECK(lp_query_open(&other, f.store, NULL, NULL, NULL) == LP_OK);
    CHECK(lp_query_positions(&h, other, 0, 1, 0, false, &err) == LP_E_NOT_FOUND && strstr(err.text, "missing"));
    lp_query_close(other);
    lp_hits_free(&h);
    free(bytes);
}

int main(void)
{
    filled_make(&f, 6, 120, true);
    CHECK(lp_store_index(NULL, f.store, false, NULL, NULL) == LP_OK);
    lp_error err = {0};
    if (lp_query_open(&q, f.store, NULL, NULL, &err) != LP_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    const lp_query_run *run = lp_query_get_run(q);
    CHECK(run->n_tokens == n_rows() && run->n_shards == f.n && run->n_saes == 2 && run->vocab == 50);
    test_positions();
    test_tokens();
    test_contexts();
    test_quantiles();
    test_where();
    test_cut();
    test_partners();
    test_words();
    test_labels();
    test_hostile();
    lp_query_close(q);
    test_changed();
    filled_free(&f);
    return check_done();
}
