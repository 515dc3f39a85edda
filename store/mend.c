/* See mend.h. A queue is mended as a whole: first its rows, one after another as a walk meets them,
 * then its counts by a second walk, over what is sound by then. */
#include "store/mend.h"

#include "base/log.h"
#include "store/scan.h"
#include "store/verify.h"

/* ---- one row --------------------------------------------------------------------------------- */

/* What stands under that key in a database of which it is known what rows it has. */
static bool is_sound(enum database_id id, struct slice key, struct slice value)
{
    static _Thread_local struct segment segment;
    struct queue_row queue;
    struct live_row live;
    struct gone gone;
    uint64_t end;

    switch (id) {
    case DB_INDEX:
        return segment_decode(key, value, &segment);
    case DB_GONE:
        return gone_decode(key, value, record_count(value), &gone);
    case DB_TRIM:
        return number_decode(key, value, &end) && end > get_u64(key.data + 8);
    case DB_QUEUE:
        return queue_row_decode(key, value, &queue);
    case DB_LIVE:
        return live_decode(key, value, &live);
    default:
        return record_check(key, value);
    }
}

/* The row where the cursor stands. false: it cannot be repaired, and is as it was. */
static bool repair_row(struct apply *apply, struct mend *mend, enum database_id id,
                       struct slice key, struct slice value)
{
    uint8_t *copy = xmalloc(max_of(value.size, (size_t)1));

    memcpy(copy, value.data, value.size);
    const bool repaired =
        record_repair(key, copy, value.size) && is_sound(id, key, slice_of(copy, value.size));
    if (repaired) {
        apply_put(apply, id, key, slice_of(copy, value.size), MDB_CURRENT);
        mend->repaired++;
    }
    free(copy);
    return repaired;
}

static void remove_row(struct apply *apply, struct mend *mend, enum database_id id)
{
    apply_delete(apply, id);
    mend->removed++;
}

/* Whether a row is there, and sound or repaired; else it is gone. */
static bool mend_row(struct apply *apply, struct mend *mend, enum database_id id, struct key wanted)
{
    struct slice key = key_slice(&wanted), value;

    if (!apply_get(apply, id, MDB_SET_KEY, &key, &value))
        return false;
    key = key_slice(&wanted); /* which does not move */
    if (is_sound(id, key, value) || repair_row(apply, mend, id, key, value))
        return true;
    remove_row(apply, mend, id);
    return false;
}

/* ---- a blob ---------------------------------------------------------------------------------- */

/* What one live row, which can be read, adds to the sums. */
static void add_to_sums(struct apply *apply, const struct live_row *row)
{
    apply->state.size += row->size;
    apply->state.sparse += row->since != 0 ? row->size : 0;
}

/* What it added is taken back, and it stands in `sparse` no more. */
static void leave_sums(struct apply *apply, uint64_t blob, struct live_row *row)
{
    blob_leave_sparse(apply, blob, row);
    apply->state.size -= min_of(apply->state.size, (uint64_t)row->size);
}

/* Nothing stands in `sparse` but what its live row has there. */
static void clean_sparse(struct apply *apply, struct mend *mend)
{
    struct slice key = {0}, value;
    struct live_row row;

    for (bool more = apply_get(apply, DB_SPARSE, MDB_FIRST, &key, &value); more;
         more = apply_get(apply, DB_SPARSE, MDB_NEXT, &key, &value)) {
        mend->walked++;
        if (key.size != 16)
            apply_delete(apply, DB_SPARSE);
        else if (!blob_load(apply, get_u64(key.data + 8), &row) || row.since != get_u64(key.data))
            apply_delete(apply, DB_SPARSE);
    }
}

/* How much a row that cannot be read had added to the sums nobody knows. So before the first of
 * them is mended the sums are made anew, without any that cannot be read; and from then on each
 * mended row changes them by what it is. */
