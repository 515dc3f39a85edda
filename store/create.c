/* LMDB makes a new file by writing two meta pages that nothing syncs before the first commit, and
 * never syncs the directory: after a power cut there may be a file that it refuses to open, or none
 * although a commit had returned. So an empty one is made beside, and moved into place when it is
 * whole:
 *
 *     data.new: written, synced ──rename──▶ data.mdb, the directory synced
 *
 * LMDB makes lock.mdb only then. So where that is and the other is not, somebody has taken the
 * store away: an empty one in its place would take in what is lost when the old one comes back.
 * Where data.mdb is without the other, nobody knows whether its name was synced: the start before
 * may have been killed in between, or somebody put it there. So that is done, again.
 *
 * What an attempt that was cut short left behind is removed by the next. */
#include "store/create.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

static int write_empty(const char *path)
{
    MDB_env *env;
    int rc = mdb_env_create(&env);

    if (rc != 0)
        return rc;
    rc = mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK, 0600);
    if (rc == 0)
        rc = mdb_env_sync(env, 1);
    mdb_env_close(env);
    return rc;
}

static int sync_name(int directory)
{
    return fsync(directory) == 0 ? 0 : errno;
}

static int move_into_place(int directory)
{
    return renameat(directory, "data.new", directory, "data.mdb") == 0 ? sync_name(directory)
                                                                       : errno;
}

int create_data_file(const char *directory)
{
    char path[4096];
    int rc;

    if (snprintf(path, sizeof path, "%s/data.new", directory) >= (int)sizeof path)
        return ENAMETOOLONG;
    const int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    const bool was_used = faccessat(fd, "lock.mdb", F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    if (faccessat(fd, "data.mdb", F_OK, 0) == 0) {
        rc = was_used ? 0 : sync_name(fd);
    } else if (was_used) {
        rc = ESTALE;
    } else {
        rc = unlinkat(fd, "data.new", 0) == 0 || errno == ENOENT ? write_empty(path) : errno;
        if (rc == 0)
            rc = move_into_place(fd);
    }
    close(fd);
    return rc;
}
