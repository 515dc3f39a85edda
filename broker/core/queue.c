/* How an entry ends:
 *
 *     acknowledged ──▶ forgotten; purged, deleted with the queue ──▶ dropped
 *     rejected, expired, over the limit ──▶ retired: dropped, or if the queue's settings name an exchange set aside until
 *         it is a dead letter (outbox.h);
 *         of the queue of a delayed exchange: expired is what has waited long enough, and goes on through that exchange
 *
 * A queue with priorities has a window for each; the highest with something ready is served first,
 * after what has come back to a quorum queue; the lowest overflows first. A quorum queue always has
 * priorities (11.7) and seldom needs them: it is like a queue without, but for the ids that it
 * keeps free in the store, until the first message of another priority than the plain one. */
#include "core/queue.h"

#include "amqp/properties.h"
#include "base/alloc.h"
#include "base/fault.h"
#include "base/log.h"
#include "core/argument.h"
#include "core/definition.h"
#include "core/delivery_count.h"
#include "core/queue_parts.h"
#include "core/queue_read.h"
#include "core/queue_store.h"
#include "core/vhost.h"

enum {
    RETIRE_AT_ONCE_MAX = 20000, /* entries; the rest in the next turn */
    LARGE_BODY = 4096,          /* octets; memory is looked at for each such message */
    ROOM_RETRY_MS = 200,        /* for what is due and waits for room on the disk */
};

static void queue_deliver(struct task *task);
static void queue_hold_back(struct task *task);
static bool retire_all_due(struct queue *queue);
static void on_entries_due(struct timer *timer);
static void serve_waiters(struct queue *queue);
static void on_unused(struct timer *timer);
static void on_retries_due(struct timer *timer);

/* ---- life ---- */

static size_t size_of_others(const struct queue *queue)
{
    return queue->others == NULL ? 0 : queue->settings.priority_max * sizeof(*queue->others);
}

static void make_others(struct queue *queue)
{
    const struct settings *settings = &queue->settings;

    queue->others = xcalloc(settings->priority_max, sizeof(*queue->others));
    queue->broker->totals.octets += size_of_others(queue);
    for (unsigned level = 0; level <= settings->priority_max; level++)
        if (level != settings->priority_plain)
            window_init(queue_window(queue, level), queue, level, &queue->expiry,
                        &queue->broker->paging);
    queue->level_max = settings->priority_plain;
}

void queue_use_levels(struct queue *queue, unsigned level)
{
    if (queue->others == NULL)
        make_others(queue);
    queue->level_max = max_of(queue->level_max, level);
}

static void make_windows(struct queue *queue)
{
    window_init(&queue->window, queue, queue->settings.priority_plain, &queue->expiry,
                &queue->broker->paging);
    if (queue->settings.priority_max > 0 && !queue->settings.quorum)
        queue_use_levels(queue, queue->settings.priority_max);
}

static void release_windows(struct queue *queue)
{
    window_release(&queue->window);
    for (uint8_t i = 0; queue->others != NULL && i < queue->settings.priority_max; i++)
        window_release(&queue->others[i]);
    free(queue->others);
    expiry_release(&queue->expiry);
}

static void read_settings(struct queue *queue)
{
    settings_read(&queue->settings,
                  &(struct settings_source){
                      .arguments = queue->arguments,
                      .policy = policy_definition(&queue->policies, POLICY_PLAIN),
                      .operator_policy = policy_definition(&queue->policies, POLICY_OPERATOR),
                  });
    queue->settings.dead_letters |= queue->delayed_by != NULL;
    if (queue->settings.wants_dead_letters_kept && !queue->settings.keeps_dead_letters)
        log_warning("queue '%.*s' in vhost '%.*s': dead-letter-strategy is at-most-once, as "
                    "at-least-once needs a dead-letter exchange and overflow reject-publish",
                    SLICE_ARG(queue->name), SLICE_ARG(queue->vhost->name));
}

/* The single active one of a classic queue has its place whatever priority others have (10.11). */
static void make_consumers(struct queue *queue)
{
    const bool single_active = argument_is_true(queue->arguments, "x-single-active-consumer");
    const bool quorum = argument_queue_type(queue->arguments) == QUEUE_QUORUM;

    consumers_init(&queue->consumers, single_active, !single_active || quorum);
}

static struct queue *queue_make(struct vhost *vhost, const struct queue_options *options)
{
    size_t bytes = options->name.size + options->arguments.size;
    struct queue *queue = xmalloc(sizeof(*queue) + bytes);

