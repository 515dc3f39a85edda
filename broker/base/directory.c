#include "base/directory.h"

#include <fcntl.h>
#include <libgen.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

char *directory_of(const char *path)
{
    char *copy = xstrdup(path); /* dirname spoils what it is given */
    char *directory = xstrdup(dirname(copy));

    free(copy);
    return directory;
}

int directory_sync_of(const char *path)
{
    char *directory = directory_of(path);
    const int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int result = fd < 0 || fsync(fd) < 0 ? -errno : 0;

    if (fd >= 0)
        close(fd);
    free(directory);
    return result;
}

/* A file with a second name may be one of root's own that the user has linked to. */
static bool is_for(const struct stat *owner, const struct stat *file)
{
    return file->st_uid == 0 && owner->st_uid != 0 &&
           (S_ISDIR(file->st_mode) || (S_ISREG(file->st_mode) && file->st_nlink == 1));
}

int directory_give(const char *directory, const char *name)
{
    struct stat owner, file;
    int result = 0;

    if (geteuid() != 0)
        return 0;
    char *path = xasprintf("%s/%s", directory, name);
    const int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC); /* which costs no lock at its end */
    free(path);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    if (stat(directory, &owner) < 0 || fstat(fd, &file) < 0 ||
        (is_for(&owner, &file) && fchownat(fd, "", owner.st_uid, owner.st_gid, AT_EMPTY_PATH) < 0))
        result = -errno;
    close(fd);
    return result;
}
