/* What other languages are told of the structs covers them: fields tile each struct but for padding, so that one which is
 * added to a header and not to the table leaves a hole.  And the calls that stand for open structs. */
#include "notebooks/flat.h"

#include "tests/check.h"

static int64_t field_alignment(const lp_flat_field *f)
{
    return f->size >= 8 || f->size == 0 ? 8 : f->size;
}

static void fields_tile_their_structs(void)
{
    size_t n, n_structs = 0;
    const lp_flat_field *f = lp_flat_fields(&n);
    for (size_t i = 0; i < n; i++) {
        if (!*f[i].of || *f[i].name) continue;
        const lp_flat_field *whole = &f[i];
        int64_t end = 0;
        size_t k = i + 1;
        for (; k < n && strcmp(f[k].of, whole->of) == 0; k++) {
            int64_t gap = f[k].offset - end;
            if (gap < 0 || gap >= field_alignment(&f[k])) printf("a hole before %s.%s\n", f[k].of, f[k].name);
            CHECK(gap >= 0 && gap < field_alignment(&f[k]));
            end = f[k].offset + f[k].size;
        }
        CHECK(k > i + 1 && end <= whole->size && whole->size - end < 8);
        n_structs++;
    }
    CHECK(n_structs >= 15);
}

static void an_sae_by_name(void)
{
    lp_error err = {0};
    lp_sae *s = NULL;
    lp_labels *l = NULL;
    lp_flat_sae look;
    CHECK(lp_flat_sae_open(&s, &l, "3-lapidary-res-2k", NULL, 0, NULL, &err) == LP_OK);
    if (!s) return;
    lp_flat_sae_look(&look, s);
    CHECK_STR(look.name, "3-lapidary-res-2k");
    CHECK_STR(look.kind, "jumprelu");
    CHECK(look.site == LP_RESID_POST && look.layer == 3 && look.d_sae == s->d_sae && look.d_in == s->d_in);
    CHECK(look.decoder == s->decoder && !look.is_bf16 && !look.needs_input && look.threshold);
    CHECK(l->n == s->d_sae && l->n_named > 0);
    lp_sae_close(s);
    lp_flat_labels_free(l);
    CHECK(lp_flat_sae_open(&s, &l, "3-lapidary-res-2k", "/nowhere", 0, NULL, &err) == LP_E_NOT_FOUND);
    CHECK(lp_flat_sae_open(&s, &l, "3-lapidary-res-9k", NULL, 0, NULL, &err) == LP_E_NOT_FOUND);
    lp_flat_labels_free(NULL);
}

static void recipes(void)
{
    lp_error err = {0};
    lp_recipe *r = NULL;
    CHECK(lp_flat_recipe_open(&r, "sea", NULL, &err) == LP_OK && r && r->n_edits > 0);
    lp_flat_recipe_free(r);
    CHECK(lp_flat_recipe_open(&r, NULL, "{\"format\": \"lapidary-recipe\"}", &err) < 0);
    CHECK(lp_flat_recipe_open(&r, "no-such-recipe", NULL, &err) < 0 && strstr(err.text, "no-such-recipe"));
    lp_flat_recipe_free(NULL);
}

int main(void)
{
    fields_tile_their_structs();
    an_sae_by_name();
    recipes();
    return check_done();
}
