/* Blobs that are sparse are emptied: what lives in them moves to a new blob, and the segments
 * that led there are replaced by new ones, of living entries only.
 *
 *     blob 41  ░▒▒▒▒▒░▒▒▒▒░▒▒▒    index (1, 70) ▸ 41  (2, 501) ▸ 41     ▒ dead  ░ alive
 *     blob 57  ▒▒▒░▒▒▒▒▒░         index (1, 90) ▸ 57
 *                 ▼                       ▼
 *     blob 98  ░░░░░              index (1, 72) ▸ 98  (2, 544) ▸ 98
 *
 * An entry's place changes; its queue, its position and all that its owner gave stay. A body that
 * several entries share is moved once, because a blob is emptied as a whole: its holders are all
 * the segments that may refer to it, and the bodies in a blob are limited (blob.c) so that this is
 * the work of a millisecond. What survives goes to a blob of its own and not to one of the batch:
 * what was left over once is likely to stay longer than what comes new.
 *
 * A segment is replaced in one transaction with the bodies it leads to, so a reader sees, in its
 * own snapshot, the old or the new. Nothing is moved while ranges wait to be trimmed: dead is then
 * what lies below a queue's head or has its bit in a gone row, and nothing else.
 *
 * Which blob:  the one that has been sparse for longest, in the order of `sparse`.
 * When:        with a batch, once it has been so for reclaim_patience commits, as a queue that is
 *              read from its front empties its blobs by itself; or sooner when such blobs hold more
 *              than a quarter of all, and SLACK; and in any case while the store is idle.
 * How much:    about SLICE_NS, or what the batch itself took when such blobs hold too much; and no
 *              more bytes than go into one blob and the batch itself wrote.
 *
 * So the decision is made from rows alone, and the clock only says how far a slice goes: never what
 * a batch means. No operation names a place or a blob, and what store.h shows of a store (records,
 * queues, entries with their bodies) is the same before and after; replaying the same batches
 * elsewhere gives the same entries, at places of its own. As with trimming, space is each store's
 * own business.
 *
 * What does not add up (a row or a body that cannot be read, entries fewer or more than were
 * counted) pins the blob: it stays as it is, and is not looked at again. */
#include "base/clock.h"
#include "base/fault.h"
#include "store/apply.h"
#include "store/body.h"
#include "store/crc32c.h"

enum { SLACK = 2 << 20, SLICE_NS = 2000000, HOLDERS_MAX = 4096 };

/* ---- collecting ------------------------------------------------------------------------------ */

/* Where a queue's living entries begin; kept between the holders of one queue. */
struct head {
    uint64_t queue_id, position;
    bool known;
};

static bool find_head(struct apply *apply, struct head *head, uint64_t queue_id)
{
    const struct key wanted = key_u64(queue_id);
    struct slice key = key_slice(&wanted), value;
    struct queue_row row;

    if (head->known && head->queue_id == queue_id)
        return true;
    head->known =
        apply_get(apply, DB_QUEUE, MDB_SET_KEY, &key, &value) && queue_row_decode(key, value, &row);
    if (head->known) {
        head->queue_id = queue_id;
        head->position = row.head;
    }
    return head->known;
}

/* The living entries of the segment that was loaded. false: one cannot be read. */
static bool collect_entries(struct apply *apply, struct body_reader *bodies, uint64_t head)
{
    struct segment_reader reader;
    bool damaged;

    segment_read(&reader, &apply->segment);
    while (segment_next(&reader, &damaged)) {
        if (reader.entry.position < head || gone_has(&apply->gone, reader.index - 1))
            continue;
        if (reader.entry.place.size > PART_BODY_MAX || reader.entry.place.offset > PART_BODY_MAX ||
            !body_read(bodies, apply->segment.blob, &reader.entry, NULL))
            return false;
        *array_add(&apply->moved) = (struct moved){.entry = reader.entry,
                                                   .queue_id = apply->segment.queue_id,
                                                   .blob = apply->segment.blob,
                                                   .from = apply->emptied.count - 1};
    }
    return !damaged;
}

