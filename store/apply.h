/* One transaction of the store thread: a batch, or a slice of trimming, as rows. Shared by apply.c,
 * erase.c and trim.c.
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
    int rc; /* 0 or LMDB's first error */

    struct sort_list operations; /* of the batch, by queue */
    struct sort_list
        released; /* LSN -> entries that need its blob no more; emptied by apply_release */
    struct segment_writer writer;

    struct segment segment; /* the one being erased from; the index cursor stands on it */
    struct gone gone;       /* of its entries */
    bool gone_found;        /* it has a row of its own */

    bool trimming; /* ranges are left to trim */
    uint64_t bytes_written, damaged;
};

/* A queue while its operations are applied. */
struct apply_queue {
    uint64_t id;
    struct queue_row row;
};

void apply_init(struct apply *apply, const struct database *database);
void apply_release_memory(struct apply *apply);

/* Applies the batch and one slice of trimming in one transaction, synced when it returns. 0 or
 * -errno. */
int apply_batch(struct apply *apply, struct batch *batch);

/* One slice of trimming and nothing else. 0 or -errno. */
int apply_trim(struct apply *apply);

/* ---- helpers, for erase.c and trim.c --------------------------------------------------------- */

bool apply_get(struct apply *apply, enum database_id id, MDB_cursor_op op, struct slice *key,
               struct slice *value);
void apply_put(struct apply *apply, enum database_id id, struct slice key, struct slice value,
               unsigned flags);
uint8_t *apply_reserve(struct apply *apply, enum database_id id, struct slice key, size_t size,
                       unsigned flags);
void apply_delete(struct apply *apply, enum database_id id); /* where the cursor stands */

/* A row did not hold what it should: counted, said once in a while, and lived with. */
void apply_damaged(struct apply *apply, const char *what, uint64_t id, uint64_t position);

/* The blob stays for good: how much of it still lives is not known any more. */
void apply_pin(struct apply *apply, uint64_t lsn);

/* Removes the blobs that apply->released leaves without entries. */
void apply_release(struct apply *apply);

/* ---- erase.c: entries out of segments -------------------------------------------------------- */

/* Deletes the entries at the positions in items[].minor & APPLY_POSITION, ascending. */
void erase_entries(struct apply *apply, struct apply_queue *queue, const struct sort_item *items,
                   uint32_t count);

/* Deletes [first, end): at once where it cuts through segments, later where it covers them. */
void erase_range(struct apply *apply, struct apply_queue *queue, uint64_t first, uint64_t end);

/* All entries of a queue whose row is about to go. */
void erase_queue(struct apply *apply, const struct apply_queue *queue);

/* Reads the segment where the index cursor stands, and which of its entries are gone. false:
 * damaged. */
bool erase_load(struct apply *apply, struct slice key, struct slice value);

/* Removes that segment and its gone row. */
void erase_segment(struct apply *apply);

/* ---- trim.c ---------------------------------------------------------------------------------- */

/* Removes segments of deleted ranges for a millisecond or two; sets apply->trimming. */
void trim_slice(struct apply *apply);

/* Operations sort by queue, then by kind in this order, then by position where the kind has one. */
enum operation { OP_CREATE, OP_DELETE, OP_RANGE, OP_PUT, OP_MARK, OP_DROP };

#define LIVE_PINNED      UINT32_MAX
#define APPLY_KIND_SHIFT 61
#define APPLY_POSITION   (STORE_POSITION_END - 1)

#endif
