/* How large the data file becomes beside the data that lives in it, and what keeping it so costs.
 *
 *     bench_space [MILLIONS [LOAD]]     in the current directory; LOAD: how the name of a load begins
 *
 * Each load puts MILLIONS (1) of messages through a store, a thousand a commit, and keeps a backlog
 * of a fifth of them while it deletes as its name says. Live is the sum of the living bodies at its
 * peak; "file" is the data file at the end, which never shrinks; "moved" is what the store wrote
 * beyond the bodies given to it, index included; a commit is given as CPU time of the whole
 * process and, at its longest, as time; "late" is the CPU time of the last tenth beside that of the
 * second, which grows when a fragmented file makes pages hard to find. */
#include <ftw.h>
#include <poll.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/random.h"
#include "store/array.h"
#include "store/store.h"

enum { BATCH = 1000, BODY_MAX = 1 << 20 };

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

static void report(struct run *run)
{
    struct store_stats stats;

    store_get_stats(run->store, &stats);
    const double late = (double)run->cpu_ns[9] / (double)run->commits[9];
    const double early = (double)run->cpu_ns[2] / (double)run->commits[2];
    printf(
        "%-28s live %5.0f MB  file %5.0f MB  %.2f times  moved %4.2f  commit %5.2f ms  max %6.1f "
        "ms  late %.2f times\n",
        run->load->name, (double)run->peak / 1e6, (double)file_size() / 1e6,
        (double)file_size() / (double)run->peak,
        (double)stats.bytes_written / (double)run->copied - 1, late / 1e6,
        (double)run->max_ns / 1e6, late / early);
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
