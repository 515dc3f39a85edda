/* What ten million messages cost when the broker starts, and when they go.
 *
 *     bench_depth [MILLIONS [KEEP]]     in the current directory; KEEP: leave the stores there, for the
 *                                       broker itself to start on
 *
 * "start" is from opening the store to knowing every queue and its count, what stands before
 * "ready" in the broker's log; after a clean stop, and after the process ended with the store open.
 * "purge" and "delete": the longest and the mean commit of single messages to another queue, one
 * after the other, in the ten seconds after, while what went is trimmed. */
#include <ftw.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "core/vhost.h"

enum { BATCH = 10000, BODY_SIZE = 128 };

#define WATCHED_NS UINT64_C(10000000000)

struct shape {
    const char *name;
    uint32_t queues, messages; /* in each */
};

static struct clock now;
static struct loop loop;
static struct random source;
static struct broker broker;

static bool keeps;

static void die(const char *what)
{
    fprintf(stderr, "bench_depth: %s\n", what);
    exit(1);
}

static struct store *open_store(const char *directory)
{
    char error[STORE_ERROR_SIZE];
    struct store *store;

    if (store_open(&(struct store_options){.directory = directory}, &store, error) != 0)
        die(error);
    return store;
}

static void on_body_done(void *owner)
{
    (void)owner;
}

static void start(const char *directory)
{
    const struct broker_defaults defaults = {.vhost = SLICE("/")};

    clock_update(&now);
    random_init_seeded(&source, 1);
    if (loop_init(&loop, &now) != 0 ||
        broker_init(&broker, &loop, &now, &source, open_store(directory)) != 0)
        die("cannot start");
    broker_give_defaults(&broker, &defaults);
    store_on_body_done(broker.store, on_body_done);
}

static void stop(void)
{
    struct store *store = broker.store;

    broker_release(&broker);
    store_close(&store);
    loop_release(&loop);
}

static void commit(void)
{
    struct pollfd ready = {.fd = store_fd(broker.store), .events = POLLIN};

    if (!store_open_is_empty(broker.store))
        store_submit(broker.store);
    while (store_is_busy(broker.store)) {
        poll(&ready, 1, -1);
        if (store_process(broker.store) != 0)
            die("cannot commit");
    }
}

static void fill(const struct shape *shape)
{
    static uint8_t body[BODY_SIZE];
    const uint64_t messages = (uint64_t)shape->queues * shape->messages;

    for (uint64_t i = 0; i < messages; i++) {
        const struct store_entry entry = {.queue_id = 1 + i / shape->messages,
                                          .position = i % shape->messages,
                                          .weight = BODY_SIZE};
        store_put_entry(broker.store, &entry,
                        store_add_body(broker.store, slice_of(body, sizeof body), NULL));
        if (i % BATCH == BATCH - 1)
            commit();
    }
    commit();
}

static struct queue *declare(uint32_t number)
{
    char name[16];
    struct amqp_error error;
    uint64_t lsn;
    const size_t size = (size_t)snprintf(name, sizeof name, "queue-%u", number);
    const struct queue_options options = {.name = slice_of(name, size), .durable = true};

    return vhost_declare_queue(vhost_find(&broker, SLICE("/")), &options, NULL, &lsn, &error);
}

/* In a process of its own, whose memory goes with it. */
static void build(const struct shape *shape, const char *directory, bool clean)
{
    int status;
    const pid_t child = fork();

    if (child == 0) {
        start(directory);
        for (uint32_t i = 0; i < shape->queues; i++)
            declare(i);
        commit();
        fill(shape);
        if (clean)
            stop();
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0)
        die("cannot build the store");
}

static int unlink_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    return remove(path);
}

static void end_directory(const char *directory)
{
    if (!keeps)
        nftw(directory, unlink_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void run_start(const struct shape *shape, const char *directory, const char *after)
{
    const uint64_t begin = clock_monotonic_ns();
    uint64_t count = 0;

    start(directory);
    const uint64_t took = clock_monotonic_ns() - begin;
    map_each (&broker.queues, link)
        count += queue_depth_of_levels(container_of(link, struct queue, by_id)).ready;
    printf("start, %-28s after %-8s %8.1f ms, %" PRIu64 " messages\n", shape->name, after,
           (double)took / 1e6, count);
    fflush(stdout);
    stop();
}

/* Commits of one message for a while, in which all must have been trimmed; answers their number. */
static uint64_t commit_for_a_while(struct store *store, uint64_t queue_id, uint64_t *longest)
{
    static uint8_t body[BODY_SIZE];
    const uint64_t begin = clock_monotonic_ns();
    uint64_t commits = 0;

    for (uint64_t before = begin; before < begin + WATCHED_NS; commits++) {
        const struct store_entry entry = {
            .queue_id = queue_id, .position = commits, .weight = BODY_SIZE};
        store_put_entry(store, &entry, store_add_body(store, slice_of(body, BODY_SIZE), NULL));
        commit();
        const uint64_t after = clock_monotonic_ns();
        *longest = max_of(*longest, after - before);
        before = after;
    }
    return commits;
}

static void run_removal(const struct shape *shape, const char *directory, bool whole)
{
    start(directory);
    struct store *store = broker.store;
    struct queue *other = declare(shape->queues);
    uint64_t longest = 0;

    commit();
    const uint64_t begin = clock_monotonic_ns();
    for (uint32_t i = 0; i < shape->queues; i++)
        if (whole)
            store_delete_queue(store, 1 + i);
        else
            store_delete_range(store, 1 + i, 0, shape->messages, shape->messages,
                               (uint64_t)shape->messages * BODY_SIZE);
    const uint64_t commits = commit_for_a_while(store, other->id, &longest);
    const double took = (double)(clock_monotonic_ns() - begin) / 1e6;
    printf("%s, %-28s longest commit %6.1f ms, mean %6.2f ms\n", whole ? "delete" : "purge ",
           shape->name, (double)longest / 1e6, took / (double)commits);
    fflush(stdout);
    stop();
}

int main(int argc, char **argv)
{
    const double millions = argc > 1 ? atof(argv[1]) : 10;
    const struct shape shapes[] = {
        {"10 queues", 10, (uint32_t)(millions * 1e5)},
        {"queues of 100", (uint32_t)(millions * 1e3), 100},
    };
    char directory[64];

    keeps = argc > 2;
    log_level = LOG_NONE;
    for (size_t i = 0; i < countof(shapes); i++)
        for (int clean = 0; clean < 2; clean++) {
            snprintf(directory, sizeof directory, "bench_depth.%zu.%s", i,
                     clean ? "clean" : "killed");
            if (mkdir(directory, 0700) != 0)
                die("a directory of that name is there");
            build(&shapes[i], directory, clean);
            run_start(&shapes[i], directory, clean ? "a stop" : "none");
            if (!keeps)
                run_removal(&shapes[i], directory, clean);
            end_directory(directory);
        }
    return 0;
}
