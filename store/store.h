/* The store: named records and queue entries, as ids and bytes, kept across any crash. It has never
 * heard of a connection, an exchange or AMQP.
 *
 * Everything durable changes through a *batch*. One batch is open at any time; the owner of the
 * store (the loop thread) adds operations to it, submits it at the end of its turn when no other is
 * under way, and learns through an eventfd that it is durable:
 *
 *      owner      add add add │submit│ add add add add add add │submit│ ...
 *                             └─ LSN 7 ──────────┐             └─ LSN 8
 *      store thread            one transaction, one sync       ...
 *                                                │
 *      owner                                     └─ store_process: durable = 7, bodies handed back
 *
 * so that batches grow with load, an idle commit costs one sync, and nobody waits for a timer.
 *
 * The rules of the seam:
 *   1. Nobody else changes durable state. Submitting never blocks. LSNs are dense and increasing.
 *   2. Operations carry results, not requests: ids and positions come from the owner. Applying a
 *      batch is a pure function of the state and the bytes, where the state is what this header
 *      shows: records, queues, entries and their bodies. Where on the disk they are is each store's
 *      own business, changes behind its back (trim.c, reclaim.c), and is named by no operation.
 *   3. A batch is atomic: all of it survives or none.
 *   4. Batches become durable in LSN order: when LSN n is durable, so is every one below it.
 *   5. A failed sync is never retried: store_process reports it, and no LSN beyond durable ever
 *      becomes durable. Want of room is not a failure: see below.
 *   6. What is in memory above the store can be rebuilt from it in O(records + queues).
 *
 * A queue, to the store, is a never-reused 64-bit id and entries at increasing 64-bit positions. An
 * entry refers to a body; several entries of one batch may share one. Bodies are immutable bytes
 * that the owner keeps alive and unchanged until the batch is handed back; the store reads them on
 * its own thread and copies nothing before.
 *
 * An entry that is taken back while its batch is still open never reaches the disk.
 *
 * When there is no room for a batch, it is refused before anything of it counts, and is open again:
 * what is in it, and what was added meanwhile, is one batch, and all numbers stay good. From then
 * on, until there is room, the store is *full*, and only the lean part of the open batch goes:
 *
 *     entries, and the deletes tied to them      wait; they can still be taken back
 *     deletes of entries and ranges, marks       go: the store keeps room for them
 *     records, new queues, deleted queues        go while more than half of that room is left
 *
 * so an LSN can be durable while entries put under it, or under one before, are not:
 * store_durable_entries is the highest of which nothing waits. (What lies in the way of a tied
 * delete, a range around it or the end of its queue, waits with it; then no LSN is durable that
 * something other than entries waits for.) Whoever answers for entries goes by
 * that one. The store does not look for room by itself: the owner asks (store_ask_for_room), now
 * and then; commits that make room are noticed.
 *
 * What cannot be read (a checksum does not hold, a row is missing) is counted in
 * store_stats.damaged and logged; the rest is served. Rows are put right where they are met
 * (mend.h); an entry whose body is damaged stays until its owner deletes it, who hears of it from a
 * fetch or from the check behind.
 *
 * Two implementations stand behind this header (engine.h): LMDB (lmdb_store.c and what it uses) and
 * memory (memory.c), which loses what was not synced, on demand. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/mailbox.h"
#include "base/slice.h"

struct store;

/* ---- opening and closing --------------------------------------------------------------------- */

/* Who waits while opening and recovering take long, which a salvage does for minutes. */
struct store_waiting {
    /* Asked every few milliseconds: false ends it with -ECANCELED, and with the store as it was.
     * NULL: nobody would rather go. */
    bool (*goes_on)(void *context);
    void *context;
};

static inline bool store_goes_on(const struct store_waiting *waiting)
{
    return waiting->goes_on == NULL || waiting->goes_on(waiting->context);
}

struct store_options {
    const char *directory; /* exists already, is ours alone (the caller holds its lock) */
    size_t map_size; /* of address space, not of memory; 0: 1 TiB, or what the system grants */
    /* Commits for which bodies written together must have been sparse before those left are
     * moved while the store is busy; 0: 1000. */
    uint32_t reclaim_patience;
    uint32_t check_after_ms; /* after opening the check begins; 0: 1000, for clients come first */
    struct store_waiting waiting;
};

enum { STORE_ERROR_SIZE = 512 };

/* Opens or creates the store and starts its threads. 0, or -errno with a sentence for the operator
 * in error. A format version that is not ours is -EPROTONOSUPPORT and nothing is
 * modified; -ESTALE: there was a store, and its data file was taken away. */
int store_open(const struct store_options *options, struct store **store,
               char error[STORE_ERROR_SIZE]);

/* Submits what the open batch holds, waits until it is durable, marks the store cleanly closed,
 * hands all bodies back and frees the store. Clears *store. Fetches under way are dropped without
 * on_done. Returns 0 or -errno. */
int store_close(struct store **store);

/* ---- recovery: once, after opening, before the first operation ------------------------------- */

