/* See batch.h for the design. */
#include "store/batch.h"

enum { MARKS_BEFORE_MERGE = 1024, RECORD_BYTES_KEEP = 1 << 20 };

#define MET UINT32_MAX /* for a weight: the delete has met its entry */

void batch_release(struct batch *batch)
{
    array_release(&batch->bodies);
    array_release(&batch->entries);
    array_release(&batch->deletes);
    array_release(&batch->tied);
    array_release(&batch->ranges);
    array_release(&batch->creates);
    array_release(&batch->drops);
    array_release(&batch->marks);
    array_release(&batch->records);
    buf_release(&batch->record_bytes);
}

static void return_body(struct batch *batch, struct batch_body *body, store_body_done *done)
{
    body->returned = true;
    body->bytes = (struct slice){0};
    batch->returned++;
    if (done != NULL)
        done(body->owner);
}

void batch_clear(struct batch *batch, store_body_done *done)
{
    for (uint32_t i = 0; i < batch->bodies.count; i++)
        if (!batch->bodies.items[i].returned)
            return_body(batch, &batch->bodies.items[i], done);
    array_clear(&batch->bodies);
    array_clear(&batch->entries);
    array_clear(&batch->deletes);
    array_clear(&batch->tied);
    array_clear(&batch->ranges);
    array_clear(&batch->creates);
    array_clear(&batch->drops);
    array_clear(&batch->marks);
    array_clear(&batch->records);
    buf_clear(&batch->record_bytes);
    buf_shrink(&batch->record_bytes, RECORD_BYTES_KEEP);
    batch->live = batch->returned = batch->tied_sorted = 0;
    batch->body_bytes = 0;
    batch->error = 0;
    batch->refused = batch->closes = batch->leaves = false;
}

bool batch_is_empty(const struct batch *batch)
{
    return batch->live == 0 && batch->tied.count == 0 && batch->deletes.count == 0 &&
           batch->ranges.count == 0 && batch->creates.count == 0 && batch->drops.count == 0 &&
           batch->records.count == 0;
}

void batch_add_record(struct batch *batch, struct slice key, struct slice value, bool deleted)
{
    struct batch_record *record = array_add(&batch->records);
    *record = (struct batch_record){.key = buf_size(&batch->record_bytes),
                                    .value = buf_size(&batch->record_bytes) + key.size,
                                    .key_size = (uint32_t)key.size,
                                    .value_size = (uint32_t)value.size,
                                    .deleted = deleted};
    buf_append(&batch->record_bytes, key);
    buf_append(&batch->record_bytes, value);
}

void batch_take_back(struct batch *batch, uint32_t entry_number, store_body_done *done)
{
    const uint32_t index = entry_number - batch->entry_base;
    assert(index < batch->entries.count);
    struct batch_entry *entry = &batch->entries.items[index];
    struct batch_body *body = &batch->bodies.items[entry->body];

    assert(!entry->taken_back && body->live > 0);
    entry->taken_back = true;
    batch->live--;
    if (--body->live == 0 && !body->returned) {
        batch->body_bytes -= body->bytes.size;
        return_body(batch, body, done);
    }
    /* Nothing refers to them any more, and a batch that stays empty is not submitted: they would
     * grow for ever. */
    if (batch->live == 0 && batch->returned == batch->bodies.count) {
        array_clear(&batch->entries);
        array_clear(&batch->bodies);
        batch->returned = 0;
    }
}

static int compare_queues(const void *left, const void *right)
{
    const struct batch_queue *a = left, *b = right;

    if (a->queue_id != b->queue_id)
        return a->queue_id < b->queue_id ? -1 : 1;
    return (a->position > b->position) - (a->position < b->position);
}

/* One mark per queue, the highest. */
static void merge_marks(struct batch *batch)
{
    struct batch_queue *marks = batch->marks.items;
    uint32_t kept = 0;

    qsort(marks, batch->marks.count, sizeof *marks, compare_queues);
    for (uint32_t i = 0; i < batch->marks.count; i++) {
        if (kept > 0 && marks[kept - 1].queue_id == marks[i].queue_id)
            kept--;
        marks[kept++] = marks[i];
    }
    batch->marks.count = kept;
    if (kept > batch->marks.capacity / 2)
        batch->marks.items = array_grow(batch->marks.items, &batch->marks.capacity, sizeof *marks);
}

