/* A consumer: a subscription to one queue, as the queue sees it. What takes the message (a channel)
 * is reached through consumer_ops, filled in by session/.
 *
 *            consumer_join                        found without room
 *     ────────────────────────▶ IN_TURN ◀─────────────────────────▶ IDLE
 *          │                       ▲ │        consumer_wake           │
 *          │ another is active     │ └──────────────┐                 │
 *          └────────▶ WAITING ─────┘ its turn       └── outranked ────┘
 *                                                                            nothing is unacked
 *     any of them ── consumer_leave: cancelled, or its queue is gone ──▶ GONE ───────────────▶ on_gone
 *
 * Those in turn stand in order of priority, and the first is served; equals take turns, one message
 * each (10.7). WAITING are those of a queue with x-single-active-consumer, all but one (10.11).
 *
 * What it was given and has not settled outlives its subscription (10.9), and points to it; so it
 * stays until the last of that is settled, and leaving costs the same however much it holds. */
#ifndef CORE_CONSUMER_H
#define CORE_CONSUMER_H

#include "base/heap.h"
#include "base/map.h"
#include "core/window.h"

struct queue;
struct consumer;

struct consumer_ops {
    /* Whether there is room beyond the consumer's own prefetch: the channel's limit, the
     * connection's output. */
    bool (*may_take)(struct consumer *consumer);
    /* Hands over one entry, unacked in the window unless the consumer is no_ack, in which case it
     * is removed right after the call. The callee sends it, and keeps the place if it must be
     * acknowledged. */
    void (*deliver)(struct consumer *consumer, struct place place);
    /* The queue is gone: the consumer is detached already; tell the client if it wants to know. */
    void (*on_queue_deleted)(struct consumer *consumer);
    /* It has left, and nothing that it was given is unacked: nobody points to it any more. */
    void (*on_gone)(struct consumer *consumer);
};

enum consumer_state {
    CONSUMER_IN_TURN,
    CONSUMER_WAITING,
    CONSUMER_LINES, /* those before this one stand in line, these do not: */
    CONSUMER_IDLE = CONSUMER_LINES,
    CONSUMER_GONE
};

struct consumer {
    TAILQ_ENTRY(consumer) by_queue; /* in consumers->all */
    TAILQ_ENTRY(consumer) by_line;  /* while its state has one */
    struct queue *queue;            /* NULL once it is gone */
    struct rank *rank;              /* likewise */
    enum consumer_state state;
    const struct consumer_ops *ops;
    struct slice tag;       /* the session's bytes */
    struct slice arguments; /* likewise; a field table */
    int64_t priority;       /* x-priority */
    bool no_ack, exclusive;
    uint16_t prefetch;      /* unacked deliveries allowed; 0: no limit */
    uint32_t unacked_count; /* kept by queue_deliver and the settling functions of queue.h */
};
TAILQ_HEAD(consumer_list, consumer);

/* Those of a queue: see consumer.c. */
struct consumers {
    struct consumer *first;            /* of those in turn: who is served next, or NULL */
    struct heap lines[CONSUMER_LINES]; /* of each state the line of the highest priority first */
    struct map ranks;                  /* by priority */
    struct consumer_list all;          /* as they came */
    bool single_active;
    bool has_ranks;          /* x-priority counts */
    struct consumer *active; /* the one that is, when single_active */
};

void consumers_init(struct consumers *consumers, bool single_active, bool has_ranks);
void consumers_release(struct consumers *consumers); /* must be empty */
static inline struct consumer *consumers_first(const struct consumers *consumers)
{
    return consumers->first;
}

/* consumer->queue is set. */
void consumer_join(struct consumer *consumer);
/* Its place may go to another. */
void consumer_leave(struct consumer *consumer);
/* It has left and everybody knows: ends it, unless it holds something. */
void consumer_end(struct consumer *consumer);

/* It may have room again: takes its turn behind its equals. Harmless when it never was without. */
void consumer_wake(struct consumer *consumer);

/* Something that it was given is settled: it has room again, or may end. */
void consumer_settled(struct consumer *consumer); /* one that is not in turn */
static inline void consumer_settle(struct consumer *consumer)
{
    assert(consumer->unacked_count > 0);
    consumer->unacked_count--;
    if (consumer->state != CONSUMER_IN_TURN)
        consumer_settled(consumer);
}

static inline bool consumer_has_credit(const struct consumer *consumer)
{
    return consumer->no_ack || consumer->prefetch == 0 ||
           consumer->unacked_count < consumer->prefetch;
}

void consumer_rest(struct consumer *consumer);   /* in turn, but without room: idle */
void consumer_rotate(struct consumer *consumer); /* behind its equals */

/* Whose turn it is, or NULL; those without room become idle. */
static inline struct consumer *consumers_next(const struct consumers *consumers)
{
    struct consumer *consumer;

    while ((consumer = consumers_first(consumers)) != NULL) {
        if (likely(consumer_has_credit(consumer) && consumer->ops->may_take(consumer)))
            return consumer;
        consumer_rest(consumer);
    }
    return NULL;
}

/* The first in turn got a message: its equals come first now. */
static inline void consumer_served(struct consumer *consumer)
{
    if (TAILQ_NEXT(consumer, by_line) != NULL)
        consumer_rotate(consumer);
}

#endif