    *queue = (struct queue){
        .vhost = vhost_ref(vhost),
        .broker = vhost->broker,
        .refs = 1,
        .durable = options->durable,
        .exclusive = options->owner != NULL,
        .auto_delete = options->auto_delete,
        .owner = options->owner,
        .delayed_by = options->delayed_by,
        .task.run = queue_deliver,
    };
    uint8_t *next = (uint8_t *)(queue + 1);
    queue->name = slice_of(next, options->name.size);
    if (options->name.size > 0)
        next = (uint8_t *)mempcpy(next, options->name.data, options->name.size);
    queue->arguments = slice_of(next, options->arguments.size);
    if (options->arguments.size > 0)
        memcpy(next, options->arguments.data, options->arguments.size);

    policy_choose_for_queue(queue);
    read_settings(queue);
    expiry_init(&queue->expiry, &vhost->broker->loop->timers, on_entries_due);
    queue->unused_timer.on_expire = on_unused;
    queue->read_timer.on_expire = queue_on_read_timer;
    make_windows(queue);
    make_consumers(queue);
    TAILQ_INIT(&queue->waiters);
    TAILQ_INIT(&queue->bindings);
    if (queue->delayed_by != NULL)
        return queue;
    map_insert(&vhost->queues, &queue->by_name, queue->name);
    if (queue->owner != NULL)
        TAILQ_INSERT_TAIL(&queue->owner->queues, queue, by_owner);
    queue->broker->counters.queues_declared++;
    queue->broker->totals.queues++;
    queue->broker->totals.octets += queue->name.size + queue->arguments.size;
    queue_used(queue);
    return queue;
}

struct queue *queue_new(struct vhost *vhost, const struct queue_options *options)
{
    struct queue *queue = queue_make(vhost, options);
    struct broker *broker = vhost->broker;

    if (!queue->durable)
        return queue;
    queue->id = broker_new_queue_ids(broker, queue->settings.priority_max + 1u);
    map_insert_id(&broker->queues, &queue->by_id, queue->id);
    queue->lsn = store_open_lsn(broker->store);
    definition_put_queue(queue);
    queue_store_create(queue);
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
    assert(gone->retries == NULL && gone->outbox == NULL);
    release_windows(gone);
    consumers_release(&gone->consumers);
    policy_set_release(&gone->policies);
    vhost_unref(&gone->vhost);
    free(gone);
}

void queue_waiter_cancel(struct queue_waiter *waiter)
{
    if (waiter->queue == NULL)
        return;
    TAILQ_REMOVE(&waiter->queue->waiters, waiter, link);
    waiter->queue = NULL;
}

/* ---- entries of all priorities ---- */

struct queue_depth queue_depth_of_levels(const struct queue *queue)
{
    struct queue_depth depth = {0};

    for (unsigned level = 0; level <= queue->level_max; level++) {
        const struct window *window = queue_window(queue, level);
        depth.ready += window->ready_count;
        depth.ready_bytes += window->ready_bytes;
        depth.unacked += window->unacked_count;
        depth.unacked_bytes += window->unacked_bytes;
    }
    return depth;
}

/* Whether an entry that dies leaves its window at once: its letter, if there is one, is part of a
 * transaction. */
static bool dies_at_once(const struct queue *queue)
{
    return !queue->settings.dead_letters || queue->deleted ||
           (!queue->settings.keeps_dead_letters &&
            (dead_letters_are_taken(queue->broker) || fault_bug(FAULT_SPLIT_DEAD_LETTER)));
}

/* Its time here is over: dropped, or set aside until it is a dead letter. */
static void retire(struct queue *queue, struct place place, enum death death)
{
    if (!dies_at_once(queue)) {
        outbox_add(&queue->outbox, queue, place, death);
        if (outbox_is_heavy(queue->outbox))
            queue->task.run = queue_hold_back;
    } else if (queue->settings.dead_letters && !queue->deleted) {
        dead_letter_take(queue, place, death);
    } else {
        queue_remove_entry(queue, place, death == DEATH_MAXLEN ? REMOVE_REPLACED : REMOVE_DROPPED);
    }
}

/* What is due becomes dead letters only as fast as there is room for them: they cannot leave memory
 * before they are on disk. It is looked at again later. */
static bool letters_must_wait(struct queue *queue)
{
    if (likely(!queue->settings.dead_letters || !broker_lacks_room(queue->broker)))
        return false;
    timer_set(queue->expiry.wheel, &queue->expiry.timer,
              queue->broker->clock->now_ms + ROOM_RETRY_MS);
    return true;
}

