/* Whose turn it is. Delivering costs the same with one consumer or a thousand: the first in turn is
 * asked, and goes behind its equals. Who has no room is in no line until it is woken.
 *
 *     consumers.lines[IN_TURN] ──▶ line of priority 9: a, b      ranks, by priority: whoever comes
 *         (a heap)            ├──▶ line of priority 3: c         finds its lines there
 *                             └──▶ line of priority 0: d, e
 *
 * A line is in the heap while somebody stands in it, so that what a peer makes of priorities costs
 * O(log n) when a line begins or ends, and nothing at all while it is the only one.
 *
 * A single active consumer keeps its place until it goes; then the one that has waited longest
 * follows. On a quorum queue priority comes before waiting, and one that is outranked gets nothing
 * more and hands over as soon as it holds nothing: it is idle until then. Without that all have the
 * same rank. */
#include "core/consumer.h"

#include "base/alloc.h"
#include "core/queue.h"

struct line {
    struct heap_link link; /* in consumers->lines, while there is anybody */
    struct consumer_list list;
};

/* Those of one priority. */
struct rank {
    struct map_link by_priority; /* in consumers->ranks */
    int64_t priority;
    uint32_t consumer_count; /* in whatever state; none: it is freed */
    struct line lines[CONSUMER_LINES];
};

void consumers_init(struct consumers *consumers, bool single_active, bool has_ranks)
{
    *consumers = (struct consumers){.single_active = single_active, .has_ranks = has_ranks};
    TAILQ_INIT(&consumers->all);
}

void consumers_release(struct consumers *consumers)
{
    assert(TAILQ_EMPTY(&consumers->all) && consumers->ranks.count == 0);
    map_release(&consumers->ranks);
}

/* ---- ranks ---- */

static struct rank *rank_new(struct consumers *consumers, int64_t priority)
{
    struct rank *rank = xcalloc(1, sizeof(*rank));

    rank->priority = priority;
    for (size_t i = 0; i < countof(rank->lines); i++)
        TAILQ_INIT(&rank->lines[i].list);
    map_insert_id(&consumers->ranks, &rank->by_priority, (uint64_t)priority);
    return rank;
}

static struct rank *find_rank(struct consumers *consumers, int64_t priority)
{
    struct map_link *link = map_find_id(&consumers->ranks, (uint64_t)priority);

    return link == NULL ? rank_new(consumers, priority)
                        : container_of(link, struct rank, by_priority);
}

static void join_rank(struct consumers *consumers, struct consumer *consumer)
{
    consumer->rank = find_rank(consumers, consumers->has_ranks ? consumer->priority : 0);
    consumer->rank->consumer_count++;
}

static void leave_rank(struct consumers *consumers, struct consumer *consumer)
{
    struct rank *rank = consumer->rank;

    consumer->rank = NULL;
    if (--rank->consumer_count > 0)
        return;
    map_remove(&consumers->ranks, &rank->by_priority);
    free(rank);
}

/* ---- lines ---- */

static struct consumer *first_of(const struct consumers *consumers, enum consumer_state state)
{
    struct heap_link *top = consumers->lines[state].top;

    return top == NULL ? NULL : TAILQ_FIRST(&container_of(top, struct line, link)->list);
}

static void enter(struct consumers *consumers, struct consumer *consumer, enum consumer_state state)
{
    consumer->state = state;
    if (state >= CONSUMER_LINES)
        return;
    struct line *line = &consumer->rank->lines[state];
    if (TAILQ_EMPTY(&line->list))
        heap_insert(&consumers->lines[state], &line->link, consumer->rank->priority);
    TAILQ_INSERT_TAIL(&line->list, consumer, by_line);
    consumers->first = first_of(consumers, CONSUMER_IN_TURN);
}

static void leave(struct consumers *consumers, struct consumer *consumer)
{
    if (consumer->state >= CONSUMER_LINES)
        return;
    struct line *line = &consumer->rank->lines[consumer->state];
    TAILQ_REMOVE(&line->list, consumer, by_line);
    if (TAILQ_EMPTY(&line->list))
        heap_remove(&consumers->lines[consumer->state], &line->link);
    consumers->first = first_of(consumers, CONSUMER_IN_TURN);
}

static void move(struct consumers *consumers, struct consumer *consumer, enum consumer_state state)
{
    leave(consumers, consumer);
    enter(consumers, consumer, state);
}

/* ---- the single active one ---- */

static bool is_outranked(const struct consumer *consumer)
{
    const struct consumer *first = first_of(&consumer->queue->consumers, CONSUMER_WAITING);

    return first != NULL && first->rank->priority > consumer->rank->priority;
}

/* The place is free: the first that waits for it, if any does, has it now. */
static void fill_place(struct consumers *consumers)
{
    consumers->active = first_of(consumers, CONSUMER_WAITING);
    if (consumers->active == NULL)
        return;
    move(consumers, consumers->active, CONSUMER_IN_TURN);
    queue_wake(consumers->active->queue);
}

/* The active one is outranked. */
static void step_down(struct consumers *consumers, struct consumer *active)
{
    leave(consumers, active);
    if (active->unacked_count > 0) {
        enter(consumers, active, CONSUMER_IDLE);
        return;
    }
    fill_place(consumers);
    enter(consumers, active, CONSUMER_WAITING);
}

/* ---- coming and going ---- */

void consumer_join(struct consumer *consumer)
{
    struct consumers *consumers = &consumer->queue->consumers;

    TAILQ_INSERT_TAIL(&consumers->all, consumer, by_queue);
    join_rank(consumers, consumer);
    if (consumers->active != NULL) {
        enter(consumers, consumer, CONSUMER_WAITING);
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

    move(consumers, consumer, CONSUMER_GONE);
    leave_rank(consumers, consumer);
    TAILQ_REMOVE(&consumers->all, consumer, by_queue);
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
    move(&consumer->queue->consumers, consumer, CONSUMER_IDLE);
}

void consumer_rotate(struct consumer *consumer)
{
    struct consumer_list *list = &consumer->rank->lines[CONSUMER_IN_TURN].list;

    TAILQ_REMOVE(list, consumer, by_line);
    TAILQ_INSERT_TAIL(list, consumer, by_line);
    consumer->queue->consumers.first = TAILQ_FIRST(list);
}
