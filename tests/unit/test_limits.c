/* Length limits (11.5), their refusals and confirms (9.11, 9.12), and limits of what a consumer may
 * do: deliveries (10.19) and time (10.20). */
#include "amqp/client.h"
#include "session/channel.h"
#include "store/memory.h"
#include "tests/lib/queue_client.h"
#include "tests/lib/unit.h"

static struct harness harness;
static struct peer *peer, *other;

static void set_up(void)
{
    harness_init(&harness, NULL);
    peer = peer_open_channel(&harness);
    other = peer_open_channel(&harness);
}

static void tear_down(void)
{
    harness_release(&harness);
}

static void restart(bool crash)
{
    harness_restart(&harness, crash);
    harness_run(&harness);
    peer = peer_open_channel(&harness);
    other = peer_open_channel(&harness);
}

static void publish_each(const char *bodies)
{
    for (char body[2] = ""; *bodies != '\0'; bodies++) {
        body[0] = *bodies;
        publish(peer, "q", body);
    }
}

static void get_each(const char *bodies)
{
    for (char body[2] = ""; *bodies != '\0'; bodies++) {
        body[0] = *bodies;
        get_one(peer, "q", body);
    }
    get_nothing(peer, "q");
}

/* ---- 11.5: which messages stay ---- */

static const struct {
    const char *arguments, *published, *left;
} limit_cases[] = {
    {NULL, "abcd", "abcd"},
    {"x-max-length=I3", "abcd", "bcd"},
    {"x-max-length=I3", "abc", "abc"},
    {"x-max-length=I0", "abc", ""},
    {"x-max-length=I3,x-overflow=Sdrop-head", "abcdef", "def"},
    {"x-max-length=I3,x-overflow=Sreject-publish", "abcdef", "abc"},
    {"x-max-length=I3,x-overflow=Sreject-publish-dlx", "abcdef", "abc"},
    {"x-max-length=I0,x-overflow=Sreject-publish", "ab", ""},
    {"x-max-length-bytes=I2", "abcd", "cd"},
    {"x-max-length-bytes=I2,x-overflow=Sreject-publish", "abcd", "ab"},
    {"x-max-length=I3,x-max-length-bytes=I2", "abcd", "cd"},
    {"x-max-length=I2,x-max-length-bytes=I9", "abcd", "cd"},
    {"x-queue-type=Squorum,x-max-length=I3", "abcd", "bcd"},
    {"x-queue-type=Squorum,x-max-length=I3,x-overflow=Sreject-publish", "abcd", "abc"},
};

START_TEST(a_queue_keeps_to_its_limit) /* 11.5 */
{
    declare_queue(peer, "q", true, limit_cases[_i].arguments);
    publish_each(limit_cases[_i].published);
    ck_assert_uint_eq(strlen(limit_cases[_i].left), count_ready(peer, "q"));
    get_each(limit_cases[_i].left);
}
END_TEST

START_TEST(a_limit_survives_a_restart) /* 11.5, 12 */
{
    declare_queue(peer, "q", true, limit_cases[_i].arguments);
    publish_each(limit_cases[_i].published);
    restart(_i % 2 == 1);
    get_each(limit_cases[_i].left);
}
END_TEST

START_TEST(bodies_alone_count) /* 11.5 */
{
    declare_queue(peer, "q", true, "x-max-length-bytes=I10");
    publish_with(peer, "q", "0123456789",
                 &(struct sent){.persistent = true, .headers = "a=Slong enough"});
    ck_assert_uint_eq(1, count_ready(peer, "q"));
    publish(peer, "q", "");
    ck_assert_uint_eq(2, count_ready(peer, "q"));
    publish(peer, "q", "x");
    ck_assert_uint_eq(2, count_ready(peer, "q"));
    publish(peer, "q", "0123456789a"); /* alone too much */
    ck_assert_uint_eq(0, count_ready(peer, "q"));
}
END_TEST

START_TEST(unacked_messages_do_not_count) /* 11.5 */
{
    declare_queue(peer, "q", true, "x-max-length=I2");
    publish_each("abcd");
    const uint64_t c = get_unacked(peer, "q", "c"), d = get_unacked(peer, "q", "d");
    publish_each("ef");
    ck_assert_uint_eq(2, count_ready(peer, "q"));
    nack(peer, c, true); /* the head, and one too many */
    ck_assert_uint_eq(2, count_ready(peer, "q"));
    nack(peer, d, true);
    get_each("ef");
}
END_TEST