/* What is due, or too much, stays until letters have been made of what is set aside. */
static bool letters_are_full(const struct queue *queue)
{
    return unlikely(queue->outbox != NULL) && queue->outbox->owes && outbox_is_full(queue->outbox);
}

/* More is due than goes in one turn; on_entries_due goes on with the rest. */
static void retire_later(struct queue *queue)
{
    queue->retires_later = true;
    timer_set(queue->expiry.wheel, &queue->expiry.timer, queue->broker->clock->now_ms);
}

static bool is_due(const struct queue *queue, struct place place)
{
    return unlikely(place.segment->deadlines.slots != NULL) &&
           expiry_deadline_of(place.segment, place.slot) < queue->broker->clock->now_ms;
}

/* The first is due: it goes, and those behind it that are. */
static __attribute__((noinline)) enum window_next pass_due(struct queue *queue,
                                                           struct window *window,
                                                           struct place *place)
{
    enum window_next next = WINDOW_READY;
    size_t left = RETIRE_AT_ONCE_MAX;

    for (; next == WINDOW_READY && is_due(queue, *place);
         next = window_first_ready(window, place)) {
        if (letters_must_wait(queue))
            return WINDOW_NOTHING;
        if (queue->retires_later || left-- == 0 || letters_are_full(queue)) {
            retire_later(queue);
            return WINDOW_ON_DISK;
        }
        retire(queue, *place, DEATH_EXPIRED);
    }
    if (next == WINDOW_ON_DISK)
        queue_read(queue, window_first_on_disk(window));
    return next;
}

/* The first ready entry of this priority, after those whose time is over: none while these must
 * wait for room, and not at once if they are too many. */
static enum window_next first_of(struct queue *queue, struct window *window, struct place *place)
{
    const enum window_next next = window_first_ready(window, place);

    if (next == WINDOW_READY && is_due(queue, *place))
        return pass_due(queue, window, place);
    if (next == WINDOW_ON_DISK)
        queue_read(queue, window_first_on_disk(window));
    return next;
}

static bool has_come_back(struct place place)
{
    return place_entry(place)->acquired_count > 0;
}

/* Of those that came back to a quorum queue. They stand first in their windows. */
static enum window_next first_come_back(struct queue *queue, struct place *place)
{
    for (unsigned level = queue->level_max + 1; level > 0; level--) {
        struct window *window = queue_window(queue, level - 1);
        enum window_next next = window_first_ready(window, place);
        if (next == WINDOW_NOTHING ||
            !(next == WINDOW_READY ? has_come_back(*place) : window->cursor->has_come_back))
            continue;
        next = first_of(queue, window, place);
        if (next == WINDOW_ON_DISK || (next == WINDOW_READY && has_come_back(*place)))
            return next;
    }
    return WINDOW_NOTHING;
}

/* What came back to a quorum queue is before the priorities of others (11.5, 11.7). */
static enum window_next first_of_levels(struct queue *queue, struct place *place)
{
    enum window_next next = queue->settings.quorum ? first_come_back(queue, place) : WINDOW_NOTHING;

    for (unsigned level = queue->level_max + 1; level > 0 && next == WINDOW_NOTHING; level--)
        next = first_of(queue, queue_window(queue, level - 1), place);
    return next;
}

/* Who is served next: the highest priority, after those whose time is over. WINDOW_ON_DISK: it is
 * being read, or so many are over that the rest of them goes in the next turn. */
static enum window_next first_ready(struct queue *queue, struct place *place)
{
    return likely(queue->others == NULL) ? first_of(queue, &queue->window, place)
                                         : first_of_levels(queue, place);
}

/* ---- handing out ---- */

static void hand_over(struct queue *queue, struct consumer *consumer, struct place place)
{
    struct message_counters *counters = &queue->broker->counters.messages;

    consumer_served(consumer);
    if (place_entry(place)->redelivered) {
        queue->counters.redelivered++;
        counters->redelivered++;
    }
    window_take(place.segment->window, place);
    if (consumer->no_ack) {
        queue->counters.delivered_no_ack++;
        counters->delivered_no_ack++;
        consumer->ops->deliver(consumer, place);
        queue_remove_entry(queue, place, REMOVE_SETTLED);
    } else {
        queue->counters.delivered++;
        counters->delivered++;
        consumer->unacked_count++;
        consumer->ops->deliver(consumer, place);
    }
}

/* As many as consumers have room for. Nobody loses a turn for want of room while there is nothing
 * to hand out. */
