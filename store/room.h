/* Room in the file: whether a batch can be written is known before it is begun.
 *
 *     │ pages in use, and free ones among them │ backed: blocks, no pages yet │      file system
 *     └──────────────── used ──────────────────┴─────── the reserve ──────────┤
 *                                                                          backed
 *
 * LMDB deletes by writing: copies of the pages that change, and a list of those that it frees. So a
 * store that has filled its disk could not be emptied. Hence a *reserve* is kept: blocks at the end
 * of the file, allocated ahead, that nobody else can take, and free pages. It is as large as what
 * deleting everything in one transaction would write, which is every leaf and branch page there is,
 * and some: 1 to 64 MiB. Deletes may use it up; entries are let in only while it would be whole
 * behind them; definitions while half of it would be left.
 *
 * What a batch takes is reckoned from above. While the disk has room, what may need runs of pages
 * (bodies, those moved included) is behind the last page in use; so is, of what takes one page at a
 * time and of the reserve, as much as free pages do not hold: else the file of a store with a large
 * index would be mostly reserve. When the disk has no more, all is counted together; it is *tight*
 * then: bodies are cut into single pages, because nobody knows how free pages lie, and reclaim.c
 * moves nothing.
 *
 * Pages that were freed since the oldest reader began (a fetch, a backup, stoatdump) are *pinned*:
 * he may still look at them, so LMDB does not use them, and they are not counted as free. Nor does
 * it use what the last transaction freed; while there is no reader the one after the next may. So
 * the reserve may be there as long as the disk has room; and on a full disk, once nobody has
 * anything left to delete, a transaction that changes nothing makes the room that the last left.
 *
 * Blocks allocated ahead are as good as written to ext4, XFS and tmpfs. A file system that copies
 * on write may still refuse; then LMDB's write fails and its transaction is undone, before anything
 * that counts was written: no room, as well. */
#ifndef STORE_ROOM_H
#define STORE_ROOM_H

#include "store/batch.h"
#include "store/database.h"

/* What the transactions [from, end) freed, and the next does not use: from is the oldest that
 * somebody reads, or without a reader the last. */
struct room_pinned {
    uint64_t from, end, pages;
};

struct room {
    const struct database *database;
    MDB_txn *txn; /* to look with; reset in between */
    int fd;       /* LMDB's */
    uint32_t page_size;
    uint64_t map_size; /* no page lies beyond; all that follows is in pages */
    uint64_t used, backed;
    uint64_t trees; /* leaves and branches, of all databases */
    struct room_pinned pinned;
    uint64_t usable; /* free pages that the next transaction may use */
    uint64_t soon;   /* and, if nobody begins to read meanwhile, the one after it */
    bool tight;      /* after room_make: the disk has no more */
};

int room_open(struct room *room, const struct database *database); /* 0 or -errno */
void room_close(struct room *room);

enum room_found {
    ROOM_NOT,
    ROOM_LATER, /* after one more transaction, whatever that is */
    ROOM_NOW,
};

/* Whether the batch will find room. Allocates some if it must. */
enum room_found room_make(struct room *room, const struct batch *batch);

/* Whether more than the reserve is there: enough to let publishers go on. */
enum room_found room_find_ample(struct room *room);

/* LMDB's code for a write that found no room, on a disk that works otherwise. */
bool room_is_wanting(const struct database *database, int rc);

#endif