/* An idle broker may mark for hours without a commit, so what grows is merged before it grows
 * further. */
void batch_mark(struct batch *batch, uint64_t queue_id, uint64_t position)
{
    uint32_t count = batch->marks.count;
    struct batch_queue *last = count == 0 ? NULL : &batch->marks.items[count - 1];

    if (last != NULL && last->queue_id == queue_id) {
        last->position = max_of(last->position, position);
        return;
    }
    if (count >= MARKS_BEFORE_MERGE && count == batch->marks.capacity)
        merge_marks(batch);
    *array_add(&batch->marks) = (struct batch_queue){queue_id, position};
}

void batch_settle(struct batch *batch)
{
    if (batch->drops.count == 0)
        return;
    qsort(batch->drops.items, batch->drops.count, sizeof *batch->drops.items, compare_queues);
    for (uint32_t i = 0; i < batch->entries.count; i++) {
        struct batch_entry *entry = &batch->entries.items[i];
        const struct batch_queue queue = {entry->queue_id, 0};

        if (!entry->taken_back && bsearch(&queue, batch->drops.items, batch->drops.count,
                                          sizeof queue, compare_queues) != NULL) {
            entry->taken_back = true;
            batch->live--;
            batch->bodies.items[entry->body].live--;
        }
    }
}

/* ---- without room ---------------------------------------------------------------------------- */

static bool has_definitions(const struct batch *batch)
{
    return batch->creates.count > 0 || batch->drops.count > 0 || batch->records.count > 0;
}

enum batch_part batch_refused_part(const struct batch *batch)
{
    if (batch->live > 0 || batch->tied.count > 0)
        return BATCH_ALL;
    return has_definitions(batch) ? BATCH_LEAN : BATCH_DELETES;
}

static int compare_deletes(const void *left, const void *right)
{
    const struct batch_delete *a = left, *b = right;

    if (a->queue_id != b->queue_id)
        return a->queue_id < b->queue_id ? -1 : 1;
    return (a->position > b->position) - (a->position < b->position);
}

