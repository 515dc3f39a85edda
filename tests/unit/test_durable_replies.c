/* What waits for the disk and what does not: over a store that becomes durable only when the test
 * says so, no positive reply about something durable leaves before its batch is, it leaves right
 * after, and what was answered survives a crash at any point. */
#include "amqp/client.h"
#include "core/vhost.h"
#include "store/memory.h"
#include "tests/lib/harness.h"
#include "tests/lib/unit.h"

#define STRING(literal)                                                                            \
    {                                                                                              \
        (const uint8_t *)("" literal), sizeof(literal) - 1                                         \
    }

static const struct amqp_method open_channel = {.id = AMQP_CHANNEL_OPEN};
static const struct amqp_method select_confirms = {.id = AMQP_CONFIRM_SELECT};
static const struct amqp_method select_tx = {.id = AMQP_TX_SELECT};
static const struct amqp_method commit = {.id = AMQP_TX_COMMIT};
static const struct amqp_method set_qos = {.id = AMQP_BASIC_QOS};
static const struct amqp_method ack_all = {.id = AMQP_BASIC_ACK, .basic_ack = {.multiple = true}};
static const struct amqp_method get_q = {.id = AMQP_BASIC_GET, .basic_get = {.queue = STRING("q")}};
static const struct amqp_method consume_q = {
    .id = AMQP_BASIC_CONSUME, .basic_consume = {.queue = STRING("q"), .consumer_tag = STRING("c")}};
static const struct amqp_method cancel_c = {.id = AMQP_BASIC_CANCEL,
                                            .basic_cancel = {.consumer_tag = STRING("c")}};
static const struct amqp_method declare_q = {
    .id = AMQP_QUEUE_DECLARE, .queue_declare = {.queue = STRING("q"), .durable = true}};
static const struct amqp_method find_q = {.id = AMQP_QUEUE_DECLARE,
                                          .queue_declare = {.queue = STRING("q"), .passive = true}};
static const struct amqp_method declare_fleeting_q = {
    .id = AMQP_QUEUE_DECLARE,
    .queue_declare = {.queue = STRING("q"), .durable = true, .auto_delete = true}};
static const struct amqp_method declare_transient_q = {.id = AMQP_QUEUE_DECLARE,
                                                       .queue_declare = {.queue = STRING("q")}};
static const struct amqp_method delete_q = {.id = AMQP_QUEUE_DELETE,
                                            .queue_delete = {.queue = STRING("q")}};
static const struct amqp_method purge_q = {.id = AMQP_QUEUE_PURGE,
                                           .queue_purge = {.queue = STRING("q")}};
static const struct amqp_method declare_x = {
    .id = AMQP_EXCHANGE_DECLARE,
    .exchange_declare = {.exchange = STRING("x"), .type = STRING("fanout"), .durable = true}};
static const struct amqp_method find_x = {
    .id = AMQP_EXCHANGE_DECLARE,
    .exchange_declare = {.exchange = STRING("x"), .type = STRING("fanout"), .passive = true}};
static const struct amqp_method declare_fleeting_x = {.id = AMQP_EXCHANGE_DECLARE,
                                                      .exchange_declare = {
                                                          .exchange = STRING("x"),
                                                          .type = STRING("fanout"),
                                                          .durable = true,
                                                          .auto_delete = true,
                                                      }};
static const struct amqp_method declare_transient_x = {
    .id = AMQP_EXCHANGE_DECLARE,
    .exchange_declare = {.exchange = STRING("x"), .type = STRING("fanout")}};
static const struct amqp_method delete_x = {.id = AMQP_EXCHANGE_DELETE,
                                            .exchange_delete = {.exchange = STRING("x")}};
static const struct amqp_method bind_q = {
    .id = AMQP_QUEUE_BIND, .queue_bind = {.queue = STRING("q"), .exchange = STRING("x")}};
static const struct amqp_method unbind_q = {
    .id = AMQP_QUEUE_UNBIND, .queue_unbind = {.queue = STRING("q"), .exchange = STRING("x")}};
static const struct amqp_method bind_x = {
    .id = AMQP_EXCHANGE_BIND,
    .exchange_bind = {.source = STRING("x"), .destination = STRING("amq.fanout")}};
static const struct amqp_method unbind_x = {
    .id = AMQP_EXCHANGE_UNBIND,
    .exchange_unbind = {.source = STRING("x"), .destination = STRING("amq.fanout")}};
static const struct amqp_method declare_other = {
    .id = AMQP_QUEUE_DECLARE, .queue_declare = {.queue = STRING("other"), .durable = true}};

static void publish(struct peer *peer, uint16_t channel, const struct amqp_client_message *message)
{
    struct buf out = BUF_EMPTY;
    amqp_client_publish(&out, channel, 131072, message);
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
}

