/* The data directory: made, locked, and refused with a sentence. */
#include "data_dir.h"

#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "tests/lib/unit.h"

static char folder[] = "/tmp/test_data_dir.XXXXXX";
static char path[64];
static char error[DATA_DIR_ERROR_SIZE];

static int syncs; /* of the folder */

int fsync(int fd);

int fsync(int fd)
{
    struct stat synced, wanted;

    syncs +=
        fstat(fd, &synced) == 0 && stat(folder, &wanted) == 0 && synced.st_ino == wanted.st_ino;
    return (int)syscall(SYS_fsync, fd);
}

static bool disk_full; /* no file can grow, and none has room for what is in it elsewhere */

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset);

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    struct stat status;

    if (disk_full && fstat(fd, &status) == 0 && offset + (off_t)size > status.st_size) {
        errno = ENOSPC;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, bytes, size, offset);
}

static void setup(void)
{
    log_level = LOG_NONE;
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/data", folder);
}

static void teardown(void)
{
    char *command = xasprintf("rm -r %s", folder);
    ck_assert_int_eq(system(command), 0);
    free(command);
}

START_TEST(is_made_and_locked)
{
    const int fd = data_dir_lock(path, error);
    ck_assert_int_ge(fd, 0);
    struct stat status;
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_uint_eq(status.st_mode & 0777, 0700);

    ck_assert_int_eq(data_dir_lock(path, error), -EWOULDBLOCK);
    char *wanted = xasprintf("a broker (pid %ld) is using %s; stop it first", (long)getpid(), path);
    ck_assert_str_eq(error, wanted);
    free(wanted);
    ck_assert_int_eq(ftruncate(fd, 0), 0); /* as between the other's lock and its pid */
    ck_assert_int_eq(data_dir_lock(path, error), -EWOULDBLOCK);
    ck_assert_ptr_nonnull(strstr(error, "a broker is using "));

    close(fd);
    const int again = data_dir_lock(path, error);
    ck_assert_int_ge(again, 0);
    close(again);
}
END_TEST

static void check_sentence(const char *wanted)
{
    ck_assert_int_eq(data_dir_lock(path, error), -EWOULDBLOCK);
    ck_assert_msg(strncmp(error, wanted, strlen(wanted)) == 0, "%s", error);
}

/* What has been written once has its place; what has none is no reason not to start. */
START_TEST(a_full_disk_is_no_hindrance)
{
    char *file = xasprintf("%s/lock", path);
    char *ours = xasprintf("a broker (pid %ld) is using ", (long)getpid());

    close(data_dir_lock(path, error));
    FILE *lock = fopen(file, "r+");
    ck_assert_ptr_nonnull(lock);
    fprintf(lock, "%-20ld", 4194304L);
    fclose(lock);
    disk_full = true;
    int fd = data_dir_lock(path, error);
    ck_assert_int_ge(fd, 0);
    check_sentence(ours);
    close(fd);

    lock = fopen(file, "w");
    ck_assert_ptr_nonnull(lock);
    fputs("4194304", lock);
    fclose(lock);
    fd = data_dir_lock(path, error);
    ck_assert_int_ge(fd, 0);
    check_sentence("a broker is using ");
    close(fd);
    disk_full = false;
    free(ours);
    free(file);
}
END_TEST

START_TEST(a_new_name_is_synced)
{
    close(data_dir_lock(path, error));
    ck_assert_int_eq(syncs, 1);
    close(data_dir_lock(path, error));
    ck_assert_int_eq(syncs, 1);
}
END_TEST

START_TEST(nobody_else_may_write_there)
{
    ck_assert_int_eq(data_dir_check(path, error), 0);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert_int_eq(data_dir_check(path, error), 0);
    for (mode_t bit = S_IWOTH; bit <= S_IWGRP; bit = bit == S_IWOTH ? S_IWGRP : S_IWGRP << 1) {
        ck_assert_int_eq(chmod(path, 0700 | bit), 0);
        ck_assert_int_eq(data_dir_check(path, error), -EPERM);
        ck_assert_ptr_nonnull(strstr(error, "chmod go-w /tmp/"));
    }
    ck_assert_int_eq(chmod(path, 0755), 0);
    ck_assert_int_eq(data_dir_check(path, error), 0);
    if (geteuid() != 0)
        return;
    ck_assert_int_eq(chown(path, 1, 1), 0);
    ck_assert_int_eq(data_dir_check(path, error), -EPERM);
    ck_assert_ptr_nonnull(strstr(error, "belongs to another user"));
    ck_assert_ptr_nonnull(strstr(error, "/data/data"));
}
END_TEST

START_TEST(refusals_say_why)
{
    char *nowhere = xasprintf("%s/no/where", folder);
    ck_assert_int_eq(data_dir_lock(nowhere, error), -ENOENT);
    ck_assert_ptr_nonnull(strstr(error, "cannot make the data directory /tmp/"));
    ck_assert_ptr_nonnull(strstr(error, ": No such file or directory"));
    free(nowhere);

    fclose(fopen(path, "w"));
    ck_assert_int_eq(data_dir_lock(path, error), -ENOTDIR);
    ck_assert_ptr_nonnull(strstr(error, "cannot open the data directory "));
    unlink(path);

    ck_assert_int_eq(mkdir(path, 0700), 0);
    char *lock = xasprintf("%s/lock", path);
    ck_assert_int_eq(symlink("/dev/null", lock), 0);
    ck_assert_int_eq(data_dir_lock(path, error), -ELOOP);
    free(lock);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("data_dir");
    TCase *tests = tcase_create("data_dir");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, is_made_and_locked);
    tcase_add_test(tests, a_full_disk_is_no_hindrance);
    tcase_add_test(tests, a_new_name_is_synced);
    tcase_add_test(tests, nobody_else_may_write_there);
    tcase_add_test(tests, refusals_say_why);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
