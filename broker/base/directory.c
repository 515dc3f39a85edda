#include "base/directory.h"

#include <fcntl.h>
#include <libgen.h>
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
