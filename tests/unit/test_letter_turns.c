/* Dead letters that make dead letters: however many these become, a turn makes a few of them, what
 * waits stays small and in order, and is in one place whenever the power goes. */
#include "base/alloc.h"
#include "core/queue.h"
#include "core/vhost.h"
#include "store/memory.h"
#include "tests/lib/one_peer.h"
#include "tests/lib/queue_client.h"
#include "tests/lib/unit.h"

/* More than a turn makes of the cheapest. */
enum { LETTERS_AT_ONCE = TURN_STEPS_MAX / LETTER_STEPS + 1 };

static struct vhost *vhost_of_peer(void)
{
    return peer->connection->vhost;
}

static uint64_t published_through(const char *exchange)
{
    struct map_link *link =
        map_find(&vhost_of_peer()->exchanges, slice_of(exchange, strlen(exchange)));

    return link == NULL ? 0 : container_of(link, struct exchange, by_name)->published;
}

static struct queue *queue_named(const char *name)
{
    struct map_link *link = map_find(&vhost_of_peer()->queues, slice_of(name, strlen(name)));

    return link == NULL ? NULL : container_of(link, struct queue, by_name);
}

static uint64_t ready_in(const char *name)
{
    return queue_ready_count(queue_named(name));
}

static void select_confirms(void)
{
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_CONFIRM_SELECT}, AMQP_CONFIRM_SELECT_OK);
}

/* In one turn. */
static void send_in_turn(struct peer *from, struct buf *out)
{
    memory_transport_send(&from->memory, buf_slice(out));
    buf_release(out);
    loop_turn(&harness.loop, 0);
}

/* ---- a tree ---- */

enum { WIDTH = 8 };

static const char *const ways_on[] = {
    "x-max-length=I0",
    "x-message-ttl=I0",
    "x-max-length=I0,x-overflow=Sreject-publish-dlx",
};

/* Fanouts, each to WIDTH queues that keep nothing and dead-letter to the next. */
static void declare_tree(unsigned layers, bool durable, const char *way_on)
{
    char exchange[24], queue[24], arguments[128];

    for (unsigned layer = 0; layer <= layers; layer++) {
        snprintf(exchange, sizeof(exchange), "layer%u", layer);
        declare_exchange(peer, exchange, "fanout");
    }
    for (unsigned layer = 0; layer < layers; layer++)
        for (unsigned i = 0; i < WIDTH; i++) {
            snprintf(exchange, sizeof(exchange), "layer%u", layer);
            snprintf(queue, sizeof(queue), "q%u.%u", layer, i);
            snprintf(arguments, sizeof(arguments), "x-dead-letter-exchange=Slayer%u,%s", layer + 1,
                     way_on);
            declare_queue(peer, queue, durable, arguments);
            bind_queue(peer, queue, exchange, "");
        }
}

static uint64_t letters_of_tree(unsigned layers)
{
    char exchange[24];
    uint64_t letters = 0;

    for (unsigned layer = 1; layer <= layers; layer++) {
        snprintf(exchange, sizeof(exchange), "layer%u", layer);
        letters += published_through(exchange);
    }
    return letters;
}

/* All come: layer after layer eight times as many. */
START_TEST(a_tree_takes_turns)
{
    enum { LAYERS = 5, LETTERS = 8 + 64 + 512 + 4096 + 32768 };
    struct buf out = BUF_EMPTY;
    uint64_t before = 0;
    int turns = 0;

    declare_tree(LAYERS, false, ways_on[_i]);
    declare_queue(peer, "end", false, NULL);
    bind_queue(peer, "end", "layer5", "");
    put_publish(&out, "layer0", "", "m", &(struct sent){0});
    send_in_turn(peer, &out);
    for (;; turns++) {
        const uint64_t letters = letters_of_tree(LAYERS);
        ck_assert_uint_le(letters - before, LETTERS_AT_ONCE);
        ck_assert_uint_le(harness.broker.dead_letters.owed_count, LAYERS * WIDTH);
        if (letters == before)
            break;
        before = letters;
        loop_turn(&harness.loop, 0);
    }
    ck_assert_uint_eq(before, LETTERS);
    ck_assert_uint_eq(ready_in("end"), 32768);
    ck_assert_int_gt(turns, LETTERS / LETTERS_AT_ONCE);
    ck_assert_uint_eq(harness.broker.dead_letters.owed_count, 0);
}
END_TEST

