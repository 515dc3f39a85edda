/* The store on LMDB: the owner's end of the mailboxes.
 *
 *                ┌─── batch ───▶ committer (the only writer) ───┐
 *      owner ────┤                                              ├──▶ done ──▶ store_process
 *                ├─── fetch ───▶ reader ────────────────────────┤     └ its eventfd is store_fd
 *                └─── backup ──▶ background ────────────────────┘
 *
 * The reader and the background thread also send the committer what is to be mended (mend.h), and
 * wait for it. So they stop before the last batch, which marks the store as cleanly closed.
 *
 * Recovery alone reads on the owner's thread, before anybody else is served. */
#include "base/fault.h"
#include "base/alloc.h"
#include "store/background.h"
#include "store/committer.h"
#include "store/engine.h"
#include "store/reader.h"
#include "store/recover.h"
#include "store/salvage.h"

enum { BACKUP_IDLE_PERCENT = 50 };

struct lmdb_store {
    struct store store;
    struct database database;
    struct committer committer;
    struct reader reader;
    struct background background;
    struct background_backup backup; /* the one under way, or the last */
    struct store_waiting waiting;    /* for recovery */
    bool may_be_clean;               /* it was, or has been recovered: see store_recover */
    struct mailbox done; /* batches, fetches and the committer's failure, on their way back */
};

static struct lmdb_store *lmdb_store_of(struct store *store)
{
    return container_of(store, struct lmdb_store, store);
}

static int lmdb_recover(struct store *store, struct store_recovery *recovery)
{
    salvage_stage("reading definitions and queues");
    struct lmdb_store *lmdb = lmdb_store_of(store);
    int rc = recover(&lmdb->database, &lmdb->waiting, recovery, &store->stats.damaged);
    salvage_stage(NULL);
    lmdb->may_be_clean = lmdb->may_be_clean || rc == 0;
    return rc;
}

static void lmdb_submit(struct store *store, struct batch *batch)
{
    committer_submit(&lmdb_store_of(store)->committer, batch);
}

static void lmdb_fetch(struct store *store, struct store_fetch *fetch)
{
    reader_submit(&lmdb_store_of(store)->reader, fetch);
}

static void count_commit(struct store_stats *stats, const struct batch *batch)
{
    if (batch->refused)
        return;
    stats->commits += batch->error == 0;
    stats->bytes_written += batch->bytes_written;
    stats->damaged += batch->damaged;
    stats->commit_ns_last = batch->commit_ns;
    stats->commit_ns_max = max_of(stats->commit_ns_max, batch->commit_ns);
}

static void take_check(struct lmdb_store *lmdb)
{
    const struct verify *verify = &lmdb->background.verify;
    struct store *store = &lmdb->store;

    store->check = (struct store_check){.is_done = true,
                                        .entries = verify->entries,
                                        .body_bytes = verify->body_bytes,
                                        .findings = verify->findings,
                                        .duration_ns = lmdb->background.verify_ns};
}

static void take_finding(struct lmdb_store *lmdb)
{
    struct store *store = &lmdb->store;

    if (store->found != NULL)
        store->found(store->found_context, &lmdb->background.finding.finding);
    background_resume(&lmdb->background);
}

static void take_backup(struct lmdb_store *lmdb)
{
    struct store_backup *backup = &lmdb->store.backup;

    backup->is_running = false;
    backup->size = atomic_load(&lmdb->backup.control.bytes);
    backup->error = lmdb->backup.result;
    backup->sentence = lmdb->backup.error;
}

/* A letter that came back. Fetches are answered, or dropped when the store closes. */
static void take_letter(struct lmdb_store *lmdb, struct letter *letter, bool closing)
{
    struct store *store = &lmdb->store;

    if (store->under_way != NULL && letter == &store->under_way->letter) {
        count_commit(&store->stats, store->under_way);
        engine_settle(store, store->under_way->error);
    } else if (letter == &lmdb->background.finding.letter) {
        if (!closing)
            take_finding(lmdb);
    } else if (letter == &lmdb->background.verified) {
        take_check(lmdb);
    } else if (letter == &lmdb->backup.letter) {
        take_backup(lmdb);
    } else if (letter == &lmdb->committer.failure) {
        store->error = lmdb->committer.error;
    } else {
        struct store_fetch *fetch = container_of(letter, struct store_fetch, letter);
        store->stats.damaged += fetch->damaged;
        if (closing)
            store_fetch_release(fetch);
        else
            fetch->on_done(fetch);
    }
}

static void take_letters(struct lmdb_store *lmdb, bool closing)
{
    struct letter_list letters = STAILQ_HEAD_INITIALIZER(letters);

    mailbox_take(&lmdb->done, &letters);
    while (!STAILQ_EMPTY(&letters)) {
        struct letter *letter = STAILQ_FIRST(&letters);
        STAILQ_REMOVE_HEAD(&letters, link);
        take_letter(lmdb, letter, closing);
    }
}

