#include "core/outbox.h"

#include "base/alloc.h"
#include "base/fault.h"
#include "base/log.h"
#include "core/queue_parts.h"
#include "core/queue_store.h"
#include "core/vhost.h"

/* ---- in which list it is, and what that owes ---- */

static struct dead_letters *letters_of(const struct outbox *outbox)
{
    return &outbox->queue->broker->dead_letters;
}

/* It owes so many letters more, or fewer: of so many octets. */
static void count_owed(struct outbox *outbox, int64_t count, int64_t bytes)
{
    struct dead_letters *letters = letters_of(outbox);

    letters->owed_count += (uint64_t)count;
    letters->owed_bytes += (uint64_t)bytes;
    if (outbox->list == &letters->storm) {
        letters->storm_count += (uint64_t)count;
        letters->storm_bytes += (uint64_t)bytes;
    }
}

static void leave(struct outbox *outbox)
{
    struct dead_letters *letters = letters_of(outbox);

    if (outbox->list == NULL)
        return;
    if (outbox->list == &letters->storm) {
        letters->storm_count -= outbox_count(outbox);
        letters->storm_bytes -= outbox->bytes;
    }
    TAILQ_REMOVE(outbox->list, outbox, link);
    outbox->list = NULL;
}

static void join_last(struct outbox *outbox, struct outboxes *list)
{
    leave(outbox);
    TAILQ_INSERT_TAIL(list, outbox, link);
    outbox->list = list;
    broker_touch_store(outbox->queue->broker);
}

static void join_first(struct outbox *outbox, struct outboxes *list)
{
    struct dead_letters *letters = letters_of(outbox);

    leave(outbox);
    TAILQ_INSERT_HEAD(list, outbox, link);
    outbox->list = list;
    if (list == &letters->storm) {
        letters->storm_count += outbox_count(outbox);
        letters->storm_bytes += outbox->bytes;
    }
    broker_touch_store(outbox->queue->broker);
}

/* Not empty, and its queue does not keep dead letters until they are taken. */
static void owe(struct outbox *outbox)
{
    struct dead_letters *letters = letters_of(outbox);

    if (!outbox->owes && outbox_count(outbox) == 0) {
        leave(outbox);
        return;
    }
    if (!outbox->owes) {
        leave(outbox);
        timer_cancel(&outbox->timer);
        queue_ref(outbox->queue);
        outbox->owes = true;
        outbox->since_turn = outbox->queue->broker->loop->turns;
        count_owed(outbox, (int64_t)outbox_count(outbox), (int64_t)outbox->bytes);
    }
    if (letters->is_making || dead_letters_storm_is_heavy(letters))
        join_first(outbox, &letters->storm);
    else if (!letters->take_turns)
        join_first(outbox, &letters->turns);
    else if (outbox->list != &letters->turns)
        join_last(outbox, &letters->turns);
}

static void owe_no_more(struct outbox *outbox)
{
    assert(outbox->owes);
    leave(outbox);
    count_owed(outbox, -(int64_t)outbox_count(outbox), -(int64_t)outbox->bytes);
    outbox->owes = false;
}

/* ---- how heavy it is ---- */

static bool is_too_heavy(const struct outbox *outbox)
{
    return outbox_count(outbox) >= OUTBOX_HEAVY_COUNT || outbox->bytes >= OUTBOX_HEAVY_BYTES ||
           (outbox->owes && letters_of(outbox)->owed_bytes >= LETTERS_HEAVY_BYTES);
}

static bool is_light(const struct outbox *outbox)
{
    return outbox_count(outbox) == 0 ||
           (outbox_count(outbox) <= OUTBOX_HEAVY_COUNT / 2 &&
            outbox->bytes <= OUTBOX_HEAVY_BYTES / 2 &&
            (!outbox->owes || letters_of(outbox)->owed_bytes <= LETTERS_HEAVY_BYTES / 2));
}

/* One of so many octets has been taken out. True: it is light again by that. */
static bool lighten(struct outbox *outbox, uint32_t body_size)
{
    const bool was_heavy = outbox->is_heavy;

    outbox->bytes -= body_size;
    if (outbox->owes)
        count_owed(outbox, -1, -(int64_t)body_size);
    outbox->is_heavy &= !is_light(outbox);
    return was_heavy && !outbox->is_heavy;
}

