/* alarm: when one is on and how often it looks, and what that does to who publishes (4.6, 4.3.5);
 * resources: what a control group allows. */
#include "access/alarm.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/resources.h"
#include "amqp/client.h"
#include "base/alloc.h"
#include "session/channel.h"
#include "tests/lib/harness.h"
#include "tests/lib/unit.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static struct harness harness;
static struct alarm_readings now; /* what is read */
static unsigned look_count, release_count;
static uint64_t releasable; /* octets that are only kept */

static struct alarm_readings read_now(void *context)
{
    (void)context;
    look_count++;
    return now;
}

static void release(void *context)
{
    (void)context;
    release_count++;
    now.memory_used -= releasable;
    releasable = 0;
}

static const struct alarm_limits limits = {
    .memory_max = GIB, .memory_critical = 4 * GIB, .disk_free_min = 50 * MIB};

static void set_up_with(const struct service_limits *service_limits)
{
    const struct alarm_source source = {.read = read_now, .release = release};

    harness_init(&harness, service_limits);
    now = (struct alarm_readings){.memory_used = 10 * MIB, .disk_free = 100 * GIB};
    releasable = 0;
    look_count = release_count = 0;
    alarm_start(&harness.service.alarm, &harness.loop.timers, &harness.clock, &limits, &source);
}

static void set_up(void)
{
    set_up_with(NULL);
}

static void tear_down(void)
{
    harness_release(&harness);
}

/* Until the next look, at the latest. */
static void set(uint64_t memory_used, uint64_t disk_free)
{
    now = (struct alarm_readings){.memory_used = memory_used, .disk_free = disk_free};
    harness_advance(&harness, 10000);
}

static void set_memory(bool low)
{
    set(low ? 2 * GIB : 10 * MIB, now.disk_free);
}

static void set_disk(bool low)
{
    set(now.memory_used, low ? MIB : 100 * GIB);
}

/* ---- the alarm alone ---- */

static const struct {
    uint64_t memory_used, disk_free;
    const char *reason; /* NULL: none is on */
} states[] = {
    {0, UINT64_MAX, NULL},
    {GIB, 50 * MIB, NULL},
    {GIB + 1, 50 * MIB, "low on memory"},
    {GIB, 50 * MIB - 1, "low on disk"},
    {GIB + 1, 50 * MIB - 1, "low on memory & disk"},
    {UINT64_MAX, 0, "low on memory & disk"},
};

START_TEST(is_on_beyond_its_limit) /* 4.6.2 */
{
    const struct alarm *alarm = &harness.service.alarm;

    set(states[_i].memory_used, states[_i].disk_free);
    ck_assert(alarm_is_on(alarm) == (states[_i].reason != NULL));
    if (alarm_is_on(alarm))
        ck_assert_str_eq(alarm_reason(alarm), states[_i].reason);
}
END_TEST

static const struct {
    uint64_t memory_used, disk_free;
    unsigned looks; /* in 10 s */
} paces[] = {
    {0, UINT64_MAX, 17}, /* 1 GiB away: 0.5 s, and the step of the clock */
    {GIB - 400 * MIB, UINT64_MAX, 50},
    {GIB - MIB, UINT64_MAX, 100},
    {GIB + MIB, UINT64_MAX, 100},
    {0, 51 * MIB, 100},
    {0, 0, 100},
};

START_TEST(looks_more_often_near_a_limit) /* 4.6.1 */
{
    set(paces[_i].memory_used, paces[_i].disk_free);
    look_count = release_count = 0;
    harness_advance(&harness, 10000);
    look_count -= release_count; /* one more reading each */
    ck_assert_uint_ge(look_count, paces[_i].looks - 1);
    ck_assert_uint_le(look_count, paces[_i].looks + 1);
}
END_TEST

START_TEST(looks_now_and_then_far_from_it) /* 4.6.1 */
{
    const struct alarm_source source = {.read = read_now};
    const struct alarm_limits far = {
        .memory_max = 64 * GIB, .memory_critical = 128 * GIB, .disk_free_min = 0};

    alarm_start(&harness.service.alarm, &harness.loop.timers, &harness.clock, &far, &source);
    look_count = 0;
    harness_advance(&harness, 60000);
    ck_assert_uint_eq(look_count, 6);
}
END_TEST

