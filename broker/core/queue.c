/* Durability of one entry, from push to settlement:
 *
 *     push ── stored? ──no──▶ lsn 0: lives and dies in memory
 *                └─yes─▶ put into the open batch, lsn = that batch's
 *     settle ── its batch is still open ──▶ taken back: it never was; its publisher need not wait for it
 *           └── it has left, or was read back from disk ──▶ deleted by the open batch
 *
 * Consumers stand in two lists: `turn`, served from the front and sent to the back, one message each; and `idle`, those that were
 * found without room. So a delivery costs the same with one consumer or a thousand busy ones. */
#include "core/queue.h"

#include "base/alloc.h"
#include "base/log.h"
#include "core/definition.h"
#include "core/vhost.h"

/* An entry read back from the store: in some batch of the past. */
#define LSN_OF_THE_PAST UINT64_MAX

enum { READ_COUNT = 1024, READ_BYTES = 1024 * 1024 }; /* one read of a range on disk */

static void queue_deliver(struct task *task);

static struct queue *queue_make(struct vhost *vhost, const struct queue_options *options)
{
    size_t bytes = options->name.size + options->arguments.size;
    struct queue *queue = xmalloc(sizeof(*queue) + bytes);

    *queue = (struct queue){
        .vhost = vhost,
        .broker = vhost->broker,
        .refs = 1,
        .durable = options->durable,
        .exclusive = options->owner != NULL,
        .auto_delete = options->auto_delete,
        .owner = options->owner,
        .task.run = queue_deliver,
    };
    uint8_t *next = (uint8_t *)(queue + 1);
    queue->name = slice_of(next, options->name.size);
    if (options->name.size > 0)
        next = (uint8_t *)mempcpy(next, options->name.data, options->name.size);
    queue->arguments = slice_of(next, options->arguments.size);
    if (options->arguments.size > 0)
        memcpy(next, options->arguments.data, options->arguments.size);

    window_init(&queue->window);
    TAILQ_INIT(&queue->turn);
    TAILQ_INIT(&queue->idle);
    TAILQ_INIT(&queue->waiters);
    TAILQ_INIT(&queue->bindings);
    map_insert(&vhost->queues, &queue->by_name, queue->name);
    if (queue->owner != NULL)
        TAILQ_INSERT_TAIL(&queue->owner->queues, queue, by_owner);
    queue->broker->counters.queues_declared++;
    return queue;
}

struct queue *queue_new(struct vhost *vhost, const struct queue_options *options)
{
    struct queue *queue = queue_make(vhost, options);
    struct broker *broker = vhost->broker;

    if (!queue->durable)
        return queue;
    queue->id = broker_new_queue_id(broker);
    map_insert_id(&broker->queues, &queue->by_id, queue->id);
    queue->lsn = store_open_lsn(broker->store);
    definition_put_queue(queue);
    store_create_queue(broker->store, queue->id);
    broker_touch_store(broker);
    return queue;
}

struct queue *queue_recover(struct vhost *vhost, const struct queue_options *options, uint64_t id)
{
    struct queue *queue = queue_make(vhost, options);

    assert(queue->durable && id != 0);
    queue->id = id;
    map_insert_id(&vhost->broker->queues, &queue->by_id, id);
    return queue;
}

void queue_recover_entries(struct queue *queue, const struct store_queue_state *state)
{
    window_recover(&queue->window, state->head, state->tail, state->count, state->bytes);
    queue->delivered = state->delivered;
}

void queue_ref(struct queue *queue)
{
    queue->refs++;
}

void queue_unref(struct queue **queue)
{
    struct queue *gone = *queue;

    *queue = NULL;
    assert(gone->refs > 0);
    if (--gone->refs > 0)
        return;
    assert(gone->deleted && gone->consumer_count == 0 && TAILQ_EMPTY(&gone->bindings));
    window_release(&gone->window);
    free(gone);
}

/* ---- the store ---- */

static void store_entry(struct queue *queue, struct place place)
{
    struct store *store = queue->broker->store;
    struct entry *entry = place_entry(place);
    struct message *message = entry->message;

    entry->lsn = store_open_lsn(store);
    if (message->lsn != entry->lsn || message->unsynced == 0) { /* none, or handed back again */
        message->lsn = entry->lsn;
        message->unsynced = 0;
        message->body_number = store_add_body(store, message_record(message), message_ref(message));
    }
    message->unsynced++;
    entry->put_number = store_put_entry(store,
                                        &(struct store_entry){.queue_id = queue->id,
                                                              .position = place_position(place),
                                                              .weight = message->body_size},
                                        message->body_number);
    broker_touch_store(queue->broker);
}

