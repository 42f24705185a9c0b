/* cmd_label.c - `lapidary label`: names, notes and lists that a person gives to features, and those of others taken in. */
#include "cli/commands.h"
#include "cli/saes.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct job {
    cli *c;
    cli_sae_choice choice;
    const char *store, *author, *method;
    double score;
    bool has_score, all;
    int place, top, format; /* format 0: by the file's name */
    lp_annotations *a;
    cli_saes saes; /* one, or none */
} job;

/* ---- what was typed ---------------------------------------------------------------------------------------------- */

static lp_status parse_feature(int *out, const job *w, const char *text, lp_error *err)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (errno || end == text || *end || v < 0 || v > INT_MAX)
        return cli_usage(w->c, err, "feature \"%.40s\": a number from 0 on expected", text);
    int d_sae = w->saes.items[0]->d_sae;
    if (v >= d_sae) return lp_fail(err, LP_E_RANGE, "feature %ld: this SAE has 0 to %d", v, d_sae - 1);
    *out = (int)v;
    return LP_OK;
}

/* Opens the SAE that operand `at` names. */
static lp_status take_sae(job *w, int at, lp_error *err)
{
    if (at >= w->c->n_operands) return cli_usage(w->c, err, "of which SAE?");
    w->choice.names = (cli_texts){.items = {w->c->operands[at]}, .n = 1};
    return cli_open_saes(&w->saes, w->c, NULL, &w->choice, err);
}

static lp_status take_feature(int *feature, job *w, int at, lp_error *err)
{
    if (at + 1 >= w->c->n_operands) return cli_usage(w->c, err, "an SAE and the number of its feature expected");
    LP_TRY(take_sae(w, at, err));
    return parse_feature(feature, w, w->c->operands[at + 1], err);
}

static lp_status open_for(job *w, lp_annotations_mode mode, lp_error *err)
{
    LP_TRY(cli_open_annotations(&w->a, &w->choice, mode, err));
    return w->a ? LP_OK : lp_fail(err, LP_E_NOT_FOUND, "no labels yet: lapidary label set SAE INDEX TEXT");
}

/* ---- tables ------------------------------------------------------------------------------------------------------- */

static void put_time(cli *c, int64_t microseconds)
{
    time_t t = (time_t)(microseconds / 1000000);
    struct tm tm;
    char text[32];
    if (gmtime_r(&t, &tm) && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm))
        cli_put_text(c, text);
    else
        cli_put_none(c);
}

static void put_score(cli *c, double score)
{
    if (isnan(score))
        cli_put_none(c);
    else
        cli_put_real(c, score, 6);
}

static void print_labels(cli *c, const lp_annotation_rows *r)
{
    cli_table_begin(c, "sae\tfeature\ttext\tauthor\tmethod\tscore\tcreated\tsae_hash");
    for (size_t i = 0; i < r->n; i++) {
        const lp_annotation *x = &r->items[i];
        cli_put_text(c, x->sae_name);
        cli_put_int(c, x->feature);
        cli_put_text(c, x->text);
        cli_put_text(c, x->author);
        cli_put_text(c, x->method);
        put_score(c, x->score);
        put_time(c, x->created);
        cli_put_text(c, x->sae);
    }
    cli_table_end(c);
}

static void print_list(cli *c, const lp_annotation_rows *r)
{
    cli_table_begin(c, "place\tsae\tfeature\tremark\tsae_hash");
    for (size_t i = 0; i < r->n; i++) {
        const lp_annotation *x = &r->items[i];
        cli_put_int(c, x->id);
        cli_put_text(c, x->sae_name);
        cli_put_int(c, x->feature);
        cli_put_text(c, x->text);
        cli_put_text(c, x->sae);
    }
    cli_table_end(c);
}

static void print_lists(cli *c, const lp_annotation_rows *r)
{
    cli_table_begin(c, "list\tfeatures\tcreated");
    for (size_t i = 0; i < r->n; i++) {
        cli_put_text(c, r->items[i].text);
        cli_put_int(c, r->items[i].feature);
        put_time(c, r->items[i].created);
    }
    cli_table_end(c);
}

/* Of one verb: reads with `st`, prints, frees. */
static lp_status print_rows(job *w, lp_status st, lp_annotation_rows *r,
                            void (*print)(cli *c, const lp_annotation_rows *r))
{
    if (st == LP_OK) print(w->c, r);
    lp_annotation_rows_free(r);
    return st;
}

