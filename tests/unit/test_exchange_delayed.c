/* x-delayed-message (7.2): what waits and how long, in what order it leaves, and that a restart, a
 * crash, a transaction or the end of its exchange does with what waits what it does with any
 * message. */
#include "amqp/client.h"
#include "amqp/properties.h"
#include "amqp/table.h"
#include "core/vhost.h"
#include "store/memory.h"
#include "tests/lib/one_peer.h"
#include "tests/lib/unit.h"

/* ---- what a client does ---- */

static void put_type(struct buf *arguments, const char *type)
{
    amqp_table_put_string(arguments, SLICE("x-delayed-type"), slice_of_string(type));
}

static struct amqp_method declare_method(const char *name, bool durable, struct slice arguments)
{
    return (struct amqp_method){.id = AMQP_EXCHANGE_DECLARE,
                                .exchange_declare = {.exchange = slice_of_string(name),
                                                     .type = SLICE("x-delayed-message"),
                                                     .durable = durable,
                                                     .arguments = arguments}};
}

static void declare_exchange(const char *name, const char *type, bool durable)
{
    struct buf arguments = BUF_EMPTY;

    put_type(&arguments, type);
    const struct amqp_method declare = declare_method(name, durable, buf_slice(&arguments));
    peer_call(peer, 1, &declare, AMQP_EXCHANGE_DECLARE_OK);
    buf_release(&arguments);
}

static void declare_queue(const char *name)
{
    peer_call(
        peer, 1,
        &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                              .queue_declare = {.queue = slice_of_string(name), .durable = true}},
        AMQP_QUEUE_DECLARE_OK);
}

static void bind_queue(const char *exchange, const char *queue, const char *key)
{
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_BIND,
                                    .queue_bind = {.exchange = slice_of_string(exchange),
                                                   .queue = slice_of_string(queue),
                                                   .routing_key = slice_of_string(key)}},
              AMQP_QUEUE_BIND_OK);
}

static void delete_exchange(const char *name)
{
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_EXCHANGE_DELETE,
                                    .exchange_delete.exchange = slice_of_string(name)},
              AMQP_EXCHANGE_DELETE_OK);
}

/* Exchange "x" of this type, durable, and queue "q" bound to it with key "k". */
static void declare(const char *type)
{
    declare_exchange("x", type, true);
    declare_queue("q");
    bind_queue("x", "q", "k");
}

struct publish {
    const char *exchange, *body;
    struct slice headers;
    bool transient, mandatory;
};

static void publish_headers(const struct publish *publish)
{
    const struct amqp_properties properties = {
        .flags = AMQP_PROPERTY_HEADERS | AMQP_PROPERTY_DELIVERY_MODE,
        .headers = publish->headers,
        .delivery_mode = publish->transient ? AMQP_DELIVERY_TRANSIENT : AMQP_DELIVERY_PERSISTENT,
    };
    struct buf bytes = BUF_EMPTY, out = BUF_EMPTY;

    amqp_properties_encode(&bytes, &properties);
    amqp_client_publish(
        &out, 1, 131072,
        &(struct amqp_client_message){.exchange = slice_of_string(publish->exchange),
                                      .routing_key = SLICE("k"),
                                      .properties = buf_slice(&bytes),
                                      .mandatory = publish->mandatory,
                                      .body = slice_of_string(publish->body)});
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&bytes);
    buf_release(&out);
}

/* To "x", persistent, with this delay and another header. */
static void publish(const char *body, int64_t delay_ms)
{
    struct buf headers = BUF_EMPTY;

    amqp_table_put_i64(&headers, SLICE("x-delay"), delay_ms);
    amqp_table_put_bool(&headers, SLICE("other"), true);
    publish_headers(
        &(struct publish){.exchange = "x", .body = body, .headers = buf_slice(&headers)});
    buf_release(&headers);
}

static struct amqp_method get_method(const char *queue)
{
    return (struct amqp_method){.id = AMQP_BASIC_GET,
                                .basic_get = {.queue = slice_of_string(queue), .no_ack = true}};
}

static void expect_empty(const char *queue)
{
    const struct amqp_method get = get_method(queue);

    peer_call(peer, 1, &get, AMQP_BASIC_GET_EMPTY);
}

