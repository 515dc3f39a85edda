/* The deliveries of a channel that wait to be acknowledged: from tag to queue entry.
 *
 * Tags rise by one per delivery, no-ack ones included, so the records, in order of tag, have gaps; they stand in a ring, found by
 * binary search, or at once when the oldest is asked for. A record settled out of order stays as a hole until it reaches the front
 * or until half of the ring is holes, when they are squeezed out: one delivery that is never settled pins nothing but itself. */
#ifndef SESSION_DELIVERY_H
#define SESSION_DELIVERY_H

#include "core/consumer.h"
#include "core/window.h"

struct delivery {
    uint64_t tag;
    struct queue *queue; /* a counted reference; NULL: settled, a hole */
    struct place place;
    struct consumer *consumer; /* NULL: basic.get, or the consumer is gone */
};

struct deliveries {
    struct delivery *ring;
    size_t capacity;    /* a power of two, or 0 */
    size_t begin, used; /* index of the oldest; records including holes */
    size_t count;       /* without holes: deliveries unacked */
    uint64_t next_tag;
};

void deliveries_init(struct deliveries *deliveries);
void deliveries_release(struct deliveries *deliveries); /* must be empty */

uint64_t deliveries_skip(struct deliveries *deliveries); /* a tag for a no-ack delivery */
uint64_t deliveries_add(struct deliveries *deliveries, struct queue *queue, struct place place,
                        struct consumer *consumer);

/* Takes out the record of this tag; false if there is none. The queue reference is the caller's now. */
bool deliveries_take(struct deliveries *deliveries, uint64_t tag, struct delivery *out);

/* Takes out the oldest if its tag is at most `last`. */
bool deliveries_take_oldest(struct deliveries *deliveries, uint64_t last, struct delivery *out);
/* Takes out the youngest: requeueing goes from young to old. */
bool deliveries_take_youngest(struct deliveries *deliveries, struct delivery *out);

bool deliveries_has(const struct deliveries *deliveries, uint64_t tag);

/* The consumer is gone: its deliveries stay, without it (10.9). */
void deliveries_forget_consumer(struct deliveries *deliveries, const struct consumer *consumer);

#endif