/* The entry's put is still in the open batch. Its message stays with the window. */
static void take_entry_back(struct queue *queue, struct entry *entry)
{
    struct message *message = entry->message;

    assert(message->unsynced > 0);
    if (--message->unsynced == 0 && message->publisher != NULL)
        message->publisher->ops->on_settled(message->publisher, message->sequence);
    store_take_back(queue->broker->store, entry->put_number);
    entry->lsn = 0;
}

static bool is_in_open_batch(const struct queue *queue, const struct entry *entry)
{
    return entry->lsn != 0 && entry->lsn == store_open_lsn(queue->broker->store);
}

/* Gone from the queue: from the store too, if it is there. Returns whether the open batch has something to say about it. */
static bool forget_entry(struct queue *queue, struct place place)
{
    struct entry *entry = place_entry(place);
    bool deletes = false;

    if (is_in_open_batch(queue, entry)) {
        take_entry_back(queue, entry);
    } else if (entry->lsn != 0 && !queue->deleted) {
        store_delete_entry(queue->broker->store, queue->id, place_position(place),
                           entry->message->body_size);
        broker_touch_store(queue->broker);
        deletes = true;
    }
    window_remove(&queue->window, place);
    return deletes;
}

/* ---- reading back what is on disk ---- */

static void add_loaded(struct queue *queue, struct segment *range,
                       const struct store_fetched *fetched)
{
    struct message *message = fetched->damaged ? NULL : message_from_record(fetched->bytes);

    if (message == NULL) {
        log_error("queue '%.*s' in vhost '%.*s': the message at position %" PRIu64
                  " is damaged on disk and was set aside",
                  SLICE_ARG(queue->name), SLICE_ARG(queue->vhost->name), fetched->position);
        queue->broker->counters.damaged++;
        window_drop_from_range(&queue->window, range, fetched->weight);
        return;
    }
    struct entry *entry =
        place_entry(window_add_loaded(&queue->window, range, fetched->position, message));
    entry->lsn = LSN_OF_THE_PAST;
    entry->redelivered = fetched->position < queue->delivered;
    message_unref(&message);
}

static void read_ahead(struct queue *queue);

/* Who came first is served first with what was loaded; who finds nothing left of it waits for the next read. */
static void serve_waiters(struct queue *queue)
{
    struct queue_waiter *waiter;
    struct place place;

    while ((waiter = TAILQ_FIRST(&queue->waiters)) != NULL) {
        if (window_first_ready(&queue->window, &place) == WINDOW_ON_DISK) {
            read_ahead(queue);
            return;
        }
        queue_waiter_cancel(waiter);
        waiter->on_loaded(waiter);
    }
}

static void queue_on_fetched(struct store_fetch *fetch)
{
    struct queue *queue = container_of(fetch, struct queue, fetch);
    struct segment *range = window_first_range(&queue->window);

    queue->fetching = false;
    queue->broker->fetches--;
    /* A purge or delete may have taken the range away meanwhile. */
    if (!queue->deleted && range != NULL && range->first == fetch->first) {
        for (size_t i = 0; i < fetch->count; i++)
            add_loaded(queue, range, &fetch->entries[i]);
        window_shorten_range(&queue->window, range, fetch->next);
    }
    store_fetch_release(fetch);
    if (!queue->deleted) {
        serve_waiters(queue);
        queue_wake(queue);
    }
    queue_unref(&queue);
}

/* Starts to read the front of the first range, unless that is under way. */
static void read_ahead(struct queue *queue)
{
    if (queue->fetching)
        return;
    const struct segment *range = window_first_range(&queue->window);
    queue->fetching = true;
    queue->broker->fetches++;
    queue_ref(queue);
    queue->fetch = (struct store_fetch){
        .queue_id = queue->id,
        .first = range->first,
        .end = range->end,
        .count_max = READ_COUNT,
        .bytes_max = READ_BYTES,
        .on_done = queue_on_fetched,
    };
    store_fetch(queue->broker->store, &queue->fetch);
}

void queue_waiter_cancel(struct queue_waiter *waiter)
{
    if (waiter->queue == NULL)
        return;
    TAILQ_REMOVE(&waiter->queue->waiters, waiter, link);
    waiter->queue = NULL;
}

/* ---- handing out ---- */

void consumer_wake(struct consumer *consumer)
{
    struct queue *queue = consumer->queue;

    if (queue == NULL)
        return;
    if (consumer->idle) {
        TAILQ_REMOVE(&queue->idle, consumer, by_queue);
        TAILQ_INSERT_TAIL(&queue->turn, consumer, by_queue);
        consumer->idle = false;
    }
    queue_wake(queue);
}