START_TEST(a_refusing_queue_drops_nothing) /* 11.5 */
{
    declare_queue(peer, "q", true, "x-max-length=I2,x-overflow=Sreject-publish");
    publish_each("ab");
    const uint64_t a = get_unacked(peer, "q", "a");
    publish_each("c");
    nack(peer, a, true);
    ck_assert_uint_eq(3, count_ready(peer, "q"));
    publish_each("d");
    get_each("abc");
}
END_TEST

/* Many in one packet, before the queue's consumer had its turn. */
START_TEST(what_a_consumer_takes_is_not_in_the_way) /* 11.5, 11.3 */
{
    static const char *const arguments[] = {
        "x-max-length=I1,x-overflow=Sreject-publish", "x-max-length=I1",
        "x-max-length-bytes=I1,x-overflow=Sreject-publish", "x-max-length=I0"};
    struct buf out = BUF_EMPTY;

    declare_queue(peer, "q", true, arguments[_i]);
    consume(other, "q", "c", false, NULL);
    for (int i = 0; i < 3; i++)
        put_publish(&out, "", "q",
                    i == 0   ? "a"
                    : i == 1 ? "b"
                             : "c",
                    &(struct sent){.persistent = true});
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    expect_delivery(other, "a");
    expect_delivery(other, "b");
    expect_delivery(other, "c");
}
END_TEST

START_TEST(the_head_may_be_on_disk) /* 11.5 */
{
    declare_queue(peer, "q", true, "x-max-length=I3");
    publish_each("abc");
    restart(_i == 1);
    publish_each("d");
    harness_run(&harness);
    ck_assert_uint_eq(3, count_ready(peer, "q"));
    get_each("bcd");
}
END_TEST

/* ---- 9.10 to 9.12: who is told ---- */

static void select_confirms(void)
{
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_CONFIRM_SELECT}, AMQP_CONFIRM_SELECT_OK);
}

static void expect_ack(uint64_t number, bool multiple)
{
    const struct amqp_method method = peer_expect(peer, 1, AMQP_BASIC_ACK);
    ck_assert_uint_eq(number, method.basic_ack.delivery_tag);
    ck_assert_int_eq(multiple, method.basic_ack.multiple);
}

static void expect_nack(uint64_t number)
{
    const struct amqp_method method = peer_expect(peer, 1, AMQP_BASIC_NACK);
    ck_assert_uint_eq(number, method.basic_nack.delivery_tag);
    ck_assert(!method.basic_nack.multiple && !method.basic_nack.requeue);
}

START_TEST(who_is_refused_gets_a_nack) /* 9.11 */
{
    declare_queue(peer, "q", true,
                  _i == 0 ? "x-max-length=I1,x-overflow=Sreject-publish"
                          : "x-max-length=I1,x-overflow=Sreject-publish-dlx");
    select_confirms();
    publish_each("a");
    expect_ack(1, false);
    publish_each("b");
    expect_nack(2);
    publish_each("c");
    expect_nack(3);
    get_one(peer, "q", "a");
    publish_each("d");
    expect_ack(4, false);
    peer_expect_nothing(peer);
}
END_TEST

START_TEST(one_refusal_of_several_queues_is_a_nack) /* 9.11 */
{
    declare_queue(peer, "q", true, "x-max-length=I0,x-overflow=Sreject-publish");
    declare_queue(peer, "r", true, NULL);
    bind_queue(peer, "q", "amq.fanout", "");
    bind_queue(peer, "r", "amq.fanout", "");
    select_confirms();
    struct buf out = BUF_EMPTY;
    put_publish(&out, "amq.fanout", "", "m", &(struct sent){.persistent = true});
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    expect_nack(1);
    peer_expect_nothing(peer);
    get_one(peer, "r", "m");
}
END_TEST

START_TEST(a_refused_message_counts_as_routed) /* 9.5, 11.5 */
{
    declare_queue(peer, "q", true, "x-max-length=I0,x-overflow=Sreject-publish");
    struct buf out = BUF_EMPTY;
    amqp_client_publish(&out, 1, 131072,
                        &(struct amqp_client_message){
                            .routing_key = SLICE("q"), .body = SLICE("m"), .mandatory = true});
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    peer_expect_nothing(peer); /* neither returned nor, without confirms, refused */
}
END_TEST

