/* The thread's life:
 *
 *     ┌─▶ wait for a batch ──▶ room? ──▶ apply, sync ──▶ send it back ──┐
 *     │         │ ranges left to trim    │ no: send it back, refused     │
 *     │         │ and no batch: a slice  │                               │
 *     │         │ blobs are sparse and   │                               │
 *     │         │ none for IDLE_MS: too  │                               │
 *     └─────────┴────────────────────────┴───────────────────────────────┘
 *
 * No timer and no gathering: batches grow because the owner fills the next while this one syncs.
 * After the first failure nothing is written any more; every batch goes back with that error. The
 * kernel may have dropped the pages that it could not write, so that a second sync would succeed
 * without them. An empty batch asks for room and writes nothing of its own. What a reading thread
 * sends to be mended takes its turn among the batches. */
#include "store/committer.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/thread.h"
#include "store/salvage.h"

enum { IDLE_MS = 100 };

static enum room_found find_room(struct committer *committer, const struct batch *batch)
{
    return batch != NULL ? room_make(&committer->room, batch) : room_find_ample(&committer->room);
}

/* For the batch; NULL: so much that publishers may go on. 0, APPLY_NO_ROOM or -errno. */
static int make_room(struct committer *committer, const struct batch *batch)
{
    enum room_found found = find_room(committer, batch);

    if (found == ROOM_LATER) {
        const int result = apply_nothing(&committer->apply);
        if (result != 0)
            return result;
        found = find_room(committer, batch);
    }
    return found == ROOM_NOW ? 0 : APPLY_NO_ROOM;
}

/* 0, APPLY_NO_ROOM or -errno. */
static int try(struct committer *committer, struct batch *batch)
{
    const int result = make_room(committer, batch);

    if (result != 0)
        return result;
    if (batch_is_empty(batch) && !batch->closes)
        return 0;
    committer->apply.tight = committer->full || committer->room.tight;
    return apply_batch(&committer->apply, batch);
}

/* Whether publishers may go on. 0 or -errno. */
static int look_for_room(struct committer *committer)
{
    const int result = make_room(committer, NULL);

    committer->full = result != 0;
    return min_of(result, 0);
}

/* Of this batch, and of what was done in idle time before. */
static void hand_figures(struct committer *committer, struct batch *batch)
{
    batch->bytes_written = committer->apply.bytes_written;
    batch->damaged = committer->apply.damaged;
    committer->apply.bytes_written = committer->apply.damaged = 0;
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
            committer->error = look_for_room(committer);
        batch->roomy = !committer->full;
    }
    fault_point(FAULT_COMMIT_DONE);
    batch->error = committer->error;
    if (!batch->refused)
        hand_figures(committer, batch);
    batch->commit_ns = clock_monotonic_ns() - begin;
    mailbox_post(committer->done, &batch->letter);
    resident_trim(&committer->resident);
}

/* Nothing to commit: trims or reclaims. */
static void tidy(struct committer *committer)
{
    const int result = committer->apply.trimming ? apply_trim(&committer->apply)
                                                 : apply_reclaim(&committer->apply);

    committer->tidies = result == 0;
    committer->error = min_of(result, 0);
    resident_trim(&committer->resident);
    fault_point(FAULT_TRIM_DONE);
    if (committer->error != 0)
        mailbox_post(committer->done, &committer->failure);
}

static const char *name_of(enum damage_kind kind)
{
    return kind == DAMAGE_QUEUE ? "queue" : kind == DAMAGE_BLOB ? "blob" : "record";
}

/* In a transaction of its own, after the batches that came before. */
static void mend(struct committer *committer, struct committer_errand *errand)
{
    struct mend *mend = &errand->mend;

    mend->error = committer->error;
    if (mend->error == 0) {
        apply_mend(&committer->apply, mend);
        committer->error = min_of(mend->error, 0);
        if (committer->error != 0)
            mailbox_post(committer->done, &committer->failure);
    }
    if (mend->error == 0 && (mend->repaired > 0 || mend->removed > 0 || mend->lost_count != 0))
        log_warning("the store was mended: %s %" PRIu64 ": %u rows repaired, %u removed, %" PRId64
                    " messages lost",
                    name_of(mend->damage.kind), mend->damage.id, mend->repaired, mend->removed,
                    mend->lost_count);
    mailbox_post(&errand->answered, &errand->letter);
}

const struct mend *committer_mend(struct committer *committer, enum committer_client client,
                                  const struct damage *damage)
{
    struct committer_errand *errand = &committer->errands[client];
    struct letter_list answers = STAILQ_HEAD_INITIALIZER(answers);

    errand->mend = (struct mend){.damage = *damage};
    mailbox_post(&committer->inbox, &errand->letter);
    mailbox_wait(&errand->answered);
    mailbox_take(&errand->answered, &answers);
    return &errand->mend;
}

static struct committer_errand *errand_of(struct committer *committer, const struct letter *letter)
{
    for (size_t i = 0; i < COMMITTER_CLIENTS; i++)
        if (letter == &committer->errands[i].letter)
            return &committer->errands[i];
    return NULL;
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
            struct committer_errand *errand = errand_of(committer, letter);
            if (letter == &committer->stop)
                return NULL;
            if (errand != NULL)
                mend(committer, errand);
            else
                commit(committer, container_of(letter, struct batch, letter));
        }
    }
}

static void close_errands(struct committer *committer, size_t count)
{
    while (count-- > 0)
        mailbox_close(&committer->errands[count].answered);
}

static int open_errands(struct committer *committer)
{
    for (size_t i = 0; i < COMMITTER_CLIENTS; i++) {
        const int rc = mailbox_open(&committer->errands[i].answered);
        if (rc != 0) {
            close_errands(committer, i);
            return rc;
        }
    }
    return 0;
}

/* Where letters arrive. */
static int open_mailboxes(struct committer *committer)
{
    int rc = open_errands(committer);

    if (rc != 0)
        return rc;
    rc = mailbox_open(&committer->inbox);
    if (rc != 0)
        close_errands(committer, COMMITTER_CLIENTS);
    return rc;
}

static void close_mailboxes(struct committer *committer)
{
    mailbox_close(&committer->inbox);
    close_errands(committer, COMMITTER_CLIENTS);
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
    resident_open(&committer->resident, database);
    rc = open_mailboxes(committer);
    if (rc == 0) {
        rc = thread_start(&committer->thread, run, committer);
        if (rc != 0)
            close_mailboxes(committer);
    }
    if (rc != 0) {
        resident_close(&committer->resident);
        room_close(&committer->room);
    }
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
    close_mailboxes(committer);
    resident_close(&committer->resident);
    room_close(&committer->room);
    apply_release_memory(&committer->apply);
}
