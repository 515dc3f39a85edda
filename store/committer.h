/* The store thread: one batch, one transaction, one sync, as soon as it comes. */
#ifndef STORE_COMMITTER_H
#define STORE_COMMITTER_H

#include "store/apply.h"

struct committer {
    pthread_t thread;
    struct mailbox inbox;  /* batches */
    struct mailbox *done;  /* where they go back to */
    struct letter failure; /* goes there, once, when a slice of trimming failed */

    /* the thread's own */
    struct apply apply;
    bool idle; /* no batch came for a while */
    int error; /* sticky: 0 or -errno */
};

int committer_start(struct committer *committer, const struct database *database,
                    struct mailbox *done);

/* The batch comes back to done with its error set. One that closes is the last. */
void committer_submit(struct committer *committer, struct batch *batch);

/* After a batch that closes came back: waits for the thread and frees. */
void committer_join(struct committer *committer);

#endif