static void deliver(struct queue *queue)
{
    struct consumer *consumer;
    struct place place;

    while (queue_ready_count(queue) > 0 && (consumer = consumers_next(&queue->consumers)) != NULL &&
           first_ready(queue, &place) == WINDOW_READY)
        hand_over(queue, consumer, place);
    if (queue->consumer_count > 0 && !paging_is_short(&queue->broker->paging))
        queue_read_ahead(queue);
}

static void queue_deliver(struct task *task)
{
    struct queue *queue = container_of(task, struct queue, task);

    deliver(queue);
    queue_drop_overflow(queue);
}

/* The task in its place while the outbox is heavy, for whatever consumers were given they might
 * reject, and so fill memory; and while something is on its way back. */
static void queue_hold_back(struct task *task)
{
    queue_drop_overflow(container_of(task, struct queue, task));
}

static void deliver_now(struct queue *queue)
{
    if (queue->task.run == queue_deliver)
        deliver(queue);
}

/* ---- limits and deadlines ---- */

static __attribute__((noinline)) bool is_over_limits(const struct queue *queue, uint64_t more,
                                                     uint64_t more_bytes)
{
    const struct settings *settings = &queue->settings;
    struct queue_depth depth = queue_depth_of_levels(queue);
    if (unlikely(queue->outbox != NULL) && settings->keeps_dead_letters) {
        more += outbox_count(queue->outbox);
        more_bytes += queue->outbox->bytes;
    }
    return depth.ready + more > settings->length_max ||
           depth.ready_bytes + more_bytes > settings->bytes_max;
}

static inline bool is_over(const struct queue *queue, uint64_t more, uint64_t more_bytes)
{
    const struct settings *settings = &queue->settings;

    return unlikely(settings->length_max != SETTING_NONE || settings->bytes_max != SETTING_NONE) &&
           is_over_limits(queue, more, more_bytes);
}

/* After a start deadlines are read level by level (learn_deadlines). */
static bool knows_deadlines(const struct queue *queue)
{
    for (unsigned level = 0; level <= queue->level_max; level++)
        if (queue_window(queue, level)->unlearnt != NULL)
            return false;
    return true;
}

/* The oldest of the lowest priority goes first (11.5), after all that is due, which does not count.
 * Until that is known and gone, or what must be read from disk has been, this waits to be called
 * again; when a limit that came with a policy is far exceeded, or many letters are still to be made,
 * the rest goes in the turns that follow. A queue that refuses drops nothing: what is requeued may
 * take it over its limit. */
void queue_drop_overflow(struct queue *queue)
{
    struct place place;

    if (queue->settings.overflow != OVERFLOW_DROP_HEAD || !is_over(queue, 0, 0) ||
        !knows_deadlines(queue) || !retire_all_due(queue))
        return;
    for (size_t left = RETIRE_AT_ONCE_MAX; is_over(queue, 0, 0); left--) {
        if (left == 0) {
            loop_queue(queue->broker->loop, LOOP_DEFERRED, &queue->task);
            return;
        }
        if (letters_are_full(queue))
            return;
        enum window_next next = WINDOW_NOTHING;
        for (unsigned level = 0; level <= queue->level_max && next == WINDOW_NOTHING; level++)
            next = first_of(queue, queue_window(queue, level), &place);
        if (next != WINDOW_READY)
            return;
        if (is_over(queue, 0, 0)) /* still: what was due may have stood before it */
            retire(queue, place, DEATH_MAXLEN);
    }
}

/* How long the message itself says that it stays, in ms (9.2: checked at its publish), or
 * DEADLINE_NONE. */
static uint64_t own_time_of(const struct queue *queue, const struct message *message)
{
    const struct slice properties = message_properties(message);
    const uint16_t flags = amqp_properties_flags(properties);
    uint64_t expiration_ms;

    if (likely((flags & (AMQP_PROPERTY_EXPIRATION | AMQP_PROPERTY_HEADERS)) == 0))
        return DEADLINE_NONE;
    if (queue->delayed_by != NULL)
        return exchange_delay_ms(properties);
    return slice_to_u64(amqp_properties_find(properties, AMQP_PROPERTY_EXPIRATION), UINT64_MAX,
                        &expiration_ms)
               ? expiration_ms
               : DEADLINE_NONE;
}

/* Its deadline in this queue, fixed now (11.1); DEADLINE_NONE: it has none. */
static uint64_t deadline_of(const struct queue *queue, const struct message *message)
{
    uint64_t ttl_ms = min_of(queue->settings.message_ttl_ms, own_time_of(queue, message));

    return ttl_ms == DEADLINE_NONE ? DEADLINE_NONE : queue->broker->clock->now_ms + ttl_ms;
}

