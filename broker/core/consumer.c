/* Whose turn it is. Delivering costs the same with one consumer or a thousand: the first in turn is
 * asked, and goes behind its equals, which is the end of the list where all have one priority; with
 * several it passes those that come first. Who has no room leaves the list until it is woken.
 *
 * A single active consumer keeps its place until it goes; then the one that has waited longest
 * follows. On a quorum queue priority comes before waiting, and one that is outranked gets nothing
 * more and hands over as soon as it holds nothing: it is idle until then. */
#include "core/consumer.h"

#include "core/argument.h"
#include "core/queue.h"

void consumers_init(struct consumers *consumers, bool single_active)
{
    for (size_t i = 0; i < countof(consumers->lists); i++)
        TAILQ_INIT(&consumers->lists[i]);
    consumers->single_active = single_active;
    consumers->active = NULL;
}

/* Behind those of its own priority and of higher ones. */
static void insert_by_priority(struct consumer_list *list, struct consumer *consumer)
{
    struct consumer *next = TAILQ_LAST(list, consumer_list);

    if (likely(next == NULL || next->priority >= consumer->priority)) {
        TAILQ_INSERT_TAIL(list, consumer, by_queue);
        return;
    }
    next = TAILQ_FIRST(list);
    while (next->priority >= consumer->priority)
        next = TAILQ_NEXT(next, by_queue);
    TAILQ_INSERT_BEFORE(next, consumer, by_queue);
}

static void enter(struct consumers *consumers, struct consumer *consumer, enum consumer_state state)
{
    consumer->state = state;
    insert_by_priority(&consumers->lists[state], consumer);
}

static void move(struct consumers *consumers, struct consumer *consumer, enum consumer_state state)
{
    TAILQ_REMOVE(&consumers->lists[consumer->state], consumer, by_queue);
    enter(consumers, consumer, state);
}

/* ---- the single active one ---- */

static bool has_ranks(const struct queue *queue)
{
    return argument_queue_type(queue->arguments) == QUEUE_QUORUM;
}

static bool is_outranked(const struct consumer *consumer)
{
    const struct consumer *first = TAILQ_FIRST(&consumer->queue->consumers.lists[CONSUMER_WAITING]);

    return first != NULL && first->priority > consumer->priority && has_ranks(consumer->queue);
}

static void wait_for_place(struct consumers *consumers, struct consumer *consumer)
{
    if (has_ranks(consumer->queue)) {
        enter(consumers, consumer, CONSUMER_WAITING);
    } else {
        consumer->state = CONSUMER_WAITING;
        TAILQ_INSERT_TAIL(&consumers->lists[CONSUMER_WAITING], consumer, by_queue);
    }
}

/* The place is free: the first that waits for it, if any does, has it now. */
static void fill_place(struct consumers *consumers)
{
    consumers->active = TAILQ_FIRST(&consumers->lists[CONSUMER_WAITING]);
    if (consumers->active == NULL)
        return;
    move(consumers, consumers->active, CONSUMER_IN_TURN);
    queue_wake(consumers->active->queue);
}

/* The active one is outranked. */
static void step_down(struct consumers *consumers, struct consumer *active)
{
    if (active->unacked_count > 0) {
        move(consumers, active, CONSUMER_IDLE);
        return;
    }
    TAILQ_REMOVE(&consumers->lists[active->state], active, by_queue);
    fill_place(consumers);
    wait_for_place(consumers, active);
}

/* ---- coming and going ---- */

void consumer_join(struct consumer *consumer)
{
    struct consumers *consumers = &consumer->queue->consumers;

    if (consumers->active != NULL) {
        wait_for_place(consumers, consumer);
        if (is_outranked(consumers->active))
            step_down(consumers, consumers->active);
        return;
    }
    if (consumers->single_active)
        consumers->active = consumer;
    enter(consumers, consumer, CONSUMER_IN_TURN);
    queue_wake(consumer->queue);
}

void consumer_leave(struct consumer *consumer)
{
    struct consumers *consumers = &consumer->queue->consumers;

    TAILQ_REMOVE(&consumers->lists[consumer->state], consumer, by_queue);
    consumer->state = CONSUMER_GONE;
    consumer->queue = NULL;
    if (consumers->active == consumer)
        fill_place(consumers);
    else if (consumers->active != NULL)
        consumer_wake(consumers->active); /* this one may have outranked it */
}

void consumer_end(struct consumer *consumer)
{
    assert(consumer->state == CONSUMER_GONE);
    if (consumer->unacked_count == 0)
        consumer->ops->on_gone(consumer);
}

void consumer_wake(struct consumer *consumer)
{
    struct queue *queue = consumer->queue;

    assert(consumer->state != CONSUMER_GONE);
    if (consumer->state == CONSUMER_IDLE) {
        if (unlikely(is_outranked(consumer))) {
            step_down(&queue->consumers, consumer);
            return;
        }
        move(&queue->consumers, consumer, CONSUMER_IN_TURN);
    }
    queue_wake(queue);
}

void consumer_settled(struct consumer *consumer)
{
    if (unlikely(consumer->state == CONSUMER_GONE))
        consumer_end(consumer);
    else
        consumer_wake(consumer);
}

/* ---- taking turns ---- */

void consumer_rest(struct consumer *consumer)
{
    struct consumers *consumers = &consumer->queue->consumers;

    TAILQ_REMOVE(&consumers->lists[CONSUMER_IN_TURN], consumer, by_queue);
    TAILQ_INSERT_TAIL(&consumers->lists[CONSUMER_IDLE], consumer, by_queue);
    consumer->state = CONSUMER_IDLE;
}

void consumer_rotate(struct consumer *consumer)
{
    struct consumer_list *turn = &consumer->queue->consumers.lists[CONSUMER_IN_TURN];

    TAILQ_REMOVE(turn, consumer, by_queue);
    insert_by_priority(turn, consumer);
}
