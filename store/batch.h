/* The operations of one turn or more, in the order they were added: what becomes one transaction.
 *
 * A batch belongs to the owner while it is open and to the store thread while it is under way;
 * there are two, which change places. Adding costs nanoseconds: plain arrays, one per kind, whose
 * memory stays for the next round.
 *
 * The kinds need no order between each other. Ids and positions are never used twice, entries are
 * deleted only in a later batch than they were put, and whoever deletes a queue is done with it: so
 * applying creates, deletes, ranges, puts, drops in that order is the same as applying them as they
 * came. Records alone may be overwritten, and keep their order.
 *
 * A body counts the entries that still want it. One that nobody wants is not written, and is handed
 * back at once.
 *
 * While there is no room (store.h) a batch comes back refused, and what was added meanwhile joins
 * it:
 *
 *     under way, lsn 7: puts, deletes  ──refused──┐
 *     open,      lsn 8: puts, deletes  ───────────┴─▶ open, lsn 7..8 ──carved──▶ lean, lsn 8: deletes
 *                                                          │                     open, lsn 7..9: puts
 *
 * The numbers of entries and bodies run on from batch to batch, so they stay good when batches
 * join. */
#ifndef STORE_BATCH_H
#define STORE_BATCH_H

#include "base/buf.h"
#include "base/mailbox.h"
#include "store/array.h"
#include "store/store.h"

struct batch_body {
    struct slice bytes;
    void *owner;
    uint32_t live; /* entries put and not taken back */
    bool returned; /* the owner has it back: bytes must not be read any more */

    uint64_t blob; /* where the committer wrote it; 0: nowhere yet */
    uint32_t part, offset, crc;
};

struct batch_entry {
    uint64_t queue_id, position, expires_ms;
    uint32_t weight, body; /* body: its index */
    uint8_t flags;
    bool taken_back;
};

struct batch_delete {
    uint64_t queue_id, position;
    uint32_t weight;
};

struct batch_range {
    uint64_t queue_id, first, end, count, weight;
};

struct batch_queue { /* created, dropped, or marked as delivered up to position */
    uint64_t queue_id, position;
};

struct batch_record {
    size_t key, value; /* where they begin in record_bytes */
    uint32_t key_size, value_size;
    bool deleted;
};

struct batch {
    struct letter letter; /* to the store thread and back */
    uint64_t lsn;
    uint64_t first_lsn; /* of what has joined; == lsn as a rule */
    int error;          /* set by the store thread when it comes back: 0 or -errno */
    bool refused;       /* likewise: there was no room, nothing has changed */
    bool roomy;         /* likewise: there is room for more like it */
    bool closes;        /* the last one: mark the store cleanly closed */
    bool leaves;        /* it was carved, and left more than entries behind */
    uint64_t commit_ns, bytes_written, damaged; /* figures, set like error */

    ARRAY_OF(struct batch_body) bodies;
    ARRAY_OF(struct batch_entry) entries;
    ARRAY_OF(struct batch_delete) deletes;
    ARRAY_OF(struct batch_delete) tied; /* deletes that go with the puts or not at all */
    uint32_t tied_sorted; /* so many are in order: all, or they are sorted when asked */
    ARRAY_OF(struct batch_range) ranges;
    ARRAY_OF(struct batch_queue) creates;
    ARRAY_OF(struct batch_queue) drops;
    ARRAY_OF(struct batch_queue) marks; /* the highest of a queue counts */
    ARRAY_OF(struct batch_record) records;
    struct buf record_bytes;

    uint32_t entry_base, body_base; /* the numbers of the first ones */
    uint32_t live;                  /* entries not taken back */
    uint32_t returned;              /* bodies handed back */
    size_t body_bytes;              /* of bodies with live entries, or none yet */
};

void batch_release(struct batch *batch);

/* Hands back every body that is not back yet, and empties the batch. */
void batch_clear(struct batch *batch, store_body_done *done);

bool batch_is_empty(const struct batch *batch); /* marks alone are no reason to write */

/* How much of a batch finds room. */
enum batch_part {
    BATCH_ALL,
    BATCH_LEAN,    /* no entries, nor what is tied to them */
    BATCH_DELETES, /* no definitions either: records, creates, drops */
    BATCH_NOTHING,
};

/* The smallest part of it that asks for room. */
enum batch_part batch_refused_part(const struct batch *batch);

/* Whether that part of it has anything to write. */
bool batch_has(struct batch *batch, enum batch_part part);

/* Moves that part, which is neither all nor nothing, into `lean`, an empty one. Returns whether
 * nothing stays but entries and what is tied to them. */
bool batch_carve(struct batch *batch, enum batch_part part, struct batch *lean);

/* Joins `later` to the end of batch, which was refused; later is empty then. Entries of the one
 * that the other deletes are taken back. */
void batch_join(struct batch *batch, struct batch *later, store_body_done *done);

/* The next batch after this one counts on from its numbers. */
void batch_follow(struct batch *next, const struct batch *batch);

void batch_add_record(struct batch *batch, struct slice key, struct slice value, bool deleted);
void batch_take_back(struct batch *batch, uint32_t entry_number, store_body_done *done);
void batch_mark(struct batch *batch, uint64_t queue_id, uint64_t position);

/* Takes back the entries of queues that the same batch drops; bodies stay until the batch is handed
 * back. */
void batch_settle(struct batch *batch);

/* Deletes, the tied ones after the others. */
static inline const struct batch_delete *batch_delete_at(const struct batch *batch, uint32_t index)
{
    return index < batch->deletes.count ? &batch->deletes.items[index]
                                        : &batch->tied.items[index - batch->deletes.count];
}

static inline struct slice batch_key(const struct batch *batch, const struct batch_record *record)
{
    return slice_of(buf_slice(&batch->record_bytes).data + record->key, record->key_size);
}

static inline struct slice batch_value(const struct batch *batch, const struct batch_record *record)
{
    return slice_of(buf_slice(&batch->record_bytes).data + record->value, record->value_size);
}

#endif
