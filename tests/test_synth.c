/* Synthetic checkpoints: our readers open them, the numbers are those promised in every container and type, no thread
 * count changes a bit, and what cannot be written leaves nothing behind. */
#include "core/synth.h"

#include "core/pool.h"
#include "core/quant.h"
#include "core/quantize.h"
#include "core/safetensors.h"
#include "core/tokenizer.h"

#include "tests/check.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

static const char *place(const char *name)
{
    static char paths[4][256];
    static int turn;
    char *p = paths[turn++ % 4];
    snprintf(p, sizeof paths[0], "%s/%s", folder, name);
    return p;
}

static lp_synth_options options(lp_dtype type, int gguf)
{
    lp_synth_options o = {.type = type, .gguf = gguf, .seed = 42};
    lp_error err = {0};
    CHECK(lp_config_shape(&o.config, "nano"));
    CHECK(lp_synth_set(&o.config,
                       "n_layers=3,d_model=256,n_heads=8,n_kv_heads=2,head_dim=32,d_ff=512,vocab=1100,"
                       "query_pre_attn_scalar=32,window=8,rope_theta=5000",
                       &err) == LP_OK);
    return o;
}

static int entries(const char *path, const char *but)
{
    int n = 0;
    DIR *d = opendir(path);
    if (!d) return -1;
    for (struct dirent *e; (e = readdir(d)) != NULL;) n += e->d_name[0] != '.' && (!but || strcmp(e->d_name, but) != 0);
    closedir(d);
    return n;
}

static void empty(const char *path)
{
    DIR *d = opendir(path);
    if (!d) {
        unlink(path);
        return;
    }
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *p = lp_path_join(path, e->d_name);
        if (p) empty(p);
        free(p);
    }
    closedir(d);
    rmdir(path);
}

static lp_status write_with(const char *path, const lp_synth_options *o, int threads, lp_error *err)
{
    lp_pool *pool = NULL;
    CHECK(lp_pool_new(&pool, threads, err) == LP_OK);
    lp_env env = {.pool = pool};
    lp_status st = lp_synth_write(path, o, &env, err);
    lp_pool_free(pool);
    return st;
}

static void write_ok(const char *path, const lp_synth_options *o, int threads)
{
    lp_error err = {0};
    CHECK(write_with(path, o, threads, &err) == LP_OK);
    CHECK_STR(err.text, "");
}

