/* Dead letters of quorum queues that must not be lost (13.3, at-least-once): they stay until they
 * are taken, they go as soon as they can, and they are never in two places. */
#include "core/outbox.h"

#include "base/alloc.h"
#include "core/vhost.h"
#include "store/memory.h"
#include "tests/lib/one_peer.h"
#include "tests/lib/queue_client.h"
#include "tests/lib/unit.h"

#define KEPT                                                                                       \
    "x-queue-type=Squorum,x-overflow=Sreject-publish,x-dead-letter-strategy=Sat-least-once,"       \
    "x-dead-letter-exchange="
#define TO_X    KEPT "Sx" /* by the message's own key */
#define TO_DEAD KEPT "S,x-dead-letter-routing-key=Sdead"

static void reject_one(const char *queue, const char *body)
{
    reject(peer, get_unacked(peer, queue, body), false);
    harness_run(&harness);
}

static void fill_dead(void)
{
    declare_queue(peer, "dead", true, "x-max-length=I1,x-overflow=Sreject-publish");
    publish(peer, "dead", "in the way");
}

/* ---- what is in the way, and its end ---- */

static void no_exchange(void)
{
}

static void add_exchange(void)
{
    declare_exchange(peer, "x", "direct");
    declare_queue(peer, "dead", true, NULL);
    bind_queue(peer, "dead", "x", "q");
}

static void no_queue(void)
{
    declare_exchange(peer, "x", "direct");
}

static void full_queue(void)
{
    declare_exchange(peer, "x", "direct");
    fill_dead();
    bind_queue(peer, "dead", "x", "q");
}

static void make_room(void)
{
    get_one(peer, "dead", "in the way");
}

/* One of two takes it: neither is given it before the other does. */
static void one_of_two_full(void)
{
    full_queue();
    declare_queue(peer, "second", true, NULL);
    bind_queue(peer, "second", "x", "q");
}

static const struct {
    void (*obstruct)(void), (*clear)(void);
} obstacles[] = {
    {no_exchange, add_exchange},
    {no_queue, add_exchange},
    {full_queue, make_room},
    {one_of_two_full, make_room},
};

static void die_rejected(void)
{
    publish(peer, "q", "m");
    reject_one("q", "m");
}

static void die_expired(void)
{
    publish_with(peer, "q", "m", &(struct sent){.persistent = true, .expiration = "100"});
    harness_advance(&harness, 200);
}

static void die_at_once(void)
{
    publish_with(peer, "q", "m", &(struct sent){.persistent = true, .expiration = "0"});
    harness_run(&harness);
}

static void die_of_deliveries(void)
{
    publish(peer, "q", "m");
    for (int i = 0; i < 21; i++)
        reject(peer, get_unacked(peer, "q", "m"), true);
    harness_run(&harness);
}

static const struct {
    void (*die)(void);
    const char *reason;
} deaths[] = {
    {die_rejected, "Srejected"},
    {die_expired, "Sexpired"},
    {die_at_once, "Sexpired"},
    {die_of_deliveries, "Sdelivery_limit"},
};

START_TEST(a_letter_stays_until_it_is_taken) /* 13.1, 13.3 */
{
    const size_t obstacle = (size_t)_i % countof(obstacles),
                 death = (size_t)_i / countof(obstacles);

    obstacles[obstacle].obstruct();
    declare_queue(peer, "q", true, TO_X);
    deaths[death].die();
    harness_advance(&harness, 5000);
    get_nothing(peer, "q");
    if (obstacles[obstacle].obstruct == one_of_two_full)
        get_nothing(peer, "second");
    ck_assert_uint_eq(1, harness_logged(&harness, "dead letters stay in it"));
    obstacles[obstacle].clear();
    harness_advance(&harness, OUTBOX_RETRY_MS + 100);
    get_one(peer, "dead", "m");
    ck_assert_str_eq(header_of(peer, "x-first-death-reason"), deaths[death].reason);
    harness_advance(&harness, 5000);
    restart(true);
    get_nothing(peer, "dead");
    get_nothing(peer, "q");
}
END_TEST

