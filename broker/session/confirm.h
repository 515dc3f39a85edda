/* Publisher confirms of a channel: from sequence number to basic.ack.
 *
 * A publish is settled when nothing about it waits for the disk: at once if it was not to be stored; when the store says that its
 * batch is durable; or when every entry of it was acknowledged while its batch was still open. LSNs never fall from one publish to
 * the next, so what a durable LSN settles is a prefix:
 *
 *     base                                    next
 *     │ lsn 7 │ settled │ lsn 7 │ lsn 8 │ settled │
 *
 * Settled numbers leave once a turn: all below the first that still waits as one basic.ack with multiple, the rest one frame each (9.12).
 * Nothing is acknowledged anywhere else. */
#ifndef SESSION_CONFIRM_H
#define SESSION_CONFIRM_H

#include "core/message.h"
#include "core/parking.h"
#include "net/loop.h"

struct channel;

struct confirms {
    struct publisher publisher; /* what messages hold on to */
    struct channel *channel;    /* NULL once the channel is gone */
    uint64_t *
        ring; /* of LSNs: what a number waits for; a settled one is CONFIRM_SETTLED or CONFIRM_SENT */
    size_t capacity; /* a power of two, or 0 */
    uint64_t base,
        next; /* numbers in [base, next) are in the ring; below base all are acknowledged */
    uint64_t early_count;            /* settled above base, not yet sent */
    uint64_t early_first, early_end; /* where to look for them */
    struct parked parked;
    struct task task; /* sends what has been settled in this turn */
};

#define CONFIRM_SETTLED UINT64_MAX
#define CONFIRM_SENT    (UINT64_MAX - 1)

struct confirms *confirms_new(struct channel *channel);
void confirms_close(struct confirms **confirms); /* the channel is gone */

/* A publish begins: its number, 1 for the first. */
uint64_t confirms_begin(struct confirms *confirms);

/* It was routed: it waits for lsn, or for nothing (0). */
void confirms_wait(struct confirms *confirms, uint64_t sequence, uint64_t lsn);

#endif
