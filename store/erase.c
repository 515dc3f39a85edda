/* Deleting entries. A segment is never rewritten; what is dead in it is said elsewhere:
 *
 *     dead = below the queue's head, or marked in its gone row, or in a range still to be trimmed
 *
 *     head ────────────┐
 *     ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒│░░░░▒░░▒░░  ░░░░░░░░░░░  ▒░░░░░░░░░░        ▒ dead  ░ alive
 *     first segment    └ gone row   no gone row   gone row
 *
 * Consumers mostly acknowledge from the front, which moves the head and writes nothing else. A
 * segment in which nothing lives is removed at once, with its gone row, so that the first row of a
 * queue is the first with a living entry.
 *
 * A range that is deleted cuts through two segments at most: there it is deleted entry by entry.
 * The segments that it covers get one row in `trim`, [from, end): readers skip what begins there,
 * trim.c removes it in slices. A deleted queue is a range without an end; its first segment may be
 * cut by `from`, because what lies below was dead before. */
#include "store/apply.h"

#include "base/fault.h"

/* ---- one segment ----------------------------------------------------------------------------- */

static void load_gone(struct apply *apply, struct slice wanted)
{
    struct slice key = wanted, value;

    apply->gone = (struct gone){0};
    apply->gone_found = false;
    if (apply->segment.count == 1) /* with its entry the segment goes, too */
        return;
    apply->gone_found = apply_get(apply, DB_GONE, MDB_SET_KEY, &key, &value);
    if (apply->gone_found && !gone_decode(key, value, apply->segment.count, &apply->gone)) {
        apply_damaged(apply, "gone row of queue", apply->segment.queue_id, apply->segment.first);
        blob_pin(apply, apply->segment.blob);
    }
}

bool erase_load(struct apply *apply, struct slice key, struct slice value)
{
    if (!segment_decode(key, value, &apply->segment)) {
        if (key.size == 16)
            apply_damaged(apply, "segment of queue", get_u64(key.data), get_u64(key.data + 8));
        return false;
    }
    segment_read(&apply->reader, &apply->segment);
    load_gone(apply, key);
    return apply->rc == 0;
}

uint64_t erase_cost(struct apply *apply, uint16_t index)
{
    struct segment_reader *reader = &apply->reader;
    bool damaged = false;

    while (reader->index <= index && segment_next(reader, &damaged))
        ;
    if (damaged)
        apply_damaged(apply, "segment of queue", apply->segment.queue_id, apply->segment.first);
    return blob_cost(damaged ? 0 : reader->entry.place.size);
}

/* The segment in which position lies, if any: where that would be. */
static bool load_at(struct apply *apply, uint64_t queue_id, uint64_t position)
{
    struct slice key, value;

    if (apply->rc != 0)
        return false;
    int rc = database_get_below(apply->cursors[DB_INDEX], queue_id, position, &key, &value);
    if (rc != 0 && rc != MDB_NOTFOUND)
        apply->rc = rc;
    return rc == 0 && erase_load(apply, key, value) && position <= apply->segment.last;
}

void erase_segment(struct apply *apply)
{
    apply_delete(apply, DB_INDEX);
    if (apply->gone_found)
        apply_delete(apply, DB_GONE);
}

static bool is_dead(const struct apply *apply, const struct apply_queue *queue, uint16_t index)
{
    return segment_position(&apply->segment, index) < queue->row.head ||
           gone_has(&apply->gone, index);
}

/* Entries of one segment, marked as gone. */
struct marked {
    uint32_t count;
    uint64_t cost;
};

static void mark(struct apply *apply, uint16_t index, struct marked *marked)
{
    gone_add(&apply->gone, index);
    marked->count++;
    marked->cost += erase_cost(apply, index);
}

