/* cmd_verify.c - `lapidary verify`: the numbers page.
 *
 *     lapidary verify                                   the goldens of this repository, then the embedded model itself
 *     lapidary verify -m MODEL --reference ref.safetensors     a real checkpoint against Hugging Face
 *
 * Every table is an array of JSON objects first; TSV, Markdown and JSON are three ways to print it.
 */
#include "cli/commands.h"
#include "cli/inputs.h"
#include "core/safetensors.h"
#include "core/verify.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

/* Rows of float32 against transformers' float32 (whose own noise on the goldens is 2e-6), and of bf16 against
 * transformers with linear layers on bf16 inputs, where a rounding may fall the other way.  A deep model has more noise:
 * two implementations in float32 differ by up to 1.2e-5 on 2B (interp-engine's validator). */
static const double golden_bound = 2e-5, golden_fast_bound = 1.0 / 256, reference_bound = 1e-4;

typedef struct job {
    cli *c;
    const char *goldens;
    cli_texts references;
    double bound; /* 0: the default */
    int only;     /* of --only's words */
    int n_tokens;
    bool markdown;
    json_t *sites, *checks;
    char failure[256]; /* the first thing that was not as it should be */
} job;

enum { ALL, REFERENCE, ITSELF };

static lp_status no_memory(lp_error *err)
{
    return lp_fail(err, LP_E_MEMORY, "out of memory");
}

/* ---- tables --------------------------------------------------------------------------------------------------- */

static void put_cell(cli *c, const json_t *v)
{
    if (json_is_integer(v))
        cli_put_int(c, json_integer_value(v));
    else if (json_is_real(v))
        cli_put_real(c, json_real_value(v), 3);
    else
        cli_put_text(c, json_string_value(v));
}

static void print_tsv(cli *c, json_t *rows)
{
    char head[512] = "";
    const char *key;
    json_t *row, *v;
    size_t i;
    json_object_foreach(json_array_get(rows, 0), key, v)
    {
        if (head[0]) strcat(head, "\t");
        strcat(head, key);
    }
    cli_table_begin(c, head);
    json_array_foreach(rows, i, row) json_object_foreach(row, key, v) put_cell(c, v);
    cli_table_end(c);
}

static void print_markdown(json_t *rows)
{
    const char *key;
    json_t *row, *v;
    size_t i;
    putchar('|');
    json_object_foreach(json_array_get(rows, 0), key, v) printf(" %s |", key);
    printf("\n|");
    json_object_foreach(json_array_get(rows, 0), key, v) printf(json_is_string(v) || json_is_null(v) ? "---|" : "--:|");
    putchar('\n');
    json_array_foreach(rows, i, row)
    {
        putchar('|');
        json_object_foreach(row, key, v)
        {
            if (json_is_integer(v))
                printf(" %" JSON_INTEGER_FORMAT " |", json_integer_value(v));
            else if (json_is_real(v))
                printf(" %.2g |", json_real_value(v));
            else
                printf(" %s |", json_is_string(v) ? json_string_value(v) : "");
        }
        putchar('\n');
    }
}

static void print_tables(job *j)
{
    json_t *tables[] = {j->sites, j->checks};
    for (int i = 0, n = 0; i < 2; i++) {
        if (!json_array_size(tables[i])) continue;
        if (n++) putchar('\n');
        if (j->markdown)
            print_markdown(tables[i]);
        else
            print_tsv(j->c, tables[i]);
    }
}

/* ---- against a reference -------------------------------------------------------------------------------------- */

