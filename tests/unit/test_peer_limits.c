/* What a peer can inflate, one limit after the other: it is met where it should be, says which it
 * is, and is there again when room was made. Those of access and of queues' lengths have tests of
 * their own (test_access, test_limits). */
#include "access/address.h"
#include "amqp/client.h"
#include "amqp/table.h"
#include "base/alloc.h"
#include "core/account.h"
#include "tests/lib/queue_client.h"
#include "tests/lib/unit.h"

static struct harness harness;
static struct peer *peer, *other;

static void start(const struct service_limits *limits)
{
    harness_init(&harness, limits);
    peer = peer_open_channel(&harness);
    other = peer_open_channel(&harness);
}

static void tear_down(void)
{
    harness_release(&harness);
}

static void expect_refusal(struct peer *from, const char *text)
{
    peer_expect_close(from, 1, 406, text);
    peer_send(from, 1, &(struct amqp_method){.id = AMQP_CHANNEL_CLOSE_OK});
    open_channel(from);
}

/* ---- consumers and deliveries ---- */

static void send_consume(struct peer *from, const char *tag)
{
    peer_send(from, 1,
              &(struct amqp_method){
                  .id = AMQP_BASIC_CONSUME,
                  .basic_consume = {.queue = SLICE("q"), .consumer_tag = slice_of_string(tag)}});
}

START_TEST(consumers_of_a_channel)
{
    struct service_limits limits = harness_limits;

    limits.consumer_max_per_channel = 2;
    start(&limits);
    declare_queue(peer, "q", false, NULL);
    consume(peer, "q", "a", false, NULL);
    consume(peer, "q", "b", false, NULL);
    consume(other, "q", "c", false, NULL);
    send_consume(peer, "d");
    peer_expect_close(peer, 0, 530, "NOT_ALLOWED - reached maximum (2) of consumers per channel");
}
END_TEST

START_TEST(consumers_in_all)
{
    struct service_limits limits = harness_limits;

    limits.consumer_max_per_node = 2;
    start(&limits);
    declare_queue(peer, "q", false, NULL);
    consume(peer, "q", "a", false, NULL);
    consume(other, "q", "a", false, NULL);
    send_consume(peer, "b");
    peer_expect_close(peer, 0, 530, "NOT_ALLOWED - reached maximum (2) of consumers on node *");
    peer = peer_open_channel(&harness); /* the other's consumer went with it */
    consume(peer, "q", "b", false, NULL);
    ck_assert_uint_eq(harness.service.consumer_count, 2);
}
END_TEST

START_TEST(deliveries_that_nobody_acknowledges)
{
    struct service_limits limits = harness_limits;

    limits.unacked_max_per_channel = 3;
    start(&limits);
    declare_queue(peer, "q", _i == 1, NULL);
    for (int i = 0; i < 10; i++)
        publish(peer, "q", "m");
    consume(other, "q", "a", false, NULL); /* without a prefetch of its own */
    const uint64_t first = expect_delivery(other, "m");
    expect_delivery(other, "m");
    expect_delivery(other, "m");
    peer_expect_nothing(other);
    ack(other, first);
    const uint64_t last = expect_delivery(other, "m");
    peer_expect_nothing(other);
    peer_send(other, 1,
              &(struct amqp_method){.id = AMQP_BASIC_ACK,
                                    .basic_ack = {.delivery_tag = last, .multiple = true}});
    for (int i = 0; i < 3; i++)
        expect_delivery(other, "m");
    peer_expect_nothing(other);
    ck_assert_uint_eq(1,
                      harness_logged(&harness, "channel 1: 3 deliveries are not acknowledged, as "
                                               "many as it may have (unacked_max_per_channel)"));
}
END_TEST

START_TEST(a_prefetch_below_it_counts)
{
    struct service_limits limits = harness_limits;

    limits.unacked_max_per_channel = 3;
    start(&limits);
    declare_queue(peer, "q", false, NULL);
    for (int i = 0; i < 10; i++)
        publish(peer, "q", "m");
    peer_call(
        other, 1,
        &(struct amqp_method){.id = AMQP_BASIC_QOS,
                              .basic_qos = {.prefetch_count = _i == 0 ? 2 : 7, .global = true}},
        AMQP_BASIC_QOS_OK);
    consume(other, "q", "a", false, NULL);
    expect_delivery(other, "m");
    expect_delivery(other, "m");
    if (_i == 1)
        expect_delivery(other, "m");
    peer_expect_nothing(other);
    ck_assert_uint_eq(_i, harness_logged(&harness, "unacked_max_per_channel"));
}
END_TEST

START_TEST(who_needs_no_acknowledgement_gets_all)
{
    struct service_limits limits = harness_limits;

    limits.unacked_max_per_channel = 3;
    start(&limits);
    declare_queue(peer, "q", false, NULL);
    for (int i = 0; i < 10; i++)
        publish(peer, "q", "m");
    consume(other, "q", "a", true, NULL);
    for (int i = 0; i < 10; i++)
        expect_delivery(other, "m");
}
END_TEST

START_TEST(gets_that_nobody_acknowledges)
{
    struct service_limits limits = harness_limits;

    limits.unacked_max_per_channel = 3;
    start(&limits);
    declare_queue(peer, "q", false, NULL);
    for (int i = 0; i < 5; i++)
        publish(peer, "q", "m");
    const uint64_t first = get_unacked(other, "q", "m");
    get_unacked(other, "q", "m");
    get_unacked(other, "q", "m");
    ack(other, first);
    get_unacked(other, "q", "m");
    peer_send(other, 1, &(struct amqp_method){.id = AMQP_BASIC_GET, .basic_get.queue = SLICE("q")});
    expect_refusal(other,
                   "PRECONDITION_FAILED - 3 deliveries of this channel are not acknowledged, "
                   "the maximum is 3 (unacked_max_per_channel)");
    get_unacked(other, "q", "m"); /* they went back with the channel */
}
END_TEST

static const char *large(void)
{
    static char body[1001];

    memset(body, 'l', sizeof(body) - 1);
    return body;
}

static void start_with_unacked_size(uint64_t size, int messages, bool durable)
{
    struct service_limits limits = harness_limits;

    limits.unacked_size_max = size;
    start(&limits);
    declare_queue(peer, "q", durable, NULL);
    for (int i = 0; i < messages; i++)
        publish(peer, "q", large());
}

START_TEST(octets_that_nobody_acknowledges)
{
    start_with_unacked_size(3000, 10, _i == 1);
    consume(other, "q", "a", false, NULL);
    const uint64_t first = expect_delivery(other, large());
    expect_delivery(other, large());
    const uint64_t third = expect_delivery(other, large());
    peer_expect_nothing(other);
    ck_assert_uint_eq(harness_logged(&harness, "[warning] AMQP connection"), 1);
    ck_assert_uint_eq(harness_logged(&harness, "(unacked_memory_limit)"), 1);
    ack(other, first);
    expect_delivery(other, large());
    peer_expect_nothing(other);
    nack(other, third, true); /* comes back, if to nobody else */
    expect_delivery(other, large());
    peer_expect_nothing(other);
    get_unacked(peer, "q", large()); /* what others leave does not count */
    ck_assert_uint_eq(harness_logged(&harness, "(unacked_memory_limit)"), 1);
}
END_TEST

START_TEST(octets_of_all_channels_of_a_connection)
{
    start_with_unacked_size(3000, 10, false);
    peer_call(other, 2, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN}, AMQP_CHANNEL_OPEN_OK);
    for (int i = 0; i < 3; i++)
        get_unacked(other, "q", large());
    peer_call(other, 2,
              &(struct amqp_method){.id = AMQP_BASIC_CONSUME, .basic_consume.queue = SLICE("q")},
              AMQP_BASIC_CONSUME_OK);
    peer_expect_nothing(other);
    char text[256];
    snprintf(text, sizeof(text),
             "PRECONDITION_FAILED - messages of %" PRIu64 " octets that were delivered to this "
             "connection are not acknowledged, the maximum is 3000 (unacked_memory_limit)",
             other->connection->unacked_size);
    peer_send(other, 1, &(struct amqp_method){.id = AMQP_BASIC_GET, .basic_get.queue = SLICE("q")});
    peer_expect_close(other, 1, 406, text);
    /* What the channel had goes back with it, and to the other one. */
    for (int i = 0; i < 3; i++)
        peer_expect_content(other, 2, AMQP_BASIC_DELIVER, large());
    peer_expect_nothing(other);
    peer_free(&other);
    harness_run(&harness);
    for (int i = 0; i < 3; i++)
        get_unacked(peer, "q", large());
    ck_assert_uint_eq(peer->connection->unacked_size,
                      TAILQ_FIRST(&harness.service.connections)->unacked_size);
}
END_TEST

START_TEST(a_single_delivery_may_always_be_left)
{
    start_with_unacked_size(10, 3, false);
    consume(other, "q", "a", false, NULL);
    for (int i = 0; i < 3; i++) {
        const uint64_t tag = expect_delivery(other, large());
        peer_expect_nothing(other);
        ack(other, tag);
    }
    ck_assert_uint_eq(other->connection->unacked_size, 0);
    publish(peer, "q", large());
    expect_delivery(other, large());
    publish(peer, "q", large());
    consume(peer, "q", "none", true, NULL); /* needs no acknowledgement */
    expect_delivery(peer, large());
}
END_TEST