START_TEST(a_letter_goes_at_once_if_it_can) /* 13.3 */
{
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true, TO_DEAD);
    deaths[_i].die();
    get_one(peer, "dead", "m");
    get_nothing(peer, "q");
    ck_assert_uint_eq(0, harness_logged(&harness, "dead letters stay in it"));
}
END_TEST

/* After a restart what could not go is where it was: what was rejected is delivered again. */
START_TEST(a_restart_keeps_letters) /* 13.3, 12 */
{
    const size_t death = (size_t)_i / 2;

    full_queue();
    declare_queue(peer, "q", true, TO_X);
    deaths[death].die();
    harness_advance(&harness, 1000);
    restart(_i % 2 == 1);
    make_room();
    if (deaths[death].die == die_rejected || deaths[death].die == die_of_deliveries)
        reject_one("q", "m");
    harness_advance(&harness, OUTBOX_RETRY_MS + 100);
    get_one(peer, "dead", "m");
    get_nothing(peer, "q");
}
END_TEST

START_TEST(many_go_in_order) /* 13.3 */
{
    enum { COUNT = 5 * OUTBOX_TRYING_MAX };
    uint64_t tags[COUNT];
    char body[8];

    declare_queue(peer, "q", true, TO_X);
    for (int i = 0; i < COUNT; i++) {
        snprintf(body, sizeof(body), "%d", i);
        publish(peer, "q", body);
        tags[i] = get_unacked(peer, "q", body);
    }
    for (int i = 0; i < COUNT; i++) /* some before it is tried, some after */
        reject(peer, tags[i], false);
    harness_advance(&harness, 3000);
    add_exchange();
    harness_advance(&harness, OUTBOX_RETRY_MS + 100);
    for (int i = 0; i < COUNT; i++) {
        snprintf(body, sizeof(body), "%d", i);
        get_one(peer, "dead", body);
    }
    get_nothing(peer, "dead");
    get_nothing(peer, "q");
}
END_TEST

/* Fewer than there are places for. */
START_TEST(one_that_stays_does_not_hold_up_others) /* 13.3 */
{
    declare_exchange(peer, "in", "fanout");
    declare_queue(peer, "q", true, TO_X);
    bind_queue(peer, "q", "in", "");
    add_exchange();
    peer_publish(peer, 1, "in", "nowhere", "a");
    peer_publish(peer, 1, "in", "q", "b");
    reject_one("q", "a");
    reject_one("q", "b");
    get_one(peer, "dead", "b");
    get_nothing(peer, "dead");
    bind_queue(peer, "dead", "x", "nowhere");
    harness_advance(&harness, OUTBOX_RETRY_MS + 100);
    get_one(peer, "dead", "a");
}
END_TEST

START_TEST(what_is_kept_counts_for_the_limit) /* 13.3, 11.5 */
{
    declare_queue(peer, "q", true, TO_X ",x-max-length=I2");
    publish(peer, "q", "a");
    publish(peer, "q", "b");
    reject_one("q", "a");
    publish(peer, "q", "c");
    get_one(peer, "q", "b");
    get_nothing(peer, "q"); /* c was refused */
    publish(peer, "q", "d");
    get_one(peer, "q", "d");
}
END_TEST

static const char *const weak[] = {
    "x-queue-type=Squorum,x-dead-letter-exchange=Sx,x-dead-letter-strategy=Sat-least-once",
    "x-queue-type=Squorum,x-dead-letter-exchange=Sx,x-overflow=Sreject-publish,"
    "x-dead-letter-strategy=Sat-most-once",
};

