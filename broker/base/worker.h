/* A thread for what would hold up the loop: slow cryptography. Jobs run one after another, in the
 * order they were posted, and come back the same way:
 *
 *     owner's thread   worker_post ──▶ inbox              worker_process ──▶ job->done
 *                                       │                      ▲
 *     worker thread                     └──▶ job->run ──▶ outbox (worker_fd is readable)
 *
 * A job, and everything that its run touches, is the worker's from worker_post until done is
 * called. */
#ifndef BASE_WORKER_H
#define BASE_WORKER_H

#include "base/mailbox.h"

struct job {
    struct letter letter;
    void (*run)(struct job *job);  /* on the worker thread */
    void (*done)(struct job *job); /* on the owner's, which may free the job or post it again */
};

struct worker {
    pthread_t thread;
    struct mailbox inbox, outbox;
    size_t under_way; /* jobs posted and not yet done; the owner's */
    struct job last;  /* ends the thread */
};

int worker_open(struct worker *worker); /* 0 or -errno */

/* Waits for the jobs under way, done called for each, and ends the thread. */
void worker_close(struct worker *worker);

void worker_post(struct worker *worker, struct job *job);

/* Readable when worker_process has something to do. */
static inline int worker_fd(const struct worker *worker)
{
    return worker->outbox.fd;
}
void worker_process(struct worker *worker);

#endif
