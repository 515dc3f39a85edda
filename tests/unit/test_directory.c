/* Directories: of what path, and synced. */
#include "base/directory.h"

#include <unistd.h>

#include "tests/lib/unit.h"

static char folder[] = "/tmp/test_directory.XXXXXX";

static void setup(void)
{
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void teardown(void)
{
    ck_assert_int_eq(rmdir(folder), 0);
}

START_TEST(is_that_of_the_path)
{
    static const char *const cases[][2] = {
        {"/a/b", "/a"}, {"/a", "/"}, {"a", "."}, {"a/b/", "a"}, {"./a/b", "./a"}};

    for (size_t i = 0; i < countof(cases); i++) {
        char *directory = directory_of(cases[i][0]);
        ck_assert_str_eq(directory, cases[i][1]);
        free(directory);
    }
}
END_TEST

START_TEST(is_synced)
{
    char path[64];

    snprintf(path, sizeof(path), "%s/own", folder);
    ck_assert_int_eq(directory_sync_of(path), 0);
    snprintf(path, sizeof(path), "%s/no/own", folder);
    ck_assert_int_eq(directory_sync_of(path), -ENOENT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("directory");
    TCase *tests = tcase_create("directory");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, is_that_of_the_path);
    tcase_add_test(tests, is_synced);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