/* What lives in one segment, if it still is there and refers to the blob. */
static bool collect_segment(struct apply *apply, struct body_reader *bodies, uint64_t blob,
                            struct head *head, const struct holder *holder)
{
    const struct key wanted = key_pair(holder->queue_id, holder->first);
    struct slice key = key_slice(&wanted), value;
    struct gone none = {0};

    if (!apply_get(apply, DB_INDEX, MDB_SET_KEY, &key, &value))
        return true;
    if (!segment_decode(key, value, &apply->segment))
        return false;
    if (apply->segment.blob != blob)
        return true; /* replaced under the same key */
    apply->gone = none;
    key = key_slice(&wanted);
    struct slice gone;
    if (apply_get(apply, DB_GONE, MDB_SET_KEY, &key, &gone) &&
        !gone_decode(key, gone, apply->segment.count, &apply->gone))
        return false;
    if (!find_head(apply, head, holder->queue_id))
        return false;
    *array_add(&apply->emptied) = *holder;
    return collect_entries(apply, bodies, head->position);
}

static bool collect_segments(struct apply *apply, uint64_t blob)
{
    const struct key wanted = key_part(blob, PART_HOLDERS);
    struct slice key = key_slice(&wanted), value;
    size_t offset = HEADER_SIZE;
    struct holder holder = {0};
    struct head head = {0};
    struct body_reader bodies;
    bool damaged;

    if (!apply_get(apply, DB_BLOB, MDB_SET_KEY, &key, &value) || !record_check(key, value))
        return false;
    body_reader_begin(&bodies, apply->database, apply->txn);
    while (holder_next(value, &offset, &holder, &damaged))
        if (!collect_segment(apply, &bodies, blob, &head, &holder))
            return false;
    return !damaged;
}

/* Lists what was moved, from `begin` on, by where it was: shared bodies one after another. */
static void order_by_place(struct apply *apply, uint32_t begin)
{
    array_clear(&apply->order.list);
    for (uint32_t i = begin; i < apply->moved.count; i++) {
        const struct moved *moved = &apply->moved.items[i];
        const struct place *place = &moved->entry.place;
        sort_add(&apply->order, moved->blob,
                 (uint64_t)place->part << 40 | (uint64_t)place->offset << 20 | place->size, i);
    }
    sort_run(&apply->order);
}

static bool is_shared(const struct sort_list *order, uint32_t index)
{
    const struct sort_item *items = order->list.items;

    return index > 0 && items[index].major == items[index - 1].major &&
           items[index].minor == items[index - 1].minor;
}

/* What the entries from begin on will take. */
static uint64_t size_moved(struct apply *apply, uint32_t begin)
{
    uint64_t size = 0;

    order_by_place(apply, begin);
    for (uint32_t i = 0; i < apply->order.list.count; i++) {
        const struct moved *moved = &apply->moved.items[apply->order.list.items[i].value];
        size += blob_cost(is_shared(&apply->order, i) ? 0 : moved->entry.place.size);
    }
    return size;
}

/* Adds what lives in the blob to what is moved, if it is as little as that with shared bodies
 * counted once. Else it leaves `sparse` until it is sparse again by what lives now, or for good when
 * it does not add up. Answers the bytes added. */
static uint64_t collect(struct apply *apply, uint64_t blob, struct live_row *row)
{
    const uint32_t moved = apply->moved.count, emptied = apply->emptied.count;
    const bool sound = collect_segments(apply, blob) && apply->moved.count - moved == row->entries;
    const uint64_t size = sound ? size_moved(apply, moved) : 0;

    if (sound && size <= blob_sparse_at(row->size) &&
        apply->emptied.count - emptied <= HOLDERS_MAX) {
        *array_add(&apply->sources) = blob;
        return size;
    }
    apply->moved.count = moved;
    apply->emptied.count = emptied;
    if (!sound) {
        apply_damaged(apply, "blob to reclaim", blob, row->entries);
        blob_pin(apply, blob);
    } else if (blob_load(apply, blob, row)) {
        row->sparse_at = blob_sparse_at(row->alive);
        blob_save(apply, blob, row);
    }
    return 0;
}

/* ---- moving ---------------------------------------------------------------------------------- */

