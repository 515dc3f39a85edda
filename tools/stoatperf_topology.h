/* Queues, and who publishes to and consumes from which: all of it follows from a few numbers.
 *
 *     as many clients as queues, or more    client c has the queue c % queues
 *     fewer clients than queues             client c has the queues c, c + clients, c + 2 clients, ... and takes turns
 *     fan-out                               every message of every publisher goes to every queue
 *
 * A publisher numbers its messages 0, 1, 2, ...; the n-th of those that go to one queue has the
 * ordinal n there. */
#ifndef TOOLS_STOATPERF_TOPOLOGY_H
#define TOOLS_STOATPERF_TOPOLOGY_H

#include "tools/stoatperf_client.h"

enum { QUEUE_NAME_SIZE = 256, PREFIX_SIZE = 208 };

struct topology {
    const struct options *options;
    char prefix[PREFIX_SIZE];
    uint32_t digits;       /* of a queue's number, so that all names are equally long */
    struct client control; /* open only while it declares or deletes */
    bool declared;         /* there is something to delete */
};

void topology_init(struct topology *topology, const struct options *options);

/* Asks the broker who it is; declares and purges the queues, unless they are predeclared. */
bool topology_open(struct topology *topology, struct failure *failure,
                   struct broker_identity *identity);

/* Deletes what was declared, whatever happened in between. */
void topology_close(struct topology *topology);

/* The queue's name, in name; it ends in the queue's number, digits wide. */
struct slice topology_queue_name(const struct topology *topology, uint32_t queue,
                                 char name[QUEUE_NAME_SIZE]);

/* To which messages are published, with the queue's name as routing key. */
struct slice topology_exchange(const struct topology *topology);

/* How many queues the index-th of so many clients has; they are index % queues and every clients-th
 * after it. */
static inline uint32_t topology_queue_count(const struct topology *topology, uint32_t clients,
                                            uint32_t index)
{
    const uint32_t queues = topology->options->queues;
    return clients >= queues ? 1 : (queues - index + clients - 1) / clients;
}

/* Between how many queues a publisher takes turns. */
static inline uint32_t topology_turns(const struct topology *topology, uint32_t publisher)
{
    return topology->options->fan_out
               ? 1
               : topology_queue_count(topology, topology->options->publishers, publisher);
}

/* How many deliveries a message becomes. */
static inline uint32_t topology_copies(const struct topology *topology)
{
    return topology->options->fan_out ? topology->options->queues : 1;
}

#endif
