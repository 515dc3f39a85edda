/* Walking the living entries of a queue, segment by segment, in one transaction, for whoever reads:
 * the reader's fetches and the rebuilding of a queue's row. */
#ifndef STORE_SCAN_H
#define STORE_SCAN_H

#include "store/array.h"
#include "store/database.h"

struct scan_range {
    uint64_t first, end;
};

struct scan {
    MDB_cursor *index, *gone, *trim;
    uint64_t queue_id;
    uint64_t first, end; /* what is still to be walked */

    ARRAY_OF(struct scan_range) trims; /* deleted, not yet trimmed; ascending */
    struct segment segment;
    struct gone gone_of_segment;
    struct segment_reader reader;
    bool in_segment;

    struct segment_entry entry;  /* after scan_next: the entry found */
    uint64_t blob;               /* in which its body is */
    uint32_t damaged;            /* rows that could not be read so far */
    bool stops;                  /* set before scan_begin: the first of them ends the walk */
    enum database_id damaged_in; /* when it did: whose row it is */
    struct key damaged_key;      /* likewise */
    int rc;                      /* 0 or LMDB's error, which ended the walk */
};

/* Over the entries in [first, end) that neither a gone row nor a trim row calls dead; the head is
 * the caller's to mind. */
static inline bool scan_has_stopped(const struct scan *scan)
{
    return scan->stops && scan->damaged > 0;
}

void scan_begin(struct scan *scan, const struct database *database, MDB_txn *txn, uint64_t queue_id,
                uint64_t first, uint64_t end);
bool scan_next(struct scan *scan);
void scan_end(struct scan *scan);

#endif