START_TEST(octets_of_a_transaction)
{
    start_with_unacked_size(3000, 10, false);
    peer_call(other, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
    consume(other, "q", "a", false, NULL);
    expect_delivery(other, large());
    expect_delivery(other, large());
    const uint64_t third = expect_delivery(other, large());
    peer_send(other, 1,
              &(struct amqp_method){.id = AMQP_BASIC_ACK,
                                    .basic_ack = {.delivery_tag = third, .multiple = true}});
    peer_expect_nothing(other);
    peer_call(other, 1, &(struct amqp_method){.id = AMQP_TX_COMMIT}, AMQP_TX_COMMIT_OK);
    for (int i = 0; i < 3; i++)
        expect_delivery(other, large());
    peer_expect_nothing(other);
}
END_TEST

/* ---- publishes that have not come to a queue ---- */

/* basic.publish and a header that announces so much. */
static void begin_publish(struct peer *from, uint16_t channel, uint64_t size)
{
    const struct amqp_content_header header = {
        .class_id = 60, .body_size = size, .properties = SLICE("\0\0")};
    struct buf out = BUF_EMPTY;

    amqp_method_encode(
        &out, channel,
        &(struct amqp_method){.id = AMQP_BASIC_PUBLISH, .basic_publish.routing_key = SLICE("q")});
    amqp_content_header_encode(&out, channel, &header);
    peer_send_bytes(from, buf_slice(&out));
    buf_release(&out);
}

static void open_second_channel(void)
{
    peer_call(peer, 2, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN}, AMQP_CHANNEL_OPEN_OK);
}

START_TEST(messages_that_are_begun) /* CVE-2026-67235 */
{
    struct service_limits limits = harness_limits;

    limits.publish_size_max = 100000;
    start(&limits);
    open_second_channel();
    begin_publish(peer, 1, 60000);
    begin_publish(peer, 2, 60000);
    peer_expect_close(
        peer, 2, 406,
        "PRECONDITION_FAILED - messages that this connection has begun to publish, or "
        "holds in transactions, would have 120004 octets, the maximum is 100000 "
        "(publish_memory_limit)");
    peer_send(peer, 2, &(struct amqp_method){.id = AMQP_CHANNEL_CLOSE_OK});
    begin_publish(other, 1, 60000); /* each connection has its own */
    peer_expect_nothing(other);
    open_second_channel();
    begin_publish(peer, 2, 30000);
    peer_expect_nothing(peer);
    ck_assert_uint_eq(peer->connection->publish_size, 60002 + 30002);
    begin_publish(other, 1, 1); /* no body: the connection's end, with what was begun */
    peer_expect_close(other, 0, 505, "UNEXPECTED_FRAME*");
    ck_assert_uint_eq(other->connection->publish_size, 0);
}
END_TEST

/* A word in a header is no memory: queues would be paged out for messages that never come. */
START_TEST(what_has_not_come_takes_no_memory) /* CVE-2026-67235 */
{
    char body[20001];
    memset(body, 'x', sizeof(body) - 1);
    body[sizeof(body) - 1] = '\0';

    start(&harness_limits);
    const uint64_t before = message_memory();
    begin_publish(peer, 1, 1000000);
    peer_expect_nothing(peer);
    ck_assert_uint_lt(message_memory() - before, 1000);
    begin_publish(peer, 1, 1); /* no body: the connection's end */
    peer_expect_close(peer, 0, 505, "UNEXPECTED_FRAME*");
    ck_assert_uint_eq(message_memory(), before);
    declare_queue(other, "q", false, NULL);
    publish(other, "q", body);
    ck_assert_uint_gt(message_memory() - before, 20000);
    get_one(other, "q", body);
    ck_assert_uint_eq(message_memory(), before);
}
END_TEST

START_TEST(a_single_message_may_always_come)
{
    struct service_limits limits = harness_limits;

    limits.publish_size_max = 1;
    start(&limits);
    declare_queue(peer, "q", false, NULL);
    char body[20001];
    memset(body, 'x', sizeof(body) - 1);
    body[sizeof(body) - 1] = '\0';
    for (int i = 0; i < 3; i++)
        publish(peer, "q", body);
    ck_assert_uint_eq(count_ready(peer, "q"), 3);
    ck_assert_uint_eq(peer->connection->publish_size, 0);
}
END_TEST

START_TEST(no_size_is_small_by_overflow) /* CVE-2026-67235 */
{
    start(NULL);
    begin_publish(peer, 1, UINT64_MAX - _i);
    peer_expect_close(peer, 0, 501, "FRAME_ERROR - content body size *");
}
END_TEST

START_TEST(transactions)
{
    struct service_limits limits = harness_limits;
    int count = 0;

    limits.publish_size_max = 10000;
    start(&limits);
    declare_queue(peer, "q", false, NULL);
    for (int round = 0; round < 3; round++) {
        peer_call(other, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
        for (count = 0; other->connection->publish_size <= 9000; count++)
            publish(other, "q", "m");
        if (round == 0) {
            for (int i = 0; i < 20; i++)
                publish(other, "q", "m");
            expect_refusal(other, "PRECONDITION_FAILED - messages that this connection has begun*");
        } else {
            peer_call(other, 1,
                      &(struct amqp_method){.id = round == 1 ? AMQP_TX_COMMIT : AMQP_TX_ROLLBACK},
                      round == 1 ? AMQP_TX_COMMIT_OK : AMQP_TX_ROLLBACK_OK);
        }
        ck_assert_uint_eq(other->connection->publish_size, 0);
    }
    ck_assert_int_gt(count, 10);
    ck_assert_uint_eq(count_ready(peer, "q"), (uint32_t)count);
}
END_TEST

/* ---- what is declared ---- */

static void send_bind(struct peer *from, const char *queue, const char *exchange, const char *key)
{
    peer_send(from, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_BIND,
                                    .queue_bind = {.queue = slice_of_string(queue),
                                                   .exchange = slice_of_string(exchange),
                                                   .routing_key = slice_of_string(key)}});
}

static void bind_exchange(struct peer *from, const char *destination, const char *source,
                          const char *key)
{
    peer_send(from, 1,
              &(struct amqp_method){.id = AMQP_EXCHANGE_BIND,
                                    .exchange_bind = {.destination = slice_of_string(destination),
                                                      .source = slice_of_string(source),
                                                      .routing_key = slice_of_string(key)}});
}

START_TEST(bindings_of_a_queue)
{
    start(NULL);
    harness.broker.limits.binding_max_per_queue = 2;
    declare_queue(peer, "q", false, NULL);
    bind_queue(peer, "q", "amq.direct", "a");
    bind_queue(peer, "q", "amq.topic", "a");
    bind_queue(peer, "q", "amq.topic", "a"); /* there already */
    send_bind(peer, "q", "amq.direct", "b");
    expect_refusal(peer, "PRECONDITION_FAILED - cannot bind: queue 'q' has reached the limit of 2 "
                         "bindings (binding_max_per_queue)");
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_UNBIND,
                                    .queue_unbind = {.queue = SLICE("q"),
                                                     .exchange = SLICE("amq.topic"),
                                                     .routing_key = SLICE("a")}},
              AMQP_QUEUE_UNBIND_OK);
    bind_queue(peer, "q", "amq.direct", "b");
}
END_TEST

START_TEST(bindings_of_an_exchange)
{
    start(NULL);
    harness.broker.limits.binding_max_per_exchange = 2;
    declare_queue(peer, "q", false, NULL);
    bind_queue(peer, "q", "amq.direct", "a");
    bind_queue(peer, "q", "amq.direct", "b");
    send_bind(peer, "q", "amq.direct", "c");
    expect_refusal(peer,
                   "PRECONDITION_FAILED - cannot bind: source exchange 'amq.direct' has reached "
                   "the limit of 2 bindings (binding_max_per_exchange)");
    for (int i = 0; i < 2; i++) {
        bind_exchange(peer, "amq.fanout", "amq.topic", i == 0 ? "a" : "b");
        peer_expect(peer, 1, AMQP_EXCHANGE_BIND_OK);
    }
    bind_exchange(peer, "amq.fanout", "amq.headers", "");
    expect_refusal(peer, "PRECONDITION_FAILED - cannot bind: destination exchange 'amq.fanout' has "
                         "reached the limit of 2 bindings (binding_max_per_exchange)");
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DELETE, .queue_delete.queue = SLICE("q")},
              AMQP_QUEUE_DELETE_OK);
    declare_queue(peer, "q", false, NULL);
    bind_queue(peer, "q", "amq.direct", "c");
}
END_TEST

START_TEST(bindings_in_all) /* CVE-2026-67219 */
{
    start(NULL);
    harness.broker.limits.binding_max = 2;
    declare_queue(peer, "q", false, NULL);
    bind_queue(peer, "q", "amq.direct", "a");
    bind_queue(peer, "q", "amq.topic", "a");
    send_bind(peer, "q", "amq.fanout", "a");
    expect_refusal(peer,
                   "PRECONDITION_FAILED - cannot bind: the broker behind vhost '/' has reached "
                   "the limit of 2 bindings (cluster_binding_limit)");
}
END_TEST

START_TEST(queues_and_exchanges_in_all) /* CVE-2026-67219 */
{
    start(NULL);
    declare_queue(peer, "q", false, NULL);
    harness.broker.limits.queue_max = 1;
    harness.broker.limits.exchange_max = (uint32_t)harness.broker.totals.exchanges + 1;
    declare_exchange(peer, "x", "fanout");
    declare_queue(peer, "q", false, NULL);
    peer_send(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DECLARE, .queue_declare.queue = SLICE("r")});
    expect_refusal(peer,
                   "PRECONDITION_FAILED - cannot declare queue 'r': queue limit in cluster (1) "
                   "is reached");
    peer_send(peer, 1,
              &(struct amqp_method){
                  .id = AMQP_EXCHANGE_DECLARE,
                  .exchange_declare = {.exchange = SLICE("y"), .type = SLICE("fanout")}});
    expect_refusal(peer, "PRECONDITION_FAILED - cannot declare exchange 'y' in vhost '/': exchange "
                         "limit of 8 is reached");
}
END_TEST

