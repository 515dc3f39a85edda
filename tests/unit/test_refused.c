/* A batch that comes back refused, for want of room, while what is in it has been acknowledged,
 * purged or deleted with its queue: all of that holds, and everybody is answered. And what a store
 * without room must not fill memory with. */
#include "core/vhost.h"
#include "store/memory.h"
#include "tests/lib/queue_client.h"
#include "tests/lib/unit.h"

enum { ROOM_MS = 300 /* until the store is asked again, at the latest */ };

static struct harness harness;
static struct peer *peer;

static void set_up(void)
{
    harness_init(&harness, NULL);
    peer = peer_open_channel(&harness);
    declare_queue(peer, "q", true, NULL);
    declare_queue(peer, "other", true, NULL);
    store_memory_set_auto_sync(harness.store, false);
}

static void tear_down(void)
{
    harness_release(&harness);
}

/* What is under way becomes durable, or comes back. */
static void sync(void)
{
    store_memory_sync(harness.store);
    harness_run(&harness);
}

static void set_room(enum store_memory_room room)
{
    store_memory_set_room(harness.store, room);
}

/* The store is asked, and everything becomes durable. */
static void make_room(void)
{
    set_room(STORE_MEMORY_ROOM_FOR_ALL);
    store_memory_set_auto_sync(harness.store, true);
    harness_advance(&harness, ROOM_MS);
    ck_assert(!store_is_full(harness.store));
    ck_assert_uint_eq(store_durable_entries(harness.store), store_open_lsn(harness.store) - 1);
}

static void crash(void)
{
    harness_restart(&harness, true);
    harness_run(&harness);
    peer = peer_open_channel(&harness);
}

static void select_confirms(void)
{
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_CONFIRM_SELECT}, AMQP_CONFIRM_SELECT_OK);
}

START_TEST(what_is_acked_meanwhile_is_confirmed_and_gone)
{
    select_confirms();
    publish(peer, "q", "m");
    ck_assert(store_is_busy(harness.store));
    ack(peer, get_unacked(peer, "q", "m"));
    set_room(STORE_MEMORY_ROOM_FOR_DELETES);
    sync();
    ck_assert(store_open_is_empty(harness.store));
    peer_expect_nothing(peer);
    make_room();
    peer_expect(peer, 1, AMQP_BASIC_ACK);
    crash();
    ck_assert_uint_eq(0, count_ready(peer, "q"));
}
END_TEST

/* With what was durable before and what came after; some of it is unacked, and stays. */
START_TEST(what_is_purged_meanwhile_is_gone)
{
    enum { EACH = 10 };
    const bool keeps = _i == 1;

    for (int i = 0; i < EACH; i++)
        publish(peer, "q", "durable");
    while (store_is_busy(harness.store))
        sync();
    publish(peer, "other", "first");
    for (int i = 0; i < EACH; i++)
        publish(peer, "q", "under way");
    sync(); /* what was open leaves */
    ck_assert(store_is_busy(harness.store));
    for (int i = 0; i < EACH; i++)
        publish(peer, "q", "open");
    if (keeps)
        get_unacked(peer, "q", "durable");
    set_room(STORE_MEMORY_ROOM_FOR_DELETES);
    const struct amqp_method purge = {.id = AMQP_QUEUE_PURGE, .queue_purge.queue = SLICE("q")};
    peer_send(peer, 1, &purge);
    sync();
    make_room();
    crash();
    ck_assert_uint_eq(keeps, count_ready(peer, "q"));
    ck_assert_uint_eq(1, count_ready(peer, "other"));
}
END_TEST

/* A consumer holds what is under way when its queue goes, and acknowledges it late. */
START_TEST(a_late_ack_of_a_deleted_queue_is_harmless)
{
    static const enum store_memory_room rooms[] = {STORE_MEMORY_ROOM_FOR_DEFINITIONS,
                                                   STORE_MEMORY_ROOM_FOR_DELETES,
                                                   STORE_MEMORY_ROOM_FOR_NOTHING};
    const struct amqp_method delete = {.id = AMQP_QUEUE_DELETE, .queue_delete.queue = SLICE("q")};
    struct buf out = BUF_EMPTY;

    select_confirms();
    for (int i = 0; i < 2; i++)
        put_publish(&out, "", i == 0 ? "q" : "other", "m", &(struct sent){.persistent = true});
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    const uint64_t tag = get_unacked(peer, "q", "m");
    set_room(rooms[_i]);
    peer_send(peer, 1, &delete);
    sync();
    sync();
    ack(peer, tag);
    harness_run(&harness);
    if (_i == 0)
        peer_expect(peer, 1, AMQP_QUEUE_DELETE_OK);
    peer_expect_nothing(peer);
    make_room();
    if (_i > 0)
        peer_expect(peer, 1, AMQP_QUEUE_DELETE_OK);
    ck_assert_uint_eq(2, peer_expect(peer, 1, AMQP_BASIC_ACK).basic_ack.delivery_tag);
    crash();
    ck_assert_uint_eq(1, count_ready(peer, "other"));
}
END_TEST

/* More than may wait in memory is due while there is no room for dead letters. */
START_TEST(what_is_due_waits_for_room)
{
    enum { BODY_SIZE = 4096, COUNT = 8000, WAITING_MAX = 16 * 1024 * 1024 };
    static char body[BODY_SIZE];
    struct buf out = BUF_EMPTY;

    memset(body, 'm', BODY_SIZE - 1);
    paging_set_limit(&harness.broker.paging, 1024 * 1024);
    store_memory_set_auto_sync(harness.store, true);
    declare_queue(peer, "due", true,
                  "x-message-ttl=I5000,x-dead-letter-exchange=S,x-dead-letter-routing-key=Sq");
    put_publish(&out, "", "due", body, &(struct sent){.persistent = true});
    for (int i = 0; i < COUNT; i++)
        peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    set_room(STORE_MEMORY_ROOM_FOR_DELETES);
    publish(peer, "other", "the last straw");
    ck_assert(store_is_full(harness.store));
    harness_advance(&harness, 10000);
    if (_i == 1) {
        consume(peer, "due", "c", false, NULL);
        harness_advance(&harness, 1000);
    }
    ck_assert_uint_lt(store_open_bytes(harness.store), WAITING_MAX);
    if (_i == 1)
        peer_call(
            peer, 1,
            &(struct amqp_method){.id = AMQP_BASIC_CANCEL, .basic_cancel.consumer_tag = SLICE("c")},
            AMQP_BASIC_CANCEL_OK);
    ck_assert_uint_gt(count_ready(peer, "due"), 0);
    set_room(STORE_MEMORY_ROOM_FOR_ALL);
    harness_advance(&harness, 5000);
    ck_assert_uint_eq(0, count_ready(peer, "due"));
    ck_assert_uint_eq(COUNT, count_ready(peer, "q"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("refused");
    TCase *tests = tcase_create("refused");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, what_is_acked_meanwhile_is_confirmed_and_gone);
    tcase_add_loop_test(tests, what_is_purged_meanwhile_is_gone, 0, 2);
    tcase_add_loop_test(tests, a_late_ack_of_a_deleted_queue_is_harmless, 0, 3);
    tcase_add_loop_test(tests, what_is_due_waits_for_room, 0, 2);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