START_TEST(memory_that_is_only_kept_is_given_back_first) /* 4.6.1 */
{
    releasable = GIB;
    set(GIB + 10 * MIB, 100 * GIB);
    ck_assert(!alarm_is_on(&harness.service.alarm));
    ck_assert_uint_eq(release_count, 1);
    set_memory(true);
    ck_assert(alarm_is_on(&harness.service.alarm));
}
END_TEST

START_TEST(says_when_it_comes_and_goes) /* 4.6.1 */
{
    set_memory(true);
    set_disk(true);
    set_memory(false);
    set_disk(false);
    ck_assert_uint_eq(harness_logged(&harness,
                                     "[warning] memory resource limit alarm set: 2048.0 MiB used, "
                                     "1024.0 MiB allowed; publishers are blocked"),
                      1);
    ck_assert_uint_eq(harness_logged(&harness, "[info] memory resource limit alarm cleared"), 1);
    ck_assert_uint_eq(
        harness_logged(&harness, "[warning] disk resource limit alarm set: 1.0 MiB free, 50.0 MiB "
                                 "wanted; publishers are blocked"),
        1);
    ck_assert_uint_eq(harness_logged(&harness, "[info] disk resource limit alarm cleared"), 1);
}
END_TEST

/* ---- who publishes ---- */

static void declare_queue(struct peer *peer)
{
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DECLARE, .queue_declare.queue = SLICE("q")},
              AMQP_QUEUE_DECLARE_OK);
}

static void consume(struct peer *peer)
{
    peer_call(
        peer, 1,
        &(struct amqp_method){.id = AMQP_BASIC_CONSUME,
                              .basic_consume = {.queue = SLICE("q"), .consumer_tag = SLICE("c")}},
        AMQP_BASIC_CONSUME_OK);
}

static const struct amqp_method find_queue = {
    .id = AMQP_QUEUE_DECLARE,
    .queue_declare = {.queue = {(const uint8_t *)"q", 1}, .passive = true}};

static uint32_t ready_count(struct peer *peer)
{
    return peer_call(peer, 1, &find_queue, AMQP_QUEUE_DECLARE_OK).queue_declare_ok.message_count;
}

static void expect_blocked(struct peer *peer, const char *reason)
{
    const struct amqp_method blocked = peer_expect(peer, 0, AMQP_CONNECTION_BLOCKED);

    ck_assert(slice_equal(blocked.connection_blocked.reason, slice_of_string(reason)));
}

static void expect_state(const struct peer *peer, const char *state)
{
    ck_assert_str_eq(connection_state_name(peer->connection), state);
}

/* A client without capabilities, with heartbeats. */
static struct peer *open_plain(uint16_t heartbeat_s)
{
    struct peer *peer = peer_new(&harness, false);
    struct buf out = BUF_EMPTY;

    amqp_client_protocol_header(&out);
    amqp_method_encode(&out, 0,
                       &(struct amqp_method){.id = AMQP_CONNECTION_START_OK,
                                             .connection_start_ok = {
                                                 .mechanism = SLICE("PLAIN"),
                                                 .response = SLICE("\0guest\0guest"),
                                             }});
    amqp_client_tune_ok(&out, 2047, 131072, heartbeat_s);
    amqp_client_open(&out, SLICE("/"));
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    peer_expect(peer, 0, AMQP_CONNECTION_START);
    peer_expect(peer, 0, AMQP_CONNECTION_TUNE);
    peer_expect(peer, 0, AMQP_CONNECTION_OPEN_OK);
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN}, AMQP_CHANNEL_OPEN_OK);
    return peer;
}

START_TEST(who_has_not_published_goes_on) /* 4.6.1 */
{
    struct peer *peer = peer_open_channel(&harness);

    expect_state(peer, "running");
    set_memory(true);
    expect_state(peer, "blocking");
    peer_expect_nothing(peer);
    declare_queue(peer);
    ck_assert_uint_eq(ready_count(peer), 0);
    set_memory(false);
    expect_state(peer, "running");
    peer_expect_nothing(peer);
}
END_TEST