static lp_status add_sites(job *j, const char *reference, const char *arithmetic, const lp_errors *e, double bound,
                           lp_error *err)
{
    for (int i = 0; i < LP_N_SITES; i++) {
        const lp_site_errors *s = &e->site[i];
        if (!s->n) continue;
        json_t *row = json_object();
        int bad = json_object_set_new(row, "reference", json_string(reference));
        bad |= json_object_set_new(row, "arithmetic", json_string(arithmetic));
        bad |= json_object_set_new(row, "site", json_string(lp_site_name((lp_site)i)));
        bad |= json_object_set_new(row, "rows", json_integer((json_int_t)s->n));
        bad |= json_object_set_new(row, "median", cli_json_real(lp_site_errors_median(s)));
        bad |= json_object_set_new(row, "worst", cli_json_real(s->worst));
        bad |= json_object_set_new(row, "bound", bound > 0 ? json_real(bound) : json_null());
        bad |= json_object_set_new(row, "worst_in", json_string(s->worst_in));
        bad |= json_object_set_new(row, "layer", s->worst_layer < 0 ? json_null() : json_integer(s->worst_layer));
        bad |= json_object_set_new(row, "row", json_integer(s->worst_pos));
        if (json_array_append_new(j->sites, row) || bad) return no_memory(err);
        if (bound > 0 && !(s->worst <= bound) && !j->failure[0])
            snprintf(j->failure, sizeof j->failure, "%s (%s): %.2e off in %s, layer %d, row %d; at most %.1e is right",
                     lp_site_name((lp_site)i), arithmetic, s->worst, s->worst_in, s->worst_layer, s->worst_pos, bound);
    }
    return LP_OK;
}

/* Prompts PREFIX"p0.", PREFIX"p1.", ... of the file; *n says how many there were. */
static lp_status measure_prompts(lp_errors *e, int *n, const char *label, const lp_model *m, const lp_tensors *t,
                                 const char *prefix, const lp_session_options *o, const lp_env *env, lp_error *err)
{
    for (*n = 0;; ++*n) {
        char name[32], first[64], where[64];
        snprintf(name, sizeof name, "%sp%d.", prefix, *n);
        snprintf(first, sizeof first, "p%d.ids", *n);
        if (!lp_tensors_find(t, first)) return LP_OK;
        snprintf(where, sizeof where, "%.40s p%d", label, *n);
        LP_TRY(lp_errors_measure(e, where, m, t, first, name, o, env, err));
    }
}

/* One folder of the goldens: a checkpoint and expect.safetensors (make_goldens.py says what is in it). */
static lp_status measure_golden(job *j, const char *name, lp_errors *exact, lp_errors *fast, lp_error *err)
{
    char *dir = lp_path_join(j->goldens, name), *file = dir ? lp_path_join(dir, "expect.safetensors") : NULL;
    lp_model *m = NULL;
    lp_tensors t = {0};
    lp_env env = j->c->env;
    int n = 0;
    env.progress = NULL;
    env.log = NULL; /* a dozen small models: their notes are of no interest here */
    lp_status st = file ? LP_OK : no_memory(err);
    if (st != LP_OK || !lp_is_file(file)) goto out;
    if ((st = lp_safetensors_open(&t, file, &env, err)) != LP_OK) goto out;
    if ((st = lp_model_open(&m, dir, NULL, &env, err)) != LP_OK) goto out;
    st = measure_prompts(exact, &n, name, m, &t, "", &(lp_session_options){0}, &env, err);
    if (st != LP_OK || !lp_tensors_find(&t, "fast.p0.logits")) goto out;
    st = measure_prompts(fast, &n, name, m, &t, "fast.", &(lp_session_options){.arithmetic = LP_FAST}, &env, err);
out:
    lp_model_close(m);
    lp_tensors_clear(&t);
    free(file);
    free(dir);
    return st;
}

