/* A batch becomes rows. In this order, in one transaction:
 *
 *     bodies      gathered from the owner's memory into parts of new blobs, appended
 *     records     put and deleted in the order they came
 *     queues      in id order; of each: deletes, ranges, puts as segments, then its row, once
 *     live        rows for the new blobs; less for those that lost entries; a blob at 0 goes
 *     trim        a slice; or, when there is nothing to trim, reclaim a slice
 *     state       the LSN, and what the blobs come to
 *
 * All trees but `blob` are walked once, forwards, with one cursor each. A queue that is used as one
 * touches, for hundreds of messages, one index row to put and one to remove, and its own row.
 *
 * What a queue's row says:
 *     head   no entry lives below it. While segments are only deleted from at the front, it alone
 *            says which entries of the first segment are dead; elsewhere a row in `gone` does.
 *     head == tail   exactly when no segment with a living entry is left.
 *
 * A row that is damaged is counted and the rest goes on: an index row that cannot be read takes its
 * entries along, a live row that cannot be read leaves its blob behind. */
#include "store/apply.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "store/datasync.h"
#include "store/mend.h"
#include "store/rebuild.h"
#include "store/room.h"
#include "store/salvage.h"

void apply_init(struct apply *apply, const struct database *database)
{
    *apply = (struct apply){.database = database, .state = database->state, .trimming = true};
}

void apply_release_memory(struct apply *apply)
{
    sort_release(&apply->operations);
    sort_release(&apply->held);
    sort_release(&apply->released);
    sort_release(&apply->order);
    array_release(&apply->blobs);
    array_release(&apply->holders);
    array_release(&apply->placed);
    array_release(&apply->moved);
    array_release(&apply->emptied);
    array_release(&apply->sources);
}

/* ---- the transaction ------------------------------------------------------------------------- */

static void begin(struct apply *apply)
{
    apply->bytes_before = apply->bytes_written;
    apply->saved = apply->state;
    apply->begin_ns = clock_monotonic_ns();
    array_clear(&apply->blobs);
    array_clear(&apply->holders);
    array_clear(&apply->held.list);
    array_clear(&apply->operations.list);
    array_clear(&apply->released.list);
    apply->rc = mdb_txn_begin(apply->database->env, NULL, 0, &apply->txn);
    if (apply->rc != 0) {
        apply->txn = NULL;
        return;
    }
    for (size_t i = 0; i < DATABASE_COUNT && apply->rc == 0; i++) {
        apply->cursors[i] = NULL;
        apply->rc = mdb_cursor_open(apply->txn, apply->database->dbi[i], &apply->cursors[i]);
    }
}

static void write_state(struct apply *apply, bool closes)
{
    uint8_t row[STATE_ROW_SIZE];

    apply->state.clean = closes;
    state_encode(database_state_key(), &apply->state, row);
    apply_put(apply, DB_META, database_state_key(), slice_of(row, sizeof row), 0);
}

/* LMDB panics when it could not write a meta page: that was not the want of room that it seemed. */
static bool has_panicked(struct apply *apply)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(apply->database->env, NULL, 0, &txn);

    if (rc == 0)
        mdb_txn_abort(txn);
    return rc == MDB_PANIC;
}

/* Cursors of a write transaction end with it. */
static int end(struct apply *apply)
{
    if (apply->rc == 0)
        apply->rc = mdb_txn_commit(apply->txn);
    else if (apply->txn != NULL)
        mdb_txn_abort(apply->txn);
    apply->txn = NULL;
    if (apply->rc == 0 && !database_is_in_place(apply->database))
        apply->rc = ESTALE; /* it is on the disk, in a file that nobody will find */
    if (apply->rc != 0) {
        apply->state = apply->saved;
        apply->bytes_written = apply->bytes_before;
        if (room_is_wanting(apply->database, apply->rc) && !datasync_has_failed() &&
            !has_panicked(apply))
            return APPLY_NO_ROOM;
        salvage_if_damage(apply->rc);
        log_critical("the store could not commit: %s",
                     apply->rc == ESTALE
                         ? "its data file was removed, moved or replaced while it was in use"
                         : mdb_strerror(apply->rc));
    }
    return database_errno(apply->rc);
}

