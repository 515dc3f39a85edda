/* Time-to-live of messages and queues (11.1 to 11.4, 8.14), with the clock in our hands. */
#include "core/queue.h"
#include "core/vhost.h"
#include "store/memory.h"
#include "tests/lib/one_peer.h"
#include "tests/lib/queue_client.h"
#include "tests/lib/unit.h"

static const struct sent stays = {.persistent = true};

static void publish_expiring(const char *queue, const char *body, const char *expiration)
{
    publish_with(peer, queue, body, &(struct sent){.persistent = true, .expiration = expiration});
}

/* ---- 11.1: the deadline ---- */

static const struct {
    const char *arguments, *expiration;
    uint64_t lives_ms; /* 0: for good */
} ttl_cases[] = {
    {NULL, NULL, 0},
    {"x-message-ttl=I1000", NULL, 1000},
    {NULL, "1000", 1000},
    {"x-message-ttl=I1000", "2000", 1000}, /* the smaller of both */
    {"x-message-ttl=I2000", "1000", 1000},
    {"x-message-ttl=l315360000000", "500", 500},
    {"x-queue-type=Squorum,x-message-ttl=I1000", NULL, 1000},
    {"x-queue-type=Squorum", "1000", 1000},
    {"x-max-priority=I3,x-message-ttl=I1000", NULL, 1000},
};

START_TEST(messages_leave_at_their_deadline) /* 11.1 */
{
    declare_queue(peer, "q", true, ttl_cases[_i].arguments);
    publish_expiring("q", "m", ttl_cases[_i].expiration);
    if (ttl_cases[_i].lives_ms > 0) {
        harness_advance(&harness, ttl_cases[_i].lives_ms - 100);
        ck_assert_uint_eq(1, count_ready(peer, "q"));
        harness_advance(&harness, 101);
        ck_assert_uint_eq(0, count_ready(peer, "q"));
        get_nothing(peer, "q");
    } else {
        harness_advance(&harness, 60000);
        get_one(peer, "q", "m");
    }
}
END_TEST

START_TEST(a_delivered_message_does_not_expire) /* 11.1 */
{
    declare_queue(peer, "q", true, "x-message-ttl=I1000");
    publish(peer, "q", "m");
    const uint64_t tag = get_unacked(peer, "q", "m");
    harness_advance(&harness, 5000);
    ack(peer, tag);
    peer_expect_nothing(peer);
}
END_TEST

/* ---- 11.2: wherever it stands ---- */

START_TEST(messages_leave_from_behind_others) /* 11.2 */
{
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true, "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sdead");
    publish_with(peer, "q", "stays", &stays);
    publish_expiring("q", "long", "3000");
    publish_expiring("q", "short", "1000");
    publish_with(peer, "q", "stays too", &stays);
    harness_advance(&harness, 1100);
    ck_assert_uint_eq(3, count_ready(peer, "q"));
    get_one(peer, "dead", "short"); /* dead-lettered at that moment, too */
    harness_advance(&harness, 2000);
    get_one(peer, "dead", "long");
    get_one(peer, "q", "stays");
    get_one(peer, "q", "stays too");
}
END_TEST

START_TEST(thousands_of_deadlines_in_any_order) /* 11.2 */
{
    enum { COUNT = 5000 };
    struct buf out = BUF_EMPTY;
    unsigned seed = 7;

    declare_queue(peer, "q", false, NULL);
    for (int i = 0; i < COUNT; i++) {
        char expiration[16];
        seed = seed * 1103515245 + 12345;
        snprintf(expiration, sizeof(expiration), "%u", 100 + (seed >> 8) % 100 * 100);
        put_publish(&out, "", "q", "m", &(struct sent){.expiration = expiration});
    }
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    harness_run(&harness);
    uint32_t last = count_ready(peer, "q");
    ck_assert_uint_eq(COUNT, last);
    for (int tenths = 0; tenths < 100; tenths++) {
        harness_advance(&harness, 100);
        const uint32_t left = count_ready(peer, "q");
        ck_assert_uint_lt(left, last);
        last = left;
    }
    ck_assert_uint_eq(0, last);
}
END_TEST

/* ---- 11.3: no time at all ---- */

