/* Comma-separated values: every form a field may have, and every broken one with its line. */
#include "sae/csv.h"

#include "tests/check.h"

#include <stdlib.h>

/* All fields, each followed by '|', rows by '/'; or what is wrong. */
static const char *spell(const char *text, size_t n)
{
    static char out[400];
    lp_csv c;
    lp_error err = {0};
    bool has = true;
    *out = 0;
    lp_csv_begin(&c, text, n);
    while (has && lp_csv_next(&c, &has, &err) == LP_OK && has) {
        for (int i = 0; i < c.n; i++) strcat(strcat(out, c.field[i]), "|");
        strcat(out, "/");
    }
    if (err.status) snprintf(out, sizeof out, "%.390s", err.text);
    lp_csv_end(&c);
    return out;
}

static void test_csv(void)
{
    static const char *const good[][2] = {
        {"", ""},
        {"\n\r\n\n", ""},
        {"a", "a|/"},
        {"a,b\n1,2\n", "a|b|/1|2|/"},
        {"a,b\r\n\r\n1,2\r\n", "a|b|/1|2|/"},
        {"\xef\xbb\xbf"
         "a,b\n",
         "a|b|/"},
        {"a,b\n,\n", "a|b|/||/"},
        {"\"a\",\"b,\"\"c\"\"\"\n\"1\r\n2\",\"\"", "a|b,\"c\"|/1\r\n2||/"},
        {"\"\"\n", "|/"},
    };
    static const char *const bad[][2] = {
        {"a,b\n1\n", "line 2: 1 fields, where the first row has 2"},
        {"a,b\n\n1,2,3\n", "line 3: 3 fields"},
        {"a\nb\"c\n", "line 2: a quote inside"},
        {"\"a\" ,b", "line 1: text behind"},
        {"a\n\"1\n2\n", "line 2: a quote is not closed"},
        {"a\rb\n", "line 1: a carriage return"},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK_STR(spell(good[i][0], strlen(good[i][0])), good[i][1]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *got = spell(bad[i][0], strlen(bad[i][0]));
        if (!strstr(got, bad[i][1])) CHECK_STR(got, bad[i][1]);
    }
    CHECK(strstr(spell("a\0b", 3), "NUL") && strstr(spell("\"a\0b\"", 5), "NUL"));
    char wide[2 * LP_CSV_FIELDS + 2];
    memset(wide, ',', sizeof wide);
    CHECK(strstr(spell(wide, LP_CSV_FIELDS), "more than 64") && !strstr(spell(wide, LP_CSV_FIELDS - 1), "more"));
    char *text = NULL;
    size_t n = 0, room = 0;
    CHECK(lp_csv_put(&text, &n, &room, "plain", false) && lp_csv_put(&text, &n, &room, "a,\"b\"\r\n", true));
    CHECK_STR(text, "plain,\"a,\"\"b\"\"\r\n\"\n");
    CHECK(n == strlen(text));
    CHECK_STR(spell(text, n), "plain|a,\"b\"\r\n|/");
    free(text);
}

int main(void)
{
    test_csv();
    return check_done();
}
