/* See returns.h. */
#include "session/returns.h"

#include "base/alloc.h"
#include "core/broker.h"
#include "core/queue.h"

struct returned { /* what one channel had */
    STAILQ_ENTRY(returned) link;
    struct deliveries deliveries;
};

/* waited: and so their queues have waited for them. */
static void give_back(struct returns *returns, struct deliveries *deliveries, bool waited)
{
    struct delivery *delivery;

    returns->count += deliveries->count;
    while ((delivery = deliveries_oldest(deliveries)) != NULL) {
        struct delivery taken = deliveries_take(deliveries, delivery);
        queue_requeue(taken.queue, taken.place, taken.consumer, true);
        if (waited)
            queue_end_return(taken.queue);
        queue_unref(&taken.queue);
    }
    deliveries_release(deliveries);
    queues_drop_overflow(returns->broker);
}

static void give_back_first(struct returns *returns)
{
    struct returned *returned = STAILQ_FIRST(&returns->waiting);

    STAILQ_REMOVE_HEAD(&returns->waiting, link);
    give_back(returns, &returned->deliveries, true);
    free(returned);
}

static void on_turn(struct task *task)
{
    struct returns *returns = container_of(task, struct returns, task);

    returns->count = 0;
    while (!STAILQ_EMPTY(&returns->waiting) && returns->count < RETURNS_AT_ONCE)
        give_back_first(returns);
    if (returns->count > 0)
        loop_queue(returns->broker->loop, LOOP_INPUT, task);
}

void returns_init(struct returns *returns, struct broker *broker)
{
    *returns = (struct returns){.broker = broker, .task.run = on_turn};
    STAILQ_INIT(&returns->waiting);
}

void returns_release(struct returns *returns)
{
    while (!STAILQ_EMPTY(&returns->waiting))
        give_back_first(returns);
    loop_unqueue(returns->broker->loop, &returns->task);
}

static void each_queue_waits(struct deliveries *deliveries)
{
    for (struct delivery *delivery = deliveries_oldest(deliveries); delivery != NULL;
         delivery = deliveries_next(deliveries, delivery))
        queue_begin_return(delivery->queue);
}

void returns_add(struct returns *returns, struct deliveries *deliveries)
{
    if (deliveries->count == 0) {
        deliveries_release(deliveries);
        return;
    }
    if (STAILQ_EMPTY(&returns->waiting) && returns->count < RETURNS_AT_ONCE) {
        give_back(returns, deliveries, false);
    } else {
        struct returned *returned = xmalloc(sizeof *returned);
        returned->deliveries = *deliveries;
        deliveries_init(deliveries);
        STAILQ_INSERT_TAIL(&returns->waiting, returned, link);
        each_queue_waits(&returned->deliveries);
    }
    loop_queue(returns->broker->loop, LOOP_INPUT, &returns->task);
}