START_TEST(ttl_0_is_for_whoever_waits) /* 11.3 */
{
    struct peer *other = peer_open_channel(&harness);
    const struct amqp_method get = {.id = AMQP_BASIC_GET, .basic_get.queue = SLICE("q")};
    struct buf out = BUF_EMPTY;

    declare_queue(peer, "q", true, _i == 0 ? "x-message-ttl=I0" : NULL);
    consume(other, "q", "c", false, NULL);
    publish_expiring("q", "at once", _i == 0 ? NULL : "0");
    const uint64_t tag = expect_delivery(other, "at once");
    ack(other, tag);
    close_channel(other);

    /* Not even for a basic.get that follows in the same packet. */
    put_publish(&out, "", "q", "too late", &(struct sent){.expiration = "0", .persistent = true});
    amqp_method_encode(&out, 1, &get);
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    peer_expect(peer, 1, AMQP_BASIC_GET_EMPTY);
}
END_TEST

START_TEST(ttl_0_needs_credit) /* 11.3 */
{
    struct peer *other = peer_open_channel(&harness);

    declare_queue(peer, "q", true, "x-message-ttl=I0");
    set_prefetch(other, 1);
    consume(other, "q", "c", false, NULL);
    publish(peer, "q", "first");
    publish(peer, "q", "second");
    const uint64_t tag = expect_delivery(other, "first");
    ack(other, tag);
    peer_expect_nothing(other);
    ck_assert_uint_eq(0, count_ready(peer, "q"));
}
END_TEST

/* ---- 11.4: requeue ---- */

START_TEST(requeue_keeps_the_deadline) /* 11.4 */
{
    declare_queue(peer, "q", true, "x-message-ttl=I1000");
    publish(peer, "q", "m");
    harness_advance(&harness, 800);
    nack(peer, get_unacked(peer, "q", "m"), true);
    ck_assert_uint_eq(1, count_ready(peer, "q"));
    harness_advance(&harness, 300);
    ck_assert_uint_eq(0, count_ready(peer, "q"));

    publish(peer, "q", "m");
    const uint64_t tag = get_unacked(peer, "q", "m");
    harness_advance(&harness, 2000);
    nack(peer, tag, true); /* its time is over already */
    harness_run(&harness);
    ck_assert_uint_eq(0, count_ready(peer, "q"));
}
END_TEST

/* What is due goes before anything is dropped for want of room, and does not count. */
START_TEST(what_is_due_is_not_in_the_way) /* 11.1, 11.5 */
{
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true,
                  "x-max-length=I1,x-dead-letter-exchange=S,x-dead-letter-routing-key=Sdead");
    publish_expiring("q", "due", "100");
    const uint64_t tag = get_unacked(peer, "q", "due");
    publish_with(peer, "q", "stays", &stays);
    harness_advance(&harness, 200);
    reject(peer, tag, true);
    get_one(peer, "dead", "due");
    get_one(peer, "q", "stays");
}
END_TEST

/* What was unacked when the broker went is ready when it comes: too much, perhaps. */
static uint64_t ready_in(const char *name)
{
    map_each (&harness.broker.vhosts, link) {
        struct vhost *vhost = container_of(link, struct vhost, by_name);
        struct map_link *found = map_find(&vhost->queues, slice_of(name, strlen(name)));
        if (found != NULL)
            return queue_ready_count(container_of(found, struct queue, by_name));
    }
    return UINT64_MAX;
}

