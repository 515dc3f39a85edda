/* See copy.h. The copy is built beside its place, as PATH.part, with its lock file kept in memory
 * by LMDB; synced, given the mode of its predecessor, renamed, and its directory synced. What fails
 * removes it. */
#include "store/copy.h"

#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/directory.h"
#include "store/room.h"

enum { PIECE_SIZE = 4 << 20, PIECE_NS = 20000000, PASSES = 4, FEW_BLOBS = 64 };

struct copy {
    const struct database *from;
    struct copy_control *control;
    MDB_txn *read; /* a snapshot of the store */

    MDB_env *env; /* the copy */
    MDB_txn *write;
    MDB_dbi dbi[DATABASE_COUNT];
    size_t piece; /* bytes in the write transaction */

    struct key next; /* in blob: where to go on */
    uint64_t last;   /* the blob of the last part copied */
    int rc;          /* 0, LMDB's code or errno */
};

/* ---- the copy's file ------------------------------------------------------------------------- */

static void begin_write(struct copy *copy)
{
    copy->piece = 0;
    if (copy->rc == 0)
        copy->rc = mdb_txn_begin(copy->env, NULL, 0, &copy->write);
    if (copy->rc != 0)
        copy->write = NULL;
}

static void end_write(struct copy *copy)
{
    if (copy->write != NULL && copy->rc == 0)
        copy->rc = mdb_txn_commit(copy->write);
    else if (copy->write != NULL)
        mdb_txn_abort(copy->write);
    copy->write = NULL;
}

static void open_copy(struct copy *copy, const char *path)
{
    MDB_envinfo info;

    mdb_env_info(copy->from->env, &info);
    copy->rc = database_open_environment(&copy->env, path, info.me_mapsize,
                                         MDB_NOSUBDIR | MDB_NOSYNC | MDB_NOLOCK);
    begin_write(copy);
    for (size_t i = 0; i < DATABASE_COUNT && copy->rc == 0; i++)
        copy->rc = mdb_dbi_open(copy->write, database_name((enum database_id)i), MDB_CREATE,
                                &copy->dbi[i]);
    end_write(copy);
}

static void put(struct copy *copy, enum database_id id, struct slice key, struct slice value)
{
    MDB_val k = val_of(key), v = val_of(value);

    if (copy->rc == 0)
        copy->rc = mdb_put(copy->write, copy->dbi[id], &k, &v, MDB_APPEND);
    copy->piece += key.size + value.size;
    atomic_fetch_add(&copy->control->bytes, value.size);
    if (copy->piece >= PIECE_SIZE) {
        end_write(copy);
        begin_write(copy);
    }
    if (atomic_load(&copy->control->cancelled))
        copy->rc = copy->rc != 0 ? copy->rc : ECANCELED;
}

/* ---- the store's rows ------------------------------------------------------------------------ */

static void begin_read(struct copy *copy)
{
    if (copy->rc == 0)
        copy->rc = mdb_txn_begin(copy->from->env, NULL, MDB_RDONLY, &copy->read);
    if (copy->rc != 0)
        copy->read = NULL;
}

static void end_read(struct copy *copy)
{
    if (copy->read != NULL)
        mdb_txn_abort(copy->read);
    copy->read = NULL;
}

static MDB_cursor *open_cursor(struct copy *copy, MDB_txn *txn, MDB_dbi dbi)
{
    MDB_cursor *cursor = NULL;

    if (copy->rc == 0)
        copy->rc = mdb_cursor_open(txn, dbi, &cursor);
    return cursor;
}

/* Parts of blobs from copy->next on, until their end or the time. false: until the end. */
static bool copy_parts(struct copy *copy, uint64_t until_ns)
{
    MDB_cursor *cursor = open_cursor(copy, copy->read, copy->from->dbi[DB_BLOB]);
    struct slice key = key_slice(&copy->next), value;
    bool late = false;

    if (cursor == NULL)
        return false;
    int rc = database_get(cursor, MDB_SET_RANGE, &key, &value);
    for (; rc == 0 && copy->rc == 0 && !late; rc = database_get(cursor, MDB_NEXT, &key, &value)) {
        if (key.size == 12) {
            copy->last = get_u64(key.data);
            const uint32_t part = get_u32(key.data + 8);
            copy->next =
                part == PART_HOLDERS ? key_part(copy->last + 1, 0) : key_part(copy->last, part + 1);
            put(copy, DB_BLOB, key, value);
        }
        late = clock_monotonic_ns() > until_ns;
    }
    if (rc != 0 && rc != MDB_NOTFOUND && copy->rc == 0)
        copy->rc = rc;
    mdb_cursor_close(cursor);
    return late && copy->rc == 0;
}

static void rest(const struct copy *copy, uint64_t worked_ns)
{
    const uint64_t percent = copy->control->idle_percent;
    const uint64_t ns = worked_ns * percent / (100 - percent);

    nanosleep(&(struct timespec){(time_t)(ns / 1000000000), (long)(ns % 1000000000)}, NULL);
}

/* One pass over the blobs that are there. */
static void copy_blobs(struct copy *copy)
{
    for (bool more = true; more && copy->rc == 0;) {
        const uint64_t begin = clock_monotonic_ns();
        begin_read(copy);
        begin_write(copy);
        more = copy_parts(copy, begin + PIECE_NS);
        end_write(copy);
        end_read(copy);
        rest(copy, clock_monotonic_ns() - begin);
    }
}

