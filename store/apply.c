/* A batch becomes rows. In this order, in one transaction:
 *
 *     bodies      gathered from the owner's memory into parts, appended under the batch's LSN
 *     records     put and deleted in the order they came
 *     queues      in id order; of each: deletes, ranges, puts as segments, then its row, once
 *     live        one row for the new blob; less for those that lost entries; a blob at 0 goes
 *     trim        a slice
 *     state       the LSN
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

#include "base/fault.h"
#include "base/log.h"
#include "store/crc32c.h"
#include "store/rebuild.h"

void apply_init(struct apply *apply, const struct database *database)
{
    *apply = (struct apply){.database = database, .trimming = true};
}

void apply_release_memory(struct apply *apply)
{
    sort_release(&apply->operations);
    sort_release(&apply->released);
}

/* ---- the transaction ------------------------------------------------------------------------- */

static void begin(struct apply *apply)
{
    apply->bytes_written = apply->damaged = 0;
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

/* Cursors of a write transaction end with it. */
static int end(struct apply *apply)
{
    if (apply->rc == 0)
        apply->rc = mdb_txn_commit(apply->txn);
    else if (apply->txn != NULL)
        mdb_txn_abort(apply->txn);
    apply->txn = NULL;
    if (apply->rc != 0)
        log_critical("the store could not commit: %s", mdb_strerror(apply->rc));
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

static void put_live(struct apply *apply, uint64_t lsn, uint32_t live, unsigned flags)
{
    const struct key key = key_u64(lsn);
    uint8_t row[LIVE_ROW_SIZE];

    live_encode(lsn, live, row);
    apply_put(apply, DB_LIVE, key_slice(&key), slice_of(row, sizeof row), flags);
}

void apply_pin(struct apply *apply, uint64_t lsn)
{
    put_live(apply, lsn, LIVE_PINNED, 0);
}

/* ---- bodies ---------------------------------------------------------------------------------- */

static uint8_t *reserve_part(struct apply *apply, uint64_t lsn, uint32_t part, size_t size)
{
    const struct key key = key_part(lsn, part);
    uint8_t *value =
        apply_reserve(apply, DB_BLOB, key_slice(&key), PART_HEADER_SIZE + size, MDB_APPEND);

    if (value == NULL)
        return NULL;
    part_header_encode(value);
    return value + PART_HEADER_SIZE;
}

static void place_body(struct batch_body *body, uint64_t lsn, uint32_t part, uint32_t offset)
{
    const struct place place = {part, offset, (uint32_t)body->bytes.size};

    body->part = part;
    body->offset = offset;
    body->crc = crc32c(body_checksum(lsn, &place), body->bytes.data, body->bytes.size);
}

/* Copies the small live bodies among [begin, end) into one part. */
static void write_part(struct apply *apply, struct batch *batch, uint32_t begin, uint32_t end,
                       uint32_t part, size_t size)
{
    uint8_t *to = reserve_part(apply, batch->lsn, part, size);
    uint32_t offset = 0;

    for (uint32_t i = begin; i < end && to != NULL; i++) {
        struct batch_body *body = &batch->bodies.items[i];
        if (body->live == 0 || body->bytes.size > PART_BODY_MAX)
            continue;
        place_body(body, batch->lsn, part, offset);
        if (body->bytes.size > 0)
            memcpy(to + offset, body->bytes.data, body->bytes.size);
        offset += (uint32_t)body->bytes.size;
    }
}

/* A body larger than a part; answers the next part. */
static uint32_t write_large(struct apply *apply, const struct batch *batch, struct batch_body *body,
                            uint32_t part)
{
    place_body(body, batch->lsn, part, 0);
    for (struct slice left = body->bytes; left.size > 0; part++) {
        const size_t size = min_of(left.size, (size_t)PART_BODY_MAX);
        uint8_t *to = reserve_part(apply, batch->lsn, part, size);
        if (to != NULL)
            memcpy(to, left.data, size);
        left = slice_of(left.data + size, left.size - size);
    }
    return part;
}

static void write_bodies(struct apply *apply, struct batch *batch)
{
    uint32_t part = 0, begin = 0; /* the part being filled, and the first body that may go there */
    size_t size = 0;
    bool any = false;

    for (uint32_t i = 0; i < batch->bodies.count; i++) {
        struct batch_body *body = &batch->bodies.items[i];
        if (body->live == 0 || body->bytes.size > PART_BODY_MAX)
            continue;
        if (any && body->bytes.size > PART_BODY_MAX - size) {
            write_part(apply, batch, begin, i, part++, size);
            begin = i;
            size = 0;
        }
        size += body->bytes.size;
        any = true;
    }
    if (any)
        write_part(apply, batch, begin, batch->bodies.count, part++, size);
    for (uint32_t i = 0; i < batch->bodies.count; i++)
        if (batch->bodies.items[i].live > 0 && batch->bodies.items[i].bytes.size > PART_BODY_MAX)
            part = write_large(apply, batch, &batch->bodies.items[i], part);
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
    for (uint32_t i = 0; i < batch->deletes.count; i++)
        add_operation(apply, batch->deletes.items[i].queue_id, OP_DELETE,
                      batch->deletes.items[i].position, i);
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

/* What the owner says was deleted; a rebuilt row may never have counted it. */
static void subtract(struct queue_row *row, uint64_t count, uint64_t bytes)
{
    row->count -= min_of(row->count, count);
    row->bytes -= min_of(row->bytes, bytes);
}

static void flush_segment(struct apply *apply, uint64_t queue_id, uint64_t lsn)
{
    const struct key key = key_pair(queue_id, apply->writer.first);
    uint8_t *value =
        apply_reserve(apply, DB_INDEX, key_slice(&key), segment_size(&apply->writer), 0);

    if (value != NULL)
        segment_encode(&apply->writer, key_slice(&key), lsn, value);
    segment_begin(&apply->writer);
}

static void put_entries(struct apply *apply, struct apply_queue *queue, const struct batch *batch,
                        const struct sort_item *items, uint32_t count)
{
    struct queue_row *row = &queue->row;

    segment_begin(&apply->writer);
    if (row->head == row->tail) {
        row->head = row->tail = batch->entries.items[items[0].value].position;
        row->deadlines = false;
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
        assert(put->position >= row->tail);
        if (!segment_add(&apply->writer, &entry)) {
            flush_segment(apply, queue->id, batch->lsn);
            segment_add(&apply->writer, &entry);
        }
        row->tail = put->position + 1;
        row->bytes += put->weight;
        row->deadlines |= put->expires_ms != 0;
    }
    row->count += count;
    flush_segment(apply, queue->id, batch->lsn);
}

/* What the lost head said is not known any more, so the blob of the first segment stays. */
static void rebuild(struct apply *apply, struct apply_queue *queue)
{
    uint64_t lsn = 0;

    if (apply->rc == 0)
        apply->rc = rebuild_queue(apply->database, apply->txn, queue->id, &queue->row, &lsn,
                                  &apply->damaged);
    if (lsn != 0)
        apply_pin(apply, lsn);
}

/* false: there is no such queue. */
static bool load_queue(struct apply *apply, struct apply_queue *queue)
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

static void save_queue(struct apply *apply, const struct apply_queue *queue, bool found)
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
        erase_entries(apply, queue, items, count);
        for (uint32_t i = 0; i < count; i++)
            subtract(&queue->row, 1, batch->deletes.items[items[i].value].weight);
        break;
    case OP_RANGE:
        for (uint32_t i = 0; i < count; i++) {
            const struct batch_range *range = &batch->ranges.items[items[i].value];
            erase_range(apply, queue, range->first, range->end);
            subtract(&queue->row, range->count, range->weight);
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

static enum operation kind_of(const struct sort_item *item)
{
    return (enum operation)(item->minor >> APPLY_KIND_SHIFT);
}

/* All operations of the batch on one queue. */
static void apply_queue(struct apply *apply, const struct batch *batch,
                        const struct sort_item *items, uint32_t count)
{
    struct apply_queue queue = {.id = items[0].major};
    const bool found = load_queue(apply, &queue), dropped = kind_of(&items[count - 1]) == OP_DROP;

    if (!found && kind_of(&items[0]) >= OP_MARK)
        return; /* deleted in an earlier batch */
    if (!found && kind_of(&items[0]) != OP_CREATE)
        apply_damaged(apply, "row missing of queue", queue.id, 0);
    for (uint32_t begin = 0, end; begin < count; begin = end) {
        const enum operation kind = kind_of(&items[begin]);
        for (end = begin + 1; end < count && kind_of(&items[end]) == kind; end++)
            ;
        apply_operations(apply, &queue, batch, kind, items + begin, end - begin);
    }
    if (!dropped)
        save_queue(apply, &queue, found);
    else if (found)
        apply_delete(apply, DB_QUEUE);
}

static void apply_queues(struct apply *apply, const struct batch *batch)
{
    list_operations(apply, batch);
    const struct sort_item *items = apply->operations.list.items;
    const uint32_t count = apply->operations.list.count;

    for (uint32_t begin = 0, end; begin < count; begin = end) {
        for (end = begin + 1; end < count && items[end].major == items[begin].major; end++)
            ;
        apply_queue(apply, batch, items + begin, end - begin);
    }
}

/* ---- blobs ----------------------------------------------------------------------------------- */

static void remove_blob(struct apply *apply, uint64_t lsn)
{
    const struct key first = key_part(lsn, 0);
    struct slice key = key_slice(&first), value;

    for (bool found = apply_get(apply, DB_BLOB, MDB_SET_RANGE, &key, &value);
         found && key.size == 12 && get_u64(key.data) == lsn;
         found = apply_get(apply, DB_BLOB, MDB_NEXT, &key, &value))
        apply_delete(apply, DB_BLOB);
}

static void release_from(struct apply *apply, uint64_t lsn, uint64_t entries)
{
    const struct key wanted = key_u64(lsn);
    struct slice key = key_slice(&wanted), value;
    uint32_t live;

    if (!apply_get(apply, DB_LIVE, MDB_SET_KEY, &key, &value) || !live_decode(key, value, &live) ||
        entries > live) {
        apply_damaged(apply, "count of blob", lsn, entries);
        return;
    }
    if (live == LIVE_PINNED)
        return;
    if (entries < live) {
        put_live(apply, lsn, live - (uint32_t)entries, MDB_CURRENT);
        return;
    }
    apply_delete(apply, DB_LIVE);
    remove_blob(apply, lsn);
}

void apply_release(struct apply *apply)
{
    sort_run(&apply->released);
    const struct sort_item *items = apply->released.list.items;
    const uint32_t count = apply->released.list.count;

    for (uint32_t i = 0; i < count;) {
        const uint64_t lsn = items[i].major;
        uint64_t entries = 0;
        for (; i < count && items[i].major == lsn; i++)
            entries += items[i].value;
        release_from(apply, lsn, entries);
    }
    array_clear(&apply->released.list);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void write_state(struct apply *apply, const struct batch *batch)
{
    uint8_t row[NUMBER_ROW_SIZE];

    number_encode(database_state_key(), batch->lsn, batch->closes ? STATE_CLEAN : 0, row);
    apply_put(apply, DB_META, database_state_key(), slice_of(row, sizeof row), 0);
}

int apply_batch(struct apply *apply, struct batch *batch)
{
    begin(apply);
    batch_settle(batch);
    write_bodies(apply, batch);
    write_records(apply, batch);
    apply_queues(apply, batch);
    apply_release(apply);
    if (batch->live > 0)
        put_live(apply, batch->lsn, batch->live, MDB_APPEND);
    if (apply->trimming)
        trim_slice(apply);
    write_state(apply, batch);
    fault_point(FAULT_COMMIT_APPLIED);
    return end(apply);
}

int apply_trim(struct apply *apply)
{
    begin(apply);
    trim_slice(apply);
    return end(apply);
}