static int not_hidden(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

static lp_status measure_goldens(job *j, lp_error *err)
{
    struct dirent **list = NULL;
    lp_errors exact = {0}, fast = {0};
    int n = scandir(j->goldens, &list, not_hidden, alphasort);
    if (n < 0) return lp_fail(err, LP_E_NOT_FOUND, "%s: no goldens there; --goldens DIR names them", j->goldens);
    lp_status st = LP_OK;
    for (int i = 0; i < n; i++) {
        lp_progress(&j->c->env, "comparing with goldens", i, n);
        if (st == LP_OK) st = measure_golden(j, list[i]->d_name, &exact, &fast, err);
        free(list[i]);
    }
    lp_progress(&j->c->env, "comparing with goldens", n, n);
    free(list);
    if (st == LP_OK) st = add_sites(j, "goldens", "exact", &exact, j->bound > 0 ? j->bound : golden_bound, err);
    if (st == LP_OK) st = add_sites(j, "goldens", "fast", &fast, golden_fast_bound, err);
    if (st == LP_OK && !json_array_size(j->sites))
        st = lp_fail(err, LP_E_NOT_FOUND, "%s: no folder with expect.safetensors", j->goldens);
    lp_errors_clear(&exact);
    lp_errors_clear(&fast);
    return st;
}

/* Files of make_reference.py: one prompt each, without a prefix; or of the goldens' form. */
static lp_status measure_references(job *j, const lp_model *m, lp_error *err)
{
    const cli *c = j->c;
    lp_errors e = {0};
    lp_session_options o = {.arithmetic = c->arithmetic, .wave = c->wave};
    lp_status st = LP_OK;
    for (int i = 0; i < j->references.n && st == LP_OK; i++) {
        const char *path = j->references.items[i], *slash = strrchr(path, '/'), *label = slash ? slash + 1 : path;
        lp_tensors t = {0};
        int n = 0;
        st = lp_safetensors_open(&t, path, &c->env, err);
        if (st == LP_OK && lp_tensors_find(&t, "ids"))
            st = lp_errors_measure(&e, label, m, &t, "ids", "", &o, &c->env, err);
        else if (st == LP_OK && (st = measure_prompts(&e, &n, label, m, &t, "", &o, &c->env, err)) == LP_OK && !n)
            st = lp_fail(err, LP_E_NOT_FOUND, "%s: no tensor \"ids\"; is it from make_reference.py?", path);
        lp_tensors_clear(&t);
    }
    /* Fast arithmetic is not float32: how far it is off is worth printing, but nothing says how far is right. */
    double bound = j->bound > 0 ? j->bound : c->arithmetic == LP_FAST ? 0 : reference_bound;
    if (st == LP_OK) st = add_sites(j, "given", c->arithmetic == LP_FAST ? "fast" : "exact", &e, bound, err);
    lp_errors_clear(&e);
    return st;
}

/* ---- against itself ------------------------------------------------------------------------------------------- */

static lp_status add_checks(job *j, const char *arithmetic, const lp_check *checks, int n, lp_error *err)
{
    for (int i = 0; i < n; i++) {
        json_t *row = json_object();
        int bad = json_object_set_new(row, "check", json_string(checks[i].name));
        bad |= json_object_set_new(row, "arithmetic", json_string(arithmetic));
        bad |= json_object_set_new(row, "floats", json_integer((json_int_t)checks[i].floats));
        bad |= json_object_set_new(row, "result", json_string(checks[i].same ? "same bits" : "DIFFERENT"));
        bad |= json_object_set_new(row, "difference", checks[i].same ? json_null() : json_string(checks[i].difference));
        if (json_array_append_new(j->checks, row) || bad) return no_memory(err);
        if (!checks[i].same && !j->failure[0])
            snprintf(j->failure, sizeof j->failure, "%s (%s) changes bits: %s", checks[i].name, arithmetic,
                     checks[i].difference);
    }
    return LP_OK;
}

static lp_status check_itself(job *j, const lp_model *m, lp_error *err)
{
    lp_check checks[LP_MAX_CHECKS];
    int n = j->n_tokens, n_checks = 0, most = m->config.max_positions - 2;
    if (n > most) n = most;
    int *ids = lp_calloc((size_t)n, sizeof *ids);
    if (!ids) return no_memory(err);
    uint32_t s = 3;
    for (int i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        ids[i] = i == 0 && m->config.bos >= 0 ? m->config.bos : (int)((s >> 8) % (uint32_t)m->config.vocab);
    }
    lp_status st = LP_OK;
    for (int a = 0; a < 2 && st == LP_OK; a++) {
        lp_session_options o = {.arithmetic = a ? LP_FAST : LP_EXACT, .wave = j->c->wave};
        lp_log(&j->c->env, LP_INFO, "the same %d tokens in many ways, %s arithmetic", n, a ? "fast" : "exact");
        st = lp_verify_itself(checks, &n_checks, m, ids, n, &o, &j->c->env, err);
        if (st == LP_OK) st = add_checks(j, a ? "fast" : "exact", checks, n_checks, err);
    }
    free(ids);
    return st;
}

/* ---- the command ---------------------------------------------------------------------------------------------- */

static lp_status with_model(job *j, lp_error *err)
{
    char *name = NULL;
    lp_model *m = NULL;
    lp_status st = cli_model_name(&name, j->c, err);
    if (st == LP_OK) st = lp_model_open(&m, name, NULL, &j->c->env, err);
    if (st == LP_OK && j->references.n) st = measure_references(j, m, err);
    if (st == LP_OK && j->only != REFERENCE) st = check_itself(j, m, err);
    lp_model_close(m);
    free(name);
    return st;
}

static lp_status verify(job *j, lp_error *err)
{
    cli *c = j->c;
    if (!c->model && !j->references.n && j->only != ITSELF) LP_TRY(measure_goldens(j, err));
    if (c->model || j->references.n || j->only != REFERENCE) LP_TRY(with_model(j, err));
    if (c->json)
        LP_TRY(cli_print_json(json_pack("{s:s, s:s, s:O, s:O}", "version", LP_VERSION, "kernels",
                                        c->env.kernels ? c->env.kernels->name : lp_kernels_best()->name, "sites",
                                        j->sites, "checks", j->checks),
                              err));
    else
        print_tables(j);
    return j->failure[0] ? lp_fail(err, LP_E_RANGE, "%s", j->failure) : LP_OK;
}

static lp_status run(cli *c, int argc, char **argv, lp_error *err)
{
    job j = {.c = c, .goldens = LP_SOURCE_DIR "/tests/goldens/models", .n_tokens = 24};
    const cli_option options[] = {
        {"reference", 'r', CLI_TEXTS, &j.references, "FILE",
         "made by tests/goldens/make_reference.py; may be repeated"},
        {"goldens", 0, CLI_TEXT, &j.goldens, "DIR", "folders with expect.safetensors (default: the repository's)"},
        {"bound", 0, CLI_REAL, &j.bound, "X", "largest error allowed (default 2e-5 for goldens, 1e-4 for --reference)",
         .min = 0, .max = 1},
        {"only", 0, CLI_CHOICE, &j.only, "all|reference|itself", "half of the work (default all)"},
        {"tokens", 'n', CLI_INT, &j.n_tokens, "N", "tokens to compare the model with itself on (default 24)", .min = 4,
         .max = 8190},
        {"markdown", 0, CLI_FLAG, &j.markdown, NULL, "print Markdown tables, to be published"},
        {0},
    };
    LP_TRY(cli_parse(c, options, argc, argv, err));
    LP_TRY(cli_count_operands(c, 0, 0, err));
    if (j.only == REFERENCE && c->model && !j.references.n)
        return cli_usage(c, err, "-m with --only reference needs --reference FILE");
    j.sites = json_array();
    j.checks = json_array();
    lp_status st = j.sites && j.checks ? verify(&j, err) : no_memory(err);
    json_decref(j.sites);
    json_decref(j.checks);
    return st;
}

const cli_command cmd_verify = {
    .name = "verify",
    .summary = "Measure every site against a reference, and the model against itself bit for bit",
    .about =
        "Errors are ||a - b|| / ||b|| per row: the worst and the median of each site over all layers and prompts.\n"
        "Without -m: the goldens (Hugging Face transformers, eager, float32, on small random models), then the\n"
        "embedded model against itself.  With -m: the references given, then that model against itself: hooks,\n"
        "cuts, threads, kernel tables, rewinds and forks must not change a bit.  Exit status 1 if anything is off.",
    .run = run,
};