static bool same_files(const char *a, const char *b)
{
    char *x = NULL, *y = NULL;
    size_t n = 0, m = 0;
    bool same = lp_read_file(&x, &n, a, 1 << 28, NULL) == LP_OK && lp_read_file(&y, &m, b, 1 << 28, NULL) == LP_OK &&
                n == m && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

/* ---- the numbers --------------------------------------------------------------------------------------------------
 */

/* One tensor as the file has it against the promise: values, rounded to the type; for GGUF's norms plus one. */
static void check_tensor(const lp_tensors *t, const char *file_name, const lp_synth_options *o, const char *name)
{
    lp_error err = {0};
    const lp_tensor *x = lp_tensors_find(t, file_name);
    CHECK(x != NULL);
    if (!x) return;
    size_t n = (size_t)x->shape[0] * (size_t)(x->n_dims > 1 ? x->shape[1] : 1);
    float *values = malloc(n * sizeof *values);
    char *packed = malloc((size_t)x->bytes), *stored = malloc((size_t)x->bytes);
    CHECK(values && packed && stored);
    CHECK(lp_synth_values(values, &o->config, o->seed, name, 0, n, &err) == LP_OK);
    CHECK(lp_tensors_read(t, x, 0, stored, (size_t)x->bytes, &err) == LP_OK);
    if (o->gguf && x->n_dims == 1) {
        for (size_t i = 0; i < n; i++) {
            if (o->type == LP_BF16) values[i] = lp_bf16_to_f32(lp_f32_to_bf16(values[i]));
            if (o->type == LP_F16) values[i] = lp_f16_to_f32(lp_f32_to_f16(values[i]));
            values[i] += 1;
        }
    }
    CHECK(lp_quantize(x->type, values, packed, n));
    CHECK(memcmp(packed, stored, (size_t)x->bytes) == 0);
    free(stored);
    free(packed);
    free(values);
}

static void test_safetensors(lp_dtype type)
{
    lp_synth_options o = options(type, 0);
    lp_error err = {0};
    lp_tensors t = {0};
    char *text = NULL, *path;
    size_t n = 0;
    const char *dir = place("model");
    write_ok(dir, &o, 2);
    CHECK(entries(dir, NULL) == 4);
    CHECK(lp_safetensors_open(&t, dir, NULL, &err) == LP_OK);
    CHECK(t.n == 11 * 3 + 2);
    check_tensor(&t, "model.embed_tokens.weight", &o, "model.embed_tokens.weight");
    check_tensor(&t, "model.layers.2.mlp.down_proj.weight", &o, "model.layers.2.mlp.down_proj.weight");
    check_tensor(&t, "model.layers.1.input_layernorm.weight", &o, "model.layers.1.input_layernorm.weight");
    check_tensor(&t, "model.norm.weight", &o, "model.norm.weight");
    lp_tensors_clear(&t);

    lp_config c;
    path = lp_path_join(dir, "config.json");
    CHECK(lp_read_file(&text, &n, path, 1 << 20, &err) == LP_OK && lp_config_parse(&c, text, n, NULL, &err) == LP_OK);
    CHECK(memcmp(&c, &o.config, sizeof c) == 0); /* every field, padding being zero in both */
    free(text);
    free(path);
    empty(dir);
}

static void test_shards(void)
{
    lp_synth_options o = options(LP_F32, 0);
    lp_error err = {0};
    lp_tensors t = {0};
    o.shard_bytes = 700000; /* less than the token table: it gets a file of its own */
    write_ok(place("sharded"), &o, 2);
    CHECK(lp_safetensors_open(&t, place("sharded"), NULL, &err) == LP_OK);
    CHECK_STR(err.text, "");
    CHECK(t.n == 11 * 3 + 2 && t.n_files > 3);
    check_tensor(&t, "model.layers.2.mlp.gate_proj.weight", &o, "model.layers.2.mlp.gate_proj.weight");
    lp_tensors_clear(&t);

    o.shard_bytes = 0; /* replacing leaves no shard behind */
    CHECK(write_with(place("sharded"), &o, 1, &err) == LP_E_IO && strstr(err.text, "--force"));
    o.replace = 1;
    write_ok(place("sharded"), &o, 1);
    CHECK(entries(place("sharded"), NULL) == 4);
    empty(place("sharded"));
}

static void test_gguf(lp_dtype type, lp_dtype table)
{
    lp_synth_options o = options(type, 1);
    lp_error err = {0};
    lp_gguf *g = NULL;
    lp_config c;
    lp_tokenizer *v = NULL;
    write_ok(place("model.gguf"), &o, 2);
    CHECK(lp_gguf_open(&g, place("model.gguf"), &err) == LP_OK);
    CHECK_STR(err.text, "");
    if (!g) return;
    const lp_tensors *t = lp_gguf_tensors(g);
    CHECK(t->n == 11 * 3 + 2);
    const lp_tensor *e = lp_tensors_find(t, "token_embd.weight"), *q = lp_tensors_find(t, "blk.0.attn_q.weight");
    CHECK(e && e->type == table && q && q->type == type);
    check_tensor(t, "token_embd.weight", &o, "model.embed_tokens.weight");
    check_tensor(t, "blk.1.attn_k.weight", &o, "model.layers.1.self_attn.k_proj.weight");
    check_tensor(t, "blk.1.ffn_down.weight", &o, "model.layers.1.mlp.down_proj.weight");
    check_tensor(t, "blk.2.post_ffw_norm.weight", &o, "model.layers.2.post_feedforward_layernorm.weight");
    check_tensor(t, "output_norm.weight", &o, "model.norm.weight");

    CHECK(lp_config_from_gguf(&c, g, NULL, &err) == LP_OK);
    CHECK(c.norms_hold_gain && c.n_layers == 3 && c.window == 8 && c.rope_theta == 5000 && c.vocab == 1100);
    CHECK(c.attn_softcap == 50 && c.final_softcap == 30 && c.query_pre_attn_scalar == 32 && c.bos == 2 && c.eos == 1);
    CHECK(lp_tokenizer_from_gguf(&v, g, NULL, &err) == LP_OK);
    CHECK(v && lp_tokenizer_size(v) == 1100 && lp_tokenizer_find(v, "<start_of_turn>") == 106);
    lp_tokenizer_free(v);
    lp_gguf_close(g);
    unlink(place("model.gguf"));
}

static void test_threads_change_nothing(void)
{
    static const struct {
        lp_dtype type;
        int gguf;
        const char *file;
    } kinds[] = {
        {LP_BF16, 0, "/model.safetensors"}, {LP_F32, 0, "/model.safetensors"}, {LP_Q8_0, 1, ""}, {LP_Q4_K, 1, ""}};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        lp_synth_options o = options(kinds[k].type, kinds[k].gguf);
        const int threads[] = {1, 2, 7};
        char file[3][300];
        for (int i = 0; i < 3; i++) {
            char name[8] = {'t', (char)('0' + i), 0};
            write_ok(place(name), &o, threads[i]);
            snprintf(file[i], sizeof file[i], "%s%s", place(name), kinds[k].file);
        }
        CHECK(same_files(file[0], file[1]) && same_files(file[0], file[2]));
        o.seed++; /* and the seed does change it */
        o.replace = 1;
        write_ok(place("t1"), &o, 2);
        CHECK(!same_files(file[0], file[1]));
        for (int i = 0; i < 3; i++) empty(place((char[]){'t', (char)('0' + i), 0}));
    }
}

