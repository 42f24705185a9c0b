/* annotations_edit.c - edits, each a transaction whose changeset is kept, and undo; see annotations.h. */
#include "store/annotations_parts.h"

#include "core/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* ---- edits -------------------------------------------------------------------------------------------------------- */

static lp_status watch(lp_annotations *a, lp_error *err)
{
    if (sqlite3session_create(a->db, "main", &a->session) != SQLITE_OK ||
        sqlite3session_attach(a->session, "label") != SQLITE_OK ||
        sqlite3session_attach(a->session, "list_item") != SQLITE_OK)
        return lp_fail(err, LP_E_MEMORY, "%s: out of memory", a->path);
    return LP_OK;
}

lp_status lp_annotations_begin(lp_annotations *a, const char *what, lp_error *err)
{
    if (a->session) return lp_fail(err, LP_E_RANGE, "%s: an edit is open already", a->path);
    LP_TRY(lp_annotations_run(a, err, "BEGIN IMMEDIATE", ""));
    a->what = lp_strdup(what);
    lp_status st = a->what ? watch(a, err) : lp_fail(err, LP_E_MEMORY, "%s: out of memory", a->path);
    if (st != LP_OK) lp_annotations_give_up(a);
    return st;
}

void lp_annotations_give_up(lp_annotations *a)
{
    if (!a || !a->db) return;
    if (a->session) sqlite3session_delete(a->session);
    a->session = NULL;
    free(a->what);
    a->what = NULL;
    if (!sqlite3_get_autocommit(a->db)) sqlite3_exec(a->db, "ROLLBACK", NULL, NULL, NULL);
}

static int count_changes(int n, void *changes)
{
    sqlite3_changeset_iter *it;
    int count = 0;
    if (sqlite3changeset_start(&it, n, changes) != SQLITE_OK) return 0;
    while (sqlite3changeset_next(it) == SQLITE_ROW) count++;
    sqlite3changeset_finalize(it);
    return count;
}

/* undoes 0: an edit of its own */
static lp_status end(lp_annotations *a, int64_t undoes, int *changes, lp_error *err)
{
    void *blob = NULL;
    int n = 0;
    if (sqlite3session_changeset(a->session, &n, &blob) != SQLITE_OK)
        return lp_fail(err, LP_E_MEMORY, "%s: out of memory", a->path);
    int count = count_changes(n, blob);
    lp_status st = LP_OK;
    if (count && undoes)
        st = lp_annotations_run(a, err, "INSERT INTO edit(what, created, undoes, changes) VALUES(?, ?, ?, ?)", "tiib",
                                a->what, now(), undoes, blob, n);
    else if (count)
        st = lp_annotations_run(a, err, "INSERT INTO edit(what, created, changes) VALUES(?, ?, ?)", "tib", a->what,
                                now(), blob, n);
    sqlite3_free(blob);
    if (st == LP_OK) st = lp_annotations_run(a, err, "COMMIT", "");
    if (st == LP_OK && changes) *changes = count;
    return st;
}

lp_status lp_annotations_end(lp_annotations *a, int *changes, lp_error *err)
{
    lp_status st = end(a, 0, changes, err);
    lp_annotations_give_up(a); /* nothing to give up after a COMMIT */
    return st;
}

/* ---- undo --------------------------------------------------------------------------------------------------------- */

/* SQLite reads past the end of a changeset that lies about its lengths, or for ever [session/sqlite3session.c], so what
 * somebody's file holds is walked through first.  A group: 'T', the number of columns, which of them are the key, the
 * table's name and a NUL; then rows: the operation, a flag, and the record before, after, or both. */
typedef struct walk {
    const unsigned char *at, *end;
} walk;

static bool take_varint(walk *w, uint64_t *v) /* at most 32 bits of it */
{
    *v = 0;
    for (int i = 0; i < 5 && w->at < w->end; i++) {
        unsigned char c = *w->at++;
        *v = *v << 7 | (c & 0x7f);
        if (!(c & 0x80)) return true;
    }
    return false;
}

static bool take_bytes(walk *w, uint64_t n)
{
    if (n > (uint64_t)(w->end - w->at)) return false;
    w->at += n;
    return true;
}

static bool take_record(walk *w, int n_columns)
{
    for (int i = 0; i < n_columns; i++) {
        uint64_t n = 0;
        if (w->at == w->end) return false;
        unsigned char type = *w->at++; /* 0 unchanged, 5 NULL */
        bool good = type == 0 || type == SQLITE_NULL ||
                    ((type == SQLITE_INTEGER || type == SQLITE_FLOAT) && take_bytes(w, 8)) ||
                    ((type == SQLITE_TEXT || type == SQLITE_BLOB) && take_varint(w, &n) && take_bytes(w, n));
        if (!good) return false;
    }
    return true;
}

