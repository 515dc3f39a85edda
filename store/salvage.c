/* See salvage.h. From the old file to the new in three steps:
 *
 *     take    rows, as they are: whatever database holds them, and whatever leaf page
 *     settle  segment by segment, what lives: not below its queue's head, not marked as gone, in no
 *             range that was deleted. A segment in which nothing does goes, and with the last of a
 *             deleted queue its row. Deleted ranges are done with then, so that none is trimmed a
 *             second time from what is counted here
 *     count   blobs: how many living entries need each, and what they cost. Those that nothing
 *             needs stay behind with the old file
 *
 * Nothing that was counted before is believed. */
#include "store/salvage.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/directory.h"
#include "base/log.h"
#include "store/array.h"
#include "store/pages.h"
#include "store/room.h"
#include "store/sort.h"

#define KEPT_PREFIX "data.mdb.damaged-" /* then the time: what salvages leave of what they read */

enum {
    TXN_BYTES = 8 << 20,
    ROW_BYTES = 1024,   /* what a small row is taken to make of a transaction */
    SEVERAL = 1U << 31, /* in a use of a blob: it has more than one body */

    STEPS_PER_QUESTION = 1024,
    MENDS_MAX = 100, /* pages: a second or two */
};

struct range {
    uint64_t first, end;
};

struct salvage {
    struct pages old;

    struct database database; /* the new one */
    MDB_txn *txn;
    size_t txn_bytes;
    unsigned mends_left; /* see pages_read_mended */
    bool sweeps;         /* what is found now may be old */
    int rc;              /* of the new one: 0 or LMDB's; ECANCELED: its owner would rather go */
    const struct store_waiting *waiting;
    uint64_t steps;

    ARRAY_OF(struct range) ranges; /* deleted, of the queue that is being settled */
    struct sort_list uses;         /* blob -> cost and number of entries, for each segment */

    uint64_t rows, lost; /* copied; unreadable pages and rows */
    uint64_t entries, queues;
    struct state_row state;
    uint32_t format; /* 0: not known */
};

/* A page or row more has been read. */
static void count_step(struct salvage *salvage)
{
    if (salvage->steps++ % STEPS_PER_QUESTION == 0 && salvage->rc == 0 &&
        !store_goes_on(salvage->waiting))
        salvage->rc = ECANCELED;
}

/* ---- the new file ---------------------------------------------------------------------------- */

static void renew_txn(struct salvage *salvage)
{
    if (salvage->txn != NULL && salvage->rc == 0)
        salvage->rc = mdb_txn_commit(salvage->txn);
    else if (salvage->txn != NULL)
        mdb_txn_abort(salvage->txn);
    salvage->txn = NULL;
    salvage->txn_bytes = 0;
    if (salvage->rc == 0)
        salvage->rc = mdb_txn_begin(salvage->database.env, NULL, 0, &salvage->txn);
}

static void put(struct salvage *salvage, enum database_id id, struct slice key, struct slice value,
                unsigned flags)
{
    MDB_val k = val_of(key), v = val_of(value);

    if (salvage->rc != 0)
        return;
    int rc = mdb_put(salvage->txn, salvage->database.dbi[id], &k, &v, flags);
    if (rc == 0)
        salvage->rows++;
    else if (rc != MDB_KEYEXIST)
        salvage->rc = rc;
    salvage->txn_bytes += ROW_BYTES + value.size;
    if (salvage->txn_bytes >= TXN_BYTES)
        renew_txn(salvage);
}

static bool get(struct salvage *salvage, enum database_id id, struct slice key, struct slice *value)
{
    MDB_val k = val_of(key), v;
    const int rc = salvage->rc != 0 ? 0 : mdb_get(salvage->txn, salvage->database.dbi[id], &k, &v);

    if (rc != 0 && rc != MDB_NOTFOUND)
        salvage->rc = rc;
    if (rc != 0 || salvage->rc != 0)
        return false;
    *value = slice_of_val(v);
    return true;
}

