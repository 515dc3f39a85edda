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
 * A phase is a list of tasks. A task queued for a phase that this turn has not reached yet runs in this turn; one queued for the
 * current or an earlier phase runs in the next, which then polls without waiting. That is all: "durable before confirmed" and
 * "freed last" are properties of the order, not of the handlers.
 *
 * File descriptors are watched edge-triggered: a source remembers that it is ready until it has seen EAGAIN. */
#ifndef NET_LOOP_H
#define NET_LOOP_H

#include <sys/epoll.h>

#include "base/clock.h"
#include "base/wheel.h"

enum loop_phase { LOOP_INPUT, LOOP_DEFERRED, LOOP_STORE, LOOP_OUTPUT, LOOP_REAP, LOOP_PHASES };

struct task {
    TAILQ_ENTRY(task) link;
    void (*run)(
        struct task
            *task); /* the task is no longer queued then, and may queue itself again or be freed */
    uint8_t phase;  /* valid while queued */
    bool queued;
};
TAILQ_HEAD(task_list, task);

/* Something with a file descriptor. */
struct source {
    int fd;
    void (*on_ready)(struct source *source, uint32_t events); /* EPOLLIN, EPOLLOUT, EPOLLHUP ... */
};

struct buf_pool;

struct loop {
    struct clock *clock;
    struct wheel timers;
    struct task_list phases[LOOP_PHASES];
    int epoll_fd;
    bool stopping;
    uint64_t turns;
    uint8_t *scratch;      /* LOOP_SCRATCH_SIZE bytes into which every transport reads */
    struct buf_pool *pool; /* output buffers at rest, shared by all transports (transport.c) */
};

enum { LOOP_SCRATCH_SIZE = 256 * 1024 };

int loop_init(struct loop *loop, struct clock *clock); /* 0 or -errno */
void loop_release(struct loop *loop);

/* Queues the task, once; queueing a task that is queued already changes nothing. */
void loop_queue(struct loop *loop, enum loop_phase phase, struct task *task);
void loop_unqueue(struct loop *loop, struct task *task); /* nothing happens when it is not queued */

/* Watches source->fd for both directions until unwatched. 0 or -errno. */
int loop_watch(struct loop *loop, struct source *source);
void loop_unwatch(
    struct loop *loop,
    struct source *source); /* before the descriptor is closed; events already fetched for it
                                                                in this turn are not delivered either */

/* One turn: waits at most wait_ms for events (less when a timer or task is due; UINT64_MAX: as long as it takes). */
void loop_turn(struct loop *loop, uint64_t wait_ms);

/* Turns until loop_stop. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

#endif
