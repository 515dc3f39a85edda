/* How long one frame of a peer can hold the loop: the most that the limits let a user build up, and
 * then the one frame that makes the broker go over all of it. One line each: what, how much of it,
 * milliseconds from the frame to the end of what can happen, and nanoseconds for each.
 *
 *     bench_turn [PART [0]]      PART: of 100, how much of each limit; 100 when it is not given; 0: without
 *                                the limit of routing */
#include <check.h>
#include <time.h>

#include "amqp/client.h"
#include "amqp/table.h"
#include "base/alloc.h"
#include "base/log.h"
#include "store/memory.h"
#include "tests/lib/queue_client.h"

/* Of this thread: other load on the machine does not count. */
static uint64_t cpu_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static struct harness harness;
static struct peer *peer;
static size_t part = 100;
static bool limited = true;

static size_t scaled(size_t limit)
{
    return limit * part / 100;
}

static void start(void)
{
    harness_init(&harness, NULL);
    harness.broker.limits.routing_steps_max = limited ? 1000000 : 0;
    log_level = LOG_NONE;
    peer = peer_open_channel(&harness);
}

static void stop(void)
{
    harness_release(&harness);
}

/* What is in out is sent, and its turns are timed; the longest turn counts. */
static void measure(const char *what, size_t count, struct buf *out)
{
    uint64_t longest_ns = 0, total_ns = 0;

    store_memory_set_auto_sync(harness.store, false); /* a real store works on its own thread */
    memory_transport_send(&peer->memory, buf_slice(out));
    buf_release(out);
    for (int i = 0; i < 50; i++) {
        const uint64_t begin = cpu_ns();
        loop_turn(&harness.loop, 0);
        const uint64_t ns = cpu_ns() - begin;
        longest_ns = max_of(longest_ns, ns);
        total_ns += ns;
    }
    buf_clear(&peer->memory.received);
    store_memory_set_auto_sync(harness.store, true);
    printf("%-44s %8zu  longest turn %8.2f ms, all %8.2f ms, %7.0f ns each\n", what, count,
           (double)longest_ns / 1e6, (double)total_ns / 1e6, (double)total_ns / (double)count);
}

static void send_and_drop(struct buf *out)
{
    peer_send_bytes(peer, buf_slice(out));
    buf_clear(out);
    buf_clear(&peer->memory.received);
}

static void put_declare(struct buf *out, size_t number, bool durable, bool exclusive)
{
    char name[24];

    snprintf(name, sizeof(name), "q%zu", number);
    amqp_method_encode(out, 1,
                       &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                                             .queue_declare = {.queue = slice_of_string(name),
                                                               .durable = durable,
                                                               .exclusive = exclusive,
                                                               .no_wait = true}});
}

static void put_bind(struct buf *out, const char *queue, const char *exchange, const char *key,
                     struct slice arguments)
{
    amqp_method_encode(out, 1,
                       &(struct amqp_method){.id = AMQP_QUEUE_BIND,
                                             .queue_bind = {.queue = slice_of_string(queue),
                                                            .exchange = slice_of_string(exchange),
                                                            .routing_key = slice_of_string(key),
                                                            .arguments = arguments,
                                                            .no_wait = true}});
}

static void declare_queues(size_t count, bool durable, bool exclusive, const char *exchange)
{
    struct buf out = BUF_EMPTY;
    char name[24];

    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "q%zu", i);
        put_declare(&out, i, durable, exclusive);
        if (exchange != NULL)
            put_bind(&out, name, exchange, "", (struct slice){0});
        if (i % 100 == 99 || i + 1 == count)
            send_and_drop(&out);
    }
    buf_release(&out);
}

static void publish_many(size_t count, bool durable)
{
    struct buf out = BUF_EMPTY;

    for (size_t i = 0; i < count; i++) {
        put_publish(&out, "", "q0", "m", &(struct sent){.persistent = durable});
        if (i % 500 == 499 || i + 1 == count)
            send_and_drop(&out);
    }
    buf_release(&out);
}

/* ---- routing ---- */

static void measure_fanout(bool durable)
{
    const size_t count = scaled(100000);
    struct buf out = BUF_EMPTY;

    start();
    declare_queues(count, durable, false, "amq.fanout");
    put_publish(&out, "amq.fanout", "", "m", &(struct sent){.persistent = durable});
    measure(durable ? "publish to durable queues" : "publish to queues", count, &out);
    stop();
}