START_TEST(others_are_sent_at_most_once) /* 13.3 */
{
    declare_queue(peer, "q", true, weak[_i]);
    ck_assert_uint_eq(_i == 0, harness_logged(&harness, "dead-letter-strategy is at-most-once"));
    die_rejected();
    add_exchange();
    harness_advance(&harness, 5000);
    get_nothing(peer, "dead");
    restart(true);
    get_nothing(peer, "q");
}
END_TEST

static void set_policy(const char *definition)
{
    struct buf table = BUF_EMPTY;
    char error[POLICY_ERROR_SIZE] = "";
    struct map_link *link = map_next(&harness.broker.vhosts, NULL);

    const struct policy *policy =
        policy_set(container_of(link, struct vhost, by_name),
                   &(struct policy_options){.apply_to = POLICY_QUORUM_QUEUES,
                                            .name = SLICE("letters"),
                                            .pattern = SLICE(""),
                                            .definition = arguments_of(&table, definition)},
                   error);
    ck_assert_msg(policy != NULL, "%s", error);
    buf_release(&table);
    harness_run(&harness);
}

START_TEST(a_policy_says_so_and_takes_it_back) /* 13.3, 17.3 */
{
    declare_queue(peer, "q", true, "x-queue-type=Squorum");
    set_policy("dead-letter-exchange=Sx,dead-letter-strategy=Sat-least-once,"
               "overflow=Sreject-publish");
    die_rejected();
    harness_advance(&harness, 3000);
    set_policy("dead-letter-exchange=Sx");
    add_exchange();
    harness_advance(&harness, 3000);
    get_nothing(peer, "dead");
    restart(true);
    get_nothing(peer, "q");
}
END_TEST

START_TEST(a_deleted_queue_takes_them_along) /* 8.12, 13.3 */
{
    const struct amqp_method delete = {.id = AMQP_QUEUE_DELETE, .queue_delete.queue = SLICE("q")};

    declare_queue(peer, "q", true, TO_X);
    die_rejected();
    peer_call(peer, 1, &delete, AMQP_QUEUE_DELETE_OK);
    add_exchange();
    harness_advance(&harness, 3000);
    get_nothing(peer, "dead");
    declare_queue(peer, "q", true, TO_X);
    get_nothing(peer, "q");
}
END_TEST

/* A consumer that rejects all it gets, while nothing can go: it gets no more in the end. */
START_TEST(rejects_do_not_fill_memory)
{
    enum { BODY_SIZE = 64 * 1024, COUNT = 400, PREFETCH = 10 };
    static char body[BODY_SIZE];
    const uint64_t heavy = OUTBOX_HEAVY_BYTES / (BODY_SIZE - 1);
    struct buf out = BUF_EMPTY;
    uint64_t rejected = 0;

    memset(body, 'm', BODY_SIZE - 1);
    declare_queue(peer, "q", true, TO_X);
    put_publish(&out, "", "q", body, &(struct sent){.persistent = true});
    for (int i = 0; i < COUNT; i++)
        peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    set_prefetch(peer, PREFETCH);
    consume(peer, "q", "c", false, NULL);
    struct amqp_frame frame;
    while (peer_next(peer, &frame)) {
        if (frame.type != AMQP_FRAME_METHOD)
            continue;
        reject(peer, ++rejected, false);
        harness_run(&harness);
    }
    ck_assert_uint_ge(rejected, heavy);
    ck_assert_uint_le(rejected, heavy + PREFETCH + 1);
    ck_assert_uint_eq(COUNT - rejected, count_ready(peer, "q"));
    add_exchange();
    harness_advance(&harness, OUTBOX_RETRY_MS + 100);
    peer_expect(peer, 1, AMQP_BASIC_DELIVER); /* and so on */
    ck_assert_uint_eq(rejected, count_ready(peer_open_channel(&harness), "dead"));
}
END_TEST

/* ---- in turn ---- */

static char *large_body(size_t size)
{
    char *body = xmalloc(size + 1);

    memset(body, 'x', size);
    body[size] = '\0';
    return body;
}

