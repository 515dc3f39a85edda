/* Bodies at rest. A batch's bodies are placed in the order in which its queues take them, so that a
 * queue's neighbours lie together and its entries fill few segments:
 *
 *     blob 41   ┌ part 0 ───────┬ part 1 ───────┬ ... ┬ holders ─────────┐   small bodies, up to
 *               │ queue 1 ......│.. 1 │ queue 2 │     │ (1, 70) (2, 501) │   BLOB_SIZE_MAX
 *               └───────────────┴───────────────┴─────┴──────────────────┘
 *     blob 42   ┌ part 0 ───────┬ part 1 ───────┬ part 2 ──┐                 one large body
 *               └───────────────┴───────────────┴──────────┘
 *
 * A blob is also what is reclaimed at once (reclaim.c), so that its entries and the queues whose
 * bodies it was begun for are limited too. Holders are the keys of the segments that refer to it.
 *
 * A blob's live row, rewritten once per commit that takes entries from it, says
 *     entries     how many still need it: at 0 the blob goes
 *     size        what it takes on disk: its bodies, and for each entry about what its place takes
 *     alive       the same of the living entries alone, shared bodies counted for each of them
 *     sparse_at   once alive is no more than this, the blob is sparse (one body is all alive or all
 *                 dead, and has 0 here): from then on it has a row in `sparse`, under the LSN at
 *                 which it came to that, which is `since` here. */
#include "store/apply.h"
#include "store/crc32c.h"

enum { BLOB_ENTRIES_MAX = 8192, BLOB_QUEUES_MAX = 512 };

/* ---- writing bodies -------------------------------------------------------------------------- */

struct blob_place { /* where the next small body goes */
    bool open;      /* in the last blob of apply->blobs */
    uint32_t part, offset, queues;
    uint64_t queue_id;
};

struct new_blob *blob_begin(struct apply *apply)
{
    struct new_blob *blob = array_add(&apply->blobs);

    *blob = (struct new_blob){.number = ++apply->state.blob};
    return blob;
}

/* What a part holds: fifteen pages, or one while room is short. */
static uint32_t part_body_max(const struct apply *apply)
{
    return apply->tight ? SEGMENT_MAX - PART_HEADER_SIZE : PART_BODY_MAX;
}

static bool is_small(const struct apply *apply, const struct batch_body *body)
{
    return body->bytes.size <= part_body_max(apply);
}

static void put_in_blob(struct new_blob *blob, struct batch_body *body, uint32_t part,
                        uint32_t offset)
{
    body->blob = blob->number;
    body->part = part;
    body->offset = offset;
    blob->bodies++;
    blob->entries += body->live;
    blob->body_size += body->bytes.size;
    blob->alive += body->live * blob_cost((uint32_t)body->bytes.size);
}

static bool has_room(const struct blob_place *place, const struct new_blob *blob,
                     const struct batch_body *body, uint64_t queue_id)
{
    return blob->body_size + body->bytes.size <= BLOB_SIZE_MAX &&
           blob->entries + body->live <= BLOB_ENTRIES_MAX &&
           (place->queue_id == queue_id || place->queues < BLOB_QUEUES_MAX);
}

static void place_small(struct apply *apply, struct blob_place *place, struct batch_body *body,
                        uint64_t queue_id)
{
    struct new_blob *blob = place->open ? &apply->blobs.items[apply->blobs.count - 1] : NULL;

    if (blob == NULL || !has_room(place, blob, body, queue_id)) {
        blob = blob_begin(apply);
        *place = (struct blob_place){.open = true, .queue_id = queue_id, .queues = 1};
    }
    if (place->queue_id != queue_id) {
        place->queue_id = queue_id;
        place->queues++;
    }
    if (body->bytes.size > part_body_max(apply) - place->offset) {
        place->part++;
        place->offset = 0;
    }
    put_in_blob(blob, body, place->part, place->offset);
    place->offset += (uint32_t)body->bytes.size;
}

static void place_bodies(struct apply *apply, struct batch *batch)
{
    const struct sort_item *items = apply->operations.list.items;
    const uint32_t count = apply->operations.list.count;
    struct blob_place place = {0};

    array_clear(&apply->placed);
    for (uint32_t i = 0; i < count; i++) {
        if (apply_kind(&items[i]) != OP_PUT)
            continue;
        const uint32_t number = batch->entries.items[items[i].value].body;
        struct batch_body *body = &batch->bodies.items[number];
        if (body->blob != 0 || !is_small(apply, body))
            continue;
        place_small(apply, &place, body, items[i].major);
        *array_add(&apply->placed) = number;
    }
}

