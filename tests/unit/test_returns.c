/* What channels had unacked goes back to its queues in several turns, a whole channel in one, and
 * in order. */
#include "core/queue.h"
#include "session/returns.h"
#include "tests/lib/queue_client.h"
#include "tests/lib/unit.h"

enum { CHANNELS = 3 };

static uint32_t each, all; /* messages */

static struct harness harness;
static struct peer *owner,
    *holder; /* of the queue; of its messages, in each channel the same number */

static struct queue *queue_q(void)
{
    struct amqp_error error;
    struct vhost *vhost = owner->connection->vhost;

    return vhost_find_queue(vhost, SLICE("q"), ACCESS_GET, NULL, &error);
}

static void publish_numbers(void)
{
    struct buf out = BUF_EMPTY;
    char body[16];

    for (uint32_t i = 0; i < all; i++) {
        snprintf(body, sizeof body, "%" PRIu32, i);
        put_publish(&out, "", "q", body, &(struct sent){0});
        if (i % 1000 == 999 || i + 1 == all) {
            peer_send_bytes(owner, buf_slice(&out));
            buf_clear(&out);
        }
    }
    buf_release(&out);
}

static void take_with(uint16_t channel)
{
    if (channel > 1)
        peer_call(holder, channel, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN},
                  AMQP_CHANNEL_OPEN_OK);
    peer_send(
        holder, channel,
        &(struct amqp_method){.id = AMQP_BASIC_QOS, .basic_qos.prefetch_count = (uint16_t)each});
    peer_send(
        holder, channel,
        &(struct amqp_method){
            .id = AMQP_BASIC_CONSUME,
            .basic_consume = {.queue = SLICE("q"), .consumer_tag = SLICE("c"), .no_wait = true}});
    const uint32_t left = all - channel * each;

    for (int turns = 0; turns < 10000 && queue_ready_count(queue_q()) > left; turns++) {
        loop_turn(&harness.loop, 0);
        buf_clear(&holder->memory.received); /* or it is held to be slow */
    }
    harness_run(&harness);
    buf_clear(&holder->memory.received);
    ck_assert_uint_eq(left, queue_ready_count(queue_q()));
}

static void start(uint32_t count)
{
    each = count;
    all = CHANNELS * each;
    harness_init(&harness, NULL);
    owner = peer_open_channel(&harness);
    holder = peer_open_channel(&harness);
    declare_queue(owner, "q", false, NULL);
    publish_numbers();
    for (uint16_t channel = 1; channel <= CHANNELS; channel++)
        take_with(channel);
}

/* Its socket is gone; nobody has heard of it yet. */
static void lose_holder(void)
{
    memory_transport_break(&holder->memory, ECONNRESET);
}

static void expect_after_turn(uint64_t ready)
{
    loop_turn(&harness.loop, 0);
    ck_assert_uint_eq(ready, queue_ready_count(queue_q()));
}

START_TEST(a_turn_has_its_share) /* 6.5 */
{
    char body[16];

    start(RETURNS_AT_ONCE / 2 + 1);
    lose_holder();
    expect_after_turn(2 * each); /* the second channel began before the share was used up */
    expect_after_turn(3 * each);
    for (uint32_t i = 0; i < all; i++) {
        snprintf(body, sizeof body, "%" PRIu32, i);
        peer_send(owner, 1,
                  &(struct amqp_method){.id = AMQP_BASIC_GET,
                                        .basic_get = {.queue = SLICE("q"), .no_ack = true}});
        ck_assert(peer_expect_content(owner, 1, AMQP_BASIC_GET_OK, body).basic_get_ok.redelivered);
    }
    get_nothing(owner, "q");
    harness_release(&harness);
}
END_TEST

START_TEST(channels_that_end_alone_have_the_same_share)
{
    start(RETURNS_AT_ONCE / 2 + 1);
    struct buf out = BUF_EMPTY;
    for (uint16_t channel = 1; channel <= CHANNELS; channel++)
        amqp_method_encode(&out, channel, &(struct amqp_method){.id = AMQP_CHANNEL_CLOSE});
    memory_transport_send(&holder->memory, buf_slice(&out));
    buf_release(&out);
    expect_after_turn(2 * each);
    expect_after_turn(3 * each);
    harness_release(&harness);
}
END_TEST

static void put_nacks(struct buf *out, uint16_t channel, uint32_t portion)
{
    for (uint32_t tag = 0; tag < each;) {
        tag = min_of(tag + portion, each);
        amqp_method_encode(
            out, channel,
            &(struct amqp_method){
                .id = AMQP_BASIC_NACK,
                .basic_nack = {.delivery_tag = tag, .multiple = true, .requeue = true}});
    }
}