/* To the queue of this name. */
static void publish_persistent(struct peer *peer, uint16_t channel, const char *queue,
                               const char *body)
{
    publish(peer, channel,
            &(struct amqp_client_message){.routing_key = slice_of_string(queue),
                                          .properties = SLICE("\x10\x00\x02"),
                                          .body = slice_of_string(body)});
}

static void sync(struct harness *harness)
{
    store_memory_sync(harness->store);
    harness_run(harness);
}

static void expect_confirm(struct peer *peer, uint16_t channel, uint64_t number, bool multiple)
{
    const struct amqp_method ack = peer_expect(peer, channel, AMQP_BASIC_ACK);
    ck_assert_uint_eq(number, ack.basic_ack.delivery_tag);
    ck_assert_int_eq(multiple, ack.basic_ack.multiple);
}

/* ---- what the broker has, seen from inside ---- */

static struct vhost *vhost_of(struct harness *harness)
{
    return vhost_find(&harness->broker, SLICE("/"));
}

static struct queue *queue_of(struct harness *harness, const char *name)
{
    struct amqp_error error;
    return vhost_find_queue(vhost_of(harness), slice_of_string(name), ACCESS_GET, NULL, &error);
}

static struct exchange *exchange_of(struct harness *harness)
{
    struct amqp_error error;
    return vhost_find_exchange(vhost_of(harness), SLICE("x"), &error);
}

static uint64_t queue_is_there(struct harness *harness)
{
    return queue_of(harness, "q") != NULL;
}

static uint64_t exchange_is_there(struct harness *harness)
{
    return exchange_of(harness) != NULL;
}

static uint64_t bindings(struct harness *harness)
{
    const struct exchange *exchange = exchange_of(harness);
    return exchange == NULL ? 0 : exchange->binding_count;
}

static uint64_t messages(struct harness *harness)
{
    const struct queue *queue = queue_of(harness, "q");
    return queue == NULL ? 0 : queue->window.ready_count + queue->window.unacked_count;
}

/* ---- every durable reply but the confirm ---- */

enum { SETUP_MAX = 5 };

struct reply_case {
    const char *name;
    const struct amqp_method *setup[SETUP_MAX]; /* durable before the case begins */
    const struct amqp_method *before; /* by another client, just before, and not durable yet */
    const struct amqp_method *request;
    uint32_t reply;
    uint64_t (*state)(struct harness *harness); /* as seen after a restart */
    uint64_t without, with; /* the request and what came before, by that measure */
    int stored;             /* messages in q when it begins */
    int publishes;          /* sent on the channel ahead of the request */
};