uint8_t *blob_reserve_part(struct apply *apply, uint64_t blob, uint32_t part, size_t size)
{
    const struct key key = key_part(blob, part);
    uint8_t *value =
        apply_reserve(apply, DB_BLOB, key_slice(&key), PART_HEADER_SIZE + size, MDB_APPEND);

    if (value == NULL)
        return NULL;
    part_header_encode(value);
    return value + PART_HEADER_SIZE;
}

static void seal_body(struct batch_body *body)
{
    const struct place place = {body->part, body->offset, (uint32_t)body->bytes.size};

    body->crc = crc32c(body_checksum(body->blob, &place), body->bytes.data, body->bytes.size);
}

/* The placed bodies from begin on that share a part; answers where the next part begins. */
static uint32_t write_part(struct apply *apply, struct batch *batch, uint32_t begin)
{
    const uint32_t *placed = apply->placed.items;
    const struct batch_body *first = &batch->bodies.items[placed[begin]];
    uint32_t end = begin;
    size_t size = 0;

    for (; end < apply->placed.count; end++) {
        const struct batch_body *body = &batch->bodies.items[placed[end]];
        if (body->blob != first->blob || body->part != first->part)
            break;
        size += body->bytes.size;
    }
    uint8_t *to = blob_reserve_part(apply, first->blob, first->part, size);
    for (uint32_t i = begin; i < end && to != NULL; i++) {
        struct batch_body *body = &batch->bodies.items[placed[i]];
        seal_body(body);
        if (body->bytes.size > 0)
            memcpy(to + body->offset, body->bytes.data, body->bytes.size);
    }
    return end;
}

static void write_large(struct apply *apply, struct batch_body *body)
{
    put_in_blob(blob_begin(apply), body, 0, 0);
    seal_body(body);
    struct slice left = body->bytes;
    for (uint32_t part = 0; left.size > 0; part++) {
        const size_t size = min_of(left.size, (size_t)part_body_max(apply));
        uint8_t *to = blob_reserve_part(apply, body->blob, part, size);
        if (to != NULL)
            memcpy(to, left.data, size);
        left = slice_of(left.data + size, left.size - size);
    }
}

void blob_write_bodies(struct apply *apply, struct batch *batch)
{
    for (uint32_t i = 0; i < batch->bodies.count; i++)
        batch->bodies.items[i].blob = 0;
    place_bodies(apply, batch);
    for (uint32_t i = 0; i < apply->placed.count;)
        i = write_part(apply, batch, i);
    for (uint32_t i = 0; i < batch->bodies.count; i++)
        if (batch->bodies.items[i].live > 0 && !is_small(apply, &batch->bodies.items[i]))
            write_large(apply, &batch->bodies.items[i]);
}

/* ---- the rows of a new blob ------------------------------------------------------------------ */

void blob_hold(struct apply *apply, uint64_t blob, uint64_t queue_id, uint64_t first)
{
    sort_add(&apply->held, blob, apply->holders.count, apply->holders.count);
    *array_add(&apply->holders) = (struct holder){queue_id, first};
}

static void write_holders(struct apply *apply, uint64_t blob, const struct sort_item *items,
                          uint32_t count)
{
    const struct key key = key_part(blob, PART_HOLDERS);
    uint8_t *row = xmalloc(HEADER_SIZE + size_mul(count, HOLDER_MAX));
    const bool is_last = blob == apply->state.blob;
    struct holder previous = {0};
    size_t size = HEADER_SIZE;

    for (uint32_t i = 0; i < count; i++) {
        const struct holder *holder = &apply->holders.items[items[i].value];
        size += holder_encode(row + size, holder, &previous);
        previous = *holder;
    }
    record_seal(key_slice(&key), row, size, 0, 0);
    apply_put(apply, DB_BLOB, key_slice(&key), slice_of(row, size), is_last ? MDB_APPEND : 0);
    free(row);
}

static uint32_t at_most_u32(uint64_t value)
{
    return (uint32_t)min_of(value, (uint64_t)UINT32_MAX);
}

static void put_live(struct apply *apply, uint64_t blob, const struct live_row *row, unsigned flags)
{
    const struct key key = key_u64(blob);
    uint8_t value[LIVE_ROW_SIZE];

    live_encode(blob, row, value);
    apply_put(apply, DB_LIVE, key_slice(&key), slice_of(value, sizeof value), flags);
}

static void write_live(struct apply *apply, const struct new_blob *blob)
{
    const uint32_t alive = at_most_u32(blob->alive);
    const struct live_row row = {
        .entries = blob->entries,
        .size = at_most_u32(blob->body_size + blob->entries * blob_cost(0)),
        .alive = alive,
        .sparse_at = blob->bodies > 1 ? blob_sparse_at(alive) : 0,
    };

    apply->state.size += row.size;
    put_live(apply, blob->number, &row, MDB_APPEND);
}