START_TEST(who_publishes_is_not_read) /* 4.6.1, 4.6.2, 4.6.3 */
{
    struct peer *peer = peer_open_channel(&harness), *other = peer_open_channel(&harness);

    declare_queue(peer);
    set_memory(true);
    peer_publish(peer, 1, "", "q", "one");
    expect_blocked(peer, "low on memory");
    expect_state(peer, "blocked");
    peer_publish(peer, 1, "", "q", "two");
    peer_send(peer, 1, &find_queue);
    peer_expect_nothing(peer);
    ck_assert_uint_eq(ready_count(other), 0);

    set_memory(false);
    peer_expect(peer, 0, AMQP_CONNECTION_UNBLOCKED);
    ck_assert_uint_eq(peer_expect(peer, 1, AMQP_QUEUE_DECLARE_OK).queue_declare_ok.message_count,
                      2);
    expect_state(peer, "running");
}
END_TEST

static void bind_to(struct peer *peer, const char *exchange)
{
    peer_call(peer, 1,
              &(struct amqp_method){
                  .id = AMQP_QUEUE_BIND,
                  .queue_bind = {.queue = SLICE("q"), .exchange = slice_of_string(exchange)}},
              AMQP_QUEUE_BIND_OK);
}

/* Whose binding brings messages, too; other bindings are none of its business. */
START_TEST(a_binding_that_brings_messages_publishes_them) /* 4.6.1, 7.2 */
{
    struct peer *peer = peer_open_channel(&harness);

    declare_queue(peer);
    peer_call(peer, 1,
              &(struct amqp_method){
                  .id = AMQP_EXCHANGE_DECLARE,
                  .exchange_declare = {.exchange = SLICE("x"), .type = SLICE("x-recent-history")}},
              AMQP_EXCHANGE_DECLARE_OK);
    peer_publish(peer, 1, "x", "", "one");
    set_memory(true);
    bind_to(peer, "amq.fanout");
    expect_state(peer, "blocking");
    bind_to(peer, "x");
    expect_blocked(peer, "low on memory");
    peer_send(peer, 1, &find_queue);
    peer_expect_nothing(peer);
    set_memory(false);
    peer_expect(peer, 0, AMQP_CONNECTION_UNBLOCKED);
    ck_assert_uint_eq(peer_expect(peer, 1, AMQP_QUEUE_DECLARE_OK).queue_declare_ok.message_count,
                      1);
}
END_TEST

START_TEST(blocked_is_said_once_until_the_last_alarm_clears) /* 4.6.2, 4.6.3 */
{
    struct peer *peer = peer_open_channel(&harness), *late = peer_open_channel(&harness);

    declare_queue(peer);
    set_disk(true);
    peer_publish(peer, 1, "", "q", "one");
    expect_blocked(peer, "low on disk");
    set_memory(true);
    peer_publish(late, 1, "", "q", "two");
    expect_blocked(late, "low on memory & disk");
    set_disk(false);
    peer_expect_nothing(peer);
    peer_expect_nothing(late);
    set_memory(false);
    peer_expect(peer, 0, AMQP_CONNECTION_UNBLOCKED);
    peer_expect(late, 0, AMQP_CONNECTION_UNBLOCKED);
    peer_expect_nothing(peer);
    ck_assert_uint_eq(ready_count(peer), 2);
    set_memory(true);
    peer_publish(peer, 1, "", "q", "three");
    expect_blocked(peer, "low on memory");
}
END_TEST

START_TEST(who_cannot_be_told_is_blocked_all_the_same) /* 4.6.2 */
{
    struct peer *peer = open_plain(0), *other = peer_open_channel(&harness);

    declare_queue(peer);
    set_memory(true);
    peer_publish(peer, 1, "", "q", "one");
    peer_expect_nothing(peer);
    ck_assert_uint_eq(ready_count(other), 0);
    set_memory(false);
    peer_expect_nothing(peer);
    ck_assert_uint_eq(ready_count(other), 1);
}
END_TEST

START_TEST(a_publish_under_way_is_finished) /* 4.6.1 */
{
    struct peer *peer = peer_open_channel(&harness), *other = peer_open_channel(&harness);
    struct buf out = BUF_EMPTY;

    declare_queue(peer);
    amqp_client_publish(
        &out, 1, 131072,
        &(struct amqp_client_message){.routing_key = SLICE("q"), .body = SLICE("body")});
    const struct slice frames = buf_slice(&out);
    peer_send_bytes(peer, slice_of(frames.data, frames.size - 6));
    set_memory(true);
    peer_send_bytes(peer, slice_of(frames.data + frames.size - 6, 6));
    buf_release(&out);
    ck_assert_uint_eq(ready_count(other), 1);
    peer_expect_nothing(peer);
    peer_publish(peer, 1, "", "q", "next");
    expect_blocked(peer, "low on memory");
    ck_assert_uint_eq(ready_count(other), 1);
}
END_TEST