static const struct reply_case reply_cases[] = {
    {"queue.declare", .request = &declare_q, .reply = AMQP_QUEUE_DECLARE_OK,
     .state = queue_is_there, .with = 1},
    {"queue.declare again", .before = &declare_q, .request = &declare_q,
     .reply = AMQP_QUEUE_DECLARE_OK, .state = queue_is_there, .with = 1},
    {"queue.declare passive", .before = &declare_q, .request = &find_q,
     .reply = AMQP_QUEUE_DECLARE_OK, .state = queue_is_there, .with = 1},
    {"exchange.declare", .request = &declare_x, .reply = AMQP_EXCHANGE_DECLARE_OK,
     .state = exchange_is_there, .with = 1},
    {"exchange.declare again", .before = &declare_x, .request = &declare_x,
     .reply = AMQP_EXCHANGE_DECLARE_OK, .state = exchange_is_there, .with = 1},
    {"exchange.declare passive", .before = &declare_x, .request = &find_x,
     .reply = AMQP_EXCHANGE_DECLARE_OK, .state = exchange_is_there, .with = 1},
    {"queue.bind",
     {&declare_q, &declare_x},
     .request = &bind_q,
     .reply = AMQP_QUEUE_BIND_OK,
     .state = bindings,
     .with = 1},
    {"queue.bind again",
     {&declare_q, &declare_x},
     .before = &bind_q,
     .request = &bind_q,
     .reply = AMQP_QUEUE_BIND_OK,
     .state = bindings,
     .with = 1},
    {"exchange.bind",
     {&declare_x},
     .request = &bind_x,
     .reply = AMQP_EXCHANGE_BIND_OK,
     .state = bindings,
     .with = 1},
    {"exchange.bind again",
     {&declare_x},
     .before = &bind_x,
     .request = &bind_x,
     .reply = AMQP_EXCHANGE_BIND_OK,
     .state = bindings,
     .with = 1},
    {"queue.unbind",
     {&declare_q, &declare_x, &bind_q},
     .request = &unbind_q,
     .reply = AMQP_QUEUE_UNBIND_OK,
     .state = bindings,
     .without = 1},
    {"queue.unbind again",
     {&declare_q, &declare_x, &bind_q},
     .before = &unbind_q,
     .request = &unbind_q,
     .reply = AMQP_QUEUE_UNBIND_OK,
     .state = bindings,
     .without = 1},
    {"exchange.unbind",
     {&declare_x, &bind_x},
     .request = &unbind_x,
     .reply = AMQP_EXCHANGE_UNBIND_OK,
     .state = bindings,
     .without = 1},
    {"queue.delete",
     {&declare_q},
     .request = &delete_q,
     .reply = AMQP_QUEUE_DELETE_OK,
     .state = queue_is_there,
     .without = 1},
    {"queue.delete again",
     {&declare_q},
     .before = &delete_q,
     .request = &delete_q,
     .reply = AMQP_QUEUE_DELETE_OK,
     .state = queue_is_there,
     .without = 1},
    {"queue.delete with messages",
     {&declare_q},
     .stored = 3,
     .request = &delete_q,
     .reply = AMQP_QUEUE_DELETE_OK,
     .state = messages,
     .without = 3},
    {"exchange.delete",
     {&declare_x},
     .request = &delete_x,
     .reply = AMQP_EXCHANGE_DELETE_OK,
     .state = exchange_is_there,
     .without = 1},
    {"exchange.delete again",
     {&declare_x},
     .before = &delete_x,
     .request = &delete_x,
     .reply = AMQP_EXCHANGE_DELETE_OK,
     .state = exchange_is_there,
     .without = 1},
    {"the last unbind of an auto-delete exchange",
     {&declare_q, &declare_fleeting_x, &bind_q},
     .request = &unbind_q,
     .reply = AMQP_QUEUE_UNBIND_OK,
     .state = exchange_is_there,
     .without = 1},
    {"the queue of an auto-delete exchange's last binding",
     {&declare_q, &declare_fleeting_x, &bind_q},
     .request = &delete_q,
     .reply = AMQP_QUEUE_DELETE_OK,
     .state = exchange_is_there,
     .without = 1},
    {"queue.delete of what its last consumer has deleted",
     {&declare_fleeting_q, &consume_q},
     .before = &cancel_c,
     .request = &delete_q,
     .reply = AMQP_QUEUE_DELETE_OK,
     .state = queue_is_there,
     .without = 1},
    {"queue.purge",
     {&declare_q},
     .stored = 3,
     .request = &purge_q,
     .reply = AMQP_QUEUE_PURGE_OK,
     .state = messages,
     .without = 3},
    {"tx.commit of publishes",
     {&declare_q, &select_tx},
     .publishes = 3,
     .request = &commit,
     .reply = AMQP_TX_COMMIT_OK,
     .state = messages,
     .with = 3},
    {"tx.commit of acks",
     {&declare_q, &select_tx, &consume_q, &ack_all},
     .stored = 3,
     .request = &commit,
     .reply = AMQP_TX_COMMIT_OK,
     .state = messages,
     .without = 3},
};

/* The clients of a case: `other` acts before, `peer` asks, `third` must be served all the while. */
struct scene {
    struct harness harness;
    struct peer *peer, *other, *third;
    const struct reply_case *reply_case;
};

/* Sends what needs no answer, or takes the answer, whatever it is. */
static void act(struct peer *peer, const struct amqp_method *method)
{
    struct amqp_frame frame;
    peer_send(peer, 1, method);
    while (peer_next(peer, &frame))
        ck_assert(frame.type != AMQP_FRAME_METHOD ||
                  amqp_get_u32(frame.payload.data) != AMQP_CHANNEL_CLOSE);
}

/* All is durable that went before; from now on nothing becomes so by itself. */
static void set_scene(struct scene *scene, int i)
{
    scene->reply_case = &reply_cases[i];
    harness_init(&scene->harness, NULL);
    scene->other = peer_open_channel(&scene->harness);
    scene->peer = peer_open_channel(&scene->harness);
    scene->third = peer_open_channel(&scene->harness);

    for (int n = 0; n < SETUP_MAX && scene->reply_case->setup[n] != NULL; n++) {
        const struct amqp_method *method = scene->reply_case->setup[n];
        /* The consumer of an auto-delete queue is the other client's, to be cancelled by it. */
        act(scene->reply_case->before == &cancel_c ? scene->other : scene->peer, method);
        if (method == &declare_q)
            for (int m = 0; m < scene->reply_case->stored; m++)
                publish_persistent(scene->third, 1, "q", "stored");
    }
    store_memory_set_auto_sync(scene->harness.store, false);
}

static void send_request(struct scene *scene)
{
    if (scene->reply_case->before != NULL)
        act(scene->other, scene->reply_case->before);
    for (int n = 0; n < scene->reply_case->publishes; n++)
        publish_persistent(scene->peer, 1, "q", "in tx");
    peer_send(scene->peer, 1, scene->reply_case->request);
}