/* Words that are `a` or *, behind a #: all of them match at every word of a key of `a` alone. */
static void measure_topic(size_t depth)
{
    char key[256] = "#";
    struct buf out = BUF_EMPTY;
    const size_t count = (size_t)1 << depth;

    start();
    declare_queues(1, false, false, NULL);
    for (size_t i = 0; i < count; i++) {
        for (size_t word = 0; word < depth; word++)
            memcpy(key + 1 + 2 * word, i >> word & 1 ? ".*" : ".a", 3);
        put_bind(&out, "q0", "amq.topic", key, (struct slice){0});
        if (i % 100 == 99 || i + 1 == count)
            send_and_drop(&out);
    }
    for (size_t word = 0; word < 127; word++)
        memcpy(key + 2 * word, "a.", 3);
    key[253] = '\0';
    put_publish(&out, "amq.topic", key, "m", &(struct sent){0});
    measure("publish to a topic exchange, # and *", count, &out);
    stop();
}

/* Bindings that ask for so many headers, all of which are there. */
static void measure_headers(size_t bindings, size_t entries)
{
    char name[24];
    struct buf out = BUF_EMPTY, table = BUF_EMPTY, bytes = BUF_EMPTY;
    struct amqp_properties properties = {.flags = AMQP_PROPERTY_HEADERS};

    start();
    declare_queues(1, false, false, NULL);
    for (size_t i = 0; i < entries; i++) {
        snprintf(name, sizeof(name), "h%05zu", i);
        amqp_table_put_bool(&table, slice_of_string(name), true);
    }
    for (size_t i = 0; i < bindings; i++) {
        snprintf(name, sizeof(name), "%zu", i);
        put_bind(&out, "q0", "amq.headers", name, buf_slice(&table));
        if (i % 20 == 19 || i + 1 == bindings)
            send_and_drop(&out);
    }
    properties.headers = buf_slice(&table);
    amqp_properties_encode(&bytes, &properties);
    amqp_client_publish(&out, 1, 131072,
                        &(struct amqp_client_message){.exchange = SLICE("amq.headers"),
                                                      .properties = buf_slice(&bytes),
                                                      .body = SLICE("m")});
    measure("publish to a headers exchange", bindings * entries, &out);
    buf_release(&table);
    buf_release(&bytes);
    stop();
}

static void measure_chain(void)
{
    const size_t count = scaled(100000);
    char name[24], next[24];
    struct buf out = BUF_EMPTY;

    start();
    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "x%zu", i);
        snprintf(next, sizeof(next), "x%zu", i - 1);
        amqp_method_encode(
            &out, 1,
            &(struct amqp_method){.id = AMQP_EXCHANGE_DECLARE,
                                  .exchange_declare = {.exchange = slice_of_string(name),
                                                       .type = SLICE("fanout"),
                                                       .no_wait = true}});
        if (i > 0)
            amqp_method_encode(
                &out, 1,
                &(struct amqp_method){.id = AMQP_EXCHANGE_BIND,
                                      .exchange_bind = {.destination = slice_of_string(name),
                                                        .source = slice_of_string(next),
                                                        .no_wait = true}});
        if (i % 100 == 99 || i + 1 == count)
            send_and_drop(&out);
    }
    put_publish(&out, "x0", "", "m", &(struct sent){0});
    measure("publish through a chain of exchanges", count, &out);
    stop();
}

/* A turn's input of publishes, each of which goes through all bindings of an exchange. */
static void measure_publishes(const char *type, const char *what)
{
    enum { PUBLISHES = 4000 };
    const size_t count = scaled(100000);
    char key[24];
    struct buf out = BUF_EMPTY;

    start();
    declare_queues(1, false, false, NULL);
    amqp_method_encode(&out, 1,
                       &(struct amqp_method){.id = AMQP_EXCHANGE_DECLARE,
                                             .exchange_declare = {.exchange = SLICE("x"),
                                                                  .type = slice_of_string(type),
                                                                  .no_wait = true}});
    for (size_t i = 0; i < count; i++) {
        snprintf(key, sizeof(key), "%zu", i + 1);
        put_bind(&out, "q0", "x", key, (struct slice){0});
        if (i % 100 == 99 || i + 1 == count)
            send_and_drop(&out);
    }
    for (size_t i = 0; i < PUBLISHES; i++)
        put_publish(&out, "x", "k", "m", &(struct sent){0});
    measure(what, PUBLISHES, &out);
    stop();
}