/* What was declared has so many octets, in name, key and arguments. */
START_TEST(memory_of_what_is_declared) /* CVE-2026-67219 */
{
    static const char *const what[] = {
        "PRECONDITION_FAILED - cannot declare queue 'queue' in vhost '/': names and arguments of "
        "all "
        "that is declared have reached the limit of * octets (definition_memory_limit)",
        "PRECONDITION_FAILED - cannot declare exchange 'exchange' in vhost '/': *",
        "PRECONDITION_FAILED - cannot bind 'q' in vhost '/': *"};

    start(NULL);
    declare_queue(peer, "q", false, NULL);
    harness.broker.limits.definition_octets_max = harness.broker.totals.octets + 4;
    for (int i = 0; i < 3; i++) {
        if (i == 0)
            peer_send(peer, 1,
                      &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                                            .queue_declare.queue = SLICE("queue")});
        else if (i == 1)
            peer_send(peer, 1,
                      &(struct amqp_method){.id = AMQP_EXCHANGE_DECLARE,
                                            .exchange_declare = {.exchange = SLICE("exchange"),
                                                                 .type = SLICE("fanout")}});
        else
            send_bind(peer, "q", "amq.fanout", "key");
        char *text = xstrdup(what[i]);
        *(strchr(text, '*') + 1) = '\0';
        expect_refusal(peer, text);
        free(text);
    }
    declare_queue(peer, "four", false, NULL);
    ck_assert_uint_eq(harness.broker.totals.octets, harness.broker.limits.definition_octets_max);
}
END_TEST

static void bind_headers(struct peer *from, const char *arguments)
{
    struct buf bytes = BUF_EMPTY;

    peer_call(from, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_BIND,
                                    .queue_bind = {.queue = SLICE("q"),
                                                   .exchange = SLICE("amq.headers"),
                                                   .arguments = arguments_of(&bytes, arguments)}},
              AMQP_QUEUE_BIND_OK);
    buf_release(&bytes);
}

/* What grows out of few octets counts as what it has become. */
START_TEST(memory_of_what_is_made)
{
    const uint64_t *octets = &harness.broker.totals.octets;

    start(NULL);
    declare_queue(peer, "q", false, NULL);
    uint64_t before = *octets;
    declare_queue(peer, "p", false, "x-max-priority=I255");
    ck_assert_uint_ge(*octets, before + 255 * sizeof(struct window));
    before = *octets;
    bind_headers(peer, "a=V,b=V,c=V,d=V");
    ck_assert_uint_ge(*octets, before + 4 * (sizeof(struct slice) + sizeof(struct amqp_value)));
    before = *octets;
    consume(peer, "q", "tag", false, NULL);
    ck_assert_uint_eq(*octets, before);
    consume(peer, "q", "other", false, "x-what=Sthis");
    ck_assert_uint_ge(*octets, before + strlen("x-whatthis"));

    harness.broker.limits.definition_octets_max = *octets + 10;
    consume(peer, "q", "third", false, NULL);
    peer_send(peer, 1,
              &(struct amqp_method){
                  .id = AMQP_BASIC_CONSUME,
                  .basic_consume = {.queue = SLICE("q"),
                                    .arguments = slice_of("\6x-whatS\0\0\0\4this", 16)}});
    expect_refusal(peer, "PRECONDITION_FAILED - cannot consume from queue 'q' in vhost '/': *");
    ck_assert_uint_eq(*octets, before); /* the consumers have gone */
}
END_TEST

/* A queue of many priorities is as many records. */
START_TEST(turns_are_shared_by_declarations)
{
    enum { QUEUES = 50, A_TURN = 20 };
    const size_t *queues = &harness.broker.totals.queues;
    struct buf out = BUF_EMPTY, arguments = BUF_EMPTY;
    char name[16];

    start(NULL);
    for (int i = 0; i < QUEUES; i++) {
        snprintf(name, sizeof(name), "p%d", i);
        amqp_method_encode(
            &out, 1,
            &(struct amqp_method){
                .id = AMQP_QUEUE_DECLARE,
                .queue_declare = {.queue = slice_of_string(name),
                                  .durable = true,
                                  .arguments = arguments_of(&arguments, "x-max-priority=I255"),
                                  .no_wait = true}});
    }
    memory_transport_send(&peer->memory, buf_slice(&out));
    for (size_t before = *queues; before < QUEUES; before = *queues) {
        loop_turn(&harness.loop, 0);
        ck_assert_uint_le(*queues - before, A_TURN);
    }
    buf_release(&out);
    buf_release(&arguments);
    harness_run(&harness);
    ck_assert(!peer->connection->held);
}
END_TEST

START_TEST(what_is_deleted_makes_room)
{
    start(NULL);
    const struct broker_totals before = harness.broker.totals;
    uint64_t lsn;
    struct amqp_error error;

    for (int i = 0; i < 2; i++) {
        struct vhost *vhost = vhost_create(&harness.broker, SLICE("v"), &lsn, &error);
        harness_permit(&harness, "guest", "v", ".*", ".*", ".*");
        struct peer *there = peer_open_as(&harness, "guest", "guest", "v");
        open_channel(there);
        declare_queue(there, "q", true, "x-max-length=I5");
        declare_exchange(there, "x", "topic");
        bind_queue(there, "q", "x", "a.b");
        bind_queue(there, "q", "amq.direct", "a.b");
        bind_exchange(there, "x", "amq.fanout", "");
        peer_expect(there, 1, AMQP_EXCHANGE_BIND_OK);
        peer_call(
            there, 1,
            &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                                  .queue_declare = {.queue = SLICE("mine"), .exclusive = true}},
            AMQP_QUEUE_DECLARE_OK);
        bind_queue(there, "mine", "x", "#");
        declare_queue(there, "priorities", true, "x-max-priority=I9");
        bind_headers(there, "a=I1,b=I2");
        consume(there, "q", "tag", false, "x-priority=I3");
        ck_assert_uint_eq(harness.broker.totals.bindings, before.bindings + 5);
        ck_assert_uint_eq(harness.broker.totals.queues, before.queues + 3);
        if (i == 1)
            peer_call(there, 1,
                      &(struct amqp_method){.id = AMQP_EXCHANGE_DELETE,
                                            .exchange_delete.exchange = SLICE("x")},
                      AMQP_EXCHANGE_DELETE_OK);
        peer_free(&there);
        vhost_delete(vhost, &lsn);
        harness_run(&harness);
    }
    const struct broker_totals *after = &harness.broker.totals;
    ck_assert_uint_eq(after->queues, before.queues);
    ck_assert_uint_eq(after->exchanges, before.exchanges);
    ck_assert_uint_eq(after->bindings, before.bindings);
    ck_assert_uint_eq(after->octets, before.octets);
}
END_TEST

START_TEST(what_was_declared_counts_after_a_restart)
{
    start(NULL);
    declare_queue(peer, "q", true, "x-max-length=I5");
    bind_queue(peer, "q", "amq.direct", "a.b");
    declare_queue(peer, "priorities", true, "x-max-priority=I9");
    bind_headers(peer, "a=I1,b=I2");
    const struct broker_totals before = harness.broker.totals;
    harness_restart(&harness, false);
    const struct broker_totals *after = &harness.broker.totals;
    ck_assert_uint_eq(after->queues, before.queues);
    ck_assert_uint_eq(after->exchanges, before.exchanges);
    ck_assert_uint_eq(after->bindings, before.bindings);
    ck_assert_uint_eq(after->octets, before.octets);
}
END_TEST

/* ---- the work of routing ---- */

static const struct {
    const char *exchange, *key, *arguments;
    const char *routing_key, *headers;
    uint32_t steps; /* that suffice, and one fewer does not */
} routes[] = {
    {"amq.topic", "a.b.c", NULL, "a.b.c", NULL, 5}, /* the root, three words, a binding */
    {"amq.topic", "#.b", NULL, "a.a.a.b", NULL, 8},
    /* a binding, its entries, and three to put the headers in order */
    {"amq.headers", "", "a=I1,b=I2,c=I3", "", "a=I1,b=I2,c=I3", 7},
    {"amq.headers", "", "a=I1,b=I2,c=I3", "", "a=I2,b=I2,c=I3", 5}, /* the first one decides */
};

static void publish_to(struct peer *from, const char *exchange, const char *key,
                       const char *headers)
{
    struct buf out = BUF_EMPTY;

    put_publish(&out, exchange, key, "m", &(struct sent){.headers = headers});
    peer_send_bytes(from, buf_slice(&out));
    buf_release(&out);
}

#define TOO_MUCH "PRECONDITION_FAILED - routing a message of exchange *"

START_TEST(matching) /* CVE-2026-67419 */
{
    struct buf arguments = BUF_EMPTY;

    start(NULL);
    declare_queue(peer, "q", false, NULL);
    peer_call(peer, 1,
              &(struct amqp_method){
                  .id = AMQP_QUEUE_BIND,
                  .queue_bind = {.queue = SLICE("q"),
                                 .exchange = slice_of_string(routes[_i].exchange),
                                 .routing_key = slice_of_string(routes[_i].key),
                                 .arguments = arguments_of(&arguments, routes[_i].arguments)}},
              AMQP_QUEUE_BIND_OK);
    buf_release(&arguments);
    harness.broker.limits.routing_steps_max = routes[_i].steps;
    publish_to(other, routes[_i].exchange, routes[_i].routing_key, routes[_i].headers);
    peer_expect_nothing(other);
    harness.broker.limits.routing_steps_max--;
    publish_to(other, routes[_i].exchange, routes[_i].routing_key, routes[_i].headers);
    expect_refusal(other, TOO_MUCH);
    const bool matches = _i != 3;
    ck_assert_uint_eq(count_ready(peer, "q"), matches ? 1 : 0); /* nothing of the second */
}
END_TEST