START_TEST(what_is_crowded_out_was_taken) /* 9.10, 11.5 */
{
    declare_queue(peer, "q", true, "x-max-length=I1");
    select_confirms();
    struct buf out = BUF_EMPTY;
    for (int i = 0; i < 5; i++)
        put_publish(&out, "", "q", "m", &(struct sent){.persistent = true});
    store_memory_set_auto_sync(harness.store, false);
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    peer_expect_nothing(peer); /* what took their place may still be lost */
    store_memory_sync(harness.store);
    harness_run(&harness);
    expect_ack(5, true);
    peer_expect_nothing(peer);
}
END_TEST

/* Acks and refusals of one turn: runs between refusals go out as one frame each, and no number
 * twice. */
START_TEST(runs_of_confirms_share_a_frame) /* 9.12 */
{
    struct buf out = BUF_EMPTY;

    declare_queue(peer, "full", true, "x-max-length=I0,x-overflow=Sreject-publish");
    declare_queue(peer, "q", false, NULL);
    select_confirms();
    for (int i = 0; i < 10; i++)
        put_publish(&out, "", i == 3 || i == 7 ? "full" : "q", "m", &(struct sent){0});
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    expect_ack(3, true);
    expect_nack(4);
    expect_ack(7, true);
    expect_nack(8);
    expect_ack(10, true);
    peer_expect_nothing(peer);
}
END_TEST

/* What waits for the disk holds nobody up: the others are answered one by one. */
START_TEST(whoever_is_settled_first_is_told_first) /* 9.10, 9.12 */
{
    struct buf out = BUF_EMPTY;

    declare_queue(peer, "q", true, NULL);
    declare_queue(peer, "full", true, "x-max-length=I0,x-overflow=Sreject-publish");
    select_confirms();
    store_memory_set_auto_sync(harness.store, false);
    for (int i = 0; i < 5; i++)
        put_publish(&out, "", i == 3 ? "full" : "q", "m", &(struct sent){.persistent = i % 2 == 0});
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    expect_ack(2, false);
    expect_nack(4);
    peer_expect_nothing(peer);
    store_memory_sync(harness.store);
    harness_run(&harness);
    expect_ack(5, true);
    peer_expect_nothing(peer);
}
END_TEST