static void delete_row(struct salvage *salvage, enum database_id id, struct slice key)
{
    MDB_val k = val_of(key);
    const int rc =
        salvage->rc != 0 ? 0 : mdb_del(salvage->txn, salvage->database.dbi[id], &k, NULL);

    if (rc != 0 && rc != MDB_NOTFOUND)
        salvage->rc = rc;
}

static MDB_cursor *open_cursor(struct salvage *salvage, enum database_id id)
{
    MDB_cursor *cursor = NULL;

    if (salvage->rc == 0)
        salvage->rc = mdb_cursor_open(salvage->txn, salvage->database.dbi[id], &cursor);
    return cursor;
}

/* The next row, or with op another. */
static bool move(struct salvage *salvage, MDB_cursor *cursor, MDB_cursor_op op, struct slice *key,
                 struct slice *value)
{
    count_step(salvage);
    if (cursor == NULL || salvage->rc != 0)
        return false;
    const int rc = database_get(cursor, op, key, value);
    if (rc != 0 && rc != MDB_NOTFOUND)
        salvage->rc = rc;
    return rc == 0;
}

static void delete (struct salvage *salvage, MDB_cursor *cursor)
{
    if (salvage->rc == 0)
        salvage->rc = mdb_cursor_del(cursor, 0);
}

/* ---- taking rows ----------------------------------------------------------------------------- */

/* Whether it is a sound row of that database. Of the databases other than "record", a row is of one
 * at most. */
static bool is_row_of(enum database_id id, struct slice key, struct slice value)
{
    static struct segment segment;
    struct queue_row queue;
    struct live_row live;
    struct gone gone;
    uint64_t number;

    switch (id) {
    case DB_BLOB:
        return key.size == 12 && (get_u32(key.data + 8) == PART_HOLDERS ? record_check(key, value)
                                                                        : part_check(value));
    case DB_INDEX:
        return segment_decode(key, value, &segment);
    case DB_GONE:
        return key.size == 16 && record_check(key, value) &&
               gone_decode(key, value, record_count(value), &gone);
    case DB_LIVE:
        return live_decode(key, value, &live);
    case DB_SPARSE:
        return key.size == 16 && value.size == SPARSE_ROW_SIZE && record_check(key, value);
    case DB_QUEUE:
        return queue_row_decode(key, value, &queue);
    case DB_TRIM:
        return key.size == 16 && number_decode(key, value, &number);
    case DB_META:
        return (slice_equal(key, SLICE("format")) || slice_equal(key, database_state_key())) &&
               record_check(key, value);
    default:
        return key.size > 0 && record_check(key, value);
    }
}

/* The later of two rows of a queue. */
static bool queue_is_later(struct slice key, struct slice value, struct slice old)
{
    struct queue_row a, b;

    return queue_row_decode(key, value, &a) && queue_row_decode(key, old, &b) && a.head >= b.head &&
           a.tail >= b.tail;
}

static bool gone_is_later(struct slice key, struct slice value, struct slice old)
{
    struct gone a, b;

    return gone_decode(key, value, record_count(value), &a) &&
           gone_decode(key, old, record_count(old), &b) && gone_count(&a) > gone_count(&b);
}

/* What was found first stays; but of a row that a tree has no more, there may be several, and in
 * these two databases it shows which is the latest. */
static void take_sound(struct salvage *salvage, enum database_id id, struct slice key,
                       struct slice value)
{
    struct slice old;
    struct state_row state;
    bool later = false;

    if (id == DB_LIVE || id == DB_SPARSE)
        return; /* made anew */
    if (id == DB_META) {
        if (state_decode(key, value, &state) && state.lsn > salvage->state.lsn)
            salvage->state = state;
        if (slice_equal(key, SLICE("format")) && value.size == FORMAT_ROW_SIZE && !salvage->sweeps)
            salvage->format = get_u32(value.data + HEADER_SIZE);
        return;
    }
    if (salvage->sweeps && (id == DB_QUEUE || id == DB_GONE) && get(salvage, id, key, &old))
        later = (id == DB_QUEUE ? queue_is_later : gone_is_later)(key, value, old);
    put(salvage, id, key, value, later ? 0 : MDB_NOOVERWRITE);
}

