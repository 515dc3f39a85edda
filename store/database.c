/* Opening in steps, each of which may refuse with a sentence for the operator:
 *
 *     file system ─▶ data file ─▶ environment ─▶ format version, read only ─▶ databases, marked unclean
 *
 * The format version is looked at before anything is written, so that an old broker leaves a newer
 * store as it is. A damaged version or state row stops nothing: the version is then taken to be
 * ours and the last LSN that of the last blob.
 *
 * The address space is asked for once, huge, because enlarging it later would need every
 * transaction to end. Where it is not granted (an rlimit, valgrind) less is asked for, down to
 * MAP_SIZE_MIN.
 *
 * The flags: default sync mode, so that a commit is durable when it returns; no WRITEMAP, so that
 * no stray pointer of ours reaches the file; NOTLS, because a read transaction belongs to the
 * reader and not to a thread. */
#include "store/database.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fault.h"
#include "base/log.h"
#include "store/child.h"
#include "store/create.h"
#include "store/datasync.h"
#include "store/salvage.h"

#define MAP_SIZE_DEFAULT ((size_t)1 << 40)
#define MAP_SIZE_MIN     ((size_t)1 << 30)

enum {
    RECLAIM_PATIENCE_DEFAULT = 1000,
    CHECK_AFTER_MS_DEFAULT = 1000,
    LOCK_FILE_SIZE = 8192, /* as LMDB makes it */
};

static const char *const names[DATABASE_COUNT] = {
    [DB_BLOB] = "blob", [DB_INDEX] = "index",   [DB_GONE] = "gone",
    [DB_LIVE] = "live", [DB_SPARSE] = "sparse", [DB_QUEUE] = "queue",
    [DB_TRIM] = "trim", [DB_RECORD] = "record", [DB_META] = "meta",
};

int database_errno(int rc)
{
    if (rc == 0)
        return 0;
    if (rc == MDB_MAP_FULL)
        return -ENOSPC;
    return rc > 0 ? -rc : -EIO;
}

bool database_is_damage(int rc)
{
    return rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND || rc == MDB_INVALID ||
           rc == MDB_VERSION_MISMATCH || rc == MDB_INCOMPATIBLE || rc == MDB_CURSOR_FULL ||
           rc == MDB_KEYEXIST;
}

struct slice database_state_key(void)
{
    return SLICE("state");
}

static int refuse(char error[STORE_ERROR_SIZE], int code, const char *format, ...)
    printf_like(3, 4);

static int refuse(char error[STORE_ERROR_SIZE], int code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(error, STORE_ERROR_SIZE, format, arguments);
    va_end(arguments);
    return code;
}

/* ---- lookup ---------------------------------------------------------------------------------- */

int database_get(MDB_cursor *cursor, MDB_cursor_op op, struct slice *key, struct slice *value)
{
    MDB_val k = val_of(*key), v = {0};
    int rc = mdb_cursor_get(cursor, &k, &v, op);

    if (rc == 0) {
        *key = slice_of_val(k);
        *value = slice_of_val(v);
    }
    return rc;
}

int database_get_below(MDB_cursor *cursor, uint64_t queue_id, uint64_t position, struct slice *key,
                       struct slice *value)
{
    const struct key wanted = key_pair(queue_id, position);

    *key = key_slice(&wanted);
    int rc = database_get(cursor, MDB_SET_RANGE, key, value);
    if (rc == MDB_NOTFOUND)
        rc = database_get(cursor, MDB_LAST, key, value);
    else if (rc == 0 && !slice_equal(*key, key_slice(&wanted)))
        rc = database_get(cursor, MDB_PREV, key, value);
    if (rc != 0)
        return rc;
    return key->size == 16 && get_u64(key->data) == queue_id ? 0 : MDB_NOTFOUND;
}

/* LMDB's own order, byte by byte, for keys that are one or two numbers: a third of a lookup is
 * comparing. Databases compared this way can be read without it. */
static int compare_numbers(const MDB_val *a, const MDB_val *b)
{
    if (a->mv_size != b->mv_size || (a->mv_size != 8 && a->mv_size != 16))
        return slice_compare(slice_of_val(*a), slice_of_val(*b));
    uint64_t left = get_u64(a->mv_data), right = get_u64(b->mv_data);
    if (left == right && a->mv_size == 16) {
        left = get_u64((const uint8_t *)a->mv_data + 8);
        right = get_u64((const uint8_t *)b->mv_data + 8);
    }
    return (left > right) - (left < right);
}