START_TEST(no_reply_leaves_before_it_is_durable)
{
    struct scene scene;
    set_scene(&scene, _i);
    send_request(&scene);
    peer_expect_nothing(scene.peer);

    peer_send(scene.peer, 1, &set_qos); /* later frames wait, in order, on any channel */
    peer_send(scene.peer, 2, &open_channel);
    harness_advance(&scene.harness, 5000);
    peer_expect_nothing(scene.peer);
    peer_call(scene.third, 1, &set_qos, AMQP_BASIC_QOS_OK);
    peer_call(scene.third, 2, &open_channel, AMQP_CHANNEL_OPEN_OK);

    sync(&scene.harness);
    peer_expect(scene.peer, 1, scene.reply_case->reply);
    peer_expect(scene.peer, 1, AMQP_BASIC_QOS_OK);
    peer_expect(scene.peer, 2, AMQP_CHANNEL_OPEN_OK);
    peer_expect_nothing(scene.peer);
    harness_release(&scene.harness);
}
END_TEST

/* The batch of the request is the second: when the first is durable, nothing leaves yet. */
START_TEST(no_reply_leaves_with_an_earlier_batch)
{
    struct scene scene;
    set_scene(&scene, _i);
    peer_send(scene.third, 1, &declare_other);
    send_request(&scene);
    sync(&scene.harness);
    peer_expect(scene.third, 1, AMQP_QUEUE_DECLARE_OK);
    peer_expect_nothing(scene.peer);
    sync(&scene.harness);
    peer_expect(scene.peer, 1, scene.reply_case->reply);
    harness_release(&scene.harness);
}
END_TEST

/* Where the crash comes: the request's batch is open behind another, under way, durable but not yet
 * answered, answered. */
enum { OPEN, UNDER_WAY, DURABLE, ANSWERED, POINTS };

START_TEST(what_was_answered_survives_a_crash)
{
    const int point = _i % POINTS;
    struct scene scene;
    set_scene(&scene, _i / POINTS);
    ck_assert_uint_eq(scene.reply_case->without, scene.reply_case->state(&scene.harness));
    if (point == OPEN)
        peer_send(scene.third, 1, &declare_other);
    send_request(&scene);
    if (point >= DURABLE)
        store_memory_sync(scene.harness.store);
    if (point == ANSWERED) {
        harness_run(&scene.harness);
        peer_expect(scene.peer, 1, scene.reply_case->reply);
    } else {
        peer_expect_nothing(scene.peer);
    }

    harness_restart(&scene.harness, true);
    const uint64_t state = scene.reply_case->state(&scene.harness);
    ck_assert_uint_eq(point >= DURABLE ? scene.reply_case->with : scene.reply_case->without, state);
    harness_restart(&scene.harness, true); /* two in a row */
    ck_assert_uint_eq(state, scene.reply_case->state(&scene.harness));
    harness_release(&scene.harness);
}
END_TEST

static void on_store_failure(struct broker *broker)
{
    loop_stop(broker->loop);
}

START_TEST(no_reply_leaves_a_failed_store)
{
    struct scene scene;
    set_scene(&scene, _i);
    scene.harness.broker.on_store_failure = on_store_failure;
    send_request(&scene);
    store_memory_fail(scene.harness.store, EIO);
    harness_advance(&scene.harness, 1000);
    sync(&scene.harness);
    peer_expect_nothing(scene.peer);
    ck_assert_int_eq(-EIO, scene.harness.broker.store_error);
    ck_assert(scene.harness.loop.stopping);
    harness_restart(&scene.harness, true);
    ck_assert_uint_eq(scene.reply_case->without, scene.reply_case->state(&scene.harness));
    harness_release(&scene.harness);
}
END_TEST

/* A client that goes away while it waits leaves nothing behind. */
START_TEST(who_waits_may_vanish)
{
    struct scene scene;
    set_scene(&scene, _i);
    send_request(&scene);
    peer_free(&scene.peer);
    sync(&scene.harness);
    ck_assert_uint_eq(2, scene.harness.service.connection_count);
    harness_release(&scene.harness);
}
END_TEST

/* ---- what need not wait ---- */

START_TEST(what_is_not_durable_is_answered_at_once)
{
    static const struct {
        const struct amqp_method *request;
        uint32_t reply;
    } requests[] = {
        {&declare_transient_q, AMQP_QUEUE_DECLARE_OK},
        {&find_q, AMQP_QUEUE_DECLARE_OK},
        {&declare_transient_x, AMQP_EXCHANGE_DECLARE_OK},
        {&find_x, AMQP_EXCHANGE_DECLARE_OK},
        {&bind_q, AMQP_QUEUE_BIND_OK},
        {&bind_x, AMQP_EXCHANGE_BIND_OK},
        {&unbind_q, AMQP_QUEUE_UNBIND_OK},
        {&unbind_x, AMQP_EXCHANGE_UNBIND_OK},
        {&purge_q, AMQP_QUEUE_PURGE_OK},
        {&consume_q, AMQP_BASIC_CONSUME_OK},
        {&cancel_c, AMQP_BASIC_CANCEL_OK},
        {&delete_q, AMQP_QUEUE_DELETE_OK},
        {&delete_x, AMQP_EXCHANGE_DELETE_OK},
        {&select_tx, AMQP_TX_SELECT_OK},
    };
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness), *other = peer_open_channel(&harness);
    store_memory_set_auto_sync(harness.store, false);
    peer_send(other, 1, &declare_other); /* somebody else waits */
    for (size_t i = 0; i < countof(requests); i++)
        peer_call(peer, 1, requests[i].request, requests[i].reply);
    peer_expect_nothing(other);
    harness_release(&harness);
}
END_TEST