START_TEST(deliveries_go_on) /* 4.6.4 */
{
    struct peer *peer = peer_open_channel(&harness), *publisher = peer_open_channel(&harness);

    declare_queue(peer);
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_BASIC_QOS, .basic_qos.prefetch_count = 1},
              AMQP_BASIC_QOS_OK);
    for (int i = 0; i < 3; i++)
        peer_publish(publisher, 1, "", "q", "m");
    set_memory(true);
    consume(peer); /* it has not published */
    peer_expect_content(peer, 1, AMQP_BASIC_DELIVER, "m");
    peer_send(peer, 1, &(struct amqp_method){.id = AMQP_BASIC_ACK, .basic_ack.delivery_tag = 1});
    peer_expect_content(peer, 1, AMQP_BASIC_DELIVER, "m");

    peer_publish(peer, 1, "", "q", "mine");
    expect_blocked(peer, "low on memory");
    peer_send(peer, 1, &(struct amqp_method){.id = AMQP_BASIC_ACK, .basic_ack.delivery_tag = 2});
    peer_expect_nothing(peer); /* its ack is not read */
    set_memory(false);
    peer_expect(peer, 0, AMQP_CONNECTION_UNBLOCKED);
    peer_expect_content(peer, 1, AMQP_BASIC_DELIVER, "m");
}
END_TEST

START_TEST(deliveries_to_who_is_blocked_go_on) /* 4.6.4 */
{
    struct peer *peer = peer_open_channel(&harness), *publisher = peer_open_channel(&harness);

    declare_queue(peer);
    consume(peer);
    set_memory(true);
    peer_publish(peer, 1, "", "q", "mine");
    expect_blocked(peer, "low on memory");
    set_memory(false);
    peer_expect(peer, 0, AMQP_CONNECTION_UNBLOCKED);
    peer_expect_content(peer, 1, AMQP_BASIC_DELIVER, "mine");
    peer_publish(publisher, 1, "", "q", "theirs");
    peer_expect_content(peer, 1, AMQP_BASIC_DELIVER, "theirs");
}
END_TEST

START_TEST(heartbeats_are_not_missed_while_blocked) /* 4.3.5 */
{
    struct peer *peer = open_plain(1);
    struct amqp_frame frame;
    unsigned heartbeats = 0;

    set_memory(true);
    ck_assert(peer->connection == NULL); /* it is read, and was silent for 10 s */
    peer = open_plain(1);
    peer_publish(peer, 1, "", "q", "m");
    harness_advance(&harness, 10000);
    expect_state(peer, "blocked");
    while (peer_next(peer, &frame))
        heartbeats += frame.type == AMQP_FRAME_HEARTBEAT;
    ck_assert_uint_ge(heartbeats, 10);
    now.memory_used = 0;
    harness_advance(&harness, 1500);
    expect_state(peer, "running");
    harness_advance(&harness, 3000);
    ck_assert(peer->connection == NULL);
}
END_TEST

START_TEST(who_is_blocked_can_be_told_to_go) /* 4.5.3 */
{
    struct peer *peer = peer_open_channel(&harness);

    set_memory(true);
    peer_publish(peer, 1, "", "q", "m");
    expect_blocked(peer, "low on memory");
    connection_force_close(peer->connection, "enough");
    harness_run(&harness);
    peer_expect_close(peer, 0, 320, "CONNECTION_FORCED - enough");
    peer_send(peer, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE_OK});
    peer_expect_end(peer);
    set_memory(false);
}
END_TEST

/* What is its own is there for its next connection, before the alarm has ended. */
START_TEST(who_leaves_while_blocked_is_gone) /* 4.5.4 */
{
    const struct amqp_method declare = {
        .id = AMQP_QUEUE_DECLARE, .queue_declare = {.queue = SLICE("own"), .exclusive = true}};
    struct peer *peer = peer_open_channel(&harness);

    peer_call(peer, 1, &declare, AMQP_QUEUE_DECLARE_OK);
    set_memory(true);
    peer_publish(peer, 1, "", "own", "m");
    expect_blocked(peer, "low on memory");
    memory_transport_end(&peer->memory);
    harness_run(&harness);
    ck_assert_uint_eq(harness.service.connection_count, 0);
    peer_call(peer_open_channel(&harness), 1, &declare, AMQP_QUEUE_DECLARE_OK);
    set_memory(false);
}
END_TEST

