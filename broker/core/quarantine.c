#include "core/quarantine.h"

#include "amqp/wire.h"
#include "base/alloc.h"
#include "base/log.h"
#include "core/vhost.h"

enum { PROPERTIES_SIZE = 8 + 8 + 8 + 4 };

static const struct slice record_key = {(const uint8_t *)"\0quarantine", 11};

/* ---- what is in it ---- */

/* Both names are copied. */
static void add_item(struct quarantine *quarantine, const struct quarantined *item)
{
    struct quarantined *added = array_add(&quarantine->items);
    uint8_t *names = xmalloc(size_add(item->vhost.size, item->queue.size));

    *added = *item;
    added->vhost = slice_of(names, item->vhost.size);
    added->queue = slice_of(names + item->vhost.size, item->queue.size);
    amqp_put_bytes(amqp_put_bytes(names, item->vhost), item->queue);
}

static void drop_items(struct quarantine *quarantine)
{
    for (uint32_t i = 0; i < quarantine->items.count; i++)
        free((void *)(uintptr_t)quarantine->items.items[i].vhost.data);
    array_release(&quarantine->items);
}

static struct message *message_of(const struct quarantined *item, struct slice octets)
{
    uint8_t properties[PROPERTIES_SIZE];
    uint8_t *next = amqp_put_u64(properties, item->when_ms);

    next = amqp_put_u64(next, item->queue_id);
    next = amqp_put_u64(next, item->position);
    amqp_put_u32(next, item->size);
    octets.size = min_of(octets.size, (size_t)QUARANTINE_OCTETS_MAX);
    struct message *message =
        message_new(item->vhost, item->queue, slice_of(properties, sizeof(properties)),
                    (uint32_t)octets.size, true);
    message_append_body(message, octets);
    return message;
}

static bool item_of(const struct message *message, struct quarantined *item)
{
    struct amqp_reader reader = amqp_reader_of(message_properties(message));

    item->when_ms = amqp_read_u64(&reader);
    item->queue_id = amqp_read_u64(&reader);
    item->position = amqp_read_u64(&reader);
    item->size = amqp_read_u32(&reader);
    item->vhost = message_exchange(message);
    item->queue = message_routing_key(message);
    return !reader.bad;
}

/* ---- setting aside ---- */

bool quarantine_has(const struct quarantine *quarantine, uint64_t queue_id, uint64_t position)
{
    for (uint32_t i = 0; i < quarantine->under_way.count; i++)
        if (quarantine->under_way.items[i].position == position &&
            quarantine->under_way.items[i].queue_id == queue_id)
            return true;
    return false;
}

/* All is durable, and no read is under way that began before. */
static void forget_under_way(struct quarantine *quarantine)
{
    const struct broker *broker = quarantine->broker;
    const uint32_t count = quarantine->under_way.count;

    if (count > 0 && broker->fetches == 0 &&
        quarantine->under_way.items[count - 1].lsn <= store_durable_entries(broker->store))
        quarantine->under_way.count = 0;
}

static void open_queue(struct quarantine *quarantine)
{
    uint8_t value[8];

    if (quarantine->id != 0)
        return;
    quarantine->id = broker_new_queue_ids(quarantine->broker, 1);
    amqp_put_u64(value, quarantine->id);
    store_put_record(quarantine->broker->store, record_key, slice_of(value, sizeof(value)));
    store_create_queue(quarantine->broker->store, quarantine->id);
}

static void put(struct quarantine *quarantine, const struct quarantined *item, struct slice octets)
{
    struct store *store = quarantine->broker->store;
    struct message *message = message_of(item, octets);

    open_queue(quarantine);
    add_item(quarantine, item);
    store_put_entry(store,
                    &(struct store_entry){.queue_id = quarantine->id,
                                          .position = quarantine->next++,
                                          .weight = message->body_size},
                    store_add_body(store, message_record(message), message));
}

static bool is_full(struct quarantine *quarantine)
{
    const bool full = quarantine->items.count >= QUARANTINE_COUNT_MAX;

    if (full && !quarantine->full_logged)
        log_error("the quarantine is full: damaged messages are deleted from now on and not kept");
    quarantine->full_logged = full;
    return full;
}

bool quarantine_take(struct quarantine *quarantine, const struct queue *queue, uint64_t queue_id,
                     const struct store_fetched *fetched)
{
    struct broker *broker = quarantine->broker;
    const struct quarantined item = {.when_ms = broker->clock->wall_ms,
                                     .queue_id = queue_id,
                                     .position = fetched->position,
                                     .size = (uint32_t)fetched->bytes.size,
                                     .vhost = queue->vhost->name,
                                     .queue = queue->name};

    forget_under_way(quarantine);
    if (quarantine_has(quarantine, queue_id, fetched->position))
        return false;
    *array_add(&quarantine->under_way) =
        (struct set_aside){queue_id, fetched->position, store_open_lsn(broker->store)};
    const bool full = is_full(quarantine);
    if (!full)
        put(quarantine, &item, fetched->bytes);
    (full ? store_delete_entry : store_delete_tied)(broker->store, queue_id, fetched->position,
                                                    fetched->weight);
    broker_touch_store(broker);
    return true;
}

uint64_t quarantine_clear(struct quarantine *quarantine)
{
    struct store *store = quarantine->broker->store;

    if (quarantine->items.count == 0)
        return 0;
    /* As a whole, for some of it may not be durable yet. The next gets a queue of its own. */
    store_delete_queue(store, quarantine->id);
    store_delete_record(store, record_key);
    quarantine->id = quarantine->next = 0;
    quarantine->full_logged = false;
    drop_items(quarantine);
    broker_touch_store(quarantine->broker);
    return store_open_lsn(store);
}

/* ---- recovery ---- */

static void on_loaded(struct store_fetch *fetch)
{
    struct quarantine *quarantine = container_of(fetch, struct quarantine, fetch);
    struct quarantined item;

    quarantine->broker->fetches--;
    for (size_t i = 0; i < fetch->count && fetch->queue_id == quarantine->id; i++) {
        struct message *message = message_from_record(fetch->entries[i].bytes);
        if (message == NULL)
            continue;
        if (item_of(message, &item))
            add_item(quarantine, &item);
        message_unref(&message);
    }
    store_fetch_release(fetch);
}

bool quarantine_recover_record(struct quarantine *quarantine, struct slice key, struct slice value)
{
    if (!slice_equal(key, record_key))
        return false;
    struct amqp_reader reader = amqp_reader_of(value);
    quarantine->id = amqp_read_u64(&reader);
    return true;
}

bool quarantine_recover_queue(struct quarantine *quarantine, const struct store_queue_state *state)
{
    if (quarantine->id == 0 || state->queue_id != quarantine->id)
        return false;
    quarantine->next = state->tail;
    quarantine->fetch = (struct store_fetch){.queue_id = state->queue_id,
                                             .first = state->head,
                                             .end = state->tail,
                                             .count_max = UINT32_MAX,
                                             .bytes_max = SIZE_MAX,
                                             .on_done = on_loaded};
    if (state->count == 0)
        return true;
    quarantine->broker->fetches++;
    store_fetch(quarantine->broker->store, &quarantine->fetch);
    return true;
}

void quarantine_init(struct quarantine *quarantine, struct broker *broker)
{
    *quarantine = (struct quarantine){.broker = broker};
}

void quarantine_release(struct quarantine *quarantine)
{
    drop_items(quarantine);
    array_release(&quarantine->under_way);
}
