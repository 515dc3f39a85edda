/* The reader thread: reads entries back, so that a cold page stalls nobody else. */
#ifndef STORE_READER_H
#define STORE_READER_H

#include "store/array.h"
#include "store/committer.h"
#include "store/scan.h"

struct reader_item { /* an entry that a fetch returns, before its body is read */
    struct segment_entry entry;
    uint64_t blob;
};

struct reader {
    pthread_t thread;
    struct mailbox inbox; /* fetches */
    struct mailbox *done; /* where they go back to */
    struct letter stop;   /* posted to inbox, ends the thread */

    /* the thread's own */
    const struct database *database;
    struct committer *committer; /* mends what is met */
    MDB_txn *txn; /* reset while waiting, or no page freed since could be used again */
    struct scan scan;
    ARRAY_OF(struct reader_item) items;
};

int reader_start(struct reader *reader, const struct database *database,
                 struct committer *committer, struct mailbox *done);
void reader_submit(struct reader *reader, struct store_fetch *fetch);

/* Answers what is in its inbox, ends the thread and frees. */
void reader_stop(struct reader *reader);

#endif