/* Bindings that are given all that an exchange remembers. */
static void measure_history(bool durable)
{
    enum { BINDINGS = 100 };
    const size_t count = scaled(10000);
    char key[24];
    struct buf out = BUF_EMPTY, arguments = BUF_EMPTY;

    start();
    declare_queues(1, durable, false, NULL);
    amqp_table_put_i64(&arguments, SLICE("x-recent-history-length"), 10000);
    amqp_method_encode(
        &out, 1,
        &(struct amqp_method){.id = AMQP_EXCHANGE_DECLARE,
                              .exchange_declare = {.exchange = SLICE("x"),
                                                   .type = SLICE("x-recent-history"),
                                                   .arguments = buf_slice(&arguments),
                                                   .no_wait = true}});
    for (size_t i = 0; i < count; i++)
        put_publish(&out, "x", "", "m", &(struct sent){.persistent = durable});
    send_and_drop(&out);
    for (size_t i = 0; i < BINDINGS; i++) {
        snprintf(key, sizeof(key), "%zu", i);
        put_bind(&out, "q0", "x", key, (struct slice){0});
    }
    measure(durable ? "bindings to x-recent-history, durable" : "bindings to x-recent-history",
            BINDINGS * count, &out);
    buf_release(&arguments);
    stop();
}

static void measure_priorities(bool durable)
{
    const size_t count = scaled(1000);
    char name[24];
    struct buf out = BUF_EMPTY, arguments = BUF_EMPTY;

    start();
    amqp_table_put_i64(&arguments, SLICE("x-max-priority"), 255);
    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "p%zu", i);
        amqp_method_encode(
            &out, 1,
            &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                                  .queue_declare = {.queue = slice_of_string(name),
                                                    .durable = durable,
                                                    .arguments = buf_slice(&arguments),
                                                    .no_wait = true}});
    }
    measure(durable ? "queues of 255 priorities, durable" : "queues of 255 priorities", count,
            &out);
    buf_release(&arguments);
    stop();
}

/* ---- dead letters ---- */

/* Of one publish, through layers of queues that keep nothing and dead-letter to all of the next. */
static void measure_letters(size_t layers, size_t width)
{
    char exchange[24], name[24], arguments[64];
    struct buf out = BUF_EMPTY;
    size_t count = 0, of_layer = 1;

    start();
    for (size_t layer = 0; layer <= layers; layer++) {
        snprintf(exchange, sizeof(exchange), "layer%zu", layer);
        declare_exchange(peer, exchange, "fanout");
    }
    for (size_t layer = 0; layer < layers; layer++) {
        snprintf(exchange, sizeof(exchange), "layer%zu", layer);
        snprintf(arguments, sizeof(arguments), "x-max-length=I0,x-dead-letter-exchange=Slayer%zu",
                 layer + 1);
        for (size_t i = 0; i < width; i++) {
            snprintf(name, sizeof(name), "q%zu.%zu", layer, i);
            declare_queue(peer, name, false, arguments);
            bind_queue(peer, name, exchange, "");
        }
        of_layer *= width;
        count += of_layer;
    }
    put_publish(&out, "layer0", "", "m", &(struct sent){0});
    measure("publish to layers of dead-letter queues", count, &out);
    stop();
}

/* ---- what a channel holds ---- */

static void take(uint16_t channel, uint64_t count)
{
    const uint64_t delivered = harness.broker.counters.messages.delivered + count;
    struct buf *received = &peer->memory.received;

    peer_send(peer, channel,
              &(struct amqp_method){.id = AMQP_BASIC_CONSUME,
                                    .basic_consume = {.queue = SLICE("q0"), .no_wait = true}});
    for (int i = 0; i < 10000 && harness.broker.counters.messages.delivered < delivered; i++) {
        loop_turn(&harness.loop, 0);
        buf_clear(received);
    }
    harness_run(&harness);
    buf_clear(received);
}

static void take_all(size_t count, bool durable)
{
    start();
    declare_queues(1, durable, false, NULL);
    publish_many(count, durable);
    take(1, count);
}