static void test_spread(void)
{
    enum { N = 1 << 16 };
    static float x[N], again[100];
    lp_synth_options o = options(LP_F32, 0);
    lp_error err = {0};
    double sum = 0, squares = 0, neighbours = 0;
    CHECK(lp_synth_values(x, &o.config, 1, "model.layers.0.mlp.up_proj.weight", 0, N, &err) == LP_OK);
    for (int i = 0; i < N; i++) {
        sum += (double)x[i];
        squares += (double)x[i] * (double)x[i];
        neighbours += i ? (double)x[i] * (double)x[i - 1] : 0;
    }
    double sd = sqrt(squares / N); /* deviations of a fair sample: 1/sqrt(N) = 0.004, here within four of them */
    CHECK_NEAR(sd * sqrt(256), 1, 0.012);
    CHECK_NEAR(sum / N / sd, 0, 0.016);
    CHECK_NEAR(neighbours / squares, 0, 0.016);
    CHECK(lp_synth_values(again, &o.config, 1, "model.layers.0.mlp.up_proj.weight", 5000, 100, &err) == LP_OK);
    CHECK_SAME(again, x + 5000, 100);
    CHECK(lp_synth_values(x, &o.config, 1, "model.norm.weight", 200, 100, &err) == LP_E_RANGE);
    CHECK(lp_synth_values(x, &o.config, 1, "lm_head.weight", 0, 1, &err) == LP_E_NOT_FOUND);
}

/* ---- the vocabulary ------------------------------------------------------------------------------------------------
 */

static void test_vocabulary(void)
{
    lp_synth_options o = {.type = LP_BF16};
    lp_error err = {0};
    lp_tokenizer *v = NULL;
    lp_tokens ids = {0};
    CHECK(lp_config_shape(&o.config, "nano"));
    CHECK(lp_synth_set(&o.config, "vocab=256000,d_model=2,n_layers=1,d_ff=2", &err) == LP_OK);
    write_ok(place("wide"), &o, 2);
    char *path = lp_path_join(place("wide"), "tokenizer.model");
    CHECK(lp_tokenizer_open(&v, path, &err) == LP_OK);
    CHECK_STR(err.text, "");
    if (v) {
        CHECK(lp_tokenizer_size(v) == 256000);
        CHECK(lp_tokenizer_pad(v) == 0 && lp_tokenizer_eos(v) == 1 && lp_tokenizer_bos(v) == 2 &&
              lp_tokenizer_unk(v) == 3);
        CHECK(lp_tokenizer_find(v, "<end_of_turn>") == 107 && lp_tokenizer_find(v, "\n") == 108);
        CHECK(lp_tokenizer_find(v, "<s>") == 204 && lp_tokenizer_find(v, "<0x09>") == 226);
        CHECK(lp_tokenizer_find(v, "\xe2\x96\x81") == 235248 && lp_tokenizer_find(v, "<unused99>") == 255999);
        CHECK(lp_tokenizer_find(v, "[toxicity=0]") == 255968 && lp_tokenizer_find(v, "\t\t") == 255969);
        const char text[] = " then stone  \n\n9 \xe4\xb8\xad";
        CHECK(lp_tokenizer_encode(v, text, sizeof text - 1, LP_SPECIALS_SENTENCEPIECE, &ids, &err) == LP_OK);
        CHECK(ids.n > 5 && ids.n < 12);
        for (int id = 473; id < 235248; id += 997) { /* merging really reaches the made-up words */
            size_t len, at = 0;
            char plain[64];
            const char *piece = lp_tokenizer_piece(v, id, &len);
            bool word = strncmp(piece, "\xe2\x96\x81", 3) == 0;
            if (word) plain[at++] = ' ';
            memcpy(plain + at, piece + (word ? 3 : 0), len - (word ? 3 : 0));
            ids.n = 0;
            CHECK(lp_tokenizer_encode(v, plain, at + len - (word ? 3 : 0), LP_SPECIALS_SENTENCEPIECE, &ids, &err) ==
                  LP_OK);
            CHECK(ids.n == 1 && ids.ids[0] == id);
        }
    }
    lp_tokens_free(&ids);
    lp_tokenizer_free(v);
    free(path);
    empty(place("wide"));
}

