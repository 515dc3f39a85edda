/* How large the data file becomes beside the data that lives in it, and what keeping it so costs.
 *
 *     bench_space [MILLIONS [LOAD]]     in the current directory; LOAD: how the name of a load begins
 *
 * Each load puts MILLIONS (1) of messages through a store, a thousand a commit, and keeps a backlog
 * of a fifth of them while it deletes as its name says. Live is the sum of the living bodies at its
 * peak; "file" is the data file at the end, which never shrinks, also as times live, and as times
 * live with the index rows that lead there, taken as their pages are when the file last grew;
 * "moved" is what the store wrote beyond the bodies given to it, index included; a commit is given
 * as CPU time of the whole process and, at its longest, as time; "late" is the CPU time of the last
 * tenth beside that of the second, which grows when a fragmented file makes pages hard to find.
 *
 * The second line says what the file consisted of when it last grew by a fiftieth, as times live:
 * pages of bodies, with what of them lives and what is dead (16 bytes counted with each for its
 * place in the index); of the index; of all other rows; free pages, and how many of them lie in runs
 * as bodies take them; "young" ones, which the last commit freed and the next cannot use; and what
 * is allocated ahead (store/room.h). */
#include <ftw.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/random.h"
#include "store/array.h"
#include "store/database.h"

enum { BATCH = 1000, BODY_MAX = 1 << 20, RUN = 15 /* pages of a part, which lie together */ };

enum order { FIFO, ONE_IN_A_HUNDRED, RANDOM };

struct load {
    const char *name;
    enum order order;
    uint32_t queues, size, large_size; /* large_size: of every fiftieth, when not 0 */
};

struct living {
    uint64_t queue_id, position;
    uint32_t size;
};

/* What the data file consists of, in bytes. */
struct contents {
    uint64_t databases[DATABASE_COUNT];
    uint64_t free_list;              /* LMDB's own rows about free pages */
    uint64_t free, free_runs, young; /* usable; of these in runs of a part's size; not usable yet */
    uint64_t ahead;                  /* allocated, not in use so far */
    uint64_t size, alive;            /* of what is in `blob`: at first, and what lives of it */
    uint64_t entries;
};

struct run {
    const struct load *load;
    struct store *store;
    struct random random;
    ARRAY_OF(struct living) living;
    uint32_t first;       /* of living; those before are deleted, for FIFO */
    uint64_t *tails;      /* by queue */
    uint64_t live, peak;  /* bytes */
    uint64_t put, copied; /* messages; bytes of their bodies */
    uint64_t cpu_ns[10], commits[10], max_ns;
    uint64_t file;            /* its size when it was last looked into */
    struct contents contents; /* then */
};

static char directory[64];
static uint8_t body[BODY_MAX];

static void check(int error)
{
    if (error != 0) {
        fprintf(stderr, "bench_space: %s\n", strerror(-error));
        exit(1);
    }
}

static int unlink_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    return remove(path);
}

static uint64_t cpu_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void commit(struct run *run, unsigned tenth)
{
    struct pollfd poll_fd = {.fd = store_fd(run->store), .events = POLLIN};
    const uint64_t begin = clock_monotonic_ns(), begin_cpu = cpu_ns();

    store_submit(run->store);
    while (store_is_busy(run->store)) {
        poll(&poll_fd, 1, -1);
        check(store_process(run->store));
    }
    const uint64_t took = clock_monotonic_ns() - begin;
    run->cpu_ns[tenth] += cpu_ns() - begin_cpu;
    run->commits[tenth]++;
    run->max_ns = max_of(run->max_ns, took);
}

static void put(struct run *run)
{
    const struct load *load = run->load;
    const uint32_t size =
        load->large_size != 0 && run->put % 50 == 0 ? load->large_size : load->size;
    const uint64_t queue = run->put++ % load->queues;
    const struct store_entry entry = {
        .queue_id = 1 + queue, .position = run->tails[queue]++, .weight = size};

    store_put_entry(run->store, &entry, store_add_body(run->store, slice_of(body, size), run));
    *array_add(&run->living) = (struct living){entry.queue_id, entry.position, size};
    run->live += size;
    run->copied += size;
}

static void remove_at(struct run *run, uint32_t index)
{
    const struct living *entry = &run->living.items[index];

    store_delete_entry(run->store, entry->queue_id, entry->position, entry->size);
    run->live -= entry->size;
}