/* ---- those that wait ---- */

static void wait(struct outbox *outbox, const struct outgoing *outgoing)
{
    const size_t capacity = outbox->waiting_capacity;

    if (outbox->waiting_count == capacity) {
        const size_t first = outbox->waiting_first, wrapped = capacity - first;
        const size_t larger = max_of((size_t)OUTBOX_TRYING_MAX, 2 * capacity);
        outbox->waiting = xrealloc(outbox->waiting, larger, sizeof(*outbox->waiting));
        memmove(outbox->waiting + larger - wrapped, outbox->waiting + first,
                wrapped * sizeof(*outbox->waiting));
        outbox->waiting_first = (larger - wrapped) % larger;
        outbox->waiting_capacity = larger;
    }
    outbox->waiting[(outbox->waiting_first + outbox->waiting_count++) % outbox->waiting_capacity] =
        *outgoing;
}

static struct outgoing take_waiting(struct outbox *outbox)
{
    const struct outgoing first = outbox->waiting[outbox->waiting_first];

    outbox->waiting_first = (outbox->waiting_first + 1) % outbox->waiting_capacity;
    outbox->waiting_count--;
    return first;
}

/* As many as there is room for are tried from now on. */
static void fill(struct outbox *outbox)
{
    while (outbox->waiting_count > 0 && outbox->trying_count < OUTBOX_TRYING_MAX)
        outbox->trying[outbox->trying_count++] = take_waiting(outbox);
}

static void forget_tried(struct outbox *outbox, size_t i)
{
    outbox->trying_count--;
    memmove(&outbox->trying[i], &outbox->trying[i + 1],
            (outbox->trying_count - i) * sizeof(outbox->trying[0]));
}

/* ---- trying ---- */

static void say_why(struct outbox *outbox, const char *why)
{
    const struct queue *queue = outbox->queue;

    if (!outbox->told)
        log_warning("queue '%.*s' in vhost '%.*s': dead letters stay in it, to be tried again: %s",
                    SLICE_ARG(queue->name), SLICE_ARG(queue->vhost->name), why);
    outbox->told = true;
}

/* Whether it is gone. */
static bool try_one(struct outbox *outbox, struct outgoing *outgoing)
{
    struct queue *queue = outbox->queue;
    struct message *message = place_entry(outgoing->place)->message;
    const char *why = dead_letter_publish(queue, message, outgoing->death);

    if (why != NULL) {
        say_why(outbox, why);
        outgoing->tried = true;
        return false;
    }
    fault_point(FAULT_LETTER_ROUTED);
    return true;
}

/* Of as many as there are places for; trying_count: none is left. */
static size_t first_untried(struct outbox *outbox)
{
    size_t i = 0;

    fill(outbox);
    while (i < outbox->trying_count && outbox->trying[i].tried)
        i++;
    return i;
}

/* The next letter, and then it is others' turn, or all have been tried. */
static void try_next(struct outbox *outbox)
{
    struct queue *queue = outbox->queue;
    struct broker *broker = queue->broker;
    const size_t i = first_untried(outbox);
    bool lighter = false;

    if (i < outbox->trying_count && try_one(outbox, &outbox->trying[i])) {
        const struct place place = outbox->trying[i].place;
        forget_tried(outbox, i);
        lighter = lighten(outbox, place_entry(place)->message->body_size);
        queue_remove_entry(queue, place, REMOVE_REPLACED);
    }
    if (first_untried(outbox) < outbox->trying_count) {
        join_last(outbox, &broker->dead_letters.trying);
        if (lighter)
            queue_on_outbox_tried(queue);
        return;
    }
    leave(outbox);
    if (outbox_count(outbox) == 0)
        outbox->told = false;
    else if (!timer_is_set(&outbox->timer))
        timer_set(&broker->loop->timers, &outbox->timer, broker->clock->now_ms + OUTBOX_RETRY_MS);
    queue_on_outbox_tried(queue);
}