static void expect(const char *queue, const char *body)
{
    const struct amqp_method get = get_method(queue);

    peer_send(peer, 1, &get);
    peer_expect_content(peer, 1, AMQP_BASIC_GET_OK, body);
}

/* The headers of the next message of a queue; they live until the next frame is read. */
static struct slice get_headers(const char *queue)
{
    const struct amqp_method get = get_method(queue);
    struct amqp_content_header header;
    struct amqp_error error;
    struct amqp_frame frame;

    peer_call(peer, 1, &get, AMQP_BASIC_GET_OK);
    ck_assert(peer_next(peer, &frame) && frame.type == AMQP_FRAME_HEADER);
    ck_assert(amqp_content_header_decode(frame.payload, &header, &error));
    return amqp_properties_find(header.properties, AMQP_PROPERTY_HEADERS);
}

/* A leap: harness_advance would take years. */
static void leap(uint64_t ms)
{
    clock_advance(&harness.clock, ms);
    harness_run(&harness);
}

/* ---- how long ---- */

static const struct {
    const char *what;
    struct amqp_value value;
    uint64_t delay_ms; /* 0: none */
} delays[] = {
    {"int8", {.type = AMQP_INT8, .integer = 100}, 100},
    {"uint8", {.type = AMQP_UINT8, .integer = 200}, 200},
    {"int16", {.type = AMQP_INT16, .integer = 1000}, 1000},
    {"uint16", {.type = AMQP_UINT16, .integer = 60000}, 60000},
    {"int32", {.type = AMQP_INT32, .integer = 1000}, 1000},
    {"uint32", {.type = AMQP_UINT32, .integer = 4000000000}, 4000000000},
    {"int64", {.type = AMQP_INT64, .integer = 1}, 1},
    {"above 32 bits", {.type = AMQP_INT64, .integer = 4294967296 + 500}, 4294967796},
    {"ten years", {.type = AMQP_INT64, .integer = 315360000000}, 315360000000},
    {"for ever, nearly", {.type = AMQP_INT64, .integer = INT64_MAX}, INT64_MAX},
    {"a string of digits", {.type = AMQP_STRING, .bytes = {(const uint8_t *)"1500", 4}}, 1500},
    {"a double", {.type = AMQP_DOUBLE, .real = 1500.75}, 1500},
    {"zero", {.type = AMQP_INT32, .integer = 0}, 0},
    {"negative", {.type = AMQP_INT32, .integer = -1000}, 0},
    {"a negative string", {.type = AMQP_STRING, .bytes = {(const uint8_t *)"-15", 3}}, 0},
    {"no number", {.type = AMQP_STRING, .bytes = {(const uint8_t *)"soon", 4}}, 0},
    {"a huge double", {.type = AMQP_DOUBLE, .real = 1e300}, 0},
    {"a boolean", {.type = AMQP_BOOL, .boolean = true}, 0},
};

START_TEST(waits_as_long_as_the_header_says) /* 7.2 */
{
    const uint64_t delay_ms = delays[_i].delay_ms;
    struct buf headers = BUF_EMPTY;

    declare("direct");
    amqp_table_put(&headers, SLICE("x-delay"), &delays[_i].value);
    publish_headers(
        &(struct publish){.exchange = "x", .body = "m", .headers = buf_slice(&headers)});
    buf_release(&headers);
    if (delay_ms > 0) {
        expect_empty("q");
        leap(delay_ms - 1);
        expect_empty("q");
        leap(1);
    }
    expect("q", "m");
    expect_empty("q");
}
END_TEST

START_TEST(absent_delay_is_none) /* 7.2 */
{
    declare("direct");
    peer_publish(peer, 1, "x", "k", "plain");
    publish_headers(&(struct publish){.exchange = "x", .body = "headers"});
    expect("q", "plain");
    expect("q", "headers");
}
END_TEST

START_TEST(leaves_in_order_of_its_time) /* 7.2 */
{
    enum { COUNT = 700 }; /* more than two segments of a queue */
    char body[16];

    declare("fanout");
    publish("late", 3000);
    publish("early", 1000);
    for (int i = 0; i < COUNT; i++) {
        snprintf(body, sizeof(body), "%d", i);
        publish(body, 2000);
    }
    leap(5000);
    expect("q", "early");
    for (int i = 0; i < COUNT; i++) {
        snprintf(body, sizeof(body), "%d", i);
        expect("q", body);
    }
    expect("q", "late");
    expect_empty("q");
}
END_TEST