static void copy_rows(struct copy *copy, enum database_id id)
{
    MDB_cursor *cursor = open_cursor(copy, copy->read, copy->from->dbi[id]);
    struct slice key = {0}, value;

    if (cursor == NULL)
        return;
    int rc = database_get(cursor, MDB_FIRST, &key, &value);
    for (; rc == 0 && copy->rc == 0; rc = database_get(cursor, MDB_NEXT, &key, &value))
        put(copy, id, key, value);
    if (rc != 0 && rc != MDB_NOTFOUND && copy->rc == 0)
        copy->rc = rc;
    mdb_cursor_close(cursor);
}

/* Whether the blob is in the snapshot. */
static bool is_there(struct copy *copy, uint64_t blob)
{
    const struct key wanted = key_u64(blob);
    MDB_val key = val_of(key_slice(&wanted)), value;

    const int rc = mdb_get(copy->read, copy->from->dbi[DB_LIVE], &key, &value);
    if (rc != 0 && rc != MDB_NOTFOUND)
        copy->rc = rc;
    return rc != MDB_NOTFOUND;
}

/* Blobs that went after they were copied. */
static void remove_gone(struct copy *copy)
{
    struct slice key = {0}, value;
    uint64_t blob = 0;
    bool gone = false;

    begin_write(copy);
    MDB_cursor *cursor = open_cursor(copy, copy->write, copy->dbi[DB_BLOB]);
    if (cursor == NULL)
        return;
    for (int rc = database_get(cursor, MDB_FIRST, &key, &value); rc == 0 && copy->rc == 0;
         rc = database_get(cursor, MDB_NEXT, &key, &value)) {
        if (get_u64(key.data) != blob)
            gone = !is_there(copy, get_u64(key.data));
        blob = get_u64(key.data);
        if (gone && copy->rc == 0)
            copy->rc = mdb_cursor_del(cursor, 0);
    }
    mdb_cursor_close(cursor);
}

static uint64_t last_blob(struct copy *copy)
{
    MDB_cursor *cursor = open_cursor(copy, copy->read, copy->from->dbi[DB_BLOB]);
    struct slice key = {0}, value;
    uint64_t last = 0;

    if (cursor == NULL)
        return 0;
    if (database_get(cursor, MDB_LAST, &key, &value) == 0 && key.size == 12)
        last = get_u64(key.data);
    mdb_cursor_close(cursor);
    return last;
}

static void copy_all(struct copy *copy)
{
    copy->next = key_part(0, 0);
    for (int pass = 0; pass < PASSES && copy->rc == 0; pass++) {
        begin_read(copy);
        const uint64_t last = last_blob(copy);
        end_read(copy);
        if (last <= copy->last + FEW_BLOBS)
            break;
        copy_blobs(copy);
    }
    begin_read(copy);
    begin_write(copy);
    copy_parts(copy, UINT64_MAX);
    for (size_t i = 0; i < DATABASE_COUNT; i++)
        if (i != DB_BLOB)
            copy_rows(copy, (enum database_id)i);
    end_write(copy);
    remove_gone(copy);
    end_write(copy);
    end_read(copy);
    if (copy->rc == 0)
        copy->rc = mdb_env_sync(copy->env, 1);
    if (copy->rc != 0 && room_is_wanting(&(struct database){.env = copy->env}, copy->rc))
        copy->rc = ENOSPC;
}

/* ---- its name -------------------------------------------------------------------------------- */

static int keep_mode(MDB_env *env, const char *path)
{
    struct stat old;
    int fd;

    if (stat(path, &old) != 0)
        return errno == ENOENT ? 0 : errno;
    const int rc = mdb_env_get_fd(env, &fd);
    return rc == 0 && fchmod(fd, old.st_mode & 0777) != 0 ? errno : rc;
}

static int refuse(char error[STORE_ERROR_SIZE], const char *path, int rc)
{
    snprintf(error, STORE_ERROR_SIZE, "%s: %s%s", path, mdb_strerror(rc),
             rc == ENOSPC ? "; room for a whole copy of the store is needed there" : "");
    return database_errno(rc);
}

void copy_remove_part(const char *path)
{
    char *part = xasprintf("%s.part", path);

    unlink(part);
    free(part);
}

void copy_remove(const char *path)
{
    unlink(path);
    copy_remove_part(path);
}

int copy_database(const struct database *database, const char *path, struct copy_control *control,
                  char error[STORE_ERROR_SIZE])
{
    struct copy copy = {.from = database, .control = control};
    char *part = xasprintf("%s.part", path);

    if (unlink(part) != 0 && errno != ENOENT)
        copy.rc = errno;
    else
        open_copy(&copy, part);
    if (copy.rc == 0)
        copy_all(&copy);
    if (copy.rc == 0)
        copy.rc = keep_mode(copy.env, path);
    if (copy.env != NULL)
        mdb_env_close(copy.env);
    int rc = copy.rc;
    if (rc == 0 && rename(part, path) != 0)
        rc = errno;
    if (rc == 0)
        rc = -directory_sync_of(path);
    if (rc != 0) {
        unlink(part);
        rc = refuse(error, path, rc);
    }
    free(part);
    return rc;
}