/* One message less, except those that the load keeps. */
static void take(struct run *run)
{
    if (run->load->order == RANDOM) {
        const uint32_t index =
            run->first + (uint32_t)random_below(&run->random, run->living.count - run->first);
        remove_at(run, index);
        run->living.items[index] = run->living.items[run->first];
    } else if (run->load->order == FIFO || run->first % 100 != 50) {
        remove_at(run, run->first);
    }
    run->first++;
}

static uint64_t file_size(void)
{
    char path[sizeof directory + 16];
    struct stat status = {0};

    snprintf(path, sizeof path, "%s/data.mdb", directory);
    stat(path, &status);
    return (uint64_t)status.st_size;
}

/* ---- what the file consists of ---------------------------------------------------------------- */

static int compare_pages(const void *left, const void *right)
{
    const size_t l = *(const size_t *)left, r = *(const size_t *)right;

    return (l > r) - (l < r);
}

static uint64_t pages_in_runs(size_t *pages, size_t count)
{
    uint64_t in_runs = 0;

    qsort(pages, count, sizeof *pages, compare_pages);
    for (size_t begin = 0, end; begin < count; begin = end) {
        for (end = begin + 1; end < count && pages[end] == pages[end - 1] + 1; end++)
            ;
        if (end - begin >= RUN)
            in_runs += end - begin;
    }
    return in_runs;
}

static size_t number_at(const void *data)
{
    size_t number;

    memcpy(&number, data, sizeof number);
    return number;
}

/* Rows of LMDB's free list: transaction -> count, page numbers. What the last transaction freed is
 * not used by the next, as a reader may still look at what was before. */
static void look_at_free(MDB_txn *txn, struct contents *contents)
{
    ARRAY_OF(size_t) usable = {0};
    MDB_cursor *cursor;
    MDB_val key, value;

    check(database_errno(mdb_cursor_open(txn, 0, &cursor)));
    while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
        const uint8_t *pages = value.mv_data;
        const size_t count = number_at(pages);
        if (number_at(key.mv_data) >= mdb_txn_id(txn))
            contents->young += count;
        else
            for (size_t i = 1; i <= count; i++)
                *array_add(&usable) = number_at(pages + i * sizeof(size_t));
    }
    mdb_cursor_close(cursor);
    contents->free = usable.count;
    contents->free_runs = usable.count > 0 ? pages_in_runs(usable.items, usable.count) : 0;
    array_release(&usable);
}

static void look_at_live(MDB_txn *txn, MDB_dbi dbi, struct contents *contents)
{
    struct slice key, value;
    struct live_row row;
    MDB_cursor *cursor;

    check(database_errno(mdb_cursor_open(txn, dbi, &cursor)));
    while (database_get(cursor, MDB_NEXT, &key, &value) == 0)
        if (live_decode(key, value, &row)) {
            contents->size += row.size;
            contents->alive += row.alive;
            contents->entries += row.entries;
        }
    mdb_cursor_close(cursor);
}

static uint64_t pages_of(MDB_txn *txn, MDB_dbi dbi)
{
    MDB_stat stat;

    check(database_errno(mdb_stat(txn, dbi, &stat)));
    return stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
}

static void look_inside(struct contents *contents)
{
    struct database database;
    char error[STORE_ERROR_SIZE];
    MDB_envinfo info;
    MDB_stat stat;
    MDB_txn *txn;

    check(database_open_read_only(&database, directory, DATABASE_ALONE, error));
    check(database_errno(mdb_txn_begin(database.env, NULL, MDB_RDONLY, &txn)));
    mdb_env_info(database.env, &info);
    mdb_env_stat(database.env, &stat);
    for (size_t i = 0; i < DATABASE_COUNT; i++)
        contents->databases[i] = pages_of(txn, database.dbi[i]) * stat.ms_psize;
    contents->free_list = pages_of(txn, 0) * stat.ms_psize;
    look_at_free(txn, contents);
    contents->free *= stat.ms_psize;
    contents->free_runs *= stat.ms_psize;
    contents->young *= stat.ms_psize;
    contents->ahead = file_size() - (info.me_last_pgno + 1) * stat.ms_psize;
    look_at_live(txn, database.dbi[DB_LIVE], contents);
    mdb_txn_abort(txn);
    database_close(&database);
}

/* Between two commits, in a child: a process opens an environment once. */
static void look(struct run *run)
{
    struct contents *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status;

    check(shared == MAP_FAILED ? -errno : 0);
    const pid_t child = fork();
    if (child == 0) {
        look_inside(shared);
        _exit(0);
    }
    check(child < 0 || waitpid(child, &status, 0) < 0 ? -errno : 0);
    run->contents = *shared;
    run->file = file_size();
    munmap(shared, sizeof *shared);
}

