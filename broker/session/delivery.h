/* The deliveries of a channel that wait to be acknowledged: from tag to queue entry.
 *
 * Tags rise by one per delivery, no-ack ones included, so the records, in order of tag, have gaps;
 * they stand in a ring, found by binary search, or at once when the oldest is asked for. A record
 * settled out of order stays as a hole until it reaches the front or until half of the ring is
 * holes, when they are squeezed out: one delivery that is never settled pins nothing but itself. */
#ifndef SESSION_DELIVERY_H
#define SESSION_DELIVERY_H

#include "core/consumer.h"
#include "core/window.h"

struct delivery {
    uint64_t tag;
    struct queue *queue; /* a counted reference; NULL: settled, a hole */
    struct place place;
    struct consumer *consumer; /* NULL: basic.get; it may be GONE */
    uint32_t due_s;            /* see consumer_timeout.h; 0: never */
    bool held;                 /* a settlement of it waits for tx.commit */
};

struct deliveries {
    struct delivery *ring;
    size_t capacity;    /* a power of two, or 0 */
    size_t begin, used; /* index of the oldest; records, holes included */
    size_t count;       /* without holes: what is unacked */
    uint64_t next_tag;
};

void deliveries_init(struct deliveries *deliveries);
void deliveries_release(struct deliveries *deliveries); /* must be empty */

/* A tag for a no-ack delivery. */
static inline uint64_t deliveries_skip(struct deliveries *deliveries)
{
    return deliveries->next_tag++;
}

/* Records a delivery and gives it the next tag. Takes a reference on the queue; consumer is NULL
 * for basic.get. */
uint64_t deliveries_add(struct deliveries *deliveries, struct queue *queue, struct place place,
                        struct consumer *consumer);

/* The record of this tag, or NULL; it stays where it is until the next call that adds or takes. */
struct delivery *deliveries_find(struct deliveries *deliveries, uint64_t tag);

/* The oldest and the youngest record, or NULL. */
struct delivery *deliveries_oldest(struct deliveries *deliveries);
struct delivery *deliveries_youngest(struct deliveries *deliveries);

/* The oldest record above this tag, or NULL. */
struct delivery *deliveries_after(struct deliveries *deliveries, uint64_t tag);

/* The next younger record after this one, or NULL. */
struct delivery *deliveries_next(struct deliveries *deliveries, struct delivery *delivery);

/* Takes the record out; its queue reference is the caller's now. */
struct delivery deliveries_take(struct deliveries *deliveries, struct delivery *delivery);

#endif
