/* How long a consumer may keep a delivery without settling it (10.20). There is no such limit
 * unless the consumer asks for one (argument x-consumer-timeout), else its queue does, else the
 * configuration (consumer_timeout); 0 is none.
 *
 *     delivery: due_s ──▶ the channel's timer, for the earliest ──▶ goes through all that the channel has unacked
 *                               ▲                                     │                        │
 *                               └────────── none is due ──────────────┘                        │ some are
 *                                                                                              ▼
 *       their consumers are cancelled, and all that these hold goes back to the queues, uncounted;
 *       a client that does not know basic.cancel from servers loses its channel
 *
 * What is due is so from a full second on, rounded up: no timeout is early, none more than a second
 * late, and a channel is gone through no more than once a second, however many consumers and
 * timeouts it has. What a transaction holds a settlement of is not waited for. */
#ifndef SESSION_CONSUMER_TIMEOUT_H
#define SESSION_CONSUMER_TIMEOUT_H

#include "session/subscription.h"

/* What applies to a consumer with these arguments, 0 for none; false: the argument is no number of
 * milliseconds. */
bool consumer_timeout_read(const struct channel *channel, const struct queue *queue,
                           struct slice arguments, uint64_t *timeout_ms, struct amqp_error *error);

/* The channel's youngest delivery is this consumer's, which has a timeout. */
void consumer_timeout_watch(struct subscription *subscription);

void on_consumer_timeout(struct timer *timer); /* channel->timeout */

#endif