static void bind_queues(int count)
{
    char name[16];

    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "q%d", i);
        declare_queue(peer, name, false, NULL);
        bind_queue(peer, name, "amq.fanout", "");
    }
}

START_TEST(queues_of_a_message) /* GHSA-6chv-gv3h-cvcj */
{
    start(NULL);
    bind_queues(30);
    harness.broker.limits.routing_steps_max = 30 * ROUTE_QUEUE_STEPS - 1;
    publish_to(other, "amq.fanout", "", NULL);
    expect_refusal(other, TOO_MUCH);
    harness.broker.limits.routing_steps_max++;
    publish_to(other, "amq.fanout", "", NULL);
    peer_expect_nothing(other);
    ck_assert_uint_eq(count_ready(peer, "q0"), 1);
    ck_assert_uint_eq(count_ready(peer, "q29"), 1);
}
END_TEST

/* Through more than one exchange, which are there once however they are reached. */
START_TEST(exchanges_of_a_message) /* GHSA-6chv-gv3h-cvcj */
{
    start(NULL);
    bind_queues(3);
    declare_exchange(peer, "first", "topic");
    for (int i = 0; i < 3; i++) {
        bind_exchange(peer, "amq.fanout", "first", i == 0 ? "a" : i == 1 ? "*" : "#");
        peer_expect(peer, 1, AMQP_EXCHANGE_BIND_OK);
    }
    harness.broker.limits.routing_steps_max = 3 * ROUTE_QUEUE_STEPS - 1;
    publish_to(other, "first", "a", NULL);
    expect_refusal(other, TOO_MUCH);
    ck_assert_uint_eq(count_ready(peer, "q2"), 0);
    harness.broker.limits.routing_steps_max++;
    publish_to(other, "first", "a", NULL);
    peer_expect_nothing(other);
    ck_assert_uint_eq(count_ready(peer, "q2"), 1);
}
END_TEST

