/* Replies that wait for the store: one mechanism for all of them. Every positive reply about
 * something durable is parked on the LSN of the batch that carries it, and released when the store
 * says that this LSN survives a crash.
 *
 * Most LSNs are the same for all. Only while the store is full is there a difference between what
 * is durable of definitions and deletes, and of entries: who answers for entries says so. */
#ifndef CORE_PARKING_H
#define CORE_PARKING_H

#include "base/base.h"

TAILQ_HEAD(parked_list, parked);

struct parked { /* embedded in whoever waits */
    TAILQ_ENTRY(parked) link;
    uint64_t lsn;
    bool entries;             /* set before: it answers for entries put under that LSN */
    struct parked_list *list; /* in which it waits; NULL: it does not */
    void (*on_durable)(struct parked *parked); /* no longer parked then; may park again */
};

struct parking {
    struct parked_list waiting, for_entries; /* lowest LSN first */
    uint64_t durable;                        /* the highest LSN that survives */
    uint64_t durable_entries;                /* the same with all entries; never above it */
};

static inline bool parked_waits(const struct parked *parked)
{
    return parked->list != NULL;
}

void parking_init(struct parking *parking, uint64_t durable);

/* Parks until lsn is durable; lsn must not be durable yet. */
void parking_wait(struct parking *parking, struct parked *parked, uint64_t lsn);
void parking_cancel(struct parked *parked); /* nothing happens when it does not wait */

/* The store has reached these: releases what waited for them, those that wait for entries last; in
 * LSN order, first parked first. */
void parking_release(struct parking *parking, uint64_t durable, uint64_t durable_entries);

/* Nothing is left in the open batch, lsn, which may hold what was refused of those before it, and
 * none is under way: releases what waits for any of them, as there is nothing to wait for. Those
 * LSNs are not durable by that: who still waits for one after this call waits for what is added
 * later. */
void parking_release_empty(struct parking *parking, uint64_t lsn);

#endif