static void test_given_tokenizer(void)
{
    lp_synth_options o = options(LP_BF16, 0);
    lp_error err = {0};
    o.tokenizer = LP_TESTS_DIR "/goldens/tokenizer/tokenizer.model";
    lp_tokenizer *v = NULL;
    CHECK(lp_tokenizer_open(&v, o.tokenizer, &err) == LP_OK);
    CHECK(write_with(place("given"), &o, 1, &err) == LP_E_SHAPE && strstr(err.text, "vocab="));
    o.config.vocab = lp_tokenizer_size(v);
    write_ok(place("given"), &o, 1);
    CHECK(same_files(place("given/tokenizer.model"), o.tokenizer));
    empty(place("given"));
    o.gguf = 1;
    write_ok(place("given.gguf"), &o, 1);
    lp_gguf *g = NULL;
    lp_tokenizer *back = NULL;
    CHECK(lp_gguf_open(&g, place("given.gguf"), &err) == LP_OK);
    CHECK(g && lp_tokenizer_from_gguf(&back, g, NULL, &err) == LP_OK);
    const char text[] = "The <b>quick</b>   brown f\xc3\xb6x,\n\n12 \xf0\x9f\xa6\x8a<end_of_turn>";
    lp_tokens a = {0}, b = {0};
    CHECK(v && lp_tokenizer_encode(v, text, sizeof text - 1, LP_SPECIALS_PARSED, &a, &err) == LP_OK);
    CHECK(back && lp_tokenizer_encode(back, text, sizeof text - 1, LP_SPECIALS_PARSED, &b, &err) == LP_OK);
    CHECK(a.n && a.n == b.n && memcmp(a.ids, b.ids, a.n * sizeof *a.ids) == 0);
    lp_tokens_free(&a);
    lp_tokens_free(&b);
    lp_tokenizer_free(back);
    lp_tokenizer_free(v);
    lp_gguf_close(g);
    empty(place("given.gguf"));
}

/* goldens/nano came from `lapidary synth --shape nano --tokenizer goldens/tokenizer/tokenizer.model --seed 1`, on another
 * machine: the bytes do not depend on which. */
static void test_same_everywhere(void)
{
    lp_synth_options o = {.type = LP_BF16, .seed = 1, .tokenizer = LP_TESTS_DIR "/goldens/tokenizer/tokenizer.model"};
    CHECK(lp_config_shape(&o.config, "nano"));
    write_ok(place("nano"), &o, 2);
    CHECK(entries(place("nano"), NULL) == entries(LP_TESTS_DIR "/goldens/nano", NULL));
    for (int i = 0; i < 4; i++) {
        const char *names[] = {"config.json", "generation_config.json", "tokenizer.model", "model.safetensors"};
        char *mine = lp_path_join(place("nano"), names[i]),
             *there = lp_path_join(LP_TESTS_DIR "/goldens/nano", names[i]);
        CHECK(mine && there && same_files(mine, there));
        free(mine);
        free(there);
    }
    empty(place("nano"));
}

/* ---- what is refused, and what is left then -------------------------------------------------------------------------
 */

static void refuse(const lp_synth_options *o, const char *path, lp_status want, const char *says)
{
    lp_error err = {0};
    lp_status st = write_with(path, o, 1, &err);
    CHECK(st == want);
    CHECK(strstr(err.text, says) != NULL);
    if (!strstr(err.text, says)) fprintf(stderr, "  it says: %s\n", err.text);
}