typedef void node_taker(struct salvage *salvage, const struct page_node *node, void *context);

/* A row of a database that is known. */
static void take_row(struct salvage *salvage, const struct page_node *node, void *context)
{
    const enum database_id id = *(const enum database_id *)context;
    struct slice value;

    if (pages_get_value(&salvage->old, node, &value) && is_row_of(id, node->key, value))
        take_sound(salvage, id, node->key, value);
    else
        salvage->lost++;
}

/* A row in a leaf that no tree led to: it shows of which database it is. */
static void take_stray(struct salvage *salvage, const struct page_node *node)
{
    struct slice value;

    if (node->is_database || !pages_get_value(&salvage->old, node, &value))
        return;
    for (enum database_id id = 0; id < DATABASE_COUNT; id++)
        if (id != DB_RECORD && is_row_of(id, node->key, value)) {
            take_sound(salvage, id, node->key, value);
            return;
        }
    if (is_row_of(DB_RECORD, node->key, value))
        take_sound(salvage, DB_RECORD, node->key, value);
}

/* ---- the old file ---------------------------------------------------------------------------- */

/* Every node of the leaves below; what cannot be read is counted. */
static void walk(struct salvage *salvage, uint64_t number, unsigned depth, node_taker *take,
                 void *context)
{
    struct pages *old = &salvage->old;
    uint8_t page[PAGE_SIZE_MAX];
    struct page_node node;

    count_step(salvage);
    if (number == PAGE_NONE || salvage->rc != 0)
        return;
    if (depth > PAGE_DEPTH_MAX || number < 2 || number >= old->count ||
        pages_was_seen(old, number) ||
        !pages_read_mended(old, number, page, &salvage->mends_left)) {
        salvage->lost++;
        return;
    }
    pages_see(old, number);
    for (unsigned i = 0; i < pages_node_count(old, page); i++) {
        if (!pages_get_node(old, page, i, &node))
            salvage->lost++;
        else if (page_is_leaf(page))
            take(salvage, &node, context);
        else
            walk(salvage, node.child, depth + 1, take, context);
    }
}

static void take_database(struct salvage *salvage, const struct page_node *node, void *context)
{
    uint32_t *found = context;
    struct page_tree tree;

    for (enum database_id id = 0; id < DATABASE_COUNT; id++)
        if (slice_equal(node->key, slice_of_string(database_name(id))) &&
            page_get_tree(node, &tree)) {
            *found |= 1U << id;
            walk(salvage, tree.root, 0, take_row, &id);
        }
}

static void take_databases(struct salvage *salvage, const struct page_meta *meta)
{
    uint32_t found = 0;

    walk(salvage, meta->databases.root, 0, take_database, &found);
    if (meta->databases.root != PAGE_NONE)
        salvage->lost += DATABASE_COUNT - (unsigned)__builtin_popcount(found);
}