/* However much is due at once, a turn has an end; and who asks for what stands behind waits. */
START_TEST(what_is_due_goes_in_slices) /* 11.1 */
{
    enum { COUNT = 60000, IN_A_TURN = 41000 };
    static const char *const arguments[] = {
        NULL, "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sdead", "x-max-length=I100000",
        "x-max-priority=I3"};
    const struct sent expires = {.expiration = "1000"};
    const struct amqp_method get = {.id = AMQP_BASIC_GET, .basic_get.queue = SLICE("q")};
    struct buf out = BUF_EMPTY;

    declare_queue(peer, "dead", false, NULL);
    declare_queue(peer, "q", false, arguments[_i]);
    for (int i = 0; i < COUNT; i++)
        put_publish(&out, "", "q", "m", &expires);
    put_publish(&out, "", "q", "last", &(struct sent){0});
    peer_send_bytes(peer, buf_slice(&out));
    harness_run(&harness);
    ck_assert_uint_eq(COUNT + 1, ready_in("q"));
    buf_clear(&out);
    for (int i = 0; i < 3; i++)
        amqp_method_encode(&out, 1, &get);
    harness.clock.now_ms += 1500;
    memory_transport_send(&peer->memory, buf_slice(&out));
    loop_turn(&harness.loop, 0);
    ck_assert_uint_ge(ready_in("q"), COUNT + 1 - IN_A_TURN);
    ck_assert_uint_lt(ready_in("q"), COUNT);
    for (int i = 0; i < 4; i++) /* so many letters take some turns */
        harness_run(&harness);
    peer_expect_content(peer, 1, AMQP_BASIC_GET_OK, "last");
    for (int i = 0; i < 2; i++)
        peer_expect(peer, 1, AMQP_BASIC_GET_EMPTY);
    ck_assert_uint_eq(0, ready_in("q"));
    ck_assert_uint_eq(_i == 1 ? COUNT : 0, ready_in("dead"));
    buf_release(&out);
}
END_TEST

START_TEST(a_limit_holds_after_a_restart) /* 11.5 */
{
    declare_queue(peer, "q", true, "x-max-length=I2");
    publish_with(peer, "q", "first", &stays);
    get_unacked(peer, "q", "first");
    publish_with(peer, "q", "second", &stays);
    publish_with(peer, "q", "third", &stays);
    restart(true);
    ck_assert_uint_eq(2, count_ready(peer, "q"));
    get_one(peer, "q", "second");
}
END_TEST

START_TEST(a_dead_letter_has_time_again) /* 11.4, 13.5 */
{
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true, "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sdead");
    publish_expiring("q", "m", "1000");
    harness_advance(&harness, 60000);
    get_one(peer, "dead", "m");
}
END_TEST

/* ---- over a restart: the deadline on disk is wall-clock time ---- */

START_TEST(deadlines_survive_a_restart) /* 11.1, 12 */
{
    const bool crash = _i % 2 == 1;
    const bool by_queue = _i / 2 % 2 == 1;

    declare_queue(peer, "q", true, by_queue ? "x-message-ttl=I5000" : NULL);
    publish_expiring("q", "m", by_queue ? NULL : "5000");
    publish_expiring("q", "shorter", "3000");
    if (!by_queue)
        publish_with(peer, "q", "stays", &stays);
    harness_advance(&harness, 2000);
    restart(crash);
    ck_assert_uint_eq(by_queue ? 2 : 3, count_ready(peer, "q"));
    harness_advance(&harness, 1100);
    ck_assert_uint_eq(by_queue ? 1 : 2, count_ready(peer, "q"));
    harness_advance(&harness, 2000);
    ck_assert_uint_eq(by_queue ? 0 : 1, count_ready(peer, "q"));
    if (!by_queue)
        get_one(peer, "q", "stays");
}
END_TEST

START_TEST(time_goes_on_while_the_broker_is_down) /* 11.1 */
{
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true, "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sdead");
    publish_expiring("q", "m", "5000");
    /* A machine that was off for a minute: its monotonic clock began anew. */
    harness.clock.wall_ms += 60000;
    restart(true);
    get_nothing(peer, "q");
    get_one(peer, "dead", "m");
}
END_TEST

START_TEST(deadlines_of_a_long_queue_survive) /* 11.2 */
{
    enum { COUNT = 5000 };
    struct buf out = BUF_EMPTY;

    declare_queue(peer, "q", true, NULL);
    for (int i = 0; i < COUNT; i++)
        put_publish(&out, "", "q", "m",
                    &(struct sent){.expiration = i % 2 == 0 ? NULL : "1000", .persistent = true});
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    for (int i = 0; i < 4; i++)
        harness_run(&harness);
    restart(true);
    harness_advance(&harness, 2000);
    ck_assert_uint_eq(COUNT / 2, count_ready(peer, "q"));
}
END_TEST

/* ---- 8.14: the queue's own time ---- */

