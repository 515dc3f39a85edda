/* Publisher confirms of a channel: from sequence number to basic.ack.
 *
 * A publish is settled when nothing about it waits for the disk: at once if it was not to be
 * stored; when the store says that its batch is durable; or when every entry of it was acknowledged
 * while its batch was still open. LSNs never fall from one publish to the next, so what a durable
 * LSN settles is a prefix:
 *
 *     base                                    next
 *     │ lsn 7 │ settled │ lsn 7 │ lsn 8 │ settled │
 *
 * Settled numbers leave once a turn: all below the first that still waits as one basic.ack with
 * multiple, the rest one frame each (9.12). Nothing is acknowledged anywhere else. */
#ifndef SESSION_CONFIRM_H
#define SESSION_CONFIRM_H

#include "core/message.h"
#include "core/parking.h"
#include "net/loop.h"

struct channel;

struct confirms {
    struct publisher publisher; /* what messages hold on to */
    struct channel *channel;    /* NULL once the channel is gone */
    uint64_t *ring;             /* what a number waits for: an LSN, or one of the two below */
    size_t capacity;            /* a power of two, or 0 */
    uint64_t base, next; /* numbers in [base, next) are in the ring; all below are acknowledged */
    uint64_t early_first, early_end; /* numbers settled since the last flush lie in this range */
    struct parked parked;            /* on the LSN that the number at base waits for */
    struct task task;                /* the flush, in the STORE phase */
};

#define CONFIRM_SETTLED UINT64_MAX       /* waits for nothing; not yet acknowledged */
#define CONFIRM_REFUSED (UINT64_MAX - 1) /* a queue refused it (9.11); basic.nack not yet sent */
#define CONFIRM_SENT    (UINT64_MAX - 2) /* answered ahead of its turn */

struct confirms *confirms_new(struct channel *channel);
void confirms_close(struct confirms **confirms); /* the channel is gone */

/* A publish was routed: it waits for lsn, or for nothing (0). Returns its number, 1 for the
 * first. */
uint64_t confirms_add(struct confirms *confirms, uint64_t lsn);

/* A publish was routed, and a queue refused it. */
void confirms_refuse(struct confirms *confirms);

/* Numbers not yet acknowledged. */
static inline uint64_t confirms_waiting(const struct confirms *confirms)
{
    return confirms->next - confirms->base;
}

#endif