/* Marks what lives in [first, end) as gone. */
static struct marked mark_range(struct apply *apply, const struct apply_queue *queue,
                                uint64_t first, uint64_t end)
{
    struct marked marked = {0};

    for (uint16_t i = segment_seek(&apply->segment, first);
         i < apply->segment.count && segment_position(&apply->segment, i) < end; i++)
        if (!is_dead(apply, queue, i))
            mark(apply, i, &marked);
    return marked;
}

/* Marks those of the positions that the segment holds, which the queue counts no more; answers how
 * many of the items are dealt with. */
static uint32_t mark_entries(struct apply *apply, struct apply_queue *queue,
                             const struct batch *batch, const struct sort_item *items,
                             uint32_t count, struct marked *marked)
{
    const struct segment *segment = &apply->segment;
    uint32_t i = 0;

    for (; i < count && (items[i].minor & APPLY_POSITION) <= segment->last; i++) {
        const uint64_t position = items[i].minor & APPLY_POSITION;
        const uint16_t index = segment_seek(segment, position);
        if (segment_position(segment, index) != position || is_dead(apply, queue, index)) {
            apply_damaged(apply, "no entry to delete in queue", queue->id, position);
            continue;
        }
        mark(apply, index, marked);
        apply_uncount(queue, 1, batch_delete_at(batch, items[i].value)->weight);
    }
    return i;
}

static uint16_t first_alive(const struct apply *apply, const struct apply_queue *queue)
{
    uint16_t index = segment_seek(&apply->segment, queue->row.head);

    while (index < apply->segment.count && gone_has(&apply->gone, index))
        index++;
    return index;
}

/* Whether a segment of the queue stands before the cursor. The cursor comes back to where it
 * was. */
static bool has_previous(struct apply *apply, uint64_t queue_id)
{
    struct slice key = {0}, value;

    if (!apply_get(apply, DB_INDEX, MDB_PREV, &key,
                   &value)) /* the very first row: it does not move */
        return false;
    const bool same = key.size == 16 && get_u64(key.data) == queue_id;
    apply_get(apply, DB_INDEX, MDB_NEXT, &key, &value);
    return same;
}

/* The head when everything before the row at which apply_get answered is dead. */
static uint64_t head_at(bool found, struct slice key, const struct apply_queue *queue)
{
    return found && key.size == 16 && get_u64(key.data) == queue->id ? get_u64(key.data + 8)
                                                                     : queue->row.tail;
}

static void save_gone(struct apply *apply, bool needed)
{
    const struct segment *segment = &apply->segment;
    const struct key key = key_pair(segment->queue_id, segment->first);
    uint8_t row[GONE_ROW_MAX];
    const size_t size = gone_encode(key_slice(&key), &apply->gone, segment->count, row);

    if (needed)
        apply_put(apply, DB_GONE, key_slice(&key), slice_of(row, size),
                  apply->gone_found ? MDB_CURRENT : 0);
    else if (apply->gone_found)
        apply_delete(apply, DB_GONE);
}

/* Whether an entry from index on is gone: below, the head says so. */
static bool any_gone_after(const struct apply *apply, uint16_t index)
{
    while (index < apply->segment.count && !gone_has(&apply->gone, index))
        index++;
    return index < apply->segment.count;
}

/* Writes down what was marked: in the head where that suffices, else in the gone row, or by
 * removing the segment. */
static void finish_segment(struct apply *apply, struct apply_queue *queue, struct marked marked)
{
    const struct segment *segment = &apply->segment;

    if (marked.count == 0)
        return;
    blob_lose(apply, segment->blob, marked.count, marked.cost);
    const bool front = segment->first <= queue->row.head || !has_previous(apply, queue->id);
    const uint16_t alive = first_alive(apply, queue);

    if (alive < segment->count && front) {
        queue->row.head = max_of(queue->row.head, segment_position(segment, alive));
        save_gone(apply, any_gone_after(apply, alive));
    } else if (alive < segment->count) {
        save_gone(apply, true);
    } else {
        struct slice key = {0}, value;
        erase_segment(apply);
        if (front) {
            const bool found = apply_get(apply, DB_INDEX, MDB_NEXT, &key, &value);
            queue->row.head = head_at(found, key, queue);
        }
    }
}