static bool has_numbers(size_t id)
{
    return id != DB_RECORD && id != DB_META;
}

const char *database_name(enum database_id id)
{
    return names[id];
}

int database_find_all(MDB_txn *txn, MDB_dbi dbi[DATABASE_COUNT])
{
    size_t found = 0;
    int rc = 0;

    for (size_t i = 0; i < DATABASE_COUNT && (rc == 0 || rc == MDB_NOTFOUND); i++) {
        rc = mdb_dbi_open(txn, names[i], 0, &dbi[i]);
        found += rc == 0;
    }
    if (rc != 0 && rc != MDB_NOTFOUND)
        return rc;
    return found == DATABASE_COUNT ? 0 : found == 0 ? MDB_NOTFOUND : MDB_CORRUPTED;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* Locks and mapped files are not coherent on network file systems. */
static int check_file_system(const char *directory, char error[STORE_ERROR_SIZE])
{
    static const struct {
        uint32_t magic;
        const char *name;
    } refused[] = {{0x6969, "NFS"}, {0xff534d42, "CIFS"}, {0xfe534d42, "SMB2"}, {0x517b, "SMB"}};
    struct statfs file_system;

    if (statfs(directory, &file_system) != 0)
        return refuse(error, -errno, "%s: %s", directory, strerror(errno));
    for (size_t i = 0; i < countof(refused); i++)
        if ((uint32_t)file_system.f_type == refused[i].magic)
            return refuse(error, -EOPNOTSUPP, "%s is on %s: the store needs a local file system",
                          directory, refused[i].name);
    return 0;
}

static void on_assert(MDB_env *env, const char *message)
{
    (void)env;
    log_critical("the store is damaged: LMDB: %s", message);
    salvage_leave_note();
    child_note_damage();
}

/* LMDB makes its lock file longer and then writes to it where it is mapped, which on a full disk is
 * a SIGBUS: so there must be room for it before. Whatever else is amiss with it, LMDB says. */
static int reserve_lock_file(const char *directory)
{
    char path[4096];
    struct stat file;
    int rc = 0;

    snprintf(path, sizeof path, "%s/lock.mdb", directory);
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || fstat(fd, &file) != 0)
        rc = 0;
    else if (fallocate(fd, 0, 0, LOCK_FILE_SIZE) != 0)
        rc = errno;
    if (rc == EOPNOTSUPP) /* then in the C library's way, and not where somebody may be writing */
        rc = file.st_size >= LOCK_FILE_SIZE
                 ? 0
                 : posix_fallocate(fd, file.st_size, LOCK_FILE_SIZE - file.st_size);
    if (fd >= 0)
        close(fd);
    return rc == ENOSPC || rc == EDQUOT || rc == EFBIG ? ENOSPC : 0;
}

static int open_environment_of(MDB_env **env, const char *path, size_t map_size, unsigned flags)
{
    int rc = mdb_env_create(env);

    if (rc != 0)
        return rc;
    rc = mdb_env_set_maxdbs(*env, DATABASE_COUNT);
    if (rc == 0)
        rc = mdb_env_set_mapsize(*env, map_size);
    if (rc == 0)
        rc = mdb_env_set_assert(*env, on_assert);
    if (rc == 0)
        rc = mdb_env_open(*env, path, MDB_NOTLS | flags, 0600);
    if (rc != 0) {
        mdb_env_close(*env);
        *env = NULL;
    }
    return rc;
}

/* A file that ends before the last page that LMDB knows of is a SIGBUS to whoever reads there. LMDB
 * may leave free pages at the end unwritten, so this alone is no damage; what else is missing reads
 * as zeros then, which no checksum takes for anything. */
static int complete_file(MDB_env *env)
{
    MDB_envinfo info;
    MDB_stat main;
    struct stat status;
    int fd;

    mdb_env_info(env, &info);
    mdb_env_stat(env, &main);
    const uint64_t size = (info.me_last_pgno + 1) * (uint64_t)main.ms_psize;
    if (mdb_env_get_fd(env, &fd) != 0 || fstat(fd, &status) != 0)
        return errno;
    if ((uint64_t)status.st_size >= size || size > info.me_mapsize)
        return 0;
    return ftruncate(fd, (off_t)size) == 0 ? 0 : errno;
}

