/* Looks at every row of a store, and says what does not add up. Nothing is changed.
 *
 *     record   checksums                              gone     belongs to a segment
 *     queue    counters against the entries           trim     can be read
 *     index    its queue and its blob are there       sparse   agrees with its live row
 *     live     counters against the holders' entries; every living body's checksum
 *     blob     its live row is there                  meta     sums over all blobs
 *
 * It goes in steps, each in whatever snapshot it is given, so that a broker can check its store
 * behind its clients; what is compared is compared within one step. The sums alone need one
 * snapshot for all steps. */
#ifndef STORE_VERIFY_H
#define STORE_VERIFY_H

#include "store/damage.h"
#include "store/database.h"

struct verify {
    const struct database *database;
    MDB_txn *txn; /* of the step */
    bool one_snapshot;

    void *context;
    void (*on_finding)(void *context, const char *text);
    void (*on_damage)(void *context, const struct damage *damage); /* what it is about; or NULL */
    /* What a record holds is its owner's to judge; NULL: nobody does. false: it cannot be read. */
    bool (*is_sound)(struct slice key, struct slice value);

    unsigned phase;
    uint8_t last[DAMAGE_KEY_MAX]; /* the key looked at last in this phase */
    size_t last_size;             /* 0: none yet */

    uint64_t records, queues, segments, entries, blobs, body_bytes;
    uint64_t size, sparse; /* of blobs */
    uint64_t findings;
    int rc; /* 0 or LMDB's error, which ended it */
};

void verify_begin(struct verify *verify, const struct database *database,
                  void (*on_finding)(void *context, const char *text), void *context);

/* How many entries need the blob, and what they cost. false: nobody knows, its holders cannot be
 * read. */
bool verify_count_blob(const struct database *database, MDB_txn *txn, uint64_t blob,
                       uint64_t *entries, uint64_t *alive);

/* Goes on for about so long in this snapshot. false: it is done. */
bool verify_step(struct verify *verify, MDB_txn *txn, uint64_t duration_ns);

#endif