/* Gives every body a new place; answers the blob's number. */
static struct new_blob *place_moved(struct apply *apply)
{
    const struct sort_item *items = apply->order.list.items;
    struct new_blob *blob = blob_begin(apply);

    blob->entries = apply->moved.count;
    for (uint32_t i = 0; i < apply->moved.count; i++) {
        const uint32_t size = apply->moved.items[items[i].value].entry.place.size;
        blob->alive += blob_cost(size);
        blob->bodies += !is_shared(&apply->order, i);
        blob->body_size += is_shared(&apply->order, i) ? 0 : size;
    }
    return blob;
}

/* Where in the order the part ends that begins at begin, and its size. */
static uint32_t fill_part(const struct apply *apply, uint32_t begin, size_t *size)
{
    const struct sort_item *items = apply->order.list.items;
    uint32_t end = begin;

    *size = 0;
    for (; end < apply->order.list.count; end++) {
        const uint32_t more = is_shared(&apply->order, end)
                                  ? 0
                                  : apply->moved.items[items[end].value].entry.place.size;
        if (more > PART_BODY_MAX - *size)
            break;
        *size += more;
    }
    return end;
}

/* Copies one body, and tells its entry. */
static void move_body(struct body_reader *bodies, struct moved *moved, uint64_t blob, uint32_t part,
                      uint32_t offset, uint8_t *part_begin)
{
    const struct place place = {part, offset, moved->entry.place.size};

    bool read = body_read(bodies, moved->blob, &moved->entry, part_begin + offset);
    assert(read); /* as when it was collected */
    moved->entry.place = place;
    moved->entry.crc = crc32c(body_checksum(blob, &place), part_begin + offset, place.size);
}

static void move_part(struct apply *apply, uint64_t blob, uint32_t part, uint32_t begin,
                      uint32_t end, size_t size)
{
    const struct sort_item *items = apply->order.list.items;
    uint8_t *to = blob_reserve_part(apply, blob, part, size);
    struct body_reader bodies; /* anew: what it remembers, the last write may have moved */
    uint32_t offset = 0;

    body_reader_begin(&bodies, apply->database, apply->txn);
    for (uint32_t i = begin; i < end && to != NULL; i++) {
        struct moved *moved = &apply->moved.items[items[i].value];
        if (is_shared(&apply->order, i)) {
            const struct moved *same = &apply->moved.items[items[i - 1].value];
            moved->entry.place = same->entry.place;
            moved->entry.crc = same->entry.crc;
        } else {
            move_body(&bodies, moved, blob, part, offset, to);
            offset += moved->entry.place.size;
        }
    }
}

static void move_bodies(struct apply *apply, uint64_t blob)
{
    size_t size;

    for (uint32_t begin = 0, part = 0, end; begin < apply->moved.count; begin = end, part++) {
        end = fill_part(apply, begin, &size);
        move_part(apply, blob, part, begin, end, size);
    }
}

static void erase_emptied(struct apply *apply)
{
    for (uint32_t i = 0; i < apply->emptied.count; i++) {
        const struct holder *holder = &apply->emptied.items[i];
        const struct key wanted = key_pair(holder->queue_id, holder->first);
        struct slice key = key_slice(&wanted), value;
        if (apply_get(apply, DB_INDEX, MDB_SET_KEY, &key, &value))
            apply_delete(apply, DB_INDEX);
        key = key_slice(&wanted);
        if (apply_get(apply, DB_GONE, MDB_SET_KEY, &key, &value))
            apply_delete(apply, DB_GONE);
    }
}

/* Whether no other segment stands between two entries that were in different ones. */
static bool are_neighbours(struct apply *apply, const struct moved *left, const struct moved *right)
{
    const struct key wanted = key_pair(left->queue_id, left->entry.position);
    struct slice key = key_slice(&wanted), value;

    return left->queue_id == right->queue_id &&
           !(apply_get(apply, DB_INDEX, MDB_SET_RANGE, &key, &value) && key.size == 16 &&
             get_u64(key.data) == right->queue_id && get_u64(key.data + 8) < right->entry.position);
}

