/* A publisher: a connection and a buffer of whole publishes, made once. To publish is to write time
 * and number into the bodies of the next few of them and give the buffer to the socket, many at a
 * time:
 *
 *     blocks  | method, header, body | method, header, body | ...
 *                    ^ key's number          sent_ns, id
 *             [ unwritten ..............)      what the socket has not taken yet
 *
 * The buffer is stamped anew when all of it has been taken. With frames of one size, the key is
 * changed only where a publisher takes turns over queues.
 *
 * A publisher that can write is in the list of the active ones, and leaves it when the socket is
 * full, the confirm window is used up, nothing is due or its limit is reached. What ends each of
 * these puts it back. */
#ifndef TOOLS_STOATPERF_PUBLISHER_H
#define TOOLS_STOATPERF_PUBLISHER_H

#include "tools/stoatperf_meter.h"
#include "tools/stoatperf_topology.h"

enum { PUBLISHER_ID_SHIFT = 48 }; /* id: number of the publisher << 48 | number of the message */

/* When messages are due: one every interval_ns, of each publisher in turn. */
struct schedule {
    uint64_t start_ns;
    double interval_ns; /* 0: always */
    uint32_t publishers;
};

struct publisher {
    struct client client;
    uint32_t index;
    TAILQ_ENTRY(publisher) link; /* valid while active */
    bool active;
    struct publisher_list *list;
    const struct topology *topology;
    const struct schedule *schedule;
    struct meter *meter;
    uint8_t *scratch; /* for input, shared */

    uint8_t *blocks;
    size_t block_size, block_count;
    size_t key_at;          /* in a block: the queue's number at the end of the routing key */
    size_t body_at;         /* in a block: the body's first octet */
    uint32_t queue;         /* of the next message */
    struct slice unwritten; /* part of blocks */

    uint64_t sequence; /* number of the next message: how many have been published */
    uint64_t limit;    /* no more than so many */
    uint64_t due;      /* with a schedule: no more than so many yet */

    uint32_t window;    /* most unconfirmed; 0 without confirms */
    uint64_t settled;   /* how many have been confirmed or refused */
    uint64_t oldest;    /* all before this one are settled */
    uint64_t *sent_ns;  /* ring of those since oldest; 0 for one that is settled */
    uint64_t ring_size; /* a power of two */

    bool fence_wanted, fence_sent, fenced; /* publisher_fence */
};
TAILQ_HEAD(publisher_list, publisher);

/* Opens the connection; attached to epoll and not yet active. list, topology, schedule, meter and
 * scratch must outlive it. */
bool publisher_open(struct publisher *publisher, uint32_t index, const struct topology *topology,
                    int epoll, struct failure *failure);
void publisher_close(struct publisher *publisher);

void publisher_activate(struct publisher *publisher);

/* Publishes as many messages as one write takes. */
void publisher_turn(struct publisher *publisher);

/* Lets no more be published than have been. */
void publisher_stop(struct publisher *publisher);

/* Asks the broker for an answer behind the last message, once the limit is reached: fenced says
 * when it came. */
void publisher_fence(struct publisher *publisher);

/* The limit is reached, the last octet written and, with confirms, the last message settled. */
bool publisher_is_done(const struct publisher *publisher);

#endif