/* Free pages hold what was deleted: as good as seen. */
static void pass_free(struct salvage *salvage, const struct page_node *node, void *context)
{
    struct slice value;
    uint64_t count;
    (void)context;

    if (!pages_get_value(&salvage->old, node, &value) || !page_get_free(value, &count)) {
        salvage->lost++;
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        pages_see(&salvage->old, page_free_number(value, i));
}

/* Pages below `end`. */
static void sweep(struct salvage *salvage, uint64_t end)
{
    struct pages *old = &salvage->old;
    uint8_t page[PAGE_SIZE_MAX];
    struct page_node node;

    salvage->sweeps = true;
    for (uint64_t number = 2, run; number < end && salvage->rc == 0; number += run) {
        run = 1;
        count_step(salvage);
        if (pages_was_seen(old, number) || !pages_read(old, number, page))
            continue;
        run = page_run(page);
        if (!page_is_leaf(page))
            continue;
        for (unsigned i = 0; i < pages_node_count(old, page); i++)
            if (pages_get_node(old, page, i, &node))
                take_stray(salvage, &node);
    }
}

static void take_file(struct salvage *salvage)
{
    struct page_meta metas[2];
    const bool sound[2] = {pages_read_meta(&salvage->old, 0, &metas[0]),
                           pages_read_meta(&salvage->old, 1, &metas[1])};
    const struct page_meta *newer =
        &metas[!sound[0] || (sound[1] && metas[1].transaction > metas[0].transaction)];

    salvage->lost += !sound[0] + !sound[1];
    take_databases(salvage, newer);
    if (salvage->lost == 0)
        return;
    walk(salvage, newer->free.root, 0, pass_free, NULL);
    /* Behind the last page in use is what was written and not committed, unless the other meta page
     * knew more. */
    sweep(salvage,
          sound[0] && sound[1] ? min_of(newer->last + 1, salvage->old.count) : salvage->old.count);
}

/* ---- settling what lives --------------------------------------------------------------------- */

/* Answers whether the queue was deleted: that is a range without an end, and below where it begins
 * everything was dead before. */
static bool load_ranges(struct salvage *salvage, uint64_t queue_id)
{
    const struct key from = key_u64(queue_id);
    struct slice key = key_slice(&from), value;
    MDB_cursor *cursor = open_cursor(salvage, DB_TRIM);
    bool deleted = false;

    array_clear(&salvage->ranges);
    for (bool more = move(salvage, cursor, MDB_SET_RANGE, &key, &value);
         more && get_u64(key.data) == queue_id;
         more = move(salvage, cursor, MDB_NEXT, &key, &value)) {
        struct range *range = array_add(&salvage->ranges);
        range->first = get_u64(key.data + 8);
        if (!number_decode(key, value, &range->end))
            range->end = 0;
        deleted = deleted || range->end == UINT64_MAX;
    }
    if (cursor != NULL)
        mdb_cursor_close(cursor);
    return deleted;
}

static bool was_deleted(const struct salvage *salvage, uint64_t position)
{
    for (uint32_t i = 0; i < salvage->ranges.count; i++)
        if (position >= salvage->ranges.items[i].first && position < salvage->ranges.items[i].end)
            return true;
    return false;
}

/* Takes what lives in the segment into the row. false: nothing does. */
static bool settle_segment(struct salvage *salvage, struct slice key, struct slice value,
                           struct queue_row *row)
{
    static struct segment segment;
    struct segment_reader reader;
    struct slice gone_value;
    struct gone gone = {0};
    uint64_t cost = 0;
    uint32_t count = 0, several = 0;
    bool damaged;

    if (!segment_decode(key, value, &segment))
        return false;
    if (get(salvage, DB_GONE, key, &gone_value) &&
        !gone_decode(key, gone_value, segment.count, &gone))
        gone = (struct gone){0};
    segment_read(&reader, &segment);
    while (segment_next(&reader, &damaged)) {
        const struct segment_entry *entry = &reader.entry;
        if (entry->position < row->head || gone_has(&gone, reader.index - 1) ||
            was_deleted(salvage, entry->position))
            continue;
        count++;
        cost += blob_cost(entry->place.size);
        several |= entry->place.part != 0 || entry->place.offset != 0 ? SEVERAL : 0;
        row->bytes += entry->weight;
        row->deadlines |= entry->expires_ms != 0;
    }
    row->count += count;
    row->tail = max_of(row->tail, segment.last + 1);
    if (count > 0)
        sort_add(&salvage->uses, segment.blob, cost, count | several);
    return count > 0;
}

static void settle_segments(struct salvage *salvage, uint64_t queue_id, bool deleted,
                            struct queue_row *row)
{
    const struct key from = key_u64(queue_id);
    struct slice key = key_slice(&from), value;
    MDB_cursor *cursor = open_cursor(salvage, DB_INDEX);

    for (bool more = move(salvage, cursor, MDB_SET_RANGE, &key, &value);
         more && get_u64(key.data) == queue_id;
         more = move(salvage, cursor, MDB_NEXT, &key, &value))
        if (deleted || !settle_segment(salvage, key, value, row))
            delete (salvage, cursor);
    if (cursor != NULL)
        mdb_cursor_close(cursor);
}

static void settle_queue(struct salvage *salvage, uint64_t queue_id)
{
    const struct key name = key_u64(queue_id);
    const bool deleted = load_ranges(salvage, queue_id);
    struct queue_row row = {0};
    uint8_t encoded[QUEUE_ROW_SIZE];
    struct slice value;

    if (get(salvage, DB_QUEUE, key_slice(&name), &value))
        queue_row_decode(key_slice(&name), value, &row);
    row.count = row.bytes = 0;
    settle_segments(salvage, queue_id, deleted, &row);
    if (deleted) {
        delete_row(salvage, DB_QUEUE, key_slice(&name));
        return;
    }
    if (row.count == 0)
        row.head = row.tail;
    row.delivered = row.tail;
    queue_row_encode(queue_id, &row, encoded);
    put(salvage, DB_QUEUE, key_slice(&name), slice_of(encoded, sizeof encoded), 0);
    salvage->entries += row.count;
    salvage->queues++;
}

/* The queues that rows of the database belong to. */
static void list_queues(struct salvage *salvage, enum database_id id, struct sort_list *list)
{
    MDB_cursor *cursor = open_cursor(salvage, id);
    struct slice key = {0}, value;
    uint64_t last = 0;

    for (bool more = move(salvage, cursor, MDB_FIRST, &key, &value); more;
         more = move(salvage, cursor, MDB_NEXT, &key, &value)) {
        if (list->list.count == 0 || get_u64(key.data) != last)
            sort_add(list, get_u64(key.data), 0, 0);
        last = get_u64(key.data);
    }
    if (cursor != NULL)
        mdb_cursor_close(cursor);
}

/* Or a segment that comes to have such a key would be taken to be partly gone. */
static void drop_gone_without_segment(struct salvage *salvage)
{
    MDB_cursor *cursor = open_cursor(salvage, DB_GONE);
    struct slice key = {0}, value, segment;

    for (bool more = move(salvage, cursor, MDB_FIRST, &key, &value); more;
         more = move(salvage, cursor, MDB_NEXT, &key, &value))
        if (!get(salvage, DB_INDEX, key, &segment))
            delete (salvage, cursor);
    if (cursor != NULL)
        mdb_cursor_close(cursor);
}

static void settle(struct salvage *salvage)
{
    struct sort_list ids = {0};

    list_queues(salvage, DB_QUEUE, &ids);
    list_queues(salvage, DB_INDEX, &ids);
    sort_run(&ids);
    for (uint32_t i = 0; i < ids.list.count; i++)
        if (i == 0 || ids.list.items[i].major != ids.list.items[i - 1].major)
            settle_queue(salvage, ids.list.items[i].major);
    sort_release(&ids);
    drop_gone_without_segment(salvage);
    if (salvage->rc == 0)
        salvage->rc = mdb_drop(salvage->txn, salvage->database.dbi[DB_TRIM], 0);
}

/* ---- counting blobs -------------------------------------------------------------------------- */

/* uses is sorted. */
static void drop_useless_blobs(struct salvage *salvage)
{
    const struct sort_item *uses = salvage->uses.list.items;
    const uint32_t count = salvage->uses.list.count;
    MDB_cursor *cursor = open_cursor(salvage, DB_BLOB);
    struct slice key = {0}, value;
    uint32_t next = 0;

    for (bool more = move(salvage, cursor, MDB_FIRST, &key, &value); more;
         more = move(salvage, cursor, MDB_NEXT, &key, &value)) {
        const uint64_t blob = get_u64(key.data);
        salvage->state.blob = max_of(salvage->state.blob, blob);
        while (next < count && uses[next].major < blob)
            next++;
        if (next == count || uses[next].major != blob)
            delete (salvage, cursor);
    }
    if (cursor != NULL)
        mdb_cursor_close(cursor);
}

/* As if it had been written now, with what lives. */
static void put_live(struct salvage *salvage, uint64_t blob, uint64_t entries, uint64_t cost,
                     bool several)
{
    const struct key key = key_u64(blob);
    struct live_row row = {.entries = (uint32_t)min_of(entries, (uint64_t)LIVE_PINNED)};
    uint8_t encoded[LIVE_ROW_SIZE];

    row.size = row.alive = (uint32_t)min_of(cost, (uint64_t)UINT32_MAX);
    row.sparse_at = several ? blob_sparse_at(row.alive) : 0;
    live_encode(blob, &row, encoded);
    put(salvage, DB_LIVE, key_slice(&key), slice_of(encoded, sizeof encoded), 0);
    salvage->state.size += row.size;
    salvage->state.blob = max_of(salvage->state.blob, blob); /* its bodies may be lost */
}

static void count_blobs(struct salvage *salvage)
{
    sort_run(&salvage->uses);
    drop_useless_blobs(salvage);
    const struct sort_item *uses = salvage->uses.list.items;
    for (uint32_t i = 0; i < salvage->uses.list.count;) {
        const uint64_t blob = uses[i].major;
        uint64_t entries = 0, cost = 0;
        uint32_t several = 0;
        for (; i < salvage->uses.list.count && uses[i].major == blob; i++) {
            entries += uses[i].value & ~SEVERAL;
            several |= uses[i].value & SEVERAL;
            cost += uses[i].minor;
        }
        put_live(salvage, blob, entries, cost, several != 0);
    }
}

static void put_state(struct salvage *salvage)
{
    uint8_t row[STATE_ROW_SIZE];

    salvage->state.clean = false;
    salvage->state.salvaged = true;
    salvage->state.lsn = max_of(salvage->state.lsn, salvage->state.blob);
    state_encode(database_state_key(), &salvage->state, row);
    put(salvage, DB_META, database_state_key(), slice_of(row, sizeof row), 0);
}

/* ---- files ----------------------------------------------------------------------------------- */

static char *path_of(const char *directory, const char *name)
{
    return xasprintf("%s/%s", directory, name);
}

static void remove_file(const char *directory, const char *name)
{
    char *path = path_of(directory, name);

    unlink(path);
    free(path);
}

static void remove_new(const char *directory)
{
    remove_file(directory, "data.mdb");
    remove_file(directory, "lock.mdb");
    rmdir(directory);
}

static int make_new(const char *new_directory)
{
    remove_new(new_directory);
    return mkdir(new_directory, 0700) < 0 ? -errno : 0;
}

/* The old file keeps its bytes under another name before the new one takes its place. */
static int change_places(const char *directory, const char *new_directory,
                         struct store_salvage *saved)
{
    char *old = path_of(directory, "data.mdb"), *new = path_of(new_directory, "data.mdb");
    const time_t now = time(NULL);
    struct tm utc;
    char when[32];

    strftime(when, sizeof when, "%Y%m%dT%H%M%SZ", gmtime_r(&now, &utc));
    saved->when_ms = (uint64_t)now * 1000;
    snprintf(saved->kept, sizeof saved->kept, "%s/" KEPT_PREFIX "%s", directory, when);
    const int result =
        (link(old, saved->kept) < 0 && errno != EEXIST) || rename(new, old) < 0 ? -errno : 0;
    directory_sync_of(old);
    free(old);
    free(new);
    if (result == 0)
        remove_file(directory, "lock.mdb");
    return result;
}

static int rewrite(struct salvage *salvage, const struct store_options *options,
                   const char *new_directory, char error[STORE_ERROR_SIZE])
{
    struct store_options new_options = *options;

    new_options.directory = new_directory;
    int rc = make_new(new_directory);
    if (rc != 0)
        return rc;
    rc = database_open(&salvage->database, &new_options, error);
    if (rc != 0)
        return rc;
    renew_txn(salvage);
    take_file(salvage);
    salvage->state.size = salvage->state.sparse = 0;
    settle(salvage);
    count_blobs(salvage);
    put_state(salvage);
    renew_txn(salvage);
    if (salvage->txn != NULL)
        mdb_txn_abort(salvage->txn);
    if (salvage->rc == EIO && room_is_wanting(&salvage->database, EIO))
        salvage->rc = ENOSPC;
    database_close(&salvage->database);
    return database_errno(salvage->rc);
}

/* ---- no room --------------------------------------------------------------------------------- */

static double mib(uint64_t octets)
{
    return (double)octets / (1024 * 1024);
}

/* What a file takes on disk; 0: there is none. */
static uint64_t size_on_disk(const char *directory, const char *name)
{
    char *path = path_of(directory, name);
    struct stat file = {0};

    const int result = stat(path, &file);
    free(path);
    return result == 0 ? (uint64_t)file.st_blocks * 512 : 0;
}

/* The files that earlier salvages have left: how many, and what they take. */
static unsigned find_kept(const char *directory, uint64_t *size)
{
    DIR *files = opendir(directory);
    unsigned count = 0;

    *size = 0;
    if (files == NULL)
        return 0;
    for (const struct dirent *file; (file = readdir(files)) != NULL;)
        if (strncmp(file->d_name, KEPT_PREFIX, strlen(KEPT_PREFIX)) == 0) {
            *size += size_on_disk(directory, file->d_name);
            count++;
        }
    closedir(files);
    return count;
}

/* What is sound takes at most what the damaged file does. The new file is gone again. */
static void say_no_room(const char *directory, char error[STORE_ERROR_SIZE])
{
    const uint64_t needed = size_on_disk(directory, "data.mdb");
    struct statvfs disk = {0};
    char old[160] = "";
    uint64_t kept;

    statvfs(directory, &disk);
    const unsigned count = find_kept(directory, &kept);
    if (count > 0)
        snprintf(old, sizeof old,
                 "; " KEPT_PREFIX "* there, %u of earlier salvages with %.1f MiB, may be removed",
                 count, mib(kept));
    snprintf(
        error, STORE_ERROR_SIZE,
        "cannot salvage the store in %s: the disk is full. data.mdb takes %.1f MiB, and what is "
        "sound of it is copied: up to that much is needed beside it, and %.1f MiB are free. "
        "Make room, or move the directory to a larger disk, and start again%s",
        directory, mib(needed), mib((uint64_t)disk.f_bavail * disk.f_frsize), old);
}

/* Of another version's file nothing is understood; whoever opens it will say so. */
static bool is_ours(const struct salvage *salvage)
{
    return salvage->format == 0 || salvage->format == FORMAT_VERSION;
}

int salvage(const struct store_options *options, struct store_salvage *saved,
            char error[STORE_ERROR_SIZE])
{
    struct salvage salvage = {.waiting = &options->waiting, .mends_left = MENDS_MAX};
    char *new_directory = path_of(options->directory, "salvage.new");

    int rc = pages_open(&salvage.old, options->directory);
    if (rc == 0)
        rc = rewrite(&salvage, options, new_directory, error);
    if (rc == 0 && is_ours(&salvage))
        rc = change_places(options->directory, new_directory, saved);
    if (rc == 0 && is_ours(&salvage)) {
        saved->messages = salvage.entries;
        saved->queues = salvage.queues;
        saved->lost = salvage.lost;
        log_error("the store was salvaged: %" PRIu64 " rows, with %" PRIu64 " messages in %" PRIu64
                  " queues; %" PRIu64 " pages or rows could not be read; the damaged file is kept, "
                  "and may be removed when nobody needs it: %s",
                  salvage.rows, salvage.entries, salvage.queues, salvage.lost, saved->kept);
        remove_file(options->directory, SALVAGE_NOTE);
    }
    remove_new(new_directory);
    if (rc == -EDQUOT || (rc == -ENOSPC && salvage.rc != MDB_MAP_FULL))
        say_no_room(options->directory, error);
    else if (rc != 0)
        snprintf(error, STORE_ERROR_SIZE, "cannot salvage the store in %s: %s", options->directory,
                 strerror(-rc));
    pages_release(&salvage.old);
    array_release(&salvage.ranges);
    sort_release(&salvage.uses);
    free(new_directory);
    return rc;
}
