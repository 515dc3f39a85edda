#include "core/outbox.h"

#include "base/alloc.h"
#include "base/fault.h"
#include "base/log.h"
#include "core/queue_parts.h"
#include "core/queue_store.h"
#include "core/vhost.h"

enum { TRIES_PER_TURN = 4096 };

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

/* As many as there is room for are tried from now on. */
static void fill(struct outbox *outbox)
{
    while (outbox->waiting_count > 0 && outbox->trying_count < OUTBOX_TRYING_MAX) {
        outbox->trying[outbox->trying_count++] = outbox->waiting[outbox->waiting_first];
        outbox->waiting_first = (outbox->waiting_first + 1) % outbox->waiting_capacity;
        outbox->waiting_count--;
    }
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
    const uint64_t size = message->body_size;

    if (queue->settings.keeps_dead_letters) {
        const char *why = dead_letter_publish(queue, message, outgoing->death);
        if (why != NULL) {
            say_why(outbox, why);
            outgoing->tried = true;
            return false;
        }
        fault_point(FAULT_LETTER_ROUTED);
        queue_remove_entry(queue, outgoing->place, REMOVE_REPLACED);
    } else {
        queue_let_go(queue, outgoing->place, outgoing->death);
    }
    outbox->bytes -= size;
    return true;
}

static void try_new(struct task *task)
{
    struct outbox *outbox = container_of(task, struct outbox, task);
    struct queue *queue = outbox->queue;
    size_t left = TRIES_PER_TURN, i = 0;

    while (left > 0 && (fill(outbox), i < outbox->trying_count)) {
        if (outbox->trying[i].tried || !try_one(outbox, &outbox->trying[i])) {
            i++;
            continue;
        }
        outbox->trying_count--;
        memmove(&outbox->trying[i], &outbox->trying[i + 1],
                (outbox->trying_count - i) * sizeof(outbox->trying[0]));
        left--;
    }
    if (outbox->trying_count == 0)
        outbox->told = false;
    else if (left == 0 || !timer_is_set(&outbox->timer))
        timer_set(&queue->broker->loop->timers, &outbox->timer,
                  queue->broker->clock->now_ms + (left == 0 ? 0 : OUTBOX_RETRY_MS));
    queue_on_outbox_tried(queue);
}

void outbox_try(struct outbox *outbox)
{
    for (size_t i = 0; i < outbox->trying_count; i++)
        outbox->trying[i].tried = false;
    loop_queue(outbox->queue->broker->loop, LOOP_DEFERRED, &outbox->task);
}

static void on_retry(struct timer *timer)
{
    outbox_try(container_of(timer, struct outbox, timer));
}

/* ---- in and out ---- */

void outbox_add(struct outbox **outbox, struct queue *queue, struct place place, enum death death)
{
    if (*outbox == NULL) {
        *outbox = xmalloc(sizeof(**outbox));
        **outbox =
            (struct outbox){.queue = queue, .task.run = try_new, .timer.on_expire = on_retry};
    }
    if (segment_is_ready(place.segment, place.slot))
        window_set_aside(place.segment->window, place);
    (*outbox)->bytes += place_entry(place)->message->body_size;
    wait(*outbox, &(struct outgoing){.place = place, .death = death});
    if ((*outbox)->trying_count < OUTBOX_TRYING_MAX)
        loop_queue(queue->broker->loop, LOOP_DEFERRED, &(*outbox)->task);
}

void outbox_free(struct outbox **outbox)
{
    struct outbox *gone = *outbox;

    *outbox = NULL;
    if (gone == NULL)
        return;
    loop_unqueue(gone->queue->broker->loop, &gone->task);
    timer_cancel(&gone->timer);
    free(gone->waiting);
    free(gone);
}
