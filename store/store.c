/* The owner's side of the store, the same for every engine: the open batch, LSNs, what is durable,
 * figures. See store.h for the contract and engine.h for what differs. */
#include "store/engine.h"

enum { RECORD_KEY_MAX = 400, RECORD_VALUE_MAX = 1 << 20 };

void engine_init(struct store *store, const struct engine *engine, uint64_t durable)
{
    *store = (struct store){.engine = engine, .durable = durable, .durable_max = UINT64_MAX};
    store->open = &store->batches[0];
    store->open->lsn = store->open->first_lsn = durable + 1;
}

void engine_release(struct store *store)
{
    batch_clear(&store->batches[0], store->body_done);
    batch_clear(&store->batches[1], store->body_done);
    batch_release(&store->batches[0]);
    batch_release(&store->batches[1]);
}

static struct batch *other_batch(struct store *store)
{
    return store->open == &store->batches[0] ? &store->batches[1] : &store->batches[0];
}

static struct batch *take_all(struct store *store)
{
    struct batch *batch = store->open, *next = other_batch(store);

    store->open = next;
    next->lsn = next->first_lsn = batch->lsn + 1;
    batch_follow(next, batch);
    return batch;
}

/* What may go takes the LSN; what must wait is open still, and becomes durable with a later one. */
static struct batch *take_lean(struct store *store)
{
    struct batch *lean = other_batch(store);

    lean->lsn = lean->first_lsn = store->open->lsn++;
    lean->leaves = !batch_carve(store->open, store->going, lean);
    if (batch_is_empty(store->open))
        store->open->first_lsn = store->open->lsn;
    return lean;
}

struct batch *engine_take_open(struct store *store)
{
    assert(store->under_way == NULL);
    store->under_way = store->going == BATCH_ALL ? take_all(store) : take_lean(store);
    store->asking = false;
    return store->under_way;
}

/* Refused: as if it had never gone, with what was added since. */
static void take_in_again(struct store *store, struct batch *batch)
{
    const enum batch_part part = batch_refused_part(batch);

    store->full = true;
    store->asking = false; /* this is the answer */
    store->going = max_of(store->going, part == BATCH_ALL    ? BATCH_LEAN
                                        : part == BATCH_LEAN ? BATCH_DELETES
                                                             : BATCH_NOTHING);
    batch_join(batch, store->open, store->body_done);
    store->open = batch;
}

static void take_note_of_room(struct store *store, bool roomy)
{
    if (!roomy)
        return;
    store->going = BATCH_ALL;
    store->full = store->open->first_lsn < store->open->lsn && !batch_is_empty(store->open);
}

void engine_settle(struct store *store, int error)
{
    struct batch *batch = store->under_way;

    assert(batch != NULL);
    store->under_way = NULL;
    if (error == 0 && batch->refused) {
        take_in_again(store, batch);
        return;
    }
    assert(error != 0 || batch->lsn > store->durable);
    if (error == 0) {
        store->durable_max =
            batch->leaves ? min_of(store->durable_max, store->durable) : UINT64_MAX;
        store->durable = batch->lsn;
        take_note_of_room(store, batch->roomy);
    } else {
        store->error = error;
    }
    batch_clear(batch, store->body_done);
}

uint8_t *engine_fetch_room(struct store_fetch *fetch, size_t count, size_t size)
{
    size_t entries = size_mul(count, sizeof *fetch->entries);

    fetch->memory = xmalloc(size_add(max_of(entries, 1U), size));
    fetch->entries = fetch->memory;
    fetch->count = count;
    return (uint8_t *)fetch->memory + entries;
}

int store_close(struct store **store)
{
    int error = (*store)->engine->close(*store);

    engine_release(*store);
    free(*store);
    *store = NULL;
    return error;
}

int store_recover(struct store *store, struct store_recovery *recovery)
{
    return store->engine->recover(store, recovery);
}

void store_on_body_done(struct store *store, store_body_done *done)
{
    store->body_done = done;
}

uint64_t store_open_lsn(const struct store *store)
{
    return store->open->lsn;
}

bool store_open_is_empty(const struct store *store)
{
    return batch_is_empty(store->open);
}

size_t store_open_bytes(const struct store *store)
{
    return store->open->body_bytes;
}

void store_put_record(struct store *store, struct slice key, struct slice value)
{
    assert(key.size > 0 && key.size <= RECORD_KEY_MAX && value.size <= RECORD_VALUE_MAX);
    batch_add_record(store->open, key, value, false);
}

void store_delete_record(struct store *store, struct slice key)
{
    assert(key.size > 0 && key.size <= RECORD_KEY_MAX);
    batch_add_record(store->open, key, (struct slice){0}, true);
}

uint32_t store_add_body(struct store *store, struct slice bytes, void *body_owner)
{
    struct batch *batch = store->open;

    assert(bytes.size <= UINT32_MAX);
    *array_add(&batch->bodies) = (struct batch_body){.bytes = bytes, .owner = body_owner};
    batch->body_bytes += bytes.size;
    return batch->body_base + batch->bodies.count - 1;
}

