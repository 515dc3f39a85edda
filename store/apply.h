/* One transaction of the store thread: a batch, a slice of trimming or reclaiming, as rows. Shared
 * by apply.c, blob.c, erase.c, trim.c, reclaim.c and mend.c.
 *
 * Errors are sticky: the first one stays in rc, every helper does nothing from then on, and
 * apply_end aborts. */
#ifndef STORE_APPLY_H
#define STORE_APPLY_H

#include "store/batch.h"
#include "store/database.h"
#include "store/sort.h"

struct apply {
    const struct database *database;
    MDB_txn *txn;
    MDB_cursor *cursors[DATABASE_COUNT];
    int rc;            /* 0 or LMDB's first error */
    uint64_t begin_ns; /* when it began */

    struct state_row state; /* written with every transaction */
    struct state_row saved; /* what it was before this one */

    struct sort_list operations; /* of the batch, by queue */
    struct segment_writer writer;

    /* The blobs that this transaction writes, until blob_finish. */
    ARRAY_OF(struct new_blob) blobs;
    ARRAY_OF(struct holder) holders; /* their segments */
    struct sort_list held;           /* blob -> index of a holder */
    ARRAY_OF(uint32_t) placed;       /* bodies of the batch in the order of their places */

    /* Blob -> what its entries lost, as cost and number; until blob_release. */
    struct sort_list released;

    struct segment segment;       /* the one being erased from; the index cursor stands on it */
    struct segment_reader reader; /* walks it, to know what its entries cost */
    struct gone gone;             /* of its entries */
    bool gone_found;              /* it has a row of its own */

    bool trimming; /* ranges are left to trim */
    bool summed;   /* state.size and state.sparse were made anew; `sparse` holds nothing else */
    bool tight; /* set by the caller: room is short (room.h). Bodies are cut into single pages, and
                   nothing is moved */

    /* What is being moved, while reclaim.c moves it. */
    ARRAY_OF(struct moved) moved;
    ARRAY_OF(struct holder) emptied; /* the segments where it was */
    ARRAY_OF(uint64_t) sources;      /* the blobs */
    struct sort_list order;

    /* Since the caller last took them: of batches, trimming and reclaiming. */
    uint64_t bytes_written, damaged;
    uint64_t bytes_before; /* this transaction */
};

struct new_blob {
    uint64_t number;
    uint32_t bodies, entries;
    uint64_t body_size; /* of its bodies */
    uint64_t alive;     /* of its entries, as in its live row */
};

struct moved { /* an entry */
    struct segment_entry entry;
    uint64_t queue_id, blob;
    uint32_t from; /* index in emptied */
};

/* A queue while its operations are applied. */
struct apply_queue {
    uint64_t id;
    struct queue_row row;
};

void apply_init(struct apply *apply, const struct database *database);
void apply_release_memory(struct apply *apply);

/* Undone before anything that counts was written; it may be tried again. */
enum { APPLY_NO_ROOM = 1 };

/* Applies the batch and one slice of trimming or reclaiming in one transaction, synced when it
 * returns. 0, APPLY_NO_ROOM, or -errno: then nothing may be written any more. */
int apply_batch(struct apply *apply, struct batch *batch);

/* A transaction that changes nothing: the next may use what the last one freed. The same. */
int apply_nothing(struct apply *apply);

/* One slice of trimming and nothing else. The same. */
int apply_trim(struct apply *apply);

struct mend;

/* Puts rows right and does nothing else: mend.h. Its results are in it. */
void apply_mend(struct apply *apply, struct mend *mend);

/* There is something to reclaim once the store has been idle for a while. */
bool apply_may_reclaim(const struct apply *apply);

/* One slice of that and nothing else. The same. */
int apply_reclaim(struct apply *apply);

/* ---- helpers, for the other files ------------------------------------------------------------ */

bool apply_get(struct apply *apply, enum database_id id, MDB_cursor_op op, struct slice *key,
               struct slice *value);
void apply_put(struct apply *apply, enum database_id id, struct slice key, struct slice value,
               unsigned flags);
uint8_t *apply_reserve(struct apply *apply, enum database_id id, struct slice key, size_t size,
                       unsigned flags);
void apply_delete(struct apply *apply, enum database_id id); /* where the cursor stands */

/* A row did not hold what it should: counted, said once in a while, and lived with. */
void apply_damaged(struct apply *apply, const char *what, uint64_t id, uint64_t position);