/* All at once, in many portions, and by transactions. */
START_TEST(who_settles_much_rests)
{
    struct buf out = BUF_EMPTY;

    start(RETURNS_AT_ONCE / 2 + 1);
    const uint32_t portion = _i == 0 ? each : 73; /* 137 of them */
    const uint32_t last_frame = _i == 1 ? portion : each;
    for (uint16_t channel = 1; channel <= CHANNELS; channel++) {
        if (_i == 2)
            peer_call(holder, channel, &(struct amqp_method){.id = AMQP_TX_SELECT},
                      AMQP_TX_SELECT_OK);
        put_nacks(&out, channel, portion);
        if (_i == 2)
            amqp_method_encode(&out, channel, &(struct amqp_method){.id = AMQP_TX_COMMIT});
    }
    for (uint16_t channel = 1; channel <= CHANNELS; channel++) /* or they would get them again */
        peer_call(
            holder, channel,
            &(struct amqp_method){.id = AMQP_BASIC_CANCEL, .basic_cancel.consumer_tag = SLICE("c")},
            AMQP_BASIC_CANCEL_OK);
    memory_transport_send(&holder->memory, buf_slice(&out));
    buf_release(&out);
    for (uint64_t ready = 0; ready < all;) {
        const uint64_t before = ready;
        loop_turn(&harness.loop, 0);
        ready = queue_ready_count(queue_q());
        ck_assert_uint_le(ready, before + RETURNS_AT_ONCE + last_frame);
    }
    harness_release(&harness);
}
END_TEST

START_TEST(limits_count_when_a_channel_is_back)
{
    char body[16];

    start(RETURNS_AT_ONCE / 2 + 1);
    queue_q()->settings.length_max = 5; /* as a policy does */
    lose_holder();
    harness_run(&harness);
    for (uint32_t i = all - 5; i < all; i++) {
        snprintf(body, sizeof body, "%" PRIu32, i);
        get_one(owner, "q", body);
    }
    get_nothing(owner, "q");
    harness_release(&harness);
}
END_TEST

/* Nobody is given what stands behind it: neither who consumes nor who asks. */
START_TEST(what_comes_back_comes_first) /* 6.5 */
{
    const bool asks = _i > 0;
    struct buf out = BUF_EMPTY;

    start(RETURNS_AT_ONCE / 2 + 1);
    struct peer *next = peer_open_channel(&harness); /* that is lost */
    declare_queue(owner, "r", false, NULL);
    publish(owner, "r", "first");
    publish(owner, "r", "second");
    peer_send(next, 1, &(struct amqp_method){.id = AMQP_BASIC_GET, .basic_get.queue = SLICE("r")});
    peer_expect_content(next, 1, AMQP_BASIC_GET_OK, "first");
    lose_holder();
    memory_transport_break(&next->memory, ECONNRESET);
    amqp_method_encode(
        &out, 1,
        asks ? &(struct amqp_method){.id = AMQP_BASIC_GET,
                                     .basic_get = {.queue = SLICE("r"), .no_ack = true}}
             : &(struct amqp_method){
                   .id = AMQP_BASIC_CONSUME,
                   .basic_consume = {.queue = SLICE("r"), .no_ack = true, .no_wait = true}});
    memory_transport_send(&owner->memory, buf_slice(&out));
    buf_release(&out);
    expect_after_turn(2 * each);
    harness_run(&harness);
    peer_expect_content(owner, 1, asks ? AMQP_BASIC_GET_OK : AMQP_BASIC_DELIVER, "first");
    harness_release(&harness);
}
END_TEST

START_TEST(a_queue_may_go_meanwhile)
{
    start(RETURNS_AT_ONCE / 2 + 1);
    lose_holder();
    expect_after_turn(2 * each);
    queue_delete(queue_q());
    harness_run(&harness);
    ck_assert_ptr_null(queue_q());
    declare_queue(owner, "q", false, NULL);
    ck_assert_uint_eq(0, count_ready(owner, "q"));
    harness_release(&harness);
}
END_TEST

START_TEST(the_broker_may_end_meanwhile)
{
    start(RETURNS_AT_ONCE / 2 + 1);
    lose_holder();
    expect_after_turn(2 * each);
    ck_assert(!STAILQ_EMPTY(&harness.service.returns.waiting));
    peer_free(&holder);
    harness_release(&harness);
}
END_TEST

static Suite *returns_suite(void)
{
    Suite *suite = suite_create("returns");
    TCase *tests = tcase_create("returns");

    tcase_add_test(tests, a_turn_has_its_share);
    tcase_add_test(tests, channels_that_end_alone_have_the_same_share);
    tcase_add_loop_test(tests, who_settles_much_rests, 0, 3);
    tcase_add_test(tests, limits_count_when_a_channel_is_back);
    tcase_add_loop_test(tests, what_comes_back_comes_first, 0, 2);
    tcase_add_test(tests, a_queue_may_go_meanwhile);
    tcase_add_test(tests, the_broker_may_end_meanwhile);
    suite_add_tcase(suite, tests);
    return suite;
}

int main(void)
{
    return unit_main(returns_suite());
}