static void sum_once(struct apply *apply, struct mend *mend)
{
    struct slice key = {0}, value;
    struct live_row row;

    if (apply->summed)
        return;
    clean_sparse(apply, mend);
    apply->state.size = apply->state.sparse = 0;
    for (bool more = apply_get(apply, DB_LIVE, MDB_FIRST, &key, &value); more;
         more = apply_get(apply, DB_LIVE, MDB_NEXT, &key, &value)) {
        mend->walked++;
        if (live_decode(key, value, &row))
            add_to_sums(apply, &row);
    }
    apply->summed = apply->rc == 0;
}

static uint32_t at_most_u32(uint64_t value)
{
    return (uint32_t)min_of(value, (uint64_t)UINT32_MAX);
}

/* As many entries as there are; none: it goes, with its bodies; nobody knows: it stays for good. */
static void count_blob(struct apply *apply, uint64_t blob, struct live_row *row)
{
    const struct key key = key_u64(blob);
    uint64_t entries, alive;
    uint8_t value[LIVE_ROW_SIZE];

    const bool known = verify_count_blob(apply->database, apply->txn, blob, &entries, &alive);
    row->since = 0;
    row->entries = known ? at_most_u32(entries) : LIVE_PINNED;
    if (known) {
        row->alive = at_most_u32(alive);
        row->size = max_of(row->size, row->alive);
    }
    live_encode(blob, row, value);
    apply_put(apply, DB_LIVE, key_slice(&key), slice_of(value, sizeof value), 0);
    add_to_sums(apply, row);
    if (known && entries == 0 && blob_load(apply, blob, row))
        blob_remove(apply, blob, row);
}

/* since: of a row in `sparse` that does not agree; 0: none is known. */
static void mend_blob(struct apply *apply, struct mend *mend, uint64_t blob, uint64_t since)
{
    struct live_row row = {0};

    sum_once(apply, mend);
    if (blob_load(apply, blob, &row))
        leave_sums(apply, blob, &row);
    mend_row(apply, mend, DB_BLOB, key_part(blob, PART_HOLDERS));
    mend_row(apply, mend, DB_LIVE, key_u64(blob));
    if (!blob_load(apply, blob, &row))
        row = (struct live_row){0};
    count_blob(apply, blob, &row);

    const struct key wanted = key_pair(since, blob);
    struct slice key = key_slice(&wanted), value;
    if (since != 0 && apply_get(apply, DB_SPARSE, MDB_SET_KEY, &key, &value))
        apply_delete(apply, DB_SPARSE);
}

/* ---- a queue --------------------------------------------------------------------------------- */

/* What a walk could not read, whatever its checksum says. A blob must not count fewer entries than
 * need it, or it would go too soon: so when some are alive again it is counted at once. */
static void mend_damaged(struct apply *apply, struct mend *mend, enum database_id id,
                         struct key key, uint64_t blob)
{
    const uint32_t repaired = mend->repaired, removed = mend->removed;

    if (mend_row(apply, mend, id, key) && repaired == mend->repaired)
        remove_row(apply, mend, id);
    if (id == DB_GONE && removed < mend->removed)
        mend_blob(apply, mend, blob, 0);
}

/* Every row that a walk from `first` on cannot read. */
static void mend_walk(struct apply *apply, struct mend *mend, uint64_t queue_id, uint64_t first)
{
    struct scan scan = {.stops = true};
    bool stopped;

    do {
        scan_begin(&scan, apply->database, apply->txn, queue_id, first, UINT64_MAX);
        while (scan_next(&scan))
            first = scan.entry.position;
        stopped = scan.rc == 0 && scan_has_stopped(&scan);
        if (scan.rc != 0 && apply->rc == 0)
            apply->rc = scan.rc;
        scan_end(&scan);
        if (stopped)
            mend_damaged(apply, mend, scan.damaged_in, scan.damaged_key, scan.segment.blob);
    } while (stopped && apply->rc == 0);
}