static uint32_t ready_in(const char *name)
{
    struct map_link *link =
        map_find(&peer->connection->vhost->queues, slice_of(name, strlen(name)));

    return (uint32_t)queue_ready_count(container_of(link, struct queue, by_name));
}

/* More than may be spent on it in a turn: it is tried, and then others are, of its queue or not. */
START_TEST(a_large_one_that_stays_does_not_hold_up_others) /* 13.3 */
{
    const char *const behind = _i == 0 ? "q" : "other";
    char *body = large_body(8 * 1024 * 1024);

    declare_queue(peer, "q", true, TO_X);
    declare_queue(peer, "other", true, TO_X);
    declare_exchange(peer, "in", "fanout");
    bind_queue(peer, "q", "in", "");
    add_exchange();
    bind_queue(peer, "dead", "x", "other");
    peer_publish(peer, 1, "in", "nowhere", body);
    publish(peer, behind, "b");
    const uint64_t first = get_unacked(peer, "q", body), second = get_unacked(peer, behind, "b");
    reject(peer, first, false);
    reject(peer, second, false);
    for (int i = 0; i < 5; i++)
        loop_turn(&harness.loop, 0);
    ck_assert_uint_eq(ready_in("dead"), 1);
    free(body);
}
END_TEST

/* Each is more than a turn's work: of either queue one after the other, and of those that need not
 * be kept meanwhile. */
START_TEST(large_ones_take_turns) /* 13.3 */
{
    enum { COUNT = 4 };
    static const char *const queues[] = {"a", "b", "c"}, *const dead[] = {"da", "db", "dc"};
    char *body = large_body(8 * 1024 * 1024), arguments[256];

    for (size_t i = 0; i < countof(queues); i++) {
        snprintf(arguments, sizeof(arguments), "%sS,x-dead-letter-routing-key=S%s",
                 i < 2 ? KEPT : "x-dead-letter-exchange=", dead[i]);
        declare_queue(peer, dead[i], true, NULL);
        declare_queue(peer, queues[i], true, arguments);
    }
    for (size_t i = 0; i < countof(queues) * COUNT; i++) {
        publish(peer, queues[i / COUNT], i / COUNT < 2 ? body : "m");
        harness_run(&harness);
    }
    struct buf out = BUF_EMPTY;
    for (size_t i = 0; i < countof(queues); i++)
        for (int j = 0; j < COUNT; j++)
            amqp_method_encode(&out, 1,
                               &(struct amqp_method){.id = AMQP_BASIC_REJECT,
                                                     .basic_reject.delivery_tag = get_unacked(
                                                         peer, queues[i], i < 2 ? body : "m")});
    memory_transport_send(&peer->memory, buf_slice(&out));
    buf_release(&out);
    for (uint32_t turn = 1; turn <= 2 * COUNT; turn++) {
        loop_turn(&harness.loop, 0);
        store_memory_sync(harness.store);
        ck_assert_uint_le(ready_in("da"), ready_in("db") + 1);
        ck_assert_uint_le(ready_in("db"), ready_in("da") + 1);
    }
    ck_assert_uint_ge(ready_in("da") + ready_in("db"), COUNT);
    ck_assert_uint_eq(ready_in("dc"), COUNT);
    free(body);
}
END_TEST

/* ---- the store ---- */

enum { SYNCS_MAX = 4 };

/* So many batches become durable after it could go, then the power goes. */
START_TEST(a_letter_is_in_one_place) /* 13.3, 12 */
{
    const unsigned syncs = (unsigned)_i % SYNCS_MAX;
    const bool waits = _i / SYNCS_MAX == 1;

    if (waits)
        fill_dead();
    else
        declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true, TO_DEAD);
    publish(peer, "q", "m");
    if (waits) {
        reject_one("q", "m");
        make_room();
    }
    harness_run(&harness);
    store_memory_set_auto_sync(harness.store, false);
    if (waits)
        harness_advance(&harness, OUTBOX_RETRY_MS);
    else
        reject_one("q", "m");
    for (unsigned i = 0; i < syncs; i++) {
        store_memory_sync(harness.store);
        harness_run(&harness);
    }
    restart(true);
    const uint32_t left = count_ready(peer, "q");
    ck_assert_uint_eq(1, left + count_ready(peer, "dead"));
    ck_assert_uint_eq(left, syncs == 0);
}
END_TEST

