#include "privileges.h"

#include <fcntl.h>
#include <libgen.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/directory.h"
#include "base/identity.h"

printf_like(3, 4) static int fail(char error[PRIVILEGES_ERROR_SIZE], int reason, const char *format,
                                  ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(error, PRIVILEGES_ERROR_SIZE, format, arguments);
    va_end(arguments);
    return -reason;
}

/* 1: it is there already. The new one is held by a descriptor before it is given away: where others
 * may write to what holds it, its name may soon be that of something else. */
static int make_and_give(const struct passwd *user, int parent, const char *name)
{
    int result = 0;

    if (mkdirat(parent, name, 0700) < 0)
        return errno == EEXIST ? 1 : -errno;
    const int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (fchown(fd, user->pw_uid, user->pw_gid) < 0)
        result = -errno;
    close(fd);
    return result;
}

static int make_data_dir(const struct passwd *user, const char *path,
                         char error[PRIVILEGES_ERROR_SIZE])
{
    char *above = directory_of(path), *last = xstrdup(path);
    const int parent = open(above, O_PATH | O_DIRECTORY | O_CLOEXEC);
    const int result = parent < 0 ? -errno : make_and_give(user, parent, basename(last));

    if (parent >= 0)
        close(parent);
    free(above);
    free(last);
    return result < 0 ? fail(error, -result, "cannot make %s for user %s: %s", path, user->pw_name,
                             strerror(-result))
                      : 0;
}

/* Within the sandbox users have no names any more. */
static char *name_of_user(void)
{
    const struct passwd *user = getpwuid(geteuid());

    return user != NULL ? xstrdup(user->pw_name) : xasprintf("%ld", (long)geteuid());
}

/* A directory that is not found was to be made. In a container another system's root reads this,
 * who knows the user by number. */
void privileges_explain(const char *path, int reason, char error[PRIVILEGES_ERROR_SIZE])
{
    char *name = name_of_user(), *above = directory_of(path);
    const char *text = strerror(reason);

    if (access(path, F_OK) == 0)
        fail(error, reason,
             "user %s cannot use what is in the data directory %s: %s; give it to that user, as "
             "chown -R %s %s does",
             name, path, text, name, path);
    else if (errno == ENOENT)
        fail(error, reason,
             "user %s cannot make the data directory %s: %s; let that user write to %s, as "
             "chown %ld %s does, or name another (data_dir)",
             name, path, text, above, (long)geteuid(), above);
    else
        fail(error, reason,
             "user %s cannot reach the data directory %s: %s; let that user into the directories "
             "that lead there, or name another (data_dir)",
             name, path, text);
    free(above);
    free(name);
}

/* As that user. */
static int check_data_dir(const char *path, char error[PRIVILEGES_ERROR_SIZE])
{
    if (access(path, R_OK | W_OK | X_OK) == 0)
        return 0;
    const int reason = errno;
    privileges_explain(path, reason, error);
    return -reason;
}

static int change_user(const struct passwd *user, char error[PRIVILEGES_ERROR_SIZE])
{
    const int result = identity_become(user);

    return result == 0 ? 0
                       : fail(error, -result, "cannot become user %s: %s", user->pw_name,
                              strerror(-result));
}

/* NULL: there is none. */
static const struct passwd *find_user(const char *name, const char *origin,
                                      char error[PRIVILEGES_ERROR_SIZE])
{
    errno = 0;
    const struct passwd *user = getpwnam(name);

    if (user == NULL)
        fail(error, ENOENT, "there is no user %s (user%s): %s", name, origin,
             errno == 0 ? "name it as /etc/passwd does" : strerror(errno));
    return user;
}

int privileges_check(const char *name, const char *origin, char error[PRIVILEGES_ERROR_SIZE])
{
    return find_user(name, origin, error) == NULL ? -ENOENT : 0;
}

int privileges_become(const char *name, const char *data_dir, char error[PRIVILEGES_ERROR_SIZE])
{
    const struct passwd *user = find_user(name, "", error);

    if (user == NULL)
        return -ENOENT;
    if (user->pw_uid == geteuid())
        return 0;
    if (geteuid() != 0)
        return fail(error, EPERM,
                    "only root can become user %s (user): start as root or as that user", name);
    int result = make_data_dir(user, data_dir, error);
    if (result == 0)
        result = change_user(user, error);
    return result == 0 ? check_data_dir(data_dir, error) : result;
}

int privileges_shed(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
    const uint32_t kept = 1U << CAP_DAC_READ_SEARCH | 1U << CAP_NET_BIND_SERVICE;

    if (syscall(SYS_capget, &header, sets) < 0)
        return -errno;
    for (size_t i = 0; i < countof(sets); i++) {
        const uint32_t left = i == 0 ? sets[i].permitted & kept : 0;
        sets[i] = (struct __user_cap_data_struct){.effective = left, .permitted = left};
    }
    return syscall(SYS_capset, &header, sets) < 0 ? -errno : 0;
}