struct store_queue_state {
    uint64_t queue_id;
    uint64_t head;      /* no entry lives below this position */
    uint64_t tail;      /* one past the highest position ever stored */
    uint64_t count;     /* entries alive */
    uint64_t bytes;     /* sum of their weights */
    uint64_t delivered; /* entries below it may have been delivered; after an unclean stop: tail */
    bool deadlines;     /* some entries may have expires_ms */
};

struct store_recovery {
    void *context;
    /* In key order; the slices are valid during the call. */
    void (*on_record)(void *context, struct slice key, struct slice value);
    /* In id order, after all records. */
    void (*on_queue)(void *context, const struct store_queue_state *queue);
    bool was_clean; /* set by store_recover: the last close was a clean one */
};

/* Reads O(records + queues), no entries and no bodies. 0 or -errno. A store that has not been
 * recovered is not marked as cleanly closed, unless it was before: what may have been delivered is
 * not known. */
int store_recover(struct store *store, struct store_recovery *recovery);

/* ---- the open batch -------------------------------------------------------------------------- */

/* Called for each body when its batch is durable or given up with the store, from store_process and
 * store_close; and at once from store_take_back when its last entry was taken back. The owner's
 * reference ends. */
typedef void store_body_done(void *body_owner);

void store_on_body_done(struct store *store, store_body_done *done);

/* The LSN that the open batch will have: what a reply to anything added now must wait for. */
uint64_t store_open_lsn(const struct store *store);

/* Whether what was put under this LSN can still be taken back: it is the open batch's, or was that
 * of one that was refused and is open again. */
bool store_lsn_is_open(const struct store *store, uint64_t lsn);

/* Nothing has been added to the open batch that needs writing. Taken-back entries do not count. */
bool store_open_is_empty(const struct store *store);

/* Bytes of bodies in the open batch: above a limit of the caller's choice it stops taking in
 * more. */
size_t store_open_bytes(const struct store *store);

/* Named records: definitions. Keys are 1 to 400 bytes, values up to 1 MiB; both are copied. The
 * last word in a batch wins. */
void store_put_record(struct store *store, struct slice key, struct slice value);
void store_delete_record(struct store *store, struct slice key); /* absent is fine */

/* A body for entries of the open batch, at least one. Returns its number within the batch.
 * body_owner comes back through store_body_done, exactly once, even if every entry was taken back:
 * once that has happened, the number must not be used any more. */
uint32_t store_add_body(struct store *store, struct slice bytes, void *body_owner);

#define STORE_POSITION_END (UINT64_C(1) << 61)

struct store_entry {
    uint64_t queue_id;
    uint64_t position; /* above all positions put for this queue before, below STORE_POSITION_END */
    uint64_t expires_ms; /* wall clock; 0: never. Kept and returned, not acted upon */
    uint32_t weight;     /* what it adds to the queue's bytes */
    uint8_t flags;       /* the owner's, kept and returned */
};

/* Puts an entry that refers to a body of the open batch. Returns its number, for
 * store_take_back. */
uint32_t store_put_entry(struct store *store, const struct store_entry *entry, uint32_t body);

/* Undoes store_put_entry; once, only while its batch is open. When no entry of the body is left,
 * the body is handed back before this returns. */
void store_take_back(struct store *store, uint32_t entry_number);

/* Deletes an entry put in an earlier batch; it must be alive. weight as it was put. */
void store_delete_entry(struct store *store, uint64_t queue_id, uint64_t position, uint32_t weight);

/* The same, but not without the entries that the open batch puts: where they came from (a dead
 * letter, a transaction). */
void store_delete_tied(struct store *store, uint64_t queue_id, uint64_t position, uint32_t weight);

/* Deletes every entry alive in [first, end), which are durable, and count and weigh as given, or
 * about so if the store was damaged. Costs O(1) now; the work is done in slices behind. Entries of
 * the open batch must be taken back instead, or lie outside. */
void store_delete_range(struct store *store, uint64_t queue_id, uint64_t first, uint64_t end,
                        uint64_t count, uint64_t weight);

/* A new queue: its id has never been used before. Without it entries cannot be put. */
void store_create_queue(struct store *store, uint64_t queue_id);

/* The queue and all its entries are gone; O(1) now, trimmed in slices behind. Entries of the open
 * batch are taken back with it; their bodies come back with the batch, or sooner if the caller
 * takes the entries back as well. */
void store_delete_queue(struct store *store, uint64_t queue_id);

/* Entries below position may have been delivered. Rides along with the next commit; never the
 * reason for one. It counts only after a clean stop, so that marking every queue once, before
 * store_close, is enough. */
void store_mark_delivered(struct store *store, uint64_t queue_id, uint64_t position);

/* ---- durability ------------------------------------------------------------------------------ */

/* A batch is on its way to the disk. */
bool store_is_busy(const struct store *store);

/* The store is not busy, and the open batch has something that can go; while the store is full it
 * may hold only what cannot. */
bool store_may_submit(const struct store *store);

/* Hands the open batch over, or what of it can go, and opens the next. Returns the LSN of what was
 * handed over. */
uint64_t store_submit(struct store *store);