bool apply_get(struct apply *apply, enum database_id id, MDB_cursor_op op, struct slice *key,
               struct slice *value)
{
    if (apply->rc != 0)
        return false;
    int rc = database_get(apply->cursors[id], op, key, value);
    if (rc != 0 && rc != MDB_NOTFOUND)
        apply->rc = rc;
    return rc == 0;
}

void apply_put(struct apply *apply, enum database_id id, struct slice key, struct slice value,
               unsigned flags)
{
    MDB_val k = val_of(key), v = val_of(value);

    if (apply->rc == 0)
        apply->rc = mdb_cursor_put(apply->cursors[id], &k, &v, flags);
    apply->bytes_written += value.size;
}

uint8_t *apply_reserve(struct apply *apply, enum database_id id, struct slice key, size_t size,
                       unsigned flags)
{
    MDB_val k = val_of(key), v = {size, NULL};

    if (apply->rc == 0)
        apply->rc = mdb_cursor_put(apply->cursors[id], &k, &v, flags | MDB_RESERVE);
    apply->bytes_written += size;
    return apply->rc == 0 ? v.mv_data : NULL;
}

void apply_delete(struct apply *apply, enum database_id id)
{
    if (apply->rc == 0)
        apply->rc = mdb_cursor_del(apply->cursors[id], 0);
}

void apply_damaged(struct apply *apply, const char *what, uint64_t id, uint64_t position)
{
    if (apply->rc != 0)
        return; /* not found because nothing is any more */
    apply->damaged++;
    log_error("the store is damaged: %s %" PRIu64 "/%" PRIu64, what, id, position);
}

/* ---- records --------------------------------------------------------------------------------- */

static void put_record(struct apply *apply, struct slice key, struct slice value)
{
    uint8_t *row = xmalloc(HEADER_SIZE + value.size);

    if (value.size > 0)
        memcpy(row + HEADER_SIZE, value.data, value.size);
    record_seal(key, row, HEADER_SIZE + value.size, 0, 0);
    apply_put(apply, DB_RECORD, key, slice_of(row, HEADER_SIZE + value.size), 0);
    free(row);
}

static void write_records(struct apply *apply, const struct batch *batch)
{
    for (uint32_t i = 0; i < batch->records.count; i++) {
        const struct batch_record *record = &batch->records.items[i];
        struct slice key = batch_key(batch, record), old;
        if (!record->deleted)
            put_record(apply, key, batch_value(batch, record));
        else if (apply_get(apply, DB_RECORD, MDB_SET_KEY, &key, &old))
            apply_delete(apply, DB_RECORD);
    }
}

/* ---- queues ---------------------------------------------------------------------------------- */

static void add_operation(struct apply *apply, uint64_t queue_id, enum operation kind,
                          uint64_t position, uint32_t index)
{
    sort_add(&apply->operations, queue_id, (uint64_t)kind << APPLY_KIND_SHIFT | position, index);
}

/* In the order of the kinds, so that a batch about one queue is sorted already. */
static void list_operations(struct apply *apply, const struct batch *batch)
{
    for (uint32_t i = 0; i < batch->creates.count; i++)
        add_operation(apply, batch->creates.items[i].queue_id, OP_CREATE, 0, i);
    for (uint32_t i = 0; i < batch->deletes.count + batch->tied.count; i++)
        add_operation(apply, batch_delete_at(batch, i)->queue_id, OP_DELETE,
                      batch_delete_at(batch, i)->position, i);
    for (uint32_t i = 0; i < batch->ranges.count; i++)
        add_operation(apply, batch->ranges.items[i].queue_id, OP_RANGE, 0, i);
    for (uint32_t i = 0; i < batch->entries.count; i++)
        if (!batch->entries.items[i].taken_back)
            add_operation(apply, batch->entries.items[i].queue_id, OP_PUT, 0, i);
    for (uint32_t i = 0; i < batch->marks.count; i++)
        add_operation(apply, batch->marks.items[i].queue_id, OP_MARK, 0, i);
    for (uint32_t i = 0; i < batch->drops.count; i++)
        add_operation(apply, batch->drops.items[i].queue_id, OP_DROP, 0, i);
    sort_run(&apply->operations);
}

