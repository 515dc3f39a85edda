/* See workload.h. */
#include "tests/states/workload.h"

#include "base/fault.h"
#include "store/crc32c.h"

enum {
    QUEUES_MAX = 7,
    BACKLOG_MAX = 500000, /* bytes: above it more is taken than put */
    COPIES_MAX = 4,
};

static uint64_t below(struct workload *workload, uint64_t bound)
{
    return random_below(workload->random, bound);
}

static struct model_queue *any_queue(struct workload *workload)
{
    return &workload->model->queues.items[below(workload, workload->model->queues.count)];
}

/* ---- bodies ---------------------------------------------------------------------------------- */

void workload_on_body_done(void *body_owner)
{
    free(body_owner);
}

static uint32_t any_size(struct workload *workload)
{
    const uint64_t kind = below(workload, 100);

    return (uint32_t)(kind < 75   ? below(workload, 300)
                      : kind < 92 ? below(workload, 3000)
                      : kind < 99 ? below(workload, 20000)
                                  : 61000 + below(workload, 80000));
}

/* No two have the same bytes: a body in another's place is noticed. */
static uint8_t *make_body(struct workload *workload, uint32_t size)
{
    uint8_t *body = xmalloc(size + sizeof(uint64_t));
    uint64_t word = ++workload->model->bodies * UINT64_C(0x9e3779b97f4a7c15);

    for (uint32_t at = 0; at < size; at += sizeof word) {
        memcpy(body + at, &word, sizeof word);
        word = word * UINT64_C(6364136223846793005) + 1442695040888963407;
    }
    return body;
}

static struct slice add_body(struct workload *workload, uint32_t *number)
{
    const uint32_t size = any_size(workload);
    uint8_t *body = make_body(workload, size);

    *number = store_add_body(workload->store, slice_of(body, size), body);
    return slice_of(body, size);
}

/* ---- entries --------------------------------------------------------------------------------- */

/* Answers the entry's number in the batch. */
static uint32_t put(struct workload *workload, struct model_queue *queue, uint32_t body,
                    struct slice bytes)
{
    const struct store_entry entry = {
        .queue_id = queue->id,
        .position = queue->next + (below(workload, 10) == 0 ? below(workload, 5) : 0),
        .expires_ms = below(workload, 8) == 0 ? 1 + below(workload, UINT64_C(1) << 45) : 0,
        .weight = (uint32_t)(below(workload, 8) == 0 ? below(workload, 1000) : bytes.size),
        .flags = (uint8_t)(below(workload, 4) == 0 ? below(workload, 256) : 0)};

    model_add_entry(queue, &(struct model_entry){.position = entry.position,
                                                 .expires_ms = entry.expires_ms,
                                                 .lsn = workload->model->lsn,
                                                 .weight = entry.weight,
                                                 .size = (uint32_t)bytes.size,
                                                 .crc = crc32c(0, bytes.data, bytes.size),
                                                 .flags = entry.flags});
    return store_put_entry(workload->store, &entry, body);
}

static void put_to_many(struct workload *workload)
{
    uint32_t body;
    const struct slice bytes = add_body(workload, &body);
    const uint64_t copies = below(workload, 5) == 0 ? 1 + below(workload, COPIES_MAX) : 1;
    const uint64_t first = below(workload, workload->model->queues.count);

    for (uint64_t i = 0; i < copies; i++) /* the same queue twice is fine, too */
        put(workload, &workload->model->queues.items[(first + i) % workload->model->queues.count],
            body, bytes);
}

static void put_burst(struct workload *workload)
{
    struct model_queue *queue = any_queue(workload);

    for (uint64_t left = below(workload, 700); left > 0; left--) {
        uint8_t *owned = make_body(workload, 20);
        const struct slice bytes = slice_of(owned, 20);
        put(workload, queue, store_add_body(workload->store, bytes, owned), bytes);
    }
}

/* One that never reaches the disk. Of a body with other entries only this one is taken back. */
static void put_and_take_back(struct workload *workload)
{
    struct model_queue *queue = any_queue(workload), *other = any_queue(workload);
    uint32_t body;
    const struct slice bytes = add_body(workload, &body);
    const uint32_t number = put(workload, queue, body, bytes);
    const uint32_t at = queue->entries.count - 1;

    if (below(workload, 2) == 0)
        put(workload, other, body, bytes);
    model_remove_entries(queue, at, 1);
    store_take_back(workload->store, number);
}

/* How many entries of the queue are not of the open batch: they stand before those that are. */
static uint32_t count_old(const struct workload *workload, const struct model_queue *queue)
{
    uint32_t count = queue->entries.count;

    while (count > 0 && queue->entries.items[count - 1].lsn == workload->model->lsn)
        count--;
    return count;
}

static void take(struct workload *workload, struct model_queue *queue, uint32_t at)
{
    const struct model_entry *entry = &queue->entries.items[at];

    if (!fault_bug_each(FAULT_DROP_ACK, 64))
        store_delete_entry(workload->store, queue->id, entry->position, entry->weight);
    model_remove_entries(queue, at, 1);
}

