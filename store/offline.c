/* See offline.h. */
#include "store/offline.h"

#include <signal.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/identity.h"
#include "store/copy.h"
#include "store/salvage.h"

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
    const int result = access(path, R_OK) < 0 ? -errno : 0;

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

static int look(const char *directory, const struct store_waiting *waiting,
                char error[STORE_ERROR_SIZE])
{
    const struct store_options options = {.directory = directory, .waiting = *waiting};
    char why[STORE_ERROR_SIZE];

    const int result = salvage_look(&options, why);
    if (result == -EBADMSG)
        snprintf(error, STORE_ERROR_SIZE,
                 "the store in %s is damaged: %.200s; the next start of a broker salvages it",
                 directory, why);
    else if (result < 0)
        snprintf(error, STORE_ERROR_SIZE,
                 "whether the store in %s is damaged could not be seen: %.200s", directory, why);
    return result;
}

int offline_look(const char *directory, char error[STORE_ERROR_SIZE])
{
    return look(directory, &(struct store_waiting){0}, error);
}

static bool tells_to_go(int number)
{
    return number == SIGINT || number == SIGTERM || number == SIGHUP || number == SIGPIPE;
}

/* What came of the work, if there was a child for it. */
static int settle(const struct child *child, const char *directory, char error[STORE_ERROR_SIZE])
{
    char end[64];

    if (child->signal == 0) {
        memcpy(error, child->error, STORE_ERROR_SIZE);
        return child->result;
    }
    if (tells_to_go(child->signal)) {
        signal(child->signal, SIG_DFL);
        raise(child->signal);
    }
    child_describe(child, end, sizeof end);
    if (child_has_faulted(child)) {
        snprintf(error, STORE_ERROR_SIZE, "the store in %s is damaged: who read it died of %s",
                 directory, end);
        return -EBADMSG;
    }
    snprintf(error, STORE_ERROR_SIZE,
             "who read the store in %s was killed (%s): whether it is damaged is not known",
             directory, end);
    return -ECHILD;
}

static int fail(int result, char error[STORE_ERROR_SIZE])
{
    if (result == -ECHILD)
        snprintf(error, STORE_ERROR_SIZE, "who read the store ended, and did not say why");
    else
        snprintf(error, STORE_ERROR_SIZE, "cannot start a process: %s", strerror(-result));
    return result;
}

int offline_run(child_work *work, void *context, const char *directory,
                char error[STORE_ERROR_SIZE])
{
    struct child child;
    const int result = child_run(work, context, &(struct store_waiting){0}, &child);

    return result < 0 ? fail(result, error) : settle(&child, directory, error);
}

/* A transaction that only reads turns bad when it has met damage. */
int offline_errno(int rc)
{
    return database_is_damage(rc) || rc == MDB_BAD_TXN ? -EBADMSG : database_errno(rc);
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
    const int result = offline_errno(verify->rc);
    if (result != 0)
        snprintf(error, STORE_ERROR_SIZE, "%scannot read on: %s",
                 result == -EBADMSG ? "the store is damaged: " : "", mdb_strerror(verify->rc));
    return result;
}

static int compact(void *context, struct child *child)
{
    const char *directory = context;
    struct copy_control control = {0};
    struct database database;
    char *path = data_file(directory);

    child->stage = "copying";
    int rc = database_open_read_only(&database, directory, DATABASE_ALONE, child->error);
    if (rc == 0) {
        rc = copy_database(&database, path, &control, child->error);
        database_close(&database);
    }
    free(path);
    return rc;
}

int offline_compact(const char *directory, const struct store_waiting *waiting,
                    char error[STORE_ERROR_SIZE])
{
    struct child child;
    int result = look(directory, waiting, error);

    if (result < 0)
        return result;
    result = child_run(compact, (void *)(uintptr_t)directory, waiting, &child);
    if (result < 0 || child.signal != 0) {
        char *path = data_file(directory);
        copy_remove_part(path);
        free(path);
    }
    return result < 0 ? fail(result, error) : settle(&child, directory, error);
}

int offline_exit_status(int result)
{
    switch (result) {
    case 0:
        return EX_OK;
    case -EBADMSG:
        return EX_DATAERR;
    case -ENOENT:
    case -ENOTDIR:
        return EX_NOINPUT;
    case -EACCES:
    case -EPERM:
        return EX_NOPERM;
    case -EWOULDBLOCK:
        return EX_TEMPFAIL;
    default:
        return EX_IOERR;
    }
}