/* One that has no end to speak of is in nobody's way, and takes no room. */
/* As fast as the store takes them, and not into memory. */
START_TEST(letters_wait_for_the_store)
{
    enum { LAYERS = 3, LEAVES = 512, SIZE = 100000, MOST = 16 << 20 };
    struct buf out = BUF_EMPTY;
    char *body = xmalloc(SIZE + 1);

    memset(body, 'm', SIZE);
    body[SIZE] = '\0';
    declare_tree(LAYERS, true, ways_on[0]);
    declare_queue(peer, "end", true, NULL);
    bind_queue(peer, "end", "layer3", "");
    store_memory_set_auto_sync(harness.store, false);
    put_publish(&out, "layer0", "", body, &(struct sent){.persistent = true});
    send_in_turn(peer, &out);
    for (int syncs = 0; ready_in("end") < LEAVES; syncs++) {
        ck_assert_int_lt(syncs, LEAVES);
        for (int i = 0; i < 10; i++)
            harness_run(&harness);
        ck_assert_uint_lt(store_open_bytes(harness.store), MOST);
        store_memory_sync(harness.store);
    }
    free(body);
}
END_TEST

START_TEST(others_are_served_meanwhile)
{
    enum { ROUNDS = 10 };
    struct peer *other = peer_open_channel(&harness);
    struct buf out = BUF_EMPTY;

    declare_tree(30, true, ways_on[_i]);
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true,
                  "x-max-length=I1,x-dead-letter-exchange=S,x-dead-letter-routing-key=Sdead");
    select_confirms();
    const uint64_t memory = message_memory();
    put_publish(&out, "layer0", "", "m", &(struct sent){.persistent = true});
    send_in_turn(peer, &out);
    harness_run(&harness);
    if (_i < 2) /* as soon as it is on the disk, in its queues */
        peer_expect(peer, 1, AMQP_BASIC_ACK);
    else
        peer_expect(peer, 1, AMQP_BASIC_NACK);

    for (uint64_t i = 1; i <= ROUNDS; i++) {
        publish(other, "q", "m");
        ck_assert_uint_eq(ready_in("q"), 1);
        ck_assert_uint_eq(ready_in("dead"), i - 1);
        ck_assert_uint_le(harness.broker.dead_letters.owed_count, 30 * WIDTH);
        ck_assert_uint_lt(message_memory() - memory, 1024 * 1024);
    }
    ck_assert(harness.broker.dead_letters.are_behind);

    harness_restart(&harness,
                    true); /* and it goes on, or is over by a limit, but does not hold up */
    peer = peer_open_channel(&harness);
    ck_assert_uint_eq(ROUNDS - 1, count_ready(peer, "dead"));
}
END_TEST

/* Who publishes to a tree faster than its letters go does so once in a turn, and not at all while
 * very many wait. Who publishes elsewhere goes on. */
