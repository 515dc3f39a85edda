/* identity: each test becomes somebody else in a process of its own. */
#include "base/identity.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/unit.h"

enum { NAMELESS = 4000000000 };

static char folder[] = "/tmp/test_identity.XXXXXX";

static void setup(void)
{
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void teardown(void)
{
    ck_assert_int_eq(rmdir(folder), 0);
}

/* Who one is after becoming the folder's owner: user, group, other groups, and whether there is a
 * way back. */
struct found {
    int result;
    uid_t user;
    gid_t group;
    int group_count;
    bool may_return;
};

static struct found become_owner(const char *path)
{
    struct found found = {0};
    int ends[2], status;

    ck_assert_int_eq(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        found.result = identity_become_owner(path);
        found.user = getuid();
        found.group = getgid();
        found.group_count = getgroups(0, NULL);
        found.may_return = setresuid(0, 0, 0) == 0;
        _exit(write(ends[1], &found, sizeof(found)) != sizeof(found));
    }
    ck_assert_int_eq(read(ends[0], &found, sizeof(found)), sizeof(found));
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    close(ends[0]);
    close(ends[1]);
    return found;
}

START_TEST(its_own_stays_its_own)
{
    const struct found found = become_owner(folder);

    ck_assert_int_eq(found.result, 0);
    ck_assert_uint_eq(found.user, geteuid());
    ck_assert_uint_eq(found.group, getegid());
}
END_TEST

START_TEST(what_is_not_there_has_no_owner)
{
    ck_assert_int_eq(become_owner("/nowhere/at/all").result, geteuid() == 0 ? -ENOENT : 0);
}
END_TEST

START_TEST(root_becomes_the_owner_for_good)
{
    const struct passwd *nobody = getpwnam("nobody");
    const gid_t more[] = {0, 1};

    ck_assert_ptr_nonnull(nobody);
    ck_assert_int_eq(setgroups(2, more), 0);
    ck_assert_int_eq(chown(folder, nobody->pw_uid, 0), 0); /* which group it has tells nothing */
    struct found found = become_owner(folder);
    ck_assert_int_eq(found.result, 0);
    ck_assert_uint_eq(found.user, nobody->pw_uid);
    ck_assert_uint_eq(found.group, nobody->pw_gid);
    ck_assert_int_eq(found.group_count, 1);
    ck_assert(!found.may_return);

    ck_assert_int_eq(chown(folder, (uid_t)NAMELESS, (gid_t)NAMELESS), 0);
    found = become_owner(folder);
    ck_assert_int_eq(found.result, 0);
    ck_assert_uint_eq(found.user, (uid_t)NAMELESS);
    ck_assert_uint_eq(found.group, (gid_t)NAMELESS);
    ck_assert_int_eq(found.group_count, 0);
    ck_assert(!found.may_return);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("identity");
    TCase *tests = tcase_create("identity");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, its_own_stays_its_own);
    tcase_add_test(tests, what_is_not_there_has_no_owner);
    if (geteuid() == 0)
        tcase_add_test(tests, root_becomes_the_owner_for_good);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
