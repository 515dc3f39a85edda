/* See memory.h. What is durable is kept in plain structures: records in one sorted array, queues in
 * a map by id, a queue's entries in an array by position, bodies counted and shared. A batch
 * changes them when it becomes durable and not before, so that a crash has nothing to undo: it
 * forgets the batches.
 *
 *     submit ──▶ under way ──sync──▶ applied, synced ──store_process──▶ settled: bodies handed back
 *
 * It is the model that the LMDB engine is tested against, so it shares nothing with it but the
 * batch. */
#include "store/memory.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include "base/map.h"
#include "store/engine.h"

struct body {
    uint32_t references;
    size_t size;
    uint8_t bytes[];
};

struct entry {
    struct store_entry put;
    struct body *body; /* NULL: deleted */
    bool damaged;
};

struct queue {
    struct map_link by_id;
    struct store_queue_state state;
    ARRAY_OF(struct entry) entries; /* by position */
    uint32_t first;                 /* all before it are deleted */
};

struct record {
    struct slice key, value; /* one block, at key.data */
};

struct memory {
    struct store store;

    struct map queues;
    ARRAY_OF(struct record) records; /* by key */
    struct letter_list fetches;      /* answered by the next store_process */
    int fetch_error;                 /* -errno: all of them fail so */
    int64_t lost_count, lost_bytes;  /* see store_memory_lose */

    /* synced: the batch under way is durable, or refused, not yet settled */
    bool auto_sync, synced;
    enum store_memory_room room;
    bool clean;   /* since the last crash, if any */
    bool damaged; /* something was: an owner need not know any more what there is */
};

static struct memory *memory_of(struct store *store)
{
    return container_of(store, struct memory, store);
}

static void wake(struct memory *memory)
{
    ssize_t written = write(memory->store.fd, &(uint64_t){1}, sizeof(uint64_t));

    assert(written == sizeof(uint64_t));
}

/* ---- records --------------------------------------------------------------------------------- */