/* ---- where to, and as what ---- */

START_TEST(is_routed_by_its_delayed_type) /* 7.2 */
{
    declare_exchange("x", "topic", true);
    declare_queue("q");
    declare_queue("other");
    bind_queue("x", "q", "#");
    bind_queue("x", "other", "not.this");
    publish("m", 1000);
    leap(1000);
    expect("q", "m");
    expect_empty("other");
}
END_TEST

START_TEST(is_routed_by_the_bindings_of_its_time) /* 7.2 */
{
    declare_exchange("x", "direct", true);
    declare_queue("q");
    publish("m", 1000);
    bind_queue("x", "q", "k");
    leap(1000);
    expect("q", "m");
}
END_TEST

START_TEST(says_how_long_it_waited) /* 7.2: the sign is turned */
{
    const struct {
        int64_t delay_ms;
        uint8_t type;
    } cases[] = {{1000, AMQP_INT32}, {INT64_C(1) << 40, AMQP_INT64}};
    struct amqp_value value;

    declare("direct");
    publish("m", cases[_i].delay_ms);
    leap((uint64_t)cases[_i].delay_ms);
    const struct slice headers = get_headers("q");
    ck_assert(amqp_table_find(headers, SLICE("x-delay"), &value));
    ck_assert_int_eq(value.integer, -cases[_i].delay_ms);
    ck_assert_int_eq(value.type, cases[_i].type);
    ck_assert(amqp_table_find(headers, SLICE("other"), &value) && value.boolean);
}
END_TEST

START_TEST(is_not_kept_twice) /* 7.2: another delayed exchange behind it */
{
    declare("fanout");
    declare_exchange("first", "fanout", true);
    peer_call(peer, 1,
              &(struct amqp_method){
                  .id = AMQP_EXCHANGE_BIND,
                  .exchange_bind = {.source = SLICE("first"), .destination = SLICE("x")}},
              AMQP_EXCHANGE_BIND_OK);
    struct buf headers = BUF_EMPTY;
    amqp_table_put_i64(&headers, SLICE("x-delay"), 1000);
    publish_headers(
        &(struct publish){.exchange = "first", .body = "m", .headers = buf_slice(&headers)});
    buf_release(&headers);
    leap(999);
    expect_empty("q");
    leap(1);
    const struct amqp_method get = get_method("q");
    peer_send(peer, 1, &get);
    const struct amqp_method got = peer_expect(peer, 1, AMQP_BASIC_GET_OK);
    ck_assert(slice_equal(got.basic_get_ok.exchange, SLICE("first")));
    ck_assert(slice_equal(got.basic_get_ok.routing_key, SLICE("k")));
}
END_TEST

START_TEST(waits_behind_an_exchange_that_does_not_delay) /* 7.14 */
{
    declare("direct");
    peer_call(peer, 1,
              &(struct amqp_method){
                  .id = AMQP_EXCHANGE_BIND,
                  .exchange_bind = {.source = SLICE("amq.fanout"), .destination = SLICE("x")}},
              AMQP_EXCHANGE_BIND_OK);
    struct buf headers = BUF_EMPTY;
    amqp_table_put_i64(&headers, SLICE("x-delay"), 1000);
    publish_headers(
        &(struct publish){.exchange = "amq.fanout", .body = "m", .headers = buf_slice(&headers)});
    buf_release(&headers);
    expect_empty("q");
    leap(1000);
    expect("q", "m");
}
END_TEST

START_TEST(a_queue_of_the_same_name_is_another) /* 7.2 */
{
    declare_exchange("x", "fanout", true);
    declare_queue("x");
    bind_queue("x", "x", "");
    publish("m", 1000);
    expect_empty("x");
    leap(1000);
    expect("x", "m");
    publish("again", 1000);
    restart(false);
    leap(1000);
    expect("x", "again");
}
END_TEST

START_TEST(no_client_sees_where_it_waits) /* 7.2 */
{
    const struct vhost *vhost = vhost_find(&harness.broker, SLICE("/"));

    declare_exchange("x", "fanout", true);
    publish("m", 1000);
    ck_assert_uint_eq(vhost->queues.count, 0);
    ck_assert_uint_eq(harness.broker.counters.queues_declared, 0);
    peer_send(peer, 1,
              &(struct amqp_method){
                  .id = AMQP_QUEUE_DECLARE,
                  .queue_declare = {.queue = SLICE("x"), .passive = true, .durable = true}});
    peer_expect_close(peer, 1, 404, "NOT_FOUND - no queue 'x' in vhost '/'");
}
END_TEST

