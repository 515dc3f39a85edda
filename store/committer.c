/* The thread's life:
 *
 *     ┌─▶ wait for a batch ──▶ apply, sync ──▶ send it back ──┐
 *     │         │ ranges left to trim and no batch: a slice   │ the batch closes: end
 *     │         │ blobs mostly dead and none for IDLE_MS: too │
 *     └─────────┴──────────────────────────────────────────────┘
 *
 * No timer and no gathering: batches grow because the owner fills the next while this one syncs.
 * After the first failure nothing is written any more; every batch goes back with that error. The
 * kernel may have dropped the pages that it could not write, so that a second sync would succeed
 * without them. */
#include "store/committer.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/thread.h"

enum { IDLE_MS = 100 };

static void commit(struct committer *committer, struct batch *batch)
{
    const uint64_t begin = clock_monotonic_ns();

    fault_point(FAULT_COMMIT_TAKEN);
    if (committer->error == 0)
        committer->error = apply_batch(&committer->apply, batch);
    fault_point(FAULT_COMMIT_DONE);
    batch->error = committer->error;
    batch->bytes_written = committer->apply.bytes_written;
    batch->damaged = committer->apply.damaged;
    batch->commit_ns = clock_monotonic_ns() - begin;
    mailbox_post(committer->done, &batch->letter);
}

/* Nothing to commit: trims or reclaims. */
static void tidy(struct committer *committer)
{
    if (committer->apply.trimming)
        committer->error = apply_trim(&committer->apply);
    else
        committer->error = apply_reclaim(&committer->apply);
    fault_point(FAULT_TRIM_DONE);
    if (committer->error != 0)
        mailbox_post(committer->done, &committer->failure);
}

/* For a batch, or until it is time to tidy. */
static void wait(struct committer *committer)
{
    if (committer->error != 0)
        mailbox_wait(&committer->inbox);
    else if (apply_may_reclaim(&committer->apply))
        committer->idle = committer->idle || !mailbox_wait_ms(&committer->inbox, IDLE_MS);
    else if (!committer->apply.trimming)
        mailbox_wait(&committer->inbox);
}

static void *run(void *argument)
{
    struct committer *committer = argument;
    struct letter_list letters = STAILQ_HEAD_INITIALIZER(letters);

    for (bool closes = false; !closes;) {
        wait(committer);
        if (!mailbox_take(&committer->inbox, &letters)) {
            tidy(committer);
            continue;
        }
        committer->idle = false;
        while (!STAILQ_EMPTY(&letters)) {
            struct batch *batch = container_of(STAILQ_FIRST(&letters), struct batch, letter);
            STAILQ_REMOVE_HEAD(&letters, link);
            closes = batch->closes;
            commit(committer, batch);
        }
    }
    return NULL;
}

int committer_start(struct committer *committer, const struct database *database,
                    struct mailbox *done)
{
    committer->done = done;
    committer->error = 0;
    committer->idle = false;
    apply_init(&committer->apply, database);
    int rc = mailbox_open(&committer->inbox);
    if (rc != 0)
        return rc;
    rc = thread_start(&committer->thread, run, committer);
    if (rc != 0)
        mailbox_close(&committer->inbox);
    return rc;
}

void committer_submit(struct committer *committer, struct batch *batch)
{
    mailbox_post(&committer->inbox, &batch->letter);
}

void committer_join(struct committer *committer)
{
    pthread_join(committer->thread, NULL);
    mailbox_close(&committer->inbox);
    apply_release_memory(&committer->apply);
}
