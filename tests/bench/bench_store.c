/* What a durable message costs the store: put in one commit and, three commits later, deleted,
 * every commit synced. The layout of the store (record.h: a blob per commit, index rows that hold a
 * segment of entries) beside the one it was chosen over (a blob per commit, an index row per
 * message), in the same run on the same disk.
 *
 * The owner fills a batch of 1000 while the one before is under way, as the broker's loop does; the
 * row layout is run by one thread, as its CPU figure is what counts. "thread" is the CPU time of
 * the store's threads, "owner" that of the thread that adds operations; ns per message, put and
 * delete together.
 *
FIGURES */
#include <fcntl.h>
#include <ftw.h>
#include <lmdb.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "store/crc32c.h"
#include "store/record.h"
#include "store/store.h"

enum { LAG = 3, BATCH = 1000, BODY_MAX = 1 << 20 };

static char directory[64];
static uint8_t body[BODY_MAX];
static double seconds = 2;

struct usage {
    uint64_t wall_ns, process_ns, thread_ns;
};

static uint64_t cpu_ns(int who)
{
    struct rusage usage;

    getrusage(who, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000U +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000U;
}

static struct usage usage_now(void)
{
    return (struct usage){clock_monotonic_ns(), cpu_ns(RUSAGE_SELF), cpu_ns(RUSAGE_THREAD)};
}

static int unlink_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    return remove(path);
}

static void begin_directory(void)
{
    snprintf(directory, sizeof directory, "bench_store.XXXXXX");
    if (mkdtemp(directory) == NULL) {
        perror("bench_store");
        exit(1);
    }
}

static uint64_t end_directory(void)
{
    char path[sizeof directory + 16];
    struct stat status = {0};

    snprintf(path, sizeof path, "%s/data.mdb", directory);
    stat(path, &status);
    nftw(directory, unlink_one, 8, FTW_DEPTH | FTW_PHYS);
    return (uint64_t)status.st_size;
}

static void report(const char *name, uint64_t messages, uint64_t commits, struct usage begin,
                   struct usage end)
{
    const double wall = (double)(end.wall_ns - begin.wall_ns);
    const double owner = (double)(end.thread_ns - begin.thread_ns);
    const double others = (double)(end.process_ns - begin.process_ns) - owner;

    printf("%-40s %7.0f k msg/s  thread %5.0f ns  owner %5.0f ns  commit %5.2f ms  file %5.0f MB\n",
           name, (double)messages / wall * 1e6, others / (double)messages, owner / (double)messages,
           wall / (double)commits / 1e6, (double)end_directory() / 1e6);
    fflush(stdout);
}

static bool time_is_up(struct usage begin)
{
    return (double)(clock_monotonic_ns() - begin.wall_ns) > seconds * 1e9;
}

/* ---- the store ------------------------------------------------------------------------------- */

static void body_is_done(void *owner)
{
    (void)owner;
}

static void check(int error)
{
    if (error != 0) {
        fprintf(stderr, "bench_store: %s\n", strerror(-error));
        exit(1);
    }
}

static void wait_idle(struct store *store)
{
    struct pollfd poll_fd = {.fd = store_fd(store), .events = POLLIN};

    while (store_is_busy(store)) {
        poll(&poll_fd, 1, -1);
        check(store_process(store));
    }
}

static struct store *open_store(uint32_t queues)
{
    char error[STORE_ERROR_SIZE];
    struct store *store;

    if (store_open(&(struct store_options){.directory = directory}, &store, error) != 0) {
        fprintf(stderr, "bench_store: %s\n", error);
        exit(1);
    }
    store_on_body_done(store, body_is_done);
    for (uint32_t i = 0; i < queues; i++)
        store_create_queue(store, 1 + i);
    store_submit(store);
    wait_idle(store);
    return store;
}

