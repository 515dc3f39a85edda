#include "core/queue_store.h"

#include "base/fault.h"
#include "core/queue_parts.h"
#include "core/vhost.h"

enum { LEVEL_STEPS = 100 };

struct window *queue_store_window(const struct queue *queue, uint64_t id)
{
    const uint64_t number = id - queue->id;

    if (number == 0)
        return queue_window(queue, queue->settings.priority_plain);
    if (queue->others == NULL || number > queue->settings.priority_max)
        return NULL;
    struct window *window = &queue->others[number - 1];
    return window->level <= queue->level_max ? window : NULL;
}

/* A record is written and, in the end, deleted: what declares hundreds spends steps. */
void queue_store_create_level(struct queue *queue, unsigned level)
{
    broker_spend(queue->broker, LEVEL_STEPS);
    store_create_queue(queue->broker->store, queue_store_id(queue, queue_window(queue, level)));
}

void queue_store_create(struct queue *queue)
{
    for (unsigned level = 0; level <= queue->level_max; level++)
        queue_store_create_level(queue, level);
    broker_touch_store(queue->broker);
}

void queue_store_mark(struct queue *queue)
{
    for (unsigned level = 0; level <= queue->level_max; level++) {
        const struct window *window = queue_window(queue, level);
        store_mark_delivered(queue->broker->store, queue_store_id(queue, window),
                             window->delivered);
    }
}

/* ---- putting and taking back ---- */

void queue_store_entry(struct queue *queue, struct place place, uint64_t deadline_ms)
{
    struct store *store = queue->broker->store;
    struct entry *entry = place_entry(place);
    struct message *message = entry->message;

    entry->lsn = store_open_lsn(store);
    /* A body whose entries were all taken back has left the batch. */
    if (!store_lsn_is_open(store, message->lsn) || message->unsynced == 0) {
        message->lsn = entry->lsn;
        message->unsynced = 0;
        message->body_number = store_add_body(store, message_record(message), message_ref(message));
    }
    message->unsynced++;
    entry->put_number =
        store_put_entry(store,
                        &(struct store_entry){
                            .queue_id = queue_store_id(queue, place.segment->window),
                            .position = place_position(place),
                            .expires_ms = deadline_ms == DEADLINE_NONE
                                              ? 0
                                              : clock_to_wall_ms(queue->broker->clock, deadline_ms),
                            .weight = message->body_size,
                        },
                        message->body_number);
    broker_touch_store(queue->broker);
}

static bool is_in_open_batch(const struct queue *queue, const struct entry *entry)
{
    return entry->lsn != 0 && store_lsn_is_open(queue->broker->store, entry->lsn);
}

/* Of an entry in the open batch: its publisher would be told if that were forgotten now. */
static bool is_last_awaited(const struct entry *entry)
{
    return entry->message->publisher != NULL && entry->message->unsynced == 1;
}

struct publisher *queue_take_wait(struct queue *queue, struct place place)
{
    struct message *message = place_entry(place)->message;

    if (!is_in_open_batch(queue, place_entry(place)) || message->publisher == NULL)
        return NULL;
    if (message->unsynced == 1)
        return message->publisher;
    late_confirm(queue->broker, message->publisher, message->sequence);
    publisher_unref(&message->publisher);
    return NULL;
}

/* The entry's put is still in the open batch. Its message stays with the window. */
static void take_back(struct queue *queue, struct entry *entry)
{
    assert(entry->message->unsynced > 0);
    entry->message->unsynced--;
    store_take_back(queue->broker->store, entry->put_number);
    entry->lsn = 0;
}

static void tell_publisher(struct queue *queue, const struct message *message, bool late)
{
    if (late)
        late_confirm(queue->broker, message->publisher, message->sequence);
    else
        message->publisher->ops->on_settled(message->publisher, message->sequence);
}

bool queue_remove_entry(struct queue *queue, struct place place, enum removal removal)
{
    struct broker *broker = queue->broker;
    struct entry *entry = place_entry(place);
    bool deletes = false;

    if (is_in_open_batch(queue, entry)) {
        if (is_last_awaited(entry) && removal != REMOVE_MOVED)
            tell_publisher(queue, entry->message,
                           removal != REMOVE_SETTLED || broker->in_transaction);
        take_back(queue, entry);
    } else if (entry->lsn != 0 && !queue->deleted && !fault_bug_each(FAULT_DROP_ACK, 64)) {
        const bool tied = removal >= REMOVE_REPLACED || broker->transaction_puts;
        (tied ? store_delete_tied
              : store_delete_entry)(broker->store, queue_store_id(queue, place.segment->window),
                                    place_position(place), entry->message->body_size);
        place.segment->deleted_lsn = store_open_lsn(broker->store);
        broker_touch_store(broker);
        deletes = true;
    }
    window_remove(place.segment->window, place);
    return deletes;
}

void queue_forget_in_stub(struct queue *queue, struct segment *stub, uint32_t slot)
{
    if (stub_is_stored(stub, slot) && !queue->deleted) {
        store_delete_entry(queue->broker->store, queue_store_id(queue, stub->window),
                           stub->first + slot, stub_weight(stub, slot));
        stub->deleted_lsn = store_open_lsn(queue->broker->store);
        broker_touch_store(queue->broker);
    }
    window_remove_from_stub(stub->window, stub, slot);
}

