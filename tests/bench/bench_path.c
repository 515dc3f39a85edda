/* The path of a plain message through the whole broker, in one process: publish, route, push,
 * deliver, acknowledge, over memory transports and the memory store, so that what is counted is the
 * broker's own work and neither the kernel's nor the disk's.
 *
 *     bench_path [MESSAGES]      one line per mode: nanoseconds a message
 *
 * Nanoseconds move with the machine's other load. What a change does to the path is told by
 * instructions, which do not:
 *
 *     valgrind --tool=callgrind --toggle-collect=loop_turn build/bench/bench_path 100000 MODE
 *
 * and the difference between two numbers of messages, divided by theirs. */
#include "amqp/client.h"
#include "base/clock.h"
#include "base/log.h"
#include "session/connection.h"
#include "session/service.h"
#include "store/memory.h"
#include "tests/lib/memory_transport.h"

enum { BATCH = 500 }; /* messages that arrive together */

struct mode {
    const char *name;
    bool durable, confirms, acks;
};

static const struct mode modes[] = {
    {"transient", false, false, false},
    {"acked", false, true, true},
    {"durable", true, true, true},
};

static void write_batch(struct buf *out, bool persistent)
{
    static const uint8_t persistent_properties[] = {0x10, 0x00, 2}, none[] = {0x00, 0x00};
    const struct amqp_client_message message = {
        .routing_key = SLICE("bench"),
        .properties = persistent ? slice_of(persistent_properties, 3) : slice_of(none, 2),
        .body = SLICE("0123456789abcdef"),
    };

    for (int i = 0; i < BATCH; i++)
        amqp_client_publish(out, 1, 131072, &message);
}

struct bench {
    struct clock clock;
    struct random random;
    struct loop loop;
    struct store *store;
    struct broker broker;
    struct service service;
    struct memory_transport client;
};

static void turns(struct bench *bench)
{
    for (int i = 0; i < 12; i++)
        loop_turn(&bench->loop, 0);
    buf_clear(&bench->client.received);
}

static void start(struct bench *bench)
{
    static const struct service_limits limits = {
        .frame_size_max = 131072,
        .initial_frame_size_max = 8192,
        .channel_max = 2047,
        .handshake_timeout_ms = 10000,
        .message_size_max = 16777216,
    };
    const struct endpoint local = {"127.0.0.1", 5672, true}, peer = {"127.0.0.1", 40000, true};

    const struct broker_defaults defaults = {
        .vhost = SLICE("/"),
        .user = SLICE("guest"),
        .password = SLICE("guest"),
        .permissions = {SLICE(".*"), SLICE(".*"), SLICE(".*")},
        .password_cost = 1,
    };

    *bench = (struct bench){.clock.fake = true, .store = store_memory_new()};
    log_level = LOG_ERROR;
    random_init_seeded(&bench->random, 1);
    if (loop_init(&bench->loop, &bench->clock) != 0 ||
        broker_init(&bench->broker, &bench->loop, &bench->clock, &bench->random, bench->store) != 0)
        abort();
    broker_give_defaults(&bench->broker, &defaults);
    if (service_init(&bench->service, &bench->broker, &limits, NULL, 0, 1, false) != 0)
        abort();
    struct connection *connection = connection_new(&bench->service, &local, &peer);
    connection_open(connection, &memory_transport_ops);
    memory_transport_attach(&bench->client, &connection->transport);
}

static void stop(struct bench *bench)
{
    memory_transport_break(&bench->client, ECONNRESET);
    turns(bench);
    memory_transport_release(&bench->client);
    service_release(&bench->service);
    broker_release(&bench->broker);
    loop_release(&bench->loop);
    store_close(&bench->store);
}

static void say(struct bench *bench, const struct amqp_method *method)
{
    struct buf out = BUF_EMPTY;

    amqp_method_encode(&out, 1, method);
    memory_transport_send(&bench->client, buf_slice(&out));
    buf_release(&out);
}

static void set_up(struct bench *bench, const struct mode *mode)
{
    struct buf out = BUF_EMPTY;

    amqp_client_protocol_header(&out);
    amqp_client_start_ok(&out, SLICE("guest"), SLICE("guest"), SLICE("bench"));
    amqp_client_tune_ok(&out, 2047, 131072, 0);
    amqp_client_open(&out, SLICE("/"));
    memory_transport_send(&bench->client, buf_slice(&out));
    buf_release(&out);
    turns(bench);
    say(bench, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN});
    say(bench, &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                                     .queue_declare.queue = SLICE("bench"),
                                     .queue_declare.durable = mode->durable});
    turns(bench);
    if (mode->confirms)
        say(bench, &(struct amqp_method){.id = AMQP_CONFIRM_SELECT});
    say(bench, &(struct amqp_method){.id = AMQP_BASIC_CONSUME,
                                     .basic_consume.queue = SLICE("bench"),
                                     .basic_consume.no_ack = !mode->acks});
    turns(bench);
}

/* The turns of one batch: its publishes, then one basic.ack for all that was delivered. */
static void run_batch(struct bench *bench, const struct mode *mode, struct slice publishes,
                      uint64_t last_tag)
{
    memory_transport_send(&bench->client, publishes);
    loop_turn(&bench->loop, 0);
    if (mode->acks)
        say(bench, &(struct amqp_method){.id = AMQP_BASIC_ACK,
                                         .basic_ack.delivery_tag = last_tag,
                                         .basic_ack.multiple = true});
    for (int i = 0; i < 3; i++)
        loop_turn(&bench->loop, 0);
    buf_clear(&bench->client.received);
}

static void run(const struct mode *mode, uint64_t messages)
{
    struct bench bench;
    struct buf publishes = BUF_EMPTY;

    start(&bench);
    set_up(&bench, mode);
    write_batch(&publishes, mode->durable);

    const uint64_t begin = clock_monotonic_ns();
    for (uint64_t sent = BATCH; sent <= messages; sent += BATCH)
        run_batch(&bench, mode, buf_slice(&publishes), sent);
    const uint64_t ns = clock_monotonic_ns() - begin;

    printf("path %-10s %8.1f ns a message", mode->name, (double)ns / (double)messages);
    printf(" (%" PRIu64 " delivered)\n", bench.broker.counters.messages.delivered +
                                             bench.broker.counters.messages.delivered_no_ack);
    buf_release(&publishes);
    stop(&bench);
}

int main(int argc, char **argv)
{
    const uint64_t messages = argc > 1 ? strtoull(argv[1], NULL, 10) / BATCH * BATCH : 1000000;

    for (size_t i = 0; i < countof(modes); i++)
        if (argc < 3 || strcmp(argv[2], modes[i].name) == 0)
            run(&modes[i], messages);
    return 0;
}
