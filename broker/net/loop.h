/* The event loop: one thread, one turn after another, always in the same order.
 *
 *     poll ─ INPUT ─ timers ─ DEFERRED ─ STORE ─ OUTPUT ─ REAP ─┐
 *      ▲                                                        │
 *      └────────────────────────────────────────────────────────┘
 *
 * INPUT     transports that have bytes are read, their owners parse and act
 * DEFERRED  queues hand their ready messages to consumers
 * STORE     what the turn changed is handed to the store as one batch
 * OUTPUT    what the turn wrote leaves, one gathered write a connection
 * REAP      what ended is freed: until here no function can find its own object gone
 *
 * A phase is a list of tasks. A task queued for a phase that this turn has not reached yet runs in
 * this turn; one queued for the current or an earlier phase runs in the next, which then polls
 * without waiting. That is all: "durable before confirmed" and "freed last" are properties of the
 * order, not of the handlers.
 *
 * File descriptors are watched edge-triggered: a source remembers that it is ready until it has
 * seen EAGAIN. */
#ifndef NET_LOOP_H
#define NET_LOOP_H

#include <sys/epoll.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/wheel.h"

enum loop_phase { LOOP_INPUT, LOOP_DEFERRED, LOOP_STORE, LOOP_OUTPUT, LOOP_REAP, LOOP_PHASES };

struct task {
    TAILQ_ENTRY(task) link;
    /* The task is no longer queued then, and may queue itself again or be freed. */
    void (*run)(struct task *task);
    uint8_t phase; /* valid while queued */
    bool queued;
};
TAILQ_HEAD(task_list, task);

/* Something with a file descriptor. */
struct source {
    int fd;
    bool wants_output; /* to be told when it becomes writable, too */
    void (*on_ready)(struct source *source, uint32_t events); /* EPOLLIN, EPOLLOUT, EPOLLHUP ... */
};

enum {
    LOOP_SCRATCH_SIZE = 256 * 1024,
    LOOP_OUTPUT_MAX = 1024 * 1024, /* unless output_max is set otherwise */
    LOOP_EVENTS_MAX = 256,         /* fetched in one turn; the rest come in the next */
    LOOP_BUFFER_SIZE = 64 * 1024,
    LOOP_BUFFERS_MAX = 64 /* at rest; more are freed */
};

struct loop {
    struct clock *clock;
    struct wheel timers;
    struct task_list phases[LOOP_PHASES];
    int epoll_fd;
    bool stopping;
    uint64_t turns;

    struct epoll_event
        events[LOOP_EVENTS_MAX]; /* this turn's, from event_next on not yet delivered */
    int event_next, event_count;

    /* What all transports share, because each needs it for a moment only. */
    uint8_t *scratch;  /* LOOP_SCRATCH_SIZE bytes into which every transport reads */
    size_t output_max; /* octets that may wait to be written to a peer; see transport.h */
    uint8_t *buffers[LOOP_BUFFERS_MAX]; /* at rest, LOOP_BUFFER_SIZE bytes each */
    size_t buffer_count;
    struct buf sink; /* takes what is written to a transport that has ended */
};

int loop_init(struct loop *loop, struct clock *clock); /* 0 or -errno */
void loop_release(struct loop *loop); /* nothing may be watched or queued any more */

/* Queues the task, once; queueing a task that is queued already changes nothing. */
void loop_queue(struct loop *loop, enum loop_phase phase, struct task *task);
void loop_unqueue(struct loop *loop, struct task *task); /* nothing happens when it is not queued */

/* Watches source->fd until unwatched. 0 or -errno. */
int loop_watch(struct loop *loop, struct source *source);

/* Before the descriptor is closed. Events already fetched for the source in this turn are not
 * delivered either. */
void loop_unwatch(struct loop *loop, struct source *source);

/* One turn: waits at most wait_ms for events (less when a timer or task is due; UINT64_MAX: as long
 * as it takes). All of a turn happens at one moment of the clock; a timer may be late by as long as
 * the turn before took. */
void loop_turn(struct loop *loop, uint64_t wait_ms);

/* Turns until loop_stop. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* An empty buf of LOOP_BUFFER_SIZE bytes; and back, whatever it has become meanwhile: *buf is
 * BUF_EMPTY then. */
struct buf loop_take_buffer(struct loop *loop);
void loop_give_buffer(struct loop *loop, struct buf *buf);

#endif