/* As much as so many channels may hold, until the connection goes. */
static void measure_returns(bool durable)
{
    enum { CHANNELS = 10 };
    const size_t count = scaled(100000);
    struct buf out = BUF_EMPTY;

    start();
    declare_queues(1, durable, false, NULL);
    for (uint16_t channel = 1; channel <= CHANNELS; channel++) {
        if (channel > 1)
            peer_call(peer, channel, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN},
                      AMQP_CHANNEL_OPEN_OK);
        publish_many(count, durable);
        take(channel, count);
    }
    amqp_method_encode(&out, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE});
    measure(durable ? "connection.close, channels, durable" : "connection.close, channels",
            CHANNELS * count, &out);
    stop();
}

static void measure_held(bool durable)
{
    const size_t count = scaled(100000);
    struct buf out = BUF_EMPTY;

    take_all(count, durable);
    amqp_method_encode(&out, 1,
                       &(struct amqp_method){.id = AMQP_BASIC_ACK, .basic_ack.multiple = true});
    measure(durable ? "ack of everything, durable" : "ack of everything", count, &out);
    stop();
    take_all(count, durable);
    amqp_method_encode(&out, 1, &(struct amqp_method){.id = AMQP_CHANNEL_CLOSE});
    measure(durable ? "channel.close, requeue, durable" : "channel.close, requeue", count, &out);
    stop();
}

static void measure_transaction(bool durable)
{
    const size_t count = scaled(100000);
    struct buf out = BUF_EMPTY;

    start();
    declare_queues(1, durable, false, NULL);
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
    publish_many(count, durable);
    amqp_method_encode(&out, 1, &(struct amqp_method){.id = AMQP_TX_COMMIT});
    measure(durable ? "tx.commit, durable" : "tx.commit", count, &out);
    stop();
}

/* All that a channel holds, of so many octets together, becomes dead letters in one batch. */
static void measure_rejects(bool durable, size_t octets)
{
    const size_t count = scaled(octets > 0 ? 5000 : 100000);
    char *body = xcalloc(octets / 5000 + 2, 1);
    struct buf out = BUF_EMPTY;

    memset(body, 'm', octets / 5000 + 1);
    start();
    declare_queue(peer, "dead", durable, NULL);
    declare_queue(peer, "q0", durable, "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sdead");
    for (size_t i = 0; i < count; i++) {
        put_publish(&out, "", "q0", body, &(struct sent){.persistent = durable});
        if (i % 50 == 49 || i + 1 == count)
            send_and_drop(&out);
    }
    take(1, count);
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
    amqp_method_encode(&out, 1,
                       &(struct amqp_method){.id = AMQP_BASIC_NACK, .basic_nack.multiple = true});
    amqp_method_encode(&out, 1, &(struct amqp_method){.id = AMQP_TX_COMMIT});
    measure(octets > 0
                ? durable ? "tx.commit of large rejects, durable" : "tx.commit of large rejects"
            : durable ? "tx.commit of rejects, durable"
                      : "tx.commit of rejects",
            count, &out);
    free(body);
    stop();
}

static void measure_purge(bool durable)
{
    const size_t count = scaled(1000000);
    struct buf out = BUF_EMPTY;

    start();
    declare_queues(1, durable, false, NULL);
    publish_many(count, durable);
    amqp_method_encode(
        &out, 1, &(struct amqp_method){.id = AMQP_QUEUE_PURGE, .queue_purge.queue = SLICE("q0")});
    measure(durable ? "queue.purge, durable" : "queue.purge", count, &out);
    stop();
}

/* ---- what is deleted at once ---- */