static void put(struct store *store, uint64_t number, size_t size, uint32_t queues)
{
    const uint32_t added = store_add_body(store, slice_of(body, size), store);

    store_put_entry(store,
                    &(struct store_entry){.queue_id = 1 + number % queues,
                                          .position = number / queues,
                                          .weight = (uint32_t)size - 20},
                    added);
}

static void run_store(const char *name, size_t size, uint32_t queues, bool deletes)
{
    begin_directory();
    struct store *store = open_store(queues);
    const struct usage begin = usage_now();
    uint64_t commits = 0;

    for (; !time_is_up(begin); commits++) {
        for (uint64_t i = 0; i < BATCH; i++)
            put(store, commits * BATCH + i, size, queues);
        for (uint64_t i = 0; deletes && commits >= LAG && i < BATCH; i++) {
            const uint64_t number = (commits - LAG) * BATCH + i;
            store_delete_entry(store, 1 + number % queues, number / queues, (uint32_t)size - 20);
        }
        wait_idle(store);
        store_submit(store);
    }
    wait_idle(store);
    const struct usage end = usage_now();
    store_close(&store);
    report(name, commits * BATCH, commits, begin, end);
}

/* ---- an index row per message ---------------------------------------------------------------- */

struct rows {
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi blob, index, queue;
    MDB_cursor *cursor;
};

static void check_lmdb(int rc)
{
    if (rc != 0) {
        fprintf(stderr, "bench_store: %s\n", mdb_strerror(rc));
        exit(1);
    }
}

static void rows_open(struct rows *rows)
{
    check_lmdb(mdb_env_create(&rows->env));
    check_lmdb(mdb_env_set_maxdbs(rows->env, 4));
    check_lmdb(mdb_env_set_mapsize(rows->env, (size_t)1 << 40));
    check_lmdb(mdb_env_open(rows->env, directory, 0, 0600));
    check_lmdb(mdb_txn_begin(rows->env, NULL, 0, &rows->txn));
    check_lmdb(mdb_dbi_open(rows->txn, "blob", MDB_CREATE, &rows->blob));
    check_lmdb(mdb_dbi_open(rows->txn, "index", MDB_CREATE, &rows->index));
    check_lmdb(mdb_dbi_open(rows->txn, "queue", MDB_CREATE, &rows->queue));
    check_lmdb(mdb_txn_commit(rows->txn));
}

static void rows_put_blob(struct rows *rows, uint64_t commit, size_t size)
{
    const uint32_t per_part = (uint32_t)(PART_BODY_MAX / size);

    for (uint32_t begin = 0, part = 0; begin < BATCH; begin += per_part, part++) {
        const uint32_t count = min_of(per_part, BATCH - begin);
        const struct key key = key_part(commit, part);
        MDB_val k = {key.size, (void *)(uintptr_t)key.bytes}, v = {count * size, NULL};
        check_lmdb(mdb_put(rows->txn, rows->blob, &k, &v, MDB_APPEND | MDB_RESERVE));
        for (uint32_t i = 0; i < count; i++)
            memcpy((uint8_t *)v.mv_data + i * size, body, size);
    }
}

static void rows_put(struct rows *rows, uint64_t commit, uint64_t number, size_t size,
                     uint32_t queues)
{
    const struct key key = key_pair(1 + number % queues, number / queues);
    uint8_t row[36];
    MDB_val k = {key.size, (void *)(uintptr_t)key.bytes}, v = {sizeof row, row};

    put_u64(row + 8, commit);
    put_u32(row + 16, (uint32_t)(number % BATCH));
    put_u32(row + 20, (uint32_t)size);
    put_u32(row + 24, crc32c(0, body, size));
    record_seal(key_slice(&key), row, sizeof row, 0, 0);
    check_lmdb(mdb_cursor_put(rows->cursor, &k, &v, 0));
}

static void rows_delete(struct rows *rows, uint64_t number, uint32_t queues)
{
    const struct key key = key_pair(1 + number % queues, number / queues);
    MDB_val k = {key.size, (void *)(uintptr_t)key.bytes}, v;

    check_lmdb(mdb_cursor_get(rows->cursor, &k, &v, MDB_SET_KEY));
    check_lmdb(mdb_cursor_del(rows->cursor, 0));
}

