/* See offline.h. */
#include "store/offline.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/identity.h"
#include "store/copy.h"

static char *data_file(const char *directory)
{
    return xasprintf("%s/data.mdb", directory);
}

uint64_t offline_file_size(const char *directory)
{
    char *path = data_file(directory);
    struct stat status;
    const bool seen = stat(path, &status) == 0;

    free(path);
    return seen ? (uint64_t)status.st_size : 0;
}

static int find_store(const char *directory)
{
    char *path = data_file(directory);
    struct stat status;
    int result = access(path, R_OK) < 0 || stat(path, &status) < 0 ? -errno : 0;

    if (result == 0 && status.st_size == 0)
        result = -ENOENT;
    free(path);
    return result;
}

int offline_begin(const char *directory, char error[STORE_ERROR_SIZE])
{
    const bool as_root = geteuid() == 0;
    int result = identity_become_owner(directory);

    if (result == 0)
        result = find_store(directory);
    if (result == -ENOENT)
        snprintf(error, STORE_ERROR_SIZE, "%s: there is no store", directory);
    else if (result == -EACCES && as_root)
        snprintf(error, STORE_ERROR_SIZE,
                 "%s: %s to its owner, user %u, as whom root works there; the files in it and the "
                 "way to it must be that user's to use",
                 directory, strerror(EACCES), (unsigned)geteuid());
    else if (result < 0)
        snprintf(error, STORE_ERROR_SIZE, "%s: %s", directory, strerror(-result));
    return result;
}

int offline_verify(struct verify *verify, char error[STORE_ERROR_SIZE])
{
    MDB_txn *txn;

    verify->one_snapshot = true;
    verify->rc = mdb_txn_begin(verify->database->env, NULL, MDB_RDONLY, &txn);
    if (verify->rc == 0) {
        while (verify_step(verify, txn, UINT64_MAX / 2))
            ;
        mdb_txn_abort(txn);
    }
    if (verify->rc != 0)
        snprintf(error, STORE_ERROR_SIZE, "cannot read on: %s", mdb_strerror(verify->rc));
    return database_errno(verify->rc);
}

int offline_compact(const char *directory, char error[STORE_ERROR_SIZE])
{
    struct copy_control control = {0};
    struct database database;
    char *path = data_file(directory);
    int rc = database_open_read_only(&database, directory, error);

    if (rc == 0) {
        rc = copy_database(&database, path, &control, error);
        database_close(&database);
    }
    free(path);
    return rc;
}
