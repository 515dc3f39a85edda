/* reply_to: a requester that does not read (the rest of section 14 is told by
 * tests/integration/test_reply_to.py), and one that goes. */
#include "session/reply_to.h"

#include "amqp/client.h"
#include "core/vhost.h"
#include "session/channel.h"
#include "tests/lib/harness.h"
#include "tests/lib/unit.h"

static const struct amqp_method consume = {
    .id = AMQP_BASIC_CONSUME,
    .basic_consume = {.queue = {(const uint8_t *)"amq.rabbitmq.reply-to", 21}, .no_ack = true}};

/* The name under which the peer's channel 1 waits. */
static struct slice name_of(const struct peer *peer)
{
    struct map_link *link = map_find_id(&peer->connection->channels, 1);

    return container_of(link, struct channel, by_number)->reply_to->target.by_name.key;
}

static void answer(struct peer *responder, struct slice name, struct slice body)
{
    struct buf out = BUF_EMPTY;

    amqp_client_publish(&out, 1, 131072,
                        &(struct amqp_client_message){.routing_key = name, .body = body});
    peer_send_bytes(responder, buf_slice(&out));
    buf_release(&out);
}

START_TEST(replies_are_dropped_before_they_fill_the_memory)
{
    enum { SIZE = 1024 * 1024, COUNT = 40 };
    static uint8_t body[SIZE];
    struct service_limits limits = harness_limits;
    struct harness harness;

    limits.message_size_max = SIZE;
    harness_init(&harness, &limits);
    struct peer *requester = peer_open_channel(&harness);
    struct peer *responder = peer_open_channel(&harness);
    peer_call(requester, 1, &consume, AMQP_BASIC_CONSUME_OK);
    memory_transport_take(&requester->memory, 0);
    for (int i = 0; i < COUNT; i++)
        answer(responder, name_of(requester), slice_of(body, SIZE));
    const size_t held = requester->connection->transport.chunks_size;
    ck_assert_uint_gt(held, 4 * SIZE);
    ck_assert_uint_lt(held, 8 * SIZE);
    ck_assert_uint_gt(harness_logged(&harness, "does not read its replies"), COUNT / 2);
    peer_expect_nothing(responder);

    memory_transport_take(&requester->memory, SIZE_MAX);
    harness_run(&harness);
    buf_clear(&requester->memory.received);
    answer(responder, name_of(requester), SLICE("read again"));
    peer_expect_content(requester, 1, AMQP_BASIC_DELIVER, "read again");
    harness_release(&harness);
}
END_TEST

START_TEST(a_requester_that_vanishes_leaves_nothing) /* 14.3 */
{
    struct harness harness;
    char name[64];

    harness_init(&harness, NULL);
    struct peer *requester = peer_open_channel(&harness);
    struct peer *responder = peer_open_channel(&harness);
    const struct vhost *vhost = responder->connection->vhost;
    peer_call(requester, 1, &consume, AMQP_BASIC_CONSUME_OK);
    const struct slice waiting = name_of(requester);
    memcpy(name, waiting.data, waiting.size);
    ck_assert_uint_eq(vhost->reply_targets.count, 1);
    peer_free(&requester);
    harness_run(&harness);
    ck_assert_uint_eq(vhost->reply_targets.count, 0);
    answer(responder, slice_of(name, waiting.size), SLICE("late"));
    peer_expect_nothing(responder);
    harness_release(&harness);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reply_to");
    TCase *tests = tcase_create("reply_to");
    tcase_add_test(tests, replies_are_dropped_before_they_fill_the_memory);
    tcase_add_test(tests, a_requester_that_vanishes_leaves_nothing);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