static unsigned priority_of(const struct queue *queue, const struct message *message)
{
    const struct settings *settings = &queue->settings;
    struct amqp_properties properties;

    if ((amqp_properties_flags(message_properties(message)) & AMQP_PROPERTY_PRIORITY) == 0)
        return settings->priority_plain;
    amqp_properties_decode(message_properties(message), &properties);
    return min_of(properties.priority, settings->priority_max);
}

/* The first message of so high a priority, or of another than the plain one, has come. */
static __attribute__((noinline)) void need_levels(struct queue *queue, unsigned level)
{
    const unsigned first = queue->others == NULL ? 0 : queue->level_max + 1;

    queue_use_levels(queue, level);
    for (level = first; level <= queue->level_max; level++)
        if (queue_window(queue, level) != &queue->window)
            queue_store_create_level(queue, level);
}

/* Of messages of its priority (11.7). */
static struct window *window_for(struct queue *queue, const struct message *message)
{
    if (likely(queue->settings.priority_max == 0))
        return &queue->window;
    const unsigned level = priority_of(queue, message);
    if (level == queue->settings.priority_plain)
        return &queue->window;
    if (unlikely(queue->others == NULL || level > queue->level_max))
        need_levels(queue, level);
    return queue_window(queue, level);
}

/* The ready entries of the segment that are due at its earliest deadline go, as far as the outbox
 * has room. Answers how many. */
static size_t retire_due(struct queue *queue, struct segment *segment)
{
    const uint64_t due_ms = segment->deadlines.earliest;
    const uint32_t end = (uint32_t)(segment->end - segment->first);
    size_t retired = 0;
    bool gone = false;

    for (uint32_t slot = 0; slot < end && !gone && !outbox_is_full(queue->outbox); slot++) {
        if (!segment_is_ready(segment, slot) || segment->deadlines.slots[slot] > due_ms)
            continue;
        /* The segment goes with its last entry. */
        gone = segment->count == 1 && dies_at_once(queue);
        if (segment_is_on_disk(segment))
            queue_forget_in_stub(queue, segment, slot);
        else
            retire(queue, (struct place){segment, slot}, DEATH_EXPIRED);
        retired++;
    }
    if (!gone)
        expiry_review(&queue->expiry, segment);
    return retired;
}

/* All that is due goes, wherever it stands, in order of deadline, of priority, and then of
 * position. What is on disk is read first, if it has somewhere to go. Returns whether nothing is left
 * to do now: all of it is gone, or the outbox is full and goes on itself (queue_on_outbox_tried). If
 * not the rest goes when it has been read, when there is room for its dead letters, or in the next
 * turn. */
static bool retire_all_due(struct queue *queue)
{
    uint64_t now_ms = queue->broker->clock->now_ms;
    struct segment *segment;
    size_t left = queue->retires_later ? 0 : RETIRE_AT_ONCE_MAX;

    while (left > 0 && !outbox_is_full(queue->outbox) &&
           (segment = expiry_first(&queue->expiry, now_ms)) != NULL) {
        if (letters_must_wait(queue))
            return false;
        if (segment_is_on_disk(segment) && queue->settings.dead_letters) {
            queue_read(queue, segment);
            return false;
        }
        const size_t retired = retire_due(queue, segment);
        left -= min_of(left, retired);
    }
    if (left == 0)
        retire_later(queue);
    return left > 0;
}

static void on_entries_due(struct timer *timer)
{
    struct queue *queue =
        container_of(container_of(timer, struct expiry, timer), struct queue, expiry);

    queue->retires_later = false;
    retire_all_due(queue);
    serve_waiters(queue);       /* they may have waited */
    queue_drop_overflow(queue); /* so may this */
    queue_wake(queue);          /* and what stands behind */
}

static void stop_holding_back(struct queue *queue)
{
    if (queue->task.run == queue_hold_back && !outbox_is_heavy(queue->outbox) &&
        queue->returning == 0) {
        queue->task.run = queue_deliver;
        queue_wake(queue);
    }
}

void queue_begin_return(struct queue *queue)
{
    queue->returning++;
    if (queue->task.run == queue_deliver)
        queue->task.run = queue_hold_back;
}

void queue_end_return(struct queue *queue)
{
    if (--queue->returning > 0)
        return;
    serve_waiters(queue);
    stop_holding_back(queue);
}

void queue_on_outbox_tried(struct queue *queue)
{
    stop_holding_back(queue);
    if (!outbox_is_full(queue->outbox))
        retire_all_due(queue);
    queue_drop_overflow(queue);
}

