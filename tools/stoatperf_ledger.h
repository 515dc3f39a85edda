/* Which ordinals of one publisher's messages to one queue have come: all below `next`, and those of
 * a ring of bits ahead of it.
 *
 *       0 ............ next ........................ next + ring_size
 *       all have come |  1 0 0 1 1 0 ...  a bit each |
 *
 * In a run where nothing is lost or reordered, and with one consumer to the queue, the ring is
 * never made. */
#ifndef TOOLS_STOATPERF_LEDGER_H
#define TOOLS_STOATPERF_LEDGER_H

#include "base/base.h"

struct ledger {
    uint64_t next;  /* the least that has not come; its bit is clear */
    uint64_t ahead; /* how many above it have come */
    uint64_t *ring; /* NULL until one came too early; an ordinal's bit: ordinal % ring_size */
    uint64_t ring_size;
};

#define LEDGER_EMPTY ((struct ledger){0})

void ledger_release(struct ledger *ledger);

bool ledger_add_ahead(struct ledger *ledger, uint64_t ordinal);

/* Notes that it has come. False when it had before. The ring grows to hold the greatest: the caller
 * vouches that it is no greater than what was published. */
static inline bool ledger_add(struct ledger *ledger, uint64_t ordinal)
{
    if (likely(ordinal == ledger->next && ledger->ahead == 0)) {
        ledger->next++;
        return true;
    }
    return ledger_add_ahead(ledger, ordinal);
}

#endif
