/* The background thread: what may take its time, in short steps between long rests. First the
 * whole store is verified, once; between two steps of that, or after it, backups are made.
 *
 * What a step finds amiss is dealt with after it, one after another: rows are mended (mend.h), and
 * what concerns the owner goes to it in one letter, which it sends back. */
#ifndef STORE_BACKGROUND_H
#define STORE_BACKGROUND_H

#include "store/committer.h"
#include "store/copy.h"
#include "store/verify.h"

struct background_backup {
    struct letter letter; /* to the thread and back */
    char *path;
    struct copy_control control;
    int result;
    char error[STORE_ERROR_SIZE];
};

struct background {
    pthread_t thread;
    struct mailbox inbox;   /* backups */
    struct mailbox *done;   /* where they go back to */
    struct letter stop;     /* posted to inbox, ends the thread */
    struct letter verified; /* goes to done, once; verify and verify_ns may be read from then on */
    struct background_finding {
        struct letter letter; /* to done, and back by background_resume */
        struct store_finding finding;
    } finding;

    /* the thread's own */
    const struct database *database;
    struct committer *committer;
    struct slice mapping; /* of the data file */
    struct verify verify;
    ARRAY_OF(struct damage) damages; /* found by this step */
    bool awaits;                     /* the finding is with the owner */
    uint64_t verify_ns;
};

int background_start(struct background *background, const struct database *database,
                     struct committer *committer, struct mailbox *done);

/* The owner has taken in the finding. */
void background_resume(struct background *background);

void background_submit(struct background *background, struct background_backup *backup);

/* Cancels what is under way, ends the thread and frees. */
void background_stop(struct background *background);

#endif