START_TEST(work_of_a_transaction) /* CVE-2026-67419 */
{
    start(NULL);
    bind_queues(3);
    harness.broker.limits.routing_steps_max = 4 * 100; /* a step each, and one per queue */
    for (int count = 100; count <= 101; count++) {
        peer_call(other, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
        for (int i = 0; i < count; i++)
            publish_to(other, "amq.fanout", "", NULL);
        peer_send(other, 1, &(struct amqp_method){.id = AMQP_TX_COMMIT});
        if (count == 100)
            peer_expect(other, 1, AMQP_TX_COMMIT_OK);
        else
            expect_refusal(other, TOO_MUCH);
        ck_assert_uint_eq(count_ready(peer, "q1"), 100);
    }
}
END_TEST

/* Confirms: what was refused is not confirmed, and the channel is closed behind those that were. */
START_TEST(a_refused_route_is_not_confirmed)
{
    struct buf out = BUF_EMPTY;

    start(NULL);
    bind_queues(3);
    peer_call(other, 1, &(struct amqp_method){.id = AMQP_CONFIRM_SELECT}, AMQP_CONFIRM_SELECT_OK);
    harness.broker.limits.routing_steps_max = 2 * ROUTE_QUEUE_STEPS;
    put_publish(&out, "amq.fanout", "", "m", &(struct sent){.persistent = true});
    put_publish(&out, "", "q0", "m", &(struct sent){.persistent = true});
    peer_send_bytes(other, buf_slice(&out));
    buf_release(&out);
    expect_refusal(other, TOO_MUCH);
    peer_expect_nothing(other);
    ck_assert_uint_eq(count_ready(peer, "q0"), 0);
}
END_TEST

/* Who fills many queues takes a rest, so that another's turn comes; nothing is lost or out of
 * order. */
START_TEST(turns_are_shared)
{
    struct buf out = BUF_EMPTY;

    start(NULL);
    bind_queues(100);
    for (int i = 0; i < 1000; i++)
        put_publish(&out, "amq.fanout", "", i == 999 ? "last" : "m", &(struct sent){0});
    memory_transport_send(&other->memory, buf_slice(&out));
    buf_release(&out);
    loop_turn(&harness.loop, 0);
    /* of a hundred bindings, and queues, each */
    const uint64_t most = TURN_STEPS_MAX / (100 + 100 * ROUTE_QUEUE_STEPS);
    ck_assert_uint_ge(harness.broker.counters.messages.published, most);
    ck_assert_uint_le(harness.broker.counters.messages.published, most + 1);
    harness_run(&harness);
    ck_assert_uint_eq(harness.broker.counters.messages.published, 1000);
    for (int i = 0; i < 999; i++)
        get_one(peer, "q99", "m");
    get_one(peer, "q99", "last");
    ck_assert(!other->connection->held);
}
END_TEST

/* Bindings of one exchange that a publish has to go through, though it leads to one queue or none. */
static const struct {
    const char *type, *key; /* key NULL: each has its own */
    const char *routing_key, *headers;
    size_t steps; /* for each of them */
} labours[] = {
    {"fanout", NULL, "", NULL, 1},
    {"direct", "k", "k", NULL, 1},
    {"topic", "#", "k", NULL, 1},
    {"headers", "", "", NULL, 2},
    {"x-consistent-hash", NULL, "k", NULL, 1}, /* weights that differ */
    {"x-consistent-hash", "1", "k", NULL, 1},
    {"x-recent-history", NULL, "k", "x-recent-history-no-store=t1", 1},
};

enum { LABOUR_BINDINGS = 2000, LABOUR_PUBLISHES = 1000 };

static void start_labour(size_t i)
{
    struct buf out = BUF_EMPTY, arguments = BUF_EMPTY;

    start(NULL);
    declare_queue(peer, "q", false, NULL);
    declare_exchange(peer, "x", labours[i].type);
    for (int number = 1; number <= LABOUR_BINDINGS; number++) {
        char key[16], entry[16];
        snprintf(key, sizeof(key), "%d", number);
        snprintf(entry, sizeof(entry), "n=I%d", number);
        amqp_method_encode(
            &out, 1,
            &(struct amqp_method){.id = AMQP_QUEUE_BIND,
                                  .queue_bind = {.queue = SLICE("q"),
                                                 .exchange = SLICE("x"),
                                                 .routing_key = slice_of_string(
                                                     labours[i].key != NULL ? labours[i].key : key),
                                                 .arguments = arguments_of(&arguments, entry),
                                                 .no_wait = true}});
    }
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    buf_release(&arguments);
    peer_expect_nothing(peer);
}

static void put_labour(struct buf *out, size_t i, int count)
{
    while (count-- > 0)
        put_publish(out, "x", labours[i].routing_key, "m",
                    &(struct sent){.headers = labours[i].headers});
}

/* Whatever is done for a publish counts, though it leads to one queue. */
START_TEST(turns_are_shared_by_all_types) /* GHSA-6chv-gv3h-cvcj */
{
    const uint64_t *published = &harness.broker.counters.messages.published;
    const uint64_t most = TURN_STEPS_MAX / (labours[_i].steps * LABOUR_BINDINGS);
    struct buf out = BUF_EMPTY;

    start_labour((size_t)_i);
    ck_assert_uint_eq(harness.broker.totals.bindings, LABOUR_BINDINGS);
    put_labour(&out, (size_t)_i, LABOUR_PUBLISHES);
    memory_transport_send(&other->memory, buf_slice(&out));
    buf_release(&out);
    for (uint64_t before = *published; before < LABOUR_PUBLISHES; before = *published) {
        loop_turn(&harness.loop, 0);
        ck_assert_uint_le(*published - before, most + 1);
    }
    ck_assert_uint_eq(*published, LABOUR_PUBLISHES);
    harness_run(&harness);
    ck_assert(!other->connection->held);
}
END_TEST

/* What others have spent is no reason to rest. */
START_TEST(who_spends_nothing_does_not_rest)
{
    enum { PLAIN = 500 };
    struct buf out = BUF_EMPTY;

    start_labour(0);
    declare_queue(peer, "p", false, NULL);
    struct peer *plain = peer_open_channel(&harness);
    put_labour(&out, 0, LABOUR_PUBLISHES);
    memory_transport_send(&other->memory, buf_slice(&out));
    buf_clear(&out);
    for (int i = 0; i < PLAIN; i++)
        put_publish(&out, "", "p", "m", &(struct sent){0});
    memory_transport_send(&plain->memory, buf_slice(&out));
    buf_release(&out);
    loop_turn(&harness.loop, 0);
    ck_assert(other->connection->held);
    ck_assert(!plain->connection->held);
    harness_run(&harness);
    ck_assert_uint_eq(PLAIN, count_ready(peer, "p"));
}
END_TEST

/* What goes back counts, though some of it is delivered again before the frame is over. */
START_TEST(what_is_recovered_counts)
{
    struct buf out = BUF_EMPTY;

    start_labour(0);
    declare_queue(peer, "r", true, "x-queue-type=Squorum,x-max-length=I5");
    for (int i = 0; i < 2; i++) {
        publish(peer, "r", "m");
        get_unacked(other, "r", "m");
    }
    for (int i = 0; i < 5; i++)
        publish(peer, "r", "m");
    amqp_method_encode(
        &out, 1,
        &(struct amqp_method){
            .id = AMQP_BASIC_CONSUME,
            .basic_consume = {.queue = SLICE("r"), .consumer_tag = SLICE("c"), .no_wait = true}});
    amqp_method_encode(
        &out, 1, &(struct amqp_method){.id = AMQP_BASIC_RECOVER, .basic_recover.requeue = true});
    memory_transport_send(&other->memory, buf_slice(&out));
    buf_release(&out);
    loop_turn(&harness.loop, 0);
    ck_assert_uint_eq(harness.broker.steps, 2 * ROUTE_QUEUE_STEPS);
    ck_assert(!other->connection->held);
}
END_TEST

enum { SPENDERS = 5 };
static struct peer *spenders[SPENDERS];

static void start_spenders(void)
{
    start_labour(0);
    declare_queue(peer, "p", false, NULL);
    for (int i = 0; i < SPENDERS; i++)
        spenders[i] = peer_open_channel(&harness);
}

/* Three frames each. */
static uint64_t publishes_of(const struct peer *from)
{
    return from->connection->frames_in / 3;
}

/* Turns go round among those who always have more to publish than a turn has steps for, and one who
 * publishes what costs nothing is served in each. */
START_TEST(spenders_have_even_shares)
{
    enum { TURNS = 3 * SPENDERS };                              /* nobody comes to its end */
    const uint64_t most = TURN_STEPS_MAX / LABOUR_BINDINGS + 1; /* in a turn, of all together */
    const uint64_t *published = &harness.broker.counters.messages.published;
    struct buf out = BUF_EMPTY;
    uint64_t began[SPENDERS];

    start_spenders();
    put_labour(&out, 0, LABOUR_PUBLISHES);
    for (int i = 0; i < SPENDERS; i++)
        memory_transport_send(&spenders[i]->memory, buf_slice(&out));
    buf_clear(&out);
    put_publish(&out, "", "p", "m", &(struct sent){0});
    loop_turn(&harness.loop, 0); /* nobody knows them yet */
    ck_assert_uint_eq(*published, most + SPENDERS - 1);
    for (int i = 0; i < SPENDERS; i++)
        began[i] = publishes_of(spenders[i]);
    for (int turn = 0; turn < TURNS; turn++) {
        const uint64_t before = *published, frames_before = other->connection->frames_in;
        memory_transport_send(&other->memory, buf_slice(&out));
        loop_turn(&harness.loop, 0);
        ck_assert_uint_eq(other->connection->frames_in - frames_before, 3);
        ck_assert_uint_eq(*published - before, most + 1); /* with the one that costs nothing */
        uint64_t least = UINT64_MAX, greatest = 0;
        for (int i = 0; i < SPENDERS; i++) {
            least = min_of(least, publishes_of(spenders[i]) - began[i]);
            greatest = max_of(greatest, publishes_of(spenders[i]) - began[i]);
        }
        ck_assert_uint_le(greatest - least, most);
    }
    harness_run(&harness);
    ck_assert_uint_eq(*published, SPENDERS * LABOUR_PUBLISHES + TURNS);
    for (int i = 0; i < SPENDERS; i++)
        ck_assert(!spenders[i]->connection->held);
    buf_release(&out);
}
END_TEST

/* Who has just what one turn allows spends no more turns by sending the rest later. */
START_TEST(spenders_are_known_when_they_come_again)
{
    const uint64_t most = TURN_STEPS_MAX / LABOUR_BINDINGS + 1;
    const uint64_t *published = &harness.broker.counters.messages.published;
    struct buf out = BUF_EMPTY;

    start_spenders();
    for (int round = 0; round < 3; round++) {
        put_labour(&out, 0, (int)most);
        for (int i = 0; i < SPENDERS; i++) /* the last one is first, and the first one last */
            memory_transport_send(&spenders[round % 2 == 0 ? i : SPENDERS - 1 - i]->memory,
                                  buf_slice(&out));
        buf_clear(&out);
        for (int turn = 0; turn < SPENDERS; turn++) {
            const uint64_t before = *published;
            loop_turn(&harness.loop, 0);
            if (round > 0)
                ck_assert_uint_eq(*published - before, most);
        }
        harness_run(&harness);
        ck_assert_uint_eq(*published, (uint64_t)(round + 1) * SPENDERS * most);
    }
    buf_release(&out);
}
END_TEST

START_TEST(spenders_are_forgotten)
{
    struct buf out = BUF_EMPTY, plain = BUF_EMPTY;

    start_spenders();
    const struct transport *transport = &spenders[0]->connection->transport;
    const struct transport_events *const events = transport->events;
    put_labour(&out, 0, LABOUR_PUBLISHES);
    put_publish(&plain, "", "p", "m", &(struct sent){0});
    for (int times = 0; times < 2; times++) {
        peer_send_bytes(spenders[0], buf_slice(&out));
        harness_advance(&harness, 59000);
        peer_send_bytes(spenders[0], buf_slice(&plain));
        ck_assert_ptr_ne(events, transport->events);
        harness_advance(&harness, 1000);
        peer_send_bytes(spenders[0], buf_slice(&plain));
        ck_assert_ptr_eq(events, transport->events);
    }
    buf_release(&out);
    buf_release(&plain);
    ck_assert_uint_eq(count_ready(peer, "p"), 4);
}
END_TEST

/* One who never overspends, as it is read in portions that cost a little less than a turn has, and
 * newcomers in every turn, are in nobody's way. */
START_TEST(spenders_have_whole_turns)
{
    enum { TURNS = 20 };
    const uint64_t most = TURN_STEPS_MAX / LABOUR_BINDINGS + 1;
    struct peer *fresh[TURNS];
    struct buf out = BUF_EMPTY;

    start_spenders();
    for (int i = 0; i < TURNS; i++)
        fresh[i] = peer_open_channel(&harness);
    struct peer *const paced = spenders[0], *const honest = spenders[1];
    put_labour(&out, 0, (int)most - 2);
    paced->memory.give_max = buf_size(&out);
    for (int i = 0; i < TURNS + 2; i++)
        memory_transport_send(&paced->memory, buf_slice(&out));
    buf_clear(&out);
    put_labour(&out, 0, (TURNS + 2) * (int)most);
    memory_transport_send(&honest->memory, buf_slice(&out));
    buf_clear(&out);
    put_labour(&out, 0, (int)most);
    loop_turn(&harness.loop, 0);
    const uint64_t before = publishes_of(honest);
    for (int i = 0; i < TURNS; i++) {
        memory_transport_send(&fresh[i]->memory, buf_slice(&out));
        const uint64_t began = publishes_of(paced);
        loop_turn(&harness.loop, 0);
        if (i == 0)
            ck_assert_uint_eq(began + most - 2, publishes_of(paced)); /* before those who rest */
    }
    /* Two other whole turns come before each of its own: a newcomer's, and the paced one's. */
    ck_assert_uint_ge(publishes_of(honest) - before, TURNS / 3 * most);
    harness_run(&harness);
    buf_release(&out);
}
END_TEST

/* Transactions of many channels, committed in one turn; and what one of them alone may do. */
START_TEST(turns_are_shared_by_transactions) /* GHSA-6chv-gv3h-cvcj */
{
    enum { CHANNELS = 10 };
    const struct amqp_client_message message = {
        .exchange = SLICE("x"), .properties = slice_of("\0\0", 2), .body = SLICE("m")};
    const uint64_t *published = &harness.broker.counters.messages.published;
    const uint64_t each = TURN_STEPS_MAX / LABOUR_BINDINGS / 4;
    struct buf out = BUF_EMPTY;

    start_labour(0);
    harness.broker.limits.routing_steps_max = TURN_STEPS_MAX;
    for (uint16_t channel = 1; channel <= CHANNELS; channel++) {
        if (channel > 1)
            peer_call(other, channel, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN},
                      AMQP_CHANNEL_OPEN_OK);
        peer_call(other, channel, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
        for (uint64_t i = 0; i < each; i++)
            amqp_client_publish(&out, channel, 131072, &message);
    }
    peer_send_bytes(other, buf_slice(&out));
    buf_clear(&out);
    for (uint16_t channel = 1; channel <= CHANNELS; channel++)
        amqp_method_encode(&out, channel, &(struct amqp_method){.id = AMQP_TX_COMMIT});
    memory_transport_send(&other->memory, buf_slice(&out));
    buf_clear(&out);
    for (uint64_t before = *published; before < CHANNELS * each; before = *published) {
        loop_turn(&harness.loop, 0);
        ck_assert_uint_le(*published - before, 3 * each); /* the way of each is looked for twice */
    }
    for (uint16_t channel = 1; channel <= CHANNELS; channel++)
        peer_expect(other, channel, AMQP_TX_COMMIT_OK);
    put_labour(&out, 0, 4 * (int)each + 1);
    peer_send_bytes(other, buf_slice(&out));
    buf_release(&out);
    peer_send(other, 1, &(struct amqp_method){.id = AMQP_TX_COMMIT});
    expect_refusal(other, TOO_MUCH);
}
END_TEST

/* A binding that brings messages is as good as so many publishes. */
START_TEST(turns_are_shared_by_bindings) /* GHSA-6chv-gv3h-cvcj */
{
    enum { REMEMBERED = 1000, BINDINGS = 100 };
    const uint64_t *given = &harness.broker.counters.given;
    struct buf out = BUF_EMPTY, arguments = BUF_EMPTY;
    char key[16];

    start(NULL);
    declare_queue(peer, "q", false, NULL);
    peer_call(peer, 1,
              &(struct amqp_method){
                  .id = AMQP_EXCHANGE_DECLARE,
                  .exchange_declare = {.exchange = SLICE("x"),
                                       .type = SLICE("x-recent-history"),
                                       .arguments = arguments_of(&arguments,
                                                                 "x-recent-history-length=I1000")}},
              AMQP_EXCHANGE_DECLARE_OK);
    for (int i = 0; i < REMEMBERED; i++)
        put_publish(&out, "x", "", "m", &(struct sent){0});
    peer_send_bytes(other, buf_slice(&out));
    buf_clear(&out);
    for (int i = 0; i < BINDINGS; i++) {
        snprintf(key, sizeof(key), "%d", i);
        amqp_method_encode(&out, 1,
                           &(struct amqp_method){.id = AMQP_QUEUE_BIND,
                                                 .queue_bind = {.queue = SLICE("q"),
                                                                .exchange = SLICE("x"),
                                                                .routing_key = slice_of_string(key),
                                                                .no_wait = true}});
    }
    memory_transport_send(&other->memory, buf_slice(&out));
    for (uint64_t before = *given; before < REMEMBERED * BINDINGS; before = *given) {
        loop_turn(&harness.loop, 0);
        ck_assert_uint_le(*given - before, TURN_STEPS_MAX / ROUTE_QUEUE_STEPS + REMEMBERED);
    }
    harness_run(&harness);
    ck_assert(!other->connection->held);
    ck_assert_uint_eq(count_ready(peer, "q"), REMEMBERED * BINDINGS);
    buf_release(&out);
    buf_release(&arguments);
}
END_TEST

/* Each of them reads the headers again. */
START_TEST(exchanges_on_the_way) /* GHSA-6chv-gv3h-cvcj */
{
    char name[16], next[16];
    struct buf headers = BUF_EMPTY;

    start(NULL);
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof(name), "x%d", i);
        snprintf(next, sizeof(next), "x%d", i - 1);
        declare_exchange(peer, name, "headers");
        if (i > 0) {
            bind_exchange(peer, name, next, "");
            peer_expect(peer, 1, AMQP_EXCHANGE_BIND_OK);
        }
    }
    for (int i = 0; i < 60; i++) {
        snprintf(name, sizeof(name), "%sh%02d=I1", i == 0 ? "" : ",", i);
        buf_append(&headers, slice_of_string(name));
    }
    buf_append(&headers, slice_of("", 1));
    harness.broker.limits.routing_steps_max = 14000;
    publish_to(other, "x0", "", (const char *)headers.data);
    peer_expect_nothing(other);
    harness.broker.limits.routing_steps_max = 13500;
    publish_to(other, "x0", "", (const char *)headers.data);
    expect_refusal(other, TOO_MUCH);
    buf_release(&headers);
}
END_TEST