static int refuse_environment(char error[STORE_ERROR_SIZE], int rc, const char *directory)
{
    if (rc == ENOSPC)
        return refuse(error, -ENOSPC,
                      "%s: the disk is full: there is no room for lock.mdb, of %d octets",
                      directory, LOCK_FILE_SIZE);
    return rc == MDB_VERSION_MISMATCH
               ? refuse(error, -EPROTONOSUPPORT,
                        "%s: data.mdb was written by another version of LMDB, and is left as it "
                        "is: use "
                        "the broker that wrote it",
                        directory)
               : refuse(error, database_errno(rc), "%s: %s", directory, mdb_strerror(rc));
}

int database_open_environment(MDB_env **env, const char *path, size_t map_size, unsigned flags)
{
    int rc = (flags & MDB_NOLOCK) != 0 ? 0 : reserve_lock_file(path);

    if (rc != 0)
        return rc;
    if (map_size == 0)
        map_size = MAP_SIZE_DEFAULT;
    while ((rc = open_environment_of(env, path, map_size, flags)) == ENOMEM &&
           map_size / 4 >= MAP_SIZE_MIN)
        map_size /= 4;
    return rc;
}

/* LMDB before 1.0 opens its files so that children inherit them; and a child that closes one drops
 * our locks. */
static void close_on_exec(MDB_env *env)
{
    struct stat data, other;
    int data_fd;
    DIR *directory = opendir("/proc/self/fd");

    if (directory == NULL)
        return;
    if (mdb_env_get_fd(env, &data_fd) == 0 && fstat(data_fd, &data) == 0) {
        for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
            int fd = atoi(entry->d_name);
            if (entry->d_name[0] != '.' && fstat(fd, &other) == 0 && other.st_dev == data.st_dev &&
                other.st_ino == data.st_ino)
                (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
        }
    }
    closedir(directory);
}

static void watch_syncs(MDB_env *env)
{
    int fd;

    if (mdb_env_get_fd(env, &fd) == 0)
        datasync_watch(fd);
}

/* Reads a row of "meta" whose value is a header and size bytes. */
static bool read_meta(MDB_txn *txn, MDB_dbi meta, struct slice key, size_t size, struct slice *row)
{
    MDB_val k = val_of(key), v;

    if (mdb_get(txn, meta, &k, &v) != 0)
        return false;
    *row = slice_of_val(v);
    if (row->size == HEADER_SIZE + size && record_check(key, *row))
        return true;
    log_error("the store's row \"%.*s\" is damaged", SLICE_ARG(key));
    return false;
}

static void read_state(struct database *database, MDB_txn *txn, MDB_dbi meta)
{
    struct slice row;

    if (read_meta(txn, meta, database_state_key(), STATE_ROW_SIZE - HEADER_SIZE, &row))
        state_decode(database_state_key(), row, &database->state);
}

uint32_t database_format(MDB_txn *txn)
{
    MDB_dbi meta;
    struct slice row;

    if (mdb_dbi_open(txn, names[DB_META], 0, &meta) != 0 ||
        !read_meta(txn, meta, SLICE("format"), FORMAT_ROW_SIZE - HEADER_SIZE, &row))
        return 0;
    return get_u32(row.data + HEADER_SIZE);
}

static int check_format(struct database *database, const char *directory,
                        char error[STORE_ERROR_SIZE])
{
    MDB_txn *txn;
    MDB_dbi meta;
    int rc = mdb_txn_begin(database->env, NULL, MDB_RDONLY, &txn);

    if (rc != 0)
        return refuse(error, database_errno(rc), "%s: %s", directory, mdb_strerror(rc));
    rc = mdb_dbi_open(txn, names[DB_META], 0, &meta);
    database->state.clean = rc == MDB_NOTFOUND; /* a new store */
    if (rc == 0) {
        read_state(database, txn, meta);
        const uint32_t format = database_format(txn);
        if (format != 0 && format != FORMAT_VERSION)
            rc = refuse(error, -EPROTONOSUPPORT,
                        "%s was written by %s version (format %" PRIu32 ", this one reads %d)",
                        directory, format > FORMAT_VERSION ? "a newer" : "an older", format,
                        FORMAT_VERSION);
    }
    mdb_txn_abort(txn);
    return rc == -EPROTONOSUPPORT ? rc : 0;
}