static void measure_bindings(bool durable, bool of_queue)
{
    const size_t count = scaled(200000);
    char key[24];
    struct buf out = BUF_EMPTY;

    start();
    declare_queues(1, durable, false, NULL);
    amqp_method_encode(&out, 1,
                       &(struct amqp_method){.id = AMQP_EXCHANGE_DECLARE,
                                             .exchange_declare = {.exchange = SLICE("x"),
                                                                  .type = SLICE("direct"),
                                                                  .durable = durable,
                                                                  .no_wait = true}});
    for (size_t i = 0; i < count; i++) {
        snprintf(key, sizeof(key), "%zu", i);
        put_bind(&out, "q0", "x", key, (struct slice){0});
        if (i % 100 == 99 || i + 1 == count)
            send_and_drop(&out);
    }
    if (of_queue)
        amqp_method_encode(
            &out, 1,
            &(struct amqp_method){.id = AMQP_QUEUE_DELETE, .queue_delete.queue = SLICE("q0")});
    else
        amqp_method_encode(&out, 1,
                           &(struct amqp_method){.id = AMQP_EXCHANGE_DELETE,
                                                 .exchange_delete.exchange = SLICE("x")});
    measure(of_queue  ? durable ? "queue.delete, durable bindings" : "queue.delete, bindings"
            : durable ? "exchange.delete, durable bindings"
                      : "exchange.delete, bindings",
            count, &out);
    stop();
}

static void measure_exclusive(void)
{
    const size_t count = scaled(100000);
    struct buf out = BUF_EMPTY;

    start();
    declare_queues(count, false, true, NULL);
    amqp_method_encode(&out, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE});
    measure("connection.close, exclusive queues", count, &out);
    stop();
}

static void measure_consumers(void)
{
    const size_t count = scaled(100000);
    char tag[24];
    struct buf out = BUF_EMPTY;

    start();
    declare_queues(1, false, false, NULL);
    for (size_t i = 0; i < count; i++) {
        snprintf(tag, sizeof(tag), "%zu", i);
        amqp_method_encode(
            &out, 1,
            &(struct amqp_method){.id = AMQP_BASIC_CONSUME,
                                  .basic_consume = {.queue = SLICE("q0"),
                                                    .consumer_tag = slice_of_string(tag),
                                                    .no_wait = true}});
        if (i % 100 == 99 || i + 1 == count)
            send_and_drop(&out);
    }
    amqp_method_encode(&out, 1, &(struct amqp_method){.id = AMQP_CHANNEL_CLOSE});
    measure("channel.close, consumers", count, &out);
    stop();
}

/* ---- what consumers hold ---- */

static void put_consume(struct buf *out, size_t number, bool no_ack, struct slice arguments)
{
    char tag[24];

    snprintf(tag, sizeof(tag), "%zu", number);
    amqp_method_encode(out, 1,
                       &(struct amqp_method){.id = AMQP_BASIC_CONSUME,
                                             .basic_consume = {.queue = SLICE("q0"),
                                                               .consumer_tag = slice_of_string(tag),
                                                               .no_ack = no_ack,
                                                               .arguments = arguments,
                                                               .no_wait = true}});
}

/* Of q0; each holds every count-th of the messages. */
static void hold(size_t count, size_t messages, struct slice arguments)
{
    struct buf out = BUF_EMPTY;

    for (size_t i = 0; i < count; i++)
        put_consume(&out, i, false, arguments);
    send_and_drop(&out);
    publish_many(messages, false);
    buf_release(&out);
}

static void measure_cancel(bool by_queue)
{
    const size_t count = scaled(10000);
    char tag[24];
    struct buf out = BUF_EMPTY;

    start();
    declare_queues(1, false, false, NULL);
    hold(count, 10 * count, (struct slice){0});
    for (size_t i = 0; i < count && !by_queue; i++) {
        snprintf(tag, sizeof(tag), "%zu", i);
        amqp_method_encode(
            &out, 1,
            &(struct amqp_method){
                .id = AMQP_BASIC_CANCEL,
                .basic_cancel = {.consumer_tag = slice_of_string(tag), .no_wait = true}});
    }
    if (by_queue)
        amqp_method_encode(
            &out, 1,
            &(struct amqp_method){.id = AMQP_QUEUE_DELETE, .queue_delete.queue = SLICE("q0")});
    measure(by_queue ? "queue.delete, consumers that hold" : "basic.cancel, consumers that hold",
            count, &out);
    stop();
}