/* Whose turn it is, or NULL. */
static struct consumer *next_consumer(struct queue *queue)
{
    struct consumer *consumer;

    while ((consumer = TAILQ_FIRST(&queue->turn)) != NULL) {
        if (consumer_has_credit(consumer) && consumer->ops->may_take(consumer))
            return consumer;
        TAILQ_REMOVE(&queue->turn, consumer, by_queue);
        TAILQ_INSERT_TAIL(&queue->idle, consumer, by_queue);
        consumer->idle = true;
    }
    return NULL;
}

static void hand_over(struct queue *queue, struct consumer *consumer, struct place place)
{
    struct broker_counters *counters = &queue->broker->counters;

    if (TAILQ_NEXT(consumer, by_queue) != NULL) {
        TAILQ_REMOVE(&queue->turn, consumer, by_queue);
        TAILQ_INSERT_TAIL(&queue->turn, consumer, by_queue);
    }
    if (place_entry(place)->redelivered) {
        queue->counters.redelivered++;
        counters->redelivered++;
    }
    window_take(&queue->window, place);
    if (consumer->no_ack) {
        queue->counters.delivered_no_ack++;
        counters->delivered_no_ack++;
        consumer->ops->deliver(consumer, place);
        forget_entry(queue, place);
    } else {
        queue->counters.delivered++;
        counters->delivered++;
        consumer->unacked_count++;
        consumer->ops->deliver(consumer, place);
    }
}

/* The task: as many as consumers have room for. */
static void queue_deliver(struct task *task)
{
    struct queue *queue = container_of(task, struct queue, task);
    uint64_t delivered = 0;
    struct consumer *consumer;
    struct place place;

    while ((consumer = next_consumer(queue)) != NULL) {
        enum window_next next = window_first_ready(&queue->window, &place);
        if (next == WINDOW_ON_DISK)
            read_ahead(queue);
        if (next != WINDOW_READY)
            break;
        delivered = max_of(delivered, place_position(place) + 1);
        hand_over(queue, consumer, place);
    }
    if (queue->durable && delivered > 0)
        store_mark_delivered(queue->broker->store, queue->id, delivered);
}

void queue_push(struct queue *queue, struct message *message)
{
    struct place place = window_push(&queue->window, message);

    queue->counters.published++;
    if (message->persistent && queue->durable)
        store_entry(queue, place);
    queue_wake(queue);
}

enum window_next queue_get(struct queue *queue, bool no_ack, struct place *place,
                           struct queue_waiter *waiter)
{
    struct broker_counters *counters = &queue->broker->counters;
    enum window_next next = window_first_ready(&queue->window, place);

    if (next == WINDOW_ON_DISK) {
        read_ahead(queue);
        waiter->queue = queue;
        TAILQ_INSERT_TAIL(&queue->waiters, waiter, link);
    } else if (next == WINDOW_READY) {
        if (no_ack) {
            queue->counters.got_no_ack++;
            counters->got_no_ack++;
        } else {
            queue->counters.got++;
            counters->got++;
        }
        if (place_entry(*place)->redelivered) {
            queue->counters.redelivered++;
            counters->redelivered++;
        }
        window_take(&queue->window, *place);
        if (queue->durable)
            store_mark_delivered(queue->broker->store, queue->id, place_position(*place) + 1);
    } else {
        counters->got_empty++;
    }
    return next;
}

/* ---- settling ---- */

static void give_credit_back(struct consumer *consumer)
{
    if (consumer == NULL)
        return;
    assert(consumer->unacked_count > 0);
    consumer->unacked_count--;
    if (consumer->idle)
        consumer_wake(consumer);
}

void queue_ack(struct queue *queue, struct place place, struct consumer *consumer)
{
    queue->counters.acknowledged++;
    queue->broker->counters.acknowledged++;
    forget_entry(queue, place);
    give_credit_back(consumer);
}

void queue_drop(struct queue *queue, struct place place, struct consumer *consumer)
{
    forget_entry(queue, place);
    give_credit_back(consumer);
}

void queue_requeue(struct queue *queue, struct place place, struct consumer *consumer)
{
    if (queue->deleted) {
        forget_entry(queue, place);
    } else {
        window_requeue(&queue->window, place);
        queue_wake(queue);
    }
    give_credit_back(consumer);
}

