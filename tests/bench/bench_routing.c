/* What it costs to find the queues of one message, and to make a binding: ns each, by exchange type
 * (R1 of the performance goals). One line each: what, ns per operation. */
#include "base/clock.h"
#include "core/vhost.h"
#include "store/memory.h"

enum { QUEUES = 100, LOOKUPS = 1000000, KEYS = 4096, KEY_SIZE = 48 };

static struct clock now;
static struct loop loop;
static struct random source;
static struct broker broker;
static struct vhost *vhost;
static struct route route;
static char keys[KEYS][KEY_SIZE]; /* routing keys, taken in turn */

static struct slice queue_name(size_t i, char room[16])
{
    return slice_of(room, (size_t)snprintf(room, 16, "queue-%zu", i % QUEUES));
}

static void start(void)
{
    char room[16];
    struct amqp_error error;
    uint64_t lsn;

    const struct broker_defaults defaults = {.vhost = SLICE("/")};

    random_init_seeded(&source, 1);
    if (loop_init(&loop, &now) != 0 ||
        broker_init(&broker, &loop, &now, &source, store_memory_new()) != 0)
        abort();
    broker_give_defaults(&broker, &defaults);
    route_init(&route, &broker);
    vhost = vhost_find(&broker, SLICE("/"));
    for (size_t i = 0; i < QUEUES; i++)
        vhost_declare_queue(vhost, &(struct queue_options){.name = queue_name(i, room)}, NULL, &lsn,
                            &error);
}

static void stop(void)
{
    struct store *store = broker.store;

    broker_release(&broker);
    loop_release(&loop);
    store_close(&store);
}

/* Four words; some of them wildcards for a topic exchange's bindings. */
static struct slice make_key(char room[KEY_SIZE], uint64_t n, bool wildcards)
{
    const char *second = wildcards && n % 5 == 0 ? "*" : "host";
    const char *last = wildcards && n % 7 == 0 ? "#" : "cpu";

    return slice_of(room, (size_t)snprintf(room, KEY_SIZE, "region%" PRIu64 ".%s.%" PRIu64 ".%s",
                                           n % 16, second, n / 16, last));
}

static void fill(const char *exchange, size_t count, bool wildcards)
{
    char key[KEY_SIZE], queue[16];
    struct amqp_error error;
    uint64_t lsn;
    const uint64_t begin = clock_monotonic_ns();

    for (size_t i = 0; i < count; i++) {
        const struct binding_request request = {
            .source = slice_of_string(exchange),
            .destination = queue_name(i, queue),
            .key = make_key(key, i, wildcards),
        };
        if (!vhost_bind(vhost, &request, NULL, &lsn, &error))
            abort();
    }
    printf("bind    %-11s %6zu bindings %8.1f ns\n", exchange, count,
           (double)(clock_monotonic_ns() - begin) / (double)count);
    for (size_t i = 0; i < KEYS; i++)
        make_key(keys[i], random_below(&source, count), false);
}

static void measure(const char *name, size_t bindings)
{
    struct amqp_error error;
    uint64_t found = 0;
    const uint64_t begin = clock_monotonic_ns();

    for (size_t i = 0; i < LOOKUPS; i++) {
        const struct slice key = slice_of_string(keys[i % KEYS]);
        const struct routing routing = {.keys = &key, .key_count = 1, .properties = SLICE("\0\0")};
        exchange_route(vhost_find_exchange(vhost, slice_of_string(name), &error), &routing, &route);
        found += route.count;
    }
    printf("route   %-11s %6zu bindings %8.1f ns, %.2f queues\n", *name == '\0' ? "default" : name,
           bindings, (double)(clock_monotonic_ns() - begin) / LOOKUPS, (double)found / LOOKUPS);
}

/* An x-consistent-hash exchange with every queue, half of them of each weight. */
static void measure_hash(const char *name, const char *weight, const char *other_weight)
{
    char queue[16];
    struct amqp_error error;
    uint64_t lsn;

    vhost_declare_exchange(vhost,
                           &(struct exchange_options){.name = slice_of_string(name),
                                                      .type = SLICE("x-consistent-hash")},
                           NULL, &lsn, &error);
    for (size_t i = 0; i < QUEUES; i++) {
        const struct binding_request request = {
            .source = slice_of_string(name),
            .destination = queue_name(i, queue),
            .key = slice_of_string(i % 2 == 0 ? weight : other_weight),
        };
        if (!vhost_bind(vhost, &request, NULL, &lsn, &error))
            abort();
    }
    measure(name, QUEUES);
}

int main(void)
{
    start();
    for (size_t i = 0; i < KEYS; i++)
        queue_name(i, keys[i]);
    measure("", QUEUES);
    fill("amq.direct", 100000, false);
    measure("amq.direct", 100000);
    fill("amq.topic", 10000, true);
    measure("amq.topic", 10000);
    measure_hash("equal", "1", "1");
    measure_hash("unequal", "1", "2");
    route_release(&route);
    stop();
}
