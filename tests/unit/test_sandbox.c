/* sandbox: each test walls in a process of its own and tries both sides. check itself asks for more
 * than a broker needs, so the process says by its status which line was not as it should be. */
#include "sandbox.h"

#include <fcntl.h>
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "manage/control_socket.h"
#include "tests/lib/unit.h"

static char room[64], outside[64];

static void setup(void)
{
    snprintf(room, sizeof(room), "sandbox-XXXXXX");
    snprintf(outside, sizeof(outside), "outside-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(room));
    ck_assert_ptr_nonnull(mkdtemp(outside));
}

static int try_open(const char *directory, const char *name, int flags)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    const int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    return fd >= 0 ? 0 : errno;
}

/* The line where something was not so, as far as a status can tell; 0: all was. */
#define expect(condition)                                                                          \
    do {                                                                                           \
        if (!(condition))                                                                          \
            _exit(__LINE__ % 255 + 1);                                                             \
    } while (0)

static void run_walled_in(void (*check)(void))
{
    int status = -1;
    const pid_t child = fork();

    if (child == 0) {
        check();
        _exit(0);
    }
    ck_assert_int_gt(child, 0);
    ck_assert_int_eq(child, waitpid(child, &status, 0));
    ck_assert_msg(status == 0, "status %#x", (unsigned)status);
}

static bool is_missing(long result)
{
    return result == -1 && errno == ENOSYS;
}

static void *open_in_thread(void *argument)
{
    bool *missing = argument;

    *missing = is_missing(socket(AF_INET, SOCK_STREAM, 0));
    return NULL;
}

static void check_files(void)
{
    const char *const writable[] = {room, "/dev/null", "/does/not/exist", NULL};
    const char *const readable[] = {"/etc/hostname", NULL}; /* for its directory */
    char device[128];

    expect(try_open(outside, "file", O_CREAT | O_RDWR) == 0);
    const int result = sandbox_files(writable, readable);
    if (result == -ENOSYS || result == -EOPNOTSUPP) {
        dprintf(STDOUT_FILENO, "# this kernel has no Landlock: only that it says so is tested\n");
        return;
    }
    expect(result == 0);
    expect(try_open(room, "file", O_CREAT | O_RDWR) == 0);
    expect(try_open(room, "file", O_RDWR | O_TRUNC) == 0);
    expect(try_open("/dev", "null", O_WRONLY) == 0);
    expect(try_open("/etc", "passwd", O_RDONLY) == 0);
    expect(try_open("/etc", "passwd", O_WRONLY) == EACCES);
    expect(try_open(outside, "file", O_RDONLY) == EACCES);
    expect(try_open(outside, "other", O_CREAT | O_RDWR) == EACCES);
    expect(try_open("/usr/bin", "env", O_RDONLY) == EACCES);
    snprintf(device, sizeof(device), "%s/device", room);
    expect(mknod(device, S_IFIFO | 0600, 0) != 0);
}

/* As a service manager's filter does that was written before there was Landlock. */
static void check_a_kernel_kept_from_us(void)
{
    const char *const none[] = {NULL};
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

    expect(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(landlock_create_ruleset), 0) ==
           0);
    expect(seccomp_load(filter) == 0);
    expect(sandbox_files(none, none) == -EPERM);
}

/* Whoever the broker runs as may ask it: control_socket.c knows the peer by its user. */
static void check_the_operator(void)
{
    int pair[2];

    expect(getuid() != 0 || setuid(65534) == 0);
    expect(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    expect(sandbox_calls() == 0);
    expect(control_socket_admits(pair[0]));
}

static void check_what_it_needs(void)
{
    bool missing = false;
    pthread_t thread;

    expect(sandbox_calls() == 0);
    expect(pthread_create(&thread, NULL, open_in_thread, &missing) == 0);
    expect(pthread_join(thread, NULL) == 0 && missing);
    const int local = socket(AF_UNIX, SOCK_DGRAM, 0);
    expect(local >= 0 && close(local) == 0);
    expect(try_open(room, "file", O_CREAT | O_RDWR) == 0);
    void *large = malloc(64 * 1024 * 1024);
    expect(large != NULL);
    free(large);
}

static void check_what_it_does_not(void)
{
    expect(sandbox_calls() == 0);
    expect(is_missing(socket(AF_INET, SOCK_STREAM, 0)));
    expect(is_missing(fork()));
    expect(is_missing(execl("/bin/true", "true", NULL)));
    expect(is_missing(ptrace(PTRACE_TRACEME, 0, NULL, NULL)));
    expect(is_missing(mount("none", room, "tmpfs", 0, NULL)));
    expect(is_missing(setuid(0)));
    expect(is_missing(kill(getppid(), 0)));
    expect(is_missing(prctl(PR_SET_DUMPABLE, 1)));
}

struct waiting {
    int gate[2]; /* a byte comes when the wall stands */
    bool missing;
};

static void *wait_and_try(void *argument)
{
    struct waiting *waiting = argument;
    char byte;

    if (read(waiting->gate[0], &byte, 1) == 1)
        waiting->missing = is_missing(socket(AF_INET, SOCK_STREAM, 0));
    return NULL;
}

static void check_older_threads(void)
{
    struct waiting waiting = {0};
    pthread_t thread;

    expect(pipe2(waiting.gate, O_CLOEXEC) == 0);
    expect(pthread_create(&thread, NULL, wait_and_try, &waiting) == 0);
    expect(sandbox_calls() == 0);
    expect(write(waiting.gate[1], "!", 1) == 1);
    expect(pthread_join(thread, NULL) == 0);
    expect(waiting.missing);
}

START_TEST(files_are_where_they_may_be)
{
    run_walled_in(check_files);
}
END_TEST

START_TEST(who_keeps_it_away_is_told)
{
    run_walled_in(check_a_kernel_kept_from_us);
}
END_TEST

START_TEST(calls_of_a_broker_go_on)
{
    run_walled_in(check_what_it_needs);
}
END_TEST

START_TEST(the_operator_is_known)
{
    run_walled_in(check_the_operator);
}
END_TEST

START_TEST(other_calls_are_not_there)
{
    run_walled_in(check_what_it_does_not);
}
END_TEST

START_TEST(threads_that_run_already_are_walled_in_too)
{
    run_walled_in(check_older_threads);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sandbox");
    TCase *tests = tcase_create("sandbox");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, files_are_where_they_may_be);
    if (SANDBOX_FITS) {
        tcase_add_test(tests, who_keeps_it_away_is_told);
        tcase_add_test(tests, calls_of_a_broker_go_on);
        tcase_add_test(tests, the_operator_is_known);
        tcase_add_test(tests, other_calls_are_not_there);
        tcase_add_test(tests, threads_that_run_already_are_walled_in_too);
    }
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