bool queue_has_room(struct queue *queue, uint64_t body_size)
{
    if (queue->settings.overflow == OVERFLOW_DROP_HEAD || !is_over(queue, 1, body_size))
        return true;
    deliver_now(queue); /* what someone waits for is not in the way */
    return !is_over(queue, 1, body_size);
}

bool queue_reserve(struct queue *queue, uint64_t mark, uint64_t body_size)
{
    if (queue->reserve_mark != mark) {
        queue->reserve_mark = mark;
        queue->reserved = queue->reserved_bytes = 0;
    }
    queue->reserved++;
    queue->reserved_bytes += body_size;
    return queue->settings.overflow == OVERFLOW_DROP_HEAD ||
           !is_over(queue, queue->reserved, queue->reserved_bytes);
}

/* What can be handed out at once neither waits nor counts (11.3, 11.5); what is left of it, when it
 * is due or too much, goes. */
static void trim(struct queue *queue, bool due)
{
    deliver_now(queue);
    if (due)
        retire_all_due(queue);
    queue_drop_overflow(queue);
}

/* Even what is not persistent (12). */
static bool stores_all(const struct queue *queue)
{
    return queue->settings.quorum || queue->delayed_by != NULL;
}

/* It is there until its letter is made, for nobody; and so is on disk, if that takes more than this
 * turn. */
static void refuse_into_letter(struct queue *queue, struct message *message)
{
    const struct place place = window_push(window_for(queue, message), message);

    if (queue->durable && (message->persistent || stores_all(queue)))
        queue_store_entry(queue, place, deadline_of(queue, message));
    retire(queue, place, DEATH_MAXLEN);
}

static bool refuses(struct queue *queue, struct message *message)
{
    if (likely(queue_has_room(queue, message->body_size)))
        return false;
    if (queue->settings.overflow == OVERFLOW_REJECT_PUBLISH_DLX && queue->settings.dead_letters)
        refuse_into_letter(queue, message);
    return true;
}

bool queue_push(struct queue *queue, struct message *message)
{
    if (unlikely(refuses(queue, message)))
        return false;
    struct place place = window_push(window_for(queue, message), message);
    uint64_t deadline_ms = deadline_of(queue, message);

    queue->counters.published++;
    if (unlikely(deadline_ms != DEADLINE_NONE))
        expiry_add(&queue->expiry, place.segment, place.slot, deadline_ms);
    if (queue->durable && (message->persistent || stores_all(queue)))
        queue_store_entry(queue, place, deadline_ms);
    if (unlikely(message->body_size >= LARGE_BODY))
        paging_review(&queue->broker->paging);
    bool due = deadline_ms <= queue->broker->clock->now_ms;
    if (unlikely(due || is_over(queue, 0, 0)))
        trim(queue, due);
    queue_wake(queue);
    return true;
}

/* Who came first is served first with what was loaded; who finds nothing left of it waits for the
 * next read. */
static void serve_waiters(struct queue *queue)
{
    struct queue_waiter *waiter;
    struct place place;

    while ((waiter = TAILQ_FIRST(&queue->waiters)) != NULL && queue->returning == 0 &&
           first_ready(queue, &place) != WINDOW_ON_DISK) {
        queue_waiter_cancel(waiter);
        waiter->on_loaded(waiter);
    }
}

void queue_on_loaded(struct queue *queue)
{
    retire_all_due(queue);
    serve_waiters(queue);
    if (consumers_first(&queue->consumers) != NULL) /* else nothing more is read for them, either */
        deliver_now(queue);
    queue_drop_overflow(queue);
}

enum window_next queue_get(struct queue *queue, bool no_ack, struct place *place,
                           struct queue_waiter *waiter)
{
    struct message_counters *counters = &queue->broker->counters.messages;
    enum window_next next = queue->returning > 0 ? WINDOW_ON_DISK : first_ready(queue, place);

    queue_used(queue);
    if (next == WINDOW_ON_DISK) {
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
        window_take(place->segment->window, *place);
    } else {
        queue->broker->counters.got_empty++;
    }
    return next;
}

/* ---- settling ---- */

static void give_credit_back(struct consumer *consumer)
{
    if (consumer != NULL)
        consumer_settle(consumer);
}

void queue_ack(struct queue *queue, struct place place, struct consumer *consumer)
{
    queue->counters.acknowledged++;
    queue->broker->counters.messages.acknowledged++;
    queue_remove_entry(queue, place, REMOVE_SETTLED);
    give_credit_back(consumer);
}

void queue_discard(struct queue *queue, struct place place)
{
    queue_remove_entry(queue, place, REMOVE_SETTLED);
}