START_TEST(is_copied_and_keeps_its_secrets) /* 7.16 */
{
    struct buf headers = BUF_EMPTY;
    struct amqp_value value;

    declare("direct");
    declare_queue("cc");
    declare_queue("bcc");
    bind_queue("x", "cc", "c");
    bind_queue("x", "bcc", "b");
    size_t array = amqp_table_begin_array(&headers, SLICE("CC"));
    amqp_array_put_string(&headers, SLICE("c"));
    amqp_table_end(&headers, array);
    array = amqp_table_begin_array(&headers, SLICE("BCC"));
    amqp_array_put_string(&headers, SLICE("b"));
    amqp_table_end(&headers, array);
    amqp_table_put_i64(&headers, SLICE("x-delay"), 1000);
    publish_headers(
        &(struct publish){.exchange = "x", .body = "m", .headers = buf_slice(&headers)});
    buf_release(&headers);
    restart(false);
    leap(1000);
    expect("q", "m");
    expect("cc", "m");
    const struct slice got = get_headers("bcc");
    ck_assert(amqp_table_find(got, SLICE("CC"), &value));
    ck_assert(!amqp_table_find(got, SLICE("BCC"), &value));
}
END_TEST

START_TEST(a_dead_letter_keeps_its_history) /* 13.4, 13.6 */
{
    struct buf arguments = BUF_EMPTY, headers = BUF_EMPTY;
    struct amqp_value value;

    declare("fanout");
    amqp_table_put_string(&arguments, SLICE("x-dead-letter-exchange"), SLICE("x"));
    amqp_table_put_u32(&arguments, SLICE("x-message-ttl"), 1);
    peer_call(peer, 1,
              &(struct amqp_method){
                  .id = AMQP_QUEUE_DECLARE,
                  .queue_declare = {.queue = SLICE("k"), .arguments = buf_slice(&arguments)}},
              AMQP_QUEUE_DECLARE_OK);
    amqp_table_put_i64(&headers, SLICE("x-delay"), 1000);
    publish_headers(&(struct publish){.exchange = "", .body = "m", .headers = buf_slice(&headers)});
    buf_release(&arguments);
    buf_release(&headers);
    leap(1);
    expect_empty("q");
    leap(1000);
    ck_assert(amqp_table_find(get_headers("q"), SLICE("x-death"), &value));
}
END_TEST

/* ---- the disk ---- */

START_TEST(waits_on_over_a_restart) /* 7.2, 8.15 */
{
    const bool crash = _i == 1;

    declare("direct");
    publish("soon", 1000);
    publish("later", 10000);
    publish("long", INT64_C(1) << 33);
    leap(500);
    restart(crash);
    expect_empty("q");
    leap(499);
    expect_empty("q");
    leap(1);
    expect("q", "soon");
    restart(crash);
    clock_advance(&harness.clock, 20000);
    restart(crash);
    expect("q", "later");
    expect_empty("q");
    leap(UINT64_C(1) << 33);
    expect("q", "long");
    restart(crash);
    expect_empty("q");
}
END_TEST

START_TEST(its_delivery_mode_does_not_count_while_it_waits) /* 7.2 */
{
    struct buf headers = BUF_EMPTY;

    declare("direct");
    amqp_table_put_i64(&headers, SLICE("x-delay"), 1000);
    publish_headers(&(struct publish){
        .exchange = "x", .body = "m", .headers = buf_slice(&headers), .transient = true});
    buf_release(&headers);
    restart(true);
    leap(1000);
    expect("q", "m");
    restart(true);
    expect_empty("q");
}
END_TEST

START_TEST(ends_with_an_exchange_that_is_not_durable) /* 7.9 */
{
    declare_exchange("x", "fanout", false);
    publish("m", 1000);
    restart(false);
    declare_exchange("x", "fanout", false);
    declare_queue("q");
    bind_queue("x", "q", "");
    leap(1000);
    expect_empty("q");
}
END_TEST