uint32_t store_put_entry(struct store *store, const struct store_entry *entry, uint32_t body)
{
    struct batch *batch = store->open;
    const uint32_t index = body - batch->body_base;

    assert(index < batch->bodies.count && !batch->bodies.items[index].returned);
    assert(entry->position < STORE_POSITION_END);
    batch->bodies.items[index].live++;
    batch->live++;
    store->stats.entries_put++;
    *array_add(&batch->entries) = (struct batch_entry){.queue_id = entry->queue_id,
                                                       .position = entry->position,
                                                       .expires_ms = entry->expires_ms,
                                                       .weight = entry->weight,
                                                       .body = index,
                                                       .flags = entry->flags};
    return batch->entry_base + batch->entries.count - 1;
}

void store_take_back(struct store *store, uint32_t entry_number)
{
    store->stats.entries_taken_back++;
    batch_take_back(store->open, entry_number, store->body_done);
}

void store_delete_entry(struct store *store, uint64_t queue_id, uint64_t position, uint32_t weight)
{
    store->stats.entries_deleted++;
    *array_add(&store->open->deletes) = (struct batch_delete){queue_id, position, weight};
}

void store_delete_tied(struct store *store, uint64_t queue_id, uint64_t position, uint32_t weight)
{
    store->stats.entries_deleted++;
    *array_add(&store->open->tied) = (struct batch_delete){queue_id, position, weight};
}

void store_delete_range(struct store *store, uint64_t queue_id, uint64_t first, uint64_t end,
                        uint64_t count, uint64_t weight)
{
    assert(first <= end);
    store->stats.entries_deleted += count;
    *array_add(&store->open->ranges) = (struct batch_range){queue_id, first, end, count, weight};
}

void store_create_queue(struct store *store, uint64_t queue_id)
{
    *array_add(&store->open->creates) = (struct batch_queue){queue_id, 0};
}

void store_delete_queue(struct store *store, uint64_t queue_id)
{
    *array_add(&store->open->drops) = (struct batch_queue){queue_id, 0};
}

void store_mark_delivered(struct store *store, uint64_t queue_id, uint64_t position)
{
    batch_mark(store->open, queue_id, position);
}

bool store_is_busy(const struct store *store)
{
    return store->under_way != NULL;
}

bool store_may_submit(const struct store *store)
{
    return !store_is_busy(store) && (store->asking || batch_has(store->open, store->going));
}

uint64_t store_submit(struct store *store)
{
    assert(store_may_submit(store));
    struct batch *batch = engine_take_open(store);
    uint64_t lsn = batch->lsn; /* the batch is no longer ours to read once submitted */

    store->engine->submit(store, batch);
    return lsn;
}

uint64_t store_durable(const struct store *store)
{
    return min_of(store->durable, store->durable_max);
}

uint64_t store_durable_entries(const struct store *store)
{
    uint64_t first = store->open->first_lsn;

    if (store->under_way != NULL)
        first = min_of(first, store->under_way->first_lsn);
    return min_of(store_durable(store), first - 1);
}

bool store_lsn_is_open(const struct store *store, uint64_t lsn)
{
    return lsn >= store->open->first_lsn && lsn <= store->open->lsn;
}

bool store_is_full(const struct store *store)
{
    return store->full;
}

void store_ask_for_room(struct store *store)
{
    store->going = BATCH_ALL;
    store->asking = true;
}

int store_fd(const struct store *store)
{
    return store->fd;
}

int store_process(struct store *store)
{
    return store->engine->process(store);
}

void store_fetch(struct store *store, struct store_fetch *fetch)
{
    assert(fetch->first <= fetch->end && fetch->on_done != NULL);
    fetch->entries = NULL;
    fetch->memory = NULL;
    fetch->count = 0;
    fetch->error = 0;
    fetch->damaged = 0;
    fetch->lost_count = fetch->lost_bytes = 0;
    fetch->next = fetch->first;
    store->engine->fetch(store, fetch);
}

void store_fetch_release(struct store_fetch *fetch)
{
    free(fetch->memory);
    fetch->memory = NULL;
    fetch->entries = NULL;
    fetch->count = 0;
}

void store_get_stats(const struct store *store, struct store_stats *stats)
{
    *stats = store->stats;
}

void store_on_finding(struct store *store, store_found *found, void *context)
{
    store->found = found;
    store->found_context = context;
}

void store_get_check(const struct store *store, struct store_check *check)
{
    *check = store->check;
}

const struct store_salvage *store_get_salvage(const struct store *store)
{
    return &store->salvage;
}

int store_backup(struct store *store, const char *path)
{
    if (store->engine->backup == NULL)
        return -ENOTSUP;
    return store->backup.is_running ? -EBUSY : store->engine->backup(store, path);
}

void store_get_backup(struct store *store, struct store_backup *backup)
{
    *backup = store->backup;
    if (backup->is_running)
        backup->size = store->engine->backup_size(store);
}