void apply_uncount(struct apply_queue *queue, uint64_t count, uint64_t weight)
{
    queue->row.count -= min_of(queue->row.count, count);
    queue->row.bytes -= min_of(queue->row.bytes, weight);
}

void apply_flush_segment(struct apply *apply, uint64_t queue_id, uint64_t blob)
{
    const struct key key = key_pair(queue_id, apply->writer.first);
    uint8_t *value =
        apply_reserve(apply, DB_INDEX, key_slice(&key), segment_size(&apply->writer), 0);

    if (value != NULL)
        segment_encode(&apply->writer, key_slice(&key), blob, value);
    blob_hold(apply, blob, queue_id, apply->writer.first);
    segment_begin(&apply->writer);
}

static void put_entries(struct apply *apply, struct apply_queue *queue, const struct batch *batch,
                        const struct sort_item *items, uint32_t count)
{
    struct queue_row *row = &queue->row;
    const uint64_t first = batch->entries.items[items[0].value].position;
    uint64_t blob = batch->bodies.items[batch->entries.items[items[0].value].body].blob;

    segment_begin(&apply->writer);
    if (row->head == row->tail) {
        row->head = row->tail = first;
        row->deadlines = false;
    } else if (first < row->tail) { /* a row that holds, and says what cannot be */
        apply_damaged(apply, "row of queue", queue->id, first);
        apply->rc = apply->rc != 0 ? apply->rc : MDB_CORRUPTED;
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct batch_entry *put = &batch->entries.items[items[i].value];
        const struct batch_body *body = &batch->bodies.items[put->body];
        const struct segment_entry entry = {
            .position = put->position,
            .expires_ms = put->expires_ms,
            .place = {body->part, body->offset, (uint32_t)body->bytes.size},
            .crc = body->crc,
            .weight = put->weight,
            .flags = put->flags};
        assert(put->position >= row->tail); /* the batch's order */
        if (body->blob != blob || !segment_add(&apply->writer, &entry)) {
            apply_flush_segment(apply, queue->id, blob);
            blob = body->blob;
            segment_add(&apply->writer, &entry);
        }
        row->tail = put->position + 1;
        row->bytes += put->weight;
        row->deadlines |= put->expires_ms != 0;
    }
    row->count += count;
    apply_flush_segment(apply, queue->id, blob);
}

/* What the lost head said is not known any more, so the blob of the first segment stays. */
static void rebuild(struct apply *apply, struct apply_queue *queue)
{
    uint64_t blob = 0;

    if (apply->rc == 0)
        apply->rc = rebuild_queue(apply->database, apply->txn, queue->id, &queue->row, &blob,
                                  &apply->damaged);
    if (blob != 0)
        blob_pin(apply, blob);
}

bool apply_load_queue(struct apply *apply, struct apply_queue *queue)
{
    const struct key wanted = key_u64(queue->id);
    struct slice key = key_slice(&wanted), value;

    queue->row = (struct queue_row){0};
    if (!apply_get(apply, DB_QUEUE, MDB_SET_KEY, &key, &value))
        return false;
    if (!queue_row_decode(key, value, &queue->row)) {
        apply_damaged(apply, "row of queue", queue->id, 0);
        rebuild(apply, queue);
    }
    return true;
}

void apply_save_queue(struct apply *apply, const struct apply_queue *queue, bool found)
{
    const struct key key = key_u64(queue->id);
    uint8_t row[QUEUE_ROW_SIZE];

    queue_row_encode(queue->id, &queue->row, row);
    apply_put(apply, DB_QUEUE, key_slice(&key), slice_of(row, sizeof row), found ? MDB_CURRENT : 0);
}

