/* The store from outside: a copy of a running broker's, and what is done to one at rest, under the
 * lock that a broker would have. */
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/directory.h"
#include "base/log.h"
#include "data_dir.h"
#include "store/offline.h"
#include "tools/stoatctl.h"

/* ---- backup ---------------------------------------------------------------------------------- */

/* The broker makes the copy in its data directory, outside of which it writes nothing, and we take
 * it from there to where it is wanted. What cannot be taken stays there until the next backup. */

static int write_all(int fd, const uint8_t *octets, size_t size)
{
    while (size > 0) {
        const ssize_t written = write(fd, octets, size);
        if (written < 0)
            return -errno;
        octets += written;
        size -= (size_t)written;
    }
    return 0;
}

/* Everything that can be read goes to the end of the other, and is synced; 0 or -errno. Plainly, as
 * no shorter way leads to every file system. */
static int copy_octets(int from, int to)
{
    static uint8_t piece[1 << 20];
    ssize_t size;

    while ((size = read(from, piece, sizeof(piece))) > 0) {
        const int result = write_all(to, piece, (size_t)size);
        if (result < 0)
            return result;
    }
    return size < 0 || fsync(to) < 0 ? -errno : 0;
}

/* Onto what has come there meanwhile only when told to. */
static int place(const char *from, const char *to, bool force)
{
    int result = renameat2(AT_FDCWD, from, AT_FDCWD, to, force ? 0 : RENAME_NOREPLACE);

    if (result < 0 && errno == EINVAL) /* a file system that cannot tell */
        result = rename(from, to);
    return result == 0 ? 0 : -errno;
}

/* The copy is whose the file was, as it is where it has been moved. */
static int copy_with_owner(int from, int to)
{
    struct stat status;

    if (fstat(from, &status) < 0 ||
        (geteuid() == 0 && fchown(to, status.st_uid, status.st_gid) < 0))
        return -errno;
    return S_ISREG(status.st_mode) ? copy_octets(from, to) : -EINVAL;
}

/* Unless somebody has put another one there since. */
static void remove_copied(int copied, const char *path)
{
    struct stat ours, found;

    if (fstat(copied, &ours) == 0 && lstat(path, &found) == 0 && ours.st_dev == found.st_dev &&
        ours.st_ino == found.st_ino)
        unlink(path);
}

