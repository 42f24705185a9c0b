/* Recipes as files: what is read, what is refused and with which words, round trips, hashes, Neuronpedia's requests. */
#include "sae/exchange.h"

#include "tests/check.h"

#include <limits.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define HEAD "{\"format\": \"lapidary-recipe\", \"version\": 1, "
#define EDIT "\"layer\": \"3-lapidary-res-2k\", \"index\": 473, "

static char big[1 << 16];

/* A recipe of one edit; `edit` is what stands in it besides its SAE and index, `more` what stands beside the list. */
static const char *one(const char *edit, const char *more)
{
    snprintf(big, sizeof big, HEAD "\"features\": [{" EDIT "%s}]%s%s}", edit, *more ? ", " : "", more);
    return big;
}

static lp_status parse(lp_recipe *r, const char *text, lp_error *err)
{
    return lp_recipe_parse(r, text, strlen(text), err);
}

static void refused(const char *text, const char *says)
{
    lp_recipe r;
    lp_error err = {0};
    lp_status st = parse(&r, text, &err);
    CHECK(st < 0 && st == err.status && !r.edits && !r.name);
    CHECK(strstr(err.text, says) && !strchr(err.text, '\n'));
    if (!strstr(err.text, says)) fprintf(stderr, "%.200s\n  said: %s\n  want: %s\n", text, err.text, says);
    lp_recipe_clear(&r);
}

