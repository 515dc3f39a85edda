/* Records first, then queues, each in key order, in one read transaction: O(records + queues). A
 * record that is damaged is skipped; a queue whose row is damaged has it rebuilt from its segments,
 * here for the answer and by the committer when it is next written. Damage is counted and logged,
 * and never keeps the store from opening. */
#include "store/recover.h"

#include "base/fault.h"
#include "base/log.h"
#include "store/rebuild.h"

struct walk {
    const struct database *database;
    MDB_txn *txn;
    const struct store_recovery *recovery;
    uint64_t damaged;
};

static int on_record_row(struct walk *walk, struct slice key, struct slice value)
{
    if (record_check(key, value)) {
        walk->recovery->on_record(walk->recovery->context, key,
                                  slice_of(value.data + HEADER_SIZE, value.size - HEADER_SIZE));
        return 0;
    }
    walk->damaged++;
    log_error("the store is damaged: record \"%.*s\"", SLICE_ARG(key));
    return 0;
}

static int on_queue_row(struct walk *walk, struct slice key, struct slice value)
{
    struct queue_row row;
    uint64_t front_blob;
    int rc = 0;

    if (key.size != 8) {
        walk->damaged++;
        return 0;
    }
    const uint64_t queue_id = get_u64(key.data);
    if (!queue_row_decode(key, value, &row)) {
        walk->damaged++;
        log_error("the store is damaged: row of queue %" PRIu64 ": counting its entries", queue_id);
        rc = rebuild_queue(walk->database, walk->txn, queue_id, &row, &front_blob, &walk->damaged);
    }
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
        if (rc == 0)
            rc = database_get(cursor, MDB_NEXT, &key, &value);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int recover(const struct database *database, struct store_recovery *recovery, uint64_t *damaged)
{
    struct walk walk = {.database = database, .recovery = recovery};
    int rc = mdb_txn_begin(database->env, NULL, MDB_RDONLY, &walk.txn);

    if (rc != 0)
        return database_errno(rc);
    recovery->was_clean = database->state.clean;
    rc = each_row(&walk, DB_RECORD, on_record_row);
    fault_point(FAULT_RECORDS_RECOVERED);
    if (rc == 0)
        rc = each_row(&walk, DB_QUEUE, on_queue_row);
    mdb_txn_abort(walk.txn);
    fault_point(FAULT_QUEUES_RECOVERED);
    *damaged += walk.damaged;
    return database_errno(rc);
}