START_TEST(a_transaction_of_transient_messages_is_answered_at_once)
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    peer_call(peer, 1, &declare_q, AMQP_QUEUE_DECLARE_OK);
    peer_call(peer, 1, &select_tx, AMQP_TX_SELECT_OK);
    store_memory_set_auto_sync(harness.store, false);
    peer_publish(peer, 1, "", "q", "transient");
    peer_call(peer, 1, &commit, AMQP_TX_COMMIT_OK);
    peer_call(peer, 1, &commit, AMQP_TX_COMMIT_OK);
    harness_release(&harness);
}
END_TEST

/* What the commit put was taken back before its batch left: there is nothing to wait for, and
 * perhaps never a batch. */
START_TEST(a_transaction_of_what_is_consumed_at_once_is_answered)
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness), *consumer = peer_open_channel(&harness);
    struct amqp_method consume = consume_q;
    consume.basic_consume.no_ack = true;
    peer_call(peer, 1, &declare_q, AMQP_QUEUE_DECLARE_OK);
    peer_call(peer, 1, &select_tx, AMQP_TX_SELECT_OK);
    peer_call(consumer, 1, &consume, AMQP_BASIC_CONSUME_OK);
    store_memory_set_auto_sync(harness.store, false);

    publish_persistent(peer, 1, "q", "one");
    peer_call(peer, 1, &commit, AMQP_TX_COMMIT_OK);
    peer_expect_content(consumer, 1, AMQP_BASIC_DELIVER, "one");
    peer_send(consumer, 2, &open_channel);
    peer_expect(consumer, 2, AMQP_CHANNEL_OPEN_OK);
    peer_send(consumer, 2, &declare_other); /* keeps the store busy */
    publish_persistent(peer, 1, "q", "two");
    peer_send(peer, 1, &commit);
    peer_expect_content(consumer, 1, AMQP_BASIC_DELIVER, "two");
    sync(&harness);
    peer_expect(peer, 1, AMQP_TX_COMMIT_OK);
    harness_release(&harness);
}
END_TEST

/* ---- confirms ---- */

/* Client 1 confirms on channels 1 and 2; durable q, q2 and q3, bound to the fanout x; transient t.
 * Nothing becomes durable by itself. */
static struct peer *set_confirm_scene(struct harness *harness)
{
    static const char *const queues[] = {"q", "q2", "q3", "t"};
    harness_init(harness, NULL);
    struct peer *peer = peer_open_channel(harness);
    peer_call(peer, 2, &open_channel, AMQP_CHANNEL_OPEN_OK);
    peer_call(peer, 1, &select_confirms, AMQP_CONFIRM_SELECT_OK);
    peer_call(peer, 2, &select_confirms, AMQP_CONFIRM_SELECT_OK);
    peer_call(peer, 1, &declare_x, AMQP_EXCHANGE_DECLARE_OK);
    for (size_t i = 0; i < countof(queues); i++) {
        struct amqp_method declare = declare_q, bind = bind_q;
        declare.queue_declare.queue = bind.queue_bind.queue = slice_of_string(queues[i]);
        declare.queue_declare.durable = queues[i][0] == 'q';
        peer_call(peer, 1, &declare, AMQP_QUEUE_DECLARE_OK);
        peer_call(peer, 1, &bind, AMQP_QUEUE_BIND_OK);
    }
    store_memory_set_auto_sync(harness->store, false);
    return peer;
}

START_TEST(a_confirm_waits_for_its_batch) /* 9.10, 9.13 */
{
    struct harness harness;
    struct peer *peer = set_confirm_scene(&harness);
    publish_persistent(peer, 1, "q", "one"); /* goes under way at once */
    harness_advance(&harness, 5000);
    peer_expect_nothing(peer);
    publish_persistent(peer, 1, "q", "two"); /* these three share the next */
    publish_persistent(peer, 2, "q2", "one");
    publish_persistent(peer, 1, "q3", "three");
    publish_persistent(peer, 2, "q2", "two");
    peer_expect_nothing(peer);

    sync(&harness);
    expect_confirm(peer, 1, 1, false);
    peer_expect_nothing(peer);
    sync(&harness);
    expect_confirm(peer, 2, 2, true); /* which channel comes first is not promised */
    expect_confirm(peer, 1, 3, true);
    peer_expect_nothing(peer);
    harness_release(&harness);
}
END_TEST