/* held: everything is settled in a transaction that does not end. */
static void measure_timeout(bool held)
{
    const size_t count = scaled(10000);
    struct buf out = BUF_EMPTY, arguments = BUF_EMPTY;

    start();
    declare_queues(1, false, false, NULL);
    amqp_table_put_i64(&arguments, SLICE("x-consumer-timeout"), 1000);
    hold(count, 10 * count, buf_slice(&arguments));
    if (held) {
        peer_call(peer, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
        amqp_method_encode(&out, 1,
                           &(struct amqp_method){.id = AMQP_BASIC_ACK, .basic_ack.multiple = true});
        send_and_drop(&out);
    }
    harness.clock.now_ms += 3000;
    measure(held ? "consumer timeout, held by a transaction" : "consumer timeout", count, &out);
    buf_release(&arguments);
    stop();
}

/* ---- whose turn it is ---- */

/* So many of each priority; the publishes are for the highest. */
static void measure_turns(size_t priorities, size_t of_each, const char *what)
{
    enum { PUBLISHES = 4000 };
    struct buf out = BUF_EMPTY, arguments = BUF_EMPTY;

    start();
    declare_queues(1, false, false, NULL);
    for (size_t i = 0; i < priorities * of_each; i++) {
        amqp_table_put_i64(&arguments, SLICE("x-priority"), (int64_t)(i % priorities));
        put_consume(&out, i, true, buf_slice(&arguments));
        buf_clear(&arguments);
        if (i % 100 == 99 || i + 1 == priorities * of_each)
            send_and_drop(&out);
    }
    for (size_t i = 0; i < PUBLISHES; i++)
        put_publish(&out, "", "q0", "m", &(struct sent){0});
    measure(what, PUBLISHES, &out);
    buf_release(&arguments);
    stop();
}

/* Each has room for one message: they come back in no order. */
static void measure_wake(void)
{
    const size_t count = scaled(50000);
    struct buf out = BUF_EMPTY, arguments = BUF_EMPTY;

    start();
    declare_queues(1, false, false, NULL);
    set_prefetch(peer, 1);
    for (size_t i = 0; i < count; i++) {
        amqp_table_put_i64(&arguments, SLICE("x-priority"), (int64_t)(i * 7919 % count));
        put_consume(&out, i, false, buf_slice(&arguments));
        buf_clear(&arguments);
        if (i % 100 == 99 || i + 1 == count)
            send_and_drop(&out);
    }
    publish_many(2 * count, false);
    for (size_t i = 0; i < count; i++)
        amqp_method_encode(&out, 1,
                           &(struct amqp_method){.id = AMQP_BASIC_ACK,
                                                 .basic_ack.delivery_tag = 1 + i * 7919 % count});
    measure("acks of consumers of as many priorities", count, &out);
    buf_release(&arguments);
    stop();
}

START_TEST(everything)
{
    measure_fanout(false);
    measure_fanout(true);
    for (size_t depth = 8; depth <= 16; depth += 4)
        measure_topic(depth);
    measure_headers(10000, 3);
    measure_headers(10000, 64);
    measure_headers(300, 2000);
    measure_chain();
    measure_publishes("fanout", "publishes to a fanout exchange, one queue");
    measure_publishes("x-consistent-hash", "publishes to x-consistent-hash");
    measure_publishes("headers", "publishes to a headers exchange, one queue");
    measure_history(false);
    measure_history(true);
    measure_priorities(false);
    measure_priorities(true);
    measure_letters(5, 10);
    measure_held(false);
    measure_held(true);
    measure_returns(false);
    measure_returns(true);
    measure_transaction(false);
    measure_transaction(true);
    for (int durable = 0; durable < 2; durable++) {
        measure_rejects(durable, 0);
        measure_rejects(durable, 100 << 20);
    }
    measure_purge(false);
    measure_purge(true);
    measure_bindings(false, true);
    measure_bindings(true, true);
    measure_bindings(false, false);
    measure_bindings(true, false);
    measure_exclusive();
    measure_consumers();
    measure_cancel(true);
    measure_cancel(false);
    measure_timeout(false);
    measure_timeout(true);
    measure_turns(1, scaled(10000), "publishes to consumers of one priority");
    measure_turns(2, scaled(10000), "publishes to consumers of two priorities");
    measure_turns(scaled(20000), 1, "publishes to consumers of as many priorities");
    measure_wake();
}
END_TEST

/* What the harness expects it expects as a test. */
int main(int argc, char **argv)
{
    Suite *suite = suite_create("bench_turn");
    TCase *test = tcase_create("bench_turn");

    part = argc > 1 ? strtoul(argv[1], NULL, 10) : 100;
    limited = argc <= 2;
    setlinebuf(stdout);
    tcase_add_test(test, everything);
    tcase_set_timeout(test, 0);
    suite_add_tcase(suite, test);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
