/* GGUF: files by the gguf package are read, split ones too; hostile ones get one line and the right status; ours come
 * back. With --write DIR it only writes DIR/ours.gguf, for the package's reader (goldens/make_format_goldens.py). */
#include "core/gguf.h"
#include "core/quant.h"

#include "tests/bytes.h"
#include "tests/check.h"

static char dir[] = "/tmp/lp_gguf_XXXXXX";

/* ---- files by the gguf package ------------------------------------------------------------------------------- */

static bool is_text(const char *s, size_t n, const char *want)
{
    return n == strlen(want) && memcmp(s, want, n) == 0;
}

static void check_scalars(const lp_gguf *g)
{
    static const struct {
        const char *key;
        int64_t want;
    } ints[] = {{"t.u8", 200},           {"t.i8", -100},         {"t.u16", 60000},       {"t.i16", -30000},
                {"t.u32", 4000000000ll}, {"t.i32", -2000000000}, {"t.i64", -(1ll << 62)}};
    int64_t v;
    double d;
    bool b;
    const char *s;
    size_t n;
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        CHECK(lp_gguf_int(g, ints[i].key, &v) && v == ints[i].want);
        CHECK(!lp_gguf_float(g, ints[i].key, &d) && !lp_gguf_bool(g, ints[i].key, &b));
        CHECK(!lp_gguf_string(g, ints[i].key, &s, &n));
    }
    CHECK(lp_gguf_has(g, "t.u64") && !lp_gguf_int(g, "t.u64", &v)); /* 2^63 + 5 does not fit */
    CHECK(lp_gguf_float(g, "t.f32", &d) && d == 0.15625);
    CHECK(lp_gguf_float(g, "t.f64", &d) && d == 1.0 / 3);
    CHECK(lp_gguf_bool(g, "t.bool", &b) && b);
    CHECK(lp_gguf_string(g, "t.string", &s, &n) && is_text(s, n, "caf\xc3\xa9 \xe2\x96\x81\xe4\xb8\xad"));
    CHECK(lp_gguf_string(g, "t.empty", &s, &n) && n == 0);
    CHECK(lp_gguf_string(g, "general.architecture", &s, &n) && is_text(s, n, "gemma2"));
    CHECK(!lp_gguf_has(g, "t.none") && !lp_gguf_has(g, "t.u") && !lp_gguf_has(g, "t.u88") && !lp_gguf_has(g, ""));
    CHECK(!lp_gguf_int(g, "t.f32", &v) && !lp_gguf_int(g, "t.bool", &v) && !lp_gguf_int(g, "t.string", &v));
    CHECK(!lp_gguf_int(g, "a.i32", &v) && !lp_gguf_string(g, "a.string", &s, &n) && !lp_gguf_float(g, "a.f32", &d));
}

static void check_arrays(const lp_gguf *g)
{
    static const char *const strings[] = {"", "a", "\xe2\x96\x81the", "<0x0A>"};
    lp_gguf_type type;
    int64_t v;
    double d;
    const char *s;
    size_t n;
    CHECK(lp_gguf_array(g, "a.string", &type, &n) && type == LP_GGUF_STRING && n == 4);
    for (size_t i = 0; i < 4; i++) CHECK(lp_gguf_array_string(g, "a.string", i, &s, &n) && is_text(s, n, strings[i]));
    CHECK(!lp_gguf_array_string(g, "a.string", 4, &s, &n) && !lp_gguf_array_string(g, "a.i32", 0, &s, &n));
    CHECK(!lp_gguf_array_int(g, "a.string", 0, &v) && !lp_gguf_array_float(g, "a.string", 0, &d));
    CHECK(lp_gguf_array(g, "a.f32", &type, &n) && type == LP_GGUF_F32 && n == 3);
    CHECK(lp_gguf_array_float(g, "a.f32", 1, &d) && d == -1000.0 && !lp_gguf_array_float(g, "a.f32", 3, &d));
    CHECK(!lp_gguf_array_int(g, "a.f32", 0, &v));
    CHECK(lp_gguf_array_int(g, "a.i32", 1, &v) && v == -2);
    CHECK(lp_gguf_array_int(g, "a.bool", 1, &v) && v == 0 && lp_gguf_array_int(g, "a.bool", 2, &v) && v == 1);
    CHECK(lp_gguf_array_int(g, "a.u8", 1, &v) && v == 255);
    CHECK(lp_gguf_array_int(g, "a.i64", 0, &v) && v == -(1ll << 40));
    CHECK(lp_gguf_array_float(g, "a.f64", 0, &d) && d == 0.1);
    CHECK(!lp_gguf_array(g, "t.u8", &type, &n) && !lp_gguf_array_int(g, "t.u8", 0, &v));
}