START_TEST(moves_in_one_batch) /* DESIGN, promise 3 */
{
    declare("direct");
    publish("m", 1000);
    store_memory_set_auto_sync(harness.store, false);
    leap(1000); /* deleted there and put here, neither of it on disk */
    restart(true);
    expect("q", "m");
    expect_empty("q");
    restart(true);
    expect_empty("q");
}
END_TEST

START_TEST(many_are_read_back) /* 7.2 */
{
    enum { COUNT = 3000 }; /* more than one read brings */
    char body[16];

    declare("direct");
    for (int i = 0; i < COUNT; i++) {
        snprintf(body, sizeof(body), "%d", i);
        publish(body, 1000 + i / 1000);
    }
    restart(true);
    leap(2000);
    for (int i = 0; i < COUNT; i++) {
        snprintf(body, sizeof(body), "%d", i);
        expect("q", body);
    }
}
END_TEST

/* ---- publishers ---- */

START_TEST(mandatory_is_content_with_waiting) /* 9.5 */
{
    struct buf headers = BUF_EMPTY;

    declare_exchange("x", "direct", true);
    amqp_table_put_i64(&headers, SLICE("x-delay"), 1000);
    publish_headers(&(struct publish){
        .exchange = "x", .body = "m", .headers = buf_slice(&headers), .mandatory = true});
    buf_release(&headers);
    peer_expect_nothing(peer);
    leap(1000);
    peer_expect_nothing(peer);
    publish_headers(&(struct publish){.exchange = "x", .body = "now", .mandatory = true});
    peer_expect_content(peer, 1, AMQP_BASIC_RETURN, "now");
}
END_TEST

START_TEST(is_confirmed_when_it_is_on_disk) /* 9.10 */
{
    declare("direct");
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_CONFIRM_SELECT}, AMQP_CONFIRM_SELECT_OK);
    store_memory_set_auto_sync(harness.store, false);
    publish("m", 1000);
    peer_expect_nothing(peer);
    store_memory_sync(harness.store);
    harness_run(&harness);
    peer_expect(peer, 1, AMQP_BASIC_ACK);
    restart(true);
    leap(1000);
    expect("q", "m");
}
END_TEST

START_TEST(due_before_it_is_on_disk_is_confirmed_where_it_goes) /* 9.10 */
{
    declare("direct");
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_CONFIRM_SELECT}, AMQP_CONFIRM_SELECT_OK);
    store_memory_set_auto_sync(harness.store, false);
    publish("first", 0); /* its batch is on the way; the next stays open */
    publish("m", 1);
    leap(1);
    peer_expect_nothing(peer);
    store_memory_sync(harness.store);
    harness_run(&harness);
    peer_expect(peer, 1, AMQP_BASIC_ACK);
    peer_expect_nothing(peer);
    store_memory_sync(harness.store);
    harness_run(&harness);
    ck_assert_uint_eq(peer_expect(peer, 1, AMQP_BASIC_ACK).basic_ack.delivery_tag, 2);
    restart(true);
    expect("q", "first");
    expect("q", "m");
}
END_TEST

START_TEST(a_transaction_may_wait) /* 9.15 */
{
    declare("direct");
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
    publish("dropped", 1000);
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_TX_ROLLBACK}, AMQP_TX_ROLLBACK_OK);
    publish("m", 1000);
    leap(5000);
    expect_empty("q");
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_TX_COMMIT}, AMQP_TX_COMMIT_OK);
    restart(true);
    leap(1000);
    expect("q", "m");
    expect_empty("q");
}
END_TEST

/* ---- the exchange ---- */

START_TEST(what_waits_goes_with_its_exchange) /* 7.6 */
{
    declare("direct");
    publish("m", 1000);
    delete_exchange("x");
    declare("direct");
    leap(1000);
    expect_empty("q");
    publish("again", 1000);
    delete_exchange("x");
    restart(true);
    ck_assert_uint_eq(harness_logged(&harness, "cannot be read"), 0);
    declare("direct");
    leap(1000);
    expect_empty("q");
    ck_assert_uint_eq(harness.broker.queues.count, 1);
}
END_TEST