START_TEST(a_transaction_is_refused_as_a_whole) /* 9.16 */
{
    declare_queue(peer, "q", true, "x-max-length=I2,x-overflow=Sreject-publish");
    declare_queue(peer, "r", true, NULL);
    peer_call(other, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
    publish(peer, "r", "consumed");
    ack(other, get_unacked(other, "r", "consumed"));
    publish(other, "r", "published");
    for (int i = 0; i < 3; i++)
        publish(other, "q", "m");
    peer_send(other, 1, &(struct amqp_method){.id = AMQP_TX_COMMIT});
    peer_expect_close(other, 1, 406, "PRECONDITION_FAILED - partial tx completion");
    ck_assert_uint_eq(0, count_ready(peer, "q"));
    get_one(peer, "r", "consumed");
    get_nothing(peer, "r");
}
END_TEST

START_TEST(a_transaction_may_fill_a_queue) /* 9.16 */
{
    declare_queue(peer, "q", true, "x-max-length=I2,x-overflow=Sreject-publish");
    peer_call(other, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
    for (int round = 0; round < 2; round++) {
        publish(other, "q", "m");
        peer_call(other, 1, &(struct amqp_method){.id = AMQP_TX_COMMIT}, AMQP_TX_COMMIT_OK);
    }
    ck_assert_uint_eq(2, count_ready(peer, "q"));
}
END_TEST

/* ---- 10.19: deliveries of quorum queues ---- */

START_TEST(failed_deliveries_are_counted) /* 10.19 */
{
    declare_queue(peer, "q", true, "x-queue-type=Squorum");
    publish_with(peer, "q", "m",
                 &(struct sent){.persistent = true, .headers = "x-delivery-count=I9"});
    uint64_t tag = get_unacked(peer, "q", "m");
    ck_assert_str_eq(headers_of(peer), "x-delivery-count=I9"); /* the publisher's own */
    nack(peer, tag, true);
    tag = get_unacked(peer, "q", "m");
    ck_assert_str_eq(header_of(peer, "x-acquired-count"), "l1");
    reject(peer, tag, true);
    get_unacked(peer, "q", "m");
    ck_assert_str_eq(headers_of(peer), "x-acquired-count=l2 x-delivery-count=l1");
    close_channel(peer);
    open_channel(peer);
    get_unacked(peer, "q", "m");
    ck_assert_str_eq(headers_of(peer), "x-acquired-count=l3 x-delivery-count=l2");
    peer_free(&peer);
    consume(other, "q", "c", false, NULL);
    expect_delivery(other, "m");
    ck_assert_str_eq(headers_of(other), "x-acquired-count=l4 x-delivery-count=l3");
    peer_call(other, 1,
              &(struct amqp_method){.id = AMQP_BASIC_RECOVER, .basic_recover.requeue = true},
              AMQP_BASIC_RECOVER_OK);
    expect_delivery(other, "m");
    ck_assert_str_eq(headers_of(other), "x-acquired-count=l5 x-delivery-count=l4");
}
END_TEST

START_TEST(classic_queues_do_not_count) /* 10.19 */
{
    declare_queue(peer, "q", true, NULL);
    publish(peer, "q", "m");
    for (int i = 0; i < 30; i++)
        reject(peer, get_unacked(peer, "q", "m"), true);
    get_one(peer, "q", "m");
    ck_assert_str_eq(headers_of(peer), "");
}
END_TEST

static const struct {
    const char *arguments;
    int deliveries; /* before it is dropped; 0: it stays */
} delivery_cases[] = {
    {"x-queue-type=Squorum", 21}, /* the default limit is 20 */
    {"x-queue-type=Squorum,x-delivery-limit=I0", 1},
    {"x-queue-type=Squorum,x-delivery-limit=I3", 4},
    {"x-queue-type=Squorum,x-delivery-limit=I-1", 0},
};

START_TEST(too_many_deliveries_are_the_end) /* 10.19, 8.11 */
{
    declare_queue(peer, "q", true, delivery_cases[_i].arguments);
    publish(peer, "q", "m");
    nack(peer, get_unacked(peer, "q", "m"), true); /* does not count */
    const int rounds = delivery_cases[_i].deliveries == 0 ? 50 : delivery_cases[_i].deliveries;
    for (int i = 0; i < rounds; i++)
        reject(peer, get_unacked(peer, "q", "m"), true);
    ck_assert_uint_eq(delivery_cases[_i].deliveries == 0 ? 1 : 0, count_ready(peer, "q"));
}
END_TEST

START_TEST(large_bodies_are_counted_as_well) /* 10.19 */
{
    enum { SIZE = 300000 };
    static char body[SIZE + 1];

    memset(body, 'x', SIZE);
    declare_queue(peer, "q", true, "x-queue-type=Squorum");
    publish(peer, "q", body);
    reject(peer, get_unacked(peer, "q", body), true);
    consume(other, "q", "c", false, NULL);
    expect_delivery(other, body);
    ck_assert_str_eq(headers_of(other), "x-acquired-count=l1 x-delivery-count=l1");
}
END_TEST

/* ---- 10.20: consumers that keep what they got ---- */

static void consume_from_quorum(void)
{
    declare_queue(peer, "q", true, "x-queue-type=Squorum,x-consumer-timeout=I5000");
    publish(peer, "q", "a");
    consume(other, "q", "slow", false, NULL);
}

START_TEST(a_slow_consumer_is_cancelled) /* 10.20, 10.10, 10.19 */
{
    consume_from_quorum();
    expect_delivery(other, "a");
    harness_advance(&harness, 4900);
    peer_expect_nothing(other);
    harness_advance(&harness, 1200);
    const struct amqp_method cancel = peer_expect(other, 1, AMQP_BASIC_CANCEL);
    ck_assert(slice_equal(cancel.basic_cancel.consumer_tag, SLICE("slow")));
    ck_assert(cancel.basic_cancel.no_wait);
    get_one(peer, "q", "a");
    ck_assert_str_eq(headers_of(peer), "x-acquired-count=l1"); /* no failed delivery */
}
END_TEST

START_TEST(a_busy_consumer_is_not) /* 10.20 */
{
    consume_from_quorum();
    for (int i = 0; i < 5; i++) {
        const uint64_t tag = expect_delivery(other, "a");
        harness_advance(&harness, 3000);
        publish(peer, "q", "a");
        ack(other, tag);
    }
    ack(other, expect_delivery(other, "a"));
    harness_advance(&harness, 20000);
    peer_expect_nothing(other);
}
END_TEST

/* The oldest counts, not the youngest; what others hold stays theirs. */
START_TEST(only_the_slow_consumer_loses_its_deliveries) /* 10.20 */
{
    consume_from_quorum();
    expect_delivery(other, "a");
    declare_queue(peer, "r", true, NULL);
    publish(peer, "r", "r");
    consume(other, "r", "patient", false, NULL);
    const uint64_t kept = expect_delivery(other, "r");
    harness_advance(&harness, 3000);
    publish(peer, "q", "b");
    expect_delivery(other, "b");
    harness_advance(&harness, 3100);
    peer_expect(other, 1, AMQP_BASIC_CANCEL);
    ck_assert_uint_eq(2, count_ready(peer, "q"));
    ck_assert_uint_eq(0, count_ready(peer, "r"));
    ack(other, kept);
    peer_expect_nothing(other);
}
END_TEST

START_TEST(who_cannot_be_cancelled_loses_the_channel) /* 10.20 */
{
    consume_from_quorum();
    expect_delivery(other, "a");
    other->connection->can_consumer_cancel_notify = false;
    harness_advance(&harness, 6100);
    peer_expect_close(other, 1, 406,
                      "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. "
                      "Timeout value used: 5000 ms. This timeout value can be configured, see "
                      "consumers doc guide to learn more");
    get_one(peer, "q", "a");
}
END_TEST

/* What it was to be told comes first: after channel.close there is nothing more (5.6). */
START_TEST(the_channel_is_lost_behind_a_reply_that_waits) /* 10.20 */
{
    consume_from_quorum();
    expect_delivery(other, "a");
    other->connection->can_consumer_cancel_notify = false;
    harness_advance(&harness, 3000);
    store_memory_set_auto_sync(harness.store, false);
    peer_send(other, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                                    .queue_declare = {.queue = SLICE("r"), .durable = true}});
    harness_advance(&harness, 3100);
    peer_expect_nothing(other);
    store_memory_set_auto_sync(harness.store, true);
    harness_run(&harness);
    peer_expect(other, 1, AMQP_QUEUE_DECLARE_OK);
    peer_expect_close(other, 1, 406, "PRECONDITION_FAILED - delivery acknowledgement*");
    peer_expect_nothing(other);
    get_one(peer, "q", "a");
}
END_TEST

START_TEST(the_consumer_has_the_last_word) /* 10.20 */
{
    declare_queue(peer, "q", true, "x-queue-type=Squorum,x-consumer-timeout=I5000");
    declare_queue(peer, "r", true, NULL);
    publish(peer, "r", "r");
    publish(peer, "r", "r");
    set_prefetch(other, 1);
    consume(other, "r", "own", false, "x-consumer-timeout=I1000");
    expect_delivery(other, "r");
    consume(other, "r", "none", false, NULL);
    expect_delivery(other, "r");
    consume(other, "q", "never", false, "x-consumer-timeout=I0");
    publish(peer, "q", "a");
    expect_delivery(other, "a");
    harness_advance(&harness, 2100);
    const struct amqp_method cancel = peer_expect(other, 1, AMQP_BASIC_CANCEL);
    ck_assert(slice_equal(cancel.basic_cancel.consumer_tag, SLICE("own")));
    harness_advance(&harness, 60000);
    peer_expect_nothing(other);

    struct buf table = BUF_EMPTY;
    peer_send(other, 1,
              &(struct amqp_method){
                  .id = AMQP_BASIC_CONSUME,
                  .basic_consume = {.queue = SLICE("r"),
                                    .arguments = arguments_of(&table, "x-consumer-timeout=Sx")}});
    buf_release(&table);
    peer_expect_close(other, 1, 406,
                      "PRECONDITION_FAILED - invalid arg 'x-consumer-timeout' for queue 'r'*");
}
END_TEST

START_TEST(the_configuration_is_for_all_queues) /* 10.20 */
{
    declare_queue(peer, "q", true, NULL);
    harness.service.limits.consumer_timeout_ms = 1000;
    publish(peer, "q", "a");
    publish(peer, "q", "a");
    get_unacked(peer, "q", "a"); /* basic.get has no consumer */
    consume(other, "q", "c", false, NULL);
    expect_delivery(other, "a");
    harness_advance(&harness, 2100);
    peer_expect(other, 1, AMQP_BASIC_CANCEL);
    ck_assert_uint_eq(1, count_ready(peer, "q"));
}
END_TEST

/* What a transaction has settled is not waited for. */
START_TEST(a_transaction_is_no_delay) /* 10.20 */
{
    peer_call(other, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
    consume_from_quorum();
    ack(other, expect_delivery(other, "a"));
    harness_advance(&harness, 10000);
    peer_expect_nothing(other);
    peer_call(other, 1, &(struct amqp_method){.id = AMQP_TX_COMMIT}, AMQP_TX_COMMIT_OK);
    ck_assert_uint_eq(0, count_ready(peer, "q"));
}
END_TEST

START_TEST(a_transaction_that_is_rolled_back_is_no_excuse) /* 10.20 */
{
    peer_call(other, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
    consume_from_quorum();
    ack(other, expect_delivery(other, "a"));
    harness_advance(&harness, 10000);
    peer_expect_nothing(other);
    peer_call(other, 1, &(struct amqp_method){.id = AMQP_TX_ROLLBACK}, AMQP_TX_ROLLBACK_OK);
    harness_advance(&harness, 11000);
    peer_expect(other, 1, AMQP_BASIC_CANCEL);
    ck_assert_uint_eq(1, count_ready(peer, "q"));
}
END_TEST

/* What the channel may hold in all is free for its other consumers. */
START_TEST(the_others_have_its_prefetch) /* 10.20 */
{
    declare_queue(peer, "r", true, NULL);
    publish(peer, "r", "r");
    peer_call(other, 1,
              &(struct amqp_method){.id = AMQP_BASIC_QOS,
                                    .basic_qos = {.prefetch_count = 1, .global = true}},
              AMQP_BASIC_QOS_OK);
    consume_from_quorum();
    expect_delivery(other, "a");
    consume(other, "r", "patient", false, NULL);
    peer_expect_nothing(other);
    harness_advance(&harness, 6100);
    peer_expect(other, 1, AMQP_BASIC_CANCEL);
    expect_delivery(other, "r");
}
END_TEST

/* Whoever is late at once is found at once. */
START_TEST(all_that_are_late_go_together) /* 10.20 */
{
    declare_queue(peer, "r", true, NULL);
    for (int i = 0; i < 6; i++)
        publish(peer, "r", "r");
    set_prefetch(other, 2);
    consume(other, "r", "one", false, "x-consumer-timeout=I1300");
    expect_delivery(other, "r");
    expect_delivery(other, "r");
    consume(other, "r", "patient", false, "x-consumer-timeout=I60000");
    expect_delivery(other, "r");
    expect_delivery(other, "r");
    consume(other, "r", "two", false, "x-consumer-timeout=I1700");
    expect_delivery(other, "r");
    expect_delivery(other, "r");
    const struct channel *channel =
        container_of(map_next(&other->connection->channels, NULL), struct channel, by_number);
    ck_assert_uint_eq(channel->timeout.deadline_ms % 1000, 0);
    harness_advance(&harness, 2800);
    struct amqp_method cancel = peer_expect(other, 1, AMQP_BASIC_CANCEL);
    cancel = peer_expect(other, 1, AMQP_BASIC_CANCEL);
    ck_assert(!slice_equal(cancel.basic_cancel.consumer_tag, SLICE("patient")));
    ck_assert_uint_eq(4, count_ready(peer, "r"));
    harness_advance(&harness, 60000);
    peer_expect(other, 1, AMQP_BASIC_CANCEL);
    ck_assert_uint_eq(6, count_ready(peer, "r"));
    ck_assert(!timer_is_set(&channel->timeout));
}
END_TEST

static void time_out_over_limit(const char *arguments, bool auto_delete, bool told)
{
    struct buf table = BUF_EMPTY;

    peer_call(
        peer, 1,
        &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                              .queue_declare = {.queue = SLICE("q"),
                                                .durable = true,
                                                .auto_delete = auto_delete,
                                                .arguments = arguments_of(&table, arguments)}},
        AMQP_QUEUE_DECLARE_OK);
    buf_release(&table);
    other->connection->can_consumer_cancel_notify = told;
    consume(other, "q", "slow", false, "x-consumer-timeout=I5000");
    publish_each("abc");
    for (const char *const *body = (const char *const[]){"a", "b", "c", NULL}; *body != NULL;
         body++)
        expect_delivery(other, *body);
    harness_advance(&harness, 6100);
    if (told)
        peer_expect(other, 1, AMQP_BASIC_CANCEL);
    else
        peer_expect_close(other, 1, 406, "PRECONDITION_FAILED - delivery acknowledgement*");
    peer_expect_nothing(other);
}

/* A queue with more than it may have gives at once, but not to who is about to leave (loops: of a
 * client that is told of cancels, and of one that is not). */
START_TEST(who_is_late_is_given_nothing_back) /* 10.20, 11.5 */
{
    time_out_over_limit("x-queue-type=Squorum,x-max-length=I1", false, _i == 0);
    ck_assert_uint_eq(1, count_ready(peer, "q"));
    get_one(peer, "q", "c");
}
END_TEST

START_TEST(who_is_late_takes_its_queue_along) /* 8.3, 10.20 */
{
    time_out_over_limit("x-max-length=I1", true, _i == 0);
    peer_send(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                                    .queue_declare = {.queue = SLICE("q"), .passive = true}});
    peer_expect_close(peer, 1, 404, "NOT_FOUND - *");
}
END_TEST

/* What one left in a transaction is not another's to give back. */
START_TEST(who_was_late_before_keeps_what_it_had) /* 10.9, 10.20 */
{
    peer_call(other, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
    consume_from_quorum();
    const uint64_t first = expect_delivery(other, "a");
    publish(peer, "q", "b");
    expect_delivery(other, "b");
    ack(other, first); /* held */
    harness_advance(&harness, 6100);
    peer_expect(other, 1, AMQP_BASIC_CANCEL);
    peer_call(other, 1, &(struct amqp_method){.id = AMQP_TX_ROLLBACK}, AMQP_TX_ROLLBACK_OK);
    consume(other, "q", "slow", false, NULL);
    expect_delivery(other, "b");
    harness_advance(&harness, 6100);
    peer_expect(other, 1, AMQP_BASIC_CANCEL);
    ck_assert_uint_eq(1, count_ready(peer, "q"));
    get_one(peer, "q", "b");
    ack(other, first);
    peer_call(other, 1, &(struct amqp_method){.id = AMQP_TX_COMMIT}, AMQP_TX_COMMIT_OK);
    close_channel(other);
    ck_assert_uint_eq(0, count_ready(peer, "q"));
}
END_TEST

static void cancel_consumer(const char *tag)
{
    peer_call(other, 1,
              &(struct amqp_method){.id = AMQP_BASIC_CANCEL,
                                    .basic_cancel.consumer_tag = slice_of_string(tag)},
              AMQP_BASIC_CANCEL_OK);
}

/* What a consumer held that has left before is the client's to settle, whatever becomes of others. */
START_TEST(who_has_left_is_not_late) /* 10.9, 10.20 */
{
    peer_call(other, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
    consume_from_quorum();
    const uint64_t first = expect_delivery(other, "a");
    publish(peer, "q", "b");
    const uint64_t second = expect_delivery(other, "b");
    ack(other, first); /* held */
    harness_advance(&harness, 6100);
    peer_expect(other, 1, AMQP_BASIC_CANCEL);
    ck_assert_uint_eq(1, count_ready(peer, "q")); /* second */
    peer_call(other, 1, &(struct amqp_method){.id = AMQP_TX_ROLLBACK}, AMQP_TX_ROLLBACK_OK);
    consume(other, "q", "slow", false, NULL);
    const uint64_t third = expect_delivery(other, "b");
    cancel_consumer("slow");
    harness_advance(&harness, 20000);
    peer_expect_nothing(other);
    ck_assert_uint_eq(0, count_ready(peer, "q"));
    ack(other, first);
    ack(other, third);
    peer_call(other, 1, &(struct amqp_method){.id = AMQP_TX_COMMIT}, AMQP_TX_COMMIT_OK);
    ck_assert_uint_eq(third, second + 1);
    close_channel(other);
    ck_assert_uint_eq(0, count_ready(peer, "q"));
}
END_TEST

/* Their prefetch is theirs no more, their limits neither. */
START_TEST(who_has_left_counts_only_as_deliveries) /* 10.4, 10.9 */
{
    enum { TIMES = 50 };
    char big[200], tag[16];
    const uint64_t octets = harness.broker.totals.octets;

    declare_queue(peer, "r", false, NULL);
    const uint64_t with_queue = harness.broker.totals.octets;
    ck_assert_uint_gt(with_queue, octets);
    set_prefetch(other, 1);
    memset(big, 'x', sizeof(big));
    memcpy(big, "x-note=S", 8);
    big[sizeof(big) - 1] = '\0';
    harness.service.limits.consumer_max_per_channel = 2;
    for (int i = 0; i < TIMES; i++) {
        publish(peer, "r", "r");
        snprintf(tag, sizeof(tag), "c%d", i % 3);
        consume(other, "r", tag, false, big);
        ck_assert_uint_eq(expect_delivery(other, "r"), (uint64_t)i + 1);
        cancel_consumer(tag);
    }
    const struct channel *channel =
        container_of(map_next(&other->connection->channels, NULL), struct channel, by_number);
    ck_assert_uint_eq(channel->consumer_count, 0);
    ck_assert_uint_eq(channel->global_unacked, TIMES);
    ck_assert_uint_eq(harness.service.consumer_count, 0);
    ck_assert_uint_eq(harness.broker.totals.octets, with_queue);
    consume(other, "r", "c", false, NULL);
    ack(other, 7);
    publish(peer, "r", "x");
    ck_assert_uint_eq(expect_delivery(other, "x"), TIMES + 1);
    ck_assert_uint_eq(channel->global_unacked, TIMES);
    close_channel(other);
    ck_assert_uint_eq(TIMES, count_ready(peer, "r"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("limits");
    TCase *length = tcase_create("length");
    tcase_add_checked_fixture(length, set_up, tear_down);
    tcase_add_loop_test(length, a_queue_keeps_to_its_limit, 0, countof(limit_cases));
    tcase_add_loop_test(length, a_limit_survives_a_restart, 0, countof(limit_cases));
    tcase_add_test(length, bodies_alone_count);
    tcase_add_test(length, unacked_messages_do_not_count);
    tcase_add_test(length, a_refusing_queue_drops_nothing);
    tcase_add_loop_test(length, what_a_consumer_takes_is_not_in_the_way, 0, 4);
    tcase_add_loop_test(length, the_head_may_be_on_disk, 0, 2);
    suite_add_tcase(suite, length);

    TCase *confirms = tcase_create("confirms");
    tcase_add_checked_fixture(confirms, set_up, tear_down);
    tcase_add_loop_test(confirms, who_is_refused_gets_a_nack, 0, 2);
    tcase_add_test(confirms, one_refusal_of_several_queues_is_a_nack);
    tcase_add_test(confirms, a_refused_message_counts_as_routed);
    tcase_add_test(confirms, what_is_crowded_out_was_taken);
    tcase_add_test(confirms, runs_of_confirms_share_a_frame);
    tcase_add_test(confirms, whoever_is_settled_first_is_told_first);
    tcase_add_test(confirms, a_transaction_is_refused_as_a_whole);
    tcase_add_test(confirms, a_transaction_may_fill_a_queue);
    suite_add_tcase(suite, confirms);

    TCase *deliveries = tcase_create("deliveries");
    tcase_add_checked_fixture(deliveries, set_up, tear_down);
    tcase_add_test(deliveries, failed_deliveries_are_counted);
    tcase_add_test(deliveries, classic_queues_do_not_count);
    tcase_add_loop_test(deliveries, too_many_deliveries_are_the_end, 0, countof(delivery_cases));
    tcase_add_test(deliveries, large_bodies_are_counted_as_well);
    suite_add_tcase(suite, deliveries);

    TCase *time = tcase_create("time");
    tcase_add_checked_fixture(time, set_up, tear_down);
    tcase_set_timeout(time, 20);
    tcase_add_test(time, a_slow_consumer_is_cancelled);
    tcase_add_test(time, a_busy_consumer_is_not);
    tcase_add_test(time, only_the_slow_consumer_loses_its_deliveries);
    tcase_add_test(time, who_cannot_be_cancelled_loses_the_channel);
    tcase_add_test(time, the_channel_is_lost_behind_a_reply_that_waits);
    tcase_add_test(time, the_consumer_has_the_last_word);
    tcase_add_test(time, the_configuration_is_for_all_queues);
    tcase_add_test(time, a_transaction_is_no_delay);
    tcase_add_test(time, a_transaction_that_is_rolled_back_is_no_excuse);
    tcase_add_test(time, the_others_have_its_prefetch);
    tcase_add_test(time, all_that_are_late_go_together);
    tcase_add_loop_test(time, who_is_late_is_given_nothing_back, 0, 2);
    tcase_add_loop_test(time, who_is_late_takes_its_queue_along, 0, 2);
    tcase_add_test(time, who_was_late_before_keeps_what_it_had);
    tcase_add_test(time, who_has_left_is_not_late);
    tcase_add_test(time, who_has_left_counts_only_as_deliveries);
    suite_add_tcase(suite, time);
    return unit_main(suite);
}
