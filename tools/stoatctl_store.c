/* The store from outside: a copy of a running broker's, and what is done to one at rest, under the
 * lock that a broker would have. */
#include <inttypes.h>
#include <libgen.h>
#include <poll.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "data_dir.h"
#include "store/offline.h"
#include "tools/stoatctl.h"

/* ---- backup ---------------------------------------------------------------------------------- */

/* The file's path from the root, for the broker, which has another working directory. NULL: told. */
static char *whole_path(const char *path)
{
    char *copy = xstrdup(path), *again = xstrdup(path), *whole = NULL;
    char *directory = realpath(dirname(copy), NULL);

    if (directory == NULL)
        complain("%s: %s", path, strerror(errno));
    else
        whole = xasprintf("%s/%s", strcmp(directory, "/") == 0 ? "" : directory, basename(again));
    free(directory);
    free(copy);
    free(again);
    return whole;
}

/* Whether it is over: then *status is what came of it. */
static bool look_at_backup(struct client *client, const struct options *options, const char *path,
                           int *status)
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
        announce(options, "Wrote %.1f MB to %s",
                 (double)json_integer_value(json_object_get(reply.body, "size")) / 1e6, path);
    }
    json_decref(reply.body);
    return !runs;
}

static int start_backup(struct client *client, const char *path)
{
    struct reply reply;
    json_t *body = json_pack("{s:s}", "path", path);

    int status = client_send(client, "POST", "/api/control/backup", body, &reply);
    json_decref(body);
    if (status != EX_OK)
        return status;
    if (reply.status == 400) {
        complain("%s", json_string_value(json_object_get(reply.body, "reason")));
        status = EX_DATAERR;
    }
    json_decref(reply.body);
    return status;
}

int run_backup(struct client *client, const struct options *options, const char *command, int count,
               char **words)
{
    char *path = whole_path(words[0]);
    (void)command;
    (void)count;

    if (path == NULL)
        return EX_DATAERR;
    announce(options, "Backing up the broker at %s ...", options->socket_path);
    int status = start_backup(client, path);
    if (status == EX_OK)
        while (!look_at_backup(client, options, path, &status))
            poll(NULL, 0, 100);
    free(path);
    return status;
}

/* ---- at rest --------------------------------------------------------------------------------- */

/* The lock of a directory that holds a store; -1: told. */
static int lock_store(const char *directory)
{
    char error[DATA_DIR_ERROR_SIZE];

    if (!offline_is_store(directory)) {
        complain("%s: there is no store", directory);
        return -1;
    }
    const int fd = data_dir_lock(directory, error);
    if (fd < 0)
        complain("%s", error);
    return fd;
}

static void on_finding(void *context, const char *text)
{
    (void)context;
    printf("%s\n", text);
}

static int verify_store(const struct options *options, const char *directory)
{
    char error[STORE_ERROR_SIZE];
    struct database database;
    struct verify verify;

    if (database_open_read_only(&database, directory, error) != 0) {
        complain("%s", error);
        return EX_DATAERR;
    }
    verify_begin(&verify, &database, on_finding, NULL);
    verify.is_sound = definitions_are_sound;
    const int rc = offline_verify(&verify, error);
    database_close(&database);
    if (rc != 0)
        complain("%s", error);
    announce(options,
             "%" PRIu64 " definitions, %" PRIu64 " queues, %" PRIu64 " messages in %" PRIu64
             " segments, %" PRIu64 " blobs of %.1f MB",
             verify.records, verify.queues, verify.entries, verify.segments, verify.blobs,
             (double)verify.size / 1e6);
    if (rc == 0 && verify.findings == 0)
        announce(options, "The store is sound.");
    else if (rc == 0)
        complain("the store is damaged: %" PRIu64 " findings", verify.findings);
    return rc == 0 && verify.findings == 0 ? EX_OK : EX_DATAERR;
}

int run_verify(struct client *client, const struct options *options, const char *command, int count,
               char **words)
{
    (void)client;
    (void)command;
    (void)count;

    const int lock = lock_store(words[0]);
    if (lock < 0)
        return EX_DATAERR;
    log_level = LOG_NONE; /* findings say the same */
    announce(options, "Verifying the store in %s ...", words[0]);
    int status = EX_SOFTWARE;
    if (definitions_begin())
        status = verify_store(options, words[0]);
    else
        complain("cannot set up a broker to read definitions with");
    definitions_end();
    close(lock);
    return status;
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
        return EX_DATAERR;
    const uint64_t before = offline_file_size(words[0]);
    announce(options, "Compacting the store in %s ...", words[0]);
    const int rc = offline_compact(words[0], error);
    if (rc != 0)
        complain("%s", error);
    else
        announce(options, "%.1f MB became %.1f MB", (double)before / 1e6,
                 (double)offline_file_size(words[0]) / 1e6);
    close(lock);
    return rc != 0 ? EX_SOFTWARE : EX_OK;
}