START_TEST(publishers_wait_for_their_letters)
{
    enum { COUNT = 100, ROOTS = 1500, ROUNDS = 10 };
    struct peer *other = peer_open_channel(&harness);
    char queue[24];
    struct buf out = BUF_EMPTY;

    declare_tree(30, false, "x-max-length=I0");
    declare_queue(peer, "small", false, "x-max-length=I0,x-dead-letter-exchange=Snone");
    for (int i = 0; i < ROOTS; i++) {
        snprintf(queue, sizeof(queue), "root%d", i);
        declare_queue(peer, queue, false, "x-max-length=I0,x-dead-letter-exchange=Slayer0");
        bind_queue(peer, queue, "amq.fanout", "");
    }
    for (int i = 0; i < COUNT; i++)
        put_publish(&out, "layer0", "", "m", &(struct sent){0});
    memory_transport_send(&peer->memory, buf_slice(&out));
    loop_turn(&harness.loop, 0);
    ck_assert(harness.broker.dead_letters.are_behind);
    memory_transport_send(&peer->memory, buf_slice(&out));
    buf_clear(&out);
    uint64_t published = published_through("layer0");
    for (int i = 0; i < ROUNDS; i++) {
        loop_turn(&harness.loop, 0);
        ck_assert_uint_le(published_through("layer0"), published + 1);
        published = published_through("layer0");
    }
    ck_assert_uint_ge(published, COUNT + ROUNDS / 2);

    struct peer *third = peer_open_channel(&harness);
    for (int i = 0; i < COUNT; i++)
        put_publish(&out, "amq.fanout", "", "m", &(struct sent){0});
    memory_transport_send(&third->memory, buf_slice(&out));
    buf_release(&out);
    for (int i = 0; i < ROUNDS; i++)
        loop_turn(&harness.loop, 0);
    published = published_through("amq.fanout");
    ck_assert_uint_lt(published, COUNT / 2);
    ck_assert_uint_ge(harness.broker.dead_letters.owed_count, LETTERS_HEAVY);
    for (int i = 0; i < ROUNDS; i++)
        publish(other, "small", "m");
    ck_assert_uint_eq(queue_named("small")->counters.published, ROUNDS);
    ck_assert_uint_eq(published, published_through("amq.fanout"));
}
END_TEST

/* What is due at once in many queues is set aside as far as there is memory for it. */
START_TEST(large_letters_of_many_queues_are_bounded)
{
    enum { QUEUES = 10, COUNT = 12, SIZE = 1024 * 1024 };
    struct buf out = BUF_EMPTY;
    char queue[24], *body = xmalloc(SIZE + 1);

    memset(body, 'x', SIZE);
    body[SIZE] = '\0';
    paging_set_limit(&harness.broker.paging, UINT64_MAX / 2);
    declare_queue(peer, "dead", false, "x-max-length=I1");
    for (int i = 0; i < QUEUES * COUNT; i++) {
        snprintf(queue, sizeof(queue), "q%d", i % QUEUES);
        if (i < QUEUES)
            declare_queue(peer, queue, false,
                          "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sdead");
        put_publish(&out, "", queue, body, &(struct sent){.expiration = "1000"});
        peer_send_bytes(peer, buf_slice(&out));
        buf_clear(&out);
    }
    buf_release(&out);
    free(body);
    harness.clock.now_ms += 1500;
    for (int turns = 0; published_through("") < 2 * QUEUES * COUNT; turns++) {
        ck_assert_int_lt(turns, QUEUES * COUNT);
        loop_turn(&harness.loop, 0);
        ck_assert_uint_le(harness.broker.dead_letters.owed_bytes,
                          LETTERS_HEAVY_BYTES + QUEUES * SIZE);
    }
    ck_assert_uint_eq(harness.broker.dead_letters.owed_bytes, 0);
}
END_TEST

/* ---- what a letter costs ---- */

static void declare_chain(unsigned length)
{
    char queue[24], arguments[128];

    for (unsigned i = 0; i < length; i++) {
        snprintf(queue, sizeof(queue), "c%u", i);
        snprintf(arguments, sizeof(arguments),
                 "x-max-length=I0,x-dead-letter-exchange=S,x-dead-letter-routing-key=Sc%u", i + 1);
        declare_queue(peer, queue, false, arguments);
    }
    snprintf(queue, sizeof(queue), "c%u", length);
    declare_queue(peer, queue, false, NULL);
}

static uint64_t letters_of_chain(void)
{
    return published_through("");
}

/* The longer the history, the fewer in a turn. */
START_TEST(octets_count)
{
    enum { LENGTH = 200, SIZE = 1024 * 1024 };
    struct buf out = BUF_EMPTY;
    char *body = xmalloc(SIZE + 1);

    memset(body, 'x', SIZE);
    body[SIZE] = '\0';
    declare_chain(LENGTH);
    put_publish(&out, "", "c0", body, &(struct sent){0});
    memory_transport_send(&peer->memory, buf_slice(&out));
    buf_release(&out);
    uint64_t before = letters_of_chain() + 1;
    for (int i = 0; i < LENGTH && ready_in("c200") == 0; i++) {
        loop_turn(&harness.loop, 0);
        const uint64_t now = max_of(letters_of_chain(), before);
        ck_assert_uint_le(now - before, 1 + TURN_STEPS_MAX / (SIZE / ROUTE_STEP_OCTETS));
        before = now;
    }
    ck_assert_uint_eq(ready_in("c200"), 1);
    free(body);
}
END_TEST