static bool take_group(walk *w)
{
    static const struct {
        char name[12];
        int n_columns;
    } tables[] = {{"label", 8}, {"list_item", 7}};
    uint64_t n = 0;
    if (w->at == w->end || *w->at++ != 'T' || !take_varint(w, &n) || !take_bytes(w, n)) return false;
    int table = 0;
    size_t name = 0;
    for (; table < 2; table++) {
        name = strlen(tables[table].name) + 1;
        bool fits = name <= (size_t)(w->end - w->at) && memcmp(w->at, tables[table].name, name) == 0;
        if (fits && n == (uint64_t)tables[table].n_columns) break;
    }
    if (table == 2 || !take_bytes(w, name)) return false;
    while (w->at < w->end && *w->at != 'T') {
        unsigned char op = *w->at;
        if (op != SQLITE_INSERT && op != SQLITE_DELETE && op != SQLITE_UPDATE) return false;
        if (!take_bytes(w, 2) || !take_record(w, (int)n) || (op == SQLITE_UPDATE && !take_record(w, (int)n)))
            return false;
    }
    return true;
}

static bool is_sound(const void *blob, int n)
{
    walk w = {blob, (const unsigned char *)blob + n};
    while (w.at < w.end)
        if (!take_group(&w)) return false;
    return n > 0;
}

static int only_ours(void *unused, const char *table)
{
    (void)unused;
    return strcmp(table, "label") == 0 || strcmp(table, "list_item") == 0;
}

static int never(void *unused, int why, sqlite3_changeset_iter *it)
{
    (void)unused, (void)why, (void)it;
    return SQLITE_CHANGESET_ABORT;
}

static lp_status apply_backwards(const lp_annotations *a, const void *blob, int n, lp_error *err)
{
    void *inverse = NULL;
    if (!is_sound(blob, n)) return lp_fail(err, LP_E_FORMAT, "%s: what the last edit changed is damaged", a->path);
    int n_inverse = 0, code = sqlite3changeset_invert(n, blob, &n_inverse, &inverse);
    if (code == SQLITE_OK) code = sqlite3changeset_apply(a->db, n_inverse, inverse, only_ours, never, NULL);
    sqlite3_free(inverse);
    if (code == SQLITE_OK) return LP_OK;
    if (code == SQLITE_NOMEM) return lp_fail(err, LP_E_MEMORY, "%s: out of memory", a->path);
    return lp_fail(err, LP_E_FORMAT,
                   "%s: the last edit cannot be taken back: what it changed was changed by other means", a->path);
}

static lp_status undo(lp_annotations *a, lp_error *err)
{
    static const char sql[] = "SELECT edit_id, what, changes FROM edit WHERE undoes IS NULL AND edit_id NOT IN"
                              " (SELECT undoes FROM edit WHERE undoes IS NOT NULL) ORDER BY edit_id DESC LIMIT 1";
    sqlite3_stmt *s;
    bool has;
    LP_TRY(lp_annotations_prepare(&s, a, err, sql, ""));
    lp_status st = lp_annotations_step(a, s, &has, err);
    if (st == LP_OK && !has) st = lp_fail(err, LP_E_NOT_FOUND, "%s: nothing to undo", a->path);
    int64_t id = st == LP_OK ? sqlite3_column_int64(s, 0) : 0;
    free(a->what);
    a->what = st == LP_OK ? lp_strdup((const char *)sqlite3_column_text(s, 1)) : NULL;
    if (st == LP_OK && !a->what) st = lp_fail(err, LP_E_MEMORY, "%s: out of memory", a->path);
    if (st == LP_OK) st = apply_backwards(a, sqlite3_column_blob(s, 2), sqlite3_column_bytes(s, 2), err);
    sqlite3_finalize(s);
    return st == LP_OK ? end(a, id, NULL, err) : st;
}

lp_status lp_annotations_undo(lp_annotations *a, char **what, lp_error *err)
{
    LP_TRY(lp_annotations_begin(a, "undo", err));
    lp_status st = undo(a, err);
    *what = st == LP_OK ? lp_strdup(a->what) : NULL;
    lp_annotations_give_up(a);
    return st == LP_OK && !*what ? lp_fail(err, LP_E_MEMORY, "out of memory") : st;
}

/* ---- what may be written ------------------------------------------------------------------------------------------ */

static lp_status check_text(const char *what, const char *text, bool may_be_empty, lp_error *err)
{
    size_t n = strlen(text);
    if (!n && !may_be_empty) return lp_fail(err, LP_E_RANGE, "an empty %s", what);
    if (n > LP_LABEL_BYTES) return lp_fail(err, LP_E_RANGE, "a %s of %zu bytes; at most %d", what, n, LP_LABEL_BYTES);
    for (size_t i = 0; i < n;) {
        int len = lp_utf8_next(text + i, n - i);
        unsigned char c = (unsigned char)text[i];
        if (len <= 0) return lp_fail(err, LP_E_RANGE, "the %s is not UTF-8 at byte %zu", what, i);
        if ((c < 0x20 && c != '\t' && c != '\n') || c == 0x7f)
            return lp_fail(err, LP_E_RANGE, "the %s has a control character (0x%02x) at byte %zu", what, c, i);
        i += (size_t)len;
    }
    return LP_OK;
}

