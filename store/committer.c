/* The thread's life:
 *
 *     ┌─▶ wait for a batch ──▶ room? ──▶ apply, sync ──▶ send it back ──┐
 *     │         │ ranges left to trim    │ no: send it back, refused     │
 *     │         │ and no batch: a slice  │                               │
 *     │         │ blobs mostly dead and  │                               │
 *     │         │ none for IDLE_MS: too  │                               │
 *     └─────────┴────────────────────────┴───────────────────────────────┘
 *
 * No timer and no gathering: batches grow because the owner fills the next while this one syncs.
 * After the first failure nothing is written any more; every batch goes back with that error. The
 * kernel may have dropped the pages that it could not write, so that a second sync would succeed
 * without them. An empty batch asks for room and writes nothing. */
#include "store/committer.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/thread.h"
#include "store/salvage.h"

enum { IDLE_MS = 100 };

/* 0, APPLY_NO_ROOM or -errno. */
static int try(struct committer *committer, struct batch *batch)
{
    if (!room_make(&committer->room, batch))
        return APPLY_NO_ROOM;
    if (batch_is_empty(batch) && !batch->closes)
        return 0;
    committer->apply.tight = committer->full || committer->room.tight;
    return apply_batch(&committer->apply, batch);
}

static void commit(struct committer *committer, struct batch *batch)
{
    const uint64_t begin = clock_monotonic_ns();

    fault_point(FAULT_COMMIT_TAKEN);
    if (committer->error == 0) {
        const int result = try(committer, batch);
        batch->refused = result == APPLY_NO_ROOM;
        committer->error = min_of(result, 0);
        committer->tidies |= result == 0;
        if (result == APPLY_NO_ROOM)
            committer->full = true;
        else if (committer->full && result == 0)
            committer->full = !room_is_ample(&committer->room);
        batch->roomy = !committer->full;
    }
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
    const int result = committer->apply.trimming ? apply_trim(&committer->apply)
                                                 : apply_reclaim(&committer->apply);

    committer->tidies = result == 0;
    committer->error = min_of(result, 0);
    fault_point(FAULT_TRIM_DONE);
    if (committer->error != 0)
        mailbox_post(committer->done, &committer->failure);
}

/* For a batch, or until it is time to tidy. */
static void wait(struct committer *committer)
{
    if (committer->error != 0 || !committer->tidies)
        mailbox_wait(&committer->inbox);
    else if (apply_may_reclaim(&committer->apply) && !committer->apply.tight)
        committer->idle = committer->idle || !mailbox_wait_ms(&committer->inbox, IDLE_MS);
    else if (!committer->apply.trimming)
        mailbox_wait(&committer->inbox);
}

static void *run(void *argument)
{
    struct committer *committer = argument;
    struct letter_list letters = STAILQ_HEAD_INITIALIZER(letters);

    salvage_stage("committing");
    for (;;) {
        wait(committer);
        if (!mailbox_take(&committer->inbox, &letters)) {
            tidy(committer);
            continue;
        }
        committer->idle = false;
        while (!STAILQ_EMPTY(&letters)) {
            struct letter *letter = STAILQ_FIRST(&letters);
            STAILQ_REMOVE_HEAD(&letters, link);
            if (letter == &committer->stop)
                return NULL;
            commit(committer, container_of(letter, struct batch, letter));
        }
    }
}

int committer_start(struct committer *committer, const struct database *database,
                    struct mailbox *done)
{
    committer->done = done;
    committer->error = 0;
    committer->idle = committer->full = false;
    committer->tidies = true;
    apply_init(&committer->apply, database);
    int rc = room_open(&committer->room, database);
    if (rc != 0)
        return rc;
    rc = mailbox_open(&committer->inbox);
    if (rc == 0) {
        rc = thread_start(&committer->thread, run, committer);
        if (rc != 0)
            mailbox_close(&committer->inbox);
    }
    if (rc != 0)
        room_close(&committer->room);
    return rc;
}

void committer_submit(struct committer *committer, struct batch *batch)
{
    mailbox_post(&committer->inbox, &batch->letter);
}

void committer_stop(struct committer *committer)
{
    mailbox_post(&committer->inbox, &committer->stop);
    pthread_join(committer->thread, NULL);
    mailbox_close(&committer->inbox);
    room_close(&committer->room);
    apply_release_memory(&committer->apply);
}