/* Letters through bindings that take long to match. */
START_TEST(steps_of_routing_count)
{
    enum { BINDINGS = 500, ENTRIES = 20, LETTERS = 300 };
    char name[24], headers[512] = "";
    struct buf out = BUF_EMPTY, table = BUF_EMPTY;

    declare_queue(peer, "dead", false, NULL);
    for (int i = 0; i < ENTRIES; i++)
        snprintf(headers + strlen(headers), sizeof(headers) - strlen(headers), "%sh%02d=I1",
                 i > 0 ? "," : "", i);
    for (int i = 0; i < BINDINGS; i++) {
        snprintf(name, sizeof(name), "%d", i);
        amqp_method_encode(
            &out, 1,
            &(struct amqp_method){.id = AMQP_QUEUE_BIND,
                                  .queue_bind = {.queue = SLICE("dead"),
                                                 .exchange = SLICE("amq.headers"),
                                                 .routing_key = slice_of_string(name),
                                                 .arguments = arguments_of(&table, headers),
                                                 .no_wait = true}});
        buf_clear(&table);
    }
    peer_send_bytes(peer, buf_slice(&out));
    buf_clear(&out);
    declare_queue(peer, "q", false, "x-max-length=I0,x-dead-letter-exchange=Samq.headers");
    for (int i = 0; i < LETTERS; i++)
        put_publish(&out, "", "q", "m", &(struct sent){.headers = headers});
    memory_transport_send(&peer->memory, buf_slice(&out));
    uint64_t before = published_through("amq.headers");
    for (int i = 0; i < LETTERS && ready_in("dead") < LETTERS; i++) {
        loop_turn(&harness.loop, 0);
        const uint64_t now = published_through("amq.headers");
        ck_assert_uint_le(now - before, 1 + TURN_STEPS_MAX / (BINDINGS * ENTRIES));
        before = now;
    }
    ck_assert_uint_eq(ready_in("dead"), LETTERS);
    buf_release(&out);
    buf_release(&table);
}
END_TEST

/* ---- many at once ---- */

enum { MANY = 3 * LETTERS_AT_ONCE };
#define TO_DEAD "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sdead"

/* Numbered, and not acknowledged by a consumer of q; the answer is the last one's tag. */
static uint64_t hand_out_many(bool durable, const char *arguments)
{
    struct buf out = BUF_EMPTY;
    char body[24];

    declare_queue(peer, "dead", durable, NULL);
    declare_queue(peer, "q", durable, arguments);
    for (int i = 0; i < MANY; i++) {
        snprintf(body, sizeof(body), "%d", i);
        put_publish(&out, "", "q", body, &(struct sent){.persistent = durable});
    }
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    while (ready_in("q") < MANY)
        harness_run(&harness);
    consume(peer, "q", "c", false, NULL);
    while (ready_in("q") > 0)
        harness_run(&harness);
    for (int i = 0; i < MANY; i++) {
        snprintf(body, sizeof(body), "%d", i);
        ck_assert_uint_eq(expect_delivery(peer, body), (uint64_t)i + 1);
    }
    return MANY;
}

static void reject_all_in_turn(uint64_t last)
{
    struct buf out = BUF_EMPTY;

    amqp_method_encode(
        &out, 1,
        &(struct amqp_method){.id = AMQP_BASIC_NACK,
                              .basic_nack = {.delivery_tag = last, .multiple = true}});
    send_in_turn(peer, &out);
}

static void expect_all_in_order(const char *queue)
{
    char body[24];

    peer = peer_open_channel(&harness);
    consume(peer, queue, "d", true, NULL);
    for (int i = 0; i < MANY; i++) {
        snprintf(body, sizeof(body), "%d", i);
        if (i % 1000 == 0)
            harness_run(&harness);
        expect_delivery(peer, body);
    }
}

