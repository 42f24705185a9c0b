/* Our sine and cosine against libm's double, and the table's shape. */
#include "core/rope.h"

#include "tests/check.h"

static void test_sincos(void)
{
    double worst = 0;
    for (int i = 0; i < 2000000; i++) {
        double x = i * 0.0049 + 1e-9 * (i % 977), s, c; /* 0 to 9800, past position 8191 */
        lp_sincos(x, &s, &c);
        double e = fmax(fabs(s - sin(x)), fabs(c - cos(x)));
        if (e > worst) worst = e;
    }
    CHECK_NEAR(worst, 0, 1e-15);
    double s, c;
    for (double x = 1e5; x < 1e6; x += 997.3) {
        lp_sincos(x, &s, &c);
        CHECK_NEAR(s, sin(x), 1e-15);
        CHECK_NEAR(c, cos(x), 1e-15);
    }
    lp_sincos(0, &s, &c);
    CHECK(s == 0 && c == 1);
    lp_sincos(-2.5, &s, &c);
    CHECK_NEAR(s, sin(-2.5), 1e-15);
}

static void test_table(void)
{
    enum { N = 300, E = 10 };
    float cs[N * E / 2], sn[N * E / 2];
    lp_rope_table(cs, sn, N, E, 10000);
    for (int p = 0; p < N; p++)
        for (int i = 0; i < E / 2; i++) {
            float f = 1.0f / (float)pow(10000.0, (double)((float)(2 * i) / (float)E)); /* as the references round it */
            CHECK_NEAR(cs[p * E / 2 + i], cos((double)((float)p * f)), 6e-8);
            CHECK_NEAR(sn[p * E / 2 + i], sin((double)((float)p * f)), 6e-8);
        }
    CHECK(cs[0] == 1 && sn[0] == 0);
}

int main(void)
{
    test_sincos();
    test_table();
    return check_done();
}
