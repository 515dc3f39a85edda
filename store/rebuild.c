/* See rebuild.h. */
#include "store/rebuild.h"

#include "store/scan.h"

int rebuild_queue(const struct database *database, MDB_txn *txn, uint64_t queue_id,
                  struct queue_row *row, uint64_t *front_blob, uint64_t *damaged)
{
    struct scan scan = {0};

    *row = (struct queue_row){0};
    *front_blob = 0;
    scan_begin(&scan, database, txn, queue_id, 0, UINT64_MAX);
    while (scan_next(&scan)) {
        if (row->count == 0) {
            row->head = scan.entry.position;
            *front_blob = scan.blob;
        }
        row->count++;
        row->bytes += scan.entry.weight;
        row->deadlines |= scan.entry.expires_ms != 0;
        row->tail = scan.segment.last + 1;
    }
    for (uint32_t i = 0; i < scan.trims.count; i++)
        row->tail =
            max_of(row->tail, scan.trims.items[i].end); /* or new entries would seem deleted */
    row->delivered = row->tail;
    *damaged += scan.damaged;
    scan_end(&scan);
    return scan.rc;
}