static void read_well(lp_recipe *r, const char *text)
{
    lp_error err = {0};
    CHECK(parse(r, text, &err) == LP_OK);
    if (err.status) fprintf(stderr, "%.200s\n  said: %s\n", text, err.text);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static const char sea[] =
    "{\"format\": \"lapidary-recipe\", \"version\": 1, \"name\": \"sea\", \"description\": \"of \\u00e9\","
    " \"modelId\": \"lapidary-base\", \"x_mine\": [1, {\"a\": 2}],"
    " \"features\": [{\"modelId\": \"lapidary-base\", \"layer\": \"3-lapidary-res-2k\", \"index\": 473,"
    " \"description\": \"near \\\"whale\\\"\", \"kind\": \"clamp\", \"unit\": \"max_act\", \"strength\": 1.0,"
    " \"max_act\": 8.53, \"x_note\": \"mine\","
    " \"schedule\": {\"from\": 2, \"to\": 9, \"ramp\": 4, \"decay\": 0.9},"
    " \"when\": {\"layer\": \"1-lapidary-res-2k\", \"index\": 7, \"above\": 0.25}},"
    " {\"layer\": \"3-lapidary-res-2k\", \"index\": 5, \"strength\": -3, \"scope\": {\"bos\": true,"
    " \"last_prompt\": true, \"generated\": false, \"ranges\": [[0, 4], [9, 20]], \"text\": \"wh?ale\"}}],"
    " \"scope\": {\"bos\": false, \"template\": false, \"prompt\": true, \"generated\": true}, \"keep_norm\": true}";

static void is_sea(const lp_recipe *r)
{
    CHECK_STR(r->name, "sea");
    CHECK_STR(r->model, "lapidary-base");
    CHECK_STR(r->description, "of \xc3\xa9");
    CHECK_STR(r->extra, "{\"x_mine\":[1,{\"a\":2}]}");
    CHECK(r->n_edits == 2 && r->keeps_norm && !r->is_joint && !r->drops_error);
    CHECK(!r->scope.bos && !r->scope.template && r->scope.prompt && !r->scope.last_prompt && r->scope.generated);
    const lp_recipe_edit *a = &r->edits[0], *b = &r->edits[1];
    CHECK_STR(a->source, "3-lapidary-res-2k");
    CHECK_STR(a->description, "near \"whale\"");
    CHECK_STR(a->extra, "{\"x_note\":\"mine\"}");
    CHECK(a->index == 473 && a->kind == LP_RECIPE_CLAMP && a->unit == LP_RECIPE_MAX_ACT && a->strength == 1);
    CHECK(a->max_act == 8.53 && a->mean_norm == 0 && !a->has_scope && lp_recipe_scope_of(r, a) == &r->scope);
    CHECK(a->schedule.is_given && a->schedule.from == 2 && a->schedule.to == 9 && a->schedule.ramp == 4);
    CHECK(a->schedule.decay == 0.9 && a->when.index == 7 && a->when.above == 0.25);
    CHECK_STR(a->when.source, "1-lapidary-res-2k");
    CHECK(b->index == 5 && b->kind == LP_RECIPE_ADD && b->unit == LP_RECIPE_ABSOLUTE && b->strength == -3);
    CHECK(b->has_scope && b->scope.bos && b->scope.prompt && b->scope.last_prompt && !b->scope.generated);
    CHECK(b->scope.n_ranges == 2 && b->scope.ranges[1].from == 9 && b->scope.ranges[1].to == 20);
    CHECK_STR(b->scope.text, "wh?ale");
    CHECK(!b->when.source && !b->schedule.is_given && lp_recipe_scope_of(r, b) == &b->scope);
}

static void reading(void)
{
    lp_recipe r;
    read_well(&r, sea);
    is_sea(&r);
    lp_recipe_clear(&r);
    CHECK(!r.edits && !r.n_edits);
    read_well(&r, one("\"strength\": 2", "")); /* the defaults */
    CHECK(r.n_edits == 1 && r.edits[0].kind == LP_RECIPE_ADD && !r.model && !r.name && !r.scope.bos && r.scope.prompt &&
          r.scope.generated && !r.scope.template && !r.scope.last_prompt);
    lp_recipe_clear(&r);
    read_well(&r, HEAD "\"features\": []}");
    CHECK(r.n_edits == 0);
    lp_recipe_clear(&r);
    static const char *const kinds[] = {"add",   "clamp",  "clamp_min", "clamp_max",
                                        "scale", "ablate", "project",   "replace"};
    for (int k = 0; k < LP_RECIPE_N_KINDS; k++) {
        char edit[80];
        snprintf(edit, sizeof edit, "\"kind\": \"%s\"%s", kinds[k], k == LP_RECIPE_ABLATE ? "" : ", \"strength\": 2");
        read_well(&r, one(edit, ""));
        CHECK(r.n_edits == 1 && (int)r.edits[0].kind == k);
        CHECK_STR(lp_recipe_kind_name((lp_recipe_kind)k), kinds[k]);
        lp_recipe_clear(&r);
    }
    read_well(&r, one("\"kind\": \"project\"", "")); /* to nothing */
    CHECK(r.edits && r.edits[0].strength == 0);
    lp_recipe_clear(&r);
}

static void round_trip(void)
{
    lp_recipe r, again;
    char *text = NULL, *twice = NULL, dir[] = "/tmp/lapidary-recipe-XXXXXX", path[64];
    lp_error err = {0};
    read_well(&r, sea);
    CHECK(lp_recipe_text(&text, &r, NULL) == LP_OK && text);
    CHECK(text && strstr(text, "8.53,") && !strstr(text, "8.5299")); /* as a person writes it */
    read_well(&again, text);
    is_sea(&again);
    CHECK(lp_recipe_text(&twice, &again, NULL) == LP_OK);
    CHECK_STR(twice, text);
    lp_recipe_clear(&again);
    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/sea.json", dir);
    CHECK(lp_recipe_write(&r, path, &err) == LP_OK);
    CHECK(lp_recipe_read(&again, path, &err) == LP_OK);
    is_sea(&again);
    lp_recipe_clear(&again);
    r.edits[0].strength = (double)NAN; /* never on disk, and the old file stays */
    CHECK(lp_recipe_write(&r, path, &err) == LP_E_RANGE && strstr(err.text, "finite"));
    CHECK(lp_recipe_read(&again, path, &err) == LP_OK);
    lp_recipe_clear(&again);
    FILE *f = fopen(path, "w");
    CHECK(f && fputs("{\"format\": \"lapidary-recipe\", \"version\": 7}", f) >= 0 && fclose(f) == 0);
    CHECK(lp_recipe_read(&again, path, &err) == LP_E_UNSUPPORTED && strncmp(err.text, path, strlen(path)) == 0);
    CHECK(truncate(path, LP_RECIPE_BYTES + 1) == 0);
    CHECK(lp_recipe_read(&again, path, &err) < 0 && strstr(err.text, path));
    unlink(path);
    CHECK(lp_recipe_read(&again, path, &err) < 0 && strstr(err.text, path));
    rmdir(dir);
    free(text), free(twice);
    lp_recipe_clear(&r);
}

/* ---- refusing ---------------------------------------------------------------------------------------------------- */

static void bad_files(void)
{
    refused("", "not JSON");
    refused("[]", "no JSON object");
    refused("3", "no");
    refused("{", "not JSON");
    refused("{}", "not a recipe");
    refused("{\"features\": []}", "Neuronpedia");
    refused("{\"format\": \"recipe\", \"version\": 1}", "lapidary-recipe");
    refused("{\"format\": \"lapidary-recipe\", \"features\": []}", "\"version\"");
    refused("{\"format\": \"lapidary-recipe\", \"version\": 2, \"future\": 1}", "version 2");
    refused(HEAD "\"scope\": {}}", "\"features\"");
    refused(HEAD "\"features\": {}}", "\"features\"");
    refused(HEAD "\"features\": [3]}", "features[0]: must be an object");
    refused(HEAD "\"features\": [], \"features\": []}", "duplicate");
    refused(HEAD "\"features\": [], \"keep_nrom\": true}", "is it \"keep_norm\"?");
    refused(HEAD "\"features\": [], \"temperature\": 1}", "unknown key \"temperature\"");
    refused(HEAD "\"features\": [], \"joint\": 1}", "true or false");
    refused(HEAD "\"features\": [], \"joint\": true, \"keep_norm\": true}", "joint and keep_norm");
    refused(HEAD "\"features\": [], \"scope\": 1}", "\"scope\" must be an object");
    refused(HEAD "\"features\": [], \"modelId\": 1}", "a string");
}

static void bad_edits(void)
{
    refused(HEAD "\"features\": [{\"index\": 1, \"strength\": 1}]}", "no \"layer\"");
    refused(HEAD "\"features\": [{\"layer\": \"a\", \"strength\": 1}]}", "no \"index\"");
    refused(HEAD "\"features\": [{\"layer\": \"\", \"index\": 1, \"strength\": 1}]}", "no SAE");
    refused(HEAD "\"features\": [{\"layer\": \"a\", \"index\": -1, \"strength\": 1}]}", "whole number");
    refused(HEAD "\"features\": [{\"layer\": \"a\", \"index\": 1.5, \"strength\": 1}]}", "whole number");
    refused(HEAD "\"features\": [{\"layer\": \"a\", \"index\": 4294967296, \"strength\": 1}]}", "whole number");
    refused(one("\"strenght\": 1", ""), "is it \"strength\"?");
    refused(one("\"strength\": 1, \"kind\": \"clampp\"", ""), "features[0]: unknown kind \"clampp\"; it is one of add");
    refused(one("\"strength\": 1, \"unit\": \"maxact\"", ""), "unknown unit \"maxact\"");
    refused(one("\"kind\": \"clamp\"", ""), "no \"strength\"");
    refused(one("\"kind\": \"ablate\", \"strength\": 1", ""), "ablate takes no strength");
    refused(one("\"kind\": \"scale\", \"strength\": 1, \"unit\": \"max_act\", \"max_act\": 2", ""), "must be absolute");
    refused(one("\"strength\": 1e999", ""), "1e999");
    refused(one("\"strength\": NaN", ""), "not JSON");
    refused(one("\"strength\": \"1\"", ""), "a finite number");
    refused(one("\"strength\": 1, \"max_act\": 0", ""), "\"max_act\" must be above 0");
    refused(one("\"strength\": 1, \"mean_norm\": -2", ""), "\"mean_norm\" must be above 0");
    refused(one("\"strength\": 1, \"modelId\": \"gemma-2-9b\"", "\"modelId\": \"gemma-2-2b\""), "gemma-2-9b");
    refused(one("\"strength\": 1, \"when\": {\"index\": 3}", ""), "features[0].when");
    refused(one("\"strength\": 1, \"when\": {\"layer\": \"a\", \"index\": 3, \"over\": 2}", ""),
            "unknown key \"over\"");
    refused(one("\"strength\": 1, \"schedule\": {\"from\": 3, \"to\": 3}", ""), "schedule [3, 3) is empty");
    refused(one("\"strength\": 1, \"schedule\": {\"decay\": 1.5}", ""), "decay");
    refused(one("\"strength\": 1, \"schedule\": {\"decay\": -0.5}", ""), "decay");
    refused(one("\"strength\": 1, \"schedule\": {\"step\": 1}", ""), "features[0].schedule: unknown key");
}

static void bad_scopes(void)
{
    refused(one("\"strength\": 1", "\"scope\": {\"pormpt\": true}"), "is it \"prompt\"?");
    refused(one("\"strength\": 1, \"scope\": {\"bos\": 1}", ""), "features[0].scope: \"bos\" must be true or false");
    refused(one("\"strength\": 1, \"scope\": {\"ranges\": [[3, 3]]}", ""), "[3, 3) is empty");
    refused(one("\"strength\": 1, \"scope\": {\"ranges\": [[3]]}", ""), "pairs of positions");
    refused(one("\"strength\": 1, \"scope\": {\"ranges\": [[-3, 3]]}", ""), "pairs of positions");
    refused(one("\"strength\": 1, \"scope\": {\"ranges\": []}", ""), "not empty");
    refused(one("\"strength\": 1, \"scope\": {\"text\": \"(\"}", ""), "no extended regular expression");
    refused(one("\"strength\": 1, \"scope\": {\"text\": \"\"}", ""), "matches nothing");
    refused(one("\"strength\": 1, \"scope\": {\"text\": \"(a)\\\\1\"}", ""), "back reference");
    refused(one("\"strength\": 1, \"scope\": {\"text\": \"((((a{255}){255}){255}){255})\"}", ""), "repeats too often");
    char edit[2500];
    memset(edit, 0, sizeof edit);
    strcpy(edit, "\"strength\": 1, \"scope\": {\"text\": \"");
    memset(edit + strlen(edit), 'a', LP_RECIPE_PATTERN + 1);
    strcat(edit, "\"}");
    refused(one(edit, ""), "a pattern of 1001 bytes");
}

/* Clamps of one feature: where they may meet they are refused, where they cannot they are not. */
static void two_clamps(const char *a, const char *b, bool meet)
{
    char text[1500];
    snprintf(text, sizeof text,
             HEAD "\"features\": [{" EDIT "\"kind\": \"clamp\", \"strength\": 1%s}, {" EDIT
                  "\"kind\": \"clamp\", \"strength\": 2%s}]}",
             a, b);
    if (meet) {
        refused(text, "features[0] and features[1] both set 3-lapidary-res-2k #473");
        return;
    }
    lp_recipe r;
    read_well(&r, text);
    lp_recipe_clear(&r);
}

static void duplicates(void)
{
    two_clamps("", "", true);
    two_clamps(", \"scope\": {\"prompt\": false}", ", \"scope\": {\"generated\": false}", false);
    two_clamps(", \"scope\": {\"last_prompt\": true}", "", true);
    two_clamps(", \"scope\": {\"last_prompt\": true, \"generated\": false}", ", \"scope\": {\"prompt\": false}", false);
    two_clamps(", \"scope\": {\"last_prompt\": true, \"generated\": false}",
               ", \"scope\": {\"prompt\": false, \"template\": true}", true);
    two_clamps(", \"scope\": {\"ranges\": [[0, 5]]}", ", \"scope\": {\"ranges\": [[5, 9], [20, 21]]}", false);
    two_clamps(", \"scope\": {\"ranges\": [[0, 6]]}", ", \"scope\": {\"ranges\": [[20, 21], [5, 9]]}", true);
    two_clamps(", \"scope\": {\"ranges\": [[0, 5]]}", "", true);
    two_clamps(", \"scope\": {\"text\": \"a\"}", ", \"scope\": {\"text\": \"b\"}", true);
    two_clamps(", \"schedule\": {\"to\": 4}", ", \"schedule\": {\"from\": 4}", false);
    two_clamps(", \"schedule\": {\"to\": 5}", ", \"schedule\": {\"from\": 4}", true);
    refused(HEAD "\"features\": [{" EDIT "\"kind\": \"clamp\", \"strength\": 1}, {" EDIT
                 "\"kind\": \"replace\", \"strength\": 1}]}",
            "both set");
    lp_recipe r; /* adding twice is adding more; another feature, another SAE: no matter */
    read_well(&r, HEAD "\"features\": [{" EDIT "\"strength\": 1}, {" EDIT "\"strength\": 1}, {" EDIT
                       "\"kind\": \"clamp\", \"strength\": 1}, {\"layer\": \"3-lapidary-res-2k\", \"index\": 1, "
                       "\"kind\": \"clamp\", \"strength\": 1}, {\"layer\": \"x\", \"index\": 473, \"kind\": \"clamp\","
                       "\"strength\": 1}]}");
    CHECK(r.n_edits == 5);
    lp_recipe_clear(&r);
}

static char *repeat(const char *before, const char *each, size_t n, const char *after)
{
    size_t len = strlen(each);
    char *text = malloc(strlen(before) + n * (len + 1) + strlen(after) + 1), *at = text;
    if (!text) exit(1);
    at += sprintf(at, "%s", before);
    for (size_t i = 0; i < n; i++) {
        memcpy(at, each, len);
        at += len;
        if (i + 1 < n) *at++ = ',';
    }
    sprintf(at, "%s", after);
    return text;
}

static void too_much(void)
{
    clock_t begin = clock();
    char *text = repeat(HEAD "\"features\": [", "{}", 1000000, "]}");
    refused(text, "1000001 objects; a recipe holds at most 4096 edits");
    CHECK((double)(clock() - begin) / CLOCKS_PER_SEC < 1);
    free(text);
    text = repeat(HEAD "\"features\": [", "{}", LP_RECIPE_EDITS + 1, "]}");
    refused(text, "4097 edits");
    free(text);
    text = repeat(HEAD "\"features\": [", "{" EDIT "\"strength\": 1}", LP_RECIPE_EDITS, "]}");
    lp_recipe r;
    read_well(&r, text);
    CHECK(r.n_edits == LP_RECIPE_EDITS);
    lp_recipe_clear(&r);
    free(text);
    text = repeat(HEAD "\"x_\": \"{{{", "{{{{{{{{{{{{{{{{{{{{{{", 10000, "\", \"features\": []}"); /* in a string */
    read_well(&r, text);
    lp_recipe_clear(&r);
    free(text);
    text = repeat("", "[", 100000, "");
    refused(text, "not JSON");
    free(text);
    text = repeat(HEAD "\"features\": [{" EDIT "\"strength\": 1, \"scope\": {\"ranges\": [", "[1, 2]", 5000, "]}}]}");
    refused(text, "\"ranges\" must be at most");
    free(text);
    text = calloc(1, LP_RECIPE_BYTES + 1);
    lp_error err = {0};
    CHECK(text && lp_recipe_parse(&r, text, LP_RECIPE_BYTES + 1, &err) == LP_E_RANGE && strstr(err.text, "16777217"));
    free(text);
}

/* Every truncation and many flipped bits: read or refused with a word, and what is read can be written and hashed. */
static void broken(void)
{
    size_t n = strlen(sea), refusals = 0;
    for (size_t i = 0; i < 9 * n; i++) {
        char text[sizeof sea], hash[33], *again = NULL;
        lp_recipe r;
        lp_error err = {0};
        memcpy(text, sea, n + 1);
        if (i >= n) text[(i - n) % n] = (char)(text[(i - n) % n] ^ (1 << (i - n) / n));
        lp_status st = lp_recipe_parse(&r, text, i < n ? i : n, &err);
        refusals += st != LP_OK;
        CHECK(st == LP_OK ? !err.text[0] : err.text[0] && !strchr(err.text, '\n') && !r.edits);
        if (st == LP_OK) CHECK(lp_recipe_hash(hash, &r, NULL) == LP_OK && lp_recipe_text(&again, &r, NULL) == LP_OK);
        free(again);
        lp_recipe_clear(&r);
    }
    CHECK(refusals > n);
}

/* ---- hashes ------------------------------------------------------------------------------------------------------ */

static void hash_of(char hash[33], const char *text)
{
    lp_recipe r;
    read_well(&r, text);
    CHECK(lp_recipe_hash(hash, &r, NULL) == LP_OK && strlen(hash) == 32);
    lp_recipe_clear(&r);
}

static void same_hash(const char *a, const char *b, bool same)
{
    char ha[33], hb[33];
    hash_of(ha, a), hash_of(hb, b);
    CHECK((strcmp(ha, hb) == 0) == same);
    if ((strcmp(ha, hb) == 0) != same) fprintf(stderr, "%s: %s\n%s: %s\n", ha, a, hb, b);
}

static void hashes(void)
{
    static const char base[] = HEAD "\"features\": [{" EDIT "\"strength\": 2}]}";
    same_hash(base,
              "{\"version\":1,\"features\":[{\"index\":473,\"strength\":2.0,\"kind\":\"add\",\"unit\":\"absolute\","
              "\"layer\":\"3-lapidary-res-2k\"}],\n\n \"format\":\"lapidary-recipe\"}",
              true);
    same_hash(base,
              one("\"strength\": 2, \"description\": \"a\", \"x_a\": 1, \"max_act\": 3",
                  "\"name\": \"n\", \"description\": \"d\", \"x_b\": 1, \"joint\": false, \"error_term\": true"),
              true);
    same_hash(base, one("\"strength\": 2", "\"scope\": {\"prompt\": true, \"generated\": true, \"bos\": false}"), true);
    same_hash(base, one("\"strength\": 2, \"scope\": {}", "\"scope\": {\"bos\": true}"),
              true); /* nobody hears the latter */
    static const char *const others[] = {
        "\"strength\": 3",
        "\"strength\": 2.0000000000000004",
        "\"strength\": 2, \"kind\": \"clamp\"",
        "\"strength\": 2, \"unit\": \"max_act\"",
        "\"strength\": 2, \"unit\": \"max_act\", \"max_act\": 3",
        "\"strength\": 2, \"scope\": {\"bos\": true}",
        "\"strength\": 2, \"scope\": {\"last_prompt\": true}",
        "\"strength\": 2, \"scope\": {\"ranges\": [[1, 2]]}",
        "\"strength\": 2, \"scope\": {\"text\": \"a\"}",
        "\"strength\": 2, \"schedule\": {\"ramp\": 2}",
        "\"strength\": 2, \"when\": {\"layer\": \"a\", \"index\": 1}",
        "\"strength\": 2, \"when\": {\"layer\": \"a\", \"index\": 1, \"above\": 1}",
    };
    char hash[sizeof others / sizeof *others + 1][33];
    size_t n = sizeof others / sizeof *others;
    hash_of(hash[n], base);
    for (size_t i = 0; i < n; i++) hash_of(hash[i], one(others[i], ""));
    for (size_t i = 0; i <= n; i++)
        for (size_t j = 0; j < i; j++) CHECK(strcmp(hash[i], hash[j]) != 0);
    static const char *const tops[] = {"\"joint\": true", "\"keep_norm\": true", "\"error_term\": false",
                                       "\"modelId\": \"a\"", "\"scope\": {\"prompt\": false}"};
    for (size_t i = 0; i < sizeof tops / sizeof *tops; i++) {
        hash_of(hash[0], one("\"strength\": 2", tops[i]));
        CHECK(strcmp(hash[0], hash[n]) != 0);
    }
    /* The order of edits is the order of a sum. */
    same_hash(HEAD "\"features\": [{" EDIT "\"strength\": 2}, {" EDIT "\"strength\": 3}]}",
              HEAD "\"features\": [{" EDIT "\"strength\": 3}, {" EDIT "\"strength\": 2}]}", false);
    /* Saved recipes are told apart by it: it must stay what it is from one version to the next. */
    CHECK_STR(hash[n], "f770adb02fc141c964994b67c917c942");
}

/* ---- units, schedules -------------------------------------------------------------------------------------------- */

static void amounts(void)
{
    lp_recipe_edit e = {.source = big, .unit = LP_RECIPE_MAX_ACT, .strength = 2, .max_act = 8.5, .mean_norm = 100};
    strcpy(big, "a");
    double v = 0;
    lp_error err = {0};
    CHECK(lp_recipe_amount(&v, &e, &err) == LP_OK && v == 17);
    e.unit = LP_RECIPE_MEAN_NORM;
    CHECK(lp_recipe_amount(&v, &e, &err) == LP_OK && v == 200);
    e.unit = LP_RECIPE_ABSOLUTE;
    CHECK(lp_recipe_amount(&v, &e, &err) == LP_OK && v == 2);
    e.unit = LP_RECIPE_MAX_ACT, e.max_act = 0;
    CHECK(lp_recipe_amount(&v, &e, &err) == LP_E_RANGE && strstr(err.text, "\"max_act\""));
    e.max_act = 1e30, e.strength = 1e30;
    CHECK(lp_recipe_amount(&v, &e, &err) == LP_E_RANGE && strstr(err.text, "float"));
    lp_recipe_schedule s = {.is_given = true, .from = 2, .to = 8, .ramp = 4, .decay = 0.5};
    double want[] = {0, 0, 0, 0.25 * 0.5, 0.5 * 0.25, 0.75 * 0.125, 0.0625, 0.03125, 0, 0};
    for (int i = 0; i < 10; i++) CHECK(lp_recipe_factor(&s, i) == want[i]);
    s = (lp_recipe_schedule){.is_given = true, .to = INT_MAX, .decay = 1};
    CHECK(lp_recipe_factor(&s, 0) == 1 && lp_recipe_factor(&s, 1000000) == 1);
    s.is_given = false;
    CHECK(lp_recipe_factor(&s, 5) == 1);
}

/* ---- Neuronpedia ------------------------------------------------------------------------------------------------- */

static void not_theirs(const char *text, const char *says)
{
    lp_recipe r;
    lp_error err = {0};
    char *prompt = NULL;
    CHECK(lp_recipe_from_neuronpedia(&r, &prompt, text, strlen(text), &err) < 0 && !r.edits && !prompt);
    CHECK(strstr(err.text, says));
    if (!strstr(err.text, says)) fprintf(stderr, "%s\n  said: %s\n", text, err.text);
}

static void theirs(void)
{
    /* The documented example of facts/gemma-scope.md 5.5. */
    static const char request[] =
        "{\"prompt\": \"The most iconic\", \"modelId\": \"gemma-2-2b\", \"features\": [{\"modelId\": \"gemma-2-2b\","
        "\"layer\": \"20-gemmascope-res-16k\", \"index\": 3124, \"strength\": 38.5}], \"temperature\": 0.2,"
        "\"n_tokens\": 60, \"freq_penalty\": 2, \"seed\": 16, \"strength_multiplier\": 4,"
        "\"steer_method\": \"SIMPLE_ADDITIVE\"}";
    lp_recipe r, again;
    lp_error err = {0};
    char *prompt = NULL, *text = NULL;
    CHECK(lp_recipe_from_neuronpedia(&r, &prompt, request, strlen(request), &err) == LP_OK);
    CHECK_STR(prompt, "The most iconic");
    CHECK_STR(r.model, "gemma-2-2b");
    CHECK(r.n_edits == 1 && r.edits[0].kind == LP_RECIPE_ADD && r.edits[0].strength == 154 &&
          r.edits[0].index == 3124 && r.scope.bos && r.scope.prompt && r.scope.generated && r.scope.template);
    free(prompt);
    CHECK(lp_recipe_to_neuronpedia(&text, &r, &err) == LP_OK && text);
    CHECK(text && lp_recipe_from_neuronpedia(&again, NULL, text, strlen(text), &err) == LP_OK);
    char a[33], b[33];
    CHECK(lp_recipe_hash(a, &r, NULL) == LP_OK && lp_recipe_hash(b, &again, NULL) == LP_OK);
    CHECK_STR(a, b);
    lp_recipe_clear(&again);
    free(text);
    r.scope.bos = false;
    CHECK(lp_recipe_to_neuronpedia(&text, &r, &err) == LP_E_UNSUPPORTED && text && strstr(err.text, "scopes"));
    free(text);
    r.scope.bos = true, r.edits[0].unit = LP_RECIPE_MAX_ACT, r.edits[0].max_act = 2;
    CHECK(lp_recipe_to_neuronpedia(&text, &r, &err) == LP_OK && text && strstr(text, "308"));
    free(text);
    r.edits[0].max_act = 0;
    CHECK(lp_recipe_to_neuronpedia(&text, &r, &err) == LP_E_UNSUPPORTED && !text && strstr(err.text, "unit"));
    r.edits[0].kind = LP_RECIPE_CLAMP, r.keeps_norm = true;
    CHECK(lp_recipe_to_neuronpedia(&text, &r, &err) == LP_E_UNSUPPORTED && !text && strstr(err.text, "every clamp"));
    CHECK(strstr(err.text, "keep_norm") && !strchr(err.text, '\n'));
    lp_recipe_clear(&r);
    not_theirs("[]", "not a steer request");
    not_theirs("{}", "features");
    not_theirs("{\"features\": [], \"steer_method\": \"ORTHOGONAL_DECOMP\"}", "ORTHOGONAL_DECOMP");
    not_theirs("{\"features\": [], \"stength_multiplier\": 2}", "stength_multiplier");
    not_theirs("{\"features\": [{\"layer\": \"a\", \"index\": 1, \"strength\": 1, \"kind\": \"clamp\"}]}", "kind");
    not_theirs("{\"features\": [{\"layer\": \"a\", \"index\": -1, \"strength\": 1}]}", "index");
    not_theirs("{\"features\": [{\"layer\": \"a\", \"index\": 1}]}", "strength");
    not_theirs("{\"modelId\": \"a\", \"features\": [{\"modelId\": \"b\", \"layer\": \"a\", \"index\": 1, "
               "\"strength\": 1}]}",
               "modelId");
    not_theirs("{\"features\": [{\"layer\": \"a\", \"index\": 1, \"strength\": 1e308}], \"strength_multiplier\": 10}",
               "finite");
}

int main(void)
{
    reading();
    round_trip();
    bad_files();
    bad_edits();
    bad_scopes();
    duplicates();
    too_much();
    broken();
    hashes();
    amounts();
    theirs();
    return check_done();
}