/* Only unacked entries are left. Those of the open batch need not wait for the disk any more. Those
 * of the one under way go with their queue, in that batch too if it is refused: nobody takes them
 * back. */
static void disown_unacked(struct queue *queue, struct window *window)
{
    struct segment *segment;

    TAILQ_FOREACH (segment, &window->segments, link)
        for (uint32_t slot = 0; slot < segment->end - segment->first && segment->capacity > 0;
             slot++) {
            struct entry *entry = &segment->entries[slot];
            if (entry->message == NULL)
                continue;
            if (is_in_open_batch(queue, entry)) {
                if (is_last_awaited(entry))
                    tell_publisher(queue, entry->message, true);
                take_back(queue, entry);
            }
            entry->lsn = 0;
        }
}

void queue_store_delete(struct queue *queue)
{
    for (unsigned level = 0; level <= queue->level_max; level++) {
        struct window *window = queue_window(queue, level);
        disown_unacked(queue, window);
        store_delete_queue(queue->broker->store, queue_store_id(queue, window));
    }
    broker_touch_store(queue->broker);
}

/* ---- dropping all that is ready ---- */

/* Stored entries that go together: all that live in [first, end). */
struct run {
    uint64_t first, end, count, weight;
};

/* The open batch deletes them. Returns whether there are any. */
static bool end_run(struct queue *queue, struct window *window, struct run *run)
{
    const struct run ended = *run;

    *run = (struct run){0};
    if (ended.count == 0 || queue->deleted)
        return false;
    if (ended.count == 1 && ended.end - ended.first == 1)
        store_delete_entry(queue->broker->store, queue_store_id(queue, window), ended.first,
                           (uint32_t)ended.weight);
    else
        store_delete_range(queue->broker->store, queue_store_id(queue, window), ended.first,
                           ended.end, ended.count, ended.weight);
    broker_touch_store(queue->broker);
    return true;
}

/* What is stored of [first, end) goes, too. */
static void lengthen(struct run *run, uint64_t first, uint64_t end, uint64_t count, uint64_t weight)
{
    if (count == 0)
        return;
    if (run->count == 0)
        run->first = first;
    run->end = end;
    run->count += count;
    run->weight += weight;
}

static void drop_on_disk(struct queue *queue, struct segment *part, struct run *run)
{
    lengthen(run, part->first, part->end, part->is_stub ? part->stored_count : part->count,
             part->is_stub ? part->stored_bytes : part->bytes);
    window_drop_on_disk(part->window, part, &queue->broker->remains);
}

/* Those that are ready; a durable one that is not ends the run. What is not durable may yet be
 * refused, and does not belong into a run. Returns whether the open batch deletes any so far. */
static bool drop_loaded(struct queue *queue, struct segment *segment, struct run *run)
{
    struct window *window = segment->window;
    const uint64_t durable = store_durable_entries(queue->broker->store);
    const uint32_t end = (uint32_t)(segment->end - segment->first);
    bool deletes = false, gone = segment->count == 0;

    for (uint32_t slot = 0; slot < end && !gone; slot++) {
        const struct place place = {segment, slot};
        const struct entry *entry = place_entry(place);
        const bool is_durable = entry->lsn != 0 && entry->lsn <= durable;
        if (entry->message == NULL)
            continue;
        if (!segment_is_ready(segment, slot)) {
            deletes |= is_durable && end_run(queue, window, run);
            continue;
        }
        gone = segment->count == 1; /* the segment goes with its last entry */
        if (!is_durable) {
            deletes |= queue_remove_entry(queue, place, REMOVE_DROPPED);
            continue;
        }
        lengthen(run, place_position(place), place_position(place) + 1, 1,
                 entry->message->body_size);
        segment->deleted_lsn = store_open_lsn(queue->broker->store);
        window_remove(window, place);
    }
    return deletes;
}

/* Whether all that the segment has is ready, and nothing of it was ever to be stored. */
static bool is_transient(const struct segment *segment)
{
    const uint32_t end = (uint32_t)(segment->end - segment->first);

    if (segment->ready_count == 0 || segment->ready_count < segment->count)
        return false;
    for (uint32_t slot = 0; slot < end; slot++)
        if (segment->entries[slot].lsn != 0 && segment->entries[slot].message != NULL)
            return false;
    return true;
}

bool queue_drop_ready(struct queue *queue, struct window *window)
{
    struct segment *segment, *next;
    struct run run = {0};
    bool deletes = false;

    for (segment = TAILQ_FIRST(&window->segments); segment != NULL; segment = next) {
        next = TAILQ_NEXT(segment, link);
        if (segment_is_on_disk(segment))
            drop_on_disk(queue, segment, &run);
        else if (!is_transient(segment))
            deletes |= drop_loaded(queue, segment, &run);
    }
    window_drop_ready(window, &queue->broker->remains);
    return end_run(queue, window, &run) || deletes;
}