/* New ones are there, or those that were tried have a new chance. */
static void go_on_trying(struct outbox *outbox)
{
    if (outbox->list == NULL)
        join_last(outbox, &letters_of(outbox)->trying);
}

void outbox_try(struct outbox *outbox)
{
    for (size_t i = 0; i < outbox->trying_count; i++)
        outbox->trying[i].tried = false;
    go_on_trying(outbox);
}

static void on_retry(struct timer *timer)
{
    outbox_try(container_of(timer, struct outbox, timer));
}

/* ---- owing ---- */

void outbox_abandon(struct outbox *outbox)
{
    struct queue *queue = outbox->queue;

    owe_no_more(outbox);
    outbox_free(&queue->outbox);
    queue_unref(&queue);
}

/* What may have been tried before, and then what waits. */
static struct outgoing take_first(struct outbox *outbox)
{
    if (outbox->trying_count == 0)
        return take_waiting(outbox);
    const struct outgoing first = outbox->trying[0];
    forget_tried(outbox, 0);
    return first;
}

/* The queue keeps them from now on. */
static void keep_them(struct outbox *outbox)
{
    struct queue *queue = outbox->queue;

    owe_no_more(outbox);
    outbox_try(outbox);
    queue_unref(&queue);
}

static void send_last(struct outbox *outbox, const struct outgoing *last)
{
    struct queue *queue = outbox->queue;

    owe_no_more(outbox);
    outbox_free(&queue->outbox);
    dead_letter_send(queue, last->place, last->death);
    if (!queue->deleted)
        queue_on_outbox_tried(queue);
    queue_unref(&queue);
}

/* The first; and then it is others' turn, if they take turns. */
static void send_next(struct outbox *outbox)
{
    struct queue *queue = outbox->queue;
    struct dead_letters *letters = &queue->broker->dead_letters;
    const struct outgoing first = take_first(outbox);
    const bool lighter = lighten(outbox, place_entry(first.place)->message->body_size);

    if (outbox_count(outbox) == 0) {
        send_last(outbox, &first);
        return;
    }
    if (outbox->list == &letters->turns && letters->take_turns)
        join_last(outbox, &letters->turns);
    dead_letter_send(queue, first.place, first.death);
    if (lighter && !queue->deleted)
        queue_on_outbox_tried(queue);
}

void outbox_make_one(struct outbox *outbox)
{
    const struct queue *queue = outbox->queue;
    const bool keeps = queue->settings.keeps_dead_letters && !queue->deleted;

    if (outbox->owes && keeps)
        keep_them(outbox);
    else if (outbox->owes)
        send_next(outbox);
    else if (keeps)
        try_next(outbox);
    else
        owe(outbox);
}

/* ---- in and out ---- */

void outbox_add(struct outbox **outbox, struct queue *queue, struct place place, enum death death)
{
    if (*outbox == NULL) {
        *outbox = xmalloc(sizeof(**outbox));
        **outbox = (struct outbox){.queue = queue, .timer.on_expire = on_retry};
    }
    if (segment_is_ready(place.segment, place.slot))
        window_set_aside(place.segment->window, place);
    (*outbox)->bytes += place_entry(place)->message->body_size;
    wait(*outbox, &(struct outgoing){.place = place, .death = death});
    if ((*outbox)->owes)
        count_owed(*outbox, 1, place_entry(place)->message->body_size);
    if (!queue->settings.keeps_dead_letters)
        owe(*outbox);
    else if ((*outbox)->trying_count < OUTBOX_TRYING_MAX)
        go_on_trying(*outbox);
    (*outbox)->is_heavy |= is_too_heavy(*outbox);
}

void outbox_end(struct outbox **outbox)
{
    if (*outbox != NULL && !(*outbox)->owes)
        outbox_free(outbox);
}

void outbox_free(struct outbox **outbox)
{
    struct outbox *gone = *outbox;

    *outbox = NULL;
    if (gone == NULL)
        return;
    assert(!gone->owes);
    leave(gone);
    timer_cancel(&gone->timer);
    free(gone->waiting);
    free(gone);
}
