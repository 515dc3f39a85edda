/* A fetch is answered in one read transaction, in two walks: over the segments, to choose the
 * entries and to know how much memory the answer takes; over the parts, to copy the bodies. Nothing
 * points into the map when it is handed back, and the transaction is reset before the next wait.
 *
 * A row that cannot be read is mended before anything is answered, and the fetch begins anew. Where
 * that is of no use (there is no room, say) what the row led to is passed over. */
#include "store/reader.h"

#include "base/log.h"
#include "store/body.h"
#include "store/engine.h"
#include "store/salvage.h"
#include "base/thread.h"

/* ---- choosing -------------------------------------------------------------------------------- */

/* LMDB's code as 0 or -errno; damage is said in the log, for the rest may pass. */
static int failed(int rc)
{
    if (!salvage_if_damage(rc))
        return database_errno(rc);
    log_error("the store could not read: %s", mdb_strerror(rc));
    return -EBADMSG;
}

/* Where the living entries may begin: MDB_NOTFOUND when there is no such queue, or another code.
 * *sound: it could be read. */
static int find_head(struct reader *reader, const struct store_fetch *fetch, uint64_t *head,
                     bool *sound)
{
    const struct key wanted = key_u64(fetch->queue_id);
    MDB_val key = val_of(key_slice(&wanted)), value;
    struct queue_row row;

    int rc = mdb_get(reader->txn, reader->database->dbi[DB_QUEUE], &key, &value);
    *sound = rc != 0 || queue_row_decode(key_slice(&wanted), slice_of_val(value), &row);
    *head = rc == 0 && *sound ? row.head : 0;
    return rc;
}

/* Collects what the fetch returns, sets fetch->next, and *size to the bytes of all bodies. false: a
 * row could not be read, which ends it if it stops. */
static bool choose(struct reader *reader, struct store_fetch *fetch, bool stops, size_t *size)
{
    struct scan *scan = &reader->scan;
    bool sound;
    uint64_t head;

    array_clear(&reader->items);
    fetch->next = fetch->end;
    *size = 0;
    int rc = find_head(reader, fetch, &head, &sound);
    if (rc != 0 || (!sound && stops)) {
        fetch->error = failed(rc == MDB_NOTFOUND ? 0 : rc);
        return sound;
    }
    scan->stops = stops;
    scan_begin(scan, reader->database, reader->txn, fetch->queue_id, max_of(fetch->first, head),
               fetch->end);
    while (scan_next(scan)) {
        const size_t body_size = fetch->index_only ? 0 : scan->entry.place.size;
        if (reader->items.count > 0 && (reader->items.count >= fetch->count_max ||
                                        size_add(*size, body_size) > fetch->bytes_max)) {
            fetch->next = scan->entry.position;
            break;
        }
        *size += body_size;
        *array_add(&reader->items) = (struct reader_item){scan->entry, scan->blob};
    }
    fetch->damaged += stops ? 0 : scan->damaged;
    fetch->error = failed(scan->rc);
    scan_end(scan);
    return sound && scan->damaged == 0;
}

/* ---- copying --------------------------------------------------------------------------------- */

static void copy_bodies(struct reader *reader, struct store_fetch *fetch, uint8_t *to)
{
    struct body_reader bodies;

    body_reader_begin(&bodies, reader->database, reader->txn);
    for (uint32_t i = 0; i < reader->items.count; i++) {
        const struct reader_item *item = &reader->items.items[i];
        struct store_fetched *fetched = &fetch->entries[i];
        *fetched = (struct store_fetched){.position = item->entry.position,
                                          .expires_ms = item->entry.expires_ms,
                                          .weight = item->entry.weight,
                                          .flags = item->entry.flags};
        if (fetch->index_only)
            continue;
        fetched->bytes = slice_of(to, item->entry.place.size);
        if (!body_read(&bodies, item->blob, &item->entry, to)) {
            fetched->damaged = true;
            fetch->damaged++;
            log_error("the store is damaged: body of entry %" PRIu64 "/%" PRIu64, fetch->queue_id,
                      item->entry.position);
        }
        to += item->entry.place.size;
    }
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* Whether the fetch may begin anew. */
static bool mend(struct reader *reader, struct store_fetch *fetch)
{
    const struct damage damage = {.kind = DAMAGE_QUEUE, .id = fetch->queue_id};
    const struct mend *mend = committer_mend(reader->committer, COMMITTER_READER, &damage);

    if (mend->error != 0)
        return false;
    fetch->damaged += mend->repaired + mend->removed;
    fetch->lost_count += mend->lost_count;
    fetch->lost_bytes += mend->lost_bytes;
    return mend->repaired + mend->removed > 0;
}

static void answer(struct reader *reader, struct store_fetch *fetch)
{
    bool stops = true, again;

    do {
        size_t size;
        fetch->error = failed(mdb_txn_renew(reader->txn));
        if (fetch->error != 0)
            return;
        again = !choose(reader, fetch, stops, &size) && stops && fetch->error == 0;
        if (!again && fetch->error == 0)
            copy_bodies(reader, fetch, engine_fetch_room(fetch, reader->items.count, size));
        mdb_txn_reset(reader->txn);
        if (again)
            stops = mend(reader, fetch);
    } while (again);
}

static void *run(void *argument)
{
    struct reader *reader = argument;
    struct letter_list letters = STAILQ_HEAD_INITIALIZER(letters);

    salvage_stage("reading messages");
    for (bool stops = false; !stops;) {
        mailbox_wait(&reader->inbox);
        mailbox_take(&reader->inbox, &letters);
        while (!STAILQ_EMPTY(&letters)) {
            struct letter *letter = STAILQ_FIRST(&letters);
            STAILQ_REMOVE_HEAD(&letters, link);
            if (letter == &reader->stop) {
                stops = true;
            } else {
                answer(reader, container_of(letter, struct store_fetch, letter));
                mailbox_post(reader->done, letter);
            }
        }
    }
    return NULL;
}

int reader_start(struct reader *reader, const struct database *database,
                 struct committer *committer, struct mailbox *done)
{
    reader->database = database;
    reader->committer = committer;
    reader->done = done;
    int rc = mailbox_open(&reader->inbox);
    if (rc != 0)
        return rc;
    rc = database_errno(mdb_txn_begin(database->env, NULL, MDB_RDONLY, &reader->txn));
    if (rc == 0) {
        mdb_txn_reset(reader->txn);
        rc = thread_start(&reader->thread, run, reader);
        if (rc != 0)
            mdb_txn_abort(reader->txn);
    }
    if (rc != 0)
        mailbox_close(&reader->inbox);
    return rc;
}

void reader_submit(struct reader *reader, struct store_fetch *fetch)
{
    mailbox_post(&reader->inbox, &fetch->letter);
}

void reader_stop(struct reader *reader)
{
    mailbox_post(&reader->inbox, &reader->stop);
    pthread_join(reader->thread, NULL);
    mdb_txn_abort(reader->txn);
    mailbox_close(&reader->inbox);
    array_release(&reader->items);
}