/* ---- entries, ranges, queues ----------------------------------------------------------------- */

void erase_entries(struct apply *apply, struct apply_queue *queue, const struct batch *batch,
                   const struct sort_item *items, uint32_t count)
{
    for (uint32_t i = 0; i < count && apply->rc == 0;) {
        const uint64_t position = items[i].minor & APPLY_POSITION;
        struct marked marked = {0};
        if (!load_at(apply, queue->id, position)) {
            apply_damaged(apply, "no segment to delete from in queue", queue->id, position);
            i++;
            continue;
        }
        i += mark_entries(apply, queue, batch, items + i, count - i, &marked);
        finish_segment(apply, queue, marked);
    }
}

/* Notes [from, end) for trim.c, if a segment begins there. */
static void trim_later(struct apply *apply, uint64_t queue_id, uint64_t from, uint64_t end)
{
    const struct key wanted = key_pair(queue_id, from);
    struct slice key = key_slice(&wanted), value;
    uint8_t row[NUMBER_ROW_SIZE];
    uint64_t old;

    if (apply_get(apply, DB_TRIM, MDB_SET_KEY, &key, &value) && number_decode(key, value, &old))
        end = max_of(end, old);
    number_encode(key_slice(&wanted), end, 0, row);
    apply_put(apply, DB_TRIM, key_slice(&wanted), slice_of(row, sizeof row), 0);
    apply->trimming = true;
}

/* The segment that begins before first and holds it; answers where the next could begin. */
static uint64_t cut_first(struct apply *apply, struct apply_queue *queue, uint64_t first,
                          uint64_t end)
{
    if (!load_at(apply, queue->id, first) || apply->segment.first == first)
        return first;
    const uint64_t next = apply->segment.last + 1;

    finish_segment(apply, queue, mark_range(apply, queue, first, end));
    return next;
}

/* The segment that begins at from or above, before end, and goes on past it; answers where it
 * begins. */
static uint64_t cut_last(struct apply *apply, struct apply_queue *queue, uint64_t from,
                         uint64_t end, bool front)
{
    if (!load_at(apply, queue->id, end) || apply->segment.first < from ||
        apply->segment.first == end)
        return end;
    const uint64_t begins = apply->segment.first;
    const struct marked marked = mark_range(apply, queue, from, end);

    if (front)
        queue->row.head = max_of(queue->row.head, end);
    finish_segment(apply, queue, marked);
    return begins;
}

/* The head when all before position is dead and no segment holds it. */
static uint64_t first_from(struct apply *apply, const struct apply_queue *queue, uint64_t position)
{
    const struct key wanted = key_pair(queue->id, position);
    struct slice key = key_slice(&wanted), value;
    const bool found = apply_get(apply, DB_INDEX, MDB_SET_RANGE, &key, &value);

    return head_at(found, key, queue);
}

void erase_range(struct apply *apply, struct apply_queue *queue, uint64_t first, uint64_t end)
{
    const bool front = first <= queue->row.head;

    first = max_of(first, queue->row.head);
    end = min_of(end, queue->row.tail);
    if (first >= end)
        return;
    const uint64_t from = cut_first(apply, queue, first, end);
    const uint64_t until = from < end ? cut_last(apply, queue, from, end, front) : from;

    if (from < until)
        trim_later(apply, queue->id, from, until);
    if (front && queue->row.head < end)
        queue->row.head = load_at(apply, queue->id, end) ? end : first_from(apply, queue, end);
    fault_point(FAULT_RANGE_DELETED);
}

void erase_queue(struct apply *apply, const struct apply_queue *queue)
{
    if (queue->row.head == queue->row.tail)
        return;
    trim_later(apply, queue->id, queue->row.head, UINT64_MAX);
    fault_point(FAULT_QUEUE_ERASED);
}
