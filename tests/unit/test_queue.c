/* Queues as clients meet them, where it takes a part of the queue on disk or more than one
 * client. */
#include "core/queue.h"

#include "amqp/client.h"
#include "amqp/properties.h"
#include "base/alloc.h"
#include "core/vhost.h"
#include "store/memory.h"
#include "tests/lib/queue_client.h"
#include "tests/lib/unit.h"

static const struct amqp_method declare_q = {
    .id = AMQP_QUEUE_DECLARE,
    .queue_declare = {.queue = {(const uint8_t *)"q", 1}, .durable = true}};
static const struct amqp_method get_q = {
    .id = AMQP_BASIC_GET, .basic_get = {.queue = {(const uint8_t *)"q", 1}, .no_ack = true}};

/* count persistent messages of this size to q: "aaa...", "bbb...", and so on. */
static void publish_many(struct peer *peer, int count, size_t size)
{
    struct buf out = BUF_EMPTY, properties = BUF_EMPTY;
    char *body = xmalloc(size);

    amqp_properties_encode(
        &properties,
        &(struct amqp_properties){.flags = AMQP_PROPERTY_DELIVERY_MODE, .delivery_mode = 2});
    for (int i = 0; i < count; i++) {
        memset(body, 'a' + i, size);
        amqp_client_publish(&out, 1, 131072,
                            &(struct amqp_client_message){.routing_key = SLICE("q"),
                                                          .properties = buf_slice(&properties),
                                                          .body = slice_of(body, size)});
    }
    peer_send_bytes(peer, buf_slice(&out));
    for (int i = 0; i < 4; i++)
        harness_run(peer->harness);
    free(body);
    buf_release(&out);
    buf_release(&properties);
}

/* A broker that was started over a queue of so many messages. */
static void start_with_messages(struct harness *harness, int count, size_t size)
{
    harness_init(harness, NULL);
    struct peer *peer = peer_open_channel(harness);
    peer_call(peer, 1, &declare_q, AMQP_QUEUE_DECLARE_OK);
    publish_many(peer, count, size);
    ck_assert(!store_is_busy(harness->store));
    harness_restart(harness, false);
}

static void send_later(struct peer *peer, const struct amqp_method *method)
{
    struct buf out = BUF_EMPTY;

    amqp_method_encode(&out, 1, method);
    memory_transport_send(&peer->memory, buf_slice(&out));
    buf_release(&out);
}

/* One read brings one message of this size, and both ask at once. */
START_TEST(gets_share_what_a_read_brings)
{
    enum { SIZE = 1024 * 1024 };
    struct harness harness;
    start_with_messages(&harness, 3, SIZE);
    struct peer *peers[4];
    for (size_t i = 0; i < countof(peers); i++)
        peers[i] = peer_open_channel(&harness);
    for (size_t i = 0; i < countof(peers); i++)
        send_later(peers[i], &get_q);
    for (int i = 0; i < 4; i++)
        harness_run(&harness);

    char *body = xcalloc(1, SIZE + 1);
    for (size_t i = 0; i < 3; i++) {
        memset(body, (int)('a' + i), SIZE);
        peer_expect_content(peers[i], 1, AMQP_BASIC_GET_OK, body);
    }
    peer_expect(peers[3], 1, AMQP_BASIC_GET_EMPTY);
    free(body);
    harness_release(&harness);
}
END_TEST

START_TEST(a_get_that_waits_sees_purge_and_delete)
{
    const struct amqp_method methods[] = {
        {.id = AMQP_QUEUE_PURGE, .queue_purge.queue = SLICE("q")},
        {.id = AMQP_QUEUE_DELETE, .queue_delete.queue = SLICE("q")},
    };
    struct harness harness;
    start_with_messages(&harness, 3, 10);
    struct peer *peer = peer_open_channel(&harness), *other = peer_open_channel(&harness);
    send_later(peer, &get_q);
    send_later(other, &methods[_i]);
    harness_run(&harness);
    peer_expect(peer, 1, AMQP_BASIC_GET_EMPTY);
    const struct amqp_method ok =
        peer_expect(other, 1, _i == 0 ? AMQP_QUEUE_PURGE_OK : AMQP_QUEUE_DELETE_OK);
    ck_assert_uint_eq(3,
                      _i == 0 ? ok.queue_purge_ok.message_count : ok.queue_delete_ok.message_count);
    peer_expect_nothing(peer);
    harness_release(&harness);
}
END_TEST

