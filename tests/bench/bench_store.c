/* What a durable message costs the store: put in one commit and, three commits later, deleted,
 * every commit synced. The layout of the store (record.h: a blob per commit, index rows that hold a
 * segment of entries) beside the one it was chosen over (a blob per commit, an index row per
 * message), in the same run on the same disk.
 *
 *     bench_store [SECONDS [LOAD]]       in the current directory; LOAD: how the name of a load begins
 *
 * The owner fills a batch while the one before is under way, as the broker's loop does; the row
 * layout is run by one thread and neither checks what it reads nor keeps a blob's count. "thread"
 * is the CPU time of the store's threads, "owner" that of the thread that adds operations; per
 * message, put and delete together.
 *
 * Two cores of a virtual machine that others kept half busy; thousands of messages a second and,
 * behind the stroke, ns of CPU of both threads:
 *
 *                                         ext4, virtio disk          tmpfs
 *                                        segments       rows    segments       rows
 *     128 B, 1 queue                    1900/290   1213/554    5560/180   3784/261
 *     128 B, 1000 queues                 766/950    795/856    1428/690   2219/450
 *     128 B, 1000 queues, batch 10000   1110/285    489/986    5529/196   1289/775
 *     1 KiB, 1 queue                    1043/495    697/808    2612/369   2438/410
 *     128 B, 1 queue, no deletes        1499/351   1541/336    4901/204   4067/246
 *     128 B, 1000 queues, no deletes     171/3720   175/3570    346/2827   424/2359
 *
 * Segments win where a queue has several messages in a batch, which is what load leads to: batches
 * grow while the disk is busy, and rows do not get cheaper by that. With one message per queue and
 * batch a segment is a row, and what is left is its price for checksums and counts. The last load
 * is ruled by LMDB: 1000 leaf pages are changed per commit, whatever a row holds. */
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

enum { LAG = 3, BODY_MAX = 1 << 20 };