START_TEST(who_rests_may_be_closed)
{
    struct buf out = BUF_EMPTY;

    start(NULL);
    bind_queues(100);
    for (int i = 0; i < 1000; i++)
        put_publish(&out, "amq.fanout", "", "m", &(struct sent){0});
    memory_transport_send(&other->memory, buf_slice(&out));
    buf_release(&out);
    loop_turn(&harness.loop, 0);
    ck_assert(other->connection->held);
    connection_force_close(other->connection, "enough");
    harness_run(&harness);
    peer_expect_close(other, 0, 320, "CONNECTION_FORCED - enough");
}
END_TEST

/* ---- before and after the login, by address ---- */

START_TEST(handshakes_of_an_address) /* CVE-2026-57220 */
{
    struct service_limits limits = harness_limits;
    struct peer *slow[3];

    limits.handshake_max_per_address = 3;
    start(&limits);
    struct peer *far = peer_new(&harness, true);
    for (int i = 0; i < 3; i++)
        slow[i] = peer_new(&harness, false);
    struct peer *honest = peer_open(&harness); /* though there are as many as may be */
    peer_expect_end(slow[0]);
    peer_expect_nothing(slow[1]);
    peer_expect_nothing(far);
    peer_free(&honest);
    honest = peer_open(&harness); /* one place was free again */
    peer_expect_nothing(slow[1]);
    peer_expect_nothing(peer);
}
END_TEST

/* Without a descriptor left: one of the address that has most of them. */
START_TEST(handshakes_make_way)
{
    struct peer *slow[6];

    start(NULL);
    harness.service.connection_room = 9;
    struct peer *far = peer_new(&harness, true);
    for (size_t i = 0; i < countof(slow); i++)
        slow[i] = peer_new(&harness, false);
    for (size_t i = 0; i < countof(slow); i++) {
        ck_assert(!service_has_room(&harness.service));
        ck_assert(service_make_way(&harness.service));
        ck_assert(service_has_room(&harness.service)); /* at once */
        harness_run(&harness);
        peer_expect_end(i < 5 ? slow[i] : far);
        peer_open(&harness);
    }
    ck_assert_uint_eq(harness_logged(&harness, "file descriptor limit alarm"), 0);
    ck_assert(service_make_way(&harness.service));
    peer_open(&harness);
    ck_assert(!service_make_way(&harness.service)); /* all are open */
    ck_assert_uint_eq(harness_logged(&harness, "file descriptor limit alarm set"), 1);
    peer_free(&other);
    ck_assert(service_has_room(&harness.service));
    harness.service.proxied_count = 1;
    ck_assert(!service_has_room(&harness.service));
    ck_assert_uint_eq(harness_logged(&harness, "file descriptor limit alarm cleared"), 1);
}
END_TEST

/* ---- after the end ---- */

static void make_mistake(struct peer *from)
{
    peer_send(from, 0, &(struct amqp_method){.id = AMQP_CONNECTION_OPEN}); /* it is open */
    peer_expect_close(from, 0, 504,
                      "CHANNEL_ERROR - unexpected method in connection state running");
}

static void say_goodbye(struct peer *from)
{
    peer_call(from, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE},
              AMQP_CONNECTION_CLOSE_OK);
}

static void (*const ends[])(struct peer *from) = {make_mistake, say_goodbye};

static void start_with_one(void)
{
    start(NULL);
    harness_add_user(&harness, "one", "secret")->limits.connection_max = 1;
    harness_permit(&harness, "one", "/", ".*", ".*", ".*");
}

static struct peer *open_one(void)
{
    return peer_open_as(&harness, "one", "secret", "/");
}

static size_t count_sockets(void)
{
    return harness.service.connection_count - harness.service.closed_count;
}

/* Who may have one connection has one, again and again, and those that it has ended are few. */
START_TEST(connections_that_have_ended)
{
    struct peer *ended[ADDRESS_ENDINGS_MAX + 50];

    start_with_one();
    struct peer *far = peer_log_in(&harness, "one", "secret", "/", true);
    peer_expect(far, 0, AMQP_CONNECTION_TUNE);
    peer_expect(far, 0, AMQP_CONNECTION_OPEN_OK);
    ends[_i](far);
    const size_t before = count_sockets();
    for (size_t i = 0; i < countof(ended); i++) {
        ended[i] = open_one(); /* is never refused */
        ck_assert_uint_le(count_sockets(), before + ADDRESS_ENDINGS_MAX);
        ends[_i](ended[i]);
    }
    ck_assert_uint_eq(count_sockets(), before + ADDRESS_ENDINGS_MAX);
    for (size_t i = 0; i < countof(ended); i++)
        if (i < 50)
            peer_expect_end(ended[i]); /* the oldest */
        else
            peer_expect_nothing(ended[i]);
    peer_expect_nothing(far);
    peer_expect_nothing(peer);
    harness_advance(&harness, 30100);
    ck_assert_uint_eq(count_sockets(), 2);
}
END_TEST

/* However many are sent away at once, each may be told so: they are no more than were open. */
START_TEST(a_crowd_is_told_to_go)
{
    struct peer *crowd[ADDRESS_ENDINGS_MAX + 50];

    start(NULL);
    for (size_t i = 0; i < countof(crowd); i++)
        crowd[i] = peer_open(&harness);
    for (size_t i = 0; i < countof(crowd); i++)
        connection_force_close(crowd[i]->connection, "enough");
    harness_run(&harness);
    for (size_t i = 0; i < countof(crowd); i++) {
        peer_expect_close(crowd[i], 0, 320, "CONNECTION_FORCED - enough");
        peer_expect_nothing(crowd[i]);
    }
    for (size_t i = 0; i < countof(crowd); i++) {
        peer_open(&harness);
        if (i <= 50) /* as many as have ended beyond the limit, and one at a time */
            peer_expect_end(crowd[i]);
    }
}
END_TEST

/* Without a descriptor left: before those who are in their handshake, where they came from. */
START_TEST(who_has_ended_makes_way)
{
    start_with_one();
    struct peer *slow = peer_new(&harness, false);
    struct peer *first = open_one();
    ends[_i](first);
    struct peer *second = open_one();
    ends[_i](second);
    harness.service.connection_room = count_sockets();
    service_look_at_room(&harness.service);
    ck_assert(!service_has_room(&harness.service));
    struct peer *const gone[] = {first, second, slow};
    for (size_t i = 0; i < countof(gone); i++) {
        peer_expect_nothing(gone[i]);
        ck_assert(service_make_way(&harness.service));
        peer_expect_end(gone[i]);
    }
    ck_assert(!service_make_way(&harness.service));
    ck_assert_uint_eq(harness_logged(&harness, "file descriptor limit alarm"), 0);
    open_one();
}
END_TEST

/* A peer that does not read holds no more than the frame that it is in the middle of, and its last
 * word; one that is slow gets both. */