static void check_tensors(const lp_gguf *g)
{
    const lp_tensors *t = lp_gguf_tensors(g);
    CHECK(t->n == 8);
    check_tensor(t, 0, "token_embd.weight", "Q4_K", "[3, 256]", 255);
    check_tensor(t, 1, "blk.0.attn_norm.weight", "F32", "[7]", 255);
    check_tensor(t, 2, "blk.0.attn_q.weight", "Q8_0", "[2, 64]", 255);
    check_tensor(t, 3, "blk.0.attn_k.weight", "F16", "[3, 5]", 255);
    check_tensor(t, 4, "blk.0.attn_v.weight", "BF16", "[1, 9]", 255);
    check_tensor(t, 5, "blk.0.ffn_up.weight", "Q6_K", "[2, 256]", 255);
    check_tensor(t, 6, "blk.0.ffn_down.weight", "IQ4_NL", "[2, 32]", 255);
    check_tensor(t, 7, "cube", "F32", "[2, 3, 4]", 255);
    const lp_tensor *odd = lp_tensors_find(t, "blk.0.ffn_down.weight"), *q = lp_tensors_find(t, "token_embd.weight");
    CHECK(odd && odd->type == LP_OTHER && q && q->type == LP_Q4_K);
}

static void test_golden(void)
{
    static const char *const paths[] = {
        LP_TESTS_DIR "/goldens/all.gguf", LP_TESTS_DIR "/goldens/split-00001-of-00003.gguf",
        LP_TESTS_DIR "/goldens/split-00002-of-00003.gguf", LP_TESTS_DIR "/goldens/split-00003-of-00003.gguf"};
    for (size_t i = 0; i < 4; i++) {
        lp_gguf *g = NULL;
        lp_error err = {0};
        CHECK(lp_gguf_open(&g, paths[i], &err) == LP_OK);
        CHECK_STR(err.text, "");
        if (!g) continue;
        CHECK(lp_gguf_tensors(g)->n_files == (i ? 3 : 1));
        check_scalars(g);
        check_arrays(g);
        check_tensors(g);
        lp_gguf_close(g);
    }
    lp_gguf_close(NULL);
}

/* ---- hostile files ------------------------------------------------------------------------------------------- */

/* A file being made: bytes are appended, numbers little-endian as the machine has them. */
typedef struct maker {
    uint8_t bytes[4096];
    size_t n;
} maker;

static void raw(maker *m, const void *p, size_t n)
{
    CHECK(n <= sizeof m->bytes - m->n);
    if (n <= sizeof m->bytes - m->n) memcpy(m->bytes + m->n, p, n);
    m->n += n;
}

static void u32(maker *m, uint32_t v)
{
    raw(m, &v, 4);
}

static void u64(maker *m, uint64_t v)
{
    raw(m, &v, 8);
}

static void text(maker *m, const char *s)
{
    u64(m, strlen(s));
    raw(m, s, strlen(s));
}

static maker begin(uint32_t version, uint64_t tensors, uint64_t keys)
{
    maker m = {.n = 0};
    raw(&m, "GGUF", 4);
    u32(&m, version);
    u64(&m, tensors);
    u64(&m, keys);
    return m;
}

static void key_u32(maker *m, const char *key, uint32_t v)
{
    text(m, key);
    u32(m, LP_GGUF_U32);
    u32(m, v);
}

/* An entry of two dimensions. */
static void tensor(maker *m, const char *name, uint64_t ne0, uint64_t ne1, uint32_t type, uint64_t offset)
{
    text(m, name);
    u32(m, 2);
    u64(m, ne0);
    u64(m, ne1);
    u32(m, type);
    u64(m, offset);
}

static void zeros(maker *m, size_t n)
{
    for (size_t i = 0; i < n; i++) raw(m, "", 1);
}

static void check_refused(const maker *m, lp_status st, const char *want)
{
    const char *path = at(dir, "h.gguf");
    lp_gguf *g = NULL;
    lp_error err = {0};
    put_file(path, m->bytes, m->n);
    CHECK(lp_gguf_open(&g, path, &err) == st && !g);
    CHECK(!strchr(err.text, '\n'));
    if (!strstr(err.text, want)) CHECK_STR(err.text, want);
    lp_gguf_close(g);
}