/* ---- edits -------------------------------------------------------------------------------------------------------- */

/* Ends the edit, or gives it up, and says what it came to. */
static lp_status finish(job *w, lp_status st, const char *what, lp_error *err)
{
    int changes = 0;
    if (st == LP_OK) st = lp_annotations_end(w->a, &changes, err);
    if (st != LP_OK) {
        lp_annotations_give_up(w->a);
        return st;
    }
    if (!changes) lp_log(&w->c->env, LP_INFO, "nothing changed");
    cli_table_begin(w->c, "edit\tchanges");
    cli_put_text(w->c, what);
    cli_put_int(w->c, changes);
    cli_table_end(w->c);
    return LP_OK;
}

typedef lp_status (*edit_fn)(job *w, int feature, lp_error *err);

/* "set 3-lapidary-res-2k 473": what was typed, without free text.  NULL: out of memory. */
static char *name_edit(const cli *c)
{
    bool has_text = strcmp(c->operands[0], "set") == 0 || strcmp(c->operands[0], "note") == 0;
    int n = has_text ? c->n_operands - 1 : c->n_operands < 5 ? c->n_operands : 5;
    char *what = lp_strdup(c->operands[0]);
    for (int i = 1; i < n && what; i++) {
        char *more = lp_format("%s %s", what, c->operands[i]);
        free(what);
        what = more;
    }
    return what;
}

static lp_status edit(job *w, int feature, edit_fn change, lp_error *err)
{
    const lp_sae *s = w->saes.n ? w->saes.items[0] : NULL;
    char *what = name_edit(w->c);
    lp_status st = what ? LP_OK : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = open_for(w, LP_ANNOTATIONS_EDIT, err);
    if (st == LP_OK) st = lp_annotations_begin(w->a, what, err);
    if (st == LP_OK && s) st = lp_annotations_name_sae(w->a, s->hash, s->name, err);
    if (st == LP_OK) st = change(w, feature, err);
    if (w->a) st = finish(w, st, what, err);
    free(what);
    return st;
}

static lp_status put_label(job *w, int feature, lp_error *err)
{
    bool is_note = strcmp(w->c->operands[0], "note") == 0;
    lp_new_label l = {.sae = w->saes.items[0]->hash,
                      .feature = feature,
                      .text = w->c->operands[3],
                      .author = w->author,
                      .method = is_note ? LP_METHOD_NOTE : w->method,
                      .score = w->has_score ? w->score : (double)NAN};
    return is_note ? lp_annotations_add(w->a, &l, err) : lp_annotations_set(w->a, &l, err);
}

static lp_status remove_label(job *w, int feature, lp_error *err)
{
    return lp_annotations_remove(w->a, w->saes.items[0]->hash, feature, w->all ? NULL : w->author, w->method, err);
}

static lp_status put_in_list(job *w, int feature, lp_error *err)
{
    const char *remark = w->c->n_operands > 5 ? w->c->operands[5] : "";
    return lp_annotations_list_put(w->a, w->c->operands[2], w->saes.items[0]->hash, feature, w->place, remark, err);
}

static lp_status take_from_list(job *w, int feature, lp_error *err)
{
    const char *sae = w->saes.n ? w->saes.items[0]->hash : NULL;
    return lp_annotations_list_remove(w->a, w->c->operands[2], sae, feature, err);
}

static bool is_csv(const job *w)
{
    return w->format ? w->format == 1 : lp_ends_in(w->c->operands[1], ".csv");
}

static lp_status take_in(job *w, int unused, lp_error *err)
{
    const char *path = w->c->operands[1];
    const lp_sae *s = w->saes.n ? w->saes.items[0] : NULL;
    int n = 0;
    (void)unused;
    if (is_csv(w)) return lp_annotations_read_csv(w->a, path, s, w->author, &n, err);
    if (!s) return cli_usage(w->c, err, "of which SAE are these?  --sae NAME");
    return lp_annotations_read_neuronpedia(w->a, path, s, &n, err);
}

/* ---- verbs -------------------------------------------------------------------------------------------------------- */

static lp_status set_one(job *w, lp_error *err)
{
    int feature;
    LP_TRY(cli_count_operands(w->c, 4, 4, err));
    LP_TRY(take_feature(&feature, w, 1, err));
    return edit(w, feature, put_label, err);
}

