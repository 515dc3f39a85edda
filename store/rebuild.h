/* A queue's row from its segments, when the row itself cannot be read. */
#ifndef STORE_REBUILD_H
#define STORE_REBUILD_H

#include "store/database.h"

/* Walks all segments of the queue. Entries that only the lost head said were dead live again:
 * better twice than never; they are those of the first segment, whose blob is *front_blob (0: no
 * segment). Unreadable segments are added to *damaged. 0 or LMDB's code. */
int rebuild_queue(const struct database *database, MDB_txn *txn, uint64_t queue_id,
                  struct queue_row *row, uint64_t *front_blob, uint64_t *damaged);

#endif