/* Reads the row of queue->id, made anew from its segments if it cannot be read, and leaves the
 * cursor there. false: there is none. */
bool apply_load_queue(struct apply *apply, struct apply_queue *queue);

/* Writes it; found: where the cursor stands. */
void apply_save_queue(struct apply *apply, const struct apply_queue *queue, bool found);

/* It has so many entries fewer: as far as the row counts them, which may have been made anew. */
void apply_uncount(struct apply_queue *queue, uint64_t count, uint64_t weight);

/* Writes apply->writer as a segment of the queue with bodies in that blob, and begins the next. */
void apply_flush_segment(struct apply *apply, uint64_t queue_id, uint64_t blob);

/* ---- blob.c: bodies at rest, and who needs them ---------------------------------------------- */

/* Writes the bodies that live, and says in each where it is. */
void blob_write_bodies(struct apply *apply, struct batch *batch);

/* A new blob, whose number is above all others; valid until the next. */
struct new_blob *blob_begin(struct apply *apply);

/* Where size bytes of bodies go, before anything else is written; NULL after an error. Parts come
 * in the order of their keys. */
uint8_t *blob_reserve_part(struct apply *apply, uint64_t blob, uint32_t part, size_t size);

void blob_hold(struct apply *apply, uint64_t blob, uint64_t queue_id, uint64_t first);

/* Writes the other rows of the blobs begun since the last time. */
void blob_finish(struct apply *apply);

/* So many entries, which cost so much, need the blob no more. */
static inline void blob_lose(struct apply *apply, uint64_t blob, uint32_t entries, uint64_t cost)
{
    sort_add(&apply->released, blob, cost, entries);
}

/* Takes in what was lost: removes the blobs that nobody needs, notes those that are sparse. */
void blob_release(struct apply *apply);

/* The blob stays for good: how much of it still lives is not known any more. */
void blob_pin(struct apply *apply, uint64_t blob);

/* Its live row; the cursor stands there. false: there is none that can be read. */
bool blob_load(struct apply *apply, uint64_t blob, struct live_row *row);

void blob_save(struct apply *apply, uint64_t blob,
               const struct live_row *row); /* where it stands */

/* All of it, when the live cursor stands on its row. */
void blob_remove(struct apply *apply, uint64_t blob, struct live_row *row);

/* Takes it out of sparse, if it is there. */
void blob_leave_sparse(struct apply *apply, uint64_t blob, struct live_row *row);

/* ---- erase.c: entries out of segments -------------------------------------------------------- */

/* Deletes the entries at the positions in items[].minor & APPLY_POSITION, ascending, which the
 * queue's row counts no more. What is not there any more, because its segment was damaged, is not
 * counted already. */
void erase_entries(struct apply *apply, struct apply_queue *queue, const struct batch *batch,
                   const struct sort_item *items, uint32_t count);

/* Deletes [first, end): at once where it cuts through segments, later where it covers them. */
void erase_range(struct apply *apply, struct apply_queue *queue, uint64_t first, uint64_t end);

/* All entries of a queue whose row is about to go. */
void erase_queue(struct apply *apply, const struct apply_queue *queue);

/* Reads the segment where the index cursor stands, and which of its entries are gone. false:
 * damaged. */
bool erase_load(struct apply *apply, struct slice key, struct slice value);

/* What the entry at index costs; ask in ascending order. */
uint64_t erase_cost(struct apply *apply, uint16_t index);

/* Removes that segment and its gone row. */
void erase_segment(struct apply *apply);

/* ---- trim.c ---------------------------------------------------------------------------------- */

/* Removes segments of deleted ranges for a millisecond or two; sets apply->trimming. */
void trim_slice(struct apply *apply);

/* ---- reclaim.c ------------------------------------------------------------------------------- */

/* Moves what lives in blobs that are sparse, up to size_max bytes or a millisecond or two.
 * idle: there is nothing better to do. Nothing may be left to trim. */
void reclaim_slice(struct apply *apply, uint64_t size_max, bool idle);

/* Operations sort by queue, then by kind in this order, then by position where the kind has one. */
enum operation { OP_CREATE, OP_DELETE, OP_RANGE, OP_PUT, OP_MARK, OP_DROP };

#define APPLY_KIND_SHIFT 61
#define APPLY_POSITION   (STORE_POSITION_END - 1)

static inline enum operation apply_kind(const struct sort_item *item)
{
    return (enum operation)(item->minor >> APPLY_KIND_SHIFT);
}

#endif