static lp_status remove_one(job *w, lp_error *err)
{
    int feature;
    LP_TRY(cli_count_operands(w->c, 3, 3, err));
    LP_TRY(take_feature(&feature, w, 1, err));
    return edit(w, feature, remove_label, err);
}

static lp_status show(job *w, lp_error *err)
{
    int feature = -1;
    lp_annotation_rows r = {0};
    LP_TRY(cli_count_operands(w->c, 1, 3, err));
    if (w->c->n_operands > 1) LP_TRY(take_sae(w, 1, err));
    if (w->c->n_operands > 2) LP_TRY(parse_feature(&feature, w, w->c->operands[2], err));
    LP_TRY(cli_open_annotations(&w->a, &w->choice, LP_ANNOTATIONS_READ, err));
    const char *sae = w->saes.n ? w->saes.items[0]->hash : NULL;
    return print_rows(w, w->a ? lp_annotations_read(&r, w->a, sae, feature, err) : LP_OK, &r, print_labels);
}

static lp_status search(job *w, lp_error *err)
{
    lp_annotation_rows r = {0};
    char *words = lp_strdup("");
    for (int i = 1; i < w->c->n_operands && words; i++) {
        char *more = lp_format("%s %s", words, w->c->operands[i]);
        free(words);
        words = more;
    }
    lp_status st = words ? open_for(w, LP_ANNOTATIONS_READ, err) : lp_fail(err, LP_E_MEMORY, "out of memory");
    if (st == LP_OK) st = lp_annotations_search(&r, w->a, words, w->top, err);
    free(words);
    return print_rows(w, st, &r, print_labels);
}

static lp_status undo(job *w, lp_error *err)
{
    char *what = NULL;
    LP_TRY(cli_count_operands(w->c, 1, 1, err));
    LP_TRY(open_for(w, LP_ANNOTATIONS_EDIT, err));
    LP_TRY(lp_annotations_undo(w->a, &what, err));
    cli_table_begin(w->c, "undone");
    cli_put_text(w->c, what);
    cli_table_end(w->c);
    free(what);
    return LP_OK;
}

static lp_status lists(job *w, lp_error *err)
{
    cli *c = w->c;
    int feature = -1;
    lp_annotation_rows r = {0};
    const char *verb = c->n_operands > 1 ? c->operands[1] : "show";
    if (strcmp(verb, "show") == 0) {
        LP_TRY(cli_count_operands(c, 1, 3, err));
        LP_TRY(open_for(w, LP_ANNOTATIONS_READ, err));
        if (c->n_operands < 3) return print_rows(w, lp_annotations_read_lists(&r, w->a, err), &r, print_lists);
        return print_rows(w, lp_annotations_read_list(&r, w->a, c->operands[2], err), &r, print_list);
    }
    bool is_add = strcmp(verb, "add") == 0;
    if (!is_add && strcmp(verb, "remove") != 0)
        return cli_usage(c, err, "label list \"%.40s\": expected add, remove or show", verb);
    LP_TRY(cli_count_operands(c, is_add ? 5 : 3, is_add ? 6 : 5, err));
    if (c->n_operands > 3) LP_TRY(take_feature(&feature, w, 3, err));
    return edit(w, feature, is_add ? put_in_list : take_from_list, err);
}

static lp_status import(job *w, lp_error *err)
{
    LP_TRY(cli_count_operands(w->c, 2, 2, err));
    if (w->choice.names.n > 1) return cli_usage(w->c, err, "one SAE at a time");
    if (w->choice.names.n) LP_TRY(cli_open_saes(&w->saes, w->c, NULL, &w->choice, err));
    return edit(w, -1, take_in, err);
}

static lp_status export(job *w, lp_error *err)
{
    lp_annotation_rows r = {0};
    LP_TRY(cli_count_operands(w->c, 2, 2, err));
    LP_TRY(open_for(w, LP_ANNOTATIONS_READ, err));
    if (w->choice.names.n > 1) return cli_usage(w->c, err, "one SAE, or without --sae all");
    if (w->choice.names.n) LP_TRY(cli_open_saes(&w->saes, w->c, NULL, &w->choice, err));
    LP_TRY(lp_annotations_read(&r, w->a, w->saes.n ? w->saes.items[0]->hash : NULL, -1, err));
    lp_status st = lp_annotations_write(&r, w->c->operands[1], !is_csv(w), err);
    if (st == LP_OK) lp_log(&w->c->env, LP_INFO, "%zu labels written to %s", r.n, w->c->operands[1]);
    lp_annotation_rows_free(&r);
    return st;
}

