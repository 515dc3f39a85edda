/* Records first, then queues, each in key order, in one read transaction: O(records + queues). What
 * one bit has changed in is read as it was; else a record is skipped, and a queue's row rebuilt
 * from its segments: here for the answer, and on disk when that is mended (mend.h). Damage is
 * counted and logged, and never keeps the store from opening; but for a tree that LMDB does not
 * read, which the look before a start has not seen: the next start salvages. */
#include "store/recover.h"

#include "base/alloc.h"
#include "base/fault.h"
#include "base/log.h"
#include "store/rebuild.h"
#include "store/salvage.h"

enum { ROWS_PER_QUESTION = 1024 };

struct walk {
    const struct database *database;
    const struct store_waiting *waiting;
    uint64_t rows;
    MDB_txn *txn;
    const struct store_recovery *recovery;
    uint64_t last_queue;
    uint64_t damaged;
};

/* A copy of the value as it was before one bit of it changed: free() it; NULL: more has. */
static uint8_t *repaired(struct slice key, struct slice value)
{
    uint8_t *copy = xmalloc(max_of(value.size, (size_t)1));

    memcpy(copy, value.data, value.size);
    if (!record_repair(key, copy, value.size)) {
        free(copy);
        copy = NULL;
    }
    return copy;
}

/* As it was before it changed, or as its segments have it. */
static int restore_queue(struct walk *walk, uint64_t queue_id, struct slice key, struct slice value,
                         struct queue_row *row)
{
    uint8_t *copy = repaired(key, value);
    uint64_t front_blob;
    const bool known = copy != NULL && queue_row_decode(key, slice_of(copy, value.size), row);

    free(copy);
    walk->damaged++;
    log_error("the store is damaged: row of queue %" PRIu64 ": %s", queue_id,
              known ? "repaired" : "counting its entries");
    return known ? 0
                 : rebuild_queue(walk->database, walk->txn, queue_id, row, &front_blob,
                                 &walk->damaged);
}

static int on_record_row(struct walk *walk, struct slice key, struct slice value)
{
    uint8_t *copy = NULL;

    if (!record_check(key, value)) {
        walk->damaged++;
        copy = repaired(key, value);
        log_error("the store is damaged: record \"%.*s\"%s", SLICE_ARG(key),
                  copy != NULL ? ": repaired" : "");
        if (copy == NULL)
            return 0;
        value.data = copy;
    }
    walk->recovery->on_record(walk->recovery->context, key,
                              slice_of(value.data + HEADER_SIZE, value.size - HEADER_SIZE));
    free(copy);
    return 0;
}

static int on_queue_row(struct walk *walk, struct slice key, struct slice value)
{
    struct queue_row row;
    int rc = 0;

    if (key.size != 8) {
        walk->damaged++;
        return 0;
    }
    const uint64_t queue_id = get_u64(key.data);
    if (queue_id <=
        walk->last_queue) { /* a salvage is due, and the file too large to see that in time */
        walk->damaged++;
        log_error("the store is damaged: row of queue %" PRIu64 " behind that of queue %" PRIu64,
                  queue_id, walk->last_queue);
        return 0;
    }
    walk->last_queue = queue_id;
    if (!queue_row_decode(key, value, &row))
        rc = restore_queue(walk, queue_id, key, value, &row);
    const struct store_queue_state state = {
        .queue_id = queue_id,
        .head = row.head,
        .tail = row.tail,
        .count = row.count,
        .bytes = row.bytes,
        .deadlines = row.deadlines,
        .delivered = walk->recovery->was_clean ? min_of(row.delivered, row.tail) : row.tail,
    };
    if (rc == 0)
        walk->recovery->on_queue(walk->recovery->context, &state);
    return rc;
}

static int each_row(struct walk *walk, enum database_id id,
                    int (*on_row)(struct walk *walk, struct slice key, struct slice value))
{
    MDB_cursor *cursor;
    struct slice key = {0}, value;
    int rc = mdb_cursor_open(walk->txn, walk->database->dbi[id], &cursor);

    if (rc != 0)
        return rc;
    rc = database_get(cursor, MDB_FIRST, &key, &value);
    while (rc == 0) {
        rc = on_row(walk, key, value);
        if (walk->rows++ % ROWS_PER_QUESTION == 0 && !store_goes_on(walk->waiting))
            rc = ECANCELED;
        if (rc == 0)
            rc = database_get(cursor, MDB_NEXT, &key, &value);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* LMDB's code as 0 or -errno; what the look before the start has not seen is for the next. */
static int failed(int rc)
{
    if (salvage_if_damage(rc))
        log_error("the store could not be read: %s", mdb_strerror(rc));
    return database_errno(rc);
}

int recover(const struct database *database, const struct store_waiting *waiting,
            struct store_recovery *recovery, uint64_t *damaged)
{
    struct walk walk = {.database = database, .waiting = waiting, .recovery = recovery};
    int rc = mdb_txn_begin(database->env, NULL, MDB_RDONLY, &walk.txn);

    if (rc != 0)
        return failed(rc);
    recovery->was_clean = database->state.clean;
    rc = each_row(&walk, DB_RECORD, on_record_row);
    fault_point(FAULT_RECORDS_RECOVERED);
    if (rc == 0)
        rc = each_row(&walk, DB_QUEUE, on_queue_row);
    mdb_txn_abort(walk.txn);
    fault_point(FAULT_QUEUES_RECOVERED);
    *damaged += walk.damaged;
    return failed(rc);
}