/* What the live rows come to. */
static int count_blobs(struct database *database, MDB_txn *txn)
{
    struct state_row *state = &database->state;
    MDB_cursor *cursor;
    struct slice key = {0}, value;
    struct live_row row;
    int rc = mdb_cursor_open(txn, database->dbi[DB_LIVE], &cursor);

    if (rc != 0)
        return rc;
    state->size = state->sparse = 0;
    for (rc = database_get(cursor, MDB_FIRST, &key, &value); rc == 0;
         rc = database_get(cursor, MDB_NEXT, &key, &value))
        if (live_decode(key, value, &row)) {
            state->size += row.size;
            state->sparse += row.since != 0 ? row.size : 0;
        }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* The first number of the last key; 0 when there is none. */
static int last_number(struct database *database, MDB_txn *txn, enum database_id id,
                       uint64_t *number)
{
    MDB_cursor *cursor;
    struct slice key = {0}, value;
    int rc = mdb_cursor_open(txn, database->dbi[id], &cursor);

    *number = 0;
    if (rc != 0)
        return rc;
    rc = database_get(cursor, MDB_LAST, &key, &value);
    mdb_cursor_close(cursor);
    if (rc == 0 && key.size >= 8)
        *number = get_u64(key.data);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* A blob that the state does not know of can only be there if the state row was damaged. Then the
 * sums are counted anew; blobs go on above the last of which there is a trace, and LSNs above all
 * that rows name. */
static int check_last_blob(struct database *database, MDB_txn *txn)
{
    struct state_row *state = &database->state;
    uint64_t blob, live, since;
    int rc = last_number(database, txn, DB_BLOB, &blob);

    if (rc == 0)
        rc = last_number(database, txn, DB_LIVE, &live);
    if (rc == 0)
        rc = last_number(database, txn, DB_SPARSE, &since);
    if (rc != 0 || max_of(blob, live) <= state->blob)
        return rc;
    state->blob = max_of(blob, live);
    state->lsn = max_of(state->lsn, max_of(state->blob, since));
    return count_blobs(database, txn);
}

static int put_meta(struct database *database, MDB_txn *txn, struct slice key, uint8_t *row,
                    size_t size)
{
    MDB_val k = val_of(key), v = {size, row};

    record_seal(key, row, size, 0, 0);
    return mdb_put(txn, database->dbi[DB_META], &k, &v, 0);
}

static int mark_unclean(struct database *database, MDB_txn *txn)
{
    uint8_t format[FORMAT_ROW_SIZE], state[STATE_ROW_SIZE];
    struct state_row row = database->state;
    MDB_val key = val_of(database_state_key()), value = {sizeof state, state};

    put_u32(format + HEADER_SIZE, FORMAT_VERSION);
    row.clean = false;
    state_encode(database_state_key(), &row, state);
    int rc = put_meta(database, txn, SLICE("format"), format, sizeof format);
    return rc != 0 ? rc : mdb_put(txn, database->dbi[DB_META], &key, &value, 0);
}

static int create_databases(struct database *database, MDB_txn *txn)
{
    int rc = 0;

    for (size_t i = 0; i < DATABASE_COUNT && rc == 0; i++)
        rc = mdb_dbi_open(txn, names[i], MDB_CREATE, &database->dbi[i]);
    return rc;
}

static int set_order(struct database *database, MDB_txn *txn)
{
    int rc = 0;

    for (size_t i = 0; i < DATABASE_COUNT && rc == 0; i++)
        if (has_numbers(i))
            rc = mdb_set_compare(txn, database->dbi[i], compare_numbers);
    return rc;
}

static int open_databases(struct database *database)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(database->env, NULL, 0, &txn);

    if (rc != 0)
        return rc;
    rc = database_find_all(txn, database->dbi);
    if (rc == MDB_NOTFOUND)
        rc = create_databases(database, txn);
    if (rc == 0)
        rc = set_order(database, txn);
    if (rc == 0)
        rc = check_last_blob(database, txn);
    if (rc == 0 && database->state.clean)
        rc = mark_unclean(database, txn);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

int database_open(struct database *database, const struct store_options *options,
                  char error[STORE_ERROR_SIZE])
{
    *database = (struct database){
        .reclaim_patience =
            options->reclaim_patience != 0 ? options->reclaim_patience : RECLAIM_PATIENCE_DEFAULT,
        .check_after_ms =
            options->check_after_ms != 0 ? options->check_after_ms : CHECK_AFTER_MS_DEFAULT,
    };
    int rc = check_file_system(options->directory, error);
    if (rc != 0)
        return rc;
    rc = create_data_file(options->directory);
    if (rc == ESTALE)
        return refuse(error, -ESTALE,
                      "%s: data.mdb, which holds the store, was taken away: put it back; or remove "
                      "lock.mdb, too, to begin with an empty store",
                      options->directory);
    if (rc != 0)
        return refuse(error, database_errno(rc), "%s: %s", options->directory, mdb_strerror(rc));
    rc = database_open_environment(&database->env, options->directory, options->map_size, 0);
    if (rc != 0)
        return refuse_environment(error, rc, options->directory);
    database->path = xasprintf("%s/data.mdb", options->directory);
    close_on_exec(database->env);
    watch_syncs(database->env);

    rc = database_errno(complete_file(database->env));
    if (rc != 0)
        refuse(error, rc, "%s: %s", options->directory, strerror(-rc));
    else
        rc = check_format(database, options->directory, error);
    if (rc == 0) {
        rc = open_databases(database);
        salvage_if_damage(rc);
        if (rc != 0)
            rc = refuse(error, database_errno(rc), "%s: %s", options->directory, mdb_strerror(rc));
    }
    if (rc != 0)
        database_close(database);
    fault_point(FAULT_STORE_OPENED);
    return rc;
}

/* LMDB does not tell where it has mapped the file; the kernel does. Devices are not compared: btrfs
 * has two names for each. A private mapping, whose pages must not be given back, is not LMDB's. */
struct slice database_mapping(const struct database *database)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    struct stat data;
    int fd;
    char line[512];
    struct slice mapping = {0};

    if (maps == NULL)
        return mapping;
    const bool known = mdb_env_get_fd(database->env, &fd) == 0 && fstat(fd, &data) == 0;
    while (known && mapping.size == 0 && fgets(line, sizeof line, maps) != NULL) {
        uintptr_t begin, end;
        char permissions[5];
        unsigned long inode;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %*s %*s %lu", &begin, &end, permissions,
                   &inode) == 4 &&
            permissions[3] == 's' && inode == data.st_ino)
            mapping = slice_of((const uint8_t *)begin, end - begin);
    }
    fclose(maps);
    return mapping;
}