START_TEST(a_get_that_waits_may_vanish)
{
    struct harness harness;
    start_with_messages(&harness, 3, 10);
    struct peer *peer = peer_open_channel(&harness), *other = peer_open_channel(&harness);
    send_later(peer, &get_q);
    loop_turn(&harness.loop, 0);
    ck_assert(peer->connection->held);
    connection_drop(peer->connection, "test");
    send_later(other, &get_q);
    harness_run(&harness);
    peer_expect_content(other, 1, AMQP_BASIC_GET_OK, "aaaaaaaaaa");
    harness_release(&harness);
}
END_TEST

/* The same message object, as a fan-out or a dead letter has it, with its first entry gone before
 * its batch left. */
START_TEST(a_message_taken_back_can_be_stored_again)
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct vhost *vhost = vhost_find(&harness.broker, SLICE("/"));
    struct peer *peer = peer_open_channel(&harness);
    peer_call(peer, 1, &declare_q, AMQP_QUEUE_DECLARE_OK);
    struct queue *queue = vhost_find_queue(vhost, SLICE("q"), ACCESS_GET, NULL, NULL);

    struct message *messages[2];
    for (size_t i = 0; i < countof(messages); i++) {
        messages[i] = message_new(SLICE(""), SLICE("q"), SLICE("\0\0"), 1, true);
        message_append_body(messages[i], i == 0 ? SLICE("a") : SLICE("b"));
    }
    uint64_t lsn;
    queue_push(queue, messages[0]);
    ck_assert_uint_eq(1, queue_purge(queue, &lsn));
    queue_push(queue, messages[1]);
    queue_push(queue, messages[0]);
    for (size_t i = 0; i < countof(messages); i++)
        message_unref(&messages[i]);
    harness_run(&harness);
    harness_restart(&harness, true);

    peer = peer_open_channel(&harness);
    peer_send(peer, 1, &get_q);
    peer_expect_content(peer, 1, AMQP_BASIC_GET_OK, "b");
    peer_send(peer, 1, &get_q);
    peer_expect_content(peer, 1, AMQP_BASIC_GET_OK, "a");
    harness_release(&harness);
}
END_TEST

/* ---- purge ---- */

/* Every third one is not persistent; what is unacked stands between what goes; in memory, or all
 * that can be on disk. */
START_TEST(a_purge_spares_what_is_unacked)
{
    const bool kept[20] = {[0] = true, [4] = true, [5] = true, [10] = true};
    const size_t taken = 11;
    const bool crash = _i % 2 == 1, paged = _i / 2 % 2 == 1, last_goes = _i / 4 == 1;
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    uint64_t tags[20];
    char body[8];

    declare_queue(peer, "q", true, NULL);
    for (size_t i = 0; i < countof(kept); i++) {
        snprintf(body, sizeof(body), "%zu", i);
        publish_with(peer, "q", body, &(struct sent){.persistent = i % 3 != 2});
    }
    harness_run(&harness);
    for (size_t i = 0; i < taken; i++) {
        snprintf(body, sizeof(body), "%zu", i);
        tags[i] = get_unacked(peer, "q", body);
    }
    for (size_t i = 0; i < taken; i++)
        if (!kept[i])
            reject(peer, tags[i], true);
    if (last_goes)
        ack(peer, tags[10]); /* in the batch that purges, as far as it is stored */
    if (paged)
        paging_set_limit(&harness.broker.paging, 0);
    harness_run(&harness);
    const struct amqp_method purge = {.id = AMQP_QUEUE_PURGE, .queue_purge.queue = SLICE("q")};
    ck_assert_uint_eq(16,
                      peer_call(peer, 1, &purge, AMQP_QUEUE_PURGE_OK).queue_purge_ok.message_count);
    publish_with(peer, "q", "new", &(struct sent){.persistent = true});
    harness_restart(&harness, crash);

    peer = peer_open_channel(&harness);
    for (size_t i = 0; i < taken; i++) {
        snprintf(body, sizeof(body), "%zu", i);
        if (kept[i] && i % 3 != 2 && !(i == 10 && last_goes))
            get_one(peer, "q", body);
    }
    get_one(peer, "q", "new");
    get_nothing(peer, "q");
    harness_release(&harness);
}
END_TEST