START_TEST(its_end_settles_what_was_not_on_disk) /* 7.6, 9.10 */
{
    declare("direct");
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_CONFIRM_SELECT}, AMQP_CONFIRM_SELECT_OK);
    store_memory_set_auto_sync(harness.store, false);
    publish("first", 0);
    publish("m", 1000);
    peer_send(
        peer, 1,
        &(struct amqp_method){.id = AMQP_EXCHANGE_DELETE, .exchange_delete.exchange = SLICE("x")});
    peer_expect_nothing(peer);
    for (int i = 0; i < 2; i++) {
        store_memory_sync(harness.store);
        harness_run(&harness);
    }
    ck_assert_uint_eq(peer_expect(peer, 1, AMQP_BASIC_ACK).basic_ack.delivery_tag, 1);
    peer_expect(peer, 1, AMQP_EXCHANGE_DELETE_OK);
    ck_assert_uint_eq(peer_expect(peer, 1, AMQP_BASIC_ACK).basic_ack.delivery_tag, 2);
}
END_TEST

static const struct {
    const char *type; /* NULL: not given */
    const char *text;
} refusals[] = {
    {NULL, "PRECONDITION_FAILED - Invalid argument, 'x-delayed-type' must be an existing exchange "
           "type"},
    {"x-delayed-message", "PRECONDITION_FAILED - Invalid argument, 'x-delayed-type' must be an "
                          "existing exchange type"},
    {"x-unheard-of", "PRECONDITION_FAILED - unknown exchange type 'x-unheard-of'"},
};

START_TEST(needs_a_delayed_type) /* 7.2 */
{
    struct buf arguments = BUF_EMPTY;

    if (refusals[_i].type != NULL)
        put_type(&arguments, refusals[_i].type);
    const struct amqp_method declare = declare_method("x", true, buf_slice(&arguments));
    peer_send(peer, 1, &declare);
    peer_expect_close(peer, 1, 406, refusals[_i].text);
    buf_release(&arguments);
}
END_TEST

START_TEST(checks_bindings_as_its_delayed_type_does) /* 7.17 */
{
    declare_exchange("x", "x-consistent-hash", true);
    declare_queue("q");
    peer_send(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_BIND,
                                    .queue_bind = {.exchange = SLICE("x"),
                                                   .queue = SLICE("q"),
                                                   .routing_key = SLICE("no weight")}});
    peer_expect_close(peer, 1, 406, "PRECONDITION_FAILED - *");
}
END_TEST

static Suite *exchange_delayed_suite(void)
{
    Suite *suite = suite_create("exchange_delayed");
    TCase *tests = tcase_create("delayed");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, waits_as_long_as_the_header_says, 0, countof(delays));
    tcase_add_test(tests, absent_delay_is_none);
    tcase_add_test(tests, leaves_in_order_of_its_time);
    tcase_add_test(tests, is_routed_by_its_delayed_type);
    tcase_add_test(tests, is_routed_by_the_bindings_of_its_time);
    tcase_add_loop_test(tests, says_how_long_it_waited, 0, 2);
    tcase_add_test(tests, is_not_kept_twice);
    tcase_add_test(tests, waits_behind_an_exchange_that_does_not_delay);
    tcase_add_test(tests, a_queue_of_the_same_name_is_another);
    tcase_add_test(tests, no_client_sees_where_it_waits);
    tcase_add_test(tests, is_copied_and_keeps_its_secrets);
    tcase_add_test(tests, a_dead_letter_keeps_its_history);
    tcase_add_loop_test(tests, waits_on_over_a_restart, 0, 2);
    tcase_add_test(tests, its_delivery_mode_does_not_count_while_it_waits);
    tcase_add_test(tests, ends_with_an_exchange_that_is_not_durable);
    tcase_add_test(tests, moves_in_one_batch);
    tcase_add_test(tests, many_are_read_back);
    tcase_add_test(tests, mandatory_is_content_with_waiting);
    tcase_add_test(tests, is_confirmed_when_it_is_on_disk);
    tcase_add_test(tests, due_before_it_is_on_disk_is_confirmed_where_it_goes);
    tcase_add_test(tests, a_transaction_may_wait);
    tcase_add_test(tests, what_waits_goes_with_its_exchange);
    tcase_add_test(tests, its_end_settles_what_was_not_on_disk);
    tcase_add_loop_test(tests, needs_a_delayed_type, 0, countof(refusals));
    tcase_add_test(tests, checks_bindings_as_its_delayed_type_does);
    suite_add_tcase(suite, tests);
    return suite;
}

int main(void)
{
    return unit_main(exchange_delayed_suite());
}