static void ack(struct workload *workload)
{
    struct model_queue *queue = any_queue(workload);
    const bool front = below(workload, 3) > 0;
    uint32_t old = count_old(workload, queue);

    for (uint64_t left = min_of(below(workload, 1 + old), (uint64_t)(front ? 300 : 30)); left > 0;
         left--, old--)
        take(workload, queue, front ? 0 : (uint32_t)below(workload, old));
}

static void move(struct workload *workload)
{
    struct model_queue *queue = any_queue(workload);
    const uint32_t old = count_old(workload, queue);

    if (old == 0)
        return;
    take(workload, queue, (uint32_t)below(workload, old));
    put_to_many(workload);
}

/* From an entry or between two, to an entry, between two or to the end of what is old. */
static void purge(struct workload *workload)
{
    struct model_queue *queue = any_queue(workload);
    const uint32_t old = count_old(workload, queue);

    if (old == 0)
        return;
    const uint32_t first = below(workload, 3) == 0 ? 0 : (uint32_t)below(workload, old);
    const uint32_t count =
        (uint32_t)(below(workload, 3) == 0 ? old - first : below(workload, old - first + 1));
    const struct model_entry *entries = queue->entries.items;
    if (count == 0)
        return;
    const uint64_t end = first + count < queue->entries.count && below(workload, 2) == 0
                             ? entries[first + count].position
                             : entries[first + count - 1].position + 1;
    uint64_t weight = 0;
    for (uint32_t i = first; i < first + count; i++)
        weight += entries[i].weight;
    store_delete_range(workload->store, queue->id, first == 0 ? 0 : entries[first].position, end,
                       count, weight);
    model_remove_entries(queue, first, count);
}

/* ---- queues, records ------------------------------------------------------------------------- */

static void create_queue(struct workload *workload)
{
    if (workload->model->queues.count == QUEUES_MAX)
        return;
    const uint64_t id = workload->model->next_queue_id++;
    model_add_queue(workload->model, id);
    store_create_queue(workload->store, id);
}

static void delete_queue(struct workload *workload)
{
    if (workload->model->queues.count <= 2)
        return;
    const uint32_t index = (uint32_t)below(workload, workload->model->queues.count);
    store_delete_queue(workload->store, workload->model->queues.items[index].id);
    model_remove_queue(workload->model, index);
}

static void mark(struct workload *workload)
{
    struct model_queue *queue = any_queue(workload);

    const uint64_t position = below(workload, queue->next + 1);
    store_mark_delivered(workload->store, queue->id, position);
    queue->delivered = max_of(queue->delivered, position);
}

static void change_record(struct workload *workload)
{
    char key[16];

    snprintf(key, sizeof key, "key-%" PRIu64, below(workload, 12));
    if (below(workload, 3) == 0) {
        model_remove_record(workload->model, key);
        store_delete_record(workload->store, slice_of_string(key));
        return;
    }
    const uint32_t size = (uint32_t)below(workload, below(workload, 8) == 0 ? 9000 : 200);
    uint8_t *value = make_body(workload, size);
    model_set_record(workload->model, key, size, crc32c(0, value, size));
    store_put_record(workload->store, slice_of_string(key), slice_of(value, size));
    free(value);
}

/* ---- batches --------------------------------------------------------------------------------- */

static const struct {
    void (*run)(struct workload *workload);
    uint8_t share;
} steps[] = {
    {put_to_many, 40},  {ack, 20},         {move, 6},         {put_and_take_back, 5},
    {change_record, 6}, {create_queue, 3}, {delete_queue, 2}, {mark, 3},
    {purge, 4},         {put_burst, 2},
};

static void step(struct workload *workload)
{
    unsigned total = 0;
    size_t i = 0;

    for (size_t j = 0; j < countof(steps); j++)
        total += steps[j].share;
    for (uint64_t at = below(workload, total); at >= steps[i].share; i++)
        at -= steps[i].share;
    steps[i].run(workload);
}

void workload_fill(struct workload *workload)
{
    struct model *model = workload->model;
    const uint64_t kind = below(workload, 10);
    uint64_t left = kind < 5 ? 1 + below(workload, 3) : 1 + below(workload, kind < 9 ? 30 : 120);

    model->lsn = store_open_lsn(workload->store);
    model->closing = false;
    while (model->queues.count < 3)
        create_queue(workload);
    for (; left > 0 || store_open_is_empty(workload->store); left -= left > 0) {
        step(workload);
        for (int tries = 0; tries < 3 && model_bytes(model) > BACKLOG_MAX; tries++)
            purge(workload);
    }
    for (uint32_t i = 0; i < model->queues.count; i++) {
        struct model_queue *queue = &model->queues.items[i];
        const uint32_t count = queue->entries.count;
        if (count > 0 && queue->entries.items[count - 1].lsn == model->lsn)
            queue->tail = queue->entries.items[count - 1].position + 1;
    }
}
