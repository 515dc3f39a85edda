#include "core/queue_store.h"

#include "base/fault.h"
#include "base/log.h"
#include "core/vhost.h"

/* An entry read back from the store: in some batch of the past. */
#define LSN_OF_THE_PAST UINT64_MAX

enum { READ_COUNT = 1024, READ_BYTES = 1024 * 1024 }; /* one read of a range on disk */

static uint64_t store_id(const struct queue *queue, const struct window *window)
{
    return window == &queue->window ? queue->id
                                    : queue->id + 1 + (uint64_t)(window - queue->higher);
}

void queue_store_create(struct queue *queue)
{
    for (unsigned level = 0; level <= queue->settings.priority_max; level++)
        store_create_queue(queue->broker->store, queue->id + level);
    broker_touch_store(queue->broker);
}

void queue_store_mark(struct queue *queue)
{
    for (unsigned level = 0; level <= queue->settings.priority_max; level++)
        store_mark_delivered(queue->broker->store, queue->id + level,
                             queue_window(queue, level)->delivered);
}

/* ---- putting and taking back ---- */

/* On disk a deadline is wall-clock time: the monotonic clock begins anew with the machine. */
static uint64_t to_wall_ms(const struct clock *clock, uint64_t deadline_ms)
{
    return deadline_ms == DEADLINE_NONE ? 0 : clock->wall_ms + (deadline_ms - clock->now_ms);
}

static uint64_t from_wall_ms(const struct clock *clock, uint64_t wall_ms)
{
    return wall_ms <= clock->wall_ms ? clock->now_ms : clock->now_ms + (wall_ms - clock->wall_ms);
}

void queue_store_entry(struct queue *queue, struct place place, uint64_t deadline_ms)
{
    struct store *store = queue->broker->store;
    struct entry *entry = place_entry(place);
    struct message *message = entry->message;

    entry->lsn = store_open_lsn(store);
    /* A body whose entries were all taken back has left the batch. */
    if (message->lsn != entry->lsn || message->unsynced == 0) {
        message->lsn = entry->lsn;
        message->unsynced = 0;
        message->body_number = store_add_body(store, message_record(message), message_ref(message));
    }
    message->unsynced++;
    entry->put_number =
        store_put_entry(store,
                        &(struct store_entry){
                            .queue_id = store_id(queue, place.segment->window),
                            .position = place_position(place),
                            .expires_ms = to_wall_ms(queue->broker->clock, deadline_ms),
                            .weight = message->body_size,
                        },
                        message->body_number);
    broker_touch_store(queue->broker);
}

static bool is_in_open_batch(const struct queue *queue, const struct entry *entry)
{
    return entry->lsn != 0 && entry->lsn == store_open_lsn(queue->broker->store);
}

static bool is_awaited(const struct queue *queue, const struct entry *entry)
{
    return is_in_open_batch(queue, entry) && entry->message->publisher != NULL;
}

/* A publisher would be told if this entry were forgotten now. */
static bool is_last_awaited(const struct queue *queue, const struct entry *entry)
{
    return is_awaited(queue, entry) && entry->message->unsynced == 1;
}

struct publisher *queue_take_wait(struct queue *queue, struct place place)
{
    struct message *message = place_entry(place)->message;

    if (is_awaited(queue, place_entry(place)) && message->unsynced > 1) {
        late_confirm(queue->broker, message->publisher, message->sequence);
        publisher_unref(&message->publisher);
    }
    return is_last_awaited(queue, place_entry(place)) ? message->publisher : NULL;
}

/* The entry's put is still in the open batch. Its message stays with the window. */
static void take_back(struct queue *queue, struct entry *entry)
{
    assert(entry->message->unsynced > 0);
    entry->message->unsynced--;
    store_take_back(queue->broker->store, entry->put_number);
    entry->lsn = 0;
}

/* Returns whether the open batch now deletes the entry. */
static bool forget(struct queue *queue, struct place place)
{
    struct entry *entry = place_entry(place);
    bool deletes = false;
    static unsigned dropped;

    if (is_in_open_batch(queue, entry)) {
        take_back(queue, entry);
    } else if (entry->lsn != 0 && !queue->deleted &&
               !fault_bug_each(FAULT_DROP_ACK, 64, &dropped)) {
        store_delete_entry(queue->broker->store, store_id(queue, place.segment->window),
                           place_position(place), entry->message->body_size);
        broker_touch_store(queue->broker);
        deletes = true;
    }
    window_remove(place.segment->window, place);
    return deletes;
}

static void tell_publisher(struct queue *queue, const struct message *message, bool late)
{
    if (late)
        late_confirm(queue->broker, message->publisher, message->sequence);
    else
        message->publisher->ops->on_settled(message->publisher, message->sequence);
}

bool queue_forget_entry(struct queue *queue, struct place place)
{
    if (is_last_awaited(queue, place_entry(place)))
        tell_publisher(queue, place_entry(place)->message, queue->broker->in_transaction);
    return forget(queue, place);
}

bool queue_drop_entry(struct queue *queue, struct place place)
{
    if (is_last_awaited(queue, place_entry(place)))
        tell_publisher(queue, place_entry(place)->message, true);
    return forget(queue, place);
}

void queue_forget_entry_quietly(struct queue *queue, struct place place)
{
    forget(queue, place);
}

bool queue_forget_range(struct queue *queue, struct segment *range)
{
    struct window *window = range->window;

    if (!queue->deleted) {
        store_delete_range(queue->broker->store, store_id(queue, window), range->first, range->end,
                           range->count, range->bytes);
        broker_touch_store(queue->broker);
    }
    window_remove_range(window, range);
    return !queue->deleted;
}

