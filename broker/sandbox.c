/* Landlock is spoken to by its three system calls, for which the C library has no functions: a set
 * of rules is a descriptor; what a rule does not allow beneath a directory is refused. seccomp goes
 * through libseccomp, which knows the numbers of system calls and how to install a filter in all
 * threads at once. */
#include "sandbox.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/directory.h"

/* ---- files ---- */

enum {
    /* Of the third version of Landlock, which these headers may be too old for. */
    ACCESS_TRUNCATE = 1 << 14,

    READ = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR,
    WRITE = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
            LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |
            LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_REFER |
            ACCESS_TRUNCATE,
    NEVER = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
            LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
            LANDLOCK_ACCESS_FS_MAKE_SYM,
    OF_A_FILE = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | ACCESS_TRUNCATE,
};

/* What this kernel can refuse. 0, or -errno: it has no Landlock, or somebody keeps us from it. */
static int find_access(uint64_t *access)
{
    const long version =
        syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

    *access = READ | WRITE | NEVER;
    if (version < 2)
        *access &= ~(uint64_t)LANDLOCK_ACCESS_FS_REFER;
    if (version < 3)
        *access &= ~(uint64_t)ACCESS_TRUNCATE;
    return version < 0 ? -errno : 0;
}

static int add_rule(int rules, int fd, uint64_t access)
{
    const struct landlock_path_beneath_attr rule = {.allowed_access = access, .parent_fd = fd};

    return syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0
               ? 0
               : -errno;
}

/* The directory that the rule is for; devices stand for themselves. */
static int open_place(const char *path, bool *is_directory)
{
    struct stat status;

    if (stat(path, &status) < 0)
        return -errno;
    *is_directory = S_ISDIR(status.st_mode) || S_ISREG(status.st_mode);
    char *above = S_ISREG(status.st_mode) ? directory_of(path) : NULL;
    const int fd = open(above != NULL ? above : path, O_PATH | O_CLOEXEC);
    const int result = fd < 0 ? -errno : fd;
    free(above);
    return result;
}

static int allow_place(int rules, const char *path, uint64_t access)
{
    bool is_directory = false;
    const int fd = open_place(path, &is_directory);

    if (fd < 0)
        return fd;
    const int result = add_rule(rules, fd, is_directory ? access : access & OF_A_FILE);
    close(fd);
    return result;
}

/* Where the name stands and where its links lead: a renewed certificate is often a link moved to
 * another file. What cannot be reached now cannot be reached later either. */
static int allow(int rules, const char *path, uint64_t access)
{
    char *const target = realpath(path, NULL);

    if (target == NULL)
        return 0;
    int result = allow_place(rules, path, access);
    if (result == 0)
        result = allow_place(rules, target, access);
    free(target);
    return result;
}

static int allow_all(int rules, const char *const *paths, uint64_t access)
{
    int result = 0;

    for (; *paths != NULL && result == 0; paths++)
        result = allow(rules, *paths, access);
    return result;
}

static int gain_no_privileges(void)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? 0 : -errno;
}

int sandbox_files(const char *const *writable, const char *const *readable)
{
    uint64_t known;
    int result = find_access(&known);
    const struct landlock_ruleset_attr attributes = {.handled_access_fs = known};

    if (result < 0)
        return result;
    const int rules = (int)syscall(SYS_landlock_create_ruleset, &attributes, sizeof(attributes), 0);
    if (rules < 0)
        return -errno;
    result = allow_all(rules, writable, known & (READ | WRITE));
    if (result == 0)
        result = allow_all(rules, readable, known & READ);
    if (result == 0)
        result = gain_no_privileges();
    if (result == 0 && syscall(SYS_landlock_restrict_self, rules, 0) < 0)
        result = -errno;
    close(rules);
    return result;
}

/* ---- system calls ---- */

/* By name, with a space behind each. */
static const char calls[] =
    /* descriptors */
    "read write readv writev pread64 pwrite64 preadv pwritev lseek close close_range dup fcntl "
    "ioctl pipe2 eventfd2 epoll_create1 epoll_ctl epoll_wait epoll_pwait poll ppoll select "
    "pselect6 "
    /* sockets; the kind of a new one is looked at below */
    "accept4 recvfrom recvmsg sendto sendmsg shutdown getsockopt setsockopt getsockname "
    "getpeername "
    /* files */
    "open openat stat lstat fstat newfstatat statx statfs fstatfs access faccessat faccessat2 "
    "readlink getdents64 mkdir mkdirat unlink unlinkat rmdir rename renameat renameat2 fsync "
    "fdatasync ftruncate fallocate fchmod flock copy_file_range sendfile fadvise64 "
    /* memory */
    "mmap munmap mremap mprotect madvise msync brk "
    /* threads and time */
    "futex set_robust_list rseq sched_yield sched_getaffinity gettid getpid geteuid exit "
    "exit_group "
    "clock_gettime clock_nanosleep nanosleep gettimeofday getrandom restart_syscall prlimit64 "
    "getrlimit getrusage sysinfo uname "
    /* signals, to ourselves: see below */
    "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait sigaltstack ";

/* One that this machine's kernels do not have is passed over. */
static int allow_named(scmp_filter_ctx filter)
{
    char name[32];
    int result = 0;

    for (const char *at = calls; *at != '\0' && result == 0; at = strchr(at, ' ') + 1) {
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(at, " "), at);
        const int number = seccomp_syscall_resolve_name(name);
        if (number != __NR_SCMP_ERROR)
            result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
    }
    return result;
}

static int allow_calls(scmp_filter_ctx filter)
{
    int result = allow_named(filter);

    /* A thread, never a process. clone3 hides what it is asked for: it is missing here, and the C
     * library falls back to clone. */
    if (result == 0)
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                                  SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
    if (result == 0)
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                                  SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0));
    /* To the service manager; connections come in, none goes out. */
    if (result == 0)
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                                  SCMP_A0(SCMP_CMP_EQ, AF_UNIX, 0));
    return result;
}

int sandbox_calls(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));

    if (filter == NULL)
        return -ENOSYS;
    int result = allow_calls(filter);
    if (result == 0)
        result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    if (result == 0)
        result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a search, not a walk */
    if (result == 0)
        result = seccomp_load(filter);
    seccomp_release(filter);
    return result;
}