void queue_reject(struct queue *queue, struct place place, struct consumer *consumer)
{
    retire(queue, place, DEATH_REJECTED);
    give_credit_back(consumer);
}

/* ---- giving back ---- */

static void make_ready(struct queue *queue, struct place place)
{
    window_requeue(place.segment->window, place);
    expiry_resume(&queue->expiry, place.segment, place.slot);
}

static bool waits_for_retry(const struct queue *queue, bool failed)
{
    const struct settings *settings = &queue->settings;

    return settings->retry_type != RETRY_DISABLED && settings->retry_min_ms > 0 &&
           settings->retry_max_ms > 0 &&
           settings->retry_type != (failed ? RETRY_RETURNED : RETRY_FAILED);
}

/* One that has never failed waits as after its first failure. */
static void wait_for_retry(struct queue *queue, struct place place)
{
    const struct settings *settings = &queue->settings;
    const uint64_t now_ms = queue->broker->clock->now_ms;
    const uint64_t times = max_of(place_entry(place)->delivery_count, 1U);
    const uint64_t deadline_ms = expiry_deadline_of(place.segment, place.slot);
    const uint64_t due_ms = now_ms + min_of(settings->retry_min_ms * times, settings->retry_max_ms);

    if (queue->retries == NULL)
        queue->retries = retries_new(queue, &queue->broker->loop->timers, on_retries_due);
    retries_add(queue->retries, place, deadline_ms < due_ms ? deadline_ms + 1 : due_ms);
}

/* Nothing waits any more in a queue that was told not to let it. */
static void on_retries_due(struct timer *timer)
{
    struct queue *queue = container_of(timer, struct retries, timer)->queue;
    const uint64_t now_ms = queue->broker->clock->now_ms;
    const uint64_t due_ms = queue->settings.retry_type == RETRY_DISABLED ? UINT64_MAX : now_ms;
    struct place place;
    size_t left = RETIRE_AT_ONCE_MAX;

    while (left > 0 && retries_take(queue->retries, due_ms, &place)) {
        make_ready(queue, place);
        left--;
    }
    if (left == 0)
        timer_set(queue->retries->wheel, timer, now_ms);
    deliver_now(queue);
    queue_drop_overflow(queue);
}

static void note_overflow(struct queue *queue)
{
    if (queue->overfull || !is_over(queue, 0, 0))
        return;
    queue->overfull = true;
    STAILQ_INSERT_TAIL(&queue->broker->overfull, queue, by_overfull);
}

void queue_requeue(struct queue *queue, struct place place, struct consumer *consumer, bool failed)
{
    if (unlikely(queue->settings.quorum))
        delivery_count_add(place_entry(place), failed);
    if (queue->deleted) {
        queue_remove_entry(queue, place, REMOVE_DROPPED);
    } else if (unlikely(place_entry(place)->delivery_count > queue->settings.delivery_limit)) {
        retire(queue, place, DEATH_DELIVERY_LIMIT);
    } else if (unlikely(waits_for_retry(queue, failed))) {
        wait_for_retry(queue, place);
    } else {
        make_ready(queue, place);
        note_overflow(queue);
        queue_wake(queue);
    }
    give_credit_back(consumer);
}

void queues_drop_overflow(struct broker *broker)
{
    struct queue *queue;

    while ((queue = STAILQ_FIRST(&broker->overfull)) != NULL) {
        STAILQ_REMOVE_HEAD(&broker->overfull, by_overfull);
        queue->overfull = false;
        if (queue->settings.quorum)
            deliver_now(queue);
        queue_drop_overflow(queue);
    }
}

/* Returns whether the store has to hear of it. */
static bool drop_all_ready(struct queue *queue)
{
    bool stored = false;

    for (unsigned level = 0; level <= queue->level_max; level++)
        stored |= queue_drop_ready(queue, queue_window(queue, level));
    return stored;
}

uint64_t queue_purge(struct queue *queue, uint64_t *lsn)
{
    uint64_t count = queue_ready_count(queue);

    *lsn = drop_all_ready(queue) ? store_open_lsn(queue->broker->store) : 0;
    fault_point(FAULT_QUEUE_PURGED);
    return count;
}

/* ---- consumers ---- */

void queue_attach(struct queue *queue, struct consumer *consumer)
{
    assert(!queue->deleted && !queue->has_exclusive_consumer);
    consumer->queue = queue;
    queue->consumer_count++;
    timer_cancel(&queue->unused_timer);
    queue->has_exclusive_consumer = consumer->exclusive;
    consumer_join(consumer);
}

