/* pattern: which names it finds, and that no pattern and no name cost more than they may. */
#include "access/pattern.h"

#include "tests/lib/unit.h"

static enum pattern_result match(struct slice text, struct slice name)
{
    char error[PATTERN_ERROR_SIZE] = "";
    struct pattern *pattern = pattern_new(text, error);
    ck_assert_msg(pattern != NULL, "%s", error);
    const enum pattern_result result = pattern_match(pattern, name);
    pattern_free(&pattern);
    ck_assert_ptr_null(pattern);
    return result;
}

static const struct {
    struct slice pattern, name;
    enum pattern_result result;
} cases[] = {
    {SLICE(""), SLICE(""), PATTERN_MATCHES},
    {SLICE(""), SLICE("q"), PATTERN_MATCHES},
    {SLICE(".*"), SLICE(""), PATTERN_MATCHES},
    {SLICE("b"), SLICE("abc"), PATTERN_MATCHES},
    {SLICE("^b"), SLICE("abc"), PATTERN_DIFFERS},
    {SLICE("^(?!amq\\.).*"), SLICE("orders"), PATTERN_MATCHES},
    {SLICE("^(?!amq\\.).*"), SLICE("amq.gen-1"), PATTERN_DIFFERS},
    {SLICE("^(a|b)\\d+$"), SLICE("b17"), PATTERN_MATCHES},
    {SLICE("(?i)^ORDERS"), SLICE("orders.eu"), PATTERN_MATCHES},
    {SLICE("^.\\z"), SLICE("\xff"), PATTERN_MATCHES},
    {SLICE("^..\\z"), SLICE("\xc3\xbc"), PATTERN_MATCHES}, /* octets, not characters */
    {SLICE("a.c"), SLICE("a\0c"), PATTERN_MATCHES},
};

START_TEST(names)
{
    ck_assert_int_eq(cases[_i].result, match(cases[_i].pattern, cases[_i].name));
}
END_TEST

static const struct {
    struct slice pattern;
    const char *error; /* begins with */
} bad[] = {
    {SLICE("("), "missing closing parenthesis at offset 1"},
    {SLICE("[a"), "missing terminating ] for character class at offset 2"},
    {SLICE("*"), "quantifier does not follow a repeatable item at offset 0"},
    {SLICE("a\\"), "\\ at end of pattern at offset 2"},
    {SLICE("((((a{1,200}){1,200}){1,200}){1,200})"), "regular expression is too large"},
    {SLICE("(*UTF)a"), "using UTF is disabled by the application"},
};

START_TEST(what_is_no_pattern)
{
    char error[PATTERN_ERROR_SIZE] = "";

    ck_assert_ptr_null(pattern_new(bad[_i].pattern, error));
    ck_assert_msg(strncmp(error, bad[_i].error, strlen(bad[_i].error)) == 0, "%s", error);
}
END_TEST

START_TEST(patterns_have_a_largest_size) /* GHSA-pj8f-mw2q-3xjj */
{
    static char text[PATTERN_SIZE_MAX + 1];
    char error[PATTERN_ERROR_SIZE] = "";

    memset(text, 'a', sizeof(text));
    ck_assert_int_eq(PATTERN_DIFFERS, match(slice_of(text, PATTERN_SIZE_MAX), SLICE("aa")));
    ck_assert_ptr_null(pattern_new(slice_of(text, sizeof(text)), error));
    ck_assert_str_eq("it has 16385 octets, and may have 16384", error);
}
END_TEST

static const struct slice bombs[] = {
    SLICE("^(a+)+$"),
    SLICE("^(a|a)*$"),
    SLICE("^(a|aa)+$"),
    SLICE("(.*)*(.*)*(.*)*!$"),
    SLICE("^(?:a?){250}a{250}$"),
    SLICE("^(a(?1)?)+$"),
    SLICE("(*LIMIT_MATCH=4000000000)^(a+)+$"),
};

/* The limit counts steps, so this holds on any machine. */
START_TEST(bombs_do_not_go_off) /* GHSA-pj8f-mw2q-3xjj */
{
    char name[255];

    memset(name, 'a', sizeof(name));
    name[sizeof(name) - 1] = '?';
    ck_assert_int_ne(PATTERN_MATCHES, match(bombs[_i], slice_of(name, sizeof(name))));
}
END_TEST

START_TEST(too_costly_is_an_answer)
{
    char name[255];

    memset(name, 'a', sizeof(name));
    name[sizeof(name) - 1] = '?';
    ck_assert_int_eq(PATTERN_TOO_COSTLY, match(bombs[0], slice_of(name, sizeof(name))));
}
END_TEST

/* What people write is far from the limits, for the longest name too. */
START_TEST(honest_patterns_have_room)
{
    char name[255];

    memset(name, 'a', sizeof(name));
    ck_assert_int_eq(PATTERN_DIFFERS, match(SLICE("^.*-dlq$"), slice_of(name, sizeof(name))));
    ck_assert_int_eq(PATTERN_DIFFERS,
                     match(SLICE("^[^.]+\\.[^.]+\\.dlq$"), slice_of(name, sizeof(name))));
    ck_assert_int_eq(PATTERN_DIFFERS, match(SLICE("a.*a.*[bc]$"), slice_of(name, sizeof(name))));
    ck_assert_int_eq(PATTERN_MATCHES, match(SLICE("^(a|b|c)+$"), slice_of(name, sizeof(name))));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pattern");
    TCase *tcase = tcase_create("pattern");
    tcase_add_loop_test(tcase, names, 0, countof(cases));
    tcase_add_loop_test(tcase, what_is_no_pattern, 0, countof(bad));
    tcase_add_test(tcase, patterns_have_a_largest_size);
    tcase_add_loop_test(tcase, bombs_do_not_go_off, 0, countof(bombs));
    tcase_add_test(tcase, too_costly_is_an_answer);
    tcase_add_test(tcase, honest_patterns_have_room);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