/* ---- 12: what survives ---- */

static const struct {
    bool durable;
    const char *arguments;
    bool persistent;
    int left; /* messages after a restart; -1: not even the queue */
} survival_cases[] = {
    {false, NULL, false, -1},
    {false, NULL, true, -1},
    {true, NULL, false, 0},
    {true, NULL, true, 1},
    {true, "x-queue-type=Squorum", false, 1},
    {true, "x-queue-type=Squorum", true, 1},
};

START_TEST(what_survives_a_restart) /* 12, 8.4, 8.15, 9.6 */
{
    const struct amqp_method passive = {.id = AMQP_QUEUE_DECLARE,
                                        .queue_declare = {.queue = SLICE("a"), .passive = true}};
    const bool crash = _i % 2 == 1;
    const size_t i = (size_t)_i / 2;
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    declare_queue(peer, "a", survival_cases[i].durable, survival_cases[i].arguments);
    publish_with(peer, "a", "m", &(struct sent){.persistent = survival_cases[i].persistent});
    harness_restart(&harness, crash);

    peer = peer_open_channel(&harness);
    if (survival_cases[i].left >= 0) {
        ck_assert_int_eq(survival_cases[i].left, (int)count_ready(peer, "a"));
    } else {
        peer_send(peer, 1, &passive);
        peer_expect_close(peer, 1, 404, "NOT_FOUND - no queue 'a' in vhost '/'");
    }
    harness_release(&harness);
}
END_TEST

/* Who consumes hears nothing of it, but for the delay; nor is it said more than once. */
START_TEST(a_consumer_goes_on_after_failed_reads)
{
    struct harness harness;
    start_with_messages(&harness, 3, 1);
    struct peer *peer = peer_open_channel(&harness);

    store_memory_fail_fetches(harness.store, ENOMEM);
    consume(peer, "q", "c", true, NULL);
    for (int i = 0; i < 50; i++)
        harness_advance(&harness, 100);
    peer_expect_nothing(peer);
    ck_assert_uint_eq(1, harness_logged(&harness, "cannot be read"));
    store_memory_fail_fetches(harness.store, 0);
    harness_advance(&harness, 1000);
    expect_delivery(peer, "a");
    expect_delivery(peer, "b");
    expect_delivery(peer, "c");
    ck_assert_uint_eq(1, harness_logged(&harness, "can be read from disk again"));
    ck_assert_uint_eq(0, harness.broker.counters.set_aside);
    harness_release(&harness);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("queue");
    TCase *disk = tcase_create("on disk");
    tcase_set_timeout(disk, 20);
    tcase_add_test(disk, gets_share_what_a_read_brings);
    tcase_add_loop_test(disk, a_get_that_waits_sees_purge_and_delete, 0, 2);
    tcase_add_test(disk, a_get_that_waits_may_vanish);
    tcase_add_test(disk, a_consumer_goes_on_after_failed_reads);
    suite_add_tcase(suite, disk);

    TCase *batch = tcase_create("batch");
    tcase_add_test(batch, a_message_taken_back_can_be_stored_again);
    suite_add_tcase(suite, batch);

    TCase *purge = tcase_create("purge");
    tcase_add_loop_test(purge, a_purge_spares_what_is_unacked, 0, 8);
    suite_add_tcase(suite, purge);

    TCase *survival = tcase_create("survival");
    tcase_add_loop_test(survival, what_survives_a_restart, 0, 2 * countof(survival_cases));
    suite_add_tcase(suite, survival);
    return unit_main(suite);
}
