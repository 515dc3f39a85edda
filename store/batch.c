/* See batch.h for the design. */
#include "store/batch.h"

enum { MARKS_BEFORE_MERGE = 1024, RECORD_BYTES_KEEP = 1 << 20 };

void batch_release(struct batch *batch)
{
    array_release(&batch->bodies);
    array_release(&batch->entries);
    array_release(&batch->deletes);
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
    array_clear(&batch->ranges);
    array_clear(&batch->creates);
    array_clear(&batch->drops);
    array_clear(&batch->marks);
    array_clear(&batch->records);
    buf_clear(&batch->record_bytes);
    buf_shrink(&batch->record_bytes, RECORD_BYTES_KEEP);
    batch->live = batch->returned = 0;
    batch->body_bytes = 0;
    batch->error = 0;
}

bool batch_is_empty(const struct batch *batch)
{
    return batch->live == 0 && batch->deletes.count == 0 && batch->ranges.count == 0 &&
           batch->creates.count == 0 && batch->drops.count == 0 && batch->records.count == 0;
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
    assert(entry_number < batch->entries.count);
    struct batch_entry *entry = &batch->entries.items[entry_number];
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