/* A delete that must wait lies in the range. */
static bool is_tied(struct batch *batch, uint64_t queue_id, uint64_t first, uint64_t end)
{
    const struct batch_delete *tied = batch->tied.items, from = {queue_id, first, 0};
    uint32_t low = 0, high = batch->tied.count;

    if (batch->tied_sorted != batch->tied.count)
        qsort(batch->tied.items, batch->tied.count, sizeof *tied, compare_deletes);
    batch->tied_sorted = batch->tied.count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (compare_deletes(&tied[middle], &from) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < batch->tied.count && tied[low].queue_id == queue_id && tied[low].position < end;
}

static bool may_delete_ranges(struct batch *batch)
{
    for (uint32_t i = 0; i < batch->ranges.count; i++) {
        const struct batch_range *range = &batch->ranges.items[i];
        if (is_tied(batch, range->queue_id, range->first, range->end))
            return false;
    }
    return true;
}

/* All definitions go or none, so that they keep their order; and no queue goes before what is left
 * of it. */
static bool may_define(struct batch *batch)
{
    if (!may_delete_ranges(batch))
        return false;
    for (uint32_t i = 0; i < batch->drops.count; i++)
        if (is_tied(batch, batch->drops.items[i].queue_id, 0, STORE_POSITION_END))
            return false;
    return true;
}

static bool has_deletes(struct batch *batch)
{
    return batch->deletes.count > 0 || (batch->ranges.count > 0 && may_delete_ranges(batch));
}

bool batch_has(struct batch *batch, enum batch_part part)
{
    switch (part) {
    case BATCH_ALL:
        return !batch_is_empty(batch);
    case BATCH_LEAN:
        return (has_definitions(batch) && may_define(batch)) || has_deletes(batch);
    case BATCH_DELETES:
        return has_deletes(batch);
    case BATCH_NOTHING:
        return false;
    }
    __builtin_unreachable();
}

#define swap(a, b)                                                                                 \
    do {                                                                                           \
        __typeof__(a) swapped_ = (a);                                                              \
        (a) = (b);                                                                                 \
        (b) = swapped_;                                                                            \
    } while (0)

bool batch_carve(struct batch *batch, enum batch_part part, struct batch *lean)
{
    const bool ranges = may_delete_ranges(batch);

    assert(batch_is_empty(lean) && (part == BATCH_LEAN || part == BATCH_DELETES));
    swap(batch->deletes, lean->deletes);
    swap(batch->marks, lean->marks);
    if (ranges)
        swap(batch->ranges, lean->ranges);
    if (part == BATCH_LEAN && may_define(batch)) {
        batch_settle(batch);
        swap(batch->creates, lean->creates);
        swap(batch->drops, lean->drops);
        swap(batch->records, lean->records);
        swap(batch->record_bytes, lean->record_bytes);
    }
    return ranges && !has_definitions(batch);
}

#define join(to, from)                                                                             \
    do {                                                                                           \
        for (uint32_t i_ = 0; i_ < (from)->count; i_++)                                            \
            *array_add(to) = (from)->items[i_];                                                    \
        array_clear(from);                                                                         \
    } while (0)

static void join_records(struct batch *batch, struct batch *later)
{
    const size_t shift = buf_size(&batch->record_bytes);

    for (uint32_t i = 0; i < later->records.count; i++) {
        later->records.items[i].key += shift;
        later->records.items[i].value += shift;
    }
    buf_append(&batch->record_bytes, buf_slice(&later->record_bytes));
    buf_clear(&later->record_bytes);
    join(&batch->records, &later->records);
}

/* Takes back what the deletes, in order, delete of the entries, and keeps the other deletes. */
static void meet(struct batch *batch, struct batch_delete *deletes, uint32_t *count,
                 store_body_done *done)
{
    const uint32_t entries = batch->entries.count;
    uint32_t kept = 0;

    if (*count == 0)
        return;
    qsort(deletes, *count, sizeof *deletes, compare_deletes);
    for (uint32_t i = 0; i < entries && batch->entries.count == entries; i++) {
        const struct batch_entry *entry = &batch->entries.items[i];
        const struct batch_delete wanted = {entry->queue_id, entry->position, 0};
        struct batch_delete *found =
            entry->taken_back ? NULL
                              : bsearch(&wanted, deletes, *count, sizeof wanted, compare_deletes);
        if (found == NULL)
            continue;
        found->weight = MET;
        batch_take_back(batch, batch->entry_base + i, done);
    }
    for (uint32_t i = 0; i < *count; i++)
        if (deletes[i].weight != MET)
            deletes[kept++] = deletes[i];
    *count = kept;
}

void batch_join(struct batch *batch, struct batch *later, store_body_done *done)
{
    meet(batch, later->deletes.items, &later->deletes.count, done);
    meet(batch, later->tied.items, &later->tied.count, done);
    if (batch->entries.count == 0)
        batch->entry_base = later->entry_base;
    if (batch->bodies.count == 0)
        batch->body_base = later->body_base;
    assert(batch->entry_base + batch->entries.count == later->entry_base ||
           batch->entries.count == 0);
    for (uint32_t i = 0; i < later->entries.count; i++)
        later->entries.items[i].body += batch->bodies.count;
    join(&batch->bodies, &later->bodies);
    join(&batch->entries, &later->entries);
    join(&batch->deletes, &later->deletes);
    join(&batch->tied, &later->tied);
    join(&batch->ranges, &later->ranges);
    join(&batch->creates, &later->creates);
    join(&batch->drops, &later->drops);
    join(&batch->marks, &later->marks);
    join_records(batch, later);
    batch->first_lsn = min_of(batch->first_lsn, later->first_lsn);
    batch->lsn = later->lsn;
    batch->live += later->live;
    batch->returned += later->returned;
    batch->body_bytes += later->body_bytes;
    batch->refused = batch->closes = batch->leaves = false;
    later->live = later->returned = later->tied_sorted = 0;
    later->body_bytes = 0;
}

void batch_follow(struct batch *next, const struct batch *batch)
{
    next->entry_base = batch->entry_base + batch->entries.count;
    next->body_base = batch->body_base + batch->bodies.count;
}