static lp_status backup(job *w, lp_error *err)
{
    LP_TRY(cli_count_operands(w->c, 2, 2, err));
    LP_TRY(open_for(w, LP_ANNOTATIONS_READ, err));
    return lp_annotations_backup(w->a, w->c->operands[1], err);
}

/* ---- the whole ---------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    lp_status (*run)(job *w, lp_error *err);
} verbs[] = {{"set", set_one}, {"note", set_one}, {"show", show},     {"search", search}, {"remove", remove_one},
             {"undo", undo},   {"list", lists},   {"import", import}, {"export", export}, {"backup", backup}};
enum { N_VERBS = sizeof verbs / sizeof *verbs };

static lp_status dispatch(job *w, lp_error *err)
{
    const char *names[N_VERBS + 1] = {0}, *verb = w->c->n_operands ? w->c->operands[0] : "";
    for (int i = 0; i < N_VERBS; i++) {
        if (strcmp(verb, verbs[i].name) == 0) return verbs[i].run(w, err);
        names[i] = verbs[i].name;
    }
    const char *near = *verb ? cli_nearest(verb, names) : NULL;
    return cli_usage(w->c, err,
                     "label \"%.40s\": expected set, note, show, search, remove, undo, list, import, export or "
                     "backup%s%s%s",
                     verb, near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    const char *user = getenv("USER");
    job w = {.c = c, .choice = {.is_unlabelled = true}, .author = user && *user ? user : "me", .top = 50};
    char *path = NULL;
    const cli_option options[] = {
        CLI_SAE_OPTIONS(w.choice),
        {"store", 0, CLI_TEXT, &w.store, "DIR", "the labels of this store, DIR/annotations.sqlite"},
        {"author", 0, CLI_TEXT, &w.author, "NAME", "whose label it is (default: $USER)"},
        {"method", 0, CLI_TEXT, &w.method, "NAME", "what made it (default: person)"},
        {"score", 0, CLI_REAL, &w.score, "X", "how good it is, on whatever scale", .min = -1e300, .max = 1e300,
         .is_given = &w.has_score},
        {"all", 0, CLI_FLAG, &w.all, NULL, "remove: everybody's"},
        {"at", 0, CLI_INT, &w.place, "N", "list add: at this place, from 1 (default: the end)", .min = 1,
         .max = 1 << 30},
        {"top", 'k', CLI_INT, &w.top, "K", "search: at most this many (default 50)", .min = 1, .max = 1 << 20},
        {"as", 0, CLI_CHOICE, &w.format, "auto|csv|jsonl|neuronpedia", "import, export: the format (default: by name)"},
        {0},
    };
    LP_TRY(cli_parse(c, options, argc, argv, err));
    lp_status st = LP_OK;
    if (w.store && w.choice.annotations) return cli_usage(c, err, "--store and --annotations: one of the two");
    if (w.store && !lp_is_dir(w.store)) return lp_fail(err, LP_E_NOT_FOUND, "%s: no such folder", w.store);
    if (w.store) st = lp_annotations_path(&path, w.store, err);
    if (path) w.choice.annotations = path;
    if (st == LP_OK) st = dispatch(&w, err);
    cli_close_saes(&w.saes);
    lp_annotations_close(w.a);
    free(path);
    return st;
}

const cli_command cmd_label = {
    .name = "label",
    .summary = "your own names, notes and lists of features; shown before the shipped ones",
    .operands = "VERB ...",
    .about = "set SAE INDEX TEXT                    names a feature, in place of what you called it before\n"
             "note SAE INDEX TEXT                   a remark beside its name\n"
             "show [SAE [INDEX]], search WORDS      what is there\n"
             "remove SAE INDEX [--all]              your labels of it, or everybody's\n"
             "list add NAME SAE INDEX [REMARK]      an ordered set of features\n"
             "list remove NAME [SAE INDEX], list show [NAME]\n"
             "undo                                  takes the last edit back; again for the one before\n"
             "import FILE [--sae NAME]              CSV (feature, text), or a Neuronpedia export\n"
             "export FILE [--sae NAME]              CSV or JSON lines\n"
             "backup FILE                           a copy of it all\n"
             "Kept in $XDG_DATA_HOME/lapidary/annotations.sqlite (~/.local/share without it), by the hash of the SAE.",
    .run = run,
};