/* ---- the loads -------------------------------------------------------------------------------- */

static void open_store(struct run *run)
{
    char error[STORE_ERROR_SIZE];

    snprintf(directory, sizeof directory, "bench_space.XXXXXX");
    if (mkdtemp(directory) == NULL ||
        store_open(&(struct store_options){.directory = directory}, &run->store, error) != 0) {
        fprintf(stderr, "bench_space: cannot open a store in %s\n", directory);
        exit(1);
    }
    for (uint32_t i = 0; i < run->load->queues; i++)
        store_create_queue(run->store, 1 + i);
}

static double share(const struct run *run, uint64_t bytes)
{
    return (double)bytes / (double)run->peak;
}

/* As shares of the peak, too. */
static void report_contents(const struct run *run)
{
    const struct contents *contents = &run->contents;
    uint64_t other = 0;

    for (size_t i = 0; i < DATABASE_COUNT; i++)
        other += i == DB_BLOB || i == DB_INDEX ? 0 : contents->databases[i];
    printf("    blob %.2f (alive %.2f, dead %.2f)  index %.2f  other rows %.2f  free list %.2f  "
           "free %.2f (%.2f in runs)  young %.2f  ahead %.2f\n",
           share(run, contents->databases[DB_BLOB]), share(run, contents->alive),
           share(run, contents->size - min_of(contents->alive, contents->size)),
           share(run, contents->databases[DB_INDEX]), share(run, other),
           share(run, contents->free_list), share(run, contents->free),
           share(run, contents->free_runs), share(run, contents->young),
           share(run, contents->ahead));
}

static void report(struct run *run)
{
    struct store_stats stats;

    store_get_stats(run->store, &stats);
    const double late = (double)run->cpu_ns[9] / (double)run->commits[9];
    const double early = (double)run->cpu_ns[2] / (double)run->commits[2];
    printf("%-28s live %5.0f MB  file %5.0f MB  %.2f times  (with index %.2f)  moved %4.2f  commit "
           "%5.2f ms  max %6.1f "
           "ms  late %.2f times\n",
           run->load->name, (double)run->peak / 1e6, (double)file_size() / 1e6,
           (double)file_size() / (double)run->peak,
           (double)file_size() / (double)(run->peak + run->contents.databases[DB_INDEX]),
           (double)stats.bytes_written / (double)run->copied - 1, late / 1e6,
           (double)run->max_ns / 1e6, late / early);
    report_contents(run);
    fflush(stdout);
}

static void run_load(const struct load *load, uint64_t messages)
{
    struct run run = {.load = load, .tails = xcalloc(load->queues, sizeof(uint64_t))};

    random_init_seeded(&run.random, 1);
    open_store(&run);
    while (run.put < messages) {
        for (int i = 0; i < BATCH; i++)
            put(&run);
        run.peak = max_of(run.peak, run.live);
        commit(&run, (unsigned)((run.put - 1) * 10 / messages));
        if (file_size() > run.file + run.file / 50)
            look(&run);
        for (int i = 0; i < BATCH && run.living.count - run.first > messages / 5; i++)
            take(&run);
    }
    report(&run);
    store_close(&run.store);
    nftw(directory, unlink_one, 8, FTW_DEPTH | FTW_PHYS);
    array_release(&run.living);
    free(run.tails);
}

int main(int argc, char **argv)
{
    static const struct load loads[] = {
        {"fifo, 128 B", FIFO, 1, 128, 0},
        {"fifo, 1 KiB", FIFO, 1, 1024, 0},
        {"fifo, 1 KiB, 1000 queues", FIFO, 1000, 1024, 0},
        {"one in 100 stays, 1 KiB", ONE_IN_A_HUNDRED, 1, 1024, 0},
        {"one in 100 stays, 128 B", ONE_IN_A_HUNDRED, 1, 128, 0},
        {"random, 1 KiB", RANDOM, 1, 1024, 0},
        {"random, 128 B", RANDOM, 1, 128, 0},
        {"random, 1 KiB, 1000 queues", RANDOM, 1000, 1024, 0},
        {"random, 500 B and 100 KB", RANDOM, 1, 500, 100000},
        {"random, 500 B and 20 KB", RANDOM, 10, 500, 20000},
    };
    const double millions = argc > 1 ? atof(argv[1]) : 1;

    memset(body, 'x', sizeof body);
    for (size_t i = 0; i < countof(loads); i++)
        if (argc < 3 || strncmp(loads[i].name, argv[2], strlen(argv[2])) == 0)
            run_load(&loads[i], (uint64_t)(millions * 1e6));
    return 0;
}