static void unlink_consumer(struct queue *queue, struct consumer *consumer)
{
    assert(consumer->queue == queue && queue->consumer_count > 0);
    consumer_leave(consumer);
    queue->consumer_count--;
    if (consumer->exclusive)
        queue->has_exclusive_consumer = false;
}

void queue_detach(struct queue *queue, struct consumer *consumer)
{
    unlink_consumer(queue, consumer);
    consumer_end(consumer);
    queue_used(queue);
    if (queue->auto_delete && queue->consumer_count == 0 && !queue->deleted)
        queue_delete(queue);
}

/* ---- x-expires, and all that a policy may change ---- */

void queue_used(struct queue *queue)
{
    if (queue->settings.expires_ms != SETTING_NONE && queue->consumer_count == 0 && !queue->deleted)
        timer_set(&queue->broker->loop->timers, &queue->unused_timer,
                  queue->broker->clock->now_ms + queue->settings.expires_ms);
}

void queue_apply_policies(struct queue *queue)
{
    const uint64_t expires_ms = queue->settings.expires_ms;

    read_settings(queue);
    if (queue->settings.expires_ms != expires_ms) {
        timer_cancel(&queue->unused_timer);
        queue_used(queue);
    }
    if (queue->outbox != NULL)
        outbox_try(queue->outbox);
    if (queue->retries != NULL)
        on_retries_due(&queue->retries->timer);
    queue_drop_overflow(queue);
}

static void on_unused(struct timer *timer)
{
    queue_delete(container_of(timer, struct queue, unused_timer));
}

/* ---- the end ---- */

static void queue_reap(struct task *task)
{
    struct queue *queue = container_of(task, struct queue, task);

    queue_unref(&queue);
}

static void dismiss_consumers(struct queue *queue)
{
    struct consumer *consumer;

    while ((consumer = TAILQ_FIRST(&queue->consumers.all)) != NULL) {
        unlink_consumer(queue, consumer);
        consumer->ops->on_queue_deleted(consumer);
        consumer_end(consumer);
    }
}

void queue_delete(struct queue *queue)
{
    struct broker *broker = queue->broker;

    assert(!queue->deleted && !queue->overfull);
    queue->deleted = true;
    if (queue->delayed_by == NULL) {
        map_remove(&queue->vhost->queues, &queue->by_name);
        broker->totals.queues--;
        broker->totals.octets -= queue->name.size + queue->arguments.size + size_of_others(queue);
    }
    if (queue->owner != NULL)
        TAILQ_REMOVE(&queue->owner->queues, queue, by_owner);
    vhost_drop_bindings_of_queue(queue->vhost, queue);

    timer_cancel(&queue->unused_timer);
    timer_cancel(&queue->read_timer);
    drop_all_ready(queue);
    retries_free(&queue->retries); /* the entries go with their windows */
    outbox_end(&queue->outbox);
    if (queue->durable) {
        map_remove(&broker->queues, &queue->by_id);
        definition_delete_queue(queue);
        queue_store_delete(queue);
        fault_point(FAULT_QUEUE_DELETED);
        if (fault_bug(FAULT_REUSE_QUEUE_ID) && queue->id + 1 == broker->next_queue_id)
            broker->next_queue_id--;
    }

    dismiss_consumers(queue);
    struct queue_waiter *waiter;
    while ((waiter = TAILQ_FIRST(&queue->waiters)) != NULL) {
        queue_waiter_cancel(waiter);
        waiter->on_loaded(waiter);
    }

    broker->counters.queues_deleted += queue->delayed_by == NULL;
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
    if (gone->delayed_by == NULL)
        map_remove(&gone->vhost->queues, &gone->by_name);
    if (gone->durable) {
        map_remove(&gone->broker->queues, &gone->by_id);
        queue_store_mark(gone);
    }
    timer_cancel(&gone->unused_timer);
    timer_cancel(&gone->read_timer);
    retries_free(&gone->retries);
    outbox_free(&gone->outbox);
    release_windows(gone);
    consumers_release(&gone->consumers);
    policy_set_release(&gone->policies);
    vhost_unref(&gone->vhost);
    free(gone);
}

void queue_owner_init(struct queue_owner *owner)
{
    TAILQ_INIT(&owner->queues);
}

void queue_owner_release(struct queue_owner *owner)
{
    struct queue *queue;

    while ((queue = TAILQ_FIRST(&owner->queues)) != NULL) {
        retire_all_due(queue); /* of what its owner has just given back, too (11.2) */
        queue_delete(queue);
    }
}