START_TEST(output_of_who_has_ended)
{
    enum { FRAME_MAX = 131072, SIZE = 2 << 20, MESSAGES = 5 };
    char *body = xmalloc(SIZE + 1);
    size_t seen = 0;
    struct amqp_frame frame;

    start_with_one();
    memset(body, 'x', SIZE);
    body[SIZE] = 0;
    declare_queue(peer, "q", false, NULL);
    struct peer *slow = open_one();
    open_channel(slow);
    consume(slow, "q", "c", true, NULL);
    memory_transport_take(&slow->memory, 100000);
    for (int i = 0; i < MESSAGES; i++)
        publish(peer, "q", body);
    ck_assert_uint_gt(transport_output_size(&slow->connection->transport), SIZE / 2);
    if (_i == 0)
        peer_send(slow, 0, &(struct amqp_method){.id = AMQP_CONNECTION_OPEN});
    else
        peer_send(slow, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE});
    ck_assert_uint_lt(transport_output_size(&slow->connection->transport), 2 * FRAME_MAX);
    ck_assert_uint_eq(harness.broker.counters.connections_closed, 0);
    open_one();

    memory_transport_take(&slow->memory, SIZE_MAX);
    harness_run(&harness);
    while (peer_next(slow, &frame) && frame.channel == 1)
        seen += frame.payload.size;
    ck_assert_uint_gt(seen, 100000 - 1000);
    ck_assert_uint_lt(seen, 100000 + FRAME_MAX);
    ck_assert_uint_eq(frame.channel, 0);
    ck_assert_uint_eq(amqp_get_u32(frame.payload.data),
                      _i == 0 ? AMQP_CONNECTION_CLOSE : AMQP_CONNECTION_CLOSE_OK);
    peer_expect_nothing(slow);
    free(body);
}
END_TEST

/* Whom the broker sends away is innocent: it may read all of what is on its way to it. */
START_TEST(output_of_who_is_sent_away)
{
    char body[10001] = {0};

    start_with_one();
    memset(body, 'x', sizeof(body) - 1);
    declare_queue(peer, "q", false, NULL);
    struct peer *slow = open_one();
    open_channel(slow);
    consume(slow, "q", "c", true, NULL);
    memory_transport_take(&slow->memory, 15000);
    for (int i = 0; i < 20; i++)
        publish(peer, "q", body);
    connection_force_close(slow->connection, "enough");
    memory_transport_take(&slow->memory, SIZE_MAX);
    harness_run(&harness);
    for (int i = 0; i < 20; i++)
        expect_delivery(slow, body);
    peer_expect_close(slow, 0, 320, "CONNECTION_FORCED - enough");
}
END_TEST

/* A close that crosses ours is answered, once. */
START_TEST(closes_of_who_has_ended)
{
    struct buf closes = BUF_EMPTY;

    start(NULL);
    struct peer *early = peer_new(&harness, false);
    struct buf out = BUF_EMPTY;
    amqp_client_protocol_header(&out);
    amqp_method_encode(&out, 0, &(struct amqp_method){.id = AMQP_CONNECTION_OPEN});
    peer_send_bytes(early, buf_slice(&out));
    peer_expect(early, 0, AMQP_CONNECTION_START);
    peer_expect_close(early, 0, 504, "*");
    buf_release(&out);
    make_mistake(other);
    for (int i = 0; i < 10000; i++)
        amqp_method_encode(&closes, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE});
    struct peer *const peers[] = {early, other};
    for (size_t i = 0; i < countof(peers); i++) {
        memory_transport_take(&peers[i]->memory, 0);
        peer_send_bytes(peers[i], buf_slice(&closes));
        ck_assert_uint_lt(transport_output_size(&peers[i]->connection->transport), 100);
        memory_transport_take(&peers[i]->memory, SIZE_MAX);
        harness_run(&harness);
        peer_expect(peers[i], 0, AMQP_CONNECTION_CLOSE_OK);
        peer_expect_nothing(peers[i]);
    }
    peer_send(early, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE_OK});
    peer_expect_end(early);
    buf_release(&closes);
}
END_TEST

/* Those who have not opened anything, or have had their last word, are none. */
START_TEST(connections_of_an_address)
{
    struct service_limits limits = harness_limits;

    limits.connection_max_per_address = 3;
    limits.connection_max = 5;
    start(&limits);
    for (int i = 0; i < 5; i++)
        peer_new(&harness, false);
    struct peer *closing = peer_open(&harness);
    peer_call(closing, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE},
              AMQP_CONNECTION_CLOSE_OK);
    harness_add_user(&harness, "far", "secret");
    harness_permit(&harness, "far", "/", "", "", "");
    struct peer *third = peer_open(&harness);
    struct peer *fourth = peer_log_in(&harness, "guest", "guest", "/", false);
    peer_expect(fourth, 0, AMQP_CONNECTION_TUNE);
    peer_expect_close(fourth, 0, 530,
                      "NOT_ALLOWED - connection refused: limit of connections from one address (3) "
                      "is reached (connection_max_per_address)");
    struct peer *far = peer_log_in(&harness, "far", "secret", "/", true);
    peer_expect(far, 0, AMQP_CONNECTION_TUNE);
    peer_expect(far, 0, AMQP_CONNECTION_OPEN_OK);
    peer_free(&fourth);
    peer_free(&third);
    peer_open(&harness);
}
END_TEST

/* More than a frame is not taken from who has not logged in. */
START_TEST(input_before_the_login) /* CVE-2026-57220, CVE-2017-7651 */
{
    static const uint8_t head[] = {1, 0, 0, 0, 0, 0x1f, 0xf8}; /* all but the end of a long frame */
    static uint8_t many[1 << 20];

    start(NULL);
    struct peer *slow = peer_new(&harness, false);
    amqp_client_protocol_header(&slow->memory.sent);
    memory_transport_send(&slow->memory, slice_of(head, sizeof(head)));
    memory_transport_send(&slow->memory, slice_of(many, 0x1ff7));
    harness_run(&harness);
    peer_expect(slow, 0, AMQP_CONNECTION_START);
    ck_assert_uint_le(buf_size(&slow->connection->transport.input), 8192 + 8);

    struct peer *fast = peer_new(&harness, false);
    amqp_client_protocol_header(&fast->memory.sent);
    amqp_client_start_ok(&fast->memory.sent, SLICE("guest"), SLICE("wrong"), SLICE("test"));
    memory_transport_send(&fast->memory, slice_of(many, sizeof(many)));
    loop_turn(&harness.loop, 0);
    loop_turn(&harness.loop, 0);
    ck_assert_uint_le(buf_size(&fast->connection->transport.input), 8192 + 8);
    ck_assert_uint_gt(buf_size(&fast->memory.sent), sizeof(many) - 20000);
}
END_TEST

static void fail_login(uint64_t delay_ms)
{
    struct peer *guesser = peer_log_in(&harness, "guest", "wrong", "/", false);

    if (delay_ms > 0) {
        harness_advance(&harness, delay_ms - 100);
        peer_expect_nothing(guesser);
        harness_advance(&harness, 100);
    }
    peer_expect_close(guesser, 0, 403, "ACCESS_REFUSED - Login was refused*");
    peer_free(&guesser);
}

static void start_with_delays(void)
{
    struct service_limits limits = harness_limits;

    limits.login_delay_max_ms = 3000;
    start(&limits);
    harness_add_user(&harness, "weasel", "secret");
}

START_TEST(logins_of_an_address_wait_after_failures)
{
    static const uint64_t delays_ms[] = {0, 100, 200, 400, 800, 1600, 3000, 3000};

    start_with_delays();
    for (size_t i = 0; i < countof(delays_ms); i++)
        fail_login(delays_ms[i]);
    struct peer *far = peer_log_in(&harness, "guest", "guest", "/", true); /* not from there */
    peer_expect_close(far, 0, 403, "ACCESS_REFUSED*");
    struct peer *regular = peer_open(&harness); /* guest has logged in from there before */
    peer_free(&regular);
    struct peer *honest = peer_log_in(&harness, "weasel", "secret", "/", false);
    harness_advance(&harness, 2900);
    peer_expect_nothing(honest);
    harness_advance(&harness, 100);
    peer_expect(honest, 0, AMQP_CONNECTION_TUNE);
    harness_advance(&harness, 60000);
    fail_login(0); /* it is forgotten */
}
END_TEST

/* He takes no turn from those who stay. */
START_TEST(who_hangs_up_does_not_wait)
{
    start_with_delays();
    for (int i = 0; i < 2; i++)
        fail_login(i == 0 ? 0 : 100);
    struct peer *guesser = peer_log_in(&harness, "guest", "wrong", "/", false);
    struct peer *honest = peer_log_in(&harness, "weasel", "secret", "/", false);
    ck_assert_uint_eq(harness.service.connection_count, 4);
    memory_transport_end(&guesser->memory);
    harness_run(&harness);
    peer_expect_end(guesser);
    ck_assert_uint_eq(harness.service.connection_count, 3);
    harness_advance(&harness, 200);
    peer_expect(honest, 0, AMQP_CONNECTION_TUNE);
}
END_TEST

START_TEST(too_many_logins_of_an_address)
{
    char password[16];

    start_with_delays();
    fail_login(0);
    for (int i = 0; i <= 64; i++) {
        snprintf(password, sizeof(password), "%d", i);
        struct peer *guesser = peer_log_in(&harness, "guest", password, "/", false);
        if (i < 64)
            peer_expect_nothing(guesser);
        else
            peer_expect_close(guesser, 0, 506,
                              "RESOURCE_ERROR - too many other logins from this address wait for "
                              "their turn");
    }
}
END_TEST

/* ---- the table of addresses by itself ---- */

static struct clock table_clock;
static struct addresses addresses;