static lp_status check_feature(const char *sae, int feature, lp_error *err)
{
    if (strlen(sae) != 32 || strspn(sae, "0123456789abcdef") != 32)
        return lp_fail(err, LP_E_RANGE, "\"%.40s\" is no hash of an SAE: 32 hex digits expected", sae);
    return feature >= 0 ? LP_OK : lp_fail(err, LP_E_RANGE, "feature %d: a number from 0 on expected", feature);
}

static lp_status check_label(const lp_new_label *l, lp_error *err)
{
    LP_TRY(check_feature(l->sae, l->feature, err));
    LP_TRY(check_text("label", l->text, false, err));
    LP_TRY(check_text("author", l->author, false, err));
    if (l->method) LP_TRY(check_text("method", l->method, false, err));
    return isinf(l->score) ? lp_fail(err, LP_E_RANGE, "an infinite score") : LP_OK;
}

/* ---- labels ------------------------------------------------------------------------------------------------------- */

lp_status lp_annotations_name_sae(lp_annotations *a, const char *sae, const char *name, lp_error *err)
{
    LP_TRY(check_feature(sae, 0, err));
    LP_TRY(check_text("name", name, false, err));
    return lp_annotations_run(a, err, "INSERT INTO sae VALUES(?1, ?2) ON CONFLICT DO UPDATE SET name = ?2", "tt", sae,
                              name);
}

lp_status lp_annotations_add(lp_annotations *a, const lp_new_label *l, lp_error *err)
{
    LP_TRY(check_label(l, err));
    return lp_annotations_run(a, err,
                              "INSERT INTO label(sae, feature, text, author, method, score, created)"
                              " VALUES(?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                              "titttri", l->sae, (int64_t)l->feature, l->text, l->author,
                              l->method ? l->method : LP_METHOD_PERSON, l->score, l->created ? l->created : now());
}

lp_status lp_annotations_set(lp_annotations *a, const lp_new_label *l, lp_error *err)
{
    LP_TRY(check_label(l, err));
    LP_TRY(lp_annotations_remove(a, l->sae, l->feature, l->author, l->method ? l->method : LP_METHOD_PERSON, err));
    return lp_annotations_add(a, l, err);
}

lp_status lp_annotations_remove(lp_annotations *a, const char *sae, int feature, const char *author, const char *method,
                                lp_error *err)
{
    LP_TRY(check_feature(sae, feature, err));
    return lp_annotations_run(a, err,
                              "DELETE FROM label WHERE sae = ?1 AND feature = ?2 AND author = ifnull(?3, author)"
                              " AND method = ifnull(?4, method)",
                              "titt", sae, (int64_t)feature, author, method);
}

/* ---- lists -------------------------------------------------------------------------------------------------------- */

lp_status lp_annotations_list_put(lp_annotations *a, const char *list, const char *sae, int feature, int place,
                                  const char *remark, lp_error *err)
{
    LP_TRY(check_text("list's name", list, false, err));
    LP_TRY(check_text("remark", remark, true, err));
    LP_TRY(lp_annotations_list_remove(a, list, sae, feature, err));
    if (place > 0)
        LP_TRY(lp_annotations_run(a, err, "UPDATE list_item SET place = place + 1 WHERE list = ? AND place >= ?", "ti",
                                  list, (int64_t)place));
    return lp_annotations_run(a, err,
                              "INSERT INTO list_item(list, place, sae, feature, remark, created)"
                              " SELECT ?1, min(iif(?2, ?2, 1 << 31), 1 + ifnull(max(place), 0)), ?3, ?4, ?5, ?6"
                              " FROM list_item WHERE list = ?1",
                              "tititi", list, (int64_t)place, sae, (int64_t)feature, remark, now());
}

/* Places stay 1, 2, 3 ... */
lp_status lp_annotations_list_remove(lp_annotations *a, const char *list, const char *sae, int feature, lp_error *err)
{
    if (!sae) return lp_annotations_run(a, err, "DELETE FROM list_item WHERE list = ?", "t", list);
    LP_TRY(check_feature(sae, feature, err));
    LP_TRY(lp_annotations_run(a, err,
                              "UPDATE list_item SET place = place - 1 WHERE list = ?1 AND place >"
                              " (SELECT place FROM list_item WHERE list = ?1 AND sae = ?2 AND feature = ?3)",
                              "tti", list, sae, (int64_t)feature));
    return lp_annotations_run(a, err, "DELETE FROM list_item WHERE list = ? AND sae = ? AND feature = ?", "tti", list,
                              sae, (int64_t)feature);
}