bool database_is_in_place(const struct database *database)
{
    struct stat held, found;
    int fd;

    if (mdb_env_get_fd(database->env, &fd) != 0 || fstat(fd, &held) != 0)
        return true; /* nobody knows */
    if (stat(database->path, &found) != 0)
        return errno != ENOENT && errno != ENOTDIR;
    return held.st_dev == found.st_dev && held.st_ino == found.st_ino;
}

/* ---- for reading alone ----------------------------------------------------------------------- */

static int open_existing(struct database *database)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(database->env, NULL, MDB_RDONLY, &txn);

    if (rc != 0)
        return rc;
    rc = database_find_all(txn, database->dbi);
    if (rc == 0)
        rc = set_order(database, txn);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

int database_open_read_only(struct database *database, const char *directory,
                            enum database_readers readers, char error[STORE_ERROR_SIZE])
{
    *database = (struct database){0};
    int rc = check_file_system(directory, error);
    if (rc != 0)
        return rc;
    rc = database_open_environment(&database->env, directory, 0,
                                   MDB_RDONLY | (readers == DATABASE_ALONE ? MDB_NOLOCK : 0));
    if (rc != 0) {
        const int result = refuse_environment(error, rc, directory);
        return rc == MDB_INVALID ? -EBADMSG : result;
    }
    rc = check_format(database, directory, error);
    if (rc == 0) {
        rc = open_existing(database);
        if (database_is_damage(rc))
            rc = refuse(error, -EBADMSG, "the store in %s is damaged: %s", directory,
                        mdb_strerror(rc));
        else if (rc != 0)
            rc = refuse(error, rc == MDB_NOTFOUND ? -ENOENT : database_errno(rc),
                        "%s does not hold a store: %s", directory, mdb_strerror(rc));
    }
    if (rc != 0)
        database_close(database);
    return rc;
}

void database_close(struct database *database)
{
    mdb_env_close(database->env);
    database->env = NULL;
    free(database->path);
    database->path = NULL;
}