/* The operations of one kind on one queue. */
static void apply_operations(struct apply *apply, struct apply_queue *queue,
                             const struct batch *batch, enum operation kind,
                             const struct sort_item *items, uint32_t count)
{
    switch (kind) {
    case OP_CREATE:
        break;
    case OP_DELETE:
        erase_entries(apply, queue, batch, items, count);
        break;
    case OP_RANGE:
        for (uint32_t i = 0; i < count; i++) {
            const struct batch_range *range = &batch->ranges.items[items[i].value];
            erase_range(apply, queue, range->first, range->end);
            apply_uncount(queue, range->count, range->weight);
        }
        break;
    case OP_PUT:
        put_entries(apply, queue, batch, items, count);
        break;
    case OP_MARK:
        for (uint32_t i = 0; i < count; i++)
            queue->row.delivered =
                max_of(queue->row.delivered, batch->marks.items[items[i].value].position);
        break;
    case OP_DROP:
        erase_queue(apply, queue);
        break;
    }
}

/* All operations of the batch on one queue. */
static void apply_queue(struct apply *apply, const struct batch *batch,
                        const struct sort_item *items, uint32_t count)
{
    struct apply_queue queue = {.id = items[0].major};
    const bool found = apply_load_queue(apply, &queue),
               dropped = apply_kind(&items[count - 1]) == OP_DROP;

    if (!found && apply_kind(&items[0]) >= OP_MARK)
        return; /* deleted in an earlier batch */
    if (!found && apply_kind(&items[0]) != OP_CREATE)
        apply_damaged(apply, "row missing of queue", queue.id, 0);
    for (uint32_t begin = 0, end; begin < count; begin = end) {
        const enum operation kind = apply_kind(&items[begin]);
        for (end = begin + 1; end < count && apply_kind(&items[end]) == kind; end++)
            ;
        apply_operations(apply, &queue, batch, kind, items + begin, end - begin);
    }
    if (!dropped)
        apply_save_queue(apply, &queue, found);
    else if (found)
        apply_delete(apply, DB_QUEUE);
}

static void apply_queues(struct apply *apply, const struct batch *batch)
{
    const struct sort_item *items = apply->operations.list.items;
    const uint32_t count = apply->operations.list.count;

    for (uint32_t begin = 0, end; begin < count; begin = end) {
        for (end = begin + 1; end < count && items[end].major == items[begin].major; end++)
            ;
        apply_queue(apply, batch, items + begin, end - begin);
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

int apply_batch(struct apply *apply, struct batch *batch)
{
    begin(apply);
    apply->state.lsn = batch->lsn;
    batch_settle(batch);
    list_operations(apply, batch);
    blob_write_bodies(apply, batch);
    write_records(apply, batch);
    apply_queues(apply, batch);
    blob_release(apply);
    blob_finish(apply);
    if (apply->trimming)
        trim_slice(apply);
    else if (!apply->tight)
        reclaim_slice(apply, BLOB_SIZE_MAX + batch->body_bytes, false);
    write_state(apply, batch->closes);
    fault_point(FAULT_COMMIT_APPLIED);
    return end(apply);
}

int apply_nothing(struct apply *apply)
{
    begin(apply);
    write_state(apply, false);
    return end(apply);
}

int apply_trim(struct apply *apply)
{
    begin(apply);
    trim_slice(apply);
    write_state(apply, false);
    return end(apply);
}

void apply_mend(struct apply *apply, struct mend *mend)
{
    begin(apply);
    mend_rows(apply, mend);
    write_state(apply, false);
    mend->error = end(apply);
    apply->summed &= mend->error == 0;
}

bool apply_may_reclaim(const struct apply *apply)
{
    return !apply->trimming && apply->state.sparse != 0;
}

int apply_reclaim(struct apply *apply)
{
    begin(apply);
    reclaim_slice(apply, BLOB_SIZE_MAX, true);
    write_state(apply, false);
    return end(apply);
}