/* Where the key is, or would be. */
static uint32_t record_place(const struct memory *memory, struct slice key)
{
    uint32_t low = 0, high = memory->records.count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (slice_compare(memory->records.items[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void record_free(struct record *record)
{
    free((void *)(uintptr_t)record->key.data);
}

static struct record record_new(struct slice key, struct slice value)
{
    uint8_t *bytes = xmalloc(size_add(key.size, value.size));

    memcpy(bytes, key.data, key.size);
    if (value.size > 0)
        memcpy(bytes + key.size, value.data, value.size);
    return (struct record){slice_of(bytes, key.size), slice_of(bytes + key.size, value.size)};
}

static void record_put(struct memory *memory, struct slice key, struct slice value)
{
    uint32_t place = record_place(memory, key);
    struct record record = record_new(key, value);

    if (place < memory->records.count && slice_equal(memory->records.items[place].key, key)) {
        record_free(&memory->records.items[place]);
    } else {
        (void)array_add(&memory->records);
        struct record *here = &memory->records.items[place];
        memmove(here + 1, here, (memory->records.count - 1 - place) * sizeof *here);
    }
    memory->records.items[place] = record;
}

static void record_delete(struct memory *memory, struct slice key)
{
    uint32_t place = record_place(memory, key);
    struct record *here = &memory->records.items[place];

    if (place == memory->records.count || !slice_equal(here->key, key))
        return;
    record_free(here);
    memory->records.count--;
    memmove(here, here + 1, (memory->records.count - place) * sizeof *here);
}

/* ---- queues and entries ---------------------------------------------------------------------- */

static struct queue *queue_find(const struct memory *memory, uint64_t queue_id)
{
    struct map_link *link = map_find_id(&memory->queues, queue_id);

    return link == NULL ? NULL : container_of(link, struct queue, by_id);
}

static void queue_create(struct memory *memory, uint64_t queue_id)
{
    assert(queue_find(memory, queue_id) == NULL);
    struct queue *queue = xcalloc(1, sizeof *queue);

    queue->state.queue_id = queue_id;
    map_insert_id(&memory->queues, &queue->by_id, queue_id);
}

static void entry_delete(struct queue *queue, struct entry *entry)
{
    queue->state.count--;
    queue->state.bytes -= entry->put.weight;
    if (--entry->body->references == 0)
        free(entry->body);
    entry->body = NULL;
}

static void queue_drop(struct memory *memory, struct queue *queue)
{
    for (uint32_t i = queue->first; i < queue->entries.count; i++)
        if (queue->entries.items[i].body != NULL)
            entry_delete(queue, &queue->entries.items[i]);
    array_release(&queue->entries);
    map_remove(&memory->queues, &queue->by_id);
    free(queue);
}

/* The first entry at position or above, deleted ones included. */
static uint32_t queue_seek(const struct queue *queue, uint64_t position)
{
    uint32_t low = queue->first, high = queue->entries.count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (queue->entries.items[middle].put.position < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Moves the head over what is deleted, and drops deleted entries from the array once they are half
 * of it. */
static void queue_settle_head(struct queue *queue)
{
    while (queue->first < queue->entries.count && queue->entries.items[queue->first].body == NULL)
        queue->first++;
    queue->state.head = queue->first < queue->entries.count
                            ? queue->entries.items[queue->first].put.position
                            : queue->state.tail;
    if (queue->first > ARRAY_FIRST && queue->first >= queue->entries.count / 2) {
        queue->entries.count -= queue->first;
        memmove(queue->entries.items, queue->entries.items + queue->first,
                queue->entries.count * sizeof *queue->entries.items);
        queue->first = 0;
    }
}

static void queue_put(struct queue *queue, const struct batch_entry *put, struct body *body)
{
    assert(put->position >= queue->state.tail);
    queue->state.deadlines =
        put->expires_ms != 0 || (queue->state.deadlines && queue->state.count > 0);
    struct entry *entry = array_add(&queue->entries);

    *entry = (struct entry){.put = {.queue_id = put->queue_id,
                                    .position = put->position,
                                    .expires_ms = put->expires_ms,
                                    .weight = put->weight,
                                    .flags = put->flags},
                            .body = body};
    body->references++;
    queue->state.count++;
    queue->state.bytes += put->weight;
    queue->state.tail = put->position + 1;
}

/* Deletes what lives in [first, end) and answers how many that were. */
static uint64_t queue_delete(struct queue *queue, uint64_t first, uint64_t end)
{
    const uint64_t before = queue->state.count;

    for (uint32_t i = queue_seek(queue, first); i < queue->entries.count; i++) {
        struct entry *entry = &queue->entries.items[i];
        if (entry->put.position >= end)
            break;
        if (entry->body != NULL)
            entry_delete(queue, entry);
    }
    queue_settle_head(queue);
    return before - queue->state.count;
}

/* ---- applying a batch ------------------------------------------------------------------------ */

static struct queue *queue_named(const struct memory *memory, uint64_t queue_id)
{
    struct queue *queue = queue_find(memory, queue_id);

    assert(queue != NULL); /* the owner named a queue that it did not create, or deleted */
    return queue;
}

static struct body *body_new(struct slice bytes)
{
    struct body *body = xmalloc(size_add(sizeof *body, bytes.size));

    body->references = 0;
    body->size = bytes.size;
    if (bytes.size > 0)
        memcpy(body->bytes, bytes.data, bytes.size);
    return body;
}

static void apply_puts(struct memory *memory, const struct batch *batch)
{
    struct body **bodies = xcalloc(max_of(batch->bodies.count, 1U), sizeof(struct body *));

    for (uint32_t i = 0; i < batch->entries.count; i++) {
        const struct batch_entry *entry = &batch->entries.items[i];
        if (entry->taken_back)
            continue;
        if (bodies[entry->body] == NULL) {
            bodies[entry->body] = body_new(batch->bodies.items[entry->body].bytes);
            memory->store.stats.bytes_written += bodies[entry->body]->size;
        }
        struct queue *queue = queue_named(memory, entry->queue_id);
        queue_put(queue, entry, bodies[entry->body]);
        queue_settle_head(queue);
    }
    free(bodies);
}

static void apply_deletes(struct memory *memory, const struct batch *batch)
{
    for (uint32_t i = 0; i < batch->deletes.count + batch->tied.count; i++) {
        const struct batch_delete *delete = batch_delete_at(batch, i);
        struct queue *queue = queue_named(memory, delete->queue_id);
        uint64_t bytes = queue->state.bytes;
        uint64_t deleted = queue_delete(queue, delete->position, delete->position + 1);
        assert(memory->damaged || (deleted == 1 && bytes - queue->state.bytes == delete->weight));
    }
    for (uint32_t i = 0; i < batch->ranges.count; i++) {
        const struct batch_range *range = &batch->ranges.items[i];
        struct queue *queue = queue_named(memory, range->queue_id);
        uint64_t bytes = queue->state.bytes;
        uint64_t deleted = queue_delete(queue, range->first, range->end);
        assert(memory->damaged ||
               (deleted == range->count && bytes - queue->state.bytes == range->weight));
    }
}

static void apply_records(struct memory *memory, const struct batch *batch)
{
    for (uint32_t i = 0; i < batch->records.count; i++) {
        const struct batch_record *record = &batch->records.items[i];
        if (record->deleted)
            record_delete(memory, batch_key(batch, record));
        else
            record_put(memory, batch_key(batch, record), batch_value(batch, record));
    }
}

static void apply(struct memory *memory, struct batch *batch)
{
    batch_settle(batch);
    apply_records(memory, batch);
    for (uint32_t i = 0; i < batch->creates.count; i++)
        queue_create(memory, batch->creates.items[i].queue_id);
    apply_deletes(memory, batch);
    apply_puts(memory, batch);
    for (uint32_t i = 0; i < batch->marks.count; i++) {
        struct queue *queue = queue_find(memory, batch->marks.items[i].queue_id);
        if (queue != NULL)
            queue->state.delivered = max_of(queue->state.delivered, batch->marks.items[i].position);
    }
    for (uint32_t i = 0; i < batch->drops.count; i++)
        queue_drop(memory, queue_named(memory, batch->drops.items[i].queue_id));
    memory->store.stats.commits++;
}

/* ---- the engine ------------------------------------------------------------------------------ */

static int compare_ids(const void *left, const void *right)
{
    const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

    return (a > b) - (a < b);
}

static void recover_queues(struct memory *memory, const struct store_recovery *recovery)
{
    uint64_t *ids = xcalloc(max_of(memory->queues.count, 1U), sizeof *ids);
    size_t count = 0;

    map_each (&memory->queues, link)
        ids[count++] = link->id;
    qsort(ids, count, sizeof *ids, compare_ids);
    for (size_t i = 0; i < count; i++) {
        struct store_queue_state state = queue_find(memory, ids[i])->state;
        if (!memory->clean)
            state.delivered = state.tail;
        recovery->on_queue(recovery->context, &state);
    }
    free(ids);
}

static int memory_recover(struct store *store, struct store_recovery *recovery)
{
    struct memory *memory = memory_of(store);

    recovery->was_clean = memory->clean;
    for (uint32_t i = 0; i < memory->records.count; i++)
        recovery->on_record(recovery->context, memory->records.items[i].key,
                            memory->records.items[i].value);
    recover_queues(memory, recovery);
    return 0;
}

static void memory_submit(struct store *store, struct batch *batch)
{
    (void)batch;
    if (memory_of(store)->auto_sync)
        wake(memory_of(store));
}

static size_t size_to_fetch(const struct store_fetch *fetch, const struct entry *entry)
{
    return fetch->index_only ? 0 : entry->body->size;
}

static bool fetch_wants(const struct store_fetch *fetch, size_t count, size_t size,
                        const struct entry *next)
{
    return count == 0 ||
           (count < fetch->count_max && size + size_to_fetch(fetch, next) <= fetch->bytes_max);
}

/* Which entries a fetch returns; sets fetch->next. */
static size_t fetch_measure(const struct queue *queue, struct store_fetch *fetch, size_t *size)
{
    size_t count = 0;

    *size = 0;
    fetch->next = fetch->end;
    for (uint32_t i = queue_seek(queue, fetch->first); i < queue->entries.count; i++) {
        const struct entry *entry = &queue->entries.items[i];
        if (entry->put.position >= fetch->end)
            break;
        if (entry->body == NULL)
            continue;
        if (!fetch_wants(fetch, count, *size, entry)) {
            fetch->next = entry->put.position;
            break;
        }
        count++;
        *size += size_to_fetch(fetch, entry);
    }
    return count;
}

static void fetch_fill(const struct queue *queue, struct store_fetch *fetch)
{
    size_t size, filled = 0;
    size_t count = fetch_measure(queue, fetch, &size);
    uint8_t *bytes = engine_fetch_room(fetch, count, size);

    for (uint32_t i = queue_seek(queue, fetch->first); filled < count; i++) {
        const struct entry *entry = &queue->entries.items[i];
        if (entry->body == NULL)
            continue;
        fetch->entries[filled++] =
            (struct store_fetched){.position = entry->put.position,
                                   .expires_ms = entry->put.expires_ms,
                                   .weight = entry->put.weight,
                                   .flags = entry->put.flags,
                                   .damaged = entry->damaged && !fetch->index_only,
                                   .bytes = slice_of(bytes, size_to_fetch(fetch, entry))};
        memcpy(bytes, entry->body->bytes, size_to_fetch(fetch, entry));
        bytes += size_to_fetch(fetch, entry);
    }
}

static void answer_fetches(struct memory *memory)
{
    struct letter_list fetches = STAILQ_HEAD_INITIALIZER(fetches);

    STAILQ_CONCAT(&fetches, &memory->fetches);
    while (!STAILQ_EMPTY(&fetches)) {
        struct store_fetch *fetch =
            container_of(STAILQ_FIRST(&fetches), struct store_fetch, letter);
        STAILQ_REMOVE_HEAD(&fetches, link);
        const struct queue *queue = queue_find(memory, fetch->queue_id);
        fetch->error = memory->fetch_error;
        if (fetch->error != 0)
            fetch->next = fetch->first;
        else if (queue != NULL)
            fetch_fill(queue, fetch);
        else
            fetch->next = fetch->end;
        fetch->lost_count = memory->lost_count;
        fetch->lost_bytes = memory->lost_bytes;
        memory->lost_count = memory->lost_bytes = 0;
        fetch->on_done(fetch);
    }
}

static int memory_process(struct store *store)
{
    struct memory *memory = memory_of(store);
    uint64_t count;

    if (memory->auto_sync)
        store_memory_sync(store);
    (void)!read(memory->store.fd, &count, sizeof count);
    if (memory->synced) {
        memory->synced = false;
        engine_settle(store, 0);
    }
    answer_fetches(memory);
    return store->error;
}

static void memory_fetch(struct store *store, struct store_fetch *fetch)
{
    struct memory *memory = memory_of(store);

    STAILQ_INSERT_TAIL(&memory->fetches, &fetch->letter, link);
    wake(memory);
}

static int memory_close(struct store *store)
{
    struct memory *memory = memory_of(store);

    STAILQ_INIT(&memory->fetches);
    for (struct map_link *link; (link = map_next(&memory->queues, NULL)) != NULL;)
        queue_drop(memory, container_of(link, struct queue, by_id));
    map_release(&memory->queues);
    for (uint32_t i = 0; i < memory->records.count; i++)
        record_free(&memory->records.items[i]);
    array_release(&memory->records);
    close(memory->store.fd);
    return store->error;
}

static const struct engine memory_engine = {
    .recover = memory_recover,
    .submit = memory_submit,
    .process = memory_process,
    .fetch = memory_fetch,
    .close = memory_close,
};

struct store *store_memory_new(void)
{
    struct memory *memory = xcalloc(1, sizeof *memory);

    engine_init(&memory->store, &memory_engine, 0);
    STAILQ_INIT(&memory->fetches);
    memory->store.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    memory->auto_sync = memory->clean = true;
    assert(memory->store.fd >= 0);
    return &memory->store;
}

void store_memory_set_auto_sync(struct store *store, bool automatic)
{
    memory_of(store)->auto_sync = automatic;
    if (automatic)
        wake(memory_of(store));
}

void store_memory_sync(struct store *store)
{
    struct memory *memory = memory_of(store);

    if (store->under_way == NULL || memory->synced || store->error != 0)
        return;
    store->under_way->refused = (int)batch_refused_part(store->under_way) < (int)memory->room;
    store->under_way->roomy = memory->room == STORE_MEMORY_ROOM_FOR_ALL;
    if (!store->under_way->refused)
        apply(memory, store->under_way);
    memory->synced = true;
    wake(memory);
}

void store_memory_fail_fetches(struct store *store, int error)
{
    memory_of(store)->fetch_error = -error;
}

void store_memory_damage(struct store *store, uint64_t queue_id, uint64_t position)
{
    const struct queue *queue = queue_named(memory_of(store), queue_id);
    struct entry *entry = &queue->entries.items[queue_seek(queue, position)];

    assert(entry->put.position == position && entry->body != NULL);
    entry->damaged = memory_of(store)->damaged = true;
}

void store_memory_find(struct store *store, const struct store_finding *finding)
{
    memory_of(store)->damaged = true;
    if (store->found != NULL)
        store->found(store->found_context, finding);
}

void store_memory_lose(struct store *store, int64_t count, int64_t bytes)
{
    struct memory *memory = memory_of(store);

    memory->damaged = true;
    memory->lost_count = count;
    memory->lost_bytes = bytes;
}

void store_memory_salvage(struct store *store)
{
    store->salvage.ever = true;
}

void store_memory_set_room(struct store *store, enum store_memory_room room)
{
    memory_of(store)->room = room;
}

void store_memory_fail(struct store *store, int error)
{
    assert(error > 0);
    store->error = -error;
    wake(memory_of(store));
}

void store_memory_crash(struct store *store)
{
    struct memory *memory = memory_of(store);

    STAILQ_INIT(&memory->fetches);
    if (memory->synced && !store->under_way->refused)
        store->durable = store->under_way->lsn;
    memory->clean = memory->synced = false;
    if (store->under_way != NULL)
        batch_clear(store->under_way, store->body_done);
    batch_clear(store->open, store->body_done);
    store->under_way = NULL;
    store->error = 0;
    store->going = BATCH_ALL;
    store->durable_max = UINT64_MAX;
    store->full = store->asking = false;
    store->open->lsn = store->open->first_lsn = store->durable + 1;
}
