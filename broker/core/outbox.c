#include "core/outbox.h"

#include "base/alloc.h"
#include "base/fault.h"
#include "base/log.h"
#include "core/queue_parts.h"
#include "core/queue_store.h"
#include "core/vhost.h"

/* What it leaves of a turn's budget: those that owe come after it. */
enum { KEPT_FOR_OTHERS = TURN_STEPS_MAX / 2 };

static void owe(struct outbox *outbox);

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
        if (outbox->retry_ms == 0)
            outbox->retry_ms = queue->broker->clock->now_ms + OUTBOX_RETRY_MS;
        return false;
    }
    fault_point(FAULT_LETTER_ROUTED);
    outbox->bytes -= message->body_size;
    queue_remove_entry(queue, outgoing->place, REMOVE_REPLACED);
    return true;
}

static void forget_failures(struct outbox *outbox)
{
    for (size_t i = 0; i < outbox->trying_count; i++)
        outbox->trying[i].tried = false;
    outbox->retry_ms = 0;
}

static void try_new(struct task *task)
{
    struct outbox *outbox = container_of(task, struct outbox, task);
    struct queue *queue = outbox->queue;
    struct broker *broker = queue->broker;
    const uint64_t now_ms = broker->clock->now_ms;
    bool more = true, any = false;
    size_t i = 0;

    if (!queue->settings.keeps_dead_letters) {
        owe(outbox);
        return;
    }
    if (now_ms >= outbox->retry_ms)
        forget_failures(outbox);
    while ((more = dead_letters_may_spend(broker, KEPT_FOR_OTHERS)) &&
           (fill(outbox), i < outbox->trying_count)) {
        any |= !outbox->trying[i].tried;
        if (outbox->trying[i].tried || !try_one(outbox, &outbox->trying[i]))
            i++;
        else
            forget_tried(outbox, i);
    }
    if (outbox_count(outbox) == 0)
        outbox->told = false;
    else if (more || any) /* by a timer: behind those who go on at once */
        timer_set(&broker->loop->timers, &outbox->timer, more ? outbox->retry_ms : now_ms);
    else
        loop_queue(broker->loop, LOOP_DEFERRED, task);
    queue_on_outbox_tried(queue);
}

static void go_on(struct outbox *outbox)
{
    if (!outbox->owes)
        loop_queue(outbox->queue->broker->loop, LOOP_DEFERRED, &outbox->task);
}

void outbox_try(struct outbox *outbox)
{
    forget_failures(outbox);
    go_on(outbox);
}

static void on_time(struct timer *timer)
{
    go_on(container_of(timer, struct outbox, timer));
}

/* ---- owing ---- */

/* It owes so many letters more, or fewer, of so many octets. */
static void count_owed(const struct outbox *outbox, int64_t count, int64_t bytes)
{
    struct dead_letters *letters = &outbox->queue->broker->dead_letters;

    letters->owed_count += (uint64_t)count;
    letters->owed_bytes += (uint64_t)bytes;
}

/* Not empty, and its queue does not keep dead letters until they are taken: as the first of all,
 * again if it owes already. */
static void owe(struct outbox *outbox)
{
    struct broker *broker = outbox->queue->broker;
    struct dead_letters *letters = &broker->dead_letters;

    if (outbox->owes) {
        TAILQ_REMOVE(&letters->owing, outbox, by_owing);
    } else if (outbox_count(outbox) > 0) {
        queue_ref(outbox->queue);
        count_owed(outbox, (int64_t)outbox_count(outbox), (int64_t)outbox->bytes);
        outbox->owes = true;
        outbox->since_turn = broker->loop->turns;
        timer_cancel(&outbox->timer);
    } else {
        return;
    }
    TAILQ_INSERT_HEAD(&letters->owing, outbox, by_owing);
    broker_touch_store(broker);
}

static void owe_no_more(struct outbox *outbox)
{
    struct dead_letters *letters = &outbox->queue->broker->dead_letters;

    assert(outbox->owes);
    outbox->owes = false;
    count_owed(outbox, -(int64_t)outbox_count(outbox), -(int64_t)outbox->bytes);
    TAILQ_REMOVE(&letters->owing, outbox, by_owing);
}

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

void outbox_send_one(struct outbox *outbox)
{
    struct queue *queue = outbox->queue;

    if (queue->settings.keeps_dead_letters && !queue->deleted) { /* from now on */
        owe_no_more(outbox);
        outbox_try(outbox);
        queue_unref(&queue);
        return;
    }
    const struct outgoing first = take_first(outbox);
    const uint32_t size = place_entry(first.place)->message->body_size;
    outbox->bytes -= size;
    count_owed(outbox, -1, -(int64_t)size);
    if (outbox_count(outbox) > 0) {
        dead_letter_send(queue, first.place, first.death);
        return;
    }
    owe_no_more(outbox);
    outbox_free(&queue->outbox);
    dead_letter_send(queue, first.place, first.death);
    if (!queue->deleted)
        queue_on_outbox_tried(queue);
    queue_unref(&queue);
}

/* ---- in and out ---- */

bool outbox_is_heavy(const struct outbox *outbox)
{
    return outbox != NULL &&
           (outbox_count(outbox) >= OUTBOX_HEAVY_COUNT || outbox->bytes >= OUTBOX_HEAVY_BYTES ||
            (outbox->owes &&
             outbox->queue->broker->dead_letters.owed_bytes >= LETTERS_HEAVY_BYTES));
}

void outbox_add(struct outbox **outbox, struct queue *queue, struct place place, enum death death)
{
    if (*outbox == NULL) {
        *outbox = xmalloc(sizeof(**outbox));
        **outbox = (struct outbox){.queue = queue, .task.run = try_new, .timer.on_expire = on_time};
    }
    if (segment_is_ready(place.segment, place.slot))
        window_set_aside(place.segment->window, place);
    const uint32_t size = place_entry(place)->message->body_size;
    (*outbox)->bytes += size;
    wait(*outbox, &(struct outgoing){.place = place, .death = death});
    if ((*outbox)->owes)
        count_owed(*outbox, 1, size);
    if (!queue->settings.keeps_dead_letters)
        owe(*outbox);
    else if (!(*outbox)->owes && (*outbox)->trying_count < OUTBOX_TRYING_MAX)
        loop_queue(queue->broker->loop, LOOP_DEFERRED, &(*outbox)->task);
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
    loop_unqueue(gone->queue->broker->loop, &gone->task);
    timer_cancel(&gone->timer);
    free(gone->waiting);
    free(gone);
}
