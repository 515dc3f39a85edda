/* The store behind its interface: every case runs against both engines, memory and LMDB. What only
 * one of them can do (a file that is damaged, a sync that fails or hangs, a process that is killed)
 * follows after.
 *
 * What is below fdatasync is defined here, so that a test can hold a sync up or make it fail. */
#include "store/store.h"

#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <lmdb.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "store/array.h"
#include "store/datasync.h"
#include "store/engine.h"
#include "store/memory.h"
#include "store/mend.h"
#include "store/offline.h"
#include "store/record.h"
#include "tests/lib/unit.h"

/* ---- a sync that does as told ---------------------------------------------------------------- */

static atomic_int sync_allowed = INT_MAX; /* that many go through, then they wait */
static atomic_int sync_error;

int datasync_disk(int fd)
{
    while (atomic_load(&sync_allowed) == 0)
        usleep(1000);
    atomic_fetch_sub(&sync_allowed, 1);
    const int error = atomic_load(&sync_error);
    if (error != 0) {
        errno = error;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

/* ---- a directory that is synced -------------------------------------------------------------- */

static atomic_int directory_syncs; /* since the last file came into place */

int fsync(int fd);
int renameat(int from_fd, const char *from, int to_fd, const char *to);

int fsync(int fd)
{
    struct stat status;

    if (fstat(fd, &status) == 0 && S_ISDIR(status.st_mode))
        directory_syncs++;
    return (int)syscall(SYS_fsync, fd);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    directory_syncs = 0;
    return (int)syscall(SYS_renameat, from_fd, from, to_fd, to);
}

/* ---- a store to test ------------------------------------------------------------------------- */

enum { MEMORY, LMDB, ENGINES };

struct rig {
    int engine;
    char directory[64];
    uint32_t reclaim_patience, check_after_ms; /* of LMDB, as in struct store_options */
    struct store *store;
    struct store_recovery recovery;            /* of the last rig_recover */
    ARRAY_OF(struct store_queue_state) queues; /* what it said */
    char records[4096];                        /* "key=value;" of each */
};

static int bodies_out; /* added and not handed back */

static void on_body_done(void *body_owner)
{
    bodies_out--;
    free(body_owner);
}

static const char *scratch_directory(void)
{
    return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

static void open_lmdb(struct rig *rig)
{
    char error[STORE_ERROR_SIZE] = "";
    const struct store_options options = {.directory = rig->directory,
                                          .map_size = (size_t)4 << 30,
                                          .reclaim_patience = rig->reclaim_patience,
                                          .check_after_ms = rig->check_after_ms};

    ck_assert_msg(store_open(&options, &rig->store, error) == 0, "%s", error);
    store_on_body_done(rig->store, on_body_done);
}

static void rig_begin(struct rig *rig, int engine)
{
    log_level = LOG_NONE;
    *rig = (struct rig){.engine = engine};
    if (engine == MEMORY) {
        rig->store = store_memory_new();
        store_on_body_done(rig->store, on_body_done);
        return;
    }
    snprintf(rig->directory, sizeof rig->directory, "%s/test_store.XXXXXX", scratch_directory());
    ck_assert_ptr_nonnull(mkdtemp(rig->directory));
    open_lmdb(rig);
}

static int unlink_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    return remove(path);
}

static void rig_remove_files(struct rig *rig)
{
    if (rig->engine == LMDB)
        nftw(rig->directory, unlink_one, 8, FTW_DEPTH | FTW_PHYS);
    array_release(&rig->queues);
}

static void rig_end(struct rig *rig)
{
    ck_assert_int_eq(store_close(&rig->store), 0);
    ck_assert_int_eq(bodies_out, 0);
    rig_remove_files(rig);
}

static void wait_once(struct rig *rig)
{
    struct pollfd poll_fd = {.fd = store_fd(rig->store), .events = POLLIN};

    ck_assert_int_eq(poll(&poll_fd, 1, 30000), 1);
}

static void finish(struct rig *rig)
{
    while (store_is_busy(rig->store)) {
        wait_once(rig);
        ck_assert_int_eq(store_process(rig->store), 0);
    }
}

static void commit(struct rig *rig)
{
    finish(rig);
    if (store_open_is_empty(rig->store))
        return;
    const uint64_t lsn = store_open_lsn(rig->store);
    ck_assert_uint_eq(store_submit(rig->store), lsn);
    ck_assert_uint_eq(store_open_lsn(rig->store), lsn + 1);
    finish(rig);
    ck_assert_uint_eq(store_durable(rig->store), lsn);
}

static void on_record(void *context, struct slice key, struct slice value)
{
    struct rig *rig = context;
    const size_t used = strlen(rig->records);

    snprintf(rig->records + used, sizeof rig->records - used, "%.*s=%.*s;", SLICE_ARG(key),
             SLICE_ARG(value));
}

static void on_queue(void *context, const struct store_queue_state *queue)
{
    struct rig *rig = context;

    ck_assert(rig->queues.count == 0 ||
              rig->queues.items[rig->queues.count - 1].queue_id < queue->queue_id);
    *array_add(&rig->queues) = *queue;
}

static void recover(struct rig *rig)
{
    rig->recovery =
        (struct store_recovery){.context = rig, .on_record = on_record, .on_queue = on_queue};
    rig->records[0] = '\0';
    array_clear(&rig->queues);
    ck_assert_int_eq(store_recover(rig->store, &rig->recovery), 0);
}

/* A restart: LMDB's is a clean one, memory has only the other kind. */
static void restart(struct rig *rig)
{
    if (rig->engine == MEMORY) {
        finish(rig);
        store_memory_crash(rig->store);
    } else {
        ck_assert_int_eq(store_close(&rig->store), 0);
        open_lmdb(rig);
    }
    recover(rig);
}

static const struct store_queue_state *queue_state(const struct rig *rig, uint64_t queue_id)
{
    for (uint32_t i = 0; i < rig->queues.count; i++)
        if (rig->queues.items[i].queue_id == queue_id)
            return &rig->queues.items[i];
    return NULL;
}

/* ---- bodies and entries ---------------------------------------------------------------------- */

static uint32_t add_body(struct store *store, const void *data, size_t size)
{
    uint8_t *copy = xmalloc(
        size + 1); /* freed when it comes back: reading it later is an error that ASan finds */

    if (size > 0)
        memcpy(copy, data, size);
    bodies_out++;
    return store_add_body(store, slice_of(copy, size), copy);
}

static uint32_t put(struct rig *rig, uint64_t queue_id, uint64_t position, const char *text)
{
    const struct store_entry entry = {
        .queue_id = queue_id, .position = position, .weight = (uint32_t)strlen(text)};

    return store_put_entry(rig->store, &entry, add_body(rig->store, text, strlen(text)));
}

/* Entries first to end - 1, each its position as text: weight 4. */
static void put_many(struct rig *rig, uint64_t queue_id, uint64_t first, uint64_t end)
{
    char text[8];

    for (uint64_t position = first; position < end; position++) {
        snprintf(text, sizeof text, "%04u", (unsigned)(position % 10000));
        put(rig, queue_id, position, text);
    }
}

static void delete_many(struct rig *rig, uint64_t queue_id, uint64_t first, uint64_t end,
                        uint64_t step)
{
    for (uint64_t position = first; position < end; position += step)
        store_delete_entry(rig->store, queue_id, position, 4);
}

static int fetches_done;

static void on_fetched(struct store_fetch *fetch)
{
    (void)fetch;
    fetches_done++;
}

static void fetch(struct rig *rig, struct store_fetch *fetch)
{
    const int before = fetches_done;

    fetch->on_done = on_fetched;
    store_fetch(rig->store, fetch);
    while (fetches_done == before) {
        wait_once(rig);
        ck_assert_int_eq(store_process(rig->store), 0);
    }
    ck_assert_int_eq(fetch->error, 0);
}

/* All entries alive in [first, end) as "position " each, or with their bodies "position:body ",
 * fetched in pieces. */
static const char *contents(struct rig *rig, uint64_t queue_id, uint64_t first, uint64_t end,
                            bool bodies, uint32_t count_max)
{
    static char text[65536];
    size_t used = 0;

    text[0] = '\0';
    while (first < end) {
        struct store_fetch piece = {.queue_id = queue_id,
                                    .first = first,
                                    .end = end,
                                    .count_max = count_max,
                                    .bytes_max = 100000};
        fetch(rig, &piece);
        ck_assert_uint_le(piece.count, count_max);
        ck_assert_uint_gt(piece.next, first);
        for (size_t i = 0; i < piece.count && bodies; i++)
            used += (size_t)snprintf(text + used, sizeof text - used, "%" PRIu64 ":%.*s ",
                                     piece.entries[i].position, SLICE_ARG(piece.entries[i].bytes));
        for (size_t i = 0; i < piece.count && !bodies; i++)
            used += (size_t)snprintf(text + used, sizeof text - used, "%" PRIu64 " ",
                                     piece.entries[i].position);
        first = piece.next;
        store_fetch_release(&piece);
    }
    return text;
}

/* ---- both engines ---------------------------------------------------------------------------- */

START_TEST(a_new_store_is_empty)
{
    struct rig rig;

    rig_begin(&rig, _i);
    recover(&rig);
    ck_assert(rig.recovery.was_clean);
    ck_assert_str_eq(rig.records, "");
    ck_assert_uint_eq(rig.queues.count, 0);
    ck_assert_uint_eq(store_durable(rig.store), 0);
    ck_assert_uint_eq(store_open_lsn(rig.store), 1);
    ck_assert(store_open_is_empty(rig.store));
    ck_assert(!store_is_busy(rig.store));
    rig_end(&rig);
}
END_TEST

/* What the index knows, and no bodies. */
START_TEST(the_index_alone)
{
    struct rig rig;

    rig_begin(&rig, _i);
    recover(&rig);
    store_create_queue(rig.store, 5);
    for (uint64_t position = 10; position < 20; position++)
        store_put_entry(rig.store,
                        &(struct store_entry){.queue_id = 5,
                                              .position = position,
                                              .expires_ms = position % 2 == 0 ? position * 1000 : 0,
                                              .weight = (uint32_t)position},
                        add_body(rig.store, "body", 4));
    commit(&rig);
    store_delete_entry(rig.store, 5, 13, 13);
    commit(&rig);
    struct store_fetch piece = {
        .queue_id = 5, .first = 11, .end = 20, .count_max = 5, .index_only = true};
    for (uint64_t position = 11; position < 20; piece.first = piece.next) {
        fetch(&rig, &piece);
        ck_assert_uint_eq(0, piece.damaged);
        ck_assert_uint_gt(piece.count, 0);
        ck_assert_uint_le(piece.count, 5);
        for (size_t i = 0; i < piece.count; i++, position++) {
            const struct store_fetched *entry = &piece.entries[i];
            position += position == 13;
            ck_assert_uint_eq(position, entry->position);
            ck_assert_uint_eq(position % 2 == 0 ? position * 1000 : 0, entry->expires_ms);
            ck_assert_uint_eq(position, entry->weight);
            ck_assert_uint_eq(0, entry->bytes.size);
            ck_assert(!entry->damaged);
        }
        ck_assert_uint_ge(piece.next, position);
        store_fetch_release(&piece);
    }
    ck_assert_uint_eq(20, piece.next);
    rig_end(&rig);
}
END_TEST

START_TEST(records_last_word_wins)
{
    struct rig rig;

    rig_begin(&rig, _i);
    store_put_record(rig.store, SLICE("b"), SLICE("1"));
    store_put_record(rig.store, SLICE("c"), SLICE(""));
    store_put_record(rig.store, SLICE("a"), SLICE("2"));
    store_put_record(rig.store, SLICE("b"), SLICE("3"));
    store_put_record(rig.store, SLICE("d"), SLICE("4"));
    store_delete_record(rig.store, SLICE("d"));
    store_delete_record(rig.store, SLICE("e"));
    store_delete_record(rig.store, SLICE("f"));
    store_put_record(rig.store, SLICE("f"), SLICE("5"));
    commit(&rig);
    restart(&rig);
    ck_assert_str_eq(rig.records, "a=2;b=3;c=;f=5;");
    store_delete_record(rig.store, SLICE("a"));
    store_put_record(rig.store, SLICE("c"), SLICE("6"));
    commit(&rig);
    restart(&rig);
    ck_assert_str_eq(rig.records, "b=3;c=6;f=5;");
    ck_assert_uint_ge(store_durable(rig.store), 2);
    rig_end(&rig);
}
END_TEST

static void put_expiring(struct rig *rig, uint64_t position, uint64_t expires_ms)
{
    store_put_entry(rig->store,
                    &(struct store_entry){
                        .queue_id = 1, .position = position, .expires_ms = expires_ms, .weight = 1},
                    add_body(rig->store, "x", 1));
}

/* Said until the queue has been empty. */
START_TEST(queues_know_of_deadlines)
{
    struct rig rig;

    rig_begin(&rig, _i);
    store_create_queue(rig.store, 1);
    put_expiring(&rig, 0, 0);
    commit(&rig);
    restart(&rig);
    ck_assert(!queue_state(&rig, 1)->deadlines);
    put_expiring(&rig, 1, 5);
    put_expiring(&rig, 2, 0);
    commit(&rig);
    store_delete_entry(rig.store, 1, 1, 1);
    commit(&rig);
    restart(&rig);
    ck_assert(queue_state(&rig, 1)->deadlines);
    store_delete_entry(rig.store, 1, 0, 1);
    store_delete_entry(rig.store, 1, 2, 1);
    put_expiring(&rig, 3, 0);
    commit(&rig);
    restart(&rig);
    ck_assert(!queue_state(&rig, 1)->deadlines);
    rig_end(&rig);
}
END_TEST

START_TEST(large_records_survive)
{
    static char value[1 << 20], key[400];
    struct rig rig;

    rig_begin(&rig, _i);
    memset(value, 'v', sizeof value);
    memset(key, 'k', sizeof key);
    store_put_record(rig.store, slice_of(key, sizeof key), slice_of(value, sizeof value));
    commit(&rig);
    restart(&rig);
    ck_assert_uint_eq(strlen(rig.records), sizeof rig.records - 1);
    rig_end(&rig);
}
END_TEST

START_TEST(queues_count_their_entries)
{
    struct rig rig;

    rig_begin(&rig, _i);
    store_create_queue(rig.store, 3);
    store_create_queue(rig.store, 1);
    put(&rig, 3, 10, "one");
    put(&rig, 3, 12, "three");
    commit(&rig);
    restart(&rig);
    ck_assert_uint_eq(rig.queues.count, 2);
    const struct store_queue_state *queue = queue_state(&rig, 3);
    ck_assert_uint_eq(queue->head, 10);
    ck_assert_uint_eq(queue->tail, 13);
    ck_assert_uint_eq(queue->count, 2);
    ck_assert_uint_eq(queue->bytes, 8);
    ck_assert_uint_eq(queue_state(&rig, 1)->count, 0);
    ck_assert_str_eq(contents(&rig, 3, 0, 100, true, 10), "10:one 12:three ");
    ck_assert_str_eq(contents(&rig, 3, 11, 12, true, 10), "");
    ck_assert_str_eq(contents(&rig, 1, 0, 100, true, 10), "");
    ck_assert_str_eq(contents(&rig, 2, 0, 100, true, 10), "");

    store_delete_entry(rig.store, 3, 10, 3);
    commit(&rig);
    ck_assert_str_eq(contents(&rig, 3, 0, 100, true, 10), "12:three ");
    store_delete_entry(rig.store, 3, 12, 5);
    commit(&rig);
    put(&rig, 3, 20, "");
    commit(&rig);
    restart(&rig);
    queue = queue_state(&rig, 3);
    ck_assert_uint_eq(queue->head, 20);
    ck_assert_uint_eq(queue->tail, 21);
    ck_assert_uint_eq(queue->count, 1);
    ck_assert_uint_eq(queue->bytes, 0);
    ck_assert_str_eq(contents(&rig, 3, 0, 100, true, 10), "20: ");
    rig_end(&rig);
}
END_TEST

START_TEST(everything_about_an_entry_comes_back)
{
    const struct store_entry entries[] = {
        {.queue_id = 1, .position = 5, .expires_ms = 0, .weight = 0, .flags = 0},
        {.queue_id = 1, .position = 6, .expires_ms = 1, .weight = 7, .flags = 255},
        {.queue_id = 1,
         .position = 1000000,
         .expires_ms = UINT64_MAX,
         .weight = UINT32_MAX,
         .flags = 1},
        {.queue_id = 1,
         .position = STORE_POSITION_END - 1,
         .expires_ms = 12345,
         .weight = 3,
         .flags = 1},
    };
    struct store_fetch all = {
        .queue_id = 1, .first = 0, .end = UINT64_MAX, .count_max = 10, .bytes_max = 1000};
    struct rig rig;

    rig_begin(&rig, _i);
    store_create_queue(rig.store, 1);
    for (size_t i = 0; i < countof(entries); i++)
        store_put_entry(rig.store, &entries[i], add_body(rig.store, "body", 4));
    commit(&rig);
    restart(&rig);
    fetch(&rig, &all);
    ck_assert_uint_eq(all.count, countof(entries));
    ck_assert_uint_eq(all.next, all.end);
    for (size_t i = 0; i < countof(entries); i++) {
        ck_assert_uint_eq(all.entries[i].position, entries[i].position);
        ck_assert_uint_eq(all.entries[i].expires_ms, entries[i].expires_ms);
        ck_assert_uint_eq(all.entries[i].weight, entries[i].weight);
        ck_assert_uint_eq(all.entries[i].flags, entries[i].flags);
        ck_assert(slice_equal(all.entries[i].bytes, SLICE("body")));
        ck_assert(!all.entries[i].damaged);
    }
    store_fetch_release(&all);
    rig_end(&rig);
}
END_TEST

START_TEST(a_shared_body_is_written_once)
{
    static char large[50000];
    struct store_stats before, after;
    struct rig rig;

    rig_begin(&rig, _i);
    memset(large, 's', sizeof large);
    for (uint64_t id = 1; id <= 20; id++)
        store_create_queue(rig.store, id);
    commit(&rig);
    store_get_stats(rig.store, &before);
    const uint32_t body = add_body(rig.store, large, sizeof large);
    ck_assert_uint_eq(store_open_bytes(rig.store), sizeof large);
    for (uint64_t id = 1; id <= 20; id++)
        for (uint64_t position = 0; position < 2; position++)
            store_put_entry(rig.store, &(struct store_entry){.queue_id = id, .position = position},
                            body);
    commit(&rig);
    store_get_stats(rig.store, &after);
    ck_assert_uint_ge(after.bytes_written - before.bytes_written, sizeof large);
    ck_assert_uint_lt(after.bytes_written - before.bytes_written, sizeof large + 10000);
    for (uint64_t id = 1; id <= 20; id++)
        store_delete_entry(rig.store, id, id % 2, 0); /* one of the two lives on */
    commit(&rig);
    restart(&rig);
    for (uint64_t id = 1; id <= 20; id++) {
        struct store_fetch one = {
            .queue_id = id, .end = 100, .count_max = 10, .bytes_max = 1000000};
        fetch(&rig, &one);
        ck_assert_uint_eq(one.count, 1);
        ck_assert_uint_eq(one.entries[0].position, 1 - id % 2);
        ck_assert(slice_equal(one.entries[0].bytes, slice_of(large, sizeof large)));
        store_fetch_release(&one);
    }
    rig_end(&rig);
}
END_TEST

START_TEST(what_is_taken_back_is_not_written)
{
    struct store_stats stats;
    struct rig rig;

    rig_begin(&rig, _i);
    store_create_queue(rig.store, 1);
    commit(&rig);
    const uint32_t alone = put(&rig, 1, 0, "alone");
    ck_assert(!store_open_is_empty(rig.store));
    ck_assert_uint_eq(store_open_bytes(rig.store), 5);
    store_take_back(rig.store, alone);
    ck_assert(store_open_is_empty(rig.store));
    ck_assert_uint_eq(store_open_bytes(rig.store), 0);
    ck_assert_int_eq(bodies_out, 0); /* at once */

    const uint32_t body = add_body(rig.store, "shared", 6);
    const struct store_entry entry = {.queue_id = 1, .position = 1, .weight = 6};
    const struct store_entry next = {.queue_id = 1, .position = 2, .weight = 6};
    const uint32_t first = store_put_entry(rig.store, &entry, body);
    store_put_entry(rig.store, &next, body);
    store_take_back(rig.store, first);
    ck_assert_int_eq(bodies_out, 1);
    commit(&rig);
    ck_assert_int_eq(bodies_out, 0);
    restart(&rig);
    ck_assert_str_eq(contents(&rig, 1, 0, 10, true, 5), "2:shared ");
    ck_assert_uint_eq(queue_state(&rig, 1)->count, 1);
    ck_assert_uint_eq(queue_state(&rig, 1)->bytes, 6);
    if (rig.engine == MEMORY) {
        store_get_stats(rig.store, &stats);
        ck_assert_uint_eq(stats.entries_taken_back, 2);
        ck_assert_uint_eq(stats.entries_put, 3);
    }
    rig_end(&rig);
}
END_TEST

/* As when every message is consumed in the turn in which it came: nothing is ever submitted. */
START_TEST(what_is_taken_back_leaves_nothing_behind)
{
    struct rig rig;

    rig_begin(&rig, _i);
    store_create_queue(rig.store, 1);
    commit(&rig);
    for (uint64_t round = 0; round < 1000; round++) {
        const uint32_t first = put(&rig, 1, 3 * round, "first");
        const uint32_t second = put(&rig, 1, 3 * round + 1, "second");
        ck_assert_uint_le(rig.store->open->entries.count, 2);
        store_take_back(rig.store, first);
        store_take_back(rig.store, second);
        ck_assert(store_open_is_empty(rig.store));
        ck_assert_int_eq(bodies_out, 0);
    }
    put(&rig, 1, 5000, "kept");
    commit(&rig);
    ck_assert_str_eq(contents(&rig, 1, 0, 6000, true, 5), "5000:kept ");
    rig_end(&rig);
}
END_TEST

START_TEST(a_batch_of_marks_is_no_reason_to_write)
{
    struct rig rig;

    rig_begin(&rig, _i);
    store_create_queue(rig.store, 1);
    store_create_queue(rig.store, 2);
    commit(&rig);
    for (uint64_t i = 0; i < 100000; i++)
        store_mark_delivered(rig.store, 1 + i % 2, i / 2);
    ck_assert(store_open_is_empty(rig.store));
    put_many(&rig, 1, 0, 50010);
    commit(&rig);
    restart(&rig);
    ck_assert_uint_eq(queue_state(&rig, 1)->delivered, rig.engine == LMDB ? 49999 : 50010);
    ck_assert_uint_eq(queue_state(&rig, 2)->delivered, 0); /* never above the tail */
    rig_end(&rig);
}
END_TEST

START_TEST(fetches_go_in_pieces_over_holes)
{
    char expected[65536] = "";
    struct rig rig;

    rig_begin(&rig, _i);
    store_create_queue(rig.store, 1);
    put_many(&rig, 1, 0, 700); /* more than one segment */
    put_many(&rig, 1, 800, 900);
    commit(&rig);
    for (uint64_t position = 1000; position < 1400; position += 3) { /* not dense */
        put(&rig, 1, position, "4444");
        commit(&rig);
    }
    delete_many(&rig, 1, 5, 700, 7); /* in the middle: gone rows */
    delete_many(&rig, 1, 0, 5, 1);   /* at the front: the head */
    delete_many(&rig, 1, 800, 900, 1);
    commit(&rig);
    for (uint64_t position = 5, used = 0; position < 1400; position++)
        if (position < 700 ? position % 7 != 5 : position >= 1000 && position % 3 == 1)
            used += (uint64_t)snprintf(expected + used, sizeof expected - used, "%" PRIu64 " ",
                                       position);
    for (uint32_t piece = 1; piece < 2000; piece = piece * 5 + 2)
        ck_assert_str_eq(contents(&rig, 1, 0, 5000, false, piece), expected);
    restart(&rig);
    ck_assert_str_eq(contents(&rig, 1, 0, 5000, false, 100), expected);
    ck_assert_str_eq(contents(&rig, 1, 695, 1005, false, 3), "695 696 697 699 1000 1003 ");
    ck_assert_str_eq(contents(&rig, 1, 1001, 1003, false, 3), "");
    ck_assert_uint_eq(queue_state(&rig, 1)->head, 6);
    rig_end(&rig);
}
END_TEST

START_TEST(fetches_stop_at_their_bytes)
{
    static char body[40000];
    struct rig rig;

    rig_begin(&rig, _i);
    store_create_queue(rig.store, 1);
    for (uint64_t position = 0; position < 5; position++)
        store_put_entry(rig.store, &(struct store_entry){.queue_id = 1, .position = position},
                        add_body(rig.store, body, sizeof body));
    commit(&rig);
    const struct {
        size_t bytes_max;
        uint32_t count_max, count;
    } cases[] = {{0, 0, 1},     {1, 9, 1},       {79999, 9, 1},
                 {80000, 9, 2}, {1000000, 9, 5}, {1000000, 3, 3}};
    for (size_t i = 0; i < countof(cases); i++) {
        struct store_fetch some = {.queue_id = 1,
                                   .end = 10,
                                   .count_max = cases[i].count_max,
                                   .bytes_max = cases[i].bytes_max};
        fetch(&rig, &some);
        ck_assert_uint_eq(some.count, cases[i].count);
        ck_assert_uint_eq(some.next, cases[i].count == 5 ? 10 : cases[i].count);
        store_fetch_release(&some);
        store_fetch_release(&some);
    }
    rig_end(&rig);
}
END_TEST

START_TEST(large_bodies_survive)
{
    static const size_t sizes[] = {
        0,        1, PART_BODY_MAX - 1, PART_BODY_MAX, PART_BODY_MAX + 1, 2 * PART_BODY_MAX, 100000,
        10 << 20, 10};
    static uint8_t bytes[(10 << 20) + 16];
    struct random random;
    struct rig rig;

    random_init_seeded(&random, 6);
    random_bytes(&random, bytes, sizeof bytes);
    rig_begin(&rig, _i);
    store_create_queue(rig.store, 1);
    for (size_t i = 0; i < countof(sizes); i++)
        store_put_entry(rig.store, &(struct store_entry){.queue_id = 1, .position = i},
                        add_body(rig.store, bytes + i, sizes[i]));
    commit(&rig);
    restart(&rig);
    struct store_fetch all = {.queue_id = 1, .end = 100, .count_max = 100, .bytes_max = SIZE_MAX};
    fetch(&rig, &all);
    ck_assert_uint_eq(all.count, countof(sizes));
    for (size_t i = 0; i < countof(sizes); i++)
        ck_assert(slice_equal(all.entries[i].bytes, slice_of(bytes + i, sizes[i])));
    store_fetch_release(&all);
    rig_end(&rig);
}
END_TEST

START_TEST(deleted_ranges_are_gone_at_once)
{
    static const struct {
        uint64_t first, end, count;
    } ranges[] = {
        {0, 10, 10},        /* the front of the first segment */
        {5, 20, 10},        /* from below the head */
        {600, 605, 5},      /* inside a segment */
        {603, 1700, 1095},  /* over several, cut at both ends */
        {1700, 1701, 1},    /* the next one */
        {1800, 2900, 1100}, /* in the middle again */
        {2000, 2500, 0},    /* within what is gone */
        {20, 600, 580},     /* the front up to the first hole */
        {2950, 10000, 50},  /* the end */
    };
    struct rig rig;
    uint64_t count = 3000;
    char expected[65536];

    rig_begin(&rig, _i);
    bool alive[3000];
    memset(alive, true, sizeof alive);
    store_create_queue(rig.store, 1);
    for (uint64_t first = 0; first < 3000; first += 100) {
        put_many(&rig, 1, first, first + 100);
        if (first % 500 == 400)
            commit(&rig);
    }
    commit(&rig);
    for (size_t i = 0; i < countof(ranges); i++) {
        store_delete_range(rig.store, 1, ranges[i].first, ranges[i].end, ranges[i].count,
                           4 * ranges[i].count);
        commit(&rig);
        for (uint64_t position = ranges[i].first; position < ranges[i].end && position < 3000;
             position++)
            alive[position] = false;
        count -= ranges[i].count;
        size_t used = 0;
        expected[0] = '\0';
        for (uint64_t position = 0; position < 3000; position++)
            if (alive[position])
                used += (size_t)snprintf(expected + used, sizeof expected - used, "%" PRIu64 " ",
                                         position);
        ck_assert_str_eq(contents(&rig, 1, 0, 5000, false, 1000), expected);
        if (i % 2 == 0) {
            restart(&rig);
            ck_assert_str_eq(contents(&rig, 1, 0, 5000, false, 77), expected);
            ck_assert_uint_eq(queue_state(&rig, 1)->count, count);
            ck_assert_uint_eq(queue_state(&rig, 1)->bytes, 4 * count);
        }
    }
    store_delete_range(rig.store, 1, 0, 3000, count, 4 * count);
    put_many(&rig, 1, 3000, 3010);
    commit(&rig);
    restart(&rig);
    ck_assert_uint_eq(queue_state(&rig, 1)->head, 3000);
    ck_assert_str_eq(contents(&rig, 1, 0, 5000, false, 4),
                     "3000 3001 3002 3003 3004 3005 3006 3007 3008 3009 ");
    rig_end(&rig);
}
END_TEST

START_TEST(deleted_queues_are_gone_at_once)
{
    struct rig rig;

    rig_begin(&rig, _i);
    store_create_queue(rig.store, 1);
    store_create_queue(rig.store, 2);
    put_many(&rig, 1, 0, 1000);
    put_many(&rig, 2, 0, 10);
    commit(&rig);
    delete_many(&rig, 1, 0, 100, 1);
    delete_many(&rig, 1, 200, 300, 2);
    commit(&rig);
    store_delete_range(rig.store, 1, 700, 800, 100, 400);
    put_many(&rig, 1, 1000, 1010);
    const uint32_t taken = put(&rig, 1, 1010, "xxxx");
    store_delete_queue(rig.store, 1);
    store_take_back(rig.store, taken);
    commit(&rig);
    ck_assert_str_eq(contents(&rig, 1, 0, 5000, false, 1000), "");
    store_create_queue(rig.store, 5);
    store_delete_queue(rig.store, 5);
    commit(&rig);
    restart(&rig);
    ck_assert_uint_eq(rig.queues.count, 1);
    ck_assert_uint_eq(rig.queues.items[0].queue_id, 2);
    ck_assert_uint_eq(rig.queues.items[0].count, 10);
    ck_assert_str_eq(contents(&rig, 1, 0, 5000, false, 1000), "");
    rig_end(&rig);
}
END_TEST

START_TEST(entries_of_a_queue_deleted_at_once_are_not_written)
{
    static char large[50000];
    struct store_stats before, after;
    struct rig rig;

    rig_begin(&rig, _i);
    store_create_queue(rig.store, 1);
    store_create_queue(rig.store, 2);
    commit(&rig);
    store_get_stats(rig.store, &before);
    store_put_entry(rig.store, &(struct store_entry){.queue_id = 1},
                    add_body(rig.store, large, sizeof large));
    put(&rig, 2, 0, "stays");
    store_delete_queue(rig.store, 1);
    commit(&rig);
    store_get_stats(rig.store, &after);
    ck_assert_uint_lt(after.bytes_written - before.bytes_written, 1000);
    ck_assert_str_eq(contents(&rig, 2, 0, 10, true, 1), "0:stays ");
    rig_end(&rig);
}
END_TEST

START_TEST(closing_hands_everything_back)
{
    struct store_fetch dropped = {
        .queue_id = 1, .end = 100, .count_max = 5, .bytes_max = 5, .on_done = on_fetched};
    struct rig rig;

    rig_begin(&rig, _i);
    store_create_queue(rig.store, 1);
    put_many(&rig, 1, 0, 10);
    store_submit(rig.store);
    put_many(&rig, 1, 10, 20);
    store_fetch(rig.store, &dropped);
    fetches_done = 0;
    ck_assert_int_eq(store_close(&rig.store), 0);
    ck_assert_ptr_null(rig.store);
    ck_assert_int_eq(bodies_out, 0);
    ck_assert_int_eq(fetches_done, 0);
    if (rig.engine == LMDB) { /* and what was open became durable */
        open_lmdb(&rig);
        recover(&rig);
        ck_assert(rig.recovery.was_clean);
        ck_assert_uint_eq(queue_state(&rig, 1)->count, 20);
        rig_end(&rig);
    }
}
END_TEST

/* ---- a workload ------------------------------------------------------------------------------ */

/* Batches of random operations, the same for the same seed, applied to any number of stores at
 * once. It knows what lives, as the broker does. */

enum { QUEUES_MAX = 6, OPERATIONS_MAX = 60 };

struct work_entry {
    uint64_t position;
    uint32_t weight;
    uint64_t lsns[2]; /* it was put under these, with these numbers, each store its own */
    uint32_t numbers[2];
};

struct work_queue {
    uint64_t id; /* 0: none */
    uint64_t tail;
    ARRAY_OF(struct work_entry) alive;
};

struct work {
    struct random random;
    struct store *stores[2];
    size_t count;
    uint64_t queue_id_last;
    struct work_queue queues[QUEUES_MAX];
    bool small;       /* no large bodies */
    uint64_t batches; /* so far; the record "batch" says so, too */
};

#define each_store(work, store)                                                                    \
    for (size_t store##_i = 0; store##_i < (work)->count; store##_i++)                             \
        for (struct store *store = (work)->stores[store##_i]; store != NULL; store = NULL)

static void work_begin(struct work *work, uint64_t seed, struct store *first, struct store *second)
{
    *work = (struct work){.stores = {first, second}, .count = second == NULL ? 1 : 2};
    random_init_seeded(&work->random, seed);
}

static void work_end(struct work *work)
{
    for (size_t i = 0; i < QUEUES_MAX; i++)
        array_release(&work->queues[i].alive);
}

static uint64_t draw(struct work *work, uint64_t bound)
{
    return random_below(&work->random, bound);
}

static void work_create(struct work *work, struct work_queue *queue)
{
    queue->id = ++work->queue_id_last;
    queue->tail = draw(work, 1000);
    each_store(work, store) store_create_queue(store, queue->id);
}

static void work_drop(struct work *work, struct work_queue *queue)
{
    each_store(work, store) store_delete_queue(store, queue->id);
    queue->id = 0;
    array_clear(&queue->alive);
}

static size_t work_body_size(struct work *work)
{
    switch (draw(work, work->small ? 20 : 400)) {
    case 0:
        return 0;
    case 20:
        return PART_BODY_MAX - 1 + draw(work, 3);
    case 21:
        return 200000;
    default:
        return draw(work, 200);
    }
}

static void work_put_entry(struct work *work, struct work_queue *queue, const uint32_t bodies[2])
{
    queue->tail += draw(work, 10) == 0 ? draw(work, 600) : 0;
    struct store_entry entry = {.queue_id = queue->id,
                                .position = queue->tail++,
                                .weight = (uint32_t)draw(work, 1000),
                                .expires_ms = draw(work, 5) == 0 ? random_u64(&work->random) : 0,
                                .flags = draw(work, 5) == 0 ? (uint8_t)draw(work, 256) : 0};
    struct work_entry *alive = array_add(&queue->alive);

    *alive = (struct work_entry){.position = entry.position, .weight = entry.weight};
    each_store(work, store)
    {
        alive->lsns[store_i] = store_open_lsn(store);
        alive->numbers[store_i] = store_put_entry(store, &entry, bodies[store_i]);
    }
}

static void work_put(struct work *work, struct work_queue *queue)
{
    static uint8_t bytes[200000];
    const size_t size = work_body_size(work);
    uint32_t bodies[2];

    random_bytes(&work->random, bytes, min_of(size, 500U));
    each_store(work, store) bodies[store_i] = add_body(store, bytes, size);
    work_put_entry(work, queue, bodies);
    while (draw(work, 4) == 0) {
        struct work_queue *other = &work->queues[draw(work, QUEUES_MAX)];
        if (other->id != 0)
            work_put_entry(work, other, bodies);
    }
}

static void work_remove(struct work *work, struct work_queue *queue, uint32_t index)
{
    const struct work_entry entry = queue->alive.items[index];
    const bool tied = draw(work, 5) == 0;

    each_store(work, store)
    {
        if (store_lsn_is_open(store, entry.lsns[store_i]))
            store_take_back(store, entry.numbers[store_i]);
        else
            (tied ? store_delete_tied : store_delete_entry)(store, queue->id, entry.position,
                                                            entry.weight);
    }
    queue->alive.count--;
    memmove(&queue->alive.items[index], &queue->alive.items[index + 1],
            (queue->alive.count - index) * sizeof entry);
}

static bool work_is_durable(const struct work *work, const struct work_entry *entry)
{
    for (size_t i = 0; i < work->count; i++)
        if (entry->lsns[i] > store_durable_entries(work->stores[i]))
            return false;
    return true;
}

static void work_range(struct work *work, struct work_queue *queue)
{
    uint32_t old = 0, begin, end;
    uint64_t weight = 0;

    while (old < queue->alive.count && work_is_durable(work, &queue->alive.items[old]))
        old++;
    if (old == 0)
        return;
    begin = draw(work, 2) == 0 ? 0 : (uint32_t)draw(work, old);
    end = begin + 1 + (uint32_t)draw(work, old - begin);
    for (uint32_t i = begin; i < end; i++)
        weight += queue->alive.items[i].weight;
    const uint64_t first = queue->alive.items[begin].position,
                   last = queue->alive.items[end - 1].position;
    each_store(work, store)
        store_delete_range(store, queue->id, begin == 0 ? 0 : first, last + 1, end - begin, weight);
    queue->alive.count -= end - begin;
    memmove(&queue->alive.items[begin], &queue->alive.items[end],
            (queue->alive.count - begin) * sizeof *queue->alive.items);
}

static void work_record(struct work *work)
{
    char key[16], value[16];

    snprintf(key, sizeof key, "key-%u", (unsigned)draw(work, 20));
    snprintf(value, sizeof value, "%u", (unsigned)draw(work, 1000));
    const bool deletes = draw(work, 3) == 0;
    each_store(work, store)
    {
        if (deletes)
            store_delete_record(store, slice_of_string(key));
        else
            store_put_record(store, slice_of_string(key), slice_of_string(value));
    }
}

static void work_operation(struct work *work)
{
    struct work_queue *queue = &work->queues[draw(work, QUEUES_MAX)];
    const uint64_t kind = draw(work, 100);

    if (queue->id == 0) {
        work_create(work, queue);
    } else if (kind < 50) {
        for (uint64_t i = draw(work, 30) == 0 ? draw(work, 700) : 1; i > 0; i--)
            work_put(work, queue);
    } else if (kind < 75) {
        for (uint64_t i = draw(work, 4) == 0 ? draw(work, 300) : 1; i > 0 && queue->alive.count > 0;
             i--)
            work_remove(work, queue, 0);
    } else if (kind < 90) {
        if (queue->alive.count > 0)
            work_remove(work, queue, (uint32_t)draw(work, queue->alive.count));
    } else if (kind < 94) {
        work_range(work, queue);
    } else if (kind < 95) {
        work_drop(work, queue);
    } else {
        work_record(work);
    }
}

/* Fills the open batch of each store; there is always something to write. */
static void work_batch(struct work *work)
{
    for (uint64_t i = draw(work, OPERATIONS_MAX); i > 0; i--)
        work_operation(work);
    char number[24];
    snprintf(number, sizeof number, "%" PRIu64, ++work->batches);
    each_store(work, store) store_put_record(store, SLICE("batch"), slice_of_string(number));
}

/* What two stores say of one queue, piece by piece. */
static void compare_queue(struct rig *left, struct rig *right, uint64_t queue_id, uint64_t first)
{
    const uint64_t end = first + 100000;
    struct store_fetch a = {
        .queue_id = queue_id, .end = end, .count_max = 100, .bytes_max = 1 << 20};
    struct store_fetch b = {
        .queue_id = queue_id, .end = end, .count_max = 100, .bytes_max = 1 << 20};

    for (a.first = b.first = first; a.first < end; a.first = b.first = max_of(a.next, b.next)) {
        fetch(left, &a);
        fetch(right, &b);
        ck_assert_uint_eq(a.count, b.count);
        for (size_t i = 0; i < a.count; i++) {
            ck_assert_uint_eq(a.entries[i].position, b.entries[i].position);
            ck_assert_uint_eq(a.entries[i].expires_ms, b.entries[i].expires_ms);
            ck_assert_uint_eq(a.entries[i].weight, b.entries[i].weight);
            ck_assert_uint_eq(a.entries[i].flags, b.entries[i].flags);
            ck_assert(!a.entries[i].damaged && !b.entries[i].damaged);
            ck_assert(slice_equal(a.entries[i].bytes, b.entries[i].bytes));
        }
        store_fetch_release(&a);
        store_fetch_release(&b);
    }
}

static void compare(struct rig *left, struct rig *right, const struct work *work)
{
    for (size_t i = 0; i < QUEUES_MAX; i++)
        if (work->queues[i].id != 0)
            compare_queue(left, right, work->queues[i].id, 0);
}

/* Of the same entries, though not of the same that were taken back. */
static void compare_counts(const struct rig *left, const struct rig *right)
{
    ck_assert_str_eq(left->records, right->records);
    ck_assert_uint_eq(left->queues.count, right->queues.count);
    for (uint32_t i = 0; i < left->queues.count; i++) {
        ck_assert_uint_eq(left->queues.items[i].queue_id, right->queues.items[i].queue_id);
        ck_assert_uint_eq(left->queues.items[i].count, right->queues.items[i].count);
        ck_assert_uint_eq(left->queues.items[i].bytes, right->queues.items[i].bytes);
    }
}

static void compare_recovered(const struct rig *memory, const struct rig *lmdb)
{
    ck_assert_str_eq(memory->records, lmdb->records);
    ck_assert_uint_eq(memory->queues.count, lmdb->queues.count);
    for (uint32_t i = 0; i < memory->queues.count; i++) {
        const struct store_queue_state *a = &memory->queues.items[i], *b = &lmdb->queues.items[i];
        ck_assert_uint_eq(a->queue_id, b->queue_id);
        ck_assert_uint_eq(a->tail, b->tail);
        ck_assert_uint_eq(a->count, b->count);
        ck_assert_uint_eq(a->bytes, b->bytes);
        /* LMDB's may be too cautious: dead segments that wait to be trimmed hide that a queue was
         * empty. */
        ck_assert(a->count == 0 || a->deadlines <= b->deadlines);
        ck_assert_uint_le(b->head, a->head);
    }
}

/* ---- LMDB alone ------------------------------------------------------------------------------ */

/* The closed store's environment, to look into and to damage. */
struct vault {
    MDB_env *env;
    MDB_txn *txn;
};

static void vault_open(struct vault *vault, const struct rig *rig)
{
    ck_assert_int_eq(mdb_env_create(&vault->env), 0);
    ck_assert_int_eq(mdb_env_set_maxdbs(vault->env, 16), 0);
    ck_assert_int_eq(mdb_env_set_mapsize(vault->env, (size_t)4 << 30), 0);
    ck_assert_int_eq(mdb_env_open(vault->env, rig->directory, 0, 0600), 0);
    ck_assert_int_eq(mdb_txn_begin(vault->env, NULL, 0, &vault->txn), 0);
}

static void vault_close(struct vault *vault)
{
    ck_assert_int_eq(mdb_txn_commit(vault->txn), 0);
    mdb_env_close(vault->env);
}

static size_t vault_count(struct vault *vault, const char *name)
{
    MDB_dbi dbi;
    MDB_stat stat;

    ck_assert_int_eq(mdb_dbi_open(vault->txn, name, 0, &dbi), 0);
    ck_assert_int_eq(mdb_stat(vault->txn, dbi, &stat), 0);
    return stat.ms_entries;
}

/* Flips a bit in the middle of the n-th row. */
/* So many bits of it are wrong then. */
static void vault_damage(struct vault *vault, const char *name, int row, unsigned bits)
{
    static uint8_t copy[1 << 20];
    MDB_dbi dbi;
    MDB_cursor *cursor;
    MDB_val key, value;

    ck_assert_int_eq(mdb_dbi_open(vault->txn, name, 0, &dbi), 0);
    ck_assert_int_eq(mdb_cursor_open(vault->txn, dbi, &cursor), 0);
    ck_assert_int_eq(mdb_cursor_get(cursor, &key, &value, MDB_FIRST), 0);
    while (row-- > 0)
        ck_assert_int_eq(mdb_cursor_get(cursor, &key, &value, MDB_NEXT), 0);
    memcpy(copy, value.mv_data, value.mv_size);
    for (unsigned bit = 0; bit < bits; bit++)
        copy[value.mv_size / 2 + bit] ^= 4;
    value.mv_data = copy;
    ck_assert_int_eq(mdb_cursor_put(cursor, &key, &value, MDB_CURRENT), 0);
    mdb_cursor_close(cursor);
}

static void close_store(struct rig *rig)
{
    ck_assert_int_eq(store_close(&rig->store), 0);
}

/* Small commits, until trimming must be over. */
static void let_trim(struct rig *rig)
{
    for (int i = 0; i < 20; i++) {
        store_put_record(rig->store, SLICE("batch"), SLICE("x"));
        commit(rig);
    }
}

static void check_nothing_is_left(struct rig *rig)
{
    static const char *const names[] = {"blob", "index", "gone", "live", "sparse", "queue", "trim"};
    struct vault vault;

    close_store(rig);
    vault_open(&vault, rig);
    for (size_t i = 0; i < countof(names); i++)
        ck_assert_msg(vault_count(&vault, names[i]) == 0, "%s holds %zu rows", names[i],
                      vault_count(&vault, names[i]));
    vault_close(&vault);
}

static void print_finding(void *context, const char *text)
{
    (void)context;
    if (getenv("SHOW_FINDINGS") != NULL)
        fprintf(stderr, "%s\n", text);
}

/* What does not add up in the closed store. */
static uint64_t count_findings(const struct rig *rig)
{
    char error[STORE_ERROR_SIZE] = "";
    struct database database;
    struct verify verify;

    ck_assert_msg(database_open_read_only(&database, rig->directory, DATABASE_ALONE, error) == 0,
                  "%s", error);
    verify_begin(&verify, &database, print_finding, NULL);
    ck_assert_msg(offline_verify(&verify, error) == 0, "%s", error);
    database_close(&database);
    return verify.findings;
}

/* A restart on whose way the store at rest was verified. */
static void restart_verified(struct rig *rig)
{
    close_store(rig);
    ck_assert_uint_eq(count_findings(rig), 0);
    open_lmdb(rig);
    recover(rig);
}

START_TEST(engines_agree)
{
    struct rig memory, lmdb;
    struct work work;
    struct store_stats stats;

    rig_begin(&memory, MEMORY);
    rig_begin(&lmdb, LMDB);
    lmdb.reclaim_patience = _i % 2 == 0 ? 1 : 20;
    restart(&lmdb);
    work_begin(&work, (uint64_t)_i, memory.store, lmdb.store);
    for (int round = 0; round < 120; round++) {
        work_batch(&work);
        commit(&memory);
        commit(&lmdb);
        if (round % 10 == 9)
            compare(&memory, &lmdb, &work);
        if (draw(&work, 15) == 0) {
            restart(&memory);
            store_get_stats(lmdb.store, &stats);
            ck_assert_uint_eq(stats.damaged, 0);
            restart_verified(&lmdb);
            work.stores[1] = lmdb.store;
            compare_recovered(&memory, &lmdb);
            compare(&memory, &lmdb, &work);
        }
    }
    for (size_t i = 0; i < QUEUES_MAX; i++)
        if (work.queues[i].id != 0)
            work_drop(&work, &work.queues[i]);
    commit(&memory);
    commit(&lmdb);
    let_trim(&lmdb);
    store_get_stats(lmdb.store, &stats);
    ck_assert_uint_eq(stats.damaged, 0);
    check_nothing_is_left(&lmdb);
    work_end(&work);
    rig_end(&memory);
    rig_remove_files(&lmdb);
}
END_TEST

/* Submits what may go, again and again, while the disk gives and takes room; the last of it stays
 * under way. */
static void commit_what_may_go(struct rig *rig, struct work *work)
{
    for (uint64_t i = draw(work, 5); i > 0; i--) {
        store_memory_set_room(rig->store, (enum store_memory_room)draw(work, 4));
        if (draw(work, 3) == 0)
            store_ask_for_room(rig->store); /* while a batch is under way: its answer counts */
        finish(rig);
        if (draw(work, 3) == 0)
            store_ask_for_room(rig->store);
        if (store_may_submit(rig->store))
            store_submit(rig->store);
        ck_assert_uint_le(store_durable_entries(rig->store), store_durable(rig->store));
        ck_assert_uint_lt(store_durable(rig->store), store_open_lsn(rig->store));
    }
}

static void commit_all(struct rig *rig)
{
    finish(rig);
    store_memory_set_room(rig->store, STORE_MEMORY_ROOM_FOR_ALL);
    store_ask_for_room(rig->store);
    while (store_may_submit(rig->store)) {
        store_submit(rig->store);
        finish(rig);
    }
    ck_assert(store_open_is_empty(rig->store));
    ck_assert(!store_is_full(rig->store));
    ck_assert_uint_eq(store_durable_entries(rig->store), store_open_lsn(rig->store) - 1);
}

/* Who asks while a batch is under way has its answer when that comes back. */
START_TEST(a_refusal_answers_who_asked)
{
    struct rig rig;

    rig_begin(&rig, MEMORY);
    store_create_queue(rig.store, 1);
    put_many(&rig, 1, 0, 2);
    commit(&rig);
    store_memory_set_auto_sync(rig.store, false);
    store_memory_set_room(rig.store, STORE_MEMORY_ROOM_FOR_NOTHING);
    store_delete_entry(rig.store, 1, 0, 4);
    store_submit(rig.store);
    store_ask_for_room(rig.store);
    store_memory_sync(rig.store);
    finish(&rig);
    ck_assert(store_is_full(rig.store));
    ck_assert(!store_may_submit(rig.store));
    store_memory_set_room(rig.store, STORE_MEMORY_ROOM_FOR_ALL);
    store_ask_for_room(rig.store);
    store_submit(rig.store);
    store_memory_sync(rig.store);
    finish(&rig);
    ck_assert(!store_is_full(rig.store));
    ck_assert_str_eq("1:0001 ", contents(&rig, 1, 0, 2, true, 10));
    rig_end(&rig);
}
END_TEST

/* One store finds room now and then, the other always. */
START_TEST(what_waits_for_room_is_not_lost)
{
    struct rig narrow, wide;
    struct work work;

    rig_begin(&narrow, MEMORY);
    rig_begin(&wide, _i % 2);
    work_begin(&work, (uint64_t)_i, narrow.store, wide.store);
    for (int round = 0; round < 100; round++) {
        work_batch(&work);
        commit_what_may_go(&narrow, &work);
        commit(&wide);
        if (draw(&work, 10) == 0) {
            commit_all(&narrow);
            compare(&narrow, &wide, &work);
            recover(&narrow);
            recover(&wide);
            compare_counts(&narrow, &wide);
        }
    }
    work_end(&work);
    rig_end(&narrow);
    rig_end(&wide);
}
END_TEST

START_TEST(emptied_queues_leave_nothing)
{
    struct rig rig;

    rig_begin(&rig, LMDB);
    store_create_queue(rig.store, 1);
    for (uint64_t first = 0; first < 5000; first += 1000) {
        put_many(&rig, 1, first, first + 1000);
        commit(&rig);
    }
    delete_many(&rig, 1, 1, 5000, 2);
    commit(&rig);
    delete_many(&rig, 1, 0, 5000, 2);
    commit(&rig);
    store_delete_queue(rig.store, 1);
    commit(&rig);
    check_nothing_is_left(&rig);
    rig_remove_files(&rig);
}
END_TEST

START_TEST(acknowledging_from_the_front_writes_no_gone_rows)
{
    struct rig rig;
    struct vault vault;

    rig_begin(&rig, LMDB);
    store_create_queue(rig.store, 1);
    put_many(&rig, 1, 0, 1000);
    commit(&rig);
    for (uint64_t first = 0; first < 950; first += 50) {
        delete_many(&rig, 1, first, first + 50, 1);
        commit(&rig);
    }
    close_store(&rig);
    vault_open(&vault, &rig);
    ck_assert_uint_eq(vault_count(&vault, "gone"), 0);
    ck_assert_uint_eq(vault_count(&vault, "index"), 1);
    vault_close(&vault);
    rig_remove_files(&rig);
}
END_TEST

START_TEST(idle_stores_trim_on_their_own)
{
    struct rig rig;
    struct vault vault;

    rig_begin(&rig, LMDB);
    store_create_queue(rig.store, 1);
    for (uint64_t position = 0; position < 100000; position += 2) /* holes: many segments */
        put(&rig, 1, position, "body");
    commit(&rig);
    store_delete_queue(rig.store, 1);
    commit(&rig);
    usleep(500000);
    close_store(&rig);
    vault_open(&vault, &rig);
    ck_assert_uint_eq(vault_count(&vault, "index"), 0);
    ck_assert_uint_eq(vault_count(&vault, "blob"), 0);
    vault_close(&vault);
    rig_remove_files(&rig);
}
END_TEST

/* 900 entries in three segments, the one in the middle waiting to be trimmed. */
static void begin_untrimmed(struct rig *rig, const char *damaged, int row_number)
{
    const struct key name = key_pair(1, 300);
    uint8_t row[NUMBER_ROW_SIZE];
    struct vault vault;
    MDB_dbi trim;

    rig_begin(rig, LMDB);
    store_create_queue(rig->store, 1);
    for (uint64_t first = 0; first < 900; first += 300) {
        put_many(rig, 1, first, first + 300);
        commit(rig);
    }
    close_store(rig);
    vault_open(&vault, rig);
    number_encode(key_slice(&name), 600, 0, row);
    MDB_val key = {name.size, (void *)(uintptr_t)name.bytes}, value = {sizeof row, row};
    ck_assert_int_eq(mdb_dbi_open(vault.txn, "trim", 0, &trim), 0);
    ck_assert_int_eq(mdb_put(vault.txn, trim, &key, &value, 0), 0);
    if (damaged != NULL)
        vault_damage(&vault, damaged, row_number, 2);
    vault_close(&vault);
    /* opening; the first slice of trimming has to wait, unless the row must be mended */
    sync_allowed = damaged != NULL && strcmp(damaged, "queue") == 0 ? INT_MAX : 1;
    open_lmdb(rig);
    recover(rig);
}

START_TEST(untrimmed_ranges_are_not_seen)
{
    struct rig rig;
    struct vault vault;

    begin_untrimmed(&rig, _i == 0 ? NULL : "queue", 0);
    ck_assert_str_eq(contents(&rig, 1, 298, 602, false, 1), "298 299 600 601 ");
    ck_assert_str_eq(contents(&rig, 1, 350, 602, false, 9), "600 601 ");
    ck_assert_str_eq(contents(&rig, 1, 350, 600, false, 9), "");
    ck_assert_uint_eq(queue_state(&rig, 1)->count, _i == 0 ? 900 : 600); /* counted, or rebuilt */
    sync_allowed = INT_MAX;
    let_trim(&rig);
    ck_assert_str_eq(contents(&rig, 1, 298, 602, false, 10), "298 299 600 601 ");
    close_store(&rig);
    vault_open(&vault, &rig);
    ck_assert_uint_eq(vault_count(&vault, "index"), 2);
    ck_assert_uint_eq(vault_count(&vault, "live"), 2);
    ck_assert_uint_eq(vault_count(&vault, "trim"), 0);
    vault_close(&vault);
    rig_remove_files(&rig);
}
END_TEST

START_TEST(a_failed_slice_of_trimming_is_final)
{
    struct rig rig;

    begin_untrimmed(&rig, NULL, 0);
    sync_error = EIO;
    sync_allowed = INT_MAX;
    wait_once(&rig);
    ck_assert_int_eq(store_process(rig.store), -EIO);
    sync_error = 0;
    put_many(&rig, 1, 900, 910);
    store_submit(rig.store);
    wait_once(&rig);
    ck_assert_int_eq(store_process(rig.store), -EIO);
    ck_assert_int_eq(store_close(&rig.store), -EIO);
    ck_assert_int_eq(bodies_out, 0);
    rig_remove_files(&rig);
}
END_TEST

/* But for what verifying finds. */
static uint64_t damage_met(struct rig *rig)
{
    struct store_stats stats;
    struct store_check check;

    store_get_stats(rig->store, &stats);
    store_get_check(rig->store, &check);
    return stats.damaged - check.findings;
}

START_TEST(damage_is_counted_once_even_in_idle_time)
{
    struct rig rig;

    begin_untrimmed(&rig, "index", 1);
    sync_allowed = INT_MAX;
    let_trim(&rig);
    ck_assert_uint_eq(damage_met(&rig), 1);
    store_delete_entry(rig.store, 1, 400, 4);
    commit(&rig);
    ck_assert_uint_eq(damage_met(&rig), 2);
    store_ask_for_room(rig.store);
    store_submit(rig.store);
    finish(&rig);
    ck_assert_uint_eq(damage_met(&rig), 2);
    rig_end(&rig);
}
END_TEST

START_TEST(nothing_is_durable_before_its_sync)
{
    struct rig rig;
    struct pollfd poll_fd;

    rig_begin(&rig, LMDB);
    store_create_queue(rig.store, 1);
    commit(&rig);
    poll_fd = (struct pollfd){.fd = store_fd(rig.store), .events = POLLIN};
    sync_allowed = 0;
    put_many(&rig, 1, 0, 10);
    const uint64_t lsn = store_submit(rig.store);
    ck_assert_int_eq(poll(&poll_fd, 1, 100), 0);
    ck_assert_int_eq(store_process(rig.store), 0);
    ck_assert_uint_eq(store_durable(rig.store), lsn - 1);
    ck_assert(store_is_busy(rig.store));
    ck_assert_int_eq(bodies_out, 10);
    ck_assert_str_eq(contents(&rig, 1, 0, 100, false, 100),
                     ""); /* readers neither see it nor wait for it */
    sync_allowed = INT_MAX;
    finish(&rig);
    ck_assert_uint_eq(store_durable(rig.store), lsn);
    ck_assert_int_eq(bodies_out, 0);
    rig_end(&rig);
}
END_TEST

/* Whatever it says; that the disk is full, for one: a sync is not a write. */
START_TEST(a_failed_sync_is_final)
{
    static const int errors[] = {EIO, ENOSPC, EDQUOT};
    const int error = errors[_i];
    struct rig rig;

    rig_begin(&rig, LMDB);
    store_create_queue(rig.store, 1);
    put_many(&rig, 1, 0, 10);
    commit(&rig);
    const uint64_t durable = store_durable(rig.store);
    sync_error = error;
    put_many(&rig, 1, 10, 20);
    store_submit(rig.store);
    wait_once(&rig);
    ck_assert_int_eq(store_process(rig.store), -error);
    sync_error = 0; /* the disk seems well again */
    ck_assert(!store_is_busy(rig.store));
    put_many(&rig, 1, 20, 30);
    store_submit(rig.store);
    wait_once(&rig);
    ck_assert_int_eq(store_process(rig.store), -error);
    ck_assert_uint_eq(store_durable(rig.store), durable);
    put_many(&rig, 1, 30, 40);
    ck_assert_int_eq(store_close(&rig.store), -error);
    ck_assert_int_eq(bodies_out, 0);
    open_lmdb(&rig);
    recover(&rig);
    ck_assert(!rig.recovery.was_clean);
    ck_assert_uint_eq(queue_state(&rig, 1)->count, 10);
    ck_assert_uint_eq(queue_state(&rig, 1)->delivered, 10);
    rig_end(&rig);
}
END_TEST

START_TEST(files_are_private)
{
    struct rig rig;
    struct stat status;
    char path[128];

    rig_begin(&rig, LMDB);
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s.mdb", rig.directory, i == 0 ? "data" : "lock");
        ck_assert_int_eq(stat(path, &status), 0);
        ck_assert_uint_eq(status.st_mode & 0777, 0600);
    }
    for (int fd = 3; fd < 100; fd++) {
        const int flags = fcntl(fd, F_GETFD);
        char link[64], target[128] = "";
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        if (flags >= 0 && readlink(link, target, sizeof target - 1) > 0 &&
            strstr(target, ".mdb") != NULL)
            ck_assert_msg(flags & FD_CLOEXEC, "%s would be inherited", target);
    }
    rig_end(&rig);
}
END_TEST

START_TEST(another_format_is_refused_untouched)
{
    static const struct {
        uint32_t format;
        const char *said;
    } cases[] = {{FORMAT_VERSION + 1, "a newer version"}, {FORMAT_VERSION - 1, "an older version"}};
    const struct slice name = SLICE("format");
    char error[STORE_ERROR_SIZE], path[128];
    struct store *store = NULL;
    uint8_t row[FORMAT_ROW_SIZE];
    struct stat before, after;
    struct vault vault;
    MDB_dbi meta;
    struct rig rig;

    rig_begin(&rig, LMDB);
    close_store(&rig);
    put_u32(row + HEADER_SIZE, cases[_i].format);
    record_seal(name, row, sizeof row, 0, 0);
    vault_open(&vault, &rig);
    MDB_val key = {name.size, (void *)(uintptr_t)name.data}, value = {sizeof row, row};
    ck_assert_int_eq(mdb_dbi_open(vault.txn, "meta", 0, &meta), 0);
    ck_assert_int_eq(mdb_put(vault.txn, meta, &key, &value, 0), 0);
    vault_close(&vault);
    snprintf(path, sizeof path, "%s/data.mdb", rig.directory);
    ck_assert_int_eq(stat(path, &before), 0);
    usleep(20000);
    ck_assert_int_eq(store_open(&(struct store_options){.directory = rig.directory}, &store, error),
                     -EPROTONOSUPPORT);
    ck_assert_ptr_nonnull(strstr(error, cases[_i].said));
    ck_assert_ptr_null(store);
    ck_assert_int_eq(stat(path, &after), 0);
    ck_assert_int_eq(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
    rig_remove_files(&rig);
}
END_TEST

/* Or a power cut would leave a file that LMDB refuses, or none although commits had returned. */
START_TEST(a_new_file_comes_into_place_whole)
{
    char error[STORE_ERROR_SIZE], path[128];
    struct store *store = NULL;
    struct rig rig = {.engine = LMDB};

    log_level = LOG_NONE;
    snprintf(rig.directory, sizeof rig.directory, "%s/test_store.XXXXXX", scratch_directory());
    ck_assert_ptr_nonnull(mkdtemp(rig.directory));
    snprintf(path, sizeof path, "%s/data.mdb", rig.directory);
    atomic_store(&sync_error, EIO);
    ck_assert_int_eq(store_open(&(struct store_options){.directory = rig.directory}, &store, error),
                     -EIO);
    ck_assert_int_eq(access(path, F_OK), -1);
    atomic_store(&sync_error, 0);
    directory_syncs = -1;
    open_lmdb(&rig); /* what is left of the first attempt is no hindrance */
    ck_assert_int_eq(directory_syncs, 1);
    ck_assert_int_eq(store_close(&rig.store), 0);

    directory_syncs = 0;
    open_lmdb(&rig);
    ck_assert_int_eq(directory_syncs, 0); /* it has been in use */
    ck_assert_int_eq(store_close(&rig.store), 0);
    snprintf(path, sizeof path, "%s/lock.mdb", rig.directory);
    ck_assert_int_eq(unlink(path), 0); /* as if the first attempt had ended before its sync */
    open_lmdb(&rig);
    ck_assert_int_eq(directory_syncs, 1);
    rig_end(&rig);
}
END_TEST

static bool goes_on_for_a_while(void *context)
{
    int *questions = context;

    return (*questions)-- > 0;
}

static void ignore_record(void *context, struct slice key, struct slice value)
{
    (void)context, (void)key, (void)value;
}

static void ignore_queue(void *context, const struct store_queue_state *queue)
{
    (void)context, (void)queue;
}

START_TEST(recovery_may_be_given_up)
{
    char error[STORE_ERROR_SIZE], key[16];
    struct rig rig;
    int questions = 0;

    rig_begin(&rig, LMDB);
    for (int i = 0; i < 3000; i++) {
        snprintf(key, sizeof key, "%d", i);
        store_put_record(rig.store, slice_of_string(key), SLICE("v"));
    }
    commit(&rig);
    ck_assert_int_eq(store_close(&rig.store), 0);
    const struct store_options options = {
        .directory = rig.directory,
        .waiting = {.goes_on = goes_on_for_a_while, .context = &questions}};
    ck_assert_int_eq(store_open(&options, &rig.store, error), -ECANCELED);
    questions = 2; /* when it has been opened, and on the way */
    ck_assert_int_eq(store_open(&options, &rig.store, error), 0);
    struct store_recovery recovery = {.on_record = ignore_record, .on_queue = ignore_queue};
    ck_assert_int_eq(store_recover(rig.store, &recovery), -ECANCELED);
    ck_assert_int_eq(store_close(&rig.store), 0);
    questions = 1000;
    ck_assert_int_eq(store_open(&options, &rig.store, error), 0);
    ck_assert_int_eq(store_recover(rig.store, &recovery), 0);
    ck_assert(recovery.was_clean);
    rig_end(&rig);
}
END_TEST

START_TEST(a_missing_directory_is_an_error)
{
    char error[STORE_ERROR_SIZE] = "";
    struct store *store = NULL;

    ck_assert_int_eq(
        store_open(&(struct store_options){.directory = "/nonexistent/x"}, &store, error), -ENOENT);
    ck_assert_ptr_nonnull(strstr(error, "/nonexistent/x"));
}
END_TEST

/* ---- damage ---------------------------------------------------------------------------------- */

/* 1000 entries in queue 1, in three segments; every tenth deleted; queue 2 with 10 in the same
 * blob; two records. */
static void begin_damaged_in(struct rig *rig, const char *database, int row, unsigned bits)
{
    struct vault vault;

    rig_begin(rig, LMDB);
    store_put_record(rig->store, SLICE("a"), SLICE("a record, long enough"));
    store_put_record(rig->store, SLICE("b"), SLICE("another one"));
    store_create_queue(rig->store, 1);
    store_create_queue(rig->store, 2);
    put_many(rig, 1, 0, 1000);
    put_many(rig, 2, 0, 10);
    commit(rig);
    delete_many(rig, 1, 5, 1000, 10);
    commit(rig);
    close_store(rig);
    vault_open(&vault, rig);
    if (database != NULL)
        vault_damage(&vault, database, row, bits);
    vault_close(&vault);
    open_lmdb(rig);
    recover(rig);
}

/* In one bit, which a checksum can put right; in more, so that it cannot. */
static void begin_damaged(struct rig *rig, const char *database, int row)
{
    begin_damaged_in(rig, database, row, 1);
}

static void begin_ruined(struct rig *rig, const char *database, int row)
{
    begin_damaged_in(rig, database, row, 3);
}

static uint64_t damage_count(struct rig *rig)
{
    struct store_stats stats;

    store_get_stats(rig->store, &stats);
    return stats.damaged;
}

static uint64_t lost_count; /* what the last count_readable was told to be lost */

/* Reads queue 1 and answers how many come back well; *damaged those that do not. */
static size_t count_readable(struct rig *rig, size_t *damaged)
{
    struct store_fetch all = {.queue_id = 1, .end = 2000, .count_max = 2000, .bytes_max = 1 << 20};
    size_t well = 0;

    *damaged = 0;
    fetch(rig, &all);
    for (size_t i = 0; i < all.count; i++) {
        *damaged += all.entries[i].damaged;
        well += !all.entries[i].damaged;
        ck_assert_uint_eq(all.entries[i].bytes.size, 4);
    }
    ck_assert_uint_eq(all.next, all.end);
    lost_count = (uint64_t)all.lost_count;
    store_fetch_release(&all);
    return well;
}

START_TEST(a_damaged_body_is_not_delivered)
{
    struct rig rig;
    size_t damaged;

    begin_damaged(&rig, "blob", 0);
    ck_assert_uint_eq(damage_count(&rig), 0);
    ck_assert_uint_eq(count_readable(&rig, &damaged), 899);
    ck_assert_uint_eq(damaged, 1);
    ck_assert_uint_eq(damage_count(&rig), 1);
    rig_end(&rig);
}
END_TEST

START_TEST(a_damaged_segment_takes_its_entries_along)
{
    struct rig rig;
    size_t damaged;

    begin_ruined(&rig, "index", 1);
    const size_t well = count_readable(&rig, &damaged);
    ck_assert_uint_gt(well, 300);
    ck_assert_uint_lt(well, 600);
    ck_assert_uint_eq(damaged, 0);
    ck_assert_uint_eq(lost_count, 900 - well);
    ck_assert_uint_eq(damage_count(&rig), 2); /* with its gone row */
    ck_assert_uint_eq(count_readable(&rig, &damaged), well);
    ck_assert_uint_eq(damage_count(&rig), 2); /* met once */
    restart(&rig);
    ck_assert_uint_eq(queue_state(&rig, 1)->count, well);
    ck_assert_uint_eq(queue_state(&rig, 1)->bytes, 4 * well);
    put_many(&rig, 1, 1000, 1010);
    commit(&rig);
    for (uint64_t position = 0; position < 1000;
         position++) /* the queue goes on, whatever is acknowledged: what is lost does not count */
        if (position % 10 != 5)
            store_delete_entry(rig.store, 1, position, 4);
    commit(&rig);
    ck_assert_uint_gt(damage_count(&rig), 1);
    restart(&rig);
    ck_assert_uint_eq(queue_state(&rig, 1)->count, 10);
    ck_assert_uint_eq(queue_state(&rig, 1)->bytes, 40);
    ck_assert_uint_eq(count_readable(&rig, &damaged), 10);
    ck_assert_str_eq(contents(&rig, 2, 0, 100, false, 100), "0 1 2 3 4 5 6 7 8 9 ");
    rig_end(&rig);
}
END_TEST

START_TEST(a_damaged_gone_row_brings_entries_back)
{
    struct rig rig;
    size_t damaged;

    begin_ruined(&rig, "gone", 0);
    const size_t well = count_readable(&rig, &damaged);
    ck_assert_uint_gt(well, 900);
    ck_assert_uint_lt(well, 1000);
    for (uint64_t position = 0; position < 1000; position++)
        if (position % 10 != 5)
            store_delete_entry(rig.store, 1, position, 4);
    commit(&rig);
    for (uint64_t position = 5; position < 100; position += 10) { /* counted twice now: 910 */
        store_delete_entry(rig.store, 1, position, 4);
        commit(&rig);
    }
    ck_assert_str_eq(contents(&rig, 2, 0, 100, true, 3),
                     "0:0000 1:0001 2:0002 3:0003 4:0004 5:0005 6:0006 7:0007 8:0008 9:0009 ");
    rig_end(&rig);
}
END_TEST

START_TEST(a_damaged_queue_row_is_rebuilt)
{
    struct rig rig;
    size_t damaged;

    begin_damaged(&rig, "queue", 0);
    ck_assert_uint_eq(damage_count(&rig), 1);
    ck_assert_uint_eq(queue_state(&rig, 1)->head, 0);
    ck_assert_uint_eq(queue_state(&rig, 1)->tail, 1000);
    ck_assert_uint_eq(queue_state(&rig, 1)->count, 900);
    ck_assert_uint_eq(queue_state(&rig, 1)->bytes, 3600);
    ck_assert_uint_eq(queue_state(&rig, 2)->count, 10);
    put_many(&rig, 1, 1000, 1010);
    store_delete_entry(rig.store, 1, 0, 4);
    commit(&rig);
    ck_assert_uint_eq(damage_count(&rig), 2);
    restart(&rig);
    ck_assert_uint_eq(damage_count(&rig), 0);
    ck_assert_uint_eq(queue_state(&rig, 1)->head, 1);
    ck_assert_uint_eq(queue_state(&rig, 1)->count, 909);
    ck_assert_uint_eq(count_readable(&rig, &damaged), 909);
    rig_end(&rig);
}
END_TEST

START_TEST(a_damaged_record_is_skipped)
{
    struct rig rig;

    begin_ruined(&rig, "record", 0);
    ck_assert_str_eq(rig.records, "b=another one;");
    ck_assert_uint_eq(damage_count(&rig), 1);
    store_put_record(rig.store, SLICE("a"), SLICE("new"));
    commit(&rig);
    restart(&rig);
    ck_assert_str_eq(rig.records, "a=new;b=another one;");
    rig_end(&rig);
}
END_TEST

START_TEST(a_damaged_count_keeps_the_blob)
{
    struct rig rig;
    size_t damaged;

    begin_damaged(&rig, "live", 0);
    ck_assert_uint_eq(count_readable(&rig, &damaged), 900);
    store_delete_range(rig.store, 1, 0, 999, 899, 3596);
    commit(&rig);
    ck_assert_uint_gt(damage_count(&rig), 0);
    ck_assert_uint_eq(count_readable(&rig, &damaged), 1);
    rig_end(&rig);
}
END_TEST

START_TEST(damaged_meta_rows_do_not_stop_it)
{
    struct rig rig;
    size_t damaged;

    for (int row = 0; row < 2; row++) {
        begin_damaged(&rig, "meta", row);
        ck_assert_uint_ge(store_durable(rig.store), 1);
        put_many(&rig, 1, 1000, 1010);
        commit(&rig);
        ck_assert_uint_eq(count_readable(&rig, &damaged), 910);
        rig_end(&rig);
    }
}
END_TEST

/* ---- mending --------------------------------------------------------------------------------- */

/* What the owner does when it hears of a damaged entry. */
static void on_finding(void *context, const struct store_finding *finding)
{
    struct rig *rig = context;

    if (finding->is_entry)
        store_delete_entry(rig->store, finding->queue_id, finding->position, 4);
}

/* From the next start on. */
static void check_soon(struct rig *rig)
{
    rig->check_after_ms = 1;
    restart(rig);
}

/* Waits until the store has been checked, and answers how much was found. */
static uint64_t check_findings(struct rig *rig)
{
    struct store_check check;

    store_on_finding(rig->store, on_finding, rig);
    for (;;) {
        store_get_check(rig->store, &check);
        if (check.is_done)
            break;
        wait_once(rig);
        ck_assert_int_eq(store_process(rig->store), 0);
    }
    if (store_may_submit(rig->store))
        commit(rig);
    return check.findings;
}

static const struct {
    const char *database;
    int row;
    uint64_t kept_at_least; /* of the 900, when more than a bit is wrong */
} mended[] = {{"index", 0, 300}, {"index", 1, 300}, {"gone", 0, 900}, {"gone", 1, 900},
              {"queue", 0, 900}, {"queue", 1, 900}, {"live", 0, 900}, {"blob", 1, 900}};

/* A bit of a row costs nothing, is found once, and never again; nor is what is worse. */
START_TEST(damage_is_mended_once)
{
    const unsigned bits = _i % 2 == 0 ? 1 : 3;
    struct rig rig;
    size_t damaged;

    begin_damaged_in(&rig, mended[_i / 2].database, mended[_i / 2].row, bits);
    check_soon(&rig);
    ck_assert_uint_gt(check_findings(&rig), 0);
    restart(&rig);
    ck_assert_uint_eq(damage_count(&rig), 0);
    ck_assert_uint_eq(check_findings(&rig), 0);
    const uint64_t count = queue_state(&rig, 1)->count;
    ck_assert_uint_eq(count_readable(&rig, &damaged), count);
    ck_assert_uint_eq(damaged, 0);
    ck_assert_uint_ge(count, bits == 1 ? 900 : mended[_i / 2].kept_at_least);
    if (bits == 1)
        ck_assert_uint_eq(count, 900);
    ck_assert_str_eq(contents(&rig, 2, 0, 100, false, 100), "0 1 2 3 4 5 6 7 8 9 ");
    rig_end(&rig);
}
END_TEST

/* The reader comes first: it waits for the row, and misses nothing of it. */
START_TEST(a_read_waits_for_what_is_mended)
{
    struct rig rig;
    size_t damaged;

    begin_damaged(&rig, mended[_i].database, mended[_i].row);
    ck_assert_uint_eq(count_readable(&rig, &damaged), 900);
    ck_assert_uint_eq(lost_count, 0);
    check_soon(&rig);
    ck_assert_uint_eq(queue_state(&rig, 1)->count, 900);
    ck_assert_uint_eq(check_findings(&rig), _i < 5 ? 0 : 1); /* of rows that no read needs */
    rig_end(&rig);
}
END_TEST

START_TEST(a_damaged_body_is_found_by_the_check)
{
    struct rig rig;
    size_t damaged;

    begin_damaged(&rig, "blob", 0);
    check_soon(&rig);
    ck_assert_uint_eq(check_findings(&rig), 1);
    ck_assert_uint_eq(count_readable(&rig, &damaged), 899);
    ck_assert_uint_eq(damaged, 0);
    restart(&rig);
    ck_assert_uint_eq(queue_state(&rig, 1)->count, 899);
    ck_assert_uint_eq(check_findings(&rig), 0);
    rig_end(&rig);
}
END_TEST

enum { LOST_BLOBS = 60 };

/* So many blobs of four entries, half of them sparse; then a third of all live rows is lost, and
 * another third cannot be read. */
static void begin_without_live_rows(struct rig *rig)
{
    struct vault vault;
    MDB_dbi live;
    MDB_cursor *cursor;
    MDB_val key, value;

    rig_begin(rig, LMDB);
    store_create_queue(rig->store, 1);
    for (uint64_t blob = 0; blob < LOST_BLOBS; blob++) {
        put_many(rig, 1, 4 * blob, 4 * blob + 4);
        commit(rig);
    }
    for (uint64_t blob = 0; blob < LOST_BLOBS; blob += 2)
        delete_many(rig, 1, 4 * blob, 4 * blob + 3, 1);
    commit(rig);
    close_store(rig);
    vault_open(&vault, rig);
    ck_assert_uint_eq(vault_count(&vault, "live"), LOST_BLOBS);
    ck_assert_uint_eq(vault_count(&vault, "sparse"), LOST_BLOBS / 2);
    for (int row = 1; row < LOST_BLOBS; row += 3)
        vault_damage(&vault, "live", row, 3);
    ck_assert_int_eq(mdb_dbi_open(vault.txn, "live", 0, &live), 0);
    ck_assert_int_eq(mdb_cursor_open(vault.txn, live, &cursor), 0);
    for (int row = 0; mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0; row++)
        if (row % 3 == 0)
            ck_assert_int_eq(mdb_cursor_del(cursor, 0), 0);
    mdb_cursor_close(cursor);
    vault_close(&vault);
    ck_assert_uint_gt(count_findings(rig), 0);
}

/* However many live rows are lost, tables are walked once; and the sums hold afterwards. */
START_TEST(the_first_lost_row_alone_takes_a_walk)
{
    char error[STORE_ERROR_SIZE];
    struct database database;
    struct apply apply;
    struct rig rig;

    begin_without_live_rows(&rig);
    ck_assert_int_eq(
        database_open(&database, &(struct store_options){.directory = rig.directory}, error), 0);
    apply_init(&apply, &database);
    for (uint64_t blob = 1; blob <= LOST_BLOBS; blob++) {
        struct mend mend = {.damage = {.kind = DAMAGE_BLOB, .id = blob}};
        apply_mend(&apply, &mend);
        ck_assert_int_eq(mend.error, 0);
        ck_assert_uint_eq(mend.walked, blob == 1 ? LOST_BLOBS / 3 * 2 + LOST_BLOBS / 2 : 0);
    }
    apply_release_memory(&apply);
    database_close(&database);
    ck_assert_uint_eq(count_findings(&rig), 0);
    open_lmdb(&rig);
    recover(&rig);
    ck_assert_uint_eq(queue_state(&rig, 1)->count, LOST_BLOBS * 4 - LOST_BLOBS / 2 * 3);
    rig_end(&rig);
}
END_TEST

/* The same as a start finds it, whose check says of each row what is amiss. */
START_TEST(lost_live_rows_are_made_anew)
{
    struct rig rig;
    size_t damaged;

    begin_without_live_rows(&rig);
    open_lmdb(&rig);
    check_soon(&rig);
    ck_assert_uint_gt(check_findings(&rig), 0);
    close_store(&rig);
    ck_assert_uint_eq(count_findings(&rig), 0);
    open_lmdb(&rig);
    recover(&rig);
    ck_assert_uint_eq(count_readable(&rig, &damaged), LOST_BLOBS * 4 - LOST_BLOBS / 2 * 3);
    ck_assert_uint_eq(damaged, 0);
    rig_end(&rig);
}
END_TEST

START_TEST(a_damaged_record_is_mended)
{
    struct rig rig;

    begin_damaged(&rig, "record", 0);
    ck_assert_str_eq(rig.records, "a=a record, long enough;b=another one;");
    check_soon(&rig);
    ck_assert_uint_eq(check_findings(&rig), 1);
    restart(&rig);
    ck_assert_str_eq(rig.records, "a=a record, long enough;b=another one;");
    ck_assert_uint_eq(damage_count(&rig), 0);
    rig_end(&rig);
}
END_TEST

/* Nor those of blobs whose bodies are lost. */
START_TEST(numbers_of_lost_blobs_are_not_given_again)
{
    struct rig rig;
    struct vault vault;
    MDB_dbi blob;

    rig_begin(&rig, LMDB);
    store_create_queue(rig.store, 1);
    put_many(&rig, 1, 0, 10);
    commit(&rig);
    close_store(&rig);
    vault_open(&vault, &rig);
    ck_assert_int_eq(mdb_dbi_open(vault.txn, "blob", 0, &blob), 0);
    ck_assert_int_eq(mdb_drop(vault.txn, blob, 0), 0);
    vault_damage(&vault, "meta", 1, 1);
    vault_close(&vault);
    open_lmdb(&rig);
    put_many(&rig, 1, 10, 20);
    commit(&rig);
    rig_end(&rig);
}
END_TEST

/* Wherever the file ends, nobody is killed for reading behind it: what is gone is damaged, or the
 * store refuses to open. */
START_TEST(a_file_that_is_cut_short_is_no_crash)
{
    enum { CUTS = UNIT_SANITIZED ? 40 : 200 };
    char error[STORE_ERROR_SIZE], path[128], copy[128], command[300];
    struct rig rig;
    struct stat status;
    size_t damaged, opened = 0, served = 0;

    begin_damaged(&rig, "blob", 0);
    close_store(&rig);
    snprintf(path, sizeof path, "%s/data.mdb", rig.directory);
    snprintf(copy, sizeof copy, "%s/whole", rig.directory);
    snprintf(command, sizeof command, "cp %s %s", path, copy);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(stat(path, &status), 0);
    for (off_t size = status.st_size - 1; size > 8192; size -= status.st_size / CUTS + 1) {
        snprintf(command, sizeof command, "cp %s %s", copy, path);
        ck_assert_int_eq(system(command), 0);
        ck_assert_int_eq(truncate(path, size), 0);
        if (store_open(
                &(struct store_options){.directory = rig.directory, .map_size = (size_t)4 << 30},
                &rig.store, error) != 0)
            continue;
        opened++;
        struct store_recovery recovery = {
            .context = &rig, .on_record = on_record, .on_queue = on_queue};
        rig.records[0] = '\0';
        array_clear(&rig.queues);
        if (store_recover(rig.store, &recovery) == 0 && queue_state(&rig, 1) != NULL)
            served += count_readable(&rig, &damaged) > 0;
        store_close(&rig.store);
    }
    ck_assert_uint_gt(opened, 0);
    ck_assert_uint_gt(served, 0);
    rig_remove_files(&rig);
}
END_TEST

/* ---- kill -9 --------------------------------------------------------------------------------- */

/* The child: batches without end, one byte to the pipe for each that is durable. */
static void work_until_killed(struct rig *rig, uint64_t seed, uint64_t done, int fd)
{
    struct store *memory = store_memory_new();
    struct rig model = {.engine = MEMORY, .store = memory};
    struct work work;

    store_on_body_done(memory, on_body_done);
    work_begin(&work, seed, memory, NULL);
    work.small = true;
    for (uint64_t i = 0; i < done; i++) { /* what was durable before: only the work needs to know */
        work_batch(&work);
        commit(&model);
    }
    open_lmdb(rig);
    work.stores[0] = rig->store;
    for (;;) {
        work_batch(&work);
        commit(rig);
        if (write(fd, "", 1) != 1)
            _exit(1);
    }
}

static uint64_t kill_child(struct rig *rig, uint64_t seed, uint64_t done, useconds_t after_us)
{
    int fds[2];
    char bytes[4096];
    uint64_t reported = 0;

    ck_assert_int_eq(pipe(fds), 0);
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        close(fds[0]);
        work_until_killed(rig, seed, done, fds[1]);
    }
    close(fds[1]);
    ssize_t got = read(fds[0], bytes, 1); /* the first commit: it is under way */
    reported += got > 0;
    usleep(after_us);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    while ((got = read(fds[0], bytes, sizeof bytes)) > 0)
        reported += (uint64_t)got;
    close(fds[0]);
    return done + reported;
}

/* The same batches, in memory. */
static void replay(struct rig *memory, struct work *work, uint64_t seed, uint64_t batches)
{
    rig_begin(memory, MEMORY);
    work_begin(work, seed, memory->store, NULL);
    work->small = true;
    for (uint64_t i = 0; i < batches; i++) {
        work_batch(work);
        commit(memory);
    }
    store_memory_crash(memory->store);
    recover(memory);
}

START_TEST(what_was_durable_survives_kill)
{
    struct rig lmdb, memory;
    struct random random;
    struct work work;
    uint64_t done = 0;

    rig_begin(&lmdb, LMDB);
    close_store(&lmdb);
    random_init_seeded(&random, (uint64_t)_i);
    for (int kills = 0; kills < 4; kills++) {
        const uint64_t reported =
            kill_child(&lmdb, (uint64_t)_i, done, (useconds_t)random_below(&random, 40000));
        open_lmdb(&lmdb);
        recover(&lmdb);
        ck_assert(!lmdb.recovery.was_clean);
        sscanf(lmdb.records, "batch=%" SCNu64, &done);
        ck_assert_uint_ge(done, reported);
        ck_assert_uint_le(done, reported + 1);
        replay(&memory, &work, (uint64_t)_i, done);
        compare_recovered(&memory, &lmdb);
        compare(&memory, &lmdb, &work);
        work_end(&work);
        rig_end(&memory);
        close_store(&lmdb);
    }
    rig_remove_files(&lmdb);
}
END_TEST

/* ---- verifying, copying ---------------------------------------------------------------------- */

START_TEST(damage_is_found)
{
    static const struct {
        const char *database;
        int row;
    } cases[] = {{"blob", 0}, {"blob", 1},  {"index", 0},  {"index", 2}, {"gone", 0},
                 {"live", 0}, {"queue", 1}, {"record", 1}, {"meta", 0},  {"meta", 1}};
    struct rig rig;
    struct vault vault;

    begin_damaged(&rig, NULL, 0);
    close_store(&rig);
    ck_assert_uint_eq(count_findings(&rig), 0);
    vault_open(&vault, &rig);
    vault_damage(&vault, cases[_i].database, cases[_i].row, 1);
    vault_close(&vault);
    ck_assert_uint_gt(count_findings(&rig), 0);
    rig_remove_files(&rig);
}
END_TEST

/* A body that so many queues share that what they need of it is more than a row can say. */
START_TEST(a_cost_beyond_counting_is_no_damage)
{
    const struct key name = key_u64(1);
    struct rig rig;
    struct vault vault;
    struct live_row row;
    uint8_t encoded[LIVE_ROW_SIZE];
    MDB_val key = {name.size, (void *)(uintptr_t)name.bytes}, value;
    MDB_dbi live;

    rig_begin(&rig, LMDB);
    store_create_queue(rig.store, 1);
    put(&rig, 1, 0, "alone in its blob");
    commit(&rig);
    close_store(&rig);
    vault_open(&vault, &rig);
    ck_assert_int_eq(mdb_dbi_open(vault.txn, "live", 0, &live), 0);
    ck_assert_int_eq(mdb_get(vault.txn, live, &key, &value), 0);
    ck_assert(live_decode(key_slice(&name), slice_of(value.mv_data, value.mv_size), &row));
    ck_assert_uint_eq(row.sparse_at, 0);
    row.alive--; /* as when it had been cut off before something was taken from it */
    live_encode(1, &row, encoded);
    value = (MDB_val){sizeof encoded, encoded};
    ck_assert_int_eq(mdb_put(vault.txn, live, &key, &value, 0), 0);
    vault_close(&vault);
    ck_assert_uint_eq(count_findings(&rig), 0);
    rig_remove_files(&rig);
}
END_TEST

START_TEST(a_row_too_few_is_found)
{
    static const char *const names[] = {"blob", "index", "live", "queue"};
    struct rig rig;
    struct vault vault;
    MDB_dbi dbi;
    MDB_cursor *cursor;
    MDB_val key, value;

    begin_damaged(&rig, NULL, 0);
    close_store(&rig);
    vault_open(&vault, &rig);
    ck_assert_int_eq(mdb_dbi_open(vault.txn, names[_i], 0, &dbi), 0);
    ck_assert_int_eq(mdb_cursor_open(vault.txn, dbi, &cursor), 0);
    ck_assert_int_eq(mdb_cursor_get(cursor, &key, &value, MDB_FIRST), 0);
    ck_assert_int_eq(mdb_cursor_del(cursor, 0), 0);
    vault_close(&vault);
    ck_assert_uint_gt(count_findings(&rig), 0);
    rig_remove_files(&rig);
}
END_TEST

/* The store of `from`, copied while more is written, is one of the states it went through. */
START_TEST(a_backup_is_a_state_that_was)
{
    struct rig lmdb, copy, memory;
    struct work work;
    struct store_backup backup;
    char path[sizeof lmdb.directory + 16];
    uint64_t copied = 0;

    rig_begin(&lmdb, LMDB);
    rig_begin(&copy, LMDB);
    close_store(&copy);
    lmdb.reclaim_patience = 1;
    restart(&lmdb);
    snprintf(path, sizeof path, "%s/data.mdb", copy.directory);
    work_begin(&work, (uint64_t)_i, lmdb.store, NULL);
    work.small = true;
    for (int i = 0; i < 100; i++) {
        work_batch(&work);
        commit(&lmdb);
    }
    const uint64_t before = work.batches;
    ck_assert_int_eq(store_backup(lmdb.store, path), 0);
    ck_assert_int_eq(store_backup(lmdb.store, path), -EBUSY);
    do {
        work_batch(&work);
        commit(&lmdb);
        store_get_backup(lmdb.store, &backup);
    } while (backup.is_running);
    ck_assert_msg(backup.error == 0, "%s", backup.sentence);
    ck_assert_uint_gt(backup.size, 0);
    const uint64_t after = work.batches;
    work_end(&work);
    rig_end(&lmdb);

    ck_assert_uint_eq(count_findings(&copy), 0);
    open_lmdb(&copy);
    recover(&copy);
    sscanf(copy.records, "batch=%" SCNu64, &copied);
    ck_assert_uint_ge(copied, before);
    ck_assert_uint_le(copied, after);
    replay(&memory, &work, (uint64_t)_i, copied);
    compare_recovered(&memory, &copy);
    compare(&memory, &copy, &work);
    work_end(&work);
    rig_end(&memory);
    rig_end(&copy);
}
END_TEST

static void await_backup(struct rig *rig, struct store_backup *backup)
{
    do {
        wait_once(rig);
        ck_assert_int_eq(store_process(rig->store), 0);
        store_get_backup(rig->store, backup);
    } while (backup->is_running);
}

/* Other threads have something to say before, too. */
static int await_failure(struct rig *rig)
{
    int result;

    do {
        wait_once(rig);
        result = store_process(rig->store);
    } while (result == 0);
    return result;
}

START_TEST(a_backup_that_cannot_be_written_says_so)
{
    struct rig rig;
    struct store_backup backup;

    rig_begin(&rig, LMDB);
    store_get_backup(rig.store, &backup);
    ck_assert(backup.path == NULL && !backup.is_running);
    ck_assert_int_eq(store_backup(rig.store, "/nonexistent/x"), 0);
    await_backup(&rig, &backup);
    ck_assert_int_eq(backup.error, -ENOENT);
    ck_assert_ptr_nonnull(strstr(backup.sentence, "/nonexistent/x"));
    rig_end(&rig);
}
END_TEST

START_TEST(a_backup_without_room_says_so)
{
    struct rig rig;
    struct store_backup backup;
    char path[128];

    rig_begin(&rig, LMDB);
    snprintf(path, sizeof path, "%s/copy", rig.directory);
    fclose(fopen(path, "w")); /* one from before, which would take room */
    store_create_queue(rig.store, 1);
    for (uint64_t i = 0; i < 100; i++)
        put(&rig, 1, i, "body");
    commit(&rig);
    let_trim(&rig);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){40000, RLIM_INFINITY});
    ck_assert_int_eq(store_backup(rig.store, path), 0);
    await_backup(&rig, &backup);
    ck_assert_int_eq(backup.error, -ENOSPC);
    ck_assert_ptr_nonnull(strstr(backup.sentence, "room for a whole copy"));
    ck_assert_int_ne(access(path, F_OK), 0);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
    rig_end(&rig);
}
END_TEST

/* Its checksum holds, and yet it says that there were entries above those that its owner knows
 * of. */
START_TEST(a_queue_row_that_cannot_be_true_is_damage)
{
    struct rig rig;
    struct vault vault;
    struct queue_row row;
    uint8_t encoded[QUEUE_ROW_SIZE];
    MDB_dbi dbi;

    rig_begin(&rig, LMDB);
    store_create_queue(rig.store, 1);
    put_many(&rig, 1, 0, 10);
    commit(&rig);
    close_store(&rig);
    const struct key name = key_u64(1);
    MDB_val key = {key_slice(&name).size, (void *)(uintptr_t)key_slice(&name).data}, value;
    vault_open(&vault, &rig);
    ck_assert_int_eq(mdb_dbi_open(vault.txn, "queue", 0, &dbi), 0);
    ck_assert_int_eq(mdb_get(vault.txn, dbi, &key, &value), 0);
    ck_assert(queue_row_decode(key_slice(&name), slice_of(value.mv_data, value.mv_size), &row));
    row.tail = 1000;
    queue_row_encode(1, &row, encoded);
    value = (MDB_val){sizeof encoded, encoded};
    ck_assert_int_eq(mdb_put(vault.txn, dbi, &key, &value, 0), 0);
    vault_close(&vault);

    open_lmdb(&rig);
    put_many(&rig, 1, 10, 12);
    store_submit(rig.store);
    ck_assert_int_eq(await_failure(&rig), -EIO);
    ck_assert_int_eq(store_close(&rig.store), -EIO);
    rig_remove_files(&rig);
}
END_TEST

/* What is committed into a file that nobody will find is not durable. */
START_TEST(a_data_file_that_is_taken_away_is_a_failure)
{
    static const char *const aside[] = {NULL, "moved", "data.mdb"};
    struct rig rig;
    char path[128], other[128];

    rig_begin(&rig, LMDB);
    snprintf(path, sizeof path, "%s/data.mdb", rig.directory);
    store_put_record(rig.store, SLICE("a"), SLICE("1"));
    commit(&rig);
    let_trim(&rig);
    if (aside[_i] == NULL) {
        ck_assert_int_eq(unlink(path), 0);
    } else if (strcmp(aside[_i], "data.mdb") != 0) {
        snprintf(other, sizeof other, "%s/%s", rig.directory, aside[_i]);
        ck_assert_int_eq(rename(path, other), 0);
    } else {
        snprintf(other, sizeof other, "%s/other", rig.directory);
        fclose(fopen(other, "w"));
        ck_assert_int_eq(rename(other, path), 0);
    }
    store_put_record(rig.store, SLICE("a"), SLICE("2"));
    const uint64_t lsn = store_submit(rig.store);
    ck_assert_int_eq(await_failure(&rig), -ESTALE);
    ck_assert_uint_lt(store_durable(rig.store), lsn);
    ck_assert_int_eq(store_close(&rig.store), -ESTALE);
    rig_remove_files(&rig);
}
END_TEST

START_TEST(a_backup_that_cannot_be_synced_is_no_failure_of_the_store)
{
    struct rig rig;
    struct store_backup backup;
    char path[128];

    rig_begin(&rig, LMDB);
    snprintf(path, sizeof path, "%s/copy", rig.directory);
    let_trim(&rig);
    atomic_store(&sync_error, EIO);
    ck_assert_int_eq(store_backup(rig.store, path), 0);
    await_backup(&rig, &backup);
    ck_assert_int_eq(backup.error, -EIO);
    ck_assert(!datasync_has_failed());
    store_put_record(rig.store, SLICE("a"), SLICE("1"));
    store_submit(rig.store);
    ck_assert_int_eq(await_failure(&rig), -EIO);
    ck_assert(datasync_has_failed());
    ck_assert_int_eq(store_close(&rig.store), -EIO);
    rig_remove_files(&rig);
}
END_TEST

START_TEST(compacting_keeps_everything)
{
    struct rig rig;
    char error[STORE_ERROR_SIZE] = "", before[65536];

    rig_begin(&rig, LMDB);
    store_create_queue(rig.store, 1);
    store_put_record(rig.store, SLICE("a"), SLICE("b"));
    for (uint64_t first = 0; first < 20000; first += 1000) {
        put_many(&rig, 1, first, first + 1000);
        commit(&rig);
    }
    delete_many(&rig, 1, 0, 19000, 1);
    commit(&rig);
    let_trim(&rig);
    snprintf(before, sizeof before, "%s", contents(&rig, 1, 0, 30000, true, 5000));
    close_store(&rig);
    const uint64_t size = offline_file_size(rig.directory);
    ck_assert_msg(offline_compact(rig.directory, &(struct store_waiting){0}, error) == 0, "%s",
                  error);
    ck_assert_uint_lt(offline_file_size(rig.directory), size / 2);
    ck_assert_uint_eq(count_findings(&rig), 0);
    open_lmdb(&rig);
    recover(&rig);
    ck_assert(rig.recovery.was_clean);
    ck_assert_str_eq(rig.records, "a=b;batch=x;");
    ck_assert_uint_eq(queue_state(&rig, 1)->count, 1000);
    ck_assert_str_eq(contents(&rig, 1, 0, 30000, true, 5000), before);
    put_many(&rig, 1, 20000, 20010);
    commit(&rig);
    rig_end(&rig);
}
END_TEST

/* ---- reclaiming ------------------------------------------------------------------------------ */

static struct live_row count_blobs(const struct rig *rig, uint64_t *blobs)
{
    struct live_row sum = {0}, row;
    struct vault vault;
    MDB_dbi dbi;
    MDB_cursor *cursor;
    MDB_val key, value;

    *blobs = 0;
    vault_open(&vault, rig);
    ck_assert_int_eq(mdb_dbi_open(vault.txn, "live", 0, &dbi), 0);
    ck_assert_int_eq(mdb_cursor_open(vault.txn, dbi, &cursor), 0);
    while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
        ck_assert(live_decode(slice_of(key.mv_data, key.mv_size),
                              slice_of(value.mv_data, value.mv_size), &row));
        sum.entries += row.entries;
        sum.size += row.size;
        (*blobs)++;
    }
    vault_close(&vault);
    return sum;
}

static void put_shared(struct rig *rig, uint64_t position)
{
    static uint8_t bytes[1000];
    const uint32_t body = add_body(rig->store, bytes, sizeof bytes);

    for (uint64_t queue = 1; queue <= 3; queue++)
        store_put_entry(
            rig->store,
            &(struct store_entry){.queue_id = queue, .position = position, .weight = sizeof bytes},
            body);
}

/* 3000 bodies in several blobs, each in three queues; one in a hundred stays. */
START_TEST(what_stays_takes_its_own_size)
{
    struct rig rig;
    uint64_t blobs;
    const bool idle = _i == 1;

    rig_begin(&rig, LMDB);
    rig.reclaim_patience = idle ? 0 : 3;
    restart(&rig);
    for (uint64_t queue = 1; queue <= 3; queue++)
        store_create_queue(rig.store, queue);
    for (uint64_t position = 0; position < 3000; position++)
        put_shared(&rig, position);
    commit(&rig);
    for (uint64_t position = 0; position < 3000; position++)
        for (uint64_t queue = 1; queue <= 3 && position % 100 != 50; queue++)
            store_delete_entry(rig.store, queue, position, 1000);
    commit(&rig);
    if (idle)
        usleep(500000);
    else
        let_trim(&rig);
    for (uint64_t queue = 1; queue <= 3; queue++) {
        struct store_fetch all = {
            .queue_id = queue, .end = 3000, .count_max = 3000, .bytes_max = 1 << 20};
        fetch(&rig, &all);
        ck_assert_uint_eq(all.count, 30);
        ck_assert_uint_eq(all.damaged, 0);
        for (size_t i = 0; i < all.count; i++)
            ck_assert_uint_eq(all.entries[i].position, 50 + 100 * i);
        store_fetch_release(&all);
    }
    close_store(&rig);
    ck_assert_uint_eq(count_findings(&rig), 0);
    struct live_row sum = count_blobs(&rig, &blobs);
    const uint64_t own_size = 30 * 1000 + 90 * blob_cost(0);          /* shared bodies once */
    for (int i = 0; idle && sum.size > 2 * own_size && i < 50; i++) { /* it had no time yet */
        open_lmdb(&rig);
        usleep(400000);
        close_store(&rig);
        sum = count_blobs(&rig, &blobs);
    }
    ck_assert_uint_eq(sum.entries, 90);
    /* In slices, which the clock ends: a blob each, and what is shared may be cut. */
    ck_assert_uint_le(sum.size, 2 * own_size);
    rig_remove_files(&rig);
}
END_TEST

/* A queue read from its front empties its blobs by itself: nothing is written twice. */
START_TEST(reading_from_the_front_moves_nothing)
{
    struct rig rig;
    struct store_stats before, after;

    rig_begin(&rig, LMDB);
    store_create_queue(rig.store, 1);
    put_many(&rig, 1, 0, 5000);
    commit(&rig);
    store_get_stats(rig.store, &before);
    for (uint64_t first = 0; first < 4900; first += 100) {
        delete_many(&rig, 1, first, first + 100, 1);
        commit(&rig);
    }
    store_get_stats(rig.store, &after);
    ck_assert_uint_lt(after.bytes_written - before.bytes_written, 49 * 250);
    rig_end(&rig);
}
END_TEST

/* Messages acknowledged in any order. */
struct churn_kind {
    uint32_t queues, octets_min, octets_max, living, batch;
    double times; /* what lives, for the file at most */
};

static const struct churn_kind churn_kinds[] = {
    {8, 100, 20 << 10, 36000, 400, 1.85},
    {500, 1024, 1024, 20000, 250,
     2.25}, /* each commit copies the index, and what is kept for a full
                                            disk is as large again */
};

struct churn {
    const struct churn_kind *kind;
    struct rig rig;
    struct random random;
    ARRAY_OF(struct store_entry) living;
    uint64_t tails[500], live, peak; /* the last two in octets of bodies */
};

static void churn_put(struct churn *churn)
{
    static const uint8_t octets[20 << 10];
    const struct churn_kind *kind = churn->kind;
    const uint64_t queue = random_below(&churn->random, kind->queues);
    const uint32_t most = kind->octets_min << random_below(&churn->random, 9);
    const uint32_t size =
        kind->octets_min +
        (uint32_t)random_below(&churn->random,
                               min_of(most, 1 + kind->octets_max - kind->octets_min));
    const struct store_entry entry = {
        .queue_id = 1 + queue, .position = churn->tails[queue]++, .weight = size};

    store_put_entry(churn->rig.store, &entry, add_body(churn->rig.store, octets, size));
    *array_add(&churn->living) = entry;
    churn->live += size;
}

static void churn_take(struct churn *churn)
{
    struct store_entry *entry =
        &churn->living.items[random_below(&churn->random, churn->living.count)];

    store_delete_entry(churn->rig.store, entry->queue_id, entry->position, entry->weight);
    churn->live -= entry->weight;
    *entry = churn->living.items[--churn->living.count];
}

/* The whole file, what is allocated ahead of its use included. */
START_TEST(the_file_stays_in_proportion)
{
    const struct churn_kind *kind = &churn_kinds[_i];
    struct churn churn = {.kind = kind};
    struct stat file;
    char path[128];

    rig_begin(&churn.rig, LMDB);
    churn.rig.check_after_ms = 1; /* its snapshots keep pages */
    restart(&churn.rig);
    random_init_seeded(&churn.random, 1);
    for (uint64_t queue = 0; queue < kind->queues; queue++)
        store_create_queue(churn.rig.store, 1 + queue);
    for (uint32_t batch = 0; batch < 4 * kind->living / kind->batch; batch++) {
        for (uint32_t i = 0; i < kind->batch; i++)
            churn_put(&churn);
        churn.peak = max_of(churn.peak, churn.live);
        commit(&churn.rig);
        while (churn.living.count > kind->living)
            churn_take(&churn);
    }
    snprintf(path, sizeof path, "%s/data.mdb", churn.rig.directory);
    ck_assert_int_eq(stat(path, &file), 0);
    ck_assert_msg((double)file.st_size <= kind->times * (double)churn.peak,
                  "%.1f MB for %.1f MB that lived", (double)file.st_size / 1e6,
                  (double)churn.peak / 1e6);
    rig_end(&churn.rig);
    array_release(&churn.living);
}
END_TEST

/* A body that cannot be read keeps its blob from being moved, and nothing else is lost. */
START_TEST(a_damaged_blob_is_left_alone)
{
    struct rig rig;
    size_t damaged;

    begin_damaged(&rig, "blob", 0);
    rig.reclaim_patience = 1;
    restart(&rig);
    for (uint64_t position = 0; position < 1000; position++)
        if (strchr("012378", '0' + (int)(position % 10)) != NULL)
            store_delete_entry(rig.store, 1, position, 4);
    commit(&rig);
    let_trim(&rig);
    ck_assert_uint_gt(damage_count(&rig), 0);
    ck_assert_uint_eq(count_readable(&rig, &damaged) + damaged, 300);
    ck_assert_uint_eq(damaged, 1);
    ck_assert_str_eq(contents(&rig, 2, 0, 100, false, 100), "0 1 2 3 4 5 6 7 8 9 ");
    rig_end(&rig);
}
END_TEST

/* Resident pages of files. */
static uint64_t resident_file_bytes(void)
{
    uint64_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");

    ck_assert(file != NULL && fscanf(file, "%*u %*u %" SCNu64, &pages) == 1);
    fclose(file);
    return pages * 4096;
}

/* The map of the data file does not stay in memory because all of it was read once. */
START_TEST(what_was_read_is_given_back)
{
    enum { COUNT = 80, SIZE = 1 << 20 };
    static char body[SIZE];
    struct rig rig;
    struct store_fetch all = {
        .queue_id = 1, .end = COUNT, .count_max = COUNT, .bytes_max = (size_t)COUNT * SIZE};

    memset(body, 'x', sizeof body - 1);
    rig_begin(&rig, LMDB);
    rig.check_after_ms = 600000; /* the check gives back what it reads, too */
    restart(&rig);
    store_create_queue(rig.store, 1);
    for (uint64_t position = 0; position < COUNT; position++) {
        put(&rig, 1, position, body);
        commit(&rig);
    }
    fetch(&rig, &all);
    ck_assert_uint_eq(all.count, COUNT);
    store_fetch_release(&all);
    ck_assert_uint_gt(resident_file_bytes(), 70 << 20);
    do {
        usleep(50000);
        store_put_record(rig.store, SLICE("batch"), SLICE("x"));
        commit(&rig);
    } while (resident_file_bytes() > 48 << 20);
    rig_end(&rig);
}
END_TEST

/* Fan-out writes a body once, counted in bytes handed to the database. */
START_TEST(fan_out_writes_one_body)
{
    static uint8_t bytes[1024];
    struct rig rig;
    struct store_stats before, after;

    rig_begin(&rig, LMDB);
    for (uint64_t queue = 1; queue <= 100; queue++)
        store_create_queue(rig.store, queue);
    commit(&rig);
    store_get_stats(rig.store, &before);
    for (uint64_t position = 0; position < 10; position++) {
        const uint32_t body = add_body(rig.store, bytes, sizeof bytes);
        for (uint64_t queue = 1; queue <= 100; queue++)
            store_put_entry(rig.store,
                            &(struct store_entry){.queue_id = queue, .position = position}, body);
    }
    commit(&rig);
    store_get_stats(rig.store, &after);
    ck_assert_uint_ge(after.bytes_written - before.bytes_written, 10 * 1024);
    ck_assert_uint_lt(after.bytes_written - before.bytes_written,
                      10 * 1024 + 100 * (10 * 10 + 100));
    rig_end(&rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("store");
    TCase *both = tcase_create("both"), *lmdb = tcase_create("lmdb");

    tcase_add_loop_test(both, a_new_store_is_empty, 0, ENGINES);
    tcase_add_loop_test(both, the_index_alone, 0, ENGINES);
    tcase_add_loop_test(both, records_last_word_wins, 0, ENGINES);
    tcase_add_loop_test(both, large_records_survive, 0, ENGINES);
    tcase_add_loop_test(both, queues_count_their_entries, 0, ENGINES);
    tcase_add_loop_test(both, queues_know_of_deadlines, 0, ENGINES);
    tcase_add_loop_test(both, everything_about_an_entry_comes_back, 0, ENGINES);
    tcase_add_loop_test(both, a_shared_body_is_written_once, 0, ENGINES);
    tcase_add_loop_test(both, what_is_taken_back_is_not_written, 0, ENGINES);
    tcase_add_loop_test(both, what_is_taken_back_leaves_nothing_behind, 0, ENGINES);
    tcase_add_loop_test(both, a_batch_of_marks_is_no_reason_to_write, 0, ENGINES);
    tcase_add_loop_test(both, fetches_go_in_pieces_over_holes, 0, ENGINES);
    tcase_add_loop_test(both, fetches_stop_at_their_bytes, 0, ENGINES);
    tcase_add_loop_test(both, large_bodies_survive, 0, ENGINES);
    tcase_add_loop_test(both, deleted_ranges_are_gone_at_once, 0, ENGINES);
    tcase_add_loop_test(both, deleted_queues_are_gone_at_once, 0, ENGINES);
    tcase_add_loop_test(both, entries_of_a_queue_deleted_at_once_are_not_written, 0, ENGINES);
    tcase_add_loop_test(both, closing_hands_everything_back, 0, ENGINES);
    suite_add_tcase(suite, both);

    tcase_add_loop_test(lmdb, engines_agree, 0, 12);
    tcase_add_test(lmdb, a_refusal_answers_who_asked);
    tcase_add_loop_test(lmdb, what_waits_for_room_is_not_lost, 0, 16);
    tcase_add_test(lmdb, emptied_queues_leave_nothing);
    tcase_add_test(lmdb, acknowledging_from_the_front_writes_no_gone_rows);
    tcase_add_test(lmdb, idle_stores_trim_on_their_own);
    tcase_add_loop_test(lmdb, untrimmed_ranges_are_not_seen, 0, 2);
    tcase_add_test(lmdb, a_failed_slice_of_trimming_is_final);
    tcase_add_test(lmdb, damage_is_counted_once_even_in_idle_time);
    tcase_add_test(lmdb, nothing_is_durable_before_its_sync);
    tcase_add_loop_test(lmdb, a_failed_sync_is_final, 0, 3);
    tcase_add_test(lmdb, files_are_private);
    tcase_add_loop_test(lmdb, another_format_is_refused_untouched, 0, 2);
    tcase_add_test(lmdb, a_new_file_comes_into_place_whole);
    tcase_add_test(lmdb, recovery_may_be_given_up);
    tcase_add_test(lmdb, a_missing_directory_is_an_error);
    tcase_add_loop_test(lmdb, damage_is_mended_once, 0, 2 * (int)countof(mended));
    tcase_add_loop_test(lmdb, a_read_waits_for_what_is_mended, 0, (int)countof(mended));
    tcase_add_test(lmdb, a_damaged_body_is_found_by_the_check);
    tcase_add_test(lmdb, the_first_lost_row_alone_takes_a_walk);
    tcase_add_test(lmdb, lost_live_rows_are_made_anew);
    tcase_add_test(lmdb, a_damaged_record_is_mended);
    tcase_add_test(lmdb, a_damaged_body_is_not_delivered);
    tcase_add_test(lmdb, a_file_that_is_cut_short_is_no_crash);
    tcase_add_test(lmdb, a_damaged_segment_takes_its_entries_along);
    tcase_add_test(lmdb, a_damaged_gone_row_brings_entries_back);
    tcase_add_test(lmdb, a_damaged_queue_row_is_rebuilt);
    tcase_add_test(lmdb, a_damaged_record_is_skipped);
    tcase_add_test(lmdb, a_damaged_count_keeps_the_blob);
    tcase_add_test(lmdb, damaged_meta_rows_do_not_stop_it);
    tcase_add_test(lmdb, numbers_of_lost_blobs_are_not_given_again);
    tcase_add_loop_test(lmdb, what_was_durable_survives_kill, 0, 8);
    tcase_add_loop_test(lmdb, damage_is_found, 0, 10);
    tcase_add_test(lmdb, a_cost_beyond_counting_is_no_damage);
    tcase_add_loop_test(lmdb, a_row_too_few_is_found, 0, 4);
    tcase_add_loop_test(lmdb, a_backup_is_a_state_that_was, 0, 4);
    tcase_add_test(lmdb, a_backup_that_cannot_be_written_says_so);
    tcase_add_test(lmdb, a_backup_without_room_says_so);
    tcase_add_test(lmdb, a_queue_row_that_cannot_be_true_is_damage);
    tcase_add_loop_test(lmdb, a_data_file_that_is_taken_away_is_a_failure, 0, 3);
    tcase_add_test(lmdb, a_backup_that_cannot_be_synced_is_no_failure_of_the_store);
    tcase_add_test(lmdb, compacting_keeps_everything);
    tcase_add_loop_test(lmdb, what_stays_takes_its_own_size, 0, 2);
    tcase_add_test(lmdb, reading_from_the_front_moves_nothing);
    tcase_add_test(lmdb, a_damaged_blob_is_left_alone);
    tcase_add_test(lmdb, fan_out_writes_one_body);
    suite_add_tcase(suite, lmdb);
    TCase *space = tcase_create("space");
    tcase_add_loop_test(space, the_file_stays_in_proportion, 0, countof(churn_kinds));
    suite_add_tcase(suite, space);
    TCase *resident = tcase_create("resident");
    tcase_add_test(resident, what_was_read_is_given_back);
    suite_add_tcase(suite, resident);
    return unit_main(suite);
}
