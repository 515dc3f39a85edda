/* LMDB's file, as far as salvage reads it (version 1, 64-bit, little-endian, 4096-byte pages):
 *
 *     page      number u64 | pad u16 | flags u16 | lower u16, upper u16, or pages u32 of an overflow run | ...
 *     branch,   from byte 16: offsets u16 of its nodes, as far as lower; a node:
 *     leaf          low u16 | high u16 | flags u16 | key size u16 | key | data
 *               of a leaf: low and high are the data's size; flag BIG: data is the number of its first
 *               overflow page, flag DATABASE: a struct of a tree
 *               of a branch: low, high and flags are the number of the page below
 *     meta      pages 0 and 1: magic u32 | version u32 | address u64 | size u64 | tree of free pages |
 *               tree of databases | last page u64 | transaction u64
 *     tree      pad u32 | flags u16 | depth u16 | branches, leaves, overflow pages, entries, root: u64 */
#include "store/salvage.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "store/apply.h"
#include "store/scan.h"
#include "store/sort.h"

enum {
    PAGE = 4096,
    PAGE_HEADER = 16,
    NODE_HEADER = 8,
    PAGE_BRANCH = 1,
    PAGE_LEAF = 2,
    PAGE_META = 8,
    NODE_BIG = 1,
    NODE_DATABASE = 2,
    TREE_SIZE = 48,
    TREE_ROOT = 40,
    META_TREES = PAGE_HEADER + 24,
    META_TRANSACTION = PAGE_HEADER + 24 + 2 * TREE_SIZE + 8,
    DEPTH_MAX = 32,
    VALUE_MAX = 64 << 20,
    PUTS_MAX = 4096, /* in a transaction */
};

#define META_MAGIC 0xBEEFC0DEu
#define NO_PAGE    UINT64_MAX
#define NOTE       "salvage"

struct salvage {
    int fd;
    uint64_t pages;
    uint8_t *seen; /* a bit a page: met, or free */
    struct buf value;

    struct database database; /* the new one */
    MDB_txn *txn;
    uint32_t puts;
    bool sweeps; /* what is found now may be old */
    int rc;      /* of the new one: 0 or LMDB's */

    uint64_t rows, lost; /* copied; unreadable pages and rows */
    uint64_t entries, queues;
    struct state_row state;
};

/* ---- numbers and pages ----------------------------------------------------------------------- */

static uint16_t le16(const uint8_t *from)
{
    uint16_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static uint32_t le32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static uint64_t le64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static bool read_at(const struct salvage *salvage, uint64_t offset, void *to, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = pread(salvage->fd, (uint8_t *)to + done, size - done, (off_t)(offset + done));
        if (n <= 0 && !(n < 0 && errno == EINTR))
            return false;
        done += n > 0 ? (size_t)n : 0;
    }
    return true;
}

static bool read_page(const struct salvage *salvage, uint64_t number, uint8_t page[PAGE])
{
    return number < salvage->pages && read_at(salvage, number * PAGE, page, PAGE) &&
           le64(page) == number;
}

static bool was_seen(const struct salvage *salvage, uint64_t number)
{
    return salvage->seen[number / 8] >> number % 8 & 1;
}

static void see(struct salvage *salvage, uint64_t number)
{
    if (number < salvage->pages)
        salvage->seen[number / 8] |= (uint8_t)(1 << number % 8);
}

/* ---- nodes ----------------------------------------------------------------------------------- */

struct node {
    uint16_t flags;
    struct slice key, data; /* data of a leaf: as it stands in the page */
    uint32_t size;          /* of the value */
    uint64_t child;         /* of a branch */
};

static unsigned node_count(const uint8_t page[PAGE])
{
    const unsigned lower = le16(page + 12);

    return lower < PAGE_HEADER || lower > PAGE ? 0 : (lower - PAGE_HEADER) / 2;
}