/* There was no room for a batch; some may wait still. */
bool store_is_full(const struct store *store);

/* The next submit tries everything, even if it is nothing. */
void store_ask_for_room(struct store *store);

/* The highest LSN that survives a crash, apart from entries that wait for room; and with them. */
uint64_t store_durable(const struct store *store);
uint64_t store_durable_entries(const struct store *store);

/* Readable when store_process has something to do. */
int store_fd(const struct store *store);

/* Takes in what the store's threads have finished: advances durable, hands bodies back, calls
 * on_done of fetches. 0, or -errno once the store has failed: the broker must stop, no later LSN
 * ever becomes durable. */
int store_process(struct store *store);

/* ---- reading back ---------------------------------------------------------------------------- */

struct store_fetched {
    uint64_t position;
    uint64_t expires_ms;
    uint32_t weight;
    uint8_t flags;
    bool damaged;       /* its checksum or place does not hold: bytes is what is left of it, zeros
                           where nothing is; never deliver it */
    struct slice bytes; /* the body; inside the fetch, until store_fetch_release */
};

/* A read of entries alive in [first, end), lowest positions first, that goes on until count_max
 * entries or bytes_max bytes (at least one entry is returned if any is alive). Only entries of
 * durable batches are seen. The struct is the caller's and must stay until on_done ran. Entries
 * deleted meanwhile by operations not yet durable may still come back: the caller knows what it
 * deleted. Entries whose place in the index is damaged do not come back at all: a range can be at
 * its end with fewer entries than were counted, if lost_count did not say so. */
struct store_fetch {
    uint64_t queue_id, first, end;
    uint32_t count_max;
    size_t bytes_max; /* of bodies */
    bool index_only;  /* no bodies: `bytes` stays empty, and what they hold is not checked */
    void (*on_done)(struct store_fetch *fetch); /* from store_process */
    /* results */
    struct store_fetched *entries;
    size_t count;
    uint64_t next;    /* where to go on; == end when nothing alive is left in the range */
    int error;        /* 0, or -errno: the store could not be read, there are no results.
                         -EBADMSG: it is damaged there; any other may be over at the next try */
    uint32_t damaged; /* entries returned as damaged, and index rows that could not be read */
    int64_t lost_count, lost_bytes; /* the queue had, as it turned out, so much less; or more */
    void *memory;                   /* the store's, as is the letter */
    struct letter letter;
};

void store_fetch(struct store *store, struct store_fetch *fetch);
/* Frees the results; harmless when there are none. */
void store_fetch_release(struct store_fetch *fetch);

/* ---- figures --------------------------------------------------------------------------------- */

struct store_stats {
    uint64_t commits, bytes_written, entries_put, entries_deleted, entries_taken_back, damaged;
    uint64_t commit_ns_last, commit_ns_max;
};

void store_get_stats(const struct store *store, struct store_stats *stats);

/* ---- behind the clients' backs --------------------------------------------------------------- */

/* Once after opening the whole store is verified, little by little: every row and the
 * checksum of every body. What is found is logged, and counted here. */
struct store_check {
    bool is_done;
    uint64_t entries, body_bytes, findings; /* when done */
    uint64_t duration_ns;                   /* likewise */
};

void store_get_check(const struct store *store, struct store_check *check);

/* What the check found, for the owner to act on. */
struct store_finding {
    uint64_t queue_id;
    bool is_entry; /* its body at `position` is damaged; else the queue has lost entries: */
    uint64_t position;
    int64_t lost_count, lost_bytes; /* below 0: they came back */
};
typedef void store_found(void *context, const struct store_finding *finding);

/* Called from store_process, from now on. */
void store_on_finding(struct store *store, store_found *found, void *context);

/* A start found a data file that could not be trusted, and saved what is sound of it
 * (salvage.h). */
struct store_salvage {
    bool ever; /* this start or one before */
    /* if this one: */
    uint64_t when_ms;            /* wall clock; 0: it was not */
    char kept[STORE_ERROR_SIZE]; /* path of the damaged file */
    uint64_t messages, queues;   /* saved; queues: also those whose names may be lost */
    uint64_t lost;               /* pages and rows that could not be read */
};

const struct store_salvage *store_get_salvage(const struct store *store);

/* Begins to write a consistent copy of the store to the file at path (copied), after one that is
 * there was removed: a store again when it stands in a directory as data.mdb. It is synced when it
 * is complete, and under another name until then. The owner's batches go on meanwhile, and the data
 * file does not grow by what they write. 0, -EBUSY when one is under way already, or -ENOTSUP. */
int store_backup(struct store *store, const char *path);

struct store_backup {
    const char *path; /* of the last one; NULL: none was asked for; valid until the next */
    bool is_running;
    uint64_t size;        /* copied so far */
    int error;            /* when it is over: 0 or -errno */
    const char *sentence; /* with error: for the operator */
};

void store_get_backup(struct store *store, struct store_backup *backup);

/* Removes a backup that nobody took, or what is left of one that was cut short: for who starts. */
void store_remove_backup(const char *path);

#endif