START_TEST(many_stay_in_order)
{
    const uint64_t last = hand_out_many(false, TO_DEAD);

    reject_all_in_turn(last);
    ck_assert_uint_gt(ready_in("dead"), 0);
    ck_assert_uint_le(ready_in("dead"), LETTERS_AT_ONCE);
    while (ready_in("dead") < MANY) {
        ck_assert_uint_eq(harness.broker.dead_letters.owed_count + ready_in("dead"), MANY);
        loop_turn(&harness.loop, 0);
    }
    expect_all_in_order("dead");
}
END_TEST

/* What has died in it goes where it is to go, though the queue does not live to see it. */
START_TEST(a_deleted_queue_owes_still)
{
    const uint64_t last = hand_out_many(true, TO_DEAD);

    struct peer *other = peer_open_channel(&harness);
    reject_all_in_turn(last);
    peer_call(other, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DELETE, .queue_delete.queue = SLICE("q")},
              AMQP_QUEUE_DELETE_OK);
    ck_assert_ptr_null(queue_named("q"));
    for (int i = 0; i < 10; i++)
        harness_run(&harness);
    ck_assert_uint_eq(ready_in("dead"), MANY);
    expect_all_in_order("dead");
}
END_TEST

/* And with its virtual host they are nowhere; at a stop they are where they were. */
START_TEST(what_is_owed_when_all_ends)
{
    const uint64_t last = hand_out_many(true, TO_DEAD);

    reject_all_in_turn(last);
    const uint64_t made = ready_in("dead");
    ck_assert_uint_lt(made, MANY);
    if (_i == 0) {
        uint64_t lsn;
        vhost_delete(vhost_of_peer(), &lsn);
        for (int i = 0; i < 10; i++)
            harness_run(&harness);
        ck_assert_uint_eq(harness.broker.dead_letters.owed_count, 0);
    } else {
        harness_restart(&harness, false);
        peer = peer_open_channel(&harness);
        ck_assert_uint_eq(count_ready(peer, "q") + count_ready(peer, "dead"), MANY);
        ck_assert_uint_ge(count_ready(peer, "dead"), made);
    }
}
END_TEST

/* In any turn of it: each is in one place. */
START_TEST(many_are_in_one_place_each)
{
    const uint64_t last = hand_out_many(true, TO_DEAD);

    reject_all_in_turn(last);
    for (int i = 0; i < _i; i++)
        loop_turn(&harness.loop, 0);
    harness_restart(&harness, true);
    peer = peer_open_channel(&harness);
    ck_assert_uint_eq(count_ready(peer, "q") + count_ready(peer, "dead"), MANY);
}
END_TEST

/* A policy that comes meanwhile has its way with what is left. */
START_TEST(settings_change_meanwhile)
{
    const uint64_t last =
        hand_out_many(true, "x-queue-type=Squorum,x-overflow=Sreject-publish," TO_DEAD
                            ",x-dead-letter-strategy=Sat-least-once");

    ck_assert_uint_eq(queue_named("q")->settings.keeps_dead_letters, true);
    queue_named("q")->settings.keeps_dead_letters = _i == 1;
    reject_all_in_turn(last);
    ck_assert_uint_lt(ready_in("dead"), MANY);
    queue_named("q")->settings.keeps_dead_letters = _i == 0;
    outbox_try(queue_named("q")->outbox);
    for (int i = 0; i < 20; i++)
        harness_run(&harness);
    ck_assert_uint_eq(ready_in("dead"), MANY);
    ck_assert_uint_eq(harness.broker.dead_letters.owed_count, 0);
    ck_assert_uint_eq(outbox_count(queue_named("q")->outbox), 0);
    expect_all_in_order("dead");
}
END_TEST

