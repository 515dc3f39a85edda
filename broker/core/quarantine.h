/* Messages that were damaged on disk: out of their queues, and kept for whoever wants to look at
 * what is left of them.
 *
 *     a read brings one ────────────────────────────────┐
 *     the store's check finds one ─▶ it is read alone ──┴─▶ one batch: delete it from its queue,
 *                                                             put what is left into the quarantine
 *
 * It leaves its queue as if acknowledged, so it counts there no more and nobody meets it again; the
 * delete is tied to the put, so after a crash it stands in one place or the other. Its neighbours
 * are not touched.
 *
 * To the store the quarantine is a queue like any other, whose id stands in a record of the
 * broker's own. An entry's body is the record of a message (core/message.h) that nobody gets, with
 *
 *     exchange     the vhost       properties   when, wall-clock ms u64 | its id in the store u64 |
 *     routing key  the queue                    position u64 | octets it had u32
 *     body         what is left of the record, OCTETS_MAX at most
 *
 * so that stoatdump shows it with the rest. It holds COUNT_MAX messages; those that come when it is
 * full are deleted and not kept. Only an operator takes anything out, and then all of it.
 *
 * The store reads back what is deleted until the delete is durable, so what has been set aside is
 * remembered until then: it is met in vain. */
#ifndef CORE_QUARANTINE_H
#define CORE_QUARANTINE_H

#include "base/map.h"
#include "core/message.h"
#include "store/array.h"
#include "store/store.h"

struct broker;
struct queue;

struct quarantined {
    uint64_t when_ms;          /* wall clock */
    uint64_t queue_id;         /* in the store, of the level it had */
    uint64_t position;         /* there */
    uint32_t size;             /* of its record; OCTETS_MAX of it are kept at most */
    struct slice vhost, queue; /* one block, at vhost.data */
};

struct quarantine {
    struct broker *broker;
    uint64_t id, next; /* in the store: its queue, 0 if there is none yet, and the next position */
    bool exists;       /* the store has that queue: its row may be lost, and the record not */
    ARRAY_OF(struct quarantined) items;
    struct map under_way; /* of struct set_aside: not durable, or met by reads that began before */
    uint64_t under_way_lsn; /* of the last */
    bool full_logged;
    struct store_fetch fetch; /* what it held at the start */
};

enum { QUARANTINE_COUNT_MAX = 1000, QUARANTINE_OCTETS_MAX = 16384 };

void quarantine_init(struct quarantine *quarantine, struct broker *broker);
void quarantine_release(struct quarantine *quarantine);

/* While the store is recovered. false: that is none of its own. */
bool quarantine_recover_record(struct quarantine *quarantine, struct slice key, struct slice value);
bool quarantine_recover_queue(struct quarantine *quarantine, const struct store_queue_state *state);

/* Sets an entry of the queue, which was read under that id and is durable, aside. false: it is
 * already. The caller takes it out of the window. */
bool quarantine_take(struct quarantine *quarantine, const struct queue *queue, uint64_t queue_id,
                     const struct store_fetched *fetched);

/* Whether it was, and may be read nevertheless. */
bool quarantine_has(const struct quarantine *quarantine, uint64_t queue_id, uint64_t position);

/* Empties it. The LSN for the answer to wait for; 0: it was empty. */
uint64_t quarantine_clear(struct quarantine *quarantine);

#endif