static void visit(const char *host, bool fail)
{
    struct endpoint peer_address = {.port = 1};
    struct visitor visitor;

    snprintf(peer_address.host, sizeof(peer_address.host), "%s", host);
    visitor_enter(&visitor, &addresses, &peer_address);
    if (fail)
        address_login_failed(visitor.address);
    visitor_leave(&visitor);
}

static uint64_t delay_for(const char *host)
{
    struct endpoint peer_address = {.port = 1};
    struct visitor visitor;

    snprintf(peer_address.host, sizeof(peer_address.host), "%s", host);
    visitor_enter(&visitor, &addresses, &peer_address);
    address_login_failed(visitor.address);
    const uint64_t delay = address_login_ms(visitor.address, 100000) - table_clock.now_ms;
    visitor_leave(&visitor);
    return delay;
}

START_TEST(addresses_are_remembered_for_their_failures)
{
    char host[32];

    table_clock.now_ms = 1000;
    addresses_init(&addresses, &table_clock);
    visit("192.0.2.1", false);
    ck_assert_uint_eq(addresses.by_key.count, 0);
    visit("192.0.2.1", true);
    ck_assert_uint_eq(addresses.by_key.count, 1);
    ck_assert_uint_eq(delay_for("192.0.2.1"), 200);
    ck_assert_uint_eq(delay_for("192.0.2.2"), 100);
    visit("192.0.2.1", false); /* nothing is forgotten for it */
    ck_assert_uint_eq(delay_for("192.0.2.1"), 400);
    table_clock.now_ms += 60000;
    ck_assert_uint_eq(delay_for("192.0.2.1"), 100);

    for (int i = 0; i < 10000; i++) {
        snprintf(host, sizeof(host), "198.18.%d.%d", i / 256, i % 256);
        visit(host, true);
    }
    ck_assert_uint_eq(addresses.by_key.count, 4096);
    addresses_release(&addresses);
}
END_TEST

static void enter_from(const char *host, struct visitor *visitors, size_t count)
{
    struct endpoint from = {.port = 1};

    snprintf(from.host, sizeof(from.host), "%s", host);
    for (size_t i = 0; i < count; i++)
        visitor_enter(&visitors[i], &addresses, &from);
}

START_TEST(the_address_with_most_handshakes)
{
    struct visitor one[1], some[8], many[25];

    addresses_init(&addresses, &table_clock);
    ck_assert_ptr_null(addresses_oldest(&addresses));
    enter_from("192.0.2.1", one, countof(one));
    enter_from("192.0.2.2", some, countof(some));
    enter_from("192.0.2.3", many, countof(many));
    for (size_t i = 0; i < 10; i++) {
        ck_assert_ptr_eq(addresses_oldest(&addresses), &many[i]);
        if (i % 2 == 0)
            visitor_open(&many[i]);
        else
            visitor_leave(&many[i]);
    }
    ck_assert_ptr_eq(addresses_oldest(&addresses), &some[0]); /* 8 are about as many as 15 */
    for (size_t i = 0; i < countof(many); i++)
        if (many[i].address != NULL)
            visitor_leave(&many[i]);
    for (size_t i = 0; i < countof(some); i++)
        visitor_leave(&some[i]);
    ck_assert_ptr_eq(addresses_oldest(&addresses), &one[0]);
    visitor_leave(&one[0]);
    ck_assert_ptr_null(addresses_oldest(&addresses));
    addresses_release(&addresses);
}
END_TEST

START_TEST(those_who_end_go_first)
{
    struct visitor some[3], many[9];

    addresses_init(&addresses, &table_clock);
    enter_from("192.0.2.1", some, countof(some));
    enter_from("192.0.2.2", many, countof(many));
    for (size_t i = 5; i < 9; i++)
        visitor_open(&many[i]);
    static const size_t order[] = {7, 5, 8, 6, 0};
    for (size_t i = 0; i < 4; i++)
        visitor_end(&many[order[i]]);
    visitor_end(&many[4]); /* has never opened anything */
    ck_assert_uint_eq(many[0].address->ending_count, 4);
    ck_assert_uint_eq(many[0].address->handshake_count, 5);
    ck_assert_uint_eq(addresses.yielding_count, 12);
    for (size_t i = 0; i < countof(order); i++) {
        ck_assert_ptr_eq(addresses_oldest(&addresses), &many[order[i]]);
        visitor_leave(&many[order[i]]);
    }
    for (size_t i = 0; i < countof(some); i++)
        visitor_leave(&some[i]);
    for (size_t i = 1; i < 5; i++) {
        ck_assert_ptr_eq(addresses_oldest(&addresses), &many[i]);
        visitor_leave(&many[i]);
    }
    ck_assert_uint_eq(addresses.yielding_count, 0);
    addresses_release(&addresses);
}
END_TEST

START_TEST(sites_have_one_address)
{
    table_clock.now_ms = 1000;
    addresses_init(&addresses, &table_clock);
    visit("2001:db8:1:2::1", true);
    ck_assert_uint_eq(delay_for("2001:db8:1:2:ffff:ffff:ffff:ffff"), 200);
    ck_assert_uint_eq(delay_for("2001:db8:1:3::1"), 100);
    ck_assert_uint_eq(delay_for("::1"), 100);
    ck_assert_uint_eq(delay_for("?"), 100);
    addresses_release(&addresses);
}
END_TEST

static Suite *peer_limits_suite(void)
{
    Suite *suite = suite_create("peer_limits");
    TCase *tests = tcase_create("peer_limits");
    TCase *tables = tcase_create("addresses");

    tcase_add_checked_fixture(tests, NULL, tear_down);
    tcase_add_test(tests, consumers_of_a_channel);
    tcase_add_test(tests, consumers_in_all);
    tcase_add_loop_test(tests, deliveries_that_nobody_acknowledges, 0, 2);
    tcase_add_loop_test(tests, a_prefetch_below_it_counts, 0, 2);
    tcase_add_test(tests, who_needs_no_acknowledgement_gets_all);
    tcase_add_test(tests, gets_that_nobody_acknowledges);
    tcase_add_loop_test(tests, octets_that_nobody_acknowledges, 0, 2);
    tcase_add_test(tests, octets_of_all_channels_of_a_connection);
    tcase_add_test(tests, a_single_delivery_may_always_be_left);
    tcase_add_test(tests, octets_of_a_transaction);
    tcase_add_test(tests, messages_that_are_begun);
    tcase_add_test(tests, what_has_not_come_takes_no_memory);
    tcase_add_test(tests, a_single_message_may_always_come);
    tcase_add_loop_test(tests, no_size_is_small_by_overflow, 0, 4);
    tcase_add_test(tests, transactions);
    tcase_add_test(tests, bindings_of_a_queue);
    tcase_add_test(tests, bindings_of_an_exchange);
    tcase_add_test(tests, bindings_in_all);
    tcase_add_test(tests, queues_and_exchanges_in_all);
    tcase_add_test(tests, memory_of_what_is_declared);
    tcase_add_test(tests, memory_of_what_is_made);
    tcase_add_test(tests, turns_are_shared_by_declarations);
    tcase_add_test(tests, what_is_deleted_makes_room);
    tcase_add_test(tests, what_was_declared_counts_after_a_restart);
    tcase_add_loop_test(tests, matching, 0, countof(routes));
    tcase_add_test(tests, queues_of_a_message);
    tcase_add_test(tests, exchanges_of_a_message);
    tcase_add_test(tests, work_of_a_transaction);
    tcase_add_test(tests, a_refused_route_is_not_confirmed);
    tcase_add_test(tests, turns_are_shared);
    tcase_add_loop_test(tests, turns_are_shared_by_all_types, 0, countof(labours));
    tcase_add_test(tests, who_spends_nothing_does_not_rest);
    tcase_add_test(tests, what_is_recovered_counts);
    tcase_add_test(tests, spenders_have_even_shares);
    tcase_add_test(tests, spenders_are_known_when_they_come_again);
    tcase_add_test(tests, spenders_are_forgotten);
    tcase_add_test(tests, spenders_have_whole_turns);
    tcase_add_test(tests, turns_are_shared_by_transactions);
    tcase_add_test(tests, turns_are_shared_by_bindings);
    tcase_add_test(tests, exchanges_on_the_way);
    tcase_add_test(tests, who_rests_may_be_closed);
    tcase_add_test(tests, handshakes_of_an_address);
    tcase_add_test(tests, handshakes_make_way);
    tcase_add_loop_test(tests, connections_that_have_ended, 0, countof(ends));
    tcase_add_test(tests, a_crowd_is_told_to_go);
    tcase_add_loop_test(tests, who_has_ended_makes_way, 0, countof(ends));
    tcase_add_loop_test(tests, output_of_who_has_ended, 0, countof(ends));
    tcase_add_test(tests, output_of_who_is_sent_away);
    tcase_add_test(tests, closes_of_who_has_ended);
    tcase_add_test(tests, connections_of_an_address);
    tcase_add_test(tests, input_before_the_login);
    tcase_add_test(tests, logins_of_an_address_wait_after_failures);
    tcase_add_test(tests, who_hangs_up_does_not_wait);
    tcase_add_test(tests, too_many_logins_of_an_address);
    suite_add_tcase(suite, tests);
    tcase_add_test(tables, addresses_are_remembered_for_their_failures);
    tcase_add_test(tables, the_address_with_most_handshakes);
    tcase_add_test(tables, those_who_end_go_first);
    tcase_add_test(tables, sites_have_one_address);
    suite_add_tcase(suite, tables);
    return suite;
}

int main(void)
{
    return unit_main(peer_limits_suite());
}