START_TEST(publishing_goes_on_while_confirms_wait)
{
    enum { COUNT = 100 };
    struct harness harness;
    struct peer *peer = set_confirm_scene(&harness);
    for (int i = 0; i < COUNT; i++)
        publish_persistent(peer, 1, "q", "message");
    peer_expect_nothing(peer);
    ck_assert_uint_eq(COUNT, messages(&harness));
    sync(&harness);
    expect_confirm(peer, 1, 1, false);
    sync(&harness);
    expect_confirm(peer, 1, COUNT, true);
    harness_release(&harness);
}
END_TEST

START_TEST(what_is_not_stored_is_confirmed_at_once) /* 9.10 */
{
    struct harness harness;
    struct peer *peer = set_confirm_scene(&harness);
    publish_persistent(peer, 1, "q", "waits");
    peer_publish(peer, 1, "", "q", "not persistent");
    expect_confirm(peer, 1, 2, false);
    publish_persistent(peer, 1, "t", "not in a durable queue");
    expect_confirm(peer, 1, 3, false);
    publish_persistent(peer, 1, "nowhere", "in no queue");
    expect_confirm(peer, 1, 4, false);
    publish_persistent(peer, 1, "q", "waits for the next batch");
    peer_expect_nothing(peer);
    sync(&harness);
    expect_confirm(peer, 1, 1, false);
    sync(&harness);
    expect_confirm(peer, 1, 5, false);
    peer_expect_nothing(peer);
    harness_release(&harness);
}
END_TEST

static void publish_to_all(struct peer *peer)
{
    publish(peer, 1,
            &(struct amqp_client_message){.exchange = SLICE("x"),
                                          .properties = SLICE("\x10\x00\x02"),
                                          .body = SLICE("to all")});
}

START_TEST(a_message_to_many_queues_is_confirmed_once)
{
    struct harness harness;
    struct peer *peer = set_confirm_scene(&harness);
    publish_to_all(peer);
    peer_expect_nothing(peer);
    sync(&harness);
    expect_confirm(peer, 1, 1, false);
    sync(&harness);
    peer_expect_nothing(peer);
    harness_restart(&harness, true);
    ck_assert_uint_eq(1, queue_of(&harness, "q")->window.ready_count);
    ck_assert_uint_eq(1, queue_of(&harness, "q2")->window.ready_count);
    ck_assert_uint_eq(1, queue_of(&harness, "q3")->window.ready_count);
    harness_release(&harness);
}
END_TEST

/* Gets the one message of a queue and acknowledges it. */
static void consume_one(struct peer *peer, const char *queue, const char *body)
{
    struct amqp_method get = get_q, ack = {.id = AMQP_BASIC_ACK};
    get.basic_get.queue = slice_of_string(queue);
    peer_send(peer, 1, &get);
    ack.basic_ack.delivery_tag =
        peer_expect_content(peer, 1, AMQP_BASIC_GET_OK, body).basic_get_ok.delivery_tag;
    peer_send(peer, 1, &ack);
}

START_TEST(what_is_acked_in_the_open_batch_is_confirmed_at_once)
{
    struct harness harness;
    struct store_stats stats;
    struct peer *peer = set_confirm_scene(&harness), *consumer = peer_open_channel(&harness);
    publish_persistent(peer, 1, "q2", "keeps the store busy");
    store_get_stats(harness.store, &stats);
    const uint64_t put = stats.entries_put;

    publish_persistent(peer, 1, "q", "short life");
    peer_expect_nothing(peer);
    consume_one(consumer, "q", "short life");
    expect_confirm(peer, 1, 2, false);
    sync(&harness);
    expect_confirm(peer, 1, 1, false);
    sync(&harness);
    sync(&harness);
    store_get_stats(harness.store, &stats);
    ck_assert_uint_eq(put + 1, stats.entries_put);
    harness_restart(&harness, true);
    ck_assert_uint_eq(0, messages(&harness));
    harness_release(&harness);
}
END_TEST

/* A consumer's ack within a transaction holds when that does: until then a crash may lose both, the
 * message and its ack, but not the message alone. */
START_TEST(what_a_transaction_acks_is_confirmed_with_it)
{
    struct harness harness;
    struct peer *peer = set_confirm_scene(&harness), *consumer = peer_open_channel(&harness);
    peer_call(consumer, 1, &select_tx, AMQP_TX_SELECT_OK);
    publish_persistent(peer, 1, "q2", "keeps the store busy");
    publish_persistent(peer, 1, "q", "to be replaced");
    consume_one(consumer, "q", "to be replaced");
    if (_i == 0)
        publish_persistent(consumer, 1, "q3", "in its place");
    peer_send(consumer, 1, &commit);
    peer_expect_nothing(peer);

    sync(&harness);
    if (_i == 0) {
        expect_confirm(peer, 1, 1, false);
        peer_expect_nothing(peer);
        peer_expect_nothing(consumer);
        sync(&harness);
        expect_confirm(peer, 1, 2, false);
    } else { /* nothing is left that a batch could be made of */
        expect_confirm(peer, 1, 1, false);
        expect_confirm(peer, 1, 2, false);
    }
    peer_expect(consumer, 1, AMQP_TX_COMMIT_OK);
    harness_restart(&harness, true);
    ck_assert_uint_eq(0, messages(&harness));
    ck_assert_uint_eq(_i == 0, queue_of(&harness, "q3")->window.ready_count);
    harness_release(&harness);
}
END_TEST