static void write_segments(struct apply *apply, uint64_t blob)
{
    const struct moved *previous = NULL;

    array_clear(&apply->order.list);
    for (uint32_t i = 0; i < apply->moved.count; i++)
        sort_add(&apply->order, apply->moved.items[i].queue_id,
                 apply->moved.items[i].entry.position, i);
    sort_run(&apply->order);

    segment_begin(&apply->writer);
    for (uint32_t i = 0; i < apply->order.list.count; i++) {
        const struct moved *moved = &apply->moved.items[apply->order.list.items[i].value];
        const bool goes_on =
            previous == NULL ||
            (moved->queue_id == previous->queue_id &&
             (moved->from == previous->from || are_neighbours(apply, previous, moved)));
        if (!goes_on || !segment_add(&apply->writer, &moved->entry)) {
            apply_flush_segment(apply, previous->queue_id, blob);
            segment_add(&apply->writer, &moved->entry);
        }
        previous = moved;
    }
    if (previous != NULL)
        apply_flush_segment(apply, previous->queue_id, blob);
}

static void remove_sources(struct apply *apply)
{
    struct live_row row;

    for (uint32_t i = 0; i < apply->sources.count; i++)
        if (blob_load(apply, apply->sources.items[i], &row))
            blob_remove(apply, apply->sources.items[i], &row);
}

static void move(struct apply *apply)
{
    order_by_place(apply, 0);
    const uint64_t blob = place_moved(apply)->number;
    move_bodies(apply, blob);
    erase_emptied(apply);
    write_segments(apply, blob);
    blob_finish(apply);
    fault_point(FAULT_RECLAIM_MOVED);
    remove_sources(apply);
}

/* ---- choosing -------------------------------------------------------------------------------- */

static bool is_urgent(const struct state_row *state)
{
    return state->sparse > SLACK + state->size / 4;
}

/* Takes the first blob of `sparse` out of it, if it is time and no more than size_max lives in
 * it. */
static bool take_candidate(struct apply *apply, bool idle, uint64_t size_max, uint64_t *blob,
                           struct live_row *row)
{
    struct slice key = {0}, value;

    if (apply->state.sparse == 0)
        return false;
    if (!apply_get(apply, DB_SPARSE, MDB_FIRST, &key, &value)) {
        apply->state.sparse = 0;
        return false;
    }
    const uint64_t since = key.size == 16 ? get_u64(key.data) : 0;
    *blob = key.size == 16 ? get_u64(key.data + 8) : 0;
    if (!idle && !is_urgent(&apply->state) &&
        since + apply->database->reclaim_patience > apply->state.lsn)
        return false;
    if (!blob_load(apply, *blob, row) || row->since != since) {
        apply_damaged(apply, "sparse row of blob", *blob, since);
        apply_delete(apply, DB_SPARSE);
        *row = (struct live_row){0};
        return true;
    }
    if (row->alive > size_max)
        return false;
    blob_leave_sparse(apply, *blob, row);
    blob_save(apply, *blob, row);
    return true;
}

/* Empties as many blobs as go into one. Answers what was moved. */
static uint64_t reclaim_step(struct apply *apply, uint64_t until_ns, bool idle)
{
    uint64_t size = 0, blob;
    struct live_row row;

    array_clear(&apply->moved);
    array_clear(&apply->emptied);
    array_clear(&apply->sources);
    while (clock_monotonic_ns() < until_ns &&
           take_candidate(apply, idle, size == 0 ? UINT64_MAX : BLOB_SIZE_MAX - size, &blob, &row))
        if (row.entries > 0)
            size += collect(apply, blob, &row);
    if (apply->sources.count > 0 && apply->rc == 0)
        move(apply);
    return size;
}

void reclaim_slice(struct apply *apply, uint64_t size_max, bool idle)
{
    const uint64_t now_ns = clock_monotonic_ns(), batch_ns = now_ns - apply->begin_ns;
    const uint64_t until_ns =
        now_ns + (is_urgent(&apply->state) ? max_of(batch_ns, (uint64_t)SLICE_NS) : SLICE_NS);

    for (uint64_t moved = 0, step = 1; step > 0 && moved < size_max && apply->rc == 0;
         moved += step)
        step = reclaim_step(apply, until_ns, idle);
}
