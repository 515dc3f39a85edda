/* Whether every message came once and in order. What was seen is kept per queue and publisher; the
 * order is asked of each consumer for itself, since consumers that share a queue are read one after
 * the other. */
#ifndef TOOLS_STOATPERF_VERIFY_H
#define TOOLS_STOATPERF_VERIFY_H

#include "tools/stoatperf_ledger.h"
#include "tools/stoatperf_publisher.h"

struct verify {
    const struct topology *topology;
    const struct publisher *publishers; /* how much each has published says what can come */
    uint32_t feeders;                   /* most publishers that a queue has */
    struct ledger *ledgers;             /* [queue][feeder]; NULL when nothing is verified */
    uint64_t *expected;                 /* [line][feeder]: the least ordinal that is in order */

    uint64_t distinct;   /* deliveries of what had not come before */
    uint64_t duplicated; /* that had */
    uint64_t reordered;  /* behind a later one */
    uint64_t invented;   /* never published, or not to that queue */
};

/* publishers and topology must outlive it. */
void verify_init(struct verify *verify, const struct topology *topology,
                 const struct publisher *publishers);
void verify_release(struct verify *verify);

void verify_delivery(struct verify *verify, uint32_t consumer, const struct delivery *delivery);

/* How many deliveries are still missing of all that was published. */
uint64_t verify_lost(const struct verify *verify);

#endif
