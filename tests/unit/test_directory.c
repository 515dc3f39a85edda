/* Directories: of what path, synced, and given what root makes in them. */
#include "base/directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/unit.h"

static char folder[] = "/tmp/test_directory.XXXXXX";
static int fd;

static void setup(void)
{
    ck_assert_ptr_nonnull(mkdtemp(folder));
    fd = open(folder, O_RDONLY | O_DIRECTORY);
    ck_assert_int_ge(fd, 0);
}

static void teardown(void)
{
    static const char *const names[] = {"own", "linked", "other", "link"};

    for (size_t i = 0; i < countof(names); i++)
        unlinkat(fd, names[i], 0);
    unlinkat(fd, "inner", AT_REMOVEDIR);
    close(fd);
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

static uid_t owner_of(const char *name)
{
    struct stat status;

    ck_assert_int_eq(fstatat(fd, name, &status, AT_SYMLINK_NOFOLLOW), 0);
    ck_assert_uint_eq(status.st_uid, status.st_gid);
    return status.st_uid;
}

static void make(const char *name)
{
    close(openat(fd, name, O_WRONLY | O_CREAT, 0600));
}

START_TEST(what_root_makes_is_its_owners)
{
    make("own");
    ck_assert_int_eq(directory_give(folder, "own"), 0); /* to whom it belongs already */
    ck_assert_uint_eq(owner_of("own"), geteuid());
    ck_assert_int_eq(directory_give(folder, "absent"), 0);
    if (geteuid() != 0)
        return;

    ck_assert_int_eq(fchown(fd, 7, 7), 0);
    ck_assert_int_eq(mkdirat(fd, "inner", 0700), 0);
    ck_assert_int_eq(directory_give(folder, "own"), 0);
    ck_assert_int_eq(directory_give(folder, "inner"), 0);
    ck_assert_uint_eq(owner_of("own"), 7);
    ck_assert_uint_eq(owner_of("inner"), 7);

    make("linked");
    ck_assert_int_eq(linkat(fd, "linked", fd, "other", 0), 0);
    ck_assert_int_eq(symlinkat("/etc/passwd", fd, "link"), 0);
    ck_assert_int_eq(directory_give(folder, "linked"), 0);
    ck_assert_int_eq(directory_give(folder, "link"), 0);
    ck_assert_uint_eq(owner_of("linked"), 0);
    ck_assert_uint_eq(owner_of("link"), 0);
    struct stat passwd;
    ck_assert(stat("/etc/passwd", &passwd) == 0 && passwd.st_uid == 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("directory");
    TCase *tests = tcase_create("directory");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, is_that_of_the_path);
    tcase_add_test(tests, is_synced);
    tcase_add_test(tests, what_root_makes_is_its_owners);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