static void check_accepted(const maker *m, size_t n_tensors)
{
    lp_gguf *g = NULL;
    lp_error err = {0};
    put_file(at(dir, "h.gguf"), m->bytes, m->n);
    CHECK(lp_gguf_open(&g, at(dir, "h.gguf"), &err) == LP_OK && lp_gguf_tensors(g)->n == n_tensors);
    CHECK_STR(err.text, "");
    lp_gguf_close(g);
}

static void test_hostile_head(void)
{
    maker m = {.n = 0};
    check_refused(&m, LP_E_FORMAT, "not a GGUF file");
    raw(&m, "GGML\3\0\0\0", 8);
    check_refused(&m, LP_E_FORMAT, "not a GGUF file");
    m = begin(1, 0, 0);
    check_refused(&m, LP_E_UNSUPPORTED, "version 1 is obsolete");
    m = begin(0x03000000, 0, 0);
    check_refused(&m, LP_E_UNSUPPORTED, "big-endian");
    m = begin(4, 0, 0);
    check_refused(&m, LP_E_UNSUPPORTED, "GGUF version 4; 2 and 3 are read");
    m = begin(2, 0, 0);
    check_accepted(&m, 0);
    m = begin(3, 0, UINT64_MAX);
    check_refused(&m, LP_E_FORMAT, "metadata keys");
    m = begin(3, UINT64_MAX, 0);
    check_refused(&m, LP_E_FORMAT, "tensors in one file");
    m = begin(3, 1, 0);
    check_refused(&m, LP_E_FORMAT, "ends inside its header");
    lp_error err = {0};
    lp_gguf *g = NULL;
    CHECK(lp_gguf_open(&g, "/tmp/lp_no_such.gguf", &err) == LP_E_NOT_FOUND);
    CHECK(lp_gguf_open(&g, "/tmp", &err) == LP_E_IO);
}

static void test_hostile_keys(void)
{
    maker m = begin(3, 0, 1);
    text(&m, "");
    check_refused(&m, LP_E_FORMAT, "a metadata key of 0 bytes");
    m = begin(3, 0, 1);
    u64(&m, UINT64_MAX);
    check_refused(&m, LP_E_FORMAT, "a metadata key of 18446744073709551615 bytes");
    static const char *const names[] = {"a\x01", "a\x7f", "a\xff", "caf\xc3\xa9", "a\n"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        m = begin(3, 0, 1);
        key_u32(&m, names[i], 1);
        check_refused(&m, LP_E_FORMAT, "not printable ASCII");
    }
    m = begin(3, 0, 1);
    u64(&m, 2);
    raw(&m, "a\0", 2);
    check_refused(&m, LP_E_FORMAT, "not printable ASCII");
    m = begin(3, 0, 2);
    key_u32(&m, "a", 1);
    key_u32(&m, "a", 1);
    check_refused(&m, LP_E_FORMAT, "key \"a\" occurs twice");
    m = begin(3, 0, 1);
    text(&m, "a");
    u32(&m, LP_GGUF_N_TYPES);
    check_refused(&m, LP_E_FORMAT, "its type is not known");
    m = begin(3, 0, 1);
    text(&m, "a");
    u32(&m, LP_GGUF_ARRAY), u32(&m, LP_GGUF_ARRAY), u64(&m, 1);
    check_refused(&m, LP_E_FORMAT, "arrays of arrays");
    m = begin(3, 0, 1);
    text(&m, "a");
    u32(&m, LP_GGUF_ARRAY), u32(&m, 99), u64(&m, 1);
    check_refused(&m, LP_E_FORMAT, "its type is not known");
    static const lp_gguf_type elements[] = {LP_GGUF_U8, LP_GGUF_F64, LP_GGUF_STRING};
    static const uint64_t counts[] = {9, UINT64_MAX, UINT64_MAX / 8 + 2, 1ull << 61};
    for (size_t i = 0; i < 3; i++)
        for (size_t k = 0; k < 4; k++) {
            m = begin(3, 0, 1);
            text(&m, "a");
            u32(&m, LP_GGUF_ARRAY), u32(&m, elements[i]), u64(&m, counts[k]), u64(&m, 0);
            check_refused(&m, LP_E_FORMAT, "ends inside its header");
        }
    m = begin(3, 0, 1);
    text(&m, "a");
    u32(&m, LP_GGUF_STRING), u64(&m, UINT64_MAX - 3);
    check_refused(&m, LP_E_FORMAT, "ends inside its header");
    m = begin(3, 0, 1);
    text(&m, "a");
    u32(&m, LP_GGUF_ARRAY), u32(&m, LP_GGUF_STRING), u64(&m, 2), text(&m, "xx"), u64(&m, 1);
    check_refused(&m, LP_E_FORMAT, "ends inside its header");
    static const uint32_t alignments[] = {0, 3, 48, 0xffffffff};
    for (size_t i = 0; i < 4; i++) {
        m = begin(3, 0, 1);
        key_u32(&m, "general.alignment", alignments[i]);
        check_refused(&m, LP_E_FORMAT, "general.alignment is not a power of two");
    }
    m = begin(3, 0, 1);
    text(&m, "general.alignment");
    u32(&m, LP_GGUF_U64), u64(&m, 32);
    check_refused(&m, LP_E_FORMAT, "general.alignment is not a power of two");
    m = begin(3, 0, 1);
    key_u32(&m, "general.alignment", 1u << 31); /* far beyond the file, but there is no data */
    check_accepted(&m, 0);
}

