/* What channels had unacked when they ended, on its way back to its queues (6.5).
 *
 *     channel ends ─▶ returns_add ─┬─▶ queue_requeue, the oldest delivery first
 *                                  └─▶ waiting, a channel after the other ─▶ the same, in a later turn
 *
 * The channels of a connection end together, many connections at once when a network fails, and
 * each may hold unacked_max_per_channel. So a turn begins with no further channel once
 * RETURNS_AT_ONCE deliveries have gone back. All that one channel held goes back in one turn, and
 * limits of queues are looked at when it is back. Until then its queues hand out nothing: no
 * consumer is given what stood behind it before it is there. While it waits it is what it was,
 * unacked: it can be purged or deleted with its queue no earlier and no later than before. */
#ifndef SESSION_RETURNS_H
#define SESSION_RETURNS_H

#include "net/loop.h"
#include "session/delivery.h"

enum { RETURNS_AT_ONCE = 20000 };

struct returns {
    struct broker *broker;
    STAILQ_HEAD(returns_waiting, returned) waiting; /* the longest first */
    size_t count;     /* deliveries that have gone back since the task ran */
    struct task task; /* queued while anything waits, or count is not 0 */
};

void returns_init(struct returns *returns, struct broker *broker);

/* Before the broker ends: what still waits goes back now. */
void returns_release(struct returns *returns);

/* Takes all deliveries, and what they stand in: the caller's are empty and hold no memory. Their
 * consumers have left, and are freed with the last of them. */
void returns_add(struct returns *returns, struct deliveries *deliveries);

#endif
