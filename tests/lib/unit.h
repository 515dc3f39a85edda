/* Runs a suite of `check` tests and reports in TAP 13, so that tests/run reads unit tests like
 * every other kind.
 *
 *     START_TEST(finds_what_was_inserted) { ... }
 *     END_TEST
 *
 *     int main(void)
 *     {
 *         Suite *suite = suite_create("map");
 *         TCase *tests = tcase_create("map");
 *         tcase_add_test(tests, finds_what_was_inserted);
 *         suite_add_tcase(suite, tests);
 *         return unit_main(suite);
 *     }
 *
 * prints
 *
 *     TAP version 13
 *     ok 1 - map/finds_what_was_inserted
 *     1..1
 *
 * Each assertion of check costs a system call: a loop of a million rounds counts what is wrong and
 * asserts once. Each test runs in a process of its own; CK_FORK=no keeps them in this one, for a
 * debugger. CK_RUN_CASE, CK_DEFAULT_TIMEOUT and check's other variables work as check documents
 * them. */
#ifndef TESTS_LIB_UNIT_H
#define TESTS_LIB_UNIT_H

#include <check.h>

/* Built with a sanitizer: everything takes its time, children most of all. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { UNIT_SANITIZED = 1 };
#else
enum { UNIT_SANITIZED = 0 };
#endif

/* Runs and frees the suite. Returns 0 when every test passed, else 1: the program's exit status. */
int unit_main(Suite *suite);

#endif
