/* A consumer: a connection that consumes from one queue, or from several when there are fewer
 * consumers than queues. The consumer tag is the queue's number. */
#ifndef TOOLS_STOATPERF_CONSUMER_H
#define TOOLS_STOATPERF_CONSUMER_H

#include "tools/stoatperf_verify.h"

struct consumer {
    struct client client;
    uint32_t index;
    const struct topology *topology;
    struct meter *meter;
    struct verify *verify; /* NULL: nothing is verified */
    uint8_t *scratch;      /* for input, shared */

    uint32_t queues_awaited; /* consume-ok is still to come for so many */
    uint32_t unacked;        /* deliveries since the last ack; less than the batch */
    uint64_t last_tag;       /* of the last delivery */
    uint64_t run_ns, run;    /* so many deliveries with this due time are not recorded yet */
};

/* Opens the connection and sets the prefetch; attached to epoll, and idle. topology, meter, verify
 * and scratch must outlive it. */
bool consumer_open(struct consumer *consumer, uint32_t index, const struct topology *topology,
                   int epoll, struct failure *failure);
void consumer_close(struct consumer *consumer);

/* Begins to consume. */
bool consumer_start(struct consumer *consumer);

/* Acknowledges what an unfilled batch holds. */
void consumer_settle(struct consumer *consumer);

#endif
