/* A byte stream to one peer, whatever carries it: a socket, TLS, or memory in tests.
 *
 *   peer ──read──▶ loop scratch ──on_input──▶ owner ──transport_output──▶ chunks ──one writev a turn──▶ peer
 *                      ▲   what on_input left over waits
 *                      └── in `input` and comes first next time
 *
 * Input. A transport reads at most LOOP_SCRATCH_SIZE bytes a turn into the loop's scratch buffer, behind what was left over, and
 * shows the whole to its owner, which takes what it can. That is the input budget: a busy peer gets one read a turn like every
 * other. While paused nothing is read and nothing shown.
 *
 * Output. The owner appends to the tail buffer, or references bytes that it keeps alive; all of it leaves in the turn's OUTPUT phase
 * in as few writes as possible. Above the high-water mark the transport is *congested*: the owner should not add what can wait.
 * When the backlog has fallen below the low-water mark, on_drained says so. Buffers come from a pool of the loop's and
 * go back when they are sent: an idle transport owns no buffer.
 *
 * End. The peer's end of file or a failed read or write is reported once by on_broken (from the INPUT or OUTPUT phase); the owner then calls
 * transport_close. After that no callback comes. The struct is embedded in its owner, which frees it in the REAP phase. */
#ifndef NET_TRANSPORT_H
#define NET_TRANSPORT_H

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/buf.h"
#include "net/loop.h"

struct transport;

/* What carries the bytes. */
struct transport_ops {
    ssize_t (*read)(struct transport *transport, void *bytes,
                    size_t size); /* 0: end of file; -errno */
    ssize_t (*write)(struct transport *transport, const struct iovec *parts,
                     int count); /* -errno */
    void (*close)(struct transport *transport);
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
    struct loop *loop;
    struct source source; /* of the plain socket; fd -1 in memory */
    struct task input_task, output_task;
    struct buf input;               /* left over by on_input */
    struct buf tail;                /* output being written; sealed into chunks when long */
    struct transport_chunks chunks; /* output before the tail, oldest first */
    size_t chunks_size;
    bool readable; /* EAGAIN not yet seen */
    bool writable;
    bool paused;
    bool congested;
    bool broken, closed;
    uint64_t octets_in, octets_out;
    uint64_t read_ms;  /* when bytes last came, by the loop's clock: a sign of life */
    uint64_t write_ms; /* when bytes last left */
};

enum {
    TRANSPORT_HIGH_WATER = 1024 * 1024,
    TRANSPORT_LOW_WATER = 256 * 1024,
    TRANSPORT_CHUNK_SIZE = 64 * 1024
};

/* Over a connected non-blocking socket, which the transport owns from here; 0 or -errno (the socket is closed then). */
int transport_open_socket(struct transport *transport, struct loop *loop,
                          const struct transport_events *events, int fd);

/* Over anything: for tests and TLS. */
void transport_open(struct transport *transport, struct loop *loop,
                    const struct transport_events *events, const struct transport_ops *ops);

/* The carrier has become readable or writable (called by sources and by tests). */
void transport_wake(struct transport *transport, bool readable, bool writable);

/* Where the next output bytes go; append to it before any other call on the transport. Queues the flush. */
struct buf *transport_output(struct transport *transport);

/* Output by reference: bytes stay alive until done(owner) is called, exactly once, sent or not. */
void transport_output_shared(struct transport *transport, struct slice bytes,
                             void (*done)(void *owner), void *owner);

/* Bytes accepted but not yet written to the carrier. */
size_t transport_output_size(const struct transport *transport);

/* Above the high-water mark, and not yet below the low one again. */
static inline bool transport_is_congested(const struct transport *transport)
{
    return transport->congested ||
           transport->chunks_size + transport->tail.end - transport->tail.begin >
               TRANSPORT_HIGH_WATER;
}

void transport_pause(
    struct transport *transport); /* on_input returns as soon as it can, and is not called again */
void transport_resume(struct transport *transport); /* leftovers first */

/* Writes what it can without waiting, then closes. Harmless twice. */
void transport_close(struct transport *transport);

#endif