/* A transaction is one batch: all that it rejects. */
START_TEST(a_transaction_is_whole)
{
    const uint64_t last = hand_out_many(true, TO_DEAD);

    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
    reject_all_in_turn(last);
    ck_assert_uint_eq(ready_in("dead"), 0);
    struct buf out = BUF_EMPTY;
    amqp_method_encode(&out, 1, &(struct amqp_method){.id = AMQP_TX_COMMIT});
    send_in_turn(peer, &out);
    ck_assert_uint_eq(ready_in("dead"), MANY);
    harness_run(&harness);
    peer_expect(peer, 1, AMQP_TX_COMMIT_OK);
    expect_all_in_order("dead");
}
END_TEST

/* But no transaction holds up everybody: what it rejects beyond measure is owed. */
START_TEST(a_transaction_has_a_budget)
{
    enum {
        WAYS = 500,
        STEPS = LETTER_STEPS + WAYS * ROUTE_QUEUE_STEPS,
        STEPS_MAX = STEPS + WAYS + 100,                /* with what routing takes */
        BUDGET = LETTERS_TAKEN_STEPS + TURN_STEPS_MAX, /* its own, and that of others */
    };
    struct buf out = BUF_EMPTY;
    char queue[24];

    declare_exchange(peer, "many", "fanout");
    for (int i = 0; i < WAYS; i++) {
        snprintf(queue, sizeof(queue), "w%d", i);
        declare_queue(peer, queue, false, "x-max-length=I1");
        bind_queue(peer, queue, "many", "");
    }
    const uint64_t last = hand_out_many(true, "x-dead-letter-exchange=Smany");
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
    reject_all_in_turn(last);
    amqp_method_encode(&out, 1, &(struct amqp_method){.id = AMQP_TX_COMMIT});
    send_in_turn(peer, &out);
    const uint64_t made = published_through("many");
    ck_assert_uint_ge(made, BUDGET / STEPS_MAX);
    ck_assert_uint_le(made, BUDGET / STEPS + 2);
    ck_assert_uint_eq(harness.broker.dead_letters.owed_count, MANY - made);
    while (harness.broker.dead_letters.owed_count > 0)
        loop_turn(&harness.loop, 0);
    ck_assert_uint_eq(published_through("many"), MANY);
    peer_expect(peer, 1, AMQP_TX_COMMIT_OK);
}
END_TEST

/* What is due or too much and finds no room among what is set aside goes afterwards. */
START_TEST(what_is_due_waits_for_room)
{
    enum { COUNT = OUTBOX_HEAVY_COUNT + 5000 };
    struct buf out = BUF_EMPTY;

    declare_queue(peer, "dead", false, NULL);
    declare_queue(peer, "q", false, TO_DEAD);
    for (int i = 0; i < COUNT; i++)
        put_publish(&out, "", "q", "m", &(struct sent){.expiration = "1000"});
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    while (ready_in("q") < COUNT)
        harness_run(&harness);
    harness.clock.now_ms += 1500;
    loop_turn(&harness.loop, 0);
    ck_assert_uint_ge(ready_in("q"), COUNT - OUTBOX_HEAVY_COUNT - 256);
    for (int i = 0; i < 5; i++)
        harness_run(&harness);
    ck_assert_uint_eq(ready_in("q"), 0);
    ck_assert_uint_eq(ready_in("dead"), COUNT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("letter_turns");
    TCase *tests = tcase_create("turns");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, a_tree_takes_turns, 0, countof(ways_on));
    tcase_add_test(tests, letters_wait_for_the_store);
    tcase_add_loop_test(tests, others_are_served_meanwhile, 0, countof(ways_on));
    tcase_add_test(tests, publishers_wait_for_their_letters);
    tcase_add_test(tests, large_letters_of_many_queues_are_bounded);
    tcase_add_test(tests, octets_count);
    tcase_add_test(tests, steps_of_routing_count);
    tcase_add_test(tests, many_stay_in_order);
    tcase_add_test(tests, a_deleted_queue_owes_still);
    tcase_add_loop_test(tests, what_is_owed_when_all_ends, 0, 2);
    tcase_add_loop_test(tests, many_are_in_one_place_each, 0, 4);
    tcase_add_loop_test(tests, settings_change_meanwhile, 0, 2);
    tcase_add_test(tests, a_transaction_is_whole);
    tcase_add_test(tests, a_transaction_has_a_budget);
    tcase_add_test(tests, what_is_due_waits_for_room);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
