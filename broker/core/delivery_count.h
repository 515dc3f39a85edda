/* How often an entry was handed out in vain, in queues that count it: quorum queues (10.19).
 *
 *     acquired    hand-outs after which it came back, whatever the reason     header x-acquired-count
 *     delivered   those that failed: rejected to be requeued, or the          header x-delivery-count,
 *                 channel or connection was lost; not nack, not a timeout     and the delivery limit
 *
 * Headers are on deliveries only, and only when above 0; what is stored and dead-lettered is the
 * message as it was. The counts live in the entry, in memory: they begin anew when the broker does.
 * They stop at their highest value. */
#ifndef CORE_DELIVERY_COUNT_H
#define CORE_DELIVERY_COUNT_H

#include "core/window.h"

enum { ACQUIRED_COUNT_MAX = UINT16_MAX, DELIVERY_COUNT_MAX = INT16_MAX };

static inline void delivery_count_add(struct entry *entry, bool failed)
{
    if (entry->acquired_count < ACQUIRED_COUNT_MAX)
        entry->acquired_count++;
    if (failed && entry->delivery_count < DELIVERY_COUNT_MAX)
        entry->delivery_count++;
}

/* The entry's message with the headers above. The caller owns the reference. */
struct message *delivery_count_show(const struct entry *entry);

#endif
