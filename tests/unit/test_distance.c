/* How far words are apart. */
#include "base/distance.h"

#include "tests/lib/unit.h"

START_TEST(words)
{
    static const struct {
        const char *a, *b;
        size_t distance;
    } cases[] = {
        {"", "", 0},         {"", "abc", 3},           {"abc", "abc", 0},
        {"abc", "abd", 1},   {"abc", "ab", 1},         {"abc", "xabc", 1},
        {"abcd", "acbd", 2}, {"kitten", "sitting", 3}, {"heartbeet", "heartbeat", 1},
    };

    for (size_t i = 0; i < countof(cases); i++) {
        ck_assert_uint_eq(edit_distance(cases[i].a, cases[i].b), cases[i].distance);
        ck_assert_uint_eq(edit_distance(cases[i].b, cases[i].a), cases[i].distance);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("distance");
    TCase *tests = tcase_create("distance");
    tcase_add_test(tests, words);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