/* ---- who consumes ---- */

static void fill(struct peer *peer, const char *queue, int messages)
{
    static char body[1001];

    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                                    .queue_declare.queue = slice_of_string(queue)},
              AMQP_QUEUE_DECLARE_OK);
    memset(body, 'm', sizeof(body) - 1);
    for (int i = 0; i < messages; i++)
        peer_publish(peer, 1, "", queue, body);
}

static void start_consumer(struct peer *peer, const char *queue, bool no_ack)
{
    peer_send(peer, 1,
              &(struct amqp_method){
                  .id = AMQP_BASIC_CONSUME,
                  .basic_consume = {.queue = slice_of_string(queue), .no_ack = no_ack}});
}

static uint64_t delivered(const struct peer *peer)
{
    return container_of(map_find_id(&peer->connection->channels, 1), struct channel, by_number)
        ->delivered;
}

static void fill_for(uint64_t unacked_size_max, struct peer **peer)
{
    struct service_limits few = harness_limits;

    tear_down();
    few.unacked_size_max = unacked_size_max;
    set_up_with(&few);
    *peer = peer_open_channel(&harness);
    fill(*peer, "q", 100);
    set_memory(true);
}

/* While memory is low they get a part; and what they wait for when it is not any more. */
START_TEST(who_does_not_acknowledge_gets_little)
{
    struct peer *peer;

    fill_for(64 * 5000, &peer);
    start_consumer(peer, "q", false);
    ck_assert_uint_eq(delivered(peer), 5);
    if (_i == 1)
        set_disk(true);
    set_memory(false);
    ck_assert_uint_eq(delivered(peer), 100);
}
END_TEST

static void set_prefetch(struct peer *peer, uint16_t count, bool global)
{
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_BASIC_QOS,
                                    .basic_qos = {.prefetch_count = count, .global = global}},
              AMQP_BASIC_QOS_OK);
}

static void ack_up_to(struct peer *peer, uint64_t tag)
{
    peer_send(peer, 1,
              &(struct amqp_method){.id = AMQP_BASIC_ACK,
                                    .basic_ack = {.delivery_tag = tag, .multiple = true}});
}

/* It acknowledges 40 at once, which are more than a part of the limit. */
START_TEST(who_said_how_much_it_takes_gets_it)
{
    struct peer *peer;

    fill_for(64 * 5000, &peer);
    set_prefetch(peer, 40, _i == 1);
    start_consumer(peer, "q", false);
    ck_assert_uint_eq(delivered(peer), 40);
    ack_up_to(peer, 40);
    ck_assert_uint_eq(delivered(peer), 80);
    ck_assert_uint_eq(harness_logged(&harness, "unacked_memory_limit"), 0);
    struct peer *bare = peer_open_channel(&harness);
    start_consumer(bare, "q", false);
    ck_assert_uint_eq(delivered(bare), 5);
    ck_assert_uint_eq(harness_logged(&harness, "the maximum for consumers without a prefetch, "
                                               "while memory is low, is 5000 (unacked_memory"),
                      1);
}
END_TEST

/* They take what they said, up to where it would be all memory: the rest when there is some again. */
START_TEST(when_memory_is_critical_all_get_little)
{
    struct peer *peer;

    fill_for(64 * 5000, &peer);
    set(5 * GIB, now.disk_free);
    set_prefetch(peer, 100, _i == 1);
    start_consumer(peer, "q", false);
    ck_assert_uint_eq(delivered(peer), 5);
    ck_assert_uint_eq(
        harness_logged(&harness, "the maximum while memory is critical is 5000 (unacked_memory"),
        1);
    set(4 * GIB - MIB, now.disk_free); /* a little less */
    ck_assert_uint_eq(delivered(peer), 5);
    set_memory(true); /* low, but not critical */
    ck_assert_uint_eq(delivered(peer), 100);
}
END_TEST

