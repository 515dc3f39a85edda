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

struct set_aside {
    struct map_link by_place;
    uint64_t place[2]; /* the queue's id in the store, and the position there */
};

bool quarantine_has(const struct quarantine *quarantine, uint64_t queue_id, uint64_t position)
{
    const uint64_t place[] = {queue_id, position};

    return map_find(&quarantine->under_way, slice_of(place, sizeof(place))) != NULL;
}

static void note_under_way(struct quarantine *quarantine, uint64_t queue_id, uint64_t position)
{
    struct set_aside *noted = xmalloc(sizeof(*noted));

    *noted = (struct set_aside){.place = {queue_id, position}};
    map_insert(&quarantine->under_way, &noted->by_place,
               slice_of(noted->place, sizeof(noted->place)));
    quarantine->under_way_lsn = store_open_lsn(quarantine->broker->store);
}

static void drop_under_way(struct quarantine *quarantine)
{
    for (struct map_link *link = map_next(&quarantine->under_way, NULL), *next; link != NULL;
         link = next) {
        next = map_next(&quarantine->under_way, link);
        map_remove(&quarantine->under_way, link);
        free(container_of(link, struct set_aside, by_place));
    }
    map_release(&quarantine->under_way);
}

/* All is durable, and no read is under way that began before. */
static void forget_under_way(struct quarantine *quarantine)
{
    const struct broker *broker = quarantine->broker;

    if (quarantine->under_way.count > 0 && broker->fetches == 0 &&
        quarantine->under_way_lsn <= store_durable_entries(broker->store))
        drop_under_way(quarantine);
}

static void open_queue(struct quarantine *quarantine)
{
    uint8_t value[8];

    if (quarantine->exists)
        return;
    quarantine->exists = true;
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
    note_under_way(quarantine, queue_id, fetched->position);
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

    if (!quarantine->exists)
        return 0;
    /* As a whole, for some of it may not be durable yet, or not be read. The next gets a queue of
     * its own. */
    store_delete_queue(store, quarantine->id);
    store_delete_record(store, record_key);
    quarantine->id = quarantine->next = 0;
    quarantine->exists = false;
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
    if (fetch->error != 0)
        log_error("the quarantine cannot be read: %s", strerror(-fetch->error));
    for (size_t i = 0; i < fetch->count && fetch->queue_id == quarantine->id; i++) {
        const struct store_fetched *fetched = &fetch->entries[i];
        struct message *message = fetched->damaged ? NULL : message_from_record(fetched->bytes);
        if (message != NULL && item_of(message, &item))
            add_item(quarantine, &item);
        else
            log_error("message %" PRIu64 " of the quarantine is damaged itself", fetched->position);
        if (message != NULL)
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
    quarantine->exists = true;
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
    drop_under_way(quarantine);
}