/* While there is room for deletes alone, the letter waits, and what it was stays with it. */
START_TEST(a_letter_takes_its_message_along_when_there_is_room)
{
    const bool finds_room = _i == 1;

    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true, TO_DEAD);
    publish(peer, "q", "m");
    harness_run(&harness);
    store_memory_set_room(harness.store, STORE_MEMORY_ROOM_FOR_DELETES);
    publish(peer, "dead", "the last straw");
    ck_assert(store_is_full(harness.store));
    reject_one("q", "m");
    if (finds_room)
        store_memory_set_room(harness.store, STORE_MEMORY_ROOM_FOR_ALL);
    harness_advance(&harness, 1000);
    ck_assert_uint_eq(!finds_room, store_is_full(harness.store));
    restart(true);
    ck_assert_uint_eq(!finds_room, count_ready(peer, "q"));
    ck_assert_uint_eq(finds_room ? 2 : 0, count_ready(peer, "dead"));
    store_memory_set_room(harness.store, STORE_MEMORY_ROOM_FOR_ALL);
}
END_TEST

/* The publisher is told when its message is durable, wherever that is. */
START_TEST(confirms_wait_for_either_place) /* 9.10, 13.3 */
{
    const struct amqp_method select = {.id = AMQP_CONFIRM_SELECT};

    if (_i == 0)
        fill_dead();
    else
        declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true, TO_DEAD);
    peer_call(peer, 1, &select, AMQP_CONFIRM_SELECT_OK);
    store_memory_set_auto_sync(harness.store, false);
    publish_with(peer, "q", "m", &(struct sent){.persistent = true, .expiration = "0"});
    harness_run(&harness);
    peer_expect_nothing(peer);
    for (int i = 0; i < 2; i++) {
        store_memory_sync(harness.store);
        harness_run(&harness);
    }
    ck_assert_uint_eq(1, peer_expect(peer, 1, AMQP_BASIC_ACK).basic_ack.delivery_tag);
    restart(true);
    if (_i == 0)
        make_room();
    harness_advance(&harness, OUTBOX_RETRY_MS + 100);
    get_one(peer, "dead", "m");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("outbox");
    TCase *tests = tcase_create("outbox");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, a_letter_stays_until_it_is_taken, 0,
                        countof(obstacles) * countof(deaths));
    tcase_add_loop_test(tests, a_letter_goes_at_once_if_it_can, 0, countof(deaths));
    tcase_add_loop_test(tests, a_restart_keeps_letters, 0, 2 * countof(deaths));
    tcase_add_test(tests, many_go_in_order);
    tcase_add_test(tests, one_that_stays_does_not_hold_up_others);
    tcase_add_test(tests, what_is_kept_counts_for_the_limit);
    tcase_add_loop_test(tests, others_are_sent_at_most_once, 0, countof(weak));
    tcase_add_test(tests, a_policy_says_so_and_takes_it_back);
    tcase_add_test(tests, a_deleted_queue_takes_them_along);
    tcase_add_test(tests, rejects_do_not_fill_memory);
    tcase_add_loop_test(tests, a_large_one_that_stays_does_not_hold_up_others, 0, 2);
    tcase_add_test(tests, large_ones_take_turns);
    tcase_add_loop_test(tests, a_letter_is_in_one_place, 0, 2 * SYNCS_MAX);
    tcase_add_loop_test(tests, a_letter_takes_its_message_along_when_there_is_room, 0, 2);
    tcase_add_loop_test(tests, confirms_wait_for_either_place, 0, 2);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