/* A limit of all memory would be none. */
START_TEST(a_connection_has_at_most_a_part_of_memory)
{
    const struct alarm_limits small = {.memory_max = 10000, .memory_critical = 4 * 5000};
    const struct alarm_source source = {.read = read_now, .release = release};
    struct peer *peer;

    fill_for(64 * 5000, &peer);
    set_memory(false);
    now.memory_used = 1;
    alarm_stop(&harness.service.alarm);
    alarm_start(&harness.service.alarm, &harness.loop.timers, &harness.clock, &small, &source);
    start_consumer(peer, "q", false);
    ck_assert_uint_eq(delivered(peer), 5);
}
END_TEST

START_TEST(who_gets_one_by_one_gets_them)
{
    struct peer *peer;

    fill_for(64 * 5000, &peer);
    for (int i = 0; i < 20; i++)
        peer_send(peer, 1,
                  &(struct amqp_method){.id = AMQP_BASIC_GET, .basic_get.queue = SLICE("q")});
    ck_assert_ptr_nonnull(peer->connection);
    ck_assert_uint_gt(peer->connection->unacked_size, 20000);
}
END_TEST

/* At the whole limit it waits, and goes on once there is room below that, not below a part of it. */
START_TEST(who_is_at_the_whole_limit_goes_on_below_it)
{
    struct peer *peer;

    fill_for(20000, &peer);
    set_memory(false);
    fill(peer, "r", 5);
    set_memory(true);
    set_prefetch(peer, 1000, false);
    start_consumer(peer, "q", false);
    const uint64_t first = delivered(peer);
    ck_assert_uint_ge(first, 15);
    ck_assert_uint_le(first, 20);
    start_consumer(peer, "r", false);
    ck_assert_uint_eq(delivered(peer), first);
    peer_send(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_PURGE, .queue_purge.queue = SLICE("q")});
    ack_up_to(peer, first / 2); /* those of the other queue: nothing but the limit wakes this one */
    ck_assert_uint_eq(delivered(peer), first + 5);
}
END_TEST

START_TEST(who_does_not_read_gets_little)
{
    struct peer *peer = peer_open_channel(&harness);

    fill(peer, "q", 100);
    set_memory(true);
    memory_transport_take(&peer->memory, 0);
    start_consumer(peer, "q", true);
    ck_assert_uint_le(delivered(peer), 17); /* 16 KiB */
    ck_assert_uint_ge(delivered(peer), 12);
    if (_i == 1)
        set_memory(false);
    memory_transport_take(&peer->memory, SIZE_MAX);
    harness_run(&harness);
    ck_assert_uint_eq(delivered(peer), 100);
}
END_TEST

/* Refused in a turn in which nothing was written. */
START_TEST(what_is_unread_already_counts)
{
    struct peer *peer = peer_open_channel(&harness), *other = peer_open_channel(&harness);

    fill(peer, "q", 51);
    peer_send(other, 1, &(struct amqp_method){.id = AMQP_BASIC_GET, .basic_get.queue = SLICE("q")});
    memory_transport_take(&peer->memory, 0);
    start_consumer(peer, "q", true);
    ck_assert_uint_eq(delivered(peer), 50);
    set_memory(true);
    peer_send(other, 1,
              &(struct amqp_method){.id = AMQP_BASIC_REJECT,
                                    .basic_reject = {.delivery_tag = 1, .requeue = true}});
    ck_assert_uint_eq(delivered(peer), 50);
    set_memory(false);
    ck_assert_uint_eq(delivered(peer), 51);
}
END_TEST

/* ---- resources ---- */

