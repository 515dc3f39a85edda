/* Transactions: when commit-ok leaves, and who goes on after it. What they do to queues is in
 * tests/integration/test_tx.py. */
#include "amqp/client.h"
#include "amqp/properties.h"
#include "core/vhost.h"
#include "store/memory.h"
#include "tests/lib/harness.h"
#include "tests/lib/unit.h"

static const struct amqp_method select_tx = {.id = AMQP_TX_SELECT};
static const struct amqp_method commit = {.id = AMQP_TX_COMMIT};

static void declare(struct peer *peer, const char *queue, bool durable)
{
    peer_call(peer, 1,
              &(struct amqp_method){
                  .id = AMQP_QUEUE_DECLARE,
                  .queue_declare = {.queue = slice_of_string(queue), .durable = durable}},
              AMQP_QUEUE_DECLARE_OK);
}

static void consume(struct peer *peer, const char *queue, bool no_ack)
{
    peer_call(
        peer, 1,
        &(struct amqp_method){.id = AMQP_BASIC_CONSUME,
                              .basic_consume = {.queue = slice_of_string(queue), .no_ack = no_ack}},
        AMQP_BASIC_CONSUME_OK);
}

/* One persistent message to q, and commit. */
static void publish_and_commit(struct peer *peer)
{
    struct buf out = BUF_EMPTY, properties = BUF_EMPTY;

    amqp_properties_encode(
        &properties,
        &(struct amqp_properties){.flags = AMQP_PROPERTY_DELIVERY_MODE, .delivery_mode = 2});
    amqp_client_publish(&out, 1, 4096,
                        &(struct amqp_client_message){.routing_key = SLICE("q"),
                                                      .properties = buf_slice(&properties),
                                                      .body = SLICE("m")});
    amqp_method_encode(&out, 1, &commit);
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    buf_release(&properties);
}

START_TEST(commit_ok_waits_for_the_store) /* 9.16 */
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    declare(peer, "q", true);
    peer_call(peer, 1, &select_tx, AMQP_TX_SELECT_OK);
    store_memory_set_auto_sync(harness.store, false);
    publish_and_commit(peer);
    peer_expect_nothing(peer);
    store_memory_sync(harness.store);
    harness_run(&harness);
    peer_expect(peer, 1, AMQP_TX_COMMIT_OK);
    harness_release(&harness);
}
END_TEST

/* The consumer takes the message before it has gone to the store, and nothing is left to be
 * stored. */
START_TEST(commit_ok_comes_when_nothing_is_left_to_store)
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness), *other = peer_open_channel(&harness);
    declare(peer, "q", true);
    consume(other, "q", true);
    peer_call(peer, 1, &select_tx, AMQP_TX_SELECT_OK);
    publish_and_commit(peer);
    peer_expect_content(other, 1, AMQP_BASIC_DELIVER, "m");
    peer_expect(peer, 1, AMQP_TX_COMMIT_OK);

    /* The same while the store is busy with something else. */
    store_memory_set_auto_sync(harness.store, false);
    struct peer *third = peer_open_channel(&harness);
    peer_send(third, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                                    .queue_declare = {.queue = SLICE("p"), .durable = true}});
    publish_and_commit(peer);
    peer_expect_content(other, 1, AMQP_BASIC_DELIVER, "m");
    store_memory_sync(harness.store);
    harness_run(&harness);
    peer_expect(third, 1, AMQP_QUEUE_DECLARE_OK);
    peer_expect(peer, 1, AMQP_TX_COMMIT_OK);
    harness_release(&harness);
}
END_TEST

/* What one consumer's ack gives back to the channel's limit another may have. */
START_TEST(commit_gives_credit_to_the_whole_channel)
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness), *other = peer_open_channel(&harness);
    declare(peer, "a", false);
    declare(peer, "b", false);
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_BASIC_QOS,
                                    .basic_qos = {.prefetch_count = 1, .global = true}},
              AMQP_BASIC_QOS_OK);
    peer_call(peer, 1, &select_tx, AMQP_TX_SELECT_OK);
    consume(peer, "a", false);
    consume(peer, "b", false);
    peer_publish(other, 1, "", "a", "first");
    const uint64_t tag =
        peer_expect_content(peer, 1, AMQP_BASIC_DELIVER, "first").basic_deliver.delivery_tag;
    peer_publish(other, 1, "", "b", "second");
    peer_send(peer, 1, &(struct amqp_method){.id = AMQP_BASIC_ACK, .basic_ack.delivery_tag = tag});
    peer_expect_nothing(peer);
    peer_call(peer, 1, &commit, AMQP_TX_COMMIT_OK);
    peer_expect_content(peer, 1, AMQP_BASIC_DELIVER, "second");
    harness_release(&harness);
}
END_TEST

/* Acks with multiple, one delivery further each time: what is held already is not looked at
 * again. */
START_TEST(many_acks_cost_little)
{
    enum { COUNT = 100000 };
    struct harness harness;
    struct buf out = BUF_EMPTY;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    declare(peer, "q", false);
    peer_call(peer, 1, &select_tx, AMQP_TX_SELECT_OK);
    struct queue *queue = vhost_find_queue(vhost_find(&harness.broker, SLICE("/")), SLICE("q"),
                                           ACCESS_GET, NULL, NULL);
    struct message *message = message_new(SLICE(""), SLICE("q"), SLICE("\0\0"), 0, false);
    for (int i = 0; i < COUNT; i++)
        queue_push(queue, message);
    message_unref(&message);
    consume(peer, "q", false);
    while (queue->window.ready_count > 0)
        harness_run(&harness);
    buf_clear(&peer->memory.received);

    for (int round = 0; round < 2; round++) {
        for (uint64_t tag = 1; tag <= COUNT; tag++)
            amqp_method_encode(&out, 1,
                               &(struct amqp_method){
                                   .id = AMQP_BASIC_ACK,
                                   .basic_ack = {.delivery_tag = tag, .multiple = tag % 3 != 0}});
        if (round == 0)
            amqp_method_encode(&out, 1, &(struct amqp_method){.id = AMQP_TX_ROLLBACK});
        else
            amqp_method_encode(&out, 1, &commit);
        peer_send_bytes(peer, buf_slice(&out));
        buf_release(&out);
        harness_run(&harness);
        harness_run(&harness);
        peer_expect(peer, 1, round == 0 ? AMQP_TX_ROLLBACK_OK : AMQP_TX_COMMIT_OK);
        ck_assert_uint_eq(round == 0 ? COUNT : 0, queue->window.unacked_count);
    }
    harness_release(&harness);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tx");
    TCase *tests = tcase_create("tx");
    tcase_add_test(tests, commit_ok_waits_for_the_store);
    tcase_add_test(tests, commit_ok_comes_when_nothing_is_left_to_store);
    tcase_add_test(tests, commit_gives_credit_to_the_whole_channel);
    tcase_add_test(tests, many_acks_cost_little);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