static void test_hostile_tensors(void)
{
    static const uint32_t dead[] = {4, 5, 31, 32, 33, 36, 37, 38, 43, 0xffffffff};
    maker m;
    for (size_t i = 0; i < sizeof dead / sizeof *dead; i++) {
        m = begin(3, 1, 0);
        tensor(&m, "a", 32, 1, dead[i], 0);
        check_refused(&m, LP_E_FORMAT, "which is withdrawn or not known");
    }
    static const struct {
        uint64_t ne0, ne1, offset;
        uint32_t type;
        const char *want;
    } cases[] = {
        {8, 2, 0, 0, "ends after the file"},
        {0, 5, 64, 0, "does not begin where the one before"},
        {0, 5, 32, 0, "does not begin where the one before"},
        {0, 5, 1, 0, "does not begin where the one before"},
        {16, 1, 0, 2, "not whole blocks"},
        {255, 2, 0, 12, "not whole blocks"},
        {1ull << 63, 1, 0, 0, "more elements"},
        {1ull << 32, 1ull << 31, 0, 0, "more elements"},
        {1ull << 62, 1, 0, 0, "is too large"},
        {(1ull << 62) - 1, 1, 0, 0, "is too large"}, /* only its padding is */
        {1ull << 31, 1ull << 29, 0, 28, "ends after the file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        m = begin(3, 1, 0);
        tensor(&m, "a", cases[i].ne0, cases[i].ne1, cases[i].type, cases[i].offset);
        check_refused(&m, LP_E_FORMAT, cases[i].want);
    }
    m = begin(3, 1, 0); /* empty, at 0: fine */
    tensor(&m, "a", 0, 5, 0, 0);
    zeros(&m, 32);
    check_accepted(&m, 1);
    m = begin(3, 1, 0);
    text(&m, "a"), u32(&m, 5);
    check_refused(&m, LP_E_FORMAT, "more than 4 dimensions");
    m = begin(3, 1, 0);
    text(&m, "a"), u32(&m, 0), u32(&m, 0), u64(&m, 0), zeros(&m, 64); /* rank 0: one element */
    check_accepted(&m, 1);
    m = begin(3, 2, 0);
    tensor(&m, "a", 1, 1, 0, 0), tensor(&m, "a", 1, 1, 0, 32), zeros(&m, 96);
    check_refused(&m, LP_E_FORMAT, "\"a\" occurs twice");
    m = begin(3, 2, 0);
    tensor(&m, "a", 1, 1, 0, 0), tensor(&m, "b", 1, 1, 0, 4), zeros(&m, 96); /* not padded to 32 */
    check_refused(&m, LP_E_FORMAT, "does not begin where the one before");
    m = begin(3, 2, 1);
    key_u32(&m, "general.alignment", 4);
    tensor(&m, "a", 1, 1, 0, 0), tensor(&m, "b", 1, 1, 0, 4), zeros(&m, 12);
    check_accepted(&m, 2);
    m = begin(3, 1, 0);
    text(&m, "0123456789012345678901234567890123456789012345678901234567890123x");
    check_refused(&m, LP_E_FORMAT, "a tensor name of 65 bytes, 1 to 64 are allowed");
    m = begin(3, 1, 0);
    text(&m, "\x1b[31m");
    check_refused(&m, LP_E_FORMAT, "a tensor name that is not printable ASCII");
}

/* Cut anywhere but in the padding after the last tensor, the golden file is refused. */
static void test_truncated(void)
{
    char *all = NULL;
    size_t n = 0, bad = 0, opened = 0;
    CHECK(lp_read_file(&all, &n, LP_TESTS_DIR "/goldens/all.gguf", 1 << 20, NULL) == LP_OK);
    for (size_t i = 0; i < n; i++) {
        lp_gguf *g = NULL;
        lp_error err = {0};
        put_file(at(dir, "cut.gguf"), all, i);
        lp_status st = lp_gguf_open(&g, at(dir, "cut.gguf"), &err);
        opened += st == LP_OK;
        if (st != LP_OK && (st != LP_E_FORMAT || !err.text[0])) bad++;
        lp_gguf_close(g);
    }
    CHECK(bad == 0 && opened < 32 && n > 2000);
    free(all);
}

/* A sparse file of 1 TiB that claims a string of most of it: refused, not allocated. */
static void test_huge_header(void)
{
    maker m = begin(3, 0, 1);
    text(&m, "a");
    u32(&m, LP_GGUF_STRING), u64(&m, 1ull << 39);
    const char *path = at(dir, "sparse.gguf");
    lp_gguf *g = NULL;
    lp_error err = {0};
    put_file(path, m.bytes, m.n);
    if (truncate(path, (off_t)1 << 40) == 0) { /* a file system may not have such files */
        CHECK(lp_gguf_open(&g, path, &err) == LP_E_FORMAT);
        CHECK(strstr(err.text, "its metadata is larger than 256 MiB"));
    }
    unlink(path);
}

/* ---- split models -------------------------------------------------------------------------------------------- */

static void copy(const char *from, const char *to)
{
    char *all = NULL;
    size_t n = 0;
    CHECK(lp_read_file(&all, &n, from, 1 << 20, NULL) == LP_OK);
    put_file(to, all, n);
    free(all);
}

static void check_split_refused(const char *path, lp_status st, const char *want)
{
    lp_gguf *g = NULL;
    lp_error err = {0};
    CHECK(lp_gguf_open(&g, path, &err) == st && !g);
    if (!strstr(err.text, want)) CHECK_STR(err.text, want);
}

static void test_split(void)
{
    const char *one = LP_TESTS_DIR "/goldens/split-00001-of-00003.gguf";
    const char *two = LP_TESTS_DIR "/goldens/split-00002-of-00003.gguf";
    const char *three = LP_TESTS_DIR "/goldens/split-00003-of-00003.gguf";
    copy(one, at(dir, "s-00001-of-00003.gguf"));
    copy(three, at(dir, "s-00003-of-00003.gguf"));
    check_split_refused(at(dir, "s-00003-of-00003.gguf"), LP_E_NOT_FOUND,
                        "s-00002-of-00003.gguf: part 2 of 3 of the model is missing");
    copy(three, at(dir, "s-00002-of-00003.gguf"));
    check_split_refused(at(dir, "s-00001-of-00003.gguf"), LP_E_FORMAT, "says it is part 3 of 3; was it renamed?");
    copy(LP_TESTS_DIR "/goldens/all.gguf", at(dir, "s-00002-of-00003.gguf"));
    check_split_refused(at(dir, "s-00001-of-00003.gguf"), LP_E_FORMAT, "says it is part 1 of 0; was it renamed?");
    copy(two, at(dir, "other.gguf"));
    check_split_refused(at(dir, "other.gguf"), LP_E_NOT_FOUND, "is part 2 of 3 of a model but is not named");
    /* Parts that do not add up: part 2 stands in for part 3 under its own number. */
    maker m = begin(3, 0, 3);
    key_u32(&m, "split.no", 2), key_u32(&m, "split.count", 3), key_u32(&m, "split.tensors.count", 8);
    copy(two, at(dir, "s-00002-of-00003.gguf"));
    put_file(at(dir, "s-00003-of-00003.gguf"), m.bytes, m.n);
    check_split_refused(at(dir, "s-00001-of-00003.gguf"), LP_E_FORMAT, "hold 6 tensors, split.tensors.count says 8");
    m = begin(3, 0, 2);
    key_u32(&m, "split.no", 7), key_u32(&m, "split.count", 3);
    put_file(at(dir, "s-00008-of-00003.gguf"), m.bytes, m.n);
    check_split_refused(at(dir, "s-00008-of-00003.gguf"), LP_E_FORMAT, "make no sense");
    m = begin(3, 0, 2);
    key_u32(&m, "split.no", 0), key_u32(&m, "split.count", 0xffffffff);
    put_file(at(dir, "s-00001-of-4294967295.gguf"), m.bytes, m.n);
    check_split_refused(at(dir, "s-00001-of-4294967295.gguf"), LP_E_FORMAT, "make no sense");
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

static const struct ours {
    const char *name;
    lp_dtype type;
    int n_dims;
    int64_t shape[2];
    size_t bytes;
    const char *text;
} tensors[] = {
    {"token_embd.weight", LP_Q8_0, 2, {3, 32}, 102, "[3, 32]"},
    {"norm", LP_F32, 1, {7}, 28, "[7]"},
    {"w", LP_BF16, 2, {3, 5}, 30, "[3, 5]"},
    {"h", LP_F16, 1, {1}, 2, "[1]"},
};
enum { N_TENSORS = sizeof tensors / sizeof *tensors };

static lp_status put_keys(lp_gguf_writer *w, lp_error *err)
{
    static const char *const tokens[] = {"", "a", "\xe2\x96\x81the"};
    static const size_t lens[] = {0, 1, 6};
    LP_TRY(lp_gguf_put_string(w, "general.architecture", "gemma2", err));
    LP_TRY(lp_gguf_put_u32(w, "u", 4000000000u, err));
    LP_TRY(lp_gguf_put_f32(w, "f", 0.15625f, err));
    LP_TRY(lp_gguf_put_bool(w, "b", true, err));
    LP_TRY(lp_gguf_put_string(w, "s", "caf\xc3\xa9", err));
    LP_TRY(lp_gguf_put_strings(w, "tokens", tokens, lens, 3, err));
    LP_TRY(lp_gguf_put_f32s(w, "scores", (float[]){0.5f, -1000.0f}, 2, err));
    LP_TRY(lp_gguf_put_i32s(w, "types", (int32_t[]){1, -3}, 2, err));
    return lp_gguf_put_f32s(w, "none", NULL, 0, err);
}

static lp_status write_ours(const char *path, lp_error *err)
{
    lp_gguf_writer *w = NULL;
    lp_status st = lp_gguf_create(&w, path, err);
    if (st == LP_OK) st = put_keys(w, err);
    for (int k = 0; k < N_TENSORS && st == LP_OK; k++)
        st = lp_gguf_declare(w, tensors[k].name, tensors[k].type, tensors[k].n_dims, tensors[k].shape, err);
    if (st == LP_OK) st = lp_gguf_begin(w, err);
    uint8_t all[256];
    size_t n = 0;
    for (int k = 0; k < N_TENSORS; k++)
        for (size_t i = 0; i < tensors[k].bytes; i++) all[n++] = pattern_byte(k, i);
    for (size_t i = 0; i < n && st == LP_OK; i += 60) /* pieces that cross the tensors' ends */
        st = lp_gguf_write(w, all + i, n - i < 60 ? n - i : 60, err);
    if (st == LP_OK) st = lp_gguf_end(w, err);
    lp_gguf_writer_close(w);
    return st;
}

static void test_written_file_comes_back(void)
{
    lp_error err = {0};
    lp_gguf *g = NULL;
    const char *path = at(dir, "ours.gguf"), *s;
    int64_t v;
    double d;
    bool b;
    size_t n;
    lp_gguf_type type;
    CHECK(write_ours(path, &err) == LP_OK);
    CHECK(lp_gguf_open(&g, path, &err) == LP_OK);
    CHECK_STR(err.text, "");
    if (!g) return;
    CHECK(lp_gguf_int(g, "u", &v) && v == 4000000000ll);
    CHECK(lp_gguf_float(g, "f", &d) && d == 0.15625 && lp_gguf_bool(g, "b", &b) && b);
    CHECK(lp_gguf_string(g, "s", &s, &n) && is_text(s, n, "caf\xc3\xa9"));
    CHECK(lp_gguf_array_string(g, "tokens", 2, &s, &n) && is_text(s, n, "\xe2\x96\x81the"));
    CHECK(lp_gguf_array_float(g, "scores", 1, &d) && d == -1000.0);
    CHECK(lp_gguf_array_int(g, "types", 1, &v) && v == -3);
    CHECK(lp_gguf_array(g, "none", &type, &n) && type == LP_GGUF_F32 && n == 0);
    for (int k = 0; k < N_TENSORS; k++)
        check_tensor(lp_gguf_tensors(g), k, tensors[k].name, lp_dtype_name(tensors[k].type), tensors[k].text, 255);
    lp_gguf_close(g);
}

static void test_failed_writes_leave_nothing(void)
{
    lp_error err = {0};
    lp_gguf_writer *w = NULL;
    char out[300];
    int64_t shape[5] = {2, 16, 1, 1, 1}, huge[2] = {INT64_MAX, 2};
    snprintf(out, sizeof out, "%s/out", dir);
    CHECK(mkdir(out, 0777) == 0);
    CHECK(lp_gguf_create(&w, at(out, "f"), &err) == LP_OK);
    CHECK(lp_gguf_put_u32(w, "", 1, &err) == LP_E_RANGE);
    CHECK(lp_gguf_declare(w, "q", LP_Q8_0, 2, shape, &err) == LP_E_SHAPE); /* 32 elements, but rows of 16 */
    CHECK(lp_gguf_declare(w, "five", LP_F32, 5, shape, &err) == LP_E_SHAPE);
    CHECK(lp_gguf_declare(w, "", LP_F32, 1, shape, &err) == LP_E_SHAPE);
    CHECK(lp_gguf_declare(w, "o", LP_OTHER, 1, shape, &err) == LP_E_SHAPE);
    CHECK(lp_gguf_declare(w, "big", LP_F32, 2, huge, &err) == LP_E_SHAPE);
    CHECK(lp_gguf_declare(w, "x", LP_F32, 1, shape, &err) == LP_OK);
    CHECK(lp_gguf_write(w, "abcd", 4, &err) == LP_E_RANGE); /* before begin */
    CHECK(lp_gguf_begin(w, &err) == LP_OK);
    CHECK(lp_gguf_begin(w, &err) == LP_E_RANGE);
    CHECK(lp_gguf_declare(w, "late", LP_F32, 1, shape, &err) == LP_E_SHAPE);
    CHECK(lp_gguf_put_u32(w, "late", 1, &err) == LP_E_RANGE);
    CHECK(lp_gguf_write(w, "abcdefg", 7, &err) == LP_OK);
    CHECK(lp_gguf_end(w, &err) == LP_E_RANGE && strstr(err.text, "fewer bytes"));
    CHECK(lp_gguf_write(w, "hi", 2, &err) == LP_E_RANGE && strstr(err.text, "more bytes"));
    CHECK(!lp_is_file(at(out, "f")));
    lp_gguf_writer_close(w);
    CHECK(lp_gguf_create(&w, at(out, "f"), &err) == LP_OK);
    CHECK(lp_gguf_put_u32(w, "k", 1, &err) == LP_OK && lp_gguf_put_f32(w, "k", 1, &err) == LP_OK);
    CHECK(lp_gguf_begin(w, &err) == LP_E_RANGE && strstr(err.text, "key \"k\" is there twice"));
    lp_gguf_writer_close(w);
    CHECK(lp_gguf_create(&w, at(out, "f"), &err) == LP_OK);
    CHECK(lp_gguf_declare(w, "t", LP_F32, 1, shape, &err) == LP_OK);
    CHECK(lp_gguf_declare(w, "t", LP_F32, 1, shape, &err) == LP_OK);
    CHECK(lp_gguf_begin(w, &err) == LP_E_RANGE && strstr(err.text, "tensor \"t\" is there twice"));
    lp_gguf_writer_close(w);
    lp_gguf_writer_close(NULL);
    CHECK(remove_tree(out) == 0);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--write") == 0) {
        lp_error err = {0};
        if (write_ours(at(argv[2], "ours.gguf"), &err) != LP_OK) fprintf(stderr, "%s\n", err.text);
        return err.status != LP_OK;
    }
    CHECK(mkdtemp(dir));
    test_golden();
    test_hostile_head();
    test_hostile_keys();
    test_hostile_tensors();
    test_truncated();
    test_huge_header();
    test_split();
    test_written_file_comes_back();
    test_failed_writes_leave_nothing();
    remove_tree(dir);
    return check_done();
}