/* Unacked entries of the open batch need not wait for the disk any more. */
static void take_back_unacked(struct queue *queue, struct window *window)
{
    struct segment *segment;

    TAILQ_FOREACH (segment, &window->segments, link)
        for (uint32_t slot = 0; slot < segment->end - segment->first && segment->capacity > 0;
             slot++) {
            struct entry *entry = &segment->entries[slot];
            if (entry->message == NULL || !is_in_open_batch(queue, entry))
                continue;
            if (is_last_awaited(queue, entry))
                tell_publisher(queue, entry->message, true);
            take_back(queue, entry);
        }
}

void queue_store_delete(struct queue *queue)
{
    for (unsigned level = 0; level <= queue->settings.priority_max; level++) {
        take_back_unacked(queue, queue_window(queue, level));
        store_delete_queue(queue->broker->store, queue->id + level);
    }
    broker_touch_store(queue->broker);
}

/* ---- reading back ---- */

static void add_loaded(struct queue *queue, struct segment *range,
                       const struct store_fetched *fetched)
{
    struct message *message = fetched->damaged ? NULL : message_from_record(fetched->bytes);

    if (message == NULL) {
        log_error("queue '%.*s' in vhost '%.*s': the message at position %" PRIu64
                  " is damaged on disk and was set aside",
                  SLICE_ARG(queue->name), SLICE_ARG(queue->vhost->name), fetched->position);
        queue->broker->counters.damaged++;
        window_drop_from_range(range->window, range, fetched->weight);
        return;
    }
    struct place place = window_add_loaded(range->window, range, fetched->position, message);
    place_entry(place)->lsn = LSN_OF_THE_PAST;
    place_entry(place)->redelivered = fetched->position < range->window->delivered;
    if (fetched->expires_ms != 0)
        expiry_add(&queue->expiry, place.segment, place.slot,
                   from_wall_ms(queue->broker->clock, fetched->expires_ms));
    message_unref(&message);
}

/* Who came first is served first with what was loaded; who finds nothing left of it waits for the
 * next read. */
static void serve_waiters(struct queue *queue)
{
    struct queue_waiter *waiter;
    struct place place;

    while ((waiter = TAILQ_FIRST(&queue->waiters)) != NULL &&
           queue_first_ready(queue, &place) != WINDOW_ON_DISK) {
        queue_waiter_cancel(waiter);
        waiter->on_loaded(waiter);
    }
}

static void read_on_for_deadlines(struct queue *queue)
{
    if (!queue->deadlines_on_disk)
        return;
    for (unsigned level = 0; level <= queue->settings.priority_max; level++)
        if (window_first_range(queue_window(queue, level)) != NULL)
            queue_read_ahead(queue, queue_window(queue, level));
}

/* The store cannot be read there: what the range has stays on disk, set aside. */
static void give_up_range(struct queue *queue, struct segment *range, int error)
{
    log_error("queue '%.*s' in vhost '%.*s': %" PRIu64
              " messages cannot be read from disk and were set aside: %s",
              SLICE_ARG(queue->name), SLICE_ARG(queue->vhost->name), range->count,
              strerror(-error));
    queue->broker->counters.damaged += range->count;
    window_remove_range(range->window, range);
}

static void take_in(struct queue *queue, struct segment *range, const struct store_fetch *fetch)
{
    if (fetch->error != 0) {
        give_up_range(queue, range, fetch->error);
        return;
    }
    for (size_t i = 0; i < fetch->count; i++)
        add_loaded(queue, range, &fetch->entries[i]);
    window_shorten_range(range->window, range, fetch->next);
    fault_point(FAULT_RANGE_READ);
}

static void on_fetched(struct store_fetch *fetch)
{
    struct queue *queue = container_of(fetch, struct queue, fetch);
    struct window *window = queue->fetching;
    struct segment *range = window_first_range(window);

    queue->fetching = NULL;
    queue->broker->fetches--;
    /* A purge or delete may have taken the range away meanwhile. */
    if (!queue->deleted && range != NULL && range->first == fetch->first)
        take_in(queue, range, fetch);
    store_fetch_release(fetch);

    if (!queue->deleted) {
        serve_waiters(queue);
        queue_drop_overflow(queue);
        read_on_for_deadlines(queue);
        queue_wake(queue);
    }
    queue_unref(&queue);
}

void queue_read_ahead(struct queue *queue, struct window *window)
{
    if (queue->fetching != NULL)
        return;
    const struct segment *range = window_first_range(window);
    queue->fetching = window;
    queue->broker->fetches++;
    queue_ref(queue);
    queue->fetch = (struct store_fetch){
        .queue_id = store_id(queue, window),
        .first = range->first,
        .end = range->end,
        .count_max = READ_COUNT,
        .bytes_max = READ_BYTES,
        .on_done = on_fetched,
    };
    store_fetch(queue->broker->store, &queue->fetch);
}

void queue_recover_entries(struct queue *queue, const struct store_queue_state *state)
{
    struct window *window = queue_window(queue, (unsigned)(state->queue_id - queue->id));

    window_recover(window, state->head, state->tail, state->count, state->bytes);
    window->delivered = state->delivered;
    queue->deadlines_on_disk |= state->deadlines;
    read_on_for_deadlines(queue);
    queue_drop_overflow(queue); /* what was unacked is ready again */
}
