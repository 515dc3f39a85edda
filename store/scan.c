/* See scan.h. A segment that begins in a range of `trim` is dead as a whole (erase.c); the one row
 * of a deleted queue whose `from` cuts a segment is never met, since the queue is gone. */
#include "store/scan.h"

#include "base/log.h"

static void damaged(struct scan *scan, enum database_id id, const char *what, uint64_t position)
{
    scan->damaged++;
    scan->damaged_in = id;
    scan->damaged_key = key_pair(scan->queue_id, position);
    if (!scan->stops)
        log_error("the store is damaged: %s %" PRIu64 "/%" PRIu64, what, scan->queue_id, position);
}

/* Whether a row was found; another outcome than "none" ends the walk. */
static bool found(struct scan *scan, int rc)
{
    if (rc != 0 && rc != MDB_NOTFOUND)
        scan->rc = rc;
    return rc == 0;
}

static void load_trims(struct scan *scan)
{
    const struct key from = key_u64(scan->queue_id);
    struct slice key = key_slice(&from), value;
    struct scan_range range;

    for (bool more = found(scan, database_get(scan->trim, MDB_SET_RANGE, &key, &value));
         more && key.size == 16 && get_u64(key.data) == scan->queue_id;
         more = found(scan, database_get(scan->trim, MDB_NEXT, &key, &value))) {
        range.first = get_u64(key.data + 8);
        if (number_decode(key, value, &range.end))
            *array_add(&scan->trims) = range;
        else
            damaged(scan, DB_TRIM, "trim row of queue", range.first);
    }
}

void scan_begin(struct scan *scan, const struct database *database, MDB_txn *txn, uint64_t queue_id,
                uint64_t first, uint64_t end)
{
    scan->queue_id = queue_id;
    scan->first = first;
    scan->end = end;
    scan->in_segment = false;
    scan->damaged = 0;
    scan->index = scan->gone = scan->trim = NULL;
    array_clear(&scan->trims);
    scan->rc = mdb_cursor_open(txn, database->dbi[DB_INDEX], &scan->index);
    if (scan->rc == 0)
        scan->rc = mdb_cursor_open(txn, database->dbi[DB_GONE], &scan->gone);
    if (scan->rc == 0)
        scan->rc = mdb_cursor_open(txn, database->dbi[DB_TRIM], &scan->trim);
    if (scan->rc == 0)
        load_trims(scan);
}

void scan_end(struct scan *scan)
{
    if (scan->index != NULL)
        mdb_cursor_close(scan->index);
    if (scan->gone != NULL)
        mdb_cursor_close(scan->gone);
    if (scan->trim != NULL)
        mdb_cursor_close(scan->trim);
    array_release(&scan->trims);
}

/* Where the range ends that holds position; 0: none does. */
static uint64_t trimmed_until(const struct scan *scan, uint64_t position)
{
    for (uint32_t i = 0; i < scan->trims.count; i++)
        if (position >= scan->trims.items[i].first && position < scan->trims.items[i].end)
            return scan->trims.items[i].end;
    return 0;
}

static void load_gone(struct scan *scan, struct slice wanted)
{
    struct slice key = wanted, value;

    scan->gone_of_segment = (struct gone){0};
    if (found(scan, database_get(scan->gone, MDB_SET_KEY, &key, &value)) &&
        !gone_decode(key, value, scan->segment.count, &scan->gone_of_segment))
        damaged(scan, DB_GONE, "gone row of queue", scan->segment.first);
}

/* The segment that holds scan->first, or the next one. */
static bool seek_row(struct scan *scan, struct slice *key, struct slice *value)
{
    const struct key wanted = key_pair(scan->queue_id, scan->first);

    if (found(scan, database_get_below(scan->index, scan->queue_id, scan->first, key, value))) {
        const bool sound = segment_decode(*key, *value, &scan->segment);
        if (sound && scan->segment.last >= scan->first)
            return true;
        if (!sound && scan->stops && trimmed_until(scan, get_u64(key->data + 8)) == 0) {
            damaged(scan, DB_INDEX, "segment of queue", get_u64(key->data + 8));
            return false;
        }
    }
    *key = key_slice(&wanted);
    return scan->rc == 0 && found(scan, database_get(scan->index, MDB_SET_RANGE, key, value)) &&
           key->size == 16 && get_u64(key->data) == scan->queue_id;
}

/* Moves to the next segment in which something may live. */
static bool next_segment(struct scan *scan)
{
    struct slice key, value;

    while (scan->first < scan->end && seek_row(scan, &key, &value)) {
        const uint64_t begins = get_u64(key.data + 8), until = trimmed_until(scan, begins);
        if (begins >= scan->end)
            break;
        if (until > scan->first) {
            scan->first = until;
        } else if (!segment_decode(key, value, &scan->segment)) {
            damaged(scan, DB_INDEX, "segment of queue", begins);
            scan->first = max_of(begins, scan->first) + 1;
        } else {
            load_gone(scan, key);
            segment_read(&scan->reader, &scan->segment);
            return scan->rc == 0 && !scan_has_stopped(scan);
        }
        if (scan_has_stopped(scan))
            return false;
    }
    return false;
}

/* The next living entry of the segment. */
static bool next_in_segment(struct scan *scan)
{
    bool broken;

    while (segment_next(&scan->reader, &broken)) {
        const uint16_t index = scan->reader.index - 1;
        if (scan->reader.entry.position < scan->first || gone_has(&scan->gone_of_segment, index))
            continue;
        scan->entry = scan->reader.entry;
        scan->blob = scan->segment.blob;
        return true;
    }
    if (broken)
        damaged(scan, DB_INDEX, "segment of queue", scan->segment.first);
    return false;
}

bool scan_next(struct scan *scan)
{
    while (scan->rc == 0 && !scan_has_stopped(scan)) {
        if (!scan->in_segment && !next_segment(scan))
            return false;
        scan->in_segment = next_in_segment(scan);
        if (scan->in_segment)
            return scan->entry.position < scan->end;
        scan->first = scan->segment.last + 1;
    }
    return false;
}