/* What a full queue drops in favour of what is not durable yet would be lost with that. */
START_TEST(what_is_crowded_out_is_confirmed_with_what_took_its_place)
{
    struct harness harness;
    struct peer *peer = set_confirm_scene(&harness);
    struct amqp_method declare = declare_q;
    declare.queue_declare.queue = SLICE("short");
    declare.queue_declare.arguments = SLICE("\x0cx-max-lengthI\0\0\0\1");
    peer_send(peer, 1, &declare);
    sync(&harness);
    peer_expect(peer, 1, AMQP_QUEUE_DECLARE_OK);

    publish_persistent(peer, 1, "q2", "keeps the store busy");
    publish_persistent(peer, 1, "short", "one");
    publish_persistent(peer, 1, "short", "two");
    peer_expect_nothing(peer);
    sync(&harness);
    expect_confirm(peer, 1, 1, false);
    peer_expect_nothing(peer);
    sync(&harness);
    expect_confirm(peer, 1, 3, true);
    harness_restart(&harness, true);
    ck_assert_uint_eq(1, queue_of(&harness, "short")->window.ready_count);
    harness_release(&harness);
}
END_TEST

/* It was never in there, whatever becomes of others. */
START_TEST(what_a_queue_without_room_drops_is_confirmed)
{
    struct harness harness;
    struct peer *peer = set_confirm_scene(&harness);
    struct amqp_method declare = declare_q;
    declare.queue_declare.queue = SLICE("none");
    declare.queue_declare.arguments = SLICE("\x0cx-max-lengthI\0\0\0\0");
    peer_send(peer, 1, &declare);
    sync(&harness);
    peer_expect(peer, 1, AMQP_QUEUE_DECLARE_OK);

    publish_persistent(peer, 1, "none", "one");
    expect_confirm(peer, 1, 1, false);
    publish_persistent(peer, 1, "q2", "keeps the store busy");
    publish_persistent(peer, 1, "none", "two");
    expect_confirm(peer, 1, 3, false);
    sync(&harness);
    expect_confirm(peer, 1, 2, false);
    peer_expect_nothing(peer);
    harness_release(&harness);
}
END_TEST

/* Copies in q, q3 and elsewhere, all in the open batch behind another: how the last two go. */
enum { LAST_BY_SYNC, LAST_BY_ACK, LAST_BY_PURGE, LAST_BY_DELETE, LAST_WAYS };

START_TEST(a_confirm_waits_while_one_copy_is_left)
{
    struct harness harness;
    struct peer *peer = set_confirm_scene(&harness);
    struct peer *consumer = peer_open_channel(&harness), *another = peer_open_channel(&harness);
    publish_persistent(peer, 2, "q2", "keeps the store busy");
    publish_to_all(peer);
    peer_send(consumer, 1, &get_q);
    const uint64_t tag =
        peer_expect_content(consumer, 1, AMQP_BASIC_GET_OK, "to all").basic_get_ok.delivery_tag;
    consume_one(consumer, "t", "to all");
    struct amqp_method purge_q2 = purge_q, purge_q3 = purge_q, delete_q3 = delete_q;
    purge_q2.queue_purge.queue = SLICE("q2");
    purge_q3.queue_purge.queue = delete_q3.queue_delete.queue = SLICE("q3");
    peer_send(another, 1, &purge_q2); /* waits: something under way is to be deleted */
    peer_expect_nothing(another);
    peer_expect_nothing(peer);

    if (_i != LAST_BY_SYNC) {
        peer_send(consumer, 1,
                  &(struct amqp_method){.id = AMQP_BASIC_ACK, .basic_ack.delivery_tag = tag});
        peer_expect_nothing(peer);
    }
    if (_i == LAST_BY_ACK)
        consume_one(consumer, "q3", "to all");
    else if (_i == LAST_BY_PURGE) /* of what was never stored: answered at once */
        peer_call(consumer, 1, &purge_q3, AMQP_QUEUE_PURGE_OK);
    else if (_i == LAST_BY_DELETE)
        peer_send(consumer, 1, &delete_q3);
    if (_i == LAST_BY_ACK)
        expect_confirm(peer, 1, 1, false);
    peer_expect_nothing(peer);

    sync(&harness);
    expect_confirm(peer, 2, 1, false);
    peer_expect_nothing(peer);
    sync(&harness);
    if (_i != LAST_BY_ACK)
        expect_confirm(peer, 1, 1, false);
    peer_expect_nothing(peer);
    peer_expect(another, 1, AMQP_QUEUE_PURGE_OK);
    harness_release(&harness);
}
END_TEST

