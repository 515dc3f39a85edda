/* Replies that wait for the store: one mechanism for all of them. Every positive reply about
 * something durable is parked on the LSN of the batch that carries it, and released when the store
 * says that this LSN survives a crash. */
#ifndef CORE_PARKING_H
#define CORE_PARKING_H

#include "base/base.h"

struct parked { /* embedded in whoever waits */
    TAILQ_ENTRY(parked) link;
    uint64_t lsn;
    bool waiting;
    void (*on_durable)(struct parked *parked); /* no longer parked then; may park again */
};
TAILQ_HEAD(parked_list, parked);

struct parking {
    struct parked_list waiting; /* lowest LSN first */
    uint64_t durable;           /* the highest LSN that survives */
};

void parking_init(struct parking *parking, uint64_t durable);

/* Parks until lsn is durable; lsn must not be durable yet. */
void parking_wait(struct parking *parking, struct parked *parked, uint64_t lsn);
void parking_cancel(struct parking *parking,
                    struct parked *parked); /* nothing happens when it does not wait */

/* The store has reached durable: releases what waited for it, in LSN order, first parked first. */
void parking_release(struct parking *parking, uint64_t durable);

/* Nothing is left in the open batch, lsn, and all before it are durable: releases what waits for
 * it, as there is nothing to wait for. The LSN is not durable by that: who still waits for it after
 * this call waits for what is added later. */
void parking_release_empty(struct parking *parking, uint64_t lsn);

#endif