static bool get_node(const uint8_t page[PAGE], unsigned index, struct node *node)
{
    const size_t offset = le16(page + PAGE_HEADER + 2 * index);
    const bool leaf = le16(page + 10) & PAGE_LEAF;

    if (offset < PAGE_HEADER || offset > PAGE - NODE_HEADER)
        return false;
    const uint8_t *at = page + offset;
    const size_t left = PAGE - offset - NODE_HEADER, key_size = le16(at + 6);
    *node = (struct node){.flags = le16(at + 4), .size = le16(at) | (uint32_t)le16(at + 2) << 16};
    node->child = node->size | (uint64_t)node->flags << 32;
    if (key_size > left)
        return false;
    node->key = slice_of(at + NODE_HEADER, key_size);
    const size_t data_size = !leaf ? 0 : node->flags & NODE_BIG ? 8 : node->size;
    if (data_size > left - key_size)
        return false;
    node->data = slice_of(at + NODE_HEADER + key_size, data_size);
    return true;
}

/* The value of a leaf's node; from an overflow run, it is valid until the next call. */
static bool get_value(struct salvage *salvage, const struct node *node, struct slice *value)
{
    uint8_t header[PAGE_HEADER];

    *value = node->data;
    if (!(node->flags & NODE_BIG))
        return true;
    const uint64_t number = le64(node->data.data),
                   pages = (node->size + PAGE_HEADER - 1U) / PAGE + 1;
    if (node->size > VALUE_MAX || number >= salvage->pages || pages > salvage->pages - number ||
        !read_at(salvage, number * PAGE, header, sizeof header) || le64(header) != number)
        return false;
    for (uint64_t i = 0; i < pages; i++)
        see(salvage, number + i);
    buf_clear(&salvage->value);
    uint8_t *to = buf_reserve(&salvage->value, node->size);
    if (!read_at(salvage, number * PAGE + PAGE_HEADER, to, node->size))
        return false;
    *value = slice_of(to, node->size);
    return true;
}

/* ---- trees ----------------------------------------------------------------------------------- */

typedef void node_taker(struct salvage *salvage, const struct node *node, void *context);