struct load {
    const char *name;
    size_t size;
    uint32_t queues, batch;
    bool deletes;
};

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

    printf("%-42s %6.0f k msg/s  thread %5.0f ns  owner %5.0f ns  commit %5.2f ms  file %5.0f MB\n",
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

static void put(struct store *store, uint64_t number, const struct load *load)
{
    const uint32_t added = store_add_body(store, slice_of(body, load->size), store);

    store_put_entry(store,
                    &(struct store_entry){.queue_id = 1 + number % load->queues,
                                          .position = number / load->queues,
                                          .weight = (uint32_t)load->size - 20},
                    added);
}

static void run_store(const char *name, const struct load *load)
{
    begin_directory();
    struct store *store = open_store(load->queues);
    const struct usage begin = usage_now();
    uint64_t commits = 0;

    for (; !time_is_up(begin); commits++) {
        for (uint64_t i = 0; i < load->batch; i++)
            put(store, commits * load->batch + i, load);
        for (uint64_t i = 0; load->deletes && commits >= LAG && i < load->batch; i++) {
            const uint64_t number = (commits - LAG) * load->batch + i;
            store_delete_entry(store, 1 + number % load->queues, number / load->queues,
                               (uint32_t)load->size - 20);
        }
        wait_idle(store);
        store_submit(store);
    }
    wait_idle(store);
    const struct usage end = usage_now();
    store_close(&store);
    report(name, commits * load->batch, commits, begin, end);
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

static void rows_put_blob(struct rows *rows, uint64_t commit, const struct load *load)
{
    const uint32_t per_part = (uint32_t)(PART_BODY_MAX / load->size);

    for (uint32_t begin = 0, part = 0; begin < load->batch; begin += per_part, part++) {
        const uint32_t count = min_of(per_part, load->batch - begin);
        const struct key key = key_part(commit, part);
        MDB_val k = {key.size, (void *)(uintptr_t)key.bytes}, v = {count * load->size, NULL};
        check_lmdb(mdb_put(rows->txn, rows->blob, &k, &v, MDB_APPEND | MDB_RESERVE));
        for (uint32_t i = 0; i < count; i++)
            memcpy((uint8_t *)v.mv_data + i * load->size, body, load->size);
    }
}

static void rows_put(struct rows *rows, uint64_t commit, uint64_t number, const struct load *load)
{
    const struct key key = key_pair(1 + number % load->queues, number / load->queues);
    uint8_t row[36];
    MDB_val k = {key.size, (void *)(uintptr_t)key.bytes}, v = {sizeof row, row};

    put_u64(row + 8, commit);
    put_u32(row + 16, (uint32_t)(number % load->batch));
    put_u32(row + 20, (uint32_t)load->size);
    put_u32(row + 24, crc32c(0, body, load->size));
    record_seal(key_slice(&key), row, sizeof row, 0, 0);
    check_lmdb(mdb_cursor_put(rows->cursor, &k, &v, 0));
}

static void rows_delete(struct rows *rows, uint64_t number, const struct load *load)
{
    const struct key key = key_pair(1 + number % load->queues, number / load->queues);
    MDB_val k = {key.size, (void *)(uintptr_t)key.bytes}, v;

    check_lmdb(mdb_cursor_get(rows->cursor, &k, &v, MDB_SET_KEY));
    check_lmdb(mdb_cursor_del(rows->cursor, 0));
}

static void rows_delete_blob(struct rows *rows, uint64_t commit, const struct load *load)
{
    const uint32_t per_part = (uint32_t)(PART_BODY_MAX / load->size);

    for (uint32_t begin = 0, part = 0; begin < load->batch; begin += per_part, part++) {
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

static void rows_commit(struct rows *rows, uint64_t commit, const struct load *load)
{
    check_lmdb(mdb_txn_begin(rows->env, NULL, 0, &rows->txn));
    check_lmdb(mdb_cursor_open(rows->txn, rows->index, &rows->cursor));
    rows_put_blob(rows, commit, load);
    for (uint64_t i = 0; i < load->batch; i++)
        rows_put(rows, commit, commit * load->batch + i, load);
    for (uint64_t i = 0; load->deletes && commit >= LAG && i < load->batch; i++)
        rows_delete(rows, (commit - LAG) * load->batch + i, load);
    if (load->deletes && commit >= LAG)
        rows_delete_blob(rows, commit - LAG, load);
    rows_put_queues(rows, load->queues);
    check_lmdb(mdb_txn_commit(rows->txn));
}

static void run_rows(const char *name, const struct load *load)
{
    struct rows rows;
    uint64_t commits = 0;

    begin_directory();
    rows_open(&rows);
    const struct usage begin = usage_now();
    for (; !time_is_up(begin); commits++)
        rows_commit(&rows, commits, load);
    const struct usage end = usage_now();
    mdb_env_close(rows.env);
    report(name, commits * load->batch, commits, begin, end);
}

int main(int argc, char **argv)
{
    static const struct load loads[] = {
        {"128 B, 1 queue", 128, 1, 1000, true},
        {"128 B, 1000 queues", 128, 1000, 1000, true},
        {"128 B, 1000 queues, batch 10000", 128, 1000, 10000, true},
        {"1 KiB, 1 queue", 1024, 1, 1000, true},
        {"128 B, 1 queue, no deletes", 128, 1, 1000, false},
        {"128 B, 1000 queues, no deletes", 128, 1000, 1000, false},
    };
    char name[64];

    if (argc > 1)
        seconds = atof(argv[1]);
    memset(body, 'x', sizeof body);
    for (size_t i = 0; i < countof(loads); i++) {
        if (argc > 2 && strncmp(loads[i].name, argv[2], strlen(argv[2])) != 0)
            continue;
        snprintf(name, sizeof name, "%s: segments", loads[i].name);
        run_store(name, &loads[i]);
        snprintf(name, sizeof name, "%s: rows", loads[i].name);
        run_rows(name, &loads[i]);
    }
    return 0;
}
