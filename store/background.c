/* See background.h. Its snapshots last a millisecond or two, as pages freed meanwhile cannot be
 * used again and the file grows instead; a queue's counters alone are compared in one go, which
 * takes a hundred milliseconds for ten million messages.
 *
 *     snapshot: a step │ rests, RESTS times as long │ snapshot │ ...
 *
 * It keeps out of the way by resting, and not by a low priority: on a busy machine that would leave
 * it without the processor for a second at a time, with a snapshot open. */
#include "store/background.h"

#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "store/salvage.h"

enum {
    STEP_NS = 1000000,
    RESTS = 10, /* after each step, times as long as it took */
    REST_MS_MAX = 1000,
    STEPS_KEPT = 8, /* until what they looked at is given back */
    FINDINGS_LOGGED = 20,
};

static void on_finding(void *context, const char *text)
{
    struct background *background = context;

    if (background->verify.findings <= FINDINGS_LOGGED)
        log_error("the store is damaged: %s", text);
}

static void on_damage(void *context, const struct damage *damage)
{
    struct background *background = context;

    *array_add(&background->damages) = *damage;
}

static void report(const struct background *background)
{
    const struct verify *verify = &background->verify;

    if (verify->rc != 0)
        log_error("the store could not be verified: %s", mdb_strerror(verify->rc));
    else if (verify->findings == 0)
        log_info("the store is sound: %" PRIu64 " messages in %" PRIu64
                 " queues verified in %.1f s",
                 verify->entries, verify->queues, (double)background->verify_ns / 1e9);
    else
        log_error("the store was damaged: %" PRIu64 " findings among %" PRIu64
                  " messages, of which the first %d are in the log; what can be is mended, and "
                  "messages are set aside: see 'stoatctl list_quarantine'",
                  verify->findings, verify->entries, FINDINGS_LOGGED);
}

/* One step. false: that was the last. */
static bool verify_some(struct background *background)
{
    MDB_txn *txn;

    background->verify.rc = mdb_txn_begin(background->database->env, NULL, MDB_RDONLY, &txn);
    if (background->verify.rc != 0)
        return false;
    const bool more = verify_step(&background->verify, txn, STEP_NS);
    mdb_txn_abort(txn);
    return more;
}

/* Or all that was looked at would count as resident. What others look at they find again. */
static void give_back(struct background *background)
{
    if (background->mapping.size > 0)
        madvise((void *)(uintptr_t)background->mapping.data, background->mapping.size,
                MADV_DONTNEED);
}

static void make_backup(struct background *background, struct background_backup *backup)
{
    log_info("backup to %s begins", backup->path);
    copy_remove(backup->path); /* the one before takes room */
    backup->result =
        copy_database(background->database, backup->path, &backup->control, backup->error);
    if (backup->result == 0)
        log_info("backup to %s is complete", backup->path);
    else
        log_error("backup failed: %s", backup->error);
    mailbox_post(background->done, &backup->letter);
}

/* Answers what is in the inbox. false: it is time to stop. */
static bool take_letters(struct background *background)
{
    struct letter_list letters = STAILQ_HEAD_INITIALIZER(letters);
    bool goes_on = true;

    mailbox_take(&background->inbox, &letters);
    while (!STAILQ_EMPTY(&letters)) {
        struct letter *letter = STAILQ_FIRST(&letters);
        STAILQ_REMOVE_HEAD(&letters, link);
        if (letter == &background->stop)
            goes_on = false;
        else if (letter == &background->finding.letter)
            background->awaits = false;
        else
            make_backup(background, container_of(letter, struct background_backup, letter));
    }
    return goes_on;
}

/* The owner takes it in before anything else is found. */
static void tell_owner(struct background *background, const struct store_finding *finding)
{
    background->finding.finding = *finding;
    background->awaits = true;
    mailbox_post(background->done, &background->finding.letter);
}

static void mend(struct background *background, const struct damage *damage)
{
    const struct mend *mend = committer_mend(background->committer, COMMITTER_BACKGROUND, damage);

    if (mend->error == 0 && mend->lost_count != 0)
        tell_owner(background, &(struct store_finding){.queue_id = damage->id,
                                                       .lost_count = mend->lost_count,
                                                       .lost_bytes = mend->lost_bytes});
}

static void deal_with(struct background *background, const struct damage *damage)
{
    if (damage->kind == DAMAGE_BODY)
        tell_owner(background, &(struct store_finding){.queue_id = damage->id,
                                                       .is_entry = true,
                                                       .position = damage->position});
    else
        mend(background, damage);
}

/* What the step found. false: it is time to stop. */
static bool deal_with_all(struct background *background)
{
    bool goes_on = true;

    for (uint32_t i = 0; i < background->damages.count && goes_on; i++) {
        deal_with(background, &background->damages.items[i]);
        while (background->awaits && goes_on) {
            mailbox_wait(&background->inbox);
            goes_on = take_letters(background);
        }
    }
    array_clear(&background->damages);
    return goes_on;
}

/* After a step that took so long. */
static int rest_ms(uint64_t took_ns)
{
    return (int)min_of(1 + RESTS * took_ns / 1000000, (uint64_t)REST_MS_MAX);
}

static void *run(void *argument)
{
    struct background *background = argument;
    const uint64_t begin = clock_monotonic_ns();
    uint32_t steps = 0;
    bool verifies = true;

    salvage_stage("verifying or copying");
    mailbox_wait_ms(&background->inbox, (int)background->database->check_after_ms);
    while (take_letters(background)) {
        if (!verifies) {
            mailbox_wait(&background->inbox);
            continue;
        }
        const uint64_t step_begin = clock_monotonic_ns();
        verifies = verify_some(background);
        const uint64_t took_ns = clock_monotonic_ns() - step_begin;
        if (++steps % STEPS_KEPT == 0 || !verifies)
            give_back(background);
        if (!deal_with_all(background))
            break;
        if (!verifies) {
            background->verify_ns = clock_monotonic_ns() - begin;
            report(background);
            mailbox_post(background->done, &background->verified);
        } else {
            mailbox_wait_ms(&background->inbox, rest_ms(took_ns));
        }
    }
    return NULL;
}

int background_start(struct background *background, const struct database *database,
                     struct committer *committer, struct mailbox *done)
{
    background->database = database;
    background->committer = committer;
    background->done = done;
    background->mapping = database_mapping(database);
    verify_begin(&background->verify, database, on_finding, background);
    background->verify.on_damage = on_damage;
    int rc = mailbox_open(&background->inbox);
    if (rc != 0)
        return rc;
    rc = thread_start(&background->thread, run, background);
    if (rc != 0)
        mailbox_close(&background->inbox);
    return rc;
}

void background_submit(struct background *background, struct background_backup *backup)
{
    mailbox_post(&background->inbox, &backup->letter);
}

void background_resume(struct background *background)
{
    mailbox_post(&background->inbox, &background->finding.letter);
}

void background_stop(struct background *background)
{
    mailbox_post(&background->inbox, &background->stop);
    pthread_join(background->thread, NULL);
    mailbox_close(&background->inbox);
    array_release(&background->damages);
}