static char *make_root(void)
{
    static char root[] = "/tmp/stoatmq-groups-XXXXXX";

    strcpy(root + sizeof(root) - 7, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
    return root;
}

static void make_group(const char *root, const char *path, const char *name, const char *limit)
{
    char *directory = xasprintf("%s%s", root, path), *file = xasprintf("%s/%s", directory, name);

    mkdir(directory, 0700);
    FILE *out = fopen(file, "w");
    ck_assert_ptr_nonnull(out);
    fprintf(out, "%s\n", limit);
    fclose(out);
    free(directory);
    free(file);
}

START_TEST(control_groups_limit_memory) /* 4.6.1 */
{
    const char *root = make_root();

    make_group(root, "", "cgroup.procs", "1");
    make_group(root, "/slice", "memory.max", "500000000");
    make_group(root, "/slice/service", "memory.max", "max");
    make_group(root, "/memory", "memory.limit_in_bytes", "9223372036854771712");
    make_group(root, "/memory/docker", "memory.limit_in_bytes", "300000000");
    const struct {
        const char *line;
        uint64_t limit;
    } cases[] = {
        {"0::/slice/service\n", 500000000},
        {"0::/slice", 500000000},
        {"0::/\n", UINT64_MAX},
        {"0::/gone/slice\n", UINT64_MAX},
        {"4:memory:/docker\n", 300000000},
        {"4:memory:/\n", UINT64_C(9223372036854771712)},
        {"4:memory:/outside/of/us\n", UINT64_C(9223372036854771712)},
        {"5:cpu,cpuacct:/docker\n", UINT64_MAX},
        {"nonsense", UINT64_MAX},
        {"1:", UINT64_MAX},
        {"", UINT64_MAX},
    };
    for (size_t i = 0; i < countof(cases); i++)
        ck_assert_msg(resources_group_limit(cases[i].line, root) == cases[i].limit, "%s",
                      cases[i].line);
    char *remove = xasprintf("rm -r %s", root);
    ck_assert_int_eq(system(remove), 0);
    free(remove);
}
END_TEST

START_TEST(this_process_has_resources) /* 4.6.1 */
{
    const size_t size = 64 * MIB;

    ck_assert_uint_gt(resources_memory_total(), 64 * MIB);
    ck_assert_uint_gt(resources_disk_free("/tmp"), 0);
    ck_assert_uint_eq(resources_disk_free("/no/such/place"), UINT64_MAX);
    const uint64_t before = resources_memory_used();
    char *block = xmalloc(size);
    memset(block, 1, size);
    ck_assert_uint_ge(resources_memory_used(), before + size - MIB);
    ck_assert_int_eq(block[size / 2], 1);
    free(block);
    resources_release();
}
END_TEST

static Suite *alarm_suite(void)
{
    Suite *suite = suite_create("alarm");
    TCase *tests = tcase_create("alarm");
    TCase *resources = tcase_create("resources");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, is_on_beyond_its_limit, 0, countof(states));
    tcase_add_loop_test(tests, looks_more_often_near_a_limit, 0, countof(paces));
    tcase_add_test(tests, looks_now_and_then_far_from_it);
    tcase_add_test(tests, memory_that_is_only_kept_is_given_back_first);
    tcase_add_test(tests, says_when_it_comes_and_goes);
    tcase_add_test(tests, who_has_not_published_goes_on);
    tcase_add_test(tests, who_publishes_is_not_read);
    tcase_add_test(tests, a_binding_that_brings_messages_publishes_them);
    tcase_add_test(tests, blocked_is_said_once_until_the_last_alarm_clears);
    tcase_add_test(tests, who_cannot_be_told_is_blocked_all_the_same);
    tcase_add_test(tests, a_publish_under_way_is_finished);
    tcase_add_test(tests, deliveries_go_on);
    tcase_add_test(tests, deliveries_to_who_is_blocked_go_on);
    tcase_add_test(tests, heartbeats_are_not_missed_while_blocked);
    tcase_add_test(tests, who_is_blocked_can_be_told_to_go);
    tcase_add_test(tests, who_leaves_while_blocked_is_gone);
    tcase_add_loop_test(tests, who_does_not_acknowledge_gets_little, 0, 2);
    tcase_add_loop_test(tests, who_said_how_much_it_takes_gets_it, 0, 2);
    tcase_add_loop_test(tests, when_memory_is_critical_all_get_little, 0, 2);
    tcase_add_test(tests, a_connection_has_at_most_a_part_of_memory);
    tcase_add_test(tests, who_gets_one_by_one_gets_them);
    tcase_add_test(tests, who_is_at_the_whole_limit_goes_on_below_it);
    tcase_add_loop_test(tests, who_does_not_read_gets_little, 0, 2);
    tcase_add_test(tests, what_is_unread_already_counts);
    suite_add_tcase(suite, tests);
    tcase_add_test(resources, control_groups_limit_memory);
    tcase_add_test(resources, this_process_has_resources);
    suite_add_tcase(suite, resources);
    return suite;
}

int main(void)
{
    return unit_main(alarm_suite());
}