static void test_refusals(void)
{
    lp_synth_options o = options(LP_Q8_0, 0);
    lp_error err = {0};
    refuse(&o, place("x"), LP_E_UNSUPPORTED, "--format gguf");
    o.gguf = 1;
    o.config.query_pre_attn_scalar = 100;
    refuse(&o, place("x"), LP_E_UNSUPPORTED, "query_pre_attn_scalar=32");
    o = options(LP_Q4_K, 1);
    o.config.d_model = 128;
    refuse(&o, place("x"), LP_E_SHAPE, "multiple of the 256");
    o = options(LP_F32, 0);
    o.config.vocab = 500;
    refuse(&o, place("x"), LP_E_RANGE, "--tokenizer");
    o.config.vocab = 2000;
    o.config.n_heads = 7;
    refuse(&o, place("x"), LP_E_FORMAT, "heads");
    o = options(LP_F32, 0);
    refuse(&o, place("no/such/x"), LP_E_NOT_FOUND, "no/such");
    o.config.d_model = 1 << 16; /* 100 petabytes: no disk has them */
    o.config.d_ff = 1 << 20;
    o.config.n_layers = 256;
    o.config.vocab = 1 << 20;
    refuse(&o, place("x"), LP_E_IO, "GB of disk");

    lp_config c = options(LP_F32, 0).config;
    CHECK(lp_synth_set(&c, "layers=3", &err) == LP_E_NOT_FOUND && strstr(err.text, "n_layers"));
    CHECK(lp_synth_set(&c, "n_layers", &err) == LP_E_RANGE);
    CHECK(lp_synth_set(&c, "n_layers=", &err) == LP_E_RANGE);
    CHECK(lp_synth_set(&c, "n_layers=two", &err) == LP_E_RANGE);
    CHECK(lp_synth_set(&c, "n_layers=2.5", &err) == LP_E_RANGE);
    CHECK(lp_synth_set(&c, "n_layers=1e99", &err) == LP_E_RANGE);
    CHECK(lp_synth_set(&c, "rope_theta=nan", &err) == LP_E_RANGE);
    CHECK(lp_synth_set(&c, "", &err) == LP_OK);
    CHECK(entries(folder, NULL) == 0);
}

static void test_strangers_files_stay(void)
{
    lp_synth_options o = options(LP_BF16, 0);
    o.replace = 1;
    write_ok(place("mine"), &o, 1);
    FILE *f = fopen(place("mine/thesis.txt"), "w");
    CHECK(f && fclose(f) == 0);
    refuse(&o, place("mine"), LP_E_IO, "thesis.txt");
    CHECK(lp_is_file(place("mine/thesis.txt")));
    o.gguf = 1;
    refuse(&o, place("mine"), LP_E_IO, "not a file");
    empty(place("mine"));
}

static void stop_soon(void *user, const char *what, int64_t done, int64_t of)
{
    (void)what;
    if (done * 2 > of) atomic_store((atomic_bool *)user, true);
}

static void test_cancel_leaves_nothing(void)
{
    for (int gguf = 0; gguf < 2; gguf++) {
        atomic_bool cancel = false;
        lp_synth_options o = options(LP_F32, gguf);
        lp_env env = {.cancel = &cancel, .progress = stop_soon, .user = &cancel};
        lp_error err = {0};
        CHECK(lp_synth_write(place("stopped"), &o, &env, &err) == LP_CANCELLED);
        CHECK(entries(folder, NULL) == 0);
    }
}

int main(void)
{
    snprintf(folder, sizeof folder, "/tmp/lp_synth_XXXXXX");
    if (!mkdtemp(folder)) return 1;
    test_spread();
    test_safetensors(LP_F32);
    test_safetensors(LP_BF16);
    test_safetensors(LP_F16);
    test_shards();
    test_gguf(LP_F32, LP_F32);
    test_gguf(LP_BF16, LP_BF16);
    test_gguf(LP_F16, LP_F16);
    test_gguf(LP_Q8_0, LP_Q8_0);
    test_gguf(LP_Q4_0, LP_Q6_K);
    test_gguf(LP_Q4_K, LP_Q6_K);
    test_gguf(LP_Q6_K, LP_Q6_K);
    test_threads_change_nothing();
    test_vocabulary();
    test_given_tokenizer();
    test_same_everywhere();
    test_refusals();
    test_strangers_files_stay();
    test_cancel_leaves_nothing();
    empty(folder);
    return check_done();
}