static void rows_delete_blob(struct rows *rows, uint64_t commit, size_t size)
{
    const uint32_t per_part = (uint32_t)(PART_BODY_MAX / size);

    for (uint32_t begin = 0, part = 0; begin < BATCH; begin += per_part, part++) {
        const struct key key = key_part(commit, part);
        MDB_val k = {key.size, (void *)(uintptr_t)key.bytes};
        check_lmdb(mdb_del(rows->txn, rows->blob, &k, NULL));
    }
}

/* What a restart needs to know of each queue without reading its entries. */
static void rows_put_queues(struct rows *rows, uint32_t queues)
{
    MDB_cursor *cursor;

    check_lmdb(mdb_cursor_open(rows->txn, rows->queue, &cursor));
    for (uint64_t i = 0; i < queues; i++) {
        const struct key key = key_u64(1 + i);
        struct queue_row queue = {0};
        uint8_t row[QUEUE_ROW_SIZE];
        MDB_val k = {key.size, (void *)(uintptr_t)key.bytes}, v = {0};
        if (mdb_cursor_get(cursor, &k, &v, MDB_SET_KEY) == 0)
            queue_row_decode(key_slice(&key), slice_of(v.mv_data, v.mv_size), &queue);
        queue_row_encode(1 + i, &queue, row);
        v = (MDB_val){sizeof row, row};
        check_lmdb(mdb_cursor_put(cursor, &k, &v, 0));
    }
}

static void rows_commit(struct rows *rows, uint64_t commit, size_t size, uint32_t queues,
                        bool deletes)
{
    check_lmdb(mdb_txn_begin(rows->env, NULL, 0, &rows->txn));
    check_lmdb(mdb_cursor_open(rows->txn, rows->index, &rows->cursor));
    rows_put_blob(rows, commit, size);
    for (uint64_t i = 0; i < BATCH; i++)
        rows_put(rows, commit, commit * BATCH + i, size, queues);
    for (uint64_t i = 0; deletes && commit >= LAG && i < BATCH; i++)
        rows_delete(rows, (commit - LAG) * BATCH + i, queues);
    if (deletes && commit >= LAG)
        rows_delete_blob(rows, commit - LAG, size);
    rows_put_queues(rows, queues);
    check_lmdb(mdb_txn_commit(rows->txn));
}

static void run_rows(const char *name, size_t size, uint32_t queues, bool deletes)
{
    struct rows rows;
    uint64_t commits = 0;

    begin_directory();
    rows_open(&rows);
    const struct usage begin = usage_now();
    for (; !time_is_up(begin); commits++)
        rows_commit(&rows, commits, size, queues, deletes);
    const struct usage end = usage_now();
    mdb_env_close(rows.env);
    report(name, commits * BATCH, commits, begin, end);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        size_t size;
        uint32_t queues;
        bool deletes;
    } loads[] = {
        {"128 B, 1 queue", 128, 1, true},
        {"128 B, 1000 queues", 128, 1000, true},
        {"1 KiB, 1 queue", 1024, 1, true},
        {"128 B, 1 queue, backlog", 128, 1, false},
        {"128 B, 1000 queues, backlog", 128, 1000, false},
    };
    char name[64];

    if (argc > 1)
        seconds = atof(argv[1]);
    memset(body, 'x', sizeof body);
    for (size_t i = 0; i < countof(loads); i++) {
        if (argc > 2 && strncmp(loads[i].name, argv[2], strlen(argv[2])) != 0)
            continue;
        snprintf(name, sizeof name, "%s: segments", loads[i].name);
        run_store(name, loads[i].size, loads[i].queues, loads[i].deletes);
        snprintf(name, sizeof name, "%s: rows", loads[i].name);
        run_rows(name, loads[i].size, loads[i].queues, loads[i].deletes);
    }
    return 0;
}
