#include "privileges.h"

#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

printf_like(3, 4) static int fail(char error[PRIVILEGES_ERROR_SIZE], int reason, const char *format,
                                  ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(error, PRIVILEGES_ERROR_SIZE, format, arguments);
    va_end(arguments);
    return -reason;
}

static int make_data_dir(const struct passwd *user, const char *path,
                         char error[PRIVILEGES_ERROR_SIZE])
{
    if (mkdir(path, 0700) < 0)
        return errno == EEXIST ? 0
                               : fail(error, errno, "cannot make %s: %s", path, strerror(errno));
    if (chown(path, user->pw_uid, user->pw_gid) < 0)
        return fail(error, errno, "cannot give %s to user %s: %s", path, user->pw_name,
                    strerror(errno));
    return 0;
}

static int change_user(const struct passwd *user, char error[PRIVILEGES_ERROR_SIZE])
{
    if (initgroups(user->pw_name, user->pw_gid) < 0 ||
        setresgid(user->pw_gid, user->pw_gid, user->pw_gid) < 0 ||
        setresuid(user->pw_uid, user->pw_uid, user->pw_uid) < 0) /* capabilities go with it */
        return fail(error, errno, "cannot become user %s: %s", user->pw_name, strerror(errno));
    if (setuid(0) == 0 || geteuid() != user->pw_uid || getegid() != user->pw_gid)
        return fail(error, EPERM, "became user %s, but could become root again", user->pw_name);
    return 0;
}

int privileges_become(const char *name, const char *data_dir, char error[PRIVILEGES_ERROR_SIZE])
{
    errno = 0;
    const struct passwd *user = getpwnam(name);

    if (user == NULL)
        return fail(error, ENOENT, "there is no user %s (user): %s", name,
                    errno == 0 ? "name it as /etc/passwd does" : strerror(errno));
    if (user->pw_uid == geteuid())
        return 0;
    if (geteuid() != 0)
        return fail(error, EPERM,
                    "only root can become user %s (user): start as root or as that user", name);
    const int result = make_data_dir(user, data_dir, error);
    return result < 0 ? result : change_user(user, error);
}
