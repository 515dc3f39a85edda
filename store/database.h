/* The LMDB environment: its files, its named databases, its format version. record.h says what is
 * in them. */
#ifndef STORE_DATABASE_H
#define STORE_DATABASE_H

#include <lmdb.h>

#include "store/record.h"
#include "store/store.h"

enum database_id {
    DB_BLOB,
    DB_INDEX,
    DB_GONE,
    DB_LIVE,
    DB_SPARSE,
    DB_QUEUE,
    DB_TRIM,
    DB_RECORD,
    DB_META,
    DATABASE_COUNT,
};

struct database {
    MDB_env *env;
    char *path; /* of the data file */
    MDB_dbi dbi[DATABASE_COUNT];
    struct state_row state; /* when it was opened; clean: the last close was a clean one */
    uint32_t reclaim_patience, check_after_ms; /* as in store_options */
};

/* Opens or creates the environment, and marks it as not cleanly closed. 0, or -errno with a
 * sentence. */
int database_open(struct database *database, const struct store_options *options,
                  char error[STORE_ERROR_SIZE]);
void database_close(struct database *database);

/* Opens an existing environment for reading, and changes nothing in it: beside a broker, or alone,
 * with the directory's lock. 0, or -errno with a sentence, -ENOENT when there is no store in it,
 * -EBADMSG when it is damaged. */
enum database_readers { DATABASE_SHARED, DATABASE_ALONE };
int database_open_read_only(struct database *database, const char *directory,
                            enum database_readers readers, char error[STORE_ERROR_SIZE]);

/* Whether the data file is still where whoever opens the store next will look for it, and not
 * removed, moved or replaced: then what is committed is lost with the process. */
bool database_is_in_place(const struct database *database);

/* Opens the environment (path: the directory, or with MDB_NOSUBDIR and MDB_NOLOCK the file),
 * map_size 0 for the default, with as much address space as is granted. 0 or LMDB's code; ENOSPC:
 * there is no room for the lock file. */
int database_open_environment(MDB_env **env, const char *path, size_t map_size, unsigned flags);

/* Opens the databases, which are made together. 0; MDB_NOTFOUND: the store is new, and none is
 * there; MDB_CORRUPTED: some are there and some are not; or another of LMDB's codes. */
int database_find_all(MDB_txn *txn, MDB_dbi dbi[DATABASE_COUNT]);

/* The version of the format that a store says it has; 0: it does not say. */
uint32_t database_format(MDB_txn *txn);

const char *database_name(enum database_id id);

/* Where the data file is mapped, so far as it was looked at: for who reads much of it once, and
 * gives the pages back. size 0: it cannot be known. */
struct slice database_mapping(const struct database *database);

int database_errno(int rc); /* LMDB's code as 0 or -errno */
bool database_is_damage(
    int rc); /* LMDB's code says that the file is not what it should be; so does a key
                                    that is there although it was to be the last */

struct slice database_state_key(void);

static inline struct slice slice_of_val(MDB_val val)
{
    return slice_of(val.mv_data, val.mv_size);
}

static inline MDB_val val_of(struct slice slice)
{
    return (MDB_val){slice.size, (void *)(uintptr_t)slice.data};
}

/* Looks a row up with a cursor, from key with LMDB's op. 0, MDB_NOTFOUND or another of LMDB's
 * codes; key and value then borrow from the map, until the transaction writes or ends. */
int database_get(MDB_cursor *cursor, MDB_cursor_op op, struct slice *key, struct slice *value);

/* The last row whose key is not above (queue_id, position), if it is one of that queue. */
int database_get_below(MDB_cursor *cursor, uint64_t queue_id, uint64_t position, struct slice *key,
                       struct slice *value);

#endif