static int lmdb_process(struct store *store)
{
    take_letters(lmdb_store_of(store), false);
    return store->error;
}

static void wait_until_idle(struct lmdb_store *lmdb)
{
    while (store_is_busy(&lmdb->store)) {
        mailbox_wait(&lmdb->done);
        take_letters(lmdb, true);
    }
}

static int lmdb_backup(struct store *store, const char *path)
{
    struct background_backup *backup = &lmdb_store_of(store)->backup;

    free(backup->path);
    *backup = (struct background_backup){.path = xstrdup(path),
                                         .control = {.idle_percent = BACKUP_IDLE_PERCENT}};
    store->backup = (struct store_backup){.path = backup->path, .is_running = true};
    background_submit(&lmdb_store_of(store)->background, backup);
    return 0;
}

static uint64_t lmdb_backup_size(struct store *store)
{
    return atomic_load(&lmdb_store_of(store)->backup.control.bytes);
}

void store_remove_backup(const char *path)
{
    copy_remove(path);
}

/* With as much of the open batch as finds room; nobody was told that the rest is durable. */
static void submit_last(struct lmdb_store *lmdb)
{
    struct store *store = &lmdb->store;
    uint64_t lsn;

    store_ask_for_room(store);
    do {
        struct batch *last = engine_take_open(store);
        lsn = last->lsn;
        last->closes = lmdb->may_be_clean;
        committer_submit(&lmdb->committer, last);
        wait_until_idle(lmdb);
    } while (store->error == 0 && store->durable < lsn && store->going != BATCH_NOTHING);
}

static int lmdb_close(struct store *store)
{
    struct lmdb_store *lmdb = lmdb_store_of(store);

    fault_point(FAULT_CLOSE_BEGINS);
    wait_until_idle(lmdb);
    atomic_store(&lmdb->backup.control.cancelled, true);
    background_stop(&lmdb->background); /* nobody mends after the last batch */
    reader_stop(&lmdb->reader);
    submit_last(lmdb);
    fault_point(FAULT_CLOSE_MARKED);
    committer_stop(&lmdb->committer);
    take_letters(lmdb, true);
    free(lmdb->backup.path);
    mailbox_close(&lmdb->done);
    database_close(&lmdb->database);
    return store->error;
}

static const struct engine lmdb_engine = {
    .recover = lmdb_recover,
    .submit = lmdb_submit,
    .process = lmdb_process,
    .fetch = lmdb_fetch,
    .backup = lmdb_backup,
    .backup_size = lmdb_backup_size,
    .close = lmdb_close,
};

static int start_threads(struct lmdb_store *lmdb)
{
    int rc = mailbox_open(&lmdb->done);

    if (rc != 0)
        return rc;
    lmdb->store.fd = lmdb->done.fd;
    rc = committer_start(&lmdb->committer, &lmdb->database, &lmdb->done);
    if (rc == 0) {
        rc = reader_start(&lmdb->reader, &lmdb->database, &lmdb->committer, &lmdb->done);
        if (rc != 0)
            committer_stop(&lmdb->committer);
    }
    if (rc == 0) {
        rc = background_start(&lmdb->background, &lmdb->database, &lmdb->committer, &lmdb->done);
        if (rc != 0) {
            reader_stop(&lmdb->reader);
            committer_stop(&lmdb->committer);
        }
    }
    if (rc != 0)
        mailbox_close(&lmdb->done);
    return rc;
}

/* What a compaction that was killed has left. */
static void remove_part(const char *directory)
{
    char *path = xasprintf("%s/data.mdb", directory);

    copy_remove_part(path);
    free(path);
}

int store_open(const struct store_options *options, struct store **store,
               char error[STORE_ERROR_SIZE])
{
    struct lmdb_store *lmdb = xcalloc(1, sizeof *lmdb);

    struct store_salvage saved = {0};

    remove_part(options->directory);
    int rc = salvage_is_due(options) ? salvage(options, &saved, error) : 0;
    if (rc == 0 && !store_goes_on(&options->waiting))
        rc = -ECANCELED;
    salvage_guard(options->directory);
    salvage_stage("opening the data file");
    if (rc == 0)
        rc = database_open(&lmdb->database, options, error);
    salvage_stage(NULL);
    if (rc == 0) {
        engine_init(&lmdb->store, &lmdb_engine, lmdb->database.state.lsn);
        lmdb->store.salvage = saved;
        lmdb->store.salvage.ever = lmdb->database.state.salvaged;
        lmdb->waiting = options->waiting;
        lmdb->may_be_clean = lmdb->database.state.clean;
        rc = start_threads(lmdb);
        if (rc != 0) {
            snprintf(error, STORE_ERROR_SIZE, "the store's threads: %s", strerror(-rc));
            database_close(&lmdb->database);
        }
    }
    if (rc != 0) {
        free(lmdb);
        return rc;
    }
    *store = &lmdb->store;
    return 0;
}