void blob_finish(struct apply *apply)
{
    sort_run(&apply->held);
    const struct sort_item *items = apply->held.list.items;
    const uint32_t count = apply->held.list.count;
    uint32_t begin = 0, end;

    for (uint32_t i = 0; i < apply->blobs.count; i++, begin = end) {
        const struct new_blob *blob = &apply->blobs.items[i];
        for (end = begin; end < count && items[end].major == blob->number; end++)
            ;
        write_holders(apply, blob->number, items + begin, end - begin);
        write_live(apply, blob);
    }
    assert(begin == count || apply->rc != 0);
    array_clear(&apply->blobs);
    array_clear(&apply->holders);
    array_clear(&apply->held.list);
}

/* ---- what lives ------------------------------------------------------------------------------ */

static void put_sparse(struct apply *apply, uint64_t blob, struct live_row *row)
{
    const struct key key = key_pair(apply->state.lsn, blob);
    uint8_t value[SPARSE_ROW_SIZE];

    record_seal(key_slice(&key), value, sizeof value, 0, 0);
    apply_put(apply, DB_SPARSE, key_slice(&key), slice_of(value, sizeof value), 0);
    row->since = apply->state.lsn;
    apply->state.sparse += row->size;
}

void blob_leave_sparse(struct apply *apply, uint64_t blob, struct live_row *row)
{
    const struct key wanted = key_pair(row->since, blob);
    struct slice key = key_slice(&wanted), value;

    if (row->since == 0)
        return;
    if (apply_get(apply, DB_SPARSE, MDB_SET_KEY, &key, &value))
        apply_delete(apply, DB_SPARSE);
    row->since = 0;
    apply->state.sparse -= min_of(apply->state.sparse, (uint64_t)row->size);
}

bool blob_load(struct apply *apply, uint64_t blob, struct live_row *row)
{
    const struct key wanted = key_u64(blob);
    struct slice key = key_slice(&wanted), value;

    return apply_get(apply, DB_LIVE, MDB_SET_KEY, &key, &value) && live_decode(key, value, row);
}

void blob_save(struct apply *apply, uint64_t blob, const struct live_row *row)
{
    put_live(apply, blob, row, MDB_CURRENT);
}

void blob_pin(struct apply *apply, uint64_t blob)
{
    struct live_row row = {0};

    if (blob_load(apply, blob, &row))
        blob_leave_sparse(apply, blob, &row);
    row.entries = LIVE_PINNED;
    put_live(apply, blob, &row, 0);
}

void blob_remove(struct apply *apply, uint64_t blob, struct live_row *row)
{
    const struct key first = key_part(blob, 0);
    struct slice key = key_slice(&first), value;

    blob_leave_sparse(apply, blob, row);
    apply->state.size -= min_of(apply->state.size, (uint64_t)row->size);
    apply_delete(apply, DB_LIVE);
    for (bool found = apply_get(apply, DB_BLOB, MDB_SET_RANGE, &key, &value);
         found && key.size == 12 && get_u64(key.data) == blob;
         found = apply_get(apply, DB_BLOB, MDB_NEXT, &key, &value))
        apply_delete(apply, DB_BLOB);
}

static void release_from(struct apply *apply, uint64_t blob, uint64_t entries, uint64_t cost)
{
    struct live_row row;

    if (!blob_load(apply, blob, &row) || entries > row.entries) {
        apply_damaged(apply, "count of blob", blob, entries);
        return;
    }
    if (row.entries == LIVE_PINNED)
        return;
    if (entries == row.entries) {
        blob_remove(apply, blob, &row);
        return;
    }
    row.entries -= (uint32_t)entries;
    row.alive -= (uint32_t)min_of(cost, (uint64_t)row.alive);
    if (row.since == 0 && row.alive <= row.sparse_at)
        put_sparse(apply, blob, &row);
    blob_save(apply, blob, &row);
}

void blob_release(struct apply *apply)
{
    sort_run(&apply->released);
    const struct sort_item *items = apply->released.list.items;
    const uint32_t count = apply->released.list.count;

    for (uint32_t i = 0; i < count;) {
        const uint64_t blob = items[i].major;
        uint64_t entries = 0, cost = 0;
        for (; i < count && items[i].major == blob; i++) {
            entries += items[i].value;
            cost += items[i].minor;
        }
        release_from(apply, blob, entries, cost);
    }
    array_clear(&apply->released.list);
}
