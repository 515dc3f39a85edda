/* How long a consumer may keep a delivery without settling it (10.20). There is no such limit
 * unless the consumer asks for one (argument x-consumer-timeout), else its queue does, else the
 * configuration (consumer_timeout); 0 is none.
 *
 *     delivery ──▶ timer, once for all deliveries of the consumer ──▶ the oldest is too old: all go back to the queue, uncounted, and
 *                    ▲                              │                  the consumer is cancelled; a client that does not know
 *                    └── it is settled or younger ──┘                  basic.cancel from servers loses its channel
 *
 * A delivery is noted in seconds, rounded up: no timeout is early, none more than a second late.
 * What a transaction holds a settlement of is not waited for. */
#ifndef SESSION_CONSUMER_TIMEOUT_H
#define SESSION_CONSUMER_TIMEOUT_H

#include "session/subscription.h"

/* What applies to a consumer with these arguments, 0 for none; false: the argument is no number of
 * milliseconds. */
bool consumer_timeout_read(const struct channel *channel, const struct queue *queue,
                           struct slice arguments, uint64_t *timeout_ms, struct amqp_error *error);

/* The channel's youngest delivery is this consumer's, which has a timeout. */
void consumer_timeout_watch(struct subscription *subscription);

void on_consumer_timeout(struct timer *timer);

#endif