/* To another file system: beside its place first. */
static int copy_file(const char *from, const char *to, bool force)
{
    const int source = open(from, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (source < 0)
        return -errno;
    char *part = xasprintf("%s.part", to);
    unlink(part);
    const int target = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int result = target < 0 ? -errno : copy_with_owner(source, target);

    if (result == 0)
        result = place(part, to, force);
    if (result == 0)
        result = directory_sync_of(to);
    if (result == 0)
        remove_copied(source, from);
    else if (target >= 0)
        unlink(part);
    if (target >= 0)
        close(target);
    close(source);
    free(part);
    return result;
}

static int take_file(const char *from, const char *to, bool force)
{
    const int result = place(from, to, force);

    if (result == -EXDEV)
        return copy_file(from, to, force);
    return result == 0 ? directory_sync_of(to) : result;
}

/* Whether it is over: then *status is what came of it, and *file its name in the data directory. */
static bool look_at_backup(struct client *client, char **file, int *status)
{
    struct reply reply;

    *status = client_request(client, "GET", "/api/control/backup", &reply);
    if (*status != EX_OK)
        return true;
    const char *error = json_string_value(json_object_get(reply.body, "error"));
    const bool runs = json_is_true(json_object_get(reply.body, "running"));
    if (error != NULL) {
        complain("%s", error);
        *status = EX_SOFTWARE;
    } else if (!runs) {
        *file = xstrdup(json_string_value(json_object_get(reply.body, "file")));
    }
    json_decref(reply.body);
    return !runs;
}

static int start_backup(struct client *client)
{
    struct reply reply;

    int status = client_send(client, "POST", "/api/control/backup", NULL, &reply);
    if (status != EX_OK)
        return status;
    if (reply.status == 400) {
        complain("%s", json_string_value(json_object_get(reply.body, "reason")));
        status = EX_DATAERR;
    }
    json_decref(reply.body);
    return status;
}

static int fetch_backup(const struct options *options, const char *file, const char *path)
{
    char *directory = directory_of(options->socket_path);
    char *made = xasprintf("%s/%s", directory, file);
    struct stat found = {0};
    int result = stat(made, &found) < 0 ? -errno : take_file(made, path, options->force);

    if (result == 0)
        announce(options, "Wrote %.1f MB to %s", (double)found.st_size / 1e6, path);
    else if (access(made, F_OK) == 0)
        complain(
            "cannot write %s: %s; the copy is %s until the next backup, or start of the broker",
            path, strerror(-result), made);
    else
        complain("cannot write %s: %s", path, strerror(-result));
    free(made);
    free(directory);
    return result == 0 ? EX_OK : EX_SOFTWARE;
}

static bool is_same_directory(const char *one, const char *other)
{
    struct stat a, b;

    return stat(one, &a) == 0 && stat(other, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* Whether a file may be made in the directory, which is no broker's, least of all the one that is
 * asked; or we have told why not. */
static bool may_hold_backup(const struct options *options, const char *directory)
{
    char *own = directory_of(options->socket_path);
    char used[DATA_DIR_ERROR_SIZE];
    bool may = false;

    if (access(directory, W_OK) < 0)
        complain("%s: %s", directory, strerror(errno));
    else if (is_same_directory(directory, own))
        complain("%s is the broker's data directory; write the backup somewhere else", directory);
    else if (data_dir_is_used(directory, used))
        complain("%s, or write the backup somewhere else", used);
    else
        may = true;
    free(own);
    return may;
}

static bool may_write_backup(const struct options *options, const char *path)
{
    char *directory = directory_of(path);
    struct stat found;
    bool may = may_hold_backup(options, directory);

    free(directory);
    if (!may || lstat(path, &found) < 0)
        return may;
    if (!S_ISREG(found.st_mode))
        complain("%s is there, and is not a file", path);
    else if (!options->force)
        complain("%s is there already; --force replaces it", path);
    return S_ISREG(found.st_mode) && options->force;
}

int run_backup(struct client *client, const struct options *options, const char *command, int count,
               char **words)
{
    char *file = NULL;
    (void)command;
    (void)count;

    if (!may_write_backup(options, words[0]))
        return EX_DATAERR;
    announce(options, "Backing up the broker at %s ...", options->socket_path);
    int status = start_backup(client);
    if (status == EX_OK)
        while (!look_at_backup(client, &file, &status))
            poll(NULL, 0, 100);
    if (status == EX_OK)
        status = fetch_backup(options, file, words[0]);
    free(file);
    return status;
}

/* ---- at rest --------------------------------------------------------------------------------- */

/* The lock of a directory that holds a store; or -errno: told. From here on nothing is logged, as
 * what is found is told. */
static int lock_store(const char *directory)
{
    char error[DATA_DIR_ERROR_SIZE];
    int result = offline_begin(directory, error);

    log_level = LOG_NONE;
    if (result == 0)
        result = data_dir_lock(directory, error);
    if (result < 0)
        complain("%s", error);
    return result;
}

struct verification {
    const struct options *options;
    const char *directory;
};

static void on_finding(void *context, const char *text)
{
    (void)context;
    printf("%s\n", text);
}

/* 0, too, where there is no such queue. */
static uint64_t count_messages(const struct database *database, uint64_t queue_id)
{
    const struct key name = key_u64(queue_id);
    MDB_val key = val_of(key_slice(&name)), value;
    struct queue_row row = {0};
    MDB_txn *txn;

    if (mdb_txn_begin(database->env, NULL, MDB_RDONLY, &txn) != 0)
        return 0;
    if (mdb_get(txn, database->dbi[DB_QUEUE], &key, &value) == 0)
        queue_row_decode(key_slice(&name), slice_of_val(value), &row);
    mdb_txn_abort(txn);
    return row.count;
}

static void announce_counts(const struct options *options, const struct verify *verify)
{
    const uint64_t quarantined = count_messages(verify->database, definitions_quarantine());

    announce(options,
             "%" PRIu64 " definitions, %" PRIu64 " queues, %" PRIu64 " messages in %" PRIu64
             " segments, %" PRIu64 " blobs of %.1f MB",
             verify->records, verify->queues, verify->entries, verify->segments, verify->blobs,
             (double)verify->size / 1e6);
    if (quarantined > 0)
        announce(options, "One of the queues is the quarantine, with %" PRIu64 " of the messages.",
                 quarantined);
}

static int verify_store(const struct verification *verification, char error[STORE_ERROR_SIZE])
{
    struct database database;
    struct verify verify;
    int rc = database_open_read_only(&database, verification->directory, DATABASE_ALONE, error);

    if (rc != 0)
        return rc;
    verify_begin(&verify, &database, on_finding, NULL);
    verify.is_sound = definitions_are_sound;
    rc = offline_verify(&verify, error);
    announce_counts(verification->options, &verify);
    database_close(&database);
    if (rc == 0 && verify.findings > 0) {
        snprintf(error, STORE_ERROR_SIZE, "the store is damaged: %" PRIu64 " findings",
                 verify.findings);
        rc = -EBADMSG;
    }
    return rc;
}

static int verify_as_child(void *context, struct child *child)
{
    int result = -ENOMEM;

    child->stage = "verifying";
    if (definitions_begin())
        result = verify_store(context, child->error);
    else
        snprintf(child->error, sizeof child->error,
                 "cannot set up a broker to read definitions with");
    definitions_end();
    return result;
}

int run_verify(struct client *client, const struct options *options, const char *command, int count,
               char **words)
{
    struct verification verification = {options, words[0]};
    char error[STORE_ERROR_SIZE];
    (void)client;
    (void)command;
    (void)count;

    const int lock = lock_store(words[0]);
    if (lock < 0)
        return offline_exit_status(lock);
    announce(options, "Verifying the store in %s ...", words[0]);
    int result = offline_look(words[0], error);
    if (result == 0)
        result = offline_run(verify_as_child, &verification, words[0], error);
    if (result == 0)
        announce(options, "The store is sound.");
    else
        complain("%s", error);
    close(lock);
    return offline_exit_status(result);
}

static volatile sig_atomic_t stopped_by; /* a signal; 0: none */

static void on_stop_signal(int number)
{
    stopped_by = number;
}

static bool compaction_goes_on(void *context)
{
    (void)context;
    return stopped_by == 0;
}

/* Who is told to go takes what there is of the new file along. */
static int compact_store(const char *directory, char error[STORE_ERROR_SIZE])
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    const struct store_waiting waiting = {.goes_on = compaction_goes_on};

    for (size_t i = 0; i < countof(numbers); i++)
        signal(numbers[i], on_stop_signal);
    const int result = offline_compact(directory, &waiting, error);
    if (result == -ECANCELED) {
        signal(stopped_by, SIG_DFL);
        raise(stopped_by);
    }
    return result;
}

int run_compact(struct client *client, const struct options *options, const char *command,
                int count, char **words)
{
    char error[STORE_ERROR_SIZE];
    (void)client;
    (void)command;
    (void)count;

    const int lock = lock_store(words[0]);
    if (lock < 0)
        return offline_exit_status(lock);
    const uint64_t before = offline_file_size(words[0]);
    announce(options, "Compacting the store in %s ...", words[0]);
    const int result = compact_store(words[0], error);
    if (result != 0)
        complain("%s", error);
    else
        announce(options, "%.1f MB became %.1f MB", (double)before / 1e6,
                 (double)offline_file_size(words[0]) / 1e6);
    close(lock);
    return offline_exit_status(result);
}
