/* A consumer: a subscription to one queue, as the queue sees it. What takes the message (a channel) is reached through
 * consumer_ops, filled in by session/. */
#ifndef CORE_CONSUMER_H
#define CORE_CONSUMER_H

#include "core/window.h"

struct queue;
struct consumer;

struct consumer_ops {
    /* Whether there is room beyond the consumer's own prefetch: the channel's limit, the connection's output. */
    bool (*may_take)(struct consumer *consumer);
    /* Hands over one entry, unacked in the window unless the consumer is no_ack, in which case it is removed right after the
     * call. The callee sends it, and keeps the place if it must be acknowledged. */
    void (*deliver)(struct consumer *consumer, struct place place);
    /* The queue is gone: the consumer is detached already; tell the client if it wants to know. */
    void (*on_queue_deleted)(struct consumer *consumer);
};

struct consumer {
    TAILQ_ENTRY(consumer)
    by_queue;            /* in queue->turn, the next to be served first, or in queue->idle */
    struct queue *queue; /* NULL once detached */
    bool idle;           /* found without room: in queue->idle until consumer_wake */
    const struct consumer_ops *ops;
    struct slice tag;       /* the session's bytes */
    struct slice arguments; /* likewise; a field table */
    bool no_ack, exclusive;
    uint16_t prefetch;      /* unacked deliveries allowed; 0: no limit */
    uint32_t unacked_count; /* kept by queue_deliver and the settling functions of queue.h */
};
TAILQ_HEAD(consumer_list, consumer);

/* It may have room again: takes its turn at the end. Harmless when it never was without, or is detached. */
void consumer_wake(struct consumer *consumer);

static inline bool consumer_has_credit(const struct consumer *consumer)
{
    return consumer->no_ack || consumer->prefetch == 0 ||
           consumer->unacked_count < consumer->prefetch;
}

#endif