/* Drops what is ready. Returns whether the store has to hear of it. */
static bool drop_ready(struct queue *queue)
{
    struct window *window = &queue->window;
    enum window_next next;
    struct place place;
    bool stored = false;

    while ((next = window_first_ready(window, &place)) != WINDOW_NOTHING) {
        if (next == WINDOW_READY) {
            stored |= forget_entry(queue, place);
            continue;
        }
        struct segment *range = window_first_range(window);
        if (!queue->deleted) {
            store_delete_range(queue->broker->store, queue->id, range->first, range->end,
                               range->count, range->bytes);
            broker_touch_store(queue->broker);
            stored = true;
        }
        window_remove_range(window, range);
    }
    return stored;
}

uint64_t queue_purge(struct queue *queue, uint64_t *lsn)
{
    uint64_t count = queue->window.ready_count;

    *lsn = drop_ready(queue) ? store_open_lsn(queue->broker->store) : 0;
    return count;
}

/* ---- consumers ---- */

void queue_attach(struct queue *queue, struct consumer *consumer)
{
    assert(!queue->deleted && !queue->has_exclusive_consumer);
    consumer->queue = queue;
    consumer->idle = false;
    TAILQ_INSERT_TAIL(&queue->turn, consumer, by_queue);
    queue->consumer_count++;
    queue->has_exclusive_consumer = consumer->exclusive;
    queue_wake(queue);
}

static void unlink_consumer(struct queue *queue, struct consumer *consumer)
{
    assert(consumer->queue == queue && queue->consumer_count > 0);
    TAILQ_REMOVE(consumer->idle ? &queue->idle : &queue->turn, consumer, by_queue);
    queue->consumer_count--;
    if (consumer->exclusive)
        queue->has_exclusive_consumer = false;
    consumer->queue = NULL;
}

void queue_detach(struct queue *queue, struct consumer *consumer)
{
    unlink_consumer(queue, consumer);
    if (queue->auto_delete && queue->consumer_count == 0 && !queue->deleted)
        queue_delete(queue);
}

/* ---- the end ---- */

static void queue_reap(struct task *task)
{
    struct queue *queue = container_of(task, struct queue, task);

    queue_unref(&queue);
}

/* Entries of the open batch that are unacked: they need not wait for the disk any more. */
static void take_back_unacked(struct queue *queue)
{
    struct segment *segment;

    TAILQ_FOREACH (segment, &queue->window.segments, link)
        for (uint32_t slot = 0; slot < segment->end - segment->first && segment->capacity > 0;
             slot++) {
            struct entry *entry = &segment->entries[slot];
            if (entry->message != NULL && is_in_open_batch(queue, entry))
                take_entry_back(queue, entry);
        }
}

void queue_delete(struct queue *queue)
{
    struct broker *broker = queue->broker;

    assert(!queue->deleted);
    queue->deleted = true;
    map_remove(&queue->vhost->queues, &queue->by_name);
    if (queue->owner != NULL)
        TAILQ_REMOVE(&queue->owner->queues, queue, by_owner);
    vhost_drop_bindings_of_queue(queue->vhost, queue);

    drop_ready(queue);
    take_back_unacked(queue);
    if (queue->durable) {
        map_remove(&broker->queues, &queue->by_id);
        definition_delete_queue(queue);
        store_delete_queue(broker->store, queue->id);
        broker_touch_store(broker);
    }

    struct consumer *consumer;
    while ((consumer = TAILQ_FIRST(&queue->turn)) != NULL ||
           (consumer = TAILQ_FIRST(&queue->idle)) != NULL) {
        unlink_consumer(queue, consumer);
        consumer->ops->on_queue_deleted(consumer);
    }
    struct queue_waiter *waiter;
    while ((waiter = TAILQ_FIRST(&queue->waiters)) != NULL) {
        queue_waiter_cancel(waiter);
        waiter->on_loaded(waiter);
    }

    broker->counters.queues_deleted++;
    loop_unqueue(broker->loop, &queue->task);
    queue->task.run = queue_reap;
    loop_queue(broker->loop, LOOP_REAP, &queue->task);
}

void queue_free(struct queue **queue)
{
    struct queue *gone = *queue;

    *queue = NULL;
    assert(gone->consumer_count == 0 && gone->refs == 1 && TAILQ_EMPTY(&gone->bindings));
    loop_unqueue(gone->broker->loop, &gone->task);
    map_remove(&gone->vhost->queues, &gone->by_name);
    if (gone->durable)
        map_remove(&gone->broker->queues, &gone->by_id);
    window_release(&gone->window);
    free(gone);
}

void queue_owner_init(struct queue_owner *owner)
{
    TAILQ_INIT(&owner->queues);
}

void queue_owner_release(struct queue_owner *owner)
{
    struct queue *queue;

    while ((queue = TAILQ_FIRST(&owner->queues)) != NULL)
        queue_delete(queue);
}
