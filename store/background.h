/* The background thread: what may take its time, at the lowest priority and with pauses. First the
 * whole store is verified, once; between two steps of that, or after it, backups are made. */
#ifndef STORE_BACKGROUND_H
#define STORE_BACKGROUND_H

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

    /* the thread's own */
    const struct database *database;
    struct slice mapping; /* of the data file */
    struct verify verify;
    uint64_t verify_ns;
};

int background_start(struct background *background, const struct database *database,
                     struct mailbox *done);
void background_submit(struct background *background, struct background_backup *backup);

/* Cancels what is under way, ends the thread and frees. */
void background_stop(struct background *background);

#endif
