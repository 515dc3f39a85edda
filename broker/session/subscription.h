/* A consumer, as its channel sees it: the tag under which the client knows it, and how a message
 * reaches the wire. */
#ifndef SESSION_SUBSCRIPTION_H
#define SESSION_SUBSCRIPTION_H

#include "core/consumer.h"
#include "session/channel.h"

struct subscription {
    struct consumer consumer;
    struct map_link by_tag;  /* in channel->consumers */
    struct channel *channel; /* NULL once it has left */
    uint64_t timeout_ms;     /* 0: none: see consumer_timeout.h */
    uint64_t overdue_ms;     /* when it was cancelled for it, by the loop's clock; 0: it was not */
    uint8_t *bytes;          /* tag, then arguments; NULL once it has left: what stays until its
                              * deliveries are settled takes no more than they do */
};

struct subscription_options {
    struct slice tag;       /* not empty, not in use on the channel */
    struct slice arguments; /* a checked field table */
    bool no_ack, exclusive;
    uint16_t prefetch;
    uint64_t timeout_ms;
};

/* Joins the channel and the queue; deliveries begin in this turn's DEFERRED phase. */
struct subscription *subscription_new(struct channel *channel, struct queue *queue,
                                      const struct subscription_options *options);

struct subscription *subscription_find(struct channel *channel, struct slice tag); /* or NULL */

/* The broker's decision: tells a client that wants to know (10.10), and frees it. */
void subscription_cancel(struct subscription **subscription);

/* Leaves both; what is unacked stays with the channel (10.9), and it is freed with the last of that.
 * An auto-delete queue may go with its last consumer. */
void subscription_free(struct subscription **subscription);

#endif