static bool exists(const char *queue)
{
    const struct amqp_method passive = {
        .id = AMQP_QUEUE_DECLARE,
        .queue_declare = {.queue = slice_of_string(queue), .passive = true}};
    struct peer *other = peer_open_channel(&harness);
    struct amqp_frame frame;

    peer_send(other, 1, &passive);
    ck_assert(peer_next(other, &frame));
    return amqp_get_u32(frame.payload.data) == AMQP_QUEUE_DECLARE_OK;
}

START_TEST(an_unused_queue_goes) /* 8.14 */
{
    declare_queue(peer, "q", true, "x-expires=I1000");
    publish(peer, "q", "m");
    harness_advance(&harness, 800);
    publish(peer, "q", "publishing is no use");
    harness_advance(&harness, 300);
    ck_assert(!exists("q"));
    restart(true);
    ck_assert(!exists("q"));
}
END_TEST

START_TEST(get_and_redeclare_are_use) /* 8.14 */
{
    declare_queue(peer, "q", true, "x-expires=I1000");
    harness_advance(&harness, 800);
    get_nothing(peer, "q");
    harness_advance(&harness, 800);
    declare_queue(peer, "q", true, "x-expires=I1000");
    harness_advance(&harness, 800);
    ck_assert(exists("q")); /* a passive declare: use as well */
    harness_advance(&harness, 1100);
    ck_assert(!exists("q"));
}
END_TEST

START_TEST(a_consumer_is_use) /* 8.14 */
{
    declare_queue(peer, "q", true, "x-expires=I1000");
    consume(peer, "q", "c", false, NULL);
    harness_advance(&harness, 5000);
    ck_assert(exists("q"));
    close_channel(peer);
    harness_advance(&harness, 800);
    ck_assert(exists("q"));
    harness_advance(&harness, 1100);
    ck_assert(!exists("q"));
}
END_TEST

START_TEST(an_expired_queue_dead_letters_nothing) /* 8.14, 13.1 */
{
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true,
                  "x-expires=I1000,x-dead-letter-exchange=S,x-dead-letter-routing-key=Sdead");
    publish(peer, "q", "m");
    harness_advance(&harness, 1100);
    ck_assert(!exists("q"));
    get_nothing(peer, "dead");
}
END_TEST

START_TEST(a_restart_begins_the_time_of_a_queue_anew) /* 8.14, 8.15 */
{
    declare_queue(peer, "q", true, "x-expires=I1000");
    harness_advance(&harness, 800);
    restart(false);
    harness_advance(&harness, 800);
    ck_assert(exists("q"));
    harness_advance(&harness, 1100);
    ck_assert(!exists("q"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("expiry");
    TCase *messages = tcase_create("messages");
    tcase_add_checked_fixture(messages, set_up, tear_down);
    tcase_set_timeout(messages, 30);
    tcase_add_loop_test(messages, messages_leave_at_their_deadline, 0, countof(ttl_cases));
    tcase_add_test(messages, a_delivered_message_does_not_expire);
    tcase_add_test(messages, messages_leave_from_behind_others);
    tcase_add_test(messages, thousands_of_deadlines_in_any_order);
    tcase_add_loop_test(messages, ttl_0_is_for_whoever_waits, 0, 2);
    tcase_add_test(messages, ttl_0_needs_credit);
    tcase_add_test(messages, requeue_keeps_the_deadline);
    tcase_add_test(messages, what_is_due_is_not_in_the_way);
    tcase_add_loop_test(messages, what_is_due_goes_in_slices, 0, 4);
    tcase_add_test(messages, a_limit_holds_after_a_restart);
    tcase_add_test(messages, a_dead_letter_has_time_again);
    tcase_add_loop_test(messages, deadlines_survive_a_restart, 0, 4);
    tcase_add_test(messages, time_goes_on_while_the_broker_is_down);
    tcase_add_test(messages, deadlines_of_a_long_queue_survive);
    suite_add_tcase(suite, messages);

    TCase *queues = tcase_create("queues");
    tcase_add_checked_fixture(queues, set_up, tear_down);
    tcase_add_test(queues, an_unused_queue_goes);
    tcase_add_test(queues, get_and_redeclare_are_use);
    tcase_add_test(queues, a_consumer_is_use);
    tcase_add_test(queues, an_expired_queue_dead_letters_nothing);
    tcase_add_test(queues, a_restart_begins_the_time_of_a_queue_anew);
    suite_add_tcase(suite, queues);
    return unit_main(suite);
}
