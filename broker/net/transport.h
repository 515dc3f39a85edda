/* A byte stream to one peer, whatever carries it: a socket, TLS, or memory in tests.
 *
 *   peer ──read──▶ loop scratch ──on_input──▶ owner ──transport_output──▶ chunks ──one write a turn──▶ peer
 *                      ▲   what on_input left over waits
 *                      └── in `input` and comes first next time
 *
 * Input. A transport reads at most LOOP_SCRATCH_SIZE bytes a turn into the loop's scratch buffer,
 * behind what was left over, and shows the whole to its owner, which takes what it can. That is the
 * input budget: a busy peer gets one read a turn like every other. While paused nothing is read and
 * nothing shown; whether the end of a peer is noticed is the owner's choice.
 *
 * Output. The owner appends to the tail buffer, or references bytes that it keeps alive; all of it
 * leaves in the turn's OUTPUT phase in as few writes as possible. Above the high-water mark, which
 * is the loop's output_max, the transport is *congested*: the owner should not add what can wait.
 * When the backlog has fallen to a quarter of it, on_drained says so. Whoever raises the mark tells
 * the owners of those with output himself. Buffers come from the loop's and go back when they are
 * sent: an idle transport owns no buffer.
 *
 * Pieces. What is appended after a call of transport_output is one piece, or several; shared bytes
 * are one with what was appended before them, and with the one octet that the owner appends next.
 * Between pieces output can be cut.
 *
 * End. The peer's end of file or a failed read or write is reported once by on_broken (from the
 * INPUT or OUTPUT phase); the owner then calls transport_close. After that no callback comes. What
 * is written to a transport that has broken or is closed goes nowhere. The struct is embedded in
 * its owner, which frees it in the REAP phase.
 *
 * Any callback may pause, resume, close or write to its transport. */
#ifndef NET_TRANSPORT_H
#define NET_TRANSPORT_H

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/buf.h"
#include "net/loop.h"

struct transport;

/* What carries the bytes. None of these waits; each returns a size or -errno, -EAGAIN when nothing
 * moves now. */
struct transport_ops {
    /* 0: end of file. -EINTR: nothing yet, and it will not be announced: there was more to do than
     * a turn has time for. A carrier that knows it has given its last byte clears transport->readable
     * itself, which saves the read that would say -EAGAIN. */
    ssize_t (*read)(struct transport *transport, void *bytes, size_t size);
    /* Takes fewer than offered only when it is full. It may spoil the parts. */
    ssize_t (*write)(struct transport *transport, struct iovec *parts, int count);
    void (*close)(struct transport *transport);
    /* See transport_untaken_size. */
    size_t (*untaken_size)(const struct transport *transport);
};

/* What the owner is told. */
struct transport_events {
    /* Bytes from the peer, oldest first; returns how many were taken. The slice dies on return. */
    size_t (*on_input)(struct transport *transport, struct slice bytes);
    void (*on_drained)(struct transport *transport);
    void (*on_broken)(struct transport *transport, int error); /* 0: the peer closed; else errno */
};

struct transport_chunk;
STAILQ_HEAD(transport_chunks, transport_chunk);

struct transport {
    const struct transport_ops *ops;
    const struct transport_events *events;
    void *carrier; /* the ops' own, if they need it */
    struct loop *loop;
    struct source source; /* of the plain socket; fd -1 for other carriers */
    struct task input_task, output_task;
    struct buf input;               /* left over by on_input */
    struct buf tail;                /* output being written; sealed into chunks when long */
    struct transport_chunks chunks; /* output before the tail, oldest first */
    size_t chunks_size;
    size_t begun;  /* the carrier has so many octets in hand already: it is offered them again */
    size_t share;  /* octets read in a turn, what was left over included */
    bool readable; /* EAGAIN not yet seen */
    bool writable;
    bool hung_up; /* the socket said that its end is near: read until it is there */
    bool paused;
    bool forsaken; /* paused, and hung up is broken off */
    bool resumed;  /* leftovers are to be shown before more is read */
    bool showing;  /* on_input is looking at bytes that must not be freed */
    bool congested;
    bool broken, closed;
    uint64_t octets_in, octets_out;
    uint64_t read_ms;  /* when bytes last came, by the loop's clock: a sign of life */
    uint64_t write_ms; /* when bytes last left */
};

enum {
    TRANSPORT_TAIL_ROOM = 16 * 1024 /* what fits behind the tail without growing it */
};

/* Over a connected non-blocking socket, which the transport owns from here; 0 or -errno (the socket
 * is closed then). */
int transport_open_socket(struct transport *transport, struct loop *loop,
                          const struct transport_events *events, int fd);

/* Over anything: for tests and TLS. The carrier is set afterwards, before the first wake. */
void transport_open(struct transport *transport, struct loop *loop,
                    const struct transport_events *events, const struct transport_ops *ops);

/* The carrier has become readable or writable (called by sources and by tests). */
void transport_wake(struct transport *transport, bool readable, bool writable);

struct buf *transport_output_slow(struct transport *transport);

/* Where the next output bytes go; append to it before any other call on the transport. Queues the
 * flush. There is room for TRANSPORT_TAIL_ROOM bytes; more makes it grow, which costs a copy. */
static inline struct buf *transport_output(struct transport *transport)
{
    if (likely(transport->output_task.queued &&
               transport->tail.capacity - transport->tail.end >= TRANSPORT_TAIL_ROOM))
        return &transport->tail;
    return transport_output_slow(transport);
}

/* Output by reference: bytes stay alive until done(owner) is called, exactly once, sent or not,
 * perhaps before this returns. done must not call the transport. */
void transport_output_shared(struct transport *transport, struct slice bytes,
                             void (*done)(void *owner), void *owner);

/* Writes what it can without waiting, and drops what remains, but for whole pieces at its start:
 * little more than one, unless the carrier has begun with more. They are copied: nothing shared is
 * referred to any more. */
void transport_cut_output(struct transport *transport);

/* Bytes accepted but not yet written to the carrier. */
static inline size_t transport_output_size(const struct transport *transport)
{
    return transport->chunks_size + buf_size(&transport->tail);
}

/* Octets that the carrier has accepted, and the peer's end has not acknowledged. It becomes less
 * while a slow peer reads, long before the carrier has room for more: a socket says that it has when
 * a third of what it holds is gone, of megabytes. */
static inline size_t transport_untaken_size(const struct transport *transport)
{
    return transport->ops->untaken_size(transport);
}

/* The same, of what has its socket in `source`: for carriers. */
size_t transport_untaken_by_socket(const struct transport *transport);

/* Above the high-water mark, and not yet below the low one again. */
static inline bool transport_is_congested(const struct transport *transport)
{
    return transport->congested || transport_output_size(transport) > transport->loop->output_max;
}

/* So many octets of input are at most with us at a time, at least a frame: less than
 * LOOP_SCRATCH_SIZE for who is not trusted yet. */
static inline void transport_set_share(struct transport *transport, size_t share)
{
    transport->share = min_of(share, (size_t)LOOP_SCRATCH_SIZE);
}

/* on_input returns as soon as it can, and is not called again. forsake: nobody waits for what is
 * unread, so that a peer that hangs up, or has done so, is broken off as if all had been read. A
 * pause may become one of the other kind. */
void transport_pause(struct transport *transport, bool forsake);
void transport_resume(struct transport *transport); /* leftovers first */

/* In the INPUT phase: what was to be read and shown in the next turn is so now. */
void transport_hurry(struct transport *transport);

/* Writes what it can without waiting, then closes. Harmless twice. */
void transport_close(struct transport *transport);

#endif