/* Gone rows of segments that are gone themselves. */
static void mend_orphans(struct apply *apply, struct mend *mend, uint64_t queue_id)
{
    const struct key from = key_u64(queue_id);
    struct slice key = key_slice(&from), value, row;

    for (bool more = apply_get(apply, DB_GONE, MDB_SET_RANGE, &key, &value);
         more && key.size == 16 && get_u64(key.data) == queue_id;
         more = apply_get(apply, DB_GONE, MDB_NEXT, &key, &value)) {
        struct key wanted = key_pair(queue_id, get_u64(key.data + 8));
        struct slice segment = key_slice(&wanted);
        if (!apply_get(apply, DB_INDEX, MDB_SET_KEY, &segment, &row))
            remove_row(apply, mend, DB_GONE);
    }
}

/* Fills in what the index has from row->head on, which moves to the first entry. */
static void count_entries(struct apply *apply, uint64_t queue_id, struct queue_row *row)
{
    struct scan scan = {0};

    row->count = row->bytes = 0;
    scan_begin(&scan, apply->database, apply->txn, queue_id, row->head, UINT64_MAX);
    while (scan_next(&scan)) {
        if (row->count++ == 0)
            row->head = scan.entry.position;
        row->bytes += scan.entry.weight;
        row->tail = max_of(row->tail, scan.entry.position + 1);
        row->deadlines |= scan.entry.expires_ms != 0;
    }
    if (row->count == 0)
        row->head = row->tail;
    if (scan.rc != 0 && apply->rc == 0)
        apply->rc = scan.rc;
    scan_end(&scan);
}

static void mend_queue(struct apply *apply, struct mend *mend)
{
    const uint64_t id = mend->damage.id;
    struct apply_queue queue = {.id = id};
    struct slice key, value;
    const struct key wanted = key_u64(id);

    key = key_slice(&wanted);
    if (apply_get(apply, DB_QUEUE, MDB_SET_KEY, &key, &value) &&
        !is_sound(DB_QUEUE, key_slice(&wanted), value) &&
        !repair_row(apply, mend, DB_QUEUE, key_slice(&wanted), value))
        mend->removed++; /* and made anew by apply_load_queue */
    const bool found = apply_load_queue(apply, &queue);

    mend_walk(apply, mend, id, queue.row.head);
    mend_orphans(apply, mend, id);
    if (!found || apply->rc != 0)
        return; /* deleted: what is to be trimmed can be */
    const struct queue_row before = queue.row;
    count_entries(apply, id, &queue.row);
    mend->lost_count = (int64_t)(before.count - queue.row.count);
    mend->lost_bytes = (int64_t)(before.bytes - queue.row.bytes);
    apply_load_queue(apply, &(struct apply_queue){.id = id}); /* puts the cursor there */
    apply_save_queue(apply, &queue, true);
}

/* ---- any ------------------------------------------------------------------------------------- */

static void mend_record(struct apply *apply, struct mend *mend)
{
    const struct slice wanted = slice_of(mend->damage.key, mend->damage.key_size);
    struct slice key = wanted, value;

    if (apply_get(apply, DB_RECORD, MDB_SET_KEY, &key, &value) && !record_check(wanted, value))
        repair_row(apply, mend, DB_RECORD, wanted, value);
}

void mend_rows(struct apply *apply, struct mend *mend)
{
    mend->repaired = mend->removed = 0;
    mend->walked = 0;
    mend->lost_count = mend->lost_bytes = 0;
    switch (mend->damage.kind) {
    case DAMAGE_QUEUE:
        mend_queue(apply, mend);
        break;
    case DAMAGE_BLOB:
        mend_blob(apply, mend, mend->damage.id, mend->damage.position);
        break;
    case DAMAGE_RECORD:
        mend_record(apply, mend);
        break;
    case DAMAGE_BODY:
        break;
    }
}
