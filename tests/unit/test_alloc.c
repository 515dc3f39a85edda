/* alloc: what it gives, and that each way of not getting it ends in the one policy. */
#include "base/alloc.h"

#include <setjmp.h>
#include <signal.h>

#include "base/log.h"
#include "tests/lib/unit.h"

static jmp_buf failed;

static void on_failure(void)
{
    longjmp(failed, 1);
}

START_TEST(gives_memory)
{
    uint8_t *bytes = xmalloc(100);
    memset(bytes, 1, 100);
    bytes = xrealloc(bytes, 50, 4);
    ck_assert_int_eq(bytes[99], 1);
    free(bytes);

    uint8_t *zeroed = xcalloc(10, 10);
    for (int i = 0; i < 100; i++)
        ck_assert_int_eq(zeroed[i], 0);
    free(zeroed);
}
END_TEST

START_TEST(gives_a_pointer_for_nothing)
{
    void *all[] = {xmalloc(0), xcalloc(0, 8), xrealloc(NULL, 0, 8), xrealloc(xmalloc(8), 8, 0)};
    for (size_t i = 0; i < countof(all); i++) {
        ck_assert_ptr_nonnull(all[i]);
        free(all[i]);
    }
}
END_TEST

START_TEST(makes_strings)
{
    char *copy = xstrdup("stoat");
    char *made = xasprintf("%s-%d", copy, 42);
    ck_assert_str_eq(made, "stoat-42");
    free(copy);
    free(made);
}
END_TEST

START_TEST(fails_the_nth)
{
    void *volatile first = NULL;
    alloc_fail_at(2, on_failure);
    if (setjmp(failed) == 0) {
        first = xmalloc(1);
        free(xmalloc(1));
        ck_abort_msg("the second allocation should have failed");
    }
    ck_assert_ptr_nonnull(first);
    free(first);
    free(xmalloc(1)); /* only the n-th fails */

    alloc_fail_at(1, on_failure);
    alloc_fail_at(0, NULL);
    free(xmalloc(1));
}
END_TEST

START_TEST(checks_sizes)
{
    ck_assert_uint_eq(size_add(1, 2), 3);
    ck_assert_uint_eq(size_add(SIZE_MAX - 1, 1), SIZE_MAX);
    ck_assert_uint_eq(size_mul(3, 4), 12);
    ck_assert_uint_eq(size_mul(SIZE_MAX, 0), 0);

    alloc_fail_at(0, on_failure);
    volatile int caught = 0;
    if (setjmp(failed) == 0)
        size_add(SIZE_MAX, 1);
    else
        caught++;
    if (setjmp(failed) == 0)
        size_mul(SIZE_MAX / 2, 3);
    else
        caught++;
    if (setjmp(failed) == 0)
        free(xrealloc(NULL, SIZE_MAX / 2, 3));
    else
        caught++;
    ck_assert_int_eq(caught, 3);
}
END_TEST

START_TEST(aborts_without_a_callback)
{
    log_to(-1);
    alloc_fail_at(1, NULL);
    free(xmalloc(1));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("alloc");
    TCase *tests = tcase_create("alloc");
    tcase_add_test(tests, gives_memory);
    tcase_add_test(tests, gives_a_pointer_for_nothing);
    tcase_add_test(tests, makes_strings);
    tcase_add_test(tests, fails_the_nth);
    tcase_add_test(tests, checks_sizes);
    tcase_add_test_raise_signal(tests, aborts_without_a_callback, SIGABRT);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
