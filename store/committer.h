/* The store thread: one batch, one transaction, one sync, as soon as it comes. */
#ifndef STORE_COMMITTER_H
#define STORE_COMMITTER_H

#include "store/apply.h"
#include "store/mend.h"
#include "store/resident.h"
#include "store/room.h"

/* Who reads on a thread of its own, and may find what is to be mended. */
enum committer_client { COMMITTER_READER, COMMITTER_BACKGROUND, COMMITTER_CLIENTS };

struct committer_errand {
    struct letter letter;    /* from the client's thread and back */
    struct mailbox answered; /* where it comes back to */
    struct mend mend;
};

struct committer {
    pthread_t thread;
    struct mailbox inbox;  /* batches */
    struct mailbox *done;  /* where they go back to */
    struct letter failure; /* goes there, once, when a slice of trimming failed */
    struct letter stop;    /* posted to inbox, ends the thread */
    struct committer_errand errands[COMMITTER_CLIENTS];

    /* the thread's own */
    struct apply apply;
    struct room room;
    struct resident resident;
    bool idle;   /* no batch came for a while */
    bool full;   /* a batch was refused, and there is not ample room yet */
    bool tidies; /* in idle time; not while there is no room for it */
    int error;   /* sticky: 0 or -errno */
};

int committer_start(struct committer *committer, const struct database *database,
                    struct mailbox *done);

/* The batch comes back to done with its error set, or refused. */
void committer_submit(struct committer *committer, struct batch *batch);

/* From the client's thread, which waits: puts right what is amiss, and answers what came of it. */
const struct mend *committer_mend(struct committer *committer, enum committer_client client,
                                  const struct damage *damage);

/* No batch is under way, and the clients' threads have ended: ends the thread and frees. */
void committer_stop(struct committer *committer);

#endif
