/* The only queue between threads: a list, a lock and an eventfd. Posting hands over the letter and
 * everything reachable from it; the poster must not touch it again until it comes back the same
 * way. */
#ifndef BASE_MAILBOX_H
#define BASE_MAILBOX_H

#include <pthread.h>

#include "base/base.h"

struct letter {
    STAILQ_ENTRY(letter) link;
};
STAILQ_HEAD(letter_list, letter);

struct mailbox {
    pthread_mutex_t lock;
    struct letter_list letters; /* under the lock */
    int fd;                     /* eventfd, non-blocking; readable while letters wait */
};

int mailbox_open(struct mailbox *mailbox); /* 0 or -errno */
void mailbox_close(
    struct mailbox *mailbox); /* letters still there are the caller's to find first */

void mailbox_post(struct mailbox *mailbox,
                  struct letter *letter); /* from any thread, never blocks for long */

/* Moves all waiting letters, oldest first, to the end of *letters; clears the eventfd. Returns
 * whether there were any. */
bool mailbox_take(struct mailbox *mailbox, struct letter_list *letters);

/* Blocks until at least one letter waits. */
void mailbox_wait(struct mailbox *mailbox);

/* The same, for at most that long. Returns whether one waits. */
bool mailbox_wait_ms(struct mailbox *mailbox, int timeout_ms);

#endif
