/* A carrier without a socket: the broker's transport on one side, a test on the other. What the
 * test sends is there to read at the transport's next INPUT phase; what the transport writes
 * collects in `received`. The test decides how much the carrier takes, how much it gives at once,
 * and when it breaks. No clock and no thread: it moves only in loop_turn.
 *
 *     struct memory_transport peer;
 *     transport_open(&connection->transport, loop, events, &memory_transport_ops);
 *     memory_transport_attach(&peer, &connection->transport);
 *     memory_transport_send(&peer, SLICE("AMQP\x00\x00\x09\x01"));
 *     loop_turn(loop, 0);
 *     ... buf_slice(&peer.received) ...
 * */
#ifndef TESTS_MEMORY_TRANSPORT_H
#define TESTS_MEMORY_TRANSPORT_H

#include "net/transport.h"

struct memory_transport {
    struct transport *transport; /* the broker's side; NULL once it was closed */
    struct buf sent;             /* by the test, not yet read by the transport */
    struct buf received;         /* written by the transport; the test consumes */
    size_t give_max;             /* bytes in one read; SIZE_MAX at first */
    size_t take_left; /* bytes it takes until it is full; SIZE_MAX at first: any number */
    size_t untaken;   /* of what it took, the test's side has not: as the test says */
    bool ended;       /* the test has closed its end */
    int error;        /* every read and write fails with it; 0: none */
    bool closed;      /* by the broker */
    uint64_t read_count, write_count; /* calls, those that moved nothing included */
};

extern const struct transport_ops memory_transport_ops;

/* Ties the two together, after transport_open. */
void memory_transport_attach(struct memory_transport *memory, struct transport *transport);
void memory_transport_release(
    struct memory_transport *memory); /* the transport is closed by then */

void memory_transport_send(struct memory_transport *memory, struct slice bytes);
void memory_transport_end(struct memory_transport *memory); /* end of file, behind what was sent */
void memory_transport_break(struct memory_transport *memory, int error);

/* From now on the carrier takes size more bytes; SIZE_MAX: any number. */
void memory_transport_take(struct memory_transport *memory, size_t size);

#endif
