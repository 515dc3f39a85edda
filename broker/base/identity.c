#include "base/identity.h"

#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

static int take_on(uid_t user, gid_t group)
{
    if (setresgid(group, group, group) < 0 || setresuid(user, user, user) < 0)
        return -errno;
    const bool is_so = geteuid() == user && getegid() == group && setuid(0) < 0;
    return is_so ? 0 : -EPERM;
}

int identity_become(const struct passwd *user)
{
    return initgroups(user->pw_name, user->pw_gid) < 0 ? -errno
                                                       : take_on(user->pw_uid, user->pw_gid);
}

int identity_become_owner(const char *path)
{
    struct stat status;

    if (geteuid() != 0)
        return 0;
    if (stat(path, &status) < 0)
        return -errno;
    if (status.st_uid == 0)
        return 0;
    const struct passwd *user = getpwuid(status.st_uid);
    if (user != NULL)
        return identity_become(user);
    return setgroups(0, NULL) < 0 ? -errno : take_on(status.st_uid, status.st_gid);
}