START_TEST(a_return_precedes_its_confirm) /* 9.5 */
{
    struct harness harness;
    struct peer *peer = set_confirm_scene(&harness);
    publish(peer, 1,
            &(struct amqp_client_message){.routing_key = SLICE("nowhere"),
                                          .properties = SLICE("\x10\x00\x02"),
                                          .body = SLICE("lost"),
                                          .mandatory = true});
    publish(peer, 1,
            &(struct amqp_client_message){.routing_key = SLICE("q"),
                                          .properties = SLICE("\x10\x00\x02"),
                                          .body = SLICE("found"),
                                          .mandatory = true});
    peer_expect_content(peer, 1, AMQP_BASIC_RETURN, "lost");
    expect_confirm(peer, 1, 1, false);
    peer_expect_nothing(peer);
    sync(&harness);
    expect_confirm(peer, 1, 2, false);
    peer_expect_nothing(peer);
    harness_release(&harness);
}
END_TEST

START_TEST(no_confirm_leaves_a_failed_store) /* 9.13 */
{
    struct harness harness;
    struct peer *peer = set_confirm_scene(&harness);
    harness.broker.on_store_failure = on_store_failure;
    publish_persistent(peer, 1, "q", "under way");
    publish_persistent(peer, 1, "q", "in the open batch");
    store_memory_fail(harness.store, ENOSPC);
    harness_advance(&harness, 1000);
    sync(&harness);
    publish_persistent(peer, 2, "q", "too late");
    sync(&harness);
    peer_expect_nothing(peer);
    ck_assert_int_eq(-ENOSPC, harness.broker.store_error);
    ck_assert(harness.loop.stopping);
    ck_assert_uint_eq(1, harness_logged(&harness, "the store has failed"));
    harness_restart(&harness, true);
    ck_assert_uint_eq(0, messages(&harness));
    harness_release(&harness);
}
END_TEST

START_TEST(what_was_confirmed_survives_a_crash) /* 9.13 */
{
    enum { COUNT = 20 };
    struct harness harness;
    struct peer *peer = set_confirm_scene(&harness);
    publish_persistent(peer, 1, "q", "first");
    for (int i = 1; i < COUNT; i++)
        publish_persistent(peer, 1, "q", "rest");
    for (int i = 0; i < _i; i++)
        sync(&harness);
    for (int i = 0; i < _i; i++)
        expect_confirm(peer, 1, i == 0 ? 1 : COUNT, i > 0);
    peer_expect_nothing(peer);
    harness_restart(&harness, true);
    ck_assert_uint_eq(_i == 0 ? 0 : _i == 1 ? 1 : COUNT, messages(&harness));
    harness_release(&harness);
}
END_TEST

int main(void)
{
    const int cases = (int)countof(reply_cases);
    Suite *suite = suite_create("durable_replies");

    TCase *replies = tcase_create("replies");
    tcase_add_loop_test(replies, no_reply_leaves_before_it_is_durable, 0, cases);
    tcase_add_loop_test(replies, no_reply_leaves_with_an_earlier_batch, 0, cases);
    tcase_add_loop_test(replies, what_was_answered_survives_a_crash, 0, cases * POINTS);
    tcase_add_loop_test(replies, no_reply_leaves_a_failed_store, 0, cases);
    tcase_add_loop_test(replies, who_waits_may_vanish, 0, cases);
    tcase_add_test(replies, what_is_not_durable_is_answered_at_once);
    tcase_add_test(replies, a_transaction_of_transient_messages_is_answered_at_once);
    tcase_add_test(replies, a_transaction_of_what_is_consumed_at_once_is_answered);
    suite_add_tcase(suite, replies);

    TCase *confirms = tcase_create("confirms");
    tcase_add_test(confirms, a_confirm_waits_for_its_batch);
    tcase_add_test(confirms, publishing_goes_on_while_confirms_wait);
    tcase_add_test(confirms, what_is_not_stored_is_confirmed_at_once);
    tcase_add_test(confirms, a_message_to_many_queues_is_confirmed_once);
    tcase_add_test(confirms, what_is_acked_in_the_open_batch_is_confirmed_at_once);
    tcase_add_loop_test(confirms, what_a_transaction_acks_is_confirmed_with_it, 0, 2);
    tcase_add_test(confirms, what_is_crowded_out_is_confirmed_with_what_took_its_place);
    tcase_add_test(confirms, what_a_queue_without_room_drops_is_confirmed);
    tcase_add_loop_test(confirms, a_confirm_waits_while_one_copy_is_left, 0, LAST_WAYS);
    tcase_add_test(confirms, a_return_precedes_its_confirm);
    tcase_add_test(confirms, no_confirm_leaves_a_failed_store);
    tcase_add_loop_test(confirms, what_was_confirmed_survives_a_crash, 0, 3);
    suite_add_tcase(suite, confirms);
    return unit_main(suite);
}