/* Every node of the leaves below; what cannot be read is counted. */
static void walk(struct salvage *salvage, uint64_t number, unsigned depth, node_taker *take,
                 void *context)
{
    uint8_t page[PAGE];
    struct node node;

    if (number == NO_PAGE)
        return;
    if (depth > DEPTH_MAX || number < 2 || number >= salvage->pages || was_seen(salvage, number) ||
        !read_page(salvage, number, page) || !(le16(page + 10) & (PAGE_BRANCH | PAGE_LEAF))) {
        salvage->lost++;
        return;
    }
    see(salvage, number);
    for (unsigned i = 0; i < node_count(page); i++) {
        if (!get_node(page, i, &node))
            salvage->lost++;
        else if (le16(page + 10) & PAGE_LEAF)
            take(salvage, &node, context);
        else
            walk(salvage, node.child, depth + 1, take, context);
    }
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void renew_txn(struct salvage *salvage)
{
    if (salvage->txn != NULL && salvage->rc == 0)
        salvage->rc = mdb_txn_commit(salvage->txn);
    else if (salvage->txn != NULL)
        mdb_txn_abort(salvage->txn);
    salvage->txn = NULL;
    salvage->puts = 0;
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
    if (++salvage->puts == PUTS_MAX)
        renew_txn(salvage);
}

/* Of two rows of a queue the later one: nothing in it ever falls. */
static void put_queue(struct salvage *salvage, struct slice key, struct slice value)
{
    struct queue_row row, old;
    MDB_val k = val_of(key), v;

    if (salvage->rc == 0 && salvage->sweeps &&
        mdb_get(salvage->txn, salvage->database.dbi[DB_QUEUE], &k, &v) == 0 &&
        queue_row_decode(key, value, &row) && queue_row_decode(key, slice_of_val(v), &old) &&
        row.head >= old.head && row.tail >= old.tail)
        put(salvage, DB_QUEUE, key, value, 0);
    else
        put(salvage, DB_QUEUE, key, value, MDB_NOOVERWRITE);
}

/* Which database a sound row is of: no two have rows alike. DATABASE_COUNT: it is none, or one that is
 * made anew. */
static enum database_id kind_of(struct slice key, struct slice value)
{
    static struct segment segment;
    struct queue_row queue;
    struct gone gone;
    uint64_t number;

    if (!record_check(key, value))
        return key.size == 12 && part_check(value) ? DB_BLOB : DATABASE_COUNT;
    if (key.size == 12 && get_u32(key.data + 8) == PART_HOLDERS)
        return DB_BLOB;
    if (key.size == 8 && queue_row_decode(key, value, &queue))
        return DB_QUEUE;
    if (key.size == 16) {
        if (value.size == NUMBER_ROW_SIZE && number_decode(key, value, &number))
            return DB_TRIM;
        if (gone_decode(key, value, record_count(value), &gone))
            return DB_GONE;
        if (segment_decode(key, value, &segment))
            return DB_INDEX;
    }
    return DATABASE_COUNT;
}

/* A row of a known database. */
static void take_row(struct salvage *salvage, const struct node *node, void *context)
{
    const enum database_id id = *(const enum database_id *)context;
    struct slice value;

    if (!get_value(salvage, node, &value)) {
        salvage->lost++;
    } else if (id == DB_RECORD && record_check(node->key, value)) {
        put(salvage, DB_RECORD, node->key, value, MDB_NOOVERWRITE);
    } else if (id == DB_META) {
        if (slice_equal(node->key, database_state_key()))
            state_decode(node->key, value, &salvage->state);
    } else if (id != DB_RECORD && kind_of(node->key, value) == id) {
        if (id == DB_QUEUE)
            put_queue(salvage, node->key, value);
        else
            put(salvage, id, node->key, value, MDB_NOOVERWRITE);
    } else {
        salvage->lost++;
    }
}

static void ignore_node(struct salvage *salvage, const struct node *node, void *context)
{
    struct slice value;
    (void)context;

    get_value(salvage, node, &value);
}

static void take_database(struct salvage *salvage, const struct node *node, void *context)
{
    (void)context;
    if (!(node->flags & NODE_DATABASE) || node->data.size != TREE_SIZE) {
        salvage->lost++;
        return;
    }
    const uint64_t root = le64(node->data.data + TREE_ROOT);
    for (enum database_id id = 0; id < DATABASE_COUNT; id++)
        if (slice_equal(node->key, slice_of_string(database_name(id))))
            walk(salvage, root, 0, id == DB_LIVE || id == DB_SPARSE ? ignore_node : take_row, &id);
}

/* A list of free pages: a count and so many numbers. */
static void take_free(struct salvage *salvage, const struct node *node, void *context)
{
    struct slice value;
    (void)context;

    if (!get_value(salvage, node, &value) || value.size < 8)
        return;
    const uint64_t count = le64(value.data);
    for (uint64_t i = 1; i <= count && i < value.size / 8; i++)
        see(salvage, le64(value.data + 8 * i));
}

/* A sound row of none of the other databases. */
static bool is_record(struct slice key, struct slice value)
{
    struct live_row live;

    return key.size > 0 && record_check(key, value) && !slice_equal(key, SLICE("format")) &&
           !slice_equal(key, database_state_key()) && !live_decode(key, value, &live) &&
           !(key.size == 16 && value.size == SPARSE_ROW_SIZE);
}

/* A row of a database that is not known: in a leaf that no tree led to. */
static void take_stray(struct salvage *salvage, const struct node *node)
{
    struct slice value;

    if (node->flags & NODE_DATABASE || !get_value(salvage, node, &value))
        return;
    enum database_id id = kind_of(node->key, value);
    if (id == DATABASE_COUNT && is_record(node->key, value))
        id = DB_RECORD;
    if (id == DB_QUEUE)
        put_queue(salvage, node->key, value);
    else if (id != DATABASE_COUNT)
        put(salvage, id, node->key, value, MDB_NOOVERWRITE);
}

static void sweep(struct salvage *salvage)
{
    uint8_t page[PAGE];
    struct node node;

    for (uint64_t number = 2; number < salvage->pages; number++) {
        if (was_seen(salvage, number) || !read_page(salvage, number, page) ||
            (le16(page + 10) & (PAGE_BRANCH | PAGE_LEAF)) != PAGE_LEAF)
            continue;
        for (unsigned i = 0; i < node_count(page); i++)
            if (get_node(page, i, &node))
                take_stray(salvage, &node);
    }
}

/* ---- the whole file -------------------------------------------------------------------------- */

static bool read_meta(const struct salvage *salvage, uint64_t number, uint8_t meta[PAGE])
{
    return number < salvage->pages && read_at(salvage, number * PAGE, meta, PAGE) &&
           le32(meta + PAGE_HEADER) == META_MAGIC && le32(meta + PAGE_HEADER + 4) == 1;
}

static void take_trees(struct salvage *salvage, const uint8_t meta[PAGE])
{
    walk(salvage, le64(meta + META_TREES + TREE_ROOT), 0, take_free, NULL);
    walk(salvage, le64(meta + META_TREES + TREE_SIZE + TREE_ROOT), 0, take_database, NULL);
}

static void take_file(struct salvage *salvage)
{
    uint8_t metas[2][PAGE];
    const bool sound[2] = {read_meta(salvage, 0, metas[0]), read_meta(salvage, 1, metas[1])};
    const int newer = !sound[0] || (sound[1] && le64(metas[1] + META_TRANSACTION) >
                                                    le64(metas[0] + META_TRANSACTION));

    if (sound[newer])
        take_trees(salvage, metas[newer]);
    if (sound[newer] && sound[!newer] && salvage->lost == 0)
        return;
    salvage->lost += !sound[newer] + !sound[!newer];
    salvage->sweeps = true;
    sweep(salvage);
}

/* ---- counts ---------------------------------------------------------------------------------- */

static void count_queue(struct salvage *salvage, uint64_t queue_id, struct queue_row *row,
                        struct sort_list *uses)
{
    struct scan scan = {0};

    row->count = row->bytes = 0;
    scan_begin(&scan, &salvage->database, salvage->txn, queue_id, row->head, UINT64_MAX);
    while (scan_next(&scan)) {
        row->count++;
        row->bytes += scan.entry.weight;
        row->deadlines |= scan.entry.expires_ms != 0;
        row->tail = max_of(row->tail, scan.segment.last + 1);
        sort_add(uses, scan.blob, blob_cost(scan.entry.place.size), 1);
    }
    for (uint32_t i = 0; i < scan.trims.count; i++)
        if (scan.trims.items[i].end != UINT64_MAX)
            row->tail = max_of(row->tail, scan.trims.items[i].end);
    if (row->count == 0)
        row->head = row->tail;
    row->delivered = row->tail;
    if (scan.rc != 0 && salvage->rc == 0)
        salvage->rc = scan.rc;
    salvage->entries += row->count;
    salvage->queues++;
    scan_end(&scan);
}

static void count_queues(struct salvage *salvage, struct sort_list *uses)
{
    struct sort_list ids = {0};
    MDB_cursor *cursor;
    struct slice key = {0}, value;

    renew_txn(salvage);
    for (int pass = 0; pass < 2 && salvage->rc == 0; pass++) {
        salvage->rc = mdb_cursor_open(
            salvage->txn, salvage->database.dbi[pass == 0 ? DB_QUEUE : DB_INDEX], &cursor);
        for (int rc = salvage->rc == 0 ? database_get(cursor, MDB_FIRST, &key, &value) : 1; rc == 0;
             rc = database_get(cursor, MDB_NEXT, &key, &value))
            if (ids.list.count == 0 ||
                ids.list.items[ids.list.count - 1].major != get_u64(key.data))
                sort_add(&ids, get_u64(key.data), 0, 0);
        if (salvage->rc == 0)
            mdb_cursor_close(cursor);
    }
    sort_run(&ids);
    for (uint32_t i = 0; i < ids.list.count && salvage->rc == 0; i++) {
        const uint64_t id = ids.list.items[i].major;
        if (i > 0 && ids.list.items[i - 1].major == id)
            continue;
        const struct key wanted = key_u64(id);
        struct queue_row row = {0};
        uint8_t encoded[QUEUE_ROW_SIZE];
        MDB_val k = val_of(key_slice(&wanted)), v;
        if (mdb_get(salvage->txn, salvage->database.dbi[DB_QUEUE], &k, &v) == 0)
            queue_row_decode(key_slice(&wanted), slice_of_val(v), &row);
        count_queue(salvage, id, &row, uses);
        queue_row_encode(id, &row, encoded);
        put(salvage, DB_QUEUE, key_slice(&wanted), slice_of(encoded, sizeof encoded), 0);
    }
    sort_release(&ids);
}

/* Blobs that nothing living needs are left behind with the old file. */
static void count_blobs(struct salvage *salvage, struct sort_list *uses)
{
    MDB_cursor *cursor;
    struct slice key = {0}, value;
    uint32_t next = 0;

    sort_run(uses);
    renew_txn(salvage);
    if (salvage->rc == 0)
        salvage->rc = mdb_cursor_open(salvage->txn, salvage->database.dbi[DB_BLOB], &cursor);
    if (salvage->rc != 0)
        return;
    for (int rc = database_get(cursor, MDB_FIRST, &key, &value); rc == 0;
         rc = database_get(cursor, MDB_NEXT, &key, &value)) {
        salvage->state.blob = max_of(salvage->state.blob, get_u64(key.data));
        while (next < uses->list.count && uses->list.items[next].major < get_u64(key.data))
            next++;
        if (next == uses->list.count || uses->list.items[next].major != get_u64(key.data))
            mdb_cursor_del(cursor, 0);
    }
    mdb_cursor_close(cursor);
    for (uint32_t i = 0; i < uses->list.count && salvage->rc == 0;) {
        const uint64_t blob = uses->list.items[i].major;
        struct live_row row = {0};
        uint8_t encoded[LIVE_ROW_SIZE];
        uint64_t cost = 0;
        for (; i < uses->list.count && uses->list.items[i].major == blob; i++) {
            row.entries++;
            cost += uses->list.items[i].minor;
        }
        row.size = row.alive = (uint32_t)min_of(cost, (uint64_t)UINT32_MAX);
        salvage->state.size += row.size;
        const struct key k = key_u64(blob);
        live_encode(blob, &row, encoded);
        put(salvage, DB_LIVE, key_slice(&k), slice_of(encoded, sizeof encoded), 0);
    }
}

static void put_state(struct salvage *salvage)
{
    uint8_t row[STATE_ROW_SIZE];

    salvage->state.clean = false;
    salvage->state.lsn = max_of(salvage->state.lsn, salvage->state.blob);
    state_encode(database_state_key(), &salvage->state, row);
    put(salvage, DB_META, database_state_key(), slice_of(row, sizeof row), 0);
}

static void count(struct salvage *salvage)
{
    struct sort_list uses = {0};

    salvage->state.size = salvage->state.sparse = 0;
    count_queues(salvage, &uses);
    count_blobs(salvage, &uses);
    put_state(salvage);
    sort_release(&uses);
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

/* The old file keeps its bytes under another name before the new one takes its place. */
static int change_places(const char *directory, const char *new_directory, char *aside, size_t size)
{
    char *old = path_of(directory, "data.mdb"), *new = path_of(new_directory, "data.mdb");
    const time_t now = time(NULL);
    struct tm utc;
    char when[32];

    strftime(when, sizeof when, "%Y%m%dT%H%M%SZ", gmtime_r(&now, &utc));
    snprintf(aside, size, "%s/data.mdb.damaged-%s", directory, when);
    const int result =
        (link(old, aside) < 0 && errno != EEXIST) || rename(new, old) < 0 ? -errno : 0;
    const int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(old);
    free(new);
    if (result == 0)
        remove_file(directory, "lock.mdb");
    return result;
}

static int open_old(struct salvage *salvage, const char *directory)
{
    char *path = path_of(directory, "data.mdb");
    struct stat file;

    salvage->fd = open(path, O_RDONLY | O_CLOEXEC);
    free(path);
    if (salvage->fd < 0 || fstat(salvage->fd, &file) < 0)
        return -errno;
    salvage->pages = (uint64_t)file.st_size / PAGE;
    salvage->seen = xcalloc(salvage->pages / 8 + 1, 1);
    return 0;
}

static int rewrite(struct salvage *salvage, const struct store_options *options,
                   const char *new_directory, char error[STORE_ERROR_SIZE])
{
    struct store_options new_options = *options;

    new_options.directory = new_directory;
    remove_new(new_directory);
    if (mkdir(new_directory, 0700) < 0)
        return -errno;
    int rc = database_open(&salvage->database, &new_options, error);
    if (rc != 0)
        return rc;
    renew_txn(salvage);
    take_file(salvage);
    count(salvage);
    renew_txn(salvage);
    if (salvage->txn != NULL)
        mdb_txn_abort(salvage->txn);
    database_close(&salvage->database);
    return database_errno(salvage->rc);
}

int salvage(const struct store_options *options, char error[STORE_ERROR_SIZE])
{
    struct salvage salvage = {.fd = -1};
    char *new_directory = path_of(options->directory, "salvage.new");
    char aside[512] = "";

    int rc = open_old(&salvage, options->directory);
    if (rc == 0)
        rc = rewrite(&salvage, options, new_directory, error);
    if (rc == 0)
        rc = change_places(options->directory, new_directory, aside, sizeof aside);
    if (rc == 0) {
        log_error("the store was salvaged: %" PRIu64 " rows, with %" PRIu64 " messages in %" PRIu64
                  " queues; %" PRIu64 " pages or rows could not be read; the damaged file is %s",
                  salvage.rows, salvage.entries, salvage.queues, salvage.lost, aside);
        remove_file(options->directory, NOTE);
    } else {
        snprintf(error, STORE_ERROR_SIZE, "cannot salvage the store in %s: %s", options->directory,
                 strerror(-rc));
    }
    remove_new(new_directory);
    if (salvage.fd >= 0)
        close(salvage.fd);
    free(salvage.seen);
    buf_release(&salvage.value);
    free(new_directory);
    return rc;
}

/* ---- is it due? ------------------------------------------------------------------------------ */

static uint64_t touched; /* so that no read is optimised away */

static void touch(MDB_val val)
{
    const uint8_t *bytes = val.mv_data;

    for (size_t i = 0; i < val.mv_size; i += 64)
        touched += bytes[i];
}

static int look_at_tree(MDB_txn *txn, MDB_dbi dbi, bool all)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc = mdb_cursor_open(txn, dbi, &cursor);

    if (rc == 0)
        rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
    for (; rc == 0; rc = mdb_cursor_get(cursor, &key, &value, all ? MDB_NEXT : MDB_LAST)) {
        touch(key);
        touch(value);
        if (!all)
            break;
    }
    if (rc == 0)
        rc = mdb_cursor_get(cursor, &key, &value, MDB_LAST);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* What a start reads: the free pages, the definitions, the queues; and where every tree begins and
 * ends. */
static bool is_whole(const struct store_options *options);

static int look(const struct store_options *options, const char *volatile *stage)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;

    *stage = "opening it";
    int rc = mdb_env_create(&env);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(env, DATABASE_COUNT);
    if (rc == 0)
        rc = mdb_env_set_mapsize(env, options->map_size != 0 ? options->map_size : (size_t)1 << 36);
    if (rc == 0)
        rc = mdb_env_open(env, options->directory, MDB_RDONLY | MDB_NOLOCK, 0600);
    if (rc == 0)
        rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        return rc;
    *stage = "its list of free pages";
    rc = look_at_tree(txn, 0, true);
    for (size_t i = 0; i < DATABASE_COUNT && rc == 0; i++) {
        *stage = database_name((enum database_id)i);
        rc = mdb_dbi_open(txn, database_name((enum database_id)i), 0, &dbi);
        if (rc == 0)
            rc = look_at_tree(txn, dbi, i == DB_QUEUE || i == DB_RECORD);
        else if (rc == MDB_NOTFOUND)
            rc = 0;
    }
    *stage = "its trees";
    return rc == 0 && !is_whole(options) ? MDB_CORRUPTED : rc;
}

/* ---- are the trees whole? -------------------------------------------------------------------- */

enum { CHECKS_MAX = 100000 }; /* pages: what a start has time for */

struct check {
    struct salvage file;
    uint32_t left; /* pages */
};

/* Every page is where it should be, and leads to such pages; of leaves, the head alone is read. */
static bool check_tree(struct check *check, uint64_t number, unsigned depth)
{
    uint8_t page[PAGE];
    struct node node;

    if (check->left == 0 || number == NO_PAGE)
        return true;
    check->left--;
    if (depth == 0 || depth > DEPTH_MAX || number < 2 || number >= check->file.pages)
        return false;
    if (depth == 1)
        return read_at(&check->file, number * PAGE, page, PAGE_HEADER) && le64(page) == number &&
               (le16(page + 10) & (PAGE_BRANCH | PAGE_LEAF)) == PAGE_LEAF;
    if (!read_page(&check->file, number, page) ||
        (le16(page + 10) & (PAGE_BRANCH | PAGE_LEAF)) != PAGE_BRANCH)
        return false;
    for (unsigned i = 0; i < node_count(page); i++)
        if (!get_node(page, i, &node) || !check_tree(check, node.child, depth - 1))
            return false;
    return node_count(page) > 0;
}

static bool check_root(struct check *check, const uint8_t tree[TREE_SIZE])
{
    return check_tree(check, le64(tree + TREE_ROOT), le16(tree + 6));
}

/* A store has few databases: all of them are named in one leaf. */
static bool check_databases(struct check *check, uint64_t number)
{
    uint8_t page[PAGE];
    struct node node;

    if (number == NO_PAGE)
        return true;
    if (number < 2 || !read_page(&check->file, number, page))
        return false;
    for (unsigned i = 0; i < node_count(page); i++)
        if (!get_node(page, i, &node) || node.data.size != TREE_SIZE ||
            !check_root(check, node.data.data))
            return false;
    return true;
}

static bool is_whole(const struct store_options *options)
{
    struct check check = {.left = CHECKS_MAX};
    uint8_t metas[2][PAGE];
    bool whole = open_old(&check.file, options->directory) == 0 &&
                 read_meta(&check.file, 0, metas[0]) && read_meta(&check.file, 1, metas[1]);

    if (whole) {
        const uint8_t *meta =
            metas[le64(metas[1] + META_TRANSACTION) > le64(metas[0] + META_TRANSACTION)];
        whole = check_root(&check, meta + META_TREES) &&
                check_databases(&check, le64(meta + META_TREES + TREE_SIZE + TREE_ROOT));
    }
    if (check.file.fd >= 0)
        close(check.file.fd);
    free(check.file.seen);
    return whole;
}

static bool child_approves(const struct store_options *options)
{
    enum { LOOK_S = 60 };
    const char *volatile *stage =
        mmap(NULL, sizeof *stage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status;

    if (stage == MAP_FAILED)
        return true;
    const pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        alarm(LOOK_S);
        _exit(look(options, stage) == 0 ? 0 : 1);
    }
    const bool known = child > 0 && waitpid(child, &status, 0) == child;
    if (known && WIFSIGNALED(status))
        log_error("the store is damaged: who looked at the data file died of SIG%s: %s",
                  sigabbrev_np(WTERMSIG(status)), *stage);
    else if (known && WEXITSTATUS(status) != 0)
        log_error("the store is damaged: the data file is not what it should be: %s", *stage);
    munmap((void *)(uintptr_t)stage, sizeof *stage);
    return !known || status == 0;
}

bool salvage_is_due(const struct store_options *options)
{
    char *data = path_of(options->directory, "data.mdb"), *note = path_of(options->directory, NOTE);
    struct stat file;
    bool due = false;

    if (stat(data, &file) == 0) {
        due = access(note, F_OK) == 0;
        if (due)
            log_error("the store is damaged: the last run died of it");
        due = due || !child_approves(options);
    }
    free(data);
    free(note);
    return due;
}

/* ---- faults of a running store --------------------------------------------------------------- */

static char note_path[512]; /* "": nobody guards */
static _Thread_local const char *guarded;

void salvage_leave_note(void)
{
    const int fd =
        note_path[0] == '\0' ? -1 : open(note_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    if (fd >= 0)
        close(fd);
}

static void say(const char *text)
{
    (void)!write(STDERR_FILENO, text, strlen(text));
}

static void on_fault(int number)
{
    if (guarded != NULL) {
        say("the store is damaged: ");
        say(number == SIGBUS ? "SIGBUS" : "SIGSEGV");
        say(" while ");
        say(guarded);
        say("; the next start salvages it\n");
        salvage_leave_note();
    }
    signal(number, SIG_DFL);
    raise(number);
}

/* Not in place of a sanitizer's. */
static void catch_signal(int number)
{
    struct sigaction old, action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};

    if (sigaction(number, NULL, &old) == 0 && old.sa_handler == SIG_DFL)
        sigaction(number, &action, NULL);
}

void salvage_guard(const char *directory)
{
    snprintf(note_path, sizeof note_path, "%s/" NOTE, directory);
    catch_signal(SIGSEGV);
    catch_signal(SIGBUS);
}

void salvage_stage(const char *stage)
{
    guarded = stage;
}
