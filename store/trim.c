/* Removing what deleted ranges and queues left behind. Nobody sees any of it any more, so it has
 * time: a slice rides along with each commit, or makes one of its own while the store is idle, and
 * takes about SLICE_NS. What is left is in the database, so a restart goes on where the last slice
 * ended.
 *
 * A row (queue, from) -> end: the segments that hold positions in [from, end) lost all that lived
 * in them, except what was marked as gone before. After each step `from` is where the next segment
 * begins. */
#include "base/clock.h"
#include "base/fault.h"
#include "store/apply.h"

enum { STEP = 64, SLICE_NS = 2000000 };

/* Removes the segment where the index cursor stands. */
static void trim_segment(struct apply *apply, uint64_t from, struct slice key, struct slice value)
{
    uint32_t alive = 0;
    uint64_t cost = 0;

    if (!erase_load(apply, key, value)) {
        apply_delete(apply, DB_INDEX);
        return;
    }
    for (uint16_t i = segment_seek(&apply->segment, from); i < apply->segment.count; i++)
        if (!gone_has(&apply->gone, i)) {
            alive++;
            cost += erase_cost(apply, i);
        }
    if (alive > 0)
        blob_lose(apply, apply->segment.blob, alive, cost);
    erase_segment(apply);
}

/* The first segment that holds a position of the range. */
static bool find_first(struct apply *apply, uint64_t queue_id, uint64_t from, struct slice *key,
                       struct slice *value)
{
    const struct key wanted = key_pair(queue_id, from);

    if (apply->rc != 0)
        return false;
    int rc = database_get_below(apply->cursors[DB_INDEX], queue_id, from, key, value);
    if (rc == 0 && segment_decode(*key, *value, &apply->segment) && apply->segment.last >= from)
        return true;
    *key = key_slice(&wanted);
    return apply_get(apply, DB_INDEX, MDB_SET_RANGE, key, value);
}

static bool in_range(struct slice key, uint64_t queue_id, uint64_t end)
{
    if (fault_bug(FAULT_TRIM_TOO_FAR))
        end = end < UINT64_MAX ? end + 1 : end;
    return key.size == 16 && get_u64(key.data) == queue_id && get_u64(key.data + 8) < end;
}

/* Removes up to STEP segments. Answers true and where to go on if there are more. */
static bool trim_step(struct apply *apply, uint64_t queue_id, uint64_t from, uint64_t end,
                      uint64_t *next)
{
    struct slice key, value;
    bool found = find_first(apply, queue_id, from, &key, &value);

    for (int i = 0; i < STEP && found && in_range(key, queue_id, end); i++) {
        trim_segment(apply, from, key, value);
        found = apply_get(apply, DB_INDEX, MDB_NEXT, &key, &value);
    }
    if (!found || !in_range(key, queue_id, end))
        return false;
    *next = get_u64(key.data + 8);
    return true;
}

/* One step on the first range that is left. false: none is. */
static bool trim_first(struct apply *apply)
{
    struct slice key = {0}, value;
    uint64_t end, next;

    if (!apply_get(apply, DB_TRIM, MDB_FIRST, &key, &value))
        return false;
    if (key.size != 16 || !number_decode(key, value, &end)) {
        apply_damaged(apply, "trim row", 0, 0);
        apply_delete(apply, DB_TRIM);
        return true;
    }
    const uint64_t queue_id = get_u64(key.data), from = get_u64(key.data + 8);
    const bool more = trim_step(apply, queue_id, from, end, &next);

    apply_delete(apply, DB_TRIM);
    if (more) {
        const struct key rest = key_pair(queue_id, next);
        uint8_t row[NUMBER_ROW_SIZE];
        number_encode(key_slice(&rest), end, 0, row);
        apply_put(apply, DB_TRIM, key_slice(&rest), slice_of(row, sizeof row), 0);
    }
    return true;
}

void trim_slice(struct apply *apply)
{
    const uint64_t until = clock_monotonic_ns() + SLICE_NS;

    do {
        apply->trimming = trim_first(apply);
        blob_release(apply);
        fault_point(FAULT_TRIM_STEP);
    } while (apply->trimming && apply->rc == 0 && clock_monotonic_ns() < until);
}
