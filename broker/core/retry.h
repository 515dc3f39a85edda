/* Delayed retry (11.8): what a consumer gave back to a quorum queue waits, longer after each
 * failure, before it is ready again.
 *
 *     queue_requeue ─▶ waits: its window has it as unacked, and no consumer holds it
 *                        └──(timer, by due time)─▶ ready, where it stands
 *
 * So it is counted as unacked, stays in memory, and a purge leaves it alone. A deadline that comes
 * first (11.1) ends the wait: the message expires then. Only memory knows who waits: after a
 * restart all of it is ready, as what was unacked is.
 *
 * A queue has one of these from the first message that waits; times are milliseconds of the
 * monotonic clock. */
#ifndef CORE_RETRY_H
#define CORE_RETRY_H

#include "core/window.h"

struct retry;

struct retries {
    struct retry *heap; /* the earliest first; of those due together, who came first */
    size_t count, capacity;
    uint64_t last_number; /* given to those that wait, in the order in which they come */
    struct queue *queue;
    struct wheel *wheel;
    struct timer timer; /* set to the earliest of all */
};

/* on_due is called when something is due; it calls retries_take until that answers false. */
struct retries *retries_new(struct queue *queue, struct wheel *wheel,
                            void (*on_due)(struct timer *timer));
void retries_free(struct retries **retries); /* the entries are the caller's; harmless when NULL */

void retries_add(struct retries *retries, struct place place, uint64_t due_ms);

/* The first of those that are due then, which waits no more. false, with the timer set: none is. */
bool retries_take(struct retries *retries, uint64_t now_ms, struct place *place);

#endif
